package adopt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/wgconf"
)

func quickFile() string {
	return fmt.Sprintf(`# a gateway on a small computer
[Interface]
Address = 10.6.0.1/24
PrivateKey = %s
ListenPort = 51821
MTU = 1400
PostUp = iptables -A FORWARD -i %%i -j ACCEPT

### begin Anna's Phone ###
[Peer]
PublicKey = %s
PresharedKey = %s
AllowedIPs = 10.6.0.2/32

[Peer]
# Name = laptop
publickey=%s
AllowedIPs = 10.6.0.3
PersistentKeepalive = 25

[Peer]
PublicKey = %s
AllowedIPs = 10.6.0.4/32, 192.168.77.0/24
Endpoint = other.example.net:51820
`, testKey(0).Reveal(), testKey(1).Public(), testKey(50).Reveal(), testKey(2).Public(), testKey(3).Public())
}

func easyFile() string {
	client := func(name, at string, n byte, enabled bool) map[string]any {
		return map[string]any{"id": name, "name": name, "address": at, "privateKey": testKey(n).Reveal(), "publicKey": testKey(n).Public().String(),
			"preSharedKey": testKey(n + 50).Reveal(), "createdAt": "2026-01-01T10:00:00.000Z", "updatedAt": "2026-01-01T10:00:00.000Z", "enabled": enabled}
	}
	text, _ := json.MarshalIndent(map[string]any{
		"server":  map[string]any{"privateKey": testKey(0).Reveal(), "publicKey": testKey(0).Public().String(), "address": "10.8.0.1"},
		"clients": map[string]any{"b-1": client("Tablet", "10.8.0.3", 2, false), "a-2": client("My Phone", "10.8.0.2", 1, true)},
	}, "", "  ")
	return string(text)
}

func proposed() home.Home {
	h := home.New()
	h.Router.Address = "192.168.1.1"
	h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	h.Tunnel.Network = subnet.MustParse("10.200.0.0/24")
	h.Reach.HomeLAN = true
	return h
}

func TestImportQuick(t *testing.T) {
	g, err := adopt.ParseQuick("wg0.conf", []byte(quickFile()))
	if err != nil {
		t.Fatal(err)
	}
	h, left, err := adopt.Import(proposed(), g)
	if err != nil {
		t.Fatal(err)
	}
	if h.Tunnel.Network.String() != "10.6.0.0/24" || h.Tunnel.Port != 51821 || h.Tunnel.MTU != 1400 || h.Tunnel.Interface != "wg0" || !h.Tunnel.Network6.IsZero() {
		t.Errorf("tunnel: %+v", h.Tunnel)
	}
	if len(h.Peers) != 2 || h.Peers[0].Name != "annas-phone" || !h.Peers[0].Preshared || h.Peers[1].Name != "laptop" || h.Peers[1].Preshared ||
		h.Peers[1].Address != netip.MustParseAddr("10.6.0.3") {
		t.Errorf("peers: %+v", h.Peers)
	}
	if len(left) != 1 || !strings.Contains(left[0], "wg0.conf:21") || len(g.Ignored) != 1 || g.Ignored[0] != "postup (line 7)" {
		t.Errorf("left out: %q, ignored: %q", left, g.Ignored)
	}
	if psk := g.Preshared(h); len(psk) != 1 || psk[h.Peers[0].Name].Reveal() != testKey(50).Reveal() {
		t.Errorf("preshared keys of %d devices", len(psk))
	}
	if shown := fmt.Sprintf("%+v %#v %v", g, g, h); strings.Contains(shown, testKey(0).Reveal()) || strings.Contains(shown, testKey(50).Reveal()) {
		t.Error("a secret shows")
	}
}

func TestImportEasy(t *testing.T) {
	g, err := adopt.ParseEasy("wg0.json", []byte(easyFile()))
	if err != nil {
		t.Fatal(err)
	}
	h, left, err := adopt.Import(proposed(), g)
	if err != nil || len(left) > 0 {
		t.Fatal(err, left)
	}
	if len(h.Peers) != 2 || h.Peers[0].Name != "my-phone" || h.Peers[0].Disabled || h.Peers[1].Name != "tablet" || !h.Peers[1].Disabled || !h.Peers[1].Preshared ||
		h.Tunnel.Port != home.DefaultPort || h.Tunnel.Network.String() != "10.8.0.0/24" {
		t.Errorf("%+v %+v", h.Tunnel, h.Peers)
	}
	if !g.Devices[0].Kept || len(g.Preshared(h)) != 2 || g.Private.Public() != testKey(0).Public() {
		t.Errorf("keys: %+v", g)
	}
}

