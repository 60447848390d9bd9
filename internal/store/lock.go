package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// lockSuffix makes the name of the file that carries the lock. The file itself
// cannot: WriteFile puts a new one in its place.
const lockSuffix = ".lock"

// errBusy says that another process holds the system's lock.
var errBusy = errors.New("locked by another process")

// Lock keeps others from changing path until unlock is called. It does not
// wait: when the lock is taken, the error is a *LockedError. unlock may be
// called more than once.
func Lock(path string) (unlock func(), err error) {
	target, err := resolve(path)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	name := target + lockSuffix
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, Private)
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		switch err := lockFile(f); {
		case errors.Is(err, errBusy):
			locked := holder(path, f)
			f.Close()
			return nil, locked
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if !current(f, name) { // its former holder deleted it between our opening and locking
			f.Close()
			continue
		}
		if err := sign(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		sweep(target)
		return sync.OnceFunc(func() { release(f, name) }), nil
	}
}

// sweep deletes what a killed process left beside a file. Only the holder of
// the lock may do so: nobody else is writing.
func sweep(target string) {
	dir, prefix := filepath.Dir(target), newPrefix(target)
	list, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// current reports whether f is still the file of that name.
func current(f *os.File, name string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(name)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// sign writes who holds the lock, for the message of those who come later.
func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d %d\n", os.Getpid(), time.Now().Unix()), 0)
	return err
}

// holder reads who holds the lock. The file may be empty for a moment.
func holder(path string, f *os.File) *LockedError {
	e := &LockedError{Path: path}
	b, _ := io.ReadAll(io.LimitReader(f, 64))
	var since int64
	if n, _ := fmt.Fscan(bytes.NewReader(b), &e.PID, &since); n == 2 {
		e.Since = time.Unix(since, 0)
	} else {
		e.PID = 0
	}
	return e
}
