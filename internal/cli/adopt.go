package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/propose"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/view"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// adoptFlags say what is taken over.
type adoptFlags struct {
	tunnel   string
	gateway  string
	easy     string
	peers    []string
	endpoint string
	admins   []string
}

func (a *app) adoptCommand() *cobra.Command {
	var fl adoptFlags
	c := &cobra.Command{
		Use: "adopt", Short: "take over a gateway that was set up by hand", Args: cobra.NoArgs,
		Long: `adopt reads a home router whose WireGuard tunnel somebody set up by hand (with LuCI,
or by a guide), says of each part whether it is needed, redundant, unsafe or harmful,
and why, and writes the home.toml that means the same. It changes nothing on the
router, and never overwrites a home.toml.

After it, heimweg plan shows the move to the recommended form, and heimweg apply
makes it, under guard: the tunnel keeps its name, key, port and addresses, so no
device needs a new configuration and nobody who is in is cut off. What has no place
in home.toml stays as it is.

Files can help, and there are two kinds. --gateway FILE (wg-quick) and --wg-easy FILE
describe a gateway, which moves from elsewhere onto the home router. --peer FILE
describes one device of it: where it calls, and what it is called.`,
		Example: `  heimweg adopt
  heimweg adopt --peer phone.conf          phone.conf describes a device of this gateway
  heimweg adopt --admin laptop             only laptop may log in to the router through the tunnel
  heimweg adopt --gateway wg0.conf         wg0.conf describes the gateway itself, from another machine
  heimweg adopt --wg-easy wg0.json         the same, of wg-easy`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.adopt(cmd.Context(), fl) },
	}
	f := c.Flags()
	f.StringVar(&fl.tunnel, "tunnel", "", "the WireGuard interface, when the router has several")
	f.StringVar(&fl.gateway, "gateway", "", "a wg-quick file that describes the gateway, instead of the router's own tunnel")
	f.StringVar(&fl.easy, "wg-easy", "", "wg-easy's wg0.json, which describes the gateway, instead of the router's own tunnel")
	f.StringSliceVar(&fl.peers, "peer", nil, "a configuration file that describes one device of the gateway")
	f.StringVar(&fl.endpoint, "endpoint", "", "host name or public address that devices call")
	f.StringSliceVar(&fl.admins, "admin", nil, "a device that may log in to the router through the tunnel")
	return c
}

func (a *app) adopt(ctx context.Context, fl adoptFlags) error {
	gateway, err := readGateway(fl.gateway, fl.easy)
	if err != nil {
		return err
	}
	devices, err := readDevices(fl.peers)
	if err != nil {
		return err
	}
	old, err := a.readHome()
	if f := fault.Find(err); err != nil && (f == nil || f.Code != "no-home") {
		return err
	}
	if a.router == "" && old != nil {
		a.router = old.Home.Router.Address
	}
	addr, err := a.findRouter(ctx)
	if err != nil {
		return err
	}
	snap, found, err := a.lookRound(ctx, addr, old)
	if err != nil {
		return err
	}
	found.Names = namesOf(devices)
	var got adopted
	if gateway != nil {
		got, err = a.importGateway(addr, snap, *gateway)
	} else {
		got, err = a.readRouter(addr, snap, found, fl.tunnel, old)
	}
	if err != nil {
		return err
	}
	if err := got.learn(fl, devices); err != nil {
		return err
	}
	return a.showAdopted(got, old != nil)
}

// lookRound is one look at the router and one at what lies about.
func (a *app) lookRound(ctx context.Context, addr string, old *home.File) (*router.Snapshot, adopt.Found, error) {
	h := home.New()
	if old != nil {
		h = old.Home
	}
	h.Router.Address = addr
	way, _, err := a.way(h)
	if err != nil {
		return nil, adopt.Found{}, err
	}
	a.router = addr
	s, err := apply.Start(ctx, way, openwrt.LookFor{Packages: adopt.Packages()}, a.tell())
	if err != nil {
		return nil, adopt.Found{}, err
	}
	defer s.Close()
	if err := apply.Check(s.Snapshot(), addr); err != nil {
		return nil, adopt.Found{}, err
	}
	found, err := openwrt.Rummage(ctx, s.Shell())
	return s.Snapshot(), found, err
}

// adopted is what adopt has found out so far.
type adopted struct {
	adopt.Adopted
	source string     // "" for the router itself, else the file that describes the gateway
	server key.Public // of the tunnel; zero when it is not known
	done   bool       // the tunnel is heimweg's already; only leftovers are shown
}

