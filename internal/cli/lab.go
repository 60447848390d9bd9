package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab/mirror"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/qr"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/view"
	"github.com/heimweg/heimweg/internal/wgconf"
)

func (a *app) labCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "lab", Short: "an emulated home to try everything in, nothing touched", Args: cobra.NoArgs,
		Long: `The lab is an emulated home in memory: a phone on mobile data, an ISP router with
NAT, an OpenWrt box fresh from first boot, a NAS. It needs no rights and no
network. WireGuard in it is real.`,
		Example: "  heimweg lab tour\n  heimweg lab up",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.labTour(), a.labUp())
	return c
}

// labFlags choose the emulated home.
type labFlags struct {
	release, uplink string
	lans            int
	internet        bool
	fromStock       bool
	seed            uint64
}

func (l *labFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.release, "release", "24.10", "OpenWrt on the emulated box: 21.02, 22.03, 23.05, 24.10 or 25.12")
	f.StringVar(&l.uplink, "uplink", home.Behind.String(), "where the box sits: behind-isp-router, direct or one-armed")
	f.IntVar(&l.lans, "lans", 1, "home LANs: 1 or 2")
	f.BoolVar(&l.fromStock, "from-stock", false, "begin with a FRITZ!Box 4040 that runs FRITZ!OS, and flash it")
	f.Uint64Var(&l.seed, "seed", 1, "seed of the emulated home's chances")
}

func (l *labFlags) options() (world.Options, error) {
	o := world.Options{Real: true, LANs: l.lans, Seed: l.seed}
	line, ok := router.ParseLine(l.release)
	known := false
	for _, k := range router.Lines() {
		known = known || k == line
	}
	if !ok || !known {
		return o, fault.NewUsage("bad-release", "the lab has no OpenWrt %q", l.release).Do("choose 21.02, 22.03, 23.05, 24.10 or 25.12")
	}
	o.Line = line
	if err := o.Uplink.UnmarshalText([]byte(l.uplink)); err != nil {
		return o, fault.NewUsage("bad-uplink", "--uplink: %s", err).Do("write one of the three")
	}
	if l.lans < 1 || l.lans > 2 || l.lans == 2 && o.Uplink == home.OneArmed {
		return o, fault.NewUsage("bad-lans", "the lab has 1 or 2 home LANs, and 1 when the box is one-armed").Do("--lans 1")
	}
	return o, nil
}

func (a *app) labTour() *cobra.Command {
	var l labFlags
	c := &cobra.Command{
		Use: "tour", Short: "the whole way home, in an emulated home", Args: cobra.NoArgs,
		Long: `tour switches on an emulated home and goes the whole way with exactly the code that
a real home gets: look at the router, plan, apply under guard, open the port on the
ISP router (by the lab's hand), add a device, draw its QR code, make a WireGuard
handshake with real cryptography, and fetch a page from the NAS through the tunnel.
With --from-stock it begins earlier: a FRITZ!Box in its carton is flashed through its
boot window, with images from an emulated mirror.
It ends with a non-zero exit code when any part fails.`,
		Example: "  heimweg lab tour\n  heimweg lab tour --from-stock\n  heimweg lab tour --release 21.02 --uplink one-armed\n  heimweg lab tour --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.tour(cmd.Context(), l) },
	}
	l.flags(c)
	c.Flags().BoolVar(&l.internet, "internet", false, "let the phone also reach the internet through home (full tunnel)")
	return c
}

// A TourStep is one step of the tour as --json tells it.
type TourStep struct {
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	Failed  string  `json:"failed,omitempty"`
}

// tour is one walk through the emulated home.
type tour struct {
	*app
	ctx   context.Context
	w     *world.World
	stock stock // with --from-stock
	dir   string
	steps []TourStep
	start time.Time
	base  owrt.Stats // of the router when the home was switched on
}

