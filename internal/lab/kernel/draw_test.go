//go:build linux

package kernel_test

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/uci"
)

// draw makes configurations and packets at random: mostly sensible, sometimes not.
type draw struct {
	*rand.Rand
	port uint16 // of the next packet, so that no two are of one connection
}

func drawing(seed uint64) *draw {
	return &draw{Rand: rand.New(rand.NewPCG(seed, 0x6877)), port: 20000}
}

func (d *draw) of(s ...string) string { return s[d.IntN(len(s))] }
func (d *draw) in(percent int) bool   { return d.IntN(100) < percent }

func (d *draw) addr() string {
	s := d.of("192.168.1.100", "192.168.1.101", "192.168.1.0/24", "192.168.20.2", "192.168.20.0/24", "192.168.2.0/24", "192.168.2.9",
		"10.5.0.7", "10.5.0.0/16", "203.0.113.9", "203.0.113.0/24", "192.168.1.1", "192.168.2.253", "192.168.1.100-192.168.1.110",
		"0.0.0.100/0.0.0.255", "192.168.1.7/25", "0.0.0.0/0")
	if d.in(25) {
		s = d.of("fd00:1::100", "fd00:1::/64", "fd00:20::2", "fd00:20::/64", "2001:db8:9::9", "2001:db8:9::/48", "::100/::ffff",
			"fd00:5::7", "2001:db8:2::253", "fd00:1::100-fd00:1::1ff", "::/0")
	}
	if d.in(10) {
		s = d.of("lan", "wan", "wg0", "guest")
	}
	if d.in(15) {
		s = "!" + s
	}
	return s
}

func (d *draw) addrs() string {
	if d.in(30) {
		return d.addr() + " " + d.addr()
	}
	return d.addr()
}

func (d *draw) onePort() string {
	s := d.of("22", "80", "443", "53", "51820", "80-90", "1000:2000", "500", "0-65535")
	if d.in(12) {
		s = "!" + s
	}
	return s
}

func (d *draw) somePorts() string {
	if d.in(25) {
		return d.onePort() + " " + d.onePort()
	}
	return d.onePort()
}

func (d *draw) proto() string {
	return d.of("tcp", "udp", "tcpudp", "tcp udp", "icmp", "all", "any", "esp", "icmpv6", "6", "!udp", "tcp icmp")
}

func (d *draw) zone() string {
	if d.in(2) {
		return "nozone"
	}
	return d.of("lan", "wan", "vpn", "guest", "lan", "wan")
}

func (d *draw) anyZone() string {
	if d.in(13) {
		return "*"
	}
	return d.zone()
}

func (d *draw) policy() string { return d.of("ACCEPT", "REJECT", "DROP", "accept", "rej") }
func (d *draw) family() string { return d.of("ipv4", "ipv6", "any", "inet6") }

// rates go back to full too slowly to do so during a test.
func (d *draw) rate() string { return d.of("1/hour", "2/day", "3/hour", "5/h", "100000/sec") }

// A writer fills one section.
type writer struct {
	d *draw
	s *uci.Section
}

func (w writer) set(key, value string) { w.s.Options = append(w.s.Options, uci.Opt(key, value)) }

func (w writer) maybe(percent int, key string, value func() string) {
	if w.d.in(percent) {
		w.set(key, value())
	}
}

func (w writer) some(percent int, key string, values ...string) {
	w.maybe(percent, key, func() string { return w.d.of(values...) })
}

// config draws a firewall file with up to n sections behind the zones.
func (d *draw) config(n int) []uci.Section {
	var out []uci.Section
	section := func(typ string) writer {
		out = append(out, uci.Section{Type: typ, Anonymous: true})
		return writer{d, &out[len(out)-1]}
	}
	if d.in(95) {
		d.defaults(section("defaults"))
	}
	for _, i := range d.Perm(4) {
		if !d.in(6) {
			d.zoneSection(section("zone"), i)
		}
	}
	for range 2 {
		if d.in(25) {
			d.setSection(section("ipset"))
		}
	}
	for range d.IntN(n) {
		switch d.IntN(10) {
		case 0, 1, 2, 3, 4:
			d.rule(section("rule"))
		case 5, 6:
			w := section("forwarding")
			w.maybe(99, "src", d.anyZone)
			w.maybe(97, "dest", d.anyZone)
			w.maybe(8, "family", d.family)
			w.some(3, "enabled", "off")
		case 7, 8:
			d.redirect(section("redirect"))
		case 9:
			d.natSection(section("nat"))
		}
	}
	return out
}

