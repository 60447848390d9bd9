package restore_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/backup"
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/restore"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

var (
	cuts    = flag.Int("cuts", 0, "how many random cuts to try (0: 3, or 400 with HEIMWEG_LONG=1)")
	cutSeed = flag.Uint64("cut-seed", 0, "seed of the random cuts (0: a new one); printed by a failure")
)

const (
	hash    = "$5$saltsalt$zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz1"
	newHash = "$5$saltsalt$zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz2" // that somebody types in at the wrong moment
	wifi    = "edelweiss-and-gentian"
)

// household is a person with a computer in an emulated home.
type household struct {
	t    *testing.T
	w    *world.World
	own  shell.LoginKey
	pins *shell.Memory
	home home.Home
	psk  map[string]key.Preshared
	told strings.Builder // every event so far
	mu   sync.Mutex
}

func newHousehold(t *testing.T, o world.Options) *household {
	t.Helper()
	w, err := world.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	own, err := shell.MakeKey(rand.Reader, "test")
	if err != nil {
		t.Fatal(err)
	}
	h := &household{t: t, w: w, own: own, pins: new(shell.Memory), psk: map[string]key.Preshared{}}
	h.ready()
	hm := home.New()
	hm.Uplink.Network = subnet.MustParse("192.168.2.0/24")
	hm.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	hm.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
	hm.Tunnel.Endpoint, hm.Router.Input = world.EndpointName, "reject"
	private, _ := key.NewPrivate(strings.NewReader(strings.Repeat("p", 32)))
	p, err := hm.NextPeer("phone", private.Public())
	if err != nil {
		t.Fatal(err)
	}
	hm.Peers = append(hm.Peers, p)
	h.psk["phone"], _ = key.NewPreshared(strings.NewReader(strings.Repeat("s", 32)))
	h.home = hm
	return h
}

func (h *household) ready() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Minute)
	defer cancel()
	if err := h.w.WaitReady(ctx); err != nil {
		h.t.Fatal(err)
	}
}

func (h *household) tell(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(&h.told, "%+v\n", e)
}

