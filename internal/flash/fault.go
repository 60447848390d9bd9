package flash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/hostnet"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/shell"
)

// What is true of every failure, and what helps against most of them.
const (
	unharmed = "the bootloader is untouched; nothing is broken"
	repeat   = "switch the box off, run the same command again, and switch it on when told"
)

// explain turns an edge's error into a failure that a person can act on; what is
// true of the box at this moment is added.
func (s *Session) explain(err error) error {
	if err == nil || fault.Find(err) != nil {
		return err
	}
	f := s.fault(err)
	if f == nil {
		f = Explain(err)
	}
	return f.From(err)
}

// fault explains what depends on how far the run is.
func (s *Session) fault(err error) *fault.Fault {
	if errors.Is(err, context.Canceled) {
		return s.interrupted()
	}
	var (
		hunt  *huntError
		late  *awaitError
		tftp  *noTFTPError
		other *otherSystemError
		still *stillRAMError
		flash *notRAMError
	)
	switch {
	case errors.As(err, &hunt):
		return hunt.fault()
	case errors.As(err, &tftp):
		return fault.New("no-next-stage", "U-Boot was started in the box's memory and asked nobody for its next stage within %s", minutes(tftp.after)).
			Saw("no request for %s reached this computer at 192.168.1.70", tftp.name).Because("nothing was written; usually a firewall on this computer drops UDP port 69").
			Do("allow UDP port 69 on %s, then %s", s.cable.Name(), repeat)
	case errors.As(err, &flash) && s.method == image.FromUBoot:
		f := fault.New("already-openwrt", "the box has an OpenWrt on its flash already, which starts before anything else can").Because("nothing was written")
		if flash.err != nil {
			f.Saw("it wants a password")
		}
		return f.Do("heimweg upgrade brings it a newer release; to start over, reset it first (on the box: firstboot -y && reboot)")
	case errors.As(err, &flash):
		return fault.New("ram-refused", "the box did not start the system in its memory, it started what is on its flash").
			Because("nothing was written").Do("%s", repeat)
	case errors.As(err, &still):
		f := fault.New("install-refused", "the small OpenWrt in the box's memory still runs; it did not install the real one")
		if still.said != "" {
			f.Saw("it says %s", lastLine(still.said))
		}
		return f.Because("%s", unharmed).Do("run the same command again; it goes on from here")
	case errors.As(err, &other):
		return fault.New("other-system", "something else runs on the box than what was written").Saw("%s", other.says).Because("%s", unharmed).
			Do("%s", repeat)
	case errors.As(err, &late):
		return s.late(late)
	case s.started && errors.Is(err, context.DeadlineExceeded): // the caller's
		return s.late(&awaitError{after: time.Since(s.began).Round(time.Second), last: login{err: err}})
	}
	return nil
}

func (s *Session) late(e *awaitError) *fault.Fault {
	code, what := "no-first-boot", fmt.Sprintf("the new system did not answer at %s within %s", fresh, minutes(e.after))
	switch {
	case s.method != "" && !s.started:
		code, what = "ram-silent", fmt.Sprintf("the system in the box's memory did not answer at %s within %s", fresh, minutes(e.after))
	case e.last.err == nil && e.last.state.Board.Name != "":
		return fault.New("not-settled", "the new system runs, but its first start is not through after %s", minutes(e.after)).
			Saw("%s", unsettled(e.last.state)).Because("what is set now would be lost at the next power cut").
			Do("leave the power on for ten minutes more, then: heimweg up")
	}
	f := fault.New(code, "%s", what)
	if e.last.err != nil {
		f.Saw("%s", e.last.err)
	}
	f.Because("%s", unharmed)
	if code == "ram-silent" {
		return f.Because("nothing was written").Do("%s", repeat)
	}
	return f.Do("is the cable in a yellow port, and do the lights blink no red? Then %s", repeat)
}

func unsettled(b openwrt.BootState) string {
	switch {
	case b.Root == openwrt.OnRAM:
		return "the flash is still being formatted; settings are in RAM"
	case len(b.Waiting) > 0:
		return fmt.Sprintf("%d scripts of the first start have not run", len(b.Waiting))
	case !b.HostKey:
		return "it has no host key of its own yet"
	}
	return "where it keeps its settings cannot be seen"
}

