package eva

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// A Box is a bootloader that is held and logged in to. For one goroutine at a
// time. The box stays as it is until Reboot, a power cut or its own mind (a 3370
// restarts by itself).
type Box struct {
	net     Net
	addr    netip.Addr
	conn    net.Conn
	in      *lines
	version string
	passive string // the passive verb that this box knows
	last    []string
	env     Environment
	dialled time.Time // when the connection was begun
}

func newBox(n Net, a netip.Addr, c net.Conn) *Box {
	return &Box{net: n, addr: a, conn: c, in: &lines{conn: c}, passive: "P@SW"}
}

// Addr is where the bootloader is.
func (b *Box) Addr() netip.Addr { return b.addr }

// Version is the bootloader's: "1.3620".
func (b *Box) Version() string { return b.version }

// Close leaves the box in its bootloader, where it waits.
func (b *Box) Close() error { return b.conn.Close() }

const cmdGreeting = "the connection"

var errTI = errors.New("ADAM2 of Texas Instruments")

// login goes from the banner to "AVM EVA Version": a banner alone is no proof, a
// running FRITZ!OS has FTP, too (facts eva 0.1 point 15).
func (b *Box) login(ctx context.Context) error {
	r, err := b.reply(ctx, cmdGreeting, greetIn)
	if err != nil {
		return err
	}
	switch {
	case r.Code != 220 || !strings.HasPrefix(r.Text, "ADAM2"):
		return &StrangeError{Command: cmdGreeting, Lines: b.last}
	case strings.HasSuffix(r.Text, "."):
		return errTI
	}
	if _, err := b.ask(ctx, "USER adam2", greetIn, 331); err != nil {
		return err
	}
	if _, err := b.ask(ctx, "PASS adam2", greetIn, 230); err != nil {
		return err
	}
	if r, err = b.ask(ctx, "SYST", greetIn, 215); err != nil {
		return err
	}
	_, version, ok := strings.Cut(r.Text, "AVM EVA Version ")
	if !ok {
		return &StrangeError{Command: "SYST", Lines: b.last}
	}
	b.version, _, _ = strings.Cut(version, " ")
	return nil
}

// say writes a command. Lines that came too late for the one before are dropped
// first; they would shift every reply after them.
func (b *Box) say(ctx context.Context, cmd string) error {
	for {
		if _, late := b.in.buffered(); !late {
			break
		}
	}
	defer limit(ctx, b.conn, time.Now().Add(greetIn))()
	if _, err := b.conn.Write([]byte(cmd + "\r\n")); err != nil {
		return b.lost(ctx, cmd, 0, err)
	}
	return nil
}

// ask says a command and wants one of the codes.
func (b *Box) ask(ctx context.Context, cmd string, in time.Duration, want ...int) (Reply, error) {
	if err := b.say(ctx, cmd); err != nil {
		return Reply{}, err
	}
	return b.expect(ctx, cmd, in, want...)
}

func (b *Box) expect(ctx context.Context, cmd string, in time.Duration, want ...int) (Reply, error) {
	r, err := b.reply(ctx, cmd, in)
	if err != nil {
		return r, err
	}
	for _, code := range want {
		if r.Code == code {
			return r, nil
		}
	}
	if r.Code >= 400 {
		return r, &RefusedError{Command: cmd, Reply: r}
	}
	return r, &StrangeError{Command: cmd, Lines: b.last}
}

// reply waits for a whole reply: one line, or several of one code.
func (b *Box) reply(ctx context.Context, cmd string, in time.Duration) (Reply, error) {
	began, until := time.Now(), time.Now().Add(in)
	b.last = nil
	for {
		line, err := b.in.next(ctx, until)
		if err != nil {
			return Reply{}, b.lost(ctx, cmd, time.Since(began), err)
		}
		b.last = append(b.last, quote(line))
		r, ok := parseReply(line)
		switch {
		case !ok && len(b.last) == 1:
			return Reply{}, &StrangeError{Command: cmd, Lines: b.rest()}
		case ok && !r.More:
			return r, nil
		case len(b.last) > 100:
			return Reply{}, &StrangeError{Command: cmd, Lines: b.last[:10]}
		}
	}
}

// rest adds what is already here to the lines to quote.
func (b *Box) rest() []string {
	for len(b.last) < 10 {
		line, ok := b.in.buffered()
		if !ok {
			break
		}
		b.last = append(b.last, quote(line))
	}
	return b.last
}

func (b *Box) lost(ctx context.Context, doing string, after time.Duration, err error) error {
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrSilent
	}
	return &LostError{Doing: doing, After: after, Cause: err, Replies: b.rest()}
}

