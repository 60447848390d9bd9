// Package openway opens the way through the ISP router: it asks it to pass the
// tunnel's UDP port on to the home router, keeps a record of what it opened, and
// where that is refused it hands over what a person has to type there.
//
// It never overwrites a mapping that is somebody else's, never asks a person (its
// caller does, between Look and Open), never prints, and holds nothing up: an ISP
// router that does not answer is a result, not a failure. It speaks no protocol;
// package uplink does.
//
// Background. A mapping that a program asked for does not last like one that a
// person made: most ISP routers forget it when they restart, and some end it after
// a time (a lease). Who opened it has to come back before that, or somebody at
// home has to do it in his place. What the ISP router says is no proof either;
// package verify brings a packet.
package openway

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/isprouters"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uplink"
)

// askTime is how long all questions of one look, or of one opening, may take.
const askTime = 30 * time.Second

// A Request says for whom the way is opened, and how the ISP router is reached.
type Request struct {
	Home     home.Home
	Snapshot *router.Snapshot
	Mapping  blueprint.Mapping // what the plan wants
	// Direct is the way from this computer when it sits behind the home router or
	// beside it; Via leads through the home router.
	Direct, Via uplink.Way
	Login       *uplink.Login // of a FRITZ!Box; nil: none
	Records     *Records      // what was opened before
	// Ask is uplink.Ask; nil means that.
	Ask func(context.Context, uplink.Options) (Found, error)
}

// Found is an ISP router that was asked.
type Found struct {
	Maker, Model string
	Public       netip.Addr
	Answers      []uplink.Answer
	Tried        []uplink.Attempt
	Mapper       uplink.Asker
	Holes        Holes // nil: it opens no IPv6
	// Name tells the name that the ISP router keeps for its own address; nil: none.
	Name func(context.Context) (string, error)
}

// Holes opens an IPv6 firewall; *uplink.Gateway does.
type Holes interface {
	Pinhole(ctx context.Context, proto string, to netip.AddrPort, lease time.Duration) (uplink.Pinhole, error)
	RenewPinhole(ctx context.Context, p uplink.Pinhole, lease time.Duration) (uplink.Pinhole, error)
	ClosePinhole(ctx context.Context, p uplink.Pinhole) error
}

// ask is what Request.Ask is without a test.
func ask(ctx context.Context, o uplink.Options) (Found, error) {
	g, err := uplink.Ask(ctx, o)
	if g == nil {
		return Found{}, err
	}
	return Found{Maker: g.Maker, Model: g.Model, Public: g.Public, Answers: g.Answers, Tried: g.Tried, Mapper: g, Holes: g, Name: g.Name}, err
}

// A State is how the way through the ISP router is.
type State string

// The states.
const (
	NotNeeded State = "not-needed" // no ISP router in front
	Open      State = "open"       // it says that it passes the port on to the home router
	Closed    State = "closed"     // it does not, and can be asked to
	Taken     State = "taken"      // the port leads to somebody else
	ByHand    State = "by-hand"    // no program can open it there
)

// A Way is what is known of the way through the ISP router. Look makes it, and
// Open and Close change it.
type Way struct {
	State   State
	Want    blueprint.Mapping
	Gateway netip.Addr // the ISP router in the uplink LAN; invalid: not known
	Found   Found
	// Public is its address outside, as it says; invalid: it did not tell.
	Public netip.Addr
	// NoPublic: it says that it has none for IPv4.
	NoPublic bool
	// Mapping is what it says it does, with State Open; Holder is who has the port,
	// with State Taken.
	Mapping, Holder uplink.Mapping
	// Earlier: Holder is this home router under an address that it had before.
	Earlier bool
	// Hole is the opening for IPv6, zero without one.
	Hole uplink.Pinhole
	// To6 is the home router's own public IPv6 address, invalid without one.
	To6 netip.Addr
	// Why says what stands against it, one reason a line, for people.
	Why []string
	// Host is the name that the ISP router keeps for the home (MyFRITZ!), "" when it has
	// none or did not tell: it does with a password only.
	Host string
	// NeedsLogin: it opens ports for those who know its password.
	NeedsLogin bool
	// Fixed: a person set the mapping; it is none of ours.
	Fixed bool
	// Removed are older mappings of ours that were taken back.
	Removed []uplink.Mapping

	req    Request
	router isprouters.Router
	how    isprouters.Certainty
}

// Look asks the ISP router what it is and what it does, and changes nothing there.
// An error means that the question could not be put; a router that says nothing,
// or no, is a State.
func Look(ctx context.Context, r Request, tell event.Tell) (*Way, error) {
	if r.Ask == nil {
		r.Ask = ask
	}
	w := &Way{State: NotNeeded, Want: r.Mapping, req: r}
	if r.Home.Uplink.Kind == home.Direct {
		return w, nil
	}
	w.State, w.Gateway, w.To6 = ByHand, Gateway(r.Home, r.Snapshot), publicIPv6(r.Home, r.Snapshot)
	w.recognise()
	switch {
	case !w.Want.To.IsValid():
		w.Why = []string{"the home router has no address in the uplink LAN; is its WAN cable plugged in?"}
		return w, nil
	case !w.Gateway.IsValid():
		w.Why = []string{"the home router knows no way to the internet, so the ISP router's address is not known"}
		return w, nil
	}
	end := tell.Stage("isp-router", "asking the ISP router at "+w.Gateway.String())
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err := w.ask(ctx)
	if err != nil {
		end(err, "")
		return w, parent(ctx, err)
	}
	w.compare(ctx)
	end(nil, w.Name()+" at "+w.Gateway.String()+": "+w.says())
	return w, nil
}

// Known is what is known of the way without asking anybody: for a person who wants
// to do it by hand.
func Known(r Request) *Way {
	w := &Way{State: ByHand, Want: r.Mapping, Gateway: Gateway(r.Home, r.Snapshot), To6: publicIPv6(r.Home, r.Snapshot), req: r}
	w.recognise()
	return w
}

// Agreed reports whether the port was opened at this ISP router before: who
// permitted that need not be asked again.
func (w *Way) Agreed() bool {
	if w.req.Records.holeOnly(w.Gateway) {
		return true
	}
	return slices.ContainsFunc(w.req.Records.others(w.Gateway, uplink.Mapping{}), func(m uplink.Mapping) bool {
		return m.Proto == w.Want.Proto && m.External == w.Want.External
	})
}

// Ours reports whether heimweg opened anything at this ISP router.
func (w *Way) Ours() bool {
	return w.req.Records.holeOnly(w.Gateway) || len(w.req.Records.others(w.Gateway, uplink.Mapping{})) > 0
}

// parent keeps a Ctrl-C from being taken for a silent router; any other failure
// to ask is in the Way already.
func parent(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return nil
}

func (w *Way) ask(ctx context.Context) error {
	o := uplink.Options{
		Gateway: w.Gateway, Gateway6: gateway6(w.req.Home, w.req.Snapshot), Client: w.Want.To, Direct: w.req.Direct, Via: w.req.Via,
		Login: w.req.Login, Nonce: w.req.Records.nonce(w.Gateway, w.Want),
	}
	found, err := w.req.Ask(ctx, o)
	w.Found, w.Public = found, found.Public
	w.recognise()
	if err == nil {
		return nil
	}
	w.Why = reasons(found.Tried)
	if len(w.Why) == 0 {
		w.Why = []string{err.Error()}
	}
	return err
}

