package tunnel

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/device"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/tunnel/ipstack"
)

var (
	routerAddr4 = netip.MustParseAddr("10.87.20.1")
	routerAddr6 = netip.MustParseAddr("fd12:3456:789a::1")
	peerAddr4   = netip.MustParseAddr("10.87.20.2")
	peerAddr6   = netip.MustParseAddr("fd12:3456:789a::2")
)

// home is the other end: a WireGuard device with a network stack, made with
// wireguard-go directly and not with the package under test.
type home struct {
	private key.Private
	psk     key.Preshared
	dev     *device.Device
	net     *ipstack.Stack
	at      netip.AddrPort
}

// newHome listens on loopback, or on the given bind.
func newHome(t testing.TB, peer key.Public, bind conn.Bind) *home {
	t.Helper()
	h := &home{private: privateKey(t)}
	var err error
	if h.psk, err = key.NewPreshared(rand.Reader); err != nil {
		t.Fatal(err)
	}
	n, err := ipstack.New([]netip.Addr{routerAddr4, routerAddr6}, 1420)
	if err != nil {
		t.Fatal(err)
	}
	h.net = n
	port := uint16(2) // the first channel bind's name for the second one's end
	if bind == nil {
		bind, port = conn.NewDefaultBind(), freePort(t)
	}
	h.at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	h.dev = device.NewDevice(n, bind, &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
	text := fmt.Sprintf("private_key=%x\nlisten_port=%d\npublic_key=%x\npreshared_key=%x\nallowed_ip=%s/32\nallowed_ip=%s/128\n",
		h.private.Bytes(), port, peer.Bytes(), h.psk.Bytes(), peerAddr4, peerAddr6)
	if err := h.dev.IpcSet(text); err != nil {
		t.Fatal(err)
	}
	if err := h.dev.Up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.dev.Close)
	return h
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func privateKey(t testing.TB) key.Private {
	t.Helper()
	k, err := key.NewPrivate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// config is a peer's that fits a home.
func (h *home) config(private key.Private) Config {
	return Config{
		Private: private, Peer: h.private.Public(), Preshared: h.psk, Endpoint: h.at,
		Addresses:  []netip.Addr{peerAddr4, peerAddr6},
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.87.20.0/24"), netip.MustParsePrefix("fd12:3456:789a::/64")},
		DNS:        []netip.Addr{routerAddr4},
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

const patience = 20 * time.Second // for what must happen

// short is for what must not happen: a packet on loopback has long arrived.
const short = 400 * time.Millisecond

func TestTheWholeWay(t *testing.T) {
	binds := bindtest.NewChannelBinds()
	for name, wire := range map[string][2]conn.Bind{"udp": {}, "channels": binds} {
		t.Run(name, func(t *testing.T) {
			private := privateKey(t)
			h := newHome(t, private.Public(), wire[0])
			c := h.config(private)
			c.Bind = wire[1]
			ctx := within(t, patience)
			tun, err := Up(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			defer tun.Close()
			if err := tun.Handshake(ctx); err != nil {
				t.Fatal(err)
			}
			s := tun.Stats()
			if s.LastHandshake.IsZero() || s.Received < responseSize || s.Sent < initiationSize || s.Initiations == 0 || s.Responses == 0 {
				t.Errorf("after the handshake: %+v", s)
			}
			for _, a := range []netip.Addr{routerAddr4, routerAddr6} {
				if rtt, err := tun.Ping(ctx, a); err != nil || rtt <= 0 {
					t.Errorf("ping %s: %s, %v", a, rtt, err)
				}
			}
			fetch(t, ctx, h, tun)
			refused := netip.AddrPortFrom(routerAddr4, 9).String()
			_, err = tun.DialContext(ctx, "tcp", refused)
			var u *UnreachableError
			if !errors.As(err, &u) || !u.Refused() {
				t.Errorf("a closed port: %v", err)
			}
		})
	}
}

func fetch(t *testing.T, ctx context.Context, h *home, tun *Tunnel) {
	t.Helper()
	l, err := h.net.ListenTCP(netip.MustParseAddrPort("0.0.0.0:80"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello from home") })}
	served := make(chan struct{})
	go func() { srv.Serve(l); close(served) }()
	defer func() { srv.Close(); <-served }()
	tr := &http.Transport{DialContext: tun.DialContext}
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://10.87.20.1/", nil)
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "hello from home" {
		t.Errorf("fetched %q", b)
	}
}

func TestNamesAreAskedInTheTunnel(t *testing.T) {
	private := privateKey(t)
	h := newHome(t, private.Public(), nil)
	u, err := h.net.ListenUDP(netip.MustParseAddrPort("0.0.0.0:53"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil {
				continue
			}
			q := m.Questions[0]
			m.Response = true
			switch {
			case q.Name.String() != "nas.lan.":
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: [4]byte{10, 87, 20, 1}},
				}}
			}
			if b, err := m.Pack(); err == nil {
				u.WriteTo(b, from)
			}
		}
	}()
	ctx := within(t, patience)
	tun, err := Up(ctx, h.config(private))
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	if a, err := tun.Lookup(ctx, "nas.lan"); err != nil || len(a) != 1 || a[0] != routerAddr4 {
		t.Errorf("nas.lan is %v, %v", a, err)
	}
	_, err = tun.Lookup(ctx, "nobody.lan")
	var d *net.DNSError
	if !errors.As(err, &d) || !d.IsNotFound {
		t.Errorf("nobody.lan: %v", err)
	}
}

func TestWhatIsMissingIsTold(t *testing.T) {
	otherPSK, _ := key.NewPreshared(rand.Reader)
	cookies := listen(t, func([]byte) []byte { b := make([]byte, cookieSize); b[0] = cookie; return b })
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want Answer
		wait time.Duration
	}{
		{"wrong preshared key", func(c *Config) { c.Preshared = otherPSK }, Unfit, patience},
		{"no preshared key", func(c *Config) { c.Preshared = key.Preshared{} }, Unfit, patience},
		{"wrong key of the router", func(c *Config) { c.Peer = privateKey(t).Public() }, Silence, short},
		{"a key that the router does not know", func(c *Config) { c.Private = privateKey(t) }, Silence, short},
		{"nothing listens", func(c *Config) { c.Endpoint = netip.AddrPortFrom(c.Endpoint.Addr(), freePort(t)) }, Refused, patience},
		{"under load", func(c *Config) { c.Endpoint = cookies }, Cookie, patience},
		{"cannot send", func(c *Config) { c.Bind = deaf{syscall.ENETUNREACH} }, Unsent, patience},
		{"all right", func(*Config) {}, Answered, patience},
	} {
		// Each on a home of its own: a router ignores a second initiation by the
		// same peer within some 40 ms.
		fresh := func(t *testing.T) Config {
			private := privateKey(t)
			c := newHome(t, private.Public(), nil).config(private)
			tt.edit(&c)
			return c
		}
		t.Run(tt.name+"/probe", func(t *testing.T) {
			p, err := Probe(within(t, tt.wait), fresh(t))
			if err != nil {
				t.Fatal(err)
			}
			sent := 1
			if tt.want == Unsent {
				sent = 0
			}
			if p.Answer != tt.want || p.Sent != sent {
				t.Errorf("the probe saw %q after %d initiations, want %q after %d", p.Answer, p.Sent, tt.want, sent)
			}
		})
		t.Run(tt.name+"/handshake", func(t *testing.T) {
			tun, err := Up(context.Background(), fresh(t))
			if err != nil {
				t.Fatal(err)
			}
			defer tun.Close()
			wait := short
			if tt.want >= Unfit {
				wait = patience
			}
			err = tun.Handshake(within(t, wait))
			if tt.want == Answered {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var no *NoHandshakeError
			if !errors.As(err, &no) || no.Answer != tt.want {
				t.Errorf("the handshake failed with %v, want %q", err, tt.want)
			}
		})
	}
}

// listen answers datagrams on loopback.
func listen(t *testing.T, answer func([]byte) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(answer(b[:n]), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// deaf is a bind that cannot send.
type deaf struct{ err error }

func (deaf) Open(uint16) ([]conn.ReceiveFunc, uint16, error) { return nil, 1, nil }
func (deaf) Close() error                                    { return nil }
func (d deaf) Send([][]byte, conn.Endpoint) error            { return d.err }
func (deaf) SetMark(uint32) error                            { return nil }
func (deaf) BatchSize() int                                  { return 1 }
func (deaf) ParseEndpoint(s string) (conn.Endpoint, error)   { return new(socket).ParseEndpoint(s) }

// Big packets come through whole up to the far end's size, and an answer in pieces
// does not count.
func TestFits(t *testing.T) {
	private := privateKey(t)
	h := newHome(t, private.Public(), nil)
	tun, err := Up(within(t, patience), h.config(private))
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	if err := tun.Handshake(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{routerAddr4, routerAddr6} {
		for _, size := range []int{100, 1280, 1420} {
			if err := tun.Fits(within(t, patience), to, size); err != nil {
				t.Errorf("%s, %d bytes: %v", to, size, err)
			}
		}
		var none *NoEchoError
		if err := tun.Fits(within(t, short), to, 1500); !errors.As(err, &none) {
			t.Errorf("%s, 1500 bytes: %v", to, err)
		}
	}
	if p := echoRequest(peerAddr4, routerAddr4, echoID{1, 1}, 1400); len(p) != 1400 || p[6] != dontFragment {
		t.Errorf("%d bytes, flags %x", len(p), p[6])
	}
	if p := echoRequest(peerAddr6, routerAddr6, echoID{1, 1}, 1400); len(p) != 1400 {
		t.Errorf("%d bytes", len(p))
	}
}

func TestOutsideAllowedIPs(t *testing.T) {
	private := privateKey(t)
	h := newHome(t, private.Public(), nil)
	tun, err := Up(context.Background(), h.config(private))
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	away := netip.MustParseAddr("192.168.77.10")
	if _, err := tun.Ping(within(t, patience), away); !errors.Is(err, ErrOutside) {
		t.Errorf("ping: %v", err)
	}
	if _, err := tun.DialContext(within(t, patience), "tcp", "192.168.77.10:80"); !errors.Is(err, ErrOutside) {
		t.Errorf("dial: %v", err)
	}
	nobody := netip.MustParseAddr("10.87.20.77")
	var no *NoEchoError
	if _, err := tun.Ping(within(t, short), nobody); !errors.As(err, &no) || no.Sent == 0 || no.From.IsValid() {
		t.Errorf("ping to nobody: %v", err)
	}
}

func TestARouterThatRejectsIsHeard(t *testing.T) {
	tun := &Tunnel{cfg: Config{Addresses: []netip.Addr{peerAddr4, peerAddr6},
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}}
	for _, tt := range []struct {
		to, says   string
		kind, code byte
		want       string
	}{
		{"192.168.77.10", "10.87.20.1", 3, 3, "rejected by a firewall"},
		{"192.168.77.10", "10.87.20.1", 3, 1, "that host is not there"},
		{"fd00::10", "fd12:3456:789a::1", 1, 4, "rejected by a firewall"},
		{"fd00::10", "fd12:3456:789a::1", 1, 77, "ICMP type 1 code 77"},
	} {
		inner, err := ipstack.New(tun.cfg.Addresses, 1420)
		if err != nil {
			t.Fatal(err)
		}
		tun.nic = newNIC(inner)
		go func() {
			b := make([]byte, 2000)
			n := make([]int, 1)
			if _, err := tun.nic.Read([][]byte{b}, n, 0); err != nil {
				return
			}
			tun.nic.Write([][]byte{icmpError(netip.MustParseAddr(tt.says), tt.kind, tt.code, b[:n[0]])}, 0)
		}()
		var no *NoEchoError
		_, err = tun.Ping(within(t, patience), netip.MustParseAddr(tt.to))
		if !errors.As(err, &no) || no.From.String() != tt.says || no.Reason() != tt.want {
			t.Errorf("%s says %d/%d: %v", tt.says, tt.kind, tt.code, err)
		}
		tun.nic.Close()
		tun.nic.wait()
	}
}

// icmpError is what a router sends back about a packet.
func icmpError(from netip.Addr, kind, code byte, about []byte) []byte {
	quoted := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, about...)
	if from.Is4() {
		p := make([]byte, ip4Header)
		p[0], p[8], p[9] = ip4VersionLength, 64, icmp4
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(quoted)))
		copy(p[12:], from.AsSlice())
		return append(p, quoted...)
	}
	p := make([]byte, ip6Header)
	p[0], p[6], p[7] = 6<<4, icmp6, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(quoted)))
	copy(p[8:], from.AsSlice())
	return append(p, quoted...)
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for i := range rounds {
		t.Run("round", func(t *testing.T) { upAndDown(t, i%2 == 0) })
	}
	// What ends is told by nobody: look until it has.
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		b := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after\n%s", before, n, b[:runtime.Stack(b, true)])
	}
}

// upAndDown closes a tunnel while it is idle, or in the middle of its work.
func upAndDown(t *testing.T, busy bool) {
	private := privateKey(t)
	h := newHome(t, private.Public(), nil)
	ctx := within(t, patience)
	tun, err := Up(ctx, h.config(private))
	if err != nil {
		t.Fatal(err)
	}
	if busy {
		if err := tun.Handshake(ctx); err != nil {
			t.Fatal(err)
		}
		go tun.DialContext(ctx, "tcp", "10.87.20.99:80") // still trying when the tunnel closes
		if c, err := tun.DialContext(ctx, "udp", "10.87.20.1:9"); err == nil {
			go func() {
				for ctx.Err() == nil {
					if _, err := c.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			}()
		}
		if _, err := tun.Ping(ctx, routerAddr4); err != nil {
			t.Error(err)
		}
	}
	tun.Close()
	tun.Close()
}

func TestNoKeyIsPrinted(t *testing.T) {
	private := privateKey(t)
	h := newHome(t, private.Public(), nil)
	c := h.config(private)
	tun, err := Up(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	bad := c
	bad.Endpoint = netip.AddrPortFrom(h.at.Addr(), freePort(t))
	lost, err := Up(context.Background(), bad)
	if err != nil {
		t.Fatal(err)
	}
	defer lost.Close()
	failed := lost.Handshake(within(t, short))
	raw := private.Bytes()
	pskRaw := h.psk.Bytes()
	for _, v := range []any{c, &c, struct{ c Config }{c}, tun, struct{ t *Tunnel }{tun}, failed, tun.Stats()} {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		for _, secret := range [][]byte{raw[:], pskRaw[:]} {
			for _, form := range []string{
				fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprint(secret), "[]"), string(secret),
				private.Reveal(), h.psk.Reveal(),
			} {
				if strings.Contains(out.String(), form) {
					t.Errorf("%T prints a key", v)
				}
			}
		}
	}
}

func TestSettingsThatCannotBe(t *testing.T) {
	private, router := privateKey(t), privateKey(t).Public()
	good := Config{Private: private, Peer: router, Endpoint: netip.MustParseAddrPort("127.0.0.1:1"),
		Addresses: []netip.Addr{peerAddr4}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.87.20.0/24")}}
	for field, edit := range map[string]func(*Config){
		"private key": func(c *Config) { c.Private = key.Private{} },
		"peer":        func(c *Config) { c.Peer = private.Public() },
		"endpoint":    func(c *Config) { c.Endpoint = netip.AddrPort{} },
		"addresses":   func(c *Config) { c.Addresses = nil },
		"allowed IPs": func(c *Config) { c.AllowedIPs = nil },
		"MTU":         func(c *Config) { c.MTU = 90 },
		"keepalive":   func(c *Config) { c.Keepalive = -1 },
	} {
		c := good
		edit(&c)
		var e *ConfigError
		if _, err := Up(context.Background(), c); !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func FuzzParseEcho(f *testing.F) {
	for _, to := range []netip.Addr{routerAddr4, routerAddr6} {
		from := peerAddr4
		if to.Is6() {
			from = peerAddr6
		}
		p := echoRequest(from, to, echoID{7, 8}, 0)
		f.Add(p)
		f.Add(icmpError(to, 3, 3, p))
		f.Add(icmpError(to, 1, 4, p[:30]))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, a, ok := parseEcho(p); ok && !a.from.IsValid() {
			t.Error("an answer from nobody")
		}
	})
}

// From nothing to an answered ping through the tunnel.
func BenchmarkUpToThePing(b *testing.B) {
	for b.Loop() {
		b.StopTimer() // a fresh home: a router ignores a peer that returns within 40 ms
		private := privateKey(b)
		h := newHome(b, private.Public(), nil)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		b.StartTimer()
		tun, err := Up(ctx, h.config(private))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := tun.Ping(ctx, routerAddr4); err != nil {
			b.Fatal(err)
		}
		tun.Close()
		cancel()
		b.StopTimer()
		h.dev.Close()
		b.StartTimer()
	}
}
