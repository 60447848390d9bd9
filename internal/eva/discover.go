package eva

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// discoveryPort is where the box answers and where we have to listen: it answers
// to this port, not to the one that asked (facts eva 2.2).
const discoveryPort = 5035

// gather is how long we wait for a second box after the first answered.
const gather = 5 * time.Millisecond

// Requests and answers of 16 bytes: zero, AVM's version 18.1, 1 or 2 in little
// endian, the address, zero. The address is in network order in a request and in
// little endian in an answer.
func discoveryRequest(want netip.Addr) []byte {
	q := []byte{0, 0, 18, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if want.Is4() {
		a := want.As4()
		copy(q[8:], a[:])
	}
	return q
}

// parseDiscovery reads an answer.
func parseDiscovery(p []byte) (netip.Addr, bool) {
	if len(p) != 16 || !bytes.Equal(p[:8], []byte{0, 0, 18, 1, 2, 0, 0, 0}) {
		return netip.Addr{}, false
	}
	a := netip.AddrFrom4([4]byte{p[11], p[10], p[9], p[8]})
	return a, !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// The newest boxes ask and answer with eight letters over IPv6 (facts eva 0.1).
var slintAsk = []byte("AVMfritz")

func isSlint(p []byte) bool { return string(p) == "fritzAVM" || string(p) == "AVMfritz" }

// discover asks on UDP 5035 until ctx ends. An interface without an address
// cannot send yet; that is no reason to stop.
func (s *search) discover(ctx context.Context) {
	var pc net.PacketConn
	for {
		var err error
		if pc, err = s.net.ListenUDP(ctx, discoveryPort); err == nil {
			break
		}
		s.udp(err)
		if pause(ctx, askEvery, nil); ctx.Err() != nil {
			return
		}
	}
	s.udp(nil)
	defer pc.Close()
	s.wg.Go(func() { s.hear(ctx, pc) })
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for round := 0; ; round++ {
		s.askRound(ctx, pc, round)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *search) udp(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) { // that is the end of the search
		s.udpErr = err
	}
}

func udpTo(a netip.Addr) *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, discoveryPort))
}

var (
	everyone  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	everyone6 = netip.MustParseAddr("ff02::1")
)

// askRound asks everyone where they are. Only when nothing answers for a while
// it says, now and then, where to be, for a box whose answer a firewall keeps from
// us: two boxes at one address would be worse than a tenth of a second. Once a
// connection stands, nobody is moved any more; and just before it is said, a box that
// has come up since the last question can still say that it is there, because moving
// one that is taking our connection would lose both.
func (s *search) askRound(ctx context.Context, pc net.PacketConn, round int) {
	s.askFor(pc, netip.IPv4Unspecified())
	if round >= moveFirst && round%moveEach == 0 && s.movable() && s.silent() {
		if pause(ctx, moveAfter, nil); s.silent() {
			s.setMoved()
			s.askFor(pc, s.ask.Want)
		}
	}
	if round%slintEach == 0 {
		_, _ = pc.WriteTo(slintAsk, udpTo(everyone6)) // without IPv6 there is nothing to find there
	}
	if round%openEach == 0 {
		s.openFirewall(pc)
	}
}

// askFor asks everyone where they are or, with an address, to be there.
func (s *search) askFor(pc net.PacketConn, want netip.Addr) {
	_, err := pc.WriteTo(discoveryRequest(want), udpTo(everyone))
	s.udp(err)
}

// openFirewall sends two letters where the box may be: that lets its answer
// through firewalls that know connections (facts eva 2.2).
func (s *search) openFirewall(pc net.PacketConn) {
	for _, a := range s.ask.At {
		if s.near(a) {
			_, _ = pc.WriteTo([]byte("aa"), udpTo(a)) // where nobody is, nobody is missed
		}
	}
}

// silent: nobody has answered, and nobody is held.
func (s *search) silent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answers) == 0 && s.holding == 0
}

// movable reports whether a box may be told to be elsewhere.
func (s *search) movable() bool { return s.ask.Want.IsValid() && len(s.ask.Near) > 0 }

func (s *search) setMoved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = time.Now()
}

// hear takes the answers.
func (s *search) hear(ctx context.Context, pc net.PacketConn) {
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if ctx.Err() == nil {
				s.udp(err)
			}
			return
		}
		if isSlint(buf[:n]) {
			if u, ok := from.(*net.UDPAddr); ok {
				s.saw(Sight{At: u.AddrPort().Addr().Unmap(), What: SeenSlint})
			}
			continue
		}
		if a, ok := parseDiscovery(buf[:n]); ok {
			s.answered(ctx, pc, append([]netip.Addr{a}, s.others(pc)...))
		}
	}
}

// others collects what else answers to the same question; there is nothing to
// decide any more once a box was told to move, or is held.
func (s *search) others(pc net.PacketConn) (out []netip.Addr) {
	s.mu.Lock()
	decided := !s.moved.IsZero() && len(s.answers) > 0 || s.holding > 0
	s.mu.Unlock()
	if decided {
		return nil
	}
	_ = pc.SetReadDeadline(time.Now().Add(gather))
	defer func() { _ = pc.SetReadDeadline(time.Time{}) }()
	buf := make([]byte, 1500)
	for {
		n, _, err := pc.ReadFrom(buf)
		if err != nil {
			return out
		}
		if a, ok := parseDiscovery(buf[:n]); ok {
			out = append(out, a)
		}
	}
}

// heard keeps who answered, before anyone was moved, and reports whether that
// cannot have been one box: two addresses answered the same question, or an old one
// answers again after a new one. A box that merely goes elsewhere does neither.
func (s *search) heard(all []netip.Addr) (several bool) {
	var now []netip.Addr
	for _, a := range all {
		ours := !s.moved.IsZero() && a == s.ask.Want // the one that we moved there
		if ours || s.holding > 0 || slices.Contains(now, a) {
			continue
		}
		now = append(now, a)
		switch i := slices.Index(s.answers, a); {
		case i < 0:
			s.answers = append(s.answers, a)
		case i < len(s.answers)-1:
			several = true
		}
	}
	return several || len(now) > 1
}

// answered acts on the addresses that answered one question.
func (s *search) answered(ctx context.Context, pc net.PacketConn, all []netip.Addr) {
	s.mu.Lock()
	s.several = s.several || s.heard(all)
	several, moved, holding := s.several, !s.moved.IsZero(), s.holding > 0
	s.mu.Unlock()
	a := all[len(all)-1]
	switch {
	case several:
		s.stop()
	case s.near(a):
		s.saw(Sight{At: a, What: Answered})
		s.kick(ctx, a)
	case holding:
	default:
		what := Answered
		if !s.movable() || moved { // told to move, it did not
			what = SeenElsewhere
			s.kick(ctx, a)
		}
		s.saw(Sight{At: a, What: what})
		if s.movable() {
			s.setMoved()
			s.askFor(pc, s.ask.Want)
		}
	}
}

func (s *search) near(a netip.Addr) bool {
	return len(s.ask.Near) == 0 || slices.ContainsFunc(s.ask.Near, func(p netip.Prefix) bool { return p.Contains(a) })
}
