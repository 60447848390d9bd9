package hostnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// BoxNetworks are the networks in which a box may be at some moment between its
// bootloader and OpenWrt's first boot (facts eva 2.3).
var BoxNetworks = []netip.Prefix{
	netip.MustParsePrefix("192.168.178.0/24"),
	netip.MustParsePrefix("192.168.1.0/24"),
	netip.MustParsePrefix("169.254.0.0/16"),
}

// A Shadow is something on this computer that leads packets for the box's
// networks elsewhere. Our own TCP/IP is not affected (Way Own).
type Shadow struct {
	Card Card         // the other card
	Net  netip.Prefix // its network or route
	Box  netip.Prefix // the network of the box that it covers, in whole or in part
}

func (s Shadow) String() string {
	return fmt.Sprintf("%s (%s) leads %s away", s.Card.Name, s.Card.Kind, s.Net)
}

// A Route says which card the system sends packets for a network to.
type Route struct {
	Net  netip.Prefix
	Card string
}

// Shadows lists what on other cards covers the networks of a box. A default
// route counts only into a VPN: it then takes everything.
func Shadows(cable Card, all []Card, routes []Route) []Shadow {
	var out []Shadow
	for _, c := range all {
		if c.Name == cable.Name {
			continue
		}
		var nets []netip.Prefix
		for _, p := range c.Addrs {
			nets = append(nets, p.Masked())
		}
		for _, r := range routes {
			if r.Card == c.Name && (r.Net.Bits() > 0 || c.Kind == VPN) {
				nets = append(nets, r.Net)
			}
		}
		for _, box := range BoxNetworks {
			i := slices.IndexFunc(nets, box.Overlaps)
			if i >= 0 {
				out = append(out, Shadow{Card: c, Net: nets[i], Box: box})
			}
		}
	}
	return out
}

// Routes lists this computer's IPv4 routes. *NotPossibleError where the system
// does not tell us; its cards' networks then have to do.
func Routes(ctx context.Context) ([]Route, error) { return routes(ctx) }
