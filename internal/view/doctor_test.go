package view_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/doctor"
	"github.com/heimweg/heimweg/internal/view"
)

func TestDoctorText(t *testing.T) {
	check := func(id, what, because string) doctor.Check {
		return doctor.Check{Rule: doctor.ID(id), What: what, Because: because}
	}
	many := []doctor.Check{}
	for _, r := range doctor.Rules()[:40] {
		many = append(many, doctor.Check{Rule: r.ID, What: r.What, Status: doctor.OK})
	}
	found := doctor.Report{Verdict: doctor.Bad,
		Findings: []doctor.Finding{{Rule: "mapping-target", Weight: doctor.Breaks,
			Headline: "no device can come home: the ISP router sends UDP 51820 to 192.168.2.17, and the home router is 192.168.2.253",
			Seen:     []string{"UPnP, seen 12 s ago"}, Cause: "the home router gets its address from the ISP router, and has got another one since",
			Remedies: []doctor.Remedy{{Do: "on the ISP router: send UDP 51820 to 192.168.2.253 port 51820", Why: "and let it give the home router always the same address", Kind: doctor.ByHand}}},
			{Rule: "release", Weight: doctor.Risk, Headline: "OpenWrt 22.03.5 gets no fixes any more\x1b[31m", Remedies: []doctor.Remedy{{Do: "heimweg upgrade", Kind: doctor.Command}}}},
		RuledOut:  many,
		NotTested: []doctor.Check{check("a", "name one", "nobody asked"), check("b", "name two", "nobody asked"), check("c", "other", "first: name one")}}
	explained := doctor.Report{Verdict: doctor.OK, RuledOut: many[:3], Explained: []doctor.Finding{{Rule: "hairpin", Weight: doctor.Explains, Headline: "at home it does not work, and that is normal"}}}
	var got []txtar.File
	for _, c := range []struct {
		name string
		r    doctor.Report
	}{{"found", found}, {"explained", explained}, {"healthy", doctor.Report{Verdict: doctor.OK, RuledOut: many[:2]}}, {"not all known", doctor.Report{Verdict: doctor.NotKnown, NotTested: found.NotTested[:1]}}} {
		var b bytes.Buffer
		view.Doctor(&b, view.Style{}, c.r)
		if strings.Contains(b.String(), "\x1b") {
			t.Errorf("%s: control characters get through", c.name)
		}
		got = append(got, txtar.File{Name: c.name, Data: b.Bytes()})
	}
	golden(t, "doctor", got)
}

func TestDoctorWatchText(t *testing.T) {
	steps := []struct {
		s     doctor.Step
		isNew bool
	}{
		{doctor.Step{Stage: doctor.Waiting, Says: "waiting", Next: "switch the tunnel on"}, true}, {doctor.Step{Stage: doctor.Waiting, Says: "waiting"}, false},
		{doctor.Step{Stage: doctor.Arriving, Says: "a packet has come", Packets: 1}, true}, {doctor.Step{Stage: doctor.Rejected, Says: "its key is unknown", Packets: 2}, true},
		{doctor.Step{Stage: doctor.Rejected, Packets: 3}, false}, {doctor.Step{Stage: doctor.Home, Device: "phone", Says: "phone is home", Packets: 4}, true},
	}
	var text, objects bytes.Buffer
	a, b := view.NewWatch(&text, view.Style{}, false), view.NewWatch(&objects, view.Style{}, true)
	for _, s := range steps {
		a.Step(s.s, s.isNew)
		b.Step(s.s, s.isNew)
	}
	n := 0
	for d := json.NewDecoder(&objects); d.More(); n++ {
		var s doctor.Step
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
	}
	if n != 5 {
		t.Errorf("%d objects for five news", n)
	}
	golden(t, "doctor-watch", []txtar.File{{Name: "watch", Data: text.Bytes()}})
}

func TestRulesText(t *testing.T) {
	var b bytes.Buffer
	view.Rules(&b, view.Style{}, view.RulesOf(doctor.Rules()))
	for _, r := range doctor.Rules() {
		if !strings.Contains(b.String(), string(r.ID)) || !strings.Contains(b.String(), r.Symptom) {
			t.Errorf("%s is not listed", r.ID)
		}
	}
}

// docs/doctor.md lists the rules that there are.
func TestDoctorDoc(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`# What the doctor examines

Made from the program's own rules, the deepest first; ` + "`go test ./internal/view -run TestDoctorDoc -update`" + ` rewrites it.
` + "`heimweg doctor --list`" + ` shows the same. A rule says nothing before it has the facts that it needs, and is not judged
before the rules that it rests on are ok.

| rule | examines | what a person notices | needs |
| --- | --- | --- | --- |
`)
	for _, r := range doctor.Rules() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.ID, r.What, r.Symptom, strings.Join(append(slices.Clone(r.Needs), r.Uses...), ", "))
	}
	file := filepath.Join("..", "..", "docs", "doctor.md")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	was, err := os.ReadFile(file)
	if err != nil || string(was) != b.String() {
		t.Errorf("%s is not up to date (%v): run this test with -update", file, err)
	}
}
