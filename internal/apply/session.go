// Package apply brings a home router to where home.toml wants it: it runs a plan
// under guard, over as few round trips as it can, and leaves the router in the
// old state or in the new one, never between.
//
// It knows the order of things and no protocol: connections come from a Way,
// scripts from package openwrt, what to do from package plan. It prints nothing;
// it tells events and returns failures that say what to do next.
//
// The order, from the facts on guarded changes: look · nothing of anybody else's
// pending · let ourselves in (key, password) and show that nobody gets in without
// · packages, outside any window, because their scripts restart services ·
// snapshot and two guards on the router · write · let the router's own readers
// judge · activate · come back over a new connection and find everything as it
// was wanted · confirm · look again and find nothing left to do.
package apply

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
)

// A Conn is one connection to the home router; *shell.Conn is one.
type Conn interface {
	openwrt.Shell
	Method() string
	Close() error
}

// A Way is how to get to the home router.
type Way struct {
	// Addr is where it is, host or host:port.
	Addr string
	// Open makes a new connection to addr.
	Open func(ctx context.Context, addr string) (Conn, error)
	// NoneRefused asks over a new connection whether a login without any
	// credentials is refused.
	NoneRefused func(ctx context.Context, addr string) (bool, error)
}

// Deadlines. Each is named in the message when it passes.
const (
	// connectTime: one connection, login included.
	connectTime = 20 * time.Second
	// stepTime: one script that installs nothing.
	stepTime = 90 * time.Second
	// installTime: fetching and unpacking packages over a slow line.
	installTime = 10 * time.Minute
	// firstTry is how long the first try to come back may take, login included; the
	// next ones take longer. A packet that went into a network which was just then
	// renumbered is repeated ever more rarely: a new try is sooner there. A slow
	// router's key exchange takes two seconds and gets in at the second round.
	firstTry = 2 * time.Second
	// retryPause lies between two tries to come back.
	retryPause = time.Second
	// lookPause lies between two looks at a router that is busy with itself.
	lookPause = 5 * time.Second
)

// A Session is one stay at the home router.
type Session struct {
	way  Way
	tell event.Tell
	want openwrt.LookFor
	conn Conn
	snap *router.Snapshot
	// moved is where the router is after its address changed, "" before.
	moved string
}

// Start connects, looks, and deals with what an earlier run left behind: a change
// that nobody confirmed is waited for or taken back first.
func Start(ctx context.Context, way Way, want openwrt.LookFor, tell event.Tell) (*Session, error) {
	s, err := Enter(ctx, way, want, tell)
	if err != nil {
		return nil, err
	}
	if err := s.settle(ctx); err != nil {
		s.Close()
		return nil, Explain(err, way.Addr)
	}
	return s, nil
}

// Enter connects and looks, for those who change nothing: what an earlier run left
// behind stays as it is, and Snapshot names it.
func Enter(ctx context.Context, way Way, want openwrt.LookFor, tell event.Tell) (*Session, error) {
	s := &Session{way: way, tell: tell, want: want}
	if err := s.connect(ctx, way.Addr); err != nil {
		return nil, Explain(err, way.Addr)
	}
	if err := s.look(ctx); err != nil {
		s.Close()
		return nil, Explain(err, way.Addr)
	}
	return s, nil
}

// Close ends the connection.
func (s *Session) Close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// Snapshot is what the last look showed.
func (s *Session) Snapshot() *router.Snapshot { return s.snap }

// Shell is the connection, for looks of another kind.
func (s *Session) Shell() openwrt.Shell { return s.conn }

// Local is this computer's address on the connection, invalid when the way leads
// through another computer.
func (s *Session) Local() netip.Addr {
	c, ok := s.conn.(interface{ LocalAddr() net.Addr })
	if !ok {
		return netip.Addr{}
	}
	ap, _ := netip.ParseAddrPort(c.LocalAddr().String())
	return ap.Addr().Unmap()
}

// Moved is the router's new address when it changed during this session, else "".
func (s *Session) Moved() string { return s.moved }

// Addr is where the router is now.
func (s *Session) Addr() string { return s.addr() }

// Reconnect makes a new connection in place of one that was lost.
func (s *Session) Reconnect(ctx context.Context) error {
	return Explain(s.connect(ctx, s.addr()), s.addr())
}

// Look looks again.
func (s *Session) Look(ctx context.Context) error { return Explain(s.look(ctx), s.addr()) }

