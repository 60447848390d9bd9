package uplink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/uplink"
)

// A port that leads elsewhere stays as it is, whoever asked for it and however.
func TestConflict(t *testing.T) {
	nas := netip.MustParseAddrPort("192.168.2.17:51820")
	for _, opt := range []igd.Options{{UPnP: 1}, {UPnP: 2}, {PCP: true}, {NATPMP: true}, {UPnP: 2, Faults: igd.Faults{NoReadBack: true}}, {PCP: true, Faults: igd.Faults{NoOptions: true}}} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, opt)
			h.box.Map("udp", 51820, nas)
			g := h.ask(h.behind())
			_, err := g.Map(t.Context(), wireguard)
			var taken *uplink.ConflictError
			if !errors.As(err, &taken) {
				t.Fatalf("%+v: %v", opt, err)
			}
			if knows := opt.UPnP != 0 && !opt.Faults.NoReadBack; knows && (taken.Holder.To != nas || err.Error() != "UDP 51820 leads to 192.168.2.17:51820 already") {
				t.Errorf("%+v: %v", taken.Holder, err)
			}
			if m := h.box.Mappings(); len(m) != 1 || m[0].To != nas {
				t.Errorf("%+v: mappings %+v", opt, m)
			}
			if opt.UPnP != 0 && !opt.Faults.NoReadBack {
				if err := g.Unmap(t.Context(), uplink.Mapping{Proto: "udp", External: 51820}); !errors.As(err, &taken) || len(h.box.Mappings()) != 1 {
					t.Errorf("unmap: %v", err)
				}
			}
		})
	}
	// Nor is another port of our own host taken over.
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2})
		h.box.Map("udp", 51820, netip.AddrPortFrom(client, 22))
		var taken *uplink.ConflictError
		if _, err := h.ask(h.behind()).Map(t.Context(), wireguard); !errors.As(err, &taken) || h.box.Mappings()[0].To.Port() != 22 {
			t.Error(err)
		}
	})
}

// A box that maps for good only is asked again without an end.
func TestOnlyPermanent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 1, Faults: igd.Faults{OnlyPermanent: true}})
		w := wireguard
		w.Lease = time.Hour
		m := h.mustMap(h.ask(h.behind()), w)
		if m.Lease != 0 || !m.Confirmed || h.server.Count("AddPortMapping") != 2 {
			t.Errorf("%+v", m)
		}
		time.Sleep(1000 * time.Hour)
		if !h.reached(51820) {
			t.Error("it ended")
		}
	})
}

// A lease that is wished for is granted.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, opt := range []igd.Options{{UPnP: 1}, {UPnP: 2}, {PCP: true}, {NATPMP: true}} {
			h := newHall(t, opt)
			w := wireguard
			w.Lease = time.Hour
			m := h.mustMap(h.ask(h.behind()), w)
			if m.Lease < 59*time.Minute || m.Lease > time.Hour {
				t.Errorf("%+v: %s", opt, m.Lease)
			}
		}
	})
}

// It agrees, and has nothing when asked: that is said.
func TestForgetful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2, Faults: igd.Faults{Forgetful: true}})
		_, err := h.ask(h.behind()).Map(t.Context(), wireguard)
		var different *uplink.DifferentError
		if !errors.As(err, &different) || !strings.Contains(err.Error(), "it agreed, and has no mapping for UDP 51820") {
			t.Error(err)
		}
	})
}

// It agrees, shows it in its list, and forwards nothing. Nobody can see that from
// inside: only a packet tells.
func TestLying(t *testing.T) {
	for _, opt := range []igd.Options{{UPnP: 2}, {PCP: true}, {NATPMP: true}} {
		opt.Faults.Lying = true
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, opt)
			h.mustMap(h.ask(h.behind()), wireguard)
			if h.reached(51820) {
				t.Error("a packet arrived")
			}
		})
	}
}

// Slow is not silent, once a box has answered; and too slow at first is.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2, PCP: true, NATPMP: true, Faults: igd.Faults{Slow: 600 * time.Millisecond}})
		g := h.ask(h.behind())
		if len(g.Answers) != 3 {
			t.Errorf("%+v", g.Tried)
		}
		h.server.Set(func(f *igd.Faults) { f.Slow = 4 * time.Second })
		h.mustMap(g, wireguard)
		h.server.Set(func(f *igd.Faults) { f.Slow = 6 * time.Second })
		_, err := g.Map(t.Context(), wireguard)
		if err == nil || !strings.Contains(err.Error(), "UPnP: no answer in 5.0 s; PCP: no answer in 5.0 s; NAT-PMP: no answer in 5.0 s") {
			t.Error(err)
		}
	})
}

