package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uci"
)

// firewallRules: does the home router let the tunnel in, and devices out of it.
var firewallRules = []Rule{
	{ID: "firewall-loads", What: "the firewall takes its file", Symptom: "firewall changes have no effect; after a restart everything is open or shut",
		After: []ID{"config-readable"}, Needs: []string{"router"}, judge: firewallLoads},
	{ID: "firewall-skips", What: "the firewall leaves no section out", Symptom: "a rule is there and does nothing",
		After: []ID{"config-readable", "firewall-loads"}, Needs: []string{"router", "warnings"}, judge: firewallSkips},
	{ID: "door", What: "the open port on the WAN side", Symptom: "no handshake; nothing of it in any log",
		After: []ID{"wan", "firewall-loads"}, Needs: []string{"router"}, judge: func(p *patient) outcome {
			if t, found := dead(p.follow(trace.Door), trace.DoorClosed); found {
				return p.died(t)
			}
			return ok()
		}},
	{ID: "door-forwarded", What: "no port forward takes the tunnel's port", Symptom: "no handshake; the port is open",
		After: []ID{"wan", "firewall-loads"}, Needs: []string{"router"}, judge: func(p *patient) outcome {
			t, found := dead(p.follow(trace.Door), trace.MappedElsewhere)
			if !found {
				return ok()
			}
			o := p.died(t)
			if sec := p.forwardOf(t); sec != "" && (len(o.finding.Remedies) == 0 || o.finding.Remedies[0].Kind != Plan) {
				o.finding.Remedies = nil
				o = o.shell(fmt.Sprintf("uci set firewall.%s.enabled=0; uci commit firewall; service firewall reload", sec), "it is not heimweg's, so heimweg leaves it alone")
			}
			return o
		}},
	{ID: "way-out", What: "answers of the tunnel find the internet", Symptom: "no handshake; the router's own internet is dead",
		After: []ID{"tunnel-up", "wan", "default-route", "device-key", "device-known", "device-on", "device-live", "preshared"}, Needs: []string{"router"}, judge: func(p *patient) outcome {
			t, found := dead(p.follow(trace.Tunnel), trace.NoWayOut)
			if !found {
				return ok()
			}
			o := p.died(t)
			if sec := sectionOf(t); sec != "" && (len(o.finding.Remedies) == 0 || o.finding.Remedies[0].Kind != Plan) {
				o.finding.Remedies = nil
				o = o.shell(fmt.Sprintf("uci set network.%s.route_allowed_ips=0; uci commit network; ifup %s", sec, p.home.Tunnel.Interface), "the router's own traffic is none of that device's business")
			}
			return o
		}},
	{ID: "half-handshake", What: "answers to handshakes arrive", Symptom: "the device's app shows bytes sent and none received",
		After: append([]ID{"preshared", "way-out"}, devicesUp...), Needs: []string{"router"}, judge: halfHandshake},
	{ID: "unknown-key", What: "who knocks has a key that fits", Symptom: "the device's packets arrive, and no handshake comes about",
		After: []ID{"door", "tunnel-up", "tunnel-port", "device-key", "device-known", "device-live", "half-handshake"}, Needs: []string{"router"}, Uses: []string{"arrivals"}, judge: unknownKey},
	{ID: "zone", What: "the tunnel is in its firewall zone", Symptom: "handshake, and nothing at home answers",
		After: []ID{"tunnel-up", "firewall-loads"}, Needs: []string{"router"}, judge: zone},
	{ID: "own-rule", What: "no rule of somebody else is in the way", Symptom: "handshake, and some things at home do not answer",
		After: []ID{"zone", "tunnel-address"}, Needs: []string{"router"}, judge: ownRule},
	{ID: "forwarding", What: "forwarding from the tunnel to the home LAN", Symptom: "handshake, the router answers, and nothing behind it",
		After: []ID{"zone", "own-rule", "tunnel-address", "lan-up", "lan-mask", "lan-network", "network-clash"}, Needs: []string{"router"}, judge: forwarding},
	{ID: "full-tunnel", What: "the way through home to the internet", Symptom: "the internet is dead while the tunnel is on",
		After: []ID{"zone", "tunnel-address", "wan", "default-route"}, Needs: []string{"router"}, judge: fullTunnel},
	{ID: "masquerade", What: "the router's own address on the way to the internet", Symptom: "the internet is dead while the tunnel is on",
		After: []ID{"full-tunnel"}, Needs: []string{"router"}, judge: masquerade},
	{ID: "admin", What: "SSH for devices that may administer", Symptom: "the router cannot be administered from outside",
		After: []ID{"zone", "tunnel-address"}, Needs: []string{"router"}, judge: admin},
	{ID: "exposed", What: "nothing of the router is open to the outside but the tunnel", Symptom: "strangers can try passwords",
		After: []ID{"firewall-loads"}, Needs: []string{"router"}, judge: exposed},
	{ID: "password", What: "root has a password", Symptom: "everybody in the LAN is root on the router",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			if p.snap().RootHash {
				return ok()
			}
			return risk("root has no password: everybody in the home LAN can administer the router").do(Plan, applyCommand, "sets one")
		}},
}

