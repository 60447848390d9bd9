// Package busybox holds the small programs of an emulated home router: those
// applets of OpenWrt's busybox that scripts commonly use, working on the box's
// file system. An option that is not emulated is refused loudly with exit 1,
// as busybox refuses one that it was built without. It never touches the
// computer it runs on.
package busybox

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

// Proc is the process that runs an applet.
type Proc = ash.Proc

// fail prints "name: text" and gives exit status 1.
func fail(p *Proc, name, format string, args ...any) int {
	fmt.Fprintf(p.Stderr(), "%s: %s\n", name, fmt.Sprintf(format, args...))
	return 1
}

func usage(p *Proc, name, what string) int {
	fmt.Fprintf(p.Stderr(), "%s: %s\nBusyBox multi-call binary.\n", name, what)
	return 1
}

// flags is a small getopt: spec lists letters, a colon after one that takes a
// value. Long options are given by longs as "name=letter".
type flags struct {
	on   map[byte]int
	val  map[byte]string
	all  map[byte][]string
	rest []string
}

func parse(args []string, spec string, longs ...string) (*flags, error) {
	f := &flags{on: map[byte]int{}, val: map[byte]string{}, all: map[byte][]string{}}
	a := args[1:]
	for len(a) > 0 {
		o := a[0]
		if o == "--" {
			f.rest = append(f.rest, a[1:]...)
			return f, nil
		}
		if strings.HasPrefix(o, "--") {
			name, val, has := strings.Cut(o[2:], "=")
			c := byte(0)
			for _, l := range longs {
				if n, letter, _ := strings.Cut(l, "="); n == name {
					c = letter[0]
				}
			}
			if c == 0 {
				return nil, fmt.Errorf("unrecognized option: %s", name)
			}
			f.on[c]++
			if has {
				f.val[c] = val
			}
			a = a[1:]
			continue
		}
		if len(o) < 2 || o[0] != '-' {
			f.rest = append(f.rest, o)
			a = a[1:]
			if strings.HasPrefix(spec, "+") {
				f.rest = append(f.rest, a...)
				return f, nil
			}
			continue
		}
		a = a[1:]
		for i := 1; i < len(o); i++ {
			c := o[i]
			j := strings.IndexByte(spec, c)
			if j < 0 || c == ':' {
				return nil, fmt.Errorf("invalid option -- '%c'", c)
			}
			f.on[c]++
			if j+1 < len(spec) && spec[j+1] == ':' {
				v := o[i+1:]
				if v == "" {
					if len(a) == 0 {
						return nil, fmt.Errorf("option requires an argument -- '%c'", c)
					}
					v, a = a[0], a[1:]
				}
				f.val[c] = v
				f.all[c] = append(f.all[c], v)
				break
			}
		}
	}
	return f, nil
}

func (f *flags) has(c byte) bool { return f.on[c] > 0 }

// Applets lists the programs by name.
func Applets() map[string]ash.Program {
	m := map[string]ash.Program{
		"sh": ash.Sh, "ash": ash.Sh, "echo": ash.Echo, "printf": ash.Printf, "test": ash.Test, "[": ash.Test, "kill": ash.Kill,
		"true": func(*Proc, []string) int { return 0 }, "false": func(*Proc, []string) int { return 1 },
		"cat": Cat, "ls": Ls, "mkdir": Mkdir, "rmdir": Rmdir, "rm": Rm, "mv": Mv, "cp": Cp, "ln": Ln, "touch": Touch,
		"chmod": Chmod, "chown": Chown, "chgrp": Chown, "sha256sum": sum("sha256sum", sha256.New), "md5sum": sum("md5sum", md5.New),
		"cmp": Cmp, "mktemp": Mktemp, "basename": Basename, "dirname": Dirname, "readlink": Readlink, "dd": Dd,
		"sync": Sync, "df": Df, "du": Du, "find": Find, "tar": Tar, "gzip": Gzip, "gunzip": Gzip, "zcat": Gzip,
	}
	for n, f := range textApplets() {
		m[n] = f
	}
	for n, f := range sysApplets() {
		m[n] = f
	}
	return m
}

