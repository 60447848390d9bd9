// Package world assembles a whole emulated home, and a bit of the world round
// it, in one call: a NAS and a laptop on the home LAN, the home router, the ISP
// router with its uplink LAN, the internet with a web page, mobile data with a
// carrier's NAT, a hotel, and a phone.
//
//	NAS .10 ─┐                                                    ┌─ web page 192.0.2.80
//	laptop ──┴ home LAN ─ home router ─ uplink LAN ─ ISP router ─ internet ─ mobile ─ phone
//	           192.168.1.0/24   .253   192.168.2.0/24   203.0.113.7       └─ hotel ─ tethered laptop
//
// With Direct the ISP router is missing and the home router has the public
// address; with OneArmed the home router, the NAS and the laptop all sit in the
// ISP router's LAN. Who wants to break something takes the part in question (a
// link to cut, the ISP router's mapping, the phone's configuration) and breaks it.
//
// Options.Real decides what runs on real time: with it the devices speak real
// WireGuard and gVisor's TCP/IP and there is a phone; without it everything fits
// into a testing/synctest bubble, and there is no phone.
package world

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/dyndns"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
	"github.com/heimweg/heimweg/internal/lab/nas"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/phone"
	"github.com/heimweg/heimweg/internal/router"
)

// Addresses and names of the emulated world. Documentation addresses play the
// public ones.
var (
	Public    = netip.MustParsePrefix("203.0.113.7/24") // the household's
	provider  = netip.MustParsePrefix("203.0.113.1/24")
	HomeLAN   = netip.MustParsePrefix("192.168.1.0/24")
	SecondLAN = netip.MustParsePrefix("192.168.3.0/24")
	UplinkLAN = netip.MustParsePrefix("192.168.2.0/24")
	uplinkISP = netip.MustParsePrefix("192.168.2.254/24")
	UplinkWAN = netip.MustParseAddr("192.168.2.253") // the home router in the uplink LAN

	Website = netip.MustParsePrefix("192.0.2.80/24")
	hosting = netip.MustParsePrefix("192.0.2.1/24")

	carrierPublic = netip.MustParsePrefix("198.51.100.2/24")
	carrierGate   = netip.MustParsePrefix("198.51.100.1/24")
	carrierInside = netip.MustParsePrefix("100.64.0.1/10")
	phoneInside   = netip.MustParsePrefix("100.64.7.7/10")
	hotelGate     = netip.MustParsePrefix("198.18.5.1/24")
	hotelPhone    = netip.MustParsePrefix("198.18.5.20/24")
	hotelLaptop   = netip.MustParsePrefix("198.18.5.30/24")
)

// EndpointName is what public DNS says for the household's public address.
const EndpointName = "home.example.net"

// WebsiteGreeting is how the web page on the internet begins.
const WebsiteGreeting = "hello from the internet"

// Upstream is how the provider connects the household.
type Upstream int

// The connections. The zero value is the best one.
const (
	PublicIPv4 Upstream = iota // the ISP router has a public address
	DoubleNAT                  // one more router of the household in front of the ISP router
	CGNAT                      // the provider shares one public address; the ISP router is in 100.64.0.0/10
	DSLite                     // no IPv4 address; IPv4 goes through a tunnel to the provider's NAT; native IPv6
	IPv6Only                   // no IPv4 towards the internet at all
)

// Options of a world. The zero value is the usual home: behind an ISP router,
// one LAN, newest release, no real time.
type Options struct {
	Line   router.Line // zero: the newest
	Uplink home.Kind
	LANs   int // 1 or 2; 0 means 1
	Seed   uint64
	Real   bool // real WireGuard and gVisor, a phone; not in a bubble

	// Router is a template for the box: its faults, feeds, flash and files. Line,
	// Name, Cables and Real are set from the rest.
	Router owrt.Options

	// FromStock puts a boxed AVM device in the home router's place, switched off,
	// with the maker's firmware on it: see World.Device. Device is a template for
	// it; its link and cables, and Router above, are set from the rest. The home
	// router's line is that of the image that somebody flashes.
	FromStock bool
	Device    device.Options

	// Upstream is how the provider connects the household; what differs from
	// PublicIPv4 needs an ISP router. IPv6 gives the line IPv6, too; DSLite and
	// IPv6Only have it always.
	Upstream Upstream
	IPv6     bool

	NASWithoutGateway bool // the NAS answers its own network only
	NoCarrierNAT      bool // the phone has a public address
	Hairpin           bool // the ISP router can hairpin

	DDNS bool // somebody keeps EndpointName for the household, at DDNSHost

	// IGD is what the ISP router lets programs ask for; nil: nothing answers.
	IGD *igd.Options
}

