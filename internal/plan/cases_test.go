package plan_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

func gateway(t *testing.T) home.Home {
	return parseHome(t, archive(t, "testdata/gateway.txtar")["home.toml"])
}

// settled is a router on which the household's wish has been carried out.
func settled(t *testing.T, h home.Home, release string) *router.Snapshot {
	s := shipped(t, release)
	p, _ := plan.For(h, s, access)
	return settle(t, s, p, secretsFor(h))
}

func clone(s *router.Snapshot) *router.Snapshot {
	c := *s
	c.Configs, c.Hashes, c.Tunnels = maps.Clone(s.Configs), maps.Clone(s.Hashes), maps.Clone(s.Tunnels)
	c.Interfaces = slices.Clone(s.Interfaces)
	c.Broken = maps.Clone(s.Broken)
	return &c
}

// edit replaces text in one configuration file, as a person or LuCI would.
func edit(t *testing.T, s *router.Snapshot, config, old, new string) *router.Snapshot {
	t.Helper()
	text := string(s.Config(config).Text())
	if !strings.Contains(text, old) {
		t.Fatalf("%s does not hold %q", config, old)
	}
	c := clone(s)
	put(t, c, config, strings.Replace(text, old, new, 1))
	return c
}

func ids(p *plan.Plan) []string {
	out := []string{}
	for _, s := range p.Steps {
		out = append(out, s.ID)
	}
	return out
}

func wantSteps(t *testing.T, p *plan.Plan, want ...string) {
	t.Helper()
	if got := ids(p); !slices.Equal(got, want) {
		t.Errorf("steps\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestObstacles(t *testing.T) {
	h := gateway(t)
	cases := []struct {
		code   string
		breaks func(*router.Snapshot)
	}{
		{"staged-changes", func(s *router.Snapshot) { s.Staged = []string{"firewall"} }},
		{"luci-apply", func(s *router.Snapshot) { s.LuciApply = true }},
		{"override-files", func(s *router.Snapshot) { s.Overrides = []string{"/var/run/uci/network"} }},
		{"router-locked", func(s *router.Snapshot) { s.Locked = "r-1" }},
		{"run-unfinished", func(s *router.Snapshot) { s.Pending = &router.Pending{ID: "r-1", Since: time.Unix(1e9, 0)} }},
		{"overlay-temporary", func(s *router.Snapshot) { s.Space.Temporary = true }},
		{"no-space", func(s *router.Snapshot) { s.Space.OverlayKB = 300 }},
		{"config-broken", func(s *router.Snapshot) {
			_, err := uci.Parse("firewall", []byte("config zone\n\toption name 'lan\n"))
			s.Broken = map[string]error{"firewall": err}
			delete(s.Configs, "firewall")
		}},
		{"config-uneditable", func(s *router.Snapshot) {
			put(t, s, "dhcp", string(s.Config("dhcp").Text()))
			put(t, s, "network", string(s.Config("network").Text())+"config route; option interface lan\n")
		}},
		{"harmful-package", func(s *router.Snapshot) { s.Installed = []router.Package{{Name: "wg-installer-server"}} }},
		{"not-openwrt", func(s *router.Snapshot) { s.Board.Release = router.Release{Distribution: "DD-WRT", Version: "v3.0"} }},
		{"openwrt-too-old", func(s *router.Snapshot) {
			s.Board.Release = router.Release{Distribution: "OpenWrt", Version: "19.07.10", Line: router.Line{Year: 19, Month: 7}}
		}},
	}
	for _, c := range cases {
		t.Run(c.code, func(t *testing.T) {
			s := clone(shipped(t, "24.10"))
			c.breaks(s)
			p, _ := plan.For(h, s, access)
			if len(p.Blocked) != 1 || p.Blocked[0].Code != c.code {
				t.Fatalf("want %s alone, got:\n%s", c.code, text(p))
			}
			if len(p.Blocked[0].Next) == 0 {
				t.Error("it does not say what to do")
			}
			saved := roundTrip(t, p)
			if len(saved.Blocked) != 1 {
				t.Error("the saved plan is not blocked")
			}
		})
	}
}

// A broken file must not look like an empty one: nothing may be planned on it.
func TestBrokenFilePlansNothing(t *testing.T) {
	s := shipped(t, "24.10")
	s.Broken = map[string]error{"network": errors.New("bad")}
	delete(s.Configs, "network")
	p, _ := plan.For(gateway(t), s, access)
	if !p.Empty() || len(p.Blocked) != 1 {
		t.Errorf("%s", text(p))
	}
}

func TestFullFlashDoesNotBlockNothing(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "24.10")
	s.Space = router.Space{}
	p, _ := plan.For(h, s, access)
	if len(p.Blocked) > 0 || !p.Empty() {
		t.Errorf("%s", text(p))
	}
}

// What somebody changed on the router is told from what home.toml changed.
func TestDrift(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "24.10")
	touched := edit(t, s, "firewall", "option input 'REJECT'\n\toption output 'ACCEPT'\n\toption forward 'REJECT'\n\toption mtu_fix", "option input 'ACCEPT'\n\toption output 'ACCEPT'\n\toption forward 'REJECT'\n\toption mtu_fix")
	p, _ := plan.For(h, touched, access)
	wantSteps(t, p, "change firewall.hw_zone", "activate firewall-reload", "record")
	if !p.Steps[0].Drift || p.Steps[0].Who == "" {
		t.Error("somebody else's change is not called so")
	}

	gone := clone(s)
	network := s.Config("network").Clone()
	if err := network.Delete("hw_peer_phone"); err != nil {
		t.Fatal(err)
	}
	store(gone, "network", network)
	enliven(t, gone)
	p, _ = plan.For(h, gone, access)
	wantSteps(t, p, "create network.hw_peer_phone", "peer-add "+h.Peers[0].PublicKey.String(), "record")
	if !p.Steps[0].Drift {
		t.Error("a section that somebody deleted is not called drift")
	}

	h.Tunnel.Port = 443
	p, _ = plan.For(h, s, access)
	wantSteps(t, p, "change network.wg0", "change firewall.hw_wg_in", "activate tunnel-up", "activate firewall-reload", "record")
	for _, st := range p.Steps {
		if st.Drift {
			t.Errorf("%s is our own change and is called drift", st.ID)
		}
	}
	if r := p.Risks(); !slices.Equal(r, []plan.Risk{plan.DropsPeers}) {
		t.Errorf("risks %v", r)
	}
}

