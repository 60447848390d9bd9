//go:build linux

package kernel_test

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

var (
	configs = flag.Int("configs", 0, "configurations of the differential test (0: 150, or 5000 in the long form)")
	seed    = flag.Uint64("seed", 0, "its first seed (0: by the clock)")
)

// TestModelAndKernel lets the model and a kernel, which has the ruleset that the
// model prints, judge the same packets: whether they pass, where they come out,
// how they are rewritten, and what a refused sender is told. First packets,
// answers, second packets and errors about them; both families.
func TestModelAndKernel(t *testing.T) {
	r := newRig(t)
	n, first := *configs, *seed
	if n == 0 {
		n = 150
		if need.Long() {
			n = 5000
		}
	}
	if first == 0 {
		first = uint64(time.Now().UnixNano()) % 1e9
	}
	fates := map[string]int{}
	cases, refused, gaps := 0, 0, 0
	for i := range n {
		d := drawing(first + uint64(i))
		line := router.Lines()[i%len(router.Lines())]
		c := r.load(t, line, d.config(14), nil)
		if c.rules.Refused() {
			refused++
		}
		if c.gaps > 0 {
			gaps++
		}
		failed := c.bad
		for range 25 {
			if failed != "" {
				break
			}
			failed = c.talk(d)
		}
		cases += len(c.events)
		for f, n := range c.fates {
			fates[f] += n
		}
		if failed != "" {
			t.Fatalf("seed %d: model and kernel disagree\n%s", first+uint64(i), r.minimal(t, line, c, nil))
		}
	}
	t.Logf("seed %d: %d packets through %d configurations (%d refused, %d with gaps): %v", first, cases, n, refused, gaps, fates)
	if least := 2000; *configs == 0 && cases < least {
		t.Errorf("only %d packets, want %d", cases, least)
	}
	for _, f := range []string{"accept", "accept local", "drop", "reject", "rewritten", "reply", "error", "router's own"} {
		if fates[f] == 0 && n >= 100 {
			t.Errorf("nothing of the kind %q was tried", f)
		}
	}
}

// An event is one packet; fresh ones come after all connections are forgotten.
type event struct {
	dev   string
	p     firewall.Packet
	fresh bool
}

// A contest is one configuration in both, and what happened to it so far.
type contest struct {
	r        *rig
	line     router.Line
	sections []uci.Section
	rules    *firewall.Ruleset
	memory   *firewall.Tracker
	text     string
	gaps     int
	bad      string // the text cannot be loaded
	events   []event
	fates    map[string]int
	last     string // how the model explains the last verdict
}

// load gives both the same sections. spoil changes the text, to see whether
// that is noticed.
func (r *rig) load(t testing.TB, line router.Line, sections []uci.Section, spoil func(string) string) *contest {
	c := r.compile(t, line, sections)
	text := c.text
	if spoil != nil {
		text = spoil(text)
	}
	if err := r.host.Load(text); err != nil {
		c.bad = err.Error()
	}
	return c
}

// compile asks only the model.
func (r *rig) compile(t testing.TB, line router.Line, sections []uci.Section) *contest {
	doc, err := uci.Parse("firewall", uci.Print(sections))
	must(t, err)
	network, err := uci.Parse("network", []byte("config interface 'vpn2'\n\toption proto 'wireguard'\n"))
	must(t, err)
	c := &contest{r: r, line: line, sections: doc.Sections(), memory: firewall.NewTracker(), fates: map[string]int{}}
	c.rules, _ = firewall.Compile(line, network, doc, live())
	text, gaps := c.rules.NFT()
	c.text, c.gaps = text, len(gaps)
	return c
}

// talk lets one packet go its way, then what may follow it. It returns the first
// difference.
func (c *contest) talk(d *draw) string {
	dev, p := d.packet()
	v, diff := c.both(event{dev, p, true})
	if diff != "" || v.Action != firewall.Accept || v.Local || isError(p) || v.Out == "" || c.random(v) {
		return diff
	}
	back := answer(v.Packet)
	if _, diff = c.both(event{v.Out, back, false}); diff != "" || dev == "" {
		return diff
	}
	if d.in(40) && p.Proto != 50 {
		in := v.Packet
		in.DSCP, in.Mark, in.MAC = 0, 0, [6]byte{}
		e := firewall.Packet{Src: in.Dst, Dst: in.Src, Proto: firewall.ICMP, ICMPType: 3, ICMPCode: 3, Inner: &in, MAC: [6]byte{2, 0, 0, 0, 0, 9}}
		if in.Src.Is6() {
			e.Proto, e.ICMPType, e.ICMPCode = firewall.ICMPv6, 1, 4
		}
		c.fates["error"]++
		if _, diff = c.both(event{v.Out, e, false}); diff != "" {
			return diff
		}
	}
	if d.in(30) { // the same once more: known by now
		if p.Proto == firewall.TCP && p.SYN {
			p.SYN, p.ACK = false, true
		}
		if _, diff = c.both(event{dev, p, false}); diff != "" {
			return diff
		}
	}
	if d.in(20) && p.SrcPort != 0 { // a stranger on the same way
		p.SrcPort += 20000
		if p.Proto == firewall.TCP {
			p.SYN, p.ACK, p.FIN, p.RST = true, false, false, false
		}
		_, diff = c.both(event{dev, p, false})
	}
	return diff
}

