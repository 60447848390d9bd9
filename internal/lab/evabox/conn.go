package evabox

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how much one direction of a connection holds before its writer has
// to wait: the back-pressure that paces an upload (facts eva 1.4).
const window = 64 << 10

// A half is one direction of a connection. It keeps the writer's segments apart,
// so that a reply in two segments arrives in two.
type half struct {
	mu     sync.Mutex
	wake   *sync.Cond
	segs   [][]byte
	size   int
	eof    bool  // the writer closed
	err    error // reset, for both ends
	left   bool  // the reader is gone without a word
	silent bool  // the writer is gone without a word
	rd, wr deadline
}

func newHalf() *half {
	h := &half{}
	h.wake = sync.NewCond(&h.mu)
	return h
}

// A deadline wakes those who wait when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(h *half, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			h.wake.Broadcast()
			h.mu.Unlock()
		})
	}
	h.wake.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.rd.passed():
			return 0, os.ErrDeadlineExceeded
		case h.left:
			return 0, net.ErrClosed
		case h.err != nil:
			return 0, h.err
		case len(h.segs) > 0:
			n := copy(p, h.segs[0])
			if h.segs[0] = h.segs[0][n:]; len(h.segs[0]) == 0 {
				h.segs = h.segs[1:]
			}
			h.size -= n
			h.wake.Broadcast()
			return n, nil
		case h.eof:
			return 0, io.EOF
		}
		h.wake.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for len(p) > 0 {
		switch {
		case h.silent:
			return done, net.ErrClosed
		case h.err != nil:
			return done, h.err
		case h.eof:
			return done, net.ErrClosed
		case h.wr.passed():
			return done, os.ErrDeadlineExceeded
		case h.size < window:
			n := min(len(p), window-h.size)
			h.segs = append(h.segs, append([]byte(nil), p[:n]...))
			h.size, done, p = h.size+n, done+n, p[n:]
			h.wake.Broadcast()
			continue
		}
		h.wake.Wait()
	}
	return done, nil
}

func (h *half) end(eof bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.eof = h.eof || eof
	if h.err == nil {
		h.err = err
	}
	if err != nil {
		h.segs, h.size = nil, 0
	}
	h.wake.Broadcast()
}

// A conn is one end of a connection in memory.
type conn struct {
	in, out       *half
	local, remote net.Addr
	mu            sync.Mutex
	closed        bool
}

func newPair(a, b net.Addr) (*conn, *conn) {
	x, y := newHalf(), newHalf()
	return &conn{in: x, out: y, local: a, remote: b}, &conn{in: y, out: x, local: b, remote: a}
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *conn) Read(p []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := c.in.read(p)
	if err != nil && c.isClosed() {
		err = net.ErrClosed
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	return c.out.write(p)
}

// mortal is a connection that can end in other ways than by Close.
type mortal interface {
	Reset()  // the other end is told by a reset
	Vanish() // the other end hears nothing any more
}

// Close ends both directions: what was written still arrives, what the other end
// writes from now on is answered by a reset.
func (c *conn) Close() error {
	if c.shut() {
		c.out.end(true, nil)
		c.in.mu.Lock()
		ended := c.in.eof
		c.in.mu.Unlock()
		if !ended {
			c.in.end(false, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE})
		}
	}
	return nil
}

func (c *conn) shut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.closed
	c.closed = true
	return !was
}

// reset ends the connection for both with "connection reset by peer".
func (c *conn) reset() {
	c.shut()
	err := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	c.in.end(false, err)
	c.out.end(false, err)
}

// vanish ends this end only; the other hears nothing any more, as from a box
// without power.
func (c *conn) vanish() {
	c.shut()
	for _, h := range []*half{c.in, c.out} {
		h.mu.Lock()
		h.left = h.left || h == c.in
		h.silent = h.silent || h == c.out
		h.wake.Broadcast()
		h.mu.Unlock()
	}
}

func (c *conn) Reset()  { c.reset() }
func (c *conn) Vanish() { c.vanish() }

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }
func (c *conn) SetDeadline(t time.Time) error {
	c.in.rd.set(c.in, t)
	c.out.wr.set(c.out, t)
	return nil
}
func (c *conn) SetReadDeadline(t time.Time) error  { c.in.rd.set(c.in, t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.wr.set(c.out, t); return nil }
