//go:build linux

package kernel

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Home is a household and the world around it: a home router behind an ISP
// router, a NAS in the home LAN, and a phone that is on the road.
//
//	NAS ── home router ── ISP router ── internet ─┬─ carrier (NAT, IPv6) ── phone
//	                                              └─ hotel (NAT) ────────────┘
type Home struct {
	NAS, Router, ISP, Internet, Carrier, Hotel, Phone *Host

	Rules  *firewall.Ruleset // what the home router's kernel was given, as the model has it
	Tunnel *Tunnel           // the home router's end; the last one if there are several

	live []firewall.Iface
}

// Addresses of the world. The public ones are of the ranges for documentation.
const (
	ISPAddress    = "203.0.113.2"     // of the home, for all the world
	RouterAddress = "192.168.2.253"   // the home router in the uplink LAN
	RouterGlobal  = "2001:db8:2::253" // the same, reached from anywhere by IPv6
	NASAddress    = "192.168.1.10"
	NASAddress6   = "fd00:1::10"
)

// NewHome builds the world. The home router has no rules and no tunnel yet
// (Configure), the ISP router no port mapping (Map), the phone no network (Roam).
func NewHome() (*Home, error) {
	h := &Home{}
	if err := h.build(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *Home) hosts() map[string]**Host {
	return map[string]**Host{"NAS": &h.NAS, "home router": &h.Router, "ISP router": &h.ISP, "internet": &h.Internet,
		"carrier": &h.Carrier, "hotel": &h.Hotel, "phone": &h.Phone}
}

// Close ends the world.
func (h *Home) Close() {
	for _, host := range h.hosts() {
		if *host != nil {
			(*host).Close()
		}
	}
}

func (h *Home) build() error {
	for name, host := range h.hosts() {
		var err error
		if *host, err = NewHost(name); err != nil {
			return err
		}
	}
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	for _, r := range []*Host{h.Router, h.ISP, h.Internet, h.Carrier, h.Hotel} {
		try(r.Forward())
	}
	for _, c := range []struct {
		a       *Host
		dev     string
		addrs   []string
		b       *Host
		peer    string
		addrsOf []string
	}{
		{h.NAS, "eth0", []string{NASAddress + "/24", NASAddress6 + "/64"}, h.Router, "br-lan", []string{"192.168.1.1/24", "fd00:1::1/64"}},
		{h.Router, "wan", []string{RouterAddress + "/24", RouterGlobal + "/64"}, h.ISP, "lan", []string{"192.168.2.1/24", "2001:db8:2::1/64"}},
		{h.ISP, "wan", []string{ISPAddress + "/24", "2001:db8:1::2/64"}, h.Internet, "isp", []string{"203.0.113.1/24", "2001:db8:1::1/64"}},
		{h.Carrier, "out", []string{"198.51.100.2/24", "2001:db8:3::2/64"}, h.Internet, "carrier", []string{"198.51.100.1/24", "2001:db8:3::1/64"}},
		{h.Hotel, "out", []string{"192.0.2.2/24"}, h.Internet, "hotel", []string{"192.0.2.1/24"}},
		{h.Phone, "mobile", []string{"100.64.0.7/24", "2001:db8:4::7/64"}, h.Carrier, "in", []string{"100.64.0.1/24", "2001:db8:4::1/64"}},
		{h.Phone, "wifi", []string{"10.11.0.7/24"}, h.Hotel, "in", []string{"10.11.0.1/24"}},
	} {
		try(Link(c.a, c.dev, c.b, c.peer))
		try(c.a.Addr(c.dev, c.addrs...))
		try(c.b.Addr(c.peer, c.addrsOf...))
	}
	for _, r := range []struct {
		host          *Host
		dst, via, dev string
	}{
		{h.NAS, "default", "192.168.1.1", "eth0"}, {h.NAS, "::/0", "fd00:1::1", "eth0"},
		{h.Router, "default", "192.168.2.1", "wan"}, {h.Router, "::/0", "2001:db8:2::1", "wan"},
		{h.ISP, "default", "203.0.113.1", "wan"}, {h.ISP, "::/0", "2001:db8:1::1", "wan"},
		{h.Internet, "2001:db8:2::/64", "2001:db8:1::2", "isp"}, {h.Internet, "2001:db8:4::/64", "2001:db8:3::2", "carrier"},
		{h.Carrier, "default", "198.51.100.1", "out"}, {h.Carrier, "::/0", "2001:db8:3::1", "out"},
		{h.Hotel, "default", "192.0.2.1", "out"},
	} {
		try(r.host.Route(r.dst, r.via, r.dev))
	}
	for _, nat := range []*Host{h.Carrier, h.Hotel} {
		try(nat.Load(table("chain out {\n\t\ttype nat hook postrouting priority srcnat\n\t\tmeta nfproto ipv4 oifname out masquerade random\n\t}")))
	}
	try(h.Map(0))
	try(h.Phone.Down("mobile"))
	try(h.Phone.Down("wifi"))
	return errors.Join(errs...)
}

func table(body string) string {
	return "table inet world\ndelete table inet world\ntable inet world {\n\t" + body + "\n}\n"
}

// Map makes the ISP router send a UDP port on to the home router, for IPv4 by
// translation, for IPv6 by opening its firewall; 0 takes the mapping away.
func (h *Home) Map(udp uint16) error {
	opening := ""
	if udp != 0 {
		opening = fmt.Sprintf("\n\t\tip6 daddr %s udp dport %d accept", RouterGlobal, udp)
	}
	body := `chain forward {
		type filter hook forward priority filter; policy drop
		ct state established,related accept
		ct status dnat accept
		iifname lan accept` + opening + `
	}
	chain srcnat {
		type nat hook postrouting priority srcnat
		meta nfproto ipv4 oifname wan masquerade
	}
	chain dstnat {
		type nat hook prerouting priority dstnat`
	if udp != 0 {
		body += fmt.Sprintf("\n\t\tiifname wan ip daddr %s udp dport %d dnat ip to %s", ISPAddress, udp, RouterAddress)
	}
	return h.ISP.Load(table(body + "\n\t}"))
}

// Roam takes the phone to another network: "mobile" (the carrier's), "wifi" (the
// hotel's), or "" for none. The old one is gone at once.
func (h *Home) Roam(to string) error {
	for dev, via := range map[string][2]string{"mobile": {"100.64.0.1", "2001:db8:4::1"}, "wifi": {"10.11.0.1", ""}} {
		if dev != to {
			if err := h.Phone.Down(dev); err != nil {
				return err
			}
			continue
		}
		if err := errors.Join(h.Phone.Up(dev), h.Phone.Route("default", via[0], dev)); err != nil {
			return err
		}
		if via[1] == "" {
			continue
		}
		// The kernel forgets addresses of IPv6 with the link.
		if err := h.Phone.replace(dev, "2001:db8:4::7/64"); err != nil {
			return err
		}
		if err := h.Phone.Route("::/0", via[1], dev); err != nil {
			return err
		}
	}
	return nil
}

// Configure gives the home router the two UCI documents: its WireGuard
// interfaces with their peers, and its firewall as the release line reads it.
func (h *Home) Configure(line router.Line, network, fw *uci.Document) error {
	h.live = []firewall.Iface{
		{Name: "loopback", Device: "lo", Up: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
		{Name: "lan", Device: "br-lan", Up: true, Addrs: prefixes("192.168.1.1/24", "fd00:1::1/64")},
		{Name: "wan", Device: "wan", Up: true, Addrs: prefixes(RouterAddress + "/24"), Gateways: []netip.Addr{netip.MustParseAddr("192.168.2.1")}},
		{Name: "wan6", Device: "wan", Up: true, Addrs: prefixes(RouterGlobal + "/64")},
	}
	for _, s := range network.OfType("interface") {
		if v, _ := s.Get("proto"); v != "wireguard" {
			continue
		}
		if err := h.tunnel(network, s); err != nil {
			return fmt.Errorf("interface %s: %w", s.Name, err)
		}
	}
	h.Rules, _ = firewall.Compile(line, network, fw, h.live)
	text, gaps := h.Rules.NFT()
	if len(gaps) > 0 {
		return fmt.Errorf("section %s %s", gaps[0].Section, gaps[0].Text)
	}
	return h.Router.Load(text)
}

// tunnel makes one WireGuard interface of a UCI document.
func (h *Home) tunnel(network *uci.Document, s uci.Section) error {
	private, _ := s.Get("private_key")
	config, err := keyLine("private_key", private)
	if err != nil {
		return err
	}
	if p, ok := s.Get("listen_port"); ok {
		config += "listen_port=" + p + "\n"
	}
	for _, peer := range network.OfType("wireguard_" + s.Name) {
		public, _ := peer.Get("public_key")
		l, err := keyLine("public_key", public)
		if err != nil {
			return err
		}
		config += l
		if psk, ok := peer.Get("preshared_key"); ok {
			if l, err = keyLine("preshared_key", psk); err != nil {
				return err
			}
			config += l
		}
		for _, a := range peer.Values("allowed_ips") {
			config += "allowed_ip=" + a + "\n"
		}
	}
	if h.Tunnel, err = h.Router.WireGuard(s.Name, 1420, config); err != nil {
		return err
	}
	addrs := s.Values("addresses")
	h.live = append(h.live, firewall.Iface{Name: s.Name, Device: s.Name, Up: true, Addrs: prefixes(addrs...)})
	return h.Router.Addr(s.Name, addrs...)
}

// keyLine turns a key as people write it into a line as wireguard-go reads it.
func keyLine(name, base string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(base)
	if err != nil || len(b) != 32 {
		return "", fmt.Errorf("option %s holds no key", name)
	}
	return name + "=" + hex.EncodeToString(b) + "\n", nil
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Route is where the home router's own routes lead, for the model.
func (h *Home) Route(dst netip.Addr) (string, bool) {
	for _, i := range h.live {
		for _, p := range i.Addrs {
			if p.Addr() == dst {
				return "", true
			}
		}
	}
	for _, i := range h.live {
		for _, p := range i.Addrs {
			if p.Contains(dst) {
				return i.Device, false
			}
		}
	}
	return "wan", false
}
