package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/hostnet"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/propose"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/view"
)

// answers are what init asks or takes from flags.
type answers struct {
	uplink, tunnel, endpoint, input, renumber string
	reach, packages                           []string
	port                                      uint16
}

func (n *answers) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&n.endpoint, "endpoint", "", "host name or public address under which home is called from outside")
	f.StringSliceVar(&n.reach, "reach", nil, "what devices may reach: home-lan, uplink-lan, internet (default home-lan)")
	f.StringVar(&n.uplink, "uplink", "", "where the router sits: behind-isp-router, direct or one-armed (default: found out)")
	f.StringVar(&n.tunnel, "tunnel", "", "network of the tunnel, such as 10.86.20.0/24 (default: an uncommon one)")
	f.Uint16Var(&n.port, "port", home.DefaultPort, "UDP port of the tunnel")
	f.StringVar(&n.renumber, "renumber", "", "move the home LAN to this network")
	f.StringVar(&n.input, "input", "", "firewall default for interfaces without a zone: reject or accept (asked on 21.02 and 22.03)")
	f.StringSliceVar(&n.packages, "package", nil, "an extra package to have on the router, such as nano")
}

func (a *app) initCommand() *cobra.Command {
	var n answers
	c := &cobra.Command{
		Use: "init", Short: "look at the router and write home.toml", Args: cobra.NoArgs,
		Long: `init looks for the home router, finds out where it sits and which networks there
are, proposes a tunnel network that collides with none, asks what it cannot find
out, and writes home.toml with a comment on every line. It changes nothing on the
router.

Under which address home is called it finds out, too: from the router, from the
ISP router where that tells programs its address, and with --ask-outside from
somebody outside whom you name.`,
		Example: `  heimweg init
  heimweg init --endpoint home.example.net --reach home-lan,internet
  heimweg init --router 192.168.1.1 --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := a.init(cmd.Context(), n)
			return err
		},
	}
	n.flags(c)
	a.askFlag(c)
	return c
}

func (a *app) init(ctx context.Context, n answers) (*home.File, error) {
	if _, err := os.Lstat(a.homePath); err == nil {
		return nil, fault.NewUsage("home-exists", "%s exists already and is not overwritten", a.homePath).
			Do("edit it and run heimweg apply, or name another file with --home")
	}
	addr, err := a.findRouter(ctx)
	if err != nil {
		return nil, err
	}
	s, err := a.firstLook(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	snap := s.Snapshot()
	nets, _ := hostnet.Networks()
	d, err := propose.Home(a.Rand, addr, snap, nets)
	if err != nil {
		return nil, err
	}
	a.tellDraft(snap, d)
	if err := a.settleDraft(ctx, s, &d, n); err != nil {
		return nil, err
	}
	text := home.Compose(d.Home)
	f, err := home.Parse(a.homePath, text)
	if err != nil {
		return nil, err
	}
	if err := store.Create(a.homePath, text, 0o600); err != nil {
		return nil, fileExists(a.homePath, err)
	}
	if a.json {
		return f, a.printJSON(map[string]any{"home": a.homePath, "router": addr, "tunnel": d.Home.Tunnel.Network.String(), "uplink": d.Home.Uplink.Kind.String()})
	}
	a.sayf("%-24s %s", "Written", a.homePath)
	return f, nil
}

// findTime is how long the search for a router may take.
const findTime = 4 * time.Second

// findRouter takes the address that was given, or looks where routers are.
func (a *app) findRouter(ctx context.Context) (string, error) {
	if a.router != "" {
		return a.router, nil
	}
	candidates := hostnet.Candidates()
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	found := hostnet.Greeting(ctx, hostnet.Dial(a.Dial), candidates)
	switch len(found) {
	case 1:
		return found[0].String(), nil
	case 0:
		f := fault.New("no-router", "no router with SSH answered in %s", findTime).Exits(fault.ExitUnreachable)
		f.Saw("asked %s", join(candidates))
		return "", f.Do("connect this computer to one of the home router's LAN ports, then run the same command again; or name it: --router ADDRESS")
	}
	if slices.Contains(found, hostnet.Fresh) && !a.Terminal.IsTerminal() {
		return "", needsPerson("several routers answer: "+join(found), "--router ADDRESS")
	}
	got, err := a.ask(ctx, "Several routers answer ("+join(found)+"). Which one is the home router?", found[0].String(), "--router ADDRESS")
	return got, err
}

func join(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}

// firstLook connects and looks. The caller closes the session.
func (a *app) firstLook(ctx context.Context, addr string) (*apply.Session, error) {
	h := home.New()
	h.Router.Address = addr
	way, _, err := a.way(h)
	if err != nil {
		return nil, err
	}
	a.router = addr
	s, err := apply.Start(ctx, way, openwrt.LookFor{}, a.tell())
	if err != nil {
		return nil, err
	}
	if err := apply.Check(s.Snapshot(), addr); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (a *app) tellDraft(snap *router.Snapshot, d propose.Draft) {
	b := snap.Board
	state := ""
	if !snap.RootHash {
		state = ", fresh (no password yet)"
	}
	a.sayf("%-24s %s  %s, OpenWrt %s%s", "Router", d.Home.Router.Address, b.Model, b.Release.Version, state)
	where := map[home.Kind]string{
		home.Behind:   "behind another router",
		home.Direct:   "directly on the internet",
		home.OneArmed: "a device in the ISP router's LAN",
	}[d.Home.Uplink.Kind]
	switch {
	case subnet.IsCarrier(d.WAN):
		where += fmt.Sprintf(" (its WAN address %s is the provider's own: many customers share one public address)", d.WAN)
	case d.WAN.IsValid() && d.Home.Uplink.Kind == home.Behind:
		where += fmt.Sprintf(" (its WAN address %s is private)", d.WAN)
	case d.WAN.IsValid():
		where += fmt.Sprintf(" (its WAN address is %s)", d.WAN)
	case d.Home.Uplink.Kind == home.Behind:
		where += " (its WAN side has no address: is the cable to the ISP router plugged in?)"
	}
	a.sayf("%-24s %s", "Where it sits", where)
	for _, name := range adopt.Tunnels(snap) {
		a.sayf("%-24s %s was set up by hand and stays as it is; heimweg adopt --tunnel %s would take it over instead", "Tunnels", name, name)
	}
	for _, l := range d.Home.LANs {
		if l.Renumber {
			a.sayf("%-24s the home LAN and the uplink LAN are the same network; the home LAN moves to %s", "Networks", l.Network)
		}
	}
	for _, name := range d.LeftOut {
		a.sayf("%-24s %s is the same network as the uplink LAN, too, and is left out for now", "Networks", name)
	}
	for _, w := range d.Away {
		a.sayf("%-24s your home LAN %s is common elsewhere, too; from such a place it cannot be reached.", "Networks", w.Network)
		a.sayf("%-24s To move it: heimweg init --renumber NETWORK, with one that nobody else uses", "")
	}
}

// settleDraft puts in what was answered, and asks for the rest.
func (a *app) settleDraft(ctx context.Context, s *apply.Session, d *propose.Draft, n answers) error {
	h := &d.Home
	h.Tunnel.Port = n.port
	h.Router.Packages = n.packages
	if n.uplink != "" {
		if err := h.Uplink.Kind.UnmarshalText([]byte(n.uplink)); err != nil {
			return fault.NewUsage("bad-uplink", "--uplink: %s", err).Do("write one of the three")
		}
		if h.Uplink.Kind != home.Behind {
			h.Uplink.Network = subnet.Network{}
		}
	}
	var err error
	if n.tunnel != "" {
		if h.Tunnel.Network, err = subnet.ParseNetwork(n.tunnel); err != nil {
			return fault.NewUsage("bad-tunnel", "--tunnel: %s", err).Do("write it like 10.86.20.0/24")
		}
	}
	if n.renumber != "" && len(h.LANs) > 0 {
		if h.LANs[0].Network, err = subnet.ParseNetwork(n.renumber); err != nil {
			return fault.NewUsage("bad-renumber", "--renumber: %s", err).Do("write it like 10.40.7.0/24")
		}
		h.LANs[0].Renumber = true
	}
	if err := a.askEndpoint(ctx, s, d, n); err != nil {
		return err
	}
	if err := a.askReach(ctx, d, n); err != nil {
		return err
	}
	return a.askInput(ctx, d, n)
}

// askEndpoint finds out where home is, and asks a person only for what cannot be
// found out. An address that was found out is not written down: it may change, and
// every command finds it out again.
func (a *app) askEndpoint(ctx context.Context, s *apply.Session, d *propose.Draft, n answers) error {
	d.Home.Tunnel.Endpoint = n.endpoint
	if n.endpoint != "" {
		return nil
	}
	where := a.where(ctx, &visit{Session: s, file: &home.File{Home: d.Home}})
	view.Where(a.Err, a.style, where)
	if where.Callable() || a.yes || !a.Terminal.IsTerminal() {
		return nil // it can be added later; peer add says so
	}
	a.sayf("Under which name or address is home reached from the internet?")
	prompt := "A MyFRITZ or DynDNS name, or the public address that the ISP router shows"
	if where.Endpoint.Host == "" {
		prompt += " (Enter: later):"
	}
	for {
		got, err := a.ask(ctx, prompt, where.Endpoint.Host, "--endpoint NAME")
		if err != nil || got == "" {
			return err
		}
		d.Home.Tunnel.Endpoint = got
		_, err = home.Parse("answer", home.Compose(d.Home))
		if err == nil {
			return nil
		}
		d.Home.Tunnel.Endpoint = ""
		f := fault.Find(err)
		if f == nil || !a.Terminal.IsTerminal() {
			return err
		}
		a.sayf("%s; %s", f.What, strings.Join(f.Next, "; "))
	}
}

func (a *app) askReach(ctx context.Context, d *propose.Draft, n answers) error {
	reach := n.reach
	if len(reach) == 0 && a.Terminal.IsTerminal() && !a.yes {
		a.sayf("What may devices reach?")
		a.sayf("  1  your home LAN")
		a.sayf("  2  also what hangs on the ISP router")
		a.sayf("  3  all of that, and the internet through home")
		got, err := a.ask(ctx, "Choose", "1", "--reach")
		if err != nil {
			return err
		}
		reach = map[string][]string{"1": {"home-lan"}, "2": {"home-lan", "uplink-lan"}, "3": {"home-lan", "uplink-lan", "internet"}}[got]
		if reach == nil {
			reach = strings.Split(got, ",")
		}
		if d.Home.Uplink.Kind != home.Behind {
			reach = slices.DeleteFunc(reach, func(s string) bool { return s == "uplink-lan" })
		}
	}
	if len(reach) == 0 {
		return nil
	}
	r := &d.Home.Reach
	r.HomeLAN, r.UplinkLAN, r.Internet = false, false, false
	for _, w := range reach {
		switch strings.TrimSpace(w) {
		case "home-lan":
			r.HomeLAN = true
		case "uplink-lan":
			r.UplinkLAN = true
		case "internet":
			r.Internet = true
		default:
			return fault.NewUsage("bad-reach", "nothing is called %q here", w).Do("choose among home-lan, uplink-lan, internet")
		}
	}
	return nil
}

func (a *app) askInput(ctx context.Context, d *propose.Draft, n answers) error {
	d.Home.Router.Input = n.input
	if n.input != "" || !d.AskInput || !a.Terminal.IsTerminal() {
		return nil
	}
	a.sayf("This release lets in whatever comes from an interface that is in no firewall zone.")
	ok, err := a.agree(ctx, "Close that? Newer releases ship it closed.")
	if err != nil {
		return err
	}
	d.Home.Router.Input = map[bool]string{true: "reject", false: "accept"}[ok]
	return nil
}
