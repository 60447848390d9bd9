package lab

import (
	"container/heap"
	"sync"
	"time"
)

// engine runs a world's events on one goroutine: those that are due at once in
// the order they came, later ones by time. One goroutine means that packets on
// a link keep their order, that a filter is never called twice at once, and that
// forwarding is a loop over a queue and not a recursion through stacks.
type engine struct {
	mu     sync.Mutex
	now    []func()
	later  timedQueue
	seq    uint64
	closed bool
	wake   chan struct{} // one slot: "look again"
	done   chan struct{} // closed when the goroutine has ended
}

type timed struct {
	at  time.Time
	seq uint64
	fn  func()
}

type timedQueue []timed

func (q timedQueue) Len() int { return len(q) }
func (q timedQueue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].seq < q[j].seq
	}
	return q[i].at.Before(q[j].at)
}
func (q timedQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timedQueue) Push(x any)   { *q = append(*q, x.(timed)) }
func (q *timedQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = timed{}
	*q = old[:len(old)-1]
	return last
}

func newEngine() *engine {
	e := &engine{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go e.run()
	return e
}

// soon runs fn on the engine's goroutine after everything already queued. It
// never blocks, so it may be called with any lock held.
func (e *engine) soon(fn func()) {
	e.mu.Lock()
	if !e.closed {
		e.now = append(e.now, fn)
	}
	e.mu.Unlock()
	e.nudge()
}

// at runs fn on the engine's goroutine at t or as soon after as possible.
func (e *engine) at(t time.Time, fn func()) {
	e.mu.Lock()
	if !e.closed {
		e.seq++
		heap.Push(&e.later, timed{t, e.seq, fn})
	}
	e.mu.Unlock()
	e.nudge()
}

func (e *engine) after(d time.Duration, fn func()) { e.at(time.Now().Add(d), fn) }

func (e *engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *engine) run() {
	defer close(e.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, next, closed := e.due()
		if closed {
			return
		}
		for _, fn := range batch {
			fn()
		}
		if len(batch) > 0 {
			continue
		}
		if next.IsZero() {
			<-e.wake
			continue
		}
		timer.Reset(time.Until(next))
		select {
		case <-e.wake:
		case <-timer.C:
		}
	}
}

// due takes what can run now; with nothing to run it tells when to look again.
func (e *engine) due() (batch []func(), next time.Time, closed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, time.Time{}, true
	}
	batch, e.now = e.now, nil
	if len(e.later) > 0 {
		t := time.Now()
		for len(e.later) > 0 && !e.later[0].at.After(t) {
			batch = append(batch, heap.Pop(&e.later).(timed).fn)
		}
		if len(e.later) > 0 {
			next = e.later[0].at
		}
	}
	return batch, next, false
}

func (e *engine) close() {
	e.mu.Lock()
	e.closed = true
	e.now, e.later = nil, nil
	e.mu.Unlock()
	e.nudge()
	<-e.done
}
