package home

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/subnet"
)

// maxSize is far beyond any household: 10,000 peers make 2 MB.
const maxSize = 64 << 20

// maxFaults is how many mistakes are told at once.
const maxFaults = 40

// Parse reads a home.toml. file is its name for messages. The error is a
// fault.List with every mistake that could be told apart in one look, in the
// order of the file.
func Parse(file string, text []byte) (*File, error) {
	text = bytes.Clone(text)
	if f := unreadable(file, text); f != nil {
		return nil, fault.List{f}
	}
	r := &reader{file: file, doc: scan(ended(text)), home: New(), single: map[string]*section{}, excused: map[string]bool{}}
	for _, s := range r.doc.faults {
		r.syntax(s)
	}
	for i := range r.doc.sections {
		r.section(&r.doc.sections[i])
	}
	r.check()
	if err := r.sorted(r.faults); err != nil {
		return nil, err
	}
	return &File{Home: r.home, Notes: r.order(r.notes), name: file, text: text, doc: r.doc}, nil
}

// ended is the text with an end of its last line, so that editing needs no
// special case for files without one; edited takes it off again.
func ended(text []byte) []byte {
	if n := len(text); n == 0 || text[n-1] == '\n' || text[n-1] == '\r' {
		return text
	}
	return append(slices.Clip(text), eolOf(text)...)
}

// unreadable finds texts that are no TOML for reasons outside of TOML.
func unreadable(file string, text []byte) *fault.Fault {
	at := fault.Place{File: file}
	switch {
	case len(text) > maxSize:
		return fault.NewUsage("home-too-large", "this file is too large to be a home.toml").At(at).
			Saw("%d bytes", len(text)).Do("give the path of home.toml")
	case bytes.HasPrefix(text, []byte{0xff, 0xfe}), bytes.HasPrefix(text, []byte{0xfe, 0xff}):
		return fault.NewUsage("home-encoding", "this file is written in UTF-16").At(at).
			Because("some Windows programs write it when a text is redirected into a file").
			Do("open it in an editor and save it again with the encoding UTF-8")
	case !utf8.Valid(text):
		line := 1 + bytes.Count(text[:firstInvalid(text)], []byte("\n"))
		at.Line = line
		return fault.NewUsage("home-encoding", "this file is not written in UTF-8").At(at).
			Do("open it in an editor and save it again with the encoding UTF-8")
	}
	return nil
}

func firstInvalid(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

// A reader turns a document into a Home and collects what is wrong with it.
type reader struct {
	file   string
	doc    *document
	home   Home
	faults fault.List
	notes  fault.List
	single map[string]*section
	// proposed are free networks that a message named already. Whoever follows two
	// proposals shall not end up with one network twice.
	proposed []subnet.Network
	lans     []*section // beside home.LANs
	peers    []*section // beside home.Peers
	// excused are keys that are not missing: somebody wrote them, but wrongly.
	excused map[string]bool
}

// sorted is nil for an empty list.
func (r *reader) sorted(l fault.List) error {
	l = r.order(l)
	if more := len(l) - maxFaults; more > 0 {
		l = append(l[:maxFaults:maxFaults], fault.NewUsage("home-many", "%d more mistakes are not shown", more).
			At(fault.Place{File: r.file}).Do("correct the ones above first"))
	}
	return l.Err()
}

func (r *reader) order(l fault.List) fault.List {
	slices.SortStableFunc(l, func(a, b *fault.Fault) int {
		return cmp.Or(cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column))
	})
	return l
}

// wrong reports a mistake at a piece of the text.
func (r *reader) wrong(at span, code, format string, args ...any) *fault.Fault {
	return r.report(at, fault.NewUsage("home-"+code, format, args...))
}

// report adds a fault that has no place yet.
func (r *reader) report(at span, f *fault.Fault) *fault.Fault {
	r.faults = append(r.faults, f.At(r.place(at)))
	return f
}

// note reports a finding that is no mistake.
func (r *reader) note(at span, code, format string, args ...any) *fault.Fault {
	f := fault.NewUsage("home-"+code, format, args...).At(r.place(at))
	r.notes = append(r.notes, f)
	return f
}

// line is the line number of a piece of the text, from 1.
func (r *reader) line(at span) int { return r.doc.line(at.at) + 1 }

