package device

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/evabox"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/router"
)

// What a box runs beside evabox's kinds.
const (
	OpenWrt  = evabox.OpenWrt // from flash
	InMemory = "OpenWrt in memory"
	Stock    = evabox.Stock
	UBoot    = evabox.UBoot
	RedLight = evabox.RedLight
)

// Options of a box.
type Options struct {
	// EVA is the bootloader: model (4040 when empty), environment, address, times,
	// faults.
	EVA evabox.Options
	// Router is a template for the systems that start. Cables must be set; the
	// release comes from the image, Line is for images that name none.
	Router owrt.Options
	// LAN is the link of the boot window: the one that Router.Cables has at "lan1".
	LAN *lab.Link
	// NAND is the chip's identity in hexadecimal, "2CF1809504" (Micron) when empty
	// and when the environment does not tell it. It decides which of two images is
	// the right one (facts eva 3.1, D).
	NAND string
}

// A Box is the whole device.
type Box struct {
	EVA *evabox.Box
	// Router is the OpenWrt on flash. It is always there and has no power while
	// something else runs.
	Router *owrt.Box

	w    *lab.World
	opt  Options
	kind kind
	port *port
	nand *flash

	mu      sync.Mutex
	ram     *owrt.Box // what runs in memory
	rams    uint64
	carrier bool
	changed chan struct{} // closed at every change of carrier
	fresh   int           // the writing of the flash that Router was installed from
}

// New puts a box into the world, switched off, with the maker's firmware on it.
func New(w *lab.World, o Options) *Box {
	if o.EVA.Model == "" {
		o.EVA.Model = "4040"
	}
	d := &Box{w: w, opt: o, kind: kinds[o.EVA.Model], changed: make(chan struct{})}
	model := evabox.Models[o.EVA.Model]
	d.opt.EVA.Run = d.run
	d.opt.Router.Model = "AVM " + model.Name
	if d.opt.Router.Line == (router.Line{}) {
		d.opt.Router.Line = router.Line2410
	}
	d.port = newPort(d, lab.NewStack(w, model.Name), o.LAN)
	d.EVA = evabox.New(d.port, d.opt.EVA)
	d.nand = newFlash(d)
	d.opt.Router.Board = d.ours()[0] // nothing else starts from this flash
	if o.EVA.Kind == evabox.Converted {
		d.fresh = -1
	}
	d.Router = owrt.New(w, d.system(d.opt.Router))
	return d
}

// system gives a router the case that it sits in.
func (d *Box) system(o owrt.Options) owrt.Options {
	o.Chip = d.nand
	return o
}

