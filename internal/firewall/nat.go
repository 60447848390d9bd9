package firewall

import (
	"net/netip"
)

// translateDst rewrites the destination on arrival: for a first packet as the
// dstnat chain says, for every other one as its connection was begun. It
// reports false when the packet cannot go on.
func (w *walk) translateDst(c *chain) bool {
	if w.flow == nil {
		return true
	}
	if w.fresh && c != nil {
		v := w.view()
		switch do, by := w.run(c, &v, 0); do {
		case doDNAT:
			w.aim(by.nat, by.hit)
		case doRedirect:
			to := by.nat
			to.from = w.r.selfOn(w.in, w.family)
			if !to.from.IsValid() {
				w.trail.add(hitNoSelf)
				return false
			}
			w.aim(to, by.hit)
		}
	}
	w.rewriteDst()
	return true
}

// aim gives a new connection another destination.
func (w *walk) aim(to natTo, by *Hit) {
	f := w.flow
	k := f.ways[1].back()
	was := k
	if to.from.IsValid() {
		k.dst = to.from
		if to.to.IsValid() && (span{to.from, to.to}).holds(was.dst) {
			k.dst = was.dst
		}
	}
	if to.ports && hasPorts(k.proto) && (k.dport < to.min || k.dport > to.max) {
		k.dport = to.min
	}
	f.ways[1] = k.back()
	// Same address and port as before: it does not count as redirected
	// (observed: openwrt-observed.md 8.3).
	f.dnat = k != was
	f.dnatBy = by
}

// target is how the packet shall look when it has been rewritten.
func (w *walk) target() tuple {
	if w.reply {
		return w.flow.ways[0].back()
	}
	return w.flow.ways[1].back()
}

// rewriteDst makes the destination right: of a connection's packets that were
// redirected, and of answers to those whose source was hidden.
func (w *walk) rewriteDst() {
	f := w.flow
	if f == nil || w.reply && !f.snat || !w.reply && !f.dnat {
		return
	}
	to := w.target()
	if w.state == Related {
		w.rewriteInner(func(in *Packet) { in.Src, in.SrcPort = to.dst, portFor(in, to.dport, in.SrcPort); setID(in, to) })
		w.p.Dst = to.dst
		w.note(f)
		return
	}
	w.p.Dst = to.dst
	if hasPorts(w.p.Proto) {
		w.p.DstPort = to.dport
	}
	setID(&w.p, to)
	w.note(f)
}

// rewriteSrc makes the source right.
func (w *walk) rewriteSrc() {
	f := w.flow
	if f == nil || w.reply && !f.dnat || !w.reply && !f.snat {
		return
	}
	to := w.target()
	if w.state == Related {
		w.rewriteInner(func(in *Packet) { in.Dst, in.DstPort = to.src, portFor(in, to.sport, in.DstPort); setID(in, to) })
		w.p.Src = to.src
		w.note(f)
		return
	}
	w.p.Src = to.src
	if hasPorts(w.p.Proto) {
		w.p.SrcPort = to.sport
	}
	setID(&w.p, to)
	w.note(f)
}

// note adds the section that began a rewriting, for packets that come later.
func (w *walk) note(f *flow) {
	if w.fresh {
		return
	}
	for _, h := range []*Hit{f.dnatBy, f.snatBy} {
		if h != nil && !w.trail.has(h) {
			w.trail.add(h)
		}
	}
}

func (w *walk) rewriteInner(change func(*Packet)) {
	if w.p.Inner == nil {
		return
	}
	in := *w.p.Inner
	change(&in)
	w.p.Inner = &in
}

func portFor(p *Packet, to, was uint16) uint16 {
	if hasPorts(p.Proto) {
		return to
	}
	return was
}

func setID(p *Packet, to tuple) {
	if to.proto == ICMP || to.proto == ICMPv6 {
		p.ICMPID = to.sport
	}
}

// translateSrc rewrites the source of a packet that leaves.
func (w *walk) translateSrc() bool {
	if w.flow == nil {
		return true
	}
	if w.fresh && w.state == New {
		v := w.view()
		do, by := w.run(w.r.hooks.srcnat, &v, 0)
		var to natTo
		dev := ""
		switch do {
		case doSNAT:
			to = by.nat
		case doMasquerade:
			to = by.nat
			dev = w.out
			if to.from = w.r.masqAddr(w.out, w.p.Dst); !to.from.IsValid() {
				w.trail.add(hitNoMasq)
				return false
			}
		}
		if by != nil {
			w.flow.snatBy = by.hit
		}
		if !w.settle(to, dev) {
			w.trail.add(hitNoPort)
			return false
		}
	}
	w.rewriteSrc()
	return true
}

