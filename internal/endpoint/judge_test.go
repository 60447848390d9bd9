package endpoint

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/subnet"
)

var update = flag.Bool("update", false, "rewrite testdata")

func at(s string) Address { return Is(netip.MustParseAddr(s)) }

// behind is the usual home: one ISP router, whose own address is outer.
func behind(outer Address) Facts {
	return Facts{
		Port: 51820, WAN: at("192.168.2.253"),
		Boxes: []Box{{Inside: at("192.168.2.254"), Outer: outer, By: "UPnP"}},
	}
}

func with(f Facts, change func(*Facts)) Facts {
	change(&f)
	return f
}

func names(a ...string) Names {
	var out []netip.Addr
	for _, s := range a {
		out = append(out, netip.MustParseAddr(s))
	}
	return Says(out...)
}

var six = at("2001:db8:7:0:20d:b9ff:fe41:1234")

// homes are the connections that households have.
var homes = []struct {
	name   string
	facts  Facts
	kind   Kind
	proven bool
	host   string // what peers should call; "" when home cannot be called
}{
	{"nothing is known", Facts{Port: 51820}, Unclear, false, ""},
	{"directly on the internet", Facts{Direct: true, Port: 51820, WAN: at("203.0.113.7")}, Public, false, "203.0.113.7"},
	{"directly, seen from outside", Facts{Direct: true, Port: 51820, WAN: at("203.0.113.7"), STUN: at("203.0.113.7")}, Public, true, "203.0.113.7"},
	{"behind an ISP router that tells", behind(at("203.0.113.7")), Public, false, "203.0.113.7"},
	{"behind an ISP router, seen by both", with(behind(at("203.0.113.7")), func(f *Facts) { f.STUN, f.Web = f.Boxes[0].Outer, f.Boxes[0].Outer }), Public, true, "203.0.113.7"},
	{"behind, another port outside", with(behind(at("203.0.113.7")), func(f *Facts) { f.Port, f.Inner = 443, 51820 }), Public, false, "203.0.113.7"},
	{"dual stack", with(behind(at("203.0.113.7")), func(f *Facts) { f.STUN, f.WAN6 = at("203.0.113.7"), six }), Public, true, "203.0.113.7"},
	{"with a name that is right", with(behind(at("203.0.113.7")), func(f *Facts) {
		f.Name, f.A, f.AAAA = "home.example.net", names("203.0.113.7"), Says()
	}), Public, false, "home.example.net"},
	{"with a name that is stale", with(behind(at("203.0.113.90")), func(f *Facts) {
		f.Name, f.A, f.AAAA = "home.example.net", names("203.0.113.7"), Says()
	}), Public, false, "home.example.net"},
	{"with a name without address", with(behind(at("203.0.113.7")), func(f *Facts) {
		f.Name, f.A, f.AAAA = "home.example.net", Says(), Says()
	}), Public, false, "home.example.net"},
	{"an address that changes", with(behind(at("203.0.113.90")), func(f *Facts) {
		f.Earlier = []Sighting{{time.Unix(0, 0), netip.MustParseAddr("203.0.113.7")}}
	}), Public, false, "203.0.113.90"},
	{"an address that stayed", with(behind(at("203.0.113.7")), func(f *Facts) {
		f.Earlier = []Sighting{{time.Unix(0, 0), netip.MustParseAddr("203.0.113.7")}}
	}), Public, false, "203.0.113.7"},
	{"the ISP router does not tell", with(behind(NotKnown("UPnP is switched off")), func(f *Facts) { f.STUN = at("203.0.113.7") }), Unclear, false, "203.0.113.7"},
	{"nobody asked anybody", with(behind(Address{}), func(f *Facts) { f.Boxes = nil }), Unclear, false, ""},
	{"said to be direct, but private", Facts{Direct: true, Port: 51820, WAN: at("10.3.0.2")}, Unclear, false, ""},
	{"double NAT", with(behind(at("192.168.178.20")), func(f *Facts) { f.STUN = at("203.0.113.7") }), DoubleNAT, false, "203.0.113.7"},
	{"double NAT, nobody outside asked", behind(at("10.0.0.5")), DoubleNAT, false, ""},
	{"double NAT, both boxes tell", with(behind(at("192.168.178.20")), func(f *Facts) {
		f.Boxes = append(f.Boxes, Box{Name: "modem router", Inside: at("192.168.178.1"), Outer: at("203.0.113.7"), By: "NAT-PMP"})
		f.STUN = at("203.0.113.7")
	}), DoubleNAT, false, "203.0.113.7"},
	{"double NAT before a carrier's", with(behind(at("192.168.178.20")), func(f *Facts) {
		f.Boxes = append(f.Boxes, Box{Outer: at("100.64.9.9")})
	}), CGNAT, false, ""},
	{"CGNAT by the address", with(behind(at("100.72.3.4")), func(f *Facts) { f.STUN = at("198.51.100.2") }), CGNAT, false, ""},
	{"CGNAT by the address, with IPv6", with(behind(at("100.72.3.4")), func(f *Facts) { f.WAN6 = six }), CGNAT, false, "2001:db8:7:0:20d:b9ff:fe41:1234"},
	{"CGNAT on the home router itself", Facts{Direct: true, Port: 51820, WAN: at("100.72.3.4")}, CGNAT, false, ""},
	{"CGNAT by differing addresses", with(behind(at("203.0.113.7")), func(f *Facts) { f.STUN = at("198.51.100.2") }), CGNAT, false, ""},
	{"CGNAT with a pool", with(behind(NotKnown("no answer")), func(f *Facts) { f.STUN, f.Web = at("198.51.100.2"), at("198.51.100.3") }), CGNAT, false, ""},
	{"CGNAT with a name that has both", with(behind(at("100.72.3.4")), func(f *Facts) {
		f.WAN6, f.Name, f.A, f.AAAA = six, "home.example.net", names("198.51.100.2"), names("2001:db8:7:0:20d:b9ff:fe41:1234")
	}), CGNAT, false, "home.example.net"},
	{"DS-Lite", with(behind(None()), func(f *Facts) { f.STUN, f.WAN6 = at("198.51.100.2"), six }), DSLite, false, "2001:db8:7:0:20d:b9ff:fe41:1234"},
	{"DS-Lite, told by the inner address", with(behind(at("192.0.0.2")), func(f *Facts) { f.WAN6 = six }), DSLite, false, "2001:db8:7:0:20d:b9ff:fe41:1234"},
	{"DS-Lite without IPv6 for the home router", with(behind(None()), func(f *Facts) { f.STUN, f.WAN6 = at("198.51.100.2"), None() }), DSLite, false, ""},
	{"IPv6 only", with(behind(None()), func(f *Facts) { f.STUN, f.WAN6 = None(), six }), IPv6Only, false, "2001:db8:7:0:20d:b9ff:fe41:1234"},
	{"IPv6 only, with a name", with(behind(None()), func(f *Facts) {
		f.STUN, f.WAN6, f.Name, f.A, f.AAAA = None(), six, "home.example.net", Says(), names("2001:db8:7:0:20d:b9ff:fe41:1234")
	}), IPv6Only, false, "home.example.net"},
	{"IPv6 only, with a stale name", with(behind(None()), func(f *Facts) {
		f.STUN, f.WAN6, f.Name, f.A, f.AAAA = None(), six, "home.example.net", Says(), names("2001:db8:6::1")
	}), IPv6Only, false, "home.example.net"},
	{"IPv6 only on the home router itself", Facts{Direct: true, Port: 51820, WAN: None(), WAN6: six}, IPv6Only, false, "2001:db8:7:0:20d:b9ff:fe41:1234"},
	{"IPv6 that leads nowhere", with(behind(at("100.72.3.4")), func(f *Facts) { f.WAN6, f.STUN6 = six, None() }), CGNAT, false, ""},
	{"the line is down", with(behind(None()), func(f *Facts) { f.WAN6 = None() }), Unclear, false, ""},
	{"a routed network, and the box has another address", with(behind(at("203.0.113.1")), func(f *Facts) { f.WAN = at("203.0.113.7") }), Unclear, false, "203.0.113.7"},
	{"a routed network, seen from outside", with(behind(at("203.0.113.1")), func(f *Facts) { f.WAN, f.STUN = at("203.0.113.7"), at("203.0.113.7") }), Public, true, "203.0.113.7"},
}

