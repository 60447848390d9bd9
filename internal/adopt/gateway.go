package adopt

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/uci"
)

// A Gateway is what a file says that describes a gateway elsewhere: wg-quick's, or
// wg-easy's. Its keys print nothing.
type Gateway struct {
	File      string
	Private   key.Private
	Addresses []netip.Prefix
	Port      uint16 // 0: the file does not say
	MTU       int
	Devices   []GatewayDevice
	// Ignored are settings that have no place on OpenWrt, "PostUp (line 7)".
	Ignored []string
	line    int // of the interface
}

// A GatewayDevice is one device that such a gateway lets in.
type GatewayDevice struct {
	Name      string // "" when the file does not say
	Key       key.Public
	Preshared key.Preshared
	Allowed   []netip.Prefix // as typed, host bits kept
	Calls     bool           // the gateway calls it: another network, no device
	Disabled  bool
	// Kept: the file also holds the device's own private key.
	Kept bool
	Line int
}

// A GatewayError says where a file stops describing a gateway. It quotes no value.
type GatewayError struct {
	File string
	Line int // 0: the file as a whole
	Msg  string
	Next string
}

func (e *GatewayError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// Fault is the same for people.
func (e *GatewayError) Fault() *fault.Fault {
	f := fault.NewUsage("bad-gateway-file", "%s", e.Msg).From(e).At(fault.Place{File: e.File, Line: e.Line})
	if e.Next != "" {
		return f.Do("%s", e.Next)
	}
	return f.Do("correct it there, or name the file that the gateway uses")
}

// hand makes the file look like a router that somebody set up by hand, under the
// name that the tunnel shall have.
func (g Gateway) hand(name string) *hand {
	x := &hand{name: name, port: g.Port, addresses: g.Addresses}
	lines := map[string]int{name: g.line}
	if g.MTU != 0 {
		x.section = uci.NewSection("interface", name, uci.Opt("mtu", strconv.Itoa(g.MTU)))
	}
	for i, d := range g.Devices {
		sec := uci.NewSection("wireguard_"+name, "device"+strconv.Itoa(i))
		lines[sec.Name] = d.Line
		if !d.Preshared.IsZero() {
			sec = sec.With(uci.HiddenOpt("preshared_key", d.Preshared.Reveal()))
		}
		if d.Calls {
			sec = sec.With(uci.Opt("endpoint_host", "its own address"))
		}
		p := peer{section: sec, key: d.Key, name: d.Name, disabled: d.Disabled}
		for _, a := range d.Allowed {
			p.allowed = append(p.allowed, allowed{a})
		}
		x.peers = append(x.peers, p)
	}
	x.at = func(section, _ string) fault.Place { return fault.Place{File: g.File, Line: lines[section]} }
	return x
}

// Import writes what a gateway's file says into a home.toml that was proposed for
// the home router it moves to: addresses, port and devices, so that no device
// needs a new configuration, as long as the name that they call leads there.
//
// left says, for each device that has no place in it, why. The error is a *fault.Fault
// or a fault.List.
func Import(h home.Home, g Gateway) (out home.Home, left []string, err error) {
	x := g.hand(h.Tunnel.Interface)
	if x.port == 0 {
		x.port = h.Tunnel.Port
	}
	if _, err := x.network(true); err != nil {
		return h, nil, fault.NewUsage("gateway-address", "home.toml cannot say the addresses of this gateway").
			At(x.place("", x.name, "")).Because("%s", err).Do("move its devices one by one: heimweg peer add NAME")
	}
	why := x.household(&h)
	for _, p := range x.peers {
		if w := why[p.section.Name]; w != "" {
			left = append(left, fmt.Sprintf("%s: %s", x.place("", p.section.Name, ""), w))
		}
	}
	_, err = home.Parse("home.toml", home.Compose(h))
	return h, left, err
}

// Preshared are the keys of a gateway's devices by the names that home.toml has
// for them.
func (g Gateway) Preshared(h home.Home) map[string]key.Preshared {
	out := map[string]key.Preshared{}
	for _, p := range h.Peers {
		for _, d := range g.Devices {
			if d.Key == p.PublicKey && !d.Preshared.IsZero() {
				out[p.Name] = d.Preshared
			}
		}
	}
	return out
}

// ParseQuick reads a gateway's wg-quick file: one [Interface] with a port to listen
// on, and a [Peer] for each device. A comment right before or behind a [Peer] names
// the device, as many guides do it. Errors are *GatewayError.
func ParseQuick(file string, text []byte) (Gateway, error) {
	q := &quick{g: Gateway{File: file}, first: map[string]int{}}
	for i, l := range strings.Split(string(text), "\n") {
		q.line = i + 1
		if err := q.read(l); err != nil {
			return Gateway{}, err
		}
	}
	return q.finish()
}

type quick struct {
	g       Gateway
	line    int
	section string
	first   map[string]int // section or name → line, for what may stand once
	comment string         // the last line was this comment
}

func (q *quick) fail(next, format string, args ...any) error {
	return &GatewayError{File: q.g.File, Line: q.line, Msg: fmt.Sprintf(format, args...), Next: next}
}

func (q *quick) read(l string) error {
	content, comment, commented := strings.Cut(l, "#")
	content = strings.TrimSpace(content)
	switch {
	case content == "" && commented:
		q.remark(strings.TrimSpace(strings.Trim(comment, "# \t\r")))
		return nil
	case content == "":
		q.comment = ""
		return nil
	case strings.HasPrefix(content, "["):
		return q.title(content)
	}
	name, value, ok := strings.Cut(content, "=")
	if !ok {
		return q.fail("", "neither a [section] nor a setting of the form Name = value")
	}
	return q.setting(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value))
}

