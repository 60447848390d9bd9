package owrt

import (
	"fmt"
	"io"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/uci"
)

// fwall is the firewall in the kernel: the ruleset of the last load that nft
// took, the connections, and counters by section.
type fwall struct {
	s    *system
	mu   sync.Mutex
	set  *firewall.Ruleset // nil: none loaded, everything passes
	hits map[string]*hit
	trk  *firewall.Tracker
	gone []string // devices that went down, for the tracker
	doc  *uci.Document

	loading sync.Mutex // one load at a time, from the look at the interfaces on
}

type hit struct {
	packets, bytes int64
	says           string
}

func newFirewall(s *system) *fwall {
	w := &fwall{s: s, hits: map[string]*hit{}, trk: firewall.NewTracker()}
	if st := s.b.stack; st != nil {
		defer st.SetFilter(w)
	}
	return w
}

// live lists the interfaces as `ubus call network.interface dump` would.
func (w *fwall) live() []firewall.Iface {
	var out []firewall.Iface
	for _, i := range w.s.net.list() {
		f := firewall.Iface{Name: i.name, Device: i.l3(), Addrs: i.addrs, Up: i.up}
		f.Gateways = append(f.Gateways, i.gateways...)
		out = append(out, f)
	}
	return out
}

func (w *fwall) compile() (*firewall.Ruleset, []firewall.Warning, *uci.Document) {
	net, fw := w.s.config("network"), w.s.config("firewall")
	rs, warn := firewall.Compile(w.s.line, net, fw, w.live())
	return rs, warn, fw
}

// load makes the ruleset anew from the files. It is one transaction: when nft
// refuses it, the old one stays.
func (w *fwall) load(out io.Writer, start bool) int {
	w.loading.Lock() // as fw4's own lock file: whoever looks later also loads later
	defer w.loading.Unlock()
	rs, warn, doc := w.compile()
	for _, x := range warn {
		if out != nil {
			fmt.Fprintln(out, x.Text)
		}
		w.s.b.logf("user.warn firewall", "%s", x.Text)
	}
	if rs.Refused() {
		if out != nil {
			fmt.Fprintln(out, "The rendered ruleset contains errors, not doing firewall restart.")
		}
		return 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set, w.doc = rs, doc
	w.hits = map[string]*hit{}
	return 0
}

func (w *fwall) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set = nil
}

func (w *fwall) deviceDown(dev string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = append(w.gone, dev)
}

// ruleset hands the world's goroutine what holds now.
func (w *fwall) ruleset() *firewall.Ruleset {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.gone {
		w.trk.DeviceDown(d)
	}
	w.gone = nil
	return w.set
}

func toFirewall(p lab.Packet) firewall.Packet {
	f := firewall.Packet{Src: p.Src, Dst: p.Dst, Proto: p.Proto, SrcPort: p.SrcPort, DstPort: p.DstPort,
		ICMPType: p.ICMPType, ICMPCode: p.ICMPCode, ICMPID: p.ICMPID,
		SYN: p.Flags&lab.SYN != 0, ACK: p.Flags&lab.ACK != 0, FIN: p.Flags&lab.FIN != 0, RST: p.Flags&lab.RST != 0}
	if p.Inner != nil {
		in := toFirewall(*p.Inner)
		f.Inner = &in
	}
	return f
}

// fromFirewall puts rewritten addresses and ports back.
func fromFirewall(p lab.Packet, f firewall.Packet) lab.Packet {
	p.Src, p.Dst, p.SrcPort, p.DstPort, p.ICMPID = f.Src, f.Dst, f.SrcPort, f.DstPort, f.ICMPID
	if p.Inner != nil && f.Inner != nil {
		in := fromFirewall(*p.Inner, *f.Inner)
		p.Inner = &in
	}
	return p
}

func (w *fwall) verdict(p lab.Packet, v firewall.Verdict, hook string) lab.Verdict {
	out := lab.Verdict{Packet: fromFirewall(p, v.Packet), Hook: hook}
	switch v.Action {
	case firewall.Accept:
		out.Action = lab.Accept
	case firewall.Reject:
		out.Action = lab.Reject
	default:
		out.Action = lab.Drop
	}
	var why []string
	for _, h := range v.Hits {
		name := h.Section
		if h.Name != "" && !strings.HasPrefix(h.Name, "@") {
			name += " (" + h.Name + ")"
		}
		why = append(why, strings.TrimSpace(strings.TrimPrefix(name+": "+h.Says, ": ")))
	}
	out.Why = strings.Join(why, "; ")
	w.mu.Lock()
	for _, h := range v.Hits {
		c := w.hits[h.Section]
		if c == nil {
			c = &hit{says: h.Says}
			w.hits[h.Section] = c
		}
		c.packets++
		c.bytes += int64(p.Len)
	}
	w.mu.Unlock()
	return out
}

// Handle judges a packet that comes in.
func (w *fwall) Handle(now time.Time, p lab.Packet, in string, route func(netip.Addr) (string, bool)) lab.Verdict {
	rs := w.ruleset()
	if rs == nil {
		return lab.Verdict{Action: lab.Accept, Packet: p, Why: "no firewall loaded"}
	}
	v := rs.Handle(w.trk, now, toFirewall(p), in, firewall.Route(route))
	hook := "forward"
	if v.Local {
		hook = "input"
	}
	return w.verdict(p, v, hook)
}