// readRouter reads the tunnel that somebody made on the router.
func (a *app) readRouter(addr string, s *router.Snapshot, f adopt.Found, tunnel string, old *home.File) (adopted, error) {
	tunnels := adopt.Tunnels(s)
	switch {
	case tunnel == "" && len(tunnels) == 0 && old != nil && ours(s, old.Home.Tunnel.Interface):
		return adopted{Adopted: adopt.Adopted{Home: old.Home, Parts: adopt.Leftovers(s, f, old.Home)}, done: true}, nil
	case tunnel == "" && len(tunnels) == 0:
		return adopted{}, fault.New("nothing-to-adopt", "the router at %s has no WireGuard tunnel that somebody set up by hand", addr).
			Do("heimweg up sets one up; heimweg adopt --gateway FILE takes one over from another machine")
	case tunnel == "" && len(tunnels) > 1:
		return adopted{}, fault.NewUsage("several-tunnels", "the router has several WireGuard tunnels: %s", strings.Join(tunnels, ", ")).
			Do("name the one that devices come home by: heimweg adopt --tunnel %s", tunnels[0])
	case tunnel == "":
		tunnel = tunnels[0]
	}
	got, err := adopt.Read(a.Rand, addr, s, f, tunnel)
	out := adopted{Adopted: got}
	if t := s.Tunnels[tunnel]; t != nil {
		out.server = t.PublicKey
	}
	return out, err
}

func ours(s *router.Snapshot, name string) bool {
	sec, ok := s.Config("network").Section(name)
	return ok && router.Ours("network", sec, s.Written)
}

// importGateway reads a gateway's file for the home router that it moves to.
func (a *app) importGateway(addr string, s *router.Snapshot, g adopt.Gateway) (adopted, error) {
	d, err := propose.Home(a.Rand, addr, s, nil)
	if err != nil {
		return adopted{}, err
	}
	h, left, err := adopt.Import(d.Home, g)
	out := adopted{Adopted: adopt.Adopted{Home: h}, source: g.File, server: g.Private.Public()}
	for _, l := range left {
		out.Notes = append(out.Notes, "left out: "+l)
	}
	if len(g.Ignored) > 0 {
		out.Notes = append(out.Notes, "not taken over, because OpenWrt has its own ways: "+strings.Join(g.Ignored, ", "))
	}
	if g.Port == 0 {
		out.Notes = append(out.Notes, "the file does not say the port; home.toml has the usual one, correct it if devices call another")
	}
	for _, dev := range g.Devices {
		if dev.Kept {
			out.Notes = append(out.Notes, "the file also holds devices' own private keys; delete it when the move is done")
			break
		}
	}
	return out, err
}

// A deviceFile is a file that describes one device.
type deviceFile struct {
	path string
	conf wgconf.Conf
}

// name is what the file calls the device: its own name.
func (f deviceFile) name() string {
	return strings.TrimSuffix(filepath.Base(f.path), filepath.Ext(f.path))
}

func namesOf(files []deviceFile) map[key.Public]string {
	out := map[key.Public]string{}
	for _, f := range files {
		if k := f.conf.Interface.PrivateKey; !k.IsZero() {
			out[k.Public()] = f.name()
		}
	}
	return out
}

// learn takes what devices' files and flags know.
func (g *adopted) learn(fl adoptFlags, files []deviceFile) error {
	if g.done {
		return nil
	}
	if fl.endpoint != "" {
		g.Home.Tunnel.Endpoint = fl.endpoint
	}
	for _, f := range files {
		h, notes, err := adopt.Learn(g.Home, f.path, f.name(), f.conf, g.server)
		if err != nil {
			return err
		}
		g.Home = h
		g.Notes = append(g.Notes, notes...)
	}
	for _, name := range fl.admins {
		i := slices.IndexFunc(g.Home.Peers, func(p home.Peer) bool { return p.Name == name })
		if i < 0 {
			return unknownPeer(g.Home, name)
		}
		g.Home.Peers[i].Admin = true
	}
	return nil
}

func (a *app) showAdopted(g adopted, exists bool) error {
	v := view.Adopted{Tunnel: g.Home.Tunnel.Interface, Source: g.source, Parts: g.Parts, Stays: g.Stays, Notes: g.Notes, Home: a.homePath, Done: g.done}
	for _, p := range g.Home.Peers {
		v.Devices = append(v.Devices, p.Name)
	}
	if !exists && !g.done {
		text := append([]byte(sourceComment(g.source)), home.Compose(g.Home)...)
		if _, err := home.Parse(a.homePath, text); err != nil {
			return err
		}
		if err := store.Create(a.homePath, text, 0o600); err != nil {
			return fileExists(a.homePath, err)
		}
		v.Written = true
	}
	if a.json {
		return a.printJSON(v)
	}
	view.ShowAdopted(a.Out, a.style, v)
	a.sayAdopted(v)
	return nil
}

