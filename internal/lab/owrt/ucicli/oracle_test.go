//go:build oracle

package ucicli

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/router"
)

// The real uci program judges the emulated one where there is one. No Debian
// package has it, so these tests exist only with the build tag oracle:
//
//	HEIMWEG_UCI=/path/to/uci HEIMWEG_UCI_LINE=24.10 go test -tags oracle ./internal/lab/owrt/ucicli -run Oracle -oracle.runs 1000
//
// What it taught is kept in testdata.
var (
	oracleRuns = flag.Int("oracle.runs", 100, "command sequences to give to the real uci")
	oracleSeed = flag.Uint64("oracle.seed", 1, "seed of the generator")
)

// osFS is a part of this computer's file system.
type osFS struct{}

func (osFS) ReadFile(n string) ([]byte, error) { return os.ReadFile(n) }
func (osFS) WriteFile(n string, b []byte, m fs.FileMode) error {
	return os.WriteFile(n, b, m)
}
func (osFS) Rename(a, b string) error { return os.Rename(a, b) }
func (osFS) Remove(n string) error    { return os.Remove(n) }
func (osFS) ReadDir(n string) ([]string, error) {
	list, err := os.ReadDir(n)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}
func (osFS) Stat(n string) (fs.FileMode, bool) {
	i, err := os.Stat(n)
	if err != nil {
		return 0, false
	}
	return i.Mode(), true
}
func (osFS) MkdirAll(n string, m fs.FileMode) error { return os.MkdirAll(n, m) }

