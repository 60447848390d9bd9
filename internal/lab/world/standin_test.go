package world

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
)

// standIn plays the home router with a plain NAT box, so that the world round it
// can be tested without OpenWrt. Its SSH is a line of text.
func standIn(w *World) (*lab.Stack, error) {
	if w.Options.Uplink == home.OneArmed {
		s := lab.NewStack(w.World, RouterName)
		s.Configure([]lab.Iface{{Dev: "br-lan", Link: w.Home, Addrs: prefixes(nth(UplinkLAN, 253))}},
			[]lab.Route{{Dst: everything, Via: uplinkISP.Addr(), Dev: "br-lan"}})
		return s, sayHello(s)
	}
	opt := ispbox.Options{Name: RouterName, LAN: w.Home, LANAddr: nth(HomeLAN, 1), WAN: w.ISPLine, WANAddr: Public, Gateway: provider.Addr()}
	if w.Options.Uplink == home.Behind {
		opt.WAN, opt.WANAddr, opt.Gateway = w.Uplink, netip.PrefixFrom(UplinkWAN, 24), uplinkISP.Addr()
	}
	s := ispbox.New(w.World, opt).Stack()
	return s, sayHello(s)
}

func sayHello(s *lab.Stack) error {
	_, err := s.Listen(22, func(c net.Conn) {
		io.WriteString(c, "SSH-2.0-dropbear\r\n")
		c.Close()
	})
	return err
}

func newStandIn(t *testing.T, opt Options) *World {
	w, err := assemble(opt, standIn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func fetch(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), url string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tr := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// From the laptop one sees the NAS and the web page, which sees the household's
// public address; from outside nobody sees the NAS.
func TestHouses(t *testing.T) {
	for _, kind := range []home.Kind{home.Behind, home.Direct, home.OneArmed} {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newStandIn(t, Options{Uplink: kind, Seed: 7})
				if err := w.Laptop.WaitAddress(t.Context()); err != nil {
					t.Fatal(err)
				}
				nasURL := "http://" + w.NAS.Addr().String() + "/"
				page, err := fetch(t, w.LaptopDial, nasURL)
				if err != nil || !strings.HasPrefix(page, "hello from home\n") {
					t.Errorf("NAS: %q, %v", page, err)
				}
				page, err = fetch(t, w.LaptopDial, "http://"+Website.Addr().String()+"/")
				if err != nil || page != "hello from the internet\nyou are 203.0.113.7\n" {
					t.Errorf("web page: %q, %v\n%s", page, err, w.WhereDied(nil))
				}
				if _, err = fetch(t, w.Outside.Dial, nasURL); err == nil {
					t.Error("the NAS is open to the world")
				}
				lan, ok := w.RouterLAN()
				wan, ok2 := w.RouterWAN()
				if !ok || !ok2 || (lan == wan) != (kind == home.OneArmed) {
					t.Errorf("router at %s and %s", lan, wan)
				}
				w.Laptop.Tethered()
				page, err = fetch(t, w.LaptopDial, "http://"+Website.Addr().String()+"/")
				if err != nil || page != "hello from the internet\nyou are 198.51.100.2\n" {
					t.Errorf("web page, tethered: %q, %v\n%s", page, err, w.WhereDied(nil))
				}
			})
		})
	}
}

// A packet from outside reaches the home router's WAN side exactly when the port
// is mapped; the record names the hop that stops it.
func TestMapPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStandIn(t, Options{Uplink: home.OneArmed})
		u, err := w.router.ListenUDP(51820)
		if err != nil {
			t.Fatal(err)
		}
		out, err := w.Outside.ListenUDP(0)
		if err != nil {
			t.Fatal(err)
		}
		try := func() bool {
			out.WriteToAddrPort([]byte("knock"), w.Endpoint(51820))
			u.SetReadDeadline(time.Now().Add(time.Second))
			_, _, err := u.ReadFromAddrPort(make([]byte, 10))
			return err == nil
		}
		if try() {
			t.Error("arrived without a mapping")
		}
		if got := w.WhereDied(func(p lab.Packet) bool { return p.DstPort == 51820 }); !strings.Contains(got, "at ISP router (input): no mapping for UDP 51820") {
			t.Error(got)
		}
		if err := w.MapPort(51820); err != nil {
			t.Fatal(err)
		}
		if !try() {
			t.Error(w.WhereDied(nil))
		}
	})
}

func TestBridges(t *testing.T) {
	w := newStandIn(t, Options{Uplink: home.OneArmed, Real: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.Laptop.WaitAddress(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := w.BridgeSSH(0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", b.String())
	if err != nil {
		t.Fatal(err)
	}
	if hello, err := io.ReadAll(c); string(hello) != "SSH-2.0-dropbear\r\n" || err != nil {
		t.Errorf("%q, %v", hello, err)
	}
	c.Close()
	if err := w.MapPort(51820); err != nil {
		t.Fatal(err)
	}
	u, err := w.router.ListenUDP(51820)
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := w.BridgeTunnel(0, 51820)
	if err != nil {
		t.Fatal(err)
	}
	real, err := net.Dial("udp", tunnel.String())
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	real.Write([]byte("knock"))
	buf := make([]byte, 100)
	u.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := u.ReadFromAddrPort(buf)
	if string(buf[:n]) != "knock" || err != nil {
		t.Fatalf("%q, %v\n%s", buf[:n], err, w.WhereDied(nil))
	}
	u.WriteToAddrPort([]byte("come in"), from)
	real.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := real.Read(buf); string(buf[:n]) != "come in" || err != nil {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if page, err := w.Phone.Get(ctx, "http://"+Website.Addr().String()+"/"); err != nil || !strings.Contains(page, "198.51.100.2") {
		t.Errorf("%q, %v", page, err)
	}
}

func TestImpossibleHouse(t *testing.T) {
	if w, err := assemble(Options{Uplink: home.OneArmed, LANs: 2}, standIn); err == nil {
		w.Close()
		t.Error("a one-armed router with two LANs")
	}
}
