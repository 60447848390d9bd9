package openway

import (
	"net/netip"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/uplink"
)

// What heimweg opened is lost only when that is certain: the list that showed it does
// not any more, or its time is over.
func TestLost(t *testing.T) {
	at, now := time.Unix(1_790_000_000, 0), time.Unix(1_790_000_000, 0).Add(24*time.Hour)
	isp, to := netip.MustParseAddr("192.168.2.254"), netip.MustParseAddrPort("192.168.2.253:51820")
	opened := func(by uplink.Protocol, lease time.Duration) *Records {
		return &Records{Opened: []record{{Gateway: isp, Mapping: uplink.Mapping{Proto: "udp", External: 51820, To: to, Protocol: by, Lease: lease, Asked: at}}}}
	}
	there := []uplink.Mapping{{Proto: "udp", External: 51820, To: to}}
	others := []uplink.Mapping{{Proto: "tcp", External: 51820, To: to}, {Proto: "udp", External: 51821, To: to}}
	for name, c := range map[string]struct {
		records     *Records
		list        []uplink.Mapping
		at          netip.Addr
		lost, ended bool
	}{
		"no records":                 {nil, nil, isp, false, false},
		"nothing opened":             {&Records{}, nil, isp, false, false},
		"still there":                {opened(uplink.UPnP, 0), there, isp, false, false},
		"leads to somebody else now": {opened(uplink.UPnP, 0), []uplink.Mapping{{Proto: "udp", External: 51820}}, isp, false, false},
		"gone":                       {opened(uplink.UPnP, 0), others, isp, true, false},
		"gone before its time":       {opened(uplink.UPnP, 7*24*time.Hour), nil, isp, true, false},
		"gone after its time":        {opened(uplink.UPnP, time.Hour), nil, isp, true, true},
		"at another ISP router":      {opened(uplink.UPnP, 0), nil, netip.MustParseAddr("192.168.2.1"), false, false},
		"PCP, not in UPnP's list":    {opened(uplink.PCP, 7*24*time.Hour), nil, isp, false, false},
		"PCP, after its time":        {opened(uplink.PCP, time.Hour), nil, isp, true, true},
		"a FRITZ!Box's own sharing":  {opened(uplink.TR064, 0), nil, isp, false, false},
	} {
		got, ended := c.records.Lost(c.at, "udp", 51820, c.list, now)
		if got.Equal(at) != c.lost || got.IsZero() == c.lost || ended.IsZero() == c.ended {
			t.Errorf("%s: opened %s, ended %s", name, got, ended)
		}
	}
}
