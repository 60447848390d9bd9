package adopt

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/uci"
)

// A way is something that a packet can do through the router. What a part is good
// for is the ways that end without it.
type way string

const (
	callIn   way = "calls over IPv4 come in"
	callIn6  way = "calls over IPv6 come in"
	toLAN    way = "devices reach the home LAN"
	toUplink way = "devices reach the uplink LAN"
	toNet    way = "devices reach the internet through home"
	toRouter way = "devices reach the router's login and web page"
	toNames  way = "devices ask the router for names"
	toOthers way = "devices reach each other"
	fromLAN  way = "the home LAN starts connections to devices"
)

// Addresses that play somebody on the internet (RFC 5737, RFC 3849).
var (
	stranger  = netip.MustParseAddr("203.0.113.99")
	stranger6 = netip.MustParseAddr("2001:db8::99")
	router6   = netip.MustParseAddr("2001:db8:1::1")
)

// ask puts all questions to the firewall model for one configuration.
func (x *hand) ask(network, wall *uci.Document) map[way]bool {
	q := questions{x: x, can: map[way]bool{}}
	for _, i := range x.snap.Interfaces {
		q.live = append(q.live, firewall.Iface{Name: i.Name, Device: i.Device, Addrs: i.Addresses, Gateways: i.Gateways, Up: i.Up})
	}
	q.rules, _ = firewall.Compile(x.snap.Board.Release.Effective(), network, wall, q.live)
	q.outside()
	q.inside()
	return q.can
}

type questions struct {
	x     *hand
	rules *firewall.Ruleset
	live  []firewall.Iface
	can   map[way]bool
}

func (q *questions) iface(name string) firewall.Iface {
	i := slices.IndexFunc(q.live, func(i firewall.Iface) bool { return i.Name == name })
	if i < 0 {
		return firewall.Iface{}
	}
	return q.live[i]
}

// uplink is the interface that calls come in by: the WAN side, else the LAN of a
// one-armed router.
func (q *questions) uplink() (firewall.Iface, netip.Prefix) {
	for _, i := range q.live {
		zone := q.x.site.Zones[i.Name]
		if q.x.wan != "" && zone != q.x.wan || q.x.wan == "" && len(i.Gateways) == 0 {
			continue
		}
		for _, p := range i.Addrs {
			if p.Addr().Is4() {
				return i, p
			}
		}
	}
	return firewall.Iface{}, netip.Prefix{}
}

func (q *questions) route(dst netip.Addr) (string, bool) {
	up, _ := q.uplink()
	out := up.Device
	if dst == router6 {
		return "", true
	}
	for _, i := range q.live {
		for _, p := range i.Addrs {
			if p.Addr() == dst {
				return "", true
			}
			if p.Masked().Contains(dst) {
				out = i.Device
			}
		}
	}
	if net, _ := q.x.network(true); !net.IsZero() && net.Contains(dst) {
		out = q.x.name
	}
	return out, false
}

func (q *questions) send(in string, p firewall.Packet) firewall.Verdict {
	return q.rules.Handle(firewall.NewTracker(), time.Unix(1e9, 0), p, in, q.route)
}

func datagram(from, to netip.Addr, port uint16) firewall.Packet {
	return firewall.Packet{Src: from, Dst: to, Proto: firewall.UDP, SrcPort: 40000, DstPort: port}
}

func connection(from, to netip.Addr, port uint16) firewall.Packet {
	return firewall.Packet{Src: from, Dst: to, Proto: firewall.TCP, SrcPort: 40000, DstPort: port, SYN: true}
}

// outside: does WireGuard's own packet get in?
func (q *questions) outside() {
	up, at := q.uplink()
	in := func(p firewall.Packet) bool {
		v := q.send(up.Device, p)
		return v.Action == firewall.Accept && v.Local && v.Packet.DstPort == q.x.port
	}
	if at.IsValid() {
		q.can[callIn] = in(datagram(stranger, at.Addr(), q.x.port))
		q.can[callIn6] = in(datagram(stranger6, router6, q.x.port))
		for _, p := range q.x.otherPorts() {
			q.can[portWay(p)] = in(datagram(stranger, at.Addr(), p))
		}
	}
}

