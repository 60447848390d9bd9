// Package probe gathers the facts that package doctor judges: it asks the home
// router, this computer, a device of its own inside the tunnel, the ISP router and
// the name service, all side by side, so that the whole takes as long as the slowest.
//
// It changes nothing that lasts: the device of its own is known to the running
// tunnel only, and is taken away again. It judges nothing, and what it could not look
// at it calls not known, with the reason. Four round trips on the home router are
// enough: the look that came before, one examination, and two for the device inside.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/doctor"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/tunnel"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/verify"
)

// How long each probe may take; the messages name them.
const (
	examineTime  = 30 * time.Second
	insideTime   = 40 * time.Second
	lookupTime   = 5 * time.Second
	upstreamTime = 15 * time.Second
	mtuTime      = 2500 * time.Millisecond
	hairpinTime  = 400 * time.Millisecond // each try
)

// How long a device that knocks in vain is waited for: WireGuard repeats every five
// seconds and up to a third more (wireguard-linux-compat, messages.h).
const knockTime = 6 * time.Second

// Request says what to ask. What is left out is not known afterwards.
type Request struct {
	Home  home.Home
	Login doctor.Login
	// Shell and Snapshot are nil when nobody got into the router.
	Shell    openwrt.Shell
	Snapshot *router.Snapshot
	Looked   time.Time // this computer's clock when the look was made

	Networks func() ([]netip.Prefix, error)
	Lookup   func(context.Context, string) ([]netip.Addr, error)
	// Upstream asks the ISP router; nil: nobody does.
	Upstream func(context.Context) trace.Upstream
	// Address finds out where home is; nil: nobody does.
	Address func(context.Context) doctor.Fact[doctor.Address]

	// At is the tunnel's port as this computer reaches it at home; invalid: it does not.
	At   netip.AddrPort
	Bind func() conn.Bind // of the device inside; nil: sockets of this computer
	Self netip.Addr       // this computer in the home LAN
	Rand io.Reader
}

// A Timing is how long a probe took.
type Timing struct {
	Probe string
	Took  time.Duration
}

// noRouter is why nothing is known of a router that nobody gets into.
const noRouter = "heimweg does not get into the home router"

// Gather asks everybody at once. It never fails: what goes wrong is a fact that is
// not known.
func Gather(ctx context.Context, r Request, tell event.Tell) (doctor.Facts, []Timing) {
	g := &gathering{r: r, named: make(chan struct{})}
	g.f.Home, g.f.Login = r.Home, doctor.Known(r.Login)
	end := tell.Stage("examine", "looking at home from three places")
	var wg sync.WaitGroup
	for _, p := range []struct {
		name string
		ask  func(context.Context)
	}{
		{"this computer", g.computer}, {"name service", g.names}, {"home router", g.examine}, {"inside the tunnel", g.inside},
		{"ISP router", g.upstream}, {"public address", g.address},
	} {
		wg.Go(func() {
			start := time.Now()
			p.ask(ctx)
			g.mu.Lock()
			defer g.mu.Unlock()
			g.took = append(g.took, Timing{p.name, time.Since(start)})
		})
	}
	wg.Wait()
	// What we sent ourselves by the public address came in there, too, if that way
	// exists at all.
	if a := &g.f.Arrivals; a.Known && g.f.Hairpin.Value {
		a.Value.Packets = max(0, a.Value.Packets-int64(g.called))
	}
	end(ctx.Err(), "looked at home from three places")
	return g.f, g.took
}

// gathering is one run. Each probe has facts of its own, so none waits for another
// but for the endpoint's name.
type gathering struct {
	r     Request
	f     doctor.Facts
	named chan struct{} // closed when the endpoint's name was looked up

	called int // handshakes that we began by the public address

	mu   sync.Mutex
	took []Timing
}

