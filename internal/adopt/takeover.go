package adopt

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// A Takeover is what heimweg's own sections take the place of when home.toml
// describes a tunnel that somebody made by hand.
type Takeover struct {
	Interface string
	// Retire: "network.cfg0a92bd" → why the section goes, or is taken over when
	// home.toml's own has the same name. Names of anonymous sections are those of
	// the files as they are.
	Retire map[string]string
	// Adjust are options of sections that stay: they name the zone that goes.
	Adjust []blueprint.Adjust
	// Problems are what home.toml has no word for and what would be lost. They block.
	Problems []*fault.Fault
	// Notes say what is different afterwards.
	Notes []blueprint.Note
}

// Of finds out whether home.toml describes a tunnel on the router that somebody
// made by hand, and what is to be done with its parts. It does when both have the
// same interface name and a device's key in common, or, where nobody was let in
// yet, port and address: a home.toml that only happens to use the same name does not.
func Of(h home.Home, s *router.Snapshot) (Takeover, bool) {
	sec, ok := s.Config("network").Section(h.Tunnel.Interface)
	if !ok || router.Ours("network", sec, s.Written) || len(s.Broken) > 0 {
		return Takeover{}, false
	}
	x, ok := readHand(s, h.Tunnel.Interface)
	if !ok || !x.describedBy(h) {
		return Takeover{}, false
	}
	t := &Takeover{Interface: x.name, Retire: map[string]string{}}
	t.tunnel(x, h)
	t.firewall(x, h)
	return *t, true
}

func (x *hand) describedBy(h home.Home) bool {
	keys := map[key.Public]bool{}
	for _, p := range h.Peers {
		keys[p.PublicKey] = true
	}
	for _, p := range x.peers {
		if !p.key.IsZero() && keys[p.key] {
			return true
		}
	}
	if len(x.peers) > 0 {
		return false
	}
	at, _ := x.own(true)
	return x.port == h.Tunnel.Port && at.Addr() == h.Tunnel.Network.First().Addr()
}

func (t *Takeover) retire(config string, sec uci.Section, why string) {
	t.Retire[config+"."+sec.Name] = why
}

func (t *Takeover) note(code, format string, args ...any) {
	t.Notes = append(t.Notes, blueprint.Note{Code: code, Text: fmt.Sprintf(format, args...)})
}

func (t *Takeover) problem(f *fault.Fault) { t.Problems = append(t.Problems, f) }

// tunnel takes over the interface, which keeps its name and key, and the devices'
// sections, which get names.
func (t *Takeover) tunnel(x *hand, h home.Home) {
	t.retire("network", x.section, "the tunnel, under heimweg's care")
	for _, f := range x.unsayable() {
		t.problem(f)
	}
	names := map[key.Public]string{}
	for _, p := range h.Peers {
		names[p.PublicKey] = p.Name
	}
	for _, p := range x.peers {
		switch name := names[p.key]; {
		case p.joins(x):
			// Said by unsayable; it stays.
		case p.key.IsZero():
			t.retire("network", p.section, "it has no key that WireGuard can read, and never let anybody in")
		case name == "":
			t.retire("network", p.section, "home.toml does not list this device")
		default:
			t.retire("network", p.section, "network."+(home.Peer{Name: name}).Section()+" takes its place, with the same keys")
		}
	}
}

// firewall goes through every section that has to do with the tunnel.
func (t *Takeover) firewall(x *hand, h home.Home) {
	lans := map[string]bool{}
	for _, l := range h.LANs {
		if z := x.site.Zones[l.Interface]; z != "" {
			lans[z] = true
		}
	}
	w := wall{Takeover: t, x: x, lans: lans, net: h.Tunnel.Network.Prefix(), direct: h.Uplink.Kind != home.OneArmed}
	w.zone()
	for _, sec := range x.snap.Config("firewall").Sections() {
		if router.Ours("firewall", sec, x.snap.Written) {
			continue
		}
		switch sec.Type {
		case "forwarding":
			w.forwarding(sec)
		case "rule":
			w.rule(sec)
		case "redirect":
			w.redirect(sec)
		case "nat":
			w.nat(sec)
		}
	}
}

