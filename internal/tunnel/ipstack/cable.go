package ipstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// What a host at the end of a cable needs beyond one in a tunnel.

// Add gives the host a further address. What does not say where it comes from
// comes from the preferred address that has the most leading bits in common with
// where it goes.
func (s *Stack) Add(a netip.Addr, preferred bool) error {
	p := tcpip.ProtocolAddress{Protocol: protocol(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
	var as stack.AddressProperties
	if !preferred {
		as.PEB = stack.NeverPrimaryEndpoint
	}
	if err := s.stack.AddProtocolAddress(nicID, p, as); err != nil {
		return fmt.Errorf("address %s: %s", a, err)
	}
	return nil
}

// DialFrom opens a TCP connection from one of the host's addresses.
func (s *Stack) DialFrom(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	c, err := gonet.DialTCPWithBind(ctx, s.stack, *full(netip.AddrPortFrom(from, 0)), *full(to), protocol(to.Addr()))
	if err != nil {
		return nil, s.dialError(err)
	}
	return s.keep(c)
}

// Remove takes an address away. Connections from it hear nothing any more.
func (s *Stack) Remove(a netip.Addr) error {
	if err := s.stack.RemoveAddress(nicID, tcpip.AddrFromSlice(a.AsSlice())); err != nil {
		return fmt.Errorf("address %s: %s", a, err)
	}
	return nil
}

// inFlight is how much a connection sends ahead, in bytes: a third of the queue.
// With more of it the queue overflows whenever the card is busy for a moment, and
// the stack needs many seconds to recover from hundreds of lost packets.
const inFlight = queueSize / 3 * 1460

// Insist sets how a connection repeats what is not acknowledged: after longest
// at the latest, until tries went unanswered. A cable that comes back after
// seconds shall not be waited for as long again.
func (s *Stack) Insist(longest time.Duration, tries int) error {
	rto, n := tcpip.TCPMaxRTOOption(longest), tcpip.TCPMaxRetriesOption(tries)
	buffer := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: inFlight, Max: inFlight}
	for _, o := range []tcpip.SettableTransportProtocolOption{&rto, &n, &buffer} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return errors.New(err.String())
		}
	}
	return nil
}

// ListenEveryone opens a UDP port on all addresses of both families, which can
// also send to 255.255.255.255 and to multicast addresses. Port 0 is any.
func (s *Stack) ListenEveryone(port uint16) (net.PacketConn, error) {
	var q waiter.Queue
	ep, err := s.stack.NewEndpoint(udp.ProtocolNumber, ipv6.ProtocolNumber, &q)
	if err != nil {
		return nil, errors.New(err.String())
	}
	ep.SocketOptions().SetBroadcast(true)
	ep.SocketOptions().SetMulticastLoop(false) // else one hears oneself
	if err := ep.Bind(tcpip.FullAddress{NIC: nicID, Port: port}); err != nil {
		ep.Close()
		return nil, fmt.Errorf("UDP port %d: %s", port, err)
	}
	c := gonet.NewUDPConn(&q, ep)
	if err := s.remember(c); err != nil {
		return nil, err
	}
	return &everyone{c, s}, nil
}

// everyone is a UDP port of both families.
type everyone struct {
	*gonet.UDPConn
	s *Stack
}

func (e *everyone) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, &net.AddrError{Err: "not a UDP address", Addr: to.String()}
	}
	return e.UDPConn.WriteTo(b, &net.UDPAddr{IP: u.IP.To16(), Port: u.Port})
}

func (e *everyone) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := e.UDPConn.ReadFrom(b)
		if u, ok := from.(*net.UDPAddr); ok && err == nil && e.s.has(u.AddrPort().Addr().Unmap()) {
			continue // what we told everyone comes back to us
		}
		return n, from, standard(err)
	}
}

func (s *Stack) has(a netip.Addr) bool {
	return s.stack.CheckLocalAddress(0, protocol(a), tcpip.AddrFromSlice(a.AsSlice())) != 0
}

func (e *everyone) Close() error {
	e.s.forget(e.UDPConn)
	return e.UDPConn.Close()
}

// Closed reports whether the host has ended.
func (s *Stack) Closed() bool { return s.ctx.Err() != nil }