// interrupted is Ctrl-C, in the words for this moment.
func (s *Session) interrupted() *fault.Fault {
	f := fault.New("interrupted", "interrupted").Exits(fault.ExitInterrupted)
	switch {
	case s.started:
		return f.Because("everything is written; the box finishes its first start by itself").Do("wait five minutes with the power on, then: heimweg up")
	case s.touched:
		return f.Because("FRITZ!OS is gone and OpenWrt is not there yet; %s", unharmed).Do("%s", repeat)
	}
	return f.Because("nothing was written").Do("run the same command again when you are ready")
}

// Explain explains the errors of the edges that flash speaks through, wherever
// they come from. What nobody expected is heimweg's own mistake.
func Explain(err error) *fault.Fault {
	if f := fault.Find(err); f != nil {
		return f
	}
	for _, explain := range []func(error) *fault.Fault{explainSight, explainBox, explainPlan, explainCard, explainRAM} {
		if f := explain(err); f != nil {
			return f
		}
	}
	return fault.New("flash-failed", "flashing ended with an error that heimweg has no words for").Saw("%s", err).Because("%s", unharmed).
		Do("run the same command again; if it stays so, please report it with the line above")
}

// fault explains a search that ended.
func (e *huntError) fault() *fault.Fault {
	waited := minutes(e.waited)
	var f *fault.Fault
	if e.Missed() {
		f = fault.New("eva-missed", "the box on %s has started its own system each time; its bootloader was not caught in %s", e.card, waited)
	} else {
		f = fault.New("eva-silent", "no bootloader answered on %s in %s", e.card, waited)
	}
	var asked []string
	for _, a := range e.Asked {
		asked = append(asked, a.String())
	}
	cable := "whether a cable is plugged in cannot be told"
	switch {
	case e.known && e.up:
		cable = fmt.Sprintf("cable came up after %s", seconds(e.upAfter))
	case e.known:
		cable = "the cable is dead"
	}
	f.Saw("%s; asked %s and by broadcast; %s", cable, strings.Join(asked, ", "), sightsText(e.Sights))
	if e.UDP != nil {
		f.Saw("UDP port 5035 could not be used: %s", e.UDP)
	}
	switch {
	case e.known && !e.up:
		f.Do("connect one of the box's yellow ports to %s, run the same command again, and plug the power in when told", e.card)
	case e.Missed():
		f.Do("switch the box off, wait 5 s, run the same command again, and switch it on only when told")
	default:
		f.Do("unplug the box, run the same command again, and plug it in only when told")
	}
	return f
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func sightsText(all []eva.Sight) string {
	var out []string
	for _, x := range all {
		if x.At.IsValid() && x.What != eva.Holding {
			out = append(out, x.String())
		}
	}
	if len(out) == 0 {
		return "silence"
	}
	return strings.Join(out, "; ")
}

// explainSight: what was found is no box for us.
func explainSight(err error) *fault.Fault {
	var (
		sight   *conclusiveError
		several *eva.SeveralError
		already *alreadyError
		none    *eva.NotFoundError
	)
	switch {
	case errors.As(err, &sight) && sight.What == eva.SeenTI:
		return fault.New("eva-ti", "the bootloader at %s is the ADAM2 of Texas Instruments, not AVM's", sight.At).
			Because("it is found in boxes from before 2008 and speaks another dialogue; OpenWrt of today has nothing for them").
			Do("use another box; heimweg firmware list shows the models")
	case errors.As(err, &sight):
		return fault.New("eva-slint", "the box at %s has AVM's newest bootloader, which does not speak this language", sight.At).
			Because("OpenWrt does not support such boxes").Do("use another box; heimweg firmware list shows the models")
	case errors.As(err, &several):
		var at []string
		for _, a := range several.At {
			at = append(at, a.String())
		}
		return fault.New("eva-several", "%d boxes answer from their bootloaders", len(at)).Saw("%s", strings.Join(at, ", ")).
			Because("none of them was touched: an address given to one could reach both").Do("unplug all but one, and run the same command again")
	case errors.As(err, &already):
		return already.fault()
	case errors.As(err, &none):
		return (&huntError{NotFoundError: none, waited: none.Waited, card: "the cable"}).fault()
	}
	return nil
}

func (e *alreadyError) fault() *fault.Fault {
	f := fault.New("already-openwrt", "OpenWrt runs on the box at %s already", e.at)
	if r := e.state.Board; r.Name != "" {
		f.Saw("%s, OpenWrt %s", r.Model, r.Release.Version)
	} else {
		f.Saw("it wants a password")
	}
	return f.Do("heimweg up sets it up; heimweg upgrade brings it a newer release").
		Do("to write it anew all the same: unplug it, and run this command with --again")
}

// explainBox: the dialogue with the bootloader.
func explainBox(err error) *fault.Fault {
	var (
		lost    *eva.LostError
		refused *eva.RefusedError
		strange *eva.StrangeError
		nothing *nothingError
	)
	state := func(f *fault.Fault) *fault.Fault {
		if eva.Erased(err) {
			return f.Because("FRITZ!OS may be gone; %s", unharmed).Do("%s", repeat)
		}
		return f.Because("nothing was written").Do("%s", repeat)
	}
	switch {
	case errors.As(err, &lost):
		f := fault.New("eva-lost", "the box was lost while %s, after %s", doing(lost.Doing), seconds(lost.After))
		if lost.Sent > 0 {
			f.Saw("%d bytes were on their way", lost.Sent)
		}
		f.Saw("%s", causeText(lost.Cause))
		if len(lost.Replies) > 0 {
			f.Saw("it said last %s", strings.Join(lost.Replies, ", "))
		}
		return state(f)
	case errors.As(err, &refused):
		return state(fault.New("eva-refused", "the box refused %s", refused.Command).Saw("it said %q", fmt.Sprint(refused.Reply.Code, " ", refused.Reply.Text)))
	case errors.As(err, &strange):
		return state(fault.New("eva-strange", "the box answered %s in a way that heimweg does not understand", strange.Command).
			Saw("it said %s", strings.Join(strange.Lines, ", ")))
	case errors.As(err, &nothing):
		return fault.New("eva-nothing-written", "the box took the image and says that nothing was written, twice").Because("FRITZ!OS is gone; %s", unharmed).
			Do("%s", repeat)
	}
	return nil
}

// causeText says why a connection ended, without the words of a computer's network.
func causeText(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return eva.ErrSilent.Error()
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it ended the connection, as a box does that has started again"
	}
	return err.Error()
}

