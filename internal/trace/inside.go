package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

type section = uci.Section

// origin: where a host that is no peer sits, and whether its packet comes to the
// home router at all.
func (w *walk) origin() bool {
	from := w.r.From
	h := hop(Origin, w.t.From, show(w.pkt))
	if !from.IsValid() || from.Is4() != w.r.To.Is4() {
		return w.die(h, end{cause: NoAddress, says: fmt.Sprintf("%s and %s are not of one family", from, w.r.To)})
	}
	if k, _, ok := w.table.Choose(from); ok && !w.routes.isLocal(from) && w.r.Peer == "" {
		h.say("", nil, "is the tunnel address of %s; this begins behind the tunnel", w.nameOf(k))
		w.in = w.tunnelDevice()
		return w.pass(h)
	}
	if on, net, ok := holder(w.snap, from); ok {
		w.in = on.Device
		if net.Contains(w.r.To) && !w.routes.isLocal(w.r.To) {
			h.say("the home router is not asked", nil, "is in the same network as %s (%s): the packet goes there directly", w.r.To, net.Masked())
			w.noAnswer = true
			w.pass(h)
			return false
		}
		h.say("", nil, "is in the network %s, on interface %s", net.Masked(), on.Name)
		return w.pass(h)
	}
	side, ok := w.side()
	if !ok || side.Device == "" {
		return w.die(h, end{cause: NotRouted, silent: true, says: fmt.Sprintf("%s is in no network of the home router, and there is no way to the internet", from)})
	}
	w.in = side.Device
	h.say("", nil, "is in no network of the home router: its packets come in by %s", side.Name)
	return w.pass(h)
}

func (w *walk) tunnelDevice() string {
	wg := w.f.Home.Tunnel.Interface
	if i, ok := w.snap.Interface(wg); ok && i.Device != "" {
		return i.Device
	}
	return wg
}

// home: the home router's firewall and routes.
func (w *walk) home() bool {
	h := hop(Home, "home", show(w.pkt))
	if w.refusedRules(&h) {
		h.Packet = show(w.pkt)
	}
	v := w.rules.Handle(w.tracker, w.snap.Time, w.pkt, w.in, w.routes.route)
	w.v = v
	from := w.zoneName(w.in, w.pkt.Src)
	out, local := w.routes.route(v.Packet.Dst)
	switch {
	case !local && out == "":
		return w.noRoute(h)
	case v.Action != firewall.Accept:
		return w.refused(h, v, from, out, local)
	}
	if v.Local {
		w.tellHits(&h, v, from+" → the router itself")
		return w.pass(h)
	}
	to := w.zoneName(v.Out, v.Packet.Dst)
	w.tellHits(&h, v, from+" → "+to)
	if x, ok := w.routes.find(v.Packet.Dst); ok {
		h.say(by(x), nil, "leaves by %s", v.Out)
	}
	if v.Packet.Src != w.pkt.Src || v.Packet.Dst != w.pkt.Dst {
		h.say("", nil, "goes on as %s", show(v.Packet))
	}
	return w.pass(h)
}

func (w *walk) noRoute(h Hop) bool {
	e := end{cause: NoRoute, says: fmt.Sprintf("the home router knows no way to %s", w.v.Packet.Dst)}
	for _, l := range w.f.Home.LANs {
		if i, ok := w.snap.Interface(l.Interface); l.Network.Contains(w.r.To) && (!ok || !i.Up) {
			e.cause, e.says = DeviceDown, fmt.Sprintf("the home router's interface %s is down", l.Interface)
			e.because = w.place("network", l.Interface, "")
		}
	}
	return w.die(h, e)
}

// refused tells why the firewall does not pass the packet on.
func (w *walk) refused(h Hop, v firewall.Verdict, from, out string, local bool) bool {
	if local {
		says := fmt.Sprintf("the home router itself does not take %s from %s", kind(w.r.Proto, w.r.Port), from)
		return w.die(h, w.verdictEnd(v, Refused, says, from+" → the router itself"))
	}
	to := w.zoneName(out, v.Packet.Dst)
	ways := from + " → " + to
	e := w.verdictEnd(v, Refused, fmt.Sprintf("the home router does not pass %s on from %s to %s", kind(w.r.Proto, w.r.Port), from, to), ways)
	if len(v.Hits) == 0 {
		return w.die(h, e)
	}
	s, _ := w.section(v.Hits[len(v.Hits)-1])
	_, zoned := w.rules.Zone(w.in, w.pkt.Src)
	switch {
	case s.Type != "defaults" && s.Type != "zone":
	case !zoned:
		e.says = fmt.Sprintf("the tunnel %s is in no zone of the firewall, so nothing allows it anywhere", w.in)
		e.line = ways + ": in no zone, nothing allows it"
	default:
		e.says = fmt.Sprintf("the home router has no forwarding from %s to %s", from, to)
		if f := w.halfForwarding(from, to); f != "" {
			e.says = fmt.Sprintf("the forwarding from %s to %s is for %s only", from, to, f)
		}
		e.line = fmt.Sprintf("%s: no forwarding allows it", ways)
	}
	if e.note == "" && (s.Type == "defaults" || s.Type == "zone") {
		e.note = fmt.Sprintf("forwardings of %s: %s", from, w.forwardings(from))
	}
	return w.die(h, e)
}

