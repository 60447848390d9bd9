package plan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

// anyHome is a household for the shipped router: LAN 192.168.1.0/24, uplink LAN
// 192.168.2.0/24.
func anyHome(t *rapid.T) home.Home {
	h := home.New()
	h.Router.Address = "192.168.1.1"
	h.Router.Packages = rapid.SampledFrom([][]string{nil, {"nano"}, {"ip-full", "mc"}}).Draw(t, "packages")
	h.Router.Input = rapid.SampledFrom([]string{"", "reject", "accept"}).Draw(t, "input")
	h.Uplink.Kind = rapid.SampledFrom([]home.Kind{home.Behind, home.Direct, home.OneArmed}).Draw(t, "kind")
	h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	h.Reach.HomeLAN = rapid.Bool().Draw(t, "home-lan")
	h.Reach.NATToLAN = rapid.Bool().Draw(t, "nat")
	if h.Uplink.Kind != home.OneArmed {
		h.Reach.Internet = rapid.Bool().Draw(t, "internet")
		if rapid.Bool().Draw(t, "renumber") {
			h.LANs[0] = home.LAN{Interface: "lan", Network: subnet.MustParse("10.71.4.0/24"), Renumber: true}
		}
	}
	if h.Uplink.Kind == home.Behind {
		h.Uplink.Network = subnet.MustParse("192.168.2.0/24")
		h.Reach.UplinkLAN = rapid.Bool().Draw(t, "uplink-lan")
	}
	h.Tunnel.Interface = rapid.SampledFrom([]string{"wg0", "wghome"}).Draw(t, "interface")
	h.Tunnel.Network = subnet.MustParse(rapid.SampledFrom([]string{"10.86.20.0/24", "172.23.5.0/24"}).Draw(t, "tunnel"))
	if rapid.Bool().Draw(t, "ipv6") {
		h.Tunnel.Network6 = subnet.MustParse("fd3a:71c9:5e02::/64")
	}
	h.Tunnel.Port = rapid.SampledFrom([]uint16{51820, 443}).Draw(t, "port")
	h.Tunnel.MTU = rapid.SampledFrom([]int{0, 1400}).Draw(t, "mtu")
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 0, 5, rapid.ID).Draw(t, "peers") {
		h.Peers = append(h.Peers, anyPeer(t, h, i))
	}
	return h
}

func anyPeer(t *rapid.T, h home.Home, i int) home.Peer {
	p := home.Peer{
		Name:      []string{"phone", "laptop", "tablet", "guest-1", "guest_2", "tv", "nas", "x"}[i],
		Address:   h.Tunnel.Network.Host(uint32(i) + 2).Addr(),
		PublicKey: testPublic(i + 10*rapid.IntRange(0, 1).Draw(t, "key")),
		Preshared: rapid.Bool().Draw(t, "preshared"),
		Disabled:  rapid.Bool().Draw(t, "disabled"),
		Admin:     rapid.Bool().Draw(t, "admin"),
	}
	if !h.Tunnel.Network6.IsZero() {
		p.Address6 = h.Tunnel.Network6.Host(uint32(i) + 2).Addr()
	}
	return p
}

// anyRouter is a shipped router in which others have been at work.
func anyRouter(t *rapid.T) *router.Snapshot {
	s := shipped(t, rapid.SampledFrom(releases).Draw(t, "release"))
	for _, c := range []string{"network", "firewall", "dhcp"} {
		text := string(s.Config(c).Text())
		for range rapid.IntRange(0, 3).Draw(t, c+" additions") {
			extra := rapid.SampledFrom([]string{
				"# by hand\nconfig rule\n\toption name 'mine'\n\toption src lan\n\toption proto 'tcp udp'\n\toption target 'ACCEPT'\n",
				"\nconfig route 'to_cellar'\n\toption interface 'lan' # why\n\toption target \"10.9.0.0\"'/16'\n",
				"config host\n\tlist mac '00:00:5e:00:53:01'\n\toption ip '192.168.1.40'\n\n",
				"config wireguard_wg1\n\toption public_key 'KpT3C4Ov0ql3AkZIGenlHNv3ZyHpxsmha8GD0yIa+wo='\n\tlist allowed_ips '10.99.0.2/32'\n",
			}).Draw(t, "extra")
			if rapid.Bool().Draw(t, "in front") && !strings.Contains(text, "to_cellar") {
				text = extra + text
			} else if !strings.Contains(extra, "to_cellar") {
				text += extra
			}
		}
		put(t, s, c, text)
	}
	return s
}

