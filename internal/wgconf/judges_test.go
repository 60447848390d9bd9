package wgconf_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// judged is every text that Debian's wireguard-tools are shown.
func judged(t *testing.T) map[string]string {
	out := map[string]string{}
	for name, c := range confs(t) {
		out[name] = string(c.Text())
		out[name+" packed"] = string(c.Compact())
	}
	for seed := range 20 {
		c := rapid.Custom(drawConf).Example(seed)
		out[fmt.Sprint("drawn ", seed)] = string(c.Text())
		out[fmt.Sprint("drawn ", seed, " packed")] = string(c.Compact())
	}
	files := archive(t, "read.txtar").Files
	for i := 0; i < len(files); i += 2 {
		out[files[i].Name] = unescape.Replace(string(files[i].Data))
	}
	return out
}

// run starts a program of somebody else with a deadline and nothing of our
// environment but the path.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// wg tries to look a name up again and again; once is enough for us.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "WG_ENDPOINT_RESOLUTION_RETRIES=0"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// `wg-quick strip` reads the whole file, keeps what `wg setconf` gets and throws
// the rest away. It touches no interface.
func TestJudgeWgQuick(t *testing.T) {
	strip := need.Program(t, "wg-quick")
	dir := t.TempDir()
	for name, text := range judged(t) {
		file := filepath.Join(dir, "hw0.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := run(t, strip, "strip", file)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		left := map[string]bool{}
		for line := range strings.Lines(strings.ToLower(got)) {
			setting, _, _ := strings.Cut(line, "=")
			left[strings.TrimSpace(setting)] = true
		}
		if !left["publickey"] || !left["allowedips"] || left["address"] || left["dns"] || left["mtu"] {
			t.Errorf("%s: wg-quick strip leaves\n%s", name, got)
		}
	}
}

// `wg setconf` hands the stripped text to a device, here our socket standing in
// for one: what arrives there is what WireGuard would run with.
func TestJudgeWgSetconf(t *testing.T) {
	wg, strip := need.Program(t, "wg"), need.Program(t, "wg-quick")
	device := newDevice(t)
	dir := t.TempDir()
	for name, text := range judged(t) {
		if strings.Contains(text, "home.example.net") {
			text = strings.ReplaceAll(text, "home.example.net:", "203.0.113.7:") // nobody answers for names here
		}
		conf, err := wgconf.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		whole := filepath.Join(dir, "hw0.conf")
		if err := os.WriteFile(whole, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		stripped, err := run(t, strip, "strip", whole)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		file := filepath.Join(dir, "stripped.conf")
		if err := os.WriteFile(file, []byte(stripped), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := run(t, wg, "setconf", device.name, file); err != nil {
			t.Errorf("%s: %v\n%s", name, err, stripped)
			continue
		}
		if got, want := device.last(), asDevice(conf); !slices.Equal(got, want) {
			t.Errorf("%s: WireGuard would get\n%s\nand we read\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// asDevice is a configuration in the words of WireGuard's cross-platform
// interface (www.wireguard.com/xplatform), sorted.
func asDevice(c wgconf.Conf) []string {
	in := func(s string) string {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(b) == 0 {
			b = make([]byte, 32)
		}
		return hex.EncodeToString(b)
	}
	out := []string{
		"private_key=" + in(c.Interface.PrivateKey.Reveal()),
		"public_key=" + in(c.Peer.PublicKey.String()),
		"preshared_key=" + in(c.Peer.Preshared.Reveal()),
		fmt.Sprintf("persistent_keepalive_interval=%d", c.Peer.Keepalive),
	}
	if c.Peer.Endpoint != "" {
		a := netip.MustParseAddr(strings.Replace(c.Peer.Endpoint, "home.example.net", "203.0.113.7", 1))
		out = append(out, "endpoint="+netip.AddrPortFrom(a, c.Peer.Port).String())
	}
	for _, p := range c.Peer.AllowedIPs {
		out = append(out, "allowed_ip="+p.String())
	}
	return canonical(out)
}

// canonical leaves out what a message says about itself or says by default.
func canonical(lines []string) []string {
	zero := strings.Repeat("0", 64)
	lines = slices.Clone(lines)
	for i, l := range lines {
		// wg leaves it to the device to switch off the bits beyond the mask.
		if name, value, _ := strings.Cut(l, "="); name == "allowed_ip" {
			if p, err := netip.ParsePrefix(value); err == nil {
				lines[i] = name + "=" + p.Masked().String()
			}
		}
	}
	lines = slices.DeleteFunc(lines, func(l string) bool {
		switch name, value, _ := strings.Cut(l, "="); name {
		case "", "set", "replace_peers", "replace_allowed_ips", "protocol_version", "fwmark", "listen_port":
			return true
		case "preshared_key", "private_key":
			return value == zero
		case "persistent_keepalive_interval":
			return value == "0"
		}
		return false
	})
	slices.Sort(lines)
	return slices.Compact(lines)
}
