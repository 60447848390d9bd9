package evabox

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A Wire is the cable or switch between a box and a computer, in memory: it
// works in a testing/synctest bubble.
type Wire struct {
	mu      sync.Mutex
	nodes   []*Node
	changed chan struct{} // closed at every change of who is reachable
}

// NewWire makes a wire with nothing plugged in.
func NewWire() *Wire { return &Wire{changed: make(chan struct{})} }

// A Node is one end of the wire with its addresses: a computer, or a box's port.
type Node struct {
	wire  *Wire
	nets  []netip.Prefix // the addresses; none on a computer that reaches everything
	up    bool
	tcp   map[uint16]*listener
	udp   map[uint16]*packetConn
	next  uint16
	known map[netip.Addr]bool // neighbours that spoke to us
	probe map[netip.Addr]time.Time
	conns []*conn // ends at this node
	// KernelARP makes the node ask for a neighbour as Linux does: once a second,
	// given up after three questions (facts eva 2.5). Else it notices at once.
	KernelARP bool
}

// Plug adds a node to the wire. Its addresses carry their networks: it reaches
// nothing outside them. Without any it reaches everything on the wire, like a
// program with its own TCP/IP on a raw port.
func (w *Wire) Plug(addrs ...netip.Prefix) *Node {
	n := &Node{wire: w, nets: addrs, up: true, tcp: map[uint16]*listener{}, udp: map[uint16]*packetConn{},
		next: 49152, known: map[netip.Addr]bool{}, probe: map[netip.Addr]time.Time{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
	w.change()
	return n
}

func (w *Wire) change() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// SetAddress gives the node one address; the zero address takes it away. What was
// connected to another one hears nothing any more: nobody answers ARP there.
func (n *Node) SetAddress(a netip.Addr) {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	n.nets = nil
	if a.IsValid() {
		n.nets = []netip.Prefix{netip.PrefixFrom(a, 24)}
	}
	n.conns = slices.DeleteFunc(n.conns, func(c *conn) bool {
		local, err := netip.ParseAddrPort(c.local.String())
		if gone := err != nil || local.Addr() != a; !gone {
			return c.isClosed()
		}
		c.vanish()
		return true
	})
	n.wire.change()
}

// Link raises or drops the node's carrier.
func (n *Node) Link(up bool) {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	if n.up != up {
		n.up = up
		n.wire.change()
	}
}

func (n *Node) has(a netip.Addr) bool {
	return slices.ContainsFunc(n.nets, func(p netip.Prefix) bool { return p.Addr() == a })
}

func (n *Node) reaches(a netip.Addr) bool {
	return len(n.nets) == 0 || slices.ContainsFunc(n.nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// own is the address that the node speaks from towards to.
func (n *Node) own(to netip.Addr) netip.Addr {
	for _, p := range n.nets {
		if p.Contains(to) {
			return p.Addr()
		}
	}
	if len(n.nets) > 0 {
		return n.nets[0].Addr()
	}
	return netip.AddrFrom4([4]byte{192, 168, 178, 254})
}

func (w *Wire) find(a netip.Addr) *Node {
	for _, n := range w.nodes {
		if n.up && n.has(a) {
			return n
		}
	}
	return nil
}

// Look is what a raw Ethernet port adds: it asks by ARP for each of the addresses
// at every interval, and tells which of them somebody has. The questions need no
// address of our own (facts eva 2.6).
func (n *Node) Look(every time.Duration, whoHas ...netip.Addr) func(context.Context, func(netip.Addr)) error {
	return func(ctx context.Context, seen func(netip.Addr)) error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			for _, a := range whoHas {
				n.wire.mu.Lock()
				there := n.up && n.wire.find(a) != nil
				n.known[a] = n.known[a] || there
				n.wire.mu.Unlock()
				if there {
					seen(a)
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// DialTCP opens a connection. A closed port refuses; an absent host is silence
// until ctx ends or, with KernelARP, "no route to host" after three seconds.
func (n *Node) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	var giveUp time.Time
	for {
		c, wait, err := n.tryDial(to)
		if err != nil {
			return fail(err)
		}
		if c != nil {
			return c, nil
		}
		if n.KernelARP && giveUp.IsZero() {
			giveUp = time.Now().Add(3 * time.Second)
		}
		if n.KernelARP && !time.Now().Before(giveUp) {
			return fail(syscall.EHOSTUNREACH)
		}
		if err := wait(ctx); err != nil {
			return fail(err)
		}
	}
}

// tryDial makes one try; without a connection it says what to wait for.
func (n *Node) tryDial(to netip.AddrPort) (net.Conn, func(context.Context) error, error) {
	w := n.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	changed, again := w.changed, time.Duration(0)
	peer := w.find(to.Addr())
	if n.KernelARP && !n.known[to.Addr()] {
		if next := n.probe[to.Addr()]; time.Now().Before(next) {
			peer, again = nil, time.Until(next)
		} else {
			again = time.Second
			n.probe[to.Addr()] = time.Now().Add(again)
		}
		if peer == nil {
			changed = nil // only the next question finds out
		}
	}
	if peer != nil && n.up && n.reaches(to.Addr()) && peer != n {
		n.known[to.Addr()] = true
		c, err := peer.accept(n, to)
		return c, nil, err
	}
	delete(n.known, to.Addr())
	return nil, func(ctx context.Context) error { return waitFor(ctx, changed, again) }, nil
}

// waitFor waits for the channel or, when positive, the time, or ctx's end.
func waitFor(ctx context.Context, ch <-chan struct{}, d time.Duration) error {
	if ch == nil && d <= 0 {
		return ctx.Err()
	}
	var tick <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-ch:
	case <-tick:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (n *Node) accept(from *Node, to netip.AddrPort) (net.Conn, error) {
	l := n.tcp[to.Port()]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	from.next++
	local := netip.AddrPortFrom(from.own(to.Addr()), from.next)
	theirs, ours := newPair(net.TCPAddrFromAddrPort(local), net.TCPAddrFromAddrPort(to))
	select {
	case l.queue <- ours:
		n.conns = append(n.conns, ours)
		return theirs, nil
	default:
		return nil, syscall.ECONNREFUSED
	}
}

type listener struct {
	node  *Node
	port  uint16
	queue chan *conn
	done  chan struct{}
	once  sync.Once
}

// Listen accepts TCP connections to a port of the node.
func (n *Node) Listen(port uint16) (net.Listener, error) {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	if n.tcp[port] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &listener{node: n, port: port, queue: make(chan *conn, 8), done: make(chan struct{})}
	n.tcp[port] = l
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.node.wire.mu.Lock()
		delete(l.node.tcp, l.port)
		l.node.wire.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.reset()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: int(l.port)} }

type datagram struct {
	from netip.AddrPort
	data []byte
}

type packetConn struct {
	node  *Node
	port  uint16
	queue chan datagram
	done  chan struct{}
	once  sync.Once
	mu    sync.Mutex
	dl    time.Time
	reset chan struct{} // closed when the deadline changes
}

// ListenUDP opens a UDP port of the node; 0 chooses one.
func (n *Node) ListenUDP(_ context.Context, port uint16) (net.PacketConn, error) {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	if port == 0 {
		n.next++
		port = n.next
	}
	if n.udp[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: syscall.EADDRINUSE}
	}
	c := &packetConn{node: n, port: port, queue: make(chan datagram, 64), done: make(chan struct{}), reset: make(chan struct{})}
	n.udp[port] = c
	return c, nil
}

var allNodes = netip.MustParseAddr("ff02::1")

// WriteTo sends a datagram; to a broadcast address or all IPv6 nodes, to everyone.
func (c *packetConn) WriteTo(p []byte, to net.Addr) (int, error) {
	dst, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, syscall.EINVAL
	}
	a := dst.AddrPort().Addr().Unmap()
	w := c.node.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.node.up {
		return 0, &net.OpError{Op: "write", Net: "udp", Err: syscall.ENETUNREACH}
	}
	all := a.WithZone("") == allNodes || a.Is4() && a.As4()[3] == 255
	for _, n := range w.nodes {
		if n == c.node || !n.up || !all && !n.has(a) && (len(n.nets) > 0 || a != n.own(a)) {
			continue
		}
		src := c.node.own(a)
		if !n.known[src] {
			n.known[src] = true
			w.change()
		}
		if u := n.udp[dst.AddrPort().Port()]; u != nil {
			select {
			case u.queue <- datagram{netip.AddrPortFrom(src, c.port), append([]byte(nil), p...)}:
			default: // a full queue drops
			}
		}
	}
	return len(p), nil
}

// ReadFrom waits for a datagram.
func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		dl, reset := c.dl, c.reset
		c.mu.Unlock()
		var tick <-chan time.Time
		if !dl.IsZero() {
			if !time.Now().Before(dl) {
				return 0, nil, os.ErrDeadlineExceeded
			}
			t := time.NewTimer(time.Until(dl))
			defer t.Stop()
			tick = t.C
		}
		select {
		case d := <-c.queue:
			return copy(p, d.data), net.UDPAddrFromAddrPort(d.from), nil
		case <-c.done:
			return 0, nil, net.ErrClosed
		case <-reset:
		case <-tick:
		}
	}
}

func (c *packetConn) Close() error {
	c.once.Do(func() {
		c.node.wire.mu.Lock()
		delete(c.node.udp, c.port)
		c.node.wire.mu.Unlock()
		close(c.done)
	})
	return nil
}

func (c *packetConn) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4zero, Port: int(c.port)} }
func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dl = t
	close(c.reset)
	c.reset = make(chan struct{})
	return nil
}
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }
func (c *packetConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
