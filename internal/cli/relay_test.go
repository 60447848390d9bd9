package cli

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/smallserver"
	"github.com/heimweg/heimweg/internal/lab/world"
)

// Nobody can call the house, and the phone comes home all the same: through a
// small server that cannot read what it passes on.
func TestRelay(t *testing.T) {
	t.Parallel()
	c := connect(t, world.Options{Upstream: world.CGNAT})
	c.setUp()
	said := c.must("relay", "relay.example.net", "--server", c.file("server.conf"), "--script", c.file("home.sh"))
	wants(t, said, "UDP 51820 and 51821 in", "mtu = 1340")
	conf, err := os.ReadFile(c.file("server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"server.conf", "home.sh"} {
		if i, err := os.Stat(c.file(f)); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, i, err)
		}
	}
	at := netip.MustParsePrefix("192.0.2.90/24")
	server, err := smallserver.New(c.w.World, smallserver.Place{Link: c.w.Link("hosting"), Addr: at, Gateway: netip.MustParseAddr("192.0.2.1")}, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	c.w.Name("relay.example.net", at.Addr())
	script, err := os.ReadFile(c.file("home.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if out, errs, exit := c.w.Router.Sh(string(script)); exit != 0 {
		t.Fatalf("exit code %d\n%s%s", exit, out, errs)
	}
	text, err := os.ReadFile(c.file("home.toml"))
	if err != nil {
		t.Fatal(err)
	}
	with := regexp.MustCompile(`(?m)^\[tunnel\].*$`).ReplaceAll(text, []byte("$0\nendpoint = \"relay.example.net\"\nmtu = 1340"))
	if err := os.WriteFile(c.file("home.toml"), with, 0o600); err != nil {
		t.Fatal(err)
	}
	c.must("apply", "--yes")
	c.must("peer", "add", "phone", "-o", c.file("phone.conf"))
	c.mustComeHome("phone.conf")
	if server.Passed() == 0 {
		t.Error("the phone came home by another way")
	}
	// heimweg leaves the link alone, and a device from outside is let in.
	wants(t, c.must("plan"), "everything is as home.toml wants it")
	wants(t, c.must("verify"), "Home can be reached")
	got := c.w.WhereDied(func(p lab.Packet) bool { return p.DstPort == 51820 })
	if strings.Contains(got, "home router") {
		t.Errorf("the home router drops what the relay sends:\n%s", got)
	}
	if code, _, said := c.heimweg("relay", "relay.example.net", "--server", c.file("server.conf"), "--script", c.file("home.sh")); code == 0 {
		t.Errorf("keys were overwritten\n%s", said)
	}
}
