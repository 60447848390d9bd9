package ether

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// How often neighbours are asked for and how long an answer counts: all of it is
// here. A system's own TCP/IP asks once a second, which costs up to 1.2 s of a
// boot window of two (facts eva 2.5).
const (
	askEvery  = 25 * time.Millisecond  // for an address that does not answer
	recheck   = 200 * time.Millisecond // for one that does, while somebody looks
	quiet     = 500 * time.Millisecond // silence after which it counts as gone
	confirm   = time.Second            // silence after which it is asked again before it is relied on
	keepFor   = 3 * time.Second        // how long packets wait for an answer
	keepMany  = 64                     // how many of them
	keepCalls = 4                      // beginnings of connections that are repeated
	answerIn  = 20 * time.Millisecond  // in which a box that hears us answers one
	remembers = 256                    // neighbours; a box has one address, the rest is noise
)

// A neighbour is an address at the other end of the cable.
type neighbour struct {
	mac     MAC // zero: not known
	heard   time.Time
	asked   time.Time
	waits   [][]byte  // whole frames without their destination
	waiting time.Time // since when

	// Connections begun without an answer so far. Whoever switched a box off and on
	// again knows its MAC, so the first packet of a connection leaves before the
	// box can hear it, and the stack repeats it only after a second.
	calls  [][]byte
	called time.Time // the last of them
}

// call remembers the first packet of a connection.
func (n *neighbour) call(frame []byte, now time.Time) {
	if isCall(frame) {
		n.calls = append(n.calls[max(0, len(n.calls)-keepCalls+1):], slices.Clone(frame))
		n.called = now
	}
}

func (n *neighbour) alive(now time.Time) bool { return now.Sub(n.heard) < quiet }

// table is who lives where. Its users hold the port's lock.
type table map[netip.Addr]*neighbour

func (t table) get(a netip.Addr) *neighbour {
	n := t[a]
	if n == nil {
		if len(t) >= remembers {
			t.drop()
		}
		n = &neighbour{}
		t[a] = n
	}
	return n
}

// drop forgets the neighbour that was silent longest and that nothing waits for.
func (t table) drop() {
	var oldest netip.Addr
	for a, n := range t {
		if !n.expected() && (!oldest.IsValid() || n.heard.Before(t[oldest].heard)) {
			oldest = a
		}
	}
	delete(t, oldest)
}

// learn notes where an address lives. It returns the frames that waited for it,
// and whether it was silent before. It has answered our calls if that is what we
// heard; else those that it cannot have heard are repeated.
func (t table) learn(a netip.Addr, mac MAC, answered bool, now time.Time) (ready [][]byte, news bool) {
	n := t.get(a)
	news = !n.alive(now)
	n.mac, n.heard = mac, now
	switch {
	case answered:
		n.calls = nil
	case now.Sub(n.called) >= answerIn:
		ready, n.calls = n.calls, nil
	}
	for _, f := range n.waits {
		n.call(f, now)
	}
	ready, n.waits = append(ready, n.waits...), nil
	for _, f := range ready {
		copy(f, mac[:])
	}
	return ready, news
}

// forget makes everyone unknown: the cable was out.
func (t table) forget() {
	for a, n := range t {
		n.mac, n.heard, n.asked = MAC{}, time.Time{}, time.Time{}
		if len(n.waits) == 0 {
			delete(t, a)
		}
	}
}

// due lists whom to ask now: whom packets wait for, and whom somebody looks for.
func (t table) due(look []netip.Addr, now time.Time) []netip.Addr {
	var out []netip.Addr
	for a, n := range t {
		if now.Sub(n.waiting) > keepFor {
			n.waits = nil
		}
		if now.Sub(n.called) > keepFor {
			n.calls = nil
		}
		if a.Is4() && n.expected() && now.Sub(n.asked) >= askEvery/2 {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	for _, a := range look {
		n := t.get(a)
		every := askEvery
		if n.alive(now) {
			every = recheck
		}
		if now.Sub(n.asked) >= every-askEvery/2 && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, a := range out {
		t.get(a).asked = now
	}
	return out
}

// expected reports whether something waits for a sign of life.
func (n *neighbour) expected() bool { return len(n.waits) > 0 || len(n.calls) > 0 }

// waiting reports whether anything waits for anyone.
func (t table) waiting() bool {
	for n := range maps.Values(t) {
		if n.expected() {
			return true
		}
	}
	return false
}
