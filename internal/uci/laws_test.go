package uci

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// texts draws a document that parses: from the corpus, made of nasty pieces, or
// made of sane ones, and sometimes without its last line end.
func texts(t *rapid.T) string {
	for seed := rapid.Uint64().Draw(t, "seed"); ; seed++ {
		r := rand.New(rand.NewPCG(seed, 7))
		text := ""
		switch r.IntN(4) {
		case 0:
			c := corpus()
			text = string(c[r.IntN(len(c))].Data)
		case 1:
			text = nasty(r)
		default:
			text = sane(r)
		}
		if r.IntN(3) == 0 {
			text = strings.TrimRight(text, "\r\n")
		}
		if _, err := Parse("t", []byte(text)); err == nil {
			return text
		}
	}
}

// sane makes texts that people and programs write.
func sane(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	end := pick("\n", "\n", "\n", "\r\n")
	var b strings.Builder
	for i := range r.IntN(8) {
		b.WriteString(pick("", end, end, "# note"+end, end+"# note"+end))
		name := pick("", "", fmt.Sprint(" 's", i, "'"), fmt.Sprint(" s", r.IntN(4)), pick("", "", "", " cfg03b606"))
		b.WriteString("config a" + name + pick("", "", " # why") + end)
		for range r.IntN(5) {
			b.WriteString(pick("\t", "\t", "  ", ""))
			b.WriteString(pick("option", "option", "list") + " " + pick("x", "y", "z", "private_key") + " " + pick("1", "'2'", `"3"`, "''", "'two"+end+"lines'", `\'`, "4 # c") + end)
			b.WriteString(pick("", "", "", "", "\t# inside"+end, end))
		}
	}
	b.WriteString(pick("", "", end, end+end, "# the end"+end))
	return b.String()
}

func mustParse(t interface{ Fatalf(string, ...any) }, text string) *Document {
	d, err := Parse("t", []byte(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return d
}

func TestTextIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := texts(t)
		if got := string(mustParse(t, text).Text()); got != text {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

func TestPrintedReadsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := mustParse(t, texts(t))
		printed := string(Print(d.Sections()))
		again := mustParse(t, printed)
		if hasDouble(d) {
			return // sections of one made-up name melt into one, as with uci itself
		}
		if !Equal(d, again) {
			t.Fatalf("%q\nprints %q", d.Text(), printed)
		}
		if got := string(Print(again.Sections())); got != printed {
			t.Fatalf("printed again: %q, first %q", got, printed)
		}
	})
}

func hasDouble(d *Document) bool {
	seen := map[string]bool{}
	for _, s := range d.Sections() {
		if seen[s.Name] || looksAnonymous(s.Name) && !s.Anonymous {
			return true
		}
		seen[s.Name] = true
	}
	return false
}

func TestLooseIsStrictWhereItCan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := texts(t)
		d, errs := ParseLoose("t", []byte(text))
		if len(errs) > 0 || !Equal(d, mustParse(t, text)) {
			t.Fatalf("%q: %v", text, errs)
		}
	})
}

// values draws what may be written.
func values(t *rapid.T) string {
	return rapid.OneOf(rapid.SampledFrom([]string{"1", "it's", "a b", "two\nlines", "tab\t", "\\", "#", ";", "\r\n", "'", `"`, "ü", "\xff", "'\\''"}),
		rapid.StringN(1, 8, 20).Filter(ValidValue)).Filter(func(s string) bool { return s != "" }).Draw(t, "value")
}

func options(t *rapid.T) Option {
	name := rapid.SampledFrom([]string{"x", "y", "z", "private_key", "new"}).Draw(t, "option")
	if rapid.Bool().Draw(t, "list") {
		return List(name, rapid.SliceOfN(rapid.Custom(values), 1, 3).Draw(t, "items")...)
	}
	return Opt(name, values(t))
}

