package flash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
)

// Write replaces the firmware. The caller has asked for the risk by its name.
// Until the first byte an interruption costs nothing; after it the failure says
// that the bootloader is untouched and what to do.
//
// A box that is gone before anything was written is waited for again, with the
// same files.
func (s *Session) Write(ctx context.Context) error {
	err := s.write(ctx)
	if err != nil {
		s.Leave(ctx)
		s.Close()
	}
	return s.explain(err)
}

// again is how often a box that was lost before the first byte is waited for.
const again = 3

func (s *Session) write(ctx context.Context) error {
	if s.box != nil {
		err := s.send(ctx)
		for n := 0; err != nil && n < again && s.lostEarly(ctx, err); n++ {
			s.o.Tell.Note("search", "the box is gone, by itself or by its plug. Nothing was written. Switch it off, wait 5 s, and switch it on; heimweg looks for it again")
			if err = s.findAgain(ctx); err == nil {
				err = s.send(ctx)
			}
		}
		if err != nil {
			return err
		}
	}
	if s.method == image.FromRAM || s.method == image.FromUBoot {
		err := s.install(ctx)
		var other *otherNANDError
		if errors.As(err, &other) {
			if err = s.changeRAM(ctx, other.board); err == nil {
				err = s.install(ctx)
			}
		}
		if err != nil {
			return err
		}
	}
	s.started, s.began = true, time.Now()
	return nil
}

// lostEarly: the connection ended before anything was written or started.
func (s *Session) lostEarly(ctx context.Context, err error) bool {
	var lost *eva.LostError
	return errors.As(err, &lost) && !lost.Erased && !s.touched && ctx.Err() == nil
}

// findAgain waits for the same box once more. Its files are here already.
func (s *Session) findAgain(ctx context.Context) error {
	hw := s.hw
	s.Close()
	if err := newHunt(s).run(ctx); err != nil {
		return err
	}
	if s.box == nil { // its RAM system answers
		return nil
	}
	if got := s.env.HWRevision(); got != strconv.Itoa(hw) {
		return &eva.WrongBoardError{Planned: strconv.Itoa(hw), Found: got}
	}
	files, _ := s.forLoader()
	var err error
	s.plan, err = eva.NewPlan(s.env, files...)
	return err
}

// send is everything that goes through the bootloader, up to the start.
func (s *Session) send(ctx context.Context) error {
	if s.box == nil {
		return nil
	}
	_, data := s.forLoader()
	for n := 0; ; n++ {
		readers := make([]io.Reader, len(data))
		for i, d := range data {
			readers[i] = bytes.NewReader(d)
		}
		p := &progress{tell: s.o.Tell, s: s}
		p.moved.Store(-1)
		out, err := s.overCable(ctx, p.moved.Load, func(ctx context.Context, starts func()) (eva.Outcome, error) {
			p.starts = starts
			return s.box.Send(ctx, s.plan, p.told, readers...)
		})
		s.touched = s.touched || eva.Erased(err)
		if err != nil {
			p.end(err)
			return err
		}
		s.checks = out.Checks
		if !s.writes() {
			p.end(nil)
			s.box.Close()
			s.box = nil
			s.o.Tell.Note("ram", "the box starts the "+string(s.plan.Roles()[0])+" in its memory")
			return nil
		}
		verdict, empty := s.judge()
		p.ended(nil, verdict)
		if !empty {
			break
		}
		if n == 1 {
			return &nothingError{}
		}
		s.o.Tell.Note("checking", "the box says that nothing was written; sending once more")
	}
	if err := s.box.Reboot(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.o.Tell.Note("starting", "the box did not answer to the restart. If its lights do not change within a minute, switch it off and on")
	}
	s.box = nil
	return nil
}

// A deadError says that the cable was dead for so long that the box must have lost
// its power, or its plug; or that nothing moved after it came back.
type deadError struct {
	after time.Duration
	back  bool
}

func (e *deadError) Error() string {
	if e.back {
		return "nothing moved for " + seconds(e.after) + " after the cable came back: the box was without power"
	}
	return "the cable went dead for " + seconds(e.after)
}

// overCable does something that needs the cable all the time, and ends it when the
// cable is dead: TCP alone would wait for minutes for a box without power. moved is a
// number that grows while data should flow, negative while nothing need. do calls
// starts when the cable does not matter any more.
func (s *Session) overCable(ctx context.Context, moved func() int64, do func(ctx context.Context, starts func()) (eva.Outcome, error)) (eva.Outcome, error) {
	doing, end := context.WithCancelCause(ctx)
	defer end(nil)
	minding, starts := context.WithCancel(doing)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer starts()
	wg.Go(func() {
		for s.cable.WaitLink(minding, false) == nil {
			s.o.Tell.Note("cable", "the cable went dead. If a plug came out, put it back now")
			soon, stop := context.WithTimeout(minding, deadTime)
			err := s.cable.WaitLink(soon, true)
			stop()
			switch {
			case minding.Err() != nil:
				return
			case errors.Is(err, context.DeadlineExceeded):
				end(&deadError{after: deadTime})
				return
			}
			s.o.Tell.Note("cable", "the cable is up again")
			if at := moved(); at >= 0 {
				wg.Go(func() {
					if pause(minding, stillTime) == nil && moved() == at {
						end(&deadError{stillTime, true})
					}
				})
			}
			if err := s.use(); err != nil { // a link that was down may have cost the addresses
				s.o.Tell.Note("cable", "our addresses on the cable could not be set again: "+err.Error())
			}
		}
	})
	return do(doing, starts)
}

