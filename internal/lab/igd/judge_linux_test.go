package igd

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/ispbox"
	"github.com/heimweg/heimweg/internal/lab/kernel"
)

func TestMain(m *testing.M) {
	if code, again := kernel.Enter(os.Stdin, os.Stdout, os.Stderr); again {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

var missing = sync.OnceValue(kernel.Probe)

// inHost listens with a kernel's sockets.
type inHost struct{ h *kernel.Host }

func (i inHost) ListenTCP(port uint16) (l net.Listener, err error) {
	err = i.h.Do(func() error {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
		return err
	})
	return l, err
}

func (i inHost) ListenUDP(port uint16) (c net.PacketConn, err error) {
	err = i.h.Do(func() error {
		c, err = (&net.ListenConfig{}).ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
		if err != nil || port != 1900 {
			return err
		}
		lan, err := net.InterfaceByName("lan")
		if err != nil {
			return err
		}
		return ipv4.NewPacketConn(c).JoinGroup(lan, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250)})
	})
	return c, err
}

// street is the emulator on a kernel's sockets, and a host beside it.
func street(t *testing.T, opt Options) (*Server, *ispbox.Box, func(args ...string) string) {
	for _, a := range []kernel.Ability{kernel.NetworkNamespaces, kernel.Veth} {
		if err := missing()[a]; err != nil {
			need.Missing(t, string(a), err.Error())
		}
	}
	isp, err := kernel.NewHost("ISP router")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(isp.Close)
	pc, err := kernel.NewHost("PC")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pc.Close)
	for _, err := range []error{kernel.Link(pc, "eth0", isp, "lan"), pc.Addr("eth0", "192.168.2.17/24"), isp.Addr("lan", "192.168.2.254/24"), pc.Route("default", "192.168.2.254", "eth0")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w := lab.New(1)
	t.Cleanup(w.Close)
	box := ispbox.New(w, ispbox.Options{LAN: w.Link("lan"), LANAddr: netip.MustParsePrefix("192.168.2.254/24"), WAN: w.Link("wan"), WANAddr: netip.MustParsePrefix("203.0.113.7/24")})
	s, err := New(box, inHost{isp}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, box, func(args ...string) string {
		t.Helper()
		path := need.Program(t, args[0])
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var out []byte
		pc.Do(func() error { // its exit status says little; its words are judged
			out, err = exec.CommandContext(ctx, path, args[1:]...).CombinedOutput()
			return err
		})
		return string(out)
	}
}

func says(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
}

// Debian's upnpc understands the emulator.
func TestJudgeUPnP(t *testing.T) {
	for _, opt := range []Options{{UPnP: 1}, {UPnP: 2}, {UPnP: 1, PPP: true}} {
		s, box, run := street(t, opt)
		u := s.url("/rootDesc.xml")
		says(t, run("upnpc", "-u", u, "-s"), "ExternalIPAddress = 203.0.113.7", "Connected")
		says(t, run("upnpc", "-u", u, "-e", "hello", "-a", "192.168.2.17", "51820", "51820", "UDP", "3600"), "is redirected to internal 192.168.2.17:51820")
		if m := box.Mappings(); len(m) != 1 || m[0].To != netip.MustParseAddrPort("192.168.2.17:51820") {
			t.Errorf("%+v", m)
		}
		says(t, run("upnpc", "-u", u, "-l"), "UDP 51820->192.168.2.17:51820 'hello'")
		says(t, run("upnpc", "-u", u, "-a", "192.168.2.18", "51820", "51820", "UDP"), "718 (ConflictInMappingEntry)")
		says(t, run("upnpc", "-u", u, "-d", "51820", "UDP"), "UPNP_DeletePortMapping() returned : 0")
		says(t, run("upnpc", "-u", u, "-d", "51820", "UDP"), "714")
		if m := box.Mappings(); len(m) != 0 {
			t.Errorf("%+v", m)
		}
	}
}

// It finds it by search, too, and doubts it only because 203.0.113.7 is an address
// for documentation.
func TestJudgeSearch(t *testing.T) {
	_, _, run := street(t, Options{UPnP: 2})
	says(t, run("upnpc", "-m", "192.168.2.17", "-s"), "Found a (not connected?) IGD : http://192.168.2.254:5000/ctl/WANIPConn1")
}

// Debian's natpmpc does, too.
func TestJudgeNATPMP(t *testing.T) {
	s, box, run := street(t, Options{NATPMP: true})
	says(t, run("natpmpc", "-g", "192.168.2.254"), "Public IP address : 203.0.113.7")
	says(t, run("natpmpc", "-g", "192.168.2.254", "-a", "51820", "51820", "udp", "600"), "Mapped public port 51820 protocol UDP to local port 51820 liftime 600")
	if m := box.Mappings(); len(m) != 1 || m[0].To != netip.MustParseAddrPort("192.168.2.17:51820") {
		t.Errorf("%+v", m)
	}
	says(t, run("natpmpc", "-g", "192.168.2.254", "-a", "0", "51820", "udp", "0"), "liftime 0")
	if len(s.Entries()) != 0 {
		t.Errorf("%+v", s.Entries())
	}
}
