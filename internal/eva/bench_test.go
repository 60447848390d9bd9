package eva

import (
	"bytes"
	"context"
	"net"
	"net/netip"
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
	image := evabox.Image4040(1_000_000, 2_000_000)
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
