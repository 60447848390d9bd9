package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/uci"
)

// zoneName is the zone of a device, or words for none.
func (w *walk) zoneName(dev string, from netip.Addr) string {
	if z, ok := w.rules.Zone(dev, from); ok {
		return z
	}
	return dev + " (in no zone)"
}

// refusedRules: nft takes none of this ruleset. The router goes on with an older
// one that nobody can see here.
func (w *walk) refusedRules(h *Hop) bool {
	if !w.rules.Refused() {
		return false
	}
	for _, x := range w.warn {
		if x.Refuses {
			h.doubt(x.Text, "the firewall's file cannot be loaded as a whole: the router goes on with its old rules, or with none after a restart")
			h.Lines[len(h.Lines)-1].Because = w.place("firewall", x.Section, "")
			return true
		}
	}
	h.doubt("", "the firewall's file cannot be loaded as a whole")
	return true
}

// section finds the section that a hit is about.
func (w *walk) section(h firewall.Hit) (uci.Section, bool) {
	if h.Config == "" || h.Section == "" {
		return uci.Section{}, false
	}
	return w.snap.Config(h.Config).Section(h.Section)
}

// tellHits adds a line for each section that had a say, but for the bare fact
// that a packet comes in by a zone.
func (w *walk) tellHits(h *Hop, v firewall.Verdict, zones string) {
	for _, x := range v.Hits {
		s, ok := w.section(x)
		if ok && s.Type == "zone" && strings.HasPrefix(x.Says, "it ") {
			continue
		}
		says := x.Says
		switch {
		case !ok:
		case s.Type == "forwarding":
			says = "allowed by forwarding " + w.called(x, s)
		case s.Type == "rule" && v.Action == firewall.Accept && strings.HasPrefix(x.Says, "lets through"):
			says = "let through by rule " + w.called(x, s)
		default:
			says = fmt.Sprintf("%s %s %s", kindOf(s.Type), w.called(x, s), x.Says)
		}
		h.say("", w.place(x.Config, x.Section, optionOf(s.Type, x.Says)), "%s: %s", zones, says)
	}
}

// called is what people call a section: its own name, else what stands in its
// option name, else its place.
func (w *walk) called(x firewall.Hit, s uci.Section) string {
	if s.Type == "zone" {
		return x.Name
	}
	if !s.Anonymous {
		return s.Name
	}
	if n, ok := s.Get("name"); ok {
		return n
	}
	return label(w.snap.Config(x.Config), s)
}

func kindOf(typ string) string {
	switch typ {
	case "redirect":
		return "port forward"
	case "nat":
		return "address rule"
	case "defaults":
		return "the firewall's"
	}
	return typ
}

// optionOf is the option of a zone that a hit speaks about.
func optionOf(typ, says string) string {
	switch {
	case typ != "zone" && typ != "defaults":
		return ""
	case strings.HasPrefix(says, "masq"):
		option, _, _ := strings.Cut(says, ":")
		return option
	case strings.Contains(says, "for the router itself"):
		return "input"
	case strings.Contains(says, "the router sends"):
		return "output"
	}
	return "forward"
}

func (w *walk) lastPlace(v firewall.Verdict) []Place {
	if len(v.Hits) == 0 {
		return nil
	}
	x := v.Hits[len(v.Hits)-1]
	s, _ := w.section(x)
	return w.place(x.Config, x.Section, optionOf(s.Type, x.Says))
}

// verdictEnd is the end of a packet that the firewall does not let through.
func (w *walk) verdictEnd(v firewall.Verdict, cause Cause, says, zones string) end {
	e := end{cause: cause, silent: v.Answer == nil, says: says, because: w.lastPlace(v)}
	if len(v.Hits) == 0 {
		return e
	}
	x := v.Hits[len(v.Hits)-1]
	s, ok := w.section(x)
	switch {
	case !ok:
		e.line = zones + ": " + x.Says
	case s.Type == "rule" || s.Type == "redirect" || s.Type == "nat":
		e.says += fmt.Sprintf(": %s %s %s", kindOf(s.Type), w.called(x, s), x.Says)
		e.line = fmt.Sprintf("%s: %s %s %s", zones, kindOf(s.Type), w.called(x, s), x.Says)
	case s.Type == "defaults":
		e.line = fmt.Sprintf("%s: the firewall's defaults: %s", zones, x.Says)
	default:
		e.line = fmt.Sprintf("%s: zone %s %s", zones, x.Name, x.Says)
	}
	if skipped := w.skippedNear(); skipped != nil {
		e.note = skipped.Text
	}
	return e
}

// skippedNear is the first section that the firewall leaves out because of a
// mistake in it: often the one that was meant to help.
func (w *walk) skippedNear() *firewall.Warning {
	for i, x := range w.warn {
		if x.Skipped && !strings.Contains(x.Text, "disabled") {
			return &w.warn[i]
		}
	}
	return nil
}
