package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Times of the stream's retransmission, after Linux: first try of a connection
// again after 1 s, of data after 200 ms, doubling up to two minutes; the
// connection is given up after a quarter of an hour (tcp_retries2 = 15).
const (
	firstSYN   = time.Second
	firstRetry = 200 * time.Millisecond
	lastRetry  = 2 * time.Minute
	giveUp     = 15 * time.Minute
	giveUpDial = 127 * time.Second // tcp_syn_retries = 6
	finWait    = time.Minute       // how long a closed stream waits for the other end's FIN
)

const (
	window  = 65535      // receive buffer; no window scaling
	sendBuf = 128 * 1024 // bytes that Write takes before it waits
	fullMSS = 1460
)

type flow struct{ local, remote netip.AddrPort }

// stream is one end of a TCP connection. It is guarded by its stack's lock. The
// receiver takes bytes in order only and forgets what comes early; the sender
// goes back to the first byte that was not acknowledged. That is all of TCP
// that a living path without reordering needs, and it is the same on the wire.
type stream struct {
	s        *Stack
	flow     flow
	cond     sync.Cond // on s.mu: anything changed
	listener *Listener // for the end that was dialled, until established

	established bool
	dead        bool
	err         error // why it is dead, for Read, Write and Dial
	softErr     error // the last ICMP error: what a dial that gives up reports

	mss             int
	sndUna, sndNxt  uint32
	sndMax          uint32 // highest byte ever sent, +1
	sndWnd          int
	out             []byte // from sndUna on
	finQueued       bool
	dupAcks         int
	rto             time.Duration
	waiting         time.Time // since when nothing was acknowledged
	timer           uint64    // generation of the retransmission timer; 0 = off
	timers          uint64
	rcvNxt          uint32
	in              []byte
	rcvFin          bool
	closed          bool // by our side's Close
	shutSeen        bool // a FIN was sent and acknowledged
	readBy, writeBy deadline
}

// Conn is a stream as its user sees it. It is a net.Conn.
type Conn struct{ t *stream }

var errPower = fmt.Errorf("the power is off: %w", net.ErrClosed)

// Listener accepts streams on one port of a stack. It is a net.Listener.
type Listener struct {
	s      *Stack
	port   uint16
	cond   sync.Cond // on s.mu
	queue  []*Conn
	closed bool
}

// ListenTCP opens a port on all addresses of the stack; port 0 takes a free one.
func (s *Stack) ListenTCP(port uint16) (*Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(n syscall.Errno) (*Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{Port: int(port)}, Err: errno("bind", n)}
	}
	if !s.conf.Load().on {
		return fail(syscall.ENETDOWN)
	}
	if port == 0 {
		port = s.freePort(func(p uint16) bool { return s.listeners[p] == nil })
	}
	if s.listeners[port] != nil {
		return fail(syscall.EADDRINUSE)
	}
	l := &Listener{s: s, port: port}
	l.cond.L = &s.mu
	s.listeners[port] = l
	return l, nil
}

// Listen serves every connection to port on a goroutine of its own, until the
// listener is closed or the stack loses power.
func (s *Stack) Listen(port uint16, serve func(net.Conn)) (*Listener, error) {
	l, err := s.ListenTCP(port)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l, nil
}

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for {
		if l.closed {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		}
		if len(l.queue) > 0 {
			c := l.queue[0]
			l.queue = l.queue[1:]
			return c, nil
		}
		l.cond.Wait()
	}
}

// Close stops accepting. Connections that were accepted live on.
func (l *Listener) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.listeners[l.port] == l {
		delete(l.s.listeners, l.port)
	}
	for _, c := range l.queue {
		c.t.abort(net.ErrClosed)
	}
	l.queue = nil
	l.shut()
	return nil
}

func (l *Listener) shut() {
	l.closed = true
	l.cond.Broadcast()
}

// Addr is the port, without an address.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: int(l.port)} }

