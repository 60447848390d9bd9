package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uci"
)

// ispRules: does the ISP router send the tunnel's port on to this box.
var ispRules = []Rule{
	{ID: "mapping", What: "the ISP router's port mapping", Symptom: "no handshake; nothing arrives at the home router",
		Needs: []string{"router", "upstream"}, judge: func(p *patient) outcome { return p.fromISP(trace.NoMapping) }},
	{ID: "mapping-target", What: "the mapping leads to this box", Symptom: "it worked until the home router got another address",
		After: []ID{"wan", "network-clash"}, Needs: []string{"router", "upstream"}, judge: mappingTarget},
	{ID: "mapping-port", What: "the mapping leads to the tunnel's port", Symptom: "no handshake; the mapping is there",
		After: []ID{"wan", "mapping", "mapping-target", "door"}, Needs: []string{"router", "upstream"}, judge: func(p *patient) outcome {
			return p.fromISP(trace.MappedPort, trace.DoorClosed)
		}},
	{ID: "address", What: "home has an address of its own on the internet", Symptom: "nobody gets in from outside, whatever is mapped",
		Needs: []string{"address"}, Uses: []string{"router"}, judge: address},
	{ID: "isp-address", What: "the ISP router has a public address", Symptom: "nobody gets in from outside, whatever is mapped",
		Needs: []string{"upstream"}, Uses: []string{"address", "router"}, judge: ispAddress},
}

// fromISP sorts what dies on the way to the home router, whatever the endpoint's
// name says.
func (p *patient) fromISP(causes ...trace.Cause) outcome {
	if p.home.Uplink.Kind == home.Direct {
		return moot()
	}
	list := p.follow(trace.ISPRouter)
	t, found := dead(list, causes...)
	if !found {
		return p.seenThere(list)
	}
	o := p.died(t)
	if t.Death.Hop == trace.Door { // seen from the ISP router
		o.finding.Remedies = nil
		o = o.do(ByHand, fmt.Sprintf("on the ISP router: send UDP %d to port %d of the home router", p.home.Tunnel.CallPort(), p.home.Tunnel.Port), "")
		o.finding.Headline = "no device can come home: the ISP router sends it to another port of the home router than the tunnel's"
	}
	return o
}

// seenThere is ok when the ISP router showed the way, or somebody came in by it just
// now: a list that lacks it need not be complete.
func (p *patient) seenThere(list []trace.Trace) outcome {
	for _, t := range list {
		if h, there := t.Hop(trace.ISPRouter); there && h.Verdict == trace.Unknown {
			l := h.Lines[len(h.Lines)-1]
			return notKnown("%s", strings.TrimSuffix(l.Says+"; "+l.Note, "; "))
		}
	}
	return ok()
}

func mappingTarget(p *patient) outcome {
	if p.home.Uplink.Kind == home.Direct {
		return moot()
	}
	list := p.follow(trace.ISPRouter)
	t, found := dead(list, trace.MappedElsewhere)
	if !found || t.Death.Hop != trace.ISPRouter {
		return p.seenThere(list)
	}
	o := p.died(t)
	if i, there := p.snap().Interface("wan"); there && i.Proto == "dhcp" {
		o = o.causedBy("the home router gets its address from the ISP router, and has got another one since")
		o = o.do(ByHand, "in the ISP router, on the page of this device: always assign the same IPv4 address", "so that it does not happen again")
	}
	return o
}

// cameIn: somebody has come home from a public IPv4 address just now, so whatever
// stands before home lets the tunnel through.
func (p *patient) cameIn() bool {
	if !p.Router.Known {
		return false
	}
	return slices.ContainsFunc(p.live().Peers, func(l router.Peer) bool {
		return !l.Handshake.IsZero() && p.snap().Time.Sub(l.Handshake).Abs() < sessionTime && l.Endpoint.Addr().Is4() && subnet.IsPublic(l.Endpoint.Addr())
	})
}

func ispAddress(p *patient) outcome {
	public := p.Upstream.Value.Public
	switch {
	case p.home.Uplink.Kind == home.Direct:
		return moot()
	case !public.IsValid():
		return notKnown("the ISP router did not say which address it has")
	case subnet.IsPublic(public) || p.cameIn():
		return ok()
	case p.Address.Known && p.Address.Value.Kind != Public:
		return notTested("first: home has an address of its own on the internet")
	case subnet.IsCarrier(public):
		return bad("no device can come home over IPv4: the provider shares one address between many households").saw("the ISP router has %s, %s", public, subnet.WhyNotPublic(public)).
			do(ByHand, "ask the provider for an IPv4 address of your own", "or let devices come over IPv6")
	}
	return bad("no device can come home: another router stands before the ISP router").saw("the ISP router has %s, %s", public, subnet.WhyNotPublic(public)).
		do(ByHand, fmt.Sprintf("on the router before the ISP router: send UDP %d to the ISP router, too", p.home.Tunnel.CallPort()), "a mapping is needed at every level")
}

