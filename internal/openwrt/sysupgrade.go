package openwrt

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uci"
)

// pieceSize is how much of an image goes over in one round trip: progress can be
// told, and after a lost connection only the rest has to follow.
const pieceSize = 512 << 10

// Upload brings an image into the router's RAM, in pieces; from says how much of
// it is there already (see UploadedError). progress is told the bytes so far.
//
// Errors: *RoomError, *UploadedError, those of the shell.
func Upload(ctx context.Context, sh Shell, image []byte, from int, progress func(done int)) error {
	for at := from; at < len(image); {
		piece := image[at:min(at+pieceSize, len(image))]
		vars := env{"OFFSET": strconv.Itoa(at), "LENGTH": strconv.Itoa(len(piece)), "TOTAL": strconv.Itoa(len(image))}
		if _, err := run(ctx, sh, vars, "upload", "uploaded", piece, "upload.sh"); err != nil {
			return uploadError(err)
		}
		at += len(piece)
		if progress != nil {
			progress(at)
		}
	}
	return nil
}

// A RoomError means that the router's RAM is too small for the image beside what
// is in use.
type RoomError struct{ FreeKB, NeedKB int64 }

func (e *RoomError) Error() string {
	return fmt.Sprintf("the image needs %d kB of the router's RAM, and %d kB are free", e.NeedKB, e.FreeKB)
}

// An UploadedError says how much of the image the router has, when it is not
// what the caller thought.
type UploadedError struct{ Have int }

func (e *UploadedError) Error() string {
	return fmt.Sprintf("the router has %d bytes of the image", e.Have)
}

func uploadError(err error) error {
	var r *Refusal
	if !errors.As(err, &r) {
		return err
	}
	f := strings.Fields(r.Detail)
	switch {
	case r.Code == "noram":
		e := &RoomError{}
		if len(f) > 1 {
			e.FreeKB, _ = strconv.ParseInt(f[0], 10, 64)
			e.NeedKB, _ = strconv.ParseInt(f[1], 10, 64)
		}
		return e
	case r.Code == "offset" && len(f) == 1:
		n, _ := strconv.Atoi(f[0])
		return &UploadedError{n}
	}
	return err
}

// ImageTrouble says why the router refuses an image.
type ImageTrouble int

// The reasons, by the rules of OpenWrt's fwtool.sh (facts eva.md 4.5).
const (
	ImageRefused  ImageTrouble = iota // a text that we do not know; Said has it
	ImageBoard                        // it is for another board
	ImageSettings                     // settings cannot be kept: their format is another one
	ImageLayout                       // it does not fit this flash layout at all
	ImageDamaged                      // no metadata that fits: not an image, or not whole
)

// An ImageError is the router's refusal of an image.
type ImageError struct {
	Trouble ImageTrouble
	Said    []string // its words, dates and names of functions removed
}

func (e *ImageError) Error() string {
	return "the router refuses the image: " + strings.Join(e.Said, "; ")
}

// Judge compares the image that was uploaded with its SHA-256 and lets the router
// check it (`sysupgrade -T`). keep: settings shall be kept.
//
// Errors: *ImageError, *Refusal with code "damaged" when the upload is not whole,
// those of the shell.
func Judge(ctx context.Context, sh Shell, sum string, keep bool) error {
	vars := env{"SUM": sum, "KEEP": ""}
	if !keep {
		vars["KEEP"] = "-n"
	}
	ps, err := run(ctx, sh, vars, "judge", "judged", nil, "upload.sh")
	if err != nil {
		return err
	}
	if t := ps["test"]; t.exit != 0 {
		return imageError(t.lines())
	}
	return nil
}

// dated is what sysupgrade puts before its words.
var dated = regexp.MustCompile(`^.* upgrade: `)

