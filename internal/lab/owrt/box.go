// Package owrt is an emulated OpenWrt home router: state in, protocol out. It
// has a flash that a power cut treats badly, a shell with busybox's programs, an
// SSH server in dropbear's manner, uci, ubus, netifd, the firewall, WireGuard,
// opkg or apk and procd's boot order, each as the release line has it.
//
// Interfaces, peers, routes and firewall verdicts come only from the files, at
// the moments when the real programs read them. So a wrong option stops a
// packet here as it does at home, and a change that nothing has reloaded has no
// effect yet.
//
// Its behaviour is taken from what was observed on real systems (facts: OpenWrt,
// and OpenWrt observed) and from OpenWrt's public sources, never from what
// heimweg happens to send; the package must never import an edge of heimweg. A
// command that is missing here answers 127 and is kept in Unknown, so that a
// test fails and names it.
//
// Faults are part of it: SetHook sees every command and every write to flash
// and may cut the connection, cut the power, fill the flash, fail or delay.
package owrt

import (
	"context"
	"crypto/x509"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
	"github.com/heimweg/heimweg/internal/router"
)

// Options describe a box. The zero value of everything but Line is a FRITZ!Box
// 4040 fresh from the factory image.
type Options struct {
	Line    router.Line
	Version string // "24.10.7"; "" for the line's last one known
	Name    string // in the lab's record; "" means "home router"
	Board   string // "avm,fritzbox-4040"
	Model   string // "AVM FRITZ!Box 4040"
	Seed    uint64

	// Cables says which port is plugged into which link: "lan1" to "lan4" and
	// "wan". On a box with swconfig (21.02, 22.03) they end at eth0 and eth1.
	Cables map[string]*lab.Link

	// Real runs WireGuard with real cryptography (wireguard-go). Such a box must
	// stay outside testing/synctest bubbles. Otherwise interfaces and peers are
	// state only, and no packet passes a tunnel.
	Real bool

	Flash int64 // bytes of overlay; 0 means 20 MB
	// FormatTime is how long the first boot keeps the overlay in RAM while the
	// flash is formatted; 0: it is formatted already. FinishFormat ends it early.
	FormatTime time.Duration
	BootTime   time.Duration // from power to the first init script; 0 means 100 ms
	// LuCI adds rpcd, uhttpd and the web interface's packages to the package list.
	LuCI bool
	// Feed says what the package servers are like.
	Feed Feed
	// Files are put on flash before the first boot, by absolute path: settings and
	// what is secret for root alone, as in an image.
	Files map[string]string

	// RAM makes it a system that was started in memory (an initramfs): nothing of
	// it is on flash, and nothing outlives a restart.
	RAM bool
	// Chip is the flash of the case as mtd, the UBI tools and fritz_tffs_nand see
	// it. Nil: those programs find nothing.
	Chip Chip
	// Restart is what comes after the system went down to start again by itself
	// (reboot, the end of sysupgrade); it must not wait for the box. Nil: it boots.
	Restart func()
	// Roots vouch for web servers, in place of the authorities of the image.
	Roots *x509.CertPool
	// Packages that the image has inside, beside the default ones.
	Packages []string

	// Flashed is told every image that sysupgrade writes; nil: nobody wants to
	// know. The box itself takes the image's release and what is kept of the
	// settings (see Install for a bootloader's way); a system in RAM leaves that to
	// whoever is told. An error is that of the flash: what is there then does not
	// start.
	Flashed func(image []byte) error
	// Inside tells which packages an image holds beside what its metadata names; nil:
	// no more than that.
	Inside func(image []byte) []string
	// FlashTime is how long writing takes; 0 means 100 ms.
	FlashTime time.Duration
	// Memory is the room in /tmp, in bytes; 0 means 120 MB.
	Memory int64
}

// Box is one emulated router.
type Box struct {
	opt   Options
	world *lab.World
	stack *lab.Stack

	fw atomic.Pointer[firmware] // what the firmware partition holds

	mu      sync.Mutex
	broken  bool // the firmware partition holds half an image
	fs      *boxfs.FS
	k       *ash.Kernel
	on      bool
	power   chan struct{} // closed when the power goes
	booted  chan struct{} // closed when init is through
	bootNo  int
	rng     *rand.Rand
	since   time.Time
	conns   map[*session]bool
	unknown []string
	log     []string
	sys     *system
	numbers map[*lab.Link]*guestList

	hook   atomic.Pointer[func(Event) Action]
	events atomic.Int64
	mute   atomic.Int32 // >0: a test writes, no hook sees it
	stats  struct{ conns, execs, bytes atomic.Int64 }
	wg     sync.WaitGroup
}

