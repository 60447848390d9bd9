package view

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/plan"
)

// Plan writes a plan like a diff that a person understands. all also shows every
// option of new sections; without it a new section is one line.
func Plan(w io.Writer, st Style, p *plan.Plan, all bool) {
	fmt.Fprintf(w, "%s\n", st.Strong(routerLine(p.Router)))
	if p.Empty() && len(p.Blocked) == 0 {
		fmt.Fprintf(w, "  %s everything is as home.toml wants it\n", st.Good("✓"))
		notes(w, st, p)
		return
	}
	for _, s := range p.Steps {
		step(w, st, s, all)
	}
	if !slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Do == plan.Adjust || s.Foreign }) && len(p.Configs()) > 0 {
		fmt.Fprintf(w, "  %s nothing of yours is changed\n", st.Dim("="))
	}
	for _, r := range p.Risks() {
		fmt.Fprintf(w, "  %s %s\n", st.Changed("!"), riskText(r))
	}
	notes(w, st, p)
	for _, f := range p.Blocked {
		fmt.Fprintln(w)
		one(w, st, f)
	}
}

func routerLine(r plan.Router) string {
	s := r.Model + ", " + r.Release
	if r.Hostname != "" {
		s = r.Hostname + ": " + s
	}
	return clean(s)
}

func notes(w io.Writer, st Style, p *plan.Plan) {
	for _, n := range p.Notes {
		fmt.Fprintf(w, "  %s %s", st.Dim("i"), n.Text)
		if n.Next != "" {
			fmt.Fprintf(w, "; %s", n.Next)
		}
		fmt.Fprintln(w)
	}
}

// step writes one step. What only makes the files live is not shown to people:
// it follows from the rest, and its risk is shown.
func step(w io.Writer, st Style, s plan.Step, all bool) {
	if s.Do == plan.Activate && !all || s.Do == plan.Record && !all {
		return
	}
	mark, what := headline(st, s)
	fmt.Fprintf(w, "  %s %-34s %s\n", mark, clean(what), st.Dim(clean(detail(s))))
	if s.Drift {
		fmt.Fprintf(w, "      %s\n", st.Changed(clean(s.Who)))
	}
	switch s.Do {
	case plan.Change, plan.Adjust:
		changed(w, st, s)
	case plan.Create:
		if all {
			for _, l := range s.New {
				fmt.Fprintf(w, "      %s\n", st.Added(lineText(l)))
			}
		}
	case plan.Remove:
		if all {
			for _, l := range s.Old {
				fmt.Fprintf(w, "      %s\n", st.Removed(lineText(l)))
			}
		}
	}
}

// detail is what stands beside the headline: why, or for a peer and a tunnel,
// whose reason is plain, with which addresses.
func detail(s plan.Step) string {
	if s.Do != plan.Create || s.Name == "" && s.Type != "interface" {
		return s.Why
	}
	option := func(name string) []string {
		for _, l := range s.New {
			if l.Option == name {
				return slices.Clone(l.Values)
			}
		}
		return nil
	}
	words := append(option("addresses"), option("allowed_ips")...)
	for i, w := range words {
		words[i] = strings.TrimSuffix(strings.TrimSuffix(w, "/32"), "/128")
	}
	if port := option("listen_port"); port != nil {
		words = append(words, "UDP "+port[0])
	}
	if slices.Contains(option("disabled"), "1") {
		words = append(words, "disabled")
	}
	return strings.Join(words, ", ")
}

// howText says in words how written settings are made live.
var howText = map[plan.How]string{
	plan.NetworkRestart: "restart the networks",
	plan.NetworkReload:  "reload the networks",
	plan.TunnelUp:       "restart the tunnel",
	plan.TunnelRenew:    "renew the tunnel",
	plan.FirewallReload: "reload the firewall",
	plan.DnsmasqReload:  "reload DNS and DHCP",
	plan.OdhcpdReload:   "reload IPv6 announcements",
	plan.DropbearReload: "reload the SSH server",
	plan.DDNSRestart:    "tell the service the address",
}

