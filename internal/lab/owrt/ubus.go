package owrt

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/router"
)

// obj is a JSON object that keeps its order, as blobmsg does.
type obj []kv

type kv struct {
	k string
	v any
}

// writeJSON prints as blobmsg_format_json_indent does: tabs, and ": " after a
// name; depth -1 means on one line.
func writeJSON(w io.Writer, v any, depth int) {
	nl := func(d int) {
		if depth >= 0 {
			fmt.Fprint(w, "\n"+strings.Repeat("\t", d))
		}
	}
	sub := depth + 1
	if depth < 0 {
		sub = -1
	}
	switch x := v.(type) {
	case obj:
		fmt.Fprint(w, "{")
		for i, e := range x {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			nl(sub)
			name, _ := json.Marshal(e.k)
			fmt.Fprintf(w, "%s:", name)
			if depth >= 0 {
				fmt.Fprint(w, " ")
			}
			writeJSON(w, e.v, sub)
		}
		nl(depth)
		fmt.Fprint(w, "}")
	case []any:
		fmt.Fprint(w, "[")
		for i, e := range x {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			nl(sub)
			writeJSON(w, e, sub)
		}
		nl(depth)
		fmt.Fprint(w, "]")
	default:
		b, _ := json.Marshal(v)
		w.Write(b)
	}
}

// The status codes of ubus (UBUS ubusmsg.h).
const (
	ubusOK = iota
	ubusInvalidCommand
	ubusInvalidArgument
	ubusMethodNotFound
	ubusNotFound
	ubusNoData
	ubusPermission
	ubusTimeout
	ubusNotSupported
)

var ubusText = []string{"Success", "Invalid command", "Invalid argument", "Method not found", "Not found", "No response", "Permission denied", "Request timed out", "Operation not supported", "Unknown error", "Connection failed"}

// ubusProgram is the ubus command. Its exit code on an error is the status on
// 21.02 and 256 minus it later (facts 2).
func (s *system) ubusProgram(p *ash.Proc, args []string) int {
	a := args[1:]
	simple := false
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		switch a[0] {
		case "-S":
			simple = true
		case "-t", "-s":
			a = a[1:]
		}
		a = a[1:]
	}
	fail := func(st int) int {
		if !simple {
			fmt.Fprintf(p.Stderr(), "Command failed: %s\n", ubusText[st])
		}
		if s.line.Before(router.Line2203) {
			return st
		}
		return 256 - st
	}
	if len(a) == 0 {
		fmt.Fprintln(p.Stderr(), "Usage: ubus [<options>] <command> [arguments...]")
		return 1
	}
	switch a[0] {
	case "list":
		pat := "*"
		for _, x := range a[1:] {
			if x != "-v" {
				pat = x
			}
		}
		found := false
		for _, n := range s.ubusObjects() {
			if ash.Match(pat, n) {
				fmt.Fprintln(p.Stdout(), n)
				found = true
			}
		}
		if !found {
			return fail(ubusNotFound)
		}
		return 0
	case "wait_for":
		for _, n := range a[1:] {
			for !s.ubusHas(n) {
				p.Sleep(200 * time.Millisecond)
			}
		}
		return 0
	case "send", "listen", "monitor":
		return 0
	case "call":
	default:
		return fail(ubusInvalidCommand)
	}
	if len(a) < 3 {
		return fail(ubusInvalidArgument)
	}
	in := map[string]any{}
	if len(a) > 3 && json.Unmarshal([]byte(a[3]), &in) != nil {
		fmt.Fprintln(p.Stderr(), "Failed to parse message data")
		return fail(ubusInvalidArgument)
	}
	out, st := s.ubusCall(p, a[1], a[2], in)
	if st != ubusOK {
		return fail(st)
	}
	if out != nil {
		depth := 0
		if simple {
			depth = -1
		}
		writeJSON(p.Stdout(), out, depth)
		fmt.Fprintln(p.Stdout())
	}
	return 0
}

func (s *system) ubusObjects() []string {
	l := []string{"dhcp", "log", "service", "system"}
	if s.isRunning("network") {
		l = append(l, "network", "network.device", "network.interface", "network.wireless")
		for _, i := range s.net.list() {
			l = append(l, "network.interface."+i.name)
		}
	}
	if s.isRunning("rpcd") {
		l = append(l, "session", "uci", "file", "rc")
	}
	sort.Strings(l)
	return l
}

func (s *system) ubusHas(name string) bool {
	for _, n := range s.ubusObjects() {
		if n == name {
			return true
		}
	}
	return false
}

