package openwrt

import (
	"context"
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// An Examination says what to look at beyond a look.
type Examination struct {
	Interface string // the tunnel's
	Zone      string // where the tunnel's packets come in; "": nothing is counted
	Rule      string // name of the rule that lets them in
	Gateway   netip.Addr
	Name      string       // to be looked up by the router's own name service
	Targets   []netip.Addr // in the home LAN, to be pinged until one answers
	From      netip.Addr   // the router's address in the tunnel
	// Times is how often the tunnel is sampled, a second apart; 0 means once.
	Times int
	// Patience is how long to wait for the next packet of somebody who knocked
	// earlier; whole seconds, 0: not at all.
	Patience time.Duration
}

// Examined is what was seen. What could not be looked at is nil.
type Examined struct {
	Module   *bool // the kernel has WireGuard
	Gateway  *bool // it answered
	Resolves *bool // the router's name service answered, be it that there is no such name
	Widths   map[string]int
	Jobs     []string
	Log      []string
	Settings map[string]*uci.Document // rpcd, uhttpd, ddns; those that it has
	// Complaints are the firewall's own.
	Complaints []string
	// Target is who was pinged last; invalid when there was nobody to ping.
	Target  netip.Addr
	Knocked Knocked
	Samples []Sample
}

// A Sample is what the tunnel counted at one moment.
type Sample struct {
	At time.Time // by the router's clock
	// Arrived are packets that the firewall's rule let in; nil: not known.
	Arrived *int64
	Peers   map[key.Public]Counted
}

// Counted is a device at one moment.
type Counted struct {
	Endpoint  netip.AddrPort
	Received  int64
	Sent      int64
	Handshake time.Time // zero: never since the tunnel was made
}

func (e Examination) vars() env {
	text := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	var targets []string
	for _, t := range e.Targets {
		if t.Is4() { // busybox pings IPv6 with another program
			targets = append(targets, t.String())
		}
	}
	return env{"IFACE": e.Interface, "ZONE": e.Zone, "GATEWAY": text(e.Gateway), "NAME": e.Name, "TARGETS": strings.Join(targets, " "),
		"FROM": text(e.From), "TIMES": strconv.Itoa(max(e.Times, 1)), "RULE": e.Rule, "PATIENCE": seconds(e.Patience)}
}

// Examine looks in one round trip; it changes nothing. Each ping and question may
// take its second or two.
//
// Errors: those of the shell, *GarbledError.
func Examine(ctx context.Context, sh Shell, e Examination) (Examined, error) {
	ps, err := run(ctx, sh, e.vars(), "examine", "examined", nil, "examine.sh")
	if err != nil {
		return Examined{}, err
	}
	return readExamined(ps, e), nil
}

// Glance takes one sample, in one round trip.
func Glance(ctx context.Context, sh Shell, e Examination) (Sample, error) {
	ps, err := run(ctx, sh, e.vars(), "glance", "glanced", nil, "examine.sh")
	if err != nil {
		return Sample{}, err
	}
	return readSample(ps, e.Rule, 0), nil
}

func readExamined(ps parts, e Examination) Examined {
	out := Examined{Settings: map[string]*uci.Document{}}
	yes := func(b bool) *bool { return &b }
	if m, ok := ps["modules"]; ok && m.exit == 0 {
		out.Module = yes(slices.ContainsFunc(m.lines(), func(l string) bool { return strings.HasPrefix(l, "wireguard ") }))
	}
	if g, ok := ps["gateway"]; ok && g.exit <= 1 {
		out.Gateway = yes(g.exit == 0)
	}
	if n, ok := ps["names"]; ok && n.exit <= 1 {
		out.Resolves = yes(n.exit == 0 || strings.Contains(n.text(), "NXDOMAIN"))
	}
	out.Widths = readWidths(ps["devices"])
	out.Jobs, out.Log, out.Complaints = shown(ps, "jobs"), shown(ps, "log"), shown(ps, "complaints")
	for _, c := range []string{"rpcd", "uhttpd", "ddns"} {
		if f, ok := ps["file."+c]; ok && f.exit == 0 {
			if d, err := uci.Parse(c, f.out); err == nil {
				out.Settings[c] = d
			}
		}
	}
	out.Target, out.Knocked = readKnocks(ps, e)
	for i := range max(e.Times, 1) + 1 {
		if _, ok := ps["when."+strconv.Itoa(i)]; ok {
			out.Samples = append(out.Samples, readSample(ps, e.Rule, i))
		}
	}
	return out
}

// shown are the lines of a part; nil when it is not there or its command is missing.
func shown(ps parts, name string) []string {
	p, ok := ps[name]
	if !ok || p.exit > 1 { // grep without a hit ends with 1
		return nil
	}
	return append([]string{}, p.lines()...)
}

// readWidths reads `ubus call network.device status`: a device's MTU in bytes.
func readWidths(p part) map[string]int {
	var all map[string]struct{ MTU int }
	if p.exit != 0 || json.Unmarshal(p.out, &all) != nil {
		return nil
	}
	out := map[string]int{}
	for name, d := range all {
		if d.MTU > 0 {
			out[name] = d.MTU
		}
	}
	return out
}

func readKnocks(ps parts, e Examination) (at netip.Addr, k Knocked) {
	n := 0
	for _, t := range e.Targets {
		if !t.Is4() {
			continue
		}
		near, ok := ps["near."+strconv.Itoa(n)]
		if !ok {
			break
		}
		far, asked := ps["far."+strconv.Itoa(n)]
		at, k = t, Knocked{Near: near.exit == 0, Asked: asked, Far: asked && far.exit == 0}
		n++
	}
	for _, x := range readNeighbours(ps["neighbours"].lines(), part{exit: 1}) {
		k.There = k.There || x.Addr == at
	}
	return at, k
}

func readSample(ps parts, rule string, i int) Sample {
	n := "." + strconv.Itoa(i)
	s := Sample{Peers: map[key.Public]Counted{}}
	if now, err := strconv.ParseInt(ps["when"+n].text(), 10, 64); err == nil {
		s.At = time.Unix(now, 0)
	}
	if c, ok := ps["count"+n]; ok && c.exit == 0 {
		s.Arrived = readCount(c.lines(), rule)
	}
	each := func(name string, use func(*Counted, []string)) {
		p := ps[name+n]
		if p.exit != 0 {
			return
		}
		for _, l := range p.lines() {
			f := strings.Fields(l)
			if len(f) < 2 {
				continue
			}
			if k, err := key.ParsePublic(f[0]); err == nil {
				c := s.Peers[k]
				use(&c, f[1:])
				s.Peers[k] = c
			}
		}
	}
	each("at", func(c *Counted, f []string) { c.Endpoint, _ = netip.ParseAddrPort(f[0]) })
	each("took", func(c *Counted, f []string) {
		c.Received, _ = strconv.ParseInt(f[0], 10, 64)
		if len(f) > 1 {
			c.Sent, _ = strconv.ParseInt(f[1], 10, 64)
		}
	})
	each("shook", func(c *Counted, f []string) {
		if at, _ := strconv.ParseInt(f[0], 10, 64); at > 0 {
			c.Handshake = time.Unix(at, 0)
		}
	})
	return s
}

// ruleName finds the name that fw4 and fw3 write beside a rule: comment "!fw4: NAME"
// of nft, /* !fw3: NAME */ of iptables.
var ruleName = regexp.MustCompile(`!fw[34]: ([^"*]*)`)

var nftCount = regexp.MustCompile(`counter packets (\d+) `)

// readCount finds the packets of a rule by its name; nil when there is none. A rule
// can be several lines (one for each protocol or family): they add up.
func readCount(lines []string, rule string) *int64 {
	var sum *int64
	for _, l := range lines {
		m := ruleName.FindStringSubmatch(l)
		if m == nil || strings.TrimSpace(m[1]) != rule {
			continue
		}
		text := strings.Fields(l)[0] // iptables: packets come first
		if c := nftCount.FindStringSubmatch(l); c != nil {
			text = c[1]
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			if sum == nil {
				sum = new(int64)
			}
			*sum += n
		}
	}
	return sum
}

// Between is what came from one sample to the next: packets by the rule's counter,
// and bytes that the tunnel took from the given devices. False: the counters say
// nothing, for one of them began anew or could not be read.
func Between(a, b Sample, devices []key.Public) (packets, bytes int64, known bool) {
	if a.Arrived == nil || b.Arrived == nil || *b.Arrived < *a.Arrived {
		return 0, 0, false
	}
	for _, k := range devices {
		was, is := a.Peers[k].Received, b.Peers[k].Received
		if is < was {
			return 0, 0, false
		}
		bytes += is - was
	}
	return *b.Arrived - *a.Arrived, bytes, true
}

// DoorRule is the name of the rule that lets the tunnel in, by the router's own file.
func DoorRule(s *router.Snapshot, section string) string {
	sec, _ := s.Config("firewall").Section(section)
	if n, ok := sec.Get("name"); ok {
		return n
	}
	return section
}
