package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"
)

// maxJumps bounds a chain of jump hosts that ~/.ssh/config may close to a ring.
const maxJumps = 4

// Open logs in. Errors: *UnreachableError, *NotSSHError, *HostKeyError,
// *AuthError, *ConfigError, *StoreError. The deadline is ctx's.
func Open(ctx context.Context, t Target, o Options) (*Conn, error) {
	return open(ctx, t, o, 0)
}

func open(ctx context.Context, t Target, o Options, depth int) (*Conn, error) {
	w, err := resolve(t, o)
	if err != nil {
		return nil, err
	}
	if w.jump != "" && depth >= maxJumps {
		return nil, &ConfigError{Path: w.config, Cause: fmt.Errorf("more than %d jump hosts on the way to %s", maxJumps, t.Addr)}
	}
	j, err := newJudge(w.name, w.addr, o.HostKeys, w.known)
	if err != nil {
		return nil, err
	}
	dial := o.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	var parent *Conn
	if w.jump != "" {
		if parent, err = openJump(ctx, w.jump, o, depth); err != nil {
			return nil, err
		}
		dial = parent.Dial
	}
	stop := func() bool { return true }
	if parent != nil {
		// Closing a channel of a dead jump host waits for its answer; only
		// closing the jump host's own connection ends that.
		stop = context.AfterFunc(ctx, func() { parent.Close() })
	}
	c, err := connect(ctx, dial, w, j, o)
	if !stop() && err == nil {
		c.raw.Close()
		err = &UnreachableError{Addr: w.addr, Stage: StageHandshake, Cause: context.Cause(ctx)}
	}
	if err != nil {
		if parent != nil {
			parent.Close()
		}
		return nil, err
	}
	c.parent = parent
	go func() {
		c.client.Wait()
		close(c.gone)
	}()
	return c, nil
}

// openJump opens the last of a list of jump hosts, through those before it.
func openJump(ctx context.Context, jump string, o Options, depth int) (*Conn, error) {
	before, last := "", jump
	if i := strings.LastIndexByte(jump, ','); i >= 0 {
		before, last = jump[:i], jump[i+1:]
	}
	t := Target{Addr: strings.TrimPrefix(last, "ssh://"), Jump: before}
	if i := strings.LastIndexByte(t.Addr, '@'); i >= 0 {
		t.User, t.Addr = t.Addr[:i], t.Addr[i+1:]
	}
	host := t.Addr
	jo := o
	jo.Auth.NoneOnly = false
	jo.Auth.Password = nil // the router's password is not for this host
	jo.Auth.JumpPassword = o.Auth.JumpPassword
	if ask := o.Auth.JumpPassword; ask != nil {
		jo.Auth.Password = func(ctx context.Context) (string, error) { return ask(ctx, host) }
	}
	return open(ctx, t, jo, depth+1)
}

// connect tries connection after connection until one is logged in:
//
//	try again because                         | with                          | at most
//	the handshake ended in EOF (see           | one host key algorithm, the   | 1 + the number of
//	algorithms: dropbear dies)                | next one each time            | algorithms
//	two keys were refused (dropbear ends the  | the next two keys, and after  | maxKeys / 2
//	connection at the third failed login)     | the last ones the password    |
func connect(ctx context.Context, dial Dial, w where, j *judge, o Options) (*Conn, error) {
	all := j.order()
	plans := [][]string{all}
	for _, a := range all {
		plans = append(plans, []string{a})
	}
	l := newLogin(w, o.Auth)
	defer l.close()
	for {
		c, err := once(ctx, dial, w, j, o, l, plans[0])
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, errMoreKeys):
		case errors.Is(err, errDied) && len(plans) > 1:
			plans = plans[1:]
		case len(plans) > 1 && len(plans) <= len(all) && strings.Contains(err.Error(), "no common algorithm"):
			plans = plans[1:] // a single one that the router does not have
		case errors.Is(err, errDied):
			return nil, &UnreachableError{Addr: w.addr, Stage: StageHandshake, Cause: io.EOF}
		default:
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, &UnreachableError{Addr: w.addr, Stage: StageHandshake, Cause: context.Cause(ctx)}
		}
	}
}

// errDied: the other end closed the connection after it had greeted and before
// it showed its host key.
var errDied = errors.New("the other end closed the connection during the key exchange")

