package lab

import (
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
)

// Tun is the tunnel device between a real wireguard-go and a TCP/IP of the lab:
// give Send to Iface.Send and let deliver be Stack.Inject for that device.
type Tun struct {
	name    string
	mtu     int
	deliver func(raw []byte)
	out     chan []byte
	events  chan tun.Event
	closed  chan struct{}
	once    sync.Once
}

// NewTun makes a device. deliver gets what WireGuard decrypted.
func NewTun(name string, mtu int, deliver func(raw []byte)) *Tun {
	t := &Tun{
		name: name, mtu: mtu, deliver: deliver,
		out: make(chan []byte, 1024), events: make(chan tun.Event, 2), closed: make(chan struct{}),
	}
	t.events <- tun.EventUp
	return t
}

// Send gives WireGuard a packet to encrypt. It never blocks: a full queue loses
// the packet, as a kernel's does.
func (t *Tun) Send(raw []byte) {
	select {
	case <-t.closed:
	case t.out <- append([]byte(nil), raw...):
	default:
	}
}

// Read is called by wireguard-go for the next packet to encrypt.
func (t *Tun) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case raw := <-t.out:
		sizes[0] = copy(bufs[0][offset:], raw)
		return 1, nil
	case <-t.closed:
		return 0, os.ErrClosed
	}
}

// Write is called by wireguard-go with decrypted packets.
func (t *Tun) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		t.deliver(append([]byte(nil), b[offset:]...))
	}
	return len(bufs), nil
}

// Close ends the device.
func (t *Tun) Close() error {
	t.once.Do(func() {
		close(t.closed)
		close(t.events)
	})
	return nil
}

// File is nil: there is no kernel behind it.
func (t *Tun) File() *os.File { return nil }

// MTU of the device.
func (t *Tun) MTU() (int, error) { return t.mtu, nil }

// Name of the device.
func (t *Tun) Name() (string, error) { return t.name, nil }

// Events of the device: it is up from the start.
func (t *Tun) Events() <-chan tun.Event { return t.events }

// BatchSize is one packet at a time.
func (t *Tun) BatchSize() int { return 1 }
