package eva

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// A way is one kind of box with files for it.
type way struct {
	model  string
	roles  []Role
	images [][]byte
	stores []string // all that STOR may name
	runs   string
}

var ways = []way{
	{"4040", []Role{Firmware}, [][]byte{evabox.Image4040(20_000, 30_000)}, []string{"mtd1"}, evabox.OpenWrt},
	{"450E", []Role{Firmware}, [][]byte{evabox.ImageNOR(60_000, 100_000)}, []string{"mtd1"}, evabox.OpenWrt},
	{"3370", []Role{Kernel, Filesystem}, [][]byte{evabox.ImageRAM(50_000, false), bytes.Repeat([]byte("ubi"), 20_000)}, []string{"mtd1", "mtd0"}, ""},
	{"7412", []Role{Initramfs}, [][]byte{evabox.ImageRAM(400_000, false)}, []string{"0x87f9e000 0x88000000"}, evabox.OpenWrt},
}

// once is one evening: find, read, plan, send, start.
func (w way) once(b *bench) (out Outcome, sent, err error) {
	ctx, stop := context.WithTimeout(b.ctx, 20*time.Second) // a window has passed by then
	defer stop()
	box, err := Find(ctx, b.net, Ask{Want: Home})
	if err != nil {
		return out, nil, err
	}
	defer box.Close()
	e, err := box.Environment(b.ctx)
	if err != nil {
		return out, nil, err
	}
	var files []File
	var readers []io.Reader
	for i, image := range w.images {
		files, readers = append(files, file(w.roles[i], image)), append(readers, bytes.NewReader(image))
	}
	p, err := NewPlan(e, files...)
	if err != nil {
		return out, nil, err
	}
	if out, err = box.Send(b.ctx, p, nil, readers...); err != nil || p.ram != nil {
		return out, err, err
	}
	return out, nil, box.Reboot(b.ctx)
}

func (w way) size() (n int64) {
	for _, i := range w.images {
		n += int64(len(i))
	}
	return n
}

// same reports whether the box holds all that was sent.
func (w way) same(b *bench) bool {
	for i, part := range w.stores {
		if strings.HasPrefix(part, "mtd") && !bytes.Equal(b.box.Flash(part), w.images[i]) {
			return false
		}
	}
	return true
}

// Random faults, hundreds in the long form, over all knobs, steps and bytes, on every kind of box:
// never a bricked box, never a success that is none, nothing written that was not
// planned, every error of a kind that the flow can explain and honest about what
// was erased, and the next run ends well.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	runs := 80
	if need.Long() {
		runs = 500
	}
	used := map[string]bool{}
	for seed := range runs {
		w := ways[seed%len(ways)]
		f := randomFaults(rand.New(rand.NewPCG(7, uint64(seed))), w.size(), used)
		opt := evabox.Options{Model: w.model, Faults: f, Times: evabox.Times{Window: time.Duration(1500+seed*61%8500) * time.Millisecond}}
		in(t, opt, func(b *bench) {
			out, sent, err := w.once(b)
			said := fmt.Sprintf("%d: %s %+v: %v", seed, w.model, f, err)
			judge(b, w, said, out, sent, err)
			b.box.Power(false)
			b.box.Mend()
			b.box.Power(true)
			out, _, err = w.once(b)
			if err != nil || !w.same(b) || slices.ContainsFunc(out.Checks, func(c Check) bool { return c.Verdict != Same }) {
				t.Errorf("%s\nthe next run: %v %+v", said, err, out)
			}
			if w.runs != "" {
				b.runs(w.runs)
			}
		})
	}
	for i := range reflect.TypeFor[evabox.Faults]().NumField() {
		if name := reflect.TypeFor[evabox.Faults]().Field(i).Name; !used[name] {
			t.Errorf("the fault %s was never used", name)
		}
	}
}

