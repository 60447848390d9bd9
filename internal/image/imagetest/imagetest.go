// Package imagetest makes firmware files for tests, whole and with every mistake
// that people make, from the layouts in facts eva.md 4. It shares no code with
// package image, which judges such files: what both got wrong in the same way
// would pass. The emulated boot loader starts what these files hold.
//
// The files are small, their kernels and file systems are noise, and they start on
// no real box. The same options always give the same bytes.
package imagetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"sync"
)

// Options say what to build. The zero value of a field takes its default.
type Options struct {
	Board   string // "avm,fritzbox-4040"; the default
	Version string // "24.10.7"; the default
	Seed    uint64
	// Kernel and Root are sizes in bytes before compression, 20,000 and 50,000.
	// Kernels hardly compress.
	Kernel, Root int
	// Compat is metadata's compat_version, "1.0"; another one also gets the
	// warning sentence that keeps old systems away.
	Compat string
	// Signed appends a (meaningless) signature chunk.
	Signed bool
	// Packages that the root file system says it holds beside the default ones.
	Packages []string
}

func (o Options) full() Options {
	if o.Board == "" {
		o.Board = "avm,fritzbox-4040"
	}
	if o.Version == "" {
		o.Version = "24.10.7"
	}
	if o.Kernel == 0 {
		o.Kernel = 20_000
	}
	if o.Root == 0 {
		o.Root = 50_000
	}
	if o.Compat == "" {
		o.Compat = "1.0"
	}
	return o
}

func (o Options) profile() string { return strings.ReplaceAll(o.Board, ",", "_") }

// boardName is the name of the directory in a sysupgrade tar and of
// version.board (facts eva.md 3.2: BOARD_NAME of the recipe).
func (o Options) boardName() string {
	switch o.Board {
	case "avm,fritzbox-4040":
		return "fritz4040"
	case "avm,fritz7412":
		return "FRITZ7412"
	}
	return o.profile()
}

func (o Options) target() string {
	switch {
	case strings.Contains(o.Board, "4040"), strings.Contains(o.Board, "7530"), strings.Contains(o.Board, "repeater"):
		return "ipq40xx/generic"
	case strings.Contains(o.Board, "7312"), strings.Contains(o.Board, "7320"):
		return "lantiq/xway"
	case strings.Contains(o.Board, "4020"), strings.HasSuffix(o.Board, "0e"), strings.Contains(o.Board, "dvbc"):
		return "ath79/generic"
	}
	return "lantiq/xrx200"
}

// Noise is n bytes that do not compress and hold no format's mark.
func Noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0x5EED))
	out := make([]byte, 0, n+8)
	for len(out) < n {
		// Below 0x80, so that none of the magics (0xD00DFEED, 0xFEED1281,
		// 0xDEADC0DE) comes up by chance.
		out = binary.LittleEndian.AppendUint64(out, r.Uint64()&0x7F7F7F7F7F7F7F7F)
	}
	return out[:n]
}

// EVA is the 4040's image for its boot loader: U-Boot, FIT, squashfs, padding; no
// metadata (facts eva.md 4.3).
func EVA(o Options) []byte {
	o = o.full()
	return PadRoot(append(UBoot(strings.ToUpper(o.boardName())), append(FIT(o, o.Kernel), Root(o)...)...))
}

// Sysupgrade is the sysupgrade image of o.Board in that board's layout.
func Sysupgrade(o Options) []byte {
	o = o.full()
	switch {
	case o.Board == "avm,fritzbox-4040":
		return Metadata(o, PadRoot(append(FIT(o, o.Kernel), Root(o)...)))
	case o.target() == "lantiq/xway":
		return Metadata(o, PadRoot(append(loader(o), Root(o)...)))
	case o.target() == "ath79/generic":
		return Metadata(o, PadRoot(append(second(kernelRecord(o, o.Kernel), "sqsh\x00\x00\x00\x00", 256), Root(o)...)))
	case strings.Contains(o.Board, "7360"):
		return Metadata(o, PadRoot(append(second(kernelRecord(o, o.Kernel), "sqsh\x00\x00\x00\x01", 256), Root(o)...)))
	}
	return Metadata(o, archive(o))
}

