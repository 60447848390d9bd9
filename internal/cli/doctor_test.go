package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/doctor"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
)

// doctor runs heimweg on the laptop in the home LAN.
func (h *house) doctor(args ...string) (code int, out, said string) {
	h.t.Helper()
	var o, e bytes.Buffer
	env := Env{In: strings.NewReader(""), Out: &o, Err: &e, Terminal: tourTerminal{}, Dial: h.w.LaptopDial, ListenUDP: laptopUDP(h.w), Lookup: labLookup(h.w),
		Config: h.file("config"), Getenv: func(string) string { return "" }, Upstream: h.upstream, AtHome: atHome(h.w)}
	if h.silentISP {
		env.Upstream = nil
	}
	before := h.w.Router.Stats().Execs
	code = Run(h.t.Context(), env, append([]string{"--home", h.file("home.toml"), "doctor"}, args...))
	h.trips = h.w.Router.Stats().Execs - before
	return code, o.String(), e.String()
}

// atHome is the laptop's place.
func atHome(w *world.World) Vantage {
	return Vantage{
		Bind: func() conn.Bind { return w.LaptopBind() },
		Networks: func() ([]netip.Prefix, error) {
			var out []netip.Prefix
			for _, i := range w.Laptop.Ifaces() {
				out = append(out, i.Addrs...)
			}
			return out, nil
		},
	}
}

// report is what the doctor found, as a stranger may see it: first, and, with --fix,
// after it was put right.
func (h *house) report(args ...string) (first, last doctor.Report, said string) {
	h.t.Helper()
	code, out, said := h.doctor(append([]string{"--json"}, args...)...)
	if strings.Contains(out, world.EndpointName) || strings.Contains(out, "203.0.113.") || strings.Contains(out, "198.51.100.") {
		h.t.Errorf("shown to strangers:\n%s", out)
	}
	var all []doctor.Report
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var r doctor.Report
		if err := d.Decode(&r); err != nil {
			h.t.Fatalf("exit code %d, %v\n%s%s", code, err, out, said)
		}
		if r.Verdict != "" { // else it is what was applied
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		h.t.Fatalf("exit code %d, no report\n%s%s", code, out, said)
	}
	first, last = all[0], all[len(all)-1]
	if want := map[bool]int{true: 0, false: 3}[len(last.Findings) == 0]; code != want {
		h.t.Errorf("%+v, and exit code %d\n%s", last.Findings, code, said)
	}
	return first, last, said
}

// Where all is well, all is looked at: in four round trips, on every release and
// wherever the box sits. Old releases are named for what they are.
func TestDoctorHealthy(t *testing.T) {
	worlds := map[string]world.Options{"one-armed": {Uplink: home.OneArmed, Hairpin: true}, "direct": {Uplink: home.Direct}}
	for i, line := range router.Lines() {
		if i > 0 && i < len(router.Lines())-1 && !need.Long() {
			continue
		}
		worlds[line.String()] = world.Options{Line: line, Hairpin: true}
	}
	for name, o := range worlds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.IGD = &igd.Options{UPnP: 2}
			if o.Uplink == home.Direct {
				o.IGD = nil
			}
			h := newHouse(t, o)
			r, _, said := h.report()
			old := o.Line != router.Line{} && o.Line.Before(router.Line2410)
			if findings := r.Findings; len(findings) > 0 && (!old || len(findings) > 1 || findings[0].Rule != "release") || old != (len(findings) == 1) {
				t.Errorf("%+v\n%s", findings, said)
			}
			if len(r.Explained)+len(r.NotTested) > 0 {
				t.Errorf("%+v\nnot tested: %+v\n%s", r.Explained, r.NotTested, said)
			}
			if h.trips > 4 {
				t.Errorf("%d round trips", h.trips)
			}
			t.Logf("%d ruled out, %d moot, %d round trips", len(r.RuledOut), len(r.Moot), h.trips)
			if unknown := h.w.Router.Unknown(); len(unknown) > 0 {
				t.Errorf("the router does not have %v", unknown)
			}
		})
	}
}

