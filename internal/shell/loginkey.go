package shell

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A LoginKey is a key pair for logging in. Always ed25519: dropbear of OpenWrt
// takes no ECDSA key (its default build has none; facts: openwrt.md 3.1).
type LoginKey struct {
	private func() []byte // PEM
	// Authorized is the line for the router's authorized_keys, without newline.
	Authorized string
	signer     func() ssh.Signer
}

// MakeKey makes a login key from r. comment says whose it is.
func MakeKey(r io.Reader, comment string) (LoginKey, error) {
	if strings.ContainsAny(comment, "\r\n") {
		return LoginKey{}, fmt.Errorf("the comment of a key is one line")
	}
	// Read by hand: ed25519.GenerateKey ignores its reader since Go 1.26.
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(r, seed); err != nil {
		return LoginKey{}, fmt.Errorf("making a key: %w", err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return LoginKey{}, fmt.Errorf("making a key: %w", err)
	}
	text := pem.EncodeToMemory(block)
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return LoginKey{}, fmt.Errorf("making a key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if comment != "" {
		line += " " + comment
	}
	return LoginKey{func() []byte { return text }, line, func() ssh.Signer { return signer }}, nil
}

// ParseKey reads the file that Reveal was written to.
func ParseKey(text []byte) (LoginKey, error) {
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return LoginKey{}, fmt.Errorf("not a login key without passphrase")
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return LoginKey{func() []byte { return text }, line, func() ssh.Signer { return signer }}, nil
}

// Reveal is the private half in OpenSSH's PEM form, for a file of mode 0600.
func (k LoginKey) Reveal() []byte { return k.private() }

// Signer is the key as Auth takes it, behind a closure too: x/crypto's own type
// prints its bytes.
func (k LoginKey) Signer() ssh.Signer {
	return &lockedKey{pub: k.signer().PublicKey(), unlock: func() (ssh.Signer, error) { return k.signer(), nil }}
}

// IsZero reports whether there is no key.
func (k LoginKey) IsZero() bool { return k.private == nil }

// Format prints the public half only.
func (k LoginKey) Format(f fmt.State, _ rune) { io.WriteString(f, "(login key "+k.Authorized+")") }

// LogValue keeps the private half out of structured logs.
func (k LoginKey) LogValue() slog.Value { return slog.StringValue("(login key " + k.Authorized + ")") }
