// Package qr draws a text as a QR code for a person to scan from a terminal, a
// picture or a page.
//
// It draws and nothing else: it never looks at the terminal, never writes a
// file, and never says what the text was, because the text is a peer's
// configuration with its private key in it. For the same reason a Code prints
// as a placeholder; its drawings come only from Half, PNG and SVG.
//
// A QR code is a square of dark and light modules. Scanners want dark on light
// and an empty frame round it, the quiet zone: four modules by the standard, two
// were enough for zbar (facts: deps.md 4, measured 21 Nov 2026). A terminal that
// prints light on dark would turn the code inside out, so the colours are always
// given. Height is the limit: a configuration needs 53 to 69 modules, two of
// which fit in one line of text, so 29 to 37 lines. Level L, the lowest error
// correction, keeps it small; nothing covers a screen in part.
package qr

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"strings"

	"rsc.io/qr"
)

const (
	// Quiet is the width of the frame by the standard, in modules.
	Quiet = 4
	// NarrowQuiet is the narrowest frame that Fits offers.
	NarrowQuiet = 2
	// Capacity is the longest text in bytes (version 40, level L).
	Capacity = 2953
)

// A TooLongError says that no QR code can hold the text.
type TooLongError struct{ Bytes int }

func (e *TooLongError) Error() string {
	return fmt.Sprintf("%d bytes do not fit in a QR code, which holds %d", e.Bytes, Capacity)
}

// A Code is a square of modules. It is kept behind a closure, because whoever
// can read its modules has read the secret in it.
type Code struct {
	size int
	dark func(x, y int) bool // false outside the square
}

// Encode makes the smallest code at level L. The only error is *TooLongError.
func Encode(text string) (*Code, error) {
	c, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, &TooLongError{Bytes: len(text)}
	}
	return &Code{size: c.Size, dark: c.Black}, nil
}

// Size is the number of modules on a side, without a frame.
func (c *Code) Size() int { return c.size }

// Dark reports whether the module at column x, row y is dark; outside the
// square nothing is.
func (c *Code) Dark(x, y int) bool { return c.dark(x, y) }

// Columns is the width of Half's text in terminal columns.
func (c *Code) Columns(quiet int) int { return c.size + 2*quiet }

// Lines is the height of Half's text in terminal lines.
func (c *Code) Lines(quiet int) int { return (c.size + 2*quiet + 1) / 2 }

// Fits gives the widest frame, from Quiet down to NarrowQuiet, with which the
// code can be shown at once on a terminal of that many columns and lines. A
// narrower frame is tried before giving up, since a frame scanners can do with
// half of is better than no code.
func (c *Code) Fits(columns, lines int) (quiet int, ok bool) {
	for q := Quiet; q >= NarrowQuiet; q-- {
		if c.Columns(q) <= columns && c.Lines(q) <= lines {
			return q, true
		}
	}
	return 0, false
}

// Colours from the fixed part of the 256-colour palette: 16 is black and 231 is
// white whatever theme the terminal has, unlike colours 0 to 15.
const (
	darkOnLight = "\x1b[38;5;16;48;5;231m"
	reset       = "\x1b[0m"
)

// Half draws the code for a terminal, two modules per character cell, with a
// frame of quiet modules and a line feed after every line. Each line sets and
// resets its colours, so that a terminal that fills the rest of a line with the
// background, or a reader that cuts lines, does no harm.
func (c *Code) Half(quiet int) string {
	var b strings.Builder
	end := c.size + quiet
	for y := -quiet; y < end; y += 2 {
		b.WriteString(darkOnLight)
		for x := -quiet; x < end; x++ {
			// An odd number of rows leaves half a line over: it stays light and
			// adds to the frame.
			switch up, down := c.dark(x, y), c.dark(x, y+1); {
			case up && down:
				b.WriteRune('█')
			case up:
				b.WriteRune('▀')
			case down:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString(reset)
		b.WriteByte('\n')
	}
	return b.String()
}

// Pixels per module of a PNG: a 69-module code becomes 616 pixels wide, which
// fits a laptop's screen and prints sharply.
const scale = 8

// PNG draws the code with its frame as a black and white picture of one bit per
// pixel (about a third of the grey picture that rsc.io/qr writes).
func (c *Code) PNG() []byte {
	side := (c.size + 2*Quiet) * scale
	img := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range side {
		row := img.Pix[y*img.Stride:][:side]
		for x := range row {
			if c.dark(x/scale-Quiet, y/scale-Quiet) {
				row[x] = 1
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic("qr: encoding to memory: " + err.Error()) // cannot happen: a buffer takes everything
	}
	return b.Bytes()
}

// SVG draws the code with its frame as a picture of one path on a white ground,
// one unit per module.
func (c *Code) SVG() []byte {
	var b bytes.Buffer
	side := c.size + 2*Quiet
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" shape-rendering="crispEdges">`,
		side, side, side*scale, side*scale)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, side, side)
	for y := range c.size {
		for x := 0; x < c.size; {
			run := 0
			for c.dark(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+Quiet, y+Quiet, run, run)
			}
			x += run + 1 // the module after a run is light
		}
	}
	b.WriteString(`"/></svg>` + "\n")
	return b.Bytes()
}

// Format prints a placeholder under every verb.
func (c *Code) Format(f fmt.State, _ rune) { io.WriteString(f, "(QR code)") }

// LogValue keeps the code out of structured logs.
func (c *Code) LogValue() slog.Value { return slog.StringValue("(QR code)") }
