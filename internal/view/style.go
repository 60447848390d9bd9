// Package view turns plans, states, events and failures into text for people and
// JSON for programs. It computes nothing and asks nobody: what it is given is
// what it shows, and what was not known is shown as not known.
package view

// A Style says whether text may carry colour. The zero Style is plain.
type Style struct{ Colour bool }

func (s Style) paint(code, text string) string {
	if !s.Colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Bad is for what went wrong.
func (s Style) Bad(text string) string { return s.paint("31", text) }

// Good is for what went well.
func (s Style) Good(text string) string { return s.paint("32", text) }

// Added, Changed and Removed mark the lines of a plan.
func (s Style) Added(text string) string { return s.paint("32", text) }

// Changed marks a line that replaces another.
func (s Style) Changed(text string) string { return s.paint("33", text) }

// Removed marks a line that goes.
func (s Style) Removed(text string) string { return s.paint("31", text) }

// Dim is for what matters less.
func (s Style) Dim(text string) string { return s.paint("2", text) }

// Strong is for what the eye should find first.
func (s Style) Strong(text string) string { return s.paint("1", text) }
