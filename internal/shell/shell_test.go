package shell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/heimweg/heimweg/internal/check/need"
)

var router = Target{Addr: "192.168.1.1"}

func mustOpen(t testing.TB, target Target, o Options) *Conn {
	t.Helper()
	c, err := Open(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAFreshRouterNeedsNoCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		o := b.options()
		o.Auth.Password = func(context.Context) (string, error) { t.Error("asked for a password"); return "", nil }
		c := mustOpen(t, router, o)
		if c.Method() != "none" || c.User() != "root" || c.Addr() != "192.168.1.1:22" || !c.FirstSight() {
			t.Errorf("method %s, user %s, address %s, first sight %t", c.Method(), c.User(), c.Addr(), c.FirstSight())
		}
		r, err := c.Run(t.Context(), Script{Text: "echo \\ 'a'\ncat", Stdin: []byte("input\n")})
		if err != nil || string(r.Stdout) != "echo \\ 'a'\ncat|input\n" || string(r.Stderr) != "noise" || r.Exit != 0 {
			t.Errorf("%q %q %d %v", r.Stdout, r.Stderr, r.Exit, err)
		}
		b.run = func(string, io.Reader, io.Writer, io.Writer) int { return 7 }
		if r, err := c.Run(t.Context(), Script{Text: "false"}); err != nil || r.Exit != 7 {
			t.Errorf("exit %d, %v", r.Exit, err)
		}
		if len(b.execs) != 2 || b.execs[0] != bootstrap || b.execs[1] != bootstrap {
			t.Errorf("commands: %q", b.execs)
		}
		c.Close()
		if c = mustOpen(t, router, o); c.FirstSight() {
			t.Error("first sight twice")
		}
		select {
		case <-c.Gone():
			t.Error("gone while open")
		default:
		}
		c.Close()
		<-c.Gone()
	})
}

func TestBigInputAndOutput(t *testing.T) {
	b := newBox(t)
	c := mustOpen(t, router, b.options())
	in := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18) // 4 MiB
	r, err := c.Run(t.Context(), Script{Text: "cat", Stdin: in})
	if err != nil || !bytes.Equal(r.Stdout, append([]byte("cat|"), in...)) {
		t.Errorf("%s, %v", r, err)
	}
	// A script that does not read its input.
	b.run = func(string, io.Reader, io.Writer, io.Writer) int { return 0 }
	if _, err := c.Run(t.Context(), Script{Text: "true", Stdin: in}); err != nil {
		t.Error(err)
	}
}

func TestTooMuchOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		o := b.options()
		o.MaxOutput = 1000
		c := mustOpen(t, router, o)
		b.run = func(_ string, _ io.Reader, out, _ io.Writer) int {
			for {
				if _, err := out.Write(make([]byte, 100)); err != nil {
					return 0
				}
			}
		}
		r, err := c.Run(t.Context(), Script{Text: "yes"})
		var over *OutputError
		if !errors.As(err, &over) || over.Limit != 1000 || len(r.Stdout) != 1000 {
			t.Errorf("%s, %v", r, err)
		}
	})
}