// sourceComment reminds, in home.toml, of where the gateway's keys are: a router that
// makes a new one would shut out every device.
func sourceComment(path string) string {
	if path == "" {
		return ""
	}
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, filepath.Base(path))
	return "# These devices know the gateway of " + name + ". Its key has to come along the first time:\n#   heimweg apply --keys-from " + name + "\n\n"
}

// sayAdopted says what was written and what comes next.
func (a *app) sayAdopted(v view.Adopted) {
	switch {
	case v.Done:
		a.sayf("%-12s the tunnel %s is under heimweg's care already", "Nothing", v.Tunnel)
		return
	case !v.Written:
		a.sayf("%-12s %s is there already and stays as it is; move it away to have it written anew", "Not written", v.Home)
	default:
		a.sayf("%-12s %s", "Written", v.Home)
	}
	switch {
	case len(v.Stays) > 0:
		a.sayf("%-12s heimweg plan names what keeps this gateway from being moved", "Next")
	case v.Source != "":
		a.sayf("%-12s heimweg apply --keys-from %s   puts it onto the router with the gateway's own keys; without them every device would need a new configuration", "Next", v.Source)
	default:
		a.sayf("%-12s heimweg plan shows the move to the recommended form, heimweg apply makes it; no device needs a new configuration", "Next")
	}
}

// readGateway reads the file that describes the gateway, nil for none.
func readGateway(quick, easy string) (*adopt.Gateway, error) {
	path, parse := quick, adopt.ParseQuick
	switch {
	case quick != "" && easy != "":
		return nil, fault.NewUsage("two-gateways", "--gateway and --wg-easy both describe the gateway").Do("name one of them")
	case easy != "":
		path, parse = easy, adopt.ParseEasy
	case quick == "":
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.NewUsage("no-gateway-file", "%s cannot be read", path).From(err).Do("name the file that describes the gateway")
	}
	g, err := parse(path, text)
	if err != nil {
		return nil, gatewayFault(err)
	}
	return &g, nil
}

func gatewayFault(err error) error {
	var bad *adopt.GatewayError
	if errors.As(err, &bad) {
		return bad.Fault()
	}
	return err
}

// readDevices reads the files that describe devices.
func readDevices(paths []string) ([]deviceFile, error) {
	var out []deviceFile
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fault.NewUsage("no-conf", "%s cannot be read", path).From(err).Do("name the file that the device's app uses")
		}
		c, err := wgconf.Parse(text)
		// A device calls somebody; whoever does not, and lets others call, is a gateway.
		if _, bad := adopt.ParseQuick(path, text); bad == nil && c.Peer.Endpoint == "" {
			return nil, fault.NewUsage("no-device-file", "%s does not describe a device but a gateway", path).Do("heimweg adopt --gateway %s", path)
		}
		if err != nil {
			f := fault.NewUsage("bad-conf", "%s does not describe a device", path).From(err)
			var bad *wgconf.SyntaxError
			if errors.As(err, &bad) {
				f.At(fault.Place{File: path, Line: bad.Line, Column: bad.Column}).Saw("%s", bad.Msg)
			}
			return nil, f.Do("correct it there, or leave it out")
		}
		out = append(out, deviceFile{path, c})
	}
	return out, nil
}

// gatewayKeys puts the keys of a gateway's file into a request, for a gateway that
// moves onto this router.
func (v *visit) gatewayKeys(path string) error {
	if path == "" {
		return nil
	}
	easy := ""
	if strings.HasSuffix(path, ".json") {
		path, easy = "", path
	}
	g, err := readGateway(path, easy)
	if err != nil {
		return err
	}
	h := v.file.Home
	known := slices.ContainsFunc(g.Devices, func(d adopt.GatewayDevice) bool {
		return slices.ContainsFunc(h.Peers, func(p home.Peer) bool { return p.PublicKey == d.Key })
	})
	if !known && len(h.Peers) > 0 {
		return fault.NewUsage("other-gateway", "%s describes another gateway than home.toml", g.File).
			Because("they have no device in common").Do("name the file that heimweg adopt read")
	}
	v.request.Private, v.request.Preshared = &g.Private, g.Preshared(h)
	return nil
}
