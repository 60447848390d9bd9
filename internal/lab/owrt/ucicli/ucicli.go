// Package ucicli is the `uci` program of an emulated OpenWrt box: the same
// commands, exit codes and messages, and the same traps. A batch always exits 0,
// `rename` accepts names that cannot be read back, one bad line makes a whole
// file unreadable, and a commit writes the file anew without its comments.
//
// It is made after the real program (facts: OpenWrt sections 4.4 to 4.7) and
// compared with the builds that 21.02, 22.03, 23.05, 24.10 and 25.12 ship, on
// generated command sequences; it knows nothing of what heimweg sends. Like the
// original it works on files only, through FS, and remembers nothing between two
// runs: staged changes are lines in the save directory.
//
// Two runs at the same time behave as two processes whose locks do not help,
// because a commit replaces the file that the lock is on: the later rename wins.
package ucicli

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci/scan"
)

// FS is the box's file system as uci uses it. Paths are absolute and clean.
type FS interface {
	ReadFile(name string) ([]byte, error)
	WriteFile(name string, data []byte, mode fs.FileMode) error // mode counts for new files only
	Rename(old, new string) error
	Remove(name string) error
	ReadDir(name string) ([]string, error) // names in the directory
	Stat(name string) (mode fs.FileMode, exists bool)
	MkdirAll(name string, mode fs.FileMode) error
}

// The directories that uci works in unless told otherwise.
const (
	ConfDir  = "/etc/config"
	Conf2Dir = "/var/run/uci" // override files, 24.10 on
	SaveDir  = "/tmp/.uci"
)

// code is libuci's error number; `uci add` exits with it.
type code int

const (
	ok code = iota
	errMemory
	errInvalid
	errNotFound
	errIO
	errParse
	errDuplicate
)

var messages = [...]string{"Success", "Out of memory", "Invalid argument", "Entry not found", "I/O error", "Parse error", "Duplicate entry"}

// usageExit is the exit code for commands that are not understood.
const usageExit = 255

// program is one run of uci.
type program struct {
	fs     FS
	line   router.Line
	in     io.Reader
	out    io.Writer
	errOut io.Writer

	conf, conf2, save string
	deltaDirs         []string // where staged changes are read from; the save directory is the last
	delimiter         string
	strict, loud      bool // loud: each unreadable line is reported (-S)
	names             bool // export made-up names (-n)
	merge, quiet      bool
	noCommit, indexes bool // -P; show @type[i] instead of made-up names

	packages []*pkg
	err      code
	parse    *parseInfo // of the reader that is open, nil for none
	info     string     // what error messages end with; the real one forgets to clear it
	inBatch  bool
	reader   *scan.Reader // of batch
}

// parseInfo is where a reader stands, for messages.
type parseInfo struct {
	reason string
	line   int
	at     int
	batch  bool // of the batch's own lines
}

// Run runs `uci args...` (without the program's name) and returns its exit code.
func Run(files FS, line router.Line, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{
		fs: files, line: line, in: stdin, out: stdout, errOut: stderr,
		conf: ConfDir, conf2: Conf2Dir, save: SaveDir, deltaDirs: []string{SaveDir},
		delimiter: " ", strict: true, indexes: true,
	}
	if line.Before(router.Line2410) {
		p.conf2 = ""
	}
	rest, exit, done := p.options(args)
	if done {
		return exit
	}
	if len(rest) == 0 {
		p.usage()
		return 0
	}
	exit = p.command(rest)
	if exit == usageExit {
		p.usage()
	}
	return exit
}

// options reads the flags as musl's getopt does: they end at the first word
// that is none. done: the program ends with exit.
func (p *program) options(args []string) (rest []string, exit int, done bool) {
	letters := "c:C:d:f:LmnNp:P:qsSt:X"
	if p.line.Before(router.Line2410) {
		letters = strings.Replace(letters, "C:", "", 1)
	}
	file := false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		if args[0] == "--" {
			return args[1:], 0, false
		}
		word := args[0][1:]
		args = args[1:]
		for word != "" {
			letter := word[0]
			word = word[1:]
			i := strings.IndexByte(letters, letter)
			if i < 0 || letter == ':' || letter == 'L' {
				if letter != 'L' {
					fmt.Fprintf(p.errOut, "uci: unrecognized option: %c\n", letter)
				}
				p.usage()
				return nil, 0, true
			}
			value := ""
			if i+1 < len(letters) && letters[i+1] == ':' {
				if value, word = word, ""; value == "" {
					if len(args) == 0 {
						fmt.Fprintf(p.errOut, "uci: option requires an argument: %c\n", letter)
						p.usage()
						return nil, 0, true
					}
					value, args = args[0], args[1:]
				}
			}
			if letter == 'f' {
				if file {
					p.say("Too many input files.\n")
					return nil, 1, true
				}
				file = true
				text, err := p.fs.ReadFile(path.Clean(value))
				if err != nil {
					p.say("uci: No such file or directory")
					return nil, 1, true
				}
				p.in = strings.NewReader(string(text))
				continue
			}
			p.flag(letter, value)
		}
	}
	return args, 0, false
}

func (p *program) flag(letter byte, value string) {
	switch letter {
	case 'c':
		p.conf = value
	case 'C':
		p.conf2 = value
	case 'd':
		p.delimiter = value
	case 'm':
		p.merge = true
	case 's':
		p.strict = true
	case 'S':
		p.strict, p.loud = false, true
	case 'n':
		p.names = true
	case 'N':
		p.names = false
	case 'p':
		p.addDeltaDir(value)
	case 'P':
		p.setSaveDir(value)
		p.noCommit = true
	case 't':
		p.setSaveDir(value)
	case 'q':
		p.quiet = true
	case 'X':
		p.indexes = false
	}
}