func TestLogins(t *testing.T) {
	good, other := edKey(t), edKey(t)
	rsa := rsaKey(t)
	ask := func(p string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return p, nil }
	}
	dir := t.TempDir()
	files := keyFiles(t, dir)
	many := []ssh.Signer{edKey(t), edKey(t), edKey(t), edKey(t), good}
	for _, tt := range []struct {
		name    string
		box     func(*box)
		auth    Auth
		method  string
		tried   []string // when it fails
		skipped string
		conns   int
	}{
		{"key", func(b *box) { b.keys = []ssh.PublicKey{good.PublicKey()} }, Auth{Signers: []ssh.Signer{other, good}}, "publickey", nil, "", 1},
		{"rsa key", func(b *box) { b.keys = []ssh.PublicKey{rsa.PublicKey()} }, Auth{Signers: []ssh.Signer{rsa}}, "publickey", nil, "", 1},
		{"the fifth key", func(b *box) { b.keys = []ssh.PublicKey{good.PublicKey()} }, Auth{Signers: many}, "publickey", nil, "", 3},
		{"password", func(b *box) { b.password = "correct horse" }, Auth{Password: ask("correct horse")}, "password", nil, "", 1},
		{"password after five keys", func(b *box) { b.password = "correct horse" }, Auth{Signers: many, Password: ask("correct horse")}, "password", nil, "", 3},
		{"wrong password", func(b *box) { b.password = "correct horse" }, Auth{Password: ask("hunter2-canary")}, "", []string{"none", "password"}, "", 1},
		{"no password given", func(b *box) { b.password = "correct horse" }, Auth{}, "", []string{"none"}, "no password was given", 1},
		{"password not offered", func(b *box) { b.keys = []ssh.PublicKey{good.PublicKey()} },
			Auth{Password: func(context.Context) (string, error) { t.Error("asked"); return "", nil }}, "", []string{"none"}, "", 1},
		{"none only", func(b *box) { b.password = "correct horse" }, Auth{NoneOnly: true, Password: ask("correct horse"), Signers: many}, "", []string{"none"}, "", 1},
		{"key file", func(b *box) { b.keys = []ssh.PublicKey{files.plain} }, Auth{KeyFiles: []string{filepath.Join(dir, "plain")}}, "publickey", nil, "", 1},
		{"key file with passphrase", func(b *box) { b.keys = []ssh.PublicKey{files.locked} },
			Auth{KeyFiles: []string{filepath.Join(dir, "locked")}, Passphrase: func(context.Context, string) (string, error) { return "open sesame", nil }}, "publickey", nil, "", 1},
		{"wrong passphrase, then password", func(b *box) { b.keys, b.password = []ssh.PublicKey{files.locked}, "correct horse" },
			Auth{KeyFiles: []string{filepath.Join(dir, "locked")}, Passphrase: func(context.Context, string) (string, error) { return "canary", nil },
				Password: ask("correct horse")}, "password", nil, "", 1},
		{"passphrase of a key that is not wanted", func(b *box) { b.password = "correct horse" },
			Auth{KeyFiles: []string{filepath.Join(dir, "locked")}, Password: ask("correct horse"),
				Passphrase: func(context.Context, string) (string, error) { t.Error("asked"); return "", nil }}, "password", nil, "", 1},
		{"a file that is not there", func(b *box) {}, Auth{KeyFiles: []string{filepath.Join(dir, "nobody")}}, "", []string{"none"}, "nobody", 1},
		{"nobody to ask", func(b *box) { b.password = "correct horse" },
			Auth{Password: func(context.Context) (string, error) { return "", io.ErrUnexpectedEOF }}, "", []string{"none"}, "nobody to give the password", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			b.none = false
			tt.box(b)
			o := b.options()
			o.Auth = tt.auth
			c, err := Open(t.Context(), router, o)
			if n := b.connections(); n != tt.conns {
				t.Errorf("%d connections, want %d", n, tt.conns)
			}
			if tt.method != "" {
				if err != nil {
					t.Fatal(err)
				}
				if c.Method() != tt.method {
					t.Errorf("method %s, want %s", c.Method(), tt.method)
				}
				c.Close()
				return
			}
			var a *AuthError
			if !errors.As(err, &a) || !slices.Equal(a.Tried, tt.tried) || !slices.Contains(a.Offered, "publickey") {
				t.Fatalf("%v: tried %q, offered %q, want tried %q", err, a.Tried, a.Offered, tt.tried)
			}
			if !strings.Contains(strings.Join(a.Skipped, ";"), tt.skipped) {
				t.Errorf("skipped %q, want %q", a.Skipped, tt.skipped)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "canary") {
				t.Errorf("a password is in %v", err)
			}
			if known, _ := o.HostKeys.Known("192.168.1.1:22"); known != nil {
				t.Error("a host was pinned without a login")
			}
		})
	}
}

type madeKeys struct{ plain, locked ssh.PublicKey }

func keyFiles(t *testing.T, dir string) madeKeys {
	t.Helper()
	write := func(name string, k LoginKey, phrase string) ssh.PublicKey {
		text := k.Reveal()
		if phrase != "" {
			raw, err := ssh.ParseRawPrivateKey(text)
			if err != nil {
				t.Fatal(err)
			}
			text = locked(t, raw, phrase)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return k.Signer().PublicKey()
	}
	return madeKeys{write("plain", loginKey(t), ""), write("locked", loginKey(t), "open sesame")}
}

func TestNoneRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		o := b.options()
		o.Auth.Password = func(context.Context) (string, error) { t.Error("asked"); return "", nil }
		if refused, _, err := NoneRefused(t.Context(), router, o); refused || err != nil {
			t.Errorf("a fresh router: %t, %v", refused, err)
		}
		b.none, b.password = false, "x"
		refused, methods, err := NoneRefused(t.Context(), router, o)
		if !refused || err != nil || !slices.Contains(methods, "password") || !slices.Contains(methods, "publickey") {
			t.Errorf("a closed router: %t, %q, %v", refused, methods, err)
		}
		o.Dial = refusing
		var u *UnreachableError
		if refused, _, err := NoneRefused(t.Context(), router, o); refused || !errors.As(err, &u) || !u.Refused() {
			t.Errorf("no router: %t, %v", refused, err)
		}
	})
}

