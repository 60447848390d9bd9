package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// IP protocol numbers that the fabric understands.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
)

// TCP flags.
const (
	FIN = 1 << 0
	SYN = 1 << 1
	RST = 1 << 2
	PSH = 1 << 3
	ACK = 1 << 4
)

// Packet is what a router sees of one IP packet: the headers it can judge and
// rewrite. A Filter changes addresses and ports here, and the fabric carries the
// change into the bytes, checksums included.
type Packet struct {
	Src, Dst netip.Addr
	Proto    uint8 // IP protocol number
	TTL      uint8
	Len      int // bytes on the wire

	SrcPort, DstPort uint16 // TCP and UDP
	Flags            uint8  // TCP

	ICMPType, ICMPCode uint8
	ICMPID             uint16 // of an echo request or reply

	// Inner is the packet that an ICMP error complains about, as far as the
	// error quotes it. A NAT must translate it too.
	Inner *Packet
}

// SYN reports whether the packet opens a TCP connection.
func (p Packet) SYN() bool { return p.Proto == TCP && p.Flags&(SYN|ACK) == SYN }

// Source is the sender's address and port.
func (p Packet) Source() netip.AddrPort { return netip.AddrPortFrom(p.Src, p.SrcPort) }

// Target is the receiver's address and port.
func (p Packet) Target() netip.AddrPort { return netip.AddrPortFrom(p.Dst, p.DstPort) }

// IsError reports whether the packet is an ICMP error message about another packet.
func (p Packet) IsError() bool {
	switch p.Proto {
	case ICMP:
		return p.ICMPType == 3 || p.ICMPType == 11 || p.ICMPType == 12
	case ICMPv6:
		return p.ICMPType < 128
	}
	return false
}

// IsEchoRequest reports whether the packet is a ping.
func (p Packet) IsEchoRequest() bool {
	return p.Proto == ICMP && p.ICMPType == 8 || p.Proto == ICMPv6 && p.ICMPType == 128
}

// IsEchoReply reports whether the packet answers a ping.
func (p Packet) IsEchoReply() bool {
	return p.Proto == ICMP && p.ICMPType == 0 || p.Proto == ICMPv6 && p.ICMPType == 129
}

// String names the packet as a person would: "udp 198.51.100.2:4711 → 203.0.113.7:51820".
func (p Packet) String() string {
	switch p.Proto {
	case TCP:
		return fmt.Sprintf("tcp %s → %s %s", p.Source(), p.Target(), flagNames(p.Flags))
	case UDP:
		return fmt.Sprintf("udp %s → %s", p.Source(), p.Target())
	case ICMP, ICMPv6:
		what := fmt.Sprintf("icmp %d/%d", p.ICMPType, p.ICMPCode)
		switch {
		case p.IsEchoRequest():
			what = "ping"
		case p.IsEchoReply():
			what = "pong"
		}
		s := fmt.Sprintf("%s %s → %s", what, p.Src, p.Dst)
		if p.Inner != nil {
			s += fmt.Sprintf(" (about %s)", p.Inner)
		}
		return s
	}
	return fmt.Sprintf("protocol %d %s → %s", p.Proto, p.Src, p.Dst)
}

func flagNames(f uint8) string {
	var names []string
	for i, n := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, "+")
}

var errShort = errors.New("packet too short")

// ParsePacket reads the headers of raw IPv4 or IPv6 bytes. IPv6 extension
// headers are not followed: nothing in the lab sends any that matter.
func ParsePacket(raw []byte) (Packet, error) { return parsePacket(raw, false) }

// parsePacket with quoted set accepts a truncated packet, as an ICMP error quotes it.
func parsePacket(raw []byte, quoted bool) (Packet, error) {
	p, body, err := parseIP(raw, quoted)
	if err != nil {
		return Packet{}, err
	}
	be := binary.BigEndian
	switch p.Proto {
	case TCP:
		if len(body) < 14 && !(quoted && len(body) >= 8) {
			return Packet{}, errShort
		}
		p.SrcPort, p.DstPort = be.Uint16(body), be.Uint16(body[2:])
		if len(body) >= 14 {
			p.Flags = body[13]
		}
	case UDP:
		if len(body) < 8 {
			return Packet{}, errShort
		}
		p.SrcPort, p.DstPort = be.Uint16(body), be.Uint16(body[2:])
	case ICMP, ICMPv6:
		if len(body) < 8 {
			return Packet{}, errShort
		}
		p.ICMPType, p.ICMPCode = body[0], body[1]
		switch {
		case p.IsEchoRequest() || p.IsEchoReply():
			p.ICMPID = be.Uint16(body[4:])
		case p.IsError() && !quoted:
			if inner, err := parsePacket(body[8:], true); err == nil {
				p.Inner = &inner
			}
		}
	}
	return p, nil
}

func parseIP(raw []byte, quoted bool) (p Packet, body []byte, err error) {
	if len(raw) < 20 {
		return p, nil, errShort
	}
	be := binary.BigEndian
	switch raw[0] >> 4 {
	case 4:
		hl, total := int(raw[0]&15)*4, int(be.Uint16(raw[2:]))
		if hl < 20 || len(raw) < hl || total < hl || !quoted && len(raw) < total {
			return p, nil, errShort
		}
		if be.Uint16(raw[6:])&0x1fff != 0 {
			return p, nil, errors.New("fragments are not carried")
		}
		p.Src, p.Dst = netip.AddrFrom4([4]byte(raw[12:16])), netip.AddrFrom4([4]byte(raw[16:20]))
		p.Proto, p.TTL, p.Len = raw[9], raw[8], total
		return p, raw[hl:min(total, len(raw))], nil
	case 6:
		if len(raw) < 40 {
			return p, nil, errShort
		}
		total := 40 + int(be.Uint16(raw[4:]))
		if !quoted && len(raw) < total {
			return p, nil, errShort
		}
		p.Src, p.Dst = netip.AddrFrom16([16]byte(raw[8:24])), netip.AddrFrom16([16]byte(raw[24:40]))
		p.Proto, p.TTL, p.Len = raw[6], raw[7], total
		return p, raw[40:min(total, len(raw))], nil
	}
	return p, nil, fmt.Errorf("IP version %d", raw[0]>>4)
}

