package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Follow follows the packet. It never fails: what cannot be known is in the
// trace as not known.
func Follow(f Facts, r Request) Trace {
	w := newWalk(f, r)
	if w.there() && !w.noAnswer {
		w.list = &w.t.Back
		w.back()
	}
	w.conclude()
	return w.t
}

// walk is one packet on its way.
type walk struct {
	f    Facts
	r    Request
	t    Trace
	list *[]Hop // where hops go: there or back

	snap    *router.Snapshot
	line    router.Line
	rules   *firewall.Ruleset
	warn    []firewall.Warning
	tracker *firewall.Tracker
	routes  routes
	site    router.Site

	live  *router.Tunnel // nil: the tunnel is not up
	table *cryptokey.Table
	dev   device // the peer that sends; zero for a host

	outer    firewall.Packet // WireGuard's own packet, at the home router's door
	pkt      firewall.Packet // the packet itself
	in       string          // the device it comes in by
	v        firewall.Verdict
	towards  string // what the packet goes to, for people
	noAnswer bool   // the way back is not this router's business
}

// sourcePort is the port that a followed packet comes from.
const sourcePort = 40000

func newWalk(f Facts, r Request) *walk {
	s := f.Snapshot
	w := &walk{f: f, r: r, snap: s, line: s.Board.Release.Effective(), tracker: firewall.NewTracker(), routes: routesOf(s)}
	w.list = &w.t.There
	w.t.There, w.t.Back = []Hop{}, []Hop{}
	w.rules, w.warn = firewall.Compile(w.line, s.Config("network"), s.Config("firewall"), ifaces(s))
	w.site, _ = router.SiteOf(s)
	w.live = s.Tunnels[f.Home.Tunnel.Interface]
	w.table = tableOf(w.live)
	w.dev = w.deviceOf()
	w.towards = r.To.String()
	if r.Name != "" && r.Name != w.towards {
		w.towards = fmt.Sprintf("%s (%s)", r.Name, r.To)
	}
	w.pkt = w.firstPacket()
	w.t.From, w.t.To, w.t.Packet = w.who(), w.towards, kind(r.Proto, r.Port)
	w.remark()
	return w
}

func ifaces(s *router.Snapshot) []firewall.Iface {
	out := make([]firewall.Iface, 0, len(s.Interfaces))
	for _, i := range s.Interfaces {
		out = append(out, firewall.Iface{Name: i.Name, Device: i.Device, Addrs: i.Addresses, Gateways: i.Gateways, Up: i.Up})
	}
	return out
}

func tableOf(t *router.Tunnel) *cryptokey.Table {
	if t == nil {
		return &cryptokey.Table{}
	}
	peers := make([]cryptokey.Peer, 0, len(t.Peers))
	for _, p := range t.Peers {
		peers = append(peers, cryptokey.Peer{Key: p.PublicKey, Endpoint: p.Endpoint, Allowed: p.AllowedIPs})
	}
	table, _ := cryptokey.Of(peers)
	return table
}

// firstPacket is the first packet of the connection.
func (w *walk) firstPacket() firewall.Packet {
	p := firewall.Packet{Src: w.r.From, Dst: w.r.To, Proto: w.r.Proto}
	if w.r.Peer != "" {
		p.Src = w.dev.addressFor(w.r.To)
	}
	switch {
	case p.Proto == firewall.TCP || p.Proto == firewall.UDP:
		p.SrcPort, p.DstPort, p.SYN = sourcePort, w.r.Port, p.Proto == firewall.TCP
	case w.r.To.Is6():
		p.Proto, p.ICMPType, p.ICMPID = firewall.ICMPv6, 128, 1
	default:
		p.Proto, p.ICMPType, p.ICMPID = firewall.ICMP, 8, 1
	}
	return p
}

// who sends, for people.
func (w *walk) who() string {
	if w.r.Peer != "" {
		return w.r.Peer
	}
	for _, n := range Names(w.f.Home, w.snap) {
		if n.Addr == w.r.From {
			return n.Name
		}
	}
	return w.r.From.String()
}

// remark notes what makes the whole trace less sure than it looks.
func (w *walk) remark() {
	note := func(format string, args ...any) { w.t.Notes = append(w.t.Notes, fmt.Sprintf(format, args...)) }
	for _, c := range []string{"network", "firewall"} {
		if err := w.snap.Broken[c]; err != nil {
			note("/etc/config/%s cannot be read by the router; this follows what can be made of it", c)
		}
		if slices.Contains(w.snap.Staged, c) {
			note("somebody has prepared changes to %s that are not in effect yet (uci changes)", c)
		}
		if slices.Contains(w.snap.Overrides, c) {
			note("/var/run/uci/%s stands before /etc/config/%s until the next restart", c, c)
		}
	}
	if w.snap.Pending != nil {
		note("a change by heimweg is under way and not confirmed yet")
	}
}

