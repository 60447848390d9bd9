package hostnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

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

func find(t testing.TB, k *Cable, near ...netip.Prefix) *eva.Box {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	ask := eva.Ask{Look: []eva.Look{k.Look}, Near: near}
	if near != nil {
		ask.Want = eva.Home
	}
	box, err := eva.Find(ctx, k, ask)
	must(t, err)
	return box
}

// settings is what a person could have set on the card: what changes there by
// itself with the cable, such as link-local addresses, is none.
func settings(t testing.TB, c *cableTest) []string {
	var out []string
	for _, a := range c.card().Addrs {
		if a.Addr().Is4() {
			out = append(out, a.String())
		}
	}
	list, err := Routes(t.Context())
	must(t, err)
	for _, r := range list {
		out = append(out, r.Net.String()+" "+r.Card)
	}
	near, err := netlink.LinkByName(c.name)
	must(t, err)
	known, err := netlink.NeighList(near.Attrs().Index, netlink.FAMILY_V4)
	must(t, err)
	for _, n := range known {
		out = append(out, n.String())
	}
	return out
}

// The whole of it over a cable between two kernels: found, held, read, written,
// read back. The computer's own network set-up is the same afterwards.
func TestOwnFindsAndFlashes(t *testing.T) {
	for _, at := range []string{"192.168.178.1", "169.254.120.1", "192.168.2.254"} {
		t.Run(at, func(t *testing.T) {
			c := newCable(t)
			before := settings(t, c)
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
			if after := settings(t, c); !slices.Equal(before, after) {
				t.Errorf("the computer's settings were\n%v\nand are\n%v", before, after)
			}
		})
	}
}

// From the bootloader's first breath, the moment it listens, until we are logged
// in, over a cable between two kernels, power-on after power-on: the windows are
// caught however short they are. As flashing does it: from two networks, with boxes
// in both of them and in none.
func BenchmarkFirstBreath(b *testing.B) {
	c := newCable(b)
	k := ownCable(b, c)
	near := []netip.Prefix{netip.MustParsePrefix("192.168.178.70/24"), netip.MustParsePrefix("169.254.120.70/16")}
	must(b, k.Use(near...))
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		at := []netip.Addr{eva.Home, netip.MustParseAddr("169.254.120.1"), netip.MustParseAddr("10.77.0.1")}[len(took)%3]
		box := evabox.New(c, evabox.Options{Address: at, Times: evabox.Times{
			Link: time.Millisecond, Stack: time.Duration(len(took)*7%61) * time.Millisecond, Window: 1500 * time.Millisecond, Boot: time.Minute,
		}})
		drain(c.opened)
		found := make(chan time.Time, 1)
		go func() {
			find(b, k, near...).Close()
			found <- time.Now()
		}()
		box.Power(true)
		opened, held := <-c.opened, <-found
		took = append(took, held.Sub(opened))
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

// An address that the computer has itself is not used twice, and a port that the
// box refuses is the system's error.
func TestOwnKeepsOffTheComputersAddresses(t *testing.T) {
	c := newCable(t)
	c.SetAddress(netip.MustParseAddr("192.168.178.1"))
	c.Link(true)
	c.give("192.168.178.2/24")
	k := ownCable(t, c)
	must(t, k.Use(netip.MustParsePrefix("192.168.178.2/24")))
	if got := k.Addresses(); !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("192.168.178.3/24")}) {
		t.Errorf("ours are %v", got)
	}
	if _, err := k.Dial(t.Context(), "tcp", "192.168.178.1:22"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
	if k.Way() != Own || k.Name() != c.name {
		t.Errorf("%s by %s", k.Name(), k.Way())
	}
	var strange *net.AddrError
	if _, err := k.Dial(t.Context(), "tcp", "fritz.box:80"); !errors.As(err, &strange) {
		t.Errorf("a name: %v", err)
	}
}

// The cable's state, with no box yet, with one, and with a card that is pulled
// out: whoever waits hears of it.
func TestWaitLink(t *testing.T) {
	c := newCable(t)
	k := ownCable(t, c)
	if l := c.card().Link; l != LinkDown {
		t.Errorf("without a box the cable is %s", l)
	}
	must(t, k.WaitLink(t.Context(), false))
	up := make(chan error)
	go func() { up <- k.WaitLink(t.Context(), true) }()
	c.Link(true)
	must(t, <-up)
	go func() { up <- k.WaitLink(t.Context(), false) }()
	c.Link(false)
	must(t, <-up)
	ctx, stop := context.WithCancel(t.Context())
	go func() { up <- k.WaitLink(ctx, true) }()
	stop()
	if err := <-up; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	looks := make(chan error)
	go func() { looks <- k.Look(t.Context(), func(netip.Addr) {}) }()
	go func() { up <- k.WaitLink(t.Context(), true) }()
	c.unplugCard()
	var gone *NoCardError
	if err := <-up; !errors.As(err, &gone) || gone.Wanted != c.name {
		t.Errorf("a card that is gone: %v", err)
	}
	if err := <-looks; !errors.Is(err, net.ErrClosed) {
		t.Errorf("looking on a card that is gone: %v", err)
	}
}

// A cable that dies in the middle of a transfer costs no byte and no connection,
// whoever does the TCP.
func TestFlapsWhileSending(t *testing.T) {
	for _, way := range []Way{Own, Lent} {
		t.Run(string(way), func(t *testing.T) {
			c := newCable(t)
			c.SetAddress(netip.MustParseAddr("192.168.178.1"))
			c.Link(true)
			l, err := c.Listen(7)
			must(t, err)
			defer l.Close()
			k, err := Open(t.Context(), c.card(), Options{At: eva.Usual(), Only: way})
			must(t, err)
			defer k.Close()
			must(t, k.Use(netip.MustParsePrefix("192.168.178.2/24")))
			data := make([]byte, 4<<20)
			rand.Read(data)
			far := make(chan net.Conn)
			go func() {
				s, err := l.Accept()
				if err != nil {
					t.Error(err)
				}
				far <- s
			}()
			conn, err := k.DialTCP(t.Context(), netip.MustParseAddrPort("192.168.178.1:7"))
			must(t, err)
			box := <-far
			defer box.Close()
			must(t, box.(*net.TCPConn).SetReadBuffer(64<<10)) // so that most of it is not on its way yet
			sent := make(chan error)
			go func() {
				_, err := conn.Write(data)
				sent <- errors.Join(err, conn.Close())
			}()
			got := make([]byte, len(data))
			for i := range 4 { // a quarter each time, then the cable
				part := got[i*len(got)/4 : (i+1)*len(got)/4]
				if _, err := io.ReadFull(box, part); err != nil {
					t.Fatal(err)
				}
				c.Link(false)
				must(t, k.WaitLink(t.Context(), false))
				c.Link(true)
			}
			must(t, <-sent)
			if !bytes.Equal(got, data) {
				t.Error("what arrived differs")
			}
		})
	}
}

// A box at an address that nobody thinks of answers UDP 5035 and is reached
// there.
func TestOwnReachesAnyAddress(t *testing.T) {
	c := newCable(t)
	k := ownCable(t, c)
	b := evabox.New(c, evabox.Options{Address: netip.MustParseAddr("10.20.30.40"), Times: quick})
	t.Cleanup(b.Close)
	b.Power(true)
	box := find(t, k)
	defer box.Close()
	if box.Addr().String() != "10.20.30.40" {
		t.Errorf("found at %v", box.Addr())
	}
}