// Dial connects to "address:port" (or "name:port", see World.Name). It ends with
// "connection refused" on a reset, with the error that a router on the way
// reported, or with ctx. It fits heimweg's edges, which take their way out as an
// argument.
func (s *Stack) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(to net.Addr, err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: to, Err: err}
	}
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return fail(nil, net.UnknownNetworkError(network))
	}
	to, err := s.resolve(address)
	if err != nil {
		return fail(nil, err)
	}
	addr := net.TCPAddrFromAddrPort(to)
	if err := ctx.Err(); err != nil {
		return fail(addr, ctxError(ctx))
	}
	c := s.conf.Load()
	src, ok := c.source(to.Addr())
	if !ok {
		return fail(addr, errno("connect", syscall.ENETUNREACH))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	port := s.freePort(func(p uint16) bool {
		return s.streams[flow{netip.AddrPortFrom(src, p), to}] == nil
	})
	t := s.newStream(flow{netip.AddrPortFrom(src, port), to})
	t.transmit(SYN, t.sndUna, nil)
	t.sndNxt++
	t.sndMax = t.sndNxt
	t.arm(firstSYN)
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.cond.Broadcast()
	})
	defer stop()
	for !t.established && !t.dead && ctx.Err() == nil {
		t.cond.Wait()
	}
	switch {
	case t.dead:
		return fail(addr, t.err)
	case !t.established:
		err := ctxError(ctx)
		t.die(err)
		return fail(addr, err)
	}
	return &Conn{t}, nil
}

func (s *Stack) resolve(address string) (netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return netip.AddrPort{}, &net.AddrError{Err: "invalid port", Addr: address}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(port)), nil
	}
	s.mu.Lock()
	ask := s.resolver
	s.mu.Unlock()
	if ask == nil {
		ask = s.w.Lookup
	}
	a, ok := ask(host)
	if !ok {
		return netip.AddrPort{}, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

// newStream registers a stream. The caller holds s.mu.
func (s *Stack) newStream(f flow) *stream {
	iss := s.w.random()
	t := &stream{s: s, flow: f, sndUna: iss, sndNxt: iss, sndMax: iss, sndWnd: window, mss: 536}
	t.cond.L = &s.mu
	s.streams[f] = t
	return t
}

func (t *stream) myMSS() int {
	mtu := 1500
	if out, _, ok := t.s.conf.Load().route(t.flow.remote.Addr()); ok {
		mtu = out.mtu()
	}
	if t.flow.remote.Addr().Is6() {
		return mtu - 60
	}
	return mtu - 40
}

// transmit sends one segment of this stream.
func (t *stream) transmit(flags uint8, seq uint32, data []byte) {
	var options []byte
	if flags&SYN != 0 {
		options = []byte{2, 4, 0, 0}
		binary.BigEndian.PutUint16(options[2:], uint16(t.myMSS()))
	}
	ack := uint32(0)
	if flags&ACK != 0 {
		ack = t.rcvNxt
	}
	t.s.send(segment(t.flow.local, t.flow.remote, flags, seq, ack, uint16(window-len(t.in)), options, data))
}

func segment(from, to netip.AddrPort, flags uint8, seq, ack uint32, wnd uint16, options, data []byte) []byte {
	be := binary.BigEndian
	body := make([]byte, 20+len(options)+len(data))
	be.PutUint16(body, from.Port())
	be.PutUint16(body[2:], to.Port())
	be.PutUint32(body[4:], seq)
	be.PutUint32(body[8:], ack)
	body[12] = byte((20+len(options))/4) << 4
	body[13] = flags
	be.PutUint16(body[14:], wnd)
	copy(body[20:], options)
	copy(body[20+len(options):], data)
	return build(from.Addr(), to.Addr(), TCP, 64, body)
}

// resetFor makes the reset that answers a segment nobody wants.
func resetFor(raw []byte, p Packet) []byte {
	g := parseSegment(raw)
	if p.Flags&ACK != 0 {
		return segment(p.Target(), p.Source(), RST, g.ack, 0, 0, nil, nil)
	}
	return segment(p.Target(), p.Source(), RST|ACK, 0, g.seq+g.length(), 0, nil, nil)
}

type seg struct {
	flags    uint8
	seq, ack uint32
	wnd      int
	mss      int
	data     []byte
}

// length in sequence numbers: SYN and FIN count as a byte.
func (g seg) length() uint32 {
	n := uint32(len(g.data))
	if g.flags&SYN != 0 {
		n++
	}
	if g.flags&FIN != 0 {
		n++
	}
	return n
}

func parseSegment(raw []byte) seg {
	be := binary.BigEndian
	end := len(raw)
	if raw[0]>>4 == 4 {
		end = min(end, int(be.Uint16(raw[2:])))
	}
	b := raw[headerLen(raw):end]
	if len(b) < 20 {
		return seg{}
	}
	g := seg{flags: b[13], seq: be.Uint32(b[4:]), ack: be.Uint32(b[8:]), wnd: int(be.Uint16(b[14:]))}
	off := int(b[12]>>4) * 4
	if off < 20 || off > len(b) {
		return g
	}
	g.data = b[off:]
	for o := b[20:off]; len(o) > 1 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			break
		}
		if o[0] == 2 && n == 4 {
			g.mss = int(be.Uint16(o[2:]))
		}
		o = o[n:]
	}
	return g
}

