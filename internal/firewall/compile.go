package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// compiler turns the two documents into chains.
type compiler struct {
	line     router.Line
	network  *uci.Document
	doc      *uci.Document
	live     []Iface
	nets     map[string]net
	labels   map[string]string // UCI name of an anonymous section → "@rule[3]"
	defaults defaults
	zones    []*zone
	sets     []*ipset
	chains   map[string]*chain
	warnings []Warning
	gaps     []Warning // what NFT cannot print
	refused  bool
}

// net is a network as the firewall sees it.
type net struct {
	device string
	addrs  []address
}

// defaults is the section of that type.
type defaults struct {
	seen                      bool
	input, output, forward    string
	dropInvalid               bool
	synFlood                  bool
	synRate                   *rate
	tcpRejectCode, anyRejCode string
	hit                       Hit
	s                         uci.Section
}

func newCompiler(line router.Line, network, firewall *uci.Document, live []Iface) *compiler {
	c := &compiler{line: line, network: network, doc: firewall, live: live, nets: map[string]net{},
		labels: map[string]string{}, chains: map[string]*chain{}}
	c.defaults = defaults{input: "drop", output: "drop", forward: "drop", tcpRejectCode: "tcp-reset", anyRejCode: "port-unreachable",
		hit: Hit{Config: "firewall", Name: "defaults"}}
	for _, i := range live {
		c.nets[i.Name] = c.netOf(i)
	}
	count := map[string]int{}
	for _, s := range c.sections("") {
		if s.Anonymous {
			c.labels[s.Name] = fmt.Sprintf("@%s[%d]", s.Type, count[s.Type])
		}
		count[s.Type]++
	}
	return c
}

// netOf tells what the firewall uses of an interface. One that is down has no
// addresses, and counts with its base device; a tunnel has none then
// (openwrt-observed.md 8.23).
func (c *compiler) netOf(i Iface) net {
	n := net{device: i.Device}
	var s uci.Section
	if c.network != nil {
		s, _ = c.network.Section(i.Name)
	}
	if !i.Up {
		if last(s, "proto") == "wireguard" {
			return net{}
		}
		if n.device == "" {
			if n.device = last(s, "device"); n.device == "" {
				n.device = last(s, "ifname")
			}
			if strings.HasPrefix(n.device, "@") || strings.Contains(n.device, " ") {
				n.device = ""
			}
		}
		return n
	}
	// IPv4 first, as the firewall reads the two lists of `ubus … dump`.
	for _, four := range []bool{true, false} {
		for _, p := range i.Addrs {
			if a := p.Addr(); a.IsValid() && a.Is4() == four {
				n.addrs = append(n.addrs, address{family: family(a), addr: a.WithZone(""), bits: p.Bits(), mask: maskOf(p.Bits(), a.BitLen())})
			}
		}
	}
	return n
}

func (c *compiler) sections(typ string) []uci.Section {
	switch {
	case c.doc == nil:
		return nil
	case typ == "":
		return c.doc.Sections()
	}
	return c.doc.OfType(typ)
}

// read goes through the sections in fw4's order: by type, then by place.
func (c *compiler) read() {
	for _, s := range c.sections("defaults") {
		c.readDefaults(s)
	}
	for _, s := range c.sections("ipset") {
		c.readSet(s)
	}
	for _, s := range c.sections("zone") {
		c.readZone(s)
	}
	for _, s := range c.sections("rule") {
		c.readRule(s)
	}
	for _, s := range c.sections("forwarding") {
		c.readForwarding(s)
	}
	for _, s := range c.sections("redirect") {
		c.readRedirect(s)
	}
	for _, s := range c.sections("nat") {
		c.readNAT(s)
	}
	for _, s := range c.sections("include") {
		if on, ok := parseBool(last(s, "enabled")); on || !ok {
			c.gap(s, "includes "+last(s, "path")+", which is not looked at")
		}
	}
}

// gap notes something that changes what packets meet and that neither the model
// nor its printed form knows.
func (c *compiler) gap(s uci.Section, text string) {
	w := Warning{Section: s.Name, Text: text}
	if !slices.Contains(c.gaps, w) {
		c.gaps = append(c.gaps, w)
	}
}

