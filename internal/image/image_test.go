package image_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/image/imagetest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func identify(t testing.TB, p []byte) image.Image {
	t.Helper()
	m, err := image.Identify(bytes.NewReader(p), int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A sample is one file that somebody rightly uses.
type sample struct {
	name string
	file []byte
	p    image.Purpose
}

// samples are all of them, made once; nobody changes their bytes.
var samples = sync.OnceValue(makeSamples)

func makeSamples() []sample {
	var out []sample
	for _, b := range image.Boards() {
		o := imagetest.Options{Board: b.Name, Kernel: 8_000, Root: 20_000}
		add := func(what string, file []byte, p image.Purpose) {
			p.Board = b.Name
			if len(b.HWRevisions) > 0 && p.HWRevision == 0 {
				p.HWRevision = b.HWRevisions[0]
			}
			out = append(out, sample{b.Profile + " " + what, file, p})
		}
		add("upgrade", imagetest.Sysupgrade(o), image.Purpose{Use: image.UpgradeOpenWrt, Compat: "1.0", KeepSettings: true})
		switch b.Method {
		case image.OneFile:
			add("flash", imagetest.Sysupgrade(o), image.Purpose{Use: image.FlashThroughEVA})
		case image.WithUBoot:
			add("flash", imagetest.EVA(o), image.Purpose{Use: image.FlashThroughEVA})
		case image.TwoFiles:
			add("flash kernel", imagetest.EVAKernel(o), image.Purpose{Use: image.FlashThroughEVA})
			add("flash file system", imagetest.EVAFileSystem(o), image.Purpose{Use: image.FlashThroughEVA, Partition: "mtd0"})
		case image.FromRAM:
			add("start", imagetest.Initramfs(o), image.Purpose{Use: image.RAMBoot})
		case image.FromUBoot:
			add("fetch", imagetest.Initramfs(o), image.Purpose{Use: image.NetBoot})
			for rev, u := range b.UBoots {
				file := imagetest.UBoot(strings.ToUpper(u))
				add("start "+u, file, image.Purpose{Use: image.RAMBoot, HWRevision: rev})
				add("write "+u, file, image.Purpose{Use: image.WriteUBoot, HWRevision: rev})
			}
		}
	}
	slices.SortFunc(out, func(a, b sample) int { return strings.Compare(a.name, b.name) })
	return out
}

func TestRightFileIsAccepted(t *testing.T) {
	all := samples()
	if len(all) < 25+9+1+4+8+3 {
		t.Fatalf("only %d samples", len(all))
	}
	for _, s := range all {
		m := identify(t, s.file)
		if m.Whole() != image.Good {
			t.Errorf("%s: whole is %v: %+v", s.name, m.Whole(), m.Checks)
		}
		if err := image.For(m, s.p); err != nil {
			t.Errorf("%s: %v %+v", s.name, err, fault.Find(err))
		}
	}
}

// What is right for one board and use must be refused for every other board, and
// what a file is for must not depend on who asks.
func TestRightFileIsRefusedElsewhere(t *testing.T) {
	for _, s := range samples() {
		m := identify(t, s.file)
		if m.Kind == image.FileSystem {
			continue // names no board
		}
		for _, b := range image.Boards() {
			if m.Fits(b) {
				continue
			}
			for _, use := range []image.Use{image.FlashThroughEVA, image.UpgradeOpenWrt, image.WriteUBoot} {
				if image.For(m, image.Purpose{Use: use, Board: b.Name}) == nil {
					t.Errorf("%s: accepted for %s on the %s", s.name, use, b)
				}
			}
		}
	}
}

// Every mistake is refused for flashing a 4040, says what it is, and names one
// thing to do next.
func TestMistakesAreRefused(t *testing.T) {
	var got strings.Builder
	list := imagetest.Mistakes()
	if len(list) < 25 {
		t.Fatalf("only %d mistakes", len(list))
	}
	for _, c := range list {
		err := image.For(identify(t, c.File), image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-4040", HWRevision: 227, Version: "24.10.7"})
		f := fault.Find(err)
		if f == nil {
			t.Errorf("%s: accepted", c.Name)
			continue
		}
		if len(f.Next) == 0 || len(f.Seen) == 0 || f.What == "" || strings.HasSuffix(f.What, ".") {
			t.Errorf("%s: incomplete: %+v", c.Name, f)
		}
		fmt.Fprintf(&got, "%s\n  %s: %s\n", c.Name, f.Code, f.What)
		for _, l := range []struct {
			word  string
			lines []string
		}{{"seen", f.Seen}, {"why ", f.Why}, {"next", f.Next}} {
			for _, line := range l.lines {
				fmt.Fprintf(&got, "  %s  %s\n", l.word, line)
			}
		}
	}
	golden(t, "testdata/mistakes.txt", got.String())
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// What each kind of file is found to be, in full.
func TestIdentify(t *testing.T) {
	var got strings.Builder
	show := func(name string, p []byte) {
		m := identify(t, p)
		fmt.Fprintf(&got, "%s\n  %s, %s, %d bytes, sha256 %s…\n", name, m.Kind, m.Format, m.Size, m.SHA256[:8])
		fmt.Fprintf(&got, "  boards %s  u-boot %q  compat %q  signed %v  metadata %v  cut %v %d  whole %v\n", strings.Join(m.Boards, " "), m.UBootFor, m.Compat, m.Signed, m.HasMetadata, m.CutOff, m.Missing, m.Whole())
		if m.Release != (image.Release{}) {
			fmt.Fprintf(&got, "  release %+v\n", m.Release)
		}
		for _, p := range m.Parts {
			fmt.Fprintf(&got, "  part  0x%07x %8d %s\n", p.Offset, p.Size, p.Name)
		}
		for _, c := range m.Checks {
			fmt.Fprintf(&got, "  %-9s %s: %s\n", c.State, c.What, c.Says)
		}
	}
	show("eva 4040", imagetest.EVA(imagetest.Options{}))
	show("eva 4040 of 25.12", imagetest.EVA(imagetest.Options{Version: "25.12.5"}))
	show("eva 4040 cut at 570000", imagetest.EVA(imagetest.Options{})[:570_000])
	show("sysupgrade 4040 signed compat 1.1", imagetest.Sysupgrade(imagetest.Options{Signed: true, Compat: "1.1"}))
	show("sysupgrade 4020", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz4020"}))
	show("sysupgrade 7360", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7360-v2"}))
	show("sysupgrade 7320", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7320"}))
	show("sysupgrade 7320 before 22.03", imagetest.SysupgradeOld(imagetest.Options{Board: "avm,fritz7320", Version: "21.02.7"}))
	show("sysupgrade 7412", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7412"}))
	show("sysupgrade 7530", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritzbox-7530"}))
	show("initramfs 7530", imagetest.Initramfs(imagetest.Options{Board: "avm,fritzbox-7530"}))
	show("initramfs 7490", imagetest.Initramfs(imagetest.Options{Board: "avm,fritz7490-micron"}))
	show("u-boot 7520", imagetest.UBoot("FRITZ7520"))
	show("3370 file system", imagetest.EVAFileSystem(imagetest.Options{Board: "avm,fritz3370-rev2-hynix"}))
	for _, c := range imagetest.Mistakes() {
		if strings.Contains(c.Name, "AVM") || strings.Contains(c.Name, "maker") || strings.Contains(c.Name, "page") {
			show(c.Name, c.File)
		}
	}
	golden(t, "testdata/identify.txt", got.String())
}

// A download that broke off at any 4 KiB boundary is never taken for the file.
func TestCutOffAnywhere(t *testing.T) {
	for _, s := range samples() {
		if !strings.HasPrefix(s.name, "avm_fritzbox-4040") && !strings.HasPrefix(s.name, "avm_fritz7320 ") && !strings.HasPrefix(s.name, "avm_fritz4020 ") &&
			!strings.HasPrefix(s.name, "avm_fritz7360sl ") && !strings.HasPrefix(s.name, "avm_fritz7412 ") && !strings.HasPrefix(s.name, "avm_fritzbox-7530 ") && !strings.HasPrefix(s.name, "avm_fritz3370-rev2-m") {
			continue
		}
		step := 5 * 4096
		if need.Long() {
			step = 4096
		}
		for n := 0; n < len(s.file); n += step {
			m := identify(t, s.file[:n])
			if err := image.For(m, s.p); err == nil {
				t.Fatalf("%s: its first %d of %d bytes are accepted: %+v", s.name, n, len(s.file), m)
			}
			// Three beginnings are files of their own: nothing, U-Boot alone, and less
			// than a header.
			if !m.CutOff && n > 0 && !(m.Kind == image.UBoot && n == 0x80000) {
				t.Errorf("%s: its first %d of %d bytes are not called cut off: %s %+v", s.name, n, len(s.file), m.Kind, m.Checks)
			}
		}
		// And a few odd places near the end, where marks and trailers stand.
		for n := max(0, len(s.file)-700); n < len(s.file); n += 1 + (len(s.file)-n)/24 {
			m, err := image.Identify(bytes.NewReader(s.file[:n]), int64(n))
			if err != nil || image.For(m, s.p) == nil {
				t.Fatalf("%s: its first %d of %d bytes are accepted", s.name, n, len(s.file))
			}
		}
	}
}

// One flipped bit anywhere but in the root file system, the padding and what the
// format leaves free is found out by the file itself.
func TestOneFlippedBit(t *testing.T) {
	o := imagetest.Options{Kernel: 20_000, Root: 9_000}
	file := imagetest.EVA(o)
	p := image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-4040"}
	whole := identify(t, file)
	if err := image.For(whole, p); err != nil {
		t.Fatal(err)
	}
	tree, _ := whole.Part("device tree")
	for at := 0; at < 0x80000+20_000; at += 7993 {
		if at >= 0x80000+0x38 && at < 0x80000+0xD0 {
			continue // the FIT's time and its free text
		}
		damaged := bytes.Clone(file)
		damaged[at] ^= 1 << (at % 8)
		if image.For(identify(t, damaged), p) == nil {
			t.Errorf("a flipped bit at 0x%x goes unnoticed", at)
		}
	}
	for at := tree.Offset; at < tree.Offset+tree.Size; at += 23 {
		damaged := bytes.Clone(file)
		damaged[at] ^= 4
		if image.For(identify(t, damaged), p) == nil {
			t.Errorf("a flipped bit in the device tree, at 0x%x, goes unnoticed", at)
		}
	}
	upgrade := imagetest.Sysupgrade(o)
	p.Use = image.UpgradeOpenWrt
	for at := 0; at < len(upgrade); at += 9973 {
		damaged := bytes.Clone(upgrade)
		damaged[at] ^= 1 << (at % 8)
		if image.For(identify(t, damaged), p) == nil {
			t.Errorf("a flipped bit at 0x%x of a sysupgrade image goes unnoticed", at)
		}
	}
}

func TestFor(t *testing.T) {
	eva, up := imagetest.EVA(imagetest.Options{}), imagetest.Sysupgrade(imagetest.Options{})
	for _, c := range []struct {
		name string
		file []byte
		p    image.Purpose
		code string
		next string
	}{
		{"the storyboard's", up, image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-4040", HWRevision: 227}, "image-wrong-kind", "heimweg firmware get 4040 fetches the right one (openwrt-24.10.7-ipq40xx-generic-avm_fritzbox-4040-squashfs-eva.bin)"},
		{"eva for upgrade", eva, image.Purpose{Use: image.UpgradeOpenWrt, Board: "fritz4040", Version: "25.12.5"}, "image-wrong-kind", "heimweg firmware get 4040 fetches the right one (openwrt-25.12.5-ipq40xx-generic-avm_fritzbox-4040-squashfs-sysupgrade.bin)"},
		{"by profile", eva, image.Purpose{Use: image.FlashThroughEVA, Board: "avm_fritzbox-4040"}, "", ""},
		{"another box answers", eva, image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-4040", HWRevision: 236}, "image-other-board", "heimweg firmware get 7530 fetches files for the box that it is: AVM FRITZ!Box 7530"},
		{"a box nobody knows", eva, image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-4040", HWRevision: 999}, "image-other-board", ""},
		{"board nobody knows", eva, image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-9999"}, "board-unknown", ""},
		{"mtd1 smaller than it should be", eva, image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-4040", Room: 600_000}, "image-too-large", ""},
		{"7520's u-boot on a 7530", imagetest.UBoot("FRITZ7520"), image.Purpose{Use: image.RAMBoot, Board: "avm,fritzbox-7530", HWRevision: 236}, "image-other-board", "heimweg firmware get 7530 fetches the right one (uboot-fritz7530.bin)"},
		{"7530's u-boot on a 7520", imagetest.UBoot("FRITZ7530"), image.Purpose{Use: image.RAMBoot, Board: "avm,fritzbox-7530", HWRevision: 247}, "image-other-board", "heimweg firmware get 7530 fetches the right one (uboot-fritz7520.bin)"},
		{"NAND box through EVA", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7490"}), image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritz7490"}, "board-method", "heimweg firmware get 7490 fetches the right one (openwrt-24.10.7-lantiq-xrx200-avm_fritz7490-initramfs-kernel.bin)"},
		{"other NAND maker from RAM", imagetest.Initramfs(imagetest.Options{Board: "avm,fritz7490-micron"}), image.Purpose{Use: image.RAMBoot, Board: "avm,fritz7490"}, "", ""},
		{"other NAND maker to flash", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7490-micron"}), image.Purpose{Use: image.UpgradeOpenWrt, Board: "avm,fritz7490"}, "image-other-board", ""},
		{"initramfs as the 3370's kernel", imagetest.Initramfs(imagetest.Options{Board: "avm,fritz3370-rev2-micron", Root: 5 << 20}), image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritz3370-rev2-micron"}, "image-too-large", ""},
		{"before 22.03", imagetest.SysupgradeOld(imagetest.Options{Board: "avm,fritz7320"}), image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritz7320"}, "", ""},
		{"4040 from RAM", imagetest.UBoot("FRITZ4040"), image.Purpose{Use: image.RAMBoot, Board: "avm,fritzbox-4040"}, "board-method", ""},
		{"settings cannot stay", imagetest.Sysupgrade(imagetest.Options{Compat: "1.1"}), image.Purpose{Use: image.UpgradeOpenWrt, Board: "avm,fritzbox-4040", Compat: "1.0", KeepSettings: true}, "image-compat", ""},
		{"settings need not stay", imagetest.Sysupgrade(imagetest.Options{Compat: "1.1"}), image.Purpose{Use: image.UpgradeOpenWrt, Board: "avm,fritzbox-4040", Compat: "1.0"}, "", ""},
		{"another major version", imagetest.Sysupgrade(imagetest.Options{Compat: "2.0"}), image.Purpose{Use: image.UpgradeOpenWrt, Board: "avm,fritzbox-4040", Compat: "1.0"}, "image-compat", ""},
		{"too large for its partition", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz4020", Root: 16 << 20}), image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritz4020"}, "image-too-large", ""},
		{"loader layout on a box that boots the record", relabel("avm,fritz7320", "avm,fritz4020"), image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritz4020"}, "image-wrong-kind", ""},
		{"device tree alone", imagetest.DeviceTree("avm,fritzbox-7530"), image.Purpose{Use: image.NetBoot, Board: "avm,fritzbox-7530"}, "image-damaged", ""},
		{"FIT for the 4040's rescue", imagetest.Initramfs(imagetest.Options{}), image.Purpose{Use: image.NetBoot, Board: "avm,fritzbox-4040"}, "", ""},
		{"no metadata", imagetest.PadRoot(append(imagetest.FIT(imagetest.Options{}, 50_000), imagetest.Squashfs(1, 90_000)...)), image.Purpose{Use: image.UpgradeOpenWrt, Board: "avm,fritzbox-4040"}, "image-damaged", ""},
	} {
		err := image.For(identify(t, c.file), c.p)
		f := fault.Find(err)
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%s: refused: %+v", c.name, f)
		case c.code == "":
		case f == nil || f.Code != c.code:
			t.Errorf("%s: got %+v, want code %s", c.name, f, c.code)
		case c.next != "" && !slices.Contains(f.Next, c.next):
			t.Errorf("%s: next is %q, want %q", c.name, f.Next, c.next)
		case len(f.Next) == 0:
			t.Errorf("%s: nothing to do next", c.name)
		}
	}
}

// relabel is a's image with metadata that names b.
func relabel(a, b string) []byte {
	p := imagetest.Sysupgrade(imagetest.Options{Board: a})
	m, _ := image.Identify(bytes.NewReader(p), int64(len(p)))
	chunk, _ := m.Part("metadata")
	return imagetest.Metadata(imagetest.Options{Board: b}, p[:chunk.Offset])
}

func TestBoards(t *testing.T) {
	list := image.Boards()
	if len(list) != 25 {
		t.Fatalf("%d boards, OpenWrt 24.10 and 25.12 have 25", len(list))
	}
	seen := map[string]bool{}
	for _, b := range list {
		for _, name := range append([]string{b.Name, b.Profile}, b.Also...) {
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
			if got, ok := image.BoardNamed(name); !ok || got.Name != b.Name {
				t.Errorf("%s: found %v", name, got)
			}
		}
		for _, rev := range b.HWRevisions {
			for _, other := range image.BoardsOf(rev) {
				if other.Model != b.Model {
					t.Errorf("HWRevision %d is the %s and the %s", rev, b.Model, other.Model)
				}
			}
		}
		if strings.ContainsAny(b.Short(), ",_ ") || b.Short() == "" {
			t.Errorf("%s is called %q", b.Name, b.Short())
		}
		if b.Writes() != (b.Method == image.OneFile || b.Method == image.WithUBoot || b.Method == image.TwoFiles) {
			t.Errorf("%s: method %s, partition %d", b, b.Method, b.Partition)
		}
		if b.Largest > b.Partition {
			t.Errorf("%s: %d bytes do not fit into %d", b, b.Largest, b.Partition)
		}
	}
	if b, _ := image.BoardNamed("avm,fritzbox-4040"); b.Largest != 30_277_632 || b.Partition != 31_326_208 || b.LargestSysupgrade != 29_056<<10 {
		t.Errorf("the 4040's sizes are %d %d %d", b.Largest, b.Partition, b.LargestSysupgrade)
	}
}

// The sums of erased partitions are in facts eva.md 1.5.
func TestPredictCheck(t *testing.T) {
	for _, c := range []struct {
		size int64
		want uint32
	}{{0x1DE0000, 0xE4C61A5F}, {0xEE0000, 0x54F04CDD}, {0x1F60000, 0xCF04E94D}} {
		got, err := image.PredictCheck(bytes.NewReader(nil), 0, c.size)
		if err != nil || got != c.want {
			t.Errorf("erased partition of 0x%X: %08X, %v, want %08X", c.size, got, err, c.want)
		}
		erased := bytes.Repeat([]byte{0xFF}, 70_001)
		if got, err := image.PredictCheck(bytes.NewReader(erased), int64(len(erased)), c.size); err != nil || got != c.want {
			t.Errorf("0xFF written to 0x%X: %08X, %v", c.size, got, err)
		}
	}
	var large *image.TooLargeError
	if _, err := image.PredictCheck(bytes.NewReader(nil), 5, 4); !errors.As(err, &large) || large.Size != 5 {
		t.Errorf("got %v", err)
	}
}

// A reader that fails, or is shorter than its owner says, is an error and no verdict.
func TestReadErrors(t *testing.T) {
	p := imagetest.EVA(imagetest.Options{})
	if _, err := image.Identify(bytes.NewReader(p), int64(len(p))+1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short reader: %v", err)
	}
	boom := errors.New("medium removed")
	if _, err := image.Identify(failing{bytes.NewReader(p), 600_000, boom}, int64(len(p))); !errors.Is(err, boom) {
		t.Errorf("failing reader: %v", err)
	}
	if _, err := image.PredictCheck(failing{bytes.NewReader(p), 600_000, boom}, int64(len(p)), 1<<24); !errors.Is(err, boom) {
		t.Errorf("failing reader: %v", err)
	}
}

type failing struct {
	r   io.ReaderAt
	at  int64
	err error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, f.err
	}
	return f.r.ReadAt(p, off)
}

// Files that claim much must cost little.
func TestHostileClaimsCostLittle(t *testing.T) {
	nested := bytes.Repeat([]byte{0, 0, 0, 1, 'a', 0, 0, 0}, 100_000)
	tree := imagetest.Tree(func(w *imagetest.TreeWriter) {
		for range 30_000 {
			w.Node("images", func() {})
		}
	})
	deep := imagetest.Tree(func(*imagetest.TreeWriter) {})
	deep = append(deep[:56:56], nested...)
	for i, n := range map[int]int{4: len(deep), 8: 56, 12: 40, 32: 4, 36: len(nested)} {
		deep[i], deep[i+1], deep[i+2], deep[i+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	}
	var before, after runtime.MemStats
	for name, p := range map[string][]byte{
		"stream that claims 4 GB":   imagetest.RecordOf(0x80002000, 0x80002000, make([]byte, 4000), 1<<32-2, 0x5D, 1<<32-1),
		"stream of zeros":           imagetest.RecordOf(0x80002000, 0x80002000, make([]byte, 1<<18), 16<<20, 0x5D, 1<<32-1),
		"stream with most literals": imagetest.RecordOf(0x80002000, 0x80002000, make([]byte, 4000), 1<<20, 4*45+4*9+8, 1<<32-1),
		"tree with many nodes":      tree,
		"tree that never closes":    deep,
		"trees in trees":            imagetest.Record(0x80002000, 0x80002000, bytes.Repeat(tree[:60_000], 8)),
	} {
		runtime.ReadMemStats(&before)
		m := identify(t, p)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
			t.Errorf("%s: %d MB allocated", name, used>>20)
		}
		if err := image.For(m, image.Purpose{Use: image.FlashThroughEVA, Board: "avm,fritzbox-4040"}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// No text of a fault carries control characters out of a file.
func TestWordsOfAFileAreHarmless(t *testing.T) {
	evil := "avm,\x1b[31mred\u202e\n\x00\u2028box"
	for _, p := range [][]byte{
		imagetest.Chunks([]byte("HDR0"), fmt.Sprintf(`{"supported_devices":[%q],"version":{"dist":%q,"version":%q}}`, evil, evil, evil), false),
		[]byte("<html><title>\x1b]0;owned\a" + evil + "</title>"),
		imagetest.Tar([]imagetest.Entry{{Name: "./var/content", Data: []byte("Product=" + evil)}, {Name: "./var/install"}}),
		imagetest.FIT(imagetest.Options{Board: "avm,\x1bx"}, 5000),
	} {
		m := identify(t, p)
		err := image.For(m, image.Purpose{Use: image.UpgradeOpenWrt, Board: "avm,fritzbox-4040"})
		f := fault.Find(err)
		all := strings.Join(append(append(append([]string{m.Format, m.Names(), f.What}, f.Seen...), f.Why...), f.Next...), "|")
		if strings.ContainsAny(all, "\x1b\n\x00\x07\u202e\u2028") {
			t.Errorf("unfit to show: %q", all)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	small := imagetest.Options{Kernel: 3000, Root: 3000}
	f.Add(imagetest.FIT(small, 3000), 0)
	f.Add(imagetest.Metadata(small, imagetest.FIT(small, 100)), 30)
	f.Add(imagetest.EVAKernel(imagetest.Options{Board: "avm,fritz7490", Kernel: 2000}), 5)
	f.Add(imagetest.Tar([]imagetest.Entry{{Name: "sysupgrade-x/kernel", Data: imagetest.FIT(small, 100)}, {Name: "sysupgrade-x/root", Data: imagetest.Squashfs(1, 900)}}), 0)
	f.Add(imagetest.AVMImage()[:6000], 0)
	f.Add(imagetest.UImage("\x27\x05\x19\x56", []byte("kernel")), 0)
	f.Add(imagetest.EVAFileSystem(imagetest.Options{Root: 100})[:5000], 0)
	f.Add([]byte("<html><title>x"), 0)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		if len(p) > 1<<20 {
			return
		}
		m, err := image.Identify(bytes.NewReader(p), int64(len(p)))
		if err != nil {
			t.Fatal(err)
		}
		if m.Size != int64(len(p)) || m.Format == "" || m.Kind == "" {
			t.Fatalf("%+v", m)
		}
		for _, part := range m.Parts {
			if part.Offset < 0 || part.Size < 0 || part.Offset+part.Size > m.Size {
				t.Fatalf("part outside of the file: %+v", part)
			}
		}
		for _, use := range []image.Use{image.FlashThroughEVA, image.UpgradeOpenWrt, image.RAMBoot, image.NetBoot, image.WriteUBoot} {
			for _, board := range []string{"avm,fritzbox-4040", "avm,fritzbox-7530", "avm,fritz7490"} {
				err := image.For(m, image.Purpose{Use: use, Board: board})
				if f := fault.Find(err); err != nil && (f == nil || f.Kind == fault.Bug || len(f.Next) == 0) {
					t.Fatalf("%s on %s: %+v", use, board, f)
				}
			}
		}
	})
}

func BenchmarkIdentify(b *testing.B) {
	for _, c := range []struct {
		name string
		file []byte
	}{
		{"eva-30MB", imagetest.EVA(imagetest.Options{Kernel: 4 << 20, Root: 24 << 20})},
		{"sysupgrade-15MB", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz4020", Kernel: 2 << 20, Root: 12 << 20})},
		{"initramfs-6MB", imagetest.Initramfs(imagetest.Options{Board: "avm,fritz7490", Kernel: 2 << 20, Root: 4 << 20})},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.file)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := image.Identify(bytes.NewReader(c.file), int64(len(c.file))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPredictCheck(b *testing.B) {
	p := imagetest.EVA(imagetest.Options{Kernel: 4 << 20, Root: 24 << 20})
	b.SetBytes(31_326_208)
	for b.Loop() {
		if _, err := image.PredictCheck(bytes.NewReader(p), int64(len(p)), 31_326_208); err != nil {
			b.Fatal(err)
		}
	}
}

// Damage that happened before the metadata was made, under a checksum that is
// right, is found by each format's own.
func TestDamageUnderRightMetadata(t *testing.T) {
	for _, board := range []string{"avm,fritzbox-4040", "avm,fritz4020", "avm,fritz7320", "avm,fritz7360-v2", "avm,fritz7412", "avm,fritzbox-7530"} {
		o := imagetest.Options{Board: board}
		p := imagetest.Sysupgrade(o)
		m := identify(t, p)
		kernel, ok := m.Part("kernel")
		chunk, found := m.Part("metadata")
		if !ok || !found {
			t.Fatalf("%s: %+v", board, m.Parts)
		}
		body := bytes.Clone(p[:chunk.Offset])
		body[kernel.Offset+kernel.Size/2] ^= 1
		f := fault.Find(image.For(identify(t, imagetest.Metadata(o, body)), image.Purpose{Use: image.UpgradeOpenWrt, Board: board}))
		if f == nil || f.Code != "image-damaged" {
			t.Errorf("%s: a damaged kernel gives %+v", board, f)
		}
	}
}

// Where compat is not 1.0 the boards stand elsewhere in the metadata, and nothing
// else in these images names one.
func TestBoardsOfNewCompat(t *testing.T) {
	for _, board := range []string{"avm,fritz7360-v2", "avm,fritz4020"} {
		m := identify(t, imagetest.Sysupgrade(imagetest.Options{Board: board, Compat: "1.1"}))
		if b, _ := image.BoardNamed(board); !m.Fits(b) || m.Compat != "1.1" || m.CompatMessage == "" {
			t.Errorf("%s: %+v", board, m)
		}
	}
}

// AVM's archive and a sysupgrade archive without metadata are called cut off
// where they are.
func TestCutArchives(t *testing.T) {
	whole := imagetest.AVMImage()
	if m := identify(t, whole); m.CutOff || m.Whole() != image.Good {
		t.Errorf("whole archive: %+v", m)
	}
	for n := 4096; n < len(whole); n += 512 {
		if m := identify(t, whole[:n]); !m.CutOff {
			t.Errorf("its first %d of %d bytes are not called cut off: %s %+v", n, len(whole), m.Kind, m.Checks)
		}
	}
}
