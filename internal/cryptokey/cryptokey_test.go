package cryptokey

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/heimweg/heimweg/internal/key"
)

func pub(t testing.TB, n int) key.Public {
	t.Helper()
	seed := bytes.Repeat([]byte{7}, key.Size)
	binary.BigEndian.PutUint32(seed[8:], uint32(n))
	k, err := key.NewPrivate(bytes.NewReader(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// fake makes many different keys quickly: a table only compares them.
func fake(t testing.TB, n int) key.Public {
	t.Helper()
	raw := make([]byte, key.Size)
	binary.BigEndian.PutUint32(raw, uint32(n)+1)
	k, err := key.ParsePublic(b64(raw))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func nets(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range s {
		out = append(out, netip.MustParsePrefix(x))
	}
	return out
}

func ip(s string) netip.Addr     { return netip.MustParseAddr(s) }
func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func second(n float64) time.Time { return time.Unix(1000, int64(n*1e9)) }
func choice(t *Table, a string) string {
	k, n, ok := t.Choose(ip(a))
	if !ok {
		return "nobody"
	}
	return k.Short() + " by " + n.String()
}

// The example of wireguard.com and of the blog post: 192.168.30.8 is meant for
// ABCDEFGH; LMNOPQRS may send as 192.168.43.89.
func TestTheExplanation(t *testing.T) {
	abc, lmn := pub(t, 1), pub(t, 2)
	tab, moved := Of([]Peer{
		{Key: abc, Allowed: nets("192.168.30.0/24"), Endpoint: at("216.58.211.110:53133")},
		{Key: lmn, Allowed: nets("192.168.43.0/24")},
	})
	if len(moved) > 0 {
		t.Errorf("moved: %v", moved)
	}
	if k, _, ok := tab.Choose(ip("192.168.30.8")); !ok || k != abc {
		t.Errorf("for %v", k)
	}
	if p, _ := tab.Peer(abc); p.Endpoint != at("216.58.211.110:53133") {
		t.Errorf("sent to %v", p.Endpoint)
	}
	if _, _, ok := tab.Choose(ip("10.10.10.230")); ok {
		t.Error("somebody got a packet that is for nobody")
	}
	if a := tab.Receive(lmn, at("98.139.183.24:7361"), ip("192.168.43.89")); !a.Allowed {
		t.Errorf("refused: %+v", a)
	}
	if p, _ := tab.Peer(lmn); p.Endpoint != at("98.139.183.24:7361") {
		t.Errorf("its endpoint is %v", p.Endpoint)
	}
	if a := tab.Receive(lmn, at("98.139.183.25:7361"), ip("192.168.30.8")); a.Allowed || a.Owner != abc || !a.Known {
		t.Errorf("a stolen source: %+v", a)
	}
	// The key was right, so the endpoint has moved all the same (receive.c).
	if p, _ := tab.Peer(lmn); p.Endpoint != at("98.139.183.25:7361") {
		t.Errorf("its endpoint is %v", p.Endpoint)
	}
	if a := tab.Receive(pub(t, 3), at("192.0.2.1:1"), ip("192.168.43.89")); a.Allowed || a.Known {
		t.Errorf("a stranger: %+v", a)
	}
	if a := tab.Judge(lmn, ip("172.16.0.1")); a.Allowed || !a.Known || a.Network.IsValid() {
		t.Errorf("a source of nobody: %+v", a)
	}
}

func TestLongestAndLast(t *testing.T) {
	phone, tablet, all := pub(t, 1), pub(t, 2), pub(t, 3)
	tab := &Table{}
	tab.Set(all, nets("0.0.0.0/0", "::/0"))
	tab.Set(tablet, nets("10.86.20.77/24")) // the classic: bits beyond the mask are dropped
	tab.Set(phone, nets("10.86.20.2/32", "fd00::2/128"))
	for a, want := range map[string]string{
		"10.86.20.2": phone.Short() + " by 10.86.20.2/32", "10.86.20.3": tablet.Short() + " by 10.86.20.0/24",
		"9.9.9.9": all.Short() + " by 0.0.0.0/0", "fd00::2": phone.Short() + " by fd00::2/128", "2001:db8::1": all.Short() + " by ::/0",
		"::ffff:10.86.20.2": phone.Short() + " by 10.86.20.2/32",
	} {
		if got := choice(tab, a); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
	moved := tab.Set(tablet, nets("10.86.20.2/32", "10.86.20.2/32"))
	if len(moved) != 1 || moved[0] != (Moved{nets("10.86.20.2/32")[0], phone}) {
		t.Errorf("moved: %v", moved)
	}
	if got := choice(tab, "10.86.20.3"); got != all.Short()+" by 0.0.0.0/0" {
		t.Errorf("the old network stayed: %s", got)
	}
	if p, _ := tab.Peer(phone); !slices.Equal(p.Allowed, nets("fd00::2/128")) {
		t.Errorf("phone keeps %v", p.Allowed)
	}
	if a := tab.Judge(phone, ip("10.86.20.2")); a.Allowed || a.Owner != tablet {
		t.Errorf("%+v", a)
	}
	if !tab.Remove(tablet) || tab.Remove(tablet) || tab.Len() != 2 {
		t.Error("remove")
	}
	if got := choice(tab, "10.86.20.2"); got != all.Short()+" by 0.0.0.0/0" {
		t.Errorf("after remove: %s", got)
	}
	var none Table
	if _, _, ok := none.Choose(netip.Addr{}); ok || choice(&none, "1.1.1.1") != "nobody" {
		t.Error("the empty table")
	}
	if _, _, ok := tab.Choose(netip.Addr{}); ok {
		t.Error("no address at all has a peer")
	}
}

// Whatever is done to it, the table answers as a plain search through all peers
// would.
func TestLikeASearch(t *testing.T) {
	keys := []key.Public{pub(t, 1), pub(t, 2), pub(t, 3), pub(t, 4)}
	rapid.Check(t, func(r *rapid.T) {
		var tab Table
		plain := map[netip.Prefix]key.Public{}
		prefix := rapid.Custom(func(r *rapid.T) netip.Prefix {
			if rapid.Bool().Draw(r, "six") {
				a := netip.AddrFrom16([16]byte{0: 0xfd, 15: rapid.Byte().Draw(r, "last")})
				return netip.PrefixFrom(a, rapid.IntRange(0, 128).Draw(r, "bits"))
			}
			a := netip.AddrFrom4([4]byte{10, 0, rapid.ByteRange(0, 1).Draw(r, "third"), rapid.Byte().Draw(r, "last")})
			return netip.PrefixFrom(a, rapid.IntRange(0, 32).Draw(r, "bits"))
		})
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			k := rapid.SampledFrom(keys).Draw(r, "peer")
			for n, o := range plain {
				if o == k {
					delete(plain, n)
				}
			}
			if rapid.IntRange(0, 5).Draw(r, "remove") == 0 {
				tab.Remove(k)
				continue
			}
			list := rapid.SliceOfN(prefix, 0, 4).Draw(r, "allowed")
			tab.Set(k, list)
			for _, n := range list {
				plain[n.Masked()] = k
			}
		}
		a := prefix.Draw(r, "destination").Addr()
		var best netip.Prefix
		for n := range plain {
			if n.Contains(a) && (!best.IsValid() || n.Bits() > best.Bits()) {
				best = n
			}
		}
		k, n, ok := tab.Choose(a)
		if ok != best.IsValid() || ok && (n != best || k != plain[best]) {
			r.Fatalf("%s: %v by %v, want %v by %v", a, k, n, plain[best], best)
		}
		for _, peer := range keys {
			if got := tab.Judge(peer, a); got.Allowed != (ok && peer == k) {
				r.Fatalf("%s may send as %s: %+v", peer.Short(), a, got)
			}
		}
		total := 0
		for _, k := range tab.Keys() {
			p, _ := tab.Peer(k)
			total += len(p.Allowed)
		}
		if total != len(plain) {
			r.Fatalf("%d networks, want %d", total, len(plain))
		}
	})
}

func TestWatch(t *testing.T) {
	a, b := at("198.51.100.2:1001"), at("203.0.113.9:2002")
	for _, c := range []struct {
		name string
		list []Sample
		want Moves
		n    int
	}{
		{"never heard", []Sample{{second(0), netip.AddrPort{}}}, Silent, 0},
		{"stays", []Sample{{second(0), a}, {second(1), a}}, Steady, 1},
		{"from Wi-Fi to mobile", []Sample{{second(0), a}, {second(1), b}, {second(2), b}}, Roamed, 2},
		{"two with one key", []Sample{{second(0), a}, {second(1), b}, {second(2), a}}, Shared, 2},
		{"a gap between", []Sample{{second(0), a}, {second(1), netip.AddrPort{}}, {second(2), b}, {second(3), a}}, Shared, 2},
		{"out and home again", []Sample{{second(0), a}, {second(1), b}, {second(200), a}}, Roamed, 2},
	} {
		if got, seen := Watch(c.list); got != c.want || len(seen) != c.n {
			t.Errorf("%s: %s at %v", c.name, got, seen)
		}
	}
}

func crowd(b *testing.B, n int) *Table {
	b.Helper()
	tab := &Table{}
	for i := range n {
		host := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		list := []netip.Prefix{netip.PrefixFrom(host, 32)}
		if i%10 == 0 { // a branch office
			list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i>>12), byte(i >> 4), 0}), 28).Masked())
		}
		tab.Set(fake(b, i), list)
	}
	return tab
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab := crowd(b, n)
			r := rand.New(rand.NewPCG(1, 2))
			var dst [1024]netip.Addr
			for i := range dst {
				x := r.IntN(n)
				dst[i] = netip.AddrFrom4([4]byte{10, byte(x >> 16), byte(x >> 8), byte(x)})
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, _, ok := tab.Choose(dst[i&1023]); !ok {
					b.Fatal("nobody")
				}
				i++
			}
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	tab := crowd(b, 10_000)
	k, from, src := fake(b, 4711), at("198.51.100.2:4711"), netip.AddrFrom4([4]byte{10, 0, 4711 >> 8, 4711 & 255})
	b.ReportAllocs()
	for b.Loop() {
		if !tab.Receive(k, from, src).Allowed {
			b.Fatal("refused")
		}
	}
}

func BenchmarkSet(b *testing.B) {
	for b.Loop() {
		crowd(b, 10_000)
	}
}

func b64(raw []byte) string { return base64.StdEncoding.EncodeToString(raw) }
