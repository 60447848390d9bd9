package cli

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/shell"
)

func (a *app) trustCommand() *cobra.Command {
	return &cobra.Command{
		Use: "trust [ADDRESS]", Short: "accept a router's new host key, after a reflash or reset", Args: cobra.MaximumNArgs(1),
		Long: `A router shows the same host key until it is flashed or reset. heimweg remembers
the first one it sees and refuses another. trust accepts the new one.`,
		Example: "  heimweg trust\n  heimweg trust 192.168.1.1",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.readHome()
			if err != nil && len(args) == 0 && a.router == "" {
				return err
			}
			if len(args) == 1 {
				a.router = args[0]
			}
			target := shell.Target{Addr: a.router, ID: a.router}
			if f != nil {
				target.User, target.Jump = f.Home.Router.User, f.Home.Router.Jump
				if a.router == "" {
					target.Addr, target.ID = f.Home.Router.Address, f.Home.Router.Address
				}
			}
			o, _, err := a.options()
			if err != nil {
				return err
			}
			c, err := shell.Open(cmd.Context(), target, o)
			var changed *shell.HostKeyError
			switch {
			case err == nil:
				c.Close()
				a.sayf("The router at %s shows the key that is known. Nothing to do.", target.Addr)
				return nil
			case !errors.As(err, &changed):
				return err
			}
			for _, k := range changed.Known {
				a.sayf("known  %s", k)
			}
			a.sayf("now    %s %s", changed.Type, changed.Seen)
			ok, err := a.agree(cmd.Context(), "Did you flash or reset this router? Then accept the new key.")
			if err != nil {
				return err
			}
			if !ok {
				return nothingDone()
			}
			dir, err := a.folder()
			if err != nil {
				return err
			}
			if err := shell.Accept(&shell.File{Path: filepath.Join(dir, "known_routers")}, changed); err != nil {
				return fault.New("not-remembered", "the new key could not be written down").From(err).Saw("%s", err)
			}
			a.sayf("Accepted.")
			return nil
		},
	}
}
