// Package flash is the conversation that brings OpenWrt onto a box that runs AVM's
// firmware: wait for the cable, hold the bootloader, see what box it is, find the
// files for it, say what will happen, send, see what the box says of it, and wait
// until the new system has settled.
//
// It knows the order and no protocol: the bootloader is package eva's, the system
// in RAM package openwrt's, what a file is package image's; the cable is an
// argument. It prints nothing and asks nobody: between Find and Write stands the
// caller's question whether FRITZ!OS may be replaced. Before Write nothing is
// changed on the box, and Leave starts it as it was.
//
// Whatever fails, the bootloader is not touched: the next run finds the box in its
// boot window again, or the RAM system of a run that was cut off, and goes on.
//
// Background. Boxes of the methods A, B and C get one or two files written to
// flash by their bootloader. NAND boxes (D, E) are never written that way: a small
// OpenWrt is started in RAM, and it installs the real one (facts eva 3.1). What
// the bootloader says after a start from RAM means nothing; only the next stage
// tells whether it worked.
package flash

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
)

// A Cable is the way to the box over one network card.
type Cable interface {
	eva.Net
	// Dial connects over the same cable, for SSH.
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
	// Look looks for a box by means of its own, as raw ARP; an error says that it
	// cannot.
	Look(ctx context.Context, seen func(netip.Addr)) error
	// WaitLink returns when the cable is up, or down; an error says that nobody
	// can tell.
	WaitLink(ctx context.Context, up bool) error
	// Use makes these our addresses on the cable, and no others.
	Use(addrs ...netip.Prefix) error
	// Name is the network card's: "enp3s0".
	Name() string
	// Close gives back all that was borrowed.
	Close() error
}

// Risk is the name of what a person loses.
const Risk = "overwrites-firmware"

// Options are what a run needs.
type Options struct {
	Cable Cable
	// Given are the files that a person named, after Check; what is missing is
	// fetched.
	Given []File
	Files Files  // nil: nothing can be fetched
	Board string // what the person says the box is: "4040", a profile, or "" for what is found
	// Version is the release to fetch; "" the newest, or that of the given files.
	Version string
	// Again flashes even where OpenWrt answers on the cable already.
	Again bool
	// Wait is how long to look for the box; 0 is until the context ends.
	Wait time.Duration
	Tell event.Tell
}

// Addresses of ours on the cable. 192.168.1.70 is where U-Boot asks for its file,
// and near the address of a fresh OpenWrt (facts eva 3.1).
var ours = []netip.Prefix{
	netip.MustParsePrefix("192.168.178.70/24"),
	netip.MustParsePrefix("192.168.1.70/24"),
	netip.MustParsePrefix("169.254.120.70/16"),
}

// fresh is where OpenWrt answers at its first boot and in RAM.
var fresh = netip.MustParseAddr("192.168.1.1")

// How long things take, and when we stop waiting for them. Finding the box has no
// limit but the person's; those of the bootloader are in package eva.
const (
	linkTell   = 200 * time.Millisecond // a cable that is up says so within
	hintFirst  = 20 * time.Second       // a first hint while nothing answers
	hintAgain  = 60 * time.Second       // until the next one
	hintRarely = 5 * time.Minute        // and then every so often
	stillTime  = 15 * time.Second       // TCP repeats at the latest this long after a cable came back that was dead for less than deadTime
	deadTime   = 10 * time.Second       // a cable that is dead for longer while the box needs it: its power is gone
	dialTime   = time.Second            // one TCP connection over the cable
	loginTime  = 10 * time.Second       // one SSH login with a look
	lookFirst  = 400 * time.Millisecond // between two looks at a system that starts, then less often
	lookRarely = 4 * time.Second        // down to this
	lookAgain  = time.Second            // between two tries of what failed
	ramTime    = 6 * time.Minute        // start from RAM to its SSH; U-Boot alone waits a while for the network
	copyTime   = 5 * time.Minute        // one file over SSH
	installIn  = 3 * time.Minute        // U-Boot and volumes
	leaveTime  = 2 * time.Minute        // sysupgrade's test to the end of the RAM system
	bootUsual  = 3 * time.Minute        // power to settled, on a usual box
	bootTime   = 6 * time.Minute        // until SSH answers for the first time
	settleTime = 10 * time.Minute       // until the flash is formatted and the first boot is through
)

// A Session is one box on the cable: held by its bootloader, or running the system
// in RAM that an earlier run started.
type Session struct {
	o       Options
	cable   Cable
	near    []netip.Prefix
	box     *eva.Box // nil when the RAM system runs already
	env     eva.Environment
	ram     *openwrt.BootState // what runs in RAM, once it does
	method  image.Method
	boards  []image.Board // one, or two that differ in the NAND's maker
	known   eva.Board
	hw      int // HWRevision; 0 when only the RAM system was seen
	files   []File
	plan    eva.Plan
	oldKey  ssh.PublicKey // host key of the system that installs
	leaving bool          // a RAM system that still answers is on its way out
	touched bool          // a byte of it went to flash, or may have
	started bool          // Write came to its end
	checks  []eva.Check
	began   time.Time // of the start
}

