package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/isprouters"
	"github.com/heimweg/heimweg/internal/locate"
	"github.com/heimweg/heimweg/internal/openway"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uplink"
	"github.com/heimweg/heimweg/internal/view"
)

// wayFlags say how the way through the ISP router is opened.
type wayFlags struct {
	byHand bool // do not ask the ISP router
	end    bool // take back what was opened there, and end
}

// records are what heimweg opened at ISP routers.
func (a *app) records() (*openway.Records, error) {
	dir, err := a.folder()
	if err != nil {
		return nil, err
	}
	r, err := openway.ReadRecords(filepath.Join(dir, "opened.json"))
	if err != nil {
		return nil, fault.New("records-unreadable", "what heimweg opened at the ISP router is not known any more").From(err).
			Saw("%s", err).Do("move that file away; an old mapping may then have to be taken out at the ISP router by hand")
	}
	return r, nil
}

// language is the one that instructions for the ISP router are given in.
func (a *app) language() isprouters.Language {
	return isprouters.LanguageOf(a.Getenv("LC_ALL"), a.Getenv("LC_MESSAGES"), a.Getenv("LANG"))
}

// ispWays are the ways to the ISP router: from this computer where it sits behind
// the home router or beside it, and through the home router.
func (a *app) ispWays(v *visit) (direct, via uplink.Way) {
	if c, ok := v.Shell().(interface {
		Dial(ctx context.Context, network, address string) (net.Conn, error)
	}); ok {
		via.Dial = c.Dial
	}
	local, h := v.Local(), v.file.Home
	if !local.IsValid() || local.IsLoopback() {
		return direct, via // through another computer, or a door of the lab's: nobody knows where that leads
	}
	for _, i := range v.Snapshot().Interfaces {
		for _, p := range i.Addresses {
			if !p.Masked().Contains(local) || i.Name == h.Tunnel.Interface {
				continue
			}
			direct = uplink.System()
			if a.Dial != nil {
				direct = uplink.Way{Dial: a.Dial, ListenUDP: a.ListenUDP}
			}
			if i.Name == "wan" || h.Uplink.Kind == home.OneArmed {
				direct.From = local
			}
			return direct, via
		}
	}
	return direct, via
}

// wayRequest is what openway wants to know about the home that v visits.
func (a *app) wayRequest(v *visit, records *openway.Records) openway.Request {
	r := openway.Request{Home: v.file.Home, Snapshot: v.Snapshot(), Records: records}
	if m := v.Plan(v.request).Mapping; m != nil {
		r.Mapping = *m
	}
	r.Direct, r.Via = a.ispWays(v)
	return r
}

// openWay opens the way through the ISP router, after a question, or says what a
// person has to type there. It never holds up what comes next: its error is that
// of a person who gave up, or of a file.
func (a *app) openWay(ctx context.Context, f *home.File, fl wayFlags) (open bool, err error) {
	if f.Home.Uplink.Kind == home.Direct {
		return false, nil
	}
	v, err := a.visit(ctx, f)
	if err != nil {
		return false, err
	}
	defer v.Close()
	if err := a.settleUplink(ctx, v); err != nil {
		return false, err
	}
	records, err := a.records()
	if err != nil {
		return false, err
	}
	req := a.wayRequest(v, records)
	if fl.byHand || f.Home.Uplink.Mapping == home.ByHand {
		a.tellByHand(ctx, openway.Known(req), v)
		return false, nil
	}
	w, err := openway.Look(ctx, req, a.tell())
	if err != nil {
		return false, err
	}
	if fl.end {
		return false, a.endWay(ctx, w)
	}
	if w.MayOpen() {
		if err := a.askToOpen(ctx, w); err != nil {
			return false, err
		}
	}
	a.tellWay(ctx, w, v)
	return w.State == openway.Open || w.Hole.To.IsValid(), a.callByName(ctx, f, w)
}

