package uplink

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Why is the reason of a refusal, whatever the protocol.
type Why string

// The reasons.
const (
	NotAuthorized Why = "not authorised"                     // UPnP 606, PCP 2, NAT-PMP 2: the person has to permit it
	NotForOthers  Why = "only for the host that asks"        // the request came from another address
	NoPublic      Why = "it has no public address itself"    // UPnP 501, PCP 8, NAT-PMP 3: double NAT, CGNAT, or no internet now
	Taken         Why = "the port is taken"                  // UPnP 718, PCP 11
	OnlyPermanent Why = "it maps for good only"              // UPnP 725
	Full          Why = "it has no room for another mapping" // UPnP 728, PCP 8/6, NAT-PMP 4
	Unsupported   Why = "it does not know that"              // UPnP 401/602, PCP 4, NAT-PMP 5
	SwitchedOff   Why = "switched off"                       // connection refused, UPnP 403
	WrongPassword Why = "wrong user name or password"        // TR-064
	NeedsPassword Why = "it wants a password"                // TR-064 without Login
	NeedsSecond   Why = "it wants a second confirmation"     // TR-064 866: a button or a phone call at the box
	Busy          Why = "busy"                               // TR-064 867, 868; UPnP 501 of some
	NotPermitted  Why = "this user may not do that"          // TR-064 606/703 with a Login
	BadArgument   Why = "it does not take the values"        // UPnP 402, 600, 601
	NotThere      Why = "there is no such entry"             // UPnP 714
	OtherReason   Why = "refused"                            // any other
)

// A RefusedError is a "no" of the ISP router.
type RefusedError struct {
	Reply string // what it answered: "AddPortMapping: 606 Action not authorized"
	Code  int    // the protocol's own number; 0: none
	Why   Why
}

func (e *RefusedError) Error() string {
	if e.Reply == "" {
		return "refused, " + string(e.Why)
	}
	return "refused, " + string(e.Why) + " (" + e.Reply + ")"
}

// A NoAnswerError says that nothing came back.
type NoAnswerError struct{ Waited time.Duration }

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("no answer in %.1f s", e.Waited.Seconds())
}

// An UnreachableError says that there was no way to the ISP router.
type UnreachableError struct{ Cause error }

func (e *UnreachableError) Error() string { return "no way there: " + e.Cause.Error() }

// Unwrap is the cause.
func (e *UnreachableError) Unwrap() error { return e.Cause }

// A GarbledError is an answer that nobody can understand.
type GarbledError struct {
	Reply string // what should have come: "description", "AddPortMapping"
	What  string // what is wrong with it
}

func (e *GarbledError) Error() string { return e.Reply + " not understood: " + e.What }

// A NotPossibleError says that a protocol was left out, and why.
type NotPossibleError struct{ Reason string }

func (e *NotPossibleError) Error() string { return "not asked: " + e.Reason }

// A DifferentError says that the ISP router agreed and, asked what it does now,
// said something else.
type DifferentError struct {
	Want Want
	Got  Mapping // zero: it has no such mapping
}

func (e *DifferentError) Error() string {
	if !e.Got.To.IsValid() {
		return fmt.Sprintf("it agreed, and has no mapping for %s %d", strings.ToUpper(e.Want.Proto), e.Want.External)
	}
	return fmt.Sprintf("it agreed, and sends %s %d to %s", strings.ToUpper(e.Want.Proto), e.Want.External, e.Got.To)
}

// An Attempt is one thing that was tried.
type Attempt struct {
	Protocol Protocol
	Way      string // Direct or Via
	Err      error  // nil: it worked
	Took     time.Duration
}

// String is one line for a person: "UPnP: no answer in 1.5 s".
func (a Attempt) String() string {
	if a.Err == nil {
		return string(a.Protocol) + ": answered"
	}
	return string(a.Protocol) + ": " + a.Err.Error()
}

// sentence joins attempts: "UPnP: no answer in 1.5 s; PCP: refused, not authorised".
func sentence(list []Attempt) string {
	var parts []string
	for _, a := range list {
		if s := a.String(); len(parts) == 0 || parts[len(parts)-1] != s {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "; ")
}

// A SilentError says that the ISP router understood no protocol.
type SilentError struct {
	Gateway netip.Addr
	Tried   []Attempt
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("%s lets no program open ports: %s", e.Gateway, sentence(e.Tried))
}

// A FailedError says that no protocol did what was wanted.
type FailedError struct {
	What  string // "UDP 51820 to 192.168.2.253"
	Tried []Attempt
}

func (e *FailedError) Error() string { return e.What + ": " + sentence(e.Tried) }

// Unwrap gives the causes to errors.As.
func (e *FailedError) Unwrap() []error {
	var out []error
	for _, a := range e.Tried {
		if a.Err != nil {
			out = append(out, a.Err)
		}
	}
	return out
}

// A ConflictError says that a port is somebody else's.
type ConflictError struct {
	Want Want
	// Holder is who has it. To is not valid when the ISP router does not tell; it may
	// then be a port that it does not give to anybody.
	Holder Mapping
	Reply  string
}

func (e *ConflictError) Error() string {
	if !e.Holder.To.IsValid() {
		return fmt.Sprintf("%s %d is taken or reserved", strings.ToUpper(e.Want.Proto), e.Want.External)
	}
	return fmt.Sprintf("%s %d leads to %s already", strings.ToUpper(e.Want.Proto), e.Want.External, e.Holder.To)
}
