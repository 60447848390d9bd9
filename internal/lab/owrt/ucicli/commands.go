package ucicli

import (
	"fmt"
	"path"
	"strings"

	"github.com/heimweg/heimweg/internal/uci/scan"
)

// sectionCommand runs the commands that change or show one thing.
func (p *program) sectionCommand(name string, args []string) int {
	if len(args) != 2 {
		return usageExit
	}
	t, c := p.lookup(args[1])
	if c != ok {
		p.report()
		return 1
	}
	if t.hasValue && (name == "get" || name == "revert") {
		return 1
	}
	p.err = ok
	switch name {
	case "get":
		if !t.complete {
			p.fail(errNotFound)
			p.report()
			return 1
		}
		switch {
		case t.option != nil:
			fmt.Fprintln(p.out, p.value(t.option, false))
		case t.section != nil:
			fmt.Fprintln(p.out, t.section.typ)
		}
		return 0
	case "revert":
		p.revert(t) // errors or not, it exits 0
		return 0
	case "set":
		c = p.set(t, false)
	case "add_list":
		c = p.addList(t, false)
	case "del_list":
		c = p.delList(t, false)
	case "rename":
		c = p.rename(t, false)
	case "reorder":
		if t.section == nil || !t.hasValue {
			p.fail(errNotFound)
			p.report()
			return 1
		}
		p.reorder(t.pkg, t.section, t.value, false)
	case "delete":
		if _, is := number(t.value); t.hasValue && !is {
			return 1
		}
		c = p.remove(t, false)
	}
	if c == ok {
		c = p.saveChanges(t.pkg)
	}
	if c != ok {
		p.report()
		return 1
	}
	return 0
}

// revert drops staged changes. One line that cannot be read makes it do nothing.
func (p *program) revert(t *target) {
	if !t.pkg.staged {
		return
	}
	p.saveChanges(t.pkg)
	file := path.Join(p.save, t.pkg.name)
	text, err := p.fs.ReadFile(file)
	if err != nil || !p.regular(file) {
		return
	}
	var keep strings.Builder
	r := scan.New(string(text))
	for r.NextLine() {
		if !r.Rest() {
			continue
		}
		c, _, readable := tuple(r)
		if !readable {
			return
		}
		gone := (!t.hasSection || c.section == t.sectionName) &&
			(!t.hasOption || c.hasOption && c.option == t.optionName)
		if !gone {
			keep.WriteString(c.line(t.pkg.name))
		}
	}
	p.overwrite(file, []byte(keep.String()))
}

func (p *program) addCommand(args []string) int {
	if len(args) != 3 {
		return usageExit
	}
	p.err = ok
	k, c := p.load(args[1])
	var s *section
	if c == ok {
		s = k.addSection(args[2], false)
		c = p.saveChanges(k)
	}
	if c != ok {
		p.report()
		return int(c)
	}
	fmt.Fprintln(p.out, s.name)
	return 0
}

func (p *program) importCommand(args []string) int {
	name := ""
	switch {
	case len(args) > 2:
		return usageExit
	case len(args) == 2:
		name = args[1]
	case p.merge:
		return usageExit
	}
	in := &importer{program: p, single: len(args) == 2, name: name}
	if in.single && name == "" {
		p.fail(errInvalid)
		p.report()
		return 1
	}
	if p.merge {
		if k, c := p.load(name); c == ok {
			in.pkg, in.merge = k, true
		}
	}
	p.err = ok
	c := p.importText(p.input(), in)
	if c == ok {
		if in.merge {
			c = p.saveChanges(in.pkg)
		} else {
			for _, k := range p.packages {
				c = p.commit(k, true)
			}
		}
	}
	if c != ok {
		p.report()
		return 1
	}
	return 0
}

// packageCommands runs a command for one package, or for all there are; then
// the exit code says nothing about each.
func (p *program) packageCommands(name string, args []string) int {
	switch len(args) {
	case 1:
	case 2:
		return p.packageCommand(name, args[1])
	default:
		return usageExit
	}
	names, c := p.configs()
	if c != ok {
		p.report()
		return 1
	}
	for _, n := range names {
		p.packageCommand(name, n)
	}
	return 0
}

func (p *program) packageCommand(name, arg string) int {
	t, c := p.lookup(arg)
	if c != ok {
		p.report()
		return 1
	}
	defer p.unload(t.pkg)
	switch name {
	case "changes":
		for _, c := range t.pkg.saved {
			fmt.Fprint(p.out, c.show(t.pkg.name))
		}
	case "commit":
		if p.noCommit {
			return 0
		}
		p.err = ok
		if p.commit(t.pkg, false) != ok {
			p.report()
			p.packages = nil
			return 1
		}
		p.packages = nil
	case "export":
		fmt.Fprint(p.out, p.exportText(t.pkg, true))
	case "show":
		if !t.complete {
			p.fail(errNotFound)
			p.report()
			return 1
		}
		p.show(t)
	}
	return 0
}

// show is what `uci changes` prints for a staged change: renaming and moving
// look like setting, deleting an item like deleting the list.
func (c change) show(pkg string) string {
	s := pkg + "." + c.section
	if c.hasOption {
		s += "." + c.option
	}
	switch c.kind {
	case removed:
		return "-" + s + "\n"
	case listAdd:
		s += "+="
	case listDel:
		s += "-="
	default:
		s += "="
	}
	return s + quoted(c.value) + "\n"
}

func (p *program) show(t *target) {
	switch {
	case t.option != nil:
		p.showOption(t.pkg, t.section.name, t.option)
	case t.section != nil:
		p.showSection(t.pkg, t.section, t.section.name)
	default:
		seen := map[string]int{}
		for _, s := range t.pkg.sections {
			name := s.name
			if p.indexes && s.anonymous {
				name = fmt.Sprintf("@%s[%d]", s.typ, seen[s.typ])
			}
			seen[s.typ]++
			p.showSection(t.pkg, s, name)
		}
	}
}

func (p *program) showSection(k *pkg, s *section, name string) {
	fmt.Fprintf(p.out, "%s.%s=%s\n", k.name, name, s.typ)
	for _, o := range s.options {
		p.showOption(k, name, o)
	}
}

func (p *program) showOption(k *pkg, section string, o *option) {
	fmt.Fprintf(p.out, "%s.%s.%s=%s\n", k.name, section, o.name, p.value(o, true))
}

// value is an option's text: quoted for show; for get only items with blanks are.
func (p *program) value(o *option, quote bool) string {
	if !o.list {
		if quote {
			return quoted(o.value)
		}
		return o.value
	}
	var parts []string
	for _, item := range o.items {
		if quote || strings.ContainsAny(item, " \t\r\n") {
			item = quoted(item)
		}
		parts = append(parts, item)
	}
	return strings.Join(parts, p.delimiter)
}

// exportText is a package as uci writes it: types bare, whatever is in them.
func (p *program) exportText(k *pkg, header bool) string {
	var b strings.Builder
	if header {
		b.WriteString("package " + escaped(k.name) + "\n")
	}
	for _, s := range k.sections {
		b.WriteString("\nconfig " + escaped(s.typ))
		if !s.anonymous || p.names {
			b.WriteString(" " + quoted(s.name))
		}
		b.WriteByte('\n')
		for _, o := range s.options {
			if !o.list {
				b.WriteString("\toption " + escaped(o.name) + " " + quoted(o.value) + "\n")
			}
			for _, item := range o.items {
				b.WriteString("\tlist " + escaped(o.name) + " " + quoted(item) + "\n")
			}
		}
	}
	return b.String() + "\n"
}
