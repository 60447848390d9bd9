package view

import (
	"fmt"
	"io"

	"github.com/heimweg/heimweg/internal/endpoint"
)

// Where writes where home is: the verdict, what devices call, and, unless all is
// as usual, what was seen, what is not known and what to do. The ISP router's port
// mapping is told elsewhere, by the part that opens it.
func Where(w io.Writer, st Style, v endpoint.Verdict) {
	words := v.Words()
	switch v.Kind {
	case endpoint.CGNAT, endpoint.DSLite, endpoint.IPv6Only, endpoint.DoubleNAT:
		words = st.Strong(words)
	}
	fmt.Fprintf(w, "%-24s %s\n", "Where home is", words)
	switch e := v.Endpoint; {
	case e.Host == "":
		fmt.Fprintf(w, "%-24s nothing yet: %s\n", "Devices call", whyNot(v))
	case e.IPv6 && e.Sure:
		once := ""
		if _, closed := v.Step(endpoint.StepOpen6); closed {
			once = ", once the ISP router lets it in"
		}
		fmt.Fprintf(w, "%-24s %s, over IPv6%s\n", "Devices call", clean(e.Host), once)
	case !e.Sure && e.Addr.IsValid() && e.Host != e.Addr.String():
		fmt.Fprintf(w, "%-24s %s, once it points to %s\n", "Devices call", clean(e.Host), e.Addr)
	case !e.Sure:
		fmt.Fprintf(w, "%-24s perhaps %s\n", "Devices call", clean(e.Host))
	default:
		fmt.Fprintf(w, "%-24s %s\n", "Devices call", clean(e.Host))
	}
	usual := v.Kind == endpoint.Public
	if !usual {
		for _, s := range v.Seen {
			fmt.Fprintf(w, "  seen     %s\n", clean(s))
		}
		for _, m := range v.Missing {
			fmt.Fprintf(w, "  unknown  %s (%s)\n", m.Fact, clean(m.Why))
		}
	}
	for _, s := range v.Steps {
		if usual && s.ID == endpoint.StepMap {
			continue
		}
		fmt.Fprintf(w, "  next     %s\n", clean(s.What))
		if s.Command != "" {
			fmt.Fprintf(w, "           %s\n", s.Command)
		}
	}
}

func whyNot(v endpoint.Verdict) string {
	switch v.Kind {
	case endpoint.CGNAT, endpoint.DSLite, endpoint.IPv6Only:
		return "the provider lets nobody call this house"
	}
	return "too little is known"
}
