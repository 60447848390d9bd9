package outside

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The sample answers of RFC 5769, 2.2 and 2.3.
var samples = []struct{ name, hex, want string }{
	{"IPv4", "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96", "192.0.2.1:32853"},
	{"IPv6", "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"},
}

func sample(t testing.TB, i int) (raw []byte, id [12]byte) {
	raw, err := hex.DecodeString(samples[i].hex)
	if err != nil {
		t.Fatal(err)
	}
	return raw, [12]byte(raw[8:20])
}

func TestSamplesOfTheRFC(t *testing.T) {
	for i, s := range samples {
		raw, id := sample(t, i)
		got, ours, err := readAnswer(raw, id, "server")
		if !ours || err != nil || got.String() != s.want {
			t.Errorf("%s: %s, %v, %v; want %s", s.name, got, ours, err, s.want)
		}
		id[3]++
		if _, ours, _ := readAnswer(raw, id, "server"); ours {
			t.Errorf("%s: believed an answer to another question", s.name)
		}
		for n := range raw {
			id[3]--
			readAnswer(raw[:n], id, "server") // whatever it says, it says it calmly
			id[3]++
		}
	}
}

// server answers UDP on loopback with what fn makes of a question.
func server(t *testing.T, fn func(q []byte, from net.Addr) [][]byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			for _, a := range fn(b[:n], from) {
				c.WriteTo(a, from)
			}
		}
	}()
	return c.LocalAddr().String()
}

// answer is a Binding answer, written without the code under test.
func answer(q []byte, kind uint16, attrs ...[]byte) []byte {
	var body []byte
	for _, a := range attrs {
		body = append(body, a...)
	}
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(append(b, q[4:20]...), body...)
}

func mapped(q []byte, from net.Addr) []byte {
	ap := netip.MustParseAddrPort(from.String())
	raw := ap.Addr().AsSlice()
	mask := q[4:20]
	v := []byte{0, map[int]byte{4: 1, 16: 2}[len(raw)]}
	v = binary.BigEndian.AppendUint16(v, ap.Port()^binary.BigEndian.Uint16(mask))
	for i := range raw {
		v = append(v, raw[i]^mask[i])
	}
	return append([]byte{0, 0x20, 0, byte(len(v))}, v...)
}

func TestSTUN(t *testing.T) {
	reply := func(q []byte, from net.Addr) [][]byte {
		forged := answer(q, 0x0101, mapped(q, &net.UDPAddr{IP: net.IP{6, 6, 6, 6}, Port: 6}))
		forged[15]++ // answers somebody else's question
		return [][]byte{[]byte("noise"), forged, answer(q, 0x0101, []byte{0x80, 0x22, 0, 1, 'x', 0, 0, 0}, mapped(q, from))}
	}
	got, err := STUN(t.Context(), System(rand.Reader, netip.Addr{}), server(t, reply), IPv4)
	if err != nil || !got.Addr().IsLoopback() || got.Port() == 0 {
		t.Errorf("IPv4: %s, %v", got, err)
	}
	// IPv6 without a network: not every machine that tests has it.
	six := wire{reply: reply, as: net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::7]:4711")), in: make(chan packet, 9)}
	w := Way{Rand: rand.Reader, ListenUDP: func(context.Context, string) (net.PacketConn, error) { return &six, nil }}
	if got, err := STUN(t.Context(), w, "[2001:db8:80::78]:3478", IPv6); err != nil || got.String() != "[2001:db8::7]:4711" {
		t.Errorf("IPv6: %s, %v", got, err)
	}
}

// wire answers what is written to it.
type wire struct {
	net.PacketConn
	reply func(q []byte, from net.Addr) [][]byte
	as    net.Addr
	in    chan packet
}

type packet struct {
	data []byte
	from net.Addr
}

func (w *wire) WriteTo(b []byte, to net.Addr) (int, error) {
	for _, a := range w.reply(b, w.as) {
		w.in <- packet{a, to}
	}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	p := <-w.in
	return copy(b, p.data), p.from, nil
}

