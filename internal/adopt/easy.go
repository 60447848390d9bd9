package adopt

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/key"
)

// easy is wg-easy's wg0.json (versions 7 to 14; 15 keeps a database instead). The
// port and the name that devices call are settings of its container and not in it.
type easy struct {
	Server struct {
		PrivateKey string
		Address    string
	}
	Clients map[string]struct {
		Name         string
		Address      string
		PrivateKey   string
		PublicKey    string
		PreSharedKey string
		Enabled      *bool
	}
}

// ParseEasy reads wg-easy's JSON. Errors are *GatewayError; they quote no value.
func ParseEasy(file string, text []byte) (Gateway, error) {
	fail := func(line int, msg string) (Gateway, error) {
		return Gateway{}, &GatewayError{File: file, Line: line, Msg: msg, Next: "name wg-easy's wg0.json (versions up to 14)"}
	}
	var e easy
	if err := json.Unmarshal(text, &e); err != nil {
		return fail(lineAt(text, err), "this is not wg-easy's JSON")
	}
	g := Gateway{File: file, line: lineOf(text, `"server"`)}
	var err error
	if g.Private, err = key.ParsePrivate(e.Server.PrivateKey); err != nil {
		return fail(g.line, "the server has no private key that WireGuard can read")
	}
	at, err := netip.ParseAddr(e.Server.Address)
	if err != nil || !at.Is4() {
		return fail(g.line, "the server's address cannot be read")
	}
	g.Addresses = []netip.Prefix{netip.PrefixFrom(at, 24)} // wg-easy's own mask
	for id, c := range e.Clients {
		d := GatewayDevice{Name: c.Name, Line: lineOf(text, `"`+id+`"`), Disabled: c.Enabled != nil && !*c.Enabled, Kept: c.PrivateKey != ""}
		if d.Key, err = key.ParsePublic(c.PublicKey); err != nil {
			return fail(d.Line, "a client has no public key that WireGuard can read")
		}
		if c.PreSharedKey != "" {
			if d.Preshared, err = key.ParsePreshared(c.PreSharedKey); err != nil {
				return fail(d.Line, "a client's preshared key is not a key")
			}
		}
		a, err := netip.ParseAddr(strings.TrimSuffix(c.Address, "/32"))
		if err != nil {
			return fail(d.Line, "a client's address cannot be read")
		}
		d.Allowed = []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
		g.Devices = append(g.Devices, d)
	}
	// JSON objects have no order; that of the addresses is the order of their making.
	slices.SortFunc(g.Devices, func(a, b GatewayDevice) int {
		return cmp.Or(a.Allowed[0].Addr().Compare(b.Allowed[0].Addr()), cmp.Compare(a.Line, b.Line), strings.Compare(a.Key.String(), b.Key.String()))
	})
	return g, nil
}

// lineAt finds the line of a mistake in JSON.
func lineAt(text []byte, err error) int {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	offset := int64(0)
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &typ):
		offset = typ.Offset
	}
	return 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
}

func lineOf(text []byte, word string) int {
	i := bytes.Index(text, []byte(word))
	if i < 0 {
		return 1
	}
	return 1 + bytes.Count(text[:i], []byte("\n"))
}