func TestLostRecordIsWrittenAgain(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "25.12")
	s.Written = router.Written{}
	p, _ := plan.For(h, s, access)
	wantSteps(t, p, "record")
	if p.NeedsGuard() {
		t.Error("a note needs no guard")
	}
	mustEmpty(t, h, settle(t, s, p, plan.Secrets{}))
}

func TestAddressChangeByRelease(t *testing.T) {
	for release, how := range map[string]string{"21.02": "tunnel-up", "24.10": "tunnel-up", "25.12": "tunnel-renew"} {
		h := gateway(t)
		h.Tunnel.Network6 = h.Tunnel.Network6.Host(0).Network()
		s := settled(t, h, release)
		h.Tunnel.Network6 = parseNetwork("fd11:2233:4455::/64")
		for i := range h.Peers {
			h.Peers[i].Address6 = h.Tunnel.Network6.Host(uint32(i) + 2).Addr()
		}
		p, _ := plan.For(h, s, access)
		got := p.Only(plan.Activate)
		if len(got) != 2 || string(got[0].How) != how {
			t.Errorf("%s: %v", release, ids(p))
		}
		if len(p.Only(plan.PeerChange)) > 0 {
			t.Errorf("%s: peers are set although the tunnel takes them from the configuration", release)
		}
	}
}

