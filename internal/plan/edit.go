package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/uci"
)

// Secrets are what a plan needs and must not hold. A secret that the plan keeps is
// never replaced by one of these.
type Secrets struct {
	Private   key.Private
	Preshared map[string]key.Preshared // by peer
	DDNS      uci.Value                // the password at the service that keeps the home's name
}

// A MissingSecretError names a secret that neither the router nor the caller has.
type MissingSecretError struct {
	Peer   string // "" for the tunnel's own key
	Option string
}

func (e *MissingSecretError) Error() string {
	if e.Option == ddnsPassword {
		return "the service that keeps the home's name needs a password, and there is none"
	}
	if e.Peer == "" {
		return "the tunnel needs a private key, and there is none"
	}
	return fmt.Sprintf("peer %s needs a preshared key, and there is none", e.Peer)
}

// A StaleError names a section that is not as it was when the plan was made.
type StaleError struct{ Config, Section string }

func (e *StaleError) Error() string {
	return fmt.Sprintf("%s.%s has changed since the plan was made", e.Config, e.Section)
}

// Edit carries the plan out on documents: it returns a new document for every
// configuration file that the plan writes, and leaves the given ones alone. The
// error is a *MissingSecretError, a *StaleError, or one of package uci.
func (p *Plan) Edit(docs map[string]*uci.Document, secrets Secrets) (map[string]*uci.Document, error) {
	out := map[string]*uci.Document{}
	for _, c := range p.Configs() {
		before := docs[c]
		if before == nil {
			before, _ = uci.Parse(c, nil)
		}
		e := editor{config: c, before: before, after: before.Clone(), secrets: secrets}
		for _, s := range p.edits(c, before) {
			if err := e.step(s); err != nil {
				return nil, err
			}
		}
		out[c] = e.after
	}
	return out, nil
}

// edits lists the steps that write a file in the order in which they can be done:
// sections go last, and from the end, because taking one out gives the anonymous
// ones behind it other names.
func (p *Plan) edits(config string, before *uci.Document) []Step {
	var out []Step
	for _, s := range p.Steps {
		if s.Writes() && s.Config == config {
			out = append(out, s)
		}
	}
	at := map[string]int{}
	for i, sec := range before.Sections() {
		at[sec.Name] = i + 1
	}
	rank := func(s Step) int {
		if s.Do != Remove {
			return -len(at) - 1
		}
		return -at[s.Section]
	}
	slices.SortStableFunc(out, func(x, y Step) int { return rank(x) - rank(y) })
	return out
}

type editor struct {
	config        string
	before, after *uci.Document
	secrets       Secrets
}

func (e *editor) step(s Step) error {
	if s.Do == Adjust {
		return e.adjust(s)
	}
	have, there := e.before.Section(s.Section)
	if there != (s.Do != Create) || there && !slices.EqualFunc(oldLines(have), s.Old, Line.Equal) {
		return &StaleError{e.config, s.Section}
	}
	if s.Do == Remove {
		return e.after.Delete(s.Section)
	}
	if s.From != "" {
		if have, there = e.before.Section(s.From); !there {
			return &StaleError{e.config, s.From}
		}
	}
	want := uci.Section{Type: s.Type, Name: s.Section}
	for _, l := range s.New {
		o, err := e.option(s, l, have)
		if err != nil {
			return err
		}
		want.Options = append(want.Options, o)
	}
	return e.after.Put(want)
}

// option turns a line into an option, with the secret in it.
func (e *editor) option(s Step, l Line, have uci.Section) (uci.Option, error) {
	if l.Secret == NotSecret {
		return l.option(), nil
	}
	if text, ok := have.Get(l.Option); ok && l.Secret != SecretNew && usable(l.Option, text) {
		return uci.HiddenOpt(l.Option, text), nil
	}
	text := e.secrets.Private.Reveal()
	switch l.Option {
	case "private_key":
	case ddnsPassword:
		text = e.secrets.DDNS.Reveal()
	default:
		text = e.secrets.Preshared[s.Name].Reveal()
	}
	if text == "" {
		return uci.Option{}, &MissingSecretError{Peer: s.Name, Option: l.Option}
	}
	return uci.HiddenOpt(l.Option, text), nil
}