// A Description is what a person decides on.
type Description struct {
	Model      string       `json:"model"`
	HWRevision string       `json:"hwrevision,omitempty"`
	At         netip.Addr   `json:"at"`
	Bootloader string       `json:"bootloader,omitempty"` // its version
	FlashMB    int          `json:"flash_mb,omitempty"`
	Method     image.Method `json:"method"`
	Files      []FileLine   `json:"files"`
	Steps      []string     `json:"steps"`
	// Continues: an earlier run was cut off, and FRITZ!OS may be gone already.
	Continues bool   `json:"continues,omitempty"`
	Moved     string `json:"moved,omitempty"` // where the bootloader sits by itself, when not at 192.168.178.1
	Sure      string `json:"sure"`            // how well this way is known
	Note      string `json:"note,omitempty"`
}

// A FileLine is one file of a Description.
type FileLine struct {
	Role   Role   `json:"role"`
	Name   string `json:"name"`
	Says   string `json:"says"`
	Size   int64  `json:"size"`
	Signed string `json:"signed,omitempty"`
}

// Describe says what box this is and what Write would do.
func (s *Session) Describe() Description {
	d := Description{Model: s.boards[0].Model, At: fresh, Method: s.method, FlashMB: s.known.FlashMB,
		Continues: s.box == nil, Sure: string(s.known.Sure), Note: s.known.Note}
	if s.hw != 0 {
		d.HWRevision = strconv.Itoa(s.hw)
	}
	if s.box != nil {
		d.At, d.Bootloader = s.box.Addr(), s.box.Version()
		if a, ok := s.env.Address(); ok && a != eva.Home {
			d.Moved = a.String()
		}
	}
	for _, f := range s.files {
		d.Files = append(d.Files, FileLine{f.Role, f.Name, f.Says(), int64(len(f.Data)), f.Signed})
	}
	d.Steps = s.steps()
	return d
}

// steps says what will be done, in the person's words.
func (s *Session) steps() []string {
	var out []string
	if s.box != nil {
		out = strings.Split(s.plan.String(), "\n")
	}
	if s.method == image.FromUBoot {
		out = append(out, "write U-Boot to uboot0 and uboot1, remove AVM's volumes")
	}
	if s.method == image.FromRAM || s.method == image.FromUBoot {
		out = append(out, "install OpenWrt from the system in RAM (sysupgrade -n)")
	}
	return out
}

// Leave starts a box that nothing was written to, as it was. It works after the
// person's context has ended, too.
func (s *Session) Leave(ctx context.Context) {
	if s.box == nil || s.touched || s.started {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), loginTime)
	defer stop()
	err := s.box.Reboot(ctx)
	s.box = nil
	if err == nil {
		s.o.Tell.Note("leave", "nothing was written; the box starts as it was")
	} else {
		s.o.Tell.Note("leave", "nothing was written; switch the box off and on, and it starts as it was")
	}
}

// Close leaves the box where it is. The cable stays the caller's.
func (s *Session) Close() error {
	if s.box == nil {
		return nil
	}
	b := s.box
	s.box = nil
	return b.Close()
}

// A Result is what runs on the box in the end.
type Result struct {
	Model   string        `json:"model"`
	Board   router.Board  `json:"board"`
	At      netip.Addr    `json:"at"`
	Checks  []CheckLine   `json:"checks,omitempty"`
	Settled bool          `json:"settled"`
	Took    time.Duration `json:"took_ns"` // of the first boot
	HostKey ssh.PublicKey `json:"-"`       // of its SSH server
}

// A CheckLine is what the box read back.
type CheckLine struct {
	Partition string      `json:"partition"`
	Verdict   eva.Verdict `json:"verdict"`
	Got       string      `json:"got,omitempty"`
}

func (s *Session) checkLines() []CheckLine {
	var out []CheckLine
	for _, c := range s.checks {
		l := CheckLine{Partition: c.Partition, Verdict: c.Verdict}
		if c.Verdict != eva.NotKnown {
			l.Got = fmt.Sprintf("0x%08X", c.Got)
		}
		out = append(out, l)
	}
	return out
}

// use gives the cable our addresses: again and again, because a link that went
// down may have cost them.
func (s *Session) use() error { return s.cable.Use(s.near...) }

// model is how the box is called in a sentence.
func (s *Session) model() string {
	if len(s.boards) == 0 {
		return "the box"
	}
	return "the " + s.boards[0].Model
}

// isOurs reports whether a board name is one of the box's.
func (s *Session) isOurs(name string) bool {
	return slices.ContainsFunc(s.boards, func(b image.Board) bool { return b.Is(name) })
}

// pause waits between two looks; it ends early with ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// needsCable is a run without a cable: a bug of the caller.
func (o Options) check() error {
	if o.Cable == nil {
		return fault.NewBug("flash without a cable")
	}
	return nil
}
