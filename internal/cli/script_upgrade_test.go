package cli

import (
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/router"
)

var models = map[string]string{"avm,fritzbox-7530": "AVM FRITZ!Box 7530", "avm,fritz4020": "AVM FRITZ!Box 4020"}

// inside says which packages an image of the mirror holds.
func (s *stage) inside(image []byte) []string {
	if s.m == nil {
		return nil
	}
	made, _ := s.m.Lookup(image)
	return made.Packages
}

// scriptCut takes the power away while sysupgrade writes; the person sees the box
// go dark and presses Ctrl-C.
func scriptCut(ts *testscript.TestScript, _ bool, args []string) {
	whileWriting(ts, strings.Join(args, " "), owrt.PowerCut)
}

// whileWriting does something to the box as sysupgrade is about to write a part, and
// ends heimweg's run.
func whileWriting(ts *testscript.TestScript, part string, do owrt.Action) {
	s := stageOf(ts)
	var once sync.Once // the box that is put in this one's place has no hook
	box := home0(ts).Router
	box.SetHook(func(e owrt.Event) owrt.Action {
		if e.Kind != owrt.Flashing || e.Path != part {
			return owrt.Continue
		}
		once.Do(func() {
			s.life.Store(int64(box.Boots()))
			if c := s.ctrlC.Load(); c != nil {
				(*c)()
			}
		})
		return do
	})
}

// scriptInterrupt presses Ctrl-C in the next run: after a time, or when the router
// is about to write a part.
func scriptInterrupt(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		whileWriting(ts, strings.Join(args, " "), owrt.Continue)
		return
	}
	stageOf(ts).interrupt = d
}

// scriptRuns waits until the box has started anew with a release, and the home has
// settled.
func scriptRuns(ts *testscript.TestScript, _ bool, args []string) {
	w, life := home0(ts), stageOf(ts).life.Load()
	ctx, cancel := within(time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for int64(w.Router.Boots()) == life {
		select {
		case <-ctx.Done():
			ts.Fatalf("the box did not start anew")
		case <-tick.C:
		}
	}
	ts.Check(w.Router.WaitBoot(ctx))
	if v := w.Router.Version(); v != args[0] {
		ts.Fatalf("OpenWrt %s runs", v)
	}
	ts.Check(w.WaitReady(ctx))
}

// scriptUpgradeImage makes an image for sysupgrade: of a board, for a release, as a
// person may have fetched it.
func scriptUpgradeImage(ts *testscript.TestScript, _ bool, args []string) {
	compat := map[string]string{"avm,fritzbox-4040": "1.1"}[args[0]]
	file := imagetest.Sysupgrade(imagetest.Options{Board: args[0], Compat: compat, Version: args[1]})
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), file, 0o600))
}

// scriptSwap puts another box, fresh from the factory image, in the router's place.
func scriptSwap(ts *testscript.TestScript, _ bool, args []string) {
	w := home0(ts)
	line, ok := router.ParseLine(args[1])
	if !ok {
		ts.Fatalf("no release %q", args[1])
	}
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	ts.Check(w.Swap(ctx, owrt.Options{Line: line, Board: args[0], Model: models[args[0]], Inside: stageOf(ts).inside}))
	// The laptop still has the old box's address until the new one has given it one;
	// a connection made before ends then.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		lease, ok := w.Home.AskLease(w.Laptop.Stack)
		if ok && slices.ContainsFunc(w.Laptop.Ifaces(), func(i lab.Iface) bool { return slices.Contains(i.Addrs, lease.Addr) }) {
			break
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("the new box hands out no addresses")
		case <-tick.C:
		}
	}
	ts.Check(w.Laptop.WaitAddress(ctx))
	at, _ := w.RouterLAN()
	ts.Setenv("ROUTER", at.String())
}
