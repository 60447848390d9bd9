package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uci"
)

// A world is the healthy home, broken in one way.
type world struct {
	name          string
	rule          ID     // that has to come first
	reach, uplink string // "" for the usual home
	do            func(*testing.T, *Facts)
	// heal is what the first remedy makes of what is measured, or, when it is no
	// command that this test can run, what the person does.
	heal func(*testing.T, *Facts)
	kind Kind // of the first remedy
}

func (w world) facts(t *testing.T) Facts {
	reach, uplink := w.reach, w.uplink
	if reach == "" {
		reach = "home-lan = true"
	}
	if uplink == "" {
		uplink = behind
	}
	f := healthyHome(t, reach, uplink)
	w.do(t, &f)
	return f
}

// sh runs lines as a person would type them on the router.
func sh(lines string) func(*testing.T, *Facts) {
	return func(t *testing.T, f *Facts) { shell(t, f, lines) }
}

// shell plays the router's shell on plain data: uci and what makes it live.
func shell(t *testing.T, f *Facts, lines string) {
	t.Helper()
	s := f.snap()
	for l := range strings.SplitSeq(lines, ";") {
		w := strings.Fields(l)
		switch {
		case len(w) == 0:
		case w[0] == "uci" && len(w) > 2 && w[1] == "revert":
			s.Staged = nil
		case w[0] == "uci":
			uciLine(t, s, w[1:])
		case w[0] == "ifup" && w[1] == "wg0":
			up(t, f.Home, s)
			for i := range s.Tunnels["wg0"].Peers {
				p := &s.Tunnels["wg0"].Peers[i]
				p.Handshake, p.Received, p.Sent, p.Endpoint = time.Time{}, 0, 0, netip.AddrPort{}
			}
		case w[0] == "ifup":
			for i := range s.Interfaces {
				s.Interfaces[i].Up = s.Interfaces[i].Up || s.Interfaces[i].Name == w[1]
			}
		case w[0] == "rm":
			s.Overrides = nil
		case w[0] == "chmod" && strings.HasSuffix(l, "network"):
			s.Modes["network"] = "0" + w[1]
		case w[0] == "opkg" && w[1] == "remove":
			s.Installed = slices.DeleteFunc(s.Installed, func(p router.Package) bool { return p.Name == w[2] })
		case l == "/etc/init.d/network restart":
			s.Handlers = append(s.Handlers, "wireguard")
		}
	}
}

func uciLine(t *testing.T, s *router.Snapshot, w []string) {
	t.Helper()
	if w[0] == "commit" {
		return
	}
	path, value, set := strings.Cut(w[1], "=")
	part := strings.SplitN(path, ".", 3)
	doc := s.Configs[part[0]]
	if doc == nil {
		return // a service's own file, which is a fact of its own
	}
	name := part[1]
	if typ, n, ok := strings.Cut(strings.TrimPrefix(name, "@"), "["); ok {
		var i int
		fmt.Sscanf(n, "%d]", &i)
		name = doc.OfType(typ)[i].Name
	}
	var err error
	switch sec, _ := doc.Section(name); {
	case w[0] == "delete" && len(part) == 2:
		err = doc.Delete(name)
	case w[0] == "delete":
		err = doc.UnsetOption(name, part[2])
	case len(part) == 2 && set:
		err = doc.Put(uci.NewSection(value, name))
	case w[0] == "set":
		err = doc.SetOption(name, uci.Opt(part[2], value))
	case w[0] == "add_list":
		err = doc.SetOption(name, uci.List(part[2], append(sec.Values(part[2]), value)...))
	case w[0] == "del_list":
		err = doc.SetOption(name, uci.List(part[2], slices.DeleteFunc(sec.Values(part[2]), func(v string) bool { return v == value })...))
	default:
		t.Fatalf("uci %s?", w)
	}
	if err != nil {
		t.Fatalf("uci %s: %v", w, err)
	}
}

// rule adds a rule of somebody else before all others.
func rule(options ...string) func(*testing.T, *Facts) {
	return func(t *testing.T, f *Facts) {
		doc := f.snap().Configs["firewall"]
		sec := uci.NewSection("rule", "own")
		name := "own" + strings.ToLower(regexp.MustCompile("[^a-zA-Z0-9]").ReplaceAllString(strings.Join(options, ""), ""))
		for _, o := range options {
			k, v, _ := strings.Cut(o, "=")
			sec.Options = append(sec.Options, uci.Opt(k, v))
		}
		text := string(doc.Text())
		i := strings.Index(text, "config forwarding")
		var b strings.Builder
		fmt.Fprintf(&b, "config rule '%s'\n", name)
		for _, o := range sec.Options {
			v, _ := sec.Get(o.Name)
			fmt.Fprintf(&b, "\toption %s '%s'\n", o.Name, v)
		}
		f.Router.Value.Configs["firewall"] = parse(t, "firewall", text[:i]+b.String()+"\n"+text[i:])
	}
}

