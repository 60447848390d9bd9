package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Kinds of ICMP errors, in IPv4's numbers; ICMPv6's follow from them.
const (
	unreachable  = 3
	timeExceeded = 11

	netUnreachable  = 0
	hostUnreachable = 1
	portUnreachable = 3
	fragNeeded      = 4
)

// complain sends an ICMP error about the packet quoted, or, when the stack sent
// it itself, tells its own socket.
func (s *Stack) complain(about []byte, kind, code uint8) { s.complainWith(about, kind, code, 0) }

func (s *Stack) complainTooBig(about []byte, mtu int) {
	s.complainWith(about, unreachable, fragNeeded, uint32(mtu))
}

func (s *Stack) complainWith(about []byte, kind, code uint8, rest uint32) {
	p, err := ParsePacket(about)
	if err != nil || p.IsError() || crowd(p.Src) {
		return // never an error about an error
	}
	c := s.conf.Load()
	if !c.on {
		return
	}
	if c.local(p.Src) {
		s.hearError(p, kind, code, rest)
		return
	}
	src, ok := c.source(p.Src)
	if !ok {
		return
	}
	proto := uint8(ICMP)
	quote := about[:min(len(about), headerLen(about)+64)]
	if p.Src.Is6() {
		proto = ICMPv6
		kind, code = toICMPv6(kind, code)
	}
	body := make([]byte, 8+len(quote))
	body[0], body[1] = kind, code
	binary.BigEndian.PutUint32(body[4:], rest)
	copy(body[8:], quote)
	s.sendUnfiltered(build(src, p.Src, proto, 64, body))
}

func toICMPv6(kind, code uint8) (uint8, uint8) {
	switch {
	case kind == timeExceeded:
		return 3, 0
	case code == fragNeeded:
		return 2, 0 // packet too big
	case code == portUnreachable:
		return 1, 4
	case code == hostUnreachable:
		return 1, 3
	}
	return 1, 0
}

// fromICMPv6 is the way back.
func fromICMPv6(kind, code uint8) (uint8, uint8) {
	switch {
	case kind == 3:
		return timeExceeded, 0
	case kind == 2:
		return unreachable, fragNeeded
	case kind == 1 && code == 4:
		return unreachable, portUnreachable
	case kind == 1 && code == 3:
		return unreachable, hostUnreachable
	}
	return unreachable, netUnreachable
}

// refuse answers a packet that a rule rejects, or that found no socket: a reset
// for TCP, port unreachable for the rest (OpenWrt's chain handle_reject).
func (s *Stack) refuse(raw []byte, p Packet) {
	if p.Proto == TCP {
		if p.Flags&RST == 0 {
			s.sendUnfiltered(resetFor(raw, p))
		}
		return
	}
	s.complain(raw, unreachable, portUnreachable)
}

// sendUnfiltered sends an answer that the kernel makes itself. It belongs to the
// connection that it answers, and no ruleset of OpenWrt stops it.
func (s *Stack) sendUnfiltered(raw []byte) {
	id := s.w.packetID.Add(1)
	s.w.engine.soon(func() {
		c := s.conf.Load()
		p, err := ParsePacket(raw)
		if err != nil || !c.on {
			return
		}
		if c.local(p.Dst) {
			s.deliver(raw, p, id, "loopback")
			return
		}
		if out, hop, ok := c.route(p.Dst); ok {
			s.transmit(out, hop, raw, raw, p, id, Sent, "")
		}
	})
}

func (s *Stack) deliverICMP(raw []byte, p Packet) {
	switch {
	case p.IsEchoRequest():
		body := append([]byte(nil), raw[headerLen(raw):]...)
		body[0] = 0
		if p.Proto == ICMPv6 {
			body[0] = 129
		}
		s.output(build(p.Dst, p.Src, p.Proto, 64, body), s.w.packetID.Add(1))
	case p.IsEchoReply():
		s.mu.Lock()
		if w := s.pings[p.ICMPID]; w != nil && w.to == p.Src {
			w.finish(nil)
		}
		s.mu.Unlock()
	case p.IsError() && p.Inner != nil:
		kind, code := p.ICMPType, p.ICMPCode
		if p.Proto == ICMPv6 {
			kind, code = fromICMPv6(kind, code)
		}
		s.hearError(*p.Inner, kind, code, binary.BigEndian.Uint32(raw[headerLen(raw)+4:]))
	}
}

// hearError passes an ICMP error to the socket that sent the packet.
func (s *Stack) hearError(about Packet, kind, code uint8, rest uint32) {
	n := syscall.EHOSTUNREACH
	switch {
	case kind == unreachable && code == netUnreachable:
		n = syscall.ENETUNREACH
	case kind == unreachable && code == portUnreachable:
		n = syscall.ECONNREFUSED
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case about.IsEchoRequest():
		if w := s.pings[about.ICMPID]; w != nil && w.to == about.Dst {
			w.finish(&net.OpError{Op: "ping", Net: "ip", Addr: &net.IPAddr{IP: about.Dst.AsSlice()}, Err: errno("recvmsg", n)})
		}
	case about.Proto == TCP:
		if t := s.streams[flow{about.Source(), about.Target()}]; t != nil {
			t.unreachable(n, code == fragNeeded, int(rest))
		}
	}
}

type ping struct {
	to   netip.Addr
	done chan struct{}
	err  error
	over bool
}

func (p *ping) finish(err error) {
	if !p.over {
		p.over, p.err = true, err
		close(p.done)
	}
}

// Ping sends one echo request and waits for the answer, an ICMP error, or ctx.
func (s *Stack) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	return s.PingFrom(ctx, netip.Addr{}, to)
}

// PingFrom is Ping with one of the stack's own addresses as the sender, as
// `ping -I` sends it; the zero address lets the route choose.
func (s *Stack) PingFrom(ctx context.Context, src, to netip.Addr) (time.Duration, error) {
	ok := s.conf.Load().local(src)
	if !src.IsValid() {
		src, ok = s.conf.Load().source(to)
	}
	if !ok {
		return 0, &net.OpError{Op: "ping", Net: "ip", Addr: &net.IPAddr{IP: to.AsSlice()}, Err: errno("sendmsg", syscall.ENETUNREACH)}
	}
	p := &ping{to: to, done: make(chan struct{})}
	s.mu.Lock()
	s.nextPing++
	id := s.nextPing
	s.pings[id] = p
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if s.pings[id] == p {
			delete(s.pings, id)
		}
		s.mu.Unlock()
	}()
	start := time.Now()
	s.send(BuildPing(src, to, id, 1))
	select {
	case <-p.done:
		return time.Since(start), p.err
	case <-ctx.Done():
		return 0, &net.OpError{Op: "ping", Net: "ip", Addr: &net.IPAddr{IP: to.AsSlice()}, Err: ctxError(ctx)}
	}
}

// ctxError gives the error of a context as the net package would.
func ctxError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timeoutError{}
	}
	return ctx.Err()
}

// timeoutError reads and behaves like the net package's.
type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
func (timeoutError) Is(err error) bool {
	return err == context.DeadlineExceeded
}
