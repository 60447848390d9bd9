package device

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/heimweg/heimweg/internal/lab/owrt"
)

// flash is the chip as a running system sees it: owrt.Chip. The bootloader's
// partitions are evabox's; the volumes of ubi0 are kept here.
type flash struct {
	d *Box

	mu    sync.Mutex
	ubi   map[string][]byte
	n     int    // writings of a firmware from a system
	image []byte // being written
}

func newFlash(d *Box) *flash {
	f := &flash{d: d, ubi: map[string][]byte{}}
	if d.kind.chain == fetch {
		f.ubi["avm_filesys_0"], f.ubi["avm_filesys_1"] = nil, nil
	}
	return f
}

// id is the NAND chip's identity.
func (f *flash) id() string {
	if f.d.opt.NAND != "" {
		return f.d.opt.NAND
	}
	if _, id, ok := strings.Cut(f.d.EVA.Env("HardwareFeatures"), "nand=0x"); ok {
		return id
	}
	return "2CF1809504"
}

func (f *flash) volume(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.ubi[name]
	return v, ok
}

// volumes is what U-Boot finds in ubi0.
func (f *flash) volumes() program {
	kernel, _ := f.volume("kernel")
	root, _ := f.volume("rootfs")
	p := f.d.fromFIT(kernel, f.d.ours())
	if p.what != OpenWrt || !squashfs(root) {
		return nothing
	}
	p.release = f.d.release(root, kernel)
	return p
}

// writings counts how often the firmware was written, by the bootloader or by a
// system.
func (f *flash) writings() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.n
	for _, s := range f.d.EVA.Stores() {
		if strings.HasPrefix(s, "mtd") {
			n++
		}
	}
	return n
}

// place says which of the bootloader's partitions is behind a name of OpenWrt's.
// Partitions that nothing here starts from are read-only, as in the device trees.
type place struct {
	name, mtd string
	size      int64
}

var places = map[chain][]place{
	one:    {{"urlader", "", 0x20000}, {"firmware", "mtd1", 0}, {"tffs (1)", "", 0x40000}, {"tffs (2)", "", 0x40000}},
	behind: {{"urlader", "", 0x120000}, {"tffs1", "", 0x80000}, {"tffs2", "", 0x80000}, {"uboot", "", 0x80000}, {"firmware", "", 0x1c60000}, {"jffs2", "", 0x100000}},
	two:    {{"kernel", "mtd1", 0}, {"ubi", "", 0x3000000}, {"urlader", "", 0x20000}, {"tffs (1)", "", 0x10000}, {"tffs (2)", "", 0x10000}},
	ram:    {{"kernel", "mtd1", 0}, {"tffs", "", 0x200000}, {"ubi", "", 0x7000000}, {"urlader", "", 0x40000}},
	fetch:  {{"urlader", "", 0x2c0000}, {"nand-tffs", "", 0x840000}, {"uboot0", "mtd1", 0}, {"uboot1", "mtd4", 0}, {"ubi", "", 0x6d00000}},
}

// Parts lists partitions and volumes.
func (f *flash) Parts() []owrt.Part {
	var out []owrt.Part
	for _, p := range places[f.d.kind.chain] {
		if p.mtd != "" {
			p.size = f.d.EVA.Size(p.mtd)
		}
		out = append(out, owrt.Part{Name: p.name, Size: p.size, Locked: p.mtd == ""})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for n := range f.ubi {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		out = append(out, owrt.Part{Name: n, Size: max(int64(len(f.ubi[n])), 0x1f000), Volume: true})
	}
	return out
}

// Write writes a partition.
func (f *flash) Write(part string, data []byte) error {
	for _, p := range places[f.d.kind.chain] {
		if p.name == part && p.mtd != "" && f.d.EVA.Program(p.mtd, data) {
			return nil
		}
	}
	return errors.New("I/O error")
}

// Remove takes a volume away.
func (f *flash) Remove(volume string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ubi, volume)
	return nil
}

// Env is the bootloader's environment; "nand" is the chip's identity, for the
// kernel's log.
func (f *flash) Env(name string) (string, bool) {
	if name == "nand" {
		return f.id(), true
	}
	v := f.d.EVA.Env(name)
	return v, v != ""
}

// preload writes what the bootloader or sysupgrade would have been given.
func (f *flash) preload(image []byte) {
	f.mu.Lock()
	f.n++
	f.mu.Unlock()
	if f.d.kind.chain == behind {
		f.d.EVA.Program("mtd1", image)
		return
	}
	f.put(image, false)
}

// begin is sysupgrade's first byte: from now until finish there is half an image.
func (f *flash) begin(image []byte) error {
	f.mu.Lock()
	f.image = image
	f.n++
	_, full := f.ubi["avm_filesys_0"]
	f.mu.Unlock()
	if full && f.d.kind.chain == fetch {
		return errors.New("ubimkvol: error!: cannot UBI create volume: No space left on device")
	}
	f.put(image, true)
	return nil
}

// finish completes what begin began, and reports whether there was anything.
func (f *flash) finish() bool {
	f.mu.Lock()
	image := f.image
	f.image = nil
	f.mu.Unlock()
	if image != nil {
		f.put(image, false)
	}
	return image != nil
}

// put writes the firmware where it belongs, or half of it.
func (f *flash) put(image []byte, half bool) {
	cut := func(p []byte) []byte {
		if half {
			p = p[:len(p)/2]
		}
		return slices.Clone(p)
	}
	switch f.d.kind.chain {
	case one:
		f.d.EVA.Program("mtd1", cut(image))
		return
	case behind: // U-Boot in front of it stays
		all := f.d.EVA.Flash("mtd1")
		all = slices.Concat(all[:min(len(all), 0x80000)], cut(image))
		f.d.EVA.Program("mtd1", all)
		return
	}
	files := archive(image)
	kernel, root := cut(files["kernel"]), cut(files["root"])
	f.mu.Lock()
	f.ubi["rootfs"] = root
	f.ubi["rootfs_data"] = nil
	if f.d.kind.chain == fetch {
		f.ubi["kernel"] = kernel
	}
	f.mu.Unlock()
	if f.d.kind.chain != fetch {
		f.d.EVA.Program("mtd1", kernel)
	}
}
