package busybox

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
)

// awkParse reads a program.
func awkParse(src string) (rules []awkRule, err error) {
	p := &awkParser{s: src}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(awkSyntax)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("%s", string(e))
		}
	}()
	p.next()
	for p.tok != "" {
		if p.tok == "\n" || p.tok == ";" {
			p.next()
			continue
		}
		var r awkRule
		switch {
		case p.kind == 'w' && p.tok == "BEGIN":
			r.kind = 'B'
			p.next()
		case p.kind == 'w' && p.tok == "END":
			r.kind = 'E'
			p.next()
		case p.tok != "{":
			r.cond = p.expr()
		}
		if p.tok == "{" {
			r.body = p.block()
		} else {
			r.all = true
		}
		rules = append(rules, r)
	}
	return rules, nil
}

type awkSyntax string

type awkParser struct {
	s    string
	tok  string
	kind byte // 'w' word, 'n' number, 's' string, 'r' regular expression, 'o' operator
	prev byte
	gt   int // >0: inside print's list, where > is a redirection
}

func (p *awkParser) bad(format string, a ...any) { panic(awkSyntax(fmt.Sprintf(format, a...))) }

var awkOps = []string{"&&", "||", "==", "!=", "<=", ">=", "!~", "++", "--", "+=", "-=", "*=", "/="}

func (p *awkParser) next() {
	p.prev = p.kind
	if p.kind == 'o' && (p.tok == ")" || p.tok == "]" || p.tok == "$") {
		p.prev = 'n'
	}
	p.s = strings.TrimLeft(p.s, " \t\r")
	for strings.HasPrefix(p.s, "\\\n") {
		p.s = strings.TrimLeft(p.s[2:], " \t\r")
	}
	if strings.HasPrefix(p.s, "#") {
		if i := strings.IndexByte(p.s, '\n'); i >= 0 {
			p.s = p.s[i:]
		} else {
			p.s = ""
		}
	}
	if p.s == "" {
		p.tok, p.kind = "", 0
		return
	}
	c := p.s[0]
	i := 1
	word := func(c byte) bool {
		return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	}
	switch {
	case c >= '0' && c <= '9' || c == '.':
		for i < len(p.s) && (p.s[i] >= '0' && p.s[i] <= '9' || p.s[i] == '.') {
			i++
		}
		p.tok, p.kind = p.s[:i], 'n'
	case word(c):
		for i < len(p.s) && word(p.s[i]) {
			i++
		}
		p.tok, p.kind = p.s[:i], 'w'
	case c == '"':
		for i < len(p.s) && p.s[i] != '"' {
			if p.s[i] == '\\' {
				i++
			}
			i++
		}
		if i >= len(p.s) {
			p.bad("unterminated string")
		}
		raw := strings.ReplaceAll(p.s[1:i], `\"`, `"`)
		raw = strings.ReplaceAll(raw, `\/`, `/`)
		p.tok, _ = ash.Unescape(raw)
		p.kind = 's'
		i++
	case c == '/' && p.prev != 'n' && p.prev != 'w' && p.prev != 's':
		for i < len(p.s) && p.s[i] != '/' {
			if p.s[i] == '\\' {
				i++
			}
			i++
		}
		if i >= len(p.s) {
			p.bad("unterminated regex")
		}
		p.tok, p.kind = strings.ReplaceAll(p.s[1:i], `\/`, `/`), 'r'
		i++
	default:
		p.kind = 'o'
		p.tok = p.s[:1]
		for _, o := range awkOps {
			if strings.HasPrefix(p.s, o) {
				p.tok, i = o, len(o)
			}
		}
	}
	p.s = p.s[i:]
}

func (p *awkParser) is(tok string) bool { return p.kind == 'o' && p.tok == tok }

func (p *awkParser) want(tok string) {
	if !p.is(tok) {
		p.bad("unexpected token %q, wanted %q", p.tok, tok)
	}
	p.next()
}

func (p *awkParser) newlines() {
	for p.is("\n") || p.is(";") {
		p.next()
	}
}

func (p *awkParser) block() []*awkStmt {
	p.want("{")
	var l []*awkStmt
	for p.newlines(); !p.is("}"); p.newlines() {
		if p.tok == "" && p.kind == 0 {
			p.bad("unexpected end")
		}
		l = append(l, p.stmt())
	}
	p.kind = 'o'
	p.next()
	return l
}

func (p *awkParser) stmt() *awkStmt {
	if p.is("{") {
		return &awkStmt{op: "block", then: p.block()}
	}
	if p.kind == 'w' {
		switch op := p.tok; op {
		case "print", "printf":
			p.kind = 'o'
			p.next()
			s := &awkStmt{op: op}
			paren := p.is("(")
			p.gt++
			for !p.is(";") && !p.is("}") && !p.is("\n") && p.kind != 0 {
				s.args = append(s.args, p.expr())
				if !p.is(",") {
					break
				}
				p.next()
			}
			p.gt--
			_ = paren
			if p.is(">") || p.is("|") {
				p.bad("redirections of print are not emulated")
			}
			return s
		case "next":
			p.next()
			return &awkStmt{op: op}
		case "exit":
			p.kind = 'o'
			p.next()
			s := &awkStmt{op: op}
			if !p.is(";") && !p.is("}") && !p.is("\n") && p.kind != 0 {
				s.args = []*awkExpr{p.expr()}
			}
			return s
		case "if":
			p.next()
			p.want("(")
			s := &awkStmt{op: "if", args: []*awkExpr{p.expr()}}
			p.want(")")
			p.newlines()
			s.then = []*awkStmt{p.stmt()}
			rest, tok, kind := p.s, p.tok, p.kind
			p.newlines()
			if p.kind == 'w' && p.tok == "else" {
				p.next()
				p.newlines()
				s.other = []*awkStmt{p.stmt()}
			} else {
				p.s, p.tok, p.kind = rest, tok, kind
			}
			return s
		case "for", "while", "do", "function", "getline", "delete", "return":
			p.bad("%s is not emulated", op)
		}
	}
	return &awkStmt{op: "expr", args: []*awkExpr{p.expr()}}
}

