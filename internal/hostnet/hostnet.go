// Package hostnet knows this computer's own network: which addresses it has and
// where a home router is likely to answer. It changes nothing on this computer.
//
// Background: a router hands its own address to the computers of its LAN as
// their gateway, so the gateway is the first place to look. A computer that sits
// on two networks (Wi-Fi and cable) has more than one candidate.
package hostnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
)

// Fresh is where an OpenWrt router answers after its first boot
// (OpenWrt, package/base-files, config_generate; all releases).
var Fresh = netip.MustParseAddr("192.168.1.1")

// Candidates lists where the home router may answer, the likeliest first: this
// computer's gateways, the first address of each of its private networks, and
// the address of a fresh OpenWrt.
func Candidates() []netip.Addr {
	var out []netip.Addr
	add := func(a netip.Addr) {
		if a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	table, _ := os.ReadFile("/proc/net/route") // not on every system; the networks below cover the rest
	for _, g := range gateways(table) {
		add(g)
	}
	nets, _ := Networks()
	for _, n := range nets {
		if n.Addr().Is4() && n.Addr().IsPrivate() && n.Bits() >= 16 && n.Bits() <= 30 {
			add(n.Masked().Addr().Next())
		}
	}
	add(Fresh)
	return out
}

// Networks lists the networks that this computer is in, with its address in
// each; loopback and link-local ones are left out.
func Networks() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

// Source is the address that packets of this computer to "to" carry now, by its
// routes. Nothing is sent.
func Source(to netip.AddrPort) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// gateways reads Linux's /proc/net/route: a header, then one route a line with
// the interface, destination, gateway and flags; addresses are hexadecimal in the
// machine's byte order, which is little endian wherever heimweg is built for.
func gateways(table []byte) []netip.Addr {
	var out []netip.Addr
	s := bufio.NewScanner(bytes.NewReader(table))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		raw, err := hex.DecodeString(f[2])
		if err != nil || len(raw) != 4 {
			continue
		}
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], binary.BigEndian.Uint32(raw))
		if a := netip.AddrFrom4(b); !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}

// Dial opens a connection; nil means the real network.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// Greeting tries SSH's port on all addresses side by side and returns those that
// greet as an SSH server, in the order given. The deadline is ctx's.
func Greeting(ctx context.Context, dial Dial, addrs []netip.Addr) []netip.Addr {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	greets := make([]bool, len(addrs))
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() {
			c, err := dial(ctx, "tcp", netip.AddrPortFrom(a, 22).String())
			if err != nil {
				return
			}
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			var b [4]byte
			_, err = io.ReadFull(c, b[:])
			greets[i] = err == nil && string(b[:]) == "SSH-"
		})
	}
	wg.Wait()
	var out []netip.Addr
	for i, ok := range greets {
		if ok {
			out = append(out, addrs[i])
		}
	}
	return out
}
