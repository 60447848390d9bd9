package backup

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Options say what a person decides about putting a backup onto a box.
type Options struct {
	// WAN is the port that becomes the WAN port on a box that has none by itself;
	// "" means the last LAN port.
	WAN string
	// LANs are the interfaces whose addresses home.toml decides.
	LANs []string
}

// A Line is one thing that is put back or left out, for people.
type Line struct {
	What string `json:"what"` // "firewall rule Allow-NAS-from-outside"
	Why  string `json:"why,omitempty"`
}

// A Fitting is what of a backup fits another box, beside what heimweg draws
// itself from home.toml.
type Fitting struct {
	// Docs are the box's configuration files with the household's own sections put
	// in; only those that differ from what is there.
	Docs map[string]*uci.Document
	// Files are other files to put back as they are.
	Files []File
	Taken []Line
	Left  []Line
}

// Fit says what of the household's own settings fits a box, and puts it in. What
// is heimweg's is not part of it: that is drawn anew from home.toml for this box.
//
// The box keeps what its release and board ship: ports, zones, radio paths. On it
// come the household's sections, each only where everything it refers to exists.
func Fit(b Backup, now *router.Snapshot, o Options) (Fitting, error) {
	f := &fitter{b: b, now: now, o: o, docs: map[string]*uci.Document{}}
	f.old = func(config string) *uci.Document {
		if d := b.Config(config); d != nil {
			return d
		}
		d, _ := uci.Parse(config, nil)
		return d
	}
	for _, c := range []string{"network", "firewall", "dhcp", "dropbear", "system", "wireless"} {
		if d := now.Configs[c]; d != nil {
			f.docs[c] = d.Clone()
		}
	}
	f.same = f.sameLayout()
	f.network()
	f.firewall()
	f.dhcp()
	f.dropbear()
	f.system()
	f.wireless()
	f.others()
	for c, d := range f.docs {
		if !slices.Equal(d.Text(), now.Configs[c].Text()) && !uci.Equal(d, now.Configs[c]) {
			if f.out.Docs == nil {
				f.out.Docs = map[string]*uci.Document{}
			}
			f.out.Docs[c] = d
		}
	}
	return f.out, f.err
}

type fitter struct {
	b    Backup
	now  *router.Snapshot
	o    Options
	same bool // ports have the same names there
	old  func(config string) *uci.Document
	docs map[string]*uci.Document
	out  Fitting
	err  error // an edit that failed: our mistake, or a file that cannot be edited
}

func (f *fitter) take(what, why string) { f.out.Taken = append(f.out.Taken, Line{what, why}) }
func (f *fitter) leave(what, why string, args ...any) {
	f.out.Left = append(f.out.Left, Line{what, fmt.Sprintf(why, args...)})
}

func (f *fitter) failed(err error) bool {
	if err != nil && f.err == nil {
		f.err = err
	}
	return err != nil
}

// foreign are the sections of a config that are not heimweg's.
func (f *fitter) foreign(config string) []uci.Section {
	var out []uci.Section
	w := f.b.Written()
	tunnels := map[string]bool{}
	for _, s := range f.old("network").Sections() {
		if s.Type == "interface" && router.Ours("network", s, w) {
			tunnels[s.Name] = true
		}
	}
	for _, s := range f.old(config).Sections() {
		peerOf, isPeer := strings.CutPrefix(s.Type, "wireguard_")
		if router.Ours(config, s, w) || isPeer && tunnels[peerOf] || s.Type == router.ParkedType {
			continue
		}
		out = append(out, s)
	}
	return out
}

// add puts a section at the end of a config: a named one by its name, an unnamed
// one as text.
func (f *fitter) add(config string, s uci.Section) {
	d := f.docs[config]
	if d == nil {
		return
	}
	if !s.Anonymous {
		f.failed(d.Put(s))
		return
	}
	text := append(bytes.TrimRight(d.Text(), "\n"), "\n\n"...)
	text = append(append(text, bytes.Trim(uci.Print([]uci.Section{s}), "\n")...), '\n')
	next, err := uci.Parse(config, text)
	if !f.failed(err) {
		f.docs[config] = next
	}
}

// options gives a section of the box the backup's options, but for some.
func (f *fitter) options(config string, to, from uci.Section, except ...string) (changed []string) {
	d := f.docs[config]
	for _, o := range from.Options {
		if slices.Contains(except, o.Name) {
			continue
		}
		i := slices.IndexFunc(to.Options, func(p uci.Option) bool { return p.Name == o.Name })
		if i >= 0 && to.Options[i].Equal(o) {
			continue
		}
		if !f.failed(d.SetOption(to.Name, o)) {
			changed = append(changed, o.Name)
		}
	}
	return changed
}

