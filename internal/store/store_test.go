package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// helperVariable makes the test binary play another process.
const helperVariable = "HEIMWEG_STORE_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperVariable); what != "" {
		if err := help(what, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// help is what the other process does.
func help(what string, args []string) error {
	switch what {
	case "hold": // hold PATH: take the lock and wait for the end of stdin
		if _, err := Lock(args[0]); err != nil {
			return err
		}
		fmt.Println("locked")
		bufio.NewReader(os.Stdin).ReadString('\n')
		return nil // without unlock, as a process that dies
	case "count": // count PATH N: add one, N times
		n, _ := strconv.Atoi(args[1])
		return count(args[0], n)
	case "rewrite": // rewrite PATH: replace it for ever
		fmt.Println("writing")
		for i := 0; ; i++ {
			if err := WriteFile(args[0], page(i), 0); err != nil {
				return err
			}
		}
	case "full": // full PATH: write where only a little fits
		if err := limitFileSize(4096); err != nil {
			return err
		}
		err := WriteFile(args[0], bytes.Repeat([]byte("x"), 1<<20), 0)
		if err == nil {
			return errors.New("a megabyte went into four kilobytes")
		}
		if err := Create(args[0]+".conf", bytes.Repeat([]byte("x"), 1<<20), 0); err == nil {
			return errors.New("a megabyte was created in four kilobytes")
		}
		return nil
	}
	return fmt.Errorf("cannot %s", what)
}

func helper(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperVariable+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// page is a content that tells whether it is whole.
func page(i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%8d\n", i), 20000)
}

func whole(b []byte) bool {
	return len(b) == 9*20000 && bytes.Equal(b, bytes.Repeat(b[:9], 20000))
}

// count adds one to the number in a file, n times, waiting for its turn.
func count(path string, n int) error {
	for range n {
		for {
			err := Update(path, 0, func(old []byte) ([]byte, error) {
				i, _ := strconv.Atoi(strings.TrimSpace(string(old)))
				return fmt.Appendf(nil, "%d\n", i+1), nil
			})
			var locked *LockedError
			if errors.As(err, &locked) {
				runtime.Gosched()
				continue
			}
			if err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// only fails when the directory holds anything but the named files.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("the directory holds %v, want %v", got, names)
	}
}

func content(t *testing.T, path, want string) {
	t.Helper()
	got, err := Read(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %.80q, %v; want %.80q", path, got, err, want)
	}
}

func mode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Mode().Perm(); got != want && !windows {
		t.Errorf("%s has the mode %o, want %o", path, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "home.toml")
	must(t, WriteFile(path, []byte("one"), 0))
	content(t, path, "one")
	mode(t, path, 0o600)
	must(t, os.Chmod(path, 0o640))
	must(t, WriteFile(path, []byte("two"), 0o600))
	content(t, path, "two")
	mode(t, path, 0o640)
	must(t, WriteFile(path, nil, 0))
	content(t, path, "")
	only(t, dir, "home.toml")
	public := filepath.Join(dir, "report.txt")
	must(t, WriteFile(public, []byte("for all"), 0o644))
	mode(t, public, 0o644)
}

func TestWriteFileErrors(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "no", "such", "dir"), []byte("secret"), 0); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "secret") {
		t.Errorf("without a directory: %v", err)
	}
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o700))
	if err := WriteFile(sub, []byte("x"), 0); err == nil {
		t.Error("replaced a directory")
	}
	only(t, dir, "sub")
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading what is not there: %v", err)
	}
}

