package image

import (
	"bytes"
	"errors"
	"io"
)

// unlzma decompresses a record's stream (LZMA as in the LZMA SDK's
// specification; the record holds its properties and lengths) to find out what is
// inside. It keeps only the last largestWindow bytes, which hold a device tree that
// was appended to a kernel, and all of a U-Boot.
//
// It is here because the standard library has no LZMA and because nothing else
// tells for which box a bare record is. Nothing is written from what it gives.
func unlzma(f *file, rec record) (tail []byte, err error) {
	limit := int64(rec.uncompressed)
	endMark := rec.uncompressed == 1<<32-1 // streamed: an end mark instead of a length
	if endMark {
		limit = largestUnpacked
	}
	if limit > largestUnpacked {
		return nil, errors.New("it unpacks to more than any of these boxes could hold")
	}
	if rec.properties >= 9*5*5 {
		return nil, errors.New("properties out of range")
	}
	d := &unpacker{f: f, at: rec.off + recordHeader, end: rec.off + recordHeader + rec.compressed}
	p := int(rec.properties)
	d.lc, d.lp, d.pb = uint(p%9), uint(p/9%5), uint(p/45)
	d.window = make([]byte, max(1, min(limit, largestWindow)))
	d.literals = make([]prob, 0x300<<(d.lc+d.lp))
	d.reset()
	if err := d.run(limit, endMark); err != nil {
		return nil, err
	}
	if f.err != nil {
		return nil, f.err
	}
	if d.total < int64(len(d.window)) {
		return d.window[:d.total], nil
	}
	n := d.total % int64(len(d.window))
	return append(append(make([]byte, 0, len(d.window)), d.window[n:]...), d.window[:n]...), nil
}

// Unlzma decompresses an LZMA stream without its header to that many bytes, of
// which it keeps the last 8 MiB.
func Unlzma(stream []byte, properties byte, size uint32) ([]byte, error) {
	f := &file{r: bytes.NewReader(stream), size: int64(len(stream))}
	return unlzma(f, record{off: -recordHeader, compressed: int64(len(stream)), uncompressed: size, properties: properties})
}

const (
	largestUnpacked = 64 << 20
	largestWindow   = 8 << 20 // OpenWrt's `lzma e` uses 8 MiB dictionaries or smaller
)

var (
	errStream = errors.New("the LZMA stream contradicts itself")
	errWindow = errors.New("its dictionary is larger than we keep")
)

// A prob is the probability of a zero, in 1/2048.
type prob uint16

type unpacker struct {
	f       *file
	at, end int64
	in      []byte
	short   bool // more was asked for than is there

	rng, code  uint32
	lc, lp, pb uint
	window     []byte
	pos        int // of the next byte in the window
	total      int64

	literals              []prob
	isMatch, isRep0Long   [12 << 4]prob
	isRep, isG0, isG1, g2 [12]prob
	slots                 [4][64]prob
	special               [115]prob
	align                 [16]prob
	length, repLength     lengths
}

type lengths struct {
	choice, choice2 prob
	low, mid        [16][8]prob
	high            [256]prob
}

func half(p []prob) {
	for i := range p {
		p[i] = 1024
	}
}

func (d *unpacker) reset() {
	half(d.literals)
	half(d.isMatch[:])
	half(d.isRep0Long[:])
	for _, p := range [][]prob{d.isRep[:], d.isG0[:], d.isG1[:], d.g2[:], d.special[:], d.align[:]} {
		half(p)
	}
	for i := range d.slots {
		half(d.slots[i][:])
	}
	for _, l := range []*lengths{&d.length, &d.repLength} {
		l.choice, l.choice2 = 1024, 1024
		half(l.high[:])
		for i := range l.low {
			half(l.low[i][:])
			half(l.mid[i][:])
		}
	}
}

func (d *unpacker) next() uint32 {
	if len(d.in) == 0 {
		if d.at >= d.end {
			d.short = true
			return 0
		}
		d.in = d.f.at(d.at, int(min(pieceSize, d.end-d.at)))
		d.at += int64(len(d.in))
		if len(d.in) == 0 {
			d.short = true
			return 0
		}
	}
	b := d.in[0]
	d.in = d.in[1:]
	return uint32(b)
}

func (d *unpacker) bit(p *prob) uint32 {
	bound := (d.rng >> 11) * uint32(*p)
	var b uint32
	if d.code < bound {
		d.rng = bound
		*p += (2048 - *p) >> 5
	} else {
		d.rng -= bound
		d.code -= bound
		*p -= *p >> 5
		b = 1
	}
	if d.rng < 1<<24 {
		d.rng <<= 8
		d.code = d.code<<8 | d.next()
	}
	return b
}

func (d *unpacker) direct(n uint32) (v uint32) {
	for ; n > 0; n-- {
		d.rng >>= 1
		v <<= 1
		if d.code >= d.rng {
			d.code -= d.rng
			v |= 1
		}
		if d.rng < 1<<24 {
			d.rng <<= 8
			d.code = d.code<<8 | d.next()
		}
	}
	return v
}

