package view

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/verify"
)

// Status is what `heimweg status` tells. Its JSON form is stable.
type Status struct {
	Router      plan.Router  `json:"router"`
	Uptime      int64        `json:"uptime_seconds"`
	Tunnel      TunnelStatus `json:"tunnel"`
	Peers       []PeerStatus `json:"peers"`
	Differences []string     `json:"differences"`
	// Where is where home is, as far as one look and public DNS tell.
	Where *endpoint.Verdict `json:"where,omitempty"`
}

// TunnelStatus is the tunnel on the router.
type TunnelStatus struct {
	Interface string   `json:"interface"`
	Up        bool     `json:"up"`
	PublicKey string   `json:"public_key,omitempty"`
	Port      uint16   `json:"port,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// PeerStatus is one device. Handshake is null when there was none since the
// tunnel was made.
type PeerStatus struct {
	Name      string     `json:"name"`
	Address   string     `json:"address,omitempty"`
	PublicKey string     `json:"public_key"`
	Known     bool       `json:"in_home_toml"`
	Disabled  bool       `json:"disabled,omitempty"`
	Live      bool       `json:"live"`
	Handshake *time.Time `json:"latest_handshake"`
	Age       int64      `json:"age_seconds,omitempty"` // by the router's clock
	Endpoint  string     `json:"endpoint,omitempty"`
	Received  int64      `json:"received_bytes"`
	Sent      int64      `json:"sent_bytes"`
}

// StatusOf gathers what is to be told.
func StatusOf(h home.Home, s *router.Snapshot, p *plan.Plan) Status {
	st := Status{Router: p.Router, Uptime: int64(s.Uptime.Seconds()), Peers: []PeerStatus{}, Differences: []string{}}
	st.Tunnel.Interface = h.Tunnel.Interface
	live := s.Tunnels[h.Tunnel.Interface]
	if i, ok := s.Interface(h.Tunnel.Interface); ok {
		st.Tunnel.Up = i.Up
		for _, a := range i.Addresses {
			st.Tunnel.Addresses = append(st.Tunnel.Addresses, a.String())
		}
	}
	if live != nil {
		st.Tunnel.PublicKey, st.Tunnel.Port = live.PublicKey.String(), live.ListenPort
	}
	known := map[key.Public]bool{}
	for _, hp := range h.Peers {
		known[hp.PublicKey] = true
		ps := PeerStatus{Name: hp.Name, Address: hp.Address.String(), PublicKey: hp.PublicKey.String(), Known: true, Disabled: hp.Disabled}
		if lp, ok := live.Peer(hp.PublicKey); ok {
			ps.fill(lp, s.Time)
		}
		st.Peers = append(st.Peers, ps)
	}
	if live != nil {
		for _, lp := range live.Peers {
			if !known[lp.PublicKey] {
				ps := PeerStatus{Name: "?", PublicKey: lp.PublicKey.String()}
				ps.fill(lp, s.Time)
				st.Peers = append(st.Peers, ps)
			}
		}
	}
	for _, step := range p.Steps {
		if step.Do != plan.Activate && step.Do != plan.Record {
			st.Differences = append(st.Differences, difference(step))
		}
	}
	for _, b := range p.Blocked {
		st.Differences = append(st.Differences, b.What)
	}
	return st
}

// difference says what the router has, seen from what home.toml asks for.
func difference(s plan.Step) string {
	_, what := headline(Style{}, s)
	switch s.Do {
	case plan.Remove, plan.PeerRemove:
		what += " should not be there"
	case plan.Change, plan.Adjust, plan.PeerChange:
		what += " is different"
	default:
		what += " is missing"
	}
	if s.Drift {
		what += "; " + s.Who
	}
	return what
}

func (p *PeerStatus) fill(l router.Peer, now time.Time) {
	p.Live, p.Received, p.Sent = true, l.Received, l.Sent
	if l.Endpoint.IsValid() {
		p.Endpoint = l.Endpoint.String()
	}
	if !l.Handshake.IsZero() {
		at := l.Handshake.UTC()
		p.Handshake, p.Age = &at, int64(now.Sub(l.Handshake).Seconds())
	}
}

// session: WireGuard refuses keys older than 180 s, so a handshake younger than
// that means that the device is in right now (wireguard-linux-compat, messages.h).
const session = 180

// StatusText writes a status for people.
func StatusText(w io.Writer, st Style, s Status) {
	fmt.Fprintf(w, "%s, up %s\n", st.Strong(routerLine(s.Router)), span(s.Uptime))
	switch {
	case s.Tunnel.Up:
		fmt.Fprintf(w, "tunnel %s  %s  port %d  key %s\n", s.Tunnel.Interface, st.Good("up"), s.Tunnel.Port, s.Tunnel.PublicKey)
	default:
		fmt.Fprintf(w, "tunnel %s  %s\n", s.Tunnel.Interface, st.Bad("not there"))
	}
	if len(s.Peers) > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "device\taddress\tlatest handshake\tfrom\treceived\tsent")
		for _, p := range s.Peers {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", peerName(p), cmp.Or(p.Address, "-"), p.state(), cmp.Or(p.Endpoint, "-"), size(p.Received), size(p.Sent))
		}
		t.Flush()
	} else {
		fmt.Fprintln(w, "no devices yet: heimweg peer add phone")
	}
	fmt.Fprintln(w)
	if s.Where != nil && s.Where.Notable() {
		Where(w, st, *s.Where)
		fmt.Fprintln(w)
	}
	if len(s.Differences) == 0 {
		fmt.Fprintf(w, "%s the router is as home.toml wants it\n", st.Good("✓"))
		return
	}
	fmt.Fprintf(w, "%s the router differs from home.toml; heimweg apply mends it:\n", st.Changed("!"))
	for _, d := range s.Differences {
		fmt.Fprintf(w, "  %s\n", clean(d))
	}
}

func peerName(p PeerStatus) string {
	if p.Known {
		return p.Name
	}
	return "stranger " + p.PublicKey[:8] + "…"
}

func (p PeerStatus) state() string {
	switch {
	case p.Disabled:
		return "disabled"
	case !p.Live:
		return "not on the router"
	case p.Handshake == nil:
		return "never since the tunnel started"
	case p.Age < session:
		return span(p.Age) + " ago, home"
	}
	return span(p.Age) + " ago"
}

// span writes seconds the way people say them.
func span(s int64) string {
	switch {
	case s < 0:
		return "in the future"
	case s < 120:
		return fmt.Sprintf("%d s", s)
	case s < 2*3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h", s/3600)
	}
	return fmt.Sprintf("%d days", s/86400)
}

func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// A Peer is one device as home.toml has it.
type Peer struct {
	Name      string `json:"name"`
	Address   string `json:"address"`
	Address6  string `json:"address6,omitempty"`
	PublicKey string `json:"public_key"`
	Preshared bool   `json:"preshared"`
	Disabled  bool   `json:"disabled"`
	Admin     bool   `json:"admin"`
	Keepalive int    `json:"keepalive_seconds"`
}

// PeerOf tells of one device.
func PeerOf(_ home.Home, p home.Peer) Peer {
	v := Peer{Name: p.Name, Address: p.Address.String(), PublicKey: p.PublicKey.String(), Preshared: p.Preshared,
		Disabled: p.Disabled, Admin: p.Admin, Keepalive: p.Keepalive}
	if p.Address6.IsValid() {
		v.Address6 = p.Address6.String()
	}
	return v
}

// Peers tells of all devices.
func Peers(h home.Home) []Peer {
	out := []Peer{}
	for _, p := range h.Peers {
		out = append(out, PeerOf(h, p))
	}
	return out
}

// PeerTable lists devices.
func PeerTable(w io.Writer, h home.Home) {
	if len(h.Peers) == 0 {
		fmt.Fprintln(w, "no devices yet: heimweg peer add phone")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "device\taddress\tpublic key")
	for _, p := range h.Peers {
		extra := ""
		if p.Disabled {
			extra = "\tdisabled"
		} else if p.Admin {
			extra = "\tmay log in to the router"
		}
		fmt.Fprintf(t, "%s\t%s\t%s%s\n", p.Name, p.Address, p.PublicKey, extra)
	}
	t.Flush()
}

// PeerDetail shows one device.
func PeerDetail(w io.Writer, h home.Home, p home.Peer) {
	v := PeerOf(h, p)
	fmt.Fprintf(w, "%s\n  address     %s\n", v.Name, v.Address)
	if v.Address6 != "" {
		fmt.Fprintf(w, "              %s\n", v.Address6)
	}
	fmt.Fprintf(w, "  public key  %s\n", v.PublicKey)
	yes := map[bool]string{true: "yes", false: "no"}
	fmt.Fprintf(w, "  preshared   %s\n  disabled    %s\n  log in      %s, to the router itself\n", yes[v.Preshared], yes[v.Disabled], yes[v.Admin])
	fmt.Fprintf(w, "The private key is on the device only; heimweg peer renew %s makes a new one.\n", v.Name)
}

// Verify writes what a test showed, hop by hop.
func Verify(w io.Writer, st Style, r verify.Result) {
	for _, h := range r.Hops {
		mark := map[verify.Verdict]string{verify.Shown: st.Good("✓"), verify.Broken: st.Bad("✗"), verify.NotShown: st.Dim("?")}[h.Verdict]
		fmt.Fprintf(w, "  %s %-46s %s\n", mark, h.What, cmp.Or(clean(h.Seen), map[verify.Verdict]string{verify.Shown: "works", verify.NotShown: "not shown"}[h.Verdict]))
		if h.Verdict == verify.Broken && h.Next != "" {
			fmt.Fprintf(w, "    next  %s\n", h.Next)
		}
	}
	switch {
	case r.Broken():
		fmt.Fprintln(w, st.Bad("The way home is broken where the first ✗ stands."))
	case slices.ContainsFunc(r.Hops, func(h verify.Hop) bool { return h.Verdict == verify.NotShown }):
		if slices.ContainsFunc(r.Hops, func(h verify.Hop) bool { return h.Verdict == verify.Shown }) {
			fmt.Fprintln(w, "What was tested works; what has a ? was not shown.")
		} else {
			fmt.Fprintln(w, "Nothing was shown, neither that it works nor that it does not.")
		}
		for _, h := range r.Hops {
			if h.Verdict == verify.NotShown && h.Next != "" {
				fmt.Fprintf(w, "  next  %s\n", h.Next)
				break
			}
		}
	default:
		fmt.Fprintln(w, st.Good("Home can be reached."))
	}
}
