package wgconf_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/wgconf"
)

var update = flag.Bool("update", false, "rewrite testdata")

// Keys of the golden files; nobody's.
const (
	peerKey   = "aM62KZcFaapqd+TweUIUFRGG80TpJXr6Xu5VTwFCv28="
	peerName  = "5tYNEeGevJ3LvZuC9gahVjahcYxCYS0t5+slT6ShJyE=" // its public half
	serverKey = "1gk59zgPVIRHtkKoA3hBua6h3nKOHX7DyXRnNdH7Cw8="
	sharedKey = "lKXF8dyCzSw23Lk6uOBCwjciqFV2n7vFs5GFHd7Qfzo="
)

func keys(t testing.TB) (key.Private, key.Public, key.Preshared) {
	t.Helper()
	a, err1 := key.ParsePrivate(peerKey)
	b, err2 := key.ParsePublic(serverKey)
	c, err3 := key.ParsePreshared(sharedKey)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return a, b, c
}

func network(s string) subnet.Network {
	n, err := subnet.ParseNetwork(s)
	if err != nil {
		panic(err)
	}
	return n
}

// household is a home behind an ISP router, as in the second seed.
func household() home.Home {
	h := home.New()
	h.Uplink = home.Uplink{Kind: home.Behind, Network: network("192.168.2.0/24")}
	h.LANs = []home.LAN{{Interface: "lan", Network: network("192.168.17.0/24")}}
	h.Tunnel.Network, h.Tunnel.Network6 = network("10.83.20.0/24"), network("fd4c:9a1:77be:1::/64")
	h.Tunnel.Endpoint = "home.example.net"
	h.Peers = []home.Peer{phone()}
	return h
}

func phone() home.Peer {
	k, err := key.ParsePublic(peerName)
	if err != nil {
		panic(err)
	}
	return home.Peer{
		Name: "phone", Address: netip.MustParseAddr("10.83.20.2"), Address6: netip.MustParseAddr("fd4c:9a1:77be:1::2"),
		PublicKey: k, Preshared: true, Keepalive: home.DefaultKeepalive,
	}
}

// cases are the configurations of testdata/peers.txtar, by file name.
func cases() []struct {
	name     string
	endpoint string
	change   func(h *home.Home, p *home.Peer)
	ownKey   bool
} {
	return []struct {
		name     string
		endpoint string
		change   func(h *home.Home, p *home.Peer)
		ownKey   bool
	}{
		{name: "behind.conf"},
		{name: "uplink.conf", change: func(h *home.Home, _ *home.Peer) { h.Reach.UplinkLAN = true }},
		{name: "full-tunnel.conf", change: func(h *home.Home, _ *home.Peer) { h.Reach.Internet = true }},
		{name: "full-tunnel-without-dns.conf", change: func(h *home.Home, _ *home.Peer) {
			h.Reach.Internet, h.DNS = true, home.DNS{Search: []string{"lan"}}
		}},
		{name: "router-only.conf", change: func(h *home.Home, _ *home.Peer) { h.Reach.HomeLAN = false }},
		{name: "two-lans.conf", change: func(h *home.Home, _ *home.Peer) {
			h.LANs = append(h.LANs, home.LAN{Interface: "guest", Network: network("192.168.18.0/24")},
				home.LAN{Interface: "lab", Network: network("192.168.17.128/25")})
		}},
		{name: "endpoint6.conf", endpoint: "2001:db8:7::1"},
		{name: "endpoint4-other-port.conf", endpoint: "203.0.113.7", change: func(h *home.Home, _ *home.Peer) {
			h.Tunnel.EndpointPort = 443
		}},
		{name: "mtu.conf", change: func(h *home.Home, _ *home.Peer) { h.Tunnel.MTU = 1400 }},
		{name: "no-dns-no-keepalive.conf", change: func(h *home.Home, p *home.Peer) { h.DNS, p.Keepalive = home.DNS{}, 0 }},
		{name: "dns-of-the-lan.conf", change: func(h *home.Home, _ *home.Peer) {
			h.DNS = home.DNS{Servers: []string{"192.168.17.5", "router", "10.83.20.1", "fd4c:9a1:77be:1::1"}, Search: []string{"lan", "home.example.net"}}
		}},
		{name: "no-psk-ipv4-only.conf", change: func(h *home.Home, p *home.Peer) {
			p.Preshared, p.Address6, h.Tunnel.Network6 = false, netip.Addr{}, subnet.Network{}
		}},
		{name: "own-key.conf", ownKey: true},
		{name: "one-armed.conf", change: func(h *home.Home, _ *home.Peer) {
			h.Uplink = home.Uplink{Kind: home.OneArmed}
			h.Reach.UplinkLAN = true
		}},
	}
}