// tell writes a verdict as a person would read it.
func tell(v Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", v.Words())
	call := v.Endpoint.Host
	if call == "" {
		call = "nothing"
	}
	if v.Endpoint.IPv6 {
		call += ", over IPv6"
	}
	if v.Endpoint.Host != "" && !v.Endpoint.Sure {
		call += ", a guess"
	}
	fmt.Fprintf(&b, "call     %s\n", call)
	for _, l := range v.Levels {
		fmt.Fprintf(&b, "level    %s %s → %s\n", l.Box, l.Outer, l.To)
	}
	for _, s := range v.Seen {
		fmt.Fprintf(&b, "seen     %s\n", s)
	}
	for _, m := range v.Missing {
		fmt.Fprintf(&b, "missing  %s (%s)\n", m.Fact, m.Why)
	}
	for _, s := range v.Steps {
		fmt.Fprintf(&b, "do       %s: %s\n", s.ID, s.What)
	}
	return b.String()
}

func TestJudge(t *testing.T) {
	var got []txtar.File
	for _, h := range homes {
		v := Judge(h.facts)
		if v.Kind != h.kind || v.Proven != h.proven || v.Endpoint.Host != h.host {
			t.Errorf("%s: %s, proven %v, call %q; want %s, %v, %q", h.name, v.Kind, v.Proven, v.Endpoint.Host, h.kind, h.proven, h.host)
		}
		got = append(got, txtar.File{Name: h.name, Data: []byte(tell(v))})
		if _, err := json.Marshal(v); err != nil {
			t.Error(err)
		}
	}
	const file = "testdata/verdicts.txtar"
	text := txtar.Format(&txtar.Archive{Files: got})
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(text)); d != "" {
		t.Errorf("(-file +now):\n%s", d)
	}
}

