package firewall

import (
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/router"
)

// The recipe of the first guide, part by part. Observed on real OpenWrt
// 23.05.6, 24.10.8 and 25.12.5 (openwrt-observed.md section 2): one row per
// change, and which packets arrived.

const (
	recipeZone = `
config zone
	option name 'VPN'
	list network 'wg0'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option masq '1'
	option mtu_fix '1'
`
	recipeForwarding = `
config forwarding
	option src 'VPN'
	option dest 'lan'
`
	recipeNAT = `
config nat
	option name 'tunnel'
	option src 'lan'
	option src_ip '192.168.20.0/24'
	option target 'MASQUERADE'
`
	recipeRedirect = `
config redirect
	option name 'wireguard'
	option src 'wan'
	option dest 'VPN'
	option proto 'udp'
	option src_dport '51902'
	option dest_ip '192.168.20.1'
	option dest_port '51902'
	option target 'DNAT'
`
	plainRule = `
config rule
	option name 'wireguard'
	option src 'wan'
	option proto 'udp'
	option dest_port '51902'
	option target 'ACCEPT'
`
)

func without(text, line string) string {
	return strings.Replace(text, "\toption "+line+"\n", "", 1)
}

func TestSeedsRecipePartByPart(t *testing.T) {
	least := without(without(recipeZone, "masq '1'"), "mtu_fix '1'")
	rows := []struct {
		id, what              string
		parts                 []string
		inLAN                 bool // wg0 in zone lan
		handshake, ping, lanA bool // lanA: a LAN host with the router as gateway
		seen                  string
		noGW                  bool
	}{
		{"A", "full recipe", []string{recipeZone, recipeForwarding, recipeNAT, recipeRedirect}, false, true, true, true, "192.168.1.1", true},
		{"B", "no NAT rule", []string{recipeZone, recipeForwarding, recipeRedirect}, false, true, true, true, "192.168.20.2", false},
		{"C", "no masq", []string{without(recipeZone, "masq '1'"), recipeForwarding, recipeNAT, recipeRedirect}, false, true, true, true, "192.168.1.1", true},
		{"D", "no redirect", []string{recipeZone, recipeForwarding, recipeNAT}, false, false, false, false, "", false},
		{"E", "rule for redirect", []string{recipeZone, recipeForwarding, recipeNAT, plainRule}, false, true, true, true, "192.168.1.1", true},
		{"F", "no mtu_fix", []string{without(recipeZone, "mtu_fix '1'"), recipeForwarding, recipeNAT, recipeRedirect}, false, true, true, true, "192.168.1.1", true},
		{"G", "no forwarding", []string{recipeZone, recipeNAT, recipeRedirect}, false, true, true, false, "", false},
		{"H", "the least", []string{least, recipeForwarding, plainRule}, false, true, true, true, "192.168.20.2", false},
		{"I", "the least and NAT", []string{least, recipeForwarding, plainRule, recipeNAT}, false, true, true, true, "192.168.1.1", true},
		{"J", "no zone, wg0 in lan", []string{plainRule}, true, true, true, true, "192.168.20.2", false},
		{"K", "zone input REJECT", []string{strings.Replace(least, "input 'ACCEPT'", "input 'REJECT'", 1), recipeForwarding, plainRule}, false, true, false, true, "192.168.20.2", false},
		{"L", "redirect to the LAN address", []string{recipeZone, recipeForwarding, recipeNAT, strings.Replace(recipeRedirect, "192.168.20.1", "192.168.1.1", 1)}, false, true, true, true, "192.168.1.1", true},
		{"M", "redirect without dest_ip", []string{recipeZone, recipeForwarding, recipeNAT, without(recipeRedirect, "dest_ip '192.168.20.1'")}, false, false, false, false, "", false},
	}
	for _, line := range []router.Line{router.Line2305, router.Line2410, router.Line2512} {
		for _, r := range rows {
			t.Run(line.String()+"/"+r.id, func(t *testing.T) {
				file := shipped(line) + strings.Join(r.parts, "")
				if r.inLAN {
					file = strings.Replace(file, "list network 'lan'", "list network 'lan'\n\tlist network 'wg0'", 1)
				}
				b := newBox(t, line, file)
				if got := handshake(t, b, 51902); got != r.handshake {
					t.Fatalf("%s: handshake %v, observed %v", r.what, got, r.handshake)
				}
				if !r.handshake {
					return
				}
				for _, to := range []string{"192.168.20.1", "192.168.1.1"} {
					if got := b.in("wg0", ping("192.168.20.2", to)).Action == Accept; got != r.ping {
						t.Errorf("%s: ping %s %v, observed %v", r.what, to, got, r.ping)
					}
				}
				v := b.in("wg0", syn("192.168.20.2", "192.168.1.100", 80))
				if (v.Action == Accept) != r.lanA {
					t.Fatalf("%s: LAN host %v, observed %v", r.what, v.Action, r.lanA)
				}
				if !r.lanA {
					return
				}
				if v.Packet.Src != ip(r.seen) {
					t.Errorf("%s: LAN host sees %v, observed %s", r.what, v.Packet.Src, r.seen)
				}
				// A host with another gateway can only answer to its own network.
				if got := prefixes("192.168.1.0/24")[0].Contains(v.Packet.Src); got != r.noGW {
					t.Errorf("%s: host without the router as gateway: %v, observed %v", r.what, got, r.noGW)
				}
				back := b.in("br-lan", answerTo(v.Packet))
				if back.Action != Accept || back.Out != "wg0" || back.Packet.Dst != ip("192.168.20.2") {
					t.Errorf("%s: the answer is lost: %v", r.what, back)
				}
			})
		}
	}
}

