package firewall

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// options reads one section the way fw4 does: the first bad value skips the
// whole section, an option that nobody asks for only gets a note (observed:
// openwrt-observed.md 8.21).
type options struct {
	c     *compiler
	s     uci.Section
	known map[string]bool
	bad   bool
}

// negatable is a value that may begin with "!".
type negatable struct {
	val string
	not bool
}

func (c *compiler) options(s uci.Section) *options {
	return &options{c: c, s: s, known: map[string]bool{"type": true}}
}

// label is how fw4 names a section: by its name, or by type and place.
func (c *compiler) label(s uci.Section) string {
	if !s.Anonymous {
		return s.Name
	}
	if l, ok := c.labels[s.Name]; ok {
		return l
	}
	return s.Name
}

func last(s uci.Section, option string) string {
	v := s.Values(option)
	if len(v) == 0 {
		return ""
	}
	return v[len(v)-1]
}

// warn notes something about a section in fw4's words.
func (c *compiler) warn(s uci.Section, format string, args ...any) *Warning {
	id, mark := c.label(s), "[!] "
	name, named := s.Get("name")
	switch {
	case c.fw3() && !s.Anonymous:
		id, mark = "'"+id+"'", "Warning: "
	case named && name != "":
		id += " (" + name + ")"
	}
	if c.fw3() {
		mark = "Warning: "
	}
	c.warnings = append(c.warnings, Warning{
		Section: s.Name,
		Text:    mark + "Section " + id + " " + fmt.Sprintf(format, args...),
	})
	return &c.warnings[len(c.warnings)-1]
}

// skip notes that a section has no effect.
func (c *compiler) skip(s uci.Section, format string, args ...any) {
	c.warn(s, format, args...).Skipped = true
}

// fw3 reports whether it is the older firewall, of 21.02. Its differences are
// read from its source (firewall3), not observed: it knows NAT for IPv4 only,
// loads its rules one by one (a bad one breaks nothing else), and has other
// defaults and limits here and there.
func (c *compiler) fw3() bool { return c.line.Before(router.Line2203) }

// refuse notes that nft will not load the ruleset because of this section.
func (c *compiler) refuse(s uci.Section, format string, args ...any) {
	if c.fw3() {
		c.skip(s, "cannot be used as it is")
		return
	}
	c.warn(s, format, args...).Refuses = true
	c.refused = true
}

func (o *options) fail(format string, args ...any) {
	o.bad = true
	o.c.warn(o.s, format, args...)
}

// raw finds an option; the last one of a name wins.
func (o *options) raw(key string) (uci.Option, bool) {
	o.known[key] = true
	for i := len(o.s.Options) - 1; i >= 0; i-- {
		if x := o.s.Options[i]; x.Name == key && len(x.Values) > 0 {
			return x, true
		}
	}
	return uci.Option{}, false
}

// one reads an option that must not be a list.
func (o *options) one(key string) (string, bool) {
	x, ok := o.raw(key)
	if o.bad || !ok {
		return "", false
	}
	if x.List {
		o.fail("option '%s' must not be a list", key)
		return "", false
	}
	return x.Values[0].Reveal(), true
}

// many reads a list; an option counts as its words.
func (o *options) many(key, def string) []string {
	x, ok := o.raw(key)
	if o.bad {
		return nil
	}
	if !ok {
		return words(def)
	}
	if !x.List {
		return words(x.Values[0].Reveal())
	}
	var out []string
	for _, v := range x.Values {
		out = append(out, v.Reveal())
	}
	return out
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' })
}

func (o *options) invalid(key, val string) {
	o.fail("option '%s' specifies invalid value '%s'", key, val)
}

// done notes unknown options and reports whether the section can be used.
func (o *options) done() bool {
	if o.bad {
		return false
	}
	for _, x := range o.s.Options {
		if !o.known[x.Name] {
			o.c.warn(o.s, "specifies unknown option '%s'", x.Name)
			o.known[x.Name] = true
		}
	}
	return true
}

// value reads an option by a parser.
func value[T any](o *options, key string, parse func(string) (T, bool), def T) T {
	s, ok := o.one(key)
	if !ok {
		return def
	}
	v, ok := parse(s)
	if !ok {
		o.invalid(key, s)
		return def
	}
	return v
}

// values reads a list by a parser.
func values[T any](o *options, key, def string, parse func(string) (T, bool)) []T {
	var out []T
	for _, s := range o.many(key, def) {
		v, ok := parse(s)
		if !ok {
			o.invalid(key, s)
			return nil
		}
		out = append(out, v)
	}
	return out
}

