package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Builder says how the image builder behaves.
type Builder struct {
	Queue    int    // how many polls a job waits in the queue; its position counts down
	Building int    // how many polls it is worked on
	Refuse   int    // status for every new job: 400, 422, 500, 529; 0 builds
	Detail   string // with Refuse
	Forget   bool   // 404 at the first poll, as when the server was restarted
	NoEVA    bool   // the result lacks the image for the boot loader
	Large    bool   // the images are larger than the 4040's flash
}

// BuildRequest is what somebody asked for, with the raw text to look for secrets.
type BuildRequest struct {
	Distro       string            `json:"distro"`
	Version      string            `json:"version"`
	VersionCode  string            `json:"version_code"`
	Target       string            `json:"target"`
	Profile      string            `json:"profile"`
	Packages     []string          `json:"packages"`
	Versions     map[string]string `json:"packages_versions"`
	DiffPackages bool              `json:"diff_packages"`
	Defaults     string            `json:"defaults"`
	Client       string            `json:"client"`
	Raw          string            `json:"-"`
}

// SetBuilder changes the image builder.
func (m *Mirror) SetBuilder(b Builder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opt.Builder = b
	m.jobs = map[string]*job{}
}

// Builds are all requests to the image builder so far.
func (m *Mirror) Builds() []BuildRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

type job struct {
	hash  string
	ask   BuildRequest
	polls int
}

// The server's own patterns (ASU asu/build_request.py).
var (
	stringPattern = regexp.MustCompile(`^[\w.,-]*$`)
	targetPattern = regexp.MustCompile(`^\w*/\w*$`)
)

// serveBuilder is POST /api/v1/build and GET /api/v1/build/{hash} (ASU
// asu/routers/api.py).
func (m *Mirror) serveBuilder(w http.ResponseWriter, r *http.Request, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case name == "api/v1/build" && r.Method == http.MethodPost:
		m.accept(w, r)
	case strings.HasPrefix(name, "api/v1/build/"):
		j := m.jobs[strings.TrimPrefix(name, "api/v1/build/")]
		if j == nil || m.opt.Builder.Forget {
			reply(w, http.StatusNotFound, map[string]any{"status": 404, "title": "Not Found", "detail": "could not find provided request hash"})
			return
		}
		m.report(w, j)
	default:
		reply(w, http.StatusNotFound, map[string]any{"detail": "Not Found"})
	}
}

func (m *Mirror) accept(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	ask := BuildRequest{Raw: string(raw)}
	bad := func(detail string) { reply(w, http.StatusBadRequest, map[string]any{"detail": detail, "status": 400}) }
	if err := json.Unmarshal(raw, &ask); err != nil {
		reply(w, http.StatusUnprocessableEntity, map[string]any{"detail": []map[string]any{{"type": "json_invalid", "msg": "JSON decode error"}}})
		return
	}
	m.asked = append(m.asked, ask)
	for _, s := range append([]string{ask.Distro, ask.Version, ask.VersionCode, ask.Profile}, ask.Packages...) {
		if !stringPattern.MatchString(s) || !targetPattern.MatchString(ask.Target) {
			reply(w, http.StatusUnprocessableEntity, map[string]any{"detail": []map[string]any{{"type": "string_pattern_mismatch", "msg": "String should match pattern"}}})
			return
		}
	}
	b := m.opt.Builder
	switch {
	case b.Refuse == 529:
		reply(w, 529, map[string]any{"status": 529, "title": "Server overloaded", "detail": "server overload, queue contains too many build requests: 201"})
		return
	case b.Refuse == 422:
		reply(w, 422, map[string]any{"detail": []map[string]any{{"type": "missing", "msg": "Field required"}}})
		return
	case b.Refuse == 400:
		bad(b.Detail)
		return
	case b.Refuse != 0 && b.Refuse != 500:
		reply(w, b.Refuse, map[string]any{"detail": b.Detail})
		return
	case ask.Defaults != "":
		bad("Handling `defaults` not enabled on server")
		return
	case !slices.Contains(m.opt.Releases, ask.Version):
		bad("Unsupported version: " + ask.Version)
		return
	case !slices.ContainsFunc(profiles[ask.Target], func(p profile) bool { return p.id == strings.ReplaceAll(ask.Profile, ",", "_") }):
		bad("Unsupported profile: " + ask.Profile + ". The requested profile was either dropped or never existed. Please check the forums for more information.")
		return
	}
	sum := sha256.Sum256(raw)
	hash := hex.EncodeToString(sum[:])
	if m.jobs[hash] == nil {
		m.jobs[hash] = &job{hash: hash, ask: ask}
	}
	m.report(w, m.jobs[hash])
}