// sectionOf is the section that killed a packet.
func sectionOf(t trace.Trace) string {
	if t.Death == nil || len(t.Death.Because) == 0 {
		return ""
	}
	return t.Death.Because[0].Section
}

// forwardOf is the port forward that a packet met on the hop where it died.
func (p *patient) forwardOf(t trace.Trace) string {
	h, _ := t.Hop(t.Death.Hop)
	for _, l := range h.Lines {
		for _, b := range l.Because {
			if s, there := p.snap().Config("firewall").Section(b.Section); strings.HasPrefix(b.Section, "@redirect") || there && s.Type == "redirect" {
				return b.Section
			}
		}
	}
	return ""
}

// compiled is the firewall as the router's own program would make it from its file.
func compiled(s *router.Snapshot) (*firewall.Ruleset, []firewall.Warning) {
	var list []firewall.Iface
	for _, i := range s.Interfaces {
		list = append(list, firewall.Iface{Name: i.Name, Device: i.Device, Addrs: i.Addresses, Gateways: i.Gateways, Up: i.Up})
	}
	return firewall.Compile(s.Board.Release.Effective(), s.Config("network"), s.Config("firewall"), list)
}

func firewallLoads(p *patient) outcome {
	rules, warn := compiled(p.snap())
	if !rules.Refused() {
		return ok()
	}
	o := bad("the home router's firewall does not take its file: it goes on with old rules, and has none after a restart")
	for _, w := range warn {
		if w.Refuses {
			o = o.saw("%s (%s)", w.Text, where(p.snap(), w.Section))
			o, cured := p.byApply(o, func(s *router.Snapshot) bool { r, _ := compiled(s); return !r.Refused() })
			if !cured {
				o = o.do(ByHand, "correct or remove the section firewall."+w.Section+" on the router", "it is not heimweg's")
			}
			return o
		}
	}
	return o.do(ByHand, "run fw4 check on the router; it names the line", "")
}

func where(s *router.Snapshot, section string) string {
	if n := s.Config("firewall").Line(section, ""); n > 0 {
		return "/etc/config/firewall:" + itoa(n)
	}
	return "/etc/config/firewall"
}

// skipped are the sections that the firewall leaves out because of a mistake in
// them; those that somebody has switched off are none.
func skipped(s *router.Snapshot) (out []firewall.Warning) {
	_, warn := compiled(s)
	for _, w := range warn {
		if w.Skipped && !strings.Contains(w.Text, "disabled") {
			out = append(out, w)
		}
	}
	return out
}

