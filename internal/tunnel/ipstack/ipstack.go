// Package ipstack is an IP host in memory, with a tun device on one side and
// connections on the other: gVisor's network stack, wired so that it can be
// closed in the middle of traffic.
//
// wireguard-go brings such a device of its own (tun/netstack). Closing that one
// while anything still sends ends the program with "send on closed channel"
// (seen with the version of 2026-05-22: a UDP writer, and the stack's own ICMP
// answers), and a writer blocks for ever when nobody reads. Here packets wait in
// a bounded queue, are dropped when it is full, as a network card does, and
// after Close.
//
// It must never open a socket of the operating system. It must stay outside
// testing/synctest bubbles.
package ipstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nicID     = 1
	queueSize = 1024 // packets on their way out
)

// A Stack is a host with one network card, whose other side is the tun.Device
// that it implements too.
type Stack struct {
	mtu    int
	ep     *channel.Endpoint
	stack  *stack.Stack
	events chan tun.Event
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	once   sync.Once

	mu    sync.Mutex
	open  map[io.Closer]struct{} // handed out and not closed yet
	ended bool
}

var _ tun.Device = (*Stack)(nil)

// New makes a host with these addresses that sends everything through its card.
// It answers echo requests to its addresses.
func New(addresses []netip.Addr, mtu int) (*Stack, error) {
	s := &Stack{
		mtu: mtu, ep: channel.New(queueSize, uint32(mtu), ""), events: make(chan tun.Event, 1),
		open: map[io.Closer]struct{}{},
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
			HandleLocal:        true,
		}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	sack := tcpip.TCPSACKEnabled(true)
	s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	if err := s.stack.CreateNIC(nicID, s.ep); err != nil {
		s.Close()
		return nil, errors.New(err.String())
	}
	for _, a := range addresses {
		a = a.Unmap()
		if err := s.Add(a, true); err != nil {
			s.Close()
			return nil, err
		}
		to := header.IPv4EmptySubnet
		if a.Is6() {
			to = header.IPv6EmptySubnet
		}
		s.stack.AddRoute(tcpip.Route{Destination: to, NIC: nicID})
	}
	s.events <- tun.EventUp
	return s, nil
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func full(a netip.AddrPort) *tcpip.FullAddress {
	f := &tcpip.FullAddress{NIC: nicID, Port: a.Port()}
	if a.Addr().IsValid() && !a.Addr().IsUnspecified() {
		f.Addr = tcpip.AddrFromSlice(a.Addr().Unmap().AsSlice())
	}
	return f
}

// Dial opens a tcp or udp connection.
func (s *Stack) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if s.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	var c net.Conn
	var err error
	switch strings.TrimRight(network, "46") {
	case "tcp":
		c, err = gonet.DialContextTCP(ctx, s.stack, *full(to), protocol(to.Addr()))
	case "udp":
		c, err = gonet.DialUDP(s.stack, nil, full(to), protocol(to.Addr()))
	default:
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, s.dialError(err)
	}
	return s.keep(c)
}

// dialError is why a connection did not come about, in the system's words.
func (s *Stack) dialError(err error) error {
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	return standard(err)
}

// ListenTCP listens on a port of an address of this host; the unspecified
// address of a family means all of it.
func (s *Stack) ListenTCP(at netip.AddrPort) (net.Listener, error) {
	if !at.IsValid() {
		return nil, errNowhere
	}
	return gonet.ListenTCP(s.stack, *full(at), protocol(at.Addr()))
}

// ListenUDP opens a UDP port, as ListenTCP.
func (s *Stack) ListenUDP(at netip.AddrPort) (net.PacketConn, error) {
	if !at.IsValid() {
		return nil, errNowhere
	}
	return gonet.DialUDP(s.stack, full(at), nil, protocol(at.Addr()))
}

var errNowhere = errors.New("no address to listen on")

// kept closes itself with the stack: a reader of a dead gVisor endpoint would
// wait for ever.
type kept struct {
	net.Conn
	s *Stack
}

func (s *Stack) keep(c net.Conn) (net.Conn, error) {
	if err := s.remember(c); err != nil {
		return nil, err
	}
	return &kept{c, s}, nil
}

func (s *Stack) remember(c io.Closer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		c.Close()
		return net.ErrClosed
	}
	s.open[c] = struct{}{}
	return nil
}

func (s *Stack) forget(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (k *kept) Close() error {
	k.s.forget(k.Conn)
	return k.Conn.Close()
}

func (k *kept) Read(b []byte) (int, error) {
	n, err := k.Conn.Read(b)
	return n, standard(err)
}

func (k *kept) Write(b []byte) (int, error) {
	n, err := k.Conn.Write(b)
	return n, standard(err)
}

// CloseWrite ends our half of a TCP connection.
func (k *kept) CloseWrite() error {
	if h, ok := k.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read implements tun.Device: the next packet that the host sends.
func (s *Stack) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	p := s.ep.ReadContext(s.ctx)
	if p == nil {
		return 0, os.ErrClosed
	}
	defer p.DecRef()
	v := p.ToView()
	defer v.Release()
	sizes[0] = copy(bufs[0][offset:], v.AsSlice())
	return 1, nil
}

// Write implements tun.Device: packets for the host.
func (s *Stack) Write(bufs [][]byte, offset int) (int, error) {
	if s.ctx.Err() != nil {
		return 0, os.ErrClosed
	}
	for _, b := range bufs {
		b = b[offset:]
		if len(b) == 0 {
			continue
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
		switch b[0] >> 4 {
		case 4:
			s.ep.InjectInbound(ipv4.ProtocolNumber, p)
		case 6:
			s.ep.InjectInbound(ipv6.ProtocolNumber, p)
		}
		p.DecRef()
	}
	return len(bufs), nil
}

// Close implements tun.Device. It ends all connections and waits for the stack's
// goroutines.
func (s *Stack) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.ended = true
		open := s.open
		s.open = map[io.Closer]struct{}{}
		s.mu.Unlock()
		for c := range open {
			c.Close()
		}
		s.cancel()
		s.stack.Close()
		s.ep.Close()
		s.stack.Wait()
		close(s.events)
	})
	return nil
}

// MTU implements tun.Device.
func (s *Stack) MTU() (int, error) { return s.mtu, nil }

// Name implements tun.Device.
func (s *Stack) Name() (string, error) { return "memory", nil }

// File implements tun.Device.
func (s *Stack) File() *os.File { return nil }

// Events implements tun.Device.
func (s *Stack) Events() <-chan tun.Event { return s.events }

// BatchSize implements tun.Device.
func (s *Stack) BatchSize() int { return 1 }
