// Package scan reads the line syntax that UCI's configuration files, its delta
// files and `uci batch` have in common: words, quotes, comments and
// continuation lines.
//
// UCI's own reader works in place on a line buffer, and several of its habits
// can only be told apart by doing the same: a ";" that touches a bare word is
// overwritten by the end of that word (and the rest of the line is lost), while
// one that follows a quoted word separates two statements; error positions are
// positions in that buffer, where a continued line has lost its line end. So
// the Reader keeps such a buffer too. The behaviour is that of the real `uci`
// of 23.05 to 25.12 (facts: OpenWrt sections 4.1 and 4.7), checked against it on
// generated texts.
//
// The package knows words and statements. What a section or an option is, and
// what a second one of the same name means, is the business of package uci.
package scan

import "strconv"

// An Error says where a text breaks the grammar, in UCI's own count: Line is the
// number of line ends read so far (a last line without one does not count, so
// line 0 exists), Byte the position in the statement's buffer, from the first
// physical line of the statement on.
type Error struct {
	Line, Byte int
	Msg        string // UCI's own words: "too many arguments"
}

func (e *Error) Error() string {
	return e.Msg + " at line " + strconv.Itoa(e.Line) + ", byte " + strconv.Itoa(e.Byte)
}

// A Reader goes through a text line by line and, within a line, word by word.
type Reader struct {
	src  string
	off  int    // of the first byte of src that is not in buf yet
	buf  []byte // the statement's buffer; a zero byte ends a word
	pos  int    // where reading goes on in buf
	line int

	semicolon bool // the line had an unquoted ";"
	dangling  bool // a backslash was the last byte of the text
	words     map[string]string
}

// New starts reading text.
func New(text string) *Reader {
	return &Reader{src: text, words: make(map[string]string)}
}

// NextLine fetches the next physical line; false at the end of the text.
func (r *Reader) NextLine() bool {
	r.pos, r.semicolon = 0, false
	if r.off >= len(r.src) {
		r.buf = r.buf[:0]
		return false
	}
	r.getln(0)
	return true
}

// Offset is the position in the text after the last line read, which is where
// the next statement's line begins.
func (r *Reader) Offset() int { return r.off }

// Semicolon reports whether the current line had an unquoted ";".
func (r *Reader) Semicolon() bool { return r.semicolon }

// Dangling reports whether the text ends with a backslash that waits for a line
// to continue: text that is appended would be swallowed by it.
func (r *Reader) Dangling() bool { return r.dangling }

// Fail makes an error at the current position.
func (r *Reader) Fail(msg string) *Error { return &Error{r.line, r.pos, msg} }

// Line is the number of line ends read so far.
func (r *Reader) Line() int { return r.line }

// ResetLine starts the count of lines anew.
func (r *Reader) ResetLine() { r.line = 0 }

// getln puts the next physical line into the buffer from offset on, over what
// was there. At the end of the text the buffer just ends at offset.
func (r *Reader) getln(offset int) {
	r.buf = r.buf[:offset]
	if r.off >= len(r.src) {
		return
	}
	end := len(r.src)
	for i := r.off; i < len(r.src); i++ {
		if r.src[i] == '\n' {
			end = i + 1
			r.line++
			break
		}
	}
	r.buf = append(r.buf, r.src[r.off:end]...)
	r.off = end
}

// at is the byte at i, 0 behind the end.
func (r *Reader) at(i int) byte {
	if i < len(r.buf) {
		return r.buf[i]
	}
	return 0
}

func (r *Reader) cur() byte { return r.at(r.pos) }

// terminate ends a word at i.
func (r *Reader) terminate(i int) {
	if i < len(r.buf) {
		r.buf[i] = 0
	}
}

