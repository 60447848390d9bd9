//go:build linux

package openwrt

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
)

// What lies about is found by a real busybox, and no key leaves the router.
func TestBusyboxRummage(t *testing.T) {
	j := newJail(t)
	k, _ := key.NewPrivate(bytes.NewReader(bytes.Repeat([]byte{9}, key.Size)))
	j.write("bin/wg", "#!/bin/sh\ncase \"$*\" in pubkey) read -r k; [ ${#k} -eq 44 ] && echo "+k.Public().String()+" ;; esac\n", 0o755)
	for _, d := range []string{"root/keys", "etc/crontabs", "etc/wireguard"} {
		j.must(os.MkdirAll(filepath.Join(j.root, d), 0o755))
	}
	j.write("root/wg.sec", k.Reveal()+"\n", 0o644)
	j.write("root/wg.pub", k.Public().String()+"\n", 0o644)
	j.write("root/keys/my phone", k.Reveal(), 0o600) // no line end, a blank in its name
	j.write("root/notes", "the key is somewhere else entirely, but not in this file\n", 0o644)
	j.write("root/long", strings.Repeat("A", 43)+"=\n"+strings.Repeat("B", 43)+"=\n", 0o644)
	j.write("root/-rf", k.Reveal()+"\n", 0o640)
	j.write("etc/wireguard/wg0.conf", "[Interface]\n privatekey = "+k.Reveal()+"\nAddress = 10.0.0.1/24\n", 0o600)
	j.write("etc/crontabs/root", "# mine\n*/10 * * * * wginstaller\n", 0o600)
	j.write("etc/config/rpcd", "config login\n\toption username 'wginstaller'\n\toption password 'published'\n", 0o600)
	before := j.tree()

	spy := &spyShell{Shell: j}
	got, err := Rummage(t.Context(), spy)
	if err != nil {
		t.Fatal(err)
	}
	sum := router.Digest(k.Reveal())
	want := map[string]adopt.KeyFile{
		"/root/wg.sec":            {Mode: "0644", Digest: sum, Public: k.Public().String()},
		"/root/wg.pub":            {Mode: "0644", Digest: router.Digest(k.Public().String()), Public: k.Public().String()},
		"/root/keys/my phone":     {Mode: "0600", Digest: sum, Public: k.Public().String()},
		"/root/-rf":               {Mode: "0640", Digest: sum, Public: k.Public().String()},
		"/etc/wireguard/wg0.conf": {Mode: "0600"},
	}
	if len(got.Files) != len(want) {
		t.Errorf("files: %+v", got.Files)
	}
	for _, f := range got.Files {
		w := want[f.Path]
		if w.Path = f.Path; f != w {
			t.Errorf("got %+v, want %+v", f, w)
		}
	}
	if len(got.Cron) != 2 || got.RPCD == nil || len(got.RPCD.OfType("login")) != 1 {
		t.Errorf("cron %q, rpcd %v", got.Cron, got.RPCD)
	}
	if strings.Contains(spy.said, k.Reveal()) || strings.Contains(spy.said, "published") {
		t.Error("a secret left the router")
	}
	if after := j.tree(); after != before {
		t.Errorf("something was changed:\n%s\n%s", before, after)
	}
}

// tree lists every file with its size and time.
func (j *jail) tree() string {
	var b strings.Builder
	j.must(filepath.Walk(j.root, func(p string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && !strings.HasPrefix(p, filepath.Join(j.root, "dev")) {
			fmt.Fprintln(&b, p, info.Size(), info.ModTime().UnixNano(), info.Mode())
		}
		return err
	}))
	return b.String()
}

// spyShell keeps what a script answered.
type spyShell struct {
	Shell
	said string
}

func (s *spyShell) Run(ctx context.Context, sc shell.Script) (shell.Result, error) {
	r, err := s.Shell.Run(ctx, sc)
	s.said += string(r.Stdout) + string(r.Stderr)
	return r, err
}

func FuzzReadFound(f *testing.F) {
	f.Add("-rw-r--r-- abc - /root/x\n", "config login\n")
	f.Add("---------- - - /", "config")
	f.Fuzz(func(t *testing.T, files, rpcd string) {
		for _, k := range readFound(parts{"keyfiles": {[]byte(files), 0}, "cron": {[]byte(files), 0}, "rpcd": {[]byte(rpcd), 0}}).Files {
			if !strings.HasPrefix(k.Path, "/") || len(k.Mode) != 4 {
				t.Fatalf("%+v", k)
			}
		}
	})
}
