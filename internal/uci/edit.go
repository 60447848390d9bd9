package uci

import (
	"slices"
	"strings"
)

// Put creates a named section at the end of the file, or gives the one of that
// name this type and these options, in canonical form and in its place. A
// section that says the same already keeps its text. The type is checked against
// nothing but ValidType: refuse name clashes before.
func (d *Document) Put(want Section) error {
	if want.Anonymous || looksAnonymous(want.Name) {
		return &InvalidError{want.Name, "", "only sections with a name of their own can be put"}
	}
	if err := want.Validate(); err != nil {
		return err
	}
	want.Options = slices.Clone(written(want.Options))
	return d.edit(func(s *state) error {
		sec := s.find(want.Name)
		if sec == nil {
			s.create(want)
			return nil
		}
		if EqualSections(sec.Section, want) {
			return nil
		}
		s.replace(sec, want)
		return nil
	})
}

// SetOption gives one option of a section a new value, in the place of the old
// one or behind the section's last option. The rest of the text stays. An option
// that UCI cannot hold (empty, or a list without items) is taken out.
func (d *Document) SetOption(name string, o Option) error {
	if o.empty() {
		return d.UnsetOption(name, o.Name)
	}
	if err := o.validate(name); err != nil {
		return err
	}
	o.Values = slices.Clone(o.Values)
	return d.edit(func(s *state) error {
		sec := s.find(name)
		if sec == nil {
			return &NotFoundError{s.name, name}
		}
		if old, ok := sec.Section.option(o.Name); ok && old.Equal(o) {
			return nil
		}
		s.setOption(sec, o)
		return nil
	})
}

// UnsetOption takes an option out of a section; none there is no error.
func (d *Document) UnsetOption(name, option string) error {
	return d.edit(func(s *state) error {
		sec := s.find(name)
		if sec == nil {
			return &NotFoundError{s.name, name}
		}
		s.drop(sec, func(l *line) bool { return l.option == option })
		sec.Section = sec.Without(option)
		return nil
	})
}

// Delete takes a section out, with the comments between its lines and the blank
// line before it. A made-up name means the section that bears it now; it shifts
// the names of the anonymous sections behind it.
func (d *Document) Delete(name string) error {
	return d.edit(func(s *state) error {
		sec := s.find(name)
		if sec == nil {
			return &NotFoundError{s.name, name}
		}
		if s.delicate {
			return d.deleteCarefully(s, sec)
		}
		s.delete(sec)
		return nil
	})
}

func (s *state) delete(sec *section) {
	s.cut(sec)
	sec.gone = true
	s.dead++
	s.renumber = true
}

