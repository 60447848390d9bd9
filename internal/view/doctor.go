package view

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/doctor"
)

// Doctor writes what was found for people: the root cause first, what to do, what
// was ruled out, what could not be looked at.
func Doctor(w io.Writer, st Style, r doctor.Report) {
	for i, f := range r.Findings {
		if i > 0 {
			fmt.Fprintln(w)
		}
		mark := st.Bad("✗")
		if f.Weight == doctor.Risk {
			mark = st.Changed("!")
		}
		fmt.Fprintf(w, "%s %s\n", mark, st.Strong(clean(f.Headline)))
		findingText(w, st, f)
	}
	switch {
	case len(r.Findings) > 0:
		fmt.Fprintln(w)
	case r.Verdict == doctor.OK:
		fmt.Fprintf(w, "%s %s\n", st.Good("✓"), st.Strong("nothing is wrong: devices can come home"))
	default:
		fmt.Fprintf(w, "%s %s\n", st.Changed("?"), st.Strong("nothing wrong was found, but not everything could be looked at"))
	}
	for _, f := range r.Explained {
		fmt.Fprintf(w, "%s %s\n", st.Dim("·"), clean(f.Headline))
		findingText(w, st, f)
	}
	ruledOut(w, st, r)
	notTested(w, r.NotTested)
}

const doctorWidth = 10

func findingText(w io.Writer, st Style, f doctor.Finding) {
	row := func(label, text string) { fmt.Fprintf(w, "  %s%s\n", pad(label, doctorWidth), text) }
	for i, s := range f.Seen {
		row(first(i, "seen"), clean(s))
	}
	if f.Cause != "" {
		row("cause", clean(f.Cause))
	}
	for i, r := range f.Remedies {
		row(first(i, "remedy"), st.Strong(clean(r.Do)))
		if r.Why != "" {
			row("", st.Dim(clean(r.Why)))
		}
	}
}

// first is a label that stands beside the first line only.
func first(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}

// mostNamed bounds how many checks are named; the others are counted.
const mostNamed = 12

func ruledOut(w io.Writer, st Style, r doctor.Report) {
	if len(r.RuledOut) == 0 {
		return
	}
	// What people ask about first comes first.
	list := slices.Clone(r.RuledOut)
	rank := func(c doctor.Check) int {
		if i := slices.Index(asked, c.Rule); i >= 0 {
			return i
		}
		return len(asked)
	}
	slices.SortStableFunc(list, func(a, b doctor.Check) int { return rank(a) - rank(b) })
	var names []string
	for _, c := range list[:min(len(list), mostNamed)] {
		names = append(names, c.What)
	}
	more := ""
	if n := len(list) - len(names); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	wrapped(w, "ruled out", strings.Join(names, ", ")+more+"   "+st.Dim(fmt.Sprintf("(%d checks)", len(list))))
}

// asked are the things that people suspect first.
var asked = []doctor.ID{"device-key", "preshared", "door", "mapping", "mapping-target", "tunnel-up", "forwarding", "way-back", "endpoint-stale", "dns-answers", "mtu", "clock"}

// notTested names what could not be looked at, together with what keeps it.
func notTested(w io.Writer, list []doctor.Check) {
	var order []string
	by := map[string][]string{}
	for _, c := range list {
		if by[c.Because] == nil {
			order = append(order, c.Because)
		}
		by[c.Because] = append(by[c.Because], c.What)
	}
	for i, because := range order {
		names := by[because]
		more := ""
		if len(names) > 4 {
			more = fmt.Sprintf(" and %d more", len(names)-3)
			names = names[:3]
		}
		wrapped(w, first(i, "not tested"), fmt.Sprintf("%s%s (%s)", strings.Join(names, ", "), more, clean(because)))
	}
}

// lineWidth is how long a line may become before it is broken.
const lineWidth = 110

func wrapped(w io.Writer, label, text string) {
	line := pad(label, doctorWidth+2)
	begin := line
	for i, word := range strings.Split(text, " ") {
		if runes(line)+runes(word) > lineWidth && line != begin {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
			line = strings.Repeat(" ", doctorWidth+2)
			begin = line
		} else if i > 0 {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}

// RuleEntry is a rule as `doctor --list` shows it.
type RuleEntry struct {
	ID      doctor.ID   `json:"id"`
	What    string      `json:"what"`
	Symptom string      `json:"symptom"`
	Needs   []string    `json:"needs"`
	Uses    []string    `json:"uses,omitempty"`
	After   []doctor.ID `json:"after,omitempty"`
}

// RulesOf turns rules into what is shown of them.
func RulesOf(list []doctor.Rule) []RuleEntry {
	out := []RuleEntry{}
	for _, r := range list {
		out = append(out, RuleEntry{r.ID, r.What, r.Symptom, append([]string{}, r.Needs...), r.Uses, r.After})
	}
	return out
}

// facts are what a rule looks at, in a line.
func (r RuleEntry) facts() string { return strings.Join(slices.Concat(r.Needs, r.Uses), ", ") }

// Rules lists what the doctor examines, in its order.
func Rules(w io.Writer, st Style, list []RuleEntry) {
	fmt.Fprintf(w, "%s\n\n", st.Strong(fmt.Sprintf("%d things are examined, the deepest first", len(list))))
	wide := 0
	for _, r := range list {
		wide = max(wide, runes(string(r.ID)))
	}
	for _, r := range list {
		fmt.Fprintf(w, "%s  %s\n", pad(string(r.ID), wide), r.What)
		fmt.Fprintf(w, "%s  %s\n", pad("", wide), st.Dim("symptom: "+r.Symptom))
		if facts := r.facts(); facts != "" {
			fmt.Fprintf(w, "%s  %s\n", pad("", wide), st.Dim("needs: "+facts))
		}
	}
}

// Watch shows how far a device comes, as it happens.
type Watch struct {
	w       io.Writer
	st      Style
	json    bool
	packets int64
}

// NewWatch writes to w, as JSON objects one a line, or as text.
func NewWatch(w io.Writer, st Style, json bool) *Watch { return &Watch{w: w, st: st, json: json} }

// Step shows a step. One that is not new only counts on.
func (v *Watch) Step(s doctor.Step, isNew bool) {
	counted := s.Packets != v.packets
	v.packets = s.Packets
	switch {
	case v.json && (isNew || counted):
		JSON(v.w, s)
	case v.json:
	case isNew:
		mark := v.st.Dim("…")
		switch s.Stage {
		case doctor.Home:
			mark = v.st.Good("✓")
		case doctor.Rejected:
			mark = v.st.Bad("✗")
		}
		fmt.Fprintf(v.w, "%s %s\n", mark, clean(s.Says))
		if s.Next != "" {
			fmt.Fprintf(v.w, "  %s\n", v.st.Dim(clean(s.Next)))
		}
		fallthrough
	case counted && s.Stage != doctor.Home:
		switch {
		case s.Packets == 1:
			fmt.Fprintln(v.w, "  1 packet has come in at the WAN side")
		case s.Packets > 1:
			fmt.Fprintf(v.w, "  %d packets have come in at the WAN side\n", s.Packets)
		}
	}
}
