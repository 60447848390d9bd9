package firewall

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// anyFile draws a firewall file: mostly sensible, sometimes not.
func anyFile(t *rapid.T) string {
	zone := rapid.SampledFrom([]string{"lan", "wan", "vpn", "*", "nosuch"})
	policy := rapid.SampledFrom([]string{"ACCEPT", "REJECT", "DROP", "acc", "bogus"})
	addr := rapid.SampledFrom([]string{"192.168.1.100", "192.168.1.0/24", "!192.168.20.0/24", "lan", "fd00:1::/64", "::100/::ffff", "0.0.0.100/0.0.0.255", "10.0.0.9-10.0.0.1", "1.2.3.4/77", "nosuch"})
	port := rapid.SampledFrom([]string{"22", "80-90", "!53", "99999", "51820"})
	proto := rapid.SampledFrom([]string{"tcp", "udp", "all", "icmp", "tcp udp", "esp", "nosuch", "!udp"})
	fam := rapid.SampledFrom([]string{"ipv4", "ipv6", "any", "x"})
	maybe := func(opts []string, key string, g *rapid.Generator[string]) []string {
		if rapid.IntRange(0, 3).Draw(t, key+"?") > 0 {
			return opts
		}
		return append(opts, key+" "+g.Draw(t, key))
	}
	file := base
	for range rapid.IntRange(0, 8).Draw(t, "sections") {
		typ := rapid.SampledFrom([]string{"rule", "forwarding", "redirect", "nat", "zone", "defaults", "ipset"}).Draw(t, "type")
		var o []string
		if rapid.IntRange(0, 9).Draw(t, "src?") > 1 {
			o = append(o, "src "+zone.Draw(t, "src"))
		}
		o = maybe(o, "dest", zone)
		o = maybe(o, "name", rapid.SampledFrom([]string{"a", "lan", `x"y`, "2nd", "guest"}))
		for _, k := range []string{"src_ip", "dest_ip", "src_dip", "snat_ip", "masq_src", "subnet"} {
			o = maybe(o, k, addr)
		}
		for _, k := range []string{"src_port", "dest_port", "src_dport", "snat_port"} {
			o = maybe(o, k, port)
		}
		o = maybe(o, "proto", proto)
		o = maybe(o, "family", fam)
		o = maybe(o, "icmp_type", rapid.SampledFrom([]string{"8", "echo-request", "3/1", "x"}))
		o = maybe(o, "target", rapid.SampledFrom([]string{"ACCEPT", "DROP", "REJECT", "SNAT", "DNAT", "MASQUERADE", "MARK", "NOTRACK", "x"}))
		o = maybe(o, "input", policy)
		o = maybe(o, "masq", rapid.SampledFrom([]string{"1", "0"}))
		file += section(typ, o...)
	}
	return file
}

func anyPacket(t *rapid.T) (string, Packet) {
	v4 := []string{"192.168.1.100", "192.168.1.1", "192.168.2.253", "192.168.2.9", "203.0.113.9", "192.168.20.2", "192.168.20.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"}
	v6 := []string{"fd00:1::100", "fd00:1::1", "2001:db8:9::9", "2001:db8:2::253", "fd00:20::2", "ff02::1", "::", "fe80::1"}
	pool := v4
	if rapid.Bool().Draw(t, "v6") {
		pool = v6
	}
	a := rapid.SampledFrom(pool)
	p := Packet{Src: ip(a.Draw(t, "from")), Dst: ip(a.Draw(t, "to")),
		Proto:   rapid.SampledFrom([]uint8{TCP, UDP, ICMP, ICMPv6, 50, 0, 132}).Draw(t, "proto"),
		SrcPort: rapid.SampledFrom([]uint16{0, 500, 40000}).Draw(t, "sport"), DstPort: rapid.SampledFrom([]uint16{22, 53, 80, 85, 51820}).Draw(t, "dport"),
		ICMPType: rapid.SampledFrom([]uint8{0, 1, 3, 8, 128, 129, 135}).Draw(t, "type"),
		SYN:      rapid.Bool().Draw(t, "syn"), ACK: rapid.Bool().Draw(t, "ack"), FIN: rapid.Bool().Draw(t, "fin"), RST: rapid.Bool().Draw(t, "rst")}
	if isError(&p) && rapid.Bool().Draw(t, "inner") {
		p.Inner = &Packet{Src: p.Dst, Dst: p.Src, Proto: UDP, SrcPort: 40000, DstPort: 53}
	}
	return rapid.SampledFrom([]string{"br-lan", "wan", "wg0", "lo", "", "odd0"}).Draw(t, "dev"), p
}

