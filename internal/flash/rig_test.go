package flash

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/evabox"
	"github.com/heimweg/heimweg/internal/lab/world"
)

// rig is a boxed device at home, a computer at its yellow port, and a shelf with
// every right file.
type rig struct {
	t     *testing.T
	ctx   context.Context
	w     *world.World
	box   *device.Box
	cable *world.Cable
	opt   Options

	mu     sync.Mutex
	said   []event.Event
	obeys  bool // a person follows the hints
	needed []Need
}

// in runs f in a bubble with a boxed device that has no power yet.
func in(t *testing.T, model string, change func(*device.Options), f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Hour)
		defer stop()
		o := world.Options{FromStock: true, Device: device.Options{EVA: evabox.Options{Model: model}}}
		o.Router.FormatTime = 6 * time.Second
		if change != nil {
			change(&o.Device)
		}
		w, err := world.New(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		r := &rig{t: t, ctx: ctx, w: w, box: w.Device, cable: w.Cable()}
		r.opt = Options{Cable: r.cable, Files: r.files, Tell: r.told, Wait: 20 * time.Minute}
		f(r)
		if r.box.EVA.Bricked() {
			t.Error("the bootloader was overwritten")
		}
	})
}

func (r *rig) told(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, e)
	if r.obeys && e.Kind == event.Note && e.Stage == "hint" && strings.Contains(e.Text, "wait 5 s, and plug it in again") {
		r.box.Power(false)
		r.powerSoon(5 * time.Second)
	}
}

// text is everything that was told, without progress.
func (r *rig) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.said {
		if e.Kind != event.Progress {
			fmt.Fprintf(&b, "%s %s: %s\n", e.Kind, e.Stage, e.Text)
		}
	}
	return b.String()
}

func (r *rig) says(words ...string) {
	r.t.Helper()
	text := r.text()
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Errorf("no %q in\n%s", w, text)
		}
	}
}

const version = "24.10.7"

// files is the shelf.
func (r *rig) files(_ context.Context, needs []Need) ([]File, error) {
	r.mu.Lock()
	r.needed = append(r.needed, needs...)
	r.mu.Unlock()
	var out []File
	for _, n := range needs {
		out = append(out, File{Role: n.Role, Name: n.Type + n.UBoot + ".bin", Data: shelf(n), Signed: "signed by OpenWrt (test)"})
	}
	return out, nil
}

var shelved sync.Map // making them costs more than a run

func shelf(n Need) []byte {
	if d, ok := shelved.Load(n); ok {
		return d.([]byte)
	}
	o := imagetest.Options{Board: strings.Replace(n.Profile, "_", ",", 1), Version: version, Kernel: 20_000, Root: 50_000}
	var d []byte
	switch {
	case n.UBoot != "":
		d = imagetest.UBoot(strings.ToUpper(n.UBoot))
	case n.Type == "eva":
		d = imagetest.EVA(o)
	case n.Type == "sysupgrade":
		d = imagetest.Sysupgrade(o)
	case n.Type == "kernel":
		d = imagetest.Initramfs(o)
	case n.Type == "eva-kernel":
		d = imagetest.EVAKernel(o)
	case n.Type == "eva-filesystem":
		d = imagetest.EVAFileSystem(o)
	}
	shelved.Store(n, d)
	return d
}

// given are files that a person names.
func (r *rig) given(data ...[]byte) {
	r.t.Helper()
	var files []File
	for i, d := range data {
		files = append(files, File{Name: fmt.Sprintf("file%d.bin", i), Data: d})
	}
	files, err := Check(files, r.opt.Board)
	if err != nil {
		r.t.Fatalf("Check: %v", err)
	}
	r.opt.Given = files
}

// powerSoon switches the box on a while after the run has begun.
func (r *rig) powerSoon(after time.Duration) {
	time.AfterFunc(after, func() { r.box.Power(true) })
}

