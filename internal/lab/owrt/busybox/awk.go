package busybox

import (
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
)

// Awk is the part of awk that small scripts use: patterns (regular expressions,
// comparisons, BEGIN and END), fields, variables, arithmetic, concatenation,
// print, printf, next, exit, if/else, and the functions length, substr, index,
// split, tolower, toupper, gsub, sub, int. The rest fails loudly.
func Awk(p *Proc, args []string) int {
	f, err := parse(args, "+F:v:f:")
	if err != nil {
		return usage(p, "awk", err.Error())
	}
	prog, files := "", f.rest
	if f.has('f') {
		data, err := readArg(p, f.val['f'])
		if err != nil {
			return fail(p, "awk", "%s: %s", f.val['f'], ash.ErrText(err))
		}
		prog = string(data)
	} else {
		if len(files) == 0 {
			return usage(p, "awk", "needs a program")
		}
		prog, files = files[0], files[1:]
	}
	a := &awk{p: p, vars: map[string]string{"FS": " ", "OFS": " ", "ORS": "\n", "NR": "0", "SUBSEP": "\x1c"}, arrays: map[string]map[string]string{}}
	if f.has('F') {
		fs, _ := ash.Unescape(f.val['F'])
		a.vars["FS"] = fs
	}
	for _, v := range f.all['v'] {
		k, val, _ := strings.Cut(v, "=")
		a.vars[k], _ = ash.Unescape(val)
	}
	rules, err := awkParse(prog)
	if err != nil {
		if p.K.Unknown != nil {
			p.K.Unknown("awk (" + err.Error() + "): extend internal/lab/owrt/busybox")
		}
		fail(p, "awk", "cmd. line:1: %v", err)
		return 2
	}
	st := a.run(rules, files)
	return st
}

type awk struct {
	p      *Proc
	vars   map[string]string
	arrays map[string]map[string]string
	fields []string // 0 is the line
}

type awkRule struct {
	kind byte // 'B', 'E' or 0
	cond *awkExpr
	body []*awkStmt
	all  bool // no body: print
}

type awkExpr struct {
	op   string
	val  string
	kids []*awkExpr
	re   *regexp.Regexp
}

type awkStmt struct {
	op    string
	args  []*awkExpr
	then  []*awkStmt
	other []*awkStmt
}

// awkExit and awkNext unwind.
type (
	awkExit struct{ code int }
	awkNext struct{}
)

func (a *awk) run(rules []awkRule, files []string) (status int) {
	guard := func(work func()) (done bool) {
		defer func() {
			switch r := recover().(type) {
			case nil:
			case awkExit:
				status, done = r.code, true
			case awkNext:
			default:
				panic(r)
			}
		}()
		work()
		return false
	}
	each := func(kind byte) bool {
		for _, r := range rules {
			if r.kind == kind && guard(func() { a.exec(r.body) }) {
				return true
			}
		}
		return false
	}
	a.setLine("")
	stop := each('B')
	main := false
	for _, r := range rules {
		main = main || r.kind != 'B'
	}
	if main && !stop {
		nr := 0
		st := inputs(a.p, "awk", files, func(_ string, r io.Reader) {
			lines(r, func(l string, _ bool) bool {
				nr++
				a.vars["NR"], a.vars["FNR"] = strconv.Itoa(nr), strconv.Itoa(nr)
				a.setLine(l)
				stop = guard(func() {
					for _, r := range rules {
						if r.kind == 0 && (r.cond == nil || truth(a.eval(r.cond))) {
							if r.all {
								io.WriteString(a.p.Stdout(), a.fields[0]+"\n")
							} else {
								a.exec(r.body)
							}
						}
					}
				})
				return !stop
			})
		})
		status = max(status, st*2)
	}
	keep := status
	if !each('E') {
		status = keep
	}
	return status
}

func (a *awk) setLine(l string) {
	a.fields = append([]string{l}, awkSplit(l, a.vars["FS"])...)
	a.vars["NF"] = strconv.Itoa(len(a.fields) - 1)
}

