package isprouters

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Want is what a person shall type.
type Want struct {
	Proto    string     // "udp"
	External uint16     // the port outside
	Internal uint16     // the port at the home router; 0 means the same
	To       netip.Addr // the home router in the ISP router's network; invalid: not known
	To6      netip.Addr // its own public IPv6 address; invalid: none
	Device   string     // the name that the home router has in lists: "OpenWrt"
	// Only6: over IPv4 nobody can come in, whatever is set there. With To6 the guide
	// then tells of IPv6 alone.
	Only6 bool
}

// A Row is one line of a guide.
type Row struct {
	Label string `json:"label"`
	Text  string `json:"text"`
}

// A Guide tells a person how to open a port by hand.
type Guide struct {
	Router string   `json:"router"` // ID
	Lang   Language `json:"language"`
	Title  string   `json:"title"`
	Rows   []Row    `json:"rows"`
}

// The fixed words of a guide.
var (
	titleText = text{
		en: "By hand, at the %s: let %s %d through to the home router.",
		de: "Von Hand, am Router des Anbieters (%s): %s %d zum Heimrouter durchlassen.",
	}
	likelyText = text{
		en: "By hand, at the ISP router (by its address perhaps: %s): let %s %d through to the home router.",
		de: "Von Hand, am Router des Anbieters (der Adresse nach vielleicht: %s): %s %d zum Heimrouter durchlassen.",
	}
	genericText = text{
		en: "By hand, at the %[1]s: let %[2]s %[3]d through to the home router.",
		de: "Von Hand, am Router des Anbieters: %[2]s %[3]d zum Heimrouter durchlassen.",
	}
	labelPage   = text{"settings", "Seite"}
	labelFix    = text{"first", "zuerst"}
	labelOpen   = text{"then", "dann"}
	labelSearch = text{"look for", "suchen"}
	labelType   = text{"type", "eintragen"}
	labelIPv6   = text{"IPv6", "IPv6"}
	labelBeware = text{"mind", "beachten"}
	labelAsOf   = text{"as of", "Stand"}
	labelPermit = text{"or", "oder"}

	always = text{
		en: "the home router shall always get the same address: %s",
		de: "der Heimrouter soll immer dieselbe Adresse bekommen: %s",
	}
	plainFix = text{
		en: "look for DHCP reservation, static lease, fixed IP",
		de: "suchen nach DHCP-Reservierung, statische Lease, feste IP-Adresse",
	}
	plainFields = text{
		en: "protocol %[1]s, port outside %[2]d, device %[4]s, port there %[3]d",
		de: "Protokoll %[1]s, Port außen %[2]d, Gerät %[4]s, Port dort %[3]d",
	}
	browser   = text{en: "%s in a browser", de: "%s im Browser"}
	or        = text{en: "%s or %s in a browser", de: "%s oder %s im Browser"}
	asOfText  = text{en: "%s; names may differ in yours. If it is not there, look for: %s", de: "%s; die Namen können bei Ihnen anders sein. Wenn es fehlt, suchen nach: %s"}
	unsure    = text{en: "not confirmed by its maker. If it is not there, look for: %s", de: "vom Hersteller nicht bestätigt. Wenn es fehlt, suchen nach: %s"}
	unknownTo = text{en: "the home router", de: "der Heimrouter"}
	permits   = text{en: "let heimweg do it: %s; then heimweg up", de: "heimweg machen lassen: %s; dann heimweg up"}
	openTo6   = text{en: "%s (%s)", de: "%s (%s)"}
)

// Guide writes the instructions for a router that was recognised with certainty c
// and is at gateway (invalid: not known).
func (r Router) Guide(w Want, c Certainty, gateway netip.Addr, l Language) Guide {
	if w.Internal == 0 {
		w.Internal = w.External
	}
	proto := strings.ToUpper(w.Proto)
	title := titleText
	switch {
	case r.ID == generic.ID:
		title = genericText
	case c == Likely:
		title = likelyText
	}
	g := Guide{Router: r.ID, Lang: l, Title: fmt.Sprintf(title.in(l), r.Name, proto, w.External)}
	add := func(label text, s string) {
		if s != "" {
			g.Rows = append(g.Rows, Row{label.in(l), s})
		}
	}
	to := w.name(l)
	add(labelPage, r.pages(gateway, l))
	if !w.Only6 || !w.To6.IsValid() {
		fix, fields := r.fix, r.fields
		if fix.en == "" {
			fix = plainFix
		}
		add(labelFix, fmt.Sprintf(always.in(l), fix.in(l)))
		if r.open.en != "" {
			add(labelOpen, r.open.in(l))
		} else {
			add(labelSearch, r.words.in(l))
		}
		if fields.en == "" {
			fields = plainFields
		}
		add(labelType, fill(fields.in(l), proto, w.External, w.Internal, to))
	}
	if w.To6.IsValid() {
		open6 := r.open6
		if open6.en == "" {
			open6 = generic.open6
		}
		add(labelIPv6, fmt.Sprintf(openTo6.in(l), fill(open6.in(l), proto, w.External, w.Internal, to), w.To6))
	}
	if r.permit.en != "" {
		add(labelPermit, fmt.Sprintf(permits.in(l), r.permit.in(l)))
	}
	add(labelBeware, r.beware.in(l))
	switch {
	case r.open.en == "":
	case r.asOf.en != "":
		add(labelAsOf, fmt.Sprintf(asOfText.in(l), r.asOf.in(l), r.words.in(l)))
	default:
		add(labelAsOf, fmt.Sprintf(unsure.in(l), r.words.in(l)))
	}
	return g
}

// fill puts values into a form's text, which may leave some out.
func fill(format, proto string, external, internal uint16, to string) string {
	return strings.NewReplacer("%[1]s", proto, "%[2]d", fmt.Sprint(external), "%[3]d", fmt.Sprint(internal), "%[4]s", to).Replace(format)
}

// name is how the person finds the home router in a list.
func (w Want) name(l Language) string {
	switch {
	case !w.To.IsValid():
		return unknownTo.in(l)
	case w.Device == "":
		return w.To.String()
	}
	return w.To.String() + " (" + w.Device + ")"
}

func (r Router) pages(gateway netip.Addr, l Language) string {
	at := ""
	if gateway.IsValid() {
		at = "http://" + gateway.String()
		if gateway.Is6() {
			at = "http://[" + gateway.String() + "]"
		}
	}
	switch {
	case at == "" && r.page == "":
		return ""
	case at == "" || r.page == "":
		return fmt.Sprintf(browser.in(l), at+r.page)
	}
	return fmt.Sprintf(or.in(l), r.page, at)
}

// Permit tells where a person lets programs open ports at this router, "" when
// that is not known.
func (r Router) Permit(l Language) string { return r.permit.in(l) }