func doing(what string) string {
	switch what {
	case string(eva.Erasing), string(eva.Sending), string(eva.Storing), string(eva.Checking):
		return what
	}
	return "answering " + what
}

// explainPlan: box and files do not go together. Nothing was written.
func explainPlan(err error) *fault.Fault {
	var (
		unknown *eva.UnknownBoardError
		wrong   *eva.WrongBoardError
		box     *eva.BoxError
		size    *eva.SizeError
		file    *eva.FileError
	)
	switch {
	case errors.As(err, &unknown) && unknown.Name != "":
		return fault.New("board-unsupported", "this is a %s, for which OpenWrt has no image that its bootloader takes", unknown.Name).
			Saw("HWRevision %s", unknown.HWRevision).Because("nothing was written; the box starts as it was").Do("use another box; heimweg firmware list shows the models")
	case errors.As(err, &unknown):
		f := fault.New("board-unknown", "heimweg does not know this box")
		if unknown.HWRevision == "" {
			f.Saw("its bootloader gives no HWRevision")
		} else {
			f.Saw("HWRevision %q", printable(unknown.HWRevision))
		}
		return f.Because("nothing was written; the box starts as it was").Do("heimweg firmware list shows the models; if yours is among them, please report the line above")
	case errors.As(err, &wrong):
		return fault.New("other-box", "another box answers now than the one that was looked at").Saw("HWRevision %s, it was %s", wrong.Found, wrong.Planned).
			Because("nothing was written").Do("plug only one box in, and run the same command again")
	case errors.As(err, &box):
		return fault.New("board-differs", "this box is not built as heimweg knows its model").Saw("%s is %q, known is %q", box.What, box.Found, box.Want).
			Because("what the bootloader is told to write it writes without a check, so nothing was sent").
			Do("please report the line above; do not flash this box")
	case errors.As(err, &size):
		return fault.New("image-too-large", "the %s does not fit into this box", size.Role).Saw("%d bytes, of which %d fit", size.Size, size.Max).
			Do("leave the file away: heimweg flash fetches the official one, which fits")
	case errors.As(err, &file):
		return fault.New("image-unreadable", "the %s %s", file.Role, file.Why).Because("nothing was written").Do("check the file, and run the same command again")
	}
	return nil
}

