package owrt

import (
	"fmt"
	"io"
	"strings"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
)

// A Chip is the flash of the case, as far as programs of a running system reach it.
type Chip interface {
	// Parts lists the partitions as /proc/mtd has them and, behind them, the
	// volumes of ubi0.
	Parts() []Part
	// Write replaces a partition's contents, as `mtd write` does, which erases
	// first; nil data only erases.
	Write(part string, data []byte) error
	// Remove takes a UBI volume away.
	Remove(volume string) error
	// Env is a variable of the bootloader, as fritz_tffs_nand reads it.
	Env(name string) (value string, ok bool)
}

// A Part is a partition, or a UBI volume.
type Part struct {
	Name   string
	Size   int64
	Volume bool
	Locked bool // read-only to the system, as the bootloader's own
}

// ramMounts is /proc/mounts of an initramfs: procd moves it to a tmpfs (OpenWrt
// procd, initd/early.c and zram.c).
const ramMounts = "tmpfs / tmpfs rw,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,noatime 0 0\nsysfs /sys sysfs rw,nosuid,nodev,noexec,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev,noatime 0 0\ntmpfs /dev tmpfs rw,nosuid,noexec,noatime,size=512k,mode=755 0 0\n"

// rootType is `ubus call system board`'s rootfs_type (OpenWrt procd, system.c).
func (s *system) rootType() string {
	if s.b.opt.RAM {
		return "initramfs"
	}
	return "squashfs"
}

// nandBoards have NAND flash (facts eva 3.2).
var nandBoards = []string{"7530", "7520", "repeater-", "3370", "3390", "3490", "5490", "7362sl", "7412", "7430", "7490"}

func (b *Box) nand() bool {
	for _, n := range nandBoards {
		if strings.Contains(b.opt.Board, n) {
			return true
		}
	}
	return false
}

// target is the build that the board belongs to (facts eva 3.2).
func (b *Box) target() string {
	name := strings.TrimPrefix(b.opt.Board, "avm,")
	switch {
	case strings.HasPrefix(name, "fritzbox-"), strings.HasPrefix(name, "fritzrepeater-"), name == b.opt.Board:
		return "ipq40xx/generic"
	case name == "fritz4020", name == "fritzdvbc", strings.HasSuffix(name, "0e"):
		return "ath79/generic"
	case name == "fritz7312", name == "fritz7320":
		return "lantiq/xway"
	}
	return "lantiq/xrx200"
}

func (s *system) parts(volumes bool) []Part {
	if s.b.opt.Chip == nil {
		return nil
	}
	var out []Part
	for _, p := range s.b.opt.Chip.Parts() {
		if p.Volume == volumes {
			out = append(out, p)
		}
	}
	return out
}

func (s *system) procMTD() string {
	text := "dev:    size   erasesize  name\n"
	erase := 0x10000
	if s.b.nand() {
		erase = 0x20000
	}
	for n, p := range s.parts(false) {
		text += fmt.Sprintf("mtd%d: %08x %08x %q\n", n, p.Size, erase, p.Name)
	}
	return text
}

// mtdProgram is mtd: write and erase, by a partition's name (OpenWrt
// package/system/mtd).
func (s *system) mtdProgram(p *ash.Proc, args []string) int {
	a := args[1:]
	for len(a) > 0 && strings.HasPrefix(a[0], "-") && len(a[0]) > 1 {
		if strings.Contains("-d-l-t-e-j-s", a[0]) && len(a) > 1 {
			a = a[1:]
		}
		a = a[1:]
	}
	fail := func(format string, v ...any) int {
		fmt.Fprintf(p.Stderr(), format+"\n", v...)
		return 1
	}
	verb, name, image := "", "", ""
	switch {
	case len(a) == 3 && a[0] == "write":
		verb, image, name = a[0], a[1], a[2]
	case len(a) == 2 && a[0] == "erase":
		verb, name = a[0], a[1]
	default:
		return fail("Usage: mtd [<options> ...] <command> [<arguments> ...] <device>[:<device>...]")
	}
	var data []byte
	if verb == "write" {
		var err error
		if image == "-" {
			data, err = io.ReadAll(p.Stdin())
		} else {
			data, err = s.fs.ReadFile(p.Path(image))
		}
		if err != nil {
			return fail("Couldn't open image file: %s!", image)
		}
	}
	part, ok := Part{}, false
	for _, x := range s.parts(false) {
		if x.Name == name {
			part, ok = x, true
		}
	}
	switch {
	case !ok || part.Locked:
		return fail("Could not open mtd device: %s\nCan't open device for writing!", name)
	case int64(len(data)) > part.Size:
		return fail("Image too large: %s", name)
	}
	fmt.Fprintf(p.Stderr(), "Unlocking %s ...\n\n", name)
	if err := s.b.opt.Chip.Write(name, data); err != nil {
		return fail("Failed to write %s: %s", name, err)
	}
	if verb == "write" {
		fmt.Fprintf(p.Stderr(), "Writing from %s to %s ...     \n", image, name)
	}
	p.Check()
	return 0
}

