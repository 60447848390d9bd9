// Package shadow makes and checks the password hashes of /etc/shadow, and edits
// that file's text: so that root's password reaches the home router only as its
// hash, over standard input, and never as a word in an argument list.
//
// It is pure: text and bytes in, text and bytes out.
//
// # Background
//
// OpenWrt's C library, musl, and with it dropbear, LuCI and busybox, understand
// $1$ (MD5), $5$ (SHA-256) and $6$ (SHA-512). The scheme of the last two is
// Ulrich Drepper's "Unix crypt using SHA-256 and SHA-512" (public domain, 2007,
// version 0.6): a salt, and a number of rounds that make guessing slow. An empty
// field lets root in without a password, which is how a fresh router is delivered; "*" or "!"
// let nobody in by password.
package shadow

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

const (
	// letters of hashes and salts, in the order of crypt(3).
	letters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

	defaultRounds = 5000
	minRounds     = 1000
	maxRounds     = 999999999
	saltLength    = 16

	// maxPassword is musl's limit (KEY_MAX in crypt_sha512.c); a longer one
	// would be hashed here and refused there.
	maxPassword = 256
)

// ErrPassword is returned for a password that the router could not check.
var ErrPassword = errors.New("a password has from 1 to 256 bytes, and no NUL byte or line break")

// Hash makes the SHA-512 hash ($6$, 5000 rounds) of a password, with a salt from
// r: what goes into the second field of /etc/shadow.
func Hash(r io.Reader, password string) (string, error) {
	if password == "" || len(password) > maxPassword || strings.ContainsAny(password, "\x00\n\r") {
		return "", ErrPassword
	}
	raw := make([]byte, saltLength)
	if _, err := io.ReadFull(r, raw); err != nil {
		return "", fmt.Errorf("making a salt: %w", err)
	}
	for i, b := range raw {
		raw[i] = letters[b%64]
	}
	return crypt512(password, string(raw), defaultRounds, false), nil
}

// Check reports whether a password fits the second field of a line of
// /etc/shadow. The empty field fits the empty password only. Fields of a form
// that OpenWrt does not know fit nothing.
func Check(field, password string) bool {
	if field == "" {
		return password == ""
	}
	var made string
	switch id, rest, ok := prefix(field); {
	case !ok:
		return false
	case id == "1":
		salt, _, _ := strings.Cut(rest, "$")
		made = cryptMD5(password, salt)
	default:
		rounds, given, salt := settings(rest)
		if id == "5" {
			made = crypt256(password, salt, rounds, given)
		} else {
			made = crypt512(password, salt, rounds, given)
		}
	}
	return subtle.ConstantTimeCompare([]byte(made), []byte(field)) == 1
}

func prefix(field string) (id, rest string, ok bool) {
	if len(field) < 3 || field[0] != '$' || field[2] != '$' || !strings.Contains("156", field[1:2]) {
		return "", "", false
	}
	return field[1:2], field[3:], true
}

// settings reads "rounds=N$salt$…" or "salt$…". Numbers outside the range count
// as its ends, as the scheme says.
func settings(s string) (rounds int, given bool, salt string) {
	rounds = defaultRounds
	if v, ok := strings.CutPrefix(s, "rounds="); ok {
		if number, rest, ok := strings.Cut(v, "$"); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				rounds, given, s = int(min(max(n, minRounds), maxRounds)), true, rest
			}
		}
	}
	salt, _, _ = strings.Cut(s, "$")
	return rounds, given, salt
}

// The order in which the bytes of the last digest are written, three at a time.
var (
	order512 = [][3]int{
		{0, 21, 42}, {22, 43, 1}, {44, 2, 23}, {3, 24, 45}, {25, 46, 4}, {47, 5, 26}, {6, 27, 48},
		{28, 49, 7}, {50, 8, 29}, {9, 30, 51}, {31, 52, 10}, {53, 11, 32}, {12, 33, 54}, {34, 55, 13},
		{56, 14, 35}, {15, 36, 57}, {37, 58, 16}, {59, 17, 38}, {18, 39, 60}, {40, 61, 19}, {62, 20, 41},
	}
	order256 = [][3]int{
		{0, 10, 20}, {21, 1, 11}, {12, 22, 2}, {3, 13, 23}, {24, 4, 14},
		{15, 25, 5}, {6, 16, 26}, {27, 7, 17}, {18, 28, 8}, {9, 19, 29},
	}
)