// live changes the running tunnel behind the file's back.
func live(change func(*router.Tunnel)) func(*testing.T, *Facts) {
	return func(_ *testing.T, f *Facts) { change(f.snap().Tunnels["wg0"]) }
}

func snap(change func(*router.Snapshot)) func(*testing.T, *Facts) {
	return func(_ *testing.T, f *Facts) { change(f.snap()) }
}

func upstream(change func(*trace.Upstream)) func(*testing.T, *Facts) {
	return func(_ *testing.T, f *Facts) {
		u := f.Upstream.Value
		u.Mappings = slices.Clone(u.Mappings)
		change(&u)
		f.Upstream = Known(u)
	}
}

func set[T any](field func(*Facts) *Fact[T], v T) func(*testing.T, *Facts) {
	return func(_ *testing.T, f *Facts) { *field(f) = Known(v) }
}

// does does several things.
func does(list ...func(*testing.T, *Facts)) func(*testing.T, *Facts) {
	return func(t *testing.T, f *Facts) {
		for _, d := range list {
			d(t, f)
		}
	}
}

// stuck is a router that nobody gets into: nothing else of it is known.
func stuck(at Stuck) func(*testing.T, *Facts) {
	return func(_ *testing.T, f *Facts) {
		all := *f
		*f = Facts{Home: all.Home, Networks: all.Networks, Clock: all.Clock, Endpoint: all.Endpoint, Login: Known(Login{Addr: "192.168.1.1", Stuck: at, Why: "it said so"})}
		for _, n := range FactNames() {
			if known, _ := f.state(n); !known {
				*f = f.Forget(n, "heimweg could not ask the home router")
			}
		}
	}
}

// well is the home as it should be.
func well(t *testing.T, f *Facts) { *f = healthy(t) }

func mapped(to string) func(*testing.T, *Facts) {
	return upstream(func(u *trace.Upstream) { u.Mappings[0].To = netip.MustParseAddrPort(to) })
}

func rpcd(text string) func(*testing.T, *Facts) {
	return func(t *testing.T, f *Facts) {
		f.Services = Known(map[string]*uci.Document{"rpcd": parse(t, "rpcd", text)})
	}
}

func dyn(source string) func(*testing.T, *Facts) {
	return func(t *testing.T, f *Facts) {
		f.Services = Known(map[string]*uci.Document{"ddns": parse(t, "ddns", "config service 'home'\n\toption enabled '1'\n\toption lookup_host '"+endpointName+"'\n\toption ip_source '"+source+"'\n")})
	}
}

func kick(_ *testing.T, f *Facts) {
	a, b := netip.MustParseAddrPort("198.51.100.2:4711"), netip.MustParseAddrPort("203.0.113.50:4000")
	var list []cryptokey.Sample
	for i, at := range []netip.AddrPort{a, b, a, b} {
		list = append(list, cryptokey.Sample{At: now.Add(time.Duration(i) * time.Second), Endpoint: at})
	}
	f.Samples = Known(Samples{testKey(2).Public(): list})
}

