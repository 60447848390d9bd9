package adopt

import (
	"io"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/propose"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
)

// Adopted is what a hand-made gateway means, and what is to be thought of it.
type Adopted struct {
	Home  home.Home
	Parts []Part
	// Stays are reasons why the gateway cannot be moved to the recommended form as it
	// is; home.toml says as much as it has words for.
	Stays []*fault.Fault
	// Notes say what is different after the move.
	Notes []string
}

// Read understands one tunnel of a router. addr is where the router is, rand makes
// what propose has to make up and nobody uses here.
//
// Error: a *fault.Fault, when there is no such tunnel, or home.toml could not be
// written at all.
func Read(rand io.Reader, addr string, s *router.Snapshot, f Found, tunnel string) (Adopted, error) {
	x, ok := readHand(s, tunnel)
	if !ok {
		return Adopted{}, fault.NewUsage("no-tunnel", "the router has no WireGuard interface %s", tunnel).
			Do("name one of these: %s", strings.Join(Tunnels(s), ", "))
	}
	for i := range x.peers {
		if name := f.Names[x.peers[i].key]; name != "" {
			x.peers[i].name = name
		}
	}
	d, err := propose.Home(rand, addr, s, nil)
	if err != nil {
		return Adopted{}, err
	}
	h := d.Home
	for i, l := range h.LANs { // what is, not what would be better
		for _, p := range x.site.LANs[l.Interface] {
			if p.Addr().IsPrivate() {
				h.LANs[i].Network, h.LANs[i].Renumber = subnet.NetworkOf(p), false
				break
			}
		}
	}
	left := x.household(&h)
	x.reach(&h, x.ask(s.Config("network"), s.Config("firewall")))
	t, described := Of(h, s)
	if !described { // nobody is left who could come home
		t.Problems = x.unsayable()
	}
	out := Adopted{Home: h, Stays: t.Problems}
	for _, n := range t.Notes {
		out.Notes = append(out.Notes, n.Text)
	}
	out.Parts = append(x.judge(h, t, left), x.around(f, h)...)
	slices.SortStableFunc(out.Parts, func(a, b Part) int { return slices.Index(order, a.Verdict) - slices.Index(order, b.Verdict) })
	return out, x.sayable(h)
}

// Leftovers judges what lies about on a router whose tunnel is heimweg's already.
func Leftovers(s *router.Snapshot, f Found, h home.Home) []Part {
	x, ok := readHand(s, h.Tunnel.Interface)
	if !ok {
		return nil
	}
	out := x.around(f, h)
	slices.SortStableFunc(out, func(a, b Part) int { return slices.Index(order, a.Verdict) - slices.Index(order, b.Verdict) })
	return out
}

var order = []Verdict{Harmful, Unsafe, Needed, Redundant}

// sayable tries whether home.toml takes what was read.
func (x *hand) sayable(h home.Home) error {
	if h.Tunnel.Network.IsZero() {
		return fault.New("adopt-address", "the tunnel %s has no IPv4 address, and home.toml needs one", x.name).
			At(x.place("network", x.name, "addresses")).
			Do("leave this gateway as it is, or begin anew with another tunnel: heimweg init")
	}
	_, err := home.Parse("home.toml", home.Compose(h))
	return err
}
