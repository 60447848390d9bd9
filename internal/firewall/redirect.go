package firewall

import (
	"fmt"
	"net/netip"

	"github.com/heimweg/heimweg/internal/uci"
)

// redirectSpec is a section of type redirect (or nat) as read.
type redirectSpec struct {
	s              uci.Section
	name           string
	family         int8
	src, dest      zoneRef
	device         string // nat only: outgoing device
	protos         []protocol
	macs           []mac
	srcIP, dstIP   *selection // what the packet carries
	sport, dport   *port
	toIP           *selection // what it is rewritten to
	toPort         *port
	reflection     bool
	reflectFrom    string
	reflectZones   []zoneRef
	target         string
	says           string
	limit          *rate
	clock          *clockMatch
	mark           *mark
	helper         bool
	set            *ipset
	setName        setRef
	s4, s6, d4, d6 []address
	r4, r6         []address
}

func (c *compiler) readRedirect(s uci.Section) {
	r, enabled, ok := c.redirectOptions(s)
	if !ok {
		c.skip(s, "skipped due to invalid options")
		return
	}
	if !enabled {
		c.skip(s, "is disabled, ignoring section")
		return
	}
	if r.target != "dnat" && r.target != "snat" {
		c.warn(s, "has invalid target specified, defaulting to dnat")
		r.target = "dnat"
	}
	c.checkName(s, r.name)
	if r.setName.name != "" {
		if r.set = c.findSet(r.setName.name); r.set == nil {
			c.unknownSet(s, r.setName.name)
			return
		}
		if r.set.hasPorts() && !ensurePorts(&r.protos) {
			c.skip(s, "references named set with port match but no UDP/TCP protocol, ignoring section")
			return
		}
	}
	why := ""
	if r.target == "dnat" {
		why = c.prepareDNAT(&r)
	} else {
		why = r.prepareSNAT()
	}
	if why != "" {
		c.skip(s, "%s", why)
		return
	}
	for _, p := range r.protos {
		c.placeRedirect(r, p)
	}
}

func (c *compiler) redirectOptions(s uci.Section) (r redirectSpec, enabled, ok bool) {
	o := c.options(s)
	r = redirectSpec{s: s}
	enabled = o.flag("enabled", true)
	r.name = value(o, "name", parseString, c.label(s))
	if _, is := o.one("_name"); is {
		c.warn(s, "option '_name' is deprecated by fw4")
	}
	r.family = value(o, "family", parseFamily, unset)
	r.src, r.dest = c.zoneRef(o, "src", false), c.zoneRef(o, "dest", false)
	r.setName = value(o, "ipset", parseSetRef, setRef{})
	_, r.helper = o.one("helper")
	r.protos = c.protocols(o, "tcpudp")
	srcIP := pointer(o, "src_ip", c.parseNetwork)
	r.macs = values(o, "src_mac", "", parseMAC)
	srcPort := pointer(o, "src_port", parsePort)
	srcDIP := pointer(o, "src_dip", c.parseNetwork)
	srcDPort := pointer(o, "src_dport", parsePort)
	destIP := pointer(o, "dest_ip", c.parseNetwork)
	destPort := pointer(o, "dest_port", parsePort)
	unsupported(o, "extra", parseString)
	r.limit = o.limits("limit", "limit_burst", "", 0)
	r.clock = o.clock()
	r.mark = pointer(o, "mark", parseMark)
	r.reflection = o.flag("reflection", true)
	r.reflectFrom = value(o, "reflection_src", parseReflection, "internal")
	r.reflectZones = values(o, "reflection_zone", "", c.parseZone)
	o.logs()
	r.target = value(o, "target", parseTarget, "dnat")

	r.srcIP, r.sport = srcIP, srcPort
	r.dstIP, r.dport = srcDIP, srcDPort
	r.toIP, r.toPort = destIP, destPort
	if r.target == "snat" {
		// The meaning of the two ends changes places.
		r.dstIP, r.dport = destIP, destPort
		r.toIP, r.toPort = srcDIP, srcDPort
	}
	return r, enabled, o.done()
}

