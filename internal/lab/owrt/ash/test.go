package ash

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

func boxMode(n uint64) fs.FileMode { return fs.FileMode(n & 0o777) }

// Test is the program test, also as [.
func Test(p *Proc, args []string) int {
	a := args[1:]
	if args[0] == "[" {
		if len(a) == 0 || a[len(a)-1] != "]" {
			fmt.Fprintf(p.Stderr(), "sh: missing ]\n")
			return 2
		}
		a = a[:len(a)-1]
	}
	t := &tester{p: p, a: a}
	if len(a) == 0 {
		return 1
	}
	ok := t.shortForm()
	if t.bad != "" {
		fmt.Fprintf(p.Stderr(), "sh: %s\n", t.bad)
		return 2
	}
	return b2i(!ok)
}

type tester struct {
	p   *Proc
	a   []string
	i   int
	bad string
}

// shortForm follows POSIX for up to four arguments, so that operators may be data.
func (t *tester) shortForm() bool {
	a := t.a
	switch len(a) {
	case 1:
		return a[0] != ""
	case 2:
		if a[0] == "!" {
			return a[1] == ""
		}
	case 3:
		if binaryOp[a[1]] {
			return t.binary(a[0], a[1], a[2])
		}
		if a[0] == "!" {
			return !(&tester{p: t.p, a: a[1:]}).sub(t)
		}
		if a[0] == "(" && a[2] == ")" {
			return a[1] != ""
		}
	case 4:
		if a[0] == "!" {
			return !(&tester{p: t.p, a: a[1:]}).sub(t)
		}
	}
	ok := t.or()
	if t.i < len(t.a) && t.bad == "" {
		t.bad = t.a[t.i] + ": unknown operand"
	}
	return ok
}

func (t *tester) sub(parent *tester) bool {
	ok := t.shortForm()
	parent.bad = t.bad
	return ok
}

func (t *tester) peek() string {
	if t.i < len(t.a) {
		return t.a[t.i]
	}
	return ""
}

func (t *tester) or() bool {
	ok := t.and()
	for t.peek() == "-o" {
		t.i++
		r := t.and()
		ok = ok || r
	}
	return ok
}

func (t *tester) and() bool {
	ok := t.not()
	for t.peek() == "-a" {
		t.i++
		r := t.not()
		ok = ok && r
	}
	return ok
}

func (t *tester) not() bool {
	if t.peek() == "!" && t.i+1 < len(t.a) {
		t.i++
		return !t.not()
	}
	return t.primary()
}

var binaryOp = map[string]bool{"=": true, "==": true, "!=": true, "<": true, ">": true, "-eq": true, "-ne": true, "-lt": true,
	"-le": true, "-gt": true, "-ge": true, "-nt": true, "-ot": true, "-ef": true}

func (t *tester) primary() bool {
	rest := t.a[t.i:]
	switch {
	case len(rest) == 0:
		t.bad = "argument expected"
		return false
	case len(rest) >= 3 && binaryOp[rest[1]]:
		t.i += 3
		return t.binary(rest[0], rest[1], rest[2])
	case rest[0] == "(":
		t.i++
		ok := t.or()
		if t.peek() != ")" {
			t.bad = "closing paren expected"
			return false
		}
		t.i++
		return ok
	case len(rest) >= 2 && len(rest[0]) == 2 && rest[0][0] == '-' && strings.ContainsRune("bcdefghkLnprsStuwxzOG", rune(rest[0][1])):
		t.i += 2
		return t.unary(rest[0][1], rest[1])
	}
	t.i++
	return rest[0] != ""
}

func (t *tester) unary(op byte, arg string) bool {
	switch op {
	case 'n':
		return arg != ""
	case 'z':
		return arg == ""
	case 't':
		return false
	}
	fsys, full := t.p.K.FS, t.p.Path(arg)
	if op == 'L' || op == 'h' {
		st, err := fsys.Lstat(full)
		return err == nil && st.FileMode&fs.ModeSymlink != 0
	}
	st, err := fsys.Stat(full)
	if err != nil || arg == "" {
		return false
	}
	switch op {
	case 'e', 'r', 'w', 'O', 'G': // root may do everything
		return true
	case 'f':
		return st.FileMode.IsRegular()
	case 'd':
		return st.IsDir()
	case 'x':
		return st.IsDir() || st.FileMode&0o111 != 0
	case 's':
		return st.Length > 0
	case 'c':
		return st.FileMode&fs.ModeCharDevice != 0
	case 'u':
		return st.FileMode&fs.ModeSetuid != 0
	case 'g':
		return st.FileMode&fs.ModeSetgid != 0
	case 'k':
		return st.FileMode&fs.ModeSticky != 0
	}
	return false // b, p, S: there are none
}

