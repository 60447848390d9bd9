package cli

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firmware"
	"github.com/heimweg/heimweg/internal/flash"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/evabox"
	"github.com/heimweg/heimweg/internal/lab/mirror"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/view"
)

// An evening takes minutes, most of them flash being erased and formatted. The
// lab's box does the same things in the same order, faster.
var hurried = evabox.Times{Link: 50 * time.Millisecond, Stack: 20 * time.Millisecond, Window: time.Second, Boot: 300 * time.Millisecond,
	Erase: 500 * time.Millisecond, Check: 100 * time.Millisecond, Late: 20 * time.Millisecond, Rate: 2_000_000, TFTP: 100 * time.Millisecond}

// formatting is how long the first start formats the flash.
const formatting = 500 * time.Millisecond

// stock is a home whose router is still in its carton, and a download server.
type stock struct {
	w *world.World
	m *mirror.Mirror
}

// fromStock makes a home round a boxed device.
func fromStock(ctx context.Context, o world.Options, box evabox.Options) (stock, error) {
	if o.Uplink == home.OneArmed || o.LANs > 1 {
		return stock{}, fault.NewUsage("bad-stock", "a boxed device is neither one-armed nor set up for two home LANs").Do("leave --uplink one-armed and --lans 2 away")
	}
	o.FromStock = true
	o.Device = device.Options{EVA: box}
	o.Router.FormatTime = formatting
	w, err := world.New(ctx, o)
	return stock{w, mirror.New(mirror.Options{Kernel: 20_000, Root: 50_000})}, err
}

// keys are those that sign the lab's firmware.
func (s stock) keys() (firmware.Keyring, error) {
	k, err := firmware.ParseKey(s.m.Keys().Usign)
	return firmware.Keyring{k}, err
}

// cable is the laptop's network card; somebody plugs the box's power in as soon as
// heimweg asks for it.
func (s stock) cable(context.Context, string) (flash.Cable, error) {
	c := s.w.Cable()
	time.AfterFunc(300*time.Millisecond, func() { s.w.Device.Power(true) })
	return c, nil
}

// release is the newest image of a line that the lab's server has.
func (s stock) release(o world.Options) string {
	for _, v := range []string{"25.12.5", "24.10.8", "23.05.6", "22.03.7"} {
		if strings.HasPrefix(v, o.Line.String()+".") {
			return v
		}
	}
	return ""
}

// flashFirst is the tour's first part: a FRITZ!Box in its carton becomes an OpenWrt
// box.
func (t *tour) flashFirst(ctx context.Context, o world.Options) error {
	if err := t.step("a FRITZ!Box 4040 in its carton, a laptop, a cable", func() (err error) {
		if t.stock, err = fromStock(ctx, o, evabox.Options{Model: "4040", Times: hurried}); err != nil {
			return err
		}
		t.w = t.stock.w
		t.tell("phone on mobile data · ISP router %s · NAS at %s · FRITZ!OS on the box, no power yet", world.Public.Addr(), t.w.NAS.Addr())
		return nil
	}); err != nil {
		return err
	}
	version := t.stock.release(o)
	if version == "" {
		return fault.NewUsage("bad-release", "the lab's download server has no OpenWrt %s", o.Line).Do("--release 22.03, 23.05, 24.10 or 25.12")
	}
	return t.step("flashing it through its boot window", func() error {
		if err := t.heimweg("flash", "--release", version, "--accept-risk", flash.Risk); err != nil {
			return err
		}
		if err := t.w.WaitReady(ctx); err != nil {
			return err
		}
		t.base = t.w.Router.Stats()
		return nil
	})
}

// labFlash flashes the boxed device of `heimweg lab up --from-stock` before the home
// is handed over.
func (a *app) labFlash(ctx context.Context, o world.Options, dir string) (*world.World, error) {
	s, err := fromStock(ctx, o, evabox.Options{Model: "4040", Times: hurried})
	if err != nil {
		return s.w, err
	}
	version := s.release(o)
	if version == "" {
		return s.w, fault.NewUsage("bad-release", "the lab's download server has no OpenWrt %s", o.Line).Do("--release 22.03, 23.05, 24.10 or 25.12")
	}
	keys, err := s.keys()
	if err != nil {
		return s.w, err
	}
	sub := &app{Env: a.Env, style: a.style, risks: []string{flash.Risk}}
	sub.Web, sub.Keys, sub.Cable, sub.Config = s.m.Transport(), keys, s.cable, filepath.Join(dir, "flash")
	cable, res, err := sub.flash(ctx, flashFlags{firmwareFlags: firmwareFlags{release: version}, wait: time.Minute}, nil)
	if cable != nil {
		defer cable.Close()
	}
	if err != nil {
		return s.w, err
	}
	view.FlashResult(a.Err, a.style, res)
	return s.w, s.w.WaitReady(ctx)
}
