package cli

import (
	"cmp"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/uci"
)

// ddnsVariable holds the password at the DDNS service where nobody can type it.
const ddnsVariable = "HEIMWEG_DDNS_PASSWORD"

// ddnsPassword asks for the password at the service that keeps the home's name. It
// goes to the router and is kept nowhere else.
func (a *app) ddnsPassword(d home.DDNS) (uci.Value, error) {
	text := a.Getenv(ddnsVariable)
	if text == "" {
		if !a.Terminal.IsTerminal() {
			return uci.Value{}, needsPerson("the password at "+cmp.Or(d.Service, "the service")+" for "+d.Name, ddnsVariable+" in the environment")
		}
		a.sayf("The home router tells %s its address; for that it needs the password or token there. It is kept on the router only.",
			cmp.Or(d.Service, "the service"))
		var err error
		if text, err = a.secret("Password or token for " + d.Name + ":"); err != nil {
			return uci.Value{}, err
		}
	}
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return uci.Value{}, fault.NewUsage("ddns-password", "that cannot be the password at the service").
			Because("it is empty, or has a line end or another sign in it that nobody can type").
			Do("copy it from the service's page and run the same command again")
	}
	return uci.Hidden(text), nil
}
