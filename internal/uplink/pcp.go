package uplink

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// pcpPort is where PCP and NAT-PMP listen (RFC 6887 19.1).
const pcpPort = 5351

// Opcodes and options of PCP (RFC 6887 19.2, 19.4).
const (
	pcpVersion    = 2
	opAnnounce    = 0
	opMap         = 1
	thirdParty    = 1
	preferFailure = 2
)

// longest is what is asked for when a mapping shall stay: a week, the most of
// UPnP's second version. PCP servers cut it down to what they like.
const longest = 7 * 24 * time.Hour

// pcpReply is an answer of PCP; the fields of a mapping are zero for other ones.
type pcpReply struct {
	version, opcode, result byte
	lifetime                time.Duration
	epoch                   uint32
	nonce                   [12]byte
	proto                   byte
	internal, external      uint16
	public                  netip.Addr
}

// parsePCP reads an answer (RFC 6887 7.2 and 11.1). One of a server that knows
// NAT-PMP only has its version.
func parsePCP(b []byte) (pcpReply, bool) {
	if len(b) < 2 || b[1]&0x80 == 0 {
		return pcpReply{}, false
	}
	r := pcpReply{version: b[0], opcode: b[1] &^ 0x80}
	if r.version == 0 && len(b) >= 8 { // RFC 6886 3.5: the answer to an unknown version
		r.result = b[3]
		return r, true
	}
	if r.version != pcpVersion || len(b) < 24 || len(b) > 1100 || len(b)%4 != 0 {
		return pcpReply{}, false
	}
	r.result = b[3]
	r.lifetime = min(time.Duration(binary.BigEndian.Uint32(b[4:]))*time.Second, maxAge)
	r.epoch = binary.BigEndian.Uint32(b[8:])
	if r.opcode == opMap && len(b) >= 60 {
		copy(r.nonce[:], b[24:36])
		r.proto = b[36]
		r.internal, r.external = binary.BigEndian.Uint16(b[40:]), binary.BigEndian.Uint16(b[42:])
		r.public = netip.AddrFrom16([16]byte(b[44:60])).Unmap()
		return r, true
	}
	return r, r.opcode != opMap || r.result != 0
}

func pcpHeader(opcode byte, client netip.Addr, lifetime time.Duration) []byte {
	b := make([]byte, 24, 84)
	b[0], b[1] = pcpVersion, opcode
	binary.BigEndian.PutUint32(b[4:], uint32(lifetime/time.Second))
	a := client.As16()
	copy(b[8:], a[:])
	return b
}

