// Package trace follows one packet on its way home, hop by hop, and says in words
// where it lives or dies, and because of which line of which file.
//
// It computes from what it is given: home.toml, one look at the router, and what
// is known of the world before it. It asks nobody, changes nothing and holds no
// secret. What is not known is said and stays not known: a hop that nobody could
// look at is never called passed.
//
// # Background for a newcomer
//
// A packet from a phone on holiday to the NAS at home has to pass a dozen doors,
// and most of them say nothing when they drop it:
//
//	device      AllowedIPs of its configuration send it into the tunnel, or past it
//	internet    the endpoint's name has to lead to the household's address
//	isp-router  has to send the tunnel's UDP port on to the home router
//	door        the home router's firewall has to let that port in
//	tunnel      WireGuard has to know the key, and the source has to be that peer's own
//	home        zone → forwarding → address translation in the home router
//	lan         a route, a device that is up, a neighbour that answers
//	target      has to send its answer back to the home router
//	answer-…    and all the way back
//
// The packet that is followed is the first one of a new connection: that is what
// rules judge. Connections that were let through before go on living (the firewall
// remembers them), also when the next one would die.
package trace

import (
	"net/netip"
	"time"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// Facts are everything that is known.
type Facts struct {
	Home home.Home
	// Snapshot is what the router showed. Required.
	Snapshot *router.Snapshot
	// Wanted is the router as `heimweg apply` would leave it, when that differs:
	// it tells whether apply is the remedy. See Applied.
	Wanted After
	// Conf is the device's own configuration, when somebody has the file. Nil: the
	// one that home.toml would give it.
	Conf     *wgconf.Conf
	Endpoint Endpoint
	Upstream Upstream
	Knock    Knock
	// Samples are where the peer was heard, over a few seconds.
	Samples []cryptokey.Sample
}

// Endpoint is what the name that peers call means right now.
type Endpoint struct {
	Asked bool         // somebody looked it up; else nothing is known
	Addrs []netip.Addr // none: the name has no address
}

// Upstream is what is known of the ISP router.
type Upstream struct {
	// Asked: somebody could ask it. Else Mappings says nothing, and Why says why.
	Asked bool
	// Partial: what is not among the Mappings may still be there. UPnP of many ISP
	// routers lists what programs asked for, not what a person has typed.
	Partial  bool
	Why      string // completes "not known: "
	How      string // "UPnP"
	At       time.Time
	Public   netip.Addr // its public address; invalid: not known
	Mappings []Mapping
	// Opened is when heimweg opened the tunnel's port there, where that is among the
	// Mappings no more; zero: it did not, or nobody can tell. Ended is when the time that
	// it was granted for was over; zero: it is not.
	Opened, Ended time.Time
	// Routes are networks that it sends back to the home router (static routes);
	// only looked at when RoutesKnown: few ISP routers tell.
	Routes      []netip.Prefix
	RoutesKnown bool
}

// Mapping is one port that the ISP router sends inwards.
type Mapping struct {
	Proto    string // "udp" or "tcp"
	External uint16
	To       netip.AddrPort
}

// Seen is the answer to a question that may not have been asked.
type Seen string

// The three values. The zero value is NotAsked.
const (
	NotAsked Seen = ""
	Yes      Seen = "yes"
	No       Seen = "no"
)

// Knock is what a ping from the router to the target showed.
type Knock struct {
	Target netip.Addr
	Near   Seen // it answered the router's own address in its network
	Far    Seen // it answered the router's address in the tunnel: it knows the way back
	There  bool // it answers on its network (ARP, neighbour discovery)
}

// A Question is a ping that would tell more: of the target, from the router's
// own address near it, and From its address in the tunnel.
type Question struct{ Target, From netip.Addr }

// Request says which packet to follow.
type Request struct {
	Peer string     // a device of home.toml; "" when it comes From a host
	From netip.Addr // a host in one of the networks, or on the internet
	Name string     // the target as it was typed, for people; "" for its address
	To   netip.Addr
	// Proto is firewall.TCP, UDP or ICMP (a ping, whatever the family).
	Proto uint8
	Port  uint16
	// Begin is the hop where a device's packet begins, as if it had come so far:
	// Internet, ISPRouter, Door, Tunnel or Home. "" is the device itself.
	Begin ID
}

// Verdict is what became of the packet, on one hop or on the whole way.
type Verdict string

// The three verdicts. Of a whole way: it lives when every hop passes, dies when
// one dies, and is not known when no hop dies and one is not known.
const (
	Passes  Verdict = "passes"
	Dies    Verdict = "dies"
	Unknown Verdict = "not-known"
)

// ID names a hop; the names are stable.
type ID string

// The hops in the order in which a packet meets them.
const (
	Device    ID = "device"     // AllowedIPs and address of the device
	Origin    ID = "origin"     // where a host that is no peer sits
	Internet  ID = "internet"   // what the endpoint's name leads to
	ISPRouter ID = "isp-router" // the port mapping
	Door      ID = "door"       // the home router's firewall, for the tunnel's own UDP packet
	Tunnel    ID = "tunnel"     // WireGuard: key, handshake, source
	Home      ID = "home"       // the home router's firewall and routes, for the packet itself
	Onward    ID = "onward"     // into the tunnel towards another peer
	LAN       ID = "lan"        // the network that the target is in
	Target    ID = "target"     // the target, and whether its answer comes back to the router
	Beyond    ID = "beyond"     // out through the ISP router

	AnswerHome   ID = "answer-home"
	AnswerTunnel ID = "answer-tunnel"
	AnswerDevice ID = "answer-device"
)

// A Hop is one place on the way.
type Hop struct {
	ID      ID      `json:"hop"`
	At      string  `json:"at"` // "phone", "ISP router", "home", "nas"
	Verdict Verdict `json:"verdict"`
	Packet  string  `json:"packet"` // as it looks there
	Lines   []Line  `json:"lines"`
}

// A Line is one thing that happened there.
type Line struct {
	Says    string  `json:"says"`
	Verdict Verdict `json:"verdict,omitempty"` // of a line that decided
	Because []Place `json:"because,omitempty"`
	Note    string  `json:"note,omitempty"` // how that is known, or more about it
}

// A Place is the line of a file that something happened because of.
type Place struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // from 1; 0: not known
	Section string `json:"section,omitempty"`
	Name    string `json:"name,omitempty"` // what its option name says
}

