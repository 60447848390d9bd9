package uplink_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
	"github.com/heimweg/heimweg/internal/uplink"
)

var (
	gateway6 = netip.MustParseAddr("2001:db8:2::1")
	client6  = netip.MustParseAddr("2001:db8:2::253")
)

// sixHall is an ISP router with IPv6. Its firewall is not built; what it would let
// through is in its list.
func sixHall(t *testing.T, opt igd.Options) (*igd.Server, uplink.Options) {
	w := lab.New(1)
	t.Cleanup(w.Close)
	link := w.Link("uplink LAN")
	host := func(name string, addrs ...netip.Prefix) *lab.Stack {
		s := lab.NewStack(w, name)
		s.Configure([]lab.Iface{{Dev: "eth0", Link: link, Addrs: addrs}}, nil)
		return s
	}
	isp := host("ISP router", netip.PrefixFrom(gateway, 24), netip.PrefixFrom(gateway6, 64))
	router := host("home router", netip.PrefixFrom(client, 24), netip.PrefixFrom(client6, 64))
	box := ispbox.New(w, ispbox.Options{Name: "its pages", LAN: w.Link("-"), LANAddr: netip.PrefixFrom(gateway, 24), WAN: w.Link("internet"), WANAddr: netip.MustParsePrefix("203.0.113.7/24")})
	s, err := igd.New(box, igd.OnStack(isp), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, uplink.Options{Gateway: gateway, Gateway6: gateway6, Client: client, Direct: out(router), Via: uplink.Way{Dial: router.Dial}}
}

// An opening for IPv6: made, renewed, closed; it ends by itself.
func TestPinhole(t *testing.T) {
	for _, opt := range []igd.Options{{UPnP: 2, Firewall6: true}, {UPnP: 2, Firewall6: true, TR064: &igd.Account{}}} {
		synctest.Test(t, func(t *testing.T) {
			s, o := sixHall(t, opt)
			g, err := uplink.Ask(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if a := g.Answers[len(g.Answers)-1]; !a.IPv6 || a.Protocol != uplink.UPnP {
				t.Errorf("%+v", g.Answers)
			}
			to := netip.AddrPortFrom(client6, 51820)
			p, err := g.Pinhole(t.Context(), "udp", to, 0)
			if err != nil {
				t.Fatal(err)
			}
			if list := s.Pinholes(); len(list) != 1 || list[0].To != to || list[0].Proto != 17 || p.Lease != 24*time.Hour {
				t.Errorf("%+v %+v", list, p)
			}
			time.Sleep(23 * time.Hour)
			if p, err = g.RenewPinhole(t.Context(), p, 2*time.Hour); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour + 59*time.Minute)
			if len(s.Pinholes()) != 1 {
				t.Error("not renewed")
			}
			time.Sleep(2 * time.Minute)
			if len(s.Pinholes()) != 0 {
				t.Error("it outlived its lease")
			}
			var no *uplink.RefusedError
			if _, err = g.RenewPinhole(t.Context(), p, time.Hour); !errors.As(err, &no) || no.Why != uplink.NotThere {
				t.Errorf("renewed too late: %v", err)
			}
			if err := g.ClosePinhole(t.Context(), p); err != nil {
				t.Errorf("closed too late: %v", err)
			}
			if p, err = g.Pinhole(t.Context(), "udp", to, time.Hour); err != nil {
				t.Error(err)
			}
			if err := g.ClosePinhole(t.Context(), p); err != nil || len(s.Pinholes()) != 0 {
				t.Error(err)
			}
		})
	}
}

// The home router's next hop is mostly link-local: the ISP router is found all the
// same, by its last half, or as number 1.
func TestFindIPv6(t *testing.T) {
	for _, next := range []string{"fe80::1", "fe80::a:b", ""} {
		synctest.Test(t, func(t *testing.T) {
			s, o := sixHall(t, igd.Options{UPnP: 2, Firewall6: true})
			o.Gateway6 = netip.Addr{}
			if next != "" {
				o.Gateway6 = netip.MustParseAddr(next)
			}
			g, err := uplink.Ask(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := g.Pinhole(t.Context(), "udp", netip.AddrPortFrom(client6, 51820), time.Hour); err != nil || len(s.Pinholes()) != 1 {
				t.Errorf("%q: %v", next, err)
			}
		})
	}
}

// Why there is no opening for IPv6.
func TestNoPinhole(t *testing.T) {
	for _, c := range []struct {
		name   string
		opt    igd.Options
		change func(*uplink.Options)
		to     netip.Addr
		says   string
	}{
		{name: "for another host", opt: igd.Options{UPnP: 2, Firewall6: true}, to: netip.MustParseAddr("2001:db8:2::17"), says: "refused, not authorised (AddPinhole: 606"},
		{name: "not permitted", opt: igd.Options{UPnP: 2, Firewall6: true, Faults: igd.Faults{Refuse: 703}}, says: "refused, switched off (GetFirewallStatus: no pinholes)"},
		{name: "refused", opt: igd.Options{UPnP: 2, Firewall6: true, Faults: igd.Faults{Refuse: 702}}, says: "AddPinhole: 702"},
		{name: "not offered", opt: igd.Options{UPnP: 2}, says: "not asked: the ISP router does not offer it"},
		{name: "version 1", opt: igd.Options{UPnP: 1, Firewall6: true}, says: "not asked: the ISP router does not offer it"},
		{name: "no UPnP", opt: igd.Options{PCP: true}, says: "the ISP router does not speak it"},
		{name: "not through the router", opt: igd.Options{UPnP: 2, Firewall6: true}, change: func(o *uplink.Options) { o.Via = uplink.Way{} }, says: "only the home router may ask"},
		{name: "elsewhere", opt: igd.Options{UPnP: 2, Firewall6: true}, change: func(o *uplink.Options) { o.Gateway6 = netip.MustParseAddr("2001:db8:2::9") }, says: "not found at any IPv6 address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, o := sixHall(t, c.opt)
				if c.change != nil {
					c.change(&o)
				}
				g, err := uplink.Ask(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				to := c.to
				if !to.IsValid() {
					to = client6
				}
				_, err = g.Pinhole(t.Context(), "udp", netip.AddrPortFrom(to, 51820), time.Hour)
				if err == nil || !strings.Contains(err.Error(), c.says) || len(s.Pinholes()) != 0 {
					t.Error(err)
				}
			})
		})
	}
}
