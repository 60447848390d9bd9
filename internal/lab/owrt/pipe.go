package owrt

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
)

// pipeConn is one end of a buffered connection in memory. net.Pipe is not
// buffered, and SSH's two version lines wait for each other on it.
type pipeConn struct {
	in, out *ash.Pipe
	mu      sync.Mutex
	ctx     context.Context
	cancel  context.CancelFunc
	dead    time.Time
}

func bufferedPipe() (a, b net.Conn) {
	x, y := ash.NewPipe(), ash.NewPipe()
	mk := func(in, out *ash.Pipe) *pipeConn {
		c := &pipeConn{in: in, out: out}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		return c
	}
	return mk(x, y), mk(y, x)
}

func (c *pipeConn) wait() (context.Context, context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead.IsZero() {
		return c.ctx, func() {}
	}
	return context.WithDeadline(c.ctx, c.dead)
}

func (c *pipeConn) Read(p []byte) (int, error) {
	ctx, stop := c.wait()
	defer stop()
	n, err := c.in.ReadCtx(ctx, p)
	return n, netErr(err)
}

func (c *pipeConn) Write(p []byte) (int, error) {
	ctx, stop := c.wait()
	defer stop()
	n, err := c.out.WriteCtx(ctx, p)
	return n, netErr(err)
}

func netErr(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, context.Canceled):
		return net.ErrClosed
	}
	return err
}

func (c *pipeConn) Close() error {
	c.cancel()
	c.in.CloseRead()
	c.out.CloseWrite()
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "127.0.0.1:0" }

func (c *pipeConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }
func (c *pipeConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = t
	return nil
}
func (c *pipeConn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *pipeConn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }
