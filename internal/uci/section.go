package uci

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/uci/scan"
)

// An Option is one option or list of a section.
type Option struct {
	Name   string
	List   bool
	Values []Value // exactly one, unless List
}

// A Section is one section of a document. Sections handed out by a Document
// share their options with it: build a changed one with With and Without.
type Section struct {
	Type, Name string
	// Anonymous: Name is made up by UCI from place and type (AnonymousName), and
	// another section may bear it after the next change.
	Anonymous bool
	Options   []Option
}

// NewSection makes a named section.
func NewSection(typ, name string, opts ...Option) Section {
	return Section{Type: typ, Name: name, Options: opts}
}

// Opt is an option with a value. UCI cannot hold an empty one; it is left out
// when the section is written. The value is hidden if SecretOption says so.
func Opt(name, v string) Option {
	return Option{Name: name, Values: []Value{valueOf(name, v)}}
}

// List is a list of values. UCI cannot hold a list without items; it is left
// out when the section is written.
func List(name string, v ...string) Option {
	o := Option{Name: name, List: true}
	for _, s := range v {
		o.Values = append(o.Values, valueOf(name, s))
	}
	return o
}

// HiddenOpt is an option with a secret value.
func HiddenOpt(name, v string) Option {
	return Option{Name: name, Values: []Value{Hidden(v)}}
}

func (o Option) empty() bool {
	return len(o.Values) == 0 || !o.List && o.Values[0].Reveal() == ""
}

// Equal compares name, kind and values.
func (o Option) Equal(p Option) bool {
	return o.Name == p.Name && o.List == p.List && slices.EqualFunc(o.Values, p.Values, Value.Equal)
}

func (s Section) option(name string) (Option, bool) {
	for i := len(s.Options) - 1; i >= 0; i-- {
		if s.Options[i].Name == name {
			return s.Options[i], true
		}
	}
	return Option{}, false
}

// Get is what `uci get` prints: the value, or the items of a list joined by
// blanks, items with blanks in them quoted. A secret is revealed.
func (s Section) Get(option string) (string, bool) {
	o, ok := s.option(option)
	if !ok || len(o.Values) == 0 && !o.List {
		return "", false
	}
	if !o.List {
		return o.Values[0].Reveal(), true
	}
	var b strings.Builder
	for i, v := range o.Values {
		if i > 0 {
			b.WriteByte(' ')
		}
		if t := v.Reveal(); strings.ContainsAny(t, " \t\r\n") {
			b.WriteString(quote(t))
		} else {
			b.WriteString(t)
		}
	}
	return b.String(), true
}

// Values is the list's items, or the option's value as the only one. Secrets
// are revealed.
func (s Section) Values(option string) []string {
	o, _ := s.option(option)
	var out []string
	for _, v := range o.Values {
		out = append(out, v.Reveal())
	}
	return out
}

// Value is the value of an option, or the first item of a list.
func (s Section) Value(option string) (Value, bool) {
	o, ok := s.option(option)
	if !ok || len(o.Values) == 0 {
		return Value{}, false
	}
	return o.Values[0], true
}

// Has reports whether the option or list is there.
func (s Section) Has(option string) bool {
	_, ok := s.option(option)
	return ok
}

// Bool reads an option the way OpenWrt's shell functions do (config_get_bool:
// 1, on, true, yes, enabled and their opposites); def for anything else.
func (s Section) Bool(option string, def bool) bool {
	v, _ := s.Get(option)
	switch v {
	case "1", "on", "true", "yes", "enabled":
		return true
	case "0", "off", "false", "no", "disabled":
		return false
	}
	return def
}

// With is the section with these options set: in their old place if there was
// one of that name, else at the end.
func (s Section) With(opts ...Option) Section {
	s.Options = slices.Clone(s.Options)
	for _, o := range opts {
		s.Options = withOption(s.Options, o)
	}
	return s
}

// Without is the section without these options.
func (s Section) Without(names ...string) Section {
	s.Options = slices.DeleteFunc(slices.Clone(s.Options), func(o Option) bool { return slices.Contains(names, o.Name) })
	return s
}

func withOption(opts []Option, o Option) []Option {
	for i := range opts {
		if opts[i].Name == o.Name {
			opts[i] = o
			return opts
		}
	}
	return append(opts, o)
}

