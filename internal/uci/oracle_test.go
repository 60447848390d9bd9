//go:build oracle

package uci

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The real uci program is the judge of the grammar where there is one. No Debian
// package has it, so these tests exist only with the build tag oracle:
//
//	HEIMWEG_UCI=/path/to/uci go test -tags oracle ./internal/uci -run Oracle -oracle.runs 5000
//
// What it taught is kept in testdata and in the tables, so that the other tests
// need no such program.
var (
	oracleRuns = flag.Int("oracle.runs", 300, "generated documents to show to the real uci")
	oracleSeed = flag.Uint64("oracle.seed", 1, "seed of the generator")
)

type oracle struct{ program, dir string }

func newOracle(t *testing.T) *oracle {
	p := os.Getenv("HEIMWEG_UCI")
	if p == "" {
		t.Fatal("HEIMWEG_UCI has to name a real uci")
	}
	return &oracle{p, t.TempDir()}
}

// run gives the program a file "t" and returns what it prints.
func (o *oracle) run(t *testing.T, text string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, "t"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"-c", o.dir, "-t", filepath.Join(o.dir, ".save"), "-p", filepath.Join(o.dir, ".none")}, args...)
	cmd := exec.Command(o.program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

var position = regexp.MustCompile(`Parse error \((.*)\) at line (\d+), byte (\d+)`)

// oracleErrors reads the errors that the program prints.
func oracleErrors(stderr string) []SyntaxError {
	var out []SyntaxError
	for _, m := range position.FindAllStringSubmatch(stderr, -1) {
		line, _ := strconv.Atoi(m[2])
		pos, _ := strconv.Atoi(m[3])
		out = append(out, SyntaxError{"t", line, pos, m[1]})
	}
	return out
}

func TestOracleStrict(t *testing.T) {
	o := newOracle(t)
	for i := range *oracleRuns {
		text := nasty(rand.New(rand.NewPCG(*oracleSeed, uint64(i))))
		out, stderr, code := o.run(t, text, "-n", "export", "t")
		d, err := Parse("t", []byte(text))
		if code != 0 {
			want := oracleErrors(stderr)
			got, ok := err.(*SyntaxError)
			if !ok || len(want) != 1 || *got != want[0] {
				t.Errorf("%q:\n got %v\nwant %v", text, err, stderr)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v, but uci reads it:\n%s", text, err, out)
		} else if got := exported(d); got != out {
			t.Errorf("%q:\n got %q\nwant %q", text, got, out)
		}
	}
}

func TestOracleLoose(t *testing.T) {
	o := newOracle(t)
	for i := range *oracleRuns {
		text := nasty(rand.New(rand.NewPCG(*oracleSeed+1, uint64(i))))
		out, stderr, _ := o.run(t, text, "-S", "-n", "export", "t")
		d, errs := ParseLoose("t", []byte(text))
		if got := exported(d); got != out {
			t.Errorf("%q:\n got %q\nwant %q\n%s", text, got, out, stderr)
		}
		if want := oracleErrors(stderr); fmt.Sprint(errs) != fmt.Sprint(want) {
			t.Errorf("%q:\n got %v\nwant %v", text, errs, want)
		}
	}
}

func TestOracleGrammar(t *testing.T) {
	o := newOracle(t)
	for _, c := range grammar {
		out, stderr, code := o.run(t, c.text, "-n", "export", "t")
		got := strings.Trim(strings.TrimPrefix(out, "package t\n"), "\n")
		if code != 0 {
			_, got, _ = strings.Cut(strings.TrimSpace(stderr), "Parse error ")
			got = "! " + got
		}
		if got != c.want {
			t.Errorf("%s: %q\n got %q\nwant %q", c.name, c.text, got, c.want)
		}
	}
}

// Canonical text is what uci itself writes.
func TestOracleRouters(t *testing.T) {
	o := newOracle(t)
	for _, f := range corpus() {
		out, stderr, code := o.run(t, string(f.Data), "export", "t")
		if code != 0 {
			t.Errorf("%s: %s", f.Name, stderr)
		}
		if got := "package t\n" + string(Print(mustParse(t, string(f.Data)).Sections())); got != out {
			t.Errorf("%s:\n got %q\nwant %q", f.Name, got, out)
		}
	}
}
