package blueprint

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

// Whole drawings for all releases and scenarios are in package plan's testdata;
// here is what is refused, what is remarked, and what single choices change.

func household() home.Home {
	h := home.New()
	h.Uplink.Network = subnet.MustParse("192.168.2.0/24")
	h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	h.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
	h.Tunnel.Network6 = subnet.MustParse("fd3a:71c9:5e02::/64")
	var p key.Public
	if err := p.UnmarshalText([]byte("M/ywlwPdqGwoUWzksvkkcpftqLSuaMk9CxbA5ykVaDc=")); err != nil {
		panic(err)
	}
	h.Peers = []home.Peer{{Name: "my-phone", Address: netip.MustParseAddr("10.86.20.2"), PublicKey: p, Preshared: true}}
	return h
}

func site(version string) router.Site {
	line, _ := router.ParseLine(version)
	return router.Site{
		Board:      router.Board{Release: router.Release{Distribution: "OpenWrt", Version: version, Line: line}},
		Zones:      map[string]string{"lan": "lan", "wan": "wan", "wan6": "wan"},
		LANs:       map[string][]netip.Prefix{"lan": {netip.MustParsePrefix("192.168.1.1/24")}},
		WAN:        "wan",
		Inputs:     map[string]string{"lan": "ACCEPT", "wan": "REJECT"},
		Interfaces: map[string]bool{"lan": false, "wan": false},
		Styles:     map[string]router.AddressStyle{},
		DHCP:       map[string]router.DHCPSection{"lan": {Ref: "lan", RA: "server"}},
		Live: []router.Seen{
			{Interface: "lan", Prefix: netip.MustParsePrefix("192.168.1.1/24")},
			{Interface: "wan", Prefix: netip.MustParsePrefix("192.168.2.253/24")},
		},
	}
}

