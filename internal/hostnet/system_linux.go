package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var thisSystem system = linux{}

// linux changes cards over rtnetlink, which needs CAP_NET_ADMIN, and speaks with
// NetworkManager by its own program.
type linux struct{}

func (linux) do(ctx context.Context, c Card, ch change) error {
	switch ch.What {
	case unmanaged:
		return nmcli(ctx, "device", "set", c.Name, "managed", "no")
	case switchOn:
		return request(linkMessage(c, true))
	case address:
		err := request(addressMessage(c, ch.Net, true))
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	return request(routeMessage(c, ch.Net, true))
}

func (linux) undo(ctx context.Context, c Card, ch change) error {
	var err error
	switch ch.What {
	case unmanaged:
		if !hasManager() {
			return nil // NetworkManager was removed or is not running
		}
		return nmcli(ctx, "device", "set", c.Name, "managed", "yes")
	case switchOn:
		err = request(linkMessage(c, false))
	case address:
		err = request(addressMessage(c, ch.Net, false))
	default:
		err = request(routeMessage(c, ch.Net, false))
	}
	for _, gone := range []error{unix.EADDRNOTAVAIL, unix.ESRCH, unix.ENODEV} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// hasManager reports whether NetworkManager's program is there.
func hasManager() bool {
	_, err := exec.LookPath("nmcli")
	return err == nil
}

// nmcli runs NetworkManager's program.
func nmcli(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "nmcli", args...).CombinedOutput()
	if err != nil {
		return &CommandError{Command: "nmcli " + strings.Join(args, " "), Output: firstLine(out), Cause: err}
	}
	return nil
}

// keepManagerAway makes NetworkManager leave the card alone, if it is there and
// does not already: it takes addresses away when the cable dies, and asks for
// others when it comes back (facts eva 2.4).
func keepManagerAway(ctx context.Context, l *loan) error {
	if !hasManager() {
		return nil
	}
	out, err := exec.CommandContext(ctx, "nmcli", "-g", "GENERAL.STATE", "device", "show", l.card.Name).Output()
	if err != nil || strings.HasPrefix(string(out), "10 ") { // it is not running, or does not manage this card
		return nil
	}
	return l.borrow(ctx, change{What: unmanaged})
}

// needsRoutes reports whether packets from the box would be refused without a
// route back over this card: strict rp_filter, when another card is in the same
// network. Else a socket bound to the card needs none, and the rest of the
// computer keeps its way to a network of the same numbers.
func needsRoutes(c Card) bool {
	strict := func(name string) bool {
		b, _ := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "rp_filter"))
		return strings.TrimSpace(string(b)) == "1"
	}
	loose := func(name string) bool {
		b, _ := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "rp_filter"))
		return strings.TrimSpace(string(b)) == "2"
	}
	return (strict("all") || strict(c.Name)) && !loose("all") && !loose(c.Name) // the kernel takes the larger one
}

// A socket can be bound to a card since Linux 5.7 without rights.
const bindsToCard = true

func bindToCard(fd uintptr, c Card) error {
	return unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, c.Name)
}

// A message is a request to rtnetlink (rtnetlink(7)).
type message struct {
	kind, flags uint16
	body        []byte
}

func (m *message) attribute(kind uint16, v []byte) {
	var head [4]byte
	binary.NativeEndian.PutUint16(head[:], uint16(4+len(v)))
	binary.NativeEndian.PutUint16(head[2:], kind)
	m.body = append(append(m.body, head[:]...), v...)
	for len(m.body)%4 != 0 {
		m.body = append(m.body, 0)
	}
}

func uint32Bytes(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func linkMessage(c Card, on bool) message {
	m := message{kind: unix.RTM_NEWLINK, body: make([]byte, unix.SizeofIfInfomsg)}
	binary.NativeEndian.PutUint32(m.body[4:], uint32(c.Index))
	if on {
		binary.NativeEndian.PutUint32(m.body[8:], unix.IFF_UP)
	}
	binary.NativeEndian.PutUint32(m.body[12:], unix.IFF_UP) // the only flag to change
	return m
}

// addressMessage adds an address without the route to its network that usually
// comes with it, or takes it away.
func addressMessage(c Card, n netip.Prefix, add bool) message {
	m := message{kind: unix.RTM_DELADDR, body: make([]byte, unix.SizeofIfAddrmsg)}
	if add {
		m.kind, m.flags = unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL
	}
	m.body[0], m.body[1] = unix.AF_INET, byte(n.Bits())
	binary.NativeEndian.PutUint32(m.body[4:], uint32(c.Index))
	m.attribute(unix.IFA_LOCAL, n.Addr().AsSlice())
	m.attribute(unix.IFA_ADDRESS, n.Addr().AsSlice())
	if add {
		m.attribute(unix.IFA_FLAGS, uint32Bytes(unix.IFA_F_NOPREFIXROUTE))
	}
	return m
}

func routeMessage(c Card, n netip.Prefix, add bool) message {
	m := message{kind: unix.RTM_DELROUTE, body: make([]byte, unix.SizeofRtMsg)}
	if add {
		m.kind, m.flags = unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE
	}
	m.body[0], m.body[1] = unix.AF_INET, byte(n.Bits())
	m.body[4], m.body[5], m.body[6], m.body[7] = unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST
	m.attribute(unix.RTA_DST, n.Addr().AsSlice())
	m.attribute(unix.RTA_OIF, uint32Bytes(uint32(c.Index)))
	return m
}

// request sends a message and waits for the kernel's word, which comes at once.
func request(m message) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(m.body))
	binary.NativeEndian.PutUint32(b, uint32(unix.SizeofNlMsghdr+len(m.body)))
	binary.NativeEndian.PutUint16(b[4:], m.kind)
	binary.NativeEndian.PutUint16(b[6:], m.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(b[8:], 1)
	if err := unix.Sendto(fd, append(b, m.body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("netlink", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return os.NewSyscallError("netlink", unix.EBADMSG)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return os.NewSyscallError("netlink", unix.Errno(-code))
	}
	return nil
}
