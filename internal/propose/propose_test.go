package propose_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/propose"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

var update = flag.Bool("update", false, "rewrite testdata")

var releases = []string{"21.02", "22.03", "23.05", "24.10", "25.12"}

// shipped is a router of a release as its first start left it, with its WAN side
// as given ("" for nothing plugged in).
func shipped(t *testing.T, release, wan string) *router.Snapshot {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("..", "plan", "testdata", "routers", release+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	line, _ := router.ParseLine(release)
	s := &router.Snapshot{
		Board: router.Board{Model: "AVM FRITZ!Box 4040", Name: "avm,fritzbox-4040", Fw4: line.AtLeast(router.Line2203), Apk: line.AtLeast(router.Line2512),
			Switch: line.Before(router.Line2305), Release: router.Release{Distribution: "OpenWrt", Version: release, Line: line}},
		Space: router.Space{OverlayKB: 20000}, Handlers: []string{"static", "dhcp"},
		Interfaces: []router.Interface{{Name: "lan", Device: "br-lan", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}}},
		Configs:    map[string]*uci.Document{}, Hashes: map[string]string{},
	}
	if wan != "" {
		s.Interfaces = append(s.Interfaces, router.Interface{Name: "wan", Device: "wan", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix(wan)}})
	}
	for _, f := range a.Files {
		if f.Name != "version" {
			put(t, s, f.Name, string(f.Data))
		}
	}
	return s
}