func confs(t testing.TB) map[string]wgconf.Conf {
	t.Helper()
	out := map[string]wgconf.Conf{}
	for _, c := range cases() {
		priv, server, psk := keys(t)
		h, p := household(), phone()
		if c.change != nil {
			c.change(&h, &p)
		}
		if c.ownKey {
			priv = key.Private{}
		}
		if !p.Preshared {
			psk = key.Preshared{}
		}
		conf, err := wgconf.For(h, p, server, c.endpoint, priv, psk)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		out[c.name] = conf
	}
	return out
}

// Every configuration, as a file and packed, is compared with the whole text.
func TestGolden(t *testing.T) {
	all := confs(t)
	var got txtar.Archive
	got.Comment = []byte("Peer configurations, written by TestGolden -update. The keys are nobody's.\n")
	for _, c := range cases() {
		got.Files = append(got.Files,
			txtar.File{Name: c.name, Data: all[c.name].Text()},
			txtar.File{Name: c.name + ".packed", Data: all[c.name].Compact()})
	}
	file := filepath.Join("testdata", "peers.txtar")
	if *update {
		if err := os.WriteFile(file, txtar.Format(&got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(txtar.Format(&got))); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestGoldenReadsBack(t *testing.T) {
	for name, c := range confs(t) {
		for form, text := range map[string][]byte{"text": c.Text(), "packed": c.Compact()} {
			back, err := wgconf.Parse(text)
			if err != nil || !back.Equal(c) {
				t.Errorf("%s %s: %v\n%s", name, form, err, text)
			}
		}
		if t := len(c.Text()) - len(c.Compact()); t < 10 {
			panic(fmt.Sprint(name, " is packed by ", t, " bytes only"))
		}
	}
}

func TestForRefuses(t *testing.T) {
	priv, server, psk := keys(t)
	for name, c := range map[string]struct {
		change   func(h *home.Home, p *home.Peer)
		server   key.Public
		endpoint string
		preset   key.Preshared
		want     string
	}{
		"private address":    {endpoint: "192.168.2.1", want: "peers cannot call home at 192.168.2.1: it is a private address"},
		"carrier NAT":        {endpoint: "100.64.3.4", want: "peers cannot call home at 100.64.3.4"},
		"link-local":         {endpoint: "169.254.3.4", want: "peers cannot call home at 169.254.3.4"},
		"ULA":                {endpoint: "fd00::1", want: "peers cannot call home at fd00::1"},
		"loopback":           {endpoint: "127.0.0.1", want: "peers cannot call home at 127.0.0.1"},
		"mapped":             {endpoint: "::ffff:203.0.113.7", want: "plain address"},
		"zone":               {endpoint: "fe80::1%eth0", want: "plain address"},
		"own network's name": {endpoint: "openwrt.lan", want: "a name that only your own network knows"},
		"bare domain":        {endpoint: "Fritz.Box", want: "a name that only your own network knows"},
		"one word":           {endpoint: "openwrt", want: "a name of one word"},
		"URL":                {endpoint: "http://home.example.net", want: "neither a host name nor an address"},
		"with port":          {endpoint: "home.example.net:51820", want: "neither a host name nor an address"},
		"half an address":    {endpoint: "203.0.113", want: "neither a host name nor an address"},
		"none":               {change: func(h *home.Home, _ *home.Peer) { h.Tunnel.Endpoint = "" }, want: "no endpoint is known"},
		"no port":            {change: func(h *home.Home, _ *home.Peer) { h.Tunnel.Port = 0 }, want: "lacks the tunnel's port"},
		"no address":         {change: func(_ *home.Home, p *home.Peer) { p.Address = netip.Addr{} }, want: "lacks an address for phone"},
		"another's key": {change: func(_ *home.Home, p *home.Peer) {
			p.PublicKey, _ = key.ParsePublic(serverKey)
		}, want: wgconf.ErrOtherKey.Error()},
	} {
		h, p := household(), phone()
		if c.change != nil {
			c.change(&h, &p)
		}
		got, err := wgconf.For(h, p, server, c.endpoint, priv, psk)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if !got.Equal(wgconf.Conf{}) {
			t.Errorf("%s: an error and a configuration", name)
		}
	}
	var missing *wgconf.MissingError
	if _, err := wgconf.For(household(), phone(), server, "", priv, key.Preshared{}); !errors.As(err, &missing) {
		t.Errorf("without the preshared key: %v", err)
	}
	if _, err := wgconf.For(household(), phone(), key.Public{}, "", priv, psk); !errors.As(err, &missing) {
		t.Errorf("without the router's key: %v", err)
	}
}

// AllowedIPs judged by addresses rather than by text: what is in, what is out,
// and no entry that another one makes useless.
func TestAllowedIPs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := household()
		h.LANs = nil
		for i := range rapid.IntRange(0, 5).Draw(t, "LANs") {
			bits := rapid.IntRange(20, 28).Draw(t, "bits")
			third := rapid.IntRange(0, 12).Draw(t, "third")
			n := subnet.NetworkOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(third), byte(rapid.IntRange(0, 255).Draw(t, "fourth"))}), bits))
			h.LANs = append(h.LANs, home.LAN{Interface: fmt.Sprint("lan", i), Network: n})
		}
		h.Reach.HomeLAN, h.Reach.UplinkLAN = rapid.Bool().Draw(t, "home"), rapid.Bool().Draw(t, "uplink")
		got := wgconf.AllowedIPs(h)
		in := func(a netip.Addr) bool {
			return slices.ContainsFunc(got, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		wanted := func(a netip.Addr) bool {
			yes := h.Tunnel.Network.Contains(a) || h.Reach.UplinkLAN && h.Uplink.Network.Contains(a)
			for _, l := range h.LANs {
				yes = yes || h.Reach.HomeLAN && l.Network.Contains(a)
			}
			return yes
		}
		for third := range 16 {
			for fourth := range 16 {
				a := netip.AddrFrom4([4]byte{192, 168, byte(third), byte(fourth * 16)})
				if in(a) != wanted(a) {
					t.Fatalf("%s: in AllowedIPs %v is %v", a, got, in(a))
				}
			}
		}
		if !in(netip.MustParseAddr("10.83.20.1")) || in(netip.MustParseAddr("9.9.9.9")) {
			t.Fatalf("AllowedIPs %v", got)
		}
		for i, p := range got {
			for j, o := range got {
				if i != j && p.Overlaps(o) {
					t.Fatalf("%s and %s overlap in %v", p, o, got)
				}
			}
		}
	})
}

