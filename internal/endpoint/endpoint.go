// Package endpoint answers the question "Where is home?": from what the home
// router, the ISP router, public DNS and, if somebody asked them, servers on the
// internet say, it judges under which address home can be called, whether it can
// be called at all, and what a person can do where it cannot.
//
// It only computes. Every fact is given, and every fact may be missing: what
// nobody looked at is not known, because of something, and never makes a verdict
// better. In particular nothing here calls an address public that any fact
// contradicts.
//
// Background. A packet from outside comes home when every box on the way that
// translates addresses has been told where to send it. A provider's own box
// (carrier-grade NAT, CGNAT) cannot be told, so what counts is whose box carries
// the public address:
//
//   - the home router's own WAN address is public, or the ISP router's is and it
//     sends one port on: home can be called over IPv4;
//   - the ISP router's own outer address is private: one more box translates, in
//     the house (double NAT) or at the provider;
//   - it lies in 100.64.0.0/10 (RFC 6598), or differs from the one that the
//     internet sees: the provider translates (CGNAT);
//   - it has none, and the provider carries IPv4 inside IPv6 (DS-Lite, RFC 6333;
//     192.0.0.0/29 is the inner side of that) or not at all: only IPv6 can be
//     called.
//
// Facts: openwrt.md 6.5, deps.md 9, field.md A.
package endpoint

import (
	"net/netip"
	"slices"
	"time"

	"github.com/heimweg/heimweg/internal/subnet"
)

// An Address is a fact about an address: this one, none, or not known. The zero
// value is not known, because nobody asked.
type Address struct {
	addr netip.Addr
	none bool
	why  string
}

// Is is a known address. The invalid and the unspecified address (0.0.0.0, ::)
// mean "none": that is how a router without an address answers.
func Is(a netip.Addr) Address {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || a.IsUnspecified() {
		return Address{none: true}
	}
	return Address{addr: a}
}

// None says that somebody looked and there is no address.
func None() Address { return Address{none: true} }

// NotKnown says why nobody knows; the words complete "not known, because …".
func NotKnown(why string) Address { return Address{why: why} }

// Get returns the address; ok is false when there is none or it is not known.
func (a Address) Get() (addr netip.Addr, ok bool) { return a.addr, a.addr.IsValid() }

// IsNone reports whether somebody looked and found no address.
func (a Address) IsNone() bool { return a.none }

// Known reports whether somebody looked.
func (a Address) Known() bool { return a.none || a.addr.IsValid() }

// Why says why the fact is not known; "" when it is.
func (a Address) Why() string {
	switch {
	case a.Known():
		return ""
	case a.why == "":
		return notAsked
	}
	return a.why
}

const notAsked = "nobody asked"

// public returns the address when the internet delivers to it.
func (a Address) public() (netip.Addr, bool) { return a.addr, subnet.IsPublic(a.addr) }

// String is the address, "none", or "not known (why)".
func (a Address) String() string {
	switch {
	case a.none:
		return "none"
	case a.addr.IsValid():
		return a.addr.String()
	}
	return "not known (" + a.Why() + ")"
}

// A Names fact is what public DNS says for one kind of record: these addresses
// (perhaps no address), or not known. The zero value is not known.
type Names struct {
	addrs []netip.Addr
	known bool
	why   string
}

// Says is an answer of DNS, perhaps without any address.
func Says(addrs ...netip.Addr) Names {
	n := Names{known: true}
	for _, a := range addrs {
		n.addrs = append(n.addrs, a.Unmap())
	}
	return n
}

// Silent says why DNS gave no answer.
func Silent(why string) Names { return Names{why: why} }

// Known reports whether DNS answered.
func (n Names) Known() bool { return n.known }

// Addrs are the addresses that DNS gave.
func (n Names) Addrs() []netip.Addr { return slices.Clone(n.addrs) }

// Has reports whether DNS gave a.
func (n Names) Has(a netip.Addr) bool { return a.IsValid() && slices.Contains(n.addrs, a) }

// Why says why nobody knows; "" when DNS answered.
func (n Names) Why() string {
	switch {
	case n.known:
		return ""
	case n.why == "":
		return notAsked
	}
	return n.why
}

// A Sighting is an answer of an earlier day: the public address then.
type Sighting struct {
	At   time.Time
	Addr netip.Addr
}

// A Box is one box on the way out that translates addresses, as far as known.
type Box struct {
	// Name in the household's words: "ISP router", or the model that it tells.
	Name string
	// Inside is its address towards home: where its menus are. Not known is usual
	// for a box behind another.
	Inside Address
	// Outer is its own IPv4 address towards the internet, as it tells itself (by
	// UPnP, PCP, TR-064), or as a person read it there.
	Outer Address
	// By is how that was learned, such as "UPnP".
	By string
}

// Facts are what is known about the way into the house.
type Facts struct {
	// Direct: the home router hangs on the line itself; there is no ISP router.
	Direct bool
	// Port is the UDP port that peers call, and Inner the one that the home router
	// listens on; 0: the same.
	Port, Inner uint16

	// WAN is the home router's IPv4 address towards the internet. One-armed, it is
	// its address in the ISP router's LAN.
	WAN Address
	// WAN6 is its global IPv6 address there.
	WAN6 Address

	// Boxes are the boxes between the home router and the internet, from the home
	// router outwards; the first is the ISP router. Empty: nobody asked them.
	Boxes []Box

	// STUN and Web are home's IPv4 address as a server on the internet saw it, by
	// STUN over UDP and by a web page over HTTPS, asked from behind the home
	// router. STUN6 and Web6 are the same over IPv6.
	STUN, Web   Address
	STUN6, Web6 Address

	// Name is the host name that peers call, "" for none, with what public DNS says.
	Name    string
	A, AAAA Names

	// Earlier are public addresses of earlier days, oldest first.
	Earlier []Sighting
}

