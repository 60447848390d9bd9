package home

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
)

// This file holds the rules between values; words.go has those of single ones.

func (r *reader) check() {
	if len(r.doc.faults) == 0 {
		r.missingSections()
	}
	r.checkUplink()
	r.checkLANs()
	r.checkOverlaps()
	r.checkAway()
	r.checkPeers()
	r.checkDNS()
}

// missingSections complains about what cannot be left out. Where something was
// no TOML, a section may be missing for that reason alone.
func (r *reader) missingSections() {
	for _, m := range []struct{ name, why, example string }{
		{"router", "heimweg cannot guess where the home router is", "address = \"192.168.1.1\""},
		{"tunnel", "the tunnel needs addresses of its own", "network = \"10.86.20.0/24\""},
	} {
		if r.single[m.name] == nil {
			r.faults = append(r.faults, fault.NewUsage("home-missing-section", "there is no section [%s]", m.name).
				At(fault.Place{File: r.file}).Because("%s", m.why).
				Do("add a line [%s] and below it %s, or let \"heimweg init\" write the file", m.name, m.example))
		}
	}
	if len(r.lans) == 0 && r.home.Reach.HomeLAN {
		r.faults = append(r.faults, fault.NewUsage("home-missing-section", "there is no section [[lan]]").
			At(fault.Place{File: r.file}).Because("peers shall reach the home LAN, and nobody says which one that is").
			Do("add a line [[lan]] and below it interface = \"lan\" and network = \"192.168.1.0/24\""))
	}
}

// at is the place of a key's value, or of the section where the key is missing.
func at(s *section, key string) span {
	if e := s.get(key); e != nil {
		return e.val.span
	}
	return s.nameAt
}

func (r *reader) checkUplink() {
	up, s := r.home.Uplink, r.single["uplink"]
	if s != nil && s.get("network") != nil && up.Kind != Behind {
		f := r.wrong(at(s, "network"), "no-uplink-lan", "there is no network between two routers when kind is %q", up.Kind)
		if up.Kind == OneArmed {
			f.Because("the home LAN is the ISP router's LAN; it stands under [[lan]]")
		}
		f.Do("delete the line")
	}
	reach := r.single["reach"]
	if x := r.home.Reach; !x.HomeLAN && !x.UplinkLAN && !x.Internet {
		r.note(at(reach, "home-lan"), "reach-nothing", "peers may reach the home router and nothing else").
			Do("write home-lan = true, unless that is what you want")
	}
	switch {
	case !r.home.Reach.UplinkLAN:
	case up.Kind != Behind:
		r.wrong(at(reach, "uplink-lan"), "no-uplink-lan", "there is no uplink LAN to reach when kind is %q", up.Kind).Do("write uplink-lan = false")
	case s == nil || s.get("network") == nil:
		r.wrong(at(reach, "uplink-lan"), "no-uplink-lan", "peers shall reach the uplink LAN, and nobody says which network that is").
			Do("add the ISP router's network under [uplink], such as network = \"192.168.178.0/24\"")
	}
}

