package eva

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ErrGone says that the box closed the connection.
var ErrGone = errors.New("the box closed the connection")

// ErrSilent says that nothing came in time.
var ErrSilent = errors.New("no answer")

// A NotFoundError says that no bootloader answered until the deadline.
type NotFoundError struct {
	Waited time.Duration
	Asked  []netip.Addr
	Sights []Sight // what did answer
	UDP    error   // why UDP 5035 could not be asked; nil when it could
	Cause  error   // why the search ended: the context's
}

func (e *NotFoundError) Unwrap() error { return e.Cause }

func (e *NotFoundError) Error() string {
	s := fmt.Sprintf("no bootloader answered in %s", e.Waited.Round(100*time.Millisecond))
	for _, sight := range e.Sights {
		s += "; " + sight.String()
	}
	if e.UDP != nil {
		s += "; UDP port 5035 could not be asked (" + e.UDP.Error() + ")"
	}
	return s
}

// Missed reports whether a box was there whose boot window had passed: a running
// system answered.
func (e *NotFoundError) Missed() bool {
	for _, s := range e.Sights {
		if s.What == Refused || s.What == OtherFTP || s.What == RunsSSH {
			return true
		}
	}
	return false
}

// Kind is the sight that explains most, "" when nothing answered.
func (e *NotFoundError) Kind() What {
	for _, w := range []What{SeenSlint, SeenTI, SeenElsewhere, RunsSSH, OtherFTP, NotEVA, Dropped, Refused} {
		for _, s := range e.Sights {
			if s.What == w {
				return w
			}
		}
	}
	return ""
}

// A SeveralError says that more than one bootloader is on the cable: giving one
// an address could give it to both, so none was touched.
type SeveralError struct{ At []netip.Addr }

func (e *SeveralError) Error() string {
	return fmt.Sprintf("%d boxes answer from their bootloader: %v", len(e.At), e.At)
}

// A LostError says that the box fell silent or the connection ended.
type LostError struct {
	Doing   string // "MEDIA FLSH", "sending"
	After   time.Duration
	Sent    int64 // bytes of the image that were on their way
	Erased  bool  // the old firmware is gone; the bootloader never is
	Cause   error
	Replies []string // what the box said last, quoted
}

func (e *LostError) Error() string {
	s := fmt.Sprintf("the box was lost during %s after %s: %v", e.Doing, e.After.Round(100*time.Millisecond), e.Cause)
	if len(e.Replies) > 0 {
		s += " (it said " + strings.Join(e.Replies, ", ") + ")"
	}
	return s
}

func (e *LostError) Unwrap() error { return e.Cause }

// A RefusedError says that the box said no.
type RefusedError struct {
	Command string
	Reply   Reply
	Erased  bool // as in LostError
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the box refused %s: %q", e.Command, fmt.Sprint(e.Reply.Code, " ", e.Reply.Text))
}

// A StrangeError says that the box answered what we do not understand. Lines are
// quoted as they came, secrets left out.
type StrangeError struct {
	Command string
	Lines   []string
	Erased  bool // as in LostError
}

func (e *StrangeError) Error() string {
	return fmt.Sprintf("the box answered %s with %s, which heimweg does not understand", e.Command, strings.Join(e.Lines, ", "))
}

// Erased reports whether an error of Send may have cost the box its old firmware:
// then it does not start until an image is sent. Its bootloader is never touched.
func Erased(err error) bool {
	at := erasedIn(err)
	return at != nil && *at
}

// erasedIn is where an error keeps that; nil when it is of another kind.
func erasedIn(err error) *bool {
	var lost *LostError
	var no *RefusedError
	var strange *StrangeError
	switch {
	case errors.As(err, &lost):
		return &lost.Erased
	case errors.As(err, &no):
		return &no.Erased
	case errors.As(err, &strange):
		return &strange.Erased
	}
	return nil
}

// An UnknownBoardError says that OpenWrt has nothing for this box, or that we do
// not know it.
type UnknownBoardError struct {
	HWRevision string
	Name       string // the device when known, though unsupported
}

func (e *UnknownBoardError) Error() string {
	if e.Name != "" {
		return fmt.Sprintf("this is a %s (HWRevision %s), which OpenWrt does not support through this bootloader", e.Name, e.HWRevision)
	}
	if e.HWRevision == "" {
		return "the box does not say which model it is (no HWRevision)"
	}
	return fmt.Sprintf("HWRevision %s is no box that heimweg knows", e.HWRevision)
}

// A WrongBoardError says that a plan was made for another box.
type WrongBoardError struct{ Planned, Found string }

func (e *WrongBoardError) Error() string {
	return fmt.Sprintf("this box has HWRevision %s, the plan is for %s", strconv.Quote(e.Found), strconv.Quote(e.Planned))
}

// A BoxError says that the box is of the right model but not as we know it.
type BoxError struct {
	What        string // "mtd1", "flashsize"
	Found, Want string
}

func (e *BoxError) Error() string {
	return fmt.Sprintf("%s of this box is %q, known is %q", e.What, e.Found, e.Want)
}

// A SizeError says that a file does not fit.
type SizeError struct {
	Role      Role
	Size, Max int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("the %s has %d bytes, the box takes %d", e.Role, e.Size, e.Max)
}

// A FileError says that a file is not the one that was planned: another length or
// digest.
type FileError struct {
	Role  Role
	Why   string
	Cause error
}

func (e *FileError) Error() string { return fmt.Sprintf("the %s %s", e.Role, e.Why) }
func (e *FileError) Unwrap() error { return e.Cause }

// quote shows a line as it came; a line that starts with the name of a variable
// shows no value unless that variable is public.
func quote(line string) string {
	if _, ok := parseReply(line); !ok {
		if name, _, two := strings.Cut(line, " "); two && !public[name] {
			return strconv.Quote(name) + " (the rest is not shown)"
		}
	}
	return strconv.Quote(line)
}
