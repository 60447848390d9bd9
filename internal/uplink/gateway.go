package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// askAgain sends the searches until ctx ends: datagrams get lost.
func askAgain(ctx context.Context, write func([]byte, net.Addr) (int, error), gateway netip.Addr) {
	one := netip.AddrPortFrom(gateway, ssdpPort)
	for pause := 250 * time.Millisecond; ; pause *= 2 {
		for _, target := range searches {
			for _, to := range []netip.AddrPort{one, ssdpGroup} {
				write(mSearch(to, target), net.UDPAddrFromAddrPort(to)) // what cannot be sent is not answered
			}
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// boxes are the services that were found, the one to ask first in front.
func (g *Gateway) boxes() []*box {
	var out []*box
	if g.tr064 != nil && g.tr064.login != nil {
		out = append(out, g.tr064)
	}
	if g.igd != nil {
		out = append(out, g.igd)
	}
	return out
}

// External is the ISP router's address outside, as it says. It may be private or
// the carrier's: then there is another NAT behind it. Errors: *FailedError.
func (g *Gateway) External(ctx context.Context) (netip.Addr, error) {
	var a netip.Addr
	var tried []Attempt
	for _, b := range g.boxes() {
		tried = append(tried, g.by(ctx, b, func(ctx context.Context, w way, b *box) (err error) {
			a, err = g.publicBy(ctx, w, b)
			return err
		})...)
		if a.IsValid() {
			return a, nil
		}
	}
	if g.speaks(NATPMP) && ctx.Err() == nil {
		tried = append(tried, g.datagrams(ctx, NATPMP, func(ctx context.Context) (err error) {
			a, _, err = g.findPMP(ctx)
			return err
		}))
		if a.IsValid() {
			return a, nil
		}
	}
	return netip.Addr{}, failed("its address outside", append(g.unanswered(), tried...))
}

// unanswered is what was tried in vain when the gateway was asked.
func (g *Gateway) unanswered() []Attempt {
	var out []Attempt
	for _, a := range g.Tried {
		if a.Err != nil && !g.speaks(a.Protocol) {
			out = append(out, a)
		}
	}
	if g.tr064 != nil && g.tr064.login == nil {
		out = append(out, Attempt{Protocol: TR064, Way: g.tr064.way, Err: &RefusedError{Why: NeedsPassword}})
	}
	return out
}

// List is what the ISP router sends inwards. Only UPnP and TR-064 tell; the list
// ends at 1000 entries. Errors: *FailedError.
func (g *Gateway) List(ctx context.Context) ([]Mapping, error) {
	tried := g.unanswered()
	for _, b := range g.boxes() {
		var list []Mapping
		now := g.by(ctx, b, func(ctx context.Context, w way, b *box) (err error) {
			list, err = g.list(ctx, w, b)
			return err
		})
		if last := now[len(now)-1]; last.Err == nil {
			return list, nil
		}
		tried = append(tried, now...)
	}
	for _, p := range []Protocol{PCP, NATPMP} {
		if g.speaks(p) {
			tried = append(tried, Attempt{Protocol: p, Way: Direct, Err: &NotPossibleError{"it has no list"}})
		}
	}
	return nil, failed("the list of its mappings", tried)
}

// Map opens a port for Options.Client: by each protocol that answered, in their
// order, until one does it. Asked again, it renews. A port that leads elsewhere is
// left as it is. What UPnP and TR-064 say is read back. Errors: *ConflictError when
// the port leads to somebody else already, else *FailedError with one Attempt for
// each protocol.
func (g *Gateway) Map(ctx context.Context, w Want) (Mapping, error) {
	if err := w.check(); err != nil {
		return Mapping{}, err
	}
	var m Mapping
	tried := g.unanswered()
	for _, p := range protocols {
		now := g.mapBy(ctx, p, w, &m)
		tried = append(tried, now...)
		if len(now) == 0 {
			continue
		}
		err := now[len(now)-1].Err
		var taken *ConflictError
		if err == nil {
			return m, nil
		}
		if errors.As(err, &taken) || ctx.Err() != nil {
			break
		}
	}
	return Mapping{}, failed(w.what(g.opt.Client), tried)
}

func (w Want) check() error {
	if w.External == 0 || w.Proto != "udp" && w.Proto != "tcp" {
		return fmt.Errorf("uplink: no port: %q %d", w.Proto, w.External)
	}
	return nil
}

// mapBy opens a port by one protocol; nothing was tried when it was not answered.
func (g *Gateway) mapBy(ctx context.Context, p Protocol, w Want, m *Mapping) []Attempt {
	if !g.speaks(p) {
		return nil
	}
	switch p {
	case PCP:
		return []Attempt{g.datagrams(ctx, p, func(ctx context.Context) (err error) { *m, err = g.mapPCP(ctx, w); return err })}
	case NATPMP:
		return []Attempt{g.datagrams(ctx, p, func(ctx context.Context) (err error) { *m, err = g.mapPMP(ctx, w); return err })}
	}
	for _, b := range g.boxes() {
		if b.protocol == p {
			return g.by(ctx, b, func(ctx context.Context, way way, b *box) (err error) { *m, err = g.add(ctx, way, b, w); return err })
		}
	}
	return nil
}

// Unmap takes a mapping of Options.Client back, by the protocol that made it, or,
// where m does not say, by the first one that can. One that is not there any more
// is no error; one that leads elsewhere is left, with a *ConflictError.
func (g *Gateway) Unmap(ctx context.Context, m Mapping) error {
	what := "the end of " + Want{Proto: m.Proto, External: m.External}.what(m.To.Addr())
	if m.To.IsValid() && m.To.Addr() != g.opt.Client {
		return &ConflictError{Want: Want{Proto: m.Proto, External: m.External}, Holder: m}
	}
	tried := g.unanswered()
	for _, b := range g.boxes() {
		if m.Protocol != "" && m.Protocol != b.protocol {
			continue
		}
		tried = append(tried, g.by(ctx, b, func(ctx context.Context, w way, b *box) error { return g.remove(ctx, w, b, m) })...)
		return failed(what, tried)
	}
	switch {
	case m.Protocol == PCP && m.To.IsValid():
		tried = append(tried, g.datagrams(ctx, PCP, func(ctx context.Context) error { return g.unmapPCP(ctx, m) }))
	case m.Protocol == NATPMP && m.To.IsValid():
		tried = append(tried, g.datagrams(ctx, NATPMP, func(ctx context.Context) error { return g.unmapPMP(ctx, m) }))
	}
	return failed(what, tried)
}

// Clock asks how long the ISP router has been keeping mappings: compared with a
// mapping's Epoch it tells whether that was forgotten. Only PCP and NAT-PMP know.
// Errors: *FailedError.
func (g *Gateway) Clock(ctx context.Context) (Epoch, error) {
	var e Epoch
	tried := g.unanswered()
	for _, p := range []Protocol{PCP, NATPMP} {
		if !g.speaks(p) {
			continue
		}
		a := g.datagrams(ctx, p, func(ctx context.Context) (err error) {
			if p == PCP {
				e, err = g.findPCP(ctx)
				return err
			}
			_, e, err = g.findPMP(ctx)
			return err
		})
		if tried = append(tried, a); a.Err == nil {
			return e, nil
		}
	}
	return Epoch{}, failed("its clock", tried)
}

// pinholeLease is the most that a pinhole may last (WANIPv6FirewallControl:1 2.2.3).
const pinholeLease = 24 * time.Hour

// Pinhole opens the ISP router's IPv6 firewall for to, a global address of the
// home router, which must be the one that Via's requests come from. Lease 0
// means as long as permitted (a day). Asked again, it makes another one: renew
// with RenewPinhole. Where Gateway6 is link-local, or not known, it is asked at
// the addresses that it may have in to's network. Errors: *FailedError.
func (g *Gateway) Pinhole(ctx context.Context, proto string, to netip.AddrPort, lease time.Duration) (Pinhole, error) {
	p := Pinhole{Proto: proto, To: to, Lease: clampPinhole(lease)}
	err := g.over6(ctx, p.To.Addr(), func(ctx context.Context, call func(string, ...arg) (map[string]string, error)) error {
		args, err := call("GetFirewallStatus")
		switch {
		case err != nil && code(err) == 0:
			return err
		case args["InboundPinholeAllowed"] == "0" || args["InboundPinholeAllowed"] == "false":
			return &RefusedError{Reply: "GetFirewallStatus: no pinholes", Why: SwitchedOff}
		}
		args, err = call("AddPinhole", arg{"RemoteHost", ""}, arg{"RemotePort", "0"}, arg{"InternalClient", to.Addr().String()},
			arg{"InternalPort", fmt.Sprint(to.Port())}, arg{"Protocol", fmt.Sprint(protoNumber(proto))}, arg{"LeaseTime", fmt.Sprint(int(p.Lease / time.Second))})
		if err != nil {
			return err
		}
		id, err := strconv.ParseUint(args["UniqueID"], 10, 16)
		if err != nil {
			return &GarbledError{Reply: "AddPinhole", What: "no number in it"}
		}
		p.ID, p.Asked = uint16(id), time.Now()
		return nil
	})
	return p, err
}

func clampPinhole(lease time.Duration) time.Duration {
	if lease <= 0 {
		return pinholeLease
	}
	return min(max(lease, time.Second), pinholeLease)
}

// RenewPinhole lets a pinhole last longer. Errors: *FailedError, with NotThere when
// it had ended.
func (g *Gateway) RenewPinhole(ctx context.Context, p Pinhole, lease time.Duration) (Pinhole, error) {
	p.Lease = clampPinhole(lease)
	err := g.over6(ctx, p.To.Addr(), func(ctx context.Context, call func(string, ...arg) (map[string]string, error)) error {
		_, err := call("UpdatePinhole", arg{"UniqueID", fmt.Sprint(p.ID)}, arg{"NewLeaseTime", fmt.Sprint(int(p.Lease / time.Second))})
		return pinholeGone(err)
	})
	p.Asked = time.Now()
	return p, err
}

// pinholeGone gives 704 its meaning there: NoSuchEntry (WANIPv6FirewallControl:1 2.4.9).
func pinholeGone(err error) error {
	if r := refused(err); r != nil && r.Code == 704 {
		return &RefusedError{Reply: r.Reply, Code: r.Code, Why: NotThere}
	}
	return err
}

// ClosePinhole closes it; one that is not there any more is no error.
func (g *Gateway) ClosePinhole(ctx context.Context, p Pinhole) error {
	return g.over6(ctx, p.To.Addr(), func(ctx context.Context, call func(string, ...arg) (map[string]string, error)) error {
		_, err := call("DeletePinhole", arg{"UniqueID", fmt.Sprint(p.ID)})
		if code(err) == 704 {
			return nil
		}
		return err
	})
}

// over6 talks to the IPv6 firewall about an opening for to: over IPv6 and from the
// home router, because the request must come from the address that shall be
// opened (facts deps 8: over IPv4 the answer is 606).
func (g *Gateway) over6(ctx context.Context, to netip.Addr, f func(context.Context, func(string, ...arg) (map[string]string, error)) error) error {
	const what = "the opening in its IPv6 firewall"
	no := func(reason string) error {
		return failed(what, append(g.unanswered(), Attempt{Protocol: UPnP, Way: Via, Err: &NotPossibleError{reason}}))
	}
	if g.igd == nil {
		return no("the ISP router does not speak it")
	}
	s, ok := g.igd.dev.of(firewall6)
	switch {
	case !ok:
		return no("the ISP router does not offer it")
	case g.opt.Via.Dial == nil:
		return no("only the home router may ask, and there is no way through it")
	}
	at, ok := g.find6(ctx, to, s.control.port)
	if !ok {
		return no("the ISP router was not found at any IPv6 address that it could have")
	}
	w := way{Way: g.opt.Via, name: Via, own: true}
	a := g.try(ctx, UPnP, Via, func(ctx context.Context) error {
		return f(ctx, func(action string, args ...arg) (map[string]string, error) {
			return g.call(ctx, w, at, g.igd, s, action, args...)
		})
	})
	return failed(what, []Attempt{a})
}

// find6 finds the address at which the ISP router can be asked about to.
func (g *Gateway) find6(ctx context.Context, to netip.Addr, port uint16) (netip.Addr, bool) {
	for _, a := range addresses6(g.opt.Gateway6, to) {
		ctx, cancel := context.WithTimeout(ctx, g.opt.first())
		c, err := g.opt.Via.Dial(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		cancel()
		if err == nil {
			c.Close()
			return a, true
		}
	}
	return netip.Addr{}, false
}

// addresses6 are the addresses that the ISP router may have in the network of to,
// the likeliest first. A request to a link-local address would come from one, and
// be refused. A router that numbers itself has the same last half in all its
// addresses (RFC 4862); others like to be number 1.
func addresses6(gateway, to netip.Addr) []netip.Addr {
	var out []netip.Addr
	if gateway.Is6() && !gateway.IsLinkLocalUnicast() {
		return append(out, gateway)
	}
	if !to.Is6() || to.Is4In6() || to.IsLinkLocalUnicast() {
		return nil
	}
	a := to.As16()
	if gateway.Is6() {
		b := gateway.As16()
		copy(a[8:], b[8:])
		out = append(out, netip.AddrFrom16(a))
	}
	copy(a[8:], []byte{0, 0, 0, 0, 0, 0, 0, 1})
	if one := netip.AddrFrom16(a); one != to && (len(out) == 0 || out[0] != one) {
		out = append(out, one)
	}
	return out
}
