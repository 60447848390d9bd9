package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
)

// tunnelRules: is WireGuard there, and is its interface what it should be.
var tunnelRules = []Rule{
	{ID: "wireguard", What: "WireGuard is installed", Symptom: "the tunnel never comes up: unknown protocol",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			if slices.Contains(p.snap().Handlers, "wireguard") {
				return ok()
			}
			o := bad("the home router has no WireGuard: no device can come home")
			if !p.snap().Has("wireguard-tools") {
				return o.causedBy("an upgrade takes packages away that are not in its image").
					do(Plan, applyCommand, "installs it again")
			}
			return o.causedBy("the package is there, but the network service does not know it yet").
				shell("/etc/init.d/network restart", "")
		}},
	{ID: "kernel-module", What: "the kernel has WireGuard", Symptom: "the tunnel never comes up",
		After: []ID{"wireguard"}, Needs: []string{"router", "module"}, judge: func(p *patient) outcome {
			if p.Module.Value {
				return ok()
			}
			o := bad("the router's kernel has no WireGuard: no device can come home").
				causedBy("the module kmod-wireguard is missing, or was made for another kernel")
			if p.snap().Board.Apk {
				return o.shell("apk add kmod-wireguard", "if it does not fit the kernel: heimweg upgrade")
			}
			return o.shell("opkg update; opkg install kmod-wireguard", "if it does not fit the kernel: heimweg upgrade")
		}},
	{ID: "port-taken", What: "no other tunnel has the port", Symptom: "the tunnel does not come up",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			other, taken := p.siteOf().Ports[p.home.Tunnel.Port]
			if !taken || other == p.home.Tunnel.Interface {
				return ok()
			}
			return bad("UDP port %d belongs to another tunnel of the router, %s", p.home.Tunnel.Port, other).
				do(ByHand, "write another port under [tunnel] in home.toml, then heimweg apply", "the ISP router's mapping has to follow")
		}},
	{ID: "tunnel-there", What: "the tunnel is in the router's settings", Symptom: "no device can come home",
		After: []ID{"config-readable", "wireguard"}, Needs: []string{"router"}, judge: func(p *patient) outcome {
			if _, there := p.tunnelSection(); there {
				return ok()
			}
			return bad("the home router has no tunnel %s: no device can come home", p.home.Tunnel.Interface).apply()
		}},
	{ID: "tunnel-up", What: "the tunnel is up", Symptom: "no device can come home",
		After: []ID{"tunnel-there", "port-taken"}, Needs: []string{"router"}, Uses: []string{"module"}, judge: func(p *patient) outcome {
			if p.Module.Known && !p.Module.Value {
				return notTested("first: the kernel has WireGuard")
			}
			return p.fromTunnel(trace.TunnelDown)
		}},
	{ID: "tunnel-port", What: "the tunnel listens on its port", Symptom: "no device can come home; a port scan shows nothing",
		After: []ID{"tunnel-up"}, Needs: []string{"router"}, judge: func(p *patient) outcome {
			return p.fromTunnel(trace.NobodyListens)
		}},
	{ID: "tunnel-key", What: "the running tunnel has the key of its file", Symptom: "nobody comes home after the next restart",
		After: []ID{"tunnel-up"}, Needs: []string{"router"}, judge: func(p *patient) outcome {
			sec, _ := p.tunnelSection()
			text, _ := sec.Get("private_key")
			if live := p.live(); live == nil || text == "" || live.Private == "" || router.Digest(text) == live.Private {
				return ok()
			}
			return risk("the running tunnel has another key than the router's file").
				causedBy("the file was changed and the tunnel was not told: after the next restart other devices fit than now").
				shell("ifup "+p.home.Tunnel.Interface, "makes the file's key live; devices that do not fit it need heimweg peer renew")
		}},
	{ID: "tunnel-address", What: "the router's address in the tunnel", Symptom: "handshake, and no answer from anything",
		After: []ID{"tunnel-up"}, Needs: []string{"router"}, judge: tunnelAddress},
}

func tunnelAddress(p *patient) outcome {
	want := p.home.Tunnel.Network
	fine := func(s *router.Snapshot) bool {
		i, there := s.Interface(p.home.Tunnel.Interface)
		return there && slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool {
			return want.Contains(a.Addr()) && a.Bits() == want.Prefix().Bits()
		})
	}
	if fine(p.snap()) {
		return ok()
	}
	i, _ := p.snap().Interface(p.home.Tunnel.Interface)
	o := bad("every device comes in and gets no answer: the router's address in the tunnel is wrong").
		saw("%s has %s, and should have one in %s with that mask", p.home.Tunnel.Interface, listed(i.Addresses), want)
	if slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return want.Contains(a.Addr()) && a.IsSingleIP() }) {
		o = o.causedBy("with a /32 the router knows no way to the devices, and its name service refuses them")
	}
	o, _ = p.byApply(o, fine)
	return o
}

