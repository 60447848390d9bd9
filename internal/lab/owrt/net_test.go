package owrt

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/router"
)

// home is a box between a LAN with one laptop and an uplink with one host that
// gives it an address.
type home struct {
	w              *lab.World
	box            *Box
	laptop, uplink *lab.Stack
	lan, wan       *lab.Link
}

func newHome(t *testing.T, o Options) *home {
	h := &home{w: lab.New(1)}
	h.lan, h.wan = h.w.Link("home LAN"), h.w.Link("uplink LAN")
	h.uplink = lab.NewStack(h.w, "ISP router")
	h.uplink.Configure([]lab.Iface{{Dev: "lan", Link: h.wan, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.2.1/24")}}}, nil)
	h.wan.ServeLeases(h.uplink, func(string) (lab.Lease, bool) {
		return lab.Lease{Addr: netip.MustParsePrefix("192.168.2.253/24"), Gateway: netip.MustParseAddr("192.168.2.1")}, true
	})
	o.Cables = map[string]*lab.Link{"lan1": h.lan, "wan": h.wan}
	h.box = New(h.w, o)
	h.laptop = lab.NewStack(h.w, "laptop")
	h.laptop.FollowLeases(h.lan, "eth0")
	h.box.PowerOn()
	if err := h.box.WaitBoot(context.Background()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	return h
}

func (h *home) close() {
	h.box.Close()
	h.w.Close()
}

// sh runs a script from the laptop over SSH.
func (h *home) sh(t *testing.T, script string) (string, int) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	conn, err := h.laptop.Dial(ctx, "tcp", "192.168.1.1:22")
	if err != nil {
		t.Fatal(err)
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, "box", &ssh.ClientConfig{User: "root", HostKeyCallback: ssh.InsecureIgnoreHostKey(), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}})
	if err != nil {
		t.Fatal(err)
	}
	cl := ssh.NewClient(c, chans, reqs)
	defer cl.Close()
	s, err := cl.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader(script)
	out, err := s.CombinedOutput("sh")
	code := 0
	if e, ok := err.(*ssh.ExitError); ok {
		code = e.ExitStatus()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out), code
}

func inBubble(t *testing.T, o Options, test func(t *testing.T, h *home)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, o)
		defer h.close()
		test(t, h)
	})
}

