package lab

import (
	"context"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"
)

// Lease is what DHCP gives a host: an address in a network, the way out, names.
// The lab does not play DHCP's packets; it keeps who serves which link, who
// asked, and that a host renews when its cable is replugged.
type Lease struct {
	Addr    netip.Prefix // the host's address with the network's length
	Gateway netip.Addr   // the zero address: none
	DNS     []netip.Addr
	Domain  string

	// Addr6 and Gateway6 are the same for IPv6: what router advertisements and
	// DHCPv6 bring about. The zero values: the link has none.
	Addr6    netip.Prefix
	Gateway6 netip.Addr
}

// Equal reports whether two leases say the same.
func (l Lease) Equal(o Lease) bool {
	return l.Addr == o.Addr && l.Gateway == o.Gateway && l.Addr6 == o.Addr6 && l.Gateway6 == o.Gateway6 && l.Domain == o.Domain && slices.Equal(l.DNS, o.DNS)
}

type leaseServer struct {
	owner *Stack
	give  func(host string) (Lease, bool)
}

type leaseWatcher struct {
	host *Stack
	fn   func()
}

// ServeLeases makes owner the DHCP server of the link: give answers for a host's
// name. It replaces what owner served here before, and hosts on the link renew.
func (l *Link) ServeLeases(owner *Stack, give func(host string) (Lease, bool)) {
	l.set(func() {
		l.servers = slices.DeleteFunc(l.servers, func(s leaseServer) bool { return s.owner == owner })
		if give != nil {
			l.servers = append(l.servers, leaseServer{owner, give})
		}
	})
	l.tellWatchers()
}

// AskLease asks the link's DHCP servers for host's lease, as DHCP discovery does:
// servers without power, or behind a pulled cable, do not answer.
func (l *Link) AskLease(host *Stack) (Lease, bool) {
	l.mu.Lock()
	servers := slices.Clone(l.servers)
	if l.cut || l.unplugged[host] {
		servers = nil
	}
	servers = slices.DeleteFunc(servers, func(s leaseServer) bool {
		return s.owner == host || l.unplugged[s.owner] || !s.owner.On()
	})
	l.mu.Unlock()
	for _, s := range servers {
		if lease, ok := s.give(host.name); ok {
			return lease, true
		}
	}
	return Lease{}, false
}

// WatchLeases calls fn on the world's goroutine whenever host should ask again:
// another server, another range, a cable plugged in. fn must not block.
func (l *Link) WatchLeases(host *Stack, fn func()) {
	l.set(func() {
		l.watchers = slices.DeleteFunc(l.watchers, func(w leaseWatcher) bool { return w.host == host })
		if fn != nil {
			l.watchers = append(l.watchers, leaseWatcher{host, fn})
		}
	})
}

func (l *Link) tellWatchers() {
	l.mu.Lock()
	watchers := slices.Clone(l.watchers)
	l.mu.Unlock()
	for _, w := range watchers {
		l.w.engine.soon(w.fn)
	}
}

// renewAfter is how long a DHCP host needs until it has its new address.
const renewAfter = time.Second

// FollowLeases makes s a plain DHCP host on l: one device, the leased address,
// the gateway as default route. When the LAN gets another network, the host has
// a new address a second later, as after its cable was replugged.
func (s *Stack) FollowLeases(l *Link, dev string) {
	apply := func() bool {
		lease, ok := l.AskLease(s)
		if !ok {
			return false
		}
		i := Iface{Dev: dev, Link: l}
		var routes []Route
		for _, a := range []netip.Prefix{lease.Addr, lease.Addr6} {
			if a.IsValid() {
				i.Addrs = append(i.Addrs, a)
			}
		}
		for _, g := range []netip.Addr{lease.Gateway, lease.Gateway6} {
			if g.IsValid() {
				routes = append(routes, Route{Dst: anyNetwork(g), Via: g, Dev: dev})
			}
		}
		s.Configure([]Iface{i}, routes)
		return true
	}
	if !apply() {
		s.Configure([]Iface{{Dev: dev, Link: l}}, nil)
	}
	l.WatchLeases(s, func() { s.w.engine.after(renewAfter, func() { apply() }) })
}

// HostIn gives the host of this name its address in an IPv6 network: the prefix,
// and an interface id that stays the same in every network.
func HostIn(network netip.Prefix, host string) netip.Prefix {
	h := fnv.New64a()
	h.Write([]byte(host))
	a := network.Masked().Addr().As16()
	copy(a[8:], h.Sum(nil))
	return netip.PrefixFrom(netip.AddrFrom16(a), network.Bits())
}

func anyNetwork(like netip.Addr) netip.Prefix {
	if like.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// WaitAddr waits until the host has an address inside network.
func (s *Stack) WaitAddr(ctx context.Context, network netip.Prefix) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, i := range s.Ifaces() {
			for _, a := range i.Addrs {
				if network.Contains(a.Addr()) {
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
