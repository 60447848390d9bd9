package doctor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/key"
)

// A phone on its way home, glimpse by glimpse.
func TestWatching(t *testing.T) {
	h := healthy(t).Home
	phone, tablet := testKey(2).Public(), testKey(3).Public()
	hotel := netip.MustParseAddrPort("198.51.100.2:4711")
	type glimpse struct {
		arrived int64 // -1: not known
		rx      int64
		shook   time.Time
		tablet  int64 // what came from the tablet, which was in before
		want    Stage
	}
	long := now.Add(-48 * time.Hour)
	for name, list := range map[string][]glimpse{
		"all is well":         {{7, 0, time.Time{}, 0, Waiting}, {7, 0, time.Time{}, 0, Waiting}, {8, 148, time.Time{}, 0, Beginning}, {8, 180, now, 0, Shaken}, {8, 400, now, 0, Home}},
		"an old key":          {{7, 0, time.Time{}, 0, Waiting}, {8, 0, time.Time{}, 0, Arriving}, {9, 0, time.Time{}, 0, Rejected}},
		"another PSK":         {{7, 0, time.Time{}, 0, Waiting}, {8, 148, time.Time{}, 0, Beginning}, {9, 296, time.Time{}, 0, Beginning}},
		"nothing comes":       {{7, 0, time.Time{}, 0, Waiting}, {7, 0, time.Time{}, 0, Waiting}},
		"not counted":         {{-1, 0, time.Time{}, 0, Waiting}, {-1, 148, time.Time{}, 0, Beginning}},
		"it was in yesterday": {{7, 5000, long, 0, Waiting}, {8, 5148, long, 0, Beginning}, {8, 5148, now, 0, Shaken}},
		"firewall reloaded":   {{7, 0, time.Time{}, 0, Waiting}, {0, 0, time.Time{}, 0, Waiting}, {1, 0, time.Time{}, 0, Arriving}},
		"tunnel made anew":    {{7, 5000, long, 0, Waiting}, {8, 148, time.Time{}, 0, Beginning}, {8, 180, now, 0, Shaken}},
		"the tablet is in":    {{7, 0, time.Time{}, 5000, Waiting}, {8, 148, time.Time{}, 5000, Beginning}},
	} {
		w := Watching{}
		for i, g := range list {
			s := Glimpse{At: now, Arrived: Known(g.arrived), Devices: map[key.Public]Heard{phone: {Received: g.rx, Handshake: g.shook}}}
			if g.arrived < 0 {
				s.Arrived = Unknown[int64]("nobody can count")
			}
			if g.rx > 0 {
				s.Devices[phone] = Heard{Received: g.rx, Handshake: g.shook, Endpoint: hotel}
			}
			if g.tablet > 0 {
				s.Devices[tablet] = Heard{Received: g.tablet, Handshake: now.Add(-time.Minute), Endpoint: hotel}
			}
			step, _ := w.See(h, s)
			if step.Stage != g.want {
				t.Errorf("%s, glimpse %d: %s (%s), want %s", name, i, step.Stage, step.Says, g.want)
			}
			if step.Says == "" {
				t.Errorf("%s, glimpse %d: no words", name, i)
			}
			if shown := step.Shown(h, false).Says; strings.Contains(shown, "198.51.100") {
				t.Errorf("shown to strangers: %s", shown)
			}
		}
	}
}
