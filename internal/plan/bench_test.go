package plan_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
)

// crowd is a household with n peers.
func crowd(n int) home.Home {
	h := home.New()
	h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	h.Tunnel.Network = subnet.MustParse("10.64.0.0/16")
	h.Tunnel.Network6 = subnet.MustParse("fd3a:71c9:5e02::/64")
	for i := range n {
		h.Peers = append(h.Peers, home.Peer{
			Name: fmt.Sprintf("peer-%d", i), PublicKey: testPublic(i), Preshared: true,
			Address:  h.Tunnel.Network.Host(uint32(i) + 2).Addr(),
			Address6: h.Tunnel.Network6.Host(uint32(i) + 2).Addr(),
		})
	}
	return h
}

// The goal: at most 150 ms and 100 MB (B/op) for 10,000 peers, drawing included.
func BenchmarkPlan10000Peers(b *testing.B) {
	h := crowd(10_000)
	fresh := shipped(b, "24.10")
	p, _ := plan.For(h, fresh, access)
	done := settle(b, fresh, p, secretsFor(h))
	changed := crowd(10_000)
	for i := range changed.Peers {
		if i%2 == 0 {
			changed.Peers[i].Address6 = netip.Addr{}
		}
	}
	for _, c := range []struct {
		name string
		h    home.Home
		s    *router.Snapshot
		want int // steps at least
	}{
		{"nothing to do", h, done, 0},
		{"half changed", changed, done, 5000},
		{"all new", h, fresh, 10000},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, _ := plan.For(c.h, c.s, access)
				if len(p.Blocked) > 0 || len(p.Steps) < c.want || c.want == 0 && !p.Empty() {
					b.Fatalf("%d steps, %v", len(p.Steps), p.Blocked)
				}
			}
		})
	}
}