// A sick home: one that is healthy but for one thing.
type sick struct {
	name  string
	do    func(h *house)
	rule  doctor.ID
	kind  doctor.Kind
	heals func(h *house) // what the person does, where no command heals it
}

func onBox(script string) func(*house) { return func(h *house) { h.sh(script) } }

// sickHomes are homes that are broken and healed in turn; those of one group share a
// house.
func sickHomes() map[string][]sick {
	fix := doctor.Plan
	own := func(options string) func(*house) {
		return onBox("uci batch <<EOF\nset firewall.own=rule\n" + options + "\nEOF\nuci reorder firewall.own=3" + firewallReload)
	}
	gone := onBox("uci delete firewall.own" + firewallReload)
	isp := func(change func(w *world.World)) func(*house) { return func(h *house) { change(h.w) } }
	mapHome := isp(func(w *world.World) { _ = w.MapPort(home.DefaultPort) })
	return map[string][]sick{
		"firewall": {
			{"no rule on the WAN side", onBox("uci delete firewall.hw_wg_in" + firewallReload), "door", fix, nil},
			{"rule for another port", onBox("uci set firewall.hw_wg_in.dest_port=51821" + firewallReload), "door", fix, nil},
			{"tunnel in no zone", onBox("uci delete firewall.hw_zone.network" + firewallReload), "zone", fix, nil},
			{"no forwarding", onBox("uci delete firewall.hw_fwd_lan" + firewallReload), "forwarding", fix, nil},
			{"no names", onBox("uci delete firewall.hw_dns" + firewallReload), "dns-port", fix, nil},
			{"own rule drops the port", own("set firewall.own.src=wan\nset firewall.own.proto=udp\nset firewall.own.dest_port=51820\nset firewall.own.target=DROP"), "door", doctor.OnRouter, gone},
			{"own rule refuses the NAS", own("set firewall.own.src=vpn\nset firewall.own.dest=lan\nset firewall.own.proto=tcp\nset firewall.own.target=REJECT"), "own-rule", doctor.OnRouter, gone},
			{"SSH open to the outside", own("set firewall.own.src=wan\nset firewall.own.proto=tcp\nset firewall.own.dest_port=22\nset firewall.own.target=ACCEPT"), "exposed", doctor.OnRouter, gone},
			{"ping inside was forbidden", onBox("uci delete firewall.hw_ping" + firewallReload), "router-inside", fix, nil},
			{"the name service is limited", onBox("uci add_list dhcp.@dnsmasq[0].notinterface=wg0; uci commit dhcp"), "dns-interface", doctor.OnRouter, nil},
		},
		"tunnel": {
			{"in the file, not live", onBox("wg set wg0 peer $(uci get network.hw_peer_phone.public_key) remove"), "device-live", fix, nil},
			{"switched off on the router", onBox("uci set network.hw_peer_phone.disabled=1" + tunnelAgain), "device-on", fix, nil},
			{"the tablet took the phone's address", onBox("uci add_list network.hw_peer_tablet.allowed_ips=$(uci get network.hw_peer_phone.allowed_ips | cut -d' ' -f1)" + tunnelAgain), "device-address", fix, nil},
			{"deleted on the router", onBox("uci delete network.hw_peer_phone" + tunnelAgain), "device-known", doctor.Command, nil},
			{"tunnel down", onBox("ifdown wg0"), "tunnel-up", fix, nil},
			{"tunnel on another port", onBox("uci set network.wg0.listen_port=51821" + tunnelAgain), "tunnel-port", fix, nil},
			{"a /32", func(h *house) {
				h.sh("uci delete network.wg0.addresses; uci add_list network.wg0.addresses=" + h.tunnelAddr(1).String() + "/32" + tunnelAgain)
			}, "tunnel-address", fix, nil},
			{"a stranger in the running tunnel", onBox("wg set wg0 peer $(wg genkey | wg pubkey) allowed-ips 10.99.99.9/32"), "strangers", fix, nil},
			{"the file has another key", onBox("cp /etc/config/network /tmp/n; uci set network.wg0.private_key=$(wg genkey); uci commit network"), "tunnel-key", doctor.OnRouter, onBox("cp /tmp/n /etc/config/network; ifup wg0")},
			{"small packets only", onBox("uci set network.wg0.mtu=1280" + tunnelAgain), "mtu", doctor.Setting, nil},
		},
		"around": {
			{"no mapping", isp(func(w *world.World) { w.ISP.Unmap("udp", home.DefaultPort) }), "mapping", doctor.ByHand, mapHome},
			{"mapped to another box", isp(func(w *world.World) {
				w.ISP.Map("udp", home.DefaultPort, netip.MustParseAddrPort("192.168.2.17:51820"))
			}), "mapping-target", doctor.ByHand, mapHome},
			{"the name leads elsewhere", isp(func(w *world.World) { w.Name(world.EndpointName, netip.MustParseAddr("203.0.113.99")) }), "endpoint-stale", doctor.ByHand,
				isp(func(w *world.World) { w.Name(world.EndpointName, world.Public.Addr()) })},
			{"staged changes", onBox("uci set network.wan.metric=7"), "other-writer", doctor.OnRouter, nil},
			{"key readable", onBox("chmod 644 /etc/config/network"), "key-file", doctor.OnRouter, nil},
			{"no password", onBox("sed -i 's/^root:[^:]*:/root::/' /etc/shadow"), "password", fix, nil},
			{"a timed job of the harmful package", onBox("echo '*/10 * * * * /usr/share/wginstaller/wg.sh cleanup_wginterfaces' >>/etc/crontabs/root"), "harmful-job", doctor.OnRouter, nil},
			{"WAN unplugged", onBox("ifdown wan"), "wan", doctor.ByHand, func(h *house) { h.sh("ifup wan"); h.ready() }},
		},
	}
}

