package firewall

import (
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/router"
)

// One test per numbered point of openwrt-observed.md section 8: what was seen
// with the rulesets of firewall4 of OpenWrt 23.05.6, 24.10.8 and 25.12.5 and
// real packets. "Read" in a comment means: from its source, not driven.

// base is lan, wan and vpn with ordinary policies and no forwardings.
const base = `
config defaults
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option masq '1'

config zone
	option name 'vpn'
	list network 'wg0'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'REJECT'
`

func on(t *testing.T, file string) *box { return newBox(t, router.Line2410, file) }

// section writes one section: type, then "option value" pairs.
func section(typ string, opts ...string) string {
	var b strings.Builder
	b.WriteString("\nconfig " + typ + "\n")
	for _, o := range opts {
		k, v, _ := strings.Cut(o, " ")
		b.WriteString("\toption " + k + " '" + v + "'\n")
	}
	return b.String()
}

func set(file, old, new string) string { return strings.Replace(file, old, new, 1) }

func stray(src, dst string) Packet {
	return Packet{Src: ip(src), Dst: ip(dst), Proto: TCP, SrcPort: 40000, DstPort: 80, FIN: true, ACK: true}
}

func TestObserved1StrayRejects(t *testing.T) {
	b := on(t, base)
	v := b.in("wan", stray("203.0.113.9", "192.168.2.253"))
	want(t, "stray from a masq zone", v, Reject)
	if v.Answer != nil || v.State != Invalid {
		t.Errorf("a masq zone does not let the reset out: %+v", v.Answer)
	}
	if v := b.in("wan", syn("203.0.113.9", "192.168.2.253", 80)); v.Answer == nil || v.With != TCPReset {
		t.Error("a new packet always gets its answer")
	}
	nomasq := without(base, "masq '1'")
	if v := on(t, nomasq).in("wan", stray("203.0.113.9", "192.168.2.253")); v.Answer == nil {
		t.Error("without masq the reset goes out")
	}
	six := stray("2001:db8:9::9", "2001:db8:2::253")
	if v := b.in("wan", six); v.Answer == nil {
		t.Error("masq is for IPv4: IPv6 gets its answer")
	}
	invalid := set(nomasq, "option forward 'REJECT'", "option forward 'REJECT'\n\toption drop_invalid '1'")
	if v := on(t, invalid).in("wan", stray("203.0.113.9", "192.168.2.253")); v.Action != Drop || v.Answer != nil {
		t.Errorf("drop_invalid: %+v", v)
	}
	mute := set(nomasq, "option input 'REJECT'\n\toption output 'ACCEPT'\n\toption forward 'REJECT'\n\nconfig zone\n\toption name 'vpn'", "option input 'REJECT'\n\toption output 'DROP'\n\toption forward 'REJECT'\n\nconfig zone\n\toption name 'vpn'")
	if v := on(t, mute).in("wan", stray("203.0.113.9", "192.168.2.253")); v.Action != Reject || v.Answer != nil {
		t.Errorf("output DROP: %+v", v)
	}
	// Neighbour solicitations have no connection either.
	ns := Packet{Src: ip("2001:db8:2::253"), Dst: ip("2001:db8:2::9"), Proto: ICMPv6, ICMPType: 135}
	if v := on(t, mute).out(ns); v.Action != Drop || v.State != Untracked {
		t.Errorf("neighbour solicitation with output DROP: %+v", v)
	}
}

func TestObserved2NegatedPort(t *testing.T) {
	b := on(t, base+section("redirect", "src wan", "dest lan", "proto tcp", "src_dport !80", "dest_ip 192.168.1.100"))
	v := b.in("wan", syn("203.0.113.9", "192.168.2.253", 81))
	if v.Action != Accept || v.Packet.DstPort != 80 || v.Packet.Dst != ip("192.168.1.100") {
		t.Errorf("81 goes to %v:%d", v.Packet.Dst, v.Packet.DstPort)
	}
	want(t, "80 itself", b.in("wan", syn("203.0.113.9", "192.168.2.253", 80)), Reject)
}

func TestObserved3RedirectToSelf(t *testing.T) {
	b := on(t, base+section("redirect", "src wan", "proto udp", "src_dport 51820"))
	want(t, "nothing changed", b.in("wan", udp("203.0.113.9", "192.168.2.253", 51820)), Reject)
	b = on(t, base+section("redirect", "src wan", "proto udp", "src_dport 443", "dest_port 51820"))
	v := b.in("wan", udp("203.0.113.9", "192.168.2.253", 443))
	if v.Action != Accept || v.Packet.DstPort != 51820 || v.Packet.Dst != ip("192.168.2.253") {
		t.Errorf("another port: %v %v", v.Action, v.Packet)
	}
	// Asked at the LAN address: it is led to the address of the incoming device.
	v = b.in("wan", udp("203.0.113.9", "192.168.1.1", 443))
	if v.Packet.Dst != ip("192.168.2.253") {
		t.Errorf("led to %v", v.Packet.Dst)
	}
}

