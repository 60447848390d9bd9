package apply_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

// household is a person with a computer in an emulated home.
type household struct {
	t    testing.TB
	w    *world.World
	own  shell.LoginKey
	pins *shell.Memory
	addr string
}

func newHousehold(t testing.TB, o world.Options) *household {
	t.Helper()
	w, err := world.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	own, err := shell.MakeKey(rand.Reader, "test")
	if err != nil {
		t.Fatal(err)
	}
	h := &household{t: t, w: w, own: own, pins: new(shell.Memory)}
	h.within(time.Minute, w.Laptop.WaitAddress)
	at, ok := w.RouterLAN()
	if !ok {
		t.Fatal("the router has no address on the home LAN")
	}
	h.addr = at.String()
	return h
}

// close switches the home off and complains about commands that the emulator
// lacks: then the emulator has to be extended, not the script bent.
func (h *household) close() {
	h.t.Helper()
	if u := h.w.Router.Unknown(); len(u) > 0 {
		h.t.Errorf("the emulated router lacks %v: extend internal/lab/owrt", u)
	}
	h.w.Close()
}

func (h *household) within(d time.Duration, f func(context.Context) error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), d)
	defer cancel()
	if err := f(ctx); err != nil {
		h.t.Fatal(err)
	}
}

func (h *household) way() apply.Way {
	o := shell.Options{Dial: h.w.LaptopDial, HostKeys: h.pins, Config: "none"}
	o.Auth.Signers = append(o.Auth.Signers, h.own.Signer())
	target := func(at string) shell.Target { return shell.Target{Addr: at, User: "root", ID: "router"} }
	return apply.Way{
		Addr: h.addr,
		Open: func(ctx context.Context, at string) (apply.Conn, error) {
			c, err := shell.Open(ctx, target(at), o)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		NoneRefused: func(ctx context.Context, at string) (bool, error) {
			refused, _, err := shell.NoneRefused(ctx, target(at), o)
			return refused, err
		},
	}
}

func (h *household) request(hm home.Home) apply.Request {
	return apply.Request{
		Home: hm, Access: blueprint.Access{Key: h.own.Authorized, Password: true},
		PasswordHash: uci.Hidden("$5$saltsalt$zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz1"),
		Rand:         rand.Reader, Preshared: map[string]key.Preshared{},
	}
}

// want is the usual home.toml for this home.
func (h *household) want() home.Home {
	hm := home.New()
	hm.Router.Address = h.addr
	hm.Uplink.Kind = h.w.Options.Uplink
	hm.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	switch hm.Uplink.Kind {
	case home.Behind:
		hm.Uplink.Network = subnet.MustParse("192.168.2.0/24")
	case home.OneArmed:
		hm.LANs[0].Network = subnet.MustParse("192.168.2.0/24")
	}
	hm.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
	hm.Tunnel.Network6 = subnet.MustParse("fd12:3456:789a:1::/64")
	hm.Tunnel.Endpoint = world.EndpointName
	hm.Router.Input = "reject"
	return hm
}

func psk(seed byte) key.Preshared {
	k, _ := key.NewPreshared(strings.NewReader(strings.Repeat(string(rune('a'+seed)), 32)))
	return k
}

// peer adds a peer to a home.
func peer(hm home.Home, name string, seed byte) home.Home {
	k, _ := key.NewPrivate(strings.NewReader(strings.Repeat(string(rune('A'+seed)), 32)))
	p, err := hm.NextPeer(name, k.Public())
	if err != nil {
		panic(err)
	}
	hm.Peers = append(append([]home.Peer(nil), hm.Peers...), p)
	return hm
}

var look = openwrt.LookFor{Packages: []string{blueprint.Tools, "ip-tiny", "ip-full", blueprint.Harmful}}

// run is one run of heimweg: look, plan, carry out.
func (h *household) run(ctx context.Context, hm home.Home, keys map[string]key.Preshared) (*plan.Plan, error) {
	s, err := apply.Start(ctx, h.way(), look, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := apply.Check(s.Snapshot(), h.addr); err != nil {
		return nil, err
	}
	r := h.request(hm)
	r.Preshared = keys
	p := s.Plan(r)
	if len(p.Blocked) > 0 {
		return p, fmt.Errorf("blocked: %w", p.Blocked[0])
	}
	if p.Empty() {
		return p, nil
	}
	err = s.Run(ctx, p, r)
	if to := s.Moved(); to != "" && err == nil {
		h.addr = to
	}
	return p, err
}

// must runs heimweg and expects it to succeed.
func (h *household) must(hm home.Home, keys map[string]key.Preshared) *plan.Plan {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Minute)
	defer cancel()
	p, err := h.run(ctx, hm, keys)
	if err != nil {
		h.t.Fatalf("%v\n%s\nthe box says:\n%s", err, explain(err), strings.Join(tail(h.w.Router.Log(), 30), "\n"))
	}
	return p
}

func tail(s []string, n int) []string { return s[max(0, len(s)-n):] }

func explain(err error) string {
	var b strings.Builder
	for e := err; e != nil; e = errors.Unwrap(e) {
		fmt.Fprintf(&b, "  %T: %v\n", e, e)
	}
	return b.String()
}

// snapshot looks at the router without changing anything.
func (h *household) snapshot() *router.Snapshot {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Minute)
	defer cancel()
	s, err := apply.Start(ctx, h.way(), look, nil)
	if err != nil {
		h.t.Fatalf("%v\n%s\nthe box says:\n%s", err, explain(err), strings.Join(tail(h.w.Router.Log(), 30), "\n"))
	}
	defer s.Close()
	return s.Snapshot()
}