// prepareDNAT checks a port forward and fills in what it leaves out.
func (c *compiler) prepareDNAT(r *redirectSpec) string {
	switch {
	case !r.src.set():
		return "has no source specified"
	case r.src.any:
		return "must not have source '*' for dnat target"
	case r.toIP != nil && r.toIP.not:
		return "must not specify a negated 'dest_ip' value"
	case r.toIP.hasOddMask():
		return "must not use non-contiguous masks in 'dest_ip'"
	}
	if !r.dest.set() && r.toIP != nil {
		if z := c.zoneOf(r.toIP.addrs); z != nil {
			r.dest = zoneRef{zone: z}
			c.warn(r.s, "does not specify a destination, assuming '%s'", z.name)
		}
	}
	if r.toPort == nil {
		r.toPort = r.dport
	}
	// Reflection opens the chain of the destination zone for redirected
	// packets, even before it is known whether there will be a reflection
	// (openwrt-observed.md 8.15).
	if r.reflection && r.dest.zone != nil && r.src.zone.masq {
		r.dest.zone.dnat = true
		c.chain("accept_to_" + r.dest.zone.name)
	}
	r.src.zone.dnat = true
	return ""
}

func (r *redirectSpec) prepareSNAT() string {
	switch {
	case !r.dest.set():
		return "has no destination specified"
	case r.dest.any:
		return "must not have destination '*' for snat target"
	case r.toIP == nil:
		return "has no 'src_dip' option specified"
	case r.toIP.not:
		return "must not specify a negated 'src_dip' value"
	case r.toIP.hasOddMask():
		return "must not use non-contiguous masks in 'src_dip'"
	case len(r.macs) > 0:
		return "must not use 'src_mac' option for snat target"
	case r.helper:
		return "must not use 'helper' option for snat target"
	}
	return ""
}

func (s *selection) hasOddMask() bool {
	if s == nil {
		return false
	}
	for _, a := range s.addrs {
		if !a.isRange() && a.bits == -1 {
			return true
		}
	}
	return false
}

// zoneOf finds the zone whose networks hold one of these addresses.
func (c *compiler) zoneOf(addrs []address) *zone {
	for _, z := range c.zones {
		for _, n := range z.related {
			for _, a := range addrs {
				if a.family == n.family && sameNet(a, n) {
					return z
				}
			}
		}
	}
	return nil
}

// sameNet reports whether an address is in a network, as fw4 compares them: a
// network without a mask (a range) holds everything.
func sameNet(a, n address) bool {
	if !n.mask.IsValid() {
		return true
	}
	return maskWith(a.addr, n.mask) == maskWith(n.addr, n.mask)
}

func pick(s *selection) []selection {
	if s == nil {
		return nil
	}
	return []selection{*s}
}

// placeRedirect makes the chain rules of one protocol of a redirect.
func (c *compiler) placeRedirect(r redirectSpec, p protocol) {
	fam := r.family
	if p.name == "ipv6-icmp" {
		fam = 6
	}
	if !p.ported() {
		// Ports of other protocols do not count (openwrt-observed.md 8.7).
		r.sport, r.dport, r.toPort = nil, nil, nil
	}
	var sFam, dFam, rFam int8
	r.s4, r.s6, sFam = byFamily(pick(r.srcIP)...)
	r.d4, r.d6, dFam = byFamily(pick(r.dstIP)...)
	r.r4, r.r6, rFam = byFamily(pick(r.toIP)...)
	setFam := unset
	if r.set != nil {
		setFam = r.set.family
	}
	fam, why := inferFamily(fam, familyPart{setFam, "set match"}, familyPart{sFam, "source IP"}, familyPart{dFam, "destination IP"},
		familyPart{rFam, "rewrite IP"}, r.src.part("source zone"), r.dest.part("destination zone"))
	if why != "" {
		c.skip(r.s, "%s, skipping", why)
		return
	}
	if r.target == "dnat" && r.reflection && rFam != unset && r.src.zone != nil && r.dest.zone != nil {
		c.reflect(&r, p, fam)
	}
	if len(r.r4) > 1 || len(r.r6) > 1 {
		c.warn(r.s, "specifies multiple rewrite addresses, using only first one")
	}
	has4 := r.s4 != nil || r.d4 != nil || r.r4 != nil
	has6 := r.s6 != nil || r.d6 != nil || r.r6 != nil
	if fam <= 0 && !has4 && !has6 {
		if fam == unset {
			fam = 4 // for old times' sake (openwrt-observed.md 8.6)
		}
		c.emitRedirect(&r, p, uint8(fam), addresses{}, addresses{}, nil)
		return
	}
	if (fam <= 0 || fam == 4) && (!has4 && !has6 || has4) {
		c.emitRedirects(&r, p, 4, r.s4, r.d4, r.r4)
	}
	if (fam <= 0 || fam == 6) && (!has4 && !has6 || has6) {
		c.emitRedirects(&r, p, 6, r.s6, r.d6, r.r6)
	}
}

