package plan_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata")

// TestScenarios draws and plans every scenario of testdata for the releases it
// names and compares with the texts in it. Files network, firewall and dhcp of a
// scenario replace those of the release.
func TestScenarios(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txtar")
	if len(files) < 10 {
		t.Fatalf("only %d scenarios found", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { scenario(t, file) })
	}
}

func scenario(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a := txtar.Parse(data)
	parts := archive(t, file)
	h := parseHome(t, parts["home.toml"])
	got := map[string]string{}
	for _, release := range strings.Fields(parts["releases"]) {
		s := shipped(t, release)
		for _, c := range router.Touched() {
			if text, ok := parts[c]; ok {
				put(t, s, c, text)
			}
		}
		arrange(t, s, parts["live"])
		p, want := plan.For(h, s, access)
		got["want "+release] = drawing(want)
		got["plan "+release] = text(p)
		if len(p.Blocked) > 0 {
			continue
		}
		after := settle(t, s, p, secretsFor(h))
		mustEmpty(t, h, after)
		foreignUntouched(t, s, after, p)
	}
	if *update {
		rewrite(t, file, a, got)
		return
	}
	compare(t, a, got)
}

func compare(t *testing.T, a *txtar.Archive, got map[string]string) {
	seen := map[string]bool{}
	for _, f := range a.Files {
		g, ok := got[f.Name]
		if !ok {
			if strings.HasPrefix(f.Name, "want ") || strings.HasPrefix(f.Name, "plan ") {
				t.Errorf("%s is in the file and was not made", f.Name)
			}
			continue
		}
		seen[f.Name] = true
		if d := cmp.Diff(string(f.Data), g); d != "" {
			t.Errorf("%s (-file +now):\n%s", f.Name, d)
		}
	}
	for name := range got {
		if !seen[name] {
			t.Errorf("the file has no part %q; run go test -update", name)
		}
	}
}

func rewrite(t *testing.T, file string, a *txtar.Archive, got map[string]string) {
	kept := a.Files[:0]
	for _, f := range a.Files {
		if !strings.HasPrefix(f.Name, "want ") && !strings.HasPrefix(f.Name, "plan ") {
			kept = append(kept, f)
		}
	}
	a.Files = kept
	for _, r := range releases {
		for _, kind := range []string{"want ", "plan "} {
			if g, ok := got[kind+r]; ok {
				a.Files = append(a.Files, txtar.File{Name: kind + r, Data: []byte(g)})
			}
		}
	}
	if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// arrange changes what is live: lines "wan 192.168.2.253/24", "installed NAME",
// "no wan".
func arrange(t *testing.T, s *router.Snapshot, text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case f[0] == "installed":
			s.Installed = append(s.Installed, router.Package{Name: f[1]})
		case f[0] == "no":
			s.Interfaces = without(s.Interfaces, f[1])
		default:
			i := router.Interface{Name: f[0], Device: f[0], Proto: "dhcp", Up: true, Addresses: prefixes(f[1:]...)}
			if old, ok := s.Interface(f[0]); ok {
				i.Device, i.Proto, i.Gateways = old.Device, old.Proto, old.Gateways
			}
			s.Interfaces = append(without(s.Interfaces, f[0]), i)
		}
	}
}

func without(list []router.Interface, name string) []router.Interface {
	var out []router.Interface
	for _, i := range list {
		if i.Name != name {
			out = append(out, i)
		}
	}
	return out
}

// foreignUntouched compares all sections that are not ours: same options, same
// order; only the adjusted options may differ.
func foreignUntouched(t tb, before, after *router.Snapshot, p *plan.Plan) {
	t.Helper()
	for _, c := range router.Touched() {
		x, y := foreign(c, before), foreign(c, after)
		if len(x) != len(y) {
			t.Errorf("%s had %d sections of others and has %d", c, len(x), len(y))
			continue
		}
		for i := range x {
			for _, s := range p.Only(plan.Adjust) {
				if s.Config == c {
					option := s.ID[strings.LastIndex(s.ID, ".")+1:]
					x[i], y[i] = x[i].Without(option), y[i].Without(option)
				}
			}
			if !uci.EqualSections(x[i], y[i]) {
				t.Errorf("%s.%s of others has changed", c, x[i].Name)
			}
		}
	}
}

func foreign(config string, s *router.Snapshot) []uci.Section {
	var out []uci.Section
	for _, sec := range s.Config(config).Sections() {
		if !strings.HasPrefix(sec.Name, "hw_") && !sec.Bool("heimweg", false) {
			out = append(out, sec)
		}
	}
	return out
}

// drawing prints what is wanted, in UCI's own form where there is one.
func drawing(w blueprint.Want) string {
	var b strings.Builder
	for _, config := range router.Touched() {
		for _, o := range w.Sections {
			if o.Config != config {
				continue
			}
			fmt.Fprintf(&b, "%s %s %s\t# %s\n", config, o.Section.Type, o.Section.Name, o.Why)
			for _, opt := range o.Section.Options {
				word := "option"
				if opt.List {
					word = "list"
				}
				for _, v := range opt.Values {
					fmt.Fprintf(&b, "\t%s %s '%s'\n", word, opt.Name, v)
				}
			}
		}
	}
	for _, a := range w.Adjust {
		fmt.Fprintf(&b, "adjust %s.%s.%s = %q list=%v cuts=%v\t# %s\n", a.Config, a.Section, a.Option, a.Values, a.List, a.Cuts, a.Why)
	}
	for _, p := range w.Packages {
		fmt.Fprintf(&b, "package %s %v\t# %s\n", p.Name, p.Or, p.Why)
	}
	if w.Mapping != nil {
		fmt.Fprintf(&b, "mapping %s %d → %d\n", w.Mapping.Proto, w.Mapping.External, w.Mapping.Internal)
	}
	for _, l := range w.LANs {
		fmt.Fprintf(&b, "lan %s zone %s %s\n", l.Interface, l.Zone, l.Address)
	}
	return b.String()
}

// text prints a plan for these tests; people see package view's text.
func text(p *plan.Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%s", s.ID)
		if s.Risk != "" {
			fmt.Fprintf(&b, " !%s", s.Risk)
		}
		if s.Drift {
			fmt.Fprintf(&b, " drift(%s)", s.Who)
		}
		if s.From != "" {
			fmt.Fprintf(&b, " from %s", s.From)
		}
		fmt.Fprintf(&b, "\t# %s\n", s.Why)
		if s.Do == plan.Create {
			continue // the want part shows it
		}
		for _, l := range s.Old {
			fmt.Fprintf(&b, "\t- %s %q %s\n", l.Option, l.Values, l.Secret)
		}
		for _, l := range s.New {
			fmt.Fprintf(&b, "\t+ %s %q %s\n", l.Option, l.Values, l.Secret)
		}
	}
	for _, f := range p.Blocked {
		fmt.Fprintf(&b, "blocked %s: %s\n", f.Code, f.What)
		for _, l := range f.Seen {
			fmt.Fprintf(&b, "\tseen %s\n", l)
		}
		for _, l := range f.Why {
			fmt.Fprintf(&b, "\twhy %s\n", l)
		}
		for _, l := range f.Next {
			fmt.Fprintf(&b, "\tnext %s\n", l)
		}
	}
	for _, m := range p.Moves {
		fmt.Fprintf(&b, "moves %s %s → %s\n", m.Interface, m.From, m.To)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note %s: %s", n.Code, n.Text)
		if n.Next != "" {
			fmt.Fprintf(&b, "; %s", n.Next)
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "guard %v risks %v\n", p.NeedsGuard(), p.Risks())
	return b.String()
}
