package eva

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Net is the way to the box: this computer's network, bound to one cable, or a
// TCP/IP of our own on a raw port.
type Net interface {
	DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// ListenUDP opens a UDP port that can also send to 255.255.255.255 and, for
	// boxes of the newest kind, to ff02::1. Port 0 is any.
	ListenUDP(ctx context.Context, port uint16) (net.PacketConn, error)
}

// Home is the address that bootloaders have from the factory.
var Home = netip.MustParseAddr("192.168.178.1")

// Usual lists where bootloaders have been seen, the likeliest first (facts eva
// 2.3): firmware updates and AVM's recovery program move them.
func Usual() []netip.Addr {
	var out []netip.Addr
	for _, s := range []string{"192.168.178.1", "169.254.120.1", "169.254.157.1", "169.254.1.1", "192.168.2.1", "192.168.2.254", "192.168.1.1"} {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// An Ask says how to look for the box.
type Ask struct {
	At   []netip.Addr   // addresses to try; nil: Usual
	Near []netip.Prefix // what this computer reaches over the cable; none: everything
	// Want is the address that a box outside Near is told to take; zero: none is
	// told anything. Without Near nothing is outside.
	Want netip.Addr
	Tell func(Sight) // what is seen on the way, each once; may be nil
	Look []Look      // further ways of looking
}

// A Look is a further way of looking for the box, as raw ARP on an Ethernet port:
// it reports addresses at which something lives, until ctx ends.
type Look func(ctx context.Context, seen func(netip.Addr)) error

// What was seen at an address.
type What string

// What can be seen.
const (
	Answered      What = "a bootloader answers"                      // UDP 5035
	SeenElsewhere What = "a bootloader answers, but cannot be moved" // reachable only with another address of ours
	Holding       What = "connected, the countdown stands still"
	Refused       What = "refuses connections: a running system"
	RunsSSH       What = "OpenWrt or another system with SSH runs"
	OtherFTP      What = "another FTP server answers: FRITZ!OS runs"
	SeenTI        What = "the ADAM2 of Texas Instruments answers, not AVM's"
	SeenSlint     What = "a new bootloader answers that OpenWrt does not support"
	NotEVA        What = "answers, but not as a bootloader"
	Dropped       What = "took a connection and dropped it"
)

// A Sight is something seen at an address.
type Sight struct {
	At   netip.Addr
	What What
	Line string // what it said, quoted, if that tells something
}

func (s Sight) String() string {
	if s.Line != "" {
		return fmt.Sprintf("%s: %s (%s)", s.At, s.What, s.Line)
	}
	return fmt.Sprintf("%s: %s", s.At, s.What)
}

type search struct {
	net   Net
	ask   Ask
	found chan *Box
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu      sync.Mutex
	kicks   map[netip.Addr]chan struct{}
	order   []netip.Addr
	sights  []Sight
	answers []netip.Addr // by UDP, before anyone was moved, in the order of the first
	several bool
	moved   time.Time // when a box was last told to be elsewhere; zero: never
	holding int
	udpErr  error
}

// Find looks for a bootloader in all ways at once until one is held, logged in to
// and known as AVM's EVA, or ctx ends. A box whose window was missed is not the
// end: the next power-on counts. Errors: *NotFoundError, *SeveralError.
func Find(ctx context.Context, n Net, ask Ask) (*Box, error) {
	if ask.At == nil {
		ask.At = Usual()
	}
	for {
		box, moved, err := find(ctx, n, ask)
		if err != nil || moved.Before(box.dialled) || box.Addr() == ask.Want || box.stays(ctx) {
			return box, err
		}
		box.Close()
	}
}

// stays reports whether the box is still where it was found: a held one takes
// another address when it is told to (facts eva 2.2), and the request may have
// crossed with our connection.
func (b *Box) stays(ctx context.Context) bool {
	pause(ctx, onTheWay, nil)
	_, err := b.ask(ctx, "SYST", staysIn, 215)
	return err == nil
}

// find is one search; moved is when a box was last told to be elsewhere.
func find(ctx context.Context, n Net, ask Ask) (found *Box, moved time.Time, err error) {
	began := time.Now()
	inner, stop := context.WithCancel(ctx)
	s := &search{net: n, ask: ask, found: make(chan *Box), stop: stop, kicks: map[netip.Addr]chan struct{}{}}
	s.wg.Go(func() { s.discover(inner) })
	for _, a := range ask.At {
		s.watch(inner, a)
	}
	for _, look := range ask.Look {
		s.wg.Go(func() {
			if err := look(inner, func(a netip.Addr) { s.kick(inner, a) }); err != nil && inner.Err() == nil {
				s.saw(Sight{What: NotEVA, Line: err.Error()})
			}
		})
	}
	var box *Box
	select {
	case box = <-s.found:
	case <-inner.Done():
	}
	stop()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.several {
		if box != nil {
			box.Close()
		}
		return nil, s.moved, &SeveralError{At: s.answers}
	}
	if box != nil {
		return box, s.moved, nil
	}
	return nil, s.moved, &NotFoundError{Waited: time.Since(began), Asked: s.order, Sights: s.sights, UDP: s.udpErr, Cause: context.Cause(ctx)}
}

func (s *search) saw(x Sight) {
	s.mu.Lock()
	known := slices.ContainsFunc(s.sights, func(y Sight) bool { return x.At == y.At && x.What == y.What })
	if !known {
		s.sights = append(s.sights, x)
	}
	s.mu.Unlock()
	if !known && s.ask.Tell != nil {
		s.ask.Tell(x)
	}
}

// watch keeps trying an address by TCP.
func (s *search) watch(ctx context.Context, a netip.Addr) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kicks[a]; k != nil {
		return k
	}
	k := make(chan struct{}, 1)
	s.kicks[a] = k
	s.order = append(s.order, a)
	s.wg.Go(func() {
		alive, limit := false, tryTCP
		for ctx.Err() == nil {
			hurry := k
			if s.try(ctx, a, k, alive, limit) { // what runs there greets all the time
				hurry = nil
			}
			was := alive
			switch alive = pause(ctx, restTCP, hurry); {
			case !alive:
				limit = tryTCP
			case !was:
				limit = tryAlive
			default:
				limit = min(2*limit, tryTCP)
			}
		}
	})
	return k
}

// pause waits for a kick, the time or ctx's end, whichever is first, and reports
// whether it was a kick.
func pause(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-kick:
		return true
	case <-ctx.Done():
	case <-t.C:
	}
	return false
}