// A Kind of connection, as far as being called is concerned.
type Kind string

// The kinds. Unclear is the zero of knowledge: too little is known for another.
const (
	Unclear   Kind = "unclear"
	Public    Kind = "public"     // a public IPv4 address on a box of this house
	DoubleNAT Kind = "double-nat" // one more box with a private address in front of the ISP router
	CGNAT     Kind = "cgnat"      // the provider shares one public address among customers
	DSLite    Kind = "ds-lite"    // no IPv4 address of its own; IPv4 travels inside IPv6
	IPv6Only  Kind = "ipv6-only"  // no IPv4 at all
)

var kindWords = map[Kind]string{
	Unclear: "not clear yet", Public: "public IPv4", DoubleNAT: "double NAT", CGNAT: "carrier NAT (CGNAT)",
	DSLite: "DS-Lite", IPv6Only: "IPv6 only",
}

// Words is the kind as a person calls it.
func (k Kind) Words() string { return kindWords[k] }

// A Level is one translation on the way in, in the order in which a packet from
// outside meets them.
type Level struct {
	Box    string     `json:"box"`
	Menu   netip.Addr `json:"menu,omitzero"`  // where its menus are, seen from the home router's side
	Outer  netip.Addr `json:"outer,omitzero"` // its address towards the internet
	To     netip.Addr `json:"to,omitzero"`    // where it must send the port
	Theirs bool       `json:"providers,omitempty"`
}

// A Call is what peers should call.
type Call struct {
	// Host is a name or an address; "" when home cannot be called directly.
	Host string `json:"host,omitempty"`
	// Addr is the address behind it; zero when only the name is known.
	Addr netip.Addr `json:"address,omitzero"`
	// IPv6 says that only devices with IPv6 can call it.
	IPv6 bool `json:"ipv6,omitempty"`
	// Sure: a fact shows that this is home. Otherwise it is the best guess.
	Sure bool `json:"sure"`
}

// A Missing fact, and why nobody knows it.
type Missing struct {
	Fact string `json:"fact"`
	Why  string `json:"why"`
	// Ask is how it can be learned; "" when there is no way.
	Ask string `json:"ask,omitempty"`
}

// A Step is one thing to do.
type Step struct {
	ID   StepID `json:"step"`
	What string `json:"what"`
	// Command is what heimweg does about it; "" for what a person does elsewhere.
	Command string `json:"command,omitempty"`
}

// A StepID names a step for programs.
type StepID string

// The steps.
const (
	StepMap      StepID = "map-port"     // a port mapping on one box
	StepOpen6    StepID = "open-ipv6"    // the ISP router's IPv6 firewall lets one port in
	StepName     StepID = "name"         // a name that follows a changing address
	StepRecord   StepID = "fix-name"     // the name points elsewhere
	StepProvider StepID = "ask-provider" // ask for a public address
	StepRelay    StepID = "relay"        // a small server on the internet
	StepBridge   StepID = "bridge"       // take one of two boxes out of the way
	StepLearn    StepID = "learn"        // a fact is missing
	StepWarn     StepID = "know"         // nothing to do, but to know
)

// A Verdict is the answer.
type Verdict struct {
	Kind Kind `json:"verdict"`
	// Proven: Public, and the internet sees the very address that a box of this
	// house has. Without it Public rests on that box's word alone; a provider that
	// uses public addresses inside its own network would make it a lie.
	Proven bool `json:"proven"`
	// Changing: the public address was another one before, or the name points to
	// an older one.
	Changing bool `json:"changing"`
	// Levels are the translations on the way in over IPv4, from outside inwards.
	Levels []Level `json:"levels,omitempty"`
	// Endpoint is what peers should call.
	Endpoint Call `json:"endpoint"`
	// IPv6 is the address that can be called over IPv6 once it is let in; zero:
	// none, or not known.
	IPv6 netip.Addr `json:"ipv6,omitzero"`
	// Seen is the evidence, Missing what is not known.
	Seen    []string  `json:"seen,omitempty"`
	Missing []Missing `json:"missing,omitempty"`
	// Steps are what to do, the first first.
	Steps []Step `json:"steps,omitempty"`
}

// Callable reports whether home can be called directly, over IPv4 or IPv6, as far
// as the facts go.
func (v Verdict) Callable() bool { return v.Endpoint.Host != "" && v.Endpoint.Sure }

// Notable reports whether the verdict says more than "as usual" or "not clear".
func (v Verdict) Notable() bool {
	return v.Changing || v.Kind != Public && v.Kind != Unclear
}

// Step finds a step by its id.
func (v Verdict) Step(id StepID) (Step, bool) {
	for _, s := range v.Steps {
		if s.ID == id {
			return s, true
		}
	}
	return Step{}, false
}

// Words is the verdict in a few words, such as "public IPv4, changing".
func (v Verdict) Words() string {
	w := v.Kind.Words()
	if v.IPv6.IsValid() && v.Kind != IPv6Only {
		w += ", with IPv6"
	}
	if v.Changing {
		w += ", changing"
	}
	if v.Kind == Public && !v.Proven {
		w += ", not yet seen from outside"
	}
	return w
}
