package evabox

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// tftpWait is how long U-Boot waits for a packet.
const tftpWait = 5 * time.Second

var tftpServer = netip.MustParseAddr("192.168.1.70")

// Fetch is U-Boot's way to its next stage: from 192.168.1.1 it asks the TFTP server
// at 192.168.1.70 for the file until it gets it (facts eva 3.1, E). It takes the
// address away again: the next stage has its own.
func (b *Box) Fetch(ctx context.Context, file string) ([]byte, bool) {
	b.moveTo(netip.MustParseAddr("192.168.1.1"))
	defer b.moveTo(netip.Addr{})
	for ctx.Err() == nil {
		if waitFor(ctx, nil, b.opt.Times.TFTP) != nil {
			return nil, false
		}
		data, err := b.tftpGet(ctx, file)
		b.note(fmt.Sprintf("tftp %s: %d bytes, %v", file, len(data), err))
		if err == nil {
			return data, true
		}
	}
	return nil, false
}

// startsFromRAM tells whether U-Boot finds something to start: a FIT or, for tests
// that need no more, a record.
func startsFromRAM(stage []byte) bool {
	return bytes.HasPrefix(stage, fitMagic) || bootsFromRAM(stage) == OpenWrt
}

func (b *Box) tftpGet(ctx context.Context, file string) ([]byte, error) {
	pc, err := b.net.ListenUDP(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	server := &net.UDPAddr{IP: tftpServer.AsSlice(), Port: 69}
	ask := append([]byte{0, 1}, file+"\x00octet\x00timeout\x005\x00blksize\x001468\x00"...)
	if _, err := pc.WriteTo(ask, server); err != nil {
		return nil, err
	}
	var out []byte
	size, want := 512, uint16(1)
	buf := make([]byte, 2048)
	for {
		_ = pc.SetReadDeadline(time.Now().Add(tftpWait))
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
