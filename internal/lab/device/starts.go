package device

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"regexp"
	"strings"

	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/lab/evabox"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/router"
)

// A chain is how a box gets from its bootloader to its system (facts eva 3.1).
type chain int

const (
	one    chain = iota // A: one image in NOR flash
	behind              // B: U-Boot, and the image behind it
	two                 // C: a kernel, and a file system beside it
	ram                 // D: a system in memory writes the flash
	fetch               // E: U-Boot in memory fetches the system that writes the flash
)

// A kind of box: its boards, by OpenWrt's names. Where there are two, the first is
// for Micron's NAND.
type kind struct {
	chain  chain
	boards []string
}

var kinds = map[string]kind{
	"4040": {behind, []string{"avm,fritzbox-4040"}},
	"7530": {fetch, []string{"avm,fritzbox-7530"}},
	"7520": {fetch, []string{"avm,fritzbox-7530"}},
	"7412": {ram, []string{"avm,fritz7412"}},
	"7490": {ram, []string{"avm,fritz7490-micron", "avm,fritz7490"}},
	"3370": {two, []string{"avm,fritz3370-rev2-micron", "avm,fritz3370-rev2-hynix"}},
	"7320": {one, []string{"avm,fritz7320"}},
	"450E": {one, []string{"avm,fritz450e"}},
}

// A program is what starts.
type program struct {
	what    string
	release owrt.Release
	board   string
	file    string // that U-Boot asks for
}

var nothing = program{what: RedLight}

// ubootLoad is where all of these U-Boots are loaded (facts eva 4.1).
const ubootLoad = 0x841FFFF8

// record takes an EVA record apart: where it is loaded and what it unpacks to. A
// wrong checksum or stream starts nothing.
func record(d []byte) (load uint32, inside []byte, ok bool) {
	le := binary.LittleEndian
	if len(d) < 48 || !bytes.HasPrefix(d, []byte{0x81, 0x12, 0xed, 0xfe}) {
		return 0, nil, false
	}
	n := int64(le.Uint32(d[16:]))
	if n > int64(len(d))-48 {
		return 0, nil, false
	}
	stream := d[36 : 36+n]
	if crc32.ChecksumIEEE(stream) != le.Uint32(d[24:]) {
		return 0, nil, false
	}
	inside, err := image.Unlzma(stream, d[28], le.Uint32(d[20:]))
	return le.Uint32(d[8:]), inside, err == nil
}

// boardIn finds which of the boards a device tree is for: the first string of its
// root's "compatible" ends with a zero.
func boardIn(d []byte, boards []string) (string, bool) {
	for _, b := range boards {
		if bytes.Contains(d, []byte(b+"\x00")) {
			return b, true
		}
	}
	return "", false
}

var (
	releaseLine = regexp.MustCompile(`OPENWRT_RELEASE="OpenWrt ([0-9][0-9A-Za-z.-]*)`)
	insideLine  = regexp.MustCompile(`PACKAGES_INSIDE="([0-9a-z .+-]*)"`)
	kernelLine  = regexp.MustCompile(`ARM OpenWrt Linux-([0-9]+\.[0-9]+)\.`)
)

// kernels tell the line of an image that says no more.
var kernels = map[string]router.Line{"5.4": router.Line2102, "5.10": router.Line2203, "5.15": router.Line2305, "6.6": router.Line2410, "6.12": router.Line2512}

// release reads which OpenWrt it is: from the root file system's own words, else
// from the kernel's version.
func (d *Box) release(parts ...[]byte) owrt.Release {
	for _, p := range parts {
		if m := releaseLine.FindSubmatch(p); m != nil {
			if line, ok := router.ParseLine(string(m[1])); ok {
				r := owrt.Release{Line: line, Version: string(m[1])}
				if in := insideLine.FindSubmatch(p); in != nil {
					r.Packages = strings.Fields(string(in[1]))
				}
				return r
			}
		}
	}
	for _, p := range parts {
		if m := kernelLine.FindSubmatch(p); m != nil {
			if line, ok := kernels[string(m[1])]; ok {
				return owrt.Release{Line: line}
			}
		}
	}
	return owrt.Release{Line: d.opt.Router.Line}
}

// ours are the boards whose image starts from this box's flash: a driver for
// another maker's NAND finds nothing there (facts eva 3.1, D).
func (d *Box) ours() []string {
	if b := d.kind.boards; len(b) == 2 {
		if strings.HasPrefix(strings.ToUpper(d.nand.id()), "2C") {
			return b[:1]
		}
		return b[1:]
	}
	return d.kind.boards
}

// inMemory says what a program starts as that the bootloader was given.
func (d *Box) inMemory(p []byte) program {
	load, inside, ok := record(p)
	switch {
	case !ok:
		return nothing
	case load == ubootLoad:
		return d.uboot(inside)
	}
	board, ok := boardIn(inside, d.kind.boards)
	if !ok {
		return nothing
	}
	return program{what: OpenWrt, board: board, release: d.release(inside)}
}

var bootfile = regexp.MustCompile(`bootfile=([A-Za-z0-9._-]+)\x00`)

// uboot is a U-Boot; its environment says what it fetches.
func (d *Box) uboot(inside []byte) program {
	p := program{what: UBoot, file: evabox.Models[d.opt.EVA.Model].UBoot}
	if m := bootfile.FindSubmatch(inside); m != nil {
		p.file = string(m[1])
	}
	return p
}