// The live state is compared although the files are right.
func TestLiveState(t *testing.T) {
	h := gateway(t)
	phone, laptop := h.Peers[0], h.Peers[1]
	h.Peers = append(h.Peers, home.Peer{Name: "guest", Address: netip.MustParseAddr("10.86.20.9"), PublicKey: testPublic(5)})
	base := settled(t, h, "24.10")
	tunnel := func(change func(*router.Tunnel)) *router.Snapshot {
		s := clone(base)
		x := *s.Tunnels["wg0"]
		x.Peers = slices.Clone(x.Peers)
		change(&x)
		s.Tunnels["wg0"] = &x
		return s
	}
	stranger := testPublic(77)
	cases := []struct {
		name string
		s    *router.Snapshot
		want []string
	}{
		{"peer not live", tunnel(func(x *router.Tunnel) { x.Peers = x.Peers[1:] }), []string{"peer-add " + phone.PublicKey.String()}},
		{"stranger live", tunnel(func(x *router.Tunnel) { x.Peers = append(x.Peers, router.Peer{PublicKey: stranger}) }), []string{"peer-remove " + stranger.String()}},
		{"other preshared key", tunnel(func(x *router.Tunnel) { x.Peers[1].Preshared = router.Digest("x") }), []string{"peer-change " + laptop.PublicKey.String()}},
		{"no preshared key", tunnel(func(x *router.Tunnel) { x.Peers[1].Preshared = "" }), []string{"peer-change " + laptop.PublicKey.String()}},
		{"preshared key where none belongs", tunnel(func(x *router.Tunnel) { x.Peers[2].Preshared = router.Digest("x") }), []string{"peer-change " + h.Peers[2].PublicKey.String()}},
		{"other addresses", tunnel(func(x *router.Tunnel) { x.Peers[0].AllowedIPs = prefixes("10.86.20.77/32") }), []string{"peer-change " + phone.PublicKey.String()}},
		{"addresses in another order", tunnel(func(x *router.Tunnel) { slices.Reverse(x.Peers[0].AllowedIPs) }), []string{}},
		{"other port", tunnel(func(x *router.Tunnel) { x.ListenPort = 1 }), []string{"activate tunnel-up", "activate firewall-reload"}},
		{"other key", tunnel(func(x *router.Tunnel) { x.PublicKey = stranger }), []string{"activate tunnel-up", "activate firewall-reload"}},
		{"down", func() *router.Snapshot {
			s := clone(base)
			for i := range s.Interfaces {
				s.Interfaces[i].Up = s.Interfaces[i].Up && s.Interfaces[i].Name != "wg0"
			}
			return s
		}(), []string{"activate tunnel-up", "activate firewall-reload"}},
		{"not there", func() *router.Snapshot {
			s := clone(base)
			s.Interfaces, s.Tunnels = without(s.Interfaces, "wg0"), map[string]*router.Tunnel{}
			return s
		}(), []string{"activate network-reload", "activate firewall-reload"}},
		{"protocol not known", func() *router.Snapshot {
			s := clone(base)
			s.Handlers = []string{"static"}
			return s
		}(), []string{"activate network-restart", "activate firewall-reload"}},
		{"LAN written, not live", func() *router.Snapshot {
			s := clone(base)
			arrange(t, s, "lan 192.168.77.1/24")
			return s
		}(), []string{"activate network-reload", "activate firewall-reload"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			// The live addresses are shared with base: sorting them back is not needed.
			p, _ := plan.For(h, c.s, access)
			wantSteps(t, p, c.want...)
		})
	}
}

func parseNetwork(s string) (n subnet.Network) {
	if err := n.UnmarshalText([]byte(s)); err != nil {
		panic(err)
	}
	return n
}

