//go:build linux

package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is one host or router: a network namespace.
type Host struct {
	Name string

	ns      netns.NsHandle
	nl      *netlink.Handle
	tunnels []*Tunnel
}

// NewHost makes a namespace with nothing in it but a working loopback device.
func NewHost(name string) (*Host, error) {
	h := &Host{Name: name, ns: -1}
	err := onThread(func() error {
		back, err := netns.Get()
		if err != nil {
			return err
		}
		defer back.Close()
		if h.ns, err = netns.New(); err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
		return netns.Set(back)
	})
	if err != nil {
		return nil, err
	}
	if h.nl, err = netlink.NewHandleAt(h.ns); err != nil {
		h.ns.Close()
		return nil, err
	}
	if err := h.Up("lo"); err != nil {
		h.Close()
		return nil, err
	}
	// No duplicate address detection: an address works at once. No address of
	// its own choice on a new device: the record shall hold ours only.
	for k, v := range map[string]string{
		"net/ipv6/conf/default/accept_dad": "0", "net/ipv6/conf/all/accept_dad": "0",
		"net/ipv6/conf/default/router_solicitations": "0",
		"net/ipv4/conf/all/rp_filter":                "0", "net/ipv4/conf/default/rp_filter": "0",
	} {
		if err := h.Sysctl(k, v); err != nil {
			h.Close()
			return nil, err
		}
	}
	return h, nil
}

// onThread runs f on a thread of its own. One that could not be brought back to
// the namespace it came from ends with the goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := f()
		if err == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Do runs f inside the host. Sockets and devices that f opens stay there;
// goroutines that it starts do not.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		back, err := netns.Get()
		if err != nil {
			return err
		}
		defer back.Close()
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("%s: enter: %w", h.Name, err)
		}
		err = f()
		return errors.Join(err, netns.Set(back))
	})
}

// Close takes the host down, with all its devices, rules and connections.
func (h *Host) Close() {
	for _, t := range h.tunnels {
		t.Close()
	}
	if h.nl != nil {
		h.nl.Close()
	}
	if h.ns.IsOpen() {
		h.ns.Close()
	}
}

// Sysctl sets a switch of the host's kernel: "net/ipv4/ip_forward".
func (h *Host) Sysctl(key, value string) error {
	return h.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	})
}

// Forward makes the host a router. It tells every sender about every packet
// that goes nowhere, as often as it likes.
func (h *Host) Forward() error {
	for _, s := range []struct{ key, value string }{
		{"net/ipv4/ip_forward", "1"}, {"net/ipv6/conf/all/forwarding", "1"},
		{"net/ipv4/conf/all/send_redirects", "0"}, {"net/ipv4/conf/default/send_redirects", "0"},
		{"net/ipv4/icmp_ratelimit", "0"}, {"net/ipv6/icmp/ratelimit", "0"},
	} {
		if err := h.Sysctl(s.key, s.value); err != nil {
			return err
		}
	}
	return nil
}

// Link joins a device of one host with one of another by a cable.
func Link(a *Host, dev string, b *Host, peer string) error {
	v := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: peer, PeerNamespace: netlink.NsFd(int(b.ns))}
	v.Name = dev
	if err := a.nl.LinkAdd(v); err != nil {
		return fmt.Errorf("veth %s of %s: %w", dev, a.Name, err)
	}
	return errors.Join(a.Up(dev), b.Up(peer))
}

// Up switches a device on.
func (h *Host) Up(dev string) error { return h.change(dev, h.nl.LinkSetUp) }

// Down switches it off; addresses of IPv4 stay, routes by it go.
func (h *Host) Down(dev string) error { return h.change(dev, h.nl.LinkSetDown) }

func (h *Host) change(dev string, f func(netlink.Link) error) error {
	l, err := h.nl.LinkByName(dev)
	if err == nil {
		err = f(l)
	}
	if err != nil {
		return fmt.Errorf("%s of %s: %w", dev, h.Name, err)
	}
	return nil
}

// SetMTU sets the largest packet of a device.
func (h *Host) SetMTU(dev string, mtu int) error {
	return h.change(dev, func(l netlink.Link) error { return h.nl.LinkSetMTU(l, mtu) })
}

// Addr gives a device addresses, with the length of their networks.
func (h *Host) Addr(dev string, addrs ...string) error {
	return h.change(dev, func(l netlink.Link) error {
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if err := h.nl.AddrAdd(l, addr); err != nil {
				return fmt.Errorf("address %s: %w", a, err)
			}
		}
		return nil
	})
}

// replace gives a device an address that it may have already.
func (h *Host) replace(dev, a string) error {
	return h.change(dev, func(l netlink.Link) error {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		return h.nl.AddrReplace(l, addr)
	})
}

// Route sends packets for a network out of a device, to a next hop if via is not
// empty. "default" means everything of via's family.
func (h *Host) Route(dst, via, dev string) error {
	return h.change(dev, func(l netlink.Link) error {
		r := &netlink.Route{LinkIndex: l.Attrs().Index}
		if via != "" {
			r.Gw = net.ParseIP(via)
		}
		if dst != "default" {
			p, err := netip.ParsePrefix(dst)
			if err != nil {
				return err
			}
			r.Dst = &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		}
		if err := h.nl.RouteReplace(r); err != nil {
			return fmt.Errorf("route to %s: %w", dst, err)
		}
		return nil
	})
}

// Load gives the host's kernel a ruleset, as `nft -f` does.
func (h *Host) Load(ruleset string) error {
	return h.Do(func() error { return nft(ruleset) })
}

func nft(ruleset string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "nft", "-f", "-")
	c.Stdin = strings.NewReader(ruleset)
	// Times of day are printed for this zone.
	c.Env = append(os.Environ(), "TZ=UTC")
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Spoke is a rule of a loaded ruleset that packets have met.
type Spoke struct {
	Chain   string
	Does    string // "accept", "drop", "jump refuse"
	Comment string // of [firewall.Ruleset.NFT]: the section
	Packets int
}

// Spoke lists the rules that packets have met, by their counters.
func (h *Host) Spoke() ([]Spoke, error) {
	var out []byte
	err := h.Do(func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		out, err = exec.CommandContext(ctx, "nft", "-j", "list", "ruleset").Output()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	var all struct {
		Nftables []struct {
			Rule *struct {
				Chain, Comment string
				Expr           []map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	var spoke []Spoke
	for _, o := range all.Nftables {
		if o.Rule == nil {
			continue
		}
		s := Spoke{Chain: o.Rule.Chain, Comment: o.Rule.Comment}
		for _, e := range o.Rule.Expr {
			for word, value := range e {
				var v struct {
					Packets int
					Target  string
				}
				_ = json.Unmarshal(value, &v) // of other words null, lists, texts
				switch word {
				case "counter":
					s.Packets = v.Packets
				case "jump":
					s.Does = "jump " + v.Target
				case "accept", "drop", "reject", "masquerade", "dnat", "snat", "redirect":
					s.Does = word
				}
			}
		}
		if s.Packets > 0 {
			spoke = append(spoke, s)
		}
	}
	return spoke, nil
}

// Forget drops all connections that the host remembers.
func (h *Host) Forget() error { return h.nl.ConntrackTableFlush(netlink.ConntrackTable) }

// Dial connects from this host.
func (h *Host) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = h.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Listen waits for connections on this host.
func (h *Host) Listen(network, addr string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}
