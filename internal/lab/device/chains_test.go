package device

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// upgrade runs in the background, since it ends every session; -F because a system
// in memory may be the one for another maker's NAND.
const upgrade = "(sleep 1; sysupgrade -n -F /tmp/fw.bin) >/dev/null 2>&1 </dev/null &"

// A and C: the bootloader writes everything that starts.
func TestWrittenByTheBootloader(t *testing.T) {
	kernel := imagetest.EVAKernel(imagetest.Options{Board: "avm,fritz3370-rev2-micron", Version: "24.10.7"})
	fs := imagetest.EVAFileSystem(imagetest.Options{Board: "avm,fritz3370-rev2-micron", Version: "24.10.7"})
	for _, c := range []struct {
		name, model, board string
		nand               string
		env                map[string]string
		files              []any
		want               string
	}{
		{"450E", "450E", "avm,fritz450e", "", nil, []any{"mtd1", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz450e", Version: "24.10.7"})}, OpenWrt},
		{"7320", "7320", "avm,fritz7320", "", nil, []any{"mtd1", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7320", Version: "24.10.7"})}, OpenWrt},
		{"7320 before 22.03", "7320", "avm,fritz7320", "", nil, []any{"mtd1", imagetest.SysupgradeOld(imagetest.Options{Board: "avm,fritz7320", Version: "24.10.7"})}, OpenWrt},
		{"3370", "3370", "avm,fritz3370-rev2-micron", "", map[string]string{"linux_fs_start": "0"}, []any{"mtd1", kernel, "mtd0", fs}, OpenWrt},
		{"3370 with the other set", "3370", "", "", nil, []any{"mtd1", kernel, "mtd0", fs}, Stock},
		{"3370 without its file system", "3370", "", "", map[string]string{"linux_fs_start": "0"}, []any{"mtd1", kernel}, RedLight},
		{"3370 with Hynix' NAND", "3370", "", "ADF1809541", map[string]string{"linux_fs_start": "0"}, []any{"mtd1", kernel, "mtd0", fs}, RedLight},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newBench(t, c.model, func(o *Options) { o.EVA.Env, o.NAND = c.env, c.nand })
				p.flash(c.files...)
				p.wait(c.want)
				if c.want != OpenWrt {
					return
				}
				if got := p.must(version, nil); got != "24.10.7\n"+c.board+"\nsquashfs\n" {
					t.Errorf("runs %q", got)
				}
			})
		})
	}
}

// D: a system in memory writes the flash. It forgets everything, tells the NAND's
// maker, and sysupgrade's release is what starts.
func TestWrittenFromMemory(t *testing.T) {
	for _, c := range []struct {
		name, model, board, ram, nand string
		want                          string
	}{
		{"7490, Micron", "7490", "avm,fritz7490-micron", "avm,fritz7490-micron", "2CF1809504", OpenWrt},
		{"7490, Hynix", "7490", "avm,fritz7490", "avm,fritz7490-micron", "ADF1809541", OpenWrt},
		{"7490, wrong maker's image", "7490", "avm,fritz7490", "avm,fritz7490", "2CF1809504", RedLight},
		{"7412", "7412", "avm,fritz7412", "avm,fritz7412", "", OpenWrt},
		{"7412, other set", "7412", "avm,fritz7412", "avm,fritz7412", "", RedLight},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newBench(t, c.model, func(o *Options) { o.NAND = c.nand })
				initramfs := imagetest.Initramfs(imagetest.Options{Board: c.ram, Version: "24.10.7"})
				var env []string
				if !strings.HasSuffix(c.name, "other set") {
					env = []string{"linux_fs_start 0"}
				}
				p.start(initramfs, env...)
				p.wait(InMemory)
				if got := p.must(version, nil); got != "24.10.7\n"+c.ram+"\ninitramfs\n" {
					t.Errorf("runs %q", got)
				}
				maker := map[string]string{"2C": "nand: Micron ", "AD": "nand: Hynix "}[c.nand[:min(2, len(c.nand))]]
				look := p.must("cat /proc/mounts /proc/mtd; dmesg | grep nand:; fritz_tffs_nand -d /dev/mtd1 -n linux_fs_start", nil)
				for _, want := range []string{"tmpfs / tmpfs", `"kernel"`, maker} {
					if !strings.Contains(look, want) {
						t.Errorf("no %q in\n%s", want, look)
					}
				}
				if strings.Contains(look, "/overlay") {
					t.Errorf("an overlay in memory:\n%s", look)
				}
				p.must("cat >/etc/mine; sync", []byte("x"))
				p.Power(false) // nothing of it is on flash
				p.Power(true)
				p.wait(Stock)
				p.Power(false)
				p.start(initramfs)
				p.wait(InMemory)
				if out, err := p.sh("cat /etc/mine", nil); err == nil {
					t.Errorf("outlived the power cut: %q", out)
				}
				image := imagetest.Sysupgrade(imagetest.Options{Board: c.board, Version: "25.12.5"})
				p.must("cat >/tmp/fw.bin", image)
				p.must(upgrade, nil)
				p.wait(c.want)
				if c.want != OpenWrt {
					// The bootloader is as it was.
					p.Power(false)
					p.start(initramfs)
					p.wait(InMemory)
					return
				}
				if got := p.must(version, nil); got != "25.12.5\n"+c.board+"\nsquashfs\n" && c.board == c.ram {
					t.Errorf("runs %q", got)
				}
				p.must("uci set system.@system[0].hostname=Annex; uci commit; sync", nil)
				p.Power(false)
				p.start(initramfs) // a look from memory leaves the flash alone
				p.wait(InMemory)
				p.Power(false)
				p.Power(true)
				p.wait(OpenWrt)
				if got := p.must("uci get system.@system[0].hostname", nil); got != "Annex\n" {
					t.Errorf("hostname %q", got)
				}
			})
		})
	}
}

