package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/nas"
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

// newHouse is a home that heimweg has set up. Worlds of one kind are set up once;
// the others of that kind begin with a copy of its files.
func newHouse(t testing.TB, o world.Options, init ...string) *house {
	t.Helper()
	o.Real = true
	entry, _ := furnished.LoadOrStore(fmt.Sprintf("%+v %q", o, init), new(furniture))
	f := entry.(*furniture)
	if o.Uplink != home.Behind || o.LANs > 1 {
		f = new(furniture) // somebody's hands are in those, too
	}
	var h *house
	f.once.Do(func() {
		h = switchOn(t, o)
		h.setUp(init)
		f.takeFrom(h)
	})
	if h == nil {
		o.Router.Files, o.Router.Packages = f.router, []string{"wireguard-tools", "ip-tiny"}
		h = switchOn(t, o)
		f.putInto(h)
	}
	// Applying may have taken the WAN side down for a moment.
	if err := errors.Join(h.w.WaitReady(t.Context()), h.w.MapPort(home.DefaultPort)); err != nil {
		t.Fatalf("%v\n%s\nthe box says:\n%s", err, h.w.WhereDied(nil), strings.Join(h.w.Router.Log(), "\n"))
	}
	return h
}

func switchOn(t testing.TB, o world.Options) *house {
	t.Helper()
	w, err := world.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if err := w.WaitReady(t.Context()); err != nil {
		t.Fatalf("%v\n%s\nthe box says:\n%s", err, w.WhereDied(nil), strings.Join(w.Router.Log(), "\n"))
	}
	return &house{t: t, w: w, dir: t.TempDir()}
}

func (h *house) setUp(init []string) {
	h.t.Helper()
	at, _ := h.w.RouterLAN()
	h.must(append([]string{"init", "--yes", "--router", at.String(), "--endpoint", world.EndpointName, "--input", "reject"}, init...)...)
	h.must("apply", "--yes")
	h.must("peer", "add", "phone", "-o", h.file("phone.conf"))
	h.must("peer", "add", "tablet", "-o", h.file("tablet.conf"))
}

// furniture is what a home holds once heimweg has set it up.
type furniture struct {
	once   sync.Once
	router map[string]string // the router's files, by absolute name
	home   map[string][]byte // the computer's, below its folder
}

var furnished sync.Map // of *furniture, by what kind of home it is