func TestVerdictsAreDeterministic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		line := rapid.SampledFrom(router.Lines()).Draw(rt, "line")
		file := anyFile(rt)
		one, two := newBox(t, line, file), newBox(t, line, file)
		if !reflect.DeepEqual(one.warn, two.warn) {
			rt.Fatal("warnings differ")
		}
		for range rapid.IntRange(1, 6).Draw(rt, "packets") {
			dev, p := anyPacket(rt)
			var a, b Verdict
			if dev == "" {
				a, b = one.out(p), two.out(p)
			} else {
				a, b = one.in(dev, p), two.in(dev, p)
			}
			if !reflect.DeepEqual(a, b) {
				rt.Fatalf("%+v\n%+v", a, b)
			}
			if a.Action == Reject != (a.With != NoAnswer) || a.Answer != nil && a.Action != Reject {
				rt.Fatalf("an answer without a rejection, or the reverse: %+v", a)
			}
			if a.Action != Accept && (a.Out != "" || a.Local) {
				rt.Fatalf("dead, but it goes on: %+v", a)
			}
			if len(a.Hits) == 0 {
				rt.Fatalf("nobody decided: %+v", a)
			}
		}
	})
}

// Replies pass in every configuration (openwrt-observed.md 8.19), and find the
// way back through whatever rewriting the first packet met.
func TestRepliesAlwaysPass(t *testing.T) {
	seen := 0
	rapid.Check(t, func(rt *rapid.T) {
		line := rapid.SampledFrom(router.Lines()).Draw(rt, "line")
		b := newBox(t, line, anyFile(rt))
		dev := rapid.SampledFrom([]string{"br-lan", "wan", "wg0"}).Draw(rt, "dev")
		from := map[string]string{"br-lan": "192.168.1.100", "wan": "203.0.113.9", "wg0": "192.168.20.2"}[dev]
		to := rapid.SampledFrom([]string{"192.168.1.101", "203.0.113.80", "192.168.2.253", "192.168.20.3", "192.168.1.1"}).Draw(rt, "to")
		p := rapid.SampledFrom([]Packet{syn(from, to, 80), udp(from, to, 53), ping(from, to)}).Draw(rt, "packet")
		v := b.in(dev, p)
		if v.Action != Accept || v.State != New {
			return
		}
		seen++
		b.rs, _ = Compile(line, nil, mustParse(t, anyFile(rt)), live())
		if b.rs.Refused() {
			return
		}
		var back Verdict
		if v.Local {
			back = b.out(answerTo(v.Packet))
		} else {
			back = b.in(v.Out, answerTo(v.Packet))
		}
		want := answerTo(p)
		if back.State == Untracked { // a NOTRACK rule of the new file
			return
		}
		if back.Action != Accept || !back.Reply || back.Packet != want {
			rt.Fatalf("first %+v\nreply %+v\nwant %+v", v, back, want)
		}
	})
	if seen == 0 {
		t.Error("no packet was ever let through: the property was not tested")
	}
}