// inputs opens the named files, or standard input, one after the other.
func inputs(p *Proc, name string, files []string, use func(file string, r io.Reader)) int {
	if len(files) == 0 {
		files = []string{"-"}
	}
	st := 0
	for _, f := range files {
		if f == "-" {
			use("", p.Stdin())
			continue
		}
		h, err := p.Open(f, boxfs.Read)
		if err != nil {
			st = fail(p, name, "can't open '%s': %s", f, ash.ErrText(err))
			continue
		}
		if h.File() != nil && h.File().Stat().IsDir() {
			h.Close()
			st = fail(p, name, "read error: Is a directory")
			continue
		}
		use(f, h)
		h.Close()
	}
	return st
}

// Cat is the program cat.
func Cat(p *Proc, args []string) int {
	f, err := parse(args, "uvnAet")
	if err != nil {
		return usage(p, "cat", err.Error())
	}
	st := 0
	n := inputs(p, "cat", f.rest, func(_ string, r io.Reader) {
		if _, err := io.Copy(p.Stdout(), r); err != nil {
			st = fail(p, "cat", "write error: %s", ash.ErrText(err))
		}
	})
	return max(n, st)
}

func modeString(m fs.FileMode) string {
	t := "-"
	switch {
	case m.IsDir():
		t = "d"
	case m&fs.ModeSymlink != 0:
		t = "l"
	case m&fs.ModeCharDevice != 0:
		t = "c"
	}
	bits := []byte(m.Perm().String()[1:])
	if m&fs.ModeSticky != 0 {
		bits[8] = 't'
	}
	return t + string(bits)
}

func owner(id int) string {
	switch id {
	case 0:
		return "root"
	case 65534:
		return "nobody"
	}
	return strconv.Itoa(id)
}

// Ls is the program ls.
func Ls(p *Proc, args []string) int {
	f, err := parse(args, "1aAldRtrnhisSFpLeCxHcuk")
	if err != nil {
		return usage(p, "ls", err.Error())
	}
	names := f.rest
	if len(names) == 0 {
		names = []string{"."}
	}
	st := 0
	var files []boxfs.Info
	var dirs []string
	for _, n := range names {
		info, err := p.FS().Lstat(p.Path(n))
		if err == nil && info.FileMode&fs.ModeSymlink != 0 && !f.has('l') && !f.has('d') {
			if t, e := p.FS().Stat(p.Path(n)); e == nil {
				info = t
			}
		}
		if err != nil {
			st = fail(p, "ls", "%s: %s", n, ash.ErrText(err))
			continue
		}
		if info.IsDir() && !f.has('d') {
			dirs = append(dirs, n)
		} else {
			info.Base = n
			files = append(files, info)
		}
	}
	lsPrint(p, f, files)
	for i := 0; i < len(dirs); i++ {
		d := dirs[i]
		if len(names) > 1 || f.has('R') {
			if i > 0 || len(files) > 0 {
				fmt.Fprintln(p.Stdout())
			}
			fmt.Fprintf(p.Stdout(), "%s:\n", d)
		}
		list, err := p.FS().ReadDir(p.Path(d))
		if err != nil {
			st = fail(p, "ls", "%s: %s", d, ash.ErrText(err))
			continue
		}
		var show []boxfs.Info
		if f.has('a') {
			self, _ := p.FS().Stat(p.Path(d))
			up := self
			self.Base, up.Base = ".", ".."
			show = append(show, self, up)
		}
		for _, e := range list {
			if strings.HasPrefix(e.Base, ".") && !f.has('a') && !f.has('A') {
				continue
			}
			show = append(show, e)
			if f.has('R') && e.IsDir() {
				dirs = append(dirs, path.Join(d, e.Base))
			}
		}
		lsPrint(p, f, show)
	}
	return st
}

