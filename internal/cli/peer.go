package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/qr"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/view"
	"github.com/heimweg/heimweg/internal/wgconf"
)

func (a *app) peerCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "peer", Short: "devices that may come home",
		Long: `A peer is a device that may come home: a phone, a laptop. heimweg peer edits
home.toml and then tells the router, without cutting anybody off.`,
		Example: `  heimweg peer add phone            shows a QR code for the WireGuard app
  heimweg peer add laptop -o laptop.conf
  heimweg peer list`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.peerAdd(), a.peerRenew(), a.peerList(), a.peerShow(), a.peerRename(),
		a.peerSwitch("disable", "keep a device from coming home, without forgetting it", true),
		a.peerSwitch("enable", "let a disabled device come home again", false),
		a.peerRemove())
	return c
}

// delivery is where a device's configuration goes.
type delivery struct {
	conf, png, svg string
	public         string
	admin          bool
	endpoint       string
}

func (d *delivery) flags(c *cobra.Command) {
	c.Flags().StringVarP(&d.conf, "output", "o", "", "write the configuration to this file (mode 0600; - for standard output)")
	c.Flags().StringVar(&d.png, "png", "", "write the QR code to this PNG file (mode 0600)")
	c.Flags().StringVar(&d.svg, "svg", "", "write the QR code to this SVG file (mode 0600)")
	c.Flags().StringVar(&d.endpoint, "endpoint", "", "host name or public address that the device calls (default: what home.toml says)")
}

func (a *app) peerAdd() *cobra.Command {
	var d delivery
	c := &cobra.Command{
		Use: "add NAME", Short: "let a new device come home, and show its QR code once", Args: cobra.ExactArgs(1),
		Long: `add makes keys and an address for a device, tells the router, and shows the QR
code for the WireGuard app. The device's private key is shown this once and kept
nowhere; heimweg peer renew makes a new one.

A device that makes its own key gives only its public one: --public-key.`,
		Example: `  heimweg peer add phone
  heimweg peer add laptop -o laptop.conf
  heimweg peer add tablet --png tablet.png
  heimweg peer add work --public-key 'mF8…='   the device keeps its own private key`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.addPeer(cmd.Context(), args[0], d, false) },
	}
	d.flags(c)
	a.askFlag(c)
	c.Flags().StringVar(&d.public, "public-key", "", "the public key of a device that made its own")
	c.Flags().BoolVar(&d.admin, "admin", false, "the device may also log in to the router through the tunnel")
	return c
}

func (a *app) peerRenew() *cobra.Command {
	var d delivery
	c := &cobra.Command{
		Use: "renew NAME", Short: "new keys for a device: after a loss, or when its QR code was lost", Args: cobra.ExactArgs(1),
		Long: `renew gives a device new keys. Its name and address stay; its old configuration
stops working at once.`,
		Example:           "  heimweg peer renew phone",
		RunE:              func(cmd *cobra.Command, args []string) error { return a.addPeer(cmd.Context(), args[0], d, true) },
		ValidArgsFunction: a.completePeers,
	}
	d.flags(c)
	a.askFlag(c)
	c.Flags().StringVar(&d.public, "public-key", "", "the new public key of a device that makes its own")
	return c
}

// secrets of one new device: they live as long as the command.
type secrets struct {
	private   key.Private
	preshared key.Preshared
}

func (a *app) addPeer(ctx context.Context, name string, d delivery, renew bool) error {
	if err := a.checkDelivery(d); err != nil {
		return err
	}
	var conf wgconf.Conf
	var code *qr.Code
	err := a.changePeers(ctx, func(f *home.File) (*home.File, map[string]key.Preshared, error) {
		after, sec, err := a.makePeer(f, name, d, renew)
		if err != nil {
			return nil, nil, err
		}
		psk := map[string]key.Preshared{}
		if !sec.preshared.IsZero() {
			psk[name] = sec.preshared
		}
		conf.Interface.PrivateKey, conf.Peer.Preshared = sec.private, sec.preshared
		return after, psk, nil
	}, func(v *visit) error {
		p, _ := v.file.Home.Peer(name)
		endpoint, err := a.endpoint(ctx, v, d.endpoint)
		if err != nil {
			return err
		}
		live := v.Snapshot().Tunnels[v.file.Home.Tunnel.Interface]
		if live == nil {
			return fault.New("no-tunnel", "the router has no tunnel yet").Do("heimweg apply")
		}
		if conf, err = wgconf.For(v.file.Home, p, live.PublicKey, endpoint, conf.Interface.PrivateKey, conf.Peer.Preshared); err != nil {
			return err
		}
		code, err = qr.Encode(string(conf.Compact()))
		return err
	})
	if err != nil {
		return err
	}
	return a.deliver(name, conf, code, d)
}

