package image

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// The EVA record, all little endian (facts eva.md 4.1; UB fritz/src/lzma2eva.c).
const (
	recordMagic    = "\x81\x12\xed\xfe" // 0xFEED1281
	recordType     = 0x075A0201         // LZMA
	recordHeader   = 36                 // up to the stream
	recordOverhead = 48                 // header, and 12 bytes behind the stream
	ubootLoad      = 0x841FFFF8         // UB fritz/fritzcreator.sh
	lantiqLoad     = 0x80002000         // OpenWrt target/linux/lantiq/image
)

// The TI checksum trailer (facts eva.md 4.2).
const (
	tiMagic = "\x23\xde\x53\xc4" // 0xC453DE23
	tiSize  = 8
)

// A record is the header of an EVA record, believed as far as it was checked.
type record struct {
	off, end     int64 // end: behind the entry address
	load, entry  uint32
	compressed   int64
	uncompressed uint32
	properties   byte // of LZMA
	dictionary   uint32
	good         bool // whole, and both sums are right
}

// readRecord checks the record at off and reports its part as name. ok is false
// when it does not end within the file or is none.
func readRecord(f *file, m *Image, off int64, name string) (rec record, ok bool) {
	p := f.at(off, recordHeader)
	if len(p) < recordHeader {
		m.cut(name, off+recordOverhead)
		return rec, false
	}
	le := binary.LittleEndian
	length := int64(le.Uint32(p[4:]))
	rec = record{off: off, load: le.Uint32(p[8:]), compressed: int64(le.Uint32(p[16:])), uncompressed: le.Uint32(p[20:]), properties: p[28], dictionary: le.Uint32(p[29:])}
	rec.end = off + recordOverhead + rec.compressed
	if length != rec.compressed+24 || le.Uint32(p[12:]) != recordType {
		m.check(name, Bad, "its record header contradicts itself")
		return rec, false
	}
	if rec.end > f.size {
		m.cut(name, rec.end)
		return rec, false
	}
	rec.entry = f.le32(rec.end - 4)
	stream := f.crc(off+recordHeader, rec.compressed)
	sum := uint32(length) + rec.load
	f.each(off+12, rec.compressed+recordHeader-12, func(p []byte) {
		for _, b := range p {
			sum += uint32(b)
		}
	})
	rec.good = m.judge(name+" checksum", stream == le.Uint32(p[24:]), "the stream's CRC is %08x instead of %08x", stream, le.Uint32(p[24:]))
	rec.good = m.judge(name+" record sum", sum+f.le32(rec.end-12) == 0, "it is %08x instead of %08x", -sum, f.le32(rec.end-12)) && rec.good
	m.part(name, off, rec.end-off)
	return rec, true
}

// tiTrailer checks the trailer whose last byte is before end, over everything
// before it. found is false when there is none.
func tiTrailer(f *file, m *Image, end int64) (found bool) {
	at := end - tiSize
	if at < 0 || !f.has(at, tiMagic) {
		return false
	}
	sum := f.cksum(0, at)
	m.judge("TI checksum", sum == f.le32(at+4), "it is %08x instead of %08x", sum, f.le32(at+4))
	return true
}

// readEVA takes everything that begins with an EVA record.
func readEVA(f *file, m *Image, t trailer) {
	m.Kind, m.Format = Kernel, "kernel in an EVA record"
	if f.le32(8) == ubootLoad {
		readUBoot(f, m, t)
		return
	}
	rec, ok := readRecord(f, m, 0, "kernel")
	if !ok {
		return
	}
	switch boundary := roundUp(rec.end, 64<<10); {
	case rec.end == t.body:
		what := unpack(f, rec)
		for _, b := range what.compatible {
			m.board(b)
		}
		if len(what.compatible) == 0 {
			m.check("board", NotKnown, "%s", what.why)
		}
	case f.has(boundary+0x1000, okliMagic) && boundary == 0x10000:
		readLoader(f, m, t)
	case boundary == 0x10000 && dummyAt(f, boundary) && f.all(boundary+0x100, t.body-boundary-0x100, 0):
		m.Kind, m.layout, m.flat = Sysupgrade, layoutLoader, true
		m.Format = "loader in an EVA record"
		m.cutTail("kernel", "there is none behind the loader")
	case f.has(boundary+0x100, squashMagic), m.HasMetadata, dummyAt(f, boundary):
		m.Kind, m.layout, m.flat = Sysupgrade, layoutRecord, true
		m.Format = "kernel in an EVA record and squashfs"
		m.part("second head", boundary, 0x100)
		if end, ok := squashfs(f, m, boundary+0x100, t.body); ok {
			padding(f, m, end, t.body)
		}
		metadataNeeded(m)
	case f.all(rec.end, t.body-rec.end, 0) || f.all(rec.end, t.body-rec.end, 0xFF):
		if t.body < boundary+0x200 && !tiTrailer(f, m, f.size) {
			// The pad to the next boundary and nothing behind it.
			m.cutTail("root file system", "there is none behind the kernel")
		}
	case tiTrailer(f, m, f.size):
		m.Kind, m.Format = AVMKernel, "AVM's kernel and file system with a TI checksum"
	default:
		m.Kind, m.Format = AVMKernel, "an EVA record that is not followed by OpenWrt"
	}
}

