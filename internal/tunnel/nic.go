package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

// A nic sits between wireguard-go and gVisor's stack. It carries echo requests
// of our own, so that an answer is seen the moment it arrives and an ICMP error
// is seen at all (the stack's ping socket does neither).
type nic struct {
	tun.Device
	out     chan []byte   // packets on their way into the tunnel
	closing chan struct{} //
	drained chan struct{}
	once    sync.Once

	mu    sync.Mutex
	echos map[echoID]chan echoAnswer
}

type echoID struct{ id, seq uint16 }

// An echoAnswer is an echo reply, or an ICMP error about the request.
type echoAnswer struct {
	from       netip.Addr
	reply      bool
	kind, code byte
	size       int // of the whole packet, bytes
}

func newNIC(inner tun.Device) *nic {
	n := &nic{
		Device: inner, out: make(chan []byte, 64), closing: make(chan struct{}), drained: make(chan struct{}),
		echos: map[echoID]chan echoAnswer{},
	}
	go n.pump()
	return n
}

// pump takes packets from the stack until the stack is closed.
func (n *nic) pump() {
	defer close(n.drained)
	mtu, _ := n.MTU()
	buf := make([]byte, mtu+64)
	sizes := make([]int, 1)
	for {
		if _, err := n.Device.Read([][]byte{buf}, sizes, 0); err != nil {
			return
		}
		n.send(bytes.Clone(buf[:sizes[0]]))
	}
}

// send queues a packet; after Close it is dropped.
func (n *nic) send(p []byte) {
	select {
	case n.out <- p:
	case <-n.closing:
	}
}

// Read implements tun.Device for wireguard-go.
func (n *nic) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-n.out:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	case <-n.closing:
		return 0, os.ErrClosed
	}
}

// Write implements tun.Device: what came through the tunnel goes to whoever
// waits for that echo, else to the stack.
func (n *nic) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		p := b[offset:]
		if id, a, ok := parseEcho(p); ok && n.deliver(id, a) {
			continue
		}
		select {
		case <-n.closing:
			return 0, os.ErrClosed
		default:
		}
		if _, err := n.Device.Write([][]byte{b}, offset); err != nil {
			return 0, err
		}
	}
	return len(bufs), nil
}

func (n *nic) deliver(id echoID, a echoAnswer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch, ok := n.echos[id]
	if ok {
		select {
		case ch <- a:
		default: // a second answer to the same request
		}
	}
	return ok
}

// Close implements tun.Device.
func (n *nic) Close() error {
	var err error
	n.once.Do(func() {
		close(n.closing)
		err = n.Device.Close()
	})
	return err
}

// wait returns when the pump has ended.
func (n *nic) wait() { <-n.drained }

// A NoEchoError says that a host did not answer an echo request.
type NoEchoError struct {
	Addr   netip.Addr
	Sent   int
	Waited time.Duration
	// From is who said that it cannot be, if anybody did: a router with a
	// firewall that rejects, or one without a route. Type and Code are ICMP's.
	From       netip.Addr
	Type, Code byte
	Cause      error // ctx's when nobody said anything
}

func (e *NoEchoError) Error() string {
	if e.From.IsValid() {
		return fmt.Sprintf("%s cannot be reached, says %s: %s", e.Addr, e.From, e.Reason())
	}
	return fmt.Sprintf("%s did not answer %d echo requests in %s", e.Addr, e.Sent, e.Waited.Round(time.Millisecond))
}

func (e *NoEchoError) Unwrap() error { return e.Cause }

