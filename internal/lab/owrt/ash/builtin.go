package ash

import (
	"fmt"
	"io"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"

	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

var regexps sync.Map

// compile keeps compiled patterns: scripts match the same ones again and again.
func compile(expr string) (*regexp.Regexp, error) {
	if re, ok := regexps.Load(expr); ok {
		return re.(*regexp.Regexp), nil
	}
	re, err := regexp.Compile(expr)
	if err == nil {
		regexps.Store(expr, re)
	}
	return re, err
}

// specials are POSIX's special builtins: an error in one ends the script, and
// assignments before one stay.
var specials = map[string]bool{":": true, ".": true, "break": true, "continue": true, "eval": true, "exec": true,
	"exit": true, "export": true, "readonly": true, "return": true, "set": true, "shift": true, "times": true, "trap": true, "unset": true}

var builtins map[string]func(s *shell, args []string) int

func init() {
	yes := func(*shell, []string) int { return 0 }
	builtins = map[string]func(*shell, []string) int{
		":": yes, "true": yes, "false": func(*shell, []string) int { return 1 },
		"hash": yes, "times": yes, "ulimit": yes, "jobs": yes, "alias": yes, "unalias": yes, "fg": yes, "history": yes,
		"cd": biCd, "pwd": func(s *shell, _ []string) int { fmt.Fprintln(s.p.Stdout(), s.p.Cwd); return 0 },
		"export": biExport, "readonly": biExport, "local": biLocal, "unset": biUnset, "set": biSet, "shift": biShift,
		"eval": biEval, ".": biSource, "source": biSource, "exit": biExit, "return": biReturn, "break": biBreak, "continue": biBreak,
		"read": biRead, "trap": biTrap, "wait": biWait, "kill": biKill, "type": biType, "command": biCommand,
		"umask": biUmask, "getopts": biGetopts, "echo": onProc(Echo), "printf": onProc(Printf), "test": onProc(Test), "[": onProc(Test),
		"exec": func(s *shell, a []string) int { s.exec(a[1:]); return s.last },
	}
}

func onProc(f Program) func(*shell, []string) int {
	return func(s *shell, args []string) int { return f(s.p, args) }
}

// IsBuiltin reports whether the shell itself does a command.
func IsBuiltin(name string) bool { return builtins[name] != nil }

func biCd(s *shell, args []string) int {
	a := args[1:]
	for len(a) > 0 && (a[0] == "-P" || a[0] == "-L" || a[0] == "--") {
		a = a[1:]
	}
	dir := s.vars["HOME"].Str
	if len(a) > 0 {
		dir = a[0]
	}
	if dir == "-" {
		dir = s.vars["OLDPWD"].Str
		fmt.Fprintln(s.p.Stdout(), dir)
	}
	full := path.Clean(s.p.Path(dir))
	st, err := s.p.K.FS.Stat(full)
	if err != nil || !st.IsDir() {
		s.complain("cd: can't cd to %s: %s", dir, map[bool]string{true: "No such file or directory", false: "Not a directory"}[err != nil])
		return 2 // ash's error() in a builtin
	}
	s.setVar("OLDPWD", s.p.Cwd)
	s.p.Cwd = full
	s.setVar("PWD", full)
	return 0
}

func biExport(s *shell, args []string) int {
	if len(args) == 1 || args[1] == "-p" {
		var names []string
		for n, v := range s.vars {
			if v.Exported && args[0] == "export" || v.ReadOnly && args[0] == "readonly" {
				names = append(names, n)
			}
		}
		sort.Strings(names)
		for _, n := range names {
			fmt.Fprintf(s.p.Stdout(), "%s %s=%s\n", args[0], n, Quote(s.vars[n].Str))
		}
		return 0
	}
	for _, a := range args[1:] {
		name, val, ok := strings.Cut(a, "=")
		if !syntax.ValidName(name) {
			s.complain("%s: %s: bad variable name", args[0], name)
			s.p.Exit(2)
		}
		if ok {
			s.setVar(name, val)
		}
		v := s.vars[name]
		if args[0] == "export" {
			v.Exported = true
		} else {
			v.ReadOnly = true
		}
		s.vars[name] = v
	}
	return 0
}

// Quote puts a text into single quotes for a shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }

func biLocal(s *shell, args []string) int {
	if len(s.locals) == 0 {
		s.complain("local: not in a function")
		s.p.Exit(2)
	}
	top := s.locals[len(s.locals)-1]
	for _, a := range args[1:] {
		name, val, ok := strings.Cut(a, "=")
		if name == "-" {
			continue
		}
		if _, have := top[name]; !have {
			top[name] = s.vars[name]
		}
		if ok {
			s.setVar(name, val)
		} else if v := s.vars[name]; !v.Set {
			delete(s.vars, name)
		}
	}
	return 0
}

func biUnset(s *shell, args []string) int {
	funcs := false
	for _, a := range args[1:] {
		switch a {
		case "-f":
			funcs = true
		case "-v":
			funcs = false
		default:
			if funcs {
				delete(s.funcs, a)
			} else {
				if s.vars[a].ReadOnly {
					s.complain("unset: %s: is read only", a)
					return 2
				}
				delete(s.vars, a)
			}
		}
	}
	return 0
}

func biSet(s *shell, args []string) int {
	a := args[1:]
	if len(a) == 0 {
		var names []string
		for n, v := range s.vars {
			if v.Set && syntax.ValidName(n) {
				names = append(names, n)
			}
		}
		sort.Strings(names)
		for _, n := range names {
			fmt.Fprintf(s.p.Stdout(), "%s=%s\n", n, Quote(s.vars[n].Str))
		}
		return 0
	}
	for len(a) > 0 {
		o := a[0]
		if o == "--" {
			s.params = a[1:]
			return 0
		}
		if len(o) < 2 || o[0] != '-' && o[0] != '+' {
			s.params = a
			return 0
		}
		a = a[1:]
		for i := 1; i < len(o); i++ {
			if o[i] == 'o' {
				if len(a) == 0 {
					return 0
				}
				if !s.setLong(a[0], o[0] == '-') {
					s.complain("set: illegal option %co %s", o[0], a[0])
					s.p.Exit(2)
				}
				a = a[1:]
				continue
			}
			if !s.setOpt(o[i], o[0] == '-') {
				s.complain("set: illegal option %c%c", o[0], o[i])
				s.p.Exit(2)
			}
		}
	}
	return 0
}

func biShift(s *shell, args []string) int {
	n := 1
	if len(args) > 1 {
		n = atoi(args[1])
	}
	if n < 0 || n > len(s.params) {
		return 1
	}
	s.params = s.params[n:]
	return 0
}

func biEval(s *shell, args []string) int {
	s.last = 0
	s.evalText(strings.Join(args[1:], " "))
	return s.last
}

func biSource(s *shell, args []string) int {
	if len(args) < 2 {
		return 2
	}
	name := args[1]
	if !strings.Contains(name, "/") {
		// Searched in PATH, and by busybox in the working directory too.
		for _, d := range strings.Split(s.vars["PATH"].Str+":"+s.p.Cwd, ":") {
			if st, err := s.p.K.FS.Stat(path.Join(d, name)); err == nil && !st.IsDir() {
				name = path.Join(d, name)
				break
			}
		}
	}
	f, err := s.p.Open(name, boxfs.Read)
	if err != nil {
		s.complain(".: can't open '%s': %s", args[1], ErrText(err))
		s.p.Exit(2)
	}
	data, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		s.complain(".: %s: %s", args[1], ErrText(err))
		return 1
	}
	if len(args) > 2 {
		old := s.params
		s.params = args[2:]
		defer func() { s.params = old }()
	}
	s.last = 0
	s.depth++
	s.evalText(string(data))
	s.depth--
	if s.flow == returnFunc {
		s.flow = goOn
	}
	return s.last
}

