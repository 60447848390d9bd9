package firmware

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// OfficialBuilder is OpenWrt's attended sysupgrade server.
const OfficialBuilder = "https://sysupgrade.openwrt.org"

// BuilderOptions say which image builder is asked.
type BuilderOptions struct {
	From      string            // "" is OfficialBuilder; https, or http for a server of one's own
	Transport http.RoundTripper // nil is the real one
	Cache     string
	Agent     string // "heimweg/0.1.0"
	// Within is how long a build may take in all; 0 is 15 minutes. The server's own
	// limit for one job is 10 (facts eva.md 5.3).
	Within time.Duration
}

// A Builder makes images with packages inside (facts eva.md 5.3).
type Builder struct {
	web    *web
	cache  cache
	within time.Duration
}

// pollEvery is how often the builder wants to be asked (facts eva.md 5.3).
const pollEvery = 5 * time.Second

// NewBuilder makes a Builder; nothing is asked yet.
func NewBuilder(o BuilderOptions) (*Builder, error) {
	if o.From == "" {
		o.From = OfficialBuilder
	}
	w, err := newWeb(o.From, o.Transport, o.Agent)
	if err != nil {
		return nil, err
	}
	if o.Within == 0 {
		o.Within = 15 * time.Minute
	}
	return &Builder{web: w, cache: cache{o.Cache}, within: o.Within}, nil
}

// A Building is how far a build is.
type Building struct {
	State    string // "queued", "started", or the builder's own word
	Position int    // in the queue, 0 when it is not waiting
}

// buildRequest is all that the builder is told. There is no field for a first-boot
// script on purpose: images are kept on that server for days.
type buildRequest struct {
	Distro       string   `json:"distro"`
	Version      string   `json:"version"`
	Target       string   `json:"target"`
	Profile      string   `json:"profile"`
	Packages     []string `json:"packages"`
	DiffPackages bool     `json:"diff_packages"` // false: added to the default ones
	Client       string   `json:"client"`
}

type buildAnswer struct {
	Detail   json.RawMessage   `json:"detail"`
	Stderr   string            `json:"stderr"`
	Hash     string            `json:"request_hash"`
	Position int               `json:"queue_position"`
	State    string            `json:"imagebuilder_status"`
	BinDir   string            `json:"bin_dir"`
	Version  string            `json:"version_number"`
	Images   []entry           `json:"images"`
	Manifest map[string]string `json:"manifest"`
}

var (
	hashPattern    = regexp.MustCompile(`^[0-9a-zA-Z]{8,128}$`)
	packagePattern = regexp.MustCompile(`^[\w.,-]+$`)
)

// maxAnswer is the size of the largest answer: a manifest of a large image.
const maxAnswer = 4 << 20

// Build asks for an image with packages beside the default ones, waits, fetches it
// and compares it with the checksum in the builder's answer. Nobody signs an image
// for the boot loader that was built on request: the File says "tls".
//
// Errors: *BuildError, *FetchError, *MissingError when the result lacks the image,
// *TrustError. After any of them the plain image is the way on.
func (b *Builder) Build(ctx context.Context, w Want, packages []string, building func(Building), tell func(Progress)) (File, error) {
	if !versionPattern.MatchString(w.Version) {
		return File{}, &MissingError{Version: printable(w.Version)}
	}
	for _, p := range packages {
		if !packagePattern.MatchString(p) {
			return File{}, &BuildError{Status: 400, Detail: fmt.Sprintf("%q is no name of a package", printable(p))}
		}
	}
	if building == nil {
		building = func(Building) {}
	}
	a, err := b.wait(ctx, w, packages, building)
	if err != nil {
		return File{}, err
	}
	e, err := a.image(w)
	if err != nil {
		return File{}, err
	}
	for _, p := range packages {
		if a.Manifest[p] == "" && len(a.Manifest) > 0 {
			return File{}, &BuildError{Status: 200, Detail: "its image lacks " + p}
		}
	}
	from := store{b.web, a.BinDir}
	at, size, err := b.cache.download(ctx, from, "built/"+a.Hash+"/"+e.Name, strings.ToLower(e.SHA256), e.Size, tell)
	if err != nil {
		return File{}, err
	}
	return File{Path: at, Name: e.Name, Version: w.Version, Profile: w.Profile, Type: w.Type, SHA256: strings.ToLower(e.SHA256), Size: size,
		Signed: Signature{Method: b.web.method(), By: b.web.by()}, Packages: slices.Clone(packages)}, nil
}

// store is where results lie: the cache's name leads to another path there.
type store struct {
	*web
	dir string
}

func (s store) open(ctx context.Context, name string, from int64, tag string) (*opened, error) {
	return s.web.open(ctx, s.name(name), from, tag)
}

