//go:build linux

package kernel_test

import (
	"encoding/binary"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// The differential test sees what it is there for: each of these slips in the
// printed ruleset is noticed, and what is left of the case is small.
func TestSlipsAreSeen(t *testing.T) {
	r := newRig(t)
	for i, slip := range []struct{ name, pattern, by string }{
		{"drops what it should refuse", `jump refuse`, `drop`},
		{"accepts what it should drop", `(?m) drop( comment .*)?$`, ` accept`},
		{"forgets known connections", `ct state established accept`, `counter`},
		{"forgets notices", `ct state related accept`, `counter`},
		{"forgets to hide addresses", ` masquerade`, ` accept`},
		{"redirects to another port", `(dnat ip to [0-9.]+):80 `, `${1}:81 `},
		{"forgets what was redirected", `ct status dnat counter accept`, `counter`},
		{"mixes up source and destination", `ip saddr`, `ip daddr`},
		{"mixes up the ports", `th dport`, `th sport`},
		{"forgets IPv6", `meta nfproto ipv6`, `meta nfproto ipv6 meta mark 0x77`},
		{"forgets the device", `iifname "wan"`, `iifname "nosuch"`},
		{"lets pass more than the limit", `burst (1|2|3) packets`, `burst 1000 packets`},
		{"forgets who must not be tracked", `counter notrack`, `counter`},
		{"answers with the wrong code", `icmpx type port-unreachable`, `icmpx type host-unreachable`},
		{"sets another class", `dscp set 0x(08|2e)`, `dscp set 0x0a`},
		{"takes any sender on the link", `ether saddr (!= )?(\{[^}]*\}|\S+)`, `meta iiftype ether`},
		{"forgets to drop stray packets", `ct state invalid (.*)drop`, `ct state invalid ${1}accept`},
		{"takes the set for its complement", `== @set`, `!= @set`},
	} {
		t.Run(slip.name, func(t *testing.T) {
			re := regexp.MustCompile(slip.pattern)
			spoil := func(s string) string { return re.ReplaceAllString(s, slip.by) }
			for n := range 5000 {
				d := drawing(uint64(7000 + n))
				line := router.Lines()[n%len(router.Lines())]
				sections := d.config(14)
				if c := r.compile(t, line, sections); spoil(c.text) == c.text {
					continue
				}
				c := r.load(t, line, sections, spoil)
				if c.bad != "" {
					t.Fatalf("cannot be loaded: %s", c.bad)
				}
				diff := ""
				for n := 0; n < 15 && diff == ""; n++ {
					diff = c.talk(d)
				}
				if diff == "" {
					continue
				}
				if i%6 == 0 || need.Long() {
					r.wantSmall(t, line, c, spoil)
				}
				return
			}
			t.Error("not noticed")
		})
	}
}

// wantSmall shrinks a case and fails when much is left of it.
func (r *rig) wantSmall(t *testing.T, line router.Line, c *contest, spoil func(string) string) {
	left, events := shrink(c.sections, c.events, func(s []uci.Section, e []event) bool {
		_, diff := r.replay(t, line, s, e, spoil)
		return diff != ""
	})
	if len(left) > 6 || len(events) > 6 {
		t.Errorf("%d sections and %d packets are left of %d and %d:\n%s", len(left), len(events), len(c.sections), len(c.events), uci.Print(left))
	}
}

// Marks meet too rarely by chance: that one rule sees what another has set.
func TestMarkSlipIsSeen(t *testing.T) {
	r := newRig(t)
	doc, err := uci.Parse("firewall", []byte("config defaults\n\toption forward 'ACCEPT'\n\nconfig zone\n\toption name 'lan'\n\toption network 'lan'\n\toption forward 'ACCEPT'\n"+
		"\nconfig rule\n\toption src 'lan'\n\toption dest '*'\n\toption proto 'all'\n\toption target 'MARK'\n\toption set_mark '0x5/0xf'\n"+
		"\nconfig rule\n\toption src 'lan'\n\toption dest '*'\n\toption proto 'udp'\n\toption mark '0x5'\n\toption target 'DROP'\n"))
	must(t, err)
	for _, spoil := range []func(string) string{nil, func(s string) string { return strings.ReplaceAll(s, "meta mark set", "ct mark set") }} {
		d, diff := drawing(1), ""
		c := r.load(t, router.Line2410, doc.Sections(), spoil)
		for n := 0; n < 200 && diff == ""; n++ {
			diff = c.talk(d)
		}
		if c.bad != "" || (diff == "") != (spoil == nil) {
			t.Errorf("spoiled %v: %s %s", spoil != nil, c.bad, diff)
		}
	}
}

// `mtu_fix` fits the size of segments to the tunnel, both ways.
func TestSegmentSize(t *testing.T) {
	r := newRig(t)
	const file = "config defaults\n\toption forward 'ACCEPT'\n\nconfig zone\n\toption name 'vpn'\n\toption network 'wg0'\n\toption forward 'ACCEPT'\n"
	for mtuFix, want := range map[string]uint16{"0": 1460, "1": 1380} {
		doc, err := uci.Parse("firewall", []byte(file+"\toption mtu_fix '"+mtuFix+"'\n"))
		must(t, err)
		r.load(t, router.Line2410, doc.Sections(), nil)
		must(t, r.host.SetMTU("wg0", 1420))
		for dev, p := range map[string]firewall.Packet{
			"wg0":    {Src: addr("192.168.1.100"), Dst: addr("192.168.20.2")},
			"br-lan": {Src: addr("192.168.20.2"), Dst: addr("192.168.1.100")},
		} {
			p.Proto, p.SYN, p.SrcPort, p.DstPort = firewall.TCP, true, 40000, 80
			in := map[string]string{"wg0": "br-lan", "br-lan": "wg0"}[dev]
			r.drain()
			must(t, r.host.Forget())
			must(t, r.put(in, p, 2, 4, 1460>>8, 1460&0xFF))
			buf := make([]byte, 200)
			for {
				n, err := unix.Read(r.ports[dev].fd, buf)
				if err != nil {
					t.Fatalf("nothing came out of %s", dev)
				}
				b := buf[:n]
				if dev != "wg0" {
					b = b[14:]
				}
				if q, ok := decode(b); !ok || q.Proto != firewall.TCP {
					continue
				}
				if got := binary.BigEndian.Uint16(b[42:]); got != want {
					t.Errorf("mtu_fix %s, to %s: segments of %d, want %d", mtuFix, dev, got, want)
				}
				break
			}
		}
	}
}
