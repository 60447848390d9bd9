package doctor

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
)

// networkRules: is the home LAN where it should be.
var networkRules = []Rule{
	{ID: "lan-up", What: "the home LAN is up", Symptom: "handshake, the router answers, and nothing behind it",
		Needs: []string{"router"}, judge: lanUp},
	{ID: "lan-mask", What: "the home LAN's mask", Symptom: "nothing in the LAN reaches the router",
		Needs: []string{"router"}, judge: lanMask},
	{ID: "lan-network", What: "the home LAN is where home.toml says", Symptom: "devices come in and look for the LAN at another place",
		After: []ID{"lan-up", "lan-mask"}, Needs: []string{"router"}, judge: lanNetwork},
}

// lanRules: does the home LAN answer.
var lanRules = []Rule{
	{ID: "lan-answers", What: "somebody in the home LAN answers", Symptom: "the device that is wanted does not answer",
		After: []ID{"lan-up", "lan-mask", "lan-network"}, Needs: []string{"knock"}, judge: lanAnswers},
	{ID: "way-back", What: "answers find the way back to the router", Symptom: "the router answers, the devices behind it do not",
		After: []ID{"forwarding", "own-rule", "tunnel-address", "lan-answers", "zone"}, Needs: []string{"router", "knock"}, judge: wayBack},
}

// inLAN finds the live interface of a home LAN.
func (p *patient) inLAN(l home.LAN) (router.Interface, bool) { return p.snap().Interface(l.Interface) }

func lanUp(p *patient) outcome {
	for _, l := range p.home.LANs {
		if i, there := p.inLAN(l); !there || !i.Up {
			o := bad("the home LAN is not up: devices come in and find nobody").saw("interface %s of the home router", l.Interface)
			for _, e := range i.Errors {
				o = o.saw("%s", e)
			}
			return o.shell("ifup "+l.Interface, "")
		}
	}
	return ok()
}

func lanMask(p *patient) outcome {
	for _, l := range p.home.LANs {
		i, _ := p.inLAN(l)
		for _, a := range i.Addresses {
			if a.Addr().Is4() && a.IsSingleIP() {
				return bad("the router's address in the home LAN has no network around it").saw("%s on %s", a, l.Interface).
					causedBy("from OpenWrt 25.12 on an address without a mask is a single one").
					shell("uci delete network."+l.Interface+".ipaddr; uci add_list network."+l.Interface+".ipaddr="+a.Addr().String()+"/24; uci commit network; service network reload", "")
			}
		}
	}
	return ok()
}

func lanNetwork(p *patient) outcome {
	fine := func(s *router.Snapshot, l home.LAN) bool {
		i, _ := s.Interface(l.Interface)
		if slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Masked() == l.Network.Prefix() }) {
			return true
		}
		site, _ := router.SiteOf(s)
		return s != p.snap() && slices.ContainsFunc(site.LANs[l.Interface], func(a netip.Prefix) bool { return a.Masked() == l.Network.Prefix() })
	}
	for _, l := range p.home.LANs {
		if l.Network.IsZero() || fine(p.snap(), l) {
			continue
		}
		i, _ := p.inLAN(l)
		o := bad("devices look for the home LAN at another place than it is").saw("home.toml says %s, the router has %s", l.Network, listed(four(i.Addresses)))
		o, cured := p.byApply(o, func(s *router.Snapshot) bool { return fine(s, l) })
		if !cured {
			now := four(i.Addresses)
			if len(now) == 0 {
				return o.do(Command, "heimweg status", "shows the router's networks")
			}
			o = o.do(ByHand, `write network = "`+now[0].Masked().String()+`" under [[lan]] in home.toml, then heimweg apply`, "devices then need heimweg peer renew; or renumber = true moves the LAN")
		}
		return o
	}
	return ok()
}

func four(list []netip.Prefix) (out []netip.Prefix) {
	for _, a := range list {
		if a.Addr().Is4() {
			out = append(out, a)
		}
	}
	return out
}

func lanAnswers(p *patient) outcome {
	switch k := p.Knock.Value; {
	case k.Near == trace.Yes || k.There:
		return ok()
	case k.Near == trace.NotAsked:
		return notKnown("the router has seen no device in the home LAN")
	default:
		return bad("nobody in the home LAN answers the router").saw("%s did not answer, and does not exist on the network", k.Target).
			do(ByHand, "switch on the device that you want to reach, and look at its cable", "")
	}
}

