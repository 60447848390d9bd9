package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
)

// A Use is what somebody is about to do with a file.
type Use string

// The uses.
const (
	FlashThroughEVA Use = "flash"    // the boot loader writes it to mtd1 (or Purpose.Partition)
	UpgradeOpenWrt  Use = "upgrade"  // sysupgrade on a box that runs OpenWrt, or in a RAM-booted one
	RAMBoot         Use = "ram-boot" // the boot loader starts it in RAM; nothing is written
	NetBoot         Use = "net-boot" // U-Boot fetches it by TFTP and starts it; nothing is written
	WriteUBoot      Use = "u-boot"   // method E: written to uboot0 and uboot1 by the RAM-booted system
)

// A Purpose is a use on one box. Board is all that is needed; the rest makes the
// judgement sharper or the message better.
type Purpose struct {
	Use   Use
	Board string // "avm,fritzbox-4040", an older name, or a profile
	// HWRevision is what the boot loader says, 0 for not known. It tells a 7520
	// from a 7530, which need different U-Boots.
	HWRevision int
	// Partition is "mtd1" or, for the 3370's file system, "mtd0"; "" is mtd1.
	Partition string
	// Room is the size of that partition by the box's own environment, in bytes; 0
	// takes the table's.
	Room int64
	// Compat is the running system's compat version ("1.0"), "" for not known, and
	// KeepSettings whether they shall survive; both for UpgradeOpenWrt.
	Compat       string
	KeepSettings bool
	// Version goes into the name of the right file: "24.10.7". "" takes the
	// image's own where it has one.
	Version string
}

// For says whether the image is right for a purpose: nil, or a fault that says
// what the file is, what it would do, and which file is right. Its codes:
// image-not-firmware, image-avm, image-packed, image-foreign, image-cut-off,
// image-damaged, image-other-board, image-board-unknown, image-wrong-kind,
// image-too-large, image-compat, board-unknown, board-method.
//
// Nil is no statement about authenticity; that is for the signed checksum list.
func For(m Image, p Purpose) error {
	b, known := BoardNamed(p.Board)
	if !known {
		return fault.NewUsage("board-unknown", "%q is none of the boards that we know", printable(p.Board, 64)).
			Do("heimweg firmware list shows them")
	}
	if p.HWRevision != 0 && len(b.HWRevisions) > 0 && !slices.Contains(b.HWRevisions, p.HWRevision) {
		f := fault.New("image-other-board", "this box is not the %s", b.Model).
			Saw("the boot loader says HWRevision %d; the %s has %s", p.HWRevision, b.Model, numbers(b.HWRevisions))
		for _, real := range BoardsOf(p.HWRevision) {
			f.Do("heimweg firmware get %s fetches files for the box that it is: %s", real.Short(), real)
		}
		return orNone(f, "no OpenWrt image for a box of that number is known to us")
	}
	v := verdict{m, p, b}
	for _, judge := range []func() *fault.Fault{v.firmware, v.whole, v.boardFits, v.kindFits, v.size, v.compat} {
		if f := judge(); f != nil {
			return f
		}
	}
	return nil
}

func orNone(f *fault.Fault, next string) *fault.Fault {
	if len(f.Next) == 0 {
		f.Do("%s", next)
	}
	return f
}

func numbers(list []int) string {
	var out []string
	for _, n := range list {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, " or ")
}

// A verdict is one judgement under way.
type verdict struct {
	m Image
	p Purpose
	b Board
}

// right adds which file is right.
func (v verdict) right(f *fault.Fault) *fault.Fault {
	version := v.p.Version
	if version == "" && !v.m.Release.Guessed {
		version = v.m.Release.Version
	}
	names := fileNames(v.b, v.p.Use, v.p.HWRevision, version)
	if len(names) == 0 {
		return f.Do("heimweg flash shows the way for the %s", v.b.Model)
	}
	return f.Do("heimweg firmware get %s fetches the right one (%s)", v.b.Short(), strings.Join(names, ", "))
}