func (g *gathering) computer(context.Context) {
	f, r := &g.f, g.r
	f.Networks = doctor.Unknown[[]netip.Prefix]("this computer does not tell its addresses")
	if r.Networks != nil {
		if list, err := r.Networks(); err == nil {
			f.Networks = doctor.Known(list)
		}
	}
	if r.Snapshot == nil {
		f.Router, f.Clock = doctor.Unknown[*router.Snapshot](noRouter), doctor.Unknown[time.Time](noRouter)
		return
	}
	f.Router, f.Clock = doctor.Known(r.Snapshot), doctor.Known(r.Looked)
}

// names looks the endpoint's name up. A name without an address is a fact; no answer
// is none.
func (g *gathering) names(ctx context.Context) {
	defer close(g.named)
	name := g.r.Home.Tunnel.Endpoint
	if name == "" {
		g.f.Endpoint = doctor.Unknown[[]netip.Addr]("home.toml names no endpoint")
		return
	}
	if a, err := netip.ParseAddr(name); err == nil {
		g.f.Endpoint = doctor.Known([]netip.Addr{a})
		return
	}
	if g.r.Lookup == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	list, err := g.r.Lookup(ctx, name)
	var dns *net.DNSError
	if err != nil && !(errors.As(err, &dns) && dns.IsNotFound) {
		g.f.Endpoint = doctor.Unknown[[]netip.Addr]("this computer's name service does not answer")
		return
	}
	for i := range list {
		list[i] = list[i].Unmap()
	}
	g.f.Endpoint = doctor.Known(list)
}

func (g *gathering) upstream(ctx context.Context) {
	g.f.Upstream = doctor.Unknown[trace.Upstream]("heimweg has not asked the ISP router")
	if g.r.Upstream == nil || g.r.Snapshot == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamTime)
	defer cancel()
	if u := g.r.Upstream(ctx); u.Asked {
		g.f.Upstream = doctor.Known(u)
	} else if u.Why != "" {
		g.f.Upstream.Because = u.Why
	}
}

func (g *gathering) address(ctx context.Context) {
	g.f.Address = doctor.Unknown[doctor.Address]("heimweg has not asked where home is on the internet")
	if g.r.Address == nil || g.r.Snapshot == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamTime)
	defer cancel()
	g.f.Address = g.r.Address(ctx)
}

// examine is the second round trip on the router.
func (g *gathering) examine(ctx context.Context) {
	e, err := openwrt.Examined{}, error(nil)
	why := noRouter
	if g.r.Shell != nil && g.r.Snapshot != nil {
		ctx, cancel := context.WithTimeout(ctx, examineTime)
		defer cancel()
		if e, err = openwrt.Examine(ctx, g.r.Shell, Examination(g.r.Home, g.r.Snapshot, g.r.Self)); err != nil {
			why = fmt.Sprintf("the home router did not answer in %s", examineTime)
		} else {
			why = "the home router could not look"
		}
	}
	f := &g.f
	f.Module, f.Gateway, f.Resolves = fact(e.Module, why), fact(e.Gateway, why), fact(e.Resolves, why)
	f.Warnings, f.Log, f.Cron = list(e.Complaints, why), list(e.Log, why), list(e.Jobs, why)
	f.Widths, f.Services = doctor.Unknown[map[string]int](why), doctor.Unknown[map[string]*uci.Document](why)
	if e.Widths != nil {
		f.Widths = doctor.Known(e.Widths)
	}
	if e.Settings != nil {
		f.Services = doctor.Known(e.Settings)
	}
	f.Knock = doctor.Unknown[trace.Knock](why)
	if e.Target.IsValid() {
		f.Knock = doctor.Known(KnockOf(e.Target, e.Knocked))
	} else if g.r.Snapshot != nil && err == nil {
		f.Knock.Because = "the router has seen no device in the home LAN"
	}
	f.Samples, f.Arrivals = doctor.Unknown[doctor.Samples](why), doctor.Unknown[doctor.Arrivals](why)
	if len(e.Samples) > 0 {
		f.Samples = doctor.Known(samples(g.r.Snapshot, g.r.Home.Tunnel.Interface, e.Samples))
		f.Arrivals = g.arrivals(e.Samples)
	}
}

