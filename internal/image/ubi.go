package image

import (
	"encoding/binary"
	"hash/crc32"
)

const ubiMagic = "UBI#"

// readUBI checks a UBI image (Linux drivers/mtd/ubi/ubi-media.h, big endian: every
// erase block begins with a header of 64 bytes, whose CRC is not inverted at the
// end) and that the first volume holds all of its squashfs. eva-filesystem.bin of
// the 3370 has this form; other boards' factory images, too, and nothing inside
// names the board.
func readUBI(f *file, m *Image, t trailer) {
	m.Kind, m.Format = FileSystem, "UBI"
	block := int64(0)
	for n := int64(16 << 10); n <= 512<<10; n *= 2 {
		if f.has(n, ubiMagic) {
			block = n
			break
		}
	}
	if block == 0 {
		m.cutTail("UBI", "there is only one erase block")
		return
	}
	if t.body%block != 0 {
		m.cut("UBI", roundUp(t.body, block))
		return
	}
	be := binary.BigEndian
	var leb, first, blocks int64
	for at := int64(0); at < t.body; at += block {
		p := f.at(at, 64)
		if len(p) < 64 || string(p[:4]) != ubiMagic {
			m.judge("UBI", f.has(at, "\xff\xff\xff\xff"), "erase block %d has no header", at/block)
			continue
		}
		if ^crc32.ChecksumIEEE(p[:60]) != be.Uint32(p[60:]) {
			m.check("UBI", Bad, "the header of erase block %d is damaged", at/block)
			return
		}
		vid := f.at(at+int64(be.Uint32(p[16:])), 64)
		if len(vid) < 64 || string(vid[:4]) != "UBI!" {
			continue
		}
		if ^crc32.ChecksumIEEE(vid[:60]) != be.Uint32(vid[60:]) {
			m.check("UBI", Bad, "the volume header of erase block %d is damaged", at/block)
			return
		}
		if volume := be.Uint32(vid[8:]); volume != 0 { // the layout volume has a number from 0x7FFFEFFF
			continue
		}
		blocks++
		if be.Uint32(vid[12:]) == 0 {
			first, leb = at+int64(be.Uint32(p[20:])), block-int64(be.Uint32(p[20:]))
		}
	}
	if blocks == 0 {
		m.cutTail("root file system", "no erase block of it is here")
		return
	}
	m.check("UBI", Good, "")
	m.part("root file system", 0, t.body)
	if !f.has(first, squashMagic) || leb <= 0 {
		m.check("root file system", NotKnown, "the first volume holds no squashfs")
		return
	}
	used := int64(binary.LittleEndian.Uint64(append(f.at(first+40, 8), make([]byte, 8)...)))
	if used < 0 || used > blocks*leb {
		m.CutOff = true
		m.check("root file system", Bad, "is %d bytes long, %d are here", used, blocks*leb)
		return
	}
	m.check("root file system", Good, "squashfs in UBI")
}