// carryOut plans, checks what holds for every plan, and settles.
func carryOut(t tb, h home.Home, s *router.Snapshot) *router.Snapshot {
	t.Helper()
	p, _ := plan.For(h, s, access)
	for _, b := range p.Blocked {
		t.Fatalf("blocked: %s", b.What)
	}
	again, _ := plan.For(h, s, access)
	if !reflect.DeepEqual(p, again) {
		t.Fatalf("two plans from the same state differ:\n%s", cmp.Diff(text(p), text(again)))
	}
	saved := roundTrip(t, p)
	after := settle(t, s, saved, secretsFor(h))
	foreignUntouched(t, s, after, p)
	return after
}

func roundTrip(t tb, p *plan.Plan) *plan.Plan {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatalf("%v", err)
	}
	saved, err := plan.Parse(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if again, err := json.Marshal(saved); err != nil || !bytes.Equal(again, data) {
		t.Fatalf("saved twice it differs (%v):\n%s", err, cmp.Diff(string(data), string(again)))
	}
	if text(saved) != text(p) || !saved.Base.Equal(p.Base) || saved.Router != p.Router {
		t.Fatalf("the saved plan differs:\n%s", cmp.Diff(text(p), text(saved)))
	}
	return saved
}

// After a plan was carried out the next one is empty, sections of others are as
// they were, and a saved plan does the same as a fresh one: for any household on
// any router, and again when the household changes its mind.
func TestPlanAfterApplyIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyRouter(t)
		first := anyHome(t)
		one := carryOut(t, first, s)
		mustEmpty(t, first, one)
		if docs, err := must(plan.For(first, one, access)).Edit(one.Configs, plan.Secrets{}); err != nil || len(docs) != 0 {
			t.Fatalf("applying twice writes %d files (%v)", len(docs), err)
		}
		second := anyHome(t)
		if second.LANs[0].Network != subnet.NetworkOf(lanOf(t, one)) {
			second.LANs = first.LANs
			second.LANs[0].Renumber = false
		}
		if second.Uplink.Kind == home.OneArmed {
			second.LANs[0].Renumber = false
		}
		two := carryOut(t, second, one)
		mustEmpty(t, second, two)
		kept(t, first, second, one, two)
	})
}

func lanOf(t tb, s *router.Snapshot) netip.Prefix {
	sec, _ := s.Config("network").Section("lan")
	return configured(t, sec)[0]
}

func must[A, B any](a A, _ B) A { return a }

// kept: what is still wanted has kept its keys.
func kept(t *rapid.T, first, second home.Home, one, two *router.Snapshot) {
	for _, p := range second.Peers {
		for _, o := range first.Peers {
			x, _ := one.Config("network").Section(o.Section())
			y, _ := two.Config("network").Section(p.Section())
			if p.PublicKey == o.PublicKey && p.Preshared && o.Preshared && !same(x, y, "preshared_key") {
				t.Errorf("%s has another preshared key", p.Name)
			}
		}
	}
	x, _ := one.Config("network").Section(first.Tunnel.Interface)
	y, _ := two.Config("network").Section(second.Tunnel.Interface)
	if !same(x, y, "private_key") {
		t.Errorf("the tunnel has another private key")
	}
}

func same(x, y uci.Section, option string) bool {
	a, ok1 := x.Value(option)
	b, ok2 := y.Value(option)
	return ok1 && ok2 && a.Equal(b)
}

