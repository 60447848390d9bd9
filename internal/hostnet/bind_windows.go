package hostnet

import (
	"math/bits"

	"golang.org/x/sys/windows"
)

// unicastIf is IP_UNICAST_IF (ws2ipdef.h): which card packets leave by. Windows
// takes packets for an address on any card, so the socket is bound to ours, too.
const (
	unicastIf   = 31
	bindsToCard = false
)

func bindToCard(fd uintptr, c Card) error {
	return windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, unicastIf, int(bits.ReverseBytes32(uint32(c.Index))))
}
