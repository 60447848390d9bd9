package upgrade

import (
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/router"
)

func boardAt(version, target string, swconfig bool) router.Board {
	line, _ := router.ParseLine(version)
	return router.Board{Switch: swconfig, Release: router.Release{Version: version, Line: line, Target: target}}
}

var all = []string{"25.12.5", "25.12.4", "25.12.0-rc2", "24.10.8", "24.10.7", "23.05.6", "22.03.7", "22.03.6", "21.02.7"}

func TestChoose(t *testing.T) {
	const ipq, ath = "ipq40xx/generic", "ath79/generic"
	for _, c := range []struct {
		name     string
		now      router.Board
		releases []string
		to       string
		want     Choice // Why: a part of it
		fault    string // or its code
	}{
		{"the next line", boardAt("23.05.6", ipq, false), all, "", Choice{"24.10.8", false, "again afterwards for 25.12.5"}, ""},
		{"the newest", boardAt("24.10.8", ipq, false), all, "", Choice{"25.12.5", false, ""}, ""},
		{"within its line, no other being there", boardAt("24.10.7", ipq, false), []string{"24.10.8"}, "", Choice{"24.10.8", false, ""}, ""},
		{"nothing newer", boardAt("25.12.5", ipq, false), all, "", Choice{}, ""},
		{"no candidate by itself", boardAt("24.10.8", ipq, false), []string{"25.12.0-rc2"}, "", Choice{}, ""},
		{"a candidate when named", boardAt("24.10.8", ipq, false), all, "25.12.0-rc2", Choice{"25.12.0-rc2", false, ""}, ""},
		{"ports change their names", boardAt("22.03.7", ipq, true), all, "", Choice{"25.12.5", true, "other names from 23.05 on"}, ""},
		{"ports change their names, and its line has a newer one", boardAt("22.03.6", ipq, true), all, "", Choice{"25.12.5", true, "other names"}, ""},
		{"21.02 on the way there", boardAt("21.02.7", ipq, true), all, "", Choice{"22.03.7", false, "for 25.12.5"}, ""},
		{"named: over the change", boardAt("22.03.7", ipq, true), all, "23.05", Choice{"23.05.6", true, "other names"}, ""},
		{"a box that keeps its switch", boardAt("22.03.7", ath, true), all, "", Choice{"23.05.6", false, "for 25.12.5"}, ""},
		{"two lines at once", boardAt("23.05.6", ipq, false), all, "25.12", Choice{"25.12.5", true, "more than one release line"}, ""},
		{"a line", boardAt("23.05.6", ipq, false), all, "24.10", Choice{"24.10.8", false, ""}, ""},
		{"a release", boardAt("23.05.6", ipq, false), all, "24.10.7", Choice{"24.10.7", false, ""}, ""},
		{"what runs already", boardAt("24.10.8", ipq, false), all, "24.10.8", Choice{}, ""},
		{"back", boardAt("24.10.8", ipq, false), all, "23.05", Choice{}, "older-release"},
		{"no such release", boardAt("24.10.8", ipq, false), all, "26.05.1", Choice{}, "no-release"},
		{"no such line", boardAt("24.10.8", ipq, false), all, "26.05", Choice{}, "no-release"},
	} {
		got, err := Choose(c.now, c.releases, c.to)
		if f := fault.Find(err); (f == nil) != (c.fault == "") || f != nil && f.Code != c.fault {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.Version != c.want.Version || got.Fresh != c.want.Fresh || !strings.Contains(got.Why, c.want.Why) || c.want.Why == "" && got.Why != "" {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