func TestPutThenDeleteRestores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := texts(t)
		d := mustParse(t, text)
		if d.Editable() != nil {
			return
		}
		n := rapid.IntRange(1, 3).Draw(t, "sections")
		for i := range n {
			s := NewSection("hw", fmt.Sprint("hw_", i)).With(options(t), options(t))
			if err := d.Put(s); err != nil {
				t.Fatalf("put: %v", err)
			}
			if got, found := d.Section(s.Name); !found || !EqualSections(got, s) {
				t.Fatalf("put %v, found %v", s, got)
			}
		}
		for i := range n {
			if err := d.Delete(fmt.Sprint("hw_", n-1-i)); err != nil {
				t.Fatalf("delete: %v", err)
			}
		}
		if got := string(d.Text()); got != text {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

func TestSetThenUnsetRestores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := texts(t)
		d := mustParse(t, text)
		all := d.Sections()
		if d.Editable() != nil || len(all) == 0 {
			return
		}
		s := rapid.SampledFrom(all).Draw(t, "section")
		o := options(t)
		o.Name = "brand_new"
		if err := d.SetOption(s.Name, o); err != nil {
			t.Fatalf("set: %v", err)
		}
		if err := d.UnsetOption(s.Name, o.Name); err != nil {
			t.Fatalf("unset: %v", err)
		}
		if got := string(d.Text()); got != text {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

// model is a document without a text.
type model []Section

func (m model) find(name string) int {
	return slices.IndexFunc(m, func(s Section) bool { return s.Name == name })
}

func (m model) number() {
	for i := range m {
		if m[i].Anonymous {
			m[i].Name = AnonymousName(i+1, m[i].Type)
		}
	}
}

// statements gives the raw lines of the sections to keep an eye on.
func statements(d *Document, keep func(*section) bool) []string {
	var out []string
	s := d.state()
	for _, sec := range s.sections {
		if !keep(sec) {
			continue
		}
		var b strings.Builder
		for _, l := range sec.lines {
			b.WriteString(strings.TrimRight(l.raw, "\r\n") + "|")
		}
		out = append(out, b.String())
	}
	return out
}

// Random edits do to the document what they do to a plain list of sections, the
// text always reads back as that, and what was not touched keeps its text.
func TestEditsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := texts(t)
		d := mustParse(t, text)
		original := d.Clone()
		if d.Editable() != nil || hasDouble(d) {
			return
		}
		m := model(d.Sections())
		touched := map[string]bool{}
		for range rapid.IntRange(1, 6).Draw(t, "edits") {
			m.number()
			edit(t, d, &m, touched)
			m.number()
			if got := d.Sections(); !slices.EqualFunc(got, m, sameWithName) {
				t.Fatalf("%q\nbecame %q\nwhich is %v\nwant %v", text, d.Text(), got, m)
			}
			if again := mustParse(t, string(d.Text())); !slices.EqualFunc(again.Sections(), m, sameWithName) {
				t.Fatalf("%q\nbecame %q\nwhich reads %v\nwant %v", text, d.Text(), again.Sections(), m)
			}
		}
		if got := string(original.Text()); got != text {
			t.Fatalf("the edit of a clone changed %q to %q", text, got)
		}
		untouched := func(s *section) bool { return !s.Anonymous && !touched[s.Name] }
		before := statements(mustParse(t, text), untouched)
		after := statements(mustParse(t, string(d.Text())), untouched)
		if !slices.Equal(before, after) {
			t.Fatalf("untouched sections\n%q\nbecame\n%q", before, after)
		}
		before = comments(mustParse(t, text), untouched)
		after = comments(mustParse(t, string(d.Text())), func(*section) bool { return true })
		if !within(before, after) {
			t.Fatalf("comments\n%q\nbecame\n%q", before, after)
		}
	})
}

// comments lists the comment lines but those between the lines of sections that
// keep does not hold.
func comments(d *Document, keep func(*section) bool) []string {
	var out []string
	for l := d.state().first; l != nil; l = l.next {
		if l.kind != commentLine {
			continue
		}
		next := l.next
		for next != nil && (next.kind == commentLine || next.kind == blankLine) {
			next = next.next
		}
		if next == nil || next.kind != optionLine || keep(next.owner) {
			out = append(out, strings.TrimRight(l.raw, "\r\n"))
		}
	}
	return out
}

// within reports whether all of some is in of, in order.
func within(some, of []string) bool {
	for _, s := range of {
		if len(some) > 0 && some[0] == s {
			some = some[1:]
		}
	}
	return len(some) == 0
}

func sameWithName(a, b Section) bool { return EqualSections(a, b) && a.Name == b.Name }

