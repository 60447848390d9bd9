// Package boxfs is the file system of an emulated home router: a tree in
// memory that knows what would survive a power cut.
//
// An OpenWrt router has a read-only image, a small writable flash over it (the
// overlay) and RAM for /tmp. Writes to flash sit in caches until somebody
// syncs. A program that renames a fresh file into place and trusts it is often
// right and sometimes left with an empty file; this package makes "sometimes"
// happen by seed. It never touches the files of the computer it runs on.
//
// What a power cut does: everything below a RAM mount is gone. Of the changes
// of names since the last sync a prefix has reached the flash (both jffs2 and
// ubifs write a log in order). Of every file whose content changed since the
// last sync the flash holds the old content, the new one, or a cut-off piece of
// the new one, whatever its name is by then: only a sync between writing and
// renaming makes a rename safe.
package boxfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrDead is returned for every operation after the power went.
var ErrDead = errors.New("power is off")

// node is one file, directory or symbolic link.
type node struct {
	mode     fs.FileMode // type and permission bits
	uid, gid int
	mtime    time.Time
	data     []byte
	target   string           // of a symbolic link
	ents     map[string]*node // of a directory
	gen      func() []byte    // a generated file (/proc, /sys)
	dev      string           // name of a device such as "null"
	ram      bool             // lives in RAM
	rom      bool             // unchanged since the image: needs no flash
	ino      int

	// What the flash holds of it.
	dents   map[string]*node
	ddata   []byte
	dmode   fs.FileMode
	durable bool // ddata has been written at all
	dirty   bool // data differs from ddata

	lock lockState
}

// nameOp is a change of a directory that may not have reached the flash.
type nameOp struct {
	steps []nameStep
}

type nameStep struct {
	dir  *node
	name string
	node *node // nil: removed
	mode fs.FileMode
	self bool // a change of node's own mode
}

// FS is one file system. It is safe for use by many goroutines.
type FS struct {
	mu       sync.Mutex
	root     *node
	pending  []nameOp
	dirty    map[*node]bool
	capacity int64
	reserved int64 // taken by a fault, for a full flash
	memory   int64 // room for files in RAM; 0: as much as there is
	dead     bool
	volatile bool // the overlay is still in RAM (first boot)
	nextIno  int
	now      func() time.Time

	// OnWrite is called, without any lock held, before every change of a path
	// on flash. An error refuses the change.
	OnWrite func(op, path string) error
}

// New makes an empty file system with that much flash, in bytes.
func New(capacity int64) *FS {
	f := &FS{capacity: capacity, dirty: map[*node]bool{}, now: time.Now}
	f.root = f.newNode(fs.ModeDir | 0o755)
	f.root.dents = map[string]*node{}
	return f
}

func (f *FS) newNode(mode fs.FileMode) *node {
	f.nextIno++
	n := &node{mode: mode, mtime: f.now(), ino: f.nextIno}
	if mode.IsDir() {
		n.ents = map[string]*node{}
	}
	return n
}

func pathErr(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// split cleans an absolute path into its elements.
func split(name string) []string {
	name = path.Clean("/" + name)
	if name == "/" {
		return nil
	}
	return strings.Split(name[1:], "/")
}

// walk finds the node of a path. follow tells whether a symbolic link at the
// end is followed.
func (f *FS) walk(name string, follow bool) (*node, error) {
	n, _, _, err := f.resolve(name, follow)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, syscall.ENOENT
	}
	return n, nil
}

