package view_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

var update = flag.Bool("update", false, "rewrite testdata")

// golden compares texts with testdata/NAME.txtar, one part per case.
func golden(t *testing.T, name string, got []txtar.File) {
	t.Helper()
	file := filepath.Join("testdata", name+".txtar")
	for i, f := range got {
		if len(f.Data) > 0 && f.Data[len(f.Data)-1] != '\n' {
			t.Errorf("%s does not end its line", f.Name)
			got[i].Data = append(f.Data, '\n')
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(&txtar.Archive{Files: got}), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	was := map[string]string{}
	for _, f := range a.Files {
		was[f.Name] = string(f.Data)
	}
	for _, f := range got {
		if d := cmp.Diff(was[f.Name], string(f.Data)); d != "" {
			t.Errorf("%s: %s (-file +now):\n%s", file, f.Name, d)
		}
		delete(was, f.Name)
	}
	for name := range was {
		t.Errorf("%s: nothing makes %q any more", file, name)
	}
}

const sample = `[router]
address = "192.168.1.1"
packages = ["nano"]

[uplink]
kind = "behind-isp-router"
network = "192.168.2.0/24"

[[lan]]
interface = "lan"
network = "192.168.1.0/24"

[tunnel]
interface = "wg0"
network = "10.86.20.0/24"
network6 = "fd5a:1f2e:3d4c:1::/64"
port = 51820
endpoint = "home.example.net"

[reach]
home-lan = true

[[peer]]
name = "phone"
public-key = "PHONE"
address = "10.86.20.2"
address6 = "fd5a:1f2e:3d4c:1::2"

[[peer]]
name = "laptop"
public-key = "LAPTOP"
address = "10.86.20.3"
disabled = true
`

func testKey(n byte) key.Private {
	k, _ := key.NewPrivate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	return k
}

func parseHome(t *testing.T, text string) home.Home {
	t.Helper()
	text = strings.ReplaceAll(text, `"PHONE"`, `"`+testKey(2).Public().String()+`"`)
	text = strings.ReplaceAll(text, `"LAPTOP"`, `"`+testKey(3).Public().String()+`"`)
	f, err := home.Parse("home.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f.Home
}

// fresh is a router of 24.10 as its first start left it, behind an ISP router.
func fresh(t *testing.T) *router.Snapshot {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("..", "plan", "testdata", "routers", "24.10.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix
	s := &router.Snapshot{
		Board: router.Board{
			Model: "AVM FRITZ!Box 4040", Name: "avm,fritzbox-4040", Hostname: "OpenWrt", Fw4: true,
			Release: router.Release{Distribution: "OpenWrt", Version: "24.10.7", Target: "ipq40xx/generic", Line: router.Line2410},
		},
		Time: time.Unix(1763721000, 0), Uptime: 3*time.Hour + 12*time.Minute,
		Handlers: []string{"dhcp", "static"}, Space: router.Space{OverlayKB: 20000},
		Interfaces: []router.Interface{
			{Name: "lan", Device: "br-lan", Proto: "static", Up: true, Addresses: []netip.Prefix{prefix("192.168.1.1/24")}},
			{Name: "wan", Device: "wan", Proto: "dhcp", Up: true, Addresses: []netip.Prefix{prefix("192.168.2.253/24")}, Gateways: []netip.Addr{netip.MustParseAddr("192.168.2.1")}},
		},
		Tunnels: map[string]*router.Tunnel{}, Configs: map[string]*uci.Document{}, Hashes: map[string]string{},
	}
	for _, f := range a.Files {
		if f.Name != "version" {
			put(t, s, f.Name, f.Data)
		}
	}
	return s
}

func put(t *testing.T, s *router.Snapshot, config string, text []byte) {
	t.Helper()
	d, err := uci.Parse(config, text)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	s.Configs[config], s.Hashes[config] = d, hex.EncodeToString(sum[:])
}

// settled is the router after the plan for h.
func settled(t *testing.T, h home.Home) *router.Snapshot {
	t.Helper()
	s := fresh(t)
	p, _ := plan.For(h, s, blueprint.Access{})
	secrets := plan.Secrets{Private: testKey(1), Preshared: map[string]key.Preshared{}}
	for i, peer := range h.Peers {
		secrets.Preshared[peer.Name], _ = key.NewPreshared(bytes.NewReader(bytes.Repeat([]byte{byte(100 + i)}, 32)))
	}
	docs, err := p.Edit(s.Configs, secrets)
	if err != nil {
		t.Fatal(err)
	}
	for c, d := range docs {
		put(t, s, c, d.Text())
	}
	s.Written = p.Written(s.Configs, router.Written{})
	s.Handlers = append(s.Handlers, "wireguard")
	s.Installed = []router.Package{{Name: "wireguard-tools"}, {Name: "nano"}}
	s.Interfaces = append(s.Interfaces, router.Interface{Name: "wg0", Device: "wg0", Proto: "wireguard", Up: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.86.20.1/24"), netip.MustParsePrefix("fd5a:1f2e:3d4c:1::1/64")}})
	live := &router.Tunnel{Interface: "wg0", PublicKey: testKey(1).Public(), Private: router.Digest(testKey(1).Reveal()), ListenPort: 51820}
	for _, x := range h.Peers {
		if x.Disabled {
			continue
		}
		rp := router.Peer{PublicKey: x.PublicKey, Preshared: router.Digest(secrets.Preshared[x.Name].Reveal()), Keepalive: x.Keepalive,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(x.Address, 32)}}
		if x.Address6.IsValid() {
			rp.AllowedIPs = append(rp.AllowedIPs, netip.PrefixFrom(x.Address6, 128))
		}
		live.Peers = append(live.Peers, rp)
	}
	s.Tunnels["wg0"] = live
	return s
}

func part(name string, write func(b *bytes.Buffer)) txtar.File {
	var b bytes.Buffer
	write(&b)
	return txtar.File{Name: name, Data: b.Bytes()}
}

// noSecret fails when a text holds a key that only the router may have.
func noSecret(t *testing.T, name, text string) {
	t.Helper()
	secrets := []string{testKey(1).Reveal()}
	for i := range 3 {
		p, _ := key.NewPreshared(bytes.NewReader(bytes.Repeat([]byte{byte(100 + i)}, 32)))
		secrets = append(secrets, p.Reveal())
	}
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%s shows a secret", name)
		}
	}
}
