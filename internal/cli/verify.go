package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/verify"
	"github.com/heimweg/heimweg/internal/view"
)

type verifyFlags struct {
	outside bool
	old     bool // --outside, the flag's first name
	via     string
	target  string
	mapped  bool // the ISP router says that it passes the port on
}

func (a *app) verifyCommand() *cobra.Command {
	var fl verifyFlags
	c := &cobra.Command{
		Use: "verify", Short: "prove with a real packet that home can be reached", Args: cobra.NoArgs,
		Long: `verify plays a device of its own: it makes a WireGuard handshake with the home
router and reaches the router and a device in the home LAN through the tunnel. It
says hop by hop what was shown and what was not.

Where this computer sits decides what can be shown. In the home LAN the handshake
goes to the router's own address; from the uplink LAN, to its WAN address; with
--from-outside, to the public endpoint: verify says when to put this computer on
the phone's hotspot, notices that by itself, and says when to go back.

When the way is broken, or with --ask-outside, verify also says where home is: what
the ISP router and public DNS say, what those see whom you name with --ask-outside,
and whether anybody can call this house at all.

Exit codes: 0 all that was tested works · 3 something is broken.`,
		Example: `  heimweg verify
  heimweg verify --from-outside      the whole way, over the phone's hotspot
  heimweg verify --ask-outside stun.example.net:3478
  heimweg verify --target 192.168.1.10`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fl.outside = fl.outside || fl.old
			return a.verify(cmd.Context(), fl)
		},
	}
	c.Flags().BoolVar(&fl.outside, "from-outside", false, "test against the public endpoint, from outside")
	c.Flags().BoolVar(&fl.old, "outside", false, "the first name of --from-outside")
	c.Flags().MarkHidden("outside")
	a.askFlag(c)
	c.Flags().StringVar(&fl.via, "via", a.Getenv("HEIMWEG_OUTSIDE"), "host:port to send the handshake to instead (the lab prints one)")
	c.Flags().StringVar(&fl.target, "target", "", "address of a device in the home LAN to reach (default: those that the router has seen)")
	return c
}

func (a *app) verify(ctx context.Context, fl verifyFlags) error {
	f, err := a.readHome()
	if err != nil {
		return err
	}
	v, err := a.visit(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	res, err := a.test(ctx, v, fl)
	if err != nil {
		return err
	}
	where := a.found
	if where == nil && a.backHome(v, res, fl) && (len(a.servers) > 0 || res.Broken() && res.Vantage == verify.Outside) {
		w := a.where(ctx, v)
		where = &w
	}
	if a.json {
		if err := a.printJSON(struct {
			verify.Result
			Where *endpoint.Verdict `json:"where,omitempty"`
		}{res, where}); err != nil {
			return err
		}
	} else {
		view.Verify(a.Out, a.style, res)
		if where != nil {
			view.Where(a.Out, a.style, *where)
		}
	}
	if res.Broken() {
		return errExit(fault.ExitDifferences)
	}
	return nil
}

func (a *app) test(ctx context.Context, v *visit, fl verifyFlags) (verify.Result, error) {
	r := verify.Request{Home: v.file.Home, Rand: a.Rand, Self: v.Local(), Mapped: fl.mapped}
	if fl.target != "" {
		t, err := netip.ParseAddr(fl.target)
		if err != nil {
			return verify.Result{}, fault.NewUsage("bad-target", "--target %q is not an address", fl.target).Do("write it like 192.168.1.10")
		}
		r.Target = t
	}
	var err error
	if r.Vantage, r.Endpoint, err = a.vantage(ctx, v, fl); err != nil {
		return verify.Result{}, err
	}
	switch {
	case a.Bind != nil:
		r.Bind = a.Bind()
	case r.Vantage != verify.Outside && a.AtHome.Bind != nil:
		r.Bind = a.AtHome.Bind()
	}
	if fl.outside && fl.via == "" {
		if !a.Terminal.IsTerminal() {
			return verify.Result{}, needsPerson("this computer has to leave the house for the test", "--via HOST:PORT")
		}
		r.Leave = a.goOutside(v.file.Home, v.Snapshot(), r.Endpoint)
		r.Return = a.comeBack(v.file.Home, v.Snapshot(), r.Endpoint)
	}
	return verify.Run(ctx, v.Shell(), v.Snapshot(), r, a.tell())
}

// vantage chooses where the test's packets go, from where this computer sits.
func (a *app) vantage(ctx context.Context, v *visit, fl verifyFlags) (verify.Vantage, netip.AddrPort, error) {
	h, snap := v.file.Home, v.Snapshot()
	switch {
	case fl.via != "":
		ap, err := a.resolve(ctx, fl.via)
		return verify.Outside, ap, err
	case fl.outside || a.Bind != nil:
		e, err := a.endpoint(ctx, v, "")
		if err != nil {
			return "", netip.AddrPort{}, err
		}
		ap, err := a.resolve(ctx, net.JoinHostPort(e, fmt.Sprint(h.Tunnel.CallPort())))
		return verify.Outside, ap, err
	}
	nets, _ := a.networks()
	where, addr := nearest(h, snap, nets)
	if !addr.IsValid() {
		return "", netip.AddrPort{}, fault.New("no-vantage", "this computer is in none of the networks that the home router is in").
			Do("connect it to the home LAN, or test from outside: heimweg verify --from-outside")
	}
	return where, netip.AddrPortFrom(addr, h.Tunnel.Port), nil
}

// nearest finds the router's address in a network that this computer is in, too.
func nearest(h home.Home, snap *router.Snapshot, nets []netip.Prefix) (verify.Vantage, netip.Addr) {
	for _, i := range snap.Interfaces {
		for _, p := range i.Addresses {
			for _, n := range nets {
				if !p.Masked().Contains(n.Addr()) || i.Name == h.Tunnel.Interface {
					continue
				}
				if i.Name == "wan" {
					return verify.Uplink, p.Addr()
				}
				return verify.Inside, p.Addr()
			}
		}
	}
	return "", netip.Addr{}
}

func (a *app) resolve(ctx context.Context, hostport string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(hostport); err == nil {
		return ap, nil
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, fault.NewUsage("bad-endpoint", "%q is not host:port", hostport).Do("write it like 203.0.113.7:51820")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := a.Lookup(ctx, host)
	// WireGuard's apps choose IPv4 when a name has both (wireguard-android,
	// InetEndpoint), and so does this.
	slices.SortStableFunc(addrs, func(x, y netip.Addr) int { return x.Unmap().BitLen() - y.Unmap().BitLen() })
	if err != nil || len(addrs) == 0 {
		return netip.AddrPort{}, fault.New("endpoint-unresolved", "the name %s has no address", host).
			Do("check the name at your DynDNS service, or write another endpoint into home.toml")
	}
	var p uint16
	if _, err := fmt.Sscan(port, &p); err != nil {
		return netip.AddrPort{}, fault.NewUsage("bad-endpoint", "%q is not a port", port).Do("write it like 203.0.113.7:51820")
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), p), nil
}
