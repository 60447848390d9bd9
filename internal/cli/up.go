package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/view"
)

func (a *app) upCommand() *cobra.Command {
	var n answers
	var d delivery
	var peer string
	var f flashFlags
	var first bool
	var images []string
	var way wayFlags
	c := &cobra.Command{
		Use: "up", Short: "the whole evening: home.toml, plan, apply, first device, proof", Args: cobra.NoArgs,
		Long: `up does what is not done yet: it writes home.toml (init), shows and applies the
plan, asks the ISP router to pass the tunnel's port on, adds the first device, and
verifies. Run it again at any time.

Where the ISP router does not let programs open ports, up says what a person has
to type there. With --by-hand, or mapping = "by-hand" under [uplink] in home.toml,
it says so without asking the ISP router; in German where LC_ALL, LC_MESSAGES or
LANG say so.

With --flash it begins with a box that still runs AVM's firmware: see heimweg flash.
Everything goes over the same cable.

Without internet, --mirror FOLDER names a folder made by heimweg firmware bundle: the
image comes from there, with the packages inside where the folder has such a one, and
so do packages that the router lacks (releases with opkg, up to 24.10).`,
		Example: `  heimweg up
  heimweg up --flash --board 4040
  heimweg up --flash --mirror stick
  heimweg up --peer phone --endpoint home.example.net`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.packages = f.firmwareFlags
			if !first {
				return a.up(cmd.Context(), n, d, peer, way)
			}
			return a.upFromStock(cmd.Context(), f, images, func(ctx context.Context) error { return a.up(ctx, n, d, peer, way) })
		},
	}
	n.flags(c)
	a.askFlag(c)
	f.add(a, c)
	c.Flags().BoolVar(&first, "flash", false, "flash the box first")
	c.Flags().StringSliceVar(&images, "image", nil, "with --flash: this file instead of the release's")
	c.Flags().BoolVar(&way.byHand, "by-hand", false, "do not ask the ISP router to open the port; say how it is done by hand")
	c.Flags().BoolVar(&way.end, "close", false, "take back what heimweg opened at the ISP router, and do nothing else")
	c.Flags().StringVar(&peer, "peer", "", "name of the first device (default: asked for)")
	c.Flags().StringVarP(&d.conf, "output", "o", "", "write the first device's configuration to this file")
	c.Flags().StringVar(&d.png, "png", "", "write its QR code to this PNG file")
	c.Flags().StringVar(&d.svg, "svg", "", "write its QR code to this SVG file")
	return c
}

func (a *app) up(ctx context.Context, n answers, d delivery, peer string, way wayFlags) error {
	start := time.Now()
	if way.end {
		f, err := a.readHome()
		if err != nil {
			return err
		}
		_, err = a.openWay(ctx, f, way)
		return err
	}
	if _, err := os.Lstat(a.homePath); err != nil {
		if _, err := a.init(ctx, n); err != nil {
			return err
		}
	}
	if err := a.apply(ctx, nil, ""); err != nil {
		return err
	}
	f, err := a.readHome()
	if err != nil {
		return err
	}
	mapped, err := a.openWay(ctx, f, way)
	if err != nil {
		return err
	}
	if f, err = a.readHome(); err != nil {
		return err
	}
	if err := a.firstPeer(ctx, f, d, peer); err != nil {
		return err
	}
	if f, err = a.readHome(); err != nil {
		return err
	}
	v, err := a.visit(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	res, err := a.test(ctx, v, verifyFlags{via: a.Getenv("HEIMWEG_OUTSIDE"), mapped: mapped})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(res)
	}
	view.Verify(a.Out, a.style, res)
	if res.Broken() {
		return errExit(fault.ExitDifferences)
	}
	a.sayf("Done in %s. What you wanted is written in %s. Next: heimweg peer add laptop", view.Took(time.Since(start)), a.homePath)
	return nil
}

// firstPeer adds a device when there is none yet.
func (a *app) firstPeer(ctx context.Context, f *home.File, d delivery, name string) error {
	if name == "" {
		if len(f.Home.Peers) > 0 || !a.Terminal.IsTerminal() {
			return nil
		}
		got, err := a.ask(ctx, "First device? Its name:", "phone", "--peer NAME")
		if err != nil {
			return err
		}
		name = got
	}
	if _, known := f.Home.Peer(name); known {
		return nil
	}
	return a.addPeer(ctx, name, d, false)
}

// whereAmI is bare `heimweg`: where you are, and the next step.
func (a *app) whereAmI(context.Context) error {
	f, err := a.readHome()
	if err != nil {
		if fault.Find(err) != nil && fault.Find(err).Code == "no-home" {
			fmt.Fprintln(a.Out, "There is no home.toml here yet.")
			fmt.Fprintln(a.Out, "  next  heimweg up          sets up a router with OpenWrt, and the first device")
			fmt.Fprintln(a.Out, "        heimweg up --flash  the same, from a FRITZ!Box as it was bought")
			fmt.Fprintln(a.Out, "        heimweg adopt       for a gateway that somebody set up by hand")
			fmt.Fprintln(a.Out, "        heimweg lab tour    shows it all in an emulated home, nothing touched")
			return nil
		}
		return err
	}
	h := f.Home
	fmt.Fprintf(a.Out, "%s: router %s, tunnel %s, %d devices\n", a.homePath, h.Router.Address, h.Tunnel.Network, len(h.Peers))
	next := "heimweg status    who is home"
	if len(h.Peers) == 0 {
		next = "heimweg up        finishes the evening: first device and proof"
	}
	fmt.Fprintln(a.Out, "  next  "+next)
	return nil
}
