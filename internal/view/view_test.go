package view_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/verify"
	"github.com/heimweg/heimweg/internal/view"
)

var plain view.Style

func TestPlan(t *testing.T) {
	h := parseHome(t, sample)
	access := blueprint.Access{Key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0v me@laptop", Password: true}
	var got []txtar.File
	show := func(name string, h home.Home, s *router.Snapshot, a blueprint.Access, all bool) {
		p, _ := plan.For(h, s, a)
		f := part(name, func(b *bytes.Buffer) { view.Plan(b, plain, p, all) })
		noSecret(t, name, string(f.Data))
		got = append(got, f)
	}
	show("fresh", h, fresh(t), access, false)
	show("fresh, everything", h, fresh(t), access, true)
	show("nothing to do", h, settled(t, h), blueprint.Access{}, false)

	more := parseHome(t, strings.Replace(sample, "disabled = true\n", "", 1)+"\n[[peer]]\nname = \"tv\"\npublic-key = \""+testKey(4).Public().String()+"\"\naddress = \"10.86.20.4\"\n")
	show("a peer comes, another is enabled", more, settled(t, h), blueprint.Access{}, false)
	less := parseHome(t, sample[:strings.Index(sample, "[[peer]]\nname = \"laptop\"")])
	show("a peer goes", less, settled(t, h), blueprint.Access{}, false)
	port := parseHome(t, strings.Replace(sample, "port = 51820", "port = 51821", 1))
	show("another port", port, settled(t, h), blueprint.Access{}, true)

	drift := settled(t, h)
	put(t, drift, "firewall", bytes.Replace(drift.Configs["firewall"].Text(), []byte("option forward 'REJECT'\n\toption mtu_fix"), []byte("option forward 'ACCEPT'\n\toption mtu_fix"), 1))
	if drift.Hashes["firewall"] == settled(t, h).Hashes["firewall"] {
		put(t, drift, "network", bytes.Replace(drift.Configs["network"].Text(), []byte("'51820'"), []byte("'51999'"), 1))
	}
	show("somebody changed the router", h, drift, blueprint.Access{}, false)

	staged := fresh(t)
	staged.Staged = []string{"network"}
	show("blocked", h, staged, access, false)
	full := fresh(t)
	full.Space.OverlayKB = 12
	show("no space", h, full, access, false)
	moved := parseHome(t, strings.Replace(sample, "network = \"192.168.1.0/24\"", "network = \"10.41.7.0/24\"\nrenumber = true", 1))
	show("the home LAN moves", moved, fresh(t), access, false)
	golden(t, "plan", got)
}

func TestFault(t *testing.T) {
	at := func(text, mark string) fault.Place {
		return fault.Place{File: "home.toml", Line: 9, Column: strings.Index(text, mark) + 1, Length: len(mark), Text: text}
	}
	var got []txtar.File
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"host bits", fault.NewUsage("host-bits", "192.168.1.20/24 is a host, not a network").At(at(`network = "192.168.1.20/24"`, `"192.168.1.20/24"`)).Do("write 192.168.1.0/24")},
		{"a tab before it", fault.NewUsage("x", "no such key").At(at("\tküche\t=\t\"ß\"", `"ß"`)).Do("leave it out")},
		{"letters of more than one byte", fault.NewUsage("x", "a name has letters a to z").At(at(`name = "Küche☂"`, `Küche☂`))},
		{"without a length", fault.NewUsage("x", "something is missing here").At(fault.Place{File: "home.toml", Line: 12, Column: 7, Text: "name ="})},
		{"past the end", fault.NewUsage("x", "odd").At(fault.Place{File: "home.toml", Line: 12, Column: 99, Length: 5, Text: "short"})},
		{"a whole line", fault.NewUsage("x", "this table stands there twice").At(fault.Place{File: "home.toml", Line: 12, Text: "[tunnel]"})},
		{"a line of a secret", fault.NewUsage("x", "not a key").At(fault.Place{File: "home.toml", Line: 1204, Column: 3})},
		{"seen, why, next", fault.New("eva-silent", "no bootloader answered on enp3s0 in 60 s").Saw("cable came up after 2.1 s").Saw("asked 192.168.178.1; silence").Because("two lines\nof reason").Do("unplug the box")},
		{"several", fault.List{fault.NewUsage("a", "first"), fault.NewUsage("b", "second").Do("this")}},
		{"wrapped", fmt.Errorf("inner: %w", fault.New("a", "what a person reads"))},
		{"not a fault", errors.New("disk on fire")},
		{"from a hostile router", fault.New("x", "it said \x1b]0;owned\a").Saw("a\x1b[2Jb\r\nc\td")},
	} {
		got = append(got, part(tt.name, func(b *bytes.Buffer) { view.Fault(b, plain, tt.err) }))
	}
	golden(t, "fault", got)
}

