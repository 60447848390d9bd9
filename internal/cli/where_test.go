package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/endpoint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/verify"
)

// connected is a home at one kind of connection.
type connected struct {
	t   testing.TB
	w   *world.World
	dir string

	in     io.Reader                                // what a person types; nil: nobody is there
	bind   func() conn.Bind                         // nil: from a hotel
	source func(netip.AddrPort) (netip.Addr, error) // nil: this computer's
	all    strings.Builder
}

func connect(t testing.TB, o world.Options) *connected {
	t.Helper()
	o.Real = true
	if o.IGD == nil {
		o.IGD = &igd.Options{UPnP: 2, NATPMP: true, PCP: true}
	}
	w, err := world.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &connected{t: t, w: w, dir: t.TempDir()}
}

func (c *connected) file(name string) string { return filepath.Join(c.dir, name) }

func (c *connected) heimweg(args ...string) (code int, out, said string) {
	c.t.Helper()
	var o, e bytes.Buffer
	env := Env{In: strings.NewReader(""), Out: &o, Err: &e, Terminal: person{c.in != nil, c.in}, Dial: c.w.LaptopDial, ListenUDP: laptopUDP(c.w),
		Lookup: labLookup(c.w), Roots: c.w.Station().Roots, Config: c.file("config"), Getenv: func(string) string { return "" },
		Bind: c.bind, Source: c.source}
	if c.bind == nil {
		env.Bind = func() conn.Bind { return c.w.OutsideBind() }
	}
	if c.in != nil {
		env.In = c.in
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	code = Run(ctx, env, append([]string{"--home", c.file("home.toml")}, args...))
	c.all.WriteString(o.String() + e.String())
	return code, o.String(), e.String()
}

func (c *connected) must(args ...string) string {
	c.t.Helper()
	code, out, said := c.heimweg(args...)
	if code != 0 {
		c.t.Fatalf("heimweg %v: exit code %d\n%s%s", args, code, out, said)
	}
	return out + said
}

// setUp writes home.toml without anybody naming an endpoint, and applies it.
func (c *connected) setUp(args ...string) string {
	c.t.Helper()
	at, _ := c.w.RouterLAN()
	said := c.must(append([]string{"init", "--yes", "--router", at.String(), "--input", "reject"}, args...)...)
	c.must("apply", "--yes")
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	if err := c.w.WaitReady(ctx); err != nil { // applying renews the WAN side
		c.t.Fatal(err)
	}
	return said
}

// comesHome lets the phone fetch a page from home.
func (c *connected) comesHome(conf string, patience time.Duration) error {
	text, err := os.ReadFile(c.file(conf))
	if err != nil {
		return err
	}
	if err := c.w.Phone.Join(string(text)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, err = c.w.Phone.Get(ctx, "http://"+c.w.NAS.Addr().String()+"/")
	return err
}

func (c *connected) mustComeHome(conf string) {
	c.t.Helper()
	if err := c.comesHome(conf, 10*time.Second); err != nil {
		c.t.Fatalf("%v\n%s", err, c.w.WhereDied(nil))
	}
}

func wants(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

var askBoth = []string{"--ask-outside", world.STUNServer + "," + world.EchoPage}

// Nobody typed where home is: the phone comes home by what the ISP router told.
func TestWherePublic(t *testing.T) {
	t.Parallel()
	c := connect(t, world.Options{})
	wants(t, c.setUp(), "Where home is", "public IPv4, not yet seen from outside", "203.0.113.7")
	if n := c.w.Station().Asked("stun") + c.w.Station().Asked("https"); n != 0 {
		t.Errorf("servers outside were asked %d times, unasked", n)
	}
	if err := c.w.MapPort(home.DefaultPort); err != nil {
		t.Fatal(err)
	}
	wants(t, c.must("peer", "add", "phone", "-o", c.file("phone.conf")), "Home is at", "203.0.113.7")
	c.mustComeHome("phone.conf")
	out := c.must(append([]string{"verify"}, askBoth...)...)
	wants(t, out, "Home can be reached", "asking stun.example.net:3478", "asking https://ip.example.net/")
	if strings.Contains(out, "not yet seen") || c.w.Station().Asked("stun") != 1 || c.w.Station().Asked("https") != 1 {
		t.Errorf("STUN %d, HTTPS %d:\n%s", c.w.Station().Asked("stun"), c.w.Station().Asked("https"), out)
	}
	if text, _ := os.ReadFile(c.file("home.toml")); bytes.Contains(text, []byte("\nendpoint = \"203")) {
		t.Error("the address that may change was written down")
	}
}

func TestWhereDoubleNAT(t *testing.T) {
	t.Parallel()
	c := connect(t, world.Options{Upstream: world.DoubleNAT})
	wants(t, c.setUp(askBoth...), "double NAT", "box in front of the ISP router", "send UDP 51820 to 192.168.178.20", "Devices call             203.0.113.7")
	code, _, said := c.heimweg("peer", "add", "phone", "-o", c.file("phone.conf"))
	if code == 0 {
		t.Fatal("a device got an endpoint that nobody told")
	}
	wants(t, said, "two boxes translate addresses")
	wants(t, c.must(append([]string{"peer", "add", "phone", "-o", c.file("phone.conf")}, askBoth...)...), "203.0.113.7 (double NAT)")
	if err := c.w.MapPort(home.DefaultPort); err != nil {
		t.Fatal(err)
	}
	c.w.Front.Map("udp", home.DefaultPort, netip.AddrPortFrom(c.w.ISP.Public(), home.DefaultPort))
	c.mustComeHome("phone.conf")
}

// Where nobody can call, nobody gets a configuration that cannot work, and the
// words say what can be done.
func TestWhereCGNAT(t *testing.T) {
	t.Parallel()
	c := connect(t, world.Options{Upstream: world.CGNAT})
	wants(t, c.setUp(), "carrier NAT (CGNAT)", "nothing yet: the provider lets nobody call this house", "100.64.5.7", "ask the provider", "small server")
	code, out, said := c.heimweg("peer", "add", "phone", "-o", c.file("phone.conf"))
	if code != 1 {
		t.Fatalf("exit code %d\n%s%s", code, out, said)
	}
	wants(t, said, "this house cannot be called from outside", "ask the provider for a public IPv4 address")
	if _, err := os.Stat(c.file("phone.conf")); err == nil {
		t.Error("a configuration was written")
	}
}

func TestWhereIPv6(t *testing.T) {
	t.Parallel()
	for _, u := range []struct {
		name, words string
		opt         world.Options
	}{
		{"DS-Lite", "DS-Lite, with IPv6", world.Options{Upstream: world.DSLite}},
		{"IPv6 only", "IPv6 only", world.Options{Upstream: world.IPv6Only}},
		{"CGNAT with IPv6", "carrier NAT (CGNAT), with IPv6", world.Options{Upstream: world.CGNAT, IPv6: true}},
	} {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			c := connect(t, u.opt)
			six := c.w.HomeIPv6().String()
			args := askBoth
			if u.opt.Upstream == world.IPv6Only {
				// A line without IPv4 takes the package servers' IPv4 away, too.
				c.w.Router.Sh("opkg update; opkg install wireguard-tools")
				args = nil
			}
			wants(t, c.setUp(args...), u.words, six, "over IPv6", "in its IPv6 firewall", "networks without IPv6")
			wants(t, c.must("peer", "add", "phone", "-o", c.file("phone.conf")), six)
			if err := c.comesHome("phone.conf", 300*time.Millisecond); err == nil {
				t.Fatal("the ISP router's IPv6 firewall lets everybody in")
			}
			wants(t, c.w.WhereDied(nil), "ISP router", "IPv6 firewall")
			c.w.OpenIPv6(home.DefaultPort)
			c.mustComeHome("phone.conf")
		})
	}
}

// The provider connects anew at night: devices that call the old address are told
// why, and status says what to do.
func TestWhereChanging(t *testing.T) {
	t.Parallel()
	c := connect(t, world.Options{})
	c.setUp("--endpoint", world.EndpointName)
	if err := c.w.MapPort(home.DefaultPort); err != nil {
		t.Fatal(err)
	}
	c.must("peer", "add", "phone", "-o", c.file("phone.conf"))
	c.mustComeHome("phone.conf")
	c.w.Phone.Leave()
	if err := c.w.Reconnect(); err != nil {
		t.Fatal(err)
	}
	code, out, said := c.heimweg("verify")
	if code != 3 {
		t.Fatalf("exit code %d\n%s%s", code, out, said)
	}
	wants(t, out, "public IPv4, changing", "home.example.net points to 203.0.113.7, and home is 203.0.113.90", "let the name follow")
	c.w.UpdateName()
	c.must("verify")
	c.mustComeHome("phone.conf")
}

// A person carries the laptop out of the house and back, and heimweg notices.
func TestVerifyFromOutside(t *testing.T) {
	t.Parallel()
	c := connect(t, world.Options{})
	c.setUp("--endpoint", world.EndpointName)
	if err := c.w.MapPort(home.DefaultPort); err != nil {
		t.Fatal(err)
	}
	typed, keyboard := io.Pipe() // nobody presses a key
	t.Cleanup(func() { keyboard.Close() })
	c.in = typed
	c.bind = func() conn.Bind { return c.w.LaptopBind() }
	looks, broken := 0, false
	c.source = func(netip.AddrPort) (netip.Addr, error) {
		switch looks++; {
		case looks == 3:
			c.w.Laptop.Tethered()
		case looks == 8 && broken:
			c.w.Laptop.AtHome()
		}
		for _, i := range c.w.Laptop.Ifaces() {
			for _, a := range i.Addrs {
				return a.Addr(), nil
			}
		}
		return netip.Addr{}, io.ErrUnexpectedEOF
	}
	code, out, said := c.heimweg("verify", "--from-outside")
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s\n%s", code, out, said, c.w.WhereDied(nil))
	}
	wants(t, out, "Home can be reached")
	wants(t, said, "Outside now (100.64.", "you can go back to your own network")

	// The same with a mapping that is gone: it waits until the laptop is back, and
	// the home router tells that nothing came.
	c.w.Laptop.AtHome()
	if err := c.w.Laptop.WaitAddr(t.Context(), world.HomeLAN); err != nil {
		t.Fatal(err)
	}
	c.w.ISP.Unmap("udp", home.DefaultPort)
	looks, broken = 0, true
	code, out, said = c.heimweg("verify", "--from-outside", "--json")
	var res struct {
		verify.Result
		Where *endpoint.Verdict
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil || code != 3 {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, said)
	}
	wants(t, said, "Go back to your own network now")
	if h := res.Hop(verify.HopHandshake); h.Verdict != verify.Broken || !strings.Contains(h.Seen, "nothing of it arrived") {
		t.Errorf("%+v\n%s", h, said)
	}
	if res.Where == nil || res.Where.Kind != endpoint.Public {
		t.Errorf("where: %+v", res.Where)
	}
}

// upstreams are the connections of scripts: world --upstream NAME.
var upstreams = map[string]world.Upstream{
	"double-nat": world.DoubleNAT, "cgnat": world.CGNAT, "ds-lite": world.DSLite, "ipv6-only": world.IPv6Only,
}
