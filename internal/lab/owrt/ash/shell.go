package ash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"syscall"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/pattern"
	"mvdan.cc/sh/v3/syntax"

	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

// flow is how a statement left: on, or out of a loop or a function.
type flow int

const (
	goOn flow = iota
	breakLoop
	continueLoop
	returnFunc
)

// shell is the state of one ash.
type shell struct {
	p       *Proc
	name    string // $0
	params  []string
	vars    map[string]expand.Variable
	locals  []map[string]expand.Variable // saved values, innermost last
	funcs   map[string]*syntax.Stmt
	last    int // $?
	bg      int // $!
	kids    map[int]*Proc
	traps   map[string]string
	flow    flow
	levels  int // loops still to leave
	loops   int
	depth   int  // of functions and sourced files
	calm    int  // >0: set -e does not apply here
	tail    bool // this command may take over the process
	substed bool // a command substitution ran in this command
	inTrap  bool
	line    uint
	opt     struct{ e, u, x, f, n, pipefail bool }
}

// Sh is the program sh.
func Sh(p *Proc, args []string) int {
	s := newShell(p, args[0])
	rest, mode, cmd, bad := s.options(args[1:])
	if bad != "" {
		fmt.Fprintf(p.Stderr(), "%s: illegal option %s\n", args[0], bad)
		return 2
	}
	var src io.Reader
	switch {
	case mode == 'c':
		src = strings.NewReader(cmd)
		if len(rest) > 0 {
			s.name, s.params = rest[0], rest[1:]
		}
	case mode == 's' || len(rest) == 0:
		src, s.params = p.Stdin(), rest
	default:
		f, err := p.Open(rest[0], boxfs.Read)
		if err != nil {
			fmt.Fprintf(p.Stderr(), "%s: can't open '%s': %s\n", args[0], rest[0], ErrText(err))
			return 2
		}
		data, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return 2
		}
		src = bytes.NewReader(data)
		s.name, s.params = rest[0], rest[1:]
	}
	return s.main(func() { s.source(src) })
}

func newShell(p *Proc, name string) *shell {
	s := &shell{p: p, name: name, vars: map[string]expand.Variable{}, funcs: map[string]*syntax.Stmt{},
		traps: map[string]string{}, kids: map[int]*Proc{}}
	for k, v := range p.Env {
		s.vars[k] = expand.Variable{Set: true, Exported: true, Kind: expand.String, Str: v}
	}
	for k, v := range map[string]string{"IFS": " \t\n", "PS1": "\\w \\$ ", "PS2": "> ", "PS4": "+ ", "OPTIND": "1"} {
		if !s.vars[k].Set {
			s.vars[k] = expand.Variable{Set: true, Kind: expand.String, Str: v}
		}
	}
	s.setVar("PWD", p.Cwd)
	s.vars["\x00pid"] = expand.Variable{Set: true, Kind: expand.String, Str: itoa(p.PID)}
	return s
}

// options reads the arguments of sh.
func (s *shell) options(args []string) (rest []string, mode byte, cmd, bad string) {
	for len(args) > 0 {
		a := args[0]
		if a == "--" || a == "-" {
			args = args[1:]
			break
		}
		if len(a) < 2 || a[0] != '-' && a[0] != '+' {
			break
		}
		args = args[1:]
		for i := 1; i < len(a); i++ {
			switch a[i] {
			case 'c', 's':
				mode = a[i]
			case 'l', 'i', 'm':
			case 'o':
				if len(args) == 0 || !s.setLong(args[0], a[0] == '-') {
					return nil, 0, "", a
				}
				args = args[1:]
			default:
				if !s.setOpt(a[i], a[0] == '-') {
					return nil, 0, "", a
				}
			}
		}
	}
	if mode == 'c' {
		if len(args) == 0 {
			return nil, 0, "", "-c requires an argument"
		}
		return args[1:], mode, args[0], ""
	}
	return args, mode, "", ""
}

func (s *shell) setOpt(c byte, on bool) bool {
	switch c {
	case 'e':
		s.opt.e = on
	case 'u':
		s.opt.u = on
	case 'x':
		s.opt.x = on
	case 'f':
		s.opt.f = on
	case 'n':
		s.opt.n = on
	case 'C', 'a', 'b', 'v', 'm', 'h':
	default:
		return false
	}
	return true
}