func TestSymlinks(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	real, link, far := filepath.Join(dir, "real", "home.toml"), filepath.Join(dir, "home.toml"), filepath.Join(dir, "far")
	if err := os.Symlink(filepath.Join("real", "home.toml"), link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	must(t, os.Symlink(link, far))
	must(t, WriteFile(far, []byte("made"), 0)) // the link leads to nothing yet
	content(t, real, "made")
	must(t, WriteFile(link, []byte("changed"), 0))
	content(t, real, "changed")
	if st, err := os.Lstat(link); err != nil || st.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", st, err)
	}
	only(t, filepath.Join(dir, "real"), "home.toml")

	unlock, err := Lock(link) // the lock is that of the file, by whatever name
	must(t, err)
	var locked *LockedError
	if _, err := Lock(real); !errors.As(err, &locked) {
		t.Errorf("locked twice by two names: %v", err)
	}
	unlock()

	loop := filepath.Join(dir, "loop")
	must(t, os.Symlink(loop, loop))
	if err := WriteFile(loop, nil, 0); err == nil {
		t.Error("wrote through a loop of links")
	}
	if err := Create(link, nil, 0); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created over a link: %v", err)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "phone.conf")
	must(t, Create(path, []byte("key"), 0))
	content(t, path, "key")
	mode(t, path, 0o600)
	err := Create(path, []byte("other"), 0)
	var exists *ExistsError
	if !errors.As(err, &exists) || exists.Path != path || !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating again: %v", err)
	}
	content(t, path, "key")
	only(t, dir, "phone.conf")
	if err := createDirectly(path, []byte("other"), 0); !errors.As(err, &exists) {
		t.Errorf("creating again without links: %v", err)
	}
	must(t, createDirectly(filepath.Join(dir, "tablet.conf"), []byte("key2"), 0))
	content(t, filepath.Join(dir, "tablet.conf"), "key2")
	mode(t, filepath.Join(dir, "tablet.conf"), 0o600)
}

func TestCreateRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "phone.conf")
	var wg sync.WaitGroup
	won := make([]bool, 16)
	for i := range won {
		wg.Go(func() { won[i] = Create(path, page(i), 0) == nil })
	}
	wg.Wait()
	winners := 0
	for i, w := range won {
		if w {
			winners++
			content(t, path, string(page(i)))
		}
	}
	if winners != 1 {
		t.Errorf("%d created the same file", winners)
	}
	only(t, dir, "phone.conf")
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "home.toml")
	must(t, WriteFile(path, []byte("old"), 0))
	if err := limitFileSize(-1); err != nil {
		t.Skip(err)
	}
	if err := helper(t, "full", path).Run(); err != nil {
		t.Fatal(err)
	}
	content(t, path, "old")
	only(t, dir, "home.toml")
}

// TestKilledWriter kills a process that replaces a file all the time: whenever
// one looks, the file is whole.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "home.toml")
	must(t, WriteFile(path, page(0), 0))
	for range 5 {
		cmd := helper(t, "rewrite", path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		first, err := Read(path)
		must(t, err)
		for { // until it has been replaced at least once
			b, err := Read(path)
			must(t, err)
			if !whole(b) {
				t.Fatalf("read %d bytes that are not whole", len(b))
			}
			if !bytes.Equal(b, first) {
				break
			}
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if b, err := Read(path); err != nil || !whole(b) {
			t.Fatalf("after the kill: %d bytes, %v", len(b), err)
		}
		must(t, WriteFile(path, page(0), 0))
	}
	must(t, Create(filepath.Join(dir, "neighbour"), nil, 0))
	unlock, err := Lock(path) // sweeps up what the killed ones left
	must(t, err)
	unlock()
	if !windows {
		only(t, dir, "home.toml", "neighbour")
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "home.toml")
	before := time.Now().Truncate(time.Second)
	unlock, err := Lock(path)
	must(t, err)
	_, err = Lock(path)
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("locked twice: %v", err)
	}
	if locked.PID != os.Getpid() || locked.Path != path || locked.Since.Before(before) || locked.Since.After(time.Now()) {
		t.Errorf("held by %+v, want process %d since %s", locked, os.Getpid(), before)
	}
	if !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("the message does not name the process: %v", err)
	}
	if err := Update(path, 0, func([]byte) ([]byte, error) { t.Error("changed under another's lock"); return nil, nil }); !errors.As(err, &locked) {
		t.Errorf("updated under another's lock: %v", err)
	}
	unlock()
	unlock()
	if !windows {
		only(t, dir)
	}
	again, err := Lock(path)
	must(t, err)
	again()
	if _, err := Lock(filepath.Join(dir, "no", "dir")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("locked in no directory: %v", err)
	}
}