// story tells of one run, with times that were measured elsewhere.
func story(tell event.Tell) {
	tell(event.Event{Kind: event.Began, Stage: "snapshot", Text: "looking at the router"})
	tell(event.Event{Kind: event.Done, Stage: "snapshot", Text: "AVM FRITZ!Box 4040, OpenWrt 24.10.7", Took: 312 * time.Millisecond})
	tell(event.Event{Kind: event.Began, Stage: "packages", Text: "installing wireguard-tools"})
	tell(event.Event{Kind: event.Note, Stage: "packages", Text: "the package lists are fetched first"})
	tell(event.Event{Kind: event.Progress, Stage: "packages", Text: "installing wireguard-tools", Part: 0.5})
	tell(event.Event{Kind: event.Done, Stage: "packages", Text: "wireguard-tools installed", Took: 61 * time.Second})
	tell(event.Event{Kind: event.Began, Stage: "image", Text: "the image"})
	for _, n := range []int64{0, 1_000_000, 1_400_000, 4_000_000, 5_505_028} {
		tell.Bytes("image", "the image", n, 5_505_028, 226_000)
	}
	tell.Bytes("list", "the list", 12_300, 0, 0)
	tell(event.Event{Kind: event.Done, Stage: "image", Text: "the image is here", Took: 24 * time.Second})
	tell(event.Event{Kind: event.Began, Stage: "proof", Text: "a test device comes home"})
	tell(event.Event{Kind: event.Failed, Stage: "proof", Text: "a test device comes home", Took: 150 * time.Second})
}