// forwardings lists where a zone may go.
func (w *walk) forwardings(from string) string {
	var out []string
	for _, s := range w.snap.Config("firewall").OfType("forwarding") {
		if src, _ := s.Get("src"); src == from && s.Bool("enabled", true) {
			dest, _ := s.Get("dest")
			if f, ok := s.Get("family"); ok && f != "any" {
				dest += " (" + f + ")"
			}
			out = append(out, dest)
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// halfForwarding is the family of a forwarding that would do if it were not for
// the other family only.
func (w *walk) halfForwarding(from, to string) string {
	for _, s := range w.snap.Config("firewall").OfType("forwarding") {
		src, _ := s.Get("src")
		dest, _ := s.Get("dest")
		f, _ := s.Get("family")
		if src == from && dest == to && strings.HasPrefix(f, "ipv") && s.Bool("enabled", true) {
			return "IP" + f[2:]
		}
	}
	return ""
}

// onwards is what is behind the home router.
func (w *walk) onwards() bool {
	v := w.v
	switch {
	case v.Local:
		return true
	case w.snap.Tunnels[v.Out] != nil:
		return w.onward()
	}
	on, net, ok := holder(w.snap, v.Packet.Dst)
	if ok && on.Device == v.Out {
		return w.lan(on, net) && w.target()
	}
	if x, found := w.routes.find(v.Packet.Dst); found && x.Via.IsValid() && x.Dst.Bits() > 0 {
		on, _ = byDevice(w.snap, v.Out)
		return w.lan(on, x.Dst) && w.target()
	}
	return w.beyond()
}

// onward: into the tunnel, towards another peer.
func (w *walk) onward() bool {
	dst := w.v.Packet.Dst
	h := hop(Onward, "home", show(w.v.Packet))
	table := tableOf(w.snap.Tunnels[w.v.Out])
	k, n, ok := table.Choose(dst)
	if !ok {
		return w.die(h, end{cause: NoPeerFor, says: fmt.Sprintf("no peer of the tunnel has %s", dst), note: "WireGuard has no key to encrypt it with"})
	}
	p, _ := table.Peer(k)
	name := w.nameOf(k)
	if !p.Endpoint.IsValid() {
		return w.die(h, end{cause: NoEndpoint, says: fmt.Sprintf("%s has not called home since the tunnel was made, so nobody knows where it is", name)})
	}
	h.say(n.String()+" is the longest match", nil, "for %s, encrypted with its key, to %s", name, p.Endpoint)
	w.pass(h)
	t := hop(Target, name, show(w.v.Packet))
	t.doubt("", "not known whether %s is awake and answers", name)
	return w.pass(t)
}

// lan: is the network there, and does somebody answer for the address.
func (w *walk) lan(on router.Interface, net netip.Prefix) bool {
	dst := w.v.Packet.Dst
	h := hop(LAN, "home LAN", show(w.v.Packet))
	if w.uplinkSide(on) {
		h.At = "uplink LAN"
	}
	k := w.f.Knock
	switch {
	case !on.Up:
		return w.die(h, end{cause: DeviceDown, says: fmt.Sprintf("the home router's interface %s is down", on.Name), because: w.place("network", on.Name, "")})
	case k.Target == dst && k.Near == No && !k.There:
		return w.die(h, end{cause: NobodyThere, says: fmt.Sprintf("nobody in %s answers for %s: the device is off, or has another address", net.Masked(), dst)})
	case k.Target != dst && slices.Contains(w.snap.Silent, dst):
		return w.die(h, end{cause: NobodyThere, says: fmt.Sprintf("nobody in %s answers for %s: the router has asked in vain", net.Masked(), dst)})
	}
	for _, n := range w.snap.Neighbours {
		if n.Addr == dst && n.Device != "" {
			h.say("", nil, "%s is there, on %s", w.towards, n.Device)
			return w.pass(h)
		}
	}
	if k.Target == dst && (k.Near == Yes || k.There) {
		h.say("", nil, "%s is there, on %s", w.towards, on.Device)
		return w.pass(h)
	}
	h.doubt("", "the router has not heard of %s lately; whether it is switched on is not known", dst)
	return w.pass(h)
}

func (w *walk) uplinkSide(on router.Interface) bool {
	return w.f.Home.Uplink.Kind != home.OneArmed && w.site.WAN != "" && w.site.Zones[on.Name] == w.site.WAN
}

// hidden: the packet looks as if it came from the router itself, so the answer
// comes back to it without knowing any way to the tunnel.
func (w *walk) hidden() bool { return w.routes.isLocal(w.v.Packet.Src) }

// target: does the target send its answer back to the router.
func (w *walk) target() bool {
	p := w.v.Packet
	h := hop(Target, targetName(w.r), show(p))
	k := w.f.Knock
	asked := k.Target == p.Dst
	w.ask(p)
	switch _, same, _ := holder(w.snap, p.Dst); {
	case asked && k.Near == Yes && (w.hidden() || same.Contains(p.Src)):
		h.say("it sees the router's address", nil, "answered the router's ping")
	case asked && k.Far == Yes:
		h.say("", nil, "answered a ping that came from inside the tunnel: it knows the way back")
	case asked && k.Near == Yes && k.Far == No:
		return w.noWayBack(h)
	case asked && k.Near == No:
		h.doubt("it may be asleep, or answer no pings", "%s did not answer the router's ping", p.Dst)
	case w.hidden():
		h.say("", nil, "sees the router's address and answers in its own network")
	default:
		h.doubt("its gateway has to be the home router", "not known whether %s sends its answers for %s to this router", targetName(w.r), p.Src)
	}
	return w.pass(h)
}

func targetName(r Request) string {
	if r.Name != "" {
		return r.Name
	}
	return r.To.String()
}

// ask notes the question that would tell more.
func (w *walk) ask(p firewall.Packet) {
	if w.f.Knock.Target == p.Dst {
		return
	}
	q := &Question{Target: p.Dst}
	if i, ok := w.snap.Interface(w.f.Home.Tunnel.Interface); ok {
		for _, a := range i.Addresses {
			if a.Addr().Is4() == p.Dst.Is4() {
				q.From = a.Addr()
			}
		}
	}
	w.t.Question = q
}

func (w *walk) noWayBack(h Hop) bool {
	name, src := targetName(w.r), w.v.Packet.Src
	e := end{cause: NoWayBack, silent: true,
		says: fmt.Sprintf("%s answers the home router, but not the tunnel: its gateway is not this router, or its own firewall refuses strangers", name),
		line: fmt.Sprintf("gets it, but its answer to %s does not come back to this router", src),
		note: "it answered a ping from the router's own address, and none from the tunnel"}
	if w.f.Home.Uplink.Kind == home.OneArmed {
		e.says = fmt.Sprintf("%s sends its answer to the ISP router, which knows no way to %s", name, w.f.Home.Tunnel.Network)
	}
	return w.die(h, e)
}

// beyond: out by the WAN side, to the internet.
func (w *walk) beyond() bool {
	p := w.v.Packet
	h := hop(Beyond, "ISP router", show(p))
	if w.direct() {
		h.At = "internet"
	}
	k := w.f.Knock
	w.ask(p)
	asked := k.Target == p.Dst
	switch {
	case asked && (k.Far == Yes || k.Near == Yes && w.hidden()):
		h.say("", nil, "%s answered a ping from the home router", p.Dst)
	case asked && k.Near == Yes && k.Far == No, !w.hidden() && w.lostOutside(p.Src):
		return w.die(h, end{cause: NoWayBack, silent: true, because: w.masqPlace(),
			says: fmt.Sprintf("the packet leaves home with its own address %s, and nobody out there knows the way back to that", p.Src),
			line: fmt.Sprintf("leaves as %s: no answer comes back", p.Src), note: "the home router does not put its own address in"})
	case asked && k.Near == No:
		h.doubt("", "%s did not answer the home router's ping", p.Dst)
	case w.hidden():
		h.doubt("", "not known whether the internet answers")
	default:
		h.doubt("", "not known whether the ISP router knows the way back to %s", p.Src)
	}
	return w.pass(h)
}

// lostOutside: nobody outside can answer that source.
func (w *walk) lostOutside(src netip.Addr) bool {
	if w.direct() {
		return src.IsPrivate()
	}
	if !w.f.Upstream.RoutesKnown || !src.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(w.f.Upstream.Routes, func(n netip.Prefix) bool { return n.Contains(src) })
}

// masqPlace is the zone that does not masquerade.
func (w *walk) masqPlace() []Place {
	z, ok := w.rules.Zone(w.v.Out, w.v.Packet.Dst)
	if !ok {
		return nil
	}
	for _, s := range w.snap.Config("firewall").OfType("zone") {
		if n, _ := s.Get("name"); n == z {
			return w.place("firewall", s.Name, "masq")
		}
	}
	return nil
}
