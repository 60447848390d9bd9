package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A layer says how far from the outside world a package is.
type layer string

const (
	core    layer = "core"    // computes; knows no files, sockets, processes, clock or log
	edge    layer = "edge"    // one outside world each; never prints
	flow    layer = "flow"    // order without protocol
	surface layer = "surface" // talks to people, wires the rest
	lab     layer = "lab"     // the emulated home; independent of what it tests
	tool    layer = "tool"    // checks of the repository itself; no part of the program
)

// mayImport lists, for each layer, the layers whose packages it may import
// without being named in the table.
var mayImport = map[layer][]layer{
	core:    {core},
	edge:    {core},
	flow:    {core, edge},
	surface: {core, flow}, // a view shows the values that flows return
	lab:     {core, lab},
	tool:    {tool},
}

// why explains a refusal to whoever meets it.
var why = map[layer]string{
	core:    "the core computes from what it is given, so that it can be tested without a world and run anywhere; take the value as an argument, or move the code into an edge or a flow",
	edge:    "an edge knows one outside world and is told everything else by its caller; name the pair in the table only when one edge really speaks through another",
	flow:    "a flow puts edges in order and never talks to people; hand what it learns to its caller as a value",
	surface: "only cli and web wire edges in; a view shows the values it is given",
	lab:     "an emulator that shares code with the client it tests agrees with its mistakes; take the behaviour from the device",
	tool:    "the checks must run when the program is broken",
}

// A row is a package of the table.
type row struct {
	layer layer
	// also lists imports beyond the layer's, each a decision.
	also []string
}

// table is every package of the program by directory. A new package gets its row
// in the commit that makes it.
var table = map[string]row{
	"internal/adopt":      {core, nil},
	"internal/backup":     {core, nil},
	"internal/blueprint":  {core, nil},
	"internal/cryptokey":  {core, nil},
	"internal/doctor":     {core, nil},
	"internal/endpoint":   {core, nil},
	"internal/fault":      {core, nil},
	"internal/firewall":   {core, nil},
	"internal/home":       {core, nil},
	"internal/image":      {core, nil},
	"internal/isprouters": {core, nil},
	"internal/key":        {core, nil},
	"internal/plan":       {core, nil},
	"internal/propose":    {core, nil},
	"internal/qr":         {core, nil},
	"internal/relay":      {core, nil},
	"internal/router":     {core, nil},
	"internal/shadow":     {core, nil},
	"internal/subnet":     {core, nil},
	"internal/trace":      {core, nil},
	"internal/uci":        {core, nil},
	"internal/uci/scan":   {core, nil},
	"internal/wgconf":     {core, nil},

	"internal/eva":      {edge, nil},
	"internal/firmware": {edge, nil},
	// What is borrowed on this computer is remembered in a file, locked and whole.
	"internal/hostnet": {edge, []string{"internal/hostnet/ether", "internal/store"}},
	// A host on an Ethernet cable has the same TCP/IP as one in a tunnel.
	"internal/hostnet/ether": {edge, []string{"internal/tunnel/ipstack"}},
	// Everything that openwrt knows about a router comes out of a shell.
	"internal/openwrt": {edge, []string{"internal/shell"}},
	"internal/outside": {edge, nil},
	// age takes its randomness from the computer, so sealing is no part of the core.
	"internal/seal":   {edge, nil},
	"internal/shell":  {edge, nil},
	"internal/store":  {edge, nil},
	"internal/tunnel": {edge, []string{"internal/tunnel/ipstack"}},
	// The TCP/IP stack behind the tunnel, a package of its own because gVisor is large.
	"internal/tunnel/ipstack": {edge, nil},
	"internal/uplink":         {edge, nil},

	"internal/apply": {flow, []string{"internal/event"}},
	// What flows tell while they work; it stamps how long a stage took.
	"internal/event":   {flow, nil},
	"internal/flash":   {flow, []string{"internal/event"}},
	"internal/locate":  {flow, []string{"internal/event"}},
	"internal/openway": {flow, []string{"internal/event"}},
	// The device that doctor sends into the tunnel is that of verify.
	"internal/probe": {flow, []string{"internal/event", "internal/verify"}},
	// An upgrade, and what is put back from a backup, end as every change does:
	// guarded, by apply.
	"internal/restore": {flow, []string{"internal/apply", "internal/event"}},
	"internal/upgrade": {flow, []string{"internal/apply", "internal/event", "internal/restore"}},
	"internal/verify":  {flow, []string{"internal/event"}},

	"internal/view": {surface, nil},
	// The only places that wire edges, flows and, for `heimweg lab`, the lab.
	"internal/cli": {surface, []string{"edge", "lab", "internal/view"}},
	"internal/web": {surface, []string{"edge", "internal/view"}},
	"cmd/heimweg":  {surface, []string{"internal/cli"}},

	"internal/lab":              {lab, nil},
	"internal/lab/device":       {lab, nil},
	"internal/lab/dyndns":       {lab, nil},
	"internal/lab/evabox":       {lab, nil},
	"internal/lab/igd":          {lab, nil},
	"internal/lab/ispbox":       {lab, nil},
	"internal/lab/kernel":       {lab, nil},
	"internal/lab/mirror":       {lab, nil},
	"internal/lab/nas":          {lab, nil},
	"internal/lab/owrt":         {lab, nil},
	"internal/lab/owrt/ash":     {lab, nil},
	"internal/lab/owrt/boxfs":   {lab, nil},
	"internal/lab/owrt/busybox": {lab, nil},
	"internal/lab/owrt/ucicli":  {lab, nil},
	"internal/lab/owrt/uciargs": {lab, nil},
	"internal/lab/phone":        {lab, nil},
	"internal/lab/smallserver":  {lab, nil},
	"internal/lab/tcpip":        {lab, nil},
	"internal/lab/world":        {lab, nil},

	// Makes firmware files for tests and for the emulated boot loader; shares no
	// code with package image, which judges them.
	"internal/image/imagetest": {lab, nil},

	"internal/check":      {tool, nil},
	"internal/check/need": {tool, nil},
}