// dummyAt reports whether EVA's file system dummy stands at off: big endian on
// ath79 (its exact form was not verified [?]), `sqsh 00 00 00 01` on lantiq.
func dummyAt(f *file, off int64) bool { return f.has(off, "sqsh") }

// okliMagic marks the kernel that the small loader of the 7312 and 7320 looks for
// (facts eva.md 4.4, since 22.03). It stands at 0x11000: 64 KiB for the loader,
// then EVA's dummy padded to 4 KiB.
const okliMagic = "OKLI"

func readLoader(f *file, m *Image, t trailer) {
	m.Kind, m.layout, m.flat = Sysupgrade, layoutLoader, true
	m.Format = "loader in an EVA record, kernel and squashfs"
	m.Parts[len(m.Parts)-1].Name = "loader"
	m.part("second head", 0x10000, 0x1000)
	end, ok := readUImage(f, m, 0x11000)
	if !ok {
		return
	}
	// The kernel's splitter looks behind the kernel and at the following block
	// boundaries; where exactly the recipe puts it was not verified [?].
	at := end
	for next := range int64(16) {
		if f.has(at, squashMagic) {
			break
		}
		at = (roundUp(end+1, 4096)/4096 + next) * 4096
	}
	if !f.has(at, squashMagic) {
		at = end
	}
	if end, ok := squashfs(f, m, at, t.body); ok {
		padding(f, m, end, t.body)
	}
	metadataNeeded(m)
}

// metadataNeeded notes what sysupgrade needs (facts eva.md 4.5) and a file that
// was cut off between root file system and end lacks.
func metadataNeeded(m *Image) {
	if !m.HasMetadata {
		m.check("metadata", NotKnown, "there is none")
	}
}

// readUBoot takes the 4040's image for EVA, and a U-Boot alone: a record that
// loads at 0x841FFFF8, 0xFF up to a multiple of 256, a squashfs magic that EVA
// looks for, zeros, and the TI trailer at 0x7FFF8 (facts eva.md 4.3).
func readUBoot(f *file, m *Image, t trailer) {
	m.Kind, m.Format = UBoot, "U-Boot in an EVA record"
	if f.size > ubootSize {
		m.Kind, m.Format = EVA, "U-Boot, FIT and squashfs"
	}
	rec, ok := readRecord(f, m, 0, "u-boot")
	if !ok {
		return
	}
	m.judge("u-boot address", rec.entry == ubootLoad, "enters at 0x%08x instead of 0x%08x", rec.entry, ubootLoad)
	if f.size < ubootSize {
		m.cut("u-boot with padding", ubootSize)
		return
	}
	if rec.end > ubootSize-tiSize {
		m.check("u-boot", Bad, "is %d bytes long, more than its place", rec.end)
		return
	}
	head := roundUp(rec.end+tiSize, 256)
	m.judge("second head", f.has(head, squashMagic), "EVA's mark of a file system is missing at 0x%x", head)
	if !tiTrailer(f, m, ubootSize) {
		m.check("TI checksum", Bad, "none at 0x%x", ubootSize-tiSize)
	}
	what := unpack(f, rec)
	m.UBootFor = what.uboot
	if what.uboot == "" {
		m.check("u-boot's model", NotKnown, "%s", what.why)
	}
	if m.Kind == UBoot {
		for _, b := range boards {
			for _, u := range b.UBoots {
				if u == what.uboot {
					m.board(b.Name)
				}
			}
		}
		return
	}
	if what.uboot != "" {
		m.judge("u-boot's model", what.uboot == "fritz4040", "it is for the %s", strings.TrimPrefix(what.uboot, "fritz"))
	}
	end, ok := readFIT(f, m, ubootSize)
	if !ok {
		return
	}
	if end, ok := squashfs(f, m, end, t.body); ok {
		padding(f, m, end, t.body)
	}
}

// What an LZMA stream told.
type unpacked struct {
	compatible []string // the first of the device tree's root
	uboot      string   // "fritz7530"
	why        string   // when neither was found
}

// unpack decompresses a record's stream and looks for the device tree of an
// OpenWrt kernel (appended to it by the recipe's append-dtb) and for the boot file
// name of a U-Boot ("FRITZ7530.bin", UB include/configs CONFIG_BOOTFILE).
func unpack(f *file, rec record) (what unpacked) {
	if !rec.good {
		return unpacked{why: "its compressed stream is damaged"}
	}
	tail, err := unlzma(f, rec)
	if err != nil {
		return unpacked{why: "its compressed stream could not be read: " + err.Error()}
	}
	mem := &file{r: bytes.NewReader(tail), size: int64(len(tail))}
	trees := 0
	for at := 0; trees < 16; trees++ {
		i := bytes.Index(tail[at:], []byte(fdtMagic))
		if i < 0 {
			break
		}
		if tree, ok := readTree(mem, int64(at+i)); ok {
			for _, name := range tree.compatible {
				if strings.HasPrefix(name, "avm,") {
					what.compatible = append(what.compatible, name)
					break
				}
			}
		}
		at += i + 4
	}
	for _, b := range boards {
		for _, u := range b.UBoots {
			if bytes.Contains(tail, []byte(strings.ToUpper(u)+".bin")) {
				what.uboot = u
			}
		}
	}
	if what.uboot == "" && len(what.compatible) == 0 {
		what.why = "nothing inside names a board"
	}
	return what
}
