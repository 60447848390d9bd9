package owrt

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// netifd keeps the interfaces. What it knows of a section is what it read at
// its last reload; what a protocol handler did is what the files said when the
// interface was set up. The two differ for peers and addresses of WireGuard,
// which is why a reload does not bring them (facts: OpenWrt 5.3; observed 3).
type netifd struct {
	s  *system
	mu sync.Mutex

	running  bool
	handlers map[string]bool
	ifaces   map[string]*netif
	devices  map[string][]string // bridge → ports
	routes   []uci.Section
	watching bool
	blip     bool // the switch is being reprogrammed

	telling sync.Mutex // one configure at a time, from the look at the interfaces on
}

// netif is one interface of netifd.
type netif struct {
	name     string
	sec      uci.Section // as read at the last reload
	proto    string
	device   string
	auto     bool
	up       bool
	pending  bool
	noProto  bool // the handler is not known: shown as proto none
	addrs    []netip.Prefix
	gateways []netip.Addr
	dns      []netip.Addr
	domain   string
	routes   []lab.Route
	since    time.Time
	errs     []ifError
	wg       *wgLink
	setup    int // grows with every set-up and tear-down, so that late ones are dropped
}

type ifError struct{ subsystem, code string }

func newNetifd(s *system) *netifd {
	return &netifd{s: s, ifaces: map[string]*netif{}, devices: map[string][]string{}}
}

// start is the start of the daemon: it looks which handlers there are, once.
func (n *netifd) start() {
	n.mu.Lock()
	if n.running {
		n.mu.Unlock()
		n.reload(false)
		return
	}
	n.running = true
	first := !n.watching
	n.watching = true
	n.mu.Unlock()
	n.findHandlers()
	n.reload(true)
	if b := n.s.b; b.stack != nil && first {
		for _, l := range n.links() {
			l.WatchLeases(b.stack, func() { n.s.soon(time.Second, n.renewLeases) })
		}
	}
}

