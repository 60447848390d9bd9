package hostnet

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A NotPossibleError says that this way, or this system, cannot do something.
// Whoever asked has to do without.
type NotPossibleError struct {
	What  string // "ARP", "the state of the cable"
	Way   Way
	Cause error // may be nil
}

func (e *NotPossibleError) Error() string {
	s := e.What + " is not possible here"
	if e.Way != "" {
		s += " by " + string(e.Way)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *NotPossibleError) Unwrap() error { return e.Cause }

// A NotAllowedError says that the system refuses what a way over the card needs.
type NotAllowedError struct {
	Card  Card
	What  string // "a raw Ethernet port", "switching the card on"
	Cause error
}

func (e *NotAllowedError) Error() string {
	return fmt.Sprintf("this system does not allow %s on %s: %v", e.What, e.Card.Name, e.Cause)
}

func (e *NotAllowedError) Unwrap() error { return e.Cause }

// A NeedsAddressError says that the card needs an address that we may not give
// it: a person has to, as Advise says.
type NeedsAddressError struct {
	Card    Card
	Address netip.Prefix
	Cause   error
}

func (e *NeedsAddressError) Error() string {
	return fmt.Sprintf("%s needs the address %s: %v", e.Card.Name, e.Address, e.Cause)
}

func (e *NeedsAddressError) Unwrap() error { return e.Cause }

// A LentError says that another run, still alive, has borrowed on this computer.
type LentError struct {
	Record string
	PID    int       // 0: not known
	Since  time.Time // zero: not known
}

func (e *LentError) Error() string {
	return fmt.Sprintf("another run (process %d) has borrowed an address on this computer (%s)", e.PID, e.Record)
}

// A LeftError says that something borrowed could not be given back. The record
// still has it.
type LeftError struct {
	Card  string
	What  []string // "address 192.168.178.2/24"
	Cause error
}

func (e *LeftError) Error() string {
	return fmt.Sprintf("%s could not be given back on %s: %v", strings.Join(e.What, ", "), e.Card, e.Cause)
}

func (e *LeftError) Unwrap() error { return e.Cause }

// A RecordError says that the record of what was borrowed cannot be understood.
type RecordError struct {
	Path  string
	Cause error
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("%s does not say what was borrowed: %v", e.Path, e.Cause)
}

func (e *RecordError) Unwrap() error { return e.Cause }

// A CommandError says that a program of this system failed.
type CommandError struct {
	Command string
	Output  string // its first line
	Cause   error
}

func (e *CommandError) Error() string {
	if e.Output != "" {
		return fmt.Sprintf("%s said %q", e.Command, e.Output)
	}
	return fmt.Sprintf("%s: %v", e.Command, e.Cause)
}

func (e *CommandError) Unwrap() error { return e.Cause }

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(line)
}