// worlds is the catalogue: at least one for every rule.
func worlds() []world {
	const fw = "; uci commit firewall"
	gone := func(ip netip.Addr) func(*testing.T, *Facts) {
		return set(func(f *Facts) *Fact[trace.Knock] { return &f.Knock }, trace.Knock{Target: ip, Near: trace.No})
	}
	return []world{
		// Getting in.
		{name: "this computer is elsewhere", rule: "cable", kind: ByHand, heal: well,
			do: does(stuck(Silent), set(func(f *Facts) *Fact[[]netip.Prefix] { return &f.Networks }, []netip.Prefix{pre("10.0.0.5/24")}))},
		{name: "this computer is nowhere", rule: "cable", kind: ByHand, heal: well,
			do: does(stuck(Silent), set(func(f *Facts) *Fact[[]netip.Prefix] { return &f.Networks }, []netip.Prefix{}))},
		{name: "no power", rule: "power", kind: ByHand, do: stuck(Silent), heal: well},
		{name: "no SSH", rule: "ssh", kind: ByHand, do: stuck(Refused), heal: well},
		{name: "SSH says nonsense", rule: "ssh", kind: ByHand, do: stuck(Straying), heal: well},
		{name: "reflashed", rule: "host-key", kind: Command, do: stuck(Strange), heal: well},
		{name: "nobody gets in", rule: "login", kind: Command, do: stuck(Denied), heal: well},
		{name: "another system", rule: "openwrt", kind: Command, do: stuck(Other), heal: well},
		{name: "the key is passed over", rule: "own-key", kind: OnRouter,
			do:   func(_ *testing.T, f *Facts) { f.Login.Value.Method = "password" },
			heal: func(_ *testing.T, f *Facts) { f.Login.Value.Method = "publickey" }},

		// The box.
		{name: "first boot", rule: "formatting", kind: ByHand, do: snap(func(s *router.Snapshot) { s.Space.Temporary = true }), heal: snap(func(s *router.Snapshot) { s.Space.Temporary = false })},
		{name: "flash full", rule: "room", kind: ByHand, do: snap(func(s *router.Snapshot) { s.Space.OverlayKB = 12 }), heal: snap(func(s *router.Snapshot) { s.Space.OverlayKB = 900 })},
		{name: "firewall file broken", rule: "config-readable", kind: ByHand,
			do: snap(func(s *router.Snapshot) {
				s.Broken = map[string]error{"firewall": errors.New("line 12: no closing quote")}
			}),
			heal: snap(func(s *router.Snapshot) { s.Broken = nil })},
		{name: "key readable by all", rule: "key-file", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Modes["network"] = "0644" })},
		{name: "staged changes", rule: "other-writer", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Staged = []string{"network"} })},
		{name: "LuCI applies", rule: "other-writer", kind: ByHand, do: snap(func(s *router.Snapshot) { s.LuciApply = true }), heal: snap(func(s *router.Snapshot) { s.LuciApply = false })},
		{name: "override file", rule: "override", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Overrides = []string{"firewall"} })},
		{name: "half a change", rule: "unfinished", kind: Plan, do: snap(func(s *router.Snapshot) { s.Pending = &router.Pending{ID: "abc"} }), heal: snap(func(s *router.Snapshot) { s.Pending = nil })},
		{name: "clock of 1970", rule: "clock", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Time = now.Add(-400 * 24 * time.Hour); s.Tunnels["wg0"].Peers = quiet(s) }), heal: snap(func(s *router.Snapshot) { s.Time = now })},
		{name: "clock ahead", rule: "clock", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Time = now.Add(time.Hour) }), heal: snap(func(s *router.Snapshot) { s.Time = now })},
		{name: "wg-installer-server", rule: "harmful-package", kind: OnRouter, do: snap(func(s *router.Snapshot) {
			s.Installed = append(s.Installed, router.Package{Name: "wg-installer-server"})
		})},
		{name: "its job is left", rule: "harmful-job", kind: OnRouter, do: set(func(f *Facts) *Fact[[]string] { return &f.Cron }, []string{"*/10 * * * * /usr/share/wginstaller/wg.sh cleanup_wginterfaces"}),
			heal: set(func(f *Facts) *Fact[[]string] { return &f.Cron }, nil)},
		{name: "its login is left", rule: "harmful-login", kind: OnRouter, do: rpcd("config login 'wginstaller'\n\toption username 'wginstaller'\n\toption password 'wginstaller'\n"), heal: rpcd("")},
		{name: "OpenWrt 22.03", rule: "release", kind: Command, do: snap(func(s *router.Snapshot) {
			s.Board.Release.Version, s.Board.Release.Line = "22.03.5", router.Line2203
		}), heal: snap(func(s *router.Snapshot) { s.Board.Release.Version, s.Board.Release.Line = "24.10.7", router.Line2410 })},
		{name: "flash errors", rule: "flash-errors", kind: Command, do: set(func(f *Facts) *Fact[[]string] { return &f.Log }, []string{"kern.err kernel: jffs2: error: (412) jffs2_do_read_inode_internal"}),
			heal: set(func(f *Facts) *Fact[[]string] { return &f.Log }, nil)},

		// The uplink.
		{name: "home LAN is the uplink LAN", rule: "network-clash", kind: ByHand, do: snap(func(s *router.Snapshot) {
			s.Interfaces[2].Addresses = []netip.Prefix{pre("192.168.1.253/24")}
		}), heal: well},
		{name: "WAN unplugged", rule: "wan", kind: ByHand, do: snap(func(s *router.Snapshot) {
			s.Interfaces[2].Up, s.Interfaces[2].Addresses, s.Interfaces[2].Gateways = false, nil, nil
			s.Routes = s.Routes[1:]
		}), heal: well},
		{name: "no default route", rule: "default-route", kind: ByHand, do: snap(func(s *router.Snapshot) { s.Routes = s.Routes[1:]; s.Interfaces[2].Gateways = nil }), heal: well},
		{name: "ISP router silent", rule: "gateway", kind: ByHand, do: set(func(f *Facts) *Fact[bool] { return &f.Gateway }, false), heal: set(func(f *Facts) *Fact[bool] { return &f.Gateway }, true)},
		{name: "no names on the router", rule: "router-names", kind: OnRouter, do: set(func(f *Facts) *Fact[bool] { return &f.Resolves }, false), heal: set(func(f *Facts) *Fact[bool] { return &f.Resolves }, true)},

		// The tunnel.
		{name: "packages lost by an upgrade", rule: "wireguard", kind: Plan, do: snap(func(s *router.Snapshot) {
			s.Handlers, s.Installed = []string{"static", "dhcp"}, nil
			down(s)
		})},
		{name: "protocol not loaded yet", rule: "wireguard", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Handlers = []string{"static", "dhcp"}; down(s) }), heal: func(t *testing.T, f *Facts) { up(t, f.Home, f.snap()); well(t, f) }},
		{name: "kernel module missing", rule: "kernel-module", kind: OnRouter, do: does(set(func(f *Facts) *Fact[bool] { return &f.Module }, false), snap(down)), heal: well},
		{name: "another tunnel has the port", rule: "port-taken", kind: ByHand, do: sh("uci set network.office=interface; uci set network.office.proto=wireguard; uci set network.office.listen_port=51820"), heal: well},
		{name: "the tunnel was deleted", rule: "tunnel-there", kind: Plan, do: does(sh("uci delete network.wg0"), snap(down)), heal: func(t *testing.T, f *Facts) { up(t, f.Home, f.snap()) }},
		{name: "the tunnel is down", rule: "tunnel-up", kind: Plan, do: snap(down)},
		{name: "the tunnel listens elsewhere", rule: "tunnel-port", kind: Plan, do: does(sh("uci set network.wg0.listen_port=51821"), live(func(t *router.Tunnel) { t.ListenPort = 51821 }))},
		{name: "file and tunnel have two keys", rule: "tunnel-key", kind: OnRouter, do: live(func(t *router.Tunnel) { t.Private = router.Digest(testKey(9).Reveal()) })},
		{name: "a /32", rule: "tunnel-address", kind: Plan, do: does(sh("uci delete network.wg0.addresses; uci add_list network.wg0.addresses=10.86.20.1/32"), snap(func(s *router.Snapshot) {
			for i := range s.Interfaces {
				if s.Interfaces[i].Name == "wg0" {
					s.Interfaces[i].Addresses = []netip.Prefix{pre("10.86.20.1/32")}
				}
			}
			s.Routes = slices.DeleteFunc(s.Routes, func(r router.Route) bool { return r.Device == "wg0" })
		}))},

		// Devices.
		{name: "two sections with one key", rule: "key-each", kind: Plan, do: does(sh("uci set network.hw_peer_tablet.public_key="+testKey(2).Public().String()), func(t *testing.T, f *Facts) { up(t, f.Home, f.snap()) })},
		{name: "another key on the router", rule: "device-key", kind: Plan, do: does(sh("uci set network.hw_peer_phone.public_key="+testKey(8).Public().String()), func(t *testing.T, f *Facts) { up(t, f.Home, f.snap()) })},
		{name: "deleted on the router", rule: "device-known", kind: Plan, do: does(sh("uci delete network.hw_peer_phone"), func(t *testing.T, f *Facts) { up(t, f.Home, f.snap()) })},
		{name: "switched off on the router", rule: "device-on", kind: Plan, do: does(sh("uci set network.hw_peer_phone.disabled=1"), func(t *testing.T, f *Facts) { up(t, f.Home, f.snap()) })},
		{name: "in the file, not live", rule: "device-live", kind: Plan, do: live(func(t *router.Tunnel) { t.Peers = t.Peers[1:] })},
		{name: "PSK in the tunnel only", rule: "preshared", kind: Plan, do: live(func(t *router.Tunnel) { t.Peers[0].Preshared = router.Digest("x") })},
		{name: "PSK in the file, not live", rule: "preshared", kind: Plan, do: func(t *testing.T, f *Facts) {
			for i := range f.Home.Peers {
				f.Home.Peers[i].Preshared = true
			}
			psk, _ := key.NewPreshared(strings.NewReader(strings.Repeat("p", 64)))
			shell(t, f, "uci set network.hw_peer_phone.preshared_key="+psk.Reveal()+"; uci set network.hw_peer_tablet.preshared_key="+psk.Reveal())
			up(t, f.Home, f.snap())
			f.snap().Tunnels["wg0"].Peers[0].Preshared = ""
		}},
		{name: "PSK renewed in the file only", rule: "preshared", kind: OnRouter, do: func(t *testing.T, f *Facts) {
			for i := range f.Home.Peers {
				f.Home.Peers[i].Preshared = true
			}
			psk, _ := key.NewPreshared(strings.NewReader(strings.Repeat("p", 64)))
			shell(t, f, "uci set network.hw_peer_phone.preshared_key="+psk.Reveal()+"; uci set network.hw_peer_tablet.preshared_key="+psk.Reveal())
			up(t, f.Home, f.snap())
			f.Router = Known(settle(t, f.Home, f.snap()))
			f.snap().Tunnels["wg0"].Peers[1].Preshared = router.Digest("an older one")
		}},
		{name: "the tablet took the phone's address", rule: "device-address", kind: Plan, do: does(sh("uci add_list network.hw_peer_tablet.allowed_ips=10.86.20.2/32"), live(func(t *router.Tunnel) {
			t.Peers[1].AllowedIPs = append(t.Peers[1].AllowedIPs, t.Peers[0].AllowedIPs...)
			t.Peers[0].AllowedIPs = nil
		}))},
		{name: "a lost phone still comes in", rule: "still-in", kind: Plan, do: func(_ *testing.T, f *Facts) {
			f.Home.Peers = slices.Clone(f.Home.Peers)
			f.Home.Peers[0].Disabled = true
		}},
		{name: "a stranger in the running tunnel", rule: "strangers", kind: Plan, do: live(func(t *router.Tunnel) {
			t.Peers = append(t.Peers, router.Peer{PublicKey: testKey(7).Public(), AllowedIPs: []netip.Prefix{pre("10.86.20.66/32")}})
		})},
		{name: "two phones with one key", rule: "shared-key", kind: Command, do: kick, heal: set(func(f *Facts) *Fact[Samples] { return &f.Samples }, Samples{})},
		{name: "knocks, and takes no answer", rule: "half-handshake", kind: Command, do: live(func(t *router.Tunnel) {
			t.Peers[0].Handshake, t.Peers[0].Received, t.Peers[0].Sent = time.Time{}, 148*3, 92*3
		}), heal: live(func(t *router.Tunnel) { t.Peers[0].Handshake = now })},
		{name: "a handshake from tomorrow", rule: "future-handshake", kind: OnRouter, do: live(func(t *router.Tunnel) { t.Peers[0].Handshake = now.Add(30 * time.Hour) }),
			heal: live(func(t *router.Tunnel) { t.Peers[0].Received = 0 })},
		{name: "a device's key on the router", rule: "keys-at-home", kind: OnRouter, do: sh("uci set network.old=wireguard_wg0; uci set network.old.private_key=" + testKey(5).Reveal() + "; uci set network.old.disabled=1"),
			heal: sh("uci delete network.old")},
		{name: "nobody is allowed in", rule: "some-device", kind: Command, do: func(t *testing.T, f *Facts) {
			f.Home.Peers = nil
			f.Router = Known(settle(t, f.Home, f.snap()))
		}, heal: well},

		// The firewall.
		{name: "firewall file refused", rule: "firewall-loads", kind: ByHand, do: sh("uci set firewall.twin=zone; uci set firewall.twin.name=lan; uci set firewall.twin.input=ACCEPT"), heal: well},
		{name: "a rule with a port that is none", rule: "firewall-skips", kind: OnRouter, do: rule("src=wan", "proto=tcp", "dest_port=99999", "target=DROP")},
		{name: "the firewall complains", rule: "firewall-skips", kind: ByHand, do: set(func(f *Facts) *Fact[[]string] { return &f.Warnings }, []string{"[!] Section @rule[9] option 'x' is not supported by fw4"}),
			heal: set(func(f *Facts) *Fact[[]string] { return &f.Warnings }, nil)},
		{name: "no rule on the WAN side", rule: "door", kind: Plan, do: sh("uci delete firewall.hw_wg_in" + fw)},
		{name: "rule switched off", rule: "door", kind: Plan, do: sh("uci set firewall.hw_wg_in.enabled=0" + fw)},
		{name: "rule for TCP", rule: "door", kind: Plan, do: sh("uci set firewall.hw_wg_in.proto=tcp" + fw)},
		{name: "rule for IPv6 only", rule: "door", kind: Plan, do: sh("uci set firewall.hw_wg_in.family=ipv6" + fw)},
		{name: "rule for the wrong side", rule: "door", kind: Plan, do: sh("uci set firewall.hw_wg_in.src=lan" + fw)},
		{name: "own rule drops the port", rule: "door", kind: OnRouter, do: rule("src=wan", "proto=udp", "dest_port=51820", "target=DROP")},
		{name: "a port forward takes it", rule: "door-forwarded", kind: OnRouter, do: sh("uci set firewall.pf=redirect; uci set firewall.pf.src=wan; uci set firewall.pf.dest=lan; uci set firewall.pf.proto=udp; uci set firewall.pf.src_dport=51820; uci set firewall.pf.dest_ip=192.168.1.10; uci set firewall.pf.target=DNAT")},
		{name: "an old configuration calls", rule: "unknown-key", kind: Command, do: set(func(f *Facts) *Fact[Arrivals] { return &f.Arrivals }, Arrivals{Packets: 2}),
			heal: set(func(f *Facts) *Fact[Arrivals] { return &f.Arrivals }, Arrivals{Packets: 2, Bytes: 148})},
		{name: "default route into the tunnel", rule: "way-out", kind: Plan, do: does(sh("uci set network.hw_peer_phone.route_allowed_ips=1"), snap(func(s *router.Snapshot) {
			s.Routes[0] = router.Route{Dst: pre("0.0.0.0/0"), Device: "wg0"}
		}))},
		{name: "tunnel in no zone", rule: "zone", kind: Plan, do: sh("uci delete firewall.hw_zone.network" + fw)},
		{name: "tunnel in zone wan", rule: "zone", kind: OnRouter, do: sh("uci delete firewall.hw_zone.network; uci add_list firewall.@zone[1].network=wg0" + fw),
			heal: func(t *testing.T, f *Facts) { f.Router = Known(settle(t, f.Home, f.snap())) }},
		{name: "own rule refuses the NAS", rule: "own-rule", kind: OnRouter, do: rule("src=vpn", "dest=lan", "proto=tcp", "dest_port=445", "target=REJECT")},
		{name: "no forwarding", rule: "forwarding", kind: Plan, do: sh("uci delete firewall.hw_fwd_lan" + fw)},
		{name: "forwarding misspelt", rule: "forwarding", kind: Plan, do: sh("uci set firewall.hw_fwd_lan.dest=wan" + fw)},
		{name: "full tunnel, no way to wan", rule: "full-tunnel", reach: "home-lan = true\ninternet = true", kind: Plan, do: sh("uci delete firewall.hw_fwd_wan" + fw)},
		{name: "full tunnel, no masquerading", rule: "masquerade", reach: "home-lan = true\ninternet = true", kind: OnRouter, do: sh("uci set firewall.@zone[1].masq=0" + fw)},
		{name: "SSH for the admin is shut", rule: "admin", kind: Plan, do: func(t *testing.T, f *Facts) {
			f.Home.Peers = slices.Clone(f.Home.Peers)
			f.Home.Peers[0].Admin = true
		}},
		{name: "SSH open to the world", rule: "exposed", kind: OnRouter, do: rule("src=wan", "proto=tcp", "dest_port=22", "target=ACCEPT")},
		{name: "zone wan takes everything", rule: "exposed", kind: OnRouter, do: sh("uci set firewall.@zone[1].input=ACCEPT" + fw)},
		{name: "no password", rule: "password", kind: Plan, do: snap(func(s *router.Snapshot) { s.RootHash = false }), heal: snap(func(s *router.Snapshot) { s.RootHash = true })},

		// The ISP router.
		{name: "no mapping", rule: "mapping", kind: ByHand, do: upstream(func(u *trace.Upstream) { u.Mappings = nil }), heal: well},
		{name: "the ISP router restarted", rule: "mapping", kind: Command, do: upstream(func(u *trace.Upstream) {
			u.Mappings, u.Partial, u.Opened = nil, true, now.Add(-time.Hour)
		}), heal: well},
		{name: "mapped for TCP", rule: "mapping", kind: ByHand, do: upstream(func(u *trace.Upstream) { u.Mappings[0].Proto = "tcp" }), heal: well},
		{name: "DHCP gave another address", rule: "mapping-target", kind: ByHand, do: mapped("192.168.2.17:51820"), heal: well},
		{name: "mapped to another port", rule: "mapping-port", kind: ByHand, do: mapped("192.168.2.253:51821"), heal: well},
		{name: "carrier NAT", rule: "isp-address", kind: ByHand, do: upstream(func(u *trace.Upstream) { u.Public = ip("100.64.3.4") }), heal: well},
		{name: "another router before it", rule: "isp-address", kind: ByHand, do: upstream(func(u *trace.Upstream) { u.Public = ip("192.168.178.20") }), heal: well},
		{name: "DS-Lite", rule: "address", kind: ByHand, do: set(func(f *Facts) *Fact[Address] { return &f.Address }, Address{Kind: DSLite, Says: "IPv4 is carried through IPv6"}), heal: well},
		{name: "double NAT", rule: "address", kind: ByHand, do: set(func(f *Facts) *Fact[Address] { return &f.Address }, Address{Kind: DoubleNAT, Says: "two routers translate"}), heal: well},
		{name: "IPv6 only", rule: "address", kind: ByHand, do: set(func(f *Facts) *Fact[Address] { return &f.Address }, Address{Kind: OnlySix, Says: "no IPv4"}), heal: well},
		{name: "changing", rule: "address", kind: Command, do: set(func(f *Facts) *Fact[Address] { return &f.Address }, Address{Kind: Changing, Says: "a new one every night", Do: []trace.Remedy{{Do: "heimweg plan"}}}), heal: well},

		// The endpoint.
		{name: "no endpoint", rule: "endpoint", kind: ByHand, do: func(_ *testing.T, f *Facts) { f.Home.Tunnel.Endpoint = "" }, heal: well},
		{name: "the name has no address", rule: "endpoint-name", kind: ByHand, do: set(func(f *Facts) *Fact[[]netip.Addr] { return &f.Endpoint }, nil), heal: well},
		{name: "the name leads to a private address", rule: "endpoint-private", kind: ByHand, do: set(func(f *Facts) *Fact[[]netip.Addr] { return &f.Endpoint }, []netip.Addr{ip("192.168.2.253")}), heal: well},
		{name: "the name leads to yesterday's address", rule: "endpoint-stale", kind: ByHand, do: set(func(f *Facts) *Fact[[]netip.Addr] { return &f.Endpoint }, []netip.Addr{ip("203.0.113.99")}), heal: well},
		{name: "an AAAA of another box", rule: "endpoint-family", kind: ByHand, do: set(func(f *Facts) *Fact[[]netip.Addr] { return &f.Endpoint }, []netip.Addr{ip(publicAddr), ip("2a02:db8::7")}), heal: well},
		{name: "DDNS tells the private address", rule: "ddns", kind: OnRouter, do: dyn("network"), heal: dyn("web")},

		// The home LAN.
		{name: "LAN down", rule: "lan-up", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Interfaces[1].Up = false })},
		{name: "LAN with a /32", rule: "lan-mask", kind: OnRouter, do: snap(func(s *router.Snapshot) { s.Interfaces[1].Addresses = []netip.Prefix{pre("192.168.1.1/32")} }), heal: well},
		{name: "LAN elsewhere than home.toml says", rule: "lan-network", kind: ByHand, do: does(sh("uci delete network.lan.ipaddr; uci add_list network.lan.ipaddr=192.168.7.1/24"), snap(func(s *router.Snapshot) {
			s.Interfaces[1].Addresses = []netip.Prefix{pre("192.168.7.1/24")}
			s.Routes[1].Dst = pre("192.168.7.0/24")
		})), heal: well},
		{name: "NAS off", rule: "lan-answers", kind: ByHand, do: gone(ip("192.168.1.10")), heal: well},
		{name: "NAS with another gateway", rule: "way-back", reach: "home-lan = true\nnat-to-lan = false", kind: ByHand,
			do: set(func(f *Facts) *Fact[trace.Knock] { return &f.Knock }, trace.Knock{Target: ip("192.168.1.10"), Near: trace.Yes, Far: trace.No, There: true}), heal: well},

		// Inside.
		{name: "our own device gets no answer", rule: "handshake", kind: OnRouter, do: set(func(f *Facts) *Fact[Handshake] { return &f.Handshake }, Handshake{Answer: "nothing"}), heal: well},
		{name: "its answer goes astray", rule: "handshake", kind: ByHand, do: set(func(f *Facts) *Fact[Handshake] { return &f.Handshake }, Handshake{Arrived: true}), heal: well},
		{name: "no ping inside", rule: "router-inside", kind: Plan, do: set(func(f *Facts) *Fact[bool] { return &f.Inside }, false), heal: well},
		{name: "port 53 refused", rule: "dns-port", kind: Plan, do: sh("uci delete firewall.hw_dns" + fw)},
		{name: "dnsmasq limited", rule: "dns-interface", kind: OnRouter, do: sh("uci add_list dhcp.@dnsmasq[0].notinterface=wg0")},
		{name: "dnsmasq silent", rule: "dns-answers", kind: OnRouter, do: set(func(f *Facts) *Fact[NameService] { return &f.Names }, NameService{Asked: true}), heal: well},
		{name: "dnsmasq refuses", rule: "dns-answers", kind: OnRouter, do: set(func(f *Facts) *Fact[NameService] { return &f.Names }, NameService{Asked: true, Refused: true}), heal: well},
		{name: "rebind protection", rule: "dns-rebind", kind: OnRouter, do: set(func(f *Facts) *Fact[[]string] { return &f.Log }, []string{"daemon.warn dnsmasq[1]: possible DNS-rebind attack detected: nas.family.example.org"}),
			heal: set(func(f *Facts) *Fact[[]string] { return &f.Log }, nil)},
		{name: "nobody in the LAN answers from inside", rule: "lan-reached", kind: ByHand, do: set(func(f *Facts) *Fact[Reached] { return &f.Reached }, Reached{Asked: 3}), heal: well},
		{name: "path of 1400", rule: "mtu", kind: Setting, do: set(func(f *Facts) *Fact[int] { return &f.PathMTU }, 1400)},
		{name: "path of 1280", rule: "mtu", kind: Setting, do: set(func(f *Facts) *Fact[int] { return &f.PathMTU }, 1280)},
		{name: "nothing big passes", rule: "mtu", kind: ByHand, do: set(func(f *Facts) *Fact[int] { return &f.PathMTU }, 0), heal: well},
		{name: "a line of 1400", rule: "wan-mtu", kind: Setting, do: set(func(f *Facts) *Fact[map[string]int] { return &f.Widths }, map[string]int{"wan": 1400})},
		{name: "no mtu_fix", rule: "mtu-fix", reach: "home-lan = true\ninternet = true", kind: OnRouter, do: sh("uci set firewall.@zone[1].mtu_fix=0" + fw)},
		{name: "no hairpin", rule: "hairpin", kind: ByHand, do: set(func(f *Facts) *Fact[bool] { return &f.Hairpin }, false), heal: well},

		// What is left.
		{name: "a foreign peer claims an address", rule: "plan-blocked", kind: ByHand, do: sh("uci set network.other=wireguard_wg0; uci set network.other.public_key=" + testKey(6).Public().String() + "; uci set network.other.disabled=1; uci add_list network.other.allowed_ips=10.86.20.3/32"), heal: well},
		{name: "ping to the router was forbidden", rule: "drift", kind: Plan, do: sh("uci delete firewall.hw_ping" + fw)},
	}
}

