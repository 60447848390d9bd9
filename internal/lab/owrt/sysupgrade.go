package owrt

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
	"github.com/heimweg/heimweg/internal/router"
)

// firmware is what the firmware partition holds.
type firmware struct {
	line     router.Line
	version  string
	packages []string // inside, beside the default ones
}

// Image is what sysupgrade reads out of an image's metadata (facts eva.md 4.5).
type Image struct {
	Boards  []string // that the image is for
	Compat  string   // version of the settings' format: "1.1"
	Message string   // what its maker says about that
	Version string   // "24.10.7"
	Line    router.Line
	// Packages inside, beside the default ones. No real image says so; those that
	// the lab makes name them as lab_packages in their metadata.
	Packages []string
}

// ParseImage reads the metadata of an image as fwtool does. Its checksum covers
// the whole file, so a damaged file has none.
func ParseImage(image []byte) (Image, error) {
	text, err := fwtoolInfo(image)
	if err != nil {
		return Image{}, err
	}
	var m struct {
		Compat    string   `json:"compat_version"`
		Message   string   `json:"compat_message"`
		Supported []string `json:"supported_devices"`
		New       []string `json:"new_supported_devices"`
		Packages  []string `json:"lab_packages"`
		Version   struct{ Version string }
	}
	if err := json.Unmarshal(text, &m); err != nil {
		//lint:ignore ST1005 sysupgrade words it so
		return Image{}, errors.New("Invalid image metadata")
	}
	i := Image{Boards: m.Supported, Compat: m.Compat, Message: m.Message, Version: m.Version.Version, Packages: m.Packages}
	if i.Compat == "" {
		i.Compat = "1.0"
	}
	if i.Compat != "1.0" { // the other list holds a sentence that keeps old systems away
		i.Boards = m.New
	}
	i.Line, _ = router.ParseLine(i.Version)
	return i, nil
}

var errNoMetadata = errors.New("Image metadata not present")

// fwtoolInfo walks the chunks at the end of an image backwards (openwrt/fwtool):
// a trailer of 16 bytes, big endian, with a CRC-32 that is not inverted at the end.
func fwtoolInfo(image []byte) ([]byte, error) {
	for len(image) >= 16 {
		t := image[len(image)-16:]
		size := int(binary.BigEndian.Uint32(t[12:]))
		if string(t[:4]) != "FWx0" || size < 16 || size > len(image) {
			break
		}
		data := image[len(image)-size : len(image)-16]
		if ^crc32.ChecksumIEEE(image[:len(image)-16]) != binary.BigEndian.Uint32(t[4:]) {
			break
		}
		if t[8] == 1 && len(data) >= 8 {
			return data[8:], nil
		}
		image = image[:len(image)-size]
	}
	return nil, errNoMetadata
}

// upgrade is one call of sysupgrade.
type upgrade struct {
	s               *system
	p               *ash.Proc
	keep            bool // settings
	force, test     bool
	list, quiet     bool
	installed       bool // -k
	anyMinor        bool
	backup, restore string
	conf, image     string
}

// sysupgradeProgram is sysupgrade as in 21.02 to 25.12 (OpenWrt
// package/base-files/files/sbin/sysupgrade and lib/upgrade; facts eva.md 4.5 and
// openwrt.md 8). -c, -i, -o and -p are not emulated.
func (s *system) sysupgradeProgram(p *ash.Proc, args []string) int {
	u := &upgrade{s: s, p: p, keep: true}
	for a := args[1:]; len(a) > 0; a = a[1:] {
		word := func(to *string) {
			if len(a) > 1 {
				*to, a = a[1], a[1:]
			}
		}
		switch o := a[0]; o {
		case "-n":
			u.keep = false
		case "-F", "--force":
			u.force = true
		case "-T", "--test":
			u.test = true
		case "-q":
			u.quiet = true
		case "-v", "-u":
		case "-k":
			u.installed = true
		case "-l", "--list-backup":
			u.list = true
		case "-b", "--create-backup":
			word(&u.backup)
		case "-r", "--restore-backup":
			word(&u.restore)
		case "-f":
			word(&u.conf)
		case "--ignore-minor-compat-version":
			u.anyMinor = true
		case "-c", "-i", "-o", "-p":
			s.b.noteUnknown("sysupgrade " + o)
			return 1
		default:
			if strings.HasPrefix(o, "-") {
				u.v("Invalid option: %s", o)
				return 1
			}
			u.image = o
		}
	}
	switch {
	case u.list:
		fmt.Fprint(p.Stdout(), strings.Join(u.conffiles(), "\n")+"\n")
		return 0
	case u.backup != "":
		return u.makeBackup()
	case u.restore != "":
		return p.Run(ash.Spawn{Args: []string{"tar", "-C", "/", "-xzf", u.restore}})
	case u.image == "":
		fmt.Fprintln(p.Stdout(), "Usage: sysupgrade [<upgrade-option>...] <image file or URL>")
		return 1
	}
	return u.run()
}

