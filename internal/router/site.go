package router

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/uci"
)

// The marks by which heimweg knows its own sections on a router.
const (
	// Prefix begins the name of every section of ours except the tunnel's
	// interface section, whose name is also the name of the network device.
	Prefix = "hw_"
	// MarkOption is set to 1 in our interface section. netifd reads only the
	// options a protocol handler declares and passes over every other
	// (facts: OpenWrt netifd, proto-shell handlers; sections 5.1 and 5.2).
	MarkOption = "heimweg"
	// ParkedType is the type of a peer section that is put to sleep where the
	// release ignores `disabled` (21.02). The WireGuard handler walks over
	// sections of type wireguard_IFACE only (facts: OpenWrt wireguard.sh), so a
	// parked section is inert, but keeps the peer's preshared key for later.
	ParkedType = "hw_parked"
)

// Ours reports whether a section belongs to heimweg: by its name, by the mark
// on the interface, or because the record on the router says we wrote it.
func Ours(config string, s uci.Section, w Written) bool {
	if s.Anonymous {
		return false
	}
	if strings.HasPrefix(s.Name, Prefix) {
		return true
	}
	if config != "network" || s.Type != "interface" {
		return false
	}
	if s.Bool(MarkOption, false) {
		return true
	}
	_, written := w.Digests[config+"."+s.Name]
	return written
}

