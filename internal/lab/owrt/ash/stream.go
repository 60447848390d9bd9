package ash

import (
	"context"
	"crypto/rand"
	"io"
	"strconv"
	"sync"
	"syscall"

	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

func itoa(n int) string { return strconv.Itoa(n) }

// stream is what a descriptor reads from or writes to.
type stream interface {
	Read(ctx context.Context, p []byte) (int, error)
	Write(ctx context.Context, p []byte) (int, error)
	Close()
}

// nullStream is /dev/null.
type nullStream struct{}

func (nullStream) Read(context.Context, []byte) (int, error)      { return 0, io.EOF }
func (nullStream) Write(_ context.Context, p []byte) (int, error) { return len(p), nil }
func (nullStream) Close()                                         {}

// zeroStream is /dev/zero, randomStream /dev/urandom, fullStream /dev/full.
type zeroStream struct{ nullStream }

func (zeroStream) Read(_ context.Context, p []byte) (int, error) { clear(p); return len(p), nil }

type randomStream struct{ nullStream }

func (randomStream) Read(_ context.Context, p []byte) (int, error) { return rand.Read(p) }

type fullStream struct{ zeroStream }

func (fullStream) Write(context.Context, []byte) (int, error) { return 0, syscall.ENOSPC }

// fileStream is an open file.
type fileStream struct{ f *boxfs.File }

func (s fileStream) Read(_ context.Context, p []byte) (int, error)  { return s.f.Read(p) }
func (s fileStream) Write(_ context.Context, p []byte) (int, error) { return s.f.Write(p) }
func (s fileStream) Close()                                         { s.f.Close() }

// extStream reads or writes something outside the box that never blocks long.
type extStream struct {
	r io.Reader
	w io.Writer
}

func (s *extStream) Read(_ context.Context, p []byte) (int, error) {
	if s.r == nil {
		return 0, syscall.EBADF
	}
	return s.r.Read(p)
}

func (s *extStream) Write(_ context.Context, p []byte) (int, error) {
	if s.w == nil {
		return 0, syscall.EBADF
	}
	return s.w.Write(p)
}
func (s *extStream) Close() {}

// pipeSize is that of Linux.
const pipeSize = 65536

// Pipe is a pipe between processes, or between a process and a session. Unlike
// an operating system's it lets a testing/synctest bubble see that everybody waits.
type Pipe struct {
	mu      sync.Mutex
	buf     []byte
	noRead  bool
	noWrite bool
	change  chan struct{}
}

// NewPipe makes an empty pipe.
func NewPipe() *Pipe { return &Pipe{change: make(chan struct{})} }

func (q *Pipe) wake() {
	close(q.change)
	q.change = make(chan struct{})
}

// ReadCtx waits for data, the end, or ctx.
func (q *Pipe) ReadCtx(ctx context.Context, p []byte) (int, error) {
	for {
		q.mu.Lock()
		if len(q.buf) > 0 {
			n := copy(p, q.buf)
			q.buf = q.buf[n:]
			q.wake()
			q.mu.Unlock()
			return n, nil
		}
		if q.noWrite || q.noRead {
			q.mu.Unlock()
			return 0, io.EOF
		}
		c := q.change
		q.mu.Unlock()
		select {
		case <-c:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// WriteCtx waits for room. It fails with EPIPE when nobody reads any more.
func (q *Pipe) WriteCtx(ctx context.Context, p []byte) (int, error) {
	done := 0
	for {
		q.mu.Lock()
		if q.noRead {
			q.mu.Unlock()
			return done, syscall.EPIPE
		}
		if room := pipeSize - len(q.buf); room > 0 && len(p) > 0 {
			n := min(room, len(p))
			q.buf = append(q.buf, p[:n]...)
			p = p[n:]
			done += n
			q.wake()
		}
		if len(p) == 0 {
			q.mu.Unlock()
			return done, nil
		}
		c := q.change
		q.mu.Unlock()
		select {
		case <-c:
		case <-ctx.Done():
			return done, context.Cause(ctx)
		}
	}
}

// CloseWrite is the end of the data, CloseRead the end of the interest in it.
func (q *Pipe) CloseWrite() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.noWrite = true
	q.wake()
}

// CloseRead makes later writes fail with EPIPE.
func (q *Pipe) CloseRead() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.noRead = true
	q.wake()
}

// Len is the number of bytes that wait to be read.
func (q *Pipe) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.buf)
}

