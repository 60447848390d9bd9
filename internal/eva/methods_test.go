package eva

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab/evabox"
)

func (b *bench) runs(want string) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, 20*time.Minute)
	defer stop()
	if err := b.box.Wait(ctx, evabox.Running); err != nil || b.box.Runs() != want {
		b.t.Errorf("%v, state %s, runs %q, not %q\n%s", err, b.box.State(), b.box.Runs(), want, strings.Join(b.box.Record(), "\n"))
	}
}

// Method A: every board that takes one file into NOR, with the facts' sizes.
func TestMethodA(t *testing.T) {
	for _, board := range Boards() {
		if board.Method != MethodA {
			continue
		}
		in(t, evabox.Options{Model: "450E", Env: map[string]string{"HWRevision": board.HWRevisions[0],
			"mtd1": Span{0x90020000, 0x90020000 + board.MTD1}.String(), "mtd2": "0x90000000,0x90020000"}}, func(b *bench) {
			image := evabox.ImageNOR(300_000, 400_000)
			box, out, err := b.flash(image, nil)
			if err != nil || out.Checks[0].Verdict != Same {
				t.Fatalf("%s: %v %+v", board.Name, err, out)
			}
			if err := box.Reboot(b.ctx); err != nil {
				t.Error(err)
			}
			b.runs(evabox.OpenWrt)
			if got := b.box.Stores(); !slices.Equal(got, []string{"mtd1"}) {
				t.Errorf("%s: STOR %v", board.Name, got)
			}
		})
	}
}

// Method C: two files, and linux_fs_start first.
func TestMethodC(t *testing.T) {
	in(t, evabox.Options{Model: "3370"}, func(b *bench) {
		box := b.find()
		kernel, root := bytes.Repeat([]byte("k"), 300_000), bytes.Repeat([]byte("r"), 500_000)
		p, err := NewPlan(b.env(box), file(Kernel, kernel), file(Filesystem, root))
		if err != nil {
			t.Fatal(err)
		}
		want := "set linux_fs_start to 0\nreplace mtd1 by the kernel (300000 of 4194304 bytes)\nreplace mtd0 by the filesystem (500000 of 50331648 bytes)"
		if p.String() != want || !slices.Equal(p.Roles(), []Role{Kernel, Filesystem}) {
			t.Errorf("plan:\n%s", p)
		}
		out, err := box.Send(b.ctx, p, nil, bytes.NewReader(kernel), bytes.NewReader(root))
		if err != nil || len(out.Checks) != 2 || out.Checks[0].Verdict != Same || out.Checks[1].Verdict != Same {
			t.Errorf("%v %+v", err, out)
		}
		if b.box.Env("linux_fs_start") != "0" || !bytes.Equal(b.box.Flash("mtd1"), kernel) || !bytes.Equal(b.box.Flash("mtd0"), root) {
			t.Error("not what was planned")
		}
		box.Close()
	})
}

// The second file of method C fails: the first is gone already, and the error
// says so.
func TestMethodCSecondFails(t *testing.T) {
	in(t, evabox.Options{Model: "3370", Faults: evabox.Faults{ResetAt: 400_000}}, func(b *bench) {
		box := b.find()
		kernel, root := bytes.Repeat([]byte("k"), 300_000), bytes.Repeat([]byte("r"), 500_000)
		p, err := NewPlan(b.env(box), file(Kernel, kernel), file(Filesystem, root))
		if err != nil {
			t.Fatal(err)
		}
		_, err = box.Send(b.ctx, p, nil, bytes.NewReader(kernel), bytes.NewReader(root))
		var lost *LostError
		if !errors.As(err, &lost) || !lost.Erased {
			t.Errorf("got %v", err)
		}
	})
}

// Method D: started in memory; no word of the box says whether it worked.
func TestMethodD(t *testing.T) {
	for ram, launch := range map[string]string{"": "226 Transfer complete", "553": "553 Execution failed.", "silent": ""} {
		in(t, evabox.Options{Model: "7412", Faults: evabox.Faults{RAM: ram}}, func(b *bench) {
			box := b.find()
			if !slices.Contains(Usual(), box.Addr()) {
				t.Errorf("at %s", box.Addr())
			}
			image := evabox.ImageRAM(1_000_000, false)
			p, err := NewPlan(b.env(box), file(Initramfs, image))
			if err != nil {
				t.Fatal(err)
			}
			out, err := box.Send(b.ctx, p, nil, bytes.NewReader(image))
			if err != nil || out.Launch != launch || len(out.Checks) != 0 {
				t.Errorf("%q: %v %+v", ram, err, out)
			}
			box.Close()
			b.runs(evabox.OpenWrt)
			if b.box.Env("linux_fs_start") != "0" {
				t.Error("linux_fs_start is not 0")
			}
			if got := b.box.Stores(); !slices.Equal(got, []string{"0x87f0b000 0x88000000"}) {
				t.Errorf("STOR %v", got)
			}
			if b.box.Flash("mtd1") != nil || b.box.Flash("mtd0") != nil {
				t.Error("flash was written")
			}
		})
	}
}

