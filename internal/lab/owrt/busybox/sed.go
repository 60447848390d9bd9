package busybox

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
)

// sedAddr is a line number, $ or a pattern.
type sedAddr struct {
	line int // -1: last
	re   *regexp.Regexp
}

type sedCmd struct {
	a, b   *sedAddr
	neg    bool
	cmd    byte
	text   string // a, i, c text; y sets
	re     *regexp.Regexp
	repl   string
	nth    int
	global bool
	print  bool
	block  []*sedCmd
	active bool
}

type sedParser struct {
	s   string
	ext bool
	err error
}

// Sed is the program sed: addresses, ranges, blocks, s d p q n a i c = y, -n -i -e -r -E.
func Sed(p *Proc, args []string) int {
	f, err := parse(args, "+nire:Ef:s", "quiet=n", "in-place=i")
	if err != nil {
		return usage(p, "sed", err.Error())
	}
	// Options may follow the script.
	if i := slices.IndexFunc(f.rest, func(v string) bool { return len(v) > 1 && v[0] == '-' && v != "--" }); i >= 0 {
		g, err := parse(append([]string{"sed"}, f.rest[i:]...), "nire:Ef:s")
		if err != nil {
			return usage(p, "sed", err.Error())
		}
		for c := range g.on {
			f.on[c]++
		}
		f.all['e'] = append(f.all['e'], g.all['e']...)
		f.rest = append(f.rest[:i:i], g.rest...)
	}
	script := strings.Join(f.all['e'], "\n")
	if f.has('f') {
		data, err := readArg(p, f.val['f'])
		if err != nil {
			return fail(p, "sed", "%s: %s", f.val['f'], ash.ErrText(err))
		}
		script += string(data)
	}
	files := f.rest
	if !f.has('e') && !f.has('f') {
		if len(files) == 0 {
			return usage(p, "sed", "needs a script")
		}
		script, files = files[0], files[1:]
	}
	sp := &sedParser{s: script, ext: f.has('r') || f.has('E')}
	cmds := sp.list(false)
	if sp.err != nil {
		return fail(p, "sed", "%v", sp.err)
	}
	if f.has('i') {
		st := 0
		for _, n := range files {
			info, err := p.FS().Stat(p.Path(n))
			data, err2 := readArg(p, n)
			if err != nil || err2 != nil {
				st = fail(p, "sed", "%s: No such file or directory", n)
				continue
			}
			out, _ := sedRun(cmds, data, f.has('n'))
			// busybox writes a temporary file and renames it, without a sync.
			tmp := p.Path(n) + randomName()
			if err := p.FS().WriteFile(tmp, out, info.FileMode.Perm()); err == nil {
				err = p.FS().Rename(tmp, p.Path(n))
				if err != nil {
					st = fail(p, "sed", "%s: %s", n, ash.ErrText(err))
				}
			} else {
				p.Check()
				p.FS().Remove(tmp)
				st = fail(p, "sed", "%s: %s", n, ash.ErrText(err))
			}
		}
		return st
	}
	var all bytes.Buffer
	st := inputs(p, "sed", files, func(_ string, r io.Reader) { io.Copy(&all, r) })
	out, code := sedRun(cmds, all.Bytes(), f.has('n'))
	if _, err := p.Stdout().Write(out); err != nil {
		return fail(p, "sed", "write error")
	}
	if st == 0 {
		st = code
	}
	return st
}

func (sp *sedParser) fail(format string, a ...any) {
	if sp.err == nil {
		sp.err = fmt.Errorf(format, a...)
	}
	sp.s = ""
}

func (sp *sedParser) skip(set string) { sp.s = strings.TrimLeft(sp.s, set) }

func (sp *sedParser) list(inner bool) []*sedCmd {
	var l []*sedCmd
	for sp.err == nil {
		sp.skip(" \t\n;")
		if sp.s == "" {
			if inner {
				sp.fail("unterminated {")
			}
			return l
		}
		if sp.s[0] == '}' {
			sp.s = sp.s[1:]
			return l
		}
		if sp.s[0] == '#' {
			if i := strings.IndexByte(sp.s, '\n'); i >= 0 {
				sp.s = sp.s[i:]
			} else {
				sp.s = ""
			}
			continue
		}
		l = append(l, sp.command())
	}
	return l
}

