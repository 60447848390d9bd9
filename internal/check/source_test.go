package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = modulePath

// A file is one Go file of the program, parsed, whatever system it is for.
type file struct {
	path string // from the root: "internal/key/key.go"
	pkg  string // its directory: "internal/key"
	test bool
	ast  *ast.File
}

// sources parses every Go file of the repository. It does not compile, so the
// rules below can be told also of a tree that does not build.
func sources(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var out []file
	err = walk(root, func(p string) error {
		if path.Ext(p) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(set, filepath.Join(root, p), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			return nil
		}
		out = append(out, file{p, path.Dir(p), strings.HasSuffix(p, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d Go files found in %s", len(out), root)
	}
	return set, out
}

func (f file) imports() []string {
	var out []string
	for _, i := range f.ast.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

// importName is the name by which f uses an imported package, "" when it does
// not import it.
func (f file) importName(pkg string) string {
	for _, i := range f.ast.Imports {
		if strings.Trim(i.Path.Value, `"`) != pkg {
			continue
		}
		if i.Name != nil {
			return i.Name.Name
		}
		return path.Base(pkg)
	}
	return ""
}

// uses lists which of an imported package's names f mentions, with the first
// place of each.
func (f file) uses(pkg string) map[string]token.Pos {
	name := f.importName(pkg)
	out := map[string]token.Pos{}
	if name == "" {
		return out
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == name {
				if _, seen := out[s.Sel.Name]; !seen {
					out[s.Sel.Name] = s.Pos()
				}
			}
		}
		return true
	})
	return out
}
