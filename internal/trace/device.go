package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// device is the sender as its configuration makes it, from its own file or as
// home.toml would write it. It holds no secret, only digests.
type device struct {
	public    key.Public
	addrs     []netip.Addr
	allowed   []netip.Prefix
	endpoint  string // "" when not known
	port      uint16
	server    key.Public // the router as it knows it; zero: not known
	own       bool       // from its own file
	secret    bool       // it uses a preshared key
	preshared string     // digest of that; "" when there is none or it is not known
}

func (w *walk) deviceOf() device {
	if w.r.Peer == "" {
		return device{}
	}
	h := w.f.Home
	p, _ := h.Peer(w.r.Peer)
	d := device{public: p.PublicKey, allowed: wgconf.AllowedIPs(h), endpoint: h.CallName(), port: h.Tunnel.CallPort(), secret: p.Preshared}
	for _, a := range []netip.Addr{p.Address, p.Address6} {
		if a.IsValid() {
			d.addrs = append(d.addrs, a)
		}
	}
	c := w.f.Conf
	if c == nil {
		return d
	}
	d = device{public: p.PublicKey, allowed: c.Peer.AllowedIPs, endpoint: c.Peer.Endpoint, port: c.Peer.Port, server: c.Peer.PublicKey, own: true}
	for _, a := range c.Interface.Addresses {
		d.addrs = append(d.addrs, a.Addr())
	}
	if !c.Interface.PrivateKey.IsZero() {
		d.public = c.Interface.PrivateKey.Public()
	}
	d.secret = !c.Peer.Preshared.IsZero()
	d.preshared = router.Digest(c.Peer.Preshared.Reveal())
	return d
}

// addressFor is the device's address of the target's family; invalid when it
// has none.
func (d device) addressFor(to netip.Addr) netip.Addr {
	for _, a := range d.addrs {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

func (d device) sends(to netip.Addr) (netip.Prefix, bool) {
	var best netip.Prefix
	for _, n := range d.allowed {
		if n.Contains(to) && (!best.IsValid() || n.Bits() > best.Bits()) {
			best = n
		}
	}
	return best, best.IsValid()
}

func texts(list []netip.Prefix) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// device: does the sender put the packet into the tunnel.
func (w *walk) device() bool {
	d := w.dev
	h := hop(Device, w.r.Peer, show(w.pkt))
	source := "as home.toml gives them"
	if d.own {
		source = "from its own configuration"
	}
	n, ok := d.sends(w.r.To)
	switch {
	case !ok:
		return w.die(h, end{
			cause: NotAllowedIPs,
			says:  fmt.Sprintf("%s sends packets for %s past the tunnel, into whatever network it is visiting", w.r.Peer, w.r.To),
			line:  fmt.Sprintf("%s is in none of its AllowedIPs: goes past the tunnel", w.r.To),
			note:  "AllowedIPs " + source + ": " + texts(d.allowed),
		})
	case !w.pkt.Src.IsValid():
		h.Packet = fmt.Sprintf("%s → %s %s", w.r.Peer, w.r.To, kind(w.r.Proto, w.r.Port))
		return w.die(h, end{
			cause: NoAddress,
			says:  fmt.Sprintf("%s has no %s address inside the tunnel to send from", w.r.Peer, family(w.r.To)),
		})
	}
	h.say(source, nil, "in AllowedIPs %s → goes into the tunnel", n)
	w.pkt.Src = unmapped(w.pkt.Src)
	return w.pass(h)
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// internet: does the endpoint lead to this household.
func (w *walk) internet() bool {
	d := w.dev
	h := hop(Internet, "", fmt.Sprintf("udp to %s port %d", orUnknown(d.endpoint), d.port))
	if d.endpoint == "" {
		h.doubt("home.toml names no endpoint", "as UDP to the endpoint, which is not known here")
		return w.pass(h)
	}
	addrs := w.f.Endpoint.Addrs
	literal, err := netip.ParseAddr(d.endpoint)
	switch {
	case err == nil:
		addrs = []netip.Addr{literal}
	case !w.f.Endpoint.Asked:
		h.doubt("", "as UDP to %s:%d; what that name leads to was not looked up", d.endpoint, d.port)
		return w.pass(h)
	case len(addrs) == 0:
		return w.die(h, end{cause: NoName, silent: true, says: fmt.Sprintf("the name %s, which %s calls, has no address", d.endpoint, w.r.Peer)})
	}
	a := unmapped(addrs[0])
	for _, x := range addrs {
		if x = unmapped(x); x.Is4() {
			a = x
			break
		}
	}
	to := netip.AddrPortFrom(a, d.port)
	if err == nil {
		h.say("", nil, "as UDP to %s", to)
	} else {
		h.say("", nil, "as UDP to %s = %s", d.endpoint, to)
	}
	w.outer = firewall.Packet{Src: somewhere(a), Dst: a, Proto: firewall.UDP, SrcPort: sourcePort, DstPort: d.port}
	if p, ok := w.live.Peer(d.public); ok && p.Endpoint.IsValid() && subnet.IsPublic(p.Endpoint.Addr()) && p.Endpoint.Addr().Is4() == a.Is4() {
		w.outer.Src, w.outer.SrcPort = p.Endpoint.Addr(), p.Endpoint.Port()
	}
	return w.leadsHome(h, a)
}

// leadsHome compares the endpoint's address with what is known of the
// household's own.
func (w *walk) leadsHome(h Hop, a netip.Addr) bool {
	if why := subnet.WhyNotPublic(a); why != "" {
		return w.die(h, end{cause: NamePrivate, silent: true,
			says: fmt.Sprintf("%s leads to %s: it is %s, and nobody outside gets there", w.dev.endpoint, a, why)})
	}
	own := w.f.Upstream.Public
	if w.direct() {
		if w.routes.isLocal(a) {
			return w.pass(h)
		}
		own = w.outerAddress(a)
	}
	if own.IsValid() && own.Is4() == a.Is4() && own != a {
		return w.die(h, end{cause: NameElsewhere, silent: true,
			says: fmt.Sprintf("%s leads to %s, and home's public address is %s", w.dev.endpoint, a, own)})
	}
	return w.pass(h)
}

// somewhere is an address on the internet that no rule can mean.
func somewhere(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom4([4]byte{192, 0, 2, 1})
	}
	return netip.MustParseAddr("2001:db8:ffff::1")
}

func orUnknown(s string) string {
	if s == "" {
		return "(not known)"
	}
	return s
}
