package blueprint

import (
	"net/netip"
	"strconv"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// zone draws the tunnel's own zone. Input REJECT with exceptions: a peer does
// not get the router's SSH, web page and ubus just for coming home (facts:
// OpenWrt section 6.2). No masquerading: it does nothing in this direction
// (observed section 2, row C). mtu_fix is harmless and helps routed networks.
func (d *drawing) zone() {
	d.own("firewall", "a zone of its own for the tunnel", uci.NewSection("zone", SectionZone,
		uci.Opt("name", Zone),
		uci.List("network", d.home.Tunnel.Interface),
		uci.Opt("input", "REJECT"),
		uci.Opt("output", "ACCEPT"),
		uci.Opt("forward", "REJECT"),
		uci.Opt("mtu_fix", "1"),
	))
}

// inRules draws what may come to the router itself.
//
// The tunnel's port: a plain rule without family opens IPv4 and IPv6 (observed
// section 2, row E); a redirect would be IPv4 only. In a one-armed set-up the
// packets come in through the LAN's zone, which lets them in unless somebody
// closed it.
//
// Ping: two rules with a family each, as OpenWrt's own configuration has them
// for the WAN side; this form means the same in fw3 and fw4.
func (d *drawing) inRules() {
	if zone := d.portZone(); zone != "" {
		d.own("firewall", "the one open port, for the tunnel, from the "+zone+" side", uci.NewSection("rule", SectionIn,
			uci.Opt("name", "heimweg-tunnel-in"),
			uci.Opt("src", zone),
			uci.Opt("proto", "udp"),
			uci.Opt("dest_port", strconv.Itoa(int(d.home.Tunnel.Port))),
			uci.Opt("target", "ACCEPT"),
		))
	}
	d.own("firewall", "peers may ask the router for names", uci.NewSection("rule", SectionDNS,
		uci.Opt("name", "heimweg-dns"),
		uci.Opt("src", Zone),
		uci.List("proto", "tcp", "udp"),
		uci.Opt("dest_port", "53"),
		uci.Opt("target", "ACCEPT"),
	))
	d.ping(SectionPing, "heimweg-ping", "ipv4")
	if !d.home.Tunnel.Network6.IsZero() {
		d.ping(SectionPing6, "heimweg-ping6", "ipv6")
	}
	if admins := d.admins(); len(admins) > 0 {
		d.own("firewall", "admin peers may reach the router's SSH and web page", uci.NewSection("rule", SectionAdmin,
			uci.Opt("name", "heimweg-admin"),
			uci.Opt("src", Zone),
			uci.List("src_ip", texts(admins)...),
			uci.Opt("proto", "tcp"),
			uci.Opt("dest_port", "22 80 443"),
			uci.Opt("target", "ACCEPT"),
		))
	}
}

func (d *drawing) ping(section, name, family string) {
	d.own("firewall", "peers may ping the router", uci.NewSection("rule", section,
		uci.Opt("name", name),
		uci.Opt("src", Zone),
		uci.Opt("proto", "icmp"),
		uci.Opt("icmp_type", "echo-request"),
		uci.Opt("family", family),
		uci.Opt("target", "ACCEPT"),
	))
}

// portZone is the zone whose side needs the open port, "" for none.
func (d *drawing) portZone() string {
	if !d.oneArm() {
		return d.site.WAN
	}
	for _, l := range d.want.LANs {
		if l.Zone != "" && d.site.Inputs[l.Zone] != "ACCEPT" {
			return l.Zone
		}
	}
	return ""
}

func (d *drawing) admins() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range d.home.Peers {
		if p.Admin && !p.Disabled {
			out = append(out, allowedIPs(p)...)
		}
	}
	return out
}

// forwardings draws the ways out of the tunnel (observed section 2, row G and
// number 6). A forwarding to the wan zone opens the uplink LAN and the internet
// at once. If only the uplink LAN is wanted, a rule for its network takes the
// forwarding's place (facts: OpenWrt section 6.3); if only the internet is wanted,
// a rule closes the uplink LAN, and it wins wherever it stands because rules come
// before forwardings (observed section 8.10).
func (d *drawing) forwardings() {
	reach := d.home.Reach
	if reach.HomeLAN {
		seen := map[string]bool{}
		for _, l := range d.want.LANs {
			if l.Zone == "" || seen[l.Zone] {
				continue
			}
			seen[l.Zone] = true
			d.forward(d.name(ForwardPrefix, l.Zone), l.Zone, "", "peers may reach the home LAN")
		}
	}
	wan := d.wan()
	if wan == "" {
		return
	}
	net := d.uplinkNetwork()
	switch {
	case reach.Internet:
		if !reach.UplinkLAN && net.IsValid() {
			d.uplinkRule(SectionNoUplink, "heimweg-no-uplink-lan", net, "REJECT", "peers may reach the internet, but not the uplink LAN")
		}
		family := ""
		if !d.fw4() {
			family = "ipv4" // see nat
		}
		d.forward(SectionInternet, wan, family, "peers may reach the internet through home")
	case reach.UplinkLAN && net.IsValid():
		d.uplinkRule(SectionUplink, "heimweg-uplink-lan", net, "ACCEPT", "peers may reach the uplink LAN, and nothing beyond it")
	}
}

func (d *drawing) forward(section, zone, family, why string) {
	options := []uci.Option{uci.Opt("src", Zone), uci.Opt("dest", zone)}
	if family != "" {
		options = append(options, uci.Opt("family", family))
	}
	d.own("firewall", why, uci.NewSection("forwarding", section, options...))
}

