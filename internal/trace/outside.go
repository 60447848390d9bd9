package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
)

// sessionTime is how long a handshake surely stays valid (WireGuard,
// messages.h: keys are rejected after 180 s).
const sessionTime = 180 * time.Second

func (w *walk) direct() bool { return w.f.Home.Uplink.Kind == home.Direct }

// side is the interface where the tunnel's packets come in: towards the uplink,
// or the LAN of a one-armed router.
func (w *walk) side() (router.Interface, bool) {
	if w.f.Home.Uplink.Kind == home.OneArmed {
		for _, l := range w.f.Home.LANs {
			return w.snap.Interface(l.Interface)
		}
	}
	var found []router.Interface
	for _, i := range w.snap.Interfaces {
		if w.site.WAN != "" && w.site.Zones[i.Name] == w.site.WAN || w.site.WAN == "" && i.Name == "wan" {
			found = append(found, i)
		}
	}
	rank := func(i router.Interface) int {
		switch {
		case i.Up && len(i.Gateways) > 0:
			return 0
		case i.Up && len(i.Addresses) > 0:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(found, func(a, b router.Interface) int { return cmp.Compare(rank(a), rank(b)) })
	if len(found) == 0 {
		return router.Interface{}, false
	}
	return found[0], true
}

// outerAddress is the home router's address on that side, of the family of like.
func (w *walk) outerAddress(like netip.Addr) netip.Addr {
	side, _ := w.side()
	all := append([]router.Interface{side}, w.snap.Interfaces...)
	for n, i := range all {
		same := n == 0 || w.f.Home.Uplink.Kind != home.OneArmed && w.site.WAN != "" && w.site.Zones[i.Name] == w.site.WAN
		for _, p := range i.Addresses {
			if i.Up && same && p.Addr().Is4() == like.Is4() && !p.Addr().IsLinkLocalUnicast() {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}

// ispRouter: does the ISP router send the port on to the home router.
func (w *walk) ispRouter() bool {
	if w.direct() {
		return true // there is none
	}
	like := w.outer.Dst
	if !like.IsValid() {
		like = netip.IPv4Unspecified()
	}
	own := w.outerAddress(like)
	port := w.dev.port
	h := hop(ISPRouter, "ISP router", fmt.Sprintf("udp to its public side, port %d", port))
	if like.Is6() {
		return w.filter6(h, own)
	}
	w.outer.Dst, w.outer.DstPort = own, w.f.Home.Tunnel.Port
	if !w.f.Upstream.Asked {
		w.heard(&h)
		return w.pass(h)
	}
	for _, m := range w.f.Upstream.Mappings {
		if m.Proto == "udp" && m.External == port {
			return w.mapped(h, m, own)
		}
	}
	if !w.f.Upstream.Opened.IsZero() {
		return w.forgotten(h, port)
	}
	if w.f.Upstream.Partial {
		w.f.Upstream.Why = fmt.Sprintf("its list by %s shows none, and need not show what a person has typed there", w.f.Upstream.How)
		w.heard(&h)
		return w.pass(h)
	}
	return w.die(h, end{cause: NoMapping, silent: true, note: w.learned(),
		says: fmt.Sprintf("the ISP router sends UDP %d nowhere", port),
		line: fmt.Sprintf("no mapping for UDP %d", port)})
}

// forgotten: a list need not show what a person has typed, but it did show what
// heimweg opened, and does not any more. Only a device that comes in all the same
// speaks against that.
func (w *walk) forgotten(h Hop, port uint16) bool {
	proof := h
	if w.heard(&proof); proof.Verdict != Unknown {
		return w.pass(proof)
	}
	u := w.f.Upstream
	why := "it has restarted since, or somebody took that out"
	if !u.Ended.IsZero() {
		why = "it was granted until " + u.Ended.Format(minutes) + ", and nobody renewed it"
	}
	return w.die(h, end{cause: NoMapping, silent: true,
		note: fmt.Sprintf("heimweg opened it %s, and the list by %s shows it no more; %s", u.Opened.Format(minutes), u.How, why),
		says: fmt.Sprintf("the ISP router has forgotten to send UDP %d on", port),
		line: fmt.Sprintf("no mapping for UDP %d any more", port)})
}

// minutes is how a time of day is written.
const minutes = "Mon 2 Jan 15:04"

// filter6: over IPv6 nothing is translated, but the ISP router's own firewall
// has to be opened for this host.
func (w *walk) filter6(h Hop, own netip.Addr) bool {
	h.Packet = "udp to " + w.outer.Dst.String()
	h.doubt("", "IPv6 is not translated; whether the ISP router's firewall lets UDP %d in to this address is not known", w.dev.port)
	if own.IsValid() && !w.routes.isLocal(w.outer.Dst) {
		return w.die(h, end{cause: MappedElsewhere, silent: true,
			says: fmt.Sprintf("%s is not an address of the home router (that is %s)", w.outer.Dst, own)})
	}
	return w.pass(h)
}

func (w *walk) mapped(h Hop, m Mapping, own netip.Addr) bool {
	w.outer.Dst, w.outer.DstPort = m.To.Addr(), m.To.Port()
	switch {
	case !own.IsValid():
		h.say(w.learned(), nil, "mapped to %s", m.To)
		return w.pass(h) // the next hop says that the router has no address there
	case !w.routes.isLocal(m.To.Addr()):
		return w.die(h, end{cause: MappedElsewhere, silent: true, note: w.learned(),
			says: fmt.Sprintf("the ISP router sends UDP %d to %s, and the home router is %s", m.External, m.To.Addr(), own),
			line: fmt.Sprintf("mapped to %s, and the home router is %s", m.To, own)})
	}
	h.say(w.learned(), nil, "mapped to %s", m.To)
	return w.pass(h)
}

// learned says how the mapping is known.
func (w *walk) learned() string {
	u := w.f.Upstream
	if u.How == "" {
		return ""
	}
	if u.At.IsZero() || w.snap.Time.IsZero() {
		return u.How
	}
	return fmt.Sprintf("%s, seen %s ago", u.How, ago(w.snap.Time.Sub(u.At)))
}

func ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// heard looks for proof that a packet came through the ISP router just now: a
// fresh handshake with a device that is outside.
func (w *walk) heard(h *Hop) {
	why := cmp.Or(w.f.Upstream.Why, "heimweg has not asked the ISP router")
	var last router.Peer
	if w.live != nil {
		for _, p := range w.live.Peers {
			if p.Handshake.After(last.Handshake) && subnet.IsPublic(p.Endpoint.Addr()) && p.Endpoint.Addr().Is4() {
				last = p
			}
		}
	}
	age := w.snap.Time.Sub(last.Handshake)
	switch {
	case last.Handshake.IsZero():
		h.doubt(why, "not known whether it sends UDP %d on to the home router", w.dev.port)
	case age <= sessionTime:
		h.say("so the mapping was there then", nil, "%s came in this way %s ago, from %s", w.nameOf(last.PublicKey), ago(age), last.Endpoint.Addr())
	default:
		h.doubt(why, "not known whether it still sends UDP %d on: %s came in this way %s ago", w.dev.port, w.nameOf(last.PublicKey), ago(age))
	}
}

// door: the home router's firewall and WireGuard's own packet.
func (w *walk) door() bool {
	h := hop(Door, "home", "")
	side, ok := w.side()
	if !w.outer.Dst.IsValid() || !w.routes.isLocal(w.outer.Dst) {
		if a := w.outerAddress(netip.IPv4Unspecified()); a.IsValid() && !w.outer.Dst.Is6() {
			w.outer.Dst = a
		} else {
			return w.noUplink(h, side, ok)
		}
	}
	if !w.outer.Src.IsValid() {
		w.outer.Src = somewhere(w.outer.Dst)
	}
	if w.outer.Proto == 0 { // the endpoint is not known: the packet came all the same
		w.outer.Proto, w.outer.SrcPort, w.outer.DstPort = firewall.UDP, sourcePort, w.f.Home.Tunnel.Port
	}
	h.Packet = show(w.outer)
	if on, ok := w.routes.local[w.outer.Dst]; ok {
		side = on
	}
	v := w.rules.Handle(w.tracker, w.snap.Time, w.outer, side.Device, w.routes.route)
	zone := w.zoneName(side.Device, w.outer.Src)
	if w.refusedRules(&h) {
		return w.pass(h)
	}
	if v.Action != firewall.Accept {
		says := fmt.Sprintf("the home router's firewall does not let UDP %d in from the %s side", w.outer.DstPort, zone)
		cause := DoorClosed
		if w.live != nil && w.outer.DstPort != w.live.ListenPort && w.outer.DstPort != w.f.Home.Tunnel.Port {
			cause = MappedPort
			says = fmt.Sprintf("the ISP router sends it to port %d of the home router, and the tunnel listens on %d", w.outer.DstPort, w.live.ListenPort)
		}
		return w.die(h, w.verdictEnd(v, cause, says, zone))
	}
	w.tellHits(&h, v, zone)
	w.outer = v.Packet
	if !v.Local {
		return w.die(h, end{cause: MappedElsewhere, silent: true, because: w.lastPlace(v),
			says: fmt.Sprintf("the home router sends UDP %d on to %s instead of keeping it", w.outer.DstPort, v.Packet.Dst)})
	}
	return w.pass(h)
}

func (w *walk) noUplink(h Hop, side router.Interface, ok bool) bool {
	e := end{cause: NoUplink, silent: true, says: "the home router has no address towards the internet"}
	h.Packet = fmt.Sprintf("udp to the home router, port %d", w.f.Home.Tunnel.Port)
	if ok {
		e.says = fmt.Sprintf("the home router's interface %s has no address", side.Name)
		e.because = w.place("network", side.Name, "")
		if len(side.Errors) > 0 {
			e.note = side.Errors[0]
		}
	}
	return w.die(h, e)
}