func (c *compiler) emitRedirects(r *redirectSpec, p protocol, fam uint8, src, dst, to []address) {
	for _, sa := range c.grouped(src, r.s) {
		for _, da := range c.grouped(dst, r.s) {
			c.emitRedirect(r, p, fam, sa, da, to)
		}
	}
}

// emitRedirect makes one rule of a NAT chain.
func (c *compiler) emitRedirect(r *redirectSpec, p protocol, fam uint8, src, dst addresses, to []address) {
	if c.fw3() {
		if fam == 6 {
			return
		}
		fam = 4
	}
	m := match{family: fam, src: src, dst: dst}
	if r.sport != nil {
		m.sports = portsOf([]port{*r.sport})
	}
	if r.dport != nil {
		m.dports = portsOf([]port{*r.dport})
	}
	m.protos = c.protoNumbers(r.s, p, fam, false)
	if r.device != "" {
		m.out = devices{any: []string{r.device}}
	}
	more := ruleSpec{s: r.s, macs: r.macs, limit: r.limit, clock: r.clock, mark: r.mark, helper: r.helper, set: r.set, setName: r.setName}
	m.more = more.rare(c, p)

	out := rule{match: m, hit: &Hit{Config: "firewall", Section: r.s.Name, Name: r.name, Says: r.says}}
	if r.toPort != nil {
		if r.sport == nil && r.dport == nil && r.s.Type == "redirect" && !c.fw3() {
			// (openwrt-observed.md 8.5)
			c.refuse(r.s, "rewrites a port without testing one, the ruleset cannot be loaded")
		}
		out.nat.ports, out.nat.min, out.nat.max = true, r.toPort.min, r.toPort.max
	}
	if len(to) > 0 {
		out.nat.from, out.nat.to = rewriteTo(to[0])
	}
	if out.hit.Says == "" {
		out.hit.Says = r.tell(p, &out)
	}
	switch r.target {
	case "dnat":
		out.do = doDNAT
		if len(to) == 0 {
			out.do = doRedirect
		}
		r.src.zone.dnat = true // of a reflection zone, too
		c.add("dstnat_"+r.src.zone.name, out)
	case "snat":
		if !out.nat.from.IsValid() && !out.nat.ports {
			c.refuse(r.s, "rewrites nothing but the port of a protocol that has none, the ruleset cannot be loaded")
			return
		}
		out.do = doSNAT
		c.add(c.natChain(r), out)
	case "masquerade":
		out.do = doMasquerade
		c.add(c.natChain(r), out)
	default:
		out.do = doAccept
		c.add(c.natChain(r), out)
	}
}

// natChain: NAT without a zone comes before that of all zones.
func (c *compiler) natChain(r *redirectSpec) string {
	if r.dest.zone == nil {
		return "srcnat"
	}
	return "srcnat_" + r.dest.zone.name
}

// rewriteTo is where an address leads: of a subnet its first address (fw4 masks
// the host bits off), of a range any (the kernel chooses by a hash, we take the
// first).
func rewriteTo(a address) (from, to netip.Addr) {
	if a.isRange() {
		return a.addr, a.to
	}
	if sp, ok := a.span(); ok {
		return sp.first, netip.Addr{}
	}
	return a.addr, netip.Addr{}
}