// kept names the options of a section that stay as the box has them, although the
// backup has another value.
func (f *fitter) kept(what string, now, was uci.Section, except ...string) {
	for _, o := range was.Options {
		is := strings.Join(now.Values(o.Name), " ")
		if had := strings.Join(was.Values(o.Name), " "); had != is && !slices.Contains(except, o.Name) {
			f.leave(what+": "+o.Name+" "+shown(o), "this box keeps its release's (%s)", orNone(is))
		}
	}
}

// shown is an option's value for people; a secret stays one.
func shown(o uci.Option) string {
	var out []string
	for _, v := range o.Values {
		out = append(out, v.String())
	}
	return strings.Join(out, " ")
}

// has reports whether the box's config has an equal section.
func (f *fitter) has(config string, s uci.Section) bool {
	return slices.ContainsFunc(f.docs[config].OfType(s.Type), func(t uci.Section) bool { return uci.EqualSections(s, t) })
}

// title names a section for people.
func title(config string, s uci.Section) string {
	kind := s.Type
	if config == "firewall" || config == "dhcp" {
		kind = config + " " + kind
	}
	for _, o := range []string{"name", "ip", "target", "mac"} {
		if v, ok := s.Get(o); ok {
			return kind + " " + v
		}
	}
	if !s.Anonymous {
		return kind + " " + s.Name
	}
	return kind
}

// sameLayout: the board is the same, and its ports are configured the same way.
func (f *fitter) sameLayout() bool {
	wasSwitch := len(f.old("network").OfType("switch")) > 0
	if f.b.Board.Name == "" {
		// An archive of the router's own does not name its board: the devices that
		// it speaks of have to be there.
		for _, s := range f.old("network").OfType("interface") {
			if dev := device(s); dev != "" && dev != "lo" && !router.Ours("network", s, f.b.Written()) && !f.knows(dev) {
				return false
			}
		}
		return wasSwitch == f.now.Board.Switch
	}
	return f.b.Board.Name == f.now.Board.Name && wasSwitch == f.now.Board.Switch
}

// device is what an interface section hangs on (ifname before 21.02's new style).
func device(s uci.Section) string {
	if v, ok := s.Get("device"); ok {
		return v
	}
	v, _ := s.Get("ifname")
	return v
}

// knows reports whether the box's configuration speaks of a device.
func (f *fitter) knows(dev string) bool {
	base, _, _ := strings.Cut(dev, ".")
	if strings.HasPrefix(dev, "@") {
		_, ok := f.docs["network"].Section(dev[1:])
		return ok
	}
	for _, s := range f.docs["network"].Sections() {
		name, _ := s.Get("name")
		if s.Type == "device" && name == dev || s.Type == "interface" && device(s) == dev || slices.Contains(s.Values("ports"), base) || device(s) == base {
			return true
		}
	}
	return f.same
}

// network: addresses, dial-up and routes of the household; ports of this box.
func (f *fitter) network() {
	d := f.docs["network"]
	if d == nil {
		return
	}
	// Devices first: interfaces hang on them.
	for _, s := range f.foreign("network") {
		if s.Type == "device" {
			f.device(s)
		}
	}
	for _, s := range f.foreign("network") {
		d := f.docs["network"] // an added section makes a new document
		switch s.Type {
		case "device":
		case "switch", "switch_vlan":
			if f.same && f.has("network", s) {
				continue
			}
			f.leave(title("network", s), "ports are set up in another way on this box")
		case "globals":
			if now, ok := d.Section(s.Name); ok {
				if len(f.options("network", now, s, "dhcp_default_duid")) > 0 {
					f.take("the home network's own IPv6 prefix", "")
				}
			}
		case "interface":
			f.iface(s)
		case "route", "route6", "rule", "rule6":
			if name, ok := s.Get("interface"); ok && !f.hasInterface(name) {
				f.leave(title("network", s), "there is no interface %s on this box", name)
			} else if !f.has("network", s) {
				f.add("network", s)
				f.take(title("network", s), "")
			}
		default:
			if of, isPeer := strings.CutPrefix(s.Type, "wireguard_"); isPeer && f.hasInterface(of) {
				if !f.has("network", s) {
					f.add("network", s)
				}
				continue
			}
			f.leave(title("network", s), "this kind of section is not carried over")
		}
	}
}

