// Package ispbox emulates the ISP router: the box that the provider put into the
// hall. It has a public address outside, a private network inside, translates
// between them (NAT), and sends nothing inwards that nobody asked for, unless a
// person set a port mapping. It must never learn what heimweg wants: mappings
// are set by a hand of the lab (Map), as a person would click them.
//
// The same box, with other networks, plays the NAT of a mobile carrier or a hotel.
//
// Background: such boxes are mostly Linux. A connection is remembered by its
// addresses and ports in both directions; a UDP mapping that came about by
// sending is forgotten after half a minute of silence, or three minutes once
// there was an answer (nf_conntrack_udp_timeout 30 s, …_stream 120–180 s). That
// is why a phone's WireGuard sends a keepalive every 25 seconds.
package ispbox

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
)

// Devices of the box.
const (
	LAN  = "lan"
	WAN  = "wan"
	WAN6 = "wan6" // only where IPv6 has a line of its own
)

// Options of a box. Links and addresses are required.
type Options struct {
	Name    string // "" = "ISP router"
	LAN     *lab.Link
	LANAddr netip.Prefix // the box's address inside, with its network
	WAN     *lab.Link
	WANAddr netip.Prefix // the public address with its network; the zero prefix: it has no IPv4 outside
	Gateway netip.Addr   // the provider's next router

	// IPv6 is the box's share of it; nil: none.
	IPv6 *IPv6

	// Hairpin lets hosts inside reach a mapped port by the public address. Many
	// boxes cannot: off.
	Hairpin bool
	// Scramble gives connections new port numbers instead of keeping theirs, as
	// carrier NATs do.
	Scramble bool
	// Fixed are the addresses that DHCP always gives to a host of this name;
	// others get the next free one from .20 on.
	Fixed map[string]netip.Addr
	// Domain that DHCP tells the hosts.
	Domain string
}

// IPv6 of a box. Nothing is translated; a firewall lets in what belongs to a
// connection from inside, and what Open named (RFC 6092, as such boxes do).
type IPv6 struct {
	LAN     netip.Prefix // its address inside, with the network that hosts get theirs from
	WAN     netip.Prefix // its address outside
	Gateway netip.Addr   // the provider's next router
	// Line is where IPv6 goes out when that is not the WAN link: with DS-Lite the
	// IPv4 side is a tunnel.
	Line *lab.Link
}

// opening is a host that the IPv6 firewall lets be called: by its interface id,
// which stays when the prefix changes.
type opening struct {
	proto uint8
	port  uint16
	host  [8]byte
}

// Mapping is one port that the box sends inwards.
type Mapping struct {
	Proto    string // "udp" or "tcp"
	External uint16
	To       netip.AddrPort
	Packets  int // that came through it from outside
}

// Box is the emulated ISP router.
type Box struct {
	stack *lab.Stack
	opt   Options

	mu          sync.Mutex
	mappings    []*Mapping
	openings    []opening // by hand
	asked       []opening // by programs
	routes      []lab.Route
	flows       map[tuple]*connection
	unsolicited map[string]int
	leases      map[string]netip.Addr
	nextPort    uint16
	on          bool
}

// tuple identifies one direction of a connection. For a ping both ports are its id.
type tuple struct {
	proto        uint8
	src, dst     netip.Addr
	sport, dport uint16
}

func (t tuple) reversed() tuple { return tuple{t.proto, t.dst, t.src, t.dport, t.sport} }

func (t tuple) onto(p lab.Packet) lab.Packet {
	p.Src, p.Dst = t.src, t.dst
	if p.Proto == lab.ICMP {
		p.ICMPID = t.sport
	} else {
		p.SrcPort, p.DstPort = t.sport, t.dport
	}
	return p
}

func tupleOf(p lab.Packet) (tuple, bool) {
	switch {
	case p.Proto == lab.UDP || p.Proto == lab.TCP:
		return tuple{p.Proto, p.Src, p.Dst, p.SrcPort, p.DstPort}, true
	case p.Proto == lab.ICMP && (p.IsEchoRequest() || p.IsEchoReply()):
		return tuple{p.Proto, p.Src, p.Dst, p.ICMPID, p.ICMPID}, true
	}
	return tuple{}, false
}