func crypt512(password, salt string, rounds int, given bool) string {
	d, salt := digest(sha512.New, password, salt, rounds)
	var b strings.Builder
	head(&b, "6", salt, rounds, given)
	for _, o := range order512 {
		encode(&b, d[o[0]], d[o[1]], d[o[2]], 4)
	}
	encode(&b, 0, 0, d[63], 2)
	return b.String()
}

func crypt256(password, salt string, rounds int, given bool) string {
	d, salt := digest(sha256.New, password, salt, rounds)
	var b strings.Builder
	head(&b, "5", salt, rounds, given)
	for _, o := range order256 {
		encode(&b, d[o[0]], d[o[1]], d[o[2]], 4)
	}
	encode(&b, 0, d[31], d[30], 3)
	return b.String()
}

func head(b *strings.Builder, id, salt string, rounds int, given bool) {
	b.WriteString("$" + id + "$")
	if given {
		fmt.Fprintf(b, "rounds=%d$", rounds)
	}
	b.WriteString(salt + "$")
}

// encode writes n letters of three bytes, lowest bits first.
func encode(b *strings.Builder, x, y, z byte, n int) {
	v := uint(x)<<16 | uint(y)<<8 | uint(z)
	for range n {
		b.WriteByte(letters[v&63])
		v >>= 6
	}
}

// digest is the scheme itself, by its numbered steps.
func digest(sum func() hash.Hash, password, salt string, rounds int) ([]byte, string) {
	if len(salt) > saltLength {
		salt = salt[:saltLength]
	}
	p, s := []byte(password), []byte(salt)
	of := func(parts ...[]byte) []byte {
		h := sum()
		for _, b := range parts {
			h.Write(b)
		}
		return h.Sum(nil)
	}
	alternate := of(p, s, p) // 4–8
	a := sum()               // 1–3
	a.Write(p)
	a.Write(s)
	a.Write(repeat(alternate, len(p))) // 9–10
	for n := len(p); n > 0; n >>= 1 {  // 11
		if n&1 == 1 {
			a.Write(alternate)
		} else {
			a.Write(p)
		}
	}
	out := a.Sum(nil) // 12
	h := sum()        // 13–16
	for range len(p) {
		h.Write(p)
	}
	ps := repeat(h.Sum(nil), len(p))
	h = sum() // 17–20
	for range 16 + int(out[0]) {
		h.Write(s)
	}
	ss := repeat(h.Sum(nil), len(s))
	for i := range rounds { // 21
		h.Reset()
		odd := i&1 == 1
		if odd {
			h.Write(ps)
		} else {
			h.Write(out)
		}
		if i%3 != 0 {
			h.Write(ss)
		}
		if i%7 != 0 {
			h.Write(ps)
		}
		if odd {
			h.Write(out)
		} else {
			h.Write(ps)
		}
		out = h.Sum(out[:0])
	}
	return out, salt
}

// repeat is the first n bytes of b, b, b….
func repeat(b []byte, n int) []byte {
	out := make([]byte, 0, n+len(b))
	for len(out) < n {
		out = append(out, b...)
	}
	return out[:n]
}

// cryptMD5 is the old $1$ scheme of FreeBSD (Poul-Henning Kamp, 1994). It is only
// for checking; nothing here makes such a hash to keep.
func cryptMD5(password, salt string) string {
	if len(salt) > 8 {
		salt = salt[:8]
	}
	inner := md5.Sum([]byte(password + salt + password))
	h := md5.New()
	io.WriteString(h, password+"$1$"+salt)
	h.Write(repeat(inner[:], len(password)))
	for n := len(password); n > 0; n >>= 1 {
		if n&1 == 1 {
			h.Write([]byte{0})
		} else {
			io.WriteString(h, password[:1])
		}
	}
	out := h.Sum(nil)
	for i := range 1000 {
		h.Reset()
		odd := i&1 == 1
		if odd {
			io.WriteString(h, password)
		} else {
			h.Write(out)
		}
		if i%3 != 0 {
			io.WriteString(h, salt)
		}
		if i%7 != 0 {
			io.WriteString(h, password)
		}
		if odd {
			h.Write(out)
		} else {
			io.WriteString(h, password)
		}
		out = h.Sum(out[:0])
	}
	var b strings.Builder
	b.WriteString("$1$" + salt + "$")
	for i := range 5 {
		last := i + 12
		if i == 4 {
			last = 5
		}
		encode(&b, out[i], out[i+6], out[last], 4)
	}
	encode(&b, 0, 0, out[11], 2)
	return b.String()
}