func (w *wire) SetDeadline(time.Time) error     { return nil }
func (w *wire) SetReadDeadline(time.Time) error { return nil }
func (w *wire) Close() error                    { return nil }

// An answer counts only from whom we asked, even when it knows the question's bits.
func TestSTUNFromElsewhere(t *testing.T) {
	other, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	at := server(t, func(q []byte, from net.Addr) [][]byte {
		other.WriteTo(answer(q, 0x0101, mapped(q, &net.UDPAddr{IP: net.IP{6, 6, 6, 6}, Port: 6})), from)
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var silent *SilentError
	if got, err := STUN(ctx, System(rand.Reader, netip.Addr{}), at, IPv4); !errors.As(err, &silent) {
		t.Errorf("%s, %v", got, err)
	}
}

func TestSTUNAsksAgain(t *testing.T) {
	var n atomic.Int32
	at := server(t, func(q []byte, from net.Addr) [][]byte {
		if n.Add(1) == 1 {
			return nil // lost
		}
		return [][]byte{answer(q, 0x0101, mapped(q, from))}
	})
	if got, err := STUN(t.Context(), System(rand.Reader, netip.Addr{}), at, IPv4); err != nil || n.Load() != 2 {
		t.Errorf("%s, %v after %d questions", got, err, n.Load())
	}
}

func TestSTUNThatFails(t *testing.T) {
	w := System(rand.Reader, netip.Addr{})
	say := func(attrs func(q []byte) []byte) string {
		return server(t, func(q []byte, _ net.Addr) [][]byte { return [][]byte{attrs(q)} })
	}
	var refused *RefusedError
	if _, err := STUN(t.Context(), w, say(func(q []byte) []byte { return answer(q, 0x0111, []byte{0, 9, 0, 4, 0, 0, 4, 1}) }), IPv4); !errors.As(err, &refused) || refused.Code != 401 {
		t.Errorf("refused: %v", err)
	}
	var nonsense *NonsenseError
	for _, attr := range [][]byte{nil, {0, 0x20, 0, 4, 0, 1, 0, 0}, {0, 0x20, 0, 8, 0, 7, 0, 0, 1, 2, 3, 4}, {0, 0x20, 0xff, 0xff}, {0, 1, 0, 8, 0, 1, 0, 1, 1, 2, 3, 4}} {
		if got, err := STUN(t.Context(), w, say(func(q []byte) []byte { return answer(q, 0x0101, attr) }), IPv4); !errors.As(err, &nonsense) {
			t.Errorf("%x: %s, %v", attr, got, err)
		}
	}
	var silent *SilentError
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := STUN(ctx, w, server(t, func([]byte, net.Addr) [][]byte { return nil }), IPv4); !errors.As(err, &silent) {
		t.Errorf("silent: %v", err)
	}
	var noWay *NoWayError
	if _, err := STUN(t.Context(), w, "127.0.0.1:3478", IPv6); !errors.As(err, &noWay) {
		t.Errorf("other family: %v", err)
	}
	if _, err := STUN(t.Context(), Way{}, "127.0.0.1", IPv4); !errors.As(err, &noWay) {
		t.Errorf("over SSH: %v", err)
	}
	var bad *ServerError
	for _, s := range []string{"", ":1", "host:", "host:0", "host:99999", "host:x"} {
		if _, err := STUN(t.Context(), w, s, IPv4); !errors.As(err, &bad) {
			t.Errorf("%q: %v", s, err)
		}
	}
	w.Lookup = func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	if _, err := STUN(t.Context(), w, "stun.example.net", IPv4); !errors.As(err, &bad) {
		t.Errorf("no such name: %v", err)
	}
}

// page serves body over HTTPS on loopback.
func page(t *testing.T, h http.HandlerFunc) (Way, string) {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	w := System(rand.Reader, netip.Addr{})
	w.Roots = x509.NewCertPool()
	w.Roots.AddCert(s.Certificate())
	return w, s.URL
}

func TestEcho(t *testing.T) {
	for body, want := range map[string]string{
		"203.0.113.7":                      "203.0.113.7",
		"203.0.113.7\n":                    "203.0.113.7",
		`{"ip":"203.0.113.7","x":[1]}`:     "203.0.113.7",
		`{"address": "203.0.113.7"}`:       "203.0.113.7",
		"::ffff:203.0.113.7":               "203.0.113.7",
		"2001:db8::1":                      "",
		"fe80::1%eth0":                     "",
		"you are 203.0.113.7":              "",
		"<html>203.0.113.7</html>":         "",
		`{"ip": 7}`:                        "",
		"":                                 "",
		strings.Repeat(" ", largestPage+1): "",
	} {
		w, at := page(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		got, err := Echo(t.Context(), w, at, IPv4)
		var nonsense *NonsenseError
		if want != "" && (err != nil || got.String() != want) || want == "" && !errors.As(err, &nonsense) {
			t.Errorf("%.40q: %s, %v", body, got, err)
		}
	}
}

func TestEchoThatFails(t *testing.T) {
	followed := false
	w, at := page(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			followed = true
		}
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	})
	var refused *RefusedError
	if _, err := Echo(t.Context(), w, at, IPv4); !errors.As(err, &refused) || followed {
		t.Errorf("redirect: %v, followed %v", err, followed)
	}
	w.Roots = x509.NewCertPool()
	var nonsense *NonsenseError
	if _, err := Echo(t.Context(), w, at, IPv4); !errors.As(err, &nonsense) || !strings.Contains(err.Error(), "vouches") {
		t.Errorf("unknown authority: %v", err)
	}
	var noWay *NoWayError
	if _, err := Echo(t.Context(), w, at, IPv6); !errors.As(err, &noWay) {
		t.Errorf("other family: %v", err)
	}
	if _, err := Echo(t.Context(), w, strings.Replace(at, "https:", "http:", 1), IPv4); !errors.As(err, new(*ServerError)) {
		t.Errorf("without TLS anybody on the way could answer: %v", err)
	}
	var bad *ServerError
	for _, u := range []string{"", "http://ip.example.net/", "https:///x", "ip.example.net", "https://a:b@ip.example.net/", "https://%zz/"} {
		if _, err := Echo(t.Context(), w, u, IPv4); !errors.As(err, &bad) {
			t.Errorf("%q: %v", u, err)
		}
	}
	hang := make(chan struct{})
	w, at = page(t, func(http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) }) // before the page is closed
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var silent *SilentError
	if _, err := Echo(ctx, w, at, IPv4); !errors.As(err, &silent) {
		t.Errorf("hanging: %v", err)
	}
}

