//go:build linux

package kernel_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/lab/kernel"
)

// builds marks the environment of a test process that builds a home and waits to
// be killed.
const builds = "HEIMWEG_TEST_BUILDS"

// A process that is killed leaves nothing behind: no namespace, and so no device,
// no rule, no connection; nothing in the machine's own network.
func TestKilled(t *testing.T) {
	needs(t, everything...)
	if os.Getenv(builds) != "" {
		h, err := kernel.NewHome()
		must(t, err)
		_, err = h.Router.WireGuard("wg0", 1420, "listen_port=51820\n")
		must(t, err)
		fmt.Printf("\nbuilt %s\n", strings.Join(namespaces(t, os.Getpid()), " "))
		select {} // until killed
	}
	outside := devices(t)
	c := exec.Command("/proc/self/exe", "-test.run=^TestKilled$")
	c.Env = append(os.Environ(), builds+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	var made []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if list, ok := strings.CutPrefix(s.Text(), "built "); ok {
			made = strings.Fields(list)
			break
		}
	}
	must(t, c.Process.Kill())
	if err := c.Wait(); err == nil {
		t.Error("was not killed")
	}
	if len(made) < 7 {
		t.Fatalf("the process held %d namespaces, want one for each host", len(made))
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		left := held(made)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still alive: %v", left)
		}
	}
	if now := devices(t); now != outside {
		t.Errorf("the machine's own devices changed: %q, before %q", now, outside)
	}
}

func devices(t *testing.T) string {
	list, err := os.ReadDir("/sys/class/net")
	must(t, err)
	var s []string
	for _, d := range list {
		s = append(s, d.Name())
	}
	return strings.Join(s, " ")
}

// namespaces lists the network namespaces that a process holds open.
func namespaces(t *testing.T, pid int) []string {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	must(t, err)
	var out []string
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "net:") {
			out = append(out, to)
		}
	}
	return out
}

// held tells which of the namespaces any process or file descriptor still holds.
func held(made []string) []string {
	var left []string
	for _, pattern := range []string{"/proc/[0-9]*/fd/*", "/proc/[0-9]*/ns/net"} {
		links, _ := filepath.Glob(pattern)
		for _, l := range links {
			to, err := os.Readlink(l)
			if err != nil {
				continue
			}
			for _, m := range made {
				if to == m {
					left = append(left, l+" "+to)
				}
			}
		}
	}
	return left
}
