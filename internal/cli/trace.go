package cli

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/cryptokey"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firewall"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/trace"
	"github.com/heimweg/heimweg/internal/view"
	"github.com/heimweg/heimweg/internal/wgconf"
)

// traceFlags say which packet is followed.
type traceFlags struct {
	from, to string
	tcp, udp uint16
	reply    bool
	conf     string
	picture  string
}

func (a *app) traceCommand() *cobra.Command {
	var fl traceFlags
	c := &cobra.Command{
		Use: "trace [PEER] [TARGET[:PORT]]", Short: "follow one packet and say where it dies, and why", Args: cobra.MaximumNArgs(2),
		Long: `trace follows the first packet of a connection from a device on the road to a
device at home, and the answer back, hop by hop, with the router as it is right now.
It says what happens on each hop and because of which line of which file; the first
hop that kills the packet is the headline, with the remedy. It changes nothing.

TARGET is an address or a name that the router knows (DHCP). With a port it is TCP,
without one a ping. What cannot be seen from here is shown as not known.

Exit codes: 0 nothing was found that stops it · 3 it dies.`,
		Example: `  heimweg trace phone nas:445
  heimweg trace phone 192.168.1.10          a ping
  heimweg trace --from 192.168.2.7 --to 10.0.0.5 --udp 53
  heimweg trace phone nas:445 --reply       the answer's way, hop by hop
  heimweg trace phone nas:445 -o way.svg    a picture of the way`,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.trace(cmd.Context(), args, fl) },
		ValidArgsFunction: a.completePeers,
	}
	f := c.Flags()
	f.StringVar(&fl.from, "from", "", "address of a host that sends, instead of a device")
	f.StringVar(&fl.to, "to", "", "address or name of the target, with or without port")
	f.Uint16Var(&fl.tcp, "tcp", 0, "TCP port of the target")
	f.Uint16Var(&fl.udp, "udp", 0, "UDP port of the target")
	f.BoolVar(&fl.reply, "reply", false, "show the answer's way hop by hop, too")
	f.StringVar(&fl.conf, "conf", "", "the device's own configuration file (default: what home.toml would give it)")
	f.StringVarP(&fl.picture, "output", "o", "", "draw the way into this SVG file (mode 0600)")
	return c
}

