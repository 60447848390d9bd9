package adopt

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
)

// harmless are options of a hand-made interface that go without anybody noticing:
// what they say is the default, or it means nothing to a tunnel that calls nobody.
var harmless = []string{"auto", "disabled", "defaultroute", "delegate", "force_link", "ipv6", "peerdns", "metric", "tunlink"}

// kept are the options that home.toml has words for, or heimweg's own.
var kept = []string{"proto", "private_key", "listen_port", "addresses", "mtu", "nohostroute"}

// unsayable is what home.toml has no word for, so that a move would change what
// the household has.
func (x *hand) unsayable() []*fault.Fault {
	var out []*fault.Fault
	add := func(f *fault.Fault) { out = append(out, f) }
	for _, o := range x.section.Options {
		if !slices.Contains(kept, o.Name) && !slices.Contains(harmless, o.Name) {
			add(fault.New("adopt-option", "home.toml has no word for the option %s of the tunnel %s", o.Name, x.name).
				At(x.place("network", x.section.Name, o.Name)).
				Do("take it out on the router if nobody needs it (uci delete network.%s.%s), or leave this gateway as it is", x.name, o.Name))
		}
	}
	for _, p := range x.peers {
		if p.joins(x) {
			add(fault.New("adopt-site", "the tunnel %s also joins whole networks, which home.toml has no word for", x.name).
				At(x.place("network", p.section.Name, "")).
				Saw("%s", p.why(x)).
				Do("put that connection into a tunnel interface of its own on the router, or leave this gateway as it is"))
		}
	}
	if _, err := x.network(true); err != nil {
		add(fault.New("adopt-address", "home.toml cannot say the addresses of the tunnel %s", x.name).
			At(x.place("network", x.section.Name, "addresses")).Because("%s", err).
			Do("leave this gateway as it is, or begin anew with another tunnel: heimweg init"))
	}
	if _, n := x.own(false); n > 0 {
		if _, err := x.network(false); err != nil {
			add(fault.New("adopt-address", "home.toml cannot say the IPv6 addresses of the tunnel %s", x.name).
				At(x.place("network", x.section.Name, "addresses")).Because("%s", err).
				Do("take the IPv6 address out on the router if no device uses it, or leave this gateway as it is"))
		}
	}
	return out
}

// network is the tunnel's network of one family. A single address with the mask
// of a host, as some guides have it, stands for the usual network round it.
func (x *hand) network(four bool) (subnet.Network, error) {
	at, n := x.own(four)
	switch {
	case n == 0:
		return subnet.Network{}, fmt.Errorf("the router has no address in it")
	case n > 1:
		return subnet.Network{}, fmt.Errorf("the router has %d addresses in it, and only one has a place in home.toml", n)
	}
	usual := map[bool]int{true: 24, false: 64}[four]
	if at.Bits() > at.Addr().BitLen()-2 {
		at = netip.PrefixFrom(at.Addr(), usual)
	}
	if !four && (at.Bits() != 64 || !at.Addr().IsPrivate()) {
		return subnet.Network{}, fmt.Errorf("%s is not a private network of size /64", at.Masked())
	}
	net := subnet.NetworkOf(at)
	if net.First().Addr() != at.Addr() {
		return net, fmt.Errorf("the router has %s in %s; heimweg gives it the first address, %s, and devices may use the old one", at.Addr(), net, net.First().Addr())
	}
	return net, nil
}

// joins reports whether a peer is no single device that comes home, but another
// network: it is called, or has more behind it than its own address.
func (p peer) joins(x *hand) bool { return p.why(x) != "" }

func (p peer) why(x *hand) string {
	if p.key.IsZero() {
		return ""
	}
	if v, ok := p.section.Get("endpoint_host"); ok && v != "" {
		return "the gateway itself calls " + p.called() + " at " + v
	}
	for _, a := range p.allowed {
		net, _ := x.network(a.typed.Addr().Is4())
		if !net.IsZero() && !net.Contains(a.typed.Addr()) || net.IsZero() && a.typed.Addr().Is4() || a.typed.Bits() == 0 {
			return "behind " + p.called() + " is " + a.typed.Masked().String()
		}
	}
	return ""
}