// Digest identifies a section's type, name and options in their order, secrets
// included, as hex SHA-256. Options that UCI cannot hold do not count.
func (s Section) Digest() string {
	h := sha256.New()
	put := func(kind byte, text string) {
		h.Write(strconv.AppendInt([]byte{kind}, int64(len(text)), 10))
		io.WriteString(h, ":"+text)
	}
	put('t', s.Type)
	put('n', s.Name)
	for _, o := range s.Options {
		if o.empty() {
			continue
		}
		kind := byte('o')
		if o.List {
			kind = 'l'
		}
		put(kind, o.Name)
		for _, v := range o.Values {
			put('v', v.Reveal())
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// EqualSections compares two sections as UCI sees them: type, name (a made-up
// one does not count) and options in their order.
func EqualSections(a, b Section) bool {
	return a.Type == b.Type && a.Anonymous == b.Anonymous && (a.Anonymous || a.Name == b.Name) &&
		slices.EqualFunc(written(a.Options), written(b.Options), Option.Equal)
}

// written is opts without those that UCI cannot hold.
func written(opts []Option) []Option {
	if !slices.ContainsFunc(opts, Option.empty) {
		return opts
	}
	return slices.DeleteFunc(slices.Clone(opts), Option.empty)
}

// An InvalidError says what cannot be written to a UCI file.
type InvalidError struct {
	Section, Option string // names, as far as it is about one
	Why             string
}

func (e *InvalidError) Error() string {
	at := "section " + strconv.Quote(e.Section)
	if e.Option != "" {
		at = "option " + strconv.Quote(e.Option) + " of " + at
	}
	return at + ": " + e.Why
}

// ValidName reports whether s can name a section or an option.
func ValidName(s string) bool { return scan.ValidName(s) }

// ValidType reports whether s is a section type that we write: letters, digits,
// "_" and "-". UCI takes any printable ASCII, but writes it without quotes, and
// a quote sign in a type makes the whole file unreadable (facts: OpenWrt 4.7.19).
func ValidType(s string) bool { return scan.ValidPackage(s) }

// ValidPackage reports whether s can name a configuration file: as a type.
// The uci program takes more (`t~`, "./t"), to everybody's surprise.
func ValidPackage(s string) bool { return scan.ValidPackage(s) }

// ValidValue reports whether the uci program would take s as a value: no
// control characters but tab, line feed and carriage return.
func ValidValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 32 && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

// Validate reports why a section cannot be written, as *InvalidError.
func (s Section) Validate() error {
	if !ValidType(s.Type) {
		return &InvalidError{s.Name, "", "the type may hold letters, digits, _ and - only"}
	}
	if !s.Anonymous && !ValidName(s.Name) {
		return &InvalidError{s.Name, "", "the name may hold letters, digits and _ only"}
	}
	for i, o := range s.Options {
		if err := o.validate(s.Name); err != nil {
			return err
		}
		for _, p := range s.Options[:i] {
			if p.Name == o.Name {
				return &InvalidError{s.Name, o.Name, "set twice"}
			}
		}
	}
	return nil
}

func (o Option) validate(section string) error {
	if !ValidName(o.Name) {
		return &InvalidError{section, o.Name, "the name may hold letters, digits and _ only"}
	}
	if !o.List && len(o.Values) > 1 {
		return &InvalidError{section, o.Name, "more than one value, and not a list"}
	}
	for _, v := range o.Values {
		if !ValidValue(v.Reveal()) {
			return &InvalidError{section, o.Name, "a value holds control characters"}
		}
	}
	return nil
}

// AnonymousName is the name that UCI gives to an unnamed section: "cfg", its
// running number in the file (from 1, at least two hex digits, re-opened sections
// not counted) and four hex digits of a hash of its type. So the name tells place
// and type, not content (facts: OpenWrt 4.3, 4.7.7, 4.7.16).
func AnonymousName(index int, typ string) string {
	return string(anonymousName(nil, index, typ))
}

func anonymousName(b []byte, index int, typ string) []byte {
	hash := uint32(5381) // D. J. Bernstein's, times 33
	for i := 0; i < len(typ); i++ {
		hash = hash*33 + uint32(typ[i])
	}
	const digits = "0123456789abcdef"
	b = append(b, "cfg"...)
	if index < 16 {
		b = append(b, '0')
	}
	b = strconv.AppendInt(b, int64(index), 16)
	for shift := 12; shift >= 0; shift -= 4 {
		b = append(b, digits[hash>>shift&15])
	}
	return b
}

// looksAnonymous reports whether a name could be a made-up one.
func looksAnonymous(name string) bool {
	rest, ok := strings.CutPrefix(name, "cfg")
	if !ok || len(rest) < 6 {
		return false
	}
	return strings.Trim(rest, "0123456789abcdef") == ""
}

// quote puts a text in single quotes, the way uci does.
func quote(s string) string { return string(appendQuoted(nil, s)) }

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '\'')
	for {
		i := strings.IndexByte(s, '\'')
		if i < 0 {
			break
		}
		b = append(b, s[:i]...)
		b = append(b, `'\''`...)
		s = s[i+1:]
	}
	b = append(b, s...)
	return append(b, '\'')
}

// Print is the canonical text of sections, secrets included: what the uci
// program itself writes at a commit.
func Print(sections []Section) []byte {
	var b []byte
	for _, s := range sections {
		b = append(b, '\n')
		b = appendHeader(b, s)
		for _, o := range s.Options {
			if !o.empty() {
				b = appendOption(b, o)
			}
		}
	}
	return append(b, '\n')
}

func appendHeader(b []byte, s Section) []byte {
	b = append(b, "config "...)
	if strings.ContainsAny(s.Type, `'"#;\`) {
		// uci itself writes the type bare and cannot read it back.
		b = appendQuoted(b, s.Type)
	} else {
		b = append(b, s.Type...)
	}
	if !s.Anonymous {
		b = append(b, " '"...)
		b = append(b, s.Name...)
		b = append(b, '\'')
	}
	return append(b, '\n')
}

func appendOption(b []byte, o Option) []byte {
	word := "\toption "
	if o.List {
		word = "\tlist "
	}
	for _, v := range o.Values {
		b = append(b, word...)
		b = append(b, o.Name...)
		b = append(b, ' ')
		b = appendQuoted(b, v.Reveal())
		b = append(b, '\n')
	}
	return b
}