// links are the cables' other ends, each once.
func (n *netifd) links() []*lab.Link {
	var out []*lab.Link
	for _, l := range n.s.b.opt.Cables {
		if l != nil && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

func (n *netifd) findHandlers() {
	h := map[string]bool{"static": true, "none": true}
	list, _ := n.s.fs.ReadDir("/lib/netifd/proto")
	for _, e := range list {
		name := strings.TrimSuffix(strings.TrimSuffix(e.Base, ".sh"), ".uc")
		if name == "ppp" {
			h["pppoe"], h["pptp"], h["pppoa"] = true, true, true
		}
		h[name] = true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers = h
}

// stop takes every interface down: init.d/network stop.
func (n *netifd) stop() {
	n.mu.Lock()
	names := n.names()
	n.running = false
	n.mu.Unlock()
	for _, name := range names {
		n.tear(name)
	}
	n.mu.Lock()
	n.ifaces = map[string]*netif{}
	n.mu.Unlock()
	n.configure()
}

// halt ends what is outside of the processes.
func (n *netifd) halt() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, i := range n.ifaces {
		if i.wg != nil {
			w := i.wg
			i.wg = nil
			n.s.b.wg.Add(1)
			go func() { defer n.s.b.wg.Done(); w.close() }()
		}
	}
}

func (n *netifd) names() []string {
	var l []string
	for k := range n.ifaces {
		l = append(l, k)
	}
	sort.Strings(l)
	return l
}

// same tells whether netifd sees a change of a section at a reload. For WireGuard only the handler's declared ones count, and a
// `list addresses` does not (observed 3, on 23.05.6, 24.10.8 and 25.12.5; as
// one option string it did on 25.12.5).
func (n *netifd) same(old, new uci.Section) bool {
	generic := []string{"proto", "device", "ifname", "auto", "disabled", "metric", "ip4table", "ip6table", "defaultroute", "peerdns", "dns", "force_link", "delegate"}
	var opts []string
	switch p, _ := new.Get("proto"); p {
	case "wireguard":
		opts = append(generic, "private_key", "listen_port", "mtu", "fwmark")
		if n.s.line.AtLeast(router.Line2512) && !isList(old, "addresses") && !isList(new, "addresses") {
			opts = append(opts, "addresses")
		}
	default:
		return uci.EqualSections(old, new)
	}
	for _, o := range opts {
		if !slices.Equal(old.Values(o), new.Values(o)) {
			return false
		}
	}
	return true
}

func isList(s uci.Section, name string) bool {
	for _, o := range s.Options {
		if o.Name == name {
			return o.List
		}
	}
	return false
}

// reload reads the configuration again and sets up what netifd finds changed.
// With all, every interface is set up again (a restart).
func (n *netifd) reload(all bool) {
	doc := n.s.config("network")
	n.mu.Lock()
	if !n.running {
		n.mu.Unlock()
		return
	}
	n.devices = map[string][]string{}
	n.routes = nil
	want := map[string]uci.Section{}
	if doc != nil {
		for _, d := range doc.OfType("device") {
			name, _ := d.Get("name")
			if t, _ := d.Get("type"); t == "bridge" {
				n.devices[name] = d.Values("ports")
			}
		}
		for _, i := range doc.OfType("interface") {
			if i.Anonymous || i.Bool("disabled", false) {
				continue
			}
			want[i.Name] = i
		}
		n.routes = append(doc.OfType("route"), doc.OfType("route6")...)
	}
	var tear, setup []string
	for name, i := range n.ifaces {
		sec, ok := want[name]
		if !ok || all || !n.same(i.sec, sec) {
			tear = append(tear, name)
		}
	}
	for name := range want {
		if i, ok := n.ifaces[name]; !ok || all || !n.same(i.sec, want[name]) {
			setup = append(setup, name)
		}
	}
	sort.Strings(setup)
	// A static interface whose addresses stay is not touched by a restart:
	// no packet was lost in 60 (observed 3).
	n.mu.Unlock()
	for _, name := range tear {
		if _, again := want[name]; again && all && n.quietly(name, want[name]) {
			continue
		}
		n.tear(name)
		n.mu.Lock()
		delete(n.ifaces, name)
		n.mu.Unlock()
	}
	for _, name := range setup {
		sec := want[name]
		n.mu.Lock()
		i := n.ifaces[name]
		if i == nil {
			i = &netif{name: name}
			n.ifaces[name] = i
		}
		i.sec = sec
		i.auto = sec.Bool("auto", true)
		i.proto, _ = sec.Get("proto")
		if i.proto == "" {
			i.proto = "none"
		}
		i.device, _ = sec.Get("device")
		if i.device == "" {
			i.device, _ = sec.Get("ifname")
		}
		auto := i.auto
		n.mu.Unlock()
		if auto {
			n.setUp(name)
		}
	}
	n.configure()
}

// quietly reports whether an interface stays as it is over a restart.
func (n *netifd) quietly(name string, sec uci.Section) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.ifaces[name]
	return i != nil && i.up && i.wg == nil && n.same(i.sec, sec)
}

// restart is `ubus call network restart`: the daemon starts anew and finds the
// handlers that were installed meanwhile.
func (n *netifd) restart() {
	n.findHandlers()
	n.reload(true)
}

// reprogramSwitch is what init.d/network reload does on a swconfig box: links
// blip (facts 1.18).
func (n *netifd) reprogramSwitch() {
	if !n.s.b.swconfig() {
		return
	}
	n.mu.Lock()
	n.blip = true
	n.mu.Unlock()
	n.configure()
	n.s.soon(2*time.Second, func() {
		n.mu.Lock()
		n.blip = false
		n.mu.Unlock()
		n.configure()
	})
}

// setUp brings an interface up by its protocol.
func (n *netifd) setUp(name string) {
	n.mu.Lock()
	i := n.ifaces[name]
	if i == nil {
		n.mu.Unlock()
		return
	}
	i.setup++
	i.up, i.pending, i.noProto = false, false, false
	i.errs, i.addrs, i.gateways, i.dns, i.routes = nil, nil, nil, nil, nil
	if !n.handlers[i.proto] {
		// The interface shows proto none and NO_DEVICE (observed 3).
		i.noProto = true
		i.errs = []ifError{{"interface", "NO_DEVICE"}}
		n.mu.Unlock()
		return
	}
	proto, sec := i.proto, i.sec
	n.mu.Unlock()
	switch proto {
	case "static":
		n.setUpStatic(name, sec)
	case "dhcp", "dhcpv6":
		n.setUpDHCP(name)
	case "wireguard":
		n.setUpWireGuard(name)
	case "none":
		n.mark(name)
	default: // pppoe: nobody answers in the lab
		n.mu.Lock()
		if i := n.ifaces[name]; i != nil {
			i.pending = true
		}
		n.mu.Unlock()
	}
}

// mark makes an interface up, configures and tells hotplug.
func (n *netifd) mark(name string) {
	n.mu.Lock()
	i := n.ifaces[name]
	if i == nil {
		n.mu.Unlock()
		return
	}
	i.up, i.pending = true, false
	i.since = time.Now()
	dev := i.l3()
	n.mu.Unlock()
	n.configure()
	n.s.b.logf("daemon.notice netifd", "Interface '%s' is now up", name)
	n.s.hotplug("ifup", name, dev)
	n.resolv()
}

func (i *netif) l3() string {
	if i.proto == "wireguard" {
		return i.name
	}
	return i.device
}

// prefix reads "a", "a/n" with a default mask.
func prefix(s, mask string) (netip.Prefix, bool) {
	s = strings.TrimSpace(s)
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		// "192.168.1.1/255.255.255.0" is accepted too
		if x, m, ok := strings.Cut(s, "/"); ok && strings.Contains(m, ".") {
			return prefix(x, m)
		}
		return netip.Prefix{}, false
	}
	bits := a.BitLen() // no mask: 32, the trap of 25.12 (facts 1.11)
	if a.Is4() && mask != "" {
		if m, err := netip.ParseAddr(mask); err == nil && m.Is4() {
			bits = 0
			for _, b := range m.AsSlice() {
				for ; b != 0; b <<= 1 {
					bits++
				}
			}
		} else if v, err := strconv.Atoi(mask); err == nil && v >= 0 && v <= 32 {
			bits = v
		}
	}
	return netip.PrefixFrom(a, bits), true
}

