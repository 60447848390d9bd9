package firmware

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
)

// fetchedHere is the folder in the cache that remembers which built images this
// computer fetched from the image builder itself.
const fetchedHere = "built/fetched/"

// KeepBuilt puts images of the image builder into a bundle that was made before, and
// notes here that this computer fetched them: nobody signs them, so elsewhere the
// folder is all that speaks for them.
func (s *Source) KeepBuilt(dir string, b *Bundle, files []File) error {
	out := cache{dir}
	for _, f := range files {
		name := "built/" + f.SHA256[:16] + "/" + f.Name
		if err := out.copyIn(f.Path, name, f.SHA256); err != nil {
			return err
		}
		origin, err := json.Marshal(f.Signed)
		if err != nil {
			return err
		}
		if err := s.cache.write(fetchedHere+f.SHA256, append(origin, '\n')); err != nil {
			return err
		}
		f.Path = name
		b.Built = append(b.Built, f)
	}
	return out.note(*b)
}

func (c cache) note(b Bundle) error {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return c.write(BundleFile, append(text, '\n'))
}

// maxNote is more than any bundle's note.
const maxNote = 1 << 20

// Built finds an image with these packages inside in a bundle. The File's Signed says
// where it came from, when this computer fetched it.
//
// Errors: *MissingError when the folder has none; *TrustError, with Unsigned when this
// computer did not fetch it and AcceptUnverified is not set, with Damaged when it is
// not the file that the note names.
func (s *Source) Built(w Want, packages []string) (File, error) {
	none := &MissingError{w.Version, w.Profile, w.Type, nil}
	at, ok := s.place.(folder)
	if !ok {
		return File{}, none
	}
	dir := cache(at)
	var b Bundle
	info, err := os.Stat(dir.path(BundleFile))
	if err != nil || info.Size() > maxNote {
		return File{}, none
	}
	text, err := os.ReadFile(dir.path(BundleFile))
	if err != nil || json.Unmarshal(text, &b) != nil {
		return File{}, none
	}
	for _, f := range b.Built {
		if f.Version != w.Version || f.Profile != w.Profile || f.Type != w.Type || !safePath(f.Path) || !isSHA256(f.SHA256) ||
			slices.ContainsFunc(f.Packages, func(p string) bool { return !packagePattern.MatchString(p) }) ||
			slices.ContainsFunc(packages, func(p string) bool { return !slices.Contains(f.Packages, p) }) {
			continue
		}
		f.Path = dir.path(f.Path)
		f.Name = filepath.Base(f.Path)
		sha, size := sum(f.Path)
		if sha != f.SHA256 {
			return File{}, &TrustError{Name: f.Path, Doubt: Damaged, Detail: "sha256 is not the one in " + BundleFile}
		}
		f.Size, f.Signed = size, Signature{Method: ByNobody}
		origin, err := os.ReadFile(s.cache.path(fetchedHere + f.SHA256))
		if err == nil && json.Unmarshal(origin, &f.Signed) == nil {
			return f, nil
		}
		if !s.opt.AcceptUnverified {
			return File{}, &TrustError{Name: f.Path, Doubt: Unsigned}
		}
		return f, nil
	}
	return File{}, none
}