func TestObserved4RedirectedPacketsPass(t *testing.T) {
	forward := section("redirect", "src wan", "dest vpn", "proto tcp", "src_dport 8080", "dest_ip 192.168.1.100", "dest_port 80")
	b := on(t, base+forward)
	want(t, "a dest that does not hold dest_ip", b.in("wan", syn("203.0.113.9", "192.168.2.253", 8080)), Accept)
	b = on(t, base+forward+section("rule", "src wan", "dest lan", "proto tcp", "dest_port 8080", "target DROP"))
	want(t, "DROP on the outer port", b.in("wan", syn("203.0.113.9", "192.168.2.253", 8080)), Accept)
	b = on(t, base+forward+section("rule", "src wan", "dest lan", "proto tcp", "dest_port 80", "target DROP"))
	want(t, "DROP on the inner port", b.in("wan", syn("203.0.113.9", "192.168.2.253", 8080)), Drop)
}

func TestObserved5RefusedRulesets(t *testing.T) {
	for what, s := range map[string]string{
		"dest_port without src_dport": section("redirect", "src wan", "dest lan", "proto tcp", "dest_ip 192.168.1.100", "dest_port 80"),
		"the same without reflection": section("redirect", "src wan", "dest lan", "proto tcp", "dest_ip 192.168.1.100", "dest_port 80", "reflection 0"),
		"SNAT with src_dport only":    section("redirect", "target SNAT", "dest wan", "proto tcp", "src_dip 192.168.2.253", "src_dport 80"),
		"two zones of one name":       section("zone", "name lan", "network guest"),
		"a name of 130 characters":    section("rule", "name "+strings.Repeat("x", 130), "src wan", "target ACCEPT"),
		"an unknown protocol":         section("rule", "src wan", "proto nosuch", "target ACCEPT"),
	} {
		b := on(t, base+s)
		if !b.rs.Refused() {
			t.Errorf("%s is not refused: %v", what, b.warn)
		}
		if v := b.in("wan", syn("203.0.113.9", "192.168.2.253", 22)); v.Action != Accept {
			t.Errorf("%s: without a ruleset everything passes, %v", what, v.Action)
		}
	}
	if on(t, base).rs.Refused() {
		t.Error("the base is refused")
	}
}

func TestObserved6Families(t *testing.T) {
	b := on(t, base+section("redirect", "src wan", "proto udp", "src_dport 443", "dest_port 51820"))
	want(t, "redirect, IPv6", b.in("wan", udp("2001:db8:9::9", "2001:db8:2::253", 443)), Reject)
	b = on(t, base+section("redirect", "src wan", "proto udp", "src_dport 443", "dest_port 51820", "family any"))
	want(t, "redirect family any, IPv6", b.in("wan", udp("2001:db8:9::9", "2001:db8:2::253", 443)), Accept)
	b = on(t, base+section("redirect", "src wan", "dest lan", "proto tcp", "src_dport 80", "dest_ip fd00:1::100"))
	want(t, "redirect to an IPv6 address", b.in("wan", syn("2001:db8:9::9", "2001:db8:2::253", 80)), Accept)
	b = on(t, base+plainRule+section("forwarding", "src vpn", "dest lan"))
	want(t, "rule, IPv6", b.in("wan", udp("2001:db8:9::9", "2001:db8:2::253", 51902)), Accept)
	want(t, "forwarding, IPv6", b.in("wg0", syn("fd00:20::2", "fd00:1::100", 80)), Accept)
	b = on(t, base+section("forwarding", "src vpn", "dest lan")+section("nat", "src lan", "target MASQUERADE"))
	if v := b.in("wg0", syn("fd00:20::2", "fd00:1::100", 80)); v.Packet.Src != ip("fd00:20::2") {
		t.Errorf("nat without family hides IPv6 behind %v", v.Packet.Src)
	}
	b = on(t, base+section("forwarding", "src vpn", "dest lan")+section("nat", "src lan", "target MASQUERADE", "family any"))
	if v := b.in("wg0", syn("fd00:20::2", "fd00:1::100", 80)); v.Packet.Src != ip("fd00:1::1") {
		t.Errorf("nat family any shows %v", v.Packet.Src)
	}
}

