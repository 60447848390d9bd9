package phone

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/nas"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// road is the smallest way home, without OpenWrt: a phone in one of two mobile
// networks, a plain router with wireguard-go, and a NAS behind it.
type road struct {
	w              *lab.World
	phone          *Phone
	router         *lab.Stack
	nas            *nas.Box
	mobile, hotel  Place
	conf           wgconf.Conf
	routerDevice   *device.Device
	mobileL, homeL *lab.Link
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func newRoad(t testing.TB) *road {
	w := lab.New(1)
	r := &road{w: w, mobileL: w.Link("mobile"), homeL: w.Link("home LAN")}
	hotel := w.Link("hotel")
	r.mobile = Place{Link: r.mobileL, Addr: prefix("198.51.100.2/24"), Gateway: addr("198.51.100.1")}
	r.hotel = Place{Link: hotel, Addr: prefix("192.0.2.77/24"), Gateway: addr("192.0.2.1")}
	internet := lab.NewStack(w, "internet")
	line := w.Link("line")
	internet.Configure([]lab.Iface{
		{Dev: "mobile", Link: r.mobileL, Addrs: []netip.Prefix{prefix("198.51.100.1/24")}},
		{Dev: "hotel", Link: hotel, Addrs: []netip.Prefix{prefix("192.0.2.1/24")}},
		{Dev: "line", Link: line, Addrs: []netip.Prefix{prefix("203.0.113.1/24")}},
	}, nil)
	internet.SetForwarding(true)

	priv, _ := key.NewPrivate(rand.Reader)
	phonePriv, _ := key.NewPrivate(rand.Reader)
	psk, _ := key.NewPreshared(rand.Reader)
	r.router = lab.NewStack(w, "router")
	tun := lab.NewTun("wg0", 1420, func(raw []byte) { r.router.Inject("wg0", raw) })
	r.router.Configure([]lab.Iface{
		{Dev: "wan", Link: line, Addrs: []netip.Prefix{prefix("203.0.113.7/24")}},
		{Dev: "lan", Link: r.homeL, Addrs: []netip.Prefix{prefix("192.168.1.1/24")}},
		{Dev: "wg0", MTU: 1420, Addrs: []netip.Prefix{prefix("10.86.20.1/24")}, Send: tun.Send},
	}, []lab.Route{{Dst: prefix("0.0.0.0/0"), Via: addr("203.0.113.1"), Dev: "wan"}})
	r.router.SetForwarding(true)
	if _, err := lab.ServeDNS(r.router, func(name string) (netip.Addr, bool) { return addr("192.168.1.10"), name == "nas.lan" }); err != nil {
		t.Fatal(err)
	}
	r.routerDevice = device.NewDevice(tun, lab.NewBind(r.router, 0), device.NewLogger(device.LogLevelSilent, ""))
	hexed := func(b [32]byte) string { return hex.EncodeToString(b[:]) }
	err := r.routerDevice.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=51820\npublic_key=%s\npreshared_key=%s\nallowed_ip=10.86.20.2/32\n",
		hexed(priv.Bytes()), hexed(phonePriv.Public().Bytes()), hexed(psk.Bytes())))
	if err == nil {
		err = r.routerDevice.Up()
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.nas, err = nas.New(w, nas.Options{Link: r.homeL, Addr: prefix("192.168.1.10/24"), Gateway: addr("192.168.1.1")}); err != nil {
		t.Fatal(err)
	}
	w.Name("home.example.net", addr("203.0.113.7"))
	r.conf = wgconf.Conf{
		Interface: wgconf.Interface{PrivateKey: phonePriv, Addresses: []netip.Prefix{prefix("10.86.20.2/32")}, DNS: []string{"10.86.20.1", "lan"}},
		Peer: wgconf.Peer{PublicKey: priv.Public(), Preshared: psk, AllowedIPs: []netip.Prefix{prefix("10.86.20.0/24"), prefix("192.168.1.0/24")},
			Endpoint: "home.example.net", Port: 51820, Keepalive: 25},
	}
	r.phone = New(w, "", r.mobile)
	return r
}

func (r *road) close() {
	r.phone.Close()
	r.nas.Close()
	r.routerDevice.Close()
	r.w.Close()
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestWayHome(t *testing.T) {
	r := newRoad(t)
	defer r.close()
	if _, err := r.phone.Get(within(t, time.Second), "http://192.168.1.10/"); err == nil {
		t.Error("reached the NAS without a tunnel")
	}
	if err := r.phone.Join(string(r.conf.Text())); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"http://192.168.1.10/", "http://nas/", "http://nas.lan/"} {
		page, err := r.phone.Get(within(t, 10*time.Second), url)
		if err != nil || page != "hello from home\nyou are 10.86.20.2\n" {
			t.Errorf("%s: %q, %v", url, page, err)
		}
	}
	for _, to := range []string{"192.168.1.10", "10.86.20.1", "192.168.1.1", "198.51.100.1"} {
		if _, err := r.phone.Ping(within(t, 5*time.Second), addr(to)); err != nil {
			t.Errorf("ping: %v", err)
		}
	}
	s, err := r.phone.Stats()
	if err != nil || s.LastHandshake.IsZero() || s.Received == 0 {
		t.Errorf("stats: %+v, %v", s, err)
	}
	// The NAS calls back, into the tunnel.
	if _, err := r.router.Ping(within(t, 5*time.Second), addr("10.86.20.2")); err != nil {
		t.Errorf("router pings the phone: %v", err)
	}
	for _, f := range r.w.Record() {
		if f.Where == "internet" && (f.Packet.Dst == addr("192.168.1.10") && f.At.After(s.LastHandshake) || f.Packet.DstPort == 80 && f.At.After(s.LastHandshake)) {
			t.Errorf("outside of the tunnel: %s", f)
		}
	}
}

