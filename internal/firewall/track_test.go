package firewall

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/router"
)

func outward(t *testing.T) *box {
	return on(t, base+section("forwarding", "src lan", "dest wan"))
}

func TestTCPStates(t *testing.T) {
	first := syn("192.168.1.100", "203.0.113.9", 80)
	data := first
	data.SYN, data.ACK = false, true
	fin := data
	fin.FIN = true
	rst := data
	rst.ACK, rst.RST = false, true

	for what, c := range map[string]struct {
		p    Packet
		want State
	}{
		"SYN": {first, New}, "ACK, taken over in the middle": {data, New},
		"FIN": {fin, Invalid}, "RST": {rst, Invalid},
		"SYN and ACK": {answerTo(first), Invalid},
	} {
		if s, _, _ := NewTracker().see(&c.p, time.Time{}); s != c.want {
			t.Errorf("first packet %s: %v, want %v", what, s, c.want)
		}
	}

	b := outward(t)
	v := b.in("br-lan", first)
	if v := b.in("br-lan", data); v.State != Invalid {
		t.Errorf("ACK before the other side spoke: %v", v.State)
	}
	if v := b.in("br-lan", first); v.State != New || v.Action != Accept {
		t.Errorf("SYN again: %v %v", v.State, v.Action)
	}
	if v := b.in("wan", answerTo(v.Packet)); v.State != Established || !v.Reply {
		t.Errorf("SYN and ACK: %v", v.State)
	}
	if v := b.in("br-lan", data); v.State != Established || v.Reply || v.Packet.Src != ip("192.168.2.253") {
		t.Errorf("data: %v as %v", v.State, v.Packet.Src)
	}
	if v := b.in("br-lan", rst); v.State != Established {
		t.Errorf("RST: %v", v.State)
	}
	b.now = b.now.Add(11 * time.Second)
	if v := b.in("br-lan", data); v.State != New {
		t.Errorf("after the end: %v", v.State)
	}
}

func TestForgetting(t *testing.T) {
	b := outward(t)
	p := udp("192.168.1.100", "203.0.113.9", 53)
	v := b.in("br-lan", p)
	back := answerTo(v.Packet)
	b.now = b.now.Add(61 * time.Second)
	want(t, "an answer after the NAT mapping is gone", b.in("wan", back), Reject)

	v = b.in("br-lan", p)
	b.now = b.now.Add(3 * time.Second)
	b.in("wan", answerTo(v.Packet))
	b.now = b.now.Add(170 * time.Second)
	want(t, "a stream lives for 180 s", b.in("wan", answerTo(v.Packet)), Accept)
	if n := len(b.tr.Flows(b.now)); n != 1 {
		t.Errorf("%d connections", n)
	}
	b.tr.DeviceDown("br-lan")
	want(t, "another device goes down", b.in("wan", answerTo(v.Packet)), Accept)
	b.tr.DeviceDown("wan")
	want(t, "its device goes down", b.in("wan", answerTo(v.Packet)), Reject)

	v = b.in("br-lan", p)
	b.tr.Flush()
	want(t, "all is forgotten", b.in("wan", answerTo(v.Packet)), Reject)

	denied := udp("203.0.113.9", "192.168.2.253", 53)
	b.in("wan", denied)
	if n := len(b.tr.Flows(b.now)); n != 0 {
		t.Errorf("a refused packet is remembered: %d", n)
	}
}

func TestMasqueradingKeepsConnectionsApart(t *testing.T) {
	b := outward(t)
	seen := map[netip.AddrPort]string{}
	for _, host := range []string{"192.168.1.100", "192.168.1.101", "192.168.1.102"} {
		v := b.in("br-lan", udp(host, "203.0.113.9", 53))
		at := netip.AddrPortFrom(v.Packet.Src, v.Packet.SrcPort)
		if was := seen[at]; was != "" {
			t.Errorf("%s and %s share %v", host, was, at)
		}
		seen[at] = host
		if back := b.in("wan", answerTo(v.Packet)); back.Packet.Dst != ip(host) || back.Packet.DstPort != 40000 {
			t.Errorf("%s gets its answer at %v:%d", host, back.Packet.Dst, back.Packet.DstPort)
		}
	}
	// Pings with one identifier, too.
	one, two := b.in("br-lan", ping("192.168.1.100", "203.0.113.9")), b.in("br-lan", ping("192.168.1.101", "203.0.113.9"))
	if one.Packet.ICMPID == two.Packet.ICMPID {
		t.Error("two pings with one identifier")
	}
	if back := b.in("wan", answerTo(two.Packet)); back.Packet.Dst != ip("192.168.1.101") || back.Packet.ICMPID != 77 {
		t.Errorf("the second ping's answer: %+v", back.Packet)
	}
	// To another destination the port is free again.
	if v := b.in("br-lan", udp("192.168.1.101", "203.0.113.10", 53)); v.Packet.SrcPort != 40000 {
		t.Errorf("another destination: port %d", v.Packet.SrcPort)
	}
}

