//go:build linux

package openwrt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uci"
)

// jail is a folder that looks like a router to a script: real busybox (1.35, the
// version of OpenWrt 22.03) below chroot, with stand-ins for OpenWrt's own
// programs that log what they are told. It judges whether our scripts are right
// for a real ash and real applets; what OpenWrt makes of them is the lab's part.
type jail struct {
	t    *testing.T
	root string
}

// standIns answer like a fresh router of 24.10.
var standIns = map[string]string{
	"ubus": `case "$*" in
"call system board") cat /stub/board ;;
"call system info") echo '{"uptime": 77}' ;;
"call network get_proto_handlers") echo '{"static": {}, "wireguard": {}}' ;;
"call network.interface dump") cat /stub/dump ;;
*) echo "ubus $*" >>/stub/log; echo '{"up": true}' ;;
esac`,
	"uci": `case "$*" in
"show "*) if grep -q BROKEN "/etc/config/$2"; then echo "uci: Parse error (invalid command) at line 1, byte 0" >&2; exit 1; fi ;;
"-q get "*) ;;
esac`,
	"fw4":    `case "$1" in check) cat /stub/warnings; exit "$(cat /stub/fwexit)" ;; *) echo "fw4 $*" >>/stub/log ;; esac`,
	"wg":     `case "$*" in "show all dump") printf 'wg0\tsecret\t(none)\t51820\toff\n' ;; "show wg0") ;; *) echo "wg $*" >>/stub/log; while [ $# -gt 1 ]; do [ "$1" != preshared-key ] || cat "$2" >>/stub/psk; shift; done ;; esac`,
	"ifup":   `echo "ifup $*" >>/stub/log`,
	"logger": `echo "logger $*" >>/stub/log`,
	"opkg":   `echo "opkg $*" >>/stub/log; cat /stub/opkg; exit "$(cat /stub/opkgexit)"`,
}

func newJail(t *testing.T) *jail {
	t.Helper()
	box := need.Program(t, "busybox")
	j := &jail{t, t.TempDir()}
	for _, d := range []string{"bin", "etc/config", "etc/init.d", "etc/rc.d", "etc/dropbear", "tmp", "dev", "stub", "overlay", "var/run", "proc"} {
		j.must(os.MkdirAll(filepath.Join(j.root, d), 0o755))
	}
	j.library(box)
	j.copy(box, "bin/busybox")
	// Only applets that every supported release has; these are missing there.
	missing := []string{"base64", "stat", "timeout", "od", "diff", "realpath", "xxd", "install", "setsid", "arping"}
	list, err := exec.Command(box, "--list").Output()
	j.must(err)
	for _, name := range strings.Fields(string(list)) {
		if name != "busybox" && standIns[name] == "" && !slices.Contains(missing, name) {
			j.must(os.Symlink("busybox", filepath.Join(j.root, "bin", name)))
		}
	}
	for name, text := range standIns {
		j.write("bin/"+name, "#!/bin/sh\n"+text+"\n", 0o755)
	}
	j.write("etc/rc.common", "#!/bin/sh\n. \"$1\"\ncase \"$2\" in enable) ln -sf ../init.d/${1##*/} /etc/rc.d/S$START${1##*/} ;; *) $2 ;; esac\n", 0o755)
	j.write("stub/board", `{"hostname":"OpenWrt","model":"AVM FRITZ!Box 4040","board_name":"avm,fritzbox-4040","release":{"distribution":"OpenWrt","version":"24.10.7","revision":"r1","target":"ipq40xx/generic"}}`, 0o644)
	j.write("stub/dump", `{"interface":[{"interface":"lan","up":true,"proto":"static","l3_device":"br-lan","ipv4-address":[{"address":"192.168.1.1","mask":24}],"route":[{"target":"0.0.0.0","mask":0,"nexthop":"192.168.1.254"}]}]}`, 0o644)
	j.write("stub/warnings", "", 0o644)
	j.write("stub/fwexit", "0", 0o644)
	j.write("stub/opkg", "", 0o644)
	j.write("stub/opkgexit", "0", 0o644)
	j.write("dev/null", "", 0o666)
	j.write("etc/openwrt_release", "DISTRIB_ID='OpenWrt'\n", 0o644)
	j.write("etc/shadow", "root::0:0:99999:7:::\ndaemon:*:0:0:99999:7:::\n", 0o600)
	j.write("etc/config/network", "config interface 'lan'\n\toption proto 'static'\n", 0o600)
	j.write("etc/config/firewall", "# mine\nconfig defaults\n\toption input 'REJECT'\n", 0o644)
	for _, c := range []string{"dhcp", "dropbear", "system"} {
		j.write("etc/config/"+c, "config "+c+"\n", 0o644)
	}
	return j
}

