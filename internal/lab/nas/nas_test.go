package nas

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
)

func p(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// visit puts a NAS and a laptop on one link, with a far host behind a router, and
// fetches pages.
func visit(t *testing.T, plain bool) {
	w := lab.New(1)
	defer w.Close()
	link := w.Link("home LAN")
	router, near, far := lab.NewStack(w, "router"), lab.NewStack(w, "laptop"), lab.NewStack(w, "far")
	router.Configure([]lab.Iface{
		{Dev: "lan", Link: link, Addrs: []netip.Prefix{p("192.168.1.1/24")}},
		{Dev: "wan", Link: w.Link("far LAN"), Addrs: []netip.Prefix{p("10.9.9.1/24")}},
	}, nil)
	router.SetForwarding(true)
	near.Configure([]lab.Iface{{Dev: "eth0", Link: link, Addrs: []netip.Prefix{p("192.168.1.50/24")}}}, nil)
	far.Configure([]lab.Iface{{Dev: "eth0", Link: w.Link("far LAN"), Addrs: []netip.Prefix{p("10.9.9.9/24")}}},
		[]lab.Route{{Dst: p("0.0.0.0/0"), Via: netip.MustParseAddr("10.9.9.1"), Dev: "eth0"}})
	b, err := New(w, Options{Link: link, Addr: p("192.168.1.10/24"), Plain: plain})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	get := func(from *lab.Stack, path string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a busy machine is slow
		defer cancel()
		tr := &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	ping := func(from *lab.Stack, within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := from.Ping(ctx, b.Addr())
		return err
	}
	if page, err := get(near, "/"); err != nil || page != "hello from home\nyou are 192.168.1.50\n" {
		t.Errorf("near: %q, %v", page, err)
	}
	if err := ping(near, 20*time.Second); err != nil {
		t.Error(err)
	}
	if err := ping(far, time.Second); err == nil {
		t.Error("answered a far host without a gateway")
	}
	b.SetGateway(netip.MustParseAddr("192.168.1.1"))
	if page, err := get(far, "/"); err != nil || page != "hello from home\nyou are 10.9.9.9\n" {
		t.Errorf("far: %q, %v", page, err)
	}
	if page, err := get(far, "/big"); err != nil || len(page) != BigPage {
		t.Errorf("big: %d bytes, %v", len(page), err)
	}
	if err := b.Move(p("192.168.1.77/24"), netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if page, err := get(near, "/"); err != nil || b.Addr() != netip.MustParseAddr("192.168.1.77") {
		t.Errorf("moved: %q, %v", page, err)
	}
	if seen := b.Seen(); len(seen) != 4 || seen[1] != netip.MustParseAddr("10.9.9.9") {
		t.Errorf("seen: %v", seen)
	}
}

func TestPlain(t *testing.T)  { synctest.Test(t, func(t *testing.T) { visit(t, true) }) }
func TestGVisor(t *testing.T) { visit(t, false) }
