package isprouters

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/guides.txt")

var want = Want{Proto: "udp", External: 51820, To: netip.MustParseAddr("192.168.2.253"), To6: netip.MustParseAddr("2001:db8:7::253"), Device: "OpenWrt"}

// Every guide in both languages, as a person reads it.
func TestGuides(t *testing.T) {
	var b strings.Builder
	for _, r := range All() {
		for _, l := range []Language{English, German} {
			g := r.Guide(want, Named, netip.MustParseAddr("192.168.2.1"), l)
			fmt.Fprintf(&b, "-- %s %s --\n%s\n", r.ID, l, g.Title)
			for _, row := range g.Rows {
				fmt.Fprintf(&b, "  %-10s %s\n", row.Label, row.Text)
			}
		}
	}
	const file = "testdata/guides.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil || string(golden) != b.String() {
		t.Errorf("the guides are not those of %s (%v); look at the difference, then -update", file, err)
	}
}

// Where nobody comes in over IPv4 the guide begins with IPv6 and names no port to
// type for IPv4; without an IPv6 address of the home router it is as ever.
func TestGuideOnly6(t *testing.T) {
	w := want
	w.Only6 = true
	for _, r := range All() {
		for _, l := range []Language{English, German} {
			g := r.Guide(w, Named, netip.MustParseAddr("192.168.2.1"), l)
			if g.Rows[0].Label != labelPage.in(l) || g.Rows[1].Label != "IPv6" || !strings.Contains(g.Rows[1].Text, "2001:db8:7::253") {
				t.Errorf("%s %s: %+v", r.ID, l, g.Rows)
			}
			for _, row := range g.Rows {
				if slices.Contains([]string{labelType.in(l), labelFix.in(l), labelOpen.in(l), labelSearch.in(l)}, row.Label) {
					t.Errorf("%s %s tells of IPv4: %+v", r.ID, l, row)
				}
			}
			w4 := w
			w4.To6 = netip.Addr{}
			if g = r.Guide(w4, Named, netip.Addr{}, l); !slices.ContainsFunc(g.Rows, func(row Row) bool { return row.Label == labelType.in(l) }) {
				t.Errorf("%s %s without IPv6: %+v", r.ID, l, g.Rows)
			}
		}
	}
}

// What is typed stands in every guide: protocol, port and address; and no verb of
// a format is left over.
func TestGuideHoldsTheValues(t *testing.T) {
	w := want
	w.External, w.Internal = 443, 51821
	for _, r := range All() {
		for _, l := range []Language{English, German} {
			g := r.Guide(w, Named, netip.Addr{}, l)
			text := g.Title
			for _, row := range g.Rows {
				text += "\n" + row.Text
			}
			for _, part := range []string{"UDP", "443", "192.168.2.253", "2001:db8:7::253"} {
				if !strings.Contains(text, part) {
					t.Errorf("%s %s does not say %s:\n%s", r.ID, l, part, text)
				}
			}
			if strings.Contains(text, "%") {
				t.Errorf("%s %s: a format is left over:\n%s", r.ID, l, text)
			}
			if strings.Contains(r.fields.en+plainFields.en, "%[3]d") && r.ID != "sky" && r.ID != "livebox" && !strings.Contains(text, "51821") {
				t.Errorf("%s %s does not say the home router's own port:\n%s", r.ID, l, text)
			}
		}
	}
}

// Each entry says where it is from, and has a path or words to look for.
func TestEntries(t *testing.T) {
	ids, marks := map[string]bool{}, map[string]string{}
	for _, r := range All() {
		if r.source == "" || r.words.en == "" || ids[r.ID] {
			t.Errorf("%s: source %q, words %q", r.ID, r.source, r.words.en)
		}
		ids[r.ID] = true
		for _, m := range r.marks {
			if plain(m) != m {
				t.Errorf("%s: the mark %q can never be found", r.ID, m)
			}
			if other := marks[m]; other != "" {
				t.Errorf("%q is a mark of %s and of %s", m, other, r.ID)
			}
			marks[m] = r.ID
		}
	}
	for _, id := range []string{"fritzbox", "speedport", "vodafone", "livebox", "bbox", "freebox", "kpn", "virgin", "bt", "sky", "unifi", "generic"} {
		if !ids[id] {
			t.Errorf("%s is missing", id)
		}
	}
}

