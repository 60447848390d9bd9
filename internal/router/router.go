// Package router holds what is known about one home router as plain data: what
// board it is, what its configuration says, what is live, and who else is at
// work on it. It asks nobody; package openwrt fills it.
package router

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/uci"
)

// Line is a release line of OpenWrt such as 24.10, in a comparable form.
type Line struct{ Year, Month int }

// The release lines heimweg knows. Older ones are refused, newer ones are
// treated as the newest known.
var (
	Line2102 = Line{21, 2}
	Line2203 = Line{22, 3}
	Line2305 = Line{23, 5}
	Line2410 = Line{24, 10}
	Line2512 = Line{25, 12}
)

// Lines lists the known release lines, oldest first.
func Lines() []Line { return []Line{Line2102, Line2203, Line2305, Line2410, Line2512} }

// ParseLine reads the line of a version such as "24.10.7", "21.02-SNAPSHOT" or "25.12".
func ParseLine(version string) (Line, bool) {
	y, rest, ok := strings.Cut(version, ".")
	if !ok {
		return Line{}, false
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	if len(y) != 2 || len(rest) != 2 {
		return Line{}, false
	}
	year, err1 := strconv.Atoi(y)
	month, err2 := strconv.Atoi(rest)
	if err1 != nil || err2 != nil || month < 1 || month > 12 {
		return Line{}, false
	}
	return Line{year, month}, true
}

// Before reports whether l is older than o.
func (l Line) Before(o Line) bool {
	return l.Year < o.Year || l.Year == o.Year && l.Month < o.Month
}

// AtLeast reports whether l is o or newer.
func (l Line) AtLeast(o Line) bool { return !l.Before(o) }

// String gives "24.10".
func (l Line) String() string {
	if l == (Line{}) {
		return "unknown"
	}
	m := strconv.Itoa(l.Month)
	if len(m) == 1 {
		m = "0" + m
	}
	return strconv.Itoa(l.Year) + "." + m
}

// Release is the system on the router.
type Release struct {
	Distribution string `json:"distribution"` // "OpenWrt"
	Version      string `json:"version"`      // "24.10.7", "SNAPSHOT"
	Revision     string `json:"revision,omitempty"`
	Target       string `json:"target,omitempty"` // "ipq40xx/generic"
	Line         Line   `json:"-"`
}

// Board is the machine and its system.
type Board struct {
	Model    string  `json:"model"` // "AVM FRITZ!Box 4040"
	Name     string  `json:"name"`  // "avm,fritzbox-4040"
	Hostname string  `json:"hostname,omitempty"`
	Release  Release `json:"release"`
	// Switch: ports are configured through swconfig, not DSA (the 4040 on 21.02
	// and 22.03). There `/etc/init.d/network reload` reprograms the switch.
	Switch bool `json:"switch,omitempty"`
	// Apk: packages are managed by apk (25.12 on), else by opkg. Decided by
	// which program is there, not by the release.
	Apk bool `json:"apk,omitempty"`
	// Fw4: the firewall is firewall4/nftables (22.03 on), else fw3/iptables.
	Fw4 bool `json:"fw4,omitempty"`
}

// Package is one installed package.
type Package struct{ Name, Version string }

// Peer is one line of `wg show IFACE dump`, without its secret.
type Peer struct {
	PublicKey  key.Public
	Preshared  string // digest of the preshared key (see Digest), "" for none
	Endpoint   netip.AddrPort
	AllowedIPs []netip.Prefix
	Handshake  time.Time // zero: never since the interface was made
	Received   int64     // bytes from the peer
	Sent       int64     // bytes to the peer
	Keepalive  int       // seconds, 0 off
}

// Tunnel is the live state of one WireGuard interface.
type Tunnel struct {
	Interface  string
	PublicKey  key.Public
	Private    string // digest of the private key, "" for none
	ListenPort uint16
	Peers      []Peer
}

// Peer finds a live peer by key.
func (t *Tunnel) Peer(k key.Public) (Peer, bool) {
	if t == nil {
		return Peer{}, false
	}
	for _, p := range t.Peers {
		if p.PublicKey == k {
			return p, true
		}
	}
	return Peer{}, false
}

// Interface is one entry of `ubus call network.interface dump`.
type Interface struct {
	Name      string // UCI section: "lan"
	Device    string // "br-lan"
	Proto     string
	Up        bool
	Addresses []netip.Prefix // with the interface's mask
	Gateways  []netip.Addr   // next hops of default routes
	Errors    []string
}

// Neighbour is a host seen on one of the router's networks.
type Neighbour struct {
	Addr   netip.Addr
	Device string
	Name   string // from the DHCP leases, if any
}

// Route is one line of the router's main routing table. Networks that hang on a
// device themselves are in it, too.
type Route struct {
	Dst    netip.Prefix // the default route's is 0.0.0.0/0 or ::/0
	Via    netip.Addr   // the next router; invalid when Dst hangs on the device
	Device string       // "" for a route that refuses (unreachable, blackhole, prohibit)
	Metric int
}

// Pending is an apply that was begun and neither confirmed nor taken back.
type Pending struct {
	ID       string    // of the run
	Since    time.Time // by the router's clock
	Deadline time.Duration
	Armed    bool // the timer guard is running
}

// Written is what heimweg wrote last: digests by "config.section", kept on the
// router without secrets.
type Written struct {
	Format   int               `json:"format"`
	ID       string            `json:"id,omitempty"`      // of the run that wrote it
	Digests  map[string]string `json:"sections"`          // "network.wg0" → digest
	Adjusted map[string]string `json:"adjusted"`          // "firewall.<section>.input" → old value
	Disabled map[string]string `json:"disabled"`          // 21.02: peers whose section was taken out, name → digest of it
	Program  string            `json:"heimweg,omitempty"` // version that wrote it
}

// Space is free room on the router's flash.
type Space struct {
	OverlayKB int64
	// Temporary: the overlay is still in RAM (first boot is formatting the
	// flash); what is written now is lost by a power cut.
	Temporary bool
}

// Snapshot is everything that one look at the router gave.
type Snapshot struct {
	Board   Board
	Time    time.Time // the router's clock
	Uptime  time.Duration
	Configs map[string]*uci.Document // by config name; a broken one is in Broken
	Broken  map[string]error         // configs that the router's own reader would refuse
	Modes   map[string]string        // config → octal file mode
	Hashes  map[string]string        // config → SHA-256 of the file, hex

	Staged    []string // configs with staged changes that are not ours
	Overrides []string // files in /var/run/uci (24.10 on), which replace those in /etc/config
	LuciApply bool     // rpcd waits for a confirmation (snapshot files exist)
	Locked    string   // id of another run of heimweg at work, "" for none
	Pending   *Pending // an unfinished run of ours

	Installed  []Package // only those that were asked for
	Handlers   []string  // netifd's protocol handlers, "wireguard" among them when usable
	Interfaces []Interface
	Neighbours []Neighbour
	// Silent are addresses that the router asked for on a network and that
	// nobody answered for.
	Silent   []netip.Addr
	Routes   []Route
	Tunnels  map[string]*Tunnel
	Firewall []string // warnings of the firewall about skipped sections ("[!] …")
	Space    Space
	RootHash bool     // root has a password
	Keys     []string // authorized public keys, in file order
	Written  Written
}

// Has reports whether a package is installed.
func (s *Snapshot) Has(name string) bool {
	return slices.ContainsFunc(s.Installed, func(p Package) bool { return p.Name == name })
}

// Config gives a document, or an empty one.
func (s *Snapshot) Config(name string) *uci.Document {
	if d := s.Configs[name]; d != nil {
		return d
	}
	d, _ := uci.Parse(name, nil)
	return d
}

// Interface finds a live interface by its UCI name.
func (s *Snapshot) Interface(name string) (Interface, bool) {
	for _, i := range s.Interfaces {
		if i.Name == name {
			return i, true
		}
	}
	return Interface{}, false
}

// A Fingerprint identifies the state that a plan was made from.
type Fingerprint struct {
	Board  string            `json:"board"`
	Hashes map[string]string `json:"configs"`
}

// Fingerprint covers the files that heimweg writes.
func (s *Snapshot) Fingerprint() Fingerprint {
	f := Fingerprint{Board: s.Board.Name + " " + s.Board.Release.Version, Hashes: map[string]string{}}
	for _, c := range Touched() {
		if h, ok := s.Hashes[c]; ok {
			f.Hashes[c] = h
		}
	}
	return f
}

// Equal compares two fingerprints.
func (f Fingerprint) Equal(o Fingerprint) bool { return len(f.Differences(o)) == 0 }

// Differences names what differs: configs, or "board".
func (f Fingerprint) Differences(o Fingerprint) []string {
	var out []string
	if f.Board != o.Board {
		out = append(out, "board")
	}
	for _, c := range Touched() {
		if f.Hashes[c] != o.Hashes[c] {
			out = append(out, c)
		}
	}
	return out
}

// Touched lists the configs that heimweg may write.
func Touched() []string { return []string{"network", "firewall", "dhcp", "dropbear", "ddns"} }

// Site is what a blueprint needs to know about the router it is drawn for.
type Site struct {
	Board Board
	// Zones: UCI name of an interface → name of the firewall zone that holds it.
	Zones map[string]string
	// LANs: UCI name of an interface → its configured IPv4 networks with the
	// router's address in them.
	LANs map[string][]netip.Prefix
	// WAN is the zone of the interface "wan" ("" in a one-armed set-up).
	WAN string
	// InputAccept: the firewall's defaults let anything in from an interface
	// that is in no zone (21.02 and 22.03 ship so).
	InputAccept bool
	// DHCPServer: interfaces on which the router hands out addresses.
	DHCPServer map[string]bool
	// ListStyle: interface addresses are a list in CIDR form (25.12 on).
	ListStyle map[string]bool
	// Styles: how a static interface's IPv4 address is written.
	Styles map[string]AddressStyle
	// DHCP: the DHCP section of each interface that has one.
	DHCP map[string]DHCPSection
	// Interfaces: every UCI interface → whether it is our tunnel.
	Interfaces map[string]bool
	// Named: "network.wg0" → type, for named sections of config network that
	// are not ours (names share one name space per file).
	Named map[string]string
	// ZoneSections: name of a zone that is not ours → its section.
	ZoneSections map[string]string
	// Inputs: zone → its input policy in capitals; "" is that of a zone which says
	// none where the defaults do not accept.
	Inputs map[string]string
	// Ports: listen port of a WireGuard interface that is not ours → its name.
	Ports map[uint16]string
	// Live: networks with addresses right now, loopback and link-local left out.
	Live []Seen
	// DNSInterfaces and DNSNotInterfaces are dnsmasq's own limits, when somebody
	// has set them.
	DNSInterfaces, DNSNotInterfaces []string
}
