package ucicli

import (
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/uci/scan"
)

// pkg is one loaded configuration file.
type pkg struct {
	name, path string
	staged     bool // changes go to the save directory; false for files outside the configuration directories
	override   bool // from the override directory
	sections   []*section
	count      int // sections ever made, for made-up names; deleted ones still count
	changes    []change
	saved      []change // those read from the save directories
}

type section struct {
	name, typ string
	anonymous bool
	reopened  bool // its type was set again (counts up to 22.03 only)
	options   []*option
}

type option struct {
	name  string
	list  bool
	value string
	items []string
}

// kind is the prefix of a line in a save file.
type kind byte

const (
	set       kind = 0
	added     kind = '+'
	removed   kind = '-'
	renamed   kind = '@'
	reordered kind = '^'
	listAdd   kind = '|'
	listDel   kind = '~'
)

// change is one staged change.
type change struct {
	kind            kind
	section, option string
	hasOption       bool
	value           string
	hasValue        bool
}

// target is what an argument like network.@peer[-1].mtu=1420 points at.
type target struct {
	pkgName, sectionName, optionName string
	hasSection, hasOption            bool
	value                            string
	hasValue                         bool
	extended                         bool // the section is given as @type[index]
	complete                         bool // everything named was found

	pkg     *pkg
	section *section
	option  *option
	lost    bool // the section's type was set a third time, by an old uci
}