func fact(v *bool, why string) doctor.Fact[bool] {
	if v == nil {
		return doctor.Unknown[bool](why)
	}
	return doctor.Known(*v)
}

func list(v []string, why string) doctor.Fact[[]string] {
	if v == nil {
		return doctor.Unknown[[]string](why)
	}
	return doctor.Known(v)
}

// KnockOf is a ping in the words of package trace.
func KnockOf(target netip.Addr, k openwrt.Knocked) trace.Knock {
	seen := map[bool]trace.Seen{true: trace.Yes, false: trace.No}
	out := trace.Knock{Target: target, Near: seen[k.Near], There: k.There}
	if k.Asked {
		out.Far = seen[k.Far]
	}
	return out
}

// arrivals is what came while the router was examined.
func (g *gathering) arrivals(list []openwrt.Sample) doctor.Fact[doctor.Arrivals] {
	var devices []key.Public // those of the household, not ours
	for _, d := range g.r.Home.Peers {
		devices = append(devices, d.PublicKey)
	}
	if live := g.r.Snapshot.Tunnels[g.r.Home.Tunnel.Interface]; live != nil {
		for _, p := range live.Peers {
			if !slices.Contains(devices, p.PublicKey) {
				devices = append(devices, p.PublicKey)
			}
		}
	}
	first, last := list[0], list[len(list)-1]
	packets, bytes, known := openwrt.Between(first, last, devices)
	if !known {
		return doctor.Unknown[doctor.Arrivals]("the counter of the tunnel's rule could not be read")
	}
	return doctor.Known(doctor.Arrivals{Packets: packets, Bytes: bytes, Took: last.At.Sub(first.At)})
}

// samples is where each peer was heard, the look included.
func samples(s *router.Snapshot, iface string, list []openwrt.Sample) doctor.Samples {
	out := doctor.Samples{}
	if live := s.Tunnels[iface]; live != nil {
		for _, p := range live.Peers {
			out[p.PublicKey] = []cryptokey.Sample{{At: s.Time, Endpoint: p.Endpoint}}
		}
	}
	for _, x := range list {
		for k, p := range x.Peers {
			out[k] = append(out[k], cryptokey.Sample{At: x.At, Endpoint: p.Endpoint})
		}
	}
	return out
}

// sampleTimes is how often the tunnel is looked at when a device is in: with the look
// before, enough to see an endpoint that goes to and fro.
const sampleTimes = 3

// mostTargets bounds how many devices in the home LAN are pinged, one after the other.
const mostTargets = 3

// Examination is what to look at beyond a look, by what that showed. self is this
// computer, which proves nothing about others.
func Examination(h home.Home, s *router.Snapshot, self netip.Addr) openwrt.Examination {
	site, _ := router.SiteOf(s)
	e := openwrt.Examination{Interface: h.Tunnel.Interface, Zone: site.WAN, Rule: openwrt.DoorRule(s, blueprint.SectionIn), Name: nameToAsk(h, s), Times: 1}
	if h.Uplink.Kind == home.OneArmed && len(h.LANs) > 0 {
		e.Zone = site.Zones[h.LANs[0].Interface]
	}
	for _, i := range s.Interfaces {
		for _, g := range i.Gateways {
			if g.Is4() && !e.Gateway.IsValid() {
				e.Gateway = g
			}
		}
		for _, a := range i.Addresses {
			if i.Name == h.Tunnel.Interface && a.Addr().Is4() {
				e.From = a.Addr()
			}
		}
	}
	for _, n := range s.Neighbours {
		inLAN := slices.ContainsFunc(h.LANs, func(l home.LAN) bool { return l.Network.Contains(n.Addr) })
		if inLAN && n.Addr != self && n.Addr != e.Gateway && !slices.Contains(e.Targets, n.Addr) && len(e.Targets) < mostTargets {
			e.Targets = append(e.Targets, n.Addr)
		}
	}
	in, ever := whoIsIn(h, s)
	switch {
	case in:
		e.Times = sampleTimes
	case !ever && len(h.Peers) > 0:
		e.Patience = knockTime
	}
	return e
}

