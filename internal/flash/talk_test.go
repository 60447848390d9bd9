package flash

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/evabox"
	"github.com/heimweg/heimweg/internal/shell"
)

// Wrong files are refused before the box is touched: all of them when the person
// says which box it is, and without that all but those that are right for another
// box, which are refused before anything is sent.
func TestWrongImages(t *testing.T) {
	early := 0
	for _, m := range imagetest.Mistakes() {
		files := []File{{Name: "openwrt.bin", Data: m.File}}
		_, err := Check(files, "4040")
		if f := fault.Find(err); f == nil || len(f.Next) == 0 || !strings.HasPrefix(f.Code, "image-") {
			t.Errorf("%s, for a 4040: %s", m.Name, explained(err))
		}
		files, err = Check(files, "")
		if err != nil {
			early++
			if f := fault.Find(err); f == nil || len(f.Next) == 0 || !strings.HasPrefix(f.Code, "image-") {
				t.Errorf("%s: %s", m.Name, explained(err))
			}
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			in(t, "4040", nil, func(r *rig) {
				r.opt.Given = files
				r.powerSoon(time.Second)
				_, err := Find(r.ctx, r.opt)
				r.is(err, "image-other-board", "image-wrong-kind", "image-board-unknown", "image-too-large")
				r.untouched()
				r.starts(device.Stock)
			})
		})
	}
	if early < 25 {
		t.Errorf("only %d were refused before login", early)
	}
}

// starts: the box comes up by itself, as that.
func (r *rig) starts(what string) {
	r.t.Helper()
	ctx, stop := context.WithTimeout(r.ctx, 10*time.Minute)
	defer stop()
	if err := r.box.Wait(ctx, what); err != nil {
		r.t.Errorf("runs %q, not %q (%s)\n%s", r.box.Runs(), what, r.box.EVA.State(), r.box.Log())
	}
}

// Only a system that says no wants a password; one that goes down in the middle of a
// login says nothing.
func TestWantsPassword(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&shell.AuthError{Tried: []string{"none"}, Offered: []string{"publickey", "password"}}, true},
		{&shell.AuthError{Tried: []string{"none"}, Cause: io.EOF}, false},
		{&shell.LostError{}, false},
		{nil, false},
	} {
		if got := wantsPassword(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

// Given files are used, and only what is missing is fetched, of the same release.
func TestGiven(t *testing.T) {
	in(t, "4040", nil, func(r *rig) {
		r.opt.Files = nil
		r.given(imagetest.EVA(imagetest.Options{Version: "24.10.8"}))
		r.powerSoon(time.Second)
		res, err := r.run()
		if err != nil || !strings.HasPrefix(res.Board.Release.Version, "24.10") {
			t.Fatalf("%s %+v", explained(err), res)
		}
	})
	in(t, "7412", nil, func(r *rig) {
		r.given(imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7412", Version: "24.10.8"}))
		r.powerSoon(time.Second)
		res, err := r.run()
		if err != nil || res.Board.Release.Version != "24.10.8" {
			t.Fatalf("%s %+v", explained(err), res)
		}
		if len(r.needed) != 1 || r.needed[0].Role != RAMSystem || r.needed[0].Version != "24.10.8" {
			t.Errorf("fetched %+v", r.needed)
		}
	})
	in(t, "7412", nil, func(r *rig) {
		r.opt.Files = nil
		r.given(imagetest.Sysupgrade(imagetest.Options{Board: "avm,fritz7412"}))
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "no-files")
		r.untouched()
	})
	twice := []byte(imagetest.EVA(imagetest.Options{}))
	in(t, "4040", nil, func(r *rig) {
		r.given(twice, twice)
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "image-twice")
		r.untouched()
	})
}

// The person says another box than the one that is found.
func TestOtherBox(t *testing.T) {
	in(t, "7530", nil, func(r *rig) {
		r.opt.Board = "4040"
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "other-box")
		r.untouched()
		r.starts(device.Stock)
	})
}

