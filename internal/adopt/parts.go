package adopt

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// A Verdict says what a part of the hand-made gateway is good for.
type Verdict string

// The verdicts, the worst first.
const (
	Harmful   Verdict = "harmful"   // it breaks things
	Unsafe    Verdict = "unsafe"    // it lets in more than it should, or leaves a secret lying about
	Needed    Verdict = "needed"    // without it something that works ends
	Redundant Verdict = "redundant" // without it everything goes on
)

// A Part is one thing that somebody set up, judged.
type Part struct {
	What    string       `json:"what"` // "masquerading of zone VPN"
	Place   *fault.Place `json:"place,omitempty"`
	Verdict Verdict      `json:"verdict"`
	Why     string       `json:"why"`
	// Then is what becomes of it when home.toml is applied, or what to do about it.
	Then string `json:"then,omitempty"`
	// Code is stable, for scripts: "redirect", "zone-masq", "key-file".
	Code string `json:"code"`
}

// judge lists the parts of the tunnel: those of the network, then the firewall's.
func (x *hand) judge(h home.Home, t Takeover, left map[string]string) []Part {
	j := &judge{x: x, h: h, t: t, now: x.ask(x.snap.Config("network"), x.snap.Config("firewall"))}
	j.network(left)
	j.zone()
	for _, sec := range x.snap.Config("firewall").Sections() {
		if router.Ours("firewall", sec, x.snap.Written) {
			continue
		}
		switch sec.Type {
		case "forwarding":
			j.forwarding(sec)
		case "rule":
			j.rule(sec)
		case "redirect":
			j.redirect(sec)
		case "nat":
			j.nat(sec)
		}
	}
	return j.parts
}

type judge struct {
	x     *hand
	h     home.Home
	t     Takeover
	now   map[way]bool
	parts []Part
}

func (j *judge) add(code string, v Verdict, config, section, option, then, what, why string) {
	p := j.x.place(config, section, option)
	j.parts = append(j.parts, Part{Code: code, Verdict: v, Place: &p, What: what, Why: why, Then: then})
}

func (j *judge) network(left map[string]string) {
	x := j.x
	at := make([]string, len(x.addresses))
	for i, a := range x.addresses {
		at[i] = a.String()
	}
	j.add("interface", Needed, "network", x.name, "", "stays, with its key",
		fmt.Sprintf("tunnel %s, %s, UDP %d", x.name, strings.Join(at, " "), x.port), "it is the tunnel")
	for _, p := range x.peers {
		j.peer(p, left[p.section.Name])
	}
}

func (j *judge) peer(p peer, left string) {
	x, name := j.x, p.called()
	for _, hp := range j.h.Peers {
		if hp.PublicKey == p.key {
			name = hp.Name
		}
	}
	sec, what := p.section.Name, "device "+strings.TrimPrefix(name, "a device ")
	then := "goes; network." + (home.Peer{Name: name}).Section() + " takes its place, same keys"
	switch {
	case p.key.IsZero():
		j.add("peer", Redundant, "network", sec, "", "goes", what, left)
	case p.joins(x):
		j.add("site", Needed, "network", sec, "", "blocks the move", what, left+"; home.toml knows single devices only")
	case left != "":
		j.add("peer", Harmful, "network", sec, "", "goes", what, left+": one of the two takes the packets of both")
	default:
		j.add("peer", Needed, "network", sec, "", then, what, "it may come home")
	}
	if p.section.Has("private_key") {
		j.add("peer-private-key", Unsafe, "network", sec, "private_key", "goes with the old section, when that is accepted by name (forgets-keys)",
			"private key of "+name, "whoever reads this router's files can come home as "+name+"; it belongs on the device only")
	}
	j.wide(p, name)
	j.routes(p, name)
}

// wide: the whole network's mask at a device means that everything for the tunnel
// goes to it (facts: OpenWrt section 5.4).
func (j *judge) wide(p peer, name string) {
	net, _ := j.x.network(true)
	for _, a := range p.allowed {
		if !a.host() && !net.IsZero() && net.Contains(a.typed.Addr()) {
			j.add("peer-mask", Harmful, "network", p.section.Name, "allowed_ips", "becomes one address", "allowed_ips "+a.typed.String()+" of "+name,
				"it gives this device the whole network: packets for others may go to it")
			return
		}
	}
}

