package evabox

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

func (b *Box) acceptFTP(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		refuse := b.resets > 0 || b.sessions > 0 && b.opt.Faults.Second == ""
		b.resets = max(0, b.resets-1)
		if !refuse {
			b.sessions++
			b.conns[c] = true
			select {
			case <-b.held:
			default:
				close(b.held) // the countdown stops with the connection, not with a login
			}
		}
		b.mu.Unlock()
		if refuse {
			resetConn(c)
			continue
		}
		b.spawn(func() {
			s := &session{box: b, ctx: ctx, c: c, r: bufio.NewReader(c)}
			s.serve()
			c.Close()
			b.mu.Lock()
			b.sessions--
			delete(b.conns, c)
			b.mu.Unlock()
		})
	}
}

func resetConn(c net.Conn) {
	switch c := c.(type) {
	case mortal:
		c.Reset()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		c.Close()
	}
}

// A session is one control connection.
type session struct {
	box    *Box
	ctx    context.Context
	c      net.Conn
	r      *bufio.Reader
	user   bool
	logged bool
	ascii  bool
	flash  bool // MEDIA FLSH
	data   *dataPort
}

// A dataPort is a passive listener and the connection that arrived there.
type dataPort struct {
	l    net.Listener
	got  chan net.Conn
	conn net.Conn
}

var errEnd = errors.New("the session is over")

func (s *session) serve() {
	defer s.closeData()
	if waitFor(s.ctx, nil, s.box.opt.Faults.BannerDelay) != nil {
		return
	}
	s.say("banner", s.words("220 ADAM2 FTP Server ready"))
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.box.note("> " + line)
		if s.do(line) != nil {
			return
		}
	}
}

// words puts TI's final dot, by which its ADAM2 is told from AVM's.
func (s *session) words(reply string) string {
	if s.box.opt.Kind == TI {
		return reply + "."
	}
	return reply
}

// say sends a reply, or what the faults put in its place.
func (s *session) say(key, reply string) {
	if other, ok := s.box.opt.Faults.Replies[key]; ok {
		reply = other
	}
	if reply == "-" {
		return
	}
	if s.box.opt.Faults.TwoLines && len(reply) > 4 && reply[3] == ' ' {
		s.send(reply[:3] + "-" + reply[4:])
	}
	s.send(strings.Split(reply, "\n")...)
}

func (s *session) send(lines ...string) {
	for _, l := range lines {
		s.box.note("< " + l)
	}
	text := []byte(strings.Join(lines, "\r\n") + "\r\n")
	if s.box.opt.Faults.Segments == "bytes" {
		for i := range text {
			if _, err := s.c.Write(text[i : i+1]); err != nil {
				return
			}
		}
		return
	}
	_, _ = s.c.Write(text) // a computer that is gone is noticed at the next read
}

// do carries out one command (facts eva 1.2).
func (s *session) do(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch {
	case verb == "QUIT", verb == "BYE":
		s.say(verb, goodbye)
		return errEnd
	case verb == "USER":
		s.user = arg == "adam2"
		s.say(verb, s.words("331 Password required for "+arg))
	case verb == "PASS":
		s.logged = s.user && arg == "adam2"
		if !s.logged {
			s.say(verb, "530 Login incorrect")
			return nil
		}
		s.say(verb, s.words("230 User adam2 successfully logged in"))
	case !s.logged:
		s.say(verb, "530 not logged in")
	default:
		return s.loggedIn(verb, arg)
	}
	return nil
}

// Two final lines, in one segment (facts eva 1.2).
const goodbye = "221 Thank you for using the FTP service on ADAM2\n221 Goodbye."