// random: of a range of ports the kernel takes any.
func (c *contest) random(v firewall.Verdict) bool {
	return v.Packet.SrcPort >= 30000 && v.Packet.SrcPort <= 30100
}

// both asks both and compares.
func (c *contest) both(e event) (firewall.Verdict, string) {
	c.events = append(c.events, e)
	if e.fresh {
		c.memory.Flush()
		if err := c.r.host.Forget(); err != nil {
			return firewall.Verdict{}, err.Error()
		}
	}
	c.r.drain()
	var v firewall.Verdict
	now := time.Now().UTC()
	if e.dev == "" {
		out, _ := route(e.p.Dst)
		v = c.rules.Output(c.memory, now, e.p, out)
		c.fates["router's own"]++
	} else {
		v = c.rules.Handle(c.memory, now, e.p, e.dev, route)
	}
	c.note(v, e)
	if err := c.r.put(e.dev, e.p); err != nil {
		return v, err.Error()
	}
	got := c.r.drain()
	diff := judge(v, e, got)
	if diff != "" { // perhaps the kernel was not done
		c.r.wait()
		got = append(got, c.r.drain()...)
		diff = judge(v, e, got)
	}
	return v, diff
}

func (c *contest) note(v firewall.Verdict, e event) {
	f := v.Action.String()
	if v.Local {
		f += " local"
	}
	c.fates[f]++
	if v.Reply {
		c.fates["reply"]++
	}
	if v.Action == firewall.Accept && (v.Packet.Src != e.p.Src || v.Packet.Dst != e.p.Dst) {
		c.fates["rewritten"]++
	}
	var s []string
	for _, h := range v.Hits {
		s = append(s, h.Name+": "+h.Says)
	}
	c.last = fmt.Sprintf("%s by %q, %s; because %s", v.Action, v.Out, show(v.Packet), strings.Join(s, " | "))
}

// answer is what the receiver of a packet sends back.
func answer(p firewall.Packet) firewall.Packet {
	a := p
	a.Src, a.Dst, a.SrcPort, a.DstPort, a.DSCP, a.Mark = p.Dst, p.Src, p.DstPort, p.SrcPort, 0, 0
	a.MAC = [6]byte{2, 0, 0, 0, 0, 9}
	switch {
	case p.Proto == firewall.ICMP && p.ICMPType == 8:
		a.ICMPType = 0
	case p.Proto == firewall.ICMP && p.ICMPType == 13:
		a.ICMPType = 14
	case p.Proto == firewall.ICMPv6:
		a.ICMPType = 129
	case p.Proto == firewall.TCP:
		a.ACK = true
	}
	return a
}

// judge compares a verdict with what came out; "" when equal.
func judge(v firewall.Verdict, e event, got []seen) string {
	var passed, local, told *seen
	for i := range got {
		s := &got[i]
		switch {
		case s.dev == "" && s.p.Proto == e.p.Proto && local == nil:
			local = s
		case s.dev != "" && continues(s.p, e.p) && passed == nil:
			passed = s
		case s.dev != "" && told == nil:
			told = s
		}
	}
	if v.Action == firewall.Accept {
		switch {
		case v.Local && local == nil:
			return "model: for the router; kernel: not delivered"
		case v.Local && !same(local.p, v.Packet, false):
			return fmt.Sprintf("model: for the router as %s; kernel: as %s", show(v.Packet), show(local.p))
		case v.Local:
			return ""
		case passed == nil:
			return "model: passes; kernel: does not"
		}
		if p := passed.p.SrcPort; v.Packet.SrcPort == 30000 && p > 30000 && p <= 30100 {
			v.Packet.SrcPort = p // the kernel takes any
		}
		if passed.dev != v.Out || !same(passed.p, v.Packet, true) {
			return fmt.Sprintf("model: out of %s %s; kernel: %s", v.Out, show(v.Packet), *passed)
		}
		return ""
	}
	switch {
	case local != nil && e.dev != "":
		return fmt.Sprintf("model: %s; kernel: %s", v.Action, *local)
	case passed != nil:
		return fmt.Sprintf("model: %s; kernel: %s", v.Action, *passed)
	case e.dev == "": // what the router tells its own programs is not compared
		return ""
	case v.Answer == nil && told != nil:
		return fmt.Sprintf("model: tells nobody; kernel: %s", *told)
	case v.Answer != nil && told == nil:
		return "model: tells the sender " + show(*v.Answer) + "; kernel: silent"
	case v.Answer != nil:
		a, b := *v.Answer, told.p
		a.ACK, b.ACK = false, false // depends on the packet's numbers
		if a.Proto != firewall.TCP {
			a.Src = b.Src // from which of its addresses the router speaks is not compared
		}
		if !same(a, b, false) {
			return fmt.Sprintf("model: tells %s; kernel: %s", show(a), show(b))
		}
	}
	return ""
}

