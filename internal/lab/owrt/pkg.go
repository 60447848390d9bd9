package owrt

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
	"github.com/heimweg/heimweg/internal/router"
)

// Feed is what the package servers are like, as seen from the box.
type Feed struct {
	Unreachable    bool // besides: the box needs a default route by an interface that is up
	BadSignature   bool
	KernelMismatch bool // the running image is not an official build: no kmod fits
	// Broken packages fail to download.
	Broken []string
	// IPTrap: wireguard-tools wants a package `ip` that nothing provides by
	// itself, as on 25.12.2 and 25.12.3 (openwrt/openwrt#23136). Installing
	// ip-tiny or ip-full beside it helps.
	IPTrap bool
	// Locked: another package manager holds the lock.
	Locked bool
	// Delay of every download.
	Delay time.Duration
}

// SetFeed changes the package servers.
func (b *Box) SetFeed(f Feed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opt.Feed = f
}

func (b *Box) feed() Feed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opt.Feed
}

// pkgDef is a package of the feeds. Sizes are rounded; what the image holds is
// in base.
type pkgDef struct {
	name    string
	size    int64 // on flash
	depends []string
	files   map[string]string // path → program name, or text after "="
	base    bool
	luci    bool
	from    router.Line // zero: all
	until   router.Line // last line that has it; zero: all
}

// The packages (facts 7.1): wireguard-tools pulls kmod-wireguard and that its crypto.
var feedPackages = []pkgDef{
	{name: "base-files", base: true}, {name: "busybox", base: true}, {name: "dropbear", base: true}, {name: "dnsmasq", base: true},
	{name: "netifd", base: true}, {name: "uci", base: true}, {name: "procd", base: true}, {name: "kernel", base: true}, {name: "ubus", base: true}, {name: "odhcpd-ipv6only", base: true},
	{name: "firewall", base: true, until: router.Line2102}, {name: "firewall4", base: true, from: router.Line2203}, {name: "uclient-fetch", base: true}, {name: "ca-bundle", base: true},
	{name: "opkg", base: true, until: router.Line2410}, {name: "apk-mbedtls", base: true, from: router.Line2512},
	{name: "rpcd", luci: true}, {name: "uhttpd", luci: true}, {name: "luci-base", luci: true}, {name: "luci", luci: true},

	{name: "kmod-crypto-lib-chacha20", size: 9000}, {name: "kmod-crypto-lib-poly1305", size: 9000},
	{name: "kmod-crypto-lib-chacha20poly1305", size: 4000, depends: []string{"kmod-crypto-lib-chacha20", "kmod-crypto-lib-poly1305"}},
	{name: "kmod-crypto-lib-curve25519", size: 14000}, {name: "kmod-udptunnel4", size: 4000}, {name: "kmod-udptunnel6", size: 4000},
	{name: "kmod-wireguard", size: 72000, depends: []string{"kmod-crypto-lib-chacha20poly1305", "kmod-crypto-lib-curve25519", "kmod-udptunnel4", "kmod-udptunnel6"},
		files: map[string]string{"/etc/modules.d/33-wireguard": "=wireguard\n"}},
	{name: "wireguard-tools", size: 34000, depends: []string{"kmod-wireguard"},
		files: map[string]string{"/usr/bin/wg": "wg", "/lib/netifd/proto/wireguard.sh": "=#!/bin/sh\n# the protocol handler\n", "/usr/bin/wireguard_watchdog": "=#!/bin/sh\n"}},
	{name: "luci-proto-wireguard", size: 24000, depends: []string{"wireguard-tools"}},
	{name: "luci-app-wireguard", size: 6000, depends: []string{"luci-proto-wireguard"}, until: router.Line2305},
	{name: "ip-tiny", size: 140000}, {name: "ip-full", size: 240000}, {name: "resolveip", size: 5000},
	{name: "libncurses6", size: 170000}, {name: "libqrencode", size: 30000},
	{name: "nano", size: 90000, depends: []string{"libncurses6"}, files: map[string]string{"/usr/bin/nano": "true"}},
	{name: "mc", size: 620000, depends: []string{"libncurses6"}, files: map[string]string{"/usr/bin/mc": "true"}},
	{name: "htop", size: 120000, depends: []string{"libncurses6"}, files: map[string]string{"/usr/bin/htop": "true"}},
	{name: "qrencode", size: 20000, depends: []string{"libqrencode"}},
	{name: "ddns-scripts", size: 60000, depends: []string{"ddns-scripts-services"}, files: map[string]string{
		"/etc/config/ddns": "=" + ddnsConfig, "/etc/init.d/ddns": "=" + ddnsInit, "/etc/hotplug.d/iface/95-ddns": "=" + ddnsHotplug,
		"/usr/lib/ddns/dynamic_dns_updater.sh": "dynamic_dns_updater.sh"}},
	{name: "ddns-scripts-services", size: 30000}, {name: "ddns-scripts-cloudflare", size: 9000, depends: []string{"ddns-scripts", "curl"}},
	{name: "curl", size: 120000}, {name: "tcpdump-mini", size: 290000}, {name: "openssh-sftp-server", size: 60000},
	{name: "wg-installer-server", size: 20000, depends: []string{"wireguard-tools"}, files: installerFiles},
}

