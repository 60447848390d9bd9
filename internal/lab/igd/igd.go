// Package igd emulates what an ISP router lets programs ask for: UPnP IGD (1 and
// 2), NAT-PMP, PCP, and AVM's TR-064 with a password. It is mounted on an
// ispbox.Box, whose "port sharing" page it fills in, and it can be told to behave
// as badly as real ones do: switched off, slow, refusing by number, agreeing and
// forwarding nothing, forgetting everything.
//
// It never imports the program that asks it, and is written from the
// specifications: UPnP Device Architecture 1.1, WANIPConnection:1 and :2,
// WANIPv6FirewallControl:1, RFC 6886, RFC 6887, AVM's TR-064 papers; what a
// FRITZ!Box does is from the public threads that are cited at the place. Debian's
// upnpc and natpmpc judge it.
package igd

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
)

// Options say what the ISP router offers. The zero value offers nothing.
type Options struct {
	UPnP   int  // version 1 or 2; 0: none
	NATPMP bool //
	PCP    bool //
	// TR064 is AVM's; nil: none. It brings AVM's names and places along.
	TR064 *Account
	Model string // "" = "Emulated IGD", or "FRITZ!Box 7590"
	// PPP makes the connection a WANPPPConnection, as with DSL.
	PPP bool
	// MyFRITZ is the box's name in AVM's DNS; "" = none.
	MyFRITZ string
	// Pinhole is told what IPv6 openings there are, whenever that changes.
	Pinhole func([]Pinhole)
	// Firewall6 offers WANIPv6FirewallControl.
	Firewall6 bool

	Faults Faults
}

// Account is a FRITZ!Box user.
type Account struct{ User, Password string }

// Faults are what is wrong with it.
type Faults struct {
	Silent        bool          // nothing answers (datagrams are swallowed, connections hang)
	Off           bool          // switched off by the person: ports are closed
	Refuse        int           // AddPortMapping ends with this UPnP error: 606, 501, 728 …; PCP and NAT-PMP say "not authorised" for 606, "no resources" else
	OnlyPermanent bool          // 725 for every lease
	Slow          time.Duration // every answer takes so long
	Lying         bool          // says "mapped" and forwards nothing
	OwnOnly       bool          // a host may open ports for itself only, as on a FRITZ!Box
	SecondFactor  bool          // TR-064 wants a button to be pressed: 866
	NoPublic      bool          // it has no address outside
	Forgetful     bool          // says "mapped" and has no such entry when asked
	MaxLease      time.Duration // the most it grants; 0: a week, for PCP and NAT-PMP a day
	NoReadBack    bool          // GetSpecificPortMappingEntry is not implemented: 401
	NoOptions     bool          // PCP without any option: 5
	NoUsers       bool          // TR-064 does not tell who logs in, as before FRITZ!OS 7.24
	Endless       bool          // the list gives its last entry for every number beyond its end
}

// Net is where it is mounted.
type Net interface {
	ListenTCP(port uint16) (net.Listener, error)
	ListenUDP(port uint16) (net.PacketConn, error)
}

// OnStack mounts it on a host of the lab.
func OnStack(s *lab.Stack) Net { return onStack{s} }

type onStack struct{ s *lab.Stack }

func (o onStack) ListenTCP(port uint16) (net.Listener, error) {
	l, err := o.s.ListenTCP(port)
	if err != nil {
		return nil, err // not a nil *Listener in an interface
	}
	return l, nil
}

func (o onStack) ListenUDP(port uint16) (net.PacketConn, error) {
	u, err := o.s.ListenUDP(port)
	if err != nil {
		return nil, err
	}
	return u, nil
}

// Entry is a mapping that a program asked for.
type Entry struct {
	Proto       string
	External    uint16
	To          netip.AddrPort
	Description string
	By          string    // "UPnP", "TR-064", "PCP", "NAT-PMP"
	Disabled    bool      // switched off on the box's page
	Ends        time.Time // zero: never
	nonce       [12]byte
	timer       *time.Timer
}

// Pinhole is an opening in the IPv6 firewall.
type Pinhole struct {
	ID    uint16
	Proto uint8
	To    netip.AddrPort
	Ends  time.Time
}

// Server is the emulated service.
type Server struct {
	box *ispbox.Box
	net Net

	mu       sync.Mutex
	opt      Options
	started  time.Time
	entries  []*Entry
	pinholes []Pinhole
	lastID   uint16
	counts   map[string]int
	nonces   map[string]bool // of logins
	closers  []func()
	done     chan struct{}
}

// New mounts a service on a box; n is where it listens, nil its stack.
func New(box *ispbox.Box, n Net, opt Options) (*Server, error) {
	if n == nil {
		n = OnStack(box.Stack())
	}
	s := &Server{box: box, net: n, opt: opt, started: time.Now(), counts: map[string]int{}, nonces: map[string]bool{}, done: make(chan struct{})}
	if err := s.listen(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// listen opens the ports of what is offered.
func (s *Server) listen() error {
	if s.opt.Faults.Off {
		return nil
	}
	if s.opt.UPnP != 0 || s.opt.TR064 != nil {
		if err := s.listenHTTP(); err != nil {
			return err
		}
		if err := s.listenUDP(1900, s.answerSSDP); err != nil {
			return err
		}
	}
	if s.opt.NATPMP || s.opt.PCP {
		return s.listenUDP(5351, s.answerPCP)
	}
	return nil
}

// listenUDP answers datagrams, each with any number of others.
func (s *Server) listenUDP(port uint16, answer func(from netip.AddrPort, b []byte) [][]byte) error {
	u, err := s.net.ListenUDP(port)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() { u.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, addr, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			from, err := netip.ParseAddrPort(addr.String())
			if err != nil || s.faults().Silent {
				continue
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			answers := answer(from, slices.Clone(b[:n]))
			s.later(func() {
				for _, a := range answers {
					u.WriteTo(a, addr) // an answer that cannot be sent is a lost one
				}
			})
		}
	}()
	return nil
}

// later does something after the time that the box takes for everything.
func (s *Server) later(f func()) {
	if d := s.faults().Slow; d > 0 {
		time.AfterFunc(d, f)
		return
	}
	f()
}

func (s *Server) faults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opt.Faults
}

// Set changes what is wrong with it, now. Off is for the beginning only.
func (s *Server) Set(change func(*Faults)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.opt.Faults)
}

