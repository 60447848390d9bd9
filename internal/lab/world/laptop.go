package world

import (
	"context"
	"net"
	"net/netip"

	"github.com/heimweg/heimweg/internal/lab"
)

// Laptop is the computer that heimweg runs on: a DHCP host that the household
// carries about.
type Laptop struct {
	*lab.Stack
	w  *World
	at *lab.Link
}

func newLaptop(w *World) *Laptop {
	l := &Laptop{Stack: lab.NewStack(w.World, "laptop"), w: w}
	l.AtHome()
	return l
}

// AtHome plugs the laptop into the home LAN.
func (l *Laptop) AtHome() { l.sit(l.w.Home) }

// OnUplink plugs the laptop into the ISP router's LAN. Without one it does nothing.
func (l *Laptop) OnUplink() {
	if l.w.Uplink != nil {
		l.sit(l.w.Uplink)
	}
}

// Tethered hangs the laptop on a phone's mobile data, away from home.
func (l *Laptop) Tethered() {
	l.sit(nil)
	p := l.w.MobileData()
	addr := p.Addr
	if l.w.Carrier != nil {
		addr = nth(addr, 99) // next to the phone
	}
	i := lab.Iface{Dev: "eth0", Link: p.Link, Addrs: prefixes(addr)}
	routes := []lab.Route{{Dst: everything, Via: p.Gateway, Dev: "eth0"}}
	if p.Addr6.IsValid() {
		i.Addrs = append(i.Addrs, lab.HostIn(p.Addr6, l.Name()))
		routes = append(routes, lab.Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: p.Gateway6, Dev: "eth0"})
	}
	l.Configure([]lab.Iface{i}, routes)
}

func (l *Laptop) sit(link *lab.Link) {
	if l.at != nil {
		l.at.WatchLeases(l.Stack, nil)
	}
	l.at = link
	if link != nil {
		l.FollowLeases(link, "eth0")
	}
}

// WaitAddress waits until DHCP has given the laptop an address where it sits.
func (l *Laptop) WaitAddress(ctx context.Context) error {
	return l.WaitAddr(ctx, everything)
}

// Dial fits every edge that takes its way out as an argument.
func (l *Laptop) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return l.Stack.Dial(ctx, network, address)
}