func edit(t *rapid.T, d *Document, m *model, touched map[string]bool) {
	names := []string{"s1", "hw_a", "hw_b", "lan", "none"}
	for _, s := range *m {
		names = append(names, s.Name)
	}
	name := rapid.SampledFrom(names).Draw(t, "name")
	touched[name] = true
	i := m.find(name)
	var err error
	switch rapid.SampledFrom([]string{"put", "set", "unset", "delete"}).Draw(t, "edit") {
	case "put":
		s := NewSection(rapid.SampledFrom([]string{"a", "hw"}).Draw(t, "type"), name).With(options(t), options(t))
		err = d.Put(s)
		if looksAnonymous(name) {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("put %s: %v", name, err)
			}
			return
		}
		if i >= 0 {
			(*m)[i] = s
		} else {
			*m = append(*m, s)
		}
	case "set":
		o := options(t)
		if err = d.SetOption(name, o); i >= 0 {
			(*m)[i] = (*m)[i].With(o)
		}
	case "unset":
		o := options(t).Name
		if err = d.UnsetOption(name, o); i >= 0 {
			(*m)[i] = (*m)[i].Without(o)
		}
	case "delete":
		err = d.Delete(name)
		if refused := new(ReadOnlyError); d.state().delicate && errors.As(err, &refused) {
			return // two sections would have melted into one
		}
		if i >= 0 {
			*m = slices.Delete(slices.Clone(*m), i, i+1)
		} else if missing := new(NotFoundError); !errors.As(err, &missing) {
			t.Fatalf("deleting %s: %v", name, err)
		} else {
			return
		}
	}
	if missing := new(NotFoundError); i < 0 && errors.As(err, &missing) {
		return
	}
	if err != nil {
		t.Fatalf("editing %s: %v", name, err)
	}
}

// nasty makes texts from the pieces that the grammar stumbles over.
func nasty(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	word := func() string {
		switch r.IntN(12) {
		case 0, 1, 2, 3:
			return pick("a", "b", "c", "rule", "lan", "wg0", "n_1", "cfg01b606", "cfg02b606", "cfg0392bd")
		case 4, 5:
			return "'" + pick("", "x", "a b", "two\nlines", "it", `back\slash`, "#no", "a;b", "\r", "t\\\nu") + "'"
		case 6, 7:
			return `"` + pick("", "x", "a b", "two\nlines", `q\"q`, `n\n`, "join\\\ned", "cr\\\r\nlf", "it's", ";") + `"`
		case 8:
			return pick("a", "") + pick("'b'", `"c"`, `\d`, "\\\ne", "\\\r\nf", "\\\n\tg", `\'`, `\ h`) + pick("", "i", "'j k'")
		case 9:
			return pick("", "a", "'b'", `\c`) + pick(";", "#x", "; ", " ;", ";c d") + pick("", "config e", "o f g", " l h 'i'")
		case 10:
			return pick("a-b", "a.b", "ty;pe", "ü", "\x01", "\x7f", "'", `"`, `\`)
		default:
			return pick("1", "0", "10.0.0.1/24", "x=y", "$p", "a\vb", "-")
		}
	}
	blank := func() string { return pick(" ", " ", " ", "\t", "  ", "\v", "\f", " \r ", " \\\n", "") }
	var b strings.Builder
	if r.IntN(30) == 0 {
		b.WriteString("\ufeff")
	}
	for range 1 + r.IntN(8) {
		b.WriteString(pick("", "", "", "\t", " ", "\r", "\v"))
		switch k := r.IntN(20); {
		case k < 6 || b.Len() < 8:
			b.WriteString(pick("config", "config", "config", "c"))
			b.WriteString(pick(" ", " ", "\t", " ", "\v", ""))
			b.WriteString(pick("a", "a", "rule", "b", word()))
			if r.IntN(2) == 0 {
				b.WriteString(blank() + word())
			}
		case k < 15:
			b.WriteString(pick("option", "option", "list", "list", "o", "l"))
			b.WriteString(pick(" ", " ", "\t", " ", "  ", "\f", ""))
			b.WriteString(pick("a", "a", "b", "lst", word()))
			if r.IntN(8) > 0 {
				b.WriteString(blank() + word())
			}
		case k == 15:
			b.WriteString(pick("package", "p") + " " + word())
		case k == 16:
			b.WriteString("# " + word())
		case k == 17:
			b.WriteString(word())
		case k == 18:
			b.WriteString(pick("config", "option", "list", "package", "optionx", "configs a"))
		}
		if r.IntN(10) == 0 {
			b.WriteString(blank() + word())
		}
		b.WriteString(pick("\n", "\n", "\n", "\n", "\n", "\r\n", " \n", "#c\n", " # c\n", ";", "\n\n"))
	}
	if r.IntN(4) == 0 {
		return strings.TrimRight(b.String(), "\n")
	}
	return b.String()
}
