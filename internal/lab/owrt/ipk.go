package owrt

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
)

// An ipk is a package that was given to opkg as a file: a gzipped tar with a
// control.tar.gz inside (OpenWrt scripts/ipkg-build). Only its control file is read;
// what a package puts on flash stands in feedPackages.
type ipk struct {
	name, version, arch string
	depends             []need
}

// A need is a dependency: version is "" or the only one that will do.
type need struct{ name, version string }

func (n need) String() string {
	if n.version == "" {
		return n.name
	}
	return n.name + " (= " + n.version + ")"
}

// boxArch is opkg's architecture of every box here.
const boxArch = "arm_cortex-a7_neon-vfpv4"

// byHand reads the files among the names before anything is installed and puts the
// packages' names in their places, as opkg_prepare_url_for_install of libopkg does: a
// file is what ends in .ipk, and one that cannot be read ends it all.
func (k *packages) byHand(p *ash.Proc, names []string) (hand map[string]ipk, out []string, why string) {
	hand, out = map[string]ipk{}, slices.Clone(names)
	for i, n := range names {
		if !strings.HasSuffix(n, ".ipk") {
			continue
		}
		data, err := k.s.fs.ReadFile(p.Path(n))
		if err != nil {
			return nil, nil, "pkg_init_from_file: Failed to extract control file from " + n + "."
		}
		f, err := parseIPK(data)
		if err != nil {
			return nil, nil, "pkg_init_from_file: Malformed package file " + n + "."
		}
		hand[f.name], out[i] = f, f.name
	}
	return hand, out, ""
}

func parseIPK(data []byte) (ipk, error) {
	control, err := member(data, "control.tar.gz")
	if err == nil {
		control, err = member(control, "control")
	}
	if err != nil {
		return ipk{}, err
	}
	var f ipk
	for l := range strings.Lines(string(control)) {
		field, v, _ := strings.Cut(strings.TrimSpace(l), ":")
		switch v = strings.TrimSpace(v); field {
		case "Package":
			f.name = v
		case "Version":
			f.version = v
		case "Architecture":
			f.arch = v
		case "Depends":
			for d := range strings.SplitSeq(v, ",") {
				name, rest, _ := strings.Cut(strings.TrimSpace(d), " ")
				f.depends = append(f.depends, need{name, strings.TrimSuffix(strings.TrimPrefix(rest, "(= "), ")")})
			}
		}
	}
	if f.name == "" || f.version == "" {
		return f, io.ErrUnexpectedEOF
	}
	return f, nil
}

// member is a file of a gzipped tar.
func member(data []byte, name string) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			return nil, err
		}
		if path.Clean(h.Name) == name {
			return io.ReadAll(r)
		}
	}
}

// fromHand lists a package that was given as a file with what it needs and does not
// have, from the other files or else from the feeds' lists; errs say why not.
func (k *packages) fromHand(f ipk, hand map[string]ipk, have map[string]string, seen map[string]bool) (list []pkgDef, errs []string) {
	if seen[f.name] || have[f.name] == f.version {
		return nil, nil
	}
	seen[f.name] = true
	if f.arch != boxArch && f.arch != "all" {
		return nil, []string{"pkg_hash_fetch_best_installation_candidate: Packages for " + f.name + " found, but incompatible with the architectures configured"}
	}
	feeds, _ := k.s.fs.ReadDir(opkgLists)
	for _, d := range f.depends {
		there := have[d.name]
		if d.name == "kernel" && k.s.b.feed().KernelMismatch {
			there = "another build"
		}
		other, given := hand[d.name]
		switch {
		case slices.Contains([]string{"libc", "libgcc1"}, d.name), there != "" && (d.version == "" || d.version == there):
		case given && (d.version == "" || d.version == other.version):
			l, errs := k.fromHand(other, hand, have, seen)
			if errs != nil {
				return nil, errs
			}
			list = append(list, l...)
		default:
			l, missing := k.closure(d.name, have, seen)
			if there != "" || d.version != "" || missing != "" || len(feeds) == 0 {
				return nil, []string{"satisfy_dependencies_for: Cannot satisfy the following dependencies for " + f.name + ":", "\t" + d.String()}
			}
			list = append(list, l...)
		}
	}
	d, ok := find(k.s.line, f.name)
	if !ok {
		d = pkgDef{name: f.name}
	}
	return append(list, d), nil
}
