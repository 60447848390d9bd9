package world

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/device"
)

// newFromStock builds a world round a boxed device.
func newFromStock(opt Options) (*World, error) {
	if opt.Uplink == home.OneArmed || opt.LANs > 1 {
		return nil, errors.New("a boxed device is neither one-armed nor set up for two LANs")
	}
	return assemble(opt, func(w *World) (*lab.Stack, error) {
		o := w.Options.Device
		o.LAN, o.Router = w.Home, boxOptions(w)
		w.Device = device.New(w.World, o)
		w.closers = append(w.closers, w.Device.Close)
		w.Router = w.Device.Router
		return w.Router.Stack(), nil
	})
}

// A Cable is a second network card of the laptop, which the flasher has for itself:
// it sits on the home LAN with addresses of its own choice and sees by the carrier
// whether the device has power.
type Cable struct {
	w     *World
	stack *lab.Stack

	mu    sync.Mutex
	addrs []netip.Prefix
}

// card is the network card's name.
const card = "enp3s0"

// Cable plugs the network card in. It has no address before Use. Only a world with
// a device has one.
func (w *World) Cable() *Cable {
	c := &Cable{w: w, stack: lab.NewStack(w.World, "laptop's network card")}
	_ = c.Use()
	return c
}

// Name is the network card's.
func (c *Cable) Name() string { return card }

// Use makes these our addresses on the cable, and no others.
func (c *Cable) Use(addrs ...netip.Prefix) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addrs = addrs
	c.stack.Configure([]lab.Iface{{Dev: card, Link: c.w.Home, Addrs: addrs}}, nil)
	return nil
}

// DialTCP connects over the cable.
func (c *Cable) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return c.stack.Dial(ctx, "tcp", to.String())
}

// Dial is DialTCP as an SSH client wants it.
func (c *Cable) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.stack.Dial(ctx, network, addr)
}

// ListenUDP opens a UDP port, which can also send to 255.255.255.255.
func (c *Cable) ListenUDP(_ context.Context, port uint16) (net.PacketConn, error) {
	u, err := c.stack.ListenUDP(port)
	if err != nil {
		return nil, err
	}
	return u, nil
}

// lookEvery is how often the cable looks who is there (facts eva 2.6).
const lookEvery = 50 * time.Millisecond

// Look tells, until ctx ends, which addresses live on the cable besides our own: what
// a raw port learns by ARP.
func (c *Cable) Look(ctx context.Context, seen func(netip.Addr)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, a := range c.w.Home.Seen() {
			if !c.own(a) {
				seen(a)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// own reports whether the address is ours, or the laptop's or the NAS', which hang
// on other ports of the switch in the box and say nothing.
func (c *Cable) own(a netip.Addr) bool {
	stacks := []*lab.Stack{c.stack, c.w.Laptop.Stack, c.w.NAS.Stack()}
	for _, s := range stacks {
		for _, i := range s.Ifaces() {
			for _, p := range i.Addrs {
				if p.Addr() == a {
					return true
				}
			}
		}
	}
	return false
}

// WaitLink waits until the cable has carrier, or has none.
func (c *Cable) WaitLink(ctx context.Context, up bool) error { return c.w.Device.WaitLink(ctx, up) }

// Close takes the network card out.
func (c *Cable) Close() error {
	c.stack.PowerOff()
	return nil
}
