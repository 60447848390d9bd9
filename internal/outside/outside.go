// Package outside asks servers on the internet what home looks like from there:
// by STUN over UDP, by a web page over HTTPS that says who calls, and by public
// DNS. The answer tells whether a provider translates addresses on the way, which
// nothing inside the house can tell.
//
// Whom to ask is the caller's choice, always: the package knows no server, and it
// is a matter of privacy that nobody is asked without need. Every question leaves
// by the given way, because an answer is worth something only when the question
// went out through the home router: from this computer behind it, or, for HTTPS,
// through its SSH.
//
// It must never follow a server elsewhere (no redirects), nor believe an answer
// to a question that it did not ask: a STUN answer must come from the server and
// repeat the question's 96 random bits. The time is bounded by the context and by
// Patience, an answer's size by 1500 and 4096 bytes.
//
// STUN is RFC 8489; of it only the Binding question without authentication and
// the attribute XOR-MAPPED-ADDRESS are needed. (The plain MAPPED-ADDRESS is
// rewritten by some routers, which is why the other was invented, and is not
// believed.)
package outside

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Patience is how long one server may stay silent.
const Patience = 4 * time.Second

// A Way is a way out.
type Way struct {
	// Dial connects by "tcp4" or "tcp6" to "host:port"; nil: no TCP. Over SSH the
	// other end resolves the name.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// ListenUDP opens a UDP port for "udp4" or "udp6"; nil: no UDP, as over SSH.
	ListenUDP func(ctx context.Context, network string) (net.PacketConn, error)
	// Lookup finds the addresses of a server's name; nil: this computer's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Roots are the authorities that may vouch for a web server; nil: this
	// computer's.
	Roots *x509.CertPool
	// Rand gives the bits that tell our question's answer from another's.
	Rand io.Reader
}

// System is the way out of this computer. Questions carry the address from, when
// it is valid: then a VPN on this computer cannot answer for home.
func System(rand io.Reader, from netip.Addr) Way {
	return Way{
		Rand: rand,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			var d net.Dialer
			if fits(network, from) {
				d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			}
			return d.DialContext(ctx, network, address)
		},
		ListenUDP: func(ctx context.Context, network string) (net.PacketConn, error) {
			at := ":0"
			if fits(network, from) {
				at = netip.AddrPortFrom(from, 0).String()
			}
			return (&net.ListenConfig{}).ListenPacket(ctx, network, at)
		},
	}
}

func fits(network string, a netip.Addr) bool {
	return a.IsValid() && a.Is4() == (network[len(network)-1] == '4')
}

// A Family of addresses to ask over.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) has(a netip.Addr) bool { return a.Is4() == (f == IPv4) }

func (f Family) network(proto string) string { return fmt.Sprintf("%s%d", proto, int(f)) }

// A NoWayError means that nothing of this family leads to the server from here:
// this computer has no such address, or no route. It says nothing about home.
type NoWayError struct {
	Server string
	Family Family
	Cause  error // nil: the server has no such address
}

func (e *NoWayError) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("%s has no IPv%d address", e.Server, e.Family)
	}
	return fmt.Sprintf("no way to %s over IPv%d: %s", e.Server, e.Family, brief(e.Cause))
}

func (e *NoWayError) Unwrap() error { return e.Cause }

// A SilentError means that a server did not answer.
type SilentError struct {
	Server string
	Waited time.Duration
	Cause  error
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("%s did not answer in %s", e.Server, e.Waited.Round(100*time.Millisecond))
}

func (e *SilentError) Unwrap() error { return e.Cause }

// A RefusedError is a server's no: a STUN error code or an HTTP status.
type RefusedError struct {
	Server string
	Code   int
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s refused (code %d)", e.Server, e.Code) }

// A NonsenseError is an answer that says no address.
type NonsenseError struct {
	Server string
	What   string
}

func (e *NonsenseError) Error() string { return fmt.Sprintf("%s answered, but %s", e.Server, e.What) }

// A ServerError is a name of a server that cannot be used.
type ServerError struct {
	Server string
	Why    string
}

func (e *ServerError) Error() string { return fmt.Sprintf("%q: %s", e.Server, e.Why) }

// classify turns what a socket said into one of ours.
func classify(err error, server string, f Family, start time.Time) error {
	switch {
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EHOSTUNREACH):
		return &NoWayError{server, f, err}
	case errors.Is(err, context.Canceled):
		return err
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return &SilentError{server, time.Since(start), err}
	}
	return &NonsenseError{server, brief(err)}
}

// brief is the innermost error's text.
func brief(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// address finds the server's address of one family.
func (w Way) address(ctx context.Context, host, server string, f Family) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a = a.Unmap(); !f.has(a) {
			return a, &NoWayError{server, f, nil}
		}
		return a, nil
	}
	ask := w.Lookup
	if ask == nil {
		ask = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	found, err := ask(ctx, host)
	if err != nil {
		return netip.Addr{}, &ServerError{server, "its name has no address: " + brief(err)}
	}
	for _, a := range found {
		if a = a.Unmap(); f.has(a) {
			return a, nil
		}
	}
	return netip.Addr{}, &NoWayError{server, f, nil}
}

// Records are what public DNS says about a host name.
type Records struct{ A, AAAA []netip.Addr }

// Lookup asks for a name's addresses. A name that does not exist has none; that
// is an answer and no error.
func Lookup(ctx context.Context, ask func(context.Context, string) ([]netip.Addr, error), host string) (Records, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	found, err := ask(ctx, host)
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return Records{}, nil
	}
	if err != nil {
		return Records{}, err
	}
	var r Records
	for _, a := range found {
		if a = a.Unmap(); a.Is4() {
			r.A = append(r.A, a)
		} else {
			r.AAAA = append(r.AAAA, a)
		}
	}
	return r, nil
}
