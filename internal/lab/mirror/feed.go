package mirror

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"strings"
)

// A build is a release line's kernel, for which its modules are made. The
// vermagic numbers are the lab's own.
type build struct{ version, vermagic string }

var kernels = map[string]build{
	"21.02": {"5.4.238", "9e9a2b6d5b6b4c4c8f1d6b1b5a8f2a01"},
	"22.03": {"5.10.221", "0f5c2c1a7b9d4e6f8a0b1c2d3e4f5a02"},
	"23.05": {"5.15.189", "3b1f6d8c2e4a4b5c9d7e8f0a1b2c3d03"},
	"24.10": {"6.6.93", "5c7d9e0f1a2b3c4d5e6f7a8b9c0d1e04"},
	"25.12": {"6.12.40", "6d8e0f1a2b3c4d5e6f7a8b9c0d1e2f05"},
}

// A pkg is one package of the feeds.
type pkg struct {
	name    string
	module  bool   // for one kernel only, in the target's own feed
	other   string // its feed, when that is not base
	depends []string
}

// packages are what WireGuard needs (OpenWrt package/network/utils/wireguard-tools,
// package/kernel/linux/modules/netsupport.mk) and one that it does not.
var packages = []pkg{
	{name: "wireguard-tools", depends: []string{"libc", "kmod-wireguard"}},
	{name: "kmod-wireguard", module: true, depends: []string{"kernel", "kmod-crypto-lib-chacha20poly1305", "kmod-crypto-lib-curve25519", "kmod-udptunnel4", "kmod-udptunnel6"}},
	{name: "kmod-crypto-lib-chacha20poly1305", module: true, depends: []string{"kernel", "kmod-crypto-lib-chacha20", "kmod-crypto-lib-poly1305"}},
	{name: "kmod-crypto-lib-chacha20", module: true, depends: []string{"kernel"}},
	{name: "kmod-crypto-lib-poly1305", module: true, depends: []string{"kernel"}},
	{name: "kmod-crypto-lib-curve25519", module: true, depends: []string{"kernel", "kmod-crypto-kpp"}},
	{name: "kmod-crypto-kpp", module: true, depends: []string{"kernel"}},
	{name: "kmod-udptunnel4", module: true, depends: []string{"kernel"}},
	{name: "kmod-udptunnel6", module: true, depends: []string{"kernel"}},
	{name: "nano", other: "packages", depends: []string{"libc"}},
}

// toolsVersions are wireguard-tools' (facts openwrt.md 2).
var toolsVersions = map[string]string{"21.02": "1.0.20210223", "22.03": "1.0.20210424", "23.05": "1.0.20210914", "24.10": "1.0.20210914", "25.12": "1.0.20250521"}

func (p pkg) version(version string) string {
	l, tail := line(version), "-1"
	if from(version, "24.10") {
		tail = "-r1"
	}
	switch {
	case p.module:
		return kernels[l].version + tail
	case p.name == "wireguard-tools":
		return toolsVersions[l] + tail
	}
	return "8.2" + tail
}

// feedOf is the directory of a package: kernel modules have their own since 24.10.
func (p pkg) feedOf(version, target string) string {
	switch {
	case p.other != "":
		return "releases/" + version + "/packages/" + arches[target] + "/" + p.other
	case !p.module:
		return "releases/" + version + "/packages/" + arches[target] + "/base"
	case from(version, "24.10"):
		return dir(version, target) + "/" + kmods(version)
	}
	return dir(version, target) + "/packages"
}

func kmods(version string) string {
	k := kernels[line(version)]
	return "kmods/" + k.version + "-1-" + k.vermagic
}

// file is the package's name on the server.
func (p pkg) file(version, target string) string {
	if from(version, "25.12") {
		return p.name + "-" + p.version(version) + ".apk"
	}
	arch := arches[target]
	return p.name + "_" + p.version(version) + "_" + arch + ".ipk"
}

// feeds are the directories with packages for a target.
func feeds(version, target string) []string {
	out := []string{"releases/" + version + "/packages/" + arches[target] + "/base", dir(version, target) + "/packages",
		"releases/" + version + "/packages/" + arches[target] + "/packages"}
	if from(version, "24.10") {
		out = append(out, dir(version, target)+"/"+kmods(version))
	}
	return out
}

