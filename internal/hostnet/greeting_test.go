package hostnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Only what says "SSH-" counts, in the order asked for and by the deadline,
// whatever the others do.
func TestGreeting(t *testing.T) {
	says := map[string]string{
		"192.168.1.1:22":   "SSH-2.0-dropbear\r\n",
		"192.168.2.1:22":   "HTTP/1.1 400 Bad Request\r\n",
		"192.168.178.1:22": "", // takes the connection and says nothing
		"10.0.0.2:22":      "SS",
		"10.0.0.3:22":      "SSH-2.0-OpenSSH_9.2\r\n",
	}
	synctest.Test(t, func(t *testing.T) {
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			text, there := says[addr]
			if addr == "10.0.0.9:22" { // its packets vanish
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if !there || network != "tcp" {
				return nil, errors.New("connection refused")
			}
			here, far := net.Pipe()
			go func() {
				if addr == "10.0.0.3:22" {
					<-time.After(time.Second) // a slow box, in the bubble's time
				}
				far.Write([]byte(text))
			}()
			return here, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		var ask []netip.Addr
		for _, a := range []string{"10.0.0.9", "10.0.0.3", "192.168.178.1", "192.168.2.1", "10.0.0.2", "192.168.1.1", "10.0.0.7"} {
			ask = append(ask, netip.MustParseAddr(a))
		}
		got := Greeting(ctx, dial, ask)
		want := []netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("192.168.1.1")}
		if !slices.Equal(got, want) {
			t.Errorf("greeting: %v, want %v", got, want)
		}
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("took %s; all are asked side by side and the deadline is 3 s", took)
		}
	})
	if got := Greeting(t.Context(), nil, nil); got != nil {
		t.Errorf("nobody asked, %v answered", got)
	}
}

func TestNetworksLeaveOutOnesOwn(t *testing.T) {
	nets, err := Networks()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nets {
		if n.Addr().IsLoopback() || n.Addr().IsLinkLocalUnicast() {
			t.Errorf("%v is no network to meet a router in", n)
		}
	}
}