func awkSplit(l, fs string) []string {
	switch {
	case fs == " ":
		return strings.Fields(l)
	case l == "":
		return nil
	case len(fs) == 1 && fs != "|" || fs == "":
		return strings.Split(l, fs)
	case len(fs) == 1:
		return strings.Split(l, fs)
	}
	re, err := regexp.Compile(posix(fs, true))
	if err != nil {
		return []string{l}
	}
	return re.Split(l, -1)
}

func number(s string) float64 { return leadNumber(s) }

func numeric(s string) bool {
	_, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	return err == nil
}

func truth(s string) bool {
	if numeric(s) {
		return number(s) != 0
	}
	return s != ""
}

func numText(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1e16 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 6, 64)
}

func (a *awk) exec(list []*awkStmt) {
	for _, s := range list {
		switch s.op {
		case "print":
			var w []string
			for _, e := range s.args {
				w = append(w, a.eval(e))
			}
			if len(w) == 0 {
				w = []string{a.fields[0]}
			}
			io.WriteString(a.p.Stdout(), strings.Join(w, a.vars["OFS"])+a.vars["ORS"])
		case "printf":
			var w []string
			for _, e := range s.args {
				w = append(w, a.eval(e))
			}
			if len(w) > 0 {
				io.WriteString(a.p.Stdout(), a.sprintf(w))
			}
		case "next":
			panic(awkNext{})
		case "exit":
			code := 0
			if len(s.args) > 0 {
				code = int(number(a.eval(s.args[0])))
			}
			panic(awkExit{code})
		case "if":
			if truth(a.eval(s.args[0])) {
				a.exec(s.then)
			} else {
				a.exec(s.other)
			}
		case "block":
			a.exec(s.then)
		default:
			a.eval(s.args[0])
		}
	}
}

func (a *awk) sprintf(w []string) string {
	var b strings.Builder
	format, rest := w[0], w[1:]
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		j := i + 1
		for j < len(format) && strings.ContainsRune("-+ #0123456789.", rune(format[j])) {
			j++
		}
		if j == len(format) {
			break
		}
		arg := ""
		if format[j] != '%' && len(rest) > 0 {
			arg, rest = rest[0], rest[1:]
		}
		switch c := format[j]; c {
		case '%':
			b.WriteByte('%')
		case 's':
			fmt.Fprintf(&b, format[i:j+1], arg)
		case 'd', 'i':
			fmt.Fprintf(&b, format[i:j]+"d", int64(number(arg)))
		case 'x', 'X', 'o', 'c':
			fmt.Fprintf(&b, format[i:j+1], int64(number(arg)))
		default:
			fmt.Fprintf(&b, format[i:j+1], number(arg))
		}
		i = j
	}
	return b.String()
}

func (a *awk) field(n int) string {
	if n >= 0 && n < len(a.fields) {
		return a.fields[n]
	}
	return ""
}

func (a *awk) assign(to *awkExpr, v string) {
	switch to.op {
	case "var":
		a.vars[to.val] = v
	case "index":
		m := a.arrays[to.val]
		if m == nil {
			m = map[string]string{}
			a.arrays[to.val] = m
		}
		m[a.eval(to.kids[0])] = v
	case "$":
		n := int(number(a.eval(to.kids[0])))
		if n == 0 {
			a.setLine(v)
			return
		}
		for len(a.fields) <= n {
			a.fields = append(a.fields, "")
		}
		a.fields[n] = v
		a.vars["NF"] = strconv.Itoa(len(a.fields) - 1)
		a.fields[0] = strings.Join(a.fields[1:], a.vars["OFS"])
	}
}

