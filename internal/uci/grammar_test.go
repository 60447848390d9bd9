package uci

import (
	"fmt"
	"strings"
	"testing"
)

// grammar is what the uci program made of these texts (built from the sources of
// December 2025; 23.05, 24.10 and 25.12 agree): what `uci -n export` printed, or
// its error. Facts: OpenWrt 4.1 and 4.7.
var grammar = []struct{ name, text, want string }{
	{"one-letter keywords", "p t\nc a b\no x 1\nl y 2\n", "config a 'b'\n\toption x '1'\n\tlist y '2'"},
	{"an unknown command", "config a\nfoo\n", "! (invalid command) at line 2, byte 0"},
	{"a keyword directly before the line end", "config\n", "! (invalid command) at line 1, byte 0"},
	{"a keyword with a blank before the line end", "config \n", "! (insufficient arguments) at line 1, byte 8"},
	{"a keyword at the end of the file", "config", "! (config without name) at line 0, byte 0"},
	{"only blank and tab end a keyword", "config a\n\toption\vx 1\n", "! (invalid command) at line 2, byte 1"},
	{"but any white space parts arguments", "config a\n\toption x\v1\f\n", "config a 'cfg01b606'\n\toption x '1'"},
	{"keywords cannot be quoted", "config a\n'option' x 1\n", "! (invalid command) at line 2, byte 0"},
	{"keywords cannot be continued", "config a\nopt\\\nion x 1\n", "! (invalid command) at line 2, byte 0"},
	{"a byte order mark", "\ufeffconfig a\n", "! (invalid command) at line 1, byte 0"},
	{"an option before the first section", "option x 1\n", "! (option/list command found before the first section) at line 1, byte 0"},
	{"no name", "config a\n\toption ''\n", "! (insufficient arguments) at line 2, byte 11"},
	{"too many arguments", "config a\n\toption x 1 2\n", "! (too many arguments) at line 2, byte 14"},
	{"too many arguments of a section", "config a b c\n", "! (too many arguments) at line 1, byte 13"},
	{"a section name with a dash", "config a b-c\n", "! (invalid character in name field) at line 1, byte 13"},
	{"an option name with a dash", "config a\n\toption b-c 1\n", "! (invalid character in name field) at line 2, byte 12"},
	{"a type with a blank", "config 'a b'\n", "! (invalid character in type field) at line 1, byte 13"},
	{"a type with other signs", "config a-b;c\n", "config a-b 'cfg0155b5'"},
	{"a package line is ignored", "package other\nconfig a b\n", "config a 'b'"},
	{"but its name is checked", "config a b\npackage a.b\n", "! (invalid character in name field) at line 2, byte 12"},
	{"a package line without a name", "package \n", "! (insufficient arguments) at line 1, byte 9"},
	{"quotes are joined", "config a\n\toption x a'b c'\"d\"\\ e\n", "config a 'cfg01b606'\n\toption x 'ab cd e'"},
	{"no escapes between single quotes", "config a\n\toption x 'a\\nb\\'\n", "config a 'cfg01b606'\n\toption x 'a\\nb\\'"},
	{"a backslash between double quotes", "config a\n\toption x \"a\\nb\\\"c\\\\\"\n", "config a 'cfg01b606'\n\toption x 'anb\"c\\'"},
	{"values over several lines", "config a\n\toption x 'one\ntwo'\n\toption y \"one\ntwo\"\n", "config a 'cfg01b606'\n\toption x 'one\ntwo'\n\toption y 'one\ntwo'"},
	{"unterminated single quote", "config a\n\toption x 'one\n\toption y 2\n", "! (EOF with unterminated ') at line 3, byte 27"},
	{"unterminated double quote", "config a\n\toption x \"one\n", "! (EOF with unterminated \") at line 2, byte 15"},
	{"continued with a blank: the word ends", "config a\n\toption x \\\n\t1\n", "! (too many arguments) at line 3, byte 14"},
	{"continued without", "config a\n\toption x \\\n1\n", "config a 'cfg01b606'\n\toption x '1'"},
	{"continued within a word", "config a\n\toption x one\\\ntwo\n", "config a 'cfg01b606'\n\toption x 'onetwo'"},
	{"continued before CR LF", "config a\n\toption x one\\\r\ntwo\n", "config a 'cfg01b606'\n\toption x 'onetwo'"},
	{"continued between double quotes", "config a\n\toption x \"one\\\ntwo\"\n", "config a 'cfg01b606'\n\toption x 'onetwo'"},
	{"not between single quotes", "config a\n\toption x 'one\\\ntwo'\n", "config a 'cfg01b606'\n\toption x 'one\\\ntwo'"},
	{"a continued line with a blank after a word", "config a\n\toption x 1\\\n 2\n", "! (too many arguments) at line 3, byte 15"},
	{"a backslash at the end of the file", "config a\n\toption x 1\\", "config a 'cfg01b606'\n\toption x '1'"},
	{"CR LF", "config a b\r\n\toption x 1\r\n", "config a 'b'\n\toption x '1'"},
	{"CR in quotes is kept", "config a\n\toption x 'one\r\ntwo'\n", "config a 'cfg01b606'\n\toption x 'one\r\ntwo'"},
	{"CR alone is a blank", "config a\roption\n", "config a 'option'"},
	{"a comment within a word", "config a\n\toption x a#b\n", "config a 'cfg01b606'\n\toption x 'a'"},
	{"a comment instead of a value", "config a\n\toption x#y z\n", "config a 'cfg01b606'"},
	{"a comment in quotes is none", "config a\n\toption x '#' # is\n", "config a 'cfg01b606'\n\toption x '#'"},
	{"; touching a bare word: the rest is lost", "config a; option x 1\n\toption y 2;option z 3\n", "config a 'cfg01b606'\n\toption y '2'"},
	{"; after a quoted word", "config 'a'; option x '1'; option y '2'\n\toption z '3'\n", "! (too many arguments) at line 1, byte 19"},
	{"; with a blank before it", "config a b ; option x 1 ; option y 2\n", "config a 'b'\n\toption x '1'\n\toption y '2'"},
	{"; at the end of a line", "config a 'b';\n", "! (invalid command) at line 1, byte 13"},
	{"; at the end of a line, CR LF", "config a 'b';\r\n", "! (invalid command) at line 1, byte 13"},
	{"; at the end of the file", "config a 'b';", "config a 'b'"},
	{"; before a comment", "config a 'b';# c\n", "config a 'b'"},
	{";;", "config a 'b';; option x 1\n", "! (invalid command) at line 1, byte 13"},
	{"leading ;", "; config a b\n", "! (invalid command) at line 1, byte 0"},
	{"; instead of a value", "config a b\n\toption x ; option y 1\n", "! (too many arguments) at line 2, byte 19"},
	{"an empty option is ignored", "config a\n\toption x 1\n\toption x ''\n\toption y\n\toption z \"\"\n", "config a 'cfg01b606'\n\toption x '1'"},
	{"the last option wins in the place of the first", "config a\n\toption x 1\n\toption y 2\n\toption x 33\n", "config a 'cfg01b606'\n\toption x '33'\n\toption y '2'"},
	{"empty list items are kept", "config a\n\tlist x\n\tlist x ''\n\tlist x 1\n", "config a 'cfg01b606'\n\tlist x ''\n\tlist x ''\n\tlist x '1'"},
	{"a list behind an option takes it over", "config a\n\toption x 1\n\toption y 2\n\tlist x 3\n", "config a 'cfg01b606'\n\tlist x '1'\n\tlist x '3'\n\toption y '2'"},
	{"an option behind a list replaces it", "config a\n\tlist x 1\n\tlist x 2\n\toption y 3\n\toption x 4\n", "config a 'cfg01b606'\n\toption x '4'\n\toption y '3'"},
	{"sections of one name are one", "config a n\n\toption x 1\n\tlist l 1\nconfig b o\nconfig a n\n\toption y 2\n\tlist l 2\n", "config a 'n'\n\toption x '1'\n\tlist l '1'\n\tlist l '2'\n\toption y '2'\n\nconfig b 'o'"},
	{"unless their types differ", "config a n\n\toption x 1\nconfig b n\n", "! (section of different type overwrites prior section with same name) at line 3, byte 11"},
	{"an empty name is none", "config a ''\n", "config a 'cfg01b606'"},
	{"made-up names are names", "config a\n\toption x 1\nconfig a cfg01b606\n\toption y 2\nconfig a\n", "config a 'cfg01b606'\n\toption x '1'\n\toption y '2'\n\nconfig a 'cfg02b606'"},
	{"also for the type check", "config a\nconfig b cfg01b606\n", "! (section of different type overwrites prior section with same name) at line 2, byte 19"},
	{"a made-up name that is taken", "config a cfg02b606\n\toption x 1\nconfig a\n\toption y 2\nconfig a cfg02b606\n\toption z 3\n", "config a 'cfg02b606'\n\toption x '1'\n\toption z '3'\n\nconfig a 'cfg02b606'\n\toption y '2'"},
	{"control characters and odd bytes", "config a\n\toption x '\x01\x7f\ufffd'\n", "config a 'cfg01b606'\n\toption x '\x01\x7f\ufffd'"},
	{"lines are counted by their ends", "config a b c", "! (too many arguments) at line 0, byte 12"},
	{"bytes are counted from the statement's first line", "config a\n\toption x 'one\ntwo' three\n", "! (too many arguments) at line 3, byte 26"},
	{"a word of any length", "config a\n\toption x longlonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglong\n", "config a 'cfg01b606'\n\toption x 'longlonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglonglong'"},
	{"nothing", "", ""},
	{"blank lines and comments", "\n \t\n# one\n  # two\r\n", ""},
}

func TestGrammar(t *testing.T) {
	for _, c := range grammar {
		t.Run(c.name, func(t *testing.T) {
			if got := reading(c.text); got != c.want {
				t.Errorf("%q\n got %q\nwant %q", c.text, got, c.want)
			}
		})
	}
}

// reading is what Parse makes of a text, in the form of the table.
func reading(text string) string {
	d, err := Parse("t", []byte(text))
	if e, bad := err.(*SyntaxError); bad {
		return "! (" + strings.Replace(e.Error()[len("t: "):], " at line", ") at line", 1)
	}
	return strings.Trim(strings.TrimPrefix(exported(d), "package t\n"), "\n")
}

// exported is what `uci export -n` prints, which shows made-up names.
func exported(d *Document) string {
	var b strings.Builder
	b.WriteString("package t\n")
	for _, s := range d.Sections() {
		fmt.Fprintf(&b, "\nconfig %s '%s'\n", strings.ReplaceAll(s.Type, "'", `'\''`), s.Name)
		for _, o := range s.Options {
			b.Write(appendOption(nil, o))
		}
	}
	b.WriteString("\n")
	return b.String()
}
