// Package blueprint draws what a household's home router should look like: from
// home.toml and what is known about the router it computes the UCI sections, the
// packages and the port mapping that we want.
//
// It is a drawing, not a comparison: it does not know what is on the router
// beyond the few facts of router.Site, decides nothing about order and changes
// nothing. It never holds a secret; where one belongs it puts a marker (Keep),
// which package plan replaces by what the router has, or asks for.
//
// Background. OpenWrt keeps its configuration in UCI files, lists of sections
// with options. A WireGuard interface is a section of type interface in config
// network; each peer is a section of type wireguard_IFACE beside it. The
// firewall sorts interfaces into zones; a zone has a policy for packets to the
// router (input), from it (output) and between its own interfaces (forward);
// a forwarding section lets one zone reach another; a rule makes an exception;
// a nat section rewrites source addresses, and its src is the zone that packets
// leave through. Sections are owned by name: ours begin with hw_ (and the
// interface carries a mark), all others stay as they are.
//
// The decisions and their sources are in facts: OpenWrt sections 5, 6 and 7, and
// observed sections 2, 3 and 8; each is repeated where it is used.
package blueprint

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Zone is the name of the firewall zone that holds the tunnel. At most 11
// characters are allowed (facts: OpenWrt section 2, FW3 zones.h).
const Zone = "vpn"

// Names of our sections. Those in config firewall that depend on a zone or
// an interface begin with the last three.
const (
	SectionZone     = "hw_zone"
	SectionIn       = "hw_wg_in"
	SectionDNS      = "hw_dns"
	SectionPing     = "hw_ping"
	SectionPing6    = "hw_ping6"
	SectionAdmin    = "hw_admin"
	SectionUplink   = "hw_uplink"
	SectionNoUplink = "hw_no_uplink"
	SectionInternet = "hw_fwd_wan"
	SectionNAT6     = "hw_nat_wan6"
	ForwardPrefix   = "hw_fwd_"
	NATPrefix       = "hw_nat_"
)

// Want is what the home router should have.
type Want struct {
	Sections []Owned   // ours, in the order in which they are to be made
	Adjust   []Adjust  // single options in sections that are not ours
	Packages []Package // to be installed when missing
	Mapping  *Mapping  // at the ISP router; nil when there is none in front
	Peers    []LivePeer
	Tunnel   LiveTunnel
	LANs     []LAN
	Access   Access // not drawn: filled in by the caller, who knows the person's key
	Notes    []Note
	// Retire, not drawn either, are sections that somebody made by hand and that ours
	// take the place of: "network.cfg0a92bd" → why (see package adopt).
	Retire map[string]string
}

// Owned is one section of ours. An option whose only value is Keep stands for a
// secret that the router keeps.
type Owned struct {
	Config  string
	Section uci.Section
	Peer    string // name of the peer, for a peer's section
	Why     string // for people
}

// Keep is the marker for a secret: keep what the router has, else it has to be
// supplied. It is an empty hidden value, which no real option can have.
func Keep() uci.Value { return uci.Hidden("") }

// IsKeep reports whether an option is only the marker.
func IsKeep(o uci.Option) bool {
	return !o.List && len(o.Values) == 1 && o.Values[0].IsSecret() && o.Values[0].Reveal() == ""
}

// Adjust is one option of a section that is not ours, changed because home.toml
// says so. Section may be of the form @type[n].
type Adjust struct {
	Config, Section, Option string
	List                    bool
	Values                  []string // none: the option is to go
	Why                     string
	// Cuts: the change takes away the address that people, and we, use to reach
	// the router.
	Cuts bool
}

// Package is one package to have. Any of Or will do in its place.
type Package struct {
	Name string
	Or   []string
	Why  string
}

// Mapping is the port mapping that the ISP router needs: External on its public
// side to Internal on the home router.
type Mapping struct {
	Proto    string     `json:"proto"` // "udp"
	External uint16     `json:"external"`
	Internal uint16     `json:"internal"`
	To       netip.Addr `json:"to"` // the home router as the ISP router sees it; invalid when not known
}

// LivePeer is what WireGuard itself should know about one peer.
type LivePeer struct {
	Name       string
	Section    string // in config network
	Key        key.Public
	Preshared  bool
	Disabled   bool
	AllowedIPs []netip.Prefix
}

// LiveTunnel is what the tunnel's interface should look like when it is up.
type LiveTunnel struct {
	Interface string
	Port      uint16
	Addresses []netip.Prefix
}

// LAN is a home LAN as it should be when everything is done.
type LAN struct {
	Interface string
	Zone      string
	Address   netip.Prefix // the router's, with the network's mask; invalid when not known
	Was       netip.Prefix // the same before, when the LAN moves; else invalid
}

// Access is how the person who runs heimweg gets in.
type Access struct {
	Key      string // authorized_keys line to have; "" leaves the keys alone
	Password bool   // root is to get a password when it has none
	// NewDDNS: the password at the DDNS service is asked for again, in place of the
	// one that the router has.
	NewDDNS bool
}

// Note is something a person should know that stops nothing.
type Note struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Next string `json:"next,omitempty"`
}

// A Problem is a reason why nothing sensible can be drawn. It blocks.
type Problem = *fault.Fault

