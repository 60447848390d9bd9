package home

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/heimweg/heimweg/internal/fault"
)

// hidden stands where a text is not repeated because it may be a secret.
const hidden = "(not shown)"

var (
	// A key in base64 has 44 characters, in hex 64. Shorter pieces count too: the
	// key may have a typing error in it.
	keyLike = regexp.MustCompile(`[A-Za-z0-9+/]{24,}=*`)
	// A password in an address: "http://root:secret@192.168.1.1".
	credentials = regexp.MustCompile(`[^\s"'=]+:[^\s"']*@`)
	// Lines whose name says that a secret follows.
	secretLine = regexp.MustCompile(`(?i)(key|secret|psk|pass|token|pwd)`)
	// Names under which people paste secrets.
	secretName = regexp.MustCompile(`^(private-?key|pre-?shared-?key|psk|secret(-?key)?|pass(word|phrase|wd)?|pwd|root-?password|token|private)$`)
)

func mayBeSecret(v string) bool { return keyLike.MatchString(v) || credentials.MatchString(v) }

// show quotes a value for a message: shortened, and not at all if it could be a key.
func show(v string) string {
	if keyLike.MatchString(v) && !strings.ContainsAny(v, ".:") {
		return hidden
	}
	v = credentials.ReplaceAllString(v, hidden+"@")
	v = keyLike.ReplaceAllString(v, hidden)
	const most = 60
	if utf8.RuneCountInString(v) > most {
		v = string([]rune(v)[:most-1]) + "…"
	}
	return strconv.Quote(v)
}

// place says where a piece of the text is, and quotes its line unless the line
// may hold a key.
func (r *reader) place(s span) fault.Place {
	d := r.doc
	i := d.line(s.at)
	l := d.lineSpan(i)
	at, end := min(max(s.at, l.at), l.end), min(max(s.end, l.at), l.end)
	if end-at > 2 && (d.text[at] == '"' || d.text[at] == '\'') && d.text[end-1] == d.text[at] {
		at, end = at+1, end-1 // what is between the quotes
	}
	p := fault.Place{File: r.file, Line: i + 1, Column: at - l.at + 1, Length: max(end-at, 1), Text: string(d.text[l.at:l.end])}
	hideSecret(&p)
	return p
}

// hideSecret takes out of the line what may be a key. What stands before it,
// and so the caret's column, stays where it is.
func hideSecret(p *fault.Place) {
	from := -1
	if eq := strings.IndexByte(p.Text, '='); eq >= 0 && secretLine.MatchString(p.Text[:eq]) {
		from = eq + 1
		for from < len(p.Text) && p.Text[from] == ' ' {
			from++
		}
		if from == len(p.Text) {
			from = -1 // nothing behind it; but what stands before it may itself be a key
		}
	}
	for _, secret := range []*regexp.Regexp{keyLike, credentials, secretQuery} {
		if m := secret.FindStringIndex(p.Text); m != nil && (from < 0 || m[0] < from) {
			from = m[0]
		}
	}
	if from < 0 {
		return
	}
	p.Text = p.Text[:from] + hidden
	if p.Column > from || p.Column+p.Length-1 > from {
		p.Column, p.Length = from+1, len(hidden)
	}
	p.Length = min(p.Length, len(p.Text)-p.Column+1)
}

