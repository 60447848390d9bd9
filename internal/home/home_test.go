package home

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/key"
)

var update = flag.Bool("update", false, "rewrite the expected texts in testdata")

// golden runs each archive of a directory: make turns its files into the
// expected file named want.
func golden(t *testing.T, dir, want string, run func(t *testing.T, files map[string][]byte) string) {
	paths, _ := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	if len(paths) == 0 {
		t.Fatalf("no cases in testdata/%s", dir)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string][]byte{}
			for _, f := range ar.Files {
				files[f.Name] = f.Data
			}
			got := run(t, files)
			if *update {
				kept := ar.Files[:0]
				for _, f := range ar.Files {
					if f.Name != want {
						kept = append(kept, f)
					}
				}
				ar.Files = append(kept, txtar.File{Name: want, Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(files[want]), got); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// told writes faults as a person sees them.
func told(l fault.List) string {
	var b strings.Builder
	for _, f := range l {
		fmt.Fprintf(&b, "%s [%s]\n", f.Error(), f.Code)
		if f.Place != nil && f.Place.Text != "" {
			fmt.Fprintf(&b, "  | %s\n  | %s%s\n", f.Place.Text, strings.Repeat(" ", f.Place.Column-1), strings.Repeat("^", f.Place.Length))
		}
		for _, w := range f.Why {
			fmt.Fprintf(&b, "  why   %s\n", w)
		}
		for _, n := range f.Next {
			fmt.Fprintf(&b, "  next  %s\n", n)
		}
	}
	return b.String()
}

func faultsOf(t testing.TB, err error) fault.List {
	t.Helper()
	if err == nil {
		return nil
	}
	var l fault.List
	if errors.As(err, &l) {
		return l
	}
	var f *fault.Fault
	if errors.As(err, &f) {
		return fault.List{f}
	}
	t.Fatalf("%T is no fault: %v", err, err)
	return nil
}

// TestParse shows what is said about mistakes, and nothing else is refused.
func TestParse(t *testing.T) {
	golden(t, "parse", "says", func(t *testing.T, files map[string][]byte) string {
		f, err := Parse("home.toml", files["home.toml"])
		l := faultsOf(t, err)
		for _, f := range l {
			checkManners(t, f)
		}
		if err != nil {
			return told(l)
		}
		for _, n := range f.Notes {
			checkManners(t, n)
		}
		if len(f.Notes) > 0 {
			return "ok, with notes\n" + told(f.Notes)
		}
		return "ok\n"
	})
}

// checkManners holds every message to the house rules.
func checkManners(t *testing.T, f *fault.Fault) {
	t.Helper()
	checkForm(t, f)
	if strings.HasSuffix(f.What, ".") {
		t.Errorf("%s: ends in a full stop", f)
	}
	all := f.What + strings.Join(f.Why, " ") + strings.Join(f.Next, " ")
	for _, bad := range []string{"uint16", "int64", "netip", "struct", "failed to", "%!"} {
		if strings.Contains(all, bad) {
			t.Errorf("%s: contains %q", f, bad)
		}
	}
}

// checkForm holds for every text, however odd.
func checkForm(t *testing.T, f *fault.Fault) {
	t.Helper()
	if len(f.Next) != 1 {
		t.Errorf("%s: %d next actions instead of one", f, len(f.Next))
	}
	if p := f.Place; p != nil && p.Text != "" && p.Column+p.Length-1 > len(p.Text)+1 {
		t.Errorf("%s: caret %d+%d leaves the line %q", f, p.Column, p.Length, p.Text)
	}
}

// TestEdit shows how commands change the text.
func TestEdit(t *testing.T) {
	golden(t, "edit", "becomes", func(t *testing.T, files map[string][]byte) string {
		f, err := Parse("home.toml", files["home.toml"])
		if err != nil {
			t.Fatal(told(faultsOf(t, err)))
		}
		before := f.Text()
		for line := range strings.Lines(string(files["do"])) {
			next, err := do(t, f, strings.Fields(line))
			if err != nil {
				l := faultsOf(t, err)
				checkManners(t, l[0])
				return told(l)
			}
			f = next
		}
		if bytes.Equal(before, files["home.toml"]) {
			return string(f.Text())
		}
		t.Error("the edit changed the file it came from")
		return ""
	})
}

// do carries out one line of an edit case.
func do(t *testing.T, f *File, w []string) (*File, error) {
	switch w[0] {
	case "add": // add NAME [ADDRESS [ADDRESS6]]
		p, err := f.Home.NextPeer(w[1], testKey(w[1]))
		if err != nil {
			t.Fatal(err)
		}
		if len(w) > 2 {
			p.Address = netip.MustParseAddr(w[2])
		}
		if len(w) > 3 {
			p.Address6 = netip.MustParseAddr(w[3])
		}
		return f.AddPeer(p)
	case "add-again": // add-again NAME OTHER: with the other's key
		o, _ := f.Home.Peer(w[2])
		p, _ := f.Home.NextPeer(w[1], o.PublicKey)
		return f.AddPeer(p)
	case "remove":
		return f.RemovePeer(w[1])
	case "rename":
		return f.RenamePeer(w[1], w[2])
	case "disable":
		return f.SetPeer(w[1], func(p *Peer) { p.Disabled = true })
	case "enable":
		return f.SetPeer(w[1], func(p *Peer) { p.Disabled = false })
	case "key":
		return f.SetPeer(w[1], func(p *Peer) { p.PublicKey = testKey(w[2]) })
	case "keepalive":
		return f.SetPeer(w[1], func(p *Peer) { fmt.Sscan(w[2], &p.Keepalive) })
	case "admin":
		return f.SetPeer(w[1], func(p *Peer) { p.Admin = true; p.Preshared = false })
	case "plain": // every optional key back to its default
		return f.SetPeer(w[1], func(p *Peer) {
			p.Admin, p.Disabled, p.Preshared, p.Keepalive, p.Address6 = false, false, true, DefaultKeepalive, netip.Addr{}
		})
	case "endpoint":
		if len(w) == 1 {
			return f.SetEndpoint("")
		}
		return f.SetEndpoint(w[1])
	case "address":
		return f.SetRouterAddress(w[1])
	case "readdress":
		return f.SetPeer(w[1], func(p *Peer) { p.Address = netip.MustParseAddr(w[2]) })
	case "keyless":
		return f.SetPeer(w[1], func(p *Peer) { p.PublicKey = key.Public{} })
	case "input":
		return f.SetInput(strings.Join(w[1:], ""))
	}
	t.Fatalf("unknown command %q", w)
	return nil, nil
}

// testKey is a public key made from a word.
func testKey(word string) key.Public {
	b := make([]byte, key.Size)
	copy(b, word+" - not a real key of anybody, only a test")
	k, err := key.NewPrivate(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return k.Public()
}
