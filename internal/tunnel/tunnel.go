// Package tunnel is a WireGuard peer of our own in user space: it shows with real
// packets that the home router answers, and what can be reached through it.
//
// It needs no privileges, no driver and no interface of the operating system:
// wireguard-go does the cryptography and gVisor's network stack speaks TCP, UDP
// and DNS inside the tunnel. It is an edge: it never prints, never touches this
// computer's routes, and never lets wireguard-go's log, which it silences, or a
// key out.
//
// # Background
//
// WireGuard is silent by design. A home router answers a handshake initiation
// (148 bytes) only when it was made for the router's own public key and by a
// peer it knows; all other packets vanish, so a wrong key looks like a closed
// port. What can be told apart from outside, and is:
//
//	a fitting response (92 bytes)        the handshake is done
//	a response that does not fit         the preshared keys differ: only the response mixes them in
//	a cookie (64 bytes)                  the router is there, has that public key, and is under load
//	an ICMP refusal                      the host is there, and nothing listens on that port
//	nothing                              wrong key, packet dropped on the way, wrong address: not known which
//
// wireguard-go repeats an initiation every 5 s.
//
// Real wireguard-go and gVisor must stay outside testing/synctest bubbles.
package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/tunnel/ipstack"
)

// Defaults of a Config.
const (
	DefaultMTU       = 1420 // fits into 1500 with IPv6 outside
	DefaultKeepalive = 25   // seconds
)

// A Config is one peer's end of a tunnel.
type Config struct {
	Private    key.Private
	Peer       key.Public // the home router's
	Preshared  key.Preshared
	Endpoint   netip.AddrPort
	Addresses  []netip.Addr   // ours, inside the tunnel
	AllowedIPs []netip.Prefix // what is sent into the tunnel and accepted from it
	DNS        []netip.Addr   // asked through the tunnel
	MTU        int            // 0 means DefaultMTU
	Keepalive  int            // seconds; 0 means DefaultKeepalive
	// Bind carries the outer packets; nil means a UDP socket of this computer.
	// It is used for one tunnel only.
	Bind conn.Bind
}

// Stats are the counters of a tunnel.
type Stats struct {
	Sent, Received uint64    // bytes, outer payload, handshakes included
	LastHandshake  time.Time // zero: never
	Endpoint       string    // where the last fitting packet came from
	Initiations    int       // handshake initiations sent
	Responses      int       // handshake responses seen, fitting or not
	Cookies        int       // cookie replies seen
	Refused        int       // ICMP refusals seen (own socket only)
}

// A Tunnel is one peer that is up. It is safe for concurrent use.
type Tunnel struct {
	cfg   Config
	dev   *device.Device
	stack *ipstack.Stack
	nic   *nic
	tap   *tap
	since time.Time
	once  sync.Once
}

// Up makes the peer and sends the first initiation. It does not wait for an
// answer: Handshake does. Errors: *ConfigError, *UnreachableError (this computer
// has no route to the endpoint).
func Up(ctx context.Context, c Config) (*Tunnel, error) { return up(ctx, c, 0) }

// up with maxInitiations > 0 lets only so many handshake initiations out.
func up(ctx context.Context, c Config, maxInitiations int) (*Tunnel, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &UnreachableError{Addr: c.Endpoint.String(), Cause: context.Cause(ctx)}
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Keepalive == 0 {
		c.Keepalive = DefaultKeepalive
	}
	stack, err := ipstack.New(c.Addresses, c.MTU)
	if err != nil {
		return nil, &ConfigError{"addresses", err.Error()}
	}
	bind := c.Bind
	if bind == nil {
		bind = &socket{to: c.Endpoint}
	}
	t := &Tunnel{cfg: c, stack: stack, nic: newNIC(stack), tap: newTap(bind, maxInitiations), since: time.Now()}
	t.dev = device.NewDevice(t.nic, t.tap, t.tap.logger())
	if err := t.dev.IpcSet(c.uapi()); err != nil {
		t.Close()
		// Its text is not passed on: it may quote the line with a key.
		return nil, &ConfigError{"peer", "wireguard refused the settings"}
	}
	if err := t.dev.Up(); err != nil {
		t.Close()
		return nil, &UnreachableError{Addr: c.Endpoint.String(), Cause: err}
	}
	return t, nil
}

func (c Config) check() error {
	switch {
	case c.Private.IsZero():
		return &ConfigError{"private key", "missing"}
	case c.Peer.IsZero():
		return &ConfigError{"peer", "the home router's public key is missing"}
	case c.Private.Public() == c.Peer:
		return &ConfigError{"peer", "it is our own public key"}
	case !c.Endpoint.IsValid() || c.Endpoint.Port() == 0:
		return &ConfigError{"endpoint", "missing"}
	case len(c.Addresses) == 0:
		return &ConfigError{"addresses", "missing"}
	case len(c.AllowedIPs) == 0:
		return &ConfigError{"allowed IPs", "missing"}
	case c.MTU != 0 && (c.MTU < 576 || c.MTU > 9000):
		return &ConfigError{"MTU", strconv.Itoa(c.MTU) + " is not from 576 to 9000"}
	case c.Keepalive < 0 || c.Keepalive > 65535:
		return &ConfigError{"keepalive", strconv.Itoa(c.Keepalive) + " is not from 0 to 65535 s"}
	}
	return nil
}

