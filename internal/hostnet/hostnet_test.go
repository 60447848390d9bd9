package hostnet

import (
	"net/netip"
	"slices"
	"testing"
)

func TestGateways(t *testing.T) {
	table := "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"enp3s0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
		"wlan0\t00000000\tFEB2A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n" +
		"wg9\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n" + // a tunnel has no gateway
		"half\t00000000\t02000A0A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n" + // 0.0.0.0/1 is no default route
		"enp3s0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n" +
		"broken\t00000000\tXYZ\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
	got := gateways([]byte(table))
	want := []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("192.168.178.254")}
	if !slices.Equal(got, want) {
		t.Errorf("gateways = %v, want %v", got, want)
	}
}

func TestCandidatesEndWithAFreshRouter(t *testing.T) {
	c := Candidates()
	if !slices.Contains(c, Fresh) {
		t.Errorf("candidates %v lack %v", c, Fresh)
	}
	seen := map[netip.Addr]bool{}
	for _, a := range c {
		if seen[a] {
			t.Errorf("%v twice in %v", a, c)
		}
		seen[a] = true
	}
}

func FuzzGateways(f *testing.F) {
	f.Add([]byte("a\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, a := range gateways(b) {
			if !a.Is4() || a.IsUnspecified() {
				t.Errorf("gateway %v", a)
			}
		}
	})
}
