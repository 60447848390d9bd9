package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/subnet"
)

// Rules are well formed: names are unique, facts exist, and what a rule rests on is
// judged before it.
func TestRules(t *testing.T) {
	seen := map[ID]bool{}
	used := map[string]bool{}
	for _, r := range Rules() {
		if r.ID == "" || r.What == "" || r.Symptom == "" || r.judge == nil {
			t.Errorf("%q lacks something", r.ID)
		}
		if seen[r.ID] {
			t.Errorf("%s is there twice", r.ID)
		}
		for _, a := range r.After {
			if !seen[a] {
				t.Errorf("%s rests on %s, which is not judged before it", r.ID, a)
			}
		}
		for _, n := range append(slices.Clone(r.Needs), r.Uses...) {
			used[n] = true
			if !slices.Contains(FactNames(), n) {
				t.Errorf("%s wants a fact %q that nobody gathers", r.ID, n)
			}
		}
		seen[r.ID] = true
	}
	for _, n := range FactNames() {
		if !used[n] {
			t.Errorf("no rule looks at the fact %s", n)
		}
	}
}

// statuses judges all rules.
func statuses(f Facts, b *box) map[ID]Status {
	j, out := newJudgement(f), map[ID]Status{}
	j.box = b
	for _, r := range Rules() {
		out[r.ID] = j.judge(r).status
	}
	return out
}

// without judges those rules again that see a fact, or rest on one that does. The
// others see nothing of it, so that they stay as they were. What follows from the
// look at the router alone is taken from b, unless it is the look that is missing.
func without(fact string, f Facts, b *box, before map[ID]Status) map[ID]Status {
	j, touched := newJudgement(f.Forget(fact, "the probe was taken away")), map[ID]bool{}
	if fact != "router" {
		j.box = b
	}
	out := map[ID]Status{}
	for _, r := range Rules() {
		sees := slices.Contains(r.Needs, fact) || slices.Contains(r.Uses, fact)
		if touched[r.ID] = sees || slices.ContainsFunc(r.After, func(id ID) bool { return touched[id] }); !touched[r.ID] {
			out[r.ID], j.status[r.ID] = before[r.ID], before[r.ID]
			continue
		}
		out[r.ID] = j.judge(r).status
	}
	return out
}

// Mutation: whatever nobody could look at, no rule turns green by it, and none that
// needs it stays green.
func TestNothingTurnsGreen(t *testing.T) {
	green := func(s Status) bool { return s == OK || s == Moot }
	facts := map[string]Facts{"healthy": healthy(t)}
	for _, w := range worlds() {
		facts[w.name] = w.facts(t)
	}
	for name, f := range facts {
		b := newJudgement(f).box
		before := statuses(f, b)
		for _, fact := range FactNames() {
			if name != "healthy" && name != "no mapping" && !concerns(fact, before) {
				continue // rules that are green stay as they are: seen on the healthy home
			}
			after, healthy := without(fact, f, b, before), true
			for _, r := range Rules() {
				healthy = healthy && green(after[r.ID])
				if green(after[r.ID]) && (!green(before[r.ID]) || slices.Contains(r.Needs, fact)) {
					t.Errorf("%s without %s: %s was %s and is %s", name, fact, r.ID, before[r.ID], after[r.ID])
				}
			}
			if healthy {
				t.Errorf("%s without %s: healthy", name, fact)
			}
		}
	}
}

// concerns reports whether a rule that is not green looks at the fact.
func concerns(fact string, status map[ID]Status) bool {
	for _, r := range Rules() {
		if s := status[r.ID]; s != OK && s != Moot && (slices.Contains(r.Needs, fact) || slices.Contains(r.Uses, fact)) {
			return true
		}
	}
	return false
}

// Without any fact nothing is green but what home.toml alone tells.
func TestNothingKnown(t *testing.T) {
	r := Judge(Facts{Home: healthy(t).Home})
	if r.Verdict != NotKnown || len(r.RuledOut) != 1 || r.RuledOut[0].Rule != "endpoint" || len(r.Findings) > 0 {
		t.Errorf("%s, ruled out: %+v, found: %+v", r.Verdict, r.RuledOut, r.Findings)
	}
}

// Two faults at once: both are named, the deeper one first. Faults that hide each
// other by nature (nobody gets in; no tunnel) are left out: there the deeper one is
// all that can be known.
func TestTwoFaults(t *testing.T) {
	pairs := 0
	var list []world
	for _, name := range []string{"staged changes", "clock ahead", "OpenWrt 22.03", "ISP router silent", "in the file, not live", "a stranger in the running tunnel",
		"no rule on the WAN side", "own rule refuses the NAS", "SSH open to the world", "no password", "no mapping", "the name leads to yesterday's address",
		"NAS off", "dnsmasq limited", "path of 1400", "rebind protection", "key readable by all"} {
		for _, w := range worlds() {
			if w.name == name {
				list = append(list, w)
			}
		}
	}
	place := func(id ID) int { return slices.IndexFunc(Rules(), func(r Rule) bool { return r.ID == id }) }
	for i, a := range list {
		for _, b := range list[i+1:] {
			f := a.facts(t)
			b.do(t, &f)
			r := Judge(f)
			at := func(id ID) int { return slices.IndexFunc(r.Findings, func(x Finding) bool { return x.Rule == id }) }
			x, y := a, b
			if place(x.rule) > place(y.rule) {
				x, y = y, x
			}
			first, second := at(x.rule), at(y.rule)
			if restsOn(y.rule, x.rule, 0) {
				if first != 0 {
					t.Errorf("%s + %s: %v", a.name, b.name, rules(r.Findings))
				}
				continue
			}
			pairs++
			if x.rule == y.rule {
				continue
			}
			if first < 0 || second < 0 {
				t.Errorf("%s + %s: only %v", a.name, b.name, rules(r.Findings))
				continue
			}
			if same := r.Findings[first].Weight == r.Findings[second].Weight; same && first > second || !same && (r.Findings[first].Weight == Risk) != (first > second) {
				t.Errorf("%s + %s: in the order %v", a.name, b.name, rules(r.Findings))
			}
		}
	}
	if pairs < 100 {
		t.Errorf("only %d pairs", pairs)
	}
}

