package world

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// What a flasher sees over the cable: no carrier without power, the bootloader by
// broadcast wherever it sits and by TCP where we have an address near it, and
// silence where nobody is.
func TestCableToTheBootWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{FromStock: true, Device: device.Options{EVA: evabox.Options{Address: netip.MustParseAddr("169.254.115.1")}}})
		c := w.Cable()
		defer c.Close()
		c.Use(netip.MustParsePrefix("192.168.178.70/24"))
		if err := c.WaitLink(within(t, time.Minute), true); err == nil {
			t.Fatal("carrier without power")
		}
		w.Device.Power(true)
		began := time.Now()
		if err := c.WaitLink(within(t, time.Minute), true); err != nil || time.Since(began) != 2*time.Second {
			t.Fatalf("carrier: %v after %v", err, time.Since(began))
		}
		if err := w.Device.EVA.Wait(within(t, time.Minute), evabox.Window); err != nil {
			t.Fatal(err)
		}
		var seen []netip.Addr
		c.Look(within(t, time.Second), func(a netip.Addr) { seen = append(seen, a) })
		if !slices.Contains(seen, netip.MustParseAddr("169.254.115.1")) || slices.Contains(seen, w.NAS.Addr()) {
			t.Errorf("by ARP: %v", seen)
		}
		pc, err := c.ListenUDP(t.Context(), 5035)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		ask := []byte("\x00\x00\x12\x01\x01\x00\x00\x00\xc0\xa8\xb2\x01\x00\x00\x00\x00")
		pc.WriteTo(ask, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("255.255.255.255:5035")))
		pc.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 100)
		n, from, err := pc.ReadFrom(buf)
		if err != nil || fmt.Sprintf("%x", buf[:n]) != "000012010200000001b2a8c000000000" {
			t.Fatalf("answer %x from %v, %v", buf[:n], from, err)
		}
		if _, err := c.Dial(within(t, time.Second), "tcp", "192.168.178.99:21"); err == nil {
			t.Error("somebody answers at a wrong address")
		}
		conn, err := c.DialTCP(within(t, time.Second), netip.MustParseAddrPort("192.168.178.1:21"))
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := conn.Read(buf); !strings.HasPrefix(string(buf[:n]), "220 ADAM2 FTP Server ready") {
			t.Errorf("greets with %q", buf[:n])
		}
		// A box that is held can be told to move; the next connection finds it there.
		pc.WriteTo([]byte(strings.Replace(string(ask), "\xb2\x01", "\xb2\x07", 1)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.168.178.1:5035")))
		<-time.After(time.Second)
		if conn, err = c.DialTCP(within(t, time.Second), netip.MustParseAddrPort("192.168.178.7:21")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(buf); !strings.HasPrefix(string(buf[:n]), "220 ADAM2 FTP Server ready") {
			t.Errorf("after a move it greets with %q, %v", buf[:n], err)
		}
		w.Device.Power(false)
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Read(buf); err == nil || !strings.Contains(err.Error(), "timeout") {
			t.Errorf("a box without power says %v", err)
		}
		if err := c.WaitLink(within(t, time.Second), false); err != nil {
			t.Error("carrier without power, again")
		}
	})
}

func TestImpossibleStock(t *testing.T) {
	for _, o := range []Options{{FromStock: true, Uplink: home.OneArmed}, {FromStock: true, LANs: 2}} {
		if w, err := New(context.Background(), o); err == nil {
			w.Close()
			t.Errorf("%+v", o)
		}
	}
}

// A device that was flashed becomes the home router of that release: the laptop gets
// its address, the way out leads to the provider. In virtual and in real time.
func TestDeviceBecomesTheRouter(t *testing.T) {
	image := imagetest.EVA(imagetest.Options{Version: "23.05.6"})
	run := func(t *testing.T, o Options) {
		w := newWorld(t, o)
		if _, ok := w.RouterLAN(); ok || w.Router.On() {
			t.Error("a boxed device is a router already")
		}
		w.Device.Preload(image)
		w.Device.Power(true)
		ctx := within(t, 5*time.Minute)
		if err := w.Device.Wait(ctx, device.OpenWrt); err != nil {
			t.Fatal(err, w.Device.Log())
		}
		if err := w.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if w.Router.Version() != "23.05.6" {
			t.Errorf("runs %s", w.Router.Version())
		}
		page, err := fetch(t, w.LaptopDial, "http://"+Website.Addr().String()+"/")
		if err != nil || page != "hello from the internet\nyou are 203.0.113.7\n" {
			t.Errorf("web page: %q, %v\n%s", page, err, w.WhereDied(nil))
		}
	}
	t.Run("virtual time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { run(t, Options{FromStock: true, Uplink: home.Direct}) })
	})
	t.Run("real time", func(t *testing.T) {
		t.Parallel()
		quick := device.Quick
		quick.Window = 300 * time.Millisecond
		run(t, Options{FromStock: true, Real: true, Device: device.Options{EVA: evabox.Options{Times: quick}}})
	})
}