func firewallSkips(p *patient) outcome {
	list := skipped(p.snap())
	if len(list) == 0 {
		for _, own := range p.Warnings.Value {
			if !strings.Contains(own, "disabled") {
				return risk("the firewall complains about its file").saw("%s", own).
					do(ByHand, "run fw4 check on the router; it names the section", "")
			}
		}
		return ok()
	}
	o := risk("the firewall leaves out a section that has a mistake in it").saw("%s (%s)", list[0].Text, where(p.snap(), list[0].Section))
	o, cured := p.byApply(o, func(s *router.Snapshot) bool { return len(skipped(s)) == 0 })
	if !cured {
		o = o.shell(fmt.Sprintf("uci delete firewall.%s; uci commit firewall; service firewall reload", list[0].Section), "or correct it: it is not heimweg's")
	}
	return o
}

// unknownKey: packets pass the firewall, and the tunnel takes none of them (facts
// openwrt.md 10, K10). Older counts say nothing: the tunnel's own begin anew with
// its interface, the firewall's with the firewall.
func unknownKey(p *patient) outcome {
	a := p.Arrivals.Value
	switch _, counted := p.snap().Config("firewall").Section(blueprint.SectionIn); {
	case !p.Arrivals.Known && !counted && p.home.Uplink.Kind == home.OneArmed:
		return moot() // an open LAN needs no rule, so nothing counts
	case !p.Arrivals.Known:
		return notKnown("%s", cmp.Or(p.Arrivals.Because, "nobody asked"))
	}
	if a.Packets == 0 || a.Bytes > 0 || len(p.devices()) == 0 {
		return ok()
	}
	return bad("somebody's packets reach the tunnel, and its key is unknown: a device with an old configuration").
		saw("%d packets came in by the tunnel's rule just now, and the tunnel took none of them", a.Packets).
		do(Command, "heimweg peer renew "+p.devices()[0].Name, "gives it a new configuration; scan it with the WireGuard app")
}

func zone(p *patient) outcome {
	wg := p.home.Tunnel.Interface
	in := func(s *router.Snapshot) string { site, _ := router.SiteOf(s); return site.Zones[wg] }
	z := in(p.snap())
	if z != "" && z != p.siteOf().WAN {
		return ok()
	}
	o := bad("no device comes further than the home router: its tunnel is in no zone of the firewall")
	if z != "" {
		o = bad("no device comes further than the home router: its tunnel is in the firewall zone of the internet").saw("zone %s", z)
		return o.shell(fmt.Sprintf("uci del_list firewall.%s.network=%s; uci commit firewall; service firewall reload", p.siteOf().ZoneSections[z], wg), "then heimweg apply")
	}
	o, cured := p.byApply(o, func(s *router.Snapshot) bool { return in(s) != "" })
	if !cured {
		o = o.do(Command, "heimweg plan", "shows what keeps heimweg from putting it right")
	}
	return o
}

// foreign reports whether what killed a packet is a rule that is not ours.
func (p *patient) foreign(t trace.Trace) bool {
	if t.Death == nil || len(t.Death.Because) == 0 {
		return false
	}
	name := t.Death.Because[0].Section
	doc := p.snap().Config("firewall")
	for _, s := range doc.Sections() {
		if (s.Type == "rule" || s.Type == "redirect") && (s.Name == name || s.Anonymous && strings.HasPrefix(name, "@"+s.Type)) {
			return !router.Ours("firewall", s, p.snap().Written)
		}
	}
	return false
}

func ownRule(p *patient) outcome {
	for _, t := range p.follow(trace.Home) {
		if t.Death != nil && t.Death.Hop == trace.Home && p.foreign(t) {
			o := p.died(t)
			o.finding.Headline = "devices come in and do not reach everything: " + t.Death.Says
			return o
		}
	}
	return ok()
}

func forwarding(p *patient) outcome {
	if !p.home.Reach.HomeLAN {
		return moot()
	}
	for _, t := range p.follow(trace.Home) {
		if t.Death != nil && (t.Death.Cause == trace.Refused || t.Death.Cause == trace.AnswerAstray || t.Death.Cause == trace.NoRoute) && !p.foreign(t) {
			return p.died(t)
		}
	}
	return ok()
}

