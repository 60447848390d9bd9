package firmware

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/heimweg/heimweg/internal/image"
)

// Official is OpenWrt's download server.
const Official = "https://downloads.openwrt.org"

// Options say where files come from.
type Options struct {
	// From is a server with the official layout or a folder; "" is Official.
	From string
	// Transport is the way out; nil is the real one.
	Transport http.RoundTripper
	// Keys are trusted; nil is OpenWrt().
	Keys Keyring
	// Cache is the folder for what was fetched; it is made when needed.
	Cache string
	// Agent is how the program introduces itself: "heimweg/0.1.0".
	Agent string
	// AcceptUnverified uses lists whose signature nobody here can check: unsigned
	// ones, and those by a key that is not known. A signature that does not fit is
	// refused all the same. Files say so in Signed.
	AcceptUnverified bool
}

// A Source gives releases and files. It may be used by several at once.
type Source struct {
	opt   Options
	place place
	cache cache

	mu      sync.Mutex
	targets map[string]*Target
}

// Open makes a source. Nothing is fetched yet.
func Open(o Options) (*Source, error) {
	if o.From == "" {
		o.From = Official
	}
	if o.Keys == nil {
		o.Keys = OpenWrt()
	}
	s := &Source{opt: o, cache: cache{o.Cache}, targets: map[string]*Target{}}
	if strings.Contains(o.From, "://") {
		w, err := newWeb(o.From, o.Transport, o.Agent)
		if err != nil {
			return nil, err
		}
		s.place = w
		return s, nil
	}
	if info, err := os.Stat(o.From); err != nil || !info.IsDir() {
		if err == nil {
			err = errors.New("not a folder")
		}
		return nil, &FetchError{URL: o.From, Trouble: NotFound, Err: err}
	}
	s.place = folder{o.From}
	return s, nil
}

// From is the server's name or the folder.
func (s *Source) From() string { return s.place.by() }

// newestFile remembers the newest stable release that any list has named.
const newestFile = "newest.json"

type newest struct {
	Stable string `json:"stable"`
}

// Releases fetches the list of releases. A list that names an older stable release
// than one seen before says so in SeenBefore; the caller must show it.
func (s *Source) Releases(ctx context.Context) (Releases, error) {
	const name = ".versions.json"
	text, err := small(ctx, s.place, name, maxVersions)
	if err != nil {
		return Releases{}, err
	}
	r, err := parseVersions(s.place.where(name), text)
	if err != nil {
		return r, err
	}
	if _, local := s.place.(folder); local {
		return r, nil // a folder is as old as the day it was made, and that is no surprise
	}
	var seen newest
	if b, err := os.ReadFile(s.cache.path(newestFile)); err == nil && len(b) < 4096 {
		json.Unmarshal(b, &seen) // a broken note is no note
	}
	if versionPattern.MatchString(seen.Stable) && Compare(seen.Stable, r.Stable) > 0 {
		r.SeenBefore = seen.Stable
		return r, nil
	}
	if seen.Stable != r.Stable {
		b, _ := json.Marshal(newest{r.Stable})
		if err := s.cache.write(newestFile, append(b, '\n')); err != nil {
			return r, err
		}
	}
	return r, nil
}

// A Target is one target of a release, its lists checked.
type Target struct {
	Version, Name string // "24.10.8", "ipq40xx/generic"
	Code          string // "r28427-6df0e3d02a"
	Arch          string // of packages
	Signed        Signature
	Sums          Sums

	profiles *profilesFile
	listed   bool              // the signed list vouches for profiles.json
	texts    map[string][]byte // the lists as they came, for a bundle
}

func targetDir(version, target string) string { return "releases/" + version + "/targets/" + target }

// Target fetches a target's lists and checks them. Errors: *TrustError when the
// signature does not vouch for them, *MissingError, *ListError, *FetchError.
func (s *Source) Target(ctx context.Context, version, target string) (*Target, error) {
	if !versionPattern.MatchString(version) {
		return nil, &MissingError{Version: printable(version)}
	}
	s.mu.Lock()
	t := s.targets[version+" "+target]
	s.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := s.target(ctx, version, target)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.targets[version+" "+target] = t
	s.mu.Unlock()
	return t, nil
}

func (s *Source) target(ctx context.Context, version, target string) (*Target, error) {
	at := targetDir(version, target) + "/"
	t := &Target{Version: version, Name: target, texts: map[string][]byte{}}
	list, err := small(ctx, s.place, at+"sha256sums", maxSums)
	if isNotFound(err) {
		return nil, &MissingError{Version: version}
	}
	if err != nil {
		return nil, err
	}
	t.texts["sha256sums"] = list
	if t.Signed, err = s.signature(ctx, at, t); err != nil {
		return nil, err
	}
	if t.Sums, err = parseSums(s.place.where(at+"sha256sums"), list); err != nil {
		return nil, err
	}
	return t, s.readProfiles(ctx, at, t)
}

