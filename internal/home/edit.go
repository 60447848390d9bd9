package home

import (
	"bytes"
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/subnet"
)

// Editing changes single lines of the text. Which comment belongs to which peer
// is decided so:
//
//   - what stands between a peer's header and its last key belongs to it;
//   - comment lines directly above the header belong to it, up to a blank line
//     or a dividing line such as "# --- family ---";
//   - comment lines directly below its last key belong to it, unless a header
//     follows them directly (then they belong to that) or one of them divides.
//
// After each edit the text is read again and compared with what was intended.

// AddPeer appends a peer behind the last one, or at the end of the file.
func (f *File) AddPeer(p Peer) (*File, error) {
	if bad := f.wrongPeer(p, -1); bad != nil {
		return nil, bad
	}
	want := f.Home
	want.Peers = append(slices.Clone(want.Peers), p)

	d := f.doc
	eol := eolOf(d.text)
	block := peerBlock(p, eol)
	behind := d.lastText()
	if s := d.peers; len(s) > 0 {
		_, behind = d.block(s[len(s)-1])
	}
	if behind+1 >= d.lines() || d.kinds[behind+1] == lineBlank {
		block = eol + block
	}
	at := d.lineEnd(behind)
	return f.edited(want, patch{span{at, at}, block})
}

// RemovePeer takes a peer out, with the comments that belong to it.
func (f *File) RemovePeer(name string) (*File, error) {
	i, err := f.find(name)
	if err != nil {
		return nil, err
	}
	want := f.Home
	want.Peers = slices.Delete(slices.Clone(want.Peers), i, i+1)
	return f.edited(want, f.doc.without(f.doc.block(f.doc.peers[i])))
}

// RenamePeer gives a peer another name.
func (f *File) RenamePeer(old, name string) (*File, error) {
	return f.SetPeer(old, func(p *Peer) { p.Name = name })
}

// SetPeer changes what the file says about one peer. change gets a copy.
func (f *File) SetPeer(name string, change func(*Peer)) (*File, error) {
	i, err := f.find(name)
	if err != nil {
		return nil, err
	}
	p := f.Home.Peers[i]
	change(&p)
	if p == f.Home.Peers[i] {
		return f, nil
	}
	if bad := f.wrongPeer(p, i); bad != nil {
		return nil, bad
	}
	want := f.Home
	want.Peers = slices.Clone(want.Peers)
	want.Peers[i] = p

	s := f.doc.peers[i]
	was, is := peerLines(f.Home.Peers[i]), peerLines(p)
	var patches []patch
	for k := range was {
		if was[k] != is[k] {
			patches = append(patches, f.doc.set(s, is[k])...)
		}
	}
	return f.edited(want, patches...)
}

// SetEndpoint writes what peers call, a host name or a public address; "" takes
// the line out, so that heimweg finds it out.
func (f *File) SetEndpoint(host string) (*File, error) {
	if host != "" {
		if bad := wrongEndpoint(host); bad != nil {
			return nil, bad
		}
	}
	want := f.Home
	want.Tunnel.Endpoint = host
	return f.setOne(want, "tunnel", keyLine{"endpoint", quote(host), host == ""})
}

// SetRouterAddress writes where the home router is, as after its LAN has moved.
func (f *File) SetRouterAddress(address string) (*File, error) {
	if bad := wrongRouterAddress("address", address); bad != nil {
		return nil, bad
	}
	want := f.Home
	want.Router.Address = address
	return f.setOne(want, "router", keyLine{"address", quote(address), false})
}

// SetInput writes the decision about the firewall's default: "reject", "accept",
// or "" for none.
func (f *File) SetInput(input string) (*File, error) {
	want := f.Home
	want.Router.Input = input
	return f.setOne(want, "router", keyLine{"input", quote(input), input == ""})
}

// SetMTU writes the largest packet inside the tunnel, in bytes; 0 takes the line out.
func (f *File) SetMTU(mtu int) (*File, error) {
	want := f.Home
	want.Tunnel.MTU = mtu
	return f.setOne(want, "tunnel", keyLine{"mtu", strconv.Itoa(mtu), mtu == 0})
}

func (f *File) setOne(want Home, section string, k keyLine) (*File, error) {
	for i := range f.doc.sections {
		if s := &f.doc.sections[i]; s.name == section {
			return f.edited(want, f.doc.set(s, k)...)
		}
	}
	return nil, fault.NewBug("%s has no section [%s]", f.name, section)
}