func (d *draw) defaults(w writer) {
	w.maybe(90, "input", d.policy)
	w.maybe(90, "output", d.policy)
	w.maybe(90, "forward", d.policy)
	w.some(15, "drop_invalid", "1")
	w.some(8, "tcp_reject_code", "admin-prohibited", "tcp-reset", "host-unreachable")
	w.some(8, "any_reject_code", "admin-prohibited", "no-route", "host-unreachable", "tcp-reset")
	if d.in(15) {
		w.set(d.of("syn_flood", "synflood_protect"), d.of("1", "1", "0"))
		w.some(60, "synflood_rate", "1/hour", "2/day", "10/day")
		w.some(70, "synflood_burst", "1", "2", "4")
	}
}

func (d *draw) zoneSection(w writer, i int) {
	name := []string{"lan", "wan", "vpn", "guest"}[i]
	network := []string{"lan", "wan wan6", "wg0", "guest"}[i]
	w.set("name", name)
	switch {
	case d.in(85):
		w.set("network", network)
	case d.in(50):
		w.set("device", []string{"br-lan", "wan", "wg+", d.of("guest", "!wan", "g+ br-lan")}[i])
	default:
		w.set("subnet", []string{"192.168.1.0/24", "!10.0.0.0/8", "192.168.20.0/24 fd00:20::/64", "10.5.0.0/16"}[i])
		w.some(50, "network", network)
	}
	w.maybe(85, "input", d.policy)
	w.maybe(85, "output", d.policy)
	w.maybe(85, "forward", d.policy)
	w.some([]int{10, 80, 20, 10}[i], "masq", "1")
	w.some(12, "masq6", "1")
	w.maybe(8, "masq_src", d.addr)
	w.maybe(8, "masq_dest", d.addr)
	w.some(8, "masq_allow_invalid", "1")
	w.some(20, "mtu_fix", "1")
	w.maybe(8, "family", d.family)
	w.some(3, "enabled", "0", "no", "maybe")
	w.some(3, "nonsense", "1")
}

func (d *draw) rule(w writer) {
	w.some(40, "name", "Allow one", "Block-x", "y")
	w.maybe(85, "src", d.anyZone)
	w.maybe(45, "dest", d.anyZone)
	w.maybe(85, "proto", d.proto)
	w.maybe(30, "src_ip", d.addr)
	w.maybe(35, "dest_ip", d.addrs)
	w.some(8, "src_mac", "02:00:00:00:00:01", "02:00:00:00:00:02 02:00:00:00:00:01", "!02:00:00:00:00:01")
	w.maybe(10, "src_port", d.somePorts)
	w.maybe(45, "dest_port", d.somePorts)
	w.some(20, "icmp_type", "echo-request", "echo-reply", "destination-unreachable", "8", "128", "3/3", "port-unreachable",
		"source-quench", "packet-too-big", "echo-request destination-unreachable", "time-exceeded")
	w.maybe(20, "family", d.family)
	target := d.of("ACCEPT", "REJECT", "DROP", "acc", "ACCEPT", "ACCEPT", "DROP", "MARK", "MARK", "DSCP", "NOTRACK", "")
	if target != "" {
		w.set("target", target)
	}
	switch target {
	case "MARK":
		w.some(95, "set_mark", "0x5", "0x5", "3", "0x10/0xf0")
	case "DSCP":
		w.some(95, "set_dscp", "CS1", "EF", "0")
	}
	w.some(9, "mark", "0x5", "0x5", "!3", "0x10/0xf0")
	w.some(5, "device", "br-lan", "wan", "wg0")
	w.some(5, "direction", "in", "out")
	w.some(3, "enabled", "0")
	w.some(4, "dscp", "CS1", "!EF", "0")
	w.some(6, "ipset", "s1", "s1", "!s1 dst", "s2", "s2", "gone")
	w.some(2, "dest_port", "99999")
	// Nor for what changes marks of the router's own answers.
	if d.in(10) && target != "MARK" && target != "DSCP" {
		w.set("limit", d.rate())
		w.some(60, "limit_burst", "1", "2", "3", "0")
	}
	d.clock(w)
}

