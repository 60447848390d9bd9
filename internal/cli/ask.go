package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/heimweg/heimweg/internal/fault"
)

// A Terminal is where a person sits.
type Terminal interface {
	// IsTerminal reports whether there is somebody to ask.
	IsTerminal() bool
	// Size is the terminal's size in columns and lines; ok is false when it has none.
	Size() (columns, lines int, ok bool)
	// ReadSecret reads a line without showing it.
	ReadSecret() (string, error)
}

type stdio struct{}

func (stdio) IsTerminal() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
}

func (stdio) Size() (int, int, bool) {
	w, h, err := term.GetSize(int(os.Stdout.Fd()))
	return w, h, err == nil
}

func (stdio) ReadSecret() (string, error) {
	b, err := term.ReadPassword(int(os.Stdin.Fd()))
	return string(b), err
}

// needsPerson is the failure when a question comes up and nobody is there.
func needsPerson(question, flag string) error {
	return fault.New("needs-person", "this needs an answer and there is no terminal to ask: %s", question).
		Do("answer with %s", flag).Exits(fault.ExitNeedsPerson)
}

// ask puts a question and reads one line; an empty answer is the default. The
// prompt goes to standard error, so that standard output stays clean.
func (a *app) ask(ctx context.Context, question, def, flag string) (string, error) {
	if !a.Terminal.IsTerminal() {
		return "", needsPerson(question, flag)
	}
	if def != "" {
		fmt.Fprintf(a.Err, "%s [%s] ", question, def)
	} else {
		fmt.Fprintf(a.Err, "%s ", question)
	}
	line, err := a.readLine(ctx)
	if err != nil {
		return "", err
	}
	if line == "" {
		return def, nil
	}
	return line, nil
}

// agree asks a routine question whose default is no.
func (a *app) agree(ctx context.Context, question string) (bool, error) {
	if a.yes {
		return true, nil
	}
	if !a.Terminal.IsTerminal() {
		return false, needsPerson(question, "--yes")
	}
	fmt.Fprintf(a.Err, "%s [y/N] ", question)
	line, err := a.readLine(ctx)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(line) {
	case "y", "yes", "j", "ja":
		return true, nil
	}
	return false, nil
}

// readLine reads byte by byte, so that nothing meant for the next question is
// swallowed. Ctrl-C ends it.
func (a *app) readLine(ctx context.Context) (string, error) {
	if a.typed == nil { // else somebody gave up waiting for a line that is still to come
		got := make(chan typed, 1)
		a.typed = got
		go func() {
			line, err := lineOf(a.In)
			got <- typed{line, err}
		}()
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.Err)
		return "", ctx.Err()
	case r := <-a.typed:
		a.typed = nil
		if r.err == io.EOF && r.line == "" {
			fmt.Fprintln(a.Err)
			return "", inputEnded()
		}
		if r.err != nil && r.err != io.EOF {
			return "", r.err
		}
		return strings.TrimSpace(r.line), nil
	}
}

// typed is a line that a person typed.
type typed struct {
	line string
	err  error
}

func inputEnded() error {
	return fault.New("needs-person", "the input ended where an answer was needed").Exits(fault.ExitNeedsPerson)
}

func lineOf(r io.Reader) (string, error) {
	if b, ok := r.(*bufio.Reader); ok {
		s, err := b.ReadString('\n')
		return s, err
	}
	var b strings.Builder
	one := make([]byte, 1)
	for {
		n, err := r.Read(one)
		if n == 1 {
			if one[0] == '\n' {
				return b.String(), nil
			}
			b.WriteByte(one[0])
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// nearestFlag finds the flag that was probably meant.
func nearestFlag(cmd *cobra.Command, typed string) string {
	best, at := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := distance(typed, f.Name); d < at {
			best, at = f.Name, d
		}
	})
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