// there is the way to the target. It reports whether the packet got there.
func (w *walk) there() bool {
	if w.r.Peer == "" {
		return w.origin() && w.home() && w.onwards()
	}
	w.begin()
	for _, s := range []struct {
		id   ID
		pass func() bool
	}{{Device, w.device}, {Internet, w.internet}, {ISPRouter, w.ispRouter}, {Door, w.door}, {Tunnel, w.tunnel}, {Home, w.home}, {Onward, w.onwards}} {
		if !later(w.r.Begin, s.id) && !s.pass() {
			return false
		}
	}
	return true
}

// begin makes up what the hops that are left out would have found.
func (w *walk) begin() {
	any4 := netip.IPv4Unspecified()
	switch w.r.Begin {
	case ISPRouter:
		w.outer = firewall.Packet{Src: somewhere(any4), Proto: firewall.UDP, SrcPort: sourcePort, DstPort: w.dev.port}
	case Tunnel:
		w.outer = firewall.Packet{Src: somewhere(any4), Dst: w.outerAddress(any4), Proto: firewall.UDP, SrcPort: sourcePort, DstPort: w.f.Home.Tunnel.Port}
	}
	if later(w.r.Begin, Tunnel) {
		w.in = w.tunnelDevice()
	}
}

// hop begins a hop.
func hop(id ID, at, packet string) Hop {
	return Hop{ID: id, At: at, Verdict: Passes, Packet: packet, Lines: []Line{}}
}

func (h *Hop) say(note string, because []Place, format string, args ...any) {
	h.Lines = append(h.Lines, Line{Says: fmt.Sprintf(format, args...), Because: because, Note: note})
}

// doubt notes that something is not known, and goes on.
func (h *Hop) doubt(note string, format string, args ...any) {
	h.Verdict = Unknown
	h.Lines = append(h.Lines, Line{Says: fmt.Sprintf(format, args...), Verdict: Unknown, Note: note})
}

// pass ends a hop that the packet leaves alive.
func (w *walk) pass(h Hop) bool {
	*w.list = append(*w.list, h)
	return true
}

// end is how a packet ends.
type end struct {
	cause   Cause
	silent  bool
	says    string // completes "… cannot reach …: "
	line    string // the same, short, beside the hop; "": says
	note    string
	because []Place
}

// die ends the hop and the packet.
func (w *walk) die(h Hop, e end) bool {
	h.Verdict = Dies
	line := e.line
	if line == "" {
		line = e.says
	}
	h.Lines = append(h.Lines, Line{Says: line, Verdict: Dies, Because: e.because, Note: e.note})
	w.t.Death = &Death{Hop: h.ID, At: h.At, Cause: e.cause, Says: e.says, Silent: e.silent, Because: e.because}
	*w.list = append(*w.list, h)
	return false
}

// place is where a section, or an option of it, stands.
func (w *walk) place(config, section, option string) []Place {
	doc := w.snap.Config(config)
	sec, ok := doc.Section(section)
	if !ok {
		return nil
	}
	p := Place{File: "/etc/config/" + config, Section: section, Line: doc.Line(section, option)}
	if p.Line == 0 {
		p.Line = doc.Line(section, "")
	}
	if sec.Anonymous {
		p.Section = label(doc, sec)
	}
	p.Name, _ = sec.Get("name")
	return []Place{p}
}

// label is what uci calls an unnamed section: "@rule[3]".
func label(doc *uci.Document, sec uci.Section) string {
	for i, s := range doc.OfType(sec.Type) {
		if s.Name == sec.Name {
			return fmt.Sprintf("@%s[%d]", sec.Type, i)
		}
	}
	return sec.Name
}

// conclude says what became of the packet on the whole.
func (w *walk) conclude() {
	t := &w.t
	for _, list := range [][]Hop{t.There, t.Back} {
		for _, h := range list {
			for _, l := range h.Lines {
				if l.Verdict == Unknown {
					t.Unknown = append(t.Unknown, h.At+": "+l.Says)
				}
			}
		}
	}
	what := fmt.Sprintf("%s by %s", w.towards, t.Packet)
	if t.Packet == "ping" {
		what = w.towards + " by a ping"
	}
	switch {
	case t.Death != nil:
		t.Verdict = Dies
		t.Headline = fmt.Sprintf("%s cannot reach %s: %s", t.From, what, t.Death.Says)
	case len(t.Unknown) > 0:
		t.Verdict = Unknown
		t.Headline = fmt.Sprintf("nothing that heimweg can see keeps %s from %s, but not everything can be seen from here", t.From, what)
	default:
		t.Verdict = Passes
		t.Headline = fmt.Sprintf("%s reaches %s, and the answer comes back", t.From, what)
	}
	w.remedy()
}

func unmapped(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
