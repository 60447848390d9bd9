package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What `go test -json` of Go 1.26 printed for five packages: one good, one with a
// failure and a skipped test, one that does not build, one without tests, one
// that panicked.
func TestSummary(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "gotest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s := newSummary(&out)
	if err := s.read(strings.NewReader(string(data))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"ok  \texample.net/m/good\t", "FAIL\texample.net/m/bad\t", "?   \texample.net/m/none\t[no test files]\n",
		"FAIL\texample.net/m/broken [build failed]", "undefined: nothing", "got 3, want 4", "panic: oh", "--- FAIL: TestBad/sub",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary does not have %q", want)
		}
	}
	for _, unwanted := range []string{"=== RUN   TestGood", "a good test talks", "a good part of a bad test"} {
		if strings.Contains(out.String(), unwanted) {
			t.Errorf("the summary has %q", unwanted)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	if want := []string{"TestSkips in bad: wg (not installed)"}; strings.Join(s.skipped, ";") != strings.Join(want, ";") {
		t.Errorf("skipped %q", s.skipped)
	}
	if s.passed != 3 || s.failed != 3 || s.packages != 5 {
		t.Errorf("%d passed, %d failed, %d packages", s.passed, s.failed, s.packages)
	}
}

func TestOutcomes(t *testing.T) {
	ok := check{"good", func() error { return nil }}
	bad := check{"bad", func() error { return errors.New("it is\nbroken\n") }}
	cannot := check{"cannot", func() error { return &missing{"proxy", "no network"} }}
	for name, c := range map[string]struct {
		ci     string
		checks []check
		exit   int
		want   string
	}{
		"all good":             {"", []check{ok, ok}, 0, "all 2 checks passed, 0 skipped, in 0s"},
		"one bad":              {"", []check{bad, ok}, 1, "FAILED: bad (1 passed, 0 skipped, 0s)"},
		"missing at home":      {"", []check{ok, cannot}, 0, "skipped: proxy (no network)\nall 1 checks passed, 1 skipped"},
		"missing in CI":        {"true", []check{ok, cannot}, 1, "proxy (no network)\n   FAILED in 0s: cannot"},
		"the error is all out": {"", []check{bad}, 1, "it is\nbroken\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CI", c.ci)
			var out strings.Builder
			r := &checker{ctx: context.Background(), out: &out}
			for _, s := range c.checks {
				r.do(s)
			}
			if exit := r.close(0); exit != c.exit || !strings.Contains(out.String(), c.want) {
				t.Errorf("exit %d and\n%s", exit, out.String())
			}
		})
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]int{"-nonsense": 2, "stray": 2, "-only=(": 2, "-only=^nothing$": 2} {
		var out strings.Builder
		if got := run(context.Background(), []string{args}, &out); got != want {
			t.Errorf("%s: exit %d, want %d\n%s", args, got, want, out.String())
		}
	}
}

func TestUnformattedFileIsFound(t *testing.T) {
	c := &checker{ctx: context.Background(), root: t.TempDir(), out: new(strings.Builder)}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(c.root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.go", "package x\n")
	if err := c.gofmt(); err != nil {
		t.Error(err)
	}
	write("bad.go", "package  x\n")
	write("worse.go", "package {\n")
	err := c.gofmt()
	if err == nil || !strings.Contains(err.Error(), "not formatted: bad.go") || !strings.Contains(err.Error(), "worse.go") || strings.Contains(err.Error(), "good.go") {
		t.Error(err)
	}
}

func TestInterruptedIsNotGreen(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out strings.Builder
	c := &checker{ctx: ctx, out: &out}
	c.do(check{"never", func() error { t.Error("ran"); return nil }})
	if exit := c.close(0); exit == 0 || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("exit %d: %s", exit, out.String())
	}
}

// Only the absence of a proxy is an excuse.
func TestUnlessOffline(t *testing.T) {
	for text, excused := range map[string]bool{
		"go: example.net/x@v1.0.0: Get \"https://proxy.golang.org/\": dial tcp: lookup proxy.golang.org: no such host\ngo mod tidy: exit status 1":                                                          true,
		"go: example.net/x@v1.0.0: module lookup disabled by GOPROXY=off\n":                                                                                                                                 true,
		"github.com/heimweg/heimweg/internal/nobody: module github.com/heimweg/heimweg/internal/nobody: reading https://proxy.golang.org/github.com/heimweg/heimweg/internal/nobody/@v/list: 403 Forbidden": false,
		"go: errors parsing go.mod:\ngo.mod:3: unknown directive: gone":                                                                                                                                     false,
	} {
		var m *missing
		if err := unlessOffline("tidy", errors.New(text)); errors.As(err, &m) != excused || err == nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
