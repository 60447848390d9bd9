package firmware

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/image"
)

// builtBundle is a bundle with an image of the image builder in it.
func builtBundle(t testing.TB) (dir string, made *Source, f File) {
	m := lab(t)
	dir, made = t.TempDir(), source(t, m)
	board, _ := image.BoardNamed("avm,fritzbox-4040")
	b, err := made.Bundle(context.Background(), dir, "25.12.5", []image.Board{board}, nil, time.Unix(0, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "image")
	os.WriteFile(at, []byte("an image"), 0o600)
	sha, size := sum(at)
	f = File{Path: at, Name: "built.bin", Version: "25.12.5", Profile: board.Profile, Type: TypeEVA, SHA256: sha, Size: size,
		Signed: Signature{Method: ByTLS, By: "builder.example.net"}, Packages: []string{"ip-tiny", "wireguard-tools"}}
	if err := made.KeepBuilt(dir, &b, []File{f}); err != nil {
		t.Fatal(err)
	}
	return dir, made, f
}

// A built image is as good as the memory of the computer that fetched it; the folder's
// own note vouches for nothing.
func TestBuilt(t *testing.T) {
	dir, made, f := builtBundle(t)
	from := func(cache string, accept bool) *Source {
		s, err := Open(Options{From: dir, Cache: cache, AcceptUnverified: accept})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	w := Want{Version: f.Version, Profile: f.Profile, Type: f.Type}
	here := from(made.cache.dir, false)
	got, err := here.Built(w, []string{"wireguard-tools"})
	if err != nil || got.Signed != f.Signed || got.Size != f.Size || !strings.HasPrefix(got.Path, dir) {
		t.Errorf("%+v %v", got, err)
	}
	for _, other := range []Want{{Version: "24.10.8", Profile: f.Profile, Type: f.Type}, {Version: f.Version, Profile: "x", Type: f.Type}, {Version: f.Version, Profile: f.Profile, Type: TypeSysupgrade}} {
		if _, err := here.Built(other, nil); !asErr[*MissingError](err) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	if _, err := here.Built(w, []string{"nano"}); !asErr[*MissingError](err) {
		t.Errorf("a package that is not inside: %v", err)
	}
	if _, err := from(t.TempDir(), false).Built(w, nil); doubt(err) != Unsigned {
		t.Errorf("another computer: %v", err)
	}
	if got, err := from(t.TempDir(), true).Built(w, nil); err != nil || got.Signed.Method != ByNobody {
		t.Errorf("another computer that takes it: %+v %v", got, err)
	}
	if err := os.WriteFile(got.Path, []byte("an imagf"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Built(w, nil); doubt(err) != Damaged {
		t.Errorf("a wrong bit: %v", err)
	}
}

// Whatever the note says, no file outside the folder is taken.
func FuzzBuilt(f *testing.F) {
	dir, made, file := builtBundle(f)
	text, _ := os.ReadFile(filepath.Join(dir, BundleFile))
	f.Add(text)
	out, _ := json.Marshal(Bundle{Built: []File{{Path: "../image", Version: file.Version, Profile: file.Profile, Type: file.Type, SHA256: file.SHA256}}})
	f.Add(out)
	f.Fuzz(func(t *testing.T, note []byte) {
		os.WriteFile(filepath.Join(dir, BundleFile), note, 0o600)
		s, err := Open(Options{From: dir, Cache: made.cache.dir})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Built(Want{Version: file.Version, Profile: file.Profile, Type: file.Type}, nil)
		if rel, e := filepath.Rel(dir, got.Path); err == nil && (e != nil || !filepath.IsLocal(rel)) {
			t.Fatalf("%+v", got)
		}
	})
}