func (j *judge) routes(p peer, name string) {
	if !p.section.Bool("route_allowed_ips", false) || p.joins(j.x) {
		return
	}
	at, _ := j.x.own(true)
	for _, a := range p.allowed {
		if a.typed.Addr().Is4() && !at.Masked().Contains(a.typed.Addr()) {
			j.add("peer-route", Needed, "network", p.section.Name, "route_allowed_ips", "goes; the tunnel's own address covers its network then", "route to "+name,
				"the tunnel's own address covers no network, so that only this leads there")
			return
		}
	}
	j.add("peer-route", Redundant, "network", p.section.Name, "route_allowed_ips", "goes", "route to "+name,
		"the tunnel's own network leads there already")
}

// zone judges what holds the tunnel, option by option.
func (j *judge) zone() {
	x, z := j.x, j.x.zone
	if z.name == "" {
		v, why := Redundant, "nothing is let through to the home LAN, and nothing to the router"
		if x.site.InputAccept {
			v, why = Unsafe, "this release lets an interface without a zone reach every service of the router"
		}
		j.parts = append(j.parts, Part{Code: "no-zone", Verdict: v, What: "tunnel in no firewall zone", Why: why, Then: "gets zone " + blueprint.Zone})
		return
	}
	if !z.own {
		j.add("zone-shared", Unsafe, "firewall", z.section.Name, "network", "the tunnel gets a zone of its own, "+blueprint.Zone,
			"tunnel in zone "+z.name, "every device that comes home is a full member of that network: it reaches the router's login and whatever "+z.name+" may reach")
		return
	}
	j.add("zone", Needed, "firewall", z.section.Name, "", "goes; zone "+blueprint.Zone+" takes its place", "zone "+z.name, "forwardings and rules for the tunnel name it")
	if policy(z.section, "input") == "ACCEPT" {
		j.add("zone-input", Unsafe, "firewall", z.section.Name, "input", "closed, but for DNS and ping; admin = true at a device in home.toml lets that one log in",
			"input ACCEPT of zone "+z.name, "every device that comes home reaches the router's login, web page and ubus")
	}
	if policy(z.section, "forward") == "ACCEPT" {
		j.add("zone-forward", Unsafe, "firewall", z.section.Name, "forward", "closed",
			"forward ACCEPT of zone "+z.name, "your devices reach each other, and so does whoever steals one")
	}
	j.masq()
	if z.section.Bool("mtu_fix", false) {
		j.add("zone-mtu", Redundant, "firewall", z.section.Name, "mtu_fix", "stays in the new zone",
			"MSS clamping of zone "+z.name, "a device's own tunnel limits its packets already; it does no harm and helps between networks")
	}
}

func (j *judge) masq() {
	z := j.x.zone
	if !z.section.Bool("masq", false) {
		return
	}
	v, why := Redundant, "it rewrites what goes out to the devices, and nothing is sent there but answers"
	if j.now[fromLAN] {
		v = Needed
		why = "the home LAN starts connections to devices, and those whose AllowedIPs lack the home LAN take packets from the router only"
	}
	j.add("zone-masq", v, "firewall", z.section.Name, "masq", "goes", "masquerading of zone "+z.name, why)
}

// effect says what ends when a section is taken out.
func (j *judge) effect(sec uci.Section) (Verdict, string) {
	after := j.x.without(func(d *uci.Document) error { return d.Delete(sec.Name) })
	if after == nil {
		return Needed, "what it is good for cannot be told"
	}
	ends := lost(j.now, after)
	if len(ends) == 0 {
		return Redundant, "without it everything goes on"
	}
	said := make([]string, len(ends))
	for i, w := range ends {
		said[i] = string(w)
	}
	return Needed, "only through it: " + strings.Join(said, ", ")
}

func (j *judge) then(sec uci.Section) string {
	if why, ok := j.t.Retire["firewall."+sec.Name]; ok {
		return "goes; " + why
	}
	if slices.ContainsFunc(j.t.Adjust, func(a blueprint.Adjust) bool { return a.Config == "firewall" && a.Section == sec.Name }) {
		return "stays, for zone " + blueprint.Zone
	}
	return "stays"
}

func (j *judge) forwarding(sec uci.Section) {
	src, dest := first(sec, "src"), first(sec, "dest")
	if z := j.x.zone; !z.own || src != z.name && dest != z.name {
		return
	}
	v, why := j.effect(sec)
	j.add("forwarding", v, "firewall", sec.Name, "", j.then(sec), "way "+src+" → "+dest, why)
}

