package firmware

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/heimweg/heimweg/internal/image"
)

// BundleFile is the name of the note about a bundle's contents.
const BundleFile = "heimweg-bundle.json"

// A Bundle is a folder for an evening without internet: images and packages with
// the signed lists that vouch for them, in the download server's layout. It is
// used by naming the folder as a source; nothing in it is trusted more than the
// server's own answer.
type Bundle struct {
	Version  string   `json:"version"`
	Boards   []string `json:"boards"`
	Made     string   `json:"made"` // a day: "2026-11-21"
	Images   []string `json:"images"`
	Packages []string `json:"packages"`
	// Built are images of the image builder, which hold packages already. Nobody
	// signed them.
	Built []File `json:"built,omitempty"`
	// NoPackages says why there are none.
	NoPackages string `json:"no_packages,omitempty"`
}

// Bundle fetches what the boards need and puts it into a folder, each file whole or
// not at all; the note comes last. Packages are those names with all that they
// need. made is the day for the note.
func (s *Source) Bundle(ctx context.Context, dir, version string, boards []image.Board, packages []string, made time.Time, tell func(Progress)) (Bundle, error) {
	b := Bundle{Version: version, Made: made.Format(time.DateOnly), Images: []string{}, Packages: []string{}}
	out := cache{dir}
	for _, board := range boards {
		b.Boards = append(b.Boards, board.Name)
		t, err := s.Target(ctx, version, board.Target)
		if err != nil {
			return b, err
		}
		if err := out.lists(targetDir(version, board.Target), t.texts); err != nil {
			return b, err
		}
		if err := s.bundleImages(ctx, out, t, board, &b, tell); err != nil {
			return b, err
		}
		if err := s.bundlePackages(ctx, out, t, packages, &b, tell); err != nil {
			return b, err
		}
	}
	note, _ := json.Marshal(map[string]any{"stable_version": version, "versions_list": []string{version}})
	if err := out.write(".versions.json", append(note, '\n')); err != nil {
		return b, err
	}
	return b, out.note(b)
}

func (c cache) lists(dir string, texts map[string][]byte) error {
	for name, text := range texts {
		if err := c.write(dir+"/"+name, text); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) bundleImages(ctx context.Context, out cache, t *Target, board image.Board, b *Bundle, tell func(Progress)) error {
	wants := append(ForFlash(board, t.Version, 0), ForUpgrade(board, t.Version))
	for _, w := range wants {
		o, err := t.find(w)
		if err != nil {
			return err
		}
		name := targetDir(t.Version, t.Name) + "/" + o.Name
		if slices.Contains(b.Images, name) {
			continue
		}
		f, err := s.Fetch(ctx, o, tell)
		if err != nil {
			return err
		}
		if err := out.copyIn(f.Path, name, f.SHA256); err != nil {
			return err
		}
		b.Images = append(b.Images, name)
	}
	return nil
}

// copyIn copies a checked file, and checks the copy.
func (c cache) copyIn(from, name, sha string) error {
	at := c.path(name)
	if have, _ := sum(at); have == sha {
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return diskError(from, 0, err)
	}
	defer src.Close()
	if err := replace(at, func(f *os.File) error {
		_, err := io.Copy(f, src)
		return err
	}); err != nil {
		return err
	}
	if have, _ := sum(at); have != sha {
		os.Remove(at)
		return &TrustError{Name: filepath.Base(at), Doubt: Damaged, Detail: "the copy differs from what was fetched"}
	}
	return nil
}

// bundlePackages adds packages with their feeds' lists, so that the router can check
// them by itself: opkg reads Packages.gz beside Packages.sig from file:// as well.
func (s *Source) bundlePackages(ctx context.Context, out cache, t *Target, names []string, b *Bundle, tell func(Progress)) error {
	if len(names) == 0 {
		return nil
	}
	all, lists, err := s.Packages(ctx, t, names...)
	var format *FeedFormatError
	if errors.As(err, &format) {
		b.NoPackages = "the packages of " + t.Version + " are apk's, whose signed index heimweg cannot check"
		return nil
	}
	if err != nil {
		return err
	}
	for name, text := range lists {
		if err := out.write(name, text); err != nil {
			return err
		}
		if path.Base(name) == "Packages" {
			if err := out.write(name+".gz", packed(text)); err != nil {
				return err
			}
		}
	}
	for _, p := range all {
		at, _, err := s.cache.download(ctx, s.place, p.File, p.SHA256, p.Size, tell)
		if err != nil {
			return err
		}
		if err := out.copyIn(at, p.File, p.SHA256); err != nil {
			return err
		}
		if !slices.Contains(b.Packages, p.File) {
			b.Packages = append(b.Packages, p.File)
		}
	}
	return nil
}

func packed(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b) // to memory
	w.Close()
	return out.Bytes()
}

// A PackageFile is a package, fetched and compared with its feed's signed list.
type PackageFile struct {
	Package
	Data []byte
}

// PackageFiles are packages with all that they need, each after what it needs, for a
// router without internet. What every image holds is left out.
//
// Errors: *FeedFormatError, *MissingError, *TrustError, *ListError, *FetchError,
// *DiskError.
func (s *Source) PackageFiles(ctx context.Context, t *Target, names []string, tell func(Progress)) ([]PackageFile, error) {
	all, _, err := s.Packages(ctx, t, names...)
	if err != nil {
		return nil, err
	}
	var out []PackageFile
	for _, p := range all {
		at, _, err := s.cache.download(ctx, s.place, p.File, p.SHA256, p.Size, tell)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(at)
		if err != nil {
			return nil, diskError(at, p.Size, err)
		}
		out = append(out, PackageFile{p, data})
	}
	return out, nil
}