// section reads one section.
func (r *reader) section(s *section) {
	if s.broken {
		return
	}
	if s.name == "" && s.nameAt == (span{}) {
		for i := range s.entries {
			r.homeless(&s.entries[i])
		}
		return
	}
	spec, ok := specOf(s.name)
	if !ok {
		r.unknownSection(s)
		return
	}
	switch {
	case s.array != spec.array && spec.array:
		r.wrong(s.nameAt, "brackets", "there can be several sections of this kind, so it has two brackets").Do("write %s", spec.header())
	case s.array != spec.array:
		r.wrong(s.nameAt, "brackets", "there is one section of this kind only").Do("write %s", spec.header())
	}
	if first := r.single[s.name]; first != nil && !spec.array {
		r.wrong(s.nameAt, "duplicate-section", "%s stands here a second time, first in line %d", spec.header(), r.line(first.nameAt)).
			Do("put the keys of both together under the first one")
		return
	}
	r.single[s.name] = s
	r.known(s, spec)
	switch s.name {
	case "router":
		r.router(s)
	case "uplink":
		r.uplink(s)
	case "lan":
		r.lan(s)
	case "tunnel":
		r.tunnel(s)
	case "reach":
		r.reach(s)
	case "dns":
		r.dns(s)
	case "ddns":
		r.ddns(s)
	case "peer":
		r.peer(s)
	}
}

// known refuses keys that are unknown, doubled or of the wrong type, and takes
// them out of the section, so that whoever reads it meets good ones only.
func (r *reader) known(s *section, spec sectionSpec) {
	good := s.entries[:0] // in place: what is kept never overtakes what is read
	for _, e := range s.entries {
		k, ok := spec.key(e.key)
		switch {
		case e.dotted || !ok:
			r.unknownKey(&e, spec)
		case firstOf(good, e.key) != nil:
			r.wrong(e.keyAt, "duplicate-key", "%s is written twice, first in line %d", e.key, r.line(firstOf(good, e.key).keyAt)).
				Do("delete one of the two lines")
		case !e.val.is(k.kind):
			r.wrongType(&e, k)
			good = append(good, entry{key: e.key, keyAt: e.keyAt, val: value{span: e.val.span, kind: kindOther}})
		default:
			good = append(good, e)
		}
	}
	s.entries = good
}

func firstOf(list []entry, key string) *entry {
	for i := range list {
		if list[i].key == key {
			return &list[i]
		}
	}
	return nil
}

func (v value) is(k kind) bool { return v.kind == k }

// text gives a string key's value and place; ok is false when it is missing or
// was refused already.
func (s *section) textOf(key string) (text string, at span, ok bool) {
	e := s.get(key)
	if e == nil || e.val.kind != kindString {
		return "", span{}, false
	}
	return e.val.text, e.val.span, true
}

// flag stores a boolean key.
func (s *section) flag(key string, into *bool) {
	if e := s.get(key); e != nil && e.val.kind == kindBool {
		*into = e.val.text == "true"
	}
}

// number gives an integer key's value; beyond int64 it is the nearest int64.
func (r *reader) number(s *section, key string) (n int64, at span, ok bool) {
	e := s.get(key)
	if e == nil || e.val.kind != kindInteger {
		return 0, span{}, false
	}
	if strings.HasPrefix(e.val.text, "0") && len(e.val.text) > 1 {
		r.wrong(e.val.span, "wrong-type", "%s is written in an unusual way", e.key).Do("write it as a plain number, without leading zero")
		return 0, span{}, false
	}
	n, _ = strconv.ParseInt(strings.ReplaceAll(e.val.text, "_", ""), 10, 64)
	return n, e.val.span, true
}

// need complains about a key that is not there.
func (r *reader) need(s *section, key, why string) {
	if s.get(key) != nil || r.excused[key] {
		return
	}
	spec, _ := specOf(s.name)
	k, _ := spec.key(key)
	r.wrong(s.nameAt, "missing-key", "%s has no %s", spec.header(), key).Because("%s", why).Do("add a line such as %s = %s", key, k.example)
}

func (r *reader) router(s *section) {
	out := &r.home.Router
	r.need(s, "address", "heimweg cannot guess where the home router is")
	if v, at, ok := s.textOf("address"); ok {
		if f := wrongRouterAddress("address", v); f != nil {
			r.report(at, f)
		} else {
			out.Address = v
		}
	}
	if v, at, ok := s.textOf("user"); ok {
		if f := wrongUser(v); f != nil {
			r.report(at, f)
		} else {
			out.User = v
		}
	}
	if v, at, ok := s.textOf("jump"); ok {
		if f := wrongJump(v); f != nil {
			r.report(at, f)
		} else {
			out.Jump = v
		}
	}
	if v, at, ok := s.textOf("input"); ok {
		switch v {
		case "reject", "accept":
			out.Input = v
		default:
			r.wrong(at, "bad-input", "input is %s; it can be \"reject\" or \"accept\"", show(v)).
				Do("write input = \"reject\", or delete the line to leave the router's setting alone")
		}
	}
	out.Packages = r.list(s, "packages", wrongPackage)
}