func (h *household) way() apply.Way {
	at, ok := h.w.RouterLAN()
	if !ok {
		h.t.Fatal("the router has no address on the home LAN")
	}
	o := shell.Options{Dial: h.w.LaptopDial, HostKeys: h.pins, Config: "none"}
	o.Auth.Signers = append(o.Auth.Signers, h.own.Signer())
	target := func(at string) shell.Target { return shell.Target{Addr: at, User: "root", ID: "router"} }
	return apply.Way{
		Addr: at.String(),
		Open: func(ctx context.Context, at string) (apply.Conn, error) {
			c, err := shell.Open(ctx, target(at), o)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
	}
}

// session comes in, as a person does who accepts a new box's host key.
func (h *household) session() *apply.Session {
	h.t.Helper()
	s, err := h.start(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { s.Close() })
	return s
}

func (h *household) start(ctx context.Context) (*apply.Session, error) {
	look := openwrt.LookFor{Packages: blueprint.PackageNames(h.home)}
	s, err := apply.Start(ctx, h.way(), look, h.tell)
	var other *shell.HostKeyError
	if errors.As(err, &other) {
		if err := shell.Accept(h.pins, other); err != nil {
			return nil, err
		}
		s, err = apply.Start(ctx, h.way(), look, h.tell)
	}
	return s, err
}

func (h *household) request() apply.Request {
	return apply.Request{
		Home: h.home, Access: blueprint.Access{Key: h.own.Authorized, Password: true},
		PasswordHash: uci.Hidden(newHash), Rand: rand.Reader, Preshared: h.psk,
	}
}

// setUp makes the gateway, and puts in what a household has besides.
func (h *household) setUp() {
	h.t.Helper()
	s := h.session()
	r := h.request()
	r.PasswordHash = uci.Hidden(hash)
	if err := s.Run(h.t.Context(), s.Plan(r), r); err != nil {
		h.t.Fatal(err)
	}
	h.sh("uci set system.@system[0].hostname=alps; uci set firewall.mine=rule; uci set firewall.mine.name=Mine; uci set firewall.mine.src=lan; uci set firewall.mine.target=ACCEPT; " +
		"uci set wireless.radio0.disabled=0; uci set wireless.default_radio0.ssid=alps; uci set wireless.default_radio0.encryption=psk2; uci set wireless.default_radio0.key=" + wifi + "; uci commit; " +
		"mkdir -p /etc/own; echo precious >/etc/own/a; echo /etc/own >>/etc/sysupgrade.conf; echo '0 4 * * * reboot' >/etc/crontabs/root; sync")
}

func (h *household) sh(script string) string {
	h.t.Helper()
	out, said, exit := h.w.Router.Sh(script)
	if exit != 0 {
		h.t.Fatalf("%s: exit code %d\n%s%s", script, exit, out, said)
	}
	return out
}

// take takes a backup, as a file would hold it.
func (h *household) take() backup.Backup {
	h.t.Helper()
	b, err := restore.Take(h.t.Context(), h.session(), "# home\n", "test", time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := backup.Encode(b)
	if err == nil {
		b, err = backup.Parse(text)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// putBack is a whole restore: identity, a new connection, the rest.
func (h *household) putBack(ctx context.Context, b backup.Backup) (restore.Result, error) {
	s, err := h.start(ctx)
	if err != nil {
		return restore.Result{}, err
	}
	defer func() { s.Close() }()
	if err := restore.Identify(ctx, s.Shell(), b, h.tell); err != nil {
		return restore.Result{}, err
	}
	restore.WaitForKey(ctx, h.way())
	s.Close()
	next, err := h.start(ctx)
	if err != nil {
		return restore.Result{}, err
	}
	s = next
	p, err := restore.Propose(ctx, s, b, h.request(), backup.Options{})
	if err != nil {
		return restore.Result{}, err
	}
	return restore.Run(ctx, s, p, h.tell)
}

// proposal is what would be done now.
func (h *household) proposal(b backup.Backup) restore.Proposal {
	h.t.Helper()
	p, err := restore.Propose(h.t.Context(), h.session(), b, h.request(), backup.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

const facts = "uci get network.wg0.private_key; uci get system.@system[0].hostname; uci get firewall.mine.name; " +
	"uci get wireless.default_radio0.key; cat /etc/own/a; cat /etc/crontabs/root; sed -n 's/^root:\\([^:]*\\):.*/\\1/p' /etc/shadow; cat /etc/dropbear/dropbear_ed25519_host_key"

var swconfig = world.Options{Line: router.Line2203}

var another = owrt.Options{Line: router.Line2410, Board: "avm,fritzbox-7530", Model: "AVM FRITZ!Box 7530"}

func (h *household) swap(o owrt.Options) {
	h.t.Helper()
	if err := h.w.Swap(h.t.Context(), o); err != nil {
		h.t.Fatal(err)
	}
	h.reach()
}

// reach waits until the box answers; a new one has no way to the ISP router yet.
func (h *household) reach() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Minute)
	defer cancel()
	for {
		at, ok := h.w.RouterLAN()
		if ok {
			try, stop := context.WithTimeout(ctx, 2*time.Second)
			c, err := h.w.LaptopDial(try, "tcp", at.String()+":22")
			stop()
			if err == nil {
				c.Close()
				return
			}
		}
		select {
		case <-ctx.Done():
			h.t.Fatal("the box does not answer")
		case <-time.After(time.Second):
		}
	}
}

func names(list []backup.Line) []string {
	var out []string
	for _, l := range list {
		out = append(out, l.What)
	}
	return out
}

// A gateway moves to another model and release: who it is, its key, and what the
// household has set; what does not fit is named. A second time nothing is left to do.
func TestOntoAnotherBoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t, swconfig)
		h.setUp()
		before := h.sh(facts)
		b := h.take()
		h.swap(another)
		p := h.proposal(b)
		if !slices.Contains(names(p.Fit.Taken), "interface wan on port lan4") || !slices.Contains(names(p.Fit.Left), "switch switch0") {
			t.Errorf("taken %q, left %q", names(p.Fit.Taken), names(p.Fit.Left))
		}
		if strings.Contains(h.sh("ls /etc"), "heimweg") {
			t.Error("a proposal wrote something")
		}
		res, err := h.putBack(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if after := h.sh(facts); after != before {
			t.Errorf("before\n%safter\n%s", before, after)
		}
		if len(res.Missing) > 0 || len(res.Taken) == 0 || len(res.Left) == 0 {
			t.Errorf("%+v", res)
		}
		again := h.proposal(b)
		if !again.Plan.Empty() || len(again.Fit.Docs) > 0 {
			t.Errorf("still to do: %v %v", again.Plan.Steps, again.Fit.Changed())
		}
	})
}

// Onto the box that it came from: nothing to do, nothing left out.
func TestOntoItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t, world.Options{})
		h.setUp()
		b := h.take()
		p := h.proposal(b)
		if !p.Plan.Empty() || len(p.Fit.Docs) > 0 || len(p.Fit.Left) > 0 || len(p.Packages) > 0 {
			t.Errorf("to do: %v, %v, %v, packages %v", p.Plan.Steps, p.Fit.Changed(), p.Fit.Left, p.Packages)
		}
		before := h.sh("sha256sum /etc/config/* /etc/shadow /etc/dropbear/* /etc/own/a")
		if _, err := h.putBack(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if after := h.sh("sha256sum /etc/config/* /etc/shadow /etc/dropbear/* /etc/own/a"); after != before {
			t.Errorf("before\n%safter\n%s", before, after)
		}
	})
}