func isNotFound(err error) bool {
	var e *FetchError
	return errors.As(err, &e) && e.Trouble == NotFound
}

// signature fetches the signatures of sha256sums, the second only when the first
// says nothing, and checks them.
func (s *Source) signature(ctx context.Context, at string, t *Target) (Signature, error) {
	name := s.place.where(at + "sha256sums")
	list := t.texts["sha256sums"]
	for _, tail := range []string{"sha256sums.sig", "sha256sums.asc"} {
		b, err := small(ctx, s.place, at+tail, maxSignature)
		if err != nil && !isNotFound(err) {
			return Signature{}, err
		}
		if err == nil {
			t.texts[tail] = b
		}
		got, err := s.opt.Keys.verify(name, list, t.texts["sha256sums.sig"], t.texts["sha256sums.asc"])
		var doubt *TrustError
		if err == nil || !errors.As(err, &doubt) || doubt.Doubt == Forged {
			return got, err
		}
	}
	_, err := s.opt.Keys.verify(name, list, t.texts["sha256sums.sig"], t.texts["sha256sums.asc"])
	if s.opt.AcceptUnverified {
		return Signature{Method: ByNobody}, nil
	}
	return Signature{}, err
}

// readProfiles fetches profiles.json and holds it against the signed list.
func (s *Source) readProfiles(ctx context.Context, at string, t *Target) error {
	name := s.place.where(at + "profiles.json")
	text, err := small(ctx, s.place, at+"profiles.json", maxProfiles)
	if err != nil {
		return err
	}
	if err := t.vouch("profiles.json", text); err != nil {
		var doubt *TrustError
		if !errors.As(err, &doubt) || doubt.Doubt != NotListed {
			return err
		}
	} else {
		t.listed = true
	}
	t.texts["profiles.json"] = text
	if t.profiles, err = parseProfiles(name, text); err != nil {
		return err
	}
	if t.profiles.Version != t.Version || t.profiles.Target != t.Name {
		return &TrustError{Name: name, Doubt: WrongRelease, Detail: "it says " + printable(t.profiles.Version+" "+t.profiles.Target) + ", asked for was " + t.Version + " " + t.Name}
	}
	t.Code, t.Arch = printable(t.profiles.Code), t.profiles.Arch
	return nil
}

// vouch holds a small file against the signed list.
func (t *Target) vouch(name string, b []byte) error {
	want, ok := t.Sums[name]
	switch {
	case !ok:
		return &TrustError{Name: name, Doubt: NotListed}
	case want != sumOf(b):
		return &TrustError{Name: name, Doubt: Damaged, Detail: "sha256 is " + sumOf(b) + ", the signed list says " + want}
	}
	return nil
}

// The types of images, as in profiles.json. A U-Boot has a type of ours.
const (
	TypeEVA           = "eva"
	TypeSysupgrade    = "sysupgrade"
	TypeInitramfs     = "kernel"
	TypeEVAKernel     = "eva-kernel"
	TypeEVAFileSystem = "eva-filesystem"
	TypeUBoot         = "u-boot"
)

// A Want names one image.
type Want struct {
	Version string // "" is the newest stable release
	Target  string // "ipq40xx/generic"
	Profile string // "avm_fritzbox-4040"
	Type    string
	UBoot   string // of TypeUBoot: "fritz7520"
}

// Use is what an image of that type is for on a board.
func (w Want) Use() image.Use {
	switch w.Type {
	case TypeEVA, TypeEVAKernel, TypeEVAFileSystem:
		return image.FlashThroughEVA
	case TypeInitramfs:
		if strings.HasPrefix(w.Target, "ipq") {
			return image.NetBoot
		}
		return image.RAMBoot
	case TypeUBoot:
		return image.RAMBoot
	}
	return image.UpgradeOpenWrt
}

// ForFlash lists what a board that runs FRITZ!OS needs to get OpenWrt, in the
// order of use (facts eva.md 3.1). hwRevision tells boxes of one profile apart; 0
// means all of them.
func ForFlash(b image.Board, version string, hwRevision int) []Want {
	w := func(typ string) Want {
		return Want{Version: version, Target: b.Target, Profile: b.Profile, Type: typ}
	}
	switch b.Method {
	case image.OneFile:
		return []Want{w(TypeSysupgrade)}
	case image.WithUBoot:
		return []Want{w(TypeEVA)}
	case image.TwoFiles:
		return []Want{w(TypeEVAKernel), w(TypeEVAFileSystem)}
	case image.FromRAM:
		return []Want{w(TypeInitramfs), w(TypeSysupgrade)}
	}
	var out []Want
	for _, rev := range b.HWRevisions {
		if hwRevision == 0 || hwRevision == rev {
			u := w(TypeUBoot)
			u.UBoot = b.UBoots[rev]
			out = append(out, u)
		}
	}
	return append(out, w(TypeInitramfs), w(TypeSysupgrade))
}