// outThere is an address on the internet that no rule means.
var outThere = netip.MustParseAddr("192.0.2.1")

func fullTunnel(p *patient) outcome {
	if !p.home.Reach.Internet {
		return moot()
	}
	t := p.one(outThere, firewall.TCP, 443)
	if t.Death == nil || t.Death.Hop != trace.Home {
		return ok()
	}
	o := p.died(t)
	o.finding.Headline = "the internet is dead for devices that are in: " + t.Death.Says
	return o
}

// masquerade: devices' own addresses mean nothing to the ISP router.
func masquerade(p *patient) outcome {
	if !p.home.Reach.Internet {
		return moot()
	}
	f := p.traceFacts()
	f.Upstream.RoutesKnown = true // no home's ISP router has a route for a tunnel that was made today
	t := trace.Follow(f, trace.Request{Peer: p.devices()[0].Name, To: outThere, Proto: firewall.TCP, Port: 443, Begin: trace.Home})
	if t.Death == nil || t.Death.Cause != trace.NoWayBack {
		return ok()
	}
	o := p.died(t)
	o.finding.Headline = "the internet is dead for devices that are in: " + t.Death.Says
	return o
}

func admin(p *patient) outcome {
	for _, d := range p.devices() {
		if !d.Admin {
			continue
		}
		t := trace.Follow(p.traceFacts(), trace.Request{Peer: d.Name, To: p.home.Tunnel.Network.First().Addr(), Proto: firewall.TCP, Port: 22, Begin: trace.Home})
		if t.Death == nil || t.Death.Hop != trace.Home || p.foreign(t) {
			return ok()
		}
		return p.died(t)
	}
	return moot()
}

// services of the router that nobody outside should reach.
var services = []struct {
	name  string
	proto uint8
	port  uint16
}{{"SSH", firewall.TCP, 22}, {"the web page", firewall.TCP, 80}, {"the web page", firewall.TCP, 443}, {"the name service", firewall.UDP, 53}}

// exposed lets a stranger's packets come to the WAN side.
func exposed(p *patient) outcome {
	if p.home.Uplink.Kind == home.OneArmed {
		return moot()
	}
	wan := p.wanAddress()
	if !wan.IsValid() {
		return notKnown("the WAN side has no address now")
	}
	for _, s := range services {
		f := p.traceFacts()
		t := trace.Follow(f, trace.Request{From: outThere, To: wan, Proto: s.proto, Port: s.port})
		h, there := t.Hop(trace.Home)
		if !there || h.Verdict != trace.Passes {
			continue
		}
		o := risk("%s of the home router is open to the outside", s.name)
		for _, l := range h.Lines {
			for _, b := range l.Because {
				return o.saw("%s", place(b)).shut(p.snap().Config("firewall"), b.Section)
			}
		}
		return o.saw("no rule keeps it closed").shell("uci set firewall.@defaults[0].input=REJECT; uci commit firewall; service firewall reload", "")
	}
	return ok()
}

// shut says how the section is made to let nothing in.
func (o outcome) shut(doc *uci.Document, section string) outcome {
	option := "enabled=0"
	if s, there := doc.Section(section); strings.HasPrefix(section, "@zone") || there && s.Type == "zone" {
		option = "input=REJECT"
	} else if strings.HasPrefix(section, "@defaults") || there && s.Type == "defaults" {
		option = "input=REJECT"
	}
	return o.shell(fmt.Sprintf("uci set firewall.%s.%s; uci commit firewall; service firewall reload", section, option), "whoever administers from outside does it through the tunnel")
}

// wanAddress is the home router's IPv4 address towards the ISP router.
func (p *patient) wanAddress() netip.Addr {
	site := p.siteOf()
	for _, i := range p.snap().Interfaces {
		if !i.Up || site.WAN != "" && site.Zones[i.Name] != site.WAN || site.WAN == "" && i.Name != "wan" {
			continue
		}
		for _, a := range i.Addresses {
			if a.Addr().Is4() {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}
