package outside

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// STUN's numbers (RFC 8489, 5 and 14).
const (
	bindingRequest  = 0x0001
	bindingSuccess  = 0x0101
	bindingError    = 0x0111
	magicCookie     = 0x2112A442
	xorMappedAddr   = 0x0020
	errorCode       = 0x0009
	stunHeader      = 20
	stunPort        = "3478"
	familyV4        = 1
	familyV6        = 2
	largestDatagram = 1500
)

// tries is when the question is repeated: 0, 0.5 and 1.5 s after the first time,
// as RFC 8489 6.2.1 begins.
var tries = []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond}

// STUN asks a server, "host" or "host:port", from which address and port its
// question came. The errors are *NoWayError, *SilentError, *RefusedError,
// *NonsenseError and *ServerError.
func STUN(ctx context.Context, w Way, server string, f Family) (netip.AddrPort, error) {
	var none netip.AddrPort
	if w.ListenUDP == nil {
		return none, &NoWayError{server, f, errors.New("only TCP gets through")}
	}
	host, port, err := splitServer(server)
	if err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	a, err := w.address(ctx, host, server, f)
	if err != nil {
		return none, err
	}
	start := time.Now()
	c, err := w.ListenUDP(ctx, f.network("udp"))
	if err != nil {
		return none, classify(err, server, f, start)
	}
	defer c.Close()
	var id [12]byte
	if _, err := io.ReadFull(w.Rand, id[:]); err != nil {
		return none, err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return exchange(ctx, c, netip.AddrPortFrom(a, port), server, f, id)
}

func splitServer(server string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(server)
	if err != nil {
		host, p = server, stunPort
		if a, err := netip.ParseAddr(server); err == nil {
			host = a.String()
		} else if i := len(server) - 1; i > 0 && server[0] == '[' && server[i] == ']' {
			host = server[1:i]
		}
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, &ServerError{server, "it is not host:port"}
	}
	return host, uint16(n), nil
}

// exchange sends the question, repeats it, and waits for its answer.
func exchange(ctx context.Context, c net.PacketConn, to netip.AddrPort, server string, f Family, id [12]byte) (netip.AddrPort, error) {
	start := time.Now()
	question := buildQuestion(id)
	b := make([]byte, largestDatagram)
	for i := range tries {
		if _, err := c.WriteTo(question, net.UDPAddrFromAddrPort(to)); err != nil {
			return netip.AddrPort{}, classify(err, server, f, start)
		}
		until := start.Add(Patience)
		if i+1 < len(tries) {
			until = start.Add(tries[i+1])
		}
		c.SetReadDeadline(until)
		if ctx.Err() != nil { // its deadline may just have been overwritten
			return netip.AddrPort{}, classify(ctx.Err(), server, f, start)
		}
		for {
			n, from, err := c.ReadFrom(b)
			if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
				break // ask again
			}
			if ctx.Err() != nil {
				return netip.AddrPort{}, classify(ctx.Err(), server, f, start)
			}
			if err != nil {
				return netip.AddrPort{}, classify(err, server, f, start)
			}
			if !sameHost(from, to) {
				continue
			}
			if got, ours, err := readAnswer(b[:n], id, server); ours {
				return got, err
			}
		}
	}
	return netip.AddrPort{}, &SilentError{server, time.Since(start), nil}
}

func sameHost(from net.Addr, to netip.AddrPort) bool {
	ap, err := netip.ParseAddrPort(from.String())
	return err == nil && ap.Addr().Unmap() == to.Addr() && ap.Port() == to.Port()
}

func buildQuestion(id [12]byte) []byte {
	b := make([]byte, stunHeader)
	binary.BigEndian.PutUint16(b, bindingRequest)
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	copy(b[8:], id[:])
	return b
}

// readAnswer reads a datagram. ours is false for what does not answer the
// question id: it is ignored, and the waiting goes on.
func readAnswer(b []byte, id [12]byte, server string) (got netip.AddrPort, ours bool, err error) {
	be := binary.BigEndian
	if len(b) < stunHeader || be.Uint32(b[4:]) != magicCookie || [12]byte(b[8:20]) != id {
		return got, false, nil
	}
	kind, length := be.Uint16(b), int(be.Uint16(b[2:]))
	if kind != bindingSuccess && kind != bindingError || length%4 != 0 || stunHeader+length > len(b) {
		return got, false, nil
	}
	code := 0
	for rest := b[stunHeader : stunHeader+length]; len(rest) >= 4; {
		typ, n := be.Uint16(rest), int(be.Uint16(rest[2:]))
		if 4+n > len(rest) {
			break
		}
		value := rest[4 : 4+n]
		switch {
		case typ == xorMappedAddr && kind == bindingSuccess:
			if got, ok := unmask(value, id); ok {
				return got, true, nil
			}
			return got, true, &NonsenseError{server, "the address in its answer cannot be read"}
		case typ == errorCode && n >= 4:
			code = int(value[2]&7)*100 + int(value[3])
		}
		rest = rest[min(4+(n+3)&^3, len(rest)):]
	}
	if kind == bindingError {
		return got, true, &RefusedError{server, code}
	}
	return got, true, &NonsenseError{server, "its answer names no address (XOR-MAPPED-ADDRESS)"}
}

// unmask reads XOR-MAPPED-ADDRESS (RFC 8489, 14.2).
func unmask(v []byte, id [12]byte) (netip.AddrPort, bool) {
	if len(v) < 8 {
		return netip.AddrPort{}, false
	}
	var mask [16]byte
	binary.BigEndian.PutUint32(mask[:], magicCookie)
	copy(mask[4:], id[:])
	port := binary.BigEndian.Uint16(v[2:]) ^ magicCookie>>16
	size := map[byte]int{familyV4: 4, familyV6: 16}[v[1]]
	if size == 0 || len(v) != 4+size {
		return netip.AddrPort{}, false
	}
	raw := make([]byte, size)
	for i := range raw {
		raw[i] = v[4+i] ^ mask[i]
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), port), true
}
