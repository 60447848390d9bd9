package owrt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/phone"
	"github.com/heimweg/heimweg/internal/router"
)

// Whatever the moment of the fault, the box comes back and lets somebody in:
// nothing hangs, nothing of one life writes into the next.
func TestFaultAnywhere(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	lines := router.Lines()
	for n := range 60 {
		at, line := rng.Int64N(220)+1, lines[n%len(lines)]
		act := []Action{PowerCut, PowerCutAndReboot, CutConnection, FullFlash, Fail(1, "no\n"), Slow(time.Minute)}[rng.IntN(6)]
		t.Run(fmt.Sprintf("%d at %d", n, at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := New(nil, Options{Line: line, Seed: uint64(n)})
				defer b.Close()
				b.SetHook(func(e Event) Action {
					if e.N == at {
						return act
					}
					return Continue
				})
				b.PowerOn()
				synctest.Wait()
				time.Sleep(time.Minute)
				if b.On() {
					if c, err := login(b); err == nil {
						if s, err := c.NewSession(); err == nil {
							s.Stdin = strings.NewReader("uci set network.lan.mtu=1400; uci commit; sync; " + tunnel + "for i in 1 2 3; do echo $i >/etc/f$i; mv /etc/f$i /etc/g; done; sync\n")
							s.Run("sh")
						}
						c.Close()
					}
				}
				time.Sleep(5 * time.Minute)
				b.SetHook(nil)
				b.FS().Fill(-1)
				b.PowerOn() // if it is off
				if err := b.WaitBoot(context.Background()); err != nil {
					t.Fatal(err)
				}
				b.PowerCycle()
				if err := b.WaitBoot(context.Background()); err != nil {
					t.Fatal(err)
				}
				if out, code := run(t, b, "echo in"); out != "in\n" || code != 0 {
					t.Errorf("%q %d", out, code)
				}
			})
		})
	}
}

