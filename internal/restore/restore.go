// Package restore puts a gateway back from a backup: onto the same box, onto
// another of the same kind, or onto one of another model or release.
//
// The order: who we are first (the SSH host keys that are pinned, the keys that may
// log in, root's password), so that everything after it goes over a connection
// that is known again; then one guarded change, like every other, with the
// sections that heimweg draws anew from home.toml for this box, the tunnel's old
// key, and the household's own sections as far as they fit; then packages and
// files that nothing depends on.
//
// It prints nothing, opens no backup file, and decides nothing that package backup
// (what fits) or package plan (what has to change) can decide.
package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/backup"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uci"
)

// Deadlines; each is named in the message when it passes.
const (
	stepTime    = 90 * time.Second
	installTime = 10 * time.Minute
	// uplinkTime is how long a router that has just started may take to reach the
	// internet: DHCP, PPPoE.
	uplinkTime = 90 * time.Second
)

// A Proposal is what would be done to a box.
type Proposal struct {
	Fit  backup.Fitting
	Plan *plan.Plan
	// Request is what Run needs; it holds secrets, hidden.
	Request apply.Request
	// Packages to install besides, by name.
	Packages []string
}

// Propose computes what a backup means for the box that a session is at. r.Home is
// what the household wants; its LANs may move to where they were.
func Propose(ctx context.Context, s *apply.Session, b backup.Backup, r apply.Request, o backup.Options) (Proposal, error) {
	if err := s.Also(ctx, "wireless"); err != nil {
		return Proposal{}, err
	}
	r.Home.LANs = slices.Clone(r.Home.LANs)
	for i := range r.Home.LANs {
		r.Home.LANs[i].Renumber = true
		o.LANs = append(o.LANs, r.Home.LANs[i].Interface)
	}
	fit, err := backup.Fit(b, s.Snapshot(), o)
	if err != nil {
		return Proposal{}, fault.New("restore-edit", "a settings file of this box cannot be edited").Saw("%s", err).From(err).
			Do("reset the box to its factory settings (firstboot on the router, or its reset button), then run this command again")
	}
	p := Proposal{Fit: fit}
	private, known, preshared := b.Secrets(r.Home.Tunnel.Interface)
	if known {
		r.Private = &private
	}
	r.Preshared = map[string]key.Preshared{}
	for _, peer := range r.Home.Peers {
		if psk, ok := preshared[peer.PublicKey]; ok {
			r.Preshared[peer.Name] = psk
		}
	}
	r.Base = fit.Docs
	p.Request = r
	p.Plan = s.Plan(r)
	planned := plan.PackagesOf(r.Home, s.Snapshot())
	for _, n := range b.Packages {
		if !slices.Contains(planned, n) {
			p.Packages = append(p.Packages, n)
		}
	}
	return p, nil
}

// Identify gives a box back who it was: SSH host keys, keys that may log in,
// root's password. Afterwards the session has to be opened anew.
func Identify(ctx context.Context, sh openwrt.Shell, b backup.Backup, tell event.Tell) (err error) {
	r := openwrt.Restored{Hash: b.RootHash(), SSH: true}
	for _, f := range b.Identity() {
		if openwrt.PlainName(f.Name) {
			r.Files = append(r.Files, openwrt.PutFile{Name: f.Name, Mode: 0o600, Text: f.Text})
		}
	}
	if len(r.Files) == 0 && r.Hash.Reveal() == "" {
		return nil
	}
	end := tell.Stage("identity", "putting back host keys, login keys and root's password")
	defer func() { end(err, "the box has its old host key, login keys and root's password") }()
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	return openwrt.PutBack(ctx, sh, r)
}

// keyTime is how long an SSH server may take to read its keys anew.
const keyTime = 8 * time.Second