// Every mistake has its file and line, and quotes no value.
func TestGatewayFilesRefused(t *testing.T) {
	good := quickFile()
	secret := testKey(0).Reveal()
	for _, c := range []struct {
		name, text string
		line       int
		says       string
	}{
		{"empty", "", 0, "no [Interface]"},
		{"no section", "Address = 10.0.0.1/24\n", 1, "before the first section"},
		{"other section", "[Server]\n", 1, "only sections"},
		{"twice", "[Interface]\n[Interface]\n", 2, "second [Interface], the first is in line 1"},
		{"key", strings.Replace(good, secret, secret[:40], 1), 4, "PrivateKey is not a key"},
		{"port", strings.Replace(good, "51821", "0", 1), 5, "ListenPort"},
		{"address", strings.Replace(good, "10.6.0.1/24", "home", 1), 3, "addresses"},
		{"peer without key", "[Interface]\nPrivateKey=" + secret + "\nAddress=10.0.0.1/24\nListenPort=1\n[Peer]\nAllowedIPs=10.0.0.2\n", 5, "no PublicKey"},
		{"no private key", "[Interface]\nAddress=10.0.0.1/24\nListenPort=1\n", 1, "no PrivateKey"},
		{"text", "[Interface]\nhello\n", 2, "neither"},
		{"unknown", "[Interface]\nColour = red\n", 2, "not a setting of [Interface]"},
		{"twice the port", "[Interface]\nListenPort=1\nListenPort=2\n", 3, "stands twice"},
		{"a device's file", "[Interface]\nPrivateKey=" + secret + "\nAddress=10.0.0.2/32\n[Peer]\nPublicKey=" + testKey(1).Public().String() + "\nEndpoint=a.example.net:1\nAllowedIPs=0.0.0.0/0\n", 1, "describes a device, not the gateway"},
	} {
		_, err := adopt.ParseQuick("wg0.conf", []byte(c.text))
		var bad *adopt.GatewayError
		if !errors.As(err, &bad) || bad.Line != c.line || !strings.Contains(bad.Msg, c.says) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if strings.Contains(bad.Error(), secret[:40]) || len(bad.Fault().Next) == 0 {
			t.Errorf("%s: %v", c.name, bad.Fault())
		}
	}
	easy := easyFile()
	for _, c := range []struct {
		name, text string
		line       int
	}{
		{"no JSON", "PrivateKey = x", 1},
		{"cut", easy[:len(easy)-30], strings.Count(easy[:len(easy)-30], "\n") + 1},
		{"server's key", strings.Replace(easy, secret, "x", 1), strings.Count(easy[:strings.Index(easy, `"server"`)], "\n") + 1},
		{"client's key", strings.Replace(easy, testKey(2).Public().String(), "x", 1), strings.Count(easy[:strings.Index(easy, `"b-1"`)], "\n") + 1},
		{"another shape", `{"server":[]}`, 1},
	} {
		_, err := adopt.ParseEasy("wg0.json", []byte(c.text))
		var bad *adopt.GatewayError
		if !errors.As(err, &bad) || bad.Line != c.line || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want line %d", c.name, err, c.line)
		}
	}
}

