package hostnet

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/heimweg/heimweg/internal/hostnet/ether"
)

// A Way is how we reach what is at the other end of a cable.
type Way string

// The ways, the better one first.
const (
	// Own is our own TCP/IP on a raw Ethernet port: the computer's network set-up
	// is not touched, and nothing that happens to it touches us.
	Own Way = "own TCP/IP"
	// Lent is the system's TCP/IP with an address borrowed on the card.
	Lent Way = "borrowed address"
)

// A Cable is the way to a box over one card. It is safe for use from several
// goroutines.
type Cable struct {
	card Card
	how  Way
	way  way
	port *ether.Port // of Own
	loan *loan
	stop context.CancelFunc
	wg   sync.WaitGroup
	end  func() error
}

// A way carries packets over the cable.
type way interface {
	DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	ListenUDP(ctx context.Context, port uint16) (net.PacketConn, error)
	Use(addrs []netip.Prefix) error
	Addresses() []netip.Prefix
}

// Options are what Open needs to know.
type Options struct {
	// At are the addresses at which the bootloader may be, the likeliest first.
	At []netip.Addr
	// Record is the file that remembers what is borrowed, so that GiveBack can
	// undo it after a crash. Empty: nothing is remembered.
	Record string
	// Only allows one way; zero: the best that is possible.
	Only Way
}

// Open opens the way over a card: our own TCP/IP where the system lets us, else
// its own with a borrowed address. It works before a cable is plugged in, and
// gives back first what a killed run left in the same record. Errors:
// *NotAllowedError, *LentError, *LeftError, *RecordError.
func Open(ctx context.Context, c Card, o Options) (*Cable, error) {
	l, err := newLoan(ctx, thisSystem, c, o.Record)
	if err != nil {
		return nil, err
	}
	k := &Cable{card: c, loan: l, stop: func() {}}
	k.end = sync.OnceValue(k.close)
	if !c.On {
		if err := l.borrow(ctx, change{What: switchOn}); err != nil {
			k.Close()
			return nil, &NotAllowedError{Card: c, What: "switching the card on", Cause: err}
		}
	}
	if o.Only != Lent {
		err := k.openOwn(ctx, o)
		if err == nil {
			return k, nil
		}
		if o.Only == Own {
			k.Close()
			return nil, err
		}
	}
	k.how, k.way = Lent, &lent{loan: l, at: o.At}
	return k, nil
}

// Name is the card's name.
func (c *Cable) Name() string { return c.card.Name }

// Way says how packets get out.
func (c *Cable) Way() Way { return c.how }

// DialTCP connects over this cable and over no other. The error of an address
// that refuses connections is syscall.ECONNREFUSED.
func (c *Cable) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return c.way.DialTCP(ctx, to)
}

// ListenUDP opens a UDP port that can send to 255.255.255.255 and, where the way
// allows it, to ff02::1. Port 0 is any.
func (c *Cable) ListenUDP(ctx context.Context, port uint16) (net.PacketConn, error) {
	return c.way.ListenUDP(ctx, port)
}

// Dial connects to "address:port" by "tcp"; it knows no names. It is what a shell
// dials with.
func (c *Cable) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil, net.UnknownNetworkError(network)
	}
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, &net.AddrError{Err: "not an address and port", Addr: addr}
	}
	return c.DialTCP(ctx, to)
}

// Look asks by ARP for the addresses where a bootloader may be and listens to
// what everyone at the cable says, and reports where something lives, until ctx
// ends. *NotPossibleError where the way has no ARP of its own.
func (c *Cable) Look(ctx context.Context, seen func(netip.Addr)) error {
	if c.port == nil {
		return &NotPossibleError{What: "ARP", Way: c.how}
	}
	return c.port.Look(ctx, seen)
}

// WaitLink returns when the cable is up, or down. There need not be any cable
// yet. *NotPossibleError when the system does not tell, *NoCardError when the
// card is gone.
func (c *Cable) WaitLink(ctx context.Context, up bool) error { return waitLink(ctx, c.card, up) }

// Use makes these our addresses on the cable, and no others. Our own TCP/IP takes
// the next free host number of the same network where this computer has the
// address itself: both would answer. It needs no addresses to look for a box: for
// whatever it asks it has one in the same network. Error: *NeedsAddressError.
func (c *Cable) Use(addrs ...netip.Prefix) error { return c.way.Use(addrs) }

// Addresses are ours at the moment.
func (c *Cable) Addresses() []netip.Prefix { return c.way.Addresses() }

// Close ends all connections and gives back all that was borrowed. Error:
// *LeftError.
func (c *Cable) Close() error { return c.end() }

func (c *Cable) close() error {
	c.stop()
	if c.port != nil {
		c.port.Close()
	}
	c.wg.Wait()
	ctx, stop := context.WithTimeout(context.Background(), giveBackIn)
	defer stop()
	return c.loan.end(ctx)
}