// tree is every file below dir with mode and content.
func tree(t *testing.T, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		i, _ := e.Info()
		fmt.Fprintf(&b, "%v %s", i.Mode(), name)
		if i.Mode().IsRegular() {
			text, _ := os.ReadFile(p)
			fmt.Fprintf(&b, " %q", text)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func plant(t *testing.T, dir string, files map[string]string) {
	for n, text := range files {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(n, "t") {
			mode = 0o600
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOracle(t *testing.T) {
	program := os.Getenv("HEIMWEG_UCI")
	if program == "" {
		t.Skip("HEIMWEG_UCI names no real uci")
	}
	line, known := router.ParseLine(os.Getenv("HEIMWEG_UCI_LINE"))
	if !known {
		line = router.Line2512
	}
	failures := 0
	for i := range *oracleRuns {
		g := &gen{r: rand.New(rand.NewPCG(*oracleSeed, uint64(i))), line: line}
		real, ours := t.TempDir(), t.TempDir()
		files := g.files()
		plant(t, real, files)
		plant(t, ours, files)
		var log strings.Builder
		for range 1 + g.r.IntN(12) {
			flags, args, stdin := g.command()
			with := func(dir string) []string {
				all := []string{"-c", dir + "/conf", "-t", dir + "/save"}
				if !line.Before(router.Line2410) {
					all = append(all, "-C", dir+"/over")
				}
				for _, f := range flags {
					all = append(all, strings.ReplaceAll(f, "DIR", dir))
				}
				return append(all, args...)
			}
			cmd := exec.Command(program, with(real)...)
			cmd.Args[0] = "uci"
			cmd.Env = []string{"POSIXLY_CORRECT=1"}
			cmd.Stdin = strings.NewReader(stdin)
			var out, errs, ourOut, ourErrs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			cmd.Run()
			exit := cmd.ProcessState.ExitCode()
			ourExit := Run(osFS{}, line, with(ours), strings.NewReader(stdin), &ourOut, &ourErrs)
			fmt.Fprintf(&log, "uci %q %q < %q\n", flags, args, stdin)
			if exit != ourExit || out.String() != ourOut.String() || errs.String() != ourErrs.String() {
				t.Errorf("run %d, files %q:\n%s real %d %q %q\n ours %d %q %q", i, files, log.String(),
					exit, out.String(), errs.String(), ourExit, ourOut.String(), ourErrs.String())
				failures++
				break
			}
			if a, b := tree(t, real), tree(t, ours); a != b {
				t.Errorf("run %d, files %q:\n%s real\n%s\n ours\n%s", i, files, log.String(), a, b)
				failures++
				break
			}
		}
		if failures > 8 {
			t.Fatal("and so on")
		}
	}
}

// gen makes files and commands, few of them in order.
type gen struct {
	r    *rand.Rand
	line router.Line
}

func (g *gen) pick(of ...string) string { return of[g.r.IntN(len(of))] }

func (g *gen) section() string {
	return g.pick("lan", "wan", "wg0", "@peer[0]", "@peer[-1]", "@rule[1]", "@[2]", "@rule[9]", "@peer[]", "@peer[+1]", "cfg0392bd", "cfg043511",
		"cfg053511", "new1", "a-b", "@rule", "@rule[x]", "", "@peer[-9]", "@peer[0", "peer[0]", "p1")
}

func (g *gen) option() string {
	return g.pick("a", "b", "dns", "dns", "mtu", "a-b", "", "proto", "x1")
}

func (g *gen) value() string {
	return g.pick("1", "2", "10", "", "two words", "it's", "1.1.1.1", "8.8.8.8", "a=b", "line\nbreak", "tab\there", "-1", "x#y", "x;y", `b\s`, `"q"`, "\x01", "ü", "longer than before")
}

func (g *gen) typ() string {
	return g.pick("peer", "rule", "interface", "iface", "a-b", "", "two words", "ty.pe", "x")
}

func (g *gen) pkg() string {
	return g.pick("t", "t", "t", "t", "t", "t", "t", "t", "u", "broken", "none", "", "t~", "a.b", "./t", "x y")
}

func (g *gen) ref() string {
	s := g.pkg()
	if g.r.IntN(12) == 0 {
		return s
	}
	s += "." + g.section()
	if g.r.IntN(4) > 0 {
		s += "." + g.option()
	}
	if g.r.IntN(40) == 0 {
		s += ".z"
	}
	return s
}

func (g *gen) text() string {
	var b strings.Builder
	for range 1 + g.r.IntN(5) {
		fmt.Fprintf(&b, "%s", g.pick("", "\n", "# note\n"))
		fmt.Fprintf(&b, "config %s\n", g.pick("peer", "rule", "rule", "peer", "interface lan", "interface 'wg0'", "interface wan", "peer p1", "peer", g.pick("rule lan", "\"two\" x", "a 'b'")))
		for range g.r.IntN(4) {
			fmt.Fprintf(&b, "\t%s %s %s\n", g.pick("option", "option", "list"), g.pick("a", "b", "dns", "mtu"), g.pick("1", "'2'", `"3 4"`, "''", "1.1.1.1", "'it'\\''s'", ""))
		}
	}
	if g.r.IntN(25) == 0 {
		b.WriteString(g.pick("oops\n", "option a b c\n", "config\n", "option 'x\n"))
	}
	return b.String()
}

func (g *gen) files() map[string]string {
	f := map[string]string{"conf/t": g.text(), "conf/u": "config rule\n\toption a 1\n"}
	if g.r.IntN(3) == 0 {
		f["conf/broken"] = "config x\n\toption\n"
	}
	if g.r.IntN(5) == 0 {
		f["conf/"+g.pick("t~", "t.bak", "sub/t", ".hidden")] = "config rule 'backup'\n"
	}
	if g.r.IntN(6) == 0 && !g.line.Before(router.Line2410) {
		f["over/t"] = g.text()
	}
	if g.r.IntN(5) == 0 {
		var b strings.Builder
		for range 1 + g.r.IntN(3) {
			b.WriteString(g.pick("", "+", "-", "@", "^", "|", "~", "?") + g.pick("t", "t", "t", "u") + "." + g.pick("lan", "wg0", "@peer[0]", "new2"))
			b.WriteString(g.pick("", ".a", ".b", ".dns"))
			b.WriteString(g.pick("", "='x'", "=x", "=''", "='0'", "=\"two\nlines\"", "='x", " ='x'", "=a-b"))
			b.WriteString(g.pick("\n", "\n", "\n", "\n", "\r\n", " \n", ""))
		}
		f["save/t"] = b.String()
	}
	return f
}

func (g *gen) command() (flags, args []string, stdin string) {
	for g.r.IntN(6) == 0 {
		flags = append(flags, g.pick("-q", "-X", "-n", "-N", "-S", "-s", "-m", "-d|", "-pDIR/more", "-PDIR/save2", "-tDIR/save3"))
	}
	args, stdin = g.args()
	if g.r.IntN(8) == 0 {
		var b strings.Builder
		for range 1 + g.r.IntN(6) {
			a, _ := g.args()
			for i, w := range a {
				if i > 0 {
					b.WriteString(" ")
				}
				if strings.ContainsAny(w, " \t\n'\"#;\\") || w == "" || g.r.IntN(4) == 0 {
					w = quoted(w)
				}
				b.WriteString(w)
			}
			b.WriteString(g.pick("\n", "\n", "\n", "\n\n", " # c\n", ";\n", "; exit\n", " x y z\n", " 'open\n", " \\\n\n", ""))
		}
		return flags, []string{"batch"}, b.String()
	}
	return flags, args, stdin
}

func (g *gen) args() (args []string, stdin string) {
	switch name := g.pick("get", "set", "set", "set", "set", "add", "add_list", "add_list", "del_list", "delete", "delete", "del", "rename", "ren", "reorder",
		"show", "show", "changes", "changes", "export", "commit", "commit", "revert", "import", "help", "bogus", "GET", "batch", "exit"); name {
	case "get", "GET", "revert", "show", "export", "changes":
		if g.r.IntN(4) == 0 {
			args = []string{name}
		} else if g.r.IntN(3) == 0 {
			args = []string{name, g.pkg()}
		} else {
			args = []string{name, g.ref()}
		}
		if name == "revert" && len(args) < 2 {
			args = append(args, "t")
		}
	case "commit":
		args = []string{name, "t"}
		if g.r.IntN(3) == 0 {
			args = []string{name}
		} else if g.r.IntN(5) == 0 {
			args = []string{name, g.ref()}
		}
	case "add":
		args = []string{name, g.pkg(), g.typ()}
	case "import":
		args = []string{name, g.pick("t", "t", "new", "./x", "../y", "a.b", "")}
		stdin = g.text()
		if g.r.IntN(4) == 0 {
			args = args[:1]
			stdin = "package t\n" + stdin + g.pick("", "package u\n"+g.text(), "package t\n", "package\n")
		}
		if g.r.IntN(8) == 0 {
			stdin = ""
		}
	case "help", "bogus", "batch", "exit":
		args = []string{name}
	case "set":
		r := g.ref()
		if strings.Count(r, ".") == 1 && g.r.IntN(5) > 0 {
			r += "=" + g.typ()
		} else {
			r += "=" + g.value()
		}
		args = []string{name, r}
	case "delete", "del":
		args = []string{name, g.ref() + g.pick("", "", "", "=0", "=1", "=-1", "=", "=x", "=1.1.1.1", "=1x")}
	case "rename", "ren":
		args = []string{name, g.ref() + g.pick("", "=", "=lan", "=new2", "=a-b", "=a b", "=b")}
	case "reorder":
		args = []string{name, g.pkg() + "." + g.section() + g.pick("=0", "=1", "=2", "=99", "=-1", "=x", "", "=")}
	default:
		args = []string{name, g.ref() + g.pick("=", "=", "=", "") + g.value()}
	}
	if g.r.IntN(40) == 0 {
		args = append(args, "more")
	}
	return args, stdin
}

// real is a directory with a uci program and its libraries.
type real struct{ root string }

func (r real) uci(args []string, stdin string) (string, string, int) {
	cmd := exec.Command("/bin/uci", args...)
	cmd.Args[0] = "uci"
	cmd.Env = []string{"POSIXLY_CORRECT=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.root}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		return "", err.Error(), -1
	}
	// The judge here is built with glibc; on a router musl says it in these words.
	stderr := regexp.MustCompile(`(invalid option|requires an argument) -- '(.)'`).ReplaceAllStringFunc(errs.String(), func(s string) string {
		if strings.HasPrefix(s, "invalid") {
			return "unrecognized option: " + s[len(s)-2:len(s)-1]
		}
		return "requires an argument: " + s[len(s)-2:len(s)-1]
	})
	return out.String(), stderr, cmd.ProcessState.ExitCode()
}

func (r real) cat(n string) (string, bool) {
	b, err := os.ReadFile(r.root + n)
	return string(b), err == nil
}

// TestOracleTranscripts plays the transcripts to real programs: below the
// directory HEIMWEG_UCI_ROOTS, one root directory per release line with bin/uci.
func TestOracleTranscripts(t *testing.T) {
	roots := os.Getenv("HEIMWEG_UCI_ROOTS")
	if roots == "" {
		t.Skip("HEIMWEG_UCI_ROOTS names no directory with the real one")
	}
	scripts(t, func(t *testing.T, file, line string, a *txtar.Archive) {
		r := real{filepath.Join(roots, line)}
		for _, d := range []string{"/etc/config", "/tmp/.uci", "/var/run/uci", "/tmp/other"} {
			if err := os.RemoveAll(r.root + d); err != nil {
				t.Fatal(err)
			}
		}
		os.MkdirAll(r.root+"/etc/config", 0o755)
		for _, f := range a.Files {
			if strings.HasPrefix(f.Name, "/") {
				os.MkdirAll(r.root+path.Dir(f.Name), 0o755)
				os.WriteFile(r.root+f.Name, f.Data, 0o600)
			}
		}
		if got := play(t, r, a); got != string(a.Comment) {
			t.Errorf("real\n%s\ntranscript\n%s", got, a.Comment)
		}
	})
}