// compare looks for our mapping in what the ISP router tells.
func (w *Way) compare(ctx context.Context) {
	w.State = Closed
	if !w.Public.IsValid() {
		var err error
		w.Public, err = w.Found.Mapper.External(ctx)
		var no *uplink.RefusedError
		w.NoPublic = errors.As(err, &no) && no.Why == uplink.NoPublic
	}
	list, err := w.Found.Mapper.List(ctx)
	if err != nil {
		// Not every protocol tells. What we asked for ourselves, and has not ended, is
		// asked for again: that renews it.
		return
	}
	for _, m := range list {
		if m.Proto != w.Want.Proto || m.External != w.Want.External || m.Disabled || m.Remote.IsValid() {
			continue
		}
		if m.To == netip.AddrPortFrom(w.Want.To, w.Want.Internal) {
			w.State, w.Mapping = Open, m
			w.Fixed = m.Lease == 0 && !w.req.Records.has(w.Gateway, m)
			return
		}
		w.taken(m)
		return
	}
}

func (w *Way) taken(holder uplink.Mapping) {
	w.State, w.Holder = Taken, holder
	w.Earlier = holder.To.IsValid() && w.req.Records.has(w.Gateway, holder)
}

// MayOpen reports whether it is worth asking the ISP router: it can be asked, and
// the port is not open, or open for a time only. An opening for IPv6 always is.
func (w *Way) MayOpen() bool {
	return w.State == Closed || w.State == Open && !w.Fixed && (w.Mapping.Lease > 0 || w.offersIPv6())
}

// offersIPv6 reports whether there is an IPv6 firewall that can be asked, and
// somebody behind it to open it for.
func (w *Way) offersIPv6() bool {
	return w.To6.IsValid() && w.Found.Holes != nil && slices.ContainsFunc(w.Found.Answers, func(a uplink.Answer) bool { return a.IPv6 })
}

// Open asks the ISP router for the mapping, and for an opening for IPv6 where it
// has one; asked again, it renews. What we had opened before and is of no use any
// more is taken back. An error means that the record could not be written.
func (w *Way) Open(ctx context.Context, tell event.Tell) error {
	end := tell.Stage("open-way", "asking it to pass "+w.What()+" on")
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	m, err := w.Found.Mapper.Map(ctx, uplink.Want{
		Proto: w.Want.Proto, External: w.Want.External, Internal: w.Want.Internal, Description: Description,
	})
	if err != nil {
		w.refused(err)
		if w.State == ByHand && !w.NeedsLogin {
			w.openHole(ctx) // a household without an IPv4 of its own is called by IPv6
		}
		end(err, "")
		if w.Hole.To.IsValid() {
			return w.req.Records.keep(w.Gateway, w.Found, uplink.Mapping{Asked: w.Hole.Asked}, w.Hole)
		}
		return outer.Err()
	}
	w.State, w.Mapping, w.Fixed, w.Why = Open, m, false, nil
	if m.Public.IsValid() {
		w.Public = m.Public
	}
	w.openHole(ctx)
	w.removeOld(ctx)
	err = w.req.Records.keep(w.Gateway, w.Found, m, w.Hole)
	end(err, w.Opened())
	return err
}

// Description is what the ISP router's page shows for our mappings.
const Description = "heimweg"

// refused sorts a refusal: a port that is taken, a password that is missing, or
// something that a person has to do.
func (w *Way) refused(err error) {
	var conflict *uplink.ConflictError
	if errors.As(err, &conflict) {
		w.taken(conflict.Holder)
		return
	}
	w.State = ByHand
	w.Why, w.NeedsLogin = nil, false
	var failed *uplink.FailedError
	if !errors.As(err, &failed) {
		w.Why = []string{err.Error()}
		return
	}
	w.Why = append(reasons(failed.Tried), hints(failed.Tried)...)
	w.NeedsLogin = w.withoutPassword(failed)
}

// withoutPassword reports whether something failed for want of a password.
func (w *Way) withoutPassword(failed *uplink.FailedError) bool {
	return w.req.Login == nil && slices.ContainsFunc(slices.Concat(failed.Tried, w.Found.Tried), func(a uplink.Attempt) bool {
		var no *uplink.RefusedError
		return errors.As(a.Err, &no) && no.Why == uplink.NeedsPassword
	})
}