// World is the assembled world.
type World struct {
	*lab.World
	Options Options

	Home, Second, Uplink, ISPLine, Mobile, Hotel *lab.Link // Second and Uplink may be nil

	// Router is the OpenWrt box. With FromStock it is there from the start, but has
	// neither power nor addresses before somebody has flashed the device.
	Router    *owrt.Box
	Device    *device.Box // nil without FromStock
	Internet  *lab.Stack
	ISP       *ispbox.Box // nil with Direct
	Front     *ispbox.Box // what translates in front of the ISP router: the household's, or the provider's; usually nil
	IGD       *igd.Server // on the ISP router; nil without Options.IGD
	DDNS      *dyndns.Service
	Carrier   *ispbox.Box // nil with NoCarrierNAT
	NAS       *nas.Box
	SecondNAS *nas.Box // in the second LAN; nil without one
	Web       *nas.Box
	Phone     *phone.Phone // nil without Real
	Laptop    *Laptop
	Outside   *lab.Stack // a laptop in a hotel, for looking at the home from outside

	router  *lab.Stack // the home router's
	station *Station
	line6   line6
	closers []func()

	mu      sync.Mutex
	closing bool
	moves   sync.WaitGroup // of a NAS to another address
}

// assemble builds everything round the home router, which plug puts in: it gets
// the half-made world and returns the router's stack.
func assemble(opt Options, plug func(*World) (*lab.Stack, error)) (*World, error) {
	if opt.Line == (router.Line{}) {
		opt.Line = router.Lines()[len(router.Lines())-1]
	}
	if opt.LANs == 0 {
		opt.LANs = 1
	}
	if opt.LANs > 1 && opt.Uplink == home.OneArmed {
		return nil, fmt.Errorf("a one-armed home router has one LAN, not %d", opt.LANs)
	}
	w := &World{World: lab.New(opt.Seed), Options: opt}
	w.closers = append(w.closers, w.World.Close)
	if err := w.checkUpstream(); err != nil {
		return nil, err
	}
	w.layLinks()
	w.buildInternet()
	w.buildUplink()
	err := w.buildIGD()
	if err == nil {
		err = w.buildDDNS()
	}
	if err == nil {
		w.router, err = plug(w)
	}
	if err == nil {
		err = w.buildHome()
	}
	if err == nil {
		err = w.buildTravel()
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *World) layLinks() {
	w.ISPLine, w.Mobile, w.Hotel = w.Link("ISP line"), w.Link("mobile network"), w.Link("hotel")
	switch w.Options.Uplink {
	case home.Behind:
		w.Uplink, w.Home = w.Link("uplink LAN"), w.Link("home LAN")
	case home.OneArmed:
		w.Home = w.Link("home LAN")
		w.Uplink = w.Home // they are the same: the ISP router's LAN
	default:
		w.Home = w.Link("home LAN")
	}
	if w.Options.LANs > 1 {
		w.Second = w.Link("second LAN")
	}
}

func (w *World) buildInternet() {
	w.Internet = lab.NewStack(w.World, "internet")
	carrier := w.Link(carrierLink)
	w.line6 = firstLine6
	w.routeInternet()
	w.Internet.SetForwarding(true)
	lab.ServeDNS(w.Internet, nil)
	if w.Options.NoCarrierNAT {
		w.Mobile = carrier
	} else {
		opt := ispbox.Options{
			Name: "mobile carrier", LAN: w.Mobile, LANAddr: carrierInside,
			WAN: carrier, WANAddr: carrierPublic, Gateway: carrierGate.Addr(), Scramble: true,
		}
		if w.hasIPv6() {
			opt.IPv6 = &ispbox.IPv6{LAN: mobileGate6, WAN: carrier6, Gateway: carrierGate6.Addr()}
		}
		w.Carrier = ispbox.New(w.World, opt)
	}
	w.Outside = lab.NewStack(w.World, "tethered laptop")
	w.Outside.Configure(
		[]lab.Iface{{Dev: "eth0", Link: w.Hotel, Addrs: []netip.Prefix{hotelLaptop}}},
		[]lab.Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: hotelGate.Addr(), Dev: "eth0"}})
}