type packages struct {
	s  *system
	mu sync.Mutex // one installer at a time
	// came are packages that came along with others in this life of the box.
	came map[string]bool
}

func newPackages(s *system) *packages { return &packages{s: s, came: map[string]bool{}} }

func find(line router.Line, name string) (pkgDef, bool) {
	for _, d := range feedPackages {
		if d.name == name && (d.from == router.Line{} || line.AtLeast(d.from)) && (d.until == router.Line{} || !d.until.Before(line)) {
			return d, true
		}
	}
	return pkgDef{}, false
}

func pkgVersion(line router.Line, name string) string {
	v := "1"
	switch {
	case name == "wireguard-tools":
		v = map[router.Line]string{router.Line2102: "1.0.20210223", router.Line2203: "1.0.20210424", router.Line2305: "1.0.20210914", router.Line2410: "1.0.20210914", router.Line2512: "1.0.20250521"}[line]
	case name == "kernel":
		return releases[line].kernel + "-1-" + releases[line].vermagic
	case strings.HasPrefix(name, "kmod-"):
		v = releases[line].kernel
	}
	if line.AtLeast(router.Line2410) {
		return v + "-r1"
	}
	return v + "-1"
}

func (k *packages) file() string {
	if k.s.line.AtLeast(router.Line2512) {
		return "/lib/apk/db/installed"
	}
	return "/usr/lib/opkg/status"
}

// installed reads the list on flash: name → version.
func (k *packages) installed() map[string]string {
	m := map[string]string{}
	data, _ := k.s.fs.ReadFile(k.file())
	name := ""
	for _, l := range strings.Split(string(data), "\n") {
		key, v, _ := strings.Cut(l, ":")
		switch key {
		case "Package", "P":
			name = strings.TrimSpace(v)
		case "Version", "V":
			if name != "" {
				m[name] = strings.TrimSpace(v)
			}
		}
	}
	return m
}

// pkgText is the list as the manager writes it; auto are those that only came
// along.
func pkgText(line router.Line, names map[string]string, auto map[string]bool) string {
	var l []string
	for n := range names {
		l = append(l, n)
	}
	sort.Strings(l)
	var b strings.Builder
	for _, n := range l {
		if line.AtLeast(router.Line2512) {
			fmt.Fprintf(&b, "P:%s\nV:%s\nA:arm_cortex-a7_neon-vfpv4\n\n", n, names[n])
		} else {
			along := ""
			if auto[n] {
				along = "Auto-Installed: yes\n"
			}
			fmt.Fprintf(&b, "Package: %s\nVersion: %s\nStatus: install user installed\nArchitecture: arm_cortex-a7_neon-vfpv4\n%s\n", n, names[n], along)
		}
	}
	return b.String()
}

