package hostnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

var lentAddr = netip.MustParsePrefix("192.168.178.2/24")

func lentCable(t testing.TB, c *cableTest, record string) *Cable {
	t.Helper()
	k, err := Open(t.Context(), c.card(), Options{At: eva.Usual(), Record: record, Only: Lent})
	must(t, err)
	t.Cleanup(func() { k.Close() })
	return k
}

// strict makes the kernel refuse packets that it would not answer over the same
// card, as some distributions do.
func strict(t testing.TB, on bool) {
	t.Helper()
	v := map[bool]string{true: "1", false: "0"}[on]
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte(v), 0))
}

// The computer is in a network of the same numbers by another card, as in most
// homes. The box on the cable is found all the same, packets for the other
// network keep their way unless the kernel wants it otherwise, and afterwards
// everything is as it was.
func TestLentFindsAndGivesBack(t *testing.T) {
	for _, filter := range []bool{false, true} {
		t.Run(map[bool]string{false: "usual", true: "strict rp_filter"}[filter], func(t *testing.T) {
			other, c := newCable(t), newCable(t)
			strict(t, filter)
			t.Cleanup(func() { strict(t, false) })
			other.give("192.168.178.20/24")
			other.Link(true) // nobody at its end answers for 192.168.178.1
			must(t, waitLink(t.Context(), other.card(), true))
			before := settings(t, c)
			record := filepath.Join(t.TempDir(), "borrowed.json")
			k := lentCable(t, c, record)
			must(t, k.Use(lentAddr))
			b := evabox.New(c, evabox.Options{Times: quick})
			t.Cleanup(b.Close)
			b.Power(true)
			box := find(t, k)
			defer box.Close()
			if _, err := box.Environment(t.Context()); err != nil {
				t.Error(err)
			}
			if got := wayTo(t, "192.168.178.1"); (got == c.name) != filter {
				t.Errorf("packets of others for 192.168.178.1 leave by %s", got)
			}
			if got := wayTo(t, "192.168.178.77"); got != other.name {
				t.Errorf("packets for 192.168.178.77 leave by %s", got)
			}
			if !c.card().Has(lentAddr.Addr()) {
				t.Errorf("the card has %v", c.card().Addrs)
			}
			if b, err := os.ReadFile(record); err != nil || !strings.Contains(string(b), lentAddr.String()) {
				t.Errorf("the record says %q, %v", b, err)
			}
			must(t, k.Close())
			if after := settings(t, c); !slices.Equal(withoutNeighbours(before), withoutNeighbours(after)) {
				t.Errorf("the computer's settings were\n%v\nand are\n%v", before, after)
			}
			if _, err := os.Stat(record); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the record is still there: %v", err)
			}
		})
	}
}

// withoutNeighbours leaves out what the kernel learns by itself.
func withoutNeighbours(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.Contains(s, ":") })
}

// wayTo is the card by which the kernel sends.
func wayTo(t testing.TB, a string) string {
	t.Helper()
	list, err := netlink.RouteGet(netip.MustParseAddr(a).AsSlice())
	must(t, err)
	l, err := netlink.LinkByIndex(list[0].LinkIndex)
	must(t, err)
	return l.Attrs().Name
}