func TestRecognise(t *testing.T) {
	for _, c := range []struct {
		seen Seen
		id   string
		how  Certainty
	}{
		{Seen{Maker: "AVM Berlin", Model: "FRITZ!Box 7590"}, "fritzbox", Named},
		{Seen{Model: "FRITZ!Box 6660 Cable"}, "fritzbox", Named},
		{Seen{Title: "FRITZ!Box 7530"}, "fritzbox", Named},
		{Seen{Gateway: netip.MustParseAddr("192.168.178.1")}, "fritzbox", Likely},
		{Seen{Maker: "Deutsche Telekom AG", Model: "Speedport Smart 4"}, "speedport", Named},
		{Seen{Name: "Speedport_W_724V_09091602"}, "speedport", Named},
		{Seen{Title: "Vodafone Station"}, "vodafone", Named},
		{Seen{Maker: "Sagemcom", Model: "Livebox 6"}, "livebox", Named},
		{Seen{Maker: "Sagemcom", Model: "F@st5696b", Name: "Bbox"}, "bbox", Named},
		{Seen{Maker: "Freebox SA", Model: "Freebox Server"}, "freebox", Named},
		{Seen{Name: "KPN Box 12"}, "kpn", Named},
		{Seen{Gateway: netip.MustParseAddr("192.168.2.254")}, "generic", Unknown},
		{Seen{Title: "Virgin Media Hub 3.0"}, "virgin", Named},
		{Seen{Maker: "Sagemcom", Model: "Smart Hub 2", Name: "BT Smart Hub 2"}, "bt", Named},
		{Seen{Name: "Sky Hub"}, "sky", Named},
		{Seen{Server: "Skype/1.0"}, "generic", Unknown},
		{Seen{Maker: "Ubiquiti Inc.", Model: "UDM-Pro"}, "unifi", Named},
		{Seen{Maker: "MiniUPnP", Model: "Linux router"}, "generic", Unknown},
		{Seen{Gateway: netip.MustParseAddr("192.168.1.254")}, "generic", Unknown},
		// A name says more than an address.
		{Seen{Model: "Speedport Smart 4", Gateway: netip.MustParseAddr("192.168.178.1")}, "speedport", Named},
		{Seen{}, "generic", Unknown},
	} {
		if r, how := Recognise(c.seen); r.ID != c.id || how != c.how {
			t.Errorf("%+v is %s (%d), want %s (%d)", c.seen, r.ID, how, c.id, c.how)
		}
	}
}

func TestLanguage(t *testing.T) {
	for _, c := range []struct {
		settings []string
		want     Language
	}{
		{nil, English}, {[]string{"", "", "de_DE.UTF-8"}, German}, {[]string{"", "de"}, German}, {[]string{"de_AT@euro"}, German},
		{[]string{"C", "", "de_DE.UTF-8"}, English}, {[]string{"", "", "den_CA"}, English}, {[]string{"fr_FR.UTF-8"}, English}, {[]string{"DE.UTF-8"}, German},
	} {
		if got := LanguageOf(c.settings...); got != c.want {
			t.Errorf("%q: %s, want %s", c.settings, got, c.want)
		}
	}
}

// What a router calls itself is from outside.
func FuzzRecognise(f *testing.F) {
	f.Add("AVM Berlin", "FRITZ!Box 7590", "192.168.178.1")
	f.Add("%[1]s", "%!d(x=", "::1")
	f.Add(strings.Repeat("bbox", 1000), "\xff\x00", "")
	f.Fuzz(func(t *testing.T, maker, model, at string) {
		gateway, _ := netip.ParseAddr(at)
		r, how := Recognise(Seen{Maker: maker, Model: model, Gateway: gateway})
		if (r.ID == generic.ID) != (how == Unknown) {
			t.Errorf("%s, %d", r.ID, how)
		}
		g := r.Guide(want, how, gateway, German)
		if len(g.Rows) < 2 || strings.Contains(g.Title, "%!") {
			t.Errorf("%+v", g)
		}
	})
}
