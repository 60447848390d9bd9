//go:build linux

package kernel_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab/kernel"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// household is the home.toml of these tests; %s are options of [reach], and the
// phone's public key.
const household = `
[router]
address = "192.168.1.1"
[uplink]
kind = "behind-isp-router"
network = "192.168.2.0/24"
[[lan]]
interface = "lan"
network = "192.168.1.0/24"
[tunnel]
network = "10.86.20.0/24"
network6 = "fd3a:71c9:5e02::/64"
port = 51820
[reach]
home-lan = true
uplink-lan = false
internet = false
nat-to-lan = %v
[[peer]]
name = "phone"
public-key = "%s"
address = "10.86.20.2"
address6 = "fd3a:71c9:5e02::2"
preshared = false
`

// private makes the n-th key of the tests.
func private(t testing.TB, n byte) key.Private {
	k, err := key.NewPrivate(strings.NewReader(strings.Repeat(string(rune('a'+n)), key.Size)))
	must(t, err)
	return k
}

// recommended is what heimweg writes on a fresh router of the release.
func recommended(t testing.TB, release string, nat bool) (home.Home, router.Line, map[string]string) {
	f, err := home.Parse("home.toml", fmt.Appendf(nil, household, nat, private(t, 1).Public()))
	must(t, err)
	a, err := txtar.ParseFile(filepath.Join("..", "..", "plan", "testdata", "routers", release+".txtar"))
	must(t, err)
	files := map[string]string{}
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	// Shipped, too: without it nobody finds the router's address by IPv6.
	files["firewall"] += "\nconfig rule\n\toption name 'Allow-ICMPv6-Input'\n\toption src 'wan'\n\toption proto 'icmp'\n\tlist icmp_type 'echo-request'\n" +
		"\tlist icmp_type 'neighbour-solicitation'\n\tlist icmp_type 'neighbour-advertisement'\n\toption limit '1000/sec'\n\toption family 'ipv6'\n\toption target 'ACCEPT'\n"
	line, _ := router.ParseLine(strings.TrimSpace(files["version"]))
	s := &router.Snapshot{
		Board: router.Board{Model: "AVM FRITZ!Box 4040", Name: "avm,fritzbox-4040", Hostname: "OpenWrt",
			Release: router.Release{Distribution: "OpenWrt", Version: strings.TrimSpace(files["version"]), Target: "ipq40xx/generic", Line: line},
			Switch:  line.Before(router.Line2305), Apk: line.AtLeast(router.Line2512), Fw4: line.AtLeast(router.Line2203)},
		Handlers: []string{"dhcp", "static"}, Space: router.Space{OverlayKB: 20000},
		Interfaces: []router.Interface{
			{Name: "lan", Device: "br-lan", Proto: "static", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}},
			{Name: "wan", Device: "wan", Proto: "dhcp", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.2.253/24")}},
		},
		Tunnels: map[string]*router.Tunnel{}, Configs: map[string]*uci.Document{}, Hashes: map[string]string{},
	}
	for _, c := range router.Touched() {
		if s.Configs[c], err = uci.Parse(c, []byte(files[c])); err != nil {
			t.Fatal(err)
		}
		s.Hashes[c] = c
	}
	p, _ := plan.For(f.Home, s, blueprint.Access{})
	for _, b := range p.Blocked {
		t.Fatalf("plan is blocked: %v", b)
	}
	docs, err := p.Edit(s.Configs, plan.Secrets{Private: private(t, 0)})
	must(t, err)
	for c, d := range docs {
		files[c] = string(d.Text())
	}
	return f.Home, line, files
}

// world is a home whose router holds two files, with a NAS that serves and a
// phone that has its configuration.
type world struct {
	*kernel.Home
	t     testing.TB
	home  home.Home
	phone *kernel.Tunnel
	asker chan netip.Addr
}