// makePeer puts a new device, or new keys for a known one, into home.toml.
func (a *app) makePeer(f *home.File, name string, d delivery, renew bool) (*home.File, secrets, error) {
	var s secrets
	public, err := a.publicKey(d, &s)
	if err != nil {
		return nil, s, err
	}
	if s.preshared, err = key.NewPreshared(a.Rand); err != nil {
		return nil, s, err
	}
	if renew {
		known, ok := f.Home.Peer(name)
		if !ok {
			return nil, s, unknownPeer(f.Home, name)
		}
		if !known.Preshared {
			s.preshared = key.Preshared{}
		}
		after, err := f.SetPeer(name, func(p *home.Peer) { p.PublicKey = public })
		return after, s, err
	}
	p, err := f.Home.NextPeer(name, public)
	var full *subnet.FullError
	if errors.As(err, &full) {
		return nil, s, fault.New("tunnel-full", "no address is free in the tunnel network %s", f.Home.Tunnel.Network).
			Do("remove a device that is no longer used: heimweg peer list")
	}
	if err != nil {
		return nil, s, err
	}
	p.Admin = d.admin
	after, err := f.AddPeer(p)
	return after, s, err
}

func (a *app) publicKey(d delivery, s *secrets) (key.Public, error) {
	if d.public != "" {
		k, err := key.ParsePublic(strings.TrimSpace(d.public))
		if err != nil {
			return k, fault.NewUsage("bad-public-key", "--public-key: %s", err).
				Do("copy the public key that the device shows: 44 characters, the last one is =")
		}
		return k, nil
	}
	var err error
	s.private, err = key.NewPrivate(a.Rand)
	return s.private.Public(), err
}

func unknownPeer(h home.Home, name string) error {
	var names []string
	for _, p := range h.Peers {
		names = append(names, p.Name)
	}
	f := fault.NewUsage("unknown-peer", "there is no device %q in home.toml", name)
	if len(names) > 0 {
		f.Saw("there are %s", strings.Join(names, ", "))
	}
	return f.Do("heimweg peer list")
}

// changePeers edits home.toml, tells the router, and only then keeps the file. ready
// runs when the router has been looked at and before anything is written: what
// fails there leaves everything as it was.
func (a *app) changePeers(ctx context.Context, edit func(*home.File) (*home.File, map[string]key.Preshared, error), ready func(*visit) error) error {
	unlock, err := a.lockHome()
	if err != nil {
		return err
	}
	defer unlock()
	before, err := a.readHome()
	if err != nil {
		return err
	}
	after, psk, err := edit(before)
	if err != nil {
		return err
	}
	v, err := a.visit(ctx, after)
	if err != nil {
		return err
	}
	defer v.Close()
	v.request.Preshared = psk
	v.request.Access.Password, v.request.Access.Key = false, ""
	if ready != nil {
		if err := ready(v); err != nil {
			return err
		}
	}
	p := v.Plan(v.request)
	if p.NeedsGuard() || len(p.Packages()) > 0 {
		return fault.New("not-settled", "the router differs from home.toml in more than its devices").
			Do("heimweg apply first, then run this command again")
	}
	if len(p.Blocked) > 0 {
		return fault.List(p.Blocked)
	}
	// The file first: a device that the router knows and home.toml does not would
	// be taken off again by the next apply.
	if err := a.writeHome(after); err != nil {
		return err
	}
	if err := v.Run(ctx, p, v.request); err != nil {
		if back := a.writeHome(before); back != nil {
			return errors.Join(err, back)
		}
		return err
	}
	return nil
}

