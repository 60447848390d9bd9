package apply_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/world"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uci"
)

var (
	faults    = flag.Int("faults", 0, "how many random faults to try (0: 24, or 1,500 with HEIMWEG_LONG=1)")
	faultSeed = flag.Uint64("fault-seed", 0, "seed of the random faults (0: a new one); printed by a failure")
)

// A deed is one thing that a person does, and how it is called.
type deed struct {
	name string
	// prepare gives the home that the router is in before, "" nil for fresh from
	// the factory.
	before func(*household) (home.Home, bool)
	after  func(*household, home.Home) home.Home
}

func plain(h *household) (home.Home, bool) { return peer(h.want(), "phone", 1), true }

var deeds = []deed{
	{"fresh apply", func(h *household) (home.Home, bool) { return h.want(), false },
		func(_ *household, hm home.Home) home.Home { return peer(hm, "phone", 1) }},
	{"changed apply", plain, func(_ *household, hm home.Home) home.Home {
		hm.Tunnel.Port, hm.Reach.UplinkLAN, hm.Reach.NATToLAN = 51999, true, false
		return hm
	}},
	{"LAN address change", plain, func(_ *household, hm home.Home) home.Home {
		hm.LANs = []home.LAN{{Interface: "lan", Network: subnet.MustParse("10.77.3.0/24"), Renumber: true}}
		return hm
	}},
	{"peer add", plain, func(_ *household, hm home.Home) home.Home { return peer(hm, "laptop", 2) }},
	{"peer remove", plain, func(_ *household, hm home.Home) home.Home { hm.Peers = nil; return hm }},
}

func keysOf(hm home.Home) map[string]key.Preshared {
	out := map[string]key.Preshared{}
	for i, p := range hm.Peers {
		out[p.Name] = psk(byte(i))
	}
	return out
}

// TestFaults: whatever happens at whatever step, after at most one further run
// the router is reachable and in the old or the new state, never between, and
// what is not ours is as it was.
func TestFaults(t *testing.T) {
	n := *faults
	if n == 0 {
		n = 24
		if need.Long() {
			n = 1500
		}
	}
	seed := *faultSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d, %d faults; to repeat: go test ./internal/apply -run TestFaults -faults %d -fault-seed %d", seed, n, n, seed)
	for i := range n {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		d := deeds[rng.IntN(len(deeds))]
		line := router.Lines()[rng.IntN(len(router.Lines()))]
		id := d.name + " " + line.String()
		if references[id].events == 0 {
			synctest.Test(t, func(t *testing.T) { references[id] = withoutFault(t, d, line) })
		}
		f := drawFault(rng, references[id].events)
		ok := t.Run(fmt.Sprintf("%d %s on %s: %s", i, d.name, line, f), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tryFault(t, d, line, f, rng.Uint64()) })
		})
		if !ok {
			t.Fatalf("to repeat: -faults %d -fault-seed %d -run 'TestFaults/^%d_'", n, seed, i)
		}
	}
}

// fault is one thing that goes wrong at one event.
type fault struct {
	what string
	at   int64
}

func (f fault) String() string { return fmt.Sprintf("%s at event %d", f.what, f.at) }

var kinds = []string{"cut", "power", "reboot", "fail", "full", "slow", "writer", "ctrl-c"}

func drawFault(rng *rand.Rand, events int64) fault {
	return fault{kinds[rng.IntN(len(kinds))], 1 + rng.Int64N(events)}
}

func (h *household) setUp(d deed) home.Home {
	hm, apply := d.before(h)
	if apply {
		h.must(hm, keysOf(hm))
	}
	return hm
}

// reference is what a run without a fault does and leaves.
type reference struct {
	events int64
	state
}

var references = map[string]reference{} // of each deed and release

func withoutFault(t *testing.T, d deed, line router.Line) reference {
	h := newHousehold(t, world.Options{Line: line})
	defer h.close()
	hm := h.setUp(d)
	var n atomic.Int64
	h.w.Router.SetHook(func(owrt.Event) owrt.Action { n.Add(1); return owrt.Continue })
	after := d.after(h, hm)
	h.must(after, keysOf(after))
	h.w.Router.SetHook(nil)
	return reference{n.Load(), stateOf(h.snapshot())}
}

// state is what a router's files say, ours and others' apart.
type state struct {
	ours, others map[string]string // "config.section" → canonical text
}

func stateOf(s *router.Snapshot) state {
	st := state{map[string]string{}, map[string]string{}}
	for _, c := range router.Touched() {
		order := 0
		for _, sec := range s.Config(c).Sections() {
			if router.Ours(c, sec, s.Written) {
				st.ours[c+"."+sec.Name] = redact(sec)
				continue
			}
			if sec.Type == "globals" {
				continue // its ULA prefix is drawn at the first boot of each box
			}
			st.others[fmt.Sprintf("%s.%s#%d", c, sec.Name, order)] = string(uci.Print([]uci.Section{sec}))
			order++
		}
	}
	return st
}

