package eva

import (
	"fmt"
	"strings"
)

// A Role is what a file is for.
type Role string

// The roles.
const (
	Firmware   Role = "firmware"   // A: sysupgrade image; B: eva image
	Kernel     Role = "kernel"     // C: eva-kernel
	Filesystem Role = "filesystem" // C: eva-filesystem
	Initramfs  Role = "initramfs"  // D: OpenWrt for RAM
	SecondBoot Role = "U-Boot"     // E: U-Boot for RAM
)

// A File is what is known of a file before it is opened.
type File struct {
	Role   Role
	Size   int64
	SHA256 [32]byte // of the file that was checked; zero: not compared
}

// A Plan is what is done with one kind of box: which variables are set and which
// file goes where. Only NewPlan makes one, and Send refuses a box of another
// HWRevision, so nothing unplanned is ever written.
type Plan struct {
	hw    string
	board Board
	set   []setting
	put   []put
	ram   *RAM
}

type setting struct{ name, value string }

type put struct {
	part string // "mtd1"; "" for RAM
	span Span
	file File
}

// Board is the board that the plan is for.
func (p Plan) Board() Board { return p.board }

// Roles are the files that Send wants, in order.
func (p Plan) Roles() []Role {
	var out []Role
	for _, x := range p.put {
		out = append(out, x.file.Role)
	}
	return out
}

// String says what will be done, one step a line.
func (p Plan) String() string {
	var out []string
	for _, s := range p.set {
		out = append(out, fmt.Sprintf("set %s to %s", s.name, s.value))
	}
	for _, x := range p.put {
		if p.ram != nil {
			out = append(out, fmt.Sprintf("start the %s (%d bytes) in memory at 0x%08x", x.file.Role, x.file.Size, p.ram.Start))
			continue
		}
		out = append(out, fmt.Sprintf("replace %s by the %s (%d of %d bytes)", x.part, x.file.Role, x.file.Size, x.span.Size()))
	}
	return strings.Join(out, "\n")
}

// Needs are the roles of the files that a board's method sends, in order.
func (b Board) Needs() []Role {
	switch b.Method {
	case MethodC:
		return []Role{Kernel, Filesystem}
	case MethodD:
		return []Role{Initramfs}
	case MethodE:
		return []Role{SecondBoot}
	}
	return []Role{Firmware}
}

// NewPlan plans for the box with this environment. The files must be those that
// the board needs, in that order; that their content is right is package image's
// business. Errors: *UnknownBoardError, *BoxError, *SizeError, *FileError.
func NewPlan(e Environment, files ...File) (Plan, error) {
	board, err := BoardOf(e)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{hw: e.HWRevision(), board: board}
	needs := board.Needs()
	for i, role := range needs {
		switch {
		case i >= len(files) || files[i].Role != role || len(files) > len(needs):
			return Plan{}, &FileError{Role: role, Why: fmt.Sprintf("is what %s needs, and nothing else", board.Name)}
		case files[i].Size <= 0:
			return Plan{}, &FileError{Role: role, Why: "is empty"}
		}
	}
	if now := e.text("linux_fs_start"); board.FSStart0 && (board.Method == MethodC || now == "1") {
		p.set = append(p.set, setting{"linux_fs_start", "0"})
	}
	if !board.Method.Writes() {
		ram, err := Layout(files[0].Size, board.Offset)
		if err != nil {
			return Plan{}, err
		}
		p.ram, p.put = &ram, []put{{file: files[0]}}
		return p, nil
	}
	if err := board.known(e); err != nil {
		return Plan{}, err
	}
	return p.places(e, files)
}

// known compares a box with what we know of its board. The bootloader does not
// check what it is told to write, so whatever is unlike is a reason to stop.
func (b Board) known(e Environment) error {
	sizes := e.FlashSizes()
	if nand := sizes["nand"]; !b.NAND && nand > 0 || b.NAND && len(sizes) > 0 && nand == 0 {
		return &BoxError{"flashsize", e.text("flashsize"), map[bool]string{false: "no NAND", true: "NAND"}[b.NAND]}
	}
	mtd1, ok := e.Partition("mtd1")
	switch {
	case !ok:
		return &BoxError{"mtd1", e.text("mtd1"), "start,end"}
	case b.Span != "" && mtd1.String() != b.Span:
		return &BoxError{"mtd1", mtd1.String(), b.Span}
	case b.MTD1 != 0 && mtd1.Size() != b.MTD1:
		return &BoxError{"mtd1", mtd1.String(), fmt.Sprintf("%d bytes", b.MTD1)}
	}
	// On NAND boxes mtd2 counts in another chip (facts eva 3.3).
	if loader, ok := e.Partition("mtd2"); ok && !b.NAND && mtd1.overlaps(loader) {
		return &BoxError{"mtd1", mtd1.String(), "apart from the bootloader at " + loader.String()}
	}
	// The first revision of the 3370 has another flash (facts eva 3.1).
	if sub := e.text("HWSubRevision"); b.Method == MethodC && (sub == "" || sub == "0" || sub == "1") {
		return &BoxError{"HWSubRevision", sub, "2 or more"}
	}
	return nil
}

func (p Plan) places(e Environment, files []File) (Plan, error) {
	for i, f := range files {
		part := "mtd1"
		if f.Role == Filesystem {
			part = "mtd0"
		}
		span, ok := e.Partition(part)
		if !ok {
			return Plan{}, &BoxError{part, e.text(part), "start,end"}
		}
		limit := span.Size()
		if p.board.MaxFile > 0 && part == "mtd1" {
			limit = p.board.MaxFile
		}
		if f.Size > limit {
			return Plan{}, &SizeError{f.Role, f.Size, limit}
		}
		p.put = append(p.put, put{part, span, files[i]})
	}
	return p, nil
}

// RAM says where a RAM boot puts its image (facts eva 1.7).
type RAM struct {
	MemSize    uint32 // what the system is told to use
	Start, End uint32 // of the memory that STOR names
}

const (
	ramStart = 0x80000000
	ramSize  = 0x8000000
	ramMax   = 0x2000000 // images are smaller
)

// Layout computes a RAM boot as OpenWrt's eva_ramboot.py does: the image sits at
// the end of memory, on a page boundary, and the system is told to use what is
// below; or at a fixed place, as U-Boot wants it, and memsize holds the image's
// size. Sizes in bytes. Error: *SizeError.
func Layout(size int64, offset uint32) (RAM, error) {
	if size <= 0 || size >= ramMax {
		return RAM{}, &SizeError{Initramfs, size, ramMax - 1}
	}
	r := RAM{End: ramStart + ramSize}
	if offset != 0 {
		r.MemSize, r.Start = uint32(size), offset
	} else {
		r.MemSize = uint32(ramSize-size) &^ 0xfff
		r.Start = ramStart + r.MemSize
	}
	if r.Start < ramStart || int64(r.Start)+size > int64(r.End) {
		return RAM{}, &SizeError{Initramfs, size, int64(r.End) - int64(r.Start)}
	}
	return r, nil
}