func (s *session) loggedIn(verb, arg string) error {
	b := s.box
	switch verb {
	case "SYST":
		if b.opt.Kind == TI {
			s.say(verb, "502 Command not implemented.")
			return nil
		}
		s.say(verb, "215 AVM EVA Version "+b.model.Version)
	case "TYPE":
		s.ascii = arg != "I"
		s.say(verb, s.words(map[bool]string{false: "200 Type set to BINARY", true: "200 Type set to ASCII"}[s.ascii]))
	case "MEDIA":
		s.media(arg)
	case "PASV", "P@SW":
		if only := b.opt.Faults.Passive; only != "" && only != verb {
			s.say("", "502 Command not implemented")
			return nil
		}
		s.passive(verb)
	case "GETENV":
		s.getenv(arg)
	case "SETENV", "UNSETENV":
		s.setenv(verb, arg)
	case "RETR":
		return s.retr(arg)
	case "STOR":
		return s.stor(arg)
	case "CHECK":
		s.check(arg)
	case "REBOOT":
		s.say(verb, goodbye)
		b.note("reboot")
		select {
		case b.reboot <- false:
		default:
		}
		return errEnd
	default:
		s.say(verb, "502 Command not implemented")
	}
	return nil
}

func (s *session) media(arg string) {
	switch arg {
	case "FLSH":
		s.flash = true
		s.say("MEDIA", "200 Media set to MEDIA_FLASH")
	case "SDRAM":
		s.flash = false
		s.say("MEDIA", "200 Media set to MEDIA_SDRAM")
	default:
		s.say("MEDIA", "551 unknown Mediatype")
	}
}

func (s *session) closeData() {
	if s.data == nil {
		return
	}
	s.data.l.Close()
	for {
		select {
		case c := <-s.data.got:
			c.Close()
			continue
		default:
		}
		break
	}
	if s.data.conn != nil {
		s.data.conn.Close()
	}
	s.data = nil
}

// passive opens a data port: older EVA count up from 3072 (facts eva 1.1).
func (s *session) passive(verb string) {
	s.closeData()
	b := s.box
	b.mu.Lock()
	port, addr := 3072+b.pasv, b.addr
	b.pasv++
	b.mu.Unlock()
	l, err := b.net.Listen(port)
	if err != nil {
		s.say(verb, "425 can'nt open data connection")
		return
	}
	if a, err := netip.ParseAddrPort(l.Addr().String()); err == nil {
		port = a.Port() // a loopback box takes what the system gives
	}
	d := &dataPort{l: l, got: make(chan net.Conn, 1)}
	s.data = d
	b.spawn(func() {
		if c, err := l.Accept(); err == nil {
			b.mu.Lock()
			b.conns[c] = true
			b.mu.Unlock()
			d.got <- c
		}
	})
	if b.opt.Faults.WrongAddress || !addr.Is4() {
		addr = netip.MustParseAddr("10.99.99.99")
	}
	six := strings.ReplaceAll(addr.String(), ".", ",") + fmt.Sprintf(",%d,%d", port>>8, port&255)
	form := "Entering Passive Mode (%s)"
	if b.opt.Faults.Form227 != "" {
		form = b.opt.Faults.Form227
	}
	s.say(verb, "227 "+fmt.Sprintf(form, six))
}

// open returns the data connection; EVA wants it there already when the command
// comes (facts eva 0.1 point 4).
func (s *session) open() net.Conn {
	if s.data == nil {
		return nil
	}
	if s.data.conn != nil {
		return s.data.conn
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case s.data.conn = <-s.data.got:
	case <-t.C:
	case <-s.ctx.Done():
	}
	return s.data.conn
}

// getenv answers without a code, then a blank line, then 200 (facts eva 1.6).
func (s *session) getenv(name string) {
	b := s.box
	b.mu.Lock()
	value := b.get(name)
	b.mu.Unlock()
	if value == "" || b.opt.Faults.NoGetenv {
		s.say("GETENV", "501 environment variable not set")
		return
	}
	s.say("GETENV", fmt.Sprintf("%-20s  %s\n\n200 GETENV command successful", name, value))
}

func (s *session) setenv(verb, arg string) {
	b := s.box
	name, value, _ := strings.Cut(arg, " ")
	b.mu.Lock()
	ok := true
	if name == "kernel_args_tmp" {
		b.tmp[name] = value // gone with the next start
	} else {
		ok = b.set(name, value, verb == "UNSETENV")
	}
	b.mu.Unlock()
	if !ok {
		s.say(verb, "501 environment variable not set")
		return
	}
	s.say(verb, "200 "+verb+" command successful")
}