func newWorld(t testing.TB, h home.Home, line router.Line, files map[string]string, endpoint string) *world {
	needs(t, everything...)
	k, err := kernel.NewHome()
	must(t, err)
	t.Cleanup(k.Close)
	w := &world{Home: k, t: t, home: h, asker: make(chan netip.Addr, 16)}
	network, err := uci.Parse("network", []byte(files["network"]))
	must(t, err)
	fw, err := uci.Parse("firewall", []byte(files["firewall"]))
	must(t, err)
	must(t, k.Configure(line, network, fw))
	must(t, k.Map(51820))
	l, err := k.NAS.Listen("tcp", ":8080")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go w.serve(l)
	must(t, k.Roam("mobile")) // first: a keepalive without a network would cost five seconds
	w.phone, err = k.Phone.WireGuard("wg0", 1420, w.config(endpoint))
	must(t, err)
	must(t, k.Phone.Addr("wg0", "10.86.20.2/32", "fd3a:71c9:5e02::2/128"))
	for _, p := range wgconf.AllowedIPs(h) {
		must(t, k.Phone.Route(p.String(), "", "wg0"))
	}
	must(t, k.Phone.Route("fd00:1::/64", "", "wg0"))
	return w
}

// config is the phone's, as its QR code says it.
func (w *world) config(endpoint string) string {
	b, public := private(w.t, 1).Bytes(), private(w.t, 0).Public().Bytes()
	c := "private_key=" + hex.EncodeToString(b[:]) + "\npublic_key=" + hex.EncodeToString(public[:]) + "\nendpoint=" + endpoint + "\n" +
		"persistent_keepalive_interval=2\n" // 25 in a real one: a phone that only listens tells its new address no sooner
	for _, p := range wgconf.AllowedIPs(w.home) {
		c += "allowed_ip=" + p.String() + "\n"
	}
	return c + "allowed_ip=fd00:1::/64\n"
}

// short is what most tests read of the download; long is more than buffers on the way
// can hold.
const (
	short = 100_000
	long  = 12_000_000
)

// pattern is what the NAS sends: byte i.
func pattern(i int) byte { return byte(i ^ i>>8 ^ i>>16) }

func (w *world) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			w.asker <- a.AddrPort().Addr().Unmap()
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 0, 100_000)
			for i := range long {
				if buf = append(buf, pattern(i)); len(buf) < cap(buf) {
					continue
				}
				if _, err := c.Write(buf); err != nil {
					return // the phone has what it wanted
				}
				buf = buf[:0]
			}
		}()
	}
}

// fetch connects from the phone to the NAS. The deadline is for everything.
func (w *world) fetch(ctx context.Context, addr string) (net.Conn, error) {
	c, err := w.Phone.Dial(ctx, "tcp", net.JoinHostPort(addr, "8080"))
	if err == nil {
		deadline, _ := ctx.Deadline()
		err = c.SetDeadline(deadline)
	}
	return c, err
}

// read reads bytes first..last of the pattern.
func read(t testing.TB, c io.Reader, first, last int) {
	t.Helper()
	buf := make([]byte, last-first)
	if n, err := io.ReadFull(c, buf); err != nil {
		t.Fatalf("download broke off after %d of %d bytes: %v", first+n, last, err)
	}
	for i, b := range buf {
		if b != pattern(first+i) {
			t.Fatalf("byte %d is wrong", first+i)
		}
	}
}

func limitedTo(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// The whole way: phone, carrier's NAT, ISP router's mapping, the home router's
// rules as the model prints them, tunnel, home LAN, NAS, and back.
func TestWayHome(t *testing.T) {
	for _, release := range []string{"21.02", "23.05", "24.10", "25.12"} {
		for _, nat := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s nat-to-lan=%v", release, nat), func(t *testing.T) {
				h, line, files := recommended(t, release, nat)
				w := newWorld(t, h, line, files, kernel.ISPAddress+":51820")
				c, err := w.fetch(limitedTo(t, 20*time.Second), kernel.NASAddress)
				must(t, err)
				defer c.Close()
				read(t, c, 0, short)
				want := netip.MustParseAddr("10.86.20.2")
				if nat {
					want = netip.MustParseAddr("192.168.1.1")
				}
				if got := <-w.asker; got != want {
					t.Errorf("the NAS sees %s, want %s", got, want)
				}
				if e := w.Tunnel.Get("endpoint"); !strings.HasPrefix(e, "198.51.100.2:") {
					t.Errorf("the home router sees the phone at %s, want the carrier's address", e)
				}
			})
		}
	}
}

// By IPv6 from end to end: the rule has no family and opens both.
func TestWayHomeIPv6(t *testing.T) {
	h, line, files := recommended(t, "24.10", false)
	w := newWorld(t, h, line, files, "["+kernel.RouterGlobal+"]:51820")
	for _, nas := range []string{kernel.NASAddress, kernel.NASAddress6} {
		c, err := w.fetch(limitedTo(t, 20*time.Second), nas)
		must(t, err)
		read(t, c, 0, short)
		c.Close()
	}
	if e := w.Tunnel.Get("endpoint"); !strings.HasPrefix(e, "[2001:db8:4::7]:") {
		t.Errorf("the home router sees the phone at %s", e)
	}
}

