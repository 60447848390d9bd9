package image

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"strings"
)

// A FIT is a flattened device tree that holds a kernel, a device tree and their
// hashes (U-Boot doc/usage/fit; the tree's form: devicetree-specification 0.4,
// chapter 5; all big endian). The walker below follows no pointer twice, reads a
// few bytes at a time and stops after a fixed number of tokens, so a hostile tree
// costs little.
const (
	fdtMagic    = "\xd0\x0d\xfe\xed"
	fdtBegin    = 1
	fdtEnd      = 2
	fdtProp     = 3
	fdtNop      = 4
	fdtDone     = 9
	largestTree = 64 << 20
	largestProp = 1024 // longer values are only located, not read
	mostTokens  = 40000
	mostDepth   = 16
	mostImages  = 16 // a FIT of the AVM boards has two
	mostHashes  = 4
)

// A prop is one property on the way.
type prop struct {
	path  []string // node names from the root, "" for the root left out
	name  string
	off   int64  // of the value in the file
	size  int64  //
	value []byte // nil when longer than largestProp
}

func (p prop) text() string { return strings.TrimRight(string(p.value), "\x00") }

// walkTree visits the properties of the tree at off and gives its total size. ok
// is false when the tree breaks its own rules; total is known as soon as the
// header made sense.
func walkTree(f *file, off int64, visit func(prop)) (total int64, ok bool) {
	h := f.at(off, 40)
	if len(h) < 40 || string(h[:4]) != fdtMagic {
		return 0, false
	}
	be := binary.BigEndian
	total = int64(be.Uint32(h[4:]))
	structs, names := int64(be.Uint32(h[8:])), int64(be.Uint32(h[12:]))
	structSize, namesSize := int64(be.Uint32(h[36:])), int64(be.Uint32(h[32:]))
	if total < 40 || total > largestTree || structs%4 != 0 || structs < 40 || structs+structSize > total || names < 40 || names+namesSize > total {
		return 0, false
	}
	if off+total > f.size {
		return total, false
	}
	w := walker{f: f, at: off + structs, end: off + structs + structSize, names: off + names, namesEnd: off + names + namesSize, visit: visit}
	return total, w.walk()
}

type walker struct {
	f               *file
	at, end         int64
	names, namesEnd int64
	path            []string
	visit           func(prop)
	win             []byte // a window on the struct block
	winAt           int64
}

// bytes gives n bytes of the struct block at off through the window.
func (w *walker) bytes(off int64, n int) []byte {
	if off+int64(n) > w.end {
		n = int(max(w.end-off, 0))
	}
	if off < w.winAt || off+int64(n) > w.winAt+int64(len(w.win)) {
		w.win, w.winAt = w.f.at(off, 4096), off
	}
	if off-w.winAt+int64(n) > int64(len(w.win)) {
		return nil
	}
	return w.win[off-w.winAt:][:n]
}

func (w *walker) word() (uint32, bool) {
	p := w.bytes(w.at, 4)
	if len(p) < 4 {
		return 0, false
	}
	w.at += 4
	return binary.BigEndian.Uint32(p), true
}

func (w *walker) walk() bool {
	for range mostTokens {
		token, ok := w.word()
		if !ok {
			return false
		}
		switch token {
		case fdtNop:
		case fdtBegin:
			p := w.bytes(w.at, 256)
			n := bytes.IndexByte(p, 0)
			if n < 0 || len(w.path) >= mostDepth {
				return false
			}
			w.path = append(w.path, string(p[:n]))
			w.at += roundUp(int64(n)+1, 4)
		case fdtEnd:
			if len(w.path) == 0 {
				return false
			}
			w.path = w.path[:len(w.path)-1]
		case fdtProp:
			if !w.prop() {
				return false
			}
		case fdtDone:
			return len(w.path) == 0
		default:
			return false
		}
	}
	return false
}

