package openway

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/isprouters"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uplink"
)

var (
	gateway = netip.MustParseAddr("192.168.2.254")
	client  = netip.MustParseAddr("192.168.2.253")
	public  = netip.MustParseAddr("203.0.113.7")
)

// hall is an ISP router with a home router behind it, and somebody outside.
type hall struct {
	*testing.T
	box           *ispbox.Box
	server        *igd.Server // nil: nothing to ask
	lan, internet *lab.Link
	router        *lab.Stack
	phone         *lab.Stack
	req           Request
}

// newHall builds a hall; opt nil means an ISP router that no program can talk to.
func newHall(t *testing.T, opt *igd.Options) *hall {
	w := lab.New(1)
	t.Cleanup(w.Close)
	lan, internet := w.Link("uplink LAN"), w.Link("internet")
	h := &hall{T: t, lan: lan, internet: internet}
	h.box = ispbox.New(w, ispbox.Options{LAN: lan, LANAddr: netip.PrefixFrom(gateway, 24), WAN: internet, WANAddr: netip.PrefixFrom(public, 24)})
	if opt != nil {
		var err error
		if h.server, err = igd.New(h.box, nil, *opt); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.server.Close)
	}
	host := func(name string, link *lab.Link, a netip.Prefix) *lab.Stack {
		s := lab.NewStack(w, name)
		s.Configure([]lab.Iface{{Dev: "eth0", Link: link, Addrs: []netip.Prefix{a}}}, nil)
		return s
	}
	h.router = host("home router", lan, netip.PrefixFrom(client, 24))
	h.phone = host("phone", internet, netip.MustParsePrefix("203.0.113.99/24"))
	records, err := ReadRecords(filepath.Join(t.TempDir(), "opened.json"))
	if err != nil {
		t.Fatal(err)
	}
	h.req = Request{
		Home:     home.Home{Uplink: home.Uplink{Kind: home.Behind}},
		Snapshot: &router.Snapshot{Interfaces: []router.Interface{{Name: "wan", Gateways: []netip.Addr{gateway}, Addresses: []netip.Prefix{netip.PrefixFrom(client, 24)}}}},
		Mapping:  blueprint.Mapping{Proto: "udp", External: 51820, Internal: 51820, To: client},
		Direct: uplink.Way{Dial: h.router.Dial, ListenUDP: func(context.Context) (net.PacketConn, error) {
			u, err := h.router.ListenUDP(0)
			if err != nil {
				return nil, err
			}
			return u, nil
		}},
		Records: records,
	}
	return h
}

func (h *hall) look() *Way {
	h.Helper()
	w, err := Look(h.Context(), h.req, nil)
	if err != nil {
		h.Fatal(err)
	}
	return w
}

func (h *hall) open(w *Way) {
	h.Helper()
	if err := w.Open(h.Context(), nil); err != nil {
		h.Fatal(err)
	}
}

// again reads the records anew, as a later run does.
func (h *hall) again() {
	h.Helper()
	records, err := ReadRecords(h.req.Records.path)
	if err != nil {
		h.Fatal(err)
	}
	h.req.Records = records
}

// reached reports whether a datagram from outside gets as far as to the home router.
func (h *hall) reached(port uint16) bool {
	h.Helper()
	return h.arrives(netip.AddrPortFrom(public, port))
}

// arrives is reached for any address.
func (h *hall) arrives(to netip.AddrPort) bool {
	h.Helper()
	in, err := h.router.ListenUDP(51820)
	if err != nil {
		h.Fatal(err)
	}
	defer in.Close()
	from, err := h.phone.ListenUDP(0)
	if err != nil {
		h.Fatal(err)
	}
	defer from.Close()
	from.WriteToAddrPort([]byte("hello"), to)
	in.SetReadDeadline(time.Now().Add(time.Second))
	_, _, err = in.ReadFromAddrPort(make([]byte, 100))
	return err == nil
}

