package hostnet

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/heimweg/heimweg/internal/hostnet/ether"
)

// ownMAC is the MAC of our own TCP/IP: locally administered, "HW", and the card's
// own number, so that two computers on a switch do not share one. It must not be
// the card's: the kernel would see our packets as its own and reset connections
// that it does not know, or, where it forwards, send them on.
func ownMAC(c Card) ether.MAC {
	return ether.MAC{0x02, 'H', 'W', c.MAC[3], c.MAC[4], c.MAC[5]}
}

// openOwn puts our own TCP/IP on the card.
func (c *Cable) openOwn(ctx context.Context, o Options) error {
	mac := ownMAC(c.card)
	frames, err := openPacket(c.card, mac)
	if err != nil {
		return &NotAllowedError{Card: c.card, What: "a raw Ethernet port", Cause: err}
	}
	own := &own{}
	if err := own.refresh(ctx); err != nil {
		frames.Close()
		return err
	}
	p, err := ether.New(frames, ether.Options{MAC: mac, MTU: min(1500, c.card.MTU), At: o.At, Taken: own.taken})
	if err != nil {
		return err
	}
	own.Port = p
	w, err := watchLink(c.card)
	if err != nil {
		p.Close()
		return err
	}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.how, c.way, c.port, c.stop = Own, own, p, stop
	c.wg.Go(func() {
		defer w.file.Close()
		err := w.each(inner, func(l Link) bool { p.Cable(l == LinkUp); return false })
		var gone *NoCardError
		if errors.As(err, &gone) { // pulled out of its socket: nobody shall wait for it
			p.Close()
		}
	})
	return nil
}

// own is the way of our own TCP/IP.
type own struct {
	*ether.Port
	cards atomic.Pointer[[]Card]
}

// Use implements way.
func (o *own) Use(addrs []netip.Prefix) error {
	if err := o.refresh(context.Background()); err != nil {
		return err
	}
	return o.Port.Use(addrs)
}

func (o *own) refresh(ctx context.Context) error {
	list, err := Cards(ctx)
	if err == nil {
		o.cards.Store(&list)
	}
	return err
}

// taken reports whether this computer has an address on any card: Linux answers
// for all of them on each.
func (o *own) taken(a netip.Addr) bool {
	return slices.ContainsFunc(*o.cards.Load(), func(c Card) bool { return c.Has(a) })
}