// clock draws times that do not change during a test.
func (d *draw) clock(w writer) {
	if !d.in(6) {
		return
	}
	at := func() string {
		now := time.Now().UTC()
		t := now.Add(time.Duration(d.IntN(22*60)+60) * time.Minute)
		return t.Format("15:04:05")
	}
	w.maybe(60, "start_time", at)
	w.maybe(60, "stop_time", at)
	w.some(40, "weekdays", "Mon Tue Wed", "!Sun", "sat sun", "Thursday Friday")
	w.some(20, "start_date", "2020-01-01", "2037-01-01T12:00")
	w.some(20, "stop_date", "2020-01-01", "2037-01-01T12:00")
}

func (d *draw) redirect(w writer) {
	w.some(50, "name", "web", "wg")
	if d.in(80) {
		w.some(99, "src", "wan", "wan", "lan", "vpn")
		w.maybe(60, "dest", d.zone)
		w.maybe(85, "proto", d.proto)
		if d.in(85) {
			w.maybe(100, "src_dport", d.onePort)
			w.some(50, "dest_port", "80", "8080", "51820", "8000-8010")
		}
		w.some(75, "dest_ip", "192.168.1.100", "192.168.20.1", "192.168.1.1", "fd00:1::100", "10.5.0.7", "192.168.2.253", "lan")
		w.maybe(15, "src_dip", d.addr)
		w.some(15, "reflection", "0")
		w.some(15, "reflection_src", "external", "internal")
		w.maybe(30, "reflection_zone", d.zone)
		w.some(20, "target", "DNAT", "dnat", "ACCEPT")
	} else {
		w.set("target", "SNAT")
		w.maybe(95, "dest", d.zone)
		w.some(95, "src_dip", "192.168.2.77", "192.168.1.1", "fd00:1::1", "lan")
		w.maybe(50, "proto", d.proto)
		w.maybe(40, "dest_port", d.onePort)
	}
	w.maybe(20, "src_ip", d.addr)
	w.maybe(15, "family", d.family)
	if target, _ := w.s.Get("target"); target != "SNAT" && !reflects(w.s) { // see natSection
		w.some(8, "limit", "1/hour", "2/day")
	}
	w.some(3, "enabled", "0")
}

// reflects reports whether a redirect may bring a rule that rewrites sources.
func reflects(s *uci.Section) bool {
	v, said := s.Get("reflection")
	return !said || v != "0"
}

func (d *draw) natSection(w writer) {
	w.maybe(85, "src", d.anyZone)
	w.some(60, "target", "SNAT", "MASQUERADE", "ACCEPT")
	w.maybe(50, "src_ip", d.addr)
	w.maybe(40, "dest_ip", d.addr)
	w.maybe(40, "proto", d.proto)
	w.some(25, "snat_ip", "192.168.2.88", "fd00:1::88", "192.168.1.1")
	w.maybe(15, "dest_port", d.onePort)
	w.some(8, "snat_port", "30000-30100")
	w.maybe(15, "family", d.family)
	w.some(8, "device", "wan", "br-lan")
	// No limit here: the kernel takes a turn for its own resets, too, which the
	// model does not follow (package firewall says so).
}

