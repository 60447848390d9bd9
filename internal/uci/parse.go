package uci

import (
	"fmt"
	"strings"

	"github.com/heimweg/heimweg/internal/uci/scan"
)

// A SyntaxError says where a file cannot be read, in the uci program's own count
// (see scan.Error). It never quotes the file.
type SyntaxError struct {
	Package    string
	Line, Byte int
	Msg        string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s: %s at line %d, byte %d", e.Package, e.Msg, e.Line, e.Byte)
}

// Parse reads a configuration file as the uci program does: one bad line makes
// the whole of it unreadable, and the error is a *SyntaxError. Bytes of zero are
// refused; the program would cut lines there and glue the next ones to them.
//
// The program of 21.02 and 22.03 differs in two ways that this reader does not
// copy: an option that is set again moves behind the others (only their order
// differs), and a section that a file opens for the third time takes no more
// options (the program then refuses the file).
func Parse(name string, text []byte) (*Document, error) {
	s, errs := parse(name, string(text), true)
	if len(errs) > 0 {
		return nil, &errs[0]
	}
	d := &Document{}
	d.hold(s)
	return d, nil
}

// ParseLoose reads a configuration file as netifd and `uci -S` do: what it
// cannot make sense of is skipped, sometimes in surprising pieces (a surplus word
// is dropped and the words behind it are run as a statement). Unless Parse
// would read it, too, the document cannot be edited.
func ParseLoose(name string, text []byte) (*Document, []SyntaxError) {
	d := &Document{}
	s, errs := parse(name, string(text), true)
	if len(errs) > 0 {
		s, errs = parse(name, string(text), false)
		s.readOnly = &ReadOnlyError{name, 0, "it has lines that the uci program cannot read"}
	}
	d.hold(s)
	return d, errs
}

// parser builds a state from statements.
type parser struct {
	*state
	r       *scan.Reader
	current *section
	arena   []line
}

func parse(name, text string, strict bool) (*state, []SyntaxError) {
	p := &parser{
		state: &state{name: name, text: text, index: map[string]*section{}},
		r:     scan.New(text),
	}
	if i := strings.IndexByte(text, 0); i >= 0 {
		e := SyntaxError{name, strings.Count(text[:i], "\n") + 1, i - strings.LastIndexByte(text[:i], '\n') - 1, "zero byte"}
		return p.state, []SyntaxError{e}
	}
	p.arena = make([]line, 0, strings.Count(text, "\n")+1)
	var errs []SyntaxError
	for from, physical := 0, 1; p.r.NextLine(); {
		if err := p.line(physical, strict); err != nil {
			errs = append(errs, SyntaxError{name, err.Line, err.Byte, err.Msg})
			if strict {
				return p.state, errs
			}
		}
		raw := text[from:p.r.Offset()]
		p.last.raw = raw
		physical += strings.Count(raw, "\n")
		from = p.r.Offset()
	}
	if p.r.Dangling() {
		p.lock(0, "it ends with a backslash, which would swallow what is added")
	}
	return p.state, errs
}

func (p *parser) lock(physical int, why string) {
	if p.readOnly == nil {
		p.readOnly = &ReadOnlyError{p.name, physical, why}
	}
}

// line reads the statements of one line; there is more than one only with ";"
// between them (or in loose reading).
func (p *parser) line(physical int, strict bool) *scan.Error {
	l := p.newLine()
	statements := 0
	for {
		st, err := p.r.Statement(scan.Context{Strict: strict, Package: true, Section: p.current != nil})
		if err == nil && st.Kind == scan.None {
			break
		}
		if err == nil {
			err = p.apply(l, st, strict)
		}
		if err != nil {
			l.kind = otherLine
			return err
		}
		statements++
	}
	if p.r.Semicolon() || statements > 1 {
		p.lock(physical, "it has several statements on one line, separated by \";\"")
	}
	if statements == 0 && p.r.Rest() {
		l.kind = commentLine
	}
	return nil
}

func (p *parser) newLine() *line {
	if len(p.arena) == cap(p.arena) {
		p.arena = make([]line, 0, 64)
	}
	p.arena = p.arena[:len(p.arena)+1]
	l := &p.arena[len(p.arena)-1]
	p.append(l)
	return l
}

func (p *parser) apply(l *line, st scan.Statement, strict bool) *scan.Error {
	switch st.Kind {
	case scan.Config:
		if err := p.config(st, strict); err != nil {
			return err
		}
		l.kind = headerLine
	case scan.Option:
		l.kind, l.option = optionLine, st.Name
		l.effective = st.Value != ""
		p.current.option(st.Name, st.Value)
	case scan.List:
		l.kind, l.option, l.effective = optionLine, st.Name, true
		p.current.list(st.Name, st.Value)
	default:
		l.kind = otherLine // "package x" in a file that is loaded by name does nothing
		return nil
	}
	l.owner = p.current
	p.current.lines = append(p.current.lines, l)
	return nil
}

// config opens a section: a new one, or the one that has this name already.
// Made-up names are names, too.
func (p *parser) config(st scan.Statement, strict bool) *scan.Error {
	if st.Name != "" {
		if looksAnonymous(st.Name) {
			p.delicate = true
		}
		if old := p.index[st.Name]; old != nil {
			if strict && old.Type != st.Type {
				return p.r.Fail("section of different type overwrites prior section with same name")
			}
			if old.Type != st.Type {
				// Loose readers give the old section the new type. In UCI's
				// memory it stays anonymous only if both types are equally long.
				if len(old.Type) != len(st.Type) {
					old.Anonymous = false
				}
				old.Type = st.Type
			}
			p.current = old
			return nil
		}
	}
	sec := &section{Section: Section{Type: st.Type, Name: st.Name}}
	if st.Name == "" {
		sec.Anonymous = true
		sec.Name = AnonymousName(len(p.sections)+1, st.Type)
	}
	p.sections = append(p.sections, sec)
	if p.index[sec.Name] == nil {
		p.index[sec.Name] = sec
	}
	p.current = sec
	return nil
}

// option: the last value wins, in the place of the first; an empty one is ignored.
func (sec *section) option(name, value string) {
	if value == "" {
		return
	}
	sec.room()
	sec.Options = withOption(sec.Options, Option{Name: name, Values: []Value{valueOf(name, value)}})
}

// list: items add up, empty ones included; an option of that name becomes the
// first item.
func (sec *section) list(name, value string) {
	for i := range sec.Options {
		if o := &sec.Options[i]; o.Name == name {
			o.List = true
			o.Values = append(o.Values, valueOf(name, value))
			return
		}
	}
	sec.room()
	sec.Options = append(sec.Options, Option{Name: name, List: true, Values: []Value{valueOf(name, value)}})
}

// room makes place for the options of a usual section at once.
func (sec *section) room() {
	const usual = 6
	if sec.Options == nil {
		sec.Options = make([]Option, 0, usual)
		sec.lines = append(make([]*line, 0, usual+2), sec.lines...)
	}
}
