// Package shell runs scripts on the home router over SSH, with the router's host
// key pinned at first sight.
//
// It is an edge: it knows SSH and nothing about OpenWrt, it never prints, and it
// never puts a script, its standard input or a password into an error, a log or
// the argument list of a process on either side. It never edits the files of
// ~/.ssh; what it pins goes into a store of heimweg's own.
//
// # Background
//
// A fresh OpenWrt has a root account without a password and lets it in with
// SSH's method "none", which a client always tries first; so a new router needs
// no credentials at all (facts: openwrt.md 3.1; observed on 24.10.8). Its server
// is dropbear: three failed logins end a connection, five connections that have
// not logged in yet are allowed per address, there is no sftp, and a script sent
// over standard input comes back with its exit status. dropbear keeps no host
// name anywhere; after a reflash its host key is another one and that is right.
//
// One Run is one exec channel and counts as one round trip.
package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Dial opens a connection; nil means the real network. The connection's Close
// must end a blocked Read or Write.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// A Target is where to log in.
type Target struct {
	Addr string // host or host:port; may be an alias of ~/.ssh/config
	User string // "" means ~/.ssh/config's, else root
	Jump string // [user@]host[:port], several with commas, first hop first; "" means ~/.ssh/config's; "none"
	ID   string // under which name the host key is pinned; "" means the address. A router that changes its address keeps its ID
}

// Options are how to log in and what to remember.
type Options struct {
	Dial      Dial
	HostKeys  KeyStore      // our own pins; nil: a host key nobody knows is refused
	UserKnown []string      // known_hosts files that are read, never written; nil means ~/.ssh/known_hosts
	Auth      Auth          //
	Echo      func(string)  // is given the text of every script before it runs, for -v; never standard input, never a Secret script
	Config    string        // ssh_config to respect; "" means ~/.ssh/config; "none" means nothing at all of ~/.ssh is read
	Patience  time.Duration // how long a silent router counts as alive; 0 means 15 s
	MaxOutput int           // bytes of output one Run may give; 0 means 16 MiB
}

// Auth is what the login may use, in this order: none, the signers, the key
// files, the agent's keys, the password.
type Auth struct {
	Signers    []ssh.Signer
	KeyFiles   []string // nil means ~/.ssh/config's IdentityFile, else id_ed25519 and id_rsa of ~/.ssh
	Agent      bool     // ask the agent behind SSH_AUTH_SOCK (or IdentityAgent)
	AgentAt    string   // socket of the agent instead of SSH_AUTH_SOCK
	Passphrase func(ctx context.Context, file string) (string, error)
	// Password is asked at most once per Open, only when nothing before it
	// worked and the router offers it. It is never given to a jump host.
	Password     func(ctx context.Context) (string, error)
	JumpPassword func(ctx context.Context, host string) (string, error)
	NoneOnly     bool // try no more than "none"
}

// A Script is what one Run sends. The whole text reaches the router's shell
// before its first command runs: when the connection is cut half-way, nothing of
// it runs.
type Script struct {
	Text   string // POSIX shell; no NUL bytes
	Stdin  []byte // what the script's commands read from standard input
	Secret bool   // the text itself holds a secret: it is not echoed
}

// A Result is what a script gave. A non-zero exit is not an error: the caller
// knows which ones are expected. Its output may hold secrets (UCI documents do),
// so a Result prints only its sizes.
type Result struct {
	Stdout, Stderr []byte
	Exit           int // 128 + n when signal n ended the script
}

// Format prints sizes only.
func (r Result) Format(f fmt.State, _ rune) { io.WriteString(f, r.brief()) }

// LogValue keeps output out of structured logs.
func (r Result) LogValue() slog.Value { return slog.StringValue(r.brief()) }

// MarshalJSON writes sizes only.
func (r Result) MarshalJSON() ([]byte, error) { return []byte(`"` + r.brief() + `"`), nil }

func (r Result) brief() string {
	return fmt.Sprintf("(exit %d, %d bytes out, %d bytes err)", r.Exit, len(r.Stdout), len(r.Stderr))
}

// Format prints sizes only.
func (s Script) Format(f fmt.State, _ rune) { io.WriteString(f, s.brief()) }

// LogValue keeps script and input out of structured logs.
func (s Script) LogValue() slog.Value { return slog.StringValue(s.brief()) }

// MarshalJSON writes sizes only.
func (s Script) MarshalJSON() ([]byte, error) { return []byte(`"` + s.brief() + `"`), nil }

func (s Script) brief() string {
	return fmt.Sprintf("(script of %d bytes, %d bytes input)", len(s.Text), len(s.Stdin))
}

const (
	defaultPatience  = 15 * time.Second
	defaultMaxOutput = 16 << 20
)

// A Conn is one SSH connection. It is safe for concurrent use.
type Conn struct {
	client   *ssh.Client
	raw      *wire
	parent   *Conn // the jump host this one rides on
	addr     string
	user     string
	method   string
	hostKey  ssh.PublicKey
	first    bool
	echo     func(string)
	patience time.Duration
	limit    int
	gone     chan struct{} // closed when the connection is
	once     sync.Once
}

// HostKey is the key the router showed.
func (c *Conn) HostKey() ssh.PublicKey { return c.hostKey }

// FirstSight reports whether nobody knew the key before and it was pinned now:
// the surface shows its fingerprint then.
func (c *Conn) FirstSight() bool { return c.first }

