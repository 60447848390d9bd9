package doctor

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uci"
)

func testKey(n byte) key.Private {
	k, _ := key.NewPrivate(bytes.NewReader(bytes.Repeat([]byte{n}, key.Size)))
	return k
}

const (
	endpointName = "home.example.net"
	publicAddr   = "203.0.113.7"
)

func parseHome(t testing.TB, text string) home.Home {
	t.Helper()
	f, err := home.Parse("home.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f.Home
}

func homeText(reach, uplink string) string {
	return `[router]
address = "192.168.1.1"
input = "reject"
[uplink]
` + uplink + `
[[lan]]
interface = "lan"
network = "192.168.1.0/24"
[tunnel]
network = "10.86.20.0/24"
endpoint = "` + endpointName + `"
[reach]
` + reach + `
[[peer]]
name = "phone"
public-key = "` + testKey(2).Public().String() + `"
address = "10.86.20.2"
preshared = false
[[peer]]
name = "tablet"
public-key = "` + testKey(3).Public().String() + `"
address = "10.86.20.3"
preshared = false
`
}

const behind = "kind = \"behind-isp-router\"\nnetwork = \"192.168.2.0/24\""

const networkFile = `config interface 'loopback'
	option device 'lo'
	option proto 'static'
	list ipaddr '127.0.0.1/8'

config interface 'lan'
	option device 'br-lan'
	option proto 'static'
	list ipaddr '192.168.1.1/24'

config interface 'wan'
	option device 'wan'
	option proto 'dhcp'
`

const firewallFile = `config defaults
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option masq '1'
	option mtu_fix '1'

config forwarding
	option src 'lan'
	option dest 'wan'
`

func parse(t testing.TB, name, text string) *uci.Document {
	t.Helper()
	d, err := uci.Parse(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var (
	pre = netip.MustParsePrefix
	ip  = netip.MustParseAddr
	now = time.Unix(1_790_000_000, 0)
)

// fresh is a router behind an ISP router, before heimweg.
func fresh(t testing.TB) *router.Snapshot {
	return &router.Snapshot{
		Board: router.Board{Release: router.Release{Distribution: "OpenWrt", Version: "24.10.7", Line: router.Line2410}, Fw4: true, Hostname: "OpenWrt", Name: "avm,fritzbox-4040"},
		Time:  now,
		Configs: map[string]*uci.Document{
			"network": parse(t, "network", networkFile), "firewall": parse(t, "firewall", firewallFile),
			"dhcp": parse(t, "dhcp", "config dnsmasq\n\toption localservice '1'\n\nconfig dhcp 'lan'\n\toption interface 'lan'\n\toption start '100'\n\toption limit '150'\n"),
		},
		Modes: map[string]string{"network": "0600"},
		Interfaces: []router.Interface{
			{Name: "loopback", Device: "lo", Up: true, Addresses: []netip.Prefix{pre("127.0.0.1/8")}},
			{Name: "lan", Device: "br-lan", Proto: "static", Up: true, Addresses: []netip.Prefix{pre("192.168.1.1/24")}},
			{Name: "wan", Device: "wan", Proto: "dhcp", Up: true, Addresses: []netip.Prefix{pre("192.168.2.253/24")}, Gateways: []netip.Addr{ip("192.168.2.254")}},
		},
		Neighbours: []router.Neighbour{{Addr: ip("192.168.1.10"), Device: "br-lan"}},
		Routes: []router.Route{{Dst: pre("0.0.0.0/0"), Via: ip("192.168.2.254"), Device: "wan"},
			{Dst: pre("192.168.1.0/24"), Device: "br-lan"}, {Dst: pre("192.168.2.0/24"), Device: "wan"}},
		Handlers:  []string{"wireguard", "static", "dhcp"},
		Space:     router.Space{OverlayKB: 8000},
		RootHash:  true,
		Keys:      []string{"ssh-ed25519 AAAAheimweg heimweg"},
		Installed: []router.Package{{Name: "wireguard-tools"}, {Name: "kmod-wireguard"}},
	}
}

// settle carries heimweg apply out on plain data.
func settle(t testing.TB, h home.Home, s *router.Snapshot) *router.Snapshot {
	t.Helper()
	p, _ := plan.For(h, s, blueprint.Access{})
	if len(p.Blocked) > 0 {
		t.Fatalf("the plan is blocked: %s", p.Blocked[0].What)
	}
	after := trace.Applied(h, s)
	c := after.Snapshot
	if c == nil {
		return s
	}
	c.Written = p.Written(c.Configs, s.Written)
	c.RootHash = true
	for _, name := range p.Packages() {
		c.Installed = append(slices.Clone(c.Installed), router.Package{Name: name})
	}
	if !slices.Contains(c.Handlers, "wireguard") {
		c.Handlers = append(slices.Clone(c.Handlers), "wireguard")
	}
	c.Pending, c.Firewall = nil, nil
	up(t, h, c)
	return c
}

// up makes the running tunnel what the file says, as ifup does.
func up(t testing.TB, h home.Home, s *router.Snapshot) {
	t.Helper()
	doc := s.Config("network")
	wg, there := doc.Section("wg0")
	if !there {
		return
	}
	text, _ := wg.Get("private_key")
	private, err := key.ParsePrivate(text)
	if err != nil {
		t.Fatal(err)
	}
	old := s.Tunnels["wg0"]
	live := &router.Tunnel{Interface: "wg0", PublicKey: private.Public(), Private: router.Digest(text), ListenPort: h.Tunnel.Port}
	for _, sec := range doc.OfType("wireguard_wg0") {
		k, _ := sec.Get("public_key")
		public, err := key.ParsePublic(k)
		if err != nil || sec.Bool("disabled", false) {
			continue
		}
		p, _ := old.Peer(public)
		psk, _ := sec.Get("preshared_key")
		p.PublicKey, p.Preshared, p.AllowedIPs = public, router.Digest(psk), nil
		for _, a := range sec.Values("allowed_ips") {
			p.AllowedIPs = append(p.AllowedIPs, pre(a))
		}
		live.Peers = slices.DeleteFunc(live.Peers, func(x router.Peer) bool { return x.PublicKey == public })
		live.Peers = append(live.Peers, p)
	}
	s.Tunnels["wg0"] = live
}

// healthy is everything that can be known of a home where all is well.
func healthy(t testing.TB) Facts { return healthyHome(t, "home-lan = true", behind) }

func healthyHome(t testing.TB, reach, uplink string) Facts {
	t.Helper()
	h := parseHome(t, homeText(reach, uplink))
	s := settle(t, h, fresh(t))
	for i := range s.Tunnels["wg0"].Peers { // they were at home today
		p := &s.Tunnels["wg0"].Peers[i]
		p.Handshake, p.Received, p.Sent, p.Endpoint = now.Add(-time.Hour), 4000, 5000, netip.MustParseAddrPort("198.51.100.2:4711")
	}
	return Facts{
		Home:     h,
		Networks: Known([]netip.Prefix{pre("192.168.1.77/24")}),
		Login:    Known(Login{Addr: "192.168.1.1", Method: "publickey", OwnKey: "ssh-ed25519 AAAAheimweg heimweg"}),
		Clock:    Known(now.Add(3 * time.Second)),
		Endpoint: Known([]netip.Addr{ip(publicAddr)}),
		Router:   Known(s), Warnings: Known([]string(nil)), Arrivals: Known(Arrivals{Took: time.Second}), Module: Known(true), Gateway: Known(true), Resolves: Known(true),
		Log: Known([]string(nil)), Cron: Known([]string(nil)), Services: Known(map[string]*uci.Document{}),
		Widths:    Known(map[string]int{"wan": 1500, "br-lan": 1500, "wg0": 1420}),
		Knock:     Known(trace.Knock{Target: ip("192.168.1.10"), Near: trace.Yes, Far: trace.Yes, There: true}),
		Samples:   Known(Samples{}),
		Handshake: Known(Handshake{Done: true}), Inside: Known(true), Names: Known(NameService{Asked: true, Answered: true}),
		Reached: Known(Reached{Asked: 1, Any: true}), PathMTU: Known(1420), Hairpin: Known(true),
		Upstream: Known(trace.Upstream{Asked: true, How: "UPnP", At: now, Public: ip(publicAddr),
			Mappings: []trace.Mapping{{Proto: "udp", External: 51820, To: netip.MustParseAddrPort("192.168.2.253:51820")}}}),
		Address: Known(Address{Kind: Public}),
	}
}

// snap gives a copy of the router to break: documents and lists are its own.
func (f *Facts) snap() *router.Snapshot {
	c := *f.Router.Value
	c.Configs = map[string]*uci.Document{}
	for n, d := range f.Router.Value.Configs {
		c.Configs[n] = d.Clone()
	}
	c.Interfaces, c.Routes, c.Installed, c.Handlers = slices.Clone(c.Interfaces), slices.Clone(c.Routes), slices.Clone(c.Installed), slices.Clone(c.Handlers)
	c.Modes, c.Tunnels = maps.Clone(c.Modes), maps.Clone(c.Tunnels)
	for n, t := range c.Tunnels {
		copied := *t
		copied.Peers = slices.Clone(t.Peers)
		c.Tunnels[n] = &copied
	}
	f.Router = Known(&c)
	return &c
}

func TestHealthy(t *testing.T) {
	for _, c := range []struct{ reach, uplink string }{
		{"home-lan = true", behind}, {"home-lan = true\ninternet = true", behind}, {"home-lan = true\nnat-to-lan = false", behind},
	} {
		f := healthyHome(t, c.reach, c.uplink)
		r := Judge(f)
		if r.Verdict != OK || len(r.Findings)+len(r.NotTested)+len(r.Explained) > 0 {
			t.Errorf("%s: %s\n%+v\n%+v\n%+v", c.reach, r.Verdict, r.Findings, r.NotTested, r.Explained)
		}
		t.Logf("%d ruled out, %d moot", len(r.RuledOut), len(r.Moot))
	}
}