// connection is what the box remembers: the packet as it came (there) and as the
// answer will come (back). One of them may be translated.
type connection struct {
	there, back tuple
	last        time.Time
	answered    bool
	mapping     *Mapping
}

func (c *connection) timeout() time.Duration {
	switch {
	case c.there.proto == lab.TCP:
		return 24 * time.Hour
	case c.there.proto == lab.UDP && c.answered:
		return 3 * time.Minute
	}
	return 30 * time.Second
}

// New connects a box and switches it on.
func New(w *lab.World, opt Options) *Box {
	if opt.Name == "" {
		opt.Name = "ISP router"
	}
	b := &Box{
		stack: lab.NewStack(w, opt.Name), opt: opt,
		flows: map[tuple]*connection{}, unsolicited: map[string]int{}, leases: map[string]netip.Addr{},
		nextPort: 20000, on: true,
	}
	b.start()
	return b
}

// start is the box's boot.
func (b *Box) start() {
	b.configure()
	b.stack.SetFilter(filter{b})
	lab.ServeDNS(b.stack, nil) // fails only without power, and then nobody asks
	b.opt.LAN.ServeLeases(b.stack, b.lease)
}

func (b *Box) configure() {
	b.mu.Lock()
	routes := slices.Clone(b.routes)
	opt := b.opt
	b.mu.Unlock()
	if opt.Gateway.IsValid() {
		routes = append(routes, lab.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: opt.Gateway, Dev: WAN})
	}
	ifaces := []lab.Iface{
		{Dev: LAN, Link: opt.LAN, Addrs: []netip.Prefix{opt.LANAddr}},
		{Dev: WAN, Link: opt.WAN},
	}
	if opt.WANAddr.IsValid() {
		ifaces[1].Addrs = []netip.Prefix{opt.WANAddr}
	}
	if six := opt.IPv6; six != nil {
		ifaces[0].Addrs = append(ifaces[0].Addrs, six.LAN)
		out := &ifaces[1]
		if six.Line != nil {
			ifaces = append(ifaces, lab.Iface{Dev: WAN6, Link: six.Line})
			out = &ifaces[2]
		}
		out.Addrs = append(out.Addrs, six.WAN)
		routes = append(routes, lab.Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: six.Gateway, Dev: out.Dev})
	}
	b.stack.Configure(ifaces, routes)
}

// Stack is the box's IP stack.
func (b *Box) Stack() *lab.Stack { return b.stack }

// Public is the address that the internet sees.
func (b *Box) Public() netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opt.WANAddr.Addr()
}

// Address is the box's own address inside.
func (b *Box) Address() netip.Addr { return b.opt.LANAddr.Addr() }

// SetPublic gives the box another public address, as a provider does at night.
// All connections are forgotten.
func (b *Box) SetPublic(a netip.Prefix, gateway netip.Addr) {
	b.mu.Lock()
	b.opt.WANAddr, b.opt.Gateway = a, gateway
	b.flows = map[tuple]*connection{}
	b.mu.Unlock()
	b.configure()
}

// SetIPv6 gives the box another share of IPv6, as after a reconnect; nil takes it
// away. The hosts inside get their new addresses by themselves.
func (b *Box) SetIPv6(six *IPv6) {
	b.mu.Lock()
	b.opt.IPv6 = six
	b.flows = map[tuple]*connection{}
	b.mu.Unlock()
	b.configure()
	b.opt.LAN.ServeLeases(b.stack, b.lease)
}

// Open is the lab's hand on the page "IPv6 firewall": the port of one host inside
// may be called. As on such boxes, the host is remembered by its interface id.
func (b *Box) Open(proto string, port uint16, host netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.openings = append(b.openings, openingOf(proto, port, host))
}