// What the default configuration lets in, from both sides (facts 2; observed 4).
func TestDefaultFirewall(t *testing.T) {
	for _, line := range router.Lines() {
		t.Run(line.String(), func(t *testing.T) {
			inBubble(t, Options{Line: line}, func(t *testing.T, h *home) {
				if out, code := h.sh(t, "ubus call network.interface.wan status | jsonfilter -e '@[\"ipv4-address\"][0].address'; ip neigh; uci -q changes"); code != 0 || !strings.HasPrefix(out, "192.168.2.253\n192.168.1.") {
					t.Errorf("%q %d", out, code)
				}
				ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
				defer stop()
				if c, err := h.uplink.Dial(ctx, "tcp", "192.168.2.253:22"); err == nil {
					c.Close()
					t.Error("SSH is open to wan")
				} else if !strings.Contains(err.Error(), "refused") {
					t.Error(err)
				}
				if _, err := h.uplink.Ping(context.Background(), netip.MustParseAddr("192.168.2.253")); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

const install = `if command -v apk >/dev/null; then apk update && apk add wireguard-tools; else opkg update && opkg install wireguard-tools; fi >/tmp/install.log 2>&1 || { cat /tmp/install.log; exit 1; }
`

const tunnel = `uci batch <<E
set network.wg0=interface
set network.wg0.proto=wireguard
set network.wg0.private_key='uPElYrKEYr2F0e+gcqgHoVzLpVhYHLhqNYKz+d6nSHs='
set network.wg0.listen_port=51820
add_list network.wg0.addresses=192.168.20.1/24
set network.hw_peer_a=wireguard_wg0
set network.hw_peer_a.public_key='xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg='
add_list network.hw_peer_a.allowed_ips=192.168.20.2/32
commit network
E
`

const addPeer = `uci batch <<E
set network.hw_peer_b=wireguard_wg0
set network.hw_peer_b.public_key='TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0='
add_list network.hw_peer_b.allowed_ips=192.168.20.3/32
commit network
E
`

// Which command makes a change live (observed 3, row by row).
func TestActivation(t *testing.T) {
	for _, line := range router.Lines() {
		t.Run(line.String(), func(t *testing.T) {
			inBubble(t, Options{Line: line}, func(t *testing.T, h *home) {
				must := func(script, want string) {
					t.Helper()
					if out, code := h.sh(t, script); strings.TrimSpace(out) != want || code != 0 {
						t.Errorf("%s\ngot %q (%d), want %q", script, out, code, want)
					}
				}
				must("opkg --version >/dev/null 2>&1; "+install+"command -v wg", "/usr/bin/wg")
				must(tunnel+"ubus call network reload; sleep 2; ubus call network.interface.wg0 status | jsonfilter -e '@.proto' -e '@.errors[0].code'", "none\nNO_DEVICE")
				must("ubus call network restart; sleep 2; ubus call network.interface.wg0 status | jsonfilter -e '@.up'; wg show wg0 peers | wc -l", "true\n1")
				must(addPeer+"reload_config; sleep 3; ubus call network reload; sleep 1; wg show wg0 peers | wc -l", "1")
				want := "1"
				if line == router.Line2512 {
					want = "2"
				}
				must("ubus call network.interface.wg0 renew && sleep 1; wg show wg0 peers | wc -l", want)
				must("ifup wg0; sleep 1; wg show wg0 peers | wc -l", "2")
				must("uci add_list network.wg0.addresses=192.168.30.1/24; uci commit network; reload_config; sleep 3; ip -4 addr show dev wg0 | grep -c inet", "1")
				must("uci set network.wg0.listen_port=51999; uci commit network; reload_config; sleep 3; wg show wg0 listen-port", "51999")
				must("wg set wg0 peer TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0= remove; wg show wg0 dump | tail -n +2 | cut -f4", "192.168.20.2/32")
				if u := h.box.Unknown(); len(u) > 1 || len(u) == 1 && u[0] != "opkg" {
					t.Errorf("unknown: %q", u)
				}
			})
		})
	}
}

// "disabled" on a peer means nothing on 21.02 (facts 1.13).
func TestDisabledPeer(t *testing.T) {
	for line, want := range map[router.Line]string{router.Line2102: "1\n", router.Line2203: "0\n"} {
		inBubble(t, Options{Line: line}, func(t *testing.T, h *home) {
			out, _ := h.sh(t, install+tunnel+"uci set network.hw_peer_a.disabled=1; uci commit network; ubus call network restart; sleep 2; wg show wg0 peers | wc -l")
			if out != want {
				t.Errorf("%s: %q", line, out)
			}
		})
	}
}

// Exit codes of the package managers (facts 7.3 and 7.4; observed 6).
func TestPackageManagers(t *testing.T) {
	for _, c := range []struct {
		name, script string
		feed         Feed
		line         router.Line
		code         int
		text         string
	}{
		{"no update yet", "opkg install wireguard-tools", Feed{}, router.Line2410, 255, "Cannot install package wireguard-tools."},
		{"unknown", "opkg update >/dev/null; opkg install nosuch", Feed{}, router.Line2305, 255, "Unknown package 'nosuch'."},
		{"no network", "opkg update", Feed{Unreachable: true}, router.Line2102, 3, "Failed to download the package list"},
		{"again", install + "opkg install wireguard-tools", Feed{}, router.Line2203, 0, "up to date"},
		{"mismatch", "opkg update >/dev/null; opkg install wireguard-tools", Feed{KernelMismatch: true}, router.Line2410, 255, "Cannot satisfy the following dependencies for kmod-"},
		{"file that is none", "echo no >/tmp/a.ipk; opkg install /tmp/a.ipk", Feed{}, router.Line2410, 255, "Malformed package file /tmp/a.ipk."},
		{"no file", "opkg install /tmp/a.ipk", Feed{}, router.Line2410, 255, "Failed to extract control file from /tmp/a.ipk."},
		{"locked", "opkg update", Feed{Locked: true}, router.Line2410, 255, "Could not lock"},
		{"apk unknown", "apk update >/dev/null; apk add nosuch", Feed{}, router.Line2512, 1, "nosuch (no such package)"},
		{"apk offline", "apk update", Feed{Unreachable: true}, router.Line2512, 3, "unavailable"},
		{"apk again", install + "apk add wireguard-tools && apk info -e wireguard-tools", Feed{}, router.Line2512, 0, "OK:"},
		{"apk trap", "apk update >/dev/null; apk add wireguard-tools", Feed{IPTrap: true}, router.Line2512, 1, "ip (no such package)"},
		{"apk trap, cured", "apk update >/dev/null; apk add ip-tiny wireguard-tools", Feed{IPTrap: true}, router.Line2512, 0, "OK:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Options{Line: c.line, Feed: c.feed}, func(t *testing.T, h *home) {
				out, code := h.sh(t, c.script)
				if code != c.code || !strings.Contains(out, c.text) {
					t.Errorf("got %d, %q; want %d, %q", code, out, c.code, c.text)
				}
			})
		})
	}
}

// A changed LAN address moves router and laptop; a /32 locks everybody out.
func TestMoveLAN(t *testing.T) {
	inBubble(t, Options{Line: router.Line2410}, func(t *testing.T, h *home) {
		h.box.Sh("uci set network.lan.ipaddr=10.77.3.1; uci commit network; ubus call network reload")
		time.Sleep(10 * time.Second)
		ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		c, err := h.laptop.Dial(ctx, "tcp", "10.77.3.1:22")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
	inBubble(t, Options{Line: router.Line2512}, func(t *testing.T, h *home) {
		h.box.Sh("uci set network.lan.ipaddr=10.77.3.1; uci commit network; ubus call network reload")
		time.Sleep(10 * time.Second)
		ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		if c, err := h.laptop.Dial(ctx, "tcp", "10.77.3.1:22"); err == nil {
			c.Close()
			t.Error("the trap of facts 1.11 did not close")
		}
	})
}

// An init script that somebody put there runs in its place of the boot order.
func TestBootScript(t *testing.T) {
	inBubble(t, Options{Line: router.Line2410}, func(t *testing.T, h *home) {
		h.sh(t, `cat >/etc/init.d/guard <<'E'
#!/bin/sh /etc/rc.common
START=15
boot() {
	[ -e /etc/marker ] || return 0
	ubus list network.interface.lan >/dev/null 2>&1 && echo late >/etc/seen || echo early >/etc/seen
	rm /etc/marker; sync
}
start() { echo started >/etc/seen; }
E
chmod 755 /etc/init.d/guard; /etc/init.d/guard enable; /etc/init.d/guard enabled && touch /etc/marker; sync`)
		h.box.PowerCycle()
		if err := h.box.WaitBoot(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got, _ := h.box.ReadFile("/etc/seen"); got != "early\n" {
			t.Errorf("%q", got)
		}
		if _, err := h.box.ReadFile("/etc/marker"); err == nil {
			t.Error("the marker is still there")
		}
	})
}

// A full flash says so, and the program that could not write says it too.
func TestFullFlash(t *testing.T) {
	inBubble(t, Options{Line: router.Line2305}, func(t *testing.T, h *home) {
		h.box.FS().Fill(4096)
		if out, code := h.sh(t, "dd if=/dev/zero of=/root/big bs=1k count=64"); code == 0 || !strings.Contains(out, "No space left on device") {
			t.Errorf("%q %d", out, code)
		}
		if out, code := h.sh(t, "rm /root/big; opkg update >/dev/null; opkg install wireguard-tools"); code != 255 || !strings.Contains(out, "available on filesystem /overlay") {
			t.Errorf("%q %d", out, code)
		}
	})
}