func (s *shell) setLong(name string, on bool) bool {
	switch name {
	case "errexit":
		s.opt.e = on
	case "nounset":
		s.opt.u = on
	case "xtrace":
		s.opt.x = on
	case "noglob":
		s.opt.f = on
	case "pipefail":
		s.opt.pipefail = on
	case "noclobber", "allexport", "monitor", "verbose", "ignoreeof", "notify", "vi", "nolog", "debug", "interactive", "stdin":
	default:
		return false
	}
	return true
}

// main runs a shell's work and then its EXIT trap, and gives the exit status.
func (s *shell) main(work func()) (status int) {
	status = s.guard(func() { work(); s.signals() })
	if cmd, ok := s.traps["EXIT"]; ok && s.p.ctx.Err() == nil {
		delete(s.traps, "EXIT")
		s.last = status
		before := status
		status = s.guard(func() {
			s.flow = goOn
			s.evalText(cmd)
			s.last = before
		})
	}
	return status
}

// guard runs work and turns an exit into its status.
func (s *shell) guard(work func()) (status int) {
	defer func() {
		if r := recover(); r != nil {
			l, ok := r.(leave)
			if !ok {
				panic(r)
			}
			if s.p.ctx.Err() != nil {
				panic(r) // killed: no trap, no clean-up
			}
			status = l.status
		}
	}()
	work()
	return s.last
}

// source reads commands and runs each one as soon as it is complete, so that a
// script that is cut off has run up to the cut.
func (s *shell) source(src io.Reader) {
	parser := syntax.NewParser(syntax.Variant(syntax.LangPOSIX))
	// A last line without its newline counts too.
	for list, err := range parser.InteractiveSeq(io.MultiReader(src, strings.NewReader("\n"))) {
		if err != nil {
			var pe syntax.ParseError
			msg := err.Error()
			line := uint(0)
			if errors.As(err, &pe) {
				msg, line = pe.Text, pe.Pos.Line()
			}
			fmt.Fprintf(s.p.Stderr(), "%s: line %d: syntax error: %s\n", s.name, line, msg)
			s.last = 2
			s.p.Exit(2)
		}
		if s.opt.n || parser.Incomplete() {
			continue
		}
		s.stmts(list)
		if s.flow != goOn {
			return
		}
	}
}

func (s *shell) evalText(text string) { s.source(strings.NewReader(text)) }

func (s *shell) stmts(list []*syntax.Stmt) {
	for _, st := range list {
		s.stmt(st)
		if s.flow != goOn {
			return
		}
	}
}

// signals runs the traps of signals that came.
func (s *shell) signals() {
	for !s.inTrap {
		sig, ok := s.p.nextSignal()
		if !ok {
			return
		}
		if cmd := s.traps[sig]; cmd != "" {
			last := s.last
			s.inTrap = true
			func() {
				defer func() { s.inTrap = false }()
				s.evalText(cmd)
			}()
			s.last = last
		}
	}
}

func (s *shell) stmt(st *syntax.Stmt) {
	s.p.Check()
	s.line = st.Pos().Line()
	if st.Background {
		s.background(st)
		return
	}
	if st.Negated {
		s.calm++
	}
	_, simple := st.Cmd.(*syntax.CallExpr)
	if simple || len(st.Redirs) == 0 {
		s.command(st)
	} else {
		undo, _, err := s.redirect(st.Redirs)
		if err != nil {
			s.complain("%v", err)
			s.last = 1
		} else if st.Cmd != nil {
			func() {
				defer undo()
				s.command(st)
			}()
		} else {
			undo()
			s.last = 0
		}
	}
	if st.Negated {
		s.calm--
		s.last = b2i(s.last == 0)
	}
	s.signals()
	if s.opt.e && s.calm == 0 && s.last != 0 && s.flow == goOn && !st.Negated && failsHere(st) {
		s.p.Exit(s.last)
	}
}