// RouterName is the home router's name in the record and for DHCP.
const RouterName = "home router"

// buildUplink is the provider's side of the home router. Without an ISP router
// the provider gives the public address to whoever hangs on the line.
func (w *World) buildUplink() {
	defer w.nameHome()
	if w.Options.Uplink == home.Direct {
		w.ISPLine.ServeLeases(w.Internet, func(string) (lab.Lease, bool) {
			return lab.Lease{Addr: Public, Gateway: provider.Addr(), DNS: []netip.Addr{provider.Addr()}}, true
		})
		return
	}
	opt := ispbox.Options{
		LAN: w.Uplink, LANAddr: uplinkISP, WAN: w.ISPLine, WANAddr: Public, Gateway: provider.Addr(),
		Hairpin: w.Options.Hairpin, Fixed: map[string]netip.Addr{RouterName: UplinkWAN},
	}
	w.connect(&opt)
	w.ISP = ispbox.New(w.World, opt)
}

// buildIGD lets programs ask the ISP router for ports.
func (w *World) buildIGD() error {
	if w.ISP == nil || w.Options.IGD == nil {
		return nil
	}
	opt := *w.Options.IGD
	if w.Options.Upstream == DSLite || w.Options.Upstream == IPv6Only {
		opt.Faults.NoPublic = true
	}
	if opt.Pinhole == nil && w.hasIPv6() {
		opt.Pinhole = w.openPinholes
	}
	var err error
	if w.IGD, err = igd.New(w.ISP, nil, opt); err == nil {
		w.closers = append(w.closers, w.IGD.Close)
	}
	return err
}

// buildHome puts the NAS and the laptop onto the home LAN.
func (w *World) buildHome() error {
	network, gateway := HomeLAN, netip.MustParseAddr("192.168.1.1")
	if w.Options.Uplink == home.OneArmed {
		network, gateway = UplinkLAN, uplinkISP.Addr()
	}
	if w.Options.NASWithoutGateway {
		gateway = netip.Addr{}
	}
	var err error
	if w.NAS, err = w.newNAS(nas.Options{Link: w.Home, Addr: nth(network, 10), Gateway: gateway}); err != nil {
		return err
	}
	if w.Second != nil {
		opt := nas.Options{Name: "second NAS", Link: w.Second, Addr: nth(SecondLAN, 10), Gateway: nth(SecondLAN, 1).Addr()}
		if w.SecondNAS, err = w.newNAS(opt); err != nil {
			return err
		}
	}
	w.follow(w.NAS, w.Home)
	w.Laptop = newLaptop(w)
	return nil
}

// follow lets a NAS keep its place, number 10, when its LAN gets another network:
// the household has told the router so (a static lease).
func (w *World) follow(b *nas.Box, link *lab.Link) {
	link.WatchLeases(b.Stack(), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.closing {
			return
		}
		w.moves.Go(func() {
			lease, ok := link.AskLease(b.Stack())
			if !ok || lease.Addr.Masked().Contains(b.Addr()) {
				return
			}
			gateway := lease.Gateway
			if w.Options.NASWithoutGateway {
				gateway = netip.Addr{}
			}
			b.Move(nth(lease.Addr.Masked(), 10), gateway) // fails only without power
		})
	})
}

func (w *World) newNAS(opt nas.Options) (*nas.Box, error) {
	opt.Plain = !w.Options.Real
	b, err := nas.New(w.World, opt)
	if b != nil {
		w.closers = append(w.closers, b.Close)
	}
	return b, err
}

// nth is the n-th address of a /24, with the network's length.
func nth(network netip.Prefix, n byte) netip.Prefix {
	a := network.Addr().As4()
	a[3] = n
	return netip.PrefixFrom(netip.AddrFrom4(a), network.Bits())
}

