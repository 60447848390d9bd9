package doctor

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/subnet"
)

// Findings are shown to strangers: people paste them into forums. So whatever names
// a household on the internet is taken out unless somebody asks for all.
//
// Addresses are recognised wherever they stand; names that are no address are put
// between two marks where they are written, which no text of a router can hold.
const (
	markOn  = "\x02"
	markOff = "\x03"
)

// private marks a name that a stranger should not see.
func private(name string) string { return markOn + name + markOff }

var (
	marked      = regexp.MustCompile(markOn + "[^" + markOff + "]*" + markOff)
	addressLike = regexp.MustCompile(`[0-9A-Fa-f:.]*[.:][0-9A-Fa-f:.]*[0-9A-Fa-f:]`)
	longKey     = regexp.MustCompile(`[A-Za-z0-9+/]{43}=`)
)

// Full gives the report with everything in it.
func (r Report) Full() Report {
	return r.texts(func(s string) string { return strings.NewReplacer(markOn, "", markOff, "").Replace(s) })
}

// Redacted gives the report without public addresses, names and keys. What was the
// same before is the same afterwards: «address 1» is one address throughout.
func (r Report) Redacted(f Facts) Report {
	d := redactor{seen: map[string]string{}, counts: map[string]int{}}
	if n := f.Home.Tunnel.Endpoint; n != "" {
		if _, err := netip.ParseAddr(n); err != nil {
			d.names = append(d.names, n)
		}
	}
	for _, n := range f.Home.DNS.Search {
		if strings.Contains(n, ".") {
			d.names = append(d.names, n)
		}
	}
	if f.Router.Known {
		if n := f.Router.Value.Board.Hostname; len(n) > 3 && !strings.EqualFold(n, "openwrt") {
			d.names = append(d.names, n)
		}
	}
	slices.SortFunc(d.names, func(a, b string) int { return len(b) - len(a) })
	return r.texts(d.clean)
}

type redactor struct {
	names  []string
	seen   map[string]string
	counts map[string]int
}

// mask is what stands for a thing, the same one each time.
func (d *redactor) mask(kind, text string) string {
	id := kind + " " + strings.ToLower(text)
	if m, ok := d.seen[id]; ok {
		return m
	}
	d.counts[kind]++
	d.seen[id] = fmt.Sprintf("«%s %d»", kind, d.counts[kind])
	return d.seen[id]
}

func (d *redactor) clean(s string) string {
	s = marked.ReplaceAllStringFunc(s, func(m string) string { return d.mask("name", m[1:len(m)-1]) })
	s = longKey.ReplaceAllStringFunc(s, func(m string) string { return d.mask("key", m) })
	for _, n := range d.names {
		for {
			i := strings.Index(strings.ToLower(s), strings.ToLower(n))
			if i < 0 {
				break
			}
			s = s[:i] + d.mask("name", n) + s[i+len(n):]
		}
	}
	return addressLike.ReplaceAllStringFunc(s, d.address)
}

// address masks what is a public address, with or without a port or a mask behind it.
func (d *redactor) address(m string) string {
	a, tail := splitAddress(m)
	if !a.IsValid() || !subnet.IsPublic(a) {
		return m
	}
	return d.mask("address", a.String()) + tail
}

// splitAddress reads an address from the beginning of a token.
func splitAddress(m string) (netip.Addr, string) {
	if a, err := netip.ParseAddr(m); err == nil {
		return a, ""
	}
	if i := strings.LastIndexByte(m, ':'); i > 0 {
		if a, err := netip.ParseAddr(m[:i]); err == nil {
			return a, m[i:]
		}
	}
	return netip.Addr{}, ""
}

// texts changes every text of a report.
func (r Report) texts(change func(string) string) Report {
	all := func(list []string) []string {
		var out []string
		for _, s := range list {
			out = append(out, change(s))
		}
		return out
	}
	findings := func(list []Finding) []Finding {
		out := slices.Clone(list)
		for i, f := range out {
			f.Headline, f.Cause, f.Seen = change(f.Headline), change(f.Cause), all(f.Seen)
			f.Remedies = slices.Clone(f.Remedies)
			for k := range f.Remedies {
				f.Remedies[k].Do, f.Remedies[k].Why = change(f.Remedies[k].Do), change(f.Remedies[k].Why)
			}
			out[i] = f
		}
		return out
	}
	checks := func(list []Check) []Check {
		out := slices.Clone(list)
		for i := range out {
			out[i].Because = change(out[i].Because)
		}
		return out
	}
	r.Findings, r.Explained = findings(r.Findings), findings(r.Explained)
	r.RuledOut, r.NotTested, r.Moot = checks(r.RuledOut), checks(r.NotTested), checks(r.Moot)
	return r
}
