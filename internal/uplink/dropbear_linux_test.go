package uplink_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uplink"
)

// inside runs in a mount namespace with an account root without a password, as on
// a fresh OpenWrt; $D is the test's directory.
const inside = `set -e
mount -t tmpfs -o mode=700 none /root
mount -t tmpfs -o mode=755 none /run
mount --bind "$D/passwd" /etc/passwd
mount --bind "$D/shadow" /etc/shadow
exec "$@"`

// ssh starts OpenWrt's SSH server on the home router and logs in from the laptop.
func (r *real) ssh() *shell.Conn {
	r.Helper()
	program, unshare := need.Program(r, "dropbear"), need.Program(r, "unshare")
	if err := exec.Command(unshare, "--mount", "mount", "-t", "tmpfs", "none", "/run").Run(); err != nil {
		need.Missing(r, "mount namespace", "this machine lets nobody make one: "+err.Error())
	}
	key := filepath.Join(r.dir, "host")
	if out, err := exec.Command(need.Program(r, "dropbearkey"), "-t", "ed25519", "-f", key).CombinedOutput(); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	for name, text := range map[string]string{"passwd": "root:x:0:0:root:/root:/bin/sh\n", "shadow": "root::19000:0:99999:7:::\n"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
			r.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c := exec.CommandContext(ctx, unshare, "--mount", "sh", "-c", inside, "sh", program, "-F", "-E", "-B", "-r", key, "-p", "22", "-P", filepath.Join(r.dir, "dropbear.pid"))
	c.Env = append(os.Environ(), "D="+r.dir)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // of the thread that Do keeps until it ends
	ended := make(chan error, 1)
	go func() { ended <- r.router.Do(c.Run) }()
	r.Cleanup(func() { cancel(); <-ended })

	o := shell.Options{Config: "none", HostKeys: &shell.Memory{}, Auth: shell.Auth{NoneOnly: true}, Dial: from(r.laptop).Dial}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := shell.Open(ctx, shell.Target{Addr: "192.168.1.1"}, o)
		if err == nil {
			r.Cleanup(func() { conn.Close() })
			return conn
		}
		var none *shell.UnreachableError
		if !errors.As(err, &none) || ctx.Err() != nil {
			r.Fatal(err)
		}
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err
			r.Fatalf("dropbear: %v", err)
		}
	}
}

// Everything that needs no datagrams goes through the SSH channel of a real
// dropbear: a mapping, an opening for IPv6, and a closed door that is told from
// silence.
func TestThroughDropbear(t *testing.T) {
	r := newReal(t)
	stop := r.miniupnpd("ext_ip=" + saidPublic)
	conn := r.ssh()
	o := r.options()
	o.Direct, o.Via = uplink.Way{}, uplink.Way{Dial: conn.Dial}
	g := r.ask(o)
	m, err := g.Map(t.Context(), wireguard)
	if err != nil || !m.Confirmed || m.To.Addr() != client {
		t.Errorf("%v %+v", err, m)
	}
	r.reached(outsidePort, true)
	to := netip.AddrPortFrom(netip.MustParseAddr(router6), 51820)
	if _, err := g.Pinhole(t.Context(), "udp", to, time.Hour); err != nil {
		t.Error(err)
	}
	r.reached(to.String(), true)
	stop()
	_, err = uplink.Ask(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "UPnP: refused, switched off (connection refused); PCP: not asked: an SSH channel carries no UDP") {
		t.Error(err)
	}
}
