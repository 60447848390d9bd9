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

// From the bootloader's first breath, the moment it listens, until we are logged
// in, over a cable between two kernels, power-on after power-on: the windows are
// caught however short they are.
func BenchmarkFirstBreath(b *testing.B) {
	c := newCable(b)
	k := ownCable(b, c)
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		box := evabox.New(c, evabox.Options{Times: evabox.Times{
			Link: time.Millisecond, Stack: time.Duration(len(took)*7%61) * time.Millisecond, Window: 1500 * time.Millisecond, Boot: time.Minute,
		}})
		drain(c.opened)
		found := make(chan time.Time, 1)
		go func() {
			find(b, k).Close()
			found <- time.Now()
		}()
		box.Power(true)
		opened, at := <-c.opened, <-found
		took = append(took, at.Sub(opened))
		box.Close()
	}
	slices.Sort(took)
	at := func(p int) float64 { return float64(took[(len(took)-1)*p/100].Microseconds()) / 1000 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

func drain(c chan time.Time) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}

// How much of what a box takes a second we give it, at the rate of a real flash
// and at one that no box reaches.
func BenchmarkUpload(b *testing.B) {
	for _, way := range []Way{Own, Lent} {
		for name, rate := range map[string]int{"230kB": 230_000, "10MB": 10_000_000, "100MB": 100_000_000} {
			b.Run(string(way)+"/"+name, func(b *testing.B) { benchmarkUpload(b, way, rate) })
		}
	}
}

func benchmarkUpload(b *testing.B, way Way, rate int) {
	c := newCable(b)
	k, err := Open(b.Context(), c.card(), Options{At: eva.Usual(), Only: way})
	must(b, err)
	defer k.Close()
	must(b, k.Use(netip.MustParsePrefix("192.168.178.2/24")))
	times := quick
	times.Rate = rate
	box := evabox.New(c, evabox.Options{Times: times})
	defer box.Close()
	box.Power(true)
	held := find(b, k)
	defer held.Close()
	image := evabox.Image4040(1_000_000, 1_000_000)
	e, err := held.Environment(b.Context())
	must(b, err)
	p, err := eva.NewPlan(e, eva.File{Role: eva.Firmware, Size: int64(len(image))})
	must(b, err)
	b.SetBytes(int64(len(image)))
	began := time.Now()
	for b.Loop() {
		_, err := held.Send(b.Context(), p, nil, bytes.NewReader(image))
		must(b, err)
	}
	b.ReportMetric(float64(len(image))*float64(b.N)/time.Since(began).Seconds()/float64(rate), "of-rate")
}
