package verify

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/subnet"
)

func household() home.Home {
	h := home.New()
	h.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	h.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
	h.Reach.HomeLAN = true
	return h
}

// gateway is the smallest one by which a device comes home.
const gateway = `uci batch <<EOF
set network.wg0=interface
set network.wg0.proto=wireguard
set network.wg0.private_key=$(wg genkey)
set network.wg0.listen_port=51820
add_list network.wg0.addresses=10.86.20.1/24
set firewall.vpn=zone
set firewall.vpn.name=vpn
add_list firewall.vpn.network=wg0
set firewall.vpn.input=ACCEPT
set firewall.vpn.output=ACCEPT
set firewall.vpn.forward=REJECT
set firewall.there=forwarding
set firewall.there.src=vpn
set firewall.there.dest=lan
set firewall.door=rule
set firewall.door.src=wan
set firewall.door.proto=udp
set firewall.door.dest_port=51820
set firewall.door.target=ACCEPT
EOF
uci commit; ubus call network reload; ifup wg0; /etc/init.d/firewall reload`

// noWay is a socket of a computer that has no route to there.
type noWay struct{ conn.Bind }

func (noWay) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	return nil, 0, os.NewSyscallError("connect", syscall.ENETUNREACH)
}
func (noWay) Close() error         { return nil }
func (noWay) SetMark(uint32) error { return nil }
func (noWay) BatchSize() int       { return 1 }

