package firmware

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/image"
)

// The retries and limits of this edge, in one table.
var limits = struct {
	connect, header time.Duration // until a connection stands, until the answer begins
	silence         time.Duration // without a byte in the middle
	again           []time.Duration
	redirects       int
}{
	connect: 15 * time.Second,
	header:  30 * time.Second,
	silence: 30 * time.Second,
	// After a break the rest is asked for again, as long as bytes keep coming; these
	// are the pauses between tries that bring none.
	again:     []time.Duration{0, 2 * time.Second, 5 * time.Second, 10 * time.Second},
	redirects: 5,
}

// A place is where files come from: a server or a folder.
type place interface {
	// open gives a file from byte `from` on. tag tells versions of the file apart;
	// with one, a server that holds another version gives it from the beginning:
	// got.from says where the bytes begin.
	open(ctx context.Context, name string, from int64, tag string) (*opened, error)
	// where is what to call a file's place in messages.
	where(name string) string
	// by is who vouches for files that nobody signed.
	by() string
}

type opened struct {
	io.ReadCloser
	from int64
	size int64 // of the whole file, -1 when not known
	tag  string
}

// web is a server.
type web struct {
	base   *url.URL
	client *http.Client
	agent  string
}

func newWeb(base string, rt http.RoundTripper, agent string) (*web, error) {
	u, err := url.Parse(strings.TrimSuffix(base, "/"))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &FetchError{URL: printable(base), Trouble: Unreachable, Err: errors.New("not an address of the form https://…")}
	}
	if rt == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialContext = (&net.Dialer{Timeout: limits.connect}).DialContext
		t.TLSHandshakeTimeout = limits.connect
		t.ResponseHeaderTimeout = limits.header
		rt = t
	}
	return &web{base: u, agent: agent, client: &http.Client{Transport: rt, CheckRedirect: checkRedirect}}, nil
}

// errRedirect stops a client that is sent where it should not go.
type errRedirect struct{ to string }

func (e *errRedirect) Error() string { return "sent on to " + e.to }

func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) >= limits.redirects || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
		to := *r.URL
		to.RawQuery, to.User = "", nil
		return &errRedirect{printable(to.String())}
	}
	return nil
}

func (w *web) by() string { return w.base.Host }

// method is how the connection vouches for what comes over it.
func (w *web) method() string {
	if w.base.Scheme == "https" {
		return ByTLS
	}
	return ByHTTP
}

func (w *web) where(name string) string { return w.base.JoinPath(name).String() }

func (w *web) open(ctx context.Context, name string, from int64, tag string) (*opened, error) {
	at := w.where(name)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, &FetchError{URL: at, Trouble: Unreachable, Err: err}
	}
	r.Header.Set("User-Agent", w.agent)
	r.Header.Set("Accept-Encoding", "identity") // parts of a packed file are no use
	if from > 0 && tag != "" {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		r.Header.Set("If-Range", tag)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return nil, connectError(ctx, at, err)
	}
	got, err := answer(at, resp)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return got, nil
}