func (a *app) tour(ctx context.Context, l labFlags) error {
	o, err := l.options()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "heimweg-tour-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &tour{app: a, ctx: ctx, dir: dir, start: time.Now()}
	err = t.walk(l, o)
	if t.w != nil {
		defer t.w.Close()
	}
	if a.json {
		if jerr := a.printJSON(t.result(err)); jerr != nil {
			return jerr
		}
		if err != nil {
			return errExit(fault.ExitFailed)
		}
		return nil
	}
	if err == nil {
		fmt.Fprintf(a.Out, "\n%s in %s, %d round trips to the router in %d connections.\n",
			a.style.Good("Home: the phone reached the NAS through the tunnel"), view.Took(time.Since(t.start)), t.trips(), t.w.Router.Stats().Connections-t.base.Connections)
		fmt.Fprintln(a.Out, "  next  heimweg lab up   keeps such a home running to try every command by hand")
		fmt.Fprintln(a.Out, "        heimweg up       the same for your own router")
	}
	return err
}

// trips counts the round trips to the router since the home was switched on.
func (t *tour) trips() int64 { return t.w.Router.Stats().Execs - t.base.Execs }

func (t *tour) result(err error) map[string]any {
	r := map[string]any{"ok": err == nil, "seconds": time.Since(t.start).Seconds(), "steps": t.steps}
	if t.w != nil {
		r["round_trips"] = t.trips()
	}
	return r
}

// step tells a step, times it and keeps it for --json.
func (t *tour) step(text string, f func() error) error {
	if !t.json {
		fmt.Fprintf(t.Out, "\n%s\n", t.style.Strong("▸ "+text))
	}
	start := time.Now()
	err := f()
	s := TourStep{Step: text, Seconds: time.Since(start).Seconds()}
	if err != nil {
		s.Failed = err.Error()
	}
	t.steps = append(t.steps, s)
	if !t.json {
		mark := t.style.Good("✓")
		if err != nil {
			mark = t.style.Bad("✗")
		}
		fmt.Fprintf(t.Out, "  %s %s\n", mark, t.style.Dim(view.Took(time.Since(start))))
	}
	return err
}

func (t *tour) tell(format string, args ...any) {
	if !t.json {
		fmt.Fprintf(t.Out, "  "+format+"\n", args...)
	}
}

// heimweg runs a command of this program in the emulated home, as a person
// would type it.
func (t *tour) heimweg(args ...string) error {
	if !t.json {
		shown := make([]string, len(args))
		for i, arg := range args {
			shown[i] = strings.TrimPrefix(arg, t.dir+string(filepath.Separator))
		}
		fmt.Fprintf(t.Out, "  %s\n", t.style.Dim("$ heimweg "+strings.Join(shown, " ")))
	}
	var said bytes.Buffer
	env := Env{
		In: strings.NewReader(""), Out: &said, Err: &said, Getenv: func(string) string { return "" },
		Terminal: tourTerminal{}, Dial: t.w.LaptopDial, Rand: t.Rand, Config: filepath.Join(t.dir, "config"),
	}
	env.Bind = func() conn.Bind { return t.w.OutsideBind() }
	env.Lookup = labLookup(t.w)
	if t.stock.m != nil {
		keys, err := t.stock.keys()
		if err != nil {
			return err
		}
		env.Cable, env.Web, env.Keys = t.stock.cable, t.stock.m.Transport(), keys
	}
	code := Run(t.ctx, env, append([]string{"--home", filepath.Join(t.dir, "home.toml")}, args...))
	if !t.json {
		indent(t.Out, strings.ReplaceAll(said.String(), t.dir+string(filepath.Separator), ""))
	}
	if code != 0 {
		return fmt.Errorf("heimweg %s ended with exit code %d: %s", args[0], code, strings.TrimSpace(said.String()))
	}
	return nil
}