func TestProblems(t *testing.T) {
	cases := []struct {
		code   string
		change func(*home.Home, *router.Site)
		next   string // part of what to do
	}{
		{"not-openwrt", func(_ *home.Home, s *router.Site) { s.Board.Release.Distribution = "" }, "install OpenWrt"},
		{"openwrt-too-old", func(_ *home.Home, s *router.Site) {
			s.Board.Release = router.Release{Distribution: "OpenWrt", Version: "19.07.10", Line: router.Line{Year: 19, Month: 7}}
		}, "upgrade"},
		{"openwrt-too-old", func(_ *home.Home, s *router.Site) {
			s.Board.Release = router.Release{Distribution: "OpenWrt", Version: "Bleeding Edge"}
		}, "upgrade"},
		{"one-armed-internet", func(h *home.Home, _ *router.Site) { h.Uplink.Kind, h.Reach.Internet = home.OneArmed, true }, "internet = false"},
		{"one-armed-uplink", func(h *home.Home, _ *router.Site) { h.Uplink.Kind, h.Reach.UplinkLAN = home.OneArmed, true }, "uplink-lan = false"},
		{"direct-uplink", func(h *home.Home, _ *router.Site) { h.Uplink.Kind, h.Reach.UplinkLAN = home.Direct, true }, "uplink-lan = false"},
		{"no-wan-zone", func(_ *home.Home, s *router.Site) { s.WAN = "" }, "one-armed"},
		{"uplink-unknown", func(h *home.Home, s *router.Site) {
			h.Uplink.Network, h.Reach.UplinkLAN, s.Live = subnet.Network{}, true, nil
		}, "network ="},
		{"uplink-elsewhere", func(h *home.Home, s *router.Site) {
			h.Reach.UplinkLAN = true
			h.Uplink.Network = subnet.MustParse("192.168.178.0/24")
		}, `"192.168.2.0/24"`},
		{"interface-name", func(h *home.Home, _ *router.Site) { h.Tunnel.Interface = "way-home" }, "wg0"},
		{"interface-name", func(h *home.Home, _ *router.Site) { h.Tunnel.Interface = "abcdefghijklmnop" }, "wg0"},
		{"interface-taken", func(_ *home.Home, s *router.Site) { s.Named = map[string]string{"network.wg0": "interface"} }, `"wg1"`},
		{"zone-taken", func(_ *home.Home, s *router.Site) { s.ZoneSections = map[string]string{"vpn": "@zone[2]"} }, "rename or remove"},
		{"port-taken", func(_ *home.Home, s *router.Site) { s.Ports = map[uint16]string{51820: "other"} }, "another port"},
		{"lan-unknown", func(h *home.Home, _ *router.Site) { h.LANs[0].Interface = "home" }, "[[lan]]"},
		{"lan-without-zone", func(_ *home.Home, s *router.Site) { delete(s.Zones, "lan") }, "add lan to a zone"},
		{"lan-elsewhere", func(h *home.Home, _ *router.Site) { h.LANs[0].Network = subnet.MustParse("10.9.9.0/24") }, "renumber = true"},
		{"lan-elsewhere", func(_ *home.Home, s *router.Site) { s.LANs = nil; s.Live = s.Live[1:] }, "fixed address"},
		{"one-armed-renumber", func(h *home.Home, _ *router.Site) {
			h.Uplink.Kind, h.LANs[0].Renumber, h.LANs[0].Network = home.OneArmed, true, subnet.MustParse("10.9.9.0/24")
		}, `"192.168.1.0/24"`},
		{"tunnel-overlap", func(_ *home.Home, s *router.Site) {
			s.Live = append(s.Live, router.Seen{Interface: "guest", Prefix: netip.MustParsePrefix("10.86.1.1/16")})
		}, "another network"},
		{"tunnel-overlap", func(_ *home.Home, s *router.Site) {
			s.Live = append(s.Live, router.Seen{Interface: "guest", Prefix: netip.MustParsePrefix("fd3a:71c9:5e02::1/60")})
		}, "another network"},
		{"lan-overlap", func(h *home.Home, s *router.Site) {
			h.Uplink.Network = subnet.Network{}
			s.Live[1].Prefix = netip.MustParsePrefix("192.168.1.77/24")
		}, "renumber = true"},
		{"harmful-package", func(h *home.Home, _ *router.Site) { h.Router.Packages = []string{"wg-installer-server"} }, "take it out"},
		{"package-gone", func(h *home.Home, _ *router.Site) { h.Router.Packages = []string{"luci-app-wireguard"} }, "luci-proto-wireguard"},
		{"package-name", func(h *home.Home, _ *router.Site) { h.Router.Packages = []string{"-U"} }, "correct packages"},
		{"package-name", func(h *home.Home, _ *router.Site) { h.Router.Packages = []string{"nano; reboot"} }, "correct packages"},
		{"direct-endpoint-port", func(h *home.Home, s *router.Site) {
			h.Uplink.Kind, h.Tunnel.EndpointPort = home.Direct, 443
		}, "same number"},
	}
	for _, c := range cases {
		t.Run(c.code, func(t *testing.T) {
			h, s := household(), site("24.10.8")
			c.change(&h, &s)
			_, problems := Draw(h, s)
			if len(problems) != 1 || problems[0].Code != c.code {
				t.Fatalf("got %v", problems)
			}
			p := problems[0]
			if !strings.Contains(strings.Join(p.Next, "\n"), c.next) {
				t.Errorf("next %q does not say %q", p.Next, c.next)
			}
			if strings.HasSuffix(p.What, ".") || strings.ContainsAny(p.What[:1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ") && !strings.HasPrefix(p.What, "UDP") {
				t.Errorf("not a sentence of the house: %q", p.What)
			}
		})
	}
}

func TestNothingWrongWithTheUsual(t *testing.T) {
	for _, version := range []string{"21.02.7", "22.03.7", "23.05.6", "24.10.8", "25.12.5", "26.05.1", "SNAPSHOT"} {
		w, problems := Draw(household(), site(version))
		if len(problems) > 0 {
			t.Errorf("%s: %v", version, problems)
		}
		for _, o := range w.Sections {
			s := o.Section.Without("private_key", "preshared_key")
			if err := s.Validate(); err != nil {
				t.Errorf("%s: %s.%s: %v", version, o.Config, s.Name, err)
			}
		}
	}
}

func notes(w Want) []string {
	var out []string
	for _, n := range w.Notes {
		out = append(out, n.Code)
	}
	return out
}

func TestNotes(t *testing.T) {
	cases := []struct {
		code   string
		change func(*home.Home, *router.Site)
	}{
		{"", func(*home.Home, *router.Site) {}},
		{"input-accept", func(_ *home.Home, s *router.Site) { s.InputAccept = true }},
		{"", func(h *home.Home, s *router.Site) { s.InputAccept, h.Router.Input = true, "accept" }},
		{"release-end", func(_ *home.Home, s *router.Site) { s.Board.Release.Line = router.Line2305 }},
		{"dns-deaf", func(_ *home.Home, s *router.Site) { s.DNSInterfaces = []string{"lan guest"} }},
		{"", func(_ *home.Home, s *router.Site) { s.DNSInterfaces = []string{"lan", "wg0"} }},
		{"dns-deaf", func(_ *home.Home, s *router.Site) { s.DNSNotInterfaces = []string{"wg0"} }},
		{"", func(h *home.Home, s *router.Site) {
			s.DNSNotInterfaces, h.DNS.Servers = []string{"wg0"}, []string{"9.9.9.9"}
		}},
		{"not-direct", func(h *home.Home, _ *router.Site) { h.Uplink = home.Uplink{Kind: home.Direct} }},
		{"not-behind", func(h *home.Home, s *router.Site) {
			h.Uplink.Network = subnet.Network{}
			s.Live[1].Prefix = netip.MustParsePrefix("203.0.113.7/24")
		}},
		{"uplink-elsewhere", func(h *home.Home, _ *router.Site) { h.Uplink.Network = subnet.MustParse("192.168.178.0/24") }},
	}
	for _, c := range cases {
		h, s := household(), site("24.10.8")
		c.change(&h, &s)
		w, problems := Draw(h, s)
		if len(problems) > 0 {
			t.Errorf("%s: %v", c.code, problems)
		}
		if got := strings.Join(notes(w), " "); got != c.code {
			t.Errorf("notes %q, want %q", got, c.code)
		}
	}
}

// Moving a LAN keeps the style in which the router writes addresses: a bare
// address in a list would be a /32.
func TestRenumberStyles(t *testing.T) {
	for _, c := range []struct {
		style router.AddressStyle
		have  []string
		want  []string
	}{
		{router.PairStyle, []string{"192.168.1.1/24"}, []string{"ipaddr=10.9.0.1", "netmask=255.255.254.0"}},
		{router.CIDRStyle, []string{"192.168.1.1/24"}, []string{"ipaddr=10.9.0.1/23"}},
		{router.ListForm, []string{"192.168.1.1/24"}, []string{"ipaddr[]=10.9.0.1/23"}},
		{router.ListForm, []string{"192.168.1.1/24", "192.168.77.1/24"}, []string{"ipaddr[]=10.9.0.1/23 192.168.77.1/24"}},
	} {
		h, s := household(), site("25.12.5")
		h.LANs[0] = home.LAN{Interface: "lan", Network: subnet.MustParse("10.9.0.0/23"), Renumber: true}
		s.Styles["lan"], s.LANs["lan"] = c.style, nil
		for _, p := range c.have {
			s.LANs["lan"] = append(s.LANs["lan"], netip.MustParsePrefix(p))
		}
		w, problems := Draw(h, s)
		var got []string
		for _, a := range w.Adjust {
			if a.Config != "network" || a.Section != "lan" || !a.Cuts {
				t.Errorf("%+v", a)
			}
			got = append(got, a.Option+map[bool]string{true: "[]"}[a.List]+"="+strings.Join(a.Values, " "))
		}
		if len(problems) > 0 || !slices.Equal(got, c.want) {
			t.Errorf("got %q, want %q (%v)", got, c.want, problems)
		}
		if len(w.LANs) != 1 || w.LANs[0].Address.String() != "10.9.0.1/23" {
			t.Errorf("LANs %v", w.LANs)
		}
	}
}

// Zone names that differ only in what a section name cannot hold get sections of
// their own; two LANs in one zone share the forwarding.
func TestSectionNamesAreUnique(t *testing.T) {
	h, s := household(), site("24.10.8")
	h.LANs, h.Reach.Internet = nil, true
	for i, zone := range []string{"a-b", "a_b", "a-b", "wan"} {
		iface := string(rune('p' + i))
		n := subnet.NetworkOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i), 0}), 24))
		h.LANs = append(h.LANs, home.LAN{Interface: iface, Network: n})
		s.Zones[iface], s.Interfaces[iface] = zone, false
		s.LANs[iface] = []netip.Prefix{n.First().OnInterface()}
	}
	w, problems := Draw(h, s)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	seen, forwards := map[string]bool{}, 0
	for _, o := range w.Sections {
		if seen[o.Config+"."+o.Section.Name] {
			t.Errorf("%s.%s is there twice", o.Config, o.Section.Name)
		}
		seen[o.Config+"."+o.Section.Name] = true
		if o.Section.Type == "forwarding" {
			forwards++
		}
	}
	if forwards != 4 {
		t.Errorf("%d forwardings", forwards)
	}
}