func (p *awkParser) expr() *awkExpr {
	l := p.ternary()
	if p.kind == 'o' {
		switch op := p.tok; op {
		case "=", "+=", "-=", "*=", "/=":
			p.next()
			return &awkExpr{op: op, kids: []*awkExpr{l, p.expr()}}
		}
	}
	return l
}

func (p *awkParser) ternary() *awkExpr {
	c := p.binary(0)
	if p.is("?") {
		p.next()
		a := p.expr()
		p.want(":")
		return &awkExpr{op: "?", kids: []*awkExpr{c, a, p.expr()}}
	}
	return c
}

var awkLevels = [][]string{{"||"}, {"&&"}, {"~", "!~"}, {"<", "<=", "==", "!=", ">", ">="}}

func (p *awkParser) binary(level int) *awkExpr {
	if level == len(awkLevels) {
		return p.concat()
	}
	l := p.binary(level + 1)
	for {
		op := ""
		for _, o := range awkLevels[level] {
			if p.is(o) && !(o == ">" && p.gt > 0) {
				op = o
			}
		}
		if op == "" {
			if level == 2 && p.kind == 'w' && p.tok == "in" {
				p.next()
				l = &awkExpr{op: "in", val: p.tok, kids: []*awkExpr{l}}
				p.next()
				continue
			}
			return l
		}
		p.next()
		l = &awkExpr{op: op, kids: []*awkExpr{l, p.binary(level + 1)}}
	}
}

func (p *awkParser) concat() *awkExpr {
	l := p.sum()
	for p.kind == 'n' || p.kind == 's' || p.is("$") || p.is("(") || p.kind == 'w' && p.tok != "in" {
		l = &awkExpr{op: "cat", kids: []*awkExpr{l, p.sum()}}
	}
	return l
}

func (p *awkParser) sum() *awkExpr {
	l := p.product()
	for p.is("+") || p.is("-") {
		op := p.tok
		p.next()
		l = &awkExpr{op: op, kids: []*awkExpr{l, p.product()}}
	}
	return l
}

func (p *awkParser) product() *awkExpr {
	l := p.unary()
	for p.is("*") || p.is("/") || p.is("%") {
		op := p.tok
		p.next()
		l = &awkExpr{op: op, kids: []*awkExpr{l, p.unary()}}
	}
	return l
}

func (p *awkParser) unary() *awkExpr {
	switch {
	case p.is("!"):
		p.next()
		return &awkExpr{op: "!", kids: []*awkExpr{p.unary()}}
	case p.is("-"):
		p.next()
		return &awkExpr{op: "neg", kids: []*awkExpr{p.unary()}}
	case p.is("+"):
		p.next()
		return p.unary()
	}
	e := p.primary()
	if p.is("++") || p.is("--") {
		e = &awkExpr{op: p.tok, kids: []*awkExpr{e}}
		p.next()
	}
	return e
}

func (p *awkParser) primary() *awkExpr {
	tok := p.tok
	switch p.kind {
	case 'n', 's':
		p.next()
		return &awkExpr{op: "lit", val: tok}
	case 'r':
		re, err := regexp.Compile(posix(tok, true))
		if err != nil {
			p.bad("bad regex %s", tok)
		}
		p.kind = 'n'
		p.next()
		return &awkExpr{op: "re", re: re}
	case 'w':
		p.next()
		switch {
		case tok == "length" && !p.is("("):
			return &awkExpr{op: "call", val: tok}
		case p.is("("):
			switch tok {
			case "length", "int", "tolower", "toupper", "index", "sprintf", "substr", "split", "gsub", "sub":
			default:
				p.bad("function %s is not emulated", tok)
			}
			p.next()
			e := &awkExpr{op: "call", val: tok}
			gt := p.gt
			p.gt = 0
			for !p.is(")") {
				e.kids = append(e.kids, p.expr())
				if !p.is(",") {
					break
				}
				p.next()
			}
			p.gt = gt
			p.want(")")
			return e
		case p.is("["):
			p.next()
			k := p.expr()
			p.want("]")
			return &awkExpr{op: "index", val: tok, kids: []*awkExpr{k}}
		}
		return &awkExpr{op: "var", val: tok}
	}
	switch {
	case p.is("$"):
		p.next()
		return &awkExpr{op: "$", kids: []*awkExpr{p.primary()}}
	case p.is("("):
		p.next()
		gt := p.gt
		p.gt = 0
		e := p.expr()
		p.gt = gt
		p.want(")")
		return e
	}
	p.bad("unexpected token %q", tok)
	return nil
}