// Power switches the box on or off.
func (d *Box) Power(on bool) {
	if on {
		d.EVA.Power(true)
		return
	}
	d.EVA.Power(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Router.PowerCut()
	if d.ram != nil {
		d.ram.PowerCut()
	}
}

// Close switches the box off for good and waits until nothing of it runs.
func (d *Box) Close() {
	d.Power(false)
	d.EVA.Close()
	d.Router.Close()
}

// Quick are times for a demonstration that people watch: a box that is flashed in
// seconds. The window stays as long as it is.
var Quick = evabox.Times{Link: 300 * time.Millisecond, Stack: 100 * time.Millisecond, Boot: time.Second, Erase: time.Second,
	Check: 300 * time.Millisecond, Rate: 4 << 20, TFTP: 500 * time.Millisecond}

// Preload is the lab's hand: it writes an image where it belongs, as if somebody had
// flashed the box on an earlier evening. The box must be off.
func (d *Box) Preload(image []byte) {
	d.nand.preload(image)
}

// Runs says what runs now; "" while nothing does.
func (d *Box) Runs() string {
	if d.EVA.State() != evabox.Running {
		return ""
	}
	return d.EVA.Runs()
}

// RAM is the system that was started in memory, nil when none runs.
func (d *Box) RAM() *owrt.Box {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ram
}

// setCarrier plugs everything in the case in or out.
func (d *Box) setCarrier(up bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stacks := []*lab.Stack{d.port.stack}
	if d.Router != nil {
		stacks = append(stacks, d.Router.Stack())
	}
	if d.ram != nil {
		stacks = append(stacks, d.ram.Stack())
	}
	for _, s := range stacks {
		if up {
			d.opt.LAN.Plug(s)
		} else {
			d.opt.LAN.Unplug(s)
		}
	}
	if d.carrier != up {
		d.carrier = up
		close(d.changed)
		d.changed = make(chan struct{})
	}
}

// Link reports whether the box's LAN port has carrier, and a channel that is closed
// at its next change.
func (d *Box) Link() (up bool, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.carrier, d.changed
}

// Unplug pulls the cable out of the LAN port; the box goes on.
func (d *Box) Unplug() { d.setCarrier(false) }

// Plug puts it back.
func (d *Box) Plug() { d.setCarrier(true) }

// WaitLink waits until the LAN port has carrier, or has none.
func (d *Box) WaitLink(ctx context.Context, up bool) error {
	for {
		now, changed := d.Link()
		if now == up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Wait waits until something runs: Stock, OpenWrt, InMemory, …
func (d *Box) Wait(ctx context.Context, runs string) error {
	return d.EVA.Changed(ctx, func() bool { return d.Runs() == runs })
}

// stockAddr is where FRITZ!OS answers.
var stockAddr = netip.MustParseAddr("192.168.178.1")

// run is everything after the bootloader.
func (d *Box) run(ctx context.Context, ram []byte, runs func(string)) {
	var p program
	inMemory := ram != nil
	if inMemory {
		p = d.inMemory(ram)
	} else {
		p = d.onFlash()
	}
	if p.what == UBoot {
		// U-Boot looks into the flash first, then fetches (facts eva 3.1, E).
		if sys := d.nand.volumes(); sys.what == OpenWrt {
			p, inMemory = sys, false
		} else if p = d.fetch(ctx, p, runs); ctx.Err() != nil {
			return
		} else {
			inMemory = true
		}
	}
	switch {
	case p.what == OpenWrt && inMemory:
		d.runMemory(ctx, p, runs)
	case p.what == OpenWrt:
		d.runFlash(ctx, p, runs)
	case p.what == Stock:
		d.port.SetAddress(stockAddr)
		d.port.serveLeases(true)
		runs(Stock)
		<-ctx.Done()
		d.port.serveLeases(false)
	default:
		runs(p.what)
		<-ctx.Done()
	}
}

// fetch is U-Boot that asks for its next stage until it gets one that it can start.
func (d *Box) fetch(ctx context.Context, u program, runs func(string)) program {
	runs(UBoot)
	for {
		stage, ok := d.EVA.Fetch(ctx, u.file)
		if !ok {
			return u
		}
		if p := d.fromFIT(stage, d.kind.boards); p.what == OpenWrt {
			d.port.Link(false) // the next stage sets the switch up again
			d.EVA.Pause(ctx)
			d.port.Link(true)
			return p
		}
	}
}

// runMemory is a system that was started in memory.
func (d *Box) runMemory(ctx context.Context, p program, runs func(string)) {
	again := make(chan struct{}, 1)
	d.mu.Lock()
	d.rams++
	o := d.system(d.opt.Router)
	o.RAM, o.Files, o.Seed = true, nil, o.Seed+1000*d.rams
	o.Line, o.Version, o.Board = p.release.Line, p.release.Version, p.board
	o.Flashed = d.nand.begin
	o.Restart = func() { d.nand.finish(); again <- struct{}{} }
	b := owrt.New(d.w, o)
	d.ram = b
	d.mu.Unlock()
	defer func() {
		b.Close()
		d.mu.Lock()
		d.ram = nil
		d.mu.Unlock()
	}()
	d.live(ctx, b, InMemory, again, runs)
}

// runFlash is the system on flash. What was written since it last ran is a new
// installation; else it finds its settings.
func (d *Box) runFlash(ctx context.Context, p program, runs func(string)) {
	again := make(chan struct{}, 1)
	d.mu.Lock()
	if now := d.nand.writings(); d.fresh != now && d.fresh >= 0 {
		d.Router.Install(p.release)
		d.fresh = now
	}
	d.mu.Unlock()
	d.Router.Case(d.nand.begin, func() {
		if d.nand.finish() { // by the system itself, which keeps its settings
			d.mu.Lock()
			d.fresh = d.nand.writings()
			d.mu.Unlock()
		}
		select {
		case again <- struct{}{}:
		default:
		}
	})
	d.live(ctx, d.Router, OpenWrt, again, runs)
}

// live runs a router until the power goes or it starts again.
func (d *Box) live(ctx context.Context, b *owrt.Box, what string, again <-chan struct{}, runs func(string)) {
	d.mu.Lock()
	if ctx.Err() != nil {
		d.mu.Unlock()
		return
	}
	if !d.carrier {
		d.opt.LAN.Unplug(b.Stack())
	}
	b.PowerOn()
	d.mu.Unlock()
	if b.WaitBoot(ctx) == nil {
		runs(what)
	}
	select {
	case <-again:
	case <-ctx.Done():
	}
}

// Log is what happened on the bootloader's side, for a failed test.
func (d *Box) Log() string { return strings.Join(d.EVA.Record(), "\n") }