// would says what the file would do if it were used anyway.
func (v verdict) would(other string) string {
	switch v.p.Use {
	case FlashThroughEVA:
		return other
	case UpgradeOpenWrt:
		return "sysupgrade would refuse it; forced, the box would not start any more"
	case WriteUBoot:
		return "the box would not start by itself any more"
	}
	return "the box would not start it; nothing would be written"
}

const (
	noStart      = "written to the box it would leave it without a system; the boot loader survives that"
	noStartShort = "the box would not start; the boot loader survives that"
)

// firmware refuses what is no OpenWrt image at all.
func (v verdict) firmware() *fault.Fault {
	says := func(code, format string, args ...any) *fault.Fault {
		return v.right(fault.New(code, format, args...).Saw("%s, %d bytes", v.m.Format, v.m.Size))
	}
	switch v.m.Kind {
	case Empty:
		return v.right(fault.New("image-not-firmware", "this file is empty").Saw("0 bytes, as after a download that never began"))
	case Blank:
		return says("image-not-firmware", "this file holds no data").Because("it looks like a copy of erased flash")
	case HTML:
		return says("image-not-firmware", "this is a web page, not an image").Because("a server or a log-in page of the network answered in place of the file")
	case Text:
		return says("image-not-firmware", "this is text, not an image")
	case Unknown, Other, Windows:
		return says("image-not-firmware", "this is no firmware image that we know").Because("%s", v.would(noStart))
	case Gzip, Zip:
		f := says("image-packed", "this file is still packed").Because("the boot loader would write it as it is, and the box could not start it")
		f.Next = append([]string{"unpack it and name the file inside"}, f.Next...)
		return f
	case AVMRecovery:
		f := fault.New("image-avm", "this is AVM's recovery program, which brings FRITZ!OS back").
			Saw("a Windows program with AVM's recovery mark, %d bytes", v.m.Size).Because("it runs on Windows and holds the image inside; %s", v.would(noStart))
		return v.right(f.Do("heimweg flash --back-to-stock explains how to use it"))
	case AVMImage:
		return says("image-avm", "this is AVM's own firmware").Because("it is installed from the box's own web page; %s", v.would(noStart))
	case AVMKernel:
		return says("image-avm", "this is a kernel of AVM or Freetz, not OpenWrt").Because("it holds no OpenWrt and names no box; %s", v.would(noStart))
	case Factory:
		return says("image-foreign", "this image is for another maker's boot loader").Because("%s", v.would(noStart))
	case EVA, Sysupgrade, Initramfs, Kernel, FileSystem, UBoot:
	}
	return nil
}

// whole refuses what was cut off or contradicts itself.
func (v verdict) whole() *fault.Fault {
	if v.m.Whole() != Bad {
		return nil
	}
	var f *fault.Fault
	if v.m.CutOff {
		f = fault.New("image-cut-off", "this file is only the beginning of %s", v.what())
		if v.m.Missing > 0 {
			f.Saw("%d bytes; at least %d are missing", v.m.Size, v.m.Missing)
		} else {
			f.Saw("%d bytes; its end is missing", v.m.Size)
		}
		f.Because("a download that broke off looks like this; %s", v.would(noStartShort))
	} else {
		f = fault.New("image-damaged", "this file is damaged: it was %s", v.what()).Because("%s", v.would(noStartShort))
	}
	for _, c := range v.m.Checks {
		if c.State == Bad && len(f.Seen) < 6 {
			f.Saw("%s: %s", c.What, c.Says)
		}
	}
	return v.right(f)
}

// what names the image: "an OpenWrt 24.10.7 sysupgrade image for AVM FRITZ!Box 4040".
func (v verdict) what() string {
	kind := map[Kind]string{EVA: "image for AVM's boot loader", Sysupgrade: "sysupgrade image", Initramfs: "initramfs (a system that runs from RAM)",
		Kernel: "kernel", FileSystem: "UBI file system", UBoot: "U-Boot"}[v.m.Kind]
	out := "a"
	if v.m.Release.Distribution != "" {
		out = article(v.m.Release.Distribution) + " " + v.m.Release.Distribution
		if v.m.Release.Version != "" {
			out += " " + v.m.Release.Version
		}
	} else if strings.HasPrefix(kind, "i") {
		out = "an"
	}
	out += " " + kind
	if len(v.m.Boards) > 0 {
		out += " for " + v.m.Names()
	}
	return out
}