// find is the index of a peer.
func (f *File) find(name string) (int, error) {
	for i, p := range f.Home.Peers {
		if p.Name == name {
			return i, nil
		}
	}
	none := usage("no-such-peer", "there is no peer %s in %s", show(name), f.name)
	var names []string
	for _, p := range f.Home.Peers {
		names = append(names, p.Name)
	}
	switch m := meant(name, names); {
	case m != "":
		none.Do("did you mean %s?", m)
	case len(names) == 0:
		none.Do("heimweg peer add %s makes one", "NAME")
	default:
		none.Do("heimweg peer list shows the names")
	}
	return 0, none
}

// wrongPeer says why p cannot be a peer of this home. i is its index when it is
// there already, -1 when it is new.
func (f *File) wrongPeer(p Peer, i int) error {
	bad := wrongPeerName(p.Name)
	switch {
	case bad != nil:
	case p.PublicKey.IsZero():
		bad = usage("bad-key", "the peer %s has no public key", show(p.Name)).Do("give one, or let heimweg make the key")
	default:
		bad = wrongKeepalive(int64(p.Keepalive))
	}
	if bad == nil {
		bad = f.wrongAddress(p.Address, f.Home.Tunnel.Network)
	}
	if bad == nil && p.Address6.IsValid() {
		bad = f.wrongAddress(p.Address6, f.Home.Tunnel.Network6)
	}
	if bad != nil {
		return bad
	}
	for j, o := range f.Home.Peers {
		if j == i {
			continue
		}
		if bad := f.sameAs(p, o, f.doc.peers[j]); bad != nil {
			return bad
		}
	}
	return nil
}

func (f *File) wrongAddress(a netip.Addr, n subnet.Network) *fault.Fault {
	if n.IsZero() {
		return usage("no-network6", "the tunnel has no IPv6 network that %s could be an address of", a).Do("add a line network6 under [tunnel]")
	}
	bad := wrongInTunnel(a, n)
	if bad == nil {
		return nil
	}
	if free, err := subnet.NextFree(n, takenAddrs(f.Home)); err == nil {
		return bad.Do("%s is free", free)
	}
	return bad.Do("take an address of %s that no other peer has", n)
}

// sameAs says what p has in common with a peer that is there already.
func (f *File) sameAs(p, o Peer, s *section) *fault.Fault {
	r := &reader{file: f.name, doc: f.doc}
	switch {
	case p.Name == o.Name:
		return usage("duplicate-name", "there is a peer %s already", p.Name).At(r.place(at(s, "name"))).
			Do("choose another name, or heimweg peer remove %s first", o.Name)
	case p.Section() == o.Section():
		return usage("duplicate-name", "%s and %s would be one section on the router", p.Name, o.Name).At(r.place(at(s, "name"))).
			Because("the router's configuration knows no hyphen, so both become %s", p.Section()).
			Do("choose a name that differs in more than - and _")
	case p.PublicKey == o.PublicKey:
		return usage("duplicate-key-of-peer", "this is the key of %s", o.Name).At(r.place(at(s, "public-key"))).
			Because("WireGuard tells peers apart by their key").Do("make a key of its own for each device")
	case p.Address == o.Address:
		return usage("duplicate-address", "%s is the address of %s", p.Address, o.Name).At(r.place(at(s, "address"))).
			Do("leave the address out, then heimweg takes a free one")
	case p.Address6.IsValid() && p.Address6 == o.Address6:
		return usage("duplicate-address", "%s is the address of %s", p.Address6, o.Name).At(r.place(at(s, "address6"))).
			Do("leave the address out, then heimweg takes a free one")
	}
	return nil
}

// A patch replaces a piece of the text.
type patch struct {
	span
	text string
}

// edited applies the patches, reads the result and compares it with what was
// intended. The difference would be a bug; better no change than a wrong one.
func (f *File) edited(want Home, patches ...patch) (*File, error) {
	slices.SortStableFunc(patches, func(a, b patch) int { return cmp.Compare(a.at, b.at) })
	old := f.doc.text
	text := make([]byte, 0, len(old)+512)
	from := 0
	for _, p := range patches {
		text = append(append(text, old[from:p.at]...), p.text...)
		from = p.end
	}
	text = append(text, old[from:]...)
	if len(f.text) < len(old) { // a file without an end of its last line stays one
		text = bytes.TrimSuffix(text, []byte(eolOf(old)))
	}
	out, err := Parse(f.name, text)
	if err != nil {
		return nil, fault.NewBug("%s could not be read again after the change; it was left as it is", f.name).From(err).
			Do("change the file by hand")
	}
	if !out.Home.Equal(want) {
		return nil, fault.NewBug("%s would say something else after the change; it was left as it is", f.name).
			Do("change the file by hand")
	}
	return out, nil
}

