package owrt

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/router"
)

// upgraded boots a box, puts an image into its RAM, runs a command and waits for
// the box to come back.
func upgraded(t *testing.T, b *Box, image []byte, script string) (said string) {
	t.Helper()
	before := b.Boots()
	b.FS().WriteFile("/tmp/x.bin", image, 0o600)
	_, said, _ = b.Sh(script)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); b.On() && b.Boots() == before; <-tick.C {
		if time.Since(start) > time.Minute {
			t.Fatalf("the box did not start again: %s", said)
		}
	}
	for tries := 0; b.On(); tries++ { // a boot that the power ends is never through
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := b.WaitBoot(ctx)
		cancel()
		if err == nil {
			break
		} else if tries > 3 {
			t.Fatal(err)
		}
	}
	return said
}

func bubble(t *testing.T, o Options, f func(t *testing.T, b *Box)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, o)
		defer b.Close()
		f(t, b)
		if u := b.Unknown(); len(u) > 0 {
			t.Errorf("not emulated: %v", u)
		}
	})
}

func read(t *testing.T, b *Box, name string) string {
	t.Helper()
	text, err := b.ReadFile(name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return text
}

var image2512 = imagetest.Options{Version: "25.12.5", Compat: "1.1"}

// Settings on the keep lists survive, packages and everything else do not.
func TestUpgradeKeeps(t *testing.T) {
	bubble(t, Options{Line: router.Line2410}, func(t *testing.T, b *Box) {
		key := read(t, b, "/etc/dropbear/dropbear_ed25519_host_key")
		if _, errs, st := b.Sh(`
mkdir -p /etc/heimweg /etc/own; echo kept >/etc/heimweg/written.json; echo lost >/etc/heimweg/undo; echo own >/etc/own/a
echo /etc/heimweg/written.json >>/etc/sysupgrade.conf; echo /etc/own/ >>/etc/sysupgrade.conf
uci set system.@system[0].hostname=alps; uci commit system
/etc/init.d/odhcpd disable
echo lost >/root/note; echo lost >/etc/stray; sed -i 's/^root::/root:$5$x:/' /etc/shadow; echo 'extra:x:100:100::/:/bin/false' >>/etc/passwd
mkdir -p /usr/bin; echo x >/usr/bin/wg`); st != 0 {
			t.Fatal(errs)
		}
		said := upgraded(t, b, imagetest.Sysupgrade(image2512), "sysupgrade /tmp/x.bin")
		if !strings.Contains(said, "Commencing upgrade") {
			t.Errorf("it said %q", said)
		}
		if b.Line() != router.Line2512 || b.Version() != "25.12.5" {
			t.Errorf("it runs %s", b.Version())
		}
		out, _, _ := b.Sh("ubus call system board | jsonfilter -e '@.release.version'; uci get system.@system[0].hostname; cat /etc/heimweg/written.json /etc/own/a; " +
			"ls /root/note /etc/stray /etc/heimweg/undo /usr/bin/wg 2>/dev/null; grep -c extra /etc/passwd; grep ^root: /etc/shadow; ls /etc/rc.d | grep -c odhcpd; ls /sysupgrade.tgz /tmp/x.bin 2>/dev/null; which apk")
		want := "25.12.5\nalps\nkept\nown\n1\nroot:$5$x:0:0:99999:7:::\n0\n/usr/bin/apk\n"
		if out != want {
			t.Errorf("got:\n%s\nwant:\n%s", out, want)
		}
		if read(t, b, "/etc/dropbear/dropbear_ed25519_host_key") != key {
			t.Error("the host key is another one")
		}
	})
}

// With -n everything is as fresh from the image; with -n and -f only what the
// archive holds is kept, whatever the settings' format.
func TestUpgradeFresh(t *testing.T) {
	for _, c := range []struct {
		name, script string
		kept         bool
	}{
		{"nothing", "sysupgrade -n /tmp/x.bin", false},
		{"an archive", "cd / && tar -czf /tmp/few.tgz etc/dropbear && sysupgrade -n -f /tmp/few.tgz /tmp/x.bin", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, Options{Line: router.Line2203}, func(t *testing.T, b *Box) {
				key := read(t, b, "/etc/dropbear/dropbear_ed25519_host_key")
				b.Sh("uci set system.@system[0].hostname=alps; uci commit system; sync")
				upgraded(t, b, imagetest.Sysupgrade(image2512), c.script)
				if b.Version() != "25.12.5" {
					t.Errorf("it runs %s", b.Version())
				}
				if got := read(t, b, "/etc/dropbear/dropbear_ed25519_host_key") == key; got != c.kept {
					t.Errorf("host key kept: %v", got)
				}
				if out, _, _ := b.Sh("uci get system.@system[0].hostname; uci get network.@device[0].ports"); out != "OpenWrt\nlan1 lan2 lan3 lan4\n" {
					t.Errorf("got %q", out)
				}
			})
		})
	}
}