func words(s uci.Section, opt string) []string {
	var out []string
	for _, v := range s.Values(opt) {
		out = append(out, strings.Fields(v)...)
	}
	return out
}

func (n *netifd) setUpStatic(name string, sec uci.Section) {
	mask, _ := sec.Get("netmask")
	var addrs []netip.Prefix
	var gws, dns []netip.Addr
	for _, opt := range []string{"ipaddr", "ip6addr"} {
		for _, w := range words(sec, opt) {
			if p, ok := prefix(w, mask); ok {
				addrs = append(addrs, p)
			}
		}
	}
	if bits, ok := sec.Get("ip6assign"); ok {
		if p, ok := n.assign(name, bits); ok {
			addrs = append(addrs, p)
		}
	}
	for _, opt := range []string{"gateway", "ip6gw"} {
		for _, w := range words(sec, opt) {
			if a, err := netip.ParseAddr(w); err == nil {
				gws = append(gws, a)
			}
		}
	}
	for _, w := range words(sec, "dns") {
		if a, err := netip.ParseAddr(w); err == nil {
			dns = append(dns, a)
		}
	}
	n.mu.Lock()
	if i := n.ifaces[name]; i != nil {
		i.addrs, i.gateways, i.dns = addrs, gws, dns
	}
	n.mu.Unlock()
	n.mark(name)
}

// assign gives an interface its part of the ULA prefix. The parts are dealt in
// the order of names here; the real order may differ.
func (n *netifd) assign(name, bits string) (netip.Prefix, bool) {
	doc := n.s.config("network")
	if doc == nil {
		return netip.Prefix{}, false
	}
	g, _ := doc.Section("globals")
	v, _ := g.Get("ula_prefix")
	ula, err := netip.ParsePrefix(v)
	size, err2 := strconv.Atoi(bits)
	if err != nil || err2 != nil || size < ula.Bits() || size > 64 {
		return netip.Prefix{}, false
	}
	k := 0
	for _, i := range doc.OfType("interface") {
		if i.Name == name {
			break
		}
		if i.Has("ip6assign") {
			k++
		}
	}
	a := ula.Masked().Addr().As16()
	// Parts of 2^(64-size) subnets each.
	sub := uint16(k << (64 - size))
	a[6], a[7] = byte(sub>>8), byte(sub)
	a[15] = 1
	return netip.PrefixFrom(netip.AddrFrom16(a), size), true
}

