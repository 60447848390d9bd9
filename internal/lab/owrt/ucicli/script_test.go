package ucicli

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci/scan"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// memFS is a small file system in memory.
type memFS struct {
	files map[string][]byte
	modes map[string]fs.FileMode
	dirs  map[string]bool
	room  int // bytes that may still be written below /etc; -1: no end
}

func newMemFS() *memFS {
	m := &memFS{map[string][]byte{}, map[string]fs.FileMode{}, map[string]bool{}, -1}
	m.MkdirAll(ConfDir, 0o755)
	m.MkdirAll("/tmp", 0o777)
	m.MkdirAll("/var/run", 0o755)
	return m
}

var errNone = errors.New("no such file")

func (m *memFS) ReadFile(n string) ([]byte, error) {
	if b, exists := m.files[n]; exists {
		return slices.Clone(b), nil
	}
	return nil, errNone
}

func (m *memFS) WriteFile(n string, b []byte, mode fs.FileMode) error {
	if !m.dirs[path.Dir(n)] {
		return errNone
	}
	if _, exists := m.files[n]; !exists {
		m.modes[n] = mode
	}
	if m.room >= 0 && strings.HasPrefix(n, "/etc/") {
		fits := min(m.room, len(b))
		m.room -= fits
		m.files[n] = slices.Clone(b[:fits])
		if fits < len(b) {
			return errors.New("no space left on device")
		}
		return nil
	}
	m.files[n] = slices.Clone(b)
	return nil
}

func (m *memFS) Rename(a, b string) error {
	if _, exists := m.files[a]; !exists {
		return errNone
	}
	m.files[b], m.modes[b] = m.files[a], m.modes[a]
	return m.Remove(a)
}

func (m *memFS) Remove(n string) error {
	delete(m.files, n)
	delete(m.modes, n)
	return nil
}

func (m *memFS) ReadDir(n string) (names []string, err error) {
	if !m.dirs[n] {
		return nil, errNone
	}
	for f := range m.files {
		if path.Dir(f) == n {
			names = append(names, path.Base(f))
		}
	}
	for d := range m.dirs {
		if d != "/" && path.Dir(d) == n {
			names = append(names, path.Base(d))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *memFS) Stat(n string) (fs.FileMode, bool) {
	if m.dirs[n] {
		return fs.ModeDir | 0o755, true
	}
	mode, exists := m.modes[n]
	return mode, exists
}

func (m *memFS) MkdirAll(n string, _ fs.FileMode) error {
	for ; n != "/"; n = path.Dir(n) {
		m.dirs[n] = true
	}
	m.dirs["/"] = true
	return nil
}

// A box runs uci somewhere.
type box interface {
	uci(args []string, stdin string) (stdout, stderr string, exit int)
	cat(name string) (string, bool)
}

type emulated struct {
	*memFS
	line router.Line
}

func (e emulated) uci(args []string, stdin string) (string, string, int) {
	var out, errs bytes.Buffer
	exit := Run(e.memFS, e.line, args, strings.NewReader(stdin), &out, &errs)
	return out.String(), errs.String(), exit
}

func (e emulated) cat(n string) (string, bool) {
	b, exists := e.files[n]
	return string(b), exists
}

// play runs the commands of a transcript and returns it with what they print.
func play(t *testing.T, b box, a *txtar.Archive) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(string(a.Comment)) {
		if !strings.HasPrefix(line, "$ ") {
			if line == "\n" || line[0] == '#' || strings.HasPrefix(line, "lines ") {
				out.WriteString(line)
			}
			continue
		}
		out.WriteString(line)
		words, stdin := words(t, a, line[2:])
		var stdout, stderr string
		exit := 0
		switch words[0] {
		case "uci":
			stdout, stderr, exit = b.uci(words[1:], stdin)
		case "cat":
			text, exists := b.cat(words[1])
			if stdout = text; !exists {
				exit = 1
			}
		default:
			t.Fatalf("%s is neither uci nor cat", words[0])
		}
		if i := strings.Index(stderr, "Usage: uci"); i >= 0 {
			stderr = stderr[:i] + "(usage)\n"
		}
		for l := range strings.Lines(stderr) {
			out.WriteString("! " + strings.TrimSuffix(l, "\n") + "\n")
		}
		for l := range strings.Lines(stdout) {
			out.WriteString("> " + strings.TrimSuffix(l, "\n") + "\n")
		}
		if exit != 0 {
			fmt.Fprintf(&out, "? %d\n", exit)
		}
	}
	return out.String()
}

// words splits a command; "␤" in it stands for a line end, and "< name" at its
// end for a part of the archive as standard input.
func words(t *testing.T, a *txtar.Archive, line string) (out []string, stdin string) {
	line, from, found := strings.Cut(strings.TrimSpace(line), " < ")
	if found {
		i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == from })
		if i < 0 {
			t.Fatalf("no part %q", from)
		}
		stdin = string(a.Files[i].Data)
	}
	r := scan.New(line)
	for r.NextLine(); r.Rest(); {
		empty := strings.HasSuffix(line, " ''") || strings.Contains(line, " '' ")
		w, err := r.Arg()
		if err != nil {
			t.Fatal(err)
		}
		if w != "" || empty {
			out = append(out, strings.ReplaceAll(w, "␤", "\n"))
		}
	}
	return out, stdin
}

