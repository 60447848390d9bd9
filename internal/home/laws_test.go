package home

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
)

func mustParse(t testing.TB, text []byte) *File {
	t.Helper()
	f, err := Parse("home.toml", text)
	if err != nil {
		t.Fatalf("%s\n--- text:\n%s", told(faultsOf(t, err)), text)
	}
	return f
}

// dressed is a text in the ways that editors store it.
func dressed(text string) map[string]string {
	return map[string]string{
		"as it is":          text,
		"CRLF":              strings.ReplaceAll(text, "\n", "\r\n"),
		"no last line end":  strings.TrimSuffix(text, "\n"),
		"byte order mark":   byteOrderMark + text,
		"CRLF and no end":   strings.TrimSuffix(strings.ReplaceAll(text, "\n", "\r\n"), "\r\n"),
		"blanks at the end": text + "\n \n\n",
	}
}

// TestEditKeepsLineEnds runs every edit case on the same file in other clothes:
// the result is the same text in the same clothes.
func TestEditKeepsLineEnds(t *testing.T) {
	paths, _ := filepath.Glob("testdata/edit/*.txtar")
	for _, path := range paths {
		if strings.HasPrefix(filepath.Base(path), "bad-") {
			continue
		}
		ar, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var from, to map[string]string
		var cmds string
		for _, f := range ar.Files {
			switch f.Name {
			case "home.toml":
				from = dressed(string(f.Data))
			case "becomes":
				to = dressed(string(f.Data))
			case "do":
				cmds = string(f.Data)
			}
		}
		for clothes := range from {
			if clothes == "blanks at the end" {
				continue // a removed last peer takes no blank line with it that was there before
			}
			t.Run(filepath.Base(path)+"/"+clothes, func(t *testing.T) {
				f := mustParse(t, []byte(from[clothes]))
				for line := range strings.Lines(cmds) {
					next, err := do(t, f, strings.Fields(line))
					if err != nil {
						t.Fatal(err)
					}
					f = next
				}
				if got := string(f.Text()); got != to[clothes] {
					t.Errorf("got %q\nwant %q", got, to[clothes])
				}
			})
		}
	}
}

// drawKey draws a public key of its own for each number.
func drawKey(i int) key.Public { return testKey(fmt.Sprintf("device %d", i)) }

// drawFile draws a file that a person could have written: sections in any
// order, comments and blank lines anywhere, any line end.
func drawFile(t *rapid.T) []byte {
	noise := func(label string) string {
		return rapid.SampledFrom([]string{"", "", "", "\n", "\n\n", "# a remark\n", "\n# a remark\n", "# a remark\n\n",
			"# ---- family ----\n", "\n# ---- family ----\n\n", "  # [[peer]]\n# name = \"old\"\n", "\t\n"}).Draw(t, label)
	}
	tail := func(label string) string {
		return rapid.SampledFrom([]string{"", "", " # why", "\t#"}).Draw(t, label)
	}
	blocks := []string{
		"[router]\naddress = \"192.168.72.1\"" + tail("router") + "\n" + noise("in router"),
		"[uplink]\nkind = \"behind-isp-router\"\n" + noise("in uplink") + "network = \"192.168.71.0/24\"\n",
		"[[lan]]\ninterface = \"lan\"\nnetwork = '192.168.72.0/24'\n" + noise("in lan"),
		"[tunnel]" + tail("tunnel") + "\nnetwork = \"10.86.20.0/24\"\nnetwork6 = \"fd86:2012:3456::/64\"\n",
		"[dns]\nservers = [\n  \"router\", # one\n\n  # two\n  \"192.168.72.53\"\n]\n",
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "peers") {
		b := "[[peer]]" + tail("header") + "\n" + noise("before name")
		for _, l := range peerLines(Peer{Name: fmt.Sprintf("dev%d", i), PublicKey: drawKey(i), Address: netip.AddrFrom4([4]byte{10, 86, 20, byte(2 + i)}), Preshared: true, Keepalive: DefaultKeepalive}) {
			if !l.omit {
				b += rapid.SampledFrom([]string{"", "", "  "}).Draw(t, "indent") + l.key + " = " + l.value + tail("tail") + "\n" + noise("between")
			}
		}
		blocks = append(blocks, b)
	}
	text := noise("top")
	for _, b := range rapid.Permutation(blocks).Draw(t, "order") {
		text += b + noise("gap")
	}
	d := dressed(text)
	clothes := make([]string, 0, len(d))
	for c := range d {
		clothes = append(clothes, c)
	}
	slices.Sort(clothes)
	return []byte(d[rapid.SampledFrom(clothes).Draw(t, "clothes")])
}

