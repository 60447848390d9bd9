package firewall

import (
	"net/netip"
	"time"
)

// Tracker is the router's memory of connections: who talks to whom, and how
// addresses are rewritten both ways. It outlives a Ruleset, as conntrack
// outlives a reload of the firewall. One goroutine at a time may use it.
type Tracker struct {
	flows   map[tuple]place
	adds    int
	buckets map[*limit]bucket // of the ruleset in force
	of      *Ruleset
}

// tuple is one direction of a connection. For echo requests sport is the
// identifier and dport holds type and code.
type tuple struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16
}

type place struct {
	f     *flow
	reply bool
}

// flow is one connection. ways[0] is how its first packet looked on arrival,
// ways[1] how the answer will look on arrival.
type flow struct {
	ways       [2]tuple
	dnat, snat bool
	kept       bool // it was let through and is remembered
	answered   bool
	tcp        tcpState
	began      time.Time
	until      time.Time
	dnatBy     *Hit
	snatBy     *Hit
	masq       string // the device whose address it hides behind
}

// Flow is one remembered connection, for people and tests.
type Flow struct {
	Proto    uint8
	From, To netip.AddrPort // as the first packet looked on arrival
	// AnswerFrom and AnswerTo are how an answer looks on arrival; they differ
	// from To and From when addresses are rewritten.
	AnswerFrom, AnswerTo netip.AddrPort
	DNAT, SNAT           bool
	Answered             bool
	Until                time.Time
}

// NewTracker gives an empty memory.
func NewTracker() *Tracker { return &Tracker{flows: map[tuple]place{}} }

// Flush forgets every connection, like `conntrack -F` or a reboot.
func (t *Tracker) Flush() { clear(t.flows) }

// DeviceDown forgets the connections that were masqueraded out of a device,
// as the kernel does when the device goes down or loses its address.
func (t *Tracker) DeviceDown(dev string) {
	for _, f := range t.all() {
		if f.masq == dev {
			t.drop(f)
		}
	}
}

// Flows lists what is remembered at a time, in no particular order.
func (t *Tracker) Flows(now time.Time) []Flow {
	var out []Flow
	for _, f := range t.all() {
		if now.After(f.until) {
			continue
		}
		o, r := f.ways[0], f.ways[1]
		out = append(out, Flow{
			Proto: o.proto,
			From:  netip.AddrPortFrom(o.src, o.sport), To: netip.AddrPortFrom(o.dst, o.dport),
			AnswerFrom: netip.AddrPortFrom(r.src, r.sport), AnswerTo: netip.AddrPortFrom(r.dst, r.dport),
			DNAT: f.dnat, SNAT: f.snat, Answered: f.answered, Until: f.until,
		})
	}
	return out
}

func (t *Tracker) all() []*flow {
	var out []*flow
	for _, p := range t.flows {
		if !p.reply {
			out = append(out, p.f)
		}
	}
	return out
}

func (t *Tracker) drop(f *flow) {
	delete(t.flows, f.ways[0])
	delete(t.flows, f.ways[1])
}

// find looks a connection up and forgets it when its time is over.
func (t *Tracker) find(k tuple, now time.Time) (place, bool) {
	p, ok := t.flows[k]
	if ok && now.After(p.f.until) {
		t.drop(p.f)
		return place{}, false
	}
	return p, ok
}

func hasPorts(proto uint8) bool {
	switch proto {
	case TCP, UDP, 33, 132, 136: // DCCP, SCTP, UDP-Lite
		return true
	}
	return false
}

// tupleOf reads the tuple of a packet. Only echo and the other questions of
// ICMP have one; errors are looked up by what they carry.
func tupleOf(p *Packet) tuple {
	k := tuple{src: p.Src, dst: p.Dst, proto: p.Proto}
	switch {
	case hasPorts(p.Proto):
		k.sport, k.dport = p.SrcPort, p.DstPort
	case p.Proto == ICMP || p.Proto == ICMPv6:
		k.sport, k.dport = p.ICMPID, uint16(p.ICMPType)<<8|uint16(p.ICMPCode)
	}
	return k
}

