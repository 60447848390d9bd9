package cli

import (
	"context"
	"errors"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/relay"
	"github.com/heimweg/heimweg/internal/store"
)

func (a *app) relayCommand() *cobra.Command {
	var server, script string
	c := &cobra.Command{
		Use: "relay HOST", Short: "write what a small host on the internet needs to let devices come home through it", Args: cobra.ExactArgs(1),
		Long: `relay is for houses that nobody can call (CGNAT, DS-Lite without IPv6): a small
rented host with a public address passes the tunnel's port on, through a link that
the home router opens and keeps open. Devices call that host as if it were home.
What they say stays encrypted from end to end; the host between cannot read it.

It writes two files with keys and changes nothing anywhere: a configuration for
wg-quick on that host (Linux with wireguard-tools and nftables), and a script for
the home router's end, which a person runs once.`,
		Example: "  heimweg relay relay.example.net",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.relay(cmd.Context(), args[0], server, script)
		},
	}
	c.Flags().StringVar(&server, "server", "relay-server.conf", "where to write the server's configuration")
	c.Flags().StringVar(&script, "script", "relay-home.sh", "where to write the home router's script")
	return c
}

// Relay is what `heimweg relay --json` tells.
type Relay struct {
	Server   string `json:"server_file"`
	Script   string `json:"router_file"`
	Endpoint string `json:"endpoint"`
	MTU      int    `json:"tunnel_mtu"`
}

func (a *app) relay(_ context.Context, host, server, script string) error {
	f, err := a.readHome()
	if err != nil {
		return err
	}
	if _, err := f.SetEndpoint(host); err != nil { // the same rules as in home.toml; the file is not written
		return err
	}
	h := f.Home
	r, err := relay.New(a.Rand, h, host)
	var taken *relay.TakenError
	switch {
	case errors.As(err, &taken):
		return fault.NewUsage("relay-port", "%s", taken).Do("choose another port under [tunnel] in %s", a.homePath)
	case err != nil:
		return err
	}
	for _, out := range []struct {
		path string
		text []byte
	}{{server, r.Server()}, {script, r.Script()}} {
		if err := store.Create(out.path, out.text, 0o600); err != nil {
			return fileExists(out.path, err)
		}
	}
	if a.json {
		return a.printJSON(Relay{server, script, host, relay.TunnelMTU})
	}
	a.sayf("%-24s %s    its configuration for wg-quick, with keys", "For the server", server)
	a.sayf("%-24s %s    its end of the link, with keys", "For the home router", script)
	a.sayf("Four things by hand:")
	a.sayf("  1  copy %s to the server as /etc/wireguard/heimweg.conf, and switch it on there:", server)
	a.sayf("     systemctl enable --now wg-quick@heimweg; its firewall must let UDP %d and %d in", r.Calls, relay.Port)
	a.sayf("  2  ssh root@%s sh -s < %s", h.Router.Address, script)
	a.sayf("  3  in %s, under [tunnel]: endpoint = %q and mtu = %d; then heimweg apply", a.homePath, host, relay.TunnelMTU)
	a.sayf("  4  devices that have a configuration already: change their Endpoint to %s:%d and", bracketed(host), r.Calls)
	a.sayf("     their MTU to %d, or run heimweg peer renew NAME; then delete both files", relay.TunnelMTU)
	return nil
}

// bracketed is a host as it stands before a port.
func bracketed(host string) string {
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + host + "]"
	}
	return host
}
