package uplink

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// response answers a challenge (RFC 7616 3.4; RFC 2069's form where there is no qop).
func (c challenge) response(l Login, method, uri string) string {
	user := l.User
	ha1 := sum(user + ":" + c.realm + ":" + l.password())
	ha2 := sum(method + ":" + uri)
	var b strings.Builder
	fmt.Fprintf(&b, "Digest username=%s, realm=%s, nonce=%s, uri=%s", quote(user), quote(c.realm), quote(c.nonce), quote(uri))
	if c.qop == "" {
		fmt.Fprintf(&b, `, response="%s"`, sum(ha1+":"+c.nonce+":"+ha2))
	} else {
		var r [8]byte
		rand.Read(r[:]) // never fails (Go 1.24)
		cnonce := hex.EncodeToString(r[:])
		fmt.Fprintf(&b, `, response="%s", qop=auth, nc=00000001, cnonce="%s"`, sum(ha1+":"+c.nonce+":00000001:"+cnonce+":auth:"+ha2), cnonce)
	}
	if c.algorithm != "" {
		b.WriteString(", algorithm=MD5")
	}
	if c.opaque != "" {
		b.WriteString(", opaque=" + quote(c.opaque))
	}
	return b.String()
}

// oldUser is what old FRITZ!OS calls "whoever knows the password" (AVM TR-064 First
// Steps 4.1).
const oldUser = "dslf-config"

// loginOf is the login with a user's name. People know their FRITZ!Box's password;
// the user that it belongs to has a name like fritz1234, made by the box, which
// tells it to everybody in the LAN. The caller holds the guard.
func (g *Gateway) loginOf(ctx context.Context, w way, addr netip.Addr, b *box) Login {
	l := *b.login
	if l.User != "" {
		return l
	}
	if b.guard.user == "" {
		b.guard.user = oldUser
		if s, ok := b.dev.of(avmUsers); ok {
			args, err := g.call(ctx, w, addr, &box{protocol: TR064, dev: b.dev}, s, "X_AVM-DE_GetUserList")
			if name := lastUser(args["NewX_AVM-DE_UserList"]); err == nil && name != "" {
				b.guard.user = name
			}
		}
	}
	l.User = b.guard.user
	return l
}

// lastUser reads a FRITZ!Box's list of users: who logged in last, which is also
// the one that the box made by itself, or the only one.
func lastUser(list string) string {
	var users struct {
		Username []struct {
			Last string `xml:"last_user,attr"`
			Name string `xml:",chardata"`
		}
	}
	if xml.Unmarshal([]byte(list), &users) != nil {
		return ""
	}
	name := ""
	for _, u := range users.Username {
		if u.Last == "1" || len(users.Username) == 1 {
			name = strings.TrimSpace(u.Name)
		}
	}
	if name != oneLine(name, 32) { // AVM's limit
		return ""
	}
	return name
}

func sum(s string) string { h := md5.Sum([]byte(s)); return hex.EncodeToString(h[:]) }

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", "", "\n", "").Replace(s) + `"`
}

// by does something with a box that maps ports, by one way after the other. A
// FRITZ!Box is first asked which of its connections is in use, by its own word
// (Layer3Forwarding GetDefaultConnectionService: "1.WANPPPConnection.1").
func (g *Gateway) by(ctx context.Context, b *box, f func(context.Context, way, *box) error) []Attempt {
	return g.over(ctx, b.protocol, b.way, func(ctx context.Context, w way) error {
		s, ok := b.dev.of(avmRoutes)
		if b.protocol != TR064 || !ok {
			return f(ctx, w, b)
		}
		args, err := g.call(ctx, w, g.Address, b, s, "GetDefaultConnectionService")
		if err != nil && code(err) != 401 { // Invalid Action: it does not tell
			return err
		}
		used := *b
		if strings.Contains(args["NewDefaultConnectionService"], "WANPPPConnection") {
			used.wan, _ = b.dev.of(avmPPP, avmIP)
		}
		return f(ctx, w, &used)
	})
}

// Name is a FRITZ!Box's MyFRITZ! name, "" when it has none. It needs a Login.
// Errors: *FailedError.
func (g *Gateway) Name(ctx context.Context) (string, error) {
	const what = "the MyFRITZ! name"
	if g.tr064 == nil {
		return "", &FailedError{What: what, Tried: []Attempt{{Protocol: TR064, Err: &NotPossibleError{"the ISP router does not speak it"}}}}
	}
	s, ok := g.tr064.dev.of(avmName)
	if !ok {
		return "", &FailedError{What: what, Tried: []Attempt{{Protocol: TR064, Err: &NotPossibleError{"this box has no MyFRITZ!"}}}}
	}
	var name string
	tried := g.over(ctx, TR064, g.tr064.way, func(ctx context.Context, w way) error {
		args, err := g.call(ctx, w, g.Address, g.tr064, s, "GetInfo")
		if err == nil && args["NewEnabled"] == "1" && isHostName(args["NewDynDNSName"]) {
			name = args["NewDynDNSName"]
		}
		return err
	})
	return name, failed(what, tried)
}

// isHostName keeps what a router says about a name from being anything else.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 || strings.HasPrefix(s, ".") || strings.HasPrefix(s, "-") {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == ""
}

// failed is the error of attempts of which the last one counts; nil when that
// worked. What the port's holder or the caller's context says goes through as it is.
func failed(what string, tried []Attempt) error {
	if len(tried) == 0 {
		return &FailedError{What: what, Tried: []Attempt{{Protocol: UPnP, Err: &NotPossibleError{"there is no way to the ISP router"}}}}
	}
	err := tried[len(tried)-1].Err
	var taken *ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &taken), errors.Is(err, context.Canceled):
		return err
	}
	return &FailedError{What: what, Tried: tried}
}