func (d *unpacker) tree(p []prob, bits uint) uint32 {
	m := uint32(1)
	for range bits {
		m = m<<1 | d.bit(&p[m])
	}
	return m - 1<<bits
}

func (d *unpacker) reverse(p []prob, bits uint) (v uint32) {
	m := uint32(1)
	for i := range bits {
		b := d.bit(&p[m])
		m = m<<1 | b
		v |= b << i
	}
	return v
}

func (d *unpacker) readLength(l *lengths, posState uint32) uint32 {
	if d.bit(&l.choice) == 0 {
		return d.tree(l.low[posState][:], 3)
	}
	if d.bit(&l.choice2) == 0 {
		return 8 + d.tree(l.mid[posState][:], 3)
	}
	return 16 + d.tree(l.high[:], 8)
}

func (d *unpacker) put(b byte) {
	d.window[d.pos] = b
	if d.pos++; d.pos == len(d.window) {
		d.pos = 0
	}
	d.total++
}

func (d *unpacker) back(distance uint32) byte {
	i := d.pos - int(distance) - 1
	if i < 0 {
		i += len(d.window)
	}
	return d.window[i]
}

func (d *unpacker) literal(state, rep0 uint32) {
	var before uint32
	if d.total > 0 {
		before = uint32(d.back(0))
	}
	at := (uint32(d.total)&(1<<d.lp-1))<<d.lc + before>>(8-d.lc)
	p := d.literals[0x300*at:][:0x300]
	sym := uint32(1)
	if state >= 7 {
		match := uint32(d.back(rep0))
		for sym < 0x100 {
			mb := match >> 7 & 1
			match <<= 1
			b := d.bit(&p[(1+mb)<<8+sym])
			sym = sym<<1 | b
			if mb != b {
				break
			}
		}
	}
	for sym < 0x100 {
		sym = sym<<1 | d.bit(&p[sym])
	}
	d.put(byte(sym))
}

// distance reads how far back a match of that length lies; all ones is the end mark.
func (d *unpacker) distance(length uint32) uint32 {
	slot := d.tree(d.slots[min(length, 3)][:], 6)
	if slot < 4 {
		return slot
	}
	bits := slot>>1 - 1
	dist := (2 | slot&1) << bits
	if slot < 14 {
		return dist + d.reverse(d.special[dist-slot:], uint(bits))
	}
	dist += d.direct(bits-4) << 4
	return dist + d.reverse(d.align[:], 4)
}

func afterLiteral(state uint32) uint32 {
	switch {
	case state < 4:
		return 0
	case state < 10:
		return state - 3
	}
	return state - 6
}

func after(state, low, high uint32) uint32 {
	if state < 7 {
		return low
	}
	return high
}

// run unpacks limit bytes, or up to the end mark.
func (d *unpacker) run(limit int64, endMark bool) error {
	if d.next() != 0 {
		return errStream
	}
	d.rng = 1<<32 - 1
	for range 4 {
		d.code = d.code<<8 | d.next()
	}
	var state uint32
	var rep [4]uint32
	for d.total < limit {
		if d.short {
			return io.ErrUnexpectedEOF
		}
		posState := uint32(d.total) & (1<<d.pb - 1)
		if d.bit(&d.isMatch[state<<4+posState]) == 0 {
			if state >= 7 && !d.reaches(rep[0]) {
				return errWindow
			}
			d.literal(state, rep[0])
			state = afterLiteral(state)
			continue
		}
		var length uint32
		var single bool
		if d.bit(&d.isRep[state]) != 0 {
			length, single = d.repeat(state, posState, &rep)
			if single {
				state = after(state, 9, 11)
			} else {
				state = after(state, 8, 11)
			}
		} else {
			rep[3], rep[2], rep[1] = rep[2], rep[1], rep[0]
			length = d.readLength(&d.length, posState)
			state = after(state, 7, 10)
			rep[0] = d.distance(length)
			if rep[0] == 1<<32-1 {
				if !endMark {
					return errStream
				}
				return nil
			}
			length += 2
		}
		switch {
		case int64(rep[0]) >= d.total:
			return errStream
		case !d.reaches(rep[0]):
			return errWindow
		}
		for ; length > 0 && d.total < limit; length-- {
			d.put(d.back(rep[0]))
		}
	}
	return nil
}

func (d *unpacker) reaches(distance uint32) bool {
	return int64(distance) < d.total && int64(distance) < int64(len(d.window))
}

// repeat reads a match at one of the last four distances, which becomes the first.
func (d *unpacker) repeat(state, posState uint32, rep *[4]uint32) (length uint32, single bool) {
	if d.bit(&d.isG0[state]) == 0 {
		if d.bit(&d.isRep0Long[state<<4+posState]) == 0 {
			return 1, true
		}
	} else {
		var dist uint32
		if d.bit(&d.isG1[state]) == 0 {
			dist = rep[1]
		} else {
			if d.bit(&d.g2[state]) == 0 {
				dist = rep[2]
			} else {
				dist, rep[3] = rep[3], rep[2]
			}
			rep[2] = rep[1]
		}
		rep[1], rep[0] = rep[0], dist
	}
	return d.readLength(&d.repLength, posState) + 2, false
}
