package uplink_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
	"github.com/heimweg/heimweg/internal/uplink"
)

// Whatever is asked by whichever protocol and however the box behaves: what leads
// to somebody else stays as it is, what we are told is open is open, and what we
// are told is closed is closed.
func TestLaws(t *testing.T) {
	runs := 30
	if need.Long() {
		runs = 2000
	}
	opened, closed := 0, 0
	for seed := range runs {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 5))
			opt := igd.Options{UPnP: r.IntN(3), PCP: r.IntN(2) == 0, NATPMP: r.IntN(2) == 0, PPP: r.IntN(4) == 0}
			if r.IntN(3) == 0 {
				opt.TR064 = &igd.Account{User: "heimweg", Password: "swordfish"}
			}
			h := newHall(t, opt)
			o := h.behind()
			if r.IntN(3) == 0 {
				o = h.beside()
			}
			if r.IntN(2) == 0 {
				o.Login = uplink.NewLogin("heimweg", "swordfish")
			}
			o.Nonce = [12]byte{7}
			var log []string
			for range 20 {
				log = append(log, h.step(r, o))
				if t.Failed() {
					t.Fatalf("seed %d, %+v:\n%q", seed, opt, log)
				}
			}
			opened, closed = opened+h.opened, closed+h.closed
		})
	}
	if opened < runs/2 || closed < runs/10 {
		t.Errorf("only %d times open and %d times closed in %d runs", opened, closed, runs)
	}
}

// step does one thing and holds it to the laws.
func (h *hall) step(r *rand.Rand, o uplink.Options) string {
	ports := []uint16{51820, 51821, 1194}
	w := uplink.Want{Proto: "udp", External: ports[r.IntN(3)], Internal: ports[r.IntN(3)]}
	if r.IntN(2) == 0 {
		w.Internal, w.Lease = 0, time.Duration(r.IntN(3))*time.Hour
	}
	inside := w.Internal
	if inside == 0 {
		inside = w.External
	}
	ours := func(m ispbox.Mapping) bool { return m.To.Addr() == client }
	others := func() []ispbox.Mapping { return slices.DeleteFunc(h.box.Mappings(), ours) }
	switch r.IntN(6) {
	case 0:
		to := netip.AddrPortFrom(netip.MustParseAddr("192.168.2.17"), w.External)
		if !slices.ContainsFunc(h.box.Mappings(), func(m ispbox.Mapping) bool { return m.External == w.External }) {
			h.box.Map("udp", w.External, to)
		}
		return fmt.Sprint("somebody else takes ", w.External)
	case 1:
		d := time.Duration(r.IntN(30)) * time.Hour
		time.Sleep(d)
		return d.String()
	case 2:
		h.server.Set(func(f *igd.Faults) {
			*f = igd.Faults{OnlyPermanent: r.IntN(4) == 0, NoReadBack: r.IntN(4) == 0, NoOptions: r.IntN(4) == 0, OwnOnly: r.IntN(4) == 0,
				Endless: r.IntN(4) == 0, Refuse: []int{0, 0, 0, 501, 606, 728}[r.IntN(6)], MaxLease: time.Duration(r.IntN(2)) * time.Hour}
		})
		return "it behaves otherwise"
	}
	g, err := uplink.Ask(h.Context(), o)
	before := others()
	if r.IntN(2) == 0 {
		m, mapErr := g.Map(h.Context(), w)
		is := slices.ContainsFunc(h.box.Mappings(), func(m ispbox.Mapping) bool {
			return m.External == w.External && m.To == netip.AddrPortFrom(client, inside)
		})
		if mapErr == nil && (!is || err != nil || m.External != w.External || m.To != netip.AddrPortFrom(client, inside)) {
			h.Errorf("mapped %+v: %v, %+v", w, is, h.box.Mappings())
		}
		if mapErr == nil {
			h.opened++
		}
	} else {
		has := func(m ispbox.Mapping) bool { return m.External == w.External }
		was := slices.ContainsFunc(h.box.Mappings(), has)
		unmapErr := g.Unmap(h.Context(), uplink.Mapping{Proto: "udp", External: w.External})
		if unmapErr == nil && slices.ContainsFunc(h.box.Mappings(), has) {
			h.Errorf("unmapped %d: %+v", w.External, h.box.Mappings())
		}
		if unmapErr == nil && was {
			h.closed++
		}
	}
	if after := others(); fmt.Sprint(before) != fmt.Sprint(after) {
		h.Errorf("others had %+v, and have %+v", before, after)
	}
	return fmt.Sprintf("%+v", w)
}
