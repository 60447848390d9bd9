package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// An Answer is what came back to a handshake initiation.
type Answer int

// The answers, worst first.
const (
	Unsent   Answer = iota // this computer could not even send
	Silence                // nothing came back
	Refused                // the host says that nothing listens there
	Cookie                 // the router is there and under load
	Unfit                  // a response that does not fit: the preshared keys differ
	Answered               // a fitting response
)

func (a Answer) String() string {
	switch a {
	case Unsent:
		return "nothing could be sent"
	case Silence:
		return "no answer at all"
	case Refused:
		return "the host says that nothing listens on that port"
	case Cookie:
		return "the router answers that it is under load"
	case Unfit:
		return "an answer came that does not fit, as with a wrong preshared key"
	case Answered:
		return "a fitting answer"
	}
	return "not known"
}

// A Probing is the outcome of one Probe.
type Probing struct {
	Answer   Answer
	Sent     int           // initiations that went out: 1, or 0
	Received uint64        // bytes that came back
	Took     time.Duration // until the answer, or until ctx ended
}

// Probe sends one handshake initiation and says what came back. It waits for an
// answer until ctx ends; not being answered is no error. An answered Probe is a
// handshake like any other: the router counts it, and it ignores the next
// initiation by the same peer for some 40 ms (its clock steps of 2^24 ns and its
// guard against floods), so that an Up right afterwards takes 5 s longer. Who
// wants a tunnel anyway calls Up and Handshake, which tells the same kinds apart.
// Errors: *ConfigError, *UnreachableError.
func Probe(ctx context.Context, c Config) (Probing, error) {
	t, err := up(ctx, c, 1)
	if err != nil {
		return Probing{}, err
	}
	defer t.Close()
	for {
		seen, changed := t.tap.look()
		a := seen.answer()
		if !t.lastHandshake().IsZero() {
			a = Answered
		}
		p := Probing{Answer: a, Sent: min(seen.initiations, 1), Received: seen.received, Took: time.Since(t.since)}
		if a >= Refused || seen.sendErr != nil {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return p, nil
		}
	}
}

// WireGuard's messages, by their first byte, and their sizes. The transport
// message has no fixed one.
const (
	initiation     = 1
	initiationSize = 148
	response       = 2
	responseSize   = 92
	cookie         = 3
	cookieSize     = 64
	transport      = 4
)

// seen is what a tap has counted.
type seen struct {
	initiations, responses, cookies, refused int
	unfit                                    int // responses that wireguard-go could not use
	received                                 uint64
	sendErr                                  error // of the last initiation
	closed                                   bool
}

func (s seen) answer() Answer {
	switch {
	case s.unfit > 0:
		return Unfit
	case s.cookies > 0:
		return Cookie
	case s.refused > 0:
		return Refused
	case s.sendErr != nil:
		return Unsent
	case s.initiations == 0:
		return Unsent
	}
	return Silence
}

// A tap sits between wireguard-go and the bind below it and looks at the kind of
// every packet. That makes the end of a handshake an event to wait for: right
// after a fitting response wireguard-go sends its first transport message.
type tap struct {
	conn.Bind
	max int // initiations let through; 0 means all

	mu      sync.Mutex
	seen    seen
	changed chan struct{}
}

func newTap(b conn.Bind, max int) *tap { return &tap{Bind: b, max: max, changed: make(chan struct{})} }

// look is what was seen so far, and a channel that closes when there is more.
func (t *tap) look() (seen, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen, t.changed
}

func (t *tap) note(f func(*seen)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.seen)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tap) end() { t.note(func(s *seen) { s.closed = true }) }

// logger silences wireguard-go. One of its lines is the only sign that a
// response did not fit; the line is recognised and dropped like the others.
// (Its wording is held by a test.)
func (t *tap) logger() *device.Logger {
	return &device.Logger{
		Errorf: device.DiscardLogf,
		Verbosef: func(format string, _ ...any) {
			if strings.HasPrefix(format, "Received invalid response message") {
				t.note(func(s *seen) { s.unfit++ })
			}
		},
	}
}

func kind(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// Send implements conn.Bind.
func (t *tap) Send(bufs [][]byte, to conn.Endpoint) error {
	first := kind(bufs[0])
	if first == initiation && len(bufs[0]) == initiationSize {
		if s, _ := t.look(); t.max > 0 && s.initiations >= t.max {
			return nil
		}
	}
	err := t.Bind.Send(bufs, to)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		// A connected socket reports the refusal of an earlier packet.
		t.note(func(s *seen) { s.refused++ })
		err = t.Bind.Send(bufs, to)
	}
	switch first {
	case initiation:
		t.note(func(s *seen) {
			if s.sendErr = err; err == nil {
				s.initiations++
			}
		})
	case transport:
		t.note(func(*seen) {})
	}
	return err
}

// Open implements conn.Bind.
func (t *tap) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := t.Bind.Open(port)
	for i, f := range fns {
		fns[i] = t.receive(f)
	}
	return fns, actual, err
}

func (t *tap) receive(f conn.ReceiveFunc) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		for {
			n, err := f(bufs, sizes, eps)
			if refusal(err) {
				// Not the end of the socket, though wireguard-go would take it so.
				t.note(func(s *seen) { s.refused++ })
				continue
			}
			if err != nil {
				return n, err
			}
			t.note(func(s *seen) {
				for i := range n {
					s.received += uint64(sizes[i])
					switch k := kind(bufs[i][:sizes[i]]); {
					case k == response && sizes[i] == responseSize:
						s.responses++
					case k == cookie && sizes[i] == cookieSize:
						s.cookies++
					}
				}
			})
			return n, nil
		}
	}
}

// refusal recognises what an ICMP "port unreachable" becomes.
func refusal(err error) bool {
	const wsaConnReset = syscall.Errno(10054) // what Windows makes of it
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, wsaConnReset)
}

// A socket is a bind over one connected UDP socket. Being connected is the
// point: only then does the system tell us of ICMP refusals.
type socket struct {
	to netip.AddrPort

	mu sync.Mutex
	c  *net.UDPConn
}

// Open implements conn.Bind. The port is chosen by the system.
func (s *socket) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.to))
	if err != nil {
		return nil, 0, err
	}
	s.c = c
	from := &conn.StdNetEndpoint{AddrPort: s.to}
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, err := c.Read(bufs[0])
		if err != nil {
			return 0, err
		}
		sizes[0], eps[0] = n, from
		return 1, nil
	}
	return []conn.ReceiveFunc{receive}, c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

// Close implements conn.Bind.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		return nil
	}
	err := s.c.Close()
	s.c = nil
	return err
}

// Send implements conn.Bind.
func (s *socket) Send(bufs [][]byte, _ conn.Endpoint) error {
	s.mu.Lock()
	c := s.c
	s.mu.Unlock()
	if c == nil {
		return net.ErrClosed
	}
	for _, b := range bufs {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// SetMark implements conn.Bind.
func (s *socket) SetMark(uint32) error { return nil }

// BatchSize implements conn.Bind.
func (s *socket) BatchSize() int { return 1 }

// ParseEndpoint implements conn.Bind.
func (s *socket) ParseEndpoint(text string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return nil, err
	}
	return &conn.StdNetEndpoint{AddrPort: a}, nil
}
