package eva

import (
	"slices"
	"strings"
)

// A Method is one of the five ways in which OpenWrt gets onto an AVM box (facts
// eva 3.1).
type Method string

// The methods.
const (
	MethodA Method = "A" // NOR flash, one file into mtd1
	MethodB Method = "B" // the 4040: one file with U-Boot in front into mtd1
	MethodC Method = "C" // the 3370: kernel into mtd1, filesystem into mtd0
	MethodD Method = "D" // started in RAM, then installed over SSH
	MethodE Method = "E" // U-Boot started in RAM fetches the next stage by TFTP, then as D
)

// Writes reports whether the method writes flash through the bootloader; the
// others change nothing before OpenWrt runs in RAM.
func (m Method) Writes() bool { return m == MethodA || m == MethodB || m == MethodC }

// Sure says how well a board's way is known.
type Sure string

// How sure we are.
const (
	// Emulated: others did it on real devices; ours was tested against the
	// emulator only.
	Emulated Sure = "tested against the emulator only"
	// Unsure: a figure or step is missing in all our sources; see Board.Note.
	Unsure Sure = "not fully known, tested against the emulator only"
)

// A Profile is a name that OpenWrt's releases use for a board's files.
type Profile struct {
	Name string // "avm_fritzbox-4040"
	For  string // which of two: "Micron NAND"; "" when there is no choice
}

// A Board is a model of box and how OpenWrt gets onto it.
type Board struct {
	Name        string
	HWRevisions []string
	Target      string // OpenWrt's target
	Profiles    []Profile
	Method      Method
	SoC         string
	FlashMB     int
	NAND        bool
	RAMMB       int
	MTD1        int64  // size that the bootloader gives mtd1; 0 = not used or not known
	Span        string // its exact bounds where the image depends on them
	MaxFile     int64  // largest file for mtd1; 0 = MTD1
	FSStart0    bool   // linux_fs_start must be 0 (facts eva 3.1, D)
	Offset      uint32 // RAM boot at this address; 0 = at the end of memory
	TFTP        string // the file that its U-Boot asks for (E)
	Sure        Sure
	Source      string
	Note        string
}

const (
	nor16  = 0xEE0000  // ath79 with 16 MB: 15232k
	okli16 = 0xF60000  // AR9 with 16 MB: 15744k
	nor32  = 0x1F60000 // 7360 v2: 32128k
)

func one(name string) []Profile { return []Profile{{Name: name}} }

// two are the profiles of a box whose NAND has two makers.
func two(name string) []Profile {
	return []Profile{{name, "other NAND"}, {name + "-micron", "Micron NAND"}}
}

