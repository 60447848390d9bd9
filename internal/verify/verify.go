// Package verify proves with real packets that home can be reached: heimweg plays
// a peer of its own, makes a handshake, and reaches the router and a device in
// the home LAN through the tunnel.
//
// It says hop by hop what was shown and what was not. A hop that could not be
// looked at is "not shown", never "ok"; and where the packets entered decides
// what they show: a handshake from inside the home LAN says nothing about the ISP
// router.
//
// The test peer lives on the router's interface only, is in no file, has one
// address and a preshared key of its own, is removed afterwards, and removes
// itself when nobody comes back.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/tunnel"
)

// A Vantage is where the test's packets enter.
type Vantage string

// The vantages, the most telling first.
const (
	Outside Vantage = "outside" // the public endpoint: everything is shown
	Uplink  Vantage = "uplink"  // the router's WAN address from the uplink LAN: all but the ISP router
	Inside  Vantage = "inside"  // the router's address in the home LAN: keys, tunnel and firewall behind it
)

// A Verdict on one hop.
type Verdict string

// The verdicts.
const (
	Shown    Verdict = "shown"
	Broken   Verdict = "broken"
	NotShown Verdict = "not-shown"
)

// A Hop is one stretch of the way home.
type Hop struct {
	ID      string  `json:"hop"`
	What    string  `json:"what"`
	Verdict Verdict `json:"verdict"`
	Seen    string  `json:"seen,omitempty"`
	Next    string  `json:"next,omitempty"`
}

// The hops, in the order in which a packet meets them.
const (
	HopISP       = "isp-router"
	HopDoor      = "door"
	HopHandshake = "handshake"
	HopRouter    = "router"
	HopDNS       = "dns"
	HopLAN       = "lan"
)

// A Result is what one test showed.
type Result struct {
	Vantage  Vantage        `json:"vantage"`
	Endpoint netip.AddrPort `json:"endpoint"`
	Hops     []Hop          `json:"hops"`
	// Arrived is how many bytes of the test peer the router counted.
	Arrived int64 `json:"-"`
}

// Broken reports whether any hop was shown to be broken.
func (r Result) Broken() bool {
	return slices.ContainsFunc(r.Hops, func(h Hop) bool { return h.Verdict == Broken })
}

// Hop finds a hop by its id.
func (r Result) Hop(id string) Hop {
	for _, h := range r.Hops {
		if h.ID == id {
			return h
		}
	}
	return Hop{ID: id, Verdict: NotShown}
}

// A Request says what to test and from where.
type Request struct {
	Home     home.Home
	Vantage  Vantage
	Endpoint netip.AddrPort
	// Bind carries the test's outer packets; nil: a UDP socket of this computer.
	Bind conn.Bind
	Rand io.Reader
	// Target is a device in the home LAN; zero: one that the router has seen.
	Target netip.Addr
	// Leave is called when the test peer is known to the router and before its
	// first packet: a person takes this computer out of the house then, which may
	// cut the connection to the router. nil: the computer stays.
	Leave func(context.Context) error
	// More is called while the tunnel stands, side by side with the test; nil: nothing.
	More func(context.Context, *tunnel.Tunnel)
	// Last is called when the test is over and the test peer is still known: with its
	// configuration, whose Bind is used up. nil: nothing.
	Last func(context.Context, tunnel.Config)
	// Mapped: the ISP router says that it passes the port on to the home router. When
	// nothing of it arrives, it did not tell the truth.
	Mapped bool
	// Return is called with what was shown, after Leave and the test: it tells the
	// person to go back, and may wait until the router can be asked again.
	Return func(context.Context, Result) error
	// Self is this computer's address in the home LAN: reaching oneself proves
	// little, so it is not chosen as a target.
	Self netip.Addr
}

// How long things may take; the messages name them.
const (
	handshakeTime = 12 * time.Second // two tries of WireGuard, which repeats every 5 s
	unsentTime    = 6 * time.Second  // the same, where this computer cannot even send
	answerTime    = 3 * time.Second
	probeLife     = 3 * time.Minute
	leaveLife     = 20 * time.Minute // when a person has to find a hotspot first
)

