package blueprint

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

// checkSystem refuses what is not OpenWrt or too old: 21.02 is the oldest line
// whose behaviour is known (facts: OpenWrt section 2).
func (d *drawing) checkSystem() bool {
	r := d.site.Board.Release
	if r.Distribution != "OpenWrt" {
		seen := strings.TrimSpace(r.Distribution + " " + r.Version)
		if seen == "" {
			seen = "a system that does not say what it is"
		}
		d.problem(fault.New("not-openwrt", "the router does not run OpenWrt").
			Saw("%s", seen).
			Do("install OpenWrt on it first, or point [router] address at the box that runs it"))
		return false
	}
	if d.line == (router.Line{}) || d.line.Before(router.Line2102) {
		d.problem(fault.New("openwrt-too-old", "the router runs OpenWrt %s; heimweg needs 21.02 or newer", r.Version).
			Because("older releases get no fixes and set WireGuard up in other ways").
			Do("upgrade the router to a current OpenWrt, then run the same command again"))
		return false
	}
	return true
}

func (d *drawing) checkUplink() {
	h := d.home
	switch {
	case d.oneArm() && h.Reach.Internet:
		d.problem(fault.NewUsage("one-armed-internet", "a one-armed home router cannot be peers' way to the internet").
			Because("it has one network only; the ISP router would get packets from an unknown network and drop the answers").
			Do("write internet = false under [reach] in home.toml, or give the router a WAN side"))
	case d.oneArm() && h.Reach.UplinkLAN:
		d.problem(fault.NewUsage("one-armed-uplink", "in a one-armed set-up there is no uplink LAN").
			Because("the home LAN and the ISP router's LAN are the same network").
			Do("write uplink-lan = false under [reach] in home.toml"))
	case h.Uplink.Kind == home.Direct && h.Reach.UplinkLAN:
		d.problem(fault.NewUsage("direct-uplink", "there is no uplink LAN when the home router has the public address itself").
			Do("write uplink-lan = false under [reach] in home.toml"))
	}
	if d.oneArm() {
		return
	}
	if d.site.WAN == "" {
		d.problem(fault.New("no-wan-zone", "the router's firewall has no zone for the uplink").
			Saw("zones of the interfaces: %s", d.zoneList()).
			Because(`home.toml says the router sits %s`, map[home.Kind]string{home.Behind: "behind the ISP router", home.Direct: "at the line itself"}[h.Uplink.Kind]).
			Do(`add the interface wan to a firewall zone, or write kind = "one-armed" under [uplink] if it has no WAN side`))
	}
	if h.Uplink.Kind == home.Behind && h.Reach.UplinkLAN && !h.Reach.Internet && !d.uplinkNetwork().IsValid() {
		d.problem(fault.New("uplink-unknown", "the uplink LAN's network is not known").
			Because("peers are to reach it, and the router's WAN side has no address right now").
			Do(`write network = "…" under [uplink] in home.toml, or plug in the WAN cable`))
	}
	d.compareUplink()
}

// compareUplink holds what home.toml says about the uplink against the address
// that the WAN side has right now.
func (d *drawing) compareUplink() {
	live := d.liveWAN()
	if !live.IsValid() {
		return
	}
	public, net := subnet.IsPublic(live.Addr()), d.home.Uplink.Network
	switch {
	case d.home.Uplink.Kind == home.Direct && !public:
		d.note("not-direct", "home.toml says that the router has the public address itself, but its WAN address "+live.Addr().String()+" is "+subnet.WhyNotPublic(live.Addr()),
			`write kind = "behind-isp-router" under [uplink] in home.toml`)
	case d.home.Uplink.Kind == home.Behind && public:
		d.note("not-behind", "home.toml says that the router is behind an ISP router, but its WAN address "+live.Addr().String()+" is public",
			`write kind = "direct" under [uplink] in home.toml, if there is no ISP router in front`)
	case net.IsZero() || net.Contains(live.Addr()):
	case d.home.Reach.UplinkLAN:
		d.problem(fault.New("uplink-elsewhere", "the uplink LAN is %s, but home.toml says %s", live.Masked(), net).
			Because("peers are to reach it").
			Do("write network = %q under [uplink] in home.toml", live.Masked()))
	default:
		d.note("uplink-elsewhere", "the uplink LAN is "+live.Masked().String()+", but home.toml says "+net.String(),
			`correct network under [uplink] in home.toml`)
	}
}

