package ucicli

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci/scan"
)

// A Syncer is a file system on which uci can wait for a file to reach the
// flash, as the real one does before it renames a new file into place.
type Syncer interface {
	Fsync(name string) error
}

func (p *program) regular(name string) bool {
	mode, exists := p.fs.Stat(name)
	return exists && mode.IsRegular()
}

// load reads a package with its staged changes. A name that starts with "/" or
// "./" is a file elsewhere, and such files know no staging.
func (p *program) load(name string) (*pkg, code) {
	k := &pkg{name: name}
	switch {
	case name == "":
		return nil, p.fail(errInvalid)
	case name[0] == '.' && !strings.HasPrefix(name, "./"):
		return nil, p.fail(errNotFound)
	case name[0] == '/' || name[0] == '.':
		k.path = path.Clean("/" + name)
		k.name = name[strings.LastIndexByte(name, '/')+1:]
	case !printable(name):
		return nil, p.fail(errInvalid)
	default:
		k.staged = true
		k.path = path.Join(p.conf, name)
		if p.conf2 != "" {
			if over := path.Join(p.conf2, name); p.exists(over) {
				k.path, k.override = over, true
			}
		}
	}
	text, err := p.fs.ReadFile(k.path)
	if !p.regular(k.path) || err != nil {
		return nil, p.fail(errNotFound)
	}
	if c := p.read(string(text), k); c != ok {
		return nil, c
	}
	p.loadChanges(k, false)
	return k, ok
}

func (p *program) exists(name string) bool {
	_, exists := p.fs.Stat(name)
	return exists
}

// read fills k from a file's text and lists it among the loaded packages.
func (p *program) read(text string, k *pkg) code {
	return p.importText(scan.New(text), &importer{program: p, single: true, name: k.name, pkg: k})
}

// importer reads text that is one package's, or several with `package` lines.
type importer struct {
	*program
	single  bool   // the name is given; `package` lines do not count
	name    string // "" for none
	pkg     *pkg
	merge   bool // into a package that is loaded already; the changes are staged
	opened  bool // pkg is open
	section *section
}

func (p *program) importText(r *scan.Reader, in *importer) code {
	p.parse = &parseInfo{batch: r == p.reader}
	if in.name != "" && !printable(in.name) {
		return p.fail(errInvalid)
	}
	in.opened = in.merge
	for r.NextLine() {
		c := in.line(r)
		if c == ok {
			continue
		}
		if p.loud {
			p.perror("")
		}
		if c != errParse || p.strict {
			return c
		}
	}
	if !in.opened && in.name != "" {
		if c := in.open(in.name); c != ok {
			return c
		}
	}
	if in.opened && !in.merge {
		p.packages = append(p.packages, in.pkg)
	}
	p.parse = nil
	return ok
}

// open begins a package.
func (in *importer) open(name string) code {
	if in.opened {
		in.packages = append(in.packages, in.pkg)
		in.pkg, in.section, in.opened = nil, nil, false
	}
	if in.loaded(name) != nil {
		return in.fail(errDuplicate)
	}
	if in.pkg == nil {
		in.pkg = &pkg{name: name}
	}
	in.opened = true
	return ok
}

func (in *importer) line(r *scan.Reader) code {
	for {
		st, err := r.Statement(scan.Context{Strict: in.strict, Package: in.opened || in.name != "", Section: in.section != nil})
		if err != nil {
			return in.failParse(err)
		}
		switch st.Kind {
		case scan.None:
			return ok
		case scan.Package:
			if !in.single {
				if c := in.open(st.Name); c != ok {
					return c
				}
			}
		case scan.Config:
			if c := in.config(r, st); c != ok {
				return c
			}
		default:
			t := &target{pkg: in.pkg, section: in.section, sectionName: in.section.name, hasSection: true,
				optionName: st.Name, hasOption: true, value: st.Value, hasValue: true, option: in.section.find(st.Name)}
			c := code(0)
			if st.Kind == scan.List {
				c = in.addList(t, !in.merge)
			} else {
				c = in.set(t, !in.merge)
			}
			if c != ok {
				return c
			}
		}
	}
}