func mustParse(t testing.TB, file string) *uci.Document {
	d, err := uci.Parse("firewall", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func FuzzCompile(f *testing.F) {
	f.Add(shipped(router.Line2410)+ours+natToLAN, uint8(3), uint16(51820))
	f.Add(base+recipeRedirect, uint8(0), uint16(80))
	f.Add(base+section("redirect", "src wan", "dest_ip lan", "reflection_zone *", "src_dip lan"), uint8(4), uint16(443))
	f.Add(section("ipset", "name s", "match src_net", "entry 10.0.0.0/8")+base+section("rule", "src *", "ipset s"), uint8(2), uint16(22))
	f.Add(section("ipset", "name s", "match src_ip src_port")+"\tlist entry '10.0.0.1 5'\n"+section("ipset", "name s", "match src_ip", "entry 10.0.0.2")+
		base+section("rule", "src *", "ipset s"), uint8(0), uint16(22)) // entries of two shapes under one name
	f.Add(base+section("rule", "src lan", "start_time 22:00", "stop_time 6:00", "weekdays mon tue", "start_date 2026-01-02T03:04:05"), uint8(1), uint16(22))
	f.Fuzz(func(t *testing.T, file string, line uint8, port uint16) {
		doc, err := uci.Parse("firewall", []byte(file))
		if err != nil {
			doc, _ = uci.ParseLoose("firewall", []byte(file))
		}
		lines := router.Lines()
		rs, _ := Compile(lines[int(line)%len(lines)], nil, doc, live())
		rs.NFT()
		tr := NewTracker()
		b := box{live: live()}
		for _, p := range []Packet{syn("203.0.113.9", "192.168.2.253", port), udp("fd00:20::2", "fd00:1::100", port), ping("192.168.1.100", "203.0.113.9")} {
			for _, dev := range []string{"wan", "wg0", "br-lan"} {
				rs.Handle(tr, time.Unix(0, 0), p, dev, b.route)
			}
			rs.Output(tr, time.Unix(0, 0), p, "wan")
		}
	})
}

func TestNotPackets(t *testing.T) {
	rs, _ := Compile(router.Line2410, nil, nil, nil)
	for _, p := range []Packet{{}, {Src: netip.MustParseAddr("1.2.3.4")}, {Src: ip("1.2.3.4"), Dst: ip("::1")}} {
		if v := rs.Handle(NewTracker(), time.Time{}, p, "wan", nil); v.Action != Drop {
			t.Errorf("%+v: %v", p, v.Action)
		}
	}
	if v := rs.Handle(NewTracker(), time.Time{}, syn("1.2.3.4", "5.6.7.8", 80), "wan", nil); v.With != NoRoute {
		t.Errorf("no way: %+v", v)
	}
}

func benchBox(b *testing.B, rules int) *box {
	file := shipped(router.Line2410) + ours + natToLAN
	for range rules {
		file += section("rule", "src vpn", "dest lan", "proto tcp", "src_ip 192.168.20.77", "dest_ip 192.168.1.0/24", "dest_port 1000-2000", "target DROP")
	}
	return newBox(b, router.Line2410, file)
}

func benchNew(b *testing.B, rules int) {
	x := benchBox(b, rules)
	p := syn("192.168.20.2", "192.168.1.100", 445)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.SrcPort = uint16(1024 + i%60000)
		if i%60000 == 0 {
			x.tr.Flush()
		}
		// The rules stand before the forwarding in the chain, as fw4 puts them.
		if v := x.in("wg0", p); v.Action != Accept {
			b.Fatal(v)
		}
	}
}

func BenchmarkFirstPacket100Rules(b *testing.B) { benchNew(b, 100) }
func BenchmarkFirstPacket200Rules(b *testing.B) { benchNew(b, 200) }

func BenchmarkEstablished200Rules(b *testing.B) {
	x := benchBox(b, 200)
	v := x.in("wg0", udp("192.168.20.2", "192.168.1.100", 445))
	back := answerTo(v.Packet)
	b.ReportAllocs()
	for b.Loop() {
		x.in("br-lan", back)
	}
}

func BenchmarkCompile200Rules(b *testing.B) {
	file := shipped(router.Line2410) + ours
	for range 200 {
		file += section("rule", "src vpn", "dest lan", "proto tcp", "src_ip 192.168.20.77", "dest_port 1000-2000", "target DROP")
	}
	doc := mustParse(b, file)
	for b.Loop() {
		Compile(router.Line2410, nil, doc, live())
	}
}
