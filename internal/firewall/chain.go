package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A chain is a list of rules, tried one after the other, like a chain of
// nftables. A rule with a verdict ends the walk; a jump tries another chain
// and comes back when that one has no verdict.
type chain struct {
	name  string
	rules []rule
}

// hooks are the places where a packet meets the ruleset.
type hooks struct {
	rawPre, rawOut         *chain // NOTRACK
	preMangle, inMangle    *chain // MARK and DSCP
	fwdMangle, outMangle   *chain
	postMangle             *chain
	input, forward, output *chain
	dstnat, srcnat         *chain
}

// verb is what a rule does with a packet that it matches.
type verb int

const (
	doNothing verb = iota
	doJump
	doAccept
	doDrop
	doReject
	doDNAT     // to a given address and/or port
	doRedirect // to the router's own address on the incoming device
	doSNAT
	doMasquerade
	doMark
	doDSCP
	doNoTrack
	doClampMSS // changes the size that a TCP connection agrees on, never a verdict
)

// rule is one line of a chain. Its match is true when every part is.
type rule struct {
	match match
	do    verb
	jump  *chain
	nat   natTo
	set   uint32 // mark or DSCP to set
	mask  uint32 // bits of the mark that are cleared first
	hit   *Hit   // who wrote it; nil for the plumbing between zones
}

// natTo is where an address translation leads. No address: the address stays.
type natTo struct {
	from, to netip.Addr // a range of addresses; from alone when to is not valid
	min, max uint16     // ports; 0,0: the port stays
	ports    bool
}

// match holds the conditions of a rule; the zero match fits every packet.
type match struct {
	family   uint8 // 0, 4 or 6
	protos   []uint8
	in, out  devices
	src, dst addresses
	sports   ports
	dports   ports
	icmp     []uint16 // type<<8|code, code 0xFFFF meaning any is split off into icmpAny
	icmpAny  []uint8  // types, any code
	known    bool     // ct state established
	related  bool     // ct state related
	invalid  bool     // ct state invalid
	dnat     bool     // ct status dnat
	more     *matchMore
}

// matchMore holds the rare conditions.
type matchMore struct {
	never    bool // a condition that no packet meets here (a conntrack helper)
	macs     [][6]byte
	notMACs  [][6]byte
	mark     *markMatch
	dscp     *dscpMatch
	syn      bool // opens a TCP connection
	limit    *limit
	clock    *clockMatch
	set      *ipset
	setDirs  []bool // per field: true = destination
	setNegat bool
}

type markMatch struct {
	mark, mask uint32
	invert     bool
}

type dscpMatch struct {
	class  uint8
	invert bool
}

// devices matches a device name. Names ending in * are prefixes.
type devices struct{ any, none []string }

func (d devices) fits(dev string) bool {
	if len(d.any) > 0 && !oneDevice(d.any, dev) {
		return false
	}
	return len(d.none) == 0 || !oneDevice(d.none, dev)
}

func oneDevice(names []string, dev string) bool {
	for _, n := range names {
		if n == dev {
			return true
		}
		if l := len(n); l > 0 && n[l-1] == '*' && strings.HasPrefix(dev, n[:l-1]) {
			return true
		}
	}
	return false
}

// span is a range of addresses, both ends included.
type span struct{ first, last netip.Addr }

func (s span) holds(a netip.Addr) bool {
	return s.first.Compare(a) <= 0 && a.Compare(s.last) <= 0
}

// maskedAddr is an address with a mask that is not a plain prefix, such as
// ::1234/::ffff (the host part of an address whose prefix changes).
type maskedAddr struct {
	addr, mask netip.Addr
	invert     bool
}

// addresses matches an address: in any plain entry and in no negated one.
type addresses struct {
	any, none []span
	masked    []maskedAddr
}

func (m *addresses) fits(a netip.Addr) bool {
	if len(m.any) > 0 && !oneSpan(m.any, a) {
		return false
	}
	if len(m.none) > 0 && oneSpan(m.none, a) {
		return false
	}
	for _, x := range m.masked {
		if (maskWith(a, x.mask) == x.addr) == x.invert {
			return false
		}
	}
	return true
}

func (m *addresses) empty() bool {
	return len(m.any) == 0 && len(m.none) == 0 && len(m.masked) == 0
}

func oneSpan(list []span, a netip.Addr) bool {
	for i := range list {
		if list[i].holds(a) {
			return true
		}
	}
	return false
}

// portSpan is a range of ports, both ends included.
type portSpan struct{ min, max uint16 }

type ports struct{ any, none []portSpan }

func (m *ports) fits(p uint16) bool {
	if len(m.any) > 0 && !onePort(m.any, p) {
		return false
	}
	return len(m.none) == 0 || !onePort(m.none, p)
}

func (m *ports) empty() bool { return len(m.any) == 0 && len(m.none) == 0 }

