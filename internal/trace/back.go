package trace

import (
	"fmt"

	"github.com/heimweg/heimweg/internal/firewall"
)

// answerTo is what the receiver of a packet sends back.
func answerTo(p firewall.Packet) firewall.Packet {
	a := p
	a.Src, a.Dst, a.SrcPort, a.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	switch p.Proto {
	case firewall.ICMP:
		a.ICMPType = 0
	case firewall.ICMPv6:
		a.ICMPType = 129
	case firewall.TCP:
		a.ACK = true
	}
	return a
}

// answer names an answer for people, by the port that was asked.
func (w *walk) answer(p firewall.Packet) string {
	return fmt.Sprintf("%s → %s, answer of %s", p.Src, p.Dst, kind(w.r.Proto, w.r.Port))
}

// back is the answer's way.
func (w *walk) back() {
	_ = w.answerHome() && (w.r.Peer == "" || w.answerTunnel() && w.answerDevice())
}

// answerHome: connection tracking lets the answer pass and turns addresses back;
// the routes have to lead into the tunnel again.
func (w *walk) answerHome() bool {
	a := answerTo(w.v.Packet)
	h := hop(AnswerHome, "home", w.answer(a))
	in, v := w.in, firewall.Verdict{}
	if w.v.Local {
		out, _ := w.routes.route(a.Dst)
		v = w.rules.Output(w.tracker, w.snap.Time, a, out)
		v.Out = out
	} else {
		v = w.rules.Handle(w.tracker, w.snap.Time, a, w.v.Out, w.routes.route)
	}
	switch {
	case v.Out == "" && !v.Local:
		return w.die(h, end{cause: NoRoute, silent: true, says: fmt.Sprintf("the home router knows no way back to %s", v.Packet.Dst), because: w.addressPlace()})
	case v.Action != firewall.Accept && !w.rules.Refused():
		return w.die(h, w.verdictEnd(v, AnswerRefused, "the home router's firewall stops the answer", "the answer"))
	case v.Out != in:
		x, _ := w.routes.find(v.Packet.Dst)
		return w.die(h, end{cause: AnswerAstray, silent: true, because: w.addressPlace(), note: by(x),
			says: fmt.Sprintf("the home router sends the answer for %s out by %s instead of %s", v.Packet.Dst, v.Out, in)})
	}
	w.v = v
	h.say("", nil, "belongs to the connection: passes, and leaves by %s", v.Out)
	return w.pass(h)
}

// addressPlace is where the tunnel's own address stands: a /32 there is the
// classic reason for an answer that goes astray.
func (w *walk) addressPlace() []Place {
	if w.r.Peer == "" {
		return nil
	}
	return w.place("network", w.f.Home.Tunnel.Interface, "addresses")
}

// answerTunnel: WireGuard chooses the peer for the answer.
func (w *walk) answerTunnel() bool {
	dst := w.v.Packet.Dst
	h := hop(AnswerTunnel, "home", w.answer(w.v.Packet))
	k, n, ok := w.table.Choose(dst)
	switch {
	case !ok:
		return w.die(h, end{cause: NoPeerFor, silent: true, says: fmt.Sprintf("no peer of the tunnel has %s, so the answer is dropped", dst)})
	case k != w.dev.public:
		return w.die(h, end{cause: AnswerStolen, silent: true, because: w.peerPlace(k, "allowed_ips"),
			says: fmt.Sprintf("the answer for %s goes to %s, whose AllowedIPs say %s", dst, w.nameOf(k), n)})
	}
	h.say(n.String()+" is the longest match", nil, "for %s, encrypted with its key, to where it was last heard", w.r.Peer)
	return w.pass(h)
}

// answerDevice: the device takes from the tunnel only what its AllowedIPs name.
func (w *walk) answerDevice() bool {
	src := w.v.Packet.Src
	h := hop(AnswerDevice, w.r.Peer, w.answer(w.v.Packet))
	n, ok := w.dev.sends(src)
	if !ok {
		return w.die(h, end{cause: AnswerRefused, silent: true, says: fmt.Sprintf("%s does not take answers from %s: it is in none of its AllowedIPs", w.r.Peer, src)})
	}
	h.say("", nil, "in AllowedIPs %s → taken", n)
	return w.pass(h)
}