// boards are all AVM boxes of OpenWrt 24.10, 25.12 and main with this bootloader:
// 25 profiles. Source: facts eva 3.2 (OpenWrt's image recipes and commit messages;
// HWRevisions from fritzflash.py, push_firmware and an emulator's fixtures).
var boards = []Board{
	{Name: "AVM FRITZ!Box 4040", HWRevisions: []string{"227"}, Target: "ipq40xx/generic", Profiles: one("avm_fritzbox-4040"), Method: MethodB,
		SoC: "IPQ4018", FlashMB: 32, RAMMB: 256, MTD1: 31_326_208, Span: "0x220000,0x2000000", MaxFile: 30_277_632, Sure: Emulated,
		Source: "OpenWrt ipq40xx generic.mk; FritzBox-4040-UBOOT; the forum manual this program grew out of"},
	{Name: "AVM FRITZ!Box 7530", HWRevisions: []string{"236"}, Target: "ipq40xx/generic", Profiles: one("avm_fritzbox-7530"), Method: MethodE,
		SoC: "IPQ4019", FlashMB: 128, NAND: true, RAMMB: 256, Offset: 0x85000000, TFTP: "FRITZ7530.bin", Sure: Emulated,
		Source: "OpenWrt 95b0c07a61; the 0x88600000 of FritzBox-4040-UBOOT's README lies behind the end that its own script names"},
	{Name: "AVM FRITZ!Box 7520", HWRevisions: []string{"247"}, Target: "ipq40xx/generic", Profiles: one("avm_fritzbox-7530"), Method: MethodE,
		SoC: "IPQ4019", FlashMB: 128, NAND: true, RAMMB: 256, Offset: 0x85000000, TFTP: "FRITZ7520.bin", Sure: Emulated,
		Source: "OpenWrt 95b0c07a61, 7f187229a8", Note: "its own U-Boot, the 7530's images"},
	{Name: "AVM FRITZ!Repeater 1200", HWRevisions: []string{"244"}, Target: "ipq40xx/generic", Profiles: one("avm_fritzrepeater-1200"), Method: MethodE,
		SoC: "IPQ4019", FlashMB: 128, NAND: true, RAMMB: 256, Offset: 0x85000000, TFTP: "FRITZ1200.bin", Sure: Emulated, Source: "OpenWrt 148d29d47b"},
	{Name: "AVM FRITZ!Repeater 3000", HWRevisions: []string{"246"}, Target: "ipq40xx/generic", Profiles: one("avm_fritzrepeater-3000"), Method: MethodE,
		SoC: "IPQ4019", FlashMB: 128, NAND: true, RAMMB: 256, Offset: 0x85000000, TFTP: "FRITZ3000.bin", Sure: Emulated, Source: "OpenWrt cb6f4be137"},

	{Name: "AVM FRITZ!Box 4020", HWRevisions: []string{"219"}, Target: "ath79/generic", Profiles: one("avm_fritz4020"), Method: MethodA,
		SoC: "QCA9561", FlashMB: 16, RAMMB: 128, MTD1: nor16, Sure: Emulated, Source: "OpenWrt 3f8c5d5476"},
	{Name: "AVM FRITZ!WLAN Repeater 300E", HWRevisions: []string{"173"}, Target: "ath79/generic", Profiles: one("avm_fritz300e"), Method: MethodA,
		SoC: "AR7242", FlashMB: 16, RAMMB: 64, MTD1: nor16, Sure: Emulated, Source: "OpenWrt ath79 generic.mk"},
	{Name: "AVM FRITZ!WLAN Repeater 450E", HWRevisions: []string{"200"}, Target: "ath79/generic", Profiles: one("avm_fritz450e"), Method: MethodA,
		SoC: "QCA9556", FlashMB: 16, RAMMB: 64, MTD1: nor16, Sure: Emulated, Source: "OpenWrt 8918c038f3"},
	{Name: "AVM FRITZ!WLAN Repeater 1750E", HWRevisions: []string{"206"}, Target: "ath79/generic", Profiles: one("avm_fritz1750e"), Method: MethodA,
		SoC: "QCA9556", FlashMB: 16, RAMMB: 64, MTD1: nor16, Sure: Emulated, Source: "OpenWrt ath79 generic.mk"},
	{Name: "AVM FRITZ!WLAN Repeater DVB-C", HWRevisions: []string{"205"}, Target: "ath79/generic", Profiles: one("avm_fritzdvbc"), Method: MethodA,
		SoC: "QCA9556", FlashMB: 16, RAMMB: 64, MTD1: nor16, Sure: Emulated, Source: "OpenWrt ath79 generic.mk; Freetz-NG's lists of images (2026-08) and AVM's kernel, avm_cache.h"},

	{Name: "AVM FRITZ!Box 7312", HWRevisions: []string{"189"}, Target: "lantiq/xway", Profiles: one("avm_fritz7312"), Method: MethodA,
		SoC: "AR9", FlashMB: 16, RAMMB: 64, MTD1: okli16, Sure: Emulated, Source: "OpenWrt 9764968bba"},
	{Name: "AVM FRITZ!Box 7320, 7330, 7330 SL", HWRevisions: []string{"172", "179", "188"}, Target: "lantiq/xway", Profiles: one("avm_fritz7320"), Method: MethodA,
		SoC: "AR9", FlashMB: 16, RAMMB: 64, MTD1: okli16, Sure: Emulated, Source: "OpenWrt lantiq xway; also sold as 1&1 HomeServer"},
	{Name: "AVM FRITZ!Box 7360 SL, 7360 v1", HWRevisions: []string{"181", "183"}, Target: "lantiq/xrx200", Profiles: one("avm_fritz7360sl"), Method: MethodA,
		SoC: "VR9", FlashMB: 16, RAMMB: 128, MTD1: okli16, Sure: Emulated, Source: "OpenWrt lantiq vr9.mk"},
	{Name: "AVM FRITZ!Box 7360 v2", HWRevisions: []string{"196"}, Target: "lantiq/xrx200", Profiles: one("avm_fritz7360-v2"), Method: MethodA,
		SoC: "VR9", FlashMB: 32, RAMMB: 128, MTD1: nor32, Sure: Emulated, Source: "OpenWrt 8d9c1087e4"},

	{Name: "AVM FRITZ!Box 3370", HWRevisions: []string{"175"}, Target: "lantiq/xrx200",
		Profiles: []Profile{{"avm_fritz3370-rev2-hynix", "Hynix NAND"}, {"avm_fritz3370-rev2-micron", "Micron NAND"}}, Method: MethodC,
		SoC: "VR9", FlashMB: 128, NAND: true, RAMMB: 128, MTD1: 0x400000, FSStart0: true, Sure: Unsure, Source: "OpenWrt 0b62fe5ed8",
		Note: "nothing tells the NAND's maker from outside; with bootloader 2186 the box restarts by itself 30 s after power-on"},

	{Name: "AVM FRITZ!Box 3390", HWRevisions: []string{"193"}, Target: "lantiq/xrx200", Profiles: one("avm_fritz3390"), Method: MethodD,
		SoC: "VR9", FlashMB: 128, NAND: true, RAMMB: 128, FSStart0: true, Sure: Emulated, Source: "OpenWrt lantiq vr9.mk; fritz-tools"},
	{Name: "AVM FRITZ!Box 3490", HWRevisions: []string{"212"}, Target: "lantiq/xrx200", Profiles: two("avm_fritz3490"), Method: MethodD,
		SoC: "VR9", FlashMB: 512, NAND: true, RAMMB: 256, Sure: Emulated, Source: "OpenWrt 48b2df5a41"},
	{Name: "AVM FRITZ!Box 5490, 5491", HWRevisions: []string{"223", "243"}, Target: "lantiq/xrx200", Profiles: two("avm_fritz5490"), Method: MethodD,
		SoC: "VR9", FlashMB: 512, NAND: true, RAMMB: 256, Sure: Emulated, Source: "OpenWrt bb46f0484d"},
	{Name: "AVM FRITZ!Box 7362 SL", HWRevisions: []string{"203"}, Target: "lantiq/xrx200", Profiles: one("avm_fritz7362sl"), Method: MethodD,
		SoC: "VR9", FlashMB: 128, NAND: true, RAMMB: 128, Sure: Emulated, Source: "OpenWrt eae6cac6a3", Note: "its boot window is about 4 s"},
	{Name: "AVM FRITZ!Box 7412", HWRevisions: []string{"209"}, Target: "lantiq/xrx200", Profiles: one("avm_fritz7412"), Method: MethodD,
		SoC: "VR9", FlashMB: 128, NAND: true, RAMMB: 128, FSStart0: true, Sure: Emulated, Source: "OpenWrt 20f48c8ae3"},
	{Name: "AVM FRITZ!Box 7430", HWRevisions: []string{"218"}, Target: "lantiq/xrx200", Profiles: one("avm_fritz7430"), Method: MethodD,
		SoC: "VR9", FlashMB: 128, NAND: true, RAMMB: 128, FSStart0: true, Sure: Emulated, Source: "OpenWrt 6c85a449a9"},
	{Name: "AVM FRITZ!Box 7490", HWRevisions: []string{"185"}, Target: "lantiq/xrx200", Profiles: two("avm_fritz7490"), Method: MethodD,
		SoC: "VR9", FlashMB: 512, NAND: true, RAMMB: 256, FSStart0: true, Sure: Emulated, Source: "OpenWrt c18a05ee15",
		Note: "a 10 MB image stalled where a 5 MB one worked"},
}

