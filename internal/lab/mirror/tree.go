package mirror

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/image/imagetest"
)

// targetNames are the targets with AVM boards (facts eva.md 3.2).
var targetNames = []string{"ath79/generic", "ipq40xx/generic", "lantiq/xrx200", "lantiq/xway"}

// arches are the package architectures of the targets, as in profiles.json.
var arches = map[string]string{"ipq40xx/generic": "arm_cortex-a7_neon-vfpv4", "ath79/generic": "mips_24kc", "lantiq/xrx200": "mips_24kc", "lantiq/xway": "mips_24kc"}

// A profile is one board's (facts eva.md 3.2).
type profile struct {
	id, model, variant string
	uboots             []string // beside the 4040's
	since              string   // the first release line that has it
}

var profiles = map[string][]profile{
	"ipq40xx/generic": {
		{id: "avm_fritzbox-4040", model: "FRITZ!Box 4040", uboots: []string{"fritz4040"}},
		{id: "avm_fritzbox-7530", model: "FRITZ!Box 7530", uboots: []string{"fritz7530", "fritz7520"}},
		{id: "avm_fritzrepeater-1200", model: "FRITZ!Repeater 1200", uboots: []string{"fritz1200"}},
		{id: "avm_fritzrepeater-3000", model: "FRITZ!Repeater 3000", uboots: []string{"fritz3000"}},
	},
	"ath79/generic": {
		{id: "avm_fritz4020", model: "FRITZ!Box 4020"},
		{id: "avm_fritz300e", model: "FRITZ!WLAN Repeater 300E"},
		{id: "avm_fritz450e", model: "FRITZ!WLAN Repeater 450E"},
		{id: "avm_fritz1750e", model: "FRITZ!WLAN Repeater 1750E"},
		{id: "avm_fritzdvbc", model: "FRITZ!WLAN Repeater DVB-C"},
	},
	"lantiq/xway": {
		{id: "avm_fritz7312", model: "FRITZ!Box 7312"},
		{id: "avm_fritz7320", model: "FRITZ!Box 7320"},
	},
	"lantiq/xrx200": {
		{id: "avm_fritz7360sl", model: "FRITZ!Box 7360 SL"},
		{id: "avm_fritz7360-v2", model: "FRITZ!Box 7360", variant: "v2"},
		{id: "avm_fritz3370-rev2-hynix", model: "FRITZ!Box 3370", variant: "rev2 (Hynix NAND)"},
		{id: "avm_fritz3370-rev2-micron", model: "FRITZ!Box 3370", variant: "rev2 (Micron NAND)"},
		{id: "avm_fritz3390", model: "FRITZ!Box 3390"},
		{id: "avm_fritz3490", model: "FRITZ!Box 3490", since: "24.10"},
		{id: "avm_fritz3490-micron", model: "FRITZ!Box 3490", variant: "Micron NAND", since: "24.10"},
		{id: "avm_fritz5490", model: "FRITZ!Box 5490", since: "24.10"},
		{id: "avm_fritz5490-micron", model: "FRITZ!Box 5490", variant: "Micron NAND", since: "24.10"},
		{id: "avm_fritz7362sl", model: "FRITZ!Box 7362 SL"},
		{id: "avm_fritz7412", model: "FRITZ!Box 7412"},
		{id: "avm_fritz7430", model: "FRITZ!Box 7430"},
		{id: "avm_fritz7490", model: "FRITZ!Box 7490", since: "24.10"},
		{id: "avm_fritz7490-micron", model: "FRITZ!Box 7490", variant: "Micron NAND", since: "24.10"},
	},
}

// An item is one image of a release.
type item struct {
	profile, typ, filesystem string
	name                     string // below the target's directory
}