func (c *compiler) readDefaults(s uci.Section) {
	if c.defaults.seen {
		c.skip(s, ": ignoring duplicate defaults section")
		return
	}
	o := c.options(s)
	d := &c.defaults
	d.seen = true
	d.hit.Section = s.Name
	got := defaults{
		input:         value(o, "input", parsePolicy, "drop"),
		output:        value(o, "output", parsePolicy, "drop"),
		forward:       value(o, "forward", parsePolicy, "drop"),
		dropInvalid:   o.flag("drop_invalid", false),
		tcpRejectCode: value(o, "tcp_reject_code", parseRejectCode, "tcp-reset"),
		anyRejCode:    value(o, "any_reject_code", parseRejectCode, "port-unreachable"),
	}
	got.synFlood = o.flag("synflood_protect", o.flag("syn_flood", false))
	got.synRate = o.limits("synflood_rate", "synflood_burst", "25/second", 50)
	got.s = s
	for _, k := range []string{"tcp_syncookies", "tcp_window_scaling",
		"accept_redirects", "accept_source_route", "auto_helper", "flow_offloading_hw", "auto_includes"} {
		o.flag(k, false)
	}
	if o.flag("flow_offloading", false) {
		c.gap(s, "lets known connections pass by the rules, which is not looked at")
	}
	value(o, "tcp_ecn", parseInt, 0)
	unsupported(o, "custom_chains", parseBool)
	unsupported(o, "disable_ipv6", parseBool)
	if !o.done() {
		// fw4 goes on with nothing at all, and renders a broken ruleset.
		c.refuse(s, "cannot be used, the ruleset cannot be loaded")
		return
	}
	got.seen, got.hit = true, d.hit
	c.defaults = got
}

// zone is one zone and what other sections demand of it.
type zone struct {
	s                      uci.Section
	name                   string
	family                 int8
	input, output, forward string
	masq, masq6            bool
	allowInvalid, mtuFix   bool
	log                    bool
	masqSrc, masqDst       [2][]address // by family
	matches                []zoneMatch
	devices                []string  // named without "!"
	related                []address // subnets of its networks, and its own
	dnat                   bool      // has port forwards: their packets pass
}

// zoneMatch is one way in which a packet can belong to a zone: its device, and
// perhaps its address.
type zoneMatch struct {
	family uint8
	dev    devices
	addr   addresses
}

func (z *zone) hit(says string) *Hit {
	return &Hit{Config: "firewall", Section: z.s.Name, Name: z.name, Says: says}
}

// into and outof are the conditions "comes from" and "goes to" the zone.
func (m zoneMatch) from() match { return match{family: m.family, in: m.dev, src: m.addr} }
func (m zoneMatch) to() match   { return match{family: m.family, out: m.dev, dst: m.addr} }

func (c *compiler) readZone(s uci.Section) {
	o := c.options(s)
	enabled := o.flag("enabled", true)
	z := &zone{s: s}
	z.name = c.zoneName(o)
	z.family = value(o, "family", parseFamily, unset)
	networks := values(o, "network", "", parseNegatable)
	devs := values(o, "device", "", parseNegatable)
	subnets := values(o, "subnet", "", c.parseNetwork)
	z.input = value(o, "input", parsePolicy, c.defaults.input)
	z.output = value(o, "output", parsePolicy, c.defaults.output)
	z.forward = value(o, "forward", parsePolicy, c.defaults.forward)
	z.masq = o.flag("masq", false)
	z.allowInvalid = o.flag("masq_allow_invalid", false)
	masqSrc := values(o, "masq_src", "", c.parseNetwork)
	masqDst := values(o, "masq_dest", "", c.parseNetwork)
	if !c.fw3() {
		z.masq6 = o.flag("masq6", false)
	}
	for _, k := range []string{"extra", "extra_src", "extra_dest"} {
		unsupported(o, k, parseString)
	}
	z.mtuFix = o.flag("mtu_fix", false)
	unsupported(o, "custom_chains", parseBool)
	z.log = value(o, "log", parseInt, 0) != 0
	if c.line.AtLeast(router.Line2410) {
		value(o, "log_limit", parseLimit, rate{})
	}
	o.flag("auto_helper", true)
	values(o, "helper", "", parseString)
	o.flag("counter", true)
	if !o.done() {
		c.skip(s, "skipped due to invalid options")
		return
	}
	if !enabled {
		c.skip(s, "is disabled, ignoring section")
		return
	}
	if slices.ContainsFunc(c.zones, func(x *zone) bool { return x.name == z.name }) {
		c.refuse(s, "is the second zone of that name, the ruleset cannot be loaded")
		return
	}
	z.masqSrc[0], z.masqSrc[1], _ = byFamily(masqSrc...)
	z.masqDst[0], z.masqDst[1], _ = byFamily(masqDst...)
	c.placeZone(z, networks, devs, subnets)
}