// Shut takes an opening away and reports whether there was one.
func (b *Box) Shut(proto string, port uint16, host netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.openings)
	o := openingOf(proto, port, host)
	b.openings = slices.DeleteFunc(b.openings, func(x opening) bool { return x == o })
	return len(b.openings) < n
}

// Pinhole is an opening that a program asked for.
type Pinhole struct {
	Proto uint8
	To    netip.AddrPort
}

// SetPinholes replaces what programs have asked for.
func (b *Box) SetPinholes(list []Pinhole) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = nil
	for _, p := range list {
		a := p.To.Addr().As16()
		b.asked = append(b.asked, opening{p.Proto, p.To.Port(), [8]byte(a[8:])})
	}
}

func openingOf(proto string, port uint16, host netip.Addr) opening {
	a := host.As16()
	p := uint8(lab.UDP)
	if strings.EqualFold(proto, "tcp") {
		p = lab.TCP
	}
	return opening{p, port, [8]byte(a[8:])}
}

// SetHairpin switches hairpinning.
func (b *Box) SetHairpin(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opt.Hairpin = on
}

// AddRoute is the "static route" page: packets from inside for dst go to via.
func (b *Box) AddRoute(dst netip.Prefix, via netip.Addr) {
	b.mu.Lock()
	b.routes = append(b.routes, lab.Route{Dst: dst, Via: via, Dev: LAN})
	b.mu.Unlock()
	b.configure()
}

// Map is the lab's hand on the box's "port sharing" page. A mapping of the same
// port is replaced; connections that exist go on.
func (b *Box) Map(proto string, external uint16, to netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unmap(proto, external)
	b.mappings = append(b.mappings, &Mapping{Proto: strings.ToLower(proto), External: external, To: to})
}

// Unmap takes a mapping away, with the connections that came through it. It
// reports whether there was one.
func (b *Box) Unmap(proto string, external uint16) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unmap(proto, external)
}

func (b *Box) unmap(proto string, external uint16) bool {
	m := b.mapping(proto, external)
	if m == nil {
		return false
	}
	b.mappings = slices.DeleteFunc(b.mappings, func(o *Mapping) bool { return o == m })
	for k, c := range b.flows {
		if c.mapping == m {
			delete(b.flows, k)
		}
	}
	return true
}

func (b *Box) mapping(proto string, external uint16) *Mapping {
	for _, m := range b.mappings {
		if m.Proto == strings.ToLower(proto) && m.External == external {
			return m
		}
	}
	return nil
}

// Mappings lists the mappings and how much came through them.
func (b *Box) Mappings() []Mapping {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Mapping
	for _, m := range b.mappings {
		out = append(out, *m)
	}
	return out
}

// Unsolicited counts the packets from outside to a port that nothing inside had
// asked for and no mapping served.
func (b *Box) Unsolicited(proto string, port uint16) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unsolicited[fmt.Sprint(strings.ToLower(proto), port)]
}

// Forget drops the connection table, as a restart would.
func (b *Box) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flows = map[tuple]*connection{}
}

// PowerOff pulls the plug.
func (b *Box) PowerOff() {
	b.stack.PowerOff()
	b.Forget()
}

// PowerOn starts the box again. Mappings were on its flash.
func (b *Box) PowerOn() {
	b.stack.PowerOn()
	b.start()
}

// lease is the box's DHCP server.
func (b *Box) lease(host string) (lab.Lease, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := lab.Lease{Gateway: b.opt.LANAddr.Addr(), DNS: []netip.Addr{b.opt.LANAddr.Addr()}, Domain: b.opt.Domain}
	a, ok := b.opt.Fixed[host]
	if !ok {
		a, ok = b.leases[host]
	}
	if !ok {
		a = b.opt.LANAddr.Masked().Addr()
		for range 20 + len(b.leases) {
			a = a.Next()
		}
		b.leases[host] = a
	}
	l.Addr = netip.PrefixFrom(a, b.opt.LANAddr.Bits())
	if six := b.opt.IPv6; six != nil {
		l.Addr6, l.Gateway6 = lab.HostIn(six.LAN, host), six.LAN.Addr()
	}
	return l, true
}