func linesOf(a *txtar.Archive) []string {
	for l := range strings.Lines(string(a.Comment)) {
		if rest, is := strings.CutPrefix(l, "lines "); is {
			return strings.Fields(rest)
		}
	}
	var all []string
	for _, l := range router.Lines() {
		all = append(all, l.String())
	}
	return all
}

func scripts(t *testing.T, each func(t *testing.T, file, line string, a *txtar.Archive)) {
	files, _ := filepath.Glob("testdata/*.txtar")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, f := range files {
		a, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range linesOf(a) {
			t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar")+"/"+line, func(t *testing.T) { each(t, f, line, a) })
		}
	}
}

func TestTranscripts(t *testing.T) {
	scripts(t, func(t *testing.T, file, line string, a *txtar.Archive) {
		l, known := router.ParseLine(line)
		if !known {
			t.Fatalf("unknown line %q", line)
		}
		m := newMemFS()
		for _, f := range a.Files {
			if strings.HasPrefix(f.Name, "/") {
				m.MkdirAll(path.Dir(f.Name), 0o755)
				m.WriteFile(f.Name, f.Data, 0o600)
			}
		}
		got := play(t, emulated{m, l}, a)
		if *update {
			a.Comment = []byte(got)
			if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got != string(a.Comment) {
			t.Errorf("got\n%s\nwant\n%s", got, a.Comment)
		}
	})
}

// Seen with the real program on a full tmpfs: exit 0, the file cut off where the
// room ended, the staged change gone.
func TestFullFlash(t *testing.T) {
	for _, room := range []int{0, 30} {
		m := newMemFS()
		m.WriteFile("/etc/config/t", []byte("config interface 'lan'\n\toption proto 'static'\n"), 0o600)
		b := emulated{m, router.Line2512}
		if _, _, exit := b.uci([]string{"set", "t.lan.proto=dhcp"}, ""); exit != 0 {
			t.Fatalf("set: exit %d", exit)
		}
		m.room = room
		if _, stderr, exit := b.uci([]string{"commit", "t"}, ""); exit != 0 || stderr != "" {
			t.Errorf("commit: exit %d, %q", exit, stderr)
		}
		want := "\nconfig interface 'lan'\n\toption proto 'dhcp'\n\n"[:room]
		if got, _ := b.cat("/etc/config/t"); got != want {
			t.Errorf("file %q, want %q", got, want)
		}
		if got, _ := b.cat("/tmp/.uci/t"); got != "" {
			t.Errorf("save file %q, want it empty", got)
		}
	}
}

// Two writers whose reads both come before the first one's rename: the later
// rename wins (facts: OpenWrt 4.5).
func TestLostUpdate(t *testing.T) {
	m := newMemFS()
	m.WriteFile("/etc/config/t", []byte("config interface 'lan'\n"), 0o600)
	run := func(f FS, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if exit := Run(f, router.Line2512, args, nil, &out, &out); exit != 0 {
			t.Fatalf("%q: exit %d, %s", args, exit, &out)
		}
	}
	run(m, "-t", "/tmp/one", "set", "t.lan.a=1")
	run(m, "-t", "/tmp/two", "set", "t.lan.b=2")
	run(beforeRename{m, func() { run(m, "-t", "/tmp/two", "commit", "t") }}, "-t", "/tmp/one", "commit", "t")
	if got, want := string(m.files["/etc/config/t"]), "\nconfig interface 'lan'\n\toption a '1'\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The new file is written beside the one it replaces, on flash or in RAM.
func TestNewFileIsBesideTheOld(t *testing.T) {
	for _, dir := range []string{ConfDir, Conf2Dir} {
		m := newMemFS()
		m.MkdirAll(dir, 0o755)
		m.WriteFile(dir+"/t", []byte("config interface 'lan'\n"), 0o600)
		m.WriteFile(ConfDir+"/t", []byte("config interface 'lan'\n"), 0o600)
		r := &renames{memFS: m}
		for _, args := range [][]string{{"set", "t.lan.a=1"}, {"commit", "t"}} {
			if exit := Run(r, router.Line2512, args, nil, os.Stdout, os.Stderr); exit != 0 {
				t.Fatalf("%q: exit %d", args, exit)
			}
		}
		if want := []string{dir + "/.t.uci-000000 " + dir + "/t"}; !slices.Equal(r.seen, want) {
			t.Errorf("renamed %q, want %q", r.seen, want)
		}
	}
}

type renames struct {
	*memFS
	seen []string
}

func (r *renames) Rename(from, to string) error {
	r.seen = append(r.seen, from+" "+to)
	return r.memFS.Rename(from, to)
}

// beforeRename lets something else happen before a rename.
type beforeRename struct {
	*memFS
	do func()
}

func (b beforeRename) Rename(from, to string) error {
	b.do()
	return b.memFS.Rename(from, to)
}