// before compares sequence numbers round the clock.
func before(a, b uint32) bool { return int32(a-b) < 0 }

func (s *Stack) deliverTCP(raw []byte, p Packet, id uint64, hook string) {
	g := parseSegment(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.streams[flow{p.Target(), p.Source()}]
	if t == nil && p.Flags&(SYN|ACK|RST) == SYN {
		if l := s.listeners[p.DstPort]; l != nil {
			t = s.newStream(flow{p.Target(), p.Source()})
			t.listener = l
			t.rcvNxt = g.seq + 1
			t.hello(g)
			s.w.note(id, s.name, hook, p, Delivered, "")
			t.transmit(SYN|ACK, t.sndUna, nil)
			t.sndNxt++
			t.sndMax = t.sndNxt
			t.arm(firstSYN)
			return
		}
	}
	if t == nil {
		if p.Flags&RST != 0 {
			s.w.note(id, s.name, hook, p, Delivered, "late reset")
			return
		}
		why := "no program listens on this TCP port"
		if !p.SYN() {
			why = "no such connection here"
		}
		s.w.note(id, s.name, hook, p, Rejected, why)
		s.sendUnfiltered(resetFor(raw, p))
		return
	}
	s.w.note(id, s.name, hook, p, Delivered, "")
	t.take(g)
	t.cond.Broadcast()
}

// hello reads what the other end says in its SYN.
func (t *stream) hello(g seg) {
	if g.mss > 0 {
		t.mss = g.mss
	}
	t.mss = max(88, min(t.mss, t.myMSS()))
	t.sndWnd = g.wnd
}

// take digests one segment for an existing stream.
func (t *stream) take(g seg) {
	if g.flags&RST != 0 {
		switch {
		case !t.established && t.listener == nil:
			if g.flags&ACK != 0 && g.ack == t.sndNxt {
				t.die(errno("connect", syscall.ECONNREFUSED))
			}
		case g.seq == t.rcvNxt || !before(g.seq, t.rcvNxt) && before(g.seq, t.rcvNxt+window):
			t.die(errno("read", syscall.ECONNRESET))
		}
		return
	}
	if g.flags&SYN != 0 {
		t.takeSYN(g)
		return
	}
	if g.flags&ACK == 0 || !t.established && t.listener == nil {
		return
	}
	t.takeAck(g)
	if t.dead {
		return
	}
	t.takeData(g)
	t.push()
	t.finish()
}

// takeSYN handles the answer to our SYN, or a SYN that came again.
func (t *stream) takeSYN(g seg) {
	switch {
	case !t.established && t.listener == nil && g.flags&ACK != 0 && g.ack == t.sndNxt:
		t.rcvNxt = g.seq + 1
		t.sndUna = g.ack
		t.hello(g)
		t.open()
		t.transmit(ACK, t.sndNxt, nil)
	case t.listener != nil && !t.established:
		t.transmit(SYN|ACK, t.sndUna, nil)
	case t.established:
		t.transmit(ACK, t.sndNxt, nil) // our ACK was lost, or the other end was reborn and will reset
	}
}

func (t *stream) open() {
	t.established = true
	t.timer = 0
	t.rto = 0
	t.softErr = nil
	t.cond.Broadcast()
}

func (t *stream) takeAck(g seg) {
	if before(t.sndMax, g.ack) || before(g.ack, t.sndUna) {
		return
	}
	if !t.established {
		if g.ack == t.sndUna {
			return
		}
		t.sndUna = g.ack
		t.open()
		if l := t.listener; l.closed {
			t.abort(net.ErrClosed)
			return
		} else {
			l.queue = append(l.queue, &Conn{t})
			l.cond.Signal()
		}
	}
	t.sndWnd = g.wnd
	n := int(g.ack - t.sndUna)
	if n == 0 {
		if len(g.data) == 0 && t.sndNxt != t.sndUna && g.flags&FIN == 0 {
			if t.dupAcks++; t.dupAcks == 3 {
				t.sndNxt = t.sndUna // the other end lost one and forgot the rest
			}
		}
		return
	}
	t.dupAcks = 0
	t.sndUna = g.ack
	if before(t.sndNxt, t.sndUna) {
		t.sndNxt = t.sndUna
	}
	if n > len(t.out) {
		n = len(t.out)
		t.shutSeen = t.finQueued
	}
	t.out = t.out[n:]
	t.rto = 0
	t.softErr = nil
	if t.sndNxt == t.sndUna {
		t.timer = 0
	} else {
		t.arm(firstRetry)
	}
}

func (t *stream) takeData(g seg) {
	if g.length() == 0 {
		return
	}
	data, fin := g.data, g.flags&FIN != 0
	if skip := int32(t.rcvNxt - g.seq); skip > 0 {
		if int(skip) > len(data) {
			t.transmit(ACK, t.sndNxt, nil) // all of it is old
			return
		}
		data = data[skip:]
	} else if skip < 0 {
		t.transmit(ACK, t.sndNxt, nil) // something before it is missing: say so
		return
	}
	if t.rcvFin {
		data, fin = nil, false
	}
	if t.closed && len(data) > 0 {
		t.abort(net.ErrClosed) // nobody will ever read it: tell the sender
		return
	}
	if room := window - len(t.in); len(data) > room {
		data, fin = data[:room], false
	}
	t.in = append(t.in, data...)
	t.rcvNxt += uint32(len(data))
	if fin {
		t.rcvFin = true
		t.rcvNxt++
	}
	t.transmit(ACK, t.sndNxt, nil)
}

// push sends what may be sent now.
func (t *stream) push() {
	if !t.established || t.dead || t.shutSeen {
		return
	}
	for {
		flying := int(t.sndNxt - t.sndUna)
		if flying > len(t.out) { // the FIN is under way
			return
		}
		n := min(len(t.out)-flying, t.mss, t.sndWnd-flying)
		fin := t.finQueued && flying+max(n, 0) == len(t.out)
		if n <= 0 && !fin {
			if len(t.out) > flying && t.timer == 0 {
				t.arm(firstRetry) // the window is shut: knock from time to time
			}
			return
		}
		n = max(n, 0)
		flags := uint8(ACK)
		if n > 0 {
			flags |= PSH
		}
		if fin {
			flags |= FIN
		}
		t.transmit(flags, t.sndNxt, t.out[flying:flying+n])
		t.sndNxt += uint32(n)
		if fin {
			t.sndNxt++
		}
		if before(t.sndMax, t.sndNxt) {
			t.sndMax = t.sndNxt
		}
		if t.timer == 0 {
			t.arm(firstRetry)
		}
		if fin {
			return
		}
	}
}

// arm starts the retransmission timer, from first unless it is backing off.
func (t *stream) arm(first time.Duration) {
	if t.rto == 0 {
		t.rto = first
		t.waiting = time.Now()
	}
	t.timers++
	mine := t.timers
	t.timer = mine
	t.s.w.engine.after(t.rto, func() {
		t.s.mu.Lock()
		defer t.s.mu.Unlock()
		if t.timer == mine && !t.dead {
			t.again()
		}
	})
}

// again runs when nothing was acknowledged in time.
func (t *stream) again() {
	limit := giveUp
	if !t.established {
		limit = giveUpDial
	}
	if time.Since(t.waiting) >= limit {
		err := t.softErr
		if err == nil {
			err = errno("read", syscall.ETIMEDOUT)
		}
		t.die(err)
		return
	}
	t.rto = min(2*t.rto, lastRetry)
	switch {
	case !t.established && t.listener == nil:
		t.transmit(SYN, t.sndUna, nil)
	case !t.established:
		t.transmit(SYN|ACK, t.sndUna, nil)
	case t.sndNxt == t.sndUna && len(t.out) > 0: // the window is shut
		t.transmit(ACK|PSH, t.sndUna, t.out[:1])
		if t.sndNxt++; before(t.sndMax, t.sndNxt) {
			t.sndMax = t.sndNxt
		}
	default:
		t.sndNxt = t.sndUna
		keep := t.sndWnd
		t.sndWnd = max(1, min(keep, t.mss)) // one segment until the path shows life
		t.push()
		t.sndWnd = keep
	}
	t.arm(t.rto)
}

// finish lets go of a stream that both ends have closed.
func (t *stream) finish() {
	if t.dead || !t.shutSeen {
		return
	}
	if t.rcvFin && t.closed {
		t.die(net.ErrClosed)
	}
}

// unreachable is an ICMP error about one of our segments.
func (t *stream) unreachable(n syscall.Errno, tooBig bool, mtu int) {
	switch {
	case t.dead:
	case tooBig:
		if mtu >= 128 {
			over := 40
			if t.flow.remote.Addr().Is6() {
				over = 60
			}
			t.mss = min(t.mss, mtu-over)
		}
		if t.established {
			t.sndNxt = t.sndUna
			t.push()
		}
	case !t.established && t.listener == nil:
		t.die(errno("connect", n))
	default:
		t.softErr = errno("read", n) // a living connection outlives it
	}
}

// die ends the stream on this side; the wire hears nothing.
func (t *stream) die(err error) {
	if t.dead {
		return
	}
	t.dead, t.err, t.timer = true, err, 0
	t.readBy.set(time.Time{}, nil)
	t.writeBy.set(time.Time{}, nil)
	if t.s.streams[t.flow] == t {
		delete(t.s.streams, t.flow)
	}
	t.cond.Broadcast()
}

// abort ends the stream and resets the other end.
func (t *stream) abort(err error) {
	if !t.dead {
		t.s.send(segment(t.flow.local, t.flow.remote, RST|ACK, t.sndNxt, t.rcvNxt, 0, nil, nil))
		t.die(err)
	}
}

func (t *stream) wake() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.cond.Broadcast()
}

