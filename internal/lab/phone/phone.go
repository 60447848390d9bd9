// Package phone emulates the travelling device: a phone on mobile data, with a
// real WireGuard (wireguard-go) and a TCP/IP of its own (gVisor) inside the
// tunnel. It knows what a phone knows: the text of its configuration, as it
// comes out of a QR code, and public DNS. When it can fetch a page from home,
// a way home exists.
//
// What AllowedIPs name goes into the tunnel, the rest goes out over mobile data,
// as on a real device. Real cryptography waits on real time, so a phone stays
// outside testing/synctest bubbles.
package phone

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/tcpip"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// Place is where the phone is: a link, its address there, and the way out.
type Place struct {
	Link    *lab.Link
	Addr    netip.Prefix
	Gateway netip.Addr

	Addr6    netip.Prefix // the zero values: no IPv6 there
	Gateway6 netip.Addr
}

// Phone is the emulated device.
type Phone struct {
	stack *lab.Stack

	mu   sync.Mutex
	conf wgconf.Conf
	dev  *device.Device
	host *tcpip.Host
	log  []string
	last time.Time // when the tunnel was last switched on
}

// stampStep is how coarse WireGuard's handshake timestamps are (2^24 ns), with
// some room. Two handshakes within it look like a replay: the second is refused,
// and comes again after five seconds. No finger switches that fast.
const stampStep = 25 * time.Millisecond

// ErrNotJoined says that the phone has no tunnel.
var ErrNotJoined = errors.New("the phone has no tunnel: Join first")

// New puts a phone into the world. name "" means "phone".
func New(w *lab.World, name string, at Place) *Phone {
	if name == "" {
		name = "phone"
	}
	p := &Phone{stack: lab.NewStack(w, name)}
	p.Roam(at)
	return p
}

// Stack is the phone's mobile data side.
func (p *Phone) Stack() *lab.Stack { return p.stack }

// Roam carries the phone to another place. The tunnel notices by itself: its
// next packet comes from the new address, and the home router answers there.
func (p *Phone) Roam(to Place) {
	i := lab.Iface{Dev: "mobile", Link: to.Link, Addrs: []netip.Prefix{to.Addr}}
	routes := []lab.Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: to.Gateway, Dev: "mobile"}}
	if to.Addr6.IsValid() {
		i.Addrs = append(i.Addrs, to.Addr6)
		routes = append(routes, lab.Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: to.Gateway6, Dev: "mobile"})
	}
	p.stack.Configure([]lab.Iface{i}, routes)
}

// Join reads a configuration, as the WireGuard app does with a scanned code, and
// switches the tunnel on. It does not wait for a handshake: no app does.
func (p *Phone) Join(conf string) error {
	c, err := wgconf.Parse([]byte(conf))
	if err != nil {
		return err
	}
	if c.Interface.PrivateKey.IsZero() {
		return errors.New("the configuration has no private key")
	}
	return p.JoinConf(c)
}

// JoinConf is Join with a configuration that was read already.
func (p *Phone) JoinConf(c wgconf.Conf) error {
	p.Leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	endpoint, err := p.endpoint(c)
	if err != nil {
		return err
	}
	<-time.After(time.Until(p.last.Add(stampStep)))
	mtu := c.Interface.MTU
	if mtu == 0 {
		mtu = 1420
	}
	var addrs []netip.Addr
	for _, a := range c.Interface.Addresses {
		addrs = append(addrs, a.Addr())
	}
	var host *tcpip.Host
	t := lab.NewTun("tun0", mtu, func(raw []byte) { host.Deliver(raw) })
	if host, err = tcpip.New(addrs, mtu, t.Send); err != nil {
		return err
	}
	dev := device.NewDevice(t, lab.NewBind(p.stack, 0), &device.Logger{Verbosef: p.note, Errorf: p.note})
	if err := dev.IpcSet(settings(c, endpoint)); err != nil {
		dev.Close()
		host.Close()
		return errors.New("wireguard refused the settings") // its text may quote a key
	}
	if err := dev.Up(); err != nil {
		dev.Close()
		host.Close()
		return err
	}
	p.conf, p.dev, p.host, p.last = c, dev, host, time.Now()
	return nil
}

func (p *Phone) endpoint(c wgconf.Conf) (netip.AddrPort, error) {
	if c.Peer.Endpoint == "" {
		return netip.AddrPort{}, errors.New("the configuration has no endpoint")
	}
	a, ok := p.stack.World().Lookup(c.Peer.Endpoint)
	if !ok {
		return netip.AddrPort{}, &net.DNSError{Err: "no such host", Name: c.Peer.Endpoint, IsNotFound: true}
	}
	return netip.AddrPortFrom(a, c.Peer.Port), nil
}

// settings is a configuration in wireguard-go's own language, keys in hex.
func settings(c wgconf.Conf, endpoint netip.AddrPort) string {
	var b strings.Builder
	hexed := func(name string, k [32]byte) { fmt.Fprintf(&b, "%s=%s\n", name, hex.EncodeToString(k[:])) }
	hexed("private_key", c.Interface.PrivateKey.Bytes())
	hexed("public_key", c.Peer.PublicKey.Bytes())
	if !c.Peer.Preshared.IsZero() {
		hexed("preshared_key", c.Peer.Preshared.Bytes())
	}
	fmt.Fprintf(&b, "endpoint=%s\n", endpoint)
	for _, a := range c.Peer.AllowedIPs {
		fmt.Fprintf(&b, "allowed_ip=%s\n", a)
	}
	fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", c.Peer.Keepalive)
	return b.String()
}