func TestHostKeys(t *testing.T) {
	b := newBox(t)
	dir := t.TempDir()
	store := &File{Path: filepath.Join(dir, "sub", "known-routers")}
	o := b.options()
	o.HostKeys = store
	mustOpen(t, router, o).Close()
	if fi, err := os.Stat(store.Path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	old := Fingerprint(b.hostKeys[0].PublicKey())

	b.hostKeys = []ssh.Signer{edKey(t)} // a reflash
	_, err := Open(t.Context(), router, o)
	var changed *HostKeyError
	if !errors.As(err, &changed) || !slices.Equal(changed.Known, []string{old}) ||
		changed.Seen != Fingerprint(b.hostKeys[0].PublicKey()) || changed.Type != "ssh-ed25519" {
		t.Fatalf("%v", err)
	}
	if err := Accept(store, changed); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, router, o).Close()

	// The same router at another address, known by its ID.
	byID := router
	byID.ID = "attic"
	mustOpen(t, byID, o).Close()
	byID.Addr = "192.168.77.1"
	if c := mustOpen(t, byID, o); c.FirstSight() {
		t.Error("not recognised at its new address")
	}

	// A router that lost the type of key we know has changed too.
	b.hostKeys = []ssh.Signer{rsaKey(t)}
	if _, err := Open(t.Context(), router, o); !errors.As(err, &changed) || changed.Type != "ssh-rsa" {
		t.Errorf("%v", err)
	}
	// Nobody knows it and nothing can be pinned.
	o.HostKeys = nil
	if _, err := Open(t.Context(), router, o); !errors.As(err, &changed) || len(changed.Known) != 0 {
		t.Errorf("without a store: %v", err)
	}
}

func TestTheUsersKnownHosts(t *testing.T) {
	b := newBox(t)
	b.hostKeys = append(b.hostKeys, rsaKey(t))
	user := filepath.Join(t.TempDir(), "known_hosts")
	write := func(k ssh.PublicKey) []byte {
		text := []byte("# mine\n192.168.1.1 " + string(ssh.MarshalAuthorizedKey(k)))
		if err := os.WriteFile(user, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return text
	}
	o := b.options()
	o.UserKnown = []string{user, filepath.Join(t.TempDir(), "not there")}
	text := write(b.hostKeys[1].PublicKey()) // RSA only: so that is what must be asked for
	c := mustOpen(t, router, o)
	if c.FirstSight() || c.HostKey().Type() != "ssh-rsa" {
		t.Errorf("first sight %t, %s", c.FirstSight(), c.HostKey().Type())
	}
	if k, _ := o.HostKeys.Known("192.168.1.1:22"); k == nil {
		t.Error("not pinned")
	}
	if now, _ := os.ReadFile(user); !bytes.Equal(now, text) {
		t.Error("the user's file was edited")
	}

	o.HostKeys = &Memory{}
	write(edKey(t).PublicKey())
	var changed *HostKeyError
	if _, err := Open(t.Context(), router, o); !errors.As(err, &changed) || changed.Where != user+":2" {
		t.Errorf("%v", err)
	}
	// Accepted by the person: our pin counts, the file of ssh is not ours.
	if err := Accept(o.HostKeys, changed); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, router, o)
}