// endpoint is what devices call: what was asked for, what home.toml says, or the
// router's own address when that is public.
func (a *app) endpoint(ctx context.Context, v *visit, flag string) (string, error) {
	h := v.file.Home
	if flag != "" {
		_, err := v.file.SetEndpoint(flag) // the same rules as in home.toml; the file is not written
		return flag, err
	}
	if name := h.CallName(); name != "" {
		return name, nil
	}
	if e := publicAddress(h, v.Snapshot()); e != "" {
		return e, nil
	}
	where := a.where(ctx, v)
	if where.Callable() {
		a.sayf("%-24s %s (%s)", "Home is at", where.Endpoint.Host, where.Words())
		return where.Endpoint.Host, nil
	}
	if e := a.publicByISP(h, v.Snapshot()); e.IsValid() && where.Kind == endpoint.Unclear {
		return e.String(), nil
	}
	return "", unreachable(where)
}

// publicAddress is the WAN address of a router that has a public one itself.
func publicAddress(h home.Home, s *router.Snapshot) string {
	if h.Uplink.Kind != home.Direct {
		return ""
	}
	i, _ := s.Interface("wan")
	for _, p := range i.Addresses {
		if subnet.IsPublic(p.Addr()) {
			return p.Addr().String()
		}
	}
	return ""
}

// checkDelivery asks early where a secret shall go: a pipe is no place for one
// unless it was named.
func (a *app) checkDelivery(d delivery) error {
	for _, path := range []string{d.conf, d.png, d.svg} {
		if path == "" || path == "-" {
			continue
		}
		if _, err := os.Lstat(path); err == nil {
			return fileExists(path, os.ErrExist)
		}
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fault.NewUsage("no-folder", "there is no folder %s", filepath.Dir(path)).Do("make it, or name another file")
		}
	}
	if !a.Terminal.IsTerminal() && d.conf == "" && d.png == "" && d.svg == "" && d.public == "" {
		return fault.NewUsage("where-to", "there is no terminal to show a QR code on").
			Do("say where the configuration goes: -o phone.conf, --png phone.png or --svg phone.svg").Exits(fault.ExitNeedsPerson)
	}
	return nil
}

// deliver hands the configuration over: this once.
func (a *app) deliver(name string, conf wgconf.Conf, code *qr.Code, d delivery) error {
	var files []string
	for _, f := range []struct {
		path string
		text []byte
	}{{d.conf, conf.Text()}, {d.png, nil}, {d.svg, nil}} {
		if f.path == "" || f.path == "-" {
			continue
		}
		switch f.path {
		case d.png:
			f.text = code.PNG()
		case d.svg:
			f.text = code.SVG()
		}
		if err := store.Create(f.path, f.text, 0o600); err != nil {
			return fmt.Errorf("%s is on the router, but its configuration could not be written: %w (heimweg peer renew %s makes a new one)", name, err, name)
		}
		files = append(files, f.path)
	}
	if a.json {
		return a.printJSON(map[string]any{"peer": name, "public_key": conf.Interface.PrivateKey.Public().String(), "files": files})
	}
	if d.conf == "-" {
		_, err := a.Out.Write(conf.Text())
		return err
	}
	for _, f := range files {
		a.sayf("  %s %s", a.style.Good("✓"), f)
	}
	if len(files) == 0 {
		a.showCode(name, conf, code)
		return nil
	}
	if conf.Interface.PrivateKey.IsZero() {
		a.sayf("Put this into the WireGuard app on %s, which has the private key.", name)
		return nil
	}
	a.sayf("The private key is in there and nowhere else: hand it to %s, then delete the file.", name)
	return nil
}

