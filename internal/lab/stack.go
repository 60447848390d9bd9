package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// neighbourWait is how long a Linux host asks for a next hop's hardware address
// before it says "host unreachable" (three tries, a second apart).
const neighbourWait = 3 * time.Second

// Iface is one network device of a stack.
type Iface struct {
	Dev   string         // "br-lan", "wan", "wg0"
	Link  *Link          // the segment it is plugged into; nil for a tunnel device
	Addrs []netip.Prefix // addresses with their networks; they make the connected routes
	Down  bool           // administratively down: no routes, no packets
	MTU   int            // largest packet; 0 means 1500

	// Send takes the packets that are routed into a tunnel device. It runs on
	// the world's goroutine and must not block. What comes out of the tunnel
	// goes in by Stack.Inject. Nil on a device without Link: packets end there.
	Send func(raw []byte)
}

func (i *Iface) mtu() int {
	if i.MTU > 0 {
		return i.MTU
	}
	return 1500
}

// Route sends packets for Dst through Dev, to the router Via; without Via the
// destination itself is on the link.
type Route struct {
	Dst    netip.Prefix
	Via    netip.Addr
	Dev    string
	Metric int // lower wins between equal Dst
}

// Action is what a filter decides.
type Action uint8

// The decisions. The zero value is Drop, so that a forgotten case shows.
const (
	Drop Action = iota
	Accept
	Reject // tell the sender: reset for TCP, port unreachable for the rest
)

// Verdict is a filter's decision about one packet.
type Verdict struct {
	Action Action
	Packet Packet // with rewritten addresses and ports; used on Accept
	Why    string // for the record: the rule that decided
	Hook   string // for the record: "input", "forward", …; "" lets the fabric choose
}

// Filter judges the packets of a router: address translation, then routing,
// then the rules. It is called on the world's goroutine only, never twice at
// once, and must not block nor hold a lock that anybody holds while waiting for
// a packet.
type Filter interface {
	// Handle judges a packet that came in on device in. route tells where the
	// stack would send dst: to itself (local) or out of a device ("" = no route).
	Handle(now time.Time, p Packet, in string, route func(dst netip.Addr) (out string, local bool)) Verdict
	// Output judges a packet that the stack itself sends out of device out.
	Output(now time.Time, p Packet, out string) Verdict
}

// config is a stack's network configuration; it is replaced, never changed.
type config struct {
	on     bool
	ifaces []Iface
	routes []Route
}

func (c *config) iface(dev string) *Iface {
	for i := range c.ifaces {
		if c.ifaces[i].Dev == dev {
			return &c.ifaces[i]
		}
	}
	return nil
}