// continues reports whether a packet that came out may be the one that went in,
// not an answer to it.
func continues(out, in firewall.Packet) bool {
	switch {
	case out.Proto != in.Proto:
		return false
	case in.Proto == firewall.TCP:
		return out.RST == in.RST && out.SYN == in.SYN
	case in.Proto == firewall.ICMP || in.Proto == firewall.ICMPv6:
		return out.ICMPType == in.ICMPType && (out.Inner == nil) == (in.Inner == nil) &&
			(in.Inner == nil || out.Inner.Proto == in.Inner.Proto)
	}
	return true
}

// same compares what can be seen of two packets from outside.
func same(a, b firewall.Packet, class bool) bool {
	x, y := a.Inner, b.Inner
	for _, p := range []*firewall.Packet{&a, &b} {
		p.Inner, p.Mark, p.MAC = nil, 0, [6]byte{}
		if !class {
			p.DSCP = 0
		}
	}
	if a != b || (x == nil) != (y == nil) {
		return false
	}
	if x == nil {
		return true
	}
	// Of the inner packet only what identifies it: errors quote its beginning.
	id := func(p *firewall.Packet) [2]netip.AddrPort {
		return [2]netip.AddrPort{netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)}
	}
	return x.Proto == y.Proto && id(x) == id(y) && x.ICMPID == y.ICMPID && x.ICMPType == y.ICMPType
}

// replay repeats events with other sections and returns the first difference.
func (r *rig) replay(t testing.TB, line router.Line, sections []uci.Section, events []event, spoil func(string) string) (*contest, string) {
	c := r.load(t, line, sections, spoil)
	if c.bad != "" {
		return c, c.bad
	}
	must(t, r.host.Forget()) // of earlier attempts
	for _, e := range events {
		if _, diff := c.both(e); diff != "" {
			return c, diff
		}
	}
	return c, ""
}

// minimal takes sections, options and packets away as long as the two disagree,
// and tells what is left.
func (r *rig) minimal(t testing.TB, line router.Line, c *contest, spoil func(string) string) string {
	sections, events := shrink(c.sections, c.events, func(s []uci.Section, e []event) bool {
		_, diff := r.replay(t, line, s, e, spoil)
		return diff != ""
	})
	left, diff := r.replay(t, line, sections, events, spoil)
	if diff == "" {
		return "not to be repeated: perhaps a matter of time\n" + string(uci.Print(c.sections))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nrelease %s\n%s\n", diff, line, uci.Print(sections))
	for _, e := range events {
		fmt.Fprintf(&b, "packet by %q: %s mac %x fresh %v\n", e.dev, show(e.p), e.p.MAC, e.fresh)
	}
	fmt.Fprintf(&b, "model: %s\n%s", left.last, left.text)
	return b.String()
}

// shrink removes what is not needed for wrong to hold.
func shrink(sections []uci.Section, events []event, wrong func([]uci.Section, []event) bool) ([]uci.Section, []event) {
	if n := len(events); n > 0 && wrong(sections, events[n-1:]) {
		events = events[n-1:]
	}
	for again := true; again; {
		again = false
		for i := len(events) - 1; i >= 0 && len(events) > 1; i-- {
			if e := slices.Delete(slices.Clone(events), i, i+1); wrong(sections, e) {
				events, again = e, true
			}
		}
		for i := len(sections) - 1; i >= 0; i-- {
			if s := slices.Delete(slices.Clone(sections), i, i+1); wrong(s, events) {
				sections, again = s, true
			}
		}
		for i := range sections {
			for j := len(sections[i].Options) - 1; j >= 0; j-- {
				s := slices.Clone(sections)
				s[i].Options = slices.Delete(slices.Clone(s[i].Options), j, j+1)
				if wrong(s, events) {
					sections, again = s, true
				}
			}
		}
	}
	return sections, events
}
