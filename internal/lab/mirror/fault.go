package mirror

import (
	"net/http"
	"path"
	"strings"
	"time"
)

// A Trouble is what goes wrong.
type Trouble int

// The troubles. Bytes count from the beginning of the file, also in a request
// for its rest.
const (
	Truncated  Trouble = iota + 1 // the file ends at byte At, and so does its announced length
	Flipped                       // one bit of byte At is wrong
	Reset                         // the connection breaks after At bytes of the answer
	Slow                          // At bytes a second
	Silent                        // after At bytes of the answer nothing comes any more
	Status                        // answered with status At and a page
	WebPage                       // 200 and a log-in page, as in a hotel
	Redirect                      // sent on to To
	NoRange                       // the whole file whatever part was asked for
	OtherBytes                    // another file of the same length
)

// A Fault hits requests whose path matches.
type Fault struct {
	Path  string // a path.Match pattern of the last element, or a whole path; "" is every path
	Do    Trouble
	At    int64
	To    string
	Times int // how many requests are hit; 0 is all
	hits  int
}

// Break makes requests fail from now on.
func (m *Mirror) Break(f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, &f)
}

// Heal ends all faults.
func (m *Mirror) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = nil
}

func (m *Mirror) faultFor(name string) *Fault {
	for _, f := range m.faults {
		match, _ := path.Match(f.Path, path.Base(name))
		if f.Path != "" && f.Path != name && !match || f.Times > 0 && f.hits >= f.Times {
			continue
		}
		f.hits++
		once := *f
		return &once
	}
	return nil
}

const loginPage = "<!DOCTYPE html>\n<html><head><title>Welcome to our network</title></head><body><form action=\"/login\">Accept the terms of use to go on.</form></body></html>\n"

// early answers in place of the mirror, and reports whether it did.
func (f *Fault) early(w http.ResponseWriter, r *http.Request) bool {
	switch f.Do {
	case Status:
		http.Error(w, http.StatusText(int(f.At)), int(f.At))
	case WebPage:
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte(loginPage))
	case Redirect:
		http.Redirect(w, r, f.To, http.StatusFound)
	case NoRange:
		r.Header.Del("Range")
		return false
	default:
		return false
	}
	return true
}

// change spoils the file itself.
func (f *Fault) change(b []byte) []byte {
	switch f.Do {
	case Truncated:
		return b[:min(f.At, int64(len(b)))]
	case Flipped:
		if f.At < int64(len(b)) {
			b = []byte(string(b))
			b[f.At] ^= 1
		}
	case OtherBytes:
		return []byte(strings.Repeat("other bytes ", len(b)/12+1)[:len(b)])
	}
	return b
}

// faulty is an answer that goes wrong on its way.
type faulty struct {
	http.ResponseWriter
	fault   *Fault
	request *http.Request
	sent    int64
}

func (w *faulty) Write(p []byte) (int, error) {
	switch w.fault.Do {
	case Reset, Silent:
		if room := w.fault.At - w.sent; int64(len(p)) >= room {
			w.ResponseWriter.Write(p[:max(0, room)])
			w.flush()
			if w.fault.Do == Silent {
				<-w.request.Context().Done()
			}
			panic(http.ErrAbortHandler)
		}
	case Slow:
		return w.slowly(p)
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// slowly writes ten pieces a second.
func (w *faulty) slowly(p []byte) (int, error) {
	piece, done := int(max(1, w.fault.At/10)), 0
	tick := time.NewTicker(time.Second / 10)
	defer tick.Stop()
	for done < len(p) {
		n, err := w.ResponseWriter.Write(p[done:min(len(p), done+piece)])
		done += n
		if err != nil {
			return done, err
		}
		w.flush()
		select {
		case <-tick.C:
		case <-w.request.Context().Done():
			return done, w.request.Context().Err()
		}
	}
	return done, nil
}

func (w *faulty) flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
