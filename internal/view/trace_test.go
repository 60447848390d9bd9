package view_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/view"
)

// homeAndRouter is a home router as heimweg apply left it.
func homeAndRouter(t *testing.T) (home.Home, *router.Snapshot) {
	t.Helper()
	h := parseHome(t, sample)
	s := fresh(t)
	for i := range h.Peers {
		h.Peers[i].Preshared = false
	}
	after := trace.Applied(h, s)
	if after.Snapshot == nil {
		t.Fatalf("%+v", after)
	}
	s = after.Snapshot
	live := s.Tunnels["wg0"]
	live.PublicKey = testKey(1).Public()
	s.Time = time.Unix(1_780_000_000, 0)
	live.Peers[0].Endpoint = netip.MustParseAddrPort("198.51.100.2:40711")
	live.Peers[0].Handshake = s.Time.Add(-12 * time.Second)
	s.Neighbours = append(s.Neighbours, router.Neighbour{Addr: netip.MustParseAddr("192.168.1.10"), Device: "br-lan", Name: "nas"})
	return h, s
}

func traces(t *testing.T) map[string]trace.Trace {
	t.Helper()
	h, s := homeAndRouter(t)
	r := trace.Request{Peer: "phone", Name: "nas", To: netip.MustParseAddr("192.168.1.10"), Proto: 6, Port: 445}
	f := trace.Facts{Home: h, Snapshot: s,
		Endpoint: trace.Endpoint{Asked: true, Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.7")}},
		Upstream: trace.Upstream{Asked: true, How: "UPnP", At: s.Time.Add(-12 * time.Second), Public: netip.MustParseAddr("203.0.113.7"),
			Mappings: []trace.Mapping{{Proto: "udp", External: 51820, To: netip.MustParseAddrPort("192.168.2.253:51820")}}},
		Knock: trace.Knock{Target: r.To, Near: trace.Yes, Far: trace.Yes, There: true},
	}
	out := map[string]trace.Trace{"lives": trace.Follow(f, r)}
	blind := f
	blind.Upstream, blind.Knock = trace.Upstream{}, trace.Knock{}
	quiet, tunnel := *s, *s.Tunnels["wg0"]
	tunnel.Peers = []router.Peer{tunnel.Peers[0]}
	tunnel.Peers[0].Handshake = time.Time{}
	quiet.Tunnels = map[string]*router.Tunnel{"wg0": &tunnel}
	blind.Snapshot = &quiet
	out["not known"] = trace.Follow(blind, r)
	elsewhere := f
	elsewhere.Upstream.Mappings = []trace.Mapping{{Proto: "udp", External: 51820, To: netip.MustParseAddrPort("192.168.2.17:51820")}}
	out["mapped elsewhere"] = trace.Follow(elsewhere, r)
	astray := f
	astray.Knock.Far = trace.No
	bare := h
	bare.Reach.NATToLAN = false
	astray.Home, astray.Snapshot = bare, trace.Applied(bare, s).Snapshot
	out["no way back"] = trace.Follow(astray, r)
	broken := *s
	broken.Configs = map[string]*uci.Document{}
	for k, v := range s.Configs {
		broken.Configs[k] = v.Clone()
	}
	if err := broken.Configs["firewall"].Delete("hw_fwd_lan"); err != nil {
		t.Fatal(err)
	}
	shut := f
	shut.Snapshot = &broken
	shut.Wanted = trace.Applied(h, &broken)
	out["no forwarding"] = trace.Follow(shut, r)
	return out
}

func TestTraceText(t *testing.T) {
	var files []txtar.File
	all := traces(t)
	for _, name := range []string{"lives", "no forwarding", "mapped elsewhere", "no way back", "not known"} {
		var b bytes.Buffer
		view.Trace(&b, view.Style{}, all[name], name == "lives")
		files = append(files, txtar.File{Name: name, Data: b.Bytes()})
	}
	h, _ := homeAndRouter(t)
	var b bytes.Buffer
	view.Explain(&b, view.Style{}, trace.Explain(h))
	files = append(files, txtar.File{Name: "explain", Data: b.Bytes()})
	golden(t, "trace", files)
}

// The picture is well-formed, names each place and colours where it dies.
func TestTraceSVG(t *testing.T) {
	for name, tr := range traces(t) {
		svg := view.TraceSVG(tr)
		if dir := os.Getenv("HEIMWEG_PICTURES"); dir != "" {
			os.WriteFile(dir+"/"+strings.ReplaceAll(name, " ", "-")+".svg", svg, 0o644)
		}
		d := xml.NewDecoder(bytes.NewReader(svg))
		var text strings.Builder
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, svg)
			}
			if c, ok := tok.(xml.CharData); ok {
				text.Write(c)
			}
		}
		for _, want := range []string{"phone", "home", "192.168.1.10"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s: no %q in %s", name, want, text.String())
			}
		}
		if red := bytes.Contains(svg, []byte("✗")); red != (tr.Death != nil) {
			t.Errorf("%s: shows a death: %v", name, red)
		}
	}
	evil := trace.Trace{Headline: `<script>"&'`, There: []trace.Hop{{At: "</svg>\x1b", Lines: []trace.Line{{Says: "<b>"}}}}}
	if svg := view.TraceSVG(evil); bytes.Contains(svg, []byte("<script")) || bytes.Contains(svg, []byte("<b>")) {
		t.Errorf("%s", svg)
	}
	_ = view.TraceSVG(trace.Trace{})
}
