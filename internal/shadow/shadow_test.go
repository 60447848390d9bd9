package shadow

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/check/need"
)

// The published vectors of the scheme (SHA-crypt.txt, version 0.6): settings,
// password, result.
var published = []struct{ settings, password, want string }{
	{"$6$saltstring", "Hello world!", "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"},
	{"$6$rounds=10000$saltstringsaltstring", "Hello world!", "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."},
	{"$6$rounds=5000$toolongsaltstring", "This is just a test", "$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0"},
	{"$6$rounds=1400$anotherlongsaltstring", "a very much longer text to encrypt.  This one even stretches over morethan one line.", "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1"},
	{"$6$rounds=77777$short", "we have a short salt string but not a short password", "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0"},
	{"$6$rounds=123456$asaltof16chars..", "a short string", "$6$rounds=123456$asaltof16chars..$BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevoBK25fs2xXgMNrCzIMVcgEJAstJeonj1"},
	{"$6$rounds=10$roundstoolow", "the minimum number is still observed", "$6$rounds=1000$roundstoolow$kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHHrsX."},
	{"$5$saltstring", "Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"},
	{"$5$rounds=10000$saltstringsaltstring", "Hello world!", "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"},
	{"$5$rounds=77777$short", "we have a short salt string but not a short password", "$5$rounds=77777$short$JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/"},
	{"$5$rounds=10$roundstoolow", "the minimum number is still observed", "$5$rounds=1000$roundstoolow$yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC"},
}

func TestPublishedVectors(t *testing.T) {
	for _, tt := range published {
		id, rest, _ := prefix(tt.settings)
		rounds, given, salt := settings(rest)
		made := crypt512
		if id == "5" {
			made = crypt256
		}
		if got := made(tt.password, salt, rounds, given); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.settings, got, tt.want)
		}
	}
}

// A second implementation, where there is one.
func TestOpenSSLAgrees(t *testing.T) {
	openssl := need.Program(t, "openssl")
	for _, password := range []string{"a", "hunter2", "Küche mit ☂", strings.Repeat("0123456789", 7), strings.Repeat("x", 64), strings.Repeat("y", 127)} {
		for _, id := range []string{"1", "5", "6"} {
			for _, salt := range []string{"s", "saltsalt"} {
				cmd := exec.Command(openssl, "passwd", "-"+id, "-salt", salt, "-stdin")
				cmd.Stdin = strings.NewReader(password + "\n")
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				field := strings.TrimSpace(string(out))
				if !Check(field, password) {
					t.Errorf("%q does not fit %s", password, field)
				}
				if Check(field, password+"x") || Check(field, "") {
					t.Errorf("another password fits %s", field)
				}
			}
		}
	}
}

func TestHashAndCheck(t *testing.T) {
	a, err := Hash(rand.Reader, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Hash(rand.Reader, "correct horse")
	if a == b || !strings.HasPrefix(a, "$6$") || len(a) != 3+saltLength+1+86 {
		t.Errorf("%s, %s", a, b)
	}
	if !Check(a, "correct horse") || Check(a, "correct hors") || Check(a, "") {
		t.Error("does not check")
	}
	for field, fits := range map[string]bool{"": true, "*": false, "!": false, "x": false, "$6$": false, "$6$salt": false, "$7$a$b": false, "$6$rounds=x$a$": false, "$1$": false} {
		if Check(field, "") != fits {
			t.Errorf("the empty password and the field %q", field)
		}
	}
	for _, bad := range []string{"", "a\nb", "a\x00b", strings.Repeat("x", 257)} {
		if h, err := Hash(rand.Reader, bad); !errors.Is(err, ErrPassword) || h != "" {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := Hash(bytes.NewReader(nil), "x"); err == nil {
		t.Error("a salt from nothing")
	}
}

func TestFile(t *testing.T) {
	// As OpenWrt ships it (package/base-files/files/etc/shadow).
	text := "root:::0:99999:7:::\ndaemon:*:0:0:99999:7:::\nftp:*:0:0:99999:7:::\nrooted:x\n"
	if f, ok := Field([]byte(text), "root"); !ok || f != "" {
		t.Errorf("%q, %t", f, ok)
	}
	got, err := Set([]byte(text), "root", "$6$a$b")
	if want := strings.Replace(text, "root::", "root:$6$a$b:", 1); err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if f, ok := Field(got, "root"); !ok || f != "$6$a$b" {
		t.Errorf("%q, %t", f, ok)
	}
	if got, err := Set([]byte("a:b"), "a", "c"); err != nil || string(got) != "a:c" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Set([]byte(text), "roo", "x"); err == nil {
		t.Error("an account that is not there")
	}
	if _, err := Set([]byte(text), "root", "a:b"); err == nil {
		t.Error("a hash with a colon")
	}
	if _, ok := Field([]byte(text), "nobody"); ok {
		t.Error("nobody is there")
	}
}

func TestPassword(t *testing.T) {
	seen := map[string]bool{}
	counts := map[rune]int{}
	for range 2000 {
		p, err := Password(rand.Reader)
		if err != nil || len(p) != 23 || seen[p] {
			t.Fatalf("%q, %v", p, err)
		}
		seen[p] = true
		for _, r := range strings.ReplaceAll(p, "-", "") {
			counts[r]++
		}
	}
	for _, r := range made { // 1333 expected of each; 8 standard deviations
		if n := counts[r]; n < 1050 || n > 1620 {
			t.Errorf("%c came %d times", r, n)
		}
	}
	if len(counts) != len(made) {
		t.Errorf("%d letters", len(counts))
	}
	if _, err := Password(bytes.NewReader([]byte{255, 255, 1})); err == nil {
		t.Error("a password from nothing")
	}
}

func FuzzCheck(f *testing.F) {
	for _, v := range published[:2] {
		f.Add(v.want, v.password)
	}
	f.Add("$1$a$", "x")
	f.Add("$6$rounds=1000$$", "")
	f.Fuzz(func(t *testing.T, field, password string) {
		if strings.Contains(field, "rounds=") && len(field) > 20 {
			return // slow by design
		}
		if len(password) < 300 && field != "" && field != "*" {
			Check(field, password)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	for b.Loop() {
		if _, err := Hash(rand.Reader, "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}