// uapi is the configuration in wireguard-go's own language, keys in hex.
func (c Config) uapi() string {
	var b strings.Builder
	hexed := func(name string, k [key.Size]byte) { fmt.Fprintf(&b, "%s=%s\n", name, hex.EncodeToString(k[:])) }
	hexed("private_key", c.Private.Bytes())
	hexed("public_key", c.Peer.Bytes())
	if !c.Preshared.IsZero() {
		hexed("preshared_key", c.Preshared.Bytes())
	}
	fmt.Fprintf(&b, "endpoint=%s\n", c.Endpoint)
	for _, p := range c.AllowedIPs {
		fmt.Fprintf(&b, "allowed_ip=%s\n", p)
	}
	fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", c.Keepalive)
	return b.String()
}

// Handshake waits until the home router has answered once. *NoHandshakeError
// when ctx ended first, or at once when the first response does not fit.
func (t *Tunnel) Handshake(ctx context.Context) error {
	for {
		seen, changed := t.tap.look()
		if !t.lastHandshake().IsZero() {
			return nil
		}
		if seen.closed || seen.unfit > 0 && seen.initiations == 1 {
			return t.noHandshake(seen, net.ErrClosed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			seen, _ := t.tap.look()
			if !t.lastHandshake().IsZero() {
				return nil
			}
			return t.noHandshake(seen, context.Cause(ctx))
		}
	}
}

func (t *Tunnel) noHandshake(seen seen, cause error) error {
	s := t.Stats()
	e := &NoHandshakeError{
		Endpoint: t.cfg.Endpoint, Answer: seen.answer(), Sent: s.Sent, Received: seen.received,
		Initiations: seen.initiations, Waited: time.Since(t.since), Cause: cause,
	}
	if e.Answer == Unsent {
		e.Cause = seen.sendErr
	}
	return e
}

// DialContext opens a connection through the tunnel: tcp or udp, to an address
// or to a name that the DNS in the tunnel knows. Errors: *UnreachableError.
func (t *Tunnel) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &UnreachableError{Addr: addr, Cause: err}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, &UnreachableError{Addr: addr, Cause: errors.New("not a port number: " + port)}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		ips, err := t.Lookup(ctx, host)
		if err != nil {
			return nil, err
		}
		ip = ips[0]
	}
	if err := t.allowed(ip); err != nil {
		return nil, err
	}
	c, err := t.stack.Dial(ctx, network, netip.AddrPortFrom(ip, uint16(n)))
	if err != nil {
		if e := context.Cause(ctx); e != nil {
			err = e
		}
		return nil, &UnreachableError{Addr: addr, Cause: err}
	}
	return c, nil
}

func (t *Tunnel) allowed(ip netip.Addr) error {
	if slices.ContainsFunc(t.cfg.AllowedIPs, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return nil
	}
	return &UnreachableError{Addr: ip.String(), Cause: ErrOutside}
}

func (t *Tunnel) lastHandshake() time.Time { return t.Stats().LastHandshake }

// Stats reads the counters.
func (t *Tunnel) Stats() Stats {
	seen, _ := t.tap.look()
	s := Stats{Initiations: seen.initiations, Responses: seen.responses, Cookies: seen.cookies, Refused: seen.refused}
	var text bytes.Buffer // holds keys: it stays in here
	if err := t.dev.IpcGetOperation(&text); err != nil {
		return s
	}
	var sec, nsec int64
	for lines := bufio.NewScanner(&text); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		switch name {
		case "endpoint":
			s.Endpoint = value
		case "tx_bytes":
			s.Sent, _ = strconv.ParseUint(value, 10, 64)
		case "rx_bytes":
			s.Received, _ = strconv.ParseUint(value, 10, 64)
		case "last_handshake_time_sec":
			sec, _ = strconv.ParseInt(value, 10, 64)
		case "last_handshake_time_nsec":
			nsec, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	if sec != 0 || nsec != 0 {
		s.LastHandshake = time.Unix(sec, nsec)
	}
	return s
}

// Close ends the peer. No goroutine of it is left afterwards.
func (t *Tunnel) Close() error {
	t.once.Do(func() {
		t.dev.Close()
		t.nic.wait()
		t.tap.end()
	})
	return nil
}

// Format prints where a tunnel goes, and no key.
func (t *Tunnel) Format(f fmt.State, _ rune) {
	io.WriteString(f, "(tunnel to "+t.cfg.Endpoint.String()+")")
}

// ErrOutside is the cause when an address is in no AllowedIPs.
var ErrOutside = errors.New("it is not in this peer's AllowedIPs")

// A ConfigError says which setting of a Config cannot be.
type ConfigError struct{ Field, Why string }

func (e *ConfigError) Error() string { return e.Field + ": " + e.Why }

// An UnreachableError says that something could not be reached: the endpoint
// from this computer, or a host through the tunnel.
type UnreachableError struct {
	Addr  string
	Cause error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s cannot be reached: %v", e.Addr, e.Cause)
}
func (e *UnreachableError) Unwrap() error { return e.Cause }

// Refused reports whether the host answered and said no.
func (e *UnreachableError) Refused() bool {
	return e.Cause != nil && strings.Contains(e.Cause.Error(), "refused")
}

// A NoHandshakeError says what was seen while waiting for a handshake.
type NoHandshakeError struct {
	Endpoint    netip.AddrPort
	Answer      Answer
	Sent        uint64 // bytes of the peer's packets
	Received    uint64 // bytes that came back, fitting or not
	Initiations int
	Waited      time.Duration
	Cause       error // ctx's, or why nothing could be sent
}

func (e *NoHandshakeError) Error() string {
	return fmt.Sprintf("no handshake with %s in %s: %s (%d initiations sent)",
		e.Endpoint, e.Waited.Round(time.Millisecond), e.Answer, e.Initiations)
}

func (e *NoHandshakeError) Unwrap() error { return e.Cause }