// Switched off and on at once, the tunnel is there at once: handshakes that come
// too fast would be taken for a replay.
func TestOffAndOn(t *testing.T) {
	r := newRoad(t)
	defer r.close()
	start := time.Now()
	for range 5 {
		if err := r.phone.JoinConf(r.conf); err != nil {
			t.Fatal(err)
		}
		if err := r.phone.WaitHandshake(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := r.phone.Stats(); err != nil || s.LastHandshake.Before(start) {
		t.Errorf("%+v, %v", s, err)
	}
	refused := 0
	for _, line := range r.phone.Log() {
		if strings.Contains(line, "retrying") {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d handshakes had to be tried again", refused)
	}
}

// A wrong preshared key gives no handshake, and no page.
func TestWrongPresharedKey(t *testing.T) {
	r := newRoad(t)
	defer r.close()
	r.conf.Peer.Preshared, _ = key.NewPreshared(rand.Reader)
	if err := r.phone.JoinConf(r.conf); err != nil {
		t.Fatal(err)
	}
	if _, err := r.phone.Ping(within(t, 500*time.Millisecond), addr("192.168.1.10")); err == nil {
		t.Error("the NAS answered")
	}
	arrived := false
	for _, f := range r.w.Record() {
		arrived = arrived || f.Where == "router" && f.Outcome == lab.Delivered && f.Packet.DstPort == 51820
	}
	if s, err := r.phone.Stats(); err != nil || !s.LastHandshake.IsZero() || !arrived {
		t.Errorf("%+v, %v; the initiation arrived: %v", s, err, arrived)
	}
}

// The phone goes from mobile data to the hotel while it downloads and pings.
func TestRoaming(t *testing.T) {
	r := newRoad(t)
	defer r.close()
	if err := r.phone.JoinConf(r.conf); err != nil {
		t.Fatal(err)
	}
	if _, err := r.phone.Ping(within(t, 5*time.Second), addr("192.168.1.10")); err != nil {
		t.Fatal(err)
	}
	pings := r.phone.KeepPinging(addr("192.168.1.10"), 5*time.Millisecond)
	half := make(chan struct{})
	got := 0
	r.w.Watch(func(f lab.Fate) {
		if f.Where == "phone" && f.Outcome == lab.Delivered {
			if got += f.Packet.Len; got > nas.BigPage/2 {
				select {
				case <-half:
				default:
					close(half)
				}
			}
		}
	})
	done := make(chan error, 1)
	go func() {
		page, err := r.phone.Get(within(t, 30*time.Second), "http://192.168.1.10/big")
		if err == nil && len(page) != nas.BigPage {
			err = fmt.Errorf("%d bytes", len(page))
		}
		done <- err
	}()
	select {
	case <-half:
	case err := <-done:
		t.Fatalf("the download ended early: %v", err)
	}
	r.phone.Roam(r.hotel)
	if err := <-done; err != nil {
		t.Error(err)
	}
	sent, lost := pings.Stop()
	if sent < 3 || sent == lost {
		t.Errorf("%d pings sent, %d lost", sent, lost)
	}
	text, _ := r.routerDevice.IpcGet()
	if !strings.Contains(text, "endpoint=192.0.2.77:") {
		t.Error("the router did not notice the move")
	}
}

// Everything ends with Close.
func TestNoGoroutineStays(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		r := newRoad(t)
		if err := r.phone.JoinConf(r.conf); err != nil {
			t.Fatal(err)
		}
		if _, err := r.phone.Get(within(t, 5*time.Second), "http://192.168.1.10/"); err != nil {
			t.Fatal(err)
		}
		r.close()
	}
	ctx := within(t, 10*time.Second)
	for runtime.NumGoroutine() > before+1 { // gVisor keeps one for the program's life
		select {
		case <-ctx.Done():
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestRefusedConfigurations(t *testing.T) {
	r := newRoad(t)
	defer r.close()
	if err := r.phone.Join("this is no configuration"); err == nil {
		t.Error("nonsense accepted")
	}
	c := r.conf
	c.Peer.Endpoint = "nowhere.example.net"
	if err := r.phone.JoinConf(c); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Error(err)
	}
	if _, err := r.phone.Stats(); err != ErrNotJoined {
		t.Error(err)
	}
}