type wall struct {
	*Takeover
	x      *hand
	lans   map[string]bool // zones of the home LANs
	net    netip.Prefix    // the tunnel's
	direct bool            // there is a WAN side
}

func (w *wall) zone() {
	z := w.x.zone
	switch {
	case z.name == "":
		return
	case z.own:
		w.retire("firewall", z.section, "zone "+blueprint.Zone+" takes its place")
		if policy(z.section, "forward") == "ACCEPT" {
			w.note("peers-apart", "your devices do not reach each other through the tunnel any more (zone %s let them)", z.name)
		}
		return
	}
	w.note("peers-apart", "the tunnel leaves zone %s for one of its own: your devices do not reach each other through it any more, and the home LAN does not start connections to them", z.name)
	for _, option := range []string{"network", "device"} {
		values := words(z.section.Values(option))
		if !slices.Contains(values, w.x.name) {
			continue
		}
		w.Adjust = append(w.Adjust, blueprint.Adjust{
			Config: "firewall", Section: z.section.Name, Option: option, List: isList(z.section, option),
			Values: slices.DeleteFunc(values, func(v string) bool { return v == w.x.name }),
			Why:    "the tunnel gets a zone of its own",
		})
	}
}

func isList(sec uci.Section, option string) bool {
	return slices.ContainsFunc(sec.Options, func(o uci.Option) bool { return o.Name == option && o.List })
}

// policy reads a zone's policy as far as it is said; shortened words count (facts:
// OpenWrt observed 8.21).
func policy(sec uci.Section, option string) string {
	v, _ := sec.Get(option)
	v = strings.ToUpper(v)
	for _, p := range []string{"ACCEPT", "REJECT", "DROP"} {
		if v != "" && strings.HasPrefix(p, v) {
			return p
		}
	}
	return v
}

// keep leaves a section as it is, but for the name of the zone that goes.
func (w *wall) keep(sec uci.Section) {
	if !w.x.zone.own || w.x.zone.name == blueprint.Zone {
		return
	}
	for _, option := range []string{"src", "dest"} {
		if refers(sec, option, w.x.zone.name) {
			w.Adjust = append(w.Adjust, blueprint.Adjust{Config: "firewall", Section: sec.Name, Option: option,
				Values: []string{blueprint.Zone}, Why: "the tunnel's zone has another name"})
		}
	}
}

// forwarding: what peers may reach is home.toml's affair now. Other ways, such as
// from the home LAN to the devices, stay.
func (w *wall) forwarding(sec uci.Section) {
	own := w.x.zone.own
	dest, _ := sec.Get("dest")
	if own && refers(sec, "src", w.x.zone.name) && (w.lans[dest] || w.direct && dest == w.x.wan) {
		w.retire("firewall", sec, "what devices may reach stands in home.toml under [reach]")
		return
	}
	w.keep(sec)
}

// rule: the one that opens the port is superseded; all others stay.
func (w *wall) rule(sec uci.Section) {
	if !w.opens(sec) {
		w.keep(sec)
		return
	}
	w.retire("firewall", sec, "the rule hw_wg_in takes its place")
	for _, o := range []string{"src_ip", "src_mac", "src_port", "limit", "start_time", "stop_time", "weekdays", "start_date", "stop_date", "ipset"} {
		if v, ok := sec.Get(o); ok {
			w.note("wider", "the port was open for some only (%s %s); heimweg opens it for all, and WireGuard answers nobody without a key", o, v)
		}
	}
}

