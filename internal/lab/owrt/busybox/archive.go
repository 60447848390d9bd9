package busybox

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

// randomName is six characters as mktemp chooses them.
func randomName() string {
	const set = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, 6)
	for i := range b {
		b[i] = set[rand.IntN(len(set))]
	}
	return string(b)
}

// Gzip is the programs gzip, gunzip and zcat.
func Gzip(p *Proc, args []string) int {
	f, err := parse(args, "cdfkt123456789n")
	if err != nil {
		return usage(p, args[0], err.Error())
	}
	un := f.has('d') || f.has('t') || args[0] != "gzip"
	work := func(r io.Reader) ([]byte, error) {
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		if !un {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write(data)
			z.Close()
			return b.Bytes(), nil
		}
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("invalid magic")
		}
		return io.ReadAll(z)
	}
	if len(f.rest) == 0 || f.has('c') || args[0] == "zcat" || f.has('t') {
		st := 0
		n := inputs(p, args[0], f.rest, func(name string, r io.Reader) {
			out, err := work(r)
			if err != nil {
				st = fail(p, args[0], "%v", err)
				return
			}
			if !f.has('t') {
				p.Stdout().Write(out)
			}
		})
		return max(n, st)
	}
	for _, n := range f.rest {
		data, err := readArg(p, n)
		if err != nil {
			return fail(p, args[0], "%s: %s", n, ash.ErrText(err))
		}
		to := n + ".gz"
		if un {
			if to = strings.TrimSuffix(n, ".gz"); to == n {
				return fail(p, args[0], "%s: unknown suffix - ignored", n)
			}
		}
		out, err := work(bytes.NewReader(data))
		if err == nil {
			err = p.FS().WriteFile(p.Path(to), out, 0o644)
		}
		if err != nil {
			p.Check()
			return fail(p, args[0], "%s: %s", n, ash.ErrText(err))
		}
		if !f.has('k') {
			p.FS().Remove(p.Path(n))
		}
	}
	return 0
}

// Tar is the program tar: -c -x -t, -z -f -C -O -p -v -k -T -X --exclude.
func Tar(p *Proc, args []string) int {
	if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
		args = append([]string{args[0], "-" + args[1]}, args[2:]...)
	}
	// -C takes effect where it stands when creating; one at the front is usual.
	f, err := parse(args, "cxtzf:C:OpvkT:X:hoam", "gzip=z", "create=c", "extract=x", "list=t")
	if err != nil {
		return usage(p, "tar", err.Error())
	}
	if f.has('C') {
		dir := path.Clean(p.Path(f.val['C']))
		if !isDir(p, dir) {
			return fail(p, "tar", "can't change directory to '%s': No such file or directory", f.val['C'])
		}
		defer func(old string) { p.Cwd = old }(p.Cwd)
		if f.has('f') && f.val['f'] != "-" {
			f.val['f'] = p.Path(f.val['f'])
		}
		if f.has('T') && f.val['T'] != "-" {
			f.val['T'] = p.Path(f.val['T'])
		}
		p.Cwd = dir
	}
	if f.has('T') {
		data, err := readArg(p, f.val['T'])
		if err != nil {
			return fail(p, "tar", "%s: %s", f.val['T'], ash.ErrText(err))
		}
		for _, l := range strings.Split(string(data), "\n") {
			if l != "" {
				f.rest = append(f.rest, l)
			}
		}
	}
	switch {
	case f.has('c'):
		return tarCreate(p, f)
	case f.has('x'), f.has('t'):
		return tarExtract(p, f)
	}
	return usage(p, "tar", "must specify one of c, x, t")
}

func tarCreate(p *Proc, f *flags) int {
	var out bytes.Buffer
	var w io.Writer = &out
	var z *gzip.Writer
	if f.has('z') {
		z = gzip.NewWriter(&out)
		w = z
	}
	tw := tar.NewWriter(w)
	st := 0
	var add func(name string)
	add = func(name string) {
		info, err := p.FS().Lstat(p.Path(name))
		if err == nil && info.FileMode&fs.ModeSymlink != 0 && f.has('h') {
			info, err = p.FS().Stat(p.Path(name))
		}
		if err != nil {
			st = fail(p, "tar", "%s: %s", name, ash.ErrText(err))
			return
		}
		h := &tar.Header{Name: strings.TrimLeft(name, "/"), Mode: int64(info.FileMode.Perm()), Uid: info.UID, Gid: info.GID,
			Uname: owner(info.UID), Gname: owner(info.GID), ModTime: info.Time.Truncate(time.Second)}
		if h.Name == "" {
			h.Name = "."
		}
		var data []byte
		switch {
		case info.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(h.Name, "/")+"/"
		case info.FileMode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname = tar.TypeSymlink, info.Target
		default:
			h.Typeflag = tar.TypeReg
			data, _ = p.FS().ReadFile(p.Path(name))
			h.Size = int64(len(data))
		}
		tw.WriteHeader(h)
		tw.Write(data)
		if f.has('v') {
			fmt.Fprintln(p.Stderr(), name)
		}
		if info.IsDir() {
			list, _ := p.FS().ReadDir(p.Path(name))
			for _, e := range list {
				add(strings.TrimSuffix(name, "/") + "/" + e.Base)
			}
		}
	}
	for _, n := range f.rest {
		add(n)
	}
	tw.Close()
	if z != nil {
		z.Close()
	}
	if !f.has('f') || f.val['f'] == "-" {
		p.Stdout().Write(out.Bytes())
		return st
	}
	if err := p.FS().WriteFile(p.Path(f.val['f']), out.Bytes(), 0o666&^p.Mask); err != nil {
		p.Check()
		return fail(p, "tar", "can't write to '%s': %s", f.val['f'], ash.ErrText(err))
	}
	return st
}

