package image

import (
	"encoding/binary"
	"hash/crc32"
)

// readUImage checks the legacy U-Boot image at off (U-Boot include/image.h; big
// endian: magic, header CRC, time, size, load, entry, data CRC, four bytes of
// kinds, name) whatever its magic, and gives its end.
func readUImage(f *file, m *Image, off int64) (end int64, ok bool) {
	p := f.at(off, 64)
	if len(p) < 64 {
		m.cut("kernel", off+64)
		return 0, false
	}
	be := binary.BigEndian
	want := be.Uint32(p[4:])
	blank := append([]byte(nil), p...)
	clear(blank[4:8])
	if got := crc32.ChecksumIEEE(blank); !m.judge("kernel header checksum", got == want, "it is %08x instead of %08x", got, want) {
		return 0, false
	}
	size := int64(be.Uint32(p[12:]))
	end = off + 64 + size
	if end > f.size {
		m.cut("kernel", end)
		return 0, false
	}
	got := f.crc(off+64, size)
	m.judge("kernel checksum", got == be.Uint32(p[24:]), "it is %08x instead of %08x", got, be.Uint32(p[24:]))
	m.part("kernel", off, 64+size)
	return end, true
}
