package router

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/uci"
)

func snapshot(t *testing.T, files map[string]string) *Snapshot {
	t.Helper()
	s := &Snapshot{Configs: map[string]*uci.Document{}}
	for name, text := range files {
		d, err := uci.Parse(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		s.Configs[name] = d
	}
	return s
}

// A static interface's address is read in every form that OpenWrt's releases
// write (observed section 7).
func TestAddressForms(t *testing.T) {
	cases := []struct {
		name, options string
		want          []string
		style         AddressStyle
		fault         bool
	}{
		{"21.02 to 24.10", "option ipaddr 192.168.1.1\n option netmask 255.255.255.0", []string{"192.168.1.1/24"}, PairStyle, false},
		{"mask as a count", "option ipaddr 192.168.1.1\n option netmask 24", []string{"192.168.1.1/24"}, PairStyle, false},
		{"CIDR option", "option ipaddr 10.1.2.3/16", []string{"10.1.2.3/16"}, CIDRStyle, false},
		{"25.12", "list ipaddr 192.168.1.1/24", []string{"192.168.1.1/24"}, ListForm, false},
		{"two addresses", "list ipaddr 192.168.1.1/24\n list ipaddr 10.0.0.1/8", []string{"192.168.1.1/24", "10.0.0.1/8"}, ListForm, false},
		{"dotted mask in CIDR", "list ipaddr 192.168.1.1/255.255.254.0", []string{"192.168.1.1/23"}, ListForm, false},
		{"no mask: netifd takes 32", "list ipaddr 192.168.1.1", []string{"192.168.1.1/32"}, ListForm, false},
		{"mask with holes", "option ipaddr 192.168.1.1\n option netmask 255.0.255.0", nil, PairStyle, true},
		{"no address", "option ipaddr lan", nil, PairStyle, true},
		{"mask too long", "option ipaddr 192.168.1.1/33", nil, PairStyle, true},
		{"IPv6", "option ipaddr fd00::1/64", nil, PairStyle, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			site, faults := SiteOf(snapshot(t, map[string]string{"network": "config interface lan\n option proto static\n " + c.options + "\n"}))
			var got []string
			for _, p := range site.LANs["lan"] {
				got = append(got, p.String())
			}
			if !reflect.DeepEqual(got, c.want) || site.Styles["lan"] != c.style || (len(faults) > 0) != c.fault {
				t.Errorf("got %v, style %d, faults %v", got, site.Styles["lan"], faults)
			}
			for _, f := range faults {
				if len(f.Next) == 0 || !strings.Contains(f.What, "lan") {
					t.Errorf("unhelpful: %+v", f)
				}
			}
		})
	}
}

