package ispbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
)

func p(s string) netip.Prefix    { return netip.MustParsePrefix(s) }
func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// hall is an ISP router with two hosts inside and one outside.
type hall struct {
	w             *lab.World
	box           *Box
	pc, nas       *lab.Stack
	outside       *lab.Stack
	lan, internet *lab.Link
}

func newHall(t *testing.T, change func(*Options)) *hall {
	w := lab.New(1)
	t.Cleanup(w.Close)
	h := &hall{w: w, lan: w.Link("uplink LAN"), internet: w.Link("internet")}
	opt := Options{LAN: h.lan, LANAddr: p("192.168.2.254/24"), WAN: h.internet, WANAddr: p("203.0.113.7/24"),
		Fixed: map[string]netip.Addr{"NAS": netip.MustParseAddr("192.168.2.253")}}
	if change != nil {
		change(&opt)
	}
	h.box = New(w, opt)
	h.pc, h.nas, h.outside = lab.NewStack(w, "PC"), lab.NewStack(w, "NAS"), lab.NewStack(w, "outside")
	h.pc.FollowLeases(h.lan, "eth0")
	h.nas.FollowLeases(h.lan, "eth0")
	h.outside.Configure([]lab.Iface{{Dev: "eth0", Link: h.internet, Addrs: []netip.Prefix{p("203.0.113.99/24")}}}, nil)
	return h
}

func listen(t *testing.T, s *lab.Stack, port uint16) *lab.UDPConn {
	u, err := s.ListenUDP(port)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func send(t *testing.T, u *lab.UDPConn, to, text string) {
	t.Helper()
	if _, err := u.WriteToAddrPort([]byte(text), ap(to)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// expect reads one datagram; an empty want means that nothing may come.
func expect(t *testing.T, u *lab.UDPConn, want string) netip.AddrPort {
	t.Helper()
	b := make([]byte, 100)
	u.SetReadDeadline(time.Now().Add(time.Second))
	n, from, err := u.ReadFromAddrPort(b)
	if string(b[:n]) != want || (err != nil) != (want == "") {
		t.Fatalf("got %q from %s, %v; want %q", b[:n], from, err, want)
	}
	return from
}

func lastDeath(t *testing.T, w *lab.World) string {
	t.Helper()
	d := w.Deaths()
	if len(d) == 0 {
		t.Fatal("nothing died")
	}
	return d[len(d)-1].String()
}

func TestMapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, nil)
		wg, phone := listen(t, h.nas, 51820), listen(t, h.outside, 4711)

		send(t, phone, "203.0.113.7:51820", "hello")
		expect(t, wg, "")
		if got := lastDeath(t, h.w); !strings.Contains(got, "no mapping for UDP 51820") || !strings.Contains(got, "ISP router") {
			t.Error(got)
		}
		if n := h.box.Unsolicited("udp", 51820); n != 1 {
			t.Errorf("unsolicited: %d", n)
		}

		h.box.Map("udp", 51820, ap("192.168.2.253:51820"))
		send(t, phone, "203.0.113.7:51820", "hello")
		if from := expect(t, wg, "hello"); from != ap("203.0.113.99:4711") {
			t.Errorf("from %s", from)
		}
		send(t, wg, "203.0.113.99:4711", "answer")
		if from := expect(t, phone, "answer"); from != ap("203.0.113.7:51820") {
			t.Errorf("answer from %s", from)
		}
		send(t, phone, "203.0.113.7:51820", "again")
		expect(t, wg, "again")
		if m := h.box.Mappings(); len(m) != 1 || m[0].Packets != 2 {
			t.Errorf("mappings: %+v", m)
		}

		if !h.box.Unmap("udp", 51820) || h.box.Unmap("udp", 51820) {
			t.Error("Unmap does not know what it did")
		}
		send(t, phone, "203.0.113.7:51820", "hello?")
		expect(t, wg, "")
	})
}

// A mapping to a host that is not there any more dies on the uplink LAN.
func TestMappingToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, nil)
		phone := listen(t, h.outside, 4711)
		h.box.Map("udp", 51820, ap("192.168.2.17:51820"))
		send(t, phone, "203.0.113.7:51820", "hello")
		if got := lastDeath(t, h.w); !strings.Contains(got, "nobody on uplink LAN has 192.168.2.17") {
			t.Error(got)
		}
	})
}

func TestFromInside(t *testing.T) {
	for _, scramble := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, func(o *Options) { o.Scramble = scramble })
			server := listen(t, h.outside, 53)
			a, b := listen(t, h.pc, 4000), listen(t, h.nas, 4000)
			send(t, a, "203.0.113.99:53", "from a")
			fromA := expect(t, server, "from a")
			send(t, b, "203.0.113.99:53", "from b")
			fromB := expect(t, server, "from b")
			if fromA.Addr() != h.box.Public() || fromB.Addr() != h.box.Public() || fromA.Port() == fromB.Port() {
				t.Errorf("outside saw %s and %s", fromA, fromB)
			}
			if kept := fromA.Port() == 4000; kept == scramble {
				t.Errorf("scramble %v, port %d", scramble, fromA.Port())
			}
			send(t, server, fromB.String(), "to b")
			expect(t, b, "to b")
			send(t, server, fromA.String(), "to a")
			expect(t, a, "to a")

			// Another host outside may not use the hole.
			stranger := lab.NewStack(h.w, "stranger")
			stranger.Configure([]lab.Iface{{Dev: "eth0", Link: h.internet, Addrs: []netip.Prefix{p("203.0.113.66/24")}}}, nil)
			s := listen(t, stranger, 53)
			send(t, s, fromA.String(), "boo")
			expect(t, a, "")

			// Silence closes it; a keepalive holds it open.
			for range 20 {
				time.Sleep(25 * time.Second)
				send(t, b, "203.0.113.99:53", "keepalive")
				expect(t, server, "keepalive")
			}
			send(t, server, fromB.String(), "still open")
			expect(t, b, "still open")
			send(t, server, fromA.String(), "late")
			expect(t, a, "")
		})
	}
}

func TestPingAndErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for _, s := range []*lab.Stack{h.pc, h.nas} {
			for _, to := range []string{"203.0.113.99", "192.168.2.254"} {
				if _, err := s.Ping(ctx, netip.MustParseAddr(to)); err != nil {
					t.Errorf("%s pings %s: %v", s.Name(), to, err)
				}
			}
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := h.outside.Ping(short, h.box.Public()); err == nil {
			t.Error("the box answered a ping from outside")
		}
		// "Refused" and "unreachable" find their way back through the NAT.
		if _, err := h.pc.Dial(ctx, "tcp", "203.0.113.99:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		h.outside.SetFilter(refuser{})
		if _, err := h.pc.Ping(ctx, netip.MustParseAddr("203.0.113.99")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("ping: %v", err)
		}
	})
}

type refuser struct{}

func (refuser) Handle(_ time.Time, p lab.Packet, _ string, _ func(netip.Addr) (string, bool)) lab.Verdict {
	return lab.Verdict{Action: lab.Reject, Why: "go away"}
}

func (refuser) Output(_ time.Time, p lab.Packet, _ string) lab.Verdict {
	return lab.Verdict{Action: lab.Accept}
}

func TestStreamThroughMapping(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, func(o *Options) { o.Hairpin = hairpin })
			h.box.Map("tcp", 8022, ap("192.168.2.253:22"))
			var remote string
			h.nas.Listen(22, func(c net.Conn) {
				remote = c.RemoteAddr().String()
				c.Write([]byte("ssh"))
				c.Close()
			})
			call := func(s *lab.Stack) error {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				c, err := s.Dial(ctx, "tcp", "203.0.113.7:8022")
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Read(make([]byte, 3))
				return err
			}
			if err := call(h.outside); err != nil || !strings.HasPrefix(remote, "203.0.113.99:") {
				t.Errorf("from outside: %v, seen as %s", err, remote)
			}
			if err := call(h.pc); (err == nil) != hairpin {
				t.Errorf("hairpin %v: %v", hairpin, err)
			} else if !hairpin && !strings.Contains(lastDeath(t, h.w), "no hairpin") {
				t.Error(lastDeath(t, h.w))
			}
		})
	}
}

func TestPowerAndNewAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, nil)
		h.box.Map("udp", 51820, ap("192.168.2.253:51820"))
		wg, phone := listen(t, h.nas, 51820), listen(t, h.outside, 4711)
		h.box.PowerOff()
		send(t, phone, "203.0.113.7:51820", "one")
		expect(t, wg, "")
		h.box.PowerOn()
		send(t, phone, "203.0.113.7:51820", "two")
		expect(t, wg, "two")
		h.box.SetPublic(p("203.0.113.8/24"), netip.Addr{})
		send(t, phone, "203.0.113.7:51820", "three")
		expect(t, wg, "")
		send(t, phone, "203.0.113.8:51820", "four")
		expect(t, wg, "four")
	})
}

func TestNamesAndLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, nil)
		if l, ok := h.lan.AskLease(h.nas); !ok || l.Addr != p("192.168.2.253/24") || l.Gateway != h.box.Address() {
			t.Errorf("NAS: %+v %v", l, ok)
		}
		a, _ := h.lan.AskLease(h.pc)
		b, _ := h.lan.AskLease(h.pc)
		if a.Addr != p("192.168.2.20/24") || !a.Equal(b) {
			t.Errorf("PC: %v, then %v", a, b)
		}
		h.w.Name("home.example.net", h.box.Public())
		u := listen(t, h.pc, 0)
		q := []byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04home\x07example\x03net\x00\x00\x01\x00\x01")
		send(t, u, "192.168.2.254:53", string(q))
		buf := make([]byte, 500)
		n, _, err := u.ReadFromAddrPort(buf)
		if err != nil || !strings.HasSuffix(string(buf[:n]), "\x00\x04\xcb\x00\x71\x07") {
			t.Errorf("%q %v", buf[:n], err)
		}
	})
}

// An error travels back through the NAT, and so does the packet that it quotes:
// nobody outside sees an inside address.
func TestErrorsAreTranslated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, nil)
		server, a := listen(t, h.outside, 53), listen(t, h.pc, 4000)
		send(t, a, "203.0.113.99:53", "question")
		from := expect(t, server, "question")
		a.Close()
		send(t, server, from.String(), "answer to a closed port")
		h.box.Map("udp", 51820, ap("192.168.2.253:51820"))
		send(t, server, "203.0.113.7:51820", "nobody listens")
		want := map[string]bool{
			"icmp 3/3 203.0.113.7 → 203.0.113.99 (about udp 203.0.113.99:53 → 203.0.113.7:4000)":  true,
			"icmp 3/3 203.0.113.7 → 203.0.113.99 (about udp 203.0.113.99:53 → 203.0.113.7:51820)": true,
		}
		for _, f := range h.w.Record() {
			if f.Where == "outside" && f.Packet.IsError() {
				if !want[f.Packet.String()] {
					t.Errorf("outside heard %s", f.Packet)
				}
				delete(want, f.Packet.String())
			}
		}
		if len(want) > 0 {
			t.Errorf("not heard: %v", want)
		}
	})
}