// resolve finds a path's node (nil when only the last element is missing),
// its directory and the last element's name.
func (f *FS) resolve(name string, follow bool) (n, dir *node, base string, err error) {
	if f.dead {
		return nil, nil, "", ErrDead
	}
	todo := split(name)
	trail := strings.HasSuffix(name, "/") && len(todo) > 0
	stack := []*node{f.root}
	names := []string{}
	links := 0
	cur := f.root
	for i := 0; i < len(todo); i++ {
		part := todo[i]
		if cur.ents == nil {
			return nil, nil, "", syscall.ENOTDIR
		}
		if part == ".." {
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
				names = names[:len(names)-1]
			}
			cur = stack[len(stack)-1]
			continue
		}
		last := i == len(todo)-1
		next, ok := cur.ents[part]
		if !ok {
			if last {
				return nil, cur, part, nil
			}
			return nil, nil, "", syscall.ENOENT
		}
		if next.mode&fs.ModeSymlink != 0 && (!last || follow || trail) {
			if links++; links > 20 {
				return nil, nil, "", syscall.ELOOP
			}
			t := next.target
			if !strings.HasPrefix(t, "/") {
				t = "/" + strings.Join(names, "/") + "/" + t
			}
			todo = append(split(t), todo[i+1:]...)
			stack, names, cur, i = stack[:1], names[:0], f.root, -1
			if len(todo) == 0 {
				return f.root, f.root, "", nil
			}
			continue
		}
		if last {
			if trail && next.ents == nil {
				return nil, nil, "", syscall.ENOTDIR
			}
			return next, cur, part, nil
		}
		stack = append(stack, next)
		names = append(names, part)
		cur = next
	}
	return cur, cur, "", nil
}

func (f *FS) onFlash(n *node) bool { return n != nil && !n.ram }

// before runs the write hook. It is called without the lock.
func (f *FS) before(op, name string) error {
	f.mu.Lock()
	hook := f.OnWrite
	_, dir, _, err := f.resolve(name, true)
	flash := err == nil && f.onFlash(dir)
	dead := f.dead
	f.mu.Unlock()
	if dead {
		return ErrDead
	}
	if flash && hook != nil {
		return hook(op, name)
	}
	return nil
}

func (f *FS) link(dir *node, name string, n *node) {
	dir.ents[name] = n
	dir.mtime = f.now()
	if !dir.ram {
		f.pending = append(f.pending, nameOp{[]nameStep{{dir: dir, name: name, node: n}}})
	}
}

func (f *FS) touchDirty(n *node) {
	n.rom = false
	n.mtime = f.now()
	if !n.ram {
		n.dirty = true
		f.dirty[n] = true
	}
}

// Used counts the bytes of flash in use.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used()
}

func (f *FS) used() int64 {
	var sum func(n *node, seen map[*node]bool) int64
	sum = func(n *node, seen map[*node]bool) int64 {
		if n.ram || seen[n] {
			return 0
		}
		seen[n] = true
		var s int64
		if !n.rom {
			s = int64(len(n.data)) + 64 // a jffs2 node header
		}
		for _, c := range n.ents {
			s += sum(c, seen)
		}
		return s
	}
	return sum(f.root, map[*node]bool{}) + f.reserved
}

// Capacity is the size of the flash in bytes.
func (f *FS) Capacity() int64 { return f.capacity }

// Fill leaves only spare bytes of flash free; a negative spare takes the fault away.
func (f *FS) Fill(spare int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reserved = 0
	if spare >= 0 {
		if free := f.capacity - f.used() - spare; free > 0 {
			f.reserved = free
		}
	}
}

// LimitRAM gives files in RAM only that many bytes of room.
func (f *FS) LimitRAM(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.memory = n
}

// Memory is the room for files in RAM and how much of it is in use.
func (f *FS) Memory() (room, used int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.memory, ramUsed(f.root)
}

func ramUsed(n *node) int64 {
	var s int64
	if n.ram {
		s = int64(len(n.data))
	}
	for _, c := range n.ents {
		s += ramUsed(c)
	}
	return s
}

// Reserve takes n bytes of flash for something that is not a file, such as an
// installed package.
func (f *FS) Reserve(n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > 0 && f.used()+n > f.capacity {
		return syscall.ENOSPC
	}
	f.reserved += n
	return nil
}

// Info describes a file.
type Info struct {
	Path     string
	Base     string
	FileMode fs.FileMode
	Length   int64
	UID, GID int
	Time     time.Time
	Target   string
	Ino      int
	RAM      bool
}

// The methods of fs.FileInfo and fs.DirEntry.
func (i Info) Name() string               { return i.Base }
func (i Info) Size() int64                { return i.Length }
func (i Info) Mode() fs.FileMode          { return i.FileMode }
func (i Info) ModTime() time.Time         { return i.Time }
func (i Info) IsDir() bool                { return i.FileMode.IsDir() }
func (i Info) Sys() any                   { return nil }
func (i Info) Type() fs.FileMode          { return i.FileMode.Type() }
func (i Info) Info() (fs.FileInfo, error) { return i, nil }

