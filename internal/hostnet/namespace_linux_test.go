package hostnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// inside says that this process has a network of its own.
const inside = "HEIMWEG_TEST_NAMESPACE"

// TestMain runs all tests of the package in a network namespace of their own:
// they make cards, change addresses and cut cables, and must not do that to the
// computer they run on. Where the system does not allow it, the tests that need
// it say so.
func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		os.Exit(child())
	}
	if os.Getenv(inside) == "" {
		if code, ok := again(); ok {
			os.Exit(code)
		}
	} else if err := prepare(); err != nil {
		os.Stderr.WriteString("the test's namespace: " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// again runs this program in namespaces of its own.
func again() (code int, ok bool) {
	flags := uintptr(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	attr := &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is about this thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdin, os.Stdout, os.Stderr, attr
	if err := cmd.Start(); err != nil {
		return 0, false
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(1, exit.ExitCode()), true
	}
	return 0, err == nil
}

// prepare shows the namespace's own cards in /sys and switches the loopback on.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("heimweg-test", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// A cableTest is a veth pair: one end is this computer's card, the other a box's,
// in a namespace of its own. It is an evabox.Network with real sockets.
type cableTest struct {
	t    testing.TB
	name string
	ns   netns.NsHandle
	nl   *netlink.Handle
	far  netlink.Link

	opened chan time.Time // when the box opened port 21
}

var cableNumber int

func newCable(t testing.TB) *cableTest {
	t.Helper()
	if os.Getenv(inside) == "" {
		need.Missing(t, "network namespaces", "this system does not let us make any")
	}
	cableNumber++
	c := &cableTest{t: t, name: "cable" + strconv.Itoa(cableNumber), opened: make(chan time.Time, 64)}
	c.onThread(func() {
		here, err := netns.Get()
		must(t, err)
		defer here.Close()
		c.ns, err = netns.New()
		must(t, err)
		must(t, netns.Set(here))
	})
	t.Cleanup(func() { c.ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = c.name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "box", PeerNamespace: netlink.NsFd(c.ns)}))
	near, err := netlink.LinkByName(c.name)
	must(t, err)
	t.Cleanup(func() { netlink.LinkDel(near) })
	must(t, netlink.LinkSetUp(near))
	c.nl, err = netlink.NewHandleAt(c.ns)
	must(t, err)
	t.Cleanup(c.nl.Close)
	c.far, err = c.nl.LinkByName("box")
	must(t, err)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onThread runs f on a thread whose namespace may be changed.
func (c *cableTest) onThread(f func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f()
	})
	wg.Wait()
}

// inBox runs f in the box's namespace.
func (c *cableTest) inBox(f func()) {
	c.onThread(func() {
		if err := netns.Set(c.ns); err != nil {
			c.t.Error(err)
			return
		}
		f()
	})
}

// Listen implements evabox.Network.
func (c *cableTest) Listen(port uint16) (l net.Listener, err error) {
	c.inBox(func() { l, err = net.Listen("tcp4", ":"+strconv.Itoa(int(port))) })
	if port == 21 {
		select {
		case c.opened <- time.Now():
		default:
		}
	}
	return l, err
}

// ListenUDP implements evabox.Network.
func (c *cableTest) ListenUDP(_ context.Context, port uint16) (p net.PacketConn, err error) {
	c.inBox(func() { p, err = net.ListenPacket("udp4", ":"+strconv.Itoa(int(port))) })
	return p, err
}

// SetAddress implements evabox.Network.
func (c *cableTest) SetAddress(a netip.Addr) {
	old, err := c.nl.AddrList(c.far, netlink.FAMILY_V4)
	must(c.t, err)
	for _, o := range old {
		if !a.IsValid() || !o.IP.Equal(a.AsSlice()) {
			must(c.t, c.nl.AddrDel(c.far, &o))
		}
	}
	if !a.IsValid() {
		return
	}
	must(c.t, c.nl.AddrReplace(c.far, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
}

// Link implements evabox.Network.
func (c *cableTest) Link(up bool) {
	if !up {
		must(c.t, c.nl.LinkSetDown(c.far))
		return
	}
	must(c.t, c.nl.LinkSetUp(c.far))
	// A boot loader answers whoever asks, whatever network that is from.
	err := c.nl.RouteReplace(&netlink.Route{LinkIndex: c.far.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}})
	must(c.t, err)
}

// card is our end as Cards lists it.
func (c *cableTest) card() Card {
	c.t.Helper()
	list, err := Cards(c.t.Context())
	must(c.t, err)
	i := slices.IndexFunc(list, func(k Card) bool { return k.Name == c.name })
	if i < 0 {
		c.t.Fatalf("no card %s in %v", c.name, list)
	}
	return list[i]
}

// give sets an address on our end, as a person does.
func (c *cableTest) give(n string) {
	c.t.Helper()
	near, err := netlink.LinkByName(c.name)
	must(c.t, err)
	a, err := netlink.ParseAddr(n)
	must(c.t, err)
	must(c.t, netlink.AddrAdd(near, a))
}

// unplugCard takes our end away, as a card on USB goes.
func (c *cableTest) unplugCard() {
	c.t.Helper()
	near, err := netlink.LinkByName(c.name)
	must(c.t, err)
	must(c.t, netlink.LinkDel(near))
}

var _ evabox.Network = (*cableTest)(nil)
