package openwrt

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Configs lists what a look reads: what heimweg may write, and system, which
// names the router.
func Configs() []string { return append(router.Touched(), "system") }

// LookFor tells a look what else to find out.
type LookFor struct {
	// Packages whose presence matters.
	Packages []string
	// Firewall: let the firewall check its configuration too, which takes the
	// router about a second.
	Firewall bool
}

// Look reads everything in one round trip and changes nothing.
//
// Errors: those of the shell, *NotOpenWrtError, *GarbledError. A configuration
// file that cannot be parsed is not an error of the look: it stands in
// Snapshot.Broken.
func Look(ctx context.Context, sh Shell, want LookFor) (*router.Snapshot, error) {
	ps, err := run(ctx, sh, lookVars(want), "look", "looked", nil, "look.sh")
	if err != nil {
		return nil, err
	}
	return readSnapshot(ps)
}

// AddConfig reads one more configuration file into a snapshot. One that the router
// does not have is no error.
func AddConfig(ctx context.Context, sh Shell, s *router.Snapshot, name string) error {
	ps, err := run(ctx, sh, env{"NAME": name}, `one_config "$NAME"; say read yes`, "read", nil, "look.sh")
	if err != nil {
		return err
	}
	readConfig(s, ps, name)
	return nil
}

func lookVars(want LookFor) env {
	vars := env{
		"CONFIGS":  strings.Join(Configs(), " "),
		"PACKAGES": strings.Join(want.Packages, " "),
		"CHECKFW":  "",
	}
	if want.Firewall {
		vars["CHECKFW"] = "yes"
	}
	return vars
}

func sortedKeys[M ~map[K]V, K cmp.Ordered, V any](m M) []K { return slices.Sorted(maps.Keys(m)) }

// A JSONError means that a ubus call answered something that is not its reply.
type JSONError struct {
	Call string
	Err  error
}

func (e *JSONError) Error() string {
	return fmt.Sprintf("the router's answer to %q: %v", e.Call, e.Err)
}
func (e *JSONError) Unwrap() error { return e.Err }

func readSnapshot(ps parts) (*router.Snapshot, error) {
	if ps["board"].exit != 0 || ps["release"].exit != 0 {
		return nil, &NotOpenWrtError{clip(ps["system"].text(), 120)}
	}
	s := &router.Snapshot{
		Configs: map[string]*uci.Document{},
		Broken:  map[string]error{},
		Modes:   readModes(ps["modes"].lines()),
		Hashes:  map[string]string{},
		Tunnels: map[string]*router.Tunnel{},
	}
	if err := readBoard(s, ps); err != nil {
		return nil, err
	}
	if now, err := strconv.ParseInt(ps["now"].text(), 10, 64); err == nil {
		s.Time = time.Unix(now, 0)
	}
	for _, c := range Configs() {
		readConfig(s, ps, c)
	}
	readOthers(s, ps)
	for _, name := range ps["installed"].lines() {
		s.Installed = append(s.Installed, router.Package{Name: name})
	}
	if err := readNetwork(s, ps); err != nil {
		return nil, err
	}
	s.Tunnels = readDump(ps["wg"].lines())
	for _, l := range ps["firewall"].lines() {
		if strings.Contains(l, "[!]") {
			s.Firewall = append(s.Firewall, strings.TrimSpace(l))
		}
	}
	readSpace(s, ps)
	s.RootHash = ps["root"].text() == "set"
	if ps["keys"].exit == 0 {
		s.Keys = readKeys(ps["keys"].lines())
	}
	return s, nil
}

