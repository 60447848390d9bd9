package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firmware"
	"github.com/heimweg/heimweg/internal/flash"
	"github.com/heimweg/heimweg/internal/hostnet"
	"github.com/heimweg/heimweg/internal/view"
)

// flashFlags are what flashing can be told beside its files.
type flashFlags struct {
	firmwareFlags
	card, board string
	with        []string
	wait        time.Duration
	again       bool
	noSettle    bool
	stock       bool
}

// add defines the flags; prefix keeps them apart from those of another command.
func (f *flashFlags) add(a *app, c *cobra.Command) {
	f.firmwareFlags.add(a, c, true)
	fl := c.Flags()
	fl.StringVar(&f.card, "card", "", "network card that the box is plugged into (default: the only wired one)")
	fl.StringVar(&f.board, "board", "", "the model you have, such as 4040: a file for another one is refused before the box is touched")
	fl.StringSliceVar(&f.with, "with", nil, "packages that the image shall hold (asks the image builder)")
	fl.StringVar(&f.builder, "builder", a.Getenv("HEIMWEG_BUILDER"), "image builder to ask (default: "+firmware.OfficialBuilder+")")
	fl.DurationVar(&f.wait, "wait", 30*time.Minute, "how long to look for the box")
	fl.BoolVar(&f.again, "again", false, "flash a box anew that runs OpenWrt already")
}

func (a *app) flashCommand() *cobra.Command {
	var f flashFlags
	c := &cobra.Command{
		Use: "flash [IMAGE...]", Short: "bring OpenWrt onto a FRITZ!Box, over its bootloader",
		Long: `flash waits for the box's bootloader, holds it, sees which box it is, and writes OpenWrt.
Nobody has to count seconds or set an address. Without IMAGE it fetches the right files
for the box that it finds; with one it says what the file is and refuses a wrong one
before the box is touched.

FRITZ!OS and its settings are lost: that is asked for by name, or accepted with
--accept-risk=` + flash.Risk + `. Until then nothing is changed on the box. The bootloader is
never touched: whatever goes wrong, the same command does it again.

On Linux it needs root or CAP_NET_RAW for its own TCP/IP on the network card; your own
network settings are left alone. Otherwise it borrows an address and gives it back.

--back-to-stock explains the way back to FRITZ!OS, and finds the bootloader for it.`,
		Example: `  heimweg flash
  heimweg flash openwrt-24.10.8-ipq40xx-generic-avm_fritzbox-4040-squashfs-eva.bin
  heimweg flash --card enp3s0 --board 4040 --release 24.10.8
  heimweg flash --back-to-stock`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.stock {
				return a.backToStock(cmd.Context(), f, args)
			}
			return a.flashAlone(cmd.Context(), f, args)
		},
	}
	f.add(a, c)
	c.Flags().BoolVar(&f.noSettle, "no-settle", false, "end when the new system answers, without waiting for the end of its first start")
	c.Flags().BoolVar(&f.stock, "back-to-stock", false, "explain the way back to FRITZ!OS, and find the bootloader")
	return c
}

// flashAlone is heimweg flash by itself: the cable is given back at its end.
func (a *app) flashAlone(ctx context.Context, f flashFlags, args []string) (err error) {
	cable, res, err := a.flash(ctx, f, args)
	if cable != nil {
		defer func() {
			if cerr := cable.Close(); err == nil && cerr != nil {
				err = flash.Explain(cerr)
			}
		}()
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(res)
	}
	view.FlashResult(a.Out, a.style, res)
	a.sayf("Next: heimweg up")
	return nil
}

