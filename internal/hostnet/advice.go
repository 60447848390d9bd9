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
	Note    string   // may be empty
}

// Advise says how to give a card an address on a system (runtime.GOOS's words;
// others are treated as Linux).
func Advise(system string, c Card, a netip.Prefix) Advice {
	ip, m, word := a.Addr().String(), mask(a), shellWord(c.Name)
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
			Command: []string{fmt.Sprintf("sudo ifconfig %s inet %s netmask %s alias", word, ip, m)},
			Undo:    []string{fmt.Sprintf("sudo ifconfig %s inet %s -alias", word, ip)},
		}
	}
	return Advice{
		System: "Linux",
		Menu: []string{
			"Settings › Network › " + c.Name + " › the gear wheel › IPv4 › Manual",
			fmt.Sprintf("Address %s · Netmask %s · Gateway stays empty › Apply", ip, m),
		},
		Rights:  "a terminal",
		Command: []string{"sudo ip link set " + word + " up", fmt.Sprintf("sudo ip address add %s dev %s", a, word)},
		Undo:    []string{fmt.Sprintf("sudo ip address del %s dev %s", a, word)},
		Note:    "where NetworkManager runs, before: sudo nmcli device set " + word + " managed no, and afterwards: … managed yes",
	}
}

// shellWord is a name as a shell takes it.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("_-.:@", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
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
	if a.Note != "" {
		fmt.Fprintln(&b, a.Note)
	}
	return b.String()
}
