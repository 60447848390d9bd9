// Package relay writes down how a small server on the internet lets devices come
// home where nobody can call the house (CGNAT, DS-Lite without IPv6): what the
// server needs, and what the home router needs beside its tunnel.
//
// It draws a site-to-site link between the two, which the home router opens and
// keeps open, and has the server send the tunnel's port through it. A device calls
// the server as if it were home; its keys and the tunnel's stay as they are, and
// what it says is encrypted from end to end: the server passes on packets that it
// cannot read. It only computes texts; whoever runs them decides.
//
// Background. Each packet is wrapped twice on the way from the server to the home
// router, so the tunnel's packets must be smaller: 60 bytes less over IPv4 (facts:
// openwrt.md 6.5). The server hides who calls from the home router (masquerading),
// so that the answers come back through the link and not past it.
package relay

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
)

const (
	// Port is the UDP port on which the server waits for the home router.
	Port = 51821
	// LinkMTU is the largest packet in the link. It fits a DS-Lite line, which
	// carries 1460 bytes of IPv4, and all wider ones.
	LinkMTU = 1400
	// TunnelMTU is the largest packet that the tunnel may then carry.
	TunnelMTU = LinkMTU - 60
)

// Relay is a link between a server and the home router, with its keys.
type Relay struct {
	Host string // the server's name or public address
	// Calls is the port that devices call there, Home the one of the tunnel.
	Calls, Home uint16

	link           netip.Prefix // of both ends
	server, router key.Private
	preshared      key.Preshared
}

// A TakenError means that devices would call the port that the link needs.
type TakenError struct{ Port uint16 }

func (e *TakenError) Error() string {
	return fmt.Sprintf("UDP %d is the port of the link between the two; devices need another one", e.Port)
}

// A HostError means that a server's name cannot be one.
type HostError struct{ Host string }

func (e *HostError) Error() string {
	return fmt.Sprintf("%q is neither a host name nor an address", e.Host)
}

// New draws a link for a home. rand makes its keys and its network, which collides
// with none of the home's.
func New(rand io.Reader, h home.Home, host string) (Relay, error) {
	if host == "" || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-:") != "" {
		return Relay{}, &HostError{host} // it goes into a script
	}
	r := Relay{Host: host, Calls: h.Tunnel.CallPort(), Home: h.Tunnel.Port}
	if r.Calls == Port {
		return r, &TakenError{Port}
	}
	taken := []subnet.Network{h.Tunnel.Network}
	for _, l := range h.LANs {
		taken = append(taken, l.Network)
	}
	if !h.Uplink.Network.IsZero() {
		taken = append(taken, h.Uplink.Network)
	}
	n, err := subnet.Propose(rand, taken)
	if err != nil {
		return r, err
	}
	r.link = netip.PrefixFrom(n.Host(1).Addr(), 30)
	if r.server, err = key.NewPrivate(rand); err != nil {
		return r, err
	}
	if r.router, err = key.NewPrivate(rand); err != nil {
		return r, err
	}
	r.preshared, err = key.NewPreshared(rand)
	return r, err
}

func (r Relay) serverEnd() netip.Addr { return r.link.Addr() }
func (r Relay) routerEnd() netip.Addr { return r.link.Addr().Next() }

// Server is the server's configuration for wg-quick. It holds secrets.
func (r Relay) Server() []byte {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("# A relay for heimweg: /etc/wireguard/heimweg.conf on a small server (Linux, with")
	say("# wireguard-tools and nftables). Switch it on: systemctl enable --now wg-quick@heimweg")
	say("# The server's own firewall must let in UDP %d and UDP %d, and forward.", r.Calls, Port)
	say("[Interface]")
	say("PrivateKey = %s", r.server.Reveal())
	say("Address = %s", r.link)
	say("ListenPort = %d", Port)
	say("MTU = %d", LinkMTU)
	say("PostUp = sysctl -q -w net.ipv4.ip_forward=1")
	say("PostUp = nft 'table ip heimweg { chain in { type nat hook prerouting priority -100; udp dport %d dnat to %s:%d; }; chain out { type nat hook postrouting priority 100; oifname \"%%i\" masquerade; }; }'",
		r.Calls, r.routerEnd(), r.Home)
	say("PreDown = nft delete table ip heimweg")
	say("")
	say("[Peer]")
	say("# the home router, which calls from wherever it is")
	say("PublicKey = %s", r.router.Public())
	say("PresharedKey = %s", r.preshared.Reveal())
	say("AllowedIPs = %s/32", r.routerEnd())
	return b.Bytes()
}

// Script sets the home router's end up: an interface, a firewall zone and a rule
// for the tunnel's port, all called "relay". heimweg leaves them alone afterwards.
// It holds secrets.
func (r Relay) Script() []byte {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("# The home router's end of the relay. Run it once: ssh root@ROUTER sh -s < this file")
	say("# To take it away: uci delete each section below, commit, reload.")
	say("set -e")
	set := func(section, kind string, pairs ...string) {
		say("uci -q delete %s || true", section)
		say("uci set %s='%s'", section, kind)
		for i := 0; i < len(pairs); i += 2 {
			verb := "set"
			if pairs[i][0] == '+' {
				verb, pairs[i] = "add_list", pairs[i][1:]
			}
			say("uci %s %s.%s='%s'", verb, section, pairs[i], pairs[i+1])
		}
	}
	set("network.relay", "interface", "proto", "wireguard", "private_key", r.router.Reveal(),
		"+addresses", r.routerEnd().String()+"/32", "mtu", fmt.Sprint(LinkMTU))
	set("network.relay_server", "wireguard_relay", "description", "relay", "public_key", r.server.Public().String(),
		"preshared_key", r.preshared.Reveal(), "endpoint_host", r.Host, "endpoint_port", fmt.Sprint(Port),
		"persistent_keepalive", "25", "+allowed_ips", r.serverEnd().String()+"/32", "route_allowed_ips", "1")
	set("firewall.relay", "zone", "name", "relay", "+network", "relay", "input", "REJECT", "output", "ACCEPT", "forward", "REJECT")
	set("firewall.relay_in", "rule", "name", "relay: port of the tunnel", "src", "relay", "proto", "udp",
		"dest_port", fmt.Sprint(r.Home), "target", "ACCEPT")
	say("uci commit network")
	say("uci commit firewall")
	say("ubus call network reload")
	say("ifup relay")
	say("/etc/init.d/firewall reload")
	return b.Bytes()
}
