package device

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
)

// port is the bootloader's end of a link of the lab: evabox.Network. It also
// stands for FRITZ!OS, which shows nothing but its address and its leases.
type port struct {
	d     *Box
	stack *lab.Stack
	link  *lab.Link

	mu    sync.Mutex
	addr  netip.Addr
	conns map[*lab.Conn]bool
}

func newPort(d *Box, s *lab.Stack, l *lab.Link) *port {
	return &port{d: d, stack: s, link: l, conns: map[*lab.Conn]bool{}}
}

// onLink makes everything a neighbour: the bootloader answers whoever it hears.
var onLink = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// SetAddress gives the port one address, or none. Who is connected to another one
// hears nothing any more.
func (p *port) SetAddress(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr = a
	i := lab.Iface{Dev: "lan", Link: p.link}
	var routes []lab.Route
	if a.IsValid() {
		i.Addrs = []netip.Prefix{netip.PrefixFrom(a, 24)}
		routes = []lab.Route{{Dst: onLink, Dev: "lan"}}
	}
	for c := range p.conns {
		if at, err := netip.ParseAddrPort(c.LocalAddr().String()); err != nil || at.Addr() != a {
			c.Vanish()
			delete(p.conns, c)
		}
	}
	p.stack.Configure([]lab.Iface{i}, routes)
}

// drain is how long words that were said already may take to leave.
const drain = 2 * time.Millisecond

// Link raises or drops the carrier; what was said before still goes out.
func (p *port) Link(up bool) {
	if now, _ := p.d.Link(); now == up {
		p.d.setCarrier(up)
		return
	}
	if !up {
		out := make(chan struct{})
		p.stack.World().After(drain, func() { close(out) })
		select {
		case <-out:
		case <-time.After(time.Second): // the world is closed already
		}
	}
	p.d.setCarrier(up)
}

// Cut drops the carrier at once.
func (p *port) Cut() { p.d.setCarrier(false) }

// Listen opens a TCP port.
func (p *port) Listen(n uint16) (net.Listener, error) {
	l, err := p.stack.ListenTCP(n)
	if err != nil {
		return nil, err
	}
	return &listener{l, p}, nil
}

type listener struct {
	*lab.Listener
	p *port
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if lc, ok := c.(*lab.Conn); ok {
		l.p.mu.Lock()
		l.p.conns[lc] = true
		l.p.mu.Unlock()
	}
	return c, nil
}

// ListenUDP opens a UDP port.
func (p *port) ListenUDP(_ context.Context, n uint16) (net.PacketConn, error) {
	u, err := p.stack.ListenUDP(n)
	if err != nil {
		return nil, err
	}
	return u, nil
}

// serveLeases is FRITZ!OS' DHCP server, which gives addresses from .20 on.
func (p *port) serveLeases(on bool) {
	p.link.ServeLeases(p.stack, func(host string) (lab.Lease, bool) {
		a := stockAddr.As4()
		a[3] = 20 + byte(len(host)%100)
		return lab.Lease{Addr: netip.PrefixFrom(netip.AddrFrom4(a), 24), Gateway: stockAddr, DNS: []netip.Addr{stockAddr}, Domain: "fritz.box"}, on
	})
}