// labLookup is the emulated world's public DNS.
func labLookup(w *world.World) Lookup {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		if all, ok := w.LookupAll(host); ok {
			return all, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
}

func indent(w io.Writer, text string) {
	for l := range strings.Lines(text) {
		fmt.Fprintf(w, "    %s\n", strings.TrimRight(l, "\n"))
	}
}

// tourTerminal is nobody: the tour answers everything with flags.
type tourTerminal struct{}

func (tourTerminal) IsTerminal() bool            { return false }
func (tourTerminal) Size() (int, int, bool)      { return 0, 0, false }
func (tourTerminal) ReadSecret() (string, error) { return "", io.EOF }

func (t *tour) walk(l labFlags, o world.Options) error {
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Minute)
	defer cancel()
	if err := t.switchOn(ctx, l, o); err != nil {
		return err
	}
	at, _ := t.w.RouterLAN()
	reach := "home-lan"
	if l.internet {
		reach += ",internet"
	}
	if err := t.step("looking at the router and writing home.toml", func() error {
		return t.heimweg("init", "--yes", "--router", at.String(), "--endpoint", world.EndpointName, "--reach", reach, "--input", "reject")
	}); err != nil {
		return err
	}
	if err := t.step("the plan", func() error { return t.heimweg("plan") }); err != nil {
		return err
	}
	if err := t.step("applying it under guard", func() error { return t.heimweg("apply", "--yes") }); err != nil {
		return err
	}
	if err := t.step("opening the port on the ISP router, by the lab's hand", func() error {
		// Applying renews the WAN side's address, which takes a moment.
		if err := t.w.WaitReady(ctx); err != nil {
			return err
		}
		to, _ := t.w.RouterWAN()
		t.tell("UDP %d → %s", home.DefaultPort, to)
		return t.w.MapPort(home.DefaultPort)
	}); err != nil {
		return err
	}
	conf := filepath.Join(t.dir, "phone.conf")
	if err := t.step("the first device", func() error { return t.addPhone(conf) }); err != nil {
		return err
	}
	if err := t.step("the phone comes home", func() error { return t.comeHome(ctx, conf, l.internet) }); err != nil {
		return err
	}
	if err := t.step("the same, proved by heimweg's own test device from outside", func() error { return t.heimweg("verify") }); err != nil {
		return err
	}
	return t.step("who is home", func() error { return t.heimweg("status") })
}

// switchOn makes the home: with a fresh OpenWrt box, or with one that has to be
// flashed first.
func (t *tour) switchOn(ctx context.Context, l labFlags, o world.Options) error {
	if l.fromStock {
		return t.flashFirst(ctx, o)
	}
	return t.step("switching on an emulated home", func() (err error) {
		if t.w, err = world.New(ctx, o); err != nil {
			return err
		}
		at, _ := t.w.RouterLAN()
		t.tell("phone on mobile data · ISP router %s · OpenWrt %s at %s, fresh · NAS at %s", world.Public.Addr(), o.Line, at, t.w.NAS.Addr())
		if err := t.w.WaitReady(ctx); err != nil {
			return err
		}
		t.base = t.w.Router.Stats()
		return nil
	})
}

func (t *tour) addPhone(conf string) error {
	png := filepath.Join(t.dir, "phone.png")
	if err := t.heimweg("peer", "add", "phone", "-o", conf, "--png", png); err != nil {
		return err
	}
	if t.json {
		return nil
	}
	return t.drawCode(conf)
}

// drawCode shows the code that the phone scans, as it would be on a terminal that
// is large enough.
func (t *tour) drawCode(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c, err := wgconf.Parse(text)
	if err != nil {
		return err
	}
	code, err := qr.Encode(string(c.Compact()))
	if err != nil {
		return err
	}
	fmt.Fprint(t.Out, code.Half(2))
	return nil
}

// comeHome is the proof: a handshake from mobile data, a page from the NAS.
func (t *tour) comeHome(ctx context.Context, conf string, internet bool) error {
	text, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	if err := t.w.Phone.Join(string(text)); err != nil {
		return err
	}
	url := "http://" + t.w.NAS.Addr().String() + "/"
	page, err := t.w.Phone.Get(ctx, url)
	if err != nil {
		return fmt.Errorf("the phone cannot fetch %s: %w\n%s", url, err, t.w.WhereDied(nil))
	}
	t.tell("phone: GET %s → %q", url, firstLine(page))
	if !strings.Contains(page, "hello from home") {
		return fmt.Errorf("the NAS answered something else: %q", firstLine(page))
	}
	if t.w.SecondNAS != nil {
		if page, err = t.w.Phone.Get(ctx, "http://"+t.w.SecondNAS.Addr().String()+"/"); err != nil {
			return fmt.Errorf("the phone cannot reach the second LAN: %w\n%s", err, t.w.WhereDied(nil))
		}
		t.tell("phone: the second LAN answers, too: %q", firstLine(page))
	}
	if internet {
		if page, err = t.w.Phone.Get(ctx, "http://"+world.Website.Addr().String()+"/"); err != nil {
			return fmt.Errorf("the phone cannot reach the internet through home: %w\n%s", err, t.w.WhereDied(nil))
		}
		t.tell("phone: the internet through home: %q", firstLine(page))
	}
	s, err := t.w.Phone.Stats()
	if err != nil {
		return err
	}
	t.tell("phone: handshake %s, %d bytes sent, %d received", s.LastHandshake.Format("15:04:05"), s.Sent, s.Received)
	return nil
}

