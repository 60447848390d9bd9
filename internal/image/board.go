package image

import (
	"slices"
	"strconv"
	"strings"
)

// A Method is how a board that still runs FRITZ!OS gets OpenWrt through its boot
// loader (facts eva.md 3.1). Only A, B and C write flash there.
type Method string

// The five methods.
const (
	OneFile   Method = "A" // NOR flash: the sysupgrade image goes to mtd1 as it is
	WithUBoot Method = "B" // the 4040: an image with U-Boot in front goes to mtd1
	TwoFiles  Method = "C" // the 3370: kernel to mtd1, file system to mtd0
	FromRAM   Method = "D" // NAND: an initramfs is started in RAM, sysupgrade runs there
	FromUBoot Method = "E" // NAND: U-Boot is started in RAM and fetches an initramfs by TFTP
)

// A Board is one of the 25 AVM profiles of OpenWrt 24.10.8 and 25.12.5
// (facts eva.md 3.2: the image recipes and the release's profile lists).
type Board struct {
	Name    string   // "avm,fritzbox-4040", as in /tmp/sysinfo/board_name
	Also    []string // older names that images for it carry
	Profile string   // "avm_fritzbox-4040", as in file names
	Model   string   // "AVM FRITZ!Box 4040"
	Target  string   // "ipq40xx/generic"
	Method  Method
	// HWRevisions are the numbers that the boot loader gives for it. Boards that
	// differ in their NAND maker share one.
	HWRevisions []int
	// Variant tells boards of one HWRevision apart: "Micron NAND". Which one it is
	// cannot be read from the boot loader [?]; the RAM-booted kernel's log says it.
	Variant string
	// Partition is the size of mtd1 in bytes as the boot loader counts it, and
	// Partition0 that of mtd0 for the 3370; 0 where nothing is written there.
	Partition, Partition0 int64
	// Largest is how many bytes may be written to mtd1: the build's own limit.
	Largest int64
	// LargestSysupgrade is the build's limit for a flat sysupgrade image without
	// its metadata, 0 for NAND boards.
	LargestSysupgrade int64
	// UBoots are the names of the U-Boots that method E starts, by HWRevision:
	// the 7520 shares the 7530's profile but needs its own.
	UBoots map[int]string
	layout layout
}

// A layout is where a flat sysupgrade image keeps its parts.
type layout int

const (
	layoutTar    layout = iota // sysupgrade-<board>/kernel and /root
	layoutFIT                  // FIT, squashfs directly behind
	layoutRecord               // EVA record, 64 KiB boundary + 0x100, squashfs
	layoutLoader               // EVA record with a small loader, OKLI at 0x11000, squashfs
)

const (
	mtd1ath79 = 0xEE0000  // 15232k, facts 3.2
	mtd1ar9   = 0xF60000  // 15744k
	mtd1v2    = 0x1F60000 // 32128k
	mtd14040  = 0x1DE0000 // 0x220000–0x2000000
	// The 4040's firmware partition after U-Boot: 29056k (OpenWrt
	// target/linux/ipq40xx/image/generic.mk; facts 3.3).
	firmware4040 = 0x1C60000
	ubootSize    = 0x80000 // UBOOT_PARTITION_SIZE := 524288, same recipe
	// From the image recipe: KERNEL_SIZE 4096k; the file system's from the boot
	// loader's own mtd0, 0x400000–0x3400000 (facts 3.3).
	kernel3370, root3370 = 0x400000, 0x3000000
	// A RAM boot takes files below 32 MiB (OpenWrt scripts/flashing/eva_ramboot.py).
	largestRAMBoot = 0x2000000
)

// Short is how people call it, and what `heimweg firmware get` takes: "4040".
func (b Board) Short() string {
	s := strings.TrimPrefix(strings.TrimPrefix(b.Name, "avm,"), "fritz")
	s = strings.TrimPrefix(strings.TrimPrefix(s, "box-"), "repeater-")
	return strings.TrimPrefix(s, "-")
}

func (b Board) String() string {
	if b.Variant != "" {
		return b.Model + " (" + b.Variant + ")"
	}
	return b.Model
}

// Writes reports whether a file for this board is written to flash through the
// boot loader at all.
func (b Board) Writes() bool { return b.Partition != 0 }

