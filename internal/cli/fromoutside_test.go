package cli

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
)

// A hotspot without IPv6 is noticed, too, when home is called by IPv6: not at once,
// because its IPv6 may still be coming.
func TestOutsideWithoutIPv6(t *testing.T) {
	for name, c := range map[string]struct {
		sixAfter time.Duration // after the laptop has left; 0: never
		at       string
		took     time.Duration
	}{
		"it has none":     {0, "100.64.0.9", 5 * time.Second},
		"it comes slowly": {2 * time.Second, "2001:db8::9", 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				left := 3 * time.Second
				source := func(to netip.AddrPort) (netip.Addr, error) {
					switch out := time.Since(start) - left; {
					case to.Addr().Is6() && (out < 0 || c.sixAfter == 0 || out < c.sixAfter):
						return netip.Addr{}, errors.New("network is unreachable")
					case to.Addr().Is6():
						return netip.MustParseAddr("2001:db8::9"), nil
					case out < 0:
						return netip.MustParseAddr("192.168.1.77"), nil
					}
					return netip.MustParseAddr("100.64.0.9"), nil
				}
				var said bytes.Buffer
				a := &app{Env: Env{In: strings.NewReader(""), Err: &said, Terminal: person{}, Source: source}}
				s := &router.Snapshot{Interfaces: []router.Interface{{Name: "lan", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}}}}
				if err := a.goOutside(home.New(), s, netip.MustParseAddrPort("[2001:db8::1]:51820"))(t.Context()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start) - left; !strings.Contains(said.String(), "Outside now ("+c.at+")") || took > c.took {
					t.Errorf("%s after it had left: %s", took, said.String())
				}
			})
		})
	}
}