// Digest is the SHA-256 of a secret's text in hex, "" for none. It lets two
// secrets be compared where neither may be kept. WireGuard keys have 256
// random bits, so the digest tells nothing about them.
func Digest(secret string) string {
	if secret == "" || secret == "(none)" {
		return ""
	}
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// A Seen is a network that is live on one of the router's interfaces.
type Seen struct {
	Interface string
	Prefix    netip.Prefix // with the router's address in it
}

// An AddressStyle is how a static interface's IPv4 address is written. It must
// be kept: on 25.12 `set ipaddr=A.B.C.D` without a mask gives a /32 and locks
// everybody out (facts: OpenWrt section 1.11, observed section 7).
type AddressStyle int

// The three forms.
const (
	PairStyle AddressStyle = iota // option ipaddr 'A.B.C.D', option netmask 'M' (21.02 to 24.10)
	CIDRStyle                     // option ipaddr 'A.B.C.D/N'
	ListForm                      // list ipaddr 'A.B.C.D/N' (25.12 on)
)

// A DHCPSection is the `config dhcp` section of one interface.
type DHCPSection struct {
	Ref    string // section name, or "@dhcp[2]" when it has none
	Ignore bool
	RA     string // "server", "relay", "hybrid", "disabled", "" for not set
	DHCPv6 string
}

// Effective is the release line whose rules hold: the newest known one for a
// newer line and for a snapshot build, zero for a version that cannot be read.
func (r Release) Effective() Line {
	l := r.Line
	if l == (Line{}) {
		l, _ = ParseLine(r.Version)
	}
	newest := Lines()[len(Lines())-1]
	if l.AtLeast(newest) || l == (Line{}) && strings.HasPrefix(r.Version, "SNAPSHOT") {
		return newest
	}
	return l
}

// SiteOf reads from a snapshot what a blueprint needs to know. The faults name
// what the configuration says in a way that cannot be read; the site is as
// complete as it can be then. A config that cannot be parsed at all counts as
// empty here: package plan blocks on it and says where it is broken.
func SiteOf(s *Snapshot) (Site, []*fault.Fault) {
	b := &siteReader{snap: s, site: Site{
		Board:        s.Board,
		Zones:        map[string]string{},
		LANs:         map[string][]netip.Prefix{},
		DHCPServer:   map[string]bool{},
		ListStyle:    map[string]bool{},
		Styles:       map[string]AddressStyle{},
		DHCP:         map[string]DHCPSection{},
		Interfaces:   map[string]bool{},
		Named:        map[string]string{},
		ZoneSections: map[string]string{},
		Inputs:       map[string]string{},
		Ports:        map[uint16]string{},
	}}
	b.network()
	b.firewall()
	b.dhcp()
	b.live()
	return b.site, b.faults
}

type siteReader struct {
	snap   *Snapshot
	site   Site
	faults []*fault.Fault
	masq   string // first zone that masquerades
}

func (b *siteReader) network() {
	for _, sec := range b.snap.Config("network").Sections() {
		ours := Ours("network", sec, b.snap.Written)
		if !sec.Anonymous && !ours {
			b.site.Named["network."+sec.Name] = sec.Type
		}
		if sec.Type != "interface" {
			continue
		}
		b.site.Interfaces[sec.Name] = ours
		switch proto, _ := sec.Get("proto"); proto {
		case "static":
			b.static(sec)
		case "wireguard":
			if p, _ := sec.Get("listen_port"); !ours && p != "" {
				if n, err := strconv.ParseUint(p, 10, 16); err == nil && n != 0 {
					b.site.Ports[uint16(n)] = sec.Name
				}
			}
		}
	}
}

// static reads the IPv4 addresses of a static interface in all three forms.
func (b *siteReader) static(sec uci.Section) {
	values := sec.Values("ipaddr")
	var words []string
	for _, v := range values {
		words = append(words, strings.Fields(v)...)
	}
	mask, _ := sec.Get("netmask")
	for _, w := range words {
		p, err := staticPrefix(w, mask)
		if err != nil {
			b.faults = append(b.faults, fault.New("router-address-unreadable",
				"the router's interface %s has an address that cannot be read", sec.Name).
				Saw("network.%s.ipaddr is '%s'", sec.Name, w).
				Do("correct it on the router: uci set network.%s.ipaddr=…", sec.Name))
			continue
		}
		b.site.LANs[sec.Name] = append(b.site.LANs[sec.Name], p)
		switch {
		case isList(sec, "ipaddr"):
			b.site.Styles[sec.Name] = ListForm
			b.site.ListStyle[sec.Name] = true
		case strings.Contains(w, "/"):
			b.site.Styles[sec.Name] = CIDRStyle
		}
	}
}

func isList(sec uci.Section, option string) bool {
	for _, o := range sec.Options {
		if o.Name == option {
			return o.List
		}
	}
	return false
}

// staticPrefix is one address with its mask. Without any mask netifd takes 32
// (facts: OpenWrt section 1.11).
func staticPrefix(word, mask string) (netip.Prefix, error) {
	if strings.Contains(word, "/") {
		host, tail, _ := strings.Cut(word, "/")
		n, err := maskBits(tail)
		if err != nil {
			return netip.Prefix{}, err
		}
		return prefixOf(host, n)
	}
	n := 32
	if mask != "" {
		var err error
		if n, err = maskBits(mask); err != nil {
			return netip.Prefix{}, err
		}
	}
	return prefixOf(word, n)
}

func prefixOf(host string, n int) (netip.Prefix, error) {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !a.Is4() {
		return netip.Prefix{}, fmt.Errorf("%s is not an IPv4 address", host)
	}
	return netip.PrefixFrom(a, n), nil
}

// maskBits reads a mask, dotted or as a count.
func maskBits(s string) (int, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		b := a.As4()
		v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		n := bits.LeadingZeros32(^v)
		if v<<n != 0 {
			return 0, fmt.Errorf("mask %s has holes", s)
		}
		return n, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 32 {
		return 0, fmt.Errorf("%q is not a mask", s)
	}
	return n, nil
}

func (b *siteReader) firewall() {
	index, defaults := -1, false
	for _, sec := range b.snap.Config("firewall").Sections() {
		if sec.Type == "defaults" {
			if defaults {
				continue // a second one is ignored (observed section 8.12)
			}
			defaults = true
			in, _ := sec.Get("input")
			b.site.InputAccept = isAccept(in)
			continue
		}
		if sec.Type != "zone" {
			continue
		}
		index++
		if !sec.Bool("enabled", true) {
			continue
		}
		b.zone(sec, index)
	}
	for name, in := range b.site.Inputs {
		if in == "" && b.site.InputAccept {
			b.site.Inputs[name] = "ACCEPT" // taken from the defaults (observed section 8.12)
		}
	}
	b.site.WAN = b.wan()
}

func (b *siteReader) zone(sec uci.Section, index int) {
	name, _ := sec.Get("name")
	if name == "" {
		return
	}
	if !Ours("firewall", sec, b.snap.Written) {
		b.site.ZoneSections[name] = sec.Name
		if sec.Anonymous {
			b.site.ZoneSections[name] = fmt.Sprintf("@zone[%d]", index)
		}
	}
	in, set := sec.Get("input")
	switch {
	case isAccept(in):
		in = "ACCEPT"
	case !set:
		in = "" // settled at the end: the defaults may come after the zones
	}
	b.site.Inputs[name] = strings.ToUpper(in)
	for _, v := range sec.Values("network") {
		for _, iface := range strings.Fields(v) {
			// Zones are tried in file order and the first one with the device
			// takes its traffic (observed section 8.10).
			if _, taken := b.site.Zones[iface]; !taken {
				b.site.Zones[iface] = name
			}
		}
	}
	for _, v := range sec.Values("device") {
		for _, dev := range strings.Fields(v) {
			for _, i := range b.snap.Interfaces {
				if _, taken := b.site.Zones[i.Name]; !taken && i.Device == dev {
					b.site.Zones[i.Name] = name
				}
			}
		}
	}
	if sec.Bool("masq", false) && b.masq == "" {
		b.masq = name
	}
}

// isAccept reads a policy the way the firewall does: any case, and shortened
// (observed section 8.21).
func isAccept(policy string) bool {
	return policy != "" && strings.HasPrefix("ACCEPT", strings.ToUpper(policy))
}

// wan is the zone towards the uplink: that of the interface wan or wan6, else
// that of an interface with a live default route which is masqueraded.
func (b *siteReader) wan() string {
	for _, iface := range []string{"wan", "wan6"} {
		if z := b.site.Zones[iface]; z != "" {
			return z
		}
	}
	for _, i := range b.snap.Interfaces {
		if z := b.site.Zones[i.Name]; z != "" && len(i.Gateways) > 0 && z == b.masq {
			return z
		}
	}
	return ""
}

func (b *siteReader) dhcp() {
	index, dnsmasq := -1, false
	for _, sec := range b.snap.Config("dhcp").Sections() {
		switch sec.Type {
		case "dnsmasq":
			if !dnsmasq {
				b.site.DNSInterfaces = sec.Values("interface")
				b.site.DNSNotInterfaces = sec.Values("notinterface")
			}
			dnsmasq = true
		case "dhcp":
			index++
			iface, ok := sec.Get("interface")
			if !ok {
				iface = sec.Name
			}
			d := DHCPSection{Ref: sec.Name, Ignore: sec.Bool("ignore", false)}
			if sec.Anonymous {
				d.Ref = fmt.Sprintf("@dhcp[%d]", index)
			}
			d.RA, _ = sec.Get("ra")
			d.DHCPv6, _ = sec.Get("dhcpv6")
			if v4, _ := sec.Get("dhcpv4"); v4 == "disabled" {
				d.Ignore = true
			}
			if _, taken := b.site.DHCP[iface]; !taken {
				b.site.DHCP[iface] = d
				b.site.DHCPServer[iface] = !d.Ignore
			}
		}
	}
}

func (b *siteReader) live() {
	for _, i := range b.snap.Interfaces {
		for _, p := range i.Addresses {
			if p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			b.site.Live = append(b.site.Live, Seen{i.Name, p})
		}
	}
	slices.SortStableFunc(b.site.Live, func(x, y Seen) int { return strings.Compare(x.Interface, y.Interface) })
}
