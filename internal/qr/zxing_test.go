package qr_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"github.com/heimweg/heimweg/internal/qr"
)

// read is the judge: a port of ZXing, which many phones' scanners are made of.
func read(t *testing.T, img image.Image) string {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	got, err := qrcode.NewQRCodeReader().Decode(bitmap, map[gozxing.DecodeHintType]any{
		gozxing.DecodeHintType_TRY_HARDER: true, gozxing.DecodeHintType_CHARACTER_SET: "UTF-8",
	})
	if err != nil {
		t.Errorf("not readable: %v", err)
		return ""
	}
	return got.GetText()
}

func TestPNGIsRead(t *testing.T) {
	for name, text := range texts(t) {
		t.Run(name, func(t *testing.T) {
			data := encode(t, text).PNG()
			img, err := png.Decode(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, img); got != text {
				t.Errorf("read %q", got)
			}
			if bits := data[24]; bits != 1 {
				t.Errorf("%d bits per pixel", bits)
			}
		})
	}
}

func TestSVGIsRead(t *testing.T) {
	for name, text := range texts(t) {
		t.Run(name, func(t *testing.T) {
			if got := read(t, drawSVG(t, encode(t, text).SVG())); got != text {
				t.Errorf("read %q", got)
			}
		})
	}
}

func TestHalfBlocksAreRead(t *testing.T) {
	for name, text := range texts(t) {
		for quiet := qr.NarrowQuiet; quiet <= qr.Quiet; quiet++ {
			t.Run(fmt.Sprint(name, " quiet ", quiet), func(t *testing.T) {
				c := encode(t, text)
				screen := c.Half(quiet)
				lines := strings.Split(strings.TrimSuffix(screen, "\n"), "\n")
				if len(lines) != c.Lines(quiet) {
					t.Errorf("%d lines, announced %d", len(lines), c.Lines(quiet))
				}
				if got := read(t, drawHalf(t, lines, c.Columns(quiet))); got != text {
					t.Errorf("read %q", got)
				}
			})
		}
	}
}

// Photographs are never clean: turned, blurred by noise, and small.
func TestNoisyPNGIsRead(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	text := texts(t)["behind.conf.packed"]
	clean, err := png.Decode(bytes.NewReader(encode(t, text).PNG()))
	if err != nil {
		t.Fatal(err)
	}
	b := clean.Bounds()
	noisy := image.NewGray(image.Rect(0, 0, b.Dy(), b.Dx()))
	for y := range b.Dy() {
		for x := range b.Dx() {
			v, _, _, _ := clean.At(x, y).RGBA()
			grey := 60 + int(v>>8)*150/255 + int(r.NormFloat64()*10)
			noisy.SetGray(b.Dy()-1-y, x, color.Gray{Y: uint8(min(max(grey, 0), 255))}) // a quarter turn
		}
	}
	if got := read(t, noisy); got != text {
		t.Errorf("read %q", got)
	}
}
