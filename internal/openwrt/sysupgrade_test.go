//go:build linux

package openwrt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/uci"
)

// upgradable gives a jail a sysupgrade that logs what it is told.
func upgradable(t *testing.T, stub string) *jail {
	j := newJail(t)
	j.write("bin/sysupgrade", "#!/bin/sh\necho \"sysupgrade $*\" >>/stub/log\n"+stub+"\n", 0o755)
	j.write("bin/start-stop-daemon", "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done; shift; sh \"$1\" </dev/null >/dev/null 2>&1 &\n", 0o755)
	return j
}

func image() []byte { return bytes.Repeat([]byte("\x00\xff\n@ image"), 100_000) }

func TestBusyboxUpload(t *testing.T) {
	j := upgradable(t, "")
	j.write("bin/df", "#!/bin/sh\nprintf 'Filesystem 1K-blocks Used Available Use%% Mounted on\\ntmpfs                   124288       160    124128   0%% /tmp\\n'\n", 0o755)
	img := bytes.Repeat(image(), 2) // four pieces
	var told []int
	if err := Upload(context.Background(), j, img, 0, func(n int) { told = append(told, n) }); err != nil {
		t.Fatal(err)
	}
	if got := j.read("tmp/heimweg/image"); got != string(img) {
		t.Errorf("%d bytes of %d arrived whole: %v", len(got), len(img), got == string(img))
	}
	if len(told) != (len(img)+pieceSize-1)/pieceSize || told[len(told)-1] != len(img) {
		t.Errorf("progress %v", told)
	}
	// What is there already is said, and only the rest follows.
	j.write("tmp/heimweg/image", string(img[:pieceSize]), 0o600)
	var have *UploadedError
	if err := Upload(context.Background(), j, img, 2*pieceSize, nil); !errors.As(err, &have) || have.Have != pieceSize {
		t.Fatalf("got %v", err)
	}
	if err := Upload(context.Background(), j, img, have.Have, nil); err != nil || j.read("tmp/heimweg/image") != string(img) {
		t.Errorf("going on: %v", err)
	}
	if err := Judge(context.Background(), j, SumOf(img), true); err != nil {
		t.Error(err)
	}
	if err := Judge(context.Background(), j, SumOf(img[1:]), true); refusalCode(err) != "damaged" {
		t.Errorf("another image: %v", err)
	}
	if log := j.read("stub/log"); log != "sysupgrade -T /tmp/heimweg/image\n" {
		t.Errorf("the router was told %q", log)
	}
}

func TestBusyboxUploadNoRoom(t *testing.T) {
	j := upgradable(t, "")
	j.write("bin/df", "#!/bin/sh\nprintf 'Filesystem 1K-blocks Used Available Use%% Mounted on\\ntmpfs                     1500       160      1340  10%% /tmp\\n'\n", 0o755)
	var room *RoomError
	if err := Upload(context.Background(), j, image(), 0, nil); !errors.As(err, &room) || room.FreeKB != 1340 || room.NeedKB != 976 {
		t.Errorf("got %v", err)
	}
}

func TestJudgeWords(t *testing.T) {
	for _, c := range []struct {
		said string
		want ImageTrouble
	}{
		{"Sat Nov 21 12:00:00 UTC 2026 upgrade: The device is supported, but the config is incompatible to the new image (1.0->1.1). Please upgrade without keeping config (sysupgrade -n).\nSat Nov 21 12:00:00 UTC 2026 upgrade: Config cannot be migrated from swconfig to DSA\nImage check failed.", ImageSettings},
		{"The device is supported, but this image is incompatible for sysupgrade based on the image version (1.0->2.0).", ImageLayout},
		{"x upgrade: Device avm,fritzbox-4040 not supported by this image\nx upgrade: Supported devices: avm,fritzbox-7530\nImage check failed.", ImageBoard},
		{"x upgrade: Image metadata not present\nx upgrade: Use sysupgrade -F to override this check when downgrading or flashing to vendor firmware\nImage check failed.", ImageDamaged},
		{"something new", ImageRefused},
	} {
		e := imageError(strings.Split(c.said, "\n"))
		if e.Trouble != c.want || len(e.Said) == 0 || strings.Contains(e.Said[0], "upgrade: ") {
			t.Errorf("%q: %+v", c.said, e)
		}
	}
}

func TestBusyboxGather(t *testing.T) {
	archive := "\x1f\x8b\x00@binary\n\n\x00"
	j := upgradable(t, `printf '\037\213\000@binary\n\n\000' >"$2"`)
	j.must(osMkdirAll(j, "rom/usr/lib/opkg", "usr/lib/opkg", "etc/heimweg"))
	j.write("rom/usr/lib/opkg/status", "Package: busybox\nVersion: 1\n\nPackage: dropbear\n", 0o644)
	j.write("usr/lib/opkg/status", "Package: busybox\nVersion: 1\n\nPackage: dropbear\n\nPackage: nano\nStatus: install user installed\n\nPackage: libncurses6\nStatus: install user installed\nAuto-Installed: yes\n\nPackage: wireguard-tools\n", 0o644)
	j.write("etc/heimweg/written.json", "{}\n", 0o600)
	b, err := Gather(context.Background(), j)
	if err != nil {
		t.Fatal(err)
	}
	if b.Archive.Reveal() != archive || b.Written != "{}\n" || !reflect.DeepEqual(b.Packages, []string{"nano", "wireguard-tools"}) {
		t.Errorf("got %q %q %q", b.Archive.Reveal(), b.Written, b.Packages)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v %s", b, b, b, b), "binary") {
		t.Error("the archive shows itself")
	}
	if j.exists("tmp/heimweg/keep.tgz") {
		t.Error("keys were left in the router's RAM")
	}
}