// Is reports whether name is this board's name, one of its older names, or its
// profile.
func (b Board) Is(name string) bool {
	return name != "" && (name == b.Name || name == b.Profile || slices.Contains(b.Also, name))
}

// Boards lists all boards, in the order of facts eva.md 3.2.
func Boards() []Board { return slices.Clone(boards) }

// BoardNamed finds a board by its name, an older name, or its profile.
func BoardNamed(name string) (Board, bool) {
	for _, b := range boards {
		if b.Is(name) {
			return b, true
		}
	}
	return Board{}, false
}

// BoardsOf lists the boards whose boot loader says this HWRevision: none, one,
// or those that differ only in their NAND maker.
func BoardsOf(hwRevision int) []Board {
	var out []Board
	for _, b := range boards {
		if slices.Contains(b.HWRevisions, hwRevision) {
			out = append(out, b)
		}
	}
	return out
}

var boards = []Board{
	{Name: "avm,fritzbox-4040", Also: []string{"fritz4040"}, Model: "AVM FRITZ!Box 4040", Target: "ipq40xx/generic", Method: WithUBoot, HWRevisions: []int{227},
		Partition: mtd14040, Largest: ubootSize + firmware4040, LargestSysupgrade: firmware4040, UBoots: map[int]string{227: "fritz4040"}, layout: layoutFIT},
	{Name: "avm,fritzbox-7530", Model: "AVM FRITZ!Box 7530", Target: "ipq40xx/generic", Method: FromUBoot, HWRevisions: []int{236, 247},
		UBoots: map[int]string{236: "fritz7530", 247: "fritz7520"}},
	{Name: "avm,fritzrepeater-1200", Model: "AVM FRITZ!Repeater 1200", Target: "ipq40xx/generic", Method: FromUBoot, HWRevisions: []int{244}, UBoots: map[int]string{244: "fritz1200"}},
	{Name: "avm,fritzrepeater-3000", Model: "AVM FRITZ!Repeater 3000", Target: "ipq40xx/generic", Method: FromUBoot, HWRevisions: []int{246}, UBoots: map[int]string{246: "fritz3000"}},

	ath79("avm,fritz4020", "AVM FRITZ!Box 4020", 219, "fritz4020"),
	ath79("avm,fritz300e", "AVM FRITZ!WLAN Repeater 300E", 173, "fritz300e"),
	ath79("avm,fritz450e", "AVM FRITZ!WLAN Repeater 450E", 200, "fritz450e"),
	ath79("avm,fritz1750e", "AVM FRITZ!WLAN Repeater 1750E", 206),
	ath79("avm,fritzdvbc", "AVM FRITZ!WLAN Repeater DVB-C", 205),

	{Name: "avm,fritz7312", Model: "AVM FRITZ!Box 7312", Target: "lantiq/xway", Method: OneFile, HWRevisions: []int{189},
		Partition: mtd1ar9, Largest: mtd1ar9, LargestSysupgrade: mtd1ar9, layout: layoutLoader},
	{Name: "avm,fritz7320", Also: []string{"FRITZ7320"}, Model: "AVM FRITZ!Box 7320", Target: "lantiq/xway", Method: OneFile, HWRevisions: []int{172, 179, 188},
		Partition: mtd1ar9, Largest: mtd1ar9, LargestSysupgrade: mtd1ar9, layout: layoutLoader},
	{Name: "avm,fritz7360sl", Also: []string{"FRITZ7360SL"}, Model: "AVM FRITZ!Box 7360 SL", Target: "lantiq/xrx200", Method: OneFile, HWRevisions: []int{181, 183},
		Partition: mtd1ar9, Largest: mtd1ar9, LargestSysupgrade: mtd1ar9, layout: layoutRecord},
	{Name: "avm,fritz7360-v2", Model: "AVM FRITZ!Box 7360 v2", Target: "lantiq/xrx200", Method: OneFile, HWRevisions: []int{196},
		Partition: mtd1v2, Largest: mtd1v2, LargestSysupgrade: mtd1v2, layout: layoutRecord},

	fritz3370("hynix", "Hynix NAND"),
	fritz3370("micron", "Micron NAND"),
	vr9("avm,fritz3390", "AVM FRITZ!Box 3390", "", 193),
	vr9("avm,fritz3490", "AVM FRITZ!Box 3490", otherNAND, 212),
	vr9("avm,fritz3490-micron", "AVM FRITZ!Box 3490", "Micron NAND", 212),
	vr9("avm,fritz5490", "AVM FRITZ!Box 5490", otherNAND, 223, 243),
	vr9("avm,fritz5490-micron", "AVM FRITZ!Box 5490", "Micron NAND", 223, 243),
	vr9("avm,fritz7362sl", "AVM FRITZ!Box 7362 SL", "", 203),
	vr9("avm,fritz7412", "AVM FRITZ!Box 7412", "", 209),
	vr9("avm,fritz7430", "AVM FRITZ!Box 7430", "", 218),
	vr9("avm,fritz7490", "AVM FRITZ!Box 7490", otherNAND, 185),
	vr9("avm,fritz7490-micron", "AVM FRITZ!Box 7490", "Micron NAND", 185),
}

