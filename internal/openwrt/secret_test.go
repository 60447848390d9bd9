package openwrt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uci"
)

// listener is a router that only listens.
type listener struct{ heard []shell.Script }

func (l *listener) Run(_ context.Context, s shell.Script) (shell.Result, error) {
	l.heard = append(l.heard, s)
	return shell.Result{Exit: 7, Stdout: []byte("what is this\nsecond line\n")}, nil
}

// The text of a script may be shown with -v and may be seen in the router's
// process list; its standard input is neither. Secrets go only there.
func TestSecretsOnlyInStdin(t *testing.T) {
	private, psk := testKey(t, 1), testPreshared(t, 2)
	const hash = "$6$saltstring$canarycanarycanary"
	network := "config interface 'wg0'\n\toption private_key '" + private.Reveal() + "'\n"
	peer := PeerChange{PublicKey: testKey(t, 3).Public(), Preshared: psk, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.86.20.2/32")}}
	file := File{Config: "network", OldHash: "00", Text: uci.Hidden(network)}
	for name, act := range map[string]func(Shell) error{
		"grant": func(sh Shell) error {
			return Grant(t.Context(), sh, Access{AuthorizedKey: "ssh-ed25519 AAAA", PasswordHash: uci.Hidden(hash)})
		},
		"begin": func(sh Shell) error {
			return Begin(t.Context(), sh, Change{ID: "a1", Files: []File{file}, Interface: "wg0", Guard: time.Minute, Peers: []PeerChange{peer}})
		},
		"peers": func(sh Shell) error {
			_, err := SetPeers(t.Context(), sh, Order{ID: "a1", Network: &file, Interface: "wg0", Peers: []PeerChange{peer}}, LookFor{})
			return err
		},
		"probe": func(sh Shell) error {
			_, err := AddProbe(t.Context(), sh, Probe{Interface: "wg0", PublicKey: peer.PublicKey, Preshared: psk, Addresses: peer.AllowedIPs, TimeToLive: time.Minute}, LookFor{})
			return err
		},
	} {
		l := &listener{}
		err := act(l)
		var g *GarbledError
		if !errors.As(err, &g) || g.Exit != 7 || g.Said != "what is this" {
			t.Errorf("%s: a senseless answer gives %v", name, err)
		}
		if len(l.heard) != 1 {
			t.Errorf("%s took %d round trips", name, len(l.heard))
			continue
		}
		s, found := l.heard[0], 0
		for _, secret := range []string{private.Reveal(), psk.Reveal(), hash} {
			if strings.Contains(s.Text, secret) {
				t.Errorf("%s: a secret stands in the script's text", name)
			}
			if strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("%s: a secret stands in the error", name)
			}
			if bytes.Contains(s.Stdin, []byte(secret)) {
				found++
			}
		}
		if found == 0 {
			t.Errorf("%s: no secret arrives at all; this test looks for the wrong thing", name)
		}
	}
}

// A router's answer that breaks off in the middle of a configuration is told
// without what it holds.
func TestGarbledAnswersAreNotRepeated(t *testing.T) {
	sh := answer(func(s shell.Script) string {
		_, rest, _ := strings.Cut(s.Text, "\nN=")
		n, _, _ := strings.Cut(rest, "\n")
		return "Connection is slow\n\n@" + n + " begin file.network\n\toption private_key 'canary'\n"
	})
	_, err := Look(t.Context(), sh, LookFor{})
	var g *GarbledError
	if !errors.As(err, &g) || g.Missing != "looked" || g.Said != "Connection is slow" || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
}

type answer func(s shell.Script) string

func (a answer) Run(_ context.Context, s shell.Script) (shell.Result, error) {
	return shell.Result{Stdout: []byte(a(s))}, nil
}

// Values from outside (names of packages, identifiers) arrive as they are.
func TestHostileValuesAreQuoted(t *testing.T) {
	vars := env{}
	for i, v := range []string{"", "plain", "it's", `"; reboot; "`, "$(reboot)", "`reboot`", "a\nb", "\\", "*", "~", "-n", "#", "x;y", "ü", "'", "''", "!", "a\tb", "&&", "${N}"} {
		vars[fmt.Sprintf("V%02d", i)] = v
	}
	script := vars.text()
	for _, k := range sortedKeys(vars) {
		script += fmt.Sprintf("printf '%%s|' \"$%s\"\n", k)
	}
	// A value that got out of its quotes would find no program to run, and say so.
	cmd := exec.CommandContext(t.Context(), need.Program(t, "busybox"), "sh")
	cmd.Env = []string{"PATH=/nowhere"}
	cmd.Stdin = strings.NewReader(script)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Errorf("%v: %s", err, errs.String())
	}
	var want strings.Builder
	for _, k := range sortedKeys(vars) {
		want.WriteString(vars[k] + "|")
	}
	if out.String() != want.String() {
		t.Errorf("got  %q\nwant %q", out.String(), want.String())
	}
}

func TestWgSet(t *testing.T) {
	a, b, c := testKey(t, 1).Public(), testKey(t, 2).Public(), testKey(t, 3).Public()
	got := wgSet("wg0", []PeerChange{
		{PublicKey: a, Preshared: testPreshared(t, 4), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.86.20.2/32"), netip.MustParsePrefix("fd5a::2/128")}},
		{PublicKey: b, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.86.20.3/32")}},
		{PublicKey: c, Remove: true},
	}, "./")
	q := func(k key.Public) string { return shell.Quote(k.String()) }
	want := "wg set wg0 peer " + q(a) + " preshared-key ./psk.0 allowed-ips " + shell.Quote("10.86.20.2/32,fd5a::2/128") + "\n" +
		"wg set wg0 peer " + q(b) + " preshared-key /dev/null allowed-ips " + shell.Quote("10.86.20.3/32") + "\n" +
		"wg set wg0 peer " + q(c) + " remove\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestParseAllowed(t *testing.T) {
	for in, want := range map[string]string{
		"10.86.20.2/32":             "[10.86.20.2/32]",
		"10.86.20.2":                "[10.86.20.2/32]",
		"fd5a::2":                   "[fd5a::2/128]",
		"10.86.20.2/32 fd5a::2/128": "[10.86.20.2/32 fd5a::2/128]",
		"":                          "[]",
		"10.86.20.2/33":             "error",
		"10.86.20.2,10.86.20.3":     "error",
		"phone":                     "error",
	} {
		got, err := ParseAllowed(in)
		text := fmt.Sprint(got)
		if err != nil {
			text = "error"
		}
		if text != want {
			t.Errorf("%q is %s, want %s", in, text, want)
		}
	}
}