// ready waits until the home is settled.
func (h *house) ready() {
	h.t.Helper()
	if err := h.w.WaitReady(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// Each sick home has its first finding; its remedy, carried out as it is written,
// heals it; and nothing that a stranger could use is shown.
func TestDoctorSickHomes(t *testing.T) {
	for group, list := range sickHomes() {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, world.Options{IGD: &igd.Options{UPnP: 2}})
			for i, s := range list {
				if i%2 == 1 && !need.Long() {
					continue
				}
				h.t = t
				s.do(h)
				h.treat(s)
			}
			if unknown := h.w.Router.Unknown(); len(unknown) > 0 {
				t.Errorf("the router does not have %v", unknown)
			}
		})
	}
}

// treat looks, does what the remedy says, and looks again.
func (h *house) treat(s sick) {
	h.t.Helper()
	var args []string
	if s.kind == doctor.Plan || s.kind == doctor.Setting {
		args = []string{"--fix", "--yes", "--accept-risk=drops-peers,pauses-network,drops-connection"}
	}
	r, again, said := h.report(args...)
	if len(args) == 0 && h.trips > 4 {
		h.t.Errorf("%s: %d round trips", s.name, h.trips)
	}
	if len(r.Findings) == 0 || r.Findings[0].Rule != s.rule || len(r.Findings[0].Remedies) == 0 || r.Findings[0].Remedies[0].Kind != s.kind {
		h.t.Fatalf("%s: not %s by %s: %+v\nnot tested: %+v\n%s", s.name, s.rule, s.kind, r.Findings, r.NotTested, said)
	}
	do := r.Findings[0].Remedies[0].Do
	switch s.kind {
	case doctor.OnRouter:
		h.sh(strings.TrimPrefix(do, "on the home router: "))
	case doctor.Command:
		h.must(append(strings.Fields(do)[1:], "-o", h.file("again.conf"))...)
	}
	if s.heals != nil {
		s.heals(h)
	}
	if len(args) == 0 {
		again, _, said = h.report()
	}
	if len(again.Findings) > 0 {
		h.t.Fatalf("%s: after %q: %+v\n%s", s.name, do, again.Findings, said)
	}
}

