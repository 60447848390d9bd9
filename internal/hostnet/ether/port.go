// Package ether is a computer at the end of an Ethernet cable, without the
// computer: a TCP/IP of its own with its own MAC, its own ARP and its own
// addresses, on whatever carries frames.
//
// It must never touch the system's network set-up, and it opens no socket: the
// frames come from its caller. It must stay outside testing/synctest bubbles.
//
// Background: whoever flashes a box with the system's TCP/IP fights with it. The
// system asks for a neighbour once a second while the boot window lasts a few
// seconds; its network manager takes the address away whenever the cable dies,
// which is what a box's power-off does; its routes lead to another network of the
// same numbers. Here none of that exists. Frames to another MAC than its own are
// not for the system's TCP/IP, so the two do not meet on one card.
package ether

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/tunnel/ipstack"
)

// Frames carries whole Ethernet frames, without the checksum at their end.
type Frames interface {
	// ReadFrame waits for the next frame; an error ends the port.
	ReadFrame(b []byte) (int, error)
	// WriteFrame sends one, or loses it: whoever sent it repeats it.
	WriteFrame(b []byte) error
	Close() error
}

// Options describe a port.
type Options struct {
	MAC MAC
	MTU int
	At  []netip.Addr // whom Look asks for
	// Taken reports addresses that must not be ours because somebody else at
	// this end has them; may be nil.
	Taken func(netip.Addr) bool
}

// maxFrame is the longest frame: the system may hand over several received ones
// put together.
const maxFrame = headLen + 1<<16

// A Port is a host of its own on an Ethernet card. It is safe for use from
// several goroutines.
type Port struct {
	opt    Options
	frames Frames
	stack  *ipstack.Stack
	fe80   netip.Addr
	wake   chan struct{} // there is somebody to ask for
	done   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	mu    sync.Mutex
	used  []netip.Prefix // as told
	found []netip.Prefix // one for each network that we reach without being told
	table table
	looks map[*look]struct{}
}

// A look is somebody who wants to know where something lives.
type look struct{ seen chan netip.Addr }

func (l *look) tell(a netip.Addr) {
	select {
	case l.seen <- a:
	default: // it has more to look at than it can
	}
}

// New starts a port on frames, which it closes with itself.
func New(frames Frames, o Options) (*Port, error) {
	p := &Port{
		opt: o, frames: frames, fe80: linkLocal(o.MAC),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		table: table{}, looks: map[*look]struct{}{},
	}
	for _, a := range o.At {
		p.reach(a)
	}
	if err := p.start(); err != nil {
		frames.Close()
		return nil, err
	}
	return p, nil
}

// longest and tries: after a dead cable a connection is repeated within a second
// and given up after a quarter of an hour, which is when Linux gives up, too.
const (
	longest = time.Second
	tries   = 900
)

func (p *Port) start() (err error) {
	if len(p.found) == 0 { // a broadcast needs a sender, too
		p.reach(netip.AddrFrom4([4]byte{169, 254, p.opt.MAC[5], 1}))
	}
	if p.stack, err = ipstack.New([]netip.Addr{p.fe80, p.found[0].Addr()}, p.opt.MTU); err != nil {
		return err
	}
	for _, n := range p.found[1:] {
		err = errors.Join(err, p.stack.Add(n.Addr(), false))
	}
	if err = errors.Join(err, p.stack.Insist(longest, tries)); err != nil {
		p.stack.Close()
		return err
	}
	p.wg.Go(p.receive)
	p.wg.Go(p.transmit)
	p.wg.Go(p.asking)
	return nil
}

// Close ends all connections.
func (p *Port) Close() error {
	p.once.Do(func() {
		close(p.done)
		p.frames.Close()
		p.stack.Close()
		p.wg.Wait()
	})
	return nil
}

// DialTCP connects; whatever the address, it is looked for at the other end of
// the cable. A refused connection is syscall.ECONNREFUSED.
func (p *Port) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	from, err := p.prepare(to.Addr())
	if err != nil {
		return nil, err
	}
	return p.stack.DialFrom(ctx, from, to)
}

// ListenUDP opens a UDP port on all our addresses, which can send to everyone.
func (p *Port) ListenUDP(_ context.Context, port uint16) (net.PacketConn, error) {
	return p.stack.ListenEveryone(port)
}

// prepare gives us an address in the network of one that we want to reach.
func (p *Port) prepare(a netip.Addr) (from netip.Addr, err error) {
	if p.stack.Closed() {
		return from, net.ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.found)
	p.reach(a)
	for _, n := range p.found[before:] {
		if err := p.stack.Add(n.Addr(), false); err != nil {
			return from, err
		}
	}
	return p.source(a), nil
}

// reach finds an address of ours to reach another with. Networks of homes and of
// boot loaders have at least the size of a /24.
func (p *Port) reach(a netip.Addr) {
	if !a.Is4() || p.source(a).IsValid() {
		return
	}
	n, _ := a.Prefix(24)
	b := a.As4()
	for last := byte(253); last > 1; last-- {
		b[3] = last
		if mine := netip.AddrFrom4(b); mine != a && !p.isTaken(mine) {
			p.found = append(p.found, netip.PrefixFrom(mine, n.Bits()))
			return
		}
	}
}