// One peer's life: each change is its section, the live tunnel and the record,
// without a guard; its preshared key stays as long as its own key does.
func TestPeerLife(t *testing.T) {
	for _, release := range []string{"21.02", "22.03", "25.12"} {
		t.Run(release, func(t *testing.T) {
			h := gateway(t)
			k := h.Peers[1].PublicKey.String()
			s := settled(t, h, release)
			psk := presharedOf(t, s, "hw_peer_laptop")
			var secrets plan.Secrets
			next := func(h home.Home, want ...string) {
				t.Helper()
				p, _ := plan.For(h, s, access)
				wantSteps(t, p, want...)
				if p.NeedsGuard() || len(p.Risks()) > 0 || p.Needs().Private || len(p.Needs().Preshared) != len(secrets.Preshared) {
					t.Errorf("it takes more than it should:\n%s", text(p))
				}
				s = settle(t, s, roundTrip(t, p), secrets)
				mustEmpty(t, h, s)
			}
			h = with(h, 1, func(p *home.Peer) { p.Disabled = true })
			next(h, "change network.hw_peer_laptop", "peer-remove "+k, "record")
			if _, live := s.Tunnels["wg0"].Peer(h.Peers[1].PublicKey); live {
				t.Error("a disabled peer is live")
			}
			if disabled := s.Written.Disabled["laptop"] != ""; disabled != (release == "21.02") {
				t.Errorf("remembered as disabled: %v", disabled)
			}
			h = with(h, 1, func(p *home.Peer) { p.Disabled = false })
			next(h, "change network.hw_peer_laptop", "peer-add "+k, "record")
			if presharedOf(t, s, "hw_peer_laptop") != psk {
				t.Error("its preshared key is another one after disabling and enabling")
			}
			h = with(h, 1, func(p *home.Peer) { p.Name = "old-laptop" })
			next(h, "create network.hw_peer_old_laptop", "remove network.hw_peer_laptop", "record")
			if presharedOf(t, s, "hw_peer_old_laptop") != psk {
				t.Error("its preshared key is another one after renaming")
			}
			// Another key is another device, or the same one after a loss: what it
			// shared with the router does not stay.
			fresh, _ := key.NewPreshared(strings.NewReader(strings.Repeat("f", key.Size)))
			secrets.Preshared = map[string]key.Preshared{"old-laptop": fresh}
			h = with(h, 1, func(p *home.Peer) { p.PublicKey = testPublic(50) })
			next(h, "change network.hw_peer_old_laptop", "peer-remove "+k, "peer-add "+testPublic(50).String(), "record")
			if presharedOf(t, s, "hw_peer_old_laptop") != router.Digest(fresh.Reveal()) {
				t.Error("a peer with a new key still has its old preshared key")
			}
			secrets.Preshared = nil
			h.Peers = h.Peers[:1]
			next(h, "remove network.hw_peer_old_laptop", "peer-remove "+testPublic(50).String(), "record")
		})
	}
}

// From 25.12 on live addresses are put right without cutting anybody off.
func TestLiveAddresses(t *testing.T) {
	for release, how := range map[string]plan.How{"24.10": plan.TunnelUp, "25.12": plan.TunnelRenew} {
		h := gateway(t)
		s := settled(t, h, release)
		arrange(t, s, "wg0 10.86.20.1/32")
		p, _ := plan.For(h, s, access)
		wantSteps(t, p, "activate "+string(how), "activate firewall-reload")
		tunnel := *s.Tunnels["wg0"]
		tunnel.ListenPort++
		s.Tunnels["wg0"] = &tunnel
		p, _ = plan.For(h, s, access)
		wantSteps(t, p, "activate tunnel-up", "activate firewall-reload")
	}
}

// A key that somebody changed on the router stays, live peers follow it, and it
// is said.
func TestChangedKeyIsKeptAndSaid(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "24.10")
	other := edit(t, s, "network", testPreshared(0).Reveal(), testPreshared(33).Reveal())
	p, _ := plan.For(h, other, access)
	wantSteps(t, p, "peer-change "+h.Peers[0].PublicKey.String(), "record")
	if !p.Steps[1].Drift || !strings.Contains(p.Steps[1].Who, "hw_peer_phone") {
		t.Errorf("%s", text(p))
	}
	mustEmpty(t, h, settle(t, other, p, plan.Secrets{}))
}

// Packages and access come before the guarded window, live peers and the record
// after it; writing comes before activating, the network before the firewall.
func TestOrder(t *testing.T) {
	h := gateway(t)
	h.LANs[0].Renumber, h.LANs[0].Network = true, parseNetwork("10.71.4.0/24")
	p, _ := plan.For(h, shipped(t, "25.12"), access)
	rank := func(s plan.Step) int {
		switch s.Do {
		case plan.Authorize, plan.SetPassword:
			return 0
		case plan.Install:
			return 1
		case plan.Create, plan.Change, plan.Adjust, plan.Remove:
			return 2 + slices.Index(router.Touched(), s.Config)
		case plan.Activate:
			return 10 + slices.Index([]plan.How{plan.NetworkRestart, plan.FirewallReload, plan.DnsmasqReload, plan.OdhcpdReload}, s.How)
		}
		return 20
	}
	if !slices.IsSortedFunc(p.Steps, func(a, b plan.Step) int { return rank(a) - rank(b) }) {
		t.Errorf("out of order:\n%s", text(p))
	}
	for _, s := range p.Guarded() {
		if r := rank(s); r < 2 || r >= 20 {
			t.Errorf("%s belongs outside the window", s.ID)
		}
	}
	if n := len(p.Guarded()); n < 10 {
		t.Errorf("only %d steps in the window", n)
	}
}

