package doctor

import (
	"cmp"
	"net/netip"
	"reflect"
	"time"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uci"
)

// A Fact is something that somebody may have looked at. The zero value is not
// known, because nobody asked.
type Fact[T any] struct {
	Known   bool
	Value   T
	Because string // why it is not known: completes "not known: "
}

// Known is a fact that somebody saw.
func Known[T any](v T) Fact[T] { return Fact[T]{Known: true, Value: v} }

// Unknown is a fact that could not be looked at, and why.
func Unknown[T any](because string) Fact[T] { return Fact[T]{Because: because} }

// Facts are everything that is known of a home, from three places: the home
// router itself, this computer, and a device of our own inside the tunnel. What
// home.toml says is not a fact: it is what is wanted.
type Facts struct {
	Home home.Home

	// This computer.
	Networks Fact[[]netip.Prefix] `fact:"networks"` // its addresses
	Login    Fact[Login]          `fact:"login"`    // how it got into the router, or did not
	Clock    Fact[time.Time]      `fact:"clock"`    // its clock when the router was looked at
	Endpoint Fact[[]netip.Addr]   `fact:"endpoint"` // what the endpoint's name leads to; none: it has no address

	// The home router, over SSH.
	Router   Fact[*router.Snapshot]         `fact:"router"`
	Warnings Fact[[]string]                 `fact:"warnings"` // its firewall's own, "[!] …"
	Arrivals Fact[Arrivals]                 `fact:"arrivals"` // who knocked at the tunnel's port while we looked
	Module   Fact[bool]                     `fact:"module"`   // the kernel has WireGuard
	Gateway  Fact[bool]                     `fact:"gateway"`  // the ISP router answers its ping
	Resolves Fact[bool]                     `fact:"resolves"` // its own name service finds names of the internet
	Log      Fact[[]string]                 `fact:"log"`      // lines of its log that say something
	Cron     Fact[[]string]                 `fact:"cron"`     // its timed jobs
	Services Fact[map[string]*uci.Document] `fact:"services"` // rpcd, uhttpd, ddns; those that it has
	Widths   Fact[map[string]int]           `fact:"widths"`   // device → MTU in bytes
	Knock    Fact[trace.Knock]              `fact:"knock"`    // a device in the home LAN, pinged from there
	Samples  Fact[Samples]                  `fact:"samples"`  // where each device was heard, over a few seconds

	// A device of our own inside the tunnel.
	Handshake Fact[Handshake]   `fact:"handshake"`
	Inside    Fact[bool]        `fact:"inside"`   // the router answers through the tunnel
	Names     Fact[NameService] `fact:"names"`    // and its name service
	Reached   Fact[Reached]     `fact:"reached"`  // and a device in the home LAN
	PathMTU   Fact[int]         `fact:"path-mtu"` // the largest packet that came through unfragmented, bytes
	Hairpin   Fact[bool]        `fact:"hairpin"`  // the public address works from inside the house

	// The ISP router and the world outside.
	Upstream Fact[trace.Upstream] `fact:"upstream"`
	Address  Fact[Address]        `fact:"address"`
}

// Login is how this computer got into the router, or where it got stuck.
type Login struct {
	Addr   string // as it was dialled
	Stuck  Stuck
	Method string // "publickey", "password", "none"
	Why    string // what the network said
	OwnKey string // heimweg's own key, as a line of authorized_keys; "" when there is none
}

// Stuck is where a login ended.
type Stuck string

// Where a login can end. The zero value is inside.
const (
	Silent   Stuck = "silent"    // nobody answers at that address
	Refused  Stuck = "refused"   // somebody is there, and no SSH
	Strange  Stuck = "strange"   // another host key than before
	Denied   Stuck = "denied"    // neither key nor password was taken
	Other    Stuck = "other"     // it answers, and is no OpenWrt that heimweg knows
	Straying Stuck = "unsettled" // something else
)

// Arrivals is what came to the tunnel's port on the WAN side between two looks.
type Arrivals struct {
	Packets int64         // by the counter of the firewall's rule
	Bytes   int64         // that the tunnel took from any device
	Took    time.Duration // between the looks
}

// Samples are where peers were heard, by key.
type Samples map[key.Public][]cryptokey.Sample

// Handshake is what our own test device saw.
type Handshake struct {
	Done    bool
	Arrived bool   // the router counted something of it
	Answer  string // what came back instead
}

// NameService is what became of a question for a name, asked inside the tunnel.
type NameService struct {
	Asked    bool // home.toml lets devices ask the home router
	Answered bool
	Refused  bool
}

// Reached is which device in the home LAN our own one came to.
type Reached struct {
	Asked int // how many were tried
	Any   bool
	Seen  string
}

// Address is where home is on the internet, by whoever has found out.
type Address struct {
	Kind Reach
	// Says names it in a few words, Seen is the evidence; Do is what helps, ready to be
	// shown.
	Says string
	Seen []string
	Do   []trace.Remedy
}

// Reach is what kind of address a home has.
type Reach string

// The kinds of addresses.
const (
	Public    Reach = "public"     // a public IPv4 address, ours alone
	DoubleNAT Reach = "double-nat" // another router of the household, or the provider's, translates once more
	Carrier   Reach = "carrier"    // the provider shares one address between many
	DSLite    Reach = "ds-lite"    // IPv4 is carried through IPv6 and shared
	OnlySix   Reach = "ipv6-only"  // no IPv4 from outside, and an IPv6 address of our own
	Changing  Reach = "changing"   // public, and another one every day
)

// FactNames lists all facts.
func FactNames() []string {
	var out []string
	t := reflect.TypeFor[Facts]()
	for i := range t.NumField() {
		if n := t.Field(i).Tag.Get("fact"); n != "" {
			out = append(out, n)
		}
	}
	return out
}

// field finds a fact by its name.
func (f *Facts) field(name string) reflect.Value {
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("fact") == name {
			return v.Field(i)
		}
	}
	panic("doctor: there is no fact " + name) // a rule names one that is not in Facts
}

// state tells whether a fact is known, and why not.
func (f *Facts) state(name string) (known bool, because string) {
	v := f.field(name)
	return v.FieldByName("Known").Bool(), cmp.Or(v.FieldByName("Because").String(), "nobody asked")
}

// Forget makes one fact not known.
func (f Facts) Forget(name, because string) Facts {
	v := f.field(name)
	v.SetZero()
	v.FieldByName("Because").SetString(because)
	return f
}

// only keeps the named facts.
func (f Facts) only(names []string) Facts {
	out := Facts{Home: f.Home}
	for _, n := range names {
		out.field(n).Set(f.field(n))
	}
	return out
}
