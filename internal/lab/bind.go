package lab

import (
	"net"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// Bind lets a real wireguard-go device send its UDP over a stack's links. Such a
// device has goroutines of its own that wait on real time: keep it out of
// testing/synctest bubbles.
type Bind struct {
	stack *Stack
	port  uint16

	mu sync.Mutex
	u  *UDPConn
}

// NewBind makes the socket of a WireGuard device on s. port is used when the
// device asks for none (listen_port 0).
func NewBind(s *Stack, port uint16) *Bind { return &Bind{stack: s, port: port} }

// Open starts to listen.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.u != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	if port == 0 {
		port = b.port
	}
	u, err := b.stack.ListenUDP(port)
	if err != nil {
		return nil, 0, err
	}
	b.u = u
	receive := func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, from, to, err := u.Receive(packets[0])
		if err != nil {
			return 0, net.ErrClosed
		}
		sizes[0], eps[0] = n, &endpoint{dst: from, src: to.Addr()}
		return 1, nil
	}
	return []conn.ReceiveFunc{receive}, u.Port(), nil
}

// Close ends the receiving; the device may Open again.
func (b *Bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.u != nil {
		b.u.Close()
		b.u = nil
	}
	return nil
}

// SetMark does nothing: nobody in the lab looks at firewall marks.
func (b *Bind) SetMark(uint32) error { return nil }

// Send gives datagrams to the stack.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	b.mu.Lock()
	u := b.u
	b.mu.Unlock()
	if u == nil {
		return net.ErrClosed
	}
	e, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	for _, buf := range bufs {
		if _, err := u.WriteFrom(buf, e.src, e.dst); err != nil {
			return err
		}
	}
	return nil
}

// ParseEndpoint reads "address:port"; names are resolved before, as wg does.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &endpoint{dst: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}, nil
}

// BatchSize is one datagram at a time.
func (b *Bind) BatchSize() int { return 1 }

// endpoint remembers which of our addresses the other end used: the answer goes
// out from the same one, as the kernel's WireGuard does it.
type endpoint struct {
	dst netip.AddrPort
	src netip.Addr
}

func (e *endpoint) ClearSrc()           { e.src = netip.Addr{} }
func (e *endpoint) SrcToString() string { return e.src.String() }
func (e *endpoint) DstToString() string { return e.dst.String() }
func (e *endpoint) DstToBytes() []byte  { b, _ := e.dst.MarshalBinary(); return b }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) SrcIP() netip.Addr   { return e.src }
