package doctor

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uci"
)

// patient is a home as one rule may see it, with what follows from the facts,
// computed once.
type patient struct {
	Facts
	home home.Home
	box  *box
}

// box is what follows from the look at the router alone.
type box struct {
	plan *plan.Plan
	want *trace.After
	site *router.Site
	ways map[way][]trace.Trace
}

// way is where packets begin, and which of the facts that package trace uses may be
// used.
type way struct {
	begin                              trace.ID
	endpoint, upstream, knock, samples bool
}

func newPatient(f Facts, b *box) *patient {
	p := &patient{Facts: f, home: f.Home, box: b}
	if len(p.devices()) == 0 {
		// Without devices the doors can be tried all the same, by one that is made up.
		if made, err := f.Home.NextPeer("a new device", key.Public{}); err == nil {
			made.Preshared = false
			p.home.Peers = append(append([]home.Peer{}, f.Home.Peers...), made)
		}
	}
	return p
}

// devices are those that home.toml lets in.
func (p *patient) devices() (out []home.Peer) {
	for _, d := range p.home.Peers {
		if !d.Disabled {
			out = append(out, d)
		}
	}
	return out
}

func (p *patient) snap() *router.Snapshot { return p.Router.Value }

// live is the running tunnel, an empty one when it does not run.
func (p *patient) live() *router.Tunnel {
	if t := p.snap().Tunnels[p.home.Tunnel.Interface]; t != nil {
		return t
	}
	return &router.Tunnel{}
}

func (p *patient) siteOf() router.Site {
	if p.box.site == nil {
		s, _ := router.SiteOf(p.snap())
		p.box.site = &s
	}
	return *p.box.site
}

// applied is the router as heimweg apply would leave it.
func (p *patient) applied() trace.After {
	if p.box.want == nil {
		w := trace.Applied(p.Facts.Home, p.snap())
		p.box.want = &w
	}
	return *p.box.want
}

func (p *patient) planned() *plan.Plan {
	if p.box.plan == nil {
		p.box.plan, _ = plan.For(p.Facts.Home, p.snap(), blueprint.Access{})
	}
	return p.box.plan
}

// tunnelSection is the tunnel in the router's file.
func (p *patient) tunnelSection() (uci.Section, bool) {
	return p.snap().Config("network").Section(p.home.Tunnel.Interface)
}

// peerSections are the peers in the router's file that netifd takes.
func (p *patient) peerSections() []uci.Section {
	return p.snap().Config("network").OfType("wireguard_" + p.home.Tunnel.Interface)
}

// target is a host in the home LAN to follow packets to: the one that was pinged,
// or any.
func (p *patient) target() (netip.Addr, bool) {
	if p.Knock.Known && p.Knock.Value.Target.IsValid() {
		return p.Knock.Value.Target, true
	}
	for _, l := range p.home.LANs {
		if !l.Network.IsZero() {
			return l.Network.Host(10).Addr(), true
		}
	}
	return netip.Addr{}, false
}

// traceFacts are what trace may use of the facts.
func (p *patient) traceFacts() trace.Facts {
	f := trace.Facts{Home: p.home, Snapshot: p.snap(), Wanted: p.applied()}
	if p.Endpoint.Known {
		f.Endpoint = trace.Endpoint{Asked: true, Addrs: p.Endpoint.Value}
	}
	if p.Upstream.Known {
		f.Upstream = p.Upstream.Value
	}
	if p.Knock.Known {
		f.Knock = p.Knock.Value
	}
	return f
}

// follow lets every device's packet begin at a hop and go to a host in the home
// LAN.
func (p *patient) follow(begin trace.ID) []trace.Trace {
	key := way{begin, p.Endpoint.Known, p.Upstream.Known, p.Knock.Known, p.Samples.Known}
	if done, ok := p.box.ways[key]; ok {
		return done
	}
	to, ok := p.target()
	if !ok {
		to = p.home.Tunnel.Network.First().Addr()
	}
	var out []trace.Trace
	for _, d := range p.devices() {
		f := p.traceFacts()
		if p.Samples.Known {
			f.Samples = p.Samples.Value[d.PublicKey]
		}
		out = append(out, trace.Follow(f, trace.Request{Peer: d.Name, To: to, Proto: firewall.TCP, Port: 445, Begin: begin}))
		if begin != trace.Tunnel {
			out = append(out, trace.Follow(f, trace.Request{Peer: d.Name, To: to, Proto: firewall.ICMP, Begin: begin}))
			break // the door and the rules behind it are the same for all
		}
	}
	p.box.ways[key] = out
	return out
}

// one follows one packet of a device, from inside the tunnel on.
func (p *patient) one(to netip.Addr, proto uint8, port uint16) trace.Trace {
	d := p.devices()
	if len(d) == 0 {
		return trace.Trace{}
	}
	return trace.Follow(p.traceFacts(), trace.Request{Peer: d[0].Name, To: to, Proto: proto, Port: port, Begin: trace.Home})
}

// dead finds the first of these traces that dies of one of these causes.
func dead(list []trace.Trace, causes ...trace.Cause) (trace.Trace, bool) {
	for _, t := range list {
		if t.Death == nil {
			continue
		}
		for _, c := range causes {
			if t.Death.Cause == c {
				return t, true
			}
		}
	}
	return trace.Trace{}, false
}

// died turns the death of a packet into a finding.
func (p *patient) died(t trace.Trace) outcome {
	o := bad("%s: %s", p.cannot(t), t.Death.Says)
	h, _ := t.Hop(t.Death.Hop)
	for _, l := range h.Lines {
		if l.Verdict == trace.Dies && l.Note != "" {
			o = o.saw("%s", l.Note)
		}
	}
	for _, pl := range t.Death.Because {
		o = o.saw("%s", place(pl))
	}
	return o.remedies(t.Remedies)
}

func place(p trace.Place) string {
	text := p.File
	if p.Line > 0 {
		text += ":" + itoa(p.Line)
	}
	if p.Section != "" {
		text += " (" + strings.TrimSpace(p.Section+" "+p.Name) + ")"
	}
	return text
}

// cannot says who is kept from what.
func (p *patient) cannot(t trace.Trace) string {
	verb, end := "cannot come home", ""
	switch t.Death.Hop {
	case trace.Home, trace.LAN, trace.Target, trace.Beyond, trace.AnswerHome:
		verb, end = "comes in and gets no further", " comes further than the home router"
	}
	one := len(p.Facts.Home.Peers) > 0 && (len(p.devices()) == 1 || t.Death.Hop == trace.Device || t.Death.Hop == trace.Tunnel)
	switch {
	case one:
		return t.From + " " + verb
	case end != "":
		return "no device" + end
	}
	return "no device can come home"
}

// byApply adds heimweg apply to a finding when that would cure it: that is tried
// on the router as apply would leave it. It tells whether it did.
func (p *patient) byApply(o outcome, fine func(*router.Snapshot) bool) (outcome, bool) {
	after := p.applied()
	if after.Snapshot == nil || !fine(after.Snapshot) {
		return o, false
	}
	if after.Stuck {
		return o.do(Command, "heimweg plan", "says what keeps heimweg apply from changing it"), true
	}
	return o.apply(), true
}

func itoa(n int) string { return strconv.Itoa(n) }