// edit runs one change on a state of the document's own.
func (d *Document) edit(change func(*state) error) error {
	s := d.state()
	if s.readOnly != nil {
		return s.readOnly
	}
	s.mu.Lock()
	if s.shared || d.get == nil {
		text, name := s.string(), s.name
		s.mu.Unlock()
		s, _ = parse(name, text, true)
		d.hold(s)
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if err := change(s); err != nil {
		return err
	}
	s.stale, s.views = true, nil
	return nil
}

// deleteCarefully reads the text back after the deletion, and takes it back if it
// does not say what it should: in a file that names sections like UCI's made-up
// names, two of them may melt into one when one before them goes away.
func (d *Document) deleteCarefully(s *state, sec *section) error {
	before := s.string()
	s.delete(sec)
	s.stale, s.views = true, nil
	after, errs := parse(s.name, s.string(), true)
	if len(errs) == 0 && slices.EqualFunc(s.list(), after.list(), EqualSections) {
		return nil
	}
	old, _ := parse(s.name, before, true)
	d.hold(old)
	return &ReadOnlyError{s.name, 0, "it names sections like UCI names unnamed ones, and without this one two of them would melt into one"}
}

// create appends a section: before a blank last line, so that the file ends
// with one as uci's own files do.
func (s *state) create(want Section) {
	sec := &section{Section: want}
	s.sections = append(s.sections, sec)
	s.index[want.Name] = sec
	at := s.last
	if at != nil && at.kind == blankLine && strings.HasSuffix(at.raw, "\n") {
		at = at.prev
	}
	at = s.insert(at, &line{raw: "\n"})
	s.write(at, sec)
}

// write puts a section's canonical lines behind at.
func (s *state) write(at *line, sec *section) {
	at = s.insert(at, &line{raw: string(appendHeader(nil, sec.Section)), kind: headerLine, owner: sec})
	sec.lines = append(sec.lines[:0], at)
	for _, o := range sec.Options {
		for _, l := range optionLines(sec, o) {
			at = s.insert(at, l)
			sec.lines = append(sec.lines, at)
		}
	}
}

func optionLines(sec *section, o Option) []*line {
	out := make([]*line, 0, len(o.Values))
	for _, v := range o.Values {
		one := Option{Name: o.Name, List: o.List, Values: []Value{v}}
		out = append(out, &line{raw: string(appendOption(nil, one)), kind: optionLine, option: o.Name, effective: true, owner: sec})
	}
	return out
}

func (s *state) replace(sec *section, want Section) {
	at := sec.lines[0].prev
	hole := &line{raw: "\n"} // keeps the place, and what stands before it, while the old lines go
	s.insert(at, hole)
	s.cutBehind(sec, hole)
	sec.Section = want
	s.write(hole, sec)
	s.remove(hole)
}

// setOption writes o where it first took effect, or at the end of the section.
func (s *state) setOption(sec *section, o Option) {
	place := -1
	for i, l := range sec.lines {
		if l.option == o.Name && l.effective {
			place = i
			break
		}
	}
	if place < 0 {
		place = len(sec.lines) - 1
	}
	at, lines := sec.lines[place], optionLines(sec, o)
	for _, l := range lines {
		at = s.insert(at, l)
	}
	sec.lines = slices.Insert(sec.lines, place+1, lines...)
	s.drop(sec, func(l *line) bool { return l.option == o.Name && !slices.Contains(lines, l) })
	sec.Section = sec.With(o)
}

// drop removes some of a section's option lines.
func (s *state) drop(sec *section, which func(*line) bool) {
	for _, l := range slices.Backward(sec.lines) {
		if l.kind == optionLine && which(l) {
			s.remove(l)
		}
	}
	sec.lines = slices.DeleteFunc(sec.lines, func(l *line) bool { return l.kind == optionLine && which(l) })
}

// cut removes a section's lines, those between them, and one blank line before
// each of its parts.
func (s *state) cut(sec *section) { s.cutBehind(sec, nil) }

// cutBehind is cut, sparing the line keep.
func (s *state) cutBehind(sec *section, keep *line) {
	for i := 0; i < len(sec.lines); {
		first, last := sec.lines[i], sec.lines[i]
		for i++; i < len(sec.lines) && sec.lines[i].kind != headerLine; i++ {
			last = sec.lines[i]
		}
		if before := first.prev; before != nil && before != keep && before.kind == blankLine {
			first = before
		}
		for l := last; ; {
			prev := l.prev
			s.remove(l)
			if l == first {
				break
			}
			l = prev
		}
	}
	sec.lines = nil
}

// append adds a line at the very end.
func (s *state) append(l *line) {
	l.prev = s.last
	if s.last != nil {
		s.last.next = l
	} else {
		s.first = l
	}
	s.last = l
}

// insert puts l behind at (nil: at the top) and returns it. Behind a last line
// without a line end, l takes over being the one without.
func (s *state) insert(at, l *line) *line {
	if at == nil {
		l.next = s.first
		s.first = l
	} else {
		l.prev, l.next = at, at.next
		at.next = l
	}
	if l.next != nil {
		l.next.prev = l
	} else {
		s.last = l
	}
	if at != nil && l.next == nil && !strings.HasSuffix(at.raw, "\n") {
		at.raw += "\n"
		l.raw = strings.TrimSuffix(l.raw, "\n")
	}
	return l
}

// remove takes l out. If it was the last line and had no line end, the line
// before loses its own: so taking out what was appended restores the text.
func (s *state) remove(l *line) {
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		s.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		s.last = l.prev
		if l.prev != nil && !strings.HasSuffix(l.raw, "\n") {
			l.prev.raw = strings.TrimSuffix(l.prev.raw, "\n")
		}
	}
}
