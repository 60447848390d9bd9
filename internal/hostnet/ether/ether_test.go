package ether

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"pgregory.net/rapid"
)

// A wire joins two ends in memory and can be cut.
type wire struct {
	in, out chan []byte
	cut     func(frame []byte) bool // true: lost
	done    chan struct{}
	once    *sync.Once
}

func (w *wire) ReadFrame(b []byte) (int, error) {
	select {
	case f := <-w.in:
		return copy(b, f), nil
	case <-w.done:
		return 0, net.ErrClosed
	}
}

func (w *wire) WriteFrame(b []byte) error {
	if w.cut(b) {
		return nil
	}
	select {
	case w.out <- slices.Clone(b):
	default: // as a card does
	}
	return nil
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.done) })
	return nil
}

var (
	macA, macB   = MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}
	addrA, addrB = netip.MustParseAddr("192.168.178.2"), netip.MustParseAddr("192.168.178.1")
)

// pair is two ports on a wire.
func pair(t *testing.T, cut func([]byte) bool) (a, b *Port) {
	t.Helper()
	if cut == nil {
		cut = func([]byte) bool { return false }
	}
	x, y := make(chan []byte, 4096), make(chan []byte, 4096)
	a = port(t, &wire{x, y, cut, make(chan struct{}), &sync.Once{}}, Options{MAC: macA, MTU: 1500, At: []netip.Addr{addrB}})
	b = port(t, &wire{y, x, cut, make(chan struct{}), &sync.Once{}}, Options{MAC: macB, MTU: 1500})
	must(t, a.Use([]netip.Prefix{netip.PrefixFrom(addrA, 24)}))
	must(t, b.Use([]netip.Prefix{netip.PrefixFrom(addrB, 24)}))
	return a, b
}

func port(t *testing.T, w Frames, o Options) *Port {
	t.Helper()
	p, err := New(w, o)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TCP over the wire, with its first frames lost: nobody waits a second.
func TestConnects(t *testing.T) {
	var mu sync.Mutex
	lose := 3
	a, b := pair(t, func(f []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		lose--
		return lose >= 0
	})
	l, err := b.stack.ListenTCP(netip.AddrPortFrom(addrB, 21))
	must(t, err)
	go func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := a.DialTCP(t.Context(), netip.AddrPortFrom(addrB, 21))
	must(t, err)
	data := bytes.Repeat([]byte("heimweg "), 50_000)
	go c.Write(data)
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("echo differs: %v", err)
	}
	// What is the system's error must be the system's.
	must(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
	if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a passed deadline is %v", err)
	}
	if _, err := a.DialTCP(t.Context(), netip.AddrPortFrom(addrB, 22)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port is %v", err)
	}
}

