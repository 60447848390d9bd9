package plan_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// tb is what both a test and a rapid check offer.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func archive(t tb, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v", err)
	}
	out := map[string]string{"": ""}
	a := txtar.Parse(data)
	out[""] = string(a.Comment)
	for _, f := range a.Files {
		out[f.Name] = string(f.Data)
	}
	return out
}

var releases = []string{"21.02", "22.03", "23.05", "24.10", "25.12"}

// shipped is a router as its first start left it, plugged in behind an ISP router.
func shipped(t tb, release string) *router.Snapshot {
	t.Helper()
	files := archive(t, filepath.Join("testdata", "routers", release+".txtar"))
	version := strings.TrimSpace(files["version"])
	line, _ := router.ParseLine(version)
	s := &router.Snapshot{
		Board: router.Board{
			Model: "AVM FRITZ!Box 4040", Name: "avm,fritzbox-4040", Hostname: "OpenWrt",
			Release: router.Release{Distribution: "OpenWrt", Version: version, Target: "ipq40xx/generic", Line: line},
			Switch:  line.Before(router.Line2305), Apk: line.AtLeast(router.Line2512), Fw4: line.AtLeast(router.Line2203),
		},
		Handlers: []string{"dhcp", "dhcpv6", "pppoe", "static"},
		Space:    router.Space{OverlayKB: 20000},
		Interfaces: []router.Interface{
			{Name: "loopback", Device: "lo", Proto: "static", Up: true, Addresses: prefixes("127.0.0.1/8")},
			{Name: "lan", Device: "br-lan", Proto: "static", Up: true, Addresses: prefixes("192.168.1.1/24", "fd5c:3f1e:7a02::1/60")},
			{Name: "wan", Device: "wan", Proto: "dhcp", Up: true, Addresses: prefixes("192.168.2.253/24"), Gateways: []netip.Addr{netip.MustParseAddr("192.168.2.1")}},
			{Name: "wan6", Device: "wan", Proto: "dhcpv6"},
		},
		Tunnels: map[string]*router.Tunnel{},
		Configs: map[string]*uci.Document{},
		Hashes:  map[string]string{},
	}
	for _, c := range router.Touched() {
		put(t, s, c, files[c])
	}
	return s
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range texts {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// put writes a configuration file into a snapshot.
func put(t tb, s *router.Snapshot, config, text string) {
	t.Helper()
	d, err := uci.Parse(config, []byte(text))
	if err != nil {
		t.Fatalf("%v", err)
	}
	store(s, config, d)
}

func store(s *router.Snapshot, config string, d *uci.Document) {
	s.Configs[config] = d
	sum := sha256.Sum256(d.Text())
	s.Hashes[config] = hex.EncodeToString(sum[:])
}

// settle is the router after the plan: files written, packages there, keys in,
// everything live as the files say, record noted.
func settle(t tb, before *router.Snapshot, p *plan.Plan, secrets plan.Secrets) *router.Snapshot {
	t.Helper()
	docs, err := p.Edit(before.Configs, secrets)
	if err != nil {
		t.Fatalf("edit: %v", err)
	}
	after := *before
	after.Configs, after.Hashes = maps.Clone(before.Configs), maps.Clone(before.Hashes)
	for c, d := range docs {
		// Through its text, as the router would read it.
		put(t, &after, c, string(d.Text()))
	}
	for _, s := range p.Steps {
		switch s.Do {
		case plan.Install:
			after.Installed = append(after.Installed, router.Package{Name: s.Name})
		case plan.Authorize:
			after.Keys = append(after.Keys, s.Name)
		case plan.SetPassword:
			after.RootHash = true
		}
	}
	after.Written = p.Written(after.Configs, before.Written)
	after.Handlers = []string{"dhcp", "dhcpv6", "pppoe", "static", "wireguard"}
	enliven(t, &after)
	if !slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Do == plan.Activate && s.Config == "network" }) {
		synced(t, before, &after, p)
	}
	return &after
}

// synced: where nothing is set up anew, the live tunnel with the plan's live
// changes carried out is the one that the files describe.
func synced(t tb, before, after *router.Snapshot, p *plan.Plan) {
	t.Helper()
	syncs, err := p.Sync(after.Configs)
	if err != nil {
		t.Fatalf("%v", err)
	}
	live := map[key.Public]router.Peer{}
	if tunnel := before.Tunnels[p.Tunnel]; tunnel != nil {
		for _, x := range tunnel.Peers {
			live[x.PublicKey] = x
		}
	}
	for _, y := range syncs {
		_, there := live[y.Key]
		if there != (y.Do != plan.PeerAdd) {
			t.Errorf("%s of %s, and live before: %v", y.Do, y.Peer, there)
		}
		delete(live, y.Key)
		if y.Do != plan.PeerRemove {
			live[y.Key] = router.Peer{PublicKey: y.Key, Preshared: router.Digest(y.Preshared.Reveal()), AllowedIPs: y.AllowedIPs}
		}
	}
	want := after.Tunnels[p.Tunnel].Peers
	if len(want) != len(live) {
		t.Errorf("%d peers are live, the files have %d", len(live), len(want))
	}
	for _, x := range want {
		if y := live[x.PublicKey]; y.Preshared != x.Preshared || !slices.Equal(y.AllowedIPs, x.AllowedIPs) {
			t.Errorf("live %+v, in the files %+v", y, x)
		}
	}
}