// readBoard takes `ubus call system board`; its fields per release: package
// comment of procd's system.c as read for 21.02 to 25.12.
func readBoard(s *router.Snapshot, ps parts) error {
	var b struct {
		Hostname, Model string
		BoardName       string `json:"board_name"`
		Release         struct{ Distribution, Version, Revision, Target string }
	}
	if err := json.Unmarshal(ps["board"].out, &b); err != nil {
		return &JSONError{"system board", err}
	}
	has := map[string]bool{}
	for _, p := range ps["programs"].lines() {
		has[p] = true
	}
	line, _ := router.ParseLine(b.Release.Version)
	s.Board = router.Board{
		Model: b.Model, Name: b.BoardName, Hostname: b.Hostname,
		Release: router.Release{
			Distribution: b.Release.Distribution, Version: b.Release.Version,
			Revision: b.Release.Revision, Target: b.Release.Target, Line: line,
		},
		// 25.12 has only apk and the older ones only opkg: decide by what is there.
		Apk: has["apk"],
		Fw4: has["fw4"],
	}
	var info struct{ Uptime int64 }
	if json.Unmarshal(ps["info"].out, &info) == nil {
		s.Uptime = time.Duration(info.Uptime) * time.Second
	}
	return nil
}

func readConfig(s *router.Snapshot, ps parts, name string) {
	f, ok := ps["file."+name]
	if !ok || f.exit != 0 {
		return // not there: an OpenWrt without, say, a DHCP server
	}
	s.Hashes[name] = ps["sum."+name].text()
	d, err := uci.Parse(name, f.out)
	if err == nil {
		s.Configs[name] = d
		if name == "network" {
			s.Board.Switch = len(d.OfType("switch")) > 0
		}
	}
	// The router's own reader has the last word: netifd goes on with what it can
	// parse, but `uci` refuses the whole file.
	if r := ps["read."+name]; r.exit != 0 && err == nil {
		err = fmt.Errorf("the router's own reader: %s", clip(r.text(), 200))
	}
	if err != nil {
		s.Broken[name] = err
	}
}

// readModes reads `ls -l`: there is no stat on the router.
func readModes(lines []string) map[string]string {
	out := map[string]string{}
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) < 9 || len(f[0]) < 10 {
			continue
		}
		mode := 0
		for i, c := range f[0][1:10] {
			if c != '-' {
				mode |= 1 << (8 - i)
			}
		}
		out[f[8]] = fmt.Sprintf("%04o", mode)
	}
	return out
}

// readOthers reads who else is at work: staged changes, LuCI, another run.
func readOthers(s *router.Snapshot, ps parts) {
	s.Staged = ps["staged"].lines()
	s.Overrides = ps["overrides"].lines()
	s.LuciApply = ps["luci"].text() != ""
	if l := ps["lock"]; l.exit == 0 {
		id, since, _ := strings.Cut(l.text(), " ")
		if t, err := strconv.ParseInt(since, 10, 64); err == nil && s.Time.Sub(time.Unix(t, 0)) < lockAge {
			s.Locked = id
		}
	}
	for _, name := range []string{"pending", "restoring"} {
		if p := ps[name]; p.exit == 0 {
			s.Pending = readPending(p.text())
			s.Pending.Armed = ps["timer"].exit == 0
		}
	}
	if w := ps["written"]; w.exit == 0 {
		// A record that cannot be read is no record: drift is then not told from
		// change, and nothing else depends on it.
		if json.Unmarshal(w.out, &s.Written) != nil {
			s.Written = router.Written{}
		}
	}
}

func readPending(text string) *router.Pending {
	p := &router.Pending{}
	f := strings.Fields(text)
	if len(f) > 0 {
		p.ID = f[0]
	}
	if len(f) > 2 {
		since, _ := strconv.ParseInt(f[1], 10, 64)
		secs, _ := strconv.ParseInt(f[2], 10, 64)
		p.Since, p.Deadline = time.Unix(since, 0), time.Duration(secs)*time.Second
	}
	return p
}

type ubusRoute struct {
	Target  string
	Mask    int
	Nexthop string
}

type ubusInterface struct {
	Interface string
	Up        bool
	Proto     string
	Device    string `json:"device"`
	L3Device  string `json:"l3_device"`
	IPv4      []struct {
		Address string
		Mask    int
	} `json:"ipv4-address"`
	IPv6 []struct {
		Address string
		Mask    int
	} `json:"ipv6-address"`
	Route  []ubusRoute
	Errors []struct{ Subsystem, Code string }
}

