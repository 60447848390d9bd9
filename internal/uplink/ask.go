package uplink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/subnet"
)

// protocols in their order.
var protocols = []Protocol{TR064, UPnP, PCP, NATPMP}

// Ask finds out which protocols the ISP router understands, all of them side by
// side; it takes little more than Patience. When none was understood the error
// is a *SilentError; the gateway is not nil then, and its Tried tells more.
func Ask(ctx context.Context, o Options) (*Gateway, error) {
	if o.Nonce == [12]byte{} {
		o.Nonce = newNonce()
	}
	g := &Gateway{Address: o.Gateway, opt: o}
	var mu sync.Mutex
	var all sync.WaitGroup
	ask := func(p Protocol, f func()) {
		if len(o.Only) == 0 || slices.Contains(o.Only, p) {
			all.Go(f)
		}
	}
	note := func(list ...Attempt) {
		mu.Lock()
		defer mu.Unlock()
		g.Tried = append(g.Tried, list...)
	}
	var fromIGD, fromPMP netip.Addr
	var byPCP, byPMP Epoch
	ask(UPnP, func() {
		var tried []Attempt
		g.igd, fromIGD, tried = g.findIGD(ctx)
		note(tried...)
	})
	ask(TR064, func() {
		var tried []Attempt
		g.tr064, tried = g.findTR064(ctx)
		if g.tr064 != nil || o.Login != nil {
			note(tried...) // nobody wonders why a box of another maker does not speak it
		}
	})
	ask(PCP, func() {
		note(g.datagrams(ctx, PCP, func(ctx context.Context) (err error) { byPCP, err = g.findPCP(ctx); return err }))
	})
	ask(NATPMP, func() {
		note(g.datagrams(ctx, NATPMP, func(ctx context.Context) (err error) { fromPMP, byPMP, err = g.findPMP(ctx); return err }))
	})
	all.Wait()
	g.conclude(fromIGD, fromPMP, byPCP, byPMP)
	if err := ctx.Err(); err != nil && len(g.Answers) == 0 {
		return g, err
	}
	if len(g.Answers) == 0 {
		return g, &SilentError{Gateway: o.Gateway, Tried: g.Tried}
	}
	return g, nil
}

// datagrams asks by a protocol over UDP, which only this computer can send.
func (g *Gateway) datagrams(ctx context.Context, p Protocol, f func(context.Context) error) Attempt {
	if reason := g.noDatagrams(p); reason != "" {
		return Attempt{Protocol: p, Way: Direct, Err: &NotPossibleError{reason}}
	}
	return g.try(ctx, p, Direct, f)
}

// noDatagrams says why a protocol over UDP cannot be used, "" when it can.
func (g *Gateway) noDatagrams(p Protocol) string {
	switch {
	case g.opt.Direct.ListenUDP == nil:
		return "an SSH channel carries no UDP"
	case !g.Address.Is4():
		return "there is no IPv4 to the ISP router"
	case p == NATPMP && g.asker() != g.opt.Client:
		return "it opens ports for the host that asks only, and that would be this computer"
	}
	return ""
}

// conclude sums up what was found.
func (g *Gateway) conclude(fromIGD, fromPMP netip.Addr, byPCP, byPMP Epoch) {
	slices.SortStableFunc(g.Tried, func(a, b Attempt) int {
		return slices.Index(protocols, a.Protocol) - slices.Index(protocols, b.Protocol)
	})
	if g.tr064 != nil && g.igd == nil {
		g.silentFRITZ()
	}
	for _, b := range []*box{g.tr064, g.igd} {
		if b == nil {
			continue
		}
		if g.Model == "" {
			g.Maker, g.Model = b.dev.maker, b.dev.model
		}
		_, ipv6 := b.dev.of(firewall6)
		a := Answer{Protocol: b.protocol, Way: b.way, IPv6: ipv6}
		if b.protocol == UPnP { // a FRITZ!Box lists both kinds, whichever is in use
			a.Version = b.wan.short()
		}
		g.Answers = append(g.Answers, a)
	}
	g.Public, g.Epoch = fromIGD, byPCP
	if !g.Public.IsValid() {
		g.Public = fromPMP
	}
	if g.Epoch.Seen.IsZero() {
		g.Epoch = byPMP
	}
	if !byPCP.Seen.IsZero() {
		g.Answers = append(g.Answers, Answer{Protocol: PCP, Version: "2", Way: Direct})
	}
	if !byPMP.Seen.IsZero() {
		g.Answers = append(g.Answers, Answer{Protocol: NATPMP, Version: "0", Way: Direct})
	}
}

