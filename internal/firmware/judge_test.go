package firmware

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/heimweg/heimweg/internal/check/need"
)

func runIn(t *testing.T, dir, program string, args ...string) error {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GNUPGHOME="+dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s %v: %v\n%s", program, args, err, out)
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	must(t, err)
	return b
}

// signify is what usign was made after: it takes the lab's signatures, and we take
// its own.
func TestSignify(t *testing.T) {
	need.Program(t, "signify-openbsd")
	dir := t.TempDir()
	m := lab(t)
	list, _ := m.File(sums4040)
	sig, _ := m.File(sums4040 + ".sig")
	for name, b := range map[string][]byte{"list": list, "lab.sig": sig, "lab.pub": m.Keys().Usign} {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	must(t, runIn(t, dir, "signify-openbsd", "-V", "-p", "lab.pub", "-x", "lab.sig", "-m", "list"))
	must(t, runIn(t, dir, "signify-openbsd", "-G", "-n", "-p", "its.pub", "-s", "its.sec"))
	must(t, runIn(t, dir, "signify-openbsd", "-S", "-s", "its.sec", "-x", "its.sig", "-m", "list"))
	k, err := ParseKey(readFile(t, dir, "its.pub"))
	must(t, err)
	s, err := Keyring{k}.verify("list", list, readFile(t, dir, "its.sig"), nil)
	if err != nil || s.Method != ByUsign {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := (Keyring{k}).verify("list", append(list, '\n'), readFile(t, dir, "its.sig"), nil); doubt(err) != Forged {
		t.Errorf("%v", err)
	}
}

// GnuPG likewise, also with a signing subkey, as OpenWrt has it, and a key that has
// expired since.
func TestGnuPG(t *testing.T) {
	need.Program(t, "gpg")
	dir, err := os.MkdirTemp("", "gpg") // a socket's path is short
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o700))
	defer exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run()
	m := lab(t)
	list, _ := m.File(sums4040)
	asc, _ := m.File(sums4040 + ".asc")
	for name, b := range map[string][]byte{"list": list, "lab.asc": asc, "lab.pub": m.Keys().OpenPGP} {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	must(t, runIn(t, dir, "gpg", "--batch", "--import", "lab.pub"))
	must(t, runIn(t, dir, "gpg", "--batch", "--verify", "lab.asc", "list"))

	// A key of three years ago that was good for one, with a subkey that signs.
	past := []string{"--batch", "--passphrase", "", "--faked-system-time", "20230518T120000"}
	must(t, runIn(t, dir, "gpg", append(past, "--quick-generate-key", "Build System <build@example.net>", "ed25519", "cert", "1y")...))
	fpr := fingerprintOf(t, dir)
	must(t, runIn(t, dir, "gpg", append(past, "--quick-add-key", fpr, "ed25519", "sign", "1y")...))
	must(t, runIn(t, dir, "gpg", append(past, "--local-user", fpr, "--armor", "--output", "its.asc", "--detach-sign", "list")...))
	must(t, runIn(t, dir, "gpg", "--batch", "--armor", "--output", "its.pub", "--export", fpr))
	k, err := ParseKey(readFile(t, dir, "its.pub"))
	must(t, err)
	s, err := Keyring{k}.verify("list", list, nil, readFile(t, dir, "its.asc"))
	if err != nil || s.Method != ByOpenPGP || s.Key != fpr {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := (Keyring{k}).verify("list", append(list, '\n'), nil, readFile(t, dir, "its.asc")); doubt(err) != Forged {
		t.Errorf("%v", err)
	}
}

func fingerprintOf(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command("gpg", "--batch", "--with-colons", "--list-secret-keys")
	cmd.Env = append(os.Environ(), "GNUPGHOME="+dir)
	out, err := cmd.Output()
	must(t, err)
	return fprPattern.FindStringSubmatch(string(out))[1]
}

var fprPattern = regexp.MustCompile(`(?m)^fpr:+([0-9A-F]{40}):`)