func listed(list []netip.Prefix) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// fromTunnel finds the first device whose packet dies at the tunnel of one of these
// causes.
func (p *patient) fromTunnel(causes ...trace.Cause) outcome {
	if t, found := dead(p.follow(trace.Tunnel), causes...); found {
		return p.died(t)
	}
	return ok()
}

// devicesUp is what rules about keys rest on.
var devicesUp = []ID{"tunnel-up"}

// deviceRules: does the router know every device, and know them apart.
var deviceRules = []Rule{
	{ID: "some-device", What: "a device is allowed in", Symptom: "there is nobody who could come home",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			if len(p.Facts.Home.Peers) > 0 {
				return ok()
			}
			return explained("no device is allowed to come home yet").do(Command, "heimweg peer add phone", "and scan its code")
		}},
	{ID: "key-each", What: "every device has a key of its own", Symptom: "two devices throw each other out",
		After: devicesUp, Needs: []string{"router"}, judge: keyEach},
	{ID: "device-key", What: "key", Symptom: "a device calls, and no handshake comes about",
		After: append([]ID{"key-each"}, devicesUp...), Needs: []string{"router"}, judge: func(p *patient) outcome { return p.fromTunnel(trace.PeerKey) }},
	{ID: "device-known", What: "the router knows every device", Symptom: "a device calls, and no handshake comes about",
		After: append([]ID{"key-each"}, devicesUp...), Needs: []string{"router"}, judge: func(p *patient) outcome {
			if len(p.Facts.Home.Peers) == 0 {
				return moot()
			}
			return p.fromTunnel(trace.PeerMissing)
		}},
	{ID: "device-on", What: "no device is switched off on the router", Symptom: "a device calls, and no handshake comes about",
		After: devicesUp, Needs: []string{"router"}, judge: func(p *patient) outcome { return p.fromTunnel(trace.PeerOff) }},
	{ID: "device-live", What: "the running tunnel knows who is in the file", Symptom: "a new device does not come in before a restart",
		After: append([]ID{"key-each"}, devicesUp...), Needs: []string{"router"}, judge: func(p *patient) outcome { return p.fromTunnel(trace.PeerNotLive) }},
	{ID: "preshared", What: "preshared key", Symptom: "packets arrive, and no handshake comes about",
		After: append([]ID{"key-each", "device-live"}, devicesUp...), Needs: []string{"router"}, judge: preshared},
	{ID: "device-address", What: "every device has an address of its own", Symptom: "handshake, and no answer; or another device gets the answers",
		After: append([]ID{"key-each", "device-key", "device-known", "device-on", "device-live"}, devicesUp...), Needs: []string{"router"}, judge: deviceAddress},
	{ID: "still-in", What: "devices that are switched off stay outside", Symptom: "a lost device still gets in",
		After: devicesUp, Needs: []string{"router"}, judge: stillIn},
	{ID: "strangers", What: "everybody in the running tunnel is in the file", Symptom: "a device comes in until the next restart, and then no more",
		After: append([]ID{"device-key", "key-each", "device-known", "still-in"}, devicesUp...), Needs: []string{"router"}, judge: strangers},
	{ID: "shared-key", What: "no key is used by two devices", Symptom: "two devices throw each other out every few seconds",
		After: devicesUp, Needs: []string{"router", "samples"}, judge: func(p *patient) outcome { return p.fromTunnel(trace.SharedKey) }},
	{ID: "future-handshake", What: "no handshake from the future", Symptom: "a device with a wrong clock is ignored ever after",
		After: devicesUp, Needs: []string{"router"}, judge: futureHandshake},
	{ID: "keys-at-home", What: "no device's private key is on the router", Symptom: "who reads the router's settings can pose as a device",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			for _, s := range p.peerSections() {
				if v, has := s.Get("private_key"); has && v != "" {
					return risk("the private key of a device is kept on the router").saw("option private_key in network.%s", s.Name).
						shell(fmt.Sprintf("uci delete network.%s.private_key; uci commit network", s.Name), "only the device itself needs it")
				}
			}
			return ok()
		}},
}

// keyEach finds a key that stands in two sections: netifd gives the tunnel only the
// last one.
func keyEach(p *patient) outcome {
	seen := map[string]string{}
	for _, s := range p.peerSections() {
		k, _ := s.Get("public_key")
		if s.Bool("disabled", false) || k == "" {
			continue
		}
		if other, twice := seen[k]; twice {
			o := bad("two devices have one key on the router, and only one of them counts").
				saw("network.%s and network.%s", other, s.Name).causedBy("one key is one device")
			if o, cured := p.byApply(o, func(after *router.Snapshot) bool { return !doubled(after, p.home.Tunnel.Interface) }); cured {
				return o
			}
			return o.do(Command, "heimweg peer renew "+p.nameOfSection(s.Name), "gives it a key of its own")
		}
		seen[k] = s.Name
	}
	return ok()
}

