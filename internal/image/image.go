// Package image says what a firmware file is: for which board, of which kind and
// release, whether it is whole, and whether it is the right one for a purpose. It
// reads bytes and never looks at a file's name, because names lie: gluon calls the
// 4040's boot loader image "…-bootloader.bin", image builders name files as they
// like, and a browser saves an error page under the name of the image.
//
// It must never open a file or a socket, never trust a length that it read, and
// never call a file whole because it could not look: what has no checksum inside
// is reported as not known. An image's signature and the release's checksum list
// are package firmware's business; SHA256 is what to compare.
//
// Background. AVM's boot loader (EVA) starts what lies at the beginning of the
// flash partition mtd1: an "EVA record", an LZMA stream with a header. What
// OpenWrt puts there differs by board (facts eva.md 3 and 4):
//
//   - the 4040 gets U-Boot as the record, padded to 512 KiB, and behind it a FIT
//     (kernel and device tree in one container, itself a device tree) and a
//     squashfs. Its sysupgrade image lacks the U-Boot; written through the boot
//     loader it leaves a box that does not start;
//   - the older NOR boxes get the sysupgrade image itself: record, at the next
//     64 KiB boundary 256 bytes that EVA takes for a file system, then the real one;
//   - NAND boxes are never written through the boot loader: they start something in
//     RAM, which then installs a tar archive.
//
// Sysupgrade images end in a metadata trailer (fwtool) that lists the boards; the
// images for the boot loader do not. No official image was at hand when the facts
// were gathered: layouts are from recipes, packers and kernel splitters, re-built
// in a lab (facts eva.md 8, item 13).
package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
)

// A Kind is what a file is, as far as its bytes tell.
type Kind string

// The kinds.
const (
	// OpenWrt's, for boxes with AVM's boot loader.
	EVA        Kind = "eva"        // the 4040: U-Boot, FIT, squashfs
	Sysupgrade Kind = "sysupgrade" // upgrades a box that runs OpenWrt; on the older NOR boxes also for mtd1
	Initramfs  Kind = "initramfs"  // FIT with the whole system in the kernel
	// Kernel is a bare EVA record. An initramfs of method D and the 3370's
	// eva-kernel have this form; the record alone does not tell which [derived].
	Kernel     Kind = "kernel"
	FileSystem Kind = "filesystem" // UBI, the 3370's eva-filesystem
	UBoot      Kind = "u-boot"     // U-Boot as an EVA record with TI checksum

	// AVM's own.
	AVMRecovery Kind = "avm-recovery" // Windows program
	AVMImage    Kind = "avm-image"    // tar for FRITZ!OS' own update page
	AVMKernel   Kind = "avm-kernel"   // kernel.image out of such a tar, or a Freetz image

	// What people pick by mistake.
	Factory Kind = "factory"     // for another maker's boot loader
	Other   Kind = "other"       // known file format that is no firmware
	Gzip    Kind = "gzip"        // still packed
	Zip     Kind = "zip"         // still packed
	HTML    Kind = "html"        // a web page
	Text    Kind = "text"        //
	Empty   Kind = "empty"       // no bytes
	Blank   Kind = "blank"       // all bytes 0x00 or all 0xFF
	Unknown Kind = "not known"   //
	Windows Kind = "windows-exe" // a Windows program that is not AVM's recovery
)

// A State is what is known of one property of the file.
type State int

// NotKnown is the zero value: nothing turns good because nobody looked.
const (
	NotKnown State = iota
	Good
	Bad
)

func (s State) String() string { return [...]string{"not known", "good", "bad"}[s] }

// A Check is one property that was looked at.
type Check struct {
	What  string `json:"what"` // "metadata checksum"
	State State  `json:"state"`
	Says  string `json:"says,omitempty"` // what was seen, for people
}

// A Part is one piece of the file.
type Part struct {
	Name   string `json:"name"` // "u-boot", "kernel", "device tree", "root file system", "padding", "metadata", "signature"
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
}

// A Release is what the metadata says was built; a kernel version is read from
// the FIT's descriptions.
type Release struct {
	Distribution string `json:"distribution,omitempty"` // "OpenWrt"
	Version      string `json:"version,omitempty"`      // "24.10.7"; from a kernel version only the line: "24.10"
	Revision     string `json:"revision,omitempty"`
	Target       string `json:"target,omitempty"`
	Kernel       string `json:"kernel,omitempty"` // "6.6.93"
	// Guessed: Version is the line that shipped this kernel, not a statement of the file.
	Guessed bool `json:"guessed,omitempty"`
}

