package firmware

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/lab/mirror"
)

const (
	sums4040 = "releases/24.10.8/targets/ipq40xx/generic/sha256sums"
	eva4040  = "openwrt-24.10.8-ipq40xx-generic-avm_fritzbox-4040-squashfs-eva.bin"
)

var want4040 = Want{Version: "24.10.8", Target: "ipq40xx/generic", Profile: "avm_fritzbox-4040", Type: TypeEVA}

func lab(t testing.TB) *mirror.Mirror {
	t.Helper()
	return mirror.New(mirror.Options{Kernel: 20_000, Root: 50_000})
}

func labKey(t testing.TB, m *mirror.Mirror) Key {
	t.Helper()
	k, err := ParseKey(m.Keys().Usign)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func source(t testing.TB, m *mirror.Mirror, change ...func(*Options)) *Source {
	t.Helper()
	o := Options{From: "https://mirror.example.net", Transport: m.Transport(), Keys: Keyring{labKey(t, m)}, Cache: t.TempDir(), Agent: "heimweg/test"}
	for _, c := range change {
		c(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The shipped keys are what keyring.git has, by the pins of others.
func TestShippedKeys(t *testing.T) {
	ids := map[string]bool{}
	for _, s := range shipped {
		text := []byte("untrusted comment: " + s.comment + "\n" + s.data + "\n")
		if got := sumOf(text); s.sha256 != "" && got != s.sha256 {
			t.Errorf("%s: sha256 %s, pinned is %s", s.comment, got, s.sha256)
		}
	}
	for _, k := range OpenWrt() {
		ids[k.ID] = true
		if !k.Shipped || k.usign == nil {
			t.Errorf("%+v", k)
		}
	}
	for _, id := range []string{"2f8b0b98e08306bf", "4d017e6f1ed5d616", "d310c6f2833e97f7", "b5043e70f9a75cde"} {
		if !ids[id] {
			t.Errorf("key %s is missing", id)
		}
	}
}

func TestReleases(t *testing.T) {
	m := lab(t)
	s := source(t, m)
	ctx := context.Background()
	r, err := s.Releases(ctx)
	if err != nil || r.Stable != "25.12.5" || r.OldStable != "24.10.8" || len(r.All) != 4 || r.SeenBefore != "" {
		t.Fatalf("%+v %v", r, err)
	}
	m.Announce("24.10.8", "23.05.6")
	if r, err = s.Releases(ctx); err != nil || r.SeenBefore != "25.12.5" {
		t.Fatalf("an older list is not noticed: %+v %v", r, err)
	}
	if r, err = s.Releases(ctx); err != nil || r.SeenBefore != "25.12.5" {
		t.Fatalf("it is noticed once only: %+v %v", r, err)
	}
	m.Announce("26.06.0", "25.12.5")
	if r, err = s.Releases(ctx); err != nil || r.SeenBefore != "" {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestGet(t *testing.T) {
	m := lab(t)
	s := source(t, m)
	ctx := context.Background()
	for _, version := range []string{"25.12.5", "24.10.8", "23.05.6", "22.03.7"} {
		for _, b := range image.Boards() {
			if m.Image(version, b.Profile, TypeSysupgrade) == nil {
				if _, err := s.Find(ctx, ForUpgrade(b, version)); !asErr[*MissingError](err) {
					t.Errorf("%s %s: %v", version, b.Name, err)
				}
				continue
			}
			for _, w := range append(ForFlash(b, version, 0), ForUpgrade(b, version)) {
				if testing.Short() && b.Target != "ipq40xx/generic" {
					continue
				}
				f, err := s.Get(ctx, w, nil)
				if err != nil {
					t.Fatalf("%+v: %v", w, err)
				}
				profile := w.Profile
				if w.UBoot != "" {
					profile = w.UBoot
				}
				got, err := os.ReadFile(f.Path)
				if err != nil || !bytes.Equal(got, m.Image(version, profile, w.Type)) || f.Signed.Method != ByUsign || f.Size != int64(len(got)) {
					t.Fatalf("%+v: %+v %v", w, f, err)
				}
			}
		}
	}
}

func asErrInto[T error](err error, into *T) bool { return errors.As(err, into) }

func asErr[T error](err error) bool {
	var e T
	return errors.As(err, &e)
}

func doubt(err error) Doubt {
	var e *TrustError
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Doubt
}

func trouble(err error) Trouble {
	var e *FetchError
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Trouble
}

// One flipped bit anywhere in the list, its signatures, profiles.json or the image
// is refused, and nothing of it stays.
func TestOneBit(t *testing.T) {
	m := lab(t)
	base := strings.TrimSuffix(sums4040, "sha256sums")
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"sha256sums", "sha256sums.sig", "profiles.json", eva4040} {
		whole, _ := m.File(base + name)
		for range 60 {
			at := r.Int64N(int64(len(whole)))
			if name == "sha256sums.sig" && at < int64(bytes.IndexByte(whole, '\n')) {
				continue // the comment, which nobody trusts
			}
			m.Heal()
			m.Break(mirror.Fault{Path: name, Do: mirror.Flipped, At: at})
			if name == "sha256sums.sig" {
				m.Break(mirror.Fault{Path: "sha256sums.asc", Do: mirror.Status, At: 404})
			}
			s := source(t, m)
			f, err := s.Get(context.Background(), want4040, nil)
			if err == nil || doubt(err) == "" {
				t.Fatalf("%s, byte %d: %+v %v", name, at, f, err)
			}
			if left, _ := filepath.Glob(s.cache.path("releases/24.10.8/targets/ipq40xx/generic/") + "/*"); len(left) > 0 {
				t.Fatalf("%s, byte %d: left behind %v", name, at, left)
			}
		}
	}
}

func TestSignatures(t *testing.T) {
	m, other := lab(t), lab(t)
	pgp, err := ParseKey(m.Keys().OpenPGP)
	if err != nil {
		t.Fatal(err)
	}
	foreign := labKey(t, other)
	no := func(tail string) mirror.Fault {
		return mirror.Fault{Path: "sha256sums" + tail, Do: mirror.Status, At: 404}
	}
	flip := func(tail string, at int64) mirror.Fault {
		return mirror.Fault{Path: "sha256sums" + tail, Do: mirror.Flipped, At: at}
	}
	for _, tt := range []struct {
		name   string
		keys   Keyring
		faults []mirror.Fault
		accept bool
		method string
		doubt  Doubt
	}{
		{"usign", Keyring{labKey(t, m)}, nil, false, ByUsign, ""},
		{"OpenPGP when usign is missing", Keyring{labKey(t, m), pgp}, []mirror.Fault{no(".sig")}, false, ByOpenPGP, ""},
		{"OpenPGP when usign's key is not known", Keyring{foreign, pgp}, nil, false, ByOpenPGP, ""},
		{"neither key known", OpenWrt(), nil, false, "", KeyUnknown},
		{"neither key known, accepted", OpenWrt(), nil, true, ByNobody, ""},
		{"no signature", Keyring{labKey(t, m)}, []mirror.Fault{no(".sig"), no(".asc")}, false, "", Unsigned},
		{"no signature, accepted", Keyring{labKey(t, m)}, []mirror.Fault{no(".sig"), no(".asc")}, true, ByNobody, ""},
		{"OpenPGP over another list", Keyring{pgp}, []mirror.Fault{no(".sig"), flip("", 3)}, false, "", Forged},
		{"a forged one is refused though OpenPGP fits", Keyring{labKey(t, m), pgp}, []mirror.Fault{flip(".sig", 100)}, false, "", Forged},
		{"a forged one is refused though accepted", Keyring{labKey(t, m)}, []mirror.Fault{flip("", 3)}, true, "", Forged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.Heal()
			for _, f := range tt.faults {
				m.Break(f)
			}
			s := source(t, m, func(o *Options) { o.Keys, o.AcceptUnverified = tt.keys, tt.accept })
			f, err := s.Get(context.Background(), want4040, nil)
			if f.Signed.Method != tt.method || doubt(err) != tt.doubt || (err == nil) != (tt.doubt == "") {
				t.Errorf("%+v %v", f, err)
			}
		})
	}
}

// An older release that lies under a newer one's name is noticed by its own signed
// files.
func TestAnotherRelease(t *testing.T) {
	dir := t.TempDir()
	m := lab(t)
	if err := m.WriteTree(dir, "23.05.6", "ipq40xx/generic"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "releases", "23.05.6"), filepath.Join(dir, "releases", "24.10.8")); err != nil {
		t.Fatal(err)
	}
	s := source(t, m, func(o *Options) { o.From = dir })
	uboot := want4040 // whose name says no release
	uboot.Profile, uboot.Type, uboot.UBoot = "avm_fritzbox-7530", TypeUBoot, "fritz7520"
	for _, w := range []Want{want4040, uboot} {
		if _, err := s.Get(context.Background(), w, nil); doubt(err) != WrongRelease {
			t.Errorf("%s: %v", w.Type, err)
		}
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	m := lab(t)
	if err := m.WriteTree(dir, "24.10.8", "ipq40xx/generic"); err != nil {
		t.Fatal(err)
	}
	before := len(m.Requests())
	s := source(t, m, func(o *Options) { o.From = dir })
	f, err := s.Get(context.Background(), want4040, nil)
	if err != nil || !f.Signed.Signed() || strings.HasPrefix(f.Path, dir) || len(m.Requests()) != before {
		t.Fatalf("%+v %v", f, err)
	}
	spoil := filepath.Join(dir, "releases/24.10.8/targets/ipq40xx/generic", eva4040)
	b, _ := os.ReadFile(spoil)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(spoil, b, 0o644); err != nil {
		t.Fatal(err)
	}
	s = source(t, m, func(o *Options) { o.From = dir })
	if _, err := s.Get(context.Background(), want4040, nil); doubt(err) != Damaged {
		t.Errorf("%v", err)
	}
	if _, err := Open(Options{From: filepath.Join(dir, "nowhere")}); trouble(err) != NotFound {
		t.Errorf("%v", err)
	}
}

// What goes wrong on the way, in virtual time.
func TestTroubles(t *testing.T) {
	size := int64(len(lab(t).Image("24.10.8", "avm_fritzbox-4040", TypeEVA)))
	for _, tt := range []struct {
		name   string
		faults []mirror.Fault
		want   Trouble
		doubt  Doubt
	}{
		{"broken twice", []mirror.Fault{{Path: eva4040, Do: mirror.Reset, At: 200_000, Times: 2}}, "", ""},
		{"broken again and again, a little further each time", []mirror.Fault{{Path: eva4040, Do: mirror.Reset, At: 100_000}}, "", ""},
		{"broken at once, for ever", []mirror.Fault{{Path: eva4040, Do: mirror.Reset, At: 0}}, Lost, ""},
		{"silence, then well", []mirror.Fault{{Path: eva4040, Do: mirror.Silent, At: 10_000, Times: 1}}, "", ""},
		{"silence for ever", []mirror.Fault{{Path: eva4040, Do: mirror.Silent, At: 0}}, Stalled, ""},
		{"list breaks once", []mirror.Fault{{Path: "sha256sums", Do: mirror.Reset, At: 10, Times: 1}}, "", ""},
		{"slow", []mirror.Fault{{Path: eva4040, Do: mirror.Slow, At: 50_000}}, "", ""},
		{"no parts", []mirror.Fault{{Path: eva4040, Do: mirror.Reset, At: 200_000, Times: 1}, {Path: eva4040, Do: mirror.NoRange}}, "", ""},
		{"truncated", []mirror.Fault{{Path: eva4040, Do: mirror.Truncated, At: 100_000}}, "", Damaged},
		{"other bytes", []mirror.Fault{{Path: eva4040, Do: mirror.OtherBytes}}, "", Damaged},
		{"rest is of another file", []mirror.Fault{{Path: eva4040, Do: mirror.Reset, At: 100_000, Times: 1}, {Path: eva4040, Do: mirror.OtherBytes, Times: 1}}, "", ""},
		{"404", []mirror.Fault{{Path: eva4040, Do: mirror.Status, At: 404}}, NotFound, ""},
		{"503", []mirror.Fault{{Path: eva4040, Do: mirror.Status, At: 503}}, Status, ""},
		{"hotel, image", []mirror.Fault{{Path: eva4040, Do: mirror.WebPage}}, WebPage, ""},
		{"hotel, list", []mirror.Fault{{Path: "sha256sums", Do: mirror.WebPage}}, WebPage, ""},
		{"sent to http", []mirror.Fault{{Path: eva4040, Do: mirror.Redirect, To: "http://mirror.example.net/x"}}, Redirected, ""},
		{"in a circle", []mirror.Fault{{Path: eva4040, Do: mirror.Redirect, To: "https://mirror.example.net/" + eva4040}}, Redirected, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := lab(t)
			for _, f := range tt.faults {
				m.Break(f)
			}
			synctest.Test(t, func(t *testing.T) {
				s := source(t, m)
				var last Progress
				f, err := s.Get(t.Context(), want4040, func(p Progress) { last = p })
				if trouble(err) != tt.want || doubt(err) != tt.doubt || (err == nil) != (tt.want == "" && tt.doubt == "") {
					t.Fatalf("%+v %v", f, err)
				}
				if err == nil && (last.Done != size || last.Total != size) {
					t.Errorf("progress ended at %+v, the file has %d", last, size)
				}
				if tt.name == "slow" && (last.Rate < 40_000 || last.Rate > 60_000) {
					t.Errorf("rate %f", last.Rate)
				}
			})
		})
	}
}

// What an earlier run has left is used, and a run in the middle of another's does
// not disturb it.
func TestResume(t *testing.T) {
	m := lab(t)
	dir := t.TempDir()
	open := func() *Source { return source(t, m, func(o *Options) { o.Cache = dir }) }
	ctx, cancel := context.WithCancel(context.Background())
	m.Break(mirror.Fault{Path: eva4040, Do: mirror.Slow, At: 400_000})
	done := make(chan error)
	go func() {
		_, err := open().Get(ctx, want4040, func(p Progress) {
			if p.Done >= 100_000 {
				cancel()
			}
		})
		done <- err
	}()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.Heal()
	before := len(m.Requests())
	var kept int64
	if _, err := open().Get(context.Background(), want4040, func(p Progress) { kept = p.Kept }); err != nil {
		t.Fatal(err)
	}
	ranged := false
	for _, r := range m.Requests()[before:] {
		ranged = ranged || strings.HasPrefix(r.Range, "bytes=1")
	}
	if kept < 100_000 || !ranged {
		t.Errorf("kept %d bytes, asked for a part: %v", kept, ranged)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "releases/24.10.8/targets/ipq40xx/generic/.*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// Now it is in the cache.
	before = len(m.Requests())
	if _, err := open().Get(context.Background(), want4040, nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Requests()[before:] {
		if strings.HasSuffix(r.Path, ".bin") {
			t.Error("fetched again")
		}
	}
	// A file that rotted in the cache is fetched again.
	at := filepath.Join(dir, "releases/24.10.8/targets/ipq40xx/generic", eva4040)
	if err := os.WriteFile(at, []byte("rot"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := open().Get(context.Background(), want4040, nil)
	if got, _ := sum(f.Path); err != nil || got != f.SHA256 {
		t.Errorf("%v", err)
	}
}

// A run that is killed leaves its part; one that was spoilt meanwhile does not win.
func TestSpoiltLeftover(t *testing.T) {
	m := lab(t)
	s := source(t, m)
	o, err := s.Find(context.Background(), want4040)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.cache.begin(targetDir(o.Version, o.Target)+"/"+o.Name, o.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, junk := range []int{100, 1 << 20, 4 << 20} { // shorter and longer than the file
		if err := os.WriteFile(p.Name(), make([]byte, junk), 0o644); err != nil {
			t.Fatal(err)
		}
		head, _ := m.File(targetDir(o.Version, o.Target) + "/" + o.Name)
		tag := fmt.Sprintf("%q", sumOf(head)[:16])
		if err := os.WriteFile(p.Name()+".tag", []byte(tag), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := s.Get(context.Background(), want4040, nil)
		if err != nil || sumFile(f.Path) != o.SHA256 {
			t.Fatalf("%d bytes of junk: %v", junk, err)
		}
		os.Remove(f.Path)
	}
}

func sumFile(path string) string { s, _ := sum(path); return s }

// Several runs at once with one cache.
func TestTogether(t *testing.T) {
	m := lab(t)
	dir := t.TempDir()
	m.Break(mirror.Fault{Path: eva4040, Do: mirror.Reset, At: 300_000, Times: 5})
	old := limits.again
	limits.again = []time.Duration{0, 0, 0}
	defer func() { limits.again = old }()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s := source(t, m, func(o *Options) { o.Cache = dir })
			f, err := s.Get(context.Background(), want4040, nil)
			if err != nil || sumFile(f.Path) != f.SHA256 {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
}

func TestRecognise(t *testing.T) {
	m := lab(t)
	s := source(t, m)
	sha := sumOf(m.Image("23.05.6", "avm_fritzbox-4040", TypeEVA))
	v, name, by, err := s.Recognise(context.Background(), sha, "ipq40xx/generic", []string{"25.12.5", "25.12.4", "23.05.6"})
	if v != "23.05.6" || !strings.HasSuffix(name, "-squashfs-eva.bin") || !by.Signed() || err != nil {
		t.Errorf("%q %q %v %v", v, name, by, err)
	}
	if v, _, _, err := s.Recognise(context.Background(), strings.Repeat("0", 64), "ipq40xx/generic", []string{"23.05.6"}); v != "" || err != nil {
		t.Errorf("%q %v", v, err)
	}
}

func TestCompare(t *testing.T) {
	order := []string{"21.02.7", "22.03.0", "22.03.7", "23.05.6", "24.10.8", "24.10.10", "25.12.0-rc1", "25.12.0-rc12", "25.12.0", "25.12.5"}
	for i, a := range order {
		for j, b := range order {
			if got := Compare(a, b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%s, %s: %d", a, b, got)
			}
		}
	}
}

func FuzzVersions(f *testing.F) {
	f.Add([]byte(`{"stable_version":"24.10.8","versions_list":["24.10.8","x"]}`))
	f.Add([]byte(`{"stable_version":"../../etc"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseVersions("list", b)
		if err == nil && (r.Stable == "" || len(r.All) == 0) {
			t.Fatal("no release and no error")
		}
		for _, v := range r.All {
			if !versionPattern.MatchString(v) {
				t.Fatalf("%q", v)
			}
		}
	})
}

func FuzzSums(f *testing.F) {
	f.Add([]byte(strings.Repeat("0", 64) + " *a/b.bin\n"))
	f.Add([]byte(strings.Repeat("0", 64) + " */etc/passwd\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSums("list", b)
		for n, x := range s {
			if err != nil || !isSHA256(x) || !filepath.IsLocal(n) {
				t.Fatalf("%q %q %v", n, x, err)
			}
		}
	})
}

func FuzzProfiles(f *testing.F) {
	b, _ := lab(f).File("releases/24.10.8/targets/lantiq/xway/profiles.json")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProfiles("profiles", b)
		if err != nil {
			return
		}
		if d := p.Kernel.dir(); d != "" && !filepath.IsLocal(d) || p.Arch != "" && !filepath.IsLocal(p.Arch) {
			t.Fatal("a way out")
		}
		for _, x := range p.Profiles {
			for _, i := range x.Images {
				if !filepath.IsLocal(i.Name) || strings.Contains(i.Name, "/") {
					t.Fatalf("%q", i.Name)
				}
			}
		}
	})
}

func FuzzKey(f *testing.F) {
	m := lab(f)
	f.Add(m.Keys().Usign)
	f.Add(m.Keys().OpenPGP)
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseKey(b); err == nil && (k.ID == "" || k.usign == nil && k.pgp == nil) {
			t.Fatal("an empty key")
		}
	})
}

func FuzzSignature(f *testing.F) {
	m := lab(f)
	sig, _ := m.File(sums4040 + ".sig")
	asc, _ := m.File(sums4040 + ".asc")
	pgp, err := ParseKey(m.Keys().OpenPGP)
	if err != nil {
		f.Fatal(err)
	}
	ring := Keyring{labKey(f, m), pgp}
	f.Add(sig, true)
	f.Add(asc, false)
	f.Fuzz(func(t *testing.T, b []byte, usign bool) {
		var err error
		if usign {
			_, err = ring.verify("list", []byte("another list"), b, nil)
		} else {
			_, err = ring.verify("list", []byte("another list"), nil, b)
		}
		if doubt(err) == "" {
			t.Fatalf("taken: %v", err)
		}
	})
}

func TestDisk(t *testing.T) {
	m := lab(t)
	in := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(in, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := source(t, m, func(o *Options) { o.Cache = filepath.Join(in, "below") })
	_, err := s.Get(context.Background(), want4040, nil)
	if !asErr[*DiskError](err) {
		t.Errorf("%v", err)
	}
	full := diskError("x", 5, fmt.Errorf("write x: %w", syscall.ENOSPC))
	var e *DiskError
	if !errors.As(full, &e) || !e.Full || fault.Find(Explain(full)).Code != "disk-full" {
		t.Errorf("%+v", full)
	}
}

// Every error has words that end in something to do.
func TestExplain(t *testing.T) {
	var all []error
	for _, x := range []Trouble{Unreachable, Lost, Stalled, NotFound, Status, WebPage, Redirected, TooLarge} {
		all = append(all, &FetchError{URL: "https://x", Trouble: x})
	}
	for _, x := range []Doubt{Unsigned, KeyUnknown, Forged, Damaged, NotListed, WrongRelease} {
		all = append(all, &TrustError{Name: "x", Doubt: x, Keys: []string{"8A8BC12F46B836C0F9CDB36F1D53D1877742E911", "other"}})
	}
	all = append(all, &ListError{"x", "y"}, &MissingError{Version: "1.2"}, &MissingError{"1.2", "p", "eva", nil}, &MissingError{"1.2", "p", "eva", []string{"sysupgrade"}},
		&DiskError{Path: "x", Err: errors.New("y")}, &BuildError{Status: 529}, &BuildError{Waited: "1m"})
	for _, err := range all {
		f := fault.Find(Explain(fmt.Errorf("wrapped: %w", err)))
		if f == nil || len(f.Next) == 0 || len(f.Seen)+len(f.Next) == 0 || strings.HasSuffix(f.What, ".") {
			t.Errorf("%T: %+v", err, f)
		}
	}
	if err := Explain(context.Canceled); err != context.Canceled {
		t.Errorf("%v", err)
	}
}
