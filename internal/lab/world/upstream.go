package world

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
)

// Addresses of the connections that are not simply public IPv4.
var (
	shared      = netip.MustParsePrefix("203.0.113.200/24") // one public address for many customers
	carrierISP  = netip.MustParsePrefix("100.64.5.7/10")    // the ISP router behind the provider's NAT
	carrierNAT  = netip.MustParsePrefix("100.64.0.1/10")
	frontISP    = netip.MustParsePrefix("192.168.178.20/24") // the ISP router behind a modem that routes
	frontInside = netip.MustParsePrefix("192.168.178.1/24")
	b4          = netip.MustParsePrefix("192.0.0.2/29") // RFC 6333: the customer's end of DS-Lite
	aftr        = netip.MustParsePrefix("192.0.0.1/29")

	provider6    = netip.MustParsePrefix("2001:db8:1::1/64")
	hosting6     = netip.MustParsePrefix("2001:db8:80::1/64")
	carrierGate6 = netip.MustParsePrefix("2001:db8:c::1/64")
	carrier6     = netip.MustParsePrefix("2001:db8:c::2/64")
	mobileGate6  = netip.MustParsePrefix("2001:db8:c0::1/64")
	mobile6      = netip.MustParsePrefix("2001:db8:c0::/64")
)

const carrierLink = "carrier"

// line6 is what the provider gives a household of IPv6: an address for the ISP
// router, and a network for the household, which changes with every connection.
type line6 struct{ wan, lan netip.Prefix }

var (
	firstLine6  = line6{netip.MustParsePrefix("2001:db8:1::7/64"), netip.MustParsePrefix("2001:db8:7::1/64")}
	secondLine6 = line6{netip.MustParsePrefix("2001:db8:1::5a/64"), netip.MustParsePrefix("2001:db8:5a::1/64")}
	secondIPv4  = netip.MustParsePrefix("203.0.113.90/24")
)

// hasIPv6 reports whether the line, the internet and mobile data have IPv6.
func (w *World) hasIPv6() bool {
	return w.Options.IPv6 || w.Options.Upstream == DSLite || w.Options.Upstream == IPv6Only
}

func (w *World) checkUpstream() error {
	o := w.Options
	switch {
	case o.Uplink == home.Direct && (o.Upstream != PublicIPv4 || o.IPv6):
		return errors.New("this connection needs an ISP router")
	case o.Uplink == home.OneArmed && w.hasIPv6():
		return errors.New("a one-armed home router has no WAN side for IPv6")
	case o.Upstream == DoubleNAT && o.IPv6:
		return errors.New("two routers in a row do not pass IPv6 on here")
	}
	return nil
}

// routeInternet gives the internet its networks and, with IPv6, the ways to the
// household and to mobile data.
func (w *World) routeInternet() {
	ifaces := []lab.Iface{
		{Dev: "line", Link: w.ISPLine, Addrs: []netip.Prefix{provider}},
		{Dev: "hosting", Link: w.Link("hosting"), Addrs: []netip.Prefix{hosting}},
		{Dev: "carrier", Link: w.Link(carrierLink), Addrs: []netip.Prefix{carrierGate}},
		{Dev: "hotel", Link: w.Hotel, Addrs: []netip.Prefix{hotelGate}}, // IPv4 only, as hotels are
	}
	var routes []lab.Route
	if w.hasIPv6() {
		for i, a := range []netip.Prefix{provider6, hosting6, carrierGate6} {
			ifaces[i].Addrs = append(ifaces[i].Addrs, a)
		}
		routes = []lab.Route{
			{Dst: w.line6.lan.Masked(), Via: w.line6.wan.Addr(), Dev: "line"},
			{Dst: mobile6, Via: carrier6.Addr(), Dev: "carrier"},
		}
	}
	w.Internet.Configure(ifaces, routes)
}