func (in *importer) config(r *scan.Reader, st scan.Statement) code {
	if !in.opened {
		if c := in.open(in.name); c != ok {
			return c
		}
	}
	if st.Name == "" {
		in.section = in.pkg.addSection(st.Type, !in.merge)
		return ok
	}
	old := find(in.pkg.sections, st.Name)
	if old != nil && in.strict && old.typ != st.Type {
		return in.failParse(r.Fail("section of different type overwrites prior section with same name"))
	}
	t := &target{pkg: in.pkg, section: old, sectionName: st.Name, hasSection: true, value: st.Type, hasValue: true}
	if c := in.set(t, !in.merge); c != ok {
		return c
	}
	in.section = t.section
	if t.lost {
		// Up to 22.03 a section that a file opens for the third time is not open
		// afterwards, and an option in it is a parse error.
		in.section = nil
	}
	return ok
}

// loadChanges applies the staged changes of all save directories to k and
// returns how many could be; clear: empty the save file if any could.
func (p *program) loadChanges(k *pkg, clear bool) int {
	if !k.staged {
		return 0
	}
	n := 0
	for _, dir := range p.deltaDirs {
		if text, err := p.fs.ReadFile(path.Join(dir, k.name)); err == nil {
			n += p.applyChanges(string(text), k)
		}
	}
	file := path.Join(p.save, k.name)
	if clear && n > 0 && p.regular(file) {
		p.overwrite(file, nil)
	}
	p.err = ok
	return n
}

// overwrite gives an existing file new content; its mode stays.
func (p *program) overwrite(name string, data []byte) {
	mode, _ := p.fs.Stat(name)
	p.fs.WriteFile(name, data, mode.Perm())
}

// applyChanges runs the lines of a save file; those that do not apply are
// skipped one by one.
func (p *program) applyChanges(text string, k *pkg) int {
	n := 0
	r := scan.New(text)
	for r.NextLine() {
		if !r.Rest() {
			continue
		}
		c, t, ok2 := tuple(r)
		if !ok2 || t.pkgName != k.name {
			continue
		}
		k.saved = append(k.saved, c)
		if p.applyChange(k, c, t) == ok {
			n++
		}
	}
	p.parse = nil
	return n
}

func (p *program) applyChange(k *pkg, c change, t *target) code {
	if code := p.locate(t); code != ok {
		return code
	}
	switch c.kind {
	case reordered:
		if !t.complete {
			return errNotFound
		}
		p.reorder(k, t.section, t.value, true)
		return ok
	case renamed:
		return p.rename(t, true)
	case removed:
		return p.remove(t, true)
	case listAdd:
		return p.addList(t, true)
	case listDel:
		return p.delList(t, true)
	case added:
		code := p.set(t, true)
		if code == ok && !t.hasOption && t.section != nil {
			t.section.anonymous = true
		}
		return code
	}
	return p.set(t, true)
}

// tuple reads one line of a save file: one word, and nothing but the line end
// behind it.
func tuple(r *scan.Reader) (change, *target, bool) {
	word, err := r.Arg()
	if err != nil || r.Rest() {
		return change{}, nil, false
	}
	kd := set
	if word != "" && strings.IndexByte("+-@^|~", word[0]) >= 0 {
		kd = kind(word[0])
		word = word[1:]
	}
	t, c := split(word)
	if c != ok || !t.hasSection || t.extended || kd != removed && !t.hasValue {
		return change{}, nil, false
	}
	switch kd {
	case reordered:
		if t.hasOption {
			return change{}, nil, false
		}
	case renamed:
		if !scan.ValidName(t.value) {
			return change{}, nil, false
		}
	case listAdd, listDel:
		if !t.hasOption {
			return change{}, nil, false
		}
	}
	return t.change(kd), &t, true
}

// line is a change as a save file has it.
func (c change) line(pkg string) string {
	var b strings.Builder
	if c.kind != set {
		b.WriteByte(byte(c.kind))
	}
	b.WriteString(pkg + "." + c.section)
	if c.hasOption {
		b.WriteString("." + c.option)
	}
	if c.kind != removed || c.hasValue {
		b.WriteString("=" + quoted(c.value))
	}
	return b.String() + "\n"
}

func quoted(s string) string { return "'" + escaped(s) + "'" }

func escaped(s string) string { return strings.ReplaceAll(s, "'", `'\''`) }