// icmpAnswer pairs the questions and answers of ICMP (kernel: invmap).
var icmpAnswer = map[uint8]uint8{8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}

// icmp6Answer does so for ICMPv6.
var icmp6Answer = map[uint8]uint8{128: 129, 129: 128, 139: 140, 140: 139}

// back gives the tuple of an answer.
func (k tuple) back() tuple {
	b := tuple{src: k.dst, dst: k.src, proto: k.proto, sport: k.dport, dport: k.sport}
	switch k.proto {
	case ICMP, ICMPv6:
		pairs := icmpAnswer
		if k.proto == ICMPv6 {
			pairs = icmp6Answer
		}
		b.sport, b.dport = k.sport, uint16(pairs[uint8(k.dport>>8)])<<8|k.dport&0xFF
	}
	return b
}

// isError tells ICMP's error messages from its questions and answers.
func isError(p *Packet) bool {
	switch p.Proto {
	case ICMP:
		switch p.ICMPType {
		case 3, 4, 5, 11, 12:
			return true
		}
	case ICMPv6:
		return p.ICMPType < 128
	}
	return false
}

// see tells what a packet belongs to. For the first packet of a connection it
// returns a flow that is not remembered until keep is called.
func (t *Tracker) see(p *Packet, now time.Time) (State, *flow, bool) {
	if p.Proto == ICMPv6 && neighbourly(p.ICMPType) {
		return Untracked, nil, false
	}
	if isError(p) {
		return t.seeError(p, now)
	}
	if p.Proto == TCP && !sensible(p) {
		return Invalid, nil, false
	}
	k := tupleOf(p)
	at, ok := t.find(k, now)
	if ok && p.Proto == TCP {
		switch next, verdict := at.f.tcp.after(p, at.reply); verdict {
		case tcpStray:
			return Invalid, nil, false
		case tcpAgain:
			t.drop(at.f)
			ok = false
		default:
			at.f.tcp = next
		}
	}
	if ok {
		switch {
		case at.reply:
			at.f.answered = true
			return Established, at.f, true
		case at.f.answered:
			return Established, at.f, false
		}
		return New, at.f, false
	}
	return t.seeFirst(p, k, now)
}

// sensible: no TCP sends any other combination of flags (kernel: tcp_valid_flags).
// None at all stands for data here, see Packet.
func sensible(p *Packet) bool {
	switch {
	case p.SYN:
		return !p.FIN && !p.RST
	case p.FIN:
		return p.ACK && !p.RST
	}
	return true
}

// seeFirst begins a connection, unless the packet cannot be a first one.
func (t *Tracker) seeFirst(p *Packet, k tuple, now time.Time) (State, *flow, bool) {
	f := &flow{ways: [2]tuple{k, k.back()}, began: now}
	switch p.Proto {
	case TCP:
		next, verdict := tcpNone.after(p, false)
		if verdict != tcpGoesOn {
			return Invalid, nil, false
		}
		f.tcp = next
	case ICMP:
		switch p.ICMPType {
		case 8, 13, 15, 17:
		default:
			return Invalid, nil, false
		}
	case ICMPv6:
		if p.ICMPType != 128 && p.ICMPType != 139 {
			return Invalid, nil, false
		}
	}
	return New, f, false
}

// neighbourly: router, neighbour and multicast listener discovery are not
// tracked (kernel: nf_conntrack_proto_icmpv6.c, noct_valid_new).
func neighbourly(typ uint8) bool {
	return typ >= 130 && typ <= 136 || typ == 143
}

func (t *Tracker) seeError(p *Packet, now time.Time) (State, *flow, bool) {
	if p.Inner == nil {
		return Invalid, nil, false
	}
	// The error travels like an answer to the packet that it is about.
	at, ok := t.find(tupleOf(p.Inner).back(), now)
	if !ok {
		return Invalid, nil, false
	}
	return Related, at.f, at.reply
}

// keep remembers a connection whose packet was let through, and prolongs it.
func (t *Tracker) keep(f *flow, now time.Time) {
	if !f.kept {
		f.kept = true
		t.flows[f.ways[0]] = place{f, false}
		t.flows[f.ways[1]] = place{f, true}
		if t.adds++; t.adds%4096 == 0 {
			for _, old := range t.all() {
				if now.After(old.until) {
					t.drop(old)
				}
			}
		}
	}
	f.until = now.Add(f.lasts(now))
}

