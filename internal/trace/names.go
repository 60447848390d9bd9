package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
)

// A Name is a host that the household can call by name.
type Name struct {
	Name string
	Addr netip.Addr
	From string // where that stands: "DHCP lease", "/etc/config/dhcp:41", "home.toml"
}

// Names lists the hosts that can be called by name: sections host and domain of
// config dhcp, DHCP leases, the router and the peers. What was written down by
// somebody goes before what was seen.
func Names(h home.Home, s *router.Snapshot) []Name {
	var out []Name
	doc := s.Config("dhcp")
	for _, sec := range doc.Sections() {
		if sec.Type != "host" && sec.Type != "domain" {
			continue
		}
		from := "/etc/config/dhcp:" + strconv.Itoa(doc.Line(sec.Name, ""))
		for _, v := range append(sec.Values("ip"), sec.Values("ipv6")...) {
			a, err := netip.ParseAddr(v)
			if err != nil {
				continue // "ignore", or a suffix
			}
			for _, n := range sec.Values("name") {
				for _, one := range strings.Fields(n) {
					out = append(out, Name{one, a, from})
				}
			}
		}
	}
	for _, p := range h.Peers {
		for _, a := range []netip.Addr{p.Address, p.Address6} {
			if a.IsValid() {
				out = append(out, Name{p.Name, a, "home.toml"})
			}
		}
	}
	if !h.Tunnel.Network.IsZero() {
		out = append(out, Name{"router", h.Tunnel.Network.First().Addr(), "home.toml"})
	}
	for _, n := range s.Neighbours {
		if n.Name != "" {
			out = append(out, Name{n.Name, n.Addr, "DHCP lease"})
		}
	}
	return out
}

// Find looks a name up, whatever its case and with or without the home's domain.
// IPv4 goes first: that is what peers surely have.
func Find(names []Name, domains []string, name string) (Name, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	short := name
	for _, d := range domains {
		short = strings.TrimSuffix(short, "."+strings.ToLower(d))
	}
	var found []Name
	for _, n := range names {
		if l := strings.ToLower(n.Name); l == name || l == short {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return Name{}, false
	}
	slices.SortStableFunc(found, func(a, b Name) int {
		four := func(n Name) int { return map[bool]int{true: 0, false: 1}[n.Addr.Is4()] }
		return cmp.Compare(four(a), four(b))
	})
	return found[0], true
}

// SplitTarget cuts "nas:445", "192.168.1.10:445", "[fd00::10]:443", "fd00::10" or
// "nas" into host and port; 0 means no port. False: the port is none.
func SplitTarget(s string) (host string, port uint16, ok bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.WithZone("").Unmap().String(), 0, true
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, 0, s != ""
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 || i == 0 {
		return s, 0, false
	}
	return strings.Trim(s[:i], "[]"), uint16(n), true
}

// show names a packet for people: "10.86.20.2 → 192.168.1.10 tcp 445".
func show(p firewall.Packet) string {
	return fmt.Sprintf("%s → %s %s", p.Src, p.Dst, kind(p.Proto, p.DstPort))
}

// kind is what a packet carries.
func kind(proto uint8, port uint16) string {
	switch proto {
	case firewall.TCP:
		return fmt.Sprintf("tcp %d", port)
	case firewall.UDP:
		return fmt.Sprintf("udp %d", port)
	}
	return "ping"
}