func (sp *sedParser) address() *sedAddr {
	if sp.s == "" {
		return nil
	}
	switch c := sp.s[0]; {
	case c == '$':
		sp.s = sp.s[1:]
		return &sedAddr{line: -1}
	case c >= '0' && c <= '9':
		i := 0
		for i < len(sp.s) && sp.s[i] >= '0' && sp.s[i] <= '9' {
			i++
		}
		n := atoi(sp.s[:i])
		sp.s = sp.s[i:]
		return &sedAddr{line: n}
	case c == '/' || c == '\\' && len(sp.s) > 1:
		if c == '\\' {
			sp.s = sp.s[1:]
		}
		re := sp.regex(sp.delimited(), "")
		sp.s = strings.TrimPrefix(sp.s, "I")
		return &sedAddr{re: re}
	}
	return nil
}

// delimited reads up to the delimiter that stands first; it stays in front for s.
func (sp *sedParser) delimited() string {
	if sp.s == "" {
		sp.fail("unterminated address")
		return ""
	}
	d := sp.s[0]
	var b strings.Builder
	for i := 1; i < len(sp.s); i++ {
		c := sp.s[i]
		if c == '\\' && i+1 < len(sp.s) {
			if sp.s[i+1] == d {
				b.WriteByte(d)
			} else {
				b.WriteString(sp.s[i : i+2])
			}
			i++
			continue
		}
		if c == '[' { // the delimiter may stand in a bracket
			if j := strings.IndexByte(sp.s[i+1:], ']'); j > 0 && strings.IndexByte(sp.s[i:i+1+j], d) > 0 && d == '/' {
				b.WriteString(sp.s[i : i+j+2])
				i += j + 1
				continue
			}
		}
		if c == d {
			sp.s = sp.s[i+1:]
			return b.String()
		}
		b.WriteByte(c)
	}
	sp.fail("unmatched '%c'", d)
	return ""
}

func (sp *sedParser) regex(expr, flags string) *regexp.Regexp {
	re, err := regexp.Compile(flags + posix(expr, sp.ext))
	if err != nil {
		sp.fail("bad regex '%s'", expr)
		return regexp.MustCompile("$^")
	}
	return re
}

func (sp *sedParser) command() *sedCmd {
	c := &sedCmd{}
	if c.a = sp.address(); c.a != nil {
		sp.skip(" \t")
		if strings.HasPrefix(sp.s, ",") {
			sp.s = strings.TrimLeft(sp.s[1:], " \t")
			if c.b = sp.address(); c.b == nil {
				sp.fail("no address after comma")
			}
		}
	}
	sp.skip(" \t")
	for strings.HasPrefix(sp.s, "!") {
		c.neg = true
		sp.s = strings.TrimLeft(sp.s[1:], " \t")
	}
	if sp.s == "" {
		sp.fail("missing command")
		return c
	}
	c.cmd = sp.s[0]
	sp.s = sp.s[1:]
	switch c.cmd {
	case '{':
		c.block = sp.list(true)
	case 'd', 'p', 'q', 'n', '=', 'D', 'N', 'h', 'H', 'g', 'G', 'x':
		if strings.IndexByte("DNhHgGx", c.cmd) >= 0 {
			sp.fail("unsupported command %c", c.cmd)
		}
	case 'a', 'i', 'c':
		sp.skip(" \t")
		if strings.HasPrefix(sp.s, "\\") {
			sp.s = strings.TrimLeft(strings.TrimPrefix(strings.TrimLeft(sp.s[1:], " \t"), "\n"), " \t")
		}
		var b strings.Builder
		for sp.s != "" {
			if sp.s[0] == '\\' && len(sp.s) > 1 {
				b.WriteByte(sp.s[1])
				sp.s = sp.s[2:]
				continue
			}
			if sp.s[0] == '\n' {
				break
			}
			b.WriteByte(sp.s[0])
			sp.s = sp.s[1:]
		}
		c.text = b.String()
	case 's':
		sp.subst(c)
	case 'y':
		d := sp.s[:1]
		from := sp.delimited()
		sp.s = d + sp.s
		c.text = from + "\x00" + sp.delimited()
	default:
		sp.fail("unsupported command %c", c.cmd)
	}
	sp.skip(" \t")
	if sp.err == nil && sp.s != "" && strings.IndexByte(";\n}#", sp.s[0]) < 0 && c.cmd != '{' {
		sp.fail("garbage after command")
	}
	return c
}

func (sp *sedParser) subst(c *sedCmd) {
	if sp.s == "" {
		sp.fail("bad s")
		return
	}
	d := sp.s[:1]
	expr := sp.delimited()
	sp.s = d + sp.s
	c.repl = sp.delimited()
	flags := ""
	for sp.s != "" {
		switch x := sp.s[0]; {
		case x == 'g':
			c.global = true
		case x == 'p':
			c.print = true
		case x == 'i' || x == 'I':
			flags = "(?i)"
		case x >= '1' && x <= '9':
			c.nth, _ = strconv.Atoi(string(x))
		default:
			c.re = sp.regex(expr, flags)
			return
		}
		sp.s = sp.s[1:]
	}
	c.re = sp.regex(expr, flags)
}

