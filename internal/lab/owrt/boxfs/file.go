package boxfs

import (
	"context"
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// Flag says how a file is opened.
type Flag int

// Flags of Open.
const (
	Read Flag = 1 << iota
	Write
	Create
	Trunc
	Append
	Excl
)

// File is an open file. It is not safe for concurrent use by itself, but many
// open files of one file are.
type File struct {
	fs   *FS
	n    *node
	name string
	flag Flag
	off  int
	made []byte // what a generated file held when it was opened
}

// Open opens a file, a directory (for locking) or a device.
func (f *FS) Open(name string, flag Flag, perm fs.FileMode) (*File, error) {
	if flag&Write != 0 {
		f.mu.Lock()
		n, _, _, _ := f.resolve(name, true)
		special := n != nil && n.dev != ""
		f.mu.Unlock()
		if !special && flag&(Create|Trunc) != 0 {
			if err := f.before("open", name); err != nil {
				return nil, err
			}
		}
	}
	h, err := f.open(name, flag, perm)
	if err == nil && h.n.gen != nil {
		h.made = h.n.gen() // without the lock: it may look at other files
	}
	return h, err
}

func (f *FS) open(name string, flag Flag, perm fs.FileMode) (*File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, dir, base, err := f.resolve(name, true)
	switch {
	case err != nil:
	case n == nil && flag&Create == 0:
		err = syscall.ENOENT
	case n == nil:
		if !dir.ram && f.used()+64 > f.capacity {
			err = syscall.ENOSPC
			break
		}
		n = f.newNode(perm.Perm())
		n.ram, n.dmode = dir.ram, perm.Perm()
		f.link(dir, base, n)
		f.touchDirty(n)
	case flag&Excl != 0 && flag&Create != 0:
		err = syscall.EEXIST
	case n.ents != nil && flag&Write != 0:
		err = syscall.EISDIR
	case n.gen != nil && flag&Write != 0:
		err = syscall.EACCES
	case flag&Trunc != 0 && n.dev == "":
		n.data = nil
		f.touchDirty(n)
	}
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	h := &File{fs: f, n: n, name: name, flag: flag}
	return h, nil
}

// Name is the path the file was opened by.
func (h *File) Name() string { return h.name }

// Dev names the device, "" for anything else.
func (h *File) Dev() string { return h.n.dev }

// Read reads from the current place.
func (h *File) Read(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.fs.dead {
		return 0, ErrDead
	}
	if h.n.ents != nil {
		return 0, pathErr("read", h.name, syscall.EISDIR)
	}
	data := h.n.data
	if h.n.gen != nil {
		data = h.made
	}
	if h.off >= len(data) {
		return 0, io.EOF
	}
	n := copy(p, data[h.off:])
	h.off += n
	return n, nil
}

// Write writes at the current place, or at the end of a file opened to append.
func (h *File) Write(p []byte) (int, error) {
	if h.flag&(Write|Append) == 0 {
		return 0, pathErr("write", h.name, syscall.EBADF)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if h.n.dev == "" && !h.n.ram && h.fs.OnWrite != nil {
		if err := h.fs.OnWrite("write", h.name); err != nil {
			return 0, err
		}
	}
	f := h.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return 0, ErrDead
	}
	if h.flag&Append != 0 {
		h.off = len(h.n.data)
	}
	var short error
	grow := int64(h.off + len(p) - len(h.n.data))
	if h.n.rom && !h.n.ram {
		grow = int64(h.off + len(p))
	}
	if free, limited := f.free(h.n); limited && grow > free {
		// jffs2 and tmpfs write what fits, then say ENOSPC.
		fit := max(len(p)-int(grow-free), 0)
		p, short = p[:fit], pathErr("write", h.name, syscall.ENOSPC)
	}
	if len(p) > 0 {
		data := slices.Clone(h.n.data)
		if h.off > len(data) {
			data = append(data, make([]byte, h.off-len(data))...)
		}
		data = append(data[:h.off], append(slices.Clone(p), tail(data, h.off+len(p))...)...)
		h.n.data = data
		h.off += len(p)
		f.touchDirty(h.n)
	}
	return len(p), short
}

// free is the room where a node lies; there may be no limit.
func (f *FS) free(n *node) (free int64, limited bool) {
	if !n.ram {
		return f.capacity - f.used(), true
	}
	if f.memory == 0 || n.dev != "" || n.gen != nil {
		return 0, false
	}
	return f.memory - ramUsed(f.root), true
}

func tail(b []byte, from int) []byte {
	if from >= len(b) {
		return nil
	}
	return b[from:]
}

// Sync makes the content durable.
func (h *File) Sync() {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	h.fs.fsync(h.n)
}

// Stat describes the open file.
func (h *File) Stat() Info {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.fs.info(h.name, h.n)
}

// Close drops a lock held through this open file.
func (h *File) Close() error {
	h.Unlock()
	return nil
}

// lockState is what flock(2) keeps with the file.
type lockState struct {
	holders map[*File]bool // value: exclusive
	wait    chan struct{}  // closed at every release
}

// Lock takes a lock through this open file, as flock(2) does: the file, not its
// name, is locked, so a writer that renames a new file into place leaves the
// waiters with the old one. With try it returns EAGAIN instead of waiting.
func (h *File) Lock(ctx context.Context, exclusive, try bool) error {
	for {
		h.fs.mu.Lock()
		if h.fs.dead {
			h.fs.mu.Unlock()
			return ErrDead
		}
		l := &h.n.lock
		free := true
		for o, ex := range l.holders {
			if o != h && (ex || exclusive) {
				free = false
			}
		}
		if free {
			if l.holders == nil {
				l.holders = map[*File]bool{}
			}
			l.holders[h] = exclusive
			h.fs.mu.Unlock()
			return nil
		}
		if try {
			h.fs.mu.Unlock()
			return syscall.EAGAIN
		}
		if l.wait == nil {
			l.wait = make(chan struct{})
		}
		wait := l.wait
		h.fs.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Unlock gives the lock back.
func (h *File) Unlock() {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	l := &h.n.lock
	if _, ok := l.holders[h]; !ok {
		return
	}
	delete(l.holders, h)
	if l.wait != nil {
		close(l.wait)
		l.wait = nil
	}
}
