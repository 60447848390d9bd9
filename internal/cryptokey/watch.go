package cryptokey

import (
	"net/netip"
	"slices"
	"time"
)

// Sample is where a peer was at one moment.
type Sample struct {
	At       time.Time // by the router's clock
	Endpoint netip.AddrPort
}

// Moves is what a peer's endpoint does over time.
type Moves string

// Nothing was heard of Silent, Steady stays, Roamed went elsewhere and stayed
// there, Shared goes to and fro: that is no device that travels, that is two
// devices with one key. Each takes the tunnel from the other with every packet,
// and the router answers whoever spoke last.
const (
	Silent Moves = "silent"
	Steady Moves = "steady"
	Roamed Moves = "roamed"
	Shared Moves = "shared"
)

// ShareTime is how quickly an endpoint has to come back to count as shared. A
// phone that leaves the Wi-Fi and returns to it needs longer.
const ShareTime = 20 * time.Second

// Watch tells from samples in their order what a peer does, and the endpoints
// that it was seen at, each once.
func Watch(samples []Sample) (Moves, []netip.AddrPort) {
	var seen []netip.AddrPort
	left := map[netip.AddrPort]time.Time{} // when it was last seen there
	var now netip.AddrPort
	shared := false
	for _, s := range samples {
		if !s.Endpoint.IsValid() {
			continue
		}
		if last, been := left[s.Endpoint]; been && s.Endpoint != now && s.At.Sub(last) <= ShareTime {
			shared = true
		}
		if !slices.Contains(seen, s.Endpoint) {
			seen = append(seen, s.Endpoint)
		}
		now, left[s.Endpoint] = s.Endpoint, s.At
	}
	switch {
	case shared:
		return Shared, seen
	case len(seen) > 1:
		return Roamed, seen
	case len(seen) == 1:
		return Steady, seen
	}
	return Silent, nil
}
