package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A FormatError says why a text is not a plan that this program can carry out.
type FormatError struct{ Why string }

func (e *FormatError) Error() string { return "not a plan: " + e.Why }

// Parse reads a plan that was saved as JSON. It is strict: an unknown key, word
// or format number is a *FormatError, because a step that is not understood must
// not be left out.
func Parse(text []byte) (*Plan, error) {
	var format struct{ Format int }
	if err := json.Unmarshal(text, &format); err != nil {
		return nil, &FormatError{err.Error()}
	}
	if format.Format != Format {
		return nil, &FormatError{fmt.Sprintf("its format is %d, and this heimweg reads %d", format.Format, Format)}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	p := new(Plan)
	if err := d.Decode(p); err != nil {
		return nil, &FormatError{err.Error()}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &FormatError{"there is more behind its end"}
	}
	for i := range p.Steps {
		if err := p.Steps[i].check(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (s Step) check() error {
	switch {
	case !slices.Contains(actions, s.Do):
		return &FormatError{fmt.Sprintf("step %q does what is not known: %q", s.ID, s.Do)}
	case !slices.Contains(risks, s.Risk):
		return &FormatError{fmt.Sprintf("step %q has an unknown risk: %q", s.ID, s.Risk)}
	case (s.Do == Activate) != (s.How != "") || s.How != "" && !slices.Contains(ways, s.How):
		return &FormatError{fmt.Sprintf("step %q works in an unknown way: %q", s.ID, s.How)}
	case s.ID != s.id():
		return &FormatError{fmt.Sprintf("step %q is not what its name says", s.ID)}
	}
	for _, l := range slices.Concat(s.Old, s.New) {
		if l.Option == "" || l.Secret != NotSecret && len(l.Values) > 0 || !slices.Contains([]Secret{NotSecret, SecretThere, SecretKept, SecretNew}, l.Secret) {
			return &FormatError{fmt.Sprintf("step %q has a line that makes no sense", s.ID)}
		}
	}
	return nil
}