// E: U-Boot in memory asks for its own file until somebody serves it; the system it
// starts writes U-Boot twice, makes room, and installs.
func TestFetchedByUBoot(t *testing.T) {
	for _, c := range []struct{ model, uboot, file string }{{"7530", "FRITZ7530", "FRITZ7530.bin"}, {"7520", "FRITZ7520", "FRITZ7520.bin"}, {"7520", "FRITZ7530", "FRITZ7530.bin"}} {
		t.Run(c.model+" "+c.uboot, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newBench(t, c.model, nil)
				board := "avm,fritzbox-7530"
				initramfs := imagetest.Initramfs(imagetest.Options{Board: board, Version: "24.10.7"})
				asked := p.serveTFTP(c.file, initramfs)
				uboot := imagetest.UBoot(c.uboot)
				p.start(uboot)
				p.wait(UBoot)
				p.wait(InMemory)
				if a := asked(); !slices.Contains(a, c.file) {
					t.Errorf("asked for %q", a)
				}
				look := p.must(version+"; cat /proc/mtd; ubinfo -a; dmesg", nil)
				for _, want := range []string{"24.10.7\n" + board + "\ninitramfs\n", `00400000 00020000 "uboot0"`, `"uboot1"`, "avm_filesys_0", "avm_filesys_1", "Manufacturer ID: 0xc2", "nand: Macronix"} {
					if !strings.Contains(look, want) {
						t.Errorf("no %q in\n%s", want, look)
					}
				}
				image := imagetest.Sysupgrade(imagetest.Options{Board: board, Version: "24.10.7"})
				p.must("cat >/tmp/uboot; for p in uboot0 uboot1; do mtd write /tmp/uboot $p; done", uboot)
				for _, part := range []string{"mtd1", "mtd4"} {
					if !bytes.Equal(p.EVA.Flash(part), uboot) {
						t.Errorf("%s holds %d bytes", part, len(p.EVA.Flash(part)))
					}
				}
				for _, no := range []string{"mtd write /tmp/uboot urlader", "mtd write /tmp/uboot nosuch", "mtd write /tmp/nosuch uboot0", "ubirmvol /dev/ubi0 --name=nosuch", "fritz_tffs_nand -d /dev/mtd1 -n nosuch"} {
					if out, err := p.sh(no, nil); err == nil || out == "" {
						t.Errorf("%s: %q, %v", no, out, err)
					}
				}
				p.must("ubirmvol /dev/ubi0 --name=avm_filesys_0; ubirmvol /dev/ubi0 --name=avm_filesys_1", nil)
				p.must("cat >/tmp/fw.bin", image)
				p.must(upgrade, nil)
				p.wait(OpenWrt)
				if got := p.must(version, nil); got != "24.10.7\n"+board+"\nsquashfs\n" {
					t.Errorf("runs %q", got)
				}
				if p.EVA.Bricked() {
					t.Error("the bootloader was overwritten")
				}
			})
		})
	}
}

// Without room in the NAND sysupgrade fails, and U-Boot fetches again at the next
// start: the box is not lost.
func TestNoRoomBesideAVMsVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBench(t, "7530", nil)
		p.serveTFTP("FRITZ7530.bin", imagetest.Initramfs(imagetest.Options{Board: "avm,fritzbox-7530"}))
		uboot := imagetest.UBoot("FRITZ7530")
		p.start(uboot)
		p.wait(InMemory)
		p.must("cat >/tmp/uboot; mtd write /tmp/uboot uboot0 && mtd write /tmp/uboot uboot1", uboot)
		p.must("cat >/tmp/fw.bin", imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritzbox-7530"}))
		p.must(upgrade, nil)
		<-time.After(time.Minute)
		synctest.Wait()
		p.Power(false)
		p.Power(true)
		p.wait(UBoot)
		p.wait(InMemory)
	})
}

