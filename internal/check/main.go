// Command check is every check that heimweg has, in one command:
//
//	go run ./internal/check
//
// It formats nothing and fixes nothing. It needs Go; what else some tests ask
// for (see package need) it installs from Debian when it may, that is as root
// with apt-get, and otherwise reports as "skipped: NAME (why)". Where CI=true, a
// missing need is a failure.
//
// It prints one line per check with its time, the closing line of every
// package's tests, and in full only what failed. The exit status is 0 when
// everything passed, 1 when something failed, 2 for a wrong flag.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout))
}

// options are the command's flags.
type options struct {
	short, long, noInstall bool
	run                    string         // for go test
	only                   *regexp.Regexp // checks to run, nil for all
}

func parseFlags(args []string, out io.Writer) (o options, err error) {
	f := flag.NewFlagSet("check", flag.ContinueOnError)
	f.SetOutput(out)
	f.BoolVar(&o.short, "short", false, "leave out slow tests and the builds for other systems")
	f.BoolVar(&o.long, "long", false, "run the long property tests too (sets HEIMWEG_LONG=1)")
	f.BoolVar(&o.noInstall, "no-install", false, "install nothing")
	f.StringVar(&o.run, "run", "", "run only tests that match this `regexp`")
	only := f.String("only", "", "run only checks whose name matches this `regexp`")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if *only != "" {
		o.only, err = regexp.Compile(*only)
	}
	return o, err
}

// A checker runs checks one after the other and remembers what became of them.
type checker struct {
	options
	ctx     context.Context
	root    string // of the repository; every command runs there
	out     io.Writer
	failed  []string
	skipped []string // "NAME (why)"
	passed  int
}

func run(ctx context.Context, args []string, out io.Writer) int {
	o, err := parseFlags(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		fmt.Fprintln(out, "check:", err)
		return 2
	}
	c := &checker{options: o, ctx: ctx, out: out}
	if c.root, err = findRoot(); err != nil {
		fmt.Fprintln(out, "check:", err)
		return 1
	}
	started := time.Now()
	var names []string
	ran := false
	for _, s := range c.checks() {
		names = append(names, s.name)
		if o.only == nil || o.only.MatchString(s.name) {
			ran = true
			c.do(s)
		}
	}
	if !ran {
		fmt.Fprintf(out, "check: no check's name matches -only %q; there are: %s\n", o.only, strings.Join(names, ", "))
		return 2
	}
	return c.close(time.Since(started))
}

// findRoot looks for go.mod here and above.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod here or above; run it inside the repository")
		}
		dir = up
	}
}

// A check is one thing that must be in order.
type check struct {
	name string
	run  func() error // what it prints goes to checker.out
}

// A missing error says that a check could not be made.
type missing struct{ name, why string }

func (m *missing) Error() string { return m.name + " (" + m.why + ")" }

func (c *checker) do(s check) {
	if c.ctx.Err() != nil {
		return
	}
	fmt.Fprintf(c.out, "== %s\n", s.name)
	started := time.Now()
	err := s.run()
	took := time.Since(started).Round(10 * time.Millisecond)
	var m *missing
	switch {
	case err == nil:
		c.passed++
		fmt.Fprintf(c.out, "   passed in %s\n", took)
	case errors.As(err, &m) && !need.InCI():
		c.skip(m.name, m.why)
	default:
		c.failed = append(c.failed, s.name)
		fmt.Fprintf(c.out, "%s\n   FAILED in %s: %s\n", strings.TrimRight(err.Error(), "\n"), took, s.name)
	}
}

func (c *checker) skip(name, why string) {
	s := name + " (" + why + ")"
	c.skipped = append(c.skipped, s)
	fmt.Fprintf(c.out, "   skipped: %s\n", s)
}

// close prints the summary.
func (c *checker) close(took time.Duration) int {
	fmt.Fprintln(c.out, "==")
	for _, s := range c.skipped {
		fmt.Fprintln(c.out, "skipped:", s)
	}
	took = took.Round(100 * time.Millisecond)
	switch {
	case c.ctx.Err() != nil:
		fmt.Fprintln(c.out, "interrupted after", took)
	case len(c.failed) > 0:
		fmt.Fprintf(c.out, "FAILED: %s (%d passed, %d skipped, %s)\n", strings.Join(c.failed, ", "), c.passed, len(c.skipped), took)
	default:
		fmt.Fprintf(c.out, "all %d checks passed, %d skipped, in %s\n", c.passed, len(c.skipped), took)
		return 0
	}
	return 1
}

// command runs a program in the repository and returns what it printed. An
// error contains that too, so that nothing of a failure is lost.
func (c *checker) command(env []string, name string, args ...string) (stdout string, err error) {
	cmd := c.prepare(env, name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s%s%s %s: %w", out.String(), errs.String(), name, strings.Join(args, " "), err)
	}
	return out.String(), nil
}

// prepare makes a command that is interrupted, not killed, when we are, so that
// it can clean up and end its own children.
func (c *checker) prepare(env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.ctx, name, args...)
	cmd.Dir = c.root
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}