// unsupported reads an option that fw4 knows, checks, and does not use.
func unsupported[T any](o *options, key string, parse func(string) (T, bool)) {
	s, ok := o.one(key)
	if !ok {
		return
	}
	if _, ok := parse(s); !ok {
		o.invalid(key, s)
		return
	}
	if !o.c.fw3() {
		o.c.warn(o.s, "option '%s' is not supported by fw4", key)
	}
}

// flag reads a yes or no; unset is def.
func (o *options) flag(key string, def bool) bool { return value(o, key, parseBool, def) }

// plain refuses a negation where fw4 does.
func (o *options) plain(key string, not bool) {
	if not && !o.bad {
		o.fail("option '%s' must not be negated", key)
	}
}

func parseBool(s string) (bool, bool) {
	switch s {
	case "1", "on", "true", "yes":
		return true, true
	case "0", "off", "false", "no":
		return false, true
	}
	return false, false
}

func parseString(s string) (string, bool) { return s, true }

func parseInt(s string) (int, bool) {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		f, err := strconv.ParseFloat(s, 64)
		return int(f), err == nil
	}
	return int(n), true
}

// parseEnum takes any beginning of a choice, in any case (fw4: parse_enum).
func parseEnum(choices ...string) func(string) (string, bool) {
	return func(s string) (string, bool) {
		s = strings.ToLower(s)
		for _, c := range choices {
			if len(s) <= len(c) && strings.ToLower(c[:len(s)]) == s {
				return c, true
			}
		}
		return "", false
	}
}