// v says something with the date in front, on standard error.
func (u *upgrade) v(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !u.quiet {
		fmt.Fprintf(u.p.Stderr(), "%s upgrade: %s\n", time.Now().UTC().Format("Mon Jan _2 15:04:05 UTC 2006"), text)
	}
	u.s.b.logf("user.info upgrade", "%s", text)
}

// conffiles lists what is kept: the files that /etc/sysupgrade.conf and the
// packages' keep lists name.
func (u *upgrade) conffiles() []string {
	f := u.s.fs
	lists := []string{"/etc/sysupgrade.conf"}
	keep, _ := f.ReadDir("/lib/upgrade/keep.d")
	for _, e := range keep {
		lists = append(lists, "/lib/upgrade/keep.d/"+e.Base)
	}
	seen := map[string]bool{}
	for _, l := range lists {
		text, _ := f.ReadFile(l)
		for _, line := range strings.Split(string(text), "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				findFiles(f, line, seen)
			}
		}
	}
	var out []string
	for n := range seen {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// findFiles is `find NAME -type f -o -type l`; NAME may hold wildcards.
func findFiles(f *boxfs.FS, name string, seen map[string]bool) {
	if dir, last := path.Split(path.Clean(name)); strings.ContainsAny(last, "*?[") {
		list, _ := f.ReadDir(dir)
		for _, e := range list {
			if ash.Match(last, e.Base) {
				findFiles(f, path.Join(dir, e.Base), seen)
			}
		}
		return
	}
	st, err := f.Lstat(name)
	switch {
	case err != nil:
	case st.IsDir():
		list, _ := f.ReadDir(name)
		for _, e := range list {
			findFiles(f, path.Join(name, e.Base), seen)
		}
	default:
		seen[path.Clean(name)] = true
	}
}

// settings makes the archive of what is kept.
func (u *upgrade) settings() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	put := func(name string, mode int64, data []byte) {
		w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: mode, Size: int64(len(data)), ModTime: time.Now().Truncate(time.Second), Format: tar.FormatUSTAR})
		w.Write(data)
	}
	for _, n := range u.conffiles() {
		st, err := u.s.fs.Lstat(n)
		if err != nil {
			continue
		}
		if st.FileMode&fs.ModeSymlink != 0 {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: strings.TrimPrefix(n, "/"), Linkname: st.Target, Mode: 0o777, Format: tar.FormatUSTAR})
			continue
		}
		data, _ := u.s.fs.ReadFile(n)
		put(n, int64(st.FileMode.Perm()), data)
	}
	if u.installed {
		put("/etc/backup/installed_packages.txt", 0o644, []byte(u.s.pkg.origins()))
	}
	// From 24.10 on services that are disabled stay so (base-files, sysupgrade:
	// 10_disable_services).
	if off := u.disabled(); u.s.line.AtLeast(router.Line2410) && off != "" {
		put("/etc/uci-defaults/10_disable_services", 0o644, []byte(off))
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

func (u *upgrade) disabled() string {
	var b strings.Builder
	list, _ := u.s.fs.ReadDir("/etc/init.d")
	for _, e := range list {
		svc, known := services[e.Base]
		if !known {
			continue
		}
		if _, err := u.s.fs.Lstat(fmt.Sprintf("/etc/rc.d/S%02d%s", svc.start, e.Base)); err != nil {
			fmt.Fprintf(&b, "/etc/init.d/%s disable\n", e.Base)
		}
	}
	return b.String()
}

func (u *upgrade) makeBackup() int {
	if u.backup == "-" {
		u.p.Stdout().Write(u.settings())
		return 0
	}
	u.v("Saving config files...")
	if err := u.s.fs.WriteFile(u.p.Path(u.backup), u.settings(), 0o600); err != nil {
		u.p.Check()
		u.v("Failed to create the configuration backup.")
		return 1
	}
	return 0
}

// run validates and, unless it is a test, upgrades.
func (u *upgrade) run() int {
	image, err := u.s.fs.ReadFile(u.p.Path(u.image))
	if err != nil {
		fmt.Fprintf(u.p.Stderr(), "Image file '%s' not found.\n", u.image)
		return 1
	}
	meta, ok := u.valid(image)
	if !ok && !u.force {
		fmt.Fprintln(u.p.Stderr(), "Image check failed.")
		return 1
	}
	var settings []byte
	if u.conf != "" {
		if settings, err = u.s.fs.ReadFile(u.p.Path(u.conf)); err != nil || !bytes.HasPrefix(settings, []byte{0x1f, 0x8b}) {
			fmt.Fprintln(u.p.Stderr(), "Invalid config file. Please use only .tar.gz files")
			return 1
		}
	} else if u.keep && u.s.b.opt.RAM {
		u.v("Cannot save config while running from ramdisk.")
	} else if u.keep && !u.test {
		u.v("Saving config files...")
		settings = u.settings()
		if err := u.s.fs.WriteFile("/tmp/sysupgrade.tgz", settings, 0o600); err != nil {
			u.p.Check()
			u.v("Failed to create the configuration backup.")
			return 1
		}
	}
	if u.test {
		return 0
	}
	u.v("Commencing upgrade. Closing all shell sessions.")
	u.s.b.wg.Add(1)
	go func() {
		defer u.s.b.wg.Done()
		u.s.b.write(u.s, image, meta, settings)
	}()
	u.p.Sleep(time.Hour) // procd ends it with everything else
	return 0
}

// valid is fwtool_check_image.
func (u *upgrade) valid(image []byte) (Image, bool) {
	m, err := ParseImage(image)
	if err != nil {
		u.v("%s", err)
		u.v("Use sysupgrade -F to override this check when downgrading or flashing to vendor firmware")
		return m, false
	}
	board := u.s.b.opt.Board
	if !slices.Contains(m.Boards, board) {
		u.v("Device %s not supported by this image", board)
		u.v("Supported devices: %s", strings.Join(m.Boards, " "))
		return m, false
	}
	have := "1.0"
	if doc := u.s.config("system"); doc != nil {
		if list := doc.OfType("system"); len(list) > 0 {
			if v, ok := list[0].Get("compat_version"); ok {
				have = v
			}
		}
	}
	major := func(v string) string { a, _, _ := strings.Cut(v, "."); return a }
	switch {
	case major(have) != major(m.Compat):
		u.v("The device is supported, but this image is incompatible for sysupgrade based on the image version (%s->%s).", have, m.Compat)
	case have != m.Compat && u.keep && !u.anyMinor:
		u.v("The device is supported, but the config is incompatible to the new image (%s->%s). Please upgrade without keeping config (sysupgrade -n).", have, m.Compat)
	default:
		return m, true
	}
	if m.Message != "" {
		u.v("%s", m.Message)
	}
	return m, false
}

// write is the second stage: everything of the old life ends, the partition is
// written, the settings are put behind it, and the box starts again. The hook
// sees each part; a power cut in the middle leaves a partition that does not
// start. A system in RAM leaves it all to the case.
func (b *Box) write(s *system, image []byte, m Image, settings []byte) {
	b.mu.Lock()
	if !b.on || b.sys != s {
		b.mu.Unlock()
		return
	}
	power := b.power
	b.mu.Unlock()
	s.k.Halt()
	b.CutConnections()
	// Programs are ended some seconds before the network goes (lib/upgrade/stage2), so
	// that the other ends are told.
	told := time.NewTimer(50 * time.Millisecond)
	defer told.Stop()
	select {
	case <-power:
		return
	case <-told.C:
	}
	s.halt()
	if b.stack != nil {
		b.stack.PowerOff()
	}
	alive := func() bool {
		select {
		case <-power:
			return false
		default:
			return true
		}
	}
	step := func(part string) bool {
		b.carry(b.ask(Event{Kind: Flashing, Path: part}))
		return alive()
	}
	if !step("firmware") {
		return
	}
	b.setBroken(true)
	if b.opt.Flashed != nil {
		if err := b.opt.Flashed(image); err != nil {
			b.logf("user.err upgrade", "%v", err)
			return
		}
	}
	t := time.NewTimer(b.opt.FlashTime)
	defer t.Stop()
	select {
	case <-power:
		return
	case <-t.C:
	}
	if !step("half of firmware") {
		return
	}
	if b.opt.RAM {
		b.setBroken(false)
		b.Reboot()
		return
	}
	if b.opt.Inside != nil {
		m.Packages = append(m.Packages, b.opt.Inside(image)...)
	}
	next := b.afterwards(m)
	b.replace(next)
	if !step("settings") { // the image is whole, and what was to be kept is lost
		return
	}
	if settings != nil {
		next.WriteFile("/sysupgrade.tgz", settings, 0o600)
		next.Sync()
	}
	b.Reboot()
}

func (b *Box) setBroken(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = on
}

// Broken reports whether the firmware partition holds half an image: only the
// boot loader can help.
func (b *Box) Broken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

// afterwards makes the file system that the new image has.
func (b *Box) afterwards(m Image) *boxfs.FS {
	if m.Version == "" { // forced upon the box: it goes on as it was
		m.Line, m.Version = b.Line(), b.Version()
	}
	b.fw.Store(&firmware{line: m.Line, version: m.Version, packages: m.Packages})
	f := boxfs.New(b.opt.Flash)
	b.image(f)
	f.Rom()
	return f
}

func (b *Box) replace(f *boxfs.FS) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on { // still the old life's; it is halted and writes nothing any more
		b.fs.PowerCut(b.rng)
	}
	b.fs, b.broken = f, false
}