// Draw computes what we want from what the household wants and what is known of
// the router. With problems the drawing is as complete as it can be, good for
// showing, not for applying.
func Draw(h home.Home, site router.Site) (Want, []Problem) {
	d := &drawing{home: h, site: site, line: site.Board.Release.Effective(), used: map[string]bool{SectionInternet: true, SectionNAT6: true}}
	if !d.checkSystem() {
		return d.want, d.problems
	}
	d.checkUplink()
	d.checkNames()
	d.lans()
	d.checkOverlaps()
	d.tunnel()
	d.peers()
	d.zone()
	d.inRules()
	d.forwardings()
	d.nat()
	d.defaults()
	d.oneArmed()
	d.packages()
	d.mapping()
	d.ddns()
	d.remarks()
	return d.want, d.problems
}

type drawing struct {
	home     home.Home
	site     router.Site
	line     router.Line
	want     Want
	problems []Problem
	used     map[string]bool // section names in config firewall
}

func (d *drawing) problem(p *fault.Fault) { d.problems = append(d.problems, p) }

func (d *drawing) note(code, text, next string) {
	d.want.Notes = append(d.want.Notes, Note{code, text, next})
}

func (d *drawing) own(config, why string, s uci.Section) {
	d.want.Sections = append(d.want.Sections, Owned{Config: config, Section: s, Why: why})
}

func (d *drawing) adjust(a Adjust) { d.want.Adjust = append(d.want.Adjust, a) }

func (d *drawing) oneArm() bool { return d.home.Uplink.Kind == home.OneArmed }

// wan is the zone towards the uplink, "" in a one-armed set-up.
func (d *drawing) wan() string {
	if d.oneArm() {
		return ""
	}
	return d.site.WAN
}

// tunnel draws the interface. Its addresses carry the whole network's mask:
// dnsmasq's localservice answers only sources in a subnet of the router's own
// interfaces (facts: OpenWrt section 6.6), and the connected route makes
// route_allowed_ips needless (observed section 2.7). nohostroute: without it a
// renew on 25.12 makes a host route to every roaming peer's current address
// (facts: OpenWrt section 5.4).
func (d *drawing) tunnel() {
	t := d.home.Tunnel
	addresses := []netip.Prefix{t.Network.First().OnInterface()}
	if !t.Network6.IsZero() {
		addresses = append(addresses, t.Network6.First().OnInterface())
	}
	options := []uci.Option{
		uci.Opt("proto", "wireguard"),
		{Name: "private_key", Values: []uci.Value{Keep()}},
		uci.Opt("listen_port", strconv.Itoa(int(t.Port))),
		uci.List("addresses", texts(addresses)...),
		uci.Opt("nohostroute", "1"),
	}
	if t.MTU != 0 {
		options = append(options, uci.Opt("mtu", strconv.Itoa(t.MTU)))
	}
	options = append(options, uci.Opt(router.MarkOption, "1"))
	d.own("network", "the tunnel", uci.NewSection("interface", t.Interface, options...))
	d.want.Tunnel = LiveTunnel{Interface: t.Interface, Port: t.Port, Addresses: addresses}
}

// peers draws one section per peer, with the addresses that only it may use. The
// router calls nobody, so there is neither endpoint nor keepalive. 21.02 does not
// know `disabled` and would let the peer in (facts: OpenWrt section 1.13); there
// the section is parked under a type that WireGuard does not read.
func (d *drawing) peers() {
	typ := "wireguard_" + d.home.Tunnel.Interface
	knowsDisabled := d.line.AtLeast(router.Line2203)
	d.want.Peers = make([]LivePeer, 0, len(d.home.Peers))
	for _, p := range d.home.Peers {
		allowed := allowedIPs(p)
		options := make([]uci.Option, 0, 5)
		options = append(options, uci.Opt("description", p.Name), uci.Opt("public_key", p.PublicKey.String()))
		if p.Preshared {
			options = append(options, uci.Option{Name: "preshared_key", Values: []uci.Value{Keep()}})
		}
		options = append(options, uci.List("allowed_ips", texts(allowed)...))
		sectionType := typ
		switch {
		case p.Disabled && knowsDisabled:
			options = append(options, uci.Opt("disabled", "1"))
		case p.Disabled:
			sectionType = router.ParkedType
		}
		d.want.Sections = append(d.want.Sections, Owned{
			Config: "network", Section: uci.NewSection(sectionType, p.Section(), options...),
			Peer: p.Name, Why: "peer " + p.Name,
		})
		d.want.Peers = append(d.want.Peers, LivePeer{
			Name: p.Name, Section: p.Section(), Key: p.PublicKey,
			Preshared: p.Preshared, Disabled: p.Disabled, AllowedIPs: allowed,
		})
	}
}

func allowedIPs(p home.Peer) []netip.Prefix {
	out := make([]netip.Prefix, 0, 2)
	for _, a := range []netip.Addr{p.Address, p.Address6} {
		if a.IsValid() {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

func texts(p []netip.Prefix) []string {
	out := make([]string, len(p))
	for i := range p {
		out[i] = p[i].String()
	}
	return out
}

// legal makes a text fit for a section name: a dash or any other character
// outside letters, digits and underscore is refused there (observed section 2.8).
func legal(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

// name gives a section name that is not used yet: two zones called a-b and a_b
// must not share one.
func (d *drawing) name(prefix, rest string) string {
	base := prefix + legal(rest)
	name := base
	for i := 2; d.used[name]; i++ {
		name = base + "_" + strconv.Itoa(i)
	}
	d.used[name] = true
	return name
}