func headline(st Style, s plan.Step) (mark, what string) {
	add, change, remove := st.Added("+"), st.Changed("~"), st.Removed("-")
	switch s.Do {
	case plan.Authorize:
		return add, "your SSH key"
	case plan.SetPassword:
		return add, "a password for root"
	case plan.Install:
		return add, "package " + s.Name
	case plan.Create:
		return add, subject(s)
	case plan.Change:
		return change, subject(s)
	case plan.Remove:
		return remove, subject(s)
	case plan.Adjust:
		return change, fmt.Sprintf("yours: %s.%s", s.Config, s.Section)
	case plan.PeerAdd:
		return add, "live: peer " + orKey(s)
	case plan.PeerChange:
		return change, "live: peer " + orKey(s)
	case plan.PeerRemove:
		return remove, "live: peer " + orKey(s)
	case plan.Activate:
		return change, "make live: " + cmp.Or(howText[s.How], string(s.How))
	case plan.Record:
		return change, "heimweg's note on the router"
	}
	return "?", string(s.Do)
}

func orKey(s plan.Step) string {
	if s.Name != "" {
		return s.Name
	}
	return s.Key[:min(8, len(s.Key))] + "…"
}

// subject names a section in the household's words.
func subject(s plan.Step) string {
	option := func(name string) string {
		for _, lines := range [][]plan.Line{s.New, s.Old} {
			for _, l := range lines {
				if l.Option == name {
					return strings.Join(l.Values, " ")
				}
			}
		}
		return ""
	}
	switch {
	case s.Type == "interface":
		return "tunnel " + s.Section
	case s.Name != "" && s.Foreign:
		return "hand-made section of " + s.Name
	case s.Name != "":
		return "peer " + s.Name
	case s.Type == "zone":
		return "firewall zone " + option("name")
	case s.Type == "forwarding":
		return fmt.Sprintf("way %s → %s", option("src"), option("dest"))
	case s.Type == "rule" && option("dest") != "":
		return fmt.Sprintf("rule %s → %s %s", option("src"), option("dest"), option("dest_ip"))
	case s.Type == "rule" && option("dest_port") != "":
		return fmt.Sprintf("open %s/%s from %s", option("dest_port"), strings.ReplaceAll(option("proto"), " ", "+"), option("src"))
	case s.Type == "rule" && option("icmp_type") == "echo-request":
		return fmt.Sprintf("open ping from %s%s", option("src"), map[bool]string{true: " (IPv6)"}[option("family") == "ipv6"])
	case s.Type == "rule":
		return fmt.Sprintf("open %s from %s", option("proto"), option("src"))
	case s.Type == "redirect":
		return "port forward " + option("name")
	case s.Type == "nat":
		return "NAT towards " + option("src")
	case s.Type == "service":
		family := map[bool]string{true: " (IPv6)"}[option("use_ipv6") == "1"]
		return "name " + option("domain") + family
	}
	return s.Config + "." + s.Section
}

func changed(w io.Writer, st Style, s plan.Step) {
	for _, o := range s.Old {
		n := slices.IndexFunc(s.New, func(l plan.Line) bool { return l.Option == o.Option })
		switch {
		case n < 0:
			fmt.Fprintf(w, "      %s\n", st.Removed("- "+lineText(o)))
		case !s.New[n].Equal(o) || s.New[n].Secret == plan.SecretNew:
			fmt.Fprintf(w, "      %-14s %s → %s\n", o.Option, valueText(o), st.Changed(valueText(s.New[n])))
		}
	}
	for _, n := range s.New {
		if !slices.ContainsFunc(s.Old, func(l plan.Line) bool { return l.Option == n.Option }) {
			fmt.Fprintf(w, "      %s\n", st.Added("+ "+lineText(n)))
		}
	}
}

func lineText(l plan.Line) string { return fmt.Sprintf("%-14s %s", l.Option, valueText(l)) }

func valueText(l plan.Line) string {
	switch l.Secret {
	case plan.SecretNew:
		if l.Option == "password" {
			return "(secret, asked for)"
		}
		return "(secret, made now)"
	case plan.SecretKept, plan.SecretThere:
		return "(secret, stays)"
	}
	return clean(strings.Join(l.Values, ", "))
}

func riskText(r plan.Risk) string {
	switch r {
	case plan.PausesNetwork:
		return "the router's networks pause for a moment; connections survive"
	case plan.DropsPeers:
		return "devices that are in lose their tunnel for up to 15 s"
	case plan.ForgetsKeys:
		return "the router forgets private keys of devices that lie on it (forgets-keys)"
	case plan.DropsConnection:
		return "the router changes its address; this computer and everything in the home LAN must get new ones (drops-connection)"
	}
	return string(r)
}
