package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/doctor"
	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/hostnet"
	"github.com/heimweg/heimweg/internal/openwrt"
	probing "github.com/heimweg/heimweg/internal/probe"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/view"
)

// Vantage is this computer, in the home LAN or in the uplink LAN. The zero value is
// the real one.
type Vantage struct {
	Bind     func() conn.Bind // where packets of the test device leave
	Networks func() ([]netip.Prefix, error)
}

type doctorFlags struct {
	full, list, fix, watch bool
}

func (a *app) doctorCommand() *cobra.Command {
	var fl doctorFlags
	c := &cobra.Command{
		Use: "doctor", Short: "find out why devices cannot come home, the root cause first", Args: cobra.NoArgs,
		Long: `doctor looks at home from three places side by side: the home router, this computer,
and a device of its own inside the tunnel. It names the root cause first, with what
was seen and one thing to do; then what it ruled out, and what it could not look at.
It changes nothing; with --fix it carries out what heimweg can do, after showing it.

What it prints can be shown to strangers: public addresses, names and keys are
covered. --full shows them.

With --watch it follows a real device that tries to come home, step by step.

Exit codes: 0 nothing was found · 3 something was found.`,
		Example: `  heimweg doctor
  heimweg doctor --fix         and put right what heimweg can
  heimweg doctor --full        with addresses and names, for yourself
  heimweg doctor --watch       how far does the phone come?
  heimweg doctor --list        everything that is examined`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), fl) },
	}
	f := c.Flags()
	f.BoolVar(&fl.full, "full", false, "show public addresses, names and keys, too")
	f.BoolVar(&fl.list, "list", false, "list everything that is examined, and look at nothing")
	f.BoolVar(&fl.fix, "fix", false, "carry out the remedies that heimweg apply can do, after showing them")
	f.BoolVarP(&fl.watch, "watch", "w", false, "follow a real device that tries to come home, until its first data or Ctrl-C")
	a.askFlag(c)
	return c
}

func (a *app) doctor(ctx context.Context, fl doctorFlags) error {
	if fl.list {
		return a.listRules()
	}
	if fl.fix && fl.watch {
		return fault.NewUsage("doctor-flags", "--fix and --watch are two visits; choose one").Do("heimweg doctor --fix")
	}
	f, err := a.readHome()
	if err != nil {
		return err
	}
	if fl.watch {
		return a.watchHome(ctx, f, fl)
	}
	e, err := a.examine(ctx, f, fl)
	if err != nil {
		return err
	}
	if fl.fix && len(e.curable()) > 0 {
		if e, err = a.fix(ctx, e, fl); err != nil {
			return err
		}
	}
	defer e.close()
	return a.showReport(e, fl)
}

func (a *app) listRules() error {
	list := view.RulesOf(doctor.Rules())
	if a.json {
		return a.printJSON(list)
	}
	view.Rules(a.Out, a.style, list)
	return nil
}

func (a *app) showReport(e *examined, fl doctorFlags) error {
	r := e.report.Redacted(e.facts)
	if fl.full {
		r = e.report.Full()
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		view.Doctor(a.Out, a.style, r)
	}
	if len(r.Findings) > 0 {
		return errExit(fault.ExitDifferences)
	}
	return nil
}

// examined is one examination.
type examined struct {
	file   *home.File
	v      *visit // nil: nobody got in
	facts  doctor.Facts
	report doctor.Report
}

func (e *examined) close() {
	if e.v != nil {
		e.v.Close()
	}
}