// local reports whether a is one of the stack's own addresses.
func (c *config) local(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	for i := range c.ifaces {
		if c.ifaces[i].Down {
			continue
		}
		for _, p := range c.ifaces[i].Addrs {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// route finds the way to dst: the longest prefix, then the lowest metric, then
// the first.
func (c *config) route(dst netip.Addr) (*Iface, netip.Addr, bool) {
	best := -1
	for i, r := range c.routes {
		if !r.Dst.Contains(dst) {
			continue
		}
		if d := c.iface(r.Dev); d == nil || d.Down {
			continue
		}
		if best < 0 || r.Dst.Bits() > c.routes[best].Dst.Bits() ||
			r.Dst.Bits() == c.routes[best].Dst.Bits() && r.Metric < c.routes[best].Metric {
			best = i
		}
	}
	if best < 0 {
		return nil, netip.Addr{}, false
	}
	r := c.routes[best]
	hop := r.Via
	if !hop.IsValid() {
		hop = dst
	}
	return c.iface(r.Dev), hop, true
}

// source chooses the address that packets to dst carry: one in the next hop's
// network, else the first of the family on that device, else any.
func (c *config) source(dst netip.Addr) (netip.Addr, bool) {
	if c.local(dst) {
		return dst, true
	}
	out, hop, ok := c.route(dst)
	if !ok {
		return netip.Addr{}, false
	}
	var first netip.Addr
	for _, p := range out.Addrs {
		if p.Addr().Is4() != dst.Is4() {
			continue
		}
		if p.Contains(hop) {
			return p.Addr(), true
		}
		if !first.IsValid() {
			first = p.Addr()
		}
	}
	for i := range c.ifaces {
		for _, p := range c.ifaces[i].Addrs {
			if !first.IsValid() && !c.ifaces[i].Down && p.Addr().Is4() == dst.Is4() {
				first = p.Addr()
			}
		}
	}
	return first, first.IsValid()
}

// Stack is one IP host or router.
type Stack struct {
	w    *World
	name string
	conf atomic.Pointer[config]

	mu         sync.Mutex
	filter     Filter
	forwarding bool
	divert     func([]byte)
	resolver   func(string) (netip.Addr, bool)
	udp        map[uint16]*UDPConn
	listeners  map[uint16]*Listener
	streams    map[flow]*stream
	pings      map[uint16]*ping
	nextPort   uint16
	nextPing   uint16
}

// NewStack puts a host into the world, switched on and without any address. The
// name is a household word ("home router", "NAS"): the record uses it.
func NewStack(w *World, name string) *Stack {
	s := &Stack{w: w, name: name, nextPort: 49152 + uint16(w.random()%8192), nextPing: uint16(w.random())}
	s.conf.Store(&config{on: true})
	s.reset()
	w.mu.Lock()
	w.stacks = append(w.stacks, s)
	w.mu.Unlock()
	return s
}

// reset forgets all sockets. The caller holds mu or owns s alone.
func (s *Stack) reset() {
	s.udp = map[uint16]*UDPConn{}
	s.listeners = map[uint16]*Listener{}
	s.streams = map[flow]*stream{}
	s.pings = map[uint16]*ping{}
}

// Name in the household's words.
func (s *Stack) Name() string { return s.name }

// World that the stack lives in.
func (s *Stack) World() *World { return s.w }

// Configure replaces devices and routes at once. The connected routes follow
// from the addresses. Sockets survive: a stream whose address is gone stalls,
// and goes on when the address comes back, as on Linux. On a stack without
// power it does nothing.
func (s *Stack) Configure(ifaces []Iface, routes []Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.conf.Load()
	if !old.on {
		return
	}
	s.swap(old, &config{on: true, ifaces: slices.Clone(ifaces), routes: slices.Clone(routes)})
}

// swap makes next the configuration and moves the plugs accordingly.
func (s *Stack) swap(old, next *config) {
	for i := range next.ifaces {
		d := &next.ifaces[i]
		d.Addrs = slices.Clone(d.Addrs)
		for _, a := range d.Addrs {
			if a.Bits() < a.Addr().BitLen() {
				next.routes = append(next.routes, Route{Dst: a.Masked(), Dev: d.Dev})
			}
		}
	}
	for _, d := range old.ifaces {
		if n := next.iface(d.Dev); d.Link != nil && (n == nil || n.Link != d.Link) {
			d.Link.detach(s, d.Dev)
		}
	}
	s.conf.Store(next)
	for _, d := range next.ifaces {
		if o := old.iface(d.Dev); d.Link != nil && (o == nil || o.Link != d.Link) {
			d.Link.attach(s, d.Dev)
		}
	}
}

// Ifaces returns the devices as configured.
func (s *Stack) Ifaces() []Iface { return slices.Clone(s.conf.Load().ifaces) }

// Addrs returns the addresses of one device.
func (s *Stack) Addrs(dev string) []netip.Prefix {
	if i := s.conf.Load().iface(dev); i != nil {
		return slices.Clone(i.Addrs)
	}
	return nil
}

// SetFilter makes the stack a router whose packets f judges; nil makes it a
// plain host again.
func (s *Stack) SetFilter(f Filter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filter = f
}

// SetForwarding lets a stack without filter pass on packets for others.
func (s *Stack) SetForwarding(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forwarding = on
}

// SetResolver replaces public DNS for the names that Dial is given.
func (s *Stack) SetResolver(fn func(name string) (netip.Addr, bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resolver = fn
}

// Divert hands every packet for this host to take instead of to the stack's own
// sockets: the host runs another TCP/IP, such as gVisor's, and sends by Emit.
// take runs on the world's goroutine and must not block.
func (s *Stack) Divert(take func(raw []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.divert = take
}

// On reports whether the stack has power.
func (s *Stack) On() bool { return s.conf.Load().on }

// PowerOff ends everything at once and tells nobody on the wire: sockets, streams
// and addresses are gone, and so is the filter. Local users of the sockets see
// net.ErrClosed.
func (s *Stack) PowerOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swap(s.conf.Load(), &config{})
	s.filter = nil
	for _, u := range s.udp {
		u.shut()
	}
	for _, l := range s.listeners {
		l.shut()
	}
	for _, t := range s.streams {
		t.die(errPower)
	}
	for _, p := range s.pings {
		p.finish(errPower)
	}
	s.reset()
}

// PowerOn gives power back. The stack has no address until Configure.
func (s *Stack) PowerOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.conf.Load().on {
		s.swap(s.conf.Load(), &config{on: true})
	}
}

// RouteTo tells which device leads to dst, or that dst is the stack itself.
func (s *Stack) RouteTo(dst netip.Addr) (dev string, local bool) {
	c := s.conf.Load()
	return c.routeTo(dst)
}

func (c *config) routeTo(dst netip.Addr) (dev string, local bool) {
	if c.local(dst) {
		return "lo", true
	}
	if out, _, ok := c.route(dst); ok {
		return out.Dev, false
	}
	return "", false
}

// Inject lets a packet come in on dev, as out of a tunnel.
func (s *Stack) Inject(dev string, raw []byte) {
	raw = slices.Clone(raw)
	id := s.w.packetID.Add(1)
	s.w.engine.soon(func() { s.receive(dev, raw, id) })
}

// Emit sends a packet that somebody else built, from this host.
func (s *Stack) Emit(raw []byte) { s.send(slices.Clone(raw)) }

// send queues a packet that the stack originates. It never blocks.
func (s *Stack) send(raw []byte) {
	id := s.w.packetID.Add(1)
	s.w.engine.soon(func() { s.output(raw, id) })
}

func (s *Stack) mode() (f Filter, forwarding bool, divert func([]byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filter, s.forwarding, s.divert
}

// receive takes one packet from a device. It runs on the engine.
func (s *Stack) receive(dev string, raw []byte, id uint64) {
	c := s.conf.Load()
	p, err := ParsePacket(raw)
	note := func(hook string, o Outcome, why string) { s.w.note(id, s.name, hook, p, o, why) }
	switch {
	case !c.on:
		note("power", Dropped, s.name+" is off")
		return
	case c.iface(dev) == nil || c.iface(dev).Down:
		note(dev, Dropped, dev+" is down")
		return
	case err != nil:
		note(dev, Dropped, "not a packet: "+err.Error())
		return
	case crowd(p.Dst):
		return // see hearBroadcast; nobody listens to multicast, and the record stays readable
	}
	filter, forwarding, _ := s.mode()
	if filter == nil {
		switch {
		case c.local(p.Dst):
			s.deliver(raw, p, id, "input")
		case forwarding:
			s.forward(c, raw, raw, p, id, "")
		default:
			note("input", Dropped, fmt.Sprintf("%s is not an address of %s", p.Dst, s.name))
		}
		return
	}
	v := filter.Handle(time.Now(), p, dev, c.routeTo)
	hook := v.Hook
	if hook == "" {
		hook = dev
	}
	switch v.Action {
	case Accept:
		arrived := raw
		if v.Packet.Src.IsValid() && changed(p, v.Packet) {
			raw = rewrite(raw, v.Packet)
			p = v.Packet
		}
		if c.local(p.Dst) {
			s.deliver(raw, p, id, hook)
		} else {
			s.forward(c, arrived, raw, p, id, v.Why)
		}
	case Reject:
		note(hook, Rejected, v.Why)
		s.refuse(raw, p)
	default:
		note(hook, Dropped, v.Why)
	}
}

// hearBroadcast gives a broadcast to who listens on its port. A router's filter is
// not asked: none in the lab serves broadcasts.
func (s *Stack) hearBroadcast(dev string, raw []byte, id uint64) {
	c := s.conf.Load()
	p, err := ParsePacket(raw)
	if i := c.iface(dev); err != nil || p.Proto != UDP || !c.on || i == nil || i.Down {
		return
	}
	s.mu.Lock()
	heard := s.filter == nil && s.divert == nil && s.udp[p.DstPort] != nil
	s.mu.Unlock()
	if heard {
		s.deliverUDP(raw, p, id, dev)
	}
}

// changed reports whether a NAT rewrote anything that the bytes carry.
func changed(a, b Packet) bool {
	if a.Inner != nil && b.Inner != nil && changed(*a.Inner, *b.Inner) {
		return true
	}
	return a.Src != b.Src || a.Dst != b.Dst || a.SrcPort != b.SrcPort || a.DstPort != b.DstPort || a.ICMPID != b.ICMPID
}

// crowd reports whether a is for more than one host.
func crowd(a netip.Addr) bool {
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || a.IsUnspecified()
}

// forward passes a packet on. arrived is the packet before translation: that is
// what its sender knows, so errors quote it.
func (s *Stack) forward(c *config, arrived, raw []byte, p Packet, id uint64, why string) {
	if p.TTL <= 1 {
		s.w.note(id, s.name, "forward", p, Dropped, "too many hops")
		s.complain(arrived, timeExceeded, 0)
		return
	}
	out, hop, ok := c.route(p.Dst)
	if !ok {
		s.w.note(id, s.name, "route", p, Dropped, fmt.Sprintf("%s has no route to %s", s.name, p.Dst))
		s.complain(arrived, unreachable, netUnreachable)
		return
	}
	raw = slices.Clone(raw)
	if raw[0]>>4 == 4 {
		raw[8]--
		checksums(raw)
	} else {
		raw[7]--
	}
	s.transmit(out, hop, arrived, raw, p, id, Forwarded, why)
}

// output sends a packet of the stack's own. It runs on the engine.
func (s *Stack) output(raw []byte, id uint64) {
	c := s.conf.Load()
	p, err := ParsePacket(raw)
	if err != nil || crowd(p.Dst) {
		return
	}
	if !c.on {
		return
	}
	if c.local(p.Dst) {
		s.deliver(raw, p, id, "loopback")
		return
	}
	if !c.local(p.Src) {
		s.w.note(id, s.name, "output", p, Dropped, fmt.Sprintf("%s is no longer an address of %s", p.Src, s.name))
		return
	}
	out, hop, ok := c.route(p.Dst)
	if !ok {
		s.w.note(id, s.name, "route", p, Dropped, fmt.Sprintf("%s has no route to %s", s.name, p.Dst))
		s.complain(raw, unreachable, netUnreachable)
		return
	}
	original, why := raw, ""
	if filter, _, _ := s.mode(); filter != nil {
		v := filter.Output(time.Now(), p, out.Dev)
		why = v.Why
		if v.Action != Accept {
			s.w.note(id, s.name, "output", p, Dropped, v.Why)
			return
		}
		if v.Packet.Src.IsValid() && changed(p, v.Packet) {
			raw, p = rewrite(raw, v.Packet), v.Packet
		}
	}
	s.transmit(out, hop, original, raw, p, id, Sent, why)
}

// transmit puts a packet on a device.
func (s *Stack) transmit(out *Iface, hop netip.Addr, original, raw []byte, p Packet, id uint64, o Outcome, why string) {
	if len(raw) > out.mtu() {
		s.w.note(id, s.name, out.Dev, p, Dropped, fmt.Sprintf("%d bytes do not fit into %s (%d)", len(raw), out.Dev, out.mtu()))
		s.complainTooBig(original, out.mtu())
		return
	}
	if out.Link == nil {
		if out.Send == nil {
			s.w.note(id, s.name, out.Dev, p, Dropped, out.Dev+" leads nowhere")
			return
		}
		s.w.note(id, s.name, out.Dev, p, o, why)
		out.Send(raw)
		return
	}
	s.w.note(id, s.name, out.Dev, p, o, why)
	lost, unknown := out.Link.carry(s, hop, raw, p, id)
	if lost == "" {
		return
	}
	s.w.note(id, out.Link.name, "link", p, Dropped, lost)
	if unknown {
		s.w.engine.after(neighbourWait, func() { s.complain(original, unreachable, hostUnreachable) })
	}
}

// deliver gives a packet to this host.
func (s *Stack) deliver(raw []byte, p Packet, id uint64, hook string) {
	_, _, divert := s.mode()
	if divert != nil {
		s.w.note(id, s.name, hook, p, Delivered, "")
		divert(raw)
		return
	}
	switch p.Proto {
	case UDP:
		s.deliverUDP(raw, p, id, hook)
	case TCP:
		s.deliverTCP(raw, p, id, hook)
	case ICMP, ICMPv6:
		s.w.note(id, s.name, hook, p, Delivered, "")
		s.deliverICMP(raw, p)
	default:
		s.w.note(id, s.name, hook, p, Dropped, fmt.Sprintf("nobody speaks protocol %d", p.Proto))
	}
}

// errno wraps a system error number as the net package does.
func errno(call string, n syscall.Errno) error { return &syscallError{call, n} }

type syscallError struct {
	call string
	n    syscall.Errno
}

func (e *syscallError) Error() string   { return e.call + ": " + e.n.Error() }
func (e *syscallError) Unwrap() error   { return e.n }
func (e *syscallError) Timeout() bool   { return e.n.Timeout() }
func (e *syscallError) Temporary() bool { return e.n.Temporary() }
