package eva

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// loop reaches a box on a loopback port, as if it were port 21 of the address.
type loop struct{ ftp netip.AddrPort }

func (l loop) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if to.Port() == 21 {
		to = l.ftp
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to.String())
}

func (loop) ListenUDP(_ context.Context, _ uint16) (net.PacketConn, error) {
	return net.ListenPacket("udp4", "127.0.0.1:0")
}

// real is a box behind real sockets with a flash as fast as memory.
func real(t testing.TB) (*evabox.Box, *Box) {
	network := evabox.NewLoopback()
	b := evabox.New(network, evabox.Options{Times: evabox.Times{Link: 1, Stack: 1, Window: time.Hour, Erase: 1, Check: 1, Late: 1, Rate: 1 << 40}})
	t.Cleanup(b.Close)
	b.Power(true)
	box, err := Find(t.Context(), loop{<-network.FTP}, Ask{At: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	return b, box
}

// The whole way over real sockets: what works in memory only does not count.
func TestOverLoopback(t *testing.T) {
	b, box := real(t)
	defer box.Close()
	image := evabox.Image4040(200_000, 400_000)
	e, err := box.Environment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPlan(e, file(Firmware, image))
	if err != nil {
		t.Fatal(err)
	}
	out, err := box.Send(t.Context(), p, nil, bytes.NewReader(image))
	if err != nil || out.Checks[0].Verdict != Same || !bytes.Equal(b.Flash("mtd1"), image) {
		t.Errorf("%v %+v", err, out)
	}
	if err := box.Reboot(t.Context()); err != nil {
		t.Error(err)
	}
}

// How fast an image goes to a box that takes everything at once.
func BenchmarkSend(b *testing.B) {
	_, box := real(b)
	defer box.Close()
	image := evabox.Image4040(2_000_000, 4_000_000)
	e, err := box.Environment(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	p, err := NewPlan(e, file(Firmware, image))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		if _, err := box.Send(b.Context(), p, nil, bytes.NewReader(image)); err != nil {
			b.Fatal(err)
		}
	}
}

// From the bootloader's first breath to the login, on a link in memory: the box
// breathes at a random moment while we look.
func BenchmarkFind(b *testing.B) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var took []time.Duration
	for i := range b.N {
		b.StopTimer()
		w := evabox.NewWire()
		port := &breathing{Network: w.Plug()}
		box := evabox.New(port, evabox.Options{
			Address: []netip.Addr{Home, netip.MustParseAddr("169.254.120.1"), netip.MustParseAddr("10.77.0.1")}[i%3],
			Times:   evabox.Times{Link: 1, Stack: 1 + time.Duration(rnd.Int64N(int64(40*time.Millisecond)))},
		})
		near := netip.MustParsePrefix("192.168.178.2/24")
		pc := w.Plug(near)
		box.Power(true)
		b.StartTimer()
		held, err := Find(b.Context(), pc, Ask{Want: Home, Near: []netip.Prefix{near}})
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(port.since()))
		b.StopTimer()
		held.Close()
		box.Close()
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// breathing notes when the box got its first address.
type breathing struct {
	evabox.Network
	mu    sync.Mutex
	first time.Time
}

func (n *breathing) SetAddress(a netip.Addr) {
	n.Network.SetAddress(a)
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.IsValid() && n.first.IsZero() {
		n.first = time.Now()
	}
}

func (n *breathing) since() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.first
}
