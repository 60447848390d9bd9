package openwrt

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
)

// A Probe is a peer that heimweg itself plays for a test: live only, in no file,
// with one address and no right that other peers have not.
type Probe struct {
	Interface string
	PublicKey key.Public
	Preshared key.Preshared
	Addresses []netip.Prefix // /32 and /128
	// TimeToLive is when the router removes it by itself.
	TimeToLive time.Duration
}

func (p Probe) vars() env {
	allowed := make([]string, len(p.Addresses))
	for i, a := range p.Addresses {
		allowed[i] = a.String()
	}
	return env{"IFACE": p.Interface, "KEY": p.PublicKey.String(), "ALLOWED": strings.Join(allowed, ","), "SECONDS_LEFT": seconds(p.TimeToLive)}
}

// AddProbe lets the probe in and looks, in one round trip.
func AddProbe(ctx context.Context, sh Shell, p Probe, want LookFor) (*router.Snapshot, error) {
	vars := lookVars(want)
	for k, v := range p.vars() {
		vars[k] = v
	}
	in := archive(map[string][]byte{"psk": []byte(p.Preshared.Reveal() + "\n"), "timer.sh": file("timer.sh")})
	ps, err := run(ctx, sh, vars, "probe && look", "looked", in, "probe.sh", "look.sh")
	if err != nil {
		return nil, err
	}
	return readSnapshot(ps)
}

// RemoveProbe takes the probe away and says what the router saw of it.
func RemoveProbe(ctx context.Context, sh Shell, p Probe) (router.Peer, error) {
	ps, err := run(ctx, sh, p.vars(), "unprobe", "unprobed", nil, "probe.sh")
	if err != nil {
		return router.Peer{}, err
	}
	for _, l := range ps["counters"].lines() {
		f := strings.Split(l, "\t")
		if len(f) == 8 && f[0] == p.PublicKey.String() {
			seen, _ := readPeer(f)
			return seen, nil
		}
	}
	return router.Peer{}, nil
}