// remark keeps a comment that may name the device before or in which it stands:
// "# phone", "# Name = phone", "### Client phone", "# BEGIN_PEER phone".
func (q *quick) remark(text string) {
	for _, prefix := range []string{"name", "client", "friendly_name", "begin_peer", "begin", "start", "device", "peer"} {
		rest, ok := strings.CutPrefix(strings.ToLower(text), prefix)
		if ok && rest != "" && strings.ContainsAny(rest[:1], " =:") {
			text = strings.TrimLeft(text[len(prefix):], " =:")
			break
		}
	}
	if strings.Contains(strings.ToLower(text), "end_peer") || strings.ContainsAny(text, "=[]") || len(text) > 40 {
		text = ""
	}
	if n := len(q.g.Devices); q.section == "peer" && q.g.Devices[n-1].Line == q.line-1 && q.g.Devices[n-1].Name == "" {
		q.g.Devices[n-1].Name = text
		return
	}
	q.comment = text
}

func (q *quick) title(content string) error {
	switch strings.ToLower(content) {
	case "[interface]":
		if at := q.first["[interface]"]; at != 0 {
			return q.fail("", "a second [Interface], the first is in line %d", at)
		}
		q.first["[interface]"], q.g.line, q.section = q.line, q.line, "interface"
	case "[peer]":
		q.section = "peer"
		q.g.Devices = append(q.g.Devices, GatewayDevice{Line: q.line, Name: q.comment})
		q.first = map[string]int{"[interface]": q.first["[interface]"]}
	default:
		return q.fail("", "the only sections are [Interface] and [Peer]")
	}
	q.comment = ""
	return nil
}

func (q *quick) setting(name, value string) error {
	q.comment = ""
	repeat := map[string]bool{"address": true, "allowedips": true, "dns": true, "preup": true, "postup": true, "predown": true, "postdown": true}
	if at := q.first[name]; at != 0 && !repeat[name] {
		return q.fail("", "this setting stands twice, the first is in line %d", at)
	}
	q.first[name] = q.line
	switch q.section {
	case "interface":
		return q.ofInterface(name, value)
	case "peer":
		return q.ofPeer(&q.g.Devices[len(q.g.Devices)-1], name, value)
	}
	return q.fail("", "a setting before the first section; the file starts with [Interface]")
}

func (q *quick) ofInterface(name, value string) (err error) {
	switch name {
	case "privatekey":
		if q.g.Private, err = key.ParsePrivate(value); err != nil {
			return q.fail("", "this PrivateKey is not a key")
		}
	case "address":
		q.g.Addresses, err = q.prefixes(q.g.Addresses, value)
		return err
	case "listenport":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return q.fail("", "ListenPort is a number from 1 to 65535")
		}
		q.g.Port = uint16(n)
	case "mtu":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return q.fail("", "MTU is a number of bytes")
		}
		q.g.MTU = int(n)
	case "dns", "table", "fwmark", "saveconfig", "preup", "postup", "predown", "postdown":
		q.g.Ignored = append(q.g.Ignored, fmt.Sprintf("%s (line %d)", name, q.line))
	default:
		return q.fail("", "this is not a setting of [Interface]")
	}
	return nil
}

func (q *quick) ofPeer(d *GatewayDevice, name, value string) (err error) {
	switch name {
	case "publickey":
		if d.Key, err = key.ParsePublic(value); err != nil {
			return q.fail("", "this PublicKey is not a key")
		}
	case "presharedkey":
		if d.Preshared, err = key.ParsePreshared(value); err != nil {
			return q.fail("", "this PresharedKey is not a key")
		}
	case "allowedips":
		d.Allowed, err = q.prefixes(d.Allowed, value)
		return err
	case "endpoint":
		d.Calls = true
	case "persistentkeepalive":
	default:
		return q.fail("", "this is not a setting of [Peer]")
	}
	return nil
}

func (q *quick) prefixes(list []netip.Prefix, value string) ([]netip.Prefix, error) {
	for _, w := range strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' }) {
		p, ok := parsePrefix(w)
		if !ok || p.Addr().Is4In6() {
			return nil, q.fail("", "here belong addresses, such as 10.20.30.1/24")
		}
		list = append(list, p)
	}
	return list, nil
}

func (q *quick) finish() (Gateway, error) {
	g := q.g
	q.line = g.line
	switch {
	case g.line == 0:
		return Gateway{}, q.fail("", "no [Interface] section")
	case g.Port == 0 && len(g.Devices) == 1 && g.Devices[0].Calls:
		return Gateway{}, q.fail("heimweg adopt --peer "+g.File, "this file describes a device, not the gateway: it listens on no port and calls somebody")
	case g.Private.IsZero():
		return Gateway{}, q.fail("", "[Interface] has no PrivateKey; without it every device would need a new configuration")
	case len(g.Addresses) == 0:
		return Gateway{}, q.fail("", "[Interface] has no Address")
	}
	for _, d := range g.Devices {
		q.line = d.Line
		if d.Key.IsZero() {
			return Gateway{}, q.fail("", "this [Peer] has no PublicKey")
		}
	}
	return g, nil
}