func (f *fitter) hasInterface(name string) bool {
	s, ok := f.docs["network"].Section(name)
	return ok && s.Type == "interface"
}

func (f *fitter) device(s uci.Section) {
	name, _ := s.Get("name")
	for _, t := range f.docs["network"].OfType("device") {
		if n, _ := t.Get("name"); n == name {
			return // this box has it, with its own ports
		}
	}
	if f.same {
		f.add("network", s)
		f.take("device "+name, "")
		return
	}
	f.leave("device "+name, "ports have other names on this box")
}

// iface carries an interface over: on this box's own device where it has one.
func (f *fitter) iface(s uci.Section) {
	if s.Name == "loopback" {
		return
	}
	d := f.docs["network"]
	now, there := d.Section(s.Name)
	switch {
	case there:
		except := []string{"device", "ifname", "type", "macaddr"}
		if slices.Contains(f.o.LANs, s.Name) {
			except = append(except, "ipaddr", "netmask") // home.toml's, in this release's form
		}
		if list := f.options("network", now, s, except...); len(list) > 0 {
			f.take("interface "+s.Name+": "+strings.Join(list, ", "), "")
		}
	case s.Name == "wan" || s.Name == "wan6":
		f.makeWAN(s)
	case device(s) == "" || f.knows(device(s)):
		f.add("network", s)
		f.take("interface "+s.Name, "")
	default:
		f.leave("interface "+s.Name, "it hangs on %s, which does not exist on this box", device(s))
	}
}

// makeWAN takes a port out of the bridge of a box that has no WAN port by itself.
func (f *fitter) makeWAN(s uci.Section) {
	if wan, ok := f.docs["network"].Section("wan"); ok && s.Name == "wan6" {
		f.add("network", withDevice(s, device(wan)))
		return
	}
	d := f.docs["network"]
	for _, bridge := range d.OfType("device") {
		ports := bridge.Values("ports")
		if len(ports) == 0 {
			continue
		}
		port := f.o.WAN
		if port == "" {
			port = ports[len(ports)-1]
		}
		if !slices.Contains(ports, port) || len(ports) < 2 {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(ports), func(p string) bool { return p == port })
		if f.failed(d.SetOption(bridge.Name, uci.List("ports", rest...))) {
			return
		}
		f.add("network", withDevice(s, port))
		f.take("interface "+s.Name+" on port "+port, "this box has no WAN port; plug the cable to the ISP router in there")
		return
	}
	f.leave("interface "+s.Name, "this box has no port to spare for it")
}

func withDevice(s uci.Section, dev string) uci.Section {
	return s.Without("ifname", "macaddr").With(uci.Opt("device", dev))
}

// firewall: the household's rules where their zones exist.
func (f *fitter) firewall() {
	if f.docs["firewall"] == nil {
		return
	}
	list := f.foreign("firewall")
	for _, s := range list {
		if s.Type == "zone" {
			f.zone(s)
		}
	}
	for _, s := range list {
		switch s.Type {
		case "zone":
		case "defaults":
			f.defaults(s)
		case "forwarding", "rule", "redirect", "nat", "ipset":
			f.rule(s)
		default:
			f.leave(title("firewall", s), "this kind of section is not carried over")
		}
	}
}

func (f *fitter) zoneNamed(name string) (uci.Section, bool) {
	for _, z := range f.docs["firewall"].OfType("zone") {
		if n, _ := z.Get("name"); n == name {
			return z, true
		}
	}
	return uci.Section{}, false
}

func (f *fitter) zone(s uci.Section) {
	name, _ := s.Get("name")
	var here, gone []string
	for _, n := range words(s, "network") {
		if f.hasInterface(n) {
			here = append(here, n)
		} else if !f.isTunnel(n) {
			gone = append(gone, n)
		}
	}
	now, there := f.zoneNamed(name)
	if !there {
		if len(here) == 0 && len(words(s, "device")) == 0 {
			f.leave("firewall zone "+name, "none of its interfaces exists on this box")
			return
		}
		f.add("firewall", s.Without("network").With(uci.List("network", here...)))
		f.take("firewall zone "+name, "")
		return
	}
	f.kept("firewall zone "+name, now, s, "name", "network")
	have := words(now, "network")
	merged := slices.Clone(have)
	for _, n := range here {
		if !slices.Contains(merged, n) {
			merged = append(merged, n)
		}
	}
	if len(merged) > len(have) {
		f.failed(f.docs["firewall"].SetOption(now.Name, uci.List("network", merged...)))
		f.take("firewall zone "+name+": "+strings.Join(merged[len(have):], ", "), "")
	}
	for _, n := range gone {
		if n != "wan6" {
			f.leave("firewall zone "+name+": "+n, "there is no such interface on this box")
		}
	}
}

