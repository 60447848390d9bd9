package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/trace"
)

// trace asks the ISP router itself, through the home router's SSH channel.
func TestTraceAsksISPRouter(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{IGD: &igd.Options{UPnP: 2}})
	h.silentISP = true // it is asked for real
	got := h.trace("phone", "192.168.1.10:445")
	hop, _ := got.Hop(trace.ISPRouter)
	if got.Verdict != trace.Passes || len(hop.Lines) != 1 || hop.Lines[0].Says != "mapped to 192.168.2.253:51820" || !strings.HasPrefix(hop.Lines[0].Note, "UPnP") {
		t.Errorf("%s: %s\n%+v", got.Verdict, got.Headline, hop)
	}
	h.w.ISP.Map("udp", 51820, netip.MustParseAddrPort("192.168.2.17:51820"))
	if got = h.trace("phone", "192.168.1.10:445"); got.Verdict != trace.Dies || got.Death.Cause != trace.MappedElsewhere {
		t.Errorf("%s: %s", got.Verdict, got.Headline)
	}
	// A list by UPnP need not be whole: what is not in it is not known.
	h.w.ISP.Unmap("udp", 51820)
	if got = h.trace("phone", "192.168.1.10:445"); got.Verdict != trace.Unknown || got.Head() != trace.ISPRouter {
		t.Errorf("%s: %s", got.Verdict, got.Headline)
	}
}