func readNetwork(s *router.Snapshot, ps parts) error {
	var handlers map[string]json.RawMessage
	if err := json.Unmarshal(ps["handlers"].out, &handlers); err != nil {
		return &JSONError{"network get_proto_handlers", err}
	}
	s.Handlers = sortedKeys(handlers)
	var dump struct{ Interface []ubusInterface }
	if err := json.Unmarshal(ps["interfaces"].out, &dump); err != nil {
		return &JSONError{"network.interface dump", err}
	}
	for _, i := range dump.Interface {
		s.Interfaces = append(s.Interfaces, readInterface(i))
	}
	s.Neighbours = readNeighbours(ps["neighbours"].lines(), ps["leases"])
	s.Silent = readSilent(ps["neighbours"].lines())
	s.Routes = append(readRoutes(ps["routes4"].lines(), 4), readRoutes(ps["routes6"].lines(), 6)...)
	return nil
}

func readInterface(u ubusInterface) router.Interface {
	i := router.Interface{Name: u.Interface, Proto: u.Proto, Up: u.Up, Device: cmp.Or(u.L3Device, u.Device)}
	for _, a := range append(u.IPv4, u.IPv6...) {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			i.Addresses = append(i.Addresses, netip.PrefixFrom(addr, a.Mask))
		}
	}
	for _, r := range u.Route {
		if addr, err := netip.ParseAddr(r.Nexthop); err == nil && r.Mask == 0 && !addr.IsUnspecified() {
			i.Gateways = append(i.Gateways, addr)
		}
	}
	for _, e := range u.Errors {
		i.Errors = append(i.Errors, strings.TrimSpace(e.Subsystem+" "+e.Code))
	}
	return i
}

// readNeighbours reads `ip neigh show` ("192.168.1.10 dev br-lan lladdr … REACHABLE")
// and takes names from dnsmasq's leases ("EXPIRY MAC ADDRESS NAME CLIENTID").
func readNeighbours(lines []string, leases part) []router.Neighbour {
	names := map[string]string{}
	var out []router.Neighbour
	if leases.exit == 0 {
		for _, l := range leases.lines() {
			if f := strings.Fields(l); len(f) >= 4 && f[3] != "*" {
				names[f[2]] = f[3]
			}
		}
	}
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) < 3 || f[1] != "dev" || strings.HasSuffix(l, "FAILED") || strings.HasSuffix(l, "INCOMPLETE") {
			continue
		}
		addr, err := netip.ParseAddr(f[0])
		if err != nil || addr.IsLinkLocalUnicast() {
			continue
		}
		out = append(out, router.Neighbour{Addr: addr, Device: f[2], Name: names[f[0]]})
		delete(names, f[0])
	}
	for _, a := range sortedKeys(names) {
		if addr, err := netip.ParseAddr(a); err == nil {
			out = append(out, router.Neighbour{Addr: addr, Name: names[a]})
		}
	}
	return out
}

// readSilent takes from `ip neigh show` the addresses that were asked for in
// vain: "192.168.1.77 dev br-lan FAILED".
func readSilent(lines []string) []netip.Addr {
	var out []netip.Addr
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) < 3 || f[len(f)-1] != "FAILED" {
			continue
		}
		if addr, err := netip.ParseAddr(f[0]); err == nil {
			out = append(out, addr)
		}
	}
	return out
}

// readRoutes reads `ip -4 route show` and `ip -6 route show`, as busybox and
// iproute2 print them: "default via 192.168.2.254 dev wan proto static src …",
// "10.86.20.0/24 dev wg0 scope link src …", "unreachable fd00::/48 dev lo metric …".
func readRoutes(lines []string, family int) []router.Route {
	var out []router.Route
	for _, l := range lines {
		if r, ok := readRoute(strings.Fields(l), family); ok {
			out = append(out, r)
		}
	}
	return out
}

