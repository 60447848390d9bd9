package hostnet

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

// What a person reads, to the letter.
func TestAdvise(t *testing.T) {
	for system, want := range map[string]string{
		"windows": `On Windows:
  1. Settings › Network & internet › Advanced network settings › Ethernet 2 › View additional properties
  2. IP assignment: Edit › Manual › IPv4 on
  3. IP address 192.168.178.2 · Subnet mask 255.255.255.0 · Gateway and DNS stay empty › Save
or in a terminal that was started as administrator:
  netsh interface ipv4 set address name="Ethernet 2" source=static address=192.168.178.2 mask=255.255.255.0
and afterwards:
  netsh interface ipv4 set address name="Ethernet 2" source=dhcp
`,
		"darwin": `On macOS:
  1. System Settings › Network › the service of Ethernet 2 › Details › TCP/IP
  2. Configure IPv4: Manually
  3. IP address 192.168.178.2 · Subnet mask 255.255.255.0 · Router stays empty › OK
or in Terminal:
  sudo ifconfig 'Ethernet 2' inet 192.168.178.2 netmask 255.255.255.0 alias
and afterwards:
  sudo ifconfig 'Ethernet 2' inet 192.168.178.2 -alias
`,
		"linux": `On Linux:
  1. Settings › Network › Ethernet 2 › the gear wheel › IPv4 › Manual
  2. Address 192.168.178.2 · Netmask 255.255.255.0 · Gateway stays empty › Apply
or in a terminal:
  sudo ip link set 'Ethernet 2' up
  sudo ip address add 192.168.178.2/24 dev 'Ethernet 2'
and afterwards:
  sudo ip address del 192.168.178.2/24 dev 'Ethernet 2'
where NetworkManager runs, before: sudo nmcli device set 'Ethernet 2' managed no, and afterwards: … managed yes
`,
	} {
		if got := Advise(system, Card{Name: "Ethernet 2"}, lentNet).String(); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", system, got, want)
		}
	}
	plain := Advise("linux", Card{Name: "enp3s0"}, netip.MustParsePrefix("169.254.7.9/16"))
	if plain.Command[1] != "sudo ip address add 169.254.7.9/16 dev enp3s0" {
		t.Errorf("%q", plain.Command)
	}
}

var lentNet = netip.MustParsePrefix("192.168.178.2/24")

// What we run on other systems, to the letter; whatever is borrowed has a way
// back.
func TestCommandLines(t *testing.T) {
	card := Card{Name: "Ethernet 2"}
	for _, c := range []struct {
		system string
		change change
		do     bool
		want   string
	}{
		{"darwin", change{What: switchOn}, true, "ifconfig|Ethernet 2|up"},
		{"darwin", change{What: switchOn}, false, "ifconfig|Ethernet 2|down"},
		{"darwin", change{What: address, Net: lentNet}, true, "ifconfig|Ethernet 2|inet|192.168.178.2|netmask|255.255.255.0|alias"},
		{"darwin", change{What: address, Net: lentNet}, false, "ifconfig|Ethernet 2|inet|192.168.178.2|-alias"},
		{"darwin", change{What: unmanaged}, true, ""},
		{"windows", change{What: switchOn}, true, "netsh|interface|set|interface|name=Ethernet 2|admin=enabled"},
		{"windows", change{What: switchOn}, false, "netsh|interface|set|interface|name=Ethernet 2|admin=disabled"},
		{"windows", change{What: unmanaged}, true, "netsh|interface|ipv4|set|interface|interface=Ethernet 2|dhcpstaticipcoexistence=enabled|store=active"},
		{"windows", change{What: unmanaged}, false, "netsh|interface|ipv4|set|interface|interface=Ethernet 2|dhcpstaticipcoexistence=disabled|store=active"},
		{"windows", change{What: address, Net: lentNet}, true, "netsh|interface|ipv4|add|address|name=Ethernet 2|address=192.168.178.2|mask=255.255.255.0|store=active"},
		{"windows", change{What: address, Net: lentNet}, false, "netsh|interface|ipv4|delete|address|name=Ethernet 2|address=192.168.178.2|store=active"},
		{"plan9", change{What: address, Net: lentNet}, true, ""},
	} {
		if got := strings.Join(commandLine(c.system, card, c.change, c.do), "|"); got != c.want {
			t.Errorf("%s, %s, %v:\n%s\nwant\n%s", c.system, c.change, c.do, got, c.want)
		}
	}
}

// A record decides what is changed with a root's rights: what it cannot say is
// refused.
func FuzzParseNote(f *testing.F) {
	f.Add([]byte(`{"version":1,"card":"enp3s0","mac":"00:11:22:33:44:55","pid":1,"since":"2026-11-21T12:00:00Z","changes":[{"what":"on"},{"what":"address","net":"192.168.178.2/24"}]}`))
	f.Add([]byte(`{"version":1,"changes":[{"what":"address"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseNote(b)
		if err != nil {
			return
		}
		for _, c := range n.Changes {
			if c.What != switchOn && c.What != unmanaged && !c.Net.Addr().Is4() {
				t.Errorf("%+v", c)
			}
		}
		again, err := json.Marshal(n)
		if err != nil {
			t.Skip() // a year that JSON does not write
		}
		if m, err := parseNote(again); err != nil || len(m.Changes) != len(n.Changes) {
			t.Errorf("%s: %v", again, err)
		}
	})
}
