package eva

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab/evabox"
)

var update = flag.Bool("update", false, "rewrite testdata")

// bench is a box on a cable with a computer that has its own TCP/IP there.
type bench struct {
	t    *testing.T
	ctx  context.Context
	wire *evabox.Wire
	box  *evabox.Box
	net  *evabox.Node
}

// in runs f in a bubble with a box that is being switched on.
func in(t *testing.T, opt evabox.Options, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		w := evabox.NewWire()
		b := &bench{t: t, ctx: ctx, wire: w, box: evabox.New(w.Plug(), opt), net: w.Plug()}
		defer b.box.Close()
		b.box.Power(true)
		f(b)
		if b.box.Bricked() {
			t.Error("the bootloader was overwritten")
		}
	})
}

func (b *bench) find() *Box {
	b.t.Helper()
	box, err := Find(b.ctx, b.net, Ask{Want: Home})
	if err != nil {
		b.t.Fatalf("Find: %v\n%s", err, strings.Join(b.box.Record(), "\n"))
	}
	return box
}

func (b *bench) env(box *Box) Environment {
	b.t.Helper()
	e, err := box.Environment(b.ctx)
	if err != nil {
		b.t.Fatalf("Environment: %v\n%s", err, strings.Join(b.box.Record(), "\n"))
	}
	return e
}

func file(role Role, image []byte) File {
	return File{role, int64(len(image)), sha256.Sum256(image)}
}

// flash does everything up to and with Send.
func (b *bench) flash(image []byte, tell func(Progress)) (*Box, Outcome, error) {
	b.t.Helper()
	box := b.find()
	p, err := NewPlan(b.env(box), file(Firmware, image))
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := box.Send(b.ctx, p, tell, bytes.NewReader(image))
	return box, out, err
}

// untouched fails when anything at all was written.
func (b *bench) untouched() {
	b.t.Helper()
	if got := b.box.Stores(); len(got) != 0 {
		b.t.Errorf("STOR %v", got)
	}
	for _, part := range []string{"mtd0", "mtd1", "mtd2"} {
		if b.box.Flash(part) != nil {
			b.t.Errorf("%s was written", part)
		}
	}
	for _, line := range b.box.Record() {
		if strings.HasPrefix(line, "> SETENV") {
			b.t.Errorf("sent %q", line)
		}
	}
}

func image4040() []byte { return evabox.Image4040(100_000, 300_000) }

