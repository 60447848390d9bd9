package apply_test

import (
	"testing"
	"testing/synctest"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/router"
)

// What a user waits for is the round trips: every script that runs on the router
// is one.
func TestRoundTrips(t *testing.T) {
	for _, line := range router.Lines() {
		t.Run(line.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHousehold(t, world.Options{Line: line})
				defer h.close()
				var last int64
				trips := func(what string, most int64) {
					t.Helper()
					now := h.w.Router.Stats().Execs
					if now-last > most || now == last {
						t.Errorf("%s: %d round trips, at most %d are allowed", what, now-last, most)
					}
					t.Logf("%s: %d", what, now-last)
					last = now
				}
				last = h.w.Router.Stats().Execs
				hm := h.want()
				if p := h.must(hm, nil); p.Empty() {
					t.Error("a fresh box needed nothing")
				}
				trips("fresh apply", 12)
				if p := h.must(hm, nil); !p.Empty() {
					t.Errorf("twice is not once: %v", p.Steps)
				}
				trips("nothing to do", 3)
				hm = peer(hm, "phone", 1)
				h.must(hm, keysOf(hm))
				trips("peer add", 3)
				h.snapshot()
				trips("status", 1)
				hm.Peers = nil
				h.must(hm, nil)
				trips("peer remove", 3)
			})
		})
	}
}

// After a restart everything is there again: what is live comes from the files.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t, world.Options{Uplink: home.Behind})
		defer h.close()
		hm := peer(h.want(), "phone", 1)
		h.must(hm, keysOf(hm))
		h.w.Router.PowerCycle()
		h.find()
		if p := h.must(hm, keysOf(hm)); !p.Empty() {
			t.Errorf("after a restart there is something to do: %v", p.Steps)
		}
	})
}
