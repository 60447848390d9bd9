package hostnet

import (
	"cmp"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A device is what Linux tells about a card: over netlink, and in
// /sys/class/net for what netlink does not say.
type device struct {
	name     string
	index    int
	hardware uint16 // ARPHRD_…
	flags    uint32 // IFF_…
	mtu      int
	mac      []byte
	made     string // what made it, if software: "veth", "wireguard", "tun", "bridge", …
	wireless bool
	real     bool // there is a device of a bus behind it
}

// tunnels are the makers of cards that lead into a tunnel.
var tunnels = []string{"wireguard", "tun", "ppp", "ipip", "sit", "gre", "gretap", "ip6gre", "ip6tnl", "vti", "vti6", "xfrm", "ovpn", "amneziawg", "erspan", "geneve"}

// card says what a device is to a person.
func (d device) card() Card {
	c := Card{Name: d.name, Index: d.index, On: d.flags&unix.IFF_UP != 0, Link: d.link(), MTU: d.mtu, Kind: Unknown}
	if len(d.mac) == len(c.MAC) && d.hardware == unix.ARPHRD_ETHER {
		c.MAC = MAC(d.mac)
	}
	switch {
	case d.wireless:
		c.Kind = WiFi
	case d.hardware != unix.ARPHRD_ETHER, slices.Contains(tunnels, d.made), strings.HasPrefix(d.name, "tailscale"):
		c.Kind = VPN
	case d.made != "" || !d.real:
		c.Kind = Virtual
	case d.real:
		c.Kind = Wired
	}
	return c
}

// link is what the flags say about the cable; a card that is switched off does
// not know.
func (d device) link() Link {
	switch {
	case d.flags&unix.IFF_LOWER_UP != 0:
		return LinkUp
	case d.flags&unix.IFF_UP != 0:
		return LinkDown
	}
	return LinkUnknown
}

// sysNet is where Linux shows its network cards.
const sysNet = "/sys/class/net"

func cards(context.Context) ([]Card, error) {
	list, err := devices()
	if err != nil {
		return nil, err
	}
	addrs, err := addresses()
	if err != nil {
		return nil, err
	}
	var out []Card
	for _, d := range list {
		if d.flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		d.look(filepath.Join(sysNet, d.name))
		c := d.card()
		c.Addrs = addrs[d.index]
		out = append(out, c)
	}
	return out, nil
}

// look reads what only the files say.
func (d *device) look(dir string) {
	has := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	d.wireless = has("wireless") || has("phy80211")
	d.real = has("device")
	if d.made == "" && has("tun_flags") {
		d.made = "tun"
	}
}

// devices asks the kernel for all cards.
func devices() ([]device, error) {
	var out []device
	err := dump(unix.RTM_GETLINK, func(m syscall.NetlinkMessage) {
		if d, ok := parseLink(m.Data); ok && m.Header.Type == unix.RTM_NEWLINK {
			out = append(out, d)
		}
	})
	return out, err
}

// addresses asks for all addresses, by card.
func addresses() (map[int][]netip.Prefix, error) {
	out := map[int][]netip.Prefix{}
	err := dump(unix.RTM_GETADDR, func(m syscall.NetlinkMessage) {
		if index, p, ok := parseAddr(m.Data); ok && m.Header.Type == unix.RTM_NEWADDR {
			out[index] = append(out[index], p)
		}
	})
	for _, list := range out {
		slices.SortFunc(list, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	}
	return out, err
}

// dump asks rtnetlink for a list.
func dump(what int, each func(syscall.NetlinkMessage)) error {
	b, err := syscall.NetlinkRIB(what, unix.AF_UNSPEC)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	list, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	for _, m := range list {
		each(m)
	}
	return nil
}

// attributes calls each with the attributes after a message's fixed part
// (rtnetlink(7)).
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofRtAttr:n])
		b = b[min(len(b), (n+3)&^3):]
	}
}

// parseLink reads an RTM_NEWLINK or RTM_DELLINK message.
func parseLink(b []byte) (d device, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return d, false
	}
	d.hardware = binary.NativeEndian.Uint16(b[2:])
	d.index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	d.flags = binary.NativeEndian.Uint32(b[8:])
	attributes(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			d.name = cString(v)
		case unix.IFLA_ADDRESS:
			d.mac = v
		case unix.IFLA_MTU:
			if len(v) >= 4 {
				d.mtu = int(binary.NativeEndian.Uint32(v))
			}
		case unix.IFLA_LINKINFO:
			attributes(v, func(kind uint16, v []byte) {
				if kind == unix.IFLA_INFO_KIND {
					d.made = cString(v)
				}
			})
		}
	})
	return d, d.name != ""
}

// parseAddr reads an RTM_NEWADDR message.
func parseAddr(b []byte) (index int, p netip.Prefix, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return 0, p, false
	}
	bits := int(b[1])
	index = int(binary.NativeEndian.Uint32(b[4:]))
	var addr, local netip.Addr
	attributes(b[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
		a, ok := netip.AddrFromSlice(v)
		switch {
		case ok && kind == unix.IFA_ADDRESS: // of a point-to-point link: the other end
			addr = a
		case ok && kind == unix.IFA_LOCAL:
			local = a
		}
	})
	if local.IsValid() {
		addr = local
	}
	p = netip.PrefixFrom(addr, bits)
	return index, p, p.IsValid()
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// routes lists the routes of all tables but the kernel's own: VPNs use tables of
// their own.
func routes(context.Context) ([]Route, error) {
	byIndex := map[int]string{}
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		byIndex[i.Index] = i.Name
	}
	var out []Route
	err = dump(unix.RTM_GETROUTE, func(m syscall.NetlinkMessage) {
		if n, index, ok := parseRoute(m.Data); ok && m.Header.Type == unix.RTM_NEWROUTE && byIndex[index] != "" {
			out = append(out, Route{Net: n, Card: byIndex[index]})
		}
	})
	return out, err
}

// parseRoute reads an RTM_NEWROUTE message of an IPv4 route for ordinary packets.
func parseRoute(b []byte) (n netip.Prefix, index int, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET || b[4] == unix.RT_TABLE_LOCAL || b[7] != unix.RTN_UNICAST {
		return n, 0, false
	}
	to := netip.IPv4Unspecified()
	attributes(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch {
		case kind == unix.RTA_DST && len(v) == 4:
			to = netip.AddrFrom4([4]byte(v))
		case kind == unix.RTA_OIF && len(v) == 4:
			index = int(binary.NativeEndian.Uint32(v))
		}
	})
	n = netip.PrefixFrom(to, int(b[1]))
	return n, index, n.IsValid()
}
