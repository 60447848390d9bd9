package adopt_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

const shipped = `
config defaults
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
%s	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option masq '1'

config forwarding
	option src 'lan'
	option dest 'wan'

# the household's own
config rule
	option name 'mine'
	option src 'wan'
	option proto 'tcp'
	option dest_port '8080'
	option target 'ACCEPT'
`

func testKey(n byte) key.Private {
	k, _ := key.NewPrivate(bytes.NewReader(bytes.Repeat([]byte{n + 1}, key.Size)))
	return k
}

// made is a gateway as somebody might make it by hand.
type made struct {
	iface, zone string
	port        int
	devices     int
	shared      bool // in zone lan
	forwards    []string
	opens       string // "rule", "redirect", "both"
	nat         bool
	named       bool
	extras      []string
	psk         bool
	style       string // of the addresses
}

func draw(t *rapid.T) made {
	m := made{
		iface:   rapid.SampledFrom([]string{"wg0", "WG0", "vpn", "home_vpn"}).Draw(t, "iface"),
		zone:    rapid.SampledFrom([]string{"VPN", "vpn", "wg", "road"}).Draw(t, "zone"),
		port:    rapid.SampledFrom([]int{51820, 51902, 1194}).Draw(t, "port"),
		devices: rapid.IntRange(1, 4).Draw(t, "devices"),
		shared:  rapid.Bool().Draw(t, "shared"),
		opens:   rapid.SampledFrom([]string{"rule", "redirect", "both"}).Draw(t, "opens"),
		nat:     rapid.Bool().Draw(t, "nat"),
		named:   rapid.Bool().Draw(t, "named"),
		psk:     rapid.Bool().Draw(t, "psk"),
		style:   rapid.SampledFrom([]string{"list", "option"}).Draw(t, "style"),
	}
	for _, f := range []string{"lan", "wan", "back"} {
		if rapid.Bool().Draw(t, "forward "+f) {
			m.forwards = append(m.forwards, f)
		}
	}
	for _, e := range []string{"ssh", "masq", "accept", "stranger"} {
		if rapid.Bool().Draw(t, "extra "+e) {
			m.extras = append(m.extras, e)
		}
	}
	return m
}

