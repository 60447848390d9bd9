package hostnet

import (
	"fmt"
	"net/netip"
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
// route does not count, unless it goes into a VPN: it then takes everything.
func Shadows(cable Card, all []Card, routes []Route) []Shadow {
	return nil
}

// Routes lists this computer's routes, as far as the system tells.
func Routes() ([]Route, error) { return nil, nil }
