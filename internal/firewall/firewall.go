// Package firewall says what an OpenWrt router does with one packet: it takes
// the UCI documents `network` and `firewall` and the live interfaces, and gives
// the verdict, the packet as it leaves (addresses and ports rewritten), and the
// sections of the files that decided, in words a household understands.
//
// It is a model and must stay one: it reads no files, asks no router, has no
// clock of its own, and never changes anything but the [Tracker] it is handed.
//
// # Background for a newcomer
//
// OpenWrt's firewall4 ("fw4", 22.03 on; before that fw3) turns the sections of
// /etc/config/firewall into one nftables ruleset. A packet meets it like this:
//
//	arrives ─ connection tracking ─ port forwards (DNAT) ─ routing ─┬─ to the router: input
//	                                                                └─ onwards: forward ─ source NAT ─ leaves
//	from the router itself: output ─ source NAT ─ leaves
//
// Every device belongs to the first zone that names it. The first packet of a
// connection is judged by the rules; everything that follows belongs to the
// connection ("established") and passes, and its addresses are rewritten back,
// whatever the rules say by then. Compile builds the same chains of conditions
// that fw4 would hand to nftables (in its order, with its misreadings), and
// Handle walks them. What is easily got wrong is listed, with the date and
// release of the observation, in the tests (observed_test.go).
//
// Not modelled: included nft and shell files, traffic shaping, flow offloading,
// conntrack helpers (FTP, SIP).
//
// [Ruleset.NFT] prints the same chains for nftables, in our own words, so that a
// kernel can be asked whether the model is right (lab/kernel does).
package firewall

