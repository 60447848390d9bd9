package hostnet

import (
	"context"
	"net"
	"net/netip"
	"strings"
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
}

// A way carries packets over the cable.
type way interface {
	DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	ListenUDP(ctx context.Context, port uint16) (net.PacketConn, error)
	Use(addrs []netip.Prefix) error
	Close() error
}

// Options are what Open needs to know.
type Options struct {
	// At are the addresses at which the bootloader may be, the likeliest first.
	At []netip.Addr
	// Record is the file that remembers what is borrowed, so that GiveBack can
	// undo it after a crash. Empty: nothing is borrowed that a crash would leave.
	Record string
	// Only allows one way; zero: the best that is possible.
	Only Way
}

// Open opens the way over a card: our own TCP/IP where the system lets us, else
// its own with a borrowed address. It works before a cable is plugged in.
// Errors: *NotAllowedError, *LentError.
func Open(ctx context.Context, c Card, o Options) (*Cable, error) {
	return nil, &NotPossibleError{What: "a cable", Way: o.Only}
}

// GiveBack undoes what a killed run left behind, by its record. No record:
// nothing to do. Error: *LentError while that run is still alive.
func GiveBack(ctx context.Context, record string) error {
	return nil
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
	return &NotPossibleError{What: "ARP", Way: c.how}
}

// WaitLink returns when the cable is up, or down. There need not be any cable
// yet. *NotPossibleError when the system does not tell.
func (c *Cable) WaitLink(ctx context.Context, up bool) error {
	return &NotPossibleError{What: "the state of the cable", Way: c.how}
}

// Use makes these our addresses on the cable, and no others. Our own TCP/IP takes
// the next free host number of the same network where this computer has the
// address itself: both would answer. It needs no addresses to look for a box; it
// then takes one in the network of whatever it asks. Error: *NeedsAddressError.
func (c *Cable) Use(addrs ...netip.Prefix) error { return c.way.Use(addrs) }

// Addresses are ours at the moment.
func (c *Cable) Addresses() []netip.Prefix { return nil }

// Close ends all connections and gives back all that was borrowed.
func (c *Cable) Close() error { return c.way.Close() }