// Each protocol: closed before, open after, a packet arrives; a later run finds it
// or renews it, and takes it back.
func TestOpenAndClose(t *testing.T) {
	for name, opt := range map[string]igd.Options{
		"UPnP": {UPnP: 2}, "UPnP 1": {UPnP: 1}, "NAT-PMP": {NATPMP: true}, "PCP": {PCP: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t, &opt)
				w := h.look()
				if w.State != Closed || !w.MayOpen() || h.reached(51820) {
					t.Fatalf("before: %+v", w)
				}
				h.open(w)
				if w.State != Open || !h.reached(51820) || w.Public != public {
					t.Fatalf("after: %s %v %s", w.State, w.Why, w.Public)
				}
				if !strings.Contains(w.Opened(), "UDP 51820 → 192.168.2.253, until ") {
					t.Error(w.Opened())
				}
				if out := strings.Join(w.Outlook(), "\n"); !strings.Contains(out, "restarts") || !strings.Contains(out, "heimweg up") {
					t.Error(out)
				}
				h.again()
				w = h.look()
				if w.State == Open && w.Fixed {
					t.Error("our own mapping passes for a person's")
				}
				h.open(w) // renews
				if w.State != Open || !h.reached(51820) || len(h.req.Records.Opened) != 1 || len(h.server.Entries()) != 1 {
					t.Errorf("%+v %+v", h.req.Records.Opened, h.server.Entries())
				}
				h.again()
				w = h.look()
				if err := w.Close(t.Context(), nil); err != nil || len(w.Removed) != 1 || h.reached(51820) {
					t.Errorf("%v %+v", err, w.Removed)
				}
				h.again()
				if len(h.req.Records.Opened) != 0 {
					t.Errorf("still noted: %+v", h.req.Records.Opened)
				}
			})
		})
	}
}

// Where both have IPv6, it is opened as well, renewed by a later run, and closed.
func TestIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			box6    = netip.MustParsePrefix("2001:db8:2::1/64")
			client6 = netip.MustParseAddr("2001:db8:2::253")
			phone6  = netip.MustParseAddr("2001:db8:f::99")
		)
		h := newHall(t, nil)
		h.box.SetIPv6(&ispbox.IPv6{LAN: box6, WAN: netip.MustParsePrefix("2001:db8:f::7/64"), Gateway: phone6})
		h.router.Configure([]lab.Iface{{Dev: "eth0", Link: h.lan, Addrs: []netip.Prefix{netip.PrefixFrom(client, 24), netip.PrefixFrom(client6, 64)}}},
			[]lab.Route{{Dst: netip.MustParsePrefix("::/0"), Via: box6.Addr(), Dev: "eth0"}})
		h.phone.Configure([]lab.Iface{{Dev: "eth0", Link: h.internet, Addrs: []netip.Prefix{netip.PrefixFrom(phone6, 64)}}},
			[]lab.Route{{Dst: netip.MustParsePrefix("2001:db8:2::/64"), Via: netip.MustParseAddr("2001:db8:f::7"), Dev: "eth0"}})
		server, err := igd.New(h.box, nil, igd.Options{UPnP: 2, Firewall6: true, Pinhole: func(list []igd.Pinhole) {
			var open []ispbox.Pinhole
			for _, p := range list {
				open = append(open, ispbox.Pinhole{Proto: p.Proto, To: p.To})
			}
			h.box.SetPinholes(open)
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		outer := &h.req.Snapshot.Interfaces[0]
		outer.Gateways = append(outer.Gateways, box6.Addr())
		outer.Addresses = append(outer.Addresses, netip.PrefixFrom(client6, 64))
		h.req.Via = uplink.Way{Dial: h.router.Dial}
		called := func() bool { return h.arrives(netip.AddrPortFrom(client6, 51820)) }

		w := h.look()
		if w.State != Closed || w.To6 != client6 || called() {
			t.Fatalf("before: %+v", w)
		}
		h.open(w)
		if w.State != Open || len(w.Why) != 0 || !called() || !strings.Contains(strings.Join(w.Outlook(), "\n"), "for IPv6 it lets UDP 51820 through to 2001:db8:2::253, until ") {
			t.Fatalf("after: %q %q", w.Why, w.Outlook())
		}
		time.Sleep(20 * time.Hour)
		h.again()
		if w = h.look(); w.State != Open || !w.MayOpen() {
			t.Fatalf("a day later: %s", w.State)
		}
		h.open(w)
		time.Sleep(20 * time.Hour)
		if list := server.Pinholes(); len(list) != 1 || !called() {
			t.Errorf("not renewed: %+v", list)
		}
		server.Restart()
		h.again()
		h.open(h.look())
		if list := server.Pinholes(); len(list) != 1 || !called() {
			t.Errorf("not opened anew: %+v", list)
		}
		h.again()
		if err := h.look().Close(t.Context(), nil); err != nil || called() || len(h.req.Records.Opened) != 0 {
			t.Errorf("%v %+v", err, h.req.Records.Opened)
		}

		// No public IPv4 behind the ISP router, so the mapping is refused: IPv6 is opened
		// all the same, renewed without a question, and closed.
		server.Set(func(f *igd.Faults) { *f = igd.Faults{NoPublic: true} })
		w = h.look()
		if w.Agreed() {
			t.Error("agreed before anything was opened")
		}
		h.open(w)
		if w.State != ByHand || !called() || h.reached(51820) || !strings.Contains(strings.Join(w.Outlook(), "\n"), "for IPv6 it lets") {
			t.Errorf("%s %q %q", w.State, w.Why, w.Outlook())
		}
		h.again()
		w = h.look()
		h.open(w)
		if !w.Agreed() || len(server.Pinholes()) != 1 || len(h.req.Records.Opened) != 1 {
			t.Errorf("%v %+v %+v", w.Agreed(), server.Pinholes(), h.req.Records.Opened)
		}
		h.again()
		w = h.look()
		if err := w.Close(t.Context(), nil); err != nil || called() || len(h.req.Records.Opened) != 0 {
			t.Errorf("%v %+v", err, h.req.Records.Opened)
		}
	})
}