func TestObserved7PortsOfOtherProtocols(t *testing.T) {
	b := on(t, base+section("rule", "src wan", "proto all", "dest_port 22", "target ACCEPT"))
	want(t, "port 23", b.in("wan", syn("203.0.113.9", "192.168.2.253", 23)), Accept)
	want(t, "ping", b.in("wan", ping("203.0.113.9", "192.168.2.253")), Accept)
	b = on(t, base+section("redirect", "src wan", "dest lan", "proto all", "src_dport 80", "dest_port 8080", "dest_ip 192.168.1.100"))
	v := b.in("wan", syn("203.0.113.9", "192.168.2.253", 443))
	if v.Action != Accept || v.Packet.Dst != ip("192.168.1.100") || v.Packet.DstPort != 443 {
		t.Errorf("redirect proto all: %v %v:%d", v.Action, v.Packet.Dst, v.Packet.DstPort)
	}
	if v := b.in("wan", ping("203.0.113.9", "192.168.2.253")); v.Packet.Dst != ip("192.168.1.100") {
		t.Errorf("ping goes to %v", v.Packet.Dst)
	}
}

func TestObserved8DefaultProtocols(t *testing.T) {
	b := on(t, base+section("rule", "src wan", "target ACCEPT"))
	want(t, "tcp", b.in("wan", syn("203.0.113.9", "192.168.2.253", 23)), Accept)
	want(t, "udp", b.in("wan", udp("203.0.113.9", "192.168.2.253", 23)), Accept)
	want(t, "ping", b.in("wan", ping("203.0.113.9", "192.168.2.253")), Reject)
	b = on(t, base+section("rule", "src wan", "proto !udp", "target ACCEPT"))
	want(t, "!udp is udp", b.in("wan", udp("203.0.113.9", "192.168.2.253", 23)), Accept)
	want(t, "!udp is not tcp", b.in("wan", syn("203.0.113.9", "192.168.2.253", 23)), Reject)
	b = on(t, base+section("rule", "src wan", "proto icmp", "icmp_type 8", "target ACCEPT"))
	want(t, "8 is ping", b.in("wan", ping("203.0.113.9", "192.168.2.253")), Accept)
	want(t, "8 is not ping6", b.in("wan", ping("2001:db8:9::9", "2001:db8:2::253")), Reject)
	odd := Packet{Src: ip("2001:db8:9::9"), Dst: ip("2001:db8:2::253"), Proto: ICMPv6, ICMPType: 8}
	want(t, "ICMPv6 of type 8", b.in("wan", odd), Accept)
	b = on(t, base+section("rule", "src wan", "proto icmp", "target ACCEPT"))
	want(t, "icmp, IPv4", b.in("wan", ping("203.0.113.9", "192.168.2.253")), Accept)
	want(t, "icmp without family means ICMPv6, too", b.in("wan", ping("2001:db8:9::9", "2001:db8:2::253")), Accept)
	b = on(t, base+section("forwarding", "src lan", "dest wan")+section("nat", "src wan", "target SNAT", "snat_ip 192.168.2.77"))
	if v := b.in("br-lan", ping("192.168.1.100", "203.0.113.9")); v.Packet.Src != ip("192.168.2.77") {
		t.Errorf("nat means every protocol: %v", v.Packet.Src)
	}
}

func TestObserved9PortRange(t *testing.T) {
	b := on(t, base+section("redirect", "src wan", "dest lan", "proto tcp", "src_dport 8000-9000", "dest_ip 192.168.1.100", "dest_port 8100-8200"))
	for from, to := range map[uint16]uint16{8150: 8150, 8000: 8100, 8900: 8100} {
		if v := b.in("wan", syn("203.0.113.9", "192.168.2.253", from)); v.Packet.DstPort != to {
			t.Errorf("%d becomes %d, observed %d", from, v.Packet.DstPort, to)
		}
	}
}

func TestObserved10Order(t *testing.T) {
	zoneFirst := section("rule", "src wan", "proto tcp", "dest_port 22", "target ACCEPT")
	anyLater := section("rule", "src *", "proto tcp", "dest_port 22", "target DROP")
	want(t, "src * comes first", on(t, base+zoneFirst+anyLater).in("wan", syn("203.0.113.9", "192.168.2.253", 22)), Drop)
	b := on(t, base+section("forwarding", "src vpn", "dest lan")+section("rule", "src vpn", "dest lan", "proto tcp", "dest_port 445", "target REJECT"))
	want(t, "a REJECT behind a forwarding wins", b.in("wg0", syn("192.168.20.2", "192.168.1.100", 445)), Reject)
	want(t, "the rest passes", b.in("wg0", syn("192.168.20.2", "192.168.1.100", 80)), Accept)
	b = on(t, section("zone", "name first", "network lan", "input DROP")+base)
	want(t, "first zone with the device", b.in("br-lan", syn("192.168.1.100", "192.168.1.1", 22)), Drop)
}