var pool = []Address{
	{}, NotKnown("no answer"), None(), at("203.0.113.7"), at("203.0.113.8"), at("198.51.100.2"), at("192.168.2.253"), at("10.0.0.5"),
	at("100.64.1.2"), at("100.127.255.254"), at("192.0.0.2"), at("169.254.7.7"), at("2001:db8::7"), at("fd00::7"), at("fe80::1"),
}

func drawFacts(r *rand.Rand) Facts {
	pick := func() Address { return pool[r.IntN(len(pool))] }
	f := Facts{Direct: r.IntN(3) == 0, Port: 51820, WAN: pick(), WAN6: pick()}
	for range r.IntN(4) {
		f.Boxes = append(f.Boxes, Box{Inside: pick(), Outer: pick()})
	}
	for _, a := range []*Address{&f.STUN, &f.Web, &f.STUN6, &f.Web6} {
		if r.IntN(2) == 0 {
			*a = pick()
		}
	}
	if r.IntN(2) == 0 {
		f.Name = "home.example.net"
		for _, n := range []*Names{&f.A, &f.AAAA} {
			if a, ok := pick().Get(); ok {
				*n = Says(a)
			} else if r.IntN(2) == 0 {
				*n = Says()
			}
		}
	}
	if a, ok := pick().Get(); ok {
		f.Earlier = []Sighting{{Addr: a}}
	}
	return f
}

