package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/heimweg/heimweg/internal/fault"
)

// quietEnv is a computer without terminal, environment and network.
func quietEnv(t *testing.T) (Env, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	var out, errs bytes.Buffer
	return Env{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }, Config: t.TempDir()}, &out, &errs
}

func commands(t *testing.T) []*cobra.Command {
	t.Helper()
	env, _, _ := quietEnv(t)
	a := &app{Env: env.filled()}
	root := a.root()
	// What cobra adds by itself when it runs.
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var list []*cobra.Command
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		list = append(list, c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return list
}

// cobras are commands that cobra brings, with words of its own.
func cobras(c *cobra.Command) bool {
	return strings.HasPrefix(c.CommandPath(), "heimweg help") || strings.HasPrefix(c.CommandPath(), "heimweg completion")
}

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, c := range commands(t) {
		path := c.CommandPath()
		if cobras(c) {
			continue
		}
		switch first := strings.ToLower(c.Short[:min(1, len(c.Short))]); {
		case c.Short == "":
			t.Errorf("%s has no short help", path)
		case c.Short[:1] != first || strings.HasSuffix(c.Short, "."):
			t.Errorf("%s: %q: lower case and no full stop", path, c.Short)
		}
		if c.Example == "" && c.Runnable() {
			t.Errorf("%s has no example", path)
		}
		if c.HasSubCommands() && c.Long == "" {
			t.Errorf("%s has commands below it and no long help", path)
		}
		for _, text := range []string{c.Short, c.Long, c.Example} {
			for line := range strings.Lines(text) {
				if len([]rune(line)) > 110 {
					t.Errorf("%s: a line of help is too wide: %q", path, line)
				}
			}
			for _, w := range []string{"—", "client", "user ", "server"} {
				if strings.Contains(text, w) {
					t.Errorf("%s says %q, which is no word of the household: %q", path, w, text)
				}
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: help is %q", path, f.Name, f.Usage)
			}
		})
	}
}

// Every example is a command line that would be taken.
func TestExamplesParse(t *testing.T) {
	// Two blanks or a # begin the explanation beside an example.
	beside := regexp.MustCompile(`(\S)(\s{2,}| # ).*$`)
	for _, c := range commands(t) {
		for line := range strings.Lines(c.Example) {
			line = beside.ReplaceAllString(strings.TrimSpace(line), "$1")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "heimweg" {
				if !cobras(c) {
					t.Errorf("%s: %q is not a command line of heimweg", c.CommandPath(), line)
				}
				continue
			}
			// A fresh tree each time: flags remember.
			root := commands(t)[0]
			cmd, rest, err := root.Find(words[1:])
			if err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
				continue
			}
			if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
			if !cmd.Runnable() {
				t.Errorf("%s: %q runs nothing", c.CommandPath(), line)
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	for shell, sign := range map[string]string{"bash": "complete -o default", "zsh": "#compdef heimweg", "fish": "complete -c heimweg", "powershell": "Register-ArgumentCompleter"} {
		env, out, errs := quietEnv(t)
		if code := Run(t.Context(), env, []string{"completion", shell}); code != 0 || !strings.Contains(out.String(), sign) {
			t.Errorf("%s: exit %d, %d bytes, %s", shell, code, out.Len(), errs)
		}
	}
	env, out, _ := quietEnv(t)
	if code := Run(t.Context(), env, []string{"__complete", "pe"}); code != 0 || !strings.Contains(out.String(), "peer\t") {
		t.Errorf("completing pe: exit %d, %q", code, out)
	}
}

// What was typed wrong is told with what was probably meant.
func TestSuggestions(t *testing.T) {
	for _, tt := range []struct {
		args       []string
		says, next string
	}{
		{[]string{"pere"}, `there is no command "heimweg pere"`, "heimweg peer"},
		{[]string{"peer", "ad", "phone"}, `there is no command "heimweg peer ad"`, "heimweg peer add"},
		{[]string{"xyzzy"}, `there is no command "heimweg xyzzy"`, "heimweg --help"},
		{[]string{"plan", "--chek"}, "unknown flag: --chek", "--check"},
		{[]string{"--accept-rsk=x", "plan"}, "unknown flag: --accept-rsk", "--accept-risk"},
		{[]string{"plan", "--qqqqqqqqqqq"}, "unknown flag: --qqqqqqqqqqq", "heimweg plan --help"},
		{[]string{"version", "now"}, "heimweg version", "heimweg version"},
		{[]string{"apply", "--accept-risk=drops-conection"}, `there is no risk "drops-conection"`, "heimweg apply knows: drops-connection, forgets-keys"},
		{[]string{"upgrade", "--accept-risk=remakes-settings,nonsense"}, `there is no risk "nonsense"`, "heimweg upgrade knows: overwrites-firmware, remakes-settings"},
		{[]string{"firmware", "list", "--accept-risk=nonsense"}, `there is no risk "nonsense"`, "heimweg firmware knows: unverified-firmware"},
		{[]string{"peer", "list", "--accept-risk=nonsense"}, `there is no risk "nonsense"`, "heimweg peer asks about no loss"},
		{[]string{"--accept-risk=nonsense"}, `there is no risk "nonsense"`, "heimweg asks about no loss"},
	} {
		env, out, errs := quietEnv(t)
		code := Run(t.Context(), env, tt.args)
		if code != fault.ExitUsage || !strings.Contains(errs.String(), tt.says) || !strings.Contains(errs.String(), tt.next) || out.Len() > 0 {
			t.Errorf("%q: exit %d\n%s%s", tt.args, code, errs, out)
		}
	}
}

// exits is what docs/commands.md says about exit codes.
var exits = []struct {
	code int
	says string
}{
	{fault.ExitDone, "done, or healthy"},
	{fault.ExitFailed, "it did not work; the text says what to do"},
	{fault.ExitUsage, "what was typed, or home.toml, is wrong"},
	{fault.ExitDifferences, "something differs or was found (`plan --check`, `verify`, `doctor`, `trace`, the proof of `up`)"},
	{fault.ExitNeedsPerson, "a question came up and nobody is at a terminal; the text names the flag that answers it"},
	{fault.ExitUnreachable, "the home router cannot be reached"},
	{fault.ExitInterrupted, "interrupted by Ctrl-C"},
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"version"}, fault.ExitDone},
		{[]string{"--help"}, fault.ExitDone},
		{[]string{"plan", "--nonsense"}, fault.ExitUsage},
	} {
		env, _, errs := quietEnv(t)
		if code := Run(t.Context(), env, tt.args); code != tt.want {
			t.Errorf("%q: exit %d, want %d\n%s", tt.args, code, tt.want, errs)
		}
	}
	for i, want := range []int{0, 1, 2, 3, 4, 5, 130} {
		if exits[i].code != want {
			t.Errorf("exit code %d has become %d; scripts rely on it", want, exits[i].code)
		}
	}
}