// silentFRITZ says why a FRITZ!Box has no UPnP: its pages are there only while
// "transmit status information over UPnP" is on (fbtr64toolbox README).
func (g *Gateway) silentFRITZ() {
	for i, a := range g.Tried {
		if a.Protocol == UPnP && a.Err != nil {
			g.Tried[i].Err = &RefusedError{Reply: "igddesc.xml is not there", Why: SwitchedOff}
		}
	}
}

// speaks reports whether a protocol was answered.
func (g *Gateway) speaks(p Protocol) bool {
	return slices.ContainsFunc(g.Answers, func(a Answer) bool { return a.Protocol == p })
}

// found is a description that somebody served.
type found struct {
	dev device
	way string
	at  place
}

// rank says how much a description is worth: the newest service first.
func (f found) rank() int { return slices.Index([]string{wanPPP1, wanIP1, wanIP2}, f.wan().kind) }

func (f found) wan() service { s, _ := f.dev.of(wanIP2, wanIP1, wanPPP1); return s }

// findIGD looks for a description with a connection service: by search, and where
// some boxes are known to have it.
func (g *Gateway) findIGD(ctx context.Context) (*box, netip.Addr, []Attempt) {
	started := time.Now()
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, g.opt.first())
	defer cancel()
	hits := make(chan found)
	var errs errorList
	places := make(chan place, len(fixedPlaces)+len(searches))
	for _, p := range fixedPlaces {
		places <- p
	}
	go func() {
		defer close(places)
		errs.note(g.search(ctx, places))
	}()
	go func() {
		defer close(hits)
		g.fetchAll(ctx, places, hits, &errs)
	}()
	best, ok := pick(ctx, hits)
	cancel()
	for range hits { // let the rest end
	}
	if !ok {
		a := Attempt{Protocol: UPnP, Took: time.Since(started), Err: errs.verdict(time.Since(started))}
		if ways := g.opt.ways(); len(ways) > 0 {
			a.Way = ways[0].name
		} else {
			a.Err = &NotPossibleError{"there is no way to the ISP router"}
		}
		return nil, netip.Addr{}, []Attempt{a}
	}
	b := &box{protocol: UPnP, dev: best.dev, wan: best.wan(), way: best.way}
	public, a := g.firstPublic(outer, b)
	a.Took = time.Since(started)
	return b, public, []Attempt{a}
}

// firstPublic asks a box that was just found for its address outside. A box that
// has several connections is asked for each: the one that has an address is used.
func (g *Gateway) firstPublic(ctx context.Context, b *box) (netip.Addr, Attempt) {
	ctx, cancel := context.WithTimeout(ctx, g.opt.first())
	defer cancel()
	for _, kind := range []string{wanIP2, wanIP1, wanPPP1} {
		s, ok := b.dev.of(kind)
		if !ok {
			continue
		}
		try := *b
		try.wan = s
		for _, w := range g.opt.ways() {
			if w.name != b.way {
				continue
			}
			if a, err := g.publicBy(ctx, w, &try); err == nil {
				b.wan = s
				return a, Attempt{Protocol: UPnP, Way: b.way}
			}
		}
	}
	return netip.Addr{}, Attempt{Protocol: UPnP, Way: b.way}
}

// pick waits for the best description: the newest service ends it, others wait a
// moment for a better one.
func pick(ctx context.Context, hits <-chan found) (best found, ok bool) {
	var enough <-chan time.Time
	for {
		select {
		case f, more := <-hits:
			if !more {
				return best, ok
			}
			if !ok || f.rank() > best.rank() {
				best, ok = f, true
			}
			if best.wan().kind == wanIP2 {
				return best, true
			}
			if enough == nil {
				enough = time.After(300 * time.Millisecond)
			}
		case <-enough:
			return best, ok
		case <-ctx.Done():
			return best, ok
		}
	}
}