// note keeps the last lines of wireguard-go's log. They name peers by the
// beginning and end of their public key, and hold no secret.
func (p *Phone) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	logMu.Lock()
	defer logMu.Unlock()
	if len(p.log) >= 200 {
		p.log = p.log[1:]
	}
	p.log = append(p.log, line)
}

// logMu guards the logs; the device logs while Phone.mu is held.
var logMu sync.Mutex

// Log is what the WireGuard app would show under "log".
func (p *Phone) Log() []string {
	logMu.Lock()
	defer logMu.Unlock()
	return append([]string(nil), p.log...)
}

// Leave switches the tunnel off.
func (p *Phone) Leave() {
	p.mu.Lock()
	dev, host := p.dev, p.host
	p.dev, p.host = nil, nil
	p.mu.Unlock()
	if host != nil {
		host.Close()
	}
	if dev != nil {
		dev.Close()
	}
}

// Close switches the phone off.
func (p *Phone) Close() {
	p.Leave()
	p.stack.PowerOff()
}

func (p *Phone) tunnel() (*device.Device, *tcpip.Host, wgconf.Conf) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dev, p.host, p.conf
}

// inside reports whether the phone sends packets for a into the tunnel.
func inside(c wgconf.Conf, a netip.Addr) bool {
	for _, n := range c.Peer.AllowedIPs {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// Dial connects to "host:port", through the tunnel if AllowedIPs say so.
func (p *Phone) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	hostName, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	a, err := p.Resolve(ctx, hostName)
	if err != nil {
		return nil, err
	}
	address = net.JoinHostPort(a.String(), port)
	if _, host, conf := p.tunnel(); host != nil && inside(conf, a) {
		return host.Dial(ctx, network, address)
	}
	return p.stack.Dial(ctx, network, address)
}

// Resolve looks a name up: at the tunnel's name server when the configuration
// names one, else in public DNS.
func (p *Phone) Resolve(ctx context.Context, name string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return a, nil
	}
	if _, host, conf := p.tunnel(); host != nil {
		domain := ""
		var server netip.Addr
		for _, d := range conf.Interface.DNS {
			if a, err := netip.ParseAddr(d); err != nil {
				domain = d
			} else if !server.IsValid() {
				server = a
			}
		}
		if server.IsValid() {
			if domain != "" && !strings.Contains(name, ".") {
				name += "." + domain
			}
			return host.Resolve(ctx, server, name)
		}
	}
	if a, ok := p.stack.World().Lookup(name); ok {
		return a, nil
	}
	return netip.Addr{}, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// Get fetches a page.
func (p *Phone) Get(ctx context.Context, url string) (string, error) {
	t := &http.Transport{DialContext: p.Dial, DisableKeepAlives: true}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return string(body), fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return string(body), nil
}

// Ping sends one echo request, through the tunnel if AllowedIPs say so.
func (p *Phone) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	_, host, conf := p.tunnel()
	if host != nil && inside(conf, to) {
		return host.Ping(ctx, to)
	}
	return p.stack.Ping(ctx, to)
}

// Counter counts pings that run in the background.
type Counter struct {
	mu             sync.Mutex
	sent, answered int
	stop           context.CancelFunc
	done           sync.WaitGroup
}

// KeepPinging pings to every interval, each with plenty of time to answer, until Stop.
// A test uses it to show that a change at home cost this phone no packet.
func (p *Phone) KeepPinging(to netip.Addr, every time.Duration) *Counter {
	ctx, stop := context.WithCancel(context.Background())
	c := &Counter{stop: stop}
	c.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			c.count(&c.sent)
			c.done.Go(func() {
				one, cancel := context.WithTimeout(context.Background(), 15*time.Second) // a lost one is never answered; a late one tells of a busy machine
				defer cancel()
				if _, err := p.Ping(one, to); err == nil {
					c.count(&c.answered)
				}
			})
		}
	})
	return c
}

func (c *Counter) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

// Sent and lost so far; a ping under way counts as lost.
func (c *Counter) Sent() (sent, lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent, c.sent - c.answered
}

// Stop ends the pinging, waits for the last answer and gives the result.
func (c *Counter) Stop() (sent, lost int) {
	c.stop()
	c.done.Wait()
	return c.Sent()
}

// Stats is what the WireGuard app shows about the tunnel.
type Stats struct {
	Sent, Received uint64    // bytes
	LastHandshake  time.Time // zero: never
}

// Stats asks the device.
func (p *Phone) Stats() (Stats, error) {
	dev, _, _ := p.tunnel()
	if dev == nil {
		return Stats{}, ErrNotJoined
	}
	text, err := dev.IpcGet()
	if err != nil {
		return Stats{}, err
	}
	var s Stats
	var sec, nsec int64
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		n, _ := strconv.ParseUint(v, 10, 64)
		switch k {
		case "rx_bytes":
			s.Received = n
		case "tx_bytes":
			s.Sent = n
		case "last_handshake_time_sec":
			sec = int64(n)
		case "last_handshake_time_nsec":
			nsec = int64(n)
		}
	}
	if sec != 0 {
		s.LastHandshake = time.Unix(sec, nsec)
	}
	return s, nil
}

// WaitHandshake waits until the home router has answered. Without traffic and
// keepalive a device sends nothing, so something must want to go home.
func (p *Phone) WaitHandshake(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := p.Stats()
		if err != nil || !s.LastHandshake.IsZero() {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no handshake: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