// settleUplink waits until the home router has an address on its outer side again:
// what was just applied may have started the networks anew.
func (a *app) settleUplink(ctx context.Context, v *visit) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !openway.Gateway(v.file.Home, v.Snapshot()).IsValid() {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil // openway says what is missing
			}
			return ctx.Err()
		case <-tick.C:
		}
		if err := v.Look(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// askToOpen asks a person once, and then the ISP router. Who agreed before is not
// asked again.
func (a *app) askToOpen(ctx context.Context, w *openway.Way) error {
	if !a.yes && !w.Agreed() {
		if !a.Terminal.IsTerminal() {
			w.Why = []string{"nobody is there to permit it; --yes does"}
			return nil
		}
		ok, err := a.agreeUnless(ctx, fmt.Sprintf("May heimweg ask %s to pass %s to %s?", w.Name(), w.What(), w.Want.To))
		if err != nil || !ok {
			w.Why = []string{"you did not want it to be asked; mapping = \"by-hand\" under [uplink] in home.toml remembers that"}
			return err
		}
	}
	if err := w.Open(ctx, a.tell()); err != nil {
		return err
	}
	if known, err := a.logIn(ctx, w, "opens ports for programs that know"); err != nil || !known {
		return err
	}
	return w.Open(ctx, a.tell())
}

// logIn asks for a FRITZ!Box's password where it wants one; it is kept nowhere.
// Enter leaves it: then the way by hand is told, and where to permit it for good.
func (a *app) logIn(ctx context.Context, w *openway.Way, does string) (known bool, err error) {
	if !w.NeedsLogin || !a.Terminal.IsTerminal() {
		return false, nil
	}
	a.sayf("%s %s its password. heimweg uses it now and keeps it nowhere.", w.Name(), does)
	if permit := w.Permit(isprouters.English); permit != "" {
		a.sayf("Or permit it there once, without a password: %s.", permit)
	}
	password, err := a.secret("Password of the FRITZ!Box's settings page (Enter: by hand):")
	if err != nil || password == "" {
		return false, err
	}
	user, err := a.ask(ctx, "Its user name (Enter: there is none):", "", "--by-hand")
	if err != nil {
		return false, err
	}
	if err := w.Login(ctx, uplink.NewLogin(user, password)); err != nil {
		return false, err
	}
	return len(w.Found.Answers) > 0, nil
}

// callByName offers the name that the ISP router keeps for the home, where devices
// have none to call yet: an address changes, the name follows it.
func (a *app) callByName(ctx context.Context, f *home.File, w *openway.Way) error {
	if w.Host == "" || f.Home.CallName() != "" {
		return nil
	}
	ok, err := a.agreeUnless(ctx, fmt.Sprintf("%s keeps the name %s for your home. Shall your devices call that?", w.Name(), w.Host))
	if err != nil || !ok {
		return err
	}
	unlock, err := a.lockHome()
	if err != nil {
		return err
	}
	defer unlock()
	named, err := f.SetEndpoint(w.Host)
	if err != nil {
		return err
	}
	return a.writeHome(named)
}

// endWay takes back what heimweg opened.
func (a *app) endWay(ctx context.Context, w *openway.Way) error {
	if len(w.Found.Answers) == 0 && w.Ours() {
		return fault.New("isp-silent", "the ISP router does not answer, so what heimweg opened there stays").
			Saw("%s", strings.Join(w.Why, "; ")).Do("take it out at the ISP router by hand, or try again later")
	}
	ours := w.Ours()
	err := w.Close(ctx, a.tell())
	if err != nil && ctx.Err() == nil {
		known, end := a.logIn(ctx, w, "takes that back for programs that know")
		if end != nil {
			return end
		}
		if known {
			err = w.Close(ctx, a.tell())
		}
	}
	if err != nil {
		return fault.New("isp-keeps", "the ISP router does not take the mapping back").From(err).
			Saw("%s", strings.Join(w.Why, "; ")).Do("take it out at the ISP router by hand")
	}
	if !ours {
		a.sayf("heimweg has opened nothing at the ISP router.")
	}
	return nil
}

// tellWay says how the way is now, and what becomes of it.
func (a *app) tellWay(ctx context.Context, w *openway.Way, v *visit) {
	tell := a.tell()
	note := func(lines ...string) {
		for _, l := range lines {
			if l != "" {
				tell.Note("isp-router", l)
			}
		}
	}
	if w.State == openway.Open {
		note(w.Outlook()...)
		note(w.Why...)
		note(w.Beyond())
		return
	}
	note(w.Why...)
	note(w.Conflict()...)
	note(w.Outlook()...)
	note(w.Beyond())
	if w.State != openway.Taken {
		a.tellByHand(ctx, w, v)
	}
}

// tellByHand shows what a person has to do at the ISP router. What nobody can come in
// by is no part of it.
func (a *app) tellByHand(ctx context.Context, w *openway.Way, v *visit) {
	where := a.whereBy(ctx, w, v)
	only6 := false
	switch where.Kind {
	case endpoint.CGNAT, endpoint.DSLite, endpoint.IPv6Only:
		only6 = true
	}
	if only6 && !w.To6.IsValid() { // nothing that is set there helps
		if !a.json {
			view.Where(a.Err, a.style, where)
			return
		}
		a.tell().Note("by-hand", unreachable(where).Error())
		return
	}
	g := w.Guide(v.Snapshot().Board.Hostname, only6, a.language())
	if a.json {
		a.tell().Note("by-hand", g.Title)
		for _, r := range g.Rows {
			a.tell().Note("by-hand", r.Label+": "+r.Text)
		}
		return
	}
	view.Guide(a.Err, a.style, g)
}

// whereBy is where home is, as far as this run has found out. The ISP router is not
// asked again; servers outside only when they are named.
func (a *app) whereBy(ctx context.Context, w *openway.Way, v *visit) endpoint.Verdict {
	if a.found != nil && a.found.Kind != endpoint.Unclear {
		return *a.found
	}
	ctx, cancel := context.WithTimeout(ctx, whereTime)
	defer cancel()
	r := locate.Request{Home: v.file.Home, Snapshot: v.Snapshot(), Servers: a.servers}
	direct, via := a.ispWays(v)
	r.Near, r.Via = a.outsideWays(v, direct, via)
	box := endpoint.Box{Inside: endpoint.Is(w.Gateway)}
	switch {
	case w.NoPublic:
		box.Outer = endpoint.None()
	case w.Public.IsValid():
		box.Outer = endpoint.Is(w.Public)
	}
	if box.Outer.Known() {
		r.Box = func(context.Context) endpoint.Box { return box }
	}
	return endpoint.Judge(locate.Facts(ctx, r, a.tell()))
}

// agreeUnless asks a question whose default is yes.
func (a *app) agreeUnless(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.Err, "%s [Y/n] ", question)
	line, err := a.readLine(ctx)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(line) {
	case "n", "no", "nein":
		return false, nil
	}
	return true, nil
}

// publicByISP is the public address that the ISP router told when a port was opened
// there; invalid when it told none, or none that people outside can call.
func (a *app) publicByISP(h home.Home, snap *router.Snapshot) netip.Addr {
	records, err := a.records()
	if err != nil {
		return netip.Addr{}
	}
	return records.Public(openway.Gateway(h, snap))
}
