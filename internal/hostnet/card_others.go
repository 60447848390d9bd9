//go:build !linux

package hostnet

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
)

// cards asks Go for the cards, and the system's own programs for what Go does
// not know.
func cards(ctx context.Context) ([]Card, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	ports := map[string]Kind{}
	links := map[string]Link{}
	if runtime.GOOS == "darwin" {
		out, _ := exec.CommandContext(ctx, "networksetup", "-listallhardwareports").Output()
		ports = hardwarePorts(string(out))
		out, _ = exec.CommandContext(ctx, "ifconfig").Output()
		links = linkStates(string(out))
	}
	var out []Card
	for _, i := range list {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		c := Card{Name: i.Name, Index: i.Index, On: i.Flags&net.FlagUp != 0, Link: LinkUnknown, MTU: i.MTU}
		if len(i.HardwareAddr) == len(c.MAC) {
			c.MAC = MAC(i.HardwareAddr)
		}
		if l := links[i.Name]; l != "" {
			c.Link = l
		} else if runtime.GOOS == "windows" {
			c.Link = map[bool]Link{true: LinkUp, false: LinkDown}[i.Flags&net.FlagRunning != 0]
		}
		if c.Kind = ports[i.Name]; c.Kind == "" {
			c.Kind = kindByName(runtime.GOOS, i.Name, i.Flags&net.FlagPointToPoint != 0)
		}
		addrs, _ := i.Addrs() // a card that has just gone has none
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				c.Addrs = append(c.Addrs, p)
			}
		}
		out = append(out, c)
	}
	return out, nil
}

func routes(context.Context) ([]Route, error) {
	return nil, &NotPossibleError{What: "reading the routes of this system"}
}