func TestObserved11ZoneForward(t *testing.T) {
	two := set(base, "list network 'lan'", "list network 'lan'\n\tlist device 'guest'")
	guest := Iface{Name: "guest", Device: "guest", Up: true, Addrs: prefixes("10.5.0.1/24")}
	b := newBox(t, router.Line2410, two, append(live(), guest)...)
	want(t, "inside the zone", b.in("guest", syn("10.5.0.7", "192.168.1.100", 80)), Accept)
	for global, fate := range map[string]Action{"REJECT": Reject, "DROP": Drop} {
		file := set(base, "option forward 'REJECT'", "option forward '"+global+"'")
		want(t, "to another zone: the global policy", on(t, file).in("br-lan", syn("192.168.1.100", "192.168.20.2", 80)), fate)
	}
	odd := Iface{Name: "odd", Device: "odd0", Up: true, Addrs: prefixes("10.9.0.1/24")}
	b = newBox(t, router.Line2410, base, append(live(), odd)...)
	want(t, "no zone, input", b.in("odd0", syn("10.9.0.9", "10.9.0.1", 22)), Reject)
	want(t, "no zone, forward", b.in("odd0", syn("10.9.0.9", "192.168.1.100", 22)), Reject)
	want(t, "no zone, output", b.out(syn("10.9.0.1", "10.9.0.9", 22)), Accept)
	b = newBox(t, router.Line2203, shipped(router.Line2203), append(live(), odd)...)
	want(t, "no zone on 22.03", b.in("odd0", syn("10.9.0.9", "10.9.0.1", 22)), Accept)
}

func TestObserved12Defaults(t *testing.T) {
	b := on(t, section("zone", "name lan", "network lan"))
	want(t, "no defaults, zone without policies", b.in("br-lan", syn("192.168.1.100", "192.168.1.1", 22)), Drop)
	want(t, "no defaults, forward", b.in("wg0", syn("192.168.20.2", "192.168.1.100", 22)), Drop)
	want(t, "no defaults, output", b.out(syn("192.168.1.1", "192.168.1.100", 22)), Drop)
	late := section("zone", "name lan", "network lan") + section("defaults", "input ACCEPT") + section("defaults", "input DROP")
	b = on(t, late)
	want(t, "defaults behind the zones", b.in("br-lan", syn("192.168.1.100", "192.168.1.1", 22)), Accept)
	if !hasWarning(b.warn, "[!] Section @defaults[1] : ignoring duplicate defaults section") {
		t.Errorf("warnings: %v", b.warn)
	}
}

func TestObserved13ZoneByDevice(t *testing.T) {
	b := on(t, base)
	for dev, zone := range map[string]string{"br-lan": "lan", "wan": "wan", "wg0": "vpn", "eth7": ""} {
		if got, ok := b.rs.Zone(dev, ip("192.168.1.1")); got != zone || ok != (zone != "") {
			t.Errorf("%s is in zone %q", dev, got)
		}
	}
	want(t, "LAN host to the WAN address", b.in("br-lan", syn("192.168.1.100", "192.168.2.253", 80)), Accept)
	want(t, "WAN host to the LAN address", b.in("wan", syn("192.168.2.9", "192.168.1.1", 80)), Reject)
}

func TestObserved14ZoneFamily(t *testing.T) {
	for what, line := range map[string]string{"family": "option family 'ipv4'", "subnet": "list subnet '192.168.1.0/24'"} {
		b := on(t, set(base, "option name 'lan'", "option name 'lan'\n\t"+line)+
			section("rule", "src lan", "proto tcp", "family ipv6", "target ACCEPT"))
		want(t, what+": IPv4", b.in("br-lan", syn("192.168.1.100", "192.168.1.1", 22)), Accept)
		want(t, what+": IPv6 is in no zone", b.in("br-lan", syn("fd00:1::100", "fd00:1::1", 22)), Reject)
		if what == "family" && !hasWarning(b.warn, "skipping") {
			t.Errorf("%s: %v", what, b.warn)
		}
	}
}