func (p *Port) isTaken(a netip.Addr) bool {
	return slices.Contains(p.opt.At, a) || p.opt.Taken != nil && p.opt.Taken(a)
}

// source is our address towards another one.
func (p *Port) source(to netip.Addr) netip.Addr {
	for _, n := range append(slices.Clip(p.used), p.found...) {
		if n.Contains(to) {
			return n.Addr()
		}
	}
	return netip.Addr{}
}

// Use makes these our addresses. One that is taken is replaced by the next free
// host number of its network.
func (p *Port) Use(addrs []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var want []netip.Prefix
	for _, n := range addrs {
		n = netip.PrefixFrom(p.free(n, want), n.Bits())
		if !slices.Contains(want, n) {
			want = append(want, n)
		}
	}
	told := func(list []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(n netip.Prefix) bool { return n.Addr() == a })
	}
	var fail error
	p.found = slices.DeleteFunc(p.found, func(n netip.Prefix) bool {
		same := told(want, n.Addr())
		if same {
			fail = errors.Join(fail, p.stack.Remove(n.Addr()))
		}
		return same
	})
	for _, n := range p.used {
		if !told(want, n.Addr()) {
			fail = errors.Join(fail, p.stack.Remove(n.Addr()))
		}
	}
	for _, n := range want {
		if !told(p.used, n.Addr()) {
			fail = errors.Join(fail, p.stack.Add(n.Addr(), true))
		}
	}
	// What does not say where it comes from comes from an address that we were
	// told, if there is any. Connections from the others stay.
	for i, n := range p.found {
		fail = errors.Join(fail, p.stack.Remove(n.Addr()), p.stack.Add(n.Addr(), i == 0 && len(want) == 0))
	}
	p.used = want
	return fail
}

// free is the address itself, or the next of its network that nobody has.
func (p *Port) free(n netip.Prefix, also []netip.Prefix) netip.Addr {
	a := n.Addr()
	for range 256 {
		inUse := p.isTaken(a) || a == n.Masked().Addr() || a == last(n) ||
			slices.ContainsFunc(also, func(o netip.Prefix) bool { return o.Addr() == a })
		if !inUse {
			return a
		}
		if a = a.Next(); !n.Contains(a) {
			a = n.Masked().Addr().Next()
		}
	}
	return n.Addr()
}

// last is a network's broadcast address; none in one of a single host.
func last(n netip.Prefix) netip.Addr {
	if !n.Addr().Is4() || n.Bits() >= 31 {
		return netip.Addr{}
	}
	b := n.Addr().As4()
	for i := n.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// Addresses are ours now: those we were told, else those we took.
func (p *Port) Addresses() []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.used) > 0 {
		return slices.Clone(p.used)
	}
	return slices.Clone(p.found)
}

// ours reports whether an address is ours.
func (p *Port) ours(a netip.Addr) bool {
	is := func(n netip.Prefix) bool { return n.Addr() == a }
	return a == p.fe80 || slices.ContainsFunc(p.used, is) || slices.ContainsFunc(p.found, is)
}

// Look reports where something lives at the other end, each address when it is
// heard after a silence, until ctx ends: whoever answers for one of Options.At,
// and whoever says anything by itself.
func (p *Port) Look(ctx context.Context, seen func(netip.Addr)) error {
	l := &look{make(chan netip.Addr, remembers)}
	p.mu.Lock()
	p.looks[l] = struct{}{}
	now := time.Now()
	for a, n := range p.table {
		if a.Is4() && n.alive(now) {
			l.tell(a)
		}
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.looks, l)
	}()
	p.poke()
	for {
		select {
		case a := <-l.seen:
			seen(a)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.done:
			return net.ErrClosed
		}
	}
}

// Cable tells that the cable died or came up. Whoever was there may be somebody
// else now.
func (p *Port) Cable(up bool) {
	if !up {
		p.mu.Lock()
		p.table.forget()
		p.mu.Unlock()
	}
	p.poke()
}

// poke makes the port ask at once.
func (p *Port) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// asking sends questions for as long as there is somebody to ask for.
func (p *Port) asking() {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		next := tick.C
		if !p.askOnce() {
			next = nil
		}
		select {
		case <-next:
		case <-p.wake:
		case <-p.done:
			return
		}
	}
}

// askOnce sends the questions that are due and reports whether there will be
// more.
func (p *Port) askOnce() bool {
	p.mu.Lock()
	var at []netip.Addr
	if len(p.looks) > 0 {
		at = p.opt.At
	}
	var out [][]byte
	for _, a := range p.table.due(at, time.Now()) {
		if from := p.source(a); from.IsValid() {
			out = append(out, arp{op: arpAsk, fromMAC: p.opt.MAC, fromAddr: from, toAddr: a}.frame(everyone))
		}
	}
	more := len(p.looks) > 0 || p.table.waiting()
	p.mu.Unlock()
	for _, f := range out {
		_ = p.frames.WriteFrame(f) // a dead cable loses it; the next one is 25 ms away
	}
	return more
}