func (s store) where(name string) string { return s.web.where(s.name(name)) }

func (s store) name(name string) string {
	return "store/" + s.dir + "/" + name[strings.LastIndexByte(name, '/')+1:]
}

// image picks the image out of a finished build.
func (a *buildAnswer) image(w Want) (entry, error) {
	if !safePath(a.BinDir) {
		return entry{}, &ListError{"the image builder's answer", "it does not say where the images are"}
	}
	if a.Version != "" && a.Version != w.Version {
		return entry{}, &TrustError{Name: "the built image", Doubt: WrongRelease, Detail: "it is " + printable(a.Version)}
	}
	var have []string
	for _, e := range a.Images {
		if !safeName(e.Name) || !isSHA256(e.SHA256) {
			return entry{}, &ListError{"the image builder's answer", "an image has no name or checksum that makes sense"}
		}
		if e.Type == w.Type {
			return e, nil
		}
		have = append(have, printable(e.Type))
	}
	return entry{}, &MissingError{w.Version, w.Profile, w.Type, have}
}

// wait asks for the build and then how far it is, until it has ended.
func (b *Builder) wait(ctx context.Context, w Want, packages []string, building func(Building)) (*buildAnswer, error) {
	body, err := json.Marshal(buildRequest{"openwrt", w.Version, w.Target, w.Profile, packages, false, b.web.agent})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.within, &BuildError{Waited: b.within.String()})
	defer cancel()
	a, status, err := b.ask(ctx, http.MethodPost, "api/v1/build", body)
	for lost := 0; ; {
		switch {
		case err != nil:
			// A poll may get lost; the build goes on meanwhile.
			if lost++; a == nil || lost > 3 || ctx.Err() != nil {
				return nil, err
			}
		case status == http.StatusOK && hashPattern.MatchString(a.Hash):
			return a, nil
		case status != http.StatusAccepted || !hashPattern.MatchString(a.Hash):
			return nil, &BuildError{Status: status, Detail: a.text()}
		default:
			lost = 0
			building(Building{State: a.state(), Position: a.Position})
		}
		if err := pause(ctx, pollEvery); err != nil {
			return nil, err
		}
		var next *buildAnswer
		if next, status, err = b.ask(ctx, http.MethodGet, "api/v1/build/"+a.Hash, nil); err == nil {
			if next.Hash == "" {
				next.Hash = a.Hash
			}
			a = next
		}
	}
}

func (a *buildAnswer) state() string {
	if a.State != "" {
		return printable(a.State)
	}
	return a.text()
}

// text is the builder's own sentence; for a request that it does not understand it
// is a list.
func (a *buildAnswer) text() string {
	var s string
	if json.Unmarshal(a.Detail, &s) != nil {
		s = string(a.Detail)
	}
	return printable(strings.Join(strings.Fields(s), " "))
}

func (b *Builder) ask(ctx context.Context, method, name string, body []byte) (*buildAnswer, int, error) {
	ctx, watch := newWatch(ctx)
	defer watch.stop()
	at := b.web.where(name)
	r, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return nil, 0, &FetchError{URL: at, Trouble: Unreachable, Err: err}
	}
	r.Header.Set("User-Agent", b.web.agent)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := b.web.client.Do(r)
	if err != nil {
		return nil, 0, connectError(ctx, at, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(watch.reader(resp.Body), maxAnswer+1))
	switch {
	case err != nil:
		return nil, 0, readError(ctx, at, err)
	case len(text) > maxAnswer:
		return nil, 0, &FetchError{URL: at, Trouble: TooLarge}
	case isPage(text):
		return nil, 0, &FetchError{URL: at, Trouble: WebPage, Status: resp.StatusCode, Detail: title(text[:min(len(text), 4096)])}
	}
	a := new(buildAnswer)
	if err := json.Unmarshal(text, a); err != nil {
		if resp.StatusCode < 400 {
			return nil, 0, &ListError{at, "it is not the JSON that it should be"}
		}
		return &buildAnswer{}, resp.StatusCode, nil
	}
	return a, resp.StatusCode, nil
}

// PlainInstead reports whether the plain image is the sensible way on after the
// builder failed, and why in a few words.
func PlainInstead(err error) (why string, ok bool) {
	var build *BuildError
	var fetch *FetchError
	var missing *MissingError
	var list *ListError
	switch {
	case errors.As(err, &build) && build.Status == 529:
		return "the image builder has too much to do", true
	case errors.As(err, &build):
		return build.Error(), true
	case errors.As(err, &fetch):
		return "the image builder: " + fetch.Error(), true
	case errors.As(err, &missing):
		return "the image builder made no image of this kind", true
	case errors.As(err, &list):
		return "the image builder's answer makes no sense", true
	}
	return "", false
}
