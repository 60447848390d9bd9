package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// NFT prints a ruleset for nftables that means the same: one table of family
// inet, whose comments name the section that each rule comes from, and whose
// counters tell how often it spoke. It is not fw4's text. Load it as a whole with `nft -f`, with TZ=UTC in the environment if
// there are times of day in it. Sets, chains and limits are in it, and the
// clamping of TCP segments (`mtu_fix`), of which a [Verdict] says nothing.
//
// The warnings name what is left out. A ruleset that is [Ruleset.Refused] is
// printed as an empty table, which lets everything pass as it does at home.
func (r *Ruleset) NFT() (string, []Warning) {
	p := printer{r: r, names: map[*chain]string{}, taken: map[string]bool{}, gaps: slices.Clone(r.gaps)}
	p.line("table inet %s", nftTable)
	p.line("delete table inet %s", nftTable)
	p.line("")
	p.line("table inet %s {", nftTable)
	if !r.refused {
		p.all()
	}
	p.line("}")
	return p.b.String(), p.gaps
}

// nftTable is the name of our table, unlike fw4's.
const nftTable = "heimweg"

// nftBases are the places of nftables, in the order in which packets pass them.
func (h *hooks) nftBases() []nftBase {
	return []nftBase{
		{h.rawPre, "raw_prerouting", "filter", "prerouting", "raw"},
		{h.preMangle, "mangle_prerouting", "filter", "prerouting", "mangle"},
		{h.dstnat, "dstnat", "nat", "prerouting", "dstnat"},
		{h.inMangle, "mangle_input", "filter", "input", "mangle"},
		{h.input, "input", "filter", "input", "filter"},
		{h.fwdMangle, "mangle_forward", "filter", "forward", "mangle"},
		{h.forward, "forward", "filter", "forward", "filter"},
		{h.rawOut, "raw_output", "filter", "output", "raw"},
		{h.outMangle, "mangle_output", "route", "output", "mangle"},
		{h.output, "output", "filter", "output", "filter"},
		{h.postMangle, "mangle_postrouting", "filter", "postrouting", "mangle"},
		{h.srcnat, "srcnat", "nat", "postrouting", "srcnat"},
	}
}

type nftBase struct {
	chain                      *chain
	name, kind, hook, priority string
}

// printer writes one ruleset.
type printer struct {
	r     *Ruleset
	b     strings.Builder
	names map[*chain]string
	taken map[string]bool
	queue []*chain
	sets  map[*ipset]string // "" for one that nft cannot hold
	gaps  []Warning
}

func (p *printer) line(format string, args ...any) {
	fmt.Fprintf(&p.b, format+"\n", args...)
}

func (p *printer) all() {
	p.printSets()
	for _, b := range p.r.hooks.nftBases() {
		p.taken[b.name] = true
	}
	p.taken[rejectChain] = true
	for _, b := range p.r.hooks.nftBases() {
		p.line("\tchain %s {", b.name)
		policy := "accept"
		if b.priority == "filter" {
			policy = "drop" // each of the three ends with a verdict of its own
		}
		p.line("\t\ttype %s hook %s priority %s; policy %s", b.kind, b.hook, b.priority, policy)
		p.rules(b.chain)
		p.line("\t}")
		p.line("")
	}
	for len(p.queue) > 0 {
		c := p.queue[0]
		p.queue = p.queue[1:]
		p.line("\tchain %s {", p.names[c])
		p.rules(c)
		p.line("\t}")
		p.line("")
	}
	p.line("\tchain %s {", rejectChain)
	for i, with := range []Answer{p.r.resetWith, p.r.rejectWith} {
		how := "reject with icmpx type " + with.String()
		if with == TCPReset {
			how = "reject with tcp reset"
		}
		if i == 0 || with == TCPReset {
			how = "meta l4proto tcp " + how
		}
		p.line("\t\t%s", how)
	}
	p.line("\t}")
}