func TestObserved15Reflection(t *testing.T) {
	forward := func(more ...string) string {
		return base + section("redirect", append([]string{"src wan", "dest lan", "proto tcp", "src_dport 80", "dest_ip 192.168.1.100"}, more...)...)
	}
	hit := func(file string) Verdict { return on(t, file).in("br-lan", syn("192.168.1.50", "192.168.2.253", 80)) }
	if v := hit(forward()); v.Packet.Dst != ip("192.168.1.100") || v.Packet.Src != ip("192.168.1.1") {
		t.Errorf("internal: %v → %v", v.Packet.Src, v.Packet.Dst)
	}
	if v := hit(forward("reflection_src external")); v.Packet.Src != ip("192.168.2.253") {
		t.Errorf("external: %v", v.Packet.Src)
	}
	for what, file := range map[string]string{
		"off":     forward("reflection 0"),
		"no masq": without(forward(), "masq '1'"),
	} {
		if v := hit(file); v.Packet.Dst != ip("192.168.2.253") {
			t.Errorf("%s: led to %v", what, v.Packet.Dst)
		}
	}
	v := on(t, forward()).in("wg0", syn("192.168.20.2", "192.168.2.253", 80))
	if v.Packet.Dst != ip("192.168.2.253") {
		t.Errorf("from another zone: led to %v", v.Packet.Dst)
	}
	z := on(t, forward("reflection_zone vpn")).in("wg0", syn("192.168.20.2", "192.168.2.253", 80))
	if z.Action != Accept || z.Packet.Dst != ip("192.168.1.100") {
		t.Errorf("reflection_zone: %v to %v", z.Action, z.Packet.Dst)
	}
	two := live()
	two[1].Addrs = prefixes("172.20.0.1/24", "192.168.1.1/24")
	if v := newBox(t, router.Line2410, forward(), two...).in("br-lan", syn("192.168.1.50", "192.168.2.253", 80)); v.Packet.Src != ip("192.168.1.1") {
		t.Errorf("two subnets: as %v, want the address in dest_ip's", v.Packet.Src)
	}
	// It hits the router's own connections to that host and port.
	b := on(t, forward("reflection_src external"))
	if v := b.out(syn("192.168.1.1", "192.168.1.100", 80)); v.Packet.Src != ip("192.168.2.253") {
		t.Errorf("the router's own connection comes from %v", v.Packet.Src)
	}
}

func TestObserved16DestFromAddress(t *testing.T) {
	b := on(t, base+section("redirect", "src wan", "proto tcp", "src_dport 80", "dest_ip 192.168.1.100"))
	if !hasWarning(b.warn, "does not specify a destination, assuming 'lan'") {
		t.Errorf("warnings: %v", b.warn)
	}
	if v := b.in("br-lan", syn("192.168.1.50", "192.168.2.253", 80)); v.Packet.Dst != ip("192.168.1.100") {
		t.Error("no reflection")
	}
	b = on(t, base+section("redirect", "src wan", "proto tcp", "src_dport 80", "dest_ip 10.77.0.1"))
	if len(b.warn) != 0 {
		t.Errorf("warnings: %v", b.warn)
	}
}

func TestObserved17NATOrder(t *testing.T) {
	allow := base + section("forwarding", "src lan", "dest wan")
	from := func(file string) string {
		return on(t, file).in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)).Packet.Src.String()
	}
	zone := section("nat", "src wan", "target SNAT", "snat_ip 192.168.2.77")
	anyZone := section("nat", "target SNAT", "snat_ip 192.168.2.88")
	redirect := section("redirect", "target SNAT", "dest wan", "src_dip 192.168.2.99", "proto all")
	if got := from(allow + zone); got != "192.168.2.77" {
		t.Errorf("nat before masq: %s", got)
	}
	if got := from(allow + zone + anyZone); got != "192.168.2.88" {
		t.Errorf("nat without a zone first: %s", got)
	}
	if got := from(allow + zone + redirect); got != "192.168.2.99" {
		t.Errorf("redirect before nat: %s", got)
	}
	if got := from(allow + section("nat", "src wan", "target ACCEPT", "dest_ip 203.0.113.0/24")); got != "192.168.1.100" {
		t.Errorf("ACCEPT leaves the source: %s", got)
	}
}

