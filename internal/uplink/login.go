package uplink

import (
	"fmt"
	"log/slog"
)

// A Login is a FRITZ!Box user with a password. It prints the user only.
type Login struct {
	User     string
	password func() string
}

// NewLogin makes a login. An empty user is the one that a FRITZ!Box calls by its
// own choice, as it does for boxes where only a password is set.
func NewLogin(user, password string) *Login {
	return &Login{User: user, password: func() string { return password }}
}

// Format prints the user only.
func (l *Login) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "login of %q", l.User) }

// LogValue keeps the password out of structured logs.
func (l *Login) LogValue() slog.Value { return slog.StringValue("login of " + l.User) }

// MarshalJSON writes the user only.
func (l *Login) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "{\"user\":%q}", l.User), nil }
