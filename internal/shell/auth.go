package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const (
	// keysPerConnection leaves one of dropbear's three tries for the password
	// (facts: openwrt.md 3.1, MaxAuthTries 3; a failed "none" does not count).
	keysPerConnection = 2
	// maxKeys bounds an agent full of keys.
	maxKeys = 12
)

var (
	errMoreKeys = errors.New("more keys to try on another connection")
	errNoMore   = errors.New("nothing more to try")
)

// A candidate is one key to try.
type candidate struct {
	name   string // for people
	signer ssh.Signer
}

// A login is the conversation of one Open, over one or more connections.
type login struct {
	who  where
	auth Auth

	ctx     context.Context // of the Open in progress
	method  string          // the last one tried: the one that worked, if any did
	tried   []string
	offered []string
	skipped []string
	cause   error
	started bool // "none" was answered on this connection

	keys     []candidate
	gathered bool
	here     int // keys tried on this connection
	asked    bool
	agent    io.Closer
}

func newLogin(w where, a Auth) *login { return &login{who: w, auth: a} }

func (l *login) close() {
	if l.agent != nil {
		l.agent.Close()
	}
}

// begin is called before each connection.
func (l *login) begin(ctx context.Context) {
	l.ctx, l.method, l.here, l.started = ctx, "none", 0, false
}

// next picks the method to try; x/crypto has tried "none" by then.
func (l *login) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	if !l.started {
		l.started = true
		if len(l.tried) == 0 {
			l.tried = append(l.tried, "none")
		}
	}
	l.offered = c.AllowedMethods
	if l.auth.NoneOnly {
		return nil, errNoMore
	}
	if slices.Contains(l.offered, "publickey") {
		l.gather()
		if len(l.keys) > 0 {
			if l.here == keysPerConnection {
				return nil, errMoreKeys
			}
			k := l.keys[0]
			l.keys = l.keys[1:]
			l.here++
			l.tried = append(l.tried, k.name)
			l.method = "publickey"
			return ssh.PublicKeys(k.signer), nil
		}
	}
	return l.password()
}

// password asks for it, once.
func (l *login) password() (ssh.AuthMethod, error) {
	plain := slices.Contains(l.offered, "password")
	if !plain && !slices.Contains(l.offered, "keyboard-interactive") {
		return nil, errNoMore
	}
	if l.auth.Password == nil {
		l.skip("no password was given")
		return nil, errNoMore
	}
	if l.asked {
		return nil, errNoMore
	}
	l.asked = true
	p, err := l.auth.Password(l.ctx)
	if err != nil {
		l.cause = err
		l.skip("there was nobody to give the password")
		return nil, errNoMore
	}
	l.tried = append(l.tried, "password")
	l.method = "password"
	if plain {
		return ssh.Password(p), nil
	}
	return ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
		// One hidden question is the password; anything else is something this
		// program cannot know (a second factor).
		answers := make([]string, len(questions))
		for i := range questions {
			if len(questions) > 1 || echos[i] {
				return nil, errNoMore
			}
			answers[i] = p
		}
		return answers, nil
	}), nil
}

func (l *login) skip(why string) {
	if !slices.Contains(l.skipped, why) {
		l.skipped = append(l.skipped, why)
	}
}

// failed is the login's end. cut is why the connection broke, if it did: servers
// hang up after too many tries.
func (l *login) failed(addr, user string, cut error) error {
	e := &AuthError{Addr: addr, User: user, Tried: l.tried, Offered: l.offered, Skipped: l.skipped, Cause: l.cause}
	if e.Cause == nil && l.ctx.Err() != nil {
		e.Cause = context.Cause(l.ctx)
	}
	if e.Cause == nil {
		e.Cause = cut
	}
	return e
}