func text(in map[string]any, k string) string {
	v, _ := in[k].(string)
	return v
}

func (s *system) ubusCall(p *ash.Proc, object, method string, in map[string]any) (any, int) {
	if !s.ubusHas(object) {
		return nil, ubusNotFound
	}
	switch {
	case object == "system":
		return s.ubusSystem(method)
	case object == "service":
		return s.ubusService(method, in)
	case object == "network":
		switch method {
		case "reload":
			s.net.reload(false)
		case "restart":
			s.net.restart()
		case "get_proto_handlers":
			return s.protoHandlers(), ubusOK
		case "add_dynamic", "netns_updown":
			return nil, ubusNotSupported
		default:
			return nil, ubusMethodNotFound
		}
		return nil, ubusOK
	case object == "network.device":
		if method == "status" {
			return s.devices(text(in, "name"))
		}
		return nil, ubusMethodNotFound
	case object == "network.interface":
		if method == "dump" {
			list := []any{}
			for _, i := range s.net.list() {
				list = append(list, append(obj{{"interface", i.name}}, s.ifaceStatus(i)...))
			}
			return obj{{"interface", list}}, ubusOK
		}
		name := text(in, "interface")
		if name == "" {
			return nil, ubusInvalidArgument
		}
		return s.ubusIface(name, method)
	case strings.HasPrefix(object, "network.interface."):
		return s.ubusIface(strings.TrimPrefix(object, "network.interface."), method)
	case object == "dhcp":
		if method == "ipv4leases" || method == "ipv6leases" {
			return obj{{"device", obj{}}}, ubusOK
		}
		return nil, ubusMethodNotFound
	case object == "log":
		return nil, ubusOK
	}
	// rpcd's objects: that they are there is known, what they do is not emulated.
	s.b.noteUnknown("ubus call " + object + " " + method)
	return nil, ubusMethodNotFound
}

func (s *system) ubusSystem(method string) (any, int) {
	r := releases[s.line]
	switch method {
	case "board":
		rel := obj{{"distribution", "OpenWrt"}, {"version", s.b.Version()}, {"revision", r.revision}, {"target", s.b.target()}, {"description", "OpenWrt " + s.b.Version() + " " + r.revision}}
		if s.line.AtLeast(router.Line2410) {
			rel = append(rel, kv{"builddate", "1780000000"})
		}
		if s.line.AtLeast(router.Line2512) {
			rel = append(rel, kv{"firmware_url", "https://downloads.openwrt.org/"})
		}
		out := obj{{"kernel", r.kernel}, {"hostname", s.hostname()}, {"system", "ARMv7 Processor rev 5 (v7l)"}, {"model", s.b.opt.Model}, {"board_name", s.b.opt.Board}}
		if s.line.AtLeast(router.Line2203) {
			out = append(out, kv{"rootfs_type", s.rootType()})
		}
		return append(out, kv{"release", rel}), ubusOK
	case "info":
		free := s.fs.Capacity() - s.fs.Used()
		return obj{{"localtime", time.Now().Unix()}, {"uptime", int64(time.Since(s.b.since).Seconds())}, {"load", []any{0, 0, 0}},
			{"memory", obj{{"total", 254541824}, {"free", 172998656}, {"shared", 163840}, {"buffered", 5083136}, {"available", 168845312}, {"cached", 33337344}}},
			{"root", obj{{"total", s.fs.Capacity() / 1024}, {"free", free / 1024}, {"used", s.fs.Used() / 1024}, {"avail", free / 1024}}},
			{"tmp", obj{{"total", 124288}, {"free", 124128}, {"used", 160}, {"avail", 124128}}}}, ubusOK
	case "reboot":
		s.soon(0, func() { go s.b.Reboot() })
		return nil, ubusOK
	}
	return nil, ubusMethodNotFound
}

func (s *system) ubusService(method string, in map[string]any) (any, int) {
	switch method {
	case "list":
		out := obj{}
		want := text(in, "name")
		for _, n := range s.serviceNames() {
			if want != "" && want != n {
				continue
			}
			out = append(out, kv{n, obj{{"instances", obj{{"instance1", obj{{"running", s.isRunning(n)}, {"pid", 500}}}}}}})
		}
		return out, ubusOK
	case "event":
		data, _ := in["data"].(map[string]any)
		if text(in, "type") == "config.change" && data != nil {
			s.configChanged(text(data, "package"))
		}
		return nil, ubusOK
	case "state", "set", "add", "signal", "delete", "update_start", "update_complete":
		return nil, ubusOK
	}
	return nil, ubusMethodNotFound
}