// failsHere tells for which commands set -e looks at the status: compound ones
// have been looked at inside.
func failsHere(st *syntax.Stmt) bool {
	switch c := st.Cmd.(type) {
	case *syntax.CallExpr, *syntax.Subshell, *syntax.DeclClause, nil:
		return true
	case *syntax.BinaryCmd:
		return c.Op == syntax.Pipe
	}
	return len(st.Redirs) > 0
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *shell) complain(format string, args ...any) {
	fmt.Fprintf(s.p.Stderr(), "%s: line %d: %s\n", s.name, s.line, fmt.Sprintf(format, args...))
}

func (s *shell) command(st *syntax.Stmt) {
	switch c := st.Cmd.(type) {
	case nil:
		s.call(&syntax.CallExpr{}, st.Redirs)
	case *syntax.CallExpr:
		s.call(c, st.Redirs)
	case *syntax.Block:
		s.last = 0
		s.stmts(c.Stmts)
	case *syntax.Subshell:
		s.last = s.await(s.fork(c.Stmts, nil))
	case *syntax.IfClause:
		s.ifClause(c)
	case *syntax.WhileClause:
		s.while(c)
	case *syntax.ForClause:
		s.forClause(c)
	case *syntax.CaseClause:
		s.caseClause(c)
	case *syntax.BinaryCmd:
		s.binary(c)
	case *syntax.FuncDecl:
		s.funcs[c.Name.Value] = c.Body
		s.last = 0
	case *syntax.TimeClause:
		s.last = 0
		if c.Stmt != nil {
			s.stmt(c.Stmt)
		}
	default:
		s.complain("syntax error: %T is not POSIX", c)
		s.p.Exit(2)
	}
}

func (s *shell) cond(list []*syntax.Stmt) bool {
	s.calm++
	defer func() { s.calm-- }()
	s.stmts(list)
	return s.last == 0
}

func (s *shell) ifClause(c *syntax.IfClause) {
	for ; c != nil; c = c.Else {
		if len(c.Cond) == 0 { // else
			s.stmts(c.Then)
			return
		}
		ok := s.cond(c.Cond)
		if s.flow != goOn {
			return
		}
		if ok {
			s.last = 0
			s.stmts(c.Then)
			return
		}
	}
	s.last = 0
}

// endLoop handles break and continue after a loop's body; true leaves the loop.
func (s *shell) endLoop() bool {
	switch s.flow {
	case breakLoop, continueLoop:
		if s.levels--; s.levels > 0 {
			return true
		}
		out := s.flow == breakLoop
		s.flow = goOn
		return out
	case returnFunc:
		return true
	}
	return false
}

func (s *shell) while(c *syntax.WhileClause) {
	s.loops++
	defer func() { s.loops-- }()
	last := 0
	for {
		ok := s.cond(c.Cond)
		if s.flow == goOn && ok == c.Until {
			break
		}
		if s.flow == goOn {
			s.stmts(c.Do)
			last = s.last
		}
		if s.endLoop() {
			last = 0
			break
		}
	}
	if s.flow == goOn {
		s.last = last
	}
}

func (s *shell) forClause(c *syntax.ForClause) {
	it, ok := c.Loop.(*syntax.WordIter)
	if !ok {
		s.complain("syntax error: bad for loop")
		s.p.Exit(2)
	}
	items := s.params
	if it.InPos.IsValid() {
		items = s.fields(it.Items)
	}
	s.loops++
	defer func() { s.loops-- }()
	s.last = 0
	for _, v := range items {
		s.setVar(it.Name.Value, v)
		s.stmts(c.Do)
		if s.endLoop() {
			break
		}
	}
}

func (s *shell) caseClause(c *syntax.CaseClause) {
	word := s.literal(c.Word)
	s.last = 0
	for _, item := range c.Items {
		for _, w := range item.Patterns {
			pat, err := expand.Pattern(s.config(), w)
			s.must(err)
			if Match(pat, word) {
				s.stmts(item.Stmts)
				return
			}
		}
	}
}

// Match reports whether a shell pattern matches all of a text.
func Match(pat, text string) bool {
	expr, err := pattern.Regexp(pat, pattern.EntireString)
	if err != nil {
		return pat == text
	}
	re, err := compile(expr)
	return err == nil && re.MatchString(text)
}

