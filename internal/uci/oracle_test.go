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

// The real uci program is the judge of the grammar where there is one:
//
//	HEIMWEG_UCI=/path/to/uci go test ./internal/uci -run Oracle -oracle.runs 5000
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
		t.Skip("skipped: uci (HEIMWEG_UCI names no real one)")
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

// exported is what `uci export -n` prints, which shows made-up names.
func exported(d *Document) string {
	var b strings.Builder
	b.WriteString("package t\n")
	for _, s := range d.Sections() {
		fmt.Fprintf(&b, "\nconfig %s '%s'\n", strings.ReplaceAll(s.Type, "'", `'\''`), s.Name)
		for _, o := range s.Options {
			b.Write(appendOption(nil, o))
		}
	}
	b.WriteString("\n")
	return b.String()
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