// nameToAsk is a name that means something to this household: the endpoint, else a
// time server's. No other name service hears of heimweg by it.
func nameToAsk(h home.Home, s *router.Snapshot) string {
	if _, err := netip.ParseAddr(h.Tunnel.Endpoint); err != nil && h.Tunnel.Endpoint != "" {
		return h.Tunnel.Endpoint
	}
	for _, sec := range s.Config("system").OfType("timeserver") {
		for _, n := range sec.Values("server") {
			if _, err := netip.ParseAddr(n); err != nil {
				return n
			}
		}
	}
	return ""
}

// whoIsIn: is a device in now, and was one ever since the tunnel was made.
func whoIsIn(h home.Home, s *router.Snapshot) (now, ever bool) {
	live := s.Tunnels[h.Tunnel.Interface]
	if live == nil {
		return false, true
	}
	for _, p := range live.Peers {
		ever = ever || p.Received > 0 || !p.Handshake.IsZero()
		now = now || !p.Handshake.IsZero() && s.Time.Sub(p.Handshake) < 3*time.Minute
	}
	return now, ever
}

// inside plays a device: two round trips on the router, and packets through the
// tunnel.
func (g *gathering) inside(ctx context.Context) {
	f, r := &g.f, g.r
	forget := func(why string) {
		f.Handshake, f.Inside, f.Names = doctor.Unknown[doctor.Handshake](why), doctor.Unknown[bool](why), doctor.Unknown[doctor.NameService](why)
		f.Reached, f.PathMTU, f.Hairpin = doctor.Unknown[doctor.Reached](why), doctor.Unknown[int](why), doctor.Unknown[bool](why)
	}
	switch {
	case r.Shell == nil || r.Snapshot == nil:
		forget(noRouter)
		return
	case r.Snapshot.Tunnels[r.Home.Tunnel.Interface] == nil:
		forget("the tunnel is not there")
		return
	case !r.At.IsValid():
		forget("this computer is in none of the networks that the home router is in")
		return
	}
	forget("no handshake")
	ctx, cancel := context.WithTimeout(ctx, insideTime)
	defer cancel()
	v := verify.Request{Home: r.Home, Vantage: verify.Inside, Endpoint: r.At, Rand: r.Rand, Self: r.Self,
		More: g.measure, Last: g.tryHairpin}
	if r.Bind != nil {
		v.Bind = r.Bind()
	}
	res, err := verify.Run(ctx, r.Shell, r.Snapshot, v, nil)
	if err != nil && len(res.Hops) == 0 {
		forget("the test could not be made: " + short(err))
		return
	}
	g.fromHops(res)
}

// short is an error's text when it is one of ours, which hold no secret.
func short(err error) string {
	var refused *openwrt.Refusal
	var full *verify.NoAddressError
	switch {
	case errors.As(err, &refused):
		return "the router refused the test device"
	case errors.As(err, &full):
		return full.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	}
	return "the connection was lost"
}

func (g *gathering) fromHops(res verify.Result) {
	f := &g.f
	for _, h := range res.Hops {
		shown := h.Verdict == verify.Shown
		if h.Verdict == verify.NotShown && h.ID != verify.HopDNS && h.ID != verify.HopLAN {
			continue
		}
		switch h.ID {
		case verify.HopHandshake:
			f.Handshake = doctor.Known(doctor.Handshake{Done: shown, Arrived: res.Arrived > 0, Answer: h.Seen})
		case verify.HopRouter:
			f.Inside = doctor.Known(shown)
		case verify.HopDNS:
			f.Names = doctor.Known(doctor.NameService{Asked: h.Verdict != verify.NotShown, Answered: shown})
		case verify.HopLAN:
			g.reached(h, res.Hop(verify.HopHandshake).Verdict == verify.Shown)
		}
	}
}

