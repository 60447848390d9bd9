package subnet

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

// An Away is a network that a travelling device is likely to find itself in.
type Away struct {
	Network Network
	Why     string // who uses it, completes "it is the network of …"
}

// usual lists defaults of devices and programs. A home in one of them works
// until somebody calls home from exactly such a place.
var usual = []Away{
	{MustParse("192.168.0.0/24"), "many routers as they leave the factory (TP-Link, D-Link, Netgear, cable modems)"},
	{MustParse("192.168.1.0/24"), "most routers as they leave the factory, OpenWrt too"},
	{MustParse("192.168.2.0/24"), "Speedport and Belkin routers, and of a Mac that shares its connection"},
	{MustParse("192.168.8.0/24"), "mobile and travel routers (Huawei, GL.iNet)"},
	{MustParse("192.168.42.0/24"), "Android phones that share their connection by USB"},
	{MustParse("192.168.43.0/24"), "Android phones as hotspots"},
	{MustParse("192.168.49.0/24"), "Wi-Fi Direct between phones and printers"},
	{MustParse("192.168.100.0/24"), "cable modems and fibre boxes"},
	{MustParse("192.168.122.0/24"), "virtual machines under Linux (libvirt)"},
	{MustParse("192.168.137.0/24"), "Windows computers that share their connection"},
	{MustParse("192.168.178.0/24"), "every FRITZ!Box"},
	{MustParse("192.168.179.0/24"), "the guest network of every FRITZ!Box"},
	{MustParse("10.0.0.0/24"), "many routers, hotels and guest networks"},
	{MustParse("10.0.1.0/24"), "Apple's base stations"},
	{MustParse("10.0.2.0/24"), "virtual machines (VirtualBox, QEMU)"},
	{MustParse("10.1.1.0/24"), "many small offices"},
	{MustParse("10.8.0.0/24"), "OpenVPN servers"},
	{MustParse("10.10.10.0/24"), "many small offices"},
	{MustParse("10.42.0.0/16"), "Linux computers that share their connection (NetworkManager)"},
	{MustParse("10.88.0.0/16"), "containers (Podman)"},
	{MustParse("172.16.0.0/24"), "hotels and guest networks"},
	{MustParse("172.17.0.0/16"), "containers (Docker)"},
	{MustParse("172.18.0.0/15"), "containers (Docker Compose)"},
	{MustParse("172.20.10.0/28"), "iPhones as hotspots"},
	{MustParse("100.64.0.0/10"), "mobile and cable providers that have no public addresses left (CGNAT)"},
	{MustParse("169.254.0.0/16"), "computers that got no address from anybody"},
}

// Usual lists the networks that people meet when they are away from home, each
// with a reason. The caller may change the slice.
func Usual() []Away { return slices.Clone(usual) }

// MetAway gives the first usual away-network that overlaps n.
func MetAway(n Network) (Away, bool) {
	for _, a := range usual {
		if a.Network.Overlaps(n) {
			return a, true
		}
	}
	return Away{}, false
}

// ErrNoRoom says that the networks to avoid leave nothing to propose.
var ErrNoRoom = errors.New("the networks to avoid cover every private network")

// Propose picks an uncommon /24 by chance from 10.0.0.0/8 and 172.16.0.0/12. It
// overlaps none of avoid and none of Usual. Chance, not the first free one: two
// households that both use heimweg shall be able to visit each other.
func Propose(r io.Reader, avoid []Network) (Network, error) {
	var seed [4]byte
	if _, err := io.ReadFull(r, seed[:]); err != nil {
		return Network{}, fmt.Errorf("choosing a network: %w", err)
	}
	// A full walk in steps of a number without common divisor visits every
	// candidate once, so the search ends and its start decides the result.
	const candidates, stride = 1<<16 + 1<<12, 40503
	at := binary.BigEndian.Uint32(seed[:]) % candidates
	for range candidates {
		if n, ok := candidate(at); ok && free(n, avoid) {
			return n, nil
		}
		at = (at + stride) % candidates
	}
	return Network{}, ErrNoRoom
}

// candidate is the i-th /24 of 10.0.0.0/8 followed by 172.16.0.0/12. Those that
// people choose by hand (10.5.0.0, 10.5.1.0, 10.5.5.0) are left out.
func candidate(i uint32) (Network, bool) {
	a := [4]byte{10, byte(i >> 8), byte(i), 0}
	if i >= 1<<16 {
		a[0], a[1] = 172, 16+byte((i-1<<16)>>8)
	}
	n := NetworkOf(netip.PrefixFrom(netip.AddrFrom4(a), 24))
	return n, a[2] > 1 && a[2] != a[1]
}

func free(n Network, avoid []Network) bool {
	if _, met := MetAway(n); met {
		return false
	}
	return !slices.ContainsFunc(avoid, n.Overlaps)
}