// tell says what the redirect does.
func (r *redirectSpec) tell(p protocol, out *rule) string {
	what := "everything"
	if !p.any {
		var dp []port
		if r.dport != nil {
			dp = []port{*r.dport}
		}
		what = traffic([]protocol{p}, dp)
	}
	to := "the router itself"
	if out.nat.from.IsValid() {
		to = out.nat.from.String()
	}
	if r.toPort != nil {
		to += " port " + r.toPort.String()
	}
	switch r.target {
	case "dnat":
		return fmt.Sprintf("sends %s that comes from %s on to %s", what, r.src, to)
	case "snat":
		return fmt.Sprintf("makes %s to %s look as if it came from %s", what, r.outZone(), to)
	case "masquerade":
		return fmt.Sprintf("makes %s to %s look as if it came from the router", what, r.outZone())
	}
	return fmt.Sprintf("leaves the sender of %s to %s as it is", what, r.outZone())
}

func (r *redirectSpec) outZone() string {
	if r.dest.zone == nil {
		return "anywhere"
	}
	return r.dest.zone.name
}

// reflect makes the rules by which hosts behind the router reach a port
// forward at the router's outer address (openwrt-observed.md 8.15).
func (c *compiler) reflect(r *redirectSpec, p protocol, fam int8) {
	outer4, outer6 := r.d4, r.d6
	if outer4 == nil && outer6 == nil {
		outer4, outer6 = hostsOf(r.src.zone.related)
	}
	zones := r.reflectZones
	if len(zones) == 0 {
		zones = []zoneRef{r.dest}
	}
	for _, z := range zones {
		if z.zone == nil {
			c.refuse(r.s, "has reflection zone '*', the ruleset cannot be rendered")
			continue
		}
		inner4, inner6, _ := byFamily(selection{addrs: z.zone.related})
		if r.src.zone.masq && r.r4 != nil {
			c.reflectFamily(r, p, z.zone, 4, inner4, outer4, r.r4)
		}
		if r.src.zone.masq6 && r.r6 != nil {
			c.reflectFamily(r, p, z.zone, 6, inner6, outer6, r.r6)
		}
	}
}

func hostsOf(list []address) (v4, v6 []address) {
	for _, a := range list {
		h := hostAddr(a.addr)
		if h.family == 4 {
			v4 = append(v4, h)
		} else {
			v6 = append(v6, h)
		}
	}
	return v4, v6
}

func (c *compiler) reflectFamily(r *redirectSpec, p protocol, z *zone, fam int8, inner, outer, to []address) {
	var as *address
	from := outer
	if r.reflectFrom == "internal" {
		from = inner
	}
	if len(from) > 0 {
		as = &from[0]
	}
	if r.reflectFrom == "internal" {
		// The router's address in the subnet of the host it leads to.
		for i, a := range z.related {
			if a.family == fam && sameNet(to[0], a) {
				as = &z.related[i]
				break
			}
		}
	}
	switch {
	case as == nil:
		c.warn(r.s, "%s rewrite IP cannot be determined, disabling reflection", r.reflectFrom)
		return
	case len(inner) == 0:
		c.warn(r.s, "internal address range cannot be determined, disabling reflection")
		return
	case len(outer) == 0:
		c.warn(r.s, "external address range cannot be determined, disabling reflection")
		return
	}
	in := redirectSpec{s: r.s, name: r.name + " (reflection)", src: zoneRef{zone: z}, target: "dnat",
		sport: r.sport, dport: r.dport, toPort: r.toPort, limit: r.limit, clock: r.clock, mark: r.mark, helper: r.helper,
		says: fmt.Sprintf("leads %s, too, from the router's outer address to %s", z.name, to[0].addr)}
	c.emitRedirects(&in, p, uint8(fam), inner, outer, to)

	out := redirectSpec{s: r.s, name: in.name, dest: zoneRef{zone: z}, target: "snat", dport: r.toPort,
		clock: r.clock, mark: r.mark, helper: r.helper,
		says: fmt.Sprintf("makes answers to %s come back through the router", z.name)}
	c.emitRedirects(&out, p, uint8(fam), inner, to, []address{hostAddr(as.addr)})
}