func tarExtract(p *Proc, f *flags) int {
	name := "-"
	if f.has('f') {
		name = f.val['f']
	}
	data, err := readArg(p, name)
	if err != nil {
		return fail(p, "tar", "can't open '%s': %s", name, ash.ErrText(err))
	}
	var r io.Reader = bytes.NewReader(data)
	if len(data) > 2 && data[0] == 0x1f && data[1] == 0x8b {
		z, err := gzip.NewReader(r)
		if err != nil {
			return fail(p, "tar", "invalid magic")
		}
		r = z
	}
	tr := tar.NewReader(r)
	seen, st := 0, 0
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if seen == 0 {
				return fail(p, "tar", "short read")
			}
			return fail(p, "tar", "corrupted data")
		}
		seen++
		if len(f.rest) > 0 && !tarWanted(f.rest, h.Name) {
			continue
		}
		if f.has('t') {
			fmt.Fprintln(p.Stdout(), h.Name)
			continue
		}
		if f.has('v') {
			fmt.Fprintln(p.Stdout(), h.Name)
		}
		if f.has('O') {
			io.Copy(p.Stdout(), tr)
			continue
		}
		if err := tarPut(p, h, tr); err != nil {
			p.Check()
			st = fail(p, "tar", "can't open '%s': %s", h.Name, ash.ErrText(err))
			return st
		}
	}
	if len(data) == 0 {
		return fail(p, "tar", "short read")
	}
	return st
}

func tarWanted(list []string, name string) bool {
	for _, w := range list {
		w = strings.TrimSuffix(strings.TrimPrefix(w, "/"), "/")
		n := strings.TrimSuffix(name, "/")
		if n == w || strings.HasPrefix(n, w+"/") {
			return true
		}
	}
	return false
}

func tarPut(p *Proc, h *tar.Header, r io.Reader) error {
	fsys := p.FS()
	to := p.Path(strings.TrimPrefix(h.Name, "/"))
	if err := fsys.MkdirAll(path.Dir(path.Clean(to)), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if isDir(p, to) {
			return nil
		}
		return fsys.Mkdir(to, fs.FileMode(h.Mode).Perm())
	case tar.TypeSymlink:
		fsys.Remove(to)
		return fsys.Symlink(h.Linkname, to)
	case tar.TypeReg:
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		// busybox removes the old file and makes a new one.
		if i, err := fsys.Lstat(to); err == nil && !i.IsDir() {
			if err := fsys.Remove(to); err != nil {
				return err
			}
		}
		if err := fsys.WriteFile(to, data, fs.FileMode(h.Mode).Perm()); err != nil {
			return err
		}
		fsys.Chmod(to, fs.FileMode(h.Mode).Perm())
		fsys.Chown(to, h.Uid, h.Gid)
		return fsys.Chtimes(to, h.ModTime)
	}
	return nil
}

// Find is the program find: -name -path -type -maxdepth -mindepth -mtime -newer -print -print0 -delete -exec -o ! and so on.
func Find(p *Proc, args []string) int {
	a := args[1:]
	var roots []string
	for len(a) > 0 && !strings.HasPrefix(a[0], "-") && a[0] != "!" && a[0] != "(" {
		roots, a = append(roots, a[0]), a[1:]
	}
	if len(roots) == 0 {
		roots = []string{"."}
	}
	f := &finder{p: p, a: a, max: -1}
	test := f.or()
	if f.bad == "" && f.i < len(a) {
		f.bad = a[f.i]
	}
	if f.bad != "" {
		return fail(p, "find", "unrecognized: %s", f.bad)
	}
	for _, r := range roots {
		f.walk(r, 0, test)
	}
	return f.status
}

type finder struct {
	p        *Proc
	a        []string
	i        int
	max, min int
	bad      string
	acts     bool
	status   int
	prune    bool
}

type findTest func(name string, i boxfs.Info) bool

