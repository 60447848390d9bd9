package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/heimweg/heimweg/internal/trace"
)

// Trace writes the way of a packet for people: the headline, the way there, the
// way back (in one line unless reply), the remedy.
func Trace(w io.Writer, st Style, t trace.Trace, reply bool) {
	mark := st.Good("✓")
	switch t.Verdict {
	case trace.Dies:
		mark = st.Bad("✗")
	case trace.Unknown:
		mark = st.Changed("?")
	}
	fmt.Fprintf(w, "%s %s\n\n", mark, st.Strong(clean(t.Headline)))
	width := 8
	for _, h := range append(append([]trace.Hop{}, t.There...), t.Back...) {
		width = max(width, runes(h.At))
	}
	hops(w, st, t, t.There, width)
	back := trace.Passes
	for _, h := range t.Back {
		if h.Verdict != trace.Passes {
			back = h.Verdict
		}
	}
	switch {
	case len(t.Back) == 0:
	case reply || back != trace.Passes:
		fmt.Fprintln(w, st.Dim("and the answer"))
		hops(w, st, t, t.Back, width)
	default:
		fmt.Fprintf(w, "%s  comes back the same way\n", pad("answer", width))
	}
	fmt.Fprintln(w)
	for i, r := range t.Remedies {
		label := "remedy"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(w, "%s  %s\n", pad(label, width), st.Strong(clean(r.Do)))
		if r.Why != "" {
			fmt.Fprintf(w, "%s  %s\n", pad("", width), clean(r.Why))
		}
	}
	for _, u := range t.Unknown {
		fmt.Fprintf(w, "%s  %s\n", pad("not known", width), clean(u))
	}
	for _, n := range t.Notes {
		fmt.Fprintf(w, "%s  %s\n", pad("note", width), clean(n))
	}
}

func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-runes(s))) }

// hops writes one line for each thing that happened; a place is named once.
func hops(w io.Writer, st Style, t trace.Trace, list []trace.Hop, width int) {
	at, packet := "", ""
	for _, h := range list {
		label := h.At
		if label == at {
			label = ""
		}
		if h.At != "" {
			at = h.At
		}
		if h.Packet != packet && h.At != "" {
			fmt.Fprintf(w, "%s  %s\n", pad(clean(label), width), st.Dim(clean(h.Packet)))
			packet, label = h.Packet, ""
		}
		for _, l := range h.Lines {
			fmt.Fprintf(w, "%s  %s\n", pad(clean(label), width), traceLine(st, l))
			label = ""
		}
		if h.Verdict == trace.Dies && t.Death != nil {
			end := "✗ dies here, and the sender is told"
			if t.Death.Silent {
				end = "✗ dies here, silently"
			}
			fmt.Fprintf(w, "%s  %s\n", pad("", width), st.Bad(end))
		}
	}
}

func traceLine(st Style, l trace.Line) string {
	text := clean(l.Says)
	switch l.Verdict {
	case trace.Dies:
		text = st.Bad(text)
	case trace.Unknown:
		text = st.Changed("? " + text)
	}
	var beside []string
	for _, p := range l.Because {
		beside = append(beside, placeText(p))
	}
	if l.Note != "" {
		beside = append(beside, clean(l.Note))
	}
	if len(beside) > 0 {
		text += "   " + st.Dim("("+strings.Join(beside, "; ")+")")
	}
	return text
}

func placeText(p trace.Place) string {
	if p.Line == 0 {
		return clean(p.File)
	}
	return fmt.Sprintf("%s:%d", clean(p.File), p.Line)
}

// Explain tells how WireGuard chooses a peer.
func Explain(w io.Writer, st Style, e trace.Explanation) {
	fmt.Fprintln(w, st.Strong("How WireGuard chooses"))
	fmt.Fprint(w, `
The home router has a list of devices. Each is known by its key, and has the
addresses that are its own (AllowedIPs). That list decides in both directions.

`)
	if len(e.Devices) == 0 {
		fmt.Fprintln(w, "There are no devices yet: heimweg peer add phone")
		return
	}
	wide := 6
	for _, d := range e.Devices {
		wide = max(wide, runes(d.Name))
	}
	for _, d := range e.Devices {
		state := ""
		if d.Disabled {
			state = "   (disabled: the router does not know it now)"
		}
		fmt.Fprintf(w, "  %s  key %s   %s%s\n", pad(d.Name, wide), d.Key, strings.Join(d.Allowed, ", "), state)
	}
	fmt.Fprint(w, "\n"+st.Strong("A packet goes into the tunnel")+": whose address is its destination? The longest match wins.\n\n")
	for _, c := range e.Choices {
		if c.Peer == "" {
			fmt.Fprintf(w, "  for %-16s nobody has it: dropped\n", c.To)
			continue
		}
		fmt.Fprintf(w, "  for %-16s %s (%s): encrypted with its key, sent to where it was last heard\n", c.To, c.Peer, c.Network)
	}
	fmt.Fprint(w, "\n"+st.Strong("A packet comes out of the tunnel")+": its key says who sent it. May that device use this source?\n\n")
	for _, s := range e.Sources {
		switch {
		case s.Allowed:
			fmt.Fprintf(w, "  %s as %s: its own address, let in\n", s.Peer, s.From)
		case s.Owner != "":
			fmt.Fprintf(w, "  %s as %s: that belongs to %s: dropped\n", s.Peer, s.From, s.Owner)
		default:
			fmt.Fprintf(w, "  %s as %s: not its own: dropped\n", s.Peer, s.From)
		}
	}
	fmt.Fprintf(w, `
Where a device was last heard is remembered from its packets alone, so it may
change from Wi-Fi to mobile data in the middle of a download (roaming). Two devices
with one key would take the tunnel from each other with every packet: one key is
one device.

The devices have a list, too, with one entry, the home router: what they send
into the tunnel, and take from it, is %s.
`, strings.Join(e.AtHome, ", "))
	if len(e.OneKey) > 0 {
		fmt.Fprintf(w, "\n%s %s have the same key.\n", st.Bad("!"), strings.Join(e.OneKey, " and "))
	}
}