// What one protocol refuses another may grant.
func TestNextProtocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2, PCP: true, NATPMP: true})
		g := h.ask(h.behind())
		if len(g.Answers) != 3 || g.Answers[0].Protocol != uplink.UPnP || g.Public != h.box.Public() {
			t.Errorf("%+v, %s", g.Answers, g.Public)
		}
		h.server.Set(func(f *igd.Faults) { f.Forgetful = true })
		if m := h.mustMap(g, wireguard); m.Protocol != uplink.PCP || !h.reached(51820) {
			t.Errorf("%+v", m)
		}
	})
}

// A restarted ISP router has forgotten, and its clock says so.
func TestRestart(t *testing.T) {
	for _, opt := range []igd.Options{{PCP: true}, {NATPMP: true}} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, opt)
			time.Sleep(100 * time.Hour)
			g := h.ask(h.behind())
			m := h.mustMap(g, wireguard)
			time.Sleep(time.Hour)
			now, err := g.Clock(t.Context())
			if err != nil || m.Epoch.Lost(now) {
				t.Errorf("%v: %+v then %+v", err, m.Epoch, now)
			}
			h.server.Restart()
			if now, err = g.Clock(t.Context()); err != nil || !m.Epoch.Lost(now) || h.reached(51820) {
				t.Errorf("%v: %+v then %+v", err, m.Epoch, now)
			}
			if m = h.mustMap(g, wireguard); m.Epoch.Lost(now) || !h.reached(51820) {
				t.Errorf("%+v", m)
			}
		})
	}
}

func TestEpoch(t *testing.T) {
	at := func(server uint32, client time.Duration) uplink.Epoch {
		return uplink.Epoch{Seconds: server, Seen: time.Unix(1e9, 0).Add(client)}
	}
	for _, c := range []struct {
		a, b uplink.Epoch
		lost bool
	}{
		{at(100, 0), at(160, time.Minute), false},
		{at(100, 0), at(158, time.Minute), false}, // a second off
		{at(100, 0), at(157, 62*time.Second), false},
		{at(100, 0), at(20, time.Minute), true},
		{at(100, 0), at(120, time.Minute), true},
		{at(100, 0), at(400, time.Minute), true},
		{at(100, 0), at(99, 0), false}, // RFC 6887 8.5: one second back is nothing
		{at(0, 0), at(100000, 100000*time.Second), false},
		{at(0, 0), at(95000, 100000*time.Second), false}, // its quartz is slow
		{at(0, 0), at(90000, 100000*time.Second), true},
		{uplink.Epoch{}, at(1, 0), false},
		{at(1, 0), uplink.Epoch{}, false},
	} {
		if got := c.a.Lost(c.b); got != c.lost {
			t.Errorf("%v then %v: %v", c.a, c.b, got)
		}
	}
}

// The list shows everything, by whomever.
func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2, NATPMP: true})
		for i := range 30 {
			h.box.Map("tcp", uint16(8000+i), netip.MustParseAddrPort("192.168.2.17:80"))
		}
		g := h.ask(h.behind())
		h.mustMap(g, wireguard)
		list, err := g.List(t.Context())
		if err != nil || len(list) != 31 || list[0].To != netip.AddrPortFrom(client, 51820) || list[0].Description != "heimweg" || list[30].External != 8029 || list[30].Proto != "tcp" {
			t.Errorf("%v %+v", err, list)
		}
		h.server.Set(func(f *igd.Faults) { f.Endless = true })
		if list, err := g.List(t.Context()); err != nil || len(list) != 31 {
			t.Errorf("a list without an end: %v, %d entries", err, len(list))
		}
		h2 := newHall(t, igd.Options{NATPMP: true})
		if _, err := h2.ask(h2.behind()).List(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "NAT-PMP: not asked: it has no list") {
			t.Error(err)
		}
	})
}

// A mapping of ours that somebody switched off is switched on again, and shown
// as what it is until then.
func TestDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 1})
		g := h.ask(h.behind())
		h.mustMap(g, wireguard)
		h.server.Disable("udp", 51820)
		if list, err := g.List(t.Context()); err != nil || len(list) != 1 || !list[0].Disabled || h.reached(51820) {
			t.Errorf("%v %+v", err, list)
		}
		if m := h.mustMap(g, wireguard); m.Disabled || !h.reached(51820) {
			t.Errorf("%+v", m)
		}
	})
}