func firstLine(s string) string {
	l, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return l
}

func (a *app) labUp() *cobra.Command {
	var l labFlags
	c := &cobra.Command{
		Use: "up", Short: "keep an emulated home running, to try every command by hand", Args: cobra.NoArgs,
		Long: `up keeps an emulated home running until Ctrl-C and prints what to type in a second
terminal, so that every command can be tried by hand. Only loopback ports are used.`,
		Example: "  heimweg lab up\n  heimweg lab up --from-stock\n  heimweg lab up --release 25.12 --uplink direct",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.labKeep(cmd.Context(), l) },
	}
	l.flags(c)
	return c
}

func (a *app) labKeep(ctx context.Context, l labFlags) error {
	o, err := l.options()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "heimweg-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shelf, err := openShelf(dir)
	if err != nil {
		return err
	}
	defer shelf.Close()
	o.Router.Inside = shelf.inside
	start := func() (*world.World, error) { return world.New(ctx, o) }
	if l.fromStock {
		start = func() (*world.World, error) { return a.labFlash(ctx, o, dir) }
	}
	w, err := start()
	if w != nil {
		defer w.Close()
	}
	if err != nil {
		return err
	}
	ssh, err := w.BridgeSSH(0)
	if err != nil {
		return err
	}
	out, err := w.BridgeTunnel(0, home.DefaultPort)
	if err != nil {
		return err
	}
	if err := w.MapPort(home.DefaultPort); err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(map[string]any{"router": ssh.Addr(), "outside": out.Addr(), "config": dir, "endpoint": world.EndpointName, "mirror": shelf.url(), "mirror_key": shelf.key}); err != nil {
			return err
		}
	} else {
		a.labManual(o, w.NAS.Addr(), ssh.Addr(), out.Addr(), dir, shelf)
	}
	<-ctx.Done()
	a.sayf("\nThe emulated home is switched off.")
	return errExit(fault.ExitDone)
}

// shelf is OpenWrt's download server and image builder for the emulated home, on
// a loopback port.
type shelf struct {
	net.Listener
	m   *mirror.Mirror
	key string // file with the key that signs
}

func openShelf(dir string) (*shelf, error) {
	s := &shelf{m: mirror.New(mirror.Options{Kernel: 20_000, Root: 50_000}), key: filepath.Join(dir, "openwrt.pub")}
	if err := os.WriteFile(s.key, s.m.Keys().Usign, 0o600); err != nil {
		return nil, err
	}
	var err error
	if s.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go s.m.Serve(s.Listener) // until it is closed
	return s, nil
}

func (s *shelf) url() string { return "http://" + s.Addr().String() }

func (s *shelf) inside(image []byte) []string {
	made, _ := s.m.Lookup(image)
	return made.Packages
}

func (a *app) labManual(o world.Options, nas netip.Addr, ssh, out netip.AddrPort, dir string, s *shelf) {
	p := func(format string, args ...any) { fmt.Fprintf(a.Out, format+"\n", args...) }
	p("An emulated home is running: OpenWrt %s, %s, NAS at %s.", o.Line, o.Uplink, nas)
	p("Its ISP router lets UDP %d through already. Ctrl-C switches it off.", home.DefaultPort)
	p("")
	p("In a second terminal, in an empty folder:")
	p("")
	p("  export HEIMWEG_ROUTER=%s HEIMWEG_OUTSIDE=%s", ssh, out)
	p("  export HEIMWEG_CONFIG=%s", dir)
	p("  heimweg up --endpoint %s", world.EndpointName)
	p("  heimweg peer add laptop -o laptop.conf")
	p("  heimweg status · heimweg verify · heimweg plan")
	p("")
	p("A newer OpenWrt for the box, from an emulated download server:")
	p("")
	p("  export HEIMWEG_MIRROR=%s HEIMWEG_BUILDER=%s", s.url(), s.url())
	p("  heimweg upgrade --key %s", s.key)
	p("")
	p("The box itself (no password before heimweg up):")
	p("")
	p("  ssh -p %d -o UserKnownHostsFile=%s/ssh root@%s", ssh.Port(), dir, ssh.Addr())
}
