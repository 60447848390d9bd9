package hostnet

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// nets are addresses with their networks.
func nets(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func card(name string, k Kind, addrs ...string) Card {
	c := Card{Name: name, Kind: k, On: true, Link: LinkUnknown, Addrs: nets(addrs...)}
	if k != VPN {
		c.MAC = MAC{0x00, 0x11, 0x22, 0x33, 0x44, byte(len(name))}
	}
	return c
}

func TestChoose(t *testing.T) {
	wired, second, air := card("enp3s0", Wired), card("enx01", Wired), card("wlp2s0", WiFi)
	tun, bridge, strange := card("wg0", VPN), card("docker0", Virtual), card("en7", Unknown)
	for _, c := range []struct {
		what   string
		cards  []Card
		wanted string
		want   string // a name, or how the error begins
	}{
		{"the only wired one", []Card{wired, air, tun, bridge}, "", "enp3s0"},
		{"two", []Card{wired, second, air}, "", "2 network cards could be meant: enp3s0 (wired), enx01 (wired)"},
		{"two, one named", []Card{wired, second}, "enx01", "enx01"},
		{"another case", []Card{card("Ethernet", Wired)}, "ethernet", "Ethernet"},
		{"no such name", []Card{wired}, "eth0", "this computer has no network card eth0, only enp3s0 (wired)"},
		{"no wired one", []Card{air, bridge}, "", "this computer has no wired network card, only wlp2s0 (Wi-Fi), docker0 (virtual)"},
		{"none", nil, "", "this computer has no wired network card, only none at all"},
		{"the system does not tell", []Card{strange, air}, "", "en7"},
		{"it tells of another", []Card{strange, wired}, "", "enp3s0"},
		{"it does not tell of two", []Card{strange, card("en8", Unknown)}, "", "2 network cards"},
		{"Wi-Fi by name", []Card{air, wired}, "wlp2s0", "wlp2s0 is Wi-Fi; a box needs a cable"},
		{"a tunnel by name", []Card{tun, wired}, "wg0", "wg0 is VPN or tunnel; a box needs a cable"},
		{"virtual by name", []Card{bridge, wired}, "docker0", "docker0"},
	} {
		got, err := Choose(c.cards, c.wanted)
		text := got.Name
		if err != nil {
			text = err.Error()
		}
		if text != c.want && (err == nil || !strings.HasPrefix(text, c.want)) {
			t.Errorf("%s: %q, want %q", c.what, text, c.want)
		}
	}
	var several *SeveralCardsError
	if _, err := Choose([]Card{wired, second, air}, ""); !errors.As(err, &several) || len(several.Cards) != 2 {
		t.Errorf("%v", err)
	}
}

func TestShadows(t *testing.T) {
	cable := card("enp3s0", Wired, "192.168.178.2/24")
	all := []Card{
		cable,
		card("wlp2s0", WiFi, "192.168.178.20/24", "fe80::1/64"),
		card("enx01", Wired, "192.168.0.5/16"), // a home in one large network
		card("wg0", VPN, "10.86.20.2/32"),
		card("wg1", VPN, "10.86.21.2/32"),
		card("docker0", Virtual, "172.17.0.1/16"),
		card("usb0", Unknown, "169.254.7.9/16"),
	}
	routes := []Route{
		{netip.MustParsePrefix("0.0.0.0/0"), "wlp2s0"}, // everybody has one
		{netip.MustParsePrefix("0.0.0.0/0"), "wg0"},    // everything through the tunnel
		{netip.MustParsePrefix("192.168.1.0/24"), "wg1"},
		{netip.MustParsePrefix("192.168.178.1/32"), "enp3s0"},
	}
	var got []string
	for _, s := range Shadows(cable, all, routes) {
		got = append(got, s.Card.Name+" "+s.Net.String()+" "+s.Box.String())
	}
	want := []string{
		"wlp2s0 192.168.178.0/24 192.168.178.0/24",
		"enx01 192.168.0.0/16 192.168.178.0/24", "enx01 192.168.0.0/16 192.168.1.0/24",
		"wg0 0.0.0.0/0 192.168.178.0/24", "wg0 0.0.0.0/0 192.168.1.0/24", "wg0 0.0.0.0/0 169.254.0.0/16",
		"wg1 192.168.1.0/24 192.168.1.0/24",
		"usb0 169.254.0.0/16 169.254.0.0/16",
	}
	if !slices.Equal(got, want) {
		t.Errorf("shadows:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s := Shadows(cable, all[:1], nil); len(s) > 0 {
		t.Errorf("the cable shadows itself: %v", s)
	}
}

// What other systems print, in their own words.
func TestMacOSNames(t *testing.T) {
	ports := hardwarePorts(`
Hardware Port: USB 10/100/1000 LAN
Device: en7
Ethernet Address: 00:11:22:33:44:55

Hardware Port: Wi-Fi
Device: en0
Ethernet Address: 00:11:22:33:44:56

Hardware Port: Thunderbolt Bridge
Device: bridge0
Ethernet Address: 00:11:22:33:44:57

Hardware Port: Ethernet Adapter (en4)
Device: en4
Ethernet Address: 00:11:22:33:44:58

Hardware Port: Thunderbolt 1
Device: en1
Ethernet Address: 00:11:22:33:44:59

VLAN Configurations
===================
`)
	want := map[string]Kind{"en7": Wired, "en0": WiFi, "bridge0": Virtual, "en4": Virtual, "en1": Unknown}
	for name, k := range want {
		if ports[name] != k {
			t.Errorf("%s is %s, want %s", name, ports[name], k)
		}
	}
	links := linkStates("lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384\n\tinet 127.0.0.1 netmask 0xff000000\n" +
		"en7: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500\n\tether 00:11:22:33:44:55\n\tmedia: autoselect (none)\n\tstatus: inactive\n" +
		"en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500\n\tstatus: active\n")
	if len(links) != 2 || links["en7"] != LinkDown || links["en0"] != LinkUp {
		t.Errorf("links: %v", links)
	}
}

func TestKindByName(t *testing.T) {
	for _, c := range []struct {
		system, name string
		pointToPoint bool
		want         Kind
	}{
		{"windows", "Ethernet", false, Wired},
		{"windows", "Ethernet 2", false, Wired},
		{"windows", "LAN-Verbindung", false, Wired},
		{"windows", "LAN-Verbindung* 3", false, Virtual},
		{"windows", "Wi-Fi", false, WiFi},
		{"windows", "WLAN", false, WiFi},
		{"windows", "vEthernet (WSL)", false, Virtual},
		{"windows", "VirtualBox Host-Only Network", false, Virtual},
		{"windows", "Bluetooth Network Connection", false, Virtual},
		{"windows", "Work VPN", false, VPN},
		{"windows", "Kabel zur Box", false, Unknown},
		{"darwin", "utun3", true, VPN},
		{"darwin", "awdl0", false, Virtual},
		{"darwin", "en5", false, Unknown},
		{"freebsd", "em0", false, Unknown},
		{"freebsd", "tun0", true, VPN},
	} {
		if got := kindByName(c.system, c.name, c.pointToPoint); got != c.want {
			t.Errorf("%s on %s is %s, want %s", c.name, c.system, got, c.want)
		}
	}
}
