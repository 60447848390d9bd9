package hostnet

import (
	"context"
	"net"
	"net/netip"
)

func cards(context.Context) ([]Card, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []Card
	for _, i := range list {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		c := Card{Name: i.Name, Index: i.Index, Kind: Unknown, On: i.Flags&net.FlagUp != 0, Link: LinkUnknown, MTU: i.MTU}
		if len(i.HardwareAddr) == len(c.MAC) {
			c.MAC = MAC(i.HardwareAddr)
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				c.Addrs = append(c.Addrs, p)
			}
		}
		out = append(out, c)
	}
	return out, nil
}