// What sysupgrade -T says, rule by rule (facts eva.md 4.5).
func TestUpgradeRefuses(t *testing.T) {
	good := imagetest.Sysupgrade(image2512)
	damaged := append([]byte(nil), good...)
	damaged[1000] ^= 1
	for _, c := range []struct {
		name  string
		line  router.Line
		image []byte
		args  string
		says  string // "" for yes
	}{
		{"right", router.Line2410, good, "", ""},
		{"same format", router.Line2305, good, "", ""},
		{"another format", router.Line2203, good, "", "config is incompatible to the new image (1.0->1.1)"},
		{"another format, nothing kept", router.Line2203, good, "-n", ""},
		{"another format, never mind", router.Line2203, good, "--ignore-minor-compat-version", ""},
		{"another board", router.Line2410, imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritzbox-7530", Compat: "1.1"}), "-n", "Device avm,fritzbox-4040 not supported by this image"},
		{"another flash layout", router.Line2410, imagetest.Sysupgrade(imagetest.Options{Compat: "2.0"}), "-n", "incompatible for sysupgrade based on the image version (1.1->2.0)"},
		{"damaged", router.Line2410, damaged, "", "Image metadata not present"},
		{"no metadata", router.Line2410, imagetest.EVA(image2512), "", "Image metadata not present"},
		{"forced", router.Line2410, damaged, "-F", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, Options{Line: c.line}, func(t *testing.T, b *Box) {
				b.FS().WriteFile("/tmp/x.bin", c.image, 0o600)
				_, said, st := b.Sh("sysupgrade -T " + c.args + " /tmp/x.bin")
				if (st == 0) != (c.says == "") || !strings.Contains(said, c.says) {
					t.Errorf("exit %d: %s", st, said)
				}
				if b.Boots() != 1 {
					t.Error("a test started the box again")
				}
			})
		})
	}
}

// Where the power goes decides what is left: the old system, nothing that
// starts, or the new one without settings.
func TestUpgradePowerCut(t *testing.T) {
	for _, c := range []struct {
		at, want string
		broken   bool
		kept     bool
	}{
		{"firmware", "24.10.8", false, true},
		{"half of firmware", "", true, false},
		{"settings", "25.12.5", false, false},
	} {
		t.Run(c.at, func(t *testing.T) {
			bubble(t, Options{Line: router.Line2410}, func(t *testing.T, b *Box) {
				b.Sh("uci set system.@system[0].hostname=alps; uci commit system; sync")
				b.SetHook(func(e Event) Action {
					if e.Kind == Flashing && e.Path == c.at {
						return PowerCut
					}
					return Continue
				})
				upgraded(t, b, imagetest.Sysupgrade(image2512), "sysupgrade /tmp/x.bin")
				b.SetHook(nil)
				b.PowerOn()
				if b.Broken() != c.broken {
					t.Fatalf("broken: %v", b.Broken())
				}
				if c.broken {
					b.PowerCut()
					b.Reflash() // by the boot loader
					b.PowerOn()
					c.want = "24.10.8"
				}
				if err := b.WaitBoot(context.Background()); err != nil {
					t.Fatal(err)
				}
				if b.Version() != c.want {
					t.Errorf("it runs %s", b.Version())
				}
				out, _, _ := b.Sh("uci get system.@system[0].hostname")
				if kept := out == "alps\n"; kept != c.kept {
					t.Errorf("its name is %q", out)
				}
			})
		})
	}
}

