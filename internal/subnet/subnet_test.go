package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestParseNetwork(t *testing.T) {
	for _, ok := range []string{"192.168.20.0/24", "10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32", "fd12:3456:789a::/64", "::/0", "2001:db8::1/128"} {
		n, err := ParseNetwork(ok)
		if err != nil || n.String() != ok {
			t.Errorf("ParseNetwork(%q) = %v, %v", ok, n, err)
		}
	}
	for _, c := range []struct{ in, want string }{
		{"192.168.1.20/24", "192.168.1.0/24"}, {"10.1.2.3/8", "10.0.0.0/8"}, {"fd00::1/64", "fd00::/64"}, {"1.2.3.4/0", "0.0.0.0/0"},
	} {
		_, err := ParseNetwork(c.in)
		var bits *HostBitsError
		if !errors.As(err, &bits) || bits.Want != MustParse(c.want) || bits.Given.String() != c.in {
			t.Errorf("ParseNetwork(%q) = %v, want host bits, network %s", c.in, err, c.want)
		}
	}
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"home", ""}, {"192.168.1.0", "192.168.1.0/24"}, {"192.168.1.7", "192.168.1.0/24"}, {"fd00::7", "fd00::/64"},
		{"192.168.1.0/255.255.255.0", "192.168.1.0/24"}, {"10.0.0.0/255.0.255.0", "10.0.0.0/24"}, {"192.168.1.0/33", "192.168.1.0/24"},
		{"192.168.1.0/", "192.168.1.0/24"}, {"192.168.1.0/024", "192.168.1.0/24"}, {"192.168.1.0/-1", "192.168.1.0/24"}, {"fe80::1%eth0/64", ""},
		{"::ffff:10.0.0.0/104", ""}, {"010.0.0.0/8", ""}, {"192.168.1.0/24 ", "192.168.1.0/24"}, {"10.0.0.0/255.255.255.255", "10.0.0.0/32"}, {"10.0.0.0/0.0.0.0", "0.0.0.0/0"},
	} {
		_, err := ParseNetwork(c.in)
		var form *FormatError
		if !errors.As(err, &form) || form.Want != c.want || form.Why == "" {
			t.Errorf("ParseNetwork(%q) = %v (%+v), want a format error that proposes %q", c.in, err, form, c.want)
		}
	}
}

func TestZero(t *testing.T) {
	var n Network
	var h Host
	if !n.IsZero() || n.String() != "" || n.Is4() || n.Is6() || n.Bits() != -1 || n.Contains(netip.MustParseAddr("1.2.3.4")) || n.Overlaps(n) || !n.First().IsZero() || n.Index(netip.Addr{}) != 0 {
		t.Error("the zero Network is not none")
	}
	if !h.IsZero() || h.String() != "" || h.AsPeer().IsValid() || h.OnInterface().IsValid() {
		t.Error("the zero Host is not none")
	}
	if NetworkOf(netip.Prefix{}) != n || NetworkOf(netip.MustParsePrefix("::ffff:1.2.3.4/120")) != n {
		t.Error("NetworkOf makes networks of nothing")
	}
}

func TestHosts(t *testing.T) {
	n := MustParse("192.168.20.0/24")
	h := n.Host(2)
	if h.String() != "192.168.20.2/24" || h.AsPeer().String() != "192.168.20.2/32" || h.OnInterface().String() != "192.168.20.2/24" || h.Network() != n {
		t.Errorf("Host(2) = %v, peer %v, interface %v", h, h.AsPeer(), h.OnInterface())
	}
	if !n.Host(256).IsZero() || n.Host(255).Addr().String() != "192.168.20.255" || n.First() != n.Host(1) {
		t.Error("hosts at the edges of the network")
	}
	if six := MustParse("fd00::/64").Host(1<<32 - 1); six.Addr().String() != "fd00::ffff:ffff" || six.AsPeer().Bits() != 128 {
		t.Errorf("the last numbered IPv6 host is %v", six)
	}
	if !MustParse("10.0.0.1/32").First().IsZero() {
		t.Error("a /32 has no second address")
	}
	for _, c := range []struct {
		in string
		ok bool
	}{
		{"192.168.1.1/24", true}, {"192.168.1.0/24", false}, {"192.168.1.255/24", false}, {"192.168.1.0/31", true}, {"192.168.1.1/31", true}, {"10.0.0.1/32", true},
		{"fd00::1/64", true}, {"fd00::/64", false}, {"fd00::ffff:ffff:ffff:ffff/64", true}, {"192.168.1.1", false}, {"x/24", false}, {"192.168.1.1/99", false},
	} {
		h, err := ParseHost(c.in)
		if (err == nil) != c.ok || err == nil && h.String() != c.in {
			t.Errorf("ParseHost(%q) = %v, %v", c.in, h, err)
		}
	}
	_, err := HostIn(n, netip.MustParseAddr("10.0.0.1"))
	var out *OutsideError
	if !errors.As(err, &out) || out.Network != n {
		t.Errorf("HostIn of another network: %v", err)
	}
}

