package plan_test

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
)

// wall is the firewall of a router as package firewall reads its files.
type wall struct {
	t     tb
	rules *firewall.Ruleset
	live  []firewall.Iface
}

func wallOf(t tb, s *router.Snapshot) wall {
	w := wall{t: t}
	for _, i := range s.Interfaces {
		w.live = append(w.live, firewall.Iface{Name: i.Name, Device: i.Device, Addrs: i.Addresses, Gateways: i.Gateways, Up: i.Up})
	}
	rules, warnings := firewall.Compile(s.Board.Release.Line, s.Config("network"), s.Config("firewall"), w.live)
	for _, x := range warnings {
		t.Errorf("the firewall complains: %s", x.Text)
	}
	if rules.Refused() {
		t.Errorf("the firewall refuses everything")
	}
	w.rules = rules
	return w
}

// route: the interface whose network holds dst, else the WAN side.
func (w wall) route(dst netip.Addr) (string, bool) {
	out := ""
	for _, i := range w.live {
		for _, p := range i.Addrs {
			switch {
			case p.Addr() == dst:
				return "", true
			case p.Masked().Contains(dst):
				return i.Device, false
			case i.Name == "wan":
				out = i.Device
			}
		}
	}
	return out, false
}

func (w wall) send(in string, p firewall.Packet) firewall.Verdict {
	return w.rules.Handle(firewall.NewTracker(), time.Unix(1e9, 0), p, in, w.route)
}

// passes fails unless a packet from a device meets the wanted fate.
func (w wall) passes(want bool, what, in, from, to string, proto uint8, port uint16) firewall.Verdict {
	w.t.Helper()
	p := firewall.Packet{Src: netip.MustParseAddr(from), Dst: netip.MustParseAddr(to), Proto: proto, SrcPort: 40000, DstPort: port, SYN: proto == 6}
	if proto == 1 || proto == 58 {
		p.SrcPort, p.DstPort, p.ICMPID = 0, 0, 7
		p.ICMPType = map[uint8]uint8{1: 8, 58: 128}[proto]
	}
	v := w.send(in, p)
	if (v.Action == firewall.Accept) != want {
		w.t.Errorf("%s: %v, by %v", what, v.Action, v.Hits)
	}
	return v
}

// Whatever a household wants its peers to reach they reach, and nothing else, as
// package firewall reads the files that the plan writes.
func TestPeersReachWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyHome(t)
		s := carryOut(t, h, anyRouter(t))
		judge(t, h, s)
	})
}

func judge(t tb, h home.Home, s *router.Snapshot) {
	t.Helper()
	const tcp, udp, icmp, icmp6 = 6, 17, 1, 58
	w := wallOf(t, s)
	tun, six := h.Tunnel.Interface, !h.Tunnel.Network6.IsZero()
	me, me6 := h.Tunnel.Network.Host(200).Addr().String(), "fd3a:71c9:5e02::c8"
	gw := h.Tunnel.Network.First().Addr().String()
	lan := lanOf(t, s)
	nas := lan.Addr().Next().Next().String()
	wan := h.Uplink.Kind != home.OneArmed

	v := w.passes(h.Reach.HomeLAN, "peer to the home LAN", tun, me, nas, tcp, 445)
	if h.Reach.HomeLAN {
		seen := v.Packet.Src.String()
		if masked := h.Reach.NATToLAN || !wan; masked != (seen == lan.Addr().String()) {
			t.Errorf("the NAS sees %s", seen)
		}
	}
	w.passes(wan && h.Reach.Internet, "peer to the internet", tun, me, "198.51.100.9", tcp, 443)
	if h.Uplink.Kind == home.Behind {
		w.passes(h.Reach.UplinkLAN, "peer to the uplink LAN", tun, me, "192.168.2.1", tcp, 80)
	}
	w.passes(true, "peer asks the router for a name", tun, me, gw, udp, 53)
	w.passes(true, "the same by TCP", tun, me, gw, tcp, 53)
	w.passes(true, "peer pings the router", tun, me, gw, icmp, 0)
	w.passes(false, "peer to the router's SSH", tun, me, gw, tcp, 22)
	w.passes(false, "peer to the router's web page in the LAN", tun, me, lan.Addr().String(), tcp, 80)
	w.passes(false, "peer to another peer", tun, me, h.Tunnel.Network.Host(201).Addr().String(), tcp, 22)
	if six {
		w.passes(true, "peer pings the router by IPv6", tun, me6, "fd3a:71c9:5e02::1", icmp6, 0)
		w.passes(false, "peer to the router's SSH by IPv6", tun, me6, "fd3a:71c9:5e02::1", tcp, 22)
		v := w.passes(wan && h.Reach.Internet && s.Board.Fw4, "peer to the internet by IPv6", tun, me6, "2001:db8:77::9", tcp, 443)
		if v.Action == firewall.Accept && v.Packet.Src.String() == me6 {
			t.Errorf("the internet sees the peer's private address")
		}
	}
	for _, p := range h.Peers {
		w.passes(p.Admin && !p.Disabled, p.Name+" to the router's SSH", tun, p.Address.String(), gw, tcp, 22)
		if p.Address6.IsValid() {
			w.passes(p.Admin && !p.Disabled, p.Name+" to the router's web page by IPv6", tun, p.Address6.String(), "fd3a:71c9:5e02::1", tcp, 443)
		}
		w.passes(false, p.Name+" to another port", tun, p.Address.String(), gw, tcp, 8080)
	}
	if wan {
		w.passes(true, "a handshake from outside", "wan", "198.51.100.9", "192.168.2.253", udp, h.Tunnel.Port)
		w.passes(false, "SSH from outside", "wan", "198.51.100.9", "192.168.2.253", tcp, 22)
		w.passes(false, "another port from outside", "wan", "198.51.100.9", "192.168.2.253", udp, 9)
	} else {
		w.passes(true, "a handshake by way of the ISP router", "br-lan", "198.51.100.9", lan.Addr().String(), udp, h.Tunnel.Port)
	}
	w.passes(true, "LAN to the router", "br-lan", nas, lan.Addr().String(), tcp, 22)
	w.passes(true, "LAN to the internet", "br-lan", nas, "198.51.100.9", tcp, 443)
}

// The same for the scenarios of testdata, whose routers are not the shipped ones.
func TestScenariosReach(t *testing.T) {
	for _, name := range []string{"one-armed", "one-armed-closed", "two-lans"} {
		parts := archive(t, "testdata/"+name+".txtar")
		h := parseHome(t, parts["home.toml"])
		s := shipped(t, map[bool]string{true: "25.12", false: "24.10"}[name == "one-armed-closed"])
		for _, c := range router.Touched() {
			if text, ok := parts[c]; ok {
				put(t, s, c, text)
			}
		}
		arrange(t, s, parts["live"])
		p, _ := plan.For(h, s, access)
		s = settle(t, s, p, secretsFor(h))
		w := wallOf(t, s)
		for _, l := range h.LANs {
			host := l.Network.Host(33).Addr().String()
			w.passes(true, name+": peer to "+l.Interface, "wg0", "10.86.20.2", host, 6, 445)
		}
		in, to := "br-lan", h.LANs[0].Network.Host(2).Addr().String()
		if name == "two-lans" {
			in, to = "wan", "192.168.2.253"
		}
		w.passes(true, name+": a handshake", in, "198.51.100.9", to, 17, 51820)
	}
}
