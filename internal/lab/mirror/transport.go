package mirror

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// Transport answers requests without any network: everything that asks through it
// reaches this mirror, whatever host it named. It needs nothing but memory, so
// it works inside a synctest bubble.
func (m *Mirror) Transport() http.RoundTripper { return transport{m} }

type transport struct{ m *Mirror }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	body, pipe := io.Pipe()
	a := &answer{header: http.Header{}, pipe: pipe, begun: make(chan struct{})}
	stop := make(chan struct{})
	go func() {
		select {
		case <-r.Context().Done():
			body.CloseWithError(r.Context().Err())
			pipe.CloseWithError(r.Context().Err())
		case <-stop:
		}
	}()
	go func() {
		defer close(stop)
		defer func() {
			a.WriteHeader(http.StatusOK)
			if e := recover(); e != nil {
				pipe.CloseWithError(fmt.Errorf("connection reset by peer: %w", io.ErrUnexpectedEOF))
				return
			}
			pipe.Close()
		}()
		t.m.ServeHTTP(a, r)
	}()
	select {
	case <-a.begun:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	length := int64(-1)
	if n, err := strconv.ParseInt(a.sent.Get("Content-Length"), 10, 64); err == nil {
		length = n
	}
	return &http.Response{Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Body: body, ContentLength: length, Request: r}, nil
}

// answer is the ResponseWriter's side.
type answer struct {
	header http.Header
	pipe   *io.PipeWriter
	once   sync.Once
	begun  chan struct{}
	status int
	sent   http.Header
}

func (a *answer) Header() http.Header { return a.header }
func (a *answer) WriteHeader(status int) {
	a.once.Do(func() {
		a.status, a.sent = status, a.header.Clone()
		close(a.begun)
	})
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.pipe.Write(p)
}

func (a *answer) Flush() { a.WriteHeader(http.StatusOK) }
