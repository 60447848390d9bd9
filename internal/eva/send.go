package eva

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// A Stage is a part of Send.
type Stage string

// The stages, in order.
const (
	Erasing   Stage = "erasing"  // the box is silent; nothing to count
	Sending   Stage = "sending"  // bytes count
	Storing   Stage = "storing"  // all bytes are there, the box writes the last
	Checking  Stage = "checking" // the box reads back
	Launching Stage = "starting" // RAM boot only
)

// Progress is how far Send is.
type Progress struct {
	Stage       Stage
	Role        Role
	Done, Total int64 // bytes, for Sending
	Elapsed     time.Duration
	Usual       time.Duration // how long the stage takes at most on a usual box; 0: not known
	Limit       time.Duration // after which we give up
}

// Rate is bytes a second so far.
func (p Progress) Rate() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Done) / p.Elapsed.Seconds()
}

// Left is how long the rest of Sending takes at this rate; 0: not known.
func (p Progress) Left() time.Duration {
	if p.Rate() == 0 || p.Total <= p.Done {
		return 0
	}
	return time.Duration(float64(p.Total-p.Done) / p.Rate() * float64(time.Second))
}

// A Verdict is what reading back showed.
type Verdict string

// The verdicts.
const (
	Same     Verdict = "same"      // read back and identical
	Differs  Verdict = "differs"   // a warning: the number's meaning is not fully settled (facts eva 1.5)
	Nothing  Verdict = "nothing"   // the partition is empty: nothing was written
	NotKnown Verdict = "not known" // the box did not say
)

// A Check compares what the box read back with what was sent.
type Check struct {
	Partition string
	Verdict   Verdict
	Want, Got uint32
	Why       error // for NotKnown
}

// An Outcome is what Send achieved.
type Outcome struct {
	Checks []Check // one for each partition written
	Sent   int64
	// Launch is the last word after a RAM boot: "226 …", "553 …", or "" for
	// silence. None of the three says whether it started; only the next stage does
	// (facts eva 1.7).
	Launch string
}

// Send does what the plan says with the files, one reader for each of the plan's
// roles. The files are read whole before the box is touched. It sends nothing to
// a box whose HWRevision is not the plan's. tell may be nil. It does not reboot.
//
// Errors: *WrongBoardError, *BoxError and *FileError before anything was written,
// *RefusedError, *LostError and *StrangeError during it. After an error with
// Erased the old firmware is gone; the bootloader is not, and the next power-on
// starts over.
func (b *Box) Send(ctx context.Context, p Plan, tell func(Progress), files ...io.Reader) (Outcome, error) {
	if tell == nil {
		tell = func(Progress) {}
	}
	if err := b.fits(p); err != nil {
		return Outcome{}, err
	}
	images, err := p.load(files)
	if err != nil {
		return Outcome{}, err
	}
	for _, s := range p.set {
		if _, err := b.ask(ctx, "SETENV "+s.name+" "+s.value, greetIn, 200); err != nil {
			return Outcome{}, err
		}
	}
	if p.ram != nil {
		return b.launch(ctx, *p.ram, p.put[0].file.Role, images[0], tell)
	}
	var out Outcome
	for i, x := range p.put {
		if err := b.write(ctx, x, images[i], tell); err != nil {
			return out, erased(err, i > 0)
		}
		out.Sent += int64(len(images[i]))
		tell(Progress{Stage: Checking, Role: x.file.Role, Limit: checkIn})
		out.Checks = append(out.Checks, b.check(ctx, x, images[i]))
	}
	return out, nil
}

// erased marks an error after something was already replaced.
func erased(err error, yes bool) error {
	if at := erasedIn(err); at != nil && yes {
		*at = true
	}
	return err
}

// fits makes sure that this box is the plan's: by what this connection read.
func (b *Box) fits(p Plan) error {
	if hw := b.env.HWRevision(); len(p.put) == 0 || hw == "" || hw != p.hw {
		return &WrongBoardError{Planned: p.hw, Found: hw}
	}
	for _, x := range p.put {
		if p.ram != nil {
			continue
		}
		if now, ok := b.env.Partition(x.part); x.part != "mtd0" && x.part != "mtd1" || !ok || now != x.span {
			return &BoxError{x.part, b.env.text(x.part), x.span.String()}
		}
	}
	return nil
}