// Space is C's isspace.
func Space(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func (r *Reader) skipSpace() {
	for r.pos < len(r.buf) && Space(r.buf[r.pos]) {
		r.pos++
	}
}

// backslash steps over a backslash. It reports whether the byte behind it is to
// be taken literally; if not, it was a line end and the next line has taken its
// place.
func (r *Reader) backslash() bool {
	r.pos++
	c := r.cur()
	if c == 0 || c == '\n' || c == '\r' && r.at(r.pos+1) == '\n' && r.at(r.pos+2) == 0 {
		if r.off >= len(r.src) {
			r.dangling = true
		}
		r.getln(r.pos)
		return false
	}
	return true
}

func (r *Reader) copyTo(target *int) {
	r.buf[*target] = r.buf[r.pos]
	*target++
	r.pos++
}

// quoted reads up to the closing quote, over line ends. A backslash counts
// only between double quotes, where it makes the next byte literal.
func (r *Reader) quoted(quote byte, target *int) *Error {
	r.pos++
	for {
		switch c := r.cur(); {
		case c == quote:
			r.pos++
			return nil
		case c == 0:
			r.getln(r.pos)
			if r.cur() == 0 {
				return r.Fail("EOF with unterminated " + string(quote))
			}
		case c == '\\' && quote == '"':
			if !r.backslash() {
				continue
			}
			if r.cur() != 0 {
				r.copyTo(target)
			}
		default:
			r.copyTo(target)
		}
	}
}

// word reads one word: bare, quoted, or several of both without a blank
// between them. target is where its bytes go.
func (r *Reader) word(target int) *Error {
	next := true // step over the byte that ended the word
loop:
	for {
		switch c := r.cur(); c {
		case '\'', '"':
			if err := r.quoted(c, &target); err != nil {
				return err
			}
		case '#':
			r.terminate(r.pos)
			break loop
		case 0:
			break loop
		case ';':
			r.semicolon = true
			next = false
			break loop
		case '\\':
			if r.backslash() {
				r.copyTo(&target)
			}
		default:
			r.copyTo(&target)
		}
		if c := r.cur(); c == 0 || Space(c) {
			break
		}
	}
	if r.cur() != 0 && next {
		r.pos++
	}
	r.terminate(target)
	return nil
}

// Arg reads the next word; "" when there is none (or an empty one) or when a ";"
// stands in its place.
func (r *Reader) Arg() (string, *Error) {
	from, err := r.arg(false)
	if err != nil {
		return "", err
	}
	return r.text(from), nil
}

func (r *Reader) arg(required bool) (from int, err *Error) {
	r.skipSpace()
	from = r.pos
	if r.cur() == ';' {
		r.semicolon = true
		r.terminate(r.pos)
		r.pos++
	} else if err := r.word(from); err != nil {
		return 0, err
	}
	if required && r.at(from) == 0 {
		return 0, r.Fail("insufficient arguments")
	}
	return from, nil
}

func (r *Reader) bytes(from int) []byte {
	end := from
	for end < len(r.buf) && r.buf[end] != 0 {
		end++
	}
	return r.buf[from:end]
}

func (r *Reader) text(from int) string { return string(r.bytes(from)) }

// shared is text for words that come again and again (types, option names).
func (r *Reader) shared(from int) string {
	b := r.bytes(from)
	if s, ok := r.words[string(b)]; ok {
		return s
	}
	s := string(b)
	r.words[s] = s
	return s
}

// Rest reports whether anything is left in the buffer.
func (r *Reader) Rest() bool { return r.cur() != 0 }

// Kind is what a statement says.
type Kind int

// The kinds of statement. None is a line without one.
const (
	None Kind = iota
	Package
	Config
	Option
	List
)

// A Statement is one command of a configuration file.
type Statement struct {
	Kind  Kind
	Type  string // of a section
	Name  string // of a package, section ("" = anonymous) or option
	Value string // of an option or list item
}

// Context says what a statement may refer to.
type Context struct {
	Strict  bool // refuse surplus words, as the uci program does; netifd does not
	Package bool // a package is open or named from outside
	Section bool // a section is open
}

// Statement reads the next statement of the current line; Kind None at its end.
// After an error the rest of the line is to be given up.
func (r *Reader) Statement(in Context) (Statement, *Error) {
	if r.pos == 0 {
		r.skipSpace()
	}
	from := r.pos
	for r.at(from) == ' ' || r.at(from) == '\t' {
		from++
	}
	end := from
	for r.at(end) != 0 && r.at(end) != ' ' && r.at(end) != '\t' {
		end++
	}
	if end == from || r.buf[from] == '#' {
		return Statement{}, nil
	}
	var kind Kind
	switch string(r.buf[from:end]) {
	case "p", "package":
		kind = Package
	case "c", "config":
		kind = Config
	case "o", "option":
		kind = Option
	case "l", "list":
		kind = List
	default:
		return Statement{}, r.Fail("invalid command")
	}
	switch {
	case kind == Config && !in.Package:
		return Statement{}, r.Fail("attempting to import a file without a package name")
	case kind >= Option && !in.Section:
		return Statement{}, r.Fail("option/list command found before the first section")
	case end >= len(r.buf): // the text ends with the keyword
		return Statement{}, r.Fail([...]string{Package: "package", Config: "config", Option: "option", List: "option"}[kind] + " without name")
	}
	r.pos = end + 1
	return r.arguments(kind, in.Strict)
}

func (r *Reader) arguments(kind Kind, strict bool) (st Statement, err *Error) {
	st.Kind = kind
	first, err := r.arg(true)
	if err != nil {
		return st, err
	}
	second := -1
	switch kind {
	case Package:
		if !ValidPackage(r.bytes(first)) {
			return st, r.Fail("invalid character in name field")
		}
	case Config:
		if !ValidType(r.bytes(first)) {
			return st, r.Fail("invalid character in type field")
		}
		if second, err = r.arg(false); err != nil {
			return st, err
		}
		if b := r.bytes(second); len(b) > 0 && !ValidName(b) {
			return st, r.Fail("invalid character in name field")
		}
	default:
		if !ValidName(r.bytes(first)) {
			return st, r.Fail("invalid character in name field")
		}
		if second, err = r.arg(false); err != nil {
			return st, err
		}
	}
	surplus, err := r.arg(false)
	if err != nil {
		return st, err
	}
	if strict && r.at(surplus) != 0 {
		return st, r.Fail("too many arguments")
	}
	switch kind {
	case Package:
		st.Name = r.text(first)
	case Config:
		st.Type, st.Name = r.shared(first), r.text(second)
	default:
		st.Name, st.Value = r.shared(first), r.text(second)
	}
	return st, nil
}

// ValidName reports whether b can name a section or an option: letters, digits
// and "_".
func ValidName[T string | []byte](b T) bool {
	for i := 0; i < len(b); i++ {
		if !letter(b[i]) {
			return false
		}
	}
	return len(b) > 0
}

// ValidType reports whether UCI takes b as a section's type: any printable
// ASCII. Some of these it cannot write back; package uci is stricter.
func ValidType[T string | []byte](b T) bool {
	for i := 0; i < len(b); i++ {
		if b[i] < 33 || b[i] > 126 {
			return false
		}
	}
	return len(b) > 0
}

// ValidPackage reports whether b may stand in a `package` line: as a name, and
// "-". (The command line takes any printable ASCII without a dot for a package.)
func ValidPackage[T string | []byte](b T) bool {
	for i := 0; i < len(b); i++ {
		if !letter(b[i]) && b[i] != '-' {
			return false
		}
	}
	return len(b) > 0
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}
