// Package lab is an emulated home in memory: links, hosts, routers, and a
// record of every packet's fate. A test, or a curious person, can build a world
// from it in ten lines, and a test passes when a packet arrives. When it does
// not arrive, the record says where it stopped and why.
//
// Real IP packets (IPv4 and IPv6 bytes) travel over links from stack to stack.
// A stack is one IP host or router: addresses, routes, an optional filter that
// judges packets (lab/owrt puts OpenWrt's firewall there, lab/ispbox a NAT),
// UDP endpoints, and streams. A stream is a small but real TCP: its bytes ride
// on packets that every router on the way judges, it retransmits with backoff
// while the path is dead, and it ends with a reset when the other end has lost
// power. So a firewall rule that is wrong stops an SSH session here as it does
// at home.
//
// Everything lives in channels, locks and package time, so a world works in a
// testing/synctest bubble, in virtual time. All packets are moved by one
// goroutine per world, in order; callbacks (Filter, Iface.Send) run on it and
// must not block. Make a world inside the bubble that uses it, and Close it.
//
// What runs real WireGuard (wireguard-go) over these links must stay outside
// bubbles: see NewBind.
//
// The package never opens a real socket and never imports an edge of heimweg:
// an emulator must not share code with what it judges.
package lab