func TestObserved18Masquerading(t *testing.T) {
	allow := base + section("forwarding", "src lan", "dest wan")
	b := on(t, allow)
	if v := b.in("br-lan", syn("fd00:1::100", "2001:db8:9::9", 80)); v.Packet.Src != ip("fd00:1::100") {
		t.Errorf("masq hides IPv6: %v", v.Packet.Src)
	}
	b = on(t, set(allow, "option masq '1'", "option masq '1'\n\tlist masq_src 'fd00::/8'"))
	if v := b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)); v.Packet.Src != ip("192.168.2.253") {
		t.Errorf("a masq_src of IPv6 restricts IPv4: %v", v.Packet.Src)
	}
	b = on(t, set(allow, "option masq '1'", "option masq '1'\n\tlist masq_src '!192.168.1.0/24'"))
	if v := b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)); v.Packet.Src != ip("192.168.1.100") {
		t.Errorf("masq_src with !: %v", v.Packet.Src)
	}
	want(t, "stray out of a masq zone", on(t, allow).in("br-lan", stray("192.168.1.100", "203.0.113.9")), Drop)
	ok := set(allow, "option masq '1'", "option masq '1'\n\toption masq_allow_invalid '1'")
	want(t, "masq_allow_invalid", on(t, ok).in("br-lan", stray("192.168.1.100", "203.0.113.9")), Accept)

	ifaces := live()
	ifaces[2].Addrs = prefixes("10.0.0.5/24", "192.168.2.253/24", "172.20.0.5/24")
	b = newBox(t, router.Line2410, allow, ifaces...)
	for dst, src := range map[string]string{"172.20.0.9": "172.20.0.5", "203.0.113.9": "192.168.2.253"} {
		if v := b.in("br-lan", syn("192.168.1.100", dst, 80)); v.Packet.Src != ip(src) {
			t.Errorf("to %s as %v, want %s", dst, v.Packet.Src, src)
		}
	}
	ifaces[2].Gateways = nil
	b = newBox(t, router.Line2410, allow, ifaces...)
	if v := b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)); v.Packet.Src != ip("10.0.0.5") {
		t.Errorf("no gateway known: as %v, want the first", v.Packet.Src)
	}
}

func TestObserved19Replies(t *testing.T) {
	b := on(t, base+section("forwarding", "src lan", "dest wan"))
	v := b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80))
	want(t, "out", v, Accept)
	deny, _ := Compile(router.Line2410, nil, nil, live())
	b.rs = deny
	back := b.in("wan", answerTo(v.Packet))
	want(t, "back, though nothing is allowed any more", back, Accept)
	if back.Packet.Dst != ip("192.168.1.100") {
		t.Errorf("back to %v", back.Packet.Dst)
	}
	want(t, "a new one", b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 81)), Drop)
}

func TestObserved20Addresses(t *testing.T) {
	b := on(t, base+section("rule", "src lan", "dest wan", "src_ip lan", "target ACCEPT"))
	want(t, "interface name, IPv4", b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)), Accept)
	want(t, "interface name, IPv6", b.in("br-lan", syn("fd00:1::100", "2001:db8:9::9", 80)), Accept)
	want(t, "not of that subnet", b.in("br-lan", syn("10.1.1.1", "203.0.113.9", 80)), Reject)
	b = on(t, base+section("rule", "src lan", "dest wan", "src_ip 192.168.1.77/24", "target ACCEPT"))
	want(t, "host bits are masked off", b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)), Accept)
	b = on(t, base+`
config rule
	option src 'lan'
	option dest 'wan'
	list src_ip '192.168.1.0/24'
	list src_ip '10.0.0.0/8'
	list src_ip '!192.168.1.100'
	option target 'ACCEPT'
`)
	want(t, "in a plain one", b.in("br-lan", syn("192.168.1.101", "203.0.113.9", 80)), Accept)
	want(t, "in a negated one", b.in("br-lan", syn("192.168.1.100", "203.0.113.9", 80)), Reject)
	want(t, "in none", b.in("br-lan", syn("172.16.0.1", "203.0.113.9", 80)), Reject)
}

