package firewall

import (
	"testing"

	"github.com/heimweg/heimweg/internal/router"
)

// What 21.02 does differently; read from the source of firewall3, not driven.
func TestFw3(t *testing.T) {
	old := func(file string) *box { return newBox(t, router.Line2102, file) }
	six := old(base + section("forwarding", "src vpn", "dest lan") + section("nat", "src lan", "target MASQUERADE", "family any"))
	if v := six.in("wg0", syn("fd00:20::2", "fd00:1::100", 80)); v.Action != Accept || v.Packet.Src != ip("fd00:20::2") {
		t.Errorf("no NAT for IPv6: %v %v", v.Action, v.Packet.Src)
	}
	if v := six.in("wg0", syn("192.168.20.2", "192.168.1.100", 80)); v.Packet.Src != ip("192.168.1.1") {
		t.Errorf("NAT for IPv4: %v", v.Packet.Src)
	}
	b := old(base + section("rule", "src lan", "proto tcp", "dest_port 22"))
	want(t, "no target means REJECT", b.in("br-lan", syn("192.168.1.100", "192.168.1.1", 22)), Reject)
	if !hasWarning(b.warn, "Warning: Section @rule[0] has no target specified, defaulting to REJECT") {
		t.Errorf("warnings: %v", b.warn)
	}
	b = old(base + section("redirect", "src wan", "dest lan", "proto tcp", "dest_ip 192.168.1.100", "dest_port 80"))
	if v := b.in("wan", syn("203.0.113.9", "192.168.2.253", 8080)); b.rs.Refused() || v.Packet.Dst != ip("192.168.1.100") || v.Packet.DstPort != 80 {
		t.Errorf("a port forward of all ports: %v", v.Packet)
	}
	b = old(base + section("zone 'hw_zone'", "name twelve_chars", "network guest"))
	if !hasWarning(b.warn, "Warning: Section 'hw_zone' must not have a name longer than 11 characters") {
		t.Errorf("warnings: %v", b.warn)
	}
	want(t, "masq6 is unknown", old(set(base, "option masq '1'", "option masq6 '1'")).in("wan", syn("203.0.113.9", "192.168.2.253", 22)), Reject)
}
