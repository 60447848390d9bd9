package hostnet

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// giveBackIn is how long giving back may take, whatever else has ended.
const giveBackIn = 10 * time.Second

// lent is the way through the system's own TCP/IP.
type lent struct {
	loan *loan
	at   []netip.Addr

	mu   sync.Mutex
	used []netip.Prefix
}

// Use implements way.
func (l *lent) Use(addrs []netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, stop := context.WithTimeout(context.Background(), giveBackIn)
	defer stop()
	err := l.loan.back(ctx, func(ch change) bool {
		return ch.What == address && !slices.Contains(addrs, ch.Net) || ch.What == hostRoute && !covered(addrs, ch.Net.Addr())
	})
	if err != nil {
		return err
	}
	l.used = nil
	for _, n := range addrs {
		if err := l.borrow(ctx, n); err != nil {
			return &NeedsAddressError{Card: l.loan.card, Address: n, Cause: err}
		}
		l.used = append(l.used, n)
	}
	return nil
}

func covered(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(n netip.Prefix) bool { return n.Contains(a) })
}

// borrow gets one address onto the card, and what it takes to use it.
func (l *lent) borrow(ctx context.Context, n netip.Prefix) error {
	if l.loan.card.Has(n.Addr()) {
		return nil // a person gave it to the card
	}
	if err := keepManagerAway(ctx, l.loan); err != nil {
		return err
	}
	if err := l.loan.borrow(ctx, change{What: address, Net: n}); err != nil {
		return err
	}
	if !needsRoutes(l.loan.card) {
		return nil
	}
	for _, a := range l.at {
		if n.Contains(a) {
			if err := l.loan.borrow(ctx, change{What: hostRoute, Net: netip.PrefixFrom(a, 32)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// from is our address towards another one.
func (l *lent) from(to netip.Addr) (netip.Addr, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.used {
		if n.Contains(to) {
			return n.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// DialTCP implements way.
func (l *lent) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: l.bind, KeepAlive: -1}
	if a, ok := l.from(to.Addr()); ok {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	} else {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: syscall.ENETUNREACH}
	}
	return d.DialContext(ctx, "tcp4", to.String())
}

// ListenUDP implements way. Without an address a card cannot send.
func (l *lent) ListenUDP(ctx context.Context, port uint16) (net.PacketConn, error) {
	l.mu.Lock()
	used := slices.Clone(l.used)
	l.mu.Unlock()
	if len(used) == 0 {
		return nil, &NotPossibleError{What: "UDP without an address on " + l.loan.card.Name, Way: Lent}
	}
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if !bindsToCard {
		at = netip.AddrPortFrom(used[0].Addr(), port)
	}
	c := net.ListenConfig{Control: l.bind}
	return c.ListenPacket(ctx, "udp4", at.String())
}

// bind keeps a socket on our card where the system allows it. Elsewhere its
// address has to do.
func (l *lent) bind(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) { _ = bindToCard(fd, l.loan.card) })
}

// Addresses implements way.
func (l *lent) Addresses() []netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.used)
}
