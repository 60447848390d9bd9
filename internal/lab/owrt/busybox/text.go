package busybox

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

func textApplets() map[string]ash.Program {
	return map[string]ash.Program{
		"head": Head, "tail": Tail, "cut": Cut, "tr": Tr, "sort": Sort, "uniq": Uniq, "grep": Grep, "egrep": Grep, "fgrep": Grep,
		"sed": Sed, "wc": Wc, "tee": Tee, "seq": Seq, "xargs": Xargs, "expr": Expr, "hexdump": Hexdump, "yes": Yes, "awk": Awk,
	}
}

// lines calls use for every line; nl tells whether the line ended.
func lines(r io.Reader, use func(line string, nl bool) bool) {
	br := bufio.NewReader(r)
	for {
		s, err := br.ReadString('\n')
		if s != "" {
			nl := strings.HasSuffix(s, "\n")
			if !use(strings.TrimSuffix(s, "\n"), nl) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Head is the program head.
func Head(p *Proc, args []string) int {
	if len(args) > 1 && len(args[1]) > 1 && args[1][0] == '-' && args[1][1] >= '0' && args[1][1] <= '9' {
		args = append([]string{args[0], "-n", args[1][1:]}, args[2:]...)
	}
	f, err := parse(args, "n:c:qv")
	if err != nil {
		return usage(p, "head", err.Error())
	}
	n := 10
	if f.has('n') {
		n = atoi(f.val['n'])
	}
	out := bufio.NewWriter(p.Stdout())
	st := inputs(p, "head", f.rest, func(_ string, r io.Reader) {
		if f.has('c') {
			io.CopyN(out, r, int64(size(f.val['c'])))
			return
		}
		left := n
		if left == 0 {
			return
		}
		lines(r, func(l string, nl bool) bool {
			out.WriteString(l)
			if nl {
				out.WriteByte('\n')
			}
			left--
			return left > 0
		})
	})
	out.Flush()
	return st
}

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

func size(s string) int {
	m := 1
	switch {
	case strings.HasSuffix(s, "k"):
		s, m = s[:len(s)-1], 1024
	case strings.HasSuffix(s, "m"):
		s, m = s[:len(s)-1], 1<<20
	}
	return atoi(s) * m
}

// Tail is the program tail; -f is not emulated.
func Tail(p *Proc, args []string) int {
	if len(args) > 1 && len(args[1]) > 1 && args[1][0] == '-' && args[1][1] >= '0' && args[1][1] <= '9' {
		args = append([]string{args[0], "-n", args[1][1:]}, args[2:]...)
	}
	f, err := parse(args, "n:c:q")
	if err != nil {
		return usage(p, "tail", err.Error())
	}
	return inputs(p, "tail", f.rest, func(_ string, r io.Reader) {
		data, _ := io.ReadAll(r)
		if f.has('c') {
			v := f.val['c']
			n := size(strings.TrimLeft(v, "+-"))
			if strings.HasPrefix(v, "+") {
				p.Stdout().Write(data[min(max(n-1, 0), len(data)):])
			} else {
				p.Stdout().Write(data[max(len(data)-n, 0):])
			}
			return
		}
		v := "10"
		if f.has('n') {
			v = f.val['n']
		}
		all := bytes.SplitAfter(data, []byte("\n"))
		if len(all) > 0 && len(all[len(all)-1]) == 0 {
			all = all[:len(all)-1]
		}
		n := atoi(strings.TrimLeft(v, "+-"))
		from := max(len(all)-n, 0)
		if strings.HasPrefix(v, "+") {
			from = min(max(n-1, 0), len(all))
		}
		p.Stdout().Write(bytes.Join(all[from:], nil))
	})
}

// span is one range of cut, 1-based; to 0 is open.
type span struct{ from, to int }

func spans(s string) ([]span, error) {
	var l []span
	for _, part := range strings.Split(s, ",") {
		a, b, dash := strings.Cut(part, "-")
		x := span{from: max(atoi(a), 1), to: atoi(b)}
		if !dash {
			x.to = x.from
		}
		if a == "" && b == "" {
			return nil, fmt.Errorf("invalid range %s", part)
		}
		l = append(l, x)
	}
	return l, nil
}

func in(l []span, i int) bool {
	for _, s := range l {
		if i >= s.from && (s.to == 0 || i <= s.to) {
			return true
		}
	}
	return false
}

// Cut is the program cut.
func Cut(p *Proc, args []string) int {
	f, err := parse(args, "d:f:c:b:s")
	if err != nil {
		return usage(p, "cut", err.Error())
	}
	which := f.val['f'] + f.val['c'] + f.val['b']
	list, err := spans(which)
	if which == "" || err != nil {
		return usage(p, "cut", "expected a list of bytes, characters, or fields")
	}
	d := "\t"
	if f.has('d') {
		d = f.val['d']
	}
	out := bufio.NewWriter(p.Stdout())
	defer out.Flush()
	return inputs(p, "cut", f.rest, func(_ string, r io.Reader) {
		lines(r, func(l string, _ bool) bool {
			if f.has('f') {
				if !strings.Contains(l, d) {
					if !f.has('s') {
						out.WriteString(l + "\n")
					}
					return true
				}
				var keep []string
				for i, x := range strings.Split(l, d) {
					if in(list, i+1) {
						keep = append(keep, x)
					}
				}
				out.WriteString(strings.Join(keep, d) + "\n")
				return true
			}
			for i := 0; i < len(l); i++ {
				if in(list, i+1) {
					out.WriteByte(l[i])
				}
			}
			out.WriteByte('\n')
			return true
		})
	})
}

// trSet expands a set of tr.
func trSet(s string) []byte {
	s = strings.NewReplacer("[:lower:]", "a-z", "[:upper:]", "A-Z", "[:digit:]", "0-9", "[:alnum:]", "A-Za-z0-9",
		"[:alpha:]", "A-Za-z", "[:space:]", " \\t-\\r", "[:blank:]", " \\t", "[:xdigit:]", "0-9A-Fa-f", "[:punct:]", "!-/:-@\\[-`{-~",
		"[:cntrl:]", "\\000-\\037\\177", "[:print:]", " -~").Replace(s)
	var raw []byte
	var esc []bool
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			j := i + 2
			for j < len(s) && j < i+4 && s[i+1] >= '0' && s[i+1] <= '7' && s[j] >= '0' && s[j] <= '7' {
				j++
			}
			t, _ := ash.Unescape(s[i:j])
			t = strings.TrimPrefix(t, `\`)
			raw, esc = append(raw, t...), append(esc, true)
			i = j - 1
			continue
		}
		raw, esc = append(raw, s[i]), append(esc, false)
	}
	var out []byte
	for i := 0; i < len(raw); i++ {
		if i+2 < len(raw) && raw[i+1] == '-' && !esc[i+1] && raw[i+2] >= raw[i] {
			for c := int(raw[i]); c <= int(raw[i+2]); c++ {
				out = append(out, byte(c))
			}
			i += 2
			continue
		}
		out = append(out, raw[i])
	}
	return out
}

// Tr is the program tr.
func Tr(p *Proc, args []string) int {
	f, err := parse(args, "+cCds")
	if err != nil || len(f.rest) == 0 {
		return usage(p, "tr", "needs sets")
	}
	one := trSet(f.rest[0])
	var has [256]bool
	for _, c := range one {
		has[c] = true
	}
	if f.has('c') || f.has('C') {
		one = one[:0]
		for i := range has {
			if has[i] = !has[i]; has[i] {
				one = append(one, byte(i))
			}
		}
	}
	var to [256]int
	for i := range to {
		to[i] = i
	}
	var squeeze [256]bool
	var two []byte
	if len(f.rest) > 1 {
		two = trSet(f.rest[1])
		if len(two) == 0 {
			return usage(p, "tr", "STRING2 cannot be empty")
		}
		if !f.has('d') {
			for i, c := range one {
				to[c] = int(two[min(i, len(two)-1)])
			}
		}
	}
	if f.has('s') {
		set := one
		if two != nil {
			set = two
		}
		for _, c := range set {
			squeeze[c] = true
		}
	}
	out := bufio.NewWriter(p.Stdout())
	defer out.Flush()
	buf := make([]byte, 4096)
	last := -1
	for {
		n, err := p.Stdin().Read(buf)
		for _, c := range buf[:n] {
			if f.has('d') && has[c] {
				continue
			}
			x := to[c]
			if f.has('s') && squeeze[x] && last == x {
				continue
			}
			last = x
			out.WriteByte(byte(x))
		}
		if err != nil {
			return 0
		}
	}
}

// Sort is the program sort: -n -r -u -k N -t C -o FILE.
func Sort(p *Proc, args []string) int {
	f, err := parse(args, "nruk:t:o:cszbdfg")
	if err != nil {
		return usage(p, "sort", err.Error())
	}
	var all []string
	st := inputs(p, "sort", f.rest, func(_ string, r io.Reader) {
		lines(r, func(l string, _ bool) bool { all = append(all, l); return true })
	})
	if st != 0 {
		return 2
	}
	key := func(l string) string { return l }
	num := f.has('n') || f.has('g')
	if k := f.val['k']; k != "" {
		if strings.Contains(k, "n") {
			num = true
		}
		n := atoi(strings.TrimRight(strings.SplitN(strings.SplitN(k, ",", 2)[0], ".", 2)[0], "nr"))
		key = func(l string) string {
			var w []string
			if f.has('t') {
				w = strings.Split(l, f.val['t'])
			} else {
				w = strings.Fields(l)
			}
			if n-1 < len(w) && n > 0 {
				return strings.Join(w[n-1:], " ")
			}
			return ""
		}
	}
	cmp := func(a, b string) int {
		if num {
			x, y := leadNumber(key(a)), leadNumber(key(b))
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		}
		return strings.Compare(key(a), key(b))
	}
	sort.SliceStable(all, func(i, j int) bool {
		c := cmp(all[i], all[j])
		if c == 0 && !f.has('s') && !f.has('u') {
			c = strings.Compare(all[i], all[j])
		}
		if f.has('r') {
			c = -c
		}
		return c < 0
	})
	var out strings.Builder
	for i, l := range all {
		if f.has('u') && i > 0 && cmp(all[i-1], l) == 0 {
			continue
		}
		out.WriteString(l + "\n")
	}
	if f.has('o') {
		if err := p.FS().WriteFile(p.Path(f.val['o']), []byte(out.String()), 0o644); err != nil {
			return fail(p, "sort", "%s: %s", f.val['o'], ash.ErrText(err))
		}
		return 0
	}
	io.WriteString(p.Stdout(), out.String())
	return 0
}

func leadNumber(s string) float64 {
	s = strings.TrimLeft(s, " \t")
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.' || i == 0 && s[i] == '-') {
		i++
	}
	x, _ := strconv.ParseFloat(s[:i], 64)
	return x
}

// Uniq is the program uniq: -c -d -u.
func Uniq(p *Proc, args []string) int {
	f, err := parse(args, "cdui")
	if err != nil {
		return usage(p, "uniq", err.Error())
	}
	out := bufio.NewWriter(p.Stdout())
	defer out.Flush()
	return inputs(p, "uniq", f.rest[:min(len(f.rest), 1)], func(_ string, r io.Reader) {
		last, n := "", 0
		flush := func() {
			if n == 0 || f.has('d') && n == 1 || f.has('u') && n > 1 {
				return
			}
			if f.has('c') {
				fmt.Fprintf(out, "%7d ", n)
			}
			out.WriteString(last + "\n")
		}
		lines(r, func(l string, _ bool) bool {
			if n > 0 && l == last {
				n++
				return true
			}
			flush()
			last, n = l, 1
			return true
		})
		flush()
	})
}

// posix turns a POSIX basic or extended regular expression into Go's syntax.
func posix(expr string, extended bool) string {
	var b strings.Builder
	for i := 0; i < len(expr); i++ {
		c := expr[i]
		switch {
		case c == '[':
			j := i + 1
			if j < len(expr) && expr[j] == '^' {
				j++
			}
			if j < len(expr) && expr[j] == ']' {
				j++
			}
			for j < len(expr) && expr[j] != ']' {
				if expr[j] == '[' && j+1 < len(expr) && expr[j+1] == ':' {
					if k := strings.Index(expr[j:], ":]"); k > 0 {
						j += k + 1
					}
				}
				j++
			}
			set := expr[i:min(j+1, len(expr))]
			b.WriteString(bracket(set))
			i = j
		case c == '\\' && i+1 < len(expr):
			i++
			d := expr[i]
			switch {
			case !extended && strings.IndexByte("(){}|+?", d) >= 0:
				b.WriteByte(d)
			case d == '<' || d == '>':
				b.WriteString(`\b`)
			case strings.IndexByte("wWsSbBd", d) >= 0:
				b.WriteString(`\` + string(d))
			case d == 'n':
				b.WriteString("\n")
			case d == 't':
				b.WriteString("\t")
			default:
				b.WriteString(regexp.QuoteMeta(string(d)))
			}
		case !extended && strings.IndexByte("(){}|+?", c) >= 0:
			b.WriteString(`\` + string(c))
		case !extended && c == '*' && (i == 0 || strings.HasSuffix(expr[:i], `\(`) || expr[:i] == "^"):
			b.WriteString(`\*`)
		case !extended && c == '^' && i > 0 && !strings.HasSuffix(expr[:i], `\(`) && !strings.HasSuffix(expr[:i], `\|`):
			b.WriteString(`\^`)
		case !extended && c == '$' && i+1 < len(expr) && !strings.HasPrefix(expr[i+1:], `\)`) && !strings.HasPrefix(expr[i+1:], `\|`):
			b.WriteString(`\$`)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// bracket makes a POSIX bracket expression safe for Go: a backslash is itself.
func bracket(set string) string {
	body := strings.TrimSuffix(strings.TrimPrefix(set, "["), "]")
	neg := strings.HasPrefix(body, "^")
	body = strings.TrimPrefix(body, "^")
	var b strings.Builder
	b.WriteByte('[')
	if neg {
		b.WriteByte('^')
	}
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case strings.HasPrefix(body[i:], "[:"):
			if k := strings.Index(body[i:], ":]"); k > 0 {
				b.WriteString(body[i : i+k+2])
				i += k + 1
				continue
			}
			b.WriteString(`\[`)
		case c == '\\' && i+1 < len(body) && (body[i+1] == 'n' || body[i+1] == 't'):
			b.WriteString(body[i : i+2])
			i++
		case c == '\\' || c == '[' || c == ']' || c == '^':
			b.WriteString(`\` + string(c))
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte(']')
	return b.String()
}

// Grep is the programs grep, egrep and fgrep.
func Grep(p *Proc, args []string) int {
	f, err := parse(args, "EFivclLnqsowxhHre:f:m:A:B:Ra")
	if err != nil {
		usage(p, "grep", err.Error())
		return 2
	}
	pats := f.all['e']
	if f.has('f') {
		data, err := readArg(p, f.val['f'])
		if err != nil {
			fail(p, "grep", "%s: %s", f.val['f'], ash.ErrText(err))
			return 2
		}
		pats = append(pats, strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")...)
	}
	rest := f.rest
	if len(pats) == 0 {
		if len(rest) == 0 {
			usage(p, "grep", "needs a pattern")
			return 2
		}
		pats, rest = strings.Split(rest[0], "\n"), rest[1:]
	}
	var alts []string
	for _, s := range pats {
		switch {
		case f.has('F') || args[0] == "fgrep":
			s = regexp.QuoteMeta(s)
		default:
			s = posix(s, f.has('E') || args[0] == "egrep")
		}
		if f.has('x') {
			s = "^(?:" + s + ")$"
		} else if f.has('w') {
			s = `\b(?:` + s + `)\b`
		}
		alts = append(alts, "(?:"+s+")")
	}
	expr := strings.Join(alts, "|")
	if f.has('i') {
		expr = "(?i)" + expr
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		fail(p, "grep", "bad regex '%s'", pats[0])
		return 2
	}
	if f.has('r') || f.has('R') {
		var list []string
		each(p, rest, true, func(n string, i boxfs.Info, err error) {
			if err == nil && i.FileMode.IsRegular() {
				list = append(list, n)
			}
		})
		rest = list
	}
	g := &grep{p: p, f: f, re: re, many: (len(rest) > 1 || f.has('r') || f.has('H')) && !f.has('h'), out: bufio.NewWriter(p.Stdout())}
	bad := 0
	if len(rest) == 0 {
		rest = []string{"-"}
	}
	for _, n := range rest {
		data, err := readArg(p, n)
		if err != nil {
			bad = 2
			if !f.has('s') {
				fmt.Fprintf(p.Stderr(), "grep: %s: %s\n", n, ash.ErrText(err))
			}
			continue
		}
		g.file(n, data)
		if f.has('q') && g.hit {
			return 0
		}
	}
	g.out.Flush()
	switch {
	case bad != 0:
		return bad
	case g.hit:
		return 0
	}
	return 1
}

type grep struct {
	p    *Proc
	f    *flags
	re   *regexp.Regexp
	many bool
	hit  bool
	out  *bufio.Writer
}

func (g *grep) file(name string, data []byte) {
	f := g.f
	n, count, after := 0, 0, 0
	limit := -1
	if f.has('m') {
		limit = atoi(f.val['m'])
	}
	prefix := ""
	if g.many {
		prefix = name + ":"
	}
	var before []string
	lines(bytes.NewReader(data), func(l string, _ bool) bool {
		n++
		num := ""
		if f.has('n') {
			num = strconv.Itoa(n) + ":"
		}
		if g.re.MatchString(l) == f.has('v') {
			if after > 0 {
				after--
				g.out.WriteString(prefix + num + l + "\n")
			} else if b := atoi(f.val['B']); b > 0 {
				before = append(before, l)
				if len(before) > b {
					before = before[1:]
				}
			}
			return true
		}
		count++
		g.hit = true
		if f.has('q') || f.has('l') {
			return false
		}
		if !f.has('c') && !f.has('L') {
			for _, b := range before {
				g.out.WriteString(prefix + b + "\n")
			}
			before = nil
			after = atoi(f.val['A'])
			if f.has('o') && !f.has('v') {
				for _, m := range g.re.FindAllString(l, -1) {
					if m != "" {
						g.out.WriteString(prefix + num + m + "\n")
					}
				}
			} else {
				g.out.WriteString(prefix + num + l + "\n")
			}
		}
		return limit < 0 || count < limit
	})
	switch {
	case f.has('l') && count > 0, f.has('L') && count == 0:
		g.out.WriteString(name + "\n")
	case f.has('c'):
		fmt.Fprintf(g.out, "%s%d\n", prefix, count)
	}
}

// Wc is the program wc.
func Wc(p *Proc, args []string) int {
	f, err := parse(args, "lwcmL")
	if err != nil {
		return usage(p, "wc", err.Error())
	}
	all := len(f.on) == 0
	st := inputs(p, "wc", f.rest, func(name string, r io.Reader) {
		data, _ := io.ReadAll(r)
		var cols []string
		if all || f.has('l') {
			cols = append(cols, strconv.Itoa(bytes.Count(data, []byte("\n"))))
		}
		if all || f.has('w') {
			cols = append(cols, strconv.Itoa(len(bytes.Fields(data))))
		}
		if all || f.has('c') || f.has('m') {
			cols = append(cols, strconv.Itoa(len(data)))
		}
		format := "%s"
		if len(cols) > 1 {
			format = "%9s"
		}
		for i, c := range cols {
			if i > 0 {
				fmt.Fprint(p.Stdout(), " ")
			}
			fmt.Fprintf(p.Stdout(), format, c)
		}
		if name != "" {
			fmt.Fprint(p.Stdout(), " "+name)
		}
		fmt.Fprintln(p.Stdout())
	})
	return st
}

// Tee is the program tee.
func Tee(p *Proc, args []string) int {
	f, err := parse(args, "ai")
	if err != nil {
		return usage(p, "tee", err.Error())
	}
	flag := boxfs.Write | boxfs.Create | boxfs.Trunc
	if f.has('a') {
		flag = boxfs.Write | boxfs.Create | boxfs.Append
	}
	out := []io.Writer{p.Stdout()}
	st := 0
	for _, n := range f.rest {
		h, err := p.Open(n, flag)
		if err != nil {
			st = fail(p, "tee", "%s: %s", n, ash.ErrText(err))
			continue
		}
		defer h.Close()
		out = append(out, h)
	}
	if _, err := io.Copy(io.MultiWriter(out...), p.Stdin()); err != nil {
		st = fail(p, "tee", "%s", ash.ErrText(err))
	}
	return st
}

// Seq is the program seq.
func Seq(p *Proc, args []string) int {
	f, err := parse(args, "ws:")
	if err != nil || len(f.rest) == 0 || len(f.rest) > 3 {
		return usage(p, "seq", "needs one to three numbers")
	}
	from, step, to := 1, 1, 0
	switch len(f.rest) {
	case 1:
		to = atoi(f.rest[0])
	case 2:
		from, to = atoi(f.rest[0]), atoi(f.rest[1])
	default:
		from, step, to = atoi(f.rest[0]), atoi(f.rest[1]), atoi(f.rest[2])
	}
	sep := "\n"
	if f.has('s') {
		sep = f.val['s']
	}
	var all []string
	for i := from; step > 0 && i <= to || step < 0 && i >= to; i += step {
		all = append(all, strconv.Itoa(i))
	}
	if len(all) > 0 {
		io.WriteString(p.Stdout(), strings.Join(all, sep)+"\n")
	}
	return 0
}

// Yes is the program yes.
func Yes(p *Proc, args []string) int {
	text := "y"
	if len(args) > 1 {
		text = strings.Join(args[1:], " ")
	}
	for {
		if _, err := io.WriteString(p.Stdout(), text+"\n"); err != nil {
			return 1
		}
	}
}

// Xargs is the program xargs: -0 -n -r -I.
func Xargs(p *Proc, args []string) int {
	f, err := parse(args, "+0n:rI:tpx")
	if err != nil {
		return usage(p, "xargs", err.Error())
	}
	data, _ := io.ReadAll(p.Stdin())
	var items []string
	switch {
	case f.has('0'):
		for _, s := range strings.Split(string(data), "\x00") {
			if s != "" {
				items = append(items, s)
			}
		}
	case f.has('I'):
		for _, s := range strings.Split(string(data), "\n") {
			if s = strings.TrimLeft(s, " \t"); s != "" {
				items = append(items, s)
			}
		}
	default:
		items = words(string(data))
	}
	cmd := f.rest
	if len(cmd) == 0 {
		cmd = []string{"echo"}
	}
	run := func(a []string) int { return p.Run(ash.Spawn{Args: a, Stdin: strings.NewReader("")}) }
	st := 0
	note := func(n int) {
		if n == 126 || n == 127 {
			st = n
		} else if n != 0 && st == 0 {
			st = 123
		}
	}
	if f.has('I') {
		for _, it := range items {
			a := make([]string, len(cmd))
			for i, c := range cmd {
				a[i] = strings.ReplaceAll(c, f.val['I'], it)
			}
			note(run(a))
		}
		return st
	}
	if len(items) == 0 {
		if !f.has('r') {
			note(run(cmd))
		}
		return st
	}
	n := len(items)
	if f.has('n') {
		n = max(atoi(f.val['n']), 1)
	}
	for len(items) > 0 {
		k := min(n, len(items))
		note(run(append(append([]string{}, cmd...), items[:k]...)))
		items = items[k:]
	}
	return st
}

// words splits with quotes as xargs does.
func words(s string) []string {
	var out []string
	var cur strings.Builder
	have := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t', '\n':
			if have {
				out = append(out, cur.String())
				cur.Reset()
				have = false
			}
		case '\'', '"':
			have = true
			for i++; i < len(s) && s[i] != c; i++ {
				cur.WriteByte(s[i])
			}
		case '\\':
			if i++; i < len(s) {
				cur.WriteByte(s[i])
				have = true
			}
		default:
			cur.WriteByte(c)
			have = true
		}
	}
	if have {
		out = append(out, cur.String())
	}
	return out
}

// Expr is the program expr for numbers, comparisons and ":".
func Expr(p *Proc, args []string) int {
	e := &exprParser{a: args[1:]}
	v := e.or()
	if e.bad || e.i != len(e.a) {
		fmt.Fprintln(p.Stderr(), "expr: syntax error")
		return 2
	}
	fmt.Fprintln(p.Stdout(), v)
	if v == "" || v == "0" {
		return 1
	}
	return 0
}

type exprParser struct {
	a   []string
	i   int
	bad bool
}

func (e *exprParser) next(ops ...string) string {
	if e.i < len(e.a) {
		for _, o := range ops {
			if e.a[e.i] == o {
				e.i++
				return o
			}
		}
	}
	return ""
}

func (e *exprParser) or() string {
	v := e.and()
	for e.next("|") != "" {
		if r := e.and(); v == "" || v == "0" {
			v = r
		}
	}
	return v
}

func (e *exprParser) and() string {
	v := e.compare()
	for e.next("&") != "" {
		if r := e.compare(); v == "" || v == "0" || r == "" || r == "0" {
			v = "0"
		}
	}
	return v
}

func (e *exprParser) compare() string {
	v := e.sum()
	for {
		op := e.next("=", "==", "!=", "<", "<=", ">", ">=")
		if op == "" {
			return v
		}
		r := e.sum()
		a, err1 := strconv.Atoi(v)
		b, err2 := strconv.Atoi(r)
		c := strings.Compare(v, r)
		if err1 == nil && err2 == nil {
			c = a - b
		}
		ok := map[string]bool{"=": c == 0, "==": c == 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[op]
		v = strconv.Itoa(b2i(ok))
	}
}

func (e *exprParser) sum() string {
	v := e.term()
	for {
		op := e.next("+", "-")
		if op == "" {
			return v
		}
		v = e.arith(v, op, e.term())
	}
}

func (e *exprParser) term() string {
	v := e.match()
	for {
		op := e.next("*", "/", "%")
		if op == "" {
			return v
		}
		v = e.arith(v, op, e.match())
	}
}

func (e *exprParser) arith(x, op, y string) string {
	a, err1 := strconv.Atoi(x)
	b, err2 := strconv.Atoi(y)
	if err1 != nil || err2 != nil || b == 0 && (op == "/" || op == "%") {
		e.bad = true
		return ""
	}
	switch op {
	case "+":
		a += b
	case "-":
		a -= b
	case "*":
		a *= b
	case "/":
		a /= b
	default:
		a %= b
	}
	return strconv.Itoa(a)
}

func (e *exprParser) match() string {
	v := e.primary()
	for e.next(":") != "" {
		re, err := regexp.Compile("^(?:" + posix(e.primary(), false) + ")")
		if err != nil {
			e.bad = true
			return ""
		}
		m := re.FindStringSubmatch(v)
		switch {
		case len(m) > 1:
			v = m[1]
		case m != nil:
			v = strconv.Itoa(len(m[0]))
		case re.NumSubexp() > 0:
			v = ""
		default:
			v = "0"
		}
	}
	return v
}

func (e *exprParser) primary() string {
	if e.next("(") != "" {
		v := e.or()
		if e.next(")") == "" {
			e.bad = true
		}
		return v
	}
	if e.i >= len(e.a) {
		e.bad = true
		return ""
	}
	e.i++
	return e.a[e.i-1]
}

// Hexdump is the program hexdump: plain, -C, -v, -n N and -e '1/1 "%02x"'.
func Hexdump(p *Proc, args []string) int {
	f, err := parse(args, "Cvn:s:e:")
	if err != nil {
		return usage(p, "hexdump", err.Error())
	}
	out := bufio.NewWriter(p.Stdout())
	defer out.Flush()
	return inputs(p, "hexdump", f.rest, func(_ string, r io.Reader) {
		if f.has('n') {
			r = io.LimitReader(r, int64(size(f.val['n'])))
		}
		data, _ := io.ReadAll(r)
		data = data[min(size(f.val['s']), len(data)):]
		if f.has('e') {
			_, format, _ := strings.Cut(f.val['e'], `"`)
			format, _, _ = strings.Cut(format, `"`)
			text, _ := ash.Unescape(format)
			for _, b := range data {
				fmt.Fprintf(out, text, b)
			}
			return
		}
		for i := 0; i < len(data); i += 16 {
			row := data[i:min(i+16, len(data))]
			if f.has('C') {
				fmt.Fprintf(out, "%08x ", i)
				for j := 0; j < 16; j++ {
					if j == 8 {
						out.WriteByte(' ')
					}
					if j < len(row) {
						fmt.Fprintf(out, " %02x", row[j])
					} else {
						out.WriteString("   ")
					}
				}
				out.WriteString("  |")
				for _, b := range row {
					if b < 32 || b > 126 {
						b = '.'
					}
					out.WriteByte(b)
				}
				out.WriteString("|\n")
				continue
			}
			fmt.Fprintf(out, "%07x", i)
			for j := 0; j < len(row); j += 2 {
				hi := byte(0)
				if j+1 < len(row) {
					hi = row[j+1]
				}
				fmt.Fprintf(out, " %02x%02x", hi, row[j])
			}
			out.WriteByte('\n')
		}
		if len(data) > 0 {
			if f.has('C') {
				fmt.Fprintf(out, "%08x\n", len(data))
			} else {
				fmt.Fprintf(out, "%07x\n", len(data))
			}
		}
	})
}
