//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const windows = false

// lockFile takes the lock of an open file. The system drops it when the file is
// closed, also by the death of the process.
func lockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errBusy
		default:
			return err
		}
	}
}

// release deletes the lock's file while the lock is still held; whoever has
// opened it meanwhile finds out that it is no longer the file of that name.
func release(f *os.File, name string) {
	os.Remove(name)
	f.Close()
}

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil // a directory that may be written but not read; the file itself is safe
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("writing %s to the disk: %w", dir, err)
	}
	return nil
}

// keepOwner gives a new file the owner of the old one, so that "sudo heimweg"
// does not take home.toml away from its owner. Without the right to do so it
// stays as it is.
func keepOwner(tmp string, old fs.FileInfo) {
	if st, ok := old.Sys().(*syscall.Stat_t); ok {
		_ = os.Chown(tmp, int(st.Uid), int(st.Gid))
	}
}
