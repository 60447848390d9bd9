// Package tcpip is another TCP/IP than the lab's own: gVisor's, in user space.
// Devices that must not depend on the lab's simple streams (the phone inside its
// tunnel, the NAS) speak it, so that two independent implementations have to
// understand each other through every router between them.
//
// gVisor waits on real time: hosts that use it stay outside testing/synctest
// bubbles.
package tcpip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

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

	"github.com/heimweg/heimweg/internal/lab"
)

const nicID = 1

// Host is one TCP/IP without a link: packets leave by the function given to New
// and come in by Deliver.
type Host struct {
	stack *stack.Stack
	ep    *channel.Endpoint
	stop  context.CancelFunc
	done  chan struct{}

	mu     sync.Mutex
	addrs  []netip.Addr
	pings  map[uint16]chan struct{}
	nextID uint16
	send   func([]byte)
	once   sync.Once
}

// New makes a host with these addresses. send is called from one goroutine and
// may block.
func New(addrs []netip.Addr, mtu int, send func(raw []byte)) (*Host, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		HandleLocal:        true,
	})
	ctx, stop := context.WithCancel(context.Background())
	h := &Host{
		stack: s, ep: channel.New(1024, uint32(mtu), ""), stop: stop, done: make(chan struct{}),
		addrs: addrs, pings: map[uint16]chan struct{}{}, nextID: 0x4857, send: send,
	}
	if err := s.CreateNIC(nicID, h.ep); err != nil {
		stop()
		return nil, fmt.Errorf("the network card: %s", err)
	}
	s.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID})
	s.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	for _, a := range addrs {
		pa := tcpip.ProtocolAddress{Protocol: protocol(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
		if err := s.AddProtocolAddress(nicID, pa, stack.AddressProperties{}); err != nil {
			stop()
			s.Destroy()
			return nil, fmt.Errorf("address %s: %s", a, err)
		}
	}
	go h.pump(ctx)
	return h, nil
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func (h *Host) pump(ctx context.Context) {
	defer close(h.done)
	for {
		pkt := h.ep.ReadContext(ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		pkt.DecRef()
		h.send(view.AsSlice())
	}
}

// Deliver gives the host a packet that arrived.
func (h *Host) Deliver(raw []byte) {
	if p, err := lab.ParsePacket(raw); err == nil && p.IsEchoReply() {
		h.mu.Lock()
		if c := h.pings[p.ICMPID]; c != nil {
			close(c)
			delete(h.pings, p.ICMPID)
		}
		h.mu.Unlock()
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(raw)})
	if len(raw) > 0 && raw[0]>>4 == 6 {
		h.ep.InjectInbound(ipv6.ProtocolNumber, pkt)
	} else {
		h.ep.InjectInbound(ipv4.ProtocolNumber, pkt)
	}
	pkt.DecRef()
}

// Dial connects by TCP or UDP to "address:port"; it knows no names.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, &net.AddrError{Err: "not an address and port", Addr: address}
	}
	fa := tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(to.Addr().AsSlice()), Port: to.Port()}
	switch network {
	case "tcp", "tcp4", "tcp6":
		c, err := gonet.DialContextTCP(ctx, h.stack, fa, protocol(to.Addr()))
		if err != nil {
			return nil, err
		}
		return c, nil
	case "udp", "udp4", "udp6":
		c, err := gonet.DialUDP(h.stack, nil, &fa, protocol(to.Addr()))
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return nil, net.UnknownNetworkError(network)
}

// Listen opens a TCP port on the host's first address of each family asked for.
func (h *Host) Listen(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(h.stack, tcpip.FullAddress{NIC: nicID, Port: port}, ipv4.ProtocolNumber)
}

// Ping sends one echo request and waits for the answer or ctx.
func (h *Host) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	var src netip.Addr
	for _, a := range h.addrs {
		if a.Is4() == to.Is4() {
			src = a
		}
	}
	if !src.IsValid() {
		return 0, fmt.Errorf("no address to send a ping to %s from", to)
	}
	answered := make(chan struct{})
	h.mu.Lock()
	h.nextID++
	id := h.nextID
	h.pings[id] = answered
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.pings, id)
		h.mu.Unlock()
	}()
	start := time.Now()
	h.send(lab.BuildPing(src, to, id, 1))
	select {
	case <-answered:
		return time.Since(start), nil
	case <-h.done:
		return 0, net.ErrClosed
	case <-ctx.Done():
		return 0, fmt.Errorf("no answer to a ping of %s: %w", to, ctx.Err())
	}
}

// Resolve asks one name server for the IPv4 address of name.
func (h *Host) Resolve(ctx context.Context, server netip.Addr, name string) (netip.Addr, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return h.Dial(ctx, "udp", net.JoinHostPort(server.String(), strconv.Itoa(53)))
	}}
	found, err := r.LookupNetIP(ctx, "ip4", name)
	if err != nil {
		return netip.Addr{}, err
	}
	return found[0].Unmap(), nil
}

// Close ends all connections and goroutines.
func (h *Host) Close() {
	h.once.Do(func() {
		h.stack.Close()
		h.stop()
		<-h.done
		h.ep.Close()
		h.stack.Wait()
	})
}
