package openwrt

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/uci"
)

// Belongings are what makes a gateway, as the router gives it.
type Belongings struct {
	// Archive is the tar.gz of `sysupgrade -b`: the files on the keep lists, keys
	// and password hashes among them; hidden.
	Archive uci.Value
	// Written is heimweg's own record, "" for none. It holds no secret.
	Written string
	// Packages were asked for by name: they are not in the image, or they are because
	// an earlier upgrade had them put in. Nil when the image has no read-only part to
	// compare with.
	Packages []string
}

// Gather reads them in one round trip and changes nothing.
//
// Errors: those of the shell, *GarbledError, *BackupError.
func Gather(ctx context.Context, sh Shell) (Belongings, error) {
	ps, err := run(ctx, sh, env{}, "gather", "gathered", nil, "gather.sh")
	if err != nil {
		return Belongings{}, err
	}
	if ps["made"].exit != 0 || len(ps["archive"].out) == 0 {
		return Belongings{}, &BackupError{clip(ps["made"].text(), 200)}
	}
	b := Belongings{Archive: uci.Hidden(string(ps["archive"].out))}
	if w := ps["written"]; w.exit == 0 {
		b.Written = string(w.out)
	}
	if s := ps["shipped"]; s.exit == 0 {
		if ps["wanted"].exit != 0 {
			ps["wanted"] = part{}
		}
		b.Packages = besides(ps["asked"].lines(), s.lines(), strings.Fields(string(ps["wanted"].out)))
	}
	return b, nil
}

// A BackupError means that the router could not pack its settings.
type BackupError struct{ Said string }

func (e *BackupError) Error() string { return "the router made no backup: " + e.Said }

// besides picks what was asked for: apk's world has a name (and perhaps a
// constraint) a line, opkg's status "Package: name", followed by "Auto-Installed:
// yes" for what only came along. What an earlier upgrade noted as wanted counts as
// long as it is there.
func besides(asked, shipped, wanted []string) []string {
	out := []string{}
	for _, l := range asked {
		if l == "Auto-Installed: yes" {
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			continue
		}
		name := strings.TrimPrefix(l, "Package: ")
		if i := strings.IndexAny(name, "<>=~@"); i >= 0 {
			name = name[:i]
		}
		out = append(out, strings.TrimSpace(name))
	}
	out = slices.DeleteFunc(out, func(n string) bool { return n == "" || slices.Contains(shipped, n) && !slices.Contains(wanted, n) })
	slices.Sort(out)
	return slices.Compact(out)
}

// A PutFile is one file to put back.
type PutFile struct {
	Name string
	Mode int64
	Text uci.Value
}

// Restored is what goes back outside of any guarded window, because nothing of it
// can cut the way to the router.
type Restored struct {
	Files []PutFile
	Hash  uci.Value // root's password, crypt form; empty leaves it alone
	// SSH: the SSH server reads its keys anew, a second later; open connections stay.
	SSH bool
}

// plainName are the names that a script may handle without quoting.
var plainName = regexp.MustCompile(`^(/[A-Za-z0-9_+@%=:,-][A-Za-z0-9._+@%=:,-]*)+$`)

// A NameError is about a file that cannot be put back by a script.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%q is no name for a file of a router", e.Name)
}

// PutBack writes files, each by rename, and root's password.
//
// Errors: *NameError before anything is done, *Refusal, those of the shell.
func PutBack(ctx context.Context, sh Shell, r Restored) error {
	vars := env{"SETHASH": "", "SSH": ""}
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	put := func(name string, mode int64, text string) {
		w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(text)), Format: tar.FormatUSTAR})
		w.Write([]byte(text))
	}
	var names []string
	for _, f := range r.Files {
		if !plainName.MatchString(f.Name) || len(f.Name) > 95 {
			return &NameError{f.Name}
		}
		names = append(names, f.Name)
		put("f"+f.Name, f.Mode, f.Text.Reveal())
	}
	vars["FILES"] = strings.Join(names, "\n")
	if h := r.Hash.Reveal(); h != "" {
		vars["SETHASH"] = "yes"
		put("hash", 0o600, h+"\n")
	}
	if r.SSH {
		vars["SSH"] = "yes"
	}
	w.Close()
	_, err := run(ctx, sh, vars, "put_back", "putback", in.Bytes(), "putback.sh")
	return err
}

// PlainName reports whether PutBack can handle a file of that name.
func PlainName(name string) bool { return plainName.MatchString(name) && len(name) <= 95 }
