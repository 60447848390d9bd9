package wgconf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
)

// An EndpointError says why peers could not call home there.
type EndpointError struct {
	Endpoint string // "" when there is none
	Why      string // completes "it is …"
}

func (e *EndpointError) Error() string {
	if e.Endpoint == "" {
		return "no endpoint is known that peers could call"
	}
	return fmt.Sprintf("peers cannot call home at %s: it is %s", e.Endpoint, e.Why)
}

// A MissingError names a part without which the configuration would be accepted
// by the device and never come home.
type MissingError struct{ What string }

func (e *MissingError) Error() string { return "the configuration lacks " + e.What }

// ErrOtherKey: the private key does not belong to the public key that the home
// router knows the peer by, so no handshake would ever succeed.
var ErrOtherKey = errors.New("the private key is not that of the peer's public key")

// For writes down what h means for the peer p.
//
// server is the home router's public key. endpoint is the host name or public
// address found out by someone else, "" for the one in home.toml. private is
// zero for a device that made its own key. The errors are *EndpointError,
// *MissingError and ErrOtherKey.
//
// The device gets single addresses (/32, /128): its own network is the tunnel,
// and what else to send there is AllowedIPs' business.
func For(h home.Home, p home.Peer, server key.Public, endpoint string, private key.Private, preshared key.Preshared) (Conf, error) {
	if endpoint == "" {
		endpoint = h.CallName()
	}
	switch why := notCallable(endpoint); {
	case server.IsZero():
		return Conf{}, &MissingError{"the home router's public key"}
	case p.Preshared && preshared.IsZero():
		return Conf{}, &MissingError{"the preshared key that the home router has for " + p.Name}
	case !p.Address.IsValid():
		return Conf{}, &MissingError{"an address for " + p.Name}
	case h.Tunnel.CallPort() == 0:
		return Conf{}, &MissingError{"the tunnel's port"}
	case !private.IsZero() && !p.PublicKey.IsZero() && private.Public() != p.PublicKey:
		return Conf{}, ErrOtherKey
	case why != "":
		return Conf{}, &EndpointError{Endpoint: endpoint, Why: why}
	}
	c := Conf{
		Interface: Interface{PrivateKey: private, DNS: dns(h), MTU: h.Tunnel.MTU},
		Peer: Peer{
			PublicKey: server, Preshared: preshared, AllowedIPs: AllowedIPs(h),
			Endpoint: endpoint, Port: h.Tunnel.CallPort(), Keepalive: p.Keepalive,
		},
	}
	for _, a := range []netip.Addr{p.Address, p.Address6} {
		if a.IsValid() {
			c.Interface.Addresses = append(c.Interface.Addresses, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return c, nil
}

// AllowedIPs are the networks that a peer sends into the tunnel: the tunnel's
// own and what it may reach, none inside another, in the order of home.toml. A
// peer whose internet goes through home sends everything, IPv6 also when the
// tunnel has none: else it would quietly go past the tunnel (facts: openwrt.md
// 6.4 (ii)). Neighbouring networks are not joined, so that a person finds home's
// networks again.
func AllowedIPs(h home.Home) []netip.Prefix {
	if h.Reach.Internet {
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	all := []subnet.Network{h.Tunnel.Network, h.Tunnel.Network6}
	if h.Reach.HomeLAN {
		for _, l := range h.LANs {
			all = append(all, l.Network)
		}
	}
	if h.Reach.UplinkLAN {
		all = append(all, h.Uplink.Network)
	}
	var out []netip.Prefix
	for i, n := range all {
		inside := func(j int, o subnet.Network) bool {
			// Of two equal ones the first stays.
			return j != i && !o.IsZero() && o.Bits() <= n.Bits() && o.Overlaps(n) && (o != n || j < i)
		}
		covered := false
		for j, o := range all {
			covered = covered || inside(j, o)
		}
		if !n.IsZero() && !covered {
			out = append(out, n.Prefix())
		}
	}
	return out
}

// dns lists servers, then search domains. A peer whose internet goes through
// home asks the home router when home.toml names no server: the server of the
// network it visits may be out of its reach, or would learn every name it looks
// up. Search domains without a server are left out, since wg-quick would then
// leave the device with no server at all.
func dns(h home.Home) []string {
	servers := h.DNS.Servers
	if len(servers) == 0 && h.Reach.Internet {
		servers = []string{home.DNSRouter}
	}
	if len(servers) == 0 {
		return nil
	}
	var out []string
	for _, s := range servers {
		if s == home.DNSRouter {
			s = h.Tunnel.Network.First().Addr().String()
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return append(out, h.DNS.Search...)
}

// Domains that only a home's own name server knows: RFC 6762 (local), RFC 8375
// (home.arpa), ICANN's choice for private use (internal), OpenWrt's default (lan)
// and the FRITZ!Box's own name.
var onlyAtHome = []string{"local", "home.arpa", "internal", "lan", "fritz.box", "localhost"}

// notCallable completes "it is …"; "" means that peers can call there.
func notCallable(endpoint string) string {
	if endpoint == "" {
		return "missing"
	}
	if a, err := netip.ParseAddr(endpoint); err == nil {
		if a.Zone() != "" || a.Is4In6() {
			return "not written as a plain address"
		}
		return subnet.WhyNotPublic(a)
	}
	if !isName(endpoint) {
		return "neither a host name nor an address"
	}
	name := strings.ToLower(strings.TrimSuffix(endpoint, "."))
	for _, d := range onlyAtHome {
		if name == d || strings.HasSuffix(name, "."+d) {
			return "a name that only your own network knows"
		}
	}
	if !strings.Contains(name, ".") {
		return "a name of one word, which only your own network knows"
	}
	return ""
}
