//go:build windows

package store

import (
	"errors"
	"io/fs"
	"os"

	syswin "golang.org/x/sys/windows"
)

const windows = true

// farAway is the byte that is locked. Windows refuses others to read what is
// locked, and they shall read who holds the lock.
const farAway = 1 << 30

// lockFile takes the lock of an open file. The system drops it when the file is
// closed, also by the death of the process.
func lockFile(f *os.File) error {
	err := syswin.LockFileEx(syswin.Handle(f.Fd()), syswin.LOCKFILE_EXCLUSIVE_LOCK|syswin.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0,
		&syswin.Overlapped{Offset: farAway})
	if errors.Is(err, syswin.ERROR_LOCK_VIOLATION) || errors.Is(err, syswin.ERROR_IO_PENDING) {
		return errBusy
	}
	return err
}

// release leaves the empty file: Windows does not delete an open one.
func release(f *os.File, _ string) {
	_ = f.Truncate(0)
	f.Close()
}

// syncDir does nothing: Windows gives no handle to flush a directory by.
func syncDir(string) error { return nil }

// keepOwner does nothing: a new file inherits its rights from the directory.
func keepOwner(string, fs.FileInfo) {}