func TestObserved21Skipping(t *testing.T) {
	ssh := func() Packet { return syn("203.0.113.9", "192.168.2.253", 22) }
	for what, rule := range map[string]string{
		"port 99999":   section("rule", "src wan", "proto tcp", "dest_port 99999", "target ACCEPT"),
		"icmp type":    section("rule", "src wan", "proto tcp", "icmp_type nosuch", "target ACCEPT"),
		"list src":     "\nconfig rule\n\tlist src 'wan'\n\toption target 'ACCEPT'\n",
		"unknown zone": section("rule", "src nosuch", "target ACCEPT"),
		"target":       section("rule", "src wan", "target nosuch"),
	} {
		b := on(t, base+rule)
		want(t, what, b.in("wan", ssh()), Reject)
		if !hasWarning(b.warn, "[!] Section @rule[0] skipped due to invalid options") {
			t.Errorf("%s: %v", what, b.warn)
		}
	}
	b := on(t, base+section("rule", "name a name", "src wan", "nonsense 1", "target acc"))
	want(t, "unknown option, short target", b.in("wan", ssh()), Accept)
	if !hasWarning(b.warn, "[!] Section @rule[0] (a name) specifies unknown option 'nonsense'") || b.warn[0].Skipped {
		t.Errorf("warnings: %v", b.warn)
	}
	want(t, "enabled no", on(t, base+section("rule", "enabled no", "src wan", "target ACCEPT")).in("wan", ssh()), Reject)
	want(t, "no target", on(t, base+section("rule", "src wan")+section("rule", "src wan", "target DROP")).in("wan", ssh()), Drop)
	b = on(t, set(base, "list network 'wg0'\n\toption input 'ACCEPT'", "list network 'wg0'\n\toption input 'maybe'")+section("forwarding", "src vpn", "dest lan"))
	if !hasWarning(b.warn, "[!] Section @zone[2] (vpn) option 'input' specifies invalid value 'maybe'") ||
		!hasWarning(b.warn, "[!] Section @forwarding[0] option 'src' specifies invalid value 'vpn'") {
		t.Errorf("warnings: %v", b.warn)
	}
}

func TestObserved22RejectAnswers(t *testing.T) {
	b := on(t, base)
	for what, p := range map[string]struct {
		dev string
		p   Packet
	}{
		"input":   {"wan", syn("203.0.113.9", "192.168.2.253", 22)},
		"forward": {"wg0", syn("192.168.20.2", "192.168.1.100", 22)},
	} {
		v := b.in(p.dev, p.p)
		if v.With != TCPReset || v.Answer == nil || !v.Answer.RST || v.Answer.Dst != p.p.Src || v.Answer.Src != p.p.Dst {
			t.Errorf("%s: %+v", what, v)
		}
	}
	v := b.in("wan", udp("203.0.113.9", "192.168.2.253", 22))
	if v.With != PortUnreachable || v.Answer.ICMPType != 3 || v.Answer.ICMPCode != 3 || v.Answer.Inner.DstPort != 22 {
		t.Errorf("udp: %+v", v)
	}
	codes := set(base, "option forward 'REJECT'", "option forward 'REJECT'\n\toption tcp_reject_code 'admin-prohibited'\n\toption any_reject_code 'host-unreachable'")
	b = on(t, codes)
	if v := b.in("wan", syn("203.0.113.9", "192.168.2.253", 22)); v.With != AdminProhibited || v.Answer.ICMPCode != 13 {
		t.Errorf("tcp_reject_code: %+v", v)
	}
	if v := b.in("wan", udp("2001:db8:9::9", "2001:db8:2::253", 22)); v.Answer == nil || v.Answer.ICMPType != 1 || v.Answer.ICMPCode != 3 {
		t.Errorf("any_reject_code over IPv6: %+v", v)
	}
	// A reset is no answer to anything but tcp: the rest is dropped.
	resets := set(base, "option forward 'REJECT'", "option forward 'REJECT'\n\toption any_reject_code 'tcp-reset'")
	dropped := on(t, resets).in("wg0", udp("192.168.20.2", "192.168.1.100", 22))
	want(t, "any_reject_code tcp-reset, udp", dropped, Drop)
	if len(dropped.Hits) == 0 {
		t.Error("nobody says why")
	}
	want(t, "any_reject_code tcp-reset, tcp", on(t, resets).in("wg0", syn("192.168.20.2", "192.168.1.100", 22)), Reject)
	rst := syn("203.0.113.9", "192.168.2.253", 22)
	rst.SYN, rst.RST = false, true
	if v := on(t, without(base, "masq '1'")).in("wan", rst); v.Answer != nil {
		t.Error("a reset is answered")
	}
	out := set(base, "option output 'ACCEPT'\n\toption forward 'REJECT'\n\toption masq", "option output 'REJECT'\n\toption forward 'REJECT'\n\toption masq")
	if v := on(t, out).out(syn("192.168.2.253", "203.0.113.9", 80)); v.Action != Reject || v.With != TCPReset {
		t.Errorf("output: %+v", v)
	}
}