// SysupgradeOld is the layout of 7312 and 7320 before 22.03: without a loader.
func SysupgradeOld(o Options) []byte {
	o = o.full()
	return Metadata(o, PadRoot(append(second(kernelRecord(o, o.Kernel), "sqsh\x00\x00\x00\x01", 256), Root(o)...)))
}

// Initramfs is the image that runs from RAM: a FIT on ipq40xx, else an EVA record.
func Initramfs(o Options) []byte {
	o = o.full()
	if o.target() == "ipq40xx/generic" {
		return fit(o, append(Noise(o.Seed+1, o.Kernel), Root(o)...))
	}
	return recordOf(o, append(Noise(o.Seed+1, o.Kernel), Root(o)...))
}

// EVAKernel and EVAFileSystem are the two files of the 3370.
func EVAKernel(o Options) []byte { o = o.full(); return kernelRecord(o, o.Kernel) }

// EVAFileSystem is a UBI image: erase blocks of 128 KiB, two of the layout volume,
// then the root file system.
func EVAFileSystem(o Options) []byte {
	o = o.full()
	const block, data = 128 << 10, 2048
	root := Root(o)
	var out []byte
	add := func(volume, lnum uint32, content []byte) {
		p := bytes.Repeat([]byte{0xFF}, block)
		be := binary.BigEndian
		ec := make([]byte, 64)
		copy(ec, "UBI#\x01")
		be.PutUint32(ec[16:], 512)
		be.PutUint32(ec[20:], data)
		be.PutUint32(ec[60:], ^crc32.ChecksumIEEE(ec[:60]))
		copy(p, ec)
		vid := make([]byte, 64)
		copy(vid, "UBI!\x01\x01")
		be.PutUint32(vid[8:], volume)
		be.PutUint32(vid[12:], lnum)
		be.PutUint32(vid[60:], ^crc32.ChecksumIEEE(vid[:60]))
		copy(p[512:], vid)
		copy(p[data:], content)
		out = append(out, p...)
	}
	for n := range uint32(2) {
		add(0x7FFFEFFF, n, make([]byte, 4096))
	}
	for n := uint32(0); len(root) > 0; n++ {
		piece := root[:min(len(root), block-data)]
		add(0, n, piece)
		root = root[len(piece):]
	}
	return out
}

// UBoot is chunkeey's U-Boot for a model ("FRITZ4040", "FRITZ7520"): record, 0xFF
// up to a multiple of 256, squashfs mark, zeros, TI trailer; 512 KiB.
func UBoot(model string) []byte {
	made, ok := uboots.Load(model)
	if !ok {
		made, _ = uboots.LoadOrStore(model, uboot(model))
	}
	return bytes.Clone(made.([]byte))
}

// uboots are those that were made already: it is in front of every image of the
// 4040, and its checksum costs more than all the rest.
var uboots sync.Map

func uboot(model string) []byte {
	inside := append(Noise(40, 6_000), "\x00bootfile="+model+".bin\x00"...)
	inside = append(inside, Noise(41, 3_000)...)
	out := Record(0x841FFFF8, 0x841FFFF8, inside)
	out = append(out, bytes.Repeat([]byte{0xFF}, 8)...)
	out = append(out, bytes.Repeat([]byte{0xFF}, (256-len(out)%256)%256)...)
	out = append(out, "hsqs\n"...)
	out = append(out, make([]byte, 0x7FFF8-len(out))...)
	return TI(out)
}

// Record wraps data, compressed, as an EVA record (facts eva.md 4.1).
func Record(load, entry uint32, data []byte) []byte {
	return RecordOf(load, entry, LZMA(data), uint32(len(data)), lzmaProperties, 1<<23)
}

// RecordOf makes a record of a stream that is compressed already.
func RecordOf(load, entry uint32, stream []byte, size uint32, properties byte, dictionary uint32) []byte {
	le := binary.LittleEndian
	out := append([]byte(nil), 0x81, 0x12, 0xED, 0xFE)
	length := uint32(len(stream)) + 24
	for _, v := range []uint32{length, load, 0x075A0201, uint32(len(stream)), size, crc32.ChecksumIEEE(stream)} {
		out = le.AppendUint32(out, v)
	}
	out = append(out, properties)
	out = le.AppendUint32(out, dictionary)
	out = append(out, 0, 0, 0)
	out = append(out, stream...)
	sum := length + load
	for _, b := range out[12:] {
		sum += uint32(b)
	}
	out = le.AppendUint32(out, -sum)
	out = le.AppendUint32(out, 0)
	return le.AppendUint32(out, entry)
}