func lsPrint(p *Proc, f *flags, list []boxfs.Info) {
	if f.has('t') {
		sort.SliceStable(list, func(i, j int) bool { return list[i].Time.After(list[j].Time) })
	}
	if f.has('S') {
		sort.SliceStable(list, func(i, j int) bool { return list[i].Length > list[j].Length })
	}
	if f.has('r') {
		for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
			list[i], list[j] = list[j], list[i]
		}
	}
	for _, e := range list {
		name := e.Base
		if (f.has('F') || f.has('p')) && e.IsDir() {
			name += "/"
		}
		if f.has('i') {
			fmt.Fprintf(p.Stdout(), "%7d ", e.Ino)
		}
		if !f.has('l') && !f.has('n') {
			fmt.Fprintln(p.Stdout(), name)
			continue
		}
		o, g := owner(e.UID), owner(e.GID)
		if f.has('n') {
			o, g = strconv.Itoa(e.UID), strconv.Itoa(e.GID)
		}
		if e.Target != "" {
			name += " -> " + e.Target
		}
		fmt.Fprintf(p.Stdout(), "%s    1 %-8s %-8s %9d %s %s\n", modeString(e.FileMode), o, g, e.Length, e.Time.UTC().Format("Jan _2 15:04"), name)
	}
}

// Mkdir is the program mkdir.
func Mkdir(p *Proc, args []string) int {
	f, err := parse(args, "pm:")
	if err != nil {
		return usage(p, "mkdir", err.Error())
	}
	mode := 0o777 &^ p.Mask
	if f.has('m') {
		m, err := parseMode(f.val['m'], fs.ModeDir|0o777)
		if err != nil {
			return fail(p, "mkdir", "%v", err)
		}
		mode = m
	}
	st := 0
	for _, d := range f.rest {
		full := p.Path(d)
		if f.has('p') {
			if at, e := p.FS().Stat(full); e == nil && at.IsDir() {
				continue
			}
			if i := strings.LastIndex(path.Clean(full), "/"); i > 0 {
				err = p.FS().MkdirAll(path.Clean(full)[:i], 0o777&^p.Mask)
			} else {
				err = nil
			}
			if err == nil {
				err = p.FS().Mkdir(full, mode)
			}
		} else {
			err = p.FS().Mkdir(full, mode)
		}
		if err != nil {
			p.Check()
			st = fail(p, "mkdir", "can't create directory '%s': %s", d, ash.ErrText(err))
		}
	}
	return st
}

// Rmdir is the program rmdir.
func Rmdir(p *Proc, args []string) int {
	f, err := parse(args, "p")
	if err != nil {
		return usage(p, "rmdir", err.Error())
	}
	st := 0
	for _, d := range f.rest {
		info, err := p.FS().Lstat(p.Path(d))
		if err == nil && !info.IsDir() {
			st = fail(p, "rmdir", "'%s': Not a directory", d)
			continue
		}
		if err == nil {
			err = p.FS().Remove(p.Path(d))
		}
		if err != nil {
			p.Check()
			st = fail(p, "rmdir", "'%s': %s", d, ash.ErrText(err))
		}
	}
	return st
}

// Rm is the program rm.
func Rm(p *Proc, args []string) int {
	f, err := parse(args, "firR")
	if err != nil {
		return usage(p, "rm", err.Error())
	}
	if len(f.rest) == 0 && !f.has('f') {
		return usage(p, "rm", "needs an argument")
	}
	st := 0
	for _, n := range f.rest {
		info, err := p.FS().Lstat(p.Path(n))
		switch {
		case err != nil && f.has('f') && errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
		case info.IsDir() && !f.has('r') && !f.has('R'):
			st = fail(p, "rm", "'%s' is a directory", n)
			continue
		default:
			err = p.FS().RemoveAll(p.Path(n))
		}
		if err != nil {
			p.Check()
			st = fail(p, "rm", "can't remove '%s': %s", n, ash.ErrText(err))
		}
	}
	return st
}

// Mv is the program mv. Between flash and RAM it copies and deletes.
func Mv(p *Proc, args []string) int {
	f, err := parse(args, "finTt:")
	if err != nil {
		return usage(p, "mv", err.Error())
	}
	if len(f.rest) < 2 {
		return usage(p, "mv", "needs two arguments")
	}
	st := 0
	dest := f.rest[len(f.rest)-1]
	for _, src := range f.rest[:len(f.rest)-1] {
		to := target(p, src, dest, f.has('T'))
		err := p.FS().Rename(p.Path(src), p.Path(to))
		if err != nil && strings.Contains(ash.ErrText(err), "cross-device") {
			if err = copyTree(p, src, to, true, true); err == nil {
				err = p.FS().RemoveAll(p.Path(src))
			}
		}
		if err != nil {
			p.Check()
			st = fail(p, "mv", "can't rename '%s': %s", src, ash.ErrText(err))
		}
	}
	return st
}