func biExit(s *shell, args []string) int {
	st := s.last
	if len(args) > 1 {
		if st = atoi(args[1]); st < 0 {
			s.complain("exit: Illegal number: %s", args[1])
			st = 2
		}
	}
	s.p.Exit(st)
	return st
}

func biReturn(s *shell, args []string) int {
	st := s.last
	if len(args) > 1 {
		st = atoi(args[1]) & 255
	}
	if s.depth == 0 {
		s.p.Exit(st)
	}
	s.flow = returnFunc
	return st
}

func biBreak(s *shell, args []string) int {
	n := 1
	if len(args) > 1 {
		n = atoi(args[1])
	}
	if s.loops == 0 {
		return 0
	}
	s.levels = min(max(n, 1), s.loops)
	s.flow = breakLoop
	if args[0] == "continue" {
		s.flow = continueLoop
	}
	return 0
}

func biRead(s *shell, args []string) int {
	raw, a, fd := false, args[1:], 0
	for len(a) > 0 && strings.HasPrefix(a[0], "-") && len(a[0]) > 1 {
		switch o := a[0]; {
		case o == "--":
		case o == "-r" || o == "-s":
			raw = raw || o == "-r"
		case (o == "-p" || o == "-t" || o == "-n" || o == "-u") && len(a) > 1:
			if o == "-u" {
				fd = atoi(a[1])
			}
			a = a[1:]
		default:
			s.complain("read: illegal option %s", o)
			return 2
		}
		a = a[1:]
	}
	var line strings.Builder
	in, ok := s.p.FD(fd), false
	one := make([]byte, 1)
	for {
		n, err := in.Read(one)
		if n == 0 || err != nil && n == 0 {
			break
		}
		if one[0] == '\\' && !raw {
			m, _ := in.Read(one)
			if m == 0 {
				break
			}
			if one[0] == '\n' {
				continue
			}
			line.WriteByte('\\')
			line.WriteByte(one[0])
			continue
		}
		if one[0] == '\n' {
			ok = true
			break
		}
		line.WriteByte(one[0])
	}
	if len(a) == 0 {
		a = []string{"REPLY"}
	}
	vals := expand.ReadFields(s.config(), line.String(), len(a), raw)
	for i, name := range a {
		v := ""
		if i < len(vals) {
			v = vals[i]
		}
		s.setVar(name, v)
	}
	if !ok {
		return 1
	}
	return 0
}