// The whole way of a 4040: found, held, read, written, checked, started. The
// dialogue is the one of the facts, line by line.
func TestFlash4040(t *testing.T) {
	in(t, evabox.Options{}, func(b *bench) {
		image := image4040()
		var stages []string
		box, out, err := b.flash(image, func(p Progress) {
			if s := string(p.Stage); len(stages) == 0 || stages[len(stages)-1] != s {
				stages = append(stages, s)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := box.Reboot(b.ctx); err != nil {
			t.Fatal(err)
		}
		if err := b.box.Wait(b.ctx, evabox.Running); err != nil {
			t.Fatal(err)
		}
		if got := b.box.Flash("mtd1"); !bytes.Equal(got, image) {
			t.Errorf("flash holds %d bytes, not the image's %d", len(got), len(image))
		}
		if got := b.box.Runs(); got != evabox.OpenWrt {
			t.Errorf("runs %s", got)
		}
		if len(out.Checks) != 1 || out.Checks[0].Verdict != Same || out.Sent != int64(len(image)) {
			t.Errorf("outcome %+v", out)
		}
		if box.Version() != "1.3620" || box.Addr() != Home {
			t.Errorf("box %s at %s", box.Version(), box.Addr())
		}
		if want := []string{"erasing", "sending", "storing", "checking"}; !slices.Equal(stages, want) {
			t.Errorf("stages %v", stages)
		}
		golden(t, "testdata/flash-4040.txt", strings.Join(b.box.Record(), "\n")+"\n")
	})
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

// Awkward but healthy boxes: all end with the image in flash.
func TestAwkwardBoxes(t *testing.T) {
	for name, opt := range map[string]evabox.Options{
		"another address":        {Address: netip.MustParseAddr("169.254.157.1")},
		"unheard-of address":     {Address: netip.MustParseAddr("10.11.12.13")},
		"no UDP":                 {Faults: evabox.Faults{UDP: "off"}},
		"UDP only reports":       {Address: netip.MustParseAddr("10.11.12.13"), Faults: evabox.Faults{UDP: "report"}},
		"slow UDP":               {Faults: evabox.Faults{UDP: "slow", UDPDelay: 300 * time.Millisecond}},
		"P@SW only":              {Faults: evabox.Faults{Passive: "P@SW"}},
		"PASV only":              {Faults: evabox.Faults{Passive: "PASV"}},
		"227 without brackets":   {Faults: evabox.Faults{Form227: "Entering Passive Mode %s"}},
		"227 with equals":        {Faults: evabox.Faults{Form227: "=%s"}},
		"227 of another host":    {Faults: evabox.Faults{WrongAddress: true}},
		"two-line replies":       {Faults: evabox.Faults{TwoLines: true}},
		"byte by byte":           {Faults: evabox.Faults{Segments: "bytes"}},
		"late banner":            {Faults: evabox.Faults{BannerDelay: 2900 * time.Millisecond}},
		"resets first connects":  {Faults: evabox.Faults{ResetConnects: 3}},
		"no RETR env":            {Faults: evabox.Faults{NoEnv: true}},
		"erases for 299 s":       {Times: evabox.Times{Erase: 299 * time.Second}},
		"lower-case check":       {Faults: evabox.Faults{Check: "lower"}},
		"short window":           {Times: evabox.Times{Window: 1500 * time.Millisecond}},
		"late link":              {Times: evabox.Times{Link: 40 * time.Second}},
		"one goodbye":            {Faults: evabox.Faults{Replies: map[string]string{"REBOOT": "221 Goodbye."}}},
		"old address":            {Address: netip.MustParseAddr("192.168.2.254")},
		"second connection fine": {Faults: evabox.Faults{Second: "served"}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, opt, func(b *bench) {
				image := image4040()
				box, out, err := b.flash(image, nil)
				if err != nil {
					t.Fatalf("%v\n%s", err, strings.Join(b.box.Record(), "\n"))
				}
				if out.Checks[0].Verdict != Same {
					t.Errorf("check %+v", out.Checks[0])
				}
				if err := box.Reboot(b.ctx); err != nil {
					t.Error(err)
				}
				if err := b.box.Wait(b.ctx, evabox.Running); err != nil || b.box.Runs() != evabox.OpenWrt {
					t.Errorf("%v, runs %s", err, b.box.Runs())
				}
				if !bytes.Equal(b.box.Flash("mtd1"), image) {
					t.Error("another image in flash")
				}
			})
		})
	}
}

// A held box that goes to another address is lost, and found there.
func TestMovesWhileHeld(t *testing.T) {
	for _, to := range []string{"192.168.1.1", "10.99.1.1"} {
		in(t, evabox.Options{Faults: evabox.Faults{Moves: netip.MustParseAddr(to)}}, func(b *bench) {
			box := b.find()
			<-time.After(2 * time.Second)
			var lost *LostError
			if _, err := box.Environment(b.ctx); !errors.As(err, &lost) || !errors.Is(err, ErrSilent) {
				t.Fatalf("got %v", err)
			}
			box.Close()
			box = b.find()
			if box.Addr() != netip.MustParseAddr(to) || b.env(box).HWRevision() != "227" {
				t.Errorf("found at %s", box.Addr())
			}
			box.Close()
			b.untouched()
		})
	}
}

// A computer whose network reaches only part of the world moves the box to it.
func TestMovesTheBox(t *testing.T) {
	in(t, evabox.Options{Address: netip.MustParseAddr("169.254.115.1")}, func(b *bench) {
		near := netip.MustParsePrefix("192.168.178.2/24")
		box, err := Find(b.ctx, b.wire.Plug(near), Ask{Want: Home, Near: []netip.Prefix{near}})
		if err != nil {
			t.Fatal(err)
		}
		if box.Addr() != Home || !slices.Contains(b.box.Record(), "takes the address 192.168.178.1") {
			t.Errorf("at %s\n%v", box.Addr(), b.box.Record())
		}
		if err := box.GoHome(b.ctx); err != nil || b.box.Env("my_ipaddress") != "192.168.178.1" {
			t.Errorf("%v, my_ipaddress %s", err, b.box.Env("my_ipaddress"))
		}
		box.Close()
	})
}

// A kernel asks for neighbours once a second; UDP shortens that.
func TestFindsBehindKernelARP(t *testing.T) {
	in(t, evabox.Options{Times: evabox.Times{Window: 1500 * time.Millisecond}}, func(b *bench) {
		b.net.KernelARP = true
		b.find().Close()
		if got := b.box.State(); got != evabox.Held {
			t.Errorf("state %s", got)
		}
	})
}

// What is not a bootloader is told apart, and Find says so instead of "timeout".
func TestOthers(t *testing.T) {
	for name, c := range map[string]struct {
		opt    evabox.Options
		kind   What
		missed bool
	}{
		"booted FRITZ!OS with FTP": {evabox.Options{Kind: evabox.Booted}, OtherFTP, true},
		"nothing at all":           {evabox.Options{Times: evabox.Times{Stack: time.Hour}}, "", false},
		"missed window":            {evabox.Options{}, Refused, true},
		"OpenWrt":                  {evabox.Options{Kind: evabox.Converted}, RunsSSH, true},
		"TI ADAM2":                 {evabox.Options{Kind: evabox.TI}, SeenTI, false},
		"Slint":                    {evabox.Options{Kind: evabox.Slint}, SeenSlint, true},
		"another banner":           {evabox.Options{Faults: evabox.Faults{Replies: map[string]string{"banner": "220 vsftpd"}}}, OtherFTP, true},
		"login refused":            {evabox.Options{Faults: evabox.Faults{Replies: map[string]string{"PASS": "530 Login incorrect"}}}, OtherFTP, true},
		"no version":               {evabox.Options{Faults: evabox.Faults{Replies: map[string]string{"SYST": "215 UNIX Type: L8"}}}, NotEVA, false},
		"no SYST":                  {evabox.Options{Faults: evabox.Faults{Replies: map[string]string{"SYST": "502 Command not implemented"}}}, NotEVA, false},
		"silent banner":            {evabox.Options{Faults: evabox.Faults{Replies: map[string]string{"banner": "-"}}}, Dropped, false},
		"no code":                  {evabox.Options{Faults: evabox.Faults{Replies: map[string]string{"banner": "hello"}}}, OtherFTP, true},
		"always resets":            {evabox.Options{Faults: evabox.Faults{ResetConnects: 1 << 30}}, Dropped, true},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, c.opt, func(b *bench) {
				if name == "missed window" {
					if err := b.box.Wait(b.ctx, evabox.Running); err != nil {
						t.Fatal(err)
					}
				}
				ctx, stop := context.WithTimeout(b.ctx, 70*time.Second) // a box has started by then
				defer stop()
				_, err := Find(ctx, b.net, Ask{Want: Home})
				var nf *NotFoundError
				if !errors.As(err, &nf) {
					t.Fatalf("got %v", err)
				}
				if nf.Kind() != c.kind || nf.Missed() != c.missed || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("kind %q: %v", nf.Kind(), err)
				}
				if len(nf.Asked) < 7 {
					t.Errorf("asked %v", nf.Asked)
				}
				b.untouched()
			})
		})
	}
}