func (s *system) protoHandlers() any {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	var names []string
	for n := range s.net.handlers {
		names = append(names, n)
	}
	sort.Strings(names)
	out := obj{}
	for _, n := range names {
		d := obj{{"no_device", n == "wireguard" || n == "none"}, {"no_proto_task", true}, {"available", n == "wireguard"}}
		if n == "wireguard" {
			d = append(d, kv{"validate", obj{{"private_key", "string"}, {"listen_port", "uint"}, {"mtu", "uint"}, {"fwmark", "string"}}})
		}
		out = append(out, kv{n, d})
	}
	return out
}

func (s *system) ubusIface(name, method string) (any, int) {
	i, ok := s.net.find(name)
	if !ok {
		return nil, ubusNotFound
	}
	switch method {
	case "status":
		return s.ifaceStatus(i), ubusOK
	case "up":
		s.net.ifup(name)
	case "down":
		s.net.tear(name)
	case "renew":
		s.net.renew(name)
	case "prepare", "set_data", "notify_proto", "remove":
	default:
		return nil, ubusMethodNotFound
	}
	return nil, ubusOK
}

// ifaceStatus is the reply of `network.interface.X status` (facts 8; NETIFD ubus.c).
func (s *system) ifaceStatus(i netif) obj {
	proto := i.proto
	if i.noProto {
		proto = "none"
	}
	o := obj{{"up", i.up}, {"pending", i.pending}, {"available", !i.noProto}, {"autostart", i.auto}, {"dynamic", false}}
	if i.up {
		o = append(o, kv{"uptime", int64(time.Since(i.since).Seconds())}, kv{"l3_device", i.l3()})
	}
	o = append(o, kv{"proto", proto})
	if i.device != "" && proto != "wireguard" {
		o = append(o, kv{"device", i.device})
	}
	if i.up {
		o = append(o, kv{"updated", []any{"addresses", "routes"}}, kv{"metric", 0}, kv{"dns_metric", 0}, kv{"delegation", true})
		four, six := []any{}, []any{}
		for _, a := range i.addrs {
			e := obj{{"address", a.Addr().String()}, {"mask", a.Bits()}}
			if a.Addr().Is4() {
				four = append(four, e)
			} else {
				six = append(six, e)
			}
		}
		routes := []any{}
		for _, g := range i.gateways {
			p := everything(g)
			routes = append(routes, obj{{"target", p.Addr().String()}, {"mask", 0}, {"nexthop", g.String()}, {"source", source(i)}})
		}
		dns := []any{}
		for _, d := range i.dns {
			dns = append(dns, d.String())
		}
		assigned := []any{}
		rest := []any{}
		for _, e := range six {
			if i.sec.Has("ip6assign") {
				x := e.(obj)
				a, _ := netip.ParseAddr(x[0].v.(string))
				pre, _ := a.Prefix(x[1].v.(int))
				assigned = append(assigned, obj{{"address", pre.Addr().String()}, {"mask", x[1].v}, {"local-address", x}})
			} else {
				rest = append(rest, e)
			}
		}
		search := []any{}
		if i.domain != "" {
			search = append(search, i.domain)
		}
		o = append(o, kv{"ipv4-address", four}, kv{"ipv6-address", rest}, kv{"ipv6-prefix", []any{}}, kv{"ipv6-prefix-assignment", assigned},
			kv{"route", routes}, kv{"dns-server", dns}, kv{"dns-search", search}, kv{"neighbors", []any{}}, kv{"inactive", obj{}})
	}
	o = append(o, kv{"data", obj{}})
	if len(i.errs) > 0 {
		var l []any
		for _, e := range i.errs {
			l = append(l, obj{{"subsystem", e.subsystem}, {"code", e.code}})
		}
		o = append(o, kv{"errors", l})
	}
	return o
}

func source(i netif) string {
	for _, a := range i.addrs {
		if a.Addr().Is4() {
			return a.Addr().String() + "/32"
		}
	}
	return "0.0.0.0/0"
}

func (s *system) devices(name string) (any, int) {
	out := obj{}
	seen := map[string]bool{}
	for _, i := range s.net.list() {
		d := i.l3()
		if d == "" || seen[d] || name != "" && d != name {
			continue
		}
		seen[d] = true
		e := obj{{"external", false}, {"present", true}, {"type", "Network device"}, {"up", i.up}, {"carrier", i.up}, {"mtu", 1500}}
		if name != "" {
			return e, ubusOK
		}
		out = append(out, kv{d, e})
	}
	if name != "" {
		return nil, ubusNotFound
	}
	return out, ubusOK
}