// zoneName reads the name as strictly as the release does: 23.05 and older take
// anything, which nft may refuse later (openwrt-observed.md 8.24).
func (c *compiler) zoneName(o *options) string {
	name, ok := o.one("name")
	if !o.bad && !ok {
		o.fail("option 'name' is mandatory but not set")
		return ""
	}
	if c.fw3() && len(name) > 11 {
		o.fail("must not have a name longer than 11 characters")
	}
	if identifier.MatchString(name) || o.bad {
		return name
	}
	if c.line.AtLeast(router.Line2410) {
		o.invalid("name", name)
	} else if !identifier.MatchString(strings.TrimLeft(name, "0123456789")) && !allDigits(name) {
		c.refuse(o.s, "has a name that nft does not take, the ruleset cannot be loaded")
	}
	return name
}

func allDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// placeZone finds out which devices and addresses belong to a zone.
func (c *compiler) placeZone(z *zone, networks, devs []negatable, subnets []selection) {
	var matched []negatable
	for _, n := range networks {
		if live, ok := c.nets[n.val]; ok {
			if live.device != "" {
				matched = append(matched, negatable{live.device, n.not})
			}
			z.related = append(z.related, live.addrs...)
		}
	}
	matched = append(matched, devs...)
	v4, v6, fam := byFamily(subnets...)
	z.related = append(append(z.related, v4...), v6...)

	fam, why := inferFamily(z.family, familyPart{fam, "subnet list"})
	if why != "" {
		c.skip(z.s, "%s, skipping", why)
		return
	}
	z.family = fam
	groups := c.deviceGroups(z, matched)
	if len(matched) == 0 && v4 == nil && v6 == nil {
		groups = nil
	}
	for _, g := range groups {
		if fam <= 0 && v4 == nil && v6 == nil {
			z.matches = append(z.matches, zoneMatch{dev: g})
			continue
		}
		if fam <= 0 || fam == 4 {
			for _, a := range c.grouped(v4, z.s) {
				z.matches = append(z.matches, zoneMatch{4, g, a})
			}
		}
		if fam <= 0 || fam == 6 {
			for _, a := range c.grouped(v6, z.s) {
				z.matches = append(z.matches, zoneMatch{6, g, a})
			}
		}
	}
	c.zones = append(c.zones, z)
}

// deviceGroups turns names, "name+" and "!name" into conditions. Each wildcard
// stands alone, as nft's sets hold none.
func (c *compiler) deviceGroups(z *zone, list []negatable) []devices {
	var wild []string
	var plain, none []string
	for _, d := range list {
		name, plus := strings.CutSuffix(d.val, "+")
		switch {
		case strings.Contains(name, "+") || d.val == "*":
			c.warn(z.s, "skipping invalid wildcard pattern '%s'", strings.TrimPrefix(d.val, "*"))
			continue
		case plus && name == "" && !d.not:
			continue // "+" alone restricts nothing
		case plus && name == "" && d.not:
			wild = append(wild, "/never/")
			z.devices = append(z.devices, "/never/")
			continue
		}
		if plus {
			name += "*"
		}
		switch {
		case d.not:
			none = append(none, name)
		case plus:
			wild = append(wild, name)
			z.devices = append(z.devices, name)
		default:
			plain = append(plain, name)
			z.devices = append(z.devices, name)
		}
	}
	var out []devices
	for _, w := range wild {
		out = append(out, devices{[]string{w}, none})
	}
	if len(plain) > 0 || len(out) == 0 {
		out = append(out, devices{plain, none})
	}
	return out
}