// TestAddThenRemove: adding a peer and removing it gives the same bytes.
func TestAddThenRemove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawFile(t)
		f, err := Parse("home.toml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		p, err := f.Home.NextPeer("new", testKey("new"))
		if err != nil {
			t.Fatal(err)
		}
		added, err := f.AddPeer(p)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if got, ok := added.Home.Peer("new"); !ok || got != p {
			t.Fatalf("added %v, reads back %v", p, got)
		}
		if !subsequence(lines(text), lines(added.Text())) {
			t.Fatalf("adding a peer changed other lines:\n%q\n%q", text, added.Text())
		}
		removed, err := added.RemovePeer("new")
		if err != nil {
			t.Fatal(err)
		}
		if got := removed.Text(); !bytes.Equal(got, text) {
			t.Fatalf("add and remove changed the file:\nfrom %q\nvia  %q\nto   %q", text, added.Text(), got)
		}
	})
}

// TestRemoveTouchesNothingElse: removing a peer only takes lines away, none of
// another section.
func TestRemoveTouchesNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawFile(t)
		f, err := Parse("home.toml", text)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Home.Peers) == 0 {
			t.Skip("no peer")
		}
		name := rapid.SampledFrom(f.Home.Peers).Draw(t, "who").Name
		out, err := f.RemovePeer(name)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !subsequence(lines(out.Text()), lines(text)) {
			t.Fatalf("removing %s changed other lines:\n%q\n%q", name, text, out.Text())
		}
		if strings.Count(string(text), "----") != strings.Count(string(out.Text()), "----") && !insidePeer(f, name) {
			t.Fatalf("removing %s took a dividing line along:\n%q\n%q", name, text, out.Text())
		}
	})
}

// insidePeer tells whether a dividing line stands between the peer's keys.
func insidePeer(f *File, name string) bool {
	for _, s := range f.doc.peers {
		if n, _, _ := s.textOf("name"); n == name {
			for i := f.doc.line(s.nameAt.at); i < f.doc.line(s.entries[len(s.entries)-1].keyAt.at); i++ {
				if f.doc.divides(i) {
					return true
				}
			}
		}
	}
	return false
}

// TestSetAndBack: disabling and enabling a peer gives the same bytes.
func TestSetAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawFile(t)
		f, err := Parse("home.toml", text)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range f.Home.Peers {
			off, err := f.SetPeer(p.Name, func(p *Peer) { p.Disabled = true; p.Keepalive = 0 })
			if err != nil {
				t.Fatal(err)
			}
			on, err := off.SetPeer(p.Name, func(p *Peer) { p.Disabled = false; p.Keepalive = DefaultKeepalive })
			if err != nil {
				t.Fatal(err)
			}
			if got := on.Text(); !bytes.Equal(got, text) {
				t.Fatalf("disable and enable changed the file:\nfrom %q\nvia  %q\nto   %q", text, off.Text(), got)
			}
		}
	})
}

func lines(b []byte) []string {
	var out []string
	for l := range strings.Lines(strings.TrimPrefix(string(b), byteOrderMark)) {
		out = append(out, strings.TrimRight(l, "\r\n"))
	}
	return out
}

func subsequence(short, long []string) bool {
	for _, l := range long {
		if len(short) > 0 && short[0] == l {
			short = short[1:]
		}
	}
	return len(short) == 0
}