func TestSiteOf(t *testing.T) {
	s := snapshot(t, map[string]string{
		"network": `
config interface 'lan'
	option proto 'static'
	list ipaddr '192.168.1.1/24'
config interface 'wan'
	option proto 'dhcp'
config interface 'wg0'
	option proto 'wireguard'
	option listen_port '51820'
	option heimweg '1'
config interface 'other'
	option proto 'wireguard'
	option listen_port '51999'
config wireguard_wg0 'hw_peer_phone'
config route 'to_cellar'
`,
		"firewall": `
config zone
	option name 'vpn'
	option enabled '0'
config zone
	option name 'lan'
	option network 'lan guest'
	option input 'acc'
config zone
	option name 'cellar'
	list device 'eth7'
config zone 'hw_zone'
	option name 'ours'
	list network 'wg0'
config zone
	option name 'internet'
	list network 'wan'
	option masq '1'
config defaults
	option input 'accept'
config defaults
	option input 'DROP'
`,
		"dhcp": `
config dnsmasq
	list notinterface 'wg0'
config dhcp 'lan'
	option interface 'lan'
	option ra 'server'
config dhcp
	option interface 'guest'
	option ignore '1'
`,
	})
	s.Interfaces = []Interface{
		{Name: "loopback", Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Name: "lan", Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24"), netip.MustParsePrefix("fe80::1/64")}},
		{Name: "vault", Device: "eth7"},
	}
	site, faults := SiteOf(s)
	if len(faults) > 0 {
		t.Error(faults)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	check("zones", site.Zones, map[string]string{"lan": "lan", "guest": "lan", "vault": "cellar", "wg0": "ours", "wan": "internet"})
	check("wan", site.WAN, "internet")
	check("input", site.InputAccept, true)
	check("inputs", site.Inputs, map[string]string{"lan": "ACCEPT", "cellar": "ACCEPT", "ours": "ACCEPT", "internet": "ACCEPT"})
	check("interfaces", site.Interfaces, map[string]bool{"lan": false, "wan": false, "wg0": true, "other": false})
	check("named", site.Named, map[string]string{"network.lan": "interface", "network.wan": "interface", "network.other": "interface", "network.to_cellar": "route"})
	check("zone sections", site.ZoneSections, map[string]string{"lan": "@zone[1]", "cellar": "@zone[2]", "internet": "@zone[4]"})
	check("ports", site.Ports, map[uint16]string{51999: "other"})
	check("dhcp", site.DHCP, map[string]DHCPSection{"lan": {Ref: "lan", RA: "server"}, "guest": {Ref: "@dhcp[1]", Ignore: true}})
	check("dhcp servers", site.DHCPServer, map[string]bool{"lan": true, "guest": false})
	check("dns", site.DNSNotInterfaces, []string{"wg0"})
	check("live", site.Live, []Seen{{"lan", netip.MustParsePrefix("192.168.1.1/24")}})
}

// Without an interface called wan the uplink is where the default route is.
func TestWANByRoute(t *testing.T) {
	files := map[string]string{
		"network":  "config interface dsl\n option proto pppoe\n",
		"firewall": "config zone\n option name line\n option network dsl\n option masq 1\n",
	}
	s := snapshot(t, files)
	if site, _ := SiteOf(s); site.WAN != "" {
		t.Errorf("without a route: %q", site.WAN)
	}
	s.Interfaces = []Interface{{Name: "dsl", Gateways: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}}
	if site, _ := SiteOf(s); site.WAN != "line" {
		t.Errorf("got %q", site.WAN)
	}
}

func TestOurs(t *testing.T) {
	w := Written{Digests: map[string]string{"network.wg7": "x"}}
	for _, c := range []struct {
		config string
		s      uci.Section
		want   bool
	}{
		{"firewall", uci.NewSection("zone", "hw_zone"), true},
		{"firewall", uci.NewSection("zone", "lan"), false},
		{"firewall", uci.Section{Type: "zone", Name: "hw_x", Anonymous: true}, false},
		{"network", uci.NewSection("interface", "wg0"), false},
		{"network", uci.NewSection("interface", "wg0", uci.Opt("heimweg", "1")), true},
		{"network", uci.NewSection("interface", "wg0", uci.Opt("heimweg", "0")), false},
		{"firewall", uci.NewSection("zone", "wg0", uci.Opt("heimweg", "1")), false},
		{"network", uci.NewSection("interface", "wg7"), true},
	} {
		if got := Ours(c.config, c.s, w); got != c.want {
			t.Errorf("%s.%s: %v", c.config, c.s.Name, got)
		}
	}
}

func TestEffective(t *testing.T) {
	for version, want := range map[string]Line{
		"21.02.7": Line2102, "25.12.5": Line2512, "26.05.0": Line2512, "SNAPSHOT": Line2512,
		"19.07.10": {19, 7}, "r12345": {}, "": {},
	} {
		if got := (Release{Version: version}).Effective(); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

func TestDigest(t *testing.T) {
	if Digest("") != "" || Digest("(none)") != "" {
		t.Error("no secret has a digest")
	}
	if a, b := Digest("a"), Digest("b"); a == b || len(a) != 64 {
		t.Errorf("%q %q", a, b)
	}
}
