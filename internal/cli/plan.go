package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/view"
)

func (a *app) planCommand() *cobra.Command {
	var check, all bool
	var out string
	c := &cobra.Command{
		Use: "plan", Short: "show what would be changed on the home router; change nothing", Args: cobra.NoArgs,
		Long: `plan looks at the home router, compares it with home.toml and shows what heimweg
would change. It changes nothing.

Exit codes: 0 shown (with --check: nothing to do) · 3 with --check: something
would change · 5 router unreachable.`,
		Example: `  heimweg plan                 what would change
  heimweg plan --all           with every option of every section
  heimweg plan -o change.json  keep the plan; apply it later: heimweg apply change.json
  heimweg plan --check         for scripts: exit code 3 when something would change`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.plan(cmd.Context(), check, all, out) },
	}
	c.Flags().BoolVar(&check, "check", false, "exit with 3 when something would change")
	c.Flags().BoolVar(&all, "all", false, "show every option of every section")
	c.Flags().StringVarP(&out, "output", "o", "", "also write the plan to this file, for heimweg apply FILE")
	return c
}

func (a *app) plan(ctx context.Context, check, all bool, out string) error {
	f, err := a.readHome()
	if err != nil {
		return err
	}
	v, err := a.visitToLook(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	p := v.Plan(v.request)
	if out != "" {
		text, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			return err
		}
		if err := store.Create(out, append(text, '\n'), 0o600); err != nil {
			return fileExists(out, err)
		}
	}
	if err := a.showPlan(p, all); err != nil {
		return err
	}
	if check && (!p.Empty() || len(p.Blocked) > 0) {
		return errExit(fault.ExitDifferences)
	}
	return nil
}

func fileExists(path string, err error) error {
	if errors.Is(err, os.ErrExist) {
		return fault.NewUsage("file-exists", "%s exists already and is not overwritten", path).Do("name another file")
	}
	return err
}

func (a *app) showPlan(p *plan.Plan, all bool) error {
	if a.json {
		return a.printJSON(p)
	}
	view.Plan(a.Out, a.style, p, all)
	return nil
}

func (a *app) applyCommand() *cobra.Command {
	var keys string
	c := &cobra.Command{
		Use: "apply [PLAN]", Short: "change the home router to what home.toml wants, under guard", Args: cobra.MaximumNArgs(1),
		Long: `apply looks at the home router, shows what it would change, asks once, and does it.

The router takes its old settings back by itself when it loses us, or at the next
power-on, until we have come back over a new connection and confirmed.

A name under [ddns] needs the password at its service. It is asked for once, or
taken from HEIMWEG_DDNS_PASSWORD, and kept on the router only.

Packages that are missing the router fetches from the internet. With --mirror FOLDER
they come from a folder that heimweg firmware bundle made, checked against its signed
lists, and the router needs no internet (releases with opkg, up to 24.10).

With a PLAN that was saved by heimweg plan -o it does just that; when the router
has changed since, it refuses.`,
		Example: `  heimweg apply
  heimweg apply change.json     what was planned before
  heimweg apply --mirror stick  without internet, from a bundle
  heimweg apply --yes           without asking; for a loss its name: --accept-risk=drops-connection`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.apply(cmd.Context(), args, keys) },
	}
	c.Flags().BoolVar(&a.newDDNS, "new-ddns-password", false, "ask for the password at the DDNS service again, and replace the one on the router")
	a.packages.addFolder(a, c)
	c.Flags().StringVar(&keys, "keys-from", "", "file of the gateway that heimweg adopt --gateway or --wg-easy read, whose keys the router gets")
	return c
}

func (a *app) apply(ctx context.Context, args []string, keys string) error {
	unlock, err := a.lockHome()
	if err != nil {
		return err
	}
	defer unlock()
	f, err := a.readHome()
	if err != nil {
		return err
	}
	var saved *plan.Plan
	if len(args) == 1 {
		if saved, err = readPlan(args[0]); err != nil {
			return err
		}
	}
	v, err := a.visit(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := v.gatewayKeys(keys); err != nil {
		return err
	}
	return a.carryOut(ctx, v, saved)
}

func readPlan(path string) (*plan.Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.NewUsage("no-plan", "the plan %s cannot be read", path).Saw("%s", err).Do("make one: heimweg plan -o %s", path)
	}
	p, err := plan.Parse(text)
	if err != nil {
		return nil, fault.NewUsage("bad-plan", "%s is not a plan of this heimweg", path).Saw("%s", err).
			Do("make a new one: heimweg plan -o FILE")
	}
	return p, nil
}