// TestDeadHolder: the lock of a process that died blocks nobody, although its
// file is still there.
func TestDeadHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home.toml")
	cmd := helper(t, "hold", path)
	in, err := cmd.StdinPipe()
	must(t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_, err = Lock(path)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != cmd.Process.Pid {
		t.Errorf("while process %d holds it: %v", cmd.Process.Pid, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	if !exists(path + lockSuffix) {
		t.Error("the lock's file is gone; this test shows nothing")
	}
	unlock, err := Lock(path)
	must(t, err)
	unlock()
}

// TestUnsignedLock: a holder who has not written its name yet is not known.
func TestUnsignedLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home.toml")
	for _, text := range []string{"", "17", "17 x", "\x00\x00", strings.Repeat("9", 100)} {
		f, err := os.Create(path + lockSuffix)
		must(t, err)
		must(t, lockFile(f))
		_, err = f.WriteString(text)
		must(t, err)
		_, err = Lock(path)
		var locked *LockedError
		if !errors.As(err, &locked) || locked.PID != 0 || !locked.Since.IsZero() {
			t.Errorf("%q: %v (%+v)", text, err, locked)
		}
		f.Close()
	}
}

// TestManyWriters: processes and goroutines count together, nothing is lost.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "counter")
	const processes, goroutines, each = 3, 4, 25
	var cmds []*exec.Cmd
	for range processes {
		cmd := helper(t, "count", path, strconv.Itoa(each))
		must(t, cmd.Start())
		cmds = append(cmds, cmd)
	}
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			if err := count(path, each); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	content(t, path, fmt.Sprintf("%d\n", (processes+goroutines)*each))
	if !windows {
		only(t, dir, "counter")
	}
}

func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home.toml")
	stop := errors.New("stop")
	if err := Update(path, 0, func(old []byte) ([]byte, error) {
		if old != nil {
			t.Error("a content of nothing")
		}
		return nil, stop
	}); !errors.Is(err, stop) || exists(path) {
		t.Errorf("a change that gave up: %v", err)
	}
	must(t, Update(path, 0, func([]byte) ([]byte, error) { return []byte("x"), nil }))
	before, err := os.Stat(path)
	must(t, err)
	must(t, Update(path, 0, func(old []byte) ([]byte, error) { return old, nil }))
	after, err := os.Stat(path)
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("equal content was written again")
	}
}

func TestDir(t *testing.T) {
	base := t.TempDir()
	t.Setenv(DirVariable, filepath.Join(base, "a", "b"))
	got, err := KnownRouters()
	if err != nil || got != filepath.Join(base, "a", "b", "known_routers") {
		t.Errorf("KnownRouters = %q, %v", got, err)
	}
	mode(t, filepath.Join(base, "a", "b"), 0o700)
	if runtime.GOOS == "linux" {
		t.Setenv(DirVariable, "")
		t.Setenv("XDG_CONFIG_HOME", base)
		if got, err := Dir(); err != nil || got != filepath.Join(base, "heimweg") {
			t.Errorf("Dir = %q, %v", got, err)
		}
		t.Setenv("XDG_CONFIG_HOME", "")
		t.Setenv("HOME", "")
		if _, err := Dir(); err == nil {
			t.Error("a directory out of nowhere")
		}
	}
}

func TestReadTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(MaxSize+1))
	f.Close()
	_, err = Read(path)
	var large *TooLargeError
	if !errors.As(err, &large) {
		t.Errorf("read a huge file: %v", err)
	}
}

func BenchmarkWriteFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "home.toml")
	data := page(1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := WriteFile(path, data, 0); err != nil {
			b.Fatal(err)
		}
	}
}