func (w *walker) prop() bool {
	size, _ := w.word()
	nameAt, ok := w.word()
	if !ok || len(w.path) == 0 || w.at+int64(size) > w.end {
		return false
	}
	p := prop{path: w.path[1:], off: w.at, size: int64(size)}
	name := w.f.at(w.names+int64(nameAt), int(min(64, w.namesEnd-w.names-int64(nameAt))))
	n := bytes.IndexByte(name, 0)
	if n < 0 {
		return false
	}
	p.name = string(name[:n])
	if size <= largestProp {
		p.value = bytes.Clone(w.bytes(w.at, int(size)))
	}
	w.at += roundUp(int64(size), 4)
	w.visit(p)
	return true
}

// A tree is what we want of a device tree.
type tree struct {
	model      string
	compatible []string
	total      int64
}

func readTree(f *file, off int64) (t tree, ok bool) {
	t.total, ok = walkTree(f, off, func(p prop) {
		if len(p.path) != 0 {
			return
		}
		switch p.name {
		case "model":
			t.model = printable(p.text(), 64)
		case "compatible":
			for _, s := range strings.Split(p.text(), "\x00") {
				t.compatible = append(t.compatible, printable(s, 64))
			}
		}
	})
	return t, ok
}

// A fitImage is one node below /images.
type fitImage struct {
	name, description, typ string
	off, size              int64 // of its data
	outside                bool  // data stands behind the tree (mkimage -E), which no AVM recipe does
	hashes                 []fitHash
}

type fitHash struct {
	node, algo string
	value      []byte
}

// readFIT checks the FIT at off and gives its end.
func readFIT(f *file, m *Image, off int64) (end int64, ok bool) {
	if !f.has(off, fdtMagic) {
		if off+4 > f.size {
			m.cut("kernel", off+40)
		} else {
			m.check("kernel", Bad, "no FIT at 0x%x", off)
		}
		return 0, false
	}
	var images []fitImage
	total, good := walkTree(f, off, func(p prop) { images = collect(images, p) })
	if off+total > f.size {
		m.cut("kernel", off+total)
		return 0, false
	}
	m.judge("FIT structure", good, "its tree breaks off or contradicts itself")
	if total == 0 {
		return 0, false
	}
	m.part("kernel", off, total)
	if good {
		judgeFIT(f, m, images)
	}
	return off + total, true
}

// collect puts one property of a FIT where it belongs.
func collect(images []fitImage, p prop) []fitImage {
	if len(p.path) < 2 || p.path[0] != "images" {
		return images
	}
	if len(images) == 0 || images[len(images)-1].name != p.path[1] {
		if len(images) >= mostImages {
			return images
		}
		images = append(images, fitImage{name: p.path[1]})
	}
	im := &images[len(images)-1]
	if len(p.path) == 2 {
		switch p.name {
		case "description":
			im.description = printable(p.text(), 200)
		case "type":
			im.typ = p.text()
		case "data":
			im.off, im.size = p.off, p.size
		case "data-offset", "data-position":
			im.outside = true
		}
		return images
	}
	if len(p.path) != 3 || !strings.HasPrefix(p.path[2], "hash") {
		return images
	}
	if n := len(im.hashes); n == 0 || im.hashes[n-1].node != p.path[2] {
		if n >= mostHashes {
			return images
		}
		im.hashes = append(im.hashes, fitHash{node: p.path[2]})
	}
	h := &im.hashes[len(im.hashes)-1]
	switch p.name {
	case "algo":
		h.algo = p.text()
	case "value":
		h.value = p.value
	}
	return images
}

