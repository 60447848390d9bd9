// Package home is what the household wants: the content of home.toml.
//
// home.toml is the one file that a person writes or lets heimweg write. It says
// where the home router is, how it hangs behind the ISP router, which networks
// there are, what peers may reach, and who the peers are. Everything else (the
// router's sections, the plan, each peer's configuration) is computed from it.
//
// Parse is strict: what it does not understand it refuses, with file, line and
// column, the line itself and what to write instead, and it reports all mistakes
// of a file at once. It reads a subset of TOML (https://toml.io): one section
// per subject, no inline tables, no dotted keys. So a person who knows one
// home.toml can read them all, and every file can be edited in place: the editing
// methods of File change the lines concerned and keep comments, order, blank
// lines and line ends of all others.
//
// The file holds no secret. A private key that was pasted by mistake is refused
// and never quoted, not even in the error.
//
// The package touches no file, no network and no clock; package store reads and
// writes.
package home

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
)

// Home is what the household wants.
type Home struct {
	Router Router
	Uplink Uplink
	LANs   []LAN
	Tunnel Tunnel
	Reach  Reach
	DNS    DNS
	DDNS   DDNS
	Peers  []Peer
}

// Router says how to reach the home router and what it shall have beyond the
// tunnel.
type Router struct {
	// Address is a host name or IP address, with ":port" when SSH is not on 22.
	Address string
	// User is whom to log in as; OpenWrt knows only root.
	User string
	// Jump is a computer to go through, "[user@]host[:port]"; "" means none.
	Jump string
	// Packages are extra packages that the household likes to have there.
	Packages []string
	// Input decides about the firewall's default for interfaces without a zone:
	// "reject", "accept", or "" when nobody decided. OpenWrt 21.02 and 22.03 ship
	// ACCEPT (facts: openwrt.md 2); the setting is not ours, so it is asked for.
	Input string
}

// Kind says where the home router sits.
type Kind int

const (
	// Behind: the home router's WAN port is plugged into the ISP router, which
	// does its own NAT.
	Behind Kind = iota
	// Direct: the home router's WAN port has the public address itself.
	Direct
	// OneArmed: the home router is an ordinary device inside the ISP router's LAN,
	// with one cable and without a WAN side.
	OneArmed
)

var kindNames = []string{"behind-isp-router", "direct", "one-armed"}

// String is the word that home.toml uses.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