// list reads a list of texts, refusing elements one by one.
func (r *reader) list(s *section, key string, wrong func(string) *fault.Fault) []string {
	e := s.get(key)
	if e == nil || e.val.kind != kindStrings {
		return nil
	}
	out := make([]string, 0, len(e.val.items))
	seen := map[string]bool{}
	for _, item := range e.val.items {
		f := wrong(item.text)
		switch {
		case f != nil:
			r.report(item.span, f)
		case seen[item.text]:
			r.wrong(item.span, "duplicate-value", "%s stands in the list twice", show(item.text)).Do("delete one of the two")
		default:
			seen[item.text] = true
			out = append(out, item.text)
		}
	}
	return out
}

func (r *reader) uplink(s *section) {
	if v, at, ok := s.textOf("kind"); ok {
		if err := r.home.Uplink.Kind.UnmarshalText([]byte(v)); err != nil {
			f := r.wrong(at, "bad-kind", "kind is %s; it can be \"behind-isp-router\", \"direct\" or \"one-armed\"", show(v))
			if m := meant(v, kindNames); m != "" {
				f.Do("write kind = %q", m)
			} else {
				f.Do("write kind = %q when its WAN port is plugged into the ISP router", Behind)
			}
		}
	}
	if n, _, ok := r.network(s, "network", false); ok {
		r.home.Uplink.Network = n
	}
	if v, at, ok := s.textOf("mapping"); ok {
		switch m := MappingBy(v); m {
		case ByHand:
			r.home.Uplink.Mapping = m
		case "ask":
		default:
			r.wrong(at, "bad-mapping", "mapping is %s; it can be \"ask\" or \"by-hand\"", show(v)).
				Do("write mapping = \"by-hand\" when heimweg shall not ask the ISP router, else delete the line")
		}
	}
}

func (r *reader) lan(s *section) {
	l := LAN{}
	r.need(s, "interface", "OpenWrt calls the first home LAN \"lan\"")
	r.need(s, "network", "peers must know which addresses are at home")
	if v, at, ok := s.textOf("interface"); ok {
		if f := wrongInterface(v); f != nil {
			r.report(at, f)
		} else {
			l.Interface = v
		}
	}
	if n, _, ok := r.network(s, "network", false); ok {
		l.Network = n
	}
	s.flag("renumber", &l.Renumber)
	r.home.LANs, r.lans = append(r.home.LANs, l), append(r.lans, s)
}

// network reads a network and checks its family.
func (r *reader) network(s *section, key string, six bool) (n subnet.Network, at span, ok bool) {
	v, at, ok := s.textOf(key)
	if !ok {
		return subnet.Network{}, at, false
	}
	n, err := subnet.ParseNetwork(v)
	switch {
	case err != nil:
		r.report(at, wrongNetwork(v, err))
	case six && n.Is4():
		r.wrong(at, "wrong-family", "%s is an IPv4 network; %s takes the IPv6 one", n, key).Do("write it as network = \"%s\"", n)
	case !six && n.Is6() && s.name == "tunnel":
		r.wrong(at, "wrong-family", "%s is an IPv6 network; %s takes the IPv4 one", n, key).Do("write it as network6 = \"%s\"", n)
	case !six && n.Is6():
		r.wrong(at, "wrong-family", "%s is an IPv6 network; this network is told by its IPv4 one", n).
			Because("the IPv6 network of a home changes when the provider likes; peers reach it by IPv4").
			Do("write the IPv4 network, such as network = \"192.168.1.0/24\"")
	default:
		return n, at, true
	}
	return subnet.Network{}, at, false
}

