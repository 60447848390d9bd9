package shell

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A pipe is one direction of a connection, with a buffer without limit: both
// ends of SSH write their greeting first.
type pipe struct {
	mu     sync.Mutex
	cond   *sync.Cond
	b      bytes.Buffer
	closed bool
	stuck  bool // what is written is lost, and no end is told
}

func newPipe() *pipe { p := &pipe{}; p.cond = sync.NewCond(&p.mu); return p }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.b.Len() == 0 && !p.closed {
		p.cond.Wait()
	}
	if p.b.Len() > 0 {
		return p.b.Read(b)
	}
	return 0, io.EOF
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, io.ErrClosedPipe
	}
	if !p.stuck {
		p.b.Write(b)
		p.cond.Broadcast()
	}
	return len(b), nil
}

func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.cond.Broadcast()
}

type end struct {
	net.Conn // for the deadlines, which nobody calls
	in, out  *pipe
	addr     string
}

func (e *end) Read(b []byte) (int, error)  { return e.in.read(b) }
func (e *end) Write(b []byte) (int, error) { return e.out.write(b) }
func (e *end) Close() error                { e.in.close(); e.out.close(); return nil }
func (e *end) LocalAddr() net.Addr         { return address("192.168.1.100:40000") }
func (e *end) RemoteAddr() net.Addr        { return address(e.addr) }

// A box is an SSH server with what a test needs of a router.
type box struct {
	t        testing.TB
	hostKeys []ssh.Signer
	none     bool   // root has no password
	password string // "" means the method is not offered
	keys     []ssh.PublicKey
	tries    int // 0 means 3, as dropbear on OpenWrt

	// run is the router's shell.
	run func(script string, stdin io.Reader, out, errs io.Writer) int
	// before sees each connection first and may take it away.
	before func(n int, c net.Conn) bool
	// forward answers direct-tcpip.
	forward func(addr string) (net.Conn, error)

	mu    sync.Mutex
	wg    sync.WaitGroup
	off   chan struct{}
	conns []*end // the router's ends
	execs []string
}

func newBox(t testing.TB) *box {
	b := &box{t: t, hostKeys: []ssh.Signer{edKey(t)}, none: true, off: make(chan struct{})}
	b.run = func(script string, stdin io.Reader, out, errs io.Writer) int {
		fmt.Fprintf(out, "%s|", script)
		io.Copy(out, stdin)
		io.WriteString(errs, "noise")
		return 0
	}
	t.Cleanup(b.close)
	return b
}

func (b *box) close() {
	close(b.off)
	b.mu.Lock()
	for _, c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

func edKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func rsaKey(t testing.TB) ssh.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial connects to the box whatever the address.
func (b *box) dial(_ context.Context, network, addr string) (net.Conn, error) {
	up, down := newPipe(), newPipe()
	ours, theirs := &end{in: down, out: up, addr: addr}, &end{in: up, out: down, addr: addr}
	b.mu.Lock()
	b.conns = append(b.conns, theirs)
	n := len(b.conns)
	b.mu.Unlock()
	b.wg.Go(func() { b.serve(n, theirs) })
	return ours, nil
}

// connections is how many were made.
func (b *box) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

// last is the router's end of the latest connection.
func (b *box) last() *end {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns[len(b.conns)-1]
}

func (b *box) serve(n int, c net.Conn) {
	defer c.Close()
	if b.before != nil && b.before(n, c) {
		return
	}
	cfg := &ssh.ServerConfig{ServerVersion: "SSH-2.0-dropbear", NoClientAuth: b.none, MaxAuthTries: b.tries}
	if cfg.MaxAuthTries == 0 {
		cfg.MaxAuthTries = 3
	}
	if b.password != "" {
		cfg.PasswordCallback = func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
			if string(p) == b.password {
				return nil, nil
			}
			return nil, errors.New("no")
		}
	}
	cfg.PublicKeyCallback = func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		for _, a := range b.keys {
			if bytes.Equal(a.Marshal(), k.Marshal()) {
				return nil, nil
			}
		}
		return nil, errors.New("no")
	}
	for _, k := range b.hostKeys {
		cfg.AddHostKey(k)
	}
	sc, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	b.wg.Go(func() { ssh.DiscardRequests(reqs) })
	for nc := range chans {
		b.wg.Go(func() { b.channel(nc) })
	}
	sc.Close()
}

func (b *box) channel(nc ssh.NewChannel) {
	if nc.ChannelType() == "direct-tcpip" {
		b.tunnel(nc)
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range reqs {
		var m struct{ Command string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &m) != nil {
			r.Reply(false, nil)
			continue
		}
		r.Reply(true, nil)
		b.mu.Lock()
		b.execs = append(b.execs, m.Command)
		b.mu.Unlock()
		b.wg.Go(func() { ssh.DiscardRequests(reqs) })
		script, ok := readScript(ch)
		status := uint32(97)
		if ok {
			status = uint32(b.run(script, ch, ch, ch.Stderr()))
		}
		ch.SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{status}))
		return
	}
}

// readScript is what the bootstrap does.
func readScript(r io.Reader) (string, bool) {
	var line []byte
	for c := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, c); err != nil {
			return "", false
		}
		if c[0] == '\n' {
			break
		}
		line = append(line, c[0])
	}
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(string(line)), true
}

func (b *box) tunnel(nc ssh.NewChannel) {
	var m struct {
		Host     string
		Port     uint32
		From     string
		FromPort uint32
	}
	ssh.Unmarshal(nc.ExtraData(), &m)
	if b.forward == nil {
		nc.Reject(ssh.ConnectionFailed, "refused")
		return
	}
	to, err := b.forward(net.JoinHostPort(m.Host, fmt.Sprint(m.Port)))
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	b.wg.Go(func() { ssh.DiscardRequests(reqs) })
	b.wg.Go(func() { io.Copy(to, ch); to.Close() })
	io.Copy(ch, to)
	ch.Close()
}

// options log in to the box without anything of this machine.
func (b *box) options() Options {
	return Options{Dial: b.dial, HostKeys: &Memory{}, Config: "none"}
}

func refusing(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}