// gather lists the keys: given ones, files, the agent's.
func (l *login) gather() {
	if l.gathered {
		return
	}
	l.gathered = true
	var have [][]byte
	add := func(name string, s ssh.Signer) {
		blob := s.PublicKey().Marshal()
		if slices.ContainsFunc(have, func(b []byte) bool { return bytes.Equal(b, blob) }) {
			return
		}
		if len(have) == maxKeys {
			l.skip(fmt.Sprintf("keys after the first %d", maxKeys))
			return
		}
		have = append(have, blob)
		l.keys = append(l.keys, candidate{name, s})
	}
	for _, s := range l.auth.Signers {
		add("key "+Fingerprint(s.PublicKey()), s)
	}
	// A key that the agent has unlocked needs no passphrase, so the agent is
	// asked before files are read; its other keys come last.
	held := l.agentKeys()
	for _, f := range l.who.keyFiles {
		s, err := l.fromFile(f, held)
		switch {
		case errors.Is(err, os.ErrNotExist) && !l.who.named:
		case err != nil:
			l.skip(fmt.Sprintf("key %s: %v", f, err))
		default:
			add("key "+f, s)
		}
	}
	if l.who.identitiesOnly {
		return
	}
	for _, c := range held {
		add(c.name, c.signer)
	}
}

func (l *login) agentKeys() []candidate {
	if l.who.agentAt == "" {
		return nil
	}
	conn, err := dialAgent(l.ctx, l.who.agentAt)
	if err != nil {
		l.skip("the agent's keys: it does not answer")
		return nil
	}
	l.agent = conn
	client := agent.NewClient(conn)
	list, err := client.List()
	if err != nil {
		l.skip("the agent's keys: it does not answer")
		return nil
	}
	signers, err := client.Signers()
	if err != nil || len(signers) != len(list) {
		l.skip("the agent's keys: it does not answer")
		return nil
	}
	var out []candidate
	for i, s := range signers {
		name := list[i].Comment
		if name == "" {
			name = Fingerprint(s.PublicKey())
		}
		out = append(out, candidate{"agent key " + name, s})
	}
	return out
}

// fromFile reads a key file. A key with a passphrase is unlocked only when the
// router has said that it would take it.
func (l *login) fromFile(path string, held []candidate) (ssh.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKey(b)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		return s, nil
	case !errors.As(err, &locked):
		return nil, errors.New("not a private key")
	}
	pub := locked.PublicKey
	if pub == nil {
		if b, err := os.ReadFile(path + ".pub"); err == nil {
			pub, _, _, _, _ = ssh.ParseAuthorizedKey(b)
		}
	}
	if pub != nil {
		for _, c := range held {
			if bytes.Equal(c.signer.PublicKey().Marshal(), pub.Marshal()) {
				return c.signer, nil
			}
		}
	}
	if l.auth.Passphrase == nil {
		return nil, errors.New("it has a passphrase and there is nobody to give it")
	}
	unlock := func() (ssh.Signer, error) {
		p, err := l.auth.Passphrase(l.ctx, path)
		if err != nil {
			return nil, err
		}
		s, err := ssh.ParsePrivateKeyWithPassphrase(b, []byte(p))
		if err != nil {
			err = errors.New("the passphrase does not fit")
			l.skip(fmt.Sprintf("key %s: %v", filepath.Clean(path), err))
		}
		return s, err
	}
	if pub == nil {
		return unlock()
	}
	return &lockedKey{pub: pub, unlock: unlock}, nil
}

// A lockedKey asks for its passphrase when it has to sign.
type lockedKey struct {
	pub    ssh.PublicKey
	unlock func() (ssh.Signer, error)
}

func (k *lockedKey) PublicKey() ssh.PublicKey { return k.pub }

func (k *lockedKey) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(r, data, k.pub.Type())
}

// SignWithAlgorithm is what makes an RSA key sign with SHA-2.
func (k *lockedKey) SignWithAlgorithm(r io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	s, err := k.unlock()
	if err != nil {
		return nil, err
	}
	if a, ok := s.(ssh.AlgorithmSigner); ok {
		return a.SignWithAlgorithm(r, data, algorithm)
	}
	return s.Sign(r, data)
}
