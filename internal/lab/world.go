package lab

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// World is one emulated piece of the earth: links, stacks, the record of what
// happened to every packet, and the names that public DNS would know.
type World struct {
	engine *engine

	mu     sync.Mutex
	rand   *rand.Rand
	links  map[string]*Link
	stacks []*Stack
	names  map[string][]netip.Addr
	closed bool

	record   record
	packetID atomic.Uint64
}

// New makes an empty world. The seed decides everything that chance decides
// (sequence numbers, port numbers), so a failing test can be repeated.
func New(seed uint64) *World {
	return &World{
		engine: newEngine(),
		rand:   rand.New(rand.NewPCG(seed, 0x6865696d776567)),
		links:  map[string]*Link{},
		names:  map[string][]netip.Addr{},
	}
}

// Close switches everything off: all sockets end, no packet moves any more.
// It must not be called from a Filter or Iface.Send.
func (w *World) Close() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.closed = true
	stacks := append([]*Stack(nil), w.stacks...)
	w.mu.Unlock()
	for _, s := range stacks {
		s.PowerOff()
	}
	w.engine.close()
}

// After runs fn on the world's own goroutine after d. fn must not block.
func (w *World) After(d time.Duration, fn func()) { w.engine.after(d, fn) }

// Link finds the link of this name, and lays it when there is none.
func (w *World) Link(name string) *Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.links[name]
	if l == nil {
		l = &Link{w: w, name: name}
		w.links[name] = l
	}
	return l
}

// Stacks lists all hosts and routers in the order they were made.
func (w *World) Stacks() []*Stack {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*Stack(nil), w.stacks...)
}

// Name makes public DNS answer name with these addresses, IPv4 (A) and IPv6
// (AAAA). Without one, or with the zero address, the name is forgotten.
func (w *World) Name(name string, addrs ...netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !a.IsValid() })
	if len(addrs) > 0 {
		w.names[strings.ToLower(name)] = addrs
	} else {
		delete(w.names, strings.ToLower(name))
	}
}

// Lookup asks public DNS for one address, IPv4 before IPv6, as WireGuard's apps
// choose (wireguard-android, InetEndpoint). It needs no packets: who wants DNS to
// travel gives a host a server on UDP port 53.
func (w *World) Lookup(name string) (netip.Addr, bool) {
	all, ok := w.LookupAll(name)
	if !ok {
		return netip.Addr{}, false
	}
	if i := slices.IndexFunc(all, netip.Addr.Is4); i >= 0 {
		return all[i], true
	}
	return all[0], true
}

// LookupAll asks public DNS for all addresses.
func (w *World) LookupAll(name string) ([]netip.Addr, bool) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all, ok := w.names[strings.ToLower(strings.TrimSuffix(name, "."))]
	return slices.Clone(all), ok
}

func (w *World) random() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.Uint32()
}

// Outcome is what became of a packet at one place.
type Outcome string

// The outcomes. A packet's life starts with Sent, goes on with Forwarded, and
// ends with one of the other three.
const (
	Sent      Outcome = "sent"      // left its first host
	Forwarded Outcome = "forwarded" // a router passed it on, perhaps rewritten
	Delivered Outcome = "delivered" // reached a socket or a tunnel device
	Dropped   Outcome = "dropped"   // ended here, silently
	Rejected  Outcome = "rejected"  // ended here, and the sender was told
)

// Dead reports whether a packet with this outcome ended without arriving.
func (o Outcome) Dead() bool { return o == Dropped || o == Rejected }

// Fate is one line of the record: what happened to one packet at one place.
type Fate struct {
	Seq     uint64    // position in the record
	At      time.Time // in the world's time, which is virtual in a bubble
	ID      uint64    // the packet; the same on every hop
	Where   string    // the stack or link
	Hook    string    // at what point: "input", "forward", "output", "link", "route", …
	Packet  Packet    // as it looked there, after any rewriting
	Outcome Outcome
	Why     string // for people: the rule, or the physical cause
}

// String gives one line for a person.
func (f Fate) String() string {
	s := fmt.Sprintf("#%d %s %s at %s (%s)", f.ID, f.Packet, f.Outcome, f.Where, f.Hook)
	if f.Why != "" {
		s += ": " + f.Why
	}
	return s
}

// The record keeps the last lines of each kind apart, so that a long download,
// all of it delivered, does not wash away the one packet that died.
const (
	keptPassing = 4096
	keptDead    = 8192
)

type record struct {
	mu      sync.Mutex
	seq     uint64
	passing ring
	dead    ring
	watch   []func(Fate)
}

type ring struct {
	lines []Fate
	next  int
}

func (r *ring) add(f Fate, limit int) {
	if len(r.lines) < limit {
		r.lines = append(r.lines, f)
		return
	}
	r.lines[r.next] = f
	r.next = (r.next + 1) % limit
}

func (r *ring) ordered() []Fate {
	return append(append([]Fate(nil), r.lines[r.next:]...), r.lines[:r.next]...)
}

func (w *World) note(id uint64, where, hook string, p Packet, o Outcome, why string) {
	r := &w.record
	r.mu.Lock()
	r.seq++
	f := Fate{Seq: r.seq, At: time.Now(), ID: id, Where: where, Hook: hook, Packet: p, Outcome: o, Why: why}
	if o.Dead() {
		r.dead.add(f, keptDead)
	} else {
		r.passing.add(f, keptPassing)
	}
	watch := r.watch
	r.mu.Unlock()
	for _, fn := range watch {
		fn(f)
	}
}

// Record returns what happened, oldest first. It keeps at least the last 4096
// lines of packets on their way and the last 8192 deaths.
func (w *World) Record() []Fate {
	r := &w.record
	r.mu.Lock()
	a, b := r.passing.ordered(), r.dead.ordered()
	r.mu.Unlock()
	out := make([]Fate, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].Seq < b[0].Seq {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// Deaths returns the packets that ended without arriving, oldest first.
func (w *World) Deaths() []Fate {
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	return w.record.dead.ordered()
}

// Watch calls fn with every new line of the record, on the goroutine that
// moves the packets: fn must not block.
func (w *World) Watch(fn func(Fate)) {
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	w.record.watch = append(append([]func(Fate){}, w.record.watch...), fn)
}

// Story tells the record of one packet, one line per place.
func (w *World) Story(id uint64) string {
	var b strings.Builder
	for _, f := range w.Record() {
		if f.ID == id {
			fmt.Fprintln(&b, f)
		}
	}
	return b.String()
}
