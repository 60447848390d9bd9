package firewall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// ipset is a named set of addresses, ports or both. Entries from files are not
// known to us.
type ipset struct {
	name    string
	section string
	family  int8
	kinds   []string // ip, net, port, mac
	dst     []bool   // per kind: the destination's
	entries [][]setField
}

type setField struct {
	span span
	port uint16
	mac  [6]byte
}

// setRef is the value of `ipset` in a rule: a name, and perhaps directions.
type setRef struct {
	name string
	dirs []string
	not  bool
}

func parseSetRef(s string) (setRef, bool) {
	n, ok := parseNegatable(s)
	if !ok {
		return setRef{}, false
	}
	name, rest := n.val, ""
	if i := strings.IndexAny(n.val, " \t"); i >= 0 {
		name, rest = n.val[:i], strings.TrimSpace(n.val[i:])
	}
	r := setRef{name: name, not: n.not}
	r.dirs = strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })
	return r, name != ""
}

func (c *compiler) findSet(name string) *ipset {
	for _, s := range c.sets {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (c *compiler) unknownSet(s uci.Section, name string) {
	c.skip(s, "references unknown set '%s'", name)
	if c.line == router.Line2203 && len(c.sets) == 0 {
		c.refuse(s, "makes fw4 of 22.03 stumble, which expects at least one set")
	}
}

// types are nft's types of the fields; sets of networks are of another make.
func (s *ipset) types() []string {
	var out []string
	net := false
	for _, k := range s.kinds {
		if k == "ip" || k == "net" {
			net = net || k == "net"
			k = fmt.Sprintf("ipv%d_addr", s.family)
		}
		out = append(out, k)
	}
	if net {
		out = append(out, "interval")
	}
	return out
}

func (s *ipset) hasPorts() bool {
	for _, k := range s.kinds {
		if k == "port" {
			return true
		}
	}
	return false
}

// directions says per field whether it is the destination's.
func (s *ipset) directions(asked []string) []bool {
	out := append([]bool(nil), s.dst...)
	for i := range out {
		if i >= len(asked) || i >= 3 {
			break
		}
		switch asked[i] {
		case "dst", "dest":
			out[i] = true
		case "src":
			out[i] = false
		}
	}
	return out
}

func (s *ipset) holds(p *Packet, dirs []bool) bool {
	if s.family == 4 && !p.Src.Is4() || s.family == 6 && !p.Src.Is6() {
		return false
	}
	for _, e := range s.entries {
		if s.fits(e, p, dirs) {
			return true
		}
	}
	return false
}

func (s *ipset) fits(e []setField, p *Packet, dirs []bool) bool {
	for i, k := range s.kinds {
		a, port := p.Src, p.SrcPort
		if dirs[i] {
			a, port = p.Dst, p.DstPort
		}
		switch k {
		case "port":
			if port != e[i].port {
				return false
			}
		case "mac":
			if p.MAC != e[i].mac {
				return false
			}
		default:
			if !e[i].span.holds(a) {
				return false
			}
		}
	}
	return true
}

var parseSetKind = parseEnum("ip", "port", "mac", "net", "set")

func (c *compiler) readSet(s uci.Section) {
	o := c.options(s)
	enabled := o.flag("enabled", true)
	o.flag("reload_set", false)
	o.flag("counters", false)
	o.one("comment")
	name := value(o, "name", parseIdentifier, "")
	if _, ok := o.raw("name"); !ok && !o.bad {
		o.fail("option 'name' is mandatory but not set")
	}
	set := &ipset{name: name, section: s.Name, family: value(o, "family", parseFamily, 4)}
	unsupported(o, "storage", parseString)
	match := values(o, "match", "", parseSetMatch)
	unsupported(o, "iprange", parseString)
	unsupported(o, "portrange", parseString)
	unsupported(o, "netmask", parseInt)
	value(o, "maxelem", parseInt, 0)
	unsupported(o, "hashsize", parseInt)
	value(o, "timeout", parseInt, 0)
	unsupported(o, "external", parseString)
	entries := values(o, "entry", "", parseString)
	if _, ok := o.one("loadfile"); ok {
		c.warn(s, "fills its set from a file that is not looked at here")
		c.gap(s, "fills its set from a file, which is not looked at")
	}
	if !o.done() {
		c.skip(s, "skipped due to invalid options")
		return
	}
	if !enabled {
		c.skip(s, "is disabled, ignoring section")
		return
	}
	if why := set.shape(match, c.line); why != "" {
		c.skip(s, "%s", why)
		return
	}
	for _, e := range entries {
		if f, ok := c.parseEntry(set, e); ok {
			set.entries = append(set.entries, f)
		} else {
			c.warn(s, "ignoring invalid ipset entry '%s'", e)
		}
	}
	if old := c.findSet(name); old != nil {
		// nft merges two sets of one name if they are of one kind.
		if !slices.Equal(old.types(), set.types()) {
			c.refuse(s, "is the second set of that name, the ruleset cannot be loaded")
			return // entries of two shapes do not mix
		}
		old.entries = append(old.entries, set.entries...)
	}
	c.sets = append(c.sets, set)
}

type setKind struct {
	kind string
	dst  bool
}

func parseSetMatch(s string) (setKind, bool) {
	k := setKind{}
	for _, pre := range []string{"src_", "dst_", "dest_"} {
		if rest, ok := strings.CutPrefix(s, pre); ok && rest != "" {
			k.dst, s = pre != "src_", rest
			break
		}
	}
	var ok bool
	k.kind, ok = parseSetKind(s)
	return k, ok
}

// shape takes over what the set is made of, or says why it cannot be.
func (s *ipset) shape(match []setKind, line router.Line) string {
	if len(match) == 0 {
		return "has no datatypes assigned"
	}
	byAddress := false
	for _, m := range match {
		s.kinds = append(s.kinds, m.kind)
		s.dst = append(s.dst, m.dst)
		byAddress = byAddress || m.kind == "ip" || m.kind == "net"
		if m.kind == "set" {
			return "match type 'set' is not supported"
		}
	}
	// (openwrt-observed.md 8.24)
	if s.family == 0 && line.Before(router.Line2512) {
		return "must not specify family 'any'"
	}
	if s.family == 0 && byAddress {
		return "must not specify family 'any' when matching type 'ip' or 'net'"
	}
	return ""
}

// parseEntry reads an entry of a set, whose list items fw4 keeps whole.
func (c *compiler) parseEntry(s *ipset, text string) ([]setField, bool) {
	parts := words(text)
	if len(parts) != len(s.kinds) {
		return nil, false
	}
	out := make([]setField, len(parts))
	for i, k := range s.kinds {
		switch k {
		case "port":
			p, ok := parsePort(parts[i])
			if !ok || p.not || p.min != p.max {
				return nil, false
			}
			out[i].port = p.min
		case "mac":
			m, ok := parseMAC(parts[i])
			if !ok || m.not {
				return nil, false
			}
			out[i].mac = m.addr
		default:
			list, _ := c.parseSubnet(parts[i])
			found := false
			for _, a := range list {
				if a.family != s.family {
					continue
				}
				if k == "ip" {
					a = hostAddr(a.addr)
				}
				out[i].span, found = a.span()
				break
			}
			if !found {
				return nil, false
			}
		}
	}
	return out, true
}