func (f *furniture) takeFrom(h *house) {
	h.t.Helper()
	fs := h.w.Router.FS()
	f.router, f.home = map[string]string{}, map[string][]byte{}
	for _, dir := range []string{"/etc/config", "/etc/dropbear", "/etc/heimweg"} {
		list, err := fs.ReadDir(dir)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, e := range list {
			if e.IsDir() {
				continue
			}
			text, err := fs.ReadFile(dir + "/" + e.Base)
			if err != nil {
				h.t.Fatal(err)
			}
			f.router[dir+"/"+e.Base] = string(text)
		}
	}
	shadow, err := fs.ReadFile("/etc/shadow")
	if err != nil {
		h.t.Fatal(err)
	}
	f.router["/etc/shadow"] = string(shadow)
	err = filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			f.home[strings.TrimPrefix(path, h.dir)], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (f *furniture) putInto(h *house) {
	h.t.Helper()
	for name, text := range f.home {
		err := errors.Join(os.MkdirAll(filepath.Dir(h.dir+name), 0o700), os.WriteFile(h.dir+name, text, 0o600))
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }

func (h *house) heimweg(args ...string) (code int, out, said string) {
	h.t.Helper()
	var o, e bytes.Buffer
	env := Env{In: strings.NewReader(""), Out: &o, Err: &e, Terminal: tourTerminal{}, Dial: h.w.LaptopDial,
		Lookup: labLookup(h.w), Config: h.file("config"), Getenv: func(string) string { return "" }, AtHome: atHome(h.w)}
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
	u := trace.Upstream{Asked: true, How: "UPnP", At: s.Time, RoutesKnown: true}
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

// lifeTime is how long one is waited for that should live.
const lifeTime = 15 * time.Second

// send lets the phone join and open a connection; true: an answer came, be it
// a refusal by the target itself.
func (p *probe) send(wait time.Duration) bool {
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
	ctx, cancel := context.WithTimeout(h.t.Context(), wait)
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
	case len(answer) > 0 && !slices.ContainsFunc(inner, func(f lab.Fate) bool { return f.Outcome == lab.Rejected && f.Where == world.RouterName }):
		return p.answerDied(answer) // a refusal by a router on the way is no answer
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
		case f.Where == world.RouterName && f.Outcome.Dead() && strings.Contains(f.Why, "no program listens"):
			return trace.Tunnel, f.String()
		}
	}
	passedOn := slices.ContainsFunc(list, func(f lab.Fate) bool { return f.Where == world.RouterName && f.Outcome == lab.Forwarded })
	for i := len(list) - 1; i >= 0; i-- {
		f := list[i]
		switch {
		case !f.Outcome.Dead() && f.Outcome != lab.Delivered:
		case f.Where == world.RouterName:
			return trace.Door, f.String()
		case f.Where == "ISP router":
			return trace.ISPRouter, f.String()
		case f.Where == "NAS" && passedOn:
			return trace.Door, f.String()
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
	cured  bool // `heimweg apply` is the remedy
	nobody bool // the target is not there, so that no remedy can be tried out
}

var nasPort = uint16(445)

func (b *broken) run(t *testing.T) {
	h := newHouse(t, b.world, b.init...)
	if b.do != nil {
		b.do(h)
	}
	target := netip.AddrPortFrom(h.w.NAS.Addr(), nasPort)
	if b.target != "" {
		target = h.addrPort(b.target)
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
	lives := p.send(answerTime)
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
	if len(got.Remedies) > 0 && !b.nobody {
		b.cure(h, target, got.Remedies[0].Do)
	}
	t.Logf("%s\n%+v", got.Headline, got.Remedies)
}

// addrPort reads a target; "router" and "tablet" stand for their tunnel addresses,
// fdlan for a device of the home LAN's IPv6 network.
func (h *house) addrPort(s string) netip.AddrPort {
	h.t.Helper()
	name, port, _ := strings.Cut(s, ":")
	switch name {
	case "router":
		return netip.MustParseAddrPort(h.tunnelAddr(1).String() + ":" + port)
	case "tablet":
		return netip.MustParseAddrPort(h.tunnelAddr(3).String() + ":" + port)
	case "[fdlan]":
		for _, p := range h.w.Router.Stack().Addrs("br-lan") {
			if a := p.Addr().As16(); p.Addr().Is6() {
				a[15] = 10
				return netip.MustParseAddrPort("[" + netip.AddrFrom16(a).String() + "]:" + port)
			}
		}
		h.t.Fatal("the home LAN has no IPv6 network")
	}
	return netip.MustParseAddrPort(s)
}

// cure does what trace advised when that is a command that needs nobody's hands,
// and sends again.
func (b *broken) cure(h *house, target netip.AddrPort, do string) {
	h.t.Helper()
	p := probe{h: h, conf: b.conf, target: target}
	switch {
	case do == "heimweg apply":
		h.must("apply", "--yes", "--accept-risk=drops-peers,pauses-network,drops-connection")
	case strings.HasPrefix(do, "heimweg peer enable "):
		h.must(strings.Fields(do)[1:]...)
	case strings.HasPrefix(do, "heimweg peer renew "):
		h.must(append(strings.Fields(do)[1:], "-o", h.file("renewed.conf"))...)
		if strings.HasSuffix(do, " phone") {
			p.conf = "renewed.conf"
		}
	default:
		return
	}
	if !p.send(lifeTime) {
		id, why := p.died()
		h.t.Errorf("after %s it dies on %q: %s\n%s", do, id, why, h.w.WhereDied(nil))
	}
}

// The healthy home, on every release: trace says it lives, and the packet
// arrives.
func TestTraceHealthy(t *testing.T) {
	for _, line := range router.Lines() {
		t.Run(line.String(), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, world.Options{Line: line})
			got := h.trace("phone", "192.168.1.10:445")
			p := probe{h: h, target: netip.AddrPortFrom(h.w.NAS.Addr(), nasPort)}
			if lives := p.send(lifeTime); !lives || got.Verdict != trace.Passes {
				t.Errorf("lives: %v; trace: %s\n%+v\n%s", lives, got.Headline, got.Unknown, h.w.WhereDied(nil))
			}
			if h.trips != 2 {
				t.Errorf("%d round trips", h.trips)
			}
		})
	}
}

// behind and oneArmed are the usual homes.
var oneArmed = world.Options{Uplink: home.OneArmed}

func sh(script string) func(*house) { return func(h *house) { h.sh(script) } }

// withoutNAT lets LAN devices see the phones' own addresses.
func withoutNAT(h *house) {
	h.edit("home.toml", "nat-to-lan = true", "nat-to-lan = false")
	h.must("apply", "--yes")
}

// tunnelAddr is the n-th address of the household's tunnel network.
func (h *house) tunnelAddr(n uint32) netip.Addr {
	f, err := home.Parse("home.toml", []byte(h.read("home.toml")))
	if err != nil {
		h.t.Fatal(err)
	}
	return f.Home.Tunnel.Network.Host(n).Addr()
}

func brokenWorlds() []broken {
	const web = "192.0.2.80:80"
	rule := func(options string) func(*house) {
		return sh("uci batch <<EOF\nset firewall.own=rule\n" + options + "\nEOF\nuci reorder firewall.own=3" + firewallReload)
	}
	return []broken{
		// The home router's firewall, behind the tunnel.
		{name: "no forwarding", do: sh("uci delete firewall.hw_fwd_lan" + firewallReload), cause: trace.Refused, cured: true},
		{name: "forwarding switched off", do: sh("uci set firewall.hw_fwd_lan.enabled=0" + firewallReload), cause: trace.Refused, cured: true},
		{name: "forwarding the other way", do: sh("uci set firewall.hw_fwd_lan.src=lan; uci set firewall.hw_fwd_lan.dest=vpn" + firewallReload), cause: trace.Refused, cured: true},
		{name: "forwarding to a zone that is misspelt", do: sh("uci set firewall.hw_fwd_lan.dest=lann" + firewallReload), cause: trace.Refused, cured: true},
		{name: "forwarding to wan only", do: sh("uci set firewall.hw_fwd_lan.dest=wan" + firewallReload), cause: trace.Refused, cured: true},
		{name: "zone does not hold wg0", do: sh("uci delete firewall.hw_zone.network" + firewallReload), cause: trace.Refused, cured: true},
		{name: "zone holds wg1", do: sh("uci delete firewall.hw_zone.network; uci add_list firewall.hw_zone.network=wg1" + firewallReload), cause: trace.Refused, cured: true},
		{name: "wg0 is in zone wan", do: sh("uci delete firewall.hw_zone.network; uci add_list firewall.@zone[1].network=wg0" + firewallReload), cause: trace.Refused, cured: true},
		{name: "own rule refuses tcp 445", do: rule("set firewall.own.src=vpn\nset firewall.own.dest=lan\nset firewall.own.proto=tcp\nset firewall.own.dest_port=445\nset firewall.own.target=REJECT"), cause: trace.Refused},
		{name: "own rule drops all to the NAS", do: rule("set firewall.own.src=*\nset firewall.own.dest=lan\nset firewall.own.dest_ip=192.168.1.10\nset firewall.own.proto=all\nset firewall.own.target=DROP"), cause: trace.Refused},
		{name: "rule written after the forwarding still wins", do: sh("uci batch <<EOF\nset firewall.own=rule\nset firewall.own.src=vpn\nset firewall.own.dest=*\nset firewall.own.proto=tcp\nset firewall.own.target=DROP\nEOF\ntrue" + firewallReload), cause: trace.Refused},
		{name: "peer to peer", do: nil, args: []string{"phone", "tablet:80"}, target: "tablet:80", cause: trace.Refused},
		{name: "the router's own SSH", args: []string{"phone", "router:22"}, target: "router:22", cause: trace.Refused},
		{name: "a route that leads past the LAN", do: sh("uci batch <<EOF\nset network.odd=route\nset network.odd.interface=wan\nset network.odd.target=192.168.1.10/32\nset network.odd.gateway=192.168.2.254\nEOF\nuci commit network; ubus call network reload"), cause: trace.Refused},

		// Its door.
		{name: "no rule on wan", do: sh("uci delete firewall.hw_wg_in" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "rule on wan switched off", do: sh("uci set firewall.hw_wg_in.enabled=0" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "rule for another port", do: sh("uci set firewall.hw_wg_in.dest_port=51821" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "rule for tcp", do: sh("uci set firewall.hw_wg_in.proto=tcp" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "rule for the wrong side", do: sh("uci set firewall.hw_wg_in.src=lan" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "rule with a port that is none", do: sh("uci set firewall.hw_wg_in.dest_port=99999" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "rule for IPv6 only", do: sh("uci set firewall.hw_wg_in.family=ipv6" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "redirect without dest_ip instead of a rule", do: sh("uci delete firewall.hw_wg_in; uci batch <<EOF\nset firewall.pf=redirect\nset firewall.pf.src=wan\nset firewall.pf.proto=udp\nset firewall.pf.src_dport=51820\nset firewall.pf.target=DNAT\nEOF\ntrue" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "own rule drops the port first", do: sh("uci batch <<EOF\nset firewall.own=rule\nset firewall.own.src=wan\nset firewall.own.proto=udp\nset firewall.own.dest_port=51820\nset firewall.own.target=DROP\nEOF\nuci reorder firewall.own=3" + firewallReload), cause: trace.DoorClosed},
		{name: "port forward to the NAS takes the port", do: sh("uci batch <<EOF\nset firewall.pf=redirect\nset firewall.pf.src=wan\nset firewall.pf.dest=lan\nset firewall.pf.dest_ip=192.168.1.10\nset firewall.pf.proto=udp\nset firewall.pf.src_dport=51820\nset firewall.pf.target=DNAT\nEOF\ntrue" + firewallReload), cause: trace.MappedElsewhere},
		{name: "wan is down", do: sh("ifdown wan"), cause: trace.NoUplink},

		// Before it.
		{name: "no mapping", do: func(h *house) { h.w.ISP.Unmap("udp", 51820) }, cause: trace.NoMapping},
		{name: "mapped to an address that nobody has", do: func(h *house) { h.w.ISP.Map("udp", 51820, netip.MustParseAddrPort("192.168.2.17:51820")) }, cause: trace.MappedElsewhere},
		{name: "mapped to another port", do: func(h *house) { h.w.ISP.Map("udp", 51820, netip.MustParseAddrPort("192.168.2.253:51821")) }, cause: trace.MappedPort},
		{name: "mapped for tcp", do: func(h *house) {
			h.w.ISP.Unmap("udp", 51820)
			h.w.ISP.Map("tcp", 51820, netip.MustParseAddrPort("192.168.2.253:51820"))
		}, cause: trace.NoMapping},
		{name: "one-armed, mapped to the NAS", world: oneArmed, do: func(h *house) { h.w.ISP.Map("udp", 51820, netip.AddrPortFrom(h.w.NAS.Addr(), 51820)) }, cause: trace.MappedElsewhere},
		{name: "the name leads elsewhere", do: func(h *house) { h.w.Name(world.EndpointName, netip.MustParseAddr("203.0.113.99")) }, cause: trace.NameElsewhere},
		{name: "the name has no address", do: func(h *house) { h.w.Name(world.EndpointName, netip.Addr{}) }, cause: trace.NoName},
		{name: "the name leads to a private address", do: func(h *house) { h.w.Name(world.EndpointName, netip.MustParseAddr("192.168.2.253")) }, cause: trace.NamePrivate},

		// WireGuard.
		{name: "tunnel down", do: sh("ifdown wg0"), cause: trace.TunnelDown, cured: true},
		{name: "tunnel disabled", do: sh("uci set network.wg0.disabled=1; uci commit network; ubus call network reload"), cause: trace.TunnelDown, cured: true},
		{name: "tunnel on another port", do: sh("uci set network.wg0.listen_port=51821" + tunnelAgain), cause: trace.NobodyListens, cured: true},
		{name: "the router has a new key", do: sh("uci set network.wg0.private_key=$(wg genkey)" + tunnelAgain), conf: "phone.conf", cause: trace.ServerKey},
		{name: "the phone has an old key", do: func(h *house) { h.must("peer", "renew", "phone", "-o", h.file("new.conf")) }, conf: "phone.conf", cause: trace.PeerKey},
		{name: "another preshared key in the phone", do: func(h *house) {
			h.edit("phone.conf", "PresharedKey = ", "PresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\n#")
		}, conf: "phone.conf", cause: trace.Preshared},
		{name: "no preshared key on the router", do: sh("uci delete network.hw_peer_phone.preshared_key" + tunnelAgain), cause: trace.Preshared},
		{name: "disabled in home.toml", do: func(h *house) { h.must("peer", "disable", "phone") }, cause: trace.PeerOff},
		{name: "disabled on the router", do: sh("uci set network.hw_peer_phone.disabled=1" + tunnelAgain), cause: trace.PeerOff, cured: true},
		{name: "disabled on 21.02", world: world.Options{Line: router.Line2102}, do: func(h *house) { h.must("peer", "disable", "phone") }, cause: trace.PeerOff},
		{name: "deleted on the router", do: sh("uci delete network.hw_peer_phone" + tunnelAgain), cause: trace.PeerMissing},
		{name: "in the file, not live", do: sh("wg set wg0 peer $(uci get network.hw_peer_phone.public_key) remove"), cause: trace.PeerNotLive, cured: true},
		{name: "the tablet took the phone's address", do: sh("uci add_list network.hw_peer_tablet.allowed_ips=$(uci get network.hw_peer_phone.allowed_ips | cut -d' ' -f1)" + tunnelAgain), cause: trace.NotItsSource, cured: true},
		{name: "the phone's address moved on the router", do: func(h *house) {
			h.sh("uci delete network.hw_peer_phone.allowed_ips; uci add_list network.hw_peer_phone.allowed_ips=" + h.tunnelAddr(9).String() + "/32" + tunnelAgain)
		}, cause: trace.NotItsSource, cured: true},
		{name: "a wide tablet swallows everybody", do: func(h *house) {
			h.sh("uci delete network.hw_peer_phone.allowed_ips; uci add_list network.hw_peer_tablet.allowed_ips=" + h.tunnelAddr(0).String() + "/24" + tunnelAgain)
		}, cause: trace.NotItsSource, cured: true},
		{name: "two peers with one key", do: sh("uci set network.hw_peer_tablet.public_key=$(uci get network.hw_peer_phone.public_key); uci delete network.hw_peer_tablet.preshared_key; uci set network.hw_peer_tablet.preshared_key=$(uci get network.hw_peer_phone.preshared_key)" + tunnelAgain), cause: trace.NotItsSource},
		{name: "the phone has another address", do: func(h *house) {
			h.edit("phone.conf", h.tunnelAddr(2).String()+"/32", h.tunnelAddr(77).String()+"/32")
		}, conf: "phone.conf", cause: trace.NotItsSource},
		{name: "wg0 has a /32", do: func(h *house) {
			h.sh("uci delete network.wg0.addresses; uci add_list network.wg0.addresses=" + h.tunnelAddr(1).String() + "/32" + tunnelAgain)
		}, cause: trace.AnswerAstray, cured: true},

		// The phone.
		{name: "AllowedIPs too narrow", do: func(h *house) { h.edit("phone.conf", ", 192.168.1.0/24", "") }, conf: "phone.conf", cause: trace.NotAllowedIPs},
		{name: "AllowedIPs with the wrong mask", do: func(h *house) { h.edit("phone.conf", "192.168.1.0/24", "192.168.1.128/25") }, conf: "phone.conf", cause: trace.NotAllowedIPs},
		{name: "the uplink LAN is not allowed", target: "192.168.2.254:80", cause: trace.NotAllowedIPs},

		// Behind the home router.
		{name: "NAS without a gateway", world: world.Options{NASWithoutGateway: true}, do: withoutNAT, cause: trace.NoWayBack},
		{name: "NAS with another gateway", do: func(h *house) {
			withoutNAT(h)
			h.w.NAS.SetGateway(netip.MustParseAddr("192.168.1.50"))
		}, cause: trace.NoWayBack},
		{name: "one-armed without NAT", world: oneArmed, do: sh("uci delete firewall.hw_nat_lan" + firewallReload), cause: trace.NoWayBack, cured: true},
		{name: "one-armed, LAN closed", world: oneArmed, do: sh("uci batch <<EOF\nset firewall.ssh=rule\nset firewall.ssh.src=lan\nset firewall.ssh.proto=tcp\nset firewall.ssh.dest_port=22\nset firewall.ssh.target=ACCEPT\nset firewall.@zone[0].input=REJECT\nEOF\ntrue" + firewallReload), cause: trace.DoorClosed, cured: true},
		{name: "NAS switched off", do: func(h *house) { h.w.NAS.Close() }, cause: trace.NobodyThere},
		{name: "nobody has that address", target: "192.168.1.77:445", cause: trace.NobodyThere},
		{name: "full tunnel without a way to wan", init: []string{"--reach", "home-lan,internet"}, do: sh("uci delete firewall.hw_fwd_wan" + firewallReload), target: web, cause: trace.Refused, cured: true},
		{name: "full tunnel without masquerading", init: []string{"--reach", "home-lan,internet"}, do: sh("uci set firewall.@zone[1].masq=0" + firewallReload), target: web, cause: trace.NoWayBack},
		{name: "IPv6 only half open", init: []string{"--reach", "home-lan,internet"}, do: sh("uci set firewall.hw_fwd_lan.family=ipv4" + firewallReload), target: "[fdlan]:445", cause: trace.Refused, cured: true, nobody: true},
	}
}

// Each world is broken in one way; trace names the hop where the fabric's record
// says that the packet died, and the remedy works.
func TestTraceBrokenWorlds(t *testing.T) {
	t.Parallel()
	list := brokenWorlds()
	if len(list) < 40 {
		t.Errorf("only %d worlds", len(list))
	}
	// Packets that die silently are waited for: many worlds wait at a time.
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, b := range list {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			t.Run(b.name, b.run)
		})
	}
	all.Wait()
}

// Two phones with one key: detected and explained. One phone that changes its
// address is no such thing: its download goes on, and trace is content.
func TestTraceSharedKeyAndRoaming(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{})
	w := h.w
	if err := w.Phone.Join(h.read("phone.conf")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	type result struct {
		n   int
		err error
	}
	if _, err := w.Phone.Ping(ctx, w.NAS.Addr()); err != nil {
		t.Fatal(err)
	}
	w.Home.Latency(3 * time.Millisecond) // so that the download is still under way
	done := make(chan result, 1)
	seen := len(w.NAS.Seen())
	go func() {
		page, err := w.Phone.Get(ctx, "http://"+w.NAS.Addr().String()+"/big")
		done <- result{len(page), err}
	}()
	for len(w.NAS.Seen()) == seen { // the download has begun
		select {
		case r := <-done:
			t.Fatalf("over before it began: %+v", r)
		case <-time.After(time.Millisecond):
		}
	}
	w.Phone.Roam(w.AtHotel())
	r := <-done
	if r.err != nil || r.n != nas.BigPage {
		t.Fatalf("the download broke off when the phone changed its address: %d bytes, %v", r.n, r.err)
	}
	w.Home.Latency(0)
	got := h.trace("phone", "192.168.1.10")
	if got.Verdict != trace.Passes || h.trips != 3 {
		t.Errorf("after roaming: %s, %d round trips", got.Headline, h.trips)
	}

	other := phone.New(w.World, "other phone", w.MobileData())
	defer other.Close()
	if err := other.Join(h.read("phone.conf")); err != nil {
		t.Fatal(err)
	}
	defer w.Phone.KeepPinging(w.NAS.Addr(), 100*time.Millisecond).Stop()
	defer other.KeepPinging(w.NAS.Addr(), 130*time.Millisecond).Stop()
	for got.Death == nil && ctx.Err() == nil {
		got = h.trace("phone", "192.168.1.10")
	}
	if got.Death == nil || got.Death.Cause != trace.SharedKey || !strings.Contains(got.Headline, "two devices use the key of phone") {
		t.Errorf("%s\n%+v", got.Headline, got.Death)
	}
	t.Logf("%s\n%+v\n%+v", got.Headline, got.Death, got.Remedies)
}

// Without anybody to ask about the ISP router its hop is not known, and nothing
// turns green; a fresh handshake from outside is proof.
func TestTraceUnknownUpstream(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{})
	h.silentISP = true
	got := h.trace("phone", "192.168.1.10:445")
	if got.Verdict != trace.Unknown || got.Head() != trace.ISPRouter || len(got.Unknown) != 1 {
		t.Errorf("%s: %s at %s, %v", got.Verdict, got.Headline, got.Head(), got.Unknown)
	}
	p := probe{h: h, target: netip.AddrPortFrom(h.w.NAS.Addr(), nasPort)}
	if !p.send(lifeTime) {
		t.Fatal(h.w.WhereDied(nil))
	}
	if got = h.trace("phone", "192.168.1.10:445"); got.Verdict != trace.Passes {
		t.Errorf("after a handshake from outside: %s, %v", got.Headline, got.Unknown)
	}
}

// Packets of hosts that are no peers, sent by the lab's own stacks.
func TestTraceFromHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{})
	guest := lab.NewStack(h.w.World, "guest")
	guest.Configure([]lab.Iface{{Dev: "eth0", Link: h.w.Uplink, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.2.7/24")}}},
		[]lab.Route{{Dst: netip.MustParsePrefix("192.168.1.0/24"), Via: world.UplinkWAN, Dev: "eth0"}})
	for _, c := range []struct {
		to    string
		flags []string
		lives bool
		cause trace.Cause
	}{
		{"192.168.1.10:445", nil, false, trace.Refused},
		{"192.168.2.253:51820", []string{"--udp", "51820"}, true, ""},
		{"192.168.2.253:22", nil, false, trace.Refused},
		{"192.168.2.254:80", nil, true, ""},
	} {
		to := netip.MustParseAddrPort(c.to)
		args := append([]string{"--from", "192.168.2.7", "--to", c.to}, c.flags...)
		if c.flags != nil {
			args = append([]string{"--from", "192.168.2.7", "--to", to.Addr().String()}, c.flags...)
		}
		got := h.trace(args...)
		if (got.Death == nil) != c.lives || got.Death != nil && got.Death.Cause != c.cause {
			t.Errorf("%s: %s", c.to, got.Headline)
		}
		since := h.newest()
		if c.flags != nil {
			guest.Emit(lab.BuildUDP(netip.MustParseAddrPort("192.168.2.7:4711"), to, []byte("knock")))
		} else {
			ctx, cancel := context.WithTimeout(t.Context(), answerTime)
			if conn, err := guest.Dial(ctx, "tcp", to.String()); err == nil {
				conn.Close()
			}
			cancel()
		}
		if died := h.diedSince(t, since, to); died == c.lives {
			t.Errorf("%s: the fabric says that it died: %v", c.to, died)
		}
	}
}

// newest is the place of the record's newest line.
func (h *house) newest() uint64 {
	all := h.w.Fates()
	return all[len(all)-1].Seq
}

// diedSince waits for the end of a packet to an address, and tells whether it
// died on the home router.
func (h *house) diedSince(t *testing.T, since uint64, to netip.AddrPort) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, f := range h.w.Fates() {
			if f.Seq <= since || f.Packet.Dst != to.Addr() || f.Packet.DstPort != to.Port() {
				continue
			}
			if f.Outcome == lab.Delivered || f.Outcome == lab.Rejected && strings.Contains(f.Why, "no program") {
				return false
			}
			if f.Outcome.Dead() {
				return f.Where == world.RouterName
			}
		}
		<-time.After(time.Millisecond)
	}
	t.Fatalf("nothing is known of a packet to %s", to)
	return false
}

// A rule for IPv4 only, and a packet over IPv6 to a home router with a public
// address of its own.
func TestTraceHalfOpenDoor(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{Uplink: home.Direct})
	h.sh("uci batch <<EOF\nset network.six=interface\nset network.six.device=wan\nset network.six.proto=static\nadd_list network.six.ip6addr=2001:db8:1::253/64\nadd_list firewall.@zone[1].network=six\nEOF\nuci commit; ubus call network reload; /etc/init.d/firewall reload")
	outside := lab.NewStack(h.w.World, "outside over IPv6")
	outside.Configure([]lab.Iface{{Dev: "eth0", Link: h.w.ISPLine, Addrs: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::9/64")}}}, nil)
	to := netip.MustParseAddrPort("[2001:db8:1::253]:51820")
	for _, open := range []bool{true, false} {
		if !open {
			h.sh("uci set firewall.hw_wg_in.family=ipv4" + firewallReload)
		}
		got := h.trace("--from", "2001:db8:1::9", "--to", to.Addr().String(), "--udp", "51820")
		since := h.newest()
		outside.Emit(lab.BuildUDP(netip.MustParseAddrPort("[2001:db8:1::9]:4711"), to, []byte("knock")))
		died := h.diedSince(t, since, to)
		if died == open || (got.Death == nil) != open {
			t.Errorf("open %v: the fabric says dead %v, trace: %s", open, died, got.Headline)
		}
		if !open && got.Head() != trace.Home {
			t.Errorf("dies at %s", got.Head())
		}
	}
}