// settle fixes the source that the world outside sees, with a port that no
// other connection uses towards the same destination.
func (w *walk) settle(to natTo, dev string) bool {
	f := w.flow
	if f == nil || !w.fresh {
		return true
	}
	k := f.ways[1].back()
	was := k
	if to.from.IsValid() {
		k.src = to.from
		if to.to.IsValid() && (span{to.from, to.to}).holds(was.src) {
			k.src = was.src
		}
	}
	if !w.freePort(&k, to) {
		return false
	}
	f.ways[1] = k.back()
	f.snat = k != was
	f.masq = dev
	if f.snat && to == (natTo{}) {
		f.snatBy = nil // a port changed only to tell two connections apart
	}
	return true
}

// freePort keeps the port when it is allowed and free, else takes the next
// one. (The kernel begins at a random place; that cannot be foreseen.)
func (w *walk) freePort(k *tuple, to natTo) bool {
	taken := func() bool {
		_, ok := w.t.find(k.back(), w.now)
		return ok
	}
	icmp := k.proto == ICMP || k.proto == ICMPv6
	if !hasPorts(k.proto) && !icmp {
		return !taken()
	}
	min, max := to.min, to.max
	fixed := to.ports && hasPorts(k.proto)
	if (!fixed || min <= k.sport && k.sport <= max) && !taken() {
		return true
	}
	if !fixed {
		// The kernel stays in the class of the old port.
		switch {
		case icmp:
			min, max = 0, 65535
		case k.sport < 512:
			min, max = 1, 511
		case k.sport < 1024:
			min, max = 600, 1023
		default:
			min, max = 1024, 65535
		}
	}
	if k.sport < min || k.sport > max {
		k.sport = max
	}
	for range int(max) - int(min) + 1 {
		if k.sport == max {
			k.sport = min
		} else {
			k.sport++
		}
		if !taken() {
			return true
		}
	}
	return false
}

// selfOn is the router's first address on a device (kernel: nf_nat_redirect).
func (r *Ruleset) selfOn(dev string, family uint8) netip.Addr {
	if dev == "lo" {
		if family == 4 {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return netip.IPv6Loopback()
	}
	for _, i := range r.addrs[dev] {
		for _, a := range i.Addrs {
			if a.Addr().Is4() == (family == 4) && !a.Addr().IsLinkLocalUnicast() {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

// masqAddr is the address behind which packets for dst leave by dev: that in
// the subnet of the destination, else of the gateway, else the first one
// (observed: openwrt-observed.md 8.18; kernel: inet_select_addr and, for IPv6,
// the rules of RFC 6724).
func (r *Ruleset) masqAddr(dev string, dst netip.Addr) netip.Addr {
	if dst.Is6() {
		return r.masqAddr6(dev, dst)
	}
	hops := []netip.Addr{dst}
	for _, i := range r.addrs[dev] {
		hops = append(hops, i.Gateways...)
	}
	for _, hop := range hops {
		for _, i := range r.addrs[dev] {
			for _, a := range i.Addrs {
				if a.Addr().Is4() && a.Contains(hop) {
					return a.Addr()
				}
			}
		}
	}
	if a := r.selfOn(dev, 4); a.IsValid() {
		return a
	}
	// A device without an address borrows one.
	for _, i := range r.ifaces {
		for _, a := range i.Addrs {
			if a.Addr().Is4() && !a.Addr().IsLoopback() {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

func (r *Ruleset) masqAddr6(dev string, dst netip.Addr) netip.Addr {
	best, score := netip.Addr{}, -1
	for _, i := range r.ifaces {
		for _, p := range i.Addrs {
			a := p.Addr()
			if !a.Is6() || a.IsLoopback() || a.IsLinkLocalUnicast() && i.Device != dev {
				continue
			}
			s := commonBits(a, dst)
			if ula(a) == ula(dst) {
				s += 1000
			}
			if i.Device == dev {
				s += 2000
			}
			if a.IsLinkLocalUnicast() == dst.IsLinkLocalUnicast() {
				s += 4000
			}
			if s > score {
				best, score = a, s
			}
		}
	}
	return best
}

func ula(a netip.Addr) bool { return a.As16()[0]&0xFE == 0xFC }

func commonBits(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := range x {
		for bit := 7; bit >= 0; bit-- {
			if (x[i]^y[i])>>bit&1 != 0 {
				return i*8 + 7 - bit
			}
		}
	}
	return 128
}