// New puts a box into the world. It has no power yet. A nil world makes a box
// without network, to be reached by Pipe only.
func New(w *lab.World, o Options) *Box {
	if o.Name == "" {
		o.Name = "home router"
	}
	if o.Board == "" {
		o.Board, o.Model = "avm,fritzbox-4040", "AVM FRITZ!Box 4040"
	}
	if o.Version == "" {
		o.Version = lastVersion[o.Line]
	}
	if o.Flash == 0 {
		o.Flash = 20 << 20
	}
	if o.BootTime == 0 {
		o.BootTime = 100 * time.Millisecond
	}
	if o.FlashTime == 0 {
		o.FlashTime = 100 * time.Millisecond
	}
	if o.Memory == 0 {
		o.Memory = 120 << 20
	}
	b := &Box{opt: o, world: w, conns: map[*session]bool{}, rng: rand.New(rand.NewPCG(o.Seed, 0x6f777274))}
	if w != nil {
		b.stack = lab.NewStack(w, o.Name)
		b.stack.PowerOff()
	}
	b.Reflash()
	return b
}

// lastVersion is the newest release of each line that the facts know.
var lastVersion = map[router.Line]string{
	router.Line2102: "21.02.7", router.Line2203: "22.03.7", router.Line2305: "23.05.6",
	router.Line2410: "24.10.8", router.Line2512: "25.12.5",
}

// Stack is the box's place in the network.
func (b *Box) Stack() *lab.Stack { return b.stack }

// Line is the release line of what is on flash.
func (b *Box) Line() router.Line { return b.fw.Load().line }

// Version is the release on flash: "24.10.7".
func (b *Box) Version() string { return b.fw.Load().version }

// Reflash writes the factory image: all settings and host keys are gone. The
// box must be off.
func (b *Box) Reflash() {
	b.fw.Store(&firmware{line: b.opt.Line, version: b.opt.Version, packages: b.opt.Packages})
	f := boxfs.New(b.opt.Flash)
	b.image(f)
	for name, text := range b.opt.Files {
		f.MkdirAll(name[:strings.LastIndex(name, "/")+1], 0o755)
		mode := fs.FileMode(0o644)
		for _, secret := range []string{"/etc/config/", "/etc/dropbear/", "/etc/shadow"} {
			if strings.HasPrefix(name, secret) {
				mode = 0o600
			}
		}
		f.WriteFile(name, []byte(text), mode)
	}
	f.Rom()
	f.SetVolatile(b.opt.FormatTime > 0 && !b.opt.RAM)
	b.mu.Lock()
	b.fs, b.broken = f, false
	b.mu.Unlock()
}

// On reports whether the box has power.
func (b *Box) On() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on
}

// PowerOn gives power; the boot runs by itself. See WaitBoot.
func (b *Box) PowerOn() {
	b.mu.Lock()
	if b.on {
		b.mu.Unlock()
		return
	}
	old := b.k
	if b.opt.RAM && old != nil {
		b.mu.Unlock()
		b.Reflash()
		b.mu.Lock()
	}
	b.on, b.power = true, make(chan struct{})
	b.bootNo++
	b.booted = make(chan struct{})
	b.k = ash.NewKernel(b.fs)
	b.since = time.Now()
	b.log = nil
	b.sys = newSystem(b, b.fs, b.k)
	sys, broken := b.sys, b.broken
	b.mu.Unlock()
	if broken { // the boot loader finds nothing to start; the box stays silent
		b.logf("user.err boot", "no bootable image")
		return
	}
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		if old != nil {
			old.Wait() // nothing of the last life may touch this one
		}
		sys.boot()
	}()
}

// PowerCut takes the power away: RAM is lost, and of the flash what the seed says.
func (b *Box) PowerCut() { b.down(false) }

// Shutdown is an orderly halt: init scripts are not asked, but the flash is synced.
func (b *Box) Shutdown() { b.down(true) }

