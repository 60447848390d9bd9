package firewall

import "time"

// walk is the way of one packet through the ruleset.
type walk struct {
	r     *Ruleset
	t     *Tracker
	now   time.Time
	p     Packet
	in    string
	out   string
	route Route

	family uint8
	came   Packet // as it arrived
	flow   *flow
	reply  bool
	fresh  bool // the first packet of a connection that is not remembered yet
	state  State
	trail  trail
}

// Sections of nobody: what the kernel does by itself.
var (
	hitKnown   = &Hit{Says: "belongs to a connection that was let through before"}
	hitRelated = &Hit{Says: "is a notice about a connection that was let through before"}
	hitLoop    = &Hit{Says: "the router talks to itself"}
	hitNoWay   = &Hit{Config: "network", Says: "the router knows no way to that address"}
	hitNoPkt   = &Hit{Says: "not an IP packet"}
	hitNoMasq  = &Hit{Says: "the outgoing device has no address to hide behind"}
	hitNoSelf  = &Hit{Says: "the incoming device has no address to redirect to"}
	hitNoPort  = &Hit{Says: "every port is taken"}
	hitNoRules = &Hit{Says: "no ruleset is loaded: everything passes"}
)

// arrive handles a packet that came in by a device.
func (w *walk) arrive() Verdict {
	if v, bad := w.begin(); bad {
		return v
	}
	h := &w.r.hooks
	w.track(h.rawPre)
	w.mangle(h.preMangle)
	if !w.translateDst(h.dstnat) {
		return w.dead(Drop)
	}
	out, local := "", false
	if w.route != nil {
		out, local = w.route(w.p.Dst)
	}
	if !local && out == "" {
		w.trail.add(hitNoWay)
		v := w.dead(Drop)
		v.Action, v.With = Reject, NoRoute
		v.Answer = w.answer(NoRoute, true)
		return v
	}
	if local {
		w.mangle(h.inMangle)
		return w.filter(h.input, true)
	}
	w.out = out
	w.mangle(h.fwdMangle)
	return w.filter(h.forward, false)
}

// send handles a packet that the router itself made.
func (w *walk) send() Verdict {
	if v, bad := w.begin(); bad {
		return v
	}
	h := &w.r.hooks
	w.track(h.rawOut)
	w.mangle(h.outMangle)
	if !w.translateDst(nil) {
		return w.dead(Drop)
	}
	return w.filter(h.output, false)
}

// begin refuses what is no packet, and lets everything pass without a ruleset.
func (w *walk) begin() (Verdict, bool) {
	w.came = w.p
	switch {
	case w.p.Src.Is4() && w.p.Dst.Is4():
		w.family = 4
	case w.p.Src.Is6() && w.p.Dst.Is6():
		w.family = 6
	default:
		w.trail.add(hitNoPkt)
		return w.dead(Drop), true
	}
	if !w.r.refused {
		return Verdict{}, false
	}
	w.trail.add(hitNoRules)
	out, local := w.out, false
	if w.route != nil {
		if out, local = w.route(w.p.Dst); out == "" && !local {
			w.trail.add(hitNoWay)
			return w.dead(Drop), true
		}
	}
	return Verdict{Action: Accept, Packet: w.p, Out: out, Local: local, Hits: w.trail.list()}, true
}

func (w *walk) view() view {
	return view{p: &w.p, family: w.family, in: w.in, out: w.out, state: w.state,
		dnat: w.flow != nil && w.flow.dnat, now: w.now, t: w.t}
}

// dead ends the walk of a packet that goes nowhere.
func (w *walk) dead(a Action) Verdict {
	return Verdict{Action: a, Packet: w.p, Reply: w.reply, State: w.state, Hits: w.trail.list()}
}

// track asks connection tracking what the packet belongs to, unless a NOTRACK
// rule exempts it.
func (w *walk) track(raw *chain) {
	if raw != nil {
		v := w.view()
		if a, _ := w.run(raw, &v, 0); a == doNoTrack {
			return
		}
	}
	w.state, w.flow, w.reply = w.t.see(&w.p, w.now)
	w.fresh = w.flow != nil && !w.flow.kept
}

// mangle runs a chain that changes marks; its verdicts do not end the walk.
func (w *walk) mangle(c *chain) {
	if c == nil || len(c.rules) == 0 {
		return
	}
	v := w.view()
	w.run(c, &v, 0)
}

// run tries the rules of a chain. It returns the verb that ended the walk and
// the rule that said it, or doNothing.
func (w *walk) run(c *chain, v *view, depth int) (verb, *rule) {
	if c == nil || depth > maxDepth {
		return doNothing, nil
	}
	for i := range c.rules {
		ru := &c.rules[i]
		if !ru.match.fits(v) {
			continue
		}
		switch ru.do {
		case doNothing, doClampMSS:
		case doJump:
			n := w.trail.n
			w.trail.add(ru.hit)
			if a, by := w.run(ru.jump, v, depth+1); a != doNothing {
				return a, by
			}
			w.trail.n = n
		case doMark:
			w.p.Mark = w.p.Mark&^ru.mask ^ ru.set
		case doDSCP:
			w.p.DSCP = uint8(ru.set)
		case doReject:
			// "reject with tcp reset" says nothing about other protocols.
			if w.r.how(v.p) == TCPReset && v.p.Proto != TCP {
				continue
			}
			w.trail.add(ru.hit)
			return doReject, ru
		default:
			w.trail.add(ru.hit)
			return ru.do, ru
		}
	}
	return doNothing, nil
}

// how tells with which answer packets of this kind are rejected.
func (r *Ruleset) how(p *Packet) Answer {
	if p.Proto == TCP {
		return r.resetWith
	}
	return r.rejectWith
}

// filter judges the packet by one of the three filter chains and lets it leave.
func (w *walk) filter(c *chain, local bool) Verdict {
	v := w.view()
	a, _ := w.run(c, &v, 0)
	switch a {
	case doAccept:
	case doReject:
		out := w.dead(Reject)
		out.With = w.r.how(&w.p)
		out.Answer = w.answer(out.With, w.state == Invalid || w.state == Untracked)
		return out
	default: // doDrop; every filter chain ends with a verdict
		return w.dead(Drop)
	}
	if !local {
		w.mangle(w.r.hooks.postMangle)
		if !w.translateSrc() {
			return w.dead(Drop)
		}
	} else {
		if !w.settle(natTo{}, "") {
			w.trail.add(hitNoPort)
			return w.dead(Drop)
		}
		w.rewriteSrc()
	}
	if w.flow != nil {
		w.t.keep(w.flow, w.now)
	}
	out := w.out
	if local {
		out = ""
	}
	return Verdict{Action: Accept, Packet: w.p, Out: out, Local: local, Reply: w.reply, State: w.state, Hits: w.trail.list()}
}
