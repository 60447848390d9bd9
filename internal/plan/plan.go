// Package plan compares what a household wants with what its router has, and
// says in ordered steps what has to be done.
//
// A plan is a value: it can be printed, saved, compared, refused and carried out
// by another machine on another day. It holds no function and no secret. Where a
// secret belongs, a line says so: kept (the router has one and it stays) or new
// (it has to be supplied when the plan is carried out). A plan names the state of
// the router that it was made from; Refuse says what has changed since.
//
// The package never talks to a router. Edit turns configuration documents into
// the documents that the plan wants; package apply writes them, under guard.
//
// Background. Sections that are not ours survive because they are copied into
// what we want, with their options and their place, before anything is compared.
// What heimweg wrote last is kept on the router as digests, so a change that home.toml
// asks for is told from one that somebody made on the router meanwhile (drift).
// WireGuard's live peers are compared too: OpenWrt up to 24.10 ignores peer changes
// at a reload, and 25.12 needs a renew (observed section 3), so a configuration
// that is right says nothing about what is live.
package plan

import (
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/router"
)

// Format is the number of the plan's JSON form. Another one is refused.
const Format = 1

// An Action is what a step does. The set is closed.
type Action string

// The actions, in the order in which a plan holds them.
const (
	Authorize   Action = "authorize"    // add Name's SSH key to the router's keys
	SetPassword Action = "set-password" // give root a password
	Install     Action = "install"      // install package Name
	Create      Action = "create"       // make a section of ours
	Change      Action = "change"       // change a section of ours
	Adjust      Action = "adjust"       // change one option of a section that is not ours
	Remove      Action = "remove"       // take a section of ours away, or one that ours replace
	Activate    Action = "activate"     // make written configuration live, by How
	PeerRemove  Action = "peer-remove"  // tell the live tunnel to forget a peer
	PeerChange  Action = "peer-change"  // tell it a peer's new data
	PeerAdd     Action = "peer-add"     // tell it a new peer
	Record      Action = "record"       // note on the router what heimweg wrote
)

// How says with which command written configuration is made live: the gentlest
// that was seen to work (observed section 3). The set is closed.
type How string

// The ways, in the order in which they are used.
const (
	NetworkRestart How = "network-restart" // ubus call network restart: the only way to make a just-installed protocol known
	NetworkReload  How = "network-reload"  // ubus call network reload; never the init script, which reprograms swconfig boards
	TunnelUp       How = "tunnel-up"       // ifup IFACE: tears the tunnel down and makes it anew
	TunnelRenew    How = "tunnel-renew"    // ubus call network.interface.IFACE renew (25.12): nobody is cut off
	FirewallReload How = "firewall-reload"
	DnsmasqReload  How = "dnsmasq-reload"
	OdhcpdReload   How = "odhcpd-reload"
	DropbearReload How = "dropbear-reload"
	DDNSRestart    How = "ddns-restart"
)

// Risk is what a step may cost. The set is closed.
type Risk string

// The risks, from none to the worst.
const (
	NoRisk          Risk = ""
	PausesNetwork   Risk = "pauses-network"   // all networks of the router hold their breath for a moment; connections survive
	DropsPeers      Risk = "drops-peers"      // devices that are in must shake hands again, up to 15 s
	ForgetsKeys     Risk = "forgets-keys"     // private keys of devices that somebody kept on the router are gone
	DropsConnection Risk = "drops-connection" // the address that we use to reach the router goes away
)

var (
	risks   = []Risk{NoRisk, PausesNetwork, DropsPeers, ForgetsKeys, DropsConnection}
	actions = []Action{Authorize, SetPassword, Install, Create, Change, Adjust, Remove, Activate, PeerRemove, PeerChange, PeerAdd, Record}
	ways    = []How{NetworkRestart, NetworkReload, TunnelUp, TunnelRenew, FirewallReload, DnsmasqReload, OdhcpdReload, DropbearReload, DDNSRestart}
)

// Secret says what a line is that must not be shown.
type Secret string

// The states of a secret.
const (
	NotSecret   Secret = ""
	SecretThere Secret = "there" // the router has one
	SecretKept  Secret = "kept"  // the one that the router has stays
	SecretNew   Secret = "new"   // has to be supplied when the plan is carried out
)

// A Line is one option of a section. A secret one has no values.
type Line struct {
	Option string   `json:"option"`
	List   bool     `json:"list,omitempty"`
	Values []string `json:"values,omitempty"`
	Secret Secret   `json:"secret,omitempty"`
}

// Equal compares two lines; two secrets are equal.
func (l Line) Equal(o Line) bool {
	return l.Option == o.Option && l.List == o.List && (l.Secret == NotSecret) == (o.Secret == NotSecret) && slices.Equal(l.Values, o.Values)
}