func target(p *Proc, src, dest string, plain bool) string {
	if info, err := p.FS().Stat(p.Path(dest)); err == nil && info.IsDir() && !plain {
		return strings.TrimSuffix(dest, "/") + "/" + path.Base(src)
	}
	return dest
}

func copyTree(p *Proc, src, to string, keep, recurse bool) error {
	p.Check()
	info, err := p.FS().Lstat(p.Path(src))
	if err != nil {
		return err
	}
	if info.FileMode&fs.ModeSymlink != 0 {
		if keep {
			p.FS().Remove(p.Path(to))
			return p.FS().Symlink(info.Target, p.Path(to))
		}
		if info, err = p.FS().Stat(p.Path(src)); err != nil {
			return err
		}
	}
	if info.IsDir() {
		if !recurse {
			return fmt.Errorf("omitting directory '%s'", src)
		}
		if _, err := p.FS().Stat(p.Path(to)); err != nil {
			if err := p.FS().Mkdir(p.Path(to), info.FileMode.Perm()); err != nil {
				return err
			}
		}
		list, err := p.FS().ReadDir(p.Path(src))
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := copyTree(p, src+"/"+e.Base, to+"/"+e.Base, keep, true); err != nil {
				return err
			}
		}
		return nil
	}
	data, err := p.FS().ReadFile(p.Path(src))
	if err != nil {
		return err
	}
	perm := info.FileMode.Perm() &^ p.Mask
	if keep {
		perm = info.FileMode.Perm()
	}
	if err := p.FS().WriteFile(p.Path(to), data, perm); err != nil {
		return err
	}
	if keep {
		p.FS().Chmod(p.Path(to), perm)
		p.FS().Chown(p.Path(to), info.UID, info.GID)
		p.FS().Chtimes(p.Path(to), info.Time)
	}
	return nil
}

// Cp is the program cp.
func Cp(p *Proc, args []string) int {
	f, err := parse(args, "afrRpdPLHilsTu")
	if err != nil {
		return usage(p, "cp", err.Error())
	}
	if len(f.rest) < 2 {
		return usage(p, "cp", "needs two arguments")
	}
	st := 0
	dest := f.rest[len(f.rest)-1]
	for _, src := range f.rest[:len(f.rest)-1] {
		to := target(p, src, dest, f.has('T'))
		rec := f.has('r') || f.has('R') || f.has('a')
		if err := copyTree(p, src, to, f.has('a') || f.has('p') || f.has('d') || f.has('P'), rec); err != nil {
			p.Check()
			st = fail(p, "cp", "can't copy '%s' to '%s': %s", src, to, ash.ErrText(err))
			if errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(p.Stderr(), "cp: can't stat '%s': No such file or directory\n", src)
			}
		}
	}
	return st
}

// Ln is the program ln.
func Ln(p *Proc, args []string) int {
	f, err := parse(args, "sfnbvT")
	if err != nil {
		return usage(p, "ln", err.Error())
	}
	if len(f.rest) == 0 {
		return usage(p, "ln", "needs an argument")
	}
	to := path.Base(f.rest[0])
	if len(f.rest) > 1 {
		to = f.rest[1]
		if info, err := p.FS().Lstat(p.Path(to)); err == nil && info.IsDir() || !f.has('n') && isDir(p, to) {
			to = strings.TrimSuffix(to, "/") + "/" + path.Base(f.rest[0])
		}
	}
	if f.has('f') {
		p.FS().Remove(p.Path(to))
	}
	if f.has('s') {
		err = p.FS().Symlink(f.rest[0], p.Path(to))
	} else {
		err = p.FS().Link(p.Path(f.rest[0]), p.Path(to))
	}
	if err != nil {
		p.Check()
		return fail(p, "ln", "%s: %s", to, ash.ErrText(err))
	}
	return 0
}

func isDir(p *Proc, name string) bool {
	info, err := p.FS().Stat(p.Path(name))
	return err == nil && info.IsDir()
}