func (l Line) option() uci.Option {
	if l.List {
		return uci.List(l.Option, l.Values...)
	}
	return uci.Opt(l.Option, strings.Join(l.Values, " "))
}

func (e *editor) adjust(s Step) error {
	name, ok := resolve(e.after, s.Section)
	if !ok {
		return &StaleError{e.config, s.Section}
	}
	have, _ := e.after.Section(name)
	line := s.line()
	o, set := option(have, line)
	if set != (len(s.Old) > 0) || set && !lineOf(o, SecretThere).Equal(s.Old[0]) {
		return &StaleError{e.config, s.Section}
	}
	if len(s.New) == 0 {
		return e.after.UnsetOption(name, line)
	}
	return e.after.SetOption(name, s.New[0].option())
}

// line is the name of the option that an Adjust is about.
func (s Step) line() string {
	for _, lines := range [][]Line{s.New, s.Old} {
		if len(lines) > 0 {
			return lines[0].Option
		}
	}
	return ""
}

// resolve finds a section by name or as @type[n].
func resolve(d *uci.Document, ref string) (string, bool) {
	typ, n, extended := extendedRef(ref)
	if !extended {
		_, ok := d.Section(ref)
		return ref, ok
	}
	of := d.OfType(typ)
	if n >= len(of) {
		return "", false
	}
	return of[n].Name, true
}

// extendedRef takes @type[n] apart.
func extendedRef(ref string) (typ string, n int, ok bool) {
	rest, at := strings.CutPrefix(ref, "@")
	typ, index, bracket := strings.Cut(strings.TrimSuffix(rest, "]"), "[")
	if !at || !bracket {
		return "", 0, false
	}
	n, err := strconv.Atoi(index)
	return typ, n, err == nil && n >= 0
}

// A Sync is one change of the live tunnel, with the secret it needs.
type Sync struct {
	Do         Action // PeerAdd, PeerChange or PeerRemove
	Peer       string
	Key        key.Public
	Preshared  key.Preshared // zero: none
	AllowedIPs []netip.Prefix
}

// Sync gives the plan's live changes, with keys and addresses from the documents
// as they are after Edit.
func (p *Plan) Sync(after map[string]*uci.Document) ([]Sync, error) {
	var out []Sync
	network := after["network"]
	for _, s := range p.Only(PeerRemove, PeerChange, PeerAdd) {
		k, err := key.ParsePublic(s.Key)
		if err != nil {
			return nil, fmt.Errorf("step %s: %w", s.ID, err)
		}
		y := Sync{Do: s.Do, Peer: s.Name, Key: k}
		if s.Do != PeerRemove {
			sec, ok := network.Section(s.Section)
			if text, _ := sec.Get("public_key"); !ok || text != s.Key {
				return nil, &StaleError{"network", s.Section}
			}
			if y.Preshared, y.AllowedIPs, err = liveData(sec); err != nil {
				return nil, fmt.Errorf("step %s: %w", s.ID, err)
			}
		}
		out = append(out, y)
	}
	return out, nil
}

func liveData(sec uci.Section) (psk key.Preshared, allowed []netip.Prefix, err error) {
	if text, ok := sec.Get("preshared_key"); ok {
		if psk, err = key.ParsePreshared(text); err != nil {
			return psk, nil, err
		}
	}
	for _, text := range sec.Values("allowed_ips") {
		a, err := netip.ParsePrefix(text)
		if err != nil {
			return psk, nil, err
		}
		allowed = append(allowed, a)
	}
	return psk, allowed, nil
}
