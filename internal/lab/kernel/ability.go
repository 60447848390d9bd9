//go:build linux

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// Ability is something that the machine must allow.
type Ability string

// The abilities, in the order in which they build on each other.
const (
	UserNamespaces    Ability = "user namespaces"    // only asked of who is not root
	NetworkNamespaces Ability = "network namespaces" // hosts
	Veth              Ability = "veth devices"       // cables
	Switches          Ability = "kernel switches"    // forwarding, in /proc/sys/net
	NFT               Ability = "nftables"           // rules, with the nft command
	Tun               Ability = "tun devices"        // tunnels, and packets made by hand
	RawSockets        Ability = "raw sockets"        // to see what is delivered
)

// Probe tries everything once and says what is missing and why; an empty map
// means that all is there.
func Probe() map[Ability]error {
	missing := map[Ability]error{}
	note := func(a Ability, err error) bool {
		if err != nil {
			missing[a] = err
		}
		return err == nil
	}
	one, err := NewHost("one")
	if !note(NetworkNamespaces, err) {
		if os.Getenv(inside) == "" && os.Geteuid() != 0 {
			missing[UserNamespaces] = errors.New("not in one: Enter was not called, or was refused")
		}
		for _, a := range []Ability{Veth, Switches, NFT, Tun, RawSockets} {
			missing[a] = errors.New("needs network namespaces")
		}
		return missing
	}
	defer one.Close()
	two, err := NewHost("two")
	if !note(NetworkNamespaces, err) {
		return missing
	}
	defer two.Close()
	note(Veth, Link(one, "a", two, "b"))
	note(Switches, one.Forward())
	note(NFT, one.Load("table inet probe {\n\tchain nat {\n\t\ttype nat hook postrouting priority srcnat\n\t\tct state new masquerade\n\t}\n}\n"))
	note(Tun, one.Do(func() error {
		d, err := tun.CreateTUN("probe", 1420)
		if err != nil {
			return err
		}
		return d.Close()
	}))
	note(RawSockets, one.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}))
	return missing
}

// inside marks the environment of a program that was started by Enter.
const inside = "HEIMWEG_LAB_KERNEL"

// Enter sees to it that the program may make namespaces. As root there is nothing
// to do. Else the program is run again, as root of a user namespace of its own,
// where the kernel permits that; then again is true, and code is how it ended.
func Enter(stdin io.Reader, stdout, stderr io.Writer) (code int, again bool) {
	if os.Geteuid() == 0 || os.Getenv(inside) != "" || canUserNamespace() != nil {
		return 0, false
	}
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = ownNamespace()
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), true
	}
	fmt.Fprintln(stderr, "run again in a user namespace:", err)
	return 1, true
}

// canUserNamespace tries it with a program that does nothing.
func canUserNamespace() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/true")
	c.SysProcAttr = ownNamespace()
	return c.Run()
}

func ownNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL, // nobody waits for it any more
	}
}