// buildTravel makes what is outside: a web page, and the phone on mobile data.
func (w *World) buildTravel() error {
	err := w.buildStation()
	if err != nil {
		return err
	}
	opt := nas.Options{Name: "web page", Link: w.Link("hosting"), Addr: Website, Gateway: hosting.Addr(), Greet: WebsiteGreeting}
	if w.Web, err = w.newNAS(opt); err != nil {
		return err
	}
	if w.Options.Real {
		w.Phone = phone.New(w.World, "", w.MobileData())
		w.closers = append(w.closers, w.Phone.Close)
	}
	return nil
}

// MobileData is the place of a phone that is out and about.
func (w *World) MobileData() phone.Place {
	if w.Carrier == nil {
		return phone.Place{Link: w.Mobile, Addr: carrierPublic, Gateway: carrierGate.Addr()}
	}
	p := phone.Place{Link: w.Mobile, Addr: phoneInside, Gateway: carrierInside.Addr()}
	if w.hasIPv6() {
		p.Addr6, p.Gateway6 = lab.HostIn(mobileGate6, "phone"), mobileGate6.Addr()
	}
	return p
}

// AtHotel is another place for the phone.
func (w *World) AtHotel() phone.Place {
	return phone.Place{Link: w.Hotel, Addr: hotelPhone, Gateway: hotelGate.Addr()}
}

// RouterLAN is the home router's address on the home LAN now: where SSH is.
func (w *World) RouterLAN() (netip.Addr, bool) { return w.firstAddr(w.Home) }

// RouterWAN is the home router's address towards the ISP: where port mappings
// must lead. One-armed it is the same as RouterLAN.
func (w *World) RouterWAN() (netip.Addr, bool) {
	if w.Uplink == nil {
		return w.firstAddr(w.ISPLine)
	}
	return w.firstAddr(w.Uplink)
}

func (w *World) firstAddr(l *lab.Link) (netip.Addr, bool) {
	for _, i := range w.router.Ifaces() {
		if i.Link == l {
			for _, a := range i.Addrs {
				if a.Addr().Is4() {
					return a.Addr(), true
				}
			}
		}
	}
	return netip.Addr{}, false
}

// MapPort is the lab's hand on the ISP router: the UDP port leads to the home
// router. Without an ISP router nothing is to be done.
func (w *World) MapPort(port uint16) error {
	if w.ISP == nil {
		return nil
	}
	to, ok := w.RouterWAN()
	if !ok {
		return fmt.Errorf("the home router has no address on %s", w.Uplink.Name())
	}
	w.ISP.Map("udp", port, netip.AddrPortFrom(to, port))
	return nil
}

// Endpoint is where a peer outside calls.
func (w *World) Endpoint(port uint16) netip.AddrPort {
	a := Public.Addr()
	if w.ISP != nil {
		a = w.ISP.Public()
	}
	return netip.AddrPortFrom(a, port)
}

// LaptopDial is the way out for whatever the household runs on its laptop, such
// as heimweg's SSH.
func (w *World) LaptopDial(ctx context.Context, network, address string) (net.Conn, error) {
	return w.Laptop.Dial(ctx, network, address)
}

// OutsideBind is the socket of a WireGuard peer on the tethered laptop.
func (w *World) OutsideBind() conn.Bind { return lab.NewBind(w.Outside, 0) }

// LaptopBind is the socket of a WireGuard peer on the laptop, wherever it sits.
func (w *World) LaptopBind() conn.Bind { return lab.NewBind(w.Laptop.Stack, 0) }

// Fates is the record of every packet.
func (w *World) Fates() []lab.Fate { return w.Record() }

// WhereDied tells, newest first, the places and reasons at which packets died
// that match; it is what a failed test prints.
func (w *World) WhereDied(match func(lab.Packet) bool) string {
	deaths := w.Deaths()
	var b strings.Builder
	said := map[string]bool{}
	for i := len(deaths) - 1; i >= 0; i-- {
		f := deaths[i]
		if match != nil && !match(f.Packet) {
			continue
		}
		key := f.Where + f.Hook + f.Why + fmt.Sprint(f.Packet.Proto, f.Packet.Src, f.Packet.Dst, f.Packet.DstPort)
		if !said[key] {
			said[key] = true
			fmt.Fprintln(&b, f)
		}
	}
	if b.Len() == 0 {
		return "no such packet died\n"
	}
	return b.String()
}

// Close switches the world off.
func (w *World) Close() {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	w.moves.Wait()
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
	w.closers = nil
}