func (c *compiler) readForwarding(s uci.Section) {
	o := c.options(s)
	enabled := o.flag("enabled", true)
	name := value(o, "name", parseString, "")
	fam := value(o, "family", parseFamily, unset)
	src := c.zoneRef(o, "src", true)
	dst := c.zoneRef(o, "dest", true)
	if !o.done() {
		c.skip(s, "skipped due to invalid options")
		return
	}
	if !enabled {
		c.skip(s, "is disabled, ignoring section")
		return
	}
	fam, why := inferFamily(fam, src.part("source zone"), dst.part("destination zone"))
	if why != "" {
		c.skip(s, "%s, skipping", why)
		return
	}
	from, to := src.String(), dst.String()
	if name == "" {
		name = from + " → " + to
	}
	r := rule{match: match{family: uint8(max(fam, 0))}, do: doAccept,
		hit: &Hit{Config: "firewall", Section: s.Name, Name: name, Says: fmt.Sprintf("lets %s go to %s", from, to)}}
	if dst.zone != nil {
		r.do, r.jump = doJump, c.chain("accept_to_"+dst.zone.name)
	}
	in := "forward"
	if src.zone != nil {
		in = "forward_" + src.zone.name
	}
	c.add(in, r)
}

// zoneRef is the value of `src` or `dest`: a zone, any zone, or nothing.
type zoneRef struct {
	zone *zone
	any  bool
}

func (z zoneRef) set() bool { return z.any || z.zone != nil }

func (z zoneRef) String() string {
	switch {
	case z.zone != nil:
		return z.zone.name
	case z.any:
		return "anywhere"
	}
	return "the router"
}

func (z zoneRef) part(what string) familyPart {
	if z.zone == nil {
		return familyPart{unset, what}
	}
	return familyPart{z.zone.family, what}
}

func (c *compiler) parseZone(s string) (zoneRef, bool) {
	if s == "*" {
		return zoneRef{any: true}, true
	}
	for _, z := range c.zones {
		if z.name == s {
			return zoneRef{zone: z}, true
		}
	}
	return zoneRef{}, false
}

func (c *compiler) zoneRef(o *options, key string, required bool) zoneRef {
	if _, ok := o.raw(key); !ok && required && !o.bad {
		o.fail("option '%s' is mandatory but not set", key)
	}
	return value(o, key, c.parseZone, zoneRef{})
}

// chain finds a chain, or begins it.
func (c *compiler) chain(name string) *chain {
	ch := c.chains[name]
	if ch == nil {
		ch = &chain{name: name}
		c.chains[name] = ch
	}
	return ch
}

func (c *compiler) add(name string, r rule) {
	ch := c.chain(name)
	ch.rules = append(ch.rules, r)
}

// nameLimit is how long a name may be before nft refuses the comment that fw4
// makes of it: 128 bytes with the ending zero and "!fw4: ".
const nameLimit = 121

// checkName notes names that break the load.
func (c *compiler) checkName(s uci.Section, name string) {
	if c.fw3() {
		return
	}
	if len(name) > nameLimit {
		c.refuse(s, "has too long a name, the ruleset cannot be loaded")
	}
	if strings.Contains(name, `"`) && c.line.Before(router.Line2410) {
		c.refuse(s, "has a quotation mark in its name, the ruleset cannot be loaded")
	}
}

// isLoopback: fw4 asks the kernel; we know one.
func isLoopback(dev string) bool { return dev == "lo" }

func loopbackSpan(s span) bool {
	return s.first.IsLoopback() && (s.first.Is4() || s.first == s.last) && s.first != netip.IPv4Unspecified()
}

// dropsStray: not 22.03, whose fw4 is older than that rule.
func (c *compiler) dropsStray() bool {
	return c.line.AtLeast(router.Line2305) || c.line.Before(router.Line2203)
}