func imageError(lines []string) *ImageError {
	e := &ImageError{}
	for _, l := range lines {
		l = strings.TrimSpace(dated.ReplaceAllString(l, ""))
		if l == "" || strings.HasPrefix(l, "Use sysupgrade -F") {
			continue
		}
		e.Said = append(e.Said, clip(l, 200))
		switch {
		case strings.Contains(l, "not supported by this image"):
			e.Trouble = ImageBoard
		case strings.Contains(l, "config is incompatible"):
			e.Trouble = ImageSettings
		case strings.Contains(l, "incompatible for sysupgrade"):
			e.Trouble = ImageLayout
		case strings.Contains(l, "metadata not present"), strings.Contains(l, "Invalid image metadata"):
			e.Trouble = ImageDamaged
		}
	}
	return e
}

// A Note is what the router keeps over an upgrade so that any later run can
// finish it. It holds no secret.
type Note struct {
	Format   int      `json:"format"`
	ID       string   `json:"id"`
	From     string   `json:"from"` // release: "23.05.5"
	To       string   `json:"to"`
	Fresh    bool     `json:"fresh,omitempty"`    // settings are made anew
	Backup   string   `json:"backup,omitempty"`   // file on the computer that began it
	Packages []string `json:"packages,omitempty"` // to install afterwards
	Wanted   []string `json:"wanted,omitempty"`   // asked for by name, in the image or not
}

// An Upgrade is the order to write the image that was uploaded.
type Upgrade struct {
	Note Note
	Sum  string // SHA-256 of the image, hex
	// Few are the only files that stay, when Note.Fresh: a fresh system with them
	// put over it (`sysupgrade -n -f`).
	Few []PutFile
}

// Commence writes the image. The connection ends with it; nil means that the
// router went down, *Refusal that it did not and why.
func Commence(ctx context.Context, sh Shell, u Upgrade) error {
	u.Note.Format = 1
	note, err := json.Marshal(u.Note)
	if err != nil {
		return err
	}
	files := map[string][]byte{"upgrade.json": append(note, '\n')}
	vars := env{"ID": u.Note.ID, "LOCKSECONDS": seconds(lockAge), "SUM": u.Sum, "OPTIONS": ""}
	if u.Note.Fresh {
		vars["OPTIONS"] = "-n -f /tmp/heimweg/few.tgz"
		files["few.tgz"] = few(append(u.Few, PutFile{Name: "/etc/heimweg/upgrade.json", Mode: 0o600, Text: uci.Hidden(string(note) + "\n")}))
	}
	_, err = run(ctx, sh, vars, "commence", "commencing", archive(files), "upgrade.sh")
	var lost *shell.LostError
	if errors.As(err, &lost) {
		return nil
	}
	return err
}

// few packs files the way sysupgrade keeps them.
func few(files []PutFile) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range files {
		text := []byte(f.Text.Reveal())
		w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(f.Name, "/"), Mode: f.Mode, Size: int64(len(text)), ModTime: time.Unix(1, 0), Format: tar.FormatUSTAR})
		w.Write(text)
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

// Arrival is where an upgrade stands, as the router sees it.
type Arrival struct {
	// Same: this is still the life in which the upgrade began.
	Same bool
	// Unpacking: the first start is not through; a power cut now would put the old
	// settings over whatever is written.
	Unpacking bool
	Note      *Note // nil: no upgrade is going on
}

// Arrive asks for it.
func Arrive(ctx context.Context, sh Shell) (Arrival, error) {
	ps, err := run(ctx, sh, env{}, "arrival", "arrived", nil, "upgrade.sh")
	if err != nil {
		return Arrival{}, err
	}
	a := Arrival{Same: ps["upgrading"].exit == 0, Unpacking: ps["unpacking"].exit == 0}
	if n := ps["note"]; n.exit == 0 {
		var note Note
		if json.Unmarshal(n.out, &note) == nil && note.Format == 1 {
			a.Note = &note
		}
	}
	return a, nil
}

// Forget ends an upgrade: the router's note about it goes. packages were asked for
// by name; those that are now part of the image would be forgotten otherwise.
func Forget(ctx context.Context, sh Shell, packages []string) error {
	_, err := run(ctx, sh, env{"PACKAGES": strings.Join(packages, " ")}, "forget", "forgotten", nil, "upgrade.sh")
	return err
}

// SumOf is an image's SHA-256 as the router prints it.
func SumOf(image []byte) string {
	s := sha256.Sum256(image)
	return hex.EncodeToString(s[:])
}