// carryOut shows the plan, asks once, and applies it. saved is a plan made
// earlier, nil for one made now.
func (a *app) carryOut(ctx context.Context, v *visit, saved *plan.Plan) error {
	p := saved
	if p == nil {
		p = v.Plan(v.request)
	} else if f := p.Refuse(v.Snapshot().Fingerprint()); f != nil {
		return f
	}
	if err := a.fromBundle(ctx, v, p); err != nil {
		return err
	}
	if !a.json || p.Empty() || len(p.Blocked) > 0 {
		if err := a.showPlan(p, false); err != nil {
			return err
		}
	}
	if len(p.Blocked) > 0 {
		return errExit(fault.ExitFailed) // the plan has said why
	}
	if p.Empty() {
		return nil
	}
	if err := a.consent(ctx, p); err != nil {
		return err
	}
	if p.Needs().DDNS {
		password, err := a.ddnsPassword(v.file.Home.DDNS)
		if err != nil {
			return err
		}
		v.request.DDNSPassword = password
	}
	if p.Needs().Password {
		hash, err := a.password(ctx)
		if err != nil {
			return err
		}
		v.request.PasswordHash = uci.Hidden(hash)
	}
	if err := v.Run(ctx, p, v.request); err != nil {
		return err
	}
	if to := v.Moved(); to != "" {
		if err := a.follow(v, to); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"applied": true, "steps": len(p.Steps)})
	}
	return nil
}

// consent asks for every named risk and once for the plan.
func (a *app) consent(ctx context.Context, p *plan.Plan) error {
	if slices.Contains(p.Risks(), plan.ForgetsKeys) && !slices.Contains(a.risks, string(plan.ForgetsKeys)) {
		if err := a.forgetKeys(ctx, p); err != nil {
			return err
		}
	}
	if slices.Contains(p.Risks(), plan.DropsConnection) && !slices.Contains(a.risks, string(plan.DropsConnection)) {
		if !a.Terminal.IsTerminal() {
			return needsPerson("the router's address changes", "--accept-risk="+string(plan.DropsConnection))
		}
		a.sayf("The router's address changes. Everything in the home LAN must get a new one; unplug and replug what does not.")
		got, err := a.ask(ctx, `Type "move" to go on, or pass --accept-risk=drops-connection:`, "", "--accept-risk=drops-connection")
		if err != nil {
			return err
		}
		if got != "move" {
			return nothingDone()
		}
		return nil
	}
	question := "Apply?"
	if p.NeedsGuard() {
		question = "Apply? The router takes its old settings back by itself if it loses us, or at the next power-on."
	}
	ok, err := a.agree(ctx, question)
	if err != nil {
		return err
	}
	if !ok {
		return nothingDone()
	}
	return nil
}

// forgetKeys asks by name whether private keys of devices that lie on the router
// may go.
func (a *app) forgetKeys(ctx context.Context, p *plan.Plan) error {
	var names []string
	for _, s := range p.Steps {
		if s.Risk == plan.ForgetsKeys {
			names = append(names, s.Name)
		}
	}
	const flag = "--accept-risk=" + string(plan.ForgetsKeys)
	what := "the router forgets the private keys of " + strings.Join(names, ", ")
	if !a.Terminal.IsTerminal() {
		return needsPerson(what, flag)
	}
	a.sayf("%s. They belong on the devices; LuCI cannot show their QR codes any more.", what)
	got, err := a.ask(ctx, `Type "forget" to go on, or pass `+flag+":", "", flag)
	if err == nil && got != "forget" {
		return nothingDone()
	}
	return err
}

func nothingDone() error {
	return fault.New("declined", "nothing was done").Do("run the same command again when you are ready")
}

// follow writes the router's new address into home.toml and takes its pinned key
// along.
func (a *app) follow(v *visit, to string) error {
	f, err := v.file.SetRouterAddress(to)
	if err != nil {
		return err
	}
	if err := a.writeHome(f); err != nil {
		return err
	}
	v.file = f
	if err := a.repin(v.way.Addr, to); err != nil {
		return err
	}
	event.Tell(a.tell()).Note("moved", "the router is at "+to+" now; home.toml says so, too")
	return nil
}