// pcpMap writes a request for a mapping (RFC 6887 11.1). prefer asks for this
// very port or none. third names the host that the port is for when it is not the
// one that asks.
func pcpMap(client, third netip.Addr, nonce [12]byte, proto byte, internal, external uint16, lifetime time.Duration, prefer bool) []byte {
	b := append(pcpHeader(opMap, client, lifetime), nonce[:]...)
	b = append(b, proto, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	any4 := netip.IPv4Unspecified().As16()
	b = append(b, any4[:]...)
	if third.IsValid() {
		a := third.As16()
		b = append(append(b, thirdParty, 0, 0, 16), a[:]...)
	}
	if prefer {
		b = append(b, preferFailure, 0, 0, 0)
	}
	return b
}

var pcpResults = []string{"SUCCESS", "UNSUPP_VERSION", "NOT_AUTHORIZED", "MALFORMED_REQUEST", "UNSUPP_OPCODE", "UNSUPP_OPTION",
	"MALFORMED_OPTION", "NETWORK_FAILURE", "NO_RESOURCES", "UNSUPP_PROTOCOL", "USER_EX_QUOTA", "CANNOT_PROVIDE_EXTERNAL",
	"ADDRESS_MISMATCH", "EXCESSIVE_REMOTE_PEERS"}

// The results of PCP that are treated specially (RFC 6887 7.4).
const (
	pcpUnsupportedOption = 5
	pcpNoResources       = 8 // and, from miniupnpd 2.3.1, the end of a mapping that is not there
	pcpCannotProvide     = 11
)

func (g *Gateway) pcpRefusal(result byte) error {
	why := map[byte]Why{1: Unsupported, 2: NotAuthorized, 3: BadArgument, 4: Unsupported, 5: Unsupported, 6: BadArgument, 7: NoPublic,
		8: Full, 9: Unsupported, 10: Full, 11: Taken, 12: NotForOthers}[result]
	switch {
	case why == "":
		why = OtherReason
	case why == Full && result == 8 && !g.isPublic():
		why = NoPublic // miniupnpd says it that way (facts deps 8)
	}
	word := "unknown result"
	if int(result) < len(pcpResults) {
		word = pcpResults[result]
	}
	return &RefusedError{Reply: fmt.Sprintf("PCP %d %s", result, word), Code: int(result), Why: why}
}

// askPCP makes one exchange with a PCP server.
func (g *Gateway) askPCP(ctx context.Context, request []byte, patience time.Duration, mine func(pcpReply) bool) (pcpReply, error) {
	var got pcpReply
	err := exchange(ctx, g.opt.Direct, netip.AddrPortFrom(g.Address, pcpPort), request, patience, func(b []byte) bool {
		r, ok := parsePCP(b)
		got = r
		return ok && (r.version == 0 || r.opcode == request[1]) && mine(r)
	})
	if err == nil && got.version == 0 {
		err = &RefusedError{Reply: "it knows NAT-PMP only", Code: 1, Why: Unsupported}
	}
	return got, err
}

// findPCP asks whether there is a PCP server. Any answer of its version will do.
func (g *Gateway) findPCP(ctx context.Context) (Epoch, error) {
	r, err := g.askPCP(ctx, pcpHeader(opAnnounce, g.asker(), 0), g.opt.first(), func(pcpReply) bool { return true })
	if err != nil {
		return Epoch{}, err
	}
	return Epoch{r.epoch, time.Now()}, nil
}

// asker is whom the ISP router sees when this computer sends a datagram.
func (g *Gateway) asker() netip.Addr {
	if g.opt.Direct.From.IsValid() {
		return g.opt.Direct.From
	}
	return g.opt.Client
}

func (g *Gateway) third() netip.Addr {
	if g.asker() != g.opt.Client {
		return g.opt.Client
	}
	return netip.Addr{}
}

func protoNumber(proto string) byte {
	if strings.EqualFold(proto, "tcp") {
		return 6
	}
	return 17
}

func (g *Gateway) mapPCP(ctx context.Context, w Want) (Mapping, error) {
	lease := w.Lease
	if lease == 0 {
		lease = longest
	}
	r, err := g.pcpRequest(ctx, w, lease, true)
	if err == nil && r.result == pcpUnsupportedOption {
		r, err = g.pcpRequest(ctx, w, lease, false)
	}
	switch {
	case err != nil:
		return Mapping{}, err
	case r.result == pcpCannotProvide:
		return Mapping{}, &ConflictError{Want: w, Reply: "PCP 11 CANNOT_PROVIDE_EXTERNAL"}
	case r.result != 0:
		return Mapping{}, g.pcpRefusal(r.result)
	case r.external != w.External:
		g.pcpRequest(ctx, w, 0, false) // give the other port back; it ends by itself anyway
		return Mapping{}, &ConflictError{Want: w, Reply: fmt.Sprintf("PCP gave %d instead", r.external)}
	}
	now := time.Now()
	m := w.mapping(g.opt.Client)
	m.Lease, m.Asked, m.Protocol, m.Nonce, m.Epoch = r.lifetime, now, PCP, g.opt.Nonce, Epoch{r.epoch, now}
	if r.public.Is4() && !r.public.IsUnspecified() {
		m.Public = r.public
	}
	return m, nil
}

func (g *Gateway) pcpRequest(ctx context.Context, w Want, lease time.Duration, prefer bool) (pcpReply, error) {
	proto := protoNumber(w.Proto)
	request := pcpMap(g.asker(), g.third(), g.opt.Nonce, proto, w.inside(), w.External, lease, prefer)
	return g.askPCP(ctx, request, g.opt.later(), func(r pcpReply) bool {
		return r.result != 0 && r.nonce == [12]byte{} || r.nonce == g.opt.Nonce && r.proto == proto && r.internal == w.inside()
	})
}

// unmapPCP ends a mapping: a lifetime of nothing (RFC 6887 15.1).
func (g *Gateway) unmapPCP(ctx context.Context, m Mapping) error {
	request := pcpMap(g.asker(), g.third(), m.Nonce, protoNumber(m.Proto), m.To.Port(), 0, 0, false)
	r, err := g.askPCP(ctx, request, g.opt.later(), func(r pcpReply) bool { return true })
	if err == nil && r.result != 0 && r.result != pcpNoResources {
		err = g.pcpRefusal(r.result)
	}
	return err
}

// newNonce is what a mapping is known by.
func newNonce() (n [12]byte) {
	rand.Read(n[:]) // never fails (Go 1.24)
	return n
}

// pmpReply is an answer of NAT-PMP.
type pmpReply struct {
	opcode             byte
	result             uint16
	epoch              uint32
	public             netip.Addr // of the answer to opcode 0
	internal, external uint16
	lifetime           time.Duration
}

// parsePMP reads an answer (RFC 6886 3.2 and 3.3).
func parsePMP(b []byte) (pmpReply, bool) {
	if len(b) < 8 || b[0] != 0 || b[1]&0x80 == 0 {
		return pmpReply{}, false
	}
	r := pmpReply{opcode: b[1] &^ 0x80, result: binary.BigEndian.Uint16(b[2:]), epoch: binary.BigEndian.Uint32(b[4:])}
	switch {
	case r.opcode == 0 && len(b) >= 12:
		r.public = netip.AddrFrom4([4]byte(b[8:12]))
	case r.opcode != 0 && len(b) >= 16:
		r.internal, r.external = binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
		r.lifetime = min(time.Duration(binary.BigEndian.Uint32(b[12:]))*time.Second, maxAge)
	case r.result == 0:
		return pmpReply{}, false
	}
	return r, true
}

func (g *Gateway) askPMP(ctx context.Context, request []byte, patience time.Duration) (pmpReply, error) {
	var got pmpReply
	err := exchange(ctx, g.opt.Direct, netip.AddrPortFrom(g.Address, pcpPort), request, patience, func(b []byte) bool {
		r, ok := parsePMP(b)
		got = r
		return ok && r.opcode == request[1]
	})
	if err == nil && got.result != 0 {
		err = pmpRefusal(got.result)
	}
	return got, err
}

func pmpRefusal(result uint16) error {
	words := []string{"", "unsupported version", "not authorised or refused", "network failure", "out of resources", "unsupported opcode"}
	why := map[uint16]Why{1: Unsupported, 2: NotAuthorized, 3: NoPublic, 4: Full, 5: Unsupported}[result]
	word := "unknown result"
	if int(result) < len(words) {
		word = words[result]
	} else {
		why = OtherReason
	}
	return &RefusedError{Reply: fmt.Sprintf("NAT-PMP %d %s", result, word), Code: int(result), Why: why}
}

// findPMP asks for the address outside and the clock. The clock comes with a
// refusal, too: there is a server.
func (g *Gateway) findPMP(ctx context.Context) (netip.Addr, Epoch, error) {
	r, err := g.askPMP(ctx, []byte{0, 0}, g.opt.first())
	switch {
	case err != nil && refused(err) == nil:
		return netip.Addr{}, Epoch{}, err
	case err == nil && r.public.IsUnspecified():
		err = &RefusedError{Reply: "NAT-PMP: 0.0.0.0", Why: NoPublic}
	}
	if err != nil {
		r.public = netip.Addr{}
	}
	return r.public, Epoch{r.epoch, time.Now()}, err
}

func pmpMap(proto byte, internal, external uint16, lifetime time.Duration) []byte {
	b := []byte{0, 1, 0, 0}
	if proto == 6 {
		b[1] = 2
	}
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	return binary.BigEndian.AppendUint32(b, uint32(lifetime/time.Second))
}

func (g *Gateway) mapPMP(ctx context.Context, w Want) (Mapping, error) {
	lease := w.Lease
	if lease == 0 {
		lease = longest
	}
	r, err := g.askPMP(ctx, pmpMap(protoNumber(w.Proto), w.inside(), w.External, lease), g.opt.later())
	if err != nil {
		return Mapping{}, err
	}
	if r.external != w.External {
		g.unmapPMP(ctx, w.mapping(g.opt.Client)) // give the other port back; it ends by itself anyway
		return Mapping{}, &ConflictError{Want: w, Reply: fmt.Sprintf("NAT-PMP gave %d instead", r.external)}
	}
	now := time.Now()
	m := w.mapping(g.opt.Client)
	m.Lease, m.Asked, m.Protocol, m.Epoch = r.lifetime, now, NATPMP, Epoch{r.epoch, now}
	return m, nil
}

// unmapPMP ends a mapping (RFC 6886 3.4: no lifetime, no external port).
func (g *Gateway) unmapPMP(ctx context.Context, m Mapping) error {
	_, err := g.askPMP(ctx, pmpMap(protoNumber(m.Proto), m.To.Port(), 0, 0), g.opt.later())
	return err
}
