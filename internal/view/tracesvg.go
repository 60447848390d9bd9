package view

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/heimweg/heimweg/internal/trace"
)

// A station is one box of the picture.
type station struct {
	name    string
	verdict trace.Verdict // "" for one that the packet never reached
	lines   []string
	colours []string
}

// Measures of the picture, in its own units.
const (
	svgBox    = 230 // width of a station
	svgGap    = 50
	svgMargin = 24
	svgTop    = 96
	svgLine   = 17
	svgLetter = 34 // letters that fit into a station's width
)

var svgColour = map[trace.Verdict]string{trace.Passes: "#2e7d32", trace.Dies: "#c62828", trace.Unknown: "#b26a00", "": "#9e9e9e"}

// TraceSVG draws the way: a box for each place, green where the packet passes,
// red where it dies, amber where it is not known, grey where it never came.
func TraceSVG(t trace.Trace) []byte {
	list := stations(t)
	rows := 0
	for _, s := range list {
		rows = max(rows, len(s.lines))
	}
	head := wrap(t.Headline, (len(list)*(svgBox+svgGap))/9)
	top := svgTop + 22*(len(head)-1)
	width := 2*svgMargin + len(list)*svgBox + (len(list)-1)*svgGap
	foot := remedies(t)
	height := top + 60 + rows*svgLine + 52 + 20*len(foot) + svgMargin
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n", escape(t.Headline))
	for i, l := range head {
		svgText(&b, svgMargin, 36+22*i, 17, svgColour[t.Verdict], "bold", l)
	}
	svgText(&b, svgMargin, 36+22*len(head), 13, "#555555", "normal", t.From+" → "+t.To+", "+t.Packet)
	for i, s := range list {
		x := svgMargin + i*(svgBox+svgGap)
		if i > 0 {
			svgArrow(&b, x-svgGap, top+22, list[i-1].verdict, s.verdict)
		}
		svgStation(&b, x, top, s)
	}
	y := top + 60 + rows*svgLine + 40
	if len(t.Back) > 0 {
		svgBack(&b, t, y-14, width)
	}
	for i, l := range foot {
		svgText(&b, svgMargin, y+20+20*i, 14, "#222222", "bold", l)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func stations(t trace.Trace) []station {
	var out []station
	for _, h := range t.There {
		if h.At != "" && (len(out) == 0 || out[len(out)-1].name != h.At) {
			out = append(out, station{name: h.At, verdict: trace.Passes})
		}
		if len(out) == 0 {
			continue
		}
		out[len(out)-1].take(h)
	}
	if t.Death == nil && len(t.Back) > 0 {
		return out
	}
	last := ""
	if len(out) > 0 {
		last = out[len(out)-1].name
	}
	for _, h := range t.Back {
		if h.Verdict == trace.Dies { // mark the place, which the packet passed on its way there
			for i := range out {
				if out[i].name == h.At {
					out[i].take(h)
				}
			}
		}
	}
	target, _, _ := strings.Cut(t.To, " ")
	if len(t.Back) == 0 && last != target {
		out = append(out, station{name: target})
	}
	return out
}

func (s *station) take(h trace.Hop) {
	if h.Verdict != trace.Passes && s.verdict != trace.Dies {
		s.verdict = h.Verdict
	}
	for _, l := range h.Lines {
		text := l.Says
		for _, p := range l.Because {
			text += " (" + placeText(p) + ")"
		}
		colour := "#333333"
		if l.Verdict != "" {
			colour = svgColour[l.Verdict]
		}
		for _, part := range wrap(text, svgLetter) {
			s.lines, s.colours = append(s.lines, part), append(s.colours, colour)
		}
	}
}

func svgStation(b *bytes.Buffer, x, y int, s station) {
	colour := svgColour[s.verdict]
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="44" rx="8" fill="#ffffff" stroke="%s" stroke-width="2"/>`+"\n", x, y, svgBox, colour)
	sign := map[trace.Verdict]string{trace.Passes: "✓ ", trace.Dies: "✗ ", trace.Unknown: "? "}[s.verdict]
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="16" font-weight="bold" text-anchor="middle" fill="%s">%s</text>`+"\n", x+svgBox/2, y+28, colour, escape(sign+s.name))
	for i, l := range s.lines {
		svgText(b, x, y+66+i*svgLine, 13, s.colours[i], "normal", l)
	}
}

func svgArrow(b *bytes.Buffer, x, y int, from, to trace.Verdict) {
	colour, dash := svgColour[trace.Passes], ""
	if from == trace.Dies || to == "" {
		colour, dash = svgColour[""], ` stroke-dasharray="5 4"`
	}
	fmt.Fprintf(b, `<path d="M%d %d H%d" stroke="%s" stroke-width="2" fill="none"%s/><path d="M%d %d l-9 -5 v10 z" fill="%s"/>`+"\n",
		x+4, y, x+svgGap-8, colour, dash, x+svgGap-2, y, colour)
}

// svgBack is the answer: one arrow to the left.
func svgBack(b *bytes.Buffer, t trace.Trace, y, width int) {
	v, says := trace.Passes, "the answer comes back"
	for _, h := range t.Back {
		if h.Verdict != trace.Passes {
			v, says = h.Verdict, "the answer does not come back"
		}
	}
	colour := svgColour[v]
	fmt.Fprintf(b, `<path d="M%d %d H%d" stroke="%s" stroke-width="2" fill="none"/><path d="M%d %d l9 -5 v10 z" fill="%s"/>`+"\n",
		width-svgMargin, y, svgMargin+8, colour, svgMargin, y, colour)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle" fill="%s">%s</text>`+"\n", width/2, y-6, colour, escape(says))
}

func remedies(t trace.Trace) (out []string) {
	for _, r := range t.Remedies {
		out = append(out, "→ "+r.Do)
	}
	return out
}

func svgText(b *bytes.Buffer, x, y, size int, colour, weight, text string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="%d" font-weight="%s" fill="%s">%s</text>`+"\n", x, y, size, weight, colour, escape(text))
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(clean(s)))
	return b.String()
}

// wrap breaks a text at blanks; a word that is too long stays whole.
func wrap(text string, letters int) []string {
	var out []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && runes(line)+1+runes(word) > letters {
			out, line = append(out, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(out, line)
}