// retr sends a file of the SDRAM media and leaves the data connection open: the
// computer has to close it (facts eva 0.1 point 5).
func (s *session) retr(name string) error {
	b := s.box
	if name != "env" && name != "count" || b.opt.Faults.NoEnv {
		s.say("RETR", "501 unknown variable "+name)
		return nil
	}
	if s.flash {
		s.say("RETR", "553 RETR failed.")
		return nil
	}
	c := s.open()
	if c == nil {
		s.say("RETR", "425 can'nt open data connection")
		return nil
	}
	text := "reboot_major  3\r\nrun_hours  7\r\nrun_days  12\r\nrun_mounths  4\r\nrun_years  6\r\n"
	if name == "env" {
		text = ""
		b.mu.Lock()
		for _, v := range b.env {
			text += strings.TrimRight(fmt.Sprintf("%-20s  %s", v.name, v.value), " ") + "\r\n"
		}
		b.mu.Unlock()
	}
	s.say("RETR", "150 Opening BINARY data connection")
	if _, err := io.WriteString(c, text); err != nil {
		s.say("sent", "426 Data connection closed")
		return nil
	}
	s.say("sent", "226 Transfer complete")
	return nil
}

// stor takes a file into flash or into memory.
func (s *session) stor(arg string) error {
	b := s.box
	b.mu.Lock()
	b.stores = append(b.stores, arg)
	p := b.parts[arg]
	b.mu.Unlock()
	c := s.open()
	if c == nil {
		s.say("STOR", "425 can'nt open data connection")
		return nil
	}
	if _, other := b.opt.Faults.Replies["STOR"]; other {
		s.say("STOR", "")
		return nil
	}
	switch {
	case !s.flash:
		return s.storRAM(c, arg)
	case p == nil:
		s.say("STOR", "501 unknown variable "+arg)
		return nil
	}
	if err := s.erase(c, arg, p); err != nil {
		return err
	}
	s.say("stored150", "150 Opening BINARY data connection")
	return s.program(c, p)
}

// erase is the long silence before 150 (facts eva 0.1 point 3).
func (s *session) erase(c net.Conn, name string, p *partition) error {
	b := s.box
	b.note("erase " + name)
	f := b.opt.Faults
	half := b.opt.Times.Erase / 2
	if waitFor(s.ctx, nil, half) != nil {
		return errEnd
	}
	b.mu.Lock()
	p.data, p.stock = nil, false
	b.mu.Unlock()
	switch {
	case f.PowerCutErase:
		b.cutPower()
		return errEnd
	case f.ResetErase:
		resetConn(c)
		resetConn(s.c)
		return errEnd
	case f.NeverErased:
		<-s.ctx.Done()
		return errEnd
	}
	if waitFor(s.ctx, nil, half) != nil {
		return errEnd
	}
	return nil
}

// program writes what comes at the flash's own speed.
func (s *session) program(c net.Conn, p *partition) error {
	b, f := s.box, s.box.opt.Faults
	buf := make([]byte, 16<<10)
	for {
		room := int64(len(buf))
		for _, at := range []int64{f.ResetAt, f.PowerCutAt} {
			if at > 0 {
				room = min(room, at-int64(len(p.data)))
			}
		}
		n, err := c.Read(buf[:room])
		b.mu.Lock()
		p.data = append(p.data, buf[:n]...)
		have := int64(len(p.data))
		b.mu.Unlock()
		switch {
		case f.PowerCutAt > 0 && have >= f.PowerCutAt:
			b.cutPower()
			return errEnd
		case f.ResetAt > 0 && have >= f.ResetAt:
			resetConn(c)
			resetConn(s.c)
			return errEnd
		case have > p.size:
			b.mu.Lock()
			p.data = p.data[:p.size]
			b.mu.Unlock()
			resetConn(c)
			s.say("stored", "501 store failed")
			return nil
		case err == io.EOF:
			return s.programmed(have)
		case err != nil:
			s.say("stored", "426 Data connection closed")
			return nil
		}
		if waitFor(s.ctx, nil, time.Duration(n)*time.Second/time.Duration(b.opt.Times.Rate)) != nil {
			return errEnd
		}
	}
}

func (s *session) programmed(n int64) error {
	s.box.note(fmt.Sprintf("programmed %d bytes", n))
	if waitFor(s.ctx, nil, s.box.opt.Times.Late) != nil {
		return errEnd
	}
	s.closeData()
	s.say("stored", "226 Transfer complete")
	return nil
}

