package lab

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A broadcast reaches who listens on the link, whatever its network is, and
// nobody behind a pulled cable.
func TestBroadcast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(1)
		defer w.Close()
		l := w.Link("cable")
		host := func(name, addr string) (*Stack, *UDPConn) {
			s := NewStack(w, name)
			s.Configure([]Iface{{Dev: "eth0", Link: l, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}}, nil)
			u, err := s.ListenUDP(5035)
			if err != nil {
				t.Fatal(err)
			}
			return s, u
		}
		_, asks := host("computer", "192.168.178.2/24")
		box, hears := host("box", "169.254.120.1/16")
		try := func() bool {
			if _, err := asks.WriteTo([]byte("who"), everyoneAt(5035)); err != nil {
				t.Fatal(err)
			}
			hears.SetReadDeadline(time.Now().Add(time.Second))
			_, from, err := hears.ReadFromAddrPort(make([]byte, 10))
			return err == nil && from == netip.MustParseAddrPort("192.168.178.2:5035")
		}
		if !try() {
			t.Error("the box did not hear it")
		}
		if seen := l.Seen(); !slices.Contains(seen, netip.MustParseAddr("169.254.120.1")) || len(seen) != 2 {
			t.Errorf("on the link: %v", seen)
		}
		l.Unplug(box)
		if try() {
			t.Error("heard with the cable out")
		}
		if seen := l.Seen(); len(seen) != 1 {
			t.Errorf("on the link: %v", seen)
		}
		none := NewStack(w, "nobody")
		none.Configure([]Iface{{Dev: "eth0", Link: l}}, nil)
		u, _ := none.ListenUDP(0)
		if _, err := u.WriteTo([]byte("who"), everyoneAt(5035)); err == nil {
			t.Error("sent without an address")
		}
	})
}

func everyoneAt(port uint16) *udpAddr { return &udpAddr{netip.AddrPortFrom(everyone, port)} }

type udpAddr struct{ netip.AddrPort }

func (a *udpAddr) Network() string { return "udp" }
