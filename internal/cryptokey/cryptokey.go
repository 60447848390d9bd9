// Package cryptokey is WireGuard's routing table: which peer gets this packet,
// and may this peer send a packet with that source.
//
// It computes only. It must never hold a private or preshared key, ask a router
// or read a clock: what it knows it was told, by public keys, networks and
// endpoints.
//
// # Background for a newcomer
//
// A WireGuard interface has a list of peers. Each is known by its public key and
// has a list of networks, its AllowedIPs, and an endpoint, the address and port
// on the internet from which it was last heard. The list works in two directions:
//
//	sending    The packet's destination is looked up in the AllowedIPs of all
//	           peers; the longest matching prefix wins. The packet is encrypted
//	           for that peer and sent to its endpoint. No match: dropped.
//	receiving  A packet that decrypts belongs to the peer whose key fits, and its
//	           outer sender becomes that peer's endpoint from now on (roaming).
//	           Then the inner source is looked up in the same table. Only if that
//	           gives the same peer is the packet let in. Else: dropped.
//
// A network belongs to one peer at a time: whoever is given it takes it from
// whoever had it, silently. And a key is one peer: two devices with one key take
// the tunnel from each other with every packet, see Watch. (WireGuard,
// allowedips.c and receive.c; the text that explains it well is on
// wireguard.com under "Cryptokey Routing".)
package cryptokey

import (
	"net/netip"
	"slices"

	"github.com/heimweg/heimweg/internal/key"
)

// Peer is one peer as the interface knows it.
type Peer struct {
	Key      key.Public
	Endpoint netip.AddrPort // where its packets go; the zero value: nobody knows yet
	Allowed  []netip.Prefix // in the order in which they were given
}

// Table is the peers of one interface. The zero Table has none. Many may read
// it at a time; a change needs it alone.
type Table struct {
	peers map[key.Public]*Peer
	order []key.Public
	four  side
	six   side
}

// side holds the networks of one address family, sorted by length. Households
// use one or two lengths, so a look-up is one or two looks into a map; a trie
// would have to walk 32 levels for each /32.
type side struct {
	nets    map[netip.Prefix]*Peer
	lengths []int       // in use, longest first
	count   map[int]int // networks of a length
}

// Moved says that a network changed hands.
type Moved struct {
	Network netip.Prefix
	From    key.Public // the peer that had it and has it no more
}

// Of makes a table from peers in the order in which they are configured. What
// the later ones took from the earlier ones is listed.
func Of(peers []Peer) (*Table, []Moved) {
	t := &Table{}
	var moved []Moved
	for _, p := range peers {
		moved = append(moved, t.Set(p.Key, p.Allowed)...)
		if p.Endpoint.IsValid() {
			t.Roam(p.Key, p.Endpoint)
		}
	}
	return t, moved
}

// Set gives a peer exactly these networks, as `wg set … allowed-ips` does; a
// new key is a new peer. Bits beyond a mask are dropped, invalid prefixes left
// out. Networks that another peer had are taken from it and listed.
func (t *Table) Set(k key.Public, allowed []netip.Prefix) []Moved {
	p := t.peers[k]
	if p == nil {
		if t.peers == nil {
			t.peers = map[key.Public]*Peer{}
		}
		p = &Peer{Key: k}
		t.peers[k] = p
		t.order = append(t.order, k)
	}
	t.empty(p)
	var moved []Moved
	for _, n := range allowed {
		if !n.IsValid() || slices.Contains(p.Allowed, n.Masked()) {
			continue
		}
		n = n.Masked()
		s := t.side(n.Addr())
		if had := s.nets[n]; had != nil {
			had.Allowed = slices.DeleteFunc(had.Allowed, func(o netip.Prefix) bool { return o == n })
			moved = append(moved, Moved{n, had.Key})
			s.drop(n)
		}
		s.put(n, p)
		p.Allowed = append(p.Allowed, n)
	}
	return moved
}