func with(h home.Home, i int, change func(*home.Peer)) home.Home {
	h.Peers = slices.Clone(h.Peers)
	change(&h.Peers[i])
	return h
}

func presharedOf(t *testing.T, s *router.Snapshot, section string) string {
	t.Helper()
	sec, ok := s.Config("network").Section(section)
	text, has := sec.Get("preshared_key")
	if !ok || !has {
		t.Fatalf("network.%s has no preshared key", section)
	}
	return router.Digest(text)
}

// Secrets are used only where the router has none.
func TestSecretsOnlyWhereMissing(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "24.10")
	before := presharedOf(t, s, "hw_peer_phone")
	h.Tunnel.Port = 443
	h.Peers = append(h.Peers, home.Peer{Name: "tv", Address: netip.MustParseAddr("10.86.20.9"), PublicKey: testPublic(5), Preshared: true})
	p, _ := plan.For(h, s, access)
	if n := p.Needs(); n.Private || !slices.Equal(n.Preshared, []string{"tv"}) {
		t.Errorf("needs %+v", n)
	}
	var missing *plan.MissingSecretError
	if _, err := p.Edit(s.Configs, plan.Secrets{}); !errors.As(err, &missing) || missing.Peer != "tv" {
		t.Errorf("got %v", err)
	}
	others := plan.Secrets{Private: testPrivate(9), Preshared: map[string]key.Preshared{"tv": testPreshared(9), "phone": testPreshared(8)}}
	after := settle(t, s, p, others)
	if presharedOf(t, after, "hw_peer_phone") != before {
		t.Error("phone's preshared key was replaced")
	}
	if after.Tunnels["wg0"].PublicKey != testPrivate(0).Public() {
		t.Error("the tunnel's key was replaced")
	}
	if presharedOf(t, after, "hw_peer_tv") != router.Digest(testPreshared(9).Reveal()) {
		t.Error("tv did not get its key")
	}
}

// `generate`, or half a key, is none: WireGuard would never come up with it.
func TestUnreadableKeyIsReplaced(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "24.10")
	bad := edit(t, s, "network", testPrivate(0).Reveal(), "generate")
	p, _ := plan.For(h, bad, access)
	if !p.Needs().Private || !slices.Contains(ids(p), "activate tunnel-up") {
		t.Errorf("%s", text(p))
	}
	mustEmpty(t, h, settle(t, bad, p, secretsFor(h)))
}

func TestForeignPeersAreLeftAlone(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "24.10")
	text0 := string(s.Config("network").Text())
	guest := "\nconfig wireguard_wg0\n\toption public_key '" + testPublic(60).String() + "'\n\tlist allowed_ips '10.86.20.60/32'\n"
	own := clone(s)
	put(t, own, "network", text0+guest)
	enliven(t, own)
	mustEmpty(t, h, own)

	taken := clone(s)
	put(t, taken, "network", text0+strings.Replace(guest, "20.60", "20.2", 1))
	if p, _ := plan.For(h, taken, access); len(p.Blocked) != 1 || p.Blocked[0].Code != "peer-address-taken" {
		t.Errorf("%s", text(p))
	}
	put(t, taken, "network", text0+strings.Replace(guest, testPublic(60).String(), h.Peers[0].PublicKey.String(), 1))
	if p, _ := plan.For(h, taken, access); len(p.Blocked) != 1 || p.Blocked[0].Code != "peer-key-taken" {
		t.Errorf("%s", text(p))
	}
}

