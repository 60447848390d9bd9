package imagetest

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"testing"

	"github.com/heimweg/heimweg/internal/check/need"
)

func TestCksum(t *testing.T) {
	if got := Cksum([]byte("123456789")); got != 930766865 {
		t.Errorf("got %d", got)
	}
	judge := need.Program(t, "cksum")
	c := exec.Command(judge)
	p := UBoot("FRITZ4040")
	c.Stdin = bytes.NewReader(p[:0x7FFF8])
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := decimal(binary.LittleEndian.Uint32(p[0x7FFFC:])) + " 524280\n"; string(out) != want {
		t.Errorf("cksum says %q, the trailer %q", out, want)
	}
}

func decimal(n uint32) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

// xz must unpack what our encoder packs.
func TestLZMA(t *testing.T) {
	judge := need.Program(t, "xz")
	for _, data := range [][]byte{nil, []byte("a"), Noise(1, 100_000), make([]byte, 5000), bytes.Repeat([]byte{0xFF}, 70_000)} {
		head := []byte{lzmaProperties, 0, 0, 128, 0}
		c := exec.Command(judge, "--format=lzma", "-dc")
		c.Stdin = bytes.NewReader(append(binary.LittleEndian.AppendUint64(head, uint64(len(data))), LZMA(data)...))
		got, err := c.Output()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: xz says %v and unpacks %d", len(data), err, len(got))
		}
	}
}

// The seed's image had 5,505,028 bytes, 0x540000 and the last end mark (facts
// eva.md 4.3): a multiple of 256 KiB and 4.
func TestPadRoot(t *testing.T) {
	for _, n := range []int{1, 4095, 4096, 300_000, 262_144, 262_145} {
		p := PadRoot(make([]byte, n))
		want := (n+262_143)/262_144*262_144 + 4
		if len(p) != want || !bytes.HasSuffix(p, []byte(jffs2End)) {
			t.Errorf("%d bytes padded to %d, want %d", n, len(p), want)
		}
	}
}

func TestSameOptionsSameBytes(t *testing.T) {
	if !bytes.Equal(EVA(Options{}), EVA(Options{})) || bytes.Equal(EVA(Options{}), EVA(Options{Seed: 1})) {
		t.Error("the seed does not decide")
	}
}