// checkLANs holds the rules about single LANs. Moving a LAN cuts the way to the
// router, so it is done to one of them at a time, and never to the ISP router's.
func (r *reader) checkLANs() {
	first := map[string]*section{}
	var moved *section
	for i, l := range r.home.LANs {
		s := r.lans[i]
		if l.Interface != "" {
			if other := first[l.Interface]; other != nil {
				r.wrong(at(s, "interface"), "duplicate-name", "%s is also the home LAN of line %d", show(l.Interface), r.line(at(other, "interface"))).
					Do("write the name of the other interface, or delete one of the two sections")
			} else {
				first[l.Interface] = s
			}
		}
		if l.Interface != "" && l.Interface == r.home.Tunnel.Interface {
			r.wrong(at(s, "interface"), "duplicate-name", "%s is the name of the tunnel", show(l.Interface)).
				Do("write the name that OpenWrt gives the home LAN, such as \"lan\"")
		}
		r.checkLANNetwork(l, s)
		switch {
		case !l.Renumber:
		case r.home.Uplink.Kind == OneArmed:
			r.wrong(at(s, "renumber"), "renumber", "the home router cannot move this LAN to other addresses").
				Because("kind is \"one-armed\", so the LAN is the ISP router's").Do("delete the line, and change the network in the ISP router")
		case moved != nil:
			r.wrong(at(s, "renumber"), "renumber", "two LANs shall move to other addresses at once, this one and that of line %d", r.line(at(moved, "renumber"))).
				Because("each move cuts the way to the router for a moment; one after the other keeps it reachable").
				Do("delete one of the two lines, apply, and then move the other LAN")
		default:
			moved = s
		}
	}
	if r.home.Uplink.Kind == OneArmed && len(r.lans) > 1 {
		r.wrong(r.lans[1].nameAt, "one-armed", "a router with one arm is in one LAN, and this is the second").
			Because("kind is \"one-armed\"").Do("keep the LAN that the router's cable is plugged into, or write another kind")
	}
}

func (r *reader) checkLANNetwork(l LAN, s *section) {
	n := l.Network
	switch {
	case n.IsZero():
	case n.Bits() > 30 || n.Bits() < 8:
		r.wrong(at(s, "network"), "lan-size", "%s is not the size of a home LAN", n).Do("write %s if that is what your devices use", resized(n, 24))
	case l.Renumber && n.Bits() > 24:
		// OpenWrt ships dhcp.lan with start 100 and limit 150.
		r.wrong(at(s, "network"), "lan-size", "%s is too small to move a LAN to", n).
			Because("OpenWrt hands out the addresses from .100 to .249").Do("write %s", resized(n, 24))
	case l.Renumber && subnet.WhyNotPublic(n.Prefix().Addr()) == "":
		r.wrong(at(s, "network"), "lan-public", "%s belongs to somebody on the internet", n).Do("write a private network such as 192.168.71.0/24")
	}
}

// A used is a network of this home with its place in the file.
type used struct {
	subnet.Named
	at   span
	rank int // whose place is blamed: the higher rank is easier to change
}

func (r *reader) networks() []used {
	var out []used
	add := func(name string, n subnet.Network, s *section, key string, rank int) {
		if !n.IsZero() {
			out = append(out, used{subnet.Named{Name: name, Network: n}, at(s, key), rank})
		}
	}
	for i, l := range r.home.LANs {
		name := "your home LAN"
		if i > 0 {
			name = fmt.Sprintf("your home LAN %s", show(l.Interface))
		}
		rank := 1
		if l.Renumber {
			rank = 2
		}
		add(name, l.Network, r.lans[i], "network", rank)
	}
	if r.home.Uplink.Kind == Behind {
		add("the uplink LAN", r.home.Uplink.Network, r.single["uplink"], "network", 0)
	}
	add("the tunnel network", r.home.Tunnel.Network, r.single["tunnel"], "network", 3)
	return out
}

// checkOverlaps refuses networks that overlap, and proposes a free one.
func (r *reader) checkOverlaps() {
	all := r.networks()
	named := make([]subnet.Named, len(all))
	byName := map[subnet.Named]int{}
	for i, u := range all {
		// Two LANs may have one name by mistake; number them apart.
		named[i] = subnet.Named{Name: fmt.Sprint(i), Network: u.Network}
		byName[named[i]] = i
	}
	told := map[int]bool{}
	for _, c := range subnet.Collisions(named) {
		bad, other := all[byName[c.A]], all[byName[c.B]]
		if bad.rank < other.rank || bad.rank == other.rank && bad.at.at < other.at.at {
			bad, other = other, bad
		}
		if told[bad.at.at] {
			continue // one sentence per line; the proposal is free of all
		}
		told[bad.at.at] = true
		r.overlap(bad, other)
	}
}