func (b *Box) down(orderly bool) {
	b.mu.Lock()
	if !b.on {
		b.mu.Unlock()
		return
	}
	b.on = false
	close(b.power)
	k, sys := b.k, b.sys
	if orderly {
		b.fs = b.fs.Shutdown(b.rng)
	} else {
		b.fs = b.fs.PowerCut(b.rng)
	}
	var list []*session
	for s := range b.conns {
		list = append(list, s)
	}
	b.conns = map[*session]bool{}
	b.mu.Unlock()
	k.Halt()
	sys.halt()
	if b.stack != nil {
		b.stack.PowerOff()
	}
	for _, s := range list {
		s.drop()
	}
}

// Reboot halts in an orderly way and starts again.
func (b *Box) Reboot() {
	b.down(true)
	if b.opt.Restart != nil {
		b.opt.Restart()
		return
	}
	b.PowerOn()
}

// PowerCycle cuts the power and gives it back.
func (b *Box) PowerCycle() {
	b.PowerCut()
	b.PowerOn()
}

// Close takes the power away for good and waits until everything of the box has ended.
func (b *Box) Close() {
	b.PowerCut()
	b.mu.Lock()
	k := b.k
	b.mu.Unlock()
	b.wg.Wait()
	if k != nil {
		k.Wait()
	}
}

// WaitBoot waits until the running boot is through its init scripts.
func (b *Box) WaitBoot(ctx context.Context) error {
	b.mu.Lock()
	c := b.booted
	b.mu.Unlock()
	if c == nil {
		return fmt.Errorf("the box is off")
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Boots counts how often the box was given power.
func (b *Box) Boots() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bootNo
}

// FinishFormat ends the formatting of the flash on a first boot.
func (b *Box) FinishFormat() { b.files().SetVolatile(false) }

func (b *Box) files() *boxfs.FS {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fs
}

// FS is the file system of the present life of the box.
func (b *Box) FS() *boxfs.FS { return b.files() }

// ReadFile reads a file of the box, for a test.
func (b *Box) ReadFile(name string) (string, error) {
	data, err := b.files().ReadFile(name)
	return string(data), err
}

// WriteFile changes a file of the box behind everybody's back, for a test, and
// makes it durable. No hook sees it.
func (b *Box) WriteFile(name, text string, mode fs.FileMode) error {
	f := b.files()
	b.mute.Add(1)
	defer b.mute.Add(-1)
	f.MkdirAll(name[:strings.LastIndex(name, "/")+1], 0o755)
	err := f.WriteFile(name, []byte(text), mode)
	f.Sync()
	return err
}

// Sh runs a script as root beside everything else, as another writer would. No
// hook sees its commands, nor any write to flash while it runs; so a hook may
// call it.
func (b *Box) Sh(script string) (stdout, stderr string, exit int) {
	b.mu.Lock()
	k := b.k
	b.mu.Unlock()
	b.mute.Add(1)
	defer b.mute.Add(-1)
	var out, errs lockedBuffer
	p := k.Start(nil, ash.Spawn{Args: []string{"/bin/sh", "-s"}, Stdin: strings.NewReader(script), Stdout: &out, Stderr: &errs, Session: quiet{}})
	<-p.Done()
	return out.String(), errs.String(), p.Status()
}

type quiet struct{}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Unknown lists the commands that somebody ran and that the box does not have.
// A test should fail when it is not what was expected.
func (b *Box) Unknown() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.unknown)
}

func (b *Box) noteUnknown(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.unknown, name) {
		b.unknown = append(b.unknown, name)
	}
}

// Log is the system log of this life of the box.
func (b *Box) Log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.log)
}

func (b *Box) logf(tag, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, fmt.Sprintf("%s %s: %s", time.Now().UTC().Format("Mon Jan _2 15:04:05 2006"), tag, fmt.Sprintf(format, args...)))
	if len(b.log) > 2000 {
		b.log = b.log[1000:]
	}
}

// Stats counts what came over the wire to the SSH server.
type Stats struct {
	Connections int64 // accepted TCP connections
	Execs       int64 // exec and shell requests: round trips
	Bytes       int64 // of commands, input and output
}

// Stats since the box was made.
func (b *Box) Stats() Stats {
	return Stats{b.stats.conns.Load(), b.stats.execs.Load(), b.stats.bytes.Load()}
}

// Pipe connects to the SSH server without any network, for tests of the box alone.
func (b *Box) Pipe() net.Conn {
	near, far := bufferedPipe()
	b.mu.Lock()
	sys := b.sys
	b.mu.Unlock()
	sys.sshd.accept(far)
	return near
}