// A keyLine is one "key = value" as heimweg writes it.
type keyLine struct {
	key, value string
	omit       bool // the value is the default: no line is needed
}

// peerLines are the lines of a peer in their order; always the same number.
func peerLines(p Peer) []keyLine {
	return []keyLine{
		{"name", quote(p.Name), false},
		{"public-key", quote(p.PublicKey.String()), false},
		{"address", quote(p.Address.String()), false},
		{"address6", quote(p.Address6.String()), !p.Address6.IsValid()},
		{"preshared", strconv.FormatBool(p.Preshared), p.Preshared},
		{"disabled", strconv.FormatBool(p.Disabled), !p.Disabled},
		{"admin", strconv.FormatBool(p.Admin), !p.Admin},
		{"keepalive", strconv.Itoa(p.Keepalive), p.Keepalive == DefaultKeepalive},
	}
}

func peerBlock(p Peer, eol string) string {
	out := "[[peer]]" + eol
	for _, l := range peerLines(p) {
		if !l.omit {
			out += l.key + " = " + l.value + eol
		}
	}
	return out
}

// lines is the number of lines; what follows the last line end is none.
func (d *document) lines() int {
	n := len(d.starts)
	if d.starts[n-1] >= len(d.text) {
		n--
	}
	return n
}

// lastText is the index of the last line that is not blank.
func (d *document) lastText() int {
	i := d.lines() - 1
	for i > 0 && d.kinds[i] == lineBlank {
		i--
	}
	return i
}

var divider = regexp.MustCompile(`^[ \t]*#[#\s]*$|[-=*~_#+]{3,}|[─═━]{2,}`)

func (d *document) divides(i int) bool {
	l := d.lineSpan(i)
	return d.kinds[i] == lineComment && divider.Match(d.text[l.at:l.end])
}

// block is the first and the last line of a section with its comments.
func (d *document) block(s *section) (first, last int) {
	first = d.line(s.nameAt.at)
	last = first
	for _, e := range s.entries {
		last = max(last, d.line(e.val.end-1))
	}
	for first > 0 && d.kinds[first-1] == lineComment && !d.divides(first-1) {
		first--
	}
	below := last
	for below+1 < d.lines() && d.kinds[below+1] == lineComment {
		if below++; d.divides(below) {
			return first, last
		}
	}
	if below+1 < d.lines() && d.kinds[below+1] == lineContent {
		return first, last
	}
	return first, below
}

// without takes the lines first to last out. The blank lines above go too where
// others below keep the neighbours apart, so that adding a peer and removing it
// gives the same bytes.
func (d *document) without(first, last int) patch {
	above, below := first, last+1
	for above > 0 && d.kinds[above-1] == lineBlank {
		above--
	}
	for below < d.lines() && d.kinds[below] == lineBlank {
		below++
	}
	from, to := d.starts[first], d.lineEnd(last)
	switch {
	case above == 0:
		to = d.lineEnd(below - 1)
	case below > last+1 || below == d.lines():
		from = d.starts[above]
	}
	return patch{span{from, to}, ""}
}

// set writes one key of a section: in its place, behind the last key, or not at
// all where the default says the same.
func (d *document) set(s *section, k keyLine) []patch {
	e := s.get(k.key)
	switch {
	case e == nil && k.omit:
		return nil
	case e == nil:
		last := d.line(s.nameAt.at)
		for _, e := range s.entries {
			last = max(last, d.line(e.val.end-1))
		}
		l, at := d.lineSpan(last), d.lineEnd(last)
		indent := l.at
		for indent < l.end && (d.text[indent] == ' ' || d.text[indent] == '\t') {
			indent++
		}
		line := string(d.text[l.at:indent]) + k.key + " = " + k.value + eolOf(d.text)
		return []patch{{span{at, at}, line}}
	case k.omit && (!e.comment || k.key == "address6" || k.key == "endpoint" || k.key == "input"):
		return []patch{{span{d.starts[d.line(e.keyAt.at)], d.lineEnd(d.line(e.val.end - 1))}, ""}}
	}
	return []patch{{e.val.span, k.value}}
}