func (d *draw) setSection(w writer) {
	w.some(100, "name", "s1", "s2")
	w.maybe(20, "family", d.family)
	match := d.of("src_ip", "src_net", "dest_ip dest_port", "src_port", "dest_net dest_port")
	w.set("match", match)
	entries := []string{"192.168.1.100", "203.0.113.9"}
	switch match {
	case "src_net":
		entries = []string{"192.168.1.0/24", "192.168.1.7", "203.0.113.0/25"}
	case "dest_ip dest_port":
		entries = []string{"192.168.1.100 80", "192.168.1.100 22"}
	case "dest_net dest_port":
		entries = []string{"192.168.1.0/24 80", "10.0.0.0/8 22"}
	case "src_port":
		entries = []string{"80", strconv.Itoa(1000 + d.IntN(1000))}
	}
	w.s.Options = append(w.s.Options, uci.List("entry", entries...))
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var senders = map[string][2][]string{
	"br-lan": {{"192.168.1.100", "192.168.1.101", "192.168.1.200"}, {"fd00:1::100", "fd00:1::101"}},
	"wan":    {{"192.168.2.9", "203.0.113.9", "198.51.100.4"}, {"2001:db8:9::9", "2001:db8:2::9"}},
	"wg0":    {{"192.168.20.2", "192.168.20.3"}, {"fd00:20::2"}},
	"guest":  {{"10.5.0.7", "10.5.0.8"}, {"fd00:5::7"}},
	"odd0":   {{"10.9.0.9"}, {"fd00:9::9"}},
}

var receivers = [2][]string{
	{"192.168.1.1", "192.168.2.253", "192.168.20.1", "192.168.1.100", "192.168.1.101", "192.168.20.2", "203.0.113.9", "192.168.2.9",
		"10.5.0.7", "10.9.0.9", "192.168.2.253", "10.5.0.1"},
	{"fd00:1::1", "2001:db8:2::253", "fd00:20::1", "fd00:1::100", "fd00:20::2", "2001:db8:9::9", "fd00:5::7"},
}

// packet draws a first packet and where it comes from: a device, or "" for the
// router itself.
func (d *draw) packet() (string, firewall.Packet) {
	d.port++
	six := 0
	if d.in(30) {
		six = 1
	}
	dev := d.of("br-lan", "wan", "wg0", "guest", "odd0")
	p := firewall.Packet{Src: addr(d.of(senders[dev][six]...)), Dst: addr(d.of(receivers[six]...))}
	p.SrcPort, p.DstPort = d.port, []uint16{22, 80, 85, 443, 53, 51820, 1500, 500, 8080, 8005}[d.IntN(10)]
	if d.in(8) {
		p.SrcPort = uint16(1000 + d.IntN(1000))
	}
	switch d.IntN(10) {
	case 0, 1, 2:
		p.Proto = firewall.UDP
	case 3, 4, 5:
		p.Proto, p.SYN = firewall.TCP, true
	case 6:
		p.Proto = firewall.TCP
		switch d.IntN(5) {
		case 0:
			p.ACK = true
		case 1:
			p.SYN, p.ACK = true, true
		case 2:
			p.FIN, p.ACK = true, true
		case 3:
			p.RST = true
		case 4: // what no TCP sends
			p.SYN, p.ACK, p.FIN, p.RST = d.in(50), d.in(50), d.in(50), d.in(50)
			if !p.SYN && !p.ACK && !p.FIN && !p.RST {
				p.ACK = true // none at all means data to the model
			}
		}
	case 7, 8:
		p = d.icmp(p)
	case 9:
		p.Proto, p.SrcPort, p.DstPort = 50, 0, 0
	}
	if d.in(5) {
		p.DSCP = []uint8{8, 0x2e}[d.IntN(2)]
	}
	if d.in(15) && !isError(p) {
		if own, ok := speaker(p.Dst); ok {
			p.Src = own
			return "", p
		}
	}
	if dev != "wg0" {
		p.MAC = [6]byte{2, 0, 0, 0, 0, byte(1 + d.IntN(3))}
	}
	return dev, p
}

func (d *draw) icmp(p firewall.Packet) firewall.Packet {
	out := firewall.Packet{Src: p.Src, Dst: p.Dst, Proto: firewall.ICMP, ICMPID: p.SrcPort}
	if p.Src.Is6() {
		out.Proto = firewall.ICMPv6
		out.ICMPType = []uint8{128, 128, 128, 129, 1, 2}[d.IntN(6)]
	} else {
		out.ICMPType = []uint8{8, 8, 8, 0, 13, 3, 11}[d.IntN(7)]
	}
	if isError(out) {
		in := firewall.Packet{Src: p.Dst, Dst: p.Src, Proto: firewall.UDP, SrcPort: p.SrcPort, DstPort: 53}
		out.Inner, out.ICMPID = &in, 0
		if out.ICMPType == 3 {
			out.ICMPCode = 3
		}
	}
	return out
}

// speaker is the address that the router sends from; false when it would talk to
// itself.
func speaker(dst netip.Addr) (netip.Addr, bool) {
	dev, local := route(dst)
	if local {
		return netip.Addr{}, false
	}
	for _, i := range live() {
		for _, a := range i.Addrs {
			if i.Device == dev && a.Addr().Is4() == dst.Is4() {
				return a.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}