// A box of a maker that nothing tells: the question is for the person, and nothing
// is sent.
func TestVariant(t *testing.T) {
	in(t, "3370", nil, func(r *rig) {
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "board-variant")
		r.untouched()
	})
	// Given files say it.
	in(t, "3370", func(o *device.Options) { o.NAND = "ADF1801D01" }, func(r *rig) {
		o := imagetest.Options{Board: "avm,fritz3370-rev2-hynix"}
		r.given(imagetest.EVAKernel(o), imagetest.EVAFileSystem(o))
		r.powerSoon(time.Second)
		if _, err := r.run(); err != nil {
			t.Fatal(explained(err))
		}
	})
}

// The window was missed because the box was on already: it is said, and the next
// power-on counts.
func TestMissed(t *testing.T) {
	in(t, "4040", nil, func(r *rig) {
		r.box.Power(true)
		r.starts(device.Stock)
		time.AfterFunc(30*time.Second, func() { r.box.Power(false) })
		r.powerSoon(40 * time.Second)
		if _, err := r.run(); err != nil {
			t.Fatalf("%s\n%s", explained(err), r.text())
		}
		r.runs()
		r.says("the boot window has passed", "wait 5 s, and switch it on", "note way: cable dead\n", "held")
		if n := strings.Count(r.text(), "the boot window has passed"); n != 1 {
			t.Errorf("said %d times\n%s", n, r.text())
		}
	})
}

// A cable that is up all the time is never said to be dead.
func TestCableUp(t *testing.T) {
	in(t, "4040", nil, func(r *rig) {
		r.box.Power(true)
		r.starts(device.Stock)
		r.opt.Wait = 10 * time.Second
		_, err := r.run()
		r.is(err, "eva-missed")
		if f := fault.Find(err); !strings.HasPrefix(f.Seen[0], "cable came up after 0.0 s") || strings.Contains(r.text(), "dead") {
			t.Errorf("%s\n%s", explained(err), r.text())
		}
	})
}

// Nothing answers: hints come, and in the end words that help.
func TestSilence(t *testing.T) {
	in(t, "4040", func(o *device.Options) { o.EVA.Faults.UDP = "off" }, func(r *rig) {
		r.opt.Wait = 90 * time.Second
		began := time.Now()
		_, err := r.run()
		r.is(err, "eva-silent")
		if d := time.Since(began); d < 90*time.Second || d > 95*time.Second {
			t.Errorf("after %s", d)
		}
		r.says("cable dead", "enp3s0 is still dead", "yellow ports")
		if f := fault.Find(err); !strings.Contains(f.What, "on enp3s0 in 90 s") || !strings.Contains(f.Seen[0], "192.168.178.1") || len(f.Next) != 1 {
			t.Error(explained(err))
		}
	})
	// With the cable alive, but a box that starts its own system each time.
	in(t, "4040", func(o *device.Options) { o.EVA.Kind = evabox.Booted }, func(r *rig) {
		words := []string{"no bootloader has answered yet", "still nothing"}
		r.opt.Wait = hintFirst + hintAgain + 90*time.Second
		if need.Long() {
			words = append(words, "still looking")
			r.opt.Wait += hintRarely
		}
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "eva-missed")
		r.says(words...)
	})
}

// Boxes that are none for us are explained, and nothing is sent.
func TestOthers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*evabox.Options)
		code   string
	}{
		"TI":          {func(o *evabox.Options) { o.Kind = evabox.TI }, "eva-ti"},
		"converted":   {func(o *evabox.Options) { o.Kind = evabox.Converted }, "already-openwrt"},
		"unsupported": {func(o *evabox.Options) { o.Env = map[string]string{"HWRevision": "226"} }, "board-unsupported"},
		"unknown":     {func(o *evabox.Options) { o.Env = map[string]string{"HWRevision": "999"} }, "board-unknown"},
		"nameless":    {func(o *evabox.Options) { o.Env = map[string]string{"HWRevision": "-"} }, "board-unknown"},
		"other mtd1":  {func(o *evabox.Options) { o.Env = map[string]string{"mtd1": "0x220000,0x1000000"} }, "board-differs"},
		"with NAND":   {func(o *evabox.Options) { o.Env = map[string]string{"flashsize": "nand_size=128MB"} }, "board-differs"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, "4040", func(o *device.Options) { c.change(&o.EVA) }, func(r *rig) {
				r.powerSoon(time.Second)
				_, err := r.run()
				r.is(err, c.code)
				r.untouched()
			})
		})
	}
}

