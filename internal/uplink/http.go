package uplink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of what an ISP router may send us.
const (
	maxBody   = 256 << 10 // a FRITZ!Box's tr64desc.xml has some 20 KiB
	maxHeader = 16 << 10
)

// A place is a page of the ISP router. Only port and path are taken from what it
// says: whatever name or address it writes into a URL, we go to its own.
type place struct {
	port uint16
	path string // with query
}

func (p place) String() string { return fmt.Sprintf("port %d %s", p.port, p.path) }

// parsePlace reads a URL, or a path relative to base.
func parsePlace(text string, base place) (place, bool) {
	text = strings.TrimSpace(text)
	if len(text) > 512 {
		return place{}, false
	}
	from := &url.URL{Scheme: "http", Host: "router:" + strconv.Itoa(int(base.port)), Path: "/"}
	if u, err := url.Parse(base.path); err == nil {
		from = from.ResolveReference(u)
	}
	u, err := url.Parse(text)
	if err != nil {
		return place{}, false
	}
	u = from.ResolveReference(u)
	port := uint64(80)
	if s := u.Port(); s != "" {
		if port, err = strconv.ParseUint(s, 10, 16); err != nil || port == 0 {
			return place{}, false
		}
	}
	if u.Scheme != "http" || u.Host == "" {
		return place{}, false
	}
	return place{uint16(port), u.RequestURI()}, true
}

// reply is an HTTP answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// send makes one HTTP request to the ISP router at addr. The connection is new
// and ends with the answer; redirections are not followed. It is not done by
// http.Transport, because that writes into the log what it does not expect.
func send(ctx context.Context, dial dialer, addr netip.Addr, p place, method string, header http.Header, body string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+netip.AddrPortFrom(addr, p.port).String()+p.path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("User-Agent", "heimweg UPnP/1.1")
	req.Close = true
	conn, err := dial(ctx, "tcp", netip.AddrPortFrom(addr, p.port).String())
	if err != nil {
		return reply{}, ended(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r, err := converse(conn, req)
	if err != nil && !isOurs(err) {
		err = ended(ctx, err)
	}
	return r, err
}

// converse sends a request and reads what comes back, to its end.
func converse(conn net.Conn, req *http.Request) (reply, error) {
	if err := req.Write(conn); err != nil {
		return reply{}, err
	}
	limit := &io.LimitedReader{R: conn, N: maxHeader}
	in := bufio.NewReader(limit)
	res, err := http.ReadResponse(in, req)
	for i := 0; err == nil && res.StatusCode < 200 && i < 3; i++ { // "100 Continue"
		res, err = http.ReadResponse(in, req)
	}
	switch {
	case err != nil && limit.N <= 0:
		return reply{}, &GarbledError{Reply: "answer", What: "its header does not end"}
	case err != nil && strings.Contains(err.Error(), "malformed"):
		return reply{}, &GarbledError{Reply: "answer", What: "no HTTP"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return reply{}, &GarbledError{Reply: "answer", What: "it ends at once"}
	case err != nil:
		return reply{}, err
	}
	defer res.Body.Close()
	limit.N = maxBody + 4096 // with the words that chunks bring along
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch {
	case len(b) > maxBody || limit.N <= 0:
		return reply{}, &GarbledError{Reply: "answer", What: fmt.Sprintf("more than %d bytes", maxBody)}
	case err != nil:
		return reply{}, err
	}
	return reply{res.StatusCode, res.Header, b}, nil
}

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// plain turns an error of the network into one of ours. The caller's own end of
// ctx stays what it is.
func plain(ctx context.Context, err error, started time.Time) error {
	var t net.Error
	switch {
	case err == nil, isOurs(err):
		return err
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &t) && t.Timeout():
		return &NoAnswerError{Waited: time.Since(started)}
	case errors.Is(err, syscall.ECONNREFUSED), says(err, "connection refused", "actively refused it"):
		// An SSH channel, and Windows, tell the reason in words only.
		return &RefusedError{Why: SwitchedOff, Reply: "connection refused"}
	}
	return &UnreachableError{Cause: err}
}

func says(err error, words ...string) bool {
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// isOurs reports whether err says already what happened.
func isOurs(err error) bool {
	for _, e := range []any{new(*RefusedError), new(*NoAnswerError), new(*GarbledError), new(*NotPossibleError), new(*DifferentError), new(*ConflictError), new(*UnreachableError)} {
		if errors.As(err, e) {
			return true
		}
	}
	return false
}

// oneLine makes text from outside fit for a message: printable, one line, short.
func oneLine(s string, most int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r == '\u2028' || r == '\u2029' || r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == '\ufffd' {
			return ' '
		}
		return r
	}, s)), " ")
	if r := []rune(s); len(r) > most {
		s = string(r[:most])
	}
	return s
}