// Login asks again with a FRITZ!Box's password; Open and Close use it from then
// on. What the router says to it is in Found and Why.
func (w *Way) Login(ctx context.Context, l *uplink.Login) error {
	w.req.Login, w.NeedsLogin = l, false
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := w.ask(ctx); err != nil {
		w.State = ByHand
		return parent(ctx, err)
	}
	if w.Found.Name != nil {
		w.Host, _ = w.Found.Name(ctx) // a FRITZ!Box without MyFRITZ! has none
	}
	return nil
}

// openHole opens IPv6 where the home router has a public address and the ISP
// router offers it. IPv4 stands without it, so a refusal is a reason to tell only.
func (w *Way) openHole(ctx context.Context) {
	if !w.offersIPv6() {
		return
	}
	to := netip.AddrPortFrom(w.To6, w.Want.Internal)
	var err error
	if old, ok := w.req.Records.hole(w.Gateway, to); ok {
		w.Hole, err = w.Found.Holes.RenewPinhole(ctx, old, 0)
	}
	if !w.Hole.To.IsValid() || err != nil {
		w.Hole, err = w.Found.Holes.Pinhole(ctx, w.Want.Proto, to, 0)
	}
	if err != nil {
		w.Hole = uplink.Pinhole{}
		w.Why = append(w.Why, "for IPv6 it was refused: "+plain(err))
	}
}

// removeOld takes back what we opened at this ISP router for another port or
// another address of the home router. What is not ours any more stays.
func (w *Way) removeOld(ctx context.Context) {
	for _, m := range w.req.Records.others(w.Gateway, w.Mapping) {
		var conflict *uplink.ConflictError
		switch err := w.Found.Mapper.Unmap(ctx, m); {
		case err == nil:
			w.Removed = append(w.Removed, m)
			w.req.Records.drop(w.Gateway, m)
		case errors.As(err, &conflict):
			w.req.Records.drop(w.Gateway, m) // somebody else has it now
		}
	}
}

// Close takes back everything that we opened at this ISP router.
func (w *Way) Close(ctx context.Context, tell event.Tell) error {
	mine := w.req.Records.others(w.Gateway, uplink.Mapping{})
	hole, holed := w.req.Records.hole(w.Gateway, netip.AddrPort{})
	holed = holed && w.Found.Holes != nil
	if len(mine) == 0 && !holed {
		return nil
	}
	end := tell.Stage("close-way", "taking back what heimweg opened at the ISP router")
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var failed error
	for _, m := range mine {
		var conflict *uplink.ConflictError
		err := w.Found.Mapper.Unmap(ctx, m)
		if err != nil && !errors.As(err, &conflict) {
			failed, w.Why = err, []string{plain(err)}
			var sorted *uplink.FailedError
			w.NeedsLogin = errors.As(err, &sorted) && w.withoutPassword(sorted)
			continue
		}
		w.Removed = append(w.Removed, m)
		w.req.Records.drop(w.Gateway, m)
		if w.State == Open && m.External == w.Mapping.External {
			w.State, w.Mapping = Closed, uplink.Mapping{}
		}
	}
	if holed {
		if err := w.Found.Holes.ClosePinhole(ctx, hole); err != nil {
			failed, w.Why = err, []string{plain(err)}
			holed = false
		} else {
			w.req.Records.dropHole(w.Gateway)
		}
	}
	if err := w.req.Records.save(); err != nil {
		failed = err
	}
	end(failed, w.removedText(holed))
	return failed
}

// reasons makes one line for each protocol out of what was tried.
func reasons(tried []uplink.Attempt) []string {
	var out []string
	for _, a := range tried {
		if a.Err == nil {
			continue
		}
		if line := a.String(); !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// plain is an error in one line.
func plain(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