// A Death is how the packet ended.
type Death struct {
	Hop   ID     `json:"hop"`
	At    string `json:"at"`
	Cause Cause  `json:"cause"`
	Says  string `json:"says"`
	// Silent: the sender is not told.
	Silent  bool    `json:"silent"`
	Because []Place `json:"because,omitempty"`
}

// A Remedy is what to do: a command, or one exact step by hand.
type Remedy struct {
	Do  string `json:"do"`
	Why string `json:"why,omitempty"`
}

// A Trace is the whole way. Its JSON form is stable.
type Trace struct {
	From     string   `json:"from"`
	To       string   `json:"to"`
	Packet   string   `json:"packet"`
	Verdict  Verdict  `json:"verdict"`
	Headline string   `json:"headline"`
	There    []Hop    `json:"there"`
	Back     []Hop    `json:"back"`
	Death    *Death   `json:"death,omitempty"`
	Unknown  []string `json:"not_known,omitempty"`
	Remedies []Remedy `json:"remedies,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	// Question is what should be asked to know more; nil when nothing.
	Question *Question `json:"-"`
}

// Hop finds a hop by its id.
func (t Trace) Hop(id ID) (Hop, bool) {
	for _, list := range [][]Hop{t.There, t.Back} {
		for _, h := range list {
			if h.ID == id {
				return h, true
			}
		}
	}
	return Hop{}, false
}

// Head is the hop that decides: where the packet dies, else the first that is
// not known; "" when it lives.
func (t Trace) Head() ID {
	if t.Death != nil {
		return t.Death.Hop
	}
	for _, list := range [][]Hop{t.There, t.Back} {
		for _, h := range list {
			if h.Verdict == Unknown {
				return h.ID
			}
		}
	}
	return ""
}
