package evabox

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Network is what the box's LAN port is plugged in: a *Node of a Wire, or
// Loopback. One that has Cut is told of a power cut: from then on not a word goes
// out, while Link(false) lets out what was said before.
type Network interface {
	Listen(port uint16) (net.Listener, error)
	ListenUDP(ctx context.Context, port uint16) (net.PacketConn, error)
	SetAddress(netip.Addr)
	Link(up bool)
}

// A Kind is what is inside the case.
type Kind string

// The kinds of box.
const (
	EVA       Kind = ""          // AVM's bootloader
	TI        Kind = "adam2"     // Texas Instruments' ADAM2: final dots, another dialogue (facts eva 1.9)
	Slint     Kind = "slint"     // AVM's newest: no FTP, answers on IPv6 (facts eva 0.1 point 20)
	Converted Kind = "converted" // booted into the OpenWrt of an earlier evening
	Booted    Kind = "booted"    // a FRITZ!OS that is up; its own FTP server answers
)

// Times of a box; zero values are the usual ones.
type Times struct {
	Link   time.Duration // power to carrier; 2 s
	Stack  time.Duration // carrier to an IP stack; 500 ms
	Window time.Duration // how long it listens; 5 s (facts eva 2.1)
	Boot   time.Duration // window's end to a running system; 60 s
	Erase  time.Duration // 2 s; a real 4040 takes up to two minutes (facts eva 1.4)
	Check  time.Duration
	Late   time.Duration // data's end to 226
	Rate   int           // bytes a second that the flash takes; 230 kB/s
	TFTP   time.Duration // U-Boot's rest between two tries; 5 s (facts eva 3.1)
}

// Faults are what can go wrong; the zero value is a box in good order.
type Faults struct {
	UDP           string        // "" answers and moves; "off", "report" (tells only its own), "slow"
	UDPDelay      time.Duration // for "slow"
	Passive       string        // the only passive verb it knows: "P@SW" or "PASV"; "" both
	Form227       string        // what stands after "227 ", with %s for the six numbers
	WrongAddress  bool          // 227 names another host
	Segments      string        // "bytes": one byte a segment; "" one reply a segment
	BannerDelay   time.Duration
	ResetConnects int   // so many first connections are reset at once
	ResetErase    bool  // control and data are reset in the middle of erasing
	ResetAt       int64 // and here after so many bytes
	PowerCutAt    int64 // the power fails after so many bytes
	PowerCutErase bool
	NeverErased   bool              // 150 never comes
	Replies       map[string]string // instead of the usual reply to a verb or to "banner", "stored" (226), "executed"; "-" is silence
	TwoLines      bool              // every reply comes as "NNN-…" and "NNN …"
	Check         string            // "wrong", "lower" (case), "short" (no leading zeros, another value), "silent"
	NoEnv         bool              // RETR env is not known
	NoGetenv      bool              // GETENV says 501 to all
	RebootAfter   time.Duration     // since power-on, by itself (3370: facts eva 2.1)
	Second        string            // a second control connection: "" is reset, "served"
	Moves         netip.Addr        // takes this address once it is held
	RAM           string            // reply to a RAM boot: "" 226, "553", "silent"
	RAMDead       bool              // what was started never gets reachable
	// Flaps are when the carrier goes down, up, down, …, counted from its first up,
	// until the bootloader ends: autonegotiation, a loose plug (facts eva 2.4).
	Flaps []time.Duration
}

// Options are a box's state.
type Options struct {
	Model   string            // of Models; "4040" when empty
	Env     map[string]string // over the model's; "-" removes
	Address netip.Addr        // the bootloader's; my_ipaddress when zero
	Kind    Kind
	Times   Times
	Faults  Faults
	// Run, when not nil, is what the box does after the bootloader, in place of
	// the few words that this package says itself: another package puts a whole
	// router there. The port has no address and carrier again. ram is the program
	// that was started in memory, nil when the flash is to start. It tells runs
	// what came up, and returns when the box starts again or ctx ends.
	Run func(ctx context.Context, ram []byte, runs func(what string))
}

// A State is where the box is between power and a running system.
type State string

// The states.
const (
	Off      State = "off"
	LinkDown State = "link down"
	LinkUp   State = "link up"
	Window   State = "boot window"
	Held     State = "held"
	Booting  State = "booting"
	Running  State = "running"
)