var (
	parsePolicy     = parseEnum("accept", "reject", "drop")
	parseTarget     = parseEnum("accept", "reject", "drop", "notrack", "helper", "mark", "dscp", "dnat", "snat", "masquerade")
	parseRejectCode = parseEnum("tcp-reset", "port-unreachable", "admin-prohibited", "host-unreachable", "no-route")
	parseReflection = parseEnum("internal", "external")
	parseUnit       = parseEnum("second", "minute", "hour", "day")
	parseDay        = parseEnum("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
)

// Families: 4, 6, 0 for both on purpose, unset for nothing said.
const unset int8 = -1

func parseFamily(s string) (int8, bool) {
	switch {
	case s == "any" || s == "all" || s == "*":
		return 0, true
	case s == "inet" || strings.Contains(s, "4"):
		return 4, true
	case strings.Contains(s, "6"):
		return 6, true
	}
	return unset, false
}

func parseNegatable(s string) (negatable, bool) {
	t := strings.TrimLeft(s, " \t")
	n := negatable{val: strings.TrimSpace(s)}
	if strings.HasPrefix(t, "!") {
		n = negatable{val: strings.TrimSpace(t[1:]), not: true}
	}
	return n, n.val != ""
}

var identifier = regexp.MustCompile(`^[a-zA-Z_.][a-zA-Z0-9/_.-]*$`)

func parseIdentifier(s string) (string, bool) { return s, identifier.MatchString(s) }

func parseDirection(s string) (out, ok bool) {
	switch s {
	case "in", "ingress":
		return false, true
	case "out", "egress":
		return true, true
	}
	return false, false
}

// protocol is one word of `proto`. A negation is read and ignored by fw4
// (observed: openwrt-observed.md 8.8).
type protocol struct {
	name string
	any  bool
}

func parseProtocol(s string) ([]protocol, bool) {
	n, ok := parseNegatable(s)
	if !ok {
		return nil, false
	}
	switch name := strings.ToLower(n.val); name {
	case "all", "any", "*":
		return []protocol{{any: true}}, true
	case "1", "icmp":
		return []protocol{{name: "icmp"}}, true
	case "58", "icmpv6", "ipv6-icmp":
		return []protocol{{name: "ipv6-icmp"}}, true
	case "tcpudp":
		return []protocol{{name: "tcp"}, {name: "udp"}}, true
	case "6":
		return []protocol{{name: "tcp"}}, true
	case "17":
		return []protocol{{name: "udp"}}, true
	default:
		return []protocol{{name: name}}, true
	}
}

// protocolNumbers are the names that nft finds in OpenWrt's /etc/protocols.
var protocolNumbers = map[string]uint8{
	"ip": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9, "pup": 12,
	"udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37,
	"idpr-cmtp": 38, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47,
	"esp": 50, "ah": 51, "skip": 57, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
	"rspf": 73, "vmtp": 81, "eigrp": 88, "ospf": 89, "ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98,
	"pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "fc": 133,
	"mobility-header": 135, "udplite": 136, "mpls-in-ip": 137, "hip": 139, "shim6": 140,
}

// number resolves a protocol; false: nft will not know it.
func (p protocol) number() (uint8, bool) {
	if n, ok := protocolNumbers[p.name]; ok {
		return n, true
	}
	n, err := strconv.ParseUint(p.name, 0, 8)
	return uint8(n), err == nil
}

func (p protocol) ported() bool { return p.name == "tcp" || p.name == "udp" }

// ensurePorts reports whether a list of protocols has ports, turning "all"
// into tcp and udp (fw4: ensure_tcpudp).
func ensurePorts(list *[]protocol) bool {
	rest := 0
	for _, p := range *list {
		if p.ported() {
			return true
		}
		if !p.any {
			rest++
		}
	}
	if len(*list) > 0 && rest == 0 {
		*list = []protocol{{name: "tcp"}, {name: "udp"}}
		return true
	}
	return false
}

// port is a port or a range of ports, perhaps negated.
type port struct {
	portSpan
	not bool
}

var portForm = regexp.MustCompile(`^([0-9]{1,5})([-:]([0-9]{1,5}))?$`)

func parsePort(s string) (port, bool) {
	n, ok := parseNegatable(s)
	m := portForm.FindStringSubmatch(n.val)
	if !ok || m == nil {
		return port{}, false
	}
	lo, _ := strconv.Atoi(m[1])
	hi := lo
	if m[3] != "" {
		hi, _ = strconv.Atoi(m[3])
	}
	if lo > hi || hi > 65535 {
		return port{}, false
	}
	return port{portSpan{uint16(lo), uint16(hi)}, n.not}, true
}

func portsOf(list []port) ports {
	var p ports
	for _, x := range list {
		if x.not {
			p.none = append(p.none, x.portSpan)
		} else {
			p.any = append(p.any, x.portSpan)
		}
	}
	return p
}

type mac struct {
	addr [6]byte
	not  bool
}

var macForm = regexp.MustCompile(`(?i)^([0-9a-f]{1,2})[:-]([0-9a-f]{1,2})[:-]([0-9a-f]{1,2})[:-]([0-9a-f]{1,2})[:-]([0-9a-f]{1,2})[:-]([0-9a-f]{1,2})$`)

func parseMAC(s string) (mac, bool) {
	n, ok := parseNegatable(s)
	m := macForm.FindStringSubmatch(n.val)
	if !ok || m == nil {
		return mac{}, false
	}
	out := mac{not: n.not}
	for i := range out.addr {
		b, _ := strconv.ParseUint(m[i+1], 16, 8)
		out.addr[i] = byte(b)
	}
	return out, true
}

var limitForm = regexp.MustCompile(`^([0-9]+)(/([a-z]+))?$`)

// parseLimit reads "10/minute". fw4 reads a negation, too, and does not use it.
func parseLimit(s string) (rate, bool) {
	n, ok := parseNegatable(s)
	m := limitForm.FindStringSubmatch(n.val)
	if !ok || m == nil {
		return rate{}, false
	}
	count, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		count = 0 // nft takes neither
	}
	r := rate{count: count, unit: "second"}
	if m[3] != "" {
		r.unit, ok = parseUnit(m[3])
	}
	return r, ok
}

// mark is a firewall mark, perhaps with a mask.
type mark struct {
	val, mask uint32
	not       bool
}

var markForm = regexp.MustCompile(`(?i)^(0?x?[0-9a-f]+)(/(0?x?[0-9a-f]+))?$`)

func parseMark(s string) (mark, bool) {
	n, ok := parseNegatable(s)
	m := markForm.FindStringSubmatch(n.val)
	if !ok || m == nil {
		return mark{}, false
	}
	val, err := strconv.ParseUint(m[1], 0, 32)
	if err != nil {
		return mark{}, false
	}
	out := mark{val: uint32(val), mask: 0xFFFFFFFF, not: n.not}
	if m[3] != "" {
		mask, err := strconv.ParseUint(m[3], 0, 32)
		if err != nil {
			return mark{}, false
		}
		out.mask = uint32(mask)
	}
	return out, true
}

