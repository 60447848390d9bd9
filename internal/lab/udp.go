package lab

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// udpQueue is how many datagrams wait for a reader; more are lost, as in a kernel.
const udpQueue = 1024

// UDPConn is a UDP endpoint on all addresses of a stack.
type UDPConn struct {
	s    *Stack
	port uint16

	mu       sync.Mutex
	cond     sync.Cond
	queue    []datagram
	closed   bool
	deadline deadline
}

type datagram struct {
	from, to netip.AddrPort
	data     []byte
}

// deadline wakes a waiter when its time has come.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set moves the deadline; wake runs when it passes. The caller holds the lock
// that guards the deadline.
func (d *deadline) set(t time.Time, wake func()) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), wake)
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// ListenUDP opens a UDP endpoint; port 0 takes a free one.
func (s *Stack) ListenUDP(port uint16) (*UDPConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(n syscall.Errno) (*UDPConn, error) {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: &net.UDPAddr{Port: int(port)}, Err: errno("bind", n)}
	}
	if !s.conf.Load().on {
		return fail(syscall.ENETDOWN)
	}
	if port == 0 {
		port = s.freePort(func(p uint16) bool { return s.udp[p] == nil })
	}
	if s.udp[port] != nil {
		return fail(syscall.EADDRINUSE)
	}
	u := &UDPConn{s: s, port: port}
	u.cond.L = &u.mu
	s.udp[port] = u
	return u, nil
}

// freePort finds a port number above 49152 that free accepts. The caller holds mu.
func (s *Stack) freePort(free func(uint16) bool) uint16 {
	for {
		s.nextPort++
		if s.nextPort < 49152 {
			s.nextPort = 49152
		}
		if free(s.nextPort) {
			return s.nextPort
		}
	}
}

// Port that the endpoint listens on.
func (u *UDPConn) Port() uint16 { return u.port }

// LocalAddr of the endpoint, without an address.
func (u *UDPConn) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4zero, Port: int(u.port)} }

func (s *Stack) deliverUDP(raw []byte, p Packet, id uint64, hook string) {
	s.mu.Lock()
	u := s.udp[p.DstPort]
	s.mu.Unlock()
	if u == nil {
		s.w.note(id, s.name, hook, p, Rejected, "no program listens on this UDP port")
		s.refuse(raw, p)
		return
	}
	u.mu.Lock()
	full := len(u.queue) >= udpQueue
	if !full && !u.closed {
		u.queue = append(u.queue, datagram{p.Source(), p.Target(), append([]byte(nil), payload(raw)...)})
		u.cond.Signal()
	}
	u.mu.Unlock()
	if full {
		s.w.note(id, s.name, hook, p, Dropped, "the program does not keep up")
		return
	}
	s.w.note(id, s.name, hook, p, Delivered, "")
}

// Receive waits for a datagram. to is the stack's address that it was sent to.
// It ends with net.ErrClosed or os.ErrDeadlineExceeded.
func (u *UDPConn) Receive(b []byte) (n int, from, to netip.AddrPort, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		switch {
		case u.closed:
			return 0, from, to, u.fail("read", net.ErrClosed)
		case u.deadline.passed():
			return 0, from, to, u.fail("read", os.ErrDeadlineExceeded)
		case len(u.queue) > 0:
			d := u.queue[0]
			u.queue = u.queue[1:]
			return copy(b, d.data), d.from, d.to, nil
		}
		u.cond.Wait()
	}
}

// ReadFromAddrPort is Receive without the local address.
func (u *UDPConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, _, err := u.Receive(b)
	return n, from, err
}

// ReadFrom makes UDPConn a net.PacketConn.
func (u *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := u.ReadFromAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteToAddrPort sends a datagram. Like a kernel it knows only about its own
// routes: what happens on the way is in the record.
func (u *UDPConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return u.WriteFrom(b, netip.Addr{}, to)
}

// WriteFrom sends from one of the stack's addresses, as an answer must; the zero
// address, or one that the stack no longer has, lets the route choose.
func (u *UDPConn) WriteFrom(b []byte, src netip.Addr, to netip.AddrPort) (int, error) {
	u.mu.Lock()
	closed := u.closed
	u.mu.Unlock()
	if closed {
		return 0, u.fail("write", net.ErrClosed)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	c := u.s.conf.Load()
	if to.Addr() == everyone {
		return u.broadcast(c, b, to)
	}
	if !src.IsValid() || !c.local(src) {
		var ok bool
		if src, ok = c.source(to.Addr()); !ok {
			return 0, u.fail("write", errno("sendto", syscall.ENETUNREACH))
		}
	}
	if len(b) > 65000 {
		return 0, u.fail("write", errno("sendto", syscall.EMSGSIZE))
	}
	u.s.send(BuildUDP(netip.AddrPortFrom(src, u.port), to, b))
	return len(b), nil
}

var everyone = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// broadcast sends to everyone on every link that the stack has an address on.
func (u *UDPConn) broadcast(c *config, b []byte, to netip.AddrPort) (int, error) {
	sent := false
	for i := range c.ifaces {
		d := &c.ifaces[i]
		at := slices.IndexFunc(d.Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() })
		if d.Down || d.Link == nil || at < 0 {
			continue
		}
		sent = true
		raw := BuildUDP(netip.AddrPortFrom(d.Addrs[at].Addr(), u.port), to, b)
		id := u.s.w.packetID.Add(1)
		u.s.w.engine.soon(func() { d.Link.shout(u.s, raw, id) })
	}
	if !sent {
		return 0, u.fail("write", errno("sendto", syscall.ENETUNREACH))
	}
	return len(b), nil
}

// WriteTo makes UDPConn a net.PacketConn.
func (u *UDPConn) WriteTo(b []byte, to net.Addr) (int, error) {
	ap, err := netip.ParseAddrPort(to.String())
	if err != nil {
		return 0, u.fail("write", err)
	}
	return u.WriteToAddrPort(b, ap)
}

func (u *UDPConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: u.LocalAddr(), Err: err}
}

// SetReadDeadline makes Receive give up at t; the zero time means never.
func (u *UDPConn) SetReadDeadline(t time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.deadline.set(t, u.wake)
	u.cond.Broadcast()
	return nil
}

// SetDeadline is SetReadDeadline: writing never waits.
func (u *UDPConn) SetDeadline(t time.Time) error { return u.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writing never waits.
func (u *UDPConn) SetWriteDeadline(time.Time) error { return nil }

func (u *UDPConn) wake() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cond.Broadcast()
}

// Close frees the port and wakes the readers.
func (u *UDPConn) Close() error {
	u.s.mu.Lock()
	if u.s.udp[u.port] == u {
		delete(u.s.udp, u.port)
	}
	u.s.mu.Unlock()
	u.shut()
	return nil
}

func (u *UDPConn) shut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	u.queue = nil
	u.deadline.set(time.Time{}, nil)
	u.cond.Broadcast()
}