// A Box is one emulated device.
type Box struct {
	net   Network
	opt   Options
	model Model

	mu       sync.Mutex
	changed  chan struct{}
	state    State
	runs     string
	env      []variable
	tmp      map[string]string // until the next reboot
	parts    map[string]*partition
	record   []string
	stores   []string
	conns    map[net.Conn]bool
	held     chan struct{}
	reboot   chan bool // true: the RAM image starts
	ram      []byte
	sessions int
	pasv     uint16
	addr     netip.Addr
	off      context.CancelFunc
	life     chan struct{} // closed when the last life is over
	work     sync.WaitGroup
	resets   int
}

// New makes a box that is switched off.
func New(n Network, opt Options) *Box {
	if opt.Model == "" {
		opt.Model = "4040"
	}
	b := &Box{net: n, opt: opt, model: Models[opt.Model], state: Off, changed: make(chan struct{}), parts: map[string]*partition{},
		resets: opt.Faults.ResetConnects, conns: map[net.Conn]bool{}}
	defaults(&b.opt.Times)
	b.env = parseEnv(b.model.Env)
	for name, value := range opt.Env {
		b.set(name, value, value == "-")
	}
	if !b.opt.Address.IsValid() {
		b.opt.Address, _ = netip.ParseAddr(b.get("my_ipaddress"))
	}
	for _, v := range b.env {
		if start, end, ok := bounds(v.value); ok && strings.HasPrefix(v.name, "mtd") && end > start {
			b.parts[v.name] = &partition{size: end - start, stock: true}
		}
	}
	n.Link(false)
	return b
}

func defaults(t *Times) {
	for _, d := range []struct {
		of    *time.Duration
		usual time.Duration
	}{{&t.Link, 2 * time.Second}, {&t.Stack, 500 * time.Millisecond}, {&t.Window, 5 * time.Second},
		{&t.Boot, time.Minute}, {&t.Erase, 2 * time.Second}, {&t.Check, 3 * time.Second}, {&t.Late, 200 * time.Millisecond},
		{&t.TFTP, 5 * time.Second}} {
		if *d.of == 0 {
			*d.of = d.usual
		}
	}
	if t.Rate == 0 {
		t.Rate = 230_000
	}
}

func (b *Box) get(name string) string {
	for _, v := range b.env {
		if v.name == name {
			return v.value
		}
	}
	return ""
}

func (b *Box) set(name, value string, remove bool) bool {
	i := slices.IndexFunc(b.env, func(v variable) bool { return v.name == name })
	switch {
	case remove && i < 0:
		return false
	case remove:
		b.env = slices.Delete(b.env, i, i+1)
	case i >= 0:
		b.env[i].value = value
	default:
		b.env = append(b.env, variable{name, value})
	}
	return true
}

// Power switches the box on or off. Whoever was connected hears nothing more.
func (b *Box) Power(on bool) {
	b.mu.Lock()
	off := b.off
	if on == (off != nil) {
		b.mu.Unlock()
		return
	}
	if on {
		ctx, cancel := context.WithCancel(context.Background())
		b.off = cancel
		last, over := b.life, make(chan struct{})
		b.life = over
		b.spawn(func() {
			defer close(over)
			if last != nil {
				<-last // nothing of the last life may touch this one
			}
			b.run(ctx)
		})
		b.mu.Unlock()
		return
	}
	b.off = nil
	b.mu.Unlock()
	if n, ok := b.net.(interface{ Cut() }); ok {
		n.Cut()
	}
	b.loseConns() // first, so that nobody says goodbye
	off()
	b.loseConns()
	b.net.Link(false)
	b.net.SetAddress(netip.Addr{})
	b.enter(Off)
}

// Close switches the box off and waits until nothing of it runs any more.
func (b *Box) Close() {
	b.Power(false)
	b.work.Wait()
}

// cutPower is a power failure from inside the box: it stays off.
func (b *Box) cutPower() {
	b.note("power cut")
	b.Power(false)
}

func (b *Box) loseConns() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		if m, ok := c.(mortal); ok {
			m.Vanish()
		} else {
			c.Close()
		}
	}
	b.conns = map[net.Conn]bool{}
}

func (b *Box) enter(s State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = s
	close(b.changed)
	b.changed = make(chan struct{})
}

