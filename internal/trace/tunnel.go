package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
)

// nameOf is what the household calls a key.
func (w *walk) nameOf(k key.Public) string {
	for _, p := range w.f.Home.Peers {
		if p.PublicKey == k {
			return p.Name
		}
	}
	for _, s := range w.peerSections() {
		if v, _ := s.Get("public_key"); v == k.String() {
			if d, ok := s.Get("description"); ok {
				return d
			}
			return s.Name
		}
	}
	return "a peer that home.toml does not know (" + k.Short() + ")"
}

// tunnel: does WireGuard know this device and let it send.
func (w *walk) tunnel() bool {
	wg := w.f.Home.Tunnel.Interface
	h := hop(Tunnel, "home", show(w.pkt))
	if w.live == nil {
		return w.tunnelDown(h, wg)
	}
	if w.outer.DstPort != w.live.ListenPort {
		return w.die(h, end{cause: NobodyListens, silent: true, because: w.place("network", wg, "listen_port"),
			says: fmt.Sprintf("nothing listens on UDP %d: the tunnel listens on %d", w.outer.DstPort, w.live.ListenPort)})
	}
	if !w.keys(h) || !w.wayOut(h) {
		return false
	}
	if moves, at := cryptokey.Watch(w.f.Samples); moves == cryptokey.Shared {
		return w.die(h, end{cause: SharedKey, silent: true,
			says: fmt.Sprintf("two devices use the key of %s and take the tunnel from each other", w.r.Peer),
			line: "its endpoint jumps between " + join(at),
			note: "the home router answers whoever spoke last; one key is one device"})
	}
	a := w.table.Judge(w.dev.public, w.pkt.Src)
	if !a.Allowed {
		return w.notItsSource(h, a)
	}
	h.say(w.session(), nil, "key of %s may send as %s", w.r.Peer, w.pkt.Src)
	w.in = w.tunnelDevice()
	return w.pass(h)
}

func join(at []netip.AddrPort) string {
	var out []string
	for _, a := range at {
		out = append(out, a.String())
	}
	return strings.Join(out, " and ")
}

// session says when the peer was last heard.
func (w *walk) session() string {
	p, _ := w.live.Peer(w.dev.public)
	if p.Handshake.IsZero() {
		return "no handshake since the tunnel was made"
	}
	return fmt.Sprintf("last handshake %s ago, from %s", ago(w.snap.Time.Sub(p.Handshake)), p.Endpoint)
}

func (w *walk) tunnelDown(h Hop, wg string) bool {
	e := end{cause: TunnelDown, silent: true, because: w.place("network", wg, ""),
		says: fmt.Sprintf("the tunnel %s on the home router is not up", wg)}
	i, known := w.snap.Interface(wg)
	switch {
	case len(e.because) == 0:
		e.says = fmt.Sprintf("the home router has no tunnel %s", wg)
	case known && len(i.Errors) > 0:
		e.note = i.Errors[0]
	}
	return w.die(h, e)
}

// keys: do both ends know each other.
func (w *walk) keys(h Hop) bool {
	d := w.dev
	known, _ := w.f.Home.Peer(w.r.Peer)
	live, there := w.live.Peer(d.public)
	switch {
	case !d.server.IsZero() && d.server != w.live.PublicKey:
		return w.die(h, end{cause: ServerKey, silent: true,
			says: fmt.Sprintf("%s calls for a router with another key: its configuration is an old one", w.r.Peer),
			note: fmt.Sprintf("it knows %s, the tunnel has %s", d.server.Short(), w.live.PublicKey.Short())})
	case d.own && !there && d.public != known.PublicKey:
		return w.die(h, end{cause: PeerKey, silent: true,
			says: fmt.Sprintf("the home router knows another key of %s: this configuration is an old one", w.r.Peer)})
	case !there:
		return w.notLive(h)
	case d.own && d.preshared != live.Preshared, !d.own && d.secret != (live.Preshared != ""):
		return w.die(h, end{cause: Preshared, silent: true, because: w.peerPlace(d.public, "preshared_key"),
			says: fmt.Sprintf("the preshared keys of %s and the home router differ, so no handshake succeeds", w.r.Peer)})
	}
	return true
}