func TestErrorsFindTheirConnection(t *testing.T) {
	b := outward(t)
	p := udp("192.168.1.100", "203.0.113.9", 53)
	v := b.in("br-lan", p)
	inner := v.Packet
	e := Packet{Src: ip("198.51.100.1"), Dst: ip("192.168.2.253"), Proto: ICMP, ICMPType: 11, Inner: &inner}
	got := b.in("wan", e)
	if got.Action != Accept || got.State != Related || got.Packet.Dst != p.Src || got.Packet.Inner.Src != p.Src || got.Packet.Inner.SrcPort != 40000 {
		t.Errorf("error from a hop on the way: %+v", got)
	}
	if len(got.Hits) == 0 || !strings.Contains(got.Hits[len(got.Hits)-1].Says, "notice about a connection") {
		t.Errorf("decided by %v", got.Hits)
	}
	if inner != v.Packet {
		t.Error("the caller's packet was changed")
	}
	lone := udp("192.168.2.253", "203.0.113.77", 53)
	e.Inner = &lone
	if got := b.in("wan", e); got.State != Invalid {
		t.Errorf("an error about nothing: %v", got.State)
	}
}

func TestRareRules(t *testing.T) {
	night := base + section("rule", "src wan", "proto tcp", "dest_port 22", "start_time 22:00", "stop_time 06:00", "weekdays Sat Sun", "target ACCEPT")
	b := on(t, night)
	ssh := syn("203.0.113.9", "192.168.2.253", 22)
	want(t, "Saturday noon", b.in("wan", ssh), Reject)
	b.now = b.now.Add(11 * time.Hour)
	want(t, "Saturday 23:00", b.in("wan", ssh), Accept)

	marked := base + section("rule", "src lan", "dest wan", "proto tcp", "target MARK", "set_mark 0x5") +
		section("rule", "src lan", "dest wan", "proto tcp", "mark 0x5", "target ACCEPT")
	v := on(t, marked).in("br-lan", syn("192.168.1.100", "203.0.113.9", 80))
	if v.Action != Accept || v.Packet.Mark != 5 {
		t.Errorf("marked: %+v", v)
	}
	untracked := base + section("rule", "src lan", "proto udp", "target NOTRACK") + section("forwarding", "src lan", "dest wan")
	b = on(t, untracked)
	v = b.in("br-lan", udp("192.168.1.100", "203.0.113.9", 53))
	if v.State != Untracked || v.Packet.Src != ip("192.168.1.100") || len(b.tr.Flows(b.now)) != 0 {
		t.Errorf("not tracked, so not masqueraded: %+v", v)
	}
	byMAC := base + section("rule", "src lan", "dest wan", "src_mac 00:11:22:33:44:55", "target ACCEPT")
	p := syn("192.168.1.100", "203.0.113.9", 80)
	want(t, "sender not known", on(t, byMAC).in("br-lan", p), Reject)
	p.MAC = [6]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55}
	want(t, "the right sender", on(t, byMAC).in("br-lan", p), Accept)
	dev := base + section("rule", "src *", "dest *", "device wg0", "direction out", "proto all", "target ACCEPT")
	want(t, "by outgoing device", on(t, dev).in("br-lan", syn("192.168.1.100", "192.168.20.2", 80)), Accept)
	host := base + section("rule", "src wan", "dest lan", "family ipv6", "dest_ip ::100/::ffff", "proto tcp", "dest_port 443", "target ACCEPT")
	want(t, "host part of an address", on(t, host).in("wan", syn("2001:db8:9::9", "fd00:1::100", 443)), Accept)
	want(t, "another host", on(t, host).in("wan", syn("2001:db8:9::9", "fd00:1::101", 443)), Reject)
}

// What people read: each hit names file, section and what it does.
func TestHitsSpeakPlainly(t *testing.T) {
	b := newBox(t, router.Line2410, shipped(router.Line2410)+ours+natToLAN+recipeForwarding)
	say := func(v Verdict) string {
		var s []string
		for _, h := range v.Hits {
			s = append(s, h.Name+": "+h.Says)
		}
		return strings.Join(s, "; ")
	}
	for got, w := range map[string]string{
		say(b.in("wan", udp("203.0.113.9", "192.168.2.253", 51820))): "wan: it comes in by zone wan; WireGuard: lets through udp to port 51820 from wan to the router",
		say(b.in("wan", udp("203.0.113.9", "192.168.2.253", 9))):     "wan: refuses what comes from wan for the router itself",
		say(b.in("wg0", syn("192.168.20.2", "192.168.1.100", 80))):   "vpn: it comes in by zone vpn; vpn → lan: lets vpn go to lan; hw_nat_lan: makes everything to lan look as if it came from the router",
		say(b.in("wg0", syn("192.168.20.2", "203.0.113.9", 80))):     "defaults: refuses what nothing allows to be passed on",
		say(b.in("wg0", syn("192.168.20.2", "192.168.20.3", 80))):    "vpn: refuses what goes from one device of vpn to another",
	} {
		if got != w {
			t.Errorf("got  %s\nwant %s", got, w)
		}
	}
	want(t, "lan", b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)), Accept)
}
