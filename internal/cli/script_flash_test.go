package cli

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/heimweg/heimweg/internal/flash"
	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// A carton is a boxed device in a script's home, and what its owner does with the
// plug in the next run.
type carton struct {
	stock
	plug []pull
	ends []*time.Timer
}

// A pull switches the box on or off that long after heimweg has asked for the cable.
type pull struct {
	after time.Duration
	on    bool
}

// scriptCarton: carton [MODEL] [erase:6s] [cut:300000] makes a home with a boxed
// device and a download server whose keys heimweg trusts. The device may erase
// slowly, or lose its power after so many bytes.
func scriptCarton(ts *testscript.TestScript, _ bool, args []string) {
	l := labFlags{release: "24.10", uplink: "behind-isp-router", lans: 1, seed: 1}
	o, err := l.options()
	ts.Check(err)
	model := "4040"
	times, faults := hurried, evabox.Faults{}
	for _, a := range args {
		switch k, v, _ := strings.Cut(a, ":"); k {
		case "erase":
			times.Erase, err = time.ParseDuration(v)
		case "cut":
			faults.PowerCutAt, err = strconv.ParseInt(v, 10, 64)
		default:
			model = a
		}
		ts.Check(err)
	}
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	made, err := fromStock(ctx, o, evabox.Options{Model: model, Times: times, Faults: faults})
	s := stageOf(ts)
	if s.w != nil {
		s.w.Close()
	}
	s.w = made.w
	ts.Check(err)
	s.m, s.carton = made.m, &carton{stock: made, plug: []pull{{300 * time.Millisecond, true}}}
	ts.Setenv("ENDPOINT", "home.example.net")
}

// wire gives a run the cable, and its owner's hand on the plug.
func (c *carton) wire(env *Env) error {
	keys, err := c.keys()
	env.Keys = keys
	env.Cable = func(context.Context, string) (flash.Cable, error) {
		for _, p := range c.plug {
			c.ends = append(c.ends, time.AfterFunc(p.after, func() { c.w.Device.Power(p.on) }))
		}
		return c.w.Cable(), nil
	}
	return err
}

// mapSoon opens the port on the ISP router as soon as the home router is there.
func (c *carton) mapSoon(port uint16) {
	go func() {
		ctx, cancel := within(time.Minute)
		defer cancel()
		if c.w.WaitReady(ctx) == nil {
			_ = c.w.MapPort(port) // what comes of it shows in the run
		}
	}()
}

// scriptPlug: plug on:300ms off:2s on:3s says what happens at the plug in the next
// runs; plug none leaves it alone.
func scriptPlug(ts *testscript.TestScript, _ bool, args []string) {
	c := stageOf(ts).carton
	c.plug = nil
	for _, a := range args {
		what, when, ok := strings.Cut(a, ":")
		if !ok {
			continue
		}
		d, err := time.ParseDuration(when)
		ts.Check(err)
		c.plug = append(c.plug, pull{d, what == "on"})
	}
}

// scriptBox: box runs WHAT | untouched | unseen | on | off | mend.
func scriptBox(ts *testscript.TestScript, neg bool, args []string) {
	c := stageOf(ts).carton
	d := c.w.Device
	switch args[0] {
	case "off":
		for _, t := range c.ends {
			t.Stop()
		}
		d.Power(false)
	case "on":
		d.Power(true)
	case "mend":
		d.Power(false)
		d.EVA.Mend()
	case "runs":
		what := map[string]string{"openwrt": device.OpenWrt, "fritzos": device.Stock, "memory": device.InMemory, "nothing": device.RedLight}[args[1]]
		ctx, cancel := within(20 * time.Second)
		defer cancel()
		if err := d.Wait(ctx, what); err != nil {
			ts.Fatalf("the box runs %q (%s)\n%s", d.Runs(), d.EVA.State(), d.Log())
		}
	case "untouched":
		log := d.Log()
		if touched := len(d.EVA.Stores()) > 0 || strings.Contains(log, "> SETENV"); touched != neg {
			ts.Fatalf("the box:\n%s", log)
		}
	case "unseen": // nobody has even logged in
		if strings.Contains(d.Log(), "> USER") != neg {
			ts.Fatalf("the box:\n%s", d.Log())
		}
	default:
		ts.Fatalf("a box cannot %q", args[0])
	}
}

// scriptImage: image WHAT FILE writes an image, right or one of people's mistakes.
func scriptImage(ts *testscript.TestScript, _ bool, args []string) {
	data := map[string][]byte{"eva": imagetest.EVA(imagetest.Options{}), "recovery": imagetest.AVMRecovery(), "avm": imagetest.AVMImage()}[args[0]]
	for _, m := range imagetest.Mistakes() {
		if m.Name == args[0] {
			data = m.File
		}
	}
	if data == nil {
		ts.Fatalf("no image %q", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o600))
}

// flashFiles makes the image files among flash's arguments absolute.
func flashFiles(ts *testscript.TestScript, args []string) {
	for i := range args {
		if strings.HasSuffix(args[i], ".bin") || strings.HasSuffix(args[i], ".exe") || strings.HasSuffix(args[i], ".image") {
			args[i] = ts.MkAbs(args[i])
		}
	}
}