func article(word string) string {
	if strings.ContainsRune("AEIOUaeiou", rune(word[0])) {
		return "an"
	}
	return "a"
}

// boardFits refuses an image for another box. What only names no box passes where
// nothing is written, or where no file of that kind names one.
func (v verdict) boardFits() *fault.Fault {
	switch {
	case v.m.Fits(v.b):
		return v.rightUBoot()
	case len(v.m.Boards) == 0 && (v.p.Use == RAMBoot || v.p.Use == NetBoot):
		return nil
	case len(v.m.Boards) == 0 && v.m.Kind == FileSystem:
		return nil
	case len(v.m.Boards) == 0:
		return v.right(fault.New("image-board-unknown", "nothing in this file says for which box it is").
			Saw("%s, %d bytes", v.m.Format, v.m.Size).Because("%s if it is for another one", v.would(noStartShort)))
	case v.p.Use == RAMBoot && v.sibling():
		return nil
	}
	return v.right(fault.New("image-other-board", "this image is for another box than the %s%s", v.b, hwRevisionText(v.p.HWRevision)).
		Saw("%s", v.what()).Because("%s", v.would(noStartShort)))
}

// sibling: for the same box with another maker's NAND. From RAM it starts, and
// its log says which NAND it is (facts eva.md 3.1, details of D).
func (v verdict) sibling() bool {
	for _, name := range v.m.Boards {
		if other, ok := BoardNamed(name); ok && len(v.b.HWRevisions) > 0 && slices.Equal(other.HWRevisions, v.b.HWRevisions) {
			return true
		}
	}
	return false
}

// rightUBoot tells the 7520's from the 7530's.
func (v verdict) rightUBoot() *fault.Fault {
	want := v.b.UBoots[v.p.HWRevision]
	if v.m.Kind != UBoot || want == "" || v.m.UBootFor == "" || v.m.UBootFor == want {
		return nil
	}
	return v.right(fault.New("image-other-board", "this U-Boot is for another box%s", hwRevisionText(v.p.HWRevision)).
		Saw("it is uboot-%s.bin", v.m.UBootFor).Because("%s", v.would(noStartShort)))
}

// kindFits refuses the wrong image for the right box.
func (v verdict) kindFits() *fault.Fault {
	switch v.p.Use {
	case FlashThroughEVA:
		return v.flash()
	case UpgradeOpenWrt:
		return v.upgrade()
	case RAMBoot:
		want := Kernel
		if v.b.Method == FromUBoot {
			want = UBoot
		}
		if v.b.Method == WithUBoot {
			return fault.New("board-method", "the %s is not started from RAM", v.b.Model).Do("heimweg flash writes its image through the boot loader")
		}
		return v.mustBe(want, "the boot loader could not start it; nothing would be written")
	case NetBoot:
		return v.mustBe(Initramfs, "U-Boot could not start it; nothing would be written")
	case WriteUBoot:
		if v.b.Method != FromUBoot {
			return fault.New("board-method", "the %s keeps no U-Boot of its own", v.b.Model).Do("heimweg flash shows the way for this box")
		}
		return v.mustBe(UBoot, "the box would not start by itself any more")
	}
	return fault.NewBug("no use %q of an image", v.p.Use)
}

func (v verdict) mustBe(k Kind, would string) *fault.Fault {
	if v.m.Kind == k {
		return nil
	}
	return v.wrongKind("this is the wrong kind of image", would)
}

func (v verdict) wrongKind(sentence, would string) *fault.Fault {
	return v.right(fault.New("image-wrong-kind", "%s", sentence).Saw("%s", v.what()).Because("%s", would))
}

