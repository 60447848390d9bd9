package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/phone"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
)

// house is an emulated home that was set up by heimweg, with a phone and a tablet.
type house struct {
	t   testing.TB
	w   *world.World
	dir string
	// silentISP: heimweg cannot ask the ISP router.
	silentISP bool
	trips     int64
}

func newHouse(t testing.TB, o world.Options, init ...string) *house {
	t.Helper()
	o.Real = true
	w, err := world.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if err := w.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, w: w, dir: t.TempDir()}
	at, _ := w.RouterLAN()
	h.must(append([]string{"init", "--yes", "--router", at.String(), "--endpoint", world.EndpointName, "--input", "reject"}, init...)...)
	h.must("apply", "--yes")
	if err := w.MapPort(home.DefaultPort); err != nil {
		t.Fatal(err)
	}
	h.must("peer", "add", "phone", "-o", h.file("phone.conf"))
	h.must("peer", "add", "tablet", "-o", h.file("tablet.conf"))
	return h
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }

func (h *house) heimweg(args ...string) (code int, out, said string) {
	h.t.Helper()
	var o, e bytes.Buffer
	env := Env{In: strings.NewReader(""), Out: &o, Err: &e, Terminal: tourTerminal{}, Dial: h.w.LaptopDial,
		Lookup: labLookup(h.w), Config: h.file("config"), Getenv: func(string) string { return "" }}
	if !h.silentISP {
		env.Upstream = h.upstream
	}
	before := h.w.Router.Stats().Execs
	code = Run(h.t.Context(), env, append([]string{"--home", h.file("home.toml")}, args...))
	h.trips = h.w.Router.Stats().Execs - before
	return code, o.String(), e.String()
}

func (h *house) must(args ...string) {
	h.t.Helper()
	if code, out, said := h.heimweg(args...); code != 0 {
		h.t.Fatalf("heimweg %v: exit code %d\n%s%s", args, code, out, said)
	}
}

// upstream is what an ISP router says that can be asked.
func (h *house) upstream(_ context.Context, _ home.Home, s *router.Snapshot) trace.Upstream {
	u := trace.Upstream{Asked: true, How: "UPnP", At: s.Time}
	if h.w.ISP == nil {
		return u
	}
	u.Public = h.w.ISP.Public()
	for _, m := range h.w.ISP.Mappings() {
		u.Mappings = append(u.Mappings, trace.Mapping{Proto: m.Proto, External: m.External, To: m.To})
	}
	return u
}

// sh changes something on the router behind heimweg's back.
func (h *house) sh(script string) {
	h.t.Helper()
	if out, said, code := h.w.Router.Sh(script); code != 0 {
		h.t.Fatalf("%s: exit code %d\n%s%s", script, code, out, said)
	}
}