// examine visits the home router and asks everybody.
func (a *app) examine(ctx context.Context, f *home.File, fl doctorFlags) (*examined, error) {
	e := &examined{file: f}
	r := probing.Request{Home: f.Home, Networks: a.networks, Lookup: a.Lookup, Bind: a.AtHome.Bind, Rand: a.Rand}
	v, err := a.visitToLook(ctx, f)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		if r.Login, err = a.stuck(err); err != nil {
			return nil, err
		}
	} else {
		e.v = v
		a.atHome(&r, v)
		r.Upstream = func(ctx context.Context) trace.Upstream { return a.upstream(ctx, v) }
		r.Address = func(ctx context.Context) doctor.Fact[doctor.Address] { return addressOf(f.Home, a.where(ctx, v)) }
		if f.Home.Uplink.Mapping == home.ByHand && a.Upstream == nil {
			r.Upstream = nil
		}
	}
	if e.facts, _ = probing.Gather(ctx, r, a.tell()); ctx.Err() != nil {
		e.close()
		return nil, ctx.Err()
	}
	e.report = doctor.Judge(e.facts)
	return e, nil
}

// atHome fills in what a visit tells.
func (a *app) atHome(r *probing.Request, v *visit) {
	r.Shell, r.Snapshot, r.Looked, r.Self = v.Shell(), v.Snapshot(), a.Now(), v.Local()
	r.Login = doctor.Login{Addr: v.way.Addr, OwnKey: v.own.Authorized}
	if m, ok := v.Shell().(interface{ Method() string }); ok {
		r.Login.Method = m.Method()
	}
	var near []netip.Prefix
	if r.Self.IsValid() && !r.Self.IsLoopback() {
		near = append(near, netip.PrefixFrom(r.Self, r.Self.BitLen()))
	}
	if list, err := a.networks(); err == nil {
		near = append(near, list...)
	}
	for _, n := range near {
		for _, i := range r.Snapshot.Interfaces {
			for _, p := range i.Addresses {
				if !r.At.IsValid() && i.Up && i.Name != r.Home.Tunnel.Interface && p.Addr().Is4() && p.Masked().Contains(n.Addr()) {
					r.At = netip.AddrPortFrom(p.Addr(), r.Home.Tunnel.Port)
				}
			}
		}
	}
}

func (a *app) networks() ([]netip.Prefix, error) {
	if a.AtHome.Networks != nil {
		return a.AtHome.Networks()
	}
	return hostnet.Networks()
}

// stuck says where a visit ended; what is no matter of the way to the router is an
// error as ever.
func (a *app) stuck(err error) (doctor.Login, error) {
	l := doctor.Login{Addr: a.router}
	var (
		unreachable *shell.UnreachableError
		auth        *shell.AuthError
		hostKey     *shell.HostKeyError
		notSSH      *shell.NotSSHError
		lost        *shell.LostError
		other       *openwrt.NotOpenWrtError
	)
	switch {
	case errors.As(err, &hostKey):
		l.Stuck, l.Why = doctor.Strange, "now it is "+hostKey.Seen
	case errors.As(err, &auth):
		l.Stuck, l.Why = doctor.Denied, "tried "+strings.Join(auth.Tried, ", ")
	case errors.As(err, &notSSH):
		l.Stuck, l.Why = doctor.Straying, "it does not speak SSH"
	case errors.As(err, &unreachable) && unreachable.Refused():
		l.Stuck, l.Why = doctor.Refused, unreachable.Why()
	case errors.As(err, &unreachable):
		l.Stuck, l.Why = doctor.Silent, unreachable.Why()
	case errors.As(err, &lost):
		l.Stuck, l.Why = doctor.Straying, "the connection was lost"
	case errors.As(err, &other):
		l.Stuck, l.Why = doctor.Other, other.System
	default:
		f := fault.Find(apply.Explain(err, a.router))
		if f == nil || f.Code != "not-openwrt" && f.Code != "openwrt-too-old" {
			return l, err
		}
		l.Stuck, l.Why = doctor.Other, f.What
	}
	return l, nil
}