import (
	"net/netip"
	"time"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// The IP protocol numbers that firewalls speak about.
const (
	ICMP   uint8 = 1
	TCP    uint8 = 6
	UDP    uint8 = 17
	ICMPv6 uint8 = 58
)

// Packet is what a firewall looks at in one IP packet. Ports count for TCP,
// UDP and their kin only, the ICMP fields for ICMP and ICMPv6 only.
type Packet struct {
	Src, Dst         netip.Addr
	Proto            uint8 // IP protocol number
	SrcPort, DstPort uint16

	ICMPType, ICMPCode uint8
	ICMPID             uint16 // identifier of an echo request and its reply

	// TCP flags. A TCP packet with none of them set is taken for data in the
	// middle of a connection (ACK).
	SYN, ACK, FIN, RST bool

	// Inner is the packet that an ICMP error complains about, as it looked to
	// whoever complains. Nil in everything else.
	Inner *Packet

	MAC  [6]byte // sender on the link; zero: none (a tunnel) or not known, matches no src_mac, negated or not
	Mark uint32  // firewall mark, changed by rules with target MARK
	DSCP uint8   // changed by rules with target DSCP
}

// Iface is one live interface, as `ubus call network.interface dump` tells.
type Iface struct {
	Name     string         // UCI section: "lan"
	Device   string         // where packets pass: "br-lan", "pppoe-wan"; "" if there is none
	Addrs    []netip.Prefix // with the interface's mask, host bits kept
	Gateways []netip.Addr   // next hops of its default routes; optional, helps to choose the address for masquerading
	Up       bool
}

// Action is what happens to a packet.
type Action int

// The three fates. Reject is a drop that the sender may be told of, see
// [Verdict.Answer].
const (
	Accept Action = iota
	Drop
	Reject
)

// String gives "accept", "drop" or "reject".
func (a Action) String() string {
	switch a {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	}
	return "reject"
}

// Answer is how a rejected sender is told.
type Answer int

// The answers of `tcp_reject_code` and `any_reject_code`. NoAnswer is for
// packets that were not rejected.
const (
	NoAnswer Answer = iota
	TCPReset
	PortUnreachable
	HostUnreachable
	AdminProhibited
	NoRoute
)

// String names the answer as fw4's options do.
func (a Answer) String() string {
	switch a {
	case TCPReset:
		return "tcp-reset"
	case PortUnreachable:
		return "port-unreachable"
	case HostUnreachable:
		return "host-unreachable"
	case AdminProhibited:
		return "admin-prohibited"
	case NoRoute:
		return "no-route"
	}
	return "none"
}

// State is what connection tracking thinks of a packet.
type State int

// The states of connection tracking. Untracked packets (neighbour discovery,
// target NOTRACK) have no connection and no address translation.
const (
	Untracked State = iota
	New
	Established
	Related
	Invalid
)

// String gives the kernel's word.
func (s State) String() string {
	switch s {
	case New:
		return "new"
	case Established:
		return "established"
	case Related:
		return "related"
	case Invalid:
		return "invalid"
	}
	return "untracked"
}

// Verdict is what became of one packet.
type Verdict struct {
	Action Action
	Packet Packet // as it goes on: addresses, ports and marks rewritten
	Out    string // device it leaves by, "" when it stays (local or dead)
	Local  bool   // it was for the router itself
	Reply  bool   // it travels against the direction in which its connection was opened
	State  State
	// With says how a rejected sender is told, and Answer is the packet it
	// gets, addressed as the sender sees the world. Answer is nil when nothing
	// is sent: resets are not answered, and the answer to a stray packet often
	// does not pass the output chain itself (observed on 23.05.6, 24.10.8 and
	// 25.12.5: openwrt-observed.md 8.1).
	With   Answer
	Answer *Packet
	// Hits are the sections that decided, in the order they spoke. The last
	// one gave the verdict, or rewrote the packet after it.
	Hits []Hit
}

// Hit is one section of a file that had a say.
type Hit struct {
	Config  string // "firewall", or "" when no section but the kernel decided
	Section string // its UCI name: "hw_wg_in", or "cfg0a92bd" for an anonymous one
	Name    string // what its option `name` says, or "@rule[3]"
	Says    string // what it does, in a household's words
}

// Warning is something about a section that firewall4 tells on stderr, or that
// makes nft refuse the whole ruleset.
type Warning struct {
	Section string // UCI name of the section
	Text    string // in fw4's words: "[!] Section @rule[3] (name) skipped due to invalid options"
	Skipped bool   // the section (or a part of it) has no effect
	Refuses bool   // nft refuses the whole ruleset: the firewall keeps what it had
}

// Route tells where the router sends a packet for dst: the device, or that it
// is one of the router's own addresses. Both empty: no way.
type Route func(dst netip.Addr) (out string, local bool)

// Ruleset is a compiled configuration. It is read-only after Compile and safe
// for several goroutines, each with its own Tracker.
type Ruleset struct {
	line    router.Line
	refused bool
	hooks   hooks
	zones   []*zone
	ifaces  []Iface
	addrs   map[string][]Iface // device → the interfaces on it
	sets    []*ipset
	gaps    []Warning

	resetWith, rejectWith Answer
}

// Zone tells which zone a packet belongs to that comes in by a device from an
// address: the first in the file that fits. False: none, so the defaults apply.
func (r *Ruleset) Zone(device string, from netip.Addr) (string, bool) {
	p := Packet{Src: from, Dst: from}
	v := view{p: &p, family: 4, in: device}
	if from.Is6() {
		v.family = 6
	}
	for _, z := range r.zones {
		for _, m := range z.matches {
			if cond := m.from(); cond.fits(&v) {
				return z.name, true
			}
		}
	}
	return "", false
}

// Refused reports that nft refuses this ruleset as a whole (the warning that
// says why has Refuses set). fw4 then leaves the old ruleset in place; after a
// reboot there is none, and such a Ruleset lets everything through untouched.
func (r *Ruleset) Refused() bool { return r.refused }

// Compile reads the two documents as the firewall of that release line would,
// and never fails: what it cannot use is skipped with a warning, as on the
// router. A nil document counts as empty.
func Compile(line router.Line, network, firewall *uci.Document, live []Iface) (*Ruleset, []Warning) {
	c := newCompiler(line, network, firewall, live)
	c.read()
	return c.build(), c.warnings
}

// Handle judges a packet that arrived on device in, at the time now by the
// router's clock. The connection, if it gets one, is remembered in t.
func (r *Ruleset) Handle(t *Tracker, now time.Time, p Packet, in string, route Route) Verdict {
	t.obey(r)
	w := walk{r: r, t: t, now: now, p: p, in: in, route: route}
	return w.arrive()
}

// Output judges a packet that the router itself sends by device out.
func (r *Ruleset) Output(t *Tracker, now time.Time, p Packet, out string) Verdict {
	t.obey(r)
	w := walk{r: r, t: t, now: now, p: p, out: out}
	return w.send()
}
