package flash

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/shell"
)

// open logs in to a system that has no password yet, over the cable. Its host key
// is new at every start from RAM and at the first boot, so none is remembered.
func (s *Session) open(ctx context.Context, at netip.Addr) (*shell.Conn, error) {
	// A packet into a dead cable is repeated ever more rarely; a new try is sooner there.
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, stop := context.WithTimeout(ctx, dialTime)
		defer stop()
		return s.cable.Dial(ctx, network, addr)
	}
	return shell.Open(ctx, shell.Target{Addr: netip.AddrPortFrom(at, 22).String(), User: "root", Jump: "none"}, shell.Options{
		Dial: dial, HostKeys: new(shell.Memory), Auth: shell.Auth{NoneOnly: true}, Config: "none"})
}

// wantsPassword: the system answered, and let nobody in. One that goes down in the
// middle of a login breaks it, too, but says nothing.
func wantsPassword(err error) bool {
	var auth *shell.AuthError
	return errors.As(err, &auth) && len(auth.Offered) > 0
}

// login looks at what answers by SSH.
func (s *Session) login(ctx context.Context, at netip.Addr) login {
	ctx, stop := context.WithTimeout(ctx, loginTime)
	defer stop()
	l := login{at: at}
	c, err := s.open(ctx, at)
	if err != nil {
		l.err = err
		return l
	}
	defer c.Close()
	l.key = c.HostKey()
	l.state, l.err = openwrt.LookBoot(ctx, c)
	return l
}

// await looks again and again until enough says that it is enough, or fails. The
// deadline is told in the failure.
func (s *Session) await(ctx context.Context, what string, limit time.Duration, enough func(login) (bool, error)) (login, error) {
	limited, stop := context.WithTimeout(ctx, limit)
	defer stop()
	began, rest := time.Now(), lookFirst
	var last login
	for {
		l := s.login(limited, fresh)
		if limited.Err() == nil {
			last = l
			if ok, err := enough(l); ok || err != nil {
				return l, err
			}
		}
		rest = min(rest*5/4, lookRarely)
		if err := pause(limited, rest); err != nil {
			if ctx.Err() != nil {
				return last, ctx.Err()
			}
			return last, &awaitError{what, time.Since(began).Round(time.Second), last}
		}
	}
}

// An awaitError says that something did not come in time.
type awaitError struct {
	what  string
	after time.Duration
	last  login
}

func (e *awaitError) Error() string { return fmt.Sprintf("%s: not within %s", e.what, e.after) }

func (e *awaitError) Unwrap() error { return e.last.err }

// watch follows the cable while the box restarts: it says so, and gives us our
// addresses back. It ends with ctx.
func (s *Session) watch(ctx context.Context, stage string) {
	first := true
	for up := true; ctx.Err() == nil; up = !up {
		if s.cable.WaitLink(ctx, up) != nil {
			return
		}
		if first && up {
			first = false
			continue
		}
		if !up {
			s.o.Tell.Note(stage, "the cable went dead")
			continue
		}
		s.o.Tell.Note(stage, "the cable is up again")
		if err := s.use(); err != nil {
			s.o.Tell.Note(stage, "our addresses on the cable could not be set again: "+err.Error())
		}
	}
}