// drawHome draws what a household may want.
func drawHome(t *rapid.T) Home {
	h := New()
	h.Router.Address = rapid.SampledFrom([]string{"192.168.1.1", "router.example.net", "fd00::1", "[fd00::1]:22", "10.0.0.1:2222"}).Draw(t, "address")
	h.Router.User = rapid.SampledFrom([]string{"root", "root", "admin"}).Draw(t, "user")
	h.Router.Jump = rapid.SampledFrom([]string{"", "pi@192.168.71.9", "pi.example.net:2222"}).Draw(t, "jump")
	h.Router.Packages = rapid.SampledFrom([][]string{nil, {"nano"}, {"nano", "mc"}}).Draw(t, "packages")
	h.Router.Input = rapid.SampledFrom([]string{"", "reject", "accept"}).Draw(t, "input")
	h.Uplink.Kind = rapid.SampledFrom([]Kind{Behind, Direct, OneArmed}).Draw(t, "kind")
	h.LANs = []LAN{{Interface: "lan", Network: subnet.MustParse("192.168.72.0/24")}}
	if h.Uplink.Kind != OneArmed {
		h.LANs[0].Renumber = rapid.Bool().Draw(t, "renumber")
		if rapid.Bool().Draw(t, "two LANs") {
			h.LANs = append(h.LANs, LAN{Interface: "iot", Network: subnet.MustParse("192.168.73.0/25")})
		}
	}
	h.Reach = Reach{rapid.Bool().Draw(t, "lan"), false, rapid.Bool().Draw(t, "internet"), rapid.Bool().Draw(t, "nat")}
	if h.Uplink.Kind == Behind && rapid.Bool().Draw(t, "uplink known") {
		h.Uplink.Network = subnet.MustParse("192.168.71.0/24")
		h.Reach.UplinkLAN = rapid.Bool().Draw(t, "uplink")
	}
	h.Tunnel.Network = subnet.MustParse(rapid.SampledFrom([]string{"10.86.20.0/24", "172.23.8.0/22"}).Draw(t, "tunnel"))
	if rapid.Bool().Draw(t, "six") {
		h.Tunnel.Network6 = subnet.MustParse("fd86:2012:3456::/64")
	}
	h.Tunnel.Interface = rapid.SampledFrom([]string{"wg0", "WG0", "heim"}).Draw(t, "interface")
	h.Tunnel.Port = uint16(rapid.SampledFrom([]int{51820, 51902, 443}).Draw(t, "port"))
	h.Tunnel.EndpointPort = uint16(rapid.SampledFrom([]int{0, 51820, 53}).Draw(t, "endpoint-port"))
	h.Tunnel.MTU = rapid.SampledFrom([]int{0, 1280, 1420}).Draw(t, "mtu")
	h.Tunnel.Endpoint = rapid.SampledFrom([]string{"", "home.example.net", "203.0.113.7", "2001:db8::7"}).Draw(t, "endpoint")
	h.DNS.Servers = rapid.SampledFrom([][]string{nil, {"router"}, {"router", "192.168.72.53"}}).Draw(t, "dns")
	h.DNS.Search = rapid.SampledFrom([][]string{nil, {"lan"}, {"lan", "fritz.box"}}).Draw(t, "search")
	h.Uplink.Mapping = rapid.SampledFrom([]MappingBy{ByAsking, ByHand}).Draw(t, "mapping")
	h.DDNS = rapid.SampledFrom([]DDNS{
		{}, {Service: "desec.io", Name: "home.example.net", User: "me", IPv4: true}, {Service: "dynv6.com", Name: "home.example.net", IPv6: true},
		{UpdateURL: "https://dyn.example.net/?h=[DOMAIN]&p=[PASSWORD]&ip=[IP]", Name: "home.example.net", IPv4: true, IPv6: true, AddressURL: "https://ip.example.net/"},
	}).Draw(t, "ddns")
	for i := range rapid.IntRange(0, 3).Draw(t, "peers") {
		p, err := h.NextPeer(fmt.Sprintf("dev-%d", i), drawKey(i))
		if err != nil {
			t.Fatal(err)
		}
		p.Preshared, p.Disabled, p.Admin = rapid.Bool().Draw(t, "psk"), rapid.Bool().Draw(t, "off"), rapid.Bool().Draw(t, "admin")
		p.Keepalive = rapid.SampledFrom([]int{0, 25, 60}).Draw(t, "keepalive")
		h.Peers = append(h.Peers, p)
	}
	return h
}