const otherNAND = "NAND of another maker than Micron"

func ath79(name, model string, hwRevision int, also ...string) Board {
	return Board{Name: name, Also: also, Model: model, Target: "ath79/generic", Method: OneFile,
		HWRevisions: []int{hwRevision}, Partition: mtd1ath79, Largest: mtd1ath79, LargestSysupgrade: mtd1ath79, layout: layoutRecord}
}

func fritz3370(nand, variant string) Board {
	return Board{Name: "avm,fritz3370-rev2-" + nand, Model: "AVM FRITZ!Box 3370 rev 2", Variant: variant, Target: "lantiq/xrx200", Method: TwoFiles,
		HWRevisions: []int{175}, Partition: kernel3370, Partition0: root3370, Largest: kernel3370}
}

func vr9(name, model, variant string, hwRevisions ...int) Board {
	return Board{Name: name, Model: model, Variant: variant, Target: "lantiq/xrx200", Method: FromRAM, HWRevisions: hwRevisions}
}

func init() {
	for i := range boards {
		boards[i].Profile = strings.ReplaceAll(boards[i].Name, ",", "_")
		// The directory inside a sysupgrade tar is the recipe's BOARD_NAME.
		if boards[i].Name == "avm,fritz7412" {
			boards[i].Also = append(boards[i].Also, "FRITZ7412")
		}
	}
}

// boardName turns a profile or the name of a tar's directory into a board's name.
func boardName(s string) string {
	if b, ok := BoardNamed(s); ok {
		return b.Name
	}
	if !strings.Contains(s, ",") {
		s = strings.Replace(s, "_", ",", 1) // "linksys_ea6350v3" in a FIT, "linksys,ea6350v3" in the metadata
	}
	return s
}

// fileNames lists what the right file for a purpose is called on OpenWrt's
// download server (facts eva.md 3.1 and 5.1; image types eva, eva-kernel,
// eva-filesystem, sysupgrade, kernel). version may be "".
func fileNames(b Board, use Use, hwRevision int, version string) []string {
	if version == "" {
		version = "…"
	}
	stem := "openwrt-" + version + "-" + strings.ReplaceAll(b.Target, "/", "-") + "-" + b.Profile
	switch {
	case use == NetBoot && (strings.HasPrefix(version, "21.02") || strings.HasPrefix(version, "22.03")):
		return []string{stem + "-initramfs-fit-uImage.itb"}
	case use == NetBoot:
		return []string{stem + "-initramfs-uImage.itb"}
	case use == RAMBoot && b.Method == FromUBoot, use == WriteUBoot:
		var out []string
		for _, rev := range b.HWRevisions {
			if hwRevision == rev || hwRevision == 0 {
				out = append(out, "uboot-"+b.UBoots[rev]+".bin")
			}
		}
		return out
	case use == RAMBoot:
		return []string{stem + "-initramfs-kernel.bin"}
	case use == FlashThroughEVA && b.Method == WithUBoot:
		return []string{stem + "-squashfs-eva.bin"}
	case use == FlashThroughEVA && b.Method == TwoFiles:
		return []string{stem + "-squashfs-eva-kernel.bin", stem + "-squashfs-eva-filesystem.bin"}
	}
	return []string{stem + "-squashfs-sysupgrade.bin"}
}

func hwRevisionText(n int) string {
	if n == 0 {
		return ""
	}
	return " (HWRevision " + strconv.Itoa(n) + ")"
}