// Touch is the program touch.
func Touch(p *Proc, args []string) int {
	f, err := parse(args, "chamr:d:t:", "no-create=c")
	if err != nil {
		return usage(p, "touch", err.Error())
	}
	at := time.Now()
	if f.has('r') {
		info, err := p.FS().Stat(p.Path(f.val['r']))
		if err != nil {
			return fail(p, "touch", "%s: %s", f.val['r'], ash.ErrText(err))
		}
		at = info.Time
	}
	st := 0
	for _, n := range f.rest {
		if _, err := p.FS().Stat(p.Path(n)); err != nil {
			if f.has('c') {
				continue
			}
			if err := p.FS().WriteFile(p.Path(n), nil, 0o666&^p.Mask); err != nil {
				p.Check()
				st = fail(p, "touch", "%s: %s", n, ash.ErrText(err))
				continue
			}
		}
		p.FS().Chtimes(p.Path(n), at)
	}
	return st
}

func parseMode(s string, old fs.FileMode) (fs.FileMode, error) {
	if n, err := strconv.ParseUint(s, 8, 16); err == nil {
		m := fs.FileMode(n & 0o777)
		if n&0o1000 != 0 {
			m |= fs.ModeSticky
		}
		if n&0o4000 != 0 {
			m |= fs.ModeSetuid
		}
		return m, nil
	}
	m := old.Perm()
	for _, part := range strings.Split(s, ",") {
		i := strings.IndexAny(part, "+-=")
		if i < 0 {
			return 0, fmt.Errorf("invalid mode '%s'", s)
		}
		who, op, what := part[:i], part[i], part[i+1:]
		var bits fs.FileMode
		for _, c := range what {
			switch c {
			case 'r':
				bits |= 0o444
			case 'w':
				bits |= 0o222
			case 'x':
				bits |= 0o111
			case 'X':
				if old.IsDir() || old&0o111 != 0 {
					bits |= 0o111
				}
			default:
				return 0, fmt.Errorf("invalid mode '%s'", s)
			}
		}
		var mask fs.FileMode
		for _, c := range who {
			mask |= map[rune]fs.FileMode{'u': 0o700, 'g': 0o070, 'o': 0o007, 'a': 0o777}[c]
		}
		if who == "" {
			mask = 0o777
		}
		switch op {
		case '+':
			m |= bits & mask
		case '-':
			m &^= bits & mask
		default:
			m = m&^mask | bits&mask
		}
	}
	return m, nil
}

// Chmod is the program chmod.
func Chmod(p *Proc, args []string) int {
	rec, a := false, args[1:]
	for len(a) > 0 && (a[0] == "-R" || a[0] == "-f" || a[0] == "--") {
		rec = rec || a[0] == "-R"
		a = a[1:]
	}
	if len(a) < 2 {
		return usage(p, "chmod", "needs mode and file")
	}
	st := 0
	each(p, a[1:], rec, func(name string, info boxfs.Info, err error) {
		if err == nil {
			var m fs.FileMode
			if m, err = parseMode(a[0], info.FileMode); err == nil {
				err = p.FS().Chmod(p.Path(name), m)
			}
		}
		if err != nil {
			p.Check()
			st = fail(p, "chmod", "%s: %s", name, ash.ErrText(err))
		}
	})
	return st
}

// Chown is the programs chown and chgrp.
func Chown(p *Proc, args []string) int {
	rec, a := false, args[1:]
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		rec = rec || a[0] == "-R"
		a = a[1:]
	}
	if len(a) < 2 {
		return usage(p, args[0], "needs owner and file")
	}
	u, g, both := strings.Cut(a[0], ":")
	id := func(s string) int {
		switch s {
		case "root":
			return 0
		case "nobody", "nogroup":
			return 65534
		case "":
			return -1
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return -2
		}
		return n
	}
	uid, gid := id(u), id(g)
	if args[0] == "chgrp" {
		uid, gid = -1, uid
	}
	if uid == -2 || both && gid == -2 {
		return fail(p, args[0], "unknown user/group %s", a[0])
	}
	st := 0
	each(p, a[1:], rec, func(name string, _ boxfs.Info, err error) {
		if err == nil {
			err = p.FS().Chown(p.Path(name), uid, gid)
		}
		if err != nil {
			st = fail(p, args[0], "%s: %s", name, ash.ErrText(err))
		}
	})
	return st
}