// TestComposeReadsBack: what init writes says what was meant, and every line
// but a peer's carries a comment.
func TestComposeReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHome(t)
		text := Compose(h)
		f, err := Parse("home.toml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !f.Home.Equal(h) {
			t.Fatalf("meant %+v\nreads %+v\n%s", h, f.Home, text)
		}
		sample, _, _ := strings.Cut(string(text), "[[peer]]\n")
		for line := range strings.Lines(sample) {
			if strings.TrimSpace(line) != "" && !strings.Contains(line, "#") {
				t.Fatalf("no comment in %q", line)
			}
		}
	})
}

// TestSample holds the file of the documentation to what init writes.
func TestSample(t *testing.T) {
	h := New()
	h.Router.Address = "192.168.1.1"
	h.Uplink.Network = subnet.MustParse("192.168.2.0/24")
	h.LANs = []LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	h.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
	h.Tunnel.Network6 = subnet.MustParse("fd86:2012:3456::/64")
	got := Compose(h)
	mustParse(t, got)
	const path = "testdata/sample.toml"
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("testdata/sample.toml differs; go test -update rewrites it\n%s", got)
	}
}

// everything is all that a fault or note could print.
func everything(l fault.List) string {
	s := told(l)
	for _, f := range l {
		s += fmt.Sprintf("%+v %#v", *f, f.Place)
	}
	return s
}

// TestKeysAreNeverRepeated pastes a private key anywhere into a file.
func TestKeysAreNeverRepeated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		k, err := key.NewPrivate(bytes.NewReader(seed))
		if err != nil {
			t.Fatal(err)
		}
		secret := k.Reveal()
		all := lines(drawFile(t))
		i := rapid.IntRange(0, len(all)-1).Draw(t, "line")
		name, _, _ := strings.Cut(all[i], "=")
		switch rapid.IntRange(0, 6).Draw(t, "how") {
		case 0:
			all[i] = name + "= \"" + secret + "\""
		case 1:
			all[i] = name + "= " + secret
		case 2:
			all[i] = secret
		case 3:
			all[i] = "private-key = \"" + secret + "\"\nPresharedKey=" + secret
		case 4:
			all[i] = name + "= [\"" + secret + "\", 5"
		case 5:
			all[i] = "[" + secret + "]\n[\"" + secret + "\"]"
		case 6:
			all[i] = name + "= 'x" + secret + " and more' # " + secret
		}
		f, err := Parse("home.toml", []byte(strings.Join(all, "\n")))
		var said string
		if err != nil {
			l, ok := err.(fault.List)
			if !ok {
				t.Fatalf("%T", err)
			}
			said = everything(l)
		} else {
			said = everything(f.Notes)
		}
		for j := 0; j+16 <= len(secret); j++ {
			if strings.Contains(said, secret[j:j+16]) {
				t.Fatalf("%d characters of the key are repeated in:\n%s", 16, said)
			}
		}
	})
}

// TestPasswordsAreNeverRepeated: people paste addresses with passwords in them.
func TestPasswordsAreNeverRepeated(t *testing.T) {
	const secret = "hunter2"
	text := string(manyPeers(1))
	for _, line := range strings.Split(text, "\n") {
		name, _, ok := strings.Cut(line, " = ")
		if !ok {
			continue
		}
		for _, v := range []string{"http://root:%s@192.168.1.1/", "root:%s@192.168.1.1", "ssh://a:%s@b", "x y:%s@", "https://:%s@host:8080"} {
			v = fmt.Sprintf(v, secret)
			for _, bad := range []string{name + " = \"" + v + "\"", name + " = " + v, name + " = [\"" + v + "\", \"" + v + "\"]", v, "[" + v + "]", "[[\"" + v + "\"]]", "\"" + v + "\" = 1"} {
				_, err := Parse("home.toml", []byte(strings.Replace(text, line, bad, 1)))
				if said := everything(faultsOf(t, err)); strings.Contains(said, secret) {
					t.Errorf("%s is repeated:\n%s", bad, said)
				}
			}
		}
	}
}