func (r *reader) tunnel(s *section) {
	out := &r.home.Tunnel
	r.need(s, "network", "the tunnel needs addresses of its own")
	if v, at, ok := s.textOf("interface"); ok {
		if f := wrongTunnelInterface(v); f != nil {
			r.report(at, f)
		} else {
			out.Interface = v
		}
	}
	if n, at, ok := r.network(s, "network", false); ok {
		if f := wrongTunnelNetwork(n); f != nil {
			r.report(at, f)
		} else {
			out.Network = n
		}
	}
	if n, at, ok := r.network(s, "network6", true); ok {
		if f := wrongTunnelNetwork6(n); f != nil {
			r.report(at, f)
		} else {
			out.Network6 = n
		}
	}
	if n, at, ok := r.number(s, "port"); ok {
		if f := wrongListenPort(n); f != nil {
			r.report(at, f)
		} else {
			out.Port = uint16(n)
		}
	}
	if n, at, ok := r.number(s, "mtu"); ok {
		if f := wrongMTU(n); f != nil {
			r.report(at, f)
		} else {
			out.MTU = int(n)
		}
	}
	if v, at, ok := s.textOf("endpoint"); ok {
		if f := wrongEndpoint(v); f != nil {
			r.report(at, f)
		} else {
			out.Endpoint = v
		}
	}
	if n, at, ok := r.number(s, "endpoint-port"); ok {
		if f := wrongPort("endpoint-port", n, DefaultPort); f != nil {
			r.report(at, f)
		} else {
			out.EndpointPort = uint16(n)
		}
	}
}

func (r *reader) reach(s *section) {
	s.flag("home-lan", &r.home.Reach.HomeLAN)
	s.flag("uplink-lan", &r.home.Reach.UplinkLAN)
	s.flag("internet", &r.home.Reach.Internet)
	s.flag("nat-to-lan", &r.home.Reach.NATToLAN)
}

func (r *reader) dns(s *section) {
	if s.get("servers") != nil {
		r.home.DNS.Servers = r.list(s, "servers", wrongDNSServer)
	}
	if s.get("search") != nil {
		r.home.DNS.Search = r.list(s, "search", wrongSearch)
	}
}

func (r *reader) ddns(s *section) {
	d := DDNS{IPv4: true}
	r.need(s, "name", "it is what follows the home's address, and what your devices call")
	for _, k := range []struct {
		key   string
		wrong func(string) *fault.Fault
		into  *string
	}{
		{"service", wrongDDNSService, &d.Service}, {"update-url", wrongUpdateURL, &d.UpdateURL}, {"name", wrongDDNSName, &d.Name},
		{"user", wrongDDNSUser, &d.User}, {"address-url", wrongAddressURL, &d.AddressURL},
	} {
		v, at, ok := s.textOf(k.key)
		if !ok {
			continue
		}
		if f := k.wrong(v); f != nil {
			r.report(at, f)
			r.excused[k.key] = true
			continue
		}
		*k.into = v
	}
	s.flag("ipv4", &d.IPv4)
	s.flag("ipv6", &d.IPv6)
	service, url := s.get("service"), s.get("update-url")
	switch {
	case service == nil && url == nil:
		r.wrong(s.nameAt, "missing-key", "[ddns] has neither a service nor an update-url").
			Because("somebody has to be told the home's address").Do("add a line such as service = \"desec.io\"")
	case service != nil && url != nil:
		r.wrong(url.keyAt, "ddns-both", "[ddns] has a service and an update-url").
			Because("the service brings its own").Do("delete one of the two lines")
	}
	if !d.IPv4 && !d.IPv6 {
		r.wrong(at(s, "ipv4"), "ddns-nothing", "the name follows neither the IPv4 nor the IPv6 address").Do("write ipv4 = true or ipv6 = true")
	}
	r.home.DDNS = d
}

func (r *reader) peer(s *section) {
	p := Peer{Preshared: true, Keepalive: DefaultKeepalive}
	r.need(s, "name", "commands such as \"heimweg peer show\" call it by its name")
	r.need(s, "public-key", "without it the router cannot tell who comes home")
	r.need(s, "address", "every peer has an address of its own in the tunnel")
	if v, at, ok := s.textOf("name"); ok {
		if f := wrongPeerName(v); f != nil {
			r.report(at, f)
		} else {
			p.Name = v
		}
	}
	if v, at, ok := s.textOf("public-key"); ok {
		k, f := publicKey(v)
		if f != nil {
			r.report(at, f)
		}
		p.PublicKey = k
	}
	if v, at, ok := s.textOf("address"); ok {
		a, f := peerAddress("address", v, true)
		if f != nil {
			r.report(at, f)
		}
		p.Address = a
	}
	if v, at, ok := s.textOf("address6"); ok {
		a, f := peerAddress("address6", v, false)
		if f != nil {
			r.report(at, f)
		}
		p.Address6 = a
	}
	s.flag("preshared", &p.Preshared)
	s.flag("disabled", &p.Disabled)
	s.flag("admin", &p.Admin)
	if n, at, ok := r.number(s, "keepalive"); ok {
		if f := wrongKeepalive(n); f != nil {
			r.report(at, f)
		} else {
			p.Keepalive = int(n)
		}
	}
	r.home.Peers, r.peers = append(r.home.Peers, p), append(r.peers, s)
}
