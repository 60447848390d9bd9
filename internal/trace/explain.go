package trace

import (
	"net/netip"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// An Explanation is how WireGuard chooses, told with a household's own devices.
type Explanation struct {
	Router  string        `json:"router"`  // the router's address in the tunnel
	Devices []DeviceEntry `json:"devices"` // the router's table
	AtHome  []string      `json:"at_home"` // what the devices send into the tunnel
	Choices []Choice      `json:"choices"`
	Sources []Source      `json:"sources"`
	OneKey  []string      `json:"one_key,omitempty"` // devices that share one
}

// DeviceEntry is one line of the router's table.
type DeviceEntry struct {
	Name     string   `json:"name"`
	Key      string   `json:"key"` // the beginning of the public key
	Allowed  []string `json:"allowed_ips"`
	Disabled bool     `json:"disabled,omitempty"`
}

// Choice is a packet that the router sends into the tunnel.
type Choice struct {
	To      string `json:"to"`
	Peer    string `json:"peer,omitempty"` // "": nobody, dropped
	Network string `json:"network,omitempty"`
}

// Source is a packet that came out of the tunnel.
type Source struct {
	Peer    string `json:"peer"`
	From    string `json:"from"`
	Allowed bool   `json:"allowed"`
	Owner   string `json:"owner,omitempty"` // whose address it is
}

// Explain takes the examples from home.toml: each device as it is on the road,
// one address that nobody has, and one device that pretends to be another.
func Explain(h home.Home) Explanation {
	e := Explanation{Devices: []DeviceEntry{}, Choices: []Choice{}, Sources: []Source{}}
	for _, n := range wgconf.AllowedIPs(h) {
		e.AtHome = append(e.AtHome, n.String())
	}
	if !h.Tunnel.Network.IsZero() {
		e.Router = h.Tunnel.Network.First().Addr().String()
	}
	table := &cryptokey.Table{}
	names := map[string]string{}
	for _, p := range h.Peers {
		d := DeviceEntry{Name: p.Name, Key: p.PublicKey.Short(), Allowed: []string{}, Disabled: p.Disabled}
		var own []netip.Prefix
		for _, a := range []netip.Addr{p.Address, p.Address6} {
			if a.IsValid() {
				own = append(own, netip.PrefixFrom(a, a.BitLen()))
				d.Allowed = append(d.Allowed, own[len(own)-1].String())
			}
		}
		e.Devices = append(e.Devices, d)
		if p.Disabled {
			continue
		}
		if other, taken := names[p.PublicKey.String()]; taken {
			e.OneKey = append(e.OneKey, other, p.Name)
		}
		names[p.PublicKey.String()] = p.Name
		table.Set(p.PublicKey, own)
	}
	e.examples(h, table, names)
	return e
}

func (e *Explanation) examples(h home.Home, table *cryptokey.Table, names map[string]string) {
	ask := func(a netip.Addr) {
		c := Choice{To: a.String()}
		if k, n, ok := table.Choose(a); ok {
			c.Peer, c.Network = names[k.String()], n.String()
		}
		e.Choices = append(e.Choices, c)
	}
	var first, second *home.Peer
	for i := range h.Peers {
		p := &h.Peers[i]
		if p.Disabled || !p.Address.IsValid() {
			continue
		}
		switch {
		case first == nil:
			first = p
		case second == nil:
			second = p
		}
		if len(e.Choices) < 3 {
			ask(p.Address)
		}
	}
	if h.Tunnel.Network.IsZero() {
		return
	}
	if free, err := h.NextPeer("nobody", key.Public{}); err == nil {
		ask(free.Address)
	}
	if first == nil {
		return
	}
	judge := func(p *home.Peer, src netip.Addr) {
		a := table.Judge(p.PublicKey, src)
		s := Source{Peer: p.Name, From: src.String(), Allowed: a.Allowed}
		if !a.Owner.IsZero() {
			s.Owner = names[a.Owner.String()]
		}
		e.Sources = append(e.Sources, s)
	}
	judge(first, first.Address)
	switch {
	case second != nil:
		judge(first, second.Address)
	case len(h.LANs) > 0:
		judge(first, h.LANs[0].Network.Host(10).Addr())
	}
}