// WaitForKey waits until the box shows another host key than before, as it does a
// moment after Identify. That it never does is no failure: it may be the same.
func WaitForKey(ctx context.Context, way apply.Way) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	for {
		c, err := way.Open(ctx, way.Addr)
		var other *shell.HostKeyError
		if errors.As(err, &other) {
			return true
		}
		if err == nil {
			c.Close()
		}
		t := time.NewTimer(300 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

// A Result is what was done.
type Result struct {
	Taken   []backup.Line `json:"taken,omitempty"`
	Left    []backup.Line `json:"left,omitempty"`
	Missing []backup.Line `json:"missing_packages,omitempty"` // that could not be installed, and why
}

// Run carries a proposal out.
func Run(ctx context.Context, s *apply.Session, p Proposal, tell event.Tell) (Result, error) {
	res := Result{Taken: p.Fit.Taken, Left: p.Fit.Left}
	if len(p.Plan.Blocked) > 0 {
		return res, fault.List(p.Plan.Blocked)
	}
	if err := change(ctx, s, p); err != nil {
		return res, err
	}
	if err := WaitUplink(ctx, s); err != nil {
		return res, err
	}
	var err error
	if res.Missing, err = Install(ctx, s, p.Packages, tell); err != nil {
		return res, err
	}
	return res, files(ctx, s.Shell(), p.Fit.Files, &res, tell)
}

// change makes the guarded changes: one, or two on a box that reaches the internet
// only with the household's own settings, such as a dial-up or a WAN port that it
// has not by itself, and needs packages from there.
func change(ctx context.Context, s *apply.Session, p Proposal) error {
	if len(p.Request.Base) > 0 && len(p.Plan.Packages()) > 0 && !online(s.Snapshot()) {
		if err := s.PutBase(ctx, p.Request); err != nil {
			return err
		}
		if err := WaitUplink(ctx, s); err != nil {
			return err
		}
		p.Request.Base = nil
		p.Plan = s.Plan(p.Request)
		if len(p.Plan.Blocked) > 0 {
			return fault.List(p.Plan.Blocked)
		}
	}
	if p.Plan.Empty() && len(p.Request.Base) == 0 {
		return nil
	}
	return s.Run(ctx, p.Plan, p.Request)
}

func files(ctx context.Context, sh openwrt.Shell, list []backup.File, res *Result, tell event.Tell) (err error) {
	var r openwrt.Restored
	for _, f := range list {
		if !openwrt.PlainName(f.Name) {
			res.Left = append(res.Left, backup.Line{What: f.Name, Why: "its name is unusual; put it back by hand"})
			continue
		}
		r.Files = append(r.Files, openwrt.PutFile{Name: f.Name, Mode: f.Mode, Text: f.Text})
	}
	if len(r.Files) == 0 {
		return nil
	}
	end := tell.Stage("files", "putting back files")
	defer func() { end(err, fmt.Sprintf("%d files are back", len(r.Files))) }()
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	return openwrt.PutBack(ctx, sh, r)
}

// Install installs packages that were there before. One that this release does not
// have, or that does not fit it, is left out and named; a feed that cannot be
// reached is an error, because trying again helps.
func Install(ctx context.Context, s *apply.Session, names []string, tell event.Tell) (missing []backup.Line, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	what := strings.Join(names, ", ")
	end := tell.Stage("packages", "installing "+what)
	defer func() { end(err, installedText(names, missing)) }()
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	todo := slices.Clone(names)
	for len(todo) > 0 {
		err := openwrt.Install(ctx, s.Shell(), openwrt.Installation{ID: openwrt.NewID(), Packages: todo})
		var trouble *openwrt.PackageError
		if err == nil {
			return missing, nil
		}
		if !errors.As(err, &trouble) {
			return missing, apply.Explain(err, s.Addr())
		}
		i := slices.Index(todo, trouble.Package)
		switch trouble.Trouble {
		case openwrt.TroubleNoSuch, openwrt.TroubleKernel, openwrt.TroubleDependency, openwrt.TroubleSpace, openwrt.TroubleUnknown:
		default:
			return missing, apply.Explain(err, s.Addr())
		}
		if i < 0 {
			i = 0 // the manager names something that the package needs; the first is as likely as any
			if len(todo) > 1 {
				if missing, todo, err = oneByOne(ctx, s, todo, missing); err != nil {
					return missing, err
				}
				continue
			}
		}
		missing = append(missing, backup.Line{What: todo[i], Why: trouble.Said})
		todo = slices.Delete(todo, i, i+1)
	}
	return missing, nil
}

// oneByOne installs each for itself, when the manager does not say which one failed.
func oneByOne(ctx context.Context, s *apply.Session, todo []string, missing []backup.Line) ([]backup.Line, []string, error) {
	for _, n := range todo {
		err := openwrt.Install(ctx, s.Shell(), openwrt.Installation{ID: openwrt.NewID(), Packages: []string{n}})
		var trouble *openwrt.PackageError
		switch {
		case errors.As(err, &trouble):
			missing = append(missing, backup.Line{What: n, Why: trouble.Said})
		case err != nil:
			return missing, nil, apply.Explain(err, s.Addr())
		}
	}
	return missing, nil, nil
}

func installedText(names []string, missing []backup.Line) string {
	n := len(names) - len(missing)
	if len(missing) == 0 {
		return strings.Join(names, ", ") + " installed"
	}
	return fmt.Sprintf("%d of %d packages installed", n, len(names))
}

// WaitUplink waits until the router has a way to the internet, for as long as such
// a thing may take. Without one the next step says what is missing.
func WaitUplink(ctx context.Context, s *apply.Session) error {
	deadline := time.Now().Add(uplinkTime)
	for !online(s.Snapshot()) && time.Now().Before(deadline) {
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		if err := s.Look(ctx); err != nil {
			return err
		}
	}
	return nil
}

func online(s *router.Snapshot) bool {
	return slices.ContainsFunc(s.Interfaces, func(i router.Interface) bool { return i.Up && len(i.Gateways) > 0 })
}

// Take reads from a router everything that makes the gateway.
func Take(ctx context.Context, s *apply.Session, homeText string, program string, now time.Time) (backup.Backup, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	g, err := openwrt.Gather(ctx, s.Shell())
	var no *openwrt.BackupError
	if errors.As(err, &no) {
		return backup.Backup{}, fault.New("no-backup", "the router could not pack its settings").Saw("%s", no.Said).From(err).
			Do("see that its flash and memory are not full (heimweg status), then run this command again")
	}
	if err != nil {
		return backup.Backup{}, apply.Explain(err, s.Addr())
	}
	files, err := backup.ParseArchive([]byte(g.Archive.Reveal()))
	if err != nil {
		return backup.Backup{}, fault.New("backup-garbled", "the router's archive of its settings cannot be read").Saw("%s", err).From(err).
			Do("run the same command again")
	}
	if g.Written != "" {
		files = slices.DeleteFunc(files, func(f backup.File) bool { return f.Name == writtenFile })
		files = append(files, backup.File{Name: writtenFile, Mode: 0o600, Text: uci.V(g.Written)})
	}
	slices.SortFunc(files, func(a, b backup.File) int { return strings.Compare(a.Name, b.Name) })
	return backup.Backup{
		Manifest: backup.Manifest{
			Format: backup.Format, Made: now.UTC().Truncate(time.Second), Program: program,
			Board: s.Snapshot().Board, Address: s.Addr(), Packages: g.Packages,
		},
		Home: homeText, Files: files,
	}, nil
}

const writtenFile = "/etc/heimweg/written.json"
