package firmware

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A cache keeps files on this computer. Two runs of the program may use it at
// once: every run writes a file of its own beside the others' and gives it its
// name when it is whole and checked.
type cache struct{ dir string }

func (c cache) path(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

// stale is after how long without a change an unfinished file belongs to nobody.
const stale = 10 * time.Minute

// sum is the SHA-256 of a file, "" when it cannot be read.
func sum(path string) (sha string, size int64) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return "", 0
	}
	return hex.EncodeToString(h.Sum(nil)), n
}

// write puts a small file in its place, complete or not at all.
func (c cache) write(name string, data []byte) error {
	at := c.path(name)
	return replace(at, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// replace makes a file as a whole: written beside, pushed to the disk, renamed.
func replace(at string, fill func(*os.File) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return diskError(at, 0, err)
	}
	f, err := os.CreateTemp(filepath.Dir(at), "."+filepath.Base(at)+".*.new")
	if err != nil {
		return diskError(at, 0, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), at)
	}
	return diskError(at, 0, err)
}

func diskError(at string, need int64, err error) error {
	var have *DiskError
	if err == nil || errors.As(err, &have) {
		return err
	}
	return &DiskError{Path: at, Need: need, Full: isFull(err), Err: err}
}

func isFull(err error) bool {
	const windowsFull, windowsHandleFull = syscall.Errno(112), syscall.Errno(39) // ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG) || os.PathSeparator == '\\' && (errors.Is(err, windowsFull) || errors.Is(err, windowsHandleFull))
}

// A partial is a file under way, of this run alone.
type partial struct {
	*os.File
	at     string // where it belongs
	prefix string // what unfinished files of the same content are called
	tag    string // the server's name for the version of the file
	sum    hash.Hash
	size   int64
	copied string // the unfinished file it began with
}

// begin starts a file, with what an earlier run has left of it. Only a copy is
// used: whoever still writes to the other cannot spoil ours.
func (c cache) begin(name, sha string) (*partial, error) {
	at := c.path(name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return nil, diskError(at, 0, err)
	}
	p := &partial{at: at, prefix: "." + filepath.Base(at) + "." + sha[:8] + ".", sum: sha256.New()}
	old := p.leftover()
	f, err := os.CreateTemp(filepath.Dir(at), p.prefix+"*.part")
	if err != nil {
		return nil, diskError(at, 0, err)
	}
	p.File = f
	if old == "" {
		return p, nil
	}
	if err := p.copyFrom(old); err != nil {
		p.Close()
		os.Remove(f.Name())
		return nil, diskError(at, 0, err)
	}
	return p, nil
}

// leftover is the largest unfinished file of the same content that says which
// version of the server's file it is.
func (p *partial) leftover() string {
	best, size := "", int64(0)
	p.each(func(path string, info fs.FileInfo) {
		if _, err := os.Stat(path + ".tag"); err == nil && info.Size() > size {
			best, size = path, info.Size()
		}
	})
	return best
}

func (p *partial) each(do func(path string, info fs.FileInfo)) {
	list, err := os.ReadDir(filepath.Dir(p.at))
	if err != nil {
		return
	}
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), p.prefix) || !strings.HasSuffix(e.Name(), ".part") || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil {
			do(filepath.Join(filepath.Dir(p.at), e.Name()), info)
		}
	}
}

func (p *partial) copyFrom(old string) error {
	tag, err := os.ReadFile(old + ".tag")
	if err != nil {
		return nil // gone since; begin anew
	}
	f, err := os.Open(old)
	if err != nil {
		return nil
	}
	defer f.Close()
	// Not p itself: it would take over os.File's way past our Write.
	if _, err := io.Copy(struct{ io.Writer }{p}, f); err != nil {
		return err
	}
	p.copied = old
	return p.label(string(tag))
}

// label notes which version of the server's file the bytes are of.
func (p *partial) label(tag string) error {
	if tag == p.tag {
		return nil
	}
	p.tag = tag
	if tag == "" {
		return nil
	}
	return os.WriteFile(p.Name()+".tag", []byte(tag), 0o644)
}

func (p *partial) Write(b []byte) (int, error) {
	n, err := p.File.Write(b)
	p.sum.Write(b[:n])
	p.size += int64(n)
	return n, err
}