// peerSections are the peers in the file, parked ones included.
func (w *walk) peerSections() (out []section) {
	for _, s := range w.snap.Config("network").Sections() {
		if s.Type == "wireguard_"+w.f.Home.Tunnel.Interface || s.Type == router.ParkedType {
			out = append(out, s)
		}
	}
	return out
}

func (w *walk) peerPlace(k key.Public, option string) []Place {
	var out []Place
	for _, s := range w.peerSections() {
		if v, _ := s.Get("public_key"); v == k.String() {
			out = append(out, w.place("network", s.Name, option)...)
		}
	}
	return out
}

// notLive says why the tunnel does not know a peer.
func (w *walk) notLive(h Hop) bool {
	name := w.r.Peer
	p, _ := w.f.Home.Peer(name)
	e := end{cause: PeerMissing, silent: true, says: fmt.Sprintf("the home router does not know %s", name)}
	for _, s := range w.peerSections() {
		v, _ := s.Get("public_key")
		mine := v == w.dev.public.String()
		if !mine && s.Name != p.Section() {
			continue
		}
		e.because = w.place("network", s.Name, "")
		switch {
		case s.Type == router.ParkedType || s.Bool("disabled", false) && mine:
			e.cause, e.says = PeerOff, name+" is switched off on the home router"
			e.because = w.place("network", s.Name, "disabled")
		case !mine:
			e.cause, e.says = PeerKey, fmt.Sprintf("the home router has another key for %s than home.toml", name)
			e.because = w.place("network", s.Name, "public_key")
		default:
			e.cause, e.says = PeerNotLive, fmt.Sprintf("%s is in the home router's file, but the running tunnel was not told", name)
		}
	}
	if p.Disabled {
		e.cause, e.says = PeerOff, name+" is disabled in home.toml and cannot come home"
	}
	return w.die(h, e)
}

// wayOut: WireGuard's answers leave by the router's own routes. A default route
// into the tunnel itself is the classic way to cut oneself off.
func (w *walk) wayOut(h Hop) bool {
	if w.outer.Src.IsValid() && w.routes.isLocal(w.outer.Src) {
		return true
	}
	x, ok := w.routes.find(w.outer.Src)
	wg := w.f.Home.Tunnel.Interface
	switch {
	case !ok:
		return w.die(h, end{cause: NoWayOut, silent: true,
			says: "the home router has no way to the internet, so its answer to the handshake goes nowhere"})
	case x.Device == wg:
		e := end{cause: NoWayOut, silent: true, note: by(x),
			says: "the home router sends its answers to the internet into the tunnel itself"}
		for _, s := range w.peerSections() {
			if s.Bool("route_allowed_ips", false) {
				e.because = w.place("network", s.Name, "route_allowed_ips")
			}
		}
		return w.die(h, e)
	}
	return true
}

// notItsSource says whose the source is.
func (w *walk) notItsSource(h Hop, a cryptokey.Arrival) bool {
	src, name := w.pkt.Src, w.r.Peer
	e := end{cause: NotItsSource, silent: true, because: w.peerPlace(w.dev.public, "allowed_ips")}
	live, _ := w.live.Peer(w.dev.public)
	e.note = fmt.Sprintf("AllowedIPs of %s on the home router: %s", name, texts(live.AllowedIPs))
	e.says = fmt.Sprintf("%s may not send as %s", name, src)
	if !a.Owner.IsZero() {
		e.says = fmt.Sprintf("%s may not send as %s: that address belongs to %s (%s)", name, src, w.nameOf(a.Owner), a.Network)
		e.because = append(e.because, w.peerPlace(a.Owner, "allowed_ips")...)
	}
	if len(w.peerPlace(w.dev.public, "")) > 1 {
		e.says += "; two peers in the file have the same key, and the last one counts"
	}
	e.line = fmt.Sprintf("key of %s may not send as %s", name, src)
	return w.die(h, e)
}
