package cli

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/locate"
	"github.com/heimweg/heimweg/internal/outside"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uplink"
)

// whereTime is how long the question where home is may take.
const whereTime = 5 * time.Second

// askFlag adds the flag that names servers outside. Nobody outside is asked
// without it: who asks tells a stranger that somebody is at home there.
func (a *app) askFlag(c *cobra.Command) {
	c.Flags().StringSliceVar(&a.servers, "ask-outside", a.named(), "ask this server what home looks like from outside: a STUN server (host:port) or a page (https://…); nobody is asked otherwise. HEIMWEG_ASK_OUTSIDE names them for good")
}

// named are the servers outside that the environment names.
func (a *app) named() []string {
	if s := a.Getenv("HEIMWEG_ASK_OUTSIDE"); s != "" {
		return strings.Split(s, ",")
	}
	return nil
}

// where finds out where home is. The ISP router is asked unless home.toml says
// that it is not to be asked; servers outside only when they are named.
func (a *app) where(ctx context.Context, v *visit) endpoint.Verdict {
	ctx, cancel := context.WithTimeout(ctx, whereTime)
	defer cancel()
	h, snap := v.file.Home, v.Snapshot()
	direct, via := a.ispWays(v)
	r := locate.Request{Home: h, Snapshot: snap, Lookup: a.Lookup, Servers: a.servers}
	if h.Uplink.Kind != home.Direct && h.Uplink.Mapping != home.ByHand {
		f := locate.FromRouter(h, snap)
		client, _ := f.WAN.Get()
		r.Box = locate.ISPRouter(uplink.Options{Gateway: locate.Gateway(h, snap), Client: client, Direct: direct, Via: via})
	}
	if e := a.publicByISP(h, snap); e.IsValid() {
		r.Earlier = []endpoint.Sighting{{Addr: e}}
	}
	r.Near, r.Via = a.outsideWays(v, direct, via)
	found := endpoint.Judge(locate.Facts(ctx, r, a.tell()))
	a.found = &found
	return found
}

// outsideWays are the ways to servers outside that lead through the home router.
func (a *app) outsideWays(v *visit, direct, via uplink.Way) (near, over outside.Way) {
	if direct.Dial != nil {
		near = outside.System(a.Rand, v.Local())
		if a.Dial != nil {
			near = outside.Way{Rand: a.Rand, Dial: a.Dial}
			if a.ListenUDP != nil {
				near.ListenUDP = func(ctx context.Context, _ string) (net.PacketConn, error) { return a.ListenUDP(ctx) }
			}
		}
	}
	over.Dial = via.Dial
	for _, w := range []*outside.Way{&near, &over} {
		w.Lookup, w.Roots = a.Lookup, a.Roots
	}
	return near, over
}

// glance judges from what one look at the router and public DNS show, without
// asking anybody else.
func (a *app) glance(ctx context.Context, h home.Home, s *router.Snapshot) endpoint.Verdict {
	ctx, cancel := context.WithTimeout(ctx, whereTime)
	defer cancel()
	return endpoint.Judge(locate.Facts(ctx, locate.Request{Home: h, Snapshot: s, Lookup: a.Lookup}, nil))
}

// unreachable is the fault of a house that nobody can call, as far as known.
func unreachable(v endpoint.Verdict) error {
	f := fault.New("endpoint-unknown", "it is not known under which name or address home is called from outside")
	switch v.Kind {
	case endpoint.CGNAT, endpoint.DSLite, endpoint.IPv6Only:
		f = fault.New("not-callable", "this house cannot be called from outside: %s", v.Words())
	case endpoint.DoubleNAT:
		f.Because("two boxes translate addresses on the way, and neither has told the public one")
	default:
		f.Because("the home router's own address on the WAN side is private, and the ISP router's public one cannot be seen from here")
	}
	for _, s := range v.Seen {
		f.Saw("%s", s)
	}
	if v.Kind == endpoint.Unclear || v.Kind == endpoint.DoubleNAT {
		return f.Do(`write it into home.toml: [tunnel] endpoint = "home.example.net" (a MyFRITZ or DynDNS name, or the public address that the ISP router shows)`).
			Do("or name somebody outside who may be asked: --ask-outside SERVER")
	}
	for _, s := range v.Steps {
		next := s.What
		if s.Command != "" {
			next = s.Command + "    " + next
		}
		f = f.Do("%s", next)
	}
	return f
}