func TestTheStoreIsStrict(t *testing.T) {
	f := &File{Path: filepath.Join(t.TempDir(), "known")}
	k := edKey(t).PublicKey()
	line := "other ssh-ed25519 " // cut off
	os.WriteFile(f.Path, []byte("# comment\n"+line+"\n"), 0o600)
	var bad *StoreError
	if _, err := f.Known("mine"); !errors.As(err, &bad) || bad.Line != 2 {
		t.Errorf("%v", err)
	}
	if err := f.Pin("mine", k); !errors.As(err, &bad) {
		t.Errorf("%v", err)
	}
	os.WriteFile(f.Path, []byte("# comment\n"), 0o600)
	for _, name := range []string{"a b", "", "a\nb", "#x"} {
		if err := f.Pin(name, k); !errors.As(err, &bad) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, name := range []string{"one", "two", "one"} {
		if err := f.Pin(name, k); err != nil {
			t.Fatal(err)
		}
	}
	text, _ := os.ReadFile(f.Path)
	if strings.Count(string(text), "\n") != 3 || !strings.HasPrefix(string(text), "# comment\none ssh-ed25519 ") {
		t.Errorf("%s", text)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Path), ".*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// An old dropbear dies when an algorithm is picked that it has no key for.
func TestAHandshakeThatDiesIsTriedWithOtherAlgorithms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.before = func(n int, c net.Conn) bool {
			if n > 1 {
				return false
			}
			io.WriteString(c, "SSH-2.0-dropbear\r\n")
			c.Read(make([]byte, 100))
			return true
		}
		b.hostKeys = []ssh.Signer{rsaKey(t)} // ed25519 alone gets it nowhere either
		mustOpen(t, router, b.options())
		if n := b.connections(); n != 3 {
			t.Errorf("%d connections", n)
		}
		b.before = func(_ int, c net.Conn) bool {
			io.WriteString(c, "SSH-2.0-dropbear\r\n")
			c.Read(make([]byte, 100))
			return true
		}
		var u *UnreachableError
		if _, err := Open(t.Context(), router, b.options()); !errors.As(err, &u) || u.Stage != StageHandshake {
			t.Errorf("%v", err)
		}
		if n := b.connections(); n != 3+1+len(algorithms) {
			t.Errorf("%d connections", n)
		}
	})
}

func TestWhatIsNotARouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		o := b.options()
		var not *NotSSHError
		b.before = func(_ int, c net.Conn) bool { io.WriteString(c, "220 ADAM2 FTP\x07 ready\r\nmore\r\n"); return true }
		if _, err := Open(t.Context(), router, o); !errors.As(err, &not) || not.Banner != "220 ADAM2 FTP ready" {
			t.Errorf("an FTP server: %v", err)
		}
		var u *UnreachableError
		b.before = func(_ int, c net.Conn) bool { return true }
		if _, err := Open(t.Context(), router, o); !errors.As(err, &u) || u.Stage != StageHandshake {
			t.Errorf("one that hangs up: %v", err)
		}
		b.before = func(_ int, c net.Conn) bool { c.Read(make([]byte, 1000)); c.Read(make([]byte, 1)); return true }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := Open(ctx, router, o)
		if !errors.As(err, &u) || !u.Timeout() || u.Stage != StageHandshake || time.Since(start) != time.Minute {
			t.Errorf("one that says nothing: %v after %s", err, time.Since(start))
		}
		o.Dial = refusing
		if _, err := Open(t.Context(), router, o); !errors.As(err, &u) || !u.Refused() || u.Timeout() || u.Stage != StageConnect {
			t.Errorf("one that refuses: %v", err)
		}
		if u.Error() != "192.168.1.1:22 cannot be reached: connection refused" {
			t.Errorf("says %q", u)
		}
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := Open(ctx, router, o); !errors.As(err, &u) || !errors.Is(err, context.Canceled) || u.Why() != "interrupted" {
			t.Errorf("interrupted: %v", err)
		}
	})
}

func TestALostConnectionIsTold(t *testing.T) {
	hang := func(b *box, do func()) func(string, io.Reader, io.Writer, io.Writer) int {
		return func(_ string, in io.Reader, out, _ io.Writer) int {
			io.WriteString(out, "begun\n")
			do()
			io.Copy(io.Discard, in)
			<-b.off
			return 0
		}
	}
	for _, tt := range []struct {
		name  string
		do    func(*box) func()
		after time.Duration // virtual
		cause error
	}{
		{"cut", func(b *box) func() { return func() { b.last().Close() } }, 0, nil},
		{"falls silent", func(b *box) func() {
			return func() {
				e := b.last()
				for _, p := range []*pipe{e.in, e.out} {
					p.mu.Lock()
					p.stuck = true
					p.mu.Unlock()
				}
			}
		}, 15 * time.Second, ErrSilent},
		{"takes longer than the deadline", func(*box) func() { return func() {} }, time.Hour, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox(t)
				c := mustOpen(t, router, b.options())
				time.Sleep(time.Hour) // idle is not silent
				b.run = hang(b, tt.do(b))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				r, err := c.Run(ctx, Script{Text: "canary", Stdin: []byte("canary")})
				var lost *LostError
				if !errors.As(err, &lost) || tt.cause != nil && !errors.Is(err, tt.cause) {
					t.Fatalf("%v", err)
				}
				if took := time.Since(start); took < tt.after || took > tt.after+10*time.Second || lost.Ran != took {
					t.Errorf("after %s, says %s", took, lost.Ran)
				}
				if string(r.Stdout) != "begun\n" && tt.after > 0 {
					t.Errorf("what was read: %q", r.Stdout)
				}
				if strings.Contains(fmt.Sprintf("%v %+v", err, err), "canary") {
					t.Errorf("says too much: %v", err)
				}
				<-c.Gone()
				if _, err := c.Run(ctx, Script{Text: "true"}); !errors.As(err, &lost) {
					t.Errorf("after the end: %v", err)
				}
			})
		})
	}
}

