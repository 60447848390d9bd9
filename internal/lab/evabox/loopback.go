package evabox

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// Loopback is a Network of real sockets on this computer, for foreign FTP
// clients. Ports are what the system gives, since those below 1024 need rights.
type Loopback struct {
	mu  sync.Mutex
	ftp netip.AddrPort
	// FTP receives the address of port 21 whenever the box opens it.
	FTP chan netip.AddrPort
}

// NewLoopback makes a network on 127.0.0.1.
func NewLoopback() *Loopback { return &Loopback{FTP: make(chan netip.AddrPort, 8)} }

// Listen opens a TCP port; port 21 keeps its real number over restarts.
func (l *Loopback) Listen(port uint16) (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	if port == 21 && l.ftp.IsValid() {
		at = l.ftp
	}
	ln, err := net.Listen("tcp", at.String())
	if err == nil && port == 21 {
		l.ftp = netip.MustParseAddrPort(ln.Addr().String())
		select {
		case l.FTP <- l.ftp:
		default:
		}
	}
	return ln, err
}

// ListenUDP opens a UDP port that nobody finds: discovery needs a Wire.
func (l *Loopback) ListenUDP(_ context.Context, _ uint16) (net.PacketConn, error) {
	return net.ListenPacket("udp", "127.0.0.1:0")
}

// SetAddress does nothing: a loopback box stays where it is.
func (l *Loopback) SetAddress(netip.Addr) {}

// Link does nothing: the loopback has no cable.
func (l *Loopback) Link(bool) {}
