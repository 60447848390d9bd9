package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/doctor"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/trace"
)

func household() home.Home {
	h := home.New()
	h.Tunnel.Network, h.Tunnel.Endpoint = subnet.MustParse("10.86.20.0/24"), "home.example.net"
	h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	h.Peers = []home.Peer{{Name: "phone", Address: netip.MustParseAddr("10.86.20.2")}}
	return h
}

func snapshot() *router.Snapshot {
	return &router.Snapshot{Time: time.Unix(1_790_000_000, 0), Interfaces: []router.Interface{
		{Name: "lan", Device: "br-lan", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}},
		{Name: "wan", Device: "wan", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.2.253/24")}, Gateways: []netip.Addr{netip.MustParseAddr("192.168.2.254")}},
	}}
}

// slow is a router that takes its time and then says nothing.
type slow time.Duration

func (s slow) Run(ctx context.Context, _ shell.Script) (shell.Result, error) {
	select {
	case <-time.After(time.Duration(s)):
		return shell.Result{}, errors.New("nothing")
	case <-ctx.Done():
		return shell.Result{}, ctx.Err()
	}
}

// Everybody is asked at once: the whole takes as long as the slowest probe, and a
// router that never answers is given up after a time that the reason names.
func TestSideBySide(t *testing.T) {
	for name, c := range map[string]struct {
		router, lookup, upstream, address time.Duration
		want                              time.Duration
	}{
		"the router is slow":   {9 * time.Second, time.Second, 2 * time.Second, 3 * time.Second, 9 * time.Second},
		"the address is slow":  {time.Second, time.Second, 2 * time.Second, 8 * time.Second, 8 * time.Second},
		"names never answer":   {time.Second, time.Hour, time.Second, time.Second, lookupTime},
		"the router is silent": {time.Hour, time.Second, time.Second, time.Second, examineTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wait := func(ctx context.Context, d time.Duration) {
					select {
					case <-time.After(d):
					case <-ctx.Done():
					}
				}
				r := Request{Home: household(), Shell: slow(c.router), Snapshot: snapshot(), Networks: func() ([]netip.Prefix, error) { return nil, nil },
					Lookup: func(ctx context.Context, _ string) ([]netip.Addr, error) {
						wait(ctx, c.lookup)
						return []netip.Addr{netip.MustParseAddr("203.0.113.7")}, ctx.Err()
					},
					Upstream: func(ctx context.Context) trace.Upstream { wait(ctx, c.upstream); return trace.Upstream{Asked: true} },
					Address: func(ctx context.Context) doctor.Fact[doctor.Address] {
						wait(ctx, c.address)
						return doctor.Known(doctor.Address{Kind: doctor.Public})
					}}
				start := time.Now()
				f, took := Gather(t.Context(), r, nil)
				total := time.Since(start)
				slowest := slices.MaxFunc(took, func(a, b Timing) int { return int(a.Took - b.Took) })
				if total != c.want || total != slowest.Took {
					t.Errorf("%s in all, the slowest was %s with %s", total, slowest.Probe, slowest.Took)
				}
				if !f.Upstream.Known || !f.Address.Known || !f.Router.Known || f.Module.Known || f.Module.Because == "" {
					t.Errorf("%+v", f)
				}
				if f.Endpoint.Known != (c.lookup < lookupTime) {
					t.Errorf("endpoint: %+v", f.Endpoint)
				}
			})
		})
	}
}

// Without a way into the router everything about it is not known, with a reason, and
// the doctor says so.
func TestNobodyGetsIn(t *testing.T) {
	r := Request{Home: household(), Login: doctor.Login{Addr: "192.168.1.1", Stuck: doctor.Silent},
		Networks: func() ([]netip.Prefix, error) { return []netip.Prefix{netip.MustParsePrefix("192.168.1.77/24")}, nil },
		Lookup:   func(context.Context, string) ([]netip.Addr, error) { return nil, &net.DNSError{IsNotFound: true} }}
	f, _ := Gather(t.Context(), r, nil)
	if !f.Endpoint.Known || len(f.Endpoint.Value) != 0 {
		t.Errorf("a name without address is a fact: %+v", f.Endpoint)
	}
	rep := doctor.Judge(f)
	if len(rep.Findings) != 1 || rep.Findings[0].Rule != "power" || len(rep.NotTested) < 50 {
		t.Errorf("%+v", rep.Findings)
	}
	for _, c := range rep.NotTested {
		if c.Because == "" || c.Because == "nobody asked" && c.Rule != "openwrt" {
			t.Errorf("%s: not tested because %q", c.Rule, c.Because)
		}
	}
	r.Lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no network") }
	if f, _ := Gather(t.Context(), r, nil); f.Endpoint.Known {
		t.Error("a name service that does not answer is taken for an answer")
	}
}

// What to look at comes from what the look showed.
func TestExamination(t *testing.T) {
	h, s := household(), snapshot()
	at := netip.MustParseAddr
	self := at("192.168.1.77")
	s.Neighbours = []router.Neighbour{{Addr: self}, {Addr: at("192.168.2.254")}, {Addr: at("192.168.1.10")}, {Addr: at("192.168.1.11")}, {Addr: at("192.168.1.12")}, {Addr: at("192.168.1.13")}}
	peer := router.Peer{PublicKey: key.Public{}}
	s.Tunnels = map[string]*router.Tunnel{"wg0": {Peers: []router.Peer{peer}}}
	e := Examination(h, s, self)
	if len(e.Targets) != mostTargets || e.Targets[0] != at("192.168.1.10") || e.Gateway != at("192.168.2.254") || e.Name != "home.example.net" {
		t.Errorf("%+v", e)
	}
	if e.Times != 1 || e.Patience != knockTime {
		t.Errorf("nobody was ever in: %+v", e)
	}
	s.Tunnels["wg0"].Peers[0].Received, s.Tunnels["wg0"].Peers[0].Handshake = 4000, s.Time.Add(-time.Hour)
	if e = Examination(h, s, self); e.Times != 1 || e.Patience != 0 {
		t.Errorf("somebody was in: %+v", e)
	}
	s.Tunnels["wg0"].Peers[0].Handshake = s.Time.Add(-time.Minute)
	if e = Examination(h, s, self); e.Times != sampleTimes {
		t.Errorf("somebody is in: %+v", e)
	}
	h.Tunnel.Endpoint = "203.0.113.7"
	if e = Examination(h, s, self); e.Name != "" {
		t.Errorf("asks for %q", e.Name)
	}
}

// Progress turns a sample into a glimpse; what could not be counted is not known.
func TestProgress(t *testing.T) {
	if _, err := Progress(t.Context(), slow(0), household(), openwrt.Examination{}); err == nil {
		t.Error("no answer is no error")
	}
}