// Output judges a packet of the router's own.
func (w *fwall) Output(now time.Time, p lab.Packet, out string) lab.Verdict {
	rs := w.ruleset()
	if rs == nil {
		return lab.Verdict{Action: lab.Accept, Packet: p}
	}
	return w.verdict(p, rs.Output(w.trk, now, toFirewall(p), out), "output")
}

// fw4Program is the fw4 command (22.03 on) and, with its own words, fw3 (21.02).
func (s *system) fw4Program(p *ash.Proc, args []string) int {
	a := args[1:]
	quiet := false
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		quiet = quiet || a[0] == "-q"
		a = a[1:]
	}
	if len(a) == 0 {
		fmt.Fprintf(p.Stderr(), "Usage:\n\n  %s [-v] [-q] start|stop|flush|restart|reload|check|print\n", args[0])
		return 1
	}
	// fw4 -q quiets fw4's own chatter; the [!] warnings stay on stderr.
	_ = quiet
	switch a[0] {
	case "start", "restart", "reload":
		return s.fw.load(p.Stderr(), a[0] != "reload")
	case "stop", "flush":
		s.fw.flush()
		return 0
	case "check":
		if args[0] == "fw3" {
			break
		}
		rs, warn, _ := s.fw.compile()
		for _, x := range warn {
			fmt.Fprintln(p.Stderr(), x.Text)
		}
		if rs.Refused() {
			fmt.Fprintln(p.Stderr(), "The rendered ruleset contains errors, not doing firewall restart.")
			return 1
		}
		if !quiet {
			fmt.Fprintln(p.Stdout(), "Ruleset passes nftables check.")
		}
		return 0
	case "print":
		rs, warn, doc := s.fw.compile()
		for _, x := range warn {
			fmt.Fprintln(p.Stderr(), x.Text)
		}
		printRules(p.Stdout(), doc)
		if rs.Refused() && args[0] == "fw3" {
			return 1
		}
		return 0
	case "network", "device", "zone":
		if len(a) < 2 {
			return 1
		}
		if z, devs, ok := s.fw.zoneOf(a[0], a[1]); ok {
			if a[0] == "zone" {
				fmt.Fprintln(p.Stdout(), strings.Join(devs, "\n"))
			} else {
				fmt.Fprintln(p.Stdout(), z)
			}
			return 0
		}
		return 1
	}
	fmt.Fprintf(p.Stderr(), "%s: unknown command %s\n", args[0], a[0])
	return 1
}

// zoneOf finds the zone of a network or device, or the devices of a zone.
func (w *fwall) zoneOf(kind, name string) (zone string, devs []string, ok bool) {
	doc := w.s.config("firewall")
	if doc == nil {
		return "", nil, false
	}
	for _, z := range doc.OfType("zone") {
		zn, _ := z.Get("name")
		for _, n := range words(z, "network") {
			i, up := w.s.net.find(n)
			if up {
				devs = append(devs, i.l3())
			}
			if kind == "network" && n == name || kind == "device" && up && i.l3() == name {
				return zn, nil, true
			}
		}
		if kind == "zone" && zn == name {
			return zn, devs, true
		}
		devs = nil
	}
	return "", nil, false
}

// printRules is a rough rendering: enough to see which sections there are.
func printRules(w io.Writer, doc *uci.Document) {
	fmt.Fprintln(w, "table inet fw4")
	fmt.Fprintln(w, "flush table inet fw4")
	fmt.Fprintln(w, "\ntable inet fw4 {")
	if doc != nil {
		for _, r := range doc.OfType("rule") {
			fmt.Fprintf(w, "\t\t%s comment \"!fw4: %s\"\n", ruleText(r), ruleName(r))
		}
	}
	fmt.Fprintln(w, "}")
}

func ruleName(r uci.Section) string {
	if n, ok := r.Get("name"); ok {
		return n
	}
	if r.Anonymous {
		return "ubus:" + r.Name
	}
	return "@rule[" + r.Name + "]"
}

func ruleText(r uci.Section) string {
	var parts []string
	if f, ok := r.Get("family"); ok {
		parts = append(parts, "meta nfproto "+f)
	}
	proto := strings.Join(words(r, "proto"), ", ")
	if ports, ok := r.Get("dest_port"); ok {
		if proto == "" {
			proto = "{ tcp, udp } th"
		}
		parts = append(parts, proto+" dport "+ports)
	} else if proto != "" {
		parts = append(parts, "meta l4proto "+proto)
	}
	return strings.Join(parts, " ")
}

// chainRules are the rules of input_ZONE, in the order of the file.
func (w *fwall) chainRules(zone string) []uci.Section {
	w.mu.Lock()
	doc := w.doc
	w.mu.Unlock()
	var out []uci.Section
	if doc == nil {
		return nil
	}
	for _, r := range doc.OfType("rule") {
		src, _ := r.Get("src")
		if src == zone && !r.Has("dest") && r.Bool("enabled", true) {
			out = append(out, r)
		}
	}
	return out
}