// filter is the box's NAT and firewall as the fabric asks it.
type filter struct{ b *Box }

func drop(hook, format string, args ...any) lab.Verdict {
	return lab.Verdict{Action: lab.Drop, Hook: hook, Why: fmt.Sprintf(format, args...)}
}

func accept(p lab.Packet, why string) lab.Verdict {
	return lab.Verdict{Action: lab.Accept, Packet: p, Why: why}
}

// Output lets the box's own packets out.
func (f filter) Output(_ time.Time, p lab.Packet, _ string) lab.Verdict { return accept(p, "") }

// Handle translates what belongs to a connection, opens connections from inside,
// and lets in from outside only what a mapping names.
func (f filter) Handle(now time.Time, p lab.Packet, in string, route func(netip.Addr) (string, bool)) lab.Verdict {
	b := f.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.Src.Is4() {
		return b.handle6(now, p, in)
	}
	if p.IsError() && p.Inner != nil {
		return b.handleError(p, in)
	}
	t, ok := tupleOf(p)
	if !ok {
		return drop("forward", "this box translates TCP, UDP and ping only")
	}
	if c := b.known(t, now); c != nil {
		if t == c.there {
			return accept(c.back.reversed().onto(p), "")
		}
		return accept(c.there.reversed().onto(p), "")
	}
	if in == WAN {
		return b.fromOutside(now, p, t)
	}
	return b.fromInside(now, p, t, route)
}

// handle6 is the firewall for IPv6: from inside out, and back what belongs to it.
func (b *Box) handle6(now time.Time, p lab.Packet, in string) lab.Verdict {
	if b.opt.IPv6 == nil {
		return drop("forward", "this box carries IPv4 only")
	}
	t := tuple{p.Proto, p.Src, p.Dst, p.SrcPort, p.DstPort}
	if p.IsEchoRequest() || p.IsEchoReply() {
		t.sport, t.dport = p.ICMPID, p.ICMPID
	}
	if p.IsError() && p.Inner != nil {
		t = tuple{p.Inner.Proto, p.Inner.Dst, p.Inner.Src, p.Inner.DstPort, p.Inner.SrcPort}
	}
	if c := b.known(t, now); c != nil {
		return accept(p, "")
	}
	why := ""
	if in != LAN {
		a := p.Dst.As16()
		o := opening{p.Proto, p.DstPort, [8]byte(a[8:])}
		if !slices.Contains(b.openings, o) && !slices.Contains(b.asked, o) {
			b.unsolicited[fmt.Sprint(protoName(p.Proto), p.DstPort)]++
			return drop("forward", "the IPv6 firewall of this box lets nobody call %s", p.Dst)
		}
		why = "opened for this host"
	}
	b.remember(&connection{there: t, back: t.reversed()}, now)
	return accept(p, why)
}

// known finds the connection that t belongs to and keeps it alive.
func (b *Box) known(t tuple, now time.Time) *connection {
	c := b.flows[t]
	if c == nil {
		return nil
	}
	if now.Sub(c.last) > c.timeout() {
		b.forget(c)
		return nil
	}
	c.last = now
	if t != c.there {
		c.answered = true
	} else if c.mapping != nil {
		c.mapping.Packets++
	}
	return c
}

func (b *Box) forget(c *connection) {
	delete(b.flows, c.there)
	delete(b.flows, c.back)
}

func (b *Box) remember(c *connection, now time.Time) {
	for _, o := range b.flows { // the table is small: tidy it up on the way
		if now.Sub(o.last) > o.timeout() {
			b.forget(o)
		}
	}
	c.last = now
	b.flows[c.there], b.flows[c.back] = c, c
}

func protoName(p uint8) string {
	switch p {
	case lab.TCP:
		return "tcp"
	case lab.UDP:
		return "udp"
	}
	return "ping"
}

