// Package wgconf is the configuration that a peer is given: the text that
// wg-quick and the WireGuard apps import, and the same text packed for a QR code.
//
// It writes and reads; it never keeps a key, opens a file or draws a picture
// (package qr does). Text and Compact return the peer's private key in clear:
// they are meant for the file or the code that is handed to the device, and for
// nothing else. Everything else about a Conf can be printed: its keys refuse to
// show themselves (package key).
//
// For newcomers: a peer's configuration has two sections. [Interface] is the
// device's own side: its private key, its addresses inside the tunnel, the DNS
// servers to use. [Peer] is the other end, the home router: its public key, the
// key shared with it, the endpoint where it is reached from outside, and
// AllowedIPs, the networks to send into the tunnel. AllowedIPs is a routing table
// and a filter at once: too wide steals traffic from the network the device
// visits, too narrow makes a host at home unreachable though the handshake works.
package wgconf

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/key"
)

// A Conf is one peer's configuration.
type Conf struct {
	Interface Interface
	Peer      Peer
	// Ignored lists what Parse read and left out: settings of wg-quick that
	// concern the computer it runs on, such as PostUp, and not the tunnel.
	Ignored []Setting
}

// Interface is the device's own side of the tunnel.
type Interface struct {
	PrivateKey key.Private    // zero: the device makes its own and keeps it
	Addresses  []netip.Prefix // inside the tunnel, /32 and /128
	DNS        []string       // server addresses and search domains
	MTU        int            // in bytes; 0 leaves it to the device
}

// Peer is the home router as the device sees it.
type Peer struct {
	PublicKey  key.Public
	Preshared  key.Preshared // zero: none
	AllowedIPs []netip.Prefix
	Endpoint   string // host name or address without brackets; "" when not known
	Port       uint16 // UDP; 0 exactly when there is no endpoint
	Keepalive  int    // in seconds; 0 is off
}

// A Setting is one line that was read and left out. Its value is not kept: a
// hook may well have a secret in it.
type Setting struct {
	Name string
	Line int
}

// Equal compares two configurations, keys included, apart from what was ignored.
func (c Conf) Equal(o Conf) bool {
	a, b := c.Interface, o.Interface
	p, q := c.Peer, o.Peer
	return a.PrivateKey.Equal(b.PrivateKey) && slices.Equal(a.Addresses, b.Addresses) &&
		slices.Equal(a.DNS, b.DNS) && a.MTU == b.MTU &&
		p.PublicKey == q.PublicKey && p.Preshared.Equal(q.Preshared) &&
		slices.Equal(p.AllowedIPs, q.AllowedIPs) &&
		p.Endpoint == q.Endpoint && p.Port == q.Port && p.Keepalive == q.Keepalive
}

// Text is the file for the device. It contains the secrets.
func (c Conf) Text() []byte { return c.text(spacious) }

// Compact is the same configuration in fewer bytes, for a QR code: every byte
// saved makes the code smaller on a terminal that is too low for it anyway. It
// contains the secrets.
func (c Conf) Compact() []byte { return bytes.TrimSuffix(c.text(packed), []byte("\n")) }

// A layout is how a configuration is set.
type layout struct {
	equals, comma, gap string
	// bare leaves out the mask of a single address. wg-quick and the apps read
	// an address without one as such.
	bare bool
}

var (
	spacious = layout{equals: " = ", comma: ", ", gap: "\n"}
	packed   = layout{equals: "=", comma: ",", bare: true}
)

// ownKey stands where the private key of a device that made its own belongs. A
// comment, so that the file is valid and says what to do.
const ownKey = "# PrivateKey: put in the key that this device made for itself"

func (c Conf) text(l layout) []byte {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			b.WriteString(name + l.equals + value + "\n")
		}
	}
	b.WriteString("[Interface]\n")
	if c.Interface.PrivateKey.IsZero() {
		b.WriteString(ownKey + "\n")
	}
	line("PrivateKey", c.Interface.PrivateKey.Reveal())
	line("Address", l.join(c.Interface.Addresses))
	line("DNS", strings.Join(c.Interface.DNS, l.comma))
	line("MTU", number(c.Interface.MTU))
	b.WriteString(l.gap + "[Peer]\n")
	line("PublicKey", c.Peer.PublicKey.String())
	line("PresharedKey", c.Peer.Preshared.Reveal())
	line("AllowedIPs", l.join(c.Peer.AllowedIPs))
	line("Endpoint", c.Peer.endpoint())
	line("PersistentKeepalive", number(c.Peer.Keepalive))
	return []byte(b.String())
}

func (l layout) join(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
		if l.bare && p.IsSingleIP() {
			texts[i] = p.Addr().String()
		}
	}
	return strings.Join(texts, l.comma)
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// endpoint puts an IPv6 address in brackets, without which its last group would
// be read as the port.
func (p Peer) endpoint() string {
	if p.Endpoint == "" {
		return ""
	}
	host := p.Endpoint
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(p.Port))
}