// Also reads one more configuration file into what the last look showed.
func (s *Session) Also(ctx context.Context, config string) error {
	return Explain(s.do(ctx, func(ctx context.Context) error { return openwrt.AddConfig(ctx, s.conn, s.snap, config) }), s.addr())
}

func (s *Session) addr() string {
	if s.moved != "" {
		return s.moved
	}
	return s.way.Addr
}

func (s *Session) connect(ctx context.Context, addr string) error {
	return s.connectIn(ctx, addr, connectTime)
}

func (s *Session) connectIn(ctx context.Context, addr string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := s.way.Open(ctx, addr)
	if err != nil {
		return err
	}
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn = c
	return nil
}

func (s *Session) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	snap, err := openwrt.Look(ctx, s.conn, s.want)
	if err != nil {
		return err
	}
	s.snap = snap
	return nil
}

// settle deals with an unconfirmed change. Whether the run that began it still
// lives cannot be known, so its guard is given its time; a change without a
// running guard is taken back at once.
func (s *Session) settle(ctx context.Context) error {
	p := s.snap.Pending
	if p == nil {
		return nil
	}
	end := s.tell.Stage("settle", "an earlier run left a change unconfirmed; the old settings come back first")
	err := s.waitForGuard(ctx, p)
	if err == nil && s.snap.Pending != nil {
		if err = s.do(ctx, func(ctx context.Context) error { return openwrt.TakeBack(ctx, s.conn, "") }); err == nil {
			err = s.look(ctx)
		}
	}
	if err == nil && s.snap.Pending != nil {
		err = &openwrt.Refusal{Code: "stuck"}
	}
	end(err, "the old settings are back")
	return err
}

// waitForGuard looks again and again until nothing is pending or the guard's
// time is over.
func (s *Session) waitForGuard(ctx context.Context, p *router.Pending) error {
	left := p.Deadline - s.snap.Time.Sub(p.Since) + lookPause
	if !p.Armed || left <= 0 || left > openwrt.GuardLong+lookPause {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, left+stepTime)
	defer cancel()
	for until := time.Now().Add(left); s.snap.Pending != nil && s.snap.Pending.Armed && time.Now().Before(until); {
		if err := pause(ctx, lookPause); err != nil {
			return err
		}
		// Putting the old settings back may end this connection.
		if err := s.look(ctx); err != nil {
			if err := s.comeBack(ctx, s.addr()); err != nil {
				return err
			}
		}
	}
	return nil
}

// comeBack makes a new connection and looks, again and again until ctx ends.
func (s *Session) comeBack(ctx context.Context, addrs ...string) error {
	var last error
	for limit := firstTry; ; limit = min(2*limit, connectTime) {
		for _, a := range addrs {
			err := s.connectIn(ctx, a, limit)
			if err == nil {
				err = s.look(ctx)
			}
			if err == nil {
				if a != s.way.Addr {
					s.moved = a
				}
				return nil
			}
			if last == nil || ctx.Err() == nil {
				last = err
			}
			if !WorthRetry(err) {
				return err
			}
		}
		if err := pause(ctx, retryPause); err != nil {
			return last
		}
	}
}

// WorthRetry: a router that reloads its network or goes down may be silent, refuse,
// or break off. Another host key or a refused login does not mend itself.
func WorthRetry(err error) bool {
	var key *shell.HostKeyError
	var auth *shell.AuthError
	return !errors.As(err, &key) && (!errors.As(err, &auth) || auth.Broken())
}

// do runs one step with its deadline.
func (s *Session) do(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	return step(ctx)
}

// pause waits between two looks at a fact; it ends early with ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Check refuses what makes any change unwise, before a plan is even shown: a
// system that is not OpenWrt 21.02 or newer.
func Check(s *router.Snapshot, addr string) error {
	r := s.Board.Release
	if r.Distribution != "OpenWrt" {
		return fault.New("not-openwrt", "what answers at %s is not OpenWrt but %s", addr, r.Distribution).
			Do("flash OpenWrt first, or name the right router with --router")
	}
	if l := r.Effective(); l == (router.Line{}) || l.Before(router.Line2102) {
		return fault.New("release-too-old", "the router at %s runs OpenWrt %s; heimweg needs 21.02 or newer", addr, r.Version).
			Do("flash a current release first (24.10 or 25.12)")
	}
	return nil
}
