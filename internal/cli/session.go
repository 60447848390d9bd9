package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/shadow"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/view"
)

// folder is heimweg's own folder on this computer: the pinned host keys and our
// login key.
func (a *app) folder() (string, error) {
	if a.Config != "" {
		return a.Config, nil
	}
	if d := a.Getenv("HEIMWEG_CONFIG"); d != "" {
		return d, nil
	}
	d, err := os.UserConfigDir()
	if err != nil {
		return "", fault.New("no-config-folder", "this computer has no place for settings").Saw("%s", err).
			Do("set HEIMWEG_CONFIG to a folder of yours")
	}
	return filepath.Join(d, "heimweg"), nil
}

// loginKey is our own key, made at first use.
func (a *app) loginKey() (shell.LoginKey, error) {
	dir, err := a.folder()
	if err != nil {
		return shell.LoginKey{}, err
	}
	path := filepath.Join(dir, "id_ed25519")
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		k, err := shell.ParseKey(text)
		if err != nil {
			return shell.LoginKey{}, fault.New("bad-login-key", "%s is not a login key", path).From(err).
				Do("move it away; heimweg makes a new one and asks for root's password once")
		}
		return k, nil
	case !errors.Is(err, os.ErrNotExist):
		return shell.LoginKey{}, err
	}
	k, err := shell.MakeKey(a.Rand, "heimweg")
	if err != nil {
		return shell.LoginKey{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return shell.LoginKey{}, err
	}
	return k, store.Create(path, k.Reveal(), 0o600)
}

// options are how to log in: our own key, the person's, the password.
func (a *app) options() (shell.Options, shell.LoginKey, error) {
	own, err := a.loginKey()
	if err != nil {
		return shell.Options{}, own, err
	}
	dir, err := a.folder()
	if err != nil {
		return shell.Options{}, own, err
	}
	var pins shell.KeyStore = &shell.File{Path: filepath.Join(dir, "known_routers")}
	if a.pins != nil {
		pins = a.pins
	}
	o := shell.Options{
		Dial:     a.Dial,
		HostKeys: pins,
		Auth: shell.Auth{
			KeyFiles: a.identity,
			Agent:    true,
		},
	}
	o.Auth.Signers = append(o.Auth.Signers, own.Signer())
	if a.Terminal.IsTerminal() {
		o.Auth.Password = func(context.Context) (string, error) { return a.secret("root's password on the router:") }
		o.Auth.JumpPassword = func(_ context.Context, host string) (string, error) {
			return a.secret("password on " + host + ":")
		}
		o.Auth.Passphrase = func(_ context.Context, file string) (string, error) {
			return a.secret("passphrase of " + file + ":")
		}
	}
	if a.verbose {
		o.Echo = a.echo
	}
	return o, own, nil
}

func (a *app) secret(prompt string) (string, error) {
	fmt.Fprint(a.Err, prompt, " ")
	s, err := a.Terminal.ReadSecret()
	fmt.Fprintln(a.Err)
	if errors.Is(err, io.EOF) {
		return "", inputEnded()
	}
	return s, err
}

// echo shows a script as it runs on the router, for -v.
func (a *app) echo(script string) {
	for l := range strings.Lines(script) {
		fmt.Fprint(a.Err, a.style.Dim("[router] "+strings.TrimRight(l, "\n")), "\n")
	}
}

// way is how to get to the router that h names.
func (a *app) way(h home.Home) (apply.Way, shell.LoginKey, error) {
	o, own, err := a.options()
	if err != nil {
		return apply.Way{}, own, err
	}
	addr := h.Router.Address
	if a.router != "" {
		addr = a.router
	}
	// A password is asked for once in a run, however many connections it takes.
	if ask := o.Auth.Password; ask != nil {
		var known string
		o.Auth.Password = func(ctx context.Context) (string, error) {
			if known != "" {
				return known, nil
			}
			p, err := ask(ctx)
			known = p
			return p, err
		}
	}
	target := func(at string) shell.Target {
		// The pin belongs to the router, which may change its address on the way.
		return shell.Target{Addr: at, User: h.Router.User, Jump: h.Router.Jump, ID: addr}
	}
	return apply.Way{
		Addr: addr,
		Open: func(ctx context.Context, at string) (apply.Conn, error) {
			c, err := shell.Open(ctx, target(at), o)
			if err != nil {
				return nil, err // not a typed nil
			}
			if c.FirstSight() {
				a.sayf("%s", a.style.Dim("The router's host key, seen for the first time and remembered: "+shell.Fingerprint(c.HostKey())))
			}
			return c, nil
		},
		NoneRefused: func(ctx context.Context, at string) (bool, error) {
			refused, _, err := shell.NoneRefused(ctx, target(at), o)
			return refused, err
		},
	}, own, nil
}

