package locate_test

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/locate"
	"github.com/heimweg/heimweg/internal/outside"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uplink"
)

// near is the way out of the laptop at home.
func near(w *world.World) outside.Way {
	return outside.Way{
		Rand: rand.Reader, Roots: w.Station().Roots,
		Dial: w.LaptopDial,
		ListenUDP: func(context.Context, string) (net.PacketConn, error) {
			return listen(w)
		},
		Lookup: lookup(w),
	}
}

func listen(w *world.World) (net.PacketConn, error) {
	u, err := w.Laptop.ListenUDP(0)
	if err != nil {
		return nil, err
	}
	return u, nil
}

func lookup(w *world.World) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		if all, ok := w.LookupAll(host); ok {
			return all, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
}

// look is what one look at the home router would show, as far as it counts here.
func look(w *world.World) *router.Snapshot {
	s := &router.Snapshot{}
	add := func(name, dev string, four bool) {
		i := router.Interface{Name: name, Device: dev}
		for _, p := range w.Router.Stack().Addrs(dev) {
			if p.Addr().Is4() == four {
				i.Addresses, i.Up = append(i.Addresses, p), true
			}
		}
		if i.Up && four && w.ISP != nil {
			i.Gateways = []netip.Addr{w.ISP.Address()}
		}
		s.Interfaces = append(s.Interfaces, i)
	}
	if w.Options.Uplink == home.OneArmed {
		add("lan", "br-lan", true)
		return s
	}
	add("wan", "wan", true)
	add("wan6", "wan", false)
	return s
}

func request(w *world.World, servers ...string) locate.Request {
	h := home.New()
	h.Uplink.Kind = w.Options.Uplink
	if h.Uplink.Kind == home.Behind {
		h.Uplink.Network = subnet.MustParse(world.UplinkLAN.String())
	}
	s := look(w)
	r := locate.Request{Home: h, Snapshot: s, Lookup: lookup(w), Servers: servers, Near: near(w)}
	if w.ISP != nil {
		r.Box = locate.ISPRouter(uplink.Options{
			Gateway: locate.Gateway(h, s), Client: world.UplinkWAN,
			Direct: uplink.Way{Dial: w.LaptopDial, ListenUDP: func(context.Context) (net.PacketConn, error) { return listen(w) }},
		})
	}
	return r
}

var servers = []string{world.STUNServer, world.EchoPage}

// Every connection gets its right verdict, within five seconds of its time.
func TestVerdicts(t *testing.T) {
	tells := &igd.Options{UPnP: 2}
	for _, c := range []struct {
		name    string
		opt     world.Options
		servers []string
		want    string
		call    string
	}{
		{"public", world.Options{IGD: tells}, servers, "public IPv4", "203.0.113.7"},
		{"public, nobody outside asked", world.Options{IGD: tells}, nil, "public IPv4, not yet seen from outside", "203.0.113.7"},
		{"public, by NAT-PMP", world.Options{IGD: &igd.Options{NATPMP: true}}, servers, "public IPv4", "203.0.113.7"},
		{"public, and the ISP router is mute", world.Options{}, servers, "not clear yet", "203.0.113.7"},
		{"directly", world.Options{Uplink: home.Direct}, servers, "public IPv4", "203.0.113.7"},
		{"one-armed", world.Options{Uplink: home.OneArmed, IGD: tells}, servers, "public IPv4", "203.0.113.7"},
		{"dual stack", world.Options{IGD: tells, IPv6: true}, servers, "public IPv4, with IPv6", "203.0.113.7"},
		{"double NAT", world.Options{IGD: tells, Upstream: world.DoubleNAT}, servers, "double NAT", "203.0.113.7"},
		{"double NAT, nobody outside asked", world.Options{IGD: tells, Upstream: world.DoubleNAT}, nil, "double NAT", ""},
		{"CGNAT", world.Options{IGD: tells, Upstream: world.CGNAT}, servers, "carrier NAT (CGNAT)", ""},
		{"CGNAT, nobody outside asked", world.Options{IGD: tells, Upstream: world.CGNAT}, nil, "carrier NAT (CGNAT)", ""},
		{"CGNAT, and the ISP router is mute", world.Options{Upstream: world.CGNAT}, servers, "not clear yet", "203.0.113.200"},
		{"CGNAT with IPv6", world.Options{IGD: tells, Upstream: world.CGNAT, IPv6: true}, servers, "carrier NAT (CGNAT), with IPv6", "2001:db8:7"},
		{"DS-Lite", world.Options{IGD: tells, Upstream: world.DSLite}, servers, "DS-Lite, with IPv6", "2001:db8:7"},
		{"IPv6 only", world.Options{IGD: tells, Upstream: world.IPv6Only}, servers, "IPv6 only", "2001:db8:7"},
		{"IPv6 only, nobody outside asked", world.Options{IGD: tells, Upstream: world.IPv6Only}, nil, "IPv6 only", "2001:db8:7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, err := world.New(t.Context(), c.opt)
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				start := time.Now()
				f := locate.Facts(t.Context(), request(w, c.servers...), nil)
				v := endpoint.Judge(f)
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %s", took)
				}
				if v.Words() != c.want || c.call == "" && v.Endpoint.Host != "" || !strings.HasPrefix(v.Endpoint.Host, c.call) {
					t.Errorf("%s, call %q; want %s, %q\n%+v", v.Words(), v.Endpoint.Host, c.want, c.call, v)
				}
				if v.Endpoint.Host == "" && len(v.Steps) == 0 {
					t.Error("nothing to do, though nobody can call")
				}
				if c.servers == nil && w.Station().Asked("stun")+w.Station().Asked("https") > 0 {
					t.Error("a server outside was asked unasked")
				}
			})
		})
	}
}