// handshake sends a packet for the WireGuard port to the WAN address, and the
// answer from the address that it was received at.
func handshake(t *testing.T, b *box, port uint16) bool {
	t.Helper()
	p := udp("203.0.113.9", "192.168.2.253", port)
	v := b.in("wan", p)
	if v.Action != Accept || !v.Local || v.Packet.DstPort != port {
		return false
	}
	back := b.out(answerTo(v.Packet))
	if back.Action != Accept || back.Packet.Src != ip("192.168.2.253") || back.Packet.SrcPort != port || back.Packet.Dst != p.Src {
		t.Errorf("the answer leaves as %v:%d → %v", back.Packet.Src, back.Packet.SrcPort, back.Packet.Dst)
		return false
	}
	return true
}

// ours is what heimweg recommends on top of the shipped file
// (openwrt.md 6.4, scenario i).
const ours = `
config zone 'hw_zone'
	option name 'vpn'
	list network 'wg0'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option mtu_fix '1'

config rule 'hw_wg_in'
	option name 'WireGuard'
	option src 'wan'
	option proto 'udp'
	option dest_port '51820'
	option target 'ACCEPT'

config rule 'hw_dns'
	option src 'vpn'
	option proto 'tcp udp'
	option dest_port '53'
	option target 'ACCEPT'

config rule 'hw_ping'
	option src 'vpn'
	option proto 'icmp'
	option icmp_type 'echo-request'
	option target 'ACCEPT'

config forwarding 'hw_fwd_lan'
	option src 'vpn'
	option dest 'lan'
`

const natToLAN = `
config nat 'hw_nat_lan'
	option src 'lan'
	option src_ip '192.168.20.0/24'
	option target 'MASQUERADE'

config nat 'hw_nat_lan6'
	option src 'lan'
	option src_ip 'fd00:20::/64'
	option family 'ipv6'
	option target 'MASQUERADE'
`