func (r *rig) find() *Session {
	r.t.Helper()
	s, err := Find(r.ctx, r.opt)
	if err != nil {
		r.t.Fatalf("Find: %v\n%s\n%s", explained(err), r.text(), r.box.Log())
	}
	return s
}

// run is a whole run.
func (r *rig) run() (Result, error) {
	s, err := Find(r.ctx, r.opt)
	if err != nil {
		return Result{}, err
	}
	defer s.Close()
	if err := s.Write(r.ctx); err != nil {
		return Result{}, err
	}
	return s.FirstBoot(r.ctx, true)
}

// runs: the box runs the release that was written.
func (r *rig) runs() {
	r.t.Helper()
	if got := r.box.Runs(); got != device.OpenWrt {
		r.t.Errorf("runs %q\n%s\n%s", got, r.text(), r.box.Log())
	}
}

// untouched: nothing at all was written to the box, nor set.
func (r *rig) untouched() {
	r.t.Helper()
	if got := r.box.EVA.Stores(); len(got) != 0 {
		r.t.Errorf("STOR %v", got)
	}
	for _, l := range r.box.EVA.Record() {
		if strings.HasPrefix(l, "> SETENV") {
			r.t.Errorf("sent %q", l)
		}
	}
}

// explained shows a fault whole.
func explained(err error) string {
	f := fault.Find(err)
	if f == nil {
		return fmt.Sprintf("NO FAULT: %v", err)
	}
	return fmt.Sprintf("%s: %s\n seen %s\n why %s\n next %s", f.Code, f.What, strings.Join(f.Seen, "\n      "), strings.Join(f.Why, "\n     "), strings.Join(f.Next, "\n      "))
}

// is: the failure has this code, and words that help.
func (r *rig) is(err error, codes ...string) {
	r.t.Helper()
	f := fault.Find(err)
	if f == nil || !slices.Contains(codes, f.Code) || len(f.Next) == 0 {
		r.t.Errorf("%s\nwanted %v\n%s\n%s", explained(err), codes, r.text(), r.box.Log())
	}
}

// The five methods, in the long form on every model that the emulator has.
func TestMethods(t *testing.T) {
	for _, c := range []struct {
		model, board string
		nand         string
		long         bool
	}{
		{model: "4040"}, {model: "7530"}, {model: "7520", long: true}, {model: "7412"}, {model: "7320", long: true}, {model: "450E"},
		{model: "7490", nand: "2CF1809504"}, {model: "7490", nand: "98D1901576"},
		{model: "3370", nand: "2CF1809504", board: "avm_fritz3370-rev2-micron"}, {model: "3370", nand: "ADF1801D01", board: "avm_fritz3370-rev2-hynix", long: true},
	} {
		if c.long && !need.Long() {
			continue
		}
		t.Run(c.model+c.nand, func(t *testing.T) {
			in(t, c.model, func(o *device.Options) { o.NAND = c.nand }, func(r *rig) {
				r.opt.Board = c.board
				r.powerSoon(5 * time.Second)
				s := r.find()
				d := s.Describe()
				if len(d.Files) == 0 || len(d.Steps) == 0 || d.Model == "" || d.Continues {
					t.Errorf("%+v", d)
				}
				if len(r.box.EVA.Stores()) != 0 {
					t.Error("written before the question")
				}
				if err := s.Write(r.ctx); err != nil {
					t.Fatalf("%s\n%s\n%s", explained(err), r.text(), r.box.Log())
				}
				res, err := s.FirstBoot(r.ctx, true)
				if err != nil {
					t.Fatalf("%s\n%s\n%s", explained(err), r.text(), r.box.Log())
				}
				r.runs()
				if res.Board.Release.Version != version || !res.Settled || !s.isOurs(res.Board.Name) {
					t.Errorf("%+v", res)
				}
				if s.method == image.FromUBoot {
					r.says("U-Boot fetches FRITZ" + c.model + ".bin")
				}
				if unknown := r.box.Router.Unknown(); len(unknown) > 0 {
					t.Errorf("the emulator lacks %v", unknown)
				}
			})
		})
	}
}