// readNAT reads a section of type nat. Its `src` is the zone by which packets
// leave (openwrt-observed.md 8.17).
func (c *compiler) readNAT(s uci.Section) {
	r, enabled, ok := c.natOptions(s)
	if !ok {
		c.skip(s, "skipped due to invalid options")
		return
	}
	if !enabled {
		c.skip(s, "is disabled, ignoring section")
		return
	}
	switch r.target {
	case "accept", "snat", "masquerade":
	default:
		c.warn(s, "has invalid target specified, defaulting to masquerade")
		r.target = "masquerade"
	}
	why := ""
	switch {
	case r.target == "snat" && r.toIP == nil && r.toPort == nil:
		why = "needs either 'snat_ip' or 'snat_port' for target snat, ignoring section"
	case r.target != "snat" && r.toIP != nil:
		why = "must not use 'snat_ip' for non-snat target, ignoring section"
	case r.target != "snat" && r.toPort != nil:
		why = "must not use 'snat_port' for non-snat target, ignoring section"
	case (r.toPort != nil || r.sport != nil || r.dport != nil) && !ensurePorts(&r.protos):
		why = "specifies ports but no UDP/TCP protocol, ignoring section"
	case r.toIP.hasOddMask():
		why = "must not use inversion or non-contiguous masks in 'snat_ip', ignoring section"
	}
	if why != "" {
		c.skip(s, "%s", why)
		return
	}
	c.checkName(s, r.name)
	for _, p := range r.protos {
		c.placeNAT(r, p)
	}
}

func (c *compiler) natOptions(s uci.Section) (r redirectSpec, enabled, ok bool) {
	o := c.options(s)
	r = redirectSpec{s: s}
	enabled = o.flag("enabled", true)
	r.name = value(o, "name", parseString, c.label(s))
	r.family = value(o, "family", parseFamily, unset)
	r.dest = c.zoneRef(o, "src", false)
	r.device = value(o, "device", parseString, "")
	unsupported(o, "ipset", parseSetRef)
	r.protos = c.protocols(o, "all")
	r.srcIP = pointer(o, "src_ip", c.parseNetwork)
	r.sport = pointer(o, "src_port", parsePort)
	r.toIP = pointer(o, "snat_ip", c.parseNetwork)
	if r.toIP != nil {
		o.plain("snat_ip", r.toIP.not)
	}
	r.toPort = pointer(o, "snat_port", parsePort)
	if r.toPort != nil {
		o.plain("snat_port", r.toPort.not)
	}
	r.dstIP = pointer(o, "dest_ip", c.parseNetwork)
	r.dport = pointer(o, "dest_port", parsePort)
	unsupported(o, "extra", parseString)
	r.limit = o.limits("limit", "limit_burst", "", 0)
	o.flag("connlimit_ports", false)
	r.clock = o.clock()
	r.mark = pointer(o, "mark", parseMark)
	o.flag("counter", true)
	o.one("log")
	r.target = value(o, "target", parseTarget, "masquerade")
	return r, enabled, o.done()
}

func (c *compiler) placeNAT(r redirectSpec, p protocol) {
	if !p.ported() {
		r.sport, r.dport, r.toPort = nil, nil, nil
	}
	var sFam, dFam, rFam int8
	r.s4, r.s6, sFam = byFamily(pick(r.srcIP)...)
	r.d4, r.d6, dFam = byFamily(pick(r.dstIP)...)
	r.r4, r.r6, rFam = byFamily(pick(r.toIP)...)
	if len(r.r4) > 1 || len(r.r6) > 1 {
		c.warn(r.s, "specifies multiple rewrite addresses, using only first one")
	}
	fam, why := inferFamily(r.family, familyPart{sFam, "source IP"}, familyPart{dFam, "destination IP"},
		familyPart{rFam, "rewrite IP"}, r.dest.part("source zone"))
	if why != "" {
		c.skip(r.s, "%s, skipping", why)
		return
	}
	has4 := r.s4 != nil || r.d4 != nil || r.r4 != nil
	has6 := r.s6 != nil || r.d6 != nil || r.r6 != nil
	if fam == unset {
		fam = 4
		if has6 && !has4 {
			fam = 6
		}
	}
	if fam == 0 && !has4 && !has6 {
		c.emitRedirect(&r, p, 0, addresses{}, addresses{}, nil)
		return
	}
	if fam == 0 || fam == 4 {
		c.emitRedirects(&r, p, 4, r.s4, r.d4, r.r4)
	}
	if fam == 0 || fam == 6 {
		c.emitRedirects(&r, p, 6, r.s6, r.d6, r.r6)
	}
}