func (s *shell) binary(c *syntax.BinaryCmd) {
	switch c.Op {
	case syntax.AndStmt, syntax.OrStmt:
		s.calm++
		s.stmt(c.X)
		s.calm--
		if s.flow != goOn || (s.last == 0) != (c.Op == syntax.AndStmt) {
			return
		}
		s.stmt(c.Y)
		// The last command of a list counts for set -e.
		return
	case syntax.Pipe:
		s.pipeline(c)
	default:
		s.complain("syntax error: unexpected %q", c.Op.String())
		s.p.Exit(2)
	}
}

func flatten(st *syntax.Stmt) []*syntax.Stmt {
	if b, ok := st.Cmd.(*syntax.BinaryCmd); ok && b.Op == syntax.Pipe && len(st.Redirs) == 0 && !st.Negated {
		return append(flatten(b.X), flatten(b.Y)...)
	}
	return []*syntax.Stmt{st}
}

func (s *shell) pipeline(c *syntax.BinaryCmd) {
	list := append(flatten(c.X), flatten(c.Y)...)
	var kids []*Proc
	var in *desc
	for i, st := range list {
		fds := map[int]*desc{}
		s.p.mu.Lock()
		maps.Copy(fds, s.p.fds)
		s.p.mu.Unlock()
		if in != nil {
			fds[0] = in
		}
		var out *desc
		next := in
		if i < len(list)-1 {
			q := NewPipe()
			out, next = newDesc(pipeWriter{q}), newDesc(pipeReader{q})
			fds[1] = out
		}
		kids = append(kids, s.fork([]*syntax.Stmt{st}, fds))
		if in != nil {
			in.close()
		}
		if out != nil {
			out.close()
			in = next
		}
	}
	failed := 0
	for _, k := range kids {
		s.last = s.await(k)
		if s.last != 0 {
			failed = s.last
		}
	}
	if s.opt.pipefail {
		s.last = failed
	}
}

// fork runs statements in a subshell.
func (s *shell) fork(list []*syntax.Stmt, fds map[int]*desc) *Proc {
	sub := s.clone()
	if len(list) == 1 {
		// A lone command takes the subshell's process over, so that $! is its own.
		_, sub.tail = list[0].Cmd.(*syntax.CallExpr)
	}
	return s.p.K.Start(s.p, Spawn{Args: s.p.Args, Env: s.p.Env, fds: fds, run: func(p *Proc) int {
		sub.p = p
		return sub.main(func() { sub.stmts(list) })
	}})
}

func (s *shell) clone() *shell {
	c := *s
	c.tail = false
	c.params = append([]string(nil), s.params...)
	c.vars = maps.Clone(s.vars)
	c.funcs = maps.Clone(s.funcs)
	c.kids = map[int]*Proc{}
	c.traps = map[string]string{}
	for sig, cmd := range s.traps {
		if cmd == "" { // ignored signals stay ignored
			c.traps[sig] = ""
		}
	}
	c.locals = nil
	for range s.locals {
		c.locals = append(c.locals, map[string]expand.Variable{})
	}
	return &c
}

// await waits for a child in the foreground; traps run after it.
func (s *shell) await(k *Proc) int {
	return s.p.Wait(k)
}

func (s *shell) background(st *syntax.Stmt) {
	c := *st
	c.Background = false
	fds := map[int]*desc{}
	s.p.mu.Lock()
	maps.Copy(fds, s.p.fds)
	s.p.mu.Unlock()
	null := newDesc(nullStream{})
	fds[0] = null // without job control a background command reads nothing
	k := s.fork([]*syntax.Stmt{&c}, fds)
	null.close()
	s.bg = k.PID
	s.kids[k.PID] = k
	s.last = 0
}

