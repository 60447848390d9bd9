package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/view"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use: "status", Short: "who is home, and what differs from home.toml", Args: cobra.NoArgs,
		Long: `status looks at the home router once and shows the tunnel, every device with its
latest handshake, and what differs from home.toml. It changes nothing.`,
		Example: "  heimweg status\n  heimweg status --watch\n  heimweg status --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context(), watch) },
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "look again every 2 s until Ctrl-C")
	return c
}

// watchEvery is how often --watch looks.
const watchEvery = 2 * time.Second

func (a *app) status(ctx context.Context, watch bool) error {
	f, err := a.readHome()
	if err != nil {
		return err
	}
	v, err := a.visitToLook(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	v.request.Access.Password, v.request.Access.Key = false, ""
	snap := v.Snapshot()
	where := a.glance(ctx, f.Home, snap)
	for {
		p := v.Plan(v.request)
		st := view.StatusOf(f.Home, snap, p)
		st.Where = &where
		if a.json {
			if err := a.printJSON(st); err != nil {
				return err
			}
		} else {
			if watch && a.style.Colour {
				fmt.Fprint(a.Out, "\x1b[H\x1b[2J")
			}
			view.StatusText(a.Out, a.style, st)
		}
		if !watch {
			return nil
		}
		select {
		case <-ctx.Done():
			return errExit(fault.ExitDone) // Ctrl-C is how watching ends
		case <-time.After(watchEvery):
		}
		if snap, err = openwrt.Look(ctx, v.Shell(), openwrt.LookFor{}); err != nil {
			if ctx.Err() != nil {
				return errExit(fault.ExitDone)
			}
			return err
		}
	}
}
