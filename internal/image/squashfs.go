package image

import (
	"encoding/binary"
	"fmt"
)

const squashMagic = "hsqs" // little endian; AVM's and EVA's dummies are also big endian, "sqsh"

// squashfs reads the superblock at off (Linux Documentation/filesystems/squashfs,
// struct squashfs_super_block; all little endian) and gives the end of the file
// system. Its contents carry no checksum. ok is false when there is none, or none
// that ends inside the first limit bytes of the file.
func squashfs(f *file, m *Image, off, limit int64) (end int64, ok bool) {
	p := f.at(off, 96)
	if len(p) < 96 {
		if off+96 > f.size {
			m.cut("root file system", off+96)
		}
		return 0, false
	}
	le := binary.LittleEndian
	if string(p[:4]) != squashMagic {
		m.check("root file system", Bad, "no squashfs at 0x%x", off)
		return 0, false
	}
	used := le.Uint64(p[40:])
	log := le.Uint16(p[22:])
	switch {
	case le.Uint16(p[28:]) != 4 || le.Uint16(p[30:]) != 0:
		m.check("root file system", Bad, "squashfs %d.%d instead of 4.0", le.Uint16(p[28:]), le.Uint16(p[30:]))
	case log < 12 || log > 20 || le.Uint32(p[12:]) != 1<<log:
		m.check("root file system", Bad, "block size %d does not go with its logarithm %d", le.Uint32(p[12:]), log)
	case used < 96 || used > 1<<31:
		m.check("root file system", Bad, "says that it is %d bytes long", used)
	default:
		if bad := table(p, used); bad != "" {
			m.check("root file system", Bad, "%s lies outside of it", bad)
			return 0, false
		}
		end = off + int64(used)
		if end > limit {
			if limit < f.size {
				m.check("root file system", Bad, "ends at %d, its room at %d", end, limit)
			} else {
				m.cut("root file system", end)
			}
			return 0, false
		}
		m.check("root file system", Good, "squashfs, %s", compressor(le.Uint16(p[20:])))
		m.check("root file system contents", NotKnown, "carry no checksum; only the release's checksum list tells")
		m.part("root file system", off, int64(used))
		return end, true
	}
	return 0, false
}

// table names the first table that does not lie inside the file system; all ones
// means that there is none.
func table(p []byte, used uint64) string {
	for i, name := range []string{"id table", "xattr table", "inode table", "directory table", "fragment table", "export table"} {
		at := binary.LittleEndian.Uint64(p[48+8*i:])
		if at != ^uint64(0) && at >= used {
			return name
		}
	}
	return ""
}

func compressor(n uint16) string {
	names := []string{"", "gzip", "lzma", "lzo", "xz", "lz4", "zstd"}
	if int(n) < len(names) && n > 0 {
		return names[n]
	}
	return fmt.Sprintf("compressor %d", n)
}

// padding looks at what stands between the root file system and the end of the
// image proper: 0xFF up to block boundaries with a JFFS2 end mark on each, the last
// being the last four bytes (OpenWrt tools/padjffs2, `pad-rootfs` with 4, 8, 16,
// 64, 128 and 256 KiB where the recipe names no block size). A download that broke
// off lacks that mark.
func padding(f *file, m *Image, from, to int64) {
	m.part("padding", from, max(to-from, 0))
	mark := to - 4
	switch {
	case m.HasMetadata && !f.has(mark, jffs2End):
		// The checksum over all of it is right, so nothing was lost.
		m.check("end mark", NotKnown, "none; the builder left it out")
	case to > roundUp(from, 256<<10)+4 && f.has(roundUp(from, 256<<10), jffs2End):
		m.check("end mark", Bad, "%d bytes follow the end of the image", to-roundUp(from, 256<<10)-4)
	case mark < roundUp(from, 4096) || mark%4096 != 0 || !f.has(mark, jffs2End):
		m.cutTail("end mark", "the last bytes are not the JFFS2 end mark")
	case !f.all(from, min(to, roundUp(from, 4096))-from, 0xFF):
		m.check("end mark", Bad, "there is something between the root file system and the next boundary")
	default:
		m.check("end mark", Good, "")
	}
}

const jffs2End = "\xde\xad\xc0\xde"
