package relay

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/subnet"
)

var update = flag.Bool("update", false, "rewrite testdata")

func drawn(t testing.TB, change func(*home.Home)) Relay {
	t.Helper()
	h := home.New()
	h.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
	h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	if change != nil {
		change(&h)
	}
	r, err := New(rand.NewChaCha8([32]byte{1}), h, "relay.example.net")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTexts(t *testing.T) {
	r := drawn(t, func(h *home.Home) { h.Tunnel.EndpointPort = 443 })
	text := txtar.Format(&txtar.Archive{Files: []txtar.File{{Name: "server.conf", Data: r.Server()}, {Name: "home.sh", Data: r.Script()}}})
	const file = "testdata/relay.txtar"
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(text)); d != "" {
		t.Errorf("(-file +now):\n%s", d)
	}
}

func TestRefused(t *testing.T) {
	h := home.New()
	h.Tunnel.Port = Port
	var taken *TakenError
	if _, err := New(rand.NewChaCha8([32]byte{1}), h, "relay.example.net"); !errors.As(err, &taken) {
		t.Errorf("the link's own port: %v", err)
	}
	var bad *HostError
	for _, host := range []string{"", "a b", "a'b", "$(reboot)", "a;b", "a\nb"} {
		if _, err := New(rand.NewChaCha8([32]byte{1}), home.New(), host); !errors.As(err, &bad) {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// The link's network is none of the home's.
func TestLinkIsApart(t *testing.T) {
	for seed := range byte(200) {
		h := home.New()
		h.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
		h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.0.0/16")}, {Interface: "iot", Network: subnet.MustParse("172.16.0.0/12")}}
		r, err := New(rand.NewChaCha8([32]byte{seed}), h, "relay.example.net")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []subnet.Network{h.Tunnel.Network, h.LANs[0].Network, h.LANs[1].Network} {
			if n.Prefix().Overlaps(r.link) {
				t.Fatalf("seed %d: %s is in %s", seed, r.link, n)
			}
		}
	}
}

// wg-quick reads the server's file, nft the rules in it, and a shell the script.
func TestJudges(t *testing.T) {
	r := drawn(t, nil)
	path := filepath.Join(t.TempDir(), "heimweg.conf")
	if err := os.WriteFile(path, r.Server(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("wg-quick", func(t *testing.T) {
		out, err := exec.Command(need.Program(t, "wg-quick"), "strip", path).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("ListenPort = 51821")) || bytes.Contains(out, []byte("PostUp")) {
			t.Errorf("%v\n%d bytes", err, len(out)) // it quotes keys
		}
	})
	t.Run("nft", func(t *testing.T) {
		nft := need.Program(t, "nft")
		m := regexp.MustCompile(`(?m)^PostUp = nft '(.*)'$`).FindSubmatch(r.Server())
		if m == nil {
			t.Fatal("no rules")
		}
		rules := strings.ReplaceAll(string(m[1]), "%i", "heimweg")
		if out, err := exec.Command(nft, "-c", rules).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if out, err := exec.Command(nft, "-c", strings.Replace(rules, "dnat to", "dnat two", 1)).CombinedOutput(); err == nil {
			t.Errorf("nft judges nothing: %s", out)
		}
	})
	t.Run("sh", func(t *testing.T) {
		c := exec.Command(need.Program(t, "busybox"), "sh", "-n")
		c.Stdin = bytes.NewReader(r.Script())
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