// Another address takes the place of the first; one that a person gave the card
// is used and stays; a card that is switched off is switched on for the time.
func TestLentUses(t *testing.T) {
	c := newCable(t)
	near, err := netlink.LinkByName(c.name)
	must(t, err)
	c.give("192.168.1.70/24")
	must(t, netlink.LinkSetDown(near))
	if card := c.card(); card.On || card.Link != LinkUnknown {
		t.Errorf("a card that is off: %+v", card)
	}
	record := filepath.Join(t.TempDir(), "borrowed.json")
	k := lentCable(t, c, record)
	has := func(want ...string) {
		t.Helper()
		var got []string
		for _, a := range c.card().Addrs {
			if a.Addr().Is4() {
				got = append(got, a.String())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the card has %v, want %v", got, want)
		}
	}
	must(t, k.Use(lentAddr))
	has("192.168.1.70/24", "192.168.178.2/24")
	must(t, k.Use(netip.MustParsePrefix("192.168.1.70/24")))
	has("192.168.1.70/24")
	must(t, k.Use(netip.MustParsePrefix("192.168.1.70/24"), netip.MustParsePrefix("169.254.3.4/16")))
	has("169.254.3.4/16", "192.168.1.70/24")
	var no *NotPossibleError
	if err := k.Look(t.Context(), nil); !errors.As(err, &no) {
		t.Errorf("ARP over the system: %v", err)
	}
	if !c.card().On {
		t.Error("the card is off")
	}
	must(t, k.Close())
	has("192.168.1.70/24")
	if c.card().On {
		t.Error("the card was off and is on")
	}
}

const asChild = "HEIMWEG_TEST_CHILD"

// child is another run of the program: it borrows and waits for its end.
func child() int {
	list, err := Cards(context.Background())
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	name, record, _ := strings.Cut(os.Getenv(asChild), " ")
	card, err := Choose(list, name)
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	k, err := Open(context.Background(), card, Options{At: eva.Usual(), Record: record, Only: Lent})
	if err == nil {
		err = k.Use(lentAddr, netip.MustParsePrefix("169.254.3.4/16"))
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("borrowed\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return 0
}

// A run that was killed leaves addresses, routes and a card switched on; the next
// one cleans up, and not while the first is alive.
func TestKilled(t *testing.T) {
	c := newCable(t)
	strict(t, true) // so that there are routes, too
	t.Cleanup(func() { strict(t, false) })
	near, err := netlink.LinkByName(c.name)
	must(t, err)
	must(t, netlink.LinkSetDown(near))
	before := settings(t, c)
	record := filepath.Join(t.TempDir(), "borrowed.json")

	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"="+c.name+" "+record)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "borrowed\n" {
		t.Fatalf("the other run says %q, %v", line, err)
	}
	var lent *LentError
	if err := GiveBack(t.Context(), record); !errors.As(err, &lent) || lent.PID != cmd.Process.Pid {
		t.Errorf("while the other run lives: %v", err)
	}
	if _, err := Open(t.Context(), c.card(), Options{Record: record}); !errors.As(err, &lent) {
		t.Errorf("opening while the other run lives: %v", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	if card, way := c.card(), wayTo(t, "192.168.178.1"); !card.Has(lentAddr.Addr()) || !card.On || way != c.name {
		t.Fatalf("nothing was left behind: %+v, 192.168.178.1 by %s", card, way)
	}
	must(t, GiveBack(t.Context(), record))
	if after := settings(t, c); !slices.Equal(before, after) || c.card().On {
		t.Errorf("the computer's settings were\n%v\nand are\n%v (on: %v)", before, after, c.card().On)
	}
	must(t, GiveBack(t.Context(), record)) // nothing to do
}

// The record is written before the change; what is recorded and was never done,
// or is gone already, is no obstacle, nor is a card that is gone.
func TestGiveBackWhatIsNotThere(t *testing.T) {
	c := newCable(t)
	record := filepath.Join(t.TempDir(), "borrowed.json")
	l := &loan{sys: refuses{}, card: c.card(), record: record}
	ch := change{What: address, Net: lentAddr}
	if err := l.borrow(t.Context(), ch); !errors.Is(err, syscall.EPERM) || len(l.have) > 0 {
		t.Errorf("a refused change: %v, have %v", err, l.have)
	}
	if _, err := os.Stat(record); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused change leaves a record: %v", err)
	}
	all := []change{{What: switchOn}, ch, {What: hostRoute, Net: netip.MustParsePrefix("192.168.178.1/32")}}
	must(t, l.write(all))
	must(t, GiveBack(t.Context(), record))
	must(t, l.write(all))
	c.unplugCard()
	must(t, GiveBack(t.Context(), record))
	must(t, os.WriteFile(record, []byte(`{"version":1,"card":"lo","changes":[{"what":"everything"}]}`), 0o600))
	var bad *RecordError
	if err := GiveBack(t.Context(), record); !errors.As(err, &bad) {
		t.Errorf("a strange record: %v", err)
	}
}

// refuses is a system that looks at the record before it refuses.
type refuses struct{}

func (refuses) do(_ context.Context, c Card, ch change) error { return syscall.EPERM }
func (refuses) undo(context.Context, Card, change) error      { return syscall.EPERM }

// Where the system refuses, the error says what a person has to do, and what
// cannot be given back is named and stays in the record.
func TestRefused(t *testing.T) {
	c := newCable(t)
	record := filepath.Join(t.TempDir(), "borrowed.json")
	way := &lent{loan: &loan{sys: refuses{}, card: c.card(), record: record, unlock: func() {}}}
	var needs *NeedsAddressError
	if err := way.Use([]netip.Prefix{lentAddr}); !errors.As(err, &needs) || needs.Address != lentAddr || needs.Card.Name != c.name {
		t.Errorf("%v", err)
	}
	way.loan.have = []change{{What: address, Net: lentAddr}}
	var left *LeftError
	if err := way.loan.end(t.Context()); !errors.As(err, &left) || !slices.Equal(left.What, []string{"address 192.168.178.2/24"}) {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(record); err != nil || !bytes.Contains(b, []byte("192.168.178.2/24")) {
		t.Errorf("the record says %q, %v", b, err)
	}
}

// NetworkManager is told to leave the card alone, and afterwards told to have it
// again. A stand-in for its program writes down what it is told.
func TestNetworkManager(t *testing.T) {
	c := newCable(t)
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$*\" >>" + dir + "/told\ncase \"$*\" in *GENERAL.STATE*) [ \"$STATE\" ] || exit 8; echo \"$STATE\";; esac\n"
	must(t, os.WriteFile(filepath.Join(dir, "nmcli"), []byte(script), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for state, want := range map[string]string{
		"100 (connected)": "device set " + c.name + " managed no\ndevice set " + c.name + " managed yes\n",
		"10 (unmanaged)":  "",
		"":                "", // it is not running
	} {
		t.Setenv("STATE", state)
		os.Remove(filepath.Join(dir, "told"))
		k := lentCable(t, c, "")
		must(t, k.Use(lentAddr))
		must(t, k.Use(lentAddr, netip.MustParsePrefix("192.168.1.70/24")))
		must(t, k.Close())
		told, _ := os.ReadFile(filepath.Join(dir, "told"))
		var got strings.Builder
		for line := range strings.Lines(string(told)) {
			if strings.HasPrefix(line, "device set") {
				got.WriteString(line)
			}
		}
		if got.String() != want {
			t.Errorf("in state %q it was told\n%s", state, &got)
		}
	}
}