// restoreSettings is what preinit does with the archive behind the image
// (base-files, lib/preinit/80_mount_root). It stays until the boot is done, and
// a power cut before that has it unpacked once more, over what was written since.
func (s *system) restoreSettings() {
	data, err := s.fs.ReadFile("/sysupgrade.tgz")
	if err != nil {
		return
	}
	rom := map[string]string{}
	for _, n := range []string{"passwd", "group", "shadow"} {
		text, _ := s.fs.ReadFile("/etc/" + n)
		rom[n] = string(text)
	}
	if err := unpackSettings(s.fs, data); err != nil {
		s.b.logf("user.err preinit", "config restore: %v", err)
	}
	for n, old := range rom { // users of the new release stay
		text, _ := s.fs.ReadFile("/etc/" + n)
		s.fs.WriteFile("/etc/"+n, []byte(string(text)+missingLines(old, string(text))), 0o600)
	}
	s.b.logf("user.info preinit", "- config restore -")
	s.fs.Sync()
}

func missingLines(old, now string) string {
	var b strings.Builder
	for _, l := range strings.Split(strings.TrimSuffix(old, "\n"), "\n") {
		user, _, _ := strings.Cut(l, ":")
		if user != "" && !strings.HasPrefix(now, user+":") && !strings.Contains(now, "\n"+user+":") {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

func unpackSettings(f *boxfs.FS, data []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)
		f.MkdirAll(path.Dir(name), 0o755)
		switch h.Typeflag {
		case tar.TypeReg:
			text, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			f.WriteFile(name, text, 0o644)
			f.Chmod(name, fs.FileMode(h.Mode).Perm())
		case tar.TypeDir:
			f.MkdirAll(name, fs.FileMode(h.Mode).Perm())
		case tar.TypeSymlink:
			f.Remove(name)
			f.Symlink(h.Linkname, name)
		}
	}
}

// compat is the version of the settings' format: ipq40xx changed from swconfig to
// DSA with 23.05 (facts eva.md 4.5).
func (b *Box) compat() string {
	if b.target() == "ipq40xx/generic" && b.Line().AtLeast(router.Line2305) {
		return "1.1"
	}
	return "1.0"
}

// WithPackages is the image with metadata that names packages inside it. A
// signature that stood behind its metadata is dropped.
func WithPackages(image []byte, names ...string) []byte {
	info, err := fwtoolInfo(image)
	if err != nil {
		panic("owrt: " + err.Error())
	}
	var m map[string]any
	if err := json.Unmarshal(info, &m); err != nil {
		panic("owrt: " + err.Error())
	}
	m["lab_packages"] = names
	text, _ := json.Marshal(m)
	body := image[:bytes.Index(image, info)-8]
	out := append(append(slices.Clone(body), make([]byte, 8)...), text...)
	t := make([]byte, 16)
	copy(t, "FWx0")
	binary.BigEndian.PutUint32(t[4:], ^crc32.ChecksumIEEE(out))
	t[8] = 1
	binary.BigEndian.PutUint32(t[12:], uint32(8+len(text)+16))
	return append(out, t...)
}