func TestObserved23Devices(t *testing.T) {
	wild := set(base, "list network 'wg0'", "list device 'wg+'")
	ifaces := append(live(), Iface{Name: "x", Device: "wgother", Up: true, Addrs: prefixes("10.7.0.1/24")})
	b := newBox(t, router.Line2410, wild, ifaces...)
	want(t, "wg+ matches wgother", b.in("wgother", syn("10.7.0.9", "10.7.0.1", 22)), Accept)
	b = newBox(t, router.Line2410, base, ifaces...)
	want(t, "else it is in no zone", b.in("wgother", syn("10.7.0.9", "10.7.0.1", 22)), Reject)

	ppp := live()
	ppp[2].Device = "pppoe-wan"
	b = newBox(t, router.Line2410, base+section("rule", "src wan", "proto tcp", "dest_port 22", "target ACCEPT"), ppp...)
	want(t, "pppoe-wan", b.in("pppoe-wan", syn("203.0.113.9", "192.168.2.253", 22)), Accept)
	want(t, "its port is in no zone", b.in("eth1", syn("203.0.113.9", "192.168.2.253", 22)), Reject)

	down := live()
	down[4].Up = false
	b = newBox(t, router.Line2410, base, down...)
	want(t, "tunnel down: its zone matches nothing", b.in("wg0", syn("192.168.20.2", "192.168.20.1", 22)), Reject)
	down = live()
	down[1].Up, down[1].Device = false, "" // read: the base device counts
	b = newBox(t, router.Line2410, base, down...)
	want(t, "lan down: its device counts", b.in("br-lan", syn("192.168.1.100", "192.168.2.253", 22)), Accept)
}

func TestObserved24Releases(t *testing.T) {
	zone := func(name string) string { return base + section("zone", "name "+name, "network guest") }
	for line, w := range map[router.Line]struct{ refused, skipped bool }{
		router.Line2305: {false, false}, router.Line2410: {false, true}, router.Line2512: {false, true},
	} {
		b := newBox(t, line, zone("2nd"))
		if b.rs.Refused() != w.refused || hasWarning(b.warn, "skipped") != w.skipped {
			t.Errorf("%s: zone 2nd: refused %v, %v", line, b.rs.Refused(), b.warn)
		}
	}
	for _, name := range []string{"my zone", "übergang", "a$b"} {
		if b := newBox(t, router.Line2305, zone(name)); !b.rs.Refused() {
			t.Errorf("23.05: zone %q loads", name)
		}
		if b := newBox(t, router.Line2410, zone(name)); b.rs.Refused() || !hasWarning(b.warn, "skipped") {
			t.Errorf("24.10: zone %q: %v", name, b.warn)
		}
	}
	quoted := base + section("rule", `name say "hi"`, "src wan", "target ACCEPT")
	if b := newBox(t, router.Line2305, quoted); !b.rs.Refused() {
		t.Error(`23.05 loads a name with "`)
	}
	if b := newBox(t, router.Line2512, quoted); b.rs.Refused() {
		t.Error(`25.12 refuses a name with "`)
	}
	limit := set(base, "option masq '1'", "option masq '1'\n\toption log_limit '1/second'")
	if b := newBox(t, router.Line2305, limit); !hasWarning(b.warn, "unknown option 'log_limit'") {
		t.Errorf("23.05: %v", b.warn)
	}
	if b := newBox(t, router.Line2410, limit); len(b.warn) != 0 {
		t.Errorf("24.10: %v", b.warn)
	}
	ports := base + section("ipset", "name web", "family any", "match dest_port", "entry 80") +
		section("rule", "src wan", "proto tcp", "ipset web", "target ACCEPT")
	want(t, "25.12: a set of ports", newBox(t, router.Line2512, ports).in("wan", syn("203.0.113.9", "192.168.2.253", 80)), Accept)
	b := newBox(t, router.Line2410, ports)
	want(t, "24.10: no such set", b.in("wan", syn("203.0.113.9", "192.168.2.253", 80)), Reject)
	if !hasWarning(b.warn, "references unknown set 'web'") {
		t.Errorf("24.10: %v", b.warn)
	}
	// 25.12 ships wan with forward DROP: from one WAN device to another.
	two := set(shipped(router.Line2512), "list network 'wan6'", "list network 'wan6'\n\tlist device 'wwan'")
	want(t, "25.12: wan to wan", newBox(t, router.Line2512, two).in("wwan", syn("203.0.113.9", "203.0.113.80", 80)), Drop)
	two = set(shipped(router.Line2410), "list network 'wan6'", "list network 'wan6'\n\tlist device 'wwan'")
	want(t, "24.10: wan to wan", newBox(t, router.Line2410, two).in("wwan", syn("203.0.113.9", "203.0.113.80", 80)), Reject)
}
