package main

import (
	"bytes"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/check/need"
)

// Every package says what it is for.
func TestPackageComments(t *testing.T) {
	_, files := sources(t)
	has := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		doc := f.ast.Doc.Text()
		has[f.pkg] = has[f.pkg] || doc != ""
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command " + filepath.Base(f.pkg) + " "
		}
		if doc != "" && !strings.HasPrefix(doc, want) {
			t.Errorf("%s: the package comment starts with %q instead of %q", f.path, firstWords(doc), want)
		}
	}
	for pkg, ok := range has {
		if !ok {
			t.Errorf("%s has no package comment: what is it for, what must it never do, what does a newcomer not know", pkg)
		}
	}
}

func firstWords(s string) string {
	return strings.Join(strings.Fields(s)[:min(3, len(strings.Fields(s)))], " ")
}

// Methods whose meaning is their interface's.
var wellKnown = []string{"Error", "String", "Unwrap", "Read", "Write", "Close", "Len", "Less", "Swap", "Push", "Pop", "RoundTrip",
	// The parts of net.Conn, net.Addr, net.Listener and fs.FileInfo that say it all.
	"LocalAddr", "RemoteAddr", "SetDeadline", "SetReadDeadline", "SetWriteDeadline", "Network", "Addr", "Accept",
	"Name", "Size", "Mode", "ModTime", "IsDir", "Sys", "Info", "Type"}

// Everything that other packages can use has a comment.
func TestExportedComments(t *testing.T) {
	set, files := sources(t)
	for _, f := range files {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			for _, id := range undocumented(d) {
				t.Errorf("%s:%d: %s has no comment", f.path, set.Position(id.Pos()).Line, id.Name)
			}
		}
	}
}

func undocumented(d ast.Decl) (out []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv) && !slices.Contains(wellKnown, d.Name.Name)) {
			out = append(out, d.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					out = append(out, s.Name)
				}
			case *ast.ValueSpec:
				// In a group of constants or variables the group's comment is enough,
				// and so is that of a constant above those that continue it.
				first := d.Specs[0].(*ast.ValueSpec)
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil && (d.Tok == token.VAR || first.Doc == nil) {
					out = append(out, s.Names[0])
				}
			}
		}
	}
	return out
}

func exportedReceiver(r *ast.FieldList) bool {
	t := r.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// A path of somebody's machine in the repository is a leftover, or a test that
// runs nowhere else. (Written in two parts, so that this file passes.)
var machinePaths = []string{"/wo" + "rk/", "/tmp" + "/hw/", "/Us" + "ers/", "C:\\Us" + "ers"}

func TestNoMachinePaths(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.IndexByte(data, 0) >= 0 {
			return nil // not a text: a program that was built here
		}
		for i, line := range strings.Split(string(data), "\n") {
			for _, p := range machinePaths {
				if strings.Contains(line, p) {
					rel, _ := filepath.Rel(root, path)
					t.Errorf("%s:%d: a path of somebody's machine: %s", rel, i+1, p)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every row of the table of needs is asked for by a test where it says so.
func TestNeedsAreAskedFor(t *testing.T) {
	_, files := sources(t)
	for _, n := range need.Table() {
		pkg, _, ok := strings.Cut(n.Tests, ":")
		asked := false
		for _, f := range files {
			if !f.test || f.pkg != pkg {
				continue
			}
			ast.Inspect(f.ast, func(node ast.Node) bool {
				lit, ok := node.(*ast.BasicLit)
				asked = asked || ok && lit.Kind == token.STRING && lit.Value == `"`+n.Program+`"`
				return true
			})
		}
		if !ok || !asked {
			t.Errorf("no test of %s asks for %s", pkg, n.Program)
		}
	}
}

// README, CI and people run the same command.
func TestOneCommand(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", ".ci/run"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(data), "go run ./internal/check") {
			t.Errorf("%s does not name the command", name)
		}
	}
}
