package flash

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/openwrt"
)

// FirstBoot waits until the new system answers at 192.168.1.1 and, with settle,
// until its first boot is through: the flash formatted, the scripts of the first
// boot run. What was written before that would be lost at the next power cut.
func (s *Session) FirstBoot(ctx context.Context, settle bool) (Result, error) {
	inner, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { s.watch(inner, "starting") })
	r := Result{Model: s.boards[0].Model, At: fresh, Checks: s.checkLines()}
	if s.began.IsZero() {
		s.began = time.Now()
	}
	end := s.o.Tell.Stage("starting", "first start: takes about "+minutes(bootUsual)+". The cable goes dead and comes back, the lights blink, that is normal")
	l, err := s.await(ctx, "the new system", bootTime, s.fromFlash)
	end(err, "OpenWrt "+l.state.Board.Release.Version+" answers at "+fresh.String())
	if err == nil && settle && !l.state.Settled() {
		l, err = s.settle(ctx)
	}
	if err != nil {
		return r, s.explain(err)
	}
	r.Board, r.Settled, r.Took = l.state.Board, l.state.Settled(), time.Since(s.began)
	r.HostKey = l.key
	return r, nil
}

// fromFlash: the system that was written runs, not the one in RAM any more.
func (s *Session) fromFlash(l login) (bool, error) {
	switch {
	case wantsPassword(l.err):
		return false, &otherSystemError{"it wants a password"}
	case l.err != nil:
		return false, nil
	case s.oldKey != nil && bytes.Equal(l.key.Marshal(), s.oldKey.Marshal()) && time.Since(s.began) > leaveTime:
		return false, &stillRAMError{l.state.Trouble}
	case s.oldKey != nil && bytes.Equal(l.key.Marshal(), s.oldKey.Marshal()): // the one that installs, on its way out
		return false, nil
	case l.state.Root == openwrt.RAMSystem && time.Since(s.began) > leaveTime:
		return false, &stillRAMError{l.state.Trouble}
	case l.state.Root == openwrt.RAMSystem:
		return false, nil
	case !s.isOurs(l.state.Board.Name):
		return false, &otherSystemError{"it says that it is " + l.state.Board.Name}
	}
	if want := s.version(); want != "" && !sameRelease(l.state.Board.Release.Version, want) {
		return false, &otherSystemError{"it is OpenWrt " + l.state.Board.Release.Version + ", written was " + want}
	}
	return true, nil
}

// version is the release that was written, as far as the files say; of a kernel
// only the line.
func (s *Session) version() string {
	for _, f := range s.files {
		if f.Role == Firmware || f.Role == System || f.Role == Kernel {
			return f.Image.Release.Version
		}
	}
	return ""
}

func sameRelease(runs, written string) bool {
	return runs == written || strings.HasPrefix(runs, written+".") || strings.HasPrefix(runs, written+"-") || runs == "SNAPSHOT" || written == "SNAPSHOT"
}

// An otherSystemError says that something else runs than what was written.
type otherSystemError struct{ says string }

func (e *otherSystemError) Error() string { return "another system came up: " + e.says }

// A stillRAMError says that sysupgrade did not go on.
type stillRAMError struct{ said string }

func (e *stillRAMError) Error() string { return "the system in RAM still runs" }

// settle waits for the end of the first boot.
func (s *Session) settle(ctx context.Context) (login, error) {
	end := s.o.Tell.Stage("settling", "formatting the flash and finishing the first start: a few minutes. Do not unplug")
	l, err := s.await(ctx, "the end of the first start", settleTime, func(l login) (bool, error) {
		s.o.Tell.Progress("settling", "formatting …", part(time.Since(s.began), bootUsual))
		return l.err == nil && l.state.Settled(), nil
	})
	end(err, "settled")
	return l, err
}
