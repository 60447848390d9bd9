package mirror

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say what is served. The zero value serves everything.
type Options struct {
	// Releases in the order of .versions.json, the newest first. The default is
	// the last ones of 25.12, 24.10, 23.05 and 22.03 (facts openwrt.md 2).
	Releases []string
	// Seed changes all images.
	Seed uint64
	// Kernel and Root are the sizes of images' parts before compression, in bytes; 0
	// is imagetest's default.
	Kernel, Root int
	Builder      Builder
}

// A Mirror is one server. It may be used by several at once.
type Mirror struct {
	opt  Options
	keys keys

	mu       sync.Mutex
	releases []string
	files    map[string][]byte // what was made so far, by path; nil: no such file
	made     map[string]Made   // images by sha256
	faults   []*Fault
	requests []Request
	jobs     map[string]*job
	asked    []BuildRequest
}

// A Request is one that came in.
type Request struct {
	Method, Path string
	Range        string // the Range header, "" for the whole file
}

// Made says what an image is.
type Made struct {
	Version  string
	Profile  string
	Type     string   // "eva", "sysupgrade", "kernel", …
	Packages []string // added by the image builder
}

// New makes a mirror with keys of its own.
func New(o Options) *Mirror {
	if len(o.Releases) == 0 {
		o.Releases = []string{"25.12.5", "24.10.8", "23.05.6", "22.03.7"}
	}
	m := &Mirror{opt: o, releases: slices.Clone(o.Releases), files: map[string][]byte{}, made: map[string]Made{}, jobs: map[string]*job{}}
	m.keys = makeKeys()
	return m
}

// Announce changes which releases .versions.json names, as an outdated copy of the
// server would. The first is the stable one. Files of the others stay.
func (m *Mirror) Announce(releases ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releases = slices.Clone(releases)
}

// Requests are all requests so far.
func (m *Mirror) Requests() []Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.requests)
}

// Image is a release's image, nil when there is none: the profile as in file names
// ("avm_fritzbox-4040"), the type as in profiles.json. A U-Boot has the type
// "u-boot" and its own name as the profile: "fritz7520".
func (m *Mirror) Image(version, profile, typ string) []byte {
	p := m.ImagePath(version, profile, typ)
	if p == "" {
		return nil
	}
	b, _ := m.File(p)
	return b
}

// ImagePath is where that image lies, "" when there is none.
func (m *Mirror) ImagePath(version, profile, typ string) string {
	for _, t := range targetNames {
		for _, i := range imagesOf(version, t) {
			if i.profile == profile && i.typ == typ {
				return dir(version, t) + "/" + i.name
			}
		}
	}
	return ""
}

// Lookup says what an image is, by its bytes.
func (m *Mirror) Lookup(image []byte) (Made, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := sha256.Sum256(image)
	made, ok := m.made[hex.EncodeToString(sum[:])]
	return made, ok
}

// File is a file of the tree by its path without a leading slash.
func (m *Mirror) File(name string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.file(name)
}

func (m *Mirror) file(name string) ([]byte, bool) {
	switch name {
	case ".versions.json":
		return m.versions(), true
	case "json/v1/overview.json", "json/v1/latest.json":
		return m.builderOverview(name), true
	}
	if b, known := m.files[name]; known {
		return b, b != nil
	}
	b := m.make(name)
	m.files[name] = b
	return b, b != nil
}

// ServeHTTP answers one request.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	m.requests = append(m.requests, Request{r.Method, r.URL.Path, r.Header.Get("Range")})
	f := m.faultFor(name)
	m.mu.Unlock()
	if f != nil {
		if f.early(w, r) {
			return
		}
		w = &faulty{ResponseWriter: w, fault: f, request: r}
	}
	if strings.HasPrefix(name, "api/v1/") {
		m.serveBuilder(w, r, name)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "405 Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	b, ok := m.File(name)
	if !ok {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n</body>\r\n</html>\r\n")
		return
	}
	sum := sha256.Sum256(b)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	if f != nil {
		b = f.change(b)
	}
	http.ServeContent(w, r, "", released, strings.NewReader(string(b)))
}

// released is when all files were made: the day of OpenWrt 25.12.5 (facts
// openwrt.md 2).
var released = time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC)

// Serve answers on a listener until it is closed.
func (m *Mirror) Serve(l net.Listener) error {
	s := &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}
	return s.Serve(l)
}

// WriteTree writes the files of a release's target, with the lists that lead
// there and the feeds, below dir, as a USB stick would hold them.
func (m *Mirror) WriteTree(to, version, target string) error {
	names := []string{".versions.json", "releases/" + version + "/.targets.json", "releases/" + version + "/.overview.json"}
	for _, n := range []string{"profiles.json", "sha256sums", "sha256sums.sig", "sha256sums.asc"} {
		names = append(names, dir(version, target)+"/"+n)
	}
	for _, i := range imagesOf(version, target) {
		names = append(names, dir(version, target)+"/"+i.name)
	}
	names = append(names, feedFiles(version, target)...)
	for _, n := range names {
		b, ok := m.File(n)
		if !ok {
			return &fs.PathError{Op: "make", Path: n, Err: fs.ErrNotExist}
		}
		at := filepath.Join(to, filepath.FromSlash(n))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// line is the release line of a version: "24.10".
func line(version string) string {
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return version
	}
	return parts[0] + "." + parts[1]
}

// from reports whether a version is of that line or a later one.
func from(version, first string) bool { return cmp.Compare(line(version), first) >= 0 }

func dir(version, target string) string { return "releases/" + version + "/targets/" + target }

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
