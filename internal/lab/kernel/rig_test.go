//go:build linux

package kernel_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/lab/kernel"
)

// A rig is one router in the kernel whose every cable ends in our hands: packets
// are written to its devices and read from them, and raw sockets see what is
// delivered to the router itself.
type rig struct {
	host  *kernel.Host
	ports map[string]*port
	order []string
	raw4  []int
	raw6  []int
	send4 int
	send6 int
}

type port struct {
	fd  int
	mac []byte // the router's; nil for a device without Ethernet
}

// The protocols that raw sockets listen for.
var protos4 = []uint8{firewall.TCP, firewall.UDP, firewall.ICMP, 50}
var protos6 = []uint8{firewall.TCP, firewall.UDP, firewall.ICMPv6, 50}

// live are the router's interfaces: an OpenWrt box behind an ISP router, with a
// tunnel, a guest network, and a device that is in no zone.
func live() []firewall.Iface {
	iface := func(name, dev string, addrs ...string) firewall.Iface {
		i := firewall.Iface{Name: name, Device: dev, Up: true}
		for _, a := range addrs {
			i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
		}
		return i
	}
	wan := iface("wan", "wan", "192.168.2.253/24")
	wan.Gateways = []netip.Addr{netip.MustParseAddr("192.168.2.1")}
	return []firewall.Iface{
		iface("loopback", "lo", "127.0.0.1/8", "::1/128"),
		iface("lan", "br-lan", "192.168.1.1/24", "fd00:1::1/64"),
		wan,
		iface("wan6", "wan", "2001:db8:2::253/64"),
		iface("wg0", "wg0", "192.168.20.1/24", "fd00:20::1/64"),
		iface("guest", "guest", "10.5.0.1/24", "fd00:5::1/64"),
		iface("odd", "odd0", "10.9.0.1/24", "fd00:9::1/64"),
		{Name: "vpn2"},
	}
}

// route is the way the rig's routes lead.
func route(dst netip.Addr) (string, bool) {
	for _, i := range live() {
		for _, p := range i.Addrs {
			if p.Addr() == dst || dst.Is6() && p.Masked().Addr() == dst { // the subnet's router address
				return "", true
			}
		}
	}
	for _, i := range live() {
		for _, p := range i.Addrs {
			if p.Contains(dst) {
				return i.Device, false
			}
		}
	}
	return "wan", false
}

func newRig(t testing.TB) *rig {
	needs(t, kernel.NetworkNamespaces, kernel.Switches, kernel.NFT, kernel.Tun, kernel.RawSockets)
	h, err := kernel.NewHost("router")
	must(t, err)
	r := &rig{host: h, ports: map[string]*port{}}
	t.Cleanup(func() {
		for _, p := range r.ports {
			unix.Close(p.fd)
		}
		for _, fd := range append(append(r.raw4, r.raw6...), r.send4, r.send6) {
			unix.Close(fd)
		}
		h.Close()
	})
	for _, k := range []string{"net/ipv6/conf/default/addr_gen_mode"} {
		must(t, h.Sysctl(k, "1")) // no link-local addresses
	}
	must(t, h.Forward())
	must(t, h.Do(func() error { return r.open() }))
	for _, i := range live() {
		if i.Device == "lo" || i.Device == "" {
			continue
		}
		for _, a := range i.Addrs {
			must(t, h.Addr(i.Device, a.String()))
		}
	}
	must(t, h.Route("default", "192.168.2.1", "wan"))
	must(t, h.Route("::/0", "", "wan"))
	return r
}

// open makes devices and sockets; it runs inside the host.
func (r *rig) open() error {
	for _, dev := range []string{"br-lan", "wan", "wg0", "guest", "odd0"} {
		p, err := openPort(dev, dev != "wg0")
		if err != nil {
			return err
		}
		r.ports[dev] = p
		r.order = append(r.order, dev)
	}
	raw := func(family, proto int) (int, error) {
		return unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	}
	for i := range protos4 {
		fd, err := raw(unix.AF_INET, int(protos4[i]))
		if err != nil {
			return err
		}
		fd6, err := raw(unix.AF_INET6, int(protos6[i]))
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			return err
		}
		r.raw4, r.raw6 = append(r.raw4, fd), append(r.raw6, fd6)
	}
	var err error
	if r.send4, err = raw(unix.AF_INET, unix.IPPROTO_RAW); err != nil {
		return err
	}
	if r.send6, err = raw(unix.AF_INET6, unix.IPPROTO_RAW); err != nil {
		return err
	}
	return unix.SetsockoptInt(r.send6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1)
}

