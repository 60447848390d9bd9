package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// shipped is the firewall file of a fresh router of that line.
func shipped(line router.Line) string {
	input, wanForward := "REJECT", "REJECT"
	if line.Before(router.Line2305) {
		input = "ACCEPT"
	}
	if line.AtLeast(router.Line2512) {
		wanForward = "DROP"
	}
	return `
config defaults
	option syn_flood '1'
	option input '` + input + `'
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
	option forward '` + wanForward + `'
	option masq '1'
	option mtu_fix '1'

config forwarding
	option src 'lan'
	option dest 'wan'

config rule
	option name 'Allow-DHCP-Renew'
	option src 'wan'
	option proto 'udp'
	option dest_port '68'
	option target 'ACCEPT'
	option family 'ipv4'

config rule
	option name 'Allow-Ping'
	option src 'wan'
	option proto 'icmp'
	option icmp_type 'echo-request'
	option family 'ipv4'
	option target 'ACCEPT'

config rule
	option name 'Allow-ICMPv6-Input'
	option src 'wan'
	option proto 'icmp'
	list icmp_type 'echo-request'
	list icmp_type 'neighbour-solicitation'
	option limit '1000/sec'
	option family 'ipv6'
	option target 'ACCEPT'

config rule
	option name 'Allow-IPSec-ESP'
	option src 'wan'
	option dest 'lan'
	option proto 'esp'
	option target 'ACCEPT'

config rule
	option name 'Allow-ISAKMP'
	option src 'wan'
	option dest 'lan'
	option dest_port '500'
	option proto 'udp'
	option target 'ACCEPT'
`
}

const networkFile = `
config interface 'lan'
	option device 'br-lan'
	option proto 'static'

config interface 'wan'
	option device 'wan'
	option proto 'dhcp'

config interface 'wg0'
	option proto 'wireguard'
`

