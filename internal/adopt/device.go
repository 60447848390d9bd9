package adopt

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// Learn takes from a device's own configuration what no router knows: the name or
// address that devices call, and their name servers. name is what the device shall
// be called, "" for the name it has. server is the gateway's public key, zero when
// it is not known. notes say what in the file does not fit the gateway.
//
// The error is a *fault.Fault: the file calls another gateway, or the gateway does
// not know the device.
func Learn(h home.Home, file, name string, c wgconf.Conf, server key.Public) (out home.Home, notes []string, err error) {
	if !server.IsZero() && c.Peer.PublicKey != server {
		return h, nil, fault.NewUsage("other-gateway", "%s calls another gateway", file).
			Because("the public key in it is not that of this tunnel").Do("leave it out, or name the right router")
	}
	i := whose(h, c)
	if i < 0 {
		return h, nil, fault.NewUsage("stranger", "the gateway does not know the device that %s describes", file).
			Because("no device of the gateway has its key").Do("leave it out")
	}
	h.Peers = slices.Clone(h.Peers)
	p := &h.Peers[i]
	if name = home.TidyName(name); name != "" {
		if at := slices.IndexFunc(h.Peers, func(o home.Peer) bool { return o.Section() == (home.Peer{Name: name}).Section() }); at < 0 {
			p.Name = name
		}
	}
	p.Keepalive = c.Peer.Keepalive
	notes = calls(&h, c, p.Name)
	if !slices.Contains(c.Interface.Addresses, netip.PrefixFrom(p.Address, 32)) && !holds(c.Interface.Addresses, p.Address) {
		notes = append(notes, fmt.Sprintf("%s has another address in %s than the gateway lets it use, %s", p.Name, file, p.Address))
	}
	return h, notes, nil
}

// whose finds the device by its key, or where it keeps that to itself, by address.
func whose(h home.Home, c wgconf.Conf) int {
	if !c.Interface.PrivateKey.IsZero() {
		public := c.Interface.PrivateKey.Public()
		return slices.IndexFunc(h.Peers, func(p home.Peer) bool { return p.PublicKey == public })
	}
	return slices.IndexFunc(h.Peers, func(p home.Peer) bool { return holds(c.Interface.Addresses, p.Address) })
}

func holds(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr() == a })
}

// calls notes where the device calls, and whether it sends more home than home
// lets through.
func calls(h *home.Home, c wgconf.Conf, name string) (notes []string) {
	t := &h.Tunnel
	switch {
	case c.Peer.Endpoint == "":
	case t.Endpoint == "":
		t.Endpoint = c.Peer.Endpoint
		if c.Peer.Port != t.Port {
			t.EndpointPort = c.Peer.Port
		}
	case t.Endpoint != c.Peer.Endpoint || t.CallPort() != c.Peer.Port:
		notes = append(notes, fmt.Sprintf("%s calls %s:%d, and another device calls %s:%d", name, c.Peer.Endpoint, c.Peer.Port, t.Endpoint, t.CallPort()))
	}
	if slices.ContainsFunc(c.Peer.AllowedIPs, func(p netip.Prefix) bool { return p.Bits() == 0 && p.Addr().Is4() }) && !h.Reach.Internet {
		notes = append(notes, name+" sends all its traffic home, and nothing of it is let out to the internet there: it has no internet while the tunnel is on")
	}
	var servers []string
	own := t.Network.First().Addr()
	for _, s := range c.Interface.DNS {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
		case a == own:
			servers = append(servers, home.DNSRouter)
		default:
			servers = append(servers, a.String())
		}
	}
	h.DNS.Servers = servers
	if len(servers) == 0 {
		h.DNS.Search = nil
	}
	return notes
}
