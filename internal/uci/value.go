package uci

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Redacted is what a secret value shows instead of itself.
const Redacted = "(secret)"

// A Value is the text of an option or of one list item. A secret one keeps its
// text behind a closure, so that no way of printing gets at it, however deep the
// value is buried in other structures (see package key).
type Value struct {
	plain  string
	secret func() string
}

// V is a plain value.
func V(text string) Value { return Value{plain: text} }

// Hidden is a secret value.
func Hidden(secret string) Value { return Value{secret: func() string { return secret }} }

// IsSecret reports whether the value refuses to print.
func (v Value) IsSecret() bool { return v.secret != nil }

// Reveal is the text, secret or not. Its callers write it to the router or
// compare it; none shows it.
func (v Value) Reveal() string {
	if v.secret != nil {
		return v.secret()
	}
	return v.plain
}

// Equal compares the texts.
func (v Value) Equal(o Value) bool {
	if v.secret == nil && o.secret == nil {
		return v.plain == o.plain
	}
	return subtle.ConstantTimeCompare([]byte(v.Reveal()), []byte(o.Reveal())) == 1
}

// String is the text, or "(secret)".
func (v Value) String() string {
	if v.secret != nil {
		return Redacted
	}
	return v.plain
}

// Format prints String under every verb; %q quotes it.
func (v Value) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", v.String())
		return
	}
	io.WriteString(f, v.String())
}

// MarshalJSON writes String. There is no way back: a plan that was saved takes
// its secrets from where they are kept.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal(v.String()) }

// LogValue logs String.
func (v Value) LogValue() slog.Value { return slog.StringValue(v.String()) }

// SecretOption reports whether options of this name hold secrets, whatever
// package they are in: WireGuard keys, Wi-Fi and PPP passwords, tokens, PINs.
// Too wide rather than too narrow: a hidden path is a nuisance, a shown key a loss.
func SecretOption(name string) bool {
	n := strings.ToLower(name)
	switch n {
	case "key", "key1", "key2", "key3", "key4", "psk", "pin", "pincode", "pass", "private_key", "preshared_key", "privkey", "presharedkey":
		return true
	case "public_key", "publickey", "pubkey":
		return false
	}
	for _, part := range []string{"passw", "passphrase", "secret", "token", "psk", "private_key", "preshared", "credential", "apikey", "api_key"} {
		if strings.Contains(n, part) {
			return true
		}
	}
	return strings.HasSuffix(n, "_key") && !strings.HasSuffix(n, "public_key")
}

// valueOf makes a value of an option's text, hidden if the option's name says so.
func valueOf(option, text string) Value {
	if SecretOption(option) {
		return Hidden(text)
	}
	return V(text)
}