// Adding a peer and removing it again restores every file to the letter, and
// takes neither a guard nor an activation.
func TestAddingAndRemovingAPeerRestores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyHome(t)
		base := carryOut(t, h, anyRouter(t))
		more := h
		p := home.Peer{Name: "visitor", Address: h.Tunnel.Network.Host(200).Addr(), PublicKey: testPublic(99), Preshared: rapid.Bool().Draw(t, "psk")}
		more.Peers = append(slices.Clone(h.Peers), p)
		pl, _ := plan.For(more, base, access)
		if pl.NeedsGuard() || len(pl.Only(plan.Activate)) > 0 || len(pl.Risks()) > 0 {
			t.Fatalf("adding a peer takes more than it should:\n%s", text(pl))
		}
		if n := len(pl.Only(plan.PeerAdd)); n != 1 || len(pl.Steps) != 3 {
			t.Fatalf("adding a peer takes these steps:\n%s", text(pl))
		}
		with := carryOut(t, more, base)
		mustEmpty(t, more, with)
		back := carryOut(t, h, with)
		mustEmpty(t, h, back)
		for _, c := range router.Touched() {
			if !bytes.Equal(base.Config(c).Text(), back.Config(c).Text()) {
				t.Errorf("%s is not as it was", c)
			}
		}
		if !reflect.DeepEqual(base.Written.Digests, back.Written.Digests) {
			t.Errorf("the record is not as it was")
		}
	})
}

// No secret is in any rendering of a plan, a drawing, a snapshot or of the
// secrets themselves.
func TestNothingPrintsASecret(t *testing.T) {
	h := parseHome(t, archive(t, "testdata/admin.txtar")["home.toml"])
	for _, release := range []string{"21.02", "25.12"} {
		s := shipped(t, release)
		secrets := secretsFor(h)
		fresh, want := plan.For(h, s, access)
		after := settle(t, s, fresh, secrets)
		h2 := h
		h2.Tunnel.Interface, h2.Peers = "wg7", h.Peers[1:]
		changed, _ := plan.For(h2, after, access)
		broken := *after
		broken.Configs, broken.Hashes = maps.Clone(after.Configs), maps.Clone(after.Hashes)
		put(t, &broken, "network", strings.Replace(string(after.Config("network").Text()), "option nohostroute", "option metric '7'\n\toption nohostroute", 1))
		drifted, _ := plan.For(h, &broken, access)
		docs, err := changed.Edit(after.Configs, secrets)
		if err != nil {
			t.Fatal(err)
		}
		syncs, err := drifted.Sync(after.Configs)
		if err != nil {
			t.Fatal(err)
		}
		forbidden := []string{secrets.Private.Reveal()}
		for _, k := range secrets.Preshared {
			forbidden = append(forbidden, k.Reveal())
		}
		for _, v := range []any{fresh, *fresh, changed, drifted, want, &want, secrets, &secrets, docs, syncs, after, after.Written, *after} {
			silent(t, v, forbidden)
		}
		_, err = fresh.Edit(s.Configs, plan.Secrets{})
		silent(t, err, forbidden)
	}
}

func silent(t *testing.T, v any, forbidden []string) {
	t.Helper()
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	if data, err := json.Marshal(v); err == nil {
		b.Write(data)
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
	for _, secret := range forbidden {
		raw, err := key.ParsePreshared(secret)
		if err != nil {
			t.Fatal(err)
		}
		bits := raw.Bytes()
		for _, form := range []string{secret, fmt.Sprintf("%x", bits), fmt.Sprintf("%X", bits), fmt.Sprintf("%d", bits[:]), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret)} {
			if strings.Contains(b.String(), form) {
				t.Errorf("%T prints a secret", v)
				return
			}
		}
	}
}

func TestSilentSees(t *testing.T) {
	inner := new(testing.T)
	func() {
		silent(inner, struct{ leak [32]byte }{testPreshared(0).Bytes()}, []string{testPreshared(0).Reveal()})
	}()
	if !inner.Failed() {
		t.Error("a struct with a bare key in it passed")
	}
}