// Slint answers by IPv6, which the lab's links do not carry; package eva sees it on
// its own wire. Here are the words.
func TestSlint(t *testing.T) {
	in(t, "4040", nil, func(r *rig) {
		s := &Session{o: r.opt, cable: r.cable}
		_, err := newHunt(s).saw(r.ctx, eva.Sight{At: netip.MustParseAddr("fe80::1"), What: eva.SeenSlint})
		r.is(s.explain(err), "eva-slint")
	})
}

// Two boxes in their bootloaders; package eva sees that, here are the words.
func TestSeveral(t *testing.T) {
	f := fault.Find((&Session{}).explain(&eva.SeveralError{At: eva.Usual()[:2]}))
	if f == nil || f.Code != "eva-several" || !strings.Contains(f.Next[0], "unplug all but one") || !strings.Contains(f.Seen[0], "169.254.120.1") {
		t.Errorf("%+v", f)
	}
}

// A converted box is flashed again when the person says so. That of a 7530 starts
// its own system even from the U-Boot in memory, which then installs the new one.
func TestAgain(t *testing.T) {
	models := []string{"4040", "7530"}
	if need.Long() {
		models = append(models, "7412")
	}
	for _, model := range models {
		t.Run(model, func(t *testing.T) { flashTwice(t, model) })
	}
}

func flashTwice(t *testing.T, model string) {
	in(t, model, nil, func(r *rig) {
		r.powerSoon(time.Second)
		once, err := r.run()
		if err != nil {
			t.Fatal(explained(err))
		}
		_, err = r.run()
		r.is(err, "already-openwrt")
		if f := fault.Find(err); !strings.Contains(strings.Join(f.Seen, " "), version) {
			t.Error(explained(err))
		}
		r.opt.Again = true
		time.AfterFunc(20*time.Second, func() { r.box.Power(false) })
		r.powerSoon(30 * time.Second)
		res, err := r.run()
		if err != nil {
			t.Fatalf("%s\n%s\n%s", explained(err), r.text(), r.box.Log())
		}
		if string(res.HostKey.Marshal()) == string(once.HostKey.Marshal()) {
			t.Error("the old system still runs")
		}
		r.runs()
	})
}

// The bootloader sits elsewhere, and very old ones stay there.
func TestElsewhere(t *testing.T) {
	for _, udp := range []string{"", "report", "off"} {
		in(t, "4040", func(o *device.Options) {
			o.EVA.Address = netip.MustParseAddr("169.254.157.1")
			o.EVA.Faults.UDP = udp
		}, func(r *rig) {
			r.powerSoon(time.Second)
			if _, err := r.run(); err != nil {
				t.Fatalf("%q: %s\n%s", udp, explained(err), r.text())
			}
		})
	}
	in(t, "4040", func(o *device.Options) {
		o.EVA.Address, o.EVA.Faults.UDP = netip.MustParseAddr("10.1.2.3"), "report"
	}, func(r *rig) {
		r.powerSoon(time.Second)
		if _, err := r.run(); err != nil {
			t.Fatalf("%s\n%s", explained(err), r.text())
		}
		r.says("a bootloader answers from 10.1.2.3")
	})
}