func (r *reader) overlap(bad, other used) {
	verb := "is also"
	if bad.Network != other.Network {
		verb = "overlaps " + other.Network.String() + ","
	}
	f := r.wrong(bad.at, "overlap", "%s %s %s %s (line %d)", plainName(bad.Name), bad.Network, verb, other.Name, r.line(other.at))
	switch {
	case bad.rank == 3:
		f.Because("a device coming home could not tell the two apart")
	case other.rank == 0:
		f.Because("the home router could not tell its two sides apart, so the LAN loses its way out")
	default:
		f.Because("the home router could not tell the two apart")
	}
	free, err := r.proposal()
	switch {
	case err != nil:
		f.Do("choose networks that do not overlap")
	case bad.rank == 1:
		f.Do("%s is free here; write it with renumber = true and heimweg moves the LAN there", free)
	default:
		f.Do("%s is free here", free)
	}
}

func plainName(name string) string {
	if rest, ok := cutPrefix(name, "the "); ok {
		return rest
	}
	return name
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) > len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):], true
	}
	return s, false
}

// proposal is a free network. The same text always gets the same one, other
// households get others.
func (r *reader) proposal() (subnet.Network, error) {
	avoid := slices.Clone(r.proposed)
	for _, u := range r.networks() {
		avoid = append(avoid, u.Network)
	}
	sum := sha256.Sum256(r.doc.text)
	n, err := subnet.Propose(bytes.NewReader(sum[:]), avoid)
	if err == nil {
		r.proposed = append(r.proposed, n)
	}
	return n, err
}

// checkAway notes networks that travelling devices meet elsewhere. Most homes
// have one; it is a trap, not a mistake.
func (r *reader) checkAway() {
	for _, u := range r.networks() {
		if u.rank == 0 {
			continue
		}
		a, met := subnet.MetAway(u.Network)
		if !met {
			continue
		}
		f := r.note(u.at, "met-away", "%s %s is also the network of %s", plainName(u.Name), u.Network, a.Why).
			Because("a device that is in such a network looks for these addresses there instead of at home")
		free, err := r.proposal()
		switch {
		case err != nil:
		case u.rank == 1 && r.home.Uplink.Kind == OneArmed:
			f.Do("change it in the ISP router one day; %s is free here", free)
		case u.rank == 1:
			f.Do("let heimweg move it one day: network = %s and renumber = true", quote(free.String()))
		default:
			f.Do("write network = %s", quote(free.String()))
		}
	}
}

// firsts remembers which peer was the first with some value.
type firsts[K comparable] map[K]*section

// doubled tells the earlier peer with the same value, and remembers the new one.
func (f firsts[K]) doubled(k K, s *section) (*section, bool) {
	if first, ok := f[k]; ok {
		return first, true
	}
	f[k] = s
	return nil, false
}

func (r *reader) checkPeers() {
	n := len(r.peers)
	names, sections := make(firsts[string], n), make(firsts[string], n)
	keys := make(firsts[key.Public], n)
	addrs := make(firsts[netip.Addr], 2*n)
	for i := range r.home.Peers {
		p, s := &r.home.Peers[i], r.peers[i]
		if p.Name != "" {
			if first, ok := names.doubled(p.Name, s); ok {
				r.wrong(at(s, "name"), "duplicate-name", "%s is also the name of the peer of line %d", show(p.Name), r.line(at(first, "name"))).
					Do("give each peer a name of its own")
			} else if first, ok := sections.doubled(p.Section(), s); ok {
				r.wrong(at(s, "name"), "duplicate-name", "%s and the peer of line %d would be one section on the router", show(p.Name), r.line(at(first, "name"))).
					Because("the router's configuration knows no hyphen, so both become %s", p.Section()).
					Do("write a name that differs in more than - and _")
			}
		}
		if !p.PublicKey.IsZero() {
			if first, ok := keys.doubled(p.PublicKey, s); ok {
				r.wrong(at(s, "public-key"), "duplicate-key-of-peer", "this is also the key of the peer of line %d", r.line(at(first, "public-key"))).
					Because("WireGuard tells peers apart by their key; the router would know one of the two only").
					Do("make a key of its own for each device")
			}
		}
		r.checkAddress(s, "address", p.Address, r.home.Tunnel.Network, addrs)
		r.checkAddress(s, "address6", p.Address6, r.home.Tunnel.Network6, addrs)
	}
}

