package image

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"

	"github.com/heimweg/heimweg/internal/image/imagetest"
)

// The streams were made by xz 5.4 (liblzma, format "alone") with other settings
// each: lc 1 lp 2 pb 2 as OpenWrt's, lc 3 lp 0 pb 2, lc 0 lp 4 pb 0. They hold
// matches, repeats of all four distances, and an end mark; all are the same text.
func TestUnlzmaReadsForeignStreams(t *testing.T) {
	for _, name := range []string{"a", "b", "c"} {
		p, err := os.ReadFile("testdata/" + name + ".lzma")
		if err != nil {
			t.Fatal(err)
		}
		for what, size := range map[string]uint32{"end mark": 1<<32 - 1, "length": foreignSize} {
			rec := imagetest.RecordOf(0, 0, p[13:], size, p[0], binary.LittleEndian.Uint32(p[1:]))
			got, err := unlzma(&file{r: bytes.NewReader(rec), size: int64(len(rec))}, record{compressed: int64(len(p) - 13), uncompressed: size, properties: p[0]})
			if err != nil || crc32.ChecksumIEEE(got) != foreignCRC || len(got) != foreignSize {
				t.Errorf("%s by %s: %d bytes, %v", name, what, len(got), err)
			}
		}
	}
}

const (
	foreignSize = 26751
	foreignCRC  = 1619900443
)

func TestUnlzmaRefuses(t *testing.T) {
	p, err := os.ReadFile("testdata/a.lzma")
	if err != nil {
		t.Fatal(err)
	}
	stream := p[13:]
	for what, c := range map[string]struct {
		stream     []byte
		size       uint32
		properties byte
	}{
		"a short stream":      {stream[:len(stream)/2], foreignSize, p[0]},
		"a first byte":        {append([]byte{1}, stream[1:]...), foreignSize, p[0]},
		"properties":          {stream, foreignSize, 225},
		"a giant":             {stream, 1<<32 - 2, p[0]},
		"an early end mark":   {stream, foreignSize + 1, p[0]},
		"matches before data": {append([]byte{0, 0xFF, 0xFF, 0xFF, 0xFE}, bytes.Repeat([]byte{0xFF}, 100)...), 1000, p[0]},
	} {
		rec := imagetest.RecordOf(0, 0, c.stream, c.size, c.properties, 0)
		if got, err := unlzma(&file{r: bytes.NewReader(rec), size: int64(len(rec))}, record{compressed: int64(len(c.stream)), uncompressed: c.size, properties: c.properties}); err == nil {
			t.Errorf("%s: unpacked to %d bytes", what, len(got))
		}
	}
}

// More than the window: the end is kept, in order.
func TestUnlzmaKeepsTheEnd(t *testing.T) {
	data := append(make([]byte, largestWindow+12345), "the end"...)
	rec := imagetest.Record(0, 0, data)
	f := &file{r: bytes.NewReader(rec), size: int64(len(rec))}
	got, err := unlzma(f, record{compressed: int64(len(rec) - recordOverhead), uncompressed: uint32(len(data)), properties: rec[28]})
	if err != nil || len(got) != largestWindow || !bytes.HasSuffix(got, []byte("\x00\x00the end")) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func FuzzUnlzma(f *testing.F) {
	for _, name := range []string{"a", "b", "c"} {
		p, err := os.ReadFile("testdata/" + name + ".lzma")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p[13:], p[0], uint32(foreignSize))
	}
	f.Fuzz(func(t *testing.T, stream []byte, properties byte, size uint32) {
		got, err := unlzma(&file{r: bytes.NewReader(append(make([]byte, recordHeader), stream...)), size: int64(recordHeader + len(stream))},
			record{compressed: int64(len(stream)), uncompressed: size % (1 << 20), properties: properties})
		if err == nil && len(got) != int(size%(1<<20)) {
			t.Errorf("%d bytes instead of %d", len(got), size%(1<<20))
		}
	})
}

// POSIX names 930766865 for "123456789" (cksum prints it).
func TestCksum(t *testing.T) {
	p := []byte("123456789")
	if got := (&file{r: bytes.NewReader(p), size: 9}).cksum(0, 9); got != 930766865 {
		t.Errorf("got %d", got)
	}
	p = imagetest.Noise(1, 200_000)
	if got := (&file{r: bytes.NewReader(p), size: 200_000}).cksum(0, 200_000); got != imagetest.Cksum(p) {
		t.Errorf("got %08x, bit by bit %08x", got, imagetest.Cksum(p))
	}
}