// call runs a simple command.
func (s *shell) call(c *syntax.CallExpr, redirs []*syntax.Redirect) {
	s.substed = false
	args := s.args(c.Args)
	if len(args) == 0 {
		s.assignOnly(c.Assigns, redirs)
		return
	}
	if s.opt.x {
		fmt.Fprintf(s.p.Stderr(), "+ %s\n", strings.Join(args, " "))
	}
	type saved struct {
		name string
		v    expand.Variable
	}
	var old []saved
	special := specials[args[0]]
	for _, a := range c.Assigns {
		v := s.assign(a)
		if !special {
			old = append(old, saved{a.Name.Value, s.vars[a.Name.Value]})
		}
		s.setVar(a.Name.Value, v)
		cur := s.vars[a.Name.Value]
		cur.Exported = cur.Exported || !special
		s.vars[a.Name.Value] = cur
	}
	restore := func() {
		for i := len(old) - 1; i >= 0; i-- {
			if old[i].v.Set || old[i].v.Exported {
				s.vars[old[i].name] = old[i].v
			} else {
				delete(s.vars, old[i].name)
			}
		}
	}
	undo, keepThem, err := s.redirect(redirs)
	if err != nil {
		restore()
		s.complain("%v", err)
		s.last = 1
		if special {
			s.p.Exit(2)
		}
		return
	}
	if args[0] == "exec" {
		keepThem()
		s.exec(args[1:])
		return
	}
	defer restore()
	defer undo()
	if fn := s.funcs[args[0]]; fn != nil {
		s.function(fn, args)
		return
	}
	s.simple(args)
}

// simple runs a builtin or an external program under the box's hooks.
func (s *shell) simple(args []string) {
	k := s.p.K
	if k.Before != nil {
		run, exit, text := k.Before(s.p, args)
		s.p.Check()
		if !run {
			io.WriteString(s.p.Stderr(), text)
			s.last = exit
			return
		}
	}
	if b := builtins[args[0]]; b != nil {
		s.tail = false
		s.last = b(s, args)
	} else {
		s.last = s.external(args)
	}
	if k.After != nil {
		k.After(s.p, args, s.last)
		s.p.Check()
	}
}

func (s *shell) external(args []string) int {
	s.p.Env = s.environ()
	file, st := s.p.lookup(args[0])
	if st != 0 {
		why := "not found"
		if st == 126 {
			why = "Permission denied"
		} else if s.p.K.Unknown != nil {
			s.p.K.Unknown(args[0])
		}
		s.complain("%s: %s", args[0], why)
		return st
	}
	if s.tail && len(s.traps) == 0 {
		s.p.setArgs(args)
		return s.p.execFile(file, args, 0)
	}
	k := s.p.K.Start(s.p, Spawn{Args: args, Env: s.environ(), run: func(p *Proc) int {
		return p.execFile(file, args, 0)
	}})
	return s.await(k)
}

func (s *shell) exec(args []string) {
	if len(args) == 0 {
		s.last = 0
		return
	}
	s.p.Env = s.environ()
	if k := s.p.K; k.Before != nil {
		if run, exit, text := k.Before(s.p, args); !run {
			io.WriteString(s.p.Stderr(), text)
			s.p.Exit(exit)
		}
		s.p.Check()
	}
	st := s.p.Exec(args)
	if st == 127 {
		s.complain("%s: not found", args[0])
	}
	s.traps = map[string]string{}
	s.p.Exit(st)
}

func (s *shell) function(body *syntax.Stmt, args []string) {
	params := s.params
	s.tail = false
	s.params = args[1:]
	s.locals = append(s.locals, map[string]expand.Variable{})
	s.depth++
	loops := s.loops
	s.loops = 0
	defer func() {
		s.depth--
		s.loops = loops
		s.params = params
		top := s.locals[len(s.locals)-1]
		s.locals = s.locals[:len(s.locals)-1]
		for name, v := range top {
			if v.Set || v.Exported {
				s.vars[name] = v
			} else {
				delete(s.vars, name)
			}
		}
	}()
	if s.depth > 200 {
		s.complain("too many nested functions")
		s.p.Exit(2)
	}
	s.stmt(body)
	if s.flow == returnFunc {
		s.flow = goOn
	}
}

// assignOnly runs a command without a name: assignments and redirections.
func (s *shell) assignOnly(list []*syntax.Assign, redirs []*syntax.Redirect) {
	for _, a := range list {
		s.setVar(a.Name.Value, s.assign(a))
	}
	if !s.substed { // else the status is that of the last substitution
		s.last = 0
	}
	if undo, _, err := s.redirect(redirs); err != nil {
		s.complain("%v", err)
		s.last = 1
	} else {
		undo()
	}
}

func (s *shell) assign(a *syntax.Assign) string {
	if a.Array != nil || a.Index != nil || a.Append {
		s.complain("syntax error: not POSIX")
		s.p.Exit(2)
	}
	return s.literal(a.Value)
}