// storRAM takes a program into memory and starts it (facts eva 1.7).
func (s *session) storRAM(c net.Conn, arg string) error {
	b := s.box
	from, to, _ := strings.Cut(arg, " ")
	start, err1 := strconv.ParseUint(from, 0, 32)
	end, err2 := strconv.ParseUint(to, 0, 32)
	if err1 != nil || err2 != nil || end <= start {
		s.say("STOR", "501 Syntax error: Invalid number of parameters")
		return nil
	}
	s.say("STOR", "150 Opening BINARY data connection")
	data, err := io.ReadAll(io.LimitReader(c, int64(end-start)+1))
	if err != nil || int64(len(data)) > int64(end-start) {
		s.say("executed", "426 Data connection closed")
		return nil
	}
	b.note(fmt.Sprintf("loaded %d bytes at 0x%08x, memsize %s, %s", len(data), start, b.get("memsize"), b.tmp["kernel_args_tmp"]))
	starts := bootsFromRAM(data) != RedLight
	switch {
	case b.opt.Faults.RAM == "553" || !starts:
		s.say("executed", "553 Execution failed.")
	case b.opt.Faults.RAM == "":
		s.say("executed", "226 Transfer complete")
	}
	if starts {
		b.mu.Lock()
		b.ram = data
		b.mu.Unlock()
		select {
		case b.reboot <- true:
		default:
		}
		if b.opt.Faults.RAM == "silent" { // the box is gone without closing anything
			<-s.ctx.Done()
		}
		return errEnd
	}
	return nil
}

// check answers with one preliminary line and nothing more (facts eva 1.5).
func (s *session) check(name string) {
	b := s.box
	b.mu.Lock()
	p := b.parts[name]
	b.mu.Unlock()
	if p == nil {
		s.say("CHECK", "501 unknown variable "+name)
		return
	}
	if waitFor(s.ctx, nil, b.opt.Times.Check) != nil || b.opt.Faults.Check == "silent" {
		return
	}
	b.mu.Lock()
	sum := p.check()
	b.mu.Unlock()
	text := fmt.Sprintf("%08X", sum)
	switch b.opt.Faults.Check {
	case "wrong":
		text = fmt.Sprintf("%08X", sum^0xffff)
	case "lower":
		text = strings.ToLower(text)
	case "short":
		text = "2A"
	}
	s.say("CHECK", "150 Flash check 0x"+text)
}

// serveUDP answers on port 5035 (facts eva 2.2): to port 5035 of whoever asks,
// not to the port it asked from.
func (b *Box) serveUDP(ctx context.Context) {
	if b.opt.Faults.UDP == "off" || b.opt.Kind == TI {
		return
	}
	pc, err := b.net.ListenUDP(ctx, 5035)
	if err != nil {
		b.note("bug: " + err.Error())
		return
	}
	context.AfterFunc(ctx, func() { pc.Close() })
	b.spawn(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			to, ok := from.(*net.UDPAddr)
			if !ok {
				continue
			}
			answer := b.answerUDP(buf[:n])
			if answer == nil || b.opt.Faults.UDP == "slow" && waitFor(ctx, nil, b.opt.Faults.UDPDelay) != nil {
				continue
			}
			_, _ = pc.WriteTo(answer, &net.UDPAddr{IP: to.IP, Port: 5035, Zone: to.Zone})
		}
	})
}

func (b *Box) answerUDP(q []byte) []byte {
	if b.opt.Kind == Slint {
		if string(q) == "AVMfritz" {
			return []byte("fritzAVM")
		}
		return nil
	}
	if len(q) != 16 || hex.EncodeToString(q[:8]) != "0000120101000000" {
		return nil
	}
	want := netip.AddrFrom4([4]byte(q[8:12]))
	b.mu.Lock()
	now := b.addr
	b.mu.Unlock()
	if want != netip.IPv4Unspecified() && want != now && b.opt.Faults.UDP != "report" {
		b.moveTo(want)
		now = want
		b.note("takes the address " + want.String())
	}
	a := now.As4()
	return []byte{0, 0, 18, 1, 2, 0, 0, 0, a[3], a[2], a[1], a[0], 0, 0, 0, 0}
}
