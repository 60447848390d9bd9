package owrt

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/router"
)

// sshd is dropbear: its algorithms, its blank-root login, its rules for
// authorized_keys (facts: OpenWrt section 3.1, tested on 2020.81, 2024.86 and 2025.89).
type sshd struct {
	s    *system
	mu   sync.Mutex
	conf dropbearConf
	keys []ssh.Signer
	up   bool
	stop func()
}

// dropbearConf is what the init script hands over at a start.
type dropbearConf struct {
	password, rootPassword bool
	port                   uint16
}

const hostKeyDir = "/etc/dropbear"

// sharedRSA saves the time of making one for every box of a test run. What pins
// a box is its ed25519 key.
var sharedRSA = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// start reads keys and options and opens the port, as the init script does.
func (d *sshd) start() error {
	keys, err := d.hostKeys()
	if err != nil {
		return err
	}
	conf := dropbearConf{password: true, rootPassword: true, port: 22}
	if doc := d.s.config("dropbear"); doc != nil {
		for _, sec := range doc.OfType("dropbear") {
			if !sec.Bool("enable", true) {
				continue
			}
			conf.password = sec.Bool("PasswordAuth", true)
			conf.rootPassword = sec.Bool("RootPasswordAuth", true)
			if v, ok := sec.Get("Port"); ok {
				if n, err := strconv.ParseUint(v, 10, 16); err == nil {
					conf.port = uint16(n)
				}
			}
			break
		}
	}
	if d.s.line.AtLeast(router.Line2410) {
		// The init script repairs owner and mode of the keys from 24.10 on.
		f := d.s.fs
		f.Chmod(hostKeyDir, 0o700)
		if _, err := f.Stat(hostKeyDir + "/authorized_keys"); err == nil {
			f.Chmod(hostKeyDir+"/authorized_keys", 0o600)
			f.Chown(hostKeyDir+"/authorized_keys", 0, 0)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up && d.conf.port != conf.port && d.stop != nil {
		d.stop()
		d.up = false
	}
	d.conf, d.keys = conf, keys
	if d.up {
		return nil
	}
	d.up = true
	if d.s.b.stack != nil {
		l, err := d.s.b.stack.Listen(conf.port, func(c net.Conn) { d.serve(c) })
		if err != nil {
			d.up = false
			return err
		}
		d.stop = func() { l.Close() }
	}
	return nil
}

// end closes the port; sessions live on, they are processes of their own.
func (d *sshd) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop != nil {
		d.stop()
		d.stop = nil
	}
	d.up = false
}

// hostKeys reads the host keys and makes them if they are missing. dropbearkey
// syncs file and directory (mkj/dropbear src/gensignkey.c), so a key that was
// once used survives a power cut.
func (d *sshd) hostKeys() ([]ssh.Signer, error) {
	f := d.s.fs
	name := hostKeyDir + "/dropbear_ed25519_host_key"
	data, err := f.ReadFile(name)
	block, _ := pem.Decode(data)
	if err != nil || block == nil {
		var seed [8]byte
		binary.LittleEndian.PutUint64(seed[:], d.s.b.random())
		h := sha256.Sum256(append([]byte("host key "+d.s.b.opt.Name), seed[:]...))
		priv := ed25519.NewKeyFromSeed(h[:])
		block, err = ssh.MarshalPrivateKey(priv, "")
		if err != nil {
			return nil, err
		}
		if err := f.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
		f.WriteFile(hostKeyDir+"/dropbear_rsa_host_key", []byte("rsa\n"), 0o600)
		f.Sync()
		data, _ = f.ReadFile(name)
	}
	ed, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	r, err := ssh.NewSignerFromKey(sharedRSA())
	if err != nil {
		return nil, err
	}
	algos := []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	if d.s.line.AtLeast(router.Line2512) {
		algos = algos[:1]
	}
	rs, err := ssh.NewSignerWithAlgorithms(r.(ssh.AlgorithmSigner), algos)
	return []ssh.Signer{ed, rs}, err
}

// HostKey is the box's ed25519 host key as an SSH public key line, "" before
// the first boot made one.
func (b *Box) HostKey() string {
	data, err := b.ReadFile(hostKeyDir + "/dropbear_ed25519_host_key")
	if err != nil {
		return ""
	}
	k, err := ssh.ParsePrivateKey([]byte(data))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey())))
}

// random gives a number that depends on the seed.
func (b *Box) random() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.Uint64()
}

