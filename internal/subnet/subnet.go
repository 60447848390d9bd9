// Package subnet keeps networks and hosts apart, in the types.
//
// A Network (192.168.20.0/24) has no host bits by construction. A Host
// (192.168.20.2 in that network) knows its network and can be written in the two
// ways that WireGuard and OpenWrt need: as one peer (…/32, for allowed IPs) and
// as an interface's own address (…/24). Mixing the two up is the classic mistake
// of hand-made set-ups: a /24 in a peer's allowed IPs swallows every other peer,
// a /32 on the router's interface makes dnsmasq refuse to answer.
//
// The package also knows which networks people meet when they are away (hotels,
// friends, phones as hotspots): a home that uses one of those cannot be reached
// from there, because the travelling device believes that home is where it is.
//
// It computes only: no sockets, no look at the computer's interfaces.
package subnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// A Network is an IPv4 or IPv6 network whose host bits are zero. It compares
// with ==; the zero value means "none".
type Network struct{ p netip.Prefix }

// A Host is an address together with the network it lives in. It compares with
// ==; the zero value means "none".
type Host struct {
	net Network
	a   netip.Addr
}

// A HostBitsError says that an address with its mask was given where a network
// belongs, such as 192.168.1.20/24.
type HostBitsError struct {
	Given netip.Prefix
	Want  Network // the network that the address is in
}

func (e *HostBitsError) Error() string {
	return fmt.Sprintf("%s is a host, not a network; the network is %s", e.Given, e.Want)
}

// A FormatError says that a text is no network or no host at all.
type FormatError struct {
	Given string
	Why   string // completes "… is not a network: "
	Want  string // what was probably meant; "" when there is no good guess
}

func (e *FormatError) Error() string { return fmt.Sprintf("%q: %s", e.Given, e.Why) }

// A FullError says that a network has no free address left.
type FullError struct {
	Network Network
	Taken   int
}

func (e *FullError) Error() string {
	return fmt.Sprintf("no address is free in %s; %d are taken", e.Network, e.Taken)
}

// An OutsideError says that an address is not a usable host of a network.
type OutsideError struct {
	Addr    netip.Addr
	Network Network
	Why     string // "it is outside of it", "it is the broadcast address"
}

func (e *OutsideError) Error() string {
	return fmt.Sprintf("%s is not a host of %s: %s", e.Addr, e.Network, e.Why)
}

// ParseNetwork reads "192.168.20.0/24" or "fd12:3456:789a::/64". Its errors are
// *HostBitsError and *FormatError.
func ParseNetwork(s string) (Network, error) {
	p, err := parsePrefix(s)
	if err != nil {
		return Network{}, err
	}
	n := NetworkOf(p)
	if n.p != p {
		return Network{}, &HostBitsError{Given: p, Want: n}
	}
	return n, nil
}

// MustParse is ParseNetwork for networks written in the program itself.
func MustParse(s string) Network {
	n, err := ParseNetwork(s)
	if err != nil {
		panic(err)
	}
	return n
}

func parsePrefix(s string) (netip.Prefix, error) {
	fail := func(why, want string) (netip.Prefix, error) {
		return netip.Prefix{}, &FormatError{Given: s, Why: why, Want: want}
	}
	addr, size, slash := strings.Cut(s, "/")
	a, err := netip.ParseAddr(addr)
	switch {
	case err != nil:
		return fail("it does not begin with an IP address", "")
	case a.Zone() != "":
		return fail("a network has no zone", "")
	case a.Is4In6():
		return fail("it is an IPv4 address in IPv6 clothes", "")
	case !slash:
		return fail("its size is missing", guess(a, defaultBits(a)))
	}
	p, err := netip.ParsePrefix(s)
	if err == nil {
		return p, nil
	}
	if bits, ok := maskBits(size); ok && a.Is4() {
		return fail("its size is written as a mask", guess(a, bits))
	}
	return fail(fmt.Sprintf("its size is not a number from 0 to %d", a.BitLen()), guess(a, defaultBits(a)))
}

func defaultBits(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

func guess(a netip.Addr, bits int) string {
	return NetworkOf(netip.PrefixFrom(a, bits)).String()
}

// maskBits reads 255.255.255.0 as 24.
func maskBits(s string) (int, bool) {
	m, err := netip.ParseAddr(s)
	if err != nil || !m.Is4() {
		return 0, false
	}
	b := m.As4()
	v := binary.BigEndian.Uint32(b[:])
	bits := 0
	for v&(1<<31) != 0 {
		v <<= 1
		bits++
	}
	return bits, v == 0
}

// NetworkOf is the network that a prefix lies in: host bits are cleared. An
// invalid prefix gives the zero Network.
func NetworkOf(p netip.Prefix) Network {
	if !p.IsValid() || p.Addr().Is4In6() {
		return Network{}
	}
	return Network{netip.PrefixFrom(p.Addr().WithZone(""), p.Bits()).Masked()}
}

// IsZero reports whether there is no network.
func (n Network) IsZero() bool { return !n.p.IsValid() }

// Prefix is the network as net/netip writes it; invalid for the zero Network.
func (n Network) Prefix() netip.Prefix { return n.p }

// Bits is the length of the prefix, 24 for 192.168.20.0/24; -1 for none.
func (n Network) Bits() int {
	if n.IsZero() {
		return -1
	}
	return n.p.Bits()
}

// Is4 reports whether it is an IPv4 network.
func (n Network) Is4() bool { return n.p.Addr().Is4() }

// Is6 reports whether it is an IPv6 network.
func (n Network) Is6() bool { return n.p.Addr().Is6() }

// Contains reports whether a lies in n.
func (n Network) Contains(a netip.Addr) bool { return n.p.Contains(a) }

// Overlaps reports whether some address lies in both.
func (n Network) Overlaps(o Network) bool { return n.p.Overlaps(o.p) }

// String is "192.168.20.0/24"; "" for none.
func (n Network) String() string {
	if n.IsZero() {
		return ""
	}
	return n.p.String()
}

// MarshalText gives the same as String.
func (n Network) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (n *Network) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*n = Network{}
		return nil
	}
	p, err := ParseNetwork(string(b))
	if err != nil {
		return err
	}
	*n = p
	return nil
}