func openPort(dev string, ethernet bool) (*port, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var req [40]byte // struct ifreq: name, flags
	copy(req[:15], dev)
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if ethernet {
		flags = unix.IFF_TAP | unix.IFF_NO_PI
	}
	binary.NativeEndian.PutUint16(req[16:], flags)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req[0]))); e != 0 {
		return nil, fmt.Errorf("%s: %w", dev, e)
	}
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return nil, err
	}
	p := &port{fd: fd}
	if ethernet {
		// Nobody answers for addresses here: send without asking.
		if err := netlink.LinkSetARPOff(l); err != nil {
			return nil, err
		}
		p.mac = l.Attrs().HardwareAddr
	}
	return p, netlink.LinkSetUp(l)
}

// seen is a packet that came out of the router: by a device, or by "" to itself.
type seen struct {
	dev string
	p   firewall.Packet
}

func (s seen) String() string {
	if s.dev == "" {
		return "delivered " + show(s.p)
	}
	return "out of " + s.dev + " " + show(s.p)
}

// drain reads all that has come out so far.
func (r *rig) drain() []seen {
	var out []seen
	buf := make([]byte, 4096)
	for _, dev := range r.order {
		p := r.ports[dev]
		for {
			n, err := unix.Read(p.fd, buf)
			if err != nil || n <= 0 {
				break
			}
			b := buf[:n]
			if p.mac != nil && n >= 14 {
				b = b[14:]
			}
			if q, ok := decode(b); ok && !noise(q) {
				out = append(out, seen{dev, q})
			}
		}
	}
	for _, fd := range r.raw4 {
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				break
			}
			if q, ok := decode(buf[:n]); ok {
				out = append(out, seen{"", q})
			}
		}
	}
	for i := range r.raw6 {
		out = r.drain6(i, buf, out)
	}
	return out
}

// drain6 reads a raw socket of IPv6, which gives no header but its addresses.
func (r *rig) drain6(i int, buf []byte, out []seen) []seen {
	oob := make([]byte, 256)
	for {
		n, on, _, from, err := unix.Recvmsg(r.raw6[i], buf, oob, 0)
		if err != nil {
			return out
		}
		q := firewall.Packet{Proto: protos6[i], Src: netip.AddrFrom16(from.(*unix.SockaddrInet6).Addr)}
		msgs, _ := unix.ParseSocketControlMessage(oob[:on])
		for _, m := range msgs {
			if m.Header.Type == unix.IPV6_PKTINFO {
				q.Dst = netip.AddrFrom16([16]byte(m.Data[:16]))
			}
		}
		decodeBody(&q, buf[:n])
		if !noise(q) {
			out = append(out, seen{"", q})
		}
	}
}

// put lets a packet arrive on a device, or be sent by the router itself ("").
// The kernel handles it before the call returns, as a rule.
func (r *rig) put(dev string, p firewall.Packet, options ...byte) error {
	b := encode(p, options...)
	if dev == "" {
		if p.Src.Is4() {
			return gone(unix.Sendto(r.send4, b, 0, &unix.SockaddrInet4{Addr: p.Dst.As4()}))
		}
		return gone(unix.Sendto(r.send6, b, 0, &unix.SockaddrInet6{Addr: p.Dst.As16()}))
	}
	to := r.ports[dev]
	if to.mac != nil {
		kind := []byte{0x08, 0x00}
		if p.Src.Is6() {
			kind = []byte{0x86, 0xDD}
		}
		b = append(append(append(append([]byte{}, to.mac...), p.MAC[:]...), kind...), b...)
	}
	_, err := unix.Write(to.fd, b)
	return err
}

// gone: that the firewall dropped or refused our own packet is no mistake.
func gone(err error) error {
	switch err {
	case unix.EPERM, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.EACCES, unix.ENETUNREACH:
		return nil
	}
	return err
}

// wait waits a moment for more to come out.
func (r *rig) wait() {
	var fds []unix.PollFd
	for _, p := range r.ports {
		fds = append(fds, unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN})
	}
	for _, fd := range append(append([]int{}, r.raw4...), r.raw6...) {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	unix.Poll(fds, 50)
}

func show(p firewall.Packet) string {
	s := ""
	switch p.Proto {
	case firewall.TCP:
		s = "tcp"
		for _, f := range []struct {
			on   bool
			name string
		}{{p.SYN, "syn"}, {p.ACK, "ack"}, {p.FIN, "fin"}, {p.RST, "rst"}} {
			if f.on {
				s += " " + f.name
			}
		}
	case firewall.UDP:
		s = "udp"
	case firewall.ICMP, firewall.ICMPv6:
		s = fmt.Sprintf("icmp %d/%d", p.ICMPType, p.ICMPCode)
	default:
		s = fmt.Sprintf("protocol %d", p.Proto)
	}
	if p.Proto == firewall.TCP || p.Proto == firewall.UDP {
		s += fmt.Sprintf(" %s → %s", netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort))
	} else {
		s += fmt.Sprintf(" %s → %s id %d", p.Src, p.Dst, p.ICMPID)
	}
	if p.DSCP != 0 {
		s += fmt.Sprintf(" dscp %d", p.DSCP)
	}
	if p.Inner != nil {
		s += " about [" + show(*p.Inner) + "]"
	}
	return s
}
