package eva

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Request is what somebody asked our TFTP server for.
type Request struct {
	From net.Addr
	Name string
	// Refused says why it was not served; "" when it was, or is being.
	Refused string
	Done    bool // the whole file was taken
	Err     error
}

// TFTP's operations (RFC 1350, 2347).
const (
	opRead, opWrite, opData, opAck, opError, opOptions = 1, 2, 3, 4, 5, 6

	maxRequest = 512
)

// tftpRead is a read request with the options that we know (RFC 2348, 2349).
type tftpRead struct {
	name    string
	block   int // bytes a block; 512 without the option
	options []byte
}

// parseTFTP reads a request; refuse is what to answer when it is none of ours.
func parseTFTP(p []byte, size int) (r tftpRead, refuse string) {
	if len(p) < 4 || len(p) > maxRequest {
		return r, "not a request"
	}
	fields := strings.Split(string(p[2:]), "\x00")
	switch op := binary.BigEndian.Uint16(p); {
	case op == opWrite:
		return tftpRead{name: fields[0]}, "this server is read-only"
	case op != opRead || len(fields) < 3:
		return r, "not a request"
	case !strings.EqualFold(fields[1], "octet"):
		return tftpRead{name: fields[0]}, "only octet mode"
	}
	r = tftpRead{name: fields[0], block: 512}
	for i := 2; i+1 < len(fields)-1; i += 2 {
		name, value := strings.ToLower(fields[i]), fields[i+1]
		n, err := strconv.Atoi(value)
		switch {
		case err != nil:
		case name == "blksize" && n >= 8 && n <= 65464:
			r.block = min(n, 1468) // what fits an Ethernet frame
			r.options = append(r.options, fmt.Sprintf("blksize\x00%d\x00", r.block)...)
		case name == "tsize":
			r.options = append(r.options, fmt.Sprintf("tsize\x00%d\x00", size)...)
		case name == "timeout" && n >= 1 && n <= 255:
			r.options = append(r.options, "timeout\x00"+value+"\x00"...)
		}
	}
	return r, ""
}

// ServeTFTP serves one file under one name, read-only, on UDP port 69 until ctx
// ends: U-Boot of the boxes of method E asks 192.168.1.70 for it, so this
// computer must have that address on the cable (facts eva 3.1). Every request is
// told, the refused ones too: a wrong name is the usual mistake. tell may be
// called from several goroutines and must not be nil.
func ServeTFTP(ctx context.Context, n Net, name string, content []byte, tell func(Request)) error {
	pc, err := n.ListenUDP(ctx, 69)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	buf := make([]byte, 1500)
	for {
		k, from, err := pc.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		r, refuse := parseTFTP(buf[:k], len(content))
		if refuse == "" && r.name != name {
			refuse = fmt.Sprintf("only %s is here", name)
		}
		if tell(Request{From: from, Name: r.name, Refused: refuse}); refuse != "" {
			code := byte(1)
			if refuse == "this server is read-only" {
				code = 2
			}
			_, _ = pc.WriteTo(append([]byte{0, opError, 0, code}, refuse+"\x00"...), from)
			continue
		}
		wg.Go(func() {
			err := sendTFTP(ctx, n, from, r, content)
			tell(Request{From: from, Name: r.name, Done: err == nil, Err: err})
		})
	}
}

// sendTFTP is one transfer, from a port of its own.
func sendTFTP(ctx context.Context, n Net, to net.Addr, r tftpRead, content []byte) error {
	pc, err := n.ListenUDP(ctx, 0)
	if err != nil {
		return err
	}
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	if len(r.options) > 0 {
		if err := exchange(ctx, pc, to, append([]byte{0, opOptions}, r.options...), 0); err != nil {
			return err
		}
	}
	for block := 1; ; block++ {
		from := min((block-1)*r.block, len(content))
		part := content[from:min(from+r.block, len(content))]
		packet := binary.BigEndian.AppendUint16([]byte{0, opData}, uint16(block)) // numbers start over after 65535
		if err := exchange(ctx, pc, to, append(packet, part...), uint16(block)); err != nil {
			return err
		}
		if len(part) < r.block {
			return nil
		}
	}
}

// exchange sends a packet until its block is acknowledged.
func exchange(ctx context.Context, pc net.PacketConn, to net.Addr, packet []byte, block uint16) error {
	buf := make([]byte, maxRequest)
	for range tftpTries {
		if _, err := pc.WriteTo(packet, to); err != nil {
			return err
		}
		_ = pc.SetReadDeadline(time.Now().Add(tftpAgain))
		for {
			k, from, err := pc.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
				break
			}
			if err != nil {
				return err
			}
			if from.String() != to.String() || k < 4 {
				continue
			}
			switch op := binary.BigEndian.Uint16(buf); {
			case op == opError:
				return fmt.Errorf("the box ended the transfer: %q", strings.TrimRight(string(buf[4:k]), "\x00"))
			case op == opAck && binary.BigEndian.Uint16(buf[2:]) == block:
				return nil
			}
		}
	}
	return ErrSilent
}