// Method is what the login succeeded with: "none", "publickey", "password".
func (c *Conn) Method() string { return c.method }

// User is the account.
func (c *Conn) User() string { return c.user }

// Addr is the address that was dialled, host:port.
func (c *Conn) Addr() string { return c.addr }

// LocalAddr is our end of the connection.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr is the router's end of the connection, as dialled.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// Gone is closed when the connection has ended, for whatever reason.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// Close ends the connection and that to the jump host. Scripts that are running
// are given up.
func (c *Conn) Close() error {
	c.once.Do(func() {
		// What is below is closed first, down to the socket: closing an SSH
		// channel or client may want to write, and a write to a dead peer blocks.
		if c.parent != nil {
			c.parent.Close()
		}
		c.raw.Close()
		c.client.Close()
	})
	<-c.gone
	return nil
}

// Dial opens a TCP connection from the router (direct-tcpip).
func (c *Conn) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n, err := c.client.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &UnreachableError{Addr: addr, Stage: StageConnect, Via: c.addr, Cause: err}
	}
	return n, nil
}

// Run sends a script and waits for its end. Errors: *LostError when the router
// fell silent, the connection broke, the script's end was not told, or ctx ended
// (its error is wrapped); *OutputError when there was more output than allowed. After any
// error the connection is closed, because a script may still be running behind
// it. What was read so far comes with the error.
func (c *Conn) Run(ctx context.Context, s Script) (Result, error) {
	line, err := encode(s.Text)
	if err != nil {
		return Result{}, err
	}
	if c.echo != nil {
		if s.Secret {
			c.echo(fmt.Sprintf("(a script with secrets, %d bytes)", len(s.Text)))
		} else {
			c.echo(s.Text)
		}
	}
	start := time.Now()
	stop := make(chan struct{})
	defer close(stop)
	over := make(chan struct{})
	var once sync.Once
	out := &capped{limit: c.limit, full: func() { once.Do(func() { close(over) }) }}
	errs := &capped{limit: c.limit, full: out.full}
	done := make(chan error, 1)
	go func() { done <- c.exec(io.MultiReader(bytes.NewReader(line), bytes.NewReader(s.Stdin)), out, errs) }()
	result := func(exit int) Result { return Result{Stdout: out.b.Bytes(), Stderr: errs.b.Bytes(), Exit: exit} }

	var giveUp error
	select {
	case err := <-done:
		return c.ended(start, result, err)
	case <-over:
		giveUp = &OutputError{Addr: c.addr, Limit: c.limit}
	case <-ctx.Done():
		giveUp = c.lost(start, context.Cause(ctx))
	case <-c.silent(start, stop):
		giveUp = c.lost(start, ErrSilent)
	}
	c.Close()
	<-done
	return result(-1), giveUp
}

// exec runs the shell on a channel of its own.
func (c *Conn) exec(in io.Reader, out, errs io.Writer) error {
	s, err := c.client.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	s.Stdout, s.Stderr = out, errs
	// Not s.Stdin: a script that does not read all of its input is no error.
	w, err := s.StdinPipe()
	if err != nil {
		return err
	}
	if err := s.Start(bootstrap); err != nil {
		return err
	}
	written := make(chan struct{})
	go func() {
		io.Copy(w, in)
		w.Close()
		close(written)
	}()
	err = s.Wait()
	s.Close() // ends a write that nobody reads
	<-written
	return err
}

// ended turns the end of a session into a result.
func (c *Conn) ended(start time.Time, result func(int) Result, err error) (Result, error) {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return result(0), nil
	case errors.As(err, &exit):
		return result(exit.ExitStatus()), nil
	}
	// No exit status: the connection broke, or the script's shell was killed
	// (a reboot does that). Nobody knows how far it came.
	lost := c.lost(start, err)
	c.Close()
	return result(-1), lost
}

func (c *Conn) lost(start time.Time, cause error) *LostError {
	return &LostError{Addr: c.addr, Ran: time.Since(start), Silent: time.Since(c.raw.heard(start)), Cause: cause}
}

// silent watches the router while a script runs. When it has said nothing for a
// quarter of our patience it is asked whether it is there (an SSH global
// request, which every server answers, if only with a refusal); when it stays
// silent for all of it, the returned channel closes. The watch ends with the
// connection or when stop closes.
func (c *Conn) silent(start time.Time, stop <-chan struct{}) <-chan struct{} {
	dead := make(chan struct{})
	tick := c.patience / 4
	var asked time.Time
	var check func()
	check = func() {
		select {
		case <-c.gone:
			return
		case <-stop:
			return
		default:
		}
		heard := c.raw.heard(start)
		switch quiet := time.Since(heard); {
		case quiet >= c.patience:
			close(dead)
			return
		case quiet >= tick && !asked.After(heard):
			asked = time.Now()
			// Its answer is noticed by the wire; the goroutine ends with it
			// or with the connection.
			go c.client.SendRequest("keepalive@openssh.com", true, nil)
		}
		time.AfterFunc(tick, check)
	}
	time.AfterFunc(tick, check)
	return dead
}

// capped keeps output up to a limit and swallows the rest.
type capped struct {
	mu    sync.Mutex
	b     bytes.Buffer
	limit int
	full  func()
}

func (w *capped) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if room := w.limit - w.b.Len(); len(p) > room {
		w.b.Write(p[:room])
		w.full()
		return len(p), nil
	}
	w.b.Write(p)
	return len(p), nil
}