func wayBack(p *patient) outcome {
	list := p.follow(trace.Home)
	if t, found := dead(list, trace.NoWayBack); found && t.Death.Hop == trace.Target {
		o := p.died(t)
		o.finding.Headline = "devices come in and get no answer: " + t.Death.Says
		return o
	}
	for _, t := range list {
		if h, there := t.Hop(trace.Target); there && h.Verdict == trace.Unknown {
			return notKnown("%s", h.Lines[len(h.Lines)-1].Says)
		}
	}
	return ok()
}

// wayIn is what the measured rules rest on.
var wayIn = []ID{"tunnel-up", "tunnel-port", "tunnel-address", "wan"}

// insideRules: what a device of our own saw inside the tunnel.
var insideRules = []Rule{
	{ID: "handshake", What: "handshake", Symptom: "no handshake, although everything looks right",
		After: []ID{"tunnel-up", "tunnel-port", "firewall-loads"}, Needs: []string{"handshake"}, judge: handshake},
	{ID: "router-inside", What: "the router answers inside the tunnel", Symptom: "handshake, and nothing else",
		After: append([]ID{"handshake", "zone"}, wayIn...), Needs: []string{"inside"}, judge: func(p *patient) outcome {
			if p.Inside.Value {
				return ok()
			}
			return bad("the tunnel stands, and the home router does not answer inside it").do(Plan, applyCommand, "lets devices ask the router for a sign of life")
		}},
	{ID: "dns-port", What: "devices may ask the router for names", Symptom: "addresses work, names do not",
		After: []ID{"zone", "tunnel-address"}, Needs: []string{"router"}, judge: func(p *patient) outcome {
			if !slices.Contains(p.home.DNS.Servers, home.DNSRouter) {
				return moot()
			}
			t := p.one(p.home.Tunnel.Network.First().Addr(), firewall.UDP, 53)
			if t.Death == nil || t.Death.Hop != trace.Home {
				return ok()
			}
			o := p.died(t)
			o.finding.Headline = "devices come in and find no names: " + t.Death.Says
			return o
		}},
	{ID: "dns-interface", What: "the name service listens to the tunnel", Symptom: "addresses work, names do not",
		After: []ID{"tunnel-up"}, Needs: []string{"router"}, judge: dnsInterface},
	{ID: "dns-answers", What: "names inside the tunnel", Symptom: "addresses work, names do not",
		After: append([]ID{"handshake", "router-inside", "dns-port", "dns-interface", "router-names"}, wayIn...), Needs: []string{"names"}, judge: func(p *patient) outcome {
			switch n := p.Names.Value; {
			case !n.Asked:
				return moot()
			case n.Answered:
				return ok()
			case n.Refused:
				return bad("devices come in and find no names: the router's name service refuses them").shell("service dnsmasq restart", "")
			}
			return bad("devices come in and find no names: the router's name service does not answer them").shell("service dnsmasq restart", "")
		}},
	{ID: "dns-rebind", What: "no name of the home is held back", Symptom: "some names lead nowhere, although the service has them",
		Needs: []string{"log"}, judge: rebind},
	{ID: "lan-reached", What: "a device in the home LAN, from inside the tunnel", Symptom: "handshake, and nothing at home answers",
		After: append([]ID{"handshake", "router-inside", "zone", "forwarding", "own-rule", "way-back", "lan-answers", "lan-network"}, wayIn...), Needs: []string{"reached"}, judge: func(p *patient) outcome {
			switch r := p.Reached.Value; {
			case !p.home.Reach.HomeLAN:
				return moot()
			case r.Any:
				return ok()
			case r.Asked == 0:
				return notKnown("the router has seen no device in the home LAN")
			default:
				return bad("a device of our own came in, and nobody in the home LAN answered it").saw("%d devices were tried", r.Asked).
					do(ByHand, "look at the firewall of the device that you want to reach: it has to take packets from the tunnel network", "Windows takes them from its own network only")
			}
		}},
	{ID: "mtu", What: "big packets pass", Symptom: "small things work, pages and downloads hang",
		After: append([]ID{"handshake", "router-inside"}, wayIn...), Needs: []string{"path-mtu"}, judge: pathMTU},
	{ID: "wan-mtu", What: "tunnel packets fit the line", Symptom: "small things work, pages and downloads hang",
		After: []ID{"wan"}, Needs: []string{"router", "widths"}, judge: wanMTU},
	{ID: "mtu-fix", What: "connections learn the line's packet size", Symptom: "pages hang while the tunnel carries all traffic",
		After: []ID{"firewall-loads"}, Needs: []string{"router"}, judge: mtuFix},
	{ID: "hairpin", What: "the public address works from inside the house", Symptom: "the test at home fails, from outside it works",
		After: append([]ID{"handshake", "mapping", "mapping-target", "mapping-port", "endpoint-stale"}, wayIn...), Needs: []string{"hairpin"}, judge: func(p *patient) outcome {
			if p.Hairpin.Value {
				return ok()
			}
			return explained("at home the public address does not work, and that is normal: this ISP router does not send packets back into its own house").
				causedBy("a device in the home Wi-Fi cannot come in by the public address (no hairpinning); from outside it can").
				do(ByHand, "test with the phone's Wi-Fi switched off", "")
		}},
}

