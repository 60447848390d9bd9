package home

import (
	"bytes"
	"errors"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// This file is the only one that knows the TOML library. Its parser is used
// through a package that calls itself unstable (its version is pinned in
// go.mod), because it alone tells the byte positions of every key, value and
// comment: the caret of a message and the editing in place need them.
// Facts observed with v2.4.3: a table node has no range of its own, its key
// has; arrays and inline tables have none either, but the key-value pair has; a
// comment behind a value arrives as the pair's next sibling.

// A span is a piece of the text, from byte at to before byte end.
type span struct{ at, end int }

type kind byte

const (
	kindString kind = iota
	kindBool
	kindInteger
	kindStrings // an array of strings, perhaps empty
	kindOther   // floats, dates, inline tables, mixed arrays
)

type value struct {
	span
	kind  kind
	text  string  // decoded, for strings; as written, for all other scalars
	items []value // elements of an array
}

// An entry is one "key = value".
type entry struct {
	key     string // parts of a dotted key are joined by dots
	keyAt   span
	dotted  bool
	val     value
	comment bool // a comment follows in the same line
}

// A section is a header with its entries. Entries before the first header are
// in a section without a name.
type section struct {
	name    string
	nameAt  span
	dotted  bool
	array   bool // [[name]]
	broken  bool // the header is not TOML
	entries []entry
}

func (s *section) get(key string) *entry {
	for i := range s.entries {
		if s.entries[i].key == key {
			return &s.entries[i]
		}
	}
	return nil
}

type lineKind byte

const (
	lineBlank lineKind = iota
	lineComment
	lineContent
)

// A document is a text taken apart. Nothing is checked beyond TOML's grammar.
type document struct {
	text     []byte
	starts   []int // where each line begins
	kinds    []lineKind
	sections []section
	faults   []syntaxFault
	peers    []*section // those of sections that are a [[peer]]
}

type syntaxFault struct {
	span
	message string // the library's words
}

// maxSyntaxFaults ends the reading of what is obviously not a home.toml. It
// also bounds the work: each fault may have scanned the text to its end.
const maxSyntaxFaults = 8

// byteOrderMark is what some Windows editors put before the first character.
const byteOrderMark = "\xef\xbb\xbf"

func scan(text []byte) *document {
	begin := 0
	if bytes.HasPrefix(text, []byte(byteOrderMark)) {
		begin = len(byteOrderMark)
	}
	d := &document{text: text, sections: []section{{}}}
	d.starts = append(make([]int, 0, bytes.Count(text, []byte("\n"))+1), begin)
	for i, c := range text {
		if c == '\n' {
			d.starts = append(d.starts, i+1)
		}
	}
	d.kinds = make([]lineKind, len(d.starts))
	var p unstable.Parser
	p.KeepComments = true
	for from := begin; len(d.faults) < maxSyntaxFaults; {
		p.Reset(text[from:])
		for p.NextExpression() {
			d.add(&p, p.Expression(), from)
		}
		err := p.Error()
		if err == nil {
			break
		}
		// Go on behind the faulty line, so that one look finds all mistakes.
		f := faultOf(&p, err, from)
		d.faults = append(d.faults, f)
		d.mark(f.span, lineContent)
		if l := d.lineSpan(d.line(f.at)); bytes.HasPrefix(bytes.TrimLeft(text[l.at:l.end], " \t"), []byte("[")) {
			d.sections = append(d.sections, section{broken: true}) // or its keys would be blamed on the section before
		}
		next := d.line(f.at) + 1
		if next >= len(d.starts) {
			break
		}
		from = d.starts[next]
	}
	for i := range d.sections {
		if d.sections[i].name == "peer" {
			d.peers = append(d.peers, &d.sections[i])
		}
	}
	return d
}

func faultOf(p *unstable.Parser, err error, from int) syntaxFault {
	var pe *unstable.ParserError
	if !errors.As(err, &pe) {
		return syntaxFault{span{from, from}, err.Error()}
	}
	r := p.Range(pe.Highlight)
	at := from + int(r.Offset)
	return syntaxFault{span{at, at + int(r.Length)}, pe.Message}
}

func (d *document) add(p *unstable.Parser, n *unstable.Node, from int) {
	switch n.Kind {
	case unstable.Comment:
		d.mark(spanOf(n.Raw, from), lineComment)
	case unstable.Table, unstable.ArrayTable:
		name, at, dotted := keyOf(n, from)
		d.mark(at, lineContent)
		d.sections = append(d.sections, section{name: name, nameAt: at, dotted: dotted, array: n.Kind == unstable.ArrayTable})
	case unstable.KeyValue:
		e := entry{}
		e.key, e.keyAt, e.dotted = keyOf(n, from)
		whole := spanOf(n.Raw, from)
		e.val = valueOf(n.Value(), from)
		e.val.span = span{d.valueStart(e.keyAt.end), whole.end}
		next := n.Next()
		e.comment = next != nil && next.Kind == unstable.Comment
		d.mark(whole, lineContent)
		s := &d.sections[len(d.sections)-1]
		if s.entries == nil {
			s.entries = make([]entry, 0, 5)
		}
		s.entries = append(s.entries, e)
	}
}

// valueStart skips " = " behind a key.
func (d *document) valueStart(at int) int {
	for at < len(d.text) && (d.text[at] == ' ' || d.text[at] == '\t' || d.text[at] == '=') {
		at++
	}
	return at
}

func spanOf(r unstable.Range, from int) span {
	return span{from + int(r.Offset), from + int(r.Offset) + int(r.Length)}
}

func keyOf(n *unstable.Node, from int) (name string, at span, dotted bool) {
	it := n.Key()
	for first := true; it.Next(); first = false {
		part, where := string(it.Node().Data), spanOf(it.Node().Raw, from)
		if first {
			name, at = part, where
			continue
		}
		name, at.end, dotted = name+"."+part, where.end, true
	}
	return name, at, dotted
}

func valueOf(n *unstable.Node, from int) value {
	v := value{span: spanOf(n.Raw, from), kind: kindOther}
	switch n.Kind {
	case unstable.String:
		v.kind, v.text = kindString, string(n.Data)
	case unstable.Bool:
		v.kind, v.text = kindBool, string(n.Data)
	case unstable.Integer:
		v.kind, v.text = kindInteger, string(n.Data)
	case unstable.Array:
		v.kind = kindStrings
		for it := n.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			item := value{span: spanOf(it.Node().Raw, from), kind: kindOther}
			if it.Node().Kind == unstable.String {
				item.kind, item.text = kindString, string(it.Node().Data)
			} else {
				v.kind = kindOther
			}
			v.items = append(v.items, item)
		}
	}
	return v
}

// mark sets the kind of every line that s touches.
func (d *document) mark(s span, k lineKind) {
	for i := d.line(s.at); i < len(d.starts) && (d.starts[i] < s.end || d.starts[i] == s.at); i++ {
		d.kinds[i] = k
	}
}

// line is the index, from 0, of the line that holds byte at.
func (d *document) line(at int) int {
	return max(sort.SearchInts(d.starts, at+1)-1, 0)
}

// lineSpan is line i without its end.
func (d *document) lineSpan(i int) span {
	s := span{d.starts[i], d.lineEnd(i)}
	for s.end > s.at && (d.text[s.end-1] == '\n' || d.text[s.end-1] == '\r') {
		s.end--
	}
	return s
}

// lineEnd is where line i ends, its line end included.
func (d *document) lineEnd(i int) int {
	if i+1 < len(d.starts) {
		return d.starts[i+1]
	}
	return len(d.text)
}

// eolOf is the line end that a text uses.
func eolOf(text []byte) string {
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// quote writes s as a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			const hex = "0123456789ABCDEF"
			b.WriteString(`\u00`)
			b.WriteByte(hex[r>>4])
			b.WriteByte(hex[r&15])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
