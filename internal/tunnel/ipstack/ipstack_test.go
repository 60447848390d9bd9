package ipstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
)

// pair joins two hosts by a wire.
func pair(t *testing.T) (a, b *Stack) {
	t.Helper()
	for i, s := range []**Stack{&a, &b} {
		var err error
		if *s, err = New([]netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}, 1400); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*s).Close() })
	}
	carry := func(from, to *Stack) {
		b := make([]byte, 1500)
		n := make([]int, 1)
		for {
			if _, err := from.Read([][]byte{b}, n, 4); err != nil {
				return
			}
			to.Write([][]byte{b[:4+n[0]]}, 4)
		}
	}
	go carry(a, b)
	go carry(b, a)
	return a, b
}

func TestTwoHostsTalk(t *testing.T) {
	a, b := pair(t)
	l, err := b.ListenTCP(netip.MustParseAddrPort("10.0.0.2:7"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	c, err := a.Dial(context.Background(), "tcp", netip.MustParseAddrPort("10.0.0.2:7"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := a.Dial(context.Background(), "sctp", netip.MustParseAddrPort("10.0.0.2:7")); err == nil {
		t.Error("sctp was dialled")
	}
	if _, err := b.ListenTCP(netip.AddrPort{}); err == nil {
		t.Error("listened nowhere")
	}
}

// The reason for this package: Close in the middle of traffic.
func TestCloseEndsEverything(t *testing.T) {
	for range 50 {
		a, b := pair(t)
		u, err := b.ListenUDP(netip.MustParseAddrPort("10.0.0.2:9"))
		if err != nil {
			t.Fatal(err)
		}
		first := make(chan struct{})
		go func() {
			p := make([]byte, 1500)
			u.ReadFrom(p)
			close(first)
		}()
		c, err := a.Dial(context.Background(), "udp", netip.MustParseAddrPort("10.0.0.2:9"))
		if err != nil {
			t.Fatal(err)
		}
		stopped := make(chan error, 2)
		go func() { // a writer
			for {
				if _, err := c.Write(make([]byte, 1000)); err != nil {
					stopped <- err
					return
				}
			}
		}()
		go func() { // a reader whom nobody answers
			_, err := c.Read(make([]byte, 10))
			stopped <- err
		}()
		<-first
		b.Close()
		a.Close()
		for range 2 {
			if err := <-stopped; err == nil {
				t.Error("no error after Close")
			}
		}
		if _, err := a.Dial(context.Background(), "udp", netip.MustParseAddrPort("10.0.0.2:9")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial after Close: %v", err)
		}
		if _, err := a.Read([][]byte{make([]byte, 1500)}, make([]int, 1), 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
	}
}
