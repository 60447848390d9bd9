package qr_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/qr"
)

// texts are what codes are made for: every packed configuration of wgconf's
// golden file, and the edges of the format.
func texts(t testing.TB) map[string]string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("..", "wgconf", "testdata", "peers.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{
		"one letter": "a", "digits": "0123456789", "capitals": "HEIMWEG", "UTF-8": "Grüße aus dem Süden …",
		"full": strings.Repeat("x", qr.Capacity),
	}
	for _, f := range a.Files {
		if strings.HasSuffix(f.Name, ".packed") {
			out[f.Name] = strings.TrimSuffix(string(f.Data), "\n") // which the archive adds
		}
	}
	if len(out) < 15 {
		t.Fatalf("only %d texts", len(out))
	}
	return out
}

func encode(t testing.TB, text string) *qr.Code {
	t.Helper()
	c, err := qr.Encode(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// drawSVG draws the only things that our SVG has: a white ground and runs of
// dark modules.
func drawSVG(t *testing.T, data []byte) image.Image {
	t.Helper()
	var svg struct {
		ViewBox string `xml:"viewBox,attr"`
		Rect    struct {
			Fill  string `xml:"fill,attr"`
			Width int    `xml:"width,attr"`
		} `xml:"rect"`
		Path []struct {
			D    string `xml:"d,attr"`
			Fill string `xml:"fill,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal(data, &svg); err != nil {
		t.Fatal(err)
	}
	var x0, y0, side, high int
	if _, err := fmt.Sscan(svg.ViewBox, &x0, &y0, &side, &high); err != nil || side != high || side != svg.Rect.Width {
		t.Fatalf("view box %q, ground %d wide: %v", svg.ViewBox, svg.Rect.Width, err)
	}
	if len(svg.Path) != 1 || svg.Path[0].Fill != "#000" || svg.Rect.Fill != "#fff" {
		t.Fatalf("%d paths, colours of %.300s", len(svg.Path), data)
	}
	const scale = 3
	img := blank(side*scale, side*scale)
	run := regexp.MustCompile(`^M(\d+) (\d+)h(\d+)v1h-(\d+)z`)
	d := svg.Path[0].D
	for d != "" {
		m := run.FindStringSubmatch(d)
		if m == nil || m[3] != m[4] {
			t.Fatalf("cannot draw %.40q", d)
		}
		x, y, w := number(m[1]), number(m[2]), number(m[3])
		fill(img, image.Rect(x*scale, y*scale, (x+w)*scale, (y+1)*scale))
		d = d[len(m[0]):]
	}
	return img
}

func number(s string) int { n, _ := strconv.Atoi(s); return n }

func blank(w, h int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	return img
}

func fill(img *image.Gray, r image.Rectangle) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			img.SetGray(x, y, color.Gray{})
		}
	}
}

// drawHalf is a terminal that knows four characters and two colours, and whose
// own colours are light on dark: what is not coloured explicitly comes out black.
func drawHalf(t *testing.T, lines []string, columns int) image.Image {
	t.Helper()
	const scale = 4
	img := blank(columns*scale+8*scale, len(lines)*2*scale+8*scale)
	fill(img, img.Bounds())
	const light = "\x1b[38;5;16;48;5;231m"
	for row, l := range lines {
		l, ok := strings.CutPrefix(l, light)
		l, ended := strings.CutSuffix(l, "\x1b[0m")
		if !ok || !ended || utf8.RuneCountInString(l) != columns {
			t.Fatalf("line %d is not %d characters between its colours: %q", row, columns, l)
		}
		column := 0
		for _, r := range l {
			up, down := r == '█' || r == '▀', r == '█' || r == '▄'
			if !up && !down && r != ' ' {
				t.Fatalf("%q on the screen", r)
			}
			for i, dark := range []bool{up, down} {
				if !dark {
					x, y := (column+4)*scale, (row*2+i+4)*scale
					for dy := range scale {
						for dx := range scale {
							img.SetGray(x+dx, y+dy, color.Gray{Y: 0xff})
						}
					}
				}
			}
			column++
		}
	}
	return img
}

// A frame narrower than announced would be found by no reader of clean pictures.
func TestFrame(t *testing.T) {
	c := encode(t, "HEIMWEG")
	img, err := png.Decode(bytes.NewReader(c.PNG()))
	if err != nil {
		t.Fatal(err)
	}
	module := img.Bounds().Dx() / (c.Size() + 2*qr.Quiet)
	if c.Size() != 21 || module*(c.Size()+2*qr.Quiet) != img.Bounds().Dx() {
		t.Fatalf("%d modules of %d pixels in %d", c.Size(), module, img.Bounds().Dx())
	}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			mx, my := x/module-qr.Quiet, y/module-qr.Quiet
			r, g, b, _ := img.At(x, y).RGBA()
			if dark := r == 0; dark != c.Dark(mx, my) || r != g || g != b || (r != 0 && r != 0xffff) {
				t.Fatalf("pixel %d,%d is %v, module %d,%d is dark: %v", x, y, img.At(x, y), mx, my, c.Dark(mx, my))
			}
		}
	}
	for i := -qr.Quiet; i < c.Size()+qr.Quiet; i++ {
		if c.Dark(i, -1) || c.Dark(-1, i) || c.Dark(i, c.Size()) || c.Dark(c.Size(), i) {
			t.Fatalf("the frame has a dark module at %d", i)
		}
	}
}

func TestFits(t *testing.T) {
	c := encode(t, strings.Repeat("x", 380)) // 69 modules: a configuration with everything in it
	if c.Size() != 69 {
		t.Fatalf("%d modules", c.Size())
	}
	for _, v := range []struct {
		columns, lines, quiet int
		ok                    bool
	}{
		{200, 60, 4, true},
		{77, 39, 4, true},
		{76, 39, 3, true}, // too narrow by one column
		{77, 38, 3, true}, // too low by one line
		{80, 37, 2, true},
		{73, 37, 2, true},
		{72, 37, 0, false},
		{80, 36, 0, false},
		{80, 24, 0, false},
		{0, 0, 0, false},
	} {
		if quiet, ok := c.Fits(v.columns, v.lines); quiet != v.quiet || ok != v.ok {
			t.Errorf("on %d×%d: frame %d, %v; want %d, %v", v.columns, v.lines, quiet, ok, v.quiet, v.ok)
		}
	}
}

// The usual configuration: a name as endpoint, both families, a preshared key.
// Version 12 holds 367 bytes at level L; what Compact saves keeps it there.
func TestLinesOfTheUsualConfiguration(t *testing.T) {
	c := encode(t, texts(t)["behind.conf.packed"])
	if c.Size() != 65 || c.Lines(qr.NarrowQuiet) != 35 {
		t.Errorf("%d modules, %d lines", c.Size(), c.Lines(qr.NarrowQuiet))
	}
}

func TestTooLong(t *testing.T) {
	secret := strings.Repeat("s3cret ", 1000)
	_, err := qr.Encode(secret)
	var long *qr.TooLongError
	if !errors.As(err, &long) || long.Bytes != 7000 {
		t.Errorf("got %v", err)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Error("the error quotes the text")
	}
	if _, err := qr.Encode(strings.Repeat("x", qr.Capacity+1)); err == nil {
		t.Error("one byte more than the capacity was taken")
	}
}

// A code is the secret in another script.
func TestCodeDoesNotPrint(t *testing.T) {
	c := encode(t, "PrivateKey=x")
	type holder struct {
		c *qr.Code
		d qr.Code
	}
	for _, v := range []any{c, *c, holder{c, *c}, []*qr.Code{c}} {
		for _, verb := range "vsqxXd" {
			for _, flags := range []string{"", "+", "#"} {
				if got := fmt.Sprintf("%"+flags+string(verb), v); len(got) > 120 {
					t.Errorf("%%%s%c of %T prints %d bytes", flags, verb, v, len(got))
				}
			}
		}
	}
	if got := fmt.Sprint(c); got != "(QR code)" {
		t.Error(got)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "c", c)
	if !strings.Contains(log.String(), "(QR code)") {
		t.Error(log.String())
	}
}

// zbar is the second judge, in C and without a line in common with the first.
func TestJudgeZbar(t *testing.T) {
	zbar := need.Program(t, "zbarimg")
	dir := t.TempDir()
	for name, text := range texts(t) {
		if name == "full" || name == "UTF-8" {
			// 177 modules are more than a screen shows; and a code does not say what
			// script its bytes are in, so that zbar guesses Japanese. Configurations
			// are ASCII.
			continue
		}
		c := encode(t, text)
		screen := strings.Split(strings.TrimSuffix(c.Half(qr.NarrowQuiet), "\n"), "\n")
		var shot bytes.Buffer
		if err := png.Encode(&shot, drawHalf(t, screen, c.Columns(qr.NarrowQuiet))); err != nil {
			t.Fatal(err)
		}
		for kind, picture := range map[string][]byte{"PNG": c.PNG(), "terminal": shot.Bytes()} {
			file := filepath.Join(dir, "code.png")
			if err := os.WriteFile(file, picture, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			out, err := exec.CommandContext(ctx, zbar, "--raw", "--quiet", "-Sdisable", "-Sqrcode.enable", file).Output()
			cancel()
			if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != text {
				t.Errorf("%s as %s: %v, read %q", name, kind, err, got)
			}
		}
	}
}

func BenchmarkHalf(b *testing.B) {
	text := texts(b)["behind.conf.packed"]
	for b.Loop() {
		encode(b, text).Half(qr.Quiet)
	}
}

func BenchmarkPNG(b *testing.B) {
	text := texts(b)["behind.conf.packed"]
	var size int
	for b.Loop() {
		size = len(encode(b, text).PNG())
	}
	b.ReportMetric(float64(size), "bytes/picture")
}
