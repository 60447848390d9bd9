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

// After is what `heimweg apply` would make of a router. The zero value: it would
// change nothing, or it cannot be told.
type After struct {
	Snapshot *router.Snapshot
	Stuck    bool     // apply refuses to begin
	Renew    []string // devices whose preshared key is lost: only peer renew makes one
}

// Applied is the router as `heimweg apply` would leave it.
func Applied(h home.Home, s *router.Snapshot) After {
	p, want := plan.For(h, s, blueprint.Access{})
	if p.Empty() {
		return After{}
	}
	out := After{Stuck: len(p.Blocked) > 0, Renew: p.Needs().Preshared}
	docs, err := p.Edit(s.Configs, madeUp())
	if err != nil {
		return out
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
	out.Snapshot = &c
	return out
}

// madeUp is a key for a router that has none yet, as apply would make one. It
// stands for the real one, which nobody here knows, and never leaves this package.
func madeUp() plan.Secrets {
	k, _ := key.NewPrivate(bytes.NewReader(bytes.Repeat([]byte{1}, key.Size)))
	return plan.Secrets{Private: k}
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
		was, _ := old.Peer(p.Key)
		was.PublicKey, was.AllowedIPs = p.Key, p.AllowedIPs
		was.Preshared = presharedAfter(s, p)
		t.Peers = append(t.Peers, was)
	}
	return t
}

// presharedAfter is the digest of what the file says: apply makes that live.
func presharedAfter(s *router.Snapshot, p blueprint.LivePeer) string {
	if !p.Preshared {
		return ""
	}
	for _, sec := range s.Config("network").Sections() {
		if v, _ := sec.Get("public_key"); v == p.Key.String() {
			text, _ := sec.Get("preshared_key")
			return router.Digest(text)
		}
	}
	return ""
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