// ubirmvolProgram removes a volume by its name (mtd-utils).
func (s *system) ubirmvolProgram(p *ash.Proc, args []string) int {
	name, dev := "", ""
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case strings.HasPrefix(a, "--name="):
			name = strings.TrimPrefix(a, "--name=")
		case (a == "-N" || a == "--name") && i+1 < len(args):
			i++
			name = args[i]
		case !strings.HasPrefix(a, "-"):
			dev = a
		}
	}
	if dev != "/dev/ubi0" || name == "" {
		fmt.Fprintln(p.Stderr(), "ubirmvol: error!: UBI device name was not specified (use -h for help)")
		return 255
	}
	for _, v := range s.parts(true) {
		if v.Name != name {
			continue
		}
		if err := s.b.opt.Chip.Remove(name); err != nil {
			fmt.Fprintf(p.Stderr(), "ubirmvol: error!: cannot UBI remove volume\n          %s\n", err)
			return 255
		}
		return 0
	}
	fmt.Fprintf(p.Stderr(), "ubirmvol: error!: cannot find UBI volume \"%s\"\n", name)
	return 255
}

// ubinfoProgram lists ubi0 (mtd-utils): with -a its volumes, too.
func (s *system) ubinfoProgram(p *ash.Proc, args []string) int {
	vols := s.parts(true)
	w := p.Stdout()
	fmt.Fprintf(w, "ubi0\nVolumes count:                           %d\n", len(vols))
	if len(args) > 1 && args[1] == "-a" {
		for n, v := range vols {
			fmt.Fprintf(w, "-----------------------------------\nVolume ID:   %d (on ubi0)\nType:        dynamic\nSize:        %d bytes\nState:       OK\nName:        %s\n", n, v.Size, v.Name)
		}
	}
	return 0
}

// tffsProgram is fritz_tffs_nand: a variable of the bootloader's environment
// (OpenWrt package/utils/fritz-tools).
func (s *system) tffsProgram(p *ash.Proc, args []string) int {
	name, all := "", false
	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "-n":
			if i+1 < len(args) {
				i++
				name = args[i]
			}
		case "-a":
			all = true
		case "-d":
			i++
		}
	}
	if all || name == "" || s.b.opt.Chip == nil {
		fmt.Fprintln(p.Stderr(), "usage: fritz_tffs_nand [-d device] {-a | -n name}")
		return 1
	}
	v, ok := s.b.opt.Chip.Env(name)
	if !ok {
		fmt.Fprintln(p.Stderr(), "no tffs entry found")
		return 1
	}
	fmt.Fprintln(p.Stdout(), v)
	return 0
}

// makers of NAND flash by the first byte of the chip's identity, as the kernel
// names them (Linux drivers/mtd/nand/raw/nand_ids.c).
var makers = map[string]string{"C2": "Macronix", "98": "Toshiba", "2C": "Micron", "AD": "Hynix", "EC": "Samsung", "01": "AMD/Spansion"}

// dmesgProgram is the kernel's log: what it says of the flash at the start, then
// what the system log has of it.
func (s *system) dmesgProgram(p *ash.Proc, args []string) int {
	if s.b.nand() {
		id := "2CF1809504"
		if s.b.opt.Chip != nil {
			if v, ok := s.b.opt.Chip.Env("nand"); ok {
				id = v
			}
		}
		fmt.Fprintf(p.Stdout(), "[    1.204000] nand: device found, Manufacturer ID: 0x%s, Chip ID: 0x%s\n[    1.210000] nand: %s NAND 128MiB 3,3V 8-bit\n[    1.214000] nand: 128 MiB, SLC, erase size: 128 KiB, page size: 2048, OOB size: 64\n",
			strings.ToLower(id[:2]), strings.ToLower(id[2:4]), makers[strings.ToUpper(id[:2])])
	}
	return s.logreadProgram(p, args)
}
