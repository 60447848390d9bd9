package shell

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/shadow"
)

// A real SSH server on loopback, in a mount namespace of its own with an account
// root that the test makes up: its home, its key and its password.
type realServer struct {
	name    string
	program string
	makeKey []string // program and arguments before the file name
	args    func(dir, port string) []string
	blank   bool   // root has no password
	login   string // root's password; else only the key is let in
}

func dropbearArgs(more ...string) func(dir, port string) []string {
	return func(dir, port string) []string {
		return append([]string{"-F", "-E", "-r", dir + "/host", "-p", "127.0.0.1:" + port, "-P", dir + "/pid"}, more...)
	}
}

var (
	// With only an ed25519 host key dropbear 2022.83 dies when RSA is picked
	// (facts: deps.md 5).
	dropbearKey = []string{"dropbearkey", "-t", "ed25519", "-f"}

	realServers = []realServer{
		{"dropbear", "dropbear", dropbearKey, dropbearArgs("-s"), false, ""},
		{"dropbear, root without password", "dropbear", dropbearKey, dropbearArgs("-B"), true, ""},
		{"dropbear, password", "dropbear", dropbearKey, dropbearArgs(), false, "correct horse"},
	}
)

// openSSH is not among them by itself: Debian's package of it starts a service
// on the machine. With HEIMWEG_SSHD=/path/to/sshd in the environment the test
// has one case more.
func openSSH(program string) realServer {
	return realServer{"OpenSSH", program, []string{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"}, func(dir, port string) []string {
		return []string{"-D", "-e", "-f", "/dev/null", "-h", dir + "/host", "-o", "ListenAddress=127.0.0.1:" + port, "-o", "PidFile=none"}
	}, false, ""}
}

// inside runs in the namespace; $D is the test's directory.
const inside = `set -e
mount -t tmpfs -o mode=700 none /root
mkdir -m 700 /root/.ssh
cp "$D/authorized_keys" /root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
mount -t tmpfs -o mode=755 none /run
mkdir -m 755 /run/sshd
mount --bind "$D/passwd" /etc/passwd
mount --bind "$D/shadow" /etc/shadow
exec "$@"`

func TestRealServers(t *testing.T) {
	servers := slices.Clone(realServers)
	if sshd := os.Getenv("HEIMWEG_SSHD"); sshd != "" {
		servers = append(servers, openSSH(sshd))
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			program := s.program
			if !filepath.IsAbs(program) {
				program = need.Program(t, program)
			}
			unshare := []string{need.Program(t, "unshare"), "--mount"}
			if os.Getuid() != 0 {
				unshare = append(unshare, "--map-root-user")
			}
			if err := exec.Command(unshare[0], append(unshare[1:], "mount", "-t", "tmpfs", "none", "/run")...).Run(); err != nil {
				need.Missing(t, "mount namespace", "this machine lets nobody make one: "+err.Error())
			}
			need.Program(t, s.makeKey[0])
			dir := t.TempDir()
			if out, err := exec.Command(s.makeKey[0], append(s.makeKey[1:], dir+"/host")...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			k := loginKey(t)
			field := "*"
			switch {
			case s.blank:
				field = ""
			case s.login != "":
				var err error
				if field, err = shadow.Hash(rand.Reader, s.login); err != nil {
					t.Fatal(err)
				}
			}
			for name, text := range map[string]string{
				"authorized_keys": k.Authorized + "\n",
				"passwd":          "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n",
				"shadow":          "root:" + field + ":19000:0:99999:7:::\n",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			os.Chmod(filepath.Join(dir, "passwd"), 0o644)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr().String()
			l.Close()
			_, port, _ := net.SplitHostPort(addr)
			args := append(unshare[1:], "sh", "-c", inside, "sh", program)
			cmd := exec.Command(unshare[0], append(args, s.args(dir, port)...)...)
			log, err := os.Create(filepath.Join(dir, "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			cmd.Stdout, cmd.Stderr = log, log
			cmd.Env = append(os.Environ(), "D="+dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cmd.Process.Kill(); cmd.Wait() }()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			o := Options{Config: "none", HostKeys: &Memory{}, Auth: Auth{Signers: []ssh.Signer{k.Signer()}}}
			c, err := untilUp(ctx, Target{Addr: addr}, o)
			if err != nil {
				said, _ := os.ReadFile(log.Name())
				t.Fatalf("%v\n%s", err, said)
			}
			defer c.Close()
			want := "publickey"
			if s.blank {
				want = "none"
			}
			if s.login != "" {
				byPassword(t, ctx, Target{Addr: addr}, o, s.login)
			}
			if c.Method() != want || c.HostKey().Type() != "ssh-ed25519" {
				t.Errorf("method %s, host key %s", c.Method(), c.HostKey().Type())
			}
			talk(t, ctx, c)
			refused, methods, err := NoneRefused(ctx, Target{Addr: addr}, o)
			if err != nil || refused == s.blank {
				t.Errorf("none refused: %t, %q, %v", refused, methods, err)
			}
			many := o
			many.Auth.Signers = []ssh.Signer{edKey(t), edKey(t), edKey(t), edKey(t), edKey(t), k.Signer()}
			if c, err := Open(ctx, Target{Addr: addr}, many); err != nil {
				t.Errorf("the sixth key: %v", err)
			} else {
				c.Close()
			}
		})
	}
}

// byPassword checks that the hash we make is understood, and that a wrong
// password is told as such.
func byPassword(t *testing.T, ctx context.Context, to Target, o Options, password string) {
	t.Helper()
	o.Auth = Auth{Password: func(context.Context) (string, error) { return password, nil }}
	c, err := Open(ctx, to, o)
	if err != nil {
		t.Error(err)
		return
	}
	if c.Method() != "password" {
		t.Errorf("method %s", c.Method())
	}
	c.Close()
	o.Auth.Password = func(context.Context) (string, error) { return "canary", nil }
	var a *AuthError
	if _, err := Open(ctx, to, o); !errors.As(err, &a) || strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong password: %v", err)
	}
}

func untilUp(ctx context.Context, to Target, o Options) (*Conn, error) {
	for {
		c, err := Open(ctx, to, o)
		var u *UnreachableError
		if errors.As(err, &u) && u.Refused() && ctx.Err() == nil {
			continue // not listening yet
		}
		return c, err
	}
}

// talk is what heimweg does on a connection.
func talk(t *testing.T, ctx context.Context, c *Conn) {
	t.Helper()
	big := strings.Repeat("0123456789abcde\n", 1<<16) // 1 MiB
	for _, tt := range []struct {
		s    Script
		want string
		exit int
	}{
		{Script{Text: `printf '%s\n' 'a\b'` + "\nexit 3"}, "a\\b\n", 3},
		{Script{Text: "cat", Stdin: []byte(big)}, big, 0},
		{Script{Text: "true", Stdin: []byte(big)}, "", 0},
		{Script{Text: "# " + strings.Repeat("x", 200000) + "\necho long"}, "long\n", 0},
		{Script{Text: "kill -9 $$"}, "", 128 + 9},
	} {
		r, err := c.Run(ctx, tt.s)
		if err != nil || string(r.Stdout) != tt.want || r.Exit != tt.exit {
			t.Errorf("%.40q: %s, %v; want exit %d", tt.s.Text, r, err, tt.exit)
		}
	}
	_, port, _ := net.SplitHostPort(c.Addr())
	n, err := c.Dial(ctx, "tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	b := make([]byte, 4)
	if _, err := n.Read(b); err != nil || string(b) != "SSH-" {
		t.Errorf("through the connection: %q, %v", b, err)
	}
}
