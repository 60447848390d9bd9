package openwrt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
)

// A Place says where what is written to the root file system ends up.
type Place string

// The places. Where nothing is known, it is not called settled.
const (
	OnFlash   Place = "flash"             // the overlay is on flash: what is written stays
	OnRAM     Place = "ram, for a moment" // first boot: the flash is being formatted (mount_root)
	RAMSystem Place = "ram"               // a system that was started in RAM: nothing of it is on flash
	NotSeen   Place = ""
)

// A BootState is what a system that was just started says of itself.
type BootState struct {
	Board   router.Board
	Root    Place
	Waiting []string // scripts of the first boot that have not run yet (/etc/uci-defaults)
	HostKey bool     // the SSH server's own key is on the file system
	MTD     []string // names of the flash partitions
	// NAND says who made the NAND chip by the kernel's log: "Micron"; "" when the
	// log does not say.
	NAND string
	// FSStart is the bootloader's linux_fs_start where the system can read it
	// (fritz_tffs_nand; facts eva 3.1), "" where not.
	FSStart string
	// Trouble is what sysupgrade printed when it was started here and did not go on.
	Trouble string
}

// Settled reports whether the first boot is through: the overlay is on flash, the
// scripts of the first boot have run, the host key is there (facts openwrt: first
// boot finished).
func (b BootState) Settled() bool { return b.Root == OnFlash && len(b.Waiting) == 0 && b.HostKey }

// LookBoot asks a system that was just started what it is. It changes nothing.
// Errors: *NotOpenWrtError, *GarbledError, *JSONError, those of the shell.
func LookBoot(ctx context.Context, sh Shell) (BootState, error) {
	ps, err := run(ctx, sh, env{}, "boot_look", "boot-looked", nil, "ramboot.sh")
	if err != nil {
		return BootState{}, err
	}
	return readBoot(ps)
}

func readBoot(ps parts) (BootState, error) {
	s := BootState{Root: rootPlace(ps["mounts"].lines()), NAND: nandMaker(ps["nand"].text())}
	if ps["board"].exit != 0 || !strings.Contains(ps["release"].text(), "OpenWrt") {
		return s, &NotOpenWrtError{System: clip(ps["release"].text(), 80)}
	}
	var board struct {
		Model   string `json:"model"`
		Name    string `json:"board_name"`
		Release struct {
			Distribution, Version, Revision, Target string
		} `json:"release"`
	}
	if err := json.Unmarshal(ps["board"].out, &board); err != nil {
		return s, &JSONError{"ubus call system board", err}
	}
	s.Board = router.Board{Model: board.Model, Name: board.Name}
	s.Board.Release.Distribution, s.Board.Release.Version = board.Release.Distribution, board.Release.Version
	s.Board.Release.Revision, s.Board.Release.Target = board.Release.Revision, board.Release.Target
	if ps["defaults"].exit == 0 {
		s.Waiting = ps["defaults"].lines()
	}
	s.HostKey = strings.Contains(ps["keys"].text(), "host_key")
	for _, l := range ps["mtd"].lines() {
		if _, name, ok := strings.Cut(l, `"`); ok {
			s.MTD = append(s.MTD, strings.TrimSuffix(strings.TrimSpace(name), `"`))
		}
	}
	if p := ps["fsstart"]; p.exit == 0 {
		if v := strings.TrimPrefix(strings.TrimSpace(p.text()), "linux_fs_start="); v == "0" || v == "1" {
			s.FSStart = v
		}
	}
	if p := ps["trouble"]; p.exit == 0 {
		s.Trouble = clip(p.text(), 300)
	}
	return s, nil
}

// rootPlace reads /proc/mounts. A system from flash has a squashfs or a UBIFS
// below; its first boot puts the overlay in RAM until the flash is formatted
// ("jffs2 not ready yet, using temporary tmpfs overlay", OpenWrt fstools). One
// from RAM has neither.
func rootPlace(mounts []string) Place {
	place, fromFlash, any := NotSeen, false, false
	for _, l := range mounts {
		f := strings.Fields(l)
		if len(f) < 3 {
			continue
		}
		any = true
		switch {
		case f[1] == "/overlay" && f[2] != "tmpfs":
			fromFlash = true
		case f[1] == "/rom" || f[1] == "/" && (f[2] == "squashfs" || f[2] == "ubifs" || f[2] == "jffs2"):
			fromFlash = true
		case f[1] == "/" && f[2] == "overlay" && strings.HasPrefix(f[0], "overlayfs:/tmp"):
			place = OnRAM
		case f[1] == "/" && f[2] == "overlay":
			place = OnFlash
		}
	}
	switch {
	case place == OnRAM:
		return OnRAM
	case place == OnFlash && fromFlash:
		return OnFlash
	case any && !fromFlash && place == NotSeen:
		return RAMSystem
	}
	return NotSeen
}

