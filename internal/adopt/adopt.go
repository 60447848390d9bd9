// Package adopt understands a WireGuard gateway that somebody set up by hand: by
// a guide, by LuCI, by wg-quick or wg-easy. It says which home.toml means the
// same, judges each part, and names what home.toml's own sections take the place
// of, so that package plan can move the gateway to the recommended form.
//
// The package only reads. It never holds a secret: private keys are looked at for
// being there, compared by digest, and stay where they are. What home.toml has no
// word for is never dropped in silence: it stays as it is, or it blocks the move,
// or a note says what ends.
//
// Background. Guides for WireGuard on OpenWrt differ in names and in how the
// firewall is opened, but all of them end in the same few sections: an interface
// with proto wireguard, one section of type wireguard_IFACE for each device, a
// firewall zone that holds the interface (its own, or lan), forwardings between
// zones, and something that lets WireGuard's own packets in: a rule, or a port
// forward to the router itself. Which of them are needed is found out by asking
// the model of package firewall the same questions with and without each part;
// what was observed on real routers is in facts: OpenWrt section 6.2.
package adopt

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Tunnels lists the WireGuard interfaces of a router that heimweg did not set up
// and that devices can call, in file order. One without a port only calls others.
func Tunnels(s *router.Snapshot) []string {
	var out []string
	for _, sec := range s.Config("network").Sections() {
		if isTunnel(sec) && !router.Ours("network", sec, s.Written) && port(sec) != 0 && !sec.Bool("disabled", false) {
			out = append(out, sec.Name)
		}
	}
	return out
}

func isTunnel(sec uci.Section) bool {
	proto, _ := sec.Get("proto")
	return sec.Type == "interface" && proto == "wireguard"
}

func port(sec uci.Section) uint16 {
	text, _ := sec.Get("listen_port")
	n, _ := strconv.ParseUint(text, 10, 16)
	return uint16(n)
}

// hand is a tunnel as somebody made it.
type hand struct {
	snap      *router.Snapshot
	site      router.Site
	name      string
	section   uci.Section
	port      uint16
	addresses []netip.Prefix
	peers     []peer
	zone      zone   // the first that holds it; the zero value: none does
	wan       string // the zone towards the uplink, "" for none
	// at tells where something stands; nil: in the router's files.
	at func(section, option string) fault.Place
}

// peer is one device as somebody made it.
type peer struct {
	section  uci.Section
	key      key.Public
	name     string // what somebody called it, "" for nothing
	allowed  []allowed
	disabled bool
}

// allowed is one entry of allowed_ips as it is typed: 192.168.20.2/24 is the
// whole network to WireGuard, but shows which address was meant.
type allowed struct{ typed netip.Prefix }

func (a allowed) host() bool { return a.typed.Bits() == a.typed.Addr().BitLen() }

// zone is the firewall zone that holds the tunnel.
type zone struct {
	section uci.Section
	name    string
	own     bool // it holds nothing else
}

// readHand reads one tunnel; false: there is no such interface.
func readHand(s *router.Snapshot, name string) (*hand, bool) {
	sec, ok := s.Config("network").Section(name)
	if !ok || !isTunnel(sec) {
		return nil, false
	}
	h := &hand{snap: s, name: name, section: sec, port: port(sec)}
	h.site, _ = router.SiteOf(s)
	h.wan = h.site.WAN
	for _, w := range words(sec.Values("addresses")) {
		if p, ok := parsePrefix(w); ok {
			h.addresses = append(h.addresses, p)
		}
	}
	for _, ps := range s.Config("network").OfType("wireguard_" + name) {
		if !router.Ours("network", ps, s.Written) {
			h.peers = append(h.peers, readPeer(ps, s.Board.Release.Effective()))
		}
	}
	h.zone = h.zoneOf()
	return h, true
}

func readPeer(sec uci.Section, line router.Line) peer {
	p := peer{section: sec}
	text, _ := sec.Get("public_key")
	p.key, _ = key.ParsePublic(text)
	if p.name, _ = sec.Get("description"); p.name == "" && !sec.Anonymous {
		p.name = sec.Name
	}
	// 21.02 does not know the option and lets the device in (facts: OpenWrt 1.13).
	p.disabled = sec.Bool("disabled", false) && line.AtLeast(router.Line2203)
	for _, w := range words(sec.Values("allowed_ips")) {
		if a, ok := parsePrefix(w); ok {
			p.allowed = append(p.allowed, allowed{a})
		}
	}
	return p
}

// words splits values that may hold several, as UCI's lists in one string do.
func words(values []string) []string { return strings.Fields(strings.Join(values, " ")) }

// parsePrefix reads an address with or without a mask; without one it is a host.
func parsePrefix(w string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(w); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(w)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// zoneOf finds the zone as the firewall does: the first in the file that names
// the interface or its device.
func (h *hand) zoneOf() zone {
	for _, sec := range h.snap.Config("firewall").OfType("zone") {
		networks, devices := words(sec.Values("network")), words(sec.Values("device"))
		if !sec.Bool("enabled", true) || !slices.Contains(networks, h.name) && !slices.Contains(devices, h.name) {
			continue
		}
		name, _ := sec.Get("name")
		others := slices.DeleteFunc(append(networks, devices...), func(w string) bool { return w == h.name })
		return zone{section: sec, name: name, own: len(others) == 0 && name != h.wan}
	}
	return zone{}
}

// refers reports whether a section's option names a zone.
func refers(sec uci.Section, option, zone string) bool {
	v, _ := sec.Get(option)
	return zone != "" && v == zone
}

// own is the tunnel's IPv4 address with its mask, invalid when there is none or
// more than one.
func (h *hand) own(four bool) (netip.Prefix, int) {
	var found netip.Prefix
	n := 0
	for _, p := range h.addresses {
		if p.Addr().Is4() == four {
			if n == 0 {
				found = p
			}
			n++
		}
	}
	return found, n
}

// isOwnAddress reports whether an address is one of the router's own.
func (h *hand) isOwnAddress(text string) bool {
	a, ok := parsePrefix(text)
	if !ok {
		return false
	}
	for _, p := range h.addresses {
		if p.Addr() == a.Addr() {
			return true
		}
	}
	for _, i := range h.snap.Interfaces {
		for _, p := range i.Addresses {
			if p.Addr() == a.Addr() {
				return true
			}
		}
	}
	for _, list := range h.site.LANs {
		for _, p := range list {
			if p.Addr() == a.Addr() {
				return true
			}
		}
	}
	return false
}
