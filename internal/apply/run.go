package apply

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uci"
)

// A Request is what a run needs besides the plan.
type Request struct {
	Home home.Home
	// Access is how the person gets in; a fresh router takes both.
	Access blueprint.Access
	// PasswordHash for root, needed when the plan says so. Crypt form.
	PasswordHash uci.Value
	// DDNSPassword is that of the service that keeps the home's name, needed when the
	// plan says so.
	DDNSPassword uci.Value
	// Preshared are the keys of peers that are new, by name.
	Preshared map[string]key.Preshared
	// Rand makes the tunnel's private key when the router has none.
	Rand io.Reader
	// Files are the packages to install with all that they need, checked; nil: the
	// router asks its feeds on the internet.
	Files []openwrt.PackageFile
	// Private is the key to use instead, of a gateway that is put back; zero for none.
	Private *key.Private
	// Base are configuration files, with the household's own sections put in, that
	// take the place of the router's before the plan is carried out: of a gateway
	// that is put back. They are written in the same guarded window.
	Base map[string]*uci.Document
	// baseOnly: the plan comes later; see PutBase.
	baseOnly bool
}

// PutBase writes r.Base alone, under guard: what brings a box to the internet has
// to be there before packages can be installed.
func (s *Session) PutBase(ctx context.Context, r Request) error {
	r.baseOnly = true
	p := &plan.Plan{Format: plan.Format, Base: s.snap.Fingerprint()}
	return Explain(s.guarded(ctx, p, r), s.addr())
}

// Plan makes the plan for what the last look showed.
func (s *Session) Plan(r Request) *plan.Plan {
	p, _ := plan.For(r.Home, s.based(r), r.Access)
	return p
}

// based is what the last look showed, with the files of a request in it.
func (s *Session) based(r Request) *router.Snapshot {
	if len(r.Base) == 0 {
		return s.snap
	}
	snap := *s.snap
	snap.Configs = maps.Clone(s.snap.Configs)
	maps.Copy(snap.Configs, r.Base)
	return &snap
}

// Run carries a plan out. The plan must be for the router as it is now.
//
// When Run fails the router is in the old state, or it will be within the
// guard's time, or the message says what else.
func (s *Session) Run(ctx context.Context, p *plan.Plan, r Request) error {
	if err := s.refuse(p); err != nil {
		return err
	}
	err := s.run(ctx, p, r)
	return Explain(err, s.addr())
}

// refuse: a plan that is blocked, or that was made from another state.
func (s *Session) refuse(p *plan.Plan) error {
	if f := p.Refuse(s.snap.Fingerprint()); f != nil {
		return f
	}
	if len(p.Blocked) > 0 {
		return fault.List(p.Blocked)
	}
	return nil
}

func (s *Session) run(ctx context.Context, p *plan.Plan, r Request) error {
	if err := s.access(ctx, p, r); err != nil {
		return err
	}
	if err := s.install(ctx, p, r.Files); err != nil {
		return err
	}
	// A package may bring the very file that the plan puts sections into.
	if slices.Contains(p.Configs(), "ddns") && len(p.Packages()) > 0 {
		if err := s.Also(ctx, "ddns"); err != nil {
			return err
		}
	}
	if p.NeedsGuard() || len(r.Base) > 0 {
		return s.guarded(ctx, p, r)
	}
	if p.Needs().Private || len(p.Configs()) > 0 || len(p.Only(plan.PeerAdd, plan.PeerChange, plan.PeerRemove, plan.Record)) > 0 {
		return s.peers(ctx, p, r)
	}
	return nil
}