// Remove forgets a peer. It reports whether there was one.
func (t *Table) Remove(k key.Public) bool {
	p := t.peers[k]
	if p == nil {
		return false
	}
	t.empty(p)
	delete(t.peers, k)
	t.order = slices.DeleteFunc(t.order, func(o key.Public) bool { return o == k })
	return true
}

// Roam notes where a peer was heard: its packets go there from now on. Strangers
// are not noted.
func (t *Table) Roam(k key.Public, at netip.AddrPort) {
	if p := t.peers[k]; p != nil {
		p.Endpoint = at
	}
}

// Peer finds a peer by its key.
func (t *Table) Peer(k key.Public) (Peer, bool) {
	p := t.peers[k]
	if p == nil {
		return Peer{}, false
	}
	c := *p
	c.Allowed = slices.Clone(p.Allowed)
	return c, true
}

// Len is how many peers there are.
func (t *Table) Len() int { return len(t.order) }

// Keys lists the peers in the order in which they came.
func (t *Table) Keys() []key.Public { return slices.Clone(t.order) }

// Choose tells which peer gets a packet for dst, by which of its networks.
// False: none, the packet is dropped.
func (t *Table) Choose(dst netip.Addr) (key.Public, netip.Prefix, bool) {
	p, n := t.side(dst.Unmap()).find(dst.Unmap())
	if p == nil {
		return key.Public{}, netip.Prefix{}, false
	}
	return p.Key, n, true
}

// Arrival is what becomes of a packet that came out of the tunnel.
type Arrival struct {
	Allowed bool
	Known   bool         // the key is a peer's; nobody else's packets decrypt
	Network netip.Prefix // the network that decided; invalid when none holds the source
	Owner   key.Public   // the peer that the source belongs to, another one when not Allowed
}

// Receive judges a packet from inside the tunnel: may this peer send with that
// source. As in WireGuard the peer's endpoint moves to where the outer packet
// came from before the source is looked at; with a zero from it stays.
func (t *Table) Receive(k key.Public, from netip.AddrPort, src netip.Addr) Arrival {
	if t.peers[k] == nil {
		return Arrival{}
	}
	if from.IsValid() {
		t.Roam(k, from)
	}
	return t.Judge(k, src)
}

// Judge is Receive without the roaming: it changes nothing.
func (t *Table) Judge(k key.Public, src netip.Addr) Arrival {
	a := Arrival{Known: t.peers[k] != nil}
	p, n := t.side(src.Unmap()).find(src.Unmap())
	if p != nil {
		a.Network, a.Owner = n, p.Key
		a.Allowed = a.Known && p.Key == k
	}
	return a
}

func (t *Table) side(a netip.Addr) *side {
	if a.Is4() {
		return &t.four
	}
	return &t.six
}

// empty takes all networks from a peer.
func (t *Table) empty(p *Peer) {
	for _, n := range p.Allowed {
		t.side(n.Addr()).drop(n)
	}
	p.Allowed = nil
}

func (s *side) put(n netip.Prefix, p *Peer) {
	if s.nets == nil {
		s.nets, s.count = map[netip.Prefix]*Peer{}, map[int]int{}
	}
	s.nets[n] = p
	if s.count[n.Bits()]++; s.count[n.Bits()] == 1 {
		i, _ := slices.BinarySearchFunc(s.lengths, n.Bits(), func(have, want int) int { return want - have })
		s.lengths = slices.Insert(s.lengths, i, n.Bits())
	}
}

func (s *side) drop(n netip.Prefix) {
	delete(s.nets, n)
	if s.count[n.Bits()]--; s.count[n.Bits()] == 0 {
		s.lengths = slices.DeleteFunc(s.lengths, func(l int) bool { return l == n.Bits() })
	}
}

// find is the longest match.
func (s *side) find(a netip.Addr) (*Peer, netip.Prefix) {
	for _, l := range s.lengths {
		n, err := a.WithZone("").Prefix(l)
		if err != nil {
			break // the zero address
		}
		if p := s.nets[n]; p != nil {
			return p, n
		}
	}
	return nil, netip.Prefix{}
}
