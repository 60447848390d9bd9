package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/router"
)

// routes is the router's way of finding the way.
type routes struct {
	list  []router.Route
	local map[netip.Addr]router.Interface
}

// routesOf takes the kernel's table; where it was not looked at, what the
// interfaces' addresses and gateways amount to.
func routesOf(s *router.Snapshot) routes {
	r := routes{list: s.Routes, local: map[netip.Addr]router.Interface{}}
	if len(r.list) == 0 {
		r.list = connected(s)
	}
	for _, i := range s.Interfaces {
		for _, p := range i.Addresses {
			if i.Up {
				r.local[p.Addr()] = i
			}
		}
	}
	return r
}

func connected(s *router.Snapshot) []router.Route {
	var out []router.Route
	for _, i := range s.Interfaces {
		if !i.Up || i.Device == "" || i.Device == "lo" {
			continue
		}
		for _, p := range i.Addresses {
			if p.IsValid() && !p.IsSingleIP() {
				out = append(out, router.Route{Dst: p.Masked(), Device: i.Device})
			}
		}
		for _, g := range i.Gateways {
			if g.IsValid() {
				out = append(out, router.Route{Dst: everything(g), Via: g, Device: i.Device})
			}
		}
	}
	return out
}

func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// isLocal reports whether a is one of the router's own addresses.
func (r routes) isLocal(a netip.Addr) bool {
	_, ok := r.local[a]
	return ok || a.IsLoopback()
}

// find is the longest match, then the lowest metric. False: no way, or one that
// refuses.
func (r routes) find(dst netip.Addr) (router.Route, bool) {
	best := -1
	for i, x := range r.list {
		if !x.Dst.IsValid() || !x.Dst.Contains(dst) {
			continue
		}
		if best < 0 || cmp.Or(cmp.Compare(x.Dst.Bits(), r.list[best].Dst.Bits()), cmp.Compare(r.list[best].Metric, x.Metric)) > 0 {
			best = i
		}
	}
	if best < 0 || r.list[best].Device == "" {
		return router.Route{}, false
	}
	return r.list[best], true
}

// route is find in the firewall's words.
func (r routes) route(dst netip.Addr) (out string, local bool) {
	if r.isLocal(dst) {
		return "lo", true
	}
	x, ok := r.find(dst)
	if !ok {
		return "", false
	}
	return x.Device, false
}

// by says which route was taken, for people.
func by(x router.Route) string {
	switch {
	case x.Dst.Bits() == 0 && x.Via.IsValid():
		return fmt.Sprintf("by the default route, to %s on %s", x.Via, x.Device)
	case x.Via.IsValid():
		return fmt.Sprintf("by the route for %s, to %s on %s", x.Dst, x.Via, x.Device)
	}
	return fmt.Sprintf("%s hangs on %s", x.Dst, x.Device)
}

// holder finds the live interface whose network holds a, the smallest one.
func holder(s *router.Snapshot, a netip.Addr) (router.Interface, netip.Prefix, bool) {
	var best netip.Prefix
	var on router.Interface
	for _, i := range s.Interfaces {
		for _, p := range i.Addresses {
			if i.Up && !p.IsSingleIP() && p.Contains(a) && (!best.IsValid() || p.Bits() > best.Bits()) {
				best, on = p, i
			}
		}
	}
	return on, best, best.IsValid()
}

// byDevice finds the interface on a device that is up, one that has an address
// first.
func byDevice(s *router.Snapshot, dev string) (router.Interface, bool) {
	var found []router.Interface
	for _, i := range s.Interfaces {
		if i.Device == dev && dev != "" {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b router.Interface) int {
		return cmp.Compare(len(b.Addresses), len(a.Addresses))
	})
	if len(found) == 0 {
		return router.Interface{}, false
	}
	return found[0], true
}