func address(p *patient) outcome {
	a := p.Address.Value
	if a.Kind == Public || a.Kind != Changing && p.cameIn() {
		return ok()
	}
	o := bad("no device can come home over IPv4: %s", a.Says)
	switch a.Kind {
	case Changing:
		o = risk("devices lose their way home every time the address changes: %s", a.Says)
	case OnlySix:
		o = risk("devices come home over IPv6 only: %s", a.Says)
	case DoubleNAT:
		o = bad("no device can come home: %s", a.Says)
	}
	for _, s := range a.Seen {
		o = o.saw("%s", s)
	}
	if len(a.Do) == 0 {
		return o.do(ByHand, "ask the provider for an IPv4 address of your own", "")
	}
	return o.remedies(a.Do)
}

// addressRules: do devices call where home is.
var addressRules = []Rule{
	{ID: "endpoint", What: "an endpoint", Symptom: "devices do not know where to call",
		judge: func(p *patient) outcome {
			if p.home.Tunnel.Endpoint != "" {
				return ok()
			}
			return bad("devices do not know where home is: home.toml names no endpoint").
				do(ByHand, `write endpoint = "…" under [tunnel] in home.toml`, "the public address of your home, or a name that leads to it")
		}},
	{ID: "endpoint-name", What: "the endpoint's name has an address", Symptom: "the device's app says that it cannot resolve the name",
		After: []ID{"endpoint"}, Needs: []string{"endpoint", "router"}, judge: func(p *patient) outcome { return p.fromName(trace.NoName) }},
	{ID: "endpoint-private", What: "the endpoint leads to a public address", Symptom: "it works at home and nowhere else",
		After: []ID{"endpoint", "endpoint-name"}, Needs: []string{"endpoint", "router"}, judge: func(p *patient) outcome { return p.fromName(trace.NamePrivate) }},
	{ID: "endpoint-stale", What: "the endpoint leads to this home", Symptom: "it worked until the public address changed",
		After: []ID{"endpoint", "endpoint-name", "endpoint-private"}, Needs: []string{"endpoint", "router"}, Uses: []string{"upstream"}, judge: endpointStale},
	{ID: "endpoint-family", What: "the endpoint's IPv6 address", Symptom: "it works in hotels and not on the phone's network, or the other way round",
		After: []ID{"endpoint", "endpoint-name"}, Needs: []string{"endpoint", "router"}, judge: endpointFamily},
	{ID: "ddns", What: "the name service is told the public address", Symptom: "it worked until the public address changed",
		Needs: []string{"services"}, judge: ddns},
}

func (p *patient) fromName(causes ...trace.Cause) outcome {
	if t, found := dead(p.follow(trace.Internet), causes...); found {
		return p.died(t)
	}
	return ok()
}

func endpointStale(p *patient) outcome {
	public := p.Upstream.Value.Public
	switch {
	case p.home.Uplink.Kind == home.Direct:
	case !public.IsValid():
		return notKnown("home's public address is not known")
	case !subnet.IsPublic(public):
		return notTested("first: the ISP router has a public address")
	}
	return p.fromName(trace.NameElsewhere)
}

// endpointFamily: devices in IPv6 networks try the AAAA record first, and there is
// no falling back with WireGuard.
func endpointFamily(p *patient) outcome {
	for _, a := range p.Endpoint.Value {
		a = a.Unmap()
		if !a.Is6() || !subnet.IsPublic(a) {
			continue
		}
		o := bad("devices in IPv6 networks cannot come home: the endpoint's IPv6 address does not lead to the tunnel").
			causedBy("WireGuard takes one address of a name and does not try the other")
		ours := slices.ContainsFunc(p.snap().Interfaces, func(i router.Interface) bool {
			return i.Up && slices.ContainsFunc(i.Addresses, func(x netip.Prefix) bool { return x.Addr() == a })
		})
		if !ours {
			return o.saw("%s is no address of the home router", a).
				do(ByHand, "at your DynDNS service, take the IPv6 address (AAAA) away from "+p.home.Tunnel.Endpoint, "or let it lead to the home router")
		}
		t := trace.Follow(p.traceFacts(), trace.Request{From: netip.MustParseAddr("2001:db8:ffff::1"), To: a, Proto: firewall.UDP, Port: p.home.Tunnel.Port})
		if t.Death != nil {
			return o.saw("%s", t.Death.Says).remedies(t.Remedies)
		}
	}
	return ok()
}

// ddns: behind an ISP router the WAN interface has a private address; telling that
// to the name service is the classic mistake (facts openwrt.md 6.7).
func ddns(p *patient) outcome {
	doc := p.Services.Value["ddns"]
	if doc == nil {
		return moot()
	}
	any := false
	for _, s := range doc.OfType("service") {
		if !s.Bool("enabled", false) {
			continue
		}
		any = true
		if o, wrong := ddnsSource(p, s); wrong {
			return o
		}
	}
	if !any {
		return moot()
	}
	return ok()
}

func ddnsSource(p *patient, s uci.Section) (outcome, bool) {
	source, _ := s.Get("ip_source")
	if s.Bool("use_ipv6", false) || p.home.Uplink.Kind == home.Direct || source != "network" && source != "interface" && source != "" {
		return outcome{}, false
	}
	return risk("the name service is told the home router's own address, which is private").
		saw("ip_source of ddns.%s", s.Name).
		shell(fmt.Sprintf("uci set ddns.%s.ip_source=web; uci commit ddns; service ddns restart", s.Name), "then it asks outside which address home has"), true
}