func TestBesides(t *testing.T) {
	got := besides([]string{"base-files", "luci", "nano", "tcpdump-mini>1.0", "wireguard-tools@edge", "nano", "htop"}, []string{"base-files", "luci", "htop"}, []string{"htop", "gone"})
	if want := []string{"htop", "nano", "tcpdump-mini", "wireguard-tools"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestBusyboxPutBack(t *testing.T) {
	j := upgradable(t, "")
	j.write("etc/init.d/dropbear", "#!/bin/sh\necho \"dropbear $*\" >>/stub/log\n", 0o755)
	r := Restored{
		Files: []PutFile{{"/etc/dropbear/authorized_keys", 0o600, uci.Hidden("ssh-ed25519 AAAA me\n")}, {"/etc/own/deep/a-b", 0o644, uci.V("x\n")}},
		Hash:  uci.Hidden("$6$salt$hash"),
	}
	if err := PutBack(context.Background(), j, r); err != nil {
		t.Fatal(err)
	}
	if j.read("etc/dropbear/authorized_keys") != "ssh-ed25519 AAAA me\n" || j.read("etc/own/deep/a-b") != "x\n" {
		t.Error("the files are not there")
	}
	if got := j.read("etc/shadow"); got != "root:$6$salt$hash:0:0:99999:7:::\ndaemon:*:0:0:99999:7:::\n" {
		t.Errorf("shadow: %q", got)
	}
	if j.exists("tmp/heimweg/in") {
		t.Error("secrets were left in the router's RAM")
	}
	for _, name := range []string{"etc/x", "/etc/a b", "/etc/$(reboot)", "/etc/../x", "/", ""} {
		var bad *NameError
		if err := PutBack(context.Background(), j, Restored{Files: []PutFile{{Name: name}}}); !errors.As(err, &bad) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestBusyboxCommence(t *testing.T) {
	u := Upgrade{Note: Note{ID: "run1", From: "24.10.7", To: "25.12.5"}, Sum: SumOf(image())}
	t.Run("goes down", func(t *testing.T) {
		// ubus is gone when sysupgrade asks it last, so its exit code says nothing.
		j := upgradable(t, "echo 'x upgrade: Commencing upgrade. Closing all shell sessions.'; exit 255")
		j.must(osMkdirAll(j, "tmp/heimweg"))
		j.write("tmp/heimweg/image", string(image()), 0o600)
		j.write("etc/sysupgrade.conf", "# mine\n/etc/own/\n", 0o644)
		for range 2 {
			if err := Commence(context.Background(), j, u); err != nil {
				t.Fatal(err)
			}
		}
		if got := j.read("etc/sysupgrade.conf"); got != "# mine\n/etc/own/\n/etc/heimweg/written.json\n/etc/heimweg/upgrade.json\n/etc/heimweg/packages\n" {
			t.Errorf("keep list: %q", got)
		}
		if !strings.Contains(j.read("stub/log"), "sysupgrade /tmp/heimweg/image\n") {
			t.Errorf("told %q", j.read("stub/log"))
		}
		a, err := Arrive(context.Background(), j)
		if err != nil || !a.Same || a.Unpacking || a.Note == nil || a.Note.To != "25.12.5" {
			t.Errorf("%+v %v", a, err)
		}
		if err := Forget(context.Background(), j, []string{"htop", "nano"}); err != nil || j.exists("etc/heimweg/upgrade.json") || j.read("etc/heimweg/packages") != "htop\nnano\n" {
			t.Errorf("forget: %v", err)
		}
		if a, err := Arrive(context.Background(), j); err != nil || a.Same || a.Note != nil {
			t.Errorf("%+v %v", a, err)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		j := upgradable(t, "echo 'Image check failed.'; exit 1")
		j.must(osMkdirAll(j, "tmp/heimweg"))
		j.write("tmp/heimweg/image", string(image()), 0o600)
		err := Commence(context.Background(), j, u)
		if refusalCode(err) != "upgrade" || !strings.Contains(err.Error(), "Image check failed") {
			t.Errorf("got %v", err)
		}
		if j.exists("etc/heimweg/upgrade.json") || j.exists("tmp/heimweg/lock") {
			t.Error("something was left")
		}
	})
	t.Run("fresh", func(t *testing.T) {
		j := upgradable(t, "echo Commencing upgrade")
		j.must(osMkdirAll(j, "tmp/heimweg"))
		j.write("tmp/heimweg/image", string(image()), 0o600)
		f := u
		f.Note.Fresh, f.Few = true, []PutFile{{"/etc/dropbear/k", 0o600, uci.Hidden("key")}}
		if err := Commence(context.Background(), j, f); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(j.read("stub/log"), "sysupgrade -n -f /tmp/heimweg/few.tgz /tmp/heimweg/image\n") || !j.exists("tmp/heimweg/few.tgz") {
			t.Errorf("told %q", j.read("stub/log"))
		}
	})
}
