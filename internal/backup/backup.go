// Package backup is what makes a gateway, as one value: the router's settings,
// the tunnel's and SSH's keys, the password's hash, which packages there are,
// what heimweg wrote, the household's home.toml, and what kind of box it all came
// from. It reads and writes the format of a backup file and fits what a backup
// holds to another box.
//
// It encrypts nothing (package seal does), touches no file and no router, and
// never shows what it holds: contents are hidden values.
//
// Background. OpenWrt makes backups itself: `sysupgrade -b` packs the files that
// its keep lists name into a tar.gz, without a word about the board, the release
// or the packages that were installed besides. Such archives are read, too; but
// put back blindly on another board or release they leave a box without network,
// because ports have other names there (facts: openwrt.md 8; openwrt#13743).
package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shadow"
	"github.com/heimweg/heimweg/internal/uci"
)

// Format is the number of the form. Another one is refused.
const Format = 1

// Bounds of what is read. A router's settings are some ten kilobytes; the rest is
// for what people put on their keep lists.
const (
	LargestFile  = 8 << 20
	LargestTotal = 32 << 20
	MostFiles    = 4096
)

// magic is the first line of a backup file, before its tar archive.
const magic = "heimweg backup 1\n"

// A Backup is one gateway at one time.
type Backup struct {
	Manifest
	// Home is home.toml, "" for none. It holds no secret.
	Home string
	// Files of the router, in the order of their names.
	Files []File
}

// A Manifest says where a backup comes from.
type Manifest struct {
	Format  int       `json:"format"`
	Made    time.Time `json:"made"`
	Program string    `json:"heimweg,omitempty"` // version that made it
	// Board is zero in an archive of the router's own.
	Board   router.Board `json:"board"`
	Address string       `json:"address,omitempty"` // where the router was
	// Packages were asked for by name, beyond what the image had inside.
	Packages []string `json:"packages,omitempty"`
	// Count is how many files follow: an archive that was cut off between two files
	// looks whole otherwise.
	Count int `json:"files"`
}

// A File is one file of the router. Its text is hidden.
type File struct {
	Name string // absolute: "/etc/config/network"
	Mode int64  // permission bits
	Link string // target of a symbolic link, else ""
	Text uci.Value
}

// An Error says why something is not a backup, or not whole.
type Error struct{ Why string }

func (e *Error) Error() string { return "not a backup: " + e.Why }

func bad(format string, args ...any) *Error { return &Error{fmt.Sprintf(format, args...)} }

// File finds a file by its name.
func (b Backup) File(name string) (File, bool) {
	i, ok := slices.BinarySearchFunc(b.Files, name, func(f File, n string) int { return strings.Compare(f.Name, n) })
	if !ok {
		return File{}, false
	}
	return b.Files[i], true
}

// Config is one of the router's configuration files; nil when it is not there or
// cannot be read.
func (b Backup) Config(name string) *uci.Document {
	f, ok := b.File("/etc/config/" + name)
	if !ok {
		return nil
	}
	d, err := uci.Parse(name, []byte(f.Text.Reveal()))
	if err != nil {
		return nil
	}
	return d
}

// Configs lists the names of the configuration files.
func (b Backup) Configs() []string {
	var out []string
	for _, f := range b.Files {
		if name, ok := strings.CutPrefix(f.Name, "/etc/config/"); ok && uci.ValidPackage(name) {
			out = append(out, name)
		}
	}
	return out
}

// Written is what heimweg wrote last on that router.
func (b Backup) Written() router.Written {
	var w router.Written
	if f, ok := b.File(writtenFile); ok {
		if json.Unmarshal([]byte(f.Text.Reveal()), &w) != nil {
			return router.Written{}
		}
	}
	return w
}

const writtenFile = "/etc/heimweg/written.json"

// RootHash is the field of root's password in /etc/shadow, hidden; empty for none.
func (b Backup) RootHash() uci.Value {
	f, _ := b.File("/etc/shadow")
	hash, _ := shadow.Field([]byte(f.Text.Reveal()), "root")
	return uci.Hidden(hash)
}

// Identity are the files by which people know a router again and get in: SSH host
// keys and the keys that may log in.
func (b Backup) Identity() []File {
	var out []File
	for _, f := range b.Files {
		if strings.HasPrefix(f.Name, "/etc/dropbear/") && f.Link == "" {
			out = append(out, f)
		}
	}
	return out
}

// Secrets are the tunnel's private key and the preshared keys of its peers by
// public key.
func (b Backup) Secrets(tunnel string) (private key.Private, ok bool, preshared map[key.Public]key.Preshared) {
	preshared = map[key.Public]key.Preshared{}
	d := b.Config("network")
	if d == nil {
		return private, false, preshared
	}
	if s, found := d.Section(tunnel); found {
		text, _ := s.Get("private_key")
		k, err := key.ParsePrivate(text)
		private, ok = k, err == nil
	}
	for _, s := range d.Sections() {
		if s.Type != "wireguard_"+tunnel && s.Type != router.ParkedType {
			continue
		}
		text, _ := s.Get("public_key")
		pub, err := key.ParsePublic(text)
		if err != nil {
			continue
		}
		if text, _ = s.Get("preshared_key"); text != "" {
			if psk, err := key.ParsePreshared(text); err == nil {
				preshared[pub] = psk
			}
		}
	}
	return private, ok, preshared
}