func doubled(s *router.Snapshot, iface string) bool {
	seen := map[string]bool{}
	for _, sec := range s.Config("network").OfType("wireguard_" + iface) {
		k, _ := sec.Get("public_key")
		if seen[k] {
			return true
		}
		seen[k] = true
	}
	return false
}

func (p *patient) nameOfSection(section string) string {
	for _, d := range p.home.Peers {
		if d.Section() == section {
			return d.Name
		}
	}
	return section
}

// preshared compares what home.toml says, the file, and the running tunnel.
func preshared(p *patient) outcome {
	if o := p.fromTunnel(trace.Preshared); o.status == Bad {
		return o
	}
	for _, s := range p.peerSections() {
		k, _ := s.Get("public_key")
		public, err := key.ParsePublic(k)
		live, there := p.live().Peer(public)
		text, _ := s.Get("preshared_key")
		if err != nil || !there || s.Bool("disabled", false) || router.Digest(text) == live.Preshared {
			continue
		}
		name := p.nameOfSection(s.Name)
		return bad("%s cannot come home: the running tunnel has another preshared key for it than the router's file", name).
			saw("network.%s", s.Name).shell("ifup "+p.home.Tunnel.Interface, "if "+name+" then still cannot: heimweg peer renew "+name)
	}
	return ok()
}

func deviceAddress(p *patient) outcome {
	if o := p.fromTunnel(trace.NotItsSource); o.status == Bad {
		return o
	}
	if t, found := dead(p.follow(trace.Home), trace.NoPeerFor, trace.AnswerStolen); found && len(p.Facts.Home.Peers) > 0 {
		return p.died(t)
	}
	return ok()
}

// stillIn: what home.toml has switched off must not be live; 21.02 does not know
// the option (facts openwrt.md 5.2).
func stillIn(p *patient) outcome {
	live := func(s *router.Snapshot) (home.Peer, bool) {
		for _, d := range p.Facts.Home.Peers {
			if _, there := s.Tunnels[p.home.Tunnel.Interface].Peer(d.PublicKey); d.Disabled && there {
				return d, true
			}
		}
		return home.Peer{}, false
	}
	d, found := live(p.snap())
	if !found {
		return ok()
	}
	o, cured := p.byApply(risk("%s is switched off in home.toml, and can still come home", d.Name), func(s *router.Snapshot) bool { _, still := live(s); return !still })
	if !cured {
		o = o.shell("wg set "+p.home.Tunnel.Interface+" peer "+d.PublicKey.String()+" remove", "")
	}
	return o
}

// strangers finds live peers that are in no file.
func strangers(p *patient) outcome {
	filed := map[string]bool{}
	for _, s := range p.peerSections() {
		k, _ := s.Get("public_key")
		filed[k] = true
	}
	for _, l := range p.live().Peers {
		if !filed[l.PublicKey.String()] {
			o := risk("the running tunnel lets somebody in who is in no file").saw("key %s…", l.PublicKey.Short()).
				causedBy("it was added by hand, or taken out of the file without telling the tunnel")
			o, cured := p.byApply(o, func(after *router.Snapshot) bool {
				_, still := after.Tunnels[p.home.Tunnel.Interface].Peer(l.PublicKey)
				return !still
			})
			if cured {
				return o
			}
			return o.shell("ifup "+p.home.Tunnel.Interface, "makes the tunnel what the file says")
		}
	}
	return ok()
}

// halfHandshake: a device whose initiations the tunnel took and that never sent
// anything in the session: it did not get, or not take, the response. The preshared
// key enters only there (wireguard-linux-compat, receive.c).
func halfHandshake(p *patient) outcome {
	for _, d := range p.devices() {
		l, there := p.live().Peer(d.PublicKey)
		if !there || !l.Handshake.IsZero() || l.Received == 0 || !l.Endpoint.IsValid() {
			continue
		}
		return bad("%s calls home, and does not take the answer", d.Name).
			saw("%d bytes came from it, %d went back, and no handshake was completed", l.Received, l.Sent).
			causedBy("its preshared key is another one than the router's, or the answer gets lost on its way").
			do(Command, "heimweg peer renew "+d.Name, "gives it a new configuration; if that is no help, the ISP router loses the answers")
	}
	return ok()
}

func futureHandshake(p *patient) outcome {
	for _, l := range p.live().Peers {
		if ahead := l.Handshake.Sub(p.snap().Time); ahead > clockSlack {
			return bad("the router remembers a handshake from the future, and ignores that device until then").
				saw("%s ahead of the router's clock", span(ahead)).
				causedBy("WireGuard takes handshakes only with growing times; a clock went back").
				shell("ifup "+p.home.Tunnel.Interface, "forgets it")
		}
	}
	return ok()
}