// What a person set by hand is found, left alone, and not renewed.
func TestSetByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, &igd.Options{UPnP: 2})
		h.box.Map("udp", 51820, netip.AddrPortFrom(client, 51820))
		w := h.look()
		if w.State != Open || !w.Fixed || w.MayOpen() || !strings.Contains(strings.Join(w.Outlook(), ""), "a person set this mapping") {
			t.Errorf("%+v", w)
		}
		if err := w.Close(t.Context(), nil); err != nil || !h.reached(51820) {
			t.Error("what a person set was taken away", err)
		}
	})
}

// What stands in the way, and what is said about it.
func TestObstacles(t *testing.T) {
	other := netip.MustParseAddrPort("192.168.2.17:51820")
	for _, c := range []struct {
		name   string
		opt    *igd.Options
		change func(*hall)
		state  State  // after Open
		why    string // part of the reasons
		login  bool
	}{
		{name: "nothing answers", state: ByHand, why: "UPnP: "},
		{name: "silent", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{Silent: true}}, state: ByHand, why: "UPnP: no answer"},
		{name: "off", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{Off: true}}, state: ByHand, why: "UPnP: "},
		{name: "606", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{Refuse: 606}}, state: ByHand, why: "606"},
		{name: "501", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{Refuse: 501}}, state: ByHand, why: "501"},
		{name: "725", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{OnlyPermanent: true}}, state: Open},
		{name: "slow", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{Slow: time.Second}}, state: Open},
		{name: "forgetful", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{Forgetful: true}}, state: ByHand, why: "it agreed, and has no mapping"},
		{name: "no public address", opt: &igd.Options{UPnP: 2, Faults: igd.Faults{NoPublic: true}}, state: ByHand, why: "no public address"},
		{name: "FRITZ!Box without UPnP", opt: &igd.Options{TR064: &igd.Account{User: "heimweg", Password: "swordfish"}}, state: ByHand, why: "TR-064", login: true},
		{name: "conflict", opt: &igd.Options{UPnP: 2}, change: func(h *hall) { h.box.Map("udp", 51820, other) }, state: Taken},
		{name: "no gateway", opt: &igd.Options{UPnP: 2}, change: func(h *hall) { h.req.Snapshot.Interfaces[0].Gateways = nil }, state: ByHand, why: "no way to the internet"},
		{name: "no address", opt: &igd.Options{UPnP: 2}, change: func(h *hall) { h.req.Mapping.To = netip.Addr{} }, state: ByHand, why: "no address in the uplink LAN"},
		{name: "direct", opt: &igd.Options{UPnP: 2}, change: func(h *hall) { h.req.Home.Uplink.Kind = home.Direct }, state: NotNeeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t, c.opt)
				if c.change != nil {
					c.change(h)
				}
				w := h.look()
				if w.MayOpen() {
					h.open(w)
				}
				if w.State != c.state || !strings.Contains(strings.Join(w.Why, "\n"), c.why) || w.NeedsLogin != c.login {
					t.Errorf("%s, %q, login %v", w.State, w.Why, w.NeedsLogin)
				}
				if (w.State == Open) != h.reached(51820) {
					t.Errorf("%s, and a packet from outside: %v", w.State, h.reached(51820))
				}
				if w.State == ByHand {
					g := w.Guide("OpenWrt", false, isprouters.German)
					if w.Want.To.IsValid() && !slices.ContainsFunc(g.Rows, func(r isprouters.Row) bool { return strings.Contains(r.Text, client.String()) }) {
						t.Errorf("the guide does not say what to type: %+v", g)
					}
				}
			})
		})
	}
}