// drawConf makes any configuration that Parse can give.
func drawConf(t *rapid.T) wgconf.Conf {
	raw := func(name string) []byte { return rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name) }
	nonzero := func(b []byte) []byte { b[7] |= 1; return b }
	var c wgconf.Conf
	if rapid.Bool().Draw(t, "with private key") {
		c.Interface.PrivateKey, _ = key.NewPrivate(bytes.NewReader(raw("private")))
	}
	if rapid.Bool().Draw(t, "with preshared key") {
		c.Peer.Preshared, _ = key.NewPreshared(bytes.NewReader(nonzero(raw("preshared"))))
	}
	server, _ := key.NewPrivate(bytes.NewReader(raw("server")))
	c.Peer.PublicKey = server.Public()
	address := rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "6") {
			b := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address6"))
			b[0] = 0xfd
			return netip.AddrFrom16(b)
		}
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")))
	})
	prefixes := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := address.Draw(t, "address")
		return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
	})
	c.Interface.Addresses = rapid.SliceOfN(prefixes, 1, 4).Draw(t, "addresses")
	for _, p := range rapid.SliceOfN(prefixes, 1, 8).Draw(t, "allowed") {
		if p = p.Masked(); !slices.Contains(c.Peer.AllowedIPs, p) {
			c.Peer.AllowedIPs = append(c.Peer.AllowedIPs, p)
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "DNS") {
		c.Interface.DNS = append(c.Interface.DNS, rapid.OneOf(
			rapid.Map(address, netip.Addr.String), rapid.StringMatching(`[a-z][a-z0-9]{0,10}(\.[a-z0-9]{1,8}){0,2}\.[a-z]{2,5}`)).Draw(t, "server"))
	}
	c.Interface.MTU = rapid.SampledFrom([]int{0, 576, 1280, 1420, 65535}).Draw(t, "MTU")
	c.Peer.Keepalive = rapid.IntRange(0, 65535).Draw(t, "keepalive")
	if rapid.Bool().Draw(t, "with endpoint") {
		c.Peer.Endpoint = rapid.OneOf(rapid.Map(address, netip.Addr.String), rapid.Just("home.example.net"), rapid.Just("xn--hme-0na.example.net")).Draw(t, "endpoint")
		c.Peer.Port = uint16(rapid.IntRange(1, 65535).Draw(t, "port"))
	}
	return c
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawConf(t)
		for _, text := range [][]byte{c.Text(), c.Compact()} {
			back, err := wgconf.Parse(text)
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			if !back.Equal(c) || !bytes.Equal(back.Text(), c.Text()) {
				t.Fatalf("became\n%s\nfrom\n%s", back.Text(), text)
			}
		}
	})
}