func connectError(ctx context.Context, at string, err error) error {
	var to *errRedirect
	if errors.As(err, &to) {
		return &FetchError{URL: at, Trouble: Redirected, Detail: to.to, Err: to}
	}
	if ctx.Err() != nil {
		return readError(ctx, at, err)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &FetchError{URL: at, Trouble: Unreachable, Err: err}
}

var contentRange = regexp.MustCompile(`^bytes (\d+)-\d+/(\d+)$`)

// answer reads an answer's head.
func answer(at string, resp *http.Response) (*opened, error) {
	page := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")
	got := &opened{ReadCloser: resp.Body, size: resp.ContentLength, tag: tagOf(resp.Header)}
	switch {
	case resp.StatusCode == http.StatusPartialContent:
		m := contentRange.FindStringSubmatch(resp.Header.Get("Content-Range"))
		if m == nil {
			return nil, &FetchError{URL: at, Trouble: Status, Status: resp.StatusCode, Err: errors.New("a part of the file without saying which")}
		}
		got.from, _ = strconv.ParseInt(m[1], 10, 64)
		got.size, _ = strconv.ParseInt(m[2], 10, 64)
		return got, nil
	case resp.StatusCode == http.StatusOK && page:
		head := make([]byte, 4096)
		n, _ := io.ReadFull(resp.Body, head)
		return nil, &FetchError{URL: at, Trouble: WebPage, Detail: title(head[:n])}
	case resp.StatusCode == http.StatusOK:
		return got, nil
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return nil, &FetchError{URL: at, Trouble: NotFound, Status: resp.StatusCode}
	}
	return nil, &FetchError{URL: at, Trouble: Status, Status: resp.StatusCode}
}

// tagOf is what tells versions of a file apart: a strong ETag, or the date.
func tagOf(h http.Header) string {
	if t := h.Get("ETag"); t != "" && !strings.HasPrefix(t, "W/") && len(t) < 200 {
		return t
	}
	return h.Get("Last-Modified")
}

var titlePattern = regexp.MustCompile(`(?is)<title[^>]*>\s*(.*?)\s*</title>`)

// title is a page's own name, which often says whose page it is.
func title(head []byte) string {
	if m := titlePattern.FindSubmatch(head); m != nil {
		return printable(strings.Join(strings.Fields(string(m[1])), " "))
	}
	return ""
}

// isPage reports whether bytes are a web page, whatever the server calls them.
func isPage(b []byte) bool {
	m, err := image.Identify(bytes.NewReader(b), int64(len(b)))
	return err == nil && m.Kind == image.HTML
}

// folder is a directory with the server's layout.
type folder struct{ dir string }

func (f folder) by() string               { return f.dir }
func (f folder) where(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f folder) open(ctx context.Context, name string, from int64, _ string) (*opened, error) {
	at := f.where(name)
	file, err := os.Open(at)
	if err != nil {
		trouble := Unreachable
		if errors.Is(err, fs.ErrNotExist) {
			trouble = NotFound
		}
		return nil, &FetchError{URL: at, Trouble: trouble, Err: err}
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, &FetchError{URL: at, Trouble: NotFound, Err: errors.New("not a file")}
	}
	return &opened{ReadCloser: file, size: info.Size()}, nil
}

// small reads a whole list.
func small(ctx context.Context, p place, name string, limit int64) ([]byte, error) {
	for try := 0; ; try++ {
		b, err := smallOnce(ctx, p, name, limit)
		var e *FetchError
		if err == nil || !errors.As(err, &e) || e.Trouble != Lost && e.Trouble != Stalled || try+1 >= len(limits.again) {
			return b, err
		}
		if err := pause(ctx, limits.again[try]); err != nil {
			return nil, err
		}
	}
}

func smallOnce(ctx context.Context, p place, name string, limit int64) ([]byte, error) {
	ctx, watch := newWatch(ctx)
	defer watch.stop()
	o, err := p.open(ctx, name, 0, "")
	if err != nil {
		return nil, err
	}
	defer o.Close()
	b, err := io.ReadAll(io.LimitReader(watch.reader(o), limit+1))
	if err != nil {
		return nil, readError(ctx, p.where(name), err)
	}
	if int64(len(b)) > limit {
		return nil, &FetchError{URL: p.where(name), Trouble: TooLarge, Detail: strconv.FormatInt(limit, 10)}
	}
	if isPage(b) {
		return nil, &FetchError{URL: p.where(name), Trouble: WebPage, Detail: title(b[:min(len(b), 4096)])}
	}
	return b, nil
}

// errSilence is the cause when a watch ended a request.
var errSilence = errors.New("no byte for " + limits.silence.String())

// A watch ends a request in which nothing comes any more.
type watch struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func newWatch(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{cancel: cancel}
	w.timer = time.AfterFunc(limits.connect+limits.header+limits.silence, func() { cancel(errSilence) })
	return ctx, w
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

func (w *watch) reader(r io.Reader) io.Reader { return watched{w, r} }

type watched struct {
	*watch
	r io.Reader
}

func (w watched) Read(p []byte) (int, error) {
	w.timer.Reset(limits.silence)
	return w.r.Read(p)
}

// readError says why reading ended early: the caller's own end, silence, or a
// broken connection.
func readError(ctx context.Context, at string, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errSilence):
		return &FetchError{URL: at, Trouble: Stalled, Err: cause}
	case cause != nil:
		return cause
	}
	return &FetchError{URL: at, Trouble: Lost, Err: err}
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