func TestRefuse(t *testing.T) {
	h := gateway(t)
	s := shipped(t, "24.10")
	p, _ := plan.For(h, s, access)
	if f := p.Refuse(s.Fingerprint()); f != nil {
		t.Errorf("refused by the router it was made for: %v", f)
	}
	other := edit(t, s, "firewall", "Allow-Ping", "Allow-Pong")
	f := p.Refuse(other.Fingerprint())
	if f == nil || len(f.Seen) != 1 || !strings.Contains(f.Seen[0], "firewall") || len(f.Next) == 0 {
		t.Errorf("got %+v", f)
	}
	upgraded := clone(s)
	upgraded.Board.Release.Version = "25.12.5"
	if f := p.Refuse(upgraded.Fingerprint()); f == nil || !strings.Contains(f.Seen[0], "25.12.5") {
		t.Errorf("got %+v", f)
	}
}

// Edit itself refuses documents that are not those of the plan, and leaves the
// given ones alone.
func TestEditIsStrictAndPure(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "24.10")
	h.Tunnel.Port, h.Router.Input = 443, "reject"
	p, _ := plan.For(h, s, access)
	before := string(s.Config("network").Text())
	if _, err := p.Edit(s.Configs, plan.Secrets{}); err != nil {
		t.Fatal(err)
	}
	if string(s.Config("network").Text()) != before {
		t.Error("Edit changed the document it was given")
	}
	fresh := shipped(t, "24.10")
	created, _ := plan.For(h, fresh, access)
	var stale *plan.StaleError
	if _, err := created.Edit(s.Configs, secretsFor(h)); !errors.As(err, &stale) {
		t.Errorf("a section that is already there was made: %v", err)
	}
	if _, err := p.Edit(nil, plan.Secrets{}); !errors.As(err, &stale) {
		t.Errorf("a section that is gone was changed: %v", err)
	}
	for config, change := range map[string][2]string{
		"network":  {"option listen_port '51820'", "option listen_port '9'"},
		"firewall": {"option dest_port '51820'", "option dest_port '9'"},
	} {
		if _, err := p.Edit(edit(t, s, config, change[0], change[1]).Configs, plan.Secrets{}); !errors.As(err, &stale) || stale.Config != config {
			t.Errorf("%s: got %v", config, err)
		}
	}
}

func TestAdjustIsRememberedAndSetBackIsDrift(t *testing.T) {
	h := gateway(t)
	h.Router.Input = "reject"
	s := settled(t, h, "22.03")
	const k = "firewall.@defaults[0].input"
	if s.Written.Adjusted[k] != "ACCEPT" {
		t.Errorf("adjusted: %v", s.Written.Adjusted)
	}
	back := edit(t, s, "firewall", "option input 'REJECT'", "option input 'accept'")
	p, _ := plan.For(h, back, access)
	wantSteps(t, p, "adjust "+k, "activate firewall-reload", "record")
	if !p.Steps[0].Drift {
		t.Error("setting it back is not called drift")
	}
	if w := settle(t, back, p, plan.Secrets{}).Written; w.Adjusted[k] != "ACCEPT" {
		t.Errorf("the first value is forgotten: %v", w.Adjusted)
	}
}

