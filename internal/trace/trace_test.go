package trace

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

func testKey(n byte) key.Private {
	k, _ := key.NewPrivate(bytes.NewReader(bytes.Repeat([]byte{n}, key.Size)))
	return k
}

func household(t testing.TB) home.Home {
	t.Helper()
	f, err := home.Parse("home.toml", []byte(`[router]
address = "192.168.1.1"
[uplink]
kind = "behind-isp-router"
network = "192.168.2.0/24"
[[lan]]
interface = "lan"
network = "192.168.1.0/24"
[tunnel]
network = "10.86.20.0/24"
network6 = "fd5a:1f2e:3d4c:1::/64"
endpoint = "home.example.net"
[reach]
home-lan = true
[[peer]]
name = "phone"
public-key = "`+testKey(2).Public().String()+`"
address = "10.86.20.2"
address6 = "fd5a:1f2e:3d4c:1::2"
preshared = false
[[peer]]
name = "tablet"
public-key = "`+testKey(3).Public().String()+`"
address = "10.86.20.3"
preshared = false
`))
	if err != nil {
		t.Fatal(err)
	}
	return f.Home
}

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

// snapshot is a fresh router behind an ISP router.
func snapshot(t testing.TB) *router.Snapshot {
	t.Helper()
	pre := netip.MustParsePrefix
	return &router.Snapshot{
		Board: router.Board{Release: router.Release{Distribution: "OpenWrt", Version: "24.10.7", Line: router.Line2410}, Fw4: true},
		Time:  time.Unix(1_780_000_000, 0),
		Configs: map[string]*uci.Document{
			"network": parse(t, "network", networkFile), "firewall": parse(t, "firewall", firewallFile),
			"dhcp": parse(t, "dhcp", "config host\n\toption name 'NAS'\n\toption ip '192.168.1.10'\n\nconfig domain\n\toption name 'cam'\n\toption ip '192.168.1.11'\n\nconfig host\n\toption name 'x'\n\toption ip 'ignore'\n"),
		},
		Interfaces: []router.Interface{
			{Name: "loopback", Device: "lo", Up: true, Addresses: []netip.Prefix{pre("127.0.0.1/8")}},
			{Name: "lan", Device: "br-lan", Proto: "static", Up: true, Addresses: []netip.Prefix{pre("192.168.1.1/24")}},
			{Name: "wan", Device: "wan", Proto: "dhcp", Up: true, Addresses: []netip.Prefix{pre("192.168.2.253/24")}, Gateways: []netip.Addr{netip.MustParseAddr("192.168.2.254")}},
		},
		Neighbours: []router.Neighbour{{Addr: netip.MustParseAddr("192.168.1.10"), Device: "br-lan", Name: "nas-lease"}},
		Handlers:   []string{"wireguard", "static", "dhcp"},
		Space:      router.Space{OverlayKB: 8000},
		Installed:  []router.Package{{Name: "wireguard-tools"}, {Name: "kmod-wireguard"}},
	}
}

// settled is the same router after heimweg apply.
func settled(t testing.TB, h home.Home) *router.Snapshot {
	t.Helper()
	after := Applied(h, snapshot(t))
	if after.Snapshot == nil || len(after.Renew) > 0 {
		t.Fatalf("%+v", after)
	}
	return after.Snapshot
}

var toNAS = Request{Peer: "phone", Name: "nas", To: netip.MustParseAddr("192.168.1.10"), Proto: firewall.TCP, Port: 445}