// A box without power, one without SSH, one that was flashed anew: found out without
// a single look at it.
func TestDoctorOutside(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{})
	find := func(rule doctor.ID) {
		t.Helper()
		r, _, said := h.report()
		if len(r.Findings) != 1 || r.Findings[0].Rule != rule {
			t.Errorf("not %s: %+v\n%s", rule, r.Findings, said)
		}
	}
	pins := h.read("config/known_routers")
	key := h.w.Router.HostKey()
	blob := strings.Fields(key)[1]
	other := blob[:len(blob)-4] + "AAAA"
	h.edit("config/known_routers", blob, other)
	find("host-key")
	h.edit("config/known_routers", other, blob)
	if h.read("config/known_routers") != pins {
		t.Fatal("the pins are not as before")
	}
	h.sh("/etc/init.d/dropbear stop")
	find("ssh")
	h.sh("/etc/init.d/dropbear start")
	h.w.Router.PowerCut()
	find("power")
	h.w.Laptop.Configure([]lab.Iface{{Dev: "eth0", Link: h.w.Hotel, Addrs: []netip.Prefix{netip.MustParsePrefix("198.18.5.40/24")}}}, nil)
	find("cable")
}

// Doctor, trace, plan and status only look: a change that was begun and not confirmed
// is named, and its marker and files stay as they are until somebody asks for more.
func TestLookingLeavesHalfAChange(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{IGD: &igd.Options{UPnP: 2}})
	const state = "cat /etc/heimweg/pending; ls /etc/heimweg; sha256sum /etc/config/* /etc/heimweg/undo/*"
	h.sh(`mkdir -p /etc/heimweg/undo; cp /etc/config/firewall /etc/heimweg/undo/firewall; echo firewall >/etc/heimweg/undo/manifest; : >/etc/heimweg/undo/reload
echo '# half a change' >>/etc/config/firewall
printf 'run7 %s 120\n' "$(date +%s)" >/etc/heimweg/pending`)
	before, _, _ := h.w.Router.Sh(state)
	for _, args := range [][]string{nil, {"--full"}} {
		r, _, said := h.report(args...)
		if len(r.Findings) != 1 || r.Findings[0].Rule != "unfinished" || !strings.Contains(strings.Join(r.Findings[0].Seen, " "), "run run7, begun ") {
			t.Errorf("%+v\n%s", r.Findings, said)
		}
		if after, _, _ := h.w.Router.Sh(state); after != before || !strings.Contains(after, "run7") {
			t.Errorf("the router was\n%s\nand is\n%s", before, after)
		}
	}
	if got := h.trace("phone", "192.168.1.10:445"); !slices.ContainsFunc(got.Notes, func(n string) bool { return strings.Contains(n, "not confirmed yet") }) {
		t.Errorf("trace notes %q", got.Notes)
	}
	for _, name := range []string{"plan", "status"} {
		if code, out, said := h.heimweg(name); code != 0 || !strings.Contains(out, "neither confirmed nor taken back") {
			t.Errorf("heimweg %s: exit code %d\n%s%s", name, code, out, said)
		}
	}
	if after, _, _ := h.w.Router.Sh(state); after != before {
		t.Errorf("after trace, plan and status the router is\n%s", after)
	}
	_, again, said := h.report("--fix", "--yes")
	if after, _, _ := h.w.Router.Sh(state); len(again.Findings) > 0 || strings.Contains(after, "run7") {
		t.Errorf("%+v\n%s\n%s", again.Findings, after, said)
	}
	if text, _, _ := h.w.Router.Sh("cat /etc/config/firewall"); strings.Contains(text, "half a change") {
		t.Error("the old settings did not come back")
	}
}

// A list by UPnP need not be whole, so a port that is not in it is not known; but what
// heimweg opened itself did stand there. After the ISP router's restart it does not,
// which the doctor says, and its remedy opens it again.
func TestDoctorForgottenMapping(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{IGD: &igd.Options{UPnP: 2}})
	h.silentISP = true // it is asked for real
	h.w.ISP.Unmap("udp", home.DefaultPort)
	if r, _, said := h.report(); len(r.Findings) > 0 || !slices.ContainsFunc(r.NotTested, func(c doctor.Check) bool { return c.Rule == "mapping" }) {
		t.Errorf("with nothing opened: %+v\n%s", r.Findings, said)
	}
	h.must("up", "--yes")
	if r, _, said := h.report(); len(r.Findings) > 0 {
		t.Fatalf("with an open port: %+v\n%s", r.Findings, said)
	}
	h.w.IGD.Restart()
	r, _, said := h.report()
	if len(r.Findings) == 0 || r.Findings[0].Rule != "mapping" || len(r.Findings[0].Remedies) != 1 || r.Findings[0].Remedies[0].Do != "heimweg up" ||
		!strings.Contains(strings.Join(r.Findings[0].Seen, " "), "it has restarted since") {
		t.Fatalf("%+v\nnot tested: %+v\n%s", r.Findings, r.NotTested, said)
	}
	h.must("up", "--yes")
	if r, _, said := h.report(); len(r.Findings) > 0 {
		t.Errorf("after heimweg up: %+v\n%s", r.Findings, said)
	}
}

