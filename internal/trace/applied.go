package trace

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// Applied is the router as `heimweg apply` would leave it, and whether apply
// would refuse to begin. Nil when it would change nothing, or cannot be told.
func Applied(h home.Home, s *router.Snapshot) (after *router.Snapshot, stuck bool) {
	p, want := plan.For(h, s, blueprint.Access{})
	if p.Empty() {
		return nil, false
	}
	docs, err := p.Edit(s.Configs, madeUp(h, s))
	if err != nil {
		return nil, len(p.Blocked) > 0
	}
	c := *s
	c.Configs = maps.Clone(s.Configs)
	maps.Copy(c.Configs, docs)
	c.Broken = nil
	c.Tunnels = maps.Clone(s.Tunnels)
	if c.Tunnels == nil {
		c.Tunnels = map[string]*router.Tunnel{}
	}
	c.Tunnels[want.Tunnel.Interface] = liveAfter(s, want)
	c.Interfaces = interfacesAfter(s, want)
	c.Routes = routesAfter(&c, want.Tunnel.Interface)
	return &c, len(p.Blocked) > 0
}

// madeUp are keys for a router that has none yet. They stand for the real ones,
// which nobody here knows, and never leave this package.
func madeUp(h home.Home, s *router.Snapshot) plan.Secrets {
	out := plan.Secrets{Preshared: map[string]key.Preshared{}}
	one := bytes.Repeat([]byte{1}, key.Size)
	out.Private, _ = key.NewPrivate(bytes.NewReader(one))
	for _, p := range h.Peers {
		out.Preshared[p.Name], _ = key.NewPreshared(bytes.NewReader(one))
	}
	return out
}

// liveAfter is the tunnel as it would run.
func liveAfter(s *router.Snapshot, want blueprint.Want) *router.Tunnel {
	t := &router.Tunnel{Interface: want.Tunnel.Interface, ListenPort: want.Tunnel.Port}
	old := s.Tunnels[want.Tunnel.Interface]
	if old != nil {
		t.PublicKey, t.Private = old.PublicKey, old.Private
	}
	for _, p := range want.Peers {
		if p.Disabled {
			continue
		}
		was, known := old.Peer(p.Key)
		was.PublicKey, was.AllowedIPs = p.Key, p.AllowedIPs
		switch {
		case !p.Preshared:
			was.Preshared = ""
		case !known || was.Preshared == "":
			was.Preshared = "made by apply"
		}
		t.Peers = append(t.Peers, was)
	}
	return t
}

func interfacesAfter(s *router.Snapshot, want blueprint.Want) []router.Interface {
	name := want.Tunnel.Interface
	out := slices.DeleteFunc(slices.Clone(s.Interfaces), func(i router.Interface) bool { return i.Name == name })
	return append(out, router.Interface{Name: name, Device: name, Proto: "wireguard", Up: true, Addresses: want.Tunnel.Addresses})
}

// routesAfter leaves the kernel's table as it is but for the tunnel's own lines.
func routesAfter(c *router.Snapshot, tunnel string) []router.Route {
	if len(c.Routes) == 0 {
		return nil
	}
	out := slices.DeleteFunc(slices.Clone(c.Routes), func(r router.Route) bool { return r.Device == tunnel })
	for _, r := range connected(c) {
		if r.Device == tunnel || r.Dst.Bits() == 0 && !slices.ContainsFunc(out, func(o router.Route) bool { return o.Dst == r.Dst }) {
			out = append(out, r)
		}
	}
	return out
}

func allowedAtHome(h home.Home) []netip.Prefix { return wgconf.AllowedIPs(h) }