func known(t testing.TB) Facts {
	h := household(t)
	return Facts{Home: h, Snapshot: settled(t, h), Endpoint: Endpoint{Asked: true, Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.7")}},
		Upstream: Upstream{Asked: true, Mappings: []Mapping{{"udp", 51820, netip.MustParseAddrPort("192.168.2.253:51820")}}},
		Knock:    Knock{Target: toNAS.To, Near: Yes, Far: Yes, There: true}}
}

// A fresh router dies at the first thing that is missing, and apply is the
// remedy; after it, everything passes.
func TestFreshAndSettled(t *testing.T) {
	f := known(t)
	if got := Follow(f, toNAS); got.Verdict != Passes || got.Head() != "" {
		t.Errorf("settled: %s %v", got.Headline, got.Unknown)
	}
	f.Snapshot = snapshot(t)
	f.Wanted = Applied(f.Home, f.Snapshot)
	got := Follow(f, toNAS)
	if got.Head() != Door || got.Death.Cause != DoorClosed || got.Remedies[0].Do != "heimweg apply" {
		t.Errorf("fresh: %s %+v", got.Headline, got.Remedies)
	}
	if p := got.Death.Because; len(p) != 1 || p[0].File != "/etc/config/firewall" || p[0].Section != "@zone[1]" || p[0].Line != 16 {
		t.Errorf("because of %+v", got.Death)
	}
	f.Wanted.Stuck = true
	if got := Follow(f, toNAS); got.Remedies[0].Do != "heimweg plan" {
		t.Errorf("stuck: %+v", got.Remedies)
	}
}

// What heimweg opened and the list shows no more is gone, unless somebody comes in
// all the same: a person may have set it by hand since.
func TestForgottenMapping(t *testing.T) {
	f := known(t)
	f.Upstream.Mappings, f.Upstream.Partial, f.Upstream.Opened = nil, true, f.Snapshot.Time.Add(-time.Hour)
	got := Follow(f, toNAS)
	if got.Verdict != Dies || got.Death.Cause != NoMapping || len(got.Remedies) != 1 || got.Remedies[0].Do != "heimweg up" {
		t.Errorf("%s: %s %+v", got.Verdict, got.Headline, got.Remedies)
	}
	p := &f.Snapshot.Tunnels["wg0"].Peers[0]
	p.Handshake, p.Endpoint = f.Snapshot.Time.Add(-time.Minute), netip.MustParseAddrPort("198.51.100.9:4711")
	if got = Follow(f, toNAS); got.Verdict != Passes {
		t.Errorf("somebody came in: %s, %s %v", got.Verdict, got.Headline, got.Unknown)
	}
}

// Mutation: whatever one fact is taken away, nothing turns green by it.
func TestNothingTurnsGreen(t *testing.T) {
	for name, forget := range map[string]func(*Facts){
		"endpoint":        func(f *Facts) { f.Endpoint = Endpoint{} },
		"upstream":        func(f *Facts) { f.Upstream = Upstream{} },
		"mapping by hand": func(f *Facts) { f.Upstream.Mappings, f.Upstream.Partial = nil, true },
		"knock": func(f *Facts) {
			f.Knock = Knock{}
			f.Home.Reach.NATToLAN = false
			f.Snapshot = Applied(f.Home, snapshot(t)).Snapshot
		},
		"no endpoint": func(f *Facts) { f.Home.Tunnel.Endpoint = "" },
	} {
		f := known(t)
		forget(&f)
		got := Follow(f, toNAS)
		if got.Verdict != Unknown || len(got.Unknown) == 0 || got.Death != nil {
			t.Errorf("%s: %s, %s", name, got.Verdict, got.Headline)
		}
	}
}

func TestNames(t *testing.T) {
	h, s := household(t), snapshot(t)
	names := Names(h, s)
	for typed, want := range map[string]string{
		"nas": "192.168.1.10", "NAS.lan": "192.168.1.10", "cam": "192.168.1.11", "nas-lease": "192.168.1.10",
		"tablet": "10.86.20.3", "phone": "10.86.20.2", "router": "10.86.20.1", "x": "", "nobody": "",
	} {
		n, ok := Find(names, []string{"lan"}, typed)
		if got := n.Addr; ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v (%s)", typed, got, n.From)
		}
	}
	if n, _ := Find(names, nil, "cam"); n.From != "/etc/config/dhcp:5" {
		t.Errorf("cam is from %q", n.From)
	}
	for typed, want := range map[string]string{
		"nas:445": "nas 445 true", "192.168.1.10:80": "192.168.1.10 80 true", "[fd00::10]:443": "fd00::10 443 true",
		"fd00::10": "fd00::10 0 true", "[fd00::10]": "fd00::10 0 true", "nas": "nas 0 true",
		"nas:0": "nas:0 0 false", "nas:x": "nas:x 0 false", ":80": ":80 0 false", "": " 0 false",
	} {
		host, port, ok := SplitTarget(typed)
		if got := fmt.Sprintf("%s %d %v", host, port, ok); got != want {
			t.Errorf("%q: %s, want %s", typed, got, want)
		}
	}
}

