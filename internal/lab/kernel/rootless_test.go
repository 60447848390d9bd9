//go:build linux

package kernel_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab/kernel"
)

// again runs tests of this program in another process. It may not skip any.
func again(t *testing.T, as *syscall.SysProcAttr, env string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe", append(args, "-test.v")...)
	c.Env = append(slices.Clone(os.Environ()), env+"=1")
	c.SysProcAttr = as
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return out.String()
}

// All of it works in a user namespace, where root is root over nothing else.
func TestInUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("HEIMWEG_LAB_KERNEL") != "" {
		t.Log("the whole run is in one") // Enter saw to it
		return
	}
	needs(t, everything...)
	own := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	out := again(t, own, "HEIMWEG_LAB_KERNEL", "-test.run=^(TestModelAndKernel|TestWayHomeIPv6|TestRoaming|TestNASWithoutGateway)$", "-configs=20")
	for _, name := range []string{"TestModelAndKernel", "TestWayHomeIPv6", "TestRoaming", "TestNASWithoutGateway"} {
		if !strings.Contains(out, "--- PASS: "+name) {
			t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
}

// Somebody who is not root gets a namespace of their own from Enter, and is told
// by name what is missing all the same.
func TestNotRoot(t *testing.T) {
	const marker = "HEIMWEG_TEST_NOT_ROOT"
	if os.Getenv(marker) != "" {
		for _, a := range []kernel.Ability{kernel.UserNamespaces, kernel.NetworkNamespaces, kernel.Veth, kernel.Switches, kernel.NFT, kernel.Tun, kernel.RawSockets} {
			if err, bad := missing()[a]; bad {
				fmt.Printf("missing %s: %v\n", a, err)
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		return // the whole run shows it
	}
	need.Program(t, "nft")
	const nobody = 65534
	out := again(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}, marker, "-test.run=^TestNotRoot$")
	for _, l := range strings.Split(out, "\n") {
		// The device file may be root's alone.
		if strings.HasPrefix(l, "missing ") && !strings.HasPrefix(l, "missing tun devices: ") {
			t.Error(l)
		}
	}
	if !strings.Contains(out, "--- PASS: TestNotRoot") {
		t.Errorf("did not run:\n%s", out)
	}
}