// packageFiles puts the list of the image's packages in place.
func (b *Box) packageFiles(f *boxfs.FS) {
	m := map[string]string{}
	for _, d := range feedPackages {
		if _, ok := find(b.Line(), d.name); ok && (d.base || d.luci && b.opt.LuCI) {
			m[d.name] = pkgVersion(b.Line(), d.name)
		}
	}
	put := func(name, text string) {
		f.MkdirAll(name[:strings.LastIndex(name, "/")], 0o755)
		f.WriteFile(name, []byte(text), 0o644)
	}
	k := &packages{s: &system{b: b, fs: f, line: b.Line()}}
	for _, name := range b.fw.Load().packages {
		all, _ := k.closure(name, m, map[string]bool{})
		for _, d := range all {
			k.unpack(d)
			m[d.name] = pkgVersion(b.Line(), d.name)
		}
	}
	if b.Line().AtLeast(router.Line2512) {
		put("/lib/apk/db/installed", pkgText(b.Line(), m, nil))
		put("/rom/lib/apk/db/installed", pkgText(b.Line(), m, nil))
		var names []string
		for n := range m {
			names = append(names, n)
		}
		sort.Strings(names)
		put("/etc/apk/world", strings.Join(names, "\n")+"\n")
		put("/rom/etc/apk/world", strings.Join(names, "\n")+"\n")
		put("/etc/apk/repositories.d/distfeeds.list", "https://downloads.openwrt.org/releases/"+b.Version()+"/packages/arm_cortex-a7_neon-vfpv4/base/packages.adb\n")
		return
	}
	put("/usr/lib/opkg/status", pkgText(b.Line(), m, nil))
	put("/rom/usr/lib/opkg/status", pkgText(b.Line(), m, nil))
	put("/etc/opkg.conf", "dest root /\ndest ram /tmp\nlists_dir ext /var/opkg-lists\noption overlay_root /overlay\noption check_signature\n")
	put("/etc/opkg/distfeeds.conf", "src/gz openwrt_core https://downloads.openwrt.org/releases/"+b.Version()+"/targets/ipq40xx/generic/packages\nsrc/gz openwrt_base https://downloads.openwrt.org/releases/"+b.Version()+"/packages/arm_cortex-a7_neon-vfpv4/base\n")
}

// hasModule reports whether a kernel module is installed, and so loaded: opkg
// loads it at installation, the boot from /etc/modules.d.
func (k *packages) hasModule(name string) bool {
	st, err := k.s.fs.Stat("/lib/modules/" + releases[k.s.line].kernel + "/" + name + ".ko")
	return err == nil && st.Length > 0
}

func (k *packages) modules() string {
	var b strings.Builder
	list, _ := k.s.fs.ReadDir("/lib/modules/" + releases[k.s.line].kernel)
	for _, e := range list {
		fmt.Fprintf(&b, "%s 65536 0 - Live 0x00000000\n", strings.ReplaceAll(strings.TrimSuffix(e.Base, ".ko"), "-", "_"))
	}
	return b.String()
}

// reach reports whether the servers can be reached just now.
func (k *packages) reach(p *ash.Proc) bool {
	f := k.s.b.feed()
	if f.Delay > 0 {
		p.Sleep(f.Delay)
	}
	if f.Unreachable {
		return false
	}
	for _, i := range k.s.net.list() {
		if i.up && len(i.gateways) > 0 {
			return true
		}
	}
	return false
}

// closure lists a package with what it needs and does not have, dependencies first.
func (k *packages) closure(name string, have map[string]string, seen map[string]bool) (list []pkgDef, missing string) {
	if seen[name] || have[name] != "" {
		return nil, ""
	}
	seen[name] = true
	d, ok := find(k.s.line, name)
	if !ok || d.base || d.luci {
		return nil, name
	}
	for _, dep := range d.depends {
		l, m := k.closure(dep, have, seen)
		if m != "" {
			return nil, m
		}
		list = append(list, l...)
	}
	return append(list, d), ""
}

// unpack writes a package's files to flash. Nobody syncs.
func (k *packages) unpack(d pkgDef) error {
	f := k.s.fs
	put := func(name string, data []byte, mode int) error {
		if err := f.MkdirAll(name[:strings.LastIndex(name, "/")], 0o755); err != nil {
			return err
		}
		return f.WriteFile(name, data, modeOf(mode))
	}
	ballast := d.size
	main := "/usr/lib/" + d.name + ".bin"
	if mod, ok := strings.CutPrefix(d.name, "kmod-"); ok {
		main = "/lib/modules/" + releases[k.s.line].kernel + "/" + mod + ".ko"
	}
	pad := make([]byte, ballast)
	r := rand.New(rand.NewPCG(uint64(len(d.name)), 1))
	for i := range pad {
		pad[i] = byte(r.Uint32())
	}
	if err := put(main, pad, 0o644); err != nil {
		return err
	}
	var names []string
	for n := range d.files {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		v := d.files[n]
		data := ash.ELF(v)
		if t, ok := strings.CutPrefix(v, "="); ok {
			data = []byte(t)
		}
		if err := put(n, data, 0o755); err != nil {
			return err
		}
	}
	return k.settle(d)
}