// load reads the files whole, so that a broken stick is found before the flash
// is erased.
func (p Plan) load(files []io.Reader) ([][]byte, error) {
	var out [][]byte
	for i, x := range p.put {
		f := x.file
		if i >= len(files) || files[i] == nil {
			return nil, &FileError{Role: f.Role, Why: "is missing"}
		}
		buf := bytes.NewBuffer(make([]byte, 0, f.Size+bytes.MinRead))
		_, err := buf.ReadFrom(io.LimitReader(files[i], f.Size+1))
		data := buf.Bytes()
		switch {
		case err != nil:
			return nil, &FileError{Role: f.Role, Why: "cannot be read", Cause: err}
		case int64(len(data)) != f.Size:
			return nil, &FileError{Role: f.Role, Why: fmt.Sprintf("is not the file that was checked: %d bytes were planned", f.Size)}
		case f.SHA256 != [32]byte{} && sha256.Sum256(data) != f.SHA256:
			return nil, &FileError{Role: f.Role, Why: "is not the file that was checked: another digest"}
		}
		out = append(out, data)
	}
	return out, nil
}

// write replaces a partition (facts eva 1.4, 1.10).
func (b *Box) write(ctx context.Context, x put, image []byte, tell func(Progress)) error {
	for _, cmd := range []string{"TYPE I", "MEDIA FLSH"} {
		if _, err := b.ask(ctx, cmd, greetIn, 200); err != nil {
			return err
		}
	}
	data, err := b.openData(ctx)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := b.erase(ctx, x, tell); err != nil {
		return err
	}
	if err := b.pour(ctx, data, x.file.Role, image, tell); err != nil {
		return erased(err, true)
	}
	data.Close()
	tell(Progress{Stage: Storing, Role: x.file.Role, Done: x.file.Size, Total: x.file.Size, Limit: storedIn})
	_, err = b.expect(ctx, "STOR "+x.part, storedIn, 226)
	return erased(err, true)
}

// beforeErase are refusals of the command as such (facts eva 1.2): no data
// connection, no such partition, no such command, not logged in.
var beforeErase = []int{425, 501, 502, 505, 530}

// erase gives the order and waits through the silence, saying so now and then.
func (b *Box) erase(ctx context.Context, x put, tell func(Progress)) error {
	cmd := "STOR " + x.part
	if err := b.say(ctx, cmd); err != nil {
		return err
	}
	began := time.Now()
	for {
		gone := time.Since(began)
		tell(Progress{Stage: Erasing, Role: x.file.Role, Elapsed: gone, Usual: eraseUsual, Limit: eraseIn})
		_, err := b.expect(ctx, cmd, min(eraseTell, eraseIn-gone), 150)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrSilent) {
			var no *RefusedError // "553 Flash erase failed." may have erased a part
			return erased(err, !errors.As(err, &no) || !slices.Contains(beforeErase, no.Reply.Code))
		}
		if gone = time.Since(began); gone >= eraseIn {
			return &LostError{Doing: string(Erasing), After: gone, Erased: true, Cause: ErrSilent}
		}
	}
}

// chunk is how much is given to the connection at once; the box paces us.
const chunk = 16 << 10

// pour sends the bytes. The deadline is for progress, not for the whole.
func (b *Box) pour(ctx context.Context, data net.Conn, role Role, image []byte, tell func(Progress)) error {
	began, total := time.Now(), int64(len(image))
	for sent := int64(0); sent < total; {
		tell(Progress{Stage: Sending, Role: role, Done: sent, Total: total, Elapsed: time.Since(began), Limit: dataIn})
		part := image[sent:min(sent+chunk, total)]
		done := limit(ctx, data, time.Now().Add(dataIn))
		n, err := data.Write(part)
		done()
		sent += int64(n)
		if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && n > 0 && ctx.Err() == nil) {
			return b.pourError(ctx, time.Since(began), sent, err)
		}
	}
	tell(Progress{Stage: Sending, Role: role, Done: total, Total: total, Elapsed: time.Since(began), Limit: dataIn})
	return nil
}