func TestRoutes(t *testing.T) {
	s := snapshot(t)
	s.Routes = []router.Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.2.254"), Device: "wan", Metric: 10},
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Device: "wg0", Metric: 20},
		{Dst: netip.MustParsePrefix("192.168.1.0/24"), Device: "br-lan"},
		{Dst: netip.MustParsePrefix("192.168.1.128/25"), Device: ""}, // unreachable
	}
	r := routesOf(s)
	for dst, want := range map[string]string{"9.9.9.9": "wan", "192.168.1.10": "br-lan", "192.168.1.200": "", "192.168.1.1": "lo", "fd00::1": ""} {
		if out, _ := r.route(netip.MustParseAddr(dst)); out != want {
			t.Errorf("%s by %q, want %q", dst, out, want)
		}
	}
}

// A route into the tunnel for everything cuts the tunnel's own answers off.
func TestAnswersIntoTheTunnel(t *testing.T) {
	f := known(t)
	s := *f.Snapshot
	s.Routes = append(connected(&s), router.Route{Dst: netip.MustParsePrefix("0.0.0.0/1"), Device: "wg0"}, router.Route{Dst: netip.MustParsePrefix("128.0.0.0/1"), Device: "wg0"})
	f.Snapshot = &s
	if got := Follow(f, toNAS); got.Death == nil || got.Death.Cause != NoWayOut {
		t.Errorf("%s", got.Headline)
	}
}

// Whatever the files say and the router shows, Follow ends with a verdict, and
// tells no secret.
func FuzzFollow(f *testing.F) {
	f.Add([]byte(networkFile), []byte(firewallFile), []byte("config host\n\toption name nas\n"), uint64(1))
	f.Add([]byte("config interface 'wg0'\n\toption proto wireguard\nconfig wireguard_wg0\n\toption public_key x\n\toption disabled 1\n"), []byte("config zone\n\toption name vpn\n\tlist network wg0\n\toption input ACCEPT\n"), []byte{}, uint64(7))
	f.Add([]byte(networkFile), []byte("config redirect\n\toption src wan\n\toption target DNAT\n\toption dest_port 22\nconfig rule\n\toption src *\n\toption dest *\n\toption target DROP\n"), []byte{}, uint64(99))
	f.Fuzz(func(t *testing.T, network, fw, dhcp []byte, seed uint64) {
		facts, req := anything(t, network, fw, dhcp, rand.New(rand.NewPCG(seed, 1)))
		got := Follow(facts, req)
		switch {
		case got.Verdict != Passes && got.Verdict != Dies && got.Verdict != Unknown, got.Headline == "",
			(got.Verdict == Dies) != (got.Death != nil), got.Verdict == Unknown && got.Head() == "":
			t.Fatalf("%+v", got)
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), testKey(9).Reveal()) {
			t.Fatal("a secret is in the trace")
		}
	})
}