// In an emulated home: what is shown depends on where the test enters, what could not
// be sent shows nothing, and the test peer is gone afterwards.
func TestVantages(t *testing.T) {
	t.Parallel()
	w, err := world.New(t.Context(), world.Options{Real: true, Router: owrt.Options{Packages: []string{"wireguard-tools"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if out, complaints, code := w.Router.Sh(gateway); code != 0 {
		t.Fatalf("%d\n%s%s", code, out, complaints)
	}
	if err := errors.Join(w.WaitReady(t.Context()), w.MapPort(home.DefaultPort)); err != nil {
		t.Fatal(err)
	}
	at, _ := w.RouterLAN()
	sh, err := shell.Open(t.Context(), shell.Target{Addr: at.String(), User: "root"}, shell.Options{Dial: w.LaptopDial, HostKeys: new(shell.Memory), Config: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	snap, err := openwrt.Look(t.Context(), sh, openwrt.LookFor{})
	if err != nil {
		t.Fatal(err)
	}
	inside, outside := netip.AddrPortFrom(at, home.DefaultPort), w.Endpoint(home.DefaultPort)
	six := netip.MustParseAddrPort("[2001:db8::1]:51820")
	for _, c := range []struct {
		name string
		v    Vantage
		to   netip.AddrPort
		bind conn.Bind
		want string
		says string
	}{
		{"in the home LAN", Inside, inside, w.LaptopBind(), "isp-router not-shown, door not-shown, handshake shown, router shown, dns shown, lan shown", ""},
		{"from outside", Outside, outside, w.OutsideBind(), "isp-router shown, door shown, handshake shown, router shown, dns shown, lan shown", ""},
		{"by IPv6 where there is none", Outside, six, noWay{w.OutsideBind()}, "isp-router not-shown, door not-shown, handshake not-shown, router not-shown, lan not-shown", "this place has no IPv6"},
		{"without a network", Outside, outside, noWay{w.OutsideBind()}, "isp-router not-shown, door not-shown, handshake not-shown, router not-shown, lan not-shown", "nothing could be sent from here: network is unreachable"},
	} {
		r := Request{Home: household(), Vantage: c.v, Endpoint: c.to, Bind: c.bind, Rand: rand.Reader, Target: w.NAS.Addr(), Mapped: true}
		res, err := Run(t.Context(), sh, snap, r, nil)
		var got []string
		for _, h := range res.Hops {
			got = append(got, h.ID+" "+string(h.Verdict))
		}
		if err != nil || strings.Join(got, ", ") != c.want || !strings.Contains(res.Hop(HopHandshake).Seen, c.says) || res.Broken() {
			t.Errorf("%s: %v, %+v\n%s", c.name, err, res, w.WhereDied(nil))
		}
		if out, _, _ := w.Router.Sh("wg show wg0 peers"); strings.TrimSpace(out) != "" {
			t.Errorf("%s: the test peer is still there: %s", c.name, out)
		}
	}
	delete(snap.Tunnels, "wg0")
	if res, err := Run(t.Context(), sh, snap, Request{Home: household()}, nil); err != nil || !res.Broken() || res.Hops[0].Next != "heimweg apply" {
		t.Errorf("without a tunnel: %+v, %v", res, err)
	}
	if unknown := w.Router.Unknown(); len(unknown) > 0 {
		t.Errorf("the router does not have %v", unknown)
	}
}

// What the router counted for the test peer tells how far its packets came.
func TestRefine(t *testing.T) {
	for name, c := range map[string]struct {
		hop        Hop
		v          Vantage
		received   int64
		mapped     bool
		says, next string
	}{
		"it shows the way":            {Hop{ID: HopHandshake, Verdict: Shown, Seen: "x"}, Outside, 0, true, "x", ""},
		"nothing was sent":            {notSent(Hop{ID: HopHandshake}, netip.MustParseAddrPort("[2001:db8::1]:1"), syscall.ENETUNREACH), Outside, 0, true, "this place has no IPv6, so nothing could be sent", "in a place that has IPv6"},
		"not permitted":               {notSent(Hop{ID: HopHandshake}, netip.MustParseAddrPort("[2001:db8::1]:1"), syscall.EPERM), Outside, 0, true, "nothing could be sent from here: operation not permitted", "this computer's own network"},
		"arrived":                     {Hop{ID: HopHandshake, Verdict: Broken}, Outside, 148, true, "its answers do not come back", "way back"},
		"the ISP router says it does": {Hop{ID: HopHandshake, Verdict: Broken}, Outside, 0, true, "and nothing of it arrives", "restart the ISP router"},
		"from outside":                {Hop{ID: HopHandshake, Verdict: Broken}, Outside, 0, false, "nothing of it arrived", "heimweg up"},
		"from inside":                 {Hop{ID: HopHandshake, Verdict: Broken}, Inside, 0, true, "nothing of it arrived", "heimweg apply"},
		"a port that is closed":       {Hop{ID: HopHandshake, Verdict: Broken, Next: "keep"}, Outside, 0, true, "nothing of it arrived", "keep"},
	} {
		res := Result{Vantage: c.v, Hops: []Hop{{ID: HopISP}, c.hop}}
		refine(&res, router.Peer{Received: c.received}, c.mapped)
		h := res.Hop(HopHandshake)
		if !strings.Contains(h.Seen, c.says) || !strings.Contains(h.Next, c.next) || c.next == "" && h.Next != "" || h.Verdict != c.hop.Verdict {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// The test peer takes an address that nobody has, neither in home.toml nor on the
// router; where all are taken it says so.
func TestFreeAddress(t *testing.T) {
	h := household()
	h.Tunnel.Network = subnet.MustParse("10.86.20.0/29")
	live := &router.Tunnel{Peers: []router.Peer{{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.86.20.6/32")}}}}
	h.Peers = []home.Peer{{Name: "phone", Address: netip.MustParseAddr("10.86.20.2")}}
	var got []string
	for range 3 {
		a, err := freeAddress(h, live)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.String())
		h.Peers = append(h.Peers, home.Peer{Address: a})
	}
	if !slices.Equal(got, []string{"10.86.20.5", "10.86.20.4", "10.86.20.3"}) {
		t.Errorf("took %v", got)
	}
	var full *NoAddressError
	if a, err := freeAddress(h, live); !errors.As(err, &full) {
		t.Errorf("took %s, %v", a, err)
	}
}

// Only devices in the home LAN are asked, never this computer, and not too many.
func TestTargets(t *testing.T) {
	self := netip.MustParseAddr("192.168.1.77")
	s := &router.Snapshot{Neighbours: []router.Neighbour{{Addr: self}, {Addr: netip.MustParseAddr("192.168.2.254")}}}
	for i := range 2 * maxTargets {
		a := netip.AddrFrom4([4]byte{192, 168, 1, byte(100 + i/2)}) // each twice
		s.Neighbours = append(s.Neighbours, router.Neighbour{Addr: a})
	}
	s.Neighbours = append(s.Neighbours, router.Neighbour{Addr: netip.MustParseAddr("192.168.1.200")})
	got := targets(Request{Home: household(), Self: self}, s)
	if len(got) != maxTargets || got[0] != netip.MustParseAddr("192.168.1.100") || got[1] != netip.MustParseAddr("192.168.1.101") {
		t.Errorf("%v", got)
	}
	if got = targets(Request{Home: household(), Target: self}, s); len(got) != 1 || got[0] != self {
		t.Errorf("named: %v", got)
	}
}

// The test peer has keys of its own, one address, and a time to live: who knows it
// gets in nowhere else, and it does not stay.
func TestPrepare(t *testing.T) {
	private, err := key.NewPrivate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Home: household(), Rand: rand.Reader, Endpoint: netip.MustParseAddrPort("192.0.2.1:51820")}
	seen := map[key.Public]bool{}
	for range 3 {
		p, c, err := prepare(r, &router.Tunnel{PublicKey: private.Public()})
		if err != nil {
			t.Fatal(err)
		}
		if p.PublicKey != c.Private.Public() || !p.Preshared.Equal(c.Preshared) || p.Preshared.IsZero() || seen[p.PublicKey] || c.Peer != private.Public() {
			t.Errorf("the keys of %s", p.PublicKey)
		}
		seen[p.PublicKey] = true
		if len(p.Addresses) != 1 || !p.Addresses[0].IsSingleIP() || p.Addresses[0].Addr() != c.Addresses[0] || p.TimeToLive != probeLife {
			t.Errorf("%v for %s", p.Addresses, p.TimeToLive)
		}
	}
}