func TestOurConfiguration(t *testing.T) {
	eachLine(t, func(t *testing.T, line router.Line) {
		b := newBox(t, line, shipped(line)+ours+natToLAN)
		if len(b.warn) != 0 && line.AtLeast(router.Line2203) {
			t.Errorf("warnings: %v", b.warn)
		}
		if !handshake(t, b, 51820) {
			t.Error("no handshake over IPv4")
		}
		want(t, "handshake over IPv6", b.in("wan", udp("2001:db8:9::9", "2001:db8:2::253", 51820)), Accept)
		want(t, "another port", b.in("wan", udp("203.0.113.9", "192.168.2.253", 51821)), Reject)
		want(t, "DNS through the tunnel", b.in("wg0", udp("192.168.20.2", "192.168.20.1", 53)), Accept)
		want(t, "ping through the tunnel", b.in("wg0", ping("192.168.20.2", "192.168.20.1")), Accept)
		want(t, "ping6 through the tunnel", b.in("wg0", ping("fd00:20::2", "fd00:20::1")), Accept)
		want(t, "ssh through the tunnel", b.in("wg0", syn("192.168.20.2", "192.168.1.1", 22)), Reject)
		want(t, "peer to peer", b.in("wg0", syn("192.168.20.2", "192.168.20.3", 22)), Reject)
		want(t, "no full tunnel", b.in("wg0", syn("192.168.20.2", "203.0.113.80", 443)), Reject)
		want(t, "lan to a peer", b.in("br-lan", syn("192.168.1.100", "192.168.20.2", 22)), Reject)

		v := b.in("wg0", syn("192.168.20.2", "192.168.1.100", 445))
		want(t, "phone to NAS", v, Accept)
		if v.Packet.Src != ip("192.168.1.1") {
			t.Errorf("the NAS sees %v", v.Packet.Src)
		}
		var sections []string
		for _, h := range v.Hits {
			sections = append(sections, h.Section)
		}
		if got := strings.Join(sections, " "); got != "hw_zone hw_fwd_lan hw_nat_lan" {
			t.Errorf("decided by %q", got)
		}
		back := b.in("br-lan", answerTo(v.Packet))
		if back.Action != Accept || back.Packet.Dst != ip("192.168.20.2") || back.Out != "wg0" {
			t.Errorf("the NAS's answer: %+v", back)
		}
		v6 := b.in("wg0", syn("fd00:20::2", "fd00:1::100", 445))
		want(t, "phone to NAS over IPv6", v6, Accept)
		if line.AtLeast(router.Line2203) && v6.Packet.Src != ip("fd00:1::1") {
			t.Errorf("over IPv6 the NAS sees %v", v6.Packet.Src)
		}

		real := newBox(t, line, shipped(line)+ours)
		if v := real.in("wg0", syn("192.168.20.2", "192.168.1.100", 445)); v.Packet.Src != ip("192.168.20.2") {
			t.Errorf("without NAT the NAS sees %v", v.Packet.Src)
		}
	})
}