var dscpClasses = map[string]uint8{
	"CS0": 0, "CS1": 0x08, "CS2": 0x10, "CS3": 0x18, "CS4": 0x20, "CS5": 0x28, "CS6": 0x30, "CS7": 0x38,
	"BE": 0, "LE": 1, "AF11": 0x0a, "AF12": 0x0c, "AF13": 0x0e, "AF21": 0x12, "AF22": 0x14, "AF23": 0x16,
	"AF31": 0x1a, "AF32": 0x1c, "AF33": 0x1e, "AF41": 0x22, "AF42": 0x24, "AF43": 0x26, "EF": 0x2e,
}

func parseDSCP(s string) (dscpMatch, bool) {
	n, ok := parseNegatable(s)
	if !ok {
		return dscpMatch{}, false
	}
	if c, ok := dscpClasses[strings.ToUpper(n.val)]; ok {
		return dscpMatch{c, n.not}, true
	}
	v, err := strconv.ParseUint(n.val, 0, 8)
	return dscpMatch{uint8(v), n.not}, err == nil && v <= 0x3F
}

// icmpType is a type of ICMP, of ICMPv6, or of both.
type icmpType struct {
	family   int8 // 0: both
	v4, v6   uint8
	lo4, hi4 uint8 // codes
	lo6, hi6 uint8
}

var icmpForm = regexp.MustCompile(`^([0-9]+)(/([0-9]+))?$`)

func parseICMPType(s string) (icmpType, bool) {
	t := icmpType{family: unset}
	if x, ok := icmp4Names[s]; ok {
		t.family, t.v4, t.lo4, t.hi4 = 4, x[0], x[1], x[2]
	}
	if x, ok := icmp6Names[s]; ok {
		if t.family == 4 {
			t.family = 0
		} else {
			t.family = 6
		}
		t.v6, t.lo6, t.hi6 = x[0], x[1], x[2]
	}
	if t.family != unset {
		return t, true
	}
	// A number counts for both families, 8 in ICMPv6 is not an echo request
	// (observed: openwrt-observed.md 8.8).
	m := icmpForm.FindStringSubmatch(s)
	if m == nil {
		return t, false
	}
	typ, err := strconv.ParseUint(m[1], 10, 8)
	if err != nil {
		return t, false
	}
	lo, hi := uint8(0), uint8(0xFF)
	if m[3] != "" {
		code, err := strconv.ParseUint(m[3], 10, 8)
		if err != nil {
			return t, false
		}
		lo, hi = uint8(code), uint8(code)
	}
	return icmpType{family: 0, v4: uint8(typ), v6: uint8(typ), lo4: lo, hi4: hi, lo6: lo, hi6: hi}, true
}

// address is one address, subnet or range as a household writes it.
type address struct {
	family int8
	addr   netip.Addr
	bits   int        // -1: mask is not a plain prefix
	mask   netip.Addr // not valid for a range or a prefix that is too long
	to     netip.Addr // end of a range
	not    bool
}

// selection is one word of an address option: several addresses when it names
// an interface, none when that interface has none.
type selection struct {
	addrs []address
	not   bool
}

func (c *compiler) parseNetwork(s string) (selection, bool) {
	n, ok := parseNegatable(s)
	if !ok {
		return selection{}, false
	}
	a, ok := c.parseSubnet(n.val)
	return selection{a, n.not}, ok
}

// parseSubnet reads an address, a subnet, a range, or the name of an interface,
// which means its subnets (observed: openwrt-observed.md 8.20).
func (c *compiler) parseSubnet(s string) ([]address, bool) {
	switch parts := strings.Split(s, "/"); len(parts) {
	case 2:
		a, ok := parseAddr(parts[0])
		if !ok {
			return nil, false
		}
		return withMask(a, parts[1])
	case 1:
	default:
		return nil, false
	}
	switch ends := strings.Split(s, "-"); len(ends) {
	case 2:
		a, ok1 := parseAddr(ends[0])
		b, ok2 := parseAddr(ends[1])
		if ok1 && ok2 && a.Is4() == b.Is4() {
			return []address{{family: family(a), addr: a, to: b}}, true
		}
	case 1:
		if a, ok := parseAddr(s); ok {
			return []address{hostAddr(a)}, true
		}
		if n, ok := c.nets[s]; ok {
			return n.addrs, true
		}
	}
	return nil, false
}

func withMask(a netip.Addr, m string) ([]address, bool) {
	if mask, ok := parseAddr(m); ok {
		if mask.Is4() != a.Is4() {
			return nil, false
		}
		bits := prefixBits(mask)
		if bits < 0 {
			a = maskWith(a, mask)
		}
		return []address{{family: family(a), addr: a, bits: bits, mask: mask}}, true
	}
	n, err := strconv.ParseInt(m, 0, 32)
	if err != nil {
		return nil, false
	}
	bits := int(n)
	mask := maskOf(bits, a.BitLen())
	if bits < -1 {
		bits = -1
	}
	return []address{{family: family(a), addr: a, bits: bits, mask: mask}}, true
}

