package firewall

import "net/netip"

// answer makes the packet that tells a sender of its rejection, nil when none
// is sent. The answer to a packet of no connection is itself of no connection
// and has to pass the output chain (openwrt-observed.md 8.1).
func (w *walk) answer(with Answer, stray bool) *Packet {
	if w.came.Dst.IsMulticast() || w.came.Src.IsUnspecified() {
		return nil
	}
	var a Packet
	if with == TCPReset {
		if w.came.Proto != TCP || w.came.RST {
			return nil
		}
		a = Packet{Src: w.came.Dst, Dst: w.came.Src, Proto: TCP, SrcPort: w.came.DstPort, DstPort: w.came.SrcPort, RST: true, ACK: true}
	} else {
		if isError(&w.came) {
			return nil
		}
		inner := w.came
		a = Packet{Src: w.speaker(), Dst: w.came.Src, Proto: ICMP, Inner: &inner}
		a.ICMPType, a.ICMPCode = with.icmp(w.family)
		if w.family == 6 {
			a.Proto = ICMPv6
		}
	}
	if !stray {
		return &a
	}
	return w.sendAnswer(a)
}

// icmp gives type and code of an answer.
func (a Answer) icmp(family uint8) (typ, code uint8) {
	if family == 4 {
		switch a {
		case HostUnreachable:
			return 3, 1
		case AdminProhibited:
			return 3, 13
		case NoRoute:
			return 3, 0
		}
		return 3, 3
	}
	switch a {
	case HostUnreachable:
		return 1, 3
	case AdminProhibited:
		return 1, 1
	case NoRoute:
		return 1, 0
	}
	return 1, 4
}

// speaker is the router's address that an ICMP error comes from: the one that
// was asked, else one on the device towards the sender.
func (w *walk) speaker() netip.Addr {
	if w.in == "" {
		return w.came.Src
	}
	for _, i := range w.r.ifaces {
		for _, p := range i.Addrs {
			if p.Addr() == w.came.Dst {
				return p.Addr()
			}
		}
	}
	if a := w.r.masqAddr(w.in, w.came.Src); a.IsValid() {
		return a
	}
	return w.came.Dst
}

// sendAnswer sends an answer that nothing vouches for through the output chain;
// nil when it dies there.
func (w *walk) sendAnswer(a Packet) *Packet {
	out := w.in
	if w.route != nil {
		dev, local := w.route(a.Dst)
		if local {
			dev = "lo"
		}
		if dev == "" {
			return nil
		}
		out = dev
	}
	if w.in == "" {
		out = "lo" // told to a program on the router itself
	}
	sub := walk{r: w.r, t: w.t, now: w.now, p: a, out: out, family: w.family}
	sub.state, sub.flow, sub.reply = w.t.see(&sub.p, w.now)
	sub.rewriteDst()
	v := sub.view()
	if do, _ := sub.run(w.r.hooks.output, &v, 0); do != doAccept {
		return nil
	}
	sub.rewriteSrc()
	return &sub.p
}