// addressOf is where home is, in the doctor's words.
func addressOf(h home.Home, v endpoint.Verdict) doctor.Fact[doctor.Address] {
	if v.Kind == endpoint.Unclear {
		why := "it is not clear where home is on the internet"
		if len(v.Missing) > 0 {
			why = v.Missing[0].Fact + ": " + v.Missing[0].Why
		}
		return doctor.Unknown[doctor.Address](why)
	}
	out := doctor.Address{Says: v.Words(), Seen: v.Seen}
	switch {
	case v.Kind == endpoint.Public && v.Changing && literal(h.Tunnel.Endpoint):
		out.Kind = doctor.Changing
	case v.Kind == endpoint.Public:
		out.Kind = doctor.Public
	case v.Endpoint.Sure && v.Endpoint.IPv6:
		out.Kind = doctor.OnlySix
	case v.Kind == endpoint.DoubleNAT:
		out.Kind = doctor.DoubleNAT
	case v.Kind == endpoint.CGNAT:
		out.Kind = doctor.Carrier
	case v.Kind == endpoint.DSLite:
		out.Kind = doctor.DSLite
	default:
		out.Kind = doctor.OnlySix
	}
	for _, s := range v.Steps {
		r := trace.Remedy{Do: s.What}
		if s.Command != "" {
			r = trace.Remedy{Do: s.Command, Why: s.What}
		}
		out.Do = append(out.Do, r)
	}
	return doctor.Known(out)
}

func literal(name string) bool { _, err := netip.ParseAddr(name); return err == nil }

// curable are the remedies that --fix can carry out: one for the settings of
// home.toml, one for everything that heimweg apply does.
func (e *examined) curable() (out []doctor.Remedy) {
	for _, f := range e.report.Full().Findings {
		for _, r := range f.Remedies {
			same := func(o doctor.Remedy) bool { return o.Kind == r.Kind }
			if (r.Kind == doctor.Plan || r.Kind == doctor.Setting) && !slices.ContainsFunc(out, same) {
				out = append(out, r)
			}
		}
	}
	return out
}

// fix shows what was found and what would be done, asks, does it, and looks again.
func (a *app) fix(ctx context.Context, e *examined, fl doctorFlags) (*examined, error) {
	defer e.close()
	if err := a.showReport(e, fl); err != nil && !a.json {
		a.sayf("")
	}
	unlock, err := a.lockHome()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, r := range e.curable() {
		if r.Kind == doctor.Setting {
			if err := a.narrow(ctx, e, r.MTU); err != nil {
				return nil, err
			}
		}
	}
	// Looking is over: who changes something clears up first what is half done there.
	e.close()
	v, err := a.visit(ctx, e.file)
	if err != nil {
		return nil, err
	}
	e.v = v
	if err := a.carryOut(ctx, v, nil); err != nil {
		return nil, err
	}
	e.close()
	return a.examine(ctx, e.file, fl)
}

// narrow writes a smaller packet size into home.toml, after a question.
func (a *app) narrow(ctx context.Context, e *examined, mtu int) error {
	ok, err := a.agree(ctx, fmt.Sprintf("Write mtu = %d under [tunnel] in home.toml? Devices take it with heimweg peer renew.", mtu))
	if err != nil {
		return err
	}
	if !ok {
		return nothingDone()
	}
	f, err := e.file.SetMTU(mtu)
	if err != nil {
		return err
	}
	e.file = f
	return a.writeHome(f)
}

// watchPace is how often --watch looks.
const watchPace = time.Second

// watchHome follows a device home.
func (a *app) watchHome(ctx context.Context, f *home.File, fl doctorFlags) error {
	v, err := a.visitToLook(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	w := doctor.Watching{}
	question := probing.Examination(f.Home, v.Snapshot(), v.Local())
	show := view.NewWatch(a.Out, a.style, a.json)
	for {
		g, err := probing.Progress(ctx, v.Shell(), f.Home, question)
		if ctx.Err() != nil {
			return errExit(fault.ExitDone) // Ctrl-C is how watching ends
		}
		if err != nil {
			return err
		}
		step, isNew := w.See(f.Home, g)
		show.Step(step.Shown(f.Home, fl.full), isNew)
		if step.Stage == doctor.Home {
			return nil
		}
		select {
		case <-ctx.Done():
			return errExit(fault.ExitDone)
		case <-time.After(watchPace):
		}
	}
}
