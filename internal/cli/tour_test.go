package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab/world"
)

// The tour of README, on every release and every kind of home.
func TestTour(t *testing.T) {
	tours := [][]string{
		{"--release", "21.02"}, {"--release", "22.03"}, {"--release", "23.05"}, {"--release", "24.10"}, {"--release", "25.12"},
		{"--uplink", "direct"}, {"--uplink", "one-armed"}, {"--uplink", "one-armed", "--release", "25.12"},
		{"--lans", "2"}, {"--internet"}, {"--internet", "--uplink", "direct", "--release", "25.12"},
	}
	for _, args := range tours {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			var out, said bytes.Buffer
			env := Env{In: strings.NewReader(""), Out: &out, Err: &said, Terminal: tourTerminal{}, Getenv: func(string) string { return "" }}
			if code := Run(t.Context(), env, append([]string{"lab", "tour", "--json"}, args...)); code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, out.String(), said.String())
			}
			var got struct {
				OK    bool
				Trips int        `json:"round_trips"`
				Steps []TourStep `json:"steps"`
			}
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v in %s", err, out.String())
			}
			if !got.OK || len(got.Steps) != 9 || got.Trips == 0 || got.Trips > 20 {
				t.Errorf("the tour says %+v", got)
			}
		})
	}
}

// A tour through a home that cannot work must not end well.
func TestTourFails(t *testing.T) {
	var out, said bytes.Buffer
	env := Env{In: strings.NewReader(""), Out: &out, Err: &said, Terminal: tourTerminal{}, Getenv: func(string) string { return "" }}
	if code := Run(t.Context(), env, []string{"lab", "tour", "--release", "19.07"}); code != 2 {
		t.Errorf("exit code %d\n%s", code, said.String())
	}
}

// docs/home.toml is what init writes, and home.toml's own tests read it.
func TestDocsHome(t *testing.T) {
	text, err := os.ReadFile("../../docs/home.toml")
	if err != nil {
		t.Fatal(err)
	}
	f, err := home.Parse("docs/home.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	if got := home.Compose(f.Home); !bytes.Equal(got, text) {
		t.Errorf("docs/home.toml is not what init writes for it:\n%s", got)
	}
}

// Adding, renewing and removing other devices costs a device that is in not a
// single packet.
func TestNobodyIsCutOff(t *testing.T) {
	for _, release := range []string{"21.02", "24.10", "25.12"} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			l := labFlags{release: release, uplink: "behind-isp-router", lans: 1, seed: 3}
			o, err := l.options()
			if err != nil {
				t.Fatal(err)
			}
			w, err := world.New(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := w.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			heimweg := func(args ...string) {
				t.Helper()
				var out bytes.Buffer
				env := Env{In: strings.NewReader(""), Out: &out, Err: &out, Terminal: tourTerminal{}, Dial: w.LaptopDial,
					Lookup: labLookup(w), Config: dir + "/config", Getenv: func(string) string { return "" }}
				if code := Run(t.Context(), env, append([]string{"--home", dir + "/home.toml"}, args...)); code != 0 {
					t.Fatalf("heimweg %v: exit code %d\n%s", args, code, out.String())
				}
			}
			heimweg("init", "--yes", "--router", "192.168.1.1", "--endpoint", world.EndpointName, "--input", "reject")
			heimweg("apply", "--yes")
			if err := w.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := w.MapPort(home.DefaultPort); err != nil {
				t.Fatal(err)
			}
			heimweg("peer", "add", "phone", "-o", dir+"/phone.conf")
			conf, err := os.ReadFile(dir + "/phone.conf")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Phone.Join(string(conf)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := w.Phone.Ping(ctx, w.NAS.Addr()); err != nil {
				t.Fatal(err)
			}
			pings := w.Phone.KeepPinging(w.NAS.Addr(), 5*time.Millisecond)
			for range 3 {
				heimweg("peer", "add", "tablet", "-o", dir+"/t.conf")
				heimweg("peer", "renew", "tablet", "-o", dir+"/t2.conf")
				heimweg("peer", "disable", "tablet")
				heimweg("peer", "rename", "tablet", "slate")
				heimweg("peer", "remove", "slate", "--yes")
				os.Remove(dir + "/t.conf")
				os.Remove(dir + "/t2.conf")
			}
			sent, lost := pings.Stop()
			if sent < 20 || lost > 0 {
				t.Errorf("%d of %d pings were lost while other devices came and went", lost, sent)
			}
			t.Logf("%d pings, %d lost", sent, lost)
		})
	}
}
