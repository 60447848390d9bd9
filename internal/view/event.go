package view

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/event"
)

// Teller renders events as they come. On a terminal the line of a stage is
// written when it begins and completed when it ends; elsewhere each event is one
// plain line; as JSON each is one object a line.
func Teller(w io.Writer, st Style, asJSON bool) event.Tell {
	t := &teller{w: w, st: st}
	if asJSON {
		return t.json
	}
	return t.text
}

type teller struct {
	mu   sync.Mutex
	w    io.Writer
	st   Style
	open bool           // a line without its end stands on the terminal
	told map[string]int // where there is no terminal: how far the person was told last, by stage
}

func (t *teller) json(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	json.NewEncoder(t.w).Encode(e)
}

func (t *teller) text(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Kind != event.Progress {
		delete(t.told, e.Stage)
	}
	switch e.Kind {
	case event.Began:
		if t.st.Colour {
			t.endLine()
			fmt.Fprintf(t.w, "  %s %s", t.st.Dim("…"), e.Text)
			t.open = true
		}
	case event.Done:
		t.clearLine()
		fmt.Fprintf(t.w, "  %s %-64s %s\n", t.st.Good("✓"), e.Text, t.st.Dim(Took(e.Took)))
	case event.Failed:
		t.clearLine()
		fmt.Fprintf(t.w, "  %s %-64s %s\n", t.st.Bad("✗"), e.Text, t.st.Dim(Took(e.Took)))
	case event.Note:
		t.endLine()
		fmt.Fprintf(t.w, "  %s %s\n", t.st.Dim("i"), e.Text)
	case event.Progress:
		t.progress(e)
	}
}

func (t *teller) clearLine() {
	if t.open {
		fmt.Fprint(t.w, "\r\x1b[K")
		t.open = false
	}
}

func (t *teller) endLine() {
	if t.open {
		fmt.Fprintln(t.w)
		t.open = false
	}
}

// Took writes a measured time the way people read it.
func Took(d time.Duration) string {
	switch {
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 119500*time.Millisecond:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
}