// live are the interfaces of the home that the tests are about: an OpenWrt box
// behind an ISP router, as in openwrt-observed.md section 2.
func live() []Iface {
	return []Iface{
		{Name: "loopback", Device: "lo", Up: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
		{Name: "lan", Device: "br-lan", Up: true, Addrs: prefixes("192.168.1.1/24", "fd00:1::1/64")},
		{Name: "wan", Device: "wan", Up: true, Addrs: prefixes("192.168.2.253/24"), Gateways: []netip.Addr{ip("192.168.2.1")}},
		{Name: "wan6", Device: "wan", Up: true, Addrs: prefixes("2001:db8:2::253/64")},
		{Name: "wg0", Device: "wg0", Up: true, Addrs: prefixes("192.168.20.1/24", "fd00:20::1/64")},
	}
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range s {
		out = append(out, netip.MustParsePrefix(x))
	}
	return out
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// box is a router under test.
type box struct {
	t    testing.TB
	rs   *Ruleset
	warn []Warning
	tr   *Tracker
	now  time.Time
	live []Iface
}

func newBox(t testing.TB, line router.Line, file string, ifaces ...Iface) *box {
	t.Helper()
	if ifaces == nil {
		ifaces = live()
	}
	doc, err := uci.Parse("firewall", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	net, err := uci.Parse("network", []byte(networkFile))
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, tr: NewTracker(), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), live: ifaces}
	b.rs, b.warn = Compile(line, net, doc, ifaces)
	return b
}

// route sends packets by the connected networks, the rest by wan.
func (b *box) route(dst netip.Addr) (string, bool) {
	for _, i := range b.live {
		for _, p := range i.Addrs {
			if p.Addr() == dst || dst.Is6() && p.Masked().Addr() == dst { // subnet-router anycast
				return "", true
			}
		}
	}
	for _, i := range b.live {
		for _, p := range i.Addrs {
			if p.Contains(dst) {
				return i.Device, false
			}
		}
	}
	return "wan", false
}

func (b *box) in(dev string, p Packet) Verdict {
	return b.rs.Handle(b.tr, b.now, p, dev, b.route)
}

func (b *box) out(p Packet) Verdict {
	dev, local := b.route(p.Dst)
	if local {
		dev = "lo"
	}
	return b.rs.Output(b.tr, b.now, p, dev)
}

func udp(src, dst string, dport uint16) Packet {
	return Packet{Src: ip(src), Dst: ip(dst), Proto: UDP, SrcPort: 40000, DstPort: dport}
}

func syn(src, dst string, dport uint16) Packet {
	return Packet{Src: ip(src), Dst: ip(dst), Proto: TCP, SrcPort: 40000, DstPort: dport, SYN: true}
}

func ping(src, dst string) Packet {
	p := Packet{Src: ip(src), Dst: ip(dst), Proto: ICMP, ICMPType: 8, ICMPID: 77}
	if p.Src.Is6() {
		p.Proto, p.ICMPType = ICMPv6, 128
	}
	return p
}

// answerTo is what the receiver of a packet sends back.
func answerTo(p Packet) Packet {
	a := p
	a.Src, a.Dst, a.SrcPort, a.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	switch {
	case p.Proto == ICMP:
		a.ICMPType = 0
	case p.Proto == ICMPv6:
		a.ICMPType = 129
	case p.Proto == TCP && p.SYN:
		a.ACK = true
	}
	return a
}

func (v Verdict) names() string {
	var s []string
	for _, h := range v.Hits {
		s = append(s, h.Name)
	}
	return strings.Join(s, " > ")
}

func want(t testing.TB, what string, v Verdict, a Action) {
	t.Helper()
	if v.Action != a {
		t.Errorf("%s: %s, want %s (%+v)", what, v.Action, a, v.Hits)
	}
}

func eachLine(t *testing.T, f func(t *testing.T, line router.Line)) {
	for _, l := range router.Lines() {
		t.Run(l.String(), func(t *testing.T) { f(t, l) })
	}
}

func TestShippedConfig(t *testing.T) {
	eachLine(t, func(t *testing.T, line router.Line) {
		b := newBox(t, line, shipped(line))
		if len(b.warn) != 0 {
			t.Errorf("warnings: %v", b.warn)
		}
		want(t, "lan to the router", b.in("br-lan", syn("192.168.1.100", "192.168.1.1", 22)), Accept)
		want(t, "wan to ssh", b.in("wan", syn("192.168.2.9", "192.168.2.253", 22)), Reject)
		want(t, "wan ping", b.in("wan", ping("192.168.2.9", "192.168.2.253")), Accept)
		want(t, "wan to wireguard", b.in("wan", udp("203.0.113.9", "192.168.2.253", 51820)), Reject)
		want(t, "ipv6 ping", b.in("wan", ping("2001:db8:9::9", "2001:db8:2::253")), Accept)
		fwd := Reject
		want(t, "wan to lan", b.in("wan", syn("192.168.2.9", "192.168.1.100", 80)), fwd)

		v := b.in("br-lan", syn("192.168.1.100", "203.0.113.80", 443))
		want(t, "lan to the internet", v, Accept)
		if v.Packet.Src != ip("192.168.2.253") || v.Out != "wan" {
			t.Errorf("leaves as %v by %q, want masqueraded by wan", v.Packet.Src, v.Out)
		}
		if got := v.names(); got != "lan > lan → wan > wan" {
			t.Errorf("decided by %q", got)
		}
		back := b.in("wan", answerTo(v.Packet))
		want(t, "answer", back, Accept)
		if back.Packet.Dst != ip("192.168.1.100") || !back.Reply || back.Out != "br-lan" {
			t.Errorf("answer goes to %v by %s", back.Packet.Dst, back.Out)
		}
	})
}

func hasWarning(ws []Warning, part string) bool {
	return slices.ContainsFunc(ws, func(w Warning) bool { return strings.Contains(w.Text, part) })
}
