package hostnet

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

var _ eva.Net = (*Cable)(nil)

// quick are a box's times for tests: everything at once, and a flash as fast as
// memory.
var quick = evabox.Times{Link: time.Millisecond, Stack: time.Millisecond, Window: time.Minute, Boot: time.Minute, Erase: time.Millisecond, Check: 1, Late: 1, Rate: 1 << 40}

func ownCable(t testing.TB, c *cableTest, at ...netip.Addr) *Cable {
	t.Helper()
	if at == nil {
		at = eva.Usual()
	}
	k, err := Open(t.Context(), c.card(), Options{At: at, Only: Own})
	must(t, err)
	t.Cleanup(func() { k.Close() })
	return k
}

func find(t testing.TB, k *Cable) *eva.Box {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	box, err := eva.Find(ctx, k, eva.Ask{Look: []eva.Look{k.Look}})
	must(t, err)
	return box
}

// The whole of it over a cable between two kernels: found, held, read, written,
// read back. The computer's own network set-up is the same afterwards.
func TestOwnFindsAndFlashes(t *testing.T) {
	for _, at := range []string{"192.168.178.1", "169.254.120.1", "192.168.2.254"} {
		t.Run(at, func(t *testing.T) {
			c := newCable(t)
			before := c.card()
			k := ownCable(t, c)
			b := evabox.New(c, evabox.Options{Address: netip.MustParseAddr(at), Times: quick})
			t.Cleanup(b.Close)
			b.Power(true)
			box := find(t, k)
			defer box.Close()
			if box.Addr().String() != at {
				t.Errorf("found at %v", box.Addr())
			}
			image := evabox.Image4040(1_000_000, 3_000_000)
			e, err := box.Environment(t.Context())
			must(t, err)
			p, err := eva.NewPlan(e, eva.File{Role: eva.Firmware, Size: int64(len(image))})
			must(t, err)
			out, err := box.Send(t.Context(), p, nil, bytes.NewReader(image))
			if err != nil || out.Checks[0].Verdict != eva.Same || !bytes.Equal(b.Flash("mtd1"), image) {
				t.Errorf("%v %+v", err, out)
			}
			after := c.card()
			if !slices.Equal(before.Addrs, after.Addrs) && len(after.Addrs) > 1 {
				t.Errorf("addresses were %v, are %v", before.Addrs, after.Addrs)
			}
		})
	}
}