func TestThroughJumpHosts(t *testing.T) {
	inner, jump, outer := newBox(t), newBox(t), newBox(t)
	jump.none, jump.password = false, "jump password"
	inner.none, inner.password = false, "router password"
	var asked []string
	outer.forward = func(a string) (net.Conn, error) { asked = append(asked, a); return jump.dial(t.Context(), "tcp", a) }
	jump.forward = func(a string) (net.Conn, error) { asked = append(asked, a); return inner.dial(t.Context(), "tcp", a) }
	inner.forward = func(a string) (net.Conn, error) {
		l, r := net.Pipe()
		go func() { io.WriteString(r, "hello from "+a); r.Close() }()
		return l, nil
	}
	o := outer.options()
	var jumps []string
	o.Auth.Password = func(context.Context) (string, error) { return "router password", nil }
	o.Auth.JumpPassword = func(_ context.Context, host string) (string, error) {
		jumps = append(jumps, host)
		return "jump password", nil
	}
	c := mustOpen(t, Target{Addr: "192.168.1.1", Jump: "ann@outer.example.net,bob@jump.example.net:2222"}, o)
	if c.Method() != "password" || !slices.Equal(asked, []string{"jump.example.net:2222", "192.168.1.1:22"}) || !slices.Equal(jumps, []string{"jump.example.net:2222"}) {
		t.Errorf("%s, asked %q, passwords %q", c.Method(), asked, jumps)
	}
	for _, name := range []string{"outer.example.net:22", "jump.example.net:2222", "192.168.1.1:22"} {
		if k, _ := o.HostKeys.Known(name); k == nil {
			t.Errorf("%s is not pinned", name)
		}
	}
	n, err := c.Dial(t.Context(), "tcp", "192.168.1.10:80")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(n); string(got) != "hello from 192.168.1.10:80" {
		t.Errorf("%q", got)
	}
	inner.forward = nil
	var u *UnreachableError
	if _, err := c.Dial(t.Context(), "tcp", "192.168.1.10:80"); !errors.As(err, &u) || !u.Refused() {
		t.Errorf("%v", err)
	}
	c.Close()
	jump.forward = nil
	if _, err := Open(t.Context(), Target{Addr: "192.168.1.1", Jump: "outer.example.net,jump.example.net:2222"}, o); !errors.As(err, &u) || u.Via != "jump.example.net:2222" {
		t.Errorf("a jump host that cannot: %v", err)
	}
}

func TestAJumpHostThatFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jump, inner := newBox(t), newBox(t)
		silence := func() {
			e := jump.last()
			for _, p := range []*pipe{e.in, e.out} {
				p.mu.Lock()
				p.stuck = true
				p.mu.Unlock()
			}
		}
		jump.forward = func(string) (net.Conn, error) { silence(); return inner.dial(t.Context(), "tcp", "x") }
		to := Target{Addr: "192.168.1.1", Jump: "jump.example.net"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var u *UnreachableError
		if _, err := Open(ctx, to, jump.options()); !errors.As(err, &u) || !u.Timeout() {
			t.Errorf("before the connection: %v", err)
		}
		// In the middle of the handshake with the router behind it.
		jump.forward = func(string) (net.Conn, error) { return inner.dial(t.Context(), "tcp", "x") }
		inner.before = func(int, net.Conn) bool { silence(); return false }
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := Open(ctx, to, jump.options()); !errors.As(err, &u) || !u.Timeout() {
			t.Errorf("in the handshake: %v", err)
		}
		// While a script runs.
		inner.before = nil
		c := mustOpen(t, to, jump.options())
		inner.run = func(string, io.Reader, io.Writer, io.Writer) int { silence(); return 0 }
		var lost *LostError
		if _, err := c.Run(t.Context(), Script{Text: "true"}); !errors.As(err, &lost) || !errors.Is(err, ErrSilent) {
			t.Errorf("in a script: %v", err)
		}
	})
}

