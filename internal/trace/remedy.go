package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/home"
)

// order is the hops as a packet meets them: a later death is progress.
var order = []ID{Device, Origin, Internet, ISPRouter, Door, Tunnel, Home, Onward, LAN, Target, Beyond, AnswerHome, AnswerTunnel, AnswerDevice}

func later(a, b ID) bool { return slices.Index(order, a) > slices.Index(order, b) }

// remedy says what to do about a death. Whether `heimweg apply` is the cure is
// not guessed: the packet is sent through the router as apply would leave it.
func (w *walk) remedy() {
	d := w.t.Death
	if d == nil {
		return
	}
	if w.f.Wanted.Snapshot != nil {
		f := w.f
		f.Snapshot, f.Wanted, f.Knock = w.f.Wanted.Snapshot, After{}, Knock{}
		after := Follow(f, w.r)
		if after.Death == nil || later(after.Death.Hop, d.Hop) {
			w.applyCures()
			if after.Death != nil {
				w.t.Remedies = append(w.t.Remedies, after.Remedies...)
			}
			return
		}
	}
	w.t.Remedies = w.byHand()
}

func (w *walk) applyCures() {
	if w.f.Wanted.Stuck {
		w.t.Remedies = []Remedy{{"heimweg plan", "home.toml wants it otherwise than the router has it; plan says what keeps heimweg apply from changing it"}}
		return
	}
	w.t.Remedies = []Remedy{{"heimweg apply", "home.toml wants it otherwise than the router has it"}}
}

// byHand is the remedy when apply is none, by cause.
func (w *walk) byHand() []Remedy {
	peer := w.r.Peer
	renew := Remedy{"heimweg peer renew " + peer, "gives " + peer + " a new configuration; scan it with the WireGuard app"}
	one := func(do, why string, args ...any) []Remedy { return []Remedy{{do, fmt.Sprintf(why, args...)}} }
	switch w.t.Death.Cause {
	case NotAllowedIPs, NoAddress:
		return w.widen(renew)
	case ServerKey, PeerKey, Preshared, AnswerRefused:
		return []Remedy{renew}
	case SharedKey:
		return one("heimweg peer add another", "a device of its own for the second one; then heimweg peer renew %s", peer)
	case PeerOff:
		return one("heimweg peer enable "+peer, "lets it come home again")
	case PeerNotLive, PeerMissing, TunnelDown, NobodyListens, NotItsSource, NoPeerFor, AnswerStolen:
		if w.dev.own && w.t.Death.Cause == NotItsSource {
			return []Remedy{renew}
		}
		if len(w.f.Wanted.Renew) > 0 {
			return w.renewAll()
		}
		return one("heimweg apply", "makes the tunnel what home.toml says")
	case NoName, NameElsewhere, NamePrivate:
		return one("check "+w.dev.endpoint+" at your DynDNS service", "it has to lead to the household's public address; or write another endpoint into home.toml")
	case NoMapping, MappedElsewhere, MappedPort:
		return w.mapIt()
	case NoUplink, NoWayOut:
		return one("look at the cable to the ISP router and at its DHCP", "the home router needs an address and a gateway on its WAN side")
	case NobodyThere:
		return one("switch "+targetName(w.r)+" on, or look up its address", "the address is the one that was asked for: %s", w.r.To)
	case NoEndpoint:
		return one("switch the tunnel on at "+w.towards, "it has to call first; persistent keepalive in its configuration keeps it reachable")
	case NoWayBack:
		return w.hide()
	case DoorClosed, Refused:
		return w.openUp(renew)
	case NoRoute, DeviceDown, AnswerAstray:
		return one("heimweg status", "shows which interfaces of the router are up; a network that is none of home.toml's needs a route of its own")
	}
	return nil
}

// renewAll: the router has lost keys that nothing but renewing brings back.
func (w *walk) renewAll() (out []Remedy) {
	for _, name := range w.f.Wanted.Renew {
		out = append(out, Remedy{"heimweg peer renew " + name, "the home router does not have the keys of " + name + " any more; this makes new ones"})
	}
	return out
}

