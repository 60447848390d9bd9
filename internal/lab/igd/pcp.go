package igd

import (
	"encoding/binary"
	"net/netip"
	"time"
)

var be = binary.BigEndian

// Lifetimes that PCP grants (RFC 6887 15 recommends both; miniupnpd has them).
const (
	shortest = 2 * time.Minute
	aDay     = 24 * time.Hour
)

// answerPCP serves both protocols of port 5351, told apart by the version.
func (s *Server) answerPCP(from netip.AddrPort, b []byte) [][]byte {
	if len(b) < 2 || b[1]&0x80 != 0 {
		return nil // RFC 6887 8.2: too short, or a response
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b[0] == 0 && s.opt.NATPMP:
		return [][]byte{s.natpmp(from.Addr(), b)}
	case b[0] == 2 && s.opt.PCP:
		return [][]byte{s.pcp(from.Addr(), b)}
	case s.opt.NATPMP: // RFC 6886 3.5: unsupported version
		return [][]byte{be.AppendUint32([]byte{0, b[1] | 0x80, 0, 1}, s.epoch())}
	}
	return [][]byte{s.pcpHeader(b, 1, 0)}
}

func (s *Server) natpmp(from netip.Addr, b []byte) []byte {
	head := func(op byte, result uint16) []byte {
		return be.AppendUint32(be.AppendUint16([]byte{0, op | 0x80}, result), s.epoch())
	}
	op := b[1]
	if op == 0 {
		a, ok := s.public()
		if !ok || !a.Is4() {
			return append(head(0, 3), 0, 0, 0, 0)
		}
		four := a.As4()
		return append(head(0, 0), four[:]...)
	}
	if op > 2 || len(b) < 12 {
		return head(op, 5)
	}
	s.counts["NAT-PMP map"]++
	proto := map[byte]string{1: "udp", 2: "tcp"}[op]
	inside, outside := be.Uint16(b[4:]), be.Uint16(b[6:])
	lease := time.Duration(be.Uint32(b[8:])) * time.Second
	answer := func(result, outside uint16, lease time.Duration) []byte {
		out := be.AppendUint16(be.AppendUint16(head(op, result), inside), outside)
		return be.AppendUint32(out, uint32(lease/time.Second))
	}
	switch {
	case lease == 0: // RFC 6886 3.4: this client's mappings of that port end
		for _, e := range s.ofHost(proto, from, inside) {
			s.drop(e)
		}
		return answer(0, 0, 0)
	case s.opt.Faults.Refuse == 606:
		return answer(2, 0, 0)
	case s.opt.Faults.Refuse != 0:
		return answer(4, 0, 0)
	case s.opt.Faults.NoPublic:
		return answer(3, 0, 0)
	}
	if outside == 0 {
		outside = inside
	}
	for { // 3.3: another port if this one is somebody's
		to, e := s.holder(proto, outside)
		if !to.IsValid() || e != nil && to == netip.AddrPortFrom(from, inside) {
			break
		}
		outside++
	}
	lease = min(lease, s.most(aDay))
	s.put(Entry{Proto: proto, External: outside, To: netip.AddrPortFrom(from, inside), By: "NAT-PMP"}, lease)
	return answer(0, outside, lease)
}

func (s *Server) most(otherwise time.Duration) time.Duration {
	if s.opt.Faults.MaxLease > 0 {
		return s.opt.Faults.MaxLease
	}
	return otherwise
}

// ofHost are a host's entries; port 0 means all.
func (s *Server) ofHost(proto string, host netip.Addr, port uint16) []*Entry {
	var out []*Entry
	for _, e := range s.entries {
		if e.Proto == proto && e.To.Addr() == host && (port == 0 || e.To.Port() == port) {
			out = append(out, e)
		}
	}
	return out
}

// pcpHeader begins a response (RFC 6887 7.2).
func (s *Server) pcpHeader(request []byte, result byte, lifetime time.Duration) []byte {
	out := make([]byte, 24)
	out[0], out[1], out[3] = 2, request[1]|0x80, result
	be.PutUint32(out[4:], uint32(lifetime/time.Second))
	be.PutUint32(out[8:], s.epoch())
	return out
}

// Results of PCP (RFC 6887 7.4).
const (
	notAuthorized     = 2
	malformed         = 3
	unsupportedOpcode = 4
	unsupportedOption = 5
	malformedOption   = 6
	noResources       = 8
	unsupportedProto  = 9
	cannotProvide     = 11
	addressMismatch   = 12
)

