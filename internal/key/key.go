// Package key holds WireGuard's keys as three types, so that a private key
// cannot be passed where a public one belongs and cannot be printed by accident.
//
// A private or preshared key is kept inside a closure: the fmt package calls a
// type's Format method only where it can reach it through exported fields, and
// prints the raw bytes of a key that sits deeper. Behind a closure there is
// nothing to print. As a consequence the two secret types do not compare with ==;
// use Equal.
//
// The only way to the text of a secret is Reveal. Its callers are few: the
// writer of a peer's configuration, the writer of the router's own section, and
// the user-space peer.
package key

import (
	"crypto/ecdh"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Size is the length of every WireGuard key in bytes.
const Size = 32

// ErrSecret is returned when a secret is asked to write itself somewhere.
var ErrSecret = errors.New("a secret does not write itself; reveal it where it is meant to go")

// A FormatError says why a text is not a key. It never quotes the text, which
// may be a secret with a typing error in it.
type FormatError struct {
	Kind string // "private key", "public key", "preshared key"
	Why  string
}

func (e *FormatError) Error() string { return "not a " + e.Kind + ": " + e.Why }

// Private is an X25519 private key, clamped as `wg genkey` clamps: WireGuard's
// implementations hand back the clamped form, so an unclamped one would look
// changed for ever.
type Private struct{ get func() [Size]byte }

// Preshared is a symmetric key shared by the home router and one peer.
type Preshared struct{ get func() [Size]byte }

// Public is a peer's public key: its name in WireGuard. It compares with ==.
type Public struct{ b [Size]byte }

// NewPrivate makes a private key from r, clamped.
func NewPrivate(r io.Reader) (Private, error) {
	b, err := read(r)
	if err != nil {
		return Private{}, err
	}
	return privateOf(b), nil
}

// NewPreshared makes a preshared key from r.
func NewPreshared(r io.Reader) (Preshared, error) {
	b, err := read(r)
	if err != nil {
		return Preshared{}, err
	}
	return Preshared{func() [Size]byte { return b }}, nil
}

func read(r io.Reader) (b [Size]byte, err error) {
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return b, fmt.Errorf("making a key: %w", err)
	}
	return b, nil
}

func privateOf(b [Size]byte) Private {
	b[0] &= 248
	b[31] = b[31]&127 | 64
	return Private{func() [Size]byte { return b }}
}

// ParsePrivate reads the base64 form and clamps the key. The all-zero key, with
// which `wg set` takes a key away, is refused.
func ParsePrivate(s string) (Private, error) {
	b, err := decode("private key", s)
	if err != nil {
		return Private{}, err
	}
	if b == ([Size]byte{}) {
		return Private{}, &FormatError{"private key", "all zero"}
	}
	return privateOf(b), nil
}

// ParsePreshared reads the base64 form. The all-zero key, WireGuard's word for
// no preshared key, is refused: it would protect nothing.
func ParsePreshared(s string) (Preshared, error) {
	b, err := decode("preshared key", s)
	if err != nil {
		return Preshared{}, err
	}
	if b == ([Size]byte{}) {
		return Preshared{}, &FormatError{"preshared key", "all zero"}
	}
	return Preshared{func() [Size]byte { return b }}, nil
}

// ParsePublic reads the base64 form. The all-zero key, which no private key
// has, is refused.
func ParsePublic(s string) (Public, error) {
	b, err := decode("public key", s)
	if err != nil {
		return Public{}, err
	}
	if b == ([Size]byte{}) {
		return Public{}, &FormatError{"public key", "all zero"}
	}
	return Public{b}, nil
}

// decode is strict: 44 characters, padding included and with zero filler bits,
// so that one key has one text.
func decode(kind, s string) (b [Size]byte, err error) {
	const want = 44
	if len(s) != want {
		return b, &FormatError{kind, fmt.Sprintf("%d characters instead of %d", len(s), want)}
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != Size {
		return b, &FormatError{kind, "not base64"}
	}
	return [Size]byte(raw), nil
}

// IsZero reports whether there is no key at all.
func (k Private) IsZero() bool { return k.get == nil }

// IsZero reports whether there is no key at all.
func (k Preshared) IsZero() bool { return k.get == nil }

// IsZero reports whether there is no key at all.
func (k Public) IsZero() bool { return k == Public{} }

// Public computes the public half. The zero Private has the zero Public.
func (k Private) Public() Public {
	if k.IsZero() {
		return Public{}
	}
	b := k.get()
	p, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		panic("key: X25519 refused 32 bytes: " + err.Error()) // cannot happen: every 32 bytes are a key
	}
	return Public{[Size]byte(p.PublicKey().Bytes())}
}

// Reveal is the base64 text of the secret, "" for no key.
func (k Private) Reveal() string { return reveal(k.get) }

// Reveal is the base64 text of the secret, "" for no key.
func (k Preshared) Reveal() string { return reveal(k.get) }

func reveal(get func() [Size]byte) string {
	if get == nil {
		return ""
	}
	b := get()
	return base64.StdEncoding.EncodeToString(b[:])
}

// Bytes is the raw secret, for the user-space peer; all zero for no key.
func (k Private) Bytes() [Size]byte { return raw(k.get) }

// Bytes is the raw secret, for the user-space peer; all zero for no key, as
// WireGuard wants it.
func (k Preshared) Bytes() [Size]byte { return raw(k.get) }

func raw(get func() [Size]byte) (b [Size]byte) {
	if get != nil {
		b = get()
	}
	return b
}

// Bytes is the raw key.
func (k Public) Bytes() [Size]byte { return k.b }

// Equal compares in constant time; two absent keys are equal.
func (k Private) Equal(o Private) bool { return equal(k.get, o.get) }

// Equal compares in constant time; two absent keys are equal.
func (k Preshared) Equal(o Preshared) bool { return equal(k.get, o.get) }

func equal(a, b func() [Size]byte) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, y := a(), b()
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// String is the base64 text, "" for no key.
func (k Public) String() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.b[:])
}

// Short is enough of the key for a person to tell two apart.
func (k Public) Short() string {
	s := k.String()
	if len(s) < 8 {
		return s
	}
	return s[:8] + "…"
}

// MarshalText gives the base64 form.
func (k Public) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the base64 form.
func (k *Public) UnmarshalText(b []byte) error {
	p, err := ParsePublic(string(b))
	if err != nil {
		return err
	}
	*k = p
	return nil
}

// Format prints a placeholder under every verb.
func (Private) Format(f fmt.State, _ rune) { io.WriteString(f, "(private key)") }

// Format prints a placeholder under every verb.
func (Preshared) Format(f fmt.State, _ rune) { io.WriteString(f, "(preshared key)") }

// LogValue keeps the key out of structured logs.
func (Private) LogValue() slog.Value { return slog.StringValue("(private key)") }

// LogValue keeps the key out of structured logs.
func (Preshared) LogValue() slog.Value { return slog.StringValue("(preshared key)") }

// MarshalText refuses.
func (Private) MarshalText() ([]byte, error) { return nil, ErrSecret }

// MarshalText refuses.
func (Preshared) MarshalText() ([]byte, error) { return nil, ErrSecret }
