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
	box    *ispbox.Box
	server *igd.Server // nil: nothing to ask
	router *lab.Stack
	phone  *lab.Stack
	req    Request
}

// newHall builds a hall; opt nil means an ISP router that no program can talk to.
func newHall(t *testing.T, opt *igd.Options) *hall {
	w := lab.New(1)
	t.Cleanup(w.Close)
	lan, internet := w.Link("uplink LAN"), w.Link("internet")
	h := &hall{T: t}
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
	from.WriteToAddrPort([]byte("hello"), netip.AddrPortFrom(public, port))
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
				if len(h.req.Records.Opened) != 1 || len(h.server.Entries()) != 1 {
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
					g := w.Guide("OpenWrt", isprouters.German)
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
