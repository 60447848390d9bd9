// Package locate gathers what is known about the way into the house, so that
// package endpoint can judge where home is: what the home router showed, what the
// ISP router says of itself, what public DNS says, and, if somebody asked for it,
// what servers on the internet see.
//
// It asks side by side and takes no longer than the slowest answer, a few seconds.
// It changes nothing anywhere, judges nothing, and asks no server that was not
// named. What does not answer is a fact that is not known, never a failure.
package locate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/outside"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uplink"
)

// A Request says what to gather. What is left out is not known afterwards.
type Request struct {
	Home     home.Home
	Snapshot *router.Snapshot

	// Box asks the ISP router for its own address; nil: nobody asks it. See
	// ISPRouter.
	Box func(context.Context) endpoint.Box

	// Lookup asks public DNS; nil: nobody does.
	Lookup func(context.Context, string) ([]netip.Addr, error)

	// Servers may be asked what home looks like from outside, and no others: STUN
	// servers as "host:port", web pages as "https://…".
	Servers []string
	// Near leads out through the home router from this computer, and Via through the
	// home router's SSH. Their zero values lead nowhere.
	Near, Via outside.Way

	// Earlier are public addresses of earlier days.
	Earlier []endpoint.Sighting
}

// Facts gathers.
func Facts(ctx context.Context, r Request, tell event.Tell) endpoint.Facts {
	f := FromRouter(r.Home, r.Snapshot)
	f.Earlier = append(f.Earlier, r.Earlier...)
	for _, s := range r.Servers {
		tell.Note("outside", "asking "+s+" what home looks like from outside")
	}
	var wg sync.WaitGroup
	if r.Box != nil && !f.Direct {
		f.Boxes = make([]endpoint.Box, 1)
		wg.Go(func() { f.Boxes[0] = r.Box(ctx) })
	}
	if r.Lookup != nil && f.Name != "" {
		wg.Go(func() { f.A, f.AAAA = names(ctx, r.Lookup, f.Name) })
	}
	var four, six views
	wg.Go(func() { four = r.ask(ctx, outside.IPv4) })
	wg.Go(func() { six = r.ask(ctx, outside.IPv6) })
	wg.Wait()
	f.STUN, f.Web, f.STUN6, f.Web6 = four.stun, four.web, six.stun, six.web
	return f
}

// FromRouter is what one look at the home router tells.
func FromRouter(h home.Home, s *router.Snapshot) endpoint.Facts {
	f := endpoint.Facts{Direct: h.Uplink.Kind == home.Direct, Port: h.Tunnel.CallPort(), Inner: h.Tunnel.Port}
	if a, err := netip.ParseAddr(h.CallName()); err == nil {
		f.Earlier = []endpoint.Sighting{{Addr: a}} // what home.toml says was true once
	} else {
		f.Name = h.CallName()
	}
	if s == nil {
		return f
	}
	name := "wan"
	if h.Uplink.Kind == home.OneArmed {
		name = "lan"
	}
	i, ok := s.Interface(name)
	six, _ := s.Interface(name + "6")
	switch {
	case !ok:
		why := "the home router has no interface " + name
		f.WAN, f.WAN6 = endpoint.NotKnown(why), endpoint.NotKnown(why)
		return f
	case !i.Up && !six.Up:
		why := "the home router's WAN side is down"
		f.WAN, f.WAN6 = endpoint.NotKnown(why), endpoint.NotKnown(why)
		return f
	}
	f.WAN, f.WAN6 = endpoint.None(), endpoint.None()
	for _, p := range append(six.Addresses, i.Addresses...) {
		a := p.Addr()
		switch {
		case a.Is4():
			f.WAN = endpoint.Is(a)
		case subnet.IsPublic(a) && f.WAN6.IsNone():
			f.WAN6 = endpoint.Is(a)
		}
	}
	return f
}

// names asks public DNS.
func names(ctx context.Context, ask func(context.Context, string) ([]netip.Addr, error), name string) (a, aaaa endpoint.Names) {
	r, err := outside.Lookup(ctx, ask, name)
	if err != nil {
		why := endpoint.Silent("the name service did not answer")
		return why, why
	}
	return endpoint.Says(r.A...), endpoint.Says(r.AAAA...)
}

// views are home's address as the internet sees it.
type views struct{ stun, web endpoint.Address }

// ask asks the servers that were named, side by side. Of several of a kind the
// first in the list that answered counts.
func (r Request) ask(ctx context.Context, f outside.Family) views {
	var v views
	var wg sync.WaitGroup
	got := make([]endpoint.Address, len(r.Servers))
	for i, s := range r.Servers {
		wg.Go(func() { got[i] = r.askOne(ctx, s, f) })
	}
	wg.Wait()
	for i, s := range r.Servers {
		at := &v.stun
		if isPage(s) {
			at = &v.web
		}
		if !at.Known() {
			*at = got[i]
		}
	}
	return v
}

func isPage(server string) bool { return strings.Contains(server, "://") }

// askOne asks one server. Only an answer is a fact: that this computer has no IPv6
// says nothing about home.
func (r Request) askOne(ctx context.Context, server string, f outside.Family) endpoint.Address {
	var a netip.Addr
	var err error
	switch {
	case !isPage(server):
		var ap netip.AddrPort
		ap, err = outside.STUN(ctx, r.Near, server, f)
		a = ap.Addr()
	case r.Via.Dial != nil:
		if a, err = outside.Echo(ctx, r.Via, server, f); err == nil || r.Near.Dial == nil {
			break
		}
		fallthrough // the home router may permit no forwarding
	default:
		a, err = outside.Echo(ctx, r.Near, server, f)
	}
	if err != nil {
		return endpoint.NotKnown(err.Error())
	}
	return endpoint.Is(a)
}

// ISPRouter asks the ISP router what its own address is, by whatever protocol it
// understands.
func ISPRouter(o uplink.Options) func(context.Context) endpoint.Box {
	return func(ctx context.Context) endpoint.Box {
		b := endpoint.Box{Inside: endpoint.Is(o.Gateway)}
		if !o.Gateway.IsValid() {
			b.Inside = endpoint.NotKnown("the home router knows no way to the internet")
			b.Outer = b.Inside
			return b
		}
		g, err := uplink.Ask(ctx, o)
		if g != nil && len(g.Answers) > 0 {
			b.By = string(g.Answers[0].Protocol)
		}
		if err != nil {
			b.Outer = endpoint.NotKnown("the ISP router lets no program ask it")
			return b
		}
		a, err := g.External(ctx)
		var refused *uplink.RefusedError
		switch {
		case err == nil:
			b.Outer = endpoint.Is(a)
		case errors.As(err, &refused) && refused.Why == uplink.NoPublic:
			b.Outer = endpoint.None()
		default:
			b.Outer = endpoint.NotKnown(fmt.Sprintf("the ISP router did not tell (%s)", b.By))
		}
		return b
	}
}

// Gateway is the ISP router's address in the uplink LAN, as the home router sees
// it; invalid when it has no way to the internet.
func Gateway(h home.Home, s *router.Snapshot) netip.Addr {
	name := "wan"
	if h.Uplink.Kind == home.OneArmed {
		name = "lan"
	}
	i, _ := s.Interface(name)
	for _, g := range i.Gateways {
		if g.Is4() {
			return g
		}
	}
	return netip.Addr{}
}