// mapIt is the exact step on the ISP router.
func (w *walk) mapIt() []Remedy {
	if w.t.Death.Cause == NoMapping && !w.f.Upstream.Opened.IsZero() {
		return []Remedy{{"heimweg up", "asks the ISP router again; what a person sets there stays when it restarts: heimweg up --by-hand tells how"}}
	}
	to := w.outerAddress(netip.IPv4Unspecified())
	where := "the home router"
	if to.IsValid() {
		where = to.String()
	}
	return []Remedy{{
		fmt.Sprintf("on the ISP router: send UDP %d to %s port %d", w.dev.port, where, w.f.Home.Tunnel.Port),
		"and let it give the home router always the same address",
	}}
}

// widen: the target is outside of what the device may reach.
func (w *walk) widen(renew Remedy) []Remedy {
	h, to := w.f.Home, w.r.To
	inHome := func() bool {
		for _, n := range allowedAtHome(h) {
			if n.Contains(to) {
				return true
			}
		}
		return false
	}
	on, net, ok := holder(w.snap, to)
	switch {
	case w.dev.own && inHome():
		renew.Why = "home.toml allows it, the device's configuration is older than that; " + renew.Why
		return []Remedy{renew}
	case slices.ContainsFunc(h.LANs, func(l home.LAN) bool { return l.Network.Contains(to) }):
		return []Remedy{{"write home-lan = true under [reach] in home.toml, then heimweg apply", "devices may not reach the home LAN"}, renew}
	case ok && w.uplinkSide(on):
		return []Remedy{{"write uplink-lan = true under [reach] in home.toml, then heimweg apply", "devices may not reach the uplink LAN"}, renew}
	case ok:
		return []Remedy{{fmt.Sprintf("add [[lan]] with interface = %q and network = %q to home.toml, then heimweg apply", on.Name, net.Masked()),
			"home.toml does not name this network"}, renew}
	case !to.IsPrivate():
		return []Remedy{{"write internet = true under [reach] in home.toml, then heimweg apply", "only then all traffic of the devices goes through home"}, renew}
	}
	return []Remedy{{"look up the address of " + targetName(w.r), "no network of the home router holds " + to.String()}}
}

// hide: let the target see the router's own address.
func (w *walk) hide() []Remedy {
	if w.t.Death.Hop == Beyond {
		return []Remedy{{"on the home router: uci set firewall." + masqSection(w.t.Death) + ".masq=1; uci commit firewall; service firewall reload",
			"the home router has to put its own address into what leaves for the internet"}}
	}
	if w.f.Home.Reach.NATToLAN {
		return []Remedy{{fmt.Sprintf("set the gateway of %s to the home router", targetName(w.r)), "or look at the firewall of the device itself"}}
	}
	return []Remedy{
		{"write nat-to-lan = true under [reach] in home.toml, then heimweg apply", targetName(w.r) + " then sees the router's address and answers"},
		{fmt.Sprintf("or: set the gateway of %s to the home router", targetName(w.r)), ""},
	}
}

func masqSection(d *Death) string {
	if len(d.Because) > 0 && d.Because[0].Section != "" {
		return d.Because[0].Section
	}
	return "@zone[1]"
}

// openUp: the firewall stops it, and apply would not change that: home.toml does
// not want it, or a section of somebody else is in the way.
func (w *walk) openUp(renew Remedy) []Remedy {
	d := w.t.Death
	if len(d.Because) > 0 {
		p := d.Because[0]
		doc := w.snap.Config("firewall")
		for _, s := range doc.OfType("rule") {
			if s.Name == p.Section || label(doc, s) == p.Section && s.Anonymous {
				return []Remedy{{
					fmt.Sprintf("on the home router: uci set firewall.%s.enabled=0; uci commit firewall; service firewall reload", p.Section),
					"switches that rule off; it is not heimweg's, so heimweg leaves it alone",
				}}
			}
		}
	}
	if w.v.Local || d.Hop == Door {
		return []Remedy{{"heimweg plan", "home.toml does not want this open; what devices may do on the router itself is decided there (admin = true)"}}
	}
	return w.widen(renew)
}
