// Package doctor finds out from facts why devices cannot come home, and says it
// with the root cause first: what was seen, what to do, what was ruled out, and
// what could not be looked at.
//
// It computes from what it is given. It asks nobody, changes nothing, and holds
// no secret. Package probe gathers the facts; package view shows the findings.
//
// # Background for a newcomer
//
// "Connected, but nothing works" has some eighty causes that are known
// (the catalogue: facts openwrt.md 10), and most of them look the same from
// outside: silence. A rule looks at facts and says ok, bad, or not known. Three
// laws make the answer worth something:
//
//   - A fact has three values. What nobody could look at is not known, and no rule
//     turns green because of it. A rule sees only the facts that it names; the
//     others are taken from it before it judges.
//   - A rule that rests on another one is not judged before that one is ok: no list
//     of consequences hides the cause.
//   - Rules stand in the order of depth, from the power plug to the name service.
//     The first finding is the deepest, and that is where to begin.
//
// Most of what can be wrong between the door and the home LAN is found by package
// trace, which follows a packet through the router as it is: the rules only sort
// its deaths.
package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/trace"
)

// ID names a rule; the names are stable.
type ID string

// Status is what became of a rule.
type Status string

// The statuses. The zero value is none of them.
const (
	OK        Status = "ok"
	Bad       Status = "bad"
	NotKnown  Status = "not-known"  // a fact is missing
	NotTested Status = "not-tested" // it rests on a rule that is not ok
	Moot      Status = "moot"       // there is nothing of that kind in this home
)

// Weight is how much a finding matters.
type Weight string

// The weights.
const (
	Breaks   Weight = "breaks"   // a device cannot come home, or not reach what it should
	Risk     Weight = "risk"     // it works, and should not stay so
	Explains Weight = "explains" // nothing is wrong; it looks so from where the person sits
)

// Kind is how a remedy is carried out.
type Kind string

// The kinds of remedies.
const (
	Plan     Kind = "plan"      // heimweg apply: --fix does it
	Setting  Kind = "setting"   // one value of home.toml, then heimweg apply: --fix does it
	Command  Kind = "command"   // another command of heimweg
	OnRouter Kind = "on-router" // one line in a shell of the home router
	ByHand   Kind = "by-hand"   // one physical action, or a click elsewhere
)

// A Remedy is what to do: one command or one action.
type Remedy struct {
	Do   string `json:"do"`
	Why  string `json:"why,omitempty"`
	Kind Kind   `json:"kind"`
	// MTU is the value of a Setting.
	MTU int `json:"mtu,omitempty"`
}

// A Finding is what a rule found.
type Finding struct {
	Rule     ID       `json:"rule"`
	Weight   Weight   `json:"weight"`
	Headline string   `json:"headline"`
	Seen     []string `json:"seen,omitempty"`
	Cause    string   `json:"cause,omitempty"`
	Remedies []Remedy `json:"remedies,omitempty"`
}

// A Check is a rule that found nothing, or could not look.
type Check struct {
	Rule    ID     `json:"rule"`
	What    string `json:"what"`
	Status  Status `json:"status"`
	Because string `json:"because,omitempty"`
}

// A Report is what the doctor says. Its JSON form is stable.
type Report struct {
	Verdict   Status    `json:"verdict"` // ok, bad, or not-known
	Findings  []Finding `json:"findings"`
	Explained []Finding `json:"explained,omitempty"`
	RuledOut  []Check   `json:"ruled_out"`
	NotTested []Check   `json:"not_tested"`
	Moot      []Check   `json:"moot,omitempty"`
}

// A Rule is one thing that can be wrong.
type Rule struct {
	ID ID
	// What is examined, in few words: "key", "open port on the WAN side".
	What string
	// Symptom is what a person notices.
	Symptom string
	// After are rules that this one rests on.
	After []ID
	// Needs are facts without which it says nothing; Uses are facts that tell it more.
	Needs, Uses []string
	judge       func(*patient) outcome
}

// outcome is what a rule says.
type outcome struct {
	status  Status
	because string
	finding Finding
}

func ok() outcome   { return outcome{status: OK} }
func moot() outcome { return outcome{status: Moot} }

func notKnown(format string, args ...any) outcome {
	return outcome{status: NotKnown, because: fmt.Sprintf(format, args...)}
}

func notTested(format string, args ...any) outcome {
	return outcome{status: NotTested, because: fmt.Sprintf(format, args...)}
}

// bad begins a finding.
func bad(format string, args ...any) outcome {
	return outcome{status: Bad, finding: Finding{Weight: Breaks, Headline: fmt.Sprintf(format, args...)}}
}

