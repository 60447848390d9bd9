package uplink_test

import (
	"context"
	"errors"
	"net"
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
	gateway = netip.MustParseAddr("192.168.2.254")
	client  = netip.MustParseAddr("192.168.2.253") // the home router
	laptop  = netip.MustParseAddr("192.168.2.77")  // sits in the uplink LAN
)

// hall is an ISP router with the home router and a laptop in its LAN.
type hall struct {
	*testing.T
	box    *ispbox.Box
	server *igd.Server
	router *lab.Stack
	laptop *lab.Stack
	phone  *lab.Stack

	opened, closed int // by TestLaws
}

func newHall(t *testing.T, opt igd.Options) *hall {
	w := lab.New(1)
	t.Cleanup(w.Close)
	lan, internet := w.Link("uplink LAN"), w.Link("internet")
	h := &hall{T: t}
	h.box = ispbox.New(w, ispbox.Options{LAN: lan, LANAddr: netip.PrefixFrom(gateway, 24), WAN: internet, WANAddr: netip.MustParsePrefix("203.0.113.7/24")})
	var err error
	if h.server, err = igd.New(h.box, nil, opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.server.Close)
	host := func(name string, link *lab.Link, a netip.Prefix) *lab.Stack {
		s := lab.NewStack(w, name)
		s.Configure([]lab.Iface{{Dev: "eth0", Link: link, Addrs: []netip.Prefix{a}}}, nil)
		return s
	}
	h.router = host("home router", lan, netip.PrefixFrom(client, 24))
	h.laptop = host("laptop", lan, netip.PrefixFrom(laptop, 24))
	h.phone = host("phone", internet, netip.MustParsePrefix("203.0.113.99/24"))
	return h
}

// out is a host's way to the ISP router.
func out(s *lab.Stack) uplink.Way {
	return uplink.Way{Dial: s.Dial, ListenUDP: func(context.Context) (net.PacketConn, error) {
		u, err := s.ListenUDP(0)
		if err != nil {
			return nil, err
		}
		return u, nil
	}}
}

// behind asks from a computer behind the home router: it looks like that.
func (h *hall) behind() uplink.Options {
	return uplink.Options{Gateway: gateway, Client: client, Direct: out(h.router)}
}

// beside asks from a laptop in the ISP router's own LAN, with SSH to the home router.
func (h *hall) beside() uplink.Options {
	o := uplink.Options{Gateway: gateway, Client: client, Direct: out(h.laptop), Via: uplink.Way{Dial: h.router.Dial}}
	o.Direct.From = laptop
	return o
}

func (h *hall) ask(o uplink.Options) *uplink.Gateway {
	h.Helper()
	g, err := uplink.Ask(h.Context(), o)
	if err != nil {
		h.Fatal(err)
	}
	return g
}

var wireguard = uplink.Want{Proto: "udp", External: 51820, Description: "heimweg"}

func (h *hall) mustMap(g *uplink.Gateway, w uplink.Want) uplink.Mapping {
	h.Helper()
	m, err := g.Map(h.Context(), w)
	if err != nil {
		h.Fatal(err)
	}
	return m
}

// reached reports whether a datagram from the internet reaches the home router.
func (h *hall) reached(port uint16) bool {
	h.Helper()
	u, err := h.router.ListenUDP(port)
	if err != nil {
		h.Fatal(err)
	}
	defer u.Close()
	from, err := h.phone.ListenUDP(0)
	if err != nil {
		h.Fatal(err)
	}
	defer from.Close()
	from.WriteToAddrPort([]byte("hello"), netip.AddrPortFrom(h.box.Public(), port))
	u.SetReadDeadline(time.Now().Add(time.Second))
	_, _, err = u.ReadFromAddrPort(make([]byte, 100))
	return err == nil
}