// anything is a world of chance.
func anything(t *testing.T, network, fw, dhcp []byte, r *rand.Rand) (Facts, Request) {
	h := household(t)
	h.Uplink.Kind = home.Kind(r.IntN(3))
	s := snapshot(t)
	s.Configs = map[string]*uci.Document{}
	for name, text := range map[string][]byte{"network": network, "firewall": fw, "dhcp": dhcp} {
		if r.IntN(8) > 0 {
			s.Configs[name], _ = uci.ParseLoose(name, text)
		}
	}
	some := []string{"10.86.20.1/24", "10.86.20.1/32", "192.168.1.1/24", "192.168.2.253/24", "203.0.113.7/24", "fd5a:1f2e:3d4c:1::1/64", "fe80::1/64", "0.0.0.0/0"}
	prefix := func() netip.Prefix { return netip.MustParsePrefix(some[r.IntN(len(some))]) }
	s.Interfaces = nil
	for _, n := range []string{"lan", "wan", "wg0", "guest"} {
		if r.IntN(4) == 0 {
			continue
		}
		i := router.Interface{Name: n, Device: n, Up: r.IntN(4) > 0}
		for range r.IntN(3) {
			i.Addresses = append(i.Addresses, prefix())
		}
		if r.IntN(2) == 0 {
			i.Gateways = []netip.Addr{prefix().Addr()}
		}
		s.Interfaces = append(s.Interfaces, i)
	}
	for range r.IntN(4) {
		s.Routes = append(s.Routes, router.Route{Dst: prefix().Masked(), Via: prefix().Addr(), Device: []string{"lan", "wan", "wg0", ""}[r.IntN(4)]})
	}
	if r.IntN(4) > 0 {
		live := &router.Tunnel{Interface: "wg0", PublicKey: testKey(1).Public(), ListenPort: 51820}
		for n := range r.IntN(4) {
			p := router.Peer{PublicKey: testKey(byte(n + 2)).Public(), AllowedIPs: []netip.Prefix{prefix(), netip.MustParsePrefix(fmt.Sprintf("10.86.20.%d/32", n+2))}}
			if r.IntN(2) == 0 {
				p.Endpoint, p.Handshake = netip.MustParseAddrPort("198.51.100.2:4711"), s.Time.Add(-time.Minute)
			}
			live.Peers = append(live.Peers, p)
		}
		s.Tunnels = map[string]*router.Tunnel{"wg0": live}
	}
	f := Facts{Home: h, Snapshot: s, Upstream: Upstream{Asked: r.IntN(2) == 0, Mappings: []Mapping{{"udp", 51820, netip.AddrPortFrom(prefix().Addr(), 51820)}}}}
	f.Endpoint = Endpoint{Asked: r.IntN(2) == 0, Addrs: []netip.Addr{prefix().Addr()}}
	if r.IntN(3) == 0 {
		f.Wanted = Applied(h, s)
	}
	req := Request{Peer: []string{"phone", "tablet", "nobody", ""}[r.IntN(4)], From: prefix().Addr(), To: prefix().Addr().Next(),
		Proto: []uint8{firewall.TCP, firewall.UDP, firewall.ICMP}[r.IntN(3)], Port: uint16(r.IntN(65536))}
	f.Knock = Knock{Target: req.To, Near: []Seen{NotAsked, Yes, No}[r.IntN(3)], Far: []Seen{NotAsked, Yes, No}[r.IntN(3)]}
	f.Samples = []cryptokey.Sample{{At: s.Time, Endpoint: netip.MustParseAddrPort("198.51.100.2:1")}}
	return f, req
}

func TestExplain(t *testing.T) {
	h := household(t)
	e := Explain(h)
	if len(e.Devices) != 2 || len(e.Choices) != 3 || e.Choices[2].Peer != "" || len(e.Sources) != 2 || !e.Sources[0].Allowed || e.Sources[1].Owner != "tablet" {
		t.Errorf("%+v", e)
	}
	h.Peers[1].PublicKey = h.Peers[0].PublicKey
	if e := Explain(h); strings.Join(e.OneKey, " ") != "phone tablet" {
		t.Errorf("one key: %v", e.OneKey)
	}
	h.Peers = nil
	if e := Explain(h); len(e.Devices) != 0 {
		t.Errorf("%+v", e)
	}
	Explain(home.Home{})
}

func BenchmarkFollow(b *testing.B) {
	f := known(b)
	f.Wanted = After{}
	b.ReportAllocs()
	for b.Loop() {
		if Follow(f, toNAS).Verdict != Passes {
			b.Fatal("dies")
		}
	}
}

// Begin looks behind a fault: the packet goes on as if it had come so far.
func TestBegin(t *testing.T) {
	f := known(t)
	f.Upstream.Mappings = nil // dies at the ISP router
	f.Home.Reach.HomeLAN = true
	doc := f.Snapshot.Configs["firewall"].Clone()
	if err := doc.Delete("hw_fwd_lan"); err != nil {
		t.Fatal(err)
	}
	f.Snapshot.Configs["firewall"] = doc
	for begin, want := range map[ID]ID{"": ISPRouter, Internet: ISPRouter, ISPRouter: ISPRouter, Door: Home, Tunnel: Home, Home: Home} {
		r := toNAS
		r.Begin = begin
		got := Follow(f, r)
		if got.Death == nil || got.Death.Hop != want {
			t.Errorf("from %q on it ends at %q, want %q: %s", begin, got.Head(), want, got.Headline)
		}
	}
}