func (f *finder) walk(name string, depth int, test findTest) {
	info, err := f.p.FS().Lstat(f.p.Path(name))
	if err != nil {
		f.status = fail(f.p, "find", "%s: %s", name, ash.ErrText(err))
		return
	}
	visit := func() {
		if depth >= f.min && test(name, info) && !f.acts {
			fmt.Fprintln(f.p.Stdout(), name)
		}
	}
	f.prune = false
	deletes := strings.Contains(strings.Join(f.a, " "), "-delete") || strings.Contains(strings.Join(f.a, " "), "-depth")
	if !deletes {
		visit()
	}
	if info.IsDir() && !f.prune && (f.max < 0 || depth < f.max) {
		list, _ := f.p.FS().ReadDir(f.p.Path(name))
		for _, e := range list {
			f.walk(strings.TrimSuffix(name, "/")+"/"+e.Base, depth+1, test)
		}
	}
	if deletes {
		visit()
	}
}

func (f *finder) or() findTest {
	t := f.and()
	for f.i < len(f.a) && (f.a[f.i] == "-o" || f.a[f.i] == "-or") {
		f.i++
		l, r := t, f.and()
		t = func(n string, i boxfs.Info) bool { return l(n, i) || r(n, i) }
	}
	return t
}

func (f *finder) and() findTest {
	t := findTest(func(string, boxfs.Info) bool { return true })
	for f.i < len(f.a) && f.bad == "" && f.a[f.i] != "-o" && f.a[f.i] != "-or" && f.a[f.i] != ")" {
		if f.a[f.i] == "-a" {
			f.i++
			continue
		}
		l, r := t, f.primary()
		t = func(n string, i boxfs.Info) bool { return l(n, i) && r(n, i) }
	}
	return t
}

func (f *finder) arg() string {
	if f.i < len(f.a) {
		f.i++
		return f.a[f.i-1]
	}
	f.bad = "missing argument"
	return ""
}

func (f *finder) primary() findTest {
	yes := findTest(func(string, boxfs.Info) bool { return true })
	switch op := f.arg(); op {
	case "!", "-not":
		t := f.primary()
		return func(n string, i boxfs.Info) bool { return !t(n, i) }
	case "(":
		t := f.or()
		if f.arg() != ")" {
			f.bad = "missing )"
		}
		return t
	case "-name", "-iname":
		pat := f.arg()
		return func(n string, _ boxfs.Info) bool { return ash.Match(pat, path.Base(n)) }
	case "-path":
		pat := f.arg()
		return func(n string, _ boxfs.Info) bool { return ash.Match(pat, n) }
	case "-type":
		t := f.arg()
		return func(_ string, i boxfs.Info) bool {
			switch t {
			case "d":
				return i.IsDir()
			case "l":
				return i.FileMode&fs.ModeSymlink != 0
			case "c":
				return i.FileMode&fs.ModeCharDevice != 0
			}
			return i.FileMode.IsRegular()
		}
	case "-maxdepth":
		f.max = atoi(f.arg())
	case "-mindepth":
		f.min = atoi(f.arg())
	case "-depth", "-follow", "-xdev":
	case "-prune":
		return func(string, boxfs.Info) bool { f.prune = true; return true }
	case "-newer":
		ref, err := f.p.FS().Stat(f.p.Path(f.arg()))
		if err != nil {
			f.bad = "-newer"
		}
		return func(_ string, i boxfs.Info) bool { return i.Time.After(ref.Time) }
	case "-mtime", "-mmin":
		v := f.arg()
		unit := 24 * time.Hour
		if op == "-mmin" {
			unit = time.Minute
		}
		return func(_ string, i boxfs.Info) bool {
			age := int(time.Since(i.Time) / unit)
			n := atoi(strings.TrimLeft(v, "+-"))
			switch v[0] {
			case '+':
				return age > n
			case '-':
				return age < n
			}
			return age == n
		}
	case "-size":
		v := f.arg()
		return func(_ string, i boxfs.Info) bool {
			return v == "0" && i.Length == 0 || v == "+0" && i.Length > 0
		}
	case "-print", "-print0":
		f.acts = true
		end := "\n"
		if op == "-print0" {
			end = "\x00"
		}
		return func(n string, _ boxfs.Info) bool { fmt.Fprint(f.p.Stdout(), n+end); return true }
	case "-delete":
		f.acts = true
		return func(n string, _ boxfs.Info) bool {
			if err := f.p.FS().Remove(f.p.Path(n)); err != nil {
				f.p.Check()
				f.status = fail(f.p, "find", "%s: %s", n, ash.ErrText(err))
				return false
			}
			return true
		}
	case "-exec":
		f.acts = true
		var cmd []string
		for f.bad == "" {
			x := f.arg()
			if x == ";" || x == "+" {
				break
			}
			cmd = append(cmd, x)
		}
		return func(n string, _ boxfs.Info) bool {
			c := make([]string, len(cmd))
			for i, x := range cmd {
				c[i] = strings.ReplaceAll(x, "{}", n)
			}
			return f.p.Run(ash.Spawn{Args: c}) == 0
		}
	default:
		f.bad = op
	}
	return yes
}
