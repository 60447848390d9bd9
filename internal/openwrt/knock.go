package openwrt

import (
	"context"
	"net/netip"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/key"
)

// Knocked is what a ping from the router to a device showed.
type Knocked struct {
	Near  bool // it answered the router's address in its own network
	Asked bool // Far was asked: only who answers Near is asked
	Far   bool // it answered the router's address in the tunnel
	There bool // it has a hardware address on one of the router's networks
}

// Knock pings a device from the router, and again with from (the router's
// address in the tunnel) as the sender; one round trip, at most four seconds.
func Knock(ctx context.Context, sh Shell, target, from netip.Addr) (Knocked, error) {
	vars := env{"PING": "ping", "TARGET": target.String(), "FROM": ""}
	if target.Is6() {
		vars["PING"] = "ping6"
	}
	if from.IsValid() {
		vars["FROM"] = from.String()
	}
	ps, err := run(ctx, sh, vars, "knock", "knocked", nil, "knock.sh")
	if err != nil {
		return Knocked{}, err
	}
	k := Knocked{Near: ps["near"].exit == 0}
	far, asked := ps["far"]
	k.Asked, k.Far = asked, asked && far.exit == 0
	for _, n := range readNeighbours(ps["neighbours"].lines(), part{exit: 1}) {
		k.There = k.There || n.Addr == target
	}
	return k, nil
}

// Whereabouts looks several times, a second apart, where a tunnel's peers are
// heard; one round trip.
func Whereabouts(ctx context.Context, sh Shell, iface string, times int) ([]map[key.Public]netip.AddrPort, error) {
	ps, err := run(ctx, sh, env{"IFACE": iface, "TIMES": strconv.Itoa(times)}, "whereabouts", "watched", nil, "knock.sh")
	if err != nil {
		return nil, err
	}
	out := make([]map[key.Public]netip.AddrPort, times)
	for i := range out {
		out[i] = map[key.Public]netip.AddrPort{}
		for _, l := range ps["at."+strconv.Itoa(i)].lines() {
			k, at, _ := strings.Cut(l, "\t")
			public, err := key.ParsePublic(k)
			ap, err2 := netip.ParseAddrPort(strings.TrimSpace(at))
			if err == nil && err2 == nil {
				out[i][public] = ap
			}
		}
	}
	return out, nil
}
