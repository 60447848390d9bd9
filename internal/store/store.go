// Package store keeps files on the computer that heimweg runs on: home.toml,
// peers' configurations, the known routers.
//
// Whatever it writes is there whole or not at all: a new file is written beside
// the old one, pushed to the disk, and then takes its name. A power cut, a full
// disk or a kill leaves the old content. Files are readable by their owner only
// (0600) unless they were there before with another mode; an owner other than
// the one who runs the program is kept where the system allows it.
//
// A Lock keeps a second heimweg away. It is held by the operating system for
// the process, not by the existence of a file: when a process dies, its lock
// dies with it, and nobody has to delete anything.
//
// The package never prints, knows nothing of what it stores, and talks to no
// network.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Private is the mode of files and directories that heimweg makes.
const (
	Private    fs.FileMode = 0o600
	privateDir fs.FileMode = 0o700
)

// MaxSize is the size of the largest file that Read reads, in bytes.
const MaxSize = 64 << 20

// An ExistsError says that a file is there that must not be overwritten.
type ExistsError struct{ Path string }

func (e *ExistsError) Error() string { return e.Path + " is there already" }

// Is makes it fs.ErrExist.
func (e *ExistsError) Is(target error) bool { return target == fs.ErrExist }

// A TooLargeError says that a file is no file of ours.
type TooLargeError struct{ Path string }

func (e *TooLargeError) Error() string { return e.Path + " is too large" }

// A LockedError says that another process holds the lock.
type LockedError struct {
	Path  string    // what is locked
	PID   int       // who holds it; 0 when not known
	Since time.Time // since when; zero when not known
}

func (e *LockedError) Error() string {
	s := e.Path + " is in use by another process"
	if e.PID != 0 {
		s += fmt.Sprintf(" (%d since %s)", e.PID, e.Since.Format("15:04:05"))
	}
	return s
}

// Read gives a file's content. The error for a missing file is fs.ErrNotExist.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if len(b) > MaxSize {
		return nil, &TooLargeError{path}
	}
	return b, nil
}

// WriteFile replaces a file as a whole, or makes it. mode is that of a new file
// (0 means Private); a file that is there keeps its own. A symbolic link stays
// one: the file it points to is replaced. Where several may write, hold the
// file's Lock, or use Update.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	target, err := resolve(path)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	old, err := os.Stat(target)
	switch {
	case err == nil && !old.Mode().IsRegular():
		return fmt.Errorf("writing %s: %w", path, &fs.PathError{Op: "replace", Path: target, Err: errors.New("not a regular file")})
	case err == nil:
		mode = old.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("writing: %w", err)
	}
	return beside(target, data, mode, func(tmp string) error {
		if old != nil {
			keepOwner(tmp, old)
		}
		return os.Rename(tmp, target)
	})
}

// Create makes a file that must not be there yet; otherwise the error is an
// *ExistsError and nothing changes. mode 0 means Private.
func Create(path string, data []byte, mode fs.FileMode) error {
	if _, err := os.Lstat(path); err == nil {
		return &ExistsError{path}
	}
	return beside(path, data, mode, func(tmp string) error {
		err := os.Link(tmp, path) // unlike a rename, it refuses when the name is taken
		switch {
		case err == nil:
			os.Remove(tmp)
			return nil
		case errors.Is(err, fs.ErrExist):
			return &ExistsError{path}
		}
		return createDirectly(path, data, mode) // a file system without hard links, such as FAT
	})
}

// createDirectly writes a new file under its own name and takes it away again
// when that fails half-way.
func createDirectly(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, orPrivate(mode))
	if errors.Is(err, fs.ErrExist) {
		return &ExistsError{path}
	}
	if err != nil {
		return err
	}
	if err := fill(f, data); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

func orPrivate(mode fs.FileMode) fs.FileMode {
	if mode == 0 {
		return Private
	}
	return mode.Perm()
}

// beside writes data to a new file in path's directory and hands it to place,
// which gives it its name. Whatever fails, the new file is gone afterwards.
func beside(path string, data []byte, mode fs.FileMode, place func(tmp string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, newPrefix(path)+"*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	tmp := f.Name()
	defer func() {
		if err != nil || exists(tmp) {
			os.Remove(tmp)
		}
	}()
	if err := f.Chmod(orPrivate(mode)); err != nil && !errors.Is(err, errors.ErrUnsupported) && !windows {
		f.Close()
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := fill(f, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := place(tmp); err != nil {
		var exists *ExistsError
		if errors.As(err, &exists) {
			return exists
		}
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return syncDir(dir)
}

// newPrefix begins the name of a file that is going to be path.
func newPrefix(path string) string { return "." + filepath.Base(path) + ".new-" }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// fill writes, pushes to the disk and closes. Without the push, a power cut
// after the rename can leave a file with the new name and no content.
func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// maxLinks bounds a chain of symbolic links, as Linux does.
const maxLinks = 40

// resolve follows symbolic links to the file itself, which need not exist yet.
func resolve(path string) (string, error) {
	for range maxLinks {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link; whether it can be written shows later
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", errors.New("too many symbolic links")
}

// Update changes a file under its lock: nobody else writes it between reading
// and writing. change gets the content, nil when the file is not there, and
// returns the new one. Equal content is not written again.
func Update(path string, mode fs.FileMode, change func(old []byte) ([]byte, error)) error {
	unlock, err := Lock(path)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = nil, nil
	}
	if err != nil {
		return err
	}
	text, err := change(old)
	if err != nil {
		return err
	}
	if old != nil && string(old) == string(text) {
		return nil
	}
	return WriteFile(path, text, mode)
}

// DirVariable names the environment variable that moves Dir elsewhere.
const DirVariable = "HEIMWEG_DIR"

// Dir is where heimweg keeps what is not in home.toml, made when it is missing:
// $HEIMWEG_DIR, or the directory "heimweg" in the user's configuration.
func Dir() (string, error) {
	dir := os.Getenv(DirVariable)
	if dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("looking for the directory of settings: %w", err)
		}
		dir = filepath.Join(base, "heimweg")
	}
	if err := os.MkdirAll(dir, privateDir); err != nil {
		return "", fmt.Errorf("making the directory of settings: %w", err)
	}
	return dir, nil
}

// KnownRouters is the path of the file that pins routers' SSH host keys.
func KnownRouters() (string, error) {
	dir, err := Dir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "known_routers"), nil
}