// flash goes the whole way and leaves the cable to the caller, who goes on over it.
func (a *app) flash(ctx context.Context, f flashFlags, args []string) (flash.Cable, flash.Result, error) {
	var none flash.Result
	given, err := a.givenFiles(args, f.board)
	if err != nil {
		return nil, none, err
	}
	if !slices.Contains(a.risks, flash.Risk) && !a.Terminal.IsTerminal() {
		// Asked now, before a box is held for an answer that nobody gives.
		return nil, none, needsPerson("may FRITZ!OS and its settings on the box be replaced?", "--accept-risk="+flash.Risk)
	}
	if _, err := a.source(f.firmwareFlags); err != nil && (f.mirror != "" || len(f.keys) > 0) {
		return nil, none, err // before a box waits for it
	}
	cable, way, err := a.cable(ctx, f.card)
	if err != nil {
		return nil, none, err
	}
	if !a.json {
		view.FlashFiles(a.Err, a.style, given)
		view.FlashCable(a.Err, a.style, cable.Name(), way)
	}
	tell, end := view.FlashTeller(a.Err, a.style, a.json)
	s, err := flash.Find(ctx, flash.Options{Cable: cable, Given: given, Files: a.flashFiles(f, tell), Board: f.board, Version: f.release,
		Again: f.again, Wait: f.wait, Tell: tell})
	end()
	if err != nil {
		return cable, none, err
	}
	defer s.Close()
	if err := a.mayReplace(ctx, s); err != nil {
		s.Leave(ctx)
		return cable, none, err
	}
	if err := s.Write(ctx); err != nil {
		return cable, none, err
	}
	res, err := s.FirstBoot(ctx, !f.noSettle)
	return cable, res, err
}

// mayReplace asks for the loss by its name.
func (a *app) mayReplace(ctx context.Context, s *flash.Session) error {
	if !a.json {
		view.FlashPlan(a.Err, a.style, s.Describe())
	}
	if slices.Contains(a.risks, flash.Risk) {
		return nil
	}
	answer, err := a.ask(ctx, `Type "replace" to go on:`, "", "--accept-risk="+flash.Risk)
	if err != nil {
		return err
	}
	if !strings.EqualFold(answer, "replace") {
		return fault.New("declined", "nothing was written: the answer was not \"replace\"").Do("run the same command again when you want to")
	}
	return nil
}

// maxImage is more than any image of these boxes.
const maxImage = 512 << 20

// givenFiles reads the files that were named and refuses what is right for no box.
func (a *app) givenFiles(args []string, board string) ([]flash.File, error) {
	var out []flash.File
	for _, name := range args {
		data, err := readFile(name)
		if err != nil {
			return nil, err
		}
		out = append(out, flash.File{Name: filepath.Base(name), Data: data})
	}
	return flash.Check(out, board)
}

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.NewUsage("no-file", "there is no file %s", name).Do("name an image's file, or none: heimweg flash fetches the right one")
	case err == nil && !info.Mode().IsRegular():
		return nil, fault.NewUsage("no-file", "%s is not a file", name).Do("name an image's file")
	case err == nil && info.Size() > maxImage:
		return nil, fault.NewUsage("image-not-firmware", "%s is far larger than any image", name).Saw("%d bytes", info.Size()).Do("name an image's file")
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fault.NewUsage("no-file", "%s cannot be read", name).Saw("%s", err).Do("name a file that can be read").From(err)
	}
	return data, nil
}

// flashFiles fetches what a box needs, checked against the release's signed list.
func (a *app) flashFiles(f flashFlags, tell event.Tell) flash.Files {
	return func(ctx context.Context, needs []flash.Need) ([]flash.File, error) {
		src, err := a.source(f.firmwareFlags)
		if err != nil {
			return nil, err
		}
		version, err := a.release(ctx, src, needs[0].Version, tell)
		if err != nil {
			return nil, err
		}
		var out []flash.File
		for _, n := range needs {
			w := firmware.Want{Version: version, Target: n.Target, Profile: n.Profile, Type: n.Type, UBoot: n.UBoot}
			if n.Role == flash.UBoot {
				w.Type = firmware.TypeUBoot
			}
			var got firmware.File
			if len(f.with) == 0 && f.folder() != "" {
				got, err = a.builtBefore(src, w, tunnelPackages(version), tell)
			}
			if err == nil && got.Path == "" {
				got, err = a.fetchOne(ctx, src, f.firmwareFlags, w, f.with, tell)
			}
			if err != nil {
				return nil, err
			}
			data, err := readFile(got.Path)
			if err != nil {
				return nil, err
			}
			out = append(out, flash.File{Role: n.Role, Name: got.Name, Data: data, SHA256: got.SHA256, Signed: got.Signed.String()})
		}
		return out, nil
	}
}

