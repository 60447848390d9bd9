package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrSilent is the cause of a LostError when the router said nothing for all of
// our patience.
var ErrSilent = errors.New("no sign of life")

// How far a connection came before it failed.
const (
	StageConnect   = "connect"   // TCP
	StageHandshake = "handshake" // SSH's greeting and key exchange
)

// An UnreachableError says that there is no SSH to be had at an address.
type UnreachableError struct {
	Addr  string
	Stage string
	Via   string // the jump host, if any
	Cause error
}

func (e *UnreachableError) Error() string {
	via := ""
	if e.Via != "" {
		via = " through " + e.Via
	}
	if e.Stage == StageHandshake {
		return fmt.Sprintf("%s%s took the connection but did not finish SSH's handshake: %s", e.Addr, via, e.Why())
	}
	return fmt.Sprintf("%s%s cannot be reached: %s", e.Addr, via, e.Why())
}

func (e *UnreachableError) Unwrap() error { return e.Cause }

// Refused reports whether something answered there and said no.
func (e *UnreachableError) Refused() bool {
	return errors.Is(e.Cause, syscall.ECONNREFUSED) || e.Cause != nil && strings.Contains(e.Cause.Error(), "refused")
}

// Timeout reports whether nothing answered.
func (e *UnreachableError) Timeout() bool {
	var n net.Error
	return errors.Is(e.Cause, context.DeadlineExceeded) || errors.As(e.Cause, &n) && n.Timeout()
}

// Why is the cause in few words.
func (e *UnreachableError) Why() string {
	var dns *net.DNSError
	switch {
	case errors.As(e.Cause, &dns):
		return "no address is known for " + dns.Name
	case e.Refused():
		return "connection refused"
	case e.Timeout():
		return "no answer in time"
	case errors.Is(e.Cause, context.Canceled):
		return "interrupted"
	case e.Cause == nil:
		return "no answer"
	}
	var op *net.OpError
	if errors.As(e.Cause, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return e.Cause.Error()
}

// A NotSSHError says that something else than SSH answered.
type NotSSHError struct {
	Addr   string
	Banner string // the first line it sent, printable, at most 120 bytes
}

func (e *NotSSHError) Error() string {
	return fmt.Sprintf("%s does not speak SSH, it said %q", e.Addr, e.Banner)
}

// A HostKeyError says that the host key is not the one we know, or that nobody
// knows it and there is no store to pin it in.
type HostKeyError struct {
	Addr  string
	Name  string   // the name the key is pinned under
	Known []string // fingerprints, SHA256:…; none: nobody knows this host
	Seen  string   // fingerprint of the key shown now
	Type  string   // its type: ssh-ed25519
	Where string   // which file or store knows another key
	key   ssh.PublicKey
}

func (e *HostKeyError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("the host key of %s is not known: %s %s", e.Addr, e.Type, e.Seen)
	}
	return fmt.Sprintf("the host key of %s has changed: known %s (%s), seen %s %s",
		e.Addr, strings.Join(e.Known, ", "), e.Where, e.Type, e.Seen)
}

// Key is the key that was shown, for Accept.
func (e *HostKeyError) Key() ssh.PublicKey { return e.key }

// An AuthError says that no login was possible.
type AuthError struct {
	Addr    string
	User    string
	Tried   []string // "none", "key FILE", "agent key COMMENT", "password"
	Offered []string // methods the router accepts, in SSH's words
	Skipped []string // what could have been tried and why it was not
	Cause   error    // why asking for a password or passphrase failed, or nil
}

func (e *AuthError) Error() string {
	s := fmt.Sprintf("%s lets %s not in: tried %s; it offers %s", e.Addr, e.User, list(e.Tried), list(e.Offered))
	if len(e.Skipped) > 0 {
		s += "; not tried: " + strings.Join(e.Skipped, "; ")
	}
	return s
}

func (e *AuthError) Unwrap() error { return e.Cause }

// Broken reports whether the login ended because the connection did: the router
// went down, or fell silent, before it had refused everything. Then a later try may
// well succeed.
func (e *AuthError) Broken() bool {
	var network net.Error
	return errors.Is(e.Cause, context.DeadlineExceeded) || errors.Is(e.Cause, io.EOF) || errors.As(e.Cause, &network)
}

func list(s []string) string {
	if len(s) == 0 {
		return "nothing"
	}
	return strings.Join(s, ", ")
}

// A LostError says that a script was sent and its end is not known.
type LostError struct {
	Addr   string
	Ran    time.Duration // since the script was sent
	Silent time.Duration // since the router was last heard, within that time
	Cause  error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the connection to %s was lost %s after a script was sent: %v",
		e.Addr, e.Ran.Round(time.Millisecond), e.Cause)
}

func (e *LostError) Unwrap() error { return e.Cause }

// An OutputError says that a script gave more output than allowed.
type OutputError struct {
	Addr  string
	Limit int // bytes
}

func (e *OutputError) Error() string {
	return fmt.Sprintf("a script on %s gave more than %d bytes of output", e.Addr, e.Limit)
}