// restart throws away what is there.
func (p *partial) restart() error {
	p.sum.Reset()
	p.size = 0
	if _, err := p.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return p.Truncate(0)
}

func (p *partial) sha() string { return hex.EncodeToString(p.sum.Sum(nil)) }

// keep leaves the unfinished file for a later run, unless there is nothing worth
// it.
func (p *partial) keep() {
	p.Close()
	if p.size == 0 || p.tag == "" {
		p.drop(p.Name())
		return
	}
	p.dropOld() // what ours began with among them
}

// discard takes the unfinished file away.
func (p *partial) discard() {
	p.Close()
	p.drop(p.Name())
	if p.copied != "" {
		p.drop(p.copied) // the same bytes, found wrong
	}
}

func (p *partial) drop(path string) {
	os.Remove(path)
	os.Remove(path + ".tag")
}

// finish gives the whole and checked file its name, and takes away what others
// left of it.
func (p *partial) finish() error {
	err := p.Sync()
	if e := p.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(p.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(p.Name(), p.at)
	}
	if err != nil {
		p.drop(p.Name())
		// Another run has begun with our part, was faster, and took it away.
		if have, _ := sum(p.at); have == p.sha() {
			return nil
		}
		return diskError(p.at, p.size, err)
	}
	os.Remove(p.Name() + ".tag")
	if p.copied != "" {
		p.drop(p.copied)
	}
	p.dropOld()
	return nil
}

// dropOld takes away what nobody writes to any more.
func (p *partial) dropOld() {
	p.each(func(path string, info fs.FileInfo) {
		if path != p.Name() && time.Since(info.ModTime()) > stale {
			p.drop(path)
		}
	})
}

// A Progress is how far a file is.
type Progress struct {
	Name  string
	Done  int64
	Total int64   // 0 when not known
	Rate  float64 // bytes a second over the last seconds, 0 when not known
	// Kept is how many bytes were here from an earlier run.
	Kept int64
	// Waiting says what is waited for, "" while bytes come.
	Waiting string
}

// tell is never nil inside the package.
func orSilent(tell func(Progress)) func(Progress) {
	if tell == nil {
		return func(Progress) {}
	}
	return tell
}

// meter tells progress ten times a second, with the rate of the last few seconds.
type meter struct {
	tell func(Progress)
	p    Progress
	last time.Time
	seen []sample
}

type sample struct {
	at   time.Time
	done int64
}

const (
	meterEvery  = 100 * time.Millisecond
	meterWindow = 4 * time.Second
)

func (m *meter) at(done int64, force bool) {
	now := time.Now()
	m.p.Done = done
	if !force && now.Sub(m.last) < meterEvery {
		return
	}
	m.last = now
	m.seen = append(m.seen, sample{now, done})
	for len(m.seen) > 2 && now.Sub(m.seen[0].at) > meterWindow {
		m.seen = m.seen[1:]
	}
	if d := now.Sub(m.seen[0].at); d >= meterEvery {
		m.p.Rate = float64(done-m.seen[0].done) / d.Seconds()
	}
	m.tell(m.p)
}

func (m *meter) waiting(what string) {
	m.p.Waiting, m.p.Rate, m.seen = what, 0, nil
	m.tell(m.p)
	m.p.Waiting = ""
}

// download fetches a file into the cache and checks it. A file that is there and
// right is not fetched again. Errors: *FetchError, *TrustError, *DiskError, the
// context's.
func (c cache) download(ctx context.Context, from place, name, sha string, size int64, tell func(Progress)) (string, int64, error) {
	at := c.path(name)
	if have, n := sum(at); have == sha {
		return at, n, nil
	}
	p, err := c.begin(name, sha)
	if err != nil {
		return "", 0, err
	}
	d := &transfer{place: from, name: name, sha: sha, p: p, meter: meter{tell: orSilent(tell), p: Progress{Name: filepath.Base(at), Total: size, Kept: p.size}}}
	if err := d.run(ctx, size); err != nil {
		var doubt *TrustError
		var page *FetchError
		if errors.As(err, &doubt) || errors.As(err, &page) && page.Trouble == WebPage {
			p.discard()
		} else {
			p.keep()
		}
		return "", 0, err
	}
	return at, p.size, p.finish()
}

// A transfer is one download under way.
type transfer struct {
	place place
	name  string
	sha   string
	p     *partial
	meter meter
}

