package isprouters

import (
	"net/netip"
	"strings"
)

// A Language is one that instructions are written in.
type Language string

// The languages. English is what others get.
const (
	English Language = "en"
	German  Language = "de"
)

// LanguageOf is the language of the first of these settings that is not empty, as
// LC_ALL, LC_MESSAGES and LANG have it: "de_AT.UTF-8".
func LanguageOf(settings ...string) Language {
	for _, s := range settings {
		if s == "" {
			continue
		}
		code, _, _ := strings.Cut(strings.ToLower(s), "_")
		code, _, _ = strings.Cut(code, ".")
		if code == string(German) {
			return German
		}
		return English
	}
	return English
}

// Seen is what is known about an ISP router without logging in. Everything may be
// empty.
type Seen struct {
	Maker, Model, Name string // what it calls itself by UPnP or TR-064
	Title, Server      string // of its settings page: <title>, and the header Server
	Vendor             string // of its MAC address
	Gateway            netip.Addr
}

// A Certainty says how a router was recognised.
type Certainty int

// The certainties.
const (
	Unknown Certainty = iota // it is any router
	Likely                   // only its address speaks for it
	Named                    // it says so itself
)

// A text is the same thing in each language; menus in the router's own language
// are the same in both.
type text struct{ en, de string }

func both(s string) text { return text{s, s} }

func (t text) in(l Language) string {
	if l == German && t.de != "" {
		return t.de
	}
	return t.en
}

// A Router is one kind of ISP router. The zero value is of no use: see Recognise.
type Router struct {
	ID   string // stable, for scripts: "fritzbox"
	Name string // as it is printed on the box

	page    string // its settings in a browser, when it has a name of its own
	marks   []string
	address netip.Addr // that only this one ships with; invalid: none

	fix    text // always the same address for a device
	open   text // the port itself
	fields text // what the form calls the values; "" for the plain words
	open6  text // the IPv6 firewall
	permit text // what lets programs open ports
	beware text // what else stops people here
	words  text // to look for when the path is not known, or not there
	asOf   text // of which version the path is
	source string
}

// Source is where the entry's path was read.
func (r Router) Source() string { return r.source }

// Recognise finds the kind of a router.
func Recognise(s Seen) (Router, Certainty) {
	said := " " + plain(strings.Join([]string{s.Maker, s.Model, s.Name, s.Title, s.Server}, " ")) + " "
	for _, r := range routers {
		for _, m := range r.marks {
			if strings.Contains(said, " "+m+" ") {
				return r, Named
			}
		}
	}
	for _, r := range routers {
		if r.address.IsValid() && r.address == s.Gateway {
			return r, Likely
		}
	}
	return generic, Unknown
}

// plain makes words comparable: small letters and digits, one blank between words.
func plain(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '!'
	}), " ")
}

// All lists the kinds of routers, the generic one last.
func All() []Router { return append(append([]Router{}, routers...), generic) }