// kick tries an address at once: something lives there.
func (s *search) kick(ctx context.Context, a netip.Addr) {
	select {
	case s.watch(ctx, a) <- struct{}{}:
	default:
	}
}

// try makes one connection, which holds a box that is in its window, and finds
// out what answers; it reports whether that is no bootloader for us. A kick ends an attempt that
// waits for nothing; one that began with a kick has its time, or a box that
// answers more often than it takes connections would never be held.
func (s *search) try(ctx context.Context, a netip.Addr, kick chan struct{}, alive bool, limit time.Duration) (other bool) {
	dctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	kicked := make(chan struct{})
	go func() {
		defer close(kicked)
		if alive {
			return
		}
		select {
		case <-kick:
			stop()
			select {
			case kick <- struct{}{}:
			default:
			}
		case <-dctx.Done():
		}
	}()
	began := time.Now()
	c, err := s.net.DialTCP(dctx, netip.AddrPortFrom(a, 21))
	if err == nil {
		s.hold(1)
		defer s.hold(-1)
	}
	stop()
	<-kicked
	if err != nil {
		if refused(err) {
			s.saw(Sight{At: a, What: s.whoRefuses(ctx, a)})
		}
		return refused(err)
	}
	s.saw(Sight{At: a, What: Holding})
	b := newBox(s.net, a, c)
	b.dialled = began
	if err := b.login(ctx); err != nil {
		c.Close()
		if ctx.Err() != nil {
			return false
		}
		x := sightOf(a, err)
		s.saw(x)
		return x.What != Dropped
	}
	select {
	case s.found <- b:
	case <-ctx.Done():
		b.Close()
	}
	return false
}

func (s *search) hold(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding += n
}

func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "refused")
}

// whoRefuses looks whether a closed FTP port belongs to a system with SSH.
func (s *search) whoRefuses(ctx context.Context, a netip.Addr) What {
	ctx, stop := context.WithTimeout(ctx, tryTCP)
	defer stop()
	c, err := s.net.DialTCP(ctx, netip.AddrPortFrom(a, 22))
	if err != nil {
		return Refused
	}
	defer c.Close()
	l := lines{conn: c}
	if line, err := l.next(ctx, time.Now().Add(tryTCP)); err == nil && strings.HasPrefix(line, "SSH-") {
		return RunsSSH
	}
	return Refused
}

// sightOf says what a failed login means (facts eva 1.9).
func sightOf(a netip.Addr, err error) Sight {
	var strange *StrangeError
	var no *RefusedError
	switch {
	case errors.Is(err, errTI):
		return Sight{a, SeenTI, ""}
	case errors.As(err, &strange) && strange.Command == cmdGreeting:
		return Sight{a, OtherFTP, strings.Join(strange.Lines, " ")}
	case errors.As(err, &no) && no.Command != "SYST":
		return Sight{a, OtherFTP, quote(fmt.Sprint(no.Reply.Code, " ", no.Reply.Text))}
	case errors.As(err, &strange):
		return Sight{a, NotEVA, strings.Join(strange.Lines, " ")}
	case errors.As(err, &no):
		return Sight{a, NotEVA, quote(fmt.Sprint(no.Reply.Code, " ", no.Reply.Text))}
	}
	return Sight{a, Dropped, err.Error()}
}
