package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/heimweg/heimweg/internal/image"
)

// Firmware is what `heimweg firmware list` tells. Its JSON form is stable.
type Firmware struct {
	From       string   `json:"from"`
	Stable     string   `json:"stable,omitempty"`
	OldStable  string   `json:"old_stable,omitempty"`
	Releases   []string `json:"releases,omitempty"`
	SeenBefore string   `json:"newer_seen_before,omitempty"`
	// NotKnown says why the releases are not known.
	NotKnown string          `json:"releases_not_known,omitempty"`
	Boards   []FirmwareBoard `json:"boards"`
}

// FirmwareBoard is one board.
type FirmwareBoard struct {
	Short   string `json:"name"`
	Board   string `json:"board"`
	Model   string `json:"model"`
	Target  string `json:"target"`
	HW      []int  `json:"hw_revisions,omitempty"`
	Install string `json:"install"`
}

// installText is how OpenWrt gets onto a board, in a few words.
var installText = map[image.Method]string{
	image.OneFile:   "one file through the boot loader",
	image.WithUBoot: "one file through the boot loader",
	image.TwoFiles:  "two files through the boot loader",
	image.FromRAM:   "a system in RAM installs it",
	image.FromUBoot: "U-Boot and a system in RAM install it",
}

// FirmwareBoards lists the boards that heimweg knows.
func FirmwareBoards(boards []image.Board) []FirmwareBoard {
	var out []FirmwareBoard
	for _, b := range boards {
		out = append(out, FirmwareBoard{b.Short(), b.Name, b.String(), b.Target, b.HWRevisions, installText[b.Method]})
	}
	return out
}

// FirmwareText writes a Firmware for people.
func FirmwareText(w io.Writer, st Style, f Firmware) {
	if f.NotKnown != "" {
		fmt.Fprintf(w, "%s  not known: %s\n", st.Strong("Releases"), clean(f.NotKnown))
	} else {
		fmt.Fprintf(w, "%s  newest %s", st.Strong("Releases"), st.Good(f.Stable))
		if f.OldStable != "" {
			fmt.Fprintf(w, ", before it %s", f.OldStable)
		}
		fmt.Fprintf(w, "  %s\n", st.Dim("("+clean(f.From)+")"))
		if len(f.Releases) > 2 {
			fmt.Fprintf(w, "          %s\n", strings.Join(f.Releases[:min(len(f.Releases), 16)], "  "))
		}
	}
	if f.SeenBefore != "" {
		fmt.Fprintf(w, "  %s this list is older than one seen before, which named %s; take another mirror if you did not choose this one\n", st.Changed("!"), f.SeenBefore)
	}
	fmt.Fprintf(w, "%s\n", st.Strong("Boards"))
	for _, b := range f.Boards {
		fmt.Fprintf(w, "  %-22s %-58s %s\n", b.Short, b.Model, st.Dim(b.Install))
	}
}

// FirmwareCheck is what `heimweg firmware check` tells. Its JSON form is stable.
type FirmwareCheck struct {
	File  string      `json:"file"`
	Image image.Image `json:"image"`
	Whole string      `json:"whole"`
	// Release is the one whose signed list names the file, "" when none does.
	Release string `json:"release,omitempty"`
	Name    string `json:"name,omitempty"` // there
	Signed  string `json:"signed,omitempty"`
	// NotKnown says why no list was compared.
	NotKnown string `json:"signed_not_known,omitempty"`
	For      string `json:"for,omitempty"` // the board asked about, which it is right for
}

// FirmwareCheckText writes a FirmwareCheck for people.
func FirmwareCheckText(w io.Writer, st Style, c FirmwareCheck) {
	m := c.Image
	line := func(label, format string, args ...any) {
		fmt.Fprintf(w, "%s %s\n", st.Strong(fmt.Sprintf("%-9s", label)), clean(fmt.Sprintf(format, args...)))
	}
	line("File", "%s, %s", c.File, Bytes(m.Size))
	what := string(m.Kind)
	if m.Format != "" {
		what += ": " + m.Format
	}
	line("Kind", "%s", what)
	if len(m.Boards) > 0 {
		line("For", "%s", m.Names())
	} else {
		line("For", "not known: the file names no board")
	}
	switch {
	case c.Release != "":
		line("Release", "OpenWrt %s", c.Release)
	case m.Release.Version != "" && m.Release.Guessed:
		line("Release", "of the line %s, by its kernel %s", m.Release.Version, m.Release.Kernel)
	case m.Release.Version != "":
		line("Release", "%s %s, by its own words", m.Release.Distribution, m.Release.Version)
	}
	line("Whole", "%s", c.Whole)
	for _, k := range m.Checks {
		if k.State == image.Bad {
			fmt.Fprintf(w, "          %s %s: %s\n", st.Bad("✗"), clean(k.What), clean(k.Says))
		}
	}
	switch {
	case c.Signed != "":
		line("Genuine", "yes: %s", c.Signed)
	default:
		line("Genuine", "not known: %s", c.NotKnown)
	}
	line("SHA-256", "%s", m.SHA256)
	if c.For != "" {
		line("Right for", "%s", c.For)
	}
}
