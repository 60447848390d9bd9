package cli

import (
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

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

// scriptCut takes the power away while sysupgrade writes.
func scriptCut(ts *testscript.TestScript, _ bool, args []string) {
	part := strings.Join(args, " ")
	box := home0(ts).Router
	box.SetHook(func(e owrt.Event) owrt.Action {
		if e.Kind == owrt.Flashing && e.Path == part {
			return owrt.PowerCut
		}
		return owrt.Continue
	})
}

// scriptInterrupt presses Ctrl-C in the next run.
func scriptInterrupt(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	stageOf(ts).interrupt = d
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
	at, _ := w.RouterLAN()
	ts.Setenv("ROUTER", at.String())
}