// Ctrl-C in the words of the moment, and what it leaves behind.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		name, stage string // that begins when it comes
		model       string
		words       string
		touched     bool
	}{
		{"looking", "way", "4040", "nothing was written", false},
		{"fetching", "files", "4040", "nothing was written", false},
		{"erasing", "erasing", "4040", "FRITZ!OS is gone", true},
		{"sending", "sending", "4040", "FRITZ!OS is gone", true},
		{"into RAM", "sending", "7412", "nothing was written", false},
		{"RAM", "ram", "7412", "nothing was written", false},
		{"copying", "copy", "7412", "nothing was written", false},
		{"first boot", "settling", "4040", "everything is written", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, c.model, nil, func(r *rig) {
				all := r.ctx
				ctx, stop := context.WithCancel(all)
				defer stop()
				tell := r.opt.Tell
				r.opt.Tell = func(e event.Event) {
					tell(e)
					if e.Stage == c.stage && (e.Kind == event.Began || e.Kind == event.Note) {
						stop()
					}
				}
				r.ctx = ctx
				r.powerSoon(time.Second)
				_, err := r.run()
				r.is(err, "interrupted")
				if f := fault.Find(err); f == nil || f.ExitCode() != fault.ExitInterrupted || !strings.Contains(strings.Join(f.Why, " "), c.words) {
					t.Errorf("%s", explained(err))
				}
				if !c.touched && r.box.EVA.Flash("mtd1") != nil {
					t.Error("flash was written")
				}
				// The same command again, as the failure says: with the box switched off and on.
				r.ctx, r.opt.Tell = all, tell
				if c.name == "first boot" {
					r.starts(device.OpenWrt)
					_, err := r.run()
					r.is(err, "already-openwrt")
					return
				}
				if !strings.HasPrefix(r.box.Runs(), "OpenWrt") {
					r.box.Power(false)
					r.powerSoon(10 * time.Second)
				}
				if _, err := r.run(); err != nil {
					t.Errorf("again: %s\n%s", explained(err), r.text())
				}
				r.runs()
			})
		})
	}
}

// A run that was cut off with the system in RAM: the next one finds it there and
// goes on, without the bootloader.
func TestResume(t *testing.T) {
	for _, c := range []struct{ model, nand string }{{"7412", ""}, {"7490", "98D1901576"}, {"7490", "2CF1809504"}} {
		t.Run(c.model+c.nand, func(t *testing.T) {
			in(t, c.model, func(o *device.Options) { o.NAND = c.nand }, func(r *rig) {
				all := r.ctx
				ctx, stop := context.WithCancel(all)
				tell := r.opt.Tell
				r.opt.Tell = func(e event.Event) {
					tell(e)
					if e.Stage == "copy" && e.Kind == event.Began {
						stop()
					}
				}
				r.ctx = ctx
				r.powerSoon(time.Second)
				_, err := r.run()
				r.is(err, "interrupted")
				r.ctx, r.opt.Tell = all, tell
				s := r.find()
				if d := s.Describe(); !d.Continues || d.At != fresh || len(d.Steps) == 0 {
					t.Errorf("%+v", d)
				}
				if err := s.Write(r.ctx); err != nil {
					t.Fatal(explained(err))
				}
				if res, err := s.FirstBoot(r.ctx, true); err != nil || res.Board.Release.Version != version {
					t.Fatalf("%s %+v", explained(err), res)
				}
				r.runs()
			})
		})
	}
	// A 7530 and a 7520 share a board and not a U-Boot: only the bootloader tells.
	in(t, "7530", nil, func(r *rig) {
		all := r.ctx
		ctx, stop := context.WithCancel(all)
		r.opt.Tell = func(e event.Event) {
			r.told(e)
			if e.Stage == "copy" && e.Kind == event.Began {
				stop()
			}
		}
		r.ctx = ctx
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "interrupted")
		r.ctx, r.opt.Tell = all, r.told
		_, err = r.run()
		r.is(err, "ram-which")
		r.box.Power(false)
		r.powerSoon(time.Second)
		if _, err := r.run(); err != nil {
			t.Fatal(explained(err))
		}
	})
}