func each(p *Proc, names []string, rec bool, do func(name string, info boxfs.Info, err error)) {
	for _, n := range names {
		info, err := p.FS().Stat(p.Path(n))
		do(n, info, err)
		if err == nil && rec && info.IsDir() {
			list, _ := p.FS().ReadDir(p.Path(n))
			var sub []string
			for _, e := range list {
				if e.FileMode&fs.ModeSymlink == 0 {
					sub = append(sub, n+"/"+e.Base)
				}
			}
			each(p, sub, rec, do)
		}
	}
}

func sum(name string, make func() hash.Hash) ash.Program {
	return func(p *Proc, args []string) int {
		f, err := parse(args, "csw")
		if err != nil {
			return usage(p, name, err.Error())
		}
		if f.has('c') {
			return sumCheck(p, name, make, f)
		}
		return inputs(p, name, f.rest, func(file string, r io.Reader) {
			h := make()
			io.Copy(h, r)
			if file == "" {
				file = "-"
			}
			fmt.Fprintf(p.Stdout(), "%x  %s\n", h.Sum(nil), file)
		})
	}
}

func sumCheck(p *Proc, name string, make func() hash.Hash, f *flags) int {
	bad, total := 0, 0
	inputs(p, name, f.rest, func(_ string, r io.Reader) {
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			want, file, ok := strings.Cut(sc.Text(), " ")
			if !ok {
				continue
			}
			file = strings.TrimLeft(file, " *")
			total++
			data, err := p.FS().ReadFile(p.Path(file))
			h := make()
			h.Write(data)
			if err != nil || fmt.Sprintf("%x", h.Sum(nil)) != strings.ToLower(want) {
				bad++
				if err != nil {
					fmt.Fprintf(p.Stderr(), "%s: can't open '%s': %s\n", name, file, ash.ErrText(err))
				}
				if !f.has('s') {
					fmt.Fprintf(p.Stdout(), "%s: FAILED\n", file)
				}
			} else if !f.has('s') {
				fmt.Fprintf(p.Stdout(), "%s: OK\n", file)
			}
		}
	})
	if bad > 0 && !f.has('s') {
		fmt.Fprintf(p.Stderr(), "%s: WARNING: %d of %d computed checksums did NOT match\n", name, bad, total)
	}
	if bad > 0 || total == 0 {
		return 1
	}
	return 0
}

func readArg(p *Proc, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(p.Stdin())
	}
	h, err := p.Open(name, boxfs.Read)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return io.ReadAll(h)
}

// Cmp is the program cmp.
func Cmp(p *Proc, args []string) int {
	f, err := parse(args, "sl")
	if err != nil || len(f.rest) == 0 {
		return usage(p, "cmp", "needs two files")
	}
	if len(f.rest) == 1 {
		f.rest = append(f.rest, "-")
	}
	a, err := readArg(p, f.rest[0])
	b, err2 := readArg(p, f.rest[1])
	if err != nil || err2 != nil {
		if !f.has('s') {
			n := f.rest[0]
			if err == nil {
				n, err = f.rest[1], err2
			}
			fail(p, "cmp", "can't open '%s': %s", n, ash.ErrText(err))
		}
		return 2
	}
	if bytes.Equal(a, b) {
		return 0
	}
	if !f.has('s') {
		i, line := 0, 1
		for i < len(a) && i < len(b) && a[i] == b[i] {
			if a[i] == '\n' {
				line++
			}
			i++
		}
		if i == len(a) || i == len(b) {
			short := f.rest[0]
			if i == len(b) {
				short = f.rest[1]
			}
			fmt.Fprintf(p.Stderr(), "cmp: EOF on %s\n", short)
		} else {
			fmt.Fprintf(p.Stdout(), "%s %s differ: char %d, line %d\n", f.rest[0], f.rest[1], i+1, line)
		}
	}
	return 1
}