// Standard packages that bring in a world. net/netip is data and not among them.
var worldly = []string{
	"os", "os/exec", "os/signal", "os/user", "io/ioutil", "path/filepath", "plugin", "syscall", "runtime/debug",
	"net", "net/http", "net/smtp", "net/rpc", "net/textproto", "crypto/tls", "database/sql",
	"log", "log/syslog", "testing", "flag", "crypto/rand", "math/rand", "math/rand/v2", "unsafe", "C",
}

// What the core takes from others: pure libraries, one reason each.
var coreLibraries = map[string]string{
	"github.com/pelletier/go-toml/v2":          "home.toml is TOML",
	"github.com/pelletier/go-toml/v2/unstable": "home.toml is edited in place",
	"rsc.io/qr": "QR codes",
}

// mayUse decides about one import; "" means yes, else the reason.
func mayUse(pkg string, r row, imported string) string {
	local, ours := strings.CutPrefix(imported, module)
	if !ours {
		return mayUseForeign(r, imported)
	}
	target, known := table[local]
	switch {
	case !known:
		return "it is not in the table of internal/check/layers_test.go"
	case slices.Contains(mayImport[r.layer], target.layer), slices.Contains(r.also, local), slices.Contains(r.also, string(target.layer)):
		return ""
	}
	return fmt.Sprintf("%s is %s and %s is %s: %s", pkg, r.layer, local, target.layer, why[r.layer])
}

func mayUseForeign(r row, imported string) string {
	standard := !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
	switch {
	case r.layer == tool && !standard:
		return "the checks use the standard library only: " + why[tool]
	case r.layer != core:
		return ""
	case slices.Contains(worldly, imported):
		return why[core]
	case !standard && coreLibraries[imported] == "":
		return "the core uses few libraries, each with a reason in coreLibraries"
	}
	return ""
}

// The table of imports: who may know whom.
func TestImports(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		r, known := table[f.pkg]
		if !known {
			t.Errorf("%s: package %s is not in the table of internal/check/layers_test.go; give it a row, which says what it may import", f.path, f.pkg)
			continue
		}
		if f.test {
			continue // a test may stand anywhere: it brings the world that the package is spared
		}
		for _, i := range f.imports() {
			if reason := mayUse(f.pkg, r, i); reason != "" {
				t.Errorf("%s imports %s, which it may not: %s", f.path, i, reason)
			}
		}
	}
}