// A FRITZ!Box opens ports for the host that asks only. From a laptop in its own
// LAN the request goes through the home router.
func TestOnlyForOneself(t *testing.T) {
	login := uplink.NewLogin("heimweg", "swordfish")
	fritz := igd.Options{UPnP: 2, PCP: true, TR064: &igd.Account{User: "heimweg", Password: "swordfish"}, MyFRITZ: "abc123.myfritz.net", Faults: igd.Faults{OwnOnly: true}}
	for _, c := range []struct {
		name   string
		change func(*uplink.Options)
		way    string
		says   string // of the refusal
	}{
		{name: "UPnP through the router", way: uplink.Via},
		{name: "TR-064 through the router", way: uplink.Via, change: func(o *uplink.Options) { o.Login = login }},
		{name: "UPnP from the laptop", says: "UPnP: refused, only for the host that asks (AddPortMapping: 606 Action Not Authorized)",
			change: func(o *uplink.Options) { o.Via = uplink.Way{} }},
		{name: "TR-064 from the laptop", says: "TR-064: refused, only for the host that asks (AddPortMapping: 600 Argument Value Invalid)",
			change: func(o *uplink.Options) { o.Via, o.Login = uplink.Way{}, login }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t, fritz)
				o := h.beside()
				if c.change != nil {
					c.change(&o)
				}
				g := h.ask(o)
				if a := g.Answers[slices.IndexFunc(g.Answers, func(a uplink.Answer) bool { return a.Protocol == uplink.UPnP })]; a.Version != "WANIPConnection:2" {
					t.Errorf("of two descriptions the older one: %+v", a)
				}
				if g.Maker != "AVM Berlin" || g.Model != "FRITZ!Box 7590" {
					t.Errorf("%q %q", g.Maker, g.Model)
				}
				m, err := g.Map(t.Context(), wireguard)
				if c.says != "" {
					if err == nil || !strings.Contains(err.Error(), c.says) || h.reached(51820) {
						t.Errorf("%v %+v", err, m)
					}
					return
				}
				if err != nil || !h.reached(51820) {
					t.Errorf("%v %+v", err, m)
				}
				if o.Login == nil {
					return
				}
				if name, err := g.Name(t.Context()); name != "abc123.myfritz.net" || err != nil {
					t.Errorf("%q %v", name, err)
				}
				if a, err := g.External(t.Context()); a != h.box.Public() || err != nil {
					t.Errorf("%s %v", a, err)
				}
				h.box.Map("tcp", 80, netip.MustParseAddrPort("192.168.2.17:80"))
				if list, err := g.List(t.Context()); err != nil || len(list) != 2 || list[0].To != m.To || h.server.Count("GetGenericPortMappingEntry") != 6 {
					t.Errorf("%v %+v", err, list)
				}
				if err := g.Unmap(t.Context(), m); err != nil || h.reached(51820) {
					t.Error(err)
				}
			})
		})
	}
}

// The way through the router is taken when this computer does not get there.
func TestDirectIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{TR064: &igd.Account{}, UPnP: 2})
		o := h.beside()
		o.Direct = uplink.Way{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") },
			ListenUDP: out(h.phone).ListenUDP}
		if m := h.mustMap(h.ask(o), wireguard); !m.Confirmed || !h.reached(51820) {
			t.Errorf("%+v", m)
		}
	})
}

// The other way is taken, too, when this computer does not get there any more.
func TestDirectDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2})
		o := h.behind()
		dead := false
		o.Direct.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if dead {
				return nil, errors.New("no route")
			}
			return h.router.Dial(ctx, network, address)
		}
		g := h.ask(o)
		dead = true
		if _, err := g.Map(t.Context(), wireguard); err == nil || !strings.Contains(err.Error(), "UPnP: no way there: no route") {
			t.Error(err)
		}
		o.Via = uplink.Way{Dial: h.router.Dial}
		dead = false
		g = h.ask(o)
		dead = true
		if m := h.mustMap(g, wireguard); !m.Confirmed || !h.reached(51820) {
			t.Errorf("%+v", m)
		}
	})
}