// A RAM boot that does not come to its start puts memsize back.
func TestMethodDFails(t *testing.T) {
	in(t, evabox.Options{Model: "7490", Faults: evabox.Faults{Replies: map[string]string{"STOR": "553 Execution failed."}}}, func(b *bench) {
		box := b.find()
		image := evabox.ImageRAM(1_000_000, false)
		p, err := NewPlan(b.env(box), file(Initramfs, image))
		if err != nil {
			t.Fatal(err)
		}
		var no *RefusedError
		if _, err = box.Send(b.ctx, p, nil, bytes.NewReader(image)); !errors.As(err, &no) || no.Erased {
			t.Errorf("got %v", err)
		}
		if got := b.box.Env("memsize"); got != "0x10000000" {
			t.Errorf("memsize %s", got)
		}
		box.Close()
	})
}

// Method E: U-Boot in memory fetches its next stage from us.
func TestMethodE(t *testing.T) {
	in(t, evabox.Options{Model: "7530"}, func(b *bench) {
		box := b.find()
		e := b.env(box)
		if maker, ok := e.NAND(); !ok || maker != 0xC2 {
			t.Errorf("NAND %x", maker)
		}
		uboot, next := evabox.ImageRAM(400_000, true), evabox.ImageRAM(1_500_000, false)
		p, err := NewPlan(e, file(SecondBoot, uboot))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := box.Send(b.ctx, p, nil, bytes.NewReader(uboot)); err != nil {
			t.Fatal(err)
		}
		box.Close()
		if !slices.ContainsFunc(b.box.Record(), func(s string) bool {
			return s == "> STOR 0x85000000 0x88000000"
		}) {
			t.Errorf("record %v", b.box.Record())
		}
		ctx, stop := context.WithCancel(b.ctx)
		var asked []Request
		served := make(chan error)
		server := b.wire.Plug(netip.MustParsePrefix("192.168.1.70/24"))
		told := make(chan Request, 1000)
		go func() { served <- ServeTFTP(ctx, server, p.Board().TFTP, next, func(r Request) { told <- r }) }()
		b.runs(evabox.OpenWrt)
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		close(told)
		for r := range told {
			asked = append(asked, r)
		}
		if len(asked) != 2 || asked[0].Name != "FRITZ7530.bin" || asked[0].Refused != "" || !asked[1].Done {
			t.Errorf("asked %+v", asked)
		}
	})
}

// The TFTP server serves one name, gives nothing else away and takes nothing.
func TestTFTPRefuses(t *testing.T) {
	in(t, evabox.Options{Model: "7530"}, func(b *bench) {
		ctx, stop := context.WithCancel(b.ctx)
		server := b.wire.Plug(netip.MustParsePrefix("192.168.1.70/24"))
		told := make(chan Request, 10)
		done := make(chan error)
		go func() { done <- ServeTFTP(ctx, server, "FRITZ7530.bin", []byte("x"), func(r Request) { told <- r }) }()
		synctest.Wait()
		pc, err := b.net.ListenUDP(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		for req, want := range map[string]string{
			"\x00\x01FRITZ7520.bin\x00octet\x00":    "\x00\x05\x00\x01only FRITZ7530.bin is here\x00",
			"\x00\x02FRITZ7530.bin\x00octet\x00":    "\x00\x05\x00\x02this server is read-only\x00",
			"\x00\x01FRITZ7530.bin\x00netascii\x00": "\x00\x05\x00\x01only octet mode\x00",
		} {
			if _, err := pc.WriteTo([]byte(req), &net.UDPAddr{IP: net.IPv4(192, 168, 1, 70), Port: 69}); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 600)
			n, _, err := pc.ReadFrom(buf)
			if err != nil || string(buf[:n]) != want {
				t.Errorf("%q: %q %v", req, buf[:n], err)
			}
			if r := <-told; r.Refused == "" {
				t.Errorf("%q is not told as refused", req)
			}
		}
		// A box that falls silent ends its transfer, not the server.
		if _, err := pc.WriteTo([]byte("\x00\x01FRITZ7530.bin\x00octet\x00"), &net.UDPAddr{IP: net.IPv4(192, 168, 1, 70), Port: 69}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		<-told
		if r := <-told; !errors.Is(r.Err, ErrSilent) || time.Since(began) != tftpTries*tftpAgain {
			t.Errorf("%v after %s", r.Err, time.Since(began))
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