// A visit is one stay at the home router with what is needed to change it.
type visit struct {
	*apply.Session
	file    *home.File
	request apply.Request
	own     shell.LoginKey
	way     apply.Way
}

// visit opens the home router that home.toml names, and clears up what an earlier run
// left there.
func (a *app) visit(ctx context.Context, f *home.File) (*visit, error) {
	return a.visitBy(ctx, f, apply.Start)
}

// visitToLook opens it for a command that changes nothing, not even that.
func (a *app) visitToLook(ctx context.Context, f *home.File) (*visit, error) {
	return a.visitBy(ctx, f, apply.Enter)
}

func (a *app) visitBy(ctx context.Context, f *home.File, enter func(context.Context, apply.Way, openwrt.LookFor, event.Tell) (*apply.Session, error)) (*visit, error) {
	way, own, err := a.way(f.Home)
	if err != nil {
		return nil, err
	}
	a.router = way.Addr // for messages
	look := openwrt.LookFor{Packages: blueprint.PackageNames(f.Home)}
	s, err := enter(ctx, way, look, a.tell())
	if err != nil {
		return nil, err
	}
	v := &visit{Session: s, file: f, own: own, way: way}
	if err := apply.Check(s.Snapshot(), way.Addr); err != nil {
		s.Close()
		return nil, err
	}
	v.request = a.request(f.Home, own)
	return v, nil
}

func (a *app) request(h home.Home, own shell.LoginKey) apply.Request {
	return apply.Request{
		Home:   h,
		Access: blueprint.Access{Key: own.Authorized, Password: true, NewDDNS: a.newDDNS && !h.DDNS.IsZero()},
		Rand:   a.Rand,
	}
}

// readHome reads home.toml.
func (a *app) readHome() (*home.File, error) {
	text, err := os.ReadFile(a.homePath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.NewUsage("no-home", "there is no %s here", a.homePath).
			Do("heimweg up makes one and sets everything up; or name it with --home FILE")
	}
	if err != nil {
		return nil, err
	}
	return home.Parse(a.homePath, text)
}

// writeHome writes home.toml, complete or not at all.
func (a *app) writeHome(f *home.File) error { return store.WriteFile(a.homePath, f.Text(), 0o600) }

// lockHome keeps a second heimweg away from the same home.toml.
func (a *app) lockHome() (unlock func(), err error) {
	unlock, err = store.Lock(a.homePath)
	var held *store.LockedError
	if errors.As(err, &held) {
		return nil, fault.New("busy", "another heimweg is working on %s", a.homePath).Saw("%s", held).
			Do("let it end, then run this command again")
	}
	return unlock, err
}

// password makes root's password when the plan needs one: asked for, or made and
// shown once. The hash is computed here; the clear text never reaches the router.
func (a *app) password(ctx context.Context) (hash string, err error) {
	var clear string
	if a.Terminal.IsTerminal() && !a.yes {
		clear, err = a.secret("A password for root on the router (Enter: heimweg makes one):")
		if err != nil {
			return "", err
		}
	}
	if clear == "" {
		if clear, err = shadow.Password(a.Rand); err != nil {
			return "", err
		}
		a.sayf("%s %s", a.style.Strong("root's password, shown this once:"), clear)
	}
	return shadow.Hash(a.Rand, clear)
}

// tell renders events as they come.
func (a *app) tell() event.Tell { return view.Teller(a.Err, a.style, a.json) }

// repin keeps the router's pinned host key when its address changes.
func (a *app) repin(from, to string) error {
	dir, err := a.folder()
	if err != nil {
		return err
	}
	pins := &shell.File{Path: filepath.Join(dir, "known_routers")}
	k, err := pins.Known(from)
	if err != nil || k == nil {
		return err
	}
	return pins.Pin(to, k)
}