// setSaveDir makes dir the place for staged changes. The old place is still read.
func (p *program) setSaveDir(dir string) {
	kept := p.deltaDirs[:0:0]
	for _, d := range p.deltaDirs {
		if d != dir {
			kept = append(kept, d)
		}
	}
	p.deltaDirs = append(kept, dir)
	p.save = dir
}

func (p *program) addDeltaDir(dir string) {
	for _, d := range p.deltaDirs {
		if d == dir {
			return
		}
	}
	last := len(p.deltaDirs) - 1
	p.deltaDirs = append(p.deltaDirs[:last:last], dir, p.deltaDirs[last])
}

func (p *program) say(format string, a ...any) {
	if !p.quiet {
		fmt.Fprintf(p.errOut, format, a...)
	}
}

// fail notes an error and returns its number.
func (p *program) fail(c code) code {
	p.err = c
	return c
}

func (p *program) failParse(e *scan.Error) code {
	p.parse = &parseInfo{reason: e.Msg, line: e.Line, at: e.Byte, batch: p.parse != nil && p.parse.batch}
	return p.fail(errParse)
}

// report prints the last error, unless -q is given.
func (p *program) report() {
	if !p.quiet {
		p.perror("uci: ")
	}
}

// perror prints the last error. The real program keeps the end of the message
// in a buffer that it adds a line end to and never clears, so the later
// messages of a batch end in more and more of them.
func (p *program) perror(prefix string) {
	if p.err == errParse && p.parse != nil {
		reason := p.parse.reason
		if reason == "" {
			reason = "unknown"
		}
		p.info = fmt.Sprintf(" (%s) at line %d, byte %d", reason, p.parse.line, p.parse.at)
	}
	p.info += "\n"
	fmt.Fprint(p.errOut, prefix+messages[p.err]+p.info)
}

// command runs one command, of the command line or of a batch.
func (p *program) command(args []string) int {
	switch name := strings.ToLower(args[0]); name {
	case "batch":
		if p.inBatch {
			return usageExit
		}
		return p.batch()
	case "show", "changes", "export", "commit":
		return p.packageCommands(name, args)
	case "get", "set", "revert", "reorder", "add_list", "del_list":
		return p.sectionCommand(name, args)
	case "ren", "rename":
		return p.sectionCommand("rename", args)
	case "del", "delete":
		return p.sectionCommand("delete", args)
	case "import":
		return p.importCommand(args)
	case "add":
		return p.addCommand(args)
	case "help":
		p.usage()
		return 0
	}
	return usageExit
}

// input is what there is to read. An import in a batch goes on with the
// batch's lines.
func (p *program) input() *scan.Reader {
	if p.reader != nil {
		p.reader.ResetLine()
		return p.reader
	}
	if p.in == nil {
		return scan.New("")
	}
	text, _ := io.ReadAll(p.in)
	return scan.New(string(text))
}

// batch runs the commands on its input; errors go to stderr only.
func (p *program) batch() int {
	p.inBatch = true
	p.reader = p.input()
	defer func() { p.reader = nil }()
	for {
		args, more := p.batchLine()
		if !more {
			break
		}
		if len(args) > 0 {
			if strings.EqualFold(args[0], "exit") {
				return 0
			}
			if p.command(args) == usageExit {
				p.say("Unknown command\n")
			}
		}
		p.packages = nil
	}
	p.inBatch = false
	return 0
}

// batchLine reads the words of one line. What follows an empty word or a ";"
// is dropped, and so is a line of more than three words.
func (p *program) batchLine() (args []string, more bool) {
	const most = 4
	if p.parse == nil || !p.parse.batch { // a command in between has read a file
		p.parse = &parseInfo{batch: true}
		p.reader.ResetLine()
	}
	if !p.reader.NextLine() {
		return nil, false
	}
	for {
		if len(args) == most {
			p.say("Too many arguments\n")
			return nil, true
		}
		word, err := p.reader.Arg()
		p.parse.line = p.reader.Line()
		if err != nil {
			p.failParse(err)
			p.report()
			return nil, true
		}
		if word == "" {
			return args, true
		}
		args = append(args, word)
	}
}

func (p *program) usage() {
	fmt.Fprint(p.errOut, usageHead)
	if !p.line.Before(router.Line2410) {
		fmt.Fprint(p.errOut, "\t-C <path>  set the search path for config override files (default: /var/run/uci)\n")
	}
	fmt.Fprint(p.errOut, usageTail)
}

const usageHead = `Usage: uci [<options>] <command> [<arguments>]

Commands:
	batch
	export     [<config>]
	import     [<config>]
	changes    [<config>]
	commit     [<config>]
	add        <config> <section-type>
	add_list   <config>.<section>.<option>=<string>
	del_list   <config>.<section>.<option>=<string>
	show       [<config>[.<section>[.<option>]]]
	get        <config>.<section>[.<option>]
	set        <config>.<section>[.<option>]=<value>
	delete     <config>[.<section>[[.<option>][=<id>]]]
	rename     <config>.<section>[.<option>]=<name>
	revert     <config>[.<section>[.<option>]]
	reorder    <config>.<section>=<position>

Options:
	-c <path>  set the search path for config files (default: /etc/config)
`

const usageTail = `	-d <str>   set the delimiter for list values in uci show
	-f <file>  use <file> as input instead of stdin
	-m         when importing, merge data into an existing package
	-n         name unnamed sections on export (default)
	-N         don't name unnamed sections
	-p <path>  add a search path for config change files
	-P <path>  add a search path for config change files and use as default
	-t <path>  set save path for config change files
	-q         quiet mode (don't print error messages)
	-s         force strict mode (stop on parser errors, default)
	-S         disable strict mode
	-X         do not use extended syntax on 'show'

`