// Every wrong image leaves a box that does not start and can be flashed again.
func TestWrongImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBench(t, "4040", func(o *Options) {
			o.EVA.Times = evabox.Times{Erase: time.Second, Rate: 1 << 30, Check: time.Second}
		})
		for _, m := range imagetest.Mistakes() {
			if len(m.File) == 0 || int64(len(m.File)) > p.EVA.Size("mtd1") {
				continue
			}
			p.flash("mtd1", m.File)
			switch m.Name {
			case "image with one flipped bit in the kernel", "image that is too large", "image and more behind it":
				// U-Boot checks the kernel's sums, which is not emulated; the others start.
			default:
				p.EVA.Wait(within(t, time.Hour), evabox.Running)
				if got := p.Runs(); got != RedLight {
					t.Errorf("%s: runs %q", m.Name, got)
				}
			}
			p.Power(false)
		}
		p.flash("mtd1", imagetest.EVA(imagetest.Options{}))
		p.wait(OpenWrt)
	})
}

// A power cut at any byte of the upload leaves a red light, or FRITZ!OS when nothing
// was erased yet, and a bootloader that takes the image the next time.
func TestPowerCutWhileWriting(t *testing.T) {
	image := imagetest.EVA(imagetest.Options{})
	for _, at := range []int64{1, 4000, 0x80000, 0x80001, int64(len(image)) / 2, int64(len(image)) - 1<<18} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newBench(t, "4040", func(o *Options) { o.EVA.Faults.PowerCutAt = at })
				f := p.hold()
				f.say("TYPE I", "200")
				f.say("MEDIA FLSH", "200")
				f.send("mtd1", image, "")
				p.EVA.Wait(within(t, time.Hour), evabox.Off)
				p.Power(false)
				p.EVA.Mend()
				p.Power(true)
				p.wait(RedLight)
				p.Power(false)
				p.flash("mtd1", image)
				p.wait(OpenWrt)
			})
		})
	}
}

// The switch is played with, at any moment of the boot: the box comes up as ever, and
// nothing is left running in a box without power.
func TestSwitchAtAnyMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBench(t, "4040", nil)
		p.Preload(imagetest.EVA(imagetest.Options{}))
		r := rand.New(rand.NewPCG(1, 2))
		for range 60 {
			p.Power(true)
			<-time.After(time.Duration(r.Int64N(int64(80 * time.Second))))
			p.Power(false)
			if up, _ := p.Link(); up || p.Router.On() || len(p.lan.Seen()) != 3 {
				t.Fatalf("without power: carrier %v, router %v, on the link %v", up, p.Router.On(), p.lan.Seen())
			}
			if r.IntN(2) == 0 {
				<-time.After(time.Second)
			}
		}
		p.Power(true)
		p.wait(OpenWrt)
		p.must("true", nil)
	})
}

// The power fails while sysupgrade writes: the box is red, and the bootloader takes
// an image.
func TestPowerCutInSysupgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBench(t, "4040", func(o *Options) { o.Router.FlashTime = time.Minute })
		image := imagetest.EVA(imagetest.Options{Version: "24.10.7"})
		p.flash("mtd1", image)
		p.wait(OpenWrt)
		next := imagetest.Sysupgrade(imagetest.Options{Version: "25.12.5", Kernel: 100_000, Root: 300_000})
		p.must("cat >/tmp/fw.bin", next)
		p.must(upgrade, nil)
		<-time.After(10 * time.Second)
		p.Power(false)
		p.Power(true)
		p.wait(RedLight)
		p.Power(false)
		p.flash("mtd1", image)
		p.wait(OpenWrt)
		p.must("uci set system.@system[0].hostname=Annex; uci commit; sync", nil)
		p.must("cat >/tmp/fw.bin", next)
		p.must(strings.Replace(upgrade, "-n ", "", 1), nil)
		p.EVA.Wait(within(t, time.Hour), evabox.Window)
		p.wait(OpenWrt)
		if got := p.must(version+"; uci get system.@system[0].hostname", nil); got != "25.12.5\navm,fritzbox-4040\nsquashfs\nAnnex\n" {
			t.Errorf("upgraded to %q", got)
		}
		if d := p.EVA.Flash("mtd1"); !bytes.Equal(d[:0x80000], image[:0x80000]) || !bytes.Equal(d[0x80000:], next) {
			t.Error("the flash does not hold U-Boot and the new image")
		}
	})
}
