package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/heimweg/heimweg/internal/hostnet/ether"
)

// A packetSocket is a raw Ethernet port of Linux (packet(7)). It hears frames to
// a MAC that is not the card's, for which it puts the card into promiscuous mode;
// the kernel ends that with the socket, also when the process is killed. The
// kernel's own TCP/IP drops such frames: it neither answers nor resets what it
// does not know.
type packetSocket struct {
	file *os.File
	raw  syscall.RawConn
	oob  []byte
}

// openPacket opens a port on a card for frames to our MAC and to groups. It needs
// CAP_NET_RAW.
func openPacket(c Card, mac ether.MAC) (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := setUpPacket(fd, c, mac); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &packetSocket{file: os.NewFile(uintptr(fd), "packet:"+c.Name), oob: make([]byte, 256)}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

func setUpPacket(fd int, c Card, mac ether.MAC) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil { // a burst shall fit
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as far as we may
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return os.NewSyscallError("setsockopt PACKET_AUXDATA", err)
	}
	program := onlyFor(mac)
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
	}
	at := unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: c.Index}
	if err := unix.Bind(fd, &at); err != nil {
		return os.NewSyscallError("bind", err)
	}
	all := unix.PacketMreq{Ifindex: int32(c.Index), Type: unix.PACKET_MR_PROMISC}
	return os.NewSyscallError("setsockopt PACKET_MR_PROMISC", unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &all))
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// onlyFor is a filter that lets frames to a MAC and to groups through, so that
// the computer's own traffic on a busy card does not wake us (classic BPF).
func onlyFor(mac ether.MAC) unix.SockFprog {
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 1, Jt: 4},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: binary.BigEndian.Uint32(mac[2:]), Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(binary.BigEndian.Uint16(mac[:])), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
}

// ReadFrame implements ether.Frames.
func (s *packetSocket) ReadFrame(b []byte) (int, error) {
	for {
		n, skip, err := s.readOnce(b)
		switch {
		case errors.Is(err, unix.ENETDOWN): // switched off; it may come back
			continue
		case err != nil:
			return 0, err
		case !skip:
			return n, nil
		}
	}
}

func (s *packetSocket) readOnce(b []byte) (n int, skip bool, err error) {
	var oobn int
	var got error
	err = s.raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, got = unix.Recvmsg(int(fd), b, s.oob, 0)
		return got != unix.EAGAIN && got != unix.EINTR
	})
	if err == nil {
		err = got
	}
	if err != nil {
		return 0, false, fmt.Errorf("raw Ethernet port: %w", err)
	}
	aux, ok := auxdata(s.oob[:oobn])
	if ok && aux.Status&unix.TP_STATUS_VLAN_VALID != 0 && aux.Vlan_tci&0xfff != 0 {
		return 0, true, nil // somebody else's network on the same cable
	}
	if ok && aux.Status&unix.TP_STATUS_CSUMNOTREADY != 0 {
		ether.Complete(b[:n])
	}
	return n, false, nil
}

func auxdata(oob []byte) (aux unix.TpacketAuxdata, ok bool) {
	for len(oob) >= unix.CmsgLen(0) {
		head, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return aux, false
		}
		if head.Level == unix.SOL_PACKET && head.Type == unix.PACKET_AUXDATA && len(data) >= int(unsafe.Sizeof(aux)) {
			return *(*unix.TpacketAuxdata)(unsafe.Pointer(&data[0])), true
		}
		oob = rest
	}
	return aux, false
}

// WriteFrame implements ether.Frames.
func (s *packetSocket) WriteFrame(b []byte) error {
	_, err := s.file.Write(b)
	return err
}

// Close implements ether.Frames.
func (s *packetSocket) Close() error { return s.file.Close() }
