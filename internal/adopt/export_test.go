package adopt

import "github.com/heimweg/heimweg/internal/router"

// Ask tells what packets can do through a tunnel, for tests.
func Ask(s *router.Snapshot, tunnel string) map[string]bool {
	x, ok := readHand(s, tunnel)
	if !ok {
		return nil
	}
	out := map[string]bool{}
	for w, can := range x.ask(s.Config("network"), s.Config("firewall")) {
		out[string(w)] = can
	}
	return out
}
