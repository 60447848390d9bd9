package wgconf_test

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/heimweg/heimweg/internal/check/need"
)

// Where wg looks for devices that are programs (wireguard-tools, ipc-uapi-unix.h).
const socketDir = "/var/run/wireguard"

// A device is a socket that takes what `wg setconf` sends.
type device struct {
	name string
	got  chan []string
}

// last is the latest message.
func (d *device) last() []string { return canonical(<-d.got) }

// newDevice listens where wg looks for it. The directory is root's, so others
// cannot run this test.
func newDevice(t *testing.T) *device {
	if os.Getuid() != 0 {
		need.Missing(t, "root", "wg looks for devices in "+socketDir)
	}
	if err := os.MkdirAll(socketDir, 0o700); err != nil {
		need.Missing(t, "root", err.Error())
	}
	d := &device{name: "hwtest" + strconv.Itoa(os.Getpid()), got: make(chan []string, 1)}
	l, err := net.Listen("unix", filepath.Join(socketDir, d.name+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if lines := answer(c); len(lines) > 0 {
				d.got <- lines
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return d
}

// answer reads one request, which ends with an empty line, and agrees to it.
// wg also connects and says nothing, to see whether the device is there.
func answer(c net.Conn) (lines []string) {
	defer c.Close()
	s := bufio.NewScanner(c)
	for s.Scan() && s.Text() != "" {
		lines = append(lines, s.Text())
	}
	if len(lines) > 0 {
		c.Write([]byte("errno=0\n\n"))
	}
	return lines
}
