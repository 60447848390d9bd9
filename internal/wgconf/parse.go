package wgconf

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/key"
)

// A SyntaxError says where a text stops being a configuration. It never quotes
// a value, and a name only when it cannot be a key that lost its label.
type SyntaxError struct {
	Line   int // counts from 1
	Column int // in bytes, counts from 1
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Msg)
}

// Parse reads what wg-quick reads: names and section titles in any case, blanks
// anywhere round them, comments from # to the end of the line, lists with commas
// or blanks, several Address, DNS and AllowedIPs lines, prefixes without a mask,
// and keepalive "off" (wireguard-tools, wg-quick/linux.bash and config.c; tried
// with 1.0.20210914). It is stricter where a mistake is likelier than an
// intention: exactly one [Peer], no single-valued setting twice, and no name or
// value that wg-quick would refuse later. Every error is a *SyntaxError.
//
// An AllowedIPs entry with bits beyond its mask is read as WireGuard uses it,
// with those bits off.
func Parse(text []byte) (Conf, error) {
	r := &reader{first: map[string]int{}}
	lines := strings.Split(string(text), "\n")
	for i, l := range lines {
		r.line, r.text = i+1, l
		if err := r.read(); err != nil {
			return Conf{}, err
		}
	}
	return r.finish()
}

// reader is the state between two lines.
type reader struct {
	conf    Conf
	line    int
	text    string
	section string         // "", "interface" or "peer"
	first   map[string]int // section or name → line where it stood first
}

func (r *reader) errorAt(part, format string, args ...any) error {
	column := 1
	if i := strings.Index(r.text, part); i > 0 {
		column = i + 1
	}
	return &SyntaxError{Line: r.line, Column: column, Msg: fmt.Sprintf(format, args...)}
}

// isBlank is C's isspace, which both programs go by; Unicode's blanks are text
// to them, and would be part of a name or a value.
func isBlank(c rune) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func trim(s string) string { return strings.TrimFunc(s, isBlank) }

func (r *reader) read() error {
	if strings.HasPrefix(r.text, "\ufeff") {
		return r.errorAt("", "the file starts with a byte order mark; save it as plain text (UTF-8)")
	}
	if i := strings.IndexFunc(r.text, func(c rune) bool { return c < ' ' && !isBlank(c) || c == 0x7f }); i >= 0 {
		return &SyntaxError{Line: r.line, Column: i + 1, Msg: "a control character, which text does not have"}
	}
	content, _, _ := strings.Cut(r.text, "#")
	content = trim(content)
	switch {
	case content == "":
		return nil
	case strings.HasPrefix(content, "["):
		return r.title(content)
	}
	name, value, ok := strings.Cut(content, "=")
	name, value = trim(name), trim(value)
	if !ok {
		return r.errorAt(content, "neither a [section] nor a setting of the form Name = value")
	}
	return r.setting(name, value, content)
}

func (r *reader) title(content string) error {
	switch strings.ToLower(content) {
	case "[interface]":
		r.section = "interface"
		if at, twice := r.first["[interface]"]; twice {
			return r.errorAt(content, "a second [Interface], the first is in line %d", at)
		}
	case "[peer]":
		r.section = "peer"
		if at, twice := r.first["[peer]"]; twice {
			return r.errorAt(content, "a second [Peer], the first is in line %d: the configuration of a device that comes home "+
				"has one, the home router; several belong to a router or a hub", at)
		}
	default:
		return r.errorAt(content, "the only sections are [Interface] and [Peer]")
	}
	r.first["["+r.section+"]"] = r.line
	return nil
}

// The names of both sections, as written by Text. A list may stand in several
// lines, everything else once.
var names = map[string]map[string]bool{
	"interface": {
		"PrivateKey": true, "Address": true, "DNS": true, "MTU": true,
		// Read, checked for nothing, left out: see Conf.Ignored.
		"ListenPort": true, "FwMark": true, "Table": true, "SaveConfig": true,
		"PreUp": true, "PostUp": true, "PreDown": true, "PostDown": true,
	},
	"peer": {
		"PublicKey": true, "PresharedKey": true, "AllowedIPs": true, "Endpoint": true, "PersistentKeepalive": true,
	},
}