// syntax explains what is not TOML. The library's words are for programmers; a
// look at the line tells the usual mistakes apart.
func (r *reader) syntax(s syntaxFault) {
	l := r.doc.lineSpan(r.doc.line(s.at))
	line := string(r.doc.text[l.at:l.end])
	name, val, hasValue := strings.Cut(line, "=")
	name, val = strings.TrimSpace(name), strings.TrimSpace(val)
	r.excused[name] = true
	if mayBeSecret(name) {
		name = hidden
	}
	secret := secretLine.MatchString(name)
	if hasValue && bareName.MatchString(name) && val != "" && !strings.ContainsAny(val[:1], "\"'[{#") {
		k, at := kindOf(name), span{l.at + strings.Index(line, val), l.end}
		if i := strings.Index(val, " #"); i >= 0 {
			val = strings.TrimSpace(val[:i])
			at.end = at.at + len(val)
		}
		switch {
		case secretName.MatchString(plain(name)):
			r.secret(span{l.at + strings.Index(line, name), l.at + strings.Index(line, name) + len(name)}, name)
			return
		case secret:
			r.wrong(at, "syntax", "the value of %s has no quotes", name).Do("put it in quotes: %s = \"…\"", name)
			return
		case strings.ContainsAny(val, "“”„‘’«»"):
			r.wrong(at, "syntax", "these are not the quotation marks that programs understand").Do("use the straight ones, \"like this\"")
			return
		case k == kindString && !strings.ContainsAny(val, "\"'"):
			r.wrong(at, "syntax", "the value of %s has no quotes", name).Do("write %s = %s", name, safeQuote(val))
			return
		case k == kindBool:
			f := r.wrong(at, "syntax", "%s is %s; it can be true or false", name, show(val))
			doBool(f, name, val)
			return
		}
	}
	switch {
	case hasValue && val == "" && name != "":
		r.wrong(s.span, "syntax", "%s has no value", name).Do("write a value behind the =, or delete the line")
	case !hasValue && strings.HasPrefix(strings.TrimSpace(line), "["):
		r.wrong(s.span, "syntax", "this section header is not complete").Do("write it as [tunnel], or as [[peer]] where there can be several")
	case !hasValue && s.at >= l.at && s.at <= l.end:
		r.wrong(s.span, "syntax", "here a name, a = and a value are expected").Do("put a # in front if it is a comment")
	case strings.Count(val, `"`)%2 == 1:
		r.wrong(s.span, "syntax", "a quotation mark is missing").Do("put one quotation mark before and one behind the value")
	case strings.Contains(s.message, "array"):
		r.wrong(s.span, "syntax", "this list is not complete").Do("write it as [\"one\", \"two\"]")
	case strings.Contains(s.message, "escape"):
		r.wrong(s.span, "syntax", "a backslash has a special meaning between quotation marks").Do("write it twice, or use single quotes")
	default:
		r.wrong(s.span, "syntax", "this is not how a value is written").Do("write name = \"text\", name = 12, name = true or name = [\"one\", \"two\"]")
	}
}

var bareName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// kindOf is the type of a key in whatever section knows it.
func kindOf(key string) kind {
	for _, s := range schema {
		if k, ok := s.key(key); ok {
			return k.kind
		}
	}
	return kindOther
}

// safeQuote is a value as it should be written, unless it may hold a secret.
func safeQuote(v string) string {
	if mayBeSecret(v) {
		return `"…"`
	}
	return quote(v)
}

// homeless complains about a key before the first section.
func (r *reader) homeless(e *entry) {
	if secretName.MatchString(plain(e.key)) {
		r.secret(e.keyAt, e.key)
		return
	}
	if _, ok := specOf(firstPart(e.key)); ok {
		r.oneForm(e.keyAt, firstPart(e.key))
		return
	}
	f := r.wrong(e.keyAt, "no-section", "%s stands before the first section", show(e.key))
	if in := whereIs(e.key); len(in) > 0 {
		f.Do("move the line below %s", strings.Join(in, " or "))
	} else {
		f.Do("delete the line, or put a # in front if it is a comment")
	}
}

func firstPart(key string) string {
	first, _, _ := strings.Cut(key, ".")
	return first
}

// oneForm refuses dotted keys and inline tables: correct TOML, but nothing that
// can be edited line by line.
func (r *reader) oneForm(at span, section string) {
	spec, _ := specOf(section)
	r.wrong(at, "form", "heimweg reads %s only as a section of its own", section).
		Because("so that its commands can change single lines of this file").
		Do("write %s in a line of its own, and one key = value per line below it", spec.header())
}

func (r *reader) unknownSection(s *section) {
	if _, ok := specOf(firstPart(s.name)); ok && s.dotted {
		r.oneForm(s.nameAt, firstPart(s.name))
		return
	}
	f := r.wrong(s.nameAt, "unknown-section", "there is no section %s", show(s.name))
	if m := meant(s.name, sectionNames()); m != "" {
		spec, _ := specOf(m)
		f.Do("write %s", spec.header())
	} else {
		f.Do("the sections are %s", strings.Join(sectionNames(), ", "))
	}
}

