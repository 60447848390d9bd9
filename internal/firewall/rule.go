package firewall

import (
	"fmt"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// ruleSpec is a section of type rule as read.
type ruleSpec struct {
	s                  uci.Section
	name               string
	family             int8
	src, dest          zoneRef
	device             string
	outbound           bool // of device
	helper             bool
	protos             []protocol
	srcIP, destIP      []selection
	macs               []mac
	srcPorts, dstPorts []port
	icmp               []icmpType
	limit              *rate
	clock              *clockMatch
	mark               *mark
	setMark            *mark
	dscp, setDSCP      *dscpMatch
	set                *ipset
	setName            setRef
	target             string
}

func (c *compiler) readRule(s uci.Section) {
	r, enabled, ok := c.ruleOptions(s)
	if !ok {
		c.skip(s, "skipped due to invalid options")
		return
	}
	if !enabled {
		c.skip(s, "is disabled, ignoring section")
		return
	}
	if why := r.contradiction(); why != "" {
		c.skip(s, "%s", why)
		return
	}
	if r.target == "" && c.fw3() {
		c.warn(s, "has no target specified, defaulting to REJECT")
		r.target = "reject"
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
	for _, p := range r.protos {
		c.placeRule(&r, p)
	}
}

func (c *compiler) ruleOptions(s uci.Section) (r ruleSpec, enabled, ok bool) {
	o := c.options(s)
	r = ruleSpec{s: s}
	enabled = o.flag("enabled", true)
	r.name = value(o, "name", parseString, c.label(s))
	if _, is := o.one("_name"); is {
		c.warn(s, "option '_name' is deprecated by fw4")
	}
	r.family = value(o, "family", parseFamily, unset)
	r.src, r.dest = c.zoneRef(o, "src", false), c.zoneRef(o, "dest", false)
	dev := value(o, "device", parseNegatable, negatable{})
	o.plain("device", dev.not)
	r.device = dev.val
	r.outbound = value(o, "direction", parseDirection, false)
	r.setName = value(o, "ipset", parseSetRef, setRef{})
	_, r.helper = o.one("helper")
	o.one("set_helper")
	r.protos = c.protocols(o, "tcpudp")
	r.srcIP = values(o, "src_ip", "", c.parseNetwork)
	r.macs = values(o, "src_mac", "", parseMAC)
	r.srcPorts = values(o, "src_port", "", parsePort)
	r.destIP = values(o, "dest_ip", "", c.parseNetwork)
	r.dstPorts = values(o, "dest_port", "", parsePort)
	r.icmp = values(o, "icmp_type", "", parseICMPType)
	unsupported(o, "extra", parseString)
	r.limit = o.limits("limit", "limit_burst", "", 0)
	r.clock = o.clock()
	r.mark = pointer(o, "mark", parseMark)
	r.setMark = pointer(o, "set_mark", parseMark)
	if r.setMark != nil {
		o.plain("set_mark", r.setMark.not)
		r.setMark.mask |= r.setMark.val
	}
	if x := pointer(o, "set_xmark", parseMark); x != nil {
		o.plain("set_xmark", x.not)
		if r.setMark == nil {
			r.setMark = x
		}
	}
	r.dscp = pointer(o, "dscp", parseDSCP)
	r.setDSCP = pointer(o, "set_dscp", parseDSCP)
	if r.setDSCP != nil {
		o.plain("set_dscp", r.setDSCP.invert)
	}
	o.logs()
	r.target = value(o, "target", parseTarget, "")
	return r, enabled, o.done()
}

func (c *compiler) protocols(o *options, def string) []protocol {
	var out []protocol
	for _, list := range values(o, "proto", def, parseProtocol) {
		out = append(out, list...)
	}
	return out
}

func pointer[T any](o *options, key string, parse func(string) (T, bool)) *T {
	if _, ok := o.raw(key); !ok || o.bad {
		return nil
	}
	var zero T
	v := value(o, key, parse, zero)
	return &v
}

// limits reads how often a section counts.
func (o *options) limits(limit, burst, def string, defBurst int) *rate {
	r := rate{}
	if def != "" {
		r, _ = parseLimit(def)
	}
	r = value(o, limit, parseLimit, r)
	r.burst = value(o, burst, parseInt, defBurst)
	if r.unit == "" {
		return nil
	}
	return &r
}

// logs reads what only counts and logs.
func (o *options) logs() {
	o.flag("counter", true)
	o.one("log")
	if o.c.line.AtLeast(router.Line2410) {
		value(o, "log_limit", parseLimit, rate{})
	}
}

// contradiction says why a readable rule cannot be used.
func (r *ruleSpec) contradiction() string {
	switch {
	case (r.target == "helper" || r.target == "notrack") && r.src.zone == nil:
		return fmt.Sprintf("must specify a source zone for target '%s'", r.target)
	case r.target == "dscp" && r.setDSCP == nil:
		return "must specify option 'set_dscp' for target 'dscp'"
	case r.target == "mark" && r.setMark == nil:
		return "must specify option 'set_mark' or 'set_xmark' for target 'mark'"
	case r.device == "*":
		return "must not specify '*' as device"
	}
	return ""
}

// placeRule makes the chain rules of one protocol of a section.
func (c *compiler) placeRule(r *ruleSpec, p protocol) {
	fam := r.family
	var icmp4, icmp6 []icmpType
	var sports, dports []port
	switch {
	case p.name == "icmp":
		icmp4, icmp6 = icmpOf(r.icmp, 4), icmpOf(r.icmp, 6)
	case p.name == "ipv6-icmp":
		fam = 6
		icmp6 = icmpOf(r.icmp, 6)
	case p.ported():
		sports, dports = r.srcPorts, r.dstPorts
	}
	s4, s6, sFam := byFamily(r.srcIP...)
	d4, d6, dFam := byFamily(r.destIP...)
	setFam := unset
	if r.set != nil {
		setFam = r.set.family
	}
	fam, why := inferFamily(fam, familyPart{setFam, "set match"}, familyPart{sFam, "source IP"}, familyPart{dFam, "destination IP"},
		r.src.part("source zone"), r.dest.part("destination zone"))
	if why != "" {
		c.skip(r.s, "%s, skipping", why)
		return
	}
	only4 := s4 != nil || d4 != nil || icmp4 != nil || r.dscp != nil
	only6 := s6 != nil || d6 != nil || icmp6 != nil || r.dscp != nil
	if fam == unset {
		switch {
		case only4 && !only6:
			fam = 4
		case only6 && !only4:
			fam = 6
		default:
			fam = 0
		}
	}
	if fam == 0 && r.target != "dscp" && !only4 && !only6 {
		c.emitRule(r, p, 0, addresses{}, addresses{}, sports, dports, nil, nil)
		return
	}
	if fam == 0 || fam == 4 {
		c.emitFamily(r, p, 4, s4, d4, sports, dports, icmp4)
	}
	if fam == 0 || fam == 6 {
		c.emitFamily(r, p, 6, s6, d6, sports, dports, icmp6)
	}
}

func icmpOf(list []icmpType, fam int8) []icmpType {
	var out []icmpType
	for _, t := range list {
		if t.family == 0 || t.family == fam {
			out = append(out, t)
		}
	}
	return out
}

func (c *compiler) emitFamily(r *ruleSpec, p protocol, fam uint8, src, dst []address, sports, dports []port, icmp []icmpType) {
	var types []uint8
	var codes []uint16
	for _, t := range icmp {
		typ, lo, hi := t.v4, t.lo4, t.hi4
		if fam == 6 {
			typ, lo, hi = t.v6, t.lo6, t.hi6
		}
		if lo == 0 && hi == 0xFF {
			types = append(types, typ)
		} else {
			codes = append(codes, uint16(typ)<<8|uint16(lo))
		}
	}
	for _, sa := range c.grouped(src, r.s) {
		for _, da := range c.grouped(dst, r.s) {
			if types != nil || codes == nil {
				c.emitRule(r, p, fam, sa, da, sports, dports, types, nil)
			}
			if codes != nil {
				c.emitRule(r, p, fam, sa, da, sports, dports, nil, codes)
			}
		}
	}
}

func (c *compiler) emitRule(r *ruleSpec, p protocol, fam uint8, src, dst addresses, sports, dports []port, types []uint8, codes []uint16) {
	m := match{family: fam, src: src, dst: dst, sports: portsOf(sports), dports: portsOf(dports), icmpAny: types, icmp: codes}
	if types == nil && codes == nil {
		m.protos = c.protoNumbers(r.s, p, fam, true)
	}
	m.more = r.rare(c, p)
	out := rule{match: m, hit: &Hit{Config: "firewall", Section: r.s.Name, Name: r.name, Says: r.says()}}
	name := c.aimRule(r, &out)
	if r.device != "" {
		if r.outbound {
			out.match.out = devices{any: []string{r.device}}
		} else {
			out.match.in = devices{any: []string{r.device}}
		}
	}
	c.add(name, out)
}

// protoNumbers is the condition on the protocol; nil for none. A rule for
// "icmp" and no family means both kinds, a redirect or nat section only ICMP.
func (c *compiler) protoNumbers(s uci.Section, p protocol, fam uint8, both bool) []uint8 {
	switch {
	case p.any:
		return nil
	case p.name == "icmp" && fam == 6:
		return []uint8{ICMPv6}
	case p.name == "icmp" && fam == 0 && both:
		return []uint8{ICMP, ICMPv6}
	}
	n, ok := p.number()
	if !ok {
		c.refuse(s, "names protocol '%s' that nft does not know, the ruleset cannot be loaded", p.name)
	}
	return []uint8{n}
}

// rare collects the conditions that few rules have.
func (r *ruleSpec) rare(c *compiler, p protocol) *matchMore {
	if r.helper {
		c.gap(r.s, "tests for a conntrack helper, which no packet has here")
	}
	x := matchMore{never: r.helper, limit: c.newLimit(r.s, r.limit), clock: r.clock}
	for _, m := range r.macs {
		if m.not {
			x.notMACs = append(x.notMACs, m.addr)
		} else {
			x.macs = append(x.macs, m.addr)
		}
	}
	if r.mark != nil {
		x.mark = &markMatch{r.mark.val, r.mark.mask, r.mark.not}
	}
	x.dscp = r.dscp
	if r.set != nil {
		if r.set.hasPorts() && !p.ported() {
			c.refuse(r.s, "tests ports of a protocol that has none, the ruleset cannot be loaded")
		}
		x.set, x.setDirs, x.setNegat = r.set, r.set.directions(r.setName.dirs), r.setName.not
	}
	if !x.never && x.limit == nil && x.clock == nil && x.macs == nil && x.notMACs == nil && x.mark == nil && x.dscp == nil && x.set == nil {
		return nil
	}
	return &x
}

// aimRule chooses chain and action of a rule.
func (c *compiler) aimRule(r *ruleSpec, out *rule) string {
	switch r.target {
	case "notrack":
		out.do = doNoTrack
		return "notrack_" + r.src.zone.name
	case "helper":
		c.gap(r.s, "sets a conntrack helper, which is not looked at")
		return "helper_" + r.src.zone.name
	case "mark", "dscp":
		return r.aimMangle(out)
	case "dnat", "snat", "masquerade":
		c.refuse(r.s, "has a target that filter rules cannot have, the ruleset cannot be loaded")
	}
	name := "output"
	switch {
	case r.src.zone != nil && r.dest.set():
		name = "forward_" + r.src.zone.name
	case r.src.zone != nil:
		name = "input_" + r.src.zone.name
	case r.src.any && r.dest.set():
		name = "forward"
	case r.src.any:
		name = "input"
	case r.dest.zone != nil:
		name = "output_" + r.dest.zone.name
	}
	switch {
	case r.target == "" && c.line.Before(router.Line2305) && (r.dest.zone != nil || r.src.zone != nil && r.src.zone.log):
		c.refuse(r.s, "has no target, the ruleset cannot be loaded")
	case r.target == "":
	case r.dest.zone != nil:
		out.do, out.jump = doJump, c.chain(r.target+"_to_"+r.dest.zone.name)
	case r.target == "accept":
		out.do = doAccept
	case r.target == "drop":
		out.do = doDrop
	case r.target == "reject":
		out.do = doReject
	}
	return name
}

// aimMangle places rules that change marks.
func (r *ruleSpec) aimMangle(out *rule) string {
	if r.target == "mark" {
		out.do, out.set, out.mask = doMark, r.setMark.val, r.setMark.mask
	} else {
		out.do, out.set = doDSCP, uint32(r.setDSCP.class)
	}
	if r.src.zone != nil {
		out.match.in = devices{any: r.src.zone.devices}
	}
	if r.dest.zone != nil {
		out.match.out = devices{any: r.dest.zone.devices}
	}
	switch {
	case r.src.any && r.dest.any, r.src.zone != nil && r.dest.zone != nil:
		return "mangle_forward"
	case r.src.any && r.dest.zone != nil:
		return "mangle_postrouting"
	case r.src.zone != nil && r.dest.any:
		return "mangle_prerouting"
	case r.src.set() && !r.dest.set():
		return "mangle_input"
	}
	return "mangle_output"
}

// says tells what the rule does, in words.
func (r *ruleSpec) says() string {
	var b strings.Builder
	switch r.target {
	case "accept":
		b.WriteString("lets through ")
	case "reject":
		b.WriteString("refuses ")
	case "drop":
		b.WriteString("silently drops ")
	case "":
		return "has no target and does nothing"
	default:
		b.WriteString("sets marks on ")
	}
	b.WriteString(traffic(r.protos, r.dstPorts))
	switch {
	case r.src.set() && r.dest.set():
		fmt.Fprintf(&b, " from %s to %s", r.src, r.dest)
	case r.src.set():
		fmt.Fprintf(&b, " from %s to the router", r.src)
	case r.dest.set():
		fmt.Fprintf(&b, " of the router to %s", r.dest)
	default:
		b.WriteString(" of the router itself")
	}
	return b.String()
}

// traffic names protocols and ports: "udp to port 51820".
func traffic(protos []protocol, dports []port) string {
	var names []string
	ported := false
	for _, p := range protos {
		if p.any {
			names = []string{"everything"}
			ported = false
			break
		}
		name := p.name
		if name == "ipv6-icmp" {
			name = "icmpv6"
		}
		names = append(names, name)
		ported = ported || p.ported()
	}
	out := strings.Join(names, " and ")
	if !ported || len(dports) == 0 {
		return out
	}
	var ps []string
	for _, p := range dports {
		ps = append(ps, p.String())
	}
	return out + " to port " + strings.Join(ps, ", ")
}

// String writes the port as UCI does.
func (p port) String() string {
	s := ""
	if p.not {
		s = "!"
	}
	if p.min == p.max {
		return fmt.Sprintf("%s%d", s, p.min)
	}
	return fmt.Sprintf("%s%d-%d", s, p.min, p.max)
}