func (s *shell) setVar(name, value string) {
	v := s.vars[name]
	if v.ReadOnly {
		s.complain("%s: is read only", name)
		s.p.Exit(2)
	}
	v.Set, v.Kind, v.Str = true, expand.String, value
	s.vars[name] = v
}

func (s *shell) environ() map[string]string {
	env := map[string]string{}
	for n, v := range s.vars {
		if v.Exported && v.Set {
			env[n] = v.Str
		}
	}
	if _, ok := env["PATH"]; !ok {
		env["PATH"] = s.vars["PATH"].Str
	}
	return env
}

// redirect applies redirections and gives the way back.
func (s *shell) redirect(list []*syntax.Redirect) (undo, keepThem func(), err error) {
	saved := map[int]*desc{}
	keep := func(n int) {
		if _, ok := saved[n]; !ok {
			if d := s.p.get(n); d != nil {
				saved[n] = d.dup()
			} else {
				saved[n] = nil
			}
		}
	}
	undo = func() {
		for n, d := range saved {
			s.p.setFD(n, d)
		}
	}
	for _, r := range list {
		fds, d, err := s.openRedirect(r)
		if err != nil {
			undo()
			return nil, nil, err
		}
		for _, n := range fds {
			keep(n)
			if d == nil {
				s.p.setFD(n, nil)
			} else {
				s.p.setFD(n, d.dup())
			}
		}
		if d != nil {
			d.close()
		}
	}
	keepThem = func() {
		for _, d := range saved {
			if d != nil {
				d.close()
			}
		}
	}
	return undo, keepThem, nil
}

func (s *shell) openRedirect(r *syntax.Redirect) (fds []int, d *desc, err error) {
	n := 1
	switch r.Op {
	case syntax.RdrIn, syntax.RdrInOut, syntax.DplIn, syntax.Hdoc, syntax.DashHdoc:
		n = 0
	}
	if r.N != nil {
		n = atoi(r.N.Value)
	}
	fds = []int{n}
	if r.Op == syntax.Hdoc || r.Op == syntax.DashHdoc {
		return fds, newDesc(&extStream{r: strings.NewReader(s.hereDoc(r))}), nil
	}
	word := s.literal(r.Word)
	flag := boxfs.Read
	switch r.Op {
	case syntax.RdrIn:
	case syntax.RdrInOut:
		flag = boxfs.Read | boxfs.Write | boxfs.Create
	case syntax.RdrOut, syntax.RdrClob:
		flag = boxfs.Write | boxfs.Create | boxfs.Trunc
	case syntax.AppOut:
		flag = boxfs.Write | boxfs.Create | boxfs.Append
	case syntax.DplIn, syntax.DplOut:
		if word == "-" {
			return fds, nil, nil
		}
		d, err := s.p.dupFD(atoi(word))
		if err != nil {
			err = fmt.Errorf("%s: Bad file descriptor", word)
		}
		return fds, d, err
	default:
		return nil, nil, fmt.Errorf("syntax error: unexpected %q", r.Op.String())
	}
	d, err = s.p.openStream(word, flag)
	if err != nil {
		s.p.Check()
		verb := "open"
		if flag&boxfs.Create != 0 {
			verb = "create"
		}
		text := ErrText(err)
		if verb == "create" && errors.Is(err, fs.ErrNotExist) {
			text = "nonexistent directory"
		} else if errors.Is(err, fs.ErrNotExist) {
			text = "no such file"
		}
		return nil, nil, fmt.Errorf("can't %s %s: %s", verb, word, text)
	}
	return fds, d, nil
}

func (s *shell) hereDoc(r *syntax.Redirect) string {
	if r.Hdoc == nil {
		return ""
	}
	if r.Op == syntax.Hdoc {
		text, err := expand.Document(s.config(), r.Hdoc)
		s.must(err)
		return text
	}
	// <<-: leading tabs of every line go, in the text and not in what is expanded.
	var b strings.Builder
	start := true
	for _, part := range r.Hdoc.Parts {
		if lit, ok := part.(*syntax.Lit); ok {
			v := lit.Value
			var out strings.Builder
			for i := 0; i < len(v); i++ {
				if start && v[i] == '\t' {
					continue
				}
				start = v[i] == '\n'
				out.WriteByte(v[i])
			}
			part = &syntax.Lit{Value: out.String()}
		} else {
			start = false
		}
		text, err := expand.Document(s.config(), &syntax.Word{Parts: []syntax.WordPart{part}})
		s.must(err)
		b.WriteString(text)
	}
	return b.String()
}