// MarshalText gives the word that home.toml uses.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the word that home.toml uses.
func (k *Kind) UnmarshalText(b []byte) error {
	for i, n := range kindNames {
		if n == string(b) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", b, strings.Join(kindNames, ", "))
}

// Uplink is the way from the home router to the internet.
type Uplink struct {
	Kind Kind
	// Network is the uplink LAN, between the two routers; only for Behind, and
	// zero when it is not known.
	Network subnet.Network
	// Mapping says who opens the tunnel's port at the ISP router.
	Mapping MappingBy
}

// MappingBy says who opens the tunnel's port at the ISP router.
type MappingBy string

// Who opens it.
const (
	ByAsking MappingBy = ""        // heimweg asks the ISP router, after a question
	ByHand   MappingBy = "by-hand" // a person does; heimweg only says how
)

// LAN is a home LAN: a network whose devices peers may reach.
type LAN struct {
	// Interface is the name that OpenWrt's network configuration gives it: "lan".
	Interface string
	// Network is its IPv4 network.
	Network subnet.Network
	// Renumber allows heimweg to move the LAN to Network when the router has it
	// elsewhere. Without it such a difference blocks the plan.
	Renumber bool
}

// Tunnel is the WireGuard network.
type Tunnel struct {
	// Interface is the name on the router, "wg0".
	Interface string
	// Network is its IPv4 network; the router takes the first address.
	Network subnet.Network
	// Network6 is its private IPv6 network (ULA, /64); zero means IPv4 only.
	Network6 subnet.Network
	// Port is the UDP port that the router listens on.
	Port uint16
	// MTU in bytes; 0 leaves it to WireGuard.
	MTU int
	// Endpoint is the host name or public address that peers call; "" means that
	// heimweg shall find it out.
	Endpoint string
	// EndpointPort is the UDP port that peers call when it differs from Port;
	// 0 means Port.
	EndpointPort uint16
}

// CallPort is the port that peers call.
func (t Tunnel) CallPort() uint16 {
	if t.EndpointPort != 0 {
		return t.EndpointPort
	}
	return t.Port
}

// Reach says what peers may reach beyond the router itself.
type Reach struct {
	HomeLAN   bool
	UplinkLAN bool
	Internet  bool // all of a peer's traffic goes through home
	// NATToLAN makes peers look like the router to LAN devices, so that also
	// devices answer that know no way back or refuse strangers.
	NATToLAN bool
}

// DNS is what peers use to look up names.
type DNS struct {
	// Servers are addresses, or the word Router for the home router's own
	// resolver. Empty: peers keep the name servers they have.
	Servers []string
	// Search are domains to try for short names ("nas" → "nas.lan").
	Search []string
}

// DNSRouter stands for the home router in DNS.Servers.
const DNSRouter = "router"

// DDNS is a name that follows the home's public address: the home router tells a
// service its address whenever that changes. The zero value means none. The
// password is no part of it: it is asked for once and kept on the router only.
type DDNS struct {
	// Service is how OpenWrt's ddns-scripts call the service ("desec.io"), or "" with
	// UpdateURL.
	Service string
	// UpdateURL is called in place of a service; [DOMAIN], [USERNAME], [PASSWORD] and
	// [IP] in it are filled in on the router.
	UpdateURL string
	// Name is the host name that follows.
	Name string
	User string
	// IPv4 and IPv6 say which addresses are told.
	IPv4, IPv6 bool
	// AddressURL is a page that says from which address one comes, for where the
	// home router does not have the public address itself; "" is that of ddns-scripts.
	AddressURL string
}

// IsZero reports whether no name follows.
func (d DDNS) IsZero() bool { return d.Name == "" }

// CallName is the name or address that peers call: the endpoint, else the name
// that follows the home's address; "" when neither is known.
func (h Home) CallName() string {
	if h.Tunnel.Endpoint != "" {
		return h.Tunnel.Endpoint
	}
	return h.DDNS.Name
}

// Peer is a device that is allowed to come home.
type Peer struct {
	Name      string     // lower case, also part of the router's section name
	Address   netip.Addr // its IPv4 address in the tunnel network
	Address6  netip.Addr // its IPv6 address there; invalid means none
	PublicKey key.Public
	Preshared bool // a preshared key strengthens the tunnel; it is kept on the router only
	Disabled  bool // keeps its place but cannot come home
	Admin     bool // may also log in to the router through the tunnel
	Keepalive int  // seconds between packets that keep NATs open; 0 means off
}

// SectionPrefix begins the name of every peer's section on the router.
const SectionPrefix = "hw_peer_"

// Section is the name of the peer's section in the router's network
// configuration. UCI names know no hyphen.
func (p Peer) Section() string { return SectionPrefix + strings.ReplaceAll(p.Name, "-", "_") }

// Defaults of keys that may be left out. Docs and init print these.
const (
	DefaultUser      = "root"
	DefaultInterface = "wg0"
	DefaultPort      = 51820
	DefaultKeepalive = 25
	DefaultSearch    = "lan" // OpenWrt's own domain (facts: openwrt.md 6.6)
)

// New is a Home with every default in place and nothing decided.
func New() Home {
	return Home{
		Router: Router{User: DefaultUser},
		Tunnel: Tunnel{Interface: DefaultInterface, Port: DefaultPort},
		Reach:  Reach{HomeLAN: true, NATToLAN: true},
		DNS:    DNS{Servers: []string{DNSRouter}, Search: []string{DefaultSearch}},
	}
}

// Peer finds a peer by its name.
func (h Home) Peer(name string) (Peer, bool) {
	for _, p := range h.Peers {
		if p.Name == name {
			return p, true
		}
	}
	return Peer{}, false
}

// Equal reports whether both say the same.
func (h Home) Equal(o Home) bool { return reflect.DeepEqual(h.canonical(), o.canonical()) }

// canonical makes empty and nil lists the same.
func (h Home) canonical() Home {
	clean := func(s []string) []string {
		if len(s) == 0 {
			return nil
		}
		return s
	}
	h.Router.Packages = clean(h.Router.Packages)
	h.DNS.Servers, h.DNS.Search = clean(h.DNS.Servers), clean(h.DNS.Search)
	if len(h.LANs) == 0 {
		h.LANs = nil
	}
	if len(h.Peers) == 0 {
		h.Peers = nil
	}
	return h
}

// NextPeer is a new peer with the defaults and the next free addresses of the
// tunnel. The error is a *subnet.FullError.
func (h Home) NextPeer(name string, public key.Public) (Peer, error) {
	p := Peer{Name: name, PublicKey: public, Preshared: true, Keepalive: DefaultKeepalive}
	taken := takenAddrs(h)
	var err error
	if p.Address, err = subnet.NextFree(h.Tunnel.Network, taken); err != nil {
		return Peer{}, err
	}
	if h.Tunnel.Network6.IsZero() {
		return p, nil
	}
	// The same number in both families is easier to remember: 10.86.20.7, fd…::7.
	if twin := h.Tunnel.Network6.Host(h.Tunnel.Network.Index(p.Address)).Addr(); !slices.Contains(taken, twin) {
		p.Address6 = twin
		return p, nil
	}
	p.Address6, err = subnet.NextFree(h.Tunnel.Network6, taken)
	return p, err
}