func biTrap(s *shell, args []string) int {
	a := args[1:]
	if len(a) > 0 && a[0] == "--" {
		a = a[1:]
	}
	if len(a) == 0 {
		for sig, cmd := range s.traps {
			fmt.Fprintf(s.p.Stdout(), "trap -- %s %s\n", Quote(cmd), sig)
		}
		return 0
	}
	cmd, reset := a[0], false
	list := a[1:]
	if cmd == "-" {
		reset = true
	} else if len(a) == 1 {
		reset, list = true, a
	}
	for _, n := range list {
		sig, ok := SignalName(n)
		if !ok {
			s.complain("trap: %s: invalid signal specification", n)
			return 1
		}
		if reset {
			delete(s.traps, sig)
		} else {
			s.traps[sig] = cmd
		}
		s.p.catch(sig, !reset)
	}
	return 0
}

func biWait(s *shell, args []string) int {
	one := func(k *Proc) (int, bool) {
		for {
			select {
			case <-k.Done():
				return k.Status(), true
			case <-s.p.sigC:
				if s.p.waiting() {
					s.signals()
					return 128 + 15, false
				}
			case <-s.p.ctx.Done():
				s.p.Check()
			}
		}
	}
	if len(args) == 1 {
		for pid, k := range s.kids {
			if st, ok := one(k); !ok {
				return st
			}
			delete(s.kids, pid)
		}
		return 0
	}
	st := 127
	for _, a := range args[1:] {
		k := s.kids[atoi(a)]
		if k == nil {
			st = 127
			continue
		}
		var ok bool
		if st, ok = one(k); !ok {
			return st
		}
		delete(s.kids, k.PID)
	}
	return st
}

