package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/lab/world"
)

// igdOptions reads what the ISP router lets programs ask for: upnp, upnp1, nat-pmp,
// pcp, fritz (TR-064 for heimweg, password swordfish, each host for itself only),
// and what is wrong with it: 606, 718 …, lying, off, silent, slow.
func igdOptions(words string) (*igd.Options, error) {
	o := &igd.Options{}
	for _, word := range strings.Split(words, ",") {
		switch word {
		case "upnp":
			o.UPnP = 2
		case "upnp1":
			o.UPnP = 1
		case "ipv6":
			o.Firewall6 = true
		case "nat-pmp":
			o.NATPMP = true
		case "pcp":
			o.PCP = true
		case "fritz":
			o.TR064, o.Faults.OwnOnly = &igd.Account{User: "heimweg", Password: "swordfish"}, true
			o.MyFRITZ = "abc123.myfritz.net"
		default:
			if err := igdFault(&o.Faults, word); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

func igdFault(f *igd.Faults, word string) error {
	switch word {
	case "lying":
		f.Lying = true
	case "off":
		f.Off = true
	case "silent":
		f.Silent = true
	case "no-public":
		f.NoPublic = true
	case "heal":
		*f = igd.Faults{}
	default:
		code, err := strconv.Atoi(word)
		if err != nil {
			return fmt.Errorf("the ISP router knows no %q", word)
		}
		f.Refuse = code
	}
	return nil
}

// laptopUDP opens a UDP port on the lab's laptop.
func laptopUDP(w *world.World) func(context.Context) (net.PacketConn, error) {
	return func(context.Context) (net.PacketConn, error) {
		u, err := w.Laptop.ListenUDP(0)
		if err != nil {
			return nil, err // not a nil pointer in an interface
		}
		return u, nil
	}
}

// scriptIGD is the ISP router's program side: igd FAULT|heal|restart|give PORT ADDR.
func scriptIGD(ts *testscript.TestScript, _ bool, args []string) {
	w := home0(ts)
	switch args[0] {
	case "restart":
		w.IGD.Restart()
	case "give": // to another device, as its owner would
		port, err := strconv.ParseUint(args[1], 10, 16)
		ts.Check(err)
		w.ISP.Map("udp", uint16(port), netip.AddrPortFrom(netip.MustParseAddr(args[2]), uint16(port)))
	default:
		var err error
		w.IGD.Set(func(f *igd.Faults) { err = igdFault(f, args[0]) })
		ts.Check(err)
	}
}

// scriptDNS sets or checks what public DNS says: dns NAME [ADDR], dns is NAME ADDR.
func scriptDNS(ts *testscript.TestScript, neg bool, args []string) {
	w := home0(ts)
	if args[0] != "is" {
		w.Name(args[0], netip.MustParseAddr(args[1]))
		return
	}
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	want := netip.MustParseAddr(args[2])
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, _ := w.Lookup(args[1])
		if (got == want) != neg {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("public DNS says that %s is %s", args[1], got)
		}
	}
}
