// Package event is what long work tells while it goes on: a stream of small
// values that the surface renders as a line that redraws itself, as plain lines,
// or as JSON. Flows send events; they never print.
//
// An event never holds a secret.
package event

import "time"

// Kind is what happened.
type Kind string

// The kinds of event.
const (
	Began    Kind = "began"    // a stage started
	Done     Kind = "done"     // it ended well
	Failed   Kind = "failed"   // it ended badly; the failure itself is returned, not told
	Note     Kind = "note"     // something worth knowing
	Progress Kind = "progress" // Part of a stage is done
)

// An Event is one thing that happened.
type Event struct {
	Kind  Kind          `json:"event"`
	Stage string        `json:"stage"`          // stable name for scripts: "snapshot"
	Text  string        `json:"text,omitempty"` // for people
	Took  time.Duration `json:"took_ns,omitempty"`
	Part  float64       `json:"part,omitempty"` // 0 to 1, for Progress
	// Bytes of Total are through, at Rate bytes a second lately; for Progress of what
	// moves bytes. Total is 0 and Rate is 0 while they are not known.
	Bytes int64   `json:"bytes,omitempty"`
	Total int64   `json:"total,omitempty"`
	Rate  float64 `json:"bytes_per_second,omitempty"`
}

// Tell receives events; nil receives nothing.
type Tell func(Event)

// Note tells something worth knowing.
func (t Tell) Note(stage, text string) { t.send(Event{Kind: Note, Stage: stage, Text: text}) }

// Bytes tells how far a transfer is: done of total bytes (0: not known), at rate
// bytes a second lately (0: not known).
func (t Tell) Bytes(stage, text string, done, total int64, rate float64) {
	e := Event{Kind: Progress, Stage: stage, Text: text, Bytes: done, Total: total, Rate: rate}
	if total > 0 {
		e.Part = min(float64(done)/float64(total), 1)
	}
	t.send(e)
}

// Progress tells how far a stage is that moves no bytes: part of it, 0 to 1.
func (t Tell) Progress(stage, text string, part float64) {
	t.send(Event{Kind: Progress, Stage: stage, Text: text, Part: part})
}

// Stage tells that a stage began and returns what tells its end. Call end with
// the stage's error and, for the good end, what there is to say.
func (t Tell) Stage(stage, text string) (end func(err error, text string)) {
	start := time.Now()
	t.send(Event{Kind: Began, Stage: stage, Text: text})
	return func(err error, done string) {
		e := Event{Kind: Done, Stage: stage, Text: done, Took: time.Since(start)}
		if err != nil {
			e.Kind, e.Text = Failed, text
		}
		if e.Text == "" {
			e.Text = text
		}
		t.send(e)
	}
}

func (t Tell) send(e Event) {
	if t != nil {
		t(e)
	}
}
