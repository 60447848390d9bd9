//go:build linux

package kernel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// bind is the sockets of a tunnel, opened inside its host. Like WireGuard in the
// kernel, and unlike wireguard-go's own where the kernel joins packets, it answers
// from the address that was asked, so that an answer finds its way back through a
// port forward; and when there is no way from there any more, from another one.
type bind struct {
	host *Host

	mu    sync.Mutex
	socks [2]*net.UDPConn // IPv4, IPv6
}

type endpoint struct {
	dst netip.AddrPort

	mu  sync.Mutex
	src []byte // control message that says from where; nil leaves it to the kernel
}

func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.socks[0] != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	var fns []conn.ReceiveFunc
	err := b.host.Do(func() error {
		for i, network := range []string{"udp4", "udp6"} {
			lc := net.ListenConfig{Control: tellWhere}
			c, err := lc.ListenPacket(context.Background(), network, netip.AddrPortFrom([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[i], port).String())
			if err != nil {
				return err
			}
			b.socks[i] = c.(*net.UDPConn)
			port = uint16(c.LocalAddr().(*net.UDPAddr).Port) // the same for both
			fns = append(fns, receive(b.socks[i]))
		}
		return nil
	})
	if err != nil {
		b.shut()
		return nil, 0, err
	}
	return fns, port, nil
}

// tellWhere asks the kernel to say to which address a packet came.
func tellWhere(network, _ string, raw syscall.RawConn) (err error) {
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if network == "udp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}

func receive(c *net.UDPConn) conn.ReceiveFunc {
	control := make([]byte, 128)
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, cn, _, from, err := c.ReadMsgUDPAddrPort(bufs[0], control)
		if err != nil {
			return 0, err
		}
		sizes[0] = n
		eps[0] = &endpoint{dst: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), src: slices.Clone(control[:cn])}
		return 1, nil
	}
}

func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.Lock()
	c := b.socks[0]
	if e.dst.Addr().Is6() {
		c = b.socks[1]
	}
	b.mu.Unlock()
	if c == nil {
		return net.ErrClosed
	}
	for _, p := range bufs {
		e.mu.Lock()
		src := e.src
		e.mu.Unlock()
		_, _, err := c.WriteMsgUDPAddrPort(p, src, e.dst)
		if err != nil && src != nil {
			e.ClearSrc()
			_, _, err = c.WriteMsgUDPAddrPort(p, nil, e.dst)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bind) shut() error {
	var errs []error
	for i, c := range b.socks {
		if c != nil {
			errs = append(errs, c.Close())
		}
		b.socks[i] = nil
	}
	return errors.Join(errs...)
}

func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shut()
}

func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return &endpoint{dst: a}, err
}

func (b *bind) BatchSize() int       { return 1 }
func (b *bind) SetMark(uint32) error { return nil }

func (e *endpoint) ClearSrc() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.src = nil
}

func (e *endpoint) SrcToString() string { return "" }
func (e *endpoint) SrcIP() netip.Addr   { return netip.Addr{} }
func (e *endpoint) DstToString() string { return e.dst.String() }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) DstToBytes() []byte  { b, _ := e.dst.MarshalBinary(); return b }
