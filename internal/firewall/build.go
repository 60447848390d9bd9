package firewall

import (
	"fmt"

	"github.com/heimweg/heimweg/internal/router"
)

// build puts the chains together in the order in which a packet meets them:
// what the kernel knows already, rules for any zone, then zone after zone in
// file order, then the defaults (openwrt-observed.md 8.10 and 8.11).
func (c *compiler) build() *Ruleset {
	r := &Ruleset{line: c.line, ifaces: c.live, addrs: map[string][]Iface{}}
	for _, i := range c.live {
		if i.Up {
			r.addrs[i.Device] = append(r.addrs[i.Device], i)
		}
	}
	r.zones = c.zones
	r.resetWith = answerOf(c.defaults.tcpRejectCode)
	r.rejectWith = answerOf(c.defaults.anyRejCode)
	for _, z := range c.zones {
		c.buildZone(z)
	}
	d := &c.defaults
	r.hooks = hooks{
		rawPre:     c.jumpList("notrack", func(z *zone) bool { return c.chains["notrack_"+z.name] != nil }, notLoopback),
		rawOut:     c.jumpList("notrack", func(z *zone) bool { return c.chains["notrack_"+z.name] != nil }, onlyLoopback),
		preMangle:  c.chains["mangle_prerouting"],
		inMangle:   c.chains["mangle_input"],
		fwdMangle:  c.chains["mangle_forward"],
		outMangle:  c.chains["mangle_output"],
		postMangle: c.chains["mangle_postrouting"],
		input:      c.base("input", d.input, "what is for the router itself and nothing else speaks about"),
		forward:    c.base("forward", d.forward, "what nothing allows to be passed on"),
		output:     c.base("output", d.output, "what the router sends and nothing else speaks about"),
		dstnat:     c.jumpList("dstnat", func(z *zone) bool { return z.dnat }, zoneMatch.from),
	}
	snat := c.chain("srcnat")
	snat.rules = append(snat.rules, c.jumpList("srcnat", func(*zone) bool { return true }, zoneMatch.to).rules...)
	r.hooks.srcnat = snat
	r.refused = c.refused
	r.sets = c.sets
	r.gaps = c.gaps
	return r
}

func answerOf(code string) Answer {
	for a := TCPReset; a <= NoRoute; a++ {
		if a.String() == code {
			return a
		}
	}
	return PortUnreachable
}

func verbOf(policy string) verb {
	switch policy {
	case "accept":
		return doAccept
	case "reject":
		return doReject
	}
	return doDrop
}

// base is one of the three filter chains.
func (c *compiler) base(name, policy, about string) *chain {
	d := &c.defaults
	out := &chain{name: name}
	put := func(r rule) { out.rules = append(out.rules, r) }
	loop := devices{any: []string{"lo"}}
	switch name {
	case "input":
		put(rule{match: match{in: loop}, do: doAccept, hit: hitLoop})
	case "output":
		put(rule{match: match{out: loop}, do: doAccept, hit: hitLoop})
	}
	put(rule{match: match{known: true}, do: doAccept, hit: hitKnown})
	put(rule{match: match{related: true}, do: doAccept, hit: hitRelated})
	if d.dropInvalid {
		h := d.hit
		h.Says = "drops what belongs to no connection"
		put(rule{match: match{invalid: true}, do: doDrop, hit: &h})
	}
	if name == "input" && d.synFlood {
		h := d.hit
		h.Says = "drops new TCP connections that come too fast for its synflood_rate"
		put(rule{match: match{protos: []uint8{TCP}, more: &matchMore{syn: true, limit: c.over(c.newLimit(d.s, d.synRate))}}, do: doDrop, hit: &h})
	}
	out.rules = append(out.rules, c.chain(name).rules...)
	for _, z := range c.zones {
		says := fmt.Sprintf("it comes in by zone %s", z.name)
		if name == "output" {
			says = fmt.Sprintf("it leaves by zone %s", z.name)
		}
		h := z.hit(says)
		for _, m := range z.matches {
			cond := m.from()
			if name == "output" {
				cond = m.to()
			}
			put(rule{match: cond, do: doJump, jump: c.chain(name + "_" + z.name), hit: h})
		}
	}
	h := d.hit
	h.Says = policyWord(policy) + " " + about
	if !d.seen {
		h.Says = "no section of type defaults: drops " + about
	}
	put(rule{do: verbOf(policy), hit: &h})
	if policy == "reject" {
		// "reject with tcp reset" for every protocol leaves the rest to drop.
		put(rule{do: doDrop, hit: &h})
	}
	return out
}

func policyWord(policy string) string {
	switch policy {
	case "accept":
		return "lets through"
	case "reject":
		return "refuses"
	}
	return "silently drops"
}

