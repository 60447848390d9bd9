package endpoint

import (
	"fmt"
	"net/netip"
)

// RelayCommand writes the configuration of a small server that relays.
const RelayCommand = "heimweg relay HOST"

// advice collects steps.
type advice struct {
	f   Facts
	v   Verdict
	out []Step
}

func (a *advice) do(id StepID, command, format string, args ...any) {
	a.out = append(a.out, Step{id, fmt.Sprintf(format, args...), command})
}

// steps says what to do, the first first.
func steps(f Facts, v Verdict) []Step {
	a := &advice{f: f, v: v}
	switch v.Kind {
	case Public:
		a.mapEach()
		a.records()
	case DoubleNAT:
		a.mapEach()
		a.do(StepBridge, "", "better: let one of the two boxes be a modem or a bridge only, then one port is enough")
		if n := len(v.Levels); n > 0 && !v.Levels[0].Menu.IsValid() {
			a.do(StepProvider, "", "is there only one box in the house? Then the provider translates: ask for a public IPv4 address")
		}
		a.records()
	case CGNAT, DSLite, IPv6Only:
		a.noIPv4()
	default:
		a.learn()
	}
	return a.out
}

// port is the port that peers call, inner the one that the home router listens on.
func (a *advice) port() uint16 { return a.f.Port }

func (a *advice) inner() uint16 {
	if a.f.Inner != 0 {
		return a.f.Inner
	}
	return a.f.Port
}

// mapEach names the mapping at every level, from the inside outwards: that is the
// order in which a person can reach the menus.
func (a *advice) mapEach() {
	for i := len(a.v.Levels) - 1; i >= 0; i-- {
		l := a.v.Levels[i]
		port := a.port()
		if i == len(a.v.Levels)-1 {
			port = a.inner()
		}
		at := ""
		if l.Menu.IsValid() {
			at = fmt.Sprintf(" (menus at %s)", l.Menu)
		}
		to := "the box behind it"
		if l.To.IsValid() {
			to = l.To.String()
		}
		a.do(StepMap, "", "on the %s%s: send UDP %d to %s port %d, and always give %s the same address", l.Box, at, a.port(), to, port, to)
	}
}

// records looks at what the name says, and whether a name is needed.
func (a *advice) records() {
	now, ok := a.f.now()
	switch {
	case a.f.Name == "" && a.v.Changing:
		a.do(StepName, "", "the address changes: use a name that follows it (a DynDNS name, or the ISP router's own, such as MyFRITZ)")
	case a.f.Name == "":
	case ok && a.f.stale4():
		a.do(StepRecord, "", "%s points to %s, and home is %s: the address has changed, or the name was never right; let the name follow", a.f.Name, list(a.f.A.addrs), now)
	case a.f.A.known && len(a.f.A.addrs) == 0 && ok:
		a.do(StepRecord, "", "%s has no IPv4 address: let it point to %s", a.f.Name, now)
	}
	if a.f.stale6() {
		a.record6()
	}
}

func (a *advice) record6() {
	a.do(StepRecord, "", "%s points to %s over IPv6, and the home router is %s: let the name follow the home router's IPv6 address", a.f.Name, list(a.f.AAAA.addrs), a.v.IPv6)
}

// noIPv4 is what can be done where nobody can call over IPv4.
func (a *advice) noIPv4() {
	if a.v.IPv6.IsValid() {
		a.byIPv6()
	}
	switch a.v.Kind {
	case IPv6Only, DSLite:
		a.do(StepProvider, "", "ask the provider for a public IPv4 address (\"dual stack\"); many give one on request")
	default:
		a.do(StepProvider, "", "ask the provider for a public IPv4 address of your own; many give one on request")
	}
	if !a.v.IPv6.IsValid() {
		a.do(StepProvider, "", "ask for IPv6 as well: over it home can be called without any mapping")
	}
	a.do(StepRelay, RelayCommand, "or rent a small server with a public address that relays: home calls it, and devices call it")
}

func (a *advice) byIPv6() {
	if !a.f.Direct {
		a.do(StepOpen6, "", "on the ISP router, in its IPv6 firewall: let UDP %d in to the home router, %s%s", a.inner(), a.v.IPv6, interfaceID(a.v.IPv6))
	}
	switch {
	case a.f.Name == "":
		a.do(StepName, "", "the IPv6 address changes with the provider's prefix: use a name that follows it (DynDNS with an AAAA record)")
	case len(a.f.A.addrs) > 0:
		// wireguard-android prefers IPv4 when a name has both (its InetEndpoint).
		a.do(StepRecord, "", "take the IPv4 address %s away from %s: it cannot be called, and phones try it first", list(a.f.A.addrs), a.f.Name)
	}
	switch {
	case a.f.Name == "":
	case a.f.stale6():
		a.record6()
	case a.f.AAAA.known && len(a.f.AAAA.addrs) == 0:
		a.do(StepRecord, "", "give %s an IPv6 address (AAAA): %s", a.f.Name, a.v.IPv6)
	}
	a.do(StepWarn, "", "devices in networks without IPv6 cannot come home this way; mobile networks mostly have it, hotels often not")
}

// interfaceID is the half of an IPv6 address that stays when the prefix changes;
// ISP routers ask for it when they open a host.
func interfaceID(a netip.Addr) string {
	b := a.As16()
	id := netip.AddrFrom16([16]byte{8: b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]})
	return fmt.Sprintf(" (interface id %s)", id)
}

// learn is what to find out when the verdict is not clear.
func (a *advice) learn() {
	if a.f.Direct && a.f.WAN.addr.IsPrivate() {
		a.do(StepLearn, "", "home.toml says that the home router is directly on the internet, but its WAN address %s is private: write uplink behind-isp-router", a.f.WAN)
	}
	for _, m := range a.v.Missing {
		if m.Ask != "" {
			a.do(StepLearn, "", "find out %s: %s", m.Fact, m.Ask)
		}
	}
	if a.f.own().IsNone() {
		a.do(StepLearn, "", "the line has neither an IPv4 nor an IPv6 address: is the ISP router online?")
	}
	if a.v.Endpoint.Addr.Is4() {
		a.do(StepLearn, "", "if the ISP router's status page shows %s as its own address, home can be called there", a.v.Endpoint.Addr)
	}
	a.mapEach()
}