func (b *Box) fromOutside(now time.Time, p lab.Packet, t tuple) lab.Verdict {
	if p.Dst != b.opt.WANAddr.Addr() {
		return drop("forward", "from outside, and not for the public address")
	}
	name := protoName(p.Proto)
	m := b.mapping(name, p.DstPort)
	if m == nil || p.Proto == lab.ICMP {
		b.unsolicited[fmt.Sprint(name, p.DstPort)]++
		if p.Proto == lab.ICMP {
			return drop("input", "this box does not answer pings from outside")
		}
		return drop("input", "no mapping for %s %d, and nothing inside asked for it", strings.ToUpper(name), p.DstPort)
	}
	m.Packets++
	c := &connection{there: t, mapping: m}
	c.back = tuple{t.proto, m.To.Addr(), t.src, m.To.Port(), t.sport}
	b.remember(c, now)
	return accept(c.back.reversed().onto(p), fmt.Sprintf("mapping %s %d → %s", strings.ToUpper(name), m.External, m.To))
}

func (b *Box) fromInside(now time.Time, p lab.Packet, t tuple, route func(netip.Addr) (string, bool)) lab.Verdict {
	if b.opt.WANAddr.IsValid() && p.Dst == b.opt.WANAddr.Addr() {
		return b.hairpin(now, p, t)
	}
	out, local := route(p.Dst)
	if local || out == LAN || !b.opt.WANAddr.IsValid() {
		return accept(p, "")
	}
	if p.Proto == lab.TCP && !p.SYN() {
		return drop("forward", "no such connection known")
	}
	c := &connection{there: t}
	c.back = b.freeBack(tuple{t.proto, t.dst, b.opt.WANAddr.Addr(), t.dport, t.sport})
	b.remember(c, now)
	return accept(c.back.reversed().onto(p), "")
}

// freeBack finds a port outside for the answers: the same one if nobody has it.
func (b *Box) freeBack(back tuple) tuple {
	try := func(port uint16) bool {
		back.dport = port
		if back.proto == lab.ICMP {
			back.sport = port
		}
		return b.flows[back] == nil
	}
	if !b.opt.Scramble && try(back.dport) {
		return back
	}
	for {
		b.nextPort += 7
		if b.nextPort < 1024 {
			b.nextPort = 20000
		}
		if try(b.nextPort) {
			return back
		}
	}
}

// hairpin is a host inside that calls the public address.
func (b *Box) hairpin(now time.Time, p lab.Packet, t tuple) lab.Verdict {
	m := b.mapping(protoName(p.Proto), p.DstPort)
	if m == nil || p.Proto == lab.ICMP {
		return drop("input", "no mapping for %s %d", strings.ToUpper(protoName(p.Proto)), p.DstPort)
	}
	if !b.opt.Hairpin {
		return drop("forward", "this box does not send packets from inside back in by the public address (no hairpin)")
	}
	m.Packets++
	c := &connection{there: t, mapping: m}
	c.back = b.freeBack(tuple{t.proto, m.To.Addr(), b.opt.LANAddr.Addr(), m.To.Port(), t.sport})
	b.remember(c, now)
	return accept(c.back.reversed().onto(p), "hairpin")
}

// handleError translates an ICMP error along with the packet that it quotes: the
// quoted packet travelled against the error's direction.
func (b *Box) handleError(p lab.Packet, in string) lab.Verdict {
	inner, ok := tupleOf(*p.Inner)
	c := b.flows[inner.reversed()]
	if !ok || c == nil {
		if in == LAN {
			return accept(p, "")
		}
		return drop("input", "an error about a packet that nobody here sent")
	}
	quoted := c.there // as its sender knows it
	if inner.reversed() == c.there {
		quoted = c.back
	}
	fixed := quoted.onto(*p.Inner)
	p.Inner = &fixed
	if in == LAN { // nobody outside may see who inside complains
		p.Src = b.opt.WANAddr.Addr()
	}
	p.Dst = quoted.src
	return accept(p, "")
}