// lasts is how long the connection is remembered without another packet.
// UDP and established TCP as in OpenWrt's sysctl.d/11-nf-conntrack.conf, the
// rest as in the kernel.
func (f *flow) lasts(now time.Time) time.Duration {
	switch f.ways[0].proto {
	case TCP:
		return tcpLasts[f.tcp]
	case UDP:
		// A stream: answered, and older than two seconds.
		if f.answered && now.Sub(f.began) > 2*time.Second {
			return 180 * time.Second
		}
		return 60 * time.Second
	case ICMP, ICMPv6:
		return 30 * time.Second
	}
	return 600 * time.Second
}

// tcpState is the kernel's idea of a TCP connection.
type tcpState int

const (
	tcpNone tcpState = iota
	tcpSynSent
	tcpSynRecv
	tcpEstablished
	tcpFinWait
	tcpCloseWait
	tcpLastAck
	tcpTimeWait
	tcpClose
	tcpSynSent2
	tcpIgnored // the packet changes nothing
	tcpInvalid // the packet does not belong there
)

var tcpLasts = [...]time.Duration{
	tcpNone:        0,
	tcpSynSent:     120 * time.Second,
	tcpSynRecv:     60 * time.Second,
	tcpEstablished: 7440 * time.Second,
	tcpFinWait:     120 * time.Second,
	tcpCloseWait:   60 * time.Second,
	tcpLastAck:     30 * time.Second,
	tcpTimeWait:    120 * time.Second,
	tcpClose:       10 * time.Second,
	tcpSynSent2:    120 * time.Second,
}

// tcpTable is the kernel's table (nf_conntrack_proto_tcp.c): direction, kind
// of packet, state before → state after.
var tcpTable = [2][5][10]tcpState{
	{ // from the side that opened it
		{1, 1, 10, 10, 10, 10, 10, 1, 1, 9},    // SYN
		{11, 11, 2, 11, 11, 11, 11, 11, 11, 2}, // SYN and ACK
		{11, 11, 4, 4, 6, 6, 6, 7, 8, 11},      // FIN
		{3, 11, 3, 3, 5, 5, 7, 7, 8, 11},       // ACK
		{11, 8, 8, 8, 8, 8, 8, 8, 8, 8},        // RST
	},
	{ // from the other side
		{11, 9, 11, 11, 11, 11, 11, 1, 11, 9},
		{11, 2, 10, 10, 10, 10, 10, 10, 10, 2},
		{11, 11, 4, 4, 6, 6, 6, 7, 8, 11},
		{11, 10, 2, 3, 5, 5, 7, 7, 8, 10},
		{11, 8, 8, 8, 8, 8, 8, 8, 8, 8},
	},
}

type tcpVerdict int

const (
	tcpGoesOn tcpVerdict = iota
	tcpStray             // not part of the connection: conntrack says "invalid"
	tcpAgain             // a new connection with the ports of a closed one
)

// after gives the state that follows a packet.
func (s tcpState) after(p *Packet, reply bool) (tcpState, tcpVerdict) {
	if !p.SYN && !p.ACK && !p.FIN && !p.RST {
		// The caller does not model flags: data, both ways.
		if s == tcpNone || reply {
			return tcpEstablished, tcpGoesOn
		}
		return s, tcpGoesOn
	}
	kind := 3
	switch {
	case p.RST:
		kind = 4
	case p.SYN && p.ACK:
		kind = 1
	case p.SYN:
		kind = 0
	case p.FIN:
		kind = 2
	}
	dir := 0
	if reply {
		dir = 1
	}
	next := tcpTable[dir][kind][s]
	switch {
	case next == tcpInvalid:
		return s, tcpStray
	case next == tcpIgnored:
		return s, tcpGoesOn
	case next == tcpSynSent && s >= tcpTimeWait:
		return s, tcpAgain
	}
	return next, tcpGoesOn
}
