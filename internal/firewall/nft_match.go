package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cond prints the conditions of a rule, in the order in which nft tries them:
// what stands behind a limit does not give its turn back. False: no packet ever
// meets them, or nft cannot be asked.
func (p *printer) cond(m *match) ([]string, bool) {
	var out []string
	ever := true
	add := func(part string, possible bool) {
		if part != "" {
			out = append(out, part)
		}
		ever = ever && possible
	}
	if m.family != 0 {
		add(fmt.Sprintf("meta nfproto ipv%d", m.family), true)
	}
	if len(m.protos) > 0 {
		add("meta l4proto "+nftSet(m.protos, nftProto), true)
	}
	for _, s := range []struct {
		on   bool
		text string
	}{{m.known, "ct state established"}, {m.related, "ct state related"}, {m.invalid, "ct state invalid"}, {m.dnat, "ct status dnat"}} {
		if s.on {
			add(s.text, true)
		}
	}
	add(nftDevices("iifname", m.in))
	add(nftDevices("oifname", m.out))
	add(nftAddresses(nftIP(m.family)+" saddr", &m.src))
	add(nftAddresses(nftIP(m.family)+" daddr", &m.dst))
	add(nftPorts("th sport", &m.sports))
	add(nftPorts("th dport", &m.dports))
	if m.more != nil {
		add(nftMACs(m.more))
	}
	add(nftICMP(m), true)
	if m.more != nil {
		add(p.rare(m))
	}
	return out, ever
}

// rare prints the conditions that few rules have.
func (p *printer) rare(m *match) (string, bool) {
	x := m.more
	var out []string
	if x.syn {
		out = append(out, "tcp flags & (fin | syn | rst | ack) == syn")
	}
	if x.limit != nil {
		out = append(out, x.limit.nft())
	}
	if x.clock != nil {
		out = append(out, x.clock.nft()...)
	}
	if x.mark != nil {
		out = append(out, fmt.Sprintf("meta mark & 0x%08x %s 0x%08x", x.mark.mask, nftIs(x.mark.invert), x.mark.mark))
	}
	if x.dscp != nil {
		out = append(out, fmt.Sprintf("%s dscp %s 0x%02x", nftIP(m.family), nftIs(x.dscp.invert), x.dscp.class))
	}
	if x.set != nil {
		name := p.sets[x.set]
		if name == "" {
			return "", false
		}
		out = append(out, fmt.Sprintf("%s %s @%s", strings.Join(x.set.nftFields(x.setDirs), " . "), nftIs(x.setNegat), name))
	}
	return strings.Join(out, " "), !x.never
}

func nftIs(invert bool) string {
	if invert {
		return "!="
	}
	return "=="
}

func nftIP(family uint8) string {
	if family == 6 {
		return "ip6"
	}
	return "ip"
}

func nftProto(n uint8) string {
	switch n {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "ipv6-icmp"
	}
	return strconv.Itoa(int(n))
}

// nftSet prints one value as it is and several as a set.
func nftSet[T any](list []T, print func(T) string) string {
	if len(list) == 1 {
		return print(list[0])
	}
	var s []string
	for _, x := range list {
		s = append(s, print(x))
	}
	return "{ " + strings.Join(s, ", ") + " }"
}

// nftDevices: a device whose name the kernel does not allow does not exist, so
// that nothing comes in by it, and everything by another.
func nftDevices(key string, d devices) (string, bool) {
	var names, out []string
	for _, n := range d.any {
		if deviceName(n) {
			names = append(names, n)
		}
	}
	if len(d.any) > 0 && len(names) == 0 {
		return "", false
	}
	slices.Sort(names)
	names = slices.Compact(names)
	// A set refuses what another member covers.
	names = slices.DeleteFunc(names, func(n string) bool {
		return slices.ContainsFunc(names, func(w string) bool { return w != n && oneDevice([]string{w}, n) })
	})
	if len(names) > 0 {
		out = append(out, key+" "+nftSet(names, strconv.Quote))
	}
	for _, n := range d.none {
		if deviceName(n) {
			out = append(out, key+" != "+strconv.Quote(n))
		}
	}
	return strings.Join(out, " "), true
}

// deviceName reports whether there can be a device of that name (kernel:
// dev_valid_name), or several that begin so.
func deviceName(n string) bool {
	n = strings.TrimSuffix(n, "*")
	if n == "" || len(n) > 15 || n == "." || n == ".." {
		return false
	}
	for _, r := range n {
		if r <= ' ' || r > '~' || strings.ContainsRune(`/:"\*`, r) {
			return false
		}
	}
	return true
}

