// Package smallserver emulates a rented Linux server on the internet with
// wg-quick: it reads a configuration as wg-quick would, runs a real WireGuard
// (wireguard-go) with it, and does what its nftables line says. It never imports
// what writes such configurations.
//
// Of nftables it understands the two statements that make a port lead elsewhere:
// "udp dport N dnat to ADDRESS:PORT" and, on the WireGuard device, "masquerade".
// Any other hook is an error, so that nothing passes that was not looked at.
//
// Real cryptography waits on real time: keep it out of testing/synctest bubbles.
package smallserver

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/heimweg/heimweg/internal/lab"
)

// Devices of the server.
const (
	eth = "eth0"
	wg  = "wg0"
)

// Server is the emulated server.
type Server struct {
	stack *lab.Stack
	dev   *device.Device
	nat   nat
}

// Place is where it hangs on the internet.
type Place struct {
	Link    *lab.Link
	Addr    netip.Prefix
	Gateway netip.Addr
}

// New switches a server on with the text of a wg-quick configuration.
func New(w *lab.World, at Place, conf []byte) (*Server, error) {
	c, err := read(conf)
	if err != nil {
		return nil, err
	}
	s := &Server{stack: lab.NewStack(w, "small server")}
	s.nat = nat{public: at.Addr.Addr(), inside: c.addr.Addr(), port: c.calls, to: c.to, masquerade: c.masquerade, flows: map[flow]*entry{}, next: 30000}
	t := lab.NewTun(wg, c.mtu, func(raw []byte) { s.stack.Inject(wg, raw) })
	s.stack.Configure([]lab.Iface{
		{Dev: eth, Link: at.Link, Addrs: []netip.Prefix{at.Addr}},
		{Dev: wg, Addrs: []netip.Prefix{c.addr}, MTU: c.mtu, Send: t.Send},
	}, []lab.Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: at.Gateway, Dev: eth}})
	s.stack.SetFilter(&s.nat)
	quiet := func(string, ...any) {}
	s.dev = device.NewDevice(t, lab.NewBind(s.stack, c.listen), &device.Logger{Verbosef: quiet, Errorf: quiet})
	if s.dev.IpcSet(c.settings) != nil {
		err = errors.New("wireguard refused the settings") // its text may quote a key
	} else {
		err = s.dev.Up()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close switches the server off.
func (s *Server) Close() {
	s.dev.Close()
	s.stack.PowerOff()
}

// Passed counts the packets that were sent on towards home.
func (s *Server) Passed() int {
	s.nat.mu.Lock()
	defer s.nat.mu.Unlock()
	return s.nat.passed
}

// conf is what a wg-quick file says.
type conf struct {
	addr       netip.Prefix
	listen     uint16
	mtu        int
	calls      uint16
	to         netip.AddrPort
	masquerade bool
	forwards   bool
	settings   string
}

var dnat = regexp.MustCompile(`^nft 'table ip \w+ \{ chain in \{ type nat hook prerouting priority -100; udp dport (\d+) dnat to ([\d.]+:\d+); \}; chain out \{ type nat hook postrouting priority 100; oifname "%i" masquerade; \}; \}'$`)

func read(text []byte) (conf, error) {
	c := conf{mtu: 1420}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		k, v, ok := strings.Cut(line, "=")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		var err error
		switch {
		case !ok:
			err = errors.New("not a setting")
		case k == "PrivateKey", k == "PublicKey", k == "PresharedKey":
			var raw []byte
			raw, err = base64.StdEncoding.DecodeString(v)
			name := map[string]string{"PrivateKey": "private_key", "PublicKey": "public_key", "PresharedKey": "preshared_key"}[k]
			fmt.Fprintf(&b, "%s=%s\n", name, hex.EncodeToString(raw))
		case k == "Address":
			c.addr, err = netip.ParsePrefix(v)
		case k == "ListenPort":
			var n uint64
			n, err = strconv.ParseUint(v, 10, 16)
			c.listen = uint16(n)
			fmt.Fprintf(&b, "listen_port=%d\n", n)
		case k == "MTU":
			c.mtu, err = strconv.Atoi(v)
		case k == "AllowedIPs":
			fmt.Fprintf(&b, "allowed_ip=%s\n", v)
		case k == "PostUp" && v == "sysctl -q -w net.ipv4.ip_forward=1":
			c.forwards = true
		case k == "PostUp" && dnat.MatchString(v):
			m := dnat.FindStringSubmatch(v)
			n, _ := strconv.ParseUint(m[1], 10, 16)
			c.calls, c.masquerade = uint16(n), true
			c.to, err = netip.ParseAddrPort(m[2])
		case k == "PreDown":
		default:
			err = errors.New("not understood")
		}
		if err != nil {
			return c, fmt.Errorf("%s: %w", k, err) // never the value: it may be a key
		}
	}
	if c.to.IsValid() && !c.forwards {
		return c, errors.New("a port leads elsewhere, and nothing is forwarded")
	}
	c.settings = b.String()
	return c, nil
}

// nat is the kernel's address translation for one port.
type nat struct {
	public, inside netip.Addr
	port           uint16
	to             netip.AddrPort
	masquerade     bool

	mu     sync.Mutex
	flows  map[flow]*entry
	next   uint16
	passed int
}

type flow struct{ src, dst netip.AddrPort }

type entry struct{ there, back flow }

// Output lets the server's own packets out.
func (n *nat) Output(_ time.Time, p lab.Packet, _ string) lab.Verdict {
	return lab.Verdict{Action: lab.Accept, Packet: p}
}

// Handle sends the one port on, and the answers back.
func (n *nat) Handle(_ time.Time, p lab.Packet, in string, route func(netip.Addr) (string, bool)) lab.Verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := flow{p.Source(), p.Target()}
	if p.Proto == lab.UDP && in == eth && p.Dst == n.public && p.DstPort == n.port && n.masquerade {
		e := n.flows[f]
		if e == nil {
			n.next++
			e = &entry{there: f, back: flow{n.to, netip.AddrPortFrom(n.inside, n.next)}}
			n.flows[f], n.flows[e.back] = e, e
		}
		n.passed++
		p.Src, p.SrcPort, p.Dst, p.DstPort = e.back.dst.Addr(), e.back.dst.Port(), n.to.Addr(), n.to.Port()
		return lab.Verdict{Action: lab.Accept, Packet: p, Why: "sent on to the home router"}
	}
	if e := n.flows[f]; e != nil && in == wg {
		p.Src, p.SrcPort, p.Dst, p.DstPort = n.public, n.port, e.there.src.Addr(), e.there.src.Port()
		return lab.Verdict{Action: lab.Accept, Packet: p, Why: "an answer from home"}
	}
	if _, local := route(p.Dst); local {
		return lab.Verdict{Action: lab.Accept, Packet: p}
	}
	return lab.Verdict{Action: lab.Drop, Hook: "forward", Why: "nothing here sends this on"}
}
