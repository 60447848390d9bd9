package hostnet

import (
	"bufio"
	"strings"
)

// kindByName guesses what a card is where the system does not tell.
func kindByName(system, name string, pointToPoint bool) Kind {
	n := strings.ToLower(name)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(n, w) {
				return true
			}
		}
		return false
	}
	begins := func(words ...string) bool {
		for _, w := range words {
			if strings.HasPrefix(n, w) {
				return true
			}
		}
		return false
	}
	switch {
	case pointToPoint, begins("utun", "tun", "tap", "wg", "ppp", "ipsec", "gif", "stf"), has("vpn", "wireguard", "tailscale", "zerotier", "wintun", "openvpn"):
		return VPN
	case system == "darwin" && begins("awdl", "llw", "bridge", "ap", "anpi", "vmnet", "feth"):
		return Virtual
	case system != "windows":
		return Unknown
	case has("wi-fi", "wifi", "wlan", "wireless", "drahtlos"):
		return WiFi
	case has("vethernet", "hyper-v", "virtualbox", "vmware", "bluetooth", "local area connection*", "lan-verbindung*", "loopback"):
		return Virtual
	case begins("ethernet", "local area connection", "lan-verbindung"):
		return Wired
	}
	return Unknown
}

// hardwarePorts reads macOS's "networksetup -listallhardwareports": blocks of
// "Hardware Port: NAME" and "Device: enN".
func hardwarePorts(text string) map[string]Kind {
	out := map[string]Kind{}
	var kind Kind
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ": ")
		switch {
		case key == "Hardware Port":
			kind = portKind(value)
		case key == "Device" && kind != "":
			out[value] = kind
		}
	}
	return out
}

func portKind(name string) Kind {
	switch {
	case strings.Contains(name, "Wi-Fi"), strings.Contains(name, "AirPort"):
		return WiFi
	case strings.Contains(name, "Bridge"), strings.Contains(name, "Bluetooth"), strings.HasPrefix(name, "Ethernet Adapter (en"):
		return Virtual // the last are the inner cards of Thunderbolt controllers
	case strings.Contains(name, "LAN"), strings.Contains(name, "Ethernet"):
		return Wired
	}
	return Unknown
}

// linkStates reads macOS's "ifconfig": a card's block says "status: active" or
// "status: inactive".
func linkStates(text string) map[string]Link {
	out := map[string]Link{}
	var card string
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		line := s.Text()
		if line != "" && line[0] != ' ' && line[0] != '\t' {
			card, _, _ = strings.Cut(line, ":")
			continue
		}
		switch strings.TrimSpace(line) {
		case "status: active":
			out[card] = LinkUp
		case "status: inactive":
			out[card] = LinkDown
		}
	}
	return out
}
