package uci

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Document is one configuration file: its text and what it says. The text is
// kept behind a closure, since it holds secrets; no way of printing a Document
// shows more than its name. It may be read by several goroutines at a time;
// edits need the document alone.
type Document struct {
	get func() *state // nil: an empty document
}

// A NotFoundError names a section that is not in the document.
type NotFoundError struct{ Package, Section string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s has no section %q", e.Package, e.Section)
}

// A ReadOnlyError says why a file can be read, but not safely be edited.
type ReadOnlyError struct {
	Package string
	Line    int // physical line, from 1; 0: the whole file
	Why     string
}

func (e *ReadOnlyError) Error() string {
	at := e.Package
	if e.Line > 0 {
		at += ":" + strconv.Itoa(e.Line)
	}
	return at + ": " + e.Why
}

// state is a document's content. A state with several documents to it (after
// Clone) is copied before the first edit.
type state struct {
	name string

	mu     sync.Mutex
	shared bool
	text   string    // as parsed, or as last put together
	stale  bool      // text is older than the lines
	views  []Section // what Sections gives, nil when out of date

	first, last *line
	sections    []*section
	dead        int // deleted ones that are still in sections
	index       map[string]*section
	renumber    bool // names of anonymous sections in index and sections are out of date
	delicate    bool // there are names like UCI's made-up ones; check a deletion by reading it back
	readOnly    *ReadOnlyError
}

// line is one statement (with its continuation lines), comment or blank line.
type line struct {
	prev, next *line
	raw        string // with its line end; only the last line may lack one
	kind       lineKind
	option     string // name, of an option or list line
	effective  bool   // an option line that is not just ignored
	owner      *section
}

type lineKind uint8

const (
	blankLine lineKind = iota
	commentLine
	headerLine
	optionLine
	otherLine // package statements, unreadable lines
)

type section struct {
	Section
	lines []*line // headers and options, in order
	gone  bool    // deleted
}

func (d *Document) state() *state {
	if d == nil || d.get == nil {
		return &state{}
	}
	return d.get()
}

func (d *Document) hold(s *state) { d.get = func() *state { return s } }

// Name is the package's name: "network".
func (d *Document) Name() string { return d.state().name }

// Text is the whole file, secrets included. Unedited, it is the text that was parsed.
func (d *Document) Text() []byte {
	s := d.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.string())
}

func (s *state) string() string {
	if s.stale {
		n := 0
		for l := s.first; l != nil; l = l.next {
			n += len(l.raw)
		}
		var b strings.Builder
		b.Grow(n)
		for l := s.first; l != nil; l = l.next {
			b.WriteString(l.raw)
		}
		s.text, s.stale = b.String(), false
	}
	return s.text
}

// Sections lists the sections in their order. The slice is the caller's, the
// options in it are not.
func (d *Document) Sections() []Section {
	s := d.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list())
}

func (s *state) list() []Section {
	if s.views != nil {
		return s.views
	}
	s.number()
	s.views = make([]Section, 0, len(s.sections)-s.dead)
	for _, sec := range s.sections {
		if !sec.gone {
			s.views = append(s.views, sec.Section)
		}
	}
	return s.views
}

// number drops deleted sections and gives anonymous ones their names anew.
func (s *state) number() {
	if s.dead > 0 {
		s.sections = slices.DeleteFunc(s.sections, func(sec *section) bool { return sec.gone })
		s.dead = 0
	}
	if !s.renumber {
		return
	}
	s.renumber = false
	clear(s.index)
	for i, sec := range s.sections {
		if sec.Anonymous {
			sec.Name = AnonymousName(i+1, sec.Type)
		}
		if s.index[sec.Name] == nil {
			s.index[sec.Name] = sec
		}
	}
}

func (s *state) find(name string) *section {
	if s.renumber && looksAnonymous(name) {
		s.number()
	}
	sec := s.index[name]
	if sec == nil || sec.gone {
		return nil
	}
	return sec
}

// Section finds a section by name, made-up names of anonymous ones included.
func (d *Document) Section(name string) (Section, bool) {
	s := d.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	sec := s.find(name)
	if sec == nil {
		return Section{}, false
	}
	return sec.Section, true
}

// Line tells on which line of the file, counted from 1, a section begins; with
// an option, where that option stands: the last line that sets it, or the first
// item of a list. 0 when there is no such thing.
func (d *Document) Line(section, option string) int {
	s := d.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	sec := s.find(section)
	if sec == nil {
		return 0
	}
	want := sec.line(option)
	n := 1
	for l := s.first; l != nil; l = l.next {
		if l == want {
			return n
		}
		n += strings.Count(l.raw, "\n")
	}
	return 0
}

// line is the line of an option, or the header's when option is "".
func (sec *section) line(option string) *line {
	o, _ := sec.Section.option(option)
	var found *line
	for _, l := range sec.lines {
		switch {
		case option == "" && l.kind == headerLine:
			return l
		case l.kind != optionLine || l.option != option || !l.effective:
		case found == nil || !o.List:
			found = l
		}
	}
	return found
}

// OfType lists the sections of one type, in order.
func (d *Document) OfType(typ string) []Section {
	s := d.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Section
	for _, sec := range s.list() {
		if sec.Type == typ {
			out = append(out, sec)
		}
	}
	return out
}

// Editable reports, as *ReadOnlyError, why Put, SetOption, UnsetOption and
// Delete would refuse to touch this file; nil if they would not.
func (d *Document) Editable() error {
	if r := d.state().readOnly; r != nil {
		return r
	}
	return nil
}

// Clone is a document of its own with the same content. It costs nothing
// until one of the two is edited.
func (d *Document) Clone() *Document {
	c := &Document{}
	if d == nil || d.get == nil {
		return c
	}
	s := d.get()
	s.mu.Lock()
	s.shared = true
	s.mu.Unlock()
	c.hold(s)
	return c
}

// Equal compares two documents as UCI sees them: sections in their order, with
// their names, types and ordered options. Comments, quoting and file name do not count.
func Equal(a, b *Document) bool {
	return slices.EqualFunc(a.Sections(), b.Sections(), EqualSections)
}

// String names the document without its content.
func (d *Document) String() string { return "uci package " + strconv.Quote(d.Name()) }

// Format prints String under every verb.
func (d *Document) Format(f fmt.State, _ rune) { io.WriteString(f, d.String()) }

// MarshalJSON writes the name and the sections, secrets redacted.
func (d *Document) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Package  string
		Sections []Section
	}{d.Name(), d.Sections()})
}

// LogValue logs the name.
func (d *Document) LogValue() slog.Value { return slog.StringValue(d.String()) }
