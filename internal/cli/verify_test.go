package cli

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/verify"
)

// verify runs heimweg on the laptop, wherever it sits.
func (h *house) verify(args ...string) (code int, res verify.Result, said string) {
	h.t.Helper()
	if err := h.w.Laptop.WaitAddress(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	var o, e bytes.Buffer
	env := Env{In: strings.NewReader(""), Out: &o, Err: &e, Terminal: tourTerminal{}, Dial: h.w.LaptopDial, ListenUDP: laptopUDP(h.w), Lookup: labLookup(h.w),
		Config: h.file("config"), Getenv: func(string) string { return "" }, Upstream: h.upstream, AtHome: h.here()}
	code = Run(h.t.Context(), env, append([]string{"--home", h.file("home.toml"), "verify", "--json"}, args...))
	if o.Len() > 0 {
		if err := json.Unmarshal(o.Bytes(), &res); err != nil {
			h.t.Fatalf("exit code %d, %v\n%s%s", code, err, o.String(), e.String())
		}
	}
	return code, res, o.String() + e.String()
}

// here is the laptop's place.
func (h *house) here() Vantage {
	return Vantage{
		Bind: func() conn.Bind { return h.w.LaptopBind() },
		Networks: func() (list []netip.Prefix, err error) {
			for _, i := range h.w.Laptop.Ifaces() {
				list = append(list, i.Addrs...)
			}
			return list, nil
		},
	}
}

func verdicts(r verify.Result) string {
	var out []string
	for _, h := range r.Hops {
		out = append(out, h.ID+" "+string(h.Verdict))
	}
	return strings.Join(out, ", ")
}

// Where the laptop sits decides what the test can show, and it claims no more: in
// the home LAN it does not pass the home router's door; in the uplink LAN it passes
// that and not the ISP router.
func TestVerifyByPlace(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{})
	wan, _ := h.w.RouterWAN()
	code, res, said := h.verify()
	if got, want := verdicts(res), "isp-router not-shown, door not-shown, handshake shown, router shown, dns shown, lan shown"; code != 0 || res.Vantage != verify.Inside || res.Endpoint.String() != "192.168.1.1:51820" || got != want {
		t.Errorf("at home: exit code %d, %s to %s: %s\n%s", code, res.Vantage, res.Endpoint, got, said)
	}
	// From the uplink LAN the router's SSH is closed, as OpenWrt ships it: that is
	// what heimweg says. The household then opens it for that network.
	h.w.Laptop.OnUplink()
	if code, _, said := h.verify("--router", wan.String()); code != 5 || !strings.Contains(said, wan.String()) {
		t.Errorf("behind a closed port: exit code %d\n%s", code, said)
	}
	h.sh("uci set firewall.mine=rule; uci set firewall.mine.name=SSH-from-uplink; uci set firewall.mine.src=wan; uci set firewall.mine.src_ip=192.168.2.0/24; uci set firewall.mine.proto=tcp; uci set firewall.mine.dest_port=22; uci set firewall.mine.target=ACCEPT" + firewallReload)
	code, res, said = h.verify("--router", wan.String())
	if got, want := verdicts(res), "isp-router not-shown, door shown, handshake shown, router shown, dns shown, lan shown"; code != 0 || res.Vantage != verify.Uplink || res.Endpoint.Addr() != wan || got != want {
		t.Errorf("in the uplink LAN: exit code %d, %s to %s: %s\n%s%s", code, res.Vantage, res.Endpoint, got, said, h.w.WhereDied(nil))
	}
	if next := res.Hop(verify.HopISP).Next; !strings.Contains(next, "--from-outside") {
		t.Errorf("and then: %q", next)
	}
	// The door is shut: from here the test fails, and the record says that it was the
	// door; that nothing arrived at the tunnel is all that heimweg can tell.
	h.sh("uci delete firewall.hw_wg_in" + firewallReload)
	code, res, said = h.verify("--router", wan.String())
	if got, want := verdicts(res), "isp-router not-shown, door not-shown, handshake broken, router not-shown, lan not-shown"; code != 3 || got != want || !strings.Contains(said, "nothing of it arrived at the tunnel") {
		t.Errorf("with the door shut: exit code %d: %s\n%s", code, got, said)
	}
	if died := h.w.WhereDied(func(p lab.Packet) bool { return p.Proto == lab.UDP && p.DstPort == 51820 }); !strings.Contains(died, world.RouterName) {
		t.Errorf("the test's packets died elsewhere:\n%s", died)
	}
	h.w.Laptop.AtHome()
	if code, res, said := h.verify(); code != 0 {
		t.Errorf("at home with the door shut: exit code %d: %s\n%s", code, verdicts(res), said)
	}
	if out, _, _ := h.w.Router.Sh("wg show wg0 peers | wc -l"); strings.TrimSpace(out) != "2" {
		t.Errorf("%s peers on the router: the test's own is still there", strings.TrimSpace(out))
	}
}