// Until the boot is through, what came over the upgrade is unpacked again at
// the next start, over what was written meanwhile.
func TestUpgradeUnpacksTwice(t *testing.T) {
	bubble(t, Options{Line: router.Line2410}, func(t *testing.T, b *Box) {
		n := 0
		b.SetHook(func(e Event) Action {
			if e.Kind == Before && b.Boots() == 2 && n == 0 && len(e.Argv) > 1 && e.Argv[0] == "/sbin/.service" && e.Argv[1] == "done" {
				n++
				b.Sh("uci set system.@system[0].hostname=hasty; uci commit system; sync")
				return PowerCutAndReboot
			}
			return Continue
		})
		b.Sh("uci set system.@system[0].hostname=alps; uci commit system; sync")
		upgraded(t, b, imagetest.Sysupgrade(image2512), "sysupgrade /tmp/x.bin")
		synctest.Wait()
		if err := b.WaitBoot(context.Background()); err != nil {
			t.Fatal(err)
		}
		if out, _, _ := b.Sh("uci get system.@system[0].hostname; ls /sysupgrade.tgz"); out != "alps\n" || n != 1 {
			t.Errorf("got %q after %d cuts", out, n)
		}
	})
}

// RAM is not endless.
func TestUpgradeNoRoom(t *testing.T) {
	image := imagetest.Sysupgrade(image2512)
	bubble(t, Options{Line: router.Line2410, Memory: int64(len(image)) - 1}, func(t *testing.T, b *Box) {
		if err := b.FS().WriteFile("/tmp/x.bin", image, 0o600); err == nil {
			t.Error("an image larger than RAM went in")
		}
		if err := b.FS().WriteFile("/etc/x.bin", make([]byte, len(image)+1), 0o600); err != nil {
			t.Errorf("the limit of RAM holds for flash, too: %v", err)
		}
	})
}

// Packages that an image brings are there at once and take no room on flash.
func TestUpgradePackagesInside(t *testing.T) {
	for _, line := range []router.Line{router.Line2410, router.Line2512} {
		t.Run(line.String(), func(t *testing.T) {
			bubble(t, Options{Line: router.Line2305}, func(t *testing.T, b *Box) {
				image := WithPackages(imagetest.Sysupgrade(imagetest.Options{Version: lastVersion[line], Compat: "1.1"}), "wireguard-tools")
				upgraded(t, b, image, "sysupgrade /tmp/x.bin")
				out, errs, _ := b.Sh("wg show && echo yes; ubus call network get_proto_handlers | grep -c wireguard; " + map[bool]string{true: "apk info -e", false: "opkg list-installed"}[line == router.Line2512] + " wireguard-tools")
				if !strings.HasPrefix(out, "yes\n1\nwireguard-tools") {
					t.Errorf("got %q %q", out, errs)
				}
				if used := b.FS().Used(); used > 50_000 {
					t.Errorf("%d bytes of flash are in use", used)
				}
			})
		})
	}
}

func TestParseImage(t *testing.T) {
	i, err := ParseImage(WithPackages(imagetest.Sysupgrade(imagetest.Options{Version: "24.10.8", Compat: "1.1", Signed: true}), "nano", "wireguard-tools"))
	text, _ := json.Marshal(i)
	if want := `{"Boards":["avm,fritzbox-4040","fritz4040"],"Compat":"1.1","Message":"Config cannot be migrated from swconfig to DSA","Version":"24.10.8","Line":{"Year":24,"Month":10},"Packages":["nano","wireguard-tools"]}`; err != nil || string(text) != want {
		t.Errorf("got %s %v", text, err)
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add(imagetest.Sysupgrade(imagetest.Options{Kernel: 100, Root: 100}))
	f.Add([]byte("FWx0"))
	f.Fuzz(func(t *testing.T, p []byte) { ParseImage(p) })
}
