package firmware

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/lab/mirror"
)

func TestBundle(t *testing.T) {
	m := lab(t)
	var boards []image.Board
	for _, n := range []string{"avm,fritzbox-4040", "avm,fritzbox-7530"} {
		b, _ := image.BoardNamed(n)
		boards = append(boards, b)
	}
	for _, version := range []string{"22.03.7", "23.05.6", "24.10.8", "25.12.5"} {
		t.Run(version, func(t *testing.T) {
			dir := t.TempDir()
			s := source(t, m)
			b, err := s.Bundle(context.Background(), dir, version, boards, []string{"wireguard-tools"}, time.Unix(0, 0), nil)
			if err != nil {
				t.Fatal(err)
			}
			if apk := version == "25.12.5"; apk != (b.NoPackages != "") || apk != (len(b.Packages) == 0) || len(b.Images) != 6 {
				t.Errorf("%+v", b)
			}
			// The folder alone is enough, with nobody to ask.
			before := len(m.Requests())
			off := source(t, m, func(o *Options) { o.From = dir })
			for _, board := range boards {
				for _, w := range append(ForFlash(board, "", 0), ForUpgrade(board, "")) {
					f, err := off.Get(context.Background(), w, nil)
					if err != nil || f.Version != version || !f.Signed.Signed() {
						t.Errorf("%+v: %+v %v", w, f, err)
					}
				}
			}
			if version != "25.12.5" {
				tg, err := off.Target(context.Background(), version, "ipq40xx/generic")
				if err != nil {
					t.Fatal(err)
				}
				files, err := off.PackageFiles(context.Background(), tg, []string{"wireguard-tools"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(files); n != 9 || files[8].Name != "wireguard-tools" || int64(len(files[8].Data)) != files[8].Size {
					t.Errorf("%d packages: %+v", n, files)
				}
			}
			if len(m.Requests()) != before {
				t.Error("somebody was asked")
			}
			// One bit of any file in it, and it is refused.
			if version == "24.10.8" {
				spoilBundle(t, m, dir)
			}
		})
	}
}

func spoilBundle(t *testing.T, m *mirror.Mirror, dir string) {
	ipk := ""
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if strings.Contains(p, "kmod-udptunnel4") {
			ipk = p
		}
		return err
	})
	for _, at := range []string{ipk, filepath.Join(filepath.Dir(ipk), "Packages"), filepath.Join(filepath.Dir(ipk), "Packages.sig")} {
		b, err := os.ReadFile(at)
		if err != nil {
			t.Fatal(err)
		}
		bad := slices.Clone(b)
		bad[len(bad)-9] ^= 1
		if err := os.WriteFile(at, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		s := source(t, m, func(o *Options) { o.From = dir })
		tg, err := s.Target(context.Background(), "24.10.8", "ipq40xx/generic")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PackageFiles(context.Background(), tg, []string{"wireguard-tools"}, nil); doubt(err) == "" {
			t.Errorf("%s: %v", filepath.Base(at), err)
		}
		if err := os.WriteFile(at, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPackagesInOrder(t *testing.T) {
	m := lab(t)
	s := source(t, m)
	tg, err := s.Target(context.Background(), "24.10.8", "ipq40xx/generic")
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := s.Packages(context.Background(), tg, "wireguard-tools")
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, p := range all {
		at[p.Name] = i
		for _, d := range p.Depends {
			if _, ok := at[d]; !ok && !slices.Contains(inImage, d) {
				t.Errorf("%s comes before %s", p.Name, d)
			}
		}
	}
	// What is not in the base feed is looked for in the larger ones, and only then.
	const large = "releases/24.10.8/packages/arm_cortex-a7_neon-vfpv4/packages/Packages"
	if slices.ContainsFunc(m.Requests(), func(r mirror.Request) bool { return strings.HasSuffix(r.Path, large) }) {
		t.Error("a list was fetched that nobody needs")
	}
	if all, lists, err := s.Packages(context.Background(), tg, "nano"); err != nil || len(all) != 1 || lists[large] == nil {
		t.Errorf("%+v %v", all, err)
	}
	if _, _, err := s.Packages(context.Background(), tg, "nosuch"); !asErr[*MissingError](err) {
		t.Errorf("%v", err)
	}
}

func FuzzPackages(f *testing.F) {
	b, _ := lab(f).File("releases/24.10.8/packages/arm_cortex-a7_neon-vfpv4/base/Packages")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parsePackages("list", "feed", b)
		for _, p := range list {
			if err != nil || !filepath.IsLocal(p.File) || !isSHA256(p.SHA256) {
				t.Fatalf("%+v %v", p, err)
			}
		}
	})
}