func (a *app) trace(ctx context.Context, args []string, fl traceFlags) error {
	if err := checkPicture(fl.picture); err != nil {
		return err
	}
	f, err := a.readHome()
	if err != nil {
		return err
	}
	q, err := question(args, fl)
	if err != nil {
		return err
	}
	if q.peer != "" {
		if _, ok := f.Home.Peer(q.peer); !ok {
			return unknownPeer(f.Home, q.peer)
		}
	}
	conf, err := readConf(fl.conf)
	if err != nil {
		return err
	}
	v, err := a.visitToLook(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	t, err := a.followPacket(ctx, v, q, conf)
	if err != nil {
		return err
	}
	return a.showTrace(t, fl)
}

func checkPicture(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Lstat(path); err == nil {
		return fileExists(path, os.ErrExist)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fault.NewUsage("no-folder", "there is no folder %s", filepath.Dir(path)).Do("make it, or name another file")
	}
	return nil
}

func (a *app) showTrace(t trace.Trace, fl traceFlags) error {
	if fl.picture != "" {
		if err := store.Create(fl.picture, view.TraceSVG(t), 0o600); err != nil {
			return fileExists(fl.picture, err)
		}
		a.sayf("  %s %s", a.style.Good("✓"), fl.picture)
	}
	if a.json {
		if err := a.printJSON(t); err != nil {
			return err
		}
	} else {
		view.Trace(a.Out, a.style, t, fl.reply)
	}
	if t.Verdict == trace.Dies {
		return errExit(fault.ExitDifferences)
	}
	return nil
}

// asked is the packet as it was typed.
type asked struct {
	peer   string
	from   netip.Addr
	target string
	proto  uint8
	port   uint16
}

func question(args []string, fl traceFlags) (q asked, err error) {
	usage := func(code, format string, args ...any) error {
		return fault.NewUsage(code, format, args...).Do("heimweg trace phone nas:445   or   heimweg trace --from 192.168.2.7 --to 192.168.1.10 --tcp 80")
	}
	if fl.from != "" {
		if q.from, err = netip.ParseAddr(fl.from); err != nil {
			return q, usage("bad-from", "--from %q is not an address", fl.from)
		}
		q.from = q.from.Unmap().WithZone("")
	} else if len(args) > 0 {
		q.peer, args = args[0], args[1:]
	}
	q.target = fl.to
	if q.target == "" && len(args) > 0 {
		q.target, args = args[0], args[1:]
	}
	switch {
	case len(args) > 0:
		return q, usage("trace-args", "too many names: %s", strings.Join(args, " "))
	case q.peer == "" && !q.from.IsValid():
		return q, usage("trace-args", "whose packet shall be followed, and to where?")
	case q.target == "":
		return q, usage("trace-args", "to where shall the packet go?")
	case fl.tcp != 0 && fl.udp != 0:
		return q, usage("trace-port", "--tcp and --udp are two packets; name one")
	}
	host, port, ok := trace.SplitTarget(q.target)
	if !ok {
		return q, usage("bad-target", "%q is not a target: a name or address, with or without :PORT", q.target)
	}
	q.target, q.port, q.proto = host, port, firewall.TCP
	switch {
	case fl.udp != 0:
		q.proto, q.port = firewall.UDP, fl.udp
	case fl.tcp != 0:
		q.port = fl.tcp
	case port == 0:
		q.proto = firewall.ICMP
	}
	return q, nil
}

func readConf(path string) (*wgconf.Conf, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.NewUsage("no-conf", "%s cannot be read", path).From(err).Do("name the file that heimweg peer add -o wrote")
	}
	c, err := wgconf.Parse(text)
	if err != nil {
		return nil, fault.NewUsage("bad-conf", "%s is no configuration of a device", path).From(err).Saw("%s", err).
			Do("name the file that heimweg peer add -o wrote")
	}
	return &c, nil
}

// followPacket gathers the facts and follows the packet: one look at the router, a ping
// of the target from there when the packet gets that far, and, when all is well
// and the device is in, a few seconds of watching whether its key is used twice.
func (a *app) followPacket(ctx context.Context, v *visit, q asked, conf *wgconf.Conf) (trace.Trace, error) {
	h, snap := v.file.Home, v.Snapshot()
	r := trace.Request{Peer: q.peer, From: q.from, Proto: q.proto, Port: q.port}
	var err error
	if r.Name, r.To, err = a.target(ctx, h, snap, q.target); err != nil {
		return trace.Trace{}, err
	}
	f := trace.Facts{Home: h, Snapshot: snap, Conf: conf, Endpoint: a.endpointNow(ctx, h, conf)}
	f.Wanted = trace.Applied(h, snap)
	f.Upstream = a.upstream(ctx, v)
	t := trace.Follow(f, r)
	if t.Question != nil {
		k, err := openwrt.Knock(ctx, v.Shell(), t.Question.Target, t.Question.From)
		if err != nil {
			return t, err
		}
		f.Knock = knock(t.Question.Target, k)
		t = trace.Follow(f, r)
	}
	if p, ok := h.Peer(q.peer); ok && t.Verdict != trace.Dies && inNow(h, snap, p.PublicKey) {
		if f.Samples, err = a.samples(ctx, v, p.PublicKey); err != nil {
			return t, err
		}
		t = trace.Follow(f, r)
	}
	return t, nil
}

