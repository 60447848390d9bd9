package cli

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/router"
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
	iface         string
	port          int
	network       string // "192.168.20"
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
	h := &handmade{house: &house{t: t, w: w, dir: t.TempDir()}, iface: "WG0", port: 51902, network: "192.168.20"}
	h.phone, h.laptop = newKey(t), newKey(t)
	h.settle()
	h.sh(strings.NewReplacer("PHONE", h.phone.Public().String(), "LAPTOP", h.laptop.Public().String()).Replace(recipe))
	h.restart()
	if err := w.MapPort(uint16(h.port)); err != nil {
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
	return fmt.Sprintf("[Interface]\nPrivateKey=%s\nAddress=%s.2/32\nMTU=1400\n[Peer]\nEndpoint=%s:%d\nPublicKey=%s\nAllowedIPs=%s.0/24, 192.168.1.0/24\n",
		h.phone.Reveal(), h.network, world.EndpointName, h.port, h.server(), h.network)
}

func TestAdopt(t *testing.T) {
	h := newHandmade(t, world.Options{Line: router.Line2203}, firstManual)
	t.Log(h.w.Router.Unknown())
	code, out, said := h.heimweg("--router", h.addr(), "adopt")
	t.Logf("%d\n%s\n%s", code, out, said)
	t.Log(h.read("home.toml"))
	code, out, said = h.heimweg("plan")
	t.Logf("%d\n%s\n%s", code, out, said)
	h.sh("opkg remove wg-installer-server")
	code, out, said = h.heimweg("apply", "--yes")
	t.Logf("%d\n%s\n%s", code, out, said)
	code, out, said = h.heimweg("plan")
	t.Logf("%d\n%s\n%s", code, out, said)
}
