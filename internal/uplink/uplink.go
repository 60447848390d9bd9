package uplink

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Protocol is a language that ISP routers understand.
type Protocol string

// The protocols, in the order in which a mapping is asked for: what stays
// longest comes first.
const (
	TR064  Protocol = "TR-064"
	UPnP   Protocol = "UPnP"
	PCP    Protocol = "PCP"
	NATPMP Protocol = "NAT-PMP"
)

// A Way is a way out to the ISP router. Its zero value is none.
type Way struct {
	// Dial connects by "tcp" to "address:port". It fits shell.Conn.Dial.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// ListenUDP opens a UDP port; nil where only TCP gets through, as over SSH.
	ListenUDP func(ctx context.Context) (net.PacketConn, error)
	// From is the address that the ISP router sees requests of this way come from.
	// The zero address means Options.Client: the home router masquerades. On a
	// computer that sits in the ISP router's own LAN it is that computer's address.
	From netip.Addr
}

// System is the way out of this computer's own network.
func System() Way {
	return Way{
		Dial: (&net.Dialer{}).DialContext,
		ListenUDP: func(ctx context.Context) (net.PacketConn, error) {
			return (&net.ListenConfig{}).ListenPacket(ctx, "udp", ":0")
		},
	}
}

// Options say whom to ask, and for whom.
type Options struct {
	Gateway netip.Addr // the ISP router's address in the uplink LAN
	// Gateway6 is the same for IPv6. The next hop that the home router knows is
	// mostly link-local, which is fine: see Pinhole. Zero: not known.
	Gateway6 netip.Addr
	Client   netip.Addr // the home router's WAN address: whom ports are opened for

	Direct Way // from this computer
	Via    Way // from the home router, by its SSH channels

	Login *Login // for TR-064; nil: that is asked only for what it tells everybody

	Only []Protocol // ask by these only; nil means all

	// Nonce is what PCP knows our mappings by. The same one is needed to renew or
	// to remove a mapping of an earlier run. Zero: a random one.
	Nonce [12]byte

	// Patience is how long one question may stay unanswered; 0 means 1.5 s for the
	// first one and 5 s for one to a router that has answered before.
	Patience time.Duration
}

// Want is a port that shall be open.
type Want struct {
	Proto       string        // "udp" or "tcp"
	External    uint16        // outside
	Internal    uint16        // at the home router; 0 means the same
	Lease       time.Duration // how long it shall last; 0 means as long as the router permits
	Description string        // what the router's web page shows; "" means "heimweg"
}

func (w Want) inside() uint16 { return cmp.Or(w.Internal, w.External) }

func (w Want) name() string { return cmp.Or(oneLine(w.Description, 40), "heimweg") }

// mapping is the wanted port as a mapping.
func (w Want) mapping(client netip.Addr) Mapping {
	return Mapping{Proto: strings.ToLower(w.Proto), External: w.External, To: netip.AddrPortFrom(client, w.inside()), Description: w.name()}
}

// is reports whether m does what is wanted.
func (w Want) is(m Mapping, client netip.Addr) bool {
	return m.External == w.External && strings.EqualFold(m.Proto, w.Proto) && m.To == netip.AddrPortFrom(client, w.inside()) && !m.Disabled
}

// Mapping is a port that the ISP router says it sends inwards.
type Mapping struct {
	Proto       string         `json:"proto"`
	External    uint16         `json:"external"`
	To          netip.AddrPort `json:"to"`
	Description string         `json:"description,omitempty"`
	Disabled    bool           `json:"disabled,omitempty"` // in the list, and without effect
	// Remote is the only host outside that may use it; zero: everybody.
	Remote netip.Addr `json:"remote,omitzero"`

	// Lease is what is left of it; 0: it stays until somebody removes it.
	Lease time.Duration `json:"lease,omitempty"`
	// Asked is when the router said so.
	Asked time.Time `json:"asked,omitzero"`

	// The rest is known of our own mappings only.
	Confirmed bool       `json:"confirmed,omitempty"` // it was read back
	Protocol  Protocol   `json:"protocol,omitempty"`
	Public    netip.Addr `json:"public,omitzero"` // the address outside that it is on, when the router told
	Nonce     [12]byte   `json:"nonce,omitzero"`  // PCP
	Epoch     Epoch      `json:"epoch,omitzero"`  // PCP and NAT-PMP
}

// Pinhole is a hole in the ISP router's IPv6 firewall.
type Pinhole struct {
	ID    uint16         `json:"id"`
	Proto string         `json:"proto"`
	To    netip.AddrPort `json:"to"`
	Lease time.Duration  `json:"lease"`
	Asked time.Time      `json:"asked,omitzero"`
}

// An Answer is one protocol that the ISP router understands.
type Answer struct {
	Protocol Protocol `json:"protocol"`
	Version  string   `json:"version,omitempty"` // "WANIPConnection:2"
	Way      string   `json:"way"`               // Direct or Via
	// IPv6 reports whether it offers to open its IPv6 firewall.
	IPv6 bool `json:"ipv6,omitempty"`
}

// Names of the ways, for people.
const (
	Direct = "from this computer"
	Via    = "through the home router"
)

// A Gateway is an ISP router that was asked. It holds no connection; its methods
// may be used at the same time.
type Gateway struct {
	Address netip.Addr
	// Maker and Model are what it calls itself: "AVM Berlin", "FRITZ!Box 7590".
	// Empty when it does not tell.
	Maker, Model string
	// Answers are the protocols that it understands, the best first.
	Answers []Answer
	// Tried is everything that was asked, with what came of it.
	Tried []Attempt
	// Public is its address outside as far as it told when asked; Epoch is how long
	// it has been up, by PCP or NAT-PMP.
	Public netip.Addr
	Epoch  Epoch

	opt        Options
	igd, tr064 *box // nil: not there
}

// Asker is what Gateway does, for those who want to be tested without one.
type Asker interface {
	External(ctx context.Context) (netip.Addr, error)
	List(ctx context.Context) ([]Mapping, error)
	Map(ctx context.Context, w Want) (Mapping, error)
	Unmap(ctx context.Context, m Mapping) error
}

var _ Asker = (*Gateway)(nil)

// Epoch is the clock of PCP and NAT-PMP: seconds since the ISP router forgot all
// mappings, and when it said so. Its zero value is not known.
type Epoch struct {
	Seconds uint32    `json:"seconds"`
	Seen    time.Time `json:"seen"`
}

// Lost reports whether the ISP router has forgotten its mappings between e and a
// later epoch (RFC 6886 3.6, RFC 6887 8.5). Of an unknown epoch nobody can tell:
// false.
func (e Epoch) Lost(later Epoch) bool {
	if e.Seen.IsZero() || later.Seen.IsZero() {
		return false
	}
	server := int64(later.Seconds) - int64(e.Seconds)
	client := int64(later.Seen.Sub(e.Seen) / time.Second)
	// A clock may be off by a second, or by one part in sixteen.
	return server < -1 || client+2 < server-server/16 || server+2 < client-client/16
}