// An Image is what a file was found to be.
type Image struct {
	Kind   Kind   `json:"kind"`
	Format string `json:"format"` // one line for people: "U-Boot, FIT and squashfs"
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Boards are board names ("avm,fritzbox-4040"; other makers' as they stand in
	// the file); nil when the file does not say.
	Boards []string `json:"boards,omitempty"`
	// UBootFor is the box that a U-Boot is for: the 7520 shares a board with the
	// 7530 and needs its own.
	UBootFor string  `json:"u_boot_for,omitempty"` // "fritz7520"
	Release  Release `json:"release"`
	// Compat is the configuration format's version: the first number must be the
	// box's own; when the second differs, settings cannot be kept (facts eva.md 4.5).
	Compat        string  `json:"compat,omitempty"`
	CompatMessage string  `json:"compat_message,omitempty"`
	Signed        bool    `json:"signed,omitempty"`       // a signature is attached; nobody has checked it here
	HasMetadata   bool    `json:"has_metadata,omitempty"` // a metadata trailer with the right checksum
	Parts         []Part  `json:"parts,omitempty"`
	Checks        []Check `json:"checks,omitempty"`
	// CutOff: the beginning of something whose end is missing, as after a
	// download that broke off. Missing is how many bytes at least, 0 when not known.
	CutOff  bool  `json:"cut_off,omitempty"`
	Missing int64 `json:"missing,omitempty"`

	layout layout
	flat   bool // Sysupgrade in one piece rather than a tar
}

// Whole is Bad when anything in the file contradicts itself or its end is
// missing, Good when its structure holds together, NotKnown when the file has
// none that we know. Good does not cover a root file system's contents, which
// carry no checksum: compare SHA256 with the release's list.
func (m Image) Whole() State {
	if m.CutOff {
		return Bad
	}
	whole := NotKnown
	for _, c := range m.Checks {
		switch c.State {
		case Bad:
			return Bad
		case Good:
			whole = Good
		case NotKnown:
		}
	}
	return whole
}

// Part finds a part by its name.
func (m Image) Part(name string) (Part, bool) {
	for _, p := range m.Parts {
		if p.Name == name {
			return p, true
		}
	}
	return Part{}, false
}

// Names says what the image is for in people's words: "AVM FRITZ!Box 4040".
func (m Image) Names() string {
	var out string
	for i, name := range m.Boards {
		if i == 3 && len(m.Boards) > 4 {
			return out + fmt.Sprintf(" and %d more", len(m.Boards)-i)
		}
		if i > 0 {
			out += ", "
		}
		if b, ok := BoardNamed(name); ok {
			name = b.String()
		}
		out += name
	}
	return out
}

// Fits reports whether the image says it is for this board.
func (m Image) Fits(b Board) bool { return slices.ContainsFunc(m.Boards, b.Is) }

func (m *Image) check(what string, state State, says string, args ...any) {
	m.Checks = append(m.Checks, Check{what, state, fmt.Sprintf(says, args...)})
}

// judge records a check that is either good or bad.
func (m *Image) judge(what string, good bool, says string, args ...any) bool {
	if good {
		m.check(what, Good, "")
	} else {
		m.check(what, Bad, says, args...)
	}
	return good
}

func (m *Image) part(name string, offset, size int64) {
	m.Parts = append(m.Parts, Part{name, offset, size})
}

// cut records that the file ends before something does; need is where that ends.
func (m *Image) cut(what string, need int64) {
	m.CutOff = true
	if missing := need - m.Size; missing > m.Missing {
		m.Missing = missing
	}
	m.check(what, Bad, "ends at %d, the file at %d", need, m.Size)
}

// cutTail records that the mark at the end of the file is missing.
func (m *Image) cutTail(what, says string, args ...any) {
	m.CutOff = true
	m.check(what, Bad, says, args...)
}

func (m *Image) board(name string) {
	if name = boardName(name); name != "" && !slices.Contains(m.Boards, name) && len(m.Boards) < 64 {
		m.Boards = append(m.Boards, name)
	}
}

// Identify says what the size bytes of r are. It reads the file a few times in
// pieces, using memory that does not depend on what the file claims (at most some
// 20 MB, for the window of an LZMA stream). The error is r's own; a file that
// makes no sense is an Image of kind Unknown, not an error.
func Identify(r io.ReaderAt, size int64) (Image, error) {
	f := &file{r: r, size: size}
	m := Image{Kind: Unknown, Size: size}
	sum := sha256.New()
	f.each(0, size, func(p []byte) { sum.Write(p) })
	if f.err != nil {
		return Image{}, f.err
	}
	m.SHA256 = hex.EncodeToString(sum.Sum(nil))
	identify(f, &m)
	if f.err != nil {
		return Image{}, f.err
	}
	return m, nil
}

// identify looks at the beginning for what it could be and leaves the rest to
// whoever knows that format.
func identify(f *file, m *Image) {
	head := f.at(0, 512)
	trailer := readTrailer(f, m)
	for _, format := range formats {
		if format.begins(head, f) {
			format.read(f, m, trailer)
			break
		}
	}
	if (m.Kind == Unknown || m.Kind == Factory) && m.HasMetadata {
		// Any maker's flat image; the metadata says whose.
		m.Kind, m.Format = Sysupgrade, "image with OpenWrt's metadata, its layout is not one of AVM's boards"
		m.flat = true
	}
	m.Parts = append(m.Parts, trailer.parts...)
	if m.Kind == Unknown {
		m.Format = "nothing that we know"
	}
}