// concerns: a rule, port forward or NAT rule that has to do with the tunnel.
func (j *judge) concerns(sec uci.Section) bool {
	z := j.x.zone
	if z.own && (refers(sec, "src", z.name) || refers(sec, "dest", z.name)) {
		return true
	}
	for _, option := range []string{"dest_port", "src_dport"} {
		if j.x.port != 0 && onlyPort(sec, option, j.x.port) && udp(sec) {
			return true
		}
	}
	net, err := j.x.network(true)
	if err != nil {
		return false
	}
	for _, option := range []string{"src_ip", "dest_ip"} {
		for _, w := range words(sec.Values(option)) {
			if p, ok := parsePrefix(strings.TrimPrefix(w, "!")); ok && p.Addr().Is4() && net.Contains(p.Addr()) {
				return true
			}
		}
	}
	return false
}

func named(kind string, sec uci.Section) string {
	if name := first(sec, "name"); name != "" {
		return kind + " " + name
	}
	return kind
}

func (j *judge) rule(sec uci.Section) {
	if !j.concerns(sec) {
		return
	}
	v, why := j.effect(sec)
	if policy(sec, "target") == "ACCEPT" && !udp(sec) && onlyPort(sec, "dest_port", j.x.port) {
		why = "it opens the port for " + strings.Join(sec.Values("proto"), " ") + ", and WireGuard speaks UDP only"
	}
	j.add("rule", v, "firewall", sec.Name, "", j.then(sec), named("rule", sec), why)
}

func (j *judge) redirect(sec uci.Section) {
	if !j.concerns(sec) {
		return
	}
	v, why := j.effect(sec)
	if v == Needed {
		why += ". It serves IPv4 only, and depends on the tunnel's address and zone; a plain rule opens the port for both"
		if j.now[callIn6] {
			why = strings.TrimSuffix(why, "; a plain rule opens the port for both")
		}
	}
	j.add("redirect", v, "firewall", sec.Name, "", j.then(sec), named("port forward", sec), why)
}

// nat: whether the LAN's devices answer without it cannot be seen from here, but
// where they cannot.
func (j *judge) nat(sec uci.Section) {
	if !j.concerns(sec) {
		return
	}
	src := first(sec, "src")
	v, why := Redundant, "devices at home that use this router as their gateway answer without it. Who talks to its own network only needs it, which cannot be seen from here; so home.toml keeps it as nat-to-lan, and you may try without"
	switch {
	case j.h.Uplink.Kind == home.OneArmed:
		v, why = Needed, "devices at home send their answers to the ISP router, which does not know the tunnel; so they must see this router as the sender"
	case src == j.x.wan && src != "":
		v, why = Redundant, "zone "+src+" masquerades everything that leaves through it"
		if !j.x.masquerades(src) {
			v, why = Needed, "zone "+src+" masquerades nothing by itself"
		}
	}
	j.add("nat", v, "firewall", sec.Name, "", j.then(sec), named("NAT rule", sec), why)
}

func (x *hand) masquerades(name string) bool {
	return slices.ContainsFunc(x.snap.Config("firewall").OfType("zone"), func(z uci.Section) bool {
		return first(z, "name") == name && z.Bool("masq", false)
	})
}

// reach is what home.toml has to say so that devices reach what they reach now.
func (x *hand) reach(h *home.Home, can map[way]bool) {
	h.Reach = home.Reach{HomeLAN: can[toLAN], UplinkLAN: can[toUplink], Internet: can[toNet]}
	if h.Uplink.Kind != home.Behind {
		h.Reach.UplinkLAN = false
	}
	if h.Uplink.Kind == home.OneArmed {
		h.Reach.Internet = false
	}
	if other := x.otherPorts(); len(other) == 1 && !can[callIn] && can[portWay(other[0])] && h.Uplink.Kind != home.Direct {
		h.Tunnel.EndpointPort = other[0]
	}
	lans := h.LANs[:0:0]
	for _, l := range h.LANs {
		if can[lanWay(l.Interface)] {
			lans = append(lans, l)
		}
	}
	if len(lans) > 0 {
		h.LANs = lans
	}
	zones := map[string]bool{}
	for _, l := range h.LANs {
		zones[x.site.Zones[l.Interface]] = true
	}
	w := wall{x: x, lans: zones, net: networkPrefix(h)}
	for _, sec := range x.snap.Config("firewall").OfType("nat") {
		if zones[first(sec, "src")] && strings.EqualFold(first(sec, "target"), "MASQUERADE") && sec.Bool("enabled", true) && w.within(sec.Values("src_ip")) {
			h.Reach.NATToLAN = true
		}
	}
}

func networkPrefix(h *home.Home) netip.Prefix {
	if h.Tunnel.Network.IsZero() {
		return netip.Prefix{}
	}
	return h.Tunnel.Network.Prefix()
}