func (p peer) called() string {
	if p.name == "" && p.key.IsZero() {
		return "a device without a key"
	}
	if p.name != "" {
		return strconv.Quote(p.name)
	}
	return "the peer " + short(p.key)
}

func short(k key.Public) string { return k.String()[:8] + "…" }

// address is the device's address of one family: the first that can be one. The
// whole network, or none, leaves it open.
func (p peer) address(x *hand, four bool) netip.Addr {
	net, _ := x.network(four)
	for _, a := range p.allowed {
		addr := a.typed.Addr()
		if addr.Is4() == four && net.Contains(addr) && (a.host() || addr != a.typed.Masked().Addr()) && addr != net.First().Addr() {
			return addr
		}
	}
	return netip.Addr{}
}

// household writes down what the hand-made tunnel means. left are the peers that
// have no place in it, with the reason.
func (x *hand) household(h *home.Home) (left map[string]string) {
	t := &h.Tunnel
	t.Interface, t.Port = x.name, x.port
	t.Network, _ = x.network(true)
	t.Network6 = subnet.Network{}
	if net, err := x.network(false); err == nil {
		t.Network6 = net
	}
	mtu, _ := x.section.Get("mtu")
	t.MTU, _ = strconv.Atoi(mtu)
	left = map[string]string{}
	h.Peers = nil
	for _, p := range x.peers {
		hp, why := x.device(*h, p)
		if why != "" {
			left[p.section.Name] = why
			continue
		}
		h.Peers = append(h.Peers, hp)
	}
	return left
}

// device is one peer as home.toml has it, or why it has no place there.
func (x *hand) device(h home.Home, p peer) (home.Peer, string) {
	hp := home.Peer{PublicKey: p.key, Address: p.address(x, true), Disabled: p.disabled, Keepalive: home.DefaultKeepalive}
	switch {
	case p.key.IsZero():
		return hp, "it has no key that WireGuard can read"
	case p.joins(x):
		return hp, p.why(x)
	case !hp.Address.IsValid():
		return hp, "it has no address of its own in the tunnel network"
	}
	if !h.Tunnel.Network6.IsZero() {
		hp.Address6 = p.address(x, false)
	}
	for _, other := range h.Peers {
		switch {
		case other.PublicKey == p.key:
			return hp, "it has the key of " + other.Name + ", and WireGuard knows a key once only"
		case other.Address == hp.Address:
			return hp, "it has the address of " + other.Name
		}
	}
	if psk, ok := p.section.Get("preshared_key"); ok {
		_, err := key.ParsePreshared(psk)
		hp.Preshared = err == nil
	}
	hp.Name = freeName(h, home.TidyName(p.name), hp.Address)
	return hp, ""
}

// freeName makes a name unique; a device that nobody named is called after the
// end of its address.
func freeName(h home.Home, name string, a netip.Addr) string {
	if name == "" {
		b := a.AsSlice()
		name = "device-" + strconv.Itoa(int(b[len(b)-1]))
	}
	taken := func(n string) bool {
		return slices.ContainsFunc(h.Peers, func(p home.Peer) bool {
			return p.Name == n || p.Section() == (home.Peer{Name: n}).Section()
		})
	}
	base := strings.TrimRight(name[:min(len(name), 28)], "-_")
	for i := 2; taken(name); i++ {
		name = base + "-" + strconv.Itoa(i)
	}
	return name
}

func (x *hand) place(config, section, option string) fault.Place {
	if x.at != nil {
		return x.at(section, option)
	}
	return fault.Place{File: "/etc/config/" + config, Line: x.snap.Config(config).Line(section, option)}
}