// access lets our key in, gives root a password, and shows over a new connection
// that the key works and that nobody gets in without credentials.
func (s *Session) access(ctx context.Context, p *plan.Plan, r Request) (err error) {
	a := openwrt.Access{}
	steps := p.Only(plan.Authorize, plan.SetPassword)
	for _, st := range steps {
		if st.Do == plan.Authorize {
			a.AuthorizedKey = st.Name
		} else {
			a.PasswordHash = r.PasswordHash
		}
	}
	if len(steps) == 0 {
		return nil
	}
	end := s.tell.Stage("access", "letting your key in")
	defer func() { end(err, accessText(a)) }()
	if p.Needs().Password && a.PasswordHash.Reveal() == "" {
		return fault.NewBug("the plan sets a password and none was supplied")
	}
	if err := s.do(ctx, func(ctx context.Context) error { return openwrt.Grant(ctx, s.conn, a) }); err != nil {
		return err
	}
	if err := s.connect(ctx, s.addr()); err != nil {
		return fmt.Errorf("logging in with the new key: %w", err)
	}
	if a.PasswordHash.Reveal() == "" || s.way.NoneRefused == nil {
		return nil
	}
	refused, err := s.way.NoneRefused(ctx, s.addr())
	if err != nil {
		return err
	}
	if !refused {
		return fault.New("open-login", "the router still lets anybody in without a password, although one was set").
			Do("set one in LuCI (System › Administration), then run this command again")
	}
	return nil
}

func accessText(a openwrt.Access) string {
	var t []string
	if a.AuthorizedKey != "" {
		t = append(t, "your key is in")
	}
	if a.PasswordHash.Reveal() != "" {
		t = append(t, "password set, login without one is refused")
	}
	return strings.Join(t, "; ")
}

func (s *Session) install(ctx context.Context, p *plan.Plan, files []openwrt.PackageFile) (err error) {
	in := openwrt.Installation{ID: openwrt.NewID(), Packages: p.Packages(), Files: files}
	for _, st := range p.Only(plan.Activate) {
		in.WireGuard = in.WireGuard || st.How == plan.NetworkRestart
	}
	if len(in.Packages) == 0 && !in.WireGuard {
		return nil
	}
	what := strings.Join(in.Packages, ", ")
	end := s.tell.Stage("install", "installing "+what)
	defer func() { end(err, what+" installed") }()
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	return openwrt.Install(ctx, s.conn, in)
}

// guarded is the window: from the snapshot to the confirmation.
func (s *Session) guarded(ctx context.Context, p *plan.Plan, r Request) error {
	c, docs, err := s.change(p, r)
	if err != nil {
		return err
	}
	r.Access.NewDDNS = false // it is written now; the next plan keeps it
	// A lost connection is no verdict: the activation may have moved the very
	// address that we talked to. What came of it shows over a new connection.
	var lost *shell.LostError
	if err := s.begin(ctx, c); err != nil && !errorsAs(err, &lost) {
		return s.giveBack(ctx, p, c, err)
	}
	verify, cancel := context.WithTimeout(ctx, c.Guard-lookPause)
	defer cancel()
	if err := s.verify(verify, p, r, c); err != nil {
		return s.giveBack(ctx, p, c, err)
	}
	err = s.confirm(ctx, p, c, docs, r)
	var refused *openwrt.Refusal
	if errorsAs(err, &refused) && refused.Code != "late" {
		return s.giveBack(ctx, p, c, Explain(err, s.addr())) // nothing is kept that cannot be noted
	}
	return err
}

func (s *Session) begin(ctx context.Context, c openwrt.Change) (err error) {
	end := s.tell.Stage("write", "snapshot on the router, guards armed, writing")
	defer func() { end(err, "settings written, checked by the router itself, made live") }()
	return s.do(ctx, func(ctx context.Context) error { return openwrt.Begin(ctx, s.conn, c) })
}

// verify comes back over a new connection and finds everything as it was wanted.
func (s *Session) verify(ctx context.Context, p *plan.Plan, r Request, c openwrt.Change) (err error) {
	end := s.tell.Stage("verify", "coming back over a new connection")
	defer func() { end(err, "still reachable over a new connection, everything as wanted") }()
	addrs := addresses(s.addr(), p.Moves)
	for {
		if err := s.comeBack(ctx, addrs...); err != nil {
			return err
		}
		if pending := s.snap.Pending; pending == nil || pending.ID != c.ID {
			return &openwrt.Refusal{Code: "late", Detail: c.ID}
		}
		left, patience := s.unsettled(r)
		if left == nil || !patience {
			return left
		}
		// Interfaces come up when they come up; the guard's time is the limit.
		if err := pause(ctx, retryPause); err != nil {
			return left
		}
	}
}

