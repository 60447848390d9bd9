package shell

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sshConfig = `
# a comment
Host attic
	HostName 192.168.77.1
	User admin
	Port 2222
	IdentityFile ~/.ssh/attic_%r
	IdentityFile "/keys/with %h"
	IdentitiesOnly yes
	IdentityAgent ~/agent.sock
	HostKeyAlias attic-router

Host *.lan !nas.lan
	User lanuser
	ProxyJump ann@jump.example.net:2200

Match host phone.lan,pad.lan
	Port 2022

Match host plain exec "test -f /nonexistent"
	User matched
Match final user=ann
	Port 99

Host jump.example.net
	ProxyJump none

Host ring
	ProxyJump ring

Host *
	ServerAliveInterval 30
`

func TestResolve(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(home, ".ssh", "config")
	if err := os.WriteFile(config, []byte(sshConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	defaults := []string{filepath.Join(home, ".ssh", "id_ed25519"), filepath.Join(home, ".ssh", "id_rsa")}
	known := []string{filepath.Join(home, ".ssh", "known_hosts")}
	for _, tt := range []struct {
		name   string
		target Target
		o      Options
		want   where
	}{
		{"plain", Target{Addr: "192.168.1.1"}, Options{},
			where{addr: "192.168.1.1:22", user: "root", name: "192.168.1.1:22", keyFiles: defaults, known: known, config: config}},
		{"alias", Target{Addr: "attic"}, Options{Auth: Auth{Agent: true}},
			where{addr: "192.168.77.1:2222", user: "admin", name: "attic-router", named: true, identitiesOnly: true,
				keyFiles: []string{filepath.Join(home, ".ssh", "attic_admin"), "/keys/with 192.168.77.1"},
				agentAt:  filepath.Join(home, "agent.sock"), known: known, config: config}},
		{"what is said wins", Target{Addr: "attic:22", User: "root", ID: "id", Jump: "x"}, Options{Auth: Auth{KeyFiles: []string{"/k"}, AgentAt: "/a", Agent: true}, UserKnown: []string{"/u"}},
			where{addr: "192.168.77.1:22", user: "root", name: "id", named: true, identitiesOnly: true, jump: "x",
				keyFiles: []string{"/k"}, agentAt: "/a", known: []string{"/u"}, config: config}},
		{"pattern and jump", Target{Addr: "box.lan"}, Options{},
			where{addr: "box.lan:22", user: "lanuser", name: "box.lan:22", jump: "ann@jump.example.net:2200", keyFiles: defaults, known: known, config: config}},
		{"a Match that is a Host", Target{Addr: "pad.lan"}, Options{},
			where{addr: "pad.lan:2022", user: "lanuser", name: "pad.lan:2022", jump: "ann@jump.example.net:2200", keyFiles: defaults, known: known, config: config}},
		{"a Match that is not judged", Target{Addr: "plain"}, Options{},
			where{addr: "plain:22", user: "root", name: "plain:22", keyFiles: defaults, known: known, config: config}},
		{"not that pattern", Target{Addr: "nas.lan"}, Options{},
			where{addr: "nas.lan:22", user: "root", name: "nas.lan:22", keyFiles: defaults, known: known, config: config}},
		{"no jump for once", Target{Addr: "box.lan", Jump: "none"}, Options{},
			where{addr: "box.lan:22", user: "lanuser", name: "box.lan:22", keyFiles: defaults, known: known, config: config}},
		{"IPv6", Target{Addr: "fd00::1"}, Options{Config: "none"}, where{addr: "[fd00::1]:22", user: "root", name: "[fd00::1]:22", named: true}},
		{"IPv6 in brackets", Target{Addr: "[fd00::1]"}, Options{Config: "none"}, where{addr: "[fd00::1]:22", user: "root", name: "[fd00::1]:22", named: true}},
		{"IPv6 with port", Target{Addr: "[fd00::1]:23"}, Options{Config: "none"}, where{addr: "[fd00::1]:23", user: "root", name: "[fd00::1]:23", named: true}},
		{"nothing of ~/.ssh", Target{Addr: "attic"}, Options{Config: "none"}, where{addr: "attic:22", user: "root", name: "attic:22", named: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := resolve(tt.target, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.keyFiles != nil && tt.want.keyFiles[0] != defaults[0] {
				tt.want.named = true
			} else if tt.want.config == "" {
				got.named = true // without files it makes no difference
			}
			if got.addr != tt.want.addr || got.user != tt.want.user || got.name != tt.want.name || got.jump != tt.want.jump ||
				got.agentAt != tt.want.agentAt || got.identitiesOnly != tt.want.identitiesOnly || got.config != tt.want.config ||
				got.named != tt.want.named || !slices.Equal(got.keyFiles, tt.want.keyFiles) || !slices.Equal(got.known, tt.want.known) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
	for _, addr := range []string{"", "[fd00::1", "a:b:"} {
		var u *UnreachableError
		if w, err := resolve(Target{Addr: addr}, Options{Config: "none"}); addr != "a:b:" && !errors.As(err, &u) {
			t.Errorf("%q: %+v, %v", addr, w, err)
		}
	}
	var bad *ConfigError
	if _, err := resolve(Target{Addr: "a"}, Options{Config: filepath.Join(home, "not there")}); !errors.As(err, &bad) {
		t.Errorf("a config file that is not there: %v", err)
	}
	b := newBox(t)
	o := b.options()
	o.Config = config
	b.forward = nil
	o.Auth.KeyFiles = []string{}
	if _, err := Open(t.Context(), Target{Addr: "ring"}, o); !errors.As(err, &bad) || !strings.Contains(err.Error(), "jump hosts") {
		t.Errorf("a ring of jump hosts: %v", err)
	}
}
