package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/hostnet"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/verify"
)

// How long a person may take to change networks, and how often we look.
const (
	leaveTime = 15 * time.Minute
	backTime  = 3 * time.Minute
	lookEvery = 500 * time.Millisecond
	sightings = 2                // looks in a row that show the same
	sights4   = 10               // of a network's IPv4, where the endpoint's IPv6 may still come
	stillHere = 30 * time.Second // then it is said once what is in the way
)

// sourceOf is the address that packets of this computer to "to" would carry.
func (a *app) sourceOf(to netip.AddrPort) (netip.Addr, error) {
	if a.Source != nil {
		return a.Source(to)
	}
	return hostnet.Source(to)
}

// placeOf is this computer's address towards "to", by IPv4 where it has no way to an
// IPv6 endpoint: that tells where it is, too. looks is how often that has to be seen.
func (a *app) placeOf(to netip.AddrPort) (at netip.Addr, looks int) {
	if at, _ = a.sourceOf(to); at.IsValid() || to.Addr().Is4() {
		return at, sightings
	}
	at, _ = a.sourceOf(somewhere4)
	return at, sights4
}

// somewhere4 stands for the internet (RFC 5737); nothing is sent there.
var somewhere4 = netip.MustParseAddrPort("192.0.2.1:9")

// athome reports whether an address of this computer lies in a network of the
// home router's.
func athome(addr netip.Addr, h home.Home, snap *router.Snapshot) bool {
	for _, i := range snap.Interfaces {
		for _, p := range i.Addresses {
			if i.Name != h.Tunnel.Interface && p.Masked().Contains(addr) {
				return true
			}
		}
	}
	return false
}

// goOutside guides a person out of the house: it returns as soon as this
// computer's packets to the endpoint leave from another network, or when the
// person says so.
func (a *app) goOutside(h home.Home, snap *router.Snapshot, to netip.AddrPort) func(context.Context) error {
	return func(ctx context.Context) error {
		a.sayf("Now take this computer out of the house: connect this computer to the phone's hotspot,")
		a.sayf("and pull its cable out, or let it forget the home's Wi-Fi for a while.")
		a.sayf("heimweg notices by itself and goes on; or press Enter.")
		warned := false
		seen, err := a.change(ctx, leaveTime, func(at netip.Addr, waited time.Duration) bool {
			if at.IsValid() && athome(at, h, snap) && waited > stillHere && !warned {
				warned = true
				a.sayf("  still in the home's network (%s): pull the cable, or switch that Wi-Fi off", at)
			}
			return at.IsValid() && !athome(at, h, snap)
		}, to)
		if err != nil {
			return err
		}
		if seen.IsValid() {
			a.sayf("Outside now (%s). Testing …", seen)
		}
		return nil
	}
}

// comeBack says when to go back. Where the test failed, it waits for that: only
// the home router knows how far the test's packets came.
func (a *app) comeBack(h home.Home, snap *router.Snapshot, to netip.AddrPort) func(context.Context, verify.Result) error {
	return func(ctx context.Context, res verify.Result) error {
		if !res.Broken() {
			a.sayf("Done: you can go back to your own network.")
			return nil
		}
		a.sayf("Done. Go back to your own network now: then the home router can tell how far the test's")
		a.sayf("packets came. heimweg notices by itself; or press Enter to end without that.")
		_, err := a.change(ctx, backTime, func(at netip.Addr, _ time.Duration) bool {
			return at.IsValid() && athome(at, h, snap)
		}, to)
		var f *fault.Fault
		if errors.As(err, &f) && ctx.Err() == nil {
			return nil // nobody came back; the result stands without it
		}
		return err
	}
}

// backHome: this computer is at home, so that what it asks now says something
// about home. From the phone's hotspot it would ask about the phone.
func (a *app) backHome(v *visit, res verify.Result, fl verifyFlags) bool {
	if !fl.outside || fl.via != "" {
		return true // it never left
	}
	at, _ := a.placeOf(res.Endpoint)
	return at.IsValid() && athome(at, v.file.Home, v.Snapshot())
}

// change waits until the address towards "to" is as wanted, several times in a row,
// or until Enter. The address is invalid when Enter came first.
func (a *app) change(ctx context.Context, within time.Duration, wanted func(netip.Addr, time.Duration) bool, to netip.AddrPort) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	enter := make(chan error, 1)
	typing, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, err := a.readLine(typing)
		enter <- err
	}()
	start := time.Now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var before netip.Addr
	seen := 0
	for {
		at, looks := a.placeOf(to)
		if at != before {
			before, seen = at, 0
		}
		if seen++; wanted(at, time.Since(start)) && seen >= looks {
			stop()
			if enter != nil {
				<-enter
			}
			return at, nil
		}
		select {
		case err := <-enter:
			if ctx.Err() != nil {
				return netip.Addr{}, a.notChanged(ctx, within)
			}
			if f := fault.Find(err); f != nil && f.Code == "needs-person" {
				enter = nil // nobody types; the networks alone tell
				continue
			}
			return netip.Addr{}, err
		case <-ctx.Done():
			return netip.Addr{}, a.notChanged(ctx, within)
		case <-tick.C:
		}
	}
}

func (a *app) notChanged(ctx context.Context, within time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New("no-change", "this computer's network did not change in %s", fmt.Sprint(within)).
			Do("run the same command again when the phone's hotspot is at hand")
	}
	return ctx.Err()
}
