package image

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// A format is one thing that a file can begin like.
type format struct {
	begins func(head []byte, f *file) bool
	read   func(f *file, m *Image, t trailer)
}

// formats are tried from the top; the first that fits reads the file.
var formats = []format{
	{func(_ []byte, f *file) bool { return f.size == 0 }, is(Empty, "an empty file")},
	{blank, is(Blank, "nothing but erased or zeroed bytes")},
	{magic(recordMagic), readEVA},
	{magic(fdtMagic), beginFIT},
	{magic(ubiMagic), readUBI},
	{magic("\x27\x05\x19\x56"), readLegacy},
	{magic(okliMagic), readLegacy},
	{magic("MZ"), readWindows},
	{magic("\x1f\x8b"), is(Gzip, "packed with gzip")},
	{magic("PK\x03\x04"), is(Zip, "a zip archive")},
	{magic("PK\x05\x06"), is(Zip, "an empty zip archive")},
	{beginsTar, readTar},
	{magic("HDR0"), is(Factory, "a TRX image (Broadcom and others)")},
	{magic("*#$^"), is(Factory, "a Netgear CHK image")},
	{magic("\x5e\xa3\xa4\x17"), is(Factory, "a Seama image (D-Link, Arcadyan)")},
	{magic("SHRS"), is(Factory, "a D-Link image")},
	{magic("\x01\x00\x00\x00TP-LINK"), is(Factory, "a TP-Link image")},
	{magic("device:"), is(Factory, "a Netgear DNI image")},
	{magic("\x7fELF"), is(Factory, "an ELF program, as MikroTik's boot loader takes")},
	{at(510, "\x55\xaa"), is(Other, "a disk image for a PC")},
	{at(0x8001, "CD001"), is(Other, "a CD image")},
	{magic("QFI\xfb"), is(Other, "a disk of a virtual machine")},
	{magic(squashMagic), is(Other, "a root file system alone (squashfs)")},
	{magic("sqsh"), is(Other, "a root file system alone (squashfs, big endian)")},
	{magic("\xfd7zXZ\x00"), is(Other, "packed with xz")},
	{magic("BZh"), is(Other, "packed with bzip2")},
	{magic("\x28\xb5\x2f\xfd"), is(Other, "packed with zstd")},
	{magic("7z\xbc\xaf\x27\x1c"), is(Other, "a 7z archive")},
	{magic("Rar!"), is(Other, "a RAR archive")},
	{magic("%PDF"), is(Other, "a PDF document")},
	{magic("\x89PNG"), is(Other, "a picture")},
	{magic("\xff\xd8\xff"), is(Other, "a picture")},
	{web, readHTML},
	{text, is(Text, "a text file")},
}

func magic(s string) func([]byte, *file) bool {
	return func(head []byte, _ *file) bool { return bytes.HasPrefix(head, []byte(s)) }
}

func at(off int64, s string) func([]byte, *file) bool {
	return func(_ []byte, f *file) bool { return f.has(off, s) }
}

func is(k Kind, what string) func(*file, *Image, trailer) {
	return func(_ *file, m *Image, _ trailer) { m.Kind, m.Format = k, what }
}

func blank(head []byte, f *file) bool {
	return len(head) > 0 && (head[0] == 0 || head[0] == 0xFF) && f.all(0, f.size, head[0])
}

func readLegacy(f *file, m *Image, _ trailer) {
	m.Kind, m.Format = Factory, "a uImage, as U-Boot takes"
	readUImage(f, m, 0)
}

// avmRecover stands in every recovery program of AVM (facts eva.md 4.7).
const avmRecover = "recover-tool-version:[RECOVER:"

func readWindows(f *file, m *Image, _ trailer) {
	m.Kind, m.Format = Windows, "a Windows program"
	found, last := false, []byte(nil)
	f.each(0, f.size, func(p []byte) {
		found = found || bytes.Contains(p, []byte(avmRecover)) || bytes.Contains(append(last, p[:min(len(p), len(avmRecover))]...), []byte(avmRecover))
		last = append(last[:0], p[max(0, len(p)-len(avmRecover)):]...)
	})
	if found {
		m.Kind, m.Format = AVMRecovery, "AVM's recovery program for Windows"
	}
}

// web recognises what a download server or a hotel's log-in page sends instead of
// the file.
func web(head []byte, _ *file) bool {
	s := strings.ToLower(strings.TrimLeft(strings.TrimPrefix(string(head), "\ufeff"), " \t\r\n"))
	for _, begin := range []string{"<!doctype html", "<html", "<head", "<title", "<body", "<?xml", "<!--", "<script", "<meta"} {
		if strings.HasPrefix(s, begin) {
			return true
		}
	}
	return false
}

func readHTML(f *file, m *Image, _ trailer) {
	m.Kind, m.Format = HTML, "a web page"
	p := string(f.at(0, 16<<10))
	low := strings.ToLower(p)
	if i := strings.Index(low, "<title>"); i >= 0 && len(low) == len(p) {
		title, _, _ := strings.Cut(p[i+len("<title>"):], "<")
		if title = printable(title, 80); title != "" {
			m.Format += " with the title \"" + title + "\""
		}
	}
}

// text never quotes the file: it could be a configuration with a key in it.
func text(_ []byte, f *file) bool {
	p := f.at(0, 4096)
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 && (len(p) >= utf8.UTFMax || f.size <= 4096) || r < ' ' && !strings.ContainsRune("\t\r\n\f\x1b", r) || r == 0x7F {
			return false
		}
		p = p[n:]
	}
	return true
}