func onePort(list []portSpan, p uint16) bool {
	for _, s := range list {
		if s.min <= p && p <= s.max {
			return true
		}
	}
	return false
}

// view is the packet and its surroundings as conditions see them.
type view struct {
	p       *Packet
	family  uint8
	in, out string
	state   State
	dnat    bool
	now     time.Time
	t       *Tracker // remembers how often rules with a limit counted
}

func (m *match) fits(v *view) bool {
	p := v.p
	if m.family != 0 && m.family != v.family {
		return false
	}
	if m.protos != nil && !oneProto(m.protos, p.Proto) {
		return false
	}
	if m.known && v.state != Established || m.related && v.state != Related || m.invalid && v.state != Invalid || m.dnat && !v.dnat {
		return false
	}
	if !m.in.fits(v.in) || !m.out.fits(v.out) {
		return false
	}
	if !m.sports.empty() && !m.sports.fits(p.SrcPort) || !m.dports.empty() && !m.dports.fits(p.DstPort) {
		return false
	}
	if !m.src.empty() && !m.src.fits(p.Src) || !m.dst.empty() && !m.dst.fits(p.Dst) {
		return false
	}
	if (m.icmp != nil || m.icmpAny != nil) && !m.fitsICMP(v) {
		return false
	}
	return m.more == nil || m.more.fits(v)
}

func oneProto(list []uint8, p uint8) bool {
	for _, x := range list {
		if x == p {
			return true
		}
	}
	return false
}

func (m *match) fitsICMP(v *view) bool {
	p := v.p
	if p.Proto != ICMP && v.family == 4 || p.Proto != ICMPv6 && v.family == 6 {
		return false
	}
	for _, t := range m.icmpAny {
		if t == p.ICMPType {
			return true
		}
	}
	for _, tc := range m.icmp {
		if tc == uint16(p.ICMPType)<<8|uint16(p.ICMPCode) {
			return true
		}
	}
	return false
}

func (x *matchMore) fits(v *view) bool {
	p := v.p
	switch {
	case x.never:
		return false
	case x.ethernet() && p.MAC == [6]byte{}:
		return false // even a negated address: nft asks for an Ethernet packet first
	case len(x.macs) > 0 && !oneMAC(x.macs, p.MAC), len(x.notMACs) > 0 && oneMAC(x.notMACs, p.MAC):
		return false
	case x.syn && (!p.SYN || p.ACK || p.FIN || p.RST):
		return false
	case x.limit != nil && !v.t.under(x.limit, v.now):
		return false // what is tested behind this does not give the turn back
	case x.mark != nil && (p.Mark&x.mark.mask == x.mark.mark) == x.mark.invert:
		return false
	case x.dscp != nil && (p.DSCP == x.dscp.class) == x.dscp.invert:
		return false
	case x.clock != nil && !x.clock.fits(v.now):
		return false
	case x.set != nil && x.set.holds(p, x.setDirs) == x.setNegat:
		return false
	}
	return true
}

// ethernet reports whether the condition is about a sender on the link.
func (x *matchMore) ethernet() bool {
	return len(x.macs) > 0 || len(x.notMACs) > 0 || x.set != nil && slices.Contains(x.set.kinds, "mac")
}

func oneMAC(list [][6]byte, m [6]byte) bool {
	for _, x := range list {
		if x == m {
			return true
		}
	}
	return false
}

// maskWith gives a & mask; both must be of one family.
func maskWith(a, mask netip.Addr) netip.Addr {
	if a.Is4() {
		x, m := a.As4(), mask.As4()
		for i := range x {
			x[i] &= m[i]
		}
		return netip.AddrFrom4(x)
	}
	x, m := a.As16(), mask.As16()
	for i := range x {
		x[i] &= m[i]
	}
	return netip.AddrFrom16(x)
}

// maxDepth bounds jumps; OpenWrt's chains are three deep.
const maxDepth = 8

// trail remembers which sections spoke. It is a value on the stack: a verdict
// costs no memory until it is handed out.
type trail struct {
	hits [maxDepth * 2]*Hit
	n    int
}

func (t *trail) add(h *Hit) {
	if h != nil && t.n < len(t.hits) {
		t.hits[t.n] = h
		t.n++
	}
}

func (t *trail) has(h *Hit) bool {
	for _, x := range t.hits[:t.n] {
		if x == h {
			return true
		}
	}
	return false
}

// list copies the trail. Of two notes in a row by one section the second says
// it all ("comes in by zone wan" and then "zone wan refuses").
func (t *trail) list() []Hit {
	out := make([]Hit, 0, t.n)
	for _, h := range t.hits[:t.n] {
		if n := len(out); n > 0 && h.Section != "" && out[n-1].Section == h.Section && out[n-1].Config == h.Config {
			out[n-1] = *h
			continue
		}
		out = append(out, *h)
	}
	return out
}