func (c *sedCmd) replace(line string) (string, bool) {
	var b strings.Builder
	at, n, done := 0, 0, false
	for _, m := range c.re.FindAllStringSubmatchIndex(line, -1) {
		n++
		if c.nth > 0 && n < c.nth {
			continue
		}
		b.WriteString(line[at:m[0]])
		for i := 0; i < len(c.repl); i++ {
			switch r := c.repl[i]; {
			case r == '&':
				b.WriteString(line[m[0]:m[1]])
			case r == '\\' && i+1 < len(c.repl):
				i++
				switch x := c.repl[i]; {
				case x >= '0' && x <= '9':
					if k := int(x-'0') * 2; k+1 < len(m) && m[k] >= 0 {
						b.WriteString(line[m[k]:m[k+1]])
					}
				case x == 'n':
					b.WriteByte('\n')
				case x == 't':
					b.WriteByte('\t')
				default:
					b.WriteByte(x)
				}
			default:
				b.WriteByte(r)
			}
		}
		at = m[1]
		done = true
		if !c.global {
			break
		}
	}
	b.WriteString(line[at:])
	return b.String(), done
}

type sedState struct {
	out   bytes.Buffer
	lines []string
	i     int
	line  string
	quiet bool
	after []string
	quit  bool
}

func sedRun(cmds []*sedCmd, data []byte, quiet bool) ([]byte, int) {
	s := &sedState{quiet: quiet}
	text := string(data)
	noNL := text != "" && !strings.HasSuffix(text, "\n")
	if text != "" {
		s.lines = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	}
	for s.i = 0; s.i < len(s.lines) && !s.quit; s.i++ {
		s.line = s.lines[s.i]
		s.after = nil
		if !s.run(cmds) && !quiet {
			s.out.WriteString(s.line + "\n")
		}
		for _, a := range s.after {
			s.out.WriteString(a + "\n")
		}
	}
	out := s.out.Bytes()
	if noNL && len(out) > 0 && !s.quit {
		out = out[:len(out)-1]
	}
	return out, 0
}

func (s *sedState) match(a *sedAddr) bool {
	if a.re != nil {
		return a.re.MatchString(s.line)
	}
	if a.line == -1 {
		return s.i == len(s.lines)-1
	}
	return a.line == s.i+1
}

func (s *sedState) selected(c *sedCmd) bool {
	ok := true
	switch {
	case c.a == nil:
	case c.b == nil:
		ok = s.match(c.a)
	case c.active:
		if c.b.re == nil && c.b.line > 0 && s.i+1 >= c.b.line || s.match(c.b) {
			c.active = false
		}
		ok = c.b.re != nil || c.b.line == -1 || s.i+1 <= c.b.line
	default:
		if ok = s.match(c.a); ok {
			c.active = c.b.re != nil || c.b.line == -1 && s.i < len(s.lines)-1 || c.b.line > s.i+1
		}
	}
	return ok != c.neg
}

// run applies commands to the line; true means it was deleted.
func (s *sedState) run(cmds []*sedCmd) bool {
	for _, c := range cmds {
		if !s.selected(c) {
			continue
		}
		switch c.cmd {
		case '{':
			if s.run(c.block) {
				return true
			}
			if s.quit {
				return false
			}
		case 'd':
			return true
		case 'p':
			s.out.WriteString(s.line + "\n")
		case 'q':
			s.quit = true
			return false
		case 'n':
			if !s.quiet {
				s.out.WriteString(s.line + "\n")
			}
			if s.i+1 >= len(s.lines) {
				s.quit = true
				return true
			}
			s.i++
			s.line = s.lines[s.i]
		case '=':
			fmt.Fprintf(&s.out, "%d\n", s.i+1)
		case 'a':
			s.after = append(s.after, c.text)
		case 'i':
			s.out.WriteString(c.text + "\n")
		case 'c':
			if c.b == nil || !c.active {
				s.out.WriteString(c.text + "\n")
			}
			return true
		case 's':
			line, ok := c.replace(s.line)
			s.line = line
			if ok && c.print {
				s.out.WriteString(line + "\n")
			}
		case 'y':
			from, to, _ := strings.Cut(c.text, "\x00")
			s.line = strings.Map(func(r rune) rune {
				if i := strings.IndexRune(from, r); i >= 0 && i < len(to) {
					return rune(to[i])
				}
				return r
			}, s.line)
		}
	}
	return false
}