// cable opens the way to the box, and says by which means.
func (a *app) cable(ctx context.Context, name string) (c flash.Cable, way string, err error) {
	if a.Cable != nil {
		c, err := a.Cable(ctx, name)
		return c, "", err
	}
	dir, err := a.folder()
	if err != nil {
		return nil, "", err
	}
	list, err := hostnet.Cards(ctx)
	if err != nil {
		return nil, "", flash.Explain(err)
	}
	card, err := hostnet.Choose(list, name)
	if err != nil {
		return nil, "", flash.Explain(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	own, err := hostnet.Open(ctx, card, hostnet.Options{At: eva.Usual(), Record: filepath.Join(dir, "borrowed.json")})
	if err != nil {
		return nil, "", flash.Explain(err)
	}
	if own.Way() == hostnet.Own {
		return own, "your own network settings are left alone", nil
	}
	routes, _ := hostnet.Routes(ctx) // where the system does not tell, its cards have to do
	for _, s := range hostnet.Shadows(card, list, routes) {
		a.sayf("%s", a.style.Bad("Mind: "+s.String()+"; disconnect it for this while"))
	}
	return own, string(own.Way()) + ", given back at the end", nil
}

// backToStock explains the way back, and finds the bootloader for AVM's program.
func (a *app) backToStock(ctx context.Context, f flashFlags, args []string) error {
	checked := ""
	if len(args) > 1 {
		return fault.NewUsage("arguments", "--back-to-stock looks at one file").Do("heimweg flash --back-to-stock FILE")
	}
	for _, name := range args {
		data, err := readFile(name)
		if err != nil {
			return err
		}
		if err := flash.Recovery(flash.File{Name: name, Data: data}); err != nil {
			return err
		}
		checked = filepath.Base(name)
	}
	if !a.json {
		view.BackToStock(a.Out, a.style, checked)
	}
	if !a.Terminal.IsTerminal() && !a.yes {
		if a.json {
			return a.printJSON(map[string]any{"recovery": checked})
		}
		a.sayf("  next  heimweg flash --back-to-stock --yes finds the box's bootloader, and says where it is")
		return nil
	}
	look, err := a.agree(ctx, "Look for the box's bootloader now, to see where it is?")
	if err != nil || !look {
		return err
	}
	return a.findLoader(ctx, f)
}

func (a *app) findLoader(ctx context.Context, f flashFlags) (err error) {
	cable, way, err := a.cable(ctx, f.card)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := cable.Close(); err == nil && cerr != nil {
			err = flash.Explain(cerr)
		}
	}()
	if !a.json {
		view.FlashCable(a.Err, a.style, cable.Name(), way)
	}
	tell, end := view.FlashTeller(a.Err, a.style, a.json)
	l, err := flash.FindLoader(ctx, flash.Options{Cable: cable, Wait: f.wait, Tell: tell})
	end()
	if err != nil {
		return err
	}
	defer l.Close(ctx)
	if !a.json {
		view.FlashLoader(a.Out, a.style, l)
	}
	if !l.Usual() && a.Terminal.IsTerminal() && !a.yes {
		back, err := a.agree(ctx, "Let the bootloader take 192.168.178.1 again from its next start on?")
		if err != nil {
			return err
		}
		if back {
			if err := l.GoHome(ctx, tell); err != nil {
				return err
			}
		}
	}
	if a.json {
		return a.printJSON(l)
	}
	a.sayf("The box starts again now. Next: start AVM's program, switch the box off, and on when the program says so.")
	return nil
}

// upFromStock flashes the box and goes on over the same cable: what the household's
// own network does meanwhile does not matter.
func (a *app) upFromStock(ctx context.Context, f flashFlags, images []string, up func(context.Context) error) (err error) {
	cable, res, err := a.flash(ctx, f, images)
	if cable != nil {
		defer func() {
			if cerr := cable.Close(); err == nil && cerr != nil {
				err = flash.Explain(cerr)
			}
		}()
	}
	if err != nil {
		return err
	}
	if !a.json {
		view.FlashResult(a.Err, a.style, res)
	}
	a.Dial, a.router = cable.Dial, res.At.String()
	// Over its own cable and at its first start: no key could be surer. What was
	// known at this address was the box's last life.
	if res.HostKey != nil {
		o, _, err := a.options()
		if err != nil {
			return err
		}
		if err := o.HostKeys.Pin(a.router, res.HostKey); err != nil {
			return err
		}
	}
	return up(ctx)
}