// redact keeps whether a secret is there: fresh keys are different in every run.
func redact(s uci.Section) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.Type, s.Name)
	for _, o := range s.Options {
		fmt.Fprintf(&b, "\n %s", o.Name)
		for _, v := range o.Values {
			fmt.Fprintf(&b, " %s", v)
		}
	}
	return b.String()
}

func same(a, b map[string]string) bool { return maps.Equal(a, b) }

func difference(a, b map[string]string) string {
	var out []string
	for k, v := range a {
		if b[k] != v {
			out = append(out, fmt.Sprintf("%s: %q / %q", k, v, b[k]))
		}
	}
	for k, v := range b {
		if _, ok := a[k]; !ok {
			out = append(out, fmt.Sprintf("%s: - / %q", k, v))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func tryFault(t *testing.T, d deed, line router.Line, f fault, seed uint64) {
	h := newHousehold(t, world.Options{Line: line, Seed: seed})
	defer h.close()
	before := h.setUp(d)
	old := stateOf(h.snapshot())
	after := d.after(h, before)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	var mu sync.Mutex // several processes of the box call the hook
	var n int64
	writer := f.what == "writer"
	h.w.Router.SetHook(func(e owrt.Event) owrt.Action {
		mu.Lock()
		defer mu.Unlock()
		if n++; n != f.at {
			return owrt.Continue
		}
		if f.what == "fail" && (e.Kind != owrt.Before || builtin(e.Argv[0])) {
			f.at++ // what is part of the shell itself does not fail
			return owrt.Continue
		}
		switch f.what {
		case "cut":
			return owrt.CutConnection
		case "power", "reboot":
			return owrt.PowerCutAndReboot
		case "fail":
			return owrt.Fail(1, "no luck")
		case "full":
			return owrt.FullFlash
		case "slow":
			return owrt.Slow(40 * time.Second)
		case "writer":
			go h.w.Router.Sh("uci set system.@system[0].hostname=other; uci set firewall.@defaults[0].syn_flood=0; uci commit")
		case "ctrl-c":
			cancel()
		}
		return owrt.Continue
	})
	_, err := h.run(ctx, after, keysOf(after))
	h.w.Router.SetHook(nil)
	h.w.Router.FS().Fill(-1)
	synctest.Wait()
	t.Logf("the run ended with: %v", err)

	// Whatever is still pending has its time now, as it would have until somebody
	// tries again.
	h.within(10*time.Minute, h.w.WaitReady)
	h.within(10*time.Minute, h.nothingPending)
	h.find()
	mid := stateOf(h.snapshot())
	if !writer && !same(mid.others, old.others) && d.name != "LAN address change" && d.name != "fresh apply" {
		t.Fatalf("after %v the sections of others are different:\n%s", err, difference(old.others, mid.others))
	}
	h.must(after, keysOf(after)) // one further run
	h.find()
	end := stateOf(h.snapshot())
	fresh := references[d.name+" "+line.String()]
	if !same(end.ours, fresh.ours) {
		t.Fatalf("after one further run our sections are not the new ones:\n%s", difference(end.ours, fresh.ours))
	}
	if !same(mid.ours, old.ours) && !same(mid.ours, fresh.ours) {
		t.Fatalf("after %v and the guard's time the state is neither old nor new\nagainst old:\n%s\nagainst new:\n%s",
			err, difference(old.ours, mid.ours), difference(fresh.ours, mid.ours))
	}
	if !writer && !same(end.others, fresh.others) {
		t.Fatalf("the sections of others are not as they should be:\n%s", difference(end.others, fresh.others))
	}
	if err == nil && f.what != "slow" && !same(mid.ours, fresh.ours) {
		t.Fatalf("heimweg reported success and the state is not the new one:\n%s", difference(fresh.ours, mid.ours))
	}
}

func builtin(name string) bool {
	return slices.Contains([]string{"[", "test", "shift", "read", "printf", "echo", ":", "true", "cd", "export", "local", "set",
		"umask", "unset", "eval", "exec", "exit", "return", "break", "continue", "command", "wait", "trap", "."}, name)
}

// nothingPending waits for the router's own guards, as a person does who has a
// coffee after a failure.
func (h *household) nothingPending(ctx context.Context) error {
	for {
		_, err := h.w.Router.ReadFile("/etc/heimweg/pending")
		_, err2 := h.w.Router.ReadFile("/etc/heimweg/restoring")
		if err != nil && err2 != nil && !h.locked() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("a change is still pending after 10 minutes")
		case <-time.After(time.Second):
		}
	}
}

// locked: a run that died holds its lock until it is too old to be believed.
func (h *household) locked() bool {
	owner, err := h.w.Router.ReadFile("/tmp/heimweg/lock/owner")
	if err != nil {
		return false
	}
	var id string
	var since int64
	fmt.Sscan(owner, &id, &since)
	return time.Since(time.Unix(since, 0)) < 4*time.Minute
}

// find notes where the router is now, as a computer's DHCP lease would say.
func (h *household) find() {
	h.t.Helper()
	h.within(5*time.Minute, h.w.WaitReady)
	at, ok := h.w.RouterLAN()
	if !ok {
		h.t.Fatal("the router has no address on the home LAN")
	}
	h.addr = at.String()
}
