package openway

import (
	"net/netip"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
)

// outer names the interfaces that lead to the ISP router.
func outer(h home.Home) (v4 string, v6 []string) {
	if h.Uplink.Kind == home.OneArmed {
		return "lan", []string{"lan6", "lan"}
	}
	return "wan", []string{"wan6", "wan"}
}

// Gateway is the ISP router's address in the uplink LAN as the home router sees
// it, invalid when it has no way to the internet.
func Gateway(h home.Home, snap *router.Snapshot) netip.Addr {
	name, _ := outer(h)
	i, _ := snap.Interface(name)
	for _, g := range i.Gateways {
		if g.Is4() {
			return g
		}
	}
	return netip.Addr{}
}

// gateway6 is the ISP router as the home router's next hop for IPv6, mostly
// link-local; invalid when it is not known.
func gateway6(h home.Home, snap *router.Snapshot) netip.Addr {
	_, names := outer(h)
	for _, name := range names {
		i, _ := snap.Interface(name)
		for _, g := range i.Gateways {
			if g.Is6() {
				return g
			}
		}
	}
	return netip.Addr{}
}

// publicIPv6 is the home router's own public IPv6 address on its outer side.
func publicIPv6(h home.Home, snap *router.Snapshot) netip.Addr {
	_, names := outer(h)
	for _, name := range names {
		i, _ := snap.Interface(name)
		for _, p := range i.Addresses {
			if a := p.Addr(); a.Is6() && !a.Is4In6() && subnet.IsPublic(a) {
				return a
			}
		}
	}
	return netip.Addr{}
}