// Run tests the way home. sh is a connection to the home router, snap what was
// last seen there. An error means that the test itself could not be made; what it
// shows is in the result.
func Run(ctx context.Context, sh openwrt.Shell, snap *router.Snapshot, r Request, tell event.Tell) (res Result, err error) {
	res = Result{Vantage: r.Vantage, Endpoint: r.Endpoint}
	live := snap.Tunnels[r.Home.Tunnel.Interface]
	if live == nil {
		res.Hops = []Hop{{HopHandshake, "the tunnel on the router", Broken, "the router has no interface " + r.Home.Tunnel.Interface, "heimweg apply"}}
		return res, nil
	}
	p, c, err := prepare(r, live)
	if err != nil {
		return res, err
	}
	if r.Leave != nil {
		p.TimeToLive = leaveLife
	}
	if _, err := openwrt.AddProbe(ctx, sh, p, openwrt.LookFor{}); err != nil {
		return res, err
	}
	if r.Leave != nil {
		err = r.Leave(ctx)
	}
	var t *tunnel.Tunnel
	if err == nil {
		t, err = tunnel.Up(ctx, c)
	}
	var unsent *tunnel.UnreachableError
	switch {
	case err == nil:
		res.Hops = test(ctx, t, r, snap, tell)
		t.Close()
		if r.Last != nil {
			r.Last(ctx, c)
		}
	case ctx.Err() == nil && errors.As(err, &unsent): // the system finds no way there at all
		h := Hop{ID: HopHandshake, What: "handshake with " + r.Endpoint.String()}
		tell.Stage("handshake", h.What)(err, "")
		res.Hops, err = behind(r, notSent(h, r.Endpoint, unsent.Cause)), nil
	}
	// The router's counters tell where a packet without an answer came to. Who has
	// left the house cannot ask; the router then removes the test peer by itself.
	patience := 20 * time.Second
	if err == nil && r.Return != nil {
		err = r.Return(ctx, res)
		patience = 5 * time.Second // who did not go back cannot ask
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	seen, gone := openwrt.RemoveProbe(clean, sh, p)
	if err != nil {
		return res, err
	}
	if gone == nil {
		res.Arrived = seen.Received
		refine(&res, seen, r.Mapped)
	}
	return res, ctx.Err()
}

// prepare makes the test peer: keys of its own and the last address of the
// tunnel that no device has.
func prepare(r Request, live *router.Tunnel) (openwrt.Probe, tunnel.Config, error) {
	private, err := key.NewPrivate(r.Rand)
	if err != nil {
		return openwrt.Probe{}, tunnel.Config{}, err
	}
	psk, err := key.NewPreshared(r.Rand)
	if err != nil {
		return openwrt.Probe{}, tunnel.Config{}, err
	}
	addr, err := freeAddress(r.Home, live)
	if err != nil {
		return openwrt.Probe{}, tunnel.Config{}, err
	}
	one := netip.PrefixFrom(addr, addr.BitLen())
	p := openwrt.Probe{
		Interface: r.Home.Tunnel.Interface, PublicKey: private.Public(), Preshared: psk,
		Addresses: []netip.Prefix{one}, TimeToLive: probeLife,
	}
	c := tunnel.Config{
		Private: private, Peer: live.PublicKey, Preshared: psk, Endpoint: r.Endpoint,
		Addresses: []netip.Addr{addr}, AllowedIPs: allowed(r.Home), MTU: r.Home.Tunnel.MTU, Bind: r.Bind,
		DNS: []netip.Addr{r.Home.Tunnel.Network.First().Addr()},
	}
	return p, c, nil
}

func allowed(h home.Home) []netip.Prefix {
	out := []netip.Prefix{h.Tunnel.Network.Prefix()}
	for _, l := range h.LANs {
		out = append(out, l.Network.Prefix())
	}
	return out
}

// A NoAddressError means that the tunnel network is full.
type NoAddressError struct{ Network netip.Prefix }

func (e *NoAddressError) Error() string {
	return fmt.Sprintf("no address is free in %s for the test", e.Network)
}

func freeAddress(h home.Home, live *router.Tunnel) (netip.Addr, error) {
	n := h.Tunnel.Network.Prefix()
	taken := map[netip.Addr]bool{h.Tunnel.Network.First().Addr(): true}
	for _, p := range h.Peers {
		taken[p.Address] = true
	}
	for _, p := range live.Peers {
		for _, a := range p.AllowedIPs {
			taken[a.Addr()] = true
		}
	}
	size := uint32(1) << (32 - n.Bits())
	for i := size - 2; i > 1; i-- {
		if a := h.Tunnel.Network.Host(i).Addr(); !taken[a] {
			return a, nil
		}
	}
	return netip.Addr{}, &NoAddressError{n}
}

// test walks the hops. A hop after a broken one is not shown, not broken.
func test(ctx context.Context, t *tunnel.Tunnel, r Request, snap *router.Snapshot, tell event.Tell) []Hop {
	first := handshake(ctx, t, r, tell)
	if first.Verdict != Shown {
		return behind(r, first)
	}
	hops := append(entry(r, first), first)
	var wg sync.WaitGroup
	rest := make([]Hop, 3)
	for i, f := range []func() Hop{
		func() Hop { return pingRouter(ctx, t, r) },
		func() Hop { return askDNS(ctx, t, r) },
		func() Hop { return reachLAN(ctx, t, r, snap) },
	} {
		wg.Go(func() { rest[i] = f() })
	}
	if r.More != nil {
		wg.Go(func() { r.More(ctx, t) })
	}
	wg.Wait()
	return append(hops, rest...)
}

// behind is all that a handshake which did not come about shows.
func behind(r Request, first Hop) []Hop {
	return append(entry(r, first), first,
		Hop{ID: HopRouter, What: "the router through the tunnel", Verdict: NotShown},
		Hop{ID: HopLAN, What: "a device in the home LAN", Verdict: NotShown})
}

// notSent: this computer could not send anything to the endpoint, which says nothing
// about home.
func notSent(h Hop, to netip.AddrPort, cause error) Hop {
	h.Verdict = NotShown
	if to.Addr().Is6() && !errors.Is(cause, fs.ErrPermission) {
		h.Seen = "this place has no IPv6, so nothing could be sent"
		h.Next = "heimweg verify --from-outside, in a place that has IPv6: most phones' own network has it"
		return h
	}
	h.Seen = "nothing could be sent from here"
	var errno syscall.Errno
	if errors.As(cause, &errno) {
		h.Seen += ": " + errno.Error()
	}
	h.Next = "look at this computer's own network, then run heimweg verify again"
	return h
}

// entry says what the handshake shows of the way to the tunnel's door, which
// depends on where it was made.
func entry(r Request, h Hop) []Hop {
	isp := Hop{ID: HopISP, What: "the ISP router's port mapping", Verdict: NotShown}
	door := Hop{ID: HopDoor, What: "the home router's open port", Verdict: NotShown}
	switch {
	case r.Home.Uplink.Kind == home.Direct:
		isp.What = "the way through the internet"
	case r.Home.Uplink.Kind == home.OneArmed:
		door.What = "the home router's door in the ISP router's LAN"
	}
	if r.Vantage == Inside {
		isp.Next = "heimweg verify --from-outside, with this computer on the phone's hotspot"
		door.Seen = "the test came from the home LAN and did not pass it"
		return []Hop{isp, door}
	}
	if h.Verdict == Shown {
		door.Verdict = Shown
	}
	if r.Vantage == Uplink {
		isp.Seen = "the test came from the uplink LAN and did not pass it"
		isp.Next = "heimweg verify --from-outside, with this computer on the phone's hotspot"
		return []Hop{isp, door}
	}
	isp.Verdict = door.Verdict
	return []Hop{isp, door}
}

func handshake(ctx context.Context, t *tunnel.Tunnel, r Request, tell event.Tell) (h Hop) {
	h = Hop{ID: HopHandshake, What: "handshake with " + r.Endpoint.String()}
	end := tell.Stage("handshake", h.What)
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	err := shake(ctx, t)
	defer func() { end(err, h.What) }()
	if err == nil {
		h.Verdict, h.Seen = Shown, fmt.Sprintf("answered after %d ms", time.Since(start).Milliseconds())
		return h
	}
	h.Verdict = Broken
	var none *tunnel.NoHandshakeError
	var unreachable *tunnel.UnreachableError
	switch {
	case errors.As(err, &none) && none.Answer == tunnel.Unsent:
		return notSent(h, r.Endpoint, none.Cause)
	case errors.As(err, &unreachable) && unreachable.Refused():
		h.Seen, h.Next = "something there says that the port is closed", "heimweg apply"
	case errors.As(err, &none):
		h.Seen = fmt.Sprintf("no answer in %s; WireGuard never answers a stranger, so silence has many causes", handshakeTime)
	default:
		h.Seen = err.Error()
	}
	return h
}

// shake waits for the handshake, and not for long where nothing can be sent.
func shake(ctx context.Context, t *tunnel.Tunnel) error {
	soon, cancel := context.WithTimeout(ctx, unsentTime)
	defer cancel()
	err := t.Handshake(soon)
	var none *tunnel.NoHandshakeError
	if err == nil || soon.Err() == nil || errors.As(err, &none) && none.Answer == tunnel.Unsent {
		return err
	}
	return t.Handshake(ctx)
}

func pingRouter(ctx context.Context, t *tunnel.Tunnel, r Request) Hop {
	addr := r.Home.Tunnel.Network.First().Addr()
	h := Hop{ID: HopRouter, What: "the router through the tunnel (" + addr.String() + ")"}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	rtt, err := t.Ping(ctx, addr)
	if err != nil {
		h.Verdict, h.Seen, h.Next = Broken, "no answer to ping in "+answerTime.String(), "heimweg apply"
		return h
	}
	h.Verdict, h.Seen = Shown, fmt.Sprintf("answered in %.1f ms", rtt.Seconds()*1000)
	return h
}

// askDNS asks the router's name service. A name that does not exist is an answer.
func askDNS(ctx context.Context, t *tunnel.Tunnel, r Request) Hop {
	h := Hop{ID: HopDNS, What: "names inside the tunnel"}
	if !slices.Contains(r.Home.DNS.Servers, home.DNSRouter) {
		h.Verdict, h.Seen = NotShown, "home.toml names other name servers"
		return h
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	_, err := t.Lookup(ctx, "openwrt.lan")
	var dns *net.DNSError
	if err != nil && !(errors.As(err, &dns) && dns.IsNotFound) {
		h.Verdict, h.Seen, h.Next = Broken, "the router did not answer a question for a name", "heimweg apply"
		return h
	}
	h.Verdict, h.Seen = Shown, "the router answers"
	return h
}

// reachLAN tries every device that the router has seen in the home LANs, side by
// side; the first that answers shows the hop. An answer "no" is an answer.
func reachLAN(ctx context.Context, t *tunnel.Tunnel, r Request, snap *router.Snapshot) Hop {
	h := Hop{ID: HopLAN, What: "a device in the home LAN"}
	if !r.Home.Reach.HomeLAN {
		h.Seen, h.Verdict = "home.toml does not let peers into the home LAN", NotShown
		return h
	}
	targets := targets(r, snap)
	if len(targets) == 0 {
		h.Verdict, h.Seen = NotShown, "the router has seen no device there yet"
		h.Next = "switch a device on, or name one: heimweg verify --target ADDRESS"
		return h
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	found := make(chan string, 5*len(targets))
	var wg sync.WaitGroup
	for _, a := range targets {
		wg.Go(func() {
			if rtt, err := t.Ping(ctx, a); err == nil {
				found <- fmt.Sprintf("%s answered in %.1f ms", a, rtt.Seconds()*1000)
			}
		})
		for _, port := range []string{"80", "443", "445", "22"} {
			wg.Go(func() {
				c, err := t.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), port))
				var u *tunnel.UnreachableError
				if err == nil {
					c.Close()
				}
				if err == nil || errors.As(err, &u) && u.Refused() {
					found <- fmt.Sprintf("%s answered on port %s", a, port)
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case seen := <-found:
		h.Verdict, h.Seen = Shown, seen
		cancel()
	case <-done:
		select {
		case seen := <-found:
			h.Verdict, h.Seen = Shown, seen
		default:
			h.Verdict = Broken
			h.Seen = fmt.Sprintf("none of %d devices answered in %s", len(targets), answerTime)
			h.Next = "heimweg apply; then name a device that is surely on: heimweg verify --target ADDRESS"
		}
	}
	<-done
	return h
}

// maxTargets bounds how many devices are asked.
const maxTargets = 12

func targets(r Request, snap *router.Snapshot) []netip.Addr {
	if r.Target.IsValid() {
		return []netip.Addr{r.Target}
	}
	var out []netip.Addr
	for _, n := range snap.Neighbours {
		inLAN := slices.ContainsFunc(r.Home.LANs, func(l home.LAN) bool { return l.Network.Contains(n.Addr) })
		if inLAN && n.Addr != r.Self && !slices.Contains(out, n.Addr) && len(out) < maxTargets {
			out = append(out, n.Addr)
		}
	}
	return out
}

// refine says more about a handshake that got no answer, from what the router
// counted for the test peer: bytes from it mean that its packets arrived.
func refine(res *Result, seen router.Peer, mapped bool) {
	for i := range res.Hops {
		h := &res.Hops[i]
		if h.ID != HopHandshake || h.Verdict != Broken {
			continue
		}
		if seen.Received > 0 {
			h.Seen = "the test's packets arrive at the tunnel, but its answers do not come back"
			h.Next = "check the ISP router's and the home router's way back to the internet"
			return
		}
		h.Seen += "; nothing of it arrived at the tunnel"
		if h.Next == "" {
			switch {
			case res.Vantage == Outside && mapped:
				h.Seen += "; the ISP router says that it passes the port on, and nothing of it arrives"
				h.Next = "restart the ISP router and run heimweg up again; if that does not help, set the mapping there by hand: heimweg up --by-hand tells how"
			case res.Vantage == Outside:
				h.Next = "run heimweg up: it opens the port on the ISP router, or tells how; then run heimweg verify again"
			default:
				h.Next = "heimweg apply"
			}
		}
	}
}