func find(sections []*section, name string) *section {
	for _, s := range sections {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (s *section) find(name string) *option {
	for _, o := range s.options {
		if o.name == name {
			return o
		}
	}
	return nil
}

// printable is libuci's check for package names and section types.
func printable(s string) bool { return scan.ValidType(s) }

// split takes an argument apart.
func split(arg string) (t target, c code) {
	var name string
	name, t.value, t.hasValue = strings.Cut(arg, "=")
	parts := strings.Split(name, ".")
	if len(parts) > 3 {
		return target{}, errParse
	}
	t.pkgName = parts[0]
	if len(parts) > 1 {
		t.sectionName, t.hasSection = parts[1], true
	}
	if len(parts) > 2 {
		t.optionName, t.hasOption = parts[2], true
	}
	switch {
	case !printable(t.pkgName),
		t.hasOption && !scan.ValidName(t.optionName),
		t.hasValue && !uci.ValidValue(t.value):
		return target{}, errParse
	}
	t.extended = t.hasSection && !scan.ValidName(t.sectionName)
	return t, ok
}

// locate finds what t points at, loading the package if need be.
func (p *program) locate(t *target) code {
	t.pkg = p.loaded(t.pkgName)
	if t.pkg == nil {
		var c code
		if t.pkg, c = p.load(t.pkgName); c != ok {
			return c
		}
	}
	if !t.hasSection {
		t.complete = true
		return ok
	}
	if t.extended {
		s, c := byIndex(t.pkg, t.sectionName)
		if c != ok {
			return p.fail(c)
		}
		if s != nil {
			t.section, t.sectionName = s, s.name
		}
	} else {
		t.section = find(t.pkg.sections, t.sectionName)
	}
	if t.section == nil {
		return ok
	}
	if t.hasOption {
		if t.option = t.section.find(t.optionName); t.option == nil {
			return ok
		}
	}
	t.complete = true
	return ok
}

// lookup is split and locate.
func (p *program) lookup(arg string) (*target, code) {
	p.err = ok
	t, c := split(arg)
	if c != ok {
		return nil, p.fail(c)
	}
	if c := p.locate(&t); c != ok {
		return nil, c
	}
	return &t, ok
}

func (p *program) loaded(name string) *pkg {
	for _, k := range p.packages {
		if k.name == name {
			return k
		}
	}
	return nil
}

// byIndex finds @type[i]: from the end if i is negative, among all sections if
// there is no type. nil if there are not so many.
func byIndex(k *pkg, ref string) (*section, code) {
	typ, rest, found := strings.Cut(ref, "[")
	index, end, closed := strings.Cut(rest, "]")
	if !strings.HasPrefix(typ, "@") || !found || !closed || end != "" {
		return nil, errInvalid
	}
	typ = typ[1:]
	i, tail := integer(index)
	if tail != "" || typ != "" && !printable(typ) {
		return nil, errInvalid
	}
	var of []*section
	for _, s := range k.sections {
		if typ == "" || s.typ == typ {
			of = append(of, s)
		}
	}
	if i < 0 {
		i += len(of)
	}
	if i < 0 || i >= len(of) {
		return nil, ok
	}
	return of[i], ok
}

// integer reads a number like strtol; no digits are 0, and all of s is left.
func integer(s string) (n int, rest string) {
	from := 0
	for from < len(s) && scan.Space(s[from]) {
		from++
	}
	end := from
	if end < len(s) && (s[end] == '-' || s[end] == '+') {
		end++
	}
	digits := end
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	if end == digits {
		return 0, s
	}
	n, _ = strconv.Atoi(s[from:end])
	return n, s[end:]
}

// number reports whether s starts with a number, as sscanf "%d" sees it. Nothing
// at all counts, too: sscanf then returns EOF, which is not 0.
func number(s string) (n int, is bool) {
	n, rest := integer(s)
	return n, rest != s || strings.TrimLeft(s, " \t\n\v\f\r") == ""
}

func (k *pkg) note(quiet bool, c change) {
	if !quiet && k.staged {
		k.changes = append(k.changes, c)
	}
}

func (t *target) change(kd kind) change {
	return change{kd, t.sectionName, t.optionName, t.hasOption, t.value, t.hasValue}
}

func (k *pkg) newSection(typ, name string) *section {
	k.count++
	s := &section{name: name, typ: typ}
	if name == "" {
		s.anonymous = true
		s.name = uci.AnonymousName(k.count, typ)
	}
	k.sections = append(k.sections, s)
	return s
}

func (k *pkg) addSection(typ string, quiet bool) *section {
	s := k.newSection(typ, "")
	k.note(quiet, change{kind: added, section: s.name, value: typ, hasValue: true})
	return s
}

// old reports the uci of 21.02 and 22.03, which puts a changed option behind
// the others.
func (p *program) old() bool { return p.line.Before(router.Line2305) }

// set is `uci set`, also for lines of files and save files; quiet: do not stage.
func (p *program) set(t *target, quiet bool) code {
	if !t.hasValue || t.section == nil && (t.hasOption || !t.hasSection) {
		return p.fail(errInvalid)
	}
	if !t.hasOption && t.value != "" && !printable(t.value) {
		return p.fail(errInvalid)
	}
	if t.option == nil && t.section != nil && t.hasOption {
		t.option = t.section.find(t.optionName)
	}
	switch {
	case t.value == "":
		if !t.complete {
			return ok
		}
		return p.remove(t, false)
	case t.hasOption && t.option == nil:
		t.option = &option{name: t.optionName, value: t.value}
		t.section.options = append(t.section.options, t.option)
	case t.section == nil:
		t.section = t.pkg.newSection(t.value, t.sectionName)
	case t.hasOption:
		if !t.option.list && t.option.value == t.value {
			return ok
		}
		t.option.list, t.option.items, t.option.value = false, nil, t.value
		if p.old() {
			t.section.last(t.option)
		}
	case !t.hasSection:
		return p.fail(errInvalid)
	default:
		if t.section.typ == t.value && !p.old() {
			return ok
		}
		if len(t.section.typ) != len(t.value) && !p.old() {
			t.section.anonymous = false
		}
		t.lost = p.old() && t.section.reopened
		t.section.reopened = true
		t.section.typ = t.value
	}
	t.pkg.note(quiet, t.change(set))
	return ok
}

// last moves o behind the other options.
func (s *section) last(o *option) {
	s.options = append(slices.DeleteFunc(s.options, func(x *option) bool { return x == o }), o)
}

func (p *program) remove(t *target, quiet bool) code {
	if !t.complete {
		return p.fail(errNotFound)
	}
	if t.section == nil {
		return p.fail(errInvalid)
	}
	if o := t.option; o != nil && o.list && t.hasValue && t.value != "" {
		if i, is := number(t.value); is && i >= 0 && i < len(o.items) {
			t.pkg.note(quiet, t.change(removed))
			o.items = slices.Delete(o.items, i, i+1)
		}
		return ok
	}
	c := t.change(removed)
	c.value, c.hasValue = "", false
	t.pkg.note(quiet, c)
	if t.option != nil {
		t.section.options = slices.DeleteFunc(t.section.options, func(o *option) bool { return o == t.option })
		t.option = nil
		return ok
	}
	t.pkg.sections = slices.DeleteFunc(t.pkg.sections, func(s *section) bool { return s == t.section })
	t.section = nil
	return ok
}

// rename does not look at the new name.
func (p *program) rename(t *target, quiet bool) code {
	if !t.complete {
		return p.fail(errNotFound)
	}
	if t.section == nil || !t.hasValue {
		return p.fail(errInvalid)
	}
	t.pkg.note(quiet, t.change(renamed))
	if t.option != nil {
		t.option.name = t.value
		return ok
	}
	t.section.name, t.section.anonymous = t.value, false
	return ok
}

func (p *program) reorder(k *pkg, s *section, value string, quiet bool) {
	pos := position(value)
	old := slices.Index(k.sections, s)
	k.sections = slices.Delete(k.sections, old, old+1)
	to := min(max(pos, 0), len(k.sections))
	k.sections = slices.Insert(k.sections, to, s)
	if to != old {
		k.note(quiet, change{kind: reordered, section: s.name, value: strconv.Itoa(pos), hasValue: true})
	}
}

// position reads a number like strtoul into an int.
func position(value string) int {
	n, _ := integer(value)
	return int(int32(n))
}

func (p *program) addList(t *target, quiet bool) code {
	if t.section == nil || !t.hasValue {
		return p.fail(errInvalid)
	}
	o := t.option
	switch {
	case o == nil:
		o = &option{name: t.optionName, list: true}
		t.section.options = append(t.section.options, o)
	case !o.list:
		o.list, o.items, o.value = true, []string{o.value}, ""
		if p.old() {
			t.section.last(o)
		}
	}
	o.items = append(o.items, t.value)
	t.pkg.note(quiet, t.change(listAdd))
	return ok
}

func (p *program) delList(t *target, quiet bool) code {
	if t.section == nil || !t.hasValue {
		return p.fail(errInvalid)
	}
	if t.option == nil || !t.option.list {
		return ok
	}
	t.pkg.note(quiet, t.change(listDel))
	t.option.items = slices.DeleteFunc(t.option.items, func(s string) bool { return s == t.value })
	return ok
}
