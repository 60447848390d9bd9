package store

import (
	"os/signal"
	"syscall"
)

// limitFileSize makes this process unable to write more than n bytes into one
// file, as a full disk would. A negative n only says whether that can be done.
func limitFileSize(n int64) error {
	if n < 0 {
		return nil
	}
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(n), Max: uint64(n)})
}
