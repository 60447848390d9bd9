package image

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
)

// OpenWrt's fwtool appends chunks to an image; each ends in a trailer of 16 bytes,
// big endian: magic, CRC, type, 3 bytes, size of data and trailer. The CRC starts
// at all ones, covers everything in the file before that trailer, and is not
// inverted at the end: the complement of zlib's (facts eva.md 4.5, deps.md 14;
// read in openwrt package/system/fwtool/src/fwtool.c; not tried on a real image).
const (
	trailerMagic     = "FWx0"
	trailerSize      = 16
	chunkSignature   = 0
	chunkInfo        = 1
	largestMetadata  = 30 << 10 // fwtool's METADATA_MAXLEN
	largestSignature = 1 << 10
)

// A trailer is what stands behind the image proper.
type trailer struct {
	body  int64 // where the image proper ends
	parts []Part
}

// metadata is fwtool's JSON (OpenWrt include/image-commands.mk).
type metadata struct {
	Compat           string   `json:"compat_version"`
	CompatMessage    string   `json:"compat_message"`
	SupportedDevices []string `json:"supported_devices"`
	// When compat is not 1.0 the list stands here and supported_devices holds a
	// sentence, so that old systems refuse.
	NewSupportedDevices []string `json:"new_supported_devices"`
	Version             struct {
		Dist     string `json:"dist"`
		Version  string `json:"version"`
		Revision string `json:"revision"`
		Target   string `json:"target"`
		Board    string `json:"board"`
	} `json:"version"`
}

// readTrailer walks fwtool's chunks backwards: an optional signature, then the
// metadata. It stops at the first that is not right.
func readTrailer(f *file, m *Image) trailer {
	t := trailer{body: f.size}
	for range 4 { // a signature and a metadata chunk; more would be odd
		at := t.body - trailerSize
		p := f.at(at, trailerSize)
		if len(p) < trailerSize || string(p[:4]) != trailerMagic {
			return t
		}
		sum, typ, size := binary.BigEndian.Uint32(p[4:]), p[8], int64(binary.BigEndian.Uint32(p[12:]))
		name, largest := "metadata", int64(largestMetadata)
		if typ == chunkSignature {
			name, largest = "signature", largestSignature
		}
		if size < trailerSize || size > largest+8+trailerSize || size > t.body {
			m.check(name, Bad, "its trailer says %d bytes", size)
			return t
		}
		got := ^f.crc(0, at)
		if !m.judge(name+" checksum", got == sum, "it is %08x instead of %08x: something before it was changed", got, sum) {
			t.body -= size
			return t
		}
		t.body -= size
		t.parts = append([]Part{{name, t.body, size}}, t.parts...)
		if typ == chunkSignature {
			m.Signed = true
			continue
		}
		if typ == chunkInfo {
			readMetadata(f.at(t.body, int(size-trailerSize)), m)
			return t
		}
	}
	return t
}

// readMetadata takes the header of 8 bytes and the JSON behind it.
func readMetadata(p []byte, m *Image) {
	if len(p) < 8 || p[0]|p[1]|p[2]|p[3] != 0 {
		m.check("metadata", Bad, "of a version that we do not know")
		return
	}
	var md metadata
	if err := json.Unmarshal(bytes.TrimRight(p[8:], "\x00\n "), &md); err != nil {
		m.check("metadata", Bad, "not readable")
		return
	}
	m.HasMetadata = true
	m.Compat, m.CompatMessage = printable(md.Compat, 16), printable(md.CompatMessage, 400)
	if m.Compat == "" {
		m.Compat = "1.0" // fwtool.sh's default
	}
	list := md.NewSupportedDevices
	if len(list) == 0 {
		list = md.SupportedDevices
	}
	for _, d := range list {
		if d = printable(d, 64); d != "" && !strings.Contains(d, " ") { // a sentence is no board
			m.board(d)
		}
	}
	v := md.Version
	m.Release = Release{Distribution: printable(v.Dist, 40), Version: printable(v.Version, 40), Revision: printable(v.Revision, 40), Target: printable(v.Target, 40)}
}

// printable makes a string from a file harmless to show.
func printable(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == '\t' {
			r = ' '
		}
		if r < ' ' || r == 0x7F || r >= 0x80 && r < 0xA0 || r == '\uFFFD' || r >= 0x2028 && r <= 0x202E || r >= 0x2066 && r <= 0x2069 {
			continue
		}
		if b.Len()+len(string(r)) > n {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