// Wait waits until the box is in a state.
func (b *Box) Wait(ctx context.Context, s State) error {
	for {
		b.mu.Lock()
		now, changed := b.state, b.changed
		b.mu.Unlock()
		if now == s {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run is the box between power on and off.
func (b *Box) run(ctx context.Context) {
	ram := false
	for ctx.Err() == nil {
		life, reset := context.WithCancel(ctx)
		taken := func() bool { return false }
		if d := b.opt.Faults.RebootAfter; d > 0 {
			taken = time.AfterFunc(d, reset).Stop // a system that runs prevents it
		}
		b.mu.Lock()
		b.held, b.reboot, b.tmp, b.sessions, b.pasv = make(chan struct{}), make(chan bool, 1), map[string]string{}, 0, 0
		b.mu.Unlock()
		up, stays := b.start(life, !ram)
		switch {
		case !up:
		case ram:
			ram = false
			taken()
			b.boot(life, b.takeRAM())
		case stays:
			ram = b.inRAM() != nil
		default:
			taken()
			b.boot(life, nil)
		}
		taken()
		reset()
		if ctx.Err() == nil {
			b.loseConns()
		}
	}
}

// start is from power to the bootloader's end. stays: it restarts instead of
// going on to what is in flash. A box with a program in RAM has no bootloader.
func (b *Box) start(ctx context.Context, listen bool) (up, stays bool) {
	ctx, calm := context.WithCancel(ctx)
	defer calm() // flaps
	up = b.wakeUp(ctx)
	return up, up && listen && b.bootloader(ctx)
}

// wakeUp is from power to an IP stack: the carrier comes first.
func (b *Box) wakeUp(ctx context.Context) bool {
	b.net.Link(false)
	b.net.SetAddress(netip.Addr{})
	b.enter(LinkDown)
	if waitFor(ctx, nil, b.opt.Times.Link) != nil {
		return false
	}
	b.net.Link(true)
	b.enter(LinkUp)
	if len(b.opt.Faults.Flaps) > 0 {
		b.spawn(func() { b.flap(ctx, b.opt.Faults.Flaps) })
	}
	return waitFor(ctx, nil, b.opt.Times.Stack) == nil
}

// takeRAM gives what was put in memory, once.
func (b *Box) takeRAM() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	ram := b.ram
	b.ram = nil
	return ram
}

// flap lets the carrier go and come at the times.
func (b *Box) flap(ctx context.Context, at []time.Duration) {
	began := time.Now()
	for i, d := range at {
		if waitFor(ctx, nil, d-time.Since(began)) != nil {
			return
		}
		b.net.Link(i%2 == 1)
	}
}

func (b *Box) inRAM() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ram
}

// bootloader listens for the window and, when held, until somebody says REBOOT.
// It reports whether the box restarts; else the countdown ended.
func (b *Box) bootloader(ctx context.Context) (again bool) {
	if b.opt.Kind == Booted || b.opt.Kind == Converted {
		return false
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if b.opt.Kind != Slint {
		l, err := b.net.Listen(21)
		if err != nil {
			b.note("bug: " + err.Error())
			return false
		}
		defer l.Close()
		b.spawn(func() { b.acceptFTP(ctx, l) })
	}
	b.moveTo(b.opt.Address) // after the port is open, so that nobody finds it closed
	b.serveUDP(ctx)
	b.enter(Window)
	timer := time.NewTimer(b.opt.Times.Window)
	defer timer.Stop()
	select {
	case <-b.held:
		b.enter(Held)
	case <-timer.C:
		select {
		case <-b.held:
			b.enter(Held)
		default:
			return false
		}
	case <-ctx.Done():
		return true
	}
	if m := b.opt.Faults.Moves; m.IsValid() && waitFor(ctx, nil, time.Second) == nil {
		b.moveTo(m)
	}
	select {
	case <-b.reboot:
	case <-ctx.Done():
	}
	return true
}

func (b *Box) spawn(f func()) {
	b.work.Add(1)
	go func() {
		defer b.work.Done()
		f()
	}()
}

// moveTo takes another address; what was connected to the old one is lost.
func (b *Box) moveTo(a netip.Addr) {
	b.mu.Lock()
	b.addr = a
	b.mu.Unlock()
	b.net.SetAddress(a)
}

// boot is everything after the bootloader: what runs depends on the memory, or on
// the flash.
func (b *Box) boot(ctx context.Context, ram []byte) {
	b.enter(Booting)
	b.net.SetAddress(netip.Addr{})
	b.net.Link(false)
	if waitFor(ctx, nil, b.opt.Times.Boot/2) != nil {
		return
	}
	b.net.Link(true)
	if waitFor(ctx, nil, b.opt.Times.Boot/2) != nil {
		return
	}
	if ram != nil && b.opt.Faults.RAMDead {
		b.runSystem(ctx, RedLight)
		return
	}
	if b.opt.Run != nil && b.opt.Kind != Booted {
		b.opt.Run(ctx, ram, b.comesUp)
		return
	}
	what := boots(b.get("HWRevision"), b.parts["mtd1"])
	switch {
	case ram != nil:
		what = bootsFromRAM(ram)
	case b.opt.Kind == Converted:
		what = OpenWrt
	}
	if what == UBoot {
		if stage, ok := b.Fetch(ctx, b.model.UBoot); !ok || !startsFromRAM(stage) {
			return
		}
		what = OpenWrt
	}
	b.runSystem(ctx, what)
}

// comesUp keeps what runs now.
func (b *Box) comesUp(what string) {
	b.mu.Lock()
	b.runs = what
	b.mu.Unlock()
	b.note("runs " + what)
	b.enter(Running)
}

func (b *Box) runSystem(ctx context.Context, what string) {
	greeting, port := "", uint16(0)
	switch what {
	case Stock: // its own FTP server, for the memory stick behind it
		b.moveTo(netip.MustParseAddr("192.168.178.1"))
		if b.opt.Kind == Booted {
			greeting, port = "220 FRITZ!Box4040 FTP server ready.\r\n", 21
		}
	case OpenWrt:
		b.moveTo(netip.MustParseAddr("192.168.1.1"))
		greeting, port = "SSH-2.0-dropbear\r\n", 22
	}
	if port != 0 {
		if l, err := b.net.Listen(port); err == nil {
			defer l.Close()
			b.spawn(func() { b.greet(ctx, l, greeting) })
		}
	}
	b.comesUp(what)
	<-ctx.Done()
}

// greet is a server that says one line and refuses what comes.
func (b *Box) greet(ctx context.Context, l net.Listener, line string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b.spawn(func() {
			defer context.AfterFunc(ctx, func() { c.Close() })()
			defer c.Close()
			if _, err := c.Write([]byte(line)); err != nil {
				return
			}
			buf := make([]byte, 256)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				if _, err := c.Write([]byte("530 Login incorrect.\r\n")); err != nil {
					return
				}
			}
		})
	}
}