// FuzzParse: no text makes the parser panic; what it accepts is TOML for the
// library's own decoder too, and can be edited and restored.
func FuzzParse(f *testing.F) {
	for _, glob := range []string{"testdata/parse/*.txtar", "testdata/edit/*.txtar"} {
		paths, _ := filepath.Glob(glob)
		for _, p := range paths {
			ar, err := txtar.ParseFile(p)
			if err != nil {
				f.Fatal(err)
			}
			for _, file := range ar.Files {
				if file.Name == "home.toml" {
					f.Add(file.Data)
					f.Add(bytes.ReplaceAll(file.Data, []byte("\n"), []byte("\r\n")))
				}
			}
		}
	}
	f.Add([]byte("\xff\xfea\x00"))
	f.Add([]byte("a = \"\xff\""))
	f.Add([]byte("\xef\xbb\xbf[router]"))
	f.Add([]byte("a = \"\"\"\nb"))
	f.Add([]byte("[[[["))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse("home.toml", text)
		if err != nil {
			for _, f := range faultsOf(t, err) {
				checkForm(t, f)
			}
			return
		}
		var any map[string]any
		if err := toml.Unmarshal(bytes.TrimPrefix(text, []byte(byteOrderMark)), &any); err != nil {
			t.Fatalf("accepted, but the library says: %v", err)
		}
		p, err := file.Home.NextPeer("fuzz-new", testKey("fuzz-new"))
		if err != nil {
			return // no room
		}
		added, err := file.AddPeer(p)
		if f := fault.Find(err); f != nil && f.Kind == fault.Usage {
			return // a peer of that name or key is there
		} else if err != nil {
			t.Fatal(err)
		}
		removed, err := added.RemovePeer("fuzz-new")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(removed.Text(), text) {
			t.Fatalf("add and remove: %q became %q via %q", text, removed.Text(), added.Text())
		}
	})
}

func manyPeers(n int) []byte {
	h := New()
	h.Router.Address = "192.168.72.1"
	h.LANs = []LAN{{Interface: "lan", Network: subnet.MustParse("192.168.72.0/24")}}
	h.Tunnel.Network = subnet.MustParse("10.86.0.0/16")
	h.Tunnel.Network6 = subnet.MustParse("fd86:2012:3456::/64")
	for i := range n {
		h.Peers = append(h.Peers, Peer{Name: fmt.Sprintf("device-%d", i), PublicKey: drawKey(i), Address: h.Tunnel.Network.Host(uint32(i + 2)).Addr(),
			Address6: h.Tunnel.Network6.Host(uint32(i + 2)).Addr(), Preshared: true, Keepalive: DefaultKeepalive})
	}
	return Compose(h)
}

func BenchmarkParse10000Peers(b *testing.B) {
	text := manyPeers(10000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("home.toml", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAddPeerTo10000(b *testing.B) {
	f := mustParse(b, manyPeers(10000))
	b.ReportAllocs()
	for b.Loop() {
		p, err := f.Home.NextPeer("new", testKey("new"))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.AddPeer(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParse10000Wrong has two mistakes per peer.
func BenchmarkParse10000Wrong(b *testing.B) {
	text := bytes.ReplaceAll(manyPeers(10000), []byte("address = "), []byte("adress = "))
	for b.Loop() {
		if _, err := Parse("home.toml", text); err == nil {
			b.Fatal("accepted")
		}
	}
}

// A key alone on a line whose letters say "psk" by chance: it ends in "=", so it looks
// like the name of a secret that has no value.
func TestAKeyThatLooksLikeAName(t *testing.T) {
	const secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPSkAAAAAAEA="
	_, err := Parse("home.toml", []byte(secret+"\n"))
	l, ok := err.(fault.List)
	if said := everything(l); !ok || strings.Contains(said, secret[:16]) || !strings.Contains(said, hidden) {
		t.Errorf("%v\n%s", err, said)
	}
}