// words are the values of an option that may be a list or one string.
func words(s uci.Section, option string) []string {
	var out []string
	for _, v := range s.Values(option) {
		out = append(out, strings.Fields(v)...)
	}
	return out
}

// isTunnel: an interface that heimweg draws itself.
func (f *fitter) isTunnel(name string) bool {
	s, ok := f.old("network").Section(name)
	return ok && router.Ours("network", s, f.b.Written())
}

func (f *fitter) defaults(s uci.Section) {
	now := f.docs["firewall"].OfType("defaults")
	if len(now) == 0 {
		return
	}
	f.kept("firewall defaults", now[0], s)
}

func orNone(v string) string {
	if v == "" {
		return "not set"
	}
	return v
}

// rule carries over what refers to zones.
func (f *fitter) rule(s uci.Section) {
	if f.has("firewall", s) {
		return
	}
	what := title("firewall", s)
	if s.Type == "forwarding" {
		src, _ := s.Get("src")
		dest, _ := s.Get("dest")
		what = "firewall forwarding " + src + " → " + dest
	}
	for _, o := range []string{"src", "dest"} {
		zone, ok := s.Get(o)
		if !ok || zone == "*" || zone == "" {
			continue
		}
		if _, there := f.zoneNamed(zone); !there {
			f.leave(what, "there is no zone %s on this box", zone)
			return
		}
	}
	// A rule of that name that the release ships, in this release's form.
	if name, ok := s.Get("name"); ok {
		for _, t := range f.docs["firewall"].OfType(s.Type) {
			if n, _ := t.Get("name"); n == name {
				f.leave(what, "this release ships one of that name")
				return
			}
		}
	}
	f.add("firewall", s)
	f.take(what, "")
}

// dhcp: fixed addresses and names always, ranges of the networks that exist.
func (f *fitter) dhcp() {
	if f.docs["dhcp"] == nil {
		return
	}
	for _, s := range f.foreign("dhcp") {
		d := f.docs["dhcp"]
		switch s.Type {
		case "dhcp":
			name, _ := s.Get("interface")
			now := dhcpOf(d, name)
			switch {
			case now.Type != "":
				if list := f.options("dhcp", now, s); len(list) > 0 {
					f.take("addresses handed out on "+name+": "+strings.Join(list, ", "), "")
				}
			case f.hasInterface(name):
				f.add("dhcp", s)
				f.take("addresses handed out on "+name, "")
			default:
				f.leave("addresses handed out on "+name, "there is no such interface on this box")
			}
		case "dnsmasq", "odhcpd":
			now := d.OfType(s.Type)
			if len(now) == 0 {
				f.leave(title("dhcp", s), "this box has no such service")
				continue
			}
			// What the release sets stays as it ships it, but for the home LAN's own name.
			var own []string
			for _, o := range now[0].Options {
				if o.Name != "domain" && o.Name != "local" {
					own = append(own, o.Name)
				}
			}
			f.kept("name service", now[0], s, append(f.notIn(now[0], s), "domain", "local")...)
			if list := f.options("dhcp", now[0], s, own...); len(list) > 0 {
				f.take("name service: "+strings.Join(list, ", "), "")
			}
		default:
			if !f.has("dhcp", s) {
				f.add("dhcp", s)
				f.take(title("dhcp", s), "")
			}
		}
	}
}

// notIn are the names of options that a section of the box has not at all.
func (f *fitter) notIn(now, was uci.Section) []string {
	var out []string
	for _, o := range was.Options {
		if len(now.Values(o.Name)) == 0 {
			out = append(out, o.Name)
		}
	}
	return out
}

func dhcpOf(d *uci.Document, iface string) uci.Section {
	for _, s := range d.OfType("dhcp") {
		if n, _ := s.Get("interface"); n == iface {
			return s
		}
	}
	return uci.Section{}
}