func (f *FS) info(name string, n *node) Info {
	l := int64(len(n.data))
	if n.gen != nil {
		l = 0
	}
	return Info{Path: name, Base: path.Base(name), FileMode: n.mode, Length: l, UID: n.uid, GID: n.gid,
		Time: n.mtime, Target: n.target, Ino: n.ino, RAM: n.ram}
}

// Stat follows symbolic links, Lstat does not follow the last one.
func (f *FS) Stat(name string) (Info, error) { return f.stat(name, true) }

// Lstat describes a file or the link itself.
func (f *FS) Lstat(name string) (Info, error) { return f.stat(name, false) }

func (f *FS) stat(name string, follow bool) (Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.walk(name, follow)
	if err != nil {
		return Info{}, pathErr("stat", name, err)
	}
	return f.info(name, n), nil
}

// ReadDir lists a directory by name.
func (f *FS) ReadDir(name string) ([]Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.walk(name, true)
	if err == nil && n.ents == nil {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	var list []Info
	for k, c := range n.ents {
		list = append(list, f.info(path.Join(name, k), c))
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Base < list[j].Base })
	return list, nil
}

// Mkdir makes one directory.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.before("mkdir", name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, dir, base, err := f.resolve(name, true)
	if err == nil && n != nil {
		err = syscall.EEXIST
	}
	if err != nil {
		return pathErr("mkdir", name, err)
	}
	f.mkdir(dir, base, perm)
	return nil
}

func (f *FS) mkdir(dir *node, base string, perm fs.FileMode) *node {
	n := f.newNode(fs.ModeDir | perm.Perm())
	n.ram = dir.ram
	n.dents = map[string]*node{}
	n.dmode = n.mode
	f.link(dir, base, n)
	return n
}

