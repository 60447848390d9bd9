package upgrade

import (
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firmware"
	"github.com/heimweg/heimweg/internal/router"
)

// A Choice is a release to go to.
type Choice struct {
	Version string // "" when there is nothing newer
	// Fresh: settings cannot be carried over and are made anew.
	Fresh bool
	Why   string // for people: why it is fresh, or why not the newest
}

// Choose finds the release to go to. to is what a person asked for, "" for the
// newest that keeps settings; where no newer one keeps them, the newest of all.
//
// Settings are carried from one release line to the next; over more than one at a
// time OpenWrt promises nothing, so that is several upgrades. Boards whose ports
// changed from swconfig to DSA cannot carry settings over that change (facts eva.md
// 4.5; openwrt.md 2).
func Choose(now router.Board, releases []string, to string) (Choice, error) {
	from := now.Release.Version
	if to != "" {
		return chosen(now, releases, to)
	}
	var newest, keeping string
	for _, v := range releases {
		if strings.Contains(v, "-") || firmware.Compare(v, from) <= 0 { // candidates and older ones
			continue
		}
		if newest == "" || firmware.Compare(v, newest) > 0 {
			newest = v
		}
		if keeps(now, v) && (keeping == "" || firmware.Compare(v, keeping) > 0) {
			keeping = v
		}
	}
	switch {
	case newest == "":
		return Choice{}, nil
	case keeping == "" || lineOf(keeping) == now.Release.Line && portsChange(now, lineOf(newest)):
		return Choice{newest, true, freshReason(now, newest)}, nil
	case keeping != newest:
		return Choice{keeping, false, "settings are carried over one release line at a time; run heimweg upgrade again afterwards for " + newest}, nil
	}
	return Choice{Version: newest}, nil
}

func chosen(now router.Board, releases []string, to string) (Choice, error) {
	// "24.10" means the newest of that line.
	if line, ok := router.ParseLine(to); ok && to == line.String() {
		best := ""
		for _, v := range releases {
			if lineOf(v) == line && !strings.Contains(v, "-") && (best == "" || firmware.Compare(v, best) > 0) {
				best = v
			}
		}
		if best == "" {
			return Choice{}, fault.NewUsage("no-release", "there is no release of OpenWrt %s", to).Do("heimweg firmware list shows what there is")
		}
		to = best
	}
	if !slices.Contains(releases, to) {
		return Choice{}, fault.NewUsage("no-release", "there is no OpenWrt %s", to).Do("heimweg firmware list shows what there is")
	}
	switch c := firmware.Compare(to, now.Release.Version); {
	case c < 0:
		return Choice{}, fault.NewUsage("older-release", "OpenWrt %s is older than the %s that runs there", to, now.Release.Version).
			Because("settings are never carried backwards").
			Do("heimweg backup, flash the older release by cable (heimweg flash), then heimweg restore")
	case c == 0:
		return Choice{}, nil
	}
	if keeps(now, to) {
		return Choice{Version: to}, nil
	}
	return Choice{to, true, freshReason(now, to)}, nil
}

func lineOf(version string) router.Line { l, _ := router.ParseLine(version); return l }

// keeps reports whether settings can be carried over, as far as that is known
// before the router has seen the image.
func keeps(now router.Board, to string) bool {
	line := lineOf(to)
	if portsChange(now, line) {
		return false
	}
	lines := router.Lines()
	i := slices.Index(lines, now.Release.Line)
	return line == now.Release.Line || i >= 0 && i+1 < len(lines) && line == lines[i+1]
}

// portsChange: the board leaves swconfig on the way to that line (the ipq40xx
// boards with 23.05). A board that stays with it, such as the 4020, does not.
func portsChange(now router.Board, to router.Line) bool {
	return now.Switch && now.Release.Target == "ipq40xx/generic" && to.AtLeast(router.Line2305)
}

func freshReason(now router.Board, to string) string {
	if portsChange(now, lineOf(to)) {
		return "its ports have other names from 23.05 on, so settings cannot be carried over"
	}
	return "settings are not carried over more than one release line at a time"
}