type pipeReader struct{ q *Pipe }

func (r pipeReader) Read(ctx context.Context, p []byte) (int, error) { return r.q.ReadCtx(ctx, p) }
func (pipeReader) Write(context.Context, []byte) (int, error)        { return 0, syscall.EBADF }
func (r pipeReader) Close()                                          { r.q.CloseRead() }

type pipeWriter struct{ q *Pipe }

func (pipeWriter) Read(context.Context, []byte) (int, error)          { return 0, syscall.EBADF }
func (w pipeWriter) Write(ctx context.Context, p []byte) (int, error) { return w.q.WriteCtx(ctx, p) }
func (w pipeWriter) Close()                                           { w.q.CloseWrite() }

// Stdio gives a process pipes as its descriptors 0 to 2.
func (s *Spawn) Stdio(in, out, err *Pipe) {
	s.fds = map[int]*desc{0: newDesc(pipeReader{in}), 1: newDesc(pipeWriter{out}), 2: newDesc(pipeWriter{err})}
}

// openStream opens a path for a redirection, devices included.
func (p *Proc) openStream(name string, flag boxfs.Flag) (*desc, error) {
	full := p.Path(name)
	if full == "/dev/stdin" || full == "/dev/fd/0" || full == "/proc/self/fd/0" {
		return p.dupFD(0)
	}
	if full == "/dev/stdout" || full == "/proc/self/fd/1" {
		return p.dupFD(1)
	}
	if full == "/dev/stderr" || full == "/proc/self/fd/2" {
		return p.dupFD(2)
	}
	f, err := p.K.FS.Open(full, flag, 0o666&^p.Mask)
	if err != nil {
		return nil, err
	}
	switch f.Dev() {
	case "null", "console", "tty", "kmsg":
		return newDesc(nullStream{}), nil
	case "zero":
		return newDesc(zeroStream{}), nil
	case "urandom", "random":
		return newDesc(randomStream{}), nil
	case "full":
		return newDesc(fullStream{}), nil
	}
	return newDesc(fileStream{f}), nil
}

func (p *Proc) dupFD(n int) (*desc, error) {
	if d := p.get(n); d != nil {
		return d.dup(), nil
	}
	return nil, syscall.EBADF
}

// Open opens a path (also /dev/stdin, /dev/null and the like) for a program.
// Close it.
func (p *Proc) Open(name string, flag boxfs.Flag) (*Handle, error) {
	p.Check()
	d, err := p.openStream(name, flag)
	if err != nil {
		return nil, err
	}
	return &Handle{p, d}, nil
}

// Handle is an open descriptor of a program.
type Handle struct {
	p *Proc
	d *desc
}

// Read and Write end the process when it was killed.
func (h *Handle) Read(b []byte) (int, error) {
	h.p.Check()
	n, err := h.d.s.Read(h.p.ctx, b)
	h.p.Check()
	return n, err
}

// Write writes.
func (h *Handle) Write(b []byte) (int, error) {
	h.p.Check()
	n, err := h.d.s.Write(h.p.ctx, b)
	if err == syscall.EPIPE {
		panic(leave{128 + 13})
	}
	h.p.Check()
	return n, err
}

// File is the open file, nil for devices and pipes.
func (h *Handle) File() *boxfs.File {
	if f, ok := h.d.s.(fileStream); ok {
		return f.f
	}
	return nil
}

// Close closes.
func (h *Handle) Close() error { h.d.close(); return nil }