// Tests are freer, with one limit: the core's tests stay runnable without a
// world, and an emulator's own tests may meet its client only from outside.
func TestImportsOfTests(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		r := table[f.pkg]
		if !f.test || r.layer != core {
			continue
		}
		for _, i := range f.imports() {
			local, ours := strings.CutPrefix(i, module)
			if l := table[local].layer; ours && l != core && l != tool && l != lab {
				t.Errorf("%s imports %s: the core's tests need no %s", f.path, local, l)
			}
		}
	}
}

// The table must refuse what it is there for; else it is decoration.
func TestTableRefuses(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"internal/key", "os", false},
		{"internal/key", "net", false},
		{"internal/key", "net/netip", true},
		{"internal/key", "crypto/rand", false},
		{"internal/plan", "log", false},
		{"internal/plan", module + "internal/openwrt", false},
		{"internal/plan", module + "internal/router", true},
		{"internal/router", module + "internal/key", true},
		{"internal/router", module + "internal/uci", true},
		{"internal/subnet", "github.com/spf13/cobra", false},
		{"internal/qr", "rsc.io/qr", true},
		{"internal/openwrt", module + "internal/shell", true},
		{"internal/openwrt", module + "internal/tunnel", false},
		{"internal/shell", module + "internal/openwrt", false},
		{"internal/shell", module + "internal/apply", false},
		{"internal/apply", module + "internal/openwrt", true},
		{"internal/apply", module + "internal/cli", false},
		{"internal/apply", module + "internal/lab", false},
		{"internal/view", module + "internal/openwrt", false},
		{"internal/view", module + "internal/apply", true},
		{"internal/view", module + "internal/cli", false},
		{"internal/cli", module + "internal/apply", true},
		{"internal/cli", module + "internal/lab/owrt", true},
		{"internal/lab/owrt", module + "internal/uci", true},
		{"internal/lab/owrt", module + "internal/openwrt", false},
		{"internal/lab/owrt", module + "internal/shell", false},
		{"internal/lab/owrt", module + "internal/apply", false},
		{"internal/lab/phone", module + "internal/tunnel", false},
		{"cmd/heimweg", module + "internal/cli", true},
		{"cmd/heimweg", module + "internal/openwrt", false},
		{"internal/check", module + "internal/uci", false},
		{"internal/check", "github.com/google/go-cmp/cmp", false},
		{"internal/key", module + "internal/nobody", false},
	} {
		if got := mayUse(c.pkg, table[c.pkg], c.imported); (got == "") != c.ok {
			t.Errorf("%s importing %s: got %q", c.pkg, c.imported, got)
		}
	}
}

// Imports alone do not show everything: these calls are forbidden, too.
func TestCalls(t *testing.T) {
	set, files := sources(t)
	for _, f := range files {
		r, known := table[f.pkg]
		if f.test || !known {
			continue
		}
		for _, c := range forbidden {
			if slices.Contains(c.except, r.layer) {
				continue
			}
			for name, at := range f.uses(c.pkg) {
				if slices.Contains(c.names, name) {
					t.Errorf("%s:%d: %s.%s: %s", f.path, set.Position(at).Line, c.pkg, name, c.why)
				}
			}
		}
	}
}

var forbidden = []struct {
	pkg    string
	names  []string
	except []layer
	why    string
}{
	{"time", []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"},
		[]layer{edge, flow, surface, lab, tool}, "the core knows no clock; take the time as an argument"},
	{"time", []string{"Sleep"}, nil, "wait for a fact with a deadline, never for time to pass"},
	{"log/slog", []string{"Debug", "Info", "Warn", "Error", "Log", "Default", "SetDefault", "New", "With"},
		[]layer{edge, flow, surface, lab, tool}, "the core does not log; return what there is to say"},
	{"fmt", []string{"Print", "Printf", "Println"},
		[]layer{tool}, "only the surface prints, and to the writers it was given"},
	{"os", []string{"Stdout", "Stderr", "Stdin"},
		[]layer{surface, tool}, "only the surface talks to people"},
	{"os", []string{"Exit"}, []layer{surface, tool}, "return an error; a router may be half configured"},
	{"log", []string{"Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln"}, nil, "return an error; a router may be half configured"},
}
