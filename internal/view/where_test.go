package view_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/view"
)

func TestWhere(t *testing.T) {
	at := func(s string) endpoint.Address { return endpoint.Is(netip.MustParseAddr(s)) }
	box := func(outer string) endpoint.Facts {
		return endpoint.Facts{Port: 51820, WAN: at("192.168.2.253"), WAN6: endpoint.None(), Boxes: []endpoint.Box{{Inside: at("192.168.2.254"), Outer: at(outer), By: "UPnP"}}}
	}
	stale := box("203.0.113.90")
	stale.Name, stale.A, stale.AAAA = "home.example.net", endpoint.Says(netip.MustParseAddr("203.0.113.7")), endpoint.Says()
	six := box("100.72.3.4")
	six.WAN6 = at("2001:db8:7::1")
	var b bytes.Buffer
	for _, f := range []endpoint.Facts{box("203.0.113.7"), stale, box("100.72.3.4"), six, box("192.168.178.20"), {Port: 51820}} {
		view.Where(&b, plain, endpoint.Judge(f))
		b.WriteString("\n")
	}
	golden(t, "where", []txtar.File{{Name: "where.txt", Data: b.Bytes()}})
}