// saveChanges appends k's new changes to its save file. A file without staging is
// written at once.
func (p *program) saveChanges(k *pkg) code {
	if !k.staged {
		return p.commit(k, false)
	}
	if len(k.changes) == 0 {
		return ok
	}
	if mode, exists := p.fs.Stat(p.save); !exists {
		mode := fs.FileMode(0o700)
		if m, exists := p.fs.Stat(p.conf); exists {
			mode = m.Perm()
		}
		if p.exists(path.Dir(path.Clean(p.save))) { // it makes the last directory only
			p.fs.MkdirAll(p.save, mode)
		}
	} else if !mode.IsDir() {
		return p.fail(errIO)
	}
	file := path.Join(p.save, k.name)
	mode, old, c := p.forWriting(file, k.name)
	if c != ok {
		return c
	}
	for _, c := range k.changes {
		old = append(old, c.line(k.name)...)
	}
	k.changes = nil
	p.fs.WriteFile(file, old, mode) // the real one does not look, either
	return ok
}

// forWriting opens a file as uci does before it writes: a missing one is made,
// with the mode of the package's file in the configuration directory.
func (p *program) forWriting(file, name string) (fs.FileMode, []byte, code) {
	mode := fs.FileMode(0o600)
	if m, exists := p.fs.Stat(path.Join(p.conf, path.Base(name))); exists {
		mode = m.Perm()
	}
	if m, exists := p.fs.Stat(file); exists {
		if !m.IsRegular() {
			return 0, nil, p.fail(errIO)
		}
		text, err := p.fs.ReadFile(file)
		if err != nil {
			return 0, nil, p.fail(errIO)
		}
		return m.Perm(), text, ok
	}
	if p.fs.WriteFile(file, nil, mode) != nil {
		return 0, nil, p.fail(errIO)
	}
	return mode, nil, ok
}

// commit writes a package's file: read anew with what is staged by now, or, with
// replace, as it is in memory. Without staged changes that apply it leaves the
// file alone.
//
// The real program looks at no write's result. On a full flash it renames
// whatever part of the new file did fit over the old one, has emptied the save
// file by then, and exits 0 (seen with the builds of 21.02 and 25.12 on a tmpfs
// without room: a config of 7 KB became one of 4 KB, or of nothing).
func (p *program) commit(k *pkg, replace bool) code {
	if k.path == "" {
		k.path = path.Clean(p.conf + "/" + k.name)
	}
	dir := p.conf
	if k.override {
		dir = p.conf2
	}
	_, text, c := p.forWriting(k.path, k.path)
	if c != ok {
		return c
	}
	if k.staged {
		if !replace {
			fresh, c := p.reread(k, string(text))
			if c != ok {
				return c
			}
			k = fresh
		}
		if p.loadChanges(k, true) == 0 {
			return ok
		}
	}
	mode, _ := p.fs.Stat(k.path)
	temp := p.tempName(dir, k.name)
	if err := p.fs.WriteFile(temp, []byte(p.exportText(k, false)), mode.Perm()); err != nil && !p.exists(temp) {
		return p.fail(errIO)
	}
	if s, can := p.fs.(Syncer); can {
		s.Fsync(temp)
	}
	if p.fs.Rename(temp, k.path) != nil {
		p.fs.Remove(temp)
		return p.fail(errIO)
	}
	return ok
}

// tempName is a name that is free; the real one ends in six random letters.
func (p *program) tempName(dir, name string) string {
	for i := 0; ; i++ {
		temp := path.Clean(fmt.Sprintf("%s/.%s.uci-%06d", dir, name, i))
		if !p.exists(temp) {
			return temp
		}
	}
}

// reread stages k's changes and reads the file again: another process may have
// changed it.
func (p *program) reread(k *pkg, text string) (*pkg, code) {
	if len(k.changes) > 0 {
		if c := p.saveChanges(k); c != ok {
			return nil, c
		}
	}
	p.unload(k)
	fresh := &pkg{name: k.name, path: k.path, staged: true, override: k.override}
	if c := p.read(text, fresh); c != ok {
		return nil, c
	}
	return fresh, ok
}

func (p *program) unload(k *pkg) {
	p.packages = slices.DeleteFunc(p.packages, func(x *pkg) bool { return x == k })
}

// configs lists the configuration files by name. Before 24.10 files with a dot
// in their name are listed, too, although nobody can load them.
func (p *program) configs() ([]string, code) {
	names, err := p.fs.ReadDir(p.conf)
	if err != nil {
		return nil, p.fail(errNotFound)
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.HasPrefix(n, ".") })
	if len(names) == 0 {
		return nil, p.fail(errNotFound)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(n string) bool {
		mode, _ := p.fs.Stat(path.Join(p.conf, n))
		return mode.IsDir() || !printable(n) || strings.Contains(n, ".") && !p.line.Before(router.Line2410)
	}), ok
}
