package owrt

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/heimweg/heimweg/internal/router"
)

// A system in memory forgets everything at a restart, and without a chip its flash
// tools find nothing.
func TestSystemInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{Line: router.Line2410, RAM: true, Board: "avm,fritzbox-7530", Model: "AVM FRITZ!Box 7530"})
		defer b.Close()
		if out, _ := run(t, b, "echo x >/etc/mine; sync; ubus call system board | jsonfilter -e '@.rootfs_type'; cat /proc/mtd"); out != "initramfs\ndev:    size   erasesize  name\n" {
			t.Errorf("%q", out)
		}
		key := b.HostKey()
		b.PowerCycle()
		if err := b.WaitBoot(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ReadFile("/etc/mine"); err == nil || b.HostKey() == key || key == "" {
			t.Errorf("a file or the host key outlived the restart: %v, %q", err, key)
		}
		for _, no := range []string{"mtd write /bin/busybox uboot0", "mtd", "ubirmvol /dev/ubi0 --name=x", "ubirmvol /dev/ubi1 -N x", "fritz_tffs_nand -a"} {
			if out, code := run(t, b, no); code == 0 || out == "" {
				t.Errorf("%s: %q, %d", no, out, code)
			}
		}
		if u := b.Unknown(); len(u) > 0 {
			t.Errorf("unknown commands %q", u)
		}
	})
}

// Install is another release without settings; Restart is asked instead of a boot.
func TestInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{Line: router.Line2305})
		defer b.Close()
		run(t, b, "echo x >/etc/mine; sync")
		b.Shutdown()
		b.Install(Release{Line: router.Line2512})
		asked := 0
		b.Case(nil, func() { asked++ })
		b.PowerOn()
		if err := b.WaitBoot(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ReadFile("/etc/mine"); err == nil || b.Line() != router.Line2512 || b.Version() != lastVersion[router.Line2512] {
			t.Errorf("%v, runs %s", err, b.Version())
		}
		b.Reboot()
		if asked != 1 || b.On() {
			t.Errorf("asked %d times, on %v", asked, b.On())
		}
	})
}