func (k *packages) wipe(d pkgDef) {
	f := k.s.fs
	main := "/usr/lib/" + d.name + ".bin"
	if mod, ok := strings.CutPrefix(d.name, "kmod-"); ok {
		main = "/lib/modules/" + releases[k.s.line].kernel + "/" + mod + ".ko"
	}
	f.Remove(main)
	for n := range d.files {
		f.Remove(n)
	}
}

func (k *packages) record(have map[string]string) error {
	tmp := k.file() + ".new"
	if err := k.s.fs.WriteFile(tmp, []byte(pkgText(k.s.line, have, k.along())), 0o644); err != nil {
		k.s.fs.Remove(tmp)
		return err
	}
	return k.s.fs.Rename(tmp, k.file())
}

// origins is installed_packages.txt: name, tab, rom or overlay.
func (k *packages) origins() string {
	inROM := map[string]bool{}
	text, _ := k.s.fs.ReadFile("/rom" + k.file())
	for _, l := range strings.Split(string(text), "\n") {
		for _, mark := range []string{"Package: ", "P:"} {
			if n, ok := strings.CutPrefix(l, mark); ok {
				inROM[n] = true
			}
		}
	}
	var lines []string
	for n := range k.installed() {
		lines = append(lines, n+"\t"+map[bool]string{true: "rom", false: "overlay"}[inROM[n]])
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

// along are the packages that nobody asked for by name.
func (k *packages) along() map[string]bool {
	m := map[string]bool{}
	data, _ := k.s.fs.ReadFile(k.file())
	name := ""
	for _, l := range strings.Split(string(data), "\n") {
		if n, ok := strings.CutPrefix(l, "Package: "); ok {
			name = n
		}
		if l == "Auto-Installed: yes" {
			m[name] = true
		}
	}
	for n, along := range k.came {
		m[n] = along
	}
	return m
}

func (k *packages) broken(name string) bool {
	for _, n := range k.s.b.feed().Broken {
		if n == name {
			return true
		}
	}
	return false
}

const opkgLists = "/tmp/opkg-lists"

// opkgProgram is opkg (facts 7.3; observed 6).
func (s *system) opkgProgram(p *ash.Proc, args []string) int {
	k := s.pkg
	var a []string
	force, again := false, false
	for _, x := range args[1:] {
		if strings.HasPrefix(x, "-") {
			again = again || x == "--force-reinstall"
			force = force || x == "--force-removal-of-dependent-packages" || x == "--force-depends"
			continue
		}
		a = append(a, x)
	}
	if len(a) == 0 {
		fmt.Fprintln(p.Stderr(), "opkg must have one sub-command argument")
		return 1
	}
	switch a[0] {
	case "list-installed":
		have := k.installed()
		var names []string
		for n := range have {
			if len(a) < 2 || ash.Match(a[1], n) {
				names = append(names, n)
			}
		}
		sort.Strings(names)
		for _, n := range names {
			fmt.Fprintf(p.Stdout(), "%s - %s\n", n, have[n])
		}
		return 0
	case "status", "info":
		for _, n := range a[1:] {
			if v, ok := k.installed()[n]; ok {
				fmt.Fprintf(p.Stdout(), "Package: %s\nVersion: %s\nStatus: install user installed\nArchitecture: arm_cortex-a7_neon-vfpv4\n\n", n, v)
			}
		}
		return 0
	case "list-upgradable", "configure", "print-architecture":
		return 0
	case "list":
		if _, err := s.fs.Stat(opkgLists); err == nil {
			for _, d := range feedPackages {
				if _, ok := find(s.line, d.name); ok && (len(a) < 2 || ash.Match(a[1], d.name)) {
					fmt.Fprintf(p.Stdout(), "%s - %s\n", d.name, pkgVersion(s.line, d.name))
				}
			}
		}
		return 0
	}
	if s.b.feed().Locked || !k.mu.TryLock() {
		fmt.Fprintln(p.Stderr(), "Collected errors:\n * opkg_conf_load: Could not lock /var/lock/opkg.lock: Resource temporarily unavailable.")
		return 255
	}
	defer k.mu.Unlock()
	switch a[0] {
	case "update":
		return k.opkgUpdate(p)
	case "install":
		return k.opkgInstall(p, a[1:], again)
	case "remove":
		return k.opkgRemove(p, a[1:], force)
	}
	fmt.Fprintf(p.Stderr(), "opkg: unknown sub-command %s\n", a[0])
	return 255
}

// opkgUpdate: the exit code is the number of failed downloads; with no network
// 3 was seen.
func (k *packages) opkgUpdate(p *ash.Proc) int {
	base := "https://downloads.openwrt.org/releases/" + k.s.b.Version()
	feeds := []string{base + "/targets/ipq40xx/generic/packages", base + "/packages/arm_cortex-a7_neon-vfpv4/base", base + "/packages/arm_cortex-a7_neon-vfpv4/packages"}
	if !k.reach(p) {
		for _, u := range feeds {
			fmt.Fprintf(p.Stdout(), "Downloading %s/Packages.gz\n", u)
			fmt.Fprintf(p.Stderr(), "*** Failed to download the package list from %s/Packages.gz\n\n", u)
		}
		fmt.Fprintln(p.Stderr(), "Collected errors:")
		for _, u := range feeds {
			fmt.Fprintf(p.Stderr(), " * opkg_download: Failed to download %s/Packages.gz, wget returned 4.\n * opkg_download: Check your network settings and connectivity.\n \n", u)
		}
		return len(feeds)
	}
	bad := 0
	k.s.fs.MkdirAll(opkgLists, 0o755)
	for i, u := range feeds {
		name := []string{"openwrt_core", "openwrt_base", "openwrt_packages"}[i]
		fmt.Fprintf(p.Stdout(), "Downloading %s/Packages.gz\nUpdated list of available packages in /var/opkg-lists/%s\nDownloading %s/Packages.sig\n", u, name, u)
		if k.s.b.feed().BadSignature {
			fmt.Fprintln(p.Stderr(), "Signature check failed.\nRemove wrong Signature file.")
			bad++
			continue
		}
		fmt.Fprintln(p.Stdout(), "Signature check passed.")
		k.s.fs.WriteFile(opkgLists+"/"+name, []byte("Packages\n"), 0o644)
	}
	return bad
}

// opkgInstall installs; again also what is there already (--force-reinstall).
func (k *packages) opkgInstall(p *ash.Proc, names []string, again bool) int {
	var errs []string
	st := 0
	list, _ := k.s.fs.ReadDir(opkgLists)
	hand, names, why := k.byHand(p, names)
	if why != "" {
		fmt.Fprintf(p.Stderr(), "Collected errors:\n * %s\n", why)
		return 255
	}
	for _, name := range names {
		have := k.installed()
		if again {
			delete(have, name)
		}
		if v, ok := have[name]; ok && (hand[name].name == "" || hand[name].version == v) {
			fmt.Fprintf(p.Stdout(), "Package %s (%s) installed in root is up to date.\n", name, v)
			continue
		}
		fail := func(lines ...string) {
			st = 255
			errs = append(errs, lines...)
		}
		if f, ok := hand[name]; ok {
			all, why := k.fromHand(f, hand, have, map[string]bool{})
			if why != nil {
				fail(append(why, "opkg_install_cmd: Cannot install package "+name+".")...)
			}
			for _, d := range all {
				k.came[d.name] = hand[d.name].name == ""
				if e := k.opkgOne(p, d, hand[d.name].version, have); e != "" {
					fail(strings.Split(e, "\n")...)
					break
				}
			}
			continue
		}
		if _, ok := find(k.s.line, name); !ok || len(list) == 0 {
			fmt.Fprintf(p.Stdout(), "Unknown package '%s'.\n", name)
			fail("opkg_install_cmd: Cannot install package " + name + ".")
			continue
		}
		all, missing := k.closure(name, have, map[string]bool{})
		if missing != "" {
			fail(fmt.Sprintf("satisfy_dependencies_for: Cannot satisfy the following dependencies for %s:", name), missing)
			continue
		}
		if why := k.mismatch(all); why != "" {
			fail(fmt.Sprintf("pkg_hash_fetch_best_installation_candidate: Packages for %s found, but incompatible with the architectures configured", why),
				fmt.Sprintf("satisfy_dependencies_for: Cannot satisfy the following dependencies for %s:", why),
				fmt.Sprintf("\tkernel (= %s-1-%s)", releases[k.s.line].kernel, "ffffffffffffffffffffffffffffffff"), "opkg_install_cmd: Cannot install package "+name+".")
			continue
		}
		for i := len(all) - 1; i >= 0; i-- { // the wanted one is named first
			d := all[len(all)-1-i]
			k.came[d.name] = d.name != name && !slices.Contains(names, d.name)
			if e := k.opkgOne(p, d, "", have); e != "" {
				fail(strings.Split(e, "\n")...)
				break
			}
		}
	}
	if len(errs) > 0 {
		fmt.Fprintln(p.Stderr(), "Collected errors:")
		for _, e := range errs {
			fmt.Fprintf(p.Stderr(), " * %s\n", e)
		}
	}
	return st
}

func (k *packages) mismatch(all []pkgDef) string {
	if !k.s.b.feed().KernelMismatch {
		return ""
	}
	for _, d := range all {
		if strings.HasPrefix(d.name, "kmod-") {
			return d.name
		}
	}
	return ""
}

// opkgOne installs one package: from a file that was given, of version v, or with ""
// from the feeds.
func (k *packages) opkgOne(p *ash.Proc, d pkgDef, v string, have map[string]string) string {
	p.Check()
	given := v != ""
	if !given {
		v = pkgVersion(k.s.line, d.name)
	}
	fmt.Fprintf(p.Stdout(), "Installing %s (%s) to root...\n", d.name, v)
	if !given {
		if why := k.opkgFetch(p, d, v); why != "" {
			return why
		}
	}
	if free := k.s.fs.Capacity() - k.s.fs.Used(); free < d.size {
		return fmt.Sprintf("verify_pkg_installable: Only have %dkb available on filesystem /overlay, pkg %s needs %d\nopkg_install_cmd: Cannot install package %s.", free/1024, d.name, (d.size+1023)/1024, d.name)
	}
	if err := k.unpack(d); err != nil {
		p.Check()
		return fmt.Sprintf("gz_write: Failed to write to %s: %s.\nPackage debris may remain!\nopkg_install_cmd: Cannot install package %s.", d.name, ash.ErrText(err), d.name)
	}
	fmt.Fprintf(p.Stdout(), "Configuring %s.\n", d.name)
	have[d.name] = v
	if err := k.record(have); err != nil {
		p.Check()
		return "opkg_conf_write_status_files: " + ash.ErrText(err)
	}
	return ""
}

func (k *packages) opkgFetch(p *ash.Proc, d pkgDef, v string) (why string) {
	url := fmt.Sprintf("https://downloads.openwrt.org/releases/%s/packages/%s_%s_arm_cortex-a7_neon-vfpv4.ipk", k.s.b.Version(), d.name, v)
	fmt.Fprintf(p.Stdout(), "Downloading %s\n", url)
	if k.broken(d.name) || !k.reach(p) {
		return fmt.Sprintf("opkg_download: Failed to download %s, wget returned 4.\nopkg_download: Check your network settings and connectivity.\n\nopkg_install_pkg: Failed to download %s. Perhaps you need to run 'opkg update'?\nopkg_install_cmd: Cannot install package %s.", url, d.name, d.name)
	}
	return ""
}

func (k *packages) opkgRemove(p *ash.Proc, names []string, force bool) int {
	st := 0
	have := k.installed()
	for _, n := range names {
		if have[n] == "" {
			fmt.Fprintf(p.Stdout(), "No packages removed.\n")
			continue
		}
		var needed []string
		for o := range have {
			if d, ok := find(k.s.line, o); ok {
				for _, dep := range d.depends {
					if dep == n {
						needed = append(needed, o)
					}
				}
			}
		}
		if len(needed) > 0 && !force {
			fmt.Fprintf(p.Stderr(), "No packages removed.\nCollected errors:\n * print_dependents_warning: Package %s is depended upon by packages:\n", n)
			for _, o := range needed {
				fmt.Fprintf(p.Stderr(), " * print_dependents_warning: \t%s\n", o)
			}
			st = 255
			continue
		}
		d, _ := find(k.s.line, n)
		fmt.Fprintf(p.Stdout(), "Removing package %s from root...\n", n)
		k.wipe(d)
		delete(have, n)
		k.record(have)
	}
	return st
}

const apkCache = "/tmp/cache/apk"

// apkProgram is apk 3 (facts 7.4; observed 6).
func (s *system) apkProgram(p *ash.Proc, args []string) int {
	k := s.pkg
	var a []string
	opt := map[string]bool{}
	for _, x := range args[1:] {
		if strings.HasPrefix(x, "-") {
			opt[x] = true
			continue
		}
		a = append(a, x)
	}
	if len(a) == 0 {
		fmt.Fprintln(p.Stderr(), "apk-tools 3.0.5, compiled for arm_cortex-a7_neon-vfpv4.")
		return 1
	}
	have := k.installed()
	switch a[0] {
	case "info":
		if opt["-e"] || opt["--installed"] {
			missing := 0
			for _, n := range a[1:] {
				if have[n] != "" {
					fmt.Fprintln(p.Stdout(), n)
				} else {
					missing++
				}
			}
			return missing
		}
		fallthrough
	case "list":
		var names []string
		for n := range have {
			if len(a) < 2 || ash.Match(a[1], n) {
				names = append(names, n)
			}
		}
		sort.Strings(names)
		for _, n := range names {
			if a[0] == "info" {
				fmt.Fprintln(p.Stdout(), n)
			} else {
				fmt.Fprintf(p.Stdout(), "%s-%s arm_cortex-a7_neon-vfpv4 {%s} (GPL-2.0) [installed]\n", n, have[n], n)
			}
		}
		return 0
	case "audit", "version", "cache", "policy":
		return 0
	}
	if s.b.feed().Locked || !k.mu.TryLock() {
		fmt.Fprintln(p.Stderr(), "ERROR: Unable to lock database: Resource temporarily unavailable\nERROR: Failed to open apk database: Resource temporarily unavailable")
		return 99
	}
	defer k.mu.Unlock()
	switch a[0] {
	case "update":
		return k.apkUpdate(p)
	case "add":
		if opt["-U"] || opt["--update-cache"] {
			if st := k.apkUpdate(p); st != 0 {
				_ = st // apk goes on with what it has
			}
		}
		return k.apkAdd(p, a[1:], opt["--simulate"] || opt["-s"])
	case "del":
		return k.apkDel(p, a[1:])
	case "fix":
		return k.apkFix(p, a[1:])
	}
	fmt.Fprintf(p.Stderr(), "apk: '%s' is not an apk command.\n", a[0])
	return 1
}

func (k *packages) apkUpdate(p *ash.Proc) int {
	url := "https://downloads.openwrt.org/releases/" + k.s.b.Version() + "/packages/arm_cortex-a7_neon-vfpv4/"
	feeds := []string{"base", "luci", "packages"}
	ok := k.reach(p)
	bad := 0
	k.s.fs.MkdirAll(apkCache, 0o755)
	for _, f := range feeds {
		switch {
		case !ok:
			fmt.Fprintf(p.Stderr(), "WARNING: updating %s%s/packages.adb: network connection aborted\n", url, f)
			bad++
		case k.s.b.feed().BadSignature:
			fmt.Fprintf(p.Stderr(), "WARNING: updating %s%s/packages.adb: UNTRUSTED signature\n", url, f)
			bad++
		default:
			fmt.Fprintf(p.Stdout(), " [%s%s/packages.adb]\n", url, f)
			k.s.fs.WriteFile(apkCache+"/"+f+".adb", []byte("ADB\n"), 0o644)
		}
	}
	if bad > 0 {
		fmt.Fprintf(p.Stdout(), "%d unavailable, 0 stale; %d distinct packages available\n", bad, len(k.installed()))
		return bad
	}
	fmt.Fprintf(p.Stdout(), "OK: %d distinct packages available\n", 9000+len(feedPackages))
	return 0
}

// apkFix puts the files of installed packages back (apk fix --reinstall).
func (k *packages) apkFix(p *ash.Proc, names []string) int {
	have := k.installed()
	for _, n := range names {
		d, ok := find(k.s.line, n)
		if !ok || have[n] == "" {
			fmt.Fprintf(p.Stderr(), "ERROR: %s: package not found\n", n)
			return 1
		}
		if err := k.unpack(d); err != nil {
			p.Check()
			fmt.Fprintf(p.Stderr(), "ERROR: %s: %s\n", n, ash.ErrText(err))
			return 1
		}
	}
	fmt.Fprintf(p.Stdout(), "OK: %d packages\n", len(have))
	return 0
}

func (k *packages) apkAdd(p *ash.Proc, names []string, simulate bool) int {
	have := k.installed()
	index, _ := k.s.fs.ReadDir(apkCache)
	var todo []pkgDef
	var errs []string
	seen := map[string]bool{}
	withIP := have["ip-tiny"] != "" || have["ip-full"] != ""
	for _, n := range names {
		withIP = withIP || n == "ip-tiny" || n == "ip-full"
	}
	for _, n := range names {
		if have[n] != "" {
			continue
		}
		all, missing := k.closure(n, have, seen)
		if len(index) == 0 {
			missing = n
		}
		switch {
		case missing == n:
			errs = append(errs, fmt.Sprintf("  %s (no such package):\n    required by: world[%s]", n, n))
		case missing != "":
			errs = append(errs, fmt.Sprintf("  %s (no such package):\n    required by: %s", missing, n))
		}
		todo = append(todo, all...)
	}
	for _, d := range todo {
		if d.name == "wireguard-tools" && k.s.b.feed().IPTrap && !withIP {
			errs = append(errs, fmt.Sprintf("  ip (no such package):\n    required by: wireguard-tools-%s[ip]", pkgVersion(k.s.line, d.name)))
		}
	}
	if m := k.mismatch(todo); m != "" {
		errs = append(errs, fmt.Sprintf("  kernel-%s:\n    breaks: %s-%s[kernel=%s~ffffffffffffffffffffffffffffffff-r1]", pkgVersion(k.s.line, "kernel"), m, pkgVersion(k.s.line, m), releases[k.s.line].kernel))
	}
	if len(errs) > 0 {
		fmt.Fprintln(p.Stderr(), "ERROR: unable to select packages:")
		for _, e := range errs {
			fmt.Fprintln(p.Stderr(), e)
		}
		return len(errs)
	}
	if simulate {
		for i, d := range todo {
			fmt.Fprintf(p.Stdout(), "(%d/%d) Installing %s (%s)\n", i+1, len(todo), d.name, pkgVersion(k.s.line, d.name))
		}
		fmt.Fprintf(p.Stdout(), "OK: 12 MiB in %d packages\n", len(have)+len(todo))
		return 0
	}
	failed := 0
	for i, d := range todo {
		p.Check()
		fmt.Fprintf(p.Stdout(), "(%d/%d) Installing %s (%s)\n", i+1, len(todo), d.name, pkgVersion(k.s.line, d.name))
		var why string
		switch {
		case k.broken(d.name), !k.reach(p):
			why = "remote server returned error (try 'apk update')"
		case k.s.fs.Capacity()-k.s.fs.Used() < d.size:
			why = "No space left on device"
		default:
			if err := k.unpack(d); err != nil {
				p.Check()
				why = ash.ErrText(err)
			}
		}
		if why != "" {
			k.wipe(d)
			fmt.Fprintf(p.Stderr(), "ERROR: %s-%s: %s\n", d.name, pkgVersion(k.s.line, d.name), why)
			failed++
			break
		}
		have[d.name] = pkgVersion(k.s.line, d.name)
	}
	// A failed add may leave the names in world (facts 7.4).
	k.world(func(w map[string]bool) {
		for _, n := range names {
			w[n] = true
		}
	})
	if err := k.record(have); err != nil {
		p.Check()
		fmt.Fprintf(p.Stderr(), "ERROR: System state may be inconsistent: failed to write database: %s\n", ash.ErrText(err))
		failed++
	}
	if failed > 0 {
		fmt.Fprintf(p.Stdout(), "%d errors; 12 MiB in %d packages\n", failed, len(have))
		return failed
	}
	fmt.Fprintf(p.Stdout(), "OK: 12 MiB in %d packages\n", len(have))
	return 0
}

func (k *packages) world(change func(map[string]bool)) {
	data, _ := k.s.fs.ReadFile("/etc/apk/world")
	w := map[string]bool{}
	for _, n := range strings.Fields(string(data)) {
		w[n] = true
	}
	change(w)
	var l []string
	for n, on := range w {
		if on {
			l = append(l, n)
		}
	}
	sort.Strings(l)
	if k.s.fs.WriteFile("/etc/apk/world.new", []byte(strings.Join(l, "\n")+"\n"), 0o644) == nil {
		k.s.fs.Rename("/etc/apk/world.new", "/etc/apk/world")
	}
}

func (k *packages) apkDel(p *ash.Proc, names []string) int {
	have := k.installed()
	for _, n := range names {
		if d, ok := find(k.s.line, n); ok && have[n] != "" && !d.base {
			fmt.Fprintf(p.Stdout(), "(1/1) Purging %s (%s)\n", n, have[n])
			k.wipe(d)
			delete(have, n)
		}
	}
	k.record(have)
	k.world(func(w map[string]bool) {
		for _, n := range names {
			w[n] = false
		}
	})
	fmt.Fprintf(p.Stdout(), "OK: 12 MiB in %d packages\n", len(have))
	return 0
}