// Equal must see every field, or the property above shows nothing.
func TestEqualSeesEveryField(t *testing.T) {
	for name, change := range map[string]func(c *wgconf.Conf){
		"PrivateKey": func(c *wgconf.Conf) { c.Interface.PrivateKey = key.Private{} },
		"Addresses":  func(c *wgconf.Conf) { c.Interface.Addresses = c.Interface.Addresses[:1] },
		"DNS":        func(c *wgconf.Conf) { c.Interface.DNS = c.Interface.DNS[1:] },
		"MTU":        func(c *wgconf.Conf) { c.Interface.MTU++ },
		"PublicKey":  func(c *wgconf.Conf) { c.Peer.PublicKey = key.Public{} },
		"Preshared":  func(c *wgconf.Conf) { c.Peer.Preshared = key.Preshared{} },
		"AllowedIPs": func(c *wgconf.Conf) { c.Peer.AllowedIPs = c.Peer.AllowedIPs[1:] },
		"Endpoint":   func(c *wgconf.Conf) { c.Peer.Endpoint += "x" },
		"Port":       func(c *wgconf.Conf) { c.Peer.Port++ },
		"Keepalive":  func(c *wgconf.Conf) { c.Peer.Keepalive++ },
	} {
		a, b := confs(t)["behind.conf"], confs(t)["behind.conf"]
		if !a.Equal(b) {
			t.Fatal("not equal to itself")
		}
		if change(&b); a.Equal(b) || b.Equal(a) {
			t.Errorf("a change of %s goes unseen", name)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c := confs(t)["behind.conf"]
	type holder struct {
		c    wgconf.Conf
		p    *wgconf.Conf
		list []wgconf.Conf
	}
	var out strings.Builder
	for _, v := range []any{c, &c, []wgconf.Conf{c}, holder{c, &c, []wgconf.Conf{c}}, c.Interface, c.Peer, map[string]any{"c": c}} {
		for _, verb := range "vsqxXdTpboOegGEfFctU" {
			for _, flags := range []string{"", "+", "#"} {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", v)
			}
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
	}
	for _, s := range []string{peerKey, sharedKey} {
		k, err := key.ParsePreshared(s)
		if err != nil {
			t.Fatal(err)
		}
		raw := k.Bytes()
		part := raw[8:14]
		traces := []string{s[:12], strings.Trim(fmt.Sprint(part), "[]"), string(part)}
		for _, format := range []string{"%x", "%X", "%q"} {
			traces = append(traces, strings.Trim(fmt.Sprintf(format, part), `"`))
		}
		for _, trace := range traces {
			if strings.Contains(out.String(), trace) {
				t.Errorf("a printed configuration shows %q of a secret", trace)
			}
		}
	}
	if !strings.Contains(out.String(), "home.example.net") {
		t.Error("nothing was printed at all")
	}
}