// showCode draws the QR code when the terminal is large enough for it, and says
// what to do when it is not.
func (a *app) showCode(name string, conf wgconf.Conf, code *qr.Code) {
	if conf.Interface.PrivateKey.IsZero() {
		fmt.Fprintf(a.Out, "%s", conf.Text())
		a.sayf("Put this into the WireGuard app on %s, which has the private key.", name)
		return
	}
	columns, lines, ok := a.Terminal.Size()
	quiet, fits := code.Fits(columns, lines)
	if !ok || !fits {
		a.sayf("The QR code needs %d columns and %d lines, this terminal has %d × %d. Here is the configuration as text;", code.Columns(2), code.Lines(2), columns, lines)
		a.sayf("for the code make the window larger (or the letters smaller) and run: heimweg peer renew %s   or: heimweg peer renew %s --png %s.png", name, name, name)
		fmt.Fprintf(a.Out, "\n%s", conf.Text())
	} else {
		fmt.Fprint(a.Out, code.Half(quiet))
		a.sayf("Scan it with the WireGuard app on %s.", name)
	}
	a.sayf("The private key is shown this once and kept nowhere else.")
}

func (a *app) peerList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the devices that home.toml names", Args: cobra.NoArgs,
		Example: "  heimweg peer list\n  heimweg peer list --json",
		RunE: func(*cobra.Command, []string) error {
			f, err := a.readHome()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(view.Peers(f.Home))
			}
			view.PeerTable(a.Out, f.Home)
			return nil
		},
	}
}

func (a *app) peerShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "show one device", Args: cobra.ExactArgs(1),
		Long:    "show tells what home.toml says of a device. Its private key is not known to heimweg and cannot be shown again.",
		Example: "  heimweg peer show phone", ValidArgsFunction: a.completePeers,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.readHome()
			if err != nil {
				return err
			}
			p, ok := f.Home.Peer(args[0])
			if !ok {
				return unknownPeer(f.Home, args[0])
			}
			if a.json {
				return a.printJSON(view.PeerOf(f.Home, p))
			}
			view.PeerDetail(a.Out, f.Home, p)
			return nil
		},
	}
}

func (a *app) peerRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename OLD NEW", Short: "give a device another name; its keys and address stay", Args: cobra.ExactArgs(2),
		Example: "  heimweg peer rename phone annas-phone", ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simpleChange(cmd.Context(), args[0], args[0]+" is called "+args[1]+" now", func(f *home.File) (*home.File, error) {
				return f.RenamePeer(args[0], args[1])
			})
		},
	}
}

func (a *app) peerSwitch(verb, short string, disabled bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1),
		Example: "  heimweg peer " + verb + " phone", ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			done := args[0] + " may come home"
			if disabled {
				done = args[0] + " cannot come home until it is enabled again"
			}
			return a.simpleChange(cmd.Context(), args[0], done, func(f *home.File) (*home.File, error) {
				return f.SetPeer(args[0], func(p *home.Peer) { p.Disabled = disabled })
			})
		},
	}
}

func (a *app) peerRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "forget a device; its configuration stops working at once", Args: cobra.ExactArgs(1),
		Example: "  heimweg peer remove phone", ValidArgsFunction: a.completePeers,
		RunE: func(cmd *cobra.Command, args []string) error {
			ok, err := a.agree(cmd.Context(), "Forget "+args[0]+"? Its configuration stops working at once.")
			if err != nil {
				return err
			}
			if !ok {
				return nothingDone()
			}
			return a.simpleChange(cmd.Context(), args[0], args[0]+" is forgotten", func(f *home.File) (*home.File, error) {
				return f.RemovePeer(args[0])
			})
		},
	}
}

func (a *app) simpleChange(ctx context.Context, name, done string, edit func(*home.File) (*home.File, error)) error {
	err := a.changePeers(ctx, func(f *home.File) (*home.File, map[string]key.Preshared, error) {
		if _, ok := f.Home.Peer(name); !ok {
			return nil, nil, unknownPeer(f.Home, name)
		}
		after, err := edit(f)
		return after, nil, err
	}, nil)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"peer": name, "done": done})
	}
	fmt.Fprintln(a.Out, done)
	return nil
}

// completePeers completes names of devices.
func (a *app) completePeers(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	f, err := a.readHome()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range f.Home.Peers {
		out = append(out, p.Name+"\t"+p.Address.String())
	}
	slices.Sort(out)
	return out, cobra.ShellCompDirectiveNoFileComp
}
