package upgrade_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
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
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/upgrade"
)

var (
	cuts    = flag.Int("cuts", 0, "how many random cuts to try (0: 2, or 600 with HEIMWEG_LONG=1)")
	cutSeed = flag.Uint64("cut-seed", 0, "seed of the random cuts (0: a new one); printed by a failure")
)

// household is a person with a computer, a gateway that works, and an image of the
// next release.
type household struct {
	t     *testing.T
	w     *world.World
	own   shell.LoginKey
	pins  *shell.Memory
	home  home.Home
	image []byte
	kept  map[string]backup.Backup
	asked []upgrade.Plan
	mu    sync.Mutex
	told  strings.Builder
}

func newHousehold(t *testing.T, line router.Line, to string, seed uint64) *household {
	t.Helper()
	w, err := world.New(t.Context(), world.Options{Line: line, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	own, err := shell.MakeKey(rand.Reader, "test")
	if err != nil {
		t.Fatal(err)
	}
	h := &household{t: t, w: w, own: own, pins: new(shell.Memory), kept: map[string]backup.Backup{},
		image: imagetest.Sysupgrade(imagetest.Options{Compat: "1.1", Version: to})}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := w.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	hm := home.New()
	hm.Uplink.Network = subnet.MustParse("192.168.2.0/24")
	hm.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("192.168.1.0/24")}}
	hm.Tunnel.Network = subnet.MustParse("10.86.20.0/24")
	hm.Tunnel.Endpoint, hm.Router.Input = world.EndpointName, "reject"
	h.home = hm
	s, err := h.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Run(t.Context(), s.Plan(h.request()), h.request()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *household) tell(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(&h.told, "%+v\n", e)
}

func (h *household) way() apply.Way {
	o := shell.Options{Dial: h.w.LaptopDial, HostKeys: h.pins, Config: "none"}
	o.Auth.Signers = append(o.Auth.Signers, h.own.Signer())
	return apply.Way{
		Addr: "192.168.1.1",
		Open: func(ctx context.Context, at string) (apply.Conn, error) {
			c, err := shell.Open(ctx, shell.Target{Addr: at, User: "root", ID: "router"}, o)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
	}
}

func (h *household) look() openwrt.LookFor {
	return openwrt.LookFor{Packages: blueprint.PackageNames(h.home)}
}

func (h *household) start(ctx context.Context) (*apply.Session, error) {
	return apply.Start(ctx, h.way(), h.look(), h.tell)
}

func (h *household) request() apply.Request {
	return apply.Request{
		Home: h.home, Access: blueprint.Access{Key: h.own.Authorized, Password: true},
		PasswordHash: uci.Hidden("$5$saltsalt$zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz1"), Rand: rand.Reader,
	}
}

// Releases and Get are the household's server.
func (h *household) Releases(context.Context) ([]string, error) { return []string{"25.12.5"}, nil }

func (h *household) Get(_ context.Context, v string, _ router.Board, _ []string) (upgrade.Image, error) {
	return upgrade.Image{Name: "image.bin", Version: v, Bytes: h.image, Vouched: "the test"}, nil
}

// upgrade is one run of heimweg upgrade.
func (h *household) upgrade(ctx context.Context) (upgrade.Result, error) {
	s, err := h.start(ctx)
	if err != nil {
		return upgrade.Result{}, err
	}
	return upgrade.Do(ctx, s, upgrade.Order{
		Way: h.way(), Look: h.look(), Request: h.request(), Images: h, HomeText: "# home\n", Program: "test",
		Keep: func(b backup.Backup) (string, error) {
			name := fmt.Sprintf("kept-%d.age", len(h.kept))
			h.kept[name] = b
			return name, nil
		},
		Open: func(path string) (backup.Backup, error) {
			b, ok := h.kept[path]
			if !ok {
				return b, errors.New("no such backup")
			}
			return b, nil
		},
		Consent: func(p upgrade.Plan) error { h.asked = append(h.asked, p); return nil },
		Tell:    h.tell,
	})
}

// reach waits until the box answers; false: it stays silent.
func (h *household) reach() bool {
	ctx, cancel := context.WithTimeout(h.t.Context(), 15*time.Minute)
	defer cancel()
	for {
		if err := h.w.WaitReady(ctx); err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
	}
}

func (h *household) facts() string {
	h.t.Helper()
	out, said, exit := h.w.Router.Sh("uci get network.wg0.private_key; sed -n 's/^root:\\([^:]*\\):.*/\\1/p' /etc/shadow; cat /etc/dropbear/dropbear_ed25519_host_key")
	if exit != 0 {
		h.t.Fatalf("exit code %d\n%s%s", exit, out, said)
	}
	return out
}

var cutNames = []string{"power", "connection", "Ctrl-C"}

// The power goes at any moment of an upgrade, or the connection, or somebody presses
// Ctrl-C: running it again brings it to its end, unless the power went while the
// image was being written; then there is a backup, and that is what is said.
func TestCuts(t *testing.T) {
	n := *cuts
	if n == 0 {
		n = 2
		if need.Long() {
			n = 600
		}
	}
	seed := *cutSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	var events int64
	for i := range n + 1 { // the first without a cut, to count
		synctest.Test(t, func(t *testing.T) { cutOnce(t, i, n, seed, &events) })
	}
}

func cutOnce(t *testing.T, i, n int, seed uint64, events *int64) {
	rng := mathrand.New(mathrand.NewPCG(seed, uint64(i)))
	h := newHousehold(t, router.Line2410, "25.12.5", seed+uint64(i))
	before := h.facts()
	at, what, part := int64(0), rng.IntN(3), ""
	switch {
	case i > 0 && rng.IntN(4) == 0: // hardly any event is one of these, and they matter most
		at, part = -1, []string{"firmware", "half of firmware", "settings"}[rng.IntN(3)]
	case i > 0:
		at = 1 + rng.Int64N(*events)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var seen int64
	writing := "" // the last part that sysupgrade was about to write, when it was cut
	now := ""
	h.w.Router.SetHook(func(e owrt.Event) owrt.Action {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == owrt.Flashing {
			now = e.Path
		}
		switch seen++; {
		case seen != at && (part == "" || e.Kind != owrt.Flashing || e.Path != part):
		case what == 0:
			writing = now
			return owrt.PowerCutAndReboot
		case what == 1:
			return owrt.CutConnection
		default:
			cancel()
		}
		return owrt.Continue
	})
	_, err := h.upgrade(ctx)
	h.w.Router.SetHook(nil)
	if *events == 0 {
		*events = seen
	}
	again := fmt.Sprintf("%s at event %d of %d %s (writing %q); the run said: %v; to repeat: -cuts %d -cut-seed %d", cutNames[what], at, *events, part, writing, err, n, seed)
	if at == 0 && err != nil {
		t.Fatal(err)
	}
	<-time.After(5 * time.Minute) // a coffee; locks have had their time
	if !h.reach() {
		if writing == "" || len(h.kept) == 0 {
			t.Errorf("the box is dead: %s", again)
		}
		return
	}
	res, err := h.upgrade(t.Context())
	var other *shell.HostKeyError
	if errors.As(err, &other) && writing != "" && len(h.kept) > 0 {
		return // its settings were lost: restore
	}
	if err != nil {
		t.Fatalf("the next run: %v: %s", err, again)
	}
	s, err := h.start(t.Context())
	if err != nil {
		t.Fatalf("%v: %s", err, again)
	}
	defer s.Close()
	if p := s.Plan(h.request()); !p.Empty() || s.Snapshot().Board.Release.Version != "25.12.5" {
		t.Errorf("on %s, still to do: %v (%+v): %s", s.Snapshot().Board.Release.Version, p.Steps, res, again)
	}
	if after := h.facts(); after != before {
		t.Errorf("before\n%safter\n%s%s", before, after, again)
	}
	if out, _, _ := h.w.Router.Sh("ls /etc/heimweg/upgrade.json 2>/dev/null"); out != "" {
		t.Errorf("the note is still there: %s", again)
	}
	if strings.Contains(h.told.String(), strings.TrimSpace(strings.Split(before, "\n")[0])) {
		t.Error("the tunnel's key was told")
	}
}