// unsettled plans again and says what is still different, nil for nothing.
// patience: time may mend it, because everything is written and only not live yet.
func (s *Session) unsettled(r Request) (left error, patience bool) {
	if r.baseOnly {
		return nil, false
	}
	snap := *s.snap
	snap.Pending, snap.Locked = nil, "" // ours
	p, _ := plan.For(r.Home, &snap, r.Access)
	f := fault.New("not-settled", "the router did not become what was wanted")
	patience = true
	for _, st := range p.Steps {
		switch st.Do {
		case plan.Record:
			continue
		case plan.Activate, plan.PeerAdd, plan.PeerChange, plan.PeerRemove:
		default:
			patience = false
		}
		f.Saw("still to do: %s", st.ID)
	}
	if len(f.Seen) == 0 {
		return nil, false
	}
	return f.Because("the old settings are back").
		Do("run the same command again with -v; if it stays so, please report the lines above"), patience
}

func addresses(now string, moves []plan.Move) []string {
	host, port := splitPort(now)
	var out []string
	for _, m := range moves {
		if m.From.String() == host {
			out = append(out, joinPort(m.To.String(), port))
		}
	}
	if len(out) > 0 {
		return out // the old address is gone; coming back through it would prove nothing
	}
	return []string{now}
}

func splitPort(addr string) (host, port string) {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap.Addr().String(), fmt.Sprint(ap.Port())
	}
	return addr, ""
}

func joinPort(host, port string) string {
	if port == "" {
		return host
	}
	return host + ":" + port
}

// giveBack takes the change back now when the router can still be reached, and
// leaves it to the guard when not. It works even after Ctrl-C.
func (s *Session) giveBack(ctx context.Context, p *plan.Plan, c openwrt.Change, cause error) error {
	var refused *openwrt.Refusal
	if fault.Find(cause) == nil && errorsAs(cause, &refused) {
		return cause // the router has taken it back already, or nothing was changed
	}
	end := s.tell.Stage("take-back", "taking the change back")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTime+lookPause)
	defer cancel()
	back := openwrt.TakeBack(ctx, s.conn, c.ID)
	for _, addr := range append(addresses(s.way.Addr, p.Moves), s.way.Addr) {
		if back == nil || errorsAs(back, &refused) {
			break
		}
		if back = s.connect(ctx, addr); back == nil {
			back = openwrt.TakeBack(ctx, s.conn, c.ID)
		}
	}
	end(back, "the old settings are back")
	if back == nil {
		return cause
	}
	return fault.New("no-way-back", "the router did not come back after the change; it takes its old settings back by itself within %s", c.Guard).
		Saw("%s", cause).From(cause).
		Do("wait two minutes and run the same command again; if nothing answers, unplug the router and plug it in again").
		Exits(fault.ExitUnreachable)
}

func (s *Session) confirm(ctx context.Context, p *plan.Plan, c openwrt.Change, docs map[string]*uci.Document, r Request) (err error) {
	end := s.tell.Stage("confirm", "keeping it")
	defer func() { end(err, "kept") }()
	record := s.record(p, docs, c.ID)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
	defer cancel()
	snap, err := openwrt.Confirm(ctx, s.conn, c.ID, record, s.want)
	if err != nil {
		return err
	}
	s.snap = snap
	err, _ = s.unsettled(r)
	return err
}

func (s *Session) record(p *plan.Plan, docs map[string]*uci.Document, id string) router.Written {
	w := p.Written(docs, s.snap.Written)
	w.ID, w.Program = id, Program
	return w
}

// Program is the version that is noted on the router with what was written.
const Program = "0.1.0"
