package endpoint

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/subnet"
)

// insideDSLite is the network between a customer's router and the provider's end
// of a DS-Lite tunnel (RFC 6333; 464XLAT uses it, too: RFC 7335). A router with
// such an address has no IPv4 address of its own.
var insideDSLite = netip.MustParsePrefix("192.0.0.0/29")

// Judge answers where home is.
func Judge(f Facts) Verdict {
	v := Verdict{Kind: kind(f)}
	v.Proven = v.Kind == Public && f.seen() == f.own()
	if a, ok := f.call6(); ok {
		v.IPv6 = a
	}
	v.Changing = changing(f, v.Kind)
	v.Levels = levels(f, v.Kind)
	v.Endpoint = recommend(f, v)
	v.Seen = evidence(f)
	v.Missing = missing(f, v)
	v.Steps = steps(f, v)
	return v
}

// own is the IPv4 address that the outermost known box of the house has.
func (f Facts) own() Address {
	if a, ok := f.WAN.Get(); ok && (subnet.IsPublic(a) || subnet.IsCarrier(a) || insideDSLite.Contains(a)) {
		return f.WAN // nobody translates for the home router
	}
	switch {
	case len(f.Boxes) > 0:
		return f.Boxes[len(f.Boxes)-1].Outer
	case f.Direct && f.WAN.IsNone():
		return None()
	case f.Direct && !f.WAN.Known():
		return f.WAN
	}
	return Address{}
}

// seen is home's IPv4 address as the internet sees it. Two answers that differ
// are told by disagree.
func (f Facts) seen() Address {
	if f.STUN.Known() {
		return f.STUN
	}
	return f.Web
}

// disagree: the internet saw two addresses.
func (f Facts) disagree() bool {
	a, okA := f.STUN.Get()
	b, okB := f.Web.Get()
	return okA && okB && a != b
}

// silent4: somebody asked over IPv4, and there was no way out.
func (f Facts) silent4() bool { return f.STUN.IsNone() || f.Web.IsNone() }

// outers are the known outer addresses, from the home router outwards.
func (f Facts) outers() []netip.Addr {
	var out []netip.Addr
	add := func(a Address) {
		if a, ok := a.Get(); ok {
			out = append(out, a)
		}
	}
	add(f.WAN)
	for _, b := range f.Boxes {
		add(b.Outer)
	}
	return out
}

// kind judges IPv4. The order matters: what contradicts a public address is asked
// first, so that nothing later can overrule it.
func kind(f Facts) Kind {
	outers := f.outers()
	seen, isSeen := f.seen().Get()
	own := f.own()
	switch {
	case slices.ContainsFunc(outers, subnet.IsCarrier):
		return CGNAT
	case slices.ContainsFunc(outers, insideDSLite.Contains):
		return DSLite
	case f.disagree():
		return CGNAT
	case own.IsNone() && isSeen:
		return DSLite
	case own.IsNone() || !own.Known() && f.WAN.IsNone() && !isSeen:
		if _, ok := f.call6(); ok {
			return IPv6Only
		}
		return Unclear // the line may be down
	}
	a, ok := own.Get()
	switch {
	case !ok:
		return Unclear
	case a.IsPrivate() && len(f.Boxes) > 0:
		return DoubleNAT
	case !subnet.IsPublic(a) || f.silent4():
		return Unclear
	case isSeen && !subnet.IsPublic(seen):
		return Unclear // the server is not outside
	case isSeen && seen != a:
		return CGNAT
	case f.routed(a):
		return Unclear
	case len(f.Boxes) > 1:
		return DoubleNAT
	}
	return Public
}

// routed: the home router has a public address of its own behind a box that says
// it has another one. Then only the view from outside tells which counts.
func (f Facts) routed(own netip.Addr) bool {
	seen, _ := f.seen().Get()
	return seen != own && slices.ContainsFunc(f.Boxes, func(b Box) bool {
		a, ok := b.Outer.Get()
		return b.Outer.IsNone() || ok && a != own && f.WAN == Is(own)
	})
}

// call6 is the home router's global IPv6 address, unless the internet was asked
// over IPv6 and there was no way.
func (f Facts) call6() (netip.Addr, bool) {
	a, ok := f.WAN6.Get()
	ok = ok && a.Is6() && subnet.IsPublic(a) && !f.STUN6.IsNone() && !f.Web6.IsNone()
	if !ok {
		return netip.Addr{}, false
	}
	return a, true
}

// now is the public IPv4 address of this moment, as far as known.
func (f Facts) now() (netip.Addr, bool) {
	if a, ok := f.seen().public(); ok {
		return a, true
	}
	return f.own().public()
}

// changing: home had another public address before, or its name says so.
func changing(f Facts, k Kind) bool {
	now4, ok4 := f.now()
	now6, ok6 := f.call6()
	for _, s := range f.Earlier {
		a := s.Addr.Unmap()
		switch {
		case !subnet.IsPublic(a):
		case a.Is4() && ok4 && a != now4, a.Is6() && ok6 && a != now6:
			return true
		}
	}
	return (k == Public || k == DoubleNAT) && f.stale4() || f.stale6()
}

// stale4: the name has IPv4 addresses, and home's is not among them.
func (f Facts) stale4() bool {
	now, ok := f.now()
	return ok && len(f.A.addrs) > 0 && !f.A.Has(now)
}

func (f Facts) stale6() bool {
	now, ok := f.call6()
	return ok && len(f.AAAA.addrs) > 0 && !f.AAAA.Has(now)
}

