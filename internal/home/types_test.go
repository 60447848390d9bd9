package home

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/subnet"
)

func TestNextPeer(t *testing.T) {
	h := New()
	h.Tunnel.Network = subnet.MustParse("10.86.20.0/29")
	take := func(name string) (Peer, error) {
		p, err := h.NextPeer(name, testKey(name))
		if err == nil {
			h.Peers = append(h.Peers, p)
		}
		return p, err
	}
	p, err := take("phone")
	if err != nil || p.Address.String() != "10.86.20.2" || p.Address6.IsValid() || !p.Preshared || p.Keepalive != DefaultKeepalive || p.Disabled || p.Admin {
		t.Errorf("the first peer is %+v, %v", p, err)
	}
	h.Tunnel.Network6 = subnet.MustParse("fd00::/64")
	if p, err := take("laptop"); err != nil || p.Address.String() != "10.86.20.3" || p.Address6.String() != "fd00::3" {
		t.Errorf("the second peer is %+v, %v; want the same number in both families", p, err)
	}
	h.Peers = append(h.Peers, Peer{Name: "x", Address: netip.MustParseAddr("10.86.20.6"), Address6: netip.MustParseAddr("fd00::4")})
	if p, err := take("tablet"); err != nil || p.Address.String() != "10.86.20.4" || p.Address6.String() != "fd00::2" {
		t.Errorf("where the same number is taken: %+v, %v", p, err)
	}
	if _, err := take("watch"); err != nil {
		t.Error(err)
	}
	_, err = take("one too many")
	var full *subnet.FullError
	if !errors.As(err, &full) {
		t.Errorf("in a full tunnel: %v", err)
	}
}

func TestWords(t *testing.T) {
	if got := (Peer{Name: "my-pc_2"}).Section(); got != "hw_peer_my_pc_2" {
		t.Errorf("section %q", got)
	}
	if (Tunnel{Port: 1}).CallPort() != 1 || (Tunnel{Port: 1, EndpointPort: 2}).CallPort() != 2 {
		t.Error("CallPort")
	}
	for _, k := range []Kind{Behind, Direct, OneArmed} {
		b, err := json.Marshal(k)
		var back Kind
		if err != nil || json.Unmarshal(b, &back) != nil || back != k {
			t.Errorf("%v reads back as %v", k, back)
		}
	}
	var k Kind
	if k.UnmarshalText([]byte("sideways")) == nil || Kind(7).String() != "Kind(7)" {
		t.Error("an unknown kind")
	}
	if a, b := New(), New(); !a.Equal(b) {
		t.Error("two new homes differ")
	} else if b.DNS.Search = nil; a.Equal(b) {
		t.Error("different homes are equal")
	} else if a.DNS.Search = []string{}; !a.Equal(b) {
		t.Error("no list and an empty one differ")
	}
}

func TestUnreadable(t *testing.T) {
	for name, text := range map[string][]byte{
		"UTF-16 little": []byte("\xff\xfe[\x00"), "UTF-16 big": []byte("\xfe\xff\x00["), "Latin-1": []byte("# B\xfccher\n"),
	} {
		l := faultsOf(t, func() error { _, err := Parse("home.toml", text); return err }())
		if len(l) != 1 || l[0].Code != "home-encoding" || !strings.Contains(l[0].Next[0], "UTF-8") {
			t.Errorf("%s: %s", name, told(l))
		}
	}
	l := faultsOf(t, func() error { _, err := Parse("x", []byte("a\nb\n\xff")); return err }())
	if l[0].Place.Line != 3 {
		t.Errorf("wrong line: %s", told(l))
	}
	if _, err := Parse("x", make([]byte, maxSize+1)); fault.Find(err) == nil || fault.Find(err).Code != "home-too-large" {
		t.Errorf("a huge file: %v", err)
	}
}

// TestEditIsVerified: an edit that goes wrong is a bug and changes nothing.
func TestEditIsVerified(t *testing.T) {
	f := mustParse(t, manyPeers(2))
	before := f.Text()
	for name, p := range map[string]patch{
		"says something else": {span{len(before), len(before)}, "[reach]\ninternet = true\n"},
		"is no home.toml":     {span{0, 0}, "nonsense"},
		"does nothing":        {},
	} {
		want := f.Home
		want.Tunnel.MTU = 1300
		out, err := f.edited(want, p)
		if ft := fault.Find(err); out != nil || ft == nil || ft.Kind != fault.Bug {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	if !bytes.Equal(f.Text(), before) {
		t.Error("the file changed")
	}
	if same, err := f.SetPeer("device-0", func(*Peer) {}); err != nil || same != f {
		t.Errorf("no change made a new file: %v", err)
	}
	text := f.Text()
	text[0] = 'X'
	if f.Text()[0] == 'X' || f.Name() != "home.toml" {
		t.Error("the caller can change the file")
	}
}

// TestSchema: every key of the schema is read, and only those.
func TestSchema(t *testing.T) {
	full := New()
	full.Router = Router{"192.168.72.1", "admin", "pi@example.net", []string{"nano"}, "reject"}
	full.Uplink = Uplink{Behind, subnet.MustParse("192.168.71.0/24"), ByHand}
	full.LANs = []LAN{{"lan", subnet.MustParse("192.168.72.0/24"), true}}
	full.Tunnel = Tunnel{"wg7", subnet.MustParse("10.86.20.0/24"), subnet.MustParse("fd86::/64"), 51821, 1400, "home.example.net", 443}
	full.Reach = Reach{true, true, false, false}
	full.DDNS = DDNS{"desec.io", "", "home.example.net", "me", false, true, "https://ip.example.net/"}
	full.Peers = []Peer{{"phone", netip.MustParseAddr("10.86.20.2"), netip.MustParseAddr("fd86::2"), testKey("phone"), false, true, true, 0}}
	text := string(Compose(full))
	if f := mustParse(t, []byte(text)); !f.Home.Equal(full) {
		t.Fatalf("%+v reads back as %+v", full, f.Home)
	}
	// Without the line of a key the file says something else or is refused.
	for _, s := range schema {
		for _, k := range s.keys {
			if k.name == "kind" || k.name == "home-lan" || k.name == "internet" || s.name == "dns" || k.name == "update-url" {
				continue // these have their defaults here, or are not there beside a service
			}
			at := strings.Index(text, s.header())
			i := at + strings.Index(text[at:], "\n"+k.name+" = ") + 1
			without := text[:i] + text[i+strings.Index(text[i:], "\n")+1:]
			f, err := Parse("home.toml", []byte(without))
			if err == nil && f.Home.Equal(full) {
				t.Errorf("%s in %s changes nothing", k.name, s.header())
			}
		}
	}
}