func (d *sshd) config() *ssh.ServerConfig {
	d.mu.Lock()
	conf, keys := d.conf, d.keys
	d.mu.Unlock()
	line := d.s.line
	c := &ssh.ServerConfig{MaxAuthTries: 3, ServerVersion: "SSH-2.0-dropbear"}
	c.KeyExchanges = []string{"curve25519-sha256", "curve25519-sha256@libssh.org", "diffie-hellman-group14-sha256"}
	c.MACs = []string{"hmac-sha2-256"}
	c.Ciphers = []string{"chacha20-poly1305@openssh.com", "aes128-ctr", "aes256-ctr"}
	if line.Before(router.Line2410) {
		c.KeyExchanges = append(c.KeyExchanges, "diffie-hellman-group14-sha1")
		c.MACs = []string{"hmac-sha1", "hmac-sha2-256"}
	}
	hash := d.s.shadow("root")
	passwords := conf.password && conf.rootPassword
	// Patch 600-allow-blank-root-password: `none` succeeds for root with an
	// empty hash unless password logins are off (-s or -g).
	if passwords && hash == "" {
		c.NoClientAuth = true
		c.NoClientAuthCallback = func(m ssh.ConnMetadata) (*ssh.Permissions, error) {
			if m.User() != "root" || d.s.shadow("root") != "" {
				return nil, errors.New("no")
			}
			d.s.b.logf("authpriv.notice dropbear", "Auth succeeded with blank password for 'root' from %s", m.RemoteAddr())
			return nil, nil
		}
	}
	if passwords {
		c.PasswordCallback = func(m ssh.ConnMetadata, pw []byte) (*ssh.Permissions, error) {
			if m.User() == "root" && checkCrypt(d.s.shadow("root"), string(pw)) {
				d.s.b.logf("authpriv.notice dropbear", "Password auth succeeded for 'root' from %s", m.RemoteAddr())
				return nil, nil
			}
			d.s.b.logf("authpriv.warn dropbear", "Bad password attempt for '%s' from %s", m.User(), m.RemoteAddr())
			return nil, errors.New("no")
		}
	}
	c.PublicKeyCallback = func(m ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if m.User() == "root" && d.authorized(k) {
			return nil, nil
		}
		return nil, errors.New("no")
	}
	for _, k := range keys {
		c.AddHostKey(k)
	}
	return c
}

// authorized looks a key up in /etc/dropbear/authorized_keys. A file or
// directory that is not root's, or that others may write, is ignored with a
// line in the log only (openwrt/luci#3226).
func (d *sshd) authorized(k ssh.PublicKey) bool {
	f := d.s.fs
	name := hostKeyDir + "/authorized_keys"
	for _, n := range []string{hostKeyDir, name} {
		st, err := f.Stat(n)
		if err != nil {
			return false
		}
		if st.UID != 0 || st.FileMode&0o022 != 0 {
			d.s.b.logf("authpriv.warn dropbear", "%s must be owned by user or root, and not writable by group or others", n)
			return false
		}
	}
	rest, err := f.ReadFile(name)
	for err == nil && len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		got, _, _, _, e := ssh.ParseAuthorizedKey(line)
		if e == nil && bytes.Equal(got.Marshal(), k.Marshal()) {
			return true
		}
	}
	return false
}

// accept serves a connection on a goroutine of its own.
func (d *sshd) accept(c net.Conn) {
	d.s.b.wg.Add(1)
	go func() {
		defer d.s.b.wg.Done()
		d.serve(c)
	}()
}

// session is one SSH connection: in dropbear a process of its own.
type session struct {
	b    *Box
	d    *sshd
	conn net.Conn
	ctx  context.Context
	end  context.CancelFunc

	mu    sync.Mutex
	pipes [][3]*ash.Pipe // of the commands at work
}

// drop ends the connection; whoever writes to it from now on finds nobody.
func (s *session) drop() {
	s.end()
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.pipes {
		q[0].CloseWrite()
		q[1].CloseRead()
		q[2].CloseRead()
	}
}

// counter counts the bytes of a connection.
type counter struct {
	net.Conn
	b *Box
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.b.stats.bytes.Add(int64(n))
	return n, err
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.b.stats.bytes.Add(int64(n))
	return n, err
}

func (d *sshd) serve(raw net.Conn) {
	b := d.s.b
	s := &session{b: b, d: d, conn: raw}
	s.ctx, s.end = context.WithCancel(d.s.k.Context())
	defer s.drop()
	b.mu.Lock()
	alive := b.on && b.sys == d.s
	if alive {
		b.conns[s] = true
	}
	b.mu.Unlock()
	if !alive {
		return
	}
	defer func() {
		b.mu.Lock()
		delete(b.conns, s)
		b.mu.Unlock()
	}()
	b.stats.conns.Add(1)
	conn, channels, reqs, err := ssh.NewServerConn(counter{raw, b}, d.config())
	if err != nil {
		return
	}
	go func() {
		for r := range reqs {
			// dropbear answers keepalives with a failure, like any request it does not know.
			if r.WantReply {
				r.Reply(false, nil)
			}
		}
	}()
	var wg sync.WaitGroup
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			wg.Add(1)
			go func() { defer wg.Done(); s.channel(ch) }()
		case "direct-tcpip":
			wg.Add(1)
			go func() { defer wg.Done(); s.forward(ch) }()
		default:
			ch.Reject(ssh.UnknownChannelType, "")
		}
	}
	conn.Close()
	s.end()
	wg.Wait()
}

