package flash

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

var (
	faults = flag.Int("faults", 0, "how many random faults TestFaults tries; 0: 6, or 600 in the long form")
	first  = flag.Uint64("seed", 1, "the first seed of TestFaults")
)

// A mishap is what goes wrong in one run: something of the bootloader's, and the
// power, the connections or the person's patience at some moment.
type mishap struct {
	model, nand, board string
	eva                evabox.Faults
	window             time.Duration
	cut                time.Duration // the power fails that long after it came
	back               time.Duration // and comes again so much later; 0: it stays off
	drop               time.Duration // every SSH connection ends
	stop               time.Duration // Ctrl-C
}

func (m mishap) String() string {
	return fmt.Sprintf("%s%s cut %s back %s drop %s stop %s window %s faults %+v", m.model, m.nand, m.cut, m.back, m.drop, m.stop, m.window, m.eva)
}

func randomMishap(rnd *rand.Rand) mishap {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	upTo := func(d time.Duration) time.Duration { return 1 + time.Duration(rnd.Int64N(int64(d))) }
	m := mishap{model: pick("4040", "4040", "7412", "7490", "7530", "7520", "450E", "7320", "3370"), window: 1500*time.Millisecond + upTo(8*time.Second)}
	switch m.model {
	case "7490":
		m.nand = pick("2CF1809504", "98D1901576")
	case "3370":
		m.nand, m.board = "2CF1809504", "avm_fritz3370-rev2-micron"
	}
	f := &m.eva
	for range 1 + rnd.IntN(2) {
		switch rnd.IntN(16) {
		case 0:
			f.UDP, f.UDPDelay = pick("off", "report", "slow"), upTo(time.Second)
		case 1:
			f.Segments, f.TwoLines = pick("", "bytes"), rnd.IntN(2) == 0
		case 2:
			f.ResetConnects, f.BannerDelay = rnd.IntN(5), upTo(5*time.Second)
		case 3:
			f.ResetErase = true
		case 4, 5:
			f.ResetAt = 1 + rnd.Int64N(800_000)
		case 6, 7:
			f.PowerCutAt = 1 + rnd.Int64N(800_000)
		case 8:
			f.PowerCutErase = true
		case 9:
			verb := pick("banner", "USER", "PASS", "SYST", "TYPE", "MEDIA", "P@SW", "PASV", "RETR", "sent", "SETENV", "STOR", "stored150", "stored", "executed", "CHECK", "REBOOT")
			f.Replies = map[string]string{verb: pick("-", "500 what", "something else", "200 fine", "421 Service not available", "553 Flash erase failed.")}
		case 10:
			f.Check, f.NoEnv = pick("wrong", "lower", "short", "silent"), rnd.IntN(2) == 0
		case 11:
			f.RebootAfter = 2500*time.Millisecond + upTo(30*time.Second)
		case 12:
			f.RAM, f.RAMDead = pick("553", "silent", ""), rnd.IntN(2) == 0
		case 13:
			m.cut = upTo(4 * time.Minute)
			if rnd.IntN(2) == 0 {
				m.back = time.Second + upTo(20*time.Second)
			}
		case 14:
			m.drop = upTo(4 * time.Minute)
		case 15:
			m.stop = upTo(5 * time.Minute)
		}
	}
	if rnd.IntN(20) == 0 {
		f.Moves = netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + rnd.IntN(200))})
	}
	return m
}

// Hundreds of mishaps at every step and byte: never a bricked box, always words that
// help, and the same command once more, with everything in order again, ends with
// OpenWrt running.
func TestFaults(t *testing.T) {
	n := *faults
	if n == 0 {
		n = 6
		if need.Long() {
			n = 600
		}
	}
	codes := map[string]int{}
	for seed := *first; seed < *first+uint64(n); seed++ {
		m := randomMishap(rand.New(rand.NewPCG(seed, 4040)))
		if t.Failed() {
			break
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d: %s", seed, m)
				}
			}()
			in(t, m.model, func(o *device.Options) {
				o.NAND, o.EVA.Faults, o.EVA.Times.Window = m.nand, m.eva, m.window
			}, func(r *rig) { codes[r.mishap(m)]++ })
		})
	}
	t.Logf("ends: %v", codes)
}

// mishap runs into it, and once more without it.
func (r *rig) mishap(m mishap) (code string) {
	all := r.ctx
	ctx, stop := context.WithCancel(all)
	defer stop()
	r.ctx, r.opt.Board, r.opt.Wait = ctx, m.board, 90*time.Second
	var timers []*time.Timer
	at := func(d time.Duration, do func()) {
		if d > 0 {
			timers = append(timers, time.AfterFunc(d, do))
		}
	}
	r.powerSoon(time.Second)
	at(m.cut, func() { r.box.Power(false) })
	if m.back > 0 {
		at(m.cut+m.back, func() { r.box.Power(true) })
	}
	at(m.drop, func() {
		if ram := r.box.RAM(); ram != nil {
			ram.CutConnections()
		}
		r.box.Router.CutConnections()
	})
	at(m.stop, stop)
	_, err := r.run()
	code = "done"
	if err != nil {
		f := fault.Find(err)
		if f == nil || f.Code == "flash-failed" || len(f.Next) == 0 || f.What == "" || f.Kind == fault.Bug {
			r.t.Errorf("%s\n%s\n%s", explained(err), r.text(), r.box.Log())
			return "?"
		}
		code = f.Code
		if f.Code == "already-openwrt" {
			r.t.Errorf("it is said to be done after an unfinished run\n%s\n%s", r.text(), r.box.Log())
		}
	} else {
		r.runs()
	}
	for _, x := range timers {
		x.Stop()
	}
	if slices.ContainsFunc(r.box.EVA.Stores(), func(s string) bool { return s == "mtd2" || s == "mtd3" || s == "mtd4" }) {
		r.t.Errorf("STOR %v", r.box.EVA.Stores())
	}
	// Everything in order again.
	r.box.Power(false)
	r.box.EVA.Mend()
	r.ctx, r.opt.Again, r.opt.Wait = all, true, 10*time.Minute
	r.mu.Lock()
	r.said, r.obeys = nil, true
	r.mu.Unlock()
	r.powerSoon(2 * time.Second)
	if res, err := r.run(); err != nil || res.Board.Release.Version != version {
		r.t.Errorf("the next run: %s %+v\n%s\n%s", explained(err), res, r.text(), r.box.Log())
		return code
	}
	r.runs()
	return code
}