// ForUpgrade is what a board that runs OpenWrt needs.
func ForUpgrade(b image.Board, version string) Want {
	return Want{Version: version, Target: b.Target, Profile: b.Profile, Type: TypeSysupgrade}
}

// An Offer is a file that a release has, not yet fetched.
type Offer struct {
	Want
	Name   string // below the target's directory
	SHA256 string // by the signed list
	Size   int64  // 0 when the release does not say
	Signed Signature
}

// A File is a checked file on this computer.
type File struct {
	Path    string    `json:"path"`
	Name    string    `json:"name"` // the release's name for it
	Version string    `json:"version"`
	Profile string    `json:"profile,omitempty"`
	Type    string    `json:"type"`
	SHA256  string    `json:"sha256"`
	Size    int64     `json:"size"`
	Signed  Signature `json:"signed"`
	// Packages that were put in on request, by the image builder.
	Packages []string `json:"packages,omitempty"`
}

// Find looks an image up in the release's checked lists.
func (s *Source) Find(ctx context.Context, w Want) (Offer, error) {
	if w.Version == "" {
		r, err := s.Releases(ctx)
		if err != nil {
			return Offer{}, err
		}
		w.Version = r.Stable
	}
	t, err := s.Target(ctx, w.Version, w.Target)
	if err != nil {
		return Offer{}, err
	}
	return t.find(w)
}

func (t *Target) find(w Want) (Offer, error) {
	o := Offer{Want: w, Signed: t.Signed}
	if w.Type == TypeUBoot {
		o.Name = "u-boot-" + w.UBoot + "/uboot-" + w.UBoot + ".bin"
	} else {
		e, err := t.entry(w)
		if err != nil {
			return o, err
		}
		o.Name, o.Size = e.Name, e.Size
		// The name itself says which release it is, and the list vouches for names:
		// what stands there cannot be another release's file.
		if !strings.HasPrefix(e.Name, "openwrt-"+t.Version+"-") {
			return o, &TrustError{Name: e.Name, Doubt: WrongRelease, Detail: "asked for was " + t.Version}
		}
		if want := t.Sums[e.Name]; want != "" && !strings.EqualFold(want, e.SHA256) {
			return o, &TrustError{Name: e.Name, Doubt: Damaged, Detail: "profiles.json and sha256sums do not agree about it"}
		}
	}
	o.SHA256 = t.Sums[o.Name]
	if o.SHA256 == "" {
		if w.Type == TypeUBoot {
			return o, &MissingError{w.Version, w.UBoot, w.Type, nil}
		}
		return o, &TrustError{Name: o.Name, Doubt: NotListed}
	}
	return o, nil
}

func (t *Target) entry(w Want) (entry, error) {
	p, ok := t.profiles.Profiles[w.Profile]
	if !ok {
		return entry{}, &MissingError{w.Version, w.Profile, w.Type, nil}
	}
	var have []string
	for _, e := range p.Images {
		if e.Type == w.Type {
			return e, nil
		}
		have = append(have, printable(e.Type))
	}
	slices.Sort(have)
	return entry{}, &MissingError{w.Version, w.Profile, w.Type, slices.Compact(have)}
}

// Get fetches an image and checks it, or takes it from the cache. tell may be nil.
func (s *Source) Get(ctx context.Context, w Want, tell func(Progress)) (File, error) {
	o, err := s.Find(ctx, w)
	if err != nil {
		return File{}, err
	}
	return s.Fetch(ctx, o, tell)
}

// Fetch is Get for what was found before.
func (s *Source) Fetch(ctx context.Context, o Offer, tell func(Progress)) (File, error) {
	at, size, err := s.cache.download(ctx, s.place, targetDir(o.Version, o.Target)+"/"+o.Name, o.SHA256, o.Size, tell)
	if err != nil {
		return File{}, err
	}
	return File{Path: at, Name: path.Base(o.Name), Version: o.Version, Profile: o.Profile, Type: o.Type, SHA256: o.SHA256, Size: size, Signed: o.Signed}, nil
}

// Recognise finds the release that a file is of by its SHA-256 in hex: the name in
// that release's signed list, and who signed it. An empty name means that none of
// these releases lists it. Releases that a source does not have are passed over.
func (s *Source) Recognise(ctx context.Context, sha, target string, versions []string) (version, name string, by Signature, err error) {
	for _, v := range versions {
		t, err := s.Target(ctx, v, target)
		var missing *MissingError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return "", "", Signature{}, err
		}
		for n, x := range t.Sums {
			if x == sha {
				return v, path.Base(n), t.Signed, nil
			}
		}
	}
	return "", "", Signature{}, nil
}
