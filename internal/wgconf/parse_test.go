package wgconf_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/wgconf"
)

// testdata/read.txtar: what people and other programs write, and the same in our
// words. testdata/refused.txtar: what is refused, and why.
func archive(t testing.TB, name string) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// unescape writes what an editor would not keep in a text file.
var unescape = strings.NewReplacer(`\r`, "\r", `\t`, "\t", `\v`, "\v", `\0`, "\x00", `\ufeff`, "\ufeff", `\u00a0`, "\u00a0")

func TestReads(t *testing.T) {
	files := archive(t, "read.txtar").Files
	for i := 0; i+1 < len(files); i += 2 {
		in, want := files[i], files[i+1]
		if want.Name != in.Name+" means" {
			t.Fatalf("after %q comes %q", in.Name, want.Name)
		}
		got, err := wgconf.Parse([]byte(unescape.Replace(string(in.Data))))
		if err != nil {
			t.Errorf("%s: %v", in.Name, err)
			continue
		}
		text := string(got.Text())
		for _, s := range got.Ignored {
			text += "ignored: " + s.Name + "\n"
		}
		if d := cmp.Diff(string(want.Data), text); d != "" {
			t.Errorf("%s: -want +got\n%s", in.Name, d)
		}
	}
}

func TestRefuses(t *testing.T) {
	a := archive(t, "refused.txtar")
	for i, f := range a.Files {
		text, want, ok := strings.Cut(string(f.Data), "=> ")
		if !ok && !*update {
			t.Fatalf("%s: no line with =>", f.Name)
		}
		_, err := wgconf.Parse([]byte(unescape.Replace(text)))
		var bad *wgconf.SyntaxError
		if !errors.As(err, &bad) {
			t.Errorf("%s: read, or another kind of error: %v", f.Name, err)
			continue
		}
		if *update {
			a.Files[i].Data = []byte(text + "=> " + err.Error() + "\n")
			continue
		}
		if d := cmp.Diff(strings.TrimSpace(want), err.Error()); d != "" {
			t.Errorf("%s: -want +got\n%s", f.Name, d)
		}
		if lines := strings.Count(text, "\n"); bad.Line < 1 || bad.Line > lines+1 || bad.Column < 1 {
			t.Errorf("%s: line %d, column %d of %d lines", f.Name, bad.Line, bad.Column, lines)
		}
	}
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", "refused.txtar"), txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A key that lost its label, or was broken by the copying, must not come out in
// the error.
func TestErrorsQuoteNoKey(t *testing.T) {
	good := string(confs(t)["behind.conf"].Text())
	const letters = "KqWxyzbvTnmLpasdRfghjklQertzuiopYxcvbnmQwEA=" // a key that looks like a name
	for name, text := range map[string]string{
		"label lost":      strings.Replace(good, "PrivateKey = ", "", 1),
		"label misspelt":  strings.Replace(good, "PrivateKey", "PrivatKey", 1),
		"cut off":         strings.Replace(good, peerKey, peerKey[:40], 1),
		"padding lost":    strings.Replace(good, peerKey, peerKey[:43], 1),
		"in wrong line":   strings.Replace(good, "MTU", peerKey, 1) + peerKey + "\n",
		"as address":      strings.Replace(good, "Address = 1", "Address = "+peerKey+" 1", 1),
		"as endpoint":     strings.Replace(good, "home.example.net", peerKey, 1),
		"as section":      strings.Replace(good, "[Peer]", "["+sharedKey+"]", 1),
		"split at blanks": strings.Replace(good, sharedKey, sharedKey[:20]+" "+sharedKey[20:], 1),
		"a word of it":    strings.Replace(good, "PrivateKey = ", "xyz", 1),
		"only letters":    strings.Replace(good, "[Peer]\n", "[Peer]\n"+letters+"\n", 1),
	} {
		_, err := wgconf.Parse([]byte(text))
		if err == nil {
			t.Errorf("%s: read", name)
			continue
		}
		for _, k := range []string{peerKey, sharedKey, letters} {
			for i := 0; i+8 < len(k); i++ {
				if strings.Contains(err.Error(), k[i:i+8]) {
					t.Fatalf("%s: the error shows part of a key: %v", name, err)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"read.txtar", "refused.txtar", "peers.txtar"} {
		for _, file := range archive(f, name).Files {
			f.Add([]byte(unescape.Replace(string(file.Data))))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := wgconf.Parse(text)
		if err != nil {
			var bad *wgconf.SyntaxError
			if !errors.As(err, &bad) || bad.Line < 1 || bad.Column < 1 || bad.Msg == "" {
				t.Fatalf("error %#v", err)
			}
			return
		}
		for _, out := range [][]byte{c.Text(), c.Compact()} {
			back, err := wgconf.Parse(out)
			if err != nil || !back.Equal(c) {
				t.Fatalf("%q\nwas written as\n%s\nwhich is read as\n%s\n%v", text, out, back.Text(), err)
			}
		}
	})
}