func (g *gathering) reached(h verify.Hop, came bool) {
	switch {
	case !came:
	case h.Verdict == verify.NotShown && !g.r.Home.Reach.HomeLAN:
		g.f.Reached = doctor.Known(doctor.Reached{})
	case h.Verdict == verify.NotShown:
		g.f.Reached.Because = "the router has seen no device in the home LAN"
	default:
		n := len(Examination(g.r.Home, g.r.Snapshot, g.r.Self).Targets)
		g.f.Reached = doctor.Known(doctor.Reached{Asked: max(n, 1), Any: h.Verdict == verify.Shown, Seen: h.Seen})
	}
}

// measure finds the largest packet that passes whole, trying all sizes at once.
func (g *gathering) measure(ctx context.Context, t *tunnel.Tunnel) {
	ctx, cancel := context.WithTimeout(ctx, mtuTime)
	defer cancel()
	to := g.r.Home.Tunnel.Network.First().Addr()
	fits := make([]bool, len(sizes))
	var wg sync.WaitGroup
	for i, size := range sizes {
		wg.Go(func() { fits[i] = t.Fits(ctx, to, size) == nil })
	}
	small := t.Fits(ctx, to, 100) == nil
	wg.Wait()
	best := 0
	for i, ok := range fits {
		if ok {
			best = max(best, sizes[i])
		}
	}
	if small || best > 0 {
		g.f.PathMTU = doctor.Known(best)
	} else {
		g.f.PathMTU.Because = "not even small packets came back"
	}
}

// sizes that are tried: what WireGuard takes by itself, what lines with PPPoE and
// IPv6 carry, and what every network must.
var sizes = []int{1420, 1412, 1400, 1380, 1320, 1280}

// tryHairpin calls home by its public address, from inside the house.
func (g *gathering) tryHairpin(ctx context.Context, c tunnel.Config) {
	<-g.named
	g.f.Hairpin.Because = "the endpoint does not lead to a public address"
	i := slices.IndexFunc(g.f.Endpoint.Value, func(a netip.Addr) bool { return a.Is4() && subnet.IsPublic(a) })
	if !g.f.Endpoint.Known || i < 0 {
		return
	}
	c.Endpoint = netip.AddrPortFrom(g.f.Endpoint.Value[i], g.r.Home.Tunnel.CallPort())
	// A peer that comes back within 40 ms is taken for a flood and not answered, so
	// the first try may fail by being too quick.
	for range hairpinTries {
		done, err := g.call(ctx, c)
		if err != nil {
			g.f.Hairpin.Because = "this computer finds no way to the public address"
			return
		}
		if g.f.Hairpin = doctor.Known(done); done {
			return
		}
	}
}

// hairpinTries is how often the public address is called.
const hairpinTries = 3

// call is one try to shake hands.
func (g *gathering) call(ctx context.Context, c tunnel.Config) (done bool, err error) {
	c.Bind = nil
	if g.r.Bind != nil {
		c.Bind = g.r.Bind()
	}
	ctx, cancel := context.WithTimeout(ctx, hairpinTime)
	defer cancel()
	t, err := tunnel.Up(ctx, c)
	if err != nil {
		return false, err
	}
	defer t.Close()
	done = t.Handshake(ctx) == nil
	g.called += t.Stats().Initiations
	return done, nil
}

// Progress is what package doctor says of a device that tries to come home while
// somebody watches.
func Progress(ctx context.Context, sh openwrt.Shell, h home.Home, e openwrt.Examination) (doctor.Glimpse, error) {
	s, err := openwrt.Glance(ctx, sh, e)
	if err != nil {
		return doctor.Glimpse{}, err
	}
	g := doctor.Glimpse{At: s.At, Arrived: doctor.Unknown[int64]("the counter of the tunnel's rule could not be read"), Devices: map[key.Public]doctor.Heard{}}
	if s.Arrived != nil {
		g.Arrived = doctor.Known(*s.Arrived)
	}
	for k, c := range s.Peers {
		g.Devices[k] = doctor.Heard{Endpoint: c.Endpoint, Received: c.Received, Sent: c.Sent, Handshake: c.Handshake}
	}
	return g, nil
}
