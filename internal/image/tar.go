package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
)

const mostEntries = 4096

// beginsTar looks for the checksum that every tar header carries.
func beginsTar(head []byte, _ *file) bool {
	if len(head) < 512 || head[0] == 0 {
		return false
	}
	sum := 0
	for i, b := range head {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	want, digits := 0, 0
	for _, b := range bytes.Trim(head[148:156], " \x00") {
		if b < '0' || b > '7' {
			return false
		}
		want, digits = want<<3|int(b-'0'), digits+1
	}
	return digits > 0 && sum == want
}

// readTar takes a sysupgrade archive (entries sysupgrade-<board>/CONTROL, /kernel
// and /root; OpenWrt scripts/sysupgrade-tar.sh), AVM's firmware (./var/…, facts
// eva.md 4.7), or any other archive.
func readTar(f *file, m *Image, t trailer) {
	m.Kind, m.Format = Other, "tar archive"
	avm, ours := avmTar{}, false
	err := entries(f, t.body, func(name string, off, size int64) {
		dir, base, _ := strings.Cut(strings.TrimPrefix(name, "./"), "/")
		board, found := strings.CutPrefix(dir, "sysupgrade-")
		switch {
		case found:
			ours = true
			m.Kind, m.Format, m.layout = Sysupgrade, "tar archive with kernel and root file system", layoutTar
			readTarEntry(f, m, board, base, off, size)
		case dir == "var" && !ours:
			m.Kind, m.Format = AVMImage, "AVM's firmware for FRITZ!OS' own update page"
			avm.entry(f, base, off, size)
		}
	})
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		m.cutTail("archive", "an entry ends behind the end of the file")
	case err != nil:
		m.check("archive", Bad, "it is damaged")
	default:
		m.check("archive", Good, "")
	}
	if m.Kind == Sysupgrade {
		for _, part := range []string{"kernel", "root"} {
			if _, ok := m.Part(part); !ok && err == nil {
				m.check(part, Bad, "the archive has none")
			}
		}
		if !m.HasMetadata {
			m.cutTail("metadata", "there is none at the end")
		}
	}
	avm.finish(m)
}

// entries visits the files of an archive that ends before end.
func entries(f *file, end int64, visit func(name string, off, size int64)) error {
	r := &counted{r: io.NewSectionReader(f.r, 0, end)}
	t := tar.NewReader(r)
	for range mostEntries {
		h, err := t.Next()
		if err == io.EOF {
			// The reader takes a missing end mark for the end.
			if endsInZeros(f, end) {
				return nil
			}
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			if r.at >= end {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if h.Size < 0 || r.at+h.Size > end {
			return io.ErrUnexpectedEOF
		}
		if h.Typeflag == tar.TypeReg {
			visit(h.Name, r.at, h.Size)
		}
	}
	return errors.New("too many entries")
}

// endsInZeros: a tar archive ends in two blocks of zeros.
func endsInZeros(f *file, end int64) bool { return end >= 1024 && f.all(end-1024, 1024, 0) }

// counted knows where its reader stands.
type counted struct {
	r  *io.SectionReader
	at int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.at += int64(n)
	return n, err
}

func (c *counted) Seek(off int64, whence int) (int64, error) {
	n, err := c.r.Seek(off, whence)
	if err == nil {
		c.at = n
	}
	return n, err
}

func readTarEntry(f *file, m *Image, board, base string, off, size int64) {
	m.board(printable(board, 64))
	if _, again := m.Part(base); again {
		return // one look at each is enough, whatever an archive repeats
	}
	part := *m // checks of the entry are those of the image; its kind is not
	switch base {
	case "kernel":
		m.part("kernel", off, size)
		part.Parts = nil
		switch {
		case f.has(off, recordMagic):
			readRecord(f, &part, off, "kernel")
		case f.has(off, fdtMagic):
			readFIT(f, &part, off)
		}
	case "root":
		m.part("root", off, size)
		part.Parts = nil
		if f.has(off, squashMagic) {
			squashfs(f, &part, off, off+size)
		}
	default:
		return
	}
	m.Checks, m.CutOff, m.Missing, m.Boards = part.Checks, part.CutOff, part.Missing, part.Boards
	if m.Release.Version == "" {
		m.Release = part.Release
	}
}

// avmTar collects what tells AVM's firmware from any archive with a directory var.
type avmTar struct {
	seen    bool
	marks   int
	product string
}

func (a *avmTar) entry(f *file, base string, off, size int64) {
	a.seen = true
	switch base {
	case "install", "chksum", "info.txt", "signature", "tmp/kernel.image", "tmp/fit-image", "firmware-update.uimg", "regelex", "remote/":
		a.marks++
	case "content":
		a.marks++
		for _, line := range strings.Split(string(f.at(off, int(min(size, 4096)))), "\n") {
			if p, ok := strings.CutPrefix(strings.TrimSpace(line), "Product="); ok {
				a.product = printable(p, 60)
			}
		}
	}
}

func (a *avmTar) finish(m *Image) {
	switch {
	case m.Kind != AVMImage:
	case a.marks == 0 && !m.CutOff:
		m.Kind, m.Format = Other, "tar archive"
	case a.product != "":
		m.Format += ", for " + a.product
	}
}