// The phone changes its address in the middle of a download, and changes back.
func TestRoaming(t *testing.T) {
	h, line, files := recommended(t, "24.10", true)
	w := newWorld(t, h, line, files, kernel.ISPAddress+":51820")
	c, err := w.fetch(limitedTo(t, 60*time.Second), kernel.NASAddress)
	must(t, err)
	defer c.Close()
	third := long / 3
	read(t, c, 0, third)
	before := w.Tunnel.Get("endpoint")
	must(t, w.Roam("wifi"))
	began := time.Now()
	read(t, c, third, 2*third)
	hotel := w.Tunnel.Get("endpoint")
	t.Logf("%s → %s, next third after %v", before, hotel, time.Since(began).Round(time.Millisecond))
	must(t, w.Roam("mobile"))
	read(t, c, 2*third, long)
	after := w.Tunnel.Get("endpoint")
	if !strings.HasPrefix(before, "198.51.100.2:") || !strings.HasPrefix(hotel, "192.0.2.2:") || !strings.HasPrefix(after, "198.51.100.2:") {
		t.Errorf("endpoints: %s, %s, %s", before, hotel, after)
	}
}

func without(files map[string]string, section string) map[string]string {
	return change(files, "config [a-z]+ '"+section+"'\n(\t[^\n]*\n)*", "")
}

// Broken in one way each. The packet dies in the kernel, at the section that the
// model names.
func TestBrokenHomes(t *testing.T) {
	inTunnel := firewall.Packet{Src: netip.MustParseAddr("10.86.20.2"), Dst: netip.MustParseAddr(kernel.NASAddress),
		Proto: firewall.TCP, SrcPort: 40000, DstPort: 8080, SYN: true}
	handshake := firewall.Packet{Src: netip.MustParseAddr("198.51.100.2"), Dst: netip.MustParseAddr(kernel.RouterAddress),
		Proto: firewall.UDP, SrcPort: 40000, DstPort: 51820}
	for _, c := range []struct {
		name   string
		spoil  func(map[string]string) map[string]string
		in     string
		packet firewall.Packet
		killer string // the section that both must name, by its option name
	}{
		{"no rule on wan", func(f map[string]string) map[string]string { return without(f, "hw_wg_in") }, "wan", handshake, "wan"},
		{"rule for another port", func(f map[string]string) map[string]string {
			return change(f, "option dest_port '51820'", "option dest_port '51821'")
		}, "wan", handshake, "wan"},
		{"rule switched off", func(f map[string]string) map[string]string {
			return change(f, "(config rule 'hw_wg_in'\n)", "$1\toption enabled '0'\n")
		}, "wan", handshake, "wan"},
		{"no forwarding", func(f map[string]string) map[string]string { return without(f, "hw_fwd_lan") }, "wg0", inTunnel, "defaults"},
		{"forwarding the wrong way round", func(f map[string]string) map[string]string {
			return change(without(f, "hw_fwd_lan"), `\z`, "\nconfig forwarding\n\toption src 'lan'\n\toption dest 'vpn'\n")
		}, "wg0", inTunnel, "defaults"},
		{"tunnel in no zone", func(f map[string]string) map[string]string {
			return change(f, "list network 'wg0'", "list network 'wg1'")
		}, "wg0", inTunnel, "defaults"},
		{"a rule that forbids it", func(f map[string]string) map[string]string {
			return change(f, `\z`, "\nconfig rule 'no_nas'\n\toption name 'No NAS'\n\toption src 'vpn'\n\toption dest 'lan'\n\toption proto 'tcp'\n\toption dest_port '8080'\n\toption target 'REJECT'\n")
		}, "wg0", inTunnel, "No NAS"},
		{"forwarding for IPv6 only", func(f map[string]string) map[string]string {
			return change(f, "(config forwarding 'hw_fwd_lan'\n)", "$1\toption family 'ipv6'\n")
		}, "wg0", inTunnel, "defaults"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, line, files := recommended(t, "24.10", true)
			w := newWorld(t, h, line, c.spoil(files), kernel.ISPAddress+":51820")
			v := w.Rules.Handle(firewall.NewTracker(), time.Now().UTC(), c.packet, c.in, w.Route)
			last := v.Hits[len(v.Hits)-1]
			if v.Action == firewall.Accept || last.Name != c.killer {
				t.Fatalf("model: %s by %q, want %q", v.Action, last.Name, c.killer)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				conn, err := w.fetch(ctx, kernel.NASAddress)
				if err == nil {
					conn.Close()
				}
				done <- err
			}()
			want := "firewall." + last.Section + " " + last.Name
			if last.Name == last.Section {
				want = "firewall." + last.Section
			}
			if got := w.killed(ctx, want); got != "" {
				t.Errorf("model: dies at %q; kernel: %s", want, got)
			}
			if c.in == "wan" {
				cancel() // nobody will ever answer
			}
			if err := <-done; err == nil {
				t.Error("the phone reached the NAS all the same")
			}
		})
	}
}