// levels lists who translates on the way in, from outside.
func levels(f Facts, k Kind) []Level {
	if f.own() == f.WAN && f.WAN.Known() && len(f.Boxes) == 0 && k == Public {
		return nil
	}
	var out []Level
	to, _ := f.WAN.Get()
	boxes := f.Boxes
	if len(boxes) == 0 && !f.Direct && f.WAN.addr.IsPrivate() {
		boxes = []Box{{}}
	}
	for _, b := range boxes {
		l := Level{Box: b.Name, To: to}
		if l.Box == "" {
			l.Box = "ISP router"
		}
		l.Menu, _ = b.Inside.Get()
		l.Outer, _ = b.Outer.Get()
		out = append(out, l)
		to = l.Outer
	}
	seen, _ := f.seen().public()
	switch k {
	case CGNAT, DSLite:
		if to.IsValid() && to == seen {
			break
		}
		out = append(out, Level{Box: "provider's NAT", Outer: seen, To: to, Theirs: true})
	case DoubleNAT:
		if own, _ := f.own().Get(); own.IsPrivate() {
			out = append(out, Level{Box: "box in front of the " + last(out).Box, Outer: seen, To: to})
		}
	}
	slices.Reverse(out)
	return out
}

func last(l []Level) Level {
	if len(l) == 0 {
		return Level{Box: "home router"}
	}
	return l[len(l)-1]
}

// recommend chooses what peers should call.
func recommend(f Facts, v Verdict) Call {
	now, ok := f.now()
	switch v.Kind {
	case Public, DoubleNAT:
		if !ok {
			return Call{Host: f.Name}
		}
		if f.Name != "" {
			return Call{Host: f.Name, Addr: now, Sure: f.A.Has(now)}
		}
		return Call{Host: now.String(), Addr: now, Sure: true}
	case CGNAT, DSLite, IPv6Only:
		switch {
		case !v.IPv6.IsValid():
			return Call{}
		case f.Name != "":
			return Call{Host: f.Name, Addr: v.IPv6, IPv6: true, Sure: f.AAAA.Has(v.IPv6) && len(f.A.addrs) == 0}
		}
		return Call{Host: v.IPv6.String(), Addr: v.IPv6, IPv6: true, Sure: true}
	}
	switch {
	case f.Name != "":
		return Call{Host: f.Name, Addr: now}
	case ok:
		return Call{Host: now.String(), Addr: now}
	case v.IPv6.IsValid():
		return Call{Host: v.IPv6.String(), Addr: v.IPv6, IPv6: true}
	}
	return Call{}
}

// evidence tells what was seen, in a few words each.
func evidence(f Facts) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if f.WAN.Known() {
		say("the home router's WAN address: %s%s", f.WAN, remark(f.WAN))
	}
	for _, b := range f.Boxes {
		if b.Outer.Known() {
			by := ""
			if b.By != "" {
				by = " (" + b.By + ")"
			}
			say("the %s says its own address is: %s%s%s", orISP(b.Name), b.Outer, remark(b.Outer), by)
		}
	}
	for _, s := range []struct {
		how string
		a   Address
	}{{"STUN", f.STUN}, {"HTTPS", f.Web}, {"STUN over IPv6", f.STUN6}, {"HTTPS over IPv6", f.Web6}} {
		if s.a.IsNone() {
			say("the internet cannot be reached by %s", s.how)
		} else if a, ok := s.a.Get(); ok {
			say("the internet sees (%s): %s", s.how, a)
		}
	}
	if f.WAN6.Known() {
		say("the home router's IPv6 address: %s%s", f.WAN6, remark(f.WAN6))
	}
	if f.A.known || f.AAAA.known {
		say("%s points to: %s", f.Name, list(append(f.A.Addrs(), f.AAAA.addrs...)))
	}
	if n := len(f.Earlier); n > 0 {
		say("earlier it was: %s", f.Earlier[n-1].Addr)
	}
	return out
}

func orISP(name string) string {
	if name == "" {
		return "ISP router"
	}
	return name
}

// remark explains an address that nobody outside can call.
func remark(a Address) string {
	x, ok := a.Get()
	if !ok {
		return ""
	}
	if why := subnet.WhyNotPublic(x); why != "" {
		return ", " + why
	}
	return ""
}

func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	s := addrs[0].String()
	for _, a := range addrs[1:] {
		s += ", " + a.String()
	}
	return s
}

// missing lists what would make the verdict better.
func missing(f Facts, v Verdict) []Missing {
	var out []Missing
	add := func(fact, why, ask string) { out = append(out, Missing{fact, why, ask}) }
	if !f.WAN.Known() {
		add("the home router's WAN address", f.WAN.Why(), "heimweg status")
	}
	if own := f.own(); !own.Known() && !f.Direct {
		why := own.Why()
		ask := "its status page shows it: \"internet address\" or \"IPv4 address\""
		add("the ISP router's own address on the internet", why, ask)
	}
	if !f.seen().Known() && v.Kind != IPv6Only {
		add("the address that the internet sees", f.STUN.Why(), "heimweg verify --ask-outside SERVER asks one of your choice (a STUN server as host:port, or a page that says who calls)")
	}
	if !f.WAN6.Known() && v.Kind != Public {
		add("the home router's IPv6 address", f.WAN6.Why(), "")
	}
	if f.Name != "" && !f.A.known && !f.AAAA.known {
		add("what "+f.Name+" points to", f.A.Why(), "")
	}
	return out
}
