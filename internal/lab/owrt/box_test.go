package owrt

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/router"
)

// start boots a box without a network.
func start(t testing.TB, o Options) *Box {
	t.Helper()
	if o.Line == (router.Line{}) {
		o.Line = router.Line2410
	}
	b := New(nil, o)
	b.PowerOn()
	if err := b.WaitBoot(context.Background()); err != nil {
		t.Fatal(err)
	}
	return b
}

func login(b *Box, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	c, chans, reqs, err := ssh.NewClientConn(b.Pipe(), "box", &ssh.ClientConfig{User: "root", Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// run sends a script to sh over one connection.
func run(t testing.TB, b *Box, script string) (out string, code int) {
	t.Helper()
	c, err := login(b)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader(script)
	both, err := s.CombinedOutput("sh")
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitStatus()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(both), code
}

func TestMain(m *testing.M) {
	sharedRSA() // not in a bubble: its state is shared by all of them
	os.Exit(m.Run())
}

// A fresh box lets root in without a password on every release, and is what it
// says it is.
func TestFreshBox(t *testing.T) {
	for _, line := range router.Lines() {
		t.Run(line.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, Options{Line: line})
				defer b.Close()
				out, code := run(t, b, "echo hello; uci get network.lan.proto; ubus call system board | jsonfilter -e '@.release.version'; cat /etc/openwrt_release >/dev/null; false\n")
				want := "hello\nstatic\n" + lastVersion[line] + "\n"
				if out != want || code != 1 {
					t.Errorf("got %q (%d), want %q", out, code, want)
				}
				if u := b.Unknown(); len(u) > 0 {
					t.Errorf("unknown: %q", u)
				}
			})
		})
	}
}

// A background job that gave its descriptors away lives on when the session
// ends, and may sleep for a minute of virtual time.
func TestDetachedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{})
		defer b.Close()
		for name, script := range map[string]string{
			"start-stop-daemon": "start-stop-daemon -S -b -m -p /tmp/x.pid -x /bin/sh -- -c 'sleep 60; echo fired >/tmp/start-stop-daemon'",
			"ampersand":         "(sleep 60; echo fired >/tmp/ampersand) </dev/null >/dev/null 2>&1 &",
		} {
			begin := time.Now()
			if out, code := run(t, b, script+"\n"); code != 0 || out != "" {
				t.Fatalf("%s: %q %d", name, out, code)
			}
			if time.Since(begin) > 5*time.Second {
				t.Errorf("%s held the session", name)
			}
			time.Sleep(59 * time.Second)
			if _, err := b.ReadFile("/tmp/" + name); err == nil {
				t.Errorf("%s fired too early", name)
			}
			time.Sleep(5 * time.Second)
			if got, _ := b.ReadFile("/tmp/" + name); got != "fired\n" {
				t.Errorf("%s: %q", name, got)
			}
		}
		// Killing it by its pid file works too.
		run(t, b, "start-stop-daemon -S -b -m -p /tmp/y.pid -x /bin/sh -- -c 'sleep 60; echo fired >/tmp/y'\nkill $(cat /tmp/y.pid)\n")
		time.Sleep(2 * time.Minute)
		if _, err := b.ReadFile("/tmp/y"); err == nil {
			t.Error("the killed job fired")
		}
	})
}

// What is not synced may be lost, what is synced is not, and RAM always is.
func TestPowerCut(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, Options{Seed: seed})
			defer b.Close()
			run(t, b, "echo old >/etc/a; echo keep >/etc/b; sync; echo new >/etc/a.new; mv /etc/a.new /etc/a; echo ram >/tmp/r")
			b.PowerCycle()
			if err := b.WaitBoot(context.Background()); err != nil {
				t.Fatal(err)
			}
			a, err := b.ReadFile("/etc/a")
			if err != nil {
				a = "missing"
			}
			seen[a] = true
			if k, _ := b.ReadFile("/etc/b"); k != "keep\n" {
				t.Errorf("seed %d: synced file is %q", seed, k)
			}
			if _, err := b.ReadFile("/tmp/r"); err == nil {
				t.Errorf("seed %d: RAM survived", seed)
			}
		})
	}
	// Old, new, and a renamed file without content must all occur.
	if !seen["old\n"] || !seen["new\n"] || !seen[""] {
		t.Errorf("outcomes seen: %v", seen)
	}
}