func (a *awk) eval(e *awkExpr) string {
	kid := func(i int) string { return a.eval(e.kids[i]) }
	switch e.op {
	case "lit":
		return e.val
	case "var":
		return a.vars[e.val]
	case "index":
		return a.arrays[e.val][kid(0)]
	case "in":
		_, ok := a.arrays[e.val][kid(0)]
		return strconv.Itoa(b2i(ok))
	case "$":
		return a.field(int(number(kid(0))))
	case "re":
		return strconv.Itoa(b2i(e.re.MatchString(a.fields[0])))
	case "~", "!~":
		re := e.kids[1].re
		if re == nil {
			var err error
			if re, err = regexp.Compile(posix(kid(1), true)); err != nil {
				return "0"
			}
		}
		return strconv.Itoa(b2i(re.MatchString(kid(0)) == (e.op == "~")))
	case "!":
		return strconv.Itoa(b2i(!truth(kid(0))))
	case "neg":
		return numText(-number(kid(0)))
	case "&&":
		return strconv.Itoa(b2i(truth(kid(0)) && truth(kid(1))))
	case "||":
		return strconv.Itoa(b2i(truth(kid(0)) || truth(kid(1))))
	case "?":
		if truth(kid(0)) {
			return kid(1)
		}
		return kid(2)
	case "cat":
		return kid(0) + kid(1)
	case "+", "-", "*", "/", "%":
		return arith(e.op, kid(0), kid(1))
	case "==", "!=", "<", "<=", ">", ">=":
		return strconv.Itoa(b2i(a.compare(e)))
	case "=":
		v := kid(1)
		a.assign(e.kids[0], v)
		return v
	case "+=", "-=", "*=", "/=":
		v := arith(e.op[:1], kid(0), kid(1))
		a.assign(e.kids[0], v)
		return v
	case "++", "--":
		old := numText(number(kid(0)))
		a.assign(e.kids[0], arith(e.op[:1], old, "1"))
		return old
	case "call":
		return a.call(e)
	}
	return ""
}

func arith(op, x, y string) string {
	a, b := number(x), number(y)
	switch op {
	case "+":
		a += b
	case "-":
		a -= b
	case "*":
		a *= b
	case "/":
		a /= b
	case "%":
		a = math.Mod(a, b)
	}
	return numText(a)
}

func (a *awk) compare(e *awkExpr) bool {
	x, y := a.eval(e.kids[0]), a.eval(e.kids[1])
	c := strings.Compare(x, y)
	str := e.kids[0].op == "lit" && e.kids[0].re == nil && !numeric(x) || e.kids[1].op == "lit" && !numeric(y)
	if !str && (numeric(x) || x == "") && (numeric(y) || y == "") {
		switch d := number(x) - number(y); {
		case d < 0:
			c = -1
		case d > 0:
			c = 1
		default:
			c = 0
		}
	}
	return map[string]bool{"==": c == 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[e.op]
}

func (a *awk) call(e *awkExpr) string {
	arg := func(i int) string {
		if i < len(e.kids) {
			return a.eval(e.kids[i])
		}
		return ""
	}
	switch e.val {
	case "length":
		if len(e.kids) == 0 {
			return strconv.Itoa(len(a.fields[0]))
		}
		return strconv.Itoa(len(arg(0)))
	case "int":
		return numText(math.Trunc(number(arg(0))))
	case "tolower":
		return strings.ToLower(arg(0))
	case "toupper":
		return strings.ToUpper(arg(0))
	case "index":
		return strconv.Itoa(strings.Index(arg(0), arg(1)) + 1)
	case "sprintf":
		var w []string
		for i := range e.kids {
			w = append(w, arg(i))
		}
		return a.sprintf(w)
	case "substr":
		s, from := arg(0), int(number(arg(1)))
		to := len(s) + 1
		if len(e.kids) > 2 {
			to = from + int(number(arg(2)))
		}
		from, to = max(from, 1), min(to, len(s)+1)
		if from >= to {
			return ""
		}
		return s[from-1 : to-1]
	case "split":
		fs := a.vars["FS"]
		if len(e.kids) > 2 {
			fs = arg(2)
		}
		parts := awkSplit(arg(0), fs)
		m := map[string]string{}
		for i, x := range parts {
			m[strconv.Itoa(i+1)] = x
		}
		a.arrays[e.kids[1].val] = m
		return strconv.Itoa(len(parts))
	case "gsub", "sub":
		re := e.kids[0].re
		if re == nil {
			re, _ = regexp.Compile(posix(arg(0), true))
		}
		to := &awkExpr{op: "$", kids: []*awkExpr{{op: "lit", val: "0"}}}
		if len(e.kids) > 2 {
			to = e.kids[2]
		}
		if re == nil {
			return "0"
		}
		c := &sedCmd{re: re, repl: arg(1), global: e.val == "gsub"}
		out, ok := c.replace(a.eval(to))
		if ok {
			a.assign(to, out)
		}
		return strconv.Itoa(b2i(ok))
	}
	return ""
}