func TestLearn(t *testing.T) {
	g, err := adopt.ParseQuick("wg0.conf", []byte(quickFile()))
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := adopt.Import(proposed(), g)
	if err != nil {
		t.Fatal(err)
	}
	conf := func(k key.Private, server key.Public, more string) wgconf.Conf {
		c, err := wgconf.Parse([]byte("[Interface]\nPrivateKey=" + k.Reveal() + "\nAddress=10.6.0.2/32\n" + more + "[Peer]\nPublicKey=" + server.String() +
			"\nEndpoint=home.example.net:443\nAllowedIPs=0.0.0.0/0\nPersistentKeepalive=15\n"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	server := testKey(0).Public()
	got, notes, err := adopt.Learn(h, "mobile.conf", "Mobile", conf(testKey(1), server, "DNS=10.6.0.1, 9.9.9.9\n"), server)
	if err != nil {
		t.Fatal(err)
	}
	if got.Tunnel.Endpoint != "home.example.net" || got.Tunnel.EndpointPort != 443 || got.Peers[0].Name != "mobile" || got.Peers[0].Keepalive != 15 ||
		strings.Join(got.DNS.Servers, " ") != "router 9.9.9.9" || len(notes) != 1 || !strings.Contains(notes[0], "no internet while the tunnel is on") {
		t.Errorf("%+v %+v %q", got.Tunnel, got.Peers, notes)
	}
	if h.Peers[0].Name == "mobile" {
		t.Error("the home that was given has changed")
	}
	if _, _, err := adopt.Learn(h, "x.conf", "", conf(testKey(1), testKey(9).Public(), ""), server); err == nil || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("another gateway: %v", err)
	}
	if _, _, err := adopt.Learn(h, "x.conf", "", conf(testKey(9), server, ""), server); err == nil || !strings.Contains(err.Error(), "does not know the device") {
		t.Errorf("a stranger: %v", err)
	}
}

// What home.toml has no word for is named, and blocks the move.
func TestStays(t *testing.T) {
	base := made{iface: "wg0", zone: "VPN", port: 51820, devices: 2, forwards: []string{"lan"}, opens: "rule", style: "list"}
	for _, c := range []struct {
		name     string
		old, new string // in network
		code     string
		says     string
	}{
		{"another site", "10.77.0.3/32'", "10.77.0.3/32'\n\tlist allowed_ips '192.168.50.0/24'", "adopt-site", "192.168.50.0/24"},
		{"it calls", "list allowed_ips '10.77.0.3/32'", "list allowed_ips '10.77.0.3/32'\n\toption endpoint_host 'b.example.net'", "adopt-site", "b.example.net"},
		{"everything", "10.77.0.3/32", "0.0.0.0/0", "adopt-site", "0.0.0.0/0"},
		{"not the first address", "10.77.0.1/24", "10.77.0.254/24", "adopt-address", "10.77.0.254"},
		{"an option", "option proto 'wireguard'", "option proto 'wireguard'\n\toption fwmark '0x1'", "adopt-option", "fwmark"},
		{"IPv6 from the provider", "10.77.0.1/24'", "10.77.0.1/24'\n\tlist addresses '2001:db8::1/64'", "adopt-address", "IPv6"},
	} {
		s := base.snapshot(t)
		text := strings.Replace(string(s.Configs["network"].Text()), c.old, c.new, 1)
		d, err := uci.Parse("network", []byte(text))
		if err != nil || text == string(s.Configs["network"].Text()) {
			t.Fatal(c.name, err)
		}
		s.Configs["network"] = d
		got, err := adopt.Read(bytes.NewReader(make([]byte, 4096)), "192.168.1.1", s, adopt.Found{}, "wg0")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		said := ""
		for _, f := range got.Stays {
			said += f.Code + " " + f.What + " " + strings.Join(append(f.Seen, f.Why...), " ") + "\n"
			if f.Place == nil || f.Place.Line == 0 || len(f.Next) == 0 {
				t.Errorf("%s: no place or no next step: %+v", c.name, f)
			}
		}
		if !strings.Contains(said, c.code) || !strings.Contains(said, c.says) {
			t.Errorf("%s: %q", c.name, said)
		}
		p, _ := plan.For(got.Home, s, blueprint.Access{})
		if len(p.Blocked) == 0 {
			t.Errorf("%s: the move is not blocked", c.name)
		}
	}
}

// A home.toml that only happens to use the name of somebody's tunnel does not take
// it over.
func TestStrangersTunnel(t *testing.T) {
	m := made{iface: "wg0", zone: "VPN", port: 51820, devices: 2, forwards: []string{"lan"}, opens: "rule", style: "list"}
	s := m.snapshot(t)
	h := proposed()
	if _, ok := adopt.Of(h, s); ok {
		t.Error("taken over")
	}
	p, _ := plan.For(h, s, blueprint.Access{})
	blocked := ""
	for _, f := range p.Blocked {
		blocked += f.Code + " " + strings.Join(f.Next, " ")
	}
	if !strings.Contains(blocked, "interface-taken") {
		t.Errorf("%v", blocked)
	}
}

func FuzzParseQuick(f *testing.F) {
	f.Add(quickFile())
	f.Add("[Interface]\n[Peer]\n# a\n[Peer]\n")
	f.Add("[peer]\n#x\n#y\nAllowedIPs=::/0,0/0")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := adopt.ParseQuick("x", []byte(text))
		if err != nil {
			var bad *adopt.GatewayError
			if !errors.As(err, &bad) {
				t.Fatalf("%T", err)
			}
			return
		}
		adopt.Import(proposed(), g)
	})
}

func FuzzParseEasy(f *testing.F) {
	f.Add(easyFile())
	f.Add(`{"server":{"address":"::1"},"clients":{"":{}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		g, err := adopt.ParseEasy("x", []byte(text))
		if err == nil {
			adopt.Import(proposed(), g)
		}
	})
}

// Whatever stands in a router's files, adopt reads it without falling over, and
// what it would write is a home.toml.
func FuzzRead(f *testing.F) {
	s := made{iface: "wg0", zone: "VPN", port: 51820, devices: 2, forwards: []string{"lan", "wan"}, opens: "both", nat: true, style: "list"}.snapshot(f)
	f.Add(string(s.Configs["network"].Text()), string(s.Configs["firewall"].Text()))
	f.Add("config interface wg0\n\toption proto wireguard\n\toption addresses '10.0.0.1/0 10.0.0.2/31 ::/0 fd00::1/128'\n\nconfig wireguard_wg0\n\toption allowed_ips '::/0 1.2.3.4'\n", "config zone\n\tlist network wg0\n")
	f.Fuzz(func(t *testing.T, network, wall string) {
		c := *s
		c.Configs = map[string]*uci.Document{}
		for name, text := range map[string]string{"network": network, "firewall": wall} {
			d, err := uci.Parse(name, []byte(text))
			if err != nil {
				return
			}
			c.Configs[name] = d
		}
		for _, sec := range c.Config("network").OfType("interface") {
			got, err := adopt.Read(bytes.NewReader(make([]byte, 4096)), "192.168.1.1", &c, adopt.Found{Files: []adopt.KeyFile{{Path: "/root/x", Digest: router.Digest("x")}}}, sec.Name)
			if err != nil {
				continue
			}
			if _, err := home.Parse("home.toml", home.Compose(got.Home)); err != nil {
				t.Fatal(err)
			}
			plan.For(got.Home, &c, blueprint.Access{})
		}
	})
}