// Passwords and keys follow dropbear's rules (facts 3.1).
func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{Line: router.Line2305})
		defer b.Close()
		key := b.HostKey()
		if out, code := run(t, b, "printf 'correct horse\\ncorrect horse\\n' | passwd"); code != 0 {
			t.Fatal(out)
		}
		if _, err := login(b); err == nil {
			t.Error("none still works with a password set")
		}
		if _, err := login(b, ssh.Password("wrong")); err == nil {
			t.Error("a wrong password works")
		}
		c, err := login(b, ssh.Password("correct horse"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		b.Sh("uci set dropbear.@dropbear[0].PasswordAuth=off; uci commit dropbear; /etc/init.d/dropbear reload; sync")
		if _, err := login(b, ssh.Password("correct horse")); err == nil {
			t.Error("password login is off and works")
		}
		b.PowerCycle()
		b.WaitBoot(context.Background())
		if b.HostKey() != key || key == "" {
			t.Errorf("host key changed from %q to %q", key, b.HostKey())
		}
	})
}

// Made with `openssl passwd`.
func TestCrypt(t *testing.T) {
	for _, c := range []struct{ hash, password string }{
		{"$1$saltstri$YMyguxXMBpd2TEZ.vS/3q1", "Hello world!"},
		{"$5$saltstri$AcFF27v62S0zwgTU0yv0eKFexEp411.69eNIGyiG0L5", "Hello world!"},
		{"$6$saltstri$TuQo8ue714Ctf4Zl7Ctg70/YwYXvMiZP8AgmExw/pTqWoUKmQ9LD2WQO4j78UOYkYf3xOZCXu6asrMlXdzzMM1", "Hello world!"},
		{"$5$abcdefgh12345678$7K3QEOBBWzv6CfZMYkXNLTeGUxnoik0TCYNWsmcM8V7", "correct"},
		{"$6$1234567812345678$Td.pnOLLq1j4DhXBYr12DjMLzdu56X0BFhjYUzIlMX1A7X3iDYzn996aFaP9ZjQElGN8p.0IHJTP.W6NmJRFd0", "a longer pass phrase that is longer than sixty-four bytes, so that blocks repeat"},
	} {
		if !checkCrypt(c.hash, c.password) {
			t.Errorf("%s does not fit", c.hash)
		}
		if checkCrypt(c.hash, c.password+"x") {
			t.Errorf("%s fits anything", c.hash)
		}
	}
}

// A cut connection ends the session, not its job; a hook sees every command.
func TestHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Options{})
		defer b.Close()
		var argv []string
		b.SetHook(func(e Event) Action {
			if e.Kind == Before && e.Remote {
				argv = append(argv, strings.Join(e.Argv, " "))
				if e.Argv[0] == "touch" {
					return CutConnection
				}
			}
			return Continue
		})
		c, err := login(b)
		if err != nil {
			t.Fatal(err)
		}
		s, _ := c.NewSession()
		s.Stdin = strings.NewReader("touch /tmp/one\ntouch /tmp/two\necho gone\ntouch /tmp/three\n")
		if err := s.Run("sh"); err == nil {
			t.Error("the session ended well")
		}
		synctest.Wait()
		if _, err := b.ReadFile("/tmp/two"); err != nil {
			t.Error("the script did not go on after the connection was lost")
		}
		if _, err := b.ReadFile("/tmp/three"); err == nil {
			t.Error("the script outlived writing to nobody")
		}
		b.SetHook(nil)
		if st := b.Stats(); st.Connections != 1 || st.Execs != 1 {
			t.Errorf("%+v; %q", st, argv)
		}
	})
}