// headerLen is where the transport header starts in a packet that parsed.
func headerLen(raw []byte) int {
	if raw[0]>>4 == 4 {
		return int(raw[0]&15) * 4
	}
	return 40
}

// rewrite returns raw with the addresses, ports and echo number of p, checksums
// made new. The bytes given are not changed: others may still look at them.
func rewrite(raw []byte, p Packet) []byte {
	out := append([]byte(nil), raw...)
	put(out, p)
	if p.Inner != nil && p.IsError() {
		put(out[headerLen(out)+8:], *p.Inner)
	}
	checksums(out)
	return out
}

// put writes what a NAT may change into one IP packet, without checksums.
func put(raw []byte, p Packet) {
	if raw[0]>>4 == 4 && p.Src.Is4() && p.Dst.Is4() {
		s, d := p.Src.As4(), p.Dst.As4()
		copy(raw[12:], s[:])
		copy(raw[16:], d[:])
	} else if raw[0]>>4 == 6 {
		s, d := p.Src.As16(), p.Dst.As16()
		copy(raw[8:], s[:])
		copy(raw[24:], d[:])
	}
	body := raw[headerLen(raw):]
	switch {
	case (p.Proto == TCP || p.Proto == UDP) && len(body) >= 4:
		binary.BigEndian.PutUint16(body, p.SrcPort)
		binary.BigEndian.PutUint16(body[2:], p.DstPort)
	case (p.IsEchoRequest() || p.IsEchoReply()) && len(body) >= 6:
		binary.BigEndian.PutUint16(body[4:], p.ICMPID)
	}
}

// build makes an IP packet round a transport header and payload.
func build(src, dst netip.Addr, proto, ttl uint8, body []byte) []byte {
	var raw []byte
	if dst.Is4() {
		raw = make([]byte, 20+len(body))
		raw[0] = 0x45
		binary.BigEndian.PutUint16(raw[2:], uint16(len(raw)))
		raw[6] = 0x40 // do not fragment, as every system sends today
		raw[8], raw[9] = ttl, proto
		s, d := src.As4(), dst.As4()
		copy(raw[12:], s[:])
		copy(raw[16:], d[:])
		copy(raw[20:], body)
	} else {
		raw = make([]byte, 40+len(body))
		raw[0] = 0x60
		binary.BigEndian.PutUint16(raw[4:], uint16(len(body)))
		raw[6], raw[7] = proto, ttl
		s, d := src.As16(), dst.As16()
		copy(raw[8:], s[:])
		copy(raw[24:], d[:])
		copy(raw[40:], body)
	}
	checksums(raw)
	return raw
}

// BuildUDP makes a UDP packet, for tests and for tun devices.
func BuildUDP(from, to netip.AddrPort, payload []byte) []byte {
	body := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint16(body, from.Port())
	binary.BigEndian.PutUint16(body[2:], to.Port())
	binary.BigEndian.PutUint16(body[4:], uint16(len(body)))
	copy(body[8:], payload)
	return build(from.Addr(), to.Addr(), UDP, 64, body)
}

// BuildPing makes an ICMP echo request with an id and a sequence number.
func BuildPing(from, to netip.Addr, id, seq uint16) []byte {
	body := make([]byte, 16)
	body[0] = 8
	proto := uint8(ICMP)
	if to.Is6() {
		body[0], proto = 128, ICMPv6
	}
	binary.BigEndian.PutUint16(body[4:], id)
	binary.BigEndian.PutUint16(body[6:], seq)
	copy(body[8:], "heimweg!")
	return build(from, to, proto, 64, body)
}

// payload is what a UDP packet or an ICMP message carries behind its 8 byte header.
func payload(raw []byte) []byte {
	hl := headerLen(raw)
	end := len(raw)
	if raw[0]>>4 == 4 {
		end = min(end, int(binary.BigEndian.Uint16(raw[2:])))
	} else {
		end = min(end, 40+int(binary.BigEndian.Uint16(raw[4:])))
	}
	return raw[hl+8 : end]
}

// checksums fills in the IPv4 header checksum and the transport checksum.
func checksums(raw []byte) {
	hl := headerLen(raw)
	var proto uint8
	var addrs []byte
	if raw[0]>>4 == 4 {
		raw[10], raw[11] = 0, 0
		binary.BigEndian.PutUint16(raw[10:], ^fold(sum(0, raw[:hl])))
		proto, addrs = raw[9], raw[12:20]
	} else {
		proto, addrs = raw[6], raw[8:40]
	}
	body := raw[hl:]
	at := -1
	switch proto {
	case TCP:
		at = 16
	case UDP:
		at = 6
	case ICMP, ICMPv6:
		at = 2
	}
	if at < 0 || len(body) < at+2 {
		return
	}
	body[at], body[at+1] = 0, 0
	var s uint32
	if proto != ICMP { // ICMP for IPv4 alone has no pseudo header
		s = sum(s, addrs)
		s += uint32(proto) + uint32(len(body))
	}
	c := ^fold(sum(s, body))
	if c == 0 && proto == UDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(body[at:], c)
}

func sum(s uint32, b []byte) uint32 {
	for len(b) >= 2 {
		s += uint32(b[0])<<8 | uint32(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