func (b *Box) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record = append(b.record, s)
}

// State says where the box is.
func (b *Box) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// Runs says what runs once the state is Running.
func (b *Box) Runs() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.runs
}

// Record is the dialogue and what happened: "> " from the computer, "< " from the
// box, the rest events.
func (b *Box) Record() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.record)
}

// Stores lists what STOR was asked for, in order: "mtd1", "0x8f000000 0x88000000".
func (b *Box) Stores() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.stores)
}

// Flash is what was programmed into a partition: nil while it is the maker's, empty
// once it was erased.
func (b *Box) Flash(part string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.parts[part]; p != nil && !p.stock {
		return append([]byte{}, p.data...)
	}
	return nil
}

// Program writes a partition as a running system does, at once; nil erases it. It
// reports whether the box has such a partition and the data fit.
func (b *Box) Program(part string, data []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.parts[part]
	if p == nil || int64(len(data)) > p.size {
		return false
	}
	p.data, p.stock = slices.Clone(data), false
	return true
}

// SetEnv sets a variable of the environment as a running system does.
func (b *Box) SetEnv(name, value string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(name, value, false)
}

// Size is a partition's size in bytes, 0 when the box has none of that name.
func (b *Box) Size(part string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.parts[part]; p != nil {
		return p.size
	}
	return 0
}

// Env is the value of a variable of the environment.
func (b *Box) Env(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.get(name)
}

// Bricked reports whether the bootloader itself was overwritten, which nothing
// over the network repairs.
func (b *Box) Bricked() bool { return b.Flash("mtd2") != nil }

// Mend takes all faults away; for a box that is off.
func (b *Box) Mend() {
	b.work.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opt.Faults = Faults{}
}

// Boots says what the bootloader would start from mtd1 alone as it is now.
func (b *Box) Boots() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return boots(b.get("HWRevision"), b.parts["mtd1"])
}

// Changed waits until done says so; it is asked again at every change of the box.
func (b *Box) Changed(ctx context.Context, done func() bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Pause waits for half of the time that a boot takes.
func (b *Box) Pause(ctx context.Context) { _ = waitFor(ctx, nil, b.opt.Times.Boot/2) }