// dropbear: who may log in how. The port stays: nobody would find the box there.
func (f *fitter) dropbear() {
	d := f.docs["dropbear"]
	if d == nil || len(d.OfType("dropbear")) == 0 {
		return
	}
	for i, s := range f.old("dropbear").OfType("dropbear") {
		if i > 0 {
			f.leave("a second SSH server", "put it back by hand if you miss it")
			continue
		}
		now := d.OfType("dropbear")[0]
		if list := f.options("dropbear", now, s, "Port", "Interface", "enable"); len(list) > 0 {
			f.take("SSH: "+strings.Join(list, ", "), "")
		}
		was, _ := s.Get("Port")
		if is, _ := now.Get("Port"); was != "" && was != is {
			f.leave("SSH port "+was, "this box keeps %s, where you can reach it", orNone(is))
		}
	}
}

// system: name, time zone, time servers. The settings' version is the box's own.
func (f *fitter) system() {
	d := f.docs["system"]
	if d == nil {
		return
	}
	for _, s := range f.foreign("system") {
		switch s.Type {
		case "system":
			if now := d.OfType("system"); len(now) > 0 {
				if list := f.options("system", now[0], s, "compat_version", "ttylogin", "urandom_seed"); len(list) > 0 {
					f.take("system: "+strings.Join(list, ", "), "")
				}
			}
		case "timeserver":
			if now, ok := d.Section(s.Name); ok {
				if list := f.options("system", now, s); len(list) > 0 {
					f.take("time servers", "")
				}
			}
		default:
			f.leave(title("system", s), "it belongs to the other board")
		}
	}
}

// wireless: the household's networks in the air, each on a radio of the same band.
// A radio is described by its place on the board's buses, so its section stays as
// this box has it; only what a person sets comes over.
func (f *fitter) wireless() {
	list := f.foreign("wireless")
	if f.docs["wireless"] == nil {
		if len(list) > 0 {
			f.leave("Wi-Fi", "this box has no radio")
		}
		return
	}
	shipped := f.docs["wireless"].OfType("wifi-iface")
	radios := f.radios(list)
	given := map[string]bool{} // networks of this box that have become the household's
	for _, s := range list {
		switch s.Type {
		case "wifi-device":
		case "wifi-iface":
			f.ssid(s, radios, given)
		default:
			f.leave(title("wireless", s), "this kind of section is not carried over")
		}
	}
	f.hush(shipped, radios, given)
}

// pair is a radio of the old box and the one that stands for it here.
type pair struct {
	old, now uci.Section
	ok       bool
}

// radios finds, by the old box's names, the radio for each: of the same band, the
// second for the second. Country, channel and whether it is on come over.
func (f *fitter) radios(list []uci.Section) map[string]pair {
	out, used := map[string]pair{}, map[string]bool{}
	for _, s := range list {
		if s.Type != "wifi-device" {
			continue
		}
		p := pair{old: s}
		for _, r := range f.docs["wireless"].OfType("wifi-device") {
			if band(s) != "" && band(r) == band(s) && !used[r.Name] {
				used[r.Name] = true
				p.now, p.ok = r, true
				f.radio(p)
				break
			}
		}
		out[s.Name] = p
	}
	return out
}

// band of a radio: option band, or hwmode on older releases.
func band(radio uci.Section) string {
	if v, ok := radio.Get("band"); ok {
		return v
	}
	switch v, _ := radio.Get("hwmode"); v {
	case "11a", "11na", "11ac":
		return "5g"
	case "11b", "11g", "11ng":
		return "2g"
	}
	return ""
}

func bandName(radio uci.Section) string {
	switch b := band(radio); b {
	case "2g":
		return "2.4 GHz"
	case "5g", "6g", "60g":
		return strings.TrimSuffix(b, "g") + " GHz"
	}
	return "an unknown band"
}

func (f *fitter) radio(p pair) {
	var changed []string
	for _, o := range []string{"country", "channel", "disabled"} {
		was, _ := p.old.Get(o)
		if is, _ := p.now.Get(o); was != is && !f.failed(f.docs["wireless"].SetOption(p.now.Name, uci.Opt(o, was))) {
			changed = append(changed, o)
		}
	}
	if len(changed) > 0 {
		f.take("Wi-Fi radio for "+bandName(p.old)+": "+strings.Join(changed, ", "), "")
	}
}

