package shadow

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Field is the password field of an account in the text of /etc/shadow; ok is
// false when there is no such account.
func Field(text []byte, account string) (field string, ok bool) {
	for l := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimRight(l, "\n"), ":")
		if len(f) > 1 && f[0] == account {
			return f[1], true
		}
	}
	return "", false
}

// Set puts a hash into the password field of an account and leaves every other
// byte of the text as it is.
func Set(text []byte, account, hash string) ([]byte, error) {
	if strings.ContainsAny(hash, ":\n\r") {
		return nil, errors.New("not a password hash")
	}
	var b strings.Builder
	done := false
	for l := range strings.Lines(string(text)) {
		name, rest, ok := strings.Cut(l, ":")
		if ok && name == account && !done {
			end := strings.IndexAny(rest, ":\n")
			if end < 0 {
				end = len(rest)
			}
			l = name + ":" + hash + rest[end:]
			done = true
		}
		b.WriteString(l)
	}
	if !done {
		return nil, fmt.Errorf("there is no account %s", account)
	}
	return []byte(b.String()), nil
}

// Letters of made passwords: easy to read aloud and to type, no two alike (no l,
// o, 0, 1), and no y and z, which keyboards of different countries swap.
const made = "abcdefghijkmnpqrstuvwx23456789"

// Password makes a password of 98 bits from r, in groups: "k3mpa-…". It is shown
// once.
func Password(r io.Reader) (string, error) {
	const groups, size = 4, 5
	var b strings.Builder
	one := make([]byte, 1)
	for n := 0; n < groups*size; {
		if _, err := io.ReadFull(r, one); err != nil {
			return "", fmt.Errorf("making a password: %w", err)
		}
		if int(one[0]) >= 256/len(made)*len(made) {
			continue // or the first letters would come more often
		}
		if n > 0 && n%size == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(made[int(one[0])%len(made)])
		n++
	}
	return b.String(), nil
}