// enliven brings the live state in line with the configuration files. It reads
// them by itself, not through the code under test.
func enliven(t tb, s *router.Snapshot) {
	t.Helper()
	var live []router.Interface
	for _, i := range s.Interfaces {
		if sec, ok := s.Config("network").Section(i.Name); ok && i.Proto != "wireguard" {
			if i.Name == "lan" && sec.Has("ipaddr") {
				i.Addresses = append(configured(t, sec), prefixes("fd5c:3f1e:7a02::1/60")...)
			}
			live = append(live, i)
		}
	}
	s.Tunnels = map[string]*router.Tunnel{}
	for _, sec := range s.Config("network").OfType("interface") {
		if proto, _ := sec.Get("proto"); proto != "wireguard" {
			continue
		}
		i := router.Interface{Name: sec.Name, Device: sec.Name, Proto: "wireguard", Up: true}
		i.Addresses = prefixes(sec.Values("addresses")...)
		live = append(live, i)
		s.Tunnels[sec.Name] = liveTunnel(t, s, sec)
	}
	s.Interfaces = live
}

func configured(t tb, sec uci.Section) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range sec.Values("ipaddr") {
		if mask, ok := sec.Get("netmask"); ok && mask == "255.255.255.0" {
			a += "/24"
		}
		p, err := netip.ParsePrefix(a)
		if err != nil {
			t.Fatalf("network.%s would be a /32: %v", sec.Name, err)
		}
		out = append(out, p)
	}
	return out
}

func liveTunnel(t tb, s *router.Snapshot, sec uci.Section) *router.Tunnel {
	private, _ := sec.Get("private_key")
	k, err := key.ParsePrivate(private)
	if err != nil {
		t.Fatalf("network.%s: %v", sec.Name, err)
	}
	tunnel := &router.Tunnel{Interface: sec.Name, PublicKey: k.Public(), Private: router.Digest(private)}
	port, _ := sec.Get("listen_port")
	fmt.Sscan(port, &tunnel.ListenPort)
	for _, p := range s.Config("network").OfType("wireguard_" + sec.Name) {
		if p.Bool("disabled", false) && s.Board.Release.Line.AtLeast(router.Line2203) {
			continue
		}
		public, _ := p.Get("public_key")
		pk, err := key.ParsePublic(public)
		if err != nil {
			t.Fatalf("network.%s: %v", p.Name, err)
		}
		psk, _ := p.Get("preshared_key")
		tunnel.Peers = append(tunnel.Peers, router.Peer{PublicKey: pk, Preshared: router.Digest(psk), AllowedIPs: prefixes(p.Values("allowed_ips")...)})
	}
	return tunnel
}

// secret bytes that no test output may contain.
func testPrivate(n int) key.Private {
	k, _ := key.NewPrivate(bytes.NewReader(seed("private", n)))
	return k
}

func testPreshared(n int) key.Preshared {
	k, _ := key.NewPreshared(bytes.NewReader(seed("preshared", n)))
	return k
}

func testPublic(n int) key.Public { return testPrivate(1000 + n).Public() }

func seed(kind string, n int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
	return sum[:]
}

func secretsFor(h home.Home) plan.Secrets {
	s := plan.Secrets{Private: testPrivate(0), Preshared: map[string]key.Preshared{}, DDNS: uci.Hidden("ddns-secret-7")}
	for i, p := range h.Peers {
		s.Preshared[p.Name] = testPreshared(i)
	}
	return s
}

func parseHome(t tb, text string) home.Home {
	t.Helper()
	f, err := home.Parse("home.toml", []byte(text))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f.Home
}

var access = blueprint.Access{Key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0v3uZ2m1XkZq8Zr5Nf3m9f0m8m5m4m3m2m1m0mzzzz me@laptop", Password: true}

// mustEmpty plans again and fails on every step that is left.
func mustEmpty(t tb, h home.Home, s *router.Snapshot) {
	t.Helper()
	p, _ := plan.For(h, s, access)
	for _, st := range p.Steps {
		t.Errorf("still to do after the plan was carried out: %s (%s)", st.ID, st.Why)
	}
	for _, b := range p.Blocked {
		t.Errorf("blocked after the plan was carried out: %s", b.What)
	}
}
