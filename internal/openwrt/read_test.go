package openwrt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
)

func testKey(t testing.TB, n byte) key.Private {
	t.Helper()
	k, err := key.NewPrivate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testPreshared(t testing.TB, n byte) key.Preshared {
	t.Helper()
	k, err := key.NewPreshared(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Every form that wg prints (wireguard-tools, src/show.c, dump_print).
func TestReadDump(t *testing.T) {
	server, phone, laptop, tv := testKey(t, 1), testKey(t, 2).Public(), testKey(t, 3).Public(), testKey(t, 4).Public()
	psk := testPreshared(t, 9)
	got := readDump([]string{
		"wg0\t" + server.Reveal() + "\t" + server.Public().String() + "\t51820\toff",
		"wg0\t" + phone.String() + "\t" + psk.Reveal() + "\t203.0.113.50:40000\t10.86.20.2/32,fd5a:1::2/128\t1763721000\t1024\t2048\t25",
		"wg0\t" + laptop.String() + "\t(none)\t[2001:db8::7]:40001\t10.86.20.3/32\t0\t0\t148\toff",
		"wg0\t" + tv.String() + "\t(none)\t(none)\t(none)\t0\t0\t0\toff",
		"wg1\t(none)\t(none)\t0\t0xca6c",
	})
	if got["wg0"] == nil || got["wg1"] == nil || len(got) != 2 {
		t.Fatalf("read %v", got)
	}
	w := got["wg0"]
	if w.PublicKey != server.Public() || w.Private != router.Digest(server.Reveal()) || w.ListenPort != 51820 || len(w.Peers) != 3 {
		t.Errorf("wg0: key %s, port %d, %d peers", w.PublicKey, w.ListenPort, len(w.Peers))
	}
	p := w.Peers[0]
	if p.PublicKey != phone || p.Preshared != router.Digest(psk.Reveal()) || p.Endpoint.String() != "203.0.113.50:40000" ||
		fmt.Sprint(p.AllowedIPs) != "[10.86.20.2/32 fd5a:1::2/128]" || !p.Handshake.Equal(time.Unix(1763721000, 0)) ||
		p.Received != 1024 || p.Sent != 2048 || p.Keepalive != 25 {
		t.Errorf("phone: %+v", p)
	}
	p = w.Peers[1]
	if p.Preshared != "" || p.Endpoint.String() != "[2001:db8::7]:40001" || !p.Handshake.IsZero() || p.Sent != 148 || p.Keepalive != 0 {
		t.Errorf("laptop: %+v", p)
	}
	p = w.Peers[2]
	if p.Endpoint.IsValid() || p.AllowedIPs != nil {
		t.Errorf("tv: %+v", p)
	}
	if w := got["wg1"]; w.Private != "" || w.ListenPort != 0 || len(w.Peers) != 0 {
		t.Errorf("wg1: %+v", w)
	}
	if text := fmt.Sprintf("%+v %#v", *got["wg0"], got["wg0"].Peers); strings.Contains(text, psk.Reveal()) || strings.Contains(text, server.Reveal()) {
		t.Error("a secret stayed in what was read")
	}
}

func TestReadDumpLeavesOutWhatItIsNot(t *testing.T) {
	for _, l := range []string{
		"Unable to access interface: Protocol not supported",
		"wg0\tnot a key\t(none)\t(none)\t(none)\t0\t0\t0\toff", // a peer before its device
		"\t\t\t",
	} {
		if got := readDump([]string{l}); len(got) != 0 {
			t.Errorf("%q: %v", l, got)
		}
	}
	got := readDump([]string{"wg0\t(none)\t(none)\t99999\toff", "wg0\tnot a key\t(none)\t(none)\t(none)\t0\t0\t0\toff"})
	if len(got["wg0"].Peers) != 0 {
		t.Errorf("a peer without a key: %+v", got["wg0"])
	}
}

func FuzzReadDump(f *testing.F) {
	f.Add("wg0\tx\ty\t51820\toff\nwg0\t" + testKey(f, 1).Public().String() + "\t(none)\t[::1]:1\t10.0.0.1/32,::/0\t1\t2\t3\t25")
	f.Add("wg0\t(none)\t(none)\t-1\t0x1\nwg0\t\t\t\t\t\t\t\t")
	f.Fuzz(func(t *testing.T, text string) {
		for name, w := range readDump(strings.Split(text, "\n")) {
			if w.Interface != name {
				t.Errorf("%q is called %q", name, w.Interface)
			}
			for _, p := range w.Peers {
				if p.PublicKey == (key.Public{}) && !strings.Contains(text, p.PublicKey.String()) {
					t.Errorf("a peer without a key from %q", text)
				}
			}
		}
	})
}

func TestReadNeighbours(t *testing.T) {
	leases := part{[]byte("1763724600 de:ad:be:ef:00:10 192.168.1.10 nas 01:de:ad:be:ef:00:10\n" +
		"1763724601 de:ad:be:ef:00:11 192.168.1.11 * *\n" +
		"1763724602 de:ad:be:ef:00:12 192.168.1.12 printer *\n" +
		"duid 00010001\n"), 0}
	lines := []string{
		"192.168.1.10 dev br-lan lladdr de:ad:be:ef:00:10 ref 1 used 0/0/0 probes 1 REACHABLE",
		"192.168.1.11 dev br-lan lladdr de:ad:be:ef:00:11 STALE",
		"192.168.1.99 dev br-lan  FAILED",
		"192.168.1.98 dev br-lan  used 0/0/0 probes 6 INCOMPLETE",
		"fe80::1 dev wan lladdr 00:00:00:00:00:01 router STALE",
		"2001:db8::1 dev wan lladdr 00:00:00:00:00:01 router STALE",
		"nonsense dev br-lan",
		"",
	}
	var got []string
	for _, n := range readNeighbours(lines, leases) {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", n.Addr, n.Device, n.Name)))
	}
	want := []string{"192.168.1.10 br-lan nas", "192.168.1.11 br-lan", "2001:db8::1 wan", "192.168.1.12  printer"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if n := readNeighbours(nil, part{[]byte("cat: can't open '/tmp/dhcp.leases': No such file or directory\n"), 1}); n != nil {
		t.Errorf("without leases: %v", n)
	}
}

// The mount tables: first start and after it as fstools makes them (overlay.c,
// facts: OpenWrt section 8), and an image without an overlay.
func TestReadSpace(t *testing.T) {
	const root = "/dev/root /rom squashfs ro,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev,noatime 0 0\n"
	const head = "Filesystem           1K-blocks      Used Available Use% Mounted on\n"
	for _, tt := range []struct {
		name, space, mounts string
		kb                  int64
		temporary           bool
	}{
		{"first start, RAM", head + "overlayfs:/tmp/root     124000      1000    123000   1% /\n",
			root + "tmpfs /tmp/root tmpfs rw,noatime,mode=755 0 0\noverlayfs:/tmp/root / overlay rw,noatime,lowerdir=/,upperdir=/tmp/root/upper,workdir=/tmp/root/work 0 0\n", 123000, true},
		{"jffs2", head + "/dev/mtdblock7            20992       900     20092   4% /overlay\n",
			root + "/dev/mtdblock7 /overlay jffs2 rw,noatime 0 0\noverlayfs:/overlay / overlay rw,noatime,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work 0 0\n", 20092, false},
		{"ubifs", head + "/dev/ubi0_1               81000      1000     75800   1% /overlay\n",
			root + "/dev/ubi0_1 /overlay ubifs rw,noatime,assert=read-only,ubi=0,vol=1 0 0\noverlayfs:/overlay / overlay rw,noatime,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work 0 0\n", 75800, false},
		{"a loop device in the rest of a squashfs partition (x86)", head + "/dev/loop0               100000      4000     96000   4% /overlay\n",
			root + "/dev/loop0 /overlay f2fs rw,lazytime,noatime 0 0\noverlayfs:/overlay / overlay rw,noatime,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work,xino=off 0 0\n", 96000, false},
		{"ext4 without an overlay", head + "/dev/root                102400     18000     84400  18% /\n",
			"/dev/root / ext4 rw,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev,noatime 0 0\n", 84400, false},
		{"a long device name has a line of its own", head + "/dev/mapper/a-very-long-name\n                         20992       900     20092   4% /overlay\n",
			root + "/dev/mapper/a-very-long-name /overlay jffs2 rw 0 0\noverlayfs:/overlay / overlay rw,upperdir=/overlay/upper 0 0\n", 20092, false},
		{"full", head + "/dev/mtdblock7              512       512         0 100% /overlay\n",
			root + "overlayfs:/overlay / overlay rw,noatime,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work 0 0\n", 0, false},
		{"no such folder", "df: /overlay: can't find mount point\n", "/dev/root / ext4 rw 0 0\n", 0, false},
		// After the switch both lines stand there; the later one is what counts.
		{"switched from RAM to flash", head + "/dev/mtdblock7            20992       900     20092   4% /overlay\n",
			root + "overlayfs:/tmp/root / overlay rw,upperdir=/tmp/root/upper 0 0\noverlayfs:/overlay / overlay rw,upperdir=/overlay/upper 0 0\n", 20092, false},
	} {
		s := &router.Snapshot{}
		readSpace(s, parts{"space": {[]byte(tt.space), 0}, "mounts": {[]byte(tt.mounts), 0}})
		if s.Space.OverlayKB != tt.kb || s.Space.Temporary != tt.temporary {
			t.Errorf("%s: %+v, want %d kB, temporary %v", tt.name, s.Space, tt.kb, tt.temporary)
		}
	}
}

func TestReadModes(t *testing.T) {
	got := readModes([]string{
		"total 48",
		"-rw-------    1 root     root           812 Nov 21 10:00 network",
		"-rw-r--r--    1 root     root          2800 Nov 21  2025 firewall",
		"-rwxr-xr-x    1 root     root            10 Nov 21 10:00 odd",
		"lrwxrwxrwx    1 root     root            10 Nov 21 10:00 linked -> /tmp/linked",
		"ls: /etc/config/gone: No such file or directory",
	})
	want := map[string]string{"network": "0600", "firewall": "0644", "odd": "0755", "linked": "0777"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestReadPending(t *testing.T) {
	for text, want := range map[string]router.Pending{
		"a1b2 1763721000 60":      {ID: "a1b2", Since: time.Unix(1763721000, 0), Deadline: time.Minute},
		"a1b2 1763721000 120 xyz": {ID: "a1b2", Since: time.Unix(1763721000, 0), Deadline: 2 * time.Minute},
		"a1b2":                    {ID: "a1b2"},
		"":                        {},
	} {
		if got := readPending(text); *got != want {
			t.Errorf("%q: %+v, want %+v", text, *got, want)
		}
	}
}

// boards are answers of `ubus call system board` with the fields that procd of
// each release gives (facts: OpenWrt section 8).
var boards = map[string]string{
	"21.02.7":  `{"kernel":"5.4.238","hostname":"OpenWrt","system":"ARMv7 Processor rev 5 (v7l)","model":"AVM FRITZ!Box 4040","board_name":"avm,fritzbox-4040","release":{"distribution":"OpenWrt","version":"21.02.7","revision":"r16847-f8282da11e","target":"ipq40xx/generic","description":"OpenWrt 21.02.7 r16847-f8282da11e"}}`,
	"22.03.3":  `{"kernel":"5.10.161","hostname":"OpenWrt","system":"ARMv7 Processor rev 5 (v7l)","model":"AVM FRITZ!Box 4040","board_name":"avm,fritzbox-4040","rootfs_type":"squashfs","release":{"distribution":"OpenWrt","version":"22.03.3","revision":"r20028-43d71ad93e","target":"ipq40xx/generic","description":"OpenWrt 22.03.3 r20028-43d71ad93e"}}`,
	"23.05.6":  `{"kernel":"5.15.189","hostname":"OpenWrt","system":"ARMv7 Processor rev 5 (v7l)","model":"AVM FRITZ!Box 4040","board_name":"avm,fritzbox-4040","rootfs_type":"squashfs","release":{"distribution":"OpenWrt","version":"23.05.6","revision":"r24106","codename":"x","target":"ipq40xx/generic","description":"OpenWrt 23.05.6"}}`,
	"24.10.1":  `{"kernel":"6.6.86","hostname":"OpenWrt","system":"ARMv7 Processor rev 5 (v7l)","model":"AVM FRITZ!Box 4040","board_name":"avm,fritzbox-4040","rootfs_type":"squashfs","release":{"distribution":"OpenWrt","version":"24.10.1","revision":"r28597-0425664679","target":"ipq40xx/generic","description":"OpenWrt 24.10.1","builddate":"1744562312"}}`,
	"25.12.5":  `{"kernel":"6.12.74","hostname":"OpenWrt","system":"ARMv7 Processor rev 5 (v7l)","model":"AVM FRITZ!Box 4040","board_name":"avm,fritzbox-4040","rootfs_type":"squashfs","release":{"distribution":"OpenWrt","firmware_url":"https://downloads.example.net/","version":"25.12.5","revision":"r33051-f5dae5ece4","target":"ipq40xx/generic","description":"OpenWrt 25.12.5","builddate":"1776600000"}}`,
	"SNAPSHOT": `{"hostname":"OpenWrt","model":"AVM FRITZ!Box 4040","board_name":"avm,fritzbox-4040","release":{"distribution":"OpenWrt","version":"SNAPSHOT","revision":"r35000","target":"ipq40xx/generic"}}`,
}

func TestReadBoard(t *testing.T) {
	for version, text := range boards {
		programs := "opkg\nfw4\nubus\nuci\n"
		switch version {
		case "21.02.7":
			programs = "opkg\nfw3\nubus\nuci\n"
		case "25.12.5", "SNAPSHOT":
			programs = "apk\nfw4\nubus\nuci\n"
		}
		s := &router.Snapshot{}
		err := readBoard(s, parts{"board": {[]byte(text), 0}, "info": {[]byte(`{"localtime":1763721000,"uptime":4711,"load":[0,0,0]}`), 0}, "programs": {[]byte(programs), 0}})
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		b := s.Board
		line, _ := router.ParseLine(version)
		if b.Model != "AVM FRITZ!Box 4040" || b.Name != "avm,fritzbox-4040" || b.Hostname != "OpenWrt" || b.Release.Version != version || b.Release.Line != line ||
			b.Release.Target != "ipq40xx/generic" || b.Release.Revision == "" || s.Uptime != 4711*time.Second {
			t.Errorf("%s: %+v, up %s", version, b, s.Uptime)
		}
		if b.Apk != (version == "25.12.5" || version == "SNAPSHOT") || b.Fw4 != (version != "21.02.7") {
			t.Errorf("%s: apk %v, fw4 %v", version, b.Apk, b.Fw4)
		}
	}
	var j *JSONError
	if err := readBoard(&router.Snapshot{}, parts{"board": {[]byte("Command failed: Not found\n"), 4}}); !errors.As(err, &j) || j.Call != "system board" {
		t.Errorf("an answer that is no JSON: %v", err)
	}
}

func TestReadInterface(t *testing.T) {
	var u ubusInterface
	text := `{"interface":"wan","up":true,"pending":false,"l3_device":"pppoe-wan","proto":"pppoe","device":"wan",
"ipv4-address":[{"address":"203.0.113.7","mask":32,"ptpaddress":"203.0.113.1"}],
"ipv6-address":[{"address":"2001:db8:1::7","mask":64}],
"route":[{"target":"0.0.0.0","mask":0,"nexthop":"203.0.113.1","source":"0.0.0.0/0"},{"target":"192.0.2.0","mask":24,"nexthop":"203.0.113.2"},{"target":"0.0.0.0","mask":0,"nexthop":"0.0.0.0"},{"target":"::","mask":0,"nexthop":"fe80::1"}],
"errors":[{"subsystem":"interface","code":"NO_DEVICE"}]}`
	if err := json.Unmarshal([]byte(text), &u); err != nil {
		t.Fatal(err)
	}
	i := readInterface(u)
	if i.Name != "wan" || i.Device != "pppoe-wan" || i.Proto != "pppoe" || !i.Up || fmt.Sprint(i.Addresses) != "[203.0.113.7/32 2001:db8:1::7/64]" ||
		fmt.Sprint(i.Gateways) != "[203.0.113.1 fe80::1]" || !slices.Equal(i.Errors, []string{"interface NO_DEVICE"}) {
		t.Errorf("%+v", i)
	}
	// An interface that is down has no l3_device, and its protocol may be unknown.
	i = readInterface(ubusInterface{Interface: "wg0", Proto: "none", Device: "wg0"})
	if i.Device != "wg0" || i.Up {
		t.Errorf("%+v", i)
	}
}

// The texts are those of libopkg and apk 3.0.5 (facts: OpenWrt 7.3 and 7.4,
// observed section 6).
func TestPackageError(t *testing.T) {
	for _, tt := range []struct {
		name, said string
		want       PackageError
	}{
		{"opkg, no space", "Installing wireguard-tools (1.0.20210914-2) to root...\nCollected errors:\n * pkg_install_precheck: Only have 12kb available on filesystem /overlay, pkg wireguard-tools needs 74\n * opkg_install_cmd: Cannot install package wireguard-tools.\n",
			PackageError{TroubleSpace, "wireguard-tools", 74, 12, "Only have 12kb available on filesystem /overlay, pkg wireguard-tools needs 74"}},
		{"opkg, flash full half way", "Collected errors:\n * extract_archive: Cannot create symlink from x to y: No space left on device.\n * opkg_install_pkg: Package debris may remain!\n",
			PackageError{Trouble: TroubleSpace, Said: "Cannot create symlink from x to y: No space left on device"}},
		{"opkg, kernel", "Collected errors:\n * pkg_hash_check_unresolved: Cannot satisfy the following dependencies for kmod-wireguard:\n * \tkernel (= 5.15.167-1-ab12) * \n * opkg_install_cmd: Cannot install package wireguard-tools.\n",
			PackageError{Trouble: TroubleKernel, Package: "kmod-wireguard"}},
		{"opkg, dependency", "Collected errors:\n * satisfy_dependencies_for: Cannot satisfy the following dependencies for wireguard-tools:\n * \tlibfoo\n",
			PackageError{Trouble: TroubleDependency, Package: "wireguard-tools"}},
		{"opkg, both", " * satisfy_dependencies_for: Cannot satisfy the following dependencies for wireguard-tools:\n * \tkmod-wireguard\n * x: Cannot satisfy the following dependencies for kmod-wireguard:\n * \tkernel (= 6.6.86~ab)\n",
			PackageError{Trouble: TroubleKernel, Package: "kmod-wireguard"}},
		{"opkg, unknown", "Unknown package 'wireguard-toolz'.\nCollected errors:\n * opkg_install_cmd: Cannot install package wireguard-toolz.\n",
			PackageError{Trouble: TroubleNoSuch, Package: "wireguard-toolz", Said: "Unknown package 'wireguard-toolz'"}},
		{"opkg, no network", "Downloading https://downloads.example.net/packages/Packages.gz\n*** Failed to download the package list from https://downloads.example.net/packages/Packages.gz\n\nCollected errors:\n * opkg_download: Failed to download https://downloads.example.net/packages/Packages.gz, wget returned 4.\n * opkg_download: Check your network settings and connectivity.\n",
			PackageError{Trouble: TroubleFeed, Package: "https://downloads.example.net/packages/Packages.gz", Said: "Failed to download the package list from https://downloads.example.net/packages/Packages.gz"}},
		{"opkg, a file", "Collected errors:\n * opkg_download: Failed to download https://downloads.example.net/x.ipk, wget returned 8.\n",
			PackageError{Trouble: TroubleFeed, Package: "https://downloads.example.net/x.ipk"}},
		{"opkg, signature", "Downloading https://downloads.example.net/Packages.sig\nSignature check failed.\nRemove wrong Signature file.\n",
			PackageError{Trouble: TroubleSignature, Said: "Signature check failed"}},
		{"opkg, locked", "Collected errors:\n * opkg_conf_load: Could not lock /var/lock/opkg.lock: Resource temporarily unavailable.\n",
			PackageError{Trouble: TroubleLocked}},
		{"apk, unknown", "ERROR: unable to select packages:\n  wireguard-toolz (no such package):\n    required by: world[wireguard-toolz]\n",
			PackageError{Trouble: TroubleNoSuch, Package: "wireguard-toolz"}},
		{"apk, kernel", "ERROR: unable to select packages:\n  kernel-6.12.74~ab-r1:\n    breaks: kmod-wireguard-6.12.73-r1[kernel=6.12.73~cd-r1]\n    satisfies: world[kernel]\n",
			PackageError{Trouble: TroubleKernel, Package: "kmod-wireguard-6.12.73-r1"}},
		{"apk, no network", "WARNING: updating https://downloads.example.net/packages.adb: remote server returned error (try 'apk update')\n4 unavailable, 0 stale; 132 distinct packages available\n",
			PackageError{Trouble: TroubleFeed}},
		{"apk, locked", "ERROR: Unable to lock database: temporary error (try again later)\nERROR: Failed to open apk database: temporary error (try again later)\n",
			PackageError{Trouble: TroubleLocked, Said: "ERROR: Unable to lock database: temporary error (try again later)"}},
		{"apk, signature", "WARNING: updating https://downloads.example.net/packages.adb: UNTRUSTED signature\n",
			PackageError{Trouble: TroubleSignature}},
		{"apk, flash full", "ERROR: wireguard-tools-1.0.20250521-r1: failed to extract usr/bin/wg: No space left on device\n1 error; 12 MiB in 140 packages\n",
			PackageError{Trouble: TroubleSpace}},
		{"not known", "Something new.\n\nIt went wrong here.\n", PackageError{Trouble: TroubleUnknown, Said: "It went wrong here"}},
		{"nothing said", "", PackageError{}},
	} {
		got := packageError(tt.said)
		if got.Trouble != tt.want.Trouble || got.Package != tt.want.Package || got.NeedKB != tt.want.NeedKB || got.HaveKB != tt.want.HaveKB || tt.want.Said != "" && got.Said != tt.want.Said {
			t.Errorf("%s: %+v, want %+v", tt.name, *got, tt.want)
		}
		if strings.Contains(got.Said, "\n") {
			t.Errorf("%s: %q is more than a line", tt.name, got.Said)
		}
	}
	if got := packageError(strings.Repeat("x", 1000)); len(got.Said) > 210 {
		t.Errorf("%d bytes said", len(got.Said))
	}
}

func FuzzReadSnapshot(f *testing.F) {
	f.Add([]byte(boards["24.10.1"]), []byte(`{"interface":[{"interface":"lan","ipv4-address":[{"address":"192.168.1.1","mask":24}]}]}`), "wg0\tx\ty\t1\toff")
	f.Add([]byte(`{"release":null}`), []byte(`{"interface":[{"ipv4-address":[{"address":"1.1.1.1","mask":-9}]}]}`), "\t\t\t\t")
	f.Fuzz(func(t *testing.T, board, dump []byte, lines string) {
		p := part{[]byte(lines), 0}
		readSnapshot(parts{"board": {board, 0}, "interfaces": {dump, 0}, "handlers": {[]byte("{}"), 0}, "wg": p, "modes": p, "neighbours": p,
			"leases": p, "space": p, "mounts": p, "pending": p, "lock": p, "written": p, "keys": p, "file.network": p, "firewall": p})
	})
}

// The routing table and silent neighbours, as busybox and iproute2 print them.
func TestReadRoutes(t *testing.T) {
	four := readRoutes(strings.Split(`default via 192.168.2.254 dev wan proto static src 192.168.2.253
10.86.20.0/24 dev wg0 proto kernel scope link src 10.86.20.1
192.168.3.0/24 via 192.168.1.9 dev br-lan metric 10
198.51.100.9 via 192.168.2.254 dev wan proto static
unreachable 10.0.0.0/8
broadcast 192.168.1.255 dev br-lan scope link
nonsense
`, "\n"), 4)
	six := readRoutes([]string{"fd00::/64 dev br-lan metric 1024", "default from 2001:db8::/64 via fe80::1 dev wan metric 512",
		"unreachable fd00::/48 dev lo metric 2147483647", "local ::1 dev lo"}, 6)
	var got []string
	for _, r := range append(four, six...) {
		via := ""
		if r.Via.IsValid() {
			via = r.Via.String()
		}
		got = append(got, strings.Join([]string{r.Dst.String(), via, r.Device, strconv.Itoa(r.Metric)}, " "))
	}
	want := []string{"0.0.0.0/0 192.168.2.254 wan 0", "10.86.20.0/24  wg0 0", "192.168.3.0/24 192.168.1.9 br-lan 10",
		"198.51.100.9/32 192.168.2.254 wan 0", "10.0.0.0/8   0", "fd00::/64  br-lan 1024", "::/0 fe80::1 wan 512", "fd00::/48   2147483647"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	silent := readSilent([]string{"192.168.1.10 dev br-lan lladdr 02:00:00:00:01:02 REACHABLE", "192.168.1.77 dev br-lan FAILED", "x dev y FAILED"})
	if len(silent) != 1 || silent[0].String() != "192.168.1.77" {
		t.Errorf("silent: %v", silent)
	}
}
