package uplink

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Patience when Options name none.
const (
	firstPatience = 1500 * time.Millisecond
	laterPatience = 5 * time.Second
)

// way is a Way with its name.
type way struct {
	Way
	name string
	own  bool // what goes this way comes from Options.Client
}

// ways lists those that can dial: whose requests are the home router's own first.
func (o Options) ways() []way {
	var own, others []way
	for _, w := range []way{{o.Direct, Direct, false}, {o.Via, Via, true}} {
		if w.Dial == nil {
			continue
		}
		w.own = w.own || !w.From.IsValid() || w.From == o.Client
		if w.own {
			own = append(own, w)
		} else {
			others = append(others, w)
		}
	}
	return append(own, others...)
}

func (o Options) first() time.Duration { return o.patience(firstPatience) }
func (o Options) later() time.Duration { return o.patience(laterPatience) }

func (o Options) patience(otherwise time.Duration) time.Duration {
	if o.Patience > 0 {
		return o.Patience
	}
	return otherwise
}

// over does something by one way after the other until one gets an answer. The
// way that answered before comes first, unless another one speaks for the home
// router and it does not.
func (g *Gateway) over(ctx context.Context, p Protocol, before string, f func(context.Context, way) error) []Attempt {
	list := g.opt.ways()
	for i, w := range list {
		if w.name == before && w.own == list[0].own {
			list[0], list[i] = list[i], list[0]
		}
	}
	var tried []Attempt
	for _, w := range list {
		a := g.try(ctx, p, w.name, func(ctx context.Context) error { return f(ctx, w) })
		tried = append(tried, a)
		if a.Err == nil || ctx.Err() != nil || !another(a.Err) {
			break
		}
	}
	return tried
}

// try does one thing and notes what came of it.
func (g *Gateway) try(ctx context.Context, p Protocol, name string, f func(context.Context) error) Attempt {
	started := time.Now()
	err := f(ctx)
	return Attempt{Protocol: p, Way: name, Err: plain(ctx, err, started), Took: time.Since(started)}
}

// another reports whether another way may do better: this one led nowhere.
func another(err error) bool {
	var silent *NoAnswerError
	var gone *UnreachableError
	var no *RefusedError
	switch {
	case errors.As(err, &silent), errors.As(err, &gone):
		return true
	case errors.As(err, &no):
		return no.Why == SwitchedOff && no.Code == 0
	}
	return false
}

// exchange sends a datagram, again and again, until accept takes an answer.
func exchange(ctx context.Context, w Way, to netip.AddrPort, request []byte, patience time.Duration, accept func([]byte) bool) error {
	conn, err := w.ListenUDP(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	started := time.Now()
	buf := make([]byte, 2048)
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		if _, err := conn.WriteTo(request, net.UDPAddrFromAddrPort(to)); err != nil {
			return ended(ctx, err)
		}
		until := time.Now().Add(wait)
		if end := started.Add(patience); until.After(end) {
			until = end
		}
		conn.SetReadDeadline(until)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				var t net.Error
				if ctx.Err() != nil || !errors.As(err, &t) || !t.Timeout() {
					return ended(ctx, err)
				}
				break
			}
			if sender(from) == to && accept(buf[:n]) {
				return nil
			}
		}
		if time.Since(started) >= patience {
			return &NoAnswerError{Waited: patience}
		}
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func sender(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		p := u.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
	}
	return netip.AddrPort{}
}