// Reason is the ICMP error in words, "" for none.
func (e *NoEchoError) Reason() string {
	if !e.From.IsValid() {
		return ""
	}
	type tc struct {
		v6         bool
		kind, code byte
	}
	// RFC 792, RFC 1812 5.2.7, RFC 4443 3.1. OpenWrt's REJECT answers echo
	// requests with port unreachable (fw4: "reject with icmpx port-unreachable").
	words := map[tc]string{
		{false, 3, 0}: "no route to that network", {false, 3, 1}: "that host is not there", {false, 3, 3}: "rejected by a firewall",
		{false, 3, 9}: "prohibited", {false, 3, 10}: "prohibited", {false, 3, 13}: "prohibited", {false, 11, 0}: "too many hops",
		{true, 1, 0}: "no route to that network", {true, 1, 1}: "prohibited", {true, 1, 3}: "that host is not there",
		{true, 1, 4}: "rejected by a firewall", {true, 1, 5}: "prohibited", {true, 1, 6}: "prohibited", {true, 3, 0}: "too many hops",
	}
	if w, ok := words[tc{e.Addr.Is6(), e.Type, e.Code}]; ok {
		return w
	}
	return fmt.Sprintf("ICMP type %d code %d", e.Type, e.Code)
}

// Ping sends echo requests through the tunnel, one per second, until one is
// answered, and returns the time that one took. Errors: *NoEchoError,
// *UnreachableError.
func (t *Tunnel) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	return t.ping(ctx, to, 0)
}

// Fits sends an echo request of size bytes, all headers inside the tunnel counted,
// that nobody may fragment, one per second. It returns nil when the whole of it came
// back; an answer in pieces is none. Errors: as Ping.
func (t *Tunnel) Fits(ctx context.Context, to netip.Addr, size int) error {
	_, err := t.ping(ctx, to, size)
	return err
}

// ping with size 0 sends what ping usually sends, and takes any answer.
func (t *Tunnel) ping(ctx context.Context, to netip.Addr, size int) (time.Duration, error) {
	to = to.Unmap()
	if err := t.allowed(to); err != nil {
		return 0, err
	}
	var from netip.Addr
	for _, a := range t.cfg.Addresses {
		if a.Is4() == to.Is4() {
			from = a
		}
	}
	if !from.IsValid() {
		return 0, &UnreachableError{Addr: to.String(), Cause: fmt.Errorf("this peer has no address of that family")}
	}
	var r [2]byte
	rand.Read(r[:])
	id := binary.BigEndian.Uint16(r[:])
	start := time.Now()
	again := time.NewTicker(time.Second)
	defer again.Stop()

	type answer struct {
		echoAnswer
		took time.Duration
	}
	// One request's answer may come after the next was sent: each has its own
	// channel and all are watched.
	answers := make(chan answer, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	sent := 0
	send := func() {
		sent++
		e := echoID{id, uint16(sent)}
		ch := make(chan echoAnswer, 1)
		t.nic.mu.Lock()
		t.nic.echos[e] = ch
		t.nic.mu.Unlock()
		at := time.Now()
		wg.Go(func() {
			select {
			case a := <-ch:
				select {
				case answers <- answer{a, time.Since(at)}:
				default:
				}
			case <-done:
			}
			t.nic.mu.Lock()
			delete(t.nic.echos, e)
			t.nic.mu.Unlock()
		})
		t.nic.send(echoRequest(from, to, e, size))
	}
	send()
	no := &NoEchoError{Addr: to}
	for {
		select {
		case a := <-answers:
			if a.reply && a.size >= size {
				return a.took, nil
			}
			if a.reply {
				continue // in pieces
			}
			no.Sent, no.Waited = sent, time.Since(start)
			no.From, no.Type, no.Code = a.from, a.kind, a.code
			return 0, no
		case <-again.C:
			send()
		case <-t.nic.closing:
			return 0, &UnreachableError{Addr: to.String(), Cause: net.ErrClosed}
		case <-ctx.Done():
			no.Sent, no.Waited, no.Cause = sent, time.Since(start), context.Cause(ctx)
			return 0, no
		}
	}
}

const (
	icmp4, icmp6     = 1, 58 // IP protocol numbers
	echoReply4       = 0
	echoRequest4     = 8
	echoRequest6     = 128
	echoReply6       = 129
	ip4Header        = 20
	ip6Header        = 40
	icmpHeader       = 8
	echoPayload      = 56 // as ping sends
	hopLimit         = 64
	unreachable4     = 3
	timeExceeded4    = 11
	lastIcmp6Error   = 127
	fragmentOffset   = 0x1fff
	dontFragment     = 0x40
	ip4VersionLength = 0x45
)

// echoRequest builds an IP packet. With size it is as long as that, and must not be
// fragmented (over IPv6 no packet is).
func echoRequest(from, to netip.Addr, e echoID, size int) []byte {
	header := ip6Header
	if to.Is4() {
		header = ip4Header
	}
	icmp := make([]byte, icmpHeader+max(echoPayload, size-header-icmpHeader))
	binary.BigEndian.PutUint16(icmp[4:], e.id)
	binary.BigEndian.PutUint16(icmp[6:], e.seq)
	src, dst := from.AsSlice(), to.AsSlice()
	if to.Is4() {
		icmp[0] = echoRequest4
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		p := make([]byte, ip4Header, ip4Header+len(icmp))
		p[0] = ip4VersionLength
		binary.BigEndian.PutUint16(p[2:], uint16(ip4Header+len(icmp)))
		p[8], p[9] = hopLimit, icmp4
		if size > 0 {
			p[6] = dontFragment
		}
		copy(p[12:], src)
		copy(p[16:], dst)
		binary.BigEndian.PutUint16(p[10:], checksum(p))
		return append(p, icmp...)
	}
	icmp[0] = echoRequest6
	binary.BigEndian.PutUint16(icmp[2:], checksum(src, dst, []byte{0, 0, byte(len(icmp) >> 8), byte(len(icmp)), 0, 0, 0, icmp6}, icmp))
	p := make([]byte, ip6Header, ip6Header+len(icmp))
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(len(icmp)))
	p[6], p[7] = icmp6, hopLimit
	copy(p[8:], src)
	copy(p[24:], dst)
	return append(p, icmp...)
}

