package world

import (
	"bufio"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab/igd"
)

// The ISP router answers a search that comes from the laptop, through the home
// router's masquerade.
func TestIGD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := New(t.Context(), Options{IGD: &igd.Options{UPnP: 2}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := w.Laptop.WaitAddr(t.Context(), HomeLAN); err != nil {
			t.Fatal(err)
		}
		u, err := w.Laptop.ListenUDP(0)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.WriteToAddrPort([]byte("M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: \"ssdp:discover\"\r\nST: upnp:rootdevice\r\n\r\n"), netip.AddrPortFrom(w.ISP.Address(), 1900))
		u.SetReadDeadline(time.Now().Add(time.Second))
		b := make([]byte, 1000)
		n, from, err := u.ReadFromAddrPort(b)
		if err != nil || from.Addr() != w.ISP.Address() || !strings.Contains(string(b[:n]), "LOCATION: http://192.168.2.254:5000/rootDesc.xml") {
			t.Fatalf("%v from %s: %s\n%s", err, from, b[:n], w.WhereDied(nil))
		}
		c, err := w.LaptopDial(t.Context(), "tcp", "192.168.2.254:5000")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /rootDesc.xml HTTP/1.0\r\n\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "200") {
			t.Errorf("%q %v", line, err)
		}
	})
}
