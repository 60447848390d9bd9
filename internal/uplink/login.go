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

// NewLogin makes a login. Without a user, the box is asked who logs in there
// usually: most people know the password only.
func NewLogin(user, password string) *Login {
	return &Login{User: user, password: func() string { return password }}
}

// Format prints the user only.
func (l *Login) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "login of %q", l.User) }

// LogValue keeps the password out of structured logs.
func (l *Login) LogValue() slog.Value { return slog.StringValue("login of " + l.User) }

// MarshalJSON writes the user only.
func (l *Login) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "{\"user\":%q}", l.User), nil }
