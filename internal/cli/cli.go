// Package cli is heimweg's command line: it parses what was typed, asks people
// what nobody can find out, wires the edges to the flows, and chooses a view.
// It is the only place that does these things, and it decides nothing that a
// flow or a core package could decide.
//
// Results go to standard output and talk goes to standard error, so that a
// script can use the one and a person reads both. Without a terminal nothing is
// asked: the command ends with exit code 4 and names the flag that would have
// answered.
package cli

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firmware"
	"github.com/heimweg/heimweg/internal/flash"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/view"
)

// Version is the program's version.
const Version = apply.Program

// Env is everything that the command line takes from outside. The zero value of
// a field means the real thing; tests and the lab put emulated ones in.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Terminal Terminal   // nil: the process's own
	Dial     shell.Dial // nil: the real network
	// ListenUDP opens a UDP port beside Dial; nil where Dial is set: there is none.
	ListenUDP func(context.Context) (net.PacketConn, error)
	Bind      func() conn.Bind // where test packets leave; nil: a UDP socket of this computer
	Lookup    Lookup           // nil: this computer's resolver
	// Source is the address that packets to somewhere carry now; nil: by this
	// computer's routes.
	Source func(to netip.AddrPort) (netip.Addr, error)
	// Cable opens the way to a box over a network card; nil: this computer's cards.
	Cable  func(ctx context.Context, card string) (flash.Cable, error)
	Web    http.RoundTripper // the way to download servers; nil: the real one
	Keys   firmware.Keyring  // who may sign firmware; nil: OpenWrt
	Roots  *x509.CertPool    // who vouches for pages that say who calls; nil: this computer's authorities
	Rand   io.Reader         // nil: crypto/rand
	Config string            // heimweg's own folder on this computer; "": the user's
	Now    func() time.Time
	AtHome Vantage // this computer in the house, as doctor and verify use it
	// Upstream tells what the ISP router says of itself; nil: it is asked by UPnP.
	Upstream func(context.Context, home.Home, *router.Snapshot) trace.Upstream
}

// Lookup finds the addresses of a host name.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

func (e Env) filled() Env {
	if e.In == nil {
		e.In = os.Stdin
	}
	if e.Out == nil {
		e.Out = os.Stdout
	}
	if e.Err == nil {
		e.Err = os.Stderr
	}
	if e.Getenv == nil {
		e.Getenv = os.Getenv
	}
	if e.Terminal == nil {
		e.Terminal = stdio{}
	}
	if e.Lookup == nil {
		e.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if e.Rand == nil {
		e.Rand = rand.Reader
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	return e
}

// app is one run of the program.
type app struct {
	Env
	style    view.Style
	homePath string   // --home
	router   string   // --router
	identity []string // --identity
	json     bool
	verbose  bool
	yes      bool
	risks    []string
	newDDNS  bool              // ask for the password at the DDNS service again
	packages firmwareFlags     // where packages come from that the router lacks
	typed    chan typed        // a line that is being waited for
	servers  []string          // --ask-outside
	found    *endpoint.Verdict // what was found out in this run about where home is
	pins     shell.KeyStore    // instead of the file known_routers, while a box is set up
}

// Run runs the program with its arguments and returns the exit code.
func Run(ctx context.Context, env Env, args []string) int {
	a := &app{Env: env.filled()}
	a.style.Colour = a.Terminal.IsTerminal() && a.Getenv("NO_COLOR") == ""
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return a.finish(ctx, err)
}

// errExit ends a command that has said all there is to say.
type errExit int

func (e errExit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// finish shows a failure and chooses the exit code.
func (a *app) finish(ctx context.Context, err error) int {
	if err == nil {
		return fault.ExitDone
	}
	var exit errExit
	if errors.As(err, &exit) {
		return int(exit)
	}
	if ctx.Err() != nil && fault.Find(err) == nil {
		err = context.Canceled
	}
	err = apply.Explain(err, a.router)
	if a.json {
		view.FaultJSON(a.Out, err)
	} else {
		view.Fault(a.Err, a.style, err)
	}
	if f := fault.Find(err); f != nil {
		return f.ExitCode()
	}
	return fault.ExitFailed
}

const rootLong = `heimweg brings a household's devices home: it turns a spare router behind the ISP
router into a WireGuard gateway, opens the way through both, hands every device its
configuration as a QR code, and proves with a real packet that home can be reached.
When it cannot, it names the hop that drops the packet.

Bare "heimweg" says where you are and what comes next.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "heimweg",
		Short: "the way home: a WireGuard gateway from a spare router",
		Long:  rootLong,
		Example: `  heimweg lab tour             the whole way in an emulated home, nothing touched
  heimweg up --flash           the evening, from a FRITZ!Box as it was bought
  heimweg up                   the same from a router with OpenWrt
  heimweg peer add laptop      another device
  heimweg doctor               when it does not work`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return a.whereAmI(cmd.Context()) },

		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkRisks(cmd) },
	}
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetIn(a.In)
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SuggestionsMinimumDistance = 2
	f := root.PersistentFlags()
	f.StringVar(&a.homePath, "home", "home.toml", "the file that says what this household wants")
	f.StringVar(&a.router, "router", a.Getenv("HEIMWEG_ROUTER"), "address of the home router, host or host:port (default: what home.toml says, else it is looked for)")
	f.StringSliceVar(&a.identity, "identity", nil, "SSH key file to log in with (default: the agent's and ~/.ssh's)")
	f.BoolVar(&a.json, "json", false, "print the result as JSON")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "show every script that runs on the router")
	f.BoolVarP(&a.yes, "yes", "y", false, "answer routine questions with yes")
	f.StringSliceVar(&a.risks, "accept-risk", nil, "accept a loss by its name, such as drops-connection")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagFault(cmd, err) })
	root.AddCommand(a.initCommand(), a.planCommand(), a.applyCommand(), a.peerCommand(), a.statusCommand(),
		a.verifyCommand(), a.doctorCommand(), a.traceCommand(), a.explainCommand(), a.upCommand(), a.trustCommand(), a.flashCommand(), a.firmwareCommand(),
		a.adoptCommand(), a.upgradeCommand(), a.backupCommand(), a.restoreCommand(), a.relayCommand(), a.labCommand(), a.versionCommand())
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	wrapArgs(root)
	return root
}

// wrapArgs turns cobra's own complaints about arguments into faults.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return argFault(cmd, args, err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

func argFault(cmd *cobra.Command, args []string, err error) error {
	if cmd.HasSubCommands() && len(args) > 0 {
		f := fault.NewUsage("unknown-command", "there is no command %q", cmd.CommandPath()+" "+args[0])
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			return f.Do("did you mean: %s %s", cmd.CommandPath(), s[0])
		}
		return f.Do("%s --help lists the commands", cmd.CommandPath())
	}
	return fault.NewUsage("arguments", "%s: %s", cmd.CommandPath(), err).Do("%s", cmd.UseLine())
}

func flagFault(cmd *cobra.Command, err error) error {
	f := fault.NewUsage("flag", "%s: %s", cmd.CommandPath(), err)
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		if near := nearestFlag(cmd, name); near != "" {
			return f.Do("did you mean --%s", near)
		}
	}
	return f.Do("%s --help", cmd.CommandPath())
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: cobra.NoArgs,
		Example: "  heimweg version --json",
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": Version})
			}
			fmt.Fprintln(a.Out, "heimweg", Version)
			return nil
		},
	}
}

func (a *app) printJSON(v any) error { return view.JSON(a.Out, v) }

func (a *app) sayf(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }
