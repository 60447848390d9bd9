// Package need lets a test say what it needs from the machine it runs on, and
// stops it by name when that is missing.
//
// Tests with a judge from outside, such as Debian's wireguard-tools, cannot run
// everywhere. On a person's machine such a test is skipped with the name of the
// missing program and its package; where CI=true it fails, because a check that
// nobody sees missing is no check. The package never installs anything: package
// check does, from the same table.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// A Need is something outside Go that tests ask for.
type Need struct {
	Program string // in PATH
	Package string // of Debian, which has it
	Tests   string // what asks for it, for the report
}

// Table lists every need that may be installed without being asked: programs
// only. A package that starts a service, such as openssh-server, is not for us to
// put on somebody's machine: such a test exists only where an environment
// variable names the program.
func Table() []Need {
	return []Need{
		{"wg", "wireguard-tools", "internal/wgconf: every configuration is accepted and read back the same"},
		{"wg-quick", "wireguard-tools", "internal/wgconf: every configuration is accepted"},
		{"wg-quick", "wireguard-tools", "internal/relay: reads a relay's configuration"},
		{"nft", "nftables", "internal/relay: the rules in it"},
		{"busybox", "busybox", "internal/relay: its script is one"},
		{"busybox", "busybox", "internal/openwrt: the scripts under a real ash"},
		{"busybox", "busybox", "internal/shell: scripts arrive whole in a router's shell"},
		{"dash", "dash", "internal/shell: scripts arrive whole in another host's shell"},
		{"bash", "bash", "internal/shell: and in the third"},
		{"unshare", "util-linux", "internal/shell: an account root that only the test's server sees"},
		{"dropbear", "dropbear-bin", "internal/shell: against a real SSH server of the router's kind"},
		{"dropbearkey", "dropbear-bin", "internal/shell: that server's host keys"},
		{"ssh-keygen", "openssh-client", "internal/shell: keys made by another program"},
		{"openssl", "openssl", "internal/shadow: a second implementation of the password hashes"},
		{"cksum", "coreutils", "internal/image/imagetest: the checksum of AVM's images"},
		{"xz", "xz-utils", "internal/image/imagetest: what we pack is unpacked"},
		{"tnftp", "tnftp", "internal/lab/evabox: judges the emulated bootloader"},
		{"inetutils-ftp", "inetutils-ftp", "internal/lab/evabox: judges it, too"},
		{"ftp-ssl", "ftp-ssl", "internal/lab/evabox: and the third with the seeds' own lines"},
		{"ncftpput", "ncftp", "internal/lab/evabox: as Freetz' flasher calls it"},
		{"lftp", "lftp", "internal/lab/evabox: judges the emulated bootloader"},
		{"curl", "curl", "internal/lab/evabox: judges the emulated bootloader"},
		{"python3", "python3", "internal/lab/evabox: ftplib, on which other flashers are built"},
		{"nft", "nftables", "internal/lab/kernel: the firewall model against a kernel"},
		{"signify-openbsd", "signify-openbsd", "internal/firmware: a second implementation of OpenWrt's signatures"},
		{"gpg", "gnupg", "internal/firmware: OpenPGP signatures by another program"},
		// The package has the program only; the service is another one's, miniupnpd.
		{"miniupnpd", "miniupnpd-nftables", "internal/uplink: a real ISP router's UPnP, PCP and NAT-PMP"},
		{"upnpc", "miniupnpc", "internal/lab/igd: judges the emulated ISP router's UPnP"},
		{"natpmpc", "natpmpc", "internal/lab/igd: and its NAT-PMP"},
		{"zbarimg", "zbar-tools", "internal/qr: a second reader of the codes"},
	}
}

// InCI reports whether a missing need is a failure.
func InCI() bool { return os.Getenv("CI") == "true" }

// Long reports whether the long form of property tests is wanted: check -long,
// or HEIMWEG_LONG=1.
func Long() bool { return os.Getenv("HEIMWEG_LONG") == "1" }

// Program returns the path of a program of the Table, or ends the test.
func Program(t testing.TB, name string) string {
	t.Helper()
	for _, n := range Table() {
		if n.Program != name {
			continue
		}
		path, err := exec.LookPath(name)
		if err != nil {
			Missing(t, name, "not installed; Debian's package "+n.Package+" has it")
		}
		return path
	}
	t.Fatalf("%s is not in the table of internal/check/need; add it, so that it gets installed and reported", name)
	return ""
}

// Missing ends a test that cannot have what it needs: skipped by name, or failed
// in CI. Package check looks for this form of words.
func Missing(t testing.TB, name, why string) {
	t.Helper()
	if InCI() {
		t.Fatalf("missing: %s (%s)", name, why)
	}
	t.Skipf("skipped: %s (%s)", name, why)
}
