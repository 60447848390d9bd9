package view

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
)

// Fault writes a failure for a person: what happened, where, what was seen, why,
// and what to do next. Every failure of the program comes through here.
func Fault(w io.Writer, st Style, err error) {
	var list fault.List
	if errors.As(err, &list) && len(list) > 0 {
		for i, f := range list {
			if i > 0 {
				fmt.Fprintln(w)
			}
			one(w, st, f)
		}
		return
	}
	if f := fault.Find(err); f != nil {
		one(w, st, f)
		return
	}
	one(w, st, fault.New("failed", "%s", err))
}

func one(w io.Writer, st Style, f *fault.Fault) {
	head := "heimweg: "
	if f.Place != nil {
		head = f.Place.String() + ": "
	}
	fmt.Fprintf(w, "%s%s\n", st.Bad(head), clean(f.What))
	if p := f.Place; p != nil && p.Text != "" {
		snippet(w, st, *p)
	}
	lines(w, "seen", f.Seen)
	lines(w, "why", f.Why)
	lines(w, "next", f.Next)
}

// snippet shows the line with a caret below what is meant. Tabs count as one
// column in a Place, so they are shown as one blank.
func snippet(w io.Writer, st Style, p fault.Place) {
	no := fmt.Sprintf("%4d", p.Line)
	text := clean(strings.ReplaceAll(p.Text, "\t", " "))
	fmt.Fprintf(w, "%s | %s\n", no, text)
	if p.Column <= 0 || p.Column-1 > len(p.Text) {
		return
	}
	before := runes(text[:p.Column-1])
	under := max(1, runes(clampSlice(text, p.Column-1, p.Length)))
	fmt.Fprintf(w, "%s | %s%s\n", strings.Repeat(" ", len(no)), strings.Repeat(" ", before), st.Bad(strings.Repeat("^", under)))
}

func clampSlice(s string, from, n int) string {
	return s[from:min(len(s), from+max(n, 0))]
}

func runes(s string) int { return len([]rune(s)) }

func lines(w io.Writer, label string, texts []string) {
	for i, t := range texts {
		if i > 0 {
			label = ""
		}
		var shown []string
		for l := range strings.SplitSeq(t, "\n") {
			shown = append(shown, clean(strings.TrimSuffix(l, "\r")))
		}
		fmt.Fprintf(w, "  %-5s %s\n", label, strings.Join(shown, "\n        "))
	}
}

// clean takes control characters out of a line: what a router says about itself
// must not move the cursor of the person who reads it. Each becomes one "?", so
// that columns stay where they are.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, s)
}