// fromFIT is OpenWrt's kernel container, as U-Boot starts it: it must be whole and
// have a device tree for the box.
func (d *Box) fromFIT(p []byte, boards []string) program {
	if len(p) < 40 || binary.BigEndian.Uint32(p) != 0xD00DFEED || int64(binary.BigEndian.Uint32(p[4:])) > int64(len(p)) {
		return nothing
	}
	p = p[:binary.BigEndian.Uint32(p[4:])]
	board, ok := boardIn(p, boards)
	if !ok {
		return nothing
	}
	return program{what: OpenWrt, board: board, release: d.release(p)}
}

// squashfs reports whether a root file system begins here and is all there.
func squashfs(p []byte) bool {
	if len(p) < 96 || string(p[:4]) != "hsqs" {
		return false
	}
	used := binary.LittleEndian.Uint64(p[40:])
	return used >= 96 && used <= uint64(len(p))
}

// onFlash says what starts from the flash as it is.
func (d *Box) onFlash() program {
	if d.opt.EVA.Kind == evabox.Converted && d.fresh < 0 {
		return program{what: OpenWrt, board: d.kind.boards[0], release: owrt.Release{Line: d.opt.Router.Line, Version: d.opt.Router.Version}}
	}
	mtd1 := d.EVA.Flash("mtd1")
	switch d.kind.chain {
	case two:
		return d.besides(mtd1)
	case ram:
		return d.inUBI(mtd1)
	case fetch:
		return d.fetching(mtd1)
	}
	switch what := d.EVA.Boots(); {
	case what != OpenWrt:
		return program{what: what}
	case d.kind.chain == behind:
		load, inside, ok := record(mtd1)
		if u := d.uboot(inside); !ok || load != ubootLoad || u.file != "" && u.file != "FRITZ4040.bin" {
			return nothing // another box's U-Boot finds no memory here
		}
		p := d.fromFIT(mtd1[0x80000:], d.ours())
		if p.what == OpenWrt {
			p.release = d.release(mtd1[0x80000:])
		}
		return p
	default:
		return d.oneImage(mtd1)
	}
}

// oneImage starts the kernel at the beginning of the image. Since 22.03 the 7312 and
// the 7320 have a small loader there, and at 0x11000 the kernel behind a header with
// a checksum, which names no board (facts eva 4.4).
func (d *Box) oneImage(p []byte) program {
	_, kernel, ok := record(p)
	if len(p) > 0x11040 && string(p[0x11000:0x11004]) == "OKLI" {
		h, data := p[0x11000:0x11040], p[0x11040:]
		n := int64(binary.BigEndian.Uint32(h[12:]))
		if !ok || n > int64(len(data)) || crc32.ChecksumIEEE(data[:n]) != binary.BigEndian.Uint32(h[24:]) || !squashfs(data[n:]) {
			return nothing
		}
		return program{what: OpenWrt, board: d.kind.boards[0], release: d.release(data[n:])}
	}
	board, found := boardIn(kernel, d.ours())
	if !ok || !found {
		return nothing
	}
	return program{what: OpenWrt, board: board, release: d.release(p)}
}

// besides is the 3370: the kernel in mtd1, the root file system in UBI in mtd0. The
// bootloader's other set of partitions still holds FRITZ!OS.
func (d *Box) besides(kernel []byte) program {
	fs := d.EVA.Flash("mtd0")
	root, inVolume := d.nand.volume("rootfs")
	switch {
	case kernel == nil && fs == nil && !inVolume, d.EVA.Env("linux_fs_start") == "1":
		return program{what: Stock}
	case !inVolume:
		if !bytes.HasPrefix(fs, []byte("UBI#")) || len(fs)%0x20000 != 0 {
			return nothing
		}
		root = fs
	}
	_, inside, ok := record(kernel)
	board, found := boardIn(inside, d.ours())
	if !ok || !found || !bytes.Contains(root, []byte("hsqs")) {
		return nothing
	}
	return program{what: OpenWrt, board: board, release: d.release(root)}
}

// inUBI is a box with VR9 and NAND: the kernel where the bootloader looks, the root
// file system in UBI. OpenWrt takes the room of both of FRITZ!OS' systems, so with
// linux_fs_start 1 the bootloader finds nothing (facts eva 3.1, D).
func (d *Box) inUBI(kernel []byte) program {
	root, there := d.nand.volume("rootfs")
	if kernel == nil && !there {
		return program{what: Stock}
	}
	_, inside, ok := record(kernel)
	board, found := boardIn(inside, d.ours())
	if !ok || !found || !squashfs(root) || d.EVA.Env("linux_fs_start") == "1" {
		return nothing
	}
	return program{what: OpenWrt, board: board, release: d.release(root)}
}

// fetching is a box with U-Boot in the places of FRITZ!OS' kernels.
func (d *Box) fetching(first []byte) program {
	slot := first
	if d.EVA.Env("linux_fs_start") == "1" {
		slot = d.EVA.Flash("mtd4")
	}
	if slot == nil {
		if _, ok := d.nand.volume("avm_filesys_0"); ok {
			return program{what: Stock}
		}
		return nothing
	}
	load, inside, ok := record(slot)
	if !ok || load != ubootLoad {
		return nothing
	}
	return d.uboot(inside)
}

// archive reads a sysupgrade tar: the files by their last name.
func archive(p []byte) map[string][]byte {
	out := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(p)); ; {
		h, err := r.Next()
		if err != nil {
			return out
		}
		if data, err := io.ReadAll(r); err == nil && strings.HasPrefix(h.Name, "sysupgrade-") {
			out[h.Name[strings.LastIndex(h.Name, "/")+1:]] = data
		}
	}
}