func handshake(p *patient) outcome {
	h := p.Handshake.Value
	if h.Done {
		return ok()
	}
	if h.Arrived {
		return bad("the tunnel hears a device of our own, and its answer does not come back").saw("%s", h.Answer).
			do(ByHand, "look at the routes of the home router: another network of it may be the same as this computer's", "")
	}
	return bad("the tunnel does not answer a device of our own, here in the house").saw("%s", h.Answer).
		shell("service firewall restart; ifup "+p.home.Tunnel.Interface, "")
}

// dnsInterface: dnsmasq can be limited to interfaces (facts openwrt.md 6.6).
func dnsInterface(p *patient) outcome {
	if !slices.Contains(p.home.DNS.Servers, home.DNSRouter) {
		return moot()
	}
	wg := p.home.Tunnel.Interface
	fine := func(s *router.Snapshot) bool {
		site, _ := router.SiteOf(s)
		return (len(site.DNSInterfaces) == 0 || slices.Contains(site.DNSInterfaces, wg)) && !slices.Contains(site.DNSNotInterfaces, wg)
	}
	if fine(p.snap()) {
		return ok()
	}
	o := bad("devices come in and find no names: the router's name service does not listen to the tunnel").
		causedBy("somebody has limited it to certain interfaces")
	o, cured := p.byApply(o, fine)
	if !cured {
		line := "uci add_list dhcp.@dnsmasq[0].interface=" + wg
		if slices.Contains(p.siteOf().DNSNotInterfaces, wg) {
			line = "uci del_list dhcp.@dnsmasq[0].notinterface=" + wg
		}
		o = o.shell(line+"; uci commit dhcp; service dnsmasq restart", "")
	}
	return o
}

// rebind: dnsmasq holds back answers with private addresses, and says so in its log:
// "possible DNS-rebind attack detected: nas.example.org".
func rebind(p *patient) outcome {
	for _, l := range p.Log.Value {
		_, name, found := strings.Cut(l, "DNS-rebind attack detected: ")
		if !found {
			continue
		}
		name = strings.TrimSpace(name)
		return risk("the router holds back a name because it leads to a private address").saw("%s", private(name)).
			shell("uci add_list dhcp.@dnsmasq[0].rebind_domain="+private(name)+"; uci commit dhcp; service dnsmasq restart", "if the name is one of yours")
	}
	return ok()
}

// Sizes of packets. What WireGuard adds is 32 bytes and 8 for UDP, and 20 or 40 for
// IP (wireguard.com/protocol).
const (
	usualMTU = 1420
	outside4 = 60
	outside6 = 80
)

// ladder are the sizes that are suggested, largest first.
var ladder = []int{1420, 1400, 1280}

// fitting is the largest step of the ladder that a path carries; 0: none.
func fitting(width int) int {
	for _, m := range ladder {
		if m <= width {
			return m
		}
	}
	return 0
}

func (p *patient) deviceMTU() int {
	if p.home.Tunnel.MTU != 0 {
		return p.home.Tunnel.MTU
	}
	return usualMTU
}

func (o outcome) narrower(mtu int) outcome {
	if mtu == 0 {
		return o.do(ByHand, "use another line: not even packets of 1280 bytes pass, which IPv6 needs everywhere", "")
	}
	o = o.do(Setting, "write mtu = "+itoa(mtu)+" under [tunnel] in home.toml, then heimweg apply", "devices take it with heimweg peer renew, or by hand in their app")
	o.finding.Remedies[len(o.finding.Remedies)-1].MTU = mtu
	return o
}

