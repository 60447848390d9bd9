package firmware

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The largest sizes that lists may have, in bytes. The real ones have 2 kB, 200 kB
// and 2 MB.
const (
	maxVersions = 256 << 10
	maxSums     = 8 << 20
	maxProfiles = 16 << 20
)

// Releases is what .versions.json says.
type Releases struct {
	Stable    string   `json:"stable"`
	OldStable string   `json:"old_stable,omitempty"`
	Upcoming  string   `json:"upcoming,omitempty"`
	All       []string `json:"all"` // newest first
	// SeenBefore is a newer stable release than Stable that a list named earlier:
	// this one is outdated, or somebody wants it to be. "" is the normal case.
	SeenBefore string `json:"seen_before,omitempty"`
}

// versionPattern is what a version may look like. It becomes part of paths.
var versionPattern = regexp.MustCompile(`^\d{1,4}\.\d{1,4}(\.\d{1,4})?(-rc\d{1,3})?$`)

// parseVersions reads .versions.json (facts eva.md 5.1). Entries that are no
// version are left out; without a stable version it is none of OpenWrt's.
func parseVersions(name string, text []byte) (Releases, error) {
	var v struct {
		Stable    string   `json:"stable_version"`
		OldStable string   `json:"oldstable_version"`
		Upcoming  string   `json:"upcoming_version"`
		List      []string `json:"versions_list"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return Releases{}, &ListError{name, "it is not the JSON that it should be"}
	}
	clean := func(s string) string {
		if versionPattern.MatchString(s) {
			return s
		}
		return ""
	}
	r := Releases{Stable: clean(v.Stable), OldStable: clean(v.OldStable), Upcoming: clean(v.Upcoming)}
	if r.Stable == "" {
		return Releases{}, &ListError{name, "it names no stable release"}
	}
	for _, s := range append([]string{r.Stable, r.OldStable}, v.List...) {
		if clean(s) != "" && !slices.Contains(r.All, s) {
			r.All = append(r.All, s)
		}
	}
	slices.SortStableFunc(r.All, func(a, b string) int { return Compare(b, a) })
	return r, nil
}

// Compare orders versions: "24.10.8" before "25.12.0-rc1" before "25.12.0".
func Compare(a, b string) int {
	an, arc := versionNumbers(a)
	bn, brc := versionNumbers(b)
	if c := slices.Compare(an, bn); c != 0 {
		return c
	}
	return cmp.Compare(arc, brc)
}

// versionNumbers reads a version; a release counts as a late candidate of itself.
func versionNumbers(v string) (numbers []int, candidate int) {
	v, rc, isCandidate := strings.Cut(v, "-rc")
	candidate = 1 << 20
	if isCandidate {
		candidate, _ = strconv.Atoi(rc)
	}
	for s := range strings.SplitSeq(v, ".") {
		n, _ := strconv.Atoi(s)
		numbers = append(numbers, n)
	}
	return numbers, candidate
}

// Line is the release line of a version: "24.10".
func Line(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// An entry is one image of profiles.json.
type entry struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"` // 0 before 25.12
}

// profilesFile is what is used of profiles.json (facts eva.md 5.1).
type profilesFile struct {
	Version  string `json:"version_number"`
	Code     string `json:"version_code"`
	Target   string `json:"target"`
	Arch     string `json:"arch_packages"`
	Kernel   kernel `json:"linux_kernel"`
	Profiles map[string]struct {
		Images []entry `json:"images"`
	} `json:"profiles"`
}

type kernel struct {
	Version  string `json:"version"`
	Release  string `json:"release"`
	Vermagic string `json:"vermagic"`
}

// kernelPattern guards what becomes the name of a directory: "6.6.93-1-5c7d…".
var kernelPattern = regexp.MustCompile(`^[0-9a-zA-Z.]{1,40}-[0-9a-zA-Z]{1,10}-[0-9a-f]{32}$`)

// dir is the feed of the kernel's modules, "" when the file does not name it.
func (k kernel) dir() string {
	if d := k.Version + "-" + k.Release + "-" + k.Vermagic; kernelPattern.MatchString(d) {
		return d
	}
	return ""
}

var archPattern = regexp.MustCompile(`^[0-9a-zA-Z_.-]{1,60}$`)

func parseProfiles(name string, text []byte) (*profilesFile, error) {
	p := new(profilesFile)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, &ListError{name, "it is not the JSON that it should be"}
	}
	if p.Arch != "" && (!archPattern.MatchString(p.Arch) || strings.Contains(p.Arch, "..")) {
		return nil, &ListError{name, "its package architecture makes no sense"}
	}
	for id, x := range p.Profiles {
		for _, i := range x.Images {
			if !safeName(i.Name) || !isSHA256(i.SHA256) {
				return nil, &ListError{name, fmt.Sprintf("an image of %s has no name or checksum that makes sense", printable(id))}
			}
		}
	}
	return p, nil
}

// Sums is a checksum list: SHA-256 in lower case hex by file name.
type Sums map[string]string

// parseSums reads coreutils' format: 64 hex digits, a blank, a blank or "*", the
// name. Two different sums for one name are refused.
func parseSums(name string, text []byte) (Sums, error) {
	out := Sums{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			continue
		}
		if len(line) < 67 || line[64] != ' ' || line[65] != ' ' && line[65] != '*' {
			return nil, &ListError{name, "a line is no checksum with a name"}
		}
		sum, file := string(line[:64]), string(line[66:])
		if !isSHA256(sum) || !safePath(file) {
			return nil, &ListError{name, "a line is no checksum with a name"}
		}
		if old, twice := out[file]; twice && old != strings.ToLower(sum) {
			return nil, &ListError{name, "it names one file twice"}
		}
		out[file] = strings.ToLower(sum)
	}
	if len(out) == 0 {
		return nil, &ListError{name, "it is empty"}
	}
	return out, nil
}

func isSHA256(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 64
}

// safeName is a file's name without a way out of its directory.
func safeName(s string) bool { return safePath(s) && !strings.Contains(s, "/") }

// safePath is a relative path that stays where it is, in characters that every
// system's files and a URL can carry.
func safePath(s string) bool {
	if s == "" || len(s) > 300 || s != path.Clean(s) || strings.HasPrefix(s, "/") {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "." || part == ".." || part == "" || strings.HasPrefix(part, "-") {
			return false
		}
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("./_-+~,@", r)
	}) < 0
}

// printable shortens what a server said and takes out what would move a cursor.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}

func sumOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
