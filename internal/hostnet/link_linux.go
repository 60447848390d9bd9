package hostnet

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A linkWatch hears from the kernel whenever something about the cards changes.
type linkWatch struct {
	card Card
	file *os.File
	raw  syscall.RawConn
}

// watchLink subscribes to changes; it needs no rights.
func watchLink(c Card) (*linkWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	w := &linkWatch{card: c, file: os.NewFile(uintptr(fd), "netlink")}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

// each calls change with the card's state now, and whenever it may have changed,
// until change returns true or ctx ends. A card that is gone is *NoCardError.
func (w *linkWatch) each(ctx context.Context, change func(Link) bool) error {
	defer context.AfterFunc(ctx, func() { w.file.Close() })()
	buf := make([]byte, 64<<10)
	for {
		d, err := w.state()
		if err != nil {
			return err
		}
		if change(d.link()) {
			return nil
		}
		if err := w.wait(buf); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

// state asks for the card as it is now.
func (w *linkWatch) state() (device, error) {
	list, err := devices()
	if err != nil {
		return device{}, err
	}
	for _, d := range list {
		if d.index == w.card.Index {
			return d, nil
		}
	}
	return device{}, &NoCardError{Wanted: w.card.Name}
}

// wait waits for the next change of our card. A message that was lost because
// there were too many counts as one.
func (w *linkWatch) wait(buf []byte) error {
	for {
		var n int
		var got error
		err := w.raw.Read(func(fd uintptr) bool {
			n, _, got = unix.Recvfrom(int(fd), buf, 0)
			return got != unix.EAGAIN && got != unix.EINTR
		})
		switch {
		case err != nil:
			return err
		case errors.Is(got, unix.ENOBUFS):
			return nil
		case got != nil:
			return os.NewSyscallError("netlink", got)
		}
		list, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil // look for oneself
		}
		for _, m := range list {
			if d, ok := parseLink(m.Data); ok && d.index == w.card.Index {
				return nil
			}
		}
	}
}

func waitLink(ctx context.Context, c Card, up bool) error {
	want := LinkDown
	if up {
		want = LinkUp
	}
	w, err := watchLink(c)
	if err != nil {
		return err
	}
	defer w.file.Close()
	return w.each(ctx, func(l Link) bool { return l == want || !up && l == LinkUnknown })
}