// explainCard: this computer's side of the cable.
func explainCard(err error) *fault.Fault {
	var (
		none    *hostnet.NoCardError
		several *hostnet.SeveralCardsError
		air     *hostnet.NotACableError
		refused *hostnet.NotAllowedError
		address *hostnet.NeedsAddressError
		lent    *hostnet.LentError
		left    *hostnet.LeftError
		record  *hostnet.RecordError
	)
	switch {
	case errors.As(err, &none) && none.Wanted != "":
		return fault.NewUsage("no-card", "this computer has no network card %s", none.Wanted).Saw("here: %s", hostnet.Names(none.Cards)).
			Do("name one that is here with --card, or plug in a USB network adapter")
	case errors.As(err, &none):
		return fault.New("no-card", "this computer has no wired network card").Saw("here: %s", hostnet.Names(none.Cards)).Do("plug in a USB network adapter, then run the same command again")
	case errors.As(err, &several):
		return fault.New("which-card", "more than one network card could be meant").Saw("%s", hostnet.Names(several.Cards)).Do("name the one that the box is plugged into: --card %s", several.Cards[0].Name).
			Exits(fault.ExitNeedsPerson)
	case errors.As(err, &air):
		return fault.NewUsage("not-a-cable", "%s", air).Do("connect the box by a cable, and name that card with --card")
	case errors.As(err, &address):
		f := fault.New("needs-address", "%s needs the address %s, which heimweg may not give it", address.Card.Name, address.Address).Saw("%s", address.Cause)
		return f.Because("%s", strings.TrimSpace(hostnet.Advise(runtime.GOOS, address.Card, address.Address).String())).
			Do("set it, or run heimweg with administrator rights; then run the same command again").Exits(fault.ExitNeedsPerson)
	case errors.As(err, &refused):
		return fault.New("not-allowed", "this system does not allow %s on %s", refused.What, refused.Card.Name).Saw("%s", refused.Cause).
			Do("run the same command with administrator rights (sudo heimweg flash …)")
	case errors.As(err, &lent):
		return fault.New("busy", "another heimweg is flashing on this computer").Saw("%s", lent).Do("let it end, then run this command again")
	case errors.As(err, &record):
		return fault.New("bad-record", "heimweg's note of what it borrowed on this computer cannot be read").Saw("%s", record).
			Do("look whether your network card has an address that is not yours, then remove %s", record.Path)
	case errors.As(err, &left):
		return fault.New("left-behind", "something that was borrowed on this computer could not be given back").Saw("%s", left).
			Do("run the same command again, with the same rights; it cleans up first")
	}
	return nil
}

// explainRAM: the system in memory and the new one.
func explainRAM(err error) *fault.Fault {
	var (
		refusal *openwrt.Refusal
		other   *openwrt.NotOpenWrtError
		lost    *shell.LostError
		gone    *shell.UnreachableError
		auth    *shell.AuthError
	)
	switch {
	case errors.As(err, &refusal):
		return explainRefusal(refusal)
	case wantsPassword(err):
		return fault.New("other-system", "what answers at %s wants a password, which a new system does not", fresh).Do("%s", repeat)
	case errors.As(err, &other):
		return fault.New("not-openwrt", "what answers at %s is not OpenWrt", fresh).Saw("%s", other.System).Do("%s", repeat)
	case errors.As(err, &lost), errors.As(err, &gone), errors.As(err, &auth), errors.Is(err, context.DeadlineExceeded):
		return fault.New("ram-lost", "the connection to the small OpenWrt in the box's memory was lost").Saw("%s", err).Because("%s", unharmed).
			Do("run the same command again; it goes on from here, or switch the box off and on and it starts over")
	}
	return nil
}

func explainRefusal(r *openwrt.Refusal) *fault.Fault {
	var f *fault.Fault
	switch r.Code {
	case "copy":
		f = fault.New("copy-damaged", "a file did not arrive whole in the box's memory").Saw("%s", r.Detail).Because("nothing was written")
	case "nospace":
		f = fault.New("ram-full", "the box's memory has no room for the image").Saw("%s", r.Detail).Because("nothing was written")
	case "nouboot":
		f = fault.New("board-differs", "this box has no place for U-Boot where heimweg knows one").Saw("no partition %s", r.Detail).Because("nothing was written")
	case "uboot":
		f = fault.New("uboot-not-written", "U-Boot could not be written to %s", r.Detail).Because("%s", unharmed)
	case "image":
		f = fault.New("install-refused", "the small OpenWrt in the box's memory refused the image").Saw("%s", lastLine(r.Detail)).Because("nothing of the system was written; %s", unharmed)
	default:
		f = fault.New("ram-refused", "the small OpenWrt in the box's memory could not do its part: %s", r.Code).Saw("%s", r.Detail).Because("%s", unharmed)
	}
	return f.Do("run the same command again; it goes on from here, or switch the box off and on and it starts over")
}

// lastLine is how a program's output ends: the reason stands there, or one or two
// lines above.
func lastLine(s string) string {
	var lines []string
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, printable(l))
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
