package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/nas"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/view"
)

// firstManual is what the first guide has a person type, and what LuCI writes for
// what it has them click. The keys of the devices stand for those that a phone's
// app made.
const firstManual = `set -e
opkg update >/dev/null
opkg install wireguard-tools kmod-wireguard luci-app-wireguard luci-proto-wireguard wg-installer-server qrencode mc nano >/dev/null
cd /root
wg genkey > wg.sec
cat wg.sec >/dev/null
wg pubkey < wg.sec > wg.pub
cat wg.pub >/dev/null
# Network/Firewall: zone VPN, "allow forward to destination zones" lan
uci add firewall zone >/dev/null
uci set firewall.@zone[-1].name='VPN'
uci set firewall.@zone[-1].input='ACCEPT'
uci set firewall.@zone[-1].output='ACCEPT'
uci set firewall.@zone[-1].forward='REJECT'
uci set firewall.@zone[-1].masq='1'
uci set firewall.@zone[-1].mtu_fix='1'
uci add firewall forwarding >/dev/null
uci set firewall.@forwarding[-1].src='VPN'
uci set firewall.@forwarding[-1].dest='lan'
# NAT Rules
uci add firewall nat >/dev/null
uci set firewall.@nat[-1].name='VPN'
uci add_list firewall.@nat[-1].proto='all'
uci set firewall.@nat[-1].src='lan'
uci set firewall.@nat[-1].src_ip='192.168.20.0/24'
uci set firewall.@nat[-1].target='MASQUERADE'
# Network/Interfaces: WG0, firewall zone VPN
uci set network.WG0=interface
uci set network.WG0.proto='wireguard'
uci set network.WG0.private_key="$(cat wg.sec)"
uci set network.WG0.listen_port='51902'
uci add_list network.WG0.addresses='192.168.20.1/24'
uci add_list firewall.@zone[-1].network='WG0'
# Firewall/Port Forwards
uci add firewall redirect >/dev/null
uci set firewall.@redirect[-1].name='wireguard'
uci add_list firewall.@redirect[-1].proto='udp'
uci set firewall.@redirect[-1].src='wan'
uci set firewall.@redirect[-1].src_dport='51902'
uci set firewall.@redirect[-1].dest='VPN'
uci set firewall.@redirect[-1].dest_ip='192.168.20.1'
uci set firewall.@redirect[-1].dest_port='51902'
uci set firewall.@redirect[-1].target='DNAT'
# Peers
uci add network wireguard_WG0 >/dev/null
uci set network.@wireguard_WG0[-1].description='Phone'
uci set network.@wireguard_WG0[-1].public_key='PHONE'
uci add_list network.@wireguard_WG0[-1].allowed_ips='192.168.20.2/32'
uci set network.@wireguard_WG0[-1].route_allowed_ips='1'
uci add network wireguard_WG0 >/dev/null
uci set network.@wireguard_WG0[-1].description='Laptop'
uci set network.@wireguard_WG0[-1].public_key='LAPTOP'
uci add_list network.@wireguard_WG0[-1].allowed_ips='192.168.20.3/32'
uci set network.@wireguard_WG0[-1].route_allowed_ips='1'
uci commit
# Save & Apply, "completely rebooted OpenWrt"
`

// handmade is a home whose gateway somebody set up by hand.
type handmade struct {
	*house
	phone, laptop key.Private
	psk           string // the phone's preshared key, "" for none
	key           string // the gateway's public key, in every device's configuration
	iface         string
	port, call    int    // what the router listens on, and what devices call
	network       string // "192.168.20"
}

// named reads from a recipe what the tunnel is called, and where it is.
func (h *handmade) named(recipe string) {
	at := func(re string) string { return regexp.MustCompile(re).FindStringSubmatch(recipe)[1] }
	h.iface = at(`network\.(\w+)\.proto='wireguard'`)
	h.port, _ = strconv.Atoi(at(`listen_port='(\d+)'`))
	if h.call = h.port; strings.Contains(recipe, "src_dport='443'") {
		h.call = 443
	}
	h.network = at(`addresses='([\d.]+)\.1/`)
}

