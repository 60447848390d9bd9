package hostnet

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKindsOfLinux(t *testing.T) {
	const ether = unix.ARPHRD_ETHER
	for _, c := range []struct {
		what string
		d    device
		want Kind
	}{
		{"a card on PCI or USB", device{name: "enp3s0", hardware: ether, real: true}, Wired},
		{"Wi-Fi", device{name: "wlp2s0", hardware: ether, real: true, wireless: true}, WiFi},
		{"a container's", device{name: "veth0", hardware: ether, made: "veth"}, Virtual},
		{"a bridge", device{name: "docker0", hardware: ether, made: "bridge"}, Virtual},
		{"a virtual machine's", device{name: "tap0", hardware: ether, made: "tun"}, VPN},
		{"WireGuard", device{name: "wg0", hardware: unix.ARPHRD_NONE, made: "wireguard"}, VPN},
		{"PPP", device{name: "ppp0", hardware: unix.ARPHRD_PPP}, VPN},
		{"of nothing known", device{name: "eth7", hardware: ether}, Virtual},
	} {
		if got := c.d.card().Kind; got != c.want {
			t.Errorf("%s is %s, want %s", c.what, got, c.want)
		}
	}
	d := device{name: "x", flags: unix.IFF_UP}
	if d.link() != LinkDown {
		t.Errorf("no carrier is %s", d.link())
	}
}

// What only files say.
func TestLookInSys(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"phy80211", "device"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(dir, "tun_flags"), nil, 0o600))
	var d device
	if d.look(dir); !d.wireless || !d.real || d.made != "tun" {
		t.Errorf("%+v", d)
	}
	var none device
	if none.look(filepath.Join(dir, "none")); none.wireless || none.real || none.made != "" {
		t.Errorf("%+v", none)
	}
}

func TestCardsOfANamespace(t *testing.T) {
	c := newCable(t)
	c.give("192.168.1.70/24")
	k := c.card()
	if k.Kind != Virtual || !k.On || k.Link != LinkDown || k.MTU != 1500 || k.MAC == (MAC{}) || len(k.Addrs) == 0 || k.Addrs[0].String() != "192.168.1.70/24" {
		t.Errorf("%+v", k)
	}
	if mac := ownMAC(k); mac[0] != 2 || [6]byte(mac) == k.MAC {
		t.Errorf("our MAC is %x, the card's %s", mac, k.MAC)
	}
	list, err := Cards(t.Context())
	must(t, err)
	for _, x := range list {
		if x.Name == "lo" {
			t.Error("the loopback is no card")
		}
	}
}

// Messages from the kernel that are cut anywhere.
func FuzzNetlink(f *testing.F) {
	f.Add(linkMessage(Card{Index: 3}, true).body)
	f.Add(addressMessage(Card{Index: 3}, lentNet, true).body)
	f.Add(routeMessage(Card{Index: 3}, lentNet, true).body)
	f.Fuzz(func(t *testing.T, b []byte) {
		parseLink(b)
		if _, p, ok := parseAddr(b); ok && !p.IsValid() {
			t.Error(p)
		}
		parseRoute(b)
		auxdata(b)
	})
}
