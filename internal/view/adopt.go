package view

import (
	"fmt"
	"io"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/fault"
)

// Adopted is what `heimweg adopt` tells. Its JSON form is stable.
type Adopted struct {
	Tunnel  string         `json:"tunnel"`
	Source  string         `json:"source,omitempty"` // the file that describes the gateway; "" for the router
	Devices []string       `json:"devices"`
	Parts   []adopt.Part   `json:"parts"`
	Stays   []*fault.Fault `json:"cannot_move,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
	Home    string         `json:"home"`
	Written bool           `json:"written"`
	Done    bool           `json:"already_heimwegs,omitempty"`
}

// ShowAdopted writes it for people: the worst parts first, each with its reason and
// with what becomes of it.
func ShowAdopted(w io.Writer, st Style, v Adopted) {
	colour := map[adopt.Verdict]func(string) string{
		adopt.Harmful: st.Bad, adopt.Unsafe: st.Changed, adopt.Needed: st.Good, adopt.Redundant: st.Dim,
	}
	for _, p := range v.Parts {
		place := ""
		if p.Place != nil {
			place = "   " + st.Dim("("+partPlace(*p.Place)+")")
		}
		fmt.Fprintf(w, "%s  %s%s\n", colour[p.Verdict](pad(string(p.Verdict), 9)), st.Strong(clean(p.What)), place)
		fmt.Fprintf(w, "           %s\n", clean(p.Why))
		if p.Then != "" {
			fmt.Fprintf(w, "           → %s\n", clean(p.Then))
		}
	}
	if len(v.Parts) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range v.Notes {
		fmt.Fprintf(w, "%s %s\n", st.Dim("i"), clean(n))
	}
	for _, f := range v.Stays {
		one(w, st, f)
	}
}

func partPlace(p fault.Place) string {
	if p.Line == 0 {
		return clean(p.File)
	}
	return fmt.Sprintf("%s:%d", clean(p.File), p.Line)
}