// unsupported are boxes that answer here but that OpenWrt does not have (facts
// eva 3.2).
var unsupported = map[string]string{
	"221": "FRITZ!Box 7560", "225": "FRITZ!Box 7580", "226": "FRITZ!Box 7590", "261": "FRITZ!Box 4060", "256": "FRITZ!Box 7530 AX",
	"276": "FRITZ!Box 7520 B", "287": "FRITZ!Box 4050",
}

// Boards lists every board that we know how to install.
func Boards() []Board {
	out := slices.Clone(boards)
	for i := range out {
		out[i].HWRevisions = slices.Clone(out[i].HWRevisions)
		out[i].Profiles = slices.Clone(out[i].Profiles)
	}
	return out
}

// BoardOf finds the board of a box by its HWRevision. A box that we do not know
// is an *UnknownBoardError.
func BoardOf(e Environment) (Board, error) {
	rev := strings.TrimSpace(e.HWRevision())
	for _, b := range Boards() {
		if rev != "" && slices.Contains(b.HWRevisions, rev) {
			return b, nil
		}
	}
	return Board{}, &UnknownBoardError{HWRevision: rev, Name: unsupported[rev]}
}

// BoardFor finds the boards that an OpenWrt profile is for: "avm_fritzbox-4040",
// or "avm,fritzbox-4040" as OpenWrt's board name has it.
func BoardFor(profile string) []Board {
	profile = strings.ReplaceAll(profile, ",", "_")
	var out []Board
	for _, b := range Boards() {
		if slices.ContainsFunc(b.Profiles, func(p Profile) bool { return p.Name == profile }) {
			out = append(out, b)
		}
	}
	return out
}