// What the box reads back: equal is said, different is a warning, silence is said.
func TestCheck(t *testing.T) {
	for check, words := range map[string]string{"": "the box read back what we sent", "wrong": "warning: the box read back", "silent": "did not say what it read back"} {
		in(t, "4040", func(o *device.Options) { o.EVA.Faults.Check = check }, func(r *rig) {
			r.powerSoon(time.Second)
			res, err := r.run()
			if err != nil || len(res.Checks) != 1 {
				t.Fatalf("%q: %s %+v", check, explained(err), res)
			}
			r.says(words)
			if check == "" && res.Checks[0].Verdict != eva.Same {
				t.Errorf("%+v", res.Checks)
			}
		})
	}
}

// A question that is answered with no leaves the box as it was.
func TestLeave(t *testing.T) {
	in(t, "4040", nil, func(r *rig) {
		r.powerSoon(time.Second)
		s := r.find()
		s.Leave(r.ctx)
		s.Close()
		r.untouched()
		r.says("the box starts as it was")
		r.starts(device.Stock)
	})
}

// A 3370 with the old bootloader starts by itself after 30 s: it is gone when the
// person has read everything. It is looked for again, and nothing has to be asked twice.
func TestGoneBeforeTheFirstByte(t *testing.T) {
	in(t, "4040", func(o *device.Options) { o.EVA.Faults.RebootAfter = 20 * time.Second }, func(r *rig) {
		r.powerSoon(time.Second)
		s := r.find()
		pauseFor(r.ctx, time.Minute)
		time.AfterFunc(time.Minute, func() { r.box.Power(false); r.box.EVA.Mend() })
		r.powerSoon(70 * time.Second)
		if err := s.Write(r.ctx); err != nil {
			t.Fatalf("%s\n%s", explained(err), r.text())
		}
		if _, err := s.FirstBoot(r.ctx, true); err != nil {
			t.Fatal(explained(err))
		}
		r.says("the box is gone", "Nothing was written")
	})
}

// A box that loses its power while it is written does not cost minutes: the cable
// says so long before TCP does. A plug that comes out and is put back costs nothing.
func TestPowerGoneWhileSending(t *testing.T) {
	in(t, "4040", func(o *device.Options) { o.EVA.Faults.PowerCutAt = 300_000 }, func(r *rig) {
		r.powerSoon(time.Second)
		s := r.find()
		began := time.Now()
		err := s.Write(r.ctx)
		r.is(err, "eva-lost")
		erase := 2 * time.Minute
		if took := time.Since(began); took > erase+deadTime+10*time.Second {
			t.Errorf("noticed after %s", took)
		}
		if f := fault.Find(err); !strings.Contains(strings.Join(f.Seen, "\n"), "the cable went dead for 10.0 s") || !strings.Contains(strings.Join(f.Why, ""), unharmed) {
			t.Error(explained(err))
		}
		r.says("the cable went dead. If a plug came out, put it back now")
	})
	in(t, "4040", func(o *device.Options) { o.EVA.Times.Erase = time.Minute }, func(r *rig) {
		r.powerSoon(time.Second)
		s := r.find()
		time.AfterFunc(30*time.Second, func() { r.box.Unplug() })
		time.AfterFunc(30*time.Second+deadTime/2, func() { r.box.Plug() })
		if err := s.Write(r.ctx); err != nil {
			t.Fatalf("%s\n%s", explained(err), r.text())
		}
		r.says("the cable went dead. If a plug came out, put it back now", "the cable is up again", "the box read back what we sent")
	})
}

// flapping is a cable that is dead once, for two seconds.
type flapping struct {
	Cable
	flaps int
}

func (f *flapping) Use(...netip.Prefix) error { return nil }

func (f *flapping) WaitLink(ctx context.Context, up bool) error {
	if f.flaps++; f.flaps > 2 {
		<-ctx.Done()
		return ctx.Err()
	}
	return pause(ctx, 2*time.Second)
}