// run fetches until the file is whole. What came with a broken connection is
// continued; what continues wrongly is fetched once more from the beginning.
func (d *transfer) run(ctx context.Context, size int64) error {
	resumed := d.p.size > 0
	for idle := 0; ; {
		before := d.p.size
		err := d.once(ctx, size)
		if err == nil {
			if d.p.sha() == d.sha {
				d.meter.at(d.p.size, true)
				return nil
			}
			if !resumed {
				return d.damaged()
			}
			resumed = false
			if err := d.p.restart(); err != nil {
				return diskError(d.p.at, size, err)
			}
			continue
		}
		var e *FetchError
		if !errors.As(err, &e) || e.Trouble != Lost && e.Trouble != Stalled {
			return err
		}
		if d.p.size > before {
			idle, resumed = 0, true
		}
		if idle >= len(limits.again) {
			return err
		}
		d.meter.waiting("the connection broke; asking for the rest")
		if err := pause(ctx, limits.again[idle]); err != nil {
			return err
		}
		idle++
	}
}

// damaged says what is wrong with a file that came whole.
func (d *transfer) damaged() error {
	if d.p.size < 1<<20 {
		b := make([]byte, d.p.size)
		if _, err := d.p.ReadAt(b, 0); err == nil && isPage(b) {
			return &FetchError{URL: d.place.where(d.name), Trouble: WebPage, Detail: title(b[:min(len(b), 4096)])}
		}
	}
	return &TrustError{Name: filepath.Base(d.p.at), Doubt: Damaged, Detail: "sha256 is " + d.p.sha() + ", the signed list says " + d.sha}
}

// maxFile is more than any image or package has.
const maxFile = 1 << 30

// once asks for what is missing and writes what comes.
func (d *transfer) once(ctx context.Context, size int64) error {
	ctx, watch := newWatch(ctx)
	defer watch.stop()
	if _, local := d.place.(folder); local && d.p.size > 0 {
		if err := d.p.restart(); err != nil { // a folder has no versions to tell apart, and copying is quick
			return diskError(d.p.at, size, err)
		}
	}
	o, err := d.place.open(ctx, d.name, d.p.size, d.p.tag)
	var bad *FetchError
	if errors.As(err, &bad) && bad.Status == 416 && d.p.size > 0 {
		// Nothing behind what we have: another version, or a leftover that is too long.
		if err := d.p.restart(); err != nil {
			return diskError(d.p.at, size, err)
		}
		o, err = d.place.open(ctx, d.name, 0, "")
	}
	if err != nil {
		return err
	}
	defer o.Close()
	if o.from != d.p.size {
		if o.from != 0 {
			return &FetchError{URL: d.place.where(d.name), Trouble: Status, Status: 206, Err: errors.New("another part than the one asked for")}
		}
		if err := d.p.restart(); err != nil {
			return diskError(d.p.at, size, err)
		}
		d.meter.p.Kept = 0
	}
	if err := d.p.label(o.tag); err != nil {
		return diskError(d.p.at, size, err)
	}
	limit := int64(maxFile)
	if size > 0 {
		limit = size
	}
	if o.size > limit && size > 0 || o.size > maxFile {
		return &TrustError{Name: filepath.Base(d.p.at), Doubt: Damaged, Detail: "it is larger than the list says"}
	}
	if o.size > 0 {
		d.meter.p.Total = o.size
	}
	return d.copy(ctx, watch.reader(o), o.size, limit)
}

func (d *transfer) copy(ctx context.Context, r io.Reader, whole, limit int64) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if d.p.size+int64(n) > limit {
			return &TrustError{Name: filepath.Base(d.p.at), Doubt: Damaged, Detail: "it is larger than the list says"}
		}
		if n > 0 {
			if _, err := d.p.Write(buf[:n]); err != nil {
				return diskError(d.p.at, max(whole, 0), err)
			}
			d.meter.at(d.p.size, false)
		}
		switch {
		case err == io.EOF && whole >= 0 && d.p.size < whole:
			return &FetchError{URL: d.place.where(d.name), Trouble: Lost, Err: io.ErrUnexpectedEOF}
		case err == io.EOF:
			return nil
		case err != nil:
			return readError(ctx, d.place.where(d.name), err)
		}
	}
}