// connect changes an ISP router with a public address into one of this world's
// connection, and builds what stands in front of it.
func (w *World) connect(opt *ispbox.Options) {
	if w.hasIPv6() {
		opt.IPv6 = w.ipv6()
	}
	front := ispbox.Options{WAN: w.ISPLine, WANAddr: shared, Gateway: provider.Addr()}
	switch w.Options.Upstream {
	case DoubleNAT:
		front.Name, front.LANAddr, front.WANAddr = "modem router", frontInside, Public
		front.LAN = w.Link("modem's LAN")
		opt.WANAddr = frontISP
		front.Fixed = map[string]netip.Addr{"ISP router": frontISP.Addr()}
	case CGNAT:
		front.Name, front.LANAddr, front.Scramble = "provider's NAT", carrierNAT, true
		front.LAN = w.Link("provider's network")
		opt.WANAddr = carrierISP
	case DSLite:
		// The tunnel is a link of its own, which stands for IPv4 inside IPv6. A real
		// ISP router leaves all translating to the provider (RFC 6333, 8.1); from
		// outside that looks the same.
		front.Name, front.LANAddr, front.Scramble = "provider's AFTR", aftr, true
		front.LAN = w.Link("DS-Lite tunnel")
		opt.WANAddr = b4
	case IPv6Only:
		opt.WANAddr, opt.Gateway = netip.Prefix{}, netip.Addr{}
	}
	if front.Name != "" {
		w.Front = ispbox.New(w.World, front)
		opt.WAN, opt.Gateway = front.LAN, front.LANAddr.Addr()
	}
}

func (w *World) ipv6() *ispbox.IPv6 {
	six := &ispbox.IPv6{LAN: w.line6.lan, WAN: w.line6.wan, Gateway: provider6.Addr()}
	if w.Options.Upstream == CGNAT || w.Options.Upstream == DSLite {
		six.Line = w.ISPLine // IPv6 passes by the NAT
	}
	return six
}

// nameHome lets public DNS say what a DynDNS service would: the address that the
// internet sees over IPv4, and the home router's over IPv6. Where nobody can call
// over IPv4 the name has no such record.
func (w *World) nameHome() {
	var addrs []netip.Addr
	switch {
	case w.Options.Upstream == CGNAT && !w.hasIPv6():
		addrs = append(addrs, shared.Addr()) // what a DynDNS service learns from outside
	case w.Options.Upstream == PublicIPv4, w.Options.Upstream == DoubleNAT:
		addrs = append(addrs, w.outer().Addr())
	}
	if w.hasIPv6() {
		addrs = append(addrs, w.HomeIPv6())
	}
	w.Name(EndpointName, addrs...)
}

// outer is the household's public IPv4 address now, or the shared one.
func (w *World) outer() netip.Prefix {
	b := w.Front
	if b == nil {
		b = w.ISP
	}
	if b == nil {
		return Public
	}
	return netip.PrefixFrom(b.Public(), Public.Bits())
}

// HomeIPv6 is the home router's global address on its WAN side; only in worlds
// with IPv6.
func (w *World) HomeIPv6() netip.Addr { return lab.HostIn(w.line6.lan, RouterName).Addr() }

// OpenIPv6 is the lab's hand on the ISP router's IPv6 firewall: the home router
// may be called on this UDP port.
func (w *World) OpenIPv6(port uint16) { w.ISP.Open("udp", port, w.HomeIPv6()) }

// openPinholes does what programs asked the ISP router for.
func (w *World) openPinholes(list []igd.Pinhole) {
	var out []ispbox.Pinhole
	for _, p := range list {
		out = append(out, ispbox.Pinhole{Proto: p.Proto, To: p.To})
	}
	w.ISP.SetPinholes(out)
}

// Reconnect cuts the line and connects anew, as many providers do every night:
// the household gets another public IPv4 address and another IPv6 network. Names
// still say the old ones until UpdateName.
func (w *World) Reconnect() error {
	switch {
	case w.ISP == nil, w.Front != nil && w.Options.Upstream != DoubleNAT:
		return fmt.Errorf("the address of this connection does not change")
	case w.Options.Upstream == DoubleNAT:
		w.Front.SetPublic(secondIPv4, provider.Addr())
	case w.Options.Upstream == PublicIPv4:
		w.ISP.SetPublic(secondIPv4, provider.Addr())
	}
	if w.hasIPv6() {
		w.line6 = secondLine6
		w.routeInternet()
		w.ISP.SetIPv6(w.ipv6())
	}
	return nil
}

// UpdateName is a DynDNS client's work, done by the lab's hand.
func (w *World) UpdateName() { w.nameHome() }