func pathMTU(p *patient) outcome {
	if p.PathMTU.Value >= p.deviceMTU() {
		return ok()
	}
	if p.PathMTU.Value == 0 {
		return bad("big packets get lost in the tunnel").saw("packets of %d bytes do not come through, and none of %d either", p.deviceMTU(), ladder[len(ladder)-1]).narrower(0)
	}
	return bad("big packets get lost in the tunnel").
		saw("packets of %d bytes come through, of %d they do not, and devices send up to %d", p.PathMTU.Value, p.deviceMTU(), p.deviceMTU()).
		narrower(fitting(p.PathMTU.Value))
}

// wanMTU: the narrowest device on the way out, by what the router says of it.
func wanMTU(p *patient) outcome {
	var dev string
	for _, i := range p.snap().Interfaces {
		if i.Up && slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Addr() == p.wanAddress() }) {
			dev = i.Device
		}
	}
	width, there := p.Widths.Value[dev]
	if dev == "" || !there {
		if p.home.Uplink.Kind == home.OneArmed {
			return moot()
		}
		return notKnown("the router did not say how large packets its line takes")
	}
	over := outside4
	if a, err := netip.ParseAddr(p.home.Tunnel.Endpoint); err == nil && a.Is6() {
		over = outside6
	}
	if p.deviceMTU()+over <= width {
		return ok()
	}
	return bad("big packets of the tunnel do not fit the router's line").
		saw("the line takes %d bytes, the tunnel makes packets of %d", width, p.deviceMTU()+over).narrower(fitting(width - over))
}

func mtuFix(p *patient) outcome {
	if !p.home.Reach.Internet {
		return moot()
	}
	site := p.siteOf()
	for _, s := range p.snap().Config("firewall").OfType("zone") {
		if n, _ := s.Get("name"); n == site.WAN && site.WAN != "" && !s.Bool("mtu_fix", false) {
			ref := site.ZoneSections[n]
			return risk("connections through the router do not learn how large packets the line takes").saw("zone %s has no mtu_fix", n).
				shell("uci set firewall."+ref+".mtu_fix=1; uci commit firewall; service firewall reload", "")
		}
	}
	return ok()
}

// lastRules look at what is left when nothing else was found.
var lastRules = []Rule{
	{ID: "plan-blocked", What: "heimweg may change this router", Symptom: "heimweg apply refuses",
		After: []ID{"config-readable", "other-writer", "override", "unfinished", "harmful-package", "room", "formatting", "port-taken", "firewall-loads", "key-each", "lan-network", "lan-mask", "network-clash"},
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			blocked := p.planned().Blocked
			if len(blocked) == 0 {
				return ok()
			}
			f := blocked[0] // the others show when this one is gone
			o := risk("heimweg could not change this router: %s", f.What)
			for _, s := range f.Seen {
				o = o.saw("%s", s)
			}
			for _, n := range f.Next {
				o = o.do(ByHand, n, "")
			}
			return o
		}},
	{ID: "drift", What: "the router is as home.toml wants it", Symptom: "something was changed behind heimweg's back",
		After: everyCure, Needs: []string{"router"}, judge: func(p *patient) outcome {
			if p.planned().Empty() {
				return ok()
			}
			o := risk("the router is not as home.toml wants it")
			for _, s := range p.planned().Steps {
				if s.Section != "" && len(o.finding.Seen) < 4 {
					o = o.saw("%s.%s: %s", s.Config, s.Section, s.Do)
				}
			}
			return o.apply()
		}},
}

// everyCure are the rules whose remedy is heimweg apply: what they found is no
// second finding.
var everyCure = []ID{"config-readable", "plan-blocked", "unfinished", "wireguard", "tunnel-there", "tunnel-up", "tunnel-port", "tunnel-address", "key-each", "device-key", "device-known", "device-on",
	"device-live", "preshared", "device-address", "still-in", "strangers", "firewall-loads", "firewall-skips", "door", "door-forwarded", "way-out", "zone", "forwarding", "full-tunnel", "admin",
	"password", "dns-port", "dns-interface", "lan-network", "harmful-package"}