func TestPackageNamesAsksForEverythingDrawn(t *testing.T) {
	h := household()
	h.Router.Packages = []string{"nano", "ip-full"}
	asked := PackageNames(h)
	for _, version := range []string{"21.02.7", "25.12.5"} {
		w, _ := Draw(h, site(version))
		for _, p := range w.Packages {
			for _, name := range append([]string{p.Name}, p.Or...) {
				if !slices.Contains(asked, name) {
					t.Errorf("%s is not asked for", name)
				}
			}
		}
	}
}

func TestKeepIsNoRealValue(t *testing.T) {
	if !IsKeep(uci.Option{Name: "private_key", Values: []uci.Value{Keep()}}) {
		t.Error("the marker is not seen")
	}
	for _, o := range []uci.Option{uci.HiddenOpt("private_key", "x"), uci.Opt("name", ""), uci.List("private_key")} {
		if IsKeep(o) {
			t.Errorf("%+v passes for the marker", o)
		}
	}
}

func TestMapping(t *testing.T) {
	h := household()
	h.Tunnel.EndpointPort = 443
	w, _ := Draw(h, site("24.10.8"))
	if w.Mapping == nil || *w.Mapping != (Mapping{"udp", 443, 51820, netip.MustParseAddr("192.168.2.253")}) {
		t.Errorf("got %+v", w.Mapping)
	}
	h.Uplink = home.Uplink{Kind: home.OneArmed}
	if w, _ = Draw(h, site("24.10.8")); w.Mapping == nil || w.Mapping.To.String() != "192.168.1.1" {
		t.Errorf("one-armed: %+v", w.Mapping)
	}
}