func (r *reader) unknownKey(e *entry, spec sectionSpec) {
	word := plain(e.key)
	if secretName.MatchString(word) {
		r.secretIn(e.keyAt, e.key, spec.name)
		return
	}
	f := r.wrong(e.keyAt, "unknown-key", "%s has no key %s", spec.header(), show(e.key))
	m := meant(e.key, spec.names())
	r.excused[m] = true
	other, computed := otherWords[word]
	switch {
	case computed && other == "":
		f.Because("heimweg works this out by itself from [reach], [[lan]] and [tunnel]").Do("delete the line")
	case len(whereIs(word)) > 0 && m != word:
		f.Do("it belongs to %s", strings.Join(whereIs(word), " or "))
	case m == "disabled" && word == "enabled":
		f.Do("write disabled = true for a peer that shall stay out; without it the peer may come")
	case m != "":
		f.Do("write %s", m)
	default:
		f.Do("the keys of %s are %s", spec.header(), strings.Join(spec.names(), ", "))
	}
}

// secret refuses a key that would hold a secret, whatever its value.
func (r *reader) secret(at span, key string) { r.secretIn(at, key, "") }

func (r *reader) secretIn(at span, key, section string) {
	f := r.wrong(at, "secret", "home.toml holds no secrets, and %s is one", show(key))
	if section == "ddns" {
		f.Because("the service's password is kept on the router only").Do("delete the line; heimweg apply asks for it once")
		return
	}
	f.Because("a private key stays on its own device, preshared keys and the password stay on the router")
	if strings.Contains(plain(key), "private") {
		f.Do("delete the line; public-key takes the public half, which \"wg pubkey\" computes")
	} else {
		f.Do("delete the line; preshared = true asks for a preshared key")
	}
}

var gotWords = map[kind]string{
	kindString: "text", kindBool: "true or false", kindInteger: "a number", kindStrings: "a list", kindOther: "something else",
}

// wrongType complains about a value of the wrong type, in a person's words.
func (r *reader) wrongType(e *entry, k keySpec) {
	raw := strings.TrimSpace(string(r.doc.text[e.val.at:e.val.end]))
	got := gotWords[e.val.kind]
	switch k.kind {
	case kindString:
		f := r.wrong(e.val.span, "wrong-type", "%s takes text in quotes, and this is %s", e.key, got)
		if e.val.kind == kindInteger && e.key == "name" && !mayBeSecret(raw) {
			f.Do("write %s = %s", e.key, quote(raw)) // a device may be called 7
		} else {
			f.Do("write it like %s = %s", e.key, k.example)
		}
	case kindInteger:
		f := r.wrong(e.val.span, "wrong-type", "%s takes a plain number, and this is %s", e.key, got)
		if _, err := strconv.ParseUint(e.val.text, 10, 31); err == nil && e.val.kind == kindString {
			f.Do("write it without quotes: %s = %s", e.key, strings.TrimLeft(e.val.text[:len(e.val.text)-1], "0")+e.val.text[len(e.val.text)-1:])
		} else {
			f.Do("write it like %s = %s", e.key, k.example)
		}
	case kindBool:
		f := r.wrong(e.val.span, "wrong-type", "%s takes true or false without quotes, and this is %s", e.key, got)
		doBool(f, e.key, strings.Trim(raw, `"'`))
	case kindStrings:
		f := r.wrong(e.val.span, "wrong-type", "%s takes a list of texts, and this is %s", e.key, got)
		if e.val.kind == kindString && !mayBeSecret(e.val.text) && len(e.val.text) < 60 {
			f.Do("write %s = [%s]", e.key, quote(e.val.text))
		} else {
			f.Do("write it like %s = %s", e.key, k.example)
		}
	}
}

// doBool proposes what a word such as "yes" or "off" probably means.
func doBool(f *fault.Fault, key, word string) {
	switch strings.ToLower(word) {
	case "true", "yes", "on", "1", "ja", "y":
		f.Do("write %s = true", key)
	case "false", "no", "off", "0", "nein", "n":
		f.Do("write %s = false", key)
	default:
		f.Do("write %s = true or %s = false", key, key)
	}
}