func (m made) snapshot(t interface{ Fatal(...any) }) *router.Snapshot {
	var network, wall strings.Builder
	section := func(b *strings.Builder, typ, name string, lines ...string) {
		if !m.named || typ == "wireguard_"+m.iface && len(name)%2 == 0 {
			name = ""
		}
		fmt.Fprintf(b, "\nconfig %s %s\n", typ, name)
		for _, l := range lines {
			fmt.Fprintf(b, "\t%s\n", l)
		}
	}
	network.WriteString("config interface 'lan'\n\toption proto 'static'\n\toption device 'br-lan'\n\toption ipaddr '192.168.1.1'\n\toption netmask '255.255.255.0'\n\nconfig interface 'wan'\n\toption proto 'dhcp'\n\toption device 'wan'\n")
	fmt.Fprintf(&network, "\nconfig interface '%s'\n\toption proto 'wireguard'\n\toption private_key '%s'\n\toption listen_port '%d'\n\t%s addresses '10.77.0.1/24'\n", m.iface, testKey(0).Reveal(), m.port, m.style)
	t2 := &router.Tunnel{Interface: m.iface, PublicKey: testKey(0).Public(), Private: router.Digest(testKey(0).Reveal()), ListenPort: uint16(m.port)}
	for i := range m.devices {
		k := testKey(byte(i + 1))
		at := fmt.Sprintf("10.77.0.%d", i+2)
		lines := []string{"option public_key '" + k.Public().String() + "'", "list allowed_ips '" + at + "/32'"}
		p := router.Peer{PublicKey: k.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix(at + "/32")}}
		if m.psk {
			psk := testKey(byte(100 + i)).Reveal()
			lines = append(lines, "option preshared_key '"+psk+"'")
			p.Preshared = router.Digest(psk)
		}
		section(&network, "wireguard_"+m.iface, fmt.Sprintf("dev%d", i), lines...)
		t2.Peers = append(t2.Peers, p)
	}
	if slices.Contains(m.extras, "stranger") {
		network.WriteString("\nconfig route\n\toption interface 'lan'\n\toption target '10.1.0.0/16'\n\toption gateway '192.168.1.2'\n")
	}
	member := ""
	if m.shared {
		member = "\tlist network '" + m.iface + "'\n"
	}
	fmt.Fprintf(&wall, shipped, member)
	if !m.shared {
		m.ownZone(&wall, section)
	}
	m.openings(&wall, section)
	if m.nat {
		section(&wall, "nat", "hide", "option src 'lan'", "option src_ip '10.77.0.0/24'", "option target 'MASQUERADE'")
	}
	s := &router.Snapshot{
		Board: router.Board{Model: "test", Name: "test", Fw4: true, Release: router.Release{Distribution: "OpenWrt", Version: "24.10.7", Line: router.Line2410}},
		Interfaces: []router.Interface{
			{Name: "lan", Device: "br-lan", Proto: "static", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}},
			{Name: "wan", Device: "wan", Proto: "dhcp", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.2.253/24")}, Gateways: []netip.Addr{netip.MustParseAddr("192.168.2.254")}},
			{Name: m.iface, Device: m.iface, Proto: "wireguard", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}},
		},
		Installed: []router.Package{{Name: "wireguard-tools"}}, Handlers: []string{"wireguard"}, RootHash: true,
		Tunnels: map[string]*router.Tunnel{m.iface: t2}, Space: router.Space{OverlayKB: 9000},
		Configs: map[string]*uci.Document{}, Hashes: map[string]string{},
	}
	for name, text := range map[string]string{"network": network.String(), "firewall": wall.String(), "dhcp": "", "dropbear": ""} {
		d, err := uci.Parse(name, []byte(text))
		if err != nil {
			t.Fatal(name, err, text)
		}
		s.Configs[name] = d
	}
	return s
}

type sectionWriter func(b *strings.Builder, typ, name string, lines ...string)

func (m made) ownZone(wall *strings.Builder, section sectionWriter) {
	input := "REJECT"
	if slices.Contains(m.extras, "accept") {
		input = "ACCEPT"
	}
	lines := []string{"option name '" + m.zone + "'", "list network '" + m.iface + "'", "option input '" + input + "'", "option output 'ACCEPT'", "option forward 'REJECT'"}
	if slices.Contains(m.extras, "masq") {
		lines = append(lines, "option masq '1'")
	}
	section(wall, "zone", "z", lines...)
	for _, f := range m.forwards {
		src, dest := m.zone, f
		if f == "back" {
			src, dest = "lan", m.zone
		}
		section(wall, "forwarding", "f_"+f, "option src '"+src+"'", "option dest '"+dest+"'")
	}
	if slices.Contains(m.extras, "ssh") {
		section(wall, "rule", "ssh", "option src '"+m.zone+"'", "option proto 'tcp'", "option dest_port '22'", "option target 'ACCEPT'")
	}
}

func (m made) openings(wall *strings.Builder, section sectionWriter) {
	if m.opens != "redirect" {
		section(wall, "rule", "open", "option src 'wan'", "option proto 'udp'", fmt.Sprintf("option dest_port '%d'", m.port), "option target 'ACCEPT'")
	}
	if m.opens != "rule" {
		dest := m.zone
		if m.shared {
			dest = "lan"
		}
		section(wall, "redirect", "fwd", "option src 'wan'", "option dest '"+dest+"'", "option proto 'udp'", fmt.Sprintf("option src_dport '%d'", m.port),
			"option dest_ip '10.77.0.1'", fmt.Sprintf("option dest_port '%d'", m.port), "option target 'DNAT'")
	}
}

