package lab

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// linkQueue is how many packets may be under way on one link; more are lost,
// as in any switch.
const linkQueue = 4096

// Link is one Ethernet segment: everything attached to it hears everything else.
// A packet is carried to the port that has the next hop's address, which stands
// for what ARP and neighbour discovery do.
type Link struct {
	w    *World
	name string

	mu        sync.Mutex
	ports     []port
	unplugged map[*Stack]bool
	cut       bool
	drop      func(Packet) bool
	latency   time.Duration
	flying    int
	last      time.Time // when the last packet under way arrives: order is kept
	servers   []leaseServer
	watchers  []leaseWatcher
}

type port struct {
	stack *Stack
	dev   string
}

// Name of the link, such as "home LAN".
func (l *Link) Name() string { return l.name }

// Cut stops all packets on the link, in both directions, until Heal.
func (l *Link) Cut() { l.set(func() { l.cut = true }) }

// Heal ends a Cut.
func (l *Link) Heal() { l.set(func() { l.cut = false }) }

// Drop loses every packet for which lost answers true; nil ends that. lost is
// called on the world's goroutine and must not block.
func (l *Link) Drop(lost func(Packet) bool) { l.set(func() { l.drop = lost }) }

// Latency makes every packet take d to cross the link. The start is 0.
func (l *Link) Latency(d time.Duration) { l.set(func() { l.latency = d }) }

// Unplug takes one stack's cables out of this link until Plug.
func (l *Link) Unplug(s *Stack) {
	l.set(func() {
		if l.unplugged == nil {
			l.unplugged = map[*Stack]bool{}
		}
		l.unplugged[s] = true
	})
}

// Plug puts the cable back.
func (l *Link) Plug(s *Stack) {
	l.set(func() { delete(l.unplugged, s) })
	l.tellWatchers()
}

// Plugged reports whether s has carrier on this link: its cable is in and the
// link is not cut.
func (l *Link) Plugged(s *Stack) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.cut && !l.unplugged[s]
}

func (l *Link) set(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn()
}

func (l *Link) attach(s *Stack, dev string) {
	l.set(func() { l.ports = append(l.ports, port{s, dev}) })
}

func (l *Link) detach(s *Stack, dev string) {
	l.set(func() {
		for i, p := range l.ports {
			if p.stack == s && p.dev == dev {
				l.ports = append(l.ports[:i:i], l.ports[i+1:]...)
				return
			}
		}
	})
}

// find is ARP: which port answers for addr. A stack answers for all of its
// addresses on all of its ports, as Linux does (arp_ignore 0), but the port that
// carries the address goes first.
func (l *Link) find(addr netip.Addr, asking *Stack) (port, string) {
	var second port
	why := ""
	for _, p := range l.ports {
		if p.stack == asking {
			continue
		}
		c := p.stack.conf.Load()
		i := c.iface(p.dev)
		if i == nil || i.Down || !c.local(addr) {
			continue
		}
		if l.unplugged[p.stack] {
			why = p.stack.name + " is unplugged"
			continue
		}
		for _, a := range i.Addrs {
			if a.Addr() == addr {
				return p, ""
			}
		}
		if second.stack == nil {
			second = p
		}
	}
	if second.stack == nil && why == "" {
		why = fmt.Sprintf("nobody on %s has %s", l.name, addr)
	}
	return second, why
}

// carry takes a packet from one stack to the port of the next hop. It runs on
// the engine and reports why the packet was lost; unknown says that the next
// hop did not answer, which its sender finds out after a while.
func (l *Link) carry(from *Stack, hop netip.Addr, raw []byte, p Packet, id uint64) (why string, unknown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.cut:
		return l.name + " is cut", true
	case l.unplugged[from]:
		return from.name + " is unplugged", true
	}
	to, missing := l.find(hop, from)
	if to.stack == nil {
		return missing, true
	}
	if l.drop != nil && l.drop(p) {
		return "lost on " + l.name, false
	}
	if l.flying >= linkQueue {
		return l.name + " is overloaded", false
	}
	l.flying++
	arrive := func() {
		l.mu.Lock()
		l.flying--
		dead := l.cut || l.unplugged[to.stack]
		l.mu.Unlock()
		if dead {
			l.w.note(id, l.name, "link", p, Dropped, "the link went down under way")
			return
		}
		to.stack.receive(to.dev, raw, id)
	}
	now := time.Now()
	if l.latency == 0 && !l.last.After(now) {
		l.w.engine.soon(arrive)
		return "", false
	}
	at := now.Add(l.latency)
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	l.w.engine.at(at, arrive)
	return "", false
}

// shout carries a broadcast to every other stack on the link. Who does not listen
// on its port leaves no trace in the record, which stays readable.
func (l *Link) shout(from *Stack, raw []byte, id uint64) {
	l.mu.Lock()
	var to []port
	for _, p := range l.ports {
		if p.stack != from && !l.cut && !l.unplugged[from] && !l.unplugged[p.stack] {
			to = append(to, p)
		}
	}
	latency := l.latency
	l.mu.Unlock()
	l.w.engine.after(latency, func() {
		for _, p := range to {
			p.stack.hearBroadcast(p.dev, raw, id)
		}
	})
}

// Seen lists the addresses that live on the link now, as somebody sees them who
// looks at ARP: those of stacks with power whose cable is in.
func (l *Link) Seen() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []netip.Addr
	for _, p := range l.ports {
		i := p.stack.conf.Load().iface(p.dev)
		if i == nil || i.Down || l.cut || l.unplugged[p.stack] {
			continue
		}
		for _, a := range i.Addrs {
			out = append(out, a.Addr())
		}
	}
	return out
}
