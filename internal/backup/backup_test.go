package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

const (
	privateKey = "6NEcgwOcnLWQ4iqqpEDlx7h8xy9tWrD6cZN6QVTPSU8="
	publicKey  = "GHuMwljFfqd2a7cs6BaUOmHflK23zME8VNvC5B37S3k="
	preshared  = "cHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHM="
)

func sample() Backup {
	file := func(name, text string) File { return File{Name: name, Mode: 0o600, Text: uci.Hidden(text)} }
	return Backup{
		Manifest: Manifest{Format: 1, Made: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Program: "0.1.0", Address: "192.168.1.1", Packages: []string{"nano"},
			Board: router.Board{Model: "AVM FRITZ!Box 4040", Name: "avm,fritzbox-4040", Release: router.Release{Distribution: "OpenWrt", Version: "24.10.8", Line: router.Line2410}}},
		Home: "# home\n",
		Files: []File{
			file("/etc/config/network", "config interface 'wg0'\n\toption heimweg '1'\n\toption private_key '"+privateKey+"'\n\nconfig wireguard_wg0 'hw_peer_phone'\n\toption public_key '"+publicKey+"'\n\toption preshared_key '"+preshared+"'\n"),
			file("/etc/dropbear/authorized_keys", "ssh-ed25519 AAAA me\n"),
			{Name: "/etc/dropbear/link", Mode: 0o777, Link: "elsewhere"},
			file("/etc/heimweg/written.json", `{"format":1,"sections":{"network.wg0":"x"}}`),
			file("/etc/shadow", "root:$6$salt$hash:0:0:99999:7:::\n"),
		},
	}
}

func with(m Manifest, count int) Manifest { m.Count = count; return m }

func texts(b Backup) map[string]string {
	m := map[string]string{}
	for _, f := range b.Files {
		m[f.Name] = fmt.Sprintf("%o %s %s", f.Mode, f.Link, f.Text.Reveal())
	}
	return m
}

func TestEncodeParse(t *testing.T) {
	b := sample()
	data, err := Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(texts(got), texts(b)) || !reflect.DeepEqual(got.Manifest, with(b.Manifest, 5)) || got.Home != b.Home {
		t.Errorf("got %v\n%+v", texts(got), got.Manifest)
	}
	// Any shorter text is refused: none of it is read as whole.
	for n := range len(data) - 1024 - 512 { // two blocks of zeros end a tar, and the last file's is padded
		if _, err := Parse(data[:n]); err == nil {
			t.Fatalf("cut off after %d of %d bytes, and it is read", n, len(data))
		}
	}
}

func TestWhatItHolds(t *testing.T) {
	b := sample()
	k, ok, psk := b.Secrets("wg0")
	if !ok || k.Reveal() != privateKey || len(psk) != 1 {
		t.Errorf("the tunnel's keys: %v %d", ok, len(psk))
	}
	for pub, p := range psk {
		if pub.String() != publicKey || p.Reveal() != preshared {
			t.Error("another preshared key")
		}
	}
	if b.RootHash().Reveal() != "$6$salt$hash" {
		t.Error("root's password")
	}
	if id := b.Identity(); len(id) != 1 || id[0].Name != "/etc/dropbear/authorized_keys" {
		t.Errorf("identity: %v", id)
	}
	if b.Written().Digests["network.wg0"] != "x" || !reflect.DeepEqual(b.Configs(), []string{"network"}) {
		t.Error("what was written")
	}
	if _, ok, _ := b.Secrets("wg1"); ok {
		t.Error("a tunnel that is not there has a key")
	}
}

// No way of printing shows what a backup holds.
func TestSecretsStayHidden(t *testing.T) {
	b := sample()
	j, _ := json.Marshal(b)
	shows := []string{fmt.Sprint(b), string(j), fmt.Sprintf("%+v", &b)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		shows = append(shows, fmt.Sprintf(verb, any(b)))
	}
	for _, shown := range shows {
		for _, secret := range []string{privateKey, preshared, "$6$salt"} {
			if strings.Contains(shown, secret) {
				t.Errorf("a secret shows itself in %.60q", shown)
			}
		}
	}
}