func (w *fwall) count(section string) (packets, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.hits[section]; h != nil {
		return h.packets, h.bytes
	}
	return 0, 0
}

// Hits are the firewall's counters by section since the last load, for a test.
func (b *Box) Hits() map[string]int64 {
	b.mu.Lock()
	w := b.sys.fw
	b.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	m := map[string]int64{}
	for k, h := range w.hits {
		m[k] = h.packets
	}
	return m
}

// nftProgram prints the input chains with their counters: `nft [-j] list
// chain inet fw4 input_ZONE`, `nft list ruleset|table`.
func (s *system) nftProgram(p *ash.Proc, args []string) int {
	a := args[1:]
	js := false
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		js = js || strings.Contains(a[0], "j")
		a = a[1:]
	}
	if len(a) < 2 || a[0] != "list" {
		fmt.Fprintln(p.Stderr(), "Error: syntax error, unexpected end of file")
		return 1
	}
	zones := []string{}
	if doc := s.config("firewall"); doc != nil {
		for _, z := range doc.OfType("zone") {
			n, _ := z.Get("name")
			zones = append(zones, n)
		}
	}
	s.fw.mu.Lock()
	loaded := s.fw.set != nil
	s.fw.mu.Unlock()
	if a[1] == "chain" {
		z := ""
		if len(a) == 5 {
			z = strings.TrimPrefix(a[4], "input_")
		}
		sort.Strings(zones)
		i := sort.SearchStrings(zones, z)
		if !loaded || i == len(zones) || zones[i] != z {
			fmt.Fprintf(p.Stderr(), "Error: No such file or directory\nlist chain %s\n", strings.Join(a[2:], " "))
			return 1
		}
		zones = []string{z}
	} else if !loaded {
		return 0
	}
	if js {
		s.nftJSON(p.Stdout(), zones)
		return 0
	}
	fmt.Fprintln(p.Stdout(), "table inet fw4 {")
	for _, z := range zones {
		fmt.Fprintf(p.Stdout(), "\tchain input_%s {\n", z)
		for _, r := range s.fw.chainRules(z) {
			n, b := s.fw.count(r.Name)
			t, _ := r.Get("target")
			fmt.Fprintf(p.Stdout(), "\t\t%s counter packets %d bytes %d %s comment \"!fw4: %s\"\n", ruleText(r), n, b, strings.ToLower(t), ruleName(r))
		}
		fmt.Fprintln(p.Stdout(), "\t}")
	}
	fmt.Fprintln(p.Stdout(), "}")
	return 0
}

func (s *system) nftJSON(w io.Writer, zones []string) {
	list := []any{obj{{"metainfo", obj{{"version", "1.1.1"}, {"release_name", "Commodore Bullmoose #2"}, {"json_schema_version", 1}}}}}
	for _, z := range zones {
		list = append(list, obj{{"chain", obj{{"family", "inet"}, {"table", "fw4"}, {"name", "input_" + z}, {"handle", 1}}}})
		for _, r := range s.fw.chainRules(z) {
			n, b := s.fw.count(r.Name)
			t, _ := r.Get("target")
			list = append(list, obj{{"rule", obj{{"family", "inet"}, {"table", "fw4"}, {"chain", "input_" + z}, {"handle", 2}, {"comment", "!fw4: " + ruleName(r)},
				{"expr", []any{obj{{"counter", obj{{"packets", n}, {"bytes", b}}}}, obj{{strings.ToLower(t), nil}}}}}}})
		}
	}
	writeJSON(w, obj{{"nftables", list}}, -1)
	fmt.Fprintln(w)
}

// iptablesProgram prints zone_ZONE_input with its counters (21.02).
func (s *system) iptablesProgram(p *ash.Proc, args []string) int {
	chain := ""
	for i, a := range args {
		if strings.HasPrefix(a, "-") && strings.Contains(a, "L") && i+1 < len(args) {
			chain = args[i+1]
		}
	}
	z, ok := strings.CutPrefix(chain, "zone_")
	z, ok2 := strings.CutSuffix(z, "_input")
	if _, _, known := s.fw.zoneOf("zone", z); !ok || !ok2 || !known {
		fmt.Fprintln(p.Stderr(), "iptables: No chain/target/match by that name.")
		return 1
	}
	fmt.Fprintf(p.Stdout(), "Chain %s (1 references)\n    pkts      bytes target     prot opt in     out     source               destination\n", chain)
	for _, r := range s.fw.chainRules(z) {
		n, b := s.fw.count(r.Name)
		t, _ := r.Get("target")
		port, _ := r.Get("dest_port")
		proto := strings.Join(words(r, "proto"), ",")
		if port != "" {
			port = proto + " dpt:" + port + " "
		}
		fmt.Fprintf(p.Stdout(), "%8d %10d %-10s %-4s --  *      *       0.0.0.0/0            0.0.0.0/0            %s/* !fw3: %s */\n", n, b, t, proto, port, ruleName(r))
	}
	return 0
}