// Reset ends the stream and tells the other end by a reset.
func (c *Conn) Reset() {
	c.t.s.mu.Lock()
	defer c.t.s.mu.Unlock()
	c.t.abort(net.ErrClosed)
}

// Vanish ends the stream and tells nobody, as a host does whose power fails.
func (c *Conn) Vanish() {
	c.t.s.mu.Lock()
	defer c.t.s.mu.Unlock()
	c.t.die(errPower)
}

func (c *Conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read takes what has arrived, waiting for the first byte.
func (c *Conn) Read(b []byte) (int, error) {
	t := c.t
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	for {
		switch {
		case t.closed:
			return 0, c.fail("read", net.ErrClosed)
		case t.readBy.passed():
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case len(t.in) > 0:
			n := copy(b, t.in)
			shut := window-len(t.in) < t.mss
			t.in = t.in[n:]
			if shut && window-len(t.in) >= t.mss && !t.dead {
				t.transmit(ACK, t.sndNxt, nil) // the window is open again
			}
			return n, nil
		case t.rcvFin:
			return 0, io.EOF
		case t.dead:
			return 0, c.fail("read", t.err)
		}
		t.cond.Wait()
	}
}

// Write queues b, waiting while 128 KiB are not acknowledged.
func (c *Conn) Write(b []byte) (n int, err error) {
	t := c.t
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	for {
		switch {
		case t.closed || t.finQueued:
			return n, c.fail("write", net.ErrClosed)
		case t.dead:
			return n, c.fail("write", t.err)
		case t.writeBy.passed():
			return n, c.fail("write", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return n, nil
		}
		if room := sendBuf - len(t.out); room > 0 {
			k := min(room, len(b))
			t.out = append(t.out, b[:k]...)
			b, n = b[k:], n+k
			t.push()
			continue
		}
		t.cond.Wait()
	}
}

// CloseWrite ends our direction: the other end reads to its end.
func (c *Conn) CloseWrite() error {
	c.t.s.mu.Lock()
	defer c.t.s.mu.Unlock()
	c.t.closeWrite()
	return nil
}

func (t *stream) closeWrite() {
	if !t.finQueued && !t.dead {
		t.finQueued = true
		t.push()
	}
}

// Close ends the stream. What was written is still sent; bytes that nobody read
// make it a reset, as on Linux.
func (c *Conn) Close() error {
	t := c.t
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.closed {
		return c.fail("close", net.ErrClosed)
	}
	t.closed = true
	defer t.cond.Broadcast()
	if t.dead {
		return nil
	}
	if len(t.in) > 0 {
		t.abort(net.ErrClosed)
		return nil
	}
	t.closeWrite()
	t.finish()
	if !t.dead {
		t.s.w.engine.after(finWait, func() {
			t.s.mu.Lock()
			defer t.s.mu.Unlock()
			if t.shutSeen {
				t.die(net.ErrClosed)
			}
		})
	}
	return nil
}

// LocalAddr is this end's address and port.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.t.flow.local) }

// RemoteAddr is the other end as this end sees it, after any NAT.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.t.flow.remote) }

// SetDeadline sets both deadlines; the zero time means none.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.deadlines(t, &c.t.readBy, &c.t.writeBy)
}

// SetReadDeadline limits how long Read waits.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.deadlines(t, &c.t.readBy) }

// SetWriteDeadline limits how long Write waits.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.deadlines(t, &c.t.writeBy) }

func (c *Conn) deadlines(at time.Time, which ...*deadline) error {
	c.t.s.mu.Lock()
	defer c.t.s.mu.Unlock()
	if c.t.closed || c.t.dead {
		return nil
	}
	for _, d := range which {
		d.set(at, c.t.wake)
	}
	c.t.cond.Broadcast()
	return nil
}