// ProposeULA makes a private IPv6 network by chance, a /64 in fd00::/8 with 40
// random bits (RFC 4193, section 3.2).
func ProposeULA(r io.Reader) (Network, error) {
	b := [16]byte{0xfd}
	if _, err := io.ReadFull(r, b[1:6]); err != nil {
		return Network{}, fmt.Errorf("choosing an IPv6 network: %w", err)
	}
	return NetworkOf(netip.PrefixFrom(netip.AddrFrom16(b), 64)), nil
}

// A Named is a network with the name that people know it by, "home LAN".
type Named struct {
	Name    string
	Network Network
}

// A Collision is a pair of networks that overlap.
type Collision struct {
	A, B Named  // in the order of the list
	Why  string // "is the same network", "lies inside it", "contains it": said of B
}

// Collisions lists every pair that overlaps, in the order of the list. Networks
// that are none collide with nothing.
func Collisions(list []Named) []Collision {
	order := make([]int, 0, len(list))
	for i, n := range list {
		if !n.Network.IsZero() {
			order = append(order, i)
		}
	}
	// Two networks overlap only when one contains the other. Sorted by address
	// and, for the same address, the larger first, whatever contains a network
	// is on the stack when its turn comes.
	slices.SortFunc(order, func(i, j int) int {
		p, q := list[i].Network.p, list[j].Network.p
		return cmp.Or(p.Addr().Compare(q.Addr()), cmp.Compare(p.Bits(), q.Bits()), cmp.Compare(i, j))
	})
	type pair struct{ a, b int }
	var pairs []pair
	var stack []int
	for _, i := range order {
		for len(stack) > 0 && !list[stack[len(stack)-1]].Network.Overlaps(list[i].Network) {
			stack = stack[:len(stack)-1]
		}
		for _, j := range stack {
			pairs = append(pairs, pair{min(i, j), max(i, j)})
		}
		stack = append(stack, i)
	}
	slices.SortFunc(pairs, func(x, y pair) int { return cmp.Or(cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b)) })
	var out []Collision
	for _, p := range pairs {
		a, b := list[p.a], list[p.b]
		why := "is the same network"
		switch {
		case b.Network.Bits() > a.Network.Bits():
			why = "lies inside it"
		case b.Network.Bits() < a.Network.Bits():
			why = "contains it"
		}
		out = append(out, Collision{a, b, why})
	}
	return out
}

// notPublic lists the ranges that the internet does not deliver to (IANA's
// special-purpose registries). The documentation ranges (192.0.2.0/24,
// 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32) are missing on purpose: the
// lab and every example use them as public addresses.
var notPublic = []Away{
	{MustParse("10.0.0.0/8"), "a private address, known only inside one network"},
	{MustParse("172.16.0.0/12"), "a private address, known only inside one network"},
	{MustParse("192.168.0.0/16"), "a private address, known only inside one network"},
	{MustParse("100.64.0.0/10"), "an address inside the provider's network (CGNAT), shared by many customers"},
	{MustParse("127.0.0.0/8"), "the address every computer has for itself"},
	{MustParse("169.254.0.0/16"), "an address that a computer gives itself when nobody gives it one"},
	{MustParse("0.0.0.0/8"), "no address at all"},
	{MustParse("192.0.0.0/24"), "an address inside the provider's equipment (DS-Lite)"},
	{MustParse("198.18.0.0/15"), "reserved for measuring equipment"},
	{MustParse("224.0.0.0/4"), "a multicast address"},
	{MustParse("240.0.0.0/4"), "a reserved address"},
	{MustParse("::/128"), "no address at all"},
	{MustParse("::1/128"), "the address every computer has for itself"},
	{MustParse("fe80::/10"), "an address that is valid on one cable only (link-local)"},
	{MustParse("fc00::/7"), "a private IPv6 address (ULA), known only inside one network"},
	{MustParse("ff00::/8"), "a multicast address"},
}

var globalUnicast6 = MustParse("2000::/3")

// IsPublic reports whether the internet delivers packets to a.
func IsPublic(a netip.Addr) bool { return WhyNotPublic(a) == "" }

// WhyNotPublic says in a few words what a is instead of a public address
// (completes "it is …"); "" when it is public.
func WhyNotPublic(a netip.Addr) string {
	if !a.IsValid() {
		return "no address at all"
	}
	a = a.Unmap().WithZone("")
	for _, r := range notPublic {
		if r.Network.Contains(a) {
			return r.Why
		}
	}
	if a.Is6() && !globalUnicast6.Contains(a) {
		return "a reserved address"
	}
	return ""
}

// IsCarrier reports whether a lies in 100.64.0.0/10, which providers use
// between their customers and a shared public address (RFC 6598). The standard
// library's IsPrivate does not count it.
func IsCarrier(a netip.Addr) bool { return carrier.Contains(a.Unmap()) }

var carrier = MustParse("100.64.0.0/10")
