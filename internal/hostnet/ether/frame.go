package ether

import (
	"encoding/binary"
	"net/netip"
)

// Lengths and numbers of what goes over the cable (RFC 826, 894, 2464, 4861).
const (
	headLen = 14 // destination, source, type
	arpLen  = 28

	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd

	arpAsk    = 1
	arpAnswer = 2
)

// MAC is an Ethernet address.
type MAC [6]byte

var everyone = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// head writes a frame's first 14 bytes.
func head(b []byte, to, from MAC, kind uint16) {
	copy(b, to[:])
	copy(b[6:], from[:])
	binary.BigEndian.PutUint16(b[12:], kind)
}

// An arp is a question or an answer about who has an IPv4 address.
type arp struct {
	op               uint16
	fromMAC, toMAC   MAC
	fromAddr, toAddr netip.Addr
}

func (a arp) frame(to MAC) []byte {
	b := make([]byte, headLen+arpLen)
	head(b, to, a.fromMAC, typeARP)
	p := b[headLen:]
	copy(p, []byte{0, 1, 8, 0, 6, 4}) // Ethernet, IPv4
	binary.BigEndian.PutUint16(p[6:], a.op)
	copy(p[8:], a.fromMAC[:])
	copy(p[14:], a.fromAddr.AsSlice())
	copy(p[18:], a.toMAC[:])
	copy(p[24:], a.toAddr.AsSlice())
	return b
}

// parseARP reads what follows the head of an ARP frame.
func parseARP(p []byte) (arp, bool) {
	if len(p) < arpLen || string(p[:6]) != "\x00\x01\x08\x00\x06\x04" {
		return arp{}, false
	}
	return arp{
		op:       binary.BigEndian.Uint16(p[6:]),
		fromMAC:  MAC(p[8:14]),
		fromAddr: netip.AddrFrom4([4]byte(p[14:18])),
		toMAC:    MAC(p[18:24]),
		toAddr:   netip.AddrFrom4([4]byte(p[24:28])),
	}, true
}

// ends reads who sends an IP packet to whom.
func ends(p []byte) (from, to netip.Addr, ok bool) {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return from, to, false
}

// isCall reports whether a frame begins a TCP connection: SYN without ACK.
func isCall(f []byte) bool {
	if len(f) < headLen+40 || f[headLen]>>4 != 4 || f[headLen+9] != 6 {
		return false
	}
	at := headLen + int(f[headLen]&15)*4
	return len(f) >= at+20 && f[at+13]&0x12 == 0x02
}

// groupMAC is where packets for a group of hosts go.
func groupMAC(a netip.Addr) MAC {
	if a.Is4() {
		b := a.As4()
		return MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	b := a.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// linkLocal is the IPv6 address that follows from a MAC (RFC 4291, appendix A).
func linkLocal(m MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// Neighbours of IPv6 ask each other by ICMPv6 (RFC 4861, 4.3 and 4.4).
const (
	icmpv6       = 58
	neighbourAsk = 135
	neighbourIs  = 136
	ndLen        = 24 + 8 // with one option: a MAC
)

// asksFor reports whether an IPv6 packet asks who has an address.
func asksFor(p []byte) (netip.Addr, bool) {
	if len(p) < 40+24 || p[0]>>4 != 6 || p[6] != icmpv6 || p[40] != neighbourAsk {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(p[48:64])), true
}

// iAm answers such a question.
func iAm(from MAC, addr netip.Addr, to MAC, whom netip.Addr) []byte {
	b := make([]byte, headLen+40+ndLen)
	head(b, to, from, typeIPv6)
	ip, nd := b[headLen:headLen+40], b[headLen+40:]
	ip[0], ip[5], ip[6], ip[7] = 0x60, ndLen, icmpv6, 255
	copy(ip[8:], addr.AsSlice())
	copy(ip[24:], whom.AsSlice())
	nd[0], nd[4] = neighbourIs, 0x60 // solicited, override
	copy(nd[8:], addr.AsSlice())
	nd[24], nd[25] = 2, 1 // option: my MAC
	copy(nd[26:], from[:])
	sum := Sum(nd, Sum(ip[8:40], ndLen+icmpv6))
	binary.BigEndian.PutUint16(nd[2:], ^sum)
	return b
}

// Sum continues the Internet's checksum (RFC 1071) over b.
func Sum(b []byte, before uint16) uint16 {
	s := uint64(before)
	for len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	switch len(b) {
	case 3:
		s += uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8
	case 2:
		s += uint64(b[0])<<8 | uint64(b[1])
	case 1:
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// Complete writes the checksum of a TCP or UDP packet in a frame that never was
// on a cable: between virtual cards, and where received frames were put together,
// the system leaves it open.
func Complete(frame []byte) {
	if len(frame) < headLen {
		return
	}
	p := frame[headLen:]
	var proto byte
	var sum uint16
	var data []byte
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		ihl, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
		if ihl < 20 || total < ihl || total > len(p) || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
			return // cut off, or a fragment, which the system does not leave open
		}
		proto, data, sum = p[9], p[ihl:total], Sum(p[12:20], 0)
	case len(p) >= 40 && p[0]>>4 == 6:
		total := 40 + int(binary.BigEndian.Uint16(p[4:]))
		if total > len(p) {
			return
		}
		proto, data, sum = p[6], p[40:total], Sum(p[8:40], 0)
	default:
		return
	}
	at := map[byte]int{6: 16, 17: 6}[proto]
	if at == 0 || len(data) < at+2 {
		return
	}
	binary.BigEndian.PutUint16(data[at:], 0)
	sum = Sum([]byte{0, proto, byte(len(data) >> 8), byte(len(data))}, sum)
	sum = ^Sum(data, sum)
	if sum == 0 && proto == 17 {
		sum = 0xffff // 0 means none (RFC 768)
	}
	binary.BigEndian.PutUint16(data[at:], sum)
}