var (
	nandID   = regexp.MustCompile(`Manufacturer ID: 0x([0-9a-fA-F]{2})`)
	nandName = regexp.MustCompile(`nand: (Micron|Hynix|Toshiba|Macronix|Samsung|Winbond|AMD/Spansion|ESMT|Eon|ST Micro|Fujitsu|National|Renesas) `)
)

// nandMakers are JEDEC's numbers as the kernel has them (Linux
// drivers/mtd/nand/raw/internals.h).
var nandMakers = map[int64]string{0x2c: "Micron", 0xad: "Hynix", 0x98: "Toshiba", 0xc2: "Macronix", 0xec: "Samsung", 0xef: "Winbond", 0x01: "AMD/Spansion", 0x20: "ST Micro"}

// nandMaker reads "nand: device found, Manufacturer ID: 0x2c, Chip ID: 0xf1" and
// "nand: Micron MT29F…" (Linux drivers/mtd/nand/raw/nand_base.c). A number that we
// do not know is a maker, too, only not by name.
func nandMaker(log string) string {
	if m := nandID.FindStringSubmatch(log); m != nil {
		n, _ := strconv.ParseInt(m[1], 16, 32)
		if name := nandMakers[n]; name != "" {
			return name
		}
		return "0x" + strings.ToLower(m[1])
	}
	if m := nandName.FindStringSubmatch(log); m != nil {
		return m[1]
	}
	return ""
}

// CopyTo puts a file into the router's RAM, as name below heimweg's own folder
// there, over standard input: a system in RAM has no sftp. What arrived is
// compared by its digest. Errors: *Refusal "copy", "nospace"; those of the shell.
func CopyTo(ctx context.Context, sh Shell, name string, content []byte) error {
	sum := sha256.Sum256(content)
	_, err := run(ctx, sh, env{"NAME": name, "SUM": hex.EncodeToString(sum[:])}, "boot_copy", "boot-copied", content, "ramboot.sh")
	return err
}

// WriteUBoot writes the U-Boot that CopyTo left under that name to both of its
// partitions and removes AVM's volumes from the NAND (facts eva 3.1, E). Errors:
// *Refusal "nouboot", "uboot"; those of the shell.
func WriteUBoot(ctx context.Context, sh Shell, name string) error {
	_, err := run(ctx, sh, env{"UBOOT": name}, "boot_uboot", "boot-written", nil, "ramboot.sh")
	return err
}

// InstallFromRAM hands the image that CopyTo left under that name to sysupgrade:
// first its own test, then the writing, in the background and without settings.
// The connection may end before the answer: that is how sysupgrade begins, and no
// error. Whether it worked shows what starts next. Errors: *Refusal "image" with
// what the test said; those of the shell before the script was sent.
func InstallFromRAM(ctx context.Context, sh Shell, name string) error {
	ps, err := run(ctx, sh, env{"IMAGE": name}, "boot_install", "boot-installs", nil, "ramboot.sh")
	var no *Refusal
	if errors.As(err, &no) && no.Code == "image" {
		no.Detail = clip(ps["test"].text(), 300)
	}
	var lost *shell.LostError
	if errors.As(err, &lost) && ctx.Err() == nil {
		return nil
	}
	return err
}

// RestartFromRAM ends a system in RAM; its bootloader has the next word. The
// connection may end before the answer.
func RestartFromRAM(ctx context.Context, sh Shell) error {
	_, err := run(ctx, sh, env{}, "boot_restart", "boot-restarts", nil, "ramboot.sh")
	var lost *shell.LostError
	if errors.As(err, &lost) && ctx.Err() == nil {
		return nil
	}
	return err
}
