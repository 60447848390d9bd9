package firmware

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Package is one package of a feed, by its signed list.
type Package struct {
	Name    string
	Version string
	File    string // its path below the source
	SHA256  string
	Size    int64
	Depends []string
}

// maxPackages is the size of the largest feed list; base has some 300 kB.
const maxPackages = 32 << 20

// A FeedFormatError says that a release's packages are of a kind that is not read
// here: apk's, since 25.12. Their index is signed with an ECDSA key that could not
// be had when this was written, and the packages themselves are not signed.
type FeedFormatError struct{ Version string }

func (e *FeedFormatError) Error() string { return "packages of " + e.Version + " are apk's" }

// inImage are packages that every image holds and that lists name as dependencies.
var inImage = []string{"libc", "libgcc1", "libgcc", "kernel", "busybox", "base-files"}

// Packages finds packages and what they need in the release's signed feeds, in an
// order in which each comes after what it needs. What every image holds is left
// out. lists are the feeds' lists by path, for a bundle.
func (s *Source) Packages(ctx context.Context, t *Target, names ...string) (all []Package, lists map[string][]byte, err error) {
	if Compare(t.Version, "25.12.0-rc0") >= 0 {
		return nil, nil, &FeedFormatError{t.Version}
	}
	known, lists, err := s.feeds(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	more := t.otherFeeds()
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] || slices.Contains(inImage, name) {
			return nil
		}
		seen[name] = true
		p, ok := known[name]
		for ; !ok && len(more) > 0; p, ok = known[name] {
			if err := s.feed(ctx, more[0], known, lists); err != nil && !isNotFound(err) {
				return err
			}
			more = more[1:]
		}
		if !ok {
			return &MissingError{t.Version, name, "package", nil}
		}
		for _, d := range p.Depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		all = append(all, p)
		return nil
	}
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, nil, err
		}
	}
	return all, lists, nil
}

// feeds reads the lists of the architecture's base feed, the target's own, and the
// kernel modules' where they have one.
func (s *Source) feeds(ctx context.Context, t *Target) (map[string]Package, map[string][]byte, error) {
	known, lists := map[string]Package{}, map[string][]byte{}
	at := targetDir(t.Version, t.Name)
	dirs := []string{"releases/" + t.Version + "/packages/" + t.Arch + "/base", at + "/packages"}
	if k := t.profiles.Kernel.dir(); k != "" {
		dirs = append(dirs, at+"/kmods/"+k)
	}
	for i, dir := range dirs {
		err := s.feed(ctx, dir, known, lists)
		if isNotFound(err) && i > 0 {
			continue // modules have a feed of their own since 24.10 only
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return known, lists, nil
}

// otherFeeds are those that are large and seldom needed.
func (t *Target) otherFeeds() []string {
	at := "releases/" + t.Version + "/packages/" + t.Arch
	return []string{at + "/packages", at + "/luci"}
}

// feed reads one feed's list; what is known from another stays.
func (s *Source) feed(ctx context.Context, dir string, known map[string]Package, lists map[string][]byte) error {
	list, sig, err := s.feedList(ctx, dir)
	if err != nil {
		return err
	}
	found, err := parsePackages(s.place.where(dir+"/Packages"), dir, list)
	if err != nil {
		return err
	}
	for _, p := range found {
		if _, twice := known[p.Name]; !twice {
			known[p.Name] = p
		}
	}
	lists[dir+"/Packages"], lists[dir+"/Packages.sig"] = list, sig
	return nil
}

// feedList fetches a feed's list and checks its signature.
func (s *Source) feedList(ctx context.Context, dir string) (list, sig []byte, err error) {
	if list, err = small(ctx, s.place, dir+"/Packages", maxPackages); err != nil {
		return nil, nil, err
	}
	if sig, err = small(ctx, s.place, dir+"/Packages.sig", maxSignature); err != nil && !isNotFound(err) {
		return nil, nil, err
	}
	_, err = s.opt.Keys.verify(s.place.where(dir+"/Packages"), list, sig, nil)
	var doubt *TrustError
	if errors.As(err, &doubt) && doubt.Doubt != Forged && s.opt.AcceptUnverified {
		err = nil
	}
	return list, sig, err
}

// parsePackages reads opkg's list: paragraphs of "Field: value", continued lines
// beginning with a blank (OpenWrt scripts/ipkg-make-index.sh).
func parsePackages(name, dir string, text []byte) ([]Package, error) {
	var out []Package
	p := Package{}
	flush := func() error {
		if p.Name == "" {
			return nil
		}
		if !packagePattern.MatchString(strings.ReplaceAll(p.Name, "+", "_")) || !safeName(path.Base(p.File)) || !safePath(p.File) || !isSHA256(p.SHA256) {
			return &ListError{name, "the package " + printable(p.Name) + " has no file or checksum that makes sense"}
		}
		p.File = dir + "/" + p.File
		out = append(out, p)
		p = Package{}
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() {
		l := lines.Text()
		if l == "" {
			if err := flush(); err != nil {
				return nil, err
			}
			continue
		}
		field, value, ok := strings.Cut(l, ":")
		if value = strings.TrimSpace(value); !ok || strings.HasPrefix(l, " ") || strings.HasPrefix(l, "\t") {
			continue
		}
		switch field {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Filename":
			p.File = value
		case "SHA256sum":
			p.SHA256 = strings.ToLower(value)
		case "Size":
			p.Size, _ = strconv.ParseInt(value, 10, 64)
		case "Depends":
			p.Depends = depends(value)
		}
	}
	if lines.Err() != nil {
		return nil, &ListError{name, "a line is too long"}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	return out, nil
}

// depends are the names in "libc, kernel (= 6.6.93-1-…), a | b".
func depends(s string) []string {
	var out []string
	for d := range strings.SplitSeq(s, ",") {
		d, _, _ = strings.Cut(strings.TrimSpace(d), "|")
		if f := strings.Fields(d); len(f) > 0 {
			out = append(out, f[0])
		}
	}
	return out
}

// FileName is the name of the package's file, without folders.
func (p Package) FileName() string { return path.Base(p.File) }