// otherPorts are ports that are not the tunnel's own and are forwarded to it:
// devices may call them.
func (x *hand) otherPorts() []uint16 {
	var out []uint16
	for _, sec := range x.snap.Config("firewall").OfType("redirect") {
		n, err := strconv.ParseUint(strings.Join(words(sec.Values("src_dport")), " "), 10, 16)
		if err == nil && n != 0 && uint16(n) != x.port && onlyPort(sec, "dest_port", x.port) && !slices.Contains(out, uint16(n)) {
			out = append(out, uint16(n))
		}
	}
	return out
}

func portWay(port uint16) way { return way(fmt.Sprintf("calls to UDP %d come in", port)) }

// inside: what may a device do that is in?
func (q *questions) inside() {
	net, _ := q.x.network(true)
	if net.IsZero() {
		return
	}
	own, from, other := net.First().Addr(), net.Host(2).Addr(), net.Host(3).Addr()
	through := func(in string, p firewall.Packet, out string) bool {
		v := q.send(in, p)
		return v.Action == firewall.Accept && !v.Local && v.Out == out
	}
	local := func(p firewall.Packet) bool {
		v := q.send(q.x.name, p)
		return v.Action == firewall.Accept && v.Local
	}
	q.can[toRouter] = local(connection(from, own, 22))
	q.can[toNames] = local(datagram(from, own, 53))
	q.can[toOthers] = through(q.x.name, connection(from, other, 80), q.x.name)
	for name := range q.x.site.LANs {
		i, host := q.iface(name), q.x.neighbour(name)
		if i.Device == "" || !host.IsValid() || q.x.site.Zones[name] == q.x.wan && q.x.wan != "" {
			continue
		}
		if through(q.x.name, connection(from, host, 80), i.Device) {
			q.can[toLAN], q.can[lanWay(name)] = true, true
		}
		if through(i.Device, connection(host, from, 80), q.x.name) {
			q.can[fromLAN] = true
		}
	}
	if up, at := q.uplink(); at.IsValid() && q.x.wan != "" {
		near := at.Masked().Addr().Next()
		if near == at.Addr() {
			near = near.Next()
		}
		q.can[toUplink] = through(q.x.name, connection(from, near, 80), up.Device)
		q.can[toNet] = through(q.x.name, connection(from, stranger, 80), up.Device)
	}
}

// lanPrefix begins the ways to single home LANs, which toLAN stands for.
const lanPrefix = "lan "

func lanWay(name string) way { return way(lanPrefix + name) }

// neighbour is an address in a home LAN that is not the router's.
func (x *hand) neighbour(lan string) netip.Addr {
	list := x.site.LANs[lan]
	if len(list) == 0 {
		return netip.Addr{}
	}
	a := list[0].Masked().Addr().Next()
	if a == list[0].Addr() {
		a = a.Next()
	}
	return a
}

// importance is the order in which ways are told; another port comes first.
var importance = []way{callIn, callIn6, toLAN, toUplink, toNet, toNames, toRouter, fromLAN, toOthers}

// lost lists the ways that end, in the order of their importance.
func lost(before, after map[way]bool) []way {
	var out []way
	for w := range before {
		if before[w] && !after[w] && !strings.HasPrefix(string(w), lanPrefix) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b way) int {
		return cmp.Or(slices.Index(importance, a)-slices.Index(importance, b), strings.Compare(string(a), string(b)))
	})
	return out
}

// without asks again with one change made to the firewall's file.
func (x *hand) without(change func(*uci.Document) error) map[way]bool {
	doc := x.snap.Config("firewall").Clone()
	if change(doc) != nil {
		return nil
	}
	return x.ask(x.snap.Config("network"), doc)
}