// restsOn reports whether a rule rests on another one, be it by a third.
func restsOn(id, on ID, depth int) bool {
	for _, r := range Rules() {
		if r.ID == id {
			for _, a := range r.After {
				if a == on || depth < 20 && restsOn(a, on, depth+1) {
					return true
				}
			}
		}
	}
	return false
}

func rules(list []Finding) (out []ID) {
	for _, f := range list {
		out = append(out, f.Rule)
	}
	return out
}

// No world lets a public address, a name or a key out, unless somebody asks for all
// of it; a secret never gets out.
func TestRedacted(t *testing.T) {
	secrets := []string{testKey(5).Reveal(), testKey(9).Reveal(), testKey(1).Reveal()}
	names := []string{endpointName, "nas.family.example.org", publicAddr, "203.0.113.99", "2a02:db8", "198.51.100.2", "203.0.113.50"}
	for _, n := range []byte{1, 2, 3, 6, 7, 8} {
		names = append(names, testKey(n).Public().String())
	}
	shown := 0
	for _, w := range worlds() {
		f := w.facts(t)
		r := Judge(f)
		for full, rep := range map[bool]Report{false: r.Redacted(f), true: r.Full()} {
			text := fmt.Sprintf("%+v", rep)
			b, err := json.Marshal(rep)
			if err != nil {
				t.Fatal(err)
			}
			text += string(b)
			for _, s := range secrets {
				if strings.Contains(text, s) {
					t.Errorf("%s: a secret is shown", w.name)
				}
			}
			for _, s := range names {
				switch there := strings.Contains(text, s); {
				case there && !full:
					t.Errorf("%s: %s is shown: %s", w.name, s, text)
				case there:
					shown++
				}
			}
			if strings.ContainsAny(text, markOn+markOff) {
				t.Errorf("%s: marks are left", w.name)
			}
		}
	}
	if shown == 0 {
		t.Error("nothing is shown in full either: this test looks at nothing")
	}
}

func TestRedactTexts(t *testing.T) {
	f := healthy(t)
	r := Report{Findings: []Finding{{Headline: "home.example.net leads to 203.0.113.7, and home's public address is 203.0.113.99.",
		Seen:     []string{"at 203.0.113.7:51820, [2a02:db8::7]:51820 and 2a02:db8::7; 192.168.2.17, fd00::1, 10.86.20.0/24, /etc/config/firewall:112", "2a02:db8:5::/48"},
		Remedies: []Remedy{{Do: "heimweg trust 192.168.1.1", Why: "HOME.example.net"}}}}}
	got := r.Redacted(f).Findings[0]
	want := Finding{Headline: "«name 1» leads to «address 1», and home's public address is «address 2».",
		Seen:     []string{"at «address 1»:51820, [«address 3»]:51820 and «address 3»; 192.168.2.17, fd00::1, 10.86.20.0/24, /etc/config/firewall:112", "«address 4»/48"},
		Remedies: []Remedy{{Do: "heimweg trust 192.168.1.1", Why: "«name 1»"}}}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%+v", got)
	}
}

func BenchmarkJudge(b *testing.B) {
	f := healthy(b)
	for b.Loop() {
		Judge(f)
	}
}

// Whatever a text holds, no public address comes through.
func FuzzRedact(f *testing.F) {
	f.Add("home.example.net leads to 203.0.113.7:51820, [2a02:db8::7]:1 and 2a02:db8:5::/48.")
	f.Add("203.0.113.7.203.0.113.8 ::ffff:203.0.113.7 2a02:db8::203.0.113.7")
	f.Add("a1.2.3.4:5:6 192.168.1.1/24;8.8.8.8,9.9.9.9-1.1.1.1")
	h := healthy(f)
	f.Fuzz(func(t *testing.T, text string) {
		got := (Report{Findings: []Finding{{Headline: text}}}).Redacted(h).Findings[0].Headline
		for _, token := range strings.FieldsFunc(got, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF:.", r) }) {
			if a, err := netip.ParseAddr(token); err == nil && subnet.IsPublic(a) {
				t.Errorf("%q became %q, with %s in it", text, got, a)
			}
		}
		if strings.Contains(strings.ToLower(got), endpointName) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