// Whatever somebody made by hand: what devices can do they can do after the move,
// as far as home.toml has words for it; nobody is told anything new, nothing of
// others changes, no secret shows, and a second plan finds nothing to do.
func TestMoveKeepsWhatWorks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := draw(t)
		s := m.snapshot(t)
		got, err := adopt.Read(bytes.NewReader(bytes.Repeat([]byte{7}, 4096)), "192.168.1.1", s, adopt.Found{}, m.iface)
		if err != nil || len(got.Stays) > 0 {
			t.Fatalf("%+v\n%v %v", m, err, got.Stays)
		}
		if len(got.Home.Peers) != m.devices {
			t.Fatalf("%d devices, want %d", len(got.Home.Peers), m.devices)
		}
		p, _ := plan.For(got.Home, s, blueprint.Access{})
		if len(p.Blocked) > 0 {
			t.Fatalf("%+v\nblocked: %v", m, p.Blocked[0])
		}
		for _, st := range p.Steps {
			if st.Risk != plan.NoRisk || st.Do == plan.PeerAdd || st.Do == plan.PeerChange || st.Do == plan.PeerRemove {
				t.Fatalf("%+v\nthe move costs something: %s %s", m, st.ID, st.Risk)
			}
		}
		if shown := fmt.Sprintf("%+v %+v", got, p); strings.Contains(shown, testKey(0).Reveal()) || m.psk && strings.Contains(shown, testKey(100).Reveal()) {
			t.Fatal("a secret shows")
		}
		after := *s
		docs, err := p.Edit(s.Configs, plan.Secrets{})
		if err != nil {
			t.Fatalf("%+v\n%v", m, err)
		}
		after.Configs = maps.Clone(s.Configs)
		maps.Copy(after.Configs, docs)
		again, _ := plan.For(got.Home, &after, blueprint.Access{})
		for _, st := range again.Steps {
			if st.Do != plan.Record {
				t.Fatalf("%+v\nthe second plan still does: %s", m, st.ID)
			}
		}
		m.kept(t, s, &after)
		for _, sec := range after.Config("firewall").Sections() {
			if name, _ := sec.Get("name"); sec.Type == "redirect" || sec.Type == "zone" && name == m.zone && sec.Name != "hw_zone" {
				t.Fatalf("%+v\nsuperseded and still there: %s", m, uci.Print([]uci.Section{sec}))
			}
		}
		was, is := adopt.Ask(s, m.iface), adopt.Ask(&after, m.iface)
		for _, w := range []string{"calls over IPv4 come in", "devices reach the home LAN", "devices reach the uplink LAN", "devices reach the internet through home"} {
			if was[w] != is[w] {
				t.Fatalf("%+v\n%s: before %v, after %v", m, w, was[w], is[w])
			}
		}
		if !is["calls over IPv6 come in"] || is["devices reach each other"] || !m.shared && was["the home LAN starts connections to devices"] != is["the home LAN starts connections to devices"] {
			t.Fatalf("%+v\n%v", m, is)
		}
	})
}

// kept: the household's own sections are as they were, in their order.
func (m made) kept(t *rapid.T, before, after *router.Snapshot) {
	own := func(s *router.Snapshot) []string {
		var out []string
		for _, config := range []string{"network", "firewall"} {
			for _, sec := range s.Config(config).Sections() {
				name, _ := sec.Get("name")
				if !strings.HasPrefix(sec.Name, "hw_") && (name == "mine" || name == "wan" || sec.Type == "defaults" || sec.Type == "route" || sec.Name == "lan" || sec.Name == "wan") {
					out = append(out, string(uci.Print([]uci.Section{sec})))
				}
			}
		}
		return out
	}
	if !slices.Equal(own(before), own(after)) {
		t.Fatalf("%+v\nthe household's own sections changed:\n%v\n%v", m, own(before), own(after))
	}
	if !bytes.Contains(after.Config("firewall").Text(), []byte("# the household's own")) {
		t.Fatal("a comment got lost")
	}
}