// Kind tells the events apart.
type Kind string

// The events that a hook sees.
const (
	Before Kind = "before" // a command is about to run
	After  Kind = "after"  // a command has ended
	Write  Kind = "write"  // a change of the flash is about to happen
	// Flashing: sysupgrade is about to write Path: "firmware", "half of firmware",
	// or the "settings" that are kept.
	Flashing Kind = "flashing"
)

// Event is one step of the box.
type Event struct {
	N      int64 // counts from 1 since the box was made
	Kind   Kind
	Argv   []string // of a command
	Exit   int      // After
	Op     string   // Write: "open", "write", "rename", "remove", "mkdir", …
	Path   string   // Write
	Remote bool     // the command belongs to an SSH session
}

// Action is what a hook wants to happen at an event.
type Action struct {
	do   byte
	exit int
	text string
	wait time.Duration
}

// The actions.
var (
	Continue          = Action{}
	CutConnection     = Action{do: 'c'} // every SSH connection ends
	PowerCut          = Action{do: 'p'} // and stays off
	PowerCutAndReboot = Action{do: 'r'}
	FullFlash         = Action{do: 'f'} // from now on the flash is full; see Box.FS().Fill
)

// Fail makes a command end with that status and text, without running.
func Fail(exit int, stderr string) Action { return Action{do: 'x', exit: exit, text: stderr} }

// Slow delays a command.
func Slow(d time.Duration) Action { return Action{do: 's', wait: d} }

// SetHook installs the hook, nil takes it away. It is called from the processes
// of the box, several at a time; it may use the Box.
func (b *Box) SetHook(fn func(Event) Action) {
	if fn == nil {
		b.hook.Store(nil)
		return
	}
	b.hook.Store(&fn)
}

func (b *Box) ask(e Event) Action {
	fn := b.hook.Load()
	if fn == nil || e.Kind == Write && b.mute.Load() > 0 {
		return Continue
	}
	e.N = b.events.Add(1)
	return (*fn)(e)
}

// carry does what a hook asked for, as far as it is not the command's own affair.
func (b *Box) carry(a Action) {
	switch a.do {
	case 'c':
		b.CutConnections()
	case 'p':
		b.PowerCut()
	case 'r':
		b.PowerCut()
		b.PowerOn()
	case 'f':
		b.files().Fill(0)
	}
}

// CutConnections ends every SSH connection, as a lost network does.
func (b *Box) CutConnections() {
	b.mu.Lock()
	var list []*session
	for s := range b.conns {
		list = append(list, s)
	}
	b.conns = map[*session]bool{}
	b.mu.Unlock()
	for _, s := range list {
		s.drop()
	}
}

func remote(p *ash.Proc) bool {
	_, ok := p.Session.(*session)
	return ok
}

// hooks connects a kernel and a file system to the box's hook.
func (b *Box) hooks(k *ash.Kernel, f *boxfs.FS) {
	k.Unknown = func(name string) {
		b.mu.Lock()
		alive := b.on && b.k == k
		b.mu.Unlock()
		if alive { // a process that dies with the power finds no file any more
			b.noteUnknown(name)
		}
	}
	k.Before = func(p *ash.Proc, argv []string) (bool, int, string) {
		if _, ok := p.Session.(quiet); ok {
			return true, 0, ""
		}
		a := b.ask(Event{Kind: Before, Argv: argv, Remote: remote(p)})
		switch a.do {
		case 'x':
			return false, a.exit, a.text
		case 's':
			p.Sleep(a.wait)
		}
		b.carry(a)
		return true, 0, ""
	}
	k.After = func(p *ash.Proc, argv []string, exit int) {
		if _, ok := p.Session.(quiet); ok {
			return
		}
		b.carry(b.ask(Event{Kind: After, Argv: argv, Exit: exit, Remote: remote(p)}))
	}
	f.OnWrite = func(op, path string) error {
		a := b.ask(Event{Kind: Write, Op: op, Path: path})
		b.carry(a)
		if a.do == 'p' || a.do == 'r' {
			return boxfs.ErrDead
		}
		if a.do == 'x' {
			return &fs.PathError{Op: op, Path: path, Err: fs.ErrPermission}
		}
		return nil
	}
}
