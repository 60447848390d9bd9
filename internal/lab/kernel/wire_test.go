//go:build linux

package kernel_test

import (
	"encoding/binary"
	"net/netip"

	"github.com/heimweg/heimweg/internal/firewall"
)

// A packet of the model as bytes, and back. Nothing of package lab is used: it
// would make its mistakes twice.

func checksum(b []byte, start uint32) uint16 {
	s := start
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xFFFF + s>>16
	}
	return ^uint16(s)
}

// encode writes the packet. options are TCP options, a multiple of four bytes.
func encode(p firewall.Packet, options ...byte) []byte {
	body, at := payload(p, options)
	if at >= 0 {
		pseudo := uint32(0)
		if p.Proto != firewall.ICMP {
			for _, a := range [][]byte{p.Src.AsSlice(), p.Dst.AsSlice()} {
				for i := 0; i < len(a); i += 2 {
					pseudo += uint32(a[i])<<8 | uint32(a[i+1])
				}
			}
			pseudo += uint32(p.Proto) + uint32(len(body))
		}
		binary.BigEndian.PutUint16(body[at:], checksum(body, pseudo))
	}
	if p.Src.Is4() {
		h := make([]byte, 20)
		h[0], h[1], h[8], h[9] = 0x45, p.DSCP<<2, 64, p.Proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		copy(h[12:], p.Src.AsSlice())
		copy(h[16:], p.Dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h, 0))
		return append(h, body...)
	}
	h := make([]byte, 40)
	h[0], h[1], h[6], h[7] = 0x60|p.DSCP>>2, p.DSCP<<6, p.Proto, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], p.Src.AsSlice())
	copy(h[24:], p.Dst.AsSlice())
	return append(h, body...)
}

// payload is what follows the IP header, and where its checksum belongs.
func payload(p firewall.Packet, options []byte) ([]byte, int) {
	switch p.Proto {
	case firewall.TCP:
		b := append(make([]byte, 20), options...)
		binary.BigEndian.PutUint16(b[0:], p.SrcPort)
		binary.BigEndian.PutUint16(b[2:], p.DstPort)
		binary.BigEndian.PutUint32(b[4:], 1000)
		b[12] = byte(len(b)/4) << 4
		for bit, on := range map[byte]bool{1: p.FIN, 2: p.SYN, 4: p.RST, 16: p.ACK} {
			if on {
				b[13] |= bit
			}
		}
		binary.BigEndian.PutUint16(b[14:], 1000)
		return b, 16
	case firewall.UDP:
		b := make([]byte, 12)
		binary.BigEndian.PutUint16(b[0:], p.SrcPort)
		binary.BigEndian.PutUint16(b[2:], p.DstPort)
		binary.BigEndian.PutUint16(b[4:], 12)
		return b, 6
	case firewall.ICMP, firewall.ICMPv6:
		b := make([]byte, 8)
		b[0], b[1] = p.ICMPType, p.ICMPCode
		if p.Inner != nil {
			return append(b, encode(*p.Inner)...), 2
		}
		binary.BigEndian.PutUint16(b[4:], p.ICMPID)
		return b, 2
	}
	return []byte{0, 0, 0, 1, 0, 0, 0, 0}, -1
}

func decode(b []byte) (p firewall.Packet, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p.Src, p.Dst, p.Proto, p.DSCP = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], b[1]>>2
		decodeBody(&p, b[int(b[0]&15)*4:])
		return p, true
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Src, p.Dst, p.Proto, p.DSCP = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], (b[0]&15)<<2|b[1]>>6
		decodeBody(&p, b[40:])
		return p, true
	}
	return p, false
}

func decodeBody(p *firewall.Packet, b []byte) {
	switch p.Proto {
	case firewall.TCP, firewall.UDP:
		if len(b) < 8 {
			return
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if p.Proto == firewall.TCP && len(b) >= 14 {
			p.FIN, p.SYN, p.RST, p.ACK = b[13]&1 != 0, b[13]&2 != 0, b[13]&4 != 0, b[13]&16 != 0
		}
	case firewall.ICMP, firewall.ICMPv6:
		if len(b) < 8 {
			return
		}
		p.ICMPType, p.ICMPCode = b[0], b[1]
		if !isError(*p) {
			p.ICMPID = binary.BigEndian.Uint16(b[4:])
		} else if in, ok := decode(b[8:]); ok {
			p.Inner = &in
		}
	}
}

func isError(p firewall.Packet) bool {
	switch p.Proto {
	case firewall.ICMP:
		return p.ICMPType == 3 || p.ICMPType == 4 || p.ICMPType == 5 || p.ICMPType == 11 || p.ICMPType == 12
	case firewall.ICMPv6:
		return p.ICMPType < 128
	}
	return false
}

// noise is what the kernel says by itself: about neighbours and groups.
func noise(p firewall.Packet) bool {
	return p.Proto == 0 || p.Proto == 2 || p.Proto == firewall.ICMPv6 && (p.ICMPType >= 130 && p.ICMPType <= 136 || p.ICMPType == 143)
}