// indexes are the files that list a feed.
func indexes(version string) []string {
	if from(version, "25.12") {
		return []string{"packages.adb", "index.json"}
	}
	return []string{"Packages", "Packages.gz", "Packages.sig"}
}

// feedFiles lists all files of the feeds by their paths.
func feedFiles(version, target string) []string {
	var out []string
	for _, f := range feeds(version, target) {
		for _, i := range indexes(version) {
			out = append(out, f+"/"+i)
		}
	}
	for _, p := range packages {
		out = append(out, p.feedOf(version, target)+"/"+p.file(version, target))
	}
	slices.Sort(out)
	return out
}

// feed builds a file of a feed: name is below the target's directory or, without a
// target, below the release's packages/.
func (m *Mirror) feed(version, target, name string) []byte {
	at := dir(version, target) + "/" + name
	if target == "" {
		at = "releases/" + version + "/packages/" + name
		arch, _, _ := strings.Cut(name, "/")
		for _, t := range targetNames {
			if arches[t] == arch {
				target = t // which one makes no difference outside its own directory
			}
		}
		if target == "" {
			return nil
		}
	}
	slash := strings.LastIndexByte(at, '/')
	where, what := at[:slash], at[slash+1:]
	if !slices.Contains(feeds(version, target), where) {
		return nil
	}
	var here []pkg
	for _, p := range packages {
		if p.feedOf(version, target) == where {
			if p.file(version, target) == what {
				return m.pack(version, target, p)
			}
			here = append(here, p)
		}
	}
	if !slices.Contains(indexes(version), what) {
		return nil
	}
	switch what {
	case "Packages":
		return m.list(version, target, here)
	case "Packages.gz":
		b, _ := m.file(where + "/Packages")
		return gzipped(b)
	case "Packages.sig":
		b, _ := m.file(where + "/Packages")
		return m.keys.usign(b)
	case "packages.adb":
		return m.adb(version, target, here)
	}
	names := map[string]string{}
	for _, p := range here {
		names[p.name] = p.version(version)
	}
	return asJSON(map[string]any{"version": 2, "architecture": arches[target], "packages": names})
}

// list is opkg's Packages.
func (m *Mirror) list(version, target string, here []pkg) []byte {
	slices.SortFunc(here, func(a, b pkg) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	for _, p := range here {
		file, _ := m.file(p.feedOf(version, target) + "/" + p.file(version, target))
		fmt.Fprintf(&b, "%s", p.control(version, target))
		fmt.Fprintf(&b, "Filename: %s\nSize: %d\nSHA256sum: %s\nDescription:  %s of the lab\n  (a second line)\n\n", p.file(version, target), len(file), sha(file), p.name)
	}
	return []byte(b.String())
}

func (p pkg) control(version, target string) string {
	depends := strings.Join(p.depends, ", ")
	k := kernels[line(version)]
	depends = strings.ReplaceAll(depends, "kernel", fmt.Sprintf("kernel (= %s-1-%s)", k.version, k.vermagic))
	return fmt.Sprintf("Package: %s\nVersion: %s\nDepends: %s\nSection: net\nArchitecture: %s\nInstalled-Size: 4711\n", p.name, p.version(version), depends, arches[target])
}

// pack is the package itself: an ipk is a gzipped tar of debian-binary,
// data.tar.gz and control.tar.gz (OpenWrt scripts/ipkg-build).
func (m *Mirror) pack(version, target string, p pkg) []byte {
	if from(version, "25.12") {
		return m.apk(version, target, p)
	}
	control := tarred(map[string]string{"./control": p.control(version, target)})
	data := tarred(map[string]string{"./usr/share/lab/" + p.name: fmt.Sprint(seedOf(p.name, version, target))})
	return gzipped(tarOf([]string{"./debian-binary", "./data.tar.gz", "./control.tar.gz"}, [][]byte{[]byte("2.0\n"), gzipped(data), gzipped(control)}))
}

func tarred(files map[string]string) []byte {
	var names []string
	var data [][]byte
	for n, text := range files {
		names, data = append(names, n), append(data, []byte(text))
	}
	return tarOf(names, data)
}

func tarOf(names []string, data [][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, n := range names {
		must(w.WriteHeader(&tar.Header{Name: n, Size: int64(len(data[i])), Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatGNU}))
		_, err := w.Write(data[i])
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(err)
	must(w.Close())
	return out.Bytes()
}