func knock(target netip.Addr, k openwrt.Knocked) trace.Knock {
	seen := map[bool]trace.Seen{true: trace.Yes, false: trace.No}
	out := trace.Knock{Target: target, Near: seen[k.Near], There: k.There}
	if k.Asked {
		out.Far = seen[k.Far]
	}
	return out
}

// target finds the address of what was typed.
func (a *app) target(ctx context.Context, h home.Home, s *router.Snapshot, typed string) (name string, addr netip.Addr, err error) {
	if addr, err = netip.ParseAddr(typed); err == nil {
		return "", addr, nil
	}
	names := trace.Names(h, s)
	if n, ok := trace.Find(names, append(slices.Clone(h.DNS.Search), "lan"), typed); ok {
		return typed, n.Addr, nil
	}
	if strings.Contains(typed, ".") {
		if addrs := a.lookUp(ctx, typed); len(addrs) > 0 {
			return typed, addrs[0], nil
		}
	}
	f := fault.NewUsage("unknown-target", "the home router knows no device called %q", typed)
	var known []string
	for _, n := range names {
		if !slices.Contains(known, n.Name) {
			known = append(known, n.Name)
		}
	}
	if len(known) > 0 {
		f.Saw("it knows %s", strings.Join(known, ", "))
	}
	return "", addr, f.Do("write its address, such as 192.168.1.10")
}

// lookUp asks for a name's addresses, IPv4 first; nothing when it has none.
func (a *app) lookUp(ctx context.Context, name string) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := a.Lookup(ctx, name)
	if err != nil {
		return nil
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortStableFunc(addrs, func(x, y netip.Addr) int {
		rank := map[bool]int{true: 0, false: 1}
		return rank[x.Is4()] - rank[y.Is4()]
	})
	return addrs
}

// endpointNow is what the endpoint's name means at this moment.
func (a *app) endpointNow(ctx context.Context, h home.Home, conf *wgconf.Conf) trace.Endpoint {
	name := h.CallName()
	if conf != nil {
		name = conf.Peer.Endpoint
	}
	if name == "" {
		return trace.Endpoint{}
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return trace.Endpoint{Asked: true, Addrs: []netip.Addr{addr}}
	}
	return trace.Endpoint{Asked: true, Addrs: a.lookUp(ctx, name)}
}

// inNow: the device has a session, so that its endpoint can be watched.
func inNow(h home.Home, s *router.Snapshot, k key.Public) bool {
	p, ok := s.Tunnels[h.Tunnel.Interface].Peer(k)
	return ok && !p.Handshake.IsZero() && s.Time.Sub(p.Handshake) < 3*time.Minute
}

// watchTimes is how often a device's endpoint is looked at, a second apart.
const watchTimes = 3

func (a *app) samples(ctx context.Context, v *visit, k key.Public) ([]cryptokey.Sample, error) {
	seen, err := openwrt.Whereabouts(ctx, v.Shell(), v.file.Home.Tunnel.Interface, watchTimes)
	if err != nil {
		return nil, err
	}
	at := v.Snapshot().Time
	first, _ := v.Snapshot().Tunnels[v.file.Home.Tunnel.Interface].Peer(k)
	out := []cryptokey.Sample{{At: at, Endpoint: first.Endpoint}}
	for i, m := range seen {
		out = append(out, cryptokey.Sample{At: at.Add(time.Duration(i+1) * time.Second), Endpoint: m[k]})
	}
	return out, nil
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain", Short: "how WireGuard chooses a device, with your own as the example", Args: cobra.NoArgs,
		Long: `explain tells how WireGuard decides which device a packet is for, and which device
may send with which address, with the devices of home.toml as the example. It asks
no router.`,
		Example: "  heimweg explain",
		RunE: func(*cobra.Command, []string) error {
			f, err := a.readHome()
			if err != nil {
				return err
			}
			e := trace.Explain(f.Home)
			if a.json {
				return a.printJSON(e)
			}
			view.Explain(a.Out, a.style, e)
			return nil
		},
	}
}