// Nothing that is told, returned or noted down shows a secret.
func TestNoSecretShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t, swconfig)
		h.setUp()
		b := h.take()
		h.swap(another)
		p := h.proposal(b)
		res, err := h.putBack(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		j1, _ := json.Marshal(p.Fit.Taken)
		j2, _ := json.Marshal(res)
		log := strings.Join(h.w.Router.Log(), "\n")
		private := strings.TrimSpace(h.sh("uci get network.wg0.private_key"))
		for what, text := range map[string]string{
			"event": h.told.String(), "proposal": fmt.Sprintf("%v %+v %#v", p, p, p), "lines": string(j1), "result": string(j2), "log": log,
			"backup": fmt.Sprintf("%v %+v", b, &b), "argument": h.sh("cat /proc/[0-9]*/cmdline"),
		} {
			for _, secret := range []string{private, h.psk["phone"].Reveal(), hash, wifi} {
				if strings.Contains(text, secret) {
					t.Errorf("a secret shows itself in the %s", what)
				}
			}
		}
	})
}

var cutNames = []string{"power", "connection", "Ctrl-C"}

// The power goes at any moment, or the connection, or somebody presses Ctrl-C: a
// little later, running restore again puts everything back.
func TestCuts(t *testing.T) {
	n := *cuts
	if n == 0 {
		n = 3
		if need.Long() {
			n = 400
		}
	}
	seed := *cutSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	var events int64
	for i := range n + 1 { // the first without a cut, to count
		rng := mathrand.New(mathrand.NewPCG(seed, uint64(i)))
		synctest.Test(t, func(t *testing.T) {
			h := newHousehold(t, world.Options{Seed: seed + uint64(i)})
			h.setUp()
			before := h.sh(facts)
			b := h.take()
			h.swap(owrt.Options{Line: router.Line2512, Board: "avm,fritzbox-7530", Model: "AVM FRITZ!Box 7530"})
			at, what := int64(0), rng.IntN(3)
			if i > 0 {
				at = 1 + rng.Int64N(events)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var mu sync.Mutex
			var seen int64
			h.w.Router.SetHook(func(owrt.Event) owrt.Action {
				mu.Lock()
				defer mu.Unlock()
				switch seen++; {
				case seen != at:
				case what == 0:
					return owrt.PowerCutAndReboot
				case what == 1:
					return owrt.CutConnection
				default:
					cancel()
				}
				return owrt.Continue
			})
			_, err := h.putBack(ctx, b)
			h.w.Router.SetHook(nil)
			if i == 0 {
				events = seen
			}
			if at == 0 && err != nil {
				t.Fatal(err)
			}
			<-time.After(5 * time.Minute) // a coffee; guards and locks have had their time
			h.reach()
			if _, err := h.putBack(t.Context(), b); err != nil {
				t.Fatalf("%s at event %d of %d: the next run: %v\nto repeat: -cuts %d -cut-seed %d", cutNames[what], at, events, err, n, seed)
			}
			if after := h.sh(facts); after != before {
				t.Errorf("%s at event %d of %d (the run said: %v): before\n%safter\n%s\nto repeat: -cuts %d -cut-seed %d", cutNames[what], at, events, err, before, after, n, seed)
			}
			if p := h.proposal(b); !p.Plan.Empty() {
				t.Errorf("%s at event %d: still to do: %v", cutNames[what], at, p.Plan.Steps)
			}
		})
	}
}

func TestInstall(t *testing.T) {
	for _, line := range []router.Line{router.Line2410, router.Line2512} {
		synctest.Test(t, func(t *testing.T) {
			h := newHousehold(t, world.Options{Line: line})
			s := h.session()
			install := func(names ...string) ([]backup.Line, error) { return restore.Install(t.Context(), s, names, h.tell) }

			if missing, err := install(); err != nil || missing != nil {
				t.Errorf("nothing: %v, %v", missing, err)
			}
			// What this release does not have is left out and named; the rest comes.
			missing, err := install("nano", "no-such-package", "htop", "neither-this")
			if err != nil || len(missing) != 2 || missing[0].What != "no-such-package" || missing[1].What != "neither-this" || missing[0].Why == "" {
				t.Errorf("missing %v, %v", missing, err)
			}
			for _, p := range []string{"nano", "htop"} {
				if list, _, _ := h.w.Router.Sh("opkg list-installed 2>/dev/null | cut -d' ' -f1; apk info -e " + p + " 2>/dev/null"); !slices.Contains(strings.Fields(list), p) {
					t.Errorf("%s on %s is not installed", p, line)
				}
			}
			// A feed that cannot be reached is an error: trying again helps.
			h.w.Router.SetFeed(owrt.Feed{Unreachable: true})
			_, err = install("tcpdump-mini")
			if f := fault.Find(err); f == nil || len(f.Next) == 0 {
				t.Errorf("a feed that is not there: %v", err)
			}
		})
	}
}

func TestTakeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t, world.Options{})
		s := h.session()
		h.w.Router.SetHook(func(e owrt.Event) owrt.Action {
			if e.Kind == owrt.Before && len(e.Argv) > 1 && e.Argv[0] == "sysupgrade" && e.Argv[1] == "-b" {
				return owrt.Fail(1, "no space left on device")
			}
			return owrt.Continue
		})
		_, err := restore.Take(t.Context(), s, "", "test", time.Now())
		if f := fault.Find(err); f == nil || f.Code != "no-backup" || !slices.ContainsFunc(f.Seen, func(l string) bool { return strings.Contains(l, "no space") }) || len(f.Next) == 0 {
			t.Errorf("got %v", err)
		}
	})
}

// Names that a script could not handle are left out and named, in the identity
// without a word: the router makes such files by itself.
func TestUnusualNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t, world.Options{})
		h.setUp()
		b := h.take()
		b.Files = append(b.Files, backup.File{Name: "/etc/own/a b; reboot", Mode: 0o644, Text: uci.V("x")}, backup.File{Name: "/etc/own/z", Mode: 0o640, Text: uci.V("end")})
		slices.SortFunc(b.Files, func(a, b backup.File) int { return strings.Compare(a.Name, b.Name) })
		res, err := h.putBack(t.Context(), b)
		if err != nil || !slices.Contains(names(res.Left), "/etc/own/a b; reboot") {
			t.Errorf("left %v, %v", res.Left, err)
		}
		if got := h.sh("cat /etc/own/z; ls -l /etc/own/z"); !strings.HasPrefix(got, "end-rw-r-----") {
			t.Errorf("got %q", got)
		}
	})
}
