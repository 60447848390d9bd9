package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/flash"
)

// FlashTeller renders what flashing tells: as Teller, and the way from a dead cable
// to a held bootloader as one line that grows. end ends that line; it is for
// whoever writes next.
func FlashTeller(w io.Writer, st Style, asJSON bool) (tell event.Tell, end func()) {
	t := &teller{w: w, st: st}
	if asJSON {
		return t.json, func() {}
	}
	going := false // a line of the way stands without its end
	stop := func() {
		if going {
			fmt.Fprintln(w)
			going = false
		}
	}
	end = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		stop()
	}
	return func(e event.Event) {
		way := e.Kind == event.Note && e.Stage == flash.WayStage
		t.mu.Lock()
		switch {
		case way && going && st.Colour:
			fmt.Fprintf(w, " → %s", clean(e.Text))
		case way:
			t.endLine()
			fmt.Fprintf(w, "%s▸ %s", indent, clean(e.Text))
			if going = st.Colour; !going {
				fmt.Fprintln(w)
			}
		default:
			stop()
		}
		t.mu.Unlock()
		if !way {
			t.text(e)
		}
	}, end
}

// indent is the width of the labels at the left.
const indent = "             "

func label(w io.Writer, st Style, name, format string, args ...any) {
	fmt.Fprintf(w, "%s%s%s\n", st.Strong(name), indent[min(len(name), len(indent)):], clean(fmt.Sprintf(format, args...)))
}

// FlashFiles says what the files are that a person named.
func FlashFiles(w io.Writer, st Style, files []flash.File) {
	for _, f := range files {
		label(w, st, "Image", "%s", f.Says())
	}
}

// FlashCable says what to do with the cable.
func FlashCable(w io.Writer, st Style, card, way string) {
	if way != "" {
		way = " (" + way + ")"
	}
	label(w, st, "Cable", "%s%s", card, way)
	fmt.Fprintf(w, "%sUnplug the box, connect one of its yellow ports to this computer, then plug the power in.\n", indent)
}

// FlashPlan says what box was found and what is about to happen to it.
func FlashPlan(w io.Writer, st Style, d flash.Description) {
	box := d.Model
	if d.HWRevision != "" {
		box += " (HWRevision " + d.HWRevision + ")"
	}
	if d.FlashMB > 0 {
		box += fmt.Sprintf(", %d MB flash", d.FlashMB)
	}
	if d.Bootloader != "" {
		box += ", bootloader " + d.Bootloader
	}
	label(w, st, "Box", "%s, at %s", box, d.At)
	if d.Moved != "" {
		fmt.Fprintf(w, "%sIts bootloader sits at %s by itself; heimweg flash --back-to-stock can bring it back to 192.168.178.1.\n", indent, d.Moved)
	}
	for _, f := range d.Files {
		label(w, st, "File", "%s: %s (%s)", f.Role, f.Says, Bytes(f.Size))
	}
	for i, step := range d.Steps {
		name := ""
		if i == 0 {
			name = "Steps"
		}
		label(w, st, name, "%s", step)
	}
	sure := d.Sure
	if d.Note != "" {
		sure += "; " + d.Note
	}
	label(w, st, "This model", "%s", sure)
	fmt.Fprintln(w)
	if d.Continues {
		fmt.Fprintln(w, "An earlier run was cut off here; this one goes on. FRITZ!OS, if it is still there, is replaced.")
	} else {
		fmt.Fprintln(w, st.Strong("This replaces FRITZ!OS on this box. Its settings are lost."))
	}
	fmt.Fprintln(w, "Going back needs AVM's recovery program (heimweg flash --back-to-stock explains).")
}

// FlashResult says what runs in the end.
func FlashResult(w io.Writer, st Style, r flash.Result) {
	state := "settled after " + Took(r.Took)
	if !r.Settled {
		state = "its first start is not through yet; leave the power on for five minutes"
	}
	fmt.Fprintf(w, "%s %s\n", st.Good(fmt.Sprintf("OpenWrt %s runs on the %s at %s,", r.Board.Release.Version, r.Model, r.At)), state)
}

// BackToStock explains the way back to FRITZ!OS. checked is the name of a recovery
// program that was looked at, "" for none.
func BackToStock(w io.Writer, st Style, checked string) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("%s", st.Strong("Back to FRITZ!OS"))
	if checked != "" {
		p("  %s is AVM's recovery program. That it is the one for your model shows when it runs: it refuses others.", clean(checked))
	}
	p("%s", strings.TrimRight(`
  AVM's own recovery program does it. It runs on Windows; with Wine on Linux it was reported to work.
  1  fetch the program for exactly your model from AVM: ftp.avm.de, folder fritzbox/…/other/recover
  2  disconnect Wi-Fi, VPNs and all other network cables of that computer
  3  connect it to a yellow port of the box, power off
  4  start the program, and switch the box on only when it says so
  5  up to six tries are normal; then FRITZ!OS starts as it came from the factory

  heimweg does not write FRITZ!OS itself: AVM's files may not be passed on, and their program checks
  what belongs on which box. A box whose brand is not AVM's own may be refused by it ("provider additive").
  The bootloader is never touched on either way, so nothing here can break the box for good.`, "\n"))
}

// FlashLoader says where a bootloader was found.
func FlashLoader(w io.Writer, st Style, l *flash.Loader) {
	model := l.Model
	if model == "" {
		model = "a box that heimweg does not know"
	}
	label(w, st, "Box", "%s (HWRevision %s), bootloader %s, at %s", model, l.HWRevision, l.Version, l.At)
	switch {
	case !l.Home.IsValid():
		fmt.Fprintf(w, "%sIt does not say which address it takes by itself.\n", indent)
	case l.Usual():
		fmt.Fprintf(w, "%sIt sits where recovery programs look for it.\n", indent)
	default:
		fmt.Fprintf(w, "%sBy itself it takes %s. Some recovery programs look at 192.168.178.1 only.\n", indent, l.Home)
	}
}