// report answers with a job's state; each report brings it on.
func (m *Mirror) report(w http.ResponseWriter, j *job) {
	b := m.opt.Builder
	v := map[string]any{"request_hash": j.hash, "enqueued_at": "2026-06-30T12:00:00"}
	n := j.polls
	j.polls++
	status, word, position := 202, "queued", 0
	switch {
	case n < b.Queue:
		position = b.Queue - n
		v["queue_position"], v["detail"] = position, "queued"
	case n < b.Queue+b.Building:
		word = "building_image"
		v["imagebuilder_status"], v["detail"] = word, "started"
	case b.Refuse == 500:
		status, word = 500, "failed"
		v["detail"], v["stderr"] = b.Detail, "make: *** [Makefile:123] Error 1"
	default:
		status, word = 200, "done"
		m.built(v, j.ask)
	}
	v["status"] = status
	w.Header().Set("X-Imagebuilder-Status", word)
	w.Header().Set("X-Queue-Position", strconv.Itoa(position))
	reply(w, status, v)
}

// built makes the images of a job and says where they are.
func (m *Mirror) built(v map[string]any, ask BuildRequest) {
	id := strings.ReplaceAll(ask.Profile, ",", "_")
	hash := v["request_hash"].(string)
	where := hash[:2] + "/" + hash
	var images []map[string]any
	for _, i := range imagesOf(ask.Version, ask.Target) {
		if i.profile != id || i.typ == "kernel" || i.typ == "u-boot" || i.typ == "eva" && m.opt.Builder.NoEVA {
			continue
		}
		name := strings.Replace(i.name, "openwrt-"+ask.Version+"-", "openwrt-"+ask.Version+"-"+hash[:12]+"-", 1)
		keep := m.opt.Root
		m.opt.Root = max(keep, 300_000) + 64_000*len(ask.Packages)
		if m.opt.Builder.Large {
			m.opt.Root = 31 << 20
		}
		b := m.build(ask.Version, ask.Target, i, ask.Packages)
		m.opt.Root = keep
		m.files["store/"+where+"/"+name] = b
		images = append(images, map[string]any{"name": name, "type": i.typ, "filesystem": i.filesystem, "sha256": sha(b), "sha256_unsigned": sha(b)})
	}
	manifest := map[string]string{"base-files": "1", "busybox": "1.37.0"}
	for _, name := range ask.Packages {
		manifest[name] = "1"
		for _, p := range packages {
			if p.name == name {
				manifest[name] = p.version(ask.Version)
			}
		}
	}
	v["images"], v["bin_dir"], v["id"], v["manifest"] = images, where, id, manifest
	v["version_number"], v["version_code"], v["target"], v["detail"] = ask.Version, revision(ask.Version), ask.Target, "done"
	v["build_cmd"] = []string{"make", "image", "PROFILE=" + id}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(asJSON(v))
}

func (m *Mirror) builderOverview(string) []byte {
	branches := map[string]any{}
	for _, r := range m.opt.Releases {
		branches[line(r)] = map[string]any{"name": line(r), "enabled": true, "versions": []string{r}}
	}
	return asJSON(map[string]any{"latest": m.releases, "branches": branches, "server": map[string]any{"version": "lab", "allow_defaults": false, "max_defaults_length": 20480}})
}