// pcp serves a request of version 2.
func (s *Server) pcp(from netip.Addr, b []byte) []byte {
	refuse := func(result byte) []byte { // 8.3: the request comes back with it
		out := append(s.pcpHeader(b, result, 30*time.Second), b[min(len(b), 24):]...)
		return out
	}
	switch {
	case len(b) < 24 || len(b) > 1100 || len(b)%4 != 0:
		return refuse(malformed)
	case netip.AddrFrom16([16]byte(b[8:24])).Unmap() != from:
		return refuse(addressMismatch)
	case b[1] == 0:
		return s.pcpHeader(b, 0, 0)
	case b[1] != 1:
		return refuse(unsupportedOpcode)
	case len(b) < 60:
		return refuse(malformed)
	}
	s.counts["PCP map"]++
	r := request{host: from}
	if s.opt.Faults.NoOptions && len(b) > 60 {
		return refuse(unsupportedOption)
	}
	if result := r.options(b[60:], s.opt.Faults.OwnOnly); result != 0 {
		return refuse(result)
	}
	r.nonce, r.proto = [12]byte(b[24:36]), map[byte]string{6: "tcp", 17: "udp"}[b[36]]
	r.inside, r.outside = be.Uint16(b[40:]), be.Uint16(b[42:])
	r.lease = time.Duration(be.Uint32(b[4:])) * time.Second
	outside, lease, result := s.pcpMap(r)
	if result != 0 {
		return refuse(result)
	}
	out := append(s.pcpHeader(b, 0, lease), b[24:60]...)
	be.PutUint16(out[42:], outside)
	if a, ok := s.public(); ok {
		sixteen := a.As16()
		copy(out[44:], sixteen[:])
	}
	return append(out, b[60:]...)
}

// request is a MAP request.
type request struct {
	host            netip.Addr
	nonce           [12]byte
	proto           string
	inside, outside uint16
	lease           time.Duration
	prefer          bool
}

// options reads THIRD_PARTY and PREFER_FAILURE (RFC 6887 13.1, 13.2); others of
// the mandatory half are refused.
func (r *request) options(b []byte, ownOnly bool) byte {
	for len(b) > 0 {
		if len(b) < 4 {
			return malformedOption
		}
		code, n := b[0], int(be.Uint16(b[2:]))
		padded := (n + 3) &^ 3
		if len(b) < 4+padded {
			return malformedOption
		}
		switch {
		case code == 1 && n == 16 && !ownOnly:
			r.host = netip.AddrFrom16([16]byte(b[4:20])).Unmap()
		case code == 1 && ownOnly:
			return unsupportedOption
		case code == 2 && n == 0:
			r.prefer = true
		case code < 128:
			return unsupportedOption
		}
		b = b[4+padded:]
	}
	return 0
}

func (s *Server) pcpMap(r request) (outside uint16, lease time.Duration, result byte) {
	var mine *Entry
	for _, e := range s.ofHost(r.proto, r.host, r.inside) {
		if e.By == "PCP" {
			mine = e
		}
	}
	switch {
	case r.proto == "":
		return 0, 0, unsupportedProto
	case mine != nil && mine.nonce != r.nonce: // 11.3: somebody else's, on the same host
		return 0, 0, notAuthorized
	case r.lease == 0:
		if mine != nil {
			s.drop(mine)
		}
		return r.outside, 0, 0
	case s.opt.Faults.Refuse == 606:
		return 0, 0, notAuthorized
	case s.opt.Faults.Refuse != 0, s.opt.Faults.NoPublic:
		return 0, 0, noResources
	}
	outside = r.outside
	if mine != nil {
		outside = mine.External // 11.3: a renewal keeps its port
	}
	if outside == 0 {
		outside = r.inside
	}
	for {
		to, e := s.holder(r.proto, outside)
		if !to.IsValid() || e != nil && e == mine {
			break
		}
		if r.prefer {
			return 0, 0, cannotProvide
		}
		outside++
	}
	if r.prefer && outside != r.outside {
		return 0, 0, cannotProvide
	}
	lease = min(max(r.lease, shortest), s.most(aDay))
	s.put(Entry{Proto: r.proto, External: outside, To: netip.AddrPortFrom(r.host, r.inside), By: "PCP", nonce: r.nonce}, lease)
	return outside, lease, 0
}