// link is what a device hangs on.
func (n *netifd) link(dev string) *lab.Link {
	ports := []string{dev}
	if p, ok := n.devices[dev]; ok {
		ports = p
	}
	c := n.s.b.opt.Cables
	for _, p := range ports {
		base, _, _ := strings.Cut(p, ".")
		base, _, _ = strings.Cut(base, ":")
		if l := c[base]; l != nil {
			return l
		}
		if !n.s.b.swconfig() {
			continue // with DSA these are the processor's side only
		}
		switch base {
		case "eth0": // the switch's side of the CPU on a swconfig box
			for _, q := range []string{"lan1", "lan2", "lan3", "lan4"} {
				if l := c[q]; l != nil {
					return l
				}
			}
		case "eth1":
			if l := c["wan"]; l != nil {
				return l
			}
		}
	}
	return nil
}

func (n *netifd) setUpDHCP(name string) {
	b := n.s.b
	n.mu.Lock()
	i := n.ifaces[name]
	if i == nil {
		n.mu.Unlock()
		return
	}
	i.pending = true
	id := i.setup
	l := n.link(i.device)
	dev := i.device
	n.mu.Unlock()
	if l == nil || b.stack == nil {
		return
	}
	n.configure() // the device must be up to ask
	n.s.soon(20*time.Millisecond, func() { n.lease(name, dev, l, id) })
}

func (n *netifd) lease(name, dev string, l *lab.Link, id int) {
	got, ok := l.AskLease(n.s.b.stack)
	n.mu.Lock()
	i := n.ifaces[name]
	if i == nil || i.setup != id {
		n.mu.Unlock()
		return
	}
	if i.proto == "dhcpv6" { // the name servers are asked over IPv4
		got = lab.Lease{Addr: got.Addr6, Gateway: got.Gateway6}
	}
	ok = ok && got.Addr.IsValid()
	if !ok {
		n.mu.Unlock()
		return // somebody will plug a cable in; then we are told
	}
	if i.up && len(i.addrs) == 1 && i.addrs[0] == got.Addr {
		n.mu.Unlock()
		return
	}
	i.addrs = []netip.Prefix{got.Addr}
	i.gateways = nil
	if got.Gateway.IsValid() {
		i.gateways = []netip.Addr{got.Gateway}
	}
	i.dns, i.domain = got.DNS, got.Domain
	n.mu.Unlock()
	n.mark(name)
}

// renewLeases asks again on every DHCP interface.
func (n *netifd) renewLeases() {
	n.mu.Lock()
	type ask struct {
		name, dev string
		l         *lab.Link
		id        int
	}
	var list []ask
	for _, name := range n.names() {
		i := n.ifaces[name]
		if (i.proto == "dhcp" || i.proto == "dhcpv6") && (i.up || i.pending) {
			if l := n.link(i.device); l != nil {
				list = append(list, ask{name, i.device, l, i.setup})
			}
		}
	}
	n.mu.Unlock()
	for _, a := range list {
		n.lease(a.name, a.dev, a.l, a.id)
	}
}

// tear takes an interface down.
func (n *netifd) tear(name string) {
	n.mu.Lock()
	i := n.ifaces[name]
	if i == nil {
		n.mu.Unlock()
		return
	}
	was := i.up
	i.setup++
	i.up, i.pending = false, false
	i.addrs, i.gateways, i.dns, i.routes = nil, nil, nil, nil
	w := i.wg
	i.wg = nil
	dev := i.l3()
	n.mu.Unlock()
	if w != nil {
		w.close()
	}
	n.configure()
	if was {
		n.s.fw.deviceDown(dev)
		n.s.b.logf("daemon.notice netifd", "Interface '%s' is now down", name)
		n.s.hotplug("ifdown", name, dev)
	}
}

