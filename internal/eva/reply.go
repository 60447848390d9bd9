package eva

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Reply is one line from the box: a code and its text.
type Reply struct {
	Code int
	Text string
	// More says that the line announces another of the same code ("221-…").
	More bool
}

// parseReply reads a reply line. Lines that are none, as GETENV's values, are not
// ok.
func parseReply(line string) (Reply, bool) {
	if len(line) < 3 {
		return Reply{}, false
	}
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return Reply{}, false
		}
	}
	code, _ := strconv.Atoi(line[:3])
	if code < 100 || code > 599 {
		return Reply{}, false
	}
	switch {
	case len(line) == 3:
		return Reply{Code: code}, true
	case line[3] == ' ' || line[3] == '-':
		return Reply{code, strings.TrimSpace(line[4:]), line[3] == '-'}, true
	}
	return Reply{}, false
}

// parsePassive takes the port from a 227 reply: six numbers anywhere in it. Its
// address is ignored on purpose, the box is where we reached it (facts eva 1.1).
func parsePassive(text string) (uint16, bool) {
	fields := strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if len(fields) < 6 {
		return 0, false
	}
	hi, err1 := strconv.ParseUint(fields[len(fields)-2], 10, 8)
	lo, err2 := strconv.ParseUint(fields[len(fields)-1], 10, 8)
	port := uint16(hi)<<8 | uint16(lo)
	return port, err1 == nil && err2 == nil && port != 0
}

// parseCheck takes the number from "Flash check 0x9F288C3D": one to eight digits
// of either case (facts eva 1.5).
func parseCheck(text string) (uint32, bool) {
	const words = "Flash check 0x"
	if len(text) <= len(words) || !strings.EqualFold(text[:len(words)], words) {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(text[len(words):]), 16, 32)
	return uint32(n), err == nil
}

// lines reads lines from a connection, each with its own deadline; what arrived
// of a line survives a deadline.
type lines struct {
	conn net.Conn
	buf  []byte
	err  error
}

var errLongLine = errors.New("a line without end")

// buffered returns a whole line that is already here, without waiting.
func (l *lines) buffered() (string, bool) {
	i := bytes.IndexByte(l.buf, '\n')
	if i < 0 {
		return "", false
	}
	line := strings.TrimSuffix(string(l.buf[:i]), "\r")
	l.buf = l.buf[i+1:]
	return line, true
}

// next waits for a line until the deadline or ctx's end.
func (l *lines) next(ctx context.Context, until time.Time) (string, error) {
	for {
		if line, ok := l.buffered(); ok {
			return line, nil
		}
		if l.err != nil {
			return "", l.err
		}
		if len(l.buf) > maxLine {
			l.err = errLongLine
			continue
		}
		if err := readSome(ctx, l, until); err != nil {
			return "", err
		}
	}
}

// readSome adds what comes next. A deadline is returned and forgotten; the end of
// the connection stays.
func readSome(ctx context.Context, l *lines, until time.Time) error {
	defer limit(ctx, l.conn, until)()
	var chunk [1024]byte
	n, err := l.conn.Read(chunk[:])
	l.buf = append(l.buf, chunk[:n]...)
	switch {
	case n > 0 || err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case len(l.buf) > 0: // a last line without its end is still worth quoting
		l.buf = append(l.buf, '\n')
	}
	l.err = err
	if err == io.EOF {
		l.err = ErrGone
	}
	return nil
}

// limit sets a connection's deadline and lets ctx end it early; call the result.
func limit(ctx context.Context, c net.Conn, until time.Time) func() {
	_ = c.SetDeadline(until) // a dead connection says so at the next use
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}
