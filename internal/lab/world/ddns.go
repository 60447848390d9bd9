package world

import (
	"net/netip"

	"github.com/heimweg/heimweg/internal/lab/dyndns"
)

// The service that keeps names, and the account that the household has there.
const (
	DDNSHost     = "dyn.example.net"
	DDNSPassword = "correct-horse-7"
)

var ddnsService = netip.MustParsePrefix("192.0.2.53/24")

// buildDDNS puts a service on the internet that keeps the endpoint's name. What the
// image of the home router trusts vouches for it.
func (w *World) buildDDNS() error {
	if !w.Options.DDNS {
		return nil
	}
	var err error
	w.DDNS, err = dyndns.New(w.World, dyndns.Options{
		Link: w.Link("hosting"), Addr: ddnsService, Gateway: hosting.Addr(), Host: DDNSHost,
		Accounts: map[string]string{EndpointName: DDNSPassword},
	})
	if err == nil {
		w.closers = append(w.closers, w.DDNS.Close)
		w.Options.Router.Roots = w.DDNS.Roots()
	}
	return err
}