// When the provider connects anew, the name that says the old address is found
// out, and so is an address that was written down.
func TestChanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := world.New(t.Context(), world.Options{IGD: &igd.Options{UPnP: 2}, IPv6: true})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		judge := func(endpointOfHome string) endpoint.Verdict {
			r := request(w, servers...)
			r.Home.Tunnel.Endpoint = endpointOfHome
			return endpoint.Judge(locate.Facts(t.Context(), r, nil))
		}
		for _, e := range []string{world.EndpointName, "203.0.113.7"} {
			if v := judge(e); v.Changing || !v.Callable() {
				t.Errorf("%s: %s, call %+v", e, v.Words(), v.Endpoint)
			}
		}
		if err := w.Reconnect(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		v := judge(world.EndpointName)
		if _, ok := v.Step(endpoint.StepRecord); !ok || !v.Changing || v.Callable() || v.Kind != endpoint.Public {
			t.Errorf("a stale name: %+v", v)
		}
		v = judge("203.0.113.7")
		if _, ok := v.Step(endpoint.StepName); !ok || !v.Changing || v.Endpoint.Host != "203.0.113.90" {
			t.Errorf("a stale address: %+v", v)
		}
		w.UpdateName()
		if v := judge(world.EndpointName); v.Changing || !v.Callable() {
			t.Errorf("the name has followed: %+v", v)
		}
	})
}

// What does not answer is not known, and costs no more than the patience.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := world.New(t.Context(), world.Options{IGD: &igd.Options{UPnP: 2, Faults: igd.Faults{Silent: true}}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		w.Station().Stack.PowerOff()
		start := time.Now()
		f := locate.Facts(t.Context(), request(w, servers...), nil)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if f.STUN.Known() || f.Web.Known() || f.Boxes[0].Outer.Known() || !f.WAN.Known() {
			t.Errorf("%+v", f)
		}
		if v := endpoint.Judge(f); v.Kind != endpoint.Unclear || len(v.Missing) < 2 {
			t.Errorf("%+v", v)
		}
	})
}

// A program may open the ISP router's IPv6 firewall for the home router, and then
// a call from outside gets as far as to it.
func TestPinhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := world.New(t.Context(), world.Options{Upstream: world.DSLite, IGD: &igd.Options{UPnP: 2, Firewall6: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		g, err := uplink.Ask(t.Context(), uplink.Options{Gateway: w.ISP.Address(), Client: world.UplinkWAN,
			Direct: uplink.Way{Dial: w.LaptopDial, ListenUDP: func(context.Context) (net.PacketConn, error) { return listen(w) }},
			Via:    uplink.Way{Dial: w.Router.Stack().Dial}})
		if err != nil {
			t.Fatal(err)
		}
		to := netip.AddrPortFrom(w.HomeIPv6(), 51820)
		p, err := g.Pinhole(t.Context(), "udp", to, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		w.Laptop.Tethered()
		u, err := w.Laptop.ListenUDP(0)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		knock := func() string {
			before := len(w.Deaths())
			u.WriteToAddrPort([]byte("knock"), to)
			synctest.Wait()
			d := w.Deaths()[before:]
			if len(d) == 0 {
				return ""
			}
			return d[0].Where
		}
		if at := knock(); at != world.RouterName {
			t.Errorf("the call ended at %q", at)
		}
		w.Laptop.AtHome()
		if err := w.Laptop.WaitAddr(t.Context(), world.HomeLAN); err != nil {
			t.Fatal(err)
		}
		if err := g.ClosePinhole(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		w.Laptop.Tethered()
		w.ISP.Forget()
		if at := knock(); at != "ISP router" {
			t.Errorf("the call ended at %q, though the hole was closed", at)
		}
	})
}
