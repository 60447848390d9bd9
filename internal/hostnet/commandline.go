package hostnet

import (
	"net"
	"net/netip"
)

// mask is a network's size as four numbers: 255.255.255.0.
func mask(n netip.Prefix) string {
	return net.IP(net.CIDRMask(n.Bits(), 32)).String()
}

// commandLine is what changes a card where heimweg does not speak with the system
// itself, or what undoes it; nil where there is no such change. Windows keeps an
// address until the next start (store=active), and lets it stand beside one from
// DHCP only when told.
func commandLine(system string, c Card, ch change, do bool) []string {
	switch {
	case system == "darwin" && ch.What == switchOn:
		return []string{"ifconfig", c.Name, map[bool]string{true: "up", false: "down"}[do]}
	case system == "darwin" && ch.What == address && do:
		return []string{"ifconfig", c.Name, "inet", ch.Net.Addr().String(), "netmask", mask(ch.Net), "alias"}
	case system == "darwin" && ch.What == address:
		return []string{"ifconfig", c.Name, "inet", ch.Net.Addr().String(), "-alias"}
	case system == "windows" && ch.What == switchOn:
		return []string{"netsh", "interface", "set", "interface", "name=" + c.Name, "admin=" + map[bool]string{true: "enabled", false: "disabled"}[do]}
	case system == "windows" && ch.What == unmanaged:
		return []string{"netsh", "interface", "ipv4", "set", "interface", "interface=" + c.Name, "dhcpstaticipcoexistence=" + map[bool]string{true: "enabled", false: "disabled"}[do], "store=active"}
	case system == "windows" && ch.What == address && do:
		return []string{"netsh", "interface", "ipv4", "add", "address", "name=" + c.Name, "address=" + ch.Net.Addr().String(), "mask=" + mask(ch.Net), "store=active"}
	case system == "windows" && ch.What == address:
		return []string{"netsh", "interface", "ipv4", "delete", "address", "name=" + c.Name, "address=" + ch.Net.Addr().String(), "store=active"}
	}
	return nil
}