func kernelRecord(o Options, size int) []byte { return recordOf(o, Noise(o.Seed+1, size)) }

func recordOf(o Options, kernel []byte) []byte {
	load := uint32(0x80002000)
	if o.target() == "ath79/generic" {
		load = 0x80060000
	}
	return Record(load, load, append(kernel, DeviceTree(o.Board)...))
}

// second pads to 64 KiB and appends what EVA takes for a file system.
func second(kernel []byte, dummy string, size int) []byte {
	kernel = append(kernel, make([]byte, pad(len(kernel), 64<<10))...)
	return append(append(kernel, dummy...), make([]byte, size-len(dummy))...)
}

// loader is the layout of 7312 and 7320 since 22.03: a small record, the dummy
// padded to 4 KiB, and at 0x11000 the kernel behind a header "OKLI".
func loader(o Options) []byte {
	out := second(Record(0x80A00000, 0x80A00000, Noise(7, 4000)), "sqsh\x00\x00\x00\x01", 4096)
	return append(out, UImage("OKLI", LZMA(append(Noise(o.Seed+1, o.Kernel), DeviceTree(o.Board)...)))...)
}

// UImage is a legacy U-Boot image with that magic.
func UImage(magic string, data []byte) []byte {
	h := make([]byte, 64)
	copy(h, magic)
	be := binary.BigEndian
	be.PutUint32(h[12:], uint32(len(data)))
	be.PutUint32(h[16:], 0x80002000)
	be.PutUint32(h[20:], 0x80002000)
	be.PutUint32(h[24:], crc32.ChecksumIEEE(data))
	copy(h[28:], "\x05\x05\x02\x03MIPS OpenWrt Linux-6.6.93")
	be.PutUint32(h[4:], crc32.ChecksumIEEE(h))
	return append(h, data...)
}

// Squashfs is n bytes that begin with a sound superblock.
func Squashfs(seed uint64, n int) []byte {
	n = max(n, 200)
	out := Noise(seed+2, n)
	le := binary.LittleEndian
	copy(out, "hsqs")
	le.PutUint32(out[4:], 1200)    // inodes
	le.PutUint32(out[12:], 262144) // block size
	le.PutUint32(out[16:], 40)     // fragments
	le.PutUint16(out[20:], 4)      // xz
	le.PutUint16(out[22:], 18)     // log of the block size
	le.PutUint16(out[28:], 4)
	le.PutUint16(out[30:], 0)
	le.PutUint64(out[40:], uint64(n))
	for i := range 6 {
		le.PutUint64(out[48+8*i:], uint64(n-60+i))
	}
	le.PutUint64(out[56:], ^uint64(0)) // no xattrs
	return out
}

// Root is o's root file system: Squashfs with one line of its /etc/os-release in
// clear, for an emulator that starts the image and has to know what came up. (In a
// real image it is compressed.) One that is too small for the line has none.
func Root(o Options) []byte {
	o = o.full()
	root := Squashfs(o.Seed, o.Root)
	if line := Release(o); len(root) >= 200+len(line) {
		copy(root[100:], line)
	}
	return root
}

// Release is the line by which the root file system names its release.
func Release(o Options) string {
	line := fmt.Sprintf("OPENWRT_RELEASE=\"OpenWrt %s %s\"\n", o.full().Version, revision)
	if len(o.Packages) > 0 {
		line += fmt.Sprintf("PACKAGES_INSIDE=%q\n", strings.Join(o.Packages, " "))
	}
	return line
}

const revision = "r28427-6df0e3d02a"

// PadRoot is padjffs2 with 4, 8, 16, 64, 128 and 256 KiB.
func PadRoot(image []byte) []byte {
	for _, block := range []int{4 << 10, 8 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10} {
		if end := len(image) &^ 3; end%block == 4 && bytes.HasSuffix(image, []byte(jffs2End)) {
			continue // the last mark stands on this boundary, too
		}
		image = append(image, bytes.Repeat([]byte{0xFF}, pad(len(image), block))...)
		image = append(image, jffs2End...)
	}
	return image
}

