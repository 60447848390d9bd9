package owrt

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"strconv"
	"strings"
)

// The crypt(3) hashes that a router's /etc/shadow may hold: $1$ (MD5), $5$
// (SHA-256, busybox passwd's default on OpenWrt) and $6$ (SHA-512), after Ulrich
// Drepper's "Unix crypt using SHA-256 and SHA-512" and FreeBSD's md5crypt.

const cryptSet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// checkCrypt reports whether a password has that hash. A locked or foreign hash
// fits nothing; an empty one fits nothing either (the `none` login takes care of it).
func checkCrypt(hash, password string) bool {
	part := strings.Split(hash, "$")
	if len(part) < 4 || part[0] != "" {
		return false
	}
	salt, rounds := part[2], 0
	if r, ok := strings.CutPrefix(part[2], "rounds="); ok && len(part) > 4 {
		rounds, _ = strconv.Atoi(r)
		salt = part[3]
	}
	switch part[1] {
	case "1":
		return md5Crypt(password, salt) == hash
	case "5", "6":
		return shaCrypt(part[1], password, salt, rounds) == hash
	}
	return false
}

func b64(b *strings.Builder, v uint, n int) {
	for ; n > 0; n-- {
		b.WriteByte(cryptSet[v&63])
		v >>= 6
	}
}

func shaCrypt(id, password, salt string, rounds int) string {
	newHash := func() hash.Hash { return sha256.New() }
	if id == "6" {
		newHash = func() hash.Hash { return sha512.New() }
	}
	salt = salt[:min(len(salt), 16)]
	pw, sl := []byte(password), []byte(salt)
	h := newHash()
	size := h.Size()
	alt := newHash()
	alt.Write(pw)
	alt.Write(sl)
	alt.Write(pw)
	b := alt.Sum(nil)
	h.Write(pw)
	h.Write(sl)
	h.Write(repeat(b, len(pw)))
	for n := len(pw); n > 0; n >>= 1 {
		if n&1 != 0 {
			h.Write(b)
		} else {
			h.Write(pw)
		}
	}
	a := h.Sum(nil)
	dp := newHash()
	for range pw {
		dp.Write(pw)
	}
	p := repeat(dp.Sum(nil), len(pw))
	ds := newHash()
	for i := 0; i < 16+int(a[0]); i++ {
		ds.Write(sl)
	}
	s := repeat(ds.Sum(nil), len(sl))
	n := 5000
	if rounds > 0 {
		n = min(max(rounds, 1000), 999999999)
	}
	for i := 0; i < n; i++ {
		c := newHash()
		if i&1 != 0 {
			c.Write(p)
		} else {
			c.Write(a)
		}
		if i%3 != 0 {
			c.Write(s)
		}
		if i%7 != 0 {
			c.Write(p)
		}
		if i&1 != 0 {
			c.Write(a)
		} else {
			c.Write(p)
		}
		a = c.Sum(nil)
	}
	var out strings.Builder
	out.WriteString("$" + id + "$")
	if rounds > 0 {
		out.WriteString("rounds=" + strconv.Itoa(n) + "$")
	}
	out.WriteString(salt + "$")
	if id == "5" {
		i, j, k := 0, 10, 20
		for range 10 {
			b64(&out, uint(a[i])<<16|uint(a[j])<<8|uint(a[k]), 4)
			i, j, k = k+1, i+1, j+1
		}
		b64(&out, uint(a[31])<<8|uint(a[30]), 3)
		return out.String()
	}
	i, j, k := 0, 21, 42
	for range 21 {
		b64(&out, uint(a[i])<<16|uint(a[j])<<8|uint(a[k]), 4)
		i, j, k = j+1, k+1, i+1
	}
	b64(&out, uint(a[size-1]), 2)
	return out.String()
}

func repeat(b []byte, n int) []byte {
	var out []byte
	for len(out) < n {
		out = append(out, b...)
	}
	return out[:n]
}

func md5Crypt(password, salt string) string {
	salt = salt[:min(len(salt), 8)]
	pw, sl := []byte(password), []byte(salt)
	alt := md5.New()
	alt.Write(pw)
	alt.Write(sl)
	alt.Write(pw)
	b := alt.Sum(nil)
	h := md5.New()
	h.Write(pw)
	h.Write([]byte("$1$"))
	h.Write(sl)
	h.Write(repeat(b, len(pw)))
	for n := len(pw); n > 0; n >>= 1 {
		if n&1 != 0 {
			h.Write([]byte{0})
		} else {
			h.Write(pw[:1])
		}
	}
	a := h.Sum(nil)
	for i := 0; i < 1000; i++ {
		c := md5.New()
		if i&1 != 0 {
			c.Write(pw)
		} else {
			c.Write(a)
		}
		if i%3 != 0 {
			c.Write(sl)
		}
		if i%7 != 0 {
			c.Write(pw)
		}
		if i&1 != 0 {
			c.Write(a)
		} else {
			c.Write(pw)
		}
		a = c.Sum(nil)
	}
	var out strings.Builder
	out.WriteString("$1$" + salt + "$")
	for _, t := range [][3]int{{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}} {
		b64(&out, uint(a[t[0]])<<16|uint(a[t[1]])<<8|uint(a[t[2]]), 4)
	}
	b64(&out, uint(a[11]), 2)
	return out.String()
}
