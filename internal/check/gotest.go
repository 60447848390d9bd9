package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/check/need"
)

// tests runs all of them in random order, with the race detector where there is
// a C compiler for it.
func (c *checker) tests() error {
	// Emulated homes wait for each other more than they compute: six at once take
	// the time of the slowest.
	args := []string{"test", "-json", "-shuffle=on", "-timeout=15m", "-parallel=6"}
	if why := c.noRace(); why == "" {
		args = append(args, "-race")
	} else if need.InCI() {
		return &missing{"race detector", why}
	} else {
		c.skip("race detector", why)
	}
	if c.short {
		args = append(args, "-short")
	}
	if c.run != "" {
		args = append(args, "-run="+c.run)
	}
	var env []string
	if c.long {
		env = append(env, "HEIMWEG_LONG=1")
	}
	return c.gotest(env, append(args, "./..."))
}

// noRace says why the race detector cannot be used, "" when it can.
func (c *checker) noRace() string {
	out, err := c.command(nil, "go", "env", "CGO_ENABLED", "CC")
	if err != nil {
		return "go env does not answer"
	}
	words := strings.Fields(out)
	if len(words) < 2 || words[0] != "1" {
		return "cgo is off"
	}
	if _, err := exec.LookPath(words[1]); err != nil {
		return "no C compiler"
	}
	return ""
}

func (c *checker) gotest(env, args []string) error {
	cmd := c.prepare(env, "go", args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return err
	}
	s := newSummary(c.out)
	readErr := s.read(stdout)
	waitErr := cmd.Wait()
	c.skipped = append(c.skipped, s.skipped...)
	fmt.Fprintf(c.out, "   %d tests passed, %d failed, %d skipped in %d packages\n", s.passed, s.failed, len(s.skipped), s.packages)
	if err := errors.Join(readErr, waitErr); err != nil {
		return fmt.Errorf("%s%w", errs.String(), err)
	}
	return nil
}

// An event is one line of `go test -json` (go doc test2json); builds that fail
// have an ImportPath instead of a Package.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// A summary turns the events into what a person wants to see: the closing line
// of each package, and the whole output of what failed.
type summary struct {
	out                      io.Writer
	lines                    map[string][]string // output so far, by package and test
	skipped                  []string            // "package TestName: why"
	passed, failed, packages int
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, lines: map[string][]string{}}
}

func (s *summary) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				s.take(e)
			} else {
				fmt.Fprint(s.out, string(line)) // not an event: never swallow it
			}
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	id := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		if e.Test == "" && isClosing(e.Output) {
			fmt.Fprint(s.out, e.Output)
			return
		}
		s.lines[id] = append(s.lines[id], e.Output)
	case "pass":
		s.count(e, &s.passed)
		delete(s.lines, id)
	case "skip":
		if e.Test != "" {
			s.skipped = append(s.skipped, s.reason(e, s.lines[id]))
		} else {
			s.packages++ // a package without tests
		}
		delete(s.lines, id)
	case "fail":
		s.count(e, &s.failed)
		fmt.Fprint(s.out, strings.Join(s.lines[id], ""))
		delete(s.lines, id)
	}
}

func (s *summary) count(e event, tests *int) {
	if e.Test == "" {
		s.packages++
	} else {
		*tests++
	}
}

// isClosing finds go test's last line about a package.
func isClosing(line string) bool {
	return slices.ContainsFunc([]string{"ok  \t", "FAIL\t", "?   \t", "---\t"}, func(p string) bool { return strings.HasPrefix(line, p) })
}

// reason finds what the test said when it was skipped, without the file name.
func (s *summary) reason(e event, lines []string) string {
	why := "no reason given"
	for _, l := range lines {
		if strings.HasPrefix(l, "=== ") || strings.HasPrefix(strings.TrimSpace(l), "--- ") {
			continue
		}
		if _, after, ok := strings.Cut(l, ".go:"); ok {
			if _, text, ok := strings.Cut(after, ": "); ok {
				why = strings.TrimPrefix(strings.TrimSpace(text), "skipped: ")
			}
		}
	}
	return e.Test + " in " + e.Package[strings.LastIndexByte(e.Package, '/')+1:] + ": " + why
}