// pourError asks the control connection why the data connection failed.
func (b *Box) pourError(ctx context.Context, after time.Duration, sent int64, cause error) error {
	if ctx.Err() == nil && !errors.Is(cause, os.ErrDeadlineExceeded) {
		if r, err := b.reply(ctx, string(Sending), greetIn); err == nil && r.Code >= 400 {
			return &RefusedError{Command: string(Sending), Reply: r}
		}
	}
	var lost *LostError
	err := b.lost(ctx, string(Sending), after, cause)
	if errors.As(err, &lost) {
		lost.Sent = sent
	}
	return err
}

// check asks the box what it reads back. Its answer is one preliminary line and
// nothing more, on which ordinary FTP programs wait for ever (facts eva 1.5).
func (b *Box) check(ctx context.Context, x put, image []byte) Check {
	c := Check{Partition: x.part, Verdict: NotKnown, Want: predict(image, x.span.Size())}
	r, err := b.ask(ctx, "CHECK "+x.part, checkIn, 150)
	if err != nil {
		c.Why = err
		return c
	}
	got, ok := parseCheck(r.Text)
	switch c.Got = got; {
	case !ok:
		c.Why = &StrangeError{Command: "CHECK " + x.part, Lines: b.last}
	case got == c.Want:
		c.Verdict = Same
	case got == predict(nil, x.span.Size()):
		c.Verdict = Nothing
	default:
		c.Verdict = Differs
	}
	return c
}

// predict is the number that CHECK will print: CRC-32 over the image and 0xFF up
// to the end of the partition (facts eva 0.1 point 2).
func predict(image []byte, size int64) uint32 {
	sum := crc32.ChecksumIEEE(image)
	fill := bytes.Repeat([]byte{0xff}, 64<<10)
	for left := size - int64(len(image)); left > 0; left -= int64(len(fill)) {
		sum = crc32.Update(sum, crc32.IEEETable, fill[:min(left, int64(len(fill)))])
	}
	return sum
}

// launch starts an image in memory (facts eva 1.7). Nothing is written to flash.
func (b *Box) launch(ctx context.Context, at RAM, role Role, image []byte, tell func(Progress)) (out Outcome, err error) {
	before := b.env.text("memsize")
	defer func() {
		if err != nil {
			b.unlaunch(before)
		}
	}()
	stor := fmt.Sprintf("STOR 0x%08x 0x%08x", at.Start, at.End)
	for _, cmd := range []string{fmt.Sprintf("SETENV memsize 0x%08x", at.MemSize),
		fmt.Sprintf("SETENV kernel_args_tmp mtdram1=0x%08x,0x%08x", at.Start, at.End), "MEDIA SDRAM", "TYPE I"} {
		if _, err := b.ask(ctx, cmd, greetIn, 200); err != nil {
			return out, err
		}
	}
	data, err := b.openData(ctx)
	if err != nil {
		return out, err
	}
	defer data.Close()
	if _, err := b.ask(ctx, stor, greetIn, 150); err != nil {
		return out, err
	}
	if err := b.pour(ctx, data, role, image, tell); err != nil {
		return out, err
	}
	data.Close()
	out.Sent = int64(len(image))
	tell(Progress{Stage: Launching, Role: role, Done: out.Sent, Total: out.Sent, Limit: startIn})
	if r, err := b.reply(ctx, stor, startIn); err == nil {
		out.Launch = fmt.Sprint(r.Code, " ", r.Text)
	} else if ctx.Err() != nil {
		return out, err
	}
	return out, nil
}

// unlaunch puts memsize back after a RAM boot that did not come to its start.
// Nobody knows whether it would survive a power cut (facts eva 1.7).
func (b *Box) unlaunch(memsize string) {
	ctx, stop := context.WithTimeout(context.Background(), greetIn) // the caller's may be over
	defer stop()
	// A box that is gone is no news here: the error is on its way already.
	if memsize != "" {
		_, _ = b.ask(ctx, "SETENV memsize "+memsize, greetIn, 200)
	}
	_, _ = b.ask(ctx, "UNSETENV kernel_args_tmp", greetIn, 200)
}