// ErrText is how busybox names an error.
func ErrText(err error) string {
	switch {
	case err == nil:
		return "Success"
	case errors.Is(err, boxfs.ErrDead):
		return "Input/output error"
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		switch no {
		case syscall.ENOENT:
			return "No such file or directory"
		case syscall.EEXIST:
			return "File exists"
		case syscall.ENOTDIR:
			return "Not a directory"
		case syscall.EISDIR:
			return "Is a directory"
		case syscall.ENOSPC:
			return "No space left on device"
		case syscall.ENOTEMPTY:
			return "Directory not empty"
		case syscall.EACCES:
			return "Permission denied"
		case syscall.EROFS:
			return "Read-only file system"
		case syscall.EXDEV:
			return "Invalid cross-device link"
		case syscall.EBUSY:
			return "Resource busy"
		case syscall.EBADF:
			return "Bad file descriptor"
		}
		return no.Error()
	}
	return err.Error()
}

// env adapts the shell's variables to package expand.
type env struct{ s *shell }

// Get finds a variable or a special parameter.
func (e env) Get(name string) expand.Variable {
	s := e.s
	str := func(v string) expand.Variable { return expand.Variable{Set: true, Kind: expand.String, Str: v} }
	switch name {
	case "#":
		return str(itoa(len(s.params)))
	case "@", "*":
		list := s.params
		if list == nil {
			list = []string{}
		}
		return expand.Variable{Set: true, Kind: expand.Indexed, List: list}
	case "?":
		return str(itoa(s.last))
	case "$":
		return str(itoa(s.rootPID()))
	case "!":
		if s.bg == 0 {
			return str("")
		}
		return str(itoa(s.bg))
	case "-":
		f := ""
		for _, o := range []struct {
			on bool
			c  string
		}{{s.opt.e, "e"}, {s.opt.u, "u"}, {s.opt.x, "x"}, {s.opt.f, "f"}} {
			if o.on {
				f += o.c
			}
		}
		return str(f)
	case "0":
		return str(s.name)
	case "PPID":
		return str(itoa(s.p.PPID))
	case "LINENO":
		return str(itoa(int(s.line)))
	}
	if name[0] >= '1' && name[0] <= '9' {
		if i := atoi(name); i >= 1 && i <= len(s.params) {
			return str(s.params[i-1])
		}
		return expand.Variable{}
	}
	if user, ok := strings.CutPrefix(name, "HOME "); ok {
		// Never ask the computer we run on who its users are.
		if user == "root" {
			return str("/root")
		}
		return str("~" + user)
	}
	return s.vars[name]
}

// Each lists all variables.
func (e env) Each(f func(string, expand.Variable) bool) {
	for n, v := range e.s.vars {
		if !f(n, v) {
			return
		}
	}
}

// Set changes a variable (${x:=y} and arithmetic).
func (e env) Set(name string, v expand.Variable) error {
	e.s.setVar(name, v.Str)
	return nil
}

// rootPID is $$: in a subshell it stays that of the shell it came from.
func (s *shell) rootPID() int {
	return atoi(s.vars["\x00pid"].Str)
}

func (s *shell) config() *expand.Config {
	c := &expand.Config{Env: env{s}, NoUnset: s.opt.u}
	c.CmdSubst = func(w io.Writer, cs *syntax.CmdSubst) error {
		q := NewPipe()
		fds := map[int]*desc{}
		s.p.mu.Lock()
		maps.Copy(fds, s.p.fds)
		s.p.mu.Unlock()
		out := newDesc(pipeWriter{q})
		fds[1] = out
		k := s.fork(cs.Stmts, fds)
		out.close()
		buf := make([]byte, 4096)
		for {
			n, err := q.ReadCtx(s.p.ctx, buf)
			// The shell drops NUL bytes of a substitution.
			w.Write(bytes.ReplaceAll(buf[:n], []byte{0}, nil))
			if err != nil {
				break
			}
		}
		s.p.Check()
		s.last = s.p.Wait(k)
		s.substed = true
		return nil
	}
	if !s.opt.f {
		c.ReadDir2 = func(dir string) ([]fs.DirEntry, error) {
			list, err := s.p.K.FS.ReadDir(dir)
			if err != nil {
				return nil, err
			}
			out := make([]fs.DirEntry, len(list))
			for i, st := range list {
				out[i] = st
			}
			return out, nil
		}
	}
	return c
}