// opens reports whether a rule has no other use than to open the tunnel's port
// towards the uplink.
func (w *wall) opens(sec uci.Section) bool {
	src, _ := sec.Get("src")
	dest, to := sec.Get("dest")
	if to && !(w.x.zone.own && dest == w.x.zone.name) {
		return false
	}
	return w.outside(src) && policy(sec, "target") == "ACCEPT" && udp(sec) && onlyPort(sec, "dest_port", w.x.port)
}

// outside: a zone through which calls from the internet come in.
func (w *wall) outside(zone string) bool {
	return zone != "" && (zone == w.x.wan || zone == "*" || !w.direct && w.lans[zone])
}

// udp: without a word rules and port forwards mean TCP and UDP.
func udp(sec uci.Section) bool {
	protos := words(sec.Values("proto"))
	for _, p := range protos {
		switch strings.ToLower(p) {
		case "udp", "tcpudp", "all", "any", "*", "17":
			return true
		}
	}
	return len(protos) == 0
}

func onlyPort(sec uci.Section, option string, port uint16) bool {
	v := words(sec.Values(option))
	return len(v) == 1 && v[0] == strconv.Itoa(int(port))
}

// redirect: a port forward of the tunnel's port to the router itself is what a
// rule does better. One that translates another port is needed by devices that
// call that one, and stays.
func (w *wall) redirect(sec uci.Section) {
	if w.forwardsHome(sec) && onlyPort(sec, "src_dport", w.x.port) {
		w.retire("firewall", sec, "the rule hw_wg_in takes its place, for IPv4 and IPv6")
		return
	}
	w.keep(sec)
}

// forwardsHome: a port forward whose end is the tunnel's port on the router.
func (w *wall) forwardsHome(sec uci.Section) bool {
	src, _ := sec.Get("src")
	target, set := sec.Get("target")
	to, _ := sec.Get("dest_ip")
	_, portSet := sec.Get("dest_port")
	return w.outside(src) && (!set || strings.EqualFold(target, "DNAT")) && udp(sec) &&
		(to == "" || w.x.isOwnAddress(to)) && (!portSet || onlyPort(sec, "dest_port", w.x.port))
}

// nat: masquerading of the tunnel's network towards the home LAN is home.toml's
// nat-to-lan.
func (w *wall) nat(sec uci.Section) {
	src, _ := sec.Get("src")
	if w.lans[src] && policy(sec, "target") == "MASQUERADE" || w.lans[src] && strings.EqualFold(first(sec, "target"), "MASQUERADE") {
		if w.within(sec.Values("src_ip")) {
			w.retire("firewall", sec, "it stands in home.toml as nat-to-lan")
			return
		}
	}
	w.keep(sec)
}

func first(sec uci.Section, option string) string {
	v, _ := sec.Get(option)
	return v
}

// within: all of these are parts of the tunnel's network.
func (w *wall) within(sources []string) bool {
	list := words(sources)
	for _, t := range list {
		p, ok := parsePrefix(t)
		if !ok || !w.net.Contains(p.Addr()) || p.Bits() < w.net.Bits() {
			return false
		}
	}
	return len(list) > 0
}

// Rest is the router without the parts that go, which is what home.toml's sections
// are drawn for.
func (t Takeover) Rest(s *router.Snapshot) *router.Snapshot {
	out := *s
	out.Configs = maps.Clone(s.Configs)
	for _, config := range []string{"network", "firewall"} {
		doc := s.Config(config).Clone()
		for _, a := range t.Adjust {
			if a.Config == config {
				o := uci.Opt(a.Option, strings.Join(a.Values, " "))
				if a.List {
					o = uci.List(a.Option, a.Values...)
				}
				_ = doc.SetOption(a.Section, o) // a file that cannot be edited blocks elsewhere
			}
		}
		// From the end: taking a section out gives the anonymous ones behind it new names.
		for _, sec := range slices.Backward(doc.Sections()) {
			if _, gone := t.Retire[config+"."+sec.Name]; gone {
				_ = doc.Delete(sec.Name)
			}
		}
		out.Configs[config] = doc
	}
	return &out
}
