package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/heimweg/heimweg/internal/isprouters"
)

// Guide writes what a person has to do at the ISP router, one line for each thing.
func Guide(w io.Writer, st Style, g isprouters.Guide) {
	width := 0
	for _, r := range g.Rows {
		width = max(width, runes(r.Label))
	}
	fmt.Fprintln(w, st.Strong(clean(g.Title)))
	for _, r := range g.Rows {
		fmt.Fprintf(w, "  %s%s  %s\n", clean(r.Label), strings.Repeat(" ", width-runes(r.Label)), clean(r.Text))
	}
}