// imagesOf lists a target's images with their names on the server.
func imagesOf(version, target string) []item {
	var out []item
	for _, p := range profiles[target] {
		if p.since != "" && !from(version, p.since) {
			continue
		}
		stem := "openwrt-" + version + "-" + strings.ReplaceAll(target, "/", "-") + "-" + p.id
		add := func(typ, filesystem, tail string) { out = append(out, item{p.id, typ, filesystem, stem + tail}) }
		add("sysupgrade", "squashfs", "-squashfs-sysupgrade.bin")
		switch {
		case p.id == "avm_fritzbox-4040":
			add("eva", "squashfs", "-squashfs-eva.bin")
		case strings.Contains(p.id, "3370"):
			add("eva-kernel", "squashfs", "-squashfs-eva-kernel.bin")
			add("eva-filesystem", "squashfs", "-squashfs-eva-filesystem.bin")
		}
		switch {
		case target != "ipq40xx/generic":
			add("kernel", "initramfs", "-initramfs-kernel.bin")
		case from(version, "23.05"):
			add("kernel", "initramfs", "-initramfs-uImage.itb")
		default: // facts eva.md 3.1, details of E
			add("kernel", "initramfs", "-initramfs-fit-uImage.itb")
		}
		for _, u := range p.uboots {
			out = append(out, item{u, "u-boot", "", "u-boot-" + u + "/uboot-" + u + ".bin"})
		}
	}
	return out
}

// build makes an image's bytes.
func (m *Mirror) build(version, target string, i item, packages []string) []byte {
	o := imagetest.Options{Board: strings.Replace(i.profile, "_", ",", 1), Version: version, Seed: m.opt.Seed + seedOf(version, i.profile, strings.Join(packages, " ")),
		Kernel: m.opt.Kernel, Root: m.opt.Root, Compat: compat(version, target), Signed: from(version, "23.05"), Packages: packages}
	var b []byte
	switch i.typ {
	case "sysupgrade":
		b = imagetest.Sysupgrade(o)
	case "eva":
		b = imagetest.EVA(o)
	case "eva-kernel":
		b = imagetest.EVAKernel(o)
	case "eva-filesystem":
		b = imagetest.EVAFileSystem(o)
	case "kernel":
		b = imagetest.Initramfs(o)
	case "u-boot":
		b = imagetest.UBoot(strings.ToUpper(i.profile))
	}
	m.made[sha(b)] = Made{Version: version, Profile: i.profile, Type: i.typ, Packages: packages}
	return b
}