func biKill(s *shell, args []string) int { return Kill(s.p, args) }

// Kill is the program kill.
func Kill(p *Proc, args []string) int {
	sig, a := "TERM", args[1:]
	for len(a) > 0 && strings.HasPrefix(a[0], "-") && len(a[0]) > 1 {
		o := a[0]
		a = a[1:]
		if o == "--" {
			break
		}
		if o == "-l" {
			fmt.Fprintln(p.Stdout(), "HUP INT QUIT KILL USR1 USR2 PIPE ALRM TERM CHLD CONT STOP")
			return 0
		}
		name := o[1:]
		if o == "-s" && len(a) > 0 {
			name, a = a[0], a[1:]
		}
		var ok bool
		if sig, ok = SignalName(name); !ok {
			fmt.Fprintf(p.Stderr(), "%s: bad signal name '%s'\n", args[0], name)
			return 1
		}
	}
	st := 0
	for _, n := range a {
		pid := atoi(n)
		if pid <= 0 {
			fmt.Fprintf(p.Stderr(), "%s: invalid number '%s'\n", args[0], n)
			st = 1
			continue
		}
		if !p.K.Signal(pid, sig) {
			fmt.Fprintf(p.Stderr(), "%s: can't kill pid %d: No such process\n", args[0], pid)
			st = 1
		}
	}
	p.Check()
	return st
}

func biType(s *shell, args []string) int {
	st := 0
	for _, n := range args[1:] {
		switch {
		case s.funcs[n] != nil:
			fmt.Fprintf(s.p.Stdout(), "%s is a function\n", n)
		case builtins[n] != nil:
			fmt.Fprintf(s.p.Stdout(), "%s is a shell builtin\n", n)
		default:
			s.p.Env = s.environ()
			if f, bad := s.p.lookup(n); bad == 0 {
				fmt.Fprintf(s.p.Stdout(), "%s is %s\n", n, f)
			} else {
				fmt.Fprintf(s.p.Stderr(), "%s: not found\n", n)
				st = 127
			}
		}
	}
	return st
}

func biCommand(s *shell, args []string) int {
	a := args[1:]
	if len(a) == 0 {
		return 0
	}
	if a[0] == "-v" || a[0] == "-V" {
		st := 0
		for _, n := range a[1:] {
			s.p.Env = s.environ()
			switch f, bad := s.p.lookup(n); {
			case s.funcs[n] != nil || builtins[n] != nil:
				fmt.Fprintln(s.p.Stdout(), n)
			case bad == 0:
				fmt.Fprintln(s.p.Stdout(), f)
			default:
				st = 127
			}
		}
		return st
	}
	if a[0] == "-p" {
		a = a[1:]
	}
	if b := builtins[a[0]]; b != nil {
		return b(s, a)
	}
	return s.external(a)
}

func biUmask(s *shell, args []string) int {
	if len(args) == 1 {
		fmt.Fprintf(s.p.Stdout(), "%04o\n", s.p.Mask)
		return 0
	}
	n, err := strconv.ParseUint(args[1], 8, 16)
	if err != nil {
		s.complain("umask: illegal mode: %s", args[1])
		return 2
	}
	s.p.Mask = boxMode(n)
	return 0
}