// rejectChain tells a sender: TCP in its own way. "reject with tcp reset" says
// nothing about other protocols, which go on behind the jump.
const rejectChain = "refuse"

func (p *printer) rules(c *chain) {
	if c == nil {
		return
	}
	for i := range c.rules {
		ru := &c.rules[i]
		cond, ever := p.cond(&ru.match)
		do, possible := p.verb(ru)
		comment := p.comment(ru.hit)
		switch {
		case !possible:
			continue
		case !ever:
			p.line("\t\t# never: %s", strings.TrimSpace(do+comment))
		default:
			if comment != "" && ru.do != doNothing {
				cond = append(cond, "counter") // tells afterwards which section spoke
			}
			p.line("\t\t%s", strings.Join(append(cond, do), " ")+comment)
		}
	}
}

// comment names the section. nft takes 127 bytes, without quotation marks.
func (p *printer) comment(h *Hit) string {
	if h == nil || h.Config == "" {
		return ""
	}
	s := h.Config + "." + h.Section
	if h.Name != "" && h.Name != h.Section {
		s += " " + h.Name
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\\' || r == 0x7F || r == '\uFFFD' {
			return '_'
		}
		return r
	}, s)
	const most = 120
	for len(s) > most {
		cut := []rune(s)
		s = string(cut[:len(cut)-1])
	}
	return ` comment "` + s + `"`
}

// chainName finds the name of a chain that is jumped to, and has it printed.
func (p *printer) chainName(c *chain) string {
	if name, ok := p.names[c]; ok {
		return name
	}
	name := c.name
	if len(name) > 100 || !identifier.MatchString(name) || p.taken[name] {
		name = fmt.Sprintf("chain_%d", len(p.names))
	}
	p.names[c] = name
	p.taken[name] = true
	p.queue = append(p.queue, c)
	return name
}

// verb prints what a rule does; false if nft has nothing of the kind.
func (p *printer) verb(ru *rule) (string, bool) {
	switch ru.do {
	case doNothing:
		return "counter", true
	case doJump:
		return "jump " + p.chainName(ru.jump), true
	case doAccept:
		return "accept", true
	case doDrop:
		return "drop", true
	case doReject:
		return "jump " + rejectChain, true
	case doDNAT:
		return p.translation("dnat", ru), true
	case doRedirect:
		return p.translation("redirect", ru), true
	case doSNAT:
		return p.translation("snat", ru), true
	case doMasquerade:
		return p.translation("masquerade", ru), true
	case doMark:
		return fmt.Sprintf("meta mark set meta mark & 0x%08x ^ 0x%08x", ^ru.mask, ru.set), true
	case doDSCP:
		return fmt.Sprintf("%s dscp set 0x%02x", nftIP(ru.match.family), ru.set), true
	case doNoTrack:
		return "notrack", true
	case doClampMSS:
		return "tcp flags syn / syn,fin,rst tcp option maxseg size set rt mtu", true
	}
	p.gap(ru.hit, "does something that is not printed")
	return "", false
}

// translation prints a rewriting: "dnat ip to 192.168.1.9:80-90".
func (p *printer) translation(word string, ru *rule) string {
	n := &ru.nat
	to := ""
	if n.from.IsValid() {
		word += " " + nftIP(uint8(family(n.from)))
		to = n.from.String()
		if n.ports && n.from.Is6() {
			to = "[" + to + "]"
		}
		if n.to.IsValid() {
			end := n.to.String()
			if n.ports && n.from.Is6() {
				end = "[" + end + "]"
			}
			to += "-" + end
		}
	}
	if n.ports {
		to += ":" + nftPort(portSpan{n.min, n.max})
	}
	if to == "" {
		return word
	}
	return word + " to " + to
}

func (p *printer) gap(h *Hit, text string) {
	w := Warning{Text: text}
	if h != nil {
		w.Section = h.Section
	}
	if !slices.Contains(p.gaps, w) {
		p.gaps = append(p.gaps, w)
	}
}