// A box that was away when a connection began is connected to as soon as it says
// anything, although its MAC was known and the first packet is lost.
func TestCallsAgain(t *testing.T) {
	var mu sync.Mutex
	away := false
	a, b := pair(t, func(f []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		return away
	})
	l, err := b.stack.ListenTCP(netip.AddrPortFrom(addrB, 21))
	must(t, err)
	defer l.Close()
	c, err := a.DialTCP(t.Context(), netip.AddrPortFrom(addrB, 21))
	must(t, err)
	c.Close()
	mu.Lock()
	away = true
	mu.Unlock()
	go func() {
		tick := time.NewTimer(100 * time.Millisecond)
		<-tick.C
		mu.Lock()
		away = false
		mu.Unlock()
	}()
	ctx, stop := context.WithTimeout(t.Context(), 700*time.Millisecond) // the stack's own repetition comes after 1 s
	defer stop()
	if c, err = a.DialTCP(ctx, netip.AddrPortFrom(addrB, 21)); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// UDP to everyone arrives with our address as sender and is not heard by
// ourselves, in both families.
func TestEveryone(t *testing.T) {
	a, b := pair(t, nil)
	pa, err := a.ListenUDP(t.Context(), 5035)
	must(t, err)
	pb, err := b.ListenUDP(t.Context(), 5035)
	must(t, err)
	buf := make([]byte, 100)
	for _, c := range []struct{ to, from, back netip.Addr }{
		{netip.MustParseAddr("255.255.255.255"), addrA, addrB},
		{netip.MustParseAddr("ff02::1"), linkLocal(macA), linkLocal(macB)},
		{addrB, addrA, addrB},
	} {
		_, err = pa.WriteTo([]byte("where are you"), &net.UDPAddr{IP: c.to.AsSlice(), Port: 5035})
		must(t, err)
		must(t, pb.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, from, err := pb.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "where are you" || from.(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("") != c.from {
			t.Errorf("to %s: %q from %v, %v", c.to, buf[:n], from, err)
			continue
		}
		_, err = pb.WriteTo([]byte("here"), from)
		must(t, err)
		must(t, pa.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, from, err = pa.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "here" || from.(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("") != c.back {
			t.Errorf("back from %s: %q from %v, %v", c.back, buf[:n], from, err)
		}
	}
}

// alone is a port whose frames the test sees and makes.
func alone(t *testing.T, o Options) (p *Port, in, out chan []byte) {
	in, out = make(chan []byte, 64), make(chan []byte, 4096)
	o.MAC, o.MTU = macA, 1500
	return port(t, &wire{in, out, func([]byte) bool { return false }, make(chan struct{}), &sync.Once{}}, o), in, out
}

// next is the next ARP message that the port sends.
func next(t *testing.T, out chan []byte) (arp, MAC) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	for {
		select {
		case f := <-out:
			if a, ok := parseARP(f[headLen:]); ok {
				return a, MAC(f[:6])
			}
		case <-ctx.Done():
			t.Fatal("no ARP")
		}
	}
}

// Look asks for each candidate from an address in its network, hears answers and
// what others say by themselves, and tells of somebody who comes back.
func TestLook(t *testing.T) {
	at := []netip.Addr{addrB, netip.MustParseAddr("169.254.120.1")}
	taken := netip.MustParseAddr("169.254.120.253")
	p, in, out := alone(t, Options{At: at, Taken: func(a netip.Addr) bool { return a == taken }})
	seen := make(chan netip.Addr, 16)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Look(ctx, func(a netip.Addr) { seen <- a }) }()
	asked := map[netip.Addr]netip.Addr{}
	for len(asked) < 2 {
		a, to := next(t, out)
		if a.op != arpAsk || a.fromMAC != macA || to != everyone {
			t.Errorf("asks %+v to %v", a, to)
		}
		asked[a.toAddr] = a.fromAddr
	}
	for who, from := range map[string]string{"192.168.178.1": "192.168.178.253", "169.254.120.1": "169.254.120.252"} {
		if got := asked[netip.MustParseAddr(who)]; got.String() != from {
			t.Errorf("asks for %s from %s, want %s", who, got, from)
		}
	}
	expect := func(a netip.Addr) {
		t.Helper()
		select {
		case got := <-seen:
			if got != a {
				t.Errorf("saw %v, want %v", got, a)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("did not see %v", a)
		}
	}
	say := func(op uint16, who netip.Addr, about netip.Addr) {
		in <- arp{op: op, fromMAC: macB, fromAddr: who, toMAC: macA, toAddr: about}.frame(macA)
	}
	say(arpAnswer, addrB, addrA)
	expect(addrB)
	say(arpAnswer, addrB, addrA) // not news
	other := netip.MustParseAddr("10.0.0.9")
	say(arpAsk, other, other) // gratuitous
	expect(other)
	say(arpAsk, netip.IPv4Unspecified(), addrA) // a probe says nobody's address
	p.Cable(false)
	say(arpAnswer, addrB, addrA)
	expect(addrB)
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(seen) > 0 {
		t.Errorf("saw %v, too", <-seen)
	}
}

// We answer for our addresses and for nobody else's.
func TestAnswers(t *testing.T) {
	p, in, out := alone(t, Options{})
	must(t, p.Use([]netip.Prefix{netip.PrefixFrom(addrA, 24)}))
	ask := func(a netip.Addr) { in <- arp{op: arpAsk, fromMAC: macB, fromAddr: addrB, toAddr: a}.frame(everyone) }
	ask(netip.MustParseAddr("192.168.178.3"))
	ask(addrA)
	if a, to := next(t, out); a.op != arpAnswer || a.fromAddr != addrA || a.fromMAC != macA || a.toAddr != addrB || to != macB {
		t.Errorf("answered %+v to %v", a, to)
	}
	must(t, p.Use([]netip.Prefix{netip.MustParsePrefix("169.254.1.253/16")})) // which it took by itself
	ask(addrA)
	must(t, p.Use([]netip.Prefix{netip.MustParsePrefix("192.168.178.4/24")}))
	ask(netip.MustParseAddr("192.168.178.4"))
	if a, _ := next(t, out); a.fromAddr.String() != "192.168.178.4" {
		t.Errorf("still answers for %v", a.fromAddr)
	}
}

func TestUseAvoidsWhatIsTaken(t *testing.T) {
	taken := []string{"192.168.178.2", "192.168.178.3", "192.168.1.254"}
	p, _, _ := alone(t, Options{At: []netip.Addr{netip.MustParseAddr("192.168.1.1")}, Taken: func(a netip.Addr) bool { return slices.Contains(taken, a.String()) }})
	must(t, p.Use([]netip.Prefix{netip.MustParsePrefix("192.168.178.2/24"), netip.MustParsePrefix("192.168.178.4/24"), netip.MustParsePrefix("192.168.1.254/24")}))
	want := []netip.Prefix{netip.MustParsePrefix("192.168.178.4/24"), netip.MustParsePrefix("192.168.178.5/24"), netip.MustParsePrefix("192.168.1.2/24")}
	if got := p.Addresses(); !slices.Equal(got, want) {
		t.Errorf("ours are %v, want %v", got, want)
	}
}

// Whoever waits when the port is closed does not wait for ever.
func TestCloseEndsEverything(t *testing.T) {
	a, b := pair(t, nil)
	l, err := b.stack.ListenTCP(netip.AddrPortFrom(addrB, 21))
	must(t, err)
	defer l.Close()
	c, err := a.DialTCP(t.Context(), netip.AddrPortFrom(addrB, 21))
	must(t, err)
	u, err := a.ListenUDP(t.Context(), 5035)
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { io.ReadAll(c) })
	wg.Go(func() { u.ReadFrom(make([]byte, 10)) })
	wg.Go(func() { a.Look(t.Context(), func(netip.Addr) {}) })
	must(t, a.Close())
	must(t, a.Close())
	wg.Wait()
	if _, err := a.DialTCP(t.Context(), netip.AddrPortFrom(addrB, 21)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after closing: %v", err)
	}
}

// Newer boxes ask for our IPv6 address before they answer.
func TestNeighbourAnswer(t *testing.T) {
	p, in, out := alone(t, Options{})
	whom := linkLocal(macB)
	ask := make([]byte, headLen+40+24)
	head(ask, groupMAC(netip.MustParseAddr("ff02::1:ff00:1")), macB, typeIPv6)
	ask[headLen], ask[headLen+5], ask[headLen+6], ask[headLen+7] = 0x60, 24, icmpv6, 255
	copy(ask[headLen+8:], whom.AsSlice())
	copy(ask[headLen+24:], netip.MustParseAddr("ff02::1:ff00:1").AsSlice())
	ask[headLen+40] = neighbourAsk
	copy(ask[headLen+48:], p.fe80.AsSlice())
	in <- ask
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	for {
		select {
		case f := <-out:
			ip := header.IPv6(f[headLen:])
			if f[12] != 0x86 || ip.TransportProtocol() != icmpv6 || ip.Payload()[0] != neighbourIs {
				continue
			}
			sum := header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: header.ICMPv6(ip.Payload()), Src: ip.SourceAddress(), Dst: ip.DestinationAddress()})
			if binary.BigEndian.Uint16(ip.Payload()[2:]) != sum || MAC(f[:6]) != macB || MAC(ip.Payload()[26:32]) != macA {
				t.Errorf("answered %x, checksum %x", f, sum)
			}
			return
		case <-ctx.Done():
			t.Fatal("no answer")
		}
	}
}

// Checksums, against another implementation.
func TestChecksums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
		before := rapid.Uint16().Draw(t, "before")
		got, want := Sum(b, before), checksum.Checksum(b, before)
		if got != want && !(got|want == 0xffff && got&want == 0) {
			t.Fatalf("Sum is %x, want %x", got, want)
		}
		data := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "data")
		f := make([]byte, headLen+20+8+len(data), headLen+20+8+len(data)+20)
		ip := header.IPv4(f[headLen:])
		src, dst := tcpip.AddrFrom4([4]byte{192, 168, 178, 1}), tcpip.AddrFrom4([4]byte{192, 168, 178, 2})
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(28 + len(data)), TTL: 64, Protocol: 17, SrcAddr: src, DstAddr: dst})
		udp := header.UDP(ip.Payload())
		udp.Encode(&header.UDPFields{SrcPort: 1, DstPort: 2, Length: uint16(8 + len(data)), Checksum: rapid.Uint16().Draw(t, "left open")})
		copy(udp.Payload(), data)
		padded := append(f, make([]byte, rapid.IntRange(0, 18).Draw(t, "padding"))...)
		Complete(padded)
		if !udp.IsChecksumValid(src, dst, checksum.Checksum(data, 0)) {
			t.Fatalf("%x is not valid", f)
		}
	})
}

// Whatever comes over a cable, nothing breaks.
func FuzzTake(f *testing.F) {
	f.Add(arp{op: arpAsk, fromMAC: macB, fromAddr: addrB, toAddr: addrA}.frame(everyone))
	f.Add(iAm(macB, linkLocal(macB), macA, linkLocal(macA)))
	f.Add([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x4f\x00"))
	x := make(chan []byte, 1)
	p, err := New(&wire{x, x, func([]byte) bool { return true }, make(chan struct{}), &sync.Once{}}, Options{MAC: macA, MTU: 1500, At: []netip.Addr{addrB}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { p.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := slices.Clone(b)
		p.take(whole)
		isCall(whole)
		Complete(whole)
		p.mu.Lock()
		n := len(p.table)
		p.mu.Unlock()
		if n > remembers {
			t.Errorf("remembers %d neighbours", n)
		}
	})
}
