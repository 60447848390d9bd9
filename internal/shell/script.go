package shell

import (
	"fmt"
	"strings"
)

// bootstrap is the command of every exec request, always the same few words: so
// nothing of a script or of its input is ever in the argument list of a process
// on the router, where `ps` shows it to everybody.
//
// The script comes first on standard input, as one line: backslashes are doubled
// and newlines written \n, which the printf of POSIX undoes. `read` takes that
// line byte by byte, so what follows it on standard input is left for the
// script's own commands. (A shell that reads its commands from standard input
// may not be used for this: ash and dash read ahead in blocks and swallow the
// data. Neither can busybox's `head -c`, which reads through stdio.)
//
// A line without its end makes `read` fail, so a script of which only half
// arrived runs not at all; and eval parses, so a here-document or a brace that
// is left open is an error and not a wait.
//
// sh is called by name because the account's login shell may be another one.
// printf is a builtin of busybox ash (CONFIG_ASH_PRINTF, on in OpenWrt) and of
// dash: the script is in no argument list there either.
//
// Checked with busybox ash 1.35, dash 0.5.12 and bash 5.2 (see the tests).
const bootstrap = `exec sh -c 'IFS= read -r s || exit 97; eval "$(printf %b "$s")"'`

// encode writes a script as the line that bootstrap reads.
func encode(text string) ([]byte, error) {
	if i := strings.IndexByte(text, 0); i >= 0 {
		return nil, fmt.Errorf("a script may not hold a NUL byte (byte %d)", i)
	}
	var b strings.Builder
	b.Grow(len(text) + len(text)/16 + 1)
	for i := range len(text) {
		switch c := text[i]; c {
		case '\\':
			b.WriteString(`\\`)
		case '\n':
			b.WriteString(`\n`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\n')
	return []byte(b.String()), nil
}

// Quote writes s as one word of a POSIX shell.
func Quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,=-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