func biGetopts(s *shell, args []string) int {
	if len(args) < 3 {
		return 2
	}
	spec, name := args[1], args[2]
	list := s.params
	if len(args) > 3 {
		list = args[3:]
	}
	ind := max(atoi(s.vars["OPTIND"].Str), 1)
	sub := max(atoi(s.vars["\x00optsub"].Str), 1)
	end := func() int {
		s.setVar(name, "?")
		s.setVar("OPTIND", itoa(ind))
		s.setVar("\x00optsub", "1")
		return 1
	}
	if ind > len(list) || len(list[ind-1]) < 2 || list[ind-1][0] != '-' {
		return end()
	}
	cur := list[ind-1]
	if cur == "--" {
		ind++
		return end()
	}
	c := cur[sub]
	sub++
	i := strings.IndexByte(strings.TrimPrefix(spec, ":"), c)
	body := strings.TrimPrefix(spec, ":")
	next := func() {
		if sub >= len(cur) {
			ind++
			sub = 1
		}
	}
	switch {
	case i < 0 || c == ':':
		s.setVar(name, "?")
		if spec[0] == ':' {
			s.setVar("OPTARG", string(c))
		} else {
			fmt.Fprintf(s.p.Stderr(), "Illegal option -%c\n", c)
			delete(s.vars, "OPTARG")
		}
		next()
	case i+1 < len(body) && body[i+1] == ':':
		switch {
		case sub < len(cur):
			s.setVar("OPTARG", cur[sub:])
			ind++
		case ind < len(list):
			s.setVar("OPTARG", list[ind])
			ind += 2
		default:
			ind++
			if spec[0] == ':' {
				s.setVar(name, ":")
				s.setVar("OPTARG", string(c))
			} else {
				fmt.Fprintf(s.p.Stderr(), "No arg for -%c option\n", c)
				s.setVar(name, "?")
			}
			s.setVar("OPTIND", itoa(ind))
			s.setVar("\x00optsub", "1")
			return 0
		}
		sub = 1
		s.setVar(name, string(c))
	default:
		s.setVar(name, string(c))
		delete(s.vars, "OPTARG")
		next()
	}
	s.setVar("OPTIND", itoa(ind))
	s.setVar("\x00optsub", itoa(sub))
	return 0
}

// Echo is the program echo: -n, -e and -E; without -e nothing is interpreted.
func Echo(p *Proc, args []string) int {
	nl, esc, a := true, false, args[1:]
	for len(a) > 0 && len(a[0]) > 1 && a[0][0] == '-' && strings.Trim(a[0][1:], "neE") == "" {
		for _, c := range a[0][1:] {
			switch c {
			case 'n':
				nl = false
			case 'e':
				esc = true
			case 'E':
				esc = false
			}
		}
		a = a[1:]
	}
	text := strings.Join(a, " ")
	if esc {
		var stop bool
		text, stop = Unescape(text)
		nl = nl && !stop
	}
	if nl {
		text += "\n"
	}
	return write(p, text, args[0])
}

// write prints a text and reports a full disk as busybox does.
func write(p *Proc, text, name string) int {
	if _, err := io.WriteString(p.Stdout(), text); err != nil {
		fmt.Fprintf(p.Stderr(), "%s: write error: %s\n", name, ErrText(err))
		return 1
	}
	return 0
}

// Unescape handles the backslash sequences of echo -e and printf %b; \c ends
// all output.
func Unescape(s string) (text string, stop bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'a':
			b.WriteByte(7)
		case 'b':
			b.WriteByte(8)
		case 'c':
			return b.String(), true
		case 'e':
			b.WriteByte(27)
		case 'f':
			b.WriteByte(12)
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'v':
			b.WriteByte(11)
		case '\\':
			b.WriteByte('\\')
		case 'x':
			n, j := 0, i+1
			for ; j < len(s) && j < i+3 && isHex(s[j]); j++ {
				v, _ := strconv.ParseUint(s[j:j+1], 16, 8)
				n = n*16 + int(v)
			}
			if j == i+1 {
				b.WriteString(`\x`)
				continue
			}
			b.WriteByte(byte(n))
			i = j - 1
		case '0', '1', '2', '3', '4', '5', '6', '7':
			n, j, limit := 0, i, i+3
			if s[i] == '0' {
				limit = i + 4
			}
			for ; j < len(s) && j < limit && s[j] >= '0' && s[j] <= '7'; j++ {
				n = n*8 + int(s[j]-'0')
			}
			b.WriteByte(byte(n))
			i = j - 1
		default:
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
	}
	return b.String(), false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