func TestEvents(t *testing.T) {
	var got []txtar.File
	for _, tt := range []struct {
		name  string
		style view.Style
		json  bool
	}{{"plain", plain, false}, {"terminal", view.Style{Colour: true}, false}, {"json", plain, true}} {
		got = append(got, part(tt.name, func(b *bytes.Buffer) {
			var raw bytes.Buffer
			story(view.Teller(&raw, tt.style, tt.json))
			b.WriteString(strings.NewReplacer("\x1b", "<ESC>", "\r", "<CR>").Replace(raw.String()))
		}))
	}
	golden(t, "event", got)
	if p := string(got[0].Data); strings.ContainsAny(p, "\x1b\r") {
		t.Error("plain events carry control characters")
	}
}

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 49 * time.Millisecond: "0.0 s", 1250 * time.Millisecond: "1.2 s", 9960 * time.Millisecond: "10 s", 10 * time.Second: "10 s",
		119400 * time.Millisecond: "119 s", 2 * time.Minute: "2 min", 150 * time.Second: "3 min", time.Hour: "60 min",
	} {
		if got := view.Took(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

func status(t *testing.T) map[string]view.Status {
	h := parseHome(t, sample)
	s := settled(t, h)
	phone := &s.Tunnels["wg0"].Peers[0]
	phone.Handshake, phone.Endpoint = s.Time.Add(-12*time.Second), netip.MustParseAddrPort("198.51.100.20:40123")
	phone.Received, phone.Sent = 1536, 3<<30
	of := func(h home.Home, s *router.Snapshot) view.Status {
		p, _ := plan.For(h, s, blueprint.Access{})
		return view.StatusOf(h, s, p)
	}
	stranger := settled(t, h)
	stranger.Tunnels["wg0"].Peers = append(stranger.Tunnels["wg0"].Peers, router.Peer{PublicKey: testKey(9).Public(), Handshake: s.Time.Add(-49 * time.Hour)})
	f := fresh(t)
	return map[string]view.Status{"home": of(h, s), "stranger": of(h, stranger), "fresh": of(h, f), "no devices": of(parseHome(t, sample[:strings.Index(sample, "[[peer]]")]), f)}
}

func TestStatus(t *testing.T) {
	all := status(t)
	var got []txtar.File
	for _, name := range []string{"home", "stranger", "fresh", "no devices"} {
		got = append(got, part(name, func(b *bytes.Buffer) { view.StatusText(b, plain, all[name]) }))
	}
	got = append(got, part("home, JSON", func(b *bytes.Buffer) { view.JSON(b, all["home"]) }))
	for _, f := range got {
		noSecret(t, f.Name, string(f.Data))
	}
	golden(t, "status", got)
}

func TestVerify(t *testing.T) {
	hop := func(id, what string, v verify.Verdict, seen, next string) verify.Hop {
		return verify.Hop{ID: id, What: what, Verdict: v, Seen: seen, Next: next}
	}
	door := hop(verify.HopDoor, "packets reach the home router", verify.Shown, "", "")
	hand := hop(verify.HopHandshake, "keys fit, the tunnel opens", verify.Shown, "handshake after 41 ms", "")
	lan := hop(verify.HopLAN, "a device in the home LAN answers", verify.Shown, "192.168.1.10 (nas) after 3 ms", "")
	var got []txtar.File
	for _, tt := range []struct {
		name string
		r    verify.Result
	}{
		{"all shown", verify.Result{Vantage: verify.Outside, Hops: []verify.Hop{door, hand, lan}}},
		{"broken", verify.Result{Vantage: verify.Outside, Hops: []verify.Hop{
			hop(verify.HopISP, "the ISP router lets UDP 51820 through", verify.Broken, "nothing arrived", "in the ISP router: UDP 51820 to 192.168.2.253"),
			hop(verify.HopHandshake, "keys fit, the tunnel opens", verify.NotShown, "", "")}}},
		{"not all shown", verify.Result{Vantage: verify.Inside, Hops: []verify.Hop{
			hop(verify.HopISP, "the ISP router lets UDP 51820 through", verify.NotShown, "tested from inside", "test from a phone's hotspot: heimweg verify"), hand, lan}}},
	} {
		got = append(got, part(tt.name, func(b *bytes.Buffer) { view.Verify(b, plain, tt.r) }))
	}
	golden(t, "verify", got)
}

func TestPeers(t *testing.T) {
	h := parseHome(t, sample)
	h.Peers[0].Admin = true
	got := []txtar.File{
		part("list", func(b *bytes.Buffer) { view.PeerTable(b, h) }),
		part("none", func(b *bytes.Buffer) { view.PeerTable(b, home.Home{}) }),
		part("one", func(b *bytes.Buffer) { view.PeerDetail(b, h, h.Peers[0]) }),
		part("JSON", func(b *bytes.Buffer) { view.JSON(b, view.Peers(h)) }),
		part("none, JSON", func(b *bytes.Buffer) { view.JSON(b, view.Peers(home.Home{})) }),
	}
	golden(t, "peer", got)
}

// What scripts rely on. A key may be added; one that goes, or changes its name,
// breaks somebody's script and needs an entry in CHANGELOG.md.
var stableKeys = map[string][]string{
	"status":        {"differences", "peers", "router", "tunnel", "uptime_seconds"},
	"status.tunnel": {"addresses", "interface", "port", "public_key", "up"},
	"status.peer":   {"address", "age_seconds", "endpoint", "in_home_toml", "latest_handshake", "live", "name", "public_key", "received_bytes", "sent_bytes"},
	"peer":          {"address", "address6", "admin", "disabled", "keepalive_seconds", "name", "preshared", "public_key"},
	"plan":          {"base", "format", "mapping", "notes", "router", "steps", "tunnel"},
	"plan.step":     {"config", "do", "id", "name", "new", "risk", "section", "type", "why"},
	"error":         {"code", "next", "place", "seen", "what", "why"},
	"event":         {"event", "stage", "text", "took_ns"},
	"verify":        {"endpoint", "hops", "vantage"},
	"verify.hop":    {"hop", "next", "seen", "verdict", "what"},
}

func TestStableKeys(t *testing.T) {
	h := parseHome(t, sample)
	st := status(t)["home"]
	p, _ := plan.For(h, fresh(t), blueprint.Access{})
	var errJSON, events bytes.Buffer
	view.FaultJSON(&errJSON, fault.New("a", "b").Saw("c").Because("d").Do("e").At(fault.Place{File: "f", Line: 1}))
	var wrapped struct{ Error json.RawMessage }
	if err := json.Unmarshal(errJSON.Bytes(), &wrapped); err != nil {
		t.Fatal(err)
	}
	view.Teller(&events, plain, true)(event.Event{Kind: event.Done, Stage: "a", Text: "b", Took: 1})
	steps := map[string]any{}
	for _, s := range p.Steps {
		merge(t, steps, s)
	}
	for name, v := range map[string]any{
		"status": st, "status.tunnel": st.Tunnel, "status.peer": st.Peers[0], "peer": view.PeerOf(h, h.Peers[0]),
		"plan": p, "plan.step": steps, "error": wrapped.Error, "event": json.RawMessage(events.Bytes()),
		"verify": verify.Result{Hops: []verify.Hop{}}, "verify.hop": verify.Hop{ID: "a", What: "b", Seen: "c", Next: "d"},
	} {
		has := map[string]any{}
		merge(t, has, v)
		for _, k := range stableKeys[name] {
			if _, ok := has[k]; !ok {
				t.Errorf("the JSON of %s has lost %q", name, k)
			}
		}
		for k := range has {
			if !slices.Contains(stableKeys[name], k) && name != "plan.step" {
				t.Errorf("the JSON of %s has a new key %q; is it documented in this table", name, k)
			}
		}
	}
}

func merge(t *testing.T, into map[string]any, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Several failures, and one, as JSON.
func TestFaultJSON(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fault.New("a", "b"), `{"error":{"code":"a","what":"b"}}`},
		{fault.List{fault.New("a", "b")}, `{"error":{"code":"a","what":"b"}}`},
		{fault.List{fault.New("a", "b"), fault.New("c", "d")}, `{"errors":[{"code":"a","what":"b"},{"code":"c","what":"d"}]}`},
		{errors.New("x <y>"), `{"error":{"code":"failed","what":"x <y>"}}`},
	} {
		var b, compact bytes.Buffer
		if err := view.FaultJSON(&b, tt.err); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "<") && strings.Contains(tt.want, "<") {
			t.Errorf("%s is hard to read", b.String())
		}
		json.Compact(&compact, b.Bytes())
		if compact.String() != tt.want {
			t.Errorf("%s, want %s", compact.String(), tt.want)
		}
	}
}

