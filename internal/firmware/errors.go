package firmware

import (
	"fmt"
	"strings"
)

// A Trouble says in which way something could not be fetched.
type Trouble string

// The troubles.
const (
	Unreachable Trouble = "unreachable" // no connection, no name
	Lost        Trouble = "lost"        // the connection broke, several times
	Stalled     Trouble = "stalled"     // connected, and nothing comes
	NotFound    Trouble = "not-found"   // 404, or no such file in the folder
	Status      Trouble = "status"      // another status
	WebPage     Trouble = "web-page"    // a page in place of the file, as from a hotel's network
	Redirected  Trouble = "redirected"  // sent on to an address without TLS, or in a circle
	TooLarge    Trouble = "too-large"   // more than such a file can be
)

// A FetchError says that a file did not come.
type FetchError struct {
	URL     string // or a path
	Trouble Trouble
	Status  int    // of Status and NotFound; 0 for a folder
	Detail  string // the address of Redirected, the page's title, the limit
	Err     error
}

func (e *FetchError) Error() string {
	s := e.URL + ": " + string(e.Trouble)
	if e.Status != 0 {
		s += fmt.Sprintf(" (%d)", e.Status)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *FetchError) Unwrap() error { return e.Err }

// A Doubt says why a file is not trusted.
type Doubt string

// The doubts.
const (
	Unsigned     Doubt = "unsigned"      // there is no signature beside the list
	KeyUnknown   Doubt = "key-unknown"   // signed with a key that nobody here knows
	Forged       Doubt = "forged"        // the signature does not fit the list
	Damaged      Doubt = "damaged"       // the file is not what the list says
	NotListed    Doubt = "not-listed"    // the signed list does not name the file
	WrongRelease Doubt = "wrong-release" // signed, but of another release or target than asked for
)

// A TrustError says that a file came and is not used.
type TrustError struct {
	Name   string // the file's
	Doubt  Doubt
	Keys   []string // KeyUnknown: which keys signed it
	Detail string   // what was seen
}

func (e *TrustError) Error() string {
	s := e.Name + ": " + string(e.Doubt)
	if len(e.Keys) > 0 {
		s += " " + strings.Join(e.Keys, ", ")
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// A ListError says that a list makes no sense.
type ListError struct{ Name, What string }

func (e *ListError) Error() string { return e.Name + ": " + e.What }

// A MissingError says that there is no such release, or no such file in it.
type MissingError struct {
	Version, Profile, Type string   // Profile and Type are "" when the release is missing
	Have                   []string // what there is instead
}

func (e *MissingError) Error() string {
	if e.Profile == "" {
		return "no release " + e.Version
	}
	return fmt.Sprintf("no %s of %s in %s", e.Type, e.Profile, e.Version)
}

// A DiskError says that a file could not be kept.
type DiskError struct {
	Path string
	Need int64 // bytes that the file has in all, 0 when not known
	Full bool
	Err  error
}

func (e *DiskError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *DiskError) Unwrap() error { return e.Err }

// A BuildError says why the image builder made no image.
type BuildError struct {
	Status int    // of the HTTP answer: 400, 404, 422, 500, 529; 0 when it never ended
	Detail string // the builder's words, one line
	Waited string // how long, when it never ended
}

func (e *BuildError) Error() string {
	if e.Status == 0 {
		return "the image builder did not end in " + e.Waited
	}
	return fmt.Sprintf("the image builder answered %d: %s", e.Status, e.Detail)
}
