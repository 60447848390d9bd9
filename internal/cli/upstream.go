package cli

import (
	"context"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/openway"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uplink"
)

// upstreamTime is how long the ISP router is asked for what trace would like to
// know of it.
const upstreamTime = 5 * time.Second

// upstream is what the ISP router says of itself. It is only asked to tell: the
// languages in which one can but demand are left out.
func (a *app) upstream(ctx context.Context, v *visit) trace.Upstream {
	h, snap := v.file.Home, v.Snapshot()
	switch {
	case a.Upstream != nil:
		return a.Upstream(ctx, h, snap)
	case h.Uplink.Kind == home.Direct:
		return trace.Upstream{}
	case h.Uplink.Mapping == home.ByHand:
		return trace.Upstream{Why: "home.toml says that a person opens the port, so the ISP router is not asked"}
	}
	gateway := openway.Gateway(h, snap)
	if !gateway.IsValid() {
		return trace.Upstream{Why: "the home router knows no way to the ISP router"}
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamTime)
	defer cancel()
	o := uplink.Options{Gateway: gateway, Only: []uplink.Protocol{uplink.UPnP}}
	if m := v.Plan(v.request).Mapping; m != nil {
		o.Client = m.To
	}
	o.Direct, o.Via = a.ispWays(v)
	g, err := uplink.Ask(ctx, o)
	if err != nil {
		return trace.Upstream{Why: err.Error()}
	}
	list, err := g.List(ctx)
	if err != nil {
		return trace.Upstream{Why: err.Error(), Public: g.Public}
	}
	u := trace.Upstream{Asked: true, Partial: true, How: string(uplink.UPnP), At: snap.Time, Public: g.Public}
	for _, m := range list {
		if !m.Disabled && !m.Remote.IsValid() {
			u.Mappings = append(u.Mappings, trace.Mapping{Proto: m.Proto, External: m.External, To: m.To})
		}
	}
	if records, err := a.records(); err == nil { // else it is not known what we opened
		u.Opened, u.Ended = records.Lost(gateway, "udp", h.Tunnel.CallPort(), list, a.Now())
	}
	return u
}