// Restart is a power cut of the ISP router: the clock begins again and what
// programs asked for is forgotten.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.entries) > 0 {
		s.drop(s.entries[0])
	}
	s.pinholes = nil
	s.tellPinholes()
	s.started = time.Now()
}

// Entries are what programs asked for, in their order.
func (s *Server) Entries() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Entry
	for _, e := range s.entries {
		out = append(out, *e)
	}
	return out
}

// Pinholes are the openings for IPv6.
func (s *Server) Pinholes() []Pinhole {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeOld()
	return slices.Clone(s.pinholes)
}

// Count is how often an action was called ("AddPortMapping", "login refused").
func (s *Server) Count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

func (s *Server) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// Close ends it; mappings stay as they are.
func (s *Server) Close() {
	s.mu.Lock()
	list := s.closers
	s.closers = nil
	for _, e := range s.entries {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	s.mu.Unlock()
	for _, f := range list {
		f()
	}
}

// holder finds who has a port: a program's entry, or a person's mapping.
func (s *Server) holder(proto string, external uint16) (netip.AddrPort, *Entry) {
	for _, e := range s.entries {
		if e.Proto == proto && e.External == external {
			return e.To, e
		}
	}
	for _, m := range s.box.Mappings() {
		if m.Proto == proto && m.External == external {
			return m.To, nil
		}
	}
	return netip.AddrPort{}, nil
}

// put makes or replaces an entry. lease 0 is for ever.
func (s *Server) put(e Entry, lease time.Duration) {
	if _, old := s.holder(e.Proto, e.External); old != nil {
		s.drop(old)
	}
	n := &e
	if lease > 0 {
		n.Ends = time.Now().Add(lease)
		n.timer = time.AfterFunc(lease, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if slices.Contains(s.entries, n) {
				s.drop(n)
			}
		})
	}
	s.entries = append(s.entries, n)
	if !s.opt.Faults.Lying {
		s.box.Map(e.Proto, e.External, e.To)
	}
}

// Disable is a person's click on the box's page: the entry stays and does nothing.
func (s *Server) Disable(proto string, external uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, e := s.holder(proto, external); e != nil {
		e.Disabled = true
		s.box.Unmap(proto, external)
	}
}

func (s *Server) drop(e *Entry) {
	if e.timer != nil {
		e.timer.Stop()
	}
	s.entries = slices.DeleteFunc(s.entries, func(o *Entry) bool { return o == e })
	s.box.Unmap(e.Proto, e.External)
}

// table is what lists show: programs' entries, then persons' mappings.
func (s *Server) table() []Entry {
	var out []Entry
	for _, e := range s.entries {
		out = append(out, *e)
	}
	for _, m := range s.box.Mappings() {
		if !slices.ContainsFunc(out, func(e Entry) bool { return e.Proto == m.Proto && e.External == m.External }) {
			out = append(out, Entry{Proto: m.Proto, External: m.External, To: m.To, Description: "by hand"})
		}
	}
	return out
}

// public is the address outside that it tells.
func (s *Server) public() (netip.Addr, bool) {
	if s.opt.Faults.NoPublic {
		return netip.Addr{}, false
	}
	return s.box.Public(), true
}

// epoch is the clock of PCP and NAT-PMP.
func (s *Server) epoch() uint32 { return uint32(time.Since(s.started)/time.Second) + 1 }

func (s *Server) tellPinholes() {
	if s.opt.Pinhole != nil {
		s.opt.Pinhole(slices.Clone(s.pinholes))
	}
}

// until lets a pinhole's end be noticed.
func (s *Server) until(end time.Time) {
	time.AfterFunc(time.Until(end), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closeOld()
	})
}

func (s *Server) closeOld() {
	before := len(s.pinholes)
	s.pinholes = slices.DeleteFunc(s.pinholes, func(p Pinhole) bool { return !time.Now().Before(p.Ends) })
	if len(s.pinholes) != before {
		s.tellPinholes()
	}
}

func (s *Server) avm() bool { return s.opt.TR064 != nil }

func (s *Server) model() string {
	if s.avm() {
		return cmp.Or(s.opt.Model, "FRITZ!Box 7590")
	}
	return cmp.Or(s.opt.Model, "Emulated IGD")
}

// port is where HTTP is: a FRITZ!Box's, or miniupnpd's usual one.
func (s *Server) port() uint16 {
	if s.avm() {
		return 49000
	}
	return 5000
}

func (s *Server) url(path string) string {
	return fmt.Sprintf("http://%s%s", netip.AddrPortFrom(s.box.Address(), s.port()), path)
}

func lower(proto string) string { return strings.ToLower(proto) }