// A password that is wrong is tried once: a FRITZ!Box locks everybody out for
// longer with every try.
func TestWrongPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{TR064: &igd.Account{User: "heimweg", Password: "swordfish"}})
		o := h.behind()
		o.Login = uplink.NewLogin("heimweg", "password1")
		g := h.ask(o)
		for range 3 {
			_, err := g.Map(t.Context(), wireguard)
			if err == nil || !strings.Contains(err.Error(), "TR-064: refused, wrong user name or password") || strings.Contains(err.Error(), "password1") {
				t.Error(err)
			}
		}
		if n := h.server.Count("login refused"); n != 1 {
			t.Errorf("tried %d times", n)
		}
		for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %+v", o, o, *o.Login, o.Login, g), string(must(json.Marshal(o.Login)))} {
			if strings.Contains(text, "password1") {
				t.Error(text)
			}
		}
	})
	// Without one, it says what it lacks.
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{TR064: &igd.Account{User: "heimweg", Password: "swordfish"}})
		_, err := h.ask(h.behind()).Map(t.Context(), wireguard)
		if err == nil || !strings.Contains(err.Error(), "TR-064: refused, it wants a password") || !strings.Contains(err.Error(), "UPnP: refused, switched off") {
			t.Error(err)
		}
	})
}

// People know the password; whose it is the box tells. Old boxes have a name for
// that.
func TestPasswordOnly(t *testing.T) {
	for _, user := range []string{"fritz1234", "dslf-config"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, igd.Options{TR064: &igd.Account{User: user, Password: "swordfish"}, Faults: igd.Faults{NoUsers: user == "dslf-config"}})
			o := h.behind()
			o.Login = uplink.NewLogin("", "swordfish")
			if m := h.mustMap(h.ask(o), wireguard); m.Protocol != uplink.TR064 || !h.reached(51820) || h.server.Count("X_AVM-DE_GetUserList") != 1 {
				t.Errorf("%+v", m)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A second factor is recognised; the button pressed, it works.
func TestSecondFactor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{TR064: &igd.Account{User: "heimweg", Password: "swordfish"}, PPP: true, Faults: igd.Faults{SecondFactor: true}})
		o := h.behind()
		o.Login = uplink.NewLogin("heimweg", "swordfish")
		g := h.ask(o)
		_, err := g.Map(t.Context(), wireguard)
		var no *uplink.RefusedError
		if failed := new(uplink.FailedError); !errors.As(err, &failed) || !errors.As(failed.Tried[len(failed.Tried)-1].Err, &no) || no.Why != uplink.NeedsSecond || no.Code != 866 {
			t.Error(err)
		}
		h.server.Set(func(f *igd.Faults) { f.SecondFactor = false })
		if m := h.mustMap(g, wireguard); m.Protocol != uplink.TR064 || m.Lease != 0 || !h.reached(51820) {
			t.Errorf("%+v", m)
		}
	})
}

// From a laptop beside the home router, PCP names the home router as a third
// party, and NAT-PMP is not asked: it would open the port for the laptop.
func TestBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{PCP: true, NATPMP: true})
		if m := h.mustMap(h.ask(h.beside()), wireguard); m.Protocol != uplink.PCP || m.To.Addr() != client || !h.reached(51820) {
			t.Errorf("%+v", m)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{NATPMP: true})
		_, err := uplink.Ask(t.Context(), h.beside())
		if err == nil || !strings.Contains(err.Error(), "NAT-PMP: not asked: it opens ports for the host that asks only") || len(h.server.Entries()) != 0 {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{PCP: true, Faults: igd.Faults{OwnOnly: true}})
		if _, err := h.ask(h.beside()).Map(t.Context(), wireguard); err == nil || !strings.Contains(err.Error(), "PCP 5 UNSUPP_OPTION") {
			t.Error(err)
		}
	})
}

// The same nonce in another run renews and removes; another one is refused.
func TestNonce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{PCP: true})
		o := h.behind()
		o.Nonce = [12]byte{1, 2, 3}
		m := h.mustMap(h.ask(o), wireguard)
		h.mustMap(h.ask(o), wireguard)
		if _, err := h.ask(h.behind()).Map(t.Context(), wireguard); err == nil || !strings.Contains(err.Error(), "not authorised") {
			t.Error(err)
		}
		if err := h.ask(h.behind()).Unmap(t.Context(), m); err != nil || len(h.server.Entries()) != 0 {
			t.Error(err)
		}
	})
}

// Ctrl-C ends everything at once.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, igd.Options{UPnP: 2, Faults: igd.Faults{Silent: true}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		started := time.Now()
		_, err := uplink.Ask(ctx, h.behind())
		if !errors.Is(err, context.Canceled) || time.Since(started) > 150*time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(started))
		}
	})
}