// jsonfilter reads values out of JSON: -i FILE, -s TEXT, -e EXPR (also VAR=EXPR),
// -t for types. Of the language: @, .name, ["name"], [n], [*], .*, and [@.k='v'].
func jsonfilter(p *ash.Proc, args []string) int {
	var src []byte
	var exprs []string
	typ, got := false, false
	for i := 1; i < len(args); i++ {
		next := func() string {
			if i+1 < len(args) {
				i++
				return args[i]
			}
			return ""
		}
		switch args[i] {
		case "-i":
			data, err := p.FS().ReadFile(p.Path(next()))
			if err != nil {
				fmt.Fprintf(p.Stderr(), "Failed to open: %s\n", ash.ErrText(err))
				return 125
			}
			src, got = data, true
		case "-s":
			src, got = []byte(next()), true
		case "-e", "-t":
			typ = args[i] == "-t"
			exprs = append(exprs, next())
		case "-q":
		default:
			exprs = append(exprs, args[i])
		}
	}
	if !got {
		src, _ = io.ReadAll(p.Stdin())
	}
	var root any
	if json.Unmarshal(src, &root) != nil {
		fmt.Fprintln(p.Stderr(), "Failed to parse json data")
		return 126
	}
	st := 0
	for _, e := range exprs {
		name := ""
		if i := strings.Index(e, "=@"); i > 0 {
			name, e = e[:i], e[i+1:]
		}
		vals, ok := jsonPath(root, strings.TrimPrefix(e, "@"))
		if !ok {
			fmt.Fprintln(p.Stderr(), "Syntax error in expression")
			return 127
		}
		if len(vals) == 0 {
			st = 1
			continue
		}
		for _, v := range vals {
			t := jsonText(v)
			if typ {
				t = jsonType(v)
			}
			if name != "" {
				fmt.Fprintf(p.Stdout(), "export %s=%s; ", name, ash.Quote(t))
				continue
			}
			fmt.Fprintln(p.Stdout(), t)
		}
	}
	return st
}

func jsonType(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case float64:
		return "int"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case nil:
		return "null"
	}
	return "object"
}

func jsonText(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case nil:
		return ""
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func jsonPath(v any, path string) ([]any, bool) {
	if path == "" {
		return []any{v}, true
	}
	var all []any
	walk := func(kids []any, rest string) ([]any, bool) {
		for _, k := range kids {
			got, ok := jsonPath(k, rest)
			if !ok {
				return nil, false
			}
			all = append(all, got...)
		}
		return all, true
	}
	children := func() []any {
		var l []any
		switch x := v.(type) {
		case []any:
			l = x
		case map[string]any:
			var names []string
			for n := range x {
				names = append(names, n)
			}
			sort.Strings(names)
			for _, n := range names {
				l = append(l, x[n])
			}
		}
		return l
	}
	switch {
	case strings.HasPrefix(path, ".*"):
		return walk(children(), path[2:])
	case path[0] == '.':
		i := 1
		for i < len(path) && path[i] != '.' && path[i] != '[' {
			i++
		}
		if m, ok := v.(map[string]any); ok {
			if k, ok := m[path[1:i]]; ok {
				return walk([]any{k}, path[i:])
			}
		}
		return nil, true
	case path[0] == '[':
		end := strings.IndexByte(path, ']')
		if end < 0 {
			return nil, false
		}
		in, rest := path[1:end], path[end+1:]
		switch {
		case in == "*":
			return walk(children(), rest)
		case len(in) > 1 && (in[0] == '"' || in[0] == '\''):
			if m, ok := v.(map[string]any); ok {
				if k, ok := m[in[1:len(in)-1]]; ok {
					return walk([]any{k}, rest)
				}
			}
			return nil, true
		case strings.HasPrefix(in, "@."):
			k, want, ok := strings.Cut(in[2:], "=")
			if !ok {
				return nil, false
			}
			want = strings.Trim(strings.TrimPrefix(want, "="), `'"`)
			var hit []any
			for _, c := range children() {
				if m, ok := c.(map[string]any); ok && jsonText(m[k]) == want {
					hit = append(hit, c)
				}
			}
			return walk(hit, rest)
		default:
			n, err := strconv.Atoi(in)
			if err != nil {
				return nil, false
			}
			if l, ok := v.([]any); ok {
				if n < 0 {
					n += len(l)
				}
				if n >= 0 && n < len(l) {
					return walk([]any{l[n]}, rest)
				}
			}
			return nil, true
		}
	}
	return nil, false
}