// down is the tunnel's interface without the tunnel.
func down(s *router.Snapshot) {
	delete(s.Tunnels, "wg0")
	for i := range s.Interfaces {
		if s.Interfaces[i].Name == "wg0" {
			s.Interfaces[i].Up, s.Interfaces[i].Addresses = false, nil
		}
	}
	s.Routes = slices.DeleteFunc(s.Routes, func(r router.Route) bool { return r.Device == "wg0" })
}

// quiet are the tunnel's peers, never heard.
func quiet(s *router.Snapshot) []router.Peer {
	out := slices.Clone(s.Tunnels["wg0"].Peers)
	for i := range out {
		out[i].Handshake, out[i].Received, out[i].Endpoint = time.Time{}, 0, netip.AddrPort{}
	}
	return out
}

// carryOut does what a remedy says, as far as plain data can.
func carryOut(t *testing.T, f *Facts, r Remedy) {
	t.Helper()
	switch r.Kind {
	case Plan:
		f.snap().Pending = nil // apply begins with that
		f.Router = Known(settle(t, f.Home, f.snap()))
	case Setting:
		f.Home.Tunnel.MTU = r.MTU
		f.Router = Known(settle(t, f.Home, f.snap()))
	case OnRouter:
		shell(t, f, strings.TrimPrefix(r.Do, onRouter))
	}
}