func (j *jail) must(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

func (j *jail) copy(from, to string) {
	b, err := os.ReadFile(from)
	j.must(err)
	j.write(to, string(b), 0o755)
}

// library brings what the busybox program is linked with.
func (j *jail) library(program string) {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return // statically linked
	}
	for _, w := range strings.Fields(string(out)) {
		if strings.HasPrefix(w, "/") {
			j.must(os.MkdirAll(filepath.Join(j.root, filepath.Dir(w)), 0o755))
			j.copy(w, w)
		}
	}
}

func (j *jail) write(path, text string, mode fs.FileMode) {
	j.t.Helper()
	p := filepath.Join(j.root, path)
	if info, err := os.Lstat(p); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		j.must(os.Remove(p)) // an applet is a link to busybox itself
	}
	j.must(os.WriteFile(p, []byte(text), mode))
	j.must(os.Chmod(p, mode))
}

func (j *jail) read(path string) string {
	b, err := os.ReadFile(filepath.Join(j.root, path))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	j.must(err)
	return string(b)
}

func (j *jail) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(j.root, path))
	return err == nil
}

// Run makes a jail a Shell.
func (j *jail) Run(ctx context.Context, s shell.Script) (shell.Result, error) {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", s.Text)
	c.Path = "/bin/sh"
	c.Env = []string{"PATH=/bin"}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: j.root}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(s.Stdin), &out, &errs
	c.WaitDelay = time.Second
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		need.Missing(j.t, "chroot", err.Error())
	}
	return shell.Result{Stdout: out.Bytes(), Stderr: errs.Bytes(), Exit: c.ProcessState.ExitCode()}, nil
}

func hash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func (j *jail) change(id string, files map[string]string) Change {
	c := Change{ID: id, Interface: "wg0", Fw4: true, Guard: GuardShort, Wait: 5 * time.Second, Reloads: []Reload{ReloadNetwork, ReloadFirewall}}
	for _, name := range sortedKeys(files) {
		c.Files = append(c.Files, File{Config: name, OldHash: hash(j.read("etc/config/" + name)), Text: uci.Hidden(files[name])})
	}
	return c
}