// once makes one connection.
func once(ctx context.Context, dial Dial, w where, j *judge, o Options, l *login, algos []string) (*Conn, error) {
	n, err := dial(ctx, "tcp", w.addr)
	if err != nil {
		var u *UnreachableError // a jump host's Dial says it better
		if errors.As(err, &u) {
			return nil, err
		}
		if e := context.Cause(ctx); e != nil && !errors.Is(err, e) {
			err = e
		}
		return nil, &UnreachableError{Addr: w.addr, Stage: StageConnect, Cause: err}
	}
	raw := &wire{Conn: n}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	c := &Conn{
		raw: raw, addr: w.addr, user: w.user, echo: o.Echo,
		patience: o.Patience, limit: o.MaxOutput, gone: make(chan struct{}),
	}
	if c.patience <= 0 {
		c.patience = defaultPatience
	}
	if c.limit <= 0 {
		c.limit = defaultMaxOutput
	}
	var refused error // the host key's
	l.begin(ctx)
	sc, chans, reqs, err := ssh.NewClientConn(raw, w.addr, &ssh.ClientConfig{
		User:              w.user,
		HostKeyAlgorithms: algos,
		ClientVersion:     "SSH-2.0-heimweg",
		AuthCallback:      l.next,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			c.hostKey = key
			c.first, refused = j.check(key)
			return refused
		},
	})
	if !stop() && err == nil { // ctx ended at the last moment and n is closed
		sc.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		n.Close()
		return nil, c.why(ctx, err, refused, l)
	}
	c.client = ssh.NewClient(sc, chans, reqs)
	c.method = l.method
	if j.store != nil && j.pinned == nil {
		// Pinned also when the user's own file vouched for the key: from now on
		// this router is known to us whatever happens to that file. Only after
		// the login, so that a typing mistake in an address pins nothing.
		if err := j.store.Pin(j.name, c.hostKey); err != nil {
			sc.Close()
			return nil, err
		}
	}
	return c, nil
}

// why turns the end of a handshake into what it means.
func (c *Conn) why(ctx context.Context, err, refused error, l *login) error {
	switch said := c.raw.greeting(); {
	case refused != nil:
		return refused
	case ctx.Err() != nil && !l.started:
		return &UnreachableError{Addr: c.addr, Stage: StageHandshake, Cause: context.Cause(ctx)}
	case errors.Is(err, errMoreKeys):
		return errMoreKeys
	case l.started:
		// x/crypto forgets that the connection broke and says that no method
		// was left, so the wire is asked.
		return l.failed(c.addr, c.user, c.raw.cutBy())
	case said == "":
		return &UnreachableError{Addr: c.addr, Stage: StageHandshake, Cause: err}
	case !strings.HasPrefix(said, "SSH-") && !strings.Contains(said, "\nSSH-"):
		return &NotSSHError{Addr: c.addr, Banner: printable(said)}
	case c.hostKey == nil && errors.Is(err, io.EOF):
		return errDied
	}
	return &UnreachableError{Addr: c.addr, Stage: StageHandshake, Cause: err}
}

func printable(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 120 {
		s = s[:120]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s))
}

// NoneRefused asks over a new connection whether the router refuses a login
// without any credentials, as it must once root has a password. methods are the
// ones it offers instead. Nothing is pinned newly by it and nothing else is tried.
func NoneRefused(ctx context.Context, t Target, o Options) (refused bool, methods []string, err error) {
	o.Auth = Auth{NoneOnly: true, JumpPassword: o.Auth.JumpPassword, Signers: o.Auth.Signers,
		KeyFiles: o.Auth.KeyFiles, Agent: o.Auth.Agent, AgentAt: o.Auth.AgentAt, Passphrase: o.Auth.Passphrase}
	c, err := Open(ctx, t, o)
	var a *AuthError
	switch {
	case err == nil:
		c.Close()
		return false, nil, nil
	case errors.As(err, &a) && len(a.Tried) == 1 && a.Tried[0] == "none":
		return true, a.Offered, nil
	}
	return false, nil, err
}

// A wire remembers when it last heard something and how the other end greeted.
type wire struct {
	net.Conn
	ended atomic.Bool // by us
	mu    sync.Mutex
	last  time.Time
	first []byte // at most 255 bytes
	cut   error  // why reading ended, when it was not we who ended it
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil && !w.ended.Load() {
		w.mu.Lock()
		w.cut = err
		w.mu.Unlock()
	}
	if n > 0 {
		w.mu.Lock()
		w.last = time.Now()
		if room := 255 - len(w.first); room > 0 {
			w.first = append(w.first, p[:min(n, room)]...)
		}
		w.mu.Unlock()
	}
	return n, err
}

// Write pretends that all is well when the other end closed before it was heard
// at all: what it said first may still be there to read, and says why.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil && !w.ended.Load() && w.greeting() == "" {
		return len(p), nil
	}
	return n, err
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.ended.Store(true)
	return w.Conn.Close()
}

// heard is when something last arrived, or since if that was before.
func (w *wire) heard(since time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last.After(since) {
		return w.last
	}
	return since
}

func (w *wire) cutBy() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

func (w *wire) greeting() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.first)
}