func (d *drawing) uplinkRule(section, name string, net netip.Prefix, target, why string) {
	d.own("firewall", why, uci.NewSection("rule", section,
		uci.Opt("name", name),
		uci.Opt("src", Zone),
		uci.Opt("dest", d.wan()),
		uci.Opt("dest_ip", net.String()),
		uci.Opt("proto", "all"),
		uci.Opt("target", target),
	))
}

// uplinkNetwork is the network between the two routers: what home.toml says,
// else what the router's WAN side is in right now. Only behind an ISP router.
func (d *drawing) uplinkNetwork() netip.Prefix {
	if d.home.Uplink.Kind != home.Behind {
		return netip.Prefix{}
	}
	if !d.home.Uplink.Network.IsZero() {
		return d.home.Uplink.Network.Prefix()
	}
	if live := d.liveWAN(); live.IsValid() && live.Bits() < 31 {
		return live.Masked()
	}
	return netip.Prefix{}
}

// liveWAN is the router's IPv4 address on the WAN side right now, with its
// network; invalid when it has none.
func (d *drawing) liveWAN() netip.Prefix {
	for _, l := range d.site.Live {
		if d.site.WAN != "" && d.site.Zones[l.Interface] == d.site.WAN && l.Prefix.Addr().Is4() {
			return l.Prefix
		}
	}
	return netip.Prefix{}
}

// nat draws the address rewriting. In a nat section src is the zone that packets
// leave through (facts: OpenWrt section 6.1).
//
// To the LAN: needed as soon as LAN devices do not send their answers to this
// router, or talk to their own subnet only (observed section 2, rows B and H); so
// always in a one-armed set-up, else as home.toml says. IPv4 only: no LAN device
// mistakes a ULA source for its own subnet's.
//
// To the internet over IPv6: the tunnel's ULA addresses mean nothing out there.
// fw4 can rewrite them; fw3 (21.02) has no IPv6 NAT, so there the forwarding is
// for IPv4 only, IPv6 is refused at once and peers fall back to IPv4 (facts:
// OpenWrt section 6.4 ii).
func (d *drawing) nat() {
	if d.home.Reach.HomeLAN && (d.home.Reach.NATToLAN || d.oneArm()) {
		for _, l := range d.want.LANs {
			if l.Zone == "" || !l.Address.IsValid() {
				continue
			}
			d.own("firewall", "LAN devices see peers as the router, so that every device answers", uci.NewSection("nat", d.name(NATPrefix, l.Interface),
				uci.Opt("name", "heimweg-nat-"+l.Interface),
				uci.Opt("src", l.Zone),
				uci.Opt("src_ip", d.home.Tunnel.Network.String()),
				uci.Opt("dest_ip", l.Address.Masked().String()),
				uci.Opt("proto", "all"),
				uci.Opt("target", "MASQUERADE"),
			))
		}
	}
	if !d.home.Reach.Internet || d.wan() == "" || d.home.Tunnel.Network6.IsZero() {
		return
	}
	if !d.fw4() {
		d.note("no-ipv6-internet", "peers reach the internet over IPv4 only: the firewall of OpenWrt "+d.line.String()+" cannot translate the tunnel's IPv6 addresses", "")
		return
	}
	d.own("firewall", "peers reach the internet over IPv6 with the router's address", uci.NewSection("nat", SectionNAT6,
		uci.Opt("name", "heimweg-nat-wan6"),
		uci.Opt("src", d.wan()),
		uci.Opt("family", "ipv6"),
		uci.Opt("src_ip", d.home.Tunnel.Network6.String()),
		uci.Opt("proto", "all"),
		uci.Opt("target", "MASQUERADE"),
	))
}

// fw4: firewall4 came with 22.03 (facts: OpenWrt section 2).
func (d *drawing) fw4() bool { return d.site.Board.Fw4 || d.line.AtLeast(router.Line2203) }

// defaults is about interfaces that are in no zone. 21.02 and 22.03 ship input
// ACCEPT for them (facts: OpenWrt section 2). The section is not ours, so it
// changes only when home.toml says so.
func (d *drawing) defaults() {
	if !d.site.InputAccept {
		return
	}
	switch d.home.Router.Input {
	case "reject":
		d.adjust(Adjust{
			Config: "firewall", Section: "@defaults[0]", Option: "input", Values: []string{"REJECT"},
			Why: "an interface in no zone must not reach the router's services",
		})
	case "":
		d.note("input-accept", "an interface that belongs to no firewall zone may reach every service of this router; OpenWrt "+d.line.String()+" ships it so",
			`decide in home.toml under [router]: input = "reject" closes it, input = "accept" leaves it`)
	}
}

// oneArmed switches off what would make two routers hand out addresses in one
// LAN (facts: OpenWrt section 6.4 i').
func (d *drawing) oneArmed() {
	if !d.oneArm() {
		return
	}
	for _, l := range d.want.LANs {
		s, ok := d.site.DHCP[l.Interface]
		if !ok {
			continue
		}
		const why = "the ISP router hands out addresses in this LAN, and only one may"
		if !s.Ignore {
			d.adjust(Adjust{Config: "dhcp", Section: s.Ref, Option: "ignore", Values: []string{"1"}, Why: why})
		}
		if s.RA != "" && s.RA != "disabled" {
			d.adjust(Adjust{Config: "dhcp", Section: s.Ref, Option: "ra", Values: []string{"disabled"}, Why: why})
		}
		if s.DHCPv6 != "" && s.DHCPv6 != "disabled" {
			d.adjust(Adjust{Config: "dhcp", Section: s.Ref, Option: "dhcpv6", Values: []string{"disabled"}, Why: why})
		}
	}
}
