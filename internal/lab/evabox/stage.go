package evabox

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// tftpRetry is how long U-Boot rests between two tries (facts eva 3.1).
const tftpRetry = 5 * time.Second

var tftpServer = netip.MustParseAddr("192.168.1.70")

// fetchStage is U-Boot in RAM: it asks the TFTP server at 192.168.1.70 for its
// file until it gets it (facts eva 3.1, E).
func (b *Box) fetchStage(ctx context.Context) bool {
	b.moveTo(netip.MustParseAddr("192.168.1.1"))
	for ctx.Err() == nil {
		if waitFor(ctx, nil, tftpRetry) != nil {
			return false
		}
		data, err := b.tftpGet(ctx)
		b.note(fmt.Sprintf("tftp %s: %d bytes, %v", b.model.UBoot, len(data), err))
		if err == nil && bootsFromRAM(data) == OpenWrt {
			return true
		}
	}
	return false
}

func (b *Box) tftpGet(ctx context.Context) ([]byte, error) {
	pc, err := b.net.ListenUDP(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	server := &net.UDPAddr{IP: tftpServer.AsSlice(), Port: 69}
	ask := append([]byte{0, 1}, b.model.UBoot+"\x00octet\x00timeout\x005\x00blksize\x001468\x00"...)
	if _, err := pc.WriteTo(ask, server); err != nil {
		return nil, err
	}
	var out []byte
	size, want := 512, uint16(1)
	buf := make([]byte, 2048)
	for {
		_ = pc.SetReadDeadline(time.Now().Add(tftpRetry))
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return out, err
		}
		if n < 4 {
			continue
		}
		ack := func(block uint16) {
			_, _ = pc.WriteTo(binary.BigEndian.AppendUint16([]byte{0, 4}, block), from)
		}
		switch op := binary.BigEndian.Uint16(buf); {
		case op == 6:
			size = 1468
			ack(0)
		case op == 5:
			return nil, fmt.Errorf("server says %q", buf[4:n])
		case op == 3 && binary.BigEndian.Uint16(buf[2:]) == want:
			out = append(out, buf[4:n]...)
			ack(want)
			if want++; n-4 < size {
				return out, nil
			}
		}
	}
}