// buildZone completes the chains of one zone.
func (c *compiler) buildZone(z *zone) {
	end := func(chain, policy, side, says string) {
		if z.dnat && chain != "output" {
			c.add(chain+"_"+z.name, rule{match: match{dnat: true}, do: doAccept,
				hit: z.hit(fmt.Sprintf("zone %s lets port forwards through", z.name))})
		}
		c.add(chain+"_"+z.name, rule{do: doJump, jump: c.chain(policy + side + z.name), hit: z.hit(policyWord(policy) + " " + says)})
	}
	end("input", z.input, "_from_", fmt.Sprintf("what comes from %s for the router itself", z.name))
	end("output", z.output, "_to_", fmt.Sprintf("what the router sends to %s", z.name))
	end("forward", z.forward, "_to_", fmt.Sprintf("what goes from one device of %s to another", z.name))

	for _, verdict := range []string{"accept", "reject", "drop"} {
		from, to := c.chains[verdict+"_from_"+z.name], c.chains[verdict+"_to_"+z.name]
		for _, m := range z.matches {
			if from != nil {
				from.rules = append(from.rules, rule{match: m.from(), do: verbOf(verdict)})
			}
			if to != nil && verdict == "accept" {
				to.rules = append(to.rules, c.dropStray(z, m)...)
			}
			if to != nil {
				to.rules = append(to.rules, rule{match: m.to(), do: verbOf(verdict)})
			}
		}
	}
	if z.mtuFix {
		h := z.hit(fmt.Sprintf("fits the size of TCP segments to the way in zone %s", z.name))
		for _, m := range z.matches {
			from, to := m.from(), m.to()
			from.protos, to.protos = []uint8{TCP}, []uint8{TCP}
			c.add("mangle_forward", rule{match: from, do: doClampMSS, hit: h})
			c.add("mangle_postrouting", rule{match: to, do: doClampMSS, hit: h})
		}
	}
	c.masquerade(z)
}

// dropStray keeps packets of no connection from leaving a masquerading zone
// with an inner address (openwrt-observed.md 8.18; 23.05 on, and fw3).
func (c *compiler) dropStray(z *zone, m zoneMatch) []rule {
	if !z.masq && !z.masq6 || z.allowInvalid || !c.dropsStray() || c.defaults.dropInvalid && c.line.AtLeast(router.Line2410) {
		return nil
	}
	cond := m.to()
	cond.invalid = true
	if cond.dst.empty() {
		cond.family = 0 // the zone's own family is not tested there
	}
	if z.masq != z.masq6 {
		only := uint8(4)
		if z.masq6 {
			only = 6
		}
		if cond.family != 0 && cond.family != only {
			c.refuse(z.s, "masquerades another family than that of its subnet, the ruleset cannot be loaded")
			return nil
		}
		cond.family = only
	}
	return []rule{{match: cond, do: doDrop, hit: z.hit(fmt.Sprintf("zone %s hides addresses and lets no packet out that belongs to no connection", z.name))}}
}

// masquerade adds what `masq` and `masq6` mean, behind all other NAT of the
// zone (openwrt-observed.md 8.17).
func (c *compiler) masquerade(z *zone) {
	for i, on := range []bool{z.masq, z.masq6} {
		if !on {
			continue
		}
		opt := "masq"
		if i == 1 {
			opt = "masq6"
		}
		h := z.hit(fmt.Sprintf("%s: what leaves by %s looks as if it came from the router", opt, z.name))
		for _, src := range c.grouped(z.masqSrc[i], z.s) {
			for _, dst := range c.grouped(z.masqDst[i], z.s) {
				c.add("srcnat_"+z.name, rule{match: match{family: uint8(4 + 2*i), src: src, dst: dst}, do: doMasquerade, hit: h})
			}
		}
	}
}

// jumpList is a base chain that only leads into the zones' chains.
func (c *compiler) jumpList(name string, wanted func(*zone) bool, cond func(zoneMatch) match) *chain {
	out := &chain{name: name}
	for _, z := range c.zones {
		to := c.chains[name+"_"+z.name]
		if to == nil || !wanted(z) {
			continue
		}
		for _, m := range z.matches {
			out.rules = append(out.rules, rule{match: cond(m), do: doJump, jump: to})
		}
	}
	return out
}

// never is a condition that nothing meets.
var never = match{more: &matchMore{never: true}}

// notLoopback and onlyLoopback split a zone's way in for NOTRACK: what the
// router sends to itself never arrives by prerouting (fw4: raw_prerouting,
// raw_output).
func notLoopback(m zoneMatch) match { return loopback(m, false) }

func onlyLoopback(m zoneMatch) match { return loopback(m, true) }

func loopback(m zoneMatch, want bool) match {
	out := m.from()
	out.in.any, out.src.any = nil, nil
	for _, d := range m.dev.any {
		if isLoopback(d) == want {
			out.in.any = append(out.in.any, d)
		}
	}
	for _, s := range m.addr.any {
		if loopbackSpan(s) == want {
			out.src.any = append(out.src.any, s)
		}
	}
	some := len(out.in.any) > 0 || len(out.src.any) > 0
	if !want {
		some = some || len(m.dev.none) > 0 || len(m.addr.none) > 0
	}
	if !some {
		return never
	}
	return out
}