var repeatable = []string{"Address", "DNS", "AllowedIPs", "PreUp", "PostUp", "PreDown", "PostDown"}

// known finds the proper spelling of a name in a section.
func known(section, name string) (string, bool) {
	for n := range names[section] {
		if strings.EqualFold(n, name) {
			return n, true
		}
	}
	return "", false
}

func (r *reader) setting(written, value, content string) error {
	if r.section == "" {
		return r.errorAt(content, "a setting before the first section; the file starts with [Interface]")
	}
	name, ok := known(r.section, written)
	if !ok {
		return r.unknown(written, content)
	}
	if value == "" {
		return r.errorAt(content, "%s has no value", name)
	}
	if at, twice := r.first[name]; twice && !slices.Contains(repeatable, name) {
		return r.errorAt(content, "%s a second time, the first is in line %d", name, at)
	} else if !twice {
		r.first[name] = r.line
	}
	if r.section == "interface" {
		return r.ofInterface(name, value)
	}
	return r.ofPeer(name, value)
}

func (r *reader) unknown(written, content string) error {
	other := map[string]string{"interface": "peer", "peer": "interface"}[r.section]
	title := map[string]string{"interface": "[Interface]", "peer": "[Peer]"}
	if n, ok := known(other, written); ok {
		return r.errorAt(content, "%s belongs under %s", n, title[other])
	}
	// A key whose label is missing reads as a name before its final "=": only
	// what looks like a name is quoted.
	looksLikeName := len(written) > 0 && len(written) <= 24 &&
		!strings.ContainsFunc(written, func(c rune) bool { return !isLetter(c) })
	if !looksLikeName {
		return r.errorAt(content, "not a setting of %s", title[r.section])
	}
	return r.errorAt(content, "%q is not a setting of %s", written, title[r.section])
}

func (r *reader) ofInterface(name, value string) (err error) {
	i := &r.conf.Interface
	switch name {
	case "PrivateKey":
		if i.PrivateKey, err = key.ParsePrivate(value); err != nil {
			return r.badKey(name, value, err)
		}
	case "Address":
		for _, f := range list(value) {
			p, ok := prefix(f)
			if !ok {
				return r.errorAt(f, "Address wants addresses with a mask, such as 10.20.30.2/32")
			}
			i.Addresses = append(i.Addresses, p)
		}
	case "DNS":
		for _, f := range list(value) {
			if !isDNS(f) {
				return r.errorAt(f, "DNS wants addresses of servers and search domains")
			}
			i.DNS = append(i.DNS, f)
		}
	case "MTU":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n < minMTU || n > maxMTU {
			return r.errorAt(value, "MTU is a number of bytes from %d to %d", minMTU, maxMTU)
		}
		i.MTU = int(n)
	default:
		r.conf.Ignored = append(r.conf.Ignored, Setting{Name: name, Line: r.line})
	}
	return nil
}

// The smallest packet every IPv4 host must take, and the largest IP packet. (A
// tunnel with IPv6 inside needs 1280; package home asks for that.)
const (
	minMTU = 576
	maxMTU = 65535
)

func (r *reader) ofPeer(name, value string) (err error) {
	p := &r.conf.Peer
	switch name {
	case "PublicKey":
		if p.PublicKey, err = key.ParsePublic(value); err != nil {
			return r.badKey(name, value, err)
		}
	case "PresharedKey":
		if value == noKey {
			return nil // WireGuard's way to say: none
		}
		if p.Preshared, err = key.ParsePreshared(value); err != nil {
			return r.badKey(name, value, err)
		}
	case "AllowedIPs":
		for _, f := range list(value) {
			n, ok := prefix(f)
			if !ok {
				return r.errorAt(f, "AllowedIPs wants networks, such as 192.168.20.0/24")
			}
			if n = n.Masked(); !slices.Contains(p.AllowedIPs, n) {
				p.AllowedIPs = append(p.AllowedIPs, n)
			}
		}
	case "Endpoint":
		var ok bool
		if p.Endpoint, p.Port, ok = splitEndpoint(value); !ok {
			return r.errorAt(value, badEndpoint)
		}
	case "PersistentKeepalive":
		if strings.EqualFold(value, "off") {
			return nil
		}
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return r.errorAt(value, "PersistentKeepalive is a number of seconds up to 65535, or off")
		}
		p.Keepalive = int(n)
	}
	return nil
}

