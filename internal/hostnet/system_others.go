//go:build !linux

package hostnet

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"strings"
)

var thisSystem system = commands{runtime.GOOS}

// commands changes cards by the system's own programs.
type commands struct{ os string }

func (s commands) do(ctx context.Context, c Card, ch change) error {
	return run(ctx, commandLine(s.os, c, ch, true))
}

// undo fails only when what was borrowed is still there.
func (s commands) undo(ctx context.Context, c Card, ch change) error {
	fail := run(ctx, commandLine(s.os, c, ch, false))
	if fail == nil || ch.What != address {
		return fail
	}
	list, err := Cards(ctx)
	if err != nil {
		return err
	}
	for _, now := range list {
		if now.Name == c.Name && now.Has(ch.Net.Addr()) {
			return fail
		}
	}
	return nil
}

func run(ctx context.Context, line []string) error {
	if line == nil {
		return errors.ErrUnsupported
	}
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
	if err != nil {
		return &CommandError{Command: strings.Join(line, " "), Output: firstLine(out), Cause: err}
	}
	return nil
}

func (c *Cable) openOwn(context.Context, Options) error {
	return &NotAllowedError{Card: c.card, What: "a raw Ethernet port", Cause: errors.ErrUnsupported}
}

// keepManagerAway: Windows lets our address stand beside one from DHCP only when
// told so.
func keepManagerAway(ctx context.Context, l *loan) error {
	if runtime.GOOS != "windows" {
		return nil
	}
	return l.borrow(ctx, change{What: unmanaged})
}

// needsRoutes: a socket bound to the card uses the card's own routes.
func needsRoutes(Card) bool { return false }