// The power was away for less than ten seconds: the box's new life knows nothing of
// our connection, and may be silent. While it erases nothing needs to move.
func TestPowerBackWhileSending(t *testing.T) {
	for _, c := range []struct {
		name  string
		moved func() int64
		ends  time.Duration
	}{
		{"nothing moves", func() int64 { return 300_000 }, 2*2*time.Second + stillTime},
		{"it goes on", func() int64 { return time.Now().UnixNano() }, time.Hour},
		{"it erases", func() int64 { return -1 }, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Session{cable: &flapping{}, o: Options{Tell: func(event.Event) {}}}
				began := time.Now()
				_, err := s.overCable(t.Context(), c.moved, func(ctx context.Context, starts func()) (eva.Outcome, error) {
					return eva.Outcome{}, errors.Join(pause(ctx, time.Hour), context.Cause(ctx))
				})
				var dead *deadError
				if took := time.Since(began); took != c.ends || errors.As(err, &dead) != (c.ends < time.Hour) {
					t.Errorf("ended after %s with %v", took, err)
				}
			})
		})
	}
}

func pauseFor(ctx context.Context, d time.Duration) { _ = pause(ctx, d) }

// The release notes of a file: what is not right for the box is refused even when
// it was fetched.
func TestFetchedIsJudged(t *testing.T) {
	in(t, "4040", nil, func(r *rig) {
		r.opt.Files = func(_ context.Context, needs []Need) ([]File, error) {
			return []File{{Role: Firmware, Name: "x", Data: imagetest.Sysupgrade(imagetest.Options{})}}, nil
		}
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "image-wrong-kind")
		r.untouched()
	})
	in(t, "4040", nil, func(r *rig) {
		r.opt.Files = func(_ context.Context, needs []Need) ([]File, error) {
			return []File{{Role: Firmware, Name: "x", Data: imagetest.EVA(imagetest.Options{}), SHA256: strings.Repeat("0", 64)}}, nil
		}
		r.powerSoon(time.Second)
		_, err := r.run()
		r.is(err, "image-damaged")
		r.untouched()
	})
}

// AVM's own files are told apart.
func TestRecovery(t *testing.T) {
	if err := Recovery(File{Data: imagetest.AVMRecovery()}); err != nil {
		t.Error(explained(err))
	}
	for _, d := range [][]byte{imagetest.AVMImage(), imagetest.AVMKernel(), imagetest.EVA(imagetest.Options{}), nil} {
		if f := fault.Find(Recovery(File{Data: d})); f == nil || f.Code != "not-recovery" || len(f.Next) == 0 {
			t.Errorf("%+v", f)
		}
	}
	in(t, "7412", nil, func(r *rig) {
		r.powerSoon(time.Second)
		l, err := FindLoader(r.ctx, r.opt)
		if err != nil {
			t.Fatal(explained(err))
		}
		if l.Usual() || l.Home.String() != "169.254.120.1" || l.Model != "AVM FRITZ!Box 7412" {
			t.Errorf("%+v", l)
		}
		if err := l.GoHome(r.ctx, r.told); err != nil || !l.Usual() || r.box.EVA.Env("my_ipaddress") != "192.168.178.1" {
			t.Errorf("%v, %s", err, r.box.EVA.Env("my_ipaddress"))
		}
		l.Close(r.ctx)
		r.starts(device.Stock)
	})
}

// Every board that we know has places for files, and what is fetched for it fits.
func TestEveryBoard(t *testing.T) {
	for _, b := range image.Boards() {
		hw := 0
		if len(b.HWRevisions) > 0 {
			hw = b.HWRevisions[0]
		}
		for _, u := range uses(b, hw, eva.Environment{}) {
			n := needOf(b, u.role, hw, version)
			f := File{Data: shelf(n)}
			if len(f.Data) == 0 {
				t.Errorf("%s: nothing for %+v", b.Name, n)
				continue
			}
			if err := f.identify(); err != nil {
				t.Fatal(err)
			}
			if role, err := place(f, b, hw, eva.Environment{}); err != nil || role != u.role {
				t.Errorf("%s: the %s is a %s: %s", b.Name, u.role, role, explained(err))
			}
		}
	}
}