// configure gives the stack what the interfaces amount to.
func (n *netifd) configure() {
	st := n.s.b.stack
	if st == nil {
		return
	}
	n.telling.Lock() // whoever looks later also tells later
	defer n.telling.Unlock()
	n.mu.Lock()
	type dev struct {
		i  lab.Iface
		on bool
	}
	devs := map[string]*dev{}
	var order []string
	var routes []lab.Route
	for _, name := range n.names() {
		i := n.ifaces[name]
		d := i.l3()
		if d == "" || d == "lo" {
			continue
		}
		if devs[d] == nil {
			devs[d] = &dev{i: lab.Iface{Dev: d, Link: n.link(d)}}
			order = append(order, d)
		}
		x := devs[d]
		x.on = x.on || i.up || i.pending
		if i.wg != nil {
			x.i.Send, x.i.MTU = i.wg.send, i.wg.mtu
		}
		if !i.up {
			continue
		}
		x.i.Addrs = append(x.i.Addrs, i.addrs...)
		for _, g := range i.gateways {
			routes = append(routes, lab.Route{Dst: everything(g), Via: g, Dev: d})
		}
		routes = append(routes, i.routes...)
	}
	routes = append(routes, n.ownRoutes()...)
	var ifaces []lab.Iface
	for _, d := range order {
		x := devs[d]
		x.i.Down = !x.on || n.blip && x.i.Link != nil
		ifaces = append(ifaces, x.i)
	}
	n.mu.Unlock()
	if n.s.k.Context().Err() == nil {
		st.Configure(ifaces, routes)
	}
	n.s.dns.update(n.s.isRunning("dnsmasq"))
}

func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// ownRoutes are the `config route` sections whose interface is up.
func (n *netifd) ownRoutes() []lab.Route {
	var out []lab.Route
	for _, r := range n.routes {
		on, _ := r.Get("interface")
		i := n.ifaces[on]
		if i == nil || !i.up || r.Bool("disabled", false) {
			continue
		}
		target, _ := r.Get("target")
		mask, _ := r.Get("netmask")
		p, ok := prefix(target, mask)
		if !ok {
			continue
		}
		lr := lab.Route{Dst: p.Masked(), Dev: i.l3()}
		if g, ok := r.Get("gateway"); ok {
			lr.Via, _ = netip.ParseAddr(g)
		}
		out = append(out, lr)
	}
	return out
}

// resolv writes the name servers where dnsmasq reads them.
func (n *netifd) resolv() {
	n.mu.Lock()
	var b strings.Builder
	for _, name := range n.names() {
		i := n.ifaces[name]
		if !i.up || len(i.dns) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# Interface %s\n", name)
		for _, a := range i.dns {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
		if i.domain != "" {
			fmt.Fprintf(&b, "search %s\n", i.domain)
		}
	}
	n.mu.Unlock()
	n.s.fs.WriteFile("/tmp/resolv.conf.d/resolv.conf.auto", []byte(b.String()), 0o644)
}

// hotplug runs what stands in /etc/hotplug.d/iface; the firewall's script loads
// the ruleset anew when an interface of a zone came up (facts 3.4.6).
func (s *system) hotplug(action, name, dev string) {
	s.soon(0, func() {
		if action == "ifup" && s.isRunning("firewall") {
			s.fw.load(nil, false)
		}
		list, _ := s.fs.ReadDir("/etc/hotplug.d/iface")
		for _, e := range list {
			if e.Base == "20-firewall" {
				continue
			}
			p := s.k.Start(nil, ash.Spawn{Args: []string{"/bin/sh", "/etc/hotplug.d/iface/" + e.Base},
				Env: map[string]string{"PATH": ash.DefaultPath, "ACTION": action, "INTERFACE": name, "DEVICE": dev}})
			<-p.Done()
		}
	})
}

// ifup is `ubus call network.interface up` and what ifup does after its reload.
func (n *netifd) ifup(name string) bool {
	n.mu.Lock()
	i := n.ifaces[name]
	n.mu.Unlock()
	if i == nil {
		return false
	}
	n.setUp(name)
	n.configure()
	return true
}

// find gives a copy of an interface's state.
func (n *netifd) find(name string) (netif, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.ifaces[name]
	if i == nil {
		return netif{}, false
	}
	return *i, true
}

// list gives copies of all interfaces in the order of their names.
func (n *netifd) list() []netif {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []netif
	for _, name := range n.names() {
		out = append(out, *n.ifaces[name])
	}
	return out
}