func refusalCode(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

const newNetwork = "config interface 'lan'\n\toption proto 'static'\n\nconfig interface 'wg0'\n\toption proto 'wireguard'\n\toption private_key 'it'\\''s \\ $HOME `x` %s'\n"

func TestBusyboxLook(t *testing.T) {
	j := newJail(t)
	s, err := Look(t.Context(), j, LookFor{Firewall: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.Board.Name != "avm,fritzbox-4040" || s.Board.Release.Line != router.Line2410 || !s.Board.Fw4 || s.Board.Apk {
		t.Errorf("board %+v", s.Board)
	}
	if s.RootHash || s.Hashes["network"] != hash(j.read("etc/config/network")) || s.Modes["network"] != "0600" {
		t.Errorf("root password %v, hash %s, modes %v", s.RootHash, s.Hashes["network"], s.Modes)
	}
	if got := string(s.Config("firewall").Text()); got != j.read("etc/config/firewall") {
		t.Errorf("firewall came as %q", got)
	}
	if !slices.Contains(s.Handlers, "wireguard") || len(s.Interfaces) != 1 || s.Interfaces[0].Gateways[0].String() != "192.168.1.254" {
		t.Errorf("handlers %v, interfaces %+v", s.Handlers, s.Interfaces)
	}
	if s.Tunnels["wg0"] == nil || s.Tunnels["wg0"].ListenPort != 51820 {
		t.Errorf("tunnels %+v", s.Tunnels)
	}
	if len(s.Broken) > 0 || s.Pending != nil || s.Locked != "" || len(s.Staged) > 0 || s.LuciApply || len(s.Overrides) > 0 {
		t.Errorf("a quiet router shows broken %v, pending %v, locked %q, staged %v", s.Broken, s.Pending, s.Locked, s.Staged)
	}

	j.must(os.MkdirAll(filepath.Join(j.root, "tmp/.uci"), 0o755))
	j.write("tmp/.uci/network", "network.lan.mtu='1400'\n", 0o644)
	j.write("etc/config/dhcp", "BROKEN\n", 0o644)
	if s, err = Look(t.Context(), j, LookFor{}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Staged, []string{"network"}) || s.Broken["dhcp"] == nil {
		t.Errorf("staged %v, broken %v", s.Staged, s.Broken)
	}
}

func TestBusyboxBeginConfirm(t *testing.T) {
	j := newJail(t)
	before := j.read("etc/config/firewall")
	k, _ := key.NewPreshared(strings.NewReader(strings.Repeat("k", 32)))
	pub, _ := key.ParsePublic("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
	c := j.change("run1", map[string]string{"network": newNetwork, "firewall": before + "\nconfig zone 'hw_zone'\n"})
	c.Up, c.Peers = true, []PeerChange{{PublicKey: pub, Preshared: k}}
	if err := Begin(t.Context(), j, c); err != nil {
		t.Fatal(err)
	}
	defer Confirm(t.Context(), j, "run1", router.Written{}, LookFor{})
	if got := j.read("etc/config/network"); got != newNetwork {
		t.Errorf("network is %q", got)
	}
	if info, _ := os.Stat(filepath.Join(j.root, "etc/config/network")); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if !strings.HasPrefix(j.read("etc/heimweg/pending"), "run1 ") || !j.exists("etc/rc.d/S15heimweg-guard") {
		t.Errorf("pending %q, guard %v", j.read("etc/heimweg/pending"), j.exists("etc/rc.d/S15heimweg-guard"))
	}
	log := j.read("stub/log")
	for _, want := range []string{"ubus call network reload", "fw4 -q reload", "wg set wg0 peer " + pub.String()} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, k.Reveal()) || j.read("stub/psk") != k.Reveal()+"\n" {
		t.Errorf("the preshared key came as %q and the arguments were %s", j.read("stub/psk"), log)
	}
	if j.exists("tmp/heimweg/in") {
		t.Error("secrets are still in RAM")
	}
	s, err := Look(t.Context(), j, LookFor{})
	if err != nil || s.Pending == nil || !s.Pending.Armed || s.Locked != "run1" {
		t.Fatalf("during the window: %+v, %v", s, err)
	}
	if err := Begin(t.Context(), j, j.change("run2", map[string]string{"network": "x"})); refusalCode(err) != "locked" {
		t.Errorf("a second run: %v", err)
	}
	s, err = Confirm(t.Context(), j, "run1", router.Written{Format: 1, ID: "run1"}, LookFor{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Pending != nil || s.Locked != "" || s.Written.ID != "run1" {
		t.Errorf("after the confirmation: %+v", s)
	}
	if _, err := Confirm(t.Context(), j, "run1", router.Written{}, LookFor{}); refusalCode(err) != "late" {
		t.Errorf("a second confirmation: %v", err)
	}
}

func TestBusyboxTakeBack(t *testing.T) {
	for _, how := range []string{"now", "boot", "timer"} {
		t.Run(how, func(t *testing.T) {
			j := newJail(t)
			network, firewall := j.read("etc/config/network"), j.read("etc/config/firewall")
			c := j.change("run1", map[string]string{"network": newNetwork, "firewall": "config x\n"})
			if how != "now" {
				c.Guard = time.Second
			}
			j.must(Begin(t.Context(), j, c))
			switch how {
			case "now":
				j.must(TakeBack(t.Context(), j, "run1"))
			case "boot":
				j.must(os.RemoveAll(filepath.Join(j.root, "tmp/heimweg"))) // RAM
				_, err := j.Run(t.Context(), shell.Script{Text: "/etc/rc.common /etc/rc.d/S15heimweg-guard start"})
				j.must(err)
			case "timer":
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				for tick := time.NewTicker(50 * time.Millisecond); j.exists("etc/heimweg/pending") || j.exists("etc/heimweg/restoring") || j.exists("tmp/heimweg/lock"); {
					select {
					case <-ctx.Done():
						t.Fatal("the timer did not take the change back in 20 s")
					case <-tick.C:
					}
				}
			}
			if j.read("etc/config/network") != network || j.read("etc/config/firewall") != firewall {
				t.Errorf("network %q, firewall %q", j.read("etc/config/network"), j.read("etc/config/firewall"))
			}
			if j.exists("etc/heimweg/pending") || j.exists("etc/heimweg/restoring") || j.exists("tmp/heimweg/lock") {
				t.Error("marks of the change are left")
			}
			if how != "boot" && strings.Count(j.read("stub/log"), "ubus call network reload") != 2 {
				t.Errorf("the old settings were not made live:\n%s", j.read("stub/log"))
			}
		})
	}
}

// Whatever refuses must leave everything as it was.
func TestBusyboxRefusals(t *testing.T) {
	tests := []struct {
		code  string
		spoil func(*jail, *Change)
	}{
		{"changed", func(j *jail, _ *Change) { j.write("etc/config/network", "config other\n", 0o600) }},
		{"staged", func(j *jail, _ *Change) {
			j.must(os.MkdirAll(filepath.Join(j.root, "tmp/.uci"), 0o755))
			j.write("tmp/.uci/firewall", "x", 0o644)
		}},
		{"override", func(j *jail, _ *Change) {
			j.must(os.MkdirAll(filepath.Join(j.root, "var/run/uci"), 0o755))
			j.write("var/run/uci/network", "x", 0o644)
		}},
		{"luci", func(j *jail, _ *Change) {
			j.must(os.MkdirAll(filepath.Join(j.root, "var/run/rpcd/snapshot-files"), 0o755))
			j.write("var/run/rpcd/snapshot-files/network", "x", 0o644)
		}},
		{"pending", func(j *jail, _ *Change) {
			j.must(os.MkdirAll(filepath.Join(j.root, "etc/heimweg"), 0o755))
			j.write("etc/heimweg/pending", "other 1 60\n", 0o600)
		}},
		{"unreadable", func(_ *jail, c *Change) { c.Files[0].Text = uci.Hidden("BROKEN\n") }},
		{"firewall", func(j *jail, _ *Change) { // the second check, after the swap, finds a new line
			j.write("bin/fw4", "#!/bin/sh\ngrep -q hw_zone /etc/config/firewall && echo '[!] Section hw_zone (vpn) skipped due to invalid options'\nexit 0\n", 0o755)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.code, func(t *testing.T) {
			j := newJail(t)
			c := j.change("run1", map[string]string{"network": newNetwork, "firewall": "config zone 'hw_zone'\n"})
			tt.spoil(j, &c)
			network, firewall := j.read("etc/config/network"), j.read("etc/config/firewall")
			if tt.code == "unreadable" {
				firewall = j.read("etc/config/firewall")
			}
			err := Begin(t.Context(), j, c)
			if refusalCode(err) != tt.code {
				t.Fatalf("got %v, want refusal %q", err, tt.code)
			}
			if j.read("etc/config/network") != network || j.read("etc/config/firewall") != firewall {
				t.Errorf("network %q, firewall %q", j.read("etc/config/network"), j.read("etc/config/firewall"))
			}
			entries, _ := os.ReadDir(filepath.Join(j.root, "etc/config"))
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), ".") {
					t.Errorf("%s is left in /etc/config", e.Name())
				}
			}
			if j.exists("tmp/heimweg/lock") || j.exists("tmp/heimweg/in") || j.exists("etc/heimweg/restoring") {
				t.Error("the lock, the new files or a mark are left")
			}
			if tt.code != "pending" && j.exists("etc/heimweg/pending") {
				t.Error("the change is still pending")
			}
		})
	}
}

// Old warnings of sections that are not ours do not stand in the way.
func TestBusyboxOldWarningsStay(t *testing.T) {
	j := newJail(t)
	j.write("stub/warnings", "[!] Section @rule[9] (mine) skipped due to invalid options\n", 0o644)
	j.must(Begin(t.Context(), j, j.change("run1", map[string]string{"firewall": "config zone 'hw_zone'\n"})))
	j.must(TakeBack(t.Context(), j, "run1"))
}

func TestBusyboxGrant(t *testing.T) {
	j := newJail(t)
	const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE2v heimweg"
	j.write("etc/dropbear/authorized_keys", "ssh-rsa AAAA other\n", 0o644)
	for range 2 { // twice is once
		j.must(Grant(t.Context(), j, Access{AuthorizedKey: line, PasswordHash: uci.Hidden("$5$salt$abc/def.")}))
	}
	if got := j.read("etc/dropbear/authorized_keys"); got != "ssh-rsa AAAA other\n"+line+"\n" {
		t.Errorf("authorized_keys is %q", got)
	}
	if got := j.read("etc/shadow"); got != "root:$5$salt$abc/def.:0:0:99999:7:::\ndaemon:*:0:0:99999:7:::\n" {
		t.Errorf("shadow is %q", got)
	}
	j.must(Grant(t.Context(), j, Access{PasswordHash: uci.Hidden("$5$other$x")}))
	if strings.Contains(j.read("etc/shadow"), "other") {
		t.Error("a password that was there was replaced")
	}
	info, _ := os.Stat(filepath.Join(j.root, "etc/shadow"))
	if info.Mode().Perm() != 0o600 {
		t.Errorf("shadow has mode %v", info.Mode())
	}
}

func TestBusyboxPeers(t *testing.T) {
	j := newJail(t)
	psk, _ := key.NewPreshared(strings.NewReader(strings.Repeat("p", 32)))
	pub, _ := key.ParsePublic("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
	o := Order{
		ID: "run1", Interface: "wg0", Written: router.Written{Format: 1, ID: "run1"},
		Network: &File{"network", hash(j.read("etc/config/network")), uci.Hidden(newNetwork)},
		Peers:   []PeerChange{{PublicKey: pub, Preshared: psk}},
	}
	s, err := SetPeers(t.Context(), j, o, LookFor{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Written.ID != "run1" || string(s.Config("network").Text()) != newNetwork || s.Locked != "" {
		t.Errorf("snapshot %+v", s)
	}
	if j.read("stub/psk") != psk.Reveal()+"\n" || strings.Contains(j.read("stub/log"), psk.Reveal()) {
		t.Errorf("the preshared key came as %q; arguments %s", j.read("stub/psk"), j.read("stub/log"))
	}
	if _, err = SetPeers(t.Context(), j, o, LookFor{}); refusalCode(err) != "changed" {
		t.Errorf("an order for an older file: %v", err)
	}
	o.Network = &File{"network", hash(newNetwork), uci.Hidden("BROKEN\n")}
	if _, err = SetPeers(t.Context(), j, o, LookFor{}); refusalCode(err) != "unreadable" || j.read("etc/config/network") != newNetwork {
		t.Errorf("a file that the router cannot read: %v, network %q", err, j.read("etc/config/network"))
	}
}

func TestBusyboxInstall(t *testing.T) {
	j := newJail(t)
	j.must(Install(t.Context(), j, Installation{ID: "r", Packages: []string{"wireguard-tools", "nano"}}))
	if log := j.read("stub/log"); !strings.Contains(log, "opkg update\nopkg install wireguard-tools nano\n") {
		t.Errorf("log %q", log)
	}
	j.write("stub/opkgexit", "255", 0o644)
	j.write("stub/opkg", "Collected errors:\n * satisfy_dependencies_for: Cannot satisfy the following dependencies for kmod-wireguard:\n * \tkernel (= 5.10.161-1-x)\n", 0o644)
	err := Install(t.Context(), j, Installation{ID: "r", Packages: []string{"wireguard-tools"}})
	var p *PackageError
	if !errors.As(err, &p) || p.Trouble != TroubleKernel || p.Package != "kmod-wireguard" {
		t.Errorf("got %#v", err)
	}
}

// Packages that are brought along lie in RAM while opkg works, in the order of need,
// and no feed is asked.
func TestBusyboxInstallFiles(t *testing.T) {
	j := newJail(t)
	j.write("bin/df", "#!/bin/sh\nprintf 'Filesystem 1K-blocks Used Available Use%% Mounted on\\ntmpfs 124288 160 1000 0%% /tmp\\n'\n", 0o755)
	in := Installation{ID: "r", Packages: []string{"b"}, Files: []PackageFile{{"c_1.ipk", []byte("of c")}, {"b_1.ipk", []byte("of b")}}}
	if err := Install(t.Context(), j, in); refusalCode(err) != "noram" || j.exists("tmp/heimweg/lock") {
		t.Errorf("no room in RAM: %v", err)
	}
	j.write("bin/df", "#!/bin/sh\nprintf 'Filesystem 1K-blocks Used Available Use%% Mounted on\\ntmpfs 124288 160 124128 0%% /tmp\\n'\n", 0o755)
	j.must(Install(t.Context(), j, in))
	if log := j.read("stub/log"); !strings.Contains(log, "opkg install c_1.ipk b_1.ipk\n") || strings.Contains(log, "opkg update") {
		t.Errorf("log %q", log)
	}
	if j.exists("tmp/heimweg/in") || j.exists("tmp/heimweg/lock") {
		t.Error("the packages or the lock are still there")
	}
	j.write("stub/opkgexit", "255", 0o644)
	j.write("stub/opkg", "Collected errors:\n * satisfy_dependencies_for: Cannot satisfy the following dependencies for kmod-c:\n * \tkernel (= 5.10.161-1-x)\n", 0o644)
	var p *PackageError
	if err := Install(t.Context(), j, in); !errors.As(err, &p) || p.Trouble != TroubleKernel || j.exists("tmp/heimweg/in") {
		t.Errorf("got %#v", err)
	}
}

func TestBusyboxProbe(t *testing.T) {
	j := newJail(t)
	psk, _ := key.NewPreshared(strings.NewReader(strings.Repeat("p", 32)))
	pub, _ := key.ParsePublic("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
	p := Probe{Interface: "wg0", PublicKey: pub, Preshared: psk, TimeToLive: time.Minute}
	if _, err := AddProbe(t.Context(), j, p, LookFor{}); err != nil {
		t.Fatal(err)
	}
	if j.exists("tmp/heimweg/probe/psk") {
		t.Error("the probe's key is still in RAM")
	}
	if _, err := RemoveProbe(t.Context(), j, p); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(j.read("stub/log"), "wg set wg0 peer "+pub.String()+" remove") || j.exists("tmp/heimweg/probe") {
		t.Errorf("log %s", j.read("stub/log"))
	}
}

// osMkdirAll makes folders of the jail.
func osMkdirAll(j *jail, dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(j.root, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}
