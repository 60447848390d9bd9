package boxfs

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// A write, a sync and a rename are safe; without the sync the new name may hold
// anything from nothing to all of the new content, but never a mixture.
func TestPowerCutOutcomes(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		f := New(1 << 20)
		f.WriteFile("/a", []byte("old"), 0o600)
		f.WriteFile("/b", []byte("old"), 0o600)
		f.Sync()
		f.WriteFile("/a.new", []byte("new"), 0o600)
		f.Rename("/a.new", "/a")
		f.WriteFile("/b.new", []byte("new"), 0o600)
		f.Fsync("/b.new")
		f.Rename("/b.new", "/b")
		g := f.PowerCut(rng(seed))
		a, _ := g.ReadFile("/a")
		seen[string(a)]++
		if b, _ := g.ReadFile("/b"); string(b) != "old" && string(b) != "new" {
			t.Errorf("seed %d: a synced and renamed file holds %q", seed, b)
		}
		if _, err := f.ReadFile("/a"); !errors.Is(err, ErrDead) {
			t.Fatal("the dead file system answers")
		}
	}
	for _, want := range []string{"old", "new", "", "n", "ne"} {
		if seen[want] == 0 {
			t.Errorf("never saw %q: %v", want, seen)
		}
	}
}

// After a sync nothing on flash is lost, whatever was done before.
func TestSyncKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := New(1 << 20)
		f.MountRAM("/ram")
		names := []string{"/a", "/b", "/d/c", "/d/e", "/ram/x"}
		f.Mkdir("/d", 0o755)
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			n := rapid.SampledFrom(names).Draw(t, "name")
			m := rapid.SampledFrom(names).Draw(t, "other")
			switch rapid.IntRange(0, 4).Draw(t, "op") {
			case 0, 1:
				f.WriteFile(n, rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data"), 0o644)
			case 2:
				f.Rename(n, m)
			case 3:
				f.Remove(n)
			case 4:
				f.Chmod(n, fs.FileMode(rapid.IntRange(0, 0o777).Draw(t, "mode")))
			}
		}
		f.Sync()
		type state struct {
			data string
			mode fs.FileMode
			ok   bool
		}
		look := func(f *FS) map[string]state {
			m := map[string]state{}
			for _, n := range names[:4] {
				data, err := f.ReadFile(n)
				st, _ := f.Stat(n)
				m[n] = state{string(data), st.FileMode, err == nil}
			}
			return m
		}
		want := look(f)
		g := f.PowerCut(rng(rapid.Uint64().Draw(t, "seed")))
		for n, s := range look(g) {
			if s != want[n] {
				t.Fatalf("%s: %+v, want %+v", n, s, want[n])
			}
		}
		if _, err := g.Stat("/ram/x"); err == nil {
			t.Fatal("RAM survived")
		}
	})
}

func TestFull(t *testing.T) {
	f := New(10000)
	if err := f.WriteFile("/a", make([]byte, 8000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteFile("/b", make([]byte, 8000), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	f.Remove("/a")
	if err := f.WriteFile("/b", make([]byte, 8000), 0o644); err != nil {
		t.Error(err)
	}
}

// A lock belongs to the file, not to its name: who waits on a file that was
// renamed over has the wrong one (facts 4.5).
func TestLock(t *testing.T) {
	f := New(1 << 20)
	f.WriteFile("/l", nil, 0o644)
	a, _ := f.Open("/l", Read, 0)
	b, _ := f.Open("/l", Read, 0)
	ctx := context.Background()
	if err := a.Lock(ctx, true, true); err != nil {
		t.Fatal(err)
	}
	if err := b.Lock(ctx, true, true); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("%v", err)
	}
	f.WriteFile("/l2", nil, 0o644)
	f.Rename("/l2", "/l")
	c, _ := f.Open("/l", Read, 0)
	if err := c.Lock(ctx, true, true); err != nil {
		t.Errorf("the new file is locked: %v", err)
	}
	a.Close()
	if err := b.Lock(ctx, true, true); err != nil {
		t.Error(err)
	}
}

func TestLinks(t *testing.T) {
	f := New(1 << 20)
	f.MountRAM("/tmp")
	f.Symlink("tmp", "/var")
	f.WriteFile("/var/x", []byte("1"), 0o644)
	if st, err := f.Stat("/tmp/x"); err != nil || !st.RAM {
		t.Errorf("%+v %v", st, err)
	}
	f.Symlink("loop", "/loop")
	if _, err := f.Stat("/loop"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("%v", err)
	}
	if err := f.Rename("/var/x", "/y"); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("%v", err)
	}
}
