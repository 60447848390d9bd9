//go:build linux

package kernel

import (
	"fmt"
	"strings"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// Tunnel is a WireGuard interface: wireguard-go on a tun device of the kernel,
// as it runs on phones and on hosts without the kernel's module.
type Tunnel struct {
	dev *device.Device
}

// WireGuard makes the interface and configures it in the words of wireguard-go's
// own interface (keys in hex, "listen_port=51820"). It has no address yet.
func (h *Host) WireGuard(name string, mtu int, config string) (*Tunnel, error) {
	t := &Tunnel{}
	err := h.Do(func() error {
		d, err := tun.CreateTUN(name, mtu)
		if err != nil {
			return fmt.Errorf("tun device: %w", err)
		}
		go func() {
			for range d.Events() { // ours are switched on and off by hand
			}
		}()
		quiet := &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
		t.dev = device.NewDevice(&tunDevice{Device: d, mtu: mtu, events: make(chan tun.Event)}, &bind{host: h}, quiet)
		if err := t.dev.IpcSet(config); err != nil {
			t.dev.Close()
			return err
		}
		return t.dev.Up()
	})
	if err != nil {
		return nil, err
	}
	h.tunnels = append(h.tunnels, t)
	return t, h.Up(name)
}

// tunDevice keeps wireguard-go from looking after the device on threads that are
// not in its namespace.
type tunDevice struct {
	tun.Device
	mtu    int
	events chan tun.Event
}

func (t *tunDevice) MTU() (int, error)        { return t.mtu, nil }
func (t *tunDevice) Events() <-chan tun.Event { return t.events }

// Set changes the configuration.
func (t *Tunnel) Set(config string) error { return t.dev.IpcSet(config) }

// Get reads one value of the only peer, or of the interface: "endpoint".
func (t *Tunnel) Get(key string) string {
	text, err := t.dev.IpcGet()
	if err != nil {
		return ""
	}
	for _, l := range strings.Split(text, "\n") {
		if v, ok := strings.CutPrefix(l, key+"="); ok {
			return v
		}
	}
	return ""
}

// Close takes the interface away.
func (t *Tunnel) Close() { t.dev.Close() }