// An option can also be taken out of a section that is not ours.
func TestAdjustTakesAnOptionOut(t *testing.T) {
	s := shipped(t, "24.10")
	want := blueprint.Want{Adjust: []blueprint.Adjust{{Config: "dhcp", Section: "@dnsmasq[0]", Option: "domain"}, {Config: "dhcp", Section: "@dnsmasq[0]", Option: "interface"}}}
	p := roundTrip(t, plan.Between(want, s, router.Written{}))
	writes := p.Only(plan.Create, plan.Change, plan.Adjust, plan.Remove)
	if len(writes) != 1 || writes[0].ID != "adjust dhcp.@dnsmasq[0].domain" {
		t.Fatalf("%s", text(p))
	}
	docs, err := p.Edit(s.Configs, plan.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	got := docs["dhcp"].OfType("dnsmasq")[0]
	if want := s.Config("dhcp").OfType("dnsmasq")[0].Without("domain"); !uci.EqualSections(got, want) {
		t.Errorf("%+v", got)
	}
}

// What others wrote about the old network is theirs to change, but they are told.
func TestMoveNamesWhatStaysBehind(t *testing.T) {
	h := gateway(t)
	h.LANs[0].Renumber = true
	h.LANs[0].Network = parseNetwork("10.71.4.0/24")
	s := shipped(t, "24.10")
	put(t, s, "dhcp", string(s.Config("dhcp").Text())+"config host 'nas'\n\toption ip '192.168.1.10'\n\nconfig host 'far'\n\toption ip '192.168.9.1'\n")
	put(t, s, "firewall", string(s.Config("firewall").Text())+"config rule 'cams'\n\tlist src_ip '192.168.1.64/26'\n")
	p, _ := plan.For(h, s, access)
	var told string
	for _, n := range p.Notes {
		if n.Code == "names-old-network" {
			told = n.Text
		}
	}
	if !strings.Contains(told, "192.168.1.0/24") || !strings.Contains(told, "firewall.cams.src_ip, dhcp.nas.ip") || strings.Contains(told, "far") || strings.Contains(told, "lan.ipaddr") {
		t.Errorf("told %q", told)
	}
	if len(p.Moves) != 1 || p.Moves[0].To.String() != "10.71.4.1" || p.Mapping == nil || p.Mapping.To.String() != "192.168.2.253" {
		t.Errorf("moves %v, mapping %v", p.Moves, p.Mapping)
	}
}

func TestParseIsStrict(t *testing.T) {
	p, _ := plan.For(gateway(t), shipped(t, "24.10"), access)
	good, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Parse(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"other format":   {`"format":1`, `"format":2`},
		"unknown key":    {`"tunnel":`, `"run":"rm","tunnel":`},
		"unknown action": {`"do":"create"`, `"do":"reboot"`},
		"unknown way":    {`"how":"firewall-reload"`, `"how":"reboot"`},
		"unknown risk":   {`"risk":"pauses-network"`, `"risk":"none"`},
		"other step":     {`"id":"create network.wg0"`, `"id":"create network.lan"`},
		"secret value":   {`"option":"private_key","secret":"new"`, `"option":"private_key","values":["x"],"secret":"new"`},
		"unknown secret": {`"secret":"new"`, `"secret":"old"`},
		"cut off":        {`"steps":`, ``},
		"trailing":       {`{"format":1`, `{}{"format":1`},
	} {
		bad := strings.Replace(string(good), change[0], change[1], 1)
		if bad == string(good) {
			t.Errorf("%s: the case changes nothing", name)
		}
		var format *plan.FormatError
		if _, err := plan.Parse([]byte(bad)); !errors.As(err, &format) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	p, _ := plan.For(parseHome(f, archive(f, "testdata/gateway.txtar")["home.toml"]), shipped(f, "25.12"), access)
	data, _ := json.Marshal(p)
	f.Add(data)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := plan.Parse(data)
		if err != nil {
			return
		}
		_, _ = p.Edit(map[string]*uci.Document{}, plan.Secrets{})
		p.Needs()
		p.Risks()
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := plan.Parse(again); err != nil {
			t.Errorf("%v\n%s", err, again)
		}
	})
}

func TestAccessAndPackages(t *testing.T) {
	h := gateway(t)
	s := settled(t, h, "25.12")
	s.Keys = []string{`from="192.168.1.0/24" ` + strings.Replace(access.Key, "me@laptop", "other comment", 1)}
	p, _ := plan.For(h, s, access)
	wantSteps(t, p)
	s.Keys, s.RootHash = nil, false
	p, _ = plan.For(h, s, access)
	wantSteps(t, p, "authorize", "set-password")
	if p.NeedsGuard() || !p.Needs().Password {
		t.Errorf("%s", text(p))
	}
	if p, _ = plan.For(h, s, blueprint.Access{}); !p.Empty() {
		t.Errorf("%s", text(p))
	}
	s = settled(t, h, "25.12")
	for i := range s.Installed {
		if s.Installed[i].Name == "ip-tiny" {
			s.Installed[i].Name = "ip-full"
		}
	}
	mustEmpty(t, h, s)
}
