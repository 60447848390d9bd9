// Package openwrt reads and changes a home router that runs OpenWrt 21.02 or
// newer, through a shell.
//
// Everything happens in few round trips, because round trips are what a person
// waits for: one script looks at everything, one makes a guarded change, one
// confirms it. The scripts stand in the folder scripts, use only what busybox
// ash of every supported release has, and answer in framed parts (see lib.sh).
//
// The package never prints, never decides what is wanted, and never retries: it
// reports what the router said as a Snapshot or as one of its error types.
//
// Background. OpenWrt keeps its settings in UCI files below /etc/config. Its own
// `uci` program exits 0 for batches that failed and loses updates when two
// writers commit, so heimweg writes whole files by rename and compares hashes
// right before it does. A change that could cut the way to the router runs under
// two guards, a timer in RAM and an init script on flash: whatever happens to us
// or to the power, an unconfirmed change is taken back.
package openwrt

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/shell"
)

//go:embed scripts/*.sh
var scripts embed.FS

// A Shell runs scripts on the router; *shell.Conn is one.
type Shell interface {
	Run(ctx context.Context, s shell.Script) (shell.Result, error)
}

// A Refusal is the router's side of the protocol saying that a step could not be
// done, and that what it had changed was taken back.
type Refusal struct {
	Code   string // "locked", "changed", "staged", "pending", "override", "luci", "nospace", "unreadable", "firewall", "late", "guard", "unpack", "stuck"
	Detail string
}

func (e *Refusal) Error() string { return "the router refused: " + e.Code + " " + e.Detail }

// A GarbledError means that the router's answer is not what the script prints.
type GarbledError struct {
	Missing string // the part that should have been there
	Exit    int
	Said    string // the beginning of what came instead
}

func (e *GarbledError) Error() string {
	return fmt.Sprintf("the router's answer lacks its part %q (exit code %d): %q", e.Missing, e.Exit, e.Said)
}

// NotOpenWrtError means that something else answered.
type NotOpenWrtError struct {
	System string // what `uname -a` says, "" if not even that
}

func (e *NotOpenWrtError) Error() string { return "this is not OpenWrt: " + e.System }

// lockAge is how long a run's lock holds when its owner has fallen silent. It is
// longer than any single step.
const lockAge = 240 * time.Second

// env is a set of shell variables for the head of a script.
type env map[string]string

func (e env) text() string {
	var b strings.Builder
	for _, k := range sortedKeys(e) {
		fmt.Fprintf(&b, "%s=%s\n", k, shell.Quote(e[k]))
	}
	return b.String()
}

// compose puts a script together: variables, the common part, the named files,
// and the last line, which runs it.
func compose(vars env, run string, names ...string) string {
	var b strings.Builder
	b.WriteString(vars.text())
	for _, n := range append([]string{"lib.sh"}, names...) {
		b.Write(file(n))
	}
	b.WriteString(run + "\n")
	return b.String()
}

func file(name string) []byte {
	t, err := scripts.ReadFile("scripts/" + name)
	if err != nil {
		panic("openwrt: " + err.Error()) // the files are part of the program
	}
	return t
}

// NewID makes an identifier for one run.
func NewID() string { return nonce(6) }

func nonce(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// A part is one framed piece of an answer.
type part struct {
	out  []byte
	exit int
}

func (p part) text() string { return strings.TrimRight(string(p.out), "\n") }

func (p part) lines() []string {
	t := p.text()
	if t == "" {
		return nil
	}
	return strings.Split(t, "\n")
}

type parts map[string]part

// run sends a script and cuts its answer into parts. end is the part that says
// that the script came to its end.
func run(ctx context.Context, sh Shell, vars env, cmd, end string, stdin []byte, names ...string) (parts, error) {
	n := nonce(16)
	vars["N"] = n
	res, err := sh.Run(ctx, shell.Script{Text: compose(vars, cmd, names...), Stdin: stdin})
	if err != nil {
		return nil, err
	}
	ps := cut(res.Stdout, n)
	if f, ok := ps["failed"]; ok {
		code, detail, _ := strings.Cut(f.text(), " ")
		return ps, &Refusal{code, strings.TrimSpace(detail)}
	}
	if _, ok := ps[end]; !ok {
		said := string(res.Stderr) + string(res.Stdout)
		// What came may hold a whole configuration; only its first line is shown,
		// and nothing of it when it is one of our own frames.
		if i := strings.Index(said, "@"+n); i >= 0 {
			said = said[:i]
		}
		said, _, _ = strings.Cut(strings.TrimSpace(said), "\n")
		return ps, &GarbledError{Missing: end, Exit: res.Exit, Said: clip(said, 200)}
	}
	return ps, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// cut reads the frames "\n@NONCE begin NAME\n" … "\n@NONCE end NAME EXIT\n". A
// part that was begun and not ended is left out; it does not swallow the next
// one, which may say why.
func cut(out []byte, nonce string) parts {
	ps := parts{}
	begin, end := []byte("\n@"+nonce+" begin "), []byte("\n@"+nonce+" end ")
	for {
		i := bytes.Index(out, begin)
		if i < 0 {
			return ps
		}
		out = out[i+len(begin):]
		name, _, ok := bytes.Cut(out, []byte("\n"))
		if !ok {
			return ps
		}
		// The frame's own line end may be the one before the end mark.
		rest := out[len(name):]
		j := bytes.Index(rest, end)
		if j < 0 {
			return ps
		}
		body := rest[:j]
		if bytes.Contains(body, begin) {
			continue
		}
		if len(body) > 0 {
			body = body[1:]
		}
		tail, _, _ := bytes.Cut(rest[j+len(end):], []byte("\n"))
		endName, code, _ := strings.Cut(string(tail), " ")
		exit, err := strconv.Atoi(code)
		if err == nil && endName == string(name) {
			ps[string(name)] = part{body, exit}
		}
		out = rest[j:]
		out = out[len(end):]
	}
}

// archive makes a tar of small files for a script's standard input.
func archive(files map[string][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range sortedKeys(files) {
		if err := errors.Join(
			w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(files[name])), Format: tar.FormatUSTAR}),
			writeAll(w, files[name]),
		); err != nil {
			panic("openwrt: " + err.Error()) // a buffer takes everything
		}
	}
	w.Close()
	return b.Bytes()
}

func writeAll(w *tar.Writer, b []byte) error { _, err := w.Write(b); return err }
