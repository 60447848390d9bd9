package openwrt

import (
	"bytes"
	"fmt"
	"testing"
)

const testNonce = "00112233445566778899aabbccddeeff"

// framed writes a part as lib.sh does.
func framed(name string, body []byte, exit int) []byte {
	return fmt.Appendf(nil, "\n@%s begin %s\n%s\n@%s end %s %d\n", testNonce, name, body, testNonce, name, exit)
}

func TestCut(t *testing.T) {
	join := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	a, b := framed("a", []byte("one\ntwo\n"), 0), framed("b", nil, 3)
	for _, tt := range []struct {
		name string
		in   []byte
		want map[string]part
	}{
		{"two parts", join(a, b), map[string]part{"a": {[]byte("one\ntwo\n"), 0}, "b": {nil, 3}}},
		{"a banner before and noise between", join([]byte("BusyBox v1.36\n"), a, []byte("noise\n"), b, []byte("bye")), map[string]part{"a": {[]byte("one\ntwo\n"), 0}, "b": {nil, 3}}},
		{"no newline at the end of a body", framed("a", []byte("x"), 0), map[string]part{"a": {[]byte("x"), 0}}},
		{"only newlines", framed("a", []byte("\n\n"), 0), map[string]part{"a": {[]byte("\n\n"), 0}}},
		{"bytes of all kinds", framed("a", []byte("\x00\xff\r\n\x1b"), 0), map[string]part{"a": {[]byte("\x00\xff\r\n\x1b"), 0}}},
		{"cut in the body", a[:40+20], nil},
		{"cut in the end mark", a[:len(a)-8], nil},
		{"cut before the exit code", a[:len(a)-2], nil},
		{"cut in the second", join(a, b[:len(b)-12]), map[string]part{"a": {[]byte("one\ntwo\n"), 0}}},
		// A script that dies inside a part still says why in the next one.
		{"one that is not ended", join(a[:60], framed("failed", []byte("nospace x\n"), 0)), map[string]part{"failed": {[]byte("nospace x\n"), 0}}},
		{"one inside another", framed("a", framed("b", []byte("x"), 0), 0), map[string]part{"b": {[]byte("x"), 0}}},
		{"an end of another name", []byte("\n@" + testNonce + " begin a\nx\n@" + testNonce + " end b 0\n"), nil},
		{"an exit code that is none", []byte("\n@" + testNonce + " begin a\nx\n@" + testNonce + " end a zero\n"), nil},
		{"a forged frame", framed("a", []byte("\n@ffffffffffffffffffffffffffffffff end a 0\n"), 1), map[string]part{"a": {[]byte("\n@ffffffffffffffffffffffffffffffff end a 0\n"), 1}}},
		{"a mark in the middle of a line", framed("a", []byte("x@"+testNonce+" end a 0\n"), 1), map[string]part{"a": {[]byte("x@" + testNonce + " end a 0\n"), 1}}},
		{"nothing", nil, nil},
	} {
		got := cut(tt.in, testNonce)
		if len(got) != len(tt.want) {
			t.Errorf("%s: %d parts %v, want %d", tt.name, len(got), got, len(tt.want))
		}
		for name, w := range tt.want {
			if g, ok := got[name]; !ok || !bytes.Equal(g.out, w.out) || g.exit != w.exit {
				t.Errorf("%s: part %s is %q %d, want %q %d", tt.name, name, g.out, g.exit, w.out, w.exit)
			}
		}
	}
}

// FuzzCut: what was framed comes back byte for byte, whatever stands around it,
// and nothing makes it panic.
func FuzzCut(f *testing.F) {
	f.Add([]byte("config interface 'lan'\n"), []byte("noise"), 0)
	f.Add([]byte("\n\n@"+testNonce), []byte("\n@"+testNonce+" begin x\n"), 255)
	f.Add([]byte(""), []byte("\n@"+testNonce+" end a 0\n"), 1)
	f.Add([]byte("@"+testNonce+" end a 0\n"), []byte("\n@"+testNonce+" begin a"), 1)
	f.Fuzz(func(t *testing.T, body, around []byte, exit int) {
		cut(body, testNonce)
		cut(around, testNonce)
		ps := cut(append(bytes.Clone(around), framed("a", body, exit)...), testNonce)
		// The nonce is made per run: no output of the router can contain it.
		if bytes.Contains(body, []byte(testNonce)) || bytes.Contains(around, []byte(testNonce)) {
			return
		}
		if p, ok := ps["a"]; !ok || !bytes.Equal(p.out, body) || p.exit != exit {
			t.Errorf("%q %d came back as %q %d (there: %v)", body, exit, p.out, p.exit, ok)
		}
	})
}
