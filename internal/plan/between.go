package plan

import (
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// For goes the whole way from home.toml and a snapshot to a plan: it reads the
// site, draws, compares, and gathers everything that blocks. When home.toml
// describes a tunnel that somebody made by hand, the plan takes it over: what is
// superseded goes in the same change (package adopt).
func For(h home.Home, s *router.Snapshot, access blueprint.Access) (*Plan, blueprint.Want) {
	taken, adopting := adopt.Of(h, s)
	rest := s
	if adopting {
		rest = taken.Rest(s)
	}
	site, unreadable := router.SiteOf(rest)
	want, problems := blueprint.Draw(h, site)
	want.Access = access
	want.Retire = taken.Retire
	want.Adjust = append(want.Adjust, taken.Adjust...)
	want.Notes = append(want.Notes, taken.Notes...)
	p := Between(want, s, s.Written)
	if len(s.Broken) > 0 {
		return p, want // what is drawn on a site that could not be read is misleading
	}
	p.Blocked = append(p.Blocked, taken.Problems...)
	p.Blocked = append(p.Blocked, unreadable...)
	p.Blocked = append(p.Blocked, problems...)
	if has(problems, "interface-taken") { // says the same and knows a free name
		p.Blocked = slices.DeleteFunc(p.Blocked, func(f *fault.Fault) bool { return f.Code == "section-taken" })
	}
	return p, want
}

func has(list []*fault.Fault, code string) bool {
	return slices.ContainsFunc(list, func(f *fault.Fault) bool { return f.Code == code })
}

// Between compares what we want with what the snapshot shows. last is what
// heimweg wrote last. The result depends on nothing else.
func Between(want blueprint.Want, snap *router.Snapshot, last router.Written) *Plan {
	r := snap.Board.Release
	b := &builder{want: want, snap: snap, last: last, plan: &Plan{
		Format: Format,
		Base:   snap.Fingerprint(),
		Router: Router{Model: snap.Board.Model, Board: snap.Board.Name, Hostname: snap.Board.Hostname,
			Release: strings.TrimSpace(r.Distribution + " " + r.Version)},
		Tunnel: want.Tunnel.Interface, Mapping: want.Mapping,
		Notes: slices.Clone(want.Notes),
	}}
	b.peerOf = make(map[string]*blueprint.LivePeer, len(want.Peers))
	for i := range want.Peers {
		b.peerOf[want.Peers[i].Section] = &want.Peers[i]
	}
	if !b.broken() {
		b.access()
		b.packages()
		for _, config := range router.Touched() {
			b.config(config)
		}
		b.activate()
		b.peers()
		b.record()
	}
	b.obstacles()
	b.remarks()
	return b.plan
}

type builder struct {
	want blueprint.Want
	snap *router.Snapshot
	last router.Written
	plan *Plan

	peerOf map[string]*blueprint.LivePeer // by section
	final  []target                       // config network as it will be
	remade bool                           // the tunnel is set up anew and takes all peers from the configuration
	byName map[string]*target             // final, by name
}

func (b *builder) step(s Step) {
	s.ID = s.id()
	b.plan.Steps = append(b.plan.Steps, s)
}

func (s Step) id() string {
	parts := []string{string(s.Do)}
	switch s.Do {
	case Activate:
		parts = append(parts, string(s.How))
	case Create, Change, Remove:
		parts = append(parts, s.Config+"."+s.Section)
	case Adjust:
		parts = append(parts, adjustKey(s))
	case Install:
		parts = append(parts, s.Name)
	case PeerAdd, PeerChange, PeerRemove:
		parts = append(parts, s.Key)
	}
	return strings.Join(parts, " ")
}

// adjustKey names an adjusted option, also in the record on the router.
func adjustKey(s Step) string { return s.Config + "." + s.Section + "." + s.line() }

func (b *builder) block(f *fault.Fault) { b.plan.Blocked = append(b.plan.Blocked, f) }

func (b *builder) note(code, text, next string) {
	b.plan.Notes = append(b.plan.Notes, blueprint.Note{Code: code, Text: text, Next: next})
}

func (b *builder) access() {
	if k := b.want.Access.Key; k != "" && !slices.ContainsFunc(b.snap.Keys, func(have string) bool { return sameKey(have, k) }) {
		b.step(Step{Do: Authorize, Name: k, Why: "so that you can log in with your own key"})
	}
	if b.want.Access.Password && !b.snap.RootHash {
		b.step(Step{Do: SetPassword, Why: "root has no password: anybody in the home LAN can log in"})
	}
}

// sameKey compares the kind and the key of two authorized_keys lines; comments
// and options do not count.
func sameKey(a, b string) bool {
	x, y := keyBody(a), keyBody(b)
	return x != "" && x == y
}

func keyBody(line string) string {
	f := strings.Fields(line)
	for i := 0; i+1 < len(f); i++ {
		if strings.HasPrefix(f[i], "ssh-") || strings.HasPrefix(f[i], "ecdsa-") || strings.HasPrefix(f[i], "sk-") {
			return f[i] + " " + f[i+1]
		}
	}
	return ""
}

func (b *builder) packages() {
	for _, p := range b.want.Packages {
		if b.snap.Has(p.Name) || slices.ContainsFunc(p.Or, b.snap.Has) {
			continue
		}
		b.step(Step{Do: Install, Name: p.Name, Why: p.Why})
	}
}

// target is one section as it should be.
type target struct {
	uci.Section
	owned *blueprint.Owned   // ours; nil: copied from the router
	have  *uci.Section       // what the router has under this name
	from  string             // where a new section's secrets come from
	turns []blueprint.Adjust // of a foreign section
}

// config compares one configuration file with what it should say.
func (b *builder) config(config string) {
	current := b.snap.Config(config).Sections()
	targets := b.desired(config, current)
	if config == "network" {
		b.final = targets
	}
	kept := make(map[string]bool, len(targets))
	for i := range targets {
		t := &targets[i]
		kept[t.Name] = true
		switch {
		case t.owned == nil:
			b.adjusts(config, t)
		case t.have == nil:
			drift, who := b.drift(config, t.Name, nil)
			b.step(Step{Do: Create, Config: config, Section: t.Name, Type: t.Type, Name: t.owned.Peer, From: t.from,
				New: newLines(t.Section, t.from != ""), Why: t.owned.Why, Drift: drift, Who: who})
		case !same(*t.have, t.Section):
			b.change(config, t)
		}
	}
	for i := range current {
		if kept[current[i].Name] {
			continue
		}
		b.removal(config, current[i])
	}
}

// desired is the whole file as we want it: every foreign section copied in its
// place, ours in theirs or, when new, at the end.
func (b *builder) desired(config string, current []uci.Section) []target {
	wanted := map[string]*blueprint.Owned{}
	for i := range b.want.Sections {
		if o := &b.want.Sections[i]; o.Config == config {
			wanted[o.Section.Name] = o
		}
	}
	leaving := map[string]uci.Section{} // by public key, or "interface": sections of ours that go
	out := make([]target, 0, len(current)+len(wanted))
	done := make(map[string]bool, len(wanted))
	for i := range current {
		cur := &current[i]
		o := wanted[cur.Name]
		switch {
		case !router.Ours(config, *cur, b.last) && !b.retires(config, *cur):
			if o != nil {
				done[cur.Name] = true
				b.block(fault.New("section-taken", "the router already has a section %s.%s that heimweg did not write", config, cur.Name).
					Do("rename it on the router, or choose another name in home.toml"))
			}
			out = append(out, target{Section: *cur, have: cur})
		case o != nil:
			done[cur.Name] = true
			s, _ := b.fill(o.Section, *cur)
			out = append(out, target{Section: s, owned: o, have: cur})
			if s.Type == "service" {
				leaving[identity(*cur)] = *cur // the other family has the same account
			}
		default:
			leaving[identity(*cur)] = *cur
		}
	}
	b.attachAdjusts(config, out)
	for i := range b.want.Sections {
		o := &b.want.Sections[i]
		if o.Config != config || done[o.Section.Name] {
			continue
		}
		t := target{Section: o.Section, owned: o}
		if old, ok := leaving[identity(o.Section)]; ok {
			if s, kept := b.fill(o.Section, old); kept {
				t.Section, t.from = s, old.Name
			}
		}
		out = append(out, t)
	}
	return out
}

// retires reports whether a section that somebody made by hand gives its place to
// one of ours.
func (b *builder) retires(config string, s uci.Section) bool {
	_, yes := b.want.Retire[config+"."+s.Name]
	return yes
}

// identity tells which section of ours carries on another one's life under a
// new name: the same peer by its key, the tunnel by being an interface.
func identity(s uci.Section) string {
	if k, ok := s.Get("public_key"); ok {
		return k
	}
	if s.Type == "service" {
		return ddnsAccount(s)
	}
	return s.Type
}

// fill puts the secrets of have in the places that the wanted section marks. A
// peer with another key is another device, or the same one after a loss: it gets
// another preshared key as well.
func (b *builder) fill(want, have uci.Section) (uci.Section, bool) {
	kept := false
	other := identity(want) != identity(have)
	for _, o := range want.Options {
		if !blueprint.IsKeep(o) || other || o.Name == ddnsPassword && b.want.Access.NewDDNS {
			continue
		}
		if text, ok := have.Get(o.Name); ok && usable(o.Name, text) {
			want = want.With(uci.HiddenOpt(o.Name, text))
			kept = true
		}
	}
	return want, kept
}

// usable: a key that WireGuard cannot read, or the word `generate`, is none. The
// handler would try it again every 5 s and say so only in the log (observed section 3).
func usable(option, text string) bool {
	var err error
	switch option {
	case "private_key":
		_, err = key.ParsePrivate(text)
	case ddnsPassword:
		return text != ""
	default:
		_, err = key.ParsePreshared(text)
	}
	return err == nil
}

// same compares two sections of ours: type and options; the order of the options
// says nothing to OpenWrt, the order inside a list does. A marker never equals.
func same(a, b uci.Section) bool {
	if a.Type != b.Type || len(a.Options) != len(b.Options) {
		return false
	}
	for i, o := range a.Options {
		other := b.Options[i]
		if other.Name != o.Name {
			at := slices.IndexFunc(b.Options, func(x uci.Option) bool { return x.Name == o.Name })
			if at < 0 {
				return false
			}
			other = b.Options[at]
		}
		if !o.Equal(other) {
			return false
		}
	}
	return true
}

func (b *builder) change(config string, t *target) {
	drift, who := b.drift(config, t.Name, t.have)
	s := Step{Do: Change, Config: config, Section: t.Name, Type: t.Type, Name: t.owned.Peer,
		Old: oldLines(*t.have), New: newLines(t.Section, true), Why: t.owned.Why, Drift: drift, Who: who}
	if why, ok := b.want.Retire[config+"."+t.Name]; ok {
		s.Why, s.Foreign = why, true
	}
	b.step(s)
}

func (b *builder) removal(config string, cur uci.Section) {
	drift, who := b.drift(config, cur.Name, &cur)
	s := Step{Do: Remove, Config: config, Section: cur.Name, Type: cur.Type, Old: oldLines(cur),
		Why: "home.toml no longer asks for it", Drift: drift, Who: who}
	if why, ok := b.want.Retire[config+"."+cur.Name]; ok {
		s.Why, s.Foreign = why, true
		if cur.Type == "wireguard_"+b.want.Tunnel.Interface {
			s.Name = b.deviceOf(cur)
			if cur.Has("private_key") {
				s.Risk = ForgetsKeys
			}
		}
	}
	if strings.HasPrefix(cur.Name, home.SectionPrefix) {
		s.Name = peerName(cur)
	}
	if cur.Type == "interface" {
		s.Risk = DropsPeers
	}
	b.step(s)
}

// deviceOf names the device of a section that somebody made by hand.
func (b *builder) deviceOf(s uci.Section) string {
	for i := range b.want.Peers {
		if text, _ := s.Get("public_key"); text == b.want.Peers[i].Key.String() {
			return b.want.Peers[i].Name
		}
	}
	return peerName(s)
}

// peerName is the name in a peer's section.
func peerName(s uci.Section) string {
	if name, ok := s.Get("description"); ok {
		return name
	}
	return strings.TrimPrefix(s.Name, home.SectionPrefix)
}

// drift reports whether a section is not as heimweg left it, and how that is
// known. Without a record nothing is known, and nothing is claimed.
func (b *builder) drift(config, name string, have *uci.Section) (bool, string) {
	digest, written := b.last.Digests[config+"."+name]
	switch {
	case !written:
		return false, ""
	case have == nil:
		return true, "somebody took it away on the router since heimweg wrote it"
	case have.Digest() != digest:
		return true, "somebody changed it on the router since heimweg wrote it"
	}
	return false, ""
}

// attachAdjusts gives foreign sections the options that home.toml changes there.
func (b *builder) attachAdjusts(config string, targets []target) {
	for _, a := range b.want.Adjust {
		if a.Config != config {
			continue
		}
		i := locate(targets, a.Section)
		if i < 0 {
			continue
		}
		t := &targets[i]
		have, set := option(*t.have, a.Option)
		switch {
		case set && have.List == a.List && slices.Equal(t.have.Values(a.Option), a.Values):
		case !set && len(a.Values) == 0:
		case len(a.Values) == 0:
			t.Section = t.Without(a.Option)
			t.turns = append(t.turns, a)
		default:
			t.Section = t.With(wantedOption(a))
			t.turns = append(t.turns, a)
		}
	}
}

func wantedOption(a blueprint.Adjust) uci.Option {
	if a.List {
		return uci.List(a.Option, a.Values...)
	}
	return uci.Opt(a.Option, strings.Join(a.Values, " "))
}

func option(s uci.Section, name string) (uci.Option, bool) {
	for i := len(s.Options) - 1; i >= 0; i-- {
		if s.Options[i].Name == name {
			return s.Options[i], true
		}
	}
	return uci.Option{}, false
}

// locate finds a section by name or as @type[n].
func locate(targets []target, ref string) int {
	typ, n, extended := extendedRef(ref)
	for i := range targets {
		switch {
		case !extended:
			if targets[i].Name == ref {
				return i
			}
		case targets[i].Type == typ:
			if n == 0 {
				return i
			}
			n--
		}
	}
	return -1
}

func (b *builder) adjusts(config string, t *target) {
	for _, a := range t.turns {
		s := Step{Do: Adjust, Config: config, Section: a.Section, Type: t.Type, Why: a.Why}
		if o, ok := option(*t.have, a.Option); ok {
			s.Old = []Line{lineOf(o, SecretThere)}
		}
		if o, ok := option(t.Section, a.Option); ok {
			s.New = []Line{lineOf(o, SecretNew)}
		}
		if a.Cuts {
			s.Risk = DropsConnection
		}
		if _, before := b.last.Adjusted[adjustKey(s)]; before {
			s.Drift, s.Who = true, "heimweg had set it, and somebody set it back on the router"
		}
		b.step(s)
		if a.Cuts {
			b.moves(a.Section)
		}
	}
}

func oldLines(s uci.Section) []Line {
	out := make([]Line, len(s.Options))
	for i, o := range s.Options {
		out[i] = lineOf(o, SecretThere)
	}
	return out
}

// newLines: a secret is kept when it is there; the marker means a new one.
func newLines(s uci.Section, canKeep bool) []Line {
	out := make([]Line, len(s.Options))
	for i, o := range s.Options {
		state := SecretNew
		if canKeep && !blueprint.IsKeep(o) {
			state = SecretKept
		}
		out[i] = lineOf(o, state)
	}
	return out
}

func lineOf(o uci.Option, secret Secret) Line {
	l := Line{Option: o.Name, List: o.List, Values: make([]string, 0, len(o.Values))}
	for _, v := range o.Values {
		if v.IsSecret() {
			l.Values, l.Secret = nil, secret
			return l
		}
		l.Values = append(l.Values, v.Reveal())
	}
	return l
}
