package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func sshPair(t *testing.T) (public string, private []byte) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := must(ssh.MarshalPrivateKey(priv, ""))
	return string(ssh.MarshalAuthorizedKey(must(ssh.NewPublicKey(pub)))), pem.EncodeToMemory(block)
}

func TestSeal(t *testing.T) {
	x := must(age.GenerateX25519Identity())
	public, private := sshPair(t)
	_, otherPrivate := sshPair(t)
	secret := []byte("what makes the gateway")
	for _, c := range []struct {
		name string
		lock Lock
		kind Kind
		with Opener
		err  error
	}{
		{"passphrase", must(passphrase("three blind mice", 4)), ByPassphrase, must(WithPassphrase("three blind mice")), nil},
		{"other passphrase", must(passphrase("three blind mice", 4)), ByPassphrase, must(WithPassphrase("three blind mouse")), ErrNoMatch},
		{"recipient", must(Recipients(x.Recipient().String())), ByKey, must(WithIdentity([]byte(x.String()))), nil},
		{"SSH key", must(Recipients(public)), ByKey, must(WithIdentity(private)), nil},
		{"other SSH key", must(Recipients(public)), ByKey, must(WithIdentity(otherPrivate)), ErrNoMatch},
		{"one of two", must(Recipients(public, x.Recipient().String())), ByKey, must(WithIdentity(otherPrivate)).Or(must(WithIdentity([]byte(x.String())))), nil},
		{"passphrase for a key", must(Recipients(public)), ByKey, must(WithPassphrase("x")), ErrNoMatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, err := c.lock.Seal(secret)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(file, secret) || KindOf(file) != c.kind {
				t.Errorf("kind %v, or the text stands in it", KindOf(file))
			}
			got, err := c.with.Open(file)
			if !errors.Is(err, c.err) || c.err == nil && !bytes.Equal(got, secret) {
				t.Errorf("got %q, %v", got, err)
			}
			if c.err != nil {
				return
			}
			for _, at := range []int{0, len(file) / 2, len(file) - 1} {
				broken := bytes.Clone(file)
				broken[at] ^= 1
				if _, err := c.with.Open(broken); err == nil {
					t.Errorf("one bit flipped at %d, and it opens", at)
				}
			}
			if _, err := c.with.Open(file[:len(file)-1]); err == nil {
				t.Error("cut off, and it opens")
			}
		})
	}
	if KindOf([]byte("heimweg backup 1\n")) != Open {
		t.Error("what is not sealed counts as sealed")
	}
}

// What a passphrase locks takes work to guess: 2^16 rounds, once and no more.
func TestWork(t *testing.T) {
	file := must(must(Passphrase("x")).Seal([]byte("secret")))
	head, _, _ := strings.Cut(string(file), "\n---")
	if f := strings.Fields(head); len(f) < 5 || f[2] != "scrypt" || f[4] != "16" {
		t.Errorf("its head is %q", head)
	}
	if got, err := must(WithPassphrase("x")).Open(file); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A file may not ask for more work than ours do, four times over.
func TestMaxWork(t *testing.T) {
	file := string(must(must(passphrase("x", 4)).Seal([]byte("secret"))))
	for work, want := range map[string]error{"4": nil, "5": ErrNoMatch /* it did the work, for nothing */, "19": ErrDamaged} {
		head, rest, _ := strings.Cut(file, " 4\n")
		if _, err := must(WithPassphrase("x")).Open([]byte(head + " " + work + "\n" + rest)); !errors.Is(err, want) {
			t.Errorf("2^%s: %v, want %v", work, err, want)
		}
	}
}

func TestKeyErrors(t *testing.T) {
	secretKey := must(age.GenerateX25519Identity()).String()
	for _, f := range []func() error{
		func() error { _, err := Passphrase(""); return err },
		func() error { _, err := Recipients(); return err },
		func() error { _, err := Recipients("nonsense"); return err },
		func() error { _, err := Recipients(secretKey); return err },
		func() error { _, err := Recipients("ssh-ed25519 AAAA"); return err },
		func() error { _, err := WithIdentity([]byte("nonsense")); return err },
		func() error { _, err := WithIdentity([]byte("-----BEGIN OPENSSH PRIVATE KEY-----\n")); return err },
	} {
		err := f()
		var k *KeyError
		if !errors.As(err, &k) || strings.Contains(fmt.Sprint(err), secretKey[20:]) {
			t.Errorf("got %v", err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	x := must(age.GenerateX25519Identity())
	f.Add(must(must(Recipients(x.Recipient().String())).Seal([]byte("x"))))
	with := must(WithIdentity([]byte(x.String())))
	f.Fuzz(func(t *testing.T, p []byte) { KindOf(p); with.Open(p) })
}