// Whatever the facts say: a verdict is never better than they allow.
func TestNeverPublicAgainstAFact(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	kinds := map[Kind]int{}
	for range 30_000 {
		f := drawFacts(r)
		v := Judge(f)
		kinds[v.Kind]++
		bad := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("%s\n%+v\n%s", fmt.Sprintf(format, args...), f, tell(v))
		}
		if h := v.Endpoint.Host; h != "" && h != f.Name && !subnet.IsPublic(netip.MustParseAddr(h)) {
			bad("devices shall call %s, which nobody outside can", h)
		}
		if v.Endpoint.Sure && !v.Endpoint.Addr.IsValid() {
			bad("sure of an endpoint without address")
		}
		if v.IPv6.IsValid() && (Is(v.IPv6) != f.WAN6 || f.STUN6.IsNone() || f.Web6.IsNone()) {
			bad("IPv6 against a fact")
		}
		if v.Endpoint.Host == "" && v.Kind != Unclear && v.Kind != DoubleNAT && len(v.Steps) == 0 {
			bad("nothing to do, and home cannot be called")
		}
		if v.Kind != Public {
			if v.Proven {
				bad("proven, and not public")
			}
			continue
		}
		var holders []netip.Addr
		for _, b := range append([]Box{{Outer: f.WAN}}, f.Boxes...) {
			if a, ok := b.Outer.Get(); ok {
				holders = append(holders, a)
				if insideDSLite.Contains(a) || subnet.IsCarrier(a) {
					bad("public, though a box has %s", a)
				}
			}
		}
		has := func(a Address) bool {
			for _, h := range holders {
				if Is(h) == a {
					return true
				}
			}
			return false
		}
		for _, s := range []Address{f.STUN, f.Web} {
			if s.IsNone() || s.Known() && !has(s) {
				bad("public, though the internet sees %s", s)
			}
		}
		if v.Proven && !f.STUN.Known() && !f.Web.Known() {
			bad("proven, though nobody outside was asked")
		}
		if len(holders) == 0 || !v.Endpoint.Addr.IsValid() || !has(Is(v.Endpoint.Addr)) {
			bad("public, though no box has the address")
		}
	}
	for k := range kindWords {
		if kinds[k] == 0 {
			t.Errorf("never drawn: %s", k)
		}
	}
}

// house is what is really there; facts are drawn from it and some are lost.
func house(r *rand.Rand) (f Facts, public bool) {
	f = behind(Address{})
	f.WAN6 = []Address{six, None()}[r.IntN(2)]
	outside := at("203.0.113.7")
	switch r.IntN(6) {
	case 0:
		f.Boxes[0].Outer, public = outside, true
	case 1:
		f.Boxes[0].Outer = at("10.0.0.5")
	case 2:
		f.Boxes[0].Outer, outside = at("100.64.3.3"), at("198.51.100.2")
	case 3: // a provider that uses public addresses inside its network
		f.Boxes[0].Outer, outside = at("203.0.113.7"), at("198.51.100.2")
	case 4:
		f.Boxes[0].Outer, outside = None(), at("198.51.100.2")
	case 5:
		f.Boxes[0].Outer, outside, f.WAN6 = None(), None(), six
	}
	f.STUN, f.Web = outside, outside
	return f, public
}

// What is not known never makes a verdict better.
func TestNotKnownIsNeverBetter(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 5_000 {
		f, public := house(r)
		squat := f.Boxes[0].Outer == at("203.0.113.7") && !public
		if v := Judge(f); (v.Kind == Public) != public || public && !v.Proven {
			t.Fatalf("all is known, public %v:\n%s", public, tell(v))
		}
		for _, a := range []*Address{&f.WAN, &f.WAN6, &f.Boxes[0].Outer, &f.STUN, &f.Web} {
			if r.IntN(2) == 0 {
				*a = NotKnown("lost")
			}
		}
		if r.IntN(4) == 0 {
			f.Boxes = nil
		}
		if v := Judge(f); !public && (v.Proven || v.Kind == Public && !squat) {
			t.Fatalf("better than the truth:\n%+v\n%s", f, tell(v))
		}
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		a     Address
		known bool
		text  string
	}{
		{Address{}, false, "not known (nobody asked)"},
		{NotKnown("no answer"), false, "not known (no answer)"},
		{None(), true, "none"},
		{at("0.0.0.0"), true, "none"},
		{at("::"), true, "none"},
		{Is(netip.Addr{}), true, "none"},
		{at("::ffff:203.0.113.7"), true, "203.0.113.7"},
	} {
		if c.a.Known() != c.known || c.a.String() != c.text {
			t.Errorf("%q, known %v; want %q, %v", c.a, c.a.Known(), c.text, c.known)
		}
	}
	if Silent("x").Why() != "x" || Says().Why() != "" || (Names{}).Why() == "" {
		t.Error("Names.Why")
	}
}

func BenchmarkJudge(b *testing.B) {
	f, _ := house(rand.New(rand.NewPCG(1, 1)))
	for b.Loop() {
		Judge(f)
	}
}