// checksum is the Internet checksum over parts of even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// parseEcho reads an echo reply, or an ICMP error that quotes an echo request.
func parseEcho(p []byte) (echoID, echoAnswer, bool) {
	src, icmp, ok := icmpOf(p)
	if !ok || len(icmp) < icmpHeader {
		return echoID{}, echoAnswer{}, false
	}
	six := p[0]>>4 == 6
	a := echoAnswer{from: src, kind: icmp[0], code: icmp[1], size: len(p)}
	quoted := six && icmp[0] <= lastIcmp6Error || !six && (icmp[0] == unreachable4 || icmp[0] == timeExceeded4)
	switch {
	case !six && icmp[0] == echoReply4, six && icmp[0] == echoReply6:
		a.reply = true
	case quoted:
		_, inner, ok := icmpOf(icmp[icmpHeader:])
		if !ok || len(inner) < icmpHeader || inner[0] != echoRequest4 && inner[0] != echoRequest6 {
			return echoID{}, echoAnswer{}, false
		}
		icmp = inner
	default:
		return echoID{}, echoAnswer{}, false
	}
	return echoID{binary.BigEndian.Uint16(icmp[4:]), binary.BigEndian.Uint16(icmp[6:])}, a, true
}

// icmpOf finds the ICMP part of an IP packet, which may be cut off at its end.
// Fragments and IPv6 extension headers are not followed.
func icmpOf(p []byte) (src netip.Addr, icmp []byte, ok bool) {
	switch {
	case len(p) >= ip4Header && p[0]>>4 == 4:
		n := int(p[0]&15) * 4
		if n < ip4Header || len(p) < n || p[9] != icmp4 || binary.BigEndian.Uint16(p[6:])&fragmentOffset != 0 {
			return
		}
		return netip.AddrFrom4([4]byte(p[12:16])), p[n:], true
	case len(p) >= ip6Header && p[0]>>4 == 6:
		if p[6] != icmp6 {
			return
		}
		return netip.AddrFrom16([16]byte(p[8:24])), p[ip6Header:], true
	}
	return
}