// openData opens a data connection. It stands before the command that uses it:
// EVA does not wait for it (facts eva 0.1 point 4).
func (b *Box) openData(ctx context.Context) (net.Conn, error) {
	r, err := b.ask(ctx, b.passive, greetIn, 227)
	var no *RefusedError
	if errors.As(err, &no) && b.passive == "P@SW" {
		b.passive = "PASV"
		r, err = b.ask(ctx, b.passive, greetIn, 227)
	}
	if err != nil {
		return nil, err
	}
	port, ok := parsePassive(r.Text)
	if !ok {
		return nil, &StrangeError{Command: b.passive, Lines: b.last}
	}
	ctx, stop := context.WithTimeout(ctx, greetIn)
	defer stop()
	c, err := b.net.DialTCP(ctx, netip.AddrPortFrom(b.addr, port))
	if err != nil {
		return nil, b.lost(ctx, "opening a data connection", greetIn, err)
	}
	return c, nil
}

// Environment reads what the bootloader knows: all of it, or variable by variable
// where it does not hand out the whole.
func (b *Box) Environment(ctx context.Context) (Environment, error) {
	for _, cmd := range []string{"MEDIA SDRAM", "TYPE I"} {
		if _, err := b.ask(ctx, cmd, greetIn, 200); err != nil {
			return Environment{}, err
		}
	}
	text, err := b.retrieve(ctx, "env")
	var lost *LostError
	if errors.As(err, &lost) && !errors.Is(err, ErrSilent) {
		return Environment{}, err
	}
	e := parseEnv(text)
	e.Whole = e.HWRevision() != ""
	if !e.Whole {
		if e, err = b.singly(ctx); err != nil {
			return Environment{}, err
		}
	}
	b.env = e
	return e, nil
}

// Single variables to ask for when the whole is not to be had.
var single = []string{"HWRevision", "HWSubRevision", "ProductID", "mtd0", "mtd1", "mtd2", "flashsize", "my_ipaddress", "memsize",
	"linux_fs_start", "provider", "HardwareFeatures", "urlader-version"}

func (b *Box) singly(ctx context.Context) (Environment, error) {
	var e Environment
	for _, name := range single {
		v, ok, err := b.getenv(ctx, name)
		if err != nil {
			return e, err
		}
		if ok {
			e.Variables = append(e.Variables, Variable{name, v})
		}
	}
	return e, nil
}

// getenv asks for one variable: a line without a code, an empty one, then 200
// (facts eva 1.6). In an ordinary FTP client every later reply is off by two.
func (b *Box) getenv(ctx context.Context, name string) (Value, bool, error) {
	cmd := "GETENV " + name
	if err := b.say(ctx, cmd); err != nil {
		return Value{}, false, err
	}
	began, until := time.Now(), time.Now().Add(greetIn)
	var found Environment
	b.last = nil
	for {
		line, err := b.in.next(ctx, until)
		if err != nil {
			return Value{}, false, b.lost(ctx, cmd, time.Since(began), err)
		}
		b.last = append(b.last, quote(line))
		r, ok := parseReply(line)
		switch {
		case ok && r.More:
		case ok && r.Code == 200:
			v, has := found.Get(name)
			return v, has, nil
		case ok && r.Code >= 500:
			return Value{}, false, nil
		case ok || len(b.last) > 10:
			return Value{}, false, &StrangeError{Command: cmd, Lines: b.rest()}
		default:
			found.Variables = append(found.Variables, parseEnv(line).Variables...)
		}
	}
}

// retrieve reads a file of the SDRAM media. The box says 226 and leaves the data
// connection open: silence after 226 is the end (facts eva 0.1 point 5).
func (b *Box) retrieve(ctx context.Context, name string) (string, error) {
	data, err := b.openData(ctx)
	if err != nil {
		return "", err
	}
	defer data.Close()
	cmd := "RETR " + name
	if _, err := b.ask(ctx, cmd, greetIn, 150); err != nil {
		return "", err
	}
	if _, err := b.expect(ctx, cmd, greetIn, 226); err != nil {
		return "", err
	}
	var out []byte
	chunk := make([]byte, 4<<10)
	for len(out) < 64<<10 {
		done := limit(ctx, data, time.Now().Add(settleData))
		n, err := data.Read(chunk)
		done()
		out = append(out, chunk[:n]...)
		if ctx.Err() != nil {
			return "", b.lost(ctx, cmd, 0, err)
		}
		if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return "", b.lost(ctx, cmd, 0, err)
		}
	}
	return string(out), nil
}

// GoHome makes the bootloader take 192.168.178.1 at its next starts; for a box
// that was moved elsewhere, with the household's consent.
func (b *Box) GoHome(ctx context.Context) error {
	_, err := b.ask(ctx, fmt.Sprintf("SETENV my_ipaddress %s", Home), greetIn, 200)
	return err
}

// Reboot starts what is in flash. The box says goodbye in two lines, or is gone:
// either is fine (facts eva 1.2).
func (b *Box) Reboot(ctx context.Context) error {
	defer b.conn.Close()
	r, err := b.ask(ctx, "REBOOT", greetIn, 221, 150)
	if err == nil && r.Code == 150 { // CHECK's answer, so late that nobody waits for it any more
		_, err = b.expect(ctx, "REBOOT", greetIn, 221)
	}
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}