func TestText(t *testing.T) {
	type file struct{ A, B Network }
	in := file{A: MustParse("10.1.0.0/16")}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out file
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("%s reads back as %v, %v", b, out, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"10.1.0.1/16"}`), &out); err == nil {
		t.Error("host bits were read")
	}
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestNextFree(t *testing.T) {
	for _, c := range []struct {
		net   string
		taken []netip.Addr
		want  string
	}{
		{"10.86.20.0/24", nil, "10.86.20.2"},
		{"10.86.20.0/24", addrs("10.86.20.2", "10.86.20.4", "10.86.20.3"), "10.86.20.5"},
		{"10.86.20.0/24", addrs("10.86.20.3", "10.99.0.2"), "10.86.20.2"},
		{"10.86.20.0/29", addrs("10.86.20.2", "10.86.20.3", "10.86.20.4", "10.86.20.5"), "10.86.20.6"},
		{"10.86.20.0/29", addrs("10.86.20.2", "10.86.20.3", "10.86.20.4", "10.86.20.5", "10.86.20.6"), ""},
		{"10.86.20.0/30", nil, "10.86.20.2"},
		{"10.86.20.0/31", nil, ""},
		{"fd00::/64", addrs("fd00::2"), "fd00::3"},
		{"fd00::/126", addrs("fd00::2", "fd00::3"), ""},
	} {
		got, err := NextFree(MustParse(c.net), c.taken)
		var full *FullError
		if c.want == "" {
			if !errors.As(err, &full) {
				t.Errorf("NextFree(%s, %v) = %v, %v, want full", c.net, c.taken, got, err)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("NextFree(%s, %v) = %v, %v, want %s", c.net, c.taken, got, err, c.want)
		}
	}
}

func drawNetwork(t *rapid.T) Network {
	if rapid.IntRange(0, 4).Draw(t, "family") == 0 {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "six")
		return NetworkOf(netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), rapid.IntRange(0, 128).Draw(t, "bits")))
	}
	b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "four")
	return NetworkOf(netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), rapid.IntRange(0, 32).Draw(t, "bits")))
}

// TestNextFreeLaw fills small networks: every address comes once, none of the
// reserved ones, and then it is full.
func TestNextFreeLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(24, 30).Draw(t, "bits")
		n := NetworkOf(netip.PrefixFrom(netip.MustParseAddr("10.86.20.77"), bits))
		var taken []netip.Addr
		for {
			a, err := NextFree(n, taken)
			if err != nil {
				break
			}
			if !n.Contains(a) || a == n.First().Addr() || n.whyNoHost(a) != "" {
				t.Fatalf("%s has a peer at %s", n, a)
			}
			taken = append(taken, a)
		}
		if want := 1<<(32-bits) - 3; len(taken) != want {
			t.Fatalf("%s took %d peers, want %d", n, len(taken), want)
		}
	})
}

func TestHostLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawNetwork(t)
		i := rapid.Uint32().Draw(t, "i")
		h := n.Host(i)
		free := n.Prefix().Addr().BitLen() - n.Bits()
		if inside := free >= 32 || uint64(i) < 1<<free; h.IsZero() == inside {
			t.Fatalf("%s has a host %d: %v", n, i, h)
		}
		if !h.IsZero() && (!n.Contains(h.Addr()) || n.Index(h.Addr()) != i || NetworkOf(h.OnInterface()) != n) {
			t.Fatalf("host %d of %s is %v, index %d", i, n, h, n.Index(h.Addr()))
		}
		if back, err := ParseNetwork(n.String()); err != nil || back != n {
			t.Fatalf("%s reads back as %v, %v", n, back, err)
		}
	})
}

func reader(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
}

// TestProposeLaw: a proposal is a private /24 that overlaps nothing it shall not.
func TestProposeLaw(t *testing.T) {
	seen := map[Network]bool{}
	rapid.Check(t, func(t *rapid.T) {
		avoid := rapid.SliceOfN(rapid.Custom(drawNetwork), 0, 6).Draw(t, "avoid")
		for i, n := range avoid { // networks that cover nearly everything leave no room, which has a test of its own
			if n.Bits() < 10 {
				avoid[i] = Network{}
			}
		}
		n, err := Propose(reader(rapid.Uint64().Draw(t, "seed")), avoid)
		if err != nil {
			t.Fatal(err)
		}
		if n.Bits() != 24 || !n.Prefix().Addr().IsPrivate() {
			t.Fatalf("proposed %s", n)
		}
		for _, u := range Usual() {
			if u.Network.Overlaps(n) {
				t.Fatalf("%s is the network of %s", n, u.Why)
			}
		}
		for _, a := range avoid {
			if a.Overlaps(n) {
				t.Fatalf("%s overlaps %s", n, a)
			}
		}
		seen[n] = true
	})
	if len(seen) < 50 {
		t.Errorf("only %d different proposals", len(seen))
	}
}

func TestProposeCorners(t *testing.T) {
	if _, err := Propose(reader(1), []Network{MustParse("0.0.0.0/0")}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("with everything taken: %v", err)
	}
	// Only 10.64.0.0/12 is left: 6 of 100 candidates, found from any start.
	avoid := []Network{MustParse("172.16.0.0/12"), MustParse("10.0.0.0/10"), MustParse("10.128.0.0/9"), MustParse("10.80.0.0/12"), MustParse("10.96.0.0/11")}
	for seed := range uint64(50) {
		if n, err := Propose(reader(seed), avoid); err != nil || !MustParse("10.64.0.0/12").Overlaps(n) {
			t.Errorf("where only 10.64.0.0/12 is left: %v, %v", n, err)
		}
	}
	if _, err := Propose(iotest.ErrReader(errors.New("no luck")), nil); err == nil {
		t.Error("proposed without chance")
	}
	if _, err := ProposeULA(bytes.NewReader([]byte{1, 2})); err == nil {
		t.Error("made an IPv6 network of too little chance")
	}
	six, err := ProposeULA(bytes.NewReader([]byte{1, 2, 3, 4, 5}))
	if err != nil || six.String() != "fd01:203:405::/64" {
		t.Errorf("ProposeULA = %v, %v", six, err)
	}
}

// TestUsual holds the list to its promises: no doubles, a reason each, and the
// networks that must be there.
func TestUsual(t *testing.T) {
	seen := map[Network]bool{}
	for _, u := range Usual() {
		if seen[u.Network] || u.Why == "" || u.Network.IsZero() {
			t.Errorf("%s: twice or without a reason", u.Network)
		}
		seen[u.Network] = true
	}
	for _, a := range []string{"192.168.0.9", "192.168.1.9", "192.168.2.9", "192.168.178.9", "10.0.0.9", "172.17.3.4", "100.99.1.1", "192.168.43.1", "172.20.10.2"} {
		if _, met := MetAway(MustParse(a + "/32")); !met {
			t.Errorf("%s is not on the list", a)
		}
	}
	for _, n := range []string{"192.168.71.0/24", "10.86.20.0/24", "172.20.11.0/24"} {
		if u, met := MetAway(MustParse(n)); met {
			t.Errorf("%s is said to be %s", n, u.Why)
		}
	}
	Usual()[0].Network = Network{}
	if Usual()[0].Network.IsZero() {
		t.Error("the caller can change the list")
	}
}

func TestPublic(t *testing.T) {
	for _, a := range addrs("203.0.113.7", "198.51.100.1", "192.0.2.1", "8.8.8.8", "2001:db8::1", "2a00::1", "172.32.0.1", "100.128.0.1", "::ffff:8.8.8.8") {
		if why := WhyNotPublic(a); why != "" || !IsPublic(a) {
			t.Errorf("%s is said to be %s", a, why)
		}
	}
	for _, a := range append(addrs("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.0", "100.127.255.255", "127.0.0.1", "169.254.9.9", "0.0.0.0",
		"192.0.0.2", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fd00::1", "fc00::1", "ff02::1", "64:ff9b::808:808", "::ffff:10.0.0.1"), netip.Addr{}) {
		if WhyNotPublic(a) == "" || IsPublic(a) {
			t.Errorf("%s is said to be public", a)
		}
	}
	if !IsCarrier(netip.MustParseAddr("100.64.0.1")) || IsCarrier(netip.MustParseAddr("100.128.0.1")) {
		t.Error("IsCarrier")
	}
}

func TestCollisions(t *testing.T) {
	list := []Named{
		{"a", MustParse("192.168.0.0/16")}, {"b", MustParse("10.0.0.0/24")}, {"none", Network{}}, {"c", MustParse("192.168.1.0/24")}, {"d", MustParse("192.168.1.0/24")}, {"e", MustParse("10.0.0.0/8")},
	}
	want := []struct{ a, b, why string }{
		{"a", "c", "lies inside it"}, {"a", "d", "lies inside it"}, {"b", "e", "contains it"}, {"c", "d", "is the same network"},
	}
	got := Collisions(list)
	if len(got) != len(want) {
		t.Fatalf("%d collisions: %v", len(got), got)
	}
	for i, w := range want {
		if got[i].A.Name != w.a || got[i].B.Name != w.b || got[i].Why != w.why {
			t.Errorf("collision %d is %v, want %v", i, got[i], w)
		}
	}
}

// TestCollisionsLaw compares with looking at every pair.
func TestCollisionsLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nets := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Network { // few addresses, so that many overlap
			return NetworkOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 3).Draw(t, "b")), byte(rapid.IntRange(0, 3).Draw(t, "c")), 0}), rapid.IntRange(6, 26).Draw(t, "bits")))
		}), 0, 9).Draw(t, "nets")
		var list []Named
		for i, n := range nets {
			list = append(list, Named{string(rune('a' + i)), n})
		}
		got := Collisions(list)
		for i := range list {
			for j := i + 1; j < len(list); j++ {
				if !nets[i].Overlaps(nets[j]) {
					continue
				}
				if len(got) == 0 || got[0].A != list[i] || got[0].B != list[j] {
					t.Fatalf("%v and %v overlap, told next: %v", list[i], list[j], got)
				}
				got = got[1:]
			}
		}
		if len(got) > 0 {
			t.Fatalf("no overlap, but told: %v", got)
		}
	})
}