func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		done, total int64
		rate        float64
		want        string
	}{
		{0, 0, 0, "░░░░░░░░░░░░░░░░  0 %"},
		{0, 5_300_000, 0, "░░░░░░░░░░░░░░░░  0 bytes of 5.3 MB"},
		{2_650_000, 5_300_000, 226_000, "████████░░░░░░░░  2.6 MB of 5.3 MB, 226 kB/s, about 15 s left"},
		{5_300_000, 5_300_000, 226_000, "████████████████  5.3 MB, 226 kB/s"},
		{999_499, 0, 999, "999 kB, 999 bytes/s"},
		{6_000_000, 5_300_000, 1, "████████████████  6.0 MB, 1 bytes/s"}, // more than announced
		{1, 5_300_000, 0.001, "░░░░░░░░░░░░░░░░  1 bytes of 5.3 MB, 0 bytes/s, about 1441 min left"},
		{1_000, 2_300, 100, "███████░░░░░░░░░  1 kB of 2 kB, 100 bytes/s, about 15 s left"},
		{1_000, 1_300, 100, "████████████░░░░  1 kB of 1 kB, 100 bytes/s, about 4 s left"},
	} {
		var e event.Event
		event.Tell(func(x event.Event) { e = x }).Bytes("s", "", tt.done, tt.total, tt.rate)
		if got := view.Progress(e); got != tt.want {
			t.Errorf("%d of %d: %q, want %q", tt.done, tt.total, got, tt.want)
		}
	}
}