func (r *reader) checkAddress(s *section, field string, a netip.Addr, n subnet.Network, addrs firsts[netip.Addr]) {
	if !a.IsValid() {
		return
	}
	if n.IsZero() {
		if t := r.single["tunnel"]; field == "address6" && t != nil && t.get("network6") == nil {
			r.wrong(at(s, field), "no-network6", "the tunnel has no IPv6 network that this could be an address of").
				Do("delete the line, or add a line network6 under [tunnel]")
		}
		return
	}
	if f := wrongInTunnel(a, n); f != nil {
		if free, err := subnet.NextFree(n, r.takenAddrs()); err == nil {
			f.Do("%s is free", free)
		} else {
			f.Do("write an address of %s that no other peer has", n)
		}
		r.report(at(s, field), f)
		return
	}
	if first, ok := addrs.doubled(a, s); ok {
		f := r.wrong(at(s, field), "duplicate-address", "%s is also the address of the peer of line %d", a, r.line(at(first, field)))
		if free, err := subnet.NextFree(n, r.takenAddrs()); err == nil && len(r.faults) <= maxFaults {
			f.Do("%s is free", free)
		} else {
			f.Do("give each peer an address of its own")
		}
	}
}

func (r *reader) takenAddrs() []netip.Addr {
	if len(r.faults) > maxFaults {
		return nil // nobody reads so many proposals, and each costs a look at all peers
	}
	return takenAddrs(r.home)
}

func takenAddrs(h Home) []netip.Addr {
	var out []netip.Addr
	for _, p := range h.Peers {
		out = append(out, p.Address, p.Address6)
	}
	return out
}

// wrongInTunnel says why a peer cannot have the address.
func wrongInTunnel(a netip.Addr, n subnet.Network) *fault.Fault {
	if a == n.First().Addr() {
		return usage("address-of-router", "%s is the home router's own address in the tunnel", a)
	}
	_, err := subnet.HostIn(n, a)
	if err == nil {
		return nil
	}
	f := usage("address-outside", "%s cannot be a peer's address in the tunnel network %s", a, n).From(err)
	var outside *subnet.OutsideError
	if errors.As(err, &outside) {
		f.Because("%s", outside.Why)
	}
	return f
}

// checkDNS notes name servers that peers have no way to.
func (r *reader) checkDNS() {
	s := r.single["dns"]
	if s == nil || r.home.Reach.Internet {
		return
	}
	e := s.get("servers")
	if e == nil || e.val.kind != kindStrings {
		return
	}
	for _, item := range e.val.items {
		a, err := netip.ParseAddr(item.text)
		if err != nil || subnet.IsPublic(a) || r.reaches(a) {
			continue
		}
		r.note(item.span, "dns-unreachable", "peers have no way to the name server %s", a).
			Because("it lies in none of the networks that [reach] opens").Do("write \"%s\", or open its network under [reach]", DNSRouter)
	}
}

func (r *reader) reaches(a netip.Addr) bool {
	h := r.home
	if h.Tunnel.Network.Contains(a) || h.Tunnel.Network6.Contains(a) || h.Reach.UplinkLAN && h.Uplink.Network.Contains(a) {
		return true
	}
	for _, l := range h.LANs {
		if h.Reach.HomeLAN && l.Network.Contains(a) {
			return true
		}
	}
	return false
}
