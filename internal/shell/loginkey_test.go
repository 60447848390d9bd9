package shell

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/check/need"
)

func loginKey(t testing.TB) LoginKey {
	t.Helper()
	k, err := MakeKey(rand.Reader, "heimweg test")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func locked(t testing.TB, raw any, phrase string) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKeyWithPassphrase(raw, "", []byte(phrase))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

func TestLoginKey(t *testing.T) {
	zeros := func() *bytes.Reader { return bytes.NewReader(make([]byte, 100)) }
	a, err := MakeKey(zeros(), "attic")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := MakeKey(zeros(), "attic")
	if a.Authorized != b.Authorized || !strings.HasPrefix(a.Authorized, "ssh-ed25519 AAAA") || !strings.HasSuffix(a.Authorized, " attic") {
		t.Errorf("%q, %q", a.Authorized, b.Authorized)
	}
	back, err := ParseKey(a.Reveal())
	if err != nil || back.Authorized != strings.TrimSuffix(a.Authorized, " attic") {
		t.Errorf("%v, %v", back, err)
	}
	if _, err := MakeKey(zeros(), "two\nlines"); err == nil {
		t.Error("a comment of two lines was taken")
	}
	if _, err := MakeKey(bytes.NewReader(nil), ""); err == nil {
		t.Error("a key from nothing")
	}
	if _, err := ParseKey([]byte("canary")); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
	if !(LoginKey{}).IsZero() || a.IsZero() {
		t.Error("zero")
	}
}

func TestSSHKeygenReadsOurKey(t *testing.T) {
	keygen := need.Program(t, "ssh-keygen")
	k := loginKey(t)
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, k.Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(keygen, "-y", "-f", path).Output()
	if err != nil || strings.TrimSpace(string(out)) != k.Authorized {
		t.Errorf("%q, %v; want %q", out, err, k.Authorized)
	}
}
