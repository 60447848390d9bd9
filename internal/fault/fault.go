// Package fault holds failures that people can act on: a stable code, one
// sentence, what was seen, and what to do next.
//
// Edges return typed errors that carry data; flows turn them into faults; only
// the surface prints them (package view). Sentences are lower case, without a
// full stop, name the thing and the place, and never contain a secret.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Kind tells whose move it is.
type Kind int

const (
	// Happened: the world is not as it should be.
	Happened Kind = iota
	// Usage: what was typed or written in home.toml is wrong.
	Usage
	// Bug: heimweg itself is wrong.
	Bug
)

// Exit codes of the program. They are documented and do not change meaning.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitDifferences = 3 // plan --check, verify and doctor found something
	ExitNeedsPerson = 4 // a question came up and there is nobody to ask
	ExitUnreachable = 5 // the home router cannot be reached
	ExitInterrupted = 130
)

// A Place is where in a text a failure sits; Line and Column count from 1.
type Place struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column,omitempty"` // in bytes; 0 when the whole line is meant
	Length int    `json:"length,omitempty"` // bytes to underline
	Text   string `json:"text,omitempty"`   // the line, without its end; never one that holds a secret
}

func (p Place) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
		if p.Column > 0 {
			s += fmt.Sprintf(":%d", p.Column)
		}
	}
	return s
}

// A Fault is one failure with its way out.
type Fault struct {
	Code  string   `json:"code"` // stable, for scripts: "router-unreachable"
	What  string   `json:"what"` // the sentence
	Place *Place   `json:"place,omitempty"`
	Why   []string `json:"why,omitempty"`
	Seen  []string `json:"seen,omitempty"`
	Next  []string `json:"next,omitempty"`
	Kind  Kind     `json:"-"`
	Exit  int      `json:"-"` // 0 means: from Kind
	cause error
}

// New makes a fault of kind Happened.
func New(code, format string, args ...any) *Fault {
	return &Fault{Code: code, What: fmt.Sprintf(format, args...)}
}

// NewUsage makes a fault about what was typed.
func NewUsage(code, format string, args ...any) *Fault {
	f := New(code, format, args...)
	f.Kind = Usage
	return f
}

// NewBug makes a fault about heimweg itself.
func NewBug(format string, args ...any) *Fault {
	f := New("bug", format, args...)
	f.Kind = Bug
	return f
}

// At says where in a file it stands.
func (f *Fault) At(p Place) *Fault { f.Place = &p; return f }

// Because adds a line of explanation.
func (f *Fault) Because(format string, args ...any) *Fault {
	f.Why = append(f.Why, fmt.Sprintf(format, args...))
	return f
}

// Saw adds an observation.
func (f *Fault) Saw(format string, args ...any) *Fault {
	f.Seen = append(f.Seen, fmt.Sprintf(format, args...))
	return f
}

// Do adds what to do next: one command or one physical action.
func (f *Fault) Do(format string, args ...any) *Fault {
	f.Next = append(f.Next, fmt.Sprintf(format, args...))
	return f
}

// From keeps the error that caused it, for errors.Is and errors.As. Its text is
// not printed.
func (f *Fault) From(err error) *Fault { f.cause = err; return f }

// Exits sets the program's exit code.
func (f *Fault) Exits(code int) *Fault { f.Exit = code; return f }

// ExitCode is the program's exit code for this fault.
func (f *Fault) ExitCode() int {
	switch {
	case f.Exit != 0:
		return f.Exit
	case f.Kind == Usage:
		return ExitUsage
	default:
		return ExitFailed
	}
}

// Error is the sentence with its place.
func (f *Fault) Error() string {
	if f.Place != nil {
		return f.Place.String() + ": " + f.What
	}
	return f.What
}

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.cause }

// Find gives the first fault in err's chain, or nil.
func Find(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// A List is several faults found in one look, such as all errors of a file.
type List []*Fault

func (l List) Error() string {
	var b strings.Builder
	for i, f := range l {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.Error())
	}
	return b.String()
}

// Unwrap lets errors.As find the first fault.
func (l List) Unwrap() []error {
	out := make([]error, len(l))
	for i, f := range l {
		out[i] = f
	}
	return out
}

// Err is nil for an empty list.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}