// judge looks at a run that may have failed.
func judge(b *bench, w way, said string, out Outcome, sent, err error) {
	b.t.Helper()
	for _, s := range b.box.Stores() {
		if !slices.Contains(w.stores, s) {
			b.t.Errorf("%s: STOR %s", said, s)
		}
	}
	touched := false
	for _, part := range []string{"mtd0", "mtd1"} {
		touched = touched || b.box.Flash(part) != nil
	}
	switch {
	case err == nil && !slices.ContainsFunc(out.Checks, func(c Check) bool { return c.Verdict != Same }) && !w.same(b):
		b.t.Errorf("%s: said to be the same and is not", said)
	case sent != nil && touched && !Erased(sent):
		b.t.Errorf("%s: erased, and does not say so", said)
	case touched && !strings.HasPrefix(w.stores[0], "mtd"):
		b.t.Errorf("%s: flash was written", said)
	}
	if err == nil {
		return
	}
	known := erasedIn(err) != nil
	for _, kind := range []any{new(*NotFoundError), new(*UnknownBoardError), new(*BoxError)} {
		known = known || errors.As(err, kind)
	}
	if !known {
		b.t.Errorf("%s: an error of kind %T", said, err)
	}
	for _, secret := range []string{"12345678901234567890", "geheim1234"} {
		if strings.Contains(err.Error(), secret) {
			b.t.Errorf("%s: tells a secret", said)
		}
	}
}

// randomFaults sets one knob, or two; size is how much is sent.
func randomFaults(rnd *rand.Rand, size int64, used map[string]bool) (f evabox.Faults) {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	upTo := func(d time.Duration) time.Duration { return 1 + time.Duration(rnd.Int64N(int64(d))) }
	knobs := map[string]func(){
		"UDP":           func() { f.UDP = pick("off", "report", "slow") },
		"UDPDelay":      func() { f.UDP, f.UDPDelay = "slow", upTo(time.Second) },
		"Passive":       func() { f.Passive = pick("P@SW", "PASV", "none") },
		"Form227":       func() { f.Form227 = pick("Entering Passive Mode %s", "=%s", "%.0s", "(%s", "0,0,0,0,0,0 %s") },
		"WrongAddress":  func() { f.WrongAddress = true },
		"Segments":      func() { f.Segments = "bytes" },
		"BannerDelay":   func() { f.BannerDelay = upTo(5 * time.Second) },
		"ResetConnects": func() { f.ResetConnects = 1 + rnd.IntN(5) },
		"ResetErase":    func() { f.ResetErase = true },
		"ResetAt":       func() { f.ResetAt = 1 + rnd.Int64N(size) },
		"PowerCutAt":    func() { f.PowerCutAt = 1 + rnd.Int64N(size) },
		"PowerCutErase": func() { f.PowerCutErase = true },
		"NeverErased":   func() { f.NeverErased = true },
		"Replies": func() {
			verb := pick("banner", "USER", "PASS", "SYST", "TYPE", "MEDIA", "P@SW", "PASV", "RETR", "sent", "SETENV", "STOR", "stored150", "stored", "executed", "CHECK", "REBOOT")
			f.Replies = map[string]string{verb: pick("-", "500 what", "something else", "200 fine", "421 Service not available", "553 Flash erase failed.", "150", "226-", "wlan_key  12345678901234567890")}
		},
		"TwoLines":    func() { f.TwoLines = true },
		"Check":       func() { f.Check = pick("wrong", "lower", "short", "silent") },
		"NoEnv":       func() { f.NoEnv = true },
		"NoGetenv":    func() { f.NoEnv, f.NoGetenv = rnd.IntN(2) == 0, true },
		"RebootAfter": func() { f.RebootAfter = 2500*time.Millisecond + upTo(12*time.Second) },
		"Second":      func() { f.Second = "served" },
		"Moves":       func() { f.Moves = netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + rnd.IntN(200))}) },
		"RAM":         func() { f.RAM = pick("553", "silent") },
		"RAMDead":     func() { f.RAMDead = true },
		"Flaps": func() {
			for range 2 * (1 + rnd.IntN(3)) {
				f.Flaps = append(f.Flaps, upTo(3*time.Second))
			}
			slices.Sort(f.Flaps)
		},
	}
	names := make([]string, 0, len(knobs))
	for name := range knobs {
		names = append(names, name)
	}
	slices.Sort(names)
	for range 1 + rnd.IntN(2) {
		name := pick(names...)
		knobs[name]()
		used[name] = true
	}
	return f
}