func (d *drawing) zoneList() string {
	var list []string
	for iface, zone := range d.site.Zones {
		list = append(list, iface+" in "+zone)
	}
	slices.Sort(list)
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// checkNames refuses to take over what somebody else has named so.
func (d *drawing) checkNames() {
	t := d.home.Tunnel
	if !uci.ValidName(t.Interface) || len(t.Interface) > 15 {
		d.problem(fault.NewUsage("interface-name", "%q cannot be the name of an interface", t.Interface).
			Because("letters, digits and underscores are allowed, at most 15").
			Do(`write interface = "wg0" under [tunnel] in home.toml`))
	}
	if typ, taken := d.site.Named["network."+t.Interface]; taken {
		d.problem(fault.New("interface-taken", "the router already has a section network.%s that heimweg did not write", t.Interface).
			Saw("its type is %s", typ).
			Do(`choose another name in home.toml, such as interface = %q under [tunnel]`, d.freeInterface()).
			Do("or, if it is a WireGuard tunnel that somebody set up by hand, move home.toml away and let heimweg adopt take it over"))
	}
	if section, taken := d.site.ZoneSections[Zone]; taken {
		d.problem(fault.New("zone-taken", "the router's firewall already has a zone named %s that heimweg did not write", Zone).
			Saw("firewall.%s", section).
			Because("two zones of one name make the firewall refuse everything").
			Do("rename or remove that zone on the router (LuCI: Network, Firewall), then run the same command again"))
	}
	if other, taken := d.site.Ports[t.Port]; taken && other != t.Interface {
		d.problem(fault.New("port-taken", "UDP port %d of the router belongs to its other tunnel %s", t.Port, other).
			Do("choose another port under [tunnel] in home.toml"))
	}
}

func (d *drawing) freeInterface() string {
	for _, n := range []string{"wg0", "wg1", "wg2", "wghome", "heimweg"} {
		if _, taken := d.site.Named["network."+n]; !taken && n != d.home.Tunnel.Interface {
			return n
		}
	}
	return "wg9"
}

// lans finds each home LAN on the router and, where home.toml allows it, moves it.
func (d *drawing) lans() {
	for _, l := range d.home.LANs {
		zone := d.site.Zones[l.Interface]
		if _, known := d.site.Interfaces[l.Interface]; !known {
			d.problem(fault.New("lan-unknown", "the router has no interface %s", l.Interface).
				Saw("its interfaces: %s", d.interfaceList()).
				Do("correct interface under [[lan]] in home.toml"))
			continue
		}
		if zone == "" {
			d.problem(fault.New("lan-without-zone", "the router's interface %s is in no firewall zone", l.Interface).
				Because("nothing can be let through to a network without a zone").
				Do("add %s to a zone on the router (LuCI: Network, Firewall)", l.Interface))
		}
		lan := LAN{Interface: l.Interface, Zone: zone}
		lan.Address, lan.Was = d.lanAddress(l)
		d.want.LANs = append(d.want.LANs, lan)
	}
}

func (d *drawing) interfaceList() string {
	var list []string
	for name := range d.site.Interfaces {
		if name != "loopback" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// lanAddress is the router's address in a home LAN when all is done, and the one
// before if it moves.
func (d *drawing) lanAddress(l home.LAN) (address, was netip.Prefix) {
	have := d.site.LANs[l.Interface]
	for _, p := range have {
		if subnet.NetworkOf(p) == l.Network {
			return p, was
		}
	}
	if len(have) == 0 {
		// A LAN that is not static (one-armed boxes often use DHCP): what it has now counts.
		for _, s := range d.site.Live {
			if s.Interface == l.Interface && subnet.NetworkOf(s.Prefix) == l.Network {
				return s.Prefix, was
			}
		}
	}
	switch {
	case len(have) == 0:
		d.problem(fault.New("lan-elsewhere", "the router's interface %s is not in %s", l.Interface, l.Network).
			Saw("it has no fixed IPv4 address%s", d.liveAddress(l.Interface)).
			Do("correct network under [[lan]] in home.toml, or give %s a fixed address on the router", l.Interface))
	case d.oneArm() && l.Renumber:
		d.problem(fault.NewUsage("one-armed-renumber", "a one-armed home router cannot move the LAN to %s", l.Network).
			Because("the LAN belongs to the ISP router").
			Do("take renumber out of [[lan]] in home.toml and write network = %q", subnet.NetworkOf(have[0])))
	case !l.Renumber:
		d.problem(fault.New("lan-elsewhere", "the router's %s is %s, but home.toml says %s", l.Interface, subnet.NetworkOf(have[0]), l.Network).
			Do("write network = %q under [[lan]] in home.toml, or renumber = true there to move the LAN", subnet.NetworkOf(have[0])))
	default:
		address = l.Network.First().OnInterface()
		d.renumber(l, have, address)
		return address, have[0]
	}
	return address, was
}

func (d *drawing) liveAddress(iface string) string {
	for _, s := range d.site.Live {
		if s.Interface == iface {
			return ", and is in " + s.Prefix.Masked().String() + " right now"
		}
	}
	return ""
}

// renumber writes the new address in the style the router uses. A bare address
// in the list style of 25.12 would be a /32 and lock everybody out (facts:
// OpenWrt section 1.11).
func (d *drawing) renumber(l home.LAN, have []netip.Prefix, address netip.Prefix) {
	why := "home.toml moves the home LAN to " + l.Network.String()
	a := Adjust{Config: "network", Section: l.Interface, Option: "ipaddr", Why: why, Cuts: true}
	switch d.site.Styles[l.Interface] {
	case router.ListForm:
		a.List = true
		a.Values = []string{address.String()}
		for _, other := range have[1:] {
			a.Values = append(a.Values, other.String())
		}
	case router.CIDRStyle:
		a.Values = []string{address.String()}
	default:
		a.Values = []string{address.Addr().String()}
		d.adjust(a)
		a.Option, a.Values = "netmask", []string{dotted(address.Bits())}
	}
	d.adjust(a)
}

func dotted(n int) string {
	v := ^uint32(0)
	if n < 32 {
		v = ^(^uint32(0) >> n)
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}).String()
}

// checkOverlaps compares with the networks that are live on the router, which
// home.toml cannot know.
func (d *drawing) checkOverlaps() {
	t := d.home.Tunnel
	for _, s := range d.site.Live {
		if s.Interface == t.Interface || d.site.Interfaces[s.Interface] {
			continue // ours, now or until it is renamed, or reported as taken
		}
		for _, n := range []subnet.Network{t.Network, t.Network6} {
			if !n.IsZero() && n.Prefix().Overlaps(s.Prefix.Masked()) && !d.moving(s.Interface) {
				d.problem(fault.New("tunnel-overlap", "the tunnel network %s overlaps %s, in which the router's %s is right now", n, s.Prefix.Masked(), s.Interface).
					Because("a packet for one of them could go to either").
					Do("choose another network under [tunnel] in home.toml"))
			}
		}
	}
	for _, l := range d.home.LANs {
		if _, known := d.site.Interfaces[l.Interface]; !known {
			continue // said already
		}
		for _, s := range d.site.Live {
			if s.Interface != l.Interface && s.Interface != t.Interface && !d.site.Interfaces[s.Interface] && l.Network.Prefix().Overlaps(s.Prefix.Masked()) {
				d.problem(fault.New("lan-overlap", "the home LAN %s overlaps %s, in which the router's %s is right now", l.Network, s.Prefix.Masked(), s.Interface).
					Because("with the same network on both sides of it the router reaches neither").
					Do("choose an uncommon network under [[lan]] in home.toml and write renumber = true there"))
			}
		}
	}
}

// moving reports whether an interface is about to leave the network it is in.
func (d *drawing) moving(iface string) bool {
	return slices.ContainsFunc(d.want.Adjust, func(a Adjust) bool {
		return a.Config == "network" && a.Section == iface
	})
}