// The password of a FRITZ!Box opens what UPnP may not, and appears nowhere.
func TestPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, &igd.Options{TR064: &igd.Account{User: "heimweg", Password: "swordfish"}, MyFRITZ: "abc123.myfritz.net"})
		w := h.look()
		h.open(w)
		if !w.NeedsLogin {
			t.Fatalf("%+v", w.Why)
		}
		if err := w.Login(t.Context(), uplink.NewLogin("heimweg", "swordfish")); err != nil {
			t.Fatal(err)
		}
		h.open(w)
		if w.State != Open || w.Mapping.Protocol != uplink.TR064 || !h.reached(51820) || w.Host != "abc123.myfritz.net" {
			t.Errorf("%s %v", w.State, w.Why)
		}
		if !strings.Contains(w.Outlook()[0], "FRITZ!Box's own list") {
			t.Error(w.Outlook())
		}
		if text, err := os.ReadFile(h.req.Records.path); err != nil || strings.Contains(string(text), "swordfish") {
			t.Errorf("%v %s", err, text)
		}

		w = h.look()
		if err := w.Close(t.Context(), nil); err == nil || !w.NeedsLogin || !h.reached(51820) {
			t.Errorf("closed without a password: %v %v", err, w.Why)
		}
		if err := w.Login(t.Context(), uplink.NewLogin("heimweg", "swordfish")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(t.Context(), nil); err != nil || w.NeedsLogin || h.reached(51820) || w.Ours() {
			t.Errorf("%v %v", err, w.Why)
		}
	})
}

// The holder of a taken port is named; one of our own former addresses is known.
func TestConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, &igd.Options{UPnP: 2})
		old := netip.AddrPortFrom(netip.MustParseAddr("192.168.2.17"), 51820)
		h.box.Map("udp", 51820, old)
		w := h.look()
		if w.State != Taken || w.Earlier || !strings.Contains(w.Conflict()[0], "192.168.2.17:51820") || !strings.Contains(w.Conflict()[1], "endpoint-port") {
			t.Errorf("%s %q", w.State, w.Conflict())
		}
		if err := h.req.Records.keep(gateway, Found{}, uplink.Mapping{Proto: "udp", External: 51820, To: old}, uplink.Pinhole{}); err != nil {
			t.Fatal(err)
		}
		if w = h.look(); !w.Earlier || !strings.Contains(w.Conflict()[0], "had before") {
			t.Errorf("%q", w.Conflict())
		}
	})
}

// When the household calls another port, the mapping of the old one goes.
func TestOldMappingGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, &igd.Options{UPnP: 2})
		h.open(h.look())
		h.again()
		h.req.Mapping.External = 443
		w := h.look()
		h.open(w)
		if h.reached(51820) || !h.reached(443) || len(w.Removed) != 1 {
			t.Errorf("removed %+v", w.Removed)
		}
	})
}

// An ISP router that restarted has forgotten; the next run opens it again.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, &igd.Options{UPnP: 2})
		h.open(h.look())
		h.server.Restart()
		h.again()
		w := h.look()
		if w.State != Closed || h.reached(51820) {
			t.Fatalf("%+v", w.State)
		}
		h.open(w)
		if !h.reached(51820) {
			t.Error("not open again")
		}
	})
}

// An ISP router that is itself behind another NAT is told.
func TestBeyond(t *testing.T) {
	w := &Way{State: Open, Public: netip.MustParseAddr("100.64.3.4")}
	if got := w.Beyond(); !strings.Contains(got, "100.64.3.4") {
		t.Error(got)
	}
	w.Public = public
	if got := w.Beyond(); got != "" {
		t.Error(got)
	}
}

