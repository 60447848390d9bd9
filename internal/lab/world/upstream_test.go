package world

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
)

// everyUpstream is each way in which a provider connects a household.
var everyUpstream = []struct {
	name string
	opt  Options
	sees string // home's IPv4 address as the internet sees it; "" = none
}{
	{"public IPv4", Options{}, "203.0.113.7"},
	{"dual stack", Options{IPv6: true}, "203.0.113.7"},
	{"double NAT", Options{Upstream: DoubleNAT}, "203.0.113.7"},
	{"CGNAT", Options{Upstream: CGNAT}, "203.0.113.200"},
	{"CGNAT with IPv6", Options{Upstream: CGNAT, IPv6: true}, "203.0.113.200"},
	{"DS-Lite", Options{Upstream: DSLite}, "203.0.113.200"},
	{"IPv6 only", Options{Upstream: IPv6Only}, ""},
	{"one-armed behind CGNAT", Options{Upstream: CGNAT, Uplink: home.OneArmed}, "203.0.113.200"},
	{"directly", Options{Uplink: home.Direct}, "203.0.113.7"},
}

// The station says from where it is called, by UDP and by HTTPS; and the home
// router has IPv6 where the line has.
func TestUpstreams(t *testing.T) {
	for _, u := range everyUpstream {
		t.Run(u.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, u.opt)
				if n := w.Station().Asked("stun") + w.Station().Asked("https"); n != 0 {
					t.Errorf("%d questions that nobody asked", n)
				}
				page := http.Client{Transport: &http.Transport{DialContext: w.LaptopDial, DisableKeepAlives: true,
					TLSClientConfig: &tls.Config{RootCAs: w.Station().Roots}}, Timeout: 10 * time.Second}
				resp, err := page.Get("https://ip.example.net/")
				if (err == nil) != (u.sees != "") {
					t.Fatalf("%v\n%s", err, w.WhereDied(nil))
				}
				if err == nil {
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if got := strings.TrimSpace(string(body)); got != u.sees {
						t.Errorf("the page sees %q, want %q", got, u.sees)
					}
					if got := askSTUN(t, w.Laptop.Stack, stationAddr.Addr()); got.String() != u.sees {
						t.Errorf("STUN sees %s, want %s", got, u.sees)
					}
				}
				if !w.hasIPv6() {
					return
				}
				if got := askSTUN(t, w.Router.Stack(), stationAddr6.Addr()); got != w.HomeIPv6() {
					t.Errorf("over IPv6 %s, want %s", got, w.HomeIPv6())
				}
				// The ISP router lets nobody call the home router before it is opened.
				knock := func() string {
					before := len(w.Deaths())
					w.caller(t).WriteToAddrPort([]byte("knock"), netip.AddrPortFrom(w.HomeIPv6(), 51820))
					synctest.Wait()
					var where []string
					for _, f := range w.Deaths()[before:] {
						where = append(where, f.Where)
					}
					return strings.Join(where, " ")
				}
				if got := knock(); got != "ISP router" {
					t.Errorf("a call from outside ended at %q", got)
				}
				w.OpenIPv6(51820)
				if got := knock(); got != RouterName {
					t.Errorf("a call from outside ended at %q, though the ISP router was opened", got)
				}
			})
		})
	}
}

// caller is a socket on mobile data.
func (w *World) caller(t *testing.T) *lab.UDPConn {
	p := w.MobileData()
	s := lab.NewStack(w.World, "caller")
	s.Configure([]lab.Iface{{Dev: "mobile", Link: p.Link, Addrs: []netip.Prefix{lab.HostIn(p.Addr6, "caller")}}},
		[]lab.Route{{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: p.Gateway6, Dev: "mobile"}})
	u, err := s.ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// askSTUN is a STUN client in ten lines, so that the emulator is not judged by
// the one of the program.
func askSTUN(t *testing.T, s *lab.Stack, server netip.Addr) netip.Addr {
	t.Helper()
	u, err := s.ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	q := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, "twelve bytes"...)
	u.WriteToAddrPort(q, netip.AddrPortFrom(server, 3478))
	u.SetReadDeadline(time.Now().Add(3 * time.Second))
	b := make([]byte, 100)
	n, _, err := u.ReadFromAddrPort(b)
	if err != nil || n < 32 || !bytes.Equal(b[4:20], q[4:20]) {
		t.Fatalf("%x, %v", b[:n], err)
	}
	for i := 28; i < n; i++ {
		b[i] ^= q[4+i-28]
	}
	a, _ := netip.AddrFromSlice(b[28:n])
	return a
}

// A new connection brings another address and another IPv6 network, and the home
// router learns the latter by itself.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{IPv6: true})
		old4, old6 := askSTUN(t, w.Laptop.Stack, stationAddr.Addr()), w.HomeIPv6()
		if err := w.Reconnect(); err != nil {
			t.Fatal(err)
		}
		if err := w.WaitReady(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		now4, now6 := askSTUN(t, w.Laptop.Stack, stationAddr.Addr()), askSTUN(t, w.Router.Stack(), stationAddr6.Addr())
		if now4 == old4 || now6 == old6 || now6 != w.HomeIPv6() {
			t.Errorf("%s → %s, %s → %s", old4, now4, old6, now6)
		}
		if all, _ := w.LookupAll(EndpointName); len(all) != 2 || all[0] != old4 {
			t.Errorf("the name followed by itself: %v", all)
		}
		w.UpdateName()
		if all, _ := w.LookupAll(EndpointName); len(all) != 2 || all[0] != now4 || all[1] != now6 {
			t.Errorf("%v", all)
		}
	})
}

func TestUpstreamsThatCannotBe(t *testing.T) {
	for _, opt := range []Options{
		{Uplink: home.Direct, Upstream: CGNAT}, {Uplink: home.Direct, IPv6: true}, {Uplink: home.OneArmed, Upstream: DSLite}, {Upstream: DoubleNAT, IPv6: true},
	} {
		if w, err := New(t.Context(), opt); err == nil {
			w.Close()
			t.Errorf("%+v", opt)
		}
	}
}
