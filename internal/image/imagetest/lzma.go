package imagetest

// lzmaProperties are OpenWrt's and U-Boot's: lc 1, lp 2, pb 2.
const lzmaProperties = (2*5+2)*9 + 1

// LZMA encodes data as an LZMA stream without its header that holds literals only:
// right, and hardly smaller (LZMA SDK's specification; the range coder's carry is
// the usual one).
func LZMA(data []byte) []byte {
	e := &coder{rng: 1<<32 - 1, size: 1}
	match := [4]uint16{1024, 1024, 1024, 1024}
	literals := make([]uint16, 0x300<<3)
	for i := range literals {
		literals[i] = 1024
	}
	var before byte
	for i, b := range data {
		e.bit(&match[i&3], 0)
		p := literals[0x300*((i&3)<<1+int(before>>7)):]
		sym := uint32(1)
		for k := 7; k >= 0; k-- {
			bit := uint32(b) >> k & 1
			e.bit(&p[sym], bit)
			sym = sym<<1 | bit
		}
		before = b
	}
	for range 5 {
		e.shift()
	}
	return e.out
}

type coder struct {
	low   uint64
	rng   uint32
	cache byte
	size  int
	out   []byte
}

func (e *coder) bit(p *uint16, bit uint32) {
	bound := (e.rng >> 11) * uint32(*p)
	if bit == 0 {
		e.rng = bound
		*p += (2048 - *p) >> 5
	} else {
		e.low += uint64(bound)
		e.rng -= bound
		*p -= *p >> 5
	}
	for e.rng < 1<<24 {
		e.rng <<= 8
		e.shift()
	}
}

func (e *coder) shift() {
	if e.low < 0xFF000000 || e.low > 0xFFFFFFFF {
		carry := byte(e.low >> 32)
		b := e.cache
		for ; e.size > 0; e.size-- {
			e.out = append(e.out, b+carry)
			b = 0xFF
		}
		e.cache = byte(e.low >> 24)
	}
	e.size++
	e.low = e.low & 0x00FFFFFF << 8
}