// Host is the i-th address of the network, counting from its first: Host(1) of
// 192.168.20.0/24 is 192.168.20.1. It is the zero Host when i lies outside.
func (n Network) Host(i uint32) Host {
	if n.IsZero() {
		return Host{}
	}
	if free := n.p.Addr().BitLen() - n.p.Bits(); free < 32 && uint64(i)>>free != 0 {
		return Host{}
	}
	// Where free is 32 or more the low 32 bits of the network address are zero,
	// elsewhere i stays within the free bits: no carry, or-ing is adding.
	b := n.p.Addr().AsSlice()
	low := b[len(b)-4:]
	binary.BigEndian.PutUint32(low, binary.BigEndian.Uint32(low)|i)
	a, _ := netip.AddrFromSlice(b)
	return Host{n, a}
}

// Index is the number of an address in its network, so that Host(Index(a)) is
// a; 0 for addresses outside. Only its low 32 bits count.
func (n Network) Index(a netip.Addr) uint32 {
	if !n.Contains(a) {
		return 0
	}
	low := func(a netip.Addr) uint32 {
		b := a.AsSlice()
		return binary.BigEndian.Uint32(b[len(b)-4:])
	}
	return low(a) - low(n.p.Addr())
}

// First is the address that the home router takes for itself: Host(1).
func (n Network) First() Host { return n.Host(1) }

// last is the highest address, IPv4's broadcast address.
func (n Network) last() netip.Addr {
	b := n.p.Addr().AsSlice()
	for i := n.p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// whyNoHost says why a cannot be a host's address in n, "" when it can. In
// networks of one or two addresses every address is a host's (RFC 3021, 6164).
func (n Network) whyNoHost(a netip.Addr) string {
	switch {
	case !n.Contains(a):
		return "it is outside of it"
	case n.p.Addr().BitLen()-n.p.Bits() < 2:
		return ""
	case a == n.p.Addr():
		return "it is the address of the network itself"
	case a.Is4() && a == n.last():
		return "it is the broadcast address"
	}
	return ""
}

// HostIn puts an address into its network; the error is an *OutsideError.
func HostIn(n Network, a netip.Addr) (Host, error) {
	if why := n.whyNoHost(a); why != "" {
		return Host{}, &OutsideError{a, n, why}
	}
	return Host{n, a}, nil
}

// ParseHost reads an address with the size of its network, "192.168.1.1/24".
// Its errors are *FormatError and *OutsideError.
func ParseHost(s string) (Host, error) {
	p, err := parsePrefix(s)
	if err != nil {
		return Host{}, err
	}
	return HostIn(NetworkOf(p), p.Addr())
}

// IsZero reports whether there is no host.
func (h Host) IsZero() bool { return !h.a.IsValid() }

// Addr is the address without its network.
func (h Host) Addr() netip.Addr { return h.a }

// Network is the network that the host lives in.
func (h Host) Network() Network { return h.net }

// AsPeer is the address alone, /32 or /128: for allowed IPs.
func (h Host) AsPeer() netip.Prefix {
	if h.IsZero() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(h.a, h.a.BitLen())
}

// OnInterface is the address with its network's size, such as 192.168.20.1/24:
// for the address of an interface.
func (h Host) OnInterface() netip.Prefix {
	if h.IsZero() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(h.a, h.net.p.Bits())
}

// String is "192.168.20.2/24"; "" for none.
func (h Host) String() string {
	if h.IsZero() {
		return ""
	}
	return h.OnInterface().String()
}

// NextFree is the lowest address of n that a peer can have: neither taken nor
// the network's own, the router's (.1) or the broadcast address. The error is a
// *FullError.
func NextFree(n Network, taken []netip.Addr) (netip.Addr, error) {
	used := make(map[netip.Addr]bool, len(taken))
	for _, a := range taken {
		used[a] = true
	}
	for i := uint32(2); i != 0; i++ {
		h := n.Host(i)
		if h.IsZero() || n.whyNoHost(h.a) != "" {
			break
		}
		if !used[h.a] {
			return h.a, nil
		}
	}
	return netip.Addr{}, &FullError{n, len(taken)}
}
