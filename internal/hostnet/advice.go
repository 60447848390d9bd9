package hostnet

import (
	"fmt"
	"net/netip"
	"strings"
)

// Advice is what a person has to do to give a card an address.
type Advice struct {
	System  string   // "Windows", "macOS", "Linux"
	Menu    []string // the way through the system's settings
	Command []string // or these lines in a terminal
	Rights  string   // and what terminal that is
	Undo    []string // these lines afterwards
}

// Advise says how to give a card an address on a system (runtime.GOOS's words;
// others are treated as Linux).
func Advise(system string, c Card, a netip.Prefix) Advice {
	ip, m := a.Addr().String(), mask(a)
	switch system {
	case "windows":
		return Advice{
			System: "Windows",
			Menu: []string{
				"Settings › Network & internet › Advanced network settings › " + c.Name + " › View additional properties",
				"IP assignment: Edit › Manual › IPv4 on",
				fmt.Sprintf("IP address %s · Subnet mask %s · Gateway and DNS stay empty › Save", ip, m),
			},
			Rights:  "a terminal that was started as administrator",
			Command: []string{fmt.Sprintf(`netsh interface ipv4 set address name="%s" source=static address=%s mask=%s`, c.Name, ip, m)},
			Undo:    []string{fmt.Sprintf(`netsh interface ipv4 set address name="%s" source=dhcp`, c.Name)},
		}
	case "darwin":
		return Advice{
			System: "macOS",
			Menu: []string{
				"System Settings › Network › the service of " + c.Name + " › Details › TCP/IP",
				"Configure IPv4: Manually",
				fmt.Sprintf("IP address %s · Subnet mask %s · Router stays empty › OK", ip, m),
			},
			Rights:  "Terminal",
			Command: []string{fmt.Sprintf("sudo ifconfig %s inet %s netmask %s alias", c.Name, ip, m)},
			Undo:    []string{fmt.Sprintf("sudo ifconfig %s inet %s -alias", c.Name, ip)},
		}
	}
	return Advice{
		System: "Linux",
		Menu: []string{
			"Settings › Network › " + c.Name + " › the gear wheel › IPv4 › Manual",
			fmt.Sprintf("Address %s · Netmask %s · Gateway stays empty › Apply", ip, m),
		},
		Rights:  "a terminal",
		Command: []string{"sudo nmcli device set " + c.Name + " managed no   (only where NetworkManager runs)", fmt.Sprintf("sudo ip link set %s up", c.Name), fmt.Sprintf("sudo ip address add %s dev %s", a, c.Name)},
		Undo:    []string{fmt.Sprintf("sudo ip address del %s dev %s", a, c.Name), "sudo nmcli device set " + c.Name + " managed yes"},
	}
}

func (a Advice) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "On %s:\n", a.System)
	for i, m := range a.Menu {
		fmt.Fprintf(&b, "  %d. %s\n", i+1, m)
	}
	fmt.Fprintf(&b, "or in %s:\n", a.Rights)
	for _, c := range a.Command {
		fmt.Fprintf(&b, "  %s\n", c)
	}
	b.WriteString("and afterwards:\n")
	for _, c := range a.Undo {
		fmt.Fprintf(&b, "  %s\n", c)
	}
	return b.String()
}
