package shell

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// A KeyStore remembers one host key per name. Names are router IDs or
// addresses.
type KeyStore interface {
	// Known is the key pinned under a name, nil for none.
	Known(name string) (ssh.PublicKey, error)
	// Pin remembers a key, in place of an older one.
	Pin(name string, key ssh.PublicKey) error
}

// Fingerprint is the form in which people compare keys: SHA256:….
func Fingerprint(k ssh.PublicKey) string { return ssh.FingerprintSHA256(k) }

// Accept pins the key that a HostKeyError was about, in place of the old one.
// It is for the person who knows why the key changed: after a reflash it must.
func Accept(store KeyStore, e *HostKeyError) error {
	if e.key == nil {
		return errors.New("no key was seen")
	}
	return store.Pin(e.Name, e.key)
}

// Memory is a KeyStore that forgets at the end of the program.
type Memory struct {
	mu sync.Mutex
	m  map[string]ssh.PublicKey
}

// Known implements KeyStore.
func (s *Memory) Known(name string) (ssh.PublicKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[name], nil
}

// Pin implements KeyStore.
func (s *Memory) Pin(name string, key ssh.PublicKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]ssh.PublicKey{}
	}
	s.m[name] = key
	return nil
}

// A File is a KeyStore in a file with one line per router, `name type key`: the
// form of known_hosts, so that ssh can be pointed at it. It is replaced as a
// whole, mode 0600; comments and lines of others stay.
type File struct {
	Path string
	mu   sync.Mutex
}

// A StoreError says what is wrong with the file of host keys.
type StoreError struct {
	Path  string
	Line  int // from 1; 0 when it is not about one line
	Cause error
}

func (e *StoreError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Cause)
	}
	return fmt.Sprintf("%s: %v", e.Path, e.Cause)
}

func (e *StoreError) Unwrap() error { return e.Cause }

// Known implements KeyStore. A line that cannot be read is an error, not a gap:
// a gap would let another key in.
func (f *File) Known(name string) (ssh.PublicKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines, err := f.lines()
	if err != nil {
		return nil, err
	}
	for i, l := range lines {
		n, key, err := parseLine(l)
		if err != nil {
			return nil, &StoreError{f.Path, i + 1, err}
		}
		if n == name {
			return key, nil
		}
	}
	return nil, nil
}

// Pin implements KeyStore.
func (f *File) Pin(name string, key ssh.PublicKey) error {
	if name == "" || strings.ContainsAny(name, " \t\r\n#") {
		return &StoreError{f.Path, 0, fmt.Errorf("%q cannot be the name of a router", name)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	lines, err := f.lines()
	if err != nil {
		return err
	}
	line := name + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	done := false
	for i, l := range lines {
		n, _, err := parseLine(l)
		if err != nil {
			return &StoreError{f.Path, i + 1, err}
		}
		if n == name {
			lines[i], done = line, true
		}
	}
	if !done {
		lines = append(lines, line)
	}
	if err := replace(f.Path, []byte(strings.Join(lines, "\n")+"\n")); err != nil {
		return &StoreError{f.Path, 0, err}
	}
	return nil
}

func (f *File) lines() ([]string, error) {
	b, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &StoreError{f.Path, 0, err}
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"), nil
}

// parseLine reads one line; a comment or an empty one has no name.
func parseLine(l string) (name string, key ssh.PublicKey, err error) {
	l = strings.TrimSpace(l)
	if l == "" || l[0] == '#' {
		return "", nil, nil
	}
	name, rest, _ := strings.Cut(l, " ")
	key, _, _, more, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil || len(bytes.TrimSpace(more)) > 0 {
		return "", nil, errors.New("not a host key: want `name type key`")
	}
	return name, key, nil
}

// replace writes a file so that after a power cut it is the old or the new one.
func replace(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600 from the start
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(t.Name())
		}
	}()
	_, err = t.Write(data)
	if err == nil {
		err = t.Sync()
	}
	if e := t.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}

// algorithms is the order in which host keys are asked for: ed25519 first,
// because every dropbear that has one signs correctly with it. An unpatched
// dropbear 2022.83 with only an ed25519 key still offers RSA and dies when RSA
// is picked, as x/crypto would by itself (facts: deps.md 5, reproduced there).
var algorithms = []string{
	ssh.KeyAlgoED25519,
	ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
}

// judge decides about the host key of one router.
type judge struct {
	name  string // in our store
	addr  string // host:port, in the user's files
	store KeyStore
	user  *knownhosts.HostKeyDB // nil: none

	pinned ssh.PublicKey // by us
	types  []string      // the user's files know keys of these types
}

// newJudge reads what is known. A user's file that cannot be read counts as not
// there: it is not ours to mend, and our own pins do not depend on it.
func newJudge(name, addr string, store KeyStore, files []string) (*judge, error) {
	j := &judge{name: name, addr: addr, store: store}
	var there []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	if len(there) > 0 {
		if db, err := knownhosts.NewDB(there...); err == nil {
			j.user = db
			j.types = db.HostKeyAlgorithms(addr)
		}
	}
	if store != nil {
		k, err := store.Known(name)
		if err != nil {
			return nil, err
		}
		j.pinned = k
	}
	return j, nil
}

// order is algorithms with the types that are known for this host in front, so
// that a router with several keys shows the one we can compare.
func (j *judge) order() []string {
	front := map[string]bool{}
	switch {
	case j.pinned != nil:
		for _, a := range signatures(j.pinned.Type()) {
			front[a] = true
		}
	default:
		for _, t := range j.types {
			front[t] = true
		}
	}
	var first, rest []string
	for _, a := range algorithms {
		if front[a] {
			first = append(first, a)
		} else {
			rest = append(rest, a)
		}
	}
	return append(first, rest...)
}

// signatures are the signature algorithms of a key type.
func signatures(typ string) []string {
	if typ == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}
	}
	return []string{typ}
}

// check says whether a key may be trusted, and whether it is seen for the first
// time. It pins nothing: that waits until the key exchange is through.
func (j *judge) check(key ssh.PublicKey) (first bool, err error) {
	bad := &HostKeyError{Addr: j.addr, Name: j.name, Seen: Fingerprint(key), Type: key.Type(), key: key}
	if j.pinned != nil {
		if bytes.Equal(j.pinned.Marshal(), key.Marshal()) {
			return false, nil
		}
		bad.Known = []string{Fingerprint(j.pinned)}
		bad.Where = "pinned by heimweg"
		return false, bad
	}
	if j.user != nil {
		err := j.user.HostKeyCallback()(j.addr, address(j.addr), key)
		var ke *xknownhosts.KeyError
		switch {
		case err == nil:
			return false, nil
		case errors.As(err, &ke) && len(ke.Want) > 0:
			for _, w := range ke.Want {
				bad.Known = append(bad.Known, Fingerprint(w.Key))
				bad.Where = fmt.Sprintf("%s:%d", w.Filename, w.Line)
			}
			return false, bad
		case errors.As(err, &ke): // not known there
		default: // revoked, or something this package does not know: no
			return false, errors.Join(bad, err)
		}
	}
	if j.store == nil {
		return false, bad
	}
	return true, nil
}

// address is a host:port as a net.Addr: the host key belongs to the name that
// was asked for, not to where a name server or a jump host led.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