// newHandmade types a recipe into a fresh router, restarts it, and opens the port
// at the ISP router as the guides say.
func newHandmade(t testing.TB, o world.Options, recipe string) *handmade {
	t.Helper()
	o.Real = true
	w, err := world.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	h := &handmade{house: &house{t: t, w: w, dir: t.TempDir()}}
	h.named(recipe)
	h.phone, h.laptop = newKey(t), newKey(t)
	h.settle()
	if psk, err := key.NewPreshared(rand.Reader); err == nil && strings.Contains(recipe, "SHARED") {
		h.psk = psk.Reveal()
	}
	h.sh(strings.NewReplacer("PHONE", h.phone.Public().String(), "LAPTOP", h.laptop.Public().String(),
		"SECRET", h.phone.Reveal(), "SHARED", h.psk).Replace(recipe))
	h.key = h.server()
	h.restart()
	if err := w.MapPort(uint16(h.call)); err != nil {
		t.Fatal(err)
	}
	return h
}

func newKey(t testing.TB) key.Private {
	t.Helper()
	k, err := key.NewPrivate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *handmade) settle() {
	h.t.Helper()
	if err := h.w.WaitReady(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *handmade) restart() {
	h.t.Helper()
	h.w.Router.Reboot()
	if err := h.w.Router.WaitBoot(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.settle()
	// The tunnel comes up a moment after the rest.
	up := `[ -z "$(uci -q get network.` + h.iface + `)" ] || ubus call network.interface.` + h.iface + ` status | grep -q '"up": true'`
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(20 * time.Second); ; {
		if _, _, code := h.w.Router.Sh(up); code == 0 {
			return
		}
		select {
		case <-late:
			h.t.Fatal("the tunnel did not come up in 20 s")
		case <-tick.C:
		}
	}
}

func (h *handmade) addr() string {
	at, _ := h.w.RouterLAN()
	return at.String()
}

// server is the gateway's public key.
func (h *handmade) server() string {
	h.t.Helper()
	out, said, code := h.w.Router.Sh("uci get network." + h.iface + ".private_key | wg pubkey")
	if code != 0 {
		h.t.Fatalf("no key: %s%s", out, said)
	}
	return strings.TrimSpace(out)
}

// conf is the phone's configuration as the guide has it.
func (h *handmade) conf() string {
	shared := ""
	if h.psk != "" {
		shared = "PresharedKey=" + h.psk + "\n"
	}
	return fmt.Sprintf("[Interface]\nPrivateKey=%s\nAddress=%s.2/32\nMTU=1400\n[Peer]\nEndpoint=%s:%d\nPublicKey=%s\n%sAllowedIPs=%s.0/24, %s\n",
		h.phone.Reveal(), h.network, world.EndpointName, h.call, h.key, shared, h.network, netip.PrefixFrom(h.w.NAS.Addr(), 24).Masked())
}

// thirdText is the set-up of the third text: 23.05 behind an ISP router, with keys
// made by its one line, and the sections of the page that it names as its source:
// the tunnel in zone lan, a rule for the port, named sections.
const thirdText = `set -e
opkg update >/dev/null
opkg install luci-proto-wireguard qrencode >/dev/null
cd /root
wg genkey | tee wg.key | wg pubkey > wg.pub
uci add_list firewall.@zone[0].network='vpn'
uci set firewall.wg='rule'
uci set firewall.wg.name='Allow-WireGuard'
uci set firewall.wg.src='wan'
uci set firewall.wg.dest_port='51820'
uci set firewall.wg.proto='udp'
uci set firewall.wg.target='ACCEPT'
uci commit firewall
uci set network.vpn='interface'
uci set network.vpn.proto='wireguard'
uci set network.vpn.private_key="$(cat wg.key)"
uci set network.vpn.listen_port='51820'
uci add_list network.vpn.addresses='192.168.9.1/24'
uci add_list network.vpn.addresses='fd00:9::1/64'
uci set network.wgclient='wireguard_vpn'
uci set network.wgclient.public_key='PHONE'
uci add_list network.wgclient.allowed_ips='192.168.9.2/32'
uci add_list network.wgclient.allowed_ips='fd00:9::2/128'
uci commit network
`

// found is what adopt says of a router, by code.
func (h *handmade) adopt(args ...string) view.Adopted {
	h.t.Helper()
	code, out, said := h.heimweg(append([]string{"--router", h.addr(), "adopt", "--json"}, args...)...)
	var v view.Adopted
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
		h.t.Fatalf("heimweg adopt: exit code %d, %v\n%s%s", code, err, out, said)
	}
	return v
}

func partOf(t testing.TB, v view.Adopted, code string) adopt.Part {
	t.Helper()
	i := slices.IndexFunc(v.Parts, func(p adopt.Part) bool { return p.Code == code })
	if i < 0 {
		t.Fatalf("adopt does not name %s:\n%+v", code, v.Parts)
	}
	return v.Parts[i]
}

func hasPart(v view.Adopted, code string, verdict adopt.Verdict, what string) bool {
	return slices.ContainsFunc(v.Parts, func(p adopt.Part) bool {
		return p.Code == code && p.Verdict == verdict && strings.Contains(p.What, what)
	})
}

// download is a page that is on its way to the phone.
type download struct {
	t    testing.TB
	body io.ReadCloser
	n    int
}

// begin fetches the first part of a large page; the connection stays open.
func (h *handmade) begin() *download {
	h.t.Helper()
	tr := &http.Transport{DialContext: h.w.Phone.Dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+h.w.NAS.Addr().String()+"/big", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		h.t.Fatalf("%v\n%s", err, h.w.WhereDied(nil))
	}
	d := &download{t: h.t, body: resp.Body}
	d.n, err = io.ReadFull(resp.Body, make([]byte, nas.BigPage/8))
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// end fetches the rest over the same connection.
func (d *download) end() {
	d.t.Helper()
	defer d.body.Close()
	rest, err := io.Copy(io.Discard, d.body)
	if d.n += int(rest); err != nil || d.n != nas.BigPage {
		d.t.Errorf("the download broke off in the middle of the move: %d of %d bytes, %v", d.n, nas.BigPage, err)
	}
}

// move shows that heimweg apply brings the gateway into the recommended form while
// the phone is in: one connection goes on, no ping is lost, no handshake is made.
func (h *handmade) move(args ...string) {
	h.t.Helper()
	phone := h.w.Phone
	if err := phone.Join(h.conf()); err != nil {
		h.t.Fatal(err)
	}
	server, d := h.server(), h.begin()
	before, err := phone.Stats()
	if err != nil {
		h.t.Fatal(err)
	}
	c := phone.KeepPinging(h.w.NAS.Addr(), 20*time.Millisecond)
	h.must(append([]string{"apply", "--yes"}, args...)...)
	if sent, lost := c.Stop(); lost > 0 || sent == 0 {
		h.t.Errorf("the phone lost %d of %d pings while the gateway was moved", lost, sent)
	}
	d.end()
	after, err := phone.Stats()
	if err != nil || !after.LastHandshake.Equal(before.LastHandshake) {
		h.t.Errorf("the phone had to shake hands again: %v, %v, %v", before.LastHandshake, after.LastHandshake, err)
	}
	if got := h.server(); got != server {
		h.t.Errorf("the gateway has another key")
	}
	h.must("plan", "--check")
	// And for good: with the same configuration, after a restart.
	h.restart()
	h.must("plan", "--check")
	h.reaches(true, "after the move and a restart")
}

// reaches: the phone's packets come to the NAS and back, or the record says where
// they died on the home router.
func (h *handmade) reaches(want bool, when string) {
	h.t.Helper()
	if want {
		h.arrives(when)
		return
	}
	phone, w := h.w.Phone, h.w
	phone.Leave()
	mark := uint64(0)
	if f := w.Fates(); len(f) > 0 {
		mark = f[len(f)-1].Seq
	}
	peers, _, _ := w.Router.Sh("wg show " + h.iface + " peers")
	stranger := !strings.Contains(peers, h.phone.Public().String())
	if err := phone.Join(h.conf()); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	got := make(chan error, 1)
	go func() {
		_, err := phone.Get(ctx, "http://"+w.NAS.Addr().String()+"/")
		got <- err
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if h.died(w.Fates(), mark, stranger) {
			cancel()
			if err := <-got; err == nil {
				h.t.Errorf("%s: the phone reaches the NAS, although a packet died", when)
			}
			return
		}
		select {
		case err := <-got:
			if err != nil && h.died(w.Fates(), mark, stranger) {
				return // the sender was told
			}
			h.t.Errorf("%s: no packet of the phone died at home (%v)", when, err)
			return
		case <-tick.C:
		}
	}
}

// arrives: the phone fetches a page from the NAS. A connection that begins in the
// moment in which a router that was just started loads its firewall again may be
// sent astray for good, as at home; whoever holds the phone tries again.
func (h *handmade) arrives(when string) {
	h.t.Helper()
	phone := h.w.Phone
	var err error
	for range 5 {
		phone.Leave()
		if err = phone.Join(h.conf()); err != nil {
			h.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(h.t.Context(), 6*time.Second)
		_, err = phone.Get(ctx, "http://"+h.w.NAS.Addr().String()+"/")
		cancel()
		if err == nil {
			return
		}
	}
	h.t.Errorf("%s: the phone does not reach the NAS: %v\n%s", when, err, h.w.WhereDied(nil))
}

// died: a packet of the phone, outside or inside the tunnel, ended. Of one
// that WireGuard knows no key for there is no record but that it was delivered.
func (h *handmade) died(fates []lab.Fate, since uint64, stranger bool) bool {
	return slices.ContainsFunc(fates, func(f lab.Fate) bool {
		if f.Seq <= since {
			return false
		}
		call := int(f.Packet.DstPort) == h.call || int(f.Packet.DstPort) == h.port
		if f.Outcome == lab.Delivered {
			return stranger && call && f.Where == world.RouterName
		}
		return f.Outcome.Dead() && (call || f.Packet.Dst == h.w.NAS.Addr() || f.Packet.Src == h.w.NAS.Addr())
	})
}

// The first manual, typed in exactly: every finding of it has a name, the file
// means the same, and the move costs the phone nothing.
func TestAdoptFirstManual(t *testing.T) {
	t.Parallel()
	h := newHandmade(t, world.Options{Line: router.Line2203, Router: owrt.Options{LuCI: true}}, firstManual)
	h.reaches(true, "as the manual has it")
	v := h.adopt("--endpoint", world.EndpointName)
	for _, want := range []struct {
		code    string
		verdict adopt.Verdict
		what    string
	}{
		{"wg-installer", adopt.Harmful, "wg-installer-server"},
		{"wg-installer-login", adopt.Harmful, "wginstaller"},
		{"wg-installer-cron", adopt.Harmful, "cron job"},
		{"zone-input", adopt.Unsafe, "input ACCEPT of zone VPN"},
		{"key-file", adopt.Unsafe, "the tunnel's private key"},
		{"interface", adopt.Needed, "WG0, 192.168.20.1/24, UDP 51902"},
		{"peer", adopt.Needed, "phone"},
		{"peer", adopt.Needed, "laptop"},
		{"zone", adopt.Needed, "VPN"},
		{"forwarding", adopt.Needed, "VPN → lan"},
		{"redirect", adopt.Needed, "wireguard"},
		{"zone-masq", adopt.Redundant, "VPN"},
		{"zone-mtu", adopt.Redundant, "VPN"},
		{"nat", adopt.Redundant, "VPN"},
		{"peer-route", adopt.Redundant, "phone"},
		{"package", adopt.Redundant, "qrencode"},
		{"package", adopt.Redundant, "luci-app-wireguard"},
		{"public-key-file", adopt.Redundant, "public key"},
	} {
		if !hasPart(v, want.code, want.verdict, want.what) {
			t.Errorf("not named: %+v", want)
		}
	}
	if why := partOf(t, v, "redirect").Why; !strings.Contains(why, "IPv4 only") {
		t.Errorf("the port forward: %s", why)
	}
	if p := partOf(t, v, "key-file"); p.Place == nil || p.Place.File != "/root/wg.sec" || !strings.Contains(p.Why, "readable for everybody") {
		t.Errorf("the key file: %+v", p)
	}
	f, err := home.Parse("home.toml", []byte(h.read("home.toml")))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Home; got.Tunnel.Interface != "WG0" || got.Tunnel.Port != 51902 || !got.Reach.HomeLAN || got.Reach.Internet || got.Reach.UplinkLAN ||
		!got.Reach.NATToLAN || len(got.Peers) != 2 || got.Uplink.Kind != home.Behind || got.Peers[0].Admin {
		t.Errorf("home.toml: %+v", got)
	}

	// The harmful package has to go first; its own command is what the plan says.
	if code, out, _ := h.heimweg("apply", "--yes"); code != 1 || !strings.Contains(out, "opkg remove wg-installer-server") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	for _, code := range []string{"wg-installer", "wg-installer-login", "wg-installer-cron", "key-file"} {
		p := partOf(t, v, code)
		_, command, ok := strings.Cut(p.Then, ": ")
		if !ok {
			t.Fatalf("%s has no command: %s", code, p.Then)
		}
		h.sh(command)
	}
	if v = h.adopt(); v.Written || len(v.Parts) == 0 || v.Parts[0].Verdict == adopt.Harmful || hasPart(v, "key-file", adopt.Unsafe, "") {
		t.Errorf("still there: %+v", v.Parts[0])
	}
	h.move()
	if v = h.adopt(); !v.Done || v.Written {
		t.Errorf("after the move: %+v", v)
	}
	if u := h.w.Router.Unknown(); len(u) > 0 {
		t.Errorf("commands that the box does not have: %v", u)
	}
}

func TestAdoptThirdText(t *testing.T) {
	t.Parallel()
	h := newHandmade(t, world.Options{Line: router.Line2305}, thirdText)
	h.reaches(true, "as the text has it")
	v := h.adopt("--endpoint", world.EndpointName)
	for code, verdict := range map[string]adopt.Verdict{"zone-shared": adopt.Unsafe, "key-file": adopt.Unsafe, "rule": adopt.Needed, "interface": adopt.Needed} {
		if !hasPart(v, code, verdict, "") {
			t.Errorf("%s is not named %s:\n%+v", code, verdict, v.Parts)
		}
	}
	if !strings.Contains(strings.Join(v.Notes, "\n"), "do not reach each other") {
		t.Errorf("what ends is not said: %v", v.Notes)
	}
	f, err := home.Parse("home.toml", []byte(h.read("home.toml")))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Home; got.Tunnel.Interface != "vpn" || got.Tunnel.Network6.String() != "fd00:9::/64" || !got.Reach.HomeLAN || !got.Reach.UplinkLAN ||
		!got.Reach.Internet || got.Reach.NATToLAN || len(got.Peers) != 1 || !got.Peers[0].Address6.IsValid() {
		t.Errorf("home.toml: %+v", got)
	}
	h.move()
	if out, _, _ := h.w.Router.Sh("uci get firewall.@zone[0].network"); strings.TrimSpace(out) != "lan" {
		t.Errorf("zone lan holds %q", out)
	}
}

// Each part taken out, one after the other: what adopt says of it is what the
// phone's packets find.
func TestAdoptRemovals(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, script string
		code, what   string // of adopt's part; "" for none
		reaches      bool
	}{
		{"the interface", "uci delete network.WG0", "interface", "", false},
		{"the phone's section", "uci delete network.@wireguard_WG0[0]", "peer", "phone", false},
		{"the laptop's section", "uci delete network.@wireguard_WG0[1]", "", "", true},
		{"the phone's route", "uci delete network.@wireguard_WG0[0].route_allowed_ips", "peer-route", "phone", true},
		{"zone VPN", "uci delete firewall.@zone[2]", "zone", "", false},
		{"input ACCEPT", "uci set firewall.@zone[2].input=REJECT", "zone-input", "", true},
		{"masquerading", "uci delete firewall.@zone[2].masq", "zone-masq", "", true},
		{"MSS clamping", "uci delete firewall.@zone[2].mtu_fix", "zone-mtu", "", true},
		{"VPN to lan", "uci delete firewall.@forwarding[1]", "forwarding", "", false},
		{"the NAT rule", "uci delete firewall.@nat[0]", "nat", "", true},
		{"the port forward", "uci delete firewall.@redirect[0]", "redirect", "", false},
		{"the key files", "rm /root/wg.sec", "key-file", "", true},
		{"wg-installer-server", "opkg remove wg-installer-server", "wg-installer", "", true},
		{"its login", "uci delete rpcd.@login[0]", "wg-installer-login", "", true},
		{"its cron job", "sed -i /wginstaller/d /etc/crontabs/root", "wg-installer-cron", "", true},
		{"qrencode", "opkg remove qrencode", "package", "qrencode", true},
		{"luci-app-wireguard", "opkg remove luci-app-wireguard", "package", "luci-app-wireguard", true},
	}
	h := newHandmade(t, world.Options{Line: router.Line2203}, firstManual)
	v := h.adopt()
	was, stale := map[string]string{}, false
	for _, name := range []string{"network", "firewall", "rpcd"} {
		text, err := h.w.Router.ReadFile("/etc/config/" + name)
		if err != nil {
			t.Fatal(err)
		}
		was[name] = text
	}
	for _, r := range rows {
		if r.code != "" {
			i := slices.IndexFunc(v.Parts, func(p adopt.Part) bool { return p.Code == r.code && strings.Contains(p.What, r.what) })
			if i < 0 {
				t.Errorf("%s is not named", r.name)
			} else if got := v.Parts[i].Verdict; (got == adopt.Needed) != !r.reaches {
				t.Errorf("%s is called %s; the phone reaches the NAS without it: %v", r.name, got, r.reaches)
			}
		}
		h.sh("set -e; " + r.script + "; uci commit")
		touches := strings.Contains(r.script, "network.") || strings.Contains(r.script, "firewall.")
		if touches || stale { // nothing else is read by what is up
			h.restart()
		}
		stale = touches
		h.reaches(r.reaches, "without "+r.name)
		for name, text := range was {
			if err := h.w.Router.WriteFile("/etc/config/"+name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// luci is a tunnel as LuCI makes it on 23.05 and later, in a zone of the name that
// heimweg uses, with the devices' keys kept for their QR codes, and a way from the
// home LAN to the devices.
const luci = `set -e
uci set network.wg0=interface
uci set network.wg0.proto='wireguard'
uci set network.wg0.private_key="$(wg genkey)"
uci set network.wg0.listen_port='51820'
uci add_list network.wg0.addresses='10.14.0.1/24'
uci set network.wg0.mtu='1400'
uci add network wireguard_wg0 >/dev/null
uci set network.@wireguard_wg0[-1].description="Anna's Phone"
uci set network.@wireguard_wg0[-1].public_key='PHONE'
uci set network.@wireguard_wg0[-1].private_key='SECRET'
uci set network.@wireguard_wg0[-1].preshared_key='SHARED'
uci add_list network.@wireguard_wg0[-1].allowed_ips='10.14.0.2'
uci set network.@wireguard_wg0[-1].persistent_keepalive='25'
uci add network wireguard_wg0 >/dev/null
uci set network.@wireguard_wg0[-1].public_key='LAPTOP'
uci set network.@wireguard_wg0[-1].disabled='1'
uci add_list network.@wireguard_wg0[-1].allowed_ips='10.14.0.3/32'
uci add firewall zone >/dev/null
uci set firewall.@zone[-1].name='vpn'
uci set firewall.@zone[-1].input='ACCEPT'
uci set firewall.@zone[-1].output='ACCEPT'
uci set firewall.@zone[-1].forward='ACCEPT'
uci add_list firewall.@zone[-1].network='wg0'
uci add firewall forwarding >/dev/null
uci set firewall.@forwarding[-1].src='vpn'
uci set firewall.@forwarding[-1].dest='lan'
uci add firewall forwarding >/dev/null
uci set firewall.@forwarding[-1].src='vpn'
uci set firewall.@forwarding[-1].dest='wan'
uci add firewall forwarding >/dev/null
uci set firewall.@forwarding[-1].src='lan'
uci set firewall.@forwarding[-1].dest='vpn'
uci add firewall rule >/dev/null
uci set firewall.@rule[-1].name='Allow-WG'
uci set firewall.@rule[-1].src='wan'
uci add_list firewall.@rule[-1].proto='udp'
uci set firewall.@rule[-1].dest_port='51820'
uci set firewall.@rule[-1].target='ACCEPT'
uci commit
`

const (
	withOpkg = "opkg update >/dev/null; opkg install wireguard-tools >/dev/null\n"
	withApk  = "apk update >/dev/null; apk add ip-tiny wireguard-tools >/dev/null\n"
)

// Other ways to set a gateway up, each moved with the phone in it.
func TestAdoptSetups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, recipe string
		opt          world.Options
		apply        []string
		parts        map[string]adopt.Verdict
		note         string
		check        func(t *testing.T, h *handmade, w home.Home)
	}{
		{"LuCI's on 24.10", withOpkg + luci, world.Options{Line: router.Line2410}, []string{"--accept-risk=forgets-keys"},
			map[string]adopt.Verdict{"peer-private-key": adopt.Unsafe, "zone-forward": adopt.Unsafe, "rule": adopt.Needed}, "do not reach each other", luciCheck},
		{"LuCI's on 25.12", withApk + luci, world.Options{Line: router.Line2512}, []string{"--accept-risk=forgets-keys"},
			map[string]adopt.Verdict{"peer-private-key": adopt.Unsafe}, "", luciCheck},
		{"one-armed with a NAT rule", withOpkg + oneArmedRecipe, world.Options{Line: router.Line2410, Uplink: home.OneArmed}, nil,
			map[string]adopt.Verdict{"nat": adopt.Needed, "forwarding": adopt.Needed}, "",
			func(t *testing.T, _ *handmade, w home.Home) {
				if w.Uplink.Kind != home.OneArmed || !w.Reach.HomeLAN || !w.Reach.NATToLAN {
					t.Errorf("%+v", w)
				}
			}},
		{"another port outside, on 21.02", withOpkg + otherPortRecipe, world.Options{Line: router.Line2102}, nil,
			map[string]adopt.Verdict{"redirect": adopt.Needed, "rule": adopt.Redundant}, "",
			func(t *testing.T, h *handmade, _ home.Home) {
				out, _, _ := h.w.Router.Sh("uci show firewall | grep redirect; uci show firewall | grep mine")
				if !strings.Contains(out, "redirect[0].dest='vpn'") || !strings.Contains(out, "mine.src='vpn'") {
					t.Errorf("what home.toml has no word for did not stay:\n%s", out)
				}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHandmade(t, c.opt, c.recipe)
			h.reaches(true, "as it was set up")
			v := h.adopt("--endpoint", world.EndpointName)
			for code, verdict := range c.parts {
				if !hasPart(v, code, verdict, "") {
					t.Errorf("%s is not named %s:\n%+v", code, verdict, v.Parts)
				}
			}
			if !strings.Contains(strings.Join(v.Notes, "\n"), c.note) {
				t.Errorf("notes: %v", v.Notes)
			}
			if len(c.apply) > 0 {
				if code, _, said := h.heimweg("apply", "--yes"); code != 4 || !strings.Contains(said, c.apply[0]) {
					t.Errorf("keys went without being asked for: exit code %d\n%s", code, said)
				}
			}
			h.move(c.apply...)
			f, err := home.Parse("home.toml", []byte(h.read("home.toml")))
			if err != nil {
				t.Fatal(err)
			}
			c.check(t, h, f.Home)
		})
	}
}

func luciCheck(t *testing.T, h *handmade, w home.Home) {
	if len(w.Peers) != 2 || w.Peers[0].Name != "annas-phone" || !w.Peers[0].Preshared || w.Peers[1].Name != "device-3" || !w.Peers[1].Disabled ||
		w.Tunnel.MTU != 1400 || !w.Reach.Internet || !w.Reach.UplinkLAN {
		t.Errorf("%+v", w)
	}
	out, _, _ := h.w.Router.Sh("uci show network; uci show firewall")
	if strings.Contains(out, h.phone.Reveal()) || !strings.Contains(out, h.psk) || !strings.Contains(out, "forwarding[1].dest='vpn'") {
		t.Errorf("after the move:\n%s", out)
	}
}

const oneArmedRecipe = `set -e
uci set network.home_vpn=interface
uci set network.home_vpn.proto='wireguard'
uci set network.home_vpn.private_key="$(wg genkey)"
uci set network.home_vpn.listen_port='51999'
uci set network.home_vpn.addresses='10.9.0.1/24'
uci add network wireguard_home_vpn >/dev/null
uci set network.@wireguard_home_vpn[-1].public_key='PHONE'
uci set network.@wireguard_home_vpn[-1].allowed_ips='10.9.0.2/32'
uci set firewall.tun=zone
uci set firewall.tun.name='tun'
uci set firewall.tun.network='home_vpn'
uci set firewall.tun.input='REJECT'
uci set firewall.tun.output='ACCEPT'
uci set firewall.tun.forward='REJECT'
uci set firewall.tun2lan=forwarding
uci set firewall.tun2lan.src='tun'
uci set firewall.tun2lan.dest='lan'
uci set firewall.hide=nat
uci set firewall.hide.name='hide'
uci set firewall.hide.src='lan'
uci set firewall.hide.src_ip='10.9.0.0/24'
uci set firewall.hide.dest_ip='192.168.2.0/24'
uci set firewall.hide.target='MASQUERADE'
uci set firewall.hide.proto='all'
uci commit
`

// otherPortRecipe: devices call port 443, which a port forward sends to the
// tunnel's own; and a rule of the household's for the tunnel's zone.
const otherPortRecipe = `set -e
uci set network.WG=interface
uci set network.WG.proto='wireguard'
uci set network.WG.private_key="$(wg genkey)"
uci set network.WG.listen_port='51820'
uci set network.WG.addresses='10.9.0.1/24'
uci add network wireguard_WG >/dev/null
uci set network.@wireguard_WG[-1].public_key='PHONE'
uci set network.@wireguard_WG[-1].allowed_ips='10.9.0.2/32'
uci add firewall zone >/dev/null
uci set firewall.@zone[-1].name='road'
uci set firewall.@zone[-1].network='WG'
uci set firewall.@zone[-1].input='REJECT'
uci set firewall.@zone[-1].output='ACCEPT'
uci set firewall.@zone[-1].forward='REJECT'
uci add firewall forwarding >/dev/null
uci set firewall.@forwarding[-1].src='road'
uci set firewall.@forwarding[-1].dest='lan'
uci add firewall redirect >/dev/null
uci set firewall.@redirect[-1].name='https'
uci set firewall.@redirect[-1].proto='udp'
uci set firewall.@redirect[-1].src='wan'
uci set firewall.@redirect[-1].src_dport='443'
uci set firewall.@redirect[-1].dest='road'
uci set firewall.@redirect[-1].dest_ip='10.9.0.1'
uci set firewall.@redirect[-1].dest_port='51820'
uci set firewall.@redirect[-1].target='DNAT'
uci set firewall.mine=rule
uci set firewall.mine.name='mine'
uci set firewall.mine.src='road'
uci set firewall.mine.proto='tcp'
uci set firewall.mine.dest_port='8080'
uci set firewall.mine.target='ACCEPT'
uci commit
`