// ssid puts a network on the air: in place of one that the box ships on that radio,
// or beside it.
func (f *fitter) ssid(s uci.Section, radios map[string]pair, given map[string]bool) {
	name, _ := s.Get("ssid")
	dev, _ := s.Get("device")
	p := radios[dev]
	what := "Wi-Fi " + name + " (" + bandName(p.old) + ")"
	if !p.ok {
		f.leave(what, "this box has no radio for it")
		return
	}
	for _, n := range words(s, "network") {
		if !f.hasInterface(n) {
			f.leave(what, "there is no interface %s on this box", n)
			return
		}
	}
	d := f.docs["wireless"]
	s = s.With(uci.Opt("device", p.now.Name))
	if s.Anonymous && f.has("wireless", s) {
		return // put back before
	}
	if to, ok := f.place(s, p.now, given); ok {
		given[to.Name] = true
		s.Name, s.Anonymous = to.Name, false
		if !uci.EqualSections(s, to) && !f.failed(d.Put(s)) {
			f.take(what, "")
		}
		return
	}
	if _, clash := d.Section(s.Name); clash {
		s.Name, s.Anonymous = "", true
	}
	if !s.Anonymous {
		given[s.Name] = true
	}
	f.add("wireless", s)
	f.take(what, "")
}

// place finds the network of this box that one of the household's takes the place
// of: on the same radio, of the same name before any other.
func (f *fitter) place(s, radio uci.Section, given map[string]bool) (to uci.Section, ok bool) {
	for _, now := range f.docs["wireless"].OfType("wifi-iface") {
		if on, _ := now.Get("device"); on != radio.Name || given[now.Name] || now.Anonymous {
			continue
		}
		if !ok || now.Name == s.Name {
			to, ok = now, true
		}
	}
	return to, ok
}

// hush keeps an open network that the box ships off the air: its radio may have been
// turned on above, and it leads into the home LAN.
func (f *fitter) hush(shipped []uci.Section, radios map[string]pair, given map[string]bool) {
	on := map[string]bool{}
	for _, p := range radios {
		on[p.now.Name] = p.ok && !p.old.Bool("disabled", false)
	}
	for _, s := range shipped {
		dev, _ := s.Get("device")
		if enc, ok := s.Get("encryption"); given[s.Name] || !on[dev] || ok && enc != "none" || s.Bool("disabled", false) {
			continue
		}
		if !f.failed(f.docs["wireless"].SetOption(s.Name, uci.Opt("disabled", "1"))) {
			name, _ := s.Get("ssid")
			f.leave("Wi-Fi "+name, "an open network that this box ships; it stays off")
		}
	}
}

// known are the configs that Fit takes apart; boards' are those that a board
// makes for itself.
var (
	known  = []string{"network", "firewall", "dhcp", "dropbear", "system", "wireless"}
	boards = map[string]string{
		"ubootenv": "it belongs to the other board", "fstab": "it belongs to the other board", "rpcd": "this box has its own",
		"luci": "this box has its own", "uhttpd": "this box has its own", "ucitrack": "this box has its own",
	}
)

// others are whole files: settings of packages that this box does not have yet,
// and what the household put on its keep list.
func (f *fitter) others() {
	wanted := keepList(f.b)
	for _, file := range f.b.Files {
		name, isConfig := strings.CutPrefix(file.Name, "/etc/config/")
		switch {
		case isConfig && slices.Contains(known, name), strings.HasPrefix(file.Name, "/etc/dropbear/"), file.Link != "":
		case isConfig && boards[name] != "":
			f.leave("the settings of "+name, "%s", boards[name])
		case isConfig:
			f.out.Files = append(f.out.Files, file)
			f.take("the settings of "+name, "")
		case file.Name == "/etc/crontabs/root" && strings.TrimSpace(file.Text.Reveal()) != "":
			f.out.Files = append(f.out.Files, file)
			f.take("root's timetable (cron)", "")
		case slices.ContainsFunc(wanted, func(w string) bool { return under(file.Name, w) }):
			f.out.Files = append(f.out.Files, file)
			f.take(file.Name, "it is on your keep list")
		}
	}
	if conf, ok := f.b.File("/etc/sysupgrade.conf"); ok && len(wanted) > 0 {
		f.out.Files = append(f.out.Files, conf)
	}
}

func under(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// keepList is what the household itself wrote into /etc/sysupgrade.conf.
func keepList(b Backup) []string {
	conf, _ := b.File("/etc/sysupgrade.conf")
	var out []string
	for l := range strings.Lines(conf.Text.Reveal()) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") || strings.HasPrefix(l, "/etc/heimweg") || strings.HasPrefix(l, "/etc/config") || strings.HasPrefix(l, "/etc/dropbear") {
			continue
		}
		out = append(out, l)
	}
	return out
}

// Changed lists the configs that a fitting changes, in order.
func (f Fitting) Changed() []string { return slices.Sorted(maps.Keys(f.Docs)) }