func nftAddresses(key string, m *addresses) (string, bool) {
	var out []string
	add := func(op string, list []span) bool {
		list = joinSpans(list)
		if len(list) == 1 && list[0].everything() {
			return op == "" // "in any" says nothing, "not in any" is never true
		}
		if len(list) > 0 {
			out = append(out, key+op+" "+nftSet(list, span.nft))
		}
		return true
	}
	ever := add("", m.any) && add(" !=", m.none)
	for _, x := range m.masked {
		out = append(out, fmt.Sprintf("%s & %s %s %s", key, x.mask, nftIs(x.invert), x.addr))
	}
	return strings.Join(out, " "), ever
}

func (s span) everything() bool {
	return s.first.IsUnspecified() && maskWith(s.last, maskOf(s.last.BitLen(), s.last.BitLen())) == maskOf(s.last.BitLen(), s.last.BitLen())
}

func (s span) nft() string {
	if s.first == s.last {
		return s.first.String()
	}
	for bits := s.first.BitLen() - 1; bits > 0; bits-- {
		p := netip.PrefixFrom(s.first, bits)
		if p.Masked().Addr() != s.first {
			break
		}
		if whole, _ := (address{addr: s.first, bits: bits}).span(); whole == s {
			return p.String()
		}
	}
	return s.first.String() + "-" + s.last.String()
}