// must turns an expansion error into the shell's end, as ash does when it is
// not interactive.
func (s *shell) must(err error) {
	if err == nil {
		return
	}
	var unset expand.UnsetParameterError
	if errors.As(err, &unset) {
		msg := unset.Message
		if msg == "unbound variable" {
			msg = "parameter not set"
		}
		s.complain("%s: %s", unset.Node.Param.Value, msg)
		s.p.Exit(2)
	}
	s.p.Check()
	s.complain("%v", err)
	s.p.Exit(2)
}

func (s *shell) literal(w *syntax.Word) string {
	if w == nil {
		return ""
	}
	v, err := expand.Literal(s.config(), unescaped(w))
	s.must(err)
	return v
}

func (s *shell) fields(words []*syntax.Word) []string {
	plain := make([]*syntax.Word, len(words))
	for i, w := range words {
		plain[i] = noBraces(w)
	}
	list, err := expand.Fields(s.config(), plain...)
	s.must(err)
	return list
}

// args expands a command's words. The values of export, readonly and local are
// not split, as in an assignment.
func (s *shell) args(words []*syntax.Word) []string {
	if len(words) == 0 {
		return nil
	}
	switch words[0].Lit() {
	case "export", "readonly", "local":
		list := []string{words[0].Lit()}
		for _, w := range words[1:] {
			if isAssign(w) {
				list = append(list, s.literal(w))
			} else {
				list = append(list, s.fields([]*syntax.Word{w})...)
			}
		}
		return list
	}
	return s.fields(words)
}

func isAssign(w *syntax.Word) bool {
	lit, ok := w.Parts[0].(*syntax.Lit)
	if !ok {
		return false
	}
	name, _, ok := strings.Cut(lit.Value, "=")
	return ok && syntax.ValidName(name)
}

// noBraces quotes { in words: ash knows no brace expansion, package expand does.
func noBraces(w *syntax.Word) *syntax.Word {
	found := false
	for _, part := range w.Parts {
		if lit, ok := part.(*syntax.Lit); ok && strings.Contains(lit.Value, "{") {
			found = true
		}
	}
	if !found {
		return w
	}
	out := &syntax.Word{}
	for _, part := range w.Parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			out.Parts = append(out.Parts, part)
			continue
		}
		from := 0
		for i := 0; i < len(lit.Value); i++ {
			switch lit.Value[i] {
			case '\\':
				i++
			case '{':
				if i > from {
					out.Parts = append(out.Parts, &syntax.Lit{Value: lit.Value[from:i]})
				}
				out.Parts = append(out.Parts, &syntax.SglQuoted{Value: "{"})
				from = i + 1
			}
		}
		if from < len(lit.Value) {
			out.Parts = append(out.Parts, &syntax.Lit{Value: lit.Value[from:]})
		}
	}
	return out
}

// unescaped writes what a backslash quotes as quoted, because expand.Literal keeps
// backslashes that stand outside of quotes (V='it'\”s' gave it\'s; busybox gives
// it's).
func unescaped(w *syntax.Word) *syntax.Word {
	if w == nil {
		return nil
	}
	out := &syntax.Word{}
	for _, p := range w.Parts {
		lit, ok := p.(*syntax.Lit)
		if !ok || !strings.Contains(lit.Value, `\`) {
			out.Parts = append(out.Parts, p)
			continue
		}
		text := lit.Value
		for {
			before, after, found := strings.Cut(text, `\`)
			if before != "" {
				out.Parts = append(out.Parts, &syntax.Lit{Value: before})
			}
			if !found || after == "" {
				break
			}
			size := 1
			if r := []rune(after); len(r) > 0 {
				size = len(string(r[0]))
			}
			if after[:size] != "\n" { // a backslash before a line end joins the lines
				out.Parts = append(out.Parts, &syntax.SglQuoted{Value: after[:size]})
			}
			text = after[size:]
		}
	}
	return out
}