// Each broken world has its first finding, and the remedy heals it.
func TestWorlds(t *testing.T) {
	list := worlds()
	covered := map[ID]bool{}
	for _, w := range list {
		covered[w.rule] = true
		t.Run(w.name, func(t *testing.T) {
			f := w.facts(t)
			r := Judge(f).Full()
			all := append(slices.Clone(r.Findings), r.Explained...)
			if len(all) == 0 || all[0].Rule != w.rule {
				t.Fatalf("first is not %s: %+v\nnot tested: %+v", w.rule, all, r.NotTested)
			}
			first := all[0]
			if len(all) > 1 {
				t.Errorf("more than one finding: %+v", all[1:])
			}
			if len(first.Remedies) == 0 || first.Remedies[0].Kind != w.kind {
				t.Fatalf("remedies: %+v", first.Remedies)
			}
			carryOut(t, &f, first.Remedies[0])
			if w.heal != nil {
				w.heal(t, &f)
			}
			if r := Judge(f); r.Verdict != OK || len(r.Explained) > 0 {
				t.Errorf("after %q: %+v %+v\nnot tested: %+v", first.Remedies[0].Do, r.Findings, r.Explained, r.NotTested)
			}
		})
	}
	for _, r := range Rules() {
		if !covered[r.ID] {
			t.Errorf("no world is broken for rule %s", r.ID)
		}
	}
	t.Logf("%d worlds, %d rules", len(list), len(Rules()))
}