// forward carries a TCP connection on behalf of the other end (jump host).
func (s *session) forward(nc ssh.NewChannel) {
	var m struct {
		Host  string
		Port  uint32
		OHost string
		OPort uint32
	}
	if ssh.Unmarshal(nc.ExtraData(), &m) != nil || s.b.stack == nil {
		nc.Reject(ssh.ConnectionFailed, "")
		return
	}
	to, err := s.b.stack.Dial(s.ctx, "tcp", net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))))
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, "Error connecting: Connection refused")
		return
	}
	defer to.Close()
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(to, ch)
		if h, ok := to.(interface{ CloseWrite() error }); ok {
			h.CloseWrite()
		}
	}()
	io.Copy(ch, to)
	ch.Close()
	<-done
}

func (s *session) channel(nc ssh.NewChannel) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	var once sync.Once
	for r := range reqs {
		ok := false
		switch r.Type {
		case "exec":
			var m struct{ Command string }
			if ssh.Unmarshal(r.Payload, &m) == nil {
				ok = true
				s.reply(r, true)
				once.Do(func() { go s.run(ch, []string{"/bin/ash", "-c", m.Command}) })
			}
		case "shell":
			ok = true
			s.reply(r, true)
			once.Do(func() { go s.run(ch, []string{"-ash"}) })
		case "pty-req", "window-change", "signal":
			ok = r.Type == "pty-req"
		}
		// No sftp-server, and no environment from outside.
		if !ok || r.Type == "pty-req" {
			s.reply(r, ok)
		}
	}
}

func (s *session) reply(r *ssh.Request, ok bool) {
	if r.WantReply {
		r.Reply(ok, nil)
	}
}

// run does one command. Its processes get no signal when the connection dies:
// they read an end of input and die writing to a pipe that nobody reads.
func (s *session) run(ch ssh.Channel, argv []string) {
	s.b.stats.execs.Add(1)
	in, out, errs := ash.NewPipe(), ash.NewPipe(), ash.NewPipe()
	s.mu.Lock()
	s.pipes = append(s.pipes, [3]*ash.Pipe{in, out, errs})
	s.mu.Unlock()
	env := map[string]string{"PATH": ash.DefaultPath, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/ash",
		"SSH_CONNECTION": fmt.Sprintf("%s %s", s.conn.RemoteAddr(), s.conn.LocalAddr())}
	sp := ash.Spawn{Args: argv, Env: env, Cwd: "/root", Session: s}
	sp.Stdio(in, out, errs)
	if argv[0] == "-ash" {
		sp = sp.Doing(func(p *ash.Proc) int { return ash.Sh(p, []string{"-ash"}) })
	}
	p := s.d.s.k.Start(nil, sp)
	go func() {
		buf := make([]byte, 8192)
		for {
			n, err := ch.Read(buf)
			if n > 0 {
				if _, e := in.WriteCtx(s.ctx, buf[:n]); e != nil && s.ctx.Err() == nil {
					io.Copy(io.Discard, ch) // nobody reads it: dropbear throws it away
					return
				}
			}
			if err != nil {
				in.CloseWrite()
				return
			}
		}
	}()
	var pumps sync.WaitGroup
	pump := func(q *ash.Pipe, w io.Writer) {
		defer pumps.Done()
		buf := make([]byte, 8192)
		for {
			n, err := q.ReadCtx(s.ctx, buf)
			if n > 0 {
				if _, e := w.Write(buf[:n]); e != nil {
					err = e
				}
			}
			if err != nil {
				q.CloseRead()
				return
			}
		}
	}
	pumps.Add(2)
	go pump(out, ch)
	go pump(errs, ch.Stderr())
	select {
	case <-p.Done():
	case <-s.ctx.Done():
		in.CloseWrite()
		out.CloseRead()
		errs.CloseRead()
		return
	}
	// dropbear flushes what the command has written and closes, even when a
	// background job still holds the pipe.
	out.CloseWrite()
	errs.CloseWrite()
	pumps.Wait()
	status := make([]byte, 4)
	binary.BigEndian.PutUint32(status, uint32(p.Status()))
	if st := p.Status(); st > 128 && st < 160 && killedBySignal(p) {
		ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal string
			Core   bool
			Msg    string
			Lang   string
		}{strings.TrimPrefix(signalName(st-128), "SIG"), false, "", ""}))
	} else {
		ch.SendRequest("exit-status", false, status)
	}
	ch.CloseWrite()
	ch.Close()
}

func killedBySignal(p *ash.Proc) bool { return p.Killed() }

func signalName(n int) string {
	s, _ := ash.SignalName(strconv.Itoa(n))
	return s
}

// shadow gives a user's password hash.
func (s *system) shadow(user string) string {
	data, err := s.fs.ReadFile("/etc/shadow")
	if err != nil {
		return "*"
	}
	for _, l := range strings.Split(string(data), "\n") {
		w := strings.Split(l, ":")
		if len(w) > 1 && w[0] == user {
			return w[1]
		}
	}
	return "*"
}