// transmit sends what the stack has to say.
func (p *Port) transmit() {
	b := make([]byte, headLen+p.opt.MTU)
	bufs, sizes := [][]byte{b}, []int{0}
	for {
		if _, err := p.stack.Read(bufs, sizes, headLen); err != nil {
			return
		}
		if to, ok := p.address(b[:headLen+sizes[0]]); ok {
			head(b, to, p.opt.MAC, kindOf(b[headLen:]))
			_ = p.frames.WriteFrame(b[:headLen+sizes[0]]) // lost packets are repeated
		}
	}
}

func kindOf(packet []byte) uint16 {
	if packet[0]>>4 == 6 {
		return typeIPv6
	}
	return typeIPv4
}

// address finds the MAC for a frame. Where it is not known yet, the frame waits.
func (p *Port) address(frame []byte) (MAC, bool) {
	_, to, ok := ends(frame[headLen:])
	if !ok {
		return MAC{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case to == netip.AddrFrom4([4]byte{255, 255, 255, 255}), p.isBroadcast(to):
		return everyone, true
	case to.IsMulticast():
		return groupMAC(to), true
	}
	now := time.Now()
	n := p.table.get(to)
	known := n.mac != MAC{}
	if known {
		head(frame, n.mac, p.opt.MAC, kindOf(frame[headLen:]))
		n.call(frame, now)
	}
	if known && !n.expected() && now.Sub(n.heard) < confirm {
		return n.mac, true
	}
	if !known && len(n.waits) == 0 {
		n.waiting = now
	}
	if !known && len(n.waits) < keepMany {
		head(frame, MAC{}, p.opt.MAC, kindOf(frame[headLen:]))
		n.waits = append(n.waits, slices.Clone(frame))
	}
	if from := p.source(to); from.IsValid() && now.Sub(n.asked) >= askEvery {
		n.asked = now
		_ = p.frames.WriteFrame(arp{op: arpAsk, fromMAC: p.opt.MAC, fromAddr: from, toAddr: to}.frame(everyone))
	}
	p.poke()
	return n.mac, known
}

func (p *Port) isBroadcast(a netip.Addr) bool {
	return slices.ContainsFunc(p.used, func(n netip.Prefix) bool { return last(n) == a })
}

// receive takes what comes over the cable.
func (p *Port) receive() {
	b := make([]byte, maxFrame)
	for {
		n, err := p.frames.ReadFrame(b)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
				go p.Close() // the card is gone: nobody shall wait for it
			}
			return
		}
		p.take(b[:n])
	}
}

// take handles one frame.
func (p *Port) take(f []byte) {
	if len(f) < headLen {
		return
	}
	to, from := MAC(f[:6]), MAC(f[6:12])
	if from == p.opt.MAC || from[0]&1 == 1 || to != p.opt.MAC && to[0]&1 == 0 {
		return
	}
	packet := f[headLen:]
	switch uint16(f[12])<<8 | uint16(f[13]) {
	case typeARP:
		p.takeARP(packet)
	case typeIPv4, typeIPv6:
		p.takeIP(packet, from)
	}
}

func (p *Port) takeARP(b []byte) {
	a, ok := parseARP(b)
	if !ok || a.fromMAC == p.opt.MAC {
		return
	}
	p.mu.Lock()
	answer := a.op == arpAsk && p.ours(a.toAddr) && !p.ours(a.fromAddr)
	p.mu.Unlock()
	if answer {
		_ = p.frames.WriteFrame(arp{op: arpAnswer, fromMAC: p.opt.MAC, fromAddr: a.toAddr, toMAC: a.fromMAC, toAddr: a.fromAddr}.frame(a.fromMAC))
	}
	p.heard(a.fromAddr, a.fromMAC, false)
}

func (p *Port) takeIP(b []byte, mac MAC) {
	from, to, ok := ends(b)
	if !ok {
		return
	}
	if from.Is4() || from.IsLinkLocalUnicast() {
		p.heard(from, mac, b[0]>>4 == 4 && b[9] == 6)
	}
	if who, ok := asksFor(b); ok && who == p.fe80 && from.IsLinkLocalUnicast() {
		_ = p.frames.WriteFrame(iAm(p.opt.MAC, p.fe80, mac, from))
		return
	}
	if to == netip.IPv4Unspecified() {
		return
	}
	_, _ = p.stack.Write([][]byte{b}, 0)
}

// heard notes a sign of life, which may be an answer by TCP, sends what waited for
// it, and tells whoever looks.
func (p *Port) heard(a netip.Addr, mac MAC, answered bool) {
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || mac[0]&1 == 1 {
		return
	}
	p.mu.Lock()
	if p.ours(a) {
		p.mu.Unlock()
		return
	}
	ready, news := p.table.learn(a, mac, answered, time.Now())
	if news && a.Is4() {
		for l := range p.looks {
			l.tell(a)
		}
	}
	p.mu.Unlock()
	for _, f := range ready {
		_ = p.frames.WriteFrame(f)
	}
}