func (t *tester) binary(x, op, y string) bool {
	switch op {
	case "=", "==":
		return x == y
	case "!=":
		return x != y
	case "<":
		return x < y
	case ">":
		return x > y
	case "-nt", "-ot", "-ef":
		a, err1 := t.p.K.FS.Stat(t.p.Path(x))
		b, err2 := t.p.K.FS.Stat(t.p.Path(y))
		switch {
		case op == "-ef":
			return err1 == nil && err2 == nil && a.Ino == b.Ino
		case op == "-nt":
			return err1 == nil && (err2 != nil || a.Time.After(b.Time))
		}
		return err2 == nil && (err1 != nil || a.Time.Before(b.Time))
	}
	a, err1 := strconv.ParseInt(strings.TrimSpace(x), 10, 64)
	b, err2 := strconv.ParseInt(strings.TrimSpace(y), 10, 64)
	if err1 != nil || err2 != nil {
		if err1 == nil {
			x = y
		}
		t.bad = x + ": bad number"
		return false
	}
	switch op {
	case "-eq":
		return a == b
	case "-ne":
		return a != b
	case "-lt":
		return a < b
	case "-le":
		return a <= b
	case "-gt":
		return a > b
	}
	return a >= b
}

// Printf is the program printf.
func Printf(p *Proc, args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(p.Stderr(), "printf: usage: printf FORMAT [ARG]...")
		return 1
	}
	a := args[1:]
	if a[0] == "--" {
		a = a[1:]
	}
	if len(a) == 0 {
		return 1
	}
	format, rest := a[0], a[1:]
	var out strings.Builder
	st := 0
	for {
		used, stop := printfOnce(p, &out, format, rest, &st)
		if stop || used == 0 || used >= len(rest) {
			break
		}
		rest = rest[used:]
	}
	if n := write(p, out.String(), "printf"); n != 0 {
		return n
	}
	return st
}

func printfOnce(p *Proc, out *strings.Builder, format string, args []string, status *int) (used int, stop bool) {
	next := func() (string, bool) {
		if used < len(args) {
			used++
			return args[used-1], true
		}
		return "", false
	}
	for i := 0; i < len(format); i++ {
		switch format[i] {
		case '\\':
			j := i + 2
			for j < len(format) && j < i+4 && (isHex(format[j]) || format[j] >= '0' && format[j] <= '7') {
				j++
			}
			text, end := Unescape(format[i:min(j, len(format))])
			if i+1 < len(format) && format[i+1] == '"' {
				text = `"` + format[i+2:min(j, len(format))]
			} else if i+1 < len(format) && !strings.ContainsRune("x01234567", rune(format[i+1])) {
				text, end = Unescape(format[i:min(i+2, len(format))])
				j = i + 2
			}
			out.WriteString(text)
			if end {
				return used, true
			}
			i = j - 1
		case '%':
			j := i + 1
			spec := "%"
			for j < len(format) && strings.ContainsRune("-+ #0123456789.*", rune(format[j])) {
				if format[j] == '*' {
					v, _ := next()
					spec += v
				} else {
					spec += format[j : j+1]
				}
				j++
			}
			if j >= len(format) {
				out.WriteString(format[i:])
				return used, false
			}
			i = j
			switch c := format[j]; c {
			case '%':
				out.WriteByte('%')
			case 's':
				v, _ := next()
				fmt.Fprintf(out, spec+"s", v)
			case 'b':
				v, _ := next()
				text, end := Unescape(v)
				fmt.Fprintf(out, spec+"s", text)
				if end {
					return used, true
				}
			case 'c':
				v, _ := next()
				if v != "" {
					out.WriteString(v[:1])
				}
			case 'd', 'i', 'u', 'x', 'X', 'o':
				v, _ := next()
				n := printfNumber(p, v, status)
				verb := string(c)
				if c == 'i' || c == 'u' {
					verb = "d"
				}
				fmt.Fprintf(out, spec+verb, n)
			case 'f', 'e', 'g':
				v, _ := next()
				x, _ := strconv.ParseFloat(v, 64)
				fmt.Fprintf(out, spec+string(c), x)
			default:
				fmt.Fprintf(p.Stderr(), "printf: %s%c: invalid format\n", spec, c)
				*status = 1
				return used, true
			}
		default:
			out.WriteByte(format[i])
		}
	}
	return used, false
}

func printfNumber(p *Proc, v string, status *int) int64 {
	if v == "" {
		return 0
	}
	if v[0] == '\'' || v[0] == '"' {
		for _, r := range v[1:] {
			return int64(r)
		}
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(v), 0, 64)
	if err != nil {
		fmt.Fprintf(p.Stderr(), "printf: invalid number '%s'\n", v)
		*status = 1
	}
	return n
}