// MkdirAll makes a directory and those above it.
func (f *FS) MkdirAll(name string, perm fs.FileMode) error {
	parts := split(name)
	for i := range parts {
		p := "/" + strings.Join(parts[:i+1], "/")
		if st, err := f.Stat(p); err == nil {
			if !st.IsDir() {
				return pathErr("mkdir", p, syscall.ENOTDIR)
			}
			continue
		}
		if err := f.Mkdir(p, perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// ReadFile reads a whole file.
func (f *FS) ReadFile(name string) ([]byte, error) {
	f.mu.Lock()
	n, err := f.walk(name, true)
	if err == nil && n.gen != nil {
		f.mu.Unlock()
		return n.gen(), nil
	}
	defer f.mu.Unlock()
	if err == nil && n.ents != nil {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	return slices.Clone(n.data), nil
}

// WriteFile truncates and writes a file, as a shell redirection does. perm is
// for a new file only.
func (f *FS) WriteFile(name string, data []byte, perm fs.FileMode) error {
	h, err := f.Open(name, Write|Create|Trunc, perm)
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = h.Write(data)
	return err
}

// Remove deletes a file or an empty directory.
func (f *FS) Remove(name string) error {
	if err := f.before("remove", name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, dir, base, err := f.resolve(name, false)
	switch {
	case err != nil:
	case n == nil:
		err = syscall.ENOENT
	case base == "":
		err = syscall.EBUSY
	case len(n.ents) > 0:
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return pathErr("remove", name, err)
	}
	f.unlink(dir, base)
	return nil
}

func (f *FS) unlink(dir *node, base string) {
	delete(dir.ents, base)
	dir.mtime = f.now()
	if !dir.ram {
		f.pending = append(f.pending, nameOp{[]nameStep{{dir: dir, name: base}}})
	}
}

// RemoveAll deletes a tree; a missing one is no error.
func (f *FS) RemoveAll(name string) error {
	st, err := f.Lstat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if st.IsDir() {
		list, err := f.ReadDir(name)
		if err != nil {
			return err
		}
		for _, c := range list {
			if err := f.RemoveAll(path.Join(name, c.Base)); err != nil {
				return err
			}
		}
	}
	return f.Remove(name)
}

// Rename moves a file over another one, atomically within one area. Between
// flash and RAM it fails with EXDEV, as between two mounts.
func (f *FS) Rename(from, to string) error {
	if err := f.before("rename", to); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, d1, b1, err := f.resolve(from, false)
	if err == nil && (n == nil || b1 == "") {
		err = syscall.ENOENT
	}
	if err != nil {
		return pathErr("rename", from, err)
	}
	old, d2, b2, err := f.resolve(to, false)
	if err == nil {
		switch {
		case d1.ram != d2.ram:
			err = syscall.EXDEV
		case old == n:
			return nil
		case old != nil && old.ents != nil && n.ents == nil:
			err = syscall.EISDIR
		case old != nil && old.ents == nil && n.ents != nil:
			err = syscall.ENOTDIR
		case old != nil && len(old.ents) > 0:
			err = syscall.ENOTEMPTY
		}
	}
	if err != nil {
		return pathErr("rename", to, err)
	}
	delete(d1.ents, b1)
	d2.ents[b2] = n
	if !d2.ram {
		f.pending = append(f.pending, nameOp{[]nameStep{{dir: d1, name: b1}, {dir: d2, name: b2, node: n}}})
	}
	return nil
}

// Symlink makes a symbolic link.
func (f *FS) Symlink(target, name string) error {
	if err := f.before("symlink", name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, dir, base, err := f.resolve(name, false)
	if err == nil && n != nil {
		err = syscall.EEXIST
	}
	if err != nil {
		return pathErr("symlink", name, err)
	}
	l := f.newNode(fs.ModeSymlink | 0o777)
	l.target, l.ram, l.dmode = target, dir.ram, l.mode
	f.link(dir, base, l)
	return nil
}

// Link makes a hard link.
func (f *FS) Link(from, to string) error {
	if err := f.before("link", to); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.walk(from, false)
	if err == nil && n.ents != nil {
		err = syscall.EPERM
	}
	if err != nil {
		return pathErr("link", from, err)
	}
	old, dir, base, err := f.resolve(to, false)
	switch {
	case err != nil:
	case old != nil:
		err = syscall.EEXIST
	case dir.ram != n.ram:
		err = syscall.EXDEV
	}
	if err != nil {
		return pathErr("link", to, err)
	}
	f.link(dir, base, n)
	return nil
}

// Chmod changes the permission bits.
func (f *FS) Chmod(name string, perm fs.FileMode) error {
	return f.meta("chmod", name, func(n *node) { n.mode = n.mode.Type() | perm&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) })
}

// Chown changes owner and group; -1 leaves one as it is.
func (f *FS) Chown(name string, uid, gid int) error {
	return f.meta("chown", name, func(n *node) {
		if uid >= 0 {
			n.uid = uid
		}
		if gid >= 0 {
			n.gid = gid
		}
	})
}

// Chtimes sets the time of the last change.
func (f *FS) Chtimes(name string, t time.Time) error {
	return f.meta("touch", name, func(n *node) { n.mtime = t })
}

func (f *FS) meta(op, name string, change func(*node)) error {
	if err := f.before(op, name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.walk(name, true)
	if err != nil {
		return pathErr(op, name, err)
	}
	change(n)
	if !n.ram {
		f.pending = append(f.pending, nameOp{[]nameStep{{node: n, mode: n.mode, self: true}}})
	}
	return nil
}

// Sync makes everything on flash durable.
func (f *FS) Sync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sync()
}

func (f *FS) sync() {
	if f.dead || f.volatile {
		return
	}
	for _, op := range f.pending {
		op.apply()
	}
	f.pending = nil
	for n := range f.dirty {
		n.settle(n.data)
	}
	clear(f.dirty)
}

// Fsync makes one file's content durable, not its name.
func (f *FS) Fsync(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.walk(name, true)
	if err != nil {
		return pathErr("fsync", name, err)
	}
	f.fsync(n)
	return nil
}

func (f *FS) fsync(n *node) {
	if f.dead || f.volatile || n.ram || n.ents != nil {
		return
	}
	n.settle(n.data)
	delete(f.dirty, n)
}

func (n *node) settle(data []byte) {
	n.ddata = slices.Clone(data)
	n.durable, n.dirty = true, false
}

func (op nameOp) apply() {
	for _, s := range op.steps {
		switch {
		case s.self:
			s.node.dmode = s.mode
		case s.node == nil:
			delete(s.dir.dents, s.name)
		default:
			s.dir.dents[s.name] = s.node
		}
	}
}

// SetVolatile puts the overlay into RAM, as on the first boot until the flash
// is formatted ("jffs2 not ready yet, using temporary tmpfs overlay"). Ending
// it copies everything over and syncs.
func (f *FS) SetVolatile(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.volatile
	f.volatile = on
	if was && !on {
		f.sync()
	}
}

// Volatile reports whether the overlay is still in RAM.
func (f *FS) Volatile() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.volatile
}

// PowerCut ends this file system: every later operation on it fails with
// ErrDead. What comes back is the file system as the next boot finds it, by r.
func (f *FS) PowerCut(r *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	keep := 0
	if !f.volatile && len(f.pending) > 0 {
		keep = r.IntN(len(f.pending) + 1)
	}
	for _, op := range f.pending[:keep] {
		op.apply()
	}
	if !f.volatile {
		// In a fixed order, so that one seed gives one outcome.
		list := make([]*node, 0, len(f.dirty))
		for n := range f.dirty {
			list = append(list, n)
		}
		sort.Slice(list, func(i, j int) bool { return list[i].ino < list[j].ino })
		for _, n := range list {
			n.lose(r)
		}
	}
	g := &FS{capacity: f.capacity, dirty: map[*node]bool{}, now: f.now, nextIno: f.nextIno, reserved: f.reserved,
		volatile: f.volatile} // what was not formatted through is not formatted
	g.root = g.revive(f.root, map[*node]*node{})
	f.dead = true
	return g
}

// lose decides what the flash holds of a file with unsynced content.
func (n *node) lose(r *rand.Rand) {
	switch r.IntN(3) {
	case 0: // the old content; of a new file nothing
	case 1:
		n.ddata = slices.Clone(n.data)
	default:
		cut := 0
		if len(n.data) > 0 {
			cut = r.IntN(len(n.data))
		}
		n.ddata = slices.Clone(n.data[:cut])
	}
}

func (f *FS) revive(n *node, seen map[*node]*node) *node {
	if m, ok := seen[n]; ok {
		return m
	}
	m := &node{mode: n.dmode, uid: n.uid, gid: n.gid, mtime: n.mtime, target: n.target, ino: n.ino,
		rom: n.rom && !n.dirty, durable: n.durable, dmode: n.dmode}
	if m.mode == 0 {
		m.mode, m.dmode = n.mode, n.mode
	}
	seen[n] = m
	if n.ents != nil {
		m.ents, m.dents = map[string]*node{}, map[string]*node{}
		for k, c := range n.dents {
			if c.ram {
				continue
			}
			cc := f.revive(c, seen)
			m.ents[k], m.dents[k] = cc, cc
		}
		return m
	}
	m.data, m.ddata = slices.Clone(n.ddata), slices.Clone(n.ddata)
	return m
}

// Shutdown is an orderly end: everything is synced, RAM is lost.
func (f *FS) Shutdown(r *rand.Rand) *FS {
	f.mu.Lock()
	f.sync()
	f.mu.Unlock()
	return f.PowerCut(r)
}

// MountRAM makes name an empty directory in RAM.
func (f *FS) MountRAM(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, dir, base, err := f.resolve(name, false)
	if err != nil || base == "" {
		return
	}
	n := f.newNode(fs.ModeDir | 0o755)
	n.ram = true
	dir.ents[base] = n
}

// Generated puts a file in RAM whose content is made at every read.
func (f *FS) Generated(name string, gen func() []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, dir, base, err := f.resolve(name, true)
	if err != nil || base == "" {
		return
	}
	n := f.newNode(0o444)
	n.gen, n.ram = gen, true
	dir.ents[base] = n
}

// Device puts a device node in RAM.
func (f *FS) Device(name, dev string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, dir, base, err := f.resolve(name, true)
	if err != nil || base == "" {
		return
	}
	n := f.newNode(fs.ModeDevice | fs.ModeCharDevice | 0o666)
	n.dev, n.ram = dev, true
	dir.ents[base] = n
}

// Rom marks everything on flash as part of the image: it takes no room and is
// durable.
func (f *FS) Rom() {
	f.mu.Lock()
	defer f.mu.Unlock()
	vol := f.volatile
	f.volatile = false
	f.sync()
	f.volatile = vol
	var mark func(n *node)
	mark = func(n *node) {
		if n.ram {
			return
		}
		n.rom = true
		n.dmode = n.mode
		for _, c := range n.ents {
			mark(c)
		}
	}
	mark(f.root)
}