// docs/commands.md is the help texts. Rewrite it with
//
//	go test ./internal/cli -run TestCommandsDoc -update
func TestCommandsDoc(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Commands\n\nMade from the program's own help; `go test ./internal/cli -run TestCommandsDoc -update` rewrites it.\n\n")
	b.WriteString("## Exit codes\n\n| code | meaning |\n| --- | --- |\n")
	for _, e := range exits {
		fmt.Fprintf(&b, "| %d | %s |\n", e.code, e.says)
	}
	for _, c := range commands(t) {
		if c.CommandPath() != "heimweg completion" && cobras(c) {
			continue
		}
		writeCommand(&b, c)
	}
	file := filepath.Join("..", "..", "docs", "commands.md")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(was), b.String()); d != "" {
		t.Errorf("docs/commands.md is not what the program says (-file +now):\n%s", d)
	}
}

func writeCommand(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n", c.CommandPath())
	if c.Long != "" {
		b.WriteString(c.Long + "\n\n")
	} else {
		b.WriteString(c.Short + "\n\n")
	}
	if c.Runnable() && c.UseLine() != c.CommandPath() {
		fmt.Fprintf(b, "```\n%s\n```\n\n", c.UseLine())
	}
	if c.Example != "" {
		fmt.Fprintf(b, "Examples:\n\n```\n%s\n```\n\n", strings.TrimRight(c.Example, "\n"))
	}
	if flags := c.LocalFlags().FlagUsages(); flags != "" && !cobras(c) {
		fmt.Fprintf(b, "```\n%s```\n", flags)
	}
	text := strings.TrimRight(b.String(), "\n") + "\n"
	b.Reset()
	b.WriteString(text)
}

// BenchmarkStart measures a start of the built program: load, set up, print.
func BenchmarkStart(b *testing.B) {
	program := filepath.Join(b.TempDir(), "heimweg")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/heimweg").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for b.Loop() {
		if out, err := exec.Command(program, "version").Output(); err != nil || !bytes.HasPrefix(out, []byte("heimweg ")) {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
