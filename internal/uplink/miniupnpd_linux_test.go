package uplink_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab/kernel"
	"github.com/heimweg/heimweg/internal/uplink"
)

func TestMain(m *testing.M) {
	if code, again := kernel.Enter(os.Stdin, os.Stdout, os.Stderr); again {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

var missing = sync.OnceValue(kernel.Probe)

// real is a home of network namespaces whose ISP router runs miniupnpd:
// a laptop behind the home router, and a NAS beside it.
type real struct {
	*testing.T
	laptop, router, nas, isp, internet *kernel.Host
	dir                                string
}

const (
	ispLAN    = "192.168.2.254"
	ispLAN6   = "2001:db8:2::1"
	router6   = "2001:db8:2::253"
	ispPublic = "203.0.113.7"
	// miniupnpd believes no address of a range for documentation to be public; this
	// is any number, no packet goes there (facts deps 8).
	saidPublic = "11.22.33.44"
)

func newReal(t *testing.T) *real {
	need.Program(t, "miniupnpd")
	need.Program(t, "nft")
	for _, a := range []kernel.Ability{kernel.NetworkNamespaces, kernel.Veth, kernel.Switches, kernel.NFT} {
		if err := missing()[a]; err != nil {
			need.Missing(t, string(a), err.Error())
		}
	}
	r := &real{T: t, dir: t.TempDir()}
	check := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for name, h := range map[string]**kernel.Host{"laptop": &r.laptop, "home router": &r.router, "NAS": &r.nas, "ISP router": &r.isp, "internet": &r.internet} {
		var err error
		*h, err = kernel.NewHost(name)
		check(err)
		t.Cleanup((*h).Close)
	}
	check(r.router.Forward(), r.isp.Forward())
	// The uplink LAN is two cables: routes to single hosts make them one network.
	check(kernel.Link(r.laptop, "eth0", r.router, "br-lan"), kernel.Link(r.router, "wan", r.isp, "lan"), kernel.Link(r.nas, "eth0", r.isp, "lan2"), kernel.Link(r.isp, "wan", r.internet, "line"))
	check(r.laptop.Addr("eth0", "192.168.1.2/24"), r.laptop.Route("default", "192.168.1.1", "eth0"))
	check(r.router.Addr("br-lan", "192.168.1.1/24"), r.router.Addr("wan", client.String()+"/24", router6+"/64"), r.router.Route("default", ispLAN, "wan"), r.router.Route("::/0", ispLAN6, "wan"))
	check(r.nas.Addr("eth0", "192.168.3.17/24"), r.nas.Route("default", "192.168.3.254", "eth0"))
	check(r.isp.Addr("lan", ispLAN+"/24", ispLAN6+"/64"), r.isp.Addr("lan2", "192.168.3.254/24"), r.isp.Addr("wan", ispPublic+"/24", "2001:db8:1::2/64"))
	check(r.internet.Addr("line", "203.0.113.99/24", "2001:db8:1::1/64"), r.internet.Route("2001:db8:2::/64", "2001:db8:1::2", "line"))
	check(r.router.Load("table inet home {\n\tchain out {\n\t\ttype nat hook postrouting priority srcnat\n\t\tmeta nfproto ipv4 oifname wan masquerade\n\t}\n}\n"))
	r.rules()
	return r
}

// rules gives the ISP router its firewall, with what /etc/miniupnpd/nft_init.sh
// makes in it and without any mapping.
func (r *real) rules() {
	err := r.isp.Load(`flush ruleset
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state established,related accept
		iifname { lan, lan2 } accept
		jump miniupnpd
	}
	chain miniupnpd {
	}
	chain prerouting {
		type nat hook prerouting priority dstnat
		jump prerouting_miniupnpd
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		jump postrouting_miniupnpd
		meta nfproto ipv4 oifname wan masquerade
	}
	chain prerouting_miniupnpd {
	}
	chain postrouting_miniupnpd {
	}
}
`)
	if err != nil {
		r.Fatal(err)
	}
}

// miniupnpd starts the daemon on the ISP router; stop ends it. It dies with the
// test, however that ends.
func (r *real) miniupnpd(config ...string) (stop func()) {
	r.Helper()
	file := filepath.Join(r.dir, "miniupnpd.conf")
	text := append([]string{"ext_ifname=wan", "ext_ifname6=wan", "listening_ip=lan", "listening_ip=lan2", "http_port=5000", "secure_mode=yes",
		"uuid=00000000-0000-0000-0000-000000000001", "allow 1024-65535 0.0.0.0/0 1024-65535", "deny 0-65535 0.0.0.0/0 0-65535"}, config...)
	if err := os.WriteFile(file, []byte(strings.Join(text, "\n")+"\n"), 0o600); err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c := exec.CommandContext(ctx, need.Program(r, "miniupnpd"), "-d", "-f", file, "-P", filepath.Join(r.dir, "pid"))
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // it takes its rules away
	c.WaitDelay = 5 * time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // of the thread that Do keeps until it ends
	log, err := c.StderrPipe()
	if err != nil {
		r.Fatal(err)
	}
	c.Stdout = nil
	lines := make(chan string, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- r.isp.Do(func() error {
			if err := c.Start(); err != nil {
				close(lines)
				return err
			}
			s := bufio.NewScanner(log)
			for s.Scan() {
				select {
				case lines <- s.Text():
				default:
				}
			}
			close(lines)
			return c.Wait()
		})
	}()
	stop = func() {
		cancel()
		<-ended
		ended <- nil
	}
	r.Cleanup(stop)
	var said []string
	wants := []string{"HTTP listening on port"}
	if slices.Contains(config, "enable_natpmp=yes") {
		wants = append(wants, "Listening for NAT-PMP/PCP")
	}
	for l := range lines {
		said = append(said, l)
		wants = slices.DeleteFunc(wants, func(w string) bool { return strings.Contains(l, w) })
		if len(wants) == 0 {
			return stop
		}
	}
	r.Fatalf("miniupnpd did not say %q:\n%s", wants, strings.Join(said, "\n"))
	return nil
}

// from is a host's way out.
func from(h *kernel.Host) uplink.Way {
	return uplink.Way{
		Dial: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = h.Do(func() error { c, err = (&net.Dialer{}).DialContext(ctx, network, address); return err })
			return c, err
		},
		ListenUDP: func(ctx context.Context) (c net.PacketConn, err error) {
			err = h.Do(func() error { c, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", ":0"); return err })
			return c, err
		},
	}
}

func (r *real) options(only ...uplink.Protocol) uplink.Options {
	return uplink.Options{Gateway: netip.MustParseAddr(ispLAN), Gateway6: netip.MustParseAddr(ispLAN6), Client: client,
		Direct: from(r.laptop), Via: uplink.Way{Dial: from(r.router).Dial}, Only: only}
}

// in is the same home for a subtest.
func (r *real) in(t *testing.T) *real {
	c := *r
	c.T = t
	return &c
}

func (r *real) ask(o uplink.Options) *uplink.Gateway {
	r.Helper()
	g, err := uplink.Ask(r.Context(), o)
	if err != nil {
		r.Fatal(err)
	}
	return g
}

// reached sends datagrams from the internet until one arrives at the home router,
// or, when none shall, as many as a firewall needs to drop one.
func (r *real) reached(to string, want bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	var in, out net.PacketConn
	err := r.router.Do(func() (err error) { in, err = net.ListenPacket("udp", ":51820"); return err })
	if err != nil {
		r.Fatal(err)
	}
	defer in.Close()
	if err := r.internet.Do(func() (err error) { out, err = net.ListenPacket("udp", ":0"); return err }); err != nil {
		r.Fatal(err)
	}
	defer out.Close()
	got := false
	for tries := 0; !got && ctx.Err() == nil && (want || tries < 2); tries++ {
		if _, err := out.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
			r.Fatal(err)
		}
		in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, _, err := in.ReadFrom(make([]byte, 100))
		got = err == nil
	}
	if got != want {
		r.Errorf("a packet to %s arrived: %v", to, got)
	}
}

const outsidePort = ispPublic + ":51820"

// Debian's miniupnpd, asked from behind the home router by each protocol: found,
// mapped, listed, renewed, removed; a packet from the internet proves it.
func TestMiniupnpd(t *testing.T) {
	r := newReal(t)
	r.miniupnpd("ext_ip="+saidPublic, "enable_natpmp=yes")
	all := r.ask(r.options())
	for _, c := range []struct {
		protocol uplink.Protocol
		version  string
		lease    time.Duration
	}{{uplink.UPnP, "WANIPConnection:2", 7 * 24 * time.Hour}, {uplink.PCP, "2", 24 * time.Hour}, {uplink.NATPMP, "0", 7 * 24 * time.Hour}} {
		if !slices.ContainsFunc(all.Answers, func(a uplink.Answer) bool { return a.Protocol == c.protocol && a.Version == c.version }) {
			t.Errorf("%s did not answer: %+v, %v", c.protocol, all.Answers, all.Tried)
		}
		t.Run(string(c.protocol), func(t *testing.T) {
			r := r.in(t)
			g := r.ask(r.options(c.protocol))
			if c.protocol != uplink.PCP && g.Public != netip.MustParseAddr(saidPublic) {
				t.Errorf("public: %s", g.Public)
			}
			r.reached(outsidePort, false)
			for range 2 { // the second time it is renewed
				m, err := g.Map(t.Context(), wireguard)
				if err != nil {
					t.Fatal(err)
				}
				if m.Protocol != c.protocol || m.Lease > c.lease || m.Lease < c.lease-time.Minute || m.To != netip.AddrPortFrom(client, 51820) {
					t.Errorf("%+v", m)
				}
			}
			r.reached(outsidePort, true)
			list, err := all.List(t.Context())
			if err != nil || len(list) != 1 || list[0].To != netip.AddrPortFrom(client, 51820) || list[0].External != 51820 {
				t.Errorf("%v %+v", err, list)
			}
			m, err := g.Map(t.Context(), wireguard)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // what is not there any more is no error
				if err := g.Unmap(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			r.reached(outsidePort, false)
			if list, err := all.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("%v %+v", err, list)
			}
		})
	}
	t.Run("conflict", func(t *testing.T) {
		r := r.in(t)
		nas := uplink.Options{Gateway: netip.MustParseAddr("192.168.3.254"), Client: netip.MustParseAddr("192.168.3.17"), Direct: from(r.nas)}
		g := r.ask(nas)
		m, err := g.Map(t.Context(), wireguard)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Unmap(t.Context(), m)
		for _, p := range []uplink.Protocol{uplink.UPnP, uplink.PCP, uplink.NATPMP} {
			_, err := r.ask(r.options(p)).Map(t.Context(), wireguard)
			var taken *uplink.ConflictError
			if !errors.As(err, &taken) || p == uplink.UPnP && taken.Holder.To != netip.AddrPortFrom(nas.Client, 51820) {
				t.Errorf("%s: %v", p, err)
			}
		}
		if list, err := all.List(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("%v %+v", err, list)
		}
	})
	t.Run("not permitted", func(t *testing.T) {
		// NAT-PMP is left out: this miniupnpd goes through all ports then, and is
		// silent for seconds.
		r := r.in(t)
		w := uplink.Want{Proto: "udp", External: 80}
		_, err := r.ask(r.options(uplink.UPnP)).Map(t.Context(), w)
		var no *uplink.RefusedError
		if !errors.As(err, &no) || no.Why != uplink.NotAuthorized {
			t.Errorf("UPnP: %v", err)
		}
		_, err = r.ask(r.options(uplink.PCP)).Map(t.Context(), w)
		var taken *uplink.ConflictError // that is how it says so
		if !errors.As(err, &taken) || err.Error() != "UDP 80 is taken or reserved" {
			t.Errorf("PCP: %v", err)
		}
	})
	t.Run("IPv6", func(t *testing.T) {
		r := r.in(t)
		to := netip.AddrPortFrom(netip.MustParseAddr(router6), 51820)
		g := r.ask(r.options(uplink.UPnP))
		r.reached(to.String(), false)
		p, err := g.Pinhole(t.Context(), "udp", to, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		r.reached(to.String(), true)
		if p, err = g.RenewPinhole(t.Context(), p, 2*time.Hour); err != nil {
			t.Error(err)
		}
		if err := g.ClosePinhole(t.Context(), p); err != nil {
			t.Error(err)
		}
		r.reached(to.String(), false)
		_, err = g.Pinhole(t.Context(), "udp", netip.MustParseAddrPort("[2001:db8:2::17]:51820"), time.Hour)
		if err == nil || !strings.Contains(err.Error(), "606") {
			t.Errorf("for another host: %v", err)
		}
	})
}

// Version 1, and what an ISP router says that has no public address itself.
func TestMiniupnpdOthers(t *testing.T) {
	r := newReal(t)
	stop := r.miniupnpd("ext_ip="+saidPublic, "force_igd_desc_v1=yes", "enable_natpmp=yes")
	g := r.ask(r.options())
	if g.Answers[0].Version != "WANIPConnection:1" {
		t.Errorf("%+v", g.Answers)
	}
	m, err := g.Map(t.Context(), wireguard)
	if err != nil || !m.Confirmed {
		t.Errorf("%v %+v", err, m)
	}
	r.reached(outsidePort, true)
	stop()
	r.rules() // it leaves its mappings behind
	r.miniupnpd("enable_natpmp=yes")
	for _, p := range []uplink.Protocol{uplink.UPnP, uplink.PCP, uplink.NATPMP} {
		g := r.ask(r.options(p))
		_, err := g.Map(t.Context(), wireguard)
		var no *uplink.RefusedError
		if !errors.As(err, &no) || no.Why != uplink.NoPublic {
			t.Errorf("%s: %v", p, err)
		}
		if a, err := g.External(t.Context()); err == nil {
			t.Errorf("%s: it has an address: %s", p, a)
		}
	}
}