// Every protocol on its own: found, mapped, renewed, a packet arrives, removed.
func TestEachProtocol(t *testing.T) {
	fritz := &igd.Account{User: "heimweg", Password: "swordfish"}
	for _, c := range []struct {
		name    string
		opt     igd.Options
		change  func(*uplink.Options)
		answer  uplink.Answer
		lease   time.Duration
		renewed time.Duration
	}{
		{name: "IGD 1", opt: igd.Options{UPnP: 1}, answer: uplink.Answer{Protocol: uplink.UPnP, Version: "WANIPConnection:1", Way: uplink.Direct}},
		{name: "IGD 2", opt: igd.Options{UPnP: 2}, answer: uplink.Answer{Protocol: uplink.UPnP, Version: "WANIPConnection:2", Way: uplink.Direct}, lease: 7 * 24 * time.Hour},
		{name: "PPP", opt: igd.Options{UPnP: 1, PPP: true}, answer: uplink.Answer{Protocol: uplink.UPnP, Version: "WANPPPConnection:1", Way: uplink.Direct}},
		{name: "NAT-PMP", opt: igd.Options{NATPMP: true}, answer: uplink.Answer{Protocol: uplink.NATPMP, Version: "0", Way: uplink.Direct}, lease: 24 * time.Hour},
		{name: "PCP", opt: igd.Options{PCP: true}, answer: uplink.Answer{Protocol: uplink.PCP, Version: "2", Way: uplink.Direct}, lease: 24 * time.Hour},
		{name: "TR-064", opt: igd.Options{TR064: fritz}, change: func(o *uplink.Options) { o.Login = uplink.NewLogin("heimweg", "swordfish") },
			answer: uplink.Answer{Protocol: uplink.TR064, Way: uplink.Direct}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t, c.opt)
				o := h.behind()
				if c.change != nil {
					c.change(&o)
				}
				g := h.ask(o)
				if len(g.Answers) != 1 || g.Answers[0] != c.answer {
					t.Errorf("answers: %+v", g.Answers)
				}
				if h.reached(51820) {
					t.Fatal("open before")
				}
				m := h.mustMap(g, wireguard)
				if m.To != netip.AddrPortFrom(client, 51820) || m.External != 51820 || m.Protocol != c.answer.Protocol || m.Lease > c.lease || m.Lease < c.lease-time.Minute {
					t.Errorf("mapping: %+v", m)
				}
				if !h.reached(51820) {
					t.Error("no packet arrived")
				}
				if c.lease > 0 {
					time.Sleep(c.lease / 2)
					h.mustMap(g, wireguard)
					time.Sleep(c.lease/2 + time.Minute)
					if !h.reached(51820) {
						t.Error("not renewed")
					}
				}
				if err := g.Unmap(t.Context(), m); err != nil {
					t.Error(err)
				}
				if h.reached(51820) || len(h.server.Entries()) != 0 {
					t.Error("still open")
				}
				if err := g.Unmap(t.Context(), m); err != nil {
					t.Errorf("a second time: %v", err)
				}
				if c.lease > 0 {
					h.mustMap(g, wireguard)
					time.Sleep(c.lease + time.Second)
					if h.reached(51820) {
						t.Error("it outlived its lease")
					}
				}
			})
		})
	}
}

// What goes wrong has a type, a reason, and a line for a person.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  igd.Options
		why  uplink.Why
		says string
	}{
		{"606", igd.Options{UPnP: 2, Faults: igd.Faults{Refuse: 606}}, uplink.NotAuthorized, "UPnP: refused, not authorised (AddPortMapping: 606 Action Not Authorized)"},
		{"501", igd.Options{UPnP: 2, Faults: igd.Faults{Refuse: 501}}, uplink.OtherReason, "AddPortMapping: 501 Action Failed"},
		{"501 and no address", igd.Options{UPnP: 2, Faults: igd.Faults{NoPublic: true}}, uplink.NoPublic, "no public address itself"},
		{"728", igd.Options{UPnP: 1, Faults: igd.Faults{Refuse: 728}}, uplink.Full, "no room"},
		{"PCP", igd.Options{PCP: true, Faults: igd.Faults{Refuse: 606}}, uplink.NotAuthorized, "PCP: refused, not authorised (PCP 2 NOT_AUTHORIZED)"},
		{"PCP without address", igd.Options{PCP: true, Faults: igd.Faults{NoPublic: true}}, uplink.NoPublic, "PCP 8 NO_RESOURCES"},
		{"NAT-PMP", igd.Options{NATPMP: true, Faults: igd.Faults{Refuse: 606}}, uplink.NotAuthorized, "NAT-PMP: refused"},
		{"NAT-PMP without address", igd.Options{NATPMP: true, Faults: igd.Faults{NoPublic: true}}, uplink.NoPublic, "NAT-PMP 3 network failure"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t, c.opt)
				g := h.ask(h.behind())
				_, err := g.Map(t.Context(), wireguard)
				var failed *uplink.FailedError
				var refused *uplink.RefusedError
				if !errors.As(err, &failed) || !errors.As(failed.Tried[len(failed.Tried)-1].Err, &refused) || refused.Why != c.why || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v", err)
				}
				if h.reached(51820) {
					t.Error("open")
				}
			})
		})
	}
}

// Everything at once: one line for each way that was tried.
func TestNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2, PCP: true, Faults: igd.Faults{Silent: true}})
		started := time.Now()
		g, err := uplink.Ask(t.Context(), h.behind())
		var silent *uplink.SilentError
		if !errors.As(err, &silent) || g == nil {
			t.Fatal(err)
		}
		if took := time.Since(started); took > 1600*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if want := "192.168.2.254 lets no program open ports: UPnP: no answer in 1.5 s; PCP: no answer in 1.5 s; NAT-PMP: no answer in 1.5 s"; err.Error() != want {
			t.Errorf("%v", err)
		}
		_, err = g.Map(t.Context(), wireguard)
		if want := "UDP 51820 to 192.168.2.253: UPnP: no answer in 1.5 s; PCP: no answer in 1.5 s; NAT-PMP: no answer in 1.5 s"; err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
	})
}
