package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/check/need"
)

// checks lists all of them, cheap ones first.
func (c *checker) checks() []check {
	list := []check{
		{"needs", c.needs},
		{"gofmt", c.gofmt},
		{"build", func() error { return c.quiet(nil, "go", "build", "./...") }},
		{"go vet", func() error { return c.quiet(nil, "go", "vet", "./...") }},
		{"staticcheck", c.staticcheck},
		{"go mod tidy", c.tidy},
	}
	if !c.short {
		for _, target := range targets {
			list = append(list, check{"build for " + target, func() error { return c.build(target) }})
		}
	}
	return append(list,
		check{"import table", func() error { return c.quiet(nil, "go", "test", "-count=1", "./internal/check/...") }},
		check{"tests", c.tests})
}

// Systems that people run heimweg on, besides the one of the developer.
var targets = []string{"linux/arm64", "windows/amd64", "darwin/arm64"}

func (c *checker) quiet(env []string, name string, args ...string) error {
	_, err := c.command(env, name, args...)
	return err
}

// needs reports what tests ask for, after an attempt to install it.
func (c *checker) needs() error {
	lacking := lacking()
	if len(lacking) > 0 && c.mayInstall() {
		if err := c.install(lacking); err != nil {
			fmt.Fprintln(c.out, strings.TrimSpace(err.Error()))
		}
	}
	var failed []string
	for _, n := range need.Table() {
		path, err := exec.LookPath(n.Program)
		switch {
		case err == nil:
			fmt.Fprintf(c.out, "   %s: %s (%s)\n", n.Program, path, n.Tests)
		case need.InCI():
			failed = append(failed, fmt.Sprintf("missing: %s (Debian's package %s)", n.Program, n.Package))
		default:
			c.skip(n.Program, "not installed; Debian's package "+n.Package+" has it; "+n.Tests)
		}
	}
	if len(failed) > 0 {
		return errors.New(strings.Join(failed, "\n"))
	}
	return nil
}

// lacking names the Debian packages of the programs that are not there.
func lacking() []string {
	var out []string
	for _, n := range need.Table() {
		if _, err := exec.LookPath(n.Program); err != nil && !slices.Contains(out, n.Package) {
			out = append(out, n.Package)
		}
	}
	return out
}

func (c *checker) mayInstall() bool {
	_, err := exec.LookPath("apt-get")
	return !c.noInstall && err == nil && os.Geteuid() == 0
}

func (c *checker) install(packages []string) error {
	fmt.Fprintln(c.out, "   installing", strings.Join(packages, ", "))
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if err := c.quiet(env, "apt-get", "update"); err != nil {
		return err
	}
	return c.quiet(env, "apt-get", append([]string{"install", "-y", "--no-install-recommends"}, packages...)...)
}

// gofmt compares in process: the gofmt program is not part of every Go.
func (c *checker) gofmt() error {
	var bad []string
	err := walk(c.root, func(path string) error {
		if filepath.Ext(path) != ".go" {
			return nil
		}
		src, err := os.ReadFile(filepath.Join(c.root, path))
		if err != nil {
			return err
		}
		if got, err := format.Source(src); err != nil {
			bad = append(bad, err.Error()+": "+path)
		} else if !bytes.Equal(src, got) {
			bad = append(bad, "not formatted: "+path)
		}
		return nil
	})
	if err == nil && len(bad) > 0 {
		err = errors.New(strings.Join(bad, "\n"))
	}
	return err
}

// walk visits every file of the repository by its path from the root, apart
// from Git's own and from those that tests take as they are.
func walk(root string, visit func(path string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel))
	})
}

// staticcheck has a module file of its own, so that its dependencies stay out of
// the program's.
func (c *checker) staticcheck() error {
	tool := []string{"tool", "-modfile=tools.mod"}
	if _, err := c.command(nil, "go", append(tool, "-n", "staticcheck")...); err != nil {
		return unlessOffline("staticcheck", err)
	}
	return c.quiet(nil, "go", append(tool, "staticcheck", "./...")...)
}

// tidy fails when go.mod or go.sum would change. Without a module proxy it
// cannot be told.
func (c *checker) tidy() error {
	diff, err := c.command(nil, "go", "mod", "tidy", "-diff")
	if err == nil || diff != "" {
		return err
	}
	return unlessOffline("go mod tidy", err)
}

// unlessOffline tells "we could not ask the module proxy" from a fault of the
// repository, such as an import of a package of ours that is not there.
func unlessOffline(name string, err error) error {
	text := err.Error()
	if strings.Contains(text, modulePath+"internal/") && strings.Contains(text, "/@v/") {
		return err
	}
	for line := range strings.Lines(text) {
		for _, sign := range []string{"dial tcp", "no such host", "i/o timeout", "GOPROXY=off", "network is unreachable", "connection refused", "403 Forbidden"} {
			if strings.Contains(line, sign) {
				return &missing{name, "the module proxy does not give what it needs: " + strings.TrimSpace(line)}
			}
		}
	}
	return err
}

const modulePath = "github.com/heimweg/heimweg/"

// build compiles the program for another system, without C.
func (c *checker) build(target string) error {
	system, arch, _ := strings.Cut(target, "/")
	if _, err := os.Stat(filepath.Join(c.root, "cmd", "heimweg")); err != nil {
		return &missing{"build for " + target, "there is no cmd/heimweg yet"}
	}
	return c.quiet([]string{"CGO_ENABLED=0", "GOOS=" + system, "GOARCH=" + arch}, "go", "build", "-o", os.DevNull, "./cmd/heimweg")
}