// Encode writes a backup; the result holds secrets in clear.
func Encode(b Backup) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(magic)
	w := tar.NewWriter(&out)
	put := func(h tar.Header, text []byte) error {
		h.Size, h.Format = int64(len(text)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(text)
		return err
	}
	b.Manifest.Format, b.Manifest.Count = Format, len(b.Files)
	manifest, err := json.Marshal(b.Manifest)
	err = errors.Join(err, put(tar.Header{Name: "manifest.json", Mode: 0o600}, manifest))
	if b.Home != "" {
		err = errors.Join(err, put(tar.Header{Name: "home.toml", Mode: 0o600}, []byte(b.Home)))
	}
	for _, f := range b.Files {
		h := tar.Header{Name: "router" + f.Name, Mode: f.Mode & 0o777}
		text := []byte(f.Text.Reveal())
		if f.Link != "" {
			h.Typeflag, h.Linkname, text = tar.TypeSymlink, f.Link, nil
		}
		err = errors.Join(err, put(h, text))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	// Nothing leaves that could not be read again.
	if _, err := Parse(out.Bytes()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Parse reads a backup, or an archive that `sysupgrade -b` made. It is strict:
// what it does not understand, what is too large, and what would lead out of its
// place is an *Error.
func Parse(data []byte) (Backup, error) {
	if rest, ok := bytes.CutPrefix(data, []byte(magic)); ok {
		return parseOwn(rest)
	}
	if bytes.HasPrefix(data, []byte("heimweg backup ")) {
		return Backup{}, bad("it is of a form that only a newer heimweg reads")
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		files, err := ParseArchive(data)
		if err != nil {
			return Backup{}, err
		}
		b := Backup{Files: files}
		if _, ok := b.File("/etc/config/network"); !ok {
			return Backup{}, bad("the archive holds no settings of an OpenWrt router")
		}
		b.Packages = installedBesides(b)
		return b, nil
	}
	return Backup{}, bad("it begins like neither heimweg's nor sysupgrade's")
}

// ParseArchive reads the files of a tar.gz as `sysupgrade -b` makes it.
func ParseArchive(data []byte) ([]File, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, bad("the archive is damaged")
	}
	var files []File
	err = walk(z, func(h *tar.Header, text string) error {
		name := path.Clean("/" + h.Name)
		f := File{Name: name, Mode: h.Mode & 0o777, Text: uci.Hidden(text)}
		switch h.Typeflag {
		case tar.TypeReg:
		case tar.TypeSymlink:
			f.Link = h.Linkname
		case tar.TypeDir:
			return nil
		default:
			return bad("%s is no ordinary file", name)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return sorted(files)
}

func parseOwn(data []byte) (Backup, error) {
	var b Backup
	seen := map[string]bool{}
	err := walk(bytes.NewReader(data), func(h *tar.Header, text string) error {
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeSymlink {
			return bad("%s is no ordinary file", h.Name)
		}
		name, isRouter := strings.CutPrefix(h.Name, "router/")
		if isRouter {
			b.Files = append(b.Files, File{Name: "/" + name, Mode: h.Mode & 0o777, Link: h.Linkname, Text: uci.Hidden(text)})
			return nil
		}
		if seen[h.Name] {
			return bad("it holds %s twice", h.Name)
		}
		seen[h.Name] = true
		switch h.Name {
		case "manifest.json":
			d := json.NewDecoder(strings.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&b.Manifest); err != nil {
				return bad("its manifest makes no sense")
			}
			return nil
		case "home.toml":
			b.Home = text
			return nil
		}
		return bad("it holds something that this heimweg does not know: %q", h.Name)
	})
	if err != nil {
		return Backup{}, err
	}
	if !seen["manifest.json"] || b.Format != Format {
		return Backup{}, bad("its manifest is missing, or of a form that only another heimweg reads")
	}
	if b.Count != len(b.Files) {
		return Backup{}, bad("it holds %d files of %d", len(b.Files), b.Count)
	}
	b.Board.Release.Line, _ = router.ParseLine(b.Board.Release.Version)
	b.Files, err = sorted(b.Files)
	return b, err
}

// walk gives every entry of a tar archive, within bounds.
func walk(r io.Reader, entry func(*tar.Header, string) error) error {
	left := &io.LimitedReader{R: r, N: LargestTotal}
	t := tar.NewReader(left)
	for n := 0; ; n++ {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && left.N > 0:
			return nil
		case left.N <= 0:
			return bad("it is larger than %d MB", LargestTotal>>20)
		case err != nil:
			return bad("the archive is damaged")
		case n >= MostFiles:
			return bad("it holds more than %d files", MostFiles)
		case h.Size > LargestFile:
			return bad("%q is larger than %d MB", h.Name, LargestFile>>20)
		}
		text, err := io.ReadAll(t)
		if err != nil {
			return bad("the archive is damaged")
		}
		if err := entry(h, string(text)); err != nil {
			return err
		}
	}
}

// sorted puts files in the order of their names and refuses what is there twice
// or has an impossible name.
func sorted(files []File) ([]File, error) {
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for i, f := range files {
		if f.Name != path.Clean(f.Name) || f.Name == "/" || strings.ContainsAny(f.Name, "\x00\n") {
			return nil, bad("%q is no name of a file", f.Name)
		}
		if i > 0 && files[i-1].Name == f.Name {
			return nil, bad("it holds %s twice", f.Name)
		}
	}
	return files, nil
}

// installedBesides reads what `sysupgrade -k -b` notes: name, tab, rom, overlay or
// unknown. What came along with others stands there, too; kernel modules always do.
func installedBesides(b Backup) []string {
	f, _ := b.File("/etc/backup/installed_packages.txt")
	var out []string
	for l := range strings.Lines(f.Text.Reveal()) {
		name, where, _ := strings.Cut(strings.TrimSpace(l), "\t")
		if where == "overlay" && !strings.HasPrefix(name, "kmod-") && !strings.HasPrefix(name, "lib") {
			out = append(out, name)
		}
	}
	return out
}