// flash judges a file for the boot loader by the board's method.
func (v verdict) flash() *fault.Fault {
	upgrades := "this image upgrades a box that already runs OpenWrt; yours still runs FRITZ!OS" + hwRevisionText(v.p.HWRevision)
	switch v.b.Method {
	case OneFile:
		switch {
		case v.m.Kind != Sysupgrade:
			return v.wrongKind("this is the wrong kind of image", noStartShort)
		case v.m.layout == v.b.layout, v.b.layout == layoutLoader && v.m.layout == layoutRecord: // before 22.03
			return nil
		}
		return v.wrongKind("this image is not laid out as this box's boot loader needs it", noStartShort)
	case WithUBoot:
		switch v.m.Kind {
		case EVA:
			return nil
		case Sysupgrade:
			return v.wrongKind(upgrades, "without the U-Boot in front the box would not start")
		case UBoot:
			return v.wrongKind("this is only the U-Boot that stands in front of the image", "the box would start U-Boot and find no system behind it")
		}
		return v.wrongKind("this is the wrong kind of image", noStartShort)
	case TwoFiles:
		if v.p.Partition == "mtd0" {
			return v.mustBe(FileSystem, noStartShort)
		}
		return v.mustBe(Kernel, noStartShort)
	case FromRAM, FromUBoot:
		f := fault.New("board-method", "OpenWrt is not written to the %s through its boot loader", v.b.Model).
			Saw("%s", v.what()).Because("its flash is NAND, which the boot loader does not write for us; a system in RAM installs it")
		v.p.Use = RAMBoot
		return v.right(f)
	}
	return fault.NewBug("no method for the %s", v.b.Model)
}

// upgrade judges a file for sysupgrade, which wants metadata (ipq40xx and xrx200
// insist; facts eva.md 4.5).
func (v verdict) upgrade() *fault.Fault {
	switch {
	case v.m.Kind == EVA:
		return v.wrongKind("this image is for AVM's boot loader; yours already runs OpenWrt",
			"sysupgrade would refuse it; forced, it would write U-Boot where the system belongs, and the box would not start")
	case v.m.Kind != Sysupgrade:
		return v.wrongKind("this is no image that sysupgrade takes", v.would(""))
	case !v.m.HasMetadata:
		return v.right(fault.New("image-damaged", "this sysupgrade image carries no metadata").Saw("%s", v.what()).Because("%s", v.would("")))
	case v.m.flat != (v.b.LargestSysupgrade > 0):
		return v.wrongKind("this image is not laid out as this box needs it", v.would(""))
	}
	return nil
}

// size refuses what does not fit.
func (v verdict) size() *fault.Fault {
	size, room := v.m.Size, int64(0)
	switch v.p.Use {
	case FlashThroughEVA:
		room = v.b.Largest
		if v.p.Partition == "mtd0" {
			room = v.b.Partition0
		}
		if v.p.Room > 0 && v.p.Room < room {
			room = v.p.Room
		}
	case UpgradeOpenWrt:
		room = v.b.LargestSysupgrade
		for _, p := range v.m.Parts {
			if p.Name == "metadata" || p.Name == "signature" {
				size -= p.Size // sysupgrade takes them off
			}
		}
	case RAMBoot:
		room = largestRAMBoot - 1
	case WriteUBoot:
		room = ubootSize
	case NetBoot:
	}
	if room == 0 || size <= room {
		return nil
	}
	return v.right(fault.New("image-too-large", "this image is larger than its place on the %s", v.b.Model).
		Saw("%d bytes, of which %d fit", size, room).Because("an image builder may put in more packages than fit; the official image fits"))
}

// compat is fwtool's rule: another major version is refused, another minor one
// when settings are kept (facts eva.md 4.5).
func (v verdict) compat() *fault.Fault {
	if v.p.Use != UpgradeOpenWrt || v.p.Compat == "" || v.p.Compat == v.m.Compat {
		return nil
	}
	is, _, _ := strings.Cut(v.m.Compat, ".")
	runs, _, _ := strings.Cut(v.p.Compat, ".")
	if is == runs && !v.p.KeepSettings {
		return nil
	}
	f := fault.New("image-compat", "this image cannot take over the settings of the system that runs").
		Saw("compat version %s in the image, %s on the box", v.m.Compat, v.p.Compat)
	if v.m.CompatMessage != "" {
		f.Saw("%s", v.m.CompatMessage)
	}
	if is != runs {
		return f.Do("heimweg upgrade says which release to take first")
	}
	return f.Do("heimweg upgrade makes a backup, upgrades without the settings and applies home.toml again")
}