// joinSpans sorts ranges and joins those that touch: nft's sets hold no two
// that overlap.
func joinSpans(list []span) []span {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b span) int { return a.first.Compare(b.first) })
	var out []span
	for _, s := range list {
		if n := len(out); n > 0 && (s.first.Compare(out[n-1].last) <= 0 || out[n-1].last.Next() == s.first) {
			if s.last.Compare(out[n-1].last) > 0 {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

func nftPorts(key string, m *ports) (string, bool) {
	var out []string
	add := func(op string, list []portSpan) bool {
		list = joinPorts(list)
		if len(list) == 1 && list[0] == (portSpan{0, 65535}) {
			return op == ""
		}
		if len(list) > 0 {
			out = append(out, key+op+" "+nftSet(list, nftPort))
		}
		return true
	}
	ever := add("", m.any) && add(" !=", m.none)
	return strings.Join(out, " "), ever
}

func joinPorts(list []portSpan) []portSpan {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b portSpan) int { return int(a.min) - int(b.min) })
	var out []portSpan
	for _, s := range list {
		if n := len(out); n > 0 && int(s.min) <= int(out[n-1].max)+1 {
			out[n-1].max = max(out[n-1].max, s.max)
			continue
		}
		out = append(out, s)
	}
	return out
}

func nftPort(s portSpan) string {
	if s.min == s.max {
		return strconv.Itoa(int(s.min))
	}
	return fmt.Sprintf("%d-%d", s.min, s.max)
}

func nftMACs(x *matchMore) (string, bool) {
	var out []string
	for _, l := range []struct {
		op   string
		macs [][6]byte
	}{{"", x.macs}, {" !=", x.notMACs}} {
		list := slices.Clone(l.macs)
		slices.SortFunc(list, func(a, b [6]byte) int { return slices.Compare(a[:], b[:]) })
		if list = slices.Compact(list); len(list) > 0 {
			out = append(out, "ether saddr"+l.op+" "+nftSet(list, nftMAC))
		}
	}
	return strings.Join(out, " "), true
}

func nftMAC(m [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func nftICMP(m *match) string {
	word := "icmp"
	if m.family == 6 {
		word = "icmpv6"
	}
	if m.icmpAny != nil {
		list := slices.Clone(m.icmpAny)
		slices.Sort(list)
		return word + " type " + nftSet(slices.Compact(list), func(t uint8) string { return strconv.Itoa(int(t)) })
	}
	if m.icmp == nil {
		return ""
	}
	list := slices.Clone(m.icmp)
	slices.Sort(list)
	var s []string
	for _, tc := range slices.Compact(list) {
		s = append(s, fmt.Sprintf("%d . %d", tc>>8, tc&0xFF))
	}
	return fmt.Sprintf("%s type . %s code { %s }", word, word, strings.Join(s, ", "))
}

func (l *limit) nft() string {
	s := "limit rate "
	if l.over {
		s += "over "
	}
	s += fmt.Sprintf("%d/%s", l.count, l.unit)
	if l.burst != 0 {
		s += fmt.Sprintf(" burst %d packets", l.burst)
	}
	return s
}

// nft prints times as UTC; nft reads them in the zone of its own environment.
func (x *clockMatch) nft() []string {
	var out []string
	const form = `"2006-01-02 15:04:05"`
	if x.from != nil {
		out = append(out, "meta time >= "+x.from.Format(form))
	}
	if x.until != nil {
		// The whole of the last second.
		out = append(out, "meta time < "+x.until.Add(time.Second).Format(form))
	}
	switch from, until := x.fromHour, x.untilHour; {
	case from != nil && until != nil && *from > *until: // over midnight: not between the two
		if *from > *until+1 {
			out = append(out, fmt.Sprintf("meta hour != %s-%s", nftHour(*until+1), nftHour(*from-1)))
		}
	case from != nil && until != nil:
		out = append(out, fmt.Sprintf("meta hour %s-%s", nftHour(*from), nftHour(*until)))
	case from != nil:
		out = append(out, "meta hour >= "+nftHour(*from))
	case until != nil:
		out = append(out, "meta hour <= "+nftHour(*until))
	}
	if x.days != nil {
		var days []string
		for d := range x.days {
			days = append(days, d)
		}
		slices.Sort(days)
		if len(days) > 0 {
			out = append(out, fmt.Sprintf("meta day %s %s", nftIs(x.notDays), nftSet(days, strconv.Quote)))
		}
	}
	return out
}

func nftHour(sec int) string {
	return fmt.Sprintf(`"%02d:%02d:%02d"`, sec/3600, sec/60%60, sec%60)
}

// printSets prints the named sets, also those that no rule uses: their elements
// are worth seeing.
func (p *printer) printSets() {
	p.sets = map[*ipset]string{}
	for i, s := range p.r.sets {
		first := slices.IndexFunc(p.r.sets, func(o *ipset) bool { return o.name == s.name })
		if first < i { // merged into the first of that name
			p.sets[s] = p.sets[p.r.sets[first]]
			continue
		}
		name := fmt.Sprintf("set_%d", i)
		elements, ok := s.nftElements()
		if !ok {
			p.gap(&Hit{Section: s.section}, "holds entries that overlap, which nft cannot hold together; rules with this set are left out")
			continue
		}
		p.sets[s] = name
		p.line("\tset %s {", name)
		p.line("\t\tcomment %q", "set "+s.name)
		p.line("\t\ttype %s", strings.Join(s.nftTypes(), " . "))
		if s.hasNet() {
			p.line("\t\tflags interval")
		}
		if len(elements) > 0 {
			p.line("\t\telements = { %s }", strings.Join(elements, ", "))
		}
		p.line("\t}")
		p.line("")
	}
}

func (s *ipset) hasNet() bool { return slices.Contains(s.kinds, "net") }

func (s *ipset) nftTypes() []string {
	var out []string
	for _, k := range s.kinds {
		switch k {
		case "port":
			out = append(out, "inet_service")
		case "mac":
			out = append(out, "ether_addr")
		default:
			out = append(out, fmt.Sprintf("ipv%d_addr", s.family))
		}
	}
	return out
}

func (s *ipset) nftFields(dirs []bool) []string {
	var out []string
	for i, k := range s.kinds {
		side := "s"
		if dirs[i] {
			side = "d"
		}
		switch k {
		case "port":
			out = append(out, "th "+side+"port")
		case "mac":
			out = append(out, "ether saddr")
		default:
			out = append(out, nftIP(uint8(s.family))+" "+side+"addr")
		}
	}
	return out
}

// nftElements prints the entries; false when two of them overlap in a way that
// cannot be printed as one.
func (s *ipset) nftElements() ([]string, bool) {
	if len(s.kinds) == 1 && s.kinds[0] == "net" {
		var spans []span
		for _, e := range s.entries {
			spans = append(spans, e[0].span)
		}
		var out []string
		for _, sp := range joinSpans(spans) {
			out = append(out, sp.nft())
		}
		return out, true
	}
	var out []string
	var kept [][]setField
	for _, e := range s.entries {
		if slices.ContainsFunc(kept, func(k []setField) bool { return slices.Equal(k, e) }) {
			continue
		}
		if slices.ContainsFunc(kept, func(k []setField) bool { return overlap(k, e) }) {
			return nil, false
		}
		kept = append(kept, e)
		var fields []string
		for i, k := range s.kinds {
			switch k {
			case "port":
				fields = append(fields, strconv.Itoa(int(e[i].port)))
			case "mac":
				fields = append(fields, nftMAC(e[i].mac))
			default:
				fields = append(fields, e[i].span.nft())
			}
		}
		out = append(out, strings.Join(fields, " . "))
	}
	return out, true
}

func overlap(a, b []setField) bool {
	for i := range a {
		if a[i].port != b[i].port || a[i].mac != b[i].mac {
			return false
		}
		if x, y := a[i].span, b[i].span; x.first.IsValid() && (x.last.Less(y.first) || y.last.Less(x.first)) {
			return false
		}
	}
	return true
}