func tarOf(t *testing.T, h []tar.Header, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, x := range h {
		if x.Typeflag == tar.TypeReg || x.Typeflag == 0 {
			x.Size = int64(len(text))
		}
		if err := w.WriteHeader(&x); err != nil {
			t.Fatal(err)
		}
		if x.Size > 0 {
			w.Write([]byte(text))
		}
	}
	w.Close()
	return b.Bytes()
}

func zipped(p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(p)
	w.Close()
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	b, err := Parse(zipped(tarOf(t, []tar.Header{{Name: "etc/", Typeflag: tar.TypeDir}, {Name: "etc/config/network", Mode: 0o600}, {Name: "./etc/x", Mode: 0o644}, {Name: "etc/link", Typeflag: tar.TypeSymlink, Linkname: "x"},
		{Name: "etc/backup/installed_packages.txt"}}, "htop\toverlay\nbusybox\trom\nkmod-x\toverlay\nlibx\toverlay\n")))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/etc/backup/installed_packages.txt", "/etc/config/network", "/etc/link", "/etc/x"}
	var names []string
	for _, f := range b.Files {
		names = append(names, f.Name)
	}
	if !reflect.DeepEqual(names, want) || !reflect.DeepEqual(b.Packages, []string{"htop"}) || b.Board.Name != "" {
		t.Errorf("got %v %v", names, b.Packages)
	}
}

func TestRefused(t *testing.T) {
	manifest := tar.Header{Name: "manifest.json"}
	bomb := zipped(make([]byte, LargestTotal+1024))
	for name, data := range map[string][]byte{
		"empty":             nil,
		"a web page":        []byte("<!doctype html>"),
		"a newer form":      []byte("heimweg backup 2\n..."),
		"no manifest":       append([]byte(magic), tarOf(t, []tar.Header{{Name: "home.toml"}}, "x")...),
		"another format":    append([]byte(magic), tarOf(t, []tar.Header{manifest}, `{"format":2,"made":"2026-11-21T12:00:00Z","board":{},"files":0}`)...),
		"unknown key":       append([]byte(magic), tarOf(t, []tar.Header{manifest}, `{"format":1,"made":"2026-11-21T12:00:00Z","board":{},"files":0,"x":1}`)...),
		"twice":             append([]byte(magic), tarOf(t, []tar.Header{manifest, manifest}, `{"format":1,"made":"2026-11-21T12:00:00Z","board":{},"files":0}`)...),
		"something else":    append([]byte(magic), tarOf(t, []tar.Header{{Name: "other"}}, "x")...),
		"out of its place":  append([]byte(magic), tarOf(t, []tar.Header{{Name: "router/etc/../../x"}}, "x")...),
		"a device":          append([]byte(magic), tarOf(t, []tar.Header{{Name: "router/dev/x", Typeflag: tar.TypeBlock}}, "")...),
		"a hard link":       zipped(tarOf(t, []tar.Header{{Name: "etc/x", Typeflag: tar.TypeLink, Linkname: "y"}}, "")),
		"no network":        zipped(tarOf(t, []tar.Header{{Name: "etc/x"}}, "x")),
		"a name twice":      zipped(tarOf(t, []tar.Header{{Name: "etc/config/network"}, {Name: "/etc/config//network"}}, "x")),
		"a zip bomb":        bomb,
		"half a gzip":       bomb[:100],
		"a file too large":  zipped(tarOf(t, []tar.Header{{Name: "etc/config/network"}}, strings.Repeat("x", LargestFile+1))),
		"gzip of something": zipped([]byte("hello")),
	} {
		_, err := Parse(data)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := make([]tar.Header, MostFiles+1)
	for i := range many {
		many[i] = tar.Header{Name: fmt.Sprintf("etc/%d", i)}
	}
	if _, err := Parse(zipped(tarOf(t, many, ""))); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("many files: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	data, _ := Encode(sample())
	f.Add(data)
	f.Add(zipped(data[len(magic):]))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := Parse(p)
		if err != nil {
			return
		}
		b.Made, b.Board = time.Time{}, router.Board{}
		again, err := Encode(b)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		c, err := Parse(again)
		if err != nil || !reflect.DeepEqual(texts(b), texts(c)) {
			t.Fatalf("another one comes back: %v", err)
		}
	})
}
