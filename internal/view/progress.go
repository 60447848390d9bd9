package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/event"
)

// progress renders one Progress event: a line that redraws itself on a terminal, a
// plain line at every quarter elsewhere.
func (t *teller) progress(e event.Event) {
	if t.st.Colour {
		t.clearLine()
		fmt.Fprintf(t.w, "  %s %-9s %s", t.st.Dim("…"), clean(e.Text), Progress(e))
		t.open = true
		return
	}
	if t.told == nil {
		t.told = map[string]int{}
	}
	step := int(e.Part * 4)
	if step <= t.told[e.Stage] || step >= 4 { // the end is told by Done
		return
	}
	t.told[e.Stage] = step
	fmt.Fprintf(t.w, "  … %s  %s\n", clean(e.Text), amount(e))
}

// barWidth is how many characters the bar has.
const barWidth = 16

// Progress says how far something is: a bar, bytes, rate and time left, each
// where it is known.
func Progress(e event.Event) string {
	if e.Bytes > 0 && e.Total == 0 {
		return amount(e) // the end is not known, so a bar would be a guess
	}
	full := max(0, min(int(e.Part*barWidth+0.5), barWidth))
	return strings.Repeat("█", full) + strings.Repeat("░", barWidth-full) + "  " + amount(e)
}

// amount is Progress in words alone.
func amount(e event.Event) string {
	var out string
	switch {
	case e.Bytes == 0 && e.Total == 0:
		return fmt.Sprintf("%.0f %%", e.Part*100)
	case e.Bytes < e.Total:
		out = fmt.Sprintf("%s of %s", Bytes(e.Bytes), Bytes(e.Total))
	default:
		out = Bytes(e.Bytes)
	}
	if e.Rate > 0 {
		out += ", " + Bytes(int64(e.Rate)) + "/s"
		if left := e.Total - e.Bytes; left > 0 {
			out += ", about " + timeLeft(float64(left)/e.Rate) + " left"
		}
	}
	return out
}

// timeLeft rounds so that the number does not jump about.
func timeLeft(seconds float64) string {
	d := time.Duration(min(seconds, 24*3600) * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%d s", int(d.Seconds())+1)
	case d < time.Minute:
		return fmt.Sprintf("%d s", (int(d.Seconds())/5+1)*5)
	}
	return fmt.Sprintf("%d min", int(d.Minutes())+1)
}

// Bytes writes a number of bytes the way people read it: "5.3 MB". A kilobyte has
// 1,000 bytes here, as on the box a shop sells.
func Bytes(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d bytes", n)
	case n < 999_500:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	case n < 999_500_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}
