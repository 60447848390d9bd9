package evabox

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
)

// A partition of the flash: what was programmed, then 0xFF to its end. One that
// was never erased holds the maker's firmware.
type partition struct {
	size  int64
	data  []byte
	stock bool
}

// check is the number that CHECK prints: CRC-32 over the whole partition, as two
// programs written against real devices compute it (facts eva 1.5).
func (p *partition) check() uint32 {
	sum := crc32.ChecksumIEEE(p.data)
	fill := bytes.Repeat([]byte{0xff}, 1<<16)
	for left := p.size - int64(len(p.data)); left > 0; left -= int64(len(fill)) {
		sum = crc32.Update(sum, crc32.IEEETable, fill[:min(left, int64(len(fill)))])
	}
	return sum
}

// bounds reads "0x220000,0x2000000".
func bounds(value string) (start, end int64, ok bool) {
	a, b, found := strings.Cut(value, ",")
	start, err1 := strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(a), "0x"), 16, 64)
	end, err2 := strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(b), "0x"), 16, 64)
	return start, end, found && err1 == nil && err2 == nil && end >= start
}

// What a box runs.
const (
	Stock    = "FRITZ!OS"
	OpenWrt  = "OpenWrt"
	RedLight = "nothing: the info LED blinks red"
	UBoot    = "U-Boot" // started in RAM, fetches the next stage itself
)

var (
	evaMagic  = []byte{0x81, 0x12, 0xed, 0xfe}
	fitMagic  = []byte{0xd0, 0x0d, 0xfe, 0xed}
	squash    = []byte("hsqs")
	tiMagic   = []byte{0x23, 0xde, 0x53, 0xc4}
	ubootPart = int64(0x80000)
)

// boots says what runs from mtd1 as it is (facts eva 4.3, 4.4): it looks at what
// was really written, so that a cut or wrong upload does not start.
func boots(hwRevision string, p *partition) string {
	if p == nil || p.stock {
		return Stock
	}
	d := p.data
	switch {
	case !bytes.HasPrefix(d, evaMagic):
		return RedLight
	case hwRevision == "227": // EVA starts U-Boot, U-Boot finds the FIT behind it
		if int64(len(d)) < ubootPart+8 || !tiValid(d[:ubootPart]) || !bytes.Equal(d[ubootPart:ubootPart+4], fitMagic) {
			return RedLight
		}
		size := int64(binary.BigEndian.Uint32(d[ubootPart+4:]))
		return squashfsAt(d, ubootPart+size)
	case bytes.Contains(d[:min(len(d), 0x11004)], []byte("OKLI")):
		return OpenWrt
	case len(d) >= 8: // as the kernel's splitter: record, round up, a dummy, the root
		record := int64(binary.LittleEndian.Uint32(d[4:])) + 24
		return squashfsAt(d, (record+0xffff)&^0xffff+0x100)
	}
	return RedLight
}

func squashfsAt(d []byte, at int64) string {
	if at < 0 || at+48 > int64(len(d)) || !bytes.Equal(d[at:at+4], squash) {
		return RedLight
	}
	if used := int64(binary.LittleEndian.Uint64(d[at+40:])); used < 48 || at+used > int64(len(d)) {
		return RedLight
	}
	return OpenWrt
}

func tiValid(d []byte) bool {
	n := len(d) - 8
	return bytes.Equal(d[n:n+4], tiMagic) && binary.LittleEndian.Uint32(d[n+4:]) == cksum(d[:n])
}

// cksum is POSIX cksum's CRC, which TI's trailer holds (facts eva 4.2).
func cksum(d []byte) uint32 {
	crc := uint32(0)
	step := func(b byte) {
		crc = crc<<8 ^ cksumTable[byte(crc>>24)^b]
	}
	for _, b := range d {
		step(b)
	}
	for n := len(d); n > 0; n >>= 8 {
		step(byte(n))
	}
	return ^crc
}