func put(t *testing.T, s *router.Snapshot, config, text string) {
	t.Helper()
	d, err := uci.Parse(config, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s.Configs[config] = d
}

// add appends to a config.
func add(t *testing.T, s *router.Snapshot, config, text string) {
	t.Helper()
	put(t, s, config, string(s.Configs[config].Text())+"\n"+text)
}

// lan gives the home LAN another address.
func lan(t *testing.T, s *router.Snapshot, to string) {
	t.Helper()
	host, _, _ := strings.Cut(to, "/")
	old := string(s.Configs["network"].Text())
	text := strings.Replace(old, "'192.168.1.1", "'"+host, 1)
	if text == old {
		t.Fatal("the LAN's address was not found")
	}
	put(t, s, "network", text)
	s.Interfaces[0].Addresses = []netip.Prefix{netip.MustParsePrefix(to)}
}

func source(seed uint64) io.Reader {
	var b [32]byte
	b[0], b[1] = byte(seed), byte(seed>>8)
	return rand.NewChaCha8(b)
}

const second = `config interface 'iot'
	option device 'br-iot'
	option proto 'static'
	option ipaddr '192.168.2.1'
	option netmask '255.255.255.0'
`

const zone = `config zone
	option name '%s'
	list network '%s'
	option input '%s'
	option output 'ACCEPT'
	option forward 'REJECT'
`

// scenes are the places where a router can stand.
var scenes = []struct {
	name  string
	make  func(t *testing.T, release string) *router.Snapshot
	avoid []string
}{
	{"behind an ISP router", func(t *testing.T, r string) *router.Snapshot { return shipped(t, r, "192.168.178.20/24") }, []string{"192.168.1.50/24"}},
	{"directly on the internet", func(t *testing.T, r string) *router.Snapshot { return shipped(t, r, "203.0.113.7/24") }, nil},
	{"behind a carrier's NAT", func(t *testing.T, r string) *router.Snapshot { return shipped(t, r, "100.72.3.4/10") }, nil},
	{"WAN not plugged in", func(t *testing.T, r string) *router.Snapshot { return shipped(t, r, "") }, nil},
	{"one device in the ISP router's LAN", func(t *testing.T, r string) *router.Snapshot {
		s := shipped(t, r, "")
		lan(t, s, "192.168.178.2/24")
		s.Interfaces[0].Gateways = []netip.Addr{netip.MustParseAddr("192.168.178.1")}
		return s
	}, nil},
	{"home LAN and uplink LAN are the same network", func(t *testing.T, r string) *router.Snapshot { return shipped(t, r, "192.168.1.37/24") }, nil},
	{"the uplink LAN holds the home LAN", func(t *testing.T, r string) *router.Snapshot { return shipped(t, r, "192.168.9.37/16") }, nil},
	{"two home LANs, both in the uplink LAN", func(t *testing.T, r string) *router.Snapshot {
		s := shipped(t, r, "192.168.9.37/16")
		add(t, s, "network", second)
		add(t, s, "firewall", fmt.Sprintf(zone, "iot", "iot", "ACCEPT"))
		return s
	}, nil},
	{"an uncommon home LAN", func(t *testing.T, r string) *router.Snapshot {
		s := shipped(t, r, "192.168.178.20/24")
		lan(t, s, "10.41.7.1/24")
		return s
	}, nil},
	{"a network for guests", func(t *testing.T, r string) *router.Snapshot {
		s := shipped(t, r, "192.168.178.20/24")
		add(t, s, "network", strings.ReplaceAll(second, "iot", "guest"))
		add(t, s, "firewall", fmt.Sprintf(zone, "guest", "guest", "REJECT"))
		return s
	}, nil},
	{"another tunnel is there", func(t *testing.T, r string) *router.Snapshot {
		s := shipped(t, r, "192.168.178.20/24")
		add(t, s, "network", "config interface 'wg0'\n\toption proto 'wireguard'\n\toption listen_port '51820'\n\tlist addresses '10.9.0.1/24'\n")
		s.Interfaces = append(s.Interfaces, router.Interface{Name: "wg0", Device: "wg0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}})
		return s
	}, nil},
}

// tell writes what a draft decides.
func tell(d propose.Draft) string {
	var b strings.Builder
	fmt.Fprintf(&b, "uplink %s %s, wan %s\n", d.Home.Uplink.Kind, d.Home.Uplink.Network, d.WAN)
	for _, l := range d.Home.LANs {
		fmt.Fprintf(&b, "lan %s %s", l.Interface, l.Network)
		if l.Renumber {
			b.WriteString(", moves")
		}
		b.WriteString("\n")
	}
	t := d.Home.Tunnel
	fmt.Fprintf(&b, "tunnel %s %s %s port %d\n", t.Interface, t.Network, t.Network6, t.Port)
	for _, a := range d.Away {
		fmt.Fprintf(&b, "away %s: %s\n", a.Network, a.Why)
	}
	if len(d.LeftOut) > 0 {
		fmt.Fprintf(&b, "left out %v\n", d.LeftOut)
	}
	fmt.Fprintf(&b, "collides %v, needs endpoint %v, ask input %v\n", d.Collides, d.NeedsEndpoint, d.AskInput)
	return b.String()
}

func TestHome(t *testing.T) {
	var got []txtar.File
	for i, sc := range scenes {
		for _, r := range releases {
			s := sc.make(t, r)
			var avoid []netip.Prefix
			for _, a := range sc.avoid {
				avoid = append(avoid, netip.MustParsePrefix(a))
			}
			d, err := propose.Home(source(uint64(i)), "192.168.1.1", s, avoid)
			if err != nil {
				t.Errorf("%s, %s: %v", sc.name, r, err)
				continue
			}
			got = append(got, txtar.File{Name: sc.name + ", " + r, Data: []byte(tell(d))})
			usable(t, sc.name+", "+r, d, s)
		}
	}
	const file = "testdata/drafts.txtar"
	if *update {
		if err := os.WriteFile(file, txtar.Format(&txtar.Archive{Files: got}), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(txtar.Format(&txtar.Archive{Files: got}))); d != "" {
		t.Errorf("(-file +now):\n%s", d)
	}
}

// usable: what is drafted is a valid home.toml as soon as the open question is
// answered, and can be planned on the router that it was drafted for.
func usable(t *testing.T, name string, d propose.Draft, s *router.Snapshot) {
	t.Helper()
	h := d.Home
	if d.NeedsEndpoint {
		h.Tunnel.Endpoint = "home.example.net"
	}
	f, err := home.Parse("home.toml", home.Compose(h))
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, home.Compose(h))
		return
	}
	if diff := cmp.Diff(h.LANs, f.Home.LANs, cmp.Comparer(func(a, b subnet.Network) bool { return a == b })); diff != "" {
		t.Errorf("%s: written and read: %s", name, diff)
	}
	p, _ := plan.For(f.Home, s, blueprint.Access{})
	for _, b := range p.Blocked {
		if d.AskInput && strings.Contains(b.What, "input") {
			continue // a question that init asks
		}
		t.Errorf("%s: the plan is blocked: %s", name, b.What)
	}
}

// Whatever chance gives, nothing proposed collides with anything known.
func TestNothingCollides(t *testing.T) {
	for i, sc := range scenes {
		for seed := range uint64(40) {
			s := sc.make(t, releases[(i+int(seed))%len(releases)])
			d, err := propose.Home(source(1000+seed), "192.168.1.1", s, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/9")})
			if err != nil {
				t.Fatal(err)
			}
			computer := subnet.MustParse("10.0.0.0/9")
			nets := map[string]subnet.Network{"tunnel": d.Home.Tunnel.Network}
			if !d.Home.Uplink.Network.IsZero() {
				nets["uplink"] = d.Home.Uplink.Network
			}
			for _, l := range d.Home.LANs {
				nets[l.Interface] = l.Network
				if l.Renumber && l.Network.Overlaps(computer) {
					t.Errorf("%s, seed %d: the LAN moves to %s, where this computer is", sc.name, seed, l.Network)
				}
			}
			if d.Home.Tunnel.Network.Overlaps(computer) {
				t.Errorf("%s, seed %d: the tunnel is %s, where this computer is", sc.name, seed, d.Home.Tunnel.Network)
			}
			for a, x := range nets {
				for b, y := range nets {
					if a < b && x.Overlaps(y) {
						t.Errorf("%s, seed %d: %s %s and %s %s overlap", sc.name, seed, a, x, b, y)
					}
				}
			}
			if _, met := subnet.MetAway(d.Home.Tunnel.Network); met {
				t.Errorf("%s, seed %d: the tunnel network %s is met away", sc.name, seed, d.Home.Tunnel.Network)
			}
			if !d.Home.Tunnel.Network6.Is6() {
				t.Errorf("%s: no IPv6 network", sc.name)
			}
		}
	}
}

func TestNoRoom(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12")}
	if _, err := propose.Home(source(1), "192.168.1.1", shipped(t, "24.10", ""), all); !errors.Is(err, subnet.ErrNoRoom) {
		t.Errorf("no room: %v", err)
	}
	if _, err := propose.Home(bytes.NewReader(nil), "192.168.1.1", shipped(t, "24.10", ""), nil); err == nil {
		t.Error("chosen without chance")
	}
}

// A router of which nothing is known but that it is there.
func TestEmptySnapshot(t *testing.T) {
	d, err := propose.Home(source(1), "192.168.1.1", &router.Snapshot{}, nil)
	if err != nil || len(d.Home.LANs) != 0 || !d.NeedsEndpoint || d.Home.Uplink.Kind != home.Behind {
		t.Errorf("%v\n%s", err, tell(d))
	}
}