// A real phone comes home while somebody watches; with an old configuration it is
// said how far it comes.
func TestDoctorWatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t, world.Options{})
	old := h.read("phone.conf")
	h.must("peer", "renew", "phone", "-o", h.file("new.conf"))

	watch := func(conf string, want doctor.Stage) {
		t.Helper()
		ctx, stop := context.WithTimeout(t.Context(), 40*time.Second)
		defer stop()
		pipe, out := io.Pipe()
		done := make(chan int, 1)
		go func() {
			env := Env{In: strings.NewReader(""), Out: out, Err: io.Discard, Terminal: tourTerminal{}, Dial: h.w.LaptopDial, Lookup: labLookup(h.w),
				Config: h.file("config"), Getenv: func(string) string { return "" }}
			code := Run(ctx, env, []string{"--home", h.file("home.toml"), "doctor", "--watch", "--json"})
			out.Close()
			done <- code
		}()
		var seen []doctor.Stage
		for d := json.NewDecoder(pipe); ; {
			var s doctor.Step
			if d.Decode(&s) != nil {
				break
			}
			if len(seen) == 0 { // it watches: now the phone is switched on
				if err := h.w.Phone.Join(conf); err != nil {
					t.Error(err)
				}
				defer h.w.Phone.KeepPinging(h.w.NAS.Addr(), 200*time.Millisecond).Stop()
			}
			if strings.Contains(s.Says, "198.51.100") {
				t.Errorf("shown to strangers: %s", s.Says)
			}
			seen = append(seen, s.Stage)
			if s.Stage == want && want != doctor.Home {
				stop()
			}
		}
		if code := <-done; code != 0 || !slices.Contains(seen, want) {
			t.Errorf("exit code %d, saw %v, want %s\n%s", code, seen, want, h.w.WhereDied(nil))
		}
		h.w.Phone.Leave()
	}
	watch(old, doctor.Rejected)

	// Without watching it is found out, too, while the phone goes on trying.
	if err := h.w.Phone.Join(old); err != nil {
		t.Fatal(err)
	}
	pings := h.w.Phone.KeepPinging(h.w.NAS.Addr(), 200*time.Millisecond)
	r, _, said := h.report()
	if len(r.Findings) != 1 || r.Findings[0].Rule != "unknown-key" {
		t.Errorf("%+v\n%s", r.Findings, said)
	}
	pings.Stop()
	h.w.Phone.Leave()

	watch(h.read("new.conf"), doctor.Home)
}

// What the provider does is named: one address for many, a second router, none at all.
func TestDoctorAddresses(t *testing.T) {
	for name, upstream := range map[string]world.Upstream{"carrier NAT": world.CGNAT, "double NAT": world.DoubleNAT, "DS-Lite": world.DSLite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, world.Options{Upstream: upstream, IGD: &igd.Options{UPnP: 2}})
			r, _, said := h.report()
			if len(r.Findings) == 0 || r.Findings[0].Rule != "address" {
				t.Errorf("%+v\nnot tested: %+v\n%s", r.Findings, r.NotTested, said)
			}
		})
	}
}

// What was tried to get in is a sentence.
func TestDoctorDenied(t *testing.T) {
	a := &app{router: "192.168.1.1"}
	l, err := a.stuck(&shell.AuthError{Tried: []string{"none", "key SHA256:abc", "password"}})
	if err != nil || l.Stuck != doctor.Denied || l.Why != "tried none, key SHA256:abc, password" {
		t.Errorf("%+v, %v", l, err)
	}
}