// parseAddr is inet_pton: no zones, an IPv4 address inside IPv6 stays IPv6.
func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil && a.Zone() == ""
}

func family(a netip.Addr) int8 {
	if a.Is4() {
		return 4
	}
	return 6
}

func hostAddr(a netip.Addr) address {
	return address{family: family(a), addr: a, bits: a.BitLen(), mask: maskOf(a.BitLen(), a.BitLen())}
}

// maskOf is the mask of so many bits; a negative number means the host part.
func maskOf(bits, width int) netip.Addr {
	invert := bits < 0
	if invert {
		bits = -bits
	}
	if bits > width {
		return netip.Addr{}
	}
	b := make([]byte, width/8)
	for i := range b {
		n := min(bits, 8)
		b[i] = ^byte(0xFF >> n)
		if invert {
			b[i] = ^b[i]
		}
		bits -= n
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// prefixBits counts the leading ones of a mask, -1 if there are others.
func prefixBits(mask netip.Addr) int {
	n, ended := 0, false
	for _, b := range mask.AsSlice() {
		for bit := 7; bit >= 0; bit-- {
			if b>>bit&1 == 0 {
				ended = true
			} else if ended {
				return -1
			} else {
				n++
			}
		}
	}
	return n
}

// isRange reports whether it is written as first-last.
func (a address) isRange() bool { return a.to.IsValid() }

// span is the address as a range; false: nft will not take it.
func (a address) span() (span, bool) {
	if a.isRange() {
		return span{a.addr, a.to}, a.addr.Compare(a.to) <= 0
	}
	if a.bits < 0 || a.bits > a.addr.BitLen() {
		return span{}, false
	}
	p := netip.PrefixFrom(a.addr, a.bits).Masked()
	hi := p.Addr().AsSlice()
	for i := a.bits; i < len(hi)*8; i++ {
		hi[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(hi)
	return span{p.Addr(), last}, true
}

// byFamily sorts selections into IPv4 and IPv6 and tells which there are:
// unset for none, 0 for both.
func byFamily(list ...selection) (v4, v6 []address, fam int8) {
	for _, s := range list {
		for _, a := range s.addrs {
			a.not = s.not
			if a.family == 4 {
				v4 = append(v4, a)
			} else {
				v6 = append(v6, a)
			}
		}
	}
	switch {
	case v4 == nil && v6 == nil:
		return v4, v6, unset
	case v6 == nil:
		return v4, v6, 4
	case v4 == nil:
		return v4, v6, 6
	}
	return v4, v6, 0
}

// grouped splits addresses into sets that nft can test in one go: each mask
// that is no prefix needs a rule of its own (fw4: subnets_group_by_masking).
// There is always at least one group; an empty one restricts nothing.
func (c *compiler) grouped(list []address, s uci.Section) []addresses {
	var plain, none []span
	var own, masked []maskedAddr
	for _, a := range list {
		if a.bits == -1 {
			m := maskedAddr{a.addr, a.mask, a.not}
			if a.not {
				masked = append(masked, m)
			} else {
				own = append(own, m)
			}
			continue
		}
		sp, ok := a.span()
		if !ok {
			c.refuse(s, "holds an address that nft does not take, the ruleset cannot be loaded")
			continue
		}
		if a.not {
			none = append(none, sp)
		} else {
			plain = append(plain, sp)
		}
	}
	var out []addresses
	for _, m := range own {
		out = append(out, addresses{none: none, masked: append([]maskedAddr{m}, masked...)})
	}
	if len(plain) > 0 || len(out) == 0 {
		out = append(out, addresses{any: plain, none: none, masked: masked})
	}
	return out
}

// inferFamily finds the family that all parts of a section agree on; a text
// says why there is none.
func inferFamily(f int8, parts ...familyPart) (int8, string) {
	for _, p := range parts {
		if p.family <= 0 || p.family == f {
			continue
		}
		if f <= 0 {
			f = p.family
			continue
		}
		return f, fmt.Sprintf("is restricted to IPv%d but referenced %s is IPv%d only", f, p.what, p.family)
	}
	return f, ""
}

type familyPart struct {
	family int8
	what   string
}