var cksumTable = func() (t [256]uint32) {
	for i := range t {
		c := uint32(i) << 24
		for range 8 {
			if c&0x80000000 != 0 {
				c = c<<1 ^ 0x04C11DB7
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return t
}()

// squashfs is a root filesystem by its looks: magic and the right length.
func squashfs(size int) []byte {
	root := bytes.Repeat([]byte("root"), size/4+12)[:max(size, 48)]
	copy(root, squash)
	binary.LittleEndian.PutUint64(root[40:], uint64(len(root)))
	return root
}

// evaRecord is AVM's container of a compressed program (facts eva 4.1).
func evaRecord(stream []byte, load uint32) []byte {
	le := binary.LittleEndian
	out := slices.Clone(evaMagic)
	out = le.AppendUint32(out, uint32(len(stream)+24))
	out = le.AppendUint32(out, load)
	from := len(out)
	out = le.AppendUint32(out, 0x075A0201)
	out = le.AppendUint32(out, uint32(len(stream)))
	out = le.AppendUint32(out, uint32(4*len(stream)))
	out = le.AppendUint32(out, crc32.ChecksumIEEE(stream))
	out = append(out, 0x5d, 0, 0, 0x80, 0, 0, 0, 0)
	out = append(out, stream...)
	sum := uint32(len(stream)+24) + load
	for _, b := range out[from:] {
		sum += uint32(b)
	}
	out = le.AppendUint32(out, -sum)
	out = le.AppendUint32(out, 0)
	return le.AppendUint32(out, load)
}

// Image4040 makes a file that an emulated 4040 starts: the layout of OpenWrt's
// squashfs-eva.bin with stand-ins for U-Boot, kernel and root (facts eva 4.3).
func Image4040(kernel, root int) []byte {
	out := evaRecord(bytes.Repeat([]byte("uboot"), 20000), 0x841FFFF8)
	out = append(out, bytes.Repeat([]byte{0xff}, 8)...)
	out = append(out, bytes.Repeat([]byte{0xff}, -len(out)&0xff)...)
	out = append(out, "hsqs\n"...)
	out = append(out, make([]byte, int(ubootPart)-8-len(out))...)
	sum := cksum(out)
	out = append(out, tiMagic...)
	out = binary.LittleEndian.AppendUint32(out, sum)
	fit := append(slices.Clone(fitMagic), make([]byte, max(kernel, 64)-4)...)
	binary.BigEndian.PutUint32(fit[4:], uint32(len(fit)))
	copy(fit[16:], "ARM OpenWrt avm_fritzbox-4040 device tree blob")
	out = append(append(out, fit...), squashfs(root)...)
	out = append(out, bytes.Repeat([]byte{0xff}, -len(out)&0xffff)...)
	return append(out, 0xde, 0xad, 0xc0, 0xde)
}

// ImageNOR makes a file that an emulated box with one image in NOR flash starts
// (facts eva 4.4, ath79 and 7360).
func ImageNOR(kernel, root int) []byte {
	out := evaRecord(bytes.Repeat([]byte("k"), kernel), 0x80002000)
	out = append(out, make([]byte, -len(out)&0xffff)...)
	out = append(out, make([]byte, 0x100)...)
	return append(out, squashfs(root)...)
}

// ImageRAM makes an image for RAM boot: a bare record, as an initramfs is for the
// lantiq boxes. uboot makes one at U-Boot's load address.
func ImageRAM(size int, uboot bool) []byte {
	load := uint32(0x80002000)
	if uboot {
		load = 0x841FFFF8
	}
	return evaRecord(bytes.Repeat([]byte("r"), size), load)
}

// bootsFromRAM says what a RAM boot starts.
func bootsFromRAM(d []byte) string {
	switch {
	case len(d) < 16 || !bytes.HasPrefix(d, evaMagic):
		return RedLight
	case binary.LittleEndian.Uint32(d[8:]) == 0x841FFFF8:
		return UBoot
	}
	return OpenWrt
}