// Mktemp is the program mktemp.
func Mktemp(p *Proc, args []string) int {
	f, err := parse(args, "dqtup:")
	if err != nil {
		return usage(p, "mktemp", err.Error())
	}
	tmpl := "tmp.XXXXXX"
	dir := ""
	if len(f.rest) > 0 {
		tmpl = f.rest[0]
	} else {
		dir = "/tmp"
	}
	if f.has('t') {
		dir = "/tmp"
	}
	if f.has('p') {
		dir = f.val['p']
	}
	if !strings.HasSuffix(tmpl, "XXXXXX") {
		return fail(p, "mktemp", "(null): Invalid argument")
	}
	for try := 0; try < 100; try++ {
		name := path.Join(dir, tmpl[:len(tmpl)-6]+randomName())
		if !strings.HasPrefix(name, "/") && dir == "" {
			name = tmpl[:len(tmpl)-6] + randomName()
		}
		if f.has('d') {
			err = p.FS().Mkdir(p.Path(name), 0o700)
		} else {
			var h *boxfs.File
			if h, err = p.FS().Open(p.Path(name), boxfs.Write|boxfs.Create|boxfs.Excl, 0o600); err == nil {
				h.Close()
			}
		}
		if err == nil {
			fmt.Fprintln(p.Stdout(), name)
			return 0
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	p.Check()
	return fail(p, "mktemp", "%s: %s", tmpl, ash.ErrText(err))
}

// Basename is the program basename.
func Basename(p *Proc, args []string) int {
	if len(args) < 2 {
		return usage(p, "basename", "needs an argument")
	}
	b := path.Base(args[1])
	if len(args) > 2 && b != args[2] {
		b = strings.TrimSuffix(b, args[2])
	}
	fmt.Fprintln(p.Stdout(), b)
	return 0
}

// Dirname is the program dirname.
func Dirname(p *Proc, args []string) int {
	if len(args) < 2 {
		return usage(p, "dirname", "needs an argument")
	}
	fmt.Fprintln(p.Stdout(), path.Dir(args[1]))
	return 0
}

// Readlink is the program readlink.
func Readlink(p *Proc, args []string) int {
	f, err := parse(args, "fnqvs")
	if err != nil || len(f.rest) != 1 {
		return usage(p, "readlink", "needs one argument")
	}
	name := p.Path(f.rest[0])
	if f.has('f') {
		for i := 0; i < 20; i++ {
			info, err := p.FS().Lstat(name)
			if err != nil || info.Target == "" {
				break
			}
			t := info.Target
			if !strings.HasPrefix(t, "/") {
				t = path.Join(path.Dir(name), t)
			}
			name = t
		}
		if _, err := p.FS().Stat(path.Dir(name)); err != nil {
			return 1
		}
		name = path.Clean(name)
		// Links among the directories above.
		if i := strings.Index(name[1:], "/"); i > 0 {
			if top, err := p.FS().Lstat(name[:i+1]); err == nil && top.Target != "" {
				t := top.Target
				if !strings.HasPrefix(t, "/") {
					t = "/" + t
				}
				name = t + name[i+1:]
			}
		}
		fmt.Fprintln(p.Stdout(), name)
		return 0
	}
	info, err := p.FS().Lstat(name)
	if err != nil || info.Target == "" {
		return 1
	}
	fmt.Fprint(p.Stdout(), info.Target)
	if !f.has('n') {
		fmt.Fprintln(p.Stdout())
	}
	return 0
}

// Dd is the program dd: if, of, bs, count, skip.
func Dd(p *Proc, args []string) int {
	in, out, bs, count, skip := "-", "", int64(512), int64(-1), int64(0)
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		n, mult := v, int64(1)
		if strings.HasSuffix(n, "k") || strings.HasSuffix(n, "K") {
			n, mult = n[:len(n)-1], 1024
		} else if strings.HasSuffix(n, "M") {
			n, mult = n[:len(n)-1], 1<<20
		}
		x, _ := strconv.ParseInt(n, 10, 64)
		switch k {
		case "if":
			in = v
		case "of":
			out = v
		case "bs":
			bs = x * mult
		case "count":
			count = x * mult
		case "skip":
			skip = x * mult
		case "conv", "status":
		default:
			return usage(p, "dd", "unknown operand "+k)
		}
	}
	var r io.Reader = p.Stdin()
	if in != "-" {
		h, err := p.Open(in, boxfs.Read)
		if err != nil {
			return fail(p, "dd", "can't open '%s': %s", in, ash.ErrText(err))
		}
		defer h.Close()
		r = h
	}
	io.CopyN(io.Discard, r, skip*bs)
	if count >= 0 {
		r = io.LimitReader(r, count*bs)
	}
	w := p.Stdout()
	if out != "" {
		h, err := p.Open(out, boxfs.Write|boxfs.Create|boxfs.Trunc)
		if err != nil {
			return fail(p, "dd", "can't open '%s': %s", out, ash.ErrText(err))
		}
		defer h.Close()
		w = h
	}
	n, err := io.Copy(w, r)
	if err != nil {
		return fail(p, "dd", "error writing '%s': %s", out, ash.ErrText(err))
	}
	fmt.Fprintf(p.Stderr(), "%d+%d records in\n%d+%d records out\n", n/bs, b2i(n%bs > 0), n/bs, b2i(n%bs > 0))
	return 0
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Sync is the program sync, with files as arguments too.
func Sync(p *Proc, args []string) int {
	f, err := parse(args, "df")
	if err != nil {
		return usage(p, "sync", err.Error())
	}
	if len(f.rest) == 0 {
		p.FS().Sync()
		return 0
	}
	st := 0
	for _, n := range f.rest {
		if err := p.FS().Fsync(p.Path(n)); err != nil {
			st = fail(p, "sync", "%s: %s", n, ash.ErrText(err))
		}
	}
	return st
}

// Df is the program df: the overlay and the RAM.
func Df(p *Proc, args []string) int {
	f, err := parse(args, "kPhmTai")
	if err != nil {
		return usage(p, "df", err.Error())
	}
	type row struct {
		dev, mount string
		size, used int64
	}
	fsys := p.FS()
	overlay := row{"/dev/mtdblock9", "/overlay", fsys.Capacity() / 1024, (fsys.Used() + 1023) / 1024}
	top := row{"overlayfs:/overlay", "/", overlay.size, overlay.used}
	if fsys.Volatile() {
		top = row{"overlayfs:/tmp/root", "/", 124288, 160}
		overlay = row{"tmpfs", "/tmp/root", 124288, 160}
	}
	ram := row{"tmpfs", "/tmp", 124288, 160}
	if room, used := fsys.Memory(); room > 0 {
		ram.size, ram.used = room/1024, (used+1023)/1024
	}
	rows := []row{{"/dev/root", "/rom", 5120, 5120}, ram, overlay, top, {"tmpfs", "/dev", 512, 0}}
	if len(f.rest) > 0 {
		var pick []row
		for _, n := range f.rest {
			full := path.Clean(p.Path(n))
			if info, err := fsys.Stat(full); err != nil {
				return fail(p, "df", "%s: can't find mount point: %s", n, ash.ErrText(err))
			} else if info.RAM && !strings.HasPrefix(full, "/overlay") {
				pick = append(pick, rows[1])
				continue
			}
			if full == "/overlay" && !fsys.Volatile() {
				pick = append(pick, overlay)
			} else if strings.HasPrefix(full, "/rom") {
				pick = append(pick, rows[0])
			} else {
				pick = append(pick, top)
			}
		}
		rows = pick
	}
	fmt.Fprintln(p.Stdout(), "Filesystem           1K-blocks      Used Available Use% Mounted on")
	for _, r := range rows {
		pct := int64(0)
		if r.size > 0 {
			pct = (r.used*100 + r.size - 1) / r.size
		}
		fmt.Fprintf(p.Stdout(), "%-20s %9d %9d %9d %3d%% %s\n", r.dev, r.size, r.used, max(r.size-r.used, 0), pct, r.mount)
	}
	return 0
}

// Du is the program du -s.
func Du(p *Proc, args []string) int {
	f, err := parse(args, "skahcxd:")
	if err != nil {
		return usage(p, "du", err.Error())
	}
	if len(f.rest) == 0 {
		f.rest = []string{"."}
	}
	for _, n := range f.rest {
		var total int64
		each(p, []string{n}, true, func(_ string, i boxfs.Info, err error) {
			if err == nil {
				total += (i.Length + 1023) / 1024
			}
		})
		fmt.Fprintf(p.Stdout(), "%d\t%s\n", total, n)
	}
	return 0
}
