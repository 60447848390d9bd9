package home

import (
	"slices"
	"strings"
)

// A keySpec is one key that home.toml may have.
type keySpec struct {
	name    string
	kind    kind
	example string // a value as it is written, for messages
}

// A sectionSpec is one section that home.toml may have.
type sectionSpec struct {
	name  string
	array bool // [[name]], any number of them
	keys  []keySpec
}

// schema is everything that home.toml may say. Order is the order in which
// heimweg writes keys.
var schema = []sectionSpec{
	{"router", false, []keySpec{
		{"address", kindString, `"192.168.1.1"`},
		{"user", kindString, `"root"`},
		{"jump", kindString, `"pi@192.168.178.20"`},
		{"packages", kindStrings, `["nano", "mc"]`},
		{"input", kindString, `"reject"`},
	}},
	{"uplink", false, []keySpec{
		{"kind", kindString, `"behind-isp-router"`},
		{"network", kindString, `"192.168.178.0/24"`},
		{"mapping", kindString, `"by-hand"`},
	}},
	{"lan", true, []keySpec{
		{"interface", kindString, `"lan"`},
		{"network", kindString, `"192.168.1.0/24"`},
		{"renumber", kindBool, `true`},
	}},
	{"tunnel", false, []keySpec{
		{"interface", kindString, `"wg0"`},
		{"network", kindString, `"10.86.20.0/24"`},
		{"network6", kindString, `"fd86:2012:3456::/64"`},
		{"port", kindInteger, `51820`},
		{"mtu", kindInteger, `1420`},
		{"endpoint", kindString, `"home.example.net"`},
		{"endpoint-port", kindInteger, `51820`},
	}},
	{"reach", false, []keySpec{
		{"home-lan", kindBool, `true`},
		{"uplink-lan", kindBool, `false`},
		{"internet", kindBool, `false`},
		{"nat-to-lan", kindBool, `true`},
	}},
	{"dns", false, []keySpec{
		{"servers", kindStrings, `["router"]`},
		{"search", kindStrings, `["lan"]`},
	}},
	{"ddns", false, []keySpec{
		{"service", kindString, `"desec.io"`},
		{"update-url", kindString, `"https://dyn.example.net/update?host=[DOMAIN]&ip=[IP]"`},
		{"name", kindString, `"home.example.net"`},
		{"user", kindString, `"me"`},
		{"ipv4", kindBool, `true`},
		{"ipv6", kindBool, `true`},
		{"address-url", kindString, `"https://ip.example.net/"`},
	}},
	{"peer", true, []keySpec{
		{"name", kindString, `"phone"`},
		{"public-key", kindString, `"(44 characters, ending in =)"`},
		{"address", kindString, `"10.86.20.2"`},
		{"address6", kindString, `"fd86:2012:3456::2"`},
		{"preshared", kindBool, `true`},
		{"disabled", kindBool, `true`},
		{"admin", kindBool, `true`},
		{"keepalive", kindInteger, `25`},
	}},
}

func specOf(section string) (sectionSpec, bool) {
	for _, s := range schema {
		if s.name == section {
			return s, true
		}
	}
	return sectionSpec{}, false
}

func (s sectionSpec) key(name string) (keySpec, bool) {
	for _, k := range s.keys {
		if k.name == name {
			return k, true
		}
	}
	return keySpec{}, false
}

func (s sectionSpec) names() []string {
	var out []string
	for _, k := range s.keys {
		out = append(out, k.name)
	}
	return out
}

// header is how the section begins in the file.
func (s sectionSpec) header() string {
	if s.array {
		return "[[" + s.name + "]]"
	}
	return "[" + s.name + "]"
}

func sectionNames() []string {
	var out []string
	for _, s := range schema {
		out = append(out, s.name)
	}
	return out
}

// whereIs lists the sections that know a key.
func whereIs(key string) []string {
	var out []string
	for _, s := range schema {
		if _, ok := s.key(key); ok {
			out = append(out, s.header())
		}
	}
	return out
}

// otherWords are words that people bring along from WireGuard's and OpenWrt's
// own files, and what home.toml calls the thing. An empty answer means that
// heimweg computes it.
var otherWords = map[string]string{
	"allowed-ips": "", "allowedips": "", "route-allowed-ips": "", "fwmark": "", "table": "", "postup": "", "postdown": "",
	"listen-port": "port", "listenport": "port", "ip": "address", "ipaddr": "address", "ip6addr": "address6",
	"host": "address", "hostname": "address", "pubkey": "public-key", "publickey": "public-key",
	"persistent-keepalive": "keepalive", "persistentkeepalive": "keepalive", "subnet": "network", "enabled": "disabled",
	"ifname": "interface", "device": "interface", "dns": "servers", "endpoint-host": "endpoint", "psk": "preshared",
	"ipv6": "network6", "masquerade": "nat-to-lan", "nat": "nat-to-lan", "lans": "lan", "peers": "peer", "clients": "peer",
	"client": "peer", "users": "peer", "wireguard": "tunnel", "wg": "tunnel", "server": "router", "wan": "uplink", "username": "user",
	"dyndns": "ddns", "domain": "name", "lookup-host": "name", "service-name": "service", "url": "update-url", "ip-url": "address-url", "use-ipv6": "ipv6",
}

// plain makes PublicKey, public_key and public-key the same.
func plain(word string) string {
	return strings.ReplaceAll(strings.ToLower(word), "_", "-")
}

// meant guesses which of the known words was meant by an unknown one.
func meant(word string, known []string) string {
	w := plain(word)
	if slices.Contains(known, w) {
		return w
	}
	if other := otherWords[w]; slices.Contains(known, other) {
		return other
	}
	best, at := "", len(w)/3+2 // the longer the word, the more slips are forgiven
	if len(w) > 40 {
		return ""
	}
	for _, k := range known {
		if d := distance(w, k); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with a
// neighbour.
func distance(a, b string) int {
	older, old := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(old[j]+cost, old[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
		older, old = old, row
	}
	return old[len(b)]
}