// killed waits until the kernel has counted a dead packet, and tells what it says
// if it is not at the wanted section.
func (w *world) killed(ctx context.Context, want string) string {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		spoke, err := w.Router.Spoke()
		must(w.t, err)
		var deadly []string
		for _, s := range spoke {
			if s.Does == "drop" || strings.HasPrefix(s.Does, "jump refuse") || strings.HasPrefix(s.Does, "jump reject_") || strings.HasPrefix(s.Does, "jump drop_") {
				deadly = append(deadly, s.Comment)
			}
		}
		for _, d := range deadly {
			if d == want {
				return ""
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Sprintf("%q", deadly)
		case <-tick.C:
		}
	}
}

// The way of the seeds' manual: a port forward to the tunnel's address instead of
// a rule. It serves IPv4, and not IPv6.
func TestRedirectInsteadOfRule(t *testing.T) {
	h, line, files := recommended(t, "24.10", true)
	files = change(without(files, "hw_wg_in"), `\z`, "\nconfig redirect\n\toption name 'wg'\n\toption src 'wan'\n\toption src_dport '51820'\n"+
		"\toption dest 'vpn'\n\toption dest_ip '10.86.20.1'\n\toption dest_port '51820'\n\toption proto 'udp'\n\toption target 'DNAT'\n")
	w := newWorld(t, h, line, files, kernel.ISPAddress+":51820")
	c, err := w.fetch(limitedTo(t, 20*time.Second), kernel.NASAddress)
	must(t, err)
	read(t, c, 0, short)
	c.Close()
	v := w.Rules.Handle(firewall.NewTracker(), time.Now().UTC(), firewall.Packet{Src: netip.MustParseAddr("2001:db8:4::7"),
		Dst: netip.MustParseAddr(kernel.RouterGlobal), Proto: firewall.UDP, SrcPort: 40000, DstPort: 51820}, "wan", w.Route)
	if v.Action == firewall.Accept {
		t.Error("model: IPv6 passes")
	}
	must(t, w.phone.Set(strings.Replace(w.config("["+kernel.RouterGlobal+"]:51820"), "public_key=", "replace_peers=true\npublic_key=", 1)))
	ctx := limitedTo(t, 20*time.Second)
	asking, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := w.fetch(asking, kernel.NASAddress); err == nil {
			t.Error("the phone came home by IPv6")
			c.Close()
		}
	}()
	last := v.Hits[len(v.Hits)-1]
	if got := w.killed(ctx, "firewall."+last.Section+" "+last.Name); got != "" {
		t.Errorf("model: dies at %s; kernel: %s", last.Name, got)
	}
	stop()
	<-done
}

// A NAS that knows no way back sees the router instead of the phone.
func TestNASWithoutGateway(t *testing.T) {
	h, line, files := recommended(t, "24.10", true)
	w := newWorld(t, h, line, files, kernel.ISPAddress+":51820")
	must(t, w.NAS.Down("eth0")) // loses its routes
	must(t, w.NAS.Up("eth0"))
	c, err := w.fetch(limitedTo(t, 20*time.Second), kernel.NASAddress)
	must(t, err)
	defer c.Close()
	read(t, c, 0, short)
}

// change edits the file firewall, as a person would; the pattern must be there.
func change(files map[string]string, pattern, by string) map[string]string {
	out := maps.Clone(files)
	re := regexp.MustCompile(pattern)
	if !re.MatchString(out["firewall"]) {
		panic("no " + pattern + " in\n" + out["firewall"])
	}
	out["firewall"] = re.ReplaceAllString(out["firewall"], by)
	return out
}