func risk(format string, args ...any) outcome {
	o := bad(format, args...)
	o.finding.Weight = Risk
	return o
}

func explained(format string, args ...any) outcome {
	o := bad(format, args...)
	o.finding.Weight = Explains
	return o
}

func (o outcome) saw(format string, args ...any) outcome {
	if text := fmt.Sprintf(format, args...); text != "" {
		o.finding.Seen = append(slices.Clone(o.finding.Seen), text)
	}
	return o
}

func (o outcome) causedBy(format string, args ...any) outcome {
	o.finding.Cause = fmt.Sprintf(format, args...)
	return o
}

func (o outcome) do(kind Kind, do, why string) outcome {
	o.finding.Remedies = append(slices.Clone(o.finding.Remedies), Remedy{Do: do, Why: why, Kind: kind})
	return o
}

func (o outcome) apply() outcome {
	return o.do(Plan, applyCommand, "home.toml wants it otherwise than the router has it")
}

const applyCommand = "heimweg apply"

// remedies takes over those of a trace.
func (o outcome) remedies(list []trace.Remedy) outcome {
	for _, r := range list {
		o = o.do(kindOf(r.Do), r.Do, r.Why)
	}
	return o
}

// kindOf sorts a remedy by its words.
func kindOf(do string) Kind {
	switch {
	case do == applyCommand:
		return Plan
	case strings.HasPrefix(do, "heimweg "):
		return Command
	case strings.HasPrefix(do, onRouter):
		return OnRouter
	}
	return ByHand
}

// onRouter begins a remedy that is a line for the router's shell.
const onRouter = "on the home router: "

func (o outcome) shell(line, why string) outcome { return o.do(OnRouter, onRouter+line, why) }

// Judge applies every rule, in the order of depth.
func Judge(f Facts) Report {
	r := Report{Verdict: OK, Findings: []Finding{}, RuledOut: []Check{}, NotTested: []Check{}}
	j := newJudgement(f)
	var risks []Finding
	for _, rule := range all {
		o := j.judge(rule)
		c := Check{Rule: rule.ID, What: rule.What, Status: o.status, Because: o.because}
		switch o.status {
		case OK:
			r.RuledOut = append(r.RuledOut, c)
		case Moot:
			r.Moot = append(r.Moot, c)
		case Bad:
			switch o.finding.Weight {
			case Breaks:
				r.Findings = append(r.Findings, o.finding)
			case Risk:
				risks = append(risks, o.finding)
			default:
				r.Explained = append(r.Explained, o.finding)
			}
		default:
			r.NotTested = append(r.NotTested, c)
		}
	}
	r.Findings = append(r.Findings, risks...)
	switch {
	case len(r.Findings) > 0:
		r.Verdict = Bad
	case len(r.NotTested) > 0:
		r.Verdict = NotKnown
	}
	return r
}

// judgement is one run over all rules.
type judgement struct {
	facts  Facts
	status map[ID]Status
	memo   map[string]*patient // by the facts that a rule may see
	box    *box
}

func newJudgement(f Facts) *judgement {
	return &judgement{facts: f, status: map[ID]Status{}, memo: map[string]*patient{}, box: &box{ways: map[way][]trace.Trace{}}}
}

// judge applies one rule. It sees only the facts that it names.
func (j *judgement) judge(r Rule) outcome {
	o := j.apply(r)
	o.finding.Rule = r.ID
	j.status[r.ID] = o.status
	if o.status == Bad && o.finding.Weight == Explains {
		j.status[r.ID] = OK // nothing rests badly on it
	}
	return o
}

func (j *judgement) apply(r Rule) outcome {
	for _, id := range r.After {
		switch j.status[id] {
		case OK, Moot:
		case NotKnown:
			return notTested("nobody knows about: %s", whatOf(id))
		default:
			return notTested("first: %s", whatOf(id))
		}
	}
	for _, name := range r.Needs {
		if known, because := j.facts.state(name); !known {
			return notKnown("%s", because)
		}
	}
	key := strings.Join(r.Needs, " ") + "|" + strings.Join(r.Uses, " ")
	p := j.memo[key]
	if p == nil {
		p = newPatient(j.facts.only(append(slices.Clone(r.Needs), r.Uses...)), j.box)
		j.memo[key] = p
	}
	return r.judge(p)
}

// whatOf is what a rule examines.
func whatOf(id ID) string {
	for _, r := range all {
		if r.ID == id {
			return r.What
		}
	}
	return string(id)
}
