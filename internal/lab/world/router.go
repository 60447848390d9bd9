package world

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/router"
)

// bootWait is how long New waits for the home router's first boot.
const bootWait = time.Minute

// New builds a world round an emulated OpenWrt box and waits until the box has
// booted and the laptop has an address. With FromStock it waits for nothing: the
// box is off.
func New(ctx context.Context, opt Options) (*World, error) {
	if opt.FromStock {
		return newFromStock(opt)
	}
	w, err := assemble(opt, func(w *World) (*lab.Stack, error) { return plugOpenWrt(ctx, w) })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, bootWait)
	defer cancel()
	if err := w.WaitReady(ctx); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// WaitReady waits until the home is settled: the laptop has an address, the home
// router's SSH answers it, and the way out leads to the provider. After a boot
// that takes a moment longer than WaitBoot, as at home: DHCP and the firewall's
// reload come when the interfaces are up.
func (w *World) WaitReady(ctx context.Context) error {
	if err := w.Laptop.WaitAddress(ctx); err != nil {
		return fmt.Errorf("the laptop got no address on %s: %w", w.Home.Name(), err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		why := w.unready(ctx)
		if why == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the home did not settle: %w", why)
		case <-tick.C:
		}
	}
}

// unready tells what is still missing.
func (w *World) unready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	lan, ok := w.RouterLAN()
	if !ok {
		return errors.New("the home router has no address on the home LAN")
	}
	if _, ok := w.RouterWAN(); !ok {
		return errors.New("the home router has no address towards the ISP")
	}
	c, err := w.LaptopDial(ctx, "tcp", netip.AddrPortFrom(lan, 22).String())
	if err != nil {
		return err
	}
	c.Close()
	if w.hasIPv6() {
		if _, err := w.router.PingFrom(ctx, w.HomeIPv6(), provider6.Addr()); err != nil {
			return err
		}
	}
	far := provider.Addr()
	if w.Options.Upstream == IPv6Only {
		far = w.ISP.Address() // as far as IPv4 goes
	}
	_, err = w.Laptop.Ping(ctx, far)
	return err
}

// plugOpenWrt puts the home router in, switches it on, and sets by hand what a
// person must have set before heimweg can do anything: a box that is one-armed,
// or has a second LAN, did not come so out of the factory.
func plugOpenWrt(ctx context.Context, w *World) (*lab.Stack, error) {
	w.Router = owrt.New(w.World, boxOptions(w))
	w.closers = append(w.closers, w.Router.Close)
	w.Router.PowerOn()
	ctx, cancel := context.WithTimeout(ctx, bootWait)
	defer cancel()
	if err := w.Router.WaitBoot(ctx); err != nil {
		return nil, fmt.Errorf("the home router did not boot: %w", err)
	}
	if script := byHand(w); script != "" {
		if out, errs, exit := w.Router.Sh(script); exit != 0 {
			return nil, fmt.Errorf("setting up the home router: exit %d\n%s%s", exit, out, errs)
		}
		w.Router.Reboot()
		if err := w.Router.WaitBoot(ctx); err != nil {
			return nil, fmt.Errorf("the home router did not boot again: %w", err)
		}
	}
	return w.Router.Stack(), nil
}

// boxOptions are the home router's: who it is and where its cables go.
func boxOptions(w *World) owrt.Options {
	o := w.Options.Router
	o.Line, o.Name, o.Real = w.Options.Line, RouterName, w.Options.Real
	if o.Seed == 0 {
		o.Seed = w.Options.Seed
	}
	o.Cables = map[string]*lab.Link{"lan1": w.Home}
	switch w.Options.Uplink {
	case home.Behind:
		o.Cables["wan"] = w.Uplink
	case home.Direct:
		o.Cables["wan"] = w.ISPLine
	}
	if w.Second != nil {
		o.Cables["lan4"] = w.Second
	}
	return o
}

// plug makes a box with the home's cables in it. One that has no WAN port gets the
// cable to the ISP router in its last LAN port, where a person would plug it.
func (w *World) plug(o owrt.Options) *owrt.Box {
	o.Name, o.Real = RouterName, w.Options.Real
	if o.Seed == 0 {
		o.Seed = w.Options.Seed
	}
	o.Cables = map[string]*lab.Link{"lan1": w.Home}
	wan := "wan"
	if o.Board == "avm,fritzbox-7530" {
		wan = "lan4"
	}
	switch w.Options.Uplink {
	case home.Behind:
		o.Cables[wan] = w.Uplink
	case home.Direct:
		o.Cables[wan] = w.ISPLine
	}
	if w.Second != nil {
		o.Cables["lan4"] = w.Second
	}
	return owrt.New(w.World, o)
}

// Swap takes the home router away and puts another box in its place, fresh from
// the factory image. It returns when the new one answers on the home LAN; that is
// not yet a settled home, because the new box may have no way to the ISP router.
func (w *World) Swap(ctx context.Context, o owrt.Options) error {
	w.Router.Close()
	o.Seed = w.Options.Seed + 1
	b := w.plug(o)
	w.closers = append(w.closers, b.Close)
	w.Router, w.router = b, b.Stack()
	b.PowerOn()
	ctx, cancel := context.WithTimeout(ctx, bootWait)
	defer cancel()
	if err := b.WaitBoot(ctx); err != nil {
		return fmt.Errorf("the new box did not boot: %w", err)
	}
	return w.Laptop.WaitAddress(ctx)
}

// byHand is what the household typed before it heard of heimweg.
func byHand(w *World) string {
	var b strings.Builder
	line := w.Options.Line
	if w.Options.Uplink == home.OneArmed {
		b.WriteString(setAddress(line, "lan", netip.PrefixFrom(UplinkWAN, 24)))
		fmt.Fprintf(&b, "uci set network.lan.gateway='%s'\nuci add_list network.lan.dns='%s'\n", uplinkISP.Addr(), uplinkISP.Addr())
		b.WriteString("uci delete network.wan\nuci delete network.wan6\nuci set dhcp.lan.ignore='1'\n")
	}
	if w.Second != nil {
		b.WriteString("uci del_list network.@device[0].ports='lan4'\n")
		b.WriteString("uci set network.second=interface\nuci set network.second.proto='static'\nuci set network.second.device='lan4'\n")
		b.WriteString(setAddress(line, "second", nth(SecondLAN, 1)))
		b.WriteString(`uci add firewall zone >/dev/null
uci set firewall.@zone[-1].name='second'
uci add_list firewall.@zone[-1].network='second'
uci set firewall.@zone[-1].input='ACCEPT'
uci set firewall.@zone[-1].output='ACCEPT'
uci set firewall.@zone[-1].forward='ACCEPT'
uci add firewall forwarding >/dev/null
uci set firewall.@forwarding[-1].src='second'
uci set firewall.@forwarding[-1].dest='wan'
`)
	}
	if b.Len() == 0 {
		return ""
	}
	return "set -e\n" + b.String() + "uci commit\n"
}

// setAddress writes an address as LuCI of that release does: a list in CIDR form
// from 25.12 on, address and mask before.
func setAddress(line router.Line, section string, a netip.Prefix) string {
	if line.AtLeast(router.Line2512) {
		return fmt.Sprintf("uci -q delete network.%s.ipaddr || true\nuci add_list network.%[1]s.ipaddr='%s'\n", section, a)
	}
	return fmt.Sprintf("uci set network.%s.ipaddr='%s'\nuci set network.%[1]s.netmask='255.255.255.0'\n", section, a.Addr())
}