func (h *house) read(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(h.file(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *house) edit(name, old, new string) {
	h.t.Helper()
	text := h.read(name)
	if !strings.Contains(text, old) {
		h.t.Fatalf("%s has no %q:\n%s", name, old, text)
	}
	if err := os.WriteFile(h.file(name), []byte(strings.Replace(text, old, new, 1)), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// reload is how a person makes changes of the files live.
const (
	firewallReload = "; uci commit firewall; /etc/init.d/firewall reload"
	tunnelAgain    = "; uci commit network; ubus call network reload; ifup wg0"
)

// trace asks heimweg.
func (h *house) trace(args ...string) trace.Trace {
	h.t.Helper()
	code, out, said := h.heimweg(append([]string{"trace", "--json"}, args...)...)
	var t trace.Trace
	if err := json.Unmarshal([]byte(out), &t); err != nil || t.Headline == "" {
		h.t.Fatalf("heimweg trace %v: exit code %d, %v\n%s%s", args, code, err, out, said)
	}
	if want := map[trace.Verdict]int{trace.Dies: 3}[t.Verdict]; code != want {
		h.t.Errorf("%s, and exit code %d", t.Verdict, code)
	}
	if h.trips > 3 {
		h.t.Errorf("%d round trips, allowed are 3", h.trips)
	}
	return t
}

// probe is one real packet: phone's conf, a target, and what the fabric saw.
type probe struct {
	h      *house
	conf   string // file; "" for phone.conf
	target netip.AddrPort
	src    netip.Addr // the phone's address inside, filled in
	since  uint64
}

// answerTime is how long a packet that dies silently is waited for. What lives
// answers in a few milliseconds.
const answerTime = 700 * time.Millisecond

// send lets the phone join and open a connection; true: an answer came, be it
// a refusal by the target itself.
func (p *probe) send() bool {
	h := p.h
	h.t.Helper()
	if p.conf == "" {
		p.conf = "phone.conf"
	}
	for _, f := range h.w.Fates() {
		p.since = max(p.since, f.Seq)
	}
	text := h.read(p.conf)
	for l := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(l, "Address = "); ok {
			for a := range strings.SplitSeq(strings.TrimSpace(v), ", ") {
				if x := netip.MustParsePrefix(a).Addr(); x.Is4() == p.target.Addr().Is4() {
					p.src = x
				}
			}
		}
	}
	if err := h.w.Phone.Join(text); err != nil {
		return false // the endpoint has no address: nothing is ever sent
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), answerTime)
	defer cancel()
	c, err := h.w.Phone.Dial(ctx, "tcp", p.target.String())
	if err == nil {
		c.Close()
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED) && p.answered() || strings.Contains(err.Error(), "refused") && p.answered()
}

// answered: the refusal came from the target and not from a router on the way.
func (p *probe) answered() bool {
	for _, f := range p.fates() {
		if f.Where == world.RouterName && f.Packet.Src == p.target.Addr() && f.Packet.Dst == p.src && f.Outcome == lab.Forwarded {
			return true
		}
		if f.Where == world.RouterName && f.Packet.Dst == p.target.Addr() && f.Packet.DstPort == p.target.Port() && f.Outcome == lab.Delivered {
			return true
		}
	}
	return false
}

func (p *probe) fates() (out []lab.Fate) {
	for _, f := range p.h.w.Fates() {
		if f.Seq > p.since {
			out = append(out, f)
		}
	}
	return out
}

// died reads from the fabric's record on which hop the packet ended. It knows
// nothing of trace's reasons.
func (p *probe) died() (id trace.ID, why string) {
	var outer, inner, answer []lab.Fate
	to := p.target.Addr()
	for _, f := range p.fates() {
		k := f.Packet
		fromPhone := f.Where == "phone" && f.Outcome == lab.Sent
		switch {
		case k.Dst == to && (k.DstPort == p.target.Port()) && k.Proto == lab.TCP:
			if fromPhone {
				return trace.Device, "it left the phone past the tunnel"
			}
			inner = append(inner, f)
		case k.Src == to && k.SrcPort == p.target.Port() && k.Proto == lab.TCP:
			answer = append(answer, f)
		case k.Proto == lab.UDP && (fromPhone || k.DstPort == 51820 || k.DstPort == 51821):
			outer = append(outer, f)
		}
	}
	switch {
	case len(answer) > 0:
		return p.answerDied(answer)
	case len(inner) > 0:
		return p.innerDied(inner)
	case len(outer) > 0:
		return p.outerDied(outer)
	}
	if p.src.IsValid() {
		return trace.Internet, "nothing left the phone"
	}
	return trace.Device, "nothing left the phone, which has no address"
}

func last(list []lab.Fate) lab.Fate { return list[len(list)-1] }

func (p *probe) outerDied(list []lab.Fate) (trace.ID, string) {
	// The fate of the packet that came furthest decides.
	for i := len(list) - 1; i >= 0; i-- {
		f := list[i]
		switch {
		case f.Where == world.RouterName && f.Outcome == lab.Delivered:
			return trace.Tunnel, f.String()
		case f.Where == world.RouterName && f.Outcome.Dead() && strings.Contains(f.Why, "nobody listens"):
			return trace.Tunnel, f.String()
		}
	}
	for i := len(list) - 1; i >= 0; i-- {
		f := list[i]
		switch {
		case !f.Outcome.Dead() && f.Outcome != lab.Delivered:
		case f.Where == world.RouterName:
			return trace.Door, f.String()
		case f.Where == "ISP router":
			return trace.ISPRouter, f.String()
		case f.Where == "uplink LAN" || f.Where == "home LAN" || f.Where == "laptop" || f.Where == "NAS":
			if f.Packet.Dst == world.UplinkWAN {
				return trace.Door, f.String() // nobody has the home router's own address
			}
			return trace.ISPRouter, f.String()
		default:
			return trace.Internet, f.String()
		}
	}
	return trace.Tunnel, last(list).String()
}

func (p *probe) innerDied(list []lab.Fate) (trace.ID, string) {
	for i := len(list) - 1; i >= 0; i-- {
		f := list[i]
		switch {
		case f.Where == "NAS" || f.Where == "second NAS" || f.Where == "web page" || f.Where == "laptop":
			return trace.Target, f.String()
		case !f.Outcome.Dead():
		case f.Where == world.RouterName:
			return trace.Home, f.String()
		case strings.HasSuffix(f.Where, "LAN"):
			return trace.LAN, f.String()
		default:
			return trace.Beyond, f.String()
		}
	}
	f := last(list)
	if f.Where == world.RouterName && f.Hook == "wg0" {
		return trace.Onward, f.String()
	}
	return trace.Home, f.String()
}

func (p *probe) answerDied(list []lab.Fate) (trace.ID, string) {
	from := list[0].Where
	for i := len(list) - 1; i >= 0; i-- {
		f := list[i]
		if f.Where != world.RouterName {
			continue
		}
		switch {
		case f.Outcome.Dead():
			return trace.AnswerHome, f.String()
		case f.Hook == "wg0":
			return trace.AnswerTunnel, f.String()
		}
		return trace.AnswerHome, f.String() // it left by another device
	}
	if from == "web page" || from == "ISP router" {
		return trace.Beyond, last(list).String()
	}
	return trace.Target, last(list).String()
}

// A broken world: what is broken, and what is asked then.
type broken struct {
	name   string
	world  world.Options
	init   []string
	do     func(h *house)
	args   []string // of trace; nil: phone NAS:445
	target string   // of the real packet; "": the NAS's 445
	conf   string   // the phone's file, given to trace, too
	cause  trace.Cause
	cured  bool // `heimweg apply` is the remedy, and works
}

var nasPort = uint16(445)

func (b *broken) run(t *testing.T) {
	t.Parallel()
	h := newHouse(t, b.world, b.init...)
	if b.do != nil {
		b.do(h)
	}
	target := netip.AddrPortFrom(h.w.NAS.Addr(), nasPort)
	if b.target != "" {
		target = netip.MustParseAddrPort(b.target)
	}
	args := b.args
	if args == nil {
		args = []string{"phone", target.String()}
	}
	if b.conf != "" {
		args = append(args, "--conf", h.file(b.conf))
	}
	got := h.trace(args...)
	p := probe{h: h, conf: b.conf, target: target}
	lives := p.send()
	id, why := p.died()
	switch {
	case lives:
		t.Fatalf("the packet lives, and trace says %q at %s\n%s", got.Headline, got.Head(), h.w.WhereDied(nil))
	case got.Head() != id:
		t.Errorf("trace says it dies on hop %q (%s), the fabric says on %q: %s\n%s", got.Head(), got.Headline, id, why, h.w.WhereDied(nil))
	}
	if got.Death == nil {
		if b.cause != "" {
			t.Errorf("not dead, want %s: %s\n%v", b.cause, got.Headline, got.Unknown)
		}
	} else if got.Death.Cause != b.cause {
		t.Errorf("cause %q, want %q: %s", got.Death.Cause, b.cause, got.Headline)
	}
	if got.Death != nil && len(got.Remedies) == 0 {
		t.Errorf("no remedy for %q", got.Headline)
	}
	if b.cured != (len(got.Remedies) > 0 && got.Remedies[0].Do == "heimweg apply") {
		t.Errorf("remedies: %+v", got.Remedies)
	}
	if b.cured {
		b.cure(h)
	}
	t.Logf("%s\n%+v", got.Headline, got.Remedies)
}

// cure does what trace advised, and sends again.
func (b *broken) cure(h *house) {
	h.t.Helper()
	h.must("apply", "--yes", "--accept-risk=drops-peers,pauses-network,drops-connection")
	p := probe{h: h, conf: b.conf, target: netip.AddrPortFrom(h.w.NAS.Addr(), nasPort)}
	if !p.send() {
		h.t.Errorf("after heimweg apply:\n%s", h.w.WhereDied(nil))
	}
}

var _ = net.ErrClosed
var _ = phone.Place{}

// The healthy home, on every release: trace says it lives, and the packet
// arrives.
func TestTraceHealthy(t *testing.T) {
	for _, line := range router.Lines() {
		t.Run(line.String(), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, world.Options{Line: line})
			got := h.trace("phone", "192.168.1.10:445")
			p := probe{h: h, target: netip.AddrPortFrom(h.w.NAS.Addr(), nasPort)}
			if lives := p.send(); !lives || got.Verdict != trace.Passes {
				t.Errorf("lives: %v; trace: %s\n%+v\n%s", lives, got.Headline, got.Unknown, h.w.WhereDied(nil))
			}
			if h.trips != 2 {
				t.Errorf("%d round trips", h.trips)
			}
			if _, out, _ := h.heimweg("trace", "phone", "192.168.1.10:445", "--reply"); true {
				t.Log("\n" + out)
			}
		})
	}
}