// FRITZ!OS without FTP: the window was missed. Find does not give up, the next
// power-on counts.
func TestMissedThenAgain(t *testing.T) {
	in(t, evabox.Options{}, func(b *bench) {
		if err := b.box.Wait(b.ctx, evabox.Running); err != nil {
			t.Fatal(err)
		}
		missed := make(chan struct{})
		done := make(chan error)
		go func() {
			box, err := Find(b.ctx, b.net, Ask{Want: Home, Tell: func(s Sight) {
				if s.What == Refused {
					close(missed)
				}
			}})
			if err == nil {
				box.Close()
			}
			done <- err
		}()
		<-missed
		b.box.Power(false)
		b.box.Power(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if b.box.State() != evabox.Held {
			t.Errorf("state %s", b.box.State())
		}
	})
}

// Two boxes at once: neither is moved or written to, whether they were there
// first or we were.
func TestTwoBoxes(t *testing.T) {
	near := netip.MustParsePrefix("192.168.178.2/24")
	opt := evabox.Options{Address: netip.MustParseAddr("10.0.0.7"), Times: evabox.Times{Stack: 513 * time.Millisecond}}
	for _, c := range []struct {
		first bool
		near  []netip.Prefix
	}{{true, []netip.Prefix{near}}, {false, []netip.Prefix{near}}, {true, nil}, {false, nil}} {
		in(t, opt, func(b *bench) {
			opt.Address = netip.MustParseAddr("10.0.0.8")
			other := evabox.New(b.wire.Plug(), opt)
			defer other.Close()
			other.Power(true)
			for _, box := range []*evabox.Box{b.box, other} {
				if !c.first {
					break
				}
				if err := box.Wait(b.ctx, evabox.Window); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Find(b.ctx, b.wire.Plug(c.near...), Ask{Want: Home, Near: c.near})
			var several *SeveralError
			if !errors.As(err, &several) || len(several.At) != 2 {
				t.Errorf("%+v: got %v", c, err)
			}
			b.untouched()
			if got := append(b.box.Record(), other.Record()...); len(got) != 0 {
				t.Errorf("%+v: record %v", c, got)
			}
		})
		opt.Address = netip.MustParseAddr("10.0.0.7")
	}
}

// A further way of looking finds what UDP and the list do not.
func TestLook(t *testing.T) {
	in(t, evabox.Options{Address: netip.MustParseAddr("10.5.5.5"), Faults: evabox.Faults{UDP: "off"}}, func(b *bench) {
		box, err := Find(b.ctx, b.net, Ask{Look: []Look{func(ctx context.Context, seen func(netip.Addr)) error {
			seen(netip.MustParseAddr("10.5.5.5"))
			<-ctx.Done()
			return ctx.Err()
		}}})
		if err != nil {
			t.Fatal(err)
		}
		box.Close()
	})
}

// Every way in which writing can fail, with the error that it ends in.
func TestSendFails(t *testing.T) {
	type want struct {
		refused int  // reply code
		lost    bool // LostError
		strange bool
		erased  bool
		after   time.Duration
	}
	reply := func(k, v string) evabox.Options {
		return evabox.Options{Faults: evabox.Faults{Replies: map[string]string{k: v}}}
	}
	for name, c := range map[string]struct {
		opt  evabox.Options
		want want
	}{
		"erase refused":        {reply("STOR", "553 Flash erase failed."), want{refused: 553, erased: true}},
		"store not begun":      {reply("STOR", "501 unknown variable mtd1"), want{refused: 501}},
		"media refused":        {reply("MEDIA", "551 unknown Mediatype"), want{refused: 551}},
		"type unheard-of":      {reply("TYPE", "299 as you like"), want{strange: true}},
		"never erased":         {evabox.Options{Faults: evabox.Faults{NeverErased: true}}, want{lost: true, erased: true, after: 300 * time.Second}},
		"reset while erasing":  {evabox.Options{Faults: evabox.Faults{ResetErase: true}}, want{lost: true, erased: true}},
		"power cut erasing":    {evabox.Options{Faults: evabox.Faults{PowerCutErase: true}}, want{lost: true, erased: true, after: 300 * time.Second}},
		"reset at byte 1":      {evabox.Options{Faults: evabox.Faults{ResetAt: 1}}, want{lost: true, erased: true}},
		"reset in the middle":  {evabox.Options{Faults: evabox.Faults{ResetAt: 654_321}}, want{lost: true, erased: true}},
		"power cut writing":    {evabox.Options{Faults: evabox.Faults{PowerCutAt: 654_321}}, want{lost: true, erased: true, after: 60 * time.Second}},
		"store failed":         {reply("stored", "501 store failed"), want{refused: 501, erased: true}},
		"no 226":               {reply("stored", "-"), want{lost: true, erased: true, after: 60 * time.Second}},
		"gibberish for 226":    {reply("stored", "all good"), want{strange: true, erased: true}},
		"restarts by itself":   {evabox.Options{Faults: evabox.Faults{RebootAfter: 6 * time.Second}}, want{lost: true, erased: true}},
		"PASV refused, both":   {evabox.Options{Faults: evabox.Faults{Passive: "none", NoEnv: true}}, want{refused: 502}},
		"227 without a number": {evabox.Options{Faults: evabox.Faults{Form227: "Entering Passive Mode %.0s"}}, want{strange: true}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, c.opt, func(b *bench) {
				box := b.find()
				e, err := box.Environment(b.ctx)
				image := image4040()
				var p Plan
				began := time.Now()
				if err == nil {
					if p, err = NewPlan(e, file(Firmware, image)); err != nil {
						t.Fatal(err)
					}
					began = time.Now()
					_, err = box.Send(b.ctx, p, nil, bytes.NewReader(image))
				}
				var lost *LostError
				var no *RefusedError
				var strange *StrangeError
				switch {
				case c.want.lost:
					if !errors.As(err, &lost) || lost.Erased != c.want.erased {
						t.Fatalf("got %#v %v", err, err)
					}
				case c.want.refused != 0:
					if !errors.As(err, &no) || no.Reply.Code != c.want.refused || no.Erased != c.want.erased {
						t.Fatalf("got %#v %v", err, err)
					}
				case c.want.strange:
					if !errors.As(err, &strange) || strange.Erased != c.want.erased || len(strange.Lines) == 0 || !strings.Contains(err.Error(), `"`) {
						t.Fatalf("got %#v %v", err, err)
					}
				}
				if c.want.after > 0 && time.Since(began) < c.want.after {
					t.Errorf("gave up after %s", time.Since(began))
				}
				box.Close()
			})
		})
	}
}