// fetchAll fetches descriptions, all places at once, by one way a moment after the
// other.
func (g *Gateway) fetchAll(ctx context.Context, places <-chan place, hits chan<- found, errs *errorList) {
	var all sync.WaitGroup
	defer all.Wait()
	seen := map[place]bool{}
	for p := range places {
		if seen[p] || len(seen) == 8 {
			continue
		}
		seen[p] = true
		for i, w := range g.opt.ways() {
			all.Go(func() {
				if !wait(ctx, time.Duration(i)*headStart) {
					return
				}
				d, err := g.describe(ctx, w, p)
				if err == nil && (found{dev: d}).rank() < 0 {
					err = &GarbledError{Reply: "description", What: "no service that maps ports"}
				}
				errs.note(plain(ctx, err, time.Now()))
				if err == nil {
					select {
					case hits <- found{d, w.name, p}:
					case <-ctx.Done():
					}
				}
			})
		}
	}
}

// headStart is how long the first way is alone: the answer does not depend on chance.
const headStart = 200 * time.Millisecond

// wait lets time pass, or reports that ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// describe fetches a description.
func (g *Gateway) describe(ctx context.Context, w way, p place) (device, error) {
	r, err := send(ctx, w.Dial, g.Address, p, "GET", nil, "")
	switch {
	case err != nil:
		return device{}, err
	case r.status != http.StatusOK:
		return device{}, &RefusedError{Reply: fmt.Sprintf("%s: HTTP %d", p.path, r.status), Code: r.status, Why: SwitchedOff}
	}
	return parseDevice(r.body, p)
}

// search asks by SSDP where descriptions are: the ISP router itself, and the group,
// which reaches it where this computer is in its LAN. Only what comes from its
// address counts.
func (g *Gateway) search(ctx context.Context, places chan<- place) error {
	if g.opt.Direct.ListenUDP == nil || !g.Address.Is4() {
		return nil
	}
	conn, err := g.opt.Direct.ListenUDP(ctx)
	if err != nil {
		return plain(ctx, err, time.Now())
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	started := time.Now()
	var asked sync.WaitGroup
	defer asked.Wait()
	asked.Go(func() { askAgain(ctx, conn.WriteTo, g.Address) })
	heard := false
	buf := make([]byte, 4096)
	for n := 0; n < 200; n++ { // a talkative neighbour ends it
		k, from, err := conn.ReadFrom(buf)
		if err != nil {
			break
		}
		if sender(from).Addr() != g.Address {
			continue
		}
		if p, ok := parseSSDP(buf[:k]); ok {
			heard = true
			select {
			case places <- p:
			case <-ctx.Done():
			}
		}
	}
	if !heard {
		return &NoAnswerError{Waited: time.Since(started)}
	}
	return nil
}

// findTR064 fetches AVM's own description, by every way at once.
func (g *Gateway) findTR064(ctx context.Context) (*box, []Attempt) {
	ctx, cancel := context.WithTimeout(ctx, g.opt.first())
	defer cancel()
	ways := g.opt.ways()
	found := make([]*box, len(ways))
	tried := make([]Attempt, len(ways))
	var all sync.WaitGroup
	for i, w := range ways {
		all.Go(func() {
			tried[i] = g.try(ctx, TR064, w.name, func(ctx context.Context) error {
				d, err := g.describe(ctx, w, tr064Place)
				if err != nil {
					return err
				}
				wan, ok := d.of(avmIP, avmPPP)
				if !ok {
					return &GarbledError{Reply: "description", What: "no service that maps ports"}
				}
				found[i] = &box{protocol: TR064, dev: d, wan: wan, way: w.name, remote: "0.0.0.0", login: g.opt.Login, guard: &guard{}}
				return nil
			})
		})
	}
	all.Wait()
	for i, b := range found {
		if b != nil {
			return b, tried[i : i+1]
		}
	}
	return nil, tried
}

// errorList remembers the most telling error.
type errorList struct {
	mu   sync.Mutex
	list []error
}

func (l *errorList) note(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, err)
}

// verdict is what to tell of a search that found nothing: what something said
// there, else silence, else that all was closed.
func (l *errorList) verdict(waited time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var closed error
	silent := len(l.list) == 0
	for _, err := range l.list {
		var g *GarbledError
		var s *NoAnswerError
		switch r := refused(err); {
		case errors.As(err, &g), r != nil && r.Code == http.StatusForbidden:
			return err
		case errors.As(err, &s):
			silent = true
		case closed == nil || r != nil:
			closed = err
		}
	}
	if silent {
		return &NoAnswerError{Waited: waited}
	}
	return closed
}

func (g *Gateway) isPublic() bool { return subnet.IsPublic(g.Public) }

// what names a mapping for a FailedError.
func (w Want) what(client netip.Addr) string {
	return fmt.Sprintf("%s %d to %s", strings.ToUpper(w.Proto), w.External, client)
}