// A nothingError says that the box wrote nothing, twice.
type nothingError struct{}

func (*nothingError) Error() string { return "nothing was written" }

// judge says what the box read back. A difference is a warning and no verdict: what
// the number covers is not fully settled (facts eva 1.5).
func (s *Session) judge() (verdict string, empty bool) {
	verdict = "the box has read it back"
	for _, c := range s.checks {
		switch c.Verdict {
		case eva.Same:
			verdict = fmt.Sprintf("the box read back what we sent (0x%08X)", c.Got)
		case eva.Nothing:
			empty = true
		case eva.Differs:
			s.o.Tell.Note("checking", fmt.Sprintf("warning: the box read back 0x%08X from %s where 0x%08X was expected. It took every byte, so it is started; if it does not come up, run the same command again", c.Got, c.Partition, c.Want))
		case eva.NotKnown:
			s.o.Tell.Note("checking", "the box did not say what it read back from "+c.Partition+"; whether it starts will show")
		}
	}
	return verdict, empty
}

// progress turns what package eva tells into events.
type progress struct {
	tell  event.Tell
	s     *Session
	stage eva.Stage
	role  eva.Role
	done  func(error, string)
	at    time.Duration
	// starts is called when the box goes on by itself: then its cable may go dead.
	starts func()
	// moved is how much was sent, -1 while the box is left alone.
	moved atomic.Int64
}

// tellEvery is how often a number that moves is told.
const tellEvery = 200 * time.Millisecond

func (p *progress) told(x eva.Progress) {
	if x.Stage == eva.Erasing || x.Stage == eva.Sending && p.s.writes() {
		p.s.touched = true // from the order to erase on
	}
	if x.Stage != p.stage || x.Role != p.role {
		p.end(nil)
		p.stage, p.role, p.at = x.Stage, x.Role, -tellEvery
		p.done = p.tell.Stage(string(x.Stage), stageText(x))
	}
	moved := int64(-1)
	if x.Stage == eva.Sending && x.Done < x.Total {
		moved = x.Done
	}
	p.moved.Store(moved)
	switch x.Stage {
	case eva.Erasing:
		p.tell.Progress(string(x.Stage), erasingText(x), part(x.Elapsed, x.Usual))
	case eva.Sending:
		if x.Elapsed-p.at >= tellEvery || x.Done == x.Total {
			p.at = x.Elapsed
			p.tell.Bytes(string(x.Stage), "sending", x.Done, x.Total, x.Rate())
		}
	case eva.Launching:
		p.starts()
	case eva.Storing, eva.Checking:
	}
}

func (p *progress) end(err error) {
	p.ended(err, map[eva.Stage]string{eva.Erasing: "erased", eva.Sending: "sent", eva.Storing: "the box has stored it",
		eva.Checking: "the box has read it back", eva.Launching: "handed over"}[p.stage])
}

func (p *progress) ended(err error, text string) {
	if p.done != nil {
		p.done(err, text)
	}
	p.done = nil
}

func stageText(x eva.Progress) string {
	switch x.Stage {
	case eva.Erasing:
		return "erasing the old " + string(x.Role) + "; do not unplug"
	case eva.Sending:
		return "sending the " + string(x.Role)
	case eva.Storing:
		return "the box stores the last bytes"
	case eva.Checking:
		return "the box reads back what it has"
	case eva.Launching:
		return "the box starts the " + string(x.Role)
	}
	return string(x.Stage)
}

func erasingText(x eva.Progress) string {
	left := x.Usual - x.Elapsed
	if left <= 0 {
		return fmt.Sprintf("erasing, for %s now; boxes differ. Do not unplug", x.Elapsed.Round(time.Second))
	}
	return fmt.Sprintf("erasing: up to %s more, the box is silent meanwhile, that is normal. Do not unplug", minutes(left))
}

func minutes(d time.Duration) string {
	if d <= 90*time.Second {
		return fmt.Sprintf("%d s", int(d.Seconds()+0.5))
	}
	return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
}

func part(done, of time.Duration) float64 {
	if of <= 0 {
		return 0
	}
	return min(float64(done)/float64(of), 0.99)
}

// writes: the bootloader itself writes the flash, rather than start something.
func (s *Session) writes() bool { return s.known.Method.Writes() }

// needsFile is a role that gather did not fill: our mistake.
func (s *Session) needsFile(role Role) error {
	return fault.NewBug("the %s is not at hand", role)
}