// A real peer comes in from the uplink only when the files let it, and reaches
// what the zone allows: real cryptography, real packets.
func TestRealTunnel(t *testing.T) {
	w := lab.New(1)
	defer w.Close()
	lan, wan := w.Link("home LAN"), w.Link("uplink LAN")
	wan.ServeLeases(gateway(w, wan), func(string) (lab.Lease, bool) {
		return lab.Lease{Addr: netip.MustParsePrefix("192.168.2.253/24"), Gateway: netip.MustParseAddr("192.168.2.1")}, true
	})
	b := New(w, Options{Line: router.Line2410, Real: true, Cables: map[string]*lab.Link{"lan1": lan, "wan": wan}})
	defer b.Close()
	b.PowerOn()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	if err := b.WaitBoot(ctx); err != nil {
		t.Fatal(err)
	}
	for {
		if i, ok := b.sys.net.find("wan"); ok && i.up {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("wan did not come up")
		case <-time.After(10 * time.Millisecond):
		}
	}
	out, errs, code := b.Sh("umask 077; opkg update >/dev/null && opkg install wireguard-tools >/dev/null; wg genkey >/tmp/phone; wg pubkey </tmp/phone >/tmp/phone.pub\n" + tunnel +
		"uci set network.hw_peer_a.public_key=$(cat /tmp/phone.pub); uci commit network; ubus call network restart; cat /tmp/phone; echo uPElYrKEYr2F0e+gcqgHoVzLpVhYHLhqNYKz+d6nSHs= | wg pubkey")
	if code != 0 {
		t.Fatal(out, errs)
	}
	keys := strings.Fields(out)
	ph := phone.New(w, "phone", phone.Place{Link: wan, Addr: netip.MustParsePrefix("192.168.2.9/24")})
	defer ph.Close()
	conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 192.168.20.2/32\n[Peer]\nPublicKey = %s\nEndpoint = 192.168.2.253:51820\nAllowedIPs = 192.168.20.0/24, 192.168.1.0/24\nPersistentKeepalive = 1\n", keys[0], keys[1])
	if err := ph.Join(conf); err != nil {
		t.Fatal(err)
	}
	short, end := context.WithTimeout(ctx, time.Second)
	if err := ph.WaitHandshake(short); err == nil {
		t.Error("a handshake without a rule on wan")
	}
	end()
	b.Sh(`uci batch <<E
set firewall.hw_wg_in=rule
set firewall.hw_wg_in.src=wan
set firewall.hw_wg_in.proto=udp
set firewall.hw_wg_in.dest_port=51820
set firewall.hw_wg_in.target=ACCEPT
set firewall.hw_zone=zone
set firewall.hw_zone.name=vpn
add_list firewall.hw_zone.network=wg0
set firewall.hw_zone.input=ACCEPT
set firewall.hw_zone.output=ACCEPT
set firewall.hw_zone.forward=REJECT
commit firewall
E
fw4 -q reload`)
	if err := ph.WaitHandshake(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := ph.Ping(ctx, netip.MustParseAddr("192.168.20.1")); err != nil {
		t.Error(err)
	}
	out, _, _ = b.Sh("wg show wg0 dump | tail -n +2 | cut -f3,5; nft list chain inet fw4 input_wan | grep -c 'packets [1-9]'")
	if !strings.HasPrefix(out, "192.168.2.9:") || !strings.Contains(out, "\n1\n") {
		t.Errorf("%q", out)
	}
}

// gateway puts a plain host with the address .1 onto a link.
func gateway(w *lab.World, l *lab.Link) *lab.Stack {
	s := lab.NewStack(w, "ISP router")
	s.Configure([]lab.Iface{{Dev: "lan", Link: l, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.2.1/24")}}}, nil)
	return s
}

// On the first boot the overlay is in RAM until the flash is formatted: what is
// written before is lost by a power cut, even when it was synced (facts 8).
func TestFirstBootInRAM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{Line: router.Line2410, FormatTime: 2 * time.Minute})
		defer b.Close()
		if out, _ := run(t, b, "echo x >/etc/x; sync; grep -c ' /overlay ' /proc/mounts"); out != "0\n" {
			t.Errorf("%q", out)
		}
		b.PowerCycle()
		b.WaitBoot(context.Background())
		if _, err := b.ReadFile("/etc/x"); err == nil {
			t.Error("it survived in RAM")
		}
		run(t, b, "echo y >/etc/x")
		time.Sleep(3 * time.Minute)
		if out, _ := run(t, b, "grep -c ' /overlay ' /proc/mounts"); out != "1\n" {
			t.Errorf("%q", out)
		}
		b.PowerCycle()
		b.WaitBoot(context.Background())
		if got, _ := b.ReadFile("/etc/x"); got != "y\n" {
			t.Errorf("%q", got)
		}
	})
}

// Two shells that commit at once lose updates; a hook can play the second one.
func TestAnotherWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{Line: router.Line2305})
		defer b.Close()
		done := false
		b.SetHook(func(e Event) Action {
			if e.Kind == Before && e.Remote && strings.Join(e.Argv, " ") == "uci commit system" && !done {
				done = true
				b.Sh("uci set dhcp.lan.start=50; uci commit dhcp")
			}
			return Continue
		})
		run(t, b, "uci set system.@system[0].hostname=Hut; uci commit system")
		b.SetHook(nil)
		if out, _ := run(t, b, "uci get dhcp.lan.start; uci get system.@system[0].hostname"); out != "50\nHut\n" || !done {
			t.Errorf("%q", out)
		}
	})
}

// The long fault runs live on this: one life of a box, with a login.
func BenchmarkLife(b *testing.B) {
	for range b.N {
		box := start(b, Options{Line: router.Line2410, BootTime: time.Nanosecond})
		run(b, box, "uci set network.lan.mtu=1400; uci commit; sync")
		box.Close()
	}
}
