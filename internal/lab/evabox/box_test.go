package evabox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// A hand is someone who types at a box's FTP port.
type hand struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
	n *evabox.Node
}

// dial waits for the box and connects.
func dial(t *testing.T, n *evabox.Node) *hand {
	t.Helper()
	c, err := n.DialTCP(t.Context(), netip.MustParseAddrPort("192.168.178.1:21"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hand{t, c, bufio.NewReader(c), n}
	h.gets("220 ADAM2 FTP Server ready")
	return h
}

func (h *hand) gets(lines ...string) {
	h.t.Helper()
	for _, want := range lines {
		if got, err := h.r.ReadString('\n'); err != nil || got != want+"\r\n" {
			h.t.Fatalf("got %q %v, want %q", got, err, want)
		}
	}
}

func (h *hand) says(cmd string, lines ...string) {
	h.t.Helper()
	if _, err := io.WriteString(h.c, cmd+"\n"); err != nil {
		h.t.Fatal(err)
	}
	h.gets(lines...)
}

func (h *hand) login() {
	h.t.Helper()
	h.says("USER adam2", "331 Password required for adam2")
	h.says("PASS adam2", "230 User adam2 successfully logged in")
}

func bubble(t *testing.T, opt evabox.Options, f func(t *testing.T, b *evabox.Box, n *evabox.Node)) {
	synctest.Test(t, func(t *testing.T) {
		w := evabox.NewWire()
		b := evabox.New(w.Plug(), opt)
		defer b.Close()
		b.Power(true)
		f(t, b, w.Plug())
	})
}

// The replies of facts eva 1.2, to the letter.
func TestReplies(t *testing.T) {
	bubble(t, evabox.Options{}, func(t *testing.T, b *evabox.Box, n *evabox.Node) {
		h := dial(t, n)
		defer h.c.Close()
		h.says("SYST", "530 not logged in")
		h.login()
		for _, c := range [][]string{
			{"syst", "215 AVM EVA Version 1.3620 0x0 0x240D"},
			{"TYPE I", "200 Type set to BINARY"}, {"TYPE A", "200 Type set to ASCII"},
			{"MEDIA FLASH", "551 unknown Mediatype"}, {"MEDIA FLSH", "200 Media set to MEDIA_FLASH"},
			{"EPSV", "502 Command not implemented"}, {"FEAT", "502 Command not implemented"},
			{"GETENV memsize", "memsize               0x10000000", "", "200 GETENV command successful"},
			{"GETENV usb_manufacturer_name", "usb_manufacturer_name  AVM", "", "200 GETENV command successful"},
			{"GETENV nonsense", "501 environment variable not set"}, {"GETENV", "501 environment variable not set"},
			{"SETENV memsize 0x0x10000000", "200 SETENV command successful"}, // values are not checked
			{"UNSETENV nonsense", "501 environment variable not set"},
			{"P@SW", "227 Entering Passive Mode (192,168,178,1,12,0)"}, {"PASV", "227 Entering Passive Mode (192,168,178,1,12,1)"},
			{"STOR mtd1", "425 can'nt open data connection"}, // nobody connected to the data port
			{"USER adam2", "331 Password required for adam2"}, {"PASS adam2", "230 User adam2 successfully logged in"},
			{"QUIT", "221 Thank you for using the FTP service on ADAM2", "221 Goodbye."},
		} {
			h.says(c[0], c[1:]...)
		}
		if b.State() != evabox.Held || b.Flash("mtd1") != nil {
			t.Errorf("state %s, %d bytes", b.State(), len(b.Flash("mtd1")))
		}
	})
}

// The window closes, the maker's system starts and refuses; a connection in the
// window holds the box for as long as anyone likes.
func TestWindow(t *testing.T) {
	bubble(t, evabox.Options{}, func(t *testing.T, b *evabox.Box, n *evabox.Node) {
		began := time.Now()
		if err := b.Wait(t.Context(), evabox.Booting); err != nil || time.Since(began) != 7500*time.Millisecond {
			t.Errorf("%v, booting after %s", err, time.Since(began))
		}
		if err := b.Wait(t.Context(), evabox.Running); err != nil || b.Runs() != evabox.Stock {
			t.Errorf("%v, runs %s", err, b.Runs())
		}
		if _, err := n.DialTCP(t.Context(), netip.MustParseAddrPort("192.168.178.1:21")); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("got %v", err)
		}
		b.Power(false)
		b.Power(true)
		h := dial(t, n)
		<-time.After(time.Hour)
		if b.State() != evabox.Held {
			t.Errorf("state %s after an hour", b.State())
		}
		h.c.Close()
	})
}

// An early caller waits as on Linux: a question a second, "no route" after three.
func TestKernelARP(t *testing.T) {
	bubble(t, evabox.Options{}, func(t *testing.T, _ *evabox.Box, n *evabox.Node) {
		n.KernelARP = true
		began := time.Now()
		_, err := n.DialTCP(t.Context(), netip.MustParseAddrPort("192.168.178.99:21"))
		if err == nil || !strings.Contains(err.Error(), "no route to host") || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// put connects a data connection and stores data.
func (h *hand) put(port int, part string, data []byte) error {
	c, err := h.n.DialTCP(h.t.Context(), netip.MustParseAddrPort(fmt.Sprintf("192.168.178.1:%d", port)))
	if err != nil {
		return err
	}
	h.says("STOR "+part, "150 Opening BINARY data connection")
	_, err = c.Write(data)
	c.Close()
	return err
}

// Erasing comes before 150 and takes its time; the whole partition is erased, so
// an empty file leaves 0xFF everywhere, whose number the facts give (eva 1.4, 1.5).
func TestEraseThenWrite(t *testing.T) {
	bubble(t, evabox.Options{Times: evabox.Times{Erase: 2 * time.Minute}}, func(t *testing.T, b *evabox.Box, n *evabox.Node) {
		h := dial(t, n)
		defer h.c.Close()
		h.login()
		h.says("MEDIA FLSH", "200 Media set to MEDIA_FLASH")
		h.says("PASV", "227 Entering Passive Mode (192,168,178,1,12,0)")
		began := time.Now()
		if err := h.put(3072, "mtd1", nil); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) != 2*time.Minute {
			t.Errorf("150 after %s", time.Since(began))
		}
		h.gets("226 Transfer complete")
		h.says("CHECK mtd1", "150 Flash check 0xE4C61A5F")
		h.says("REBOOT", "221 Thank you for using the FTP service on ADAM2", "221 Goodbye.")
		if err := b.Wait(t.Context(), evabox.Running); err != nil || b.Runs() != evabox.RedLight {
			t.Errorf("%v, an empty flash runs %s", err, b.Runs())
		}
	})
}

// Too much is refused, and the bootloader can be destroyed: the tests of a client
// have to notice when it is.
func TestTooLargeAndBricked(t *testing.T) {
	bubble(t, evabox.Options{Times: evabox.Times{Rate: 1 << 30}}, func(t *testing.T, b *evabox.Box, n *evabox.Node) {
		h := dial(t, n)
		defer h.c.Close()
		h.login()
		h.says("MEDIA FLSH", "200 Media set to MEDIA_FLASH")
		h.says("PASV", "227 Entering Passive Mode (192,168,178,1,12,0)")
		if err := h.put(3072, "mtd3", make([]byte, 0x80001)); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
		h.gets("501 store failed")
		if b.Bricked() {
			t.Error("bricked by mtd3")
		}
		h.says("PASV", "227 Entering Passive Mode (192,168,178,1,12,1)")
		if err := h.put(3073, "mtd2", []byte("x")); err != nil {
			t.Fatal(err)
		}
		h.gets("226 Transfer complete")
		if !b.Bricked() {
			t.Error("mtd2 was written and nobody notices")
		}
	})
}

// What starts is what was written: a cut image is a red light.
func TestBootsWhatWasWritten(t *testing.T) {
	image := evabox.Image4040(100_000, 200_000)
	broken := append([]byte(nil), image...)
	broken[1000] ^= 1
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"whole": {image, evabox.OpenWrt}, "cut": {image[:700_000], evabox.RedLight}, "flipped bit in U-Boot": {broken, evabox.RedLight},
		"sysupgrade": {image[0x80000:], evabox.RedLight}, "zeros": {make([]byte, 1<<20), evabox.RedLight},
	} {
		bubble(t, evabox.Options{}, func(t *testing.T, b *evabox.Box, n *evabox.Node) {
			h := dial(t, n)
			defer h.c.Close()
			h.login()
			h.says("MEDIA FLSH", "200 Media set to MEDIA_FLASH")
			h.says("PASV", "227 Entering Passive Mode (192,168,178,1,12,0)")
			if err := h.put(3072, "mtd1", c.data); err != nil {
				t.Fatal(err)
			}
			h.gets("226 Transfer complete")
			h.says("REBOOT", "221 Thank you for using the FTP service on ADAM2", "221 Goodbye.")
			if err := b.Wait(t.Context(), evabox.Running); err != nil || b.Runs() != c.want {
				t.Errorf("%s: %v, runs %s", name, err, b.Runs())
			}
		})
	}
}

// The answer on UDP 5035 goes to port 5035 whatever port asked (facts eva 2.2).
func TestUDP(t *testing.T) {
	bubble(t, evabox.Options{Address: netip.MustParseAddr("169.254.1.1")}, func(t *testing.T, b *evabox.Box, n *evabox.Node) {
		if err := b.Wait(t.Context(), evabox.Window); err != nil {
			t.Fatal(err)
		}
		ask, err := n.ListenUDP(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer ask.Close()
		hear, err := n.ListenUDP(t.Context(), 5035)
		if err != nil {
			t.Fatal(err)
		}
		defer hear.Close()
		for _, c := range []struct{ want, answer string }{
			{"\x00\x00\x00\x00", "\x01\x01\xfe\xa9"}, {"\xc0\xa8\xb2\x01", "\x01\xb2\xa8\xc0"}, {"\x00\x00\x00\x00", "\x01\xb2\xa8\xc0"},
		} {
			if _, err := ask.WriteTo([]byte("\x00\x00\x12\x01\x01\x00\x00\x00"+c.want+"\x00\x00\x00\x00"), &net.UDPAddr{IP: net.IPv4bcast, Port: 5035}); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 64)
			k, _, err := hear.ReadFrom(buf)
			if want := "\x00\x00\x12\x01\x02\x00\x00\x00" + c.answer + "\x00\x00\x00\x00"; err != nil || string(buf[:k]) != want {
				t.Errorf("% x: %v", buf[:k], err)
			}
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := n.DialTCP(ctx, netip.MustParseAddrPort("169.254.1.1:21")); err == nil {
			t.Error("still at the old address")
		}
	})
}