func TestACutWhileThePasswordIsTried(t *testing.T) {
	b := newBox(t)
	b.none, b.password = false, "x"
	o := b.options()
	o.Auth.Password = func(context.Context) (string, error) { b.last().Close(); return "canary", nil }
	var a *AuthError
	if _, err := Open(t.Context(), router, o); !errors.As(err, &a) || a.Cause == nil || !a.Broken() || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
}

func TestTheAgent(t *testing.T) {
	held, want := loginKey(t), loginKey(t)
	ring := agent.NewKeyring()
	for i, k := range []LoginKey{held, want} {
		raw, err := ssh.ParseRawPrivateKey(k.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: raw, Comment: fmt.Sprint("key", i)}); err != nil {
			t.Fatal(err)
		}
	}
	sock := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", sock)
	if err != nil {
		need.Missing(t, "unix sockets", err.Error())
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { agent.ServeAgent(ring, c); c.Close() }()
		}
	}()
	b := newBox(t)
	b.none, b.keys = false, []ssh.PublicKey{want.Signer().PublicKey()}
	o := b.options()
	o.Auth = Auth{Agent: true, AgentAt: sock}
	if c := mustOpen(t, router, o); c.Method() != "publickey" {
		t.Errorf("method %s", c.Method())
	}
	b.keys = nil
	var a *AuthError
	if _, err := Open(t.Context(), router, o); !errors.As(err, &a) || a.Broken() || !slices.Equal(a.Tried, []string{"none", "agent key key0", "agent key key1"}) {
		t.Errorf("%v", err)
	}
	o.Auth.AgentAt = sock + "-not-there"
	if _, err := Open(t.Context(), router, o); !errors.As(err, &a) || len(a.Skipped) != 1 {
		t.Errorf("%v", err)
	}
}

func TestNothingSecretIsSaid(t *testing.T) {
	b := newBox(t)
	var echoed strings.Builder
	o := b.options()
	o.Echo = func(s string) { echoed.WriteString(s) }
	c := mustOpen(t, router, o)
	r, err := c.Run(t.Context(), Script{Text: "uci show", Stdin: []byte("canary")})
	if err != nil {
		t.Fatal(err)
	}
	secret := Script{Text: "echo canary", Secret: true, Stdin: []byte("canary")}
	if _, err := c.Run(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if s := echoed.String(); !strings.Contains(s, "uci show") || strings.Contains(s, "canary") {
		t.Errorf("echoed %q", s)
	}
	for _, command := range b.execs {
		if strings.Contains(command, "canary") || strings.Contains(command, "uci") {
			t.Errorf("in an argument list: %q", command)
		}
	}
	k := loginKey(t)
	seed := string(k.Reveal()[80:120])
	for _, v := range []any{r, &r, secret, &secret, k, &k, struct{ R Result }{r}, struct{ k LoginKey }{k}} {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		hex := fmt.Sprintf("%x", "canary")
		for _, form := range []string{"canary", hex, strings.ToUpper(hex), "99 97 110 97 114 121", seed} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%T prints %q", v, form)
			}
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	box := newBox(b)
	o := box.options()
	for b.Loop() {
		c, err := Open(b.Context(), router, o)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

func BenchmarkRun(b *testing.B) {
	box := newBox(b)
	c := mustOpen(b, router, box.options())
	s := Script{Text: strings.Repeat("echo hello\n", 1000)}
	for b.Loop() {
		if _, err := c.Run(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzConfigFiles(f *testing.F) {
	f.Add(sshConfig)
	f.Add("Match all\nPort 1\nmatch host=a,b\nUser x\nMatch exec x\nUser y\nHost z")
	f.Fuzz(func(t *testing.T, text string) {
		got := string(withoutConditions([]byte(text)))
		if strings.Count(got, "\n") != strings.Count(text, "\n") {
			t.Error("lines moved")
		}
		if again := string(withoutConditions([]byte(got))); again != got {
			t.Errorf("not settled: %q", again)
		}
		parseLine(text)
	})
}