// judgeFIT compares the hashes and reads boards and kernel version from the
// descriptions that OpenWrt's scripts/mkits.sh writes: "ARM OpenWrt
// avm_fritzbox-4040 device tree blob" and "ARM OpenWrt Linux-6.6.93".
func judgeFIT(f *file, m *Image, images []fitImage) {
	hashed, kernel := false, false
	for _, im := range images {
		kernel = kernel || im.typ == "kernel" && im.size > 0
		_, rest, ours := strings.Cut(im.description, " OpenWrt ")
		name, isTree := strings.CutSuffix(rest, " device tree blob")
		version, isKernel := strings.CutPrefix(rest, "Linux-")
		switch {
		case im.typ == "flat_dt" && ours && isTree:
			m.board(name)
			m.part("device tree", im.off, im.size)
			judgeTree(f, m, im, boardName(name))
		case im.typ == "kernel" && ours && isKernel:
			kernelRelease(m, version)
		}
		for _, h := range im.hashes {
			hashed = judgeHash(f, m, im, h) || hashed
		}
	}
	m.judge("FIT kernel", kernel, "there is none in it")
	if !hashed {
		m.check("FIT hashes", NotKnown, "there are none that we know")
	}
	if len(m.Boards) == 0 {
		m.check("board", NotKnown, "no description of a device tree by OpenWrt in the FIT")
	}
}

func judgeTree(f *file, m *Image, im fitImage, name string) {
	if im.outside {
		return
	}
	t, ok := readTree(f, im.off)
	if !m.judge("device tree", ok && t.total <= im.size, "the FIT's device tree is none") {
		return
	}
	if _, ours := BoardNamed(name); ours {
		fits := false
		for _, c := range t.compatible {
			fits = fits || boardName(c) == name
		}
		m.judge("device tree's board", fits, "the FIT says %s, the device tree in it %s", name, strings.Join(t.compatible, ", "))
	}
}

func judgeHash(f *file, m *Image, im fitImage, h fitHash) (known bool) {
	var sum hash.Hash
	switch h.algo {
	case "crc32":
		sum = crc32.NewIEEE()
	case "sha1":
		sum = sha1.New()
	case "sha256":
		sum = sha256.New()
	default:
		return false
	}
	if im.outside || im.off == 0 {
		return false
	}
	f.each(im.off, im.size, func(p []byte) { sum.Write(p) })
	what := im.name + " " + h.algo
	m.judge(printable(what, 80), bytes.Equal(sum.Sum(nil), h.value), "the data was changed")
	return true
}

// kernelRelease says which line ships a kernel (ipq40xx and lantiq; OpenWrt
// target/linux/*/Makefile KERNEL_PATCHVER of each branch).
func kernelRelease(m *Image, version string) {
	if m.Release.Version != "" {
		m.Release.Kernel = version
		return
	}
	m.Release = Release{Distribution: "OpenWrt", Kernel: version}
	for prefix, line := range map[string]string{"5.4.": "21.02", "5.10.": "22.03", "5.15.": "23.05", "6.6.": "24.10", "6.12.": "25.12"} {
		if strings.HasPrefix(version, prefix) {
			m.Release.Version, m.Release.Guessed = line, true
		}
	}
}

// beginFIT takes a file that begins with a FIT: the 4040's sysupgrade image, an
// initramfs of method E, or another board's.
func beginFIT(f *file, m *Image, t trailer) {
	m.Kind, m.Format = Initramfs, "FIT"
	end, ok := readFIT(f, m, 0)
	switch {
	case !ok && m.CutOff:
		m.Format = "the beginning of a FIT: an initramfs or a sysupgrade image"
	case !ok:
	case end == t.body:
		m.Format = "FIT, the whole system in the kernel"
	case f.has(end, squashMagic):
		m.Kind, m.layout, m.flat = Sysupgrade, layoutFIT, true
		m.Format = "FIT and squashfs"
		if end, ok := squashfs(f, m, end, t.body); ok {
			padding(f, m, end, t.body)
		}
		metadataNeeded(m)
	case m.HasMetadata:
		m.Kind, m.flat, m.Format = Sysupgrade, true, "FIT and more"
	case f.size-end < 4:
		// Too short to say what follows.
		m.cutTail("root file system", "there is none behind the kernel")
	case f.all(end, t.body-end, 0) || f.all(end, t.body-end, 0xFF):
		m.Format = "FIT with padding"
	default:
		m.Kind, m.Format = Factory, "a FIT followed by something we do not know"
	}
}