func seedOf(parts ...string) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range strings.Join(parts, "\x00") {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// compat is the images' compat_version: 1.1 since the move to DSA, which ipq40xx
// made with 23.05 (facts eva.md 4.5) and xrx200 with 22.03 (OpenWrt's release notes
// of 22.03).
func compat(version, target string) string {
	switch {
	case target == "ipq40xx/generic" && from(version, "23.05"), target == "lantiq/xrx200" && from(version, "22.03"):
		return "1.1"
	}
	return "1.0"
}

// revisions are the versions' build numbers where a source names one.
func revision(version string) string {
	return fmt.Sprintf("r%d-%010x", 20000+seedOf(version)%10000, seedOf(version, "git")&0xffffffffff)
}

// make builds a file of the tree, or nil when there is none.
func (m *Mirror) make(name string) []byte {
	rest, ok := strings.CutPrefix(name, "releases/")
	if !ok {
		return nil // what lies below store/ was made when it was built
	}
	version, rest, ok := strings.Cut(rest, "/")
	if !ok || !slices.Contains(m.opt.Releases, version) {
		return nil
	}
	switch rest {
	case ".targets.json":
		all := map[string]string{}
		for _, t := range targetNames {
			all[t] = arches[t]
		}
		return asJSON(all)
	case ".overview.json":
		return overview(version)
	}
	if feed, ok := strings.CutPrefix(rest, "packages/"); ok {
		return m.feed(version, "", feed)
	}
	rest, ok = strings.CutPrefix(rest, "targets/")
	parts := strings.SplitN(rest, "/", 3)
	if !ok || len(parts) != 3 || !slices.Contains(targetNames, parts[0]+"/"+parts[1]) {
		return nil
	}
	return m.ofTarget(version, parts[0]+"/"+parts[1], parts[2])
}

// ofTarget builds a file below a target's directory.
func (m *Mirror) ofTarget(version, target, name string) []byte {
	switch name {
	case "profiles.json":
		return m.profilesJSON(version, target)
	case "sha256sums":
		return m.sums(version, target)
	case "sha256sums.sig":
		b, _ := m.file(dir(version, target) + "/sha256sums")
		return m.keys.usign(b)
	case "sha256sums.asc":
		b, _ := m.file(dir(version, target) + "/sha256sums")
		return m.keys.openPGP(b)
	case "version.buildinfo":
		return []byte(revision(version) + "\n")
	}
	for _, i := range imagesOf(version, target) {
		if i.name == name {
			return m.build(version, target, i, nil)
		}
	}
	return m.feed(version, target, name)
}

// sums is the checksum list of everything below the directory (OpenWrt rules.mk,
// sha256sums, which recurses on the build servers).
func (m *Mirror) sums(version, target string) []byte {
	at := dir(version, target) + "/"
	names := []string{"profiles.json", "version.buildinfo"}
	for _, i := range imagesOf(version, target) {
		names = append(names, i.name)
	}
	for _, f := range feedFiles(version, target) {
		if n, ok := strings.CutPrefix(f, at); ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		file, _ := m.file(at + n)
		fmt.Fprintf(&b, "%s *%s\n", sha(file), n)
	}
	return []byte(b.String())
}

func (m *Mirror) versions() []byte {
	v := map[string]any{"versions_list": m.releases}
	if len(m.releases) > 0 {
		v["stable_version"] = m.releases[0]
	}
	if len(m.releases) > 1 {
		v["oldstable_version"] = m.releases[1]
	}
	return asJSON(v)
}

func titles(p profile) []map[string]string {
	t := map[string]string{"vendor": "AVM", "model": p.model}
	if p.variant != "" {
		t["variant"] = p.variant
	}
	all := []map[string]string{t}
	if p.id == "avm_fritzbox-7530" {
		all = append(all, map[string]string{"vendor": "AVM", "model": "FRITZ!Box 7520"})
	}
	return all
}

func overview(version string) []byte {
	var list []map[string]any
	for _, t := range targetNames {
		for _, p := range profiles[t] {
			if p.since == "" || from(version, p.since) {
				list = append(list, map[string]any{"id": p.id, "target": t, "titles": titles(p)})
			}
		}
	}
	return asJSON(map[string]any{"release": version, "profiles": list})
}

// profilesJSON is written in the manner of scripts/json_overview_image_info.py.
func (m *Mirror) profilesJSON(version, target string) []byte {
	all := map[string]any{}
	for _, p := range profiles[target] {
		if p.since != "" && !from(version, p.since) {
			continue
		}
		var images []map[string]any
		for _, i := range imagesOf(version, target) {
			if i.profile != p.id {
				continue
			}
			b, _ := m.file(dir(version, target) + "/" + i.name)
			entry := map[string]any{"name": i.name, "type": i.typ, "filesystem": i.filesystem, "sha256": sha(b), "sha256_unsigned": sha(b)}
			if from(version, "25.12") {
				entry["size"] = len(b)
			}
			images = append(images, entry)
		}
		all[p.id] = map[string]any{"titles": titles(p), "image_prefix": "openwrt-" + version + "-" + strings.ReplaceAll(target, "/", "-") + "-" + p.id,
			"supported_devices": []string{strings.Replace(p.id, "_", ",", 1)}, "device_packages": []string{}, "images": images}
	}
	v := map[string]any{"metadata_version": 1, "version_number": version, "version_code": revision(version), "target": target, "arch_packages": arches[target],
		"default_packages": []string{"base-files", "busybox", "dnsmasq", "dropbear", "firewall4", "netifd"}, "source_date_epoch": released.Unix(), "profiles": all}
	if from(version, "23.05") {
		k := kernels[line(version)]
		v["linux_kernel"] = map[string]string{"version": k.version, "release": "1", "vermagic": k.vermagic}
	}
	return asJSON(v)
}

func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain maps and strings
	}
	return append(b, '\n')
}