var noKey = base64.StdEncoding.EncodeToString(make([]byte, key.Size))

// badKey reports the kind of mistake without the text of the key.
func (r *reader) badKey(name, value string, err error) error {
	var bad *key.FormatError
	if errors.As(err, &bad) {
		return r.errorAt(value, "%s is not a key: %s", name, bad.Why)
	}
	return r.errorAt(value, "%s is not a key", name)
}

// list splits at commas and blanks, as wg-quick does for addresses.
func list(value string) []string {
	return strings.FieldsFunc(value, func(c rune) bool { return c == ',' || isBlank(c) })
}

// prefix reads an address with or without a mask.
func prefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
		return p, true
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return netip.Prefix{}, false
}

// isDNS tells a server's address or a search domain from noise. wg-quick takes
// digits and dots, and anything with a colon, for an address.
func isDNS(s string) bool {
	if strings.Contains(s, ":") || !strings.ContainsFunc(s, func(c rune) bool { return c != '.' && !isDigit(c) }) {
		a, err := netip.ParseAddr(s)
		return err == nil && !a.Is4In6() && a.Zone() == ""
	}
	return isName(s)
}

// isName accepts host names and domains: labels of letters, digits, hyphens and
// underscores, with or without a final dot, the last one not a number (else it
// is half an address). Names in other scripts are wanted in their xn-- form,
// since not every device translates.
func isName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return false
	}
	var last string
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(c rune) bool { return !isLetter(c) && !isDigit(c) && c != '-' && c != '_' }) {
			return false
		}
		last = label
	}
	return strings.ContainsFunc(last, func(c rune) bool { return !isDigit(c) })
}

func isLetter(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c rune) bool  { return '0' <= c && c <= '9' }

const badEndpoint = "Endpoint is a host name or address, a colon and a port, such as home.example.net:51820, and [2001:db8::1]:51820 for IPv6"

// splitEndpoint reads host:port. The port is a number: wg would also take the
// name of a service, and no phone does.
func splitEndpoint(s string) (host string, port uint16, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 {
		return "", 0, false
	}
	host, port = s[:i], uint16(n)
	if inner, opened := strings.CutPrefix(host, "["); opened {
		inner, closed := strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		return inner, port, closed && err == nil && a.Is6() && !a.Is4In6()
	}
	a, err := netip.ParseAddr(host)
	return host, port, err == nil && a.Is4() || isName(host)
}

// finish says what is missing. Positions point at the section that lacks it.
func (r *reader) finish() (Conf, error) {
	missing := func(section, what string) error {
		return &SyntaxError{Line: max(r.first[section], 1), Column: 1, Msg: what}
	}
	switch c := r.conf; {
	case r.first["[interface]"] == 0:
		return Conf{}, missing("", "no [Interface] section")
	case r.first["[peer]"] == 0:
		return Conf{}, missing("", "no [Peer] section")
	case len(c.Interface.Addresses) == 0:
		return Conf{}, missing("[interface]", "[Interface] has no Address")
	case c.Peer.PublicKey.IsZero():
		return Conf{}, missing("[peer]", "[Peer] has no PublicKey")
	case len(c.Peer.AllowedIPs) == 0:
		return Conf{}, missing("[peer]", "[Peer] has no AllowedIPs, so nothing would go through the tunnel")
	}
	return r.conf, nil
}
