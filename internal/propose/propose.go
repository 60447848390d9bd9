// Package propose writes the first draft of a home.toml from what one look at a
// router shows, so that nobody types an address: where the router sits, which
// home LANs it has, and a tunnel network that collides with nothing.
//
// It only proposes. What it cannot know it leaves open and says so.
package propose

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
)

// A Draft is a proposed home.toml with what a person should know about it.
type Draft struct {
	Home home.Home
	// WAN is the router's address on its WAN side, invalid when it has none.
	WAN netip.Addr
	// Collides: the home LAN is the same network as the uplink LAN, so that the
	// router cannot tell the two apart; the draft moves it.
	Collides bool
	// LeftOut are interfaces of further home LANs that collide with the uplink LAN
	// too; they can follow when the first has moved.
	LeftOut []string
	// Away are home LANs that are also common elsewhere.
	Away []subnet.Away
	// NeedsEndpoint: the name or address that devices call cannot be found out.
	NeedsEndpoint bool
	// AskInput: the firewall lets in whatever comes from an interface without a
	// zone, as OpenWrt 21.02 and 22.03 ship it.
	AskInput bool
}

// Home drafts a home.toml for the router at addr. avoid are further networks
// that the tunnel must not collide with, such as those of this computer.
func Home(rand io.Reader, addr string, snap *router.Snapshot, avoid []netip.Prefix) (Draft, error) {
	site, _ := router.SiteOf(snap)
	d := Draft{Home: home.New(), AskInput: site.InputAccept}
	h := &d.Home
	h.Router.Address = addr
	wan, _ := snap.Interface("wan")
	d.WAN = firstIPv4(wan)
	h.Uplink.Kind = kind(snap, d.WAN)
	if h.Uplink.Kind == home.Behind && d.WAN.IsValid() {
		h.Uplink.Network = networkOf(wan, d.WAN)
	}
	d.NeedsEndpoint = !(h.Uplink.Kind == home.Direct && subnet.IsPublic(d.WAN))
	taken := networks(snap, avoid)
	h.LANs = lans(site)
	for _, l := range h.LANs {
		taken = append(taken, l.Network) // also one that is not plugged in now
	}
	h.Tunnel.Interface, h.Tunnel.Port = freeTunnel(site, h.Tunnel)
	if err := d.separate(rand, taken); err != nil {
		return d, err
	}
	for _, l := range h.LANs {
		if away, ok := subnet.MetAway(l.Network); ok && !l.Renumber {
			d.Away = append(d.Away, away)
		}
	}
	for _, l := range h.LANs {
		taken = append(taken, l.Network)
	}
	var err error
	if h.Tunnel.Network, err = subnet.Propose(rand, taken); err != nil {
		return d, err
	}
	h.Tunnel.Network6, err = subnet.ProposeULA(rand)
	return d, err
}

// kind tells where the router sits. Without an address on the WAN side, a router
// whose own way out leads through its LAN is a device in the ISP router's LAN.
func kind(snap *router.Snapshot, wan netip.Addr) home.Kind {
	if wan.IsValid() {
		if subnet.IsPublic(wan) {
			return home.Direct
		}
		return home.Behind
	}
	if lan, ok := snap.Interface("lan"); ok && len(lan.Gateways) > 0 {
		return home.OneArmed
	}
	return home.Behind
}

func firstIPv4(i router.Interface) netip.Addr {
	for _, p := range i.Addresses {
		if p.Addr().Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

func networkOf(i router.Interface, a netip.Addr) subnet.Network {
	for _, p := range i.Addresses {
		if p.Addr() == a {
			return subnet.NetworkOf(p)
		}
	}
	return subnet.Network{}
}

// freeTunnel finds a name and a port that no tunnel of somebody else has.
func freeTunnel(site router.Site, t home.Tunnel) (name string, port uint16) {
	name, port = t.Interface, t.Port
	for n := 1; ; n++ {
		if ours, there := site.Interfaces[name]; !there || ours {
			break
		}
		name = fmt.Sprintf("wg%d", n)
	}
	for site.Ports[port] != "" {
		port++
	}
	return name, port
}

// lans are the interfaces with a fixed private network whose zone is not the
// WAN's. A zone that may not even talk to the router is a network for guests:
// peers do not come home to it, unless there is no other.
func lans(site router.Site) []home.LAN {
	var out, guests []home.LAN
	for _, name := range slices.Sorted(maps.Keys(site.LANs)) {
		zone, ok := site.Zones[name]
		if !ok || zone == site.WAN {
			continue
		}
		for _, p := range site.LANs[name] {
			if p.Addr().Is4() && p.Addr().IsPrivate() {
				l := home.LAN{Interface: name, Network: subnet.NetworkOf(p)}
				if site.Inputs[zone] == "ACCEPT" {
					out = append(out, l)
				} else {
					guests = append(guests, l)
				}
				break
			}
		}
	}
	if len(out) == 0 {
		return guests
	}
	return out
}

// separate moves a home LAN that is the same network as the uplink LAN. home.toml
// moves one at a time, lest nobody finds the router again: "lan" before others,
// and what collides besides is left out.
func (d *Draft) separate(rand io.Reader, taken []subnet.Network) error {
	up := d.Home.Uplink.Network
	collides := func(l home.LAN) bool { return !up.IsZero() && l.Network.Overlaps(up) }
	moves := slices.IndexFunc(d.Home.LANs, func(l home.LAN) bool { return l.Interface == "lan" && collides(l) })
	if moves < 0 {
		moves = slices.IndexFunc(d.Home.LANs, collides)
	}
	var keep []home.LAN
	for i, l := range d.Home.LANs {
		switch {
		case i == moves:
			n, err := subnet.Propose(rand, taken)
			if err != nil {
				return err
			}
			l.Network, l.Renumber, d.Collides = n, true, true
		case collides(l):
			d.LeftOut = append(d.LeftOut, l.Interface)
			continue
		}
		keep = append(keep, l)
	}
	d.Home.LANs = keep
	return nil
}

func networks(snap *router.Snapshot, more []netip.Prefix) []subnet.Network {
	var out []subnet.Network
	add := func(p netip.Prefix) {
		if p.Addr().Is4() && p.Bits() > 0 {
			out = append(out, subnet.NetworkOf(p))
		}
	}
	for _, i := range snap.Interfaces {
		for _, p := range i.Addresses {
			add(p)
		}
	}
	for _, p := range more {
		add(p)
	}
	return out
}
