package hostnet

import "golang.org/x/sys/unix"

const bindsToCard = true

func bindToCard(fd uintptr, c Card) error {
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BOUND_IF, c.Index)
}
