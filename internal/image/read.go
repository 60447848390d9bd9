package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// pieceSize is how much of a file is held at once.
const pieceSize = 64 << 10

// A file is a reader of known size. A failed read is remembered and everything
// after it reads as nothing, so that formats need not carry errors about.
type file struct {
	r    io.ReaderAt
	size int64
	err  error
	buf  []byte // for each, reused
}

// at gives the n bytes at off, fewer where the file ends; n is at most pieceSize.
func (f *file) at(off int64, n int) []byte {
	if f.err != nil || off < 0 || off >= f.size || n <= 0 || n > pieceSize {
		return nil
	}
	n = int(min(int64(n), f.size-off))
	p := make([]byte, n)
	f.read(p, off)
	return p
}

// read fills p, which lies inside the file.
func (f *file) read(p []byte, off int64) {
	n, err := f.r.ReadAt(p, off)
	if n == len(p) {
		return
	}
	clear(p)
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // shorter than its owner said
	}
	if f.err == nil {
		f.err = err
	}
}

// each hands the bytes from off to off+n in pieces to do.
func (f *file) each(off, n int64, do func([]byte)) {
	if f.buf == nil {
		f.buf = make([]byte, pieceSize)
	}
	for off >= 0 && n > 0 && off < f.size && f.err == nil {
		p := f.buf[:min(int64(len(f.buf)), n, f.size-off)]
		f.read(p, off)
		if f.err != nil {
			return
		}
		do(p)
		off += int64(len(p))
		n -= int64(len(p))
	}
}

// has reports whether the bytes of s stand at off.
func (f *file) has(off int64, s string) bool { return string(f.at(off, len(s))) == s }

func (f *file) le32(off int64) uint32 {
	p := f.at(off, 4)
	if len(p) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(p)
}

// crc is the CRC-32 of zlib over a range.
func (f *file) crc(off, n int64) uint32 {
	var c uint32
	f.each(off, n, func(p []byte) { c = crc32.Update(c, crc32.IEEETable, p) })
	return c
}

// cksum is the checksum of POSIX' cksum program: polynomial 0x04C11DB7 bit by bit
// from the left, the length appended, inverted (facts eva.md 4.2).
func (f *file) cksum(off, n int64) uint32 {
	var c uint32
	f.each(off, n, func(p []byte) {
		for _, b := range p {
			c = c<<8 ^ leftTable[byte(c>>24)^b]
		}
	})
	for ; n > 0; n >>= 8 {
		c = c<<8 ^ leftTable[byte(c>>24)^byte(n)]
	}
	return ^c
}

var leftTable = func() (t [256]uint32) {
	for i := range t {
		c := uint32(i) << 24
		for range 8 {
			if c&(1<<31) != 0 {
				c = c<<1 ^ 0x04C11DB7
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return t
}()

// all reports whether the range holds nothing but b.
func (f *file) all(off, n int64, b byte) bool {
	same := true
	f.each(off, n, func(p []byte) {
		for _, c := range p {
			same = same && c == b
		}
	})
	return same
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// PredictCheck is what EVA's CHECK should answer after the size bytes of r were
// written to a partition of that many bytes: the CRC-32 of zlib over the file and
// 0xFF up to the partition's end (facts eva.md 1.5: two programs that were
// written against real devices agree). One remark to the contrary exists, that
// CHECK itself adds eight bytes, so a difference is a warning and no verdict [?].
// A file larger than the partition is an error.
func PredictCheck(r io.ReaderAt, size, partition int64) (uint32, error) {
	if size > partition {
		return 0, &TooLargeError{size, partition}
	}
	f := &file{r: r, size: size}
	c := f.crc(0, size)
	if f.err != nil {
		return 0, f.err
	}
	erased := make([]byte, pieceSize)
	for i := range erased {
		erased[i] = 0xFF
	}
	for n := partition - size; n > 0; n -= pieceSize {
		c = crc32.Update(c, crc32.IEEETable, erased[:min(n, pieceSize)])
	}
	return c, nil
}

// A TooLargeError says that a file does not fit into a partition; both in bytes.
type TooLargeError struct{ Size, Partition int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("a file of %d bytes does not fit into a partition of %d", e.Size, e.Partition)
}