func readRoute(f []string, family int) (r router.Route, ok bool) {
	refuses := false
	if len(f) > 1 {
		switch f[0] {
		case "unreachable", "blackhole", "prohibit":
			refuses, f = true, f[1:]
		case "unicast":
			f = f[1:]
		case "broadcast", "multicast", "local", "anycast":
			return r, false
		}
	}
	if len(f) == 0 {
		return r, false
	}
	switch addr, err := netip.ParseAddr(f[0]); {
	case f[0] == "default" && family == 4:
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	case f[0] == "default":
		r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	case err == nil:
		r.Dst = netip.PrefixFrom(addr, addr.BitLen())
	default:
		if r.Dst, err = netip.ParsePrefix(f[0]); err != nil {
			return r, false
		}
	}
	for i := 1; i+1 < len(f); i++ {
		switch f[i] {
		case "via":
			r.Via, _ = netip.ParseAddr(f[i+1])
		case "dev":
			r.Device = f[i+1]
		case "metric":
			r.Metric, _ = strconv.Atoi(f[i+1])
		default:
			continue
		}
		i++
	}
	if refuses {
		r.Device = ""
	}
	return r, refuses || r.Device != ""
}

// readDump reads `wg show all dump`, tab separated: five fields for a device
// (interface, private key, public key, port, fwmark), nine for a peer (interface,
// public key, preshared key, endpoint, allowed ips, latest handshake in Unix
// seconds, bytes received, bytes sent, keepalive); wireguard-tools, src/show.c.
// Secrets become digests at once.
func readDump(lines []string) map[string]*router.Tunnel {
	out := map[string]*router.Tunnel{}
	for _, l := range lines {
		f := strings.Split(l, "\t")
		switch len(f) {
		case 5:
			t := &router.Tunnel{Interface: f[0]}
			t.PublicKey, _ = key.ParsePublic(f[2])
			if f[1] != "(none)" {
				t.Private = router.Digest(f[1])
			}
			port, _ := strconv.ParseUint(f[3], 10, 16)
			t.ListenPort = uint16(port)
			out[f[0]] = t
		case 9:
			if t := out[f[0]]; t != nil {
				if p, ok := readPeer(f[1:]); ok {
					t.Peers = append(t.Peers, p)
				}
			}
		}
	}
	return out
}

func readPeer(f []string) (p router.Peer, ok bool) {
	var err error
	if p.PublicKey, err = key.ParsePublic(f[0]); err != nil {
		return p, false
	}
	if f[1] != "(none)" {
		p.Preshared = router.Digest(f[1])
	}
	p.Endpoint, _ = netip.ParseAddrPort(f[2])
	if f[3] != "(none)" {
		for a := range strings.SplitSeq(f[3], ",") {
			if n, err := netip.ParsePrefix(a); err == nil {
				p.AllowedIPs = append(p.AllowedIPs, n)
			}
		}
	}
	if at, _ := strconv.ParseInt(f[4], 10, 64); at > 0 {
		p.Handshake = time.Unix(at, 0)
	}
	p.Received, _ = strconv.ParseInt(f[5], 10, 64)
	p.Sent, _ = strconv.ParseInt(f[6], 10, 64)
	p.Keepalive, _ = strconv.Atoi(f[7]) // "off" is 0
	return p, true
}

// readSpace reads the free room on flash, and whether flash is in use at all: in
// the first minutes after flashing, while jffs2 is being formatted, the overlay
// lies in RAM and what is written is lost by a power cut (fstools, overlay.c).
func readSpace(s *router.Snapshot, ps parts) {
	// The last line is the file system that holds /overlay: itself, or the root of
	// an image without one (ext4). busybox puts a long device name on a line of its
	// own, so the figures are counted from the right.
	if l := ps["space"].lines(); len(l) > 0 {
		if f := strings.Fields(l[len(l)-1]); len(f) >= 5 {
			s.Space.OverlayKB, _ = strconv.ParseInt(f[len(f)-3], 10, 64)
		}
	}
	overlay, flash := false, false
	for _, l := range ps["mounts"].lines() {
		f := strings.Fields(l)
		if len(f) < 4 {
			continue
		}
		if f[1] == "/" && strings.HasPrefix(f[2], "overlay") {
			overlay = true
			flash = strings.Contains(f[3], "upperdir=/overlay/")
		}
	}
	s.Space.Temporary = overlay && !flash
}

func readKeys(lines []string) []string {
	var out []string
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return out
}
