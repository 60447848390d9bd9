package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
)

var everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

func prefixes(p ...netip.Prefix) []netip.Prefix { return p }

// Bridge is a door from this computer's loopback into the world, for `heimweg
// lab up`. It is the one place in the lab that opens real sockets, and only on
// 127.0.0.1.
type Bridge struct {
	addr  net.Addr
	close func()
	done  sync.WaitGroup

	mu    sync.Mutex
	conns map[io.Closer]bool
	shut  bool
}

// Addr is where the door is, such as 127.0.0.1:40022.
func (b *Bridge) Addr() netip.AddrPort { return netip.MustParseAddrPort(b.addr.String()) }

// Close shuts the door and ends what goes through it.
func (b *Bridge) Close() {
	b.mu.Lock()
	b.shut = true
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.close()
	b.done.Wait()
}

// hold keeps c to be closed with the bridge; false means it is too late.
func (b *Bridge) hold(c io.Closer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		c.Close()
		return false
	}
	b.conns[c] = true
	return true
}

func (b *Bridge) drop(c io.Closer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
	c.Close()
}

// BridgeSSH opens a loopback TCP port that leads to the home router's SSH, at
// whatever address its LAN has when somebody connects. port 0 takes a free one.
func (w *World) BridgeSSH(port uint16) (*Bridge, error) {
	return w.BridgeTCP(port, func() (string, error) {
		a, ok := w.RouterLAN()
		if !ok {
			return "", errors.New("the home router has no address on the home LAN")
		}
		return netip.AddrPortFrom(a, 22).String(), nil
	})
}

// BridgeTCP opens a loopback TCP port; each connection goes on from the laptop
// to the address that to names then.
func (w *World) BridgeTCP(port uint16, to func() (string, error)) (*Bridge, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		return nil, err
	}
	b := &Bridge{addr: l.Addr(), close: func() { l.Close() }, conns: map[io.Closer]bool{}}
	b.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.done.Go(func() { b.carry(w, c, to) })
		}
	})
	w.closers = append(w.closers, b.Close)
	return b, nil
}

// dialWait is how long a connection through a bridge may take to be made.
const dialWait = 30 * time.Second

func (b *Bridge) carry(w *World, outer net.Conn, to func() (string, error)) {
	if !b.hold(outer) {
		return
	}
	defer b.drop(outer)
	address, err := to()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialWait)
	defer cancel()
	inner, err := w.LaptopDial(ctx, "tcp", address)
	if err != nil {
		if t, ok := outer.(*net.TCPConn); ok {
			t.SetLinger(0) // a reset: nobody answered behind the door
		}
		return
	}
	if !b.hold(inner) {
		return
	}
	defer b.drop(inner)
	var both sync.WaitGroup
	pipe := func(to, from net.Conn) {
		io.Copy(to, from)
		if h, ok := to.(interface{ CloseWrite() error }); ok {
			h.CloseWrite()
		}
	}
	both.Go(func() { pipe(inner, outer) })
	both.Go(func() { pipe(outer, inner) })
	both.Wait()
}

// BridgeTunnel opens a loopback UDP port; what is sent to it leaves the tethered
// laptop for the household's public address, and the answers come back. A real
// WireGuard on this computer can so come home through the emulated routers.
func (w *World) BridgeTunnel(port uint16, endpoint uint16) (*Bridge, error) {
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		return nil, err
	}
	b := &Bridge{addr: l.LocalAddr(), close: func() { l.Close() }, conns: map[io.Closer]bool{}}
	b.done.Go(func() { b.carryUDP(w, l, endpoint) })
	w.closers = append(w.closers, b.Close)
	return b, nil
}

func (b *Bridge) carryUDP(w *World, l *net.UDPConn, endpoint uint16) {
	inside := map[netip.AddrPort]*lab.UDPConn{} // by the sender on loopback
	buf := make([]byte, 65536)
	for {
		n, from, err := l.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		u := inside[from]
		if u == nil {
			if u, err = w.Outside.ListenUDP(0); err != nil || !b.hold(u) {
				return
			}
			inside[from] = u
			b.done.Go(func() {
				back := make([]byte, 65536)
				for {
					n, _, err := u.ReadFromAddrPort(back)
					if err != nil {
						return
					}
					l.WriteToUDPAddrPort(back[:n], from)
				}
			})
		}
		u.WriteToAddrPort(buf[:n], w.Endpoint(endpoint))
	}
}

// String says where the door is.
func (b *Bridge) String() string { return fmt.Sprint(b.Addr()) }