// A record that nobody can read is an error, not an empty one: what it held would
// be lost by writing.
func TestRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "opened.json")
	for _, text := range []string{"{", `{"format":2}`, `{"format":1,"opened":[{"gateway":"x"}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := ReadRecords(path); err == nil {
			t.Errorf("%s was read as %+v", text, r)
		}
	}
	var none *Records
	if none.has(gateway, uplink.Mapping{}) || none.save() != nil || none.keep(gateway, Found{}, uplink.Mapping{}, uplink.Pinhole{}) != nil {
		t.Error("no records hold something")
	}
}

// Ctrl-C is no silent router.
func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, &igd.Options{UPnP: 2, Faults: igd.Faults{Silent: true}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := Look(ctx, h.req, nil); err != context.Canceled {
			t.Error(err)
		}
	})
}

// told is an ISP router that tells a list of mappings.
type told struct {
	uplink.Asker // nothing else is asked
	list         []uplink.Mapping
}

func (f told) External(context.Context) (netip.Addr, error)   { return public, nil }
func (f told) List(context.Context) ([]uplink.Mapping, error) { return f.list, nil }

// Which mapping is the one that is looked for.
func TestCompare(t *testing.T) {
	ours := uplink.Mapping{Proto: "udp", External: 51820, To: netip.AddrPortFrom(client, 51820)}
	with := func(change func(*uplink.Mapping)) []uplink.Mapping {
		m := ours
		change(&m)
		return []uplink.Mapping{m}
	}
	for name, c := range map[string]struct {
		list []uplink.Mapping
		want State
	}{
		"none":                {nil, Closed},
		"it":                  {[]uplink.Mapping{ours}, Open},
		"TCP":                 {with(func(m *uplink.Mapping) { m.Proto = "tcp" }), Closed},
		"another port":        {with(func(m *uplink.Mapping) { m.External = 51821 }), Closed},
		"switched off":        {with(func(m *uplink.Mapping) { m.Disabled = true }), Closed},
		"for one host only":   {with(func(m *uplink.Mapping) { m.Remote = netip.MustParseAddr("203.0.113.50") }), Closed},
		"another port inside": {with(func(m *uplink.Mapping) { m.To = netip.AddrPortFrom(client, 1194) }), Taken},
		"another device":      {with(func(m *uplink.Mapping) { m.To = netip.MustParseAddrPort("192.168.2.17:51820") }), Taken},
		"it, behind others":   {append(with(func(m *uplink.Mapping) { m.Proto = "tcp" }), ours), Open},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t, nil)
				h.req.Ask = func(context.Context, uplink.Options) (Found, error) { return Found{Mapper: told{list: c.list}}, nil }
				if w := h.look(); w.State != c.want {
					t.Errorf("%s, want %s", w.State, c.want)
				}
			})
		})
	}
}

// A mapping that lasts is not asked for again, but for the sake of IPv6, which ends.
func TestMayOpen(t *testing.T) {
	w := &Way{State: Open}
	if w.MayOpen() {
		t.Error("it lasts")
	}
	w.To6, w.Found = netip.MustParseAddr("2001:db8:2::253"), Found{Holes: &uplink.Gateway{}, Answers: []uplink.Answer{{IPv6: true}}}
	if !w.MayOpen() {
		t.Error("IPv6 ends")
	}
	if w.Fixed = true; w.MayOpen() {
		t.Error("it is a person's")
	}
}

// What was opened at another ISP router says nothing about this one.
func TestAnotherRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, &igd.Options{UPnP: 2})
		elsewhere := netip.MustParseAddr("192.168.178.1")
		m := uplink.Mapping{Proto: "udp", External: 51820, To: netip.AddrPortFrom(client, 51820), Public: public}
		if err := h.req.Records.keep(elsewhere, Found{}, m, uplink.Pinhole{}); err != nil {
			t.Fatal(err)
		}
		w := h.look()
		if w.Agreed() || w.Ours() || h.req.Records.Public(gateway).IsValid() || h.req.Records.Public(elsewhere) != public {
			t.Error("taken for ours")
		}
		h.open(w)
		if err := w.Close(t.Context(), nil); err != nil || len(h.req.Records.Opened) != 1 {
			t.Errorf("%v %+v", err, h.req.Records.Opened)
		}
	})
}