// A Step is one thing to do.
type Step struct {
	// ID is stable: the same step in another plan has the same one.
	ID      string `json:"id"`
	Do      Action `json:"do"`
	How     How    `json:"how,omitempty"`
	Config  string `json:"config,omitempty"`
	Section string `json:"section,omitempty"` // or "@type[n]" when it has no name; of Activate: the interface
	Type    string `json:"type,omitempty"`    // of the section
	Name    string `json:"name,omitempty"`    // the peer or package meant; of Authorize the key's line
	Key     string `json:"key,omitempty"`     // the live peer's public key
	// From is the section that kept secrets are taken from when it is another
	// one: a renamed peer takes its preshared key along.
	From string `json:"from,omitempty"`
	Old  []Line `json:"old,omitempty"` // the whole section, or the option, before
	New  []Line `json:"new,omitempty"` // and after
	Why  string `json:"why,omitempty"` // for people; nothing branches on it
	Risk Risk   `json:"risk,omitempty"`
	// Drift: somebody else has changed this on the router since heimweg wrote it.
	Drift bool   `json:"drift,omitempty"`
	Who   string `json:"who,omitempty"` // how that is known, for people
	// Foreign: somebody made the section by hand; ours takes its place.
	Foreign bool `json:"foreign,omitempty"`
}

// Router says which router the plan is for.
type Router struct {
	Model    string `json:"model"`
	Board    string `json:"board"`
	Hostname string `json:"hostname,omitempty"`
	Release  string `json:"release"`
}

// A Move is an address of the router that changes: whoever used From has to
// come back through To.
type Move struct {
	Interface string     `json:"interface"`
	From      netip.Addr `json:"from"`
	To        netip.Addr `json:"to"`
}

// A Plan is all that has to be done, in order. With reasons in Blocked it is to
// be shown, not carried out.
type Plan struct {
	Format int                `json:"format"`
	Base   router.Fingerprint `json:"base"`
	Router Router             `json:"router"`
	Tunnel string             `json:"tunnel"` // the tunnel's interface
	Steps  []Step             `json:"steps"`
	Moves  []Move             `json:"moves,omitempty"`
	// Mapping is what the ISP router has to let through. No step does it.
	Mapping *blueprint.Mapping `json:"mapping,omitempty"`
	Blocked []*fault.Fault     `json:"blocked,omitempty"`
	Notes   []blueprint.Note   `json:"notes,omitempty"`
}

// Empty reports whether there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Steps) == 0 }

// Risks lists what the plan may cost, each once, the least first.
func (p *Plan) Risks() []Risk {
	var out []Risk
	for _, r := range risks[1:] {
		if slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Risk == r }) {
			out = append(out, r)
		}
	}
	return out
}

// Writes reports whether the step changes a configuration file.
func (s Step) Writes() bool {
	return s.Do == Create || s.Do == Change || s.Do == Adjust || s.Do == Remove
}

// peerSection reports whether the step writes nothing but a peer's section.
func (s Step) peerSection() bool {
	return s.Writes() && s.Do != Adjust && s.Config == "network" && s.Name != ""
}

// NeedsGuard reports whether the router must be able to take the plan back by
// itself: whenever more than peers' sections and live peers change. Who may come
// home is never what keeps us from reaching the router over the LAN.
func (p *Plan) NeedsGuard() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		return s.Do == Activate || s.Writes() && !s.peerSection()
	})
}

// Guarded lists the steps that belong into the guarded window: all that write
// and activate. Keys, passwords and packages come before it (packages restart
// services by themselves; facts: OpenWrt section 3.4), live peers and the record after.
func (p *Plan) Guarded() []Step {
	return p.Only(Create, Change, Adjust, Remove, Activate)
}

// Only lists the steps with one of these actions, in order.
func (p *Plan) Only(do ...Action) []Step {
	var out []Step
	for _, s := range p.Steps {
		if slices.Contains(do, s.Do) {
			out = append(out, s)
		}
	}
	return out
}

// Configs lists the configuration files that the plan writes, in order.
func (p *Plan) Configs() []string {
	var out []string
	for _, c := range router.Touched() {
		if slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Writes() && s.Config == c }) {
			out = append(out, c)
		}
	}
	return out
}

// Packages lists the packages to install, in order.
func (p *Plan) Packages() []string {
	var out []string
	for _, s := range p.Only(Install) {
		out = append(out, s.Name)
	}
	return out
}

// Needs is which secrets have to be supplied to carry a plan out.
type Needs struct {
	Private   bool     // the tunnel's private key
	Preshared []string // peers whose preshared key the router does not have
	Password  bool     // root's password hash
	DDNS      bool     // the password at the service that keeps the home's name
}

// Needs lists the secrets that the router does not have yet.
func (p *Plan) Needs() Needs {
	var n Needs
	for _, s := range p.Steps {
		if s.Do == SetPassword {
			n.Password = true
		}
		for _, l := range s.New {
			switch {
			case l.Secret != SecretNew:
			case s.Config == "ddns":
				n.DDNS = true
			case s.Name != "":
				n.Preshared = append(n.Preshared, s.Name)
			default:
				n.Private = true
			}
		}
	}
	return n
}

// Refuse says why the plan is not for a router in this state any more, nil when
// it still is.
func (p *Plan) Refuse(now router.Fingerprint) *fault.Fault {
	diff := p.Base.Differences(now)
	if len(diff) == 0 {
		return nil
	}
	f := fault.New("plan-outdated", "the router has changed since this plan was made; nothing was done")
	for _, d := range diff {
		if d == "board" {
			f.Saw("the plan is for %s; this is %s", p.Base.Board, now.Board)
		} else {
			f.Saw("/etc/config/%s is different", d)
		}
	}
	return f.Do("make a new plan: heimweg plan")
}