// After a power cut in the middle the same run again ends well: the bootloader
// was never touched.
func TestPowerCutThenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := evabox.NewWire()
		node, pc := w.Plug(), w.Plug()
		first := evabox.New(node, evabox.Options{Faults: evabox.Faults{PowerCutAt: 700_000}})
		defer first.Close()
		b := &bench{t: t, ctx: t.Context(), wire: w, box: first, net: pc}
		first.Power(true)
		if _, _, err := b.flash(image4040(), nil); err == nil {
			t.Fatal("no error")
		}
		if n := len(first.Flash("mtd1")); n != 700_000 {
			t.Errorf("%d bytes in flash", n)
		}
		first.Mend()
		first.Power(true)
		box, out, err := b.flash(image4040(), nil)
		if err != nil || out.Checks[0].Verdict != Same {
			t.Fatalf("%v %+v", err, out)
		}
		if err := box.Reboot(b.ctx); err != nil {
			t.Fatal(err)
		}
		if err := first.Wait(b.ctx, evabox.Running); err != nil || first.Runs() != evabox.OpenWrt {
			t.Errorf("%v, runs %s", err, first.Runs())
		}
	})
}

// Erasing is told every 15 s, with what is usual.
func TestEraseIsTold(t *testing.T) {
	in(t, evabox.Options{Times: evabox.Times{Erase: 130 * time.Second}}, func(b *bench) {
		var told []time.Duration
		began := time.Time{}
		_, _, err := b.flash(image4040(), func(p Progress) {
			switch {
			case p.Stage == Erasing && p.Usual != 2*time.Minute:
				t.Errorf("usual %s", p.Usual)
			case p.Stage == Erasing:
				told = append(told, p.Elapsed)
			case p.Stage == Sending && p.Done > 0:
				if began.IsZero() {
					began = time.Now()
				}
				if p.Done > 1<<20 && (p.Rate() < 200_000 || p.Rate() > 300_000 || p.Done < p.Total && p.Left() <= 0) {
					t.Errorf("rate %.0f, left %s", p.Rate(), p.Left())
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(told) != 9 || told[1] != 15*time.Second || told[8] != 120*time.Second {
			t.Errorf("told at %v", told)
		}
	})
}

// The box paces the upload, we do not: sending takes as long as its flash needs.
func TestUploadKeepsUp(t *testing.T) {
	const rate = 230_000
	in(t, evabox.Options{Times: evabox.Times{Rate: rate}}, func(b *bench) {
		image := image4040()
		var began, ended time.Time
		if _, _, err := b.flash(image, func(p Progress) {
			switch {
			case p.Stage == Sending && began.IsZero():
				began = time.Now()
			case p.Stage == Checking:
				ended = time.Now()
			}
		}); err != nil {
			t.Fatal(err)
		}
		took := ended.Sub(began) - 200*time.Millisecond // what the box takes for its 226
		if share := float64(len(image)) / took.Seconds() / rate; share < 0.98 {
			t.Errorf("%.3f of the box's rate", share)
		}
	})
}

// CHECK warns and never fails.
func TestCheckVerdicts(t *testing.T) {
	for fault, want := range map[string]Verdict{"": Same, "lower": Same, "wrong": Differs, "short": Differs, "silent": NotKnown} {
		in(t, evabox.Options{Faults: evabox.Faults{Check: fault}}, func(b *bench) {
			box, out, err := b.flash(image4040(), nil)
			if err != nil || out.Checks[0].Verdict != want {
				t.Errorf("%q: %v %+v", fault, err, out.Checks)
			}
			if (want == NotKnown) != (out.Checks[0].Why != nil) {
				t.Errorf("%q: why %v", fault, out.Checks[0].Why)
			}
			if err := box.Reboot(b.ctx); err != nil {
				t.Errorf("%q: %v", fault, err)
			}
		})
	}
	in(t, evabox.Options{Times: evabox.Times{Check: 122 * time.Second}}, func(b *bench) { // two seconds late
		box, out, err := b.flash(image4040(), nil)
		if err != nil || out.Checks[0].Verdict != NotKnown {
			t.Errorf("%v %+v", err, out.Checks)
		}
		if err := box.Reboot(b.ctx); err != nil {
			t.Errorf("after a late answer: %v", err)
		}
	})
	in(t, evabox.Options{Faults: evabox.Faults{Replies: map[string]string{"CHECK": "150 Flash check 0xE4C61A5F"}}}, func(b *bench) {
		if _, out, err := b.flash(image4040(), nil); err != nil || out.Checks[0].Verdict != Nothing {
			t.Errorf("%v %+v", err, out.Checks)
		}
	})
}

// The numbers of erased partitions were computed by others (facts eva 1.5).
func TestPredictErased(t *testing.T) {
	for size, want := range map[int64]uint32{0x1DE0000: 0xE4C61A5F, 0xEE0000: 0x54F04CDD, 0x1F60000: 0xCF04E94D} {
		if got := predict(nil, size); got != want {
			t.Errorf("%#x: %08X, want %08X", size, got, want)
		}
	}
}

// Boxes that are refused: nothing is set, nothing is stored.
func TestRefusedBoards(t *testing.T) {
	for name, c := range map[string]struct {
		model string
		env   map[string]string
		size  int64
		want  any
	}{
		"unknown revision":      {"4040", map[string]string{"HWRevision": "999"}, 1 << 20, new(*UnknownBoardError)},
		"unsupported":           {"4040", map[string]string{"HWRevision": "226"}, 1 << 20, new(*UnknownBoardError)},
		"no revision":           {"4040", map[string]string{"HWRevision": "-"}, 1 << 20, new(*UnknownBoardError)},
		"another mtd1":          {"4040", map[string]string{"mtd1": "0x210000,0x1FF0000"}, 1 << 20, new(*BoxError)},
		"mtd1 over bootloader":  {"450E", map[string]string{"mtd1": "0x9F010000,0x9FEF0000"}, 1 << 20, new(*BoxError)},
		"mtd1 is no span":       {"4040", map[string]string{"mtd1": "none"}, 1 << 20, new(*BoxError)},
		"a 4040 with NAND":      {"4040", map[string]string{"flashsize": "nor_size=0MB sflash_size=0MB nand_size=128MB"}, 1 << 20, new(*BoxError)},
		"smaller mtd1":          {"450E", map[string]string{"mtd1": "0x9F020000,0x9F800000"}, 1 << 20, new(*BoxError)},
		"too large":             {"4040", nil, 30_277_633, new(*SizeError)},
		"empty file":            {"4040", nil, 0, new(*FileError)},
		"firmware for a 7530":   {"7530", nil, 1 << 20, new(*FileError)},
		"3370 of revision 1":    {"3370", map[string]string{"HWSubRevision": "1"}, 1 << 20, new(*BoxError)},
		"3370 without mtd0":     {"3370", map[string]string{"mtd0": "-"}, 1 << 20, new(*BoxError)},
		"3370, kernel too long": {"3370", nil, 5 << 20, new(*SizeError)},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, evabox.Options{Model: c.model, Env: c.env}, func(b *bench) {
				box := b.find()
				e := b.env(box)
				files := []File{{Role: Firmware, Size: c.size}}
				if c.model == "3370" {
					files = []File{{Role: Kernel, Size: c.size}, {Role: Filesystem, Size: c.size}}
				}
				if _, err := NewPlan(e, files...); err == nil || !errors.As(err, c.want) {
					t.Errorf("got %v", err)
				}
				box.Close()
				b.untouched()
			})
		})
	}
}

// A plan is good for the box it was made for, the file that was checked, and no
// other; without reading the environment nothing is sent at all.
func TestWrongBoxOrFile(t *testing.T) {
	image := image4040()
	var plan Plan
	in(t, evabox.Options{}, func(b *bench) {
		box := b.find()
		var err error
		if plan, err = NewPlan(b.env(box), file(Firmware, image)); err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string][]io.Reader{
			"short":        {bytes.NewReader(image[:1000])},
			"long":         {io.MultiReader(bytes.NewReader(image), strings.NewReader("x"))},
			"other digest": {bytes.NewReader(append(slices.Clone(image[:len(image)-1]), 0))},
			"missing":      {},
			"nil":          {nil},
			"broken":       {io.MultiReader(bytes.NewReader(image[:1000]), broken{})},
		} {
			var bad *FileError
			if _, err := box.Send(b.ctx, plan, nil, r...); !errors.As(err, &bad) {
				t.Errorf("%s: %v", name, err)
			}
		}
		undigested, err := NewPlan(b.env(box), File{Role: Firmware, Size: int64(len(image))})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []io.Reader{bytes.NewReader(image[:1000]), io.MultiReader(bytes.NewReader(image), strings.NewReader("x"))} {
			var bad *FileError
			if _, err := box.Send(b.ctx, undigested, nil, r); !errors.As(err, &bad) {
				t.Errorf("another length: %v", err)
			}
		}
		if _, err := box.Send(b.ctx, Plan{}, nil); err == nil {
			t.Error("an empty plan is sent")
		}
		box.Close()
		b.untouched()
	})
	for name, opt := range map[string]evabox.Options{
		"another model": {Model: "450E"}, "another revision": {Env: map[string]string{"HWRevision": "196"}}, "never read": {}, "another mtd1": {Env: map[string]string{"mtd1": "0x220000,0x1F00000"}},
	} {
		in(t, opt, func(b *bench) {
			box := b.find()
			if name != "never read" {
				b.env(box)
			}
			_, err := box.Send(b.ctx, plan, nil, bytes.NewReader(image))
			var wrong *WrongBoardError
			var other *BoxError
			if !errors.As(err, &wrong) && !errors.As(err, &other) {
				t.Errorf("%s: %v", name, err)
			}
			box.Close()
			b.untouched()
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the stick was pulled out") }

// Cancelling ends every wait at once.
func TestCancel(t *testing.T) {
	in(t, evabox.Options{Faults: evabox.Faults{NeverErased: true}}, func(b *bench) {
		box := b.find()
		image := image4040()
		p, err := NewPlan(b.env(box), file(Firmware, image))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancelCause(b.ctx)
		why := errors.New("Ctrl-C")
		time.AfterFunc(20*time.Second, func() { stop(why) })
		began := time.Now()
		_, err = box.Send(ctx, p, nil, bytes.NewReader(image))
		if !errors.Is(err, why) || time.Since(began) != 20*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// Secrets of the environment appear nowhere.
func TestSecretsStayHidden(t *testing.T) {
	secrets := []string{"12345678901234567890", "geheim1234", "Xy7pQr2sTu4v", "00040E-FFFF", "02:00:00:00:00:0", "Küche"}
	in(t, evabox.Options{}, func(b *bench) {
		box := b.find()
		e := b.env(box)
		if !e.Whole || e.text("wlan_key") != secrets[0] {
			t.Fatalf("not read: %v", e)
		}
		var all []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			all = append(all, fmt.Sprintf(verb, e), fmt.Sprintf(verb, box.env), fmt.Sprintf(verb, &e))
		}
		js, err := jsonOf(e)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, js, (&StrangeError{Command: "x", Lines: []string{quote("wlan_key   " + secrets[0]), quote("new_thing " + secrets[1])}}).Error())
		for _, text := range all {
			for _, s := range secrets {
				if strings.Contains(text, s) || strings.Contains(text, fmt.Sprintf("%x", s)) {
					t.Errorf("%q in %.200s", s, text)
				}
			}
		}
		if v, ok := e.Get("HWRevision"); !ok || v.String() != "227" || v.IsSecret() {
			t.Errorf("HWRevision %s", v)
		}
		box.Close()
	})
}