const jffs2End = "\xde\xad\xc0\xde"

func pad(n, block int) int { return (block - n%block) % block }

// TI appends the TI checksum trailer (facts eva.md 4.2).
func TI(p []byte) []byte {
	sum := Cksum(p)
	return binary.LittleEndian.AppendUint32(append(p, 0x23, 0xDE, 0x53, 0xC4), sum)
}

// Cksum is the checksum of POSIX' cksum program, bit by bit.
func Cksum(p []byte) uint32 {
	var c uint32
	step := func(b byte) {
		c ^= uint32(b) << 24
		for range 8 {
			top := c>>31 != 0
			c <<= 1
			if top {
				c ^= 0x04C11DB7
			}
		}
	}
	for _, b := range p {
		step(b)
	}
	for n := len(p); n > 0; n >>= 8 {
		step(byte(n))
	}
	return ^c
}

// Metadata appends fwtool's chunks (facts eva.md 4.5).
func Metadata(o Options, image []byte) []byte {
	o = o.full()
	devices := `"` + o.Board + `"`
	if old, ok := legacy[o.Board]; ok {
		devices += `,"` + old + `"`
	}
	supported := `"supported_devices":[` + devices + `]`
	if o.Compat != "1.0" {
		sentence := "Config cannot be migrated from swconfig to DSA"
		supported = fmt.Sprintf(`"compat_message":%q,"new_supported_devices":[%s],"supported_devices":["%s - Image version mismatch: image %s device 1.0. Please wipe config during upgrade (force required) or reinstall. Reason: %s"]`,
			sentence, devices, o.Board, o.Compat, sentence)
	}
	return Chunks(image, fmt.Sprintf(`{"metadata_version":"1.1","compat_version":%q,%s,"version":{"dist":"OpenWrt","version":%q,"revision":"`+revision+`","target":%q,"board":%q}}`,
		o.Compat, supported, o.Version, o.target(), o.boardName()), o.Signed)
}

var legacy = map[string]string{"avm,fritzbox-4040": "fritz4040", "avm,fritz7320": "FRITZ7320", "avm,fritz7360sl": "FRITZ7360SL",
	"avm,fritz4020": "fritz4020", "avm,fritz300e": "fritz300e", "avm,fritz450e": "fritz450e"}

// Chunks appends a metadata chunk with any text, and a signature when asked.
func Chunks(image []byte, json string, signed bool) []byte {
	out := chunk(bytes.Clone(image), 1, append(make([]byte, 8), json+"\n"...))
	if signed {
		out = chunk(out, 0, Noise(9, 300))
	}
	return out
}

func chunk(image []byte, typ byte, data []byte) []byte {
	image = append(image, data...)
	be := binary.BigEndian
	sum := ^crc32.ChecksumIEEE(image)
	image = append(image, "FWx0"...)
	image = be.AppendUint32(image, sum)
	image = append(image, typ, 0, 0, 0)
	return be.AppendUint32(image, uint32(len(data)+16))
}

// archive is a NAND board's sysupgrade tar.
func archive(o Options) []byte {
	kernel := kernelRecord(o, o.Kernel)
	if o.target() == "ipq40xx/generic" {
		kernel = FIT(o, o.Kernel)
	}
	dir := "sysupgrade-" + o.boardName() + "/"
	return Tar([]Entry{{dir, nil}, {dir + "CONTROL", []byte("BOARD=" + o.boardName() + "\n")}, {dir + "kernel", kernel}, {dir + "root", Root(o)}})
}

// An Entry is one file of a tar; names that end in a slash are directories.
type Entry struct {
	Name string
	Data []byte
}