func TestLookup(t *testing.T) {
	both := []netip.Addr{netip.MustParseAddr("::ffff:203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
	r, err := Lookup(t.Context(), func(context.Context, string) ([]netip.Addr, error) { return both, nil }, "home.example.net")
	if err != nil || len(r.A) != 1 || len(r.AAAA) != 1 || !r.A[0].Is4() {
		t.Errorf("%v, %v", r, err)
	}
	r, err = Lookup(t.Context(), func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}, "home.example.net")
	if err != nil || r.A != nil {
		t.Errorf("no such name: %v, %v", r, err)
	}
	if _, err = Lookup(t.Context(), func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "server misbehaving"}
	}, "home.example.net"); err == nil {
		t.Error("a silent name server said something")
	}
}

func FuzzAnswer(f *testing.F) {
	for i := range samples {
		raw, _ := sample(f, i)
		f.Add(raw)
	}
	f.Add([]byte{1, 1, 0, 4, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var id [12]byte
		if len(b) >= 20 {
			id = [12]byte(b[8:20])
		}
		got, ours, err := readAnswer(b, id, "server")
		if got.IsValid() && (!ours || err != nil) || ours && err == nil && !got.IsValid() {
			t.Errorf("%s, %v, %v", got, ours, err)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add([]byte("203.0.113.7\n"))
	f.Add([]byte(`{"ip":"2001:db8::1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := readPage(b); ok && (!a.IsValid() || a.Zone() != "" || a.Is4In6()) {
			t.Errorf("%q: %s", b, a)
		}
	})
}
