package uplink_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/uplink"
)

// whole is a home with everything round it, asked from the laptop behind the home
// router, and by what an SSH channel of that would do.
func whole(t *testing.T, opt world.Options) (*world.World, uplink.Options) {
	w, err := world.New(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if err := w.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	router := w.Router.Stack()
	o := uplink.Options{Gateway: w.ISP.Address(), Client: world.UplinkWAN, Direct: out(w.Laptop.Stack), Via: uplink.Way{Dial: router.Dial}}
	if opt.Uplink == home.OneArmed {
		o.Direct.From = laptopAddr(w)
	}
	return w, o
}

func laptopAddr(w *world.World) netip.Addr {
	for _, i := range w.Laptop.Ifaces() {
		for _, a := range i.Addrs {
			if a.Addr().Is4() {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

// knock sends a datagram to home from outside and tells where it ended.
func knock(w *world.World, from *lab.Stack, to netip.AddrPort) string {
	u, err := from.ListenUDP(0)
	if err != nil {
		return err.Error()
	}
	defer u.Close()
	before := len(w.Fates())
	u.WriteToAddrPort([]byte("knock"), to)
	synctest.Wait()
	last := w.Fates()[before:]
	for i := len(last) - 1; i >= 0; i-- {
		if last[i].Packet.Proto == lab.UDP && last[i].Packet.DstPort == to.Port() {
			return last[i].Where
		}
	}
	return "nowhere"
}

// In whole homes: the port opened at the ISP router brings the packet as far as
// the home router.
func TestWholeHomes(t *testing.T) {
	fritz := &igd.Options{UPnP: 2, TR064: &igd.Account{}, Firewall6: true, Faults: igd.Faults{OwnOnly: true}}
	for name, opt := range map[string]world.Options{
		"behind, UPnP":        {IGD: &igd.Options{UPnP: 1}},
		"behind, PCP":         {IGD: &igd.Options{PCP: true}},
		"behind, NAT-PMP":     {IGD: &igd.Options{NATPMP: true}},
		"behind, FRITZ!Box":   {IGD: fritz},
		"beside, FRITZ!Box":   {IGD: fritz, Uplink: home.OneArmed},
		"beside, PCP":         {IGD: &igd.Options{PCP: true, NATPMP: true}, Uplink: home.OneArmed},
		"behind, dual stack":  {IGD: fritz, IPv6: true},
		"behind, only by PPP": {IGD: &igd.Options{UPnP: 1, PPP: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, o := whole(t, opt)
				g, err := uplink.Ask(t.Context(), o)
				if err != nil {
					t.Fatal(err, w.WhereDied(nil))
				}
				to := w.Endpoint(51820)
				if at := knock(w, w.Outside, to); at != "ISP router" {
					t.Errorf("before, it ended at %s", at)
				}
				m, err := g.Map(t.Context(), wireguard)
				if err != nil {
					t.Fatal(err)
				}
				if at := knock(w, w.Outside, to); at != world.RouterName {
					t.Errorf("mapped, it ended at %s", at)
				}
				if err := g.Unmap(t.Context(), m); err != nil {
					t.Error(err)
				}
				w.ISP.Forget()
				if at := knock(w, w.Outside, to); at != "ISP router" {
					t.Errorf("after, it ended at %s", at)
				}
			})
		})
	}
}

// The same over IPv6: the opening is asked for through the home router.
func TestWholeHomeIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, o := whole(t, world.Options{IPv6: true, IGD: &igd.Options{UPnP: 2, Firewall6: true}})
		g, err := uplink.Ask(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		p := w.MobileData()
		caller := lab.NewStack(w.World, "caller")
		caller.Configure([]lab.Iface{{Dev: "mobile", Link: p.Link, Addrs: []netip.Prefix{lab.HostIn(p.Addr6, "caller")}}},
			[]lab.Route{{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: p.Gateway6, Dev: "mobile"}})
		to := netip.AddrPortFrom(w.HomeIPv6(), 51820)
		if at := knock(w, caller, to); at != "ISP router" {
			t.Errorf("before, it ended at %s", at)
		}
		if _, err := g.Pinhole(t.Context(), "udp", to, time.Hour); err != nil {
			t.Fatal(err)
		}
		if at := knock(w, caller, to); at != world.RouterName {
			t.Errorf("opened, it ended at %s", at)
		}
		time.Sleep(2 * time.Hour)
		if at := knock(w, caller, to); at != "ISP router" {
			t.Errorf("an hour later, it ended at %s", at)
		}
	})
}

// An ISP router without an address of its own cannot help, and says so.
func TestWholeHomesWithout(t *testing.T) {
	for name, opt := range map[string]world.Options{
		"DS-Lite":    {Upstream: world.DSLite},
		"IPv6 only":  {Upstream: world.IPv6Only},
		"double NAT": {Upstream: world.DoubleNAT},
		"CGNAT":      {Upstream: world.CGNAT},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opt.IGD = &igd.Options{UPnP: 2}
				w, o := whole(t, opt)
				g, err := uplink.Ask(t.Context(), o)
				if err != nil {
					t.Fatal(err, w.WhereDied(nil))
				}
				_, err = g.Map(t.Context(), wireguard)
				switch opt.Upstream {
				case world.DSLite, world.IPv6Only:
					if err == nil || !strings.Contains(err.Error(), "it has no public address itself") {
						t.Error(err)
					}
				default: // this box maps all the same; its address tells
					a, err2 := g.External(t.Context())
					if err != nil || err2 != nil || !a.IsPrivate() && !netip.MustParsePrefix("100.64.0.0/10").Contains(a) {
						t.Errorf("%v, %v, %s", err, err2, a)
					}
				}
			})
		})
	}
}
