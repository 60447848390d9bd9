package hostnet_test

import (
	"net/netip"
	"testing"

	"github.com/heimweg/heimweg/internal/hostnet"
)

func TestSource(t *testing.T) {
	for _, to := range []string{"127.0.0.1:9"} {
		a, err := hostnet.Source(netip.MustParseAddrPort(to))
		if err != nil || !a.IsLoopback() || !a.Is4() {
			t.Errorf("%s: %s, %v", to, a, err)
		}
	}
}