// The scenarios of openwrt.md 6.4.
func TestScenarios(t *testing.T) {
	eachLine(t, func(t *testing.T, line router.Line) {
		t.Run("full tunnel", func(t *testing.T) {
			b := newBox(t, line, shipped(line)+ours+"\nconfig forwarding 'hw_fwd_wan'\n\toption src 'vpn'\n\toption dest 'wan'\n")
			v := b.in("wg0", syn("192.168.20.2", "203.0.113.80", 443))
			want(t, "phone to the internet", v, Accept)
			if v.Packet.Src != ip("192.168.2.253") {
				t.Errorf("seen from %v", v.Packet.Src)
			}
			v = b.in("wg0", syn("192.168.20.2", "192.168.2.9", 80))
			want(t, "phone to the uplink LAN", v, Accept)
			v6 := b.in("wg0", syn("fd00:20::2", "2001:db8:80::80", 443))
			want(t, "IPv6 leaves with its inner address", v6, Accept)
			if v6.Packet.Src != ip("fd00:20::2") {
				t.Errorf("IPv6 seen from %v", v6.Packet.Src)
			}
		})
		t.Run("masq6", func(t *testing.T) {
			if line.Before(router.Line2203) {
				return // fw3 has no masq6 (facts: openwrt.md 6)
			}
			file := strings.Replace(shipped(line), "option masq '1'", "option masq '1'\n\toption masq6 '1'", 1)
			b := newBox(t, line, file+ours+"\nconfig forwarding 'hw_fwd_wan'\n\toption src 'vpn'\n\toption dest 'wan'\n")
			if v := b.in("wg0", syn("fd00:20::2", "2001:db8:80::80", 443)); v.Packet.Src != ip("2001:db8:2::253") {
				t.Errorf("IPv6 seen from %v", v.Packet.Src)
			}
		})
		t.Run("uplink LAN only", func(t *testing.T) {
			b := newBox(t, line, shipped(line)+ours+`
config rule 'hw_uplink'
	option src 'vpn'
	option dest 'wan'
	option proto 'all'
	option dest_ip '192.168.2.0/24'
	option target 'ACCEPT'
`)
			want(t, "uplink LAN", b.in("wg0", syn("192.168.20.2", "192.168.2.9", 80)), Accept)
			want(t, "the internet", b.in("wg0", syn("192.168.20.2", "203.0.113.80", 443)), Reject)
		})
		t.Run("one-armed", func(t *testing.T) { oneArmed(t, line) })
		t.Run("in zone lan", func(t *testing.T) {
			file := strings.Replace(shipped(line), "list network 'lan'", "list network 'lan'\n\tlist network 'wg0'", 1) + plainRule
			b := newBox(t, line, file)
			want(t, "LAN", b.in("wg0", syn("192.168.20.2", "192.168.1.100", 80)), Accept)
			want(t, "the router's ssh", b.in("wg0", syn("192.168.20.2", "192.168.1.1", 22)), Accept)
			want(t, "the internet", b.in("wg0", syn("192.168.20.2", "203.0.113.80", 80)), Accept)
		})
		t.Run("two LANs", func(t *testing.T) {
			guest := Iface{Name: "guest", Device: "guest", Up: true, Addrs: prefixes("10.5.0.1/24")}
			file := shipped(line) + ours + `
config zone
	option name 'guest'
	list network 'guest'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'

config rule 'hw_one_printer'
	option src 'vpn'
	option src_ip '192.168.20.2'
	option dest 'guest'
	option dest_ip '10.5.0.7'
	option proto 'all'
	option target 'ACCEPT'
`
			b := newBox(t, line, file, append(live(), guest)...)
			want(t, "its printer", b.in("wg0", syn("192.168.20.2", "10.5.0.7", 9100)), Accept)
			want(t, "another peer", b.in("wg0", syn("192.168.20.3", "10.5.0.7", 9100)), Reject)
			want(t, "another host", b.in("wg0", syn("192.168.20.2", "10.5.0.8", 9100)), Reject)
		})
	})
}

// oneArmed: the box is a host inside the ISP router's LAN, zone lan only.
func oneArmed(t *testing.T, line router.Line) {
	ifaces := []Iface{
		{Name: "lan", Device: "br-lan", Up: true, Addrs: prefixes("192.168.2.2/24")},
		{Name: "wg0", Device: "wg0", Up: true, Addrs: prefixes("192.168.20.1/24")},
	}
	b := newBox(t, line, shipped(line)+ours+`
config nat 'hw_nat_lan'
	option src 'lan'
	option src_ip '192.168.20.0/24'
	option dest_ip '192.168.2.0/24'
	option target 'MASQUERADE'
`, ifaces...)
	want(t, "handshake on the LAN side", b.in("br-lan", udp("203.0.113.9", "192.168.2.2", 51820)), Accept)
	v := b.in("wg0", syn("192.168.20.2", "192.168.2.50", 80))
	want(t, "a host beside it", v, Accept)
	if v.Packet.Src != ip("192.168.2.2") {
		t.Errorf("seen from %v", v.Packet.Src)
	}
}