// Tar is an archive with the usual end.
func Tar(entries []Entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Size: int64(len(e.Data)), Mode: 0o644, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		if strings.HasSuffix(e.Name, "/") {
			h.Typeflag = tar.TypeDir
		}
		must(w.WriteHeader(h))
		_, err := w.Write(e.Data)
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

// must: writing to memory does not fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// FIT is OpenWrt's kernel container with a kernel of that many bytes and the
// device tree of o.Board, each with a crc32 and a sha1 (OpenWrt scripts/mkits.sh).
func FIT(o Options, kernel int) []byte { return fit(o, Noise(o.Seed+1, kernel)) }

func fit(o Options, kernel []byte) []byte {
	o = o.full()
	version := map[string]string{"21.02": "5.4.215", "22.03": "5.10.221", "23.05": "5.15.189", "24.10": "6.6.93", "25.12": "6.12.40"}[o.Version[:min(5, len(o.Version))]]
	if version == "" {
		version = "6.18.1"
	}
	return Tree(func(t *TreeWriter) {
		t.Prop("timestamp", []byte{0x68, 0x50, 0, 0})
		t.Text("description", "ARM OpenWrt FIT (Flattened Image Tree)")
		t.Node("images", func() {
			t.Node("kernel-1", func() {
				t.Text("description", "ARM OpenWrt Linux-"+version)
				t.hashed(kernel, "kernel")
			})
			t.Node("fdt-1", func() {
				t.Text("description", "ARM OpenWrt "+o.profile()+" device tree blob")
				t.hashed(DeviceTree(o.Board), "flat_dt")
			})
		})
		t.Node("configurations", func() {
			t.Text("default", "config@1")
			t.Node("config@1", func() { t.Text("kernel", "kernel-1"); t.Text("fdt", "fdt-1") })
		})
	})
}

func (t *TreeWriter) hashed(data []byte, typ string) {
	t.Prop("data", data)
	t.Text("type", typ)
	t.Text("arch", "arm")
	t.Node("hash-1", func() {
		t.Prop("value", binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data)))
		t.Text("algo", "crc32")
	})
	t.Node("hash-2", func() {
		sum := sha1.Sum(data)
		t.Prop("value", sum[:])
		t.Text("algo", "sha1")
	})
}

// DeviceTree is a small tree that names a board.
func DeviceTree(board string) []byte {
	return Tree(func(t *TreeWriter) {
		t.Text("model", "AVM "+board)
		t.Text("compatible", board+"\x00vendor,soc")
		t.Node("memory@80000000", func() { t.Text("device_type", "memory") })
	})
}

// A TreeWriter makes flattened device trees.
type TreeWriter struct {
	structs, names []byte
}

// Tree writes one tree, version 17; fill writes the root's contents.
func Tree(fill func(*TreeWriter)) []byte {
	t := &TreeWriter{}
	t.Node("", func() { fill(t) })
	be := binary.BigEndian
	t.structs = be.AppendUint32(t.structs, 9)
	const head, reserve = 40, 16
	out := make([]byte, 0, head+reserve+len(t.structs)+len(t.names))
	for _, v := range []int{0xD00DFEED, head + reserve + len(t.structs) + len(t.names), head + reserve, head + reserve + len(t.structs), head, 17, 16, 0, len(t.names), len(t.structs)} {
		out = be.AppendUint32(out, uint32(v))
	}
	out = append(out, make([]byte, reserve)...)
	return append(append(out, t.structs...), t.names...)
}

// Node writes a node with what fill puts into it.
func (t *TreeWriter) Node(name string, fill func()) {
	t.word(1)
	t.structs = append(append(t.structs, name...), 0)
	t.align()
	fill()
	t.word(2)
}

// Text writes a string property.
func (t *TreeWriter) Text(name, value string) { t.Prop(name, append([]byte(value), 0)) }

// Prop writes a property of bytes.
func (t *TreeWriter) Prop(name string, value []byte) {
	at := bytes.Index(t.names, append([]byte(name), 0))
	if at < 0 || at > 0 && t.names[at-1] != 0 {
		at = len(t.names)
		t.names = append(append(t.names, name...), 0)
	}
	t.word(3)
	t.word(uint32(len(value)))
	t.word(uint32(at))
	t.structs = append(t.structs, value...)
	t.align()
}

func (t *TreeWriter) word(v uint32) { t.structs = binary.BigEndian.AppendUint32(t.structs, v) }

func (t *TreeWriter) align() { t.structs = append(t.structs, make([]byte, pad(len(t.structs), 4))...) }
