package owrt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/ucicli"
)

// boxPrograms are the programs beside busybox's, by name. They act on the life
// of the box that runs them.
func (b *Box) boxPrograms() map[string]ash.Program {
	on := func(f func(*system, *ash.Proc, []string) int) ash.Program {
		return func(p *ash.Proc, args []string) int {
			b.mu.Lock()
			s := b.sys
			b.mu.Unlock()
			if s.k != p.K {
				p.Check() // of a life that is over
				return 1
			}
			return f(s, p, args)
		}
	}
	return map[string]ash.Program{
		"uci": on((*system).uciProgram), "ubus": on((*system).ubusProgram), "wg": on((*system).wgProgram), ".service": on((*system).serviceProgram),
		"fw4": on((*system).fw4Program), "fw3": on((*system).fw4Program), "nft": on((*system).nftProgram),
		"iptables": on((*system).iptablesProgram), "ip6tables": on((*system).iptablesProgram),
		"opkg": on((*system).opkgProgram), "apk": on((*system).apkProgram), "jsonfilter": jsonfilter,
		"ifup": on((*system).ifupProgram), "ifdown": on((*system).ifupProgram), "ifstatus": on((*system).ifupProgram),
		"passwd": on((*system).passwdProgram), "logger": on((*system).loggerProgram), "logread": on((*system).logreadProgram),
		"ip": on((*system).ipProgram), "ping": on((*system).pingProgram), "ping6": on((*system).pingProgram), "nslookup": on((*system).nslookupProgram),
		"reboot": on((*system).rebootProgram), "poweroff": on((*system).rebootProgram), "service": on((*system).serviceCommand),
		"wifi": func(*ash.Proc, []string) int { return 0 }, "dmesg": on((*system).dmesgProgram), "lsmod": on((*system).lsmodProgram),
		"sysctl": func(*ash.Proc, []string) int { return 0 }, "uclient-fetch": on((*system).fetchProgram), "wget": on((*system).fetchProgram),
		"sysupgrade": on((*system).sysupgradeProgram), "umount": func(*ash.Proc, []string) int { return 0 },
		"mtd": on((*system).mtdProgram), "ubirmvol": on((*system).ubirmvolProgram), "ubinfo": on((*system).ubinfoProgram),
		"fritz_tffs_nand": on((*system).tffsProgram), "dynamic_dns_updater.sh": on((*system).ddnsProgram),
		"modprobe": func(*ash.Proc, []string) int { return 0 }, "crontab": on((*system).crontabProgram), "conntrack": on((*system).missing),
	}
}

func (s *system) missing(p *ash.Proc, args []string) int {
	fmt.Fprintf(p.Stderr(), "sh: %s: not found\n", args[0])
	return 127
}

func (s *system) uciProgram(p *ash.Proc, args []string) int {
	st := ucicli.Run(uciFS{s.fs}, s.line, args[1:], p.Stdin(), p.Stdout(), p.Stderr())
	p.Check()
	return st
}

// uciRun runs uci on behalf of a daemon.
func (s *system) uciRun(args ...string) int {
	var out, errs bytes.Buffer
	return ucicli.Run(uciFS{s.fs}, s.line, args, strings.NewReader(""), &out, &errs)
}

// ifupProgram is ifup, ifdown and ifstatus. ifup reloads the configuration
// first (base-files, sbin/ifup).
func (s *system) ifupProgram(p *ash.Proc, args []string) int {
	name := ""
	for _, a := range args[1:] {
		if !strings.HasPrefix(a, "-") {
			name = a
		}
	}
	if name == "" && (len(args) < 2 || args[1] != "-a") {
		fmt.Fprintf(p.Stderr(), "Usage: %s [-a|<interface>]\n", args[0])
		return 1
	}
	base := args[0][strings.LastIndex(args[0], "/")+1:]
	if base == "ifstatus" {
		i, ok := s.net.find(name)
		if !ok {
			fmt.Fprintf(p.Stderr(), "Interface %s not found\n", name)
			return 1
		}
		writeJSON(p.Stdout(), s.ifaceStatus(i), 0)
		fmt.Fprintln(p.Stdout())
		return 0
	}
	if base == "ifup" {
		s.net.reload(false)
	}
	names := []string{name}
	if name == "" {
		names = nil
		for _, i := range s.net.list() {
			names = append(names, i.name)
		}
	}
	for _, n := range names {
		if _, ok := s.net.find(n); !ok {
			fmt.Fprintf(p.Stderr(), "Interface %s not found\n", n)
			return 1
		}
		s.net.tear(n)
		if base == "ifup" {
			s.net.ifup(n)
		}
	}
	return 0
}

// passwdProgram sets a password from two lines of input, as busybox's does when
// it is not on a terminal. The hash is $5$ by default (facts 8).
func (s *system) passwdProgram(p *ash.Proc, args []string) int {
	algo, user := "5", "root"
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-a" && i+1 < len(args):
			i++
			algo = map[string]string{"m": "1", "md5": "1", "sha256": "5", "sha512": "6"}[args[i]]
		case a == "-l" || a == "-u" || a == "-d":
			h := map[string]string{"-l": "!" + s.shadow(user), "-u": strings.TrimPrefix(s.shadow(user), "!"), "-d": ""}[a]
			return s.setShadow(p, user, h)
		case !strings.HasPrefix(a, "-"):
			user = a
		}
	}
	fmt.Fprintf(p.Stdout(), "Changing password for %s\nNew password: \n", user)
	one, _ := readLine(p.Stdin())
	fmt.Fprintln(p.Stdout(), "Retype password: ")
	two, _ := readLine(p.Stdin())
	if one != two || one == "" {
		fmt.Fprintf(p.Stderr(), "Passwords don't match\npasswd: password for %s is unchanged\n", user)
		return 1
	}
	if len(one) < 6 {
		fmt.Fprintln(p.Stderr(), "Bad password: too short")
	}
	salt := fmt.Sprintf("%016x", s.b.random())
	h := shaCrypt(algo, one, salt, 0)
	if algo == "1" {
		h = md5Crypt(one, salt[:8])
	}
	if st := s.setShadow(p, user, h); st != 0 {
		return st
	}
	fmt.Fprintf(p.Stdout(), "passwd: password for %s changed by root\n", user)
	return 0
}

func (s *system) setShadow(p *ash.Proc, user, hash string) int {
	data, _ := s.fs.ReadFile("/etc/shadow")
	lines := strings.Split(string(data), "\n")
	done := false
	for i, l := range lines {
		w := strings.Split(l, ":")
		if len(w) > 2 && w[0] == user {
			w[1], w[2] = hash, strconv.FormatInt(time.Now().Unix()/86400, 10)
			lines[i] = strings.Join(w, ":")
			done = true
		}
	}
	if !done {
		fmt.Fprintf(p.Stderr(), "passwd: unknown user %s\n", user)
		return 1
	}
	// busybox writes /etc/shadow+ and renames it after an fsync (libbb, update_passwd.c).
	tmp := "/etc/shadow+"
	err := s.fs.WriteFile(tmp, []byte(strings.Join(lines, "\n")), 0o600)
	if err == nil {
		s.fs.Fsync(tmp)
		err = s.fs.Rename(tmp, "/etc/shadow")
	}
	if err != nil {
		p.Check()
		fmt.Fprintf(p.Stderr(), "passwd: can't update password file /etc/shadow: %s\n", ash.ErrText(err))
		return 1
	}
	return 0
}

func (s *system) loggerProgram(p *ash.Proc, args []string) int {
	tag, pri, a := "root", "user.notice", args[1:]
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		if (a[0] == "-t" || a[0] == "-p") && len(a) > 1 {
			if a[0] == "-t" {
				tag = a[1]
			} else {
				pri = a[1]
			}
			a = a[1:]
		}
		a = a[1:]
	}
	text := strings.Join(a, " ")
	if len(a) == 0 {
		data, _ := io.ReadAll(p.Stdin())
		text = strings.TrimSpace(string(data))
	}
	for _, l := range strings.Split(text, "\n") {
		s.b.logf(pri+" "+tag, "%s", l)
	}
	return 0
}

func (s *system) logreadProgram(p *ash.Proc, args []string) int {
	pat, n := "", 0
	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "-e":
			if i+1 < len(args) {
				i++
				pat = args[i]
			}
		case "-l":
			if i+1 < len(args) {
				i++
				n, _ = strconv.Atoi(args[i])
			}
		}
	}
	var out []string
	for _, l := range s.b.Log() {
		if strings.Contains(l, pat) && (args[0] != "dmesg" || strings.Contains(l, "kernel")) {
			out = append(out, l)
		}
	}
	if n > 0 && len(out) > n {
		out = out[len(out)-n:]
	}
	for _, l := range out {
		fmt.Fprintln(p.Stdout(), l)
	}
	return 0
}

// ipProgram is busybox ip: addr, route, neigh and link, to show only. -br and
// -j are not understood (observed 4).
func (s *system) ipProgram(p *ash.Proc, args []string) int {
	a := args[1:]
	six, four := false, false
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		switch a[0] {
		case "-4":
			four = true
		case "-6":
			six = true
		case "-o":
		default:
			fmt.Fprintf(p.Stderr(), "ip: invalid option -- '%s'\n", strings.TrimLeft(a[0], "-")[:1])
			return 1
		}
		a = a[1:]
	}
	if len(a) == 0 {
		return 1
	}
	dev := ""
	for i, x := range a {
		if x == "dev" && i+1 < len(a) {
			dev = a[i+1]
		}
	}
	is := func(full string) bool { return strings.HasPrefix(full, a[0]) }
	verb := "show"
	if len(a) > 1 && a[1] != "dev" {
		verb = a[1]
	}
	if verb == "replace" || verb == "add" || verb == "del" || verb == "set" || verb == "flush" {
		s.b.noteUnknown("ip " + strings.Join(a, " "))
		fmt.Fprintf(p.Stderr(), "ip: RTNETLINK answers: Operation not supported\n")
		return 2
	}
	w := p.Stdout()
	switch {
	case is("address"), is("link"):
		if dev == "" && len(a) > 2 {
			dev = a[2]
		}
		return s.ipAddr(p, dev, six, four, is("link"))
	case is("route"):
		for _, i := range s.net.list() {
			if !i.up || dev != "" && i.l3() != dev {
				continue
			}
			for _, g := range i.gateways {
				if g.Is4() != six {
					fmt.Fprintf(w, "default via %s dev %s \n", g, i.l3())
				}
			}
			for _, x := range i.addrs {
				if x.Addr().Is4() != six && !x.IsSingleIP() && i.l3() != "lo" {
					fmt.Fprintf(w, "%s dev %s scope link  src %s \n", x.Masked(), i.l3(), x.Addr())
				}
			}
			for _, r := range i.routes {
				if r.Dst.Addr().Is4() != six {
					fmt.Fprintf(w, "%s dev %s scope link \n", r.Dst, r.Dev)
				}
			}
		}
		s.net.mu.Lock()
		own := s.net.ownRoutes()
		s.net.mu.Unlock()
		for _, r := range own {
			switch {
			case r.Dst.Addr().Is4() == six || dev != "" && r.Dev != dev:
			case r.Via.IsValid():
				fmt.Fprintf(w, "%s via %s dev %s \n", r.Dst, r.Via, r.Dev)
			default:
				fmt.Fprintf(w, "%s dev %s scope link \n", r.Dst, r.Dev)
			}
		}
	case is("neigh"):
		s.ipNeigh(w, dev)
	case is("rule"):
		fmt.Fprintln(w, "0:\tfrom all lookup local \n32766:\tfrom all lookup main \n32767:\tfrom all lookup default ")
	default:
		fmt.Fprintf(p.Stderr(), "BusyBox ip: unknown object %s\n", a[0])
		return 1
	}
	return 0
}

func (s *system) ipAddr(p *ash.Proc, only string, six, four, link bool) int {
	w := p.Stdout()
	addrs := map[string][]netip.Prefix{"lo": nil}
	up := map[string]bool{"lo": true}
	for _, i := range s.net.list() {
		d := i.l3()
		if d == "" {
			continue
		}
		if i.proto == "wireguard" && i.wg == nil {
			continue
		}
		addrs[d] = append(addrs[d], i.addrs...)
		up[d] = up[d] || i.up
	}
	var names []string
	for d := range addrs {
		if only == "" || d == only {
			names = append(names, d)
		}
	}
	if len(names) == 0 {
		fmt.Fprintf(p.Stderr(), "ip: can't find device '%s'\n", only)
		return 1
	}
	sort.Strings(names)
	for n, d := range names {
		state := "DOWN"
		if up[d] {
			state = "UP"
		}
		fmt.Fprintf(w, "%d: %s: <BROADCAST,MULTICAST,%s> mtu 1500 qdisc noqueue state %s qlen 1000\n    link/ether 02:00:00:00:00:%02x brd ff:ff:ff:ff:ff:ff\n", n+1, d, state, state, n+1)
		if link {
			continue
		}
		for _, a := range addrs[d] {
			if a.Addr().Is4() && !six {
				fmt.Fprintf(w, "    inet %s scope global %s\n       valid_lft forever preferred_lft forever\n", a, d)
			}
			if a.Addr().Is6() && !four {
				fmt.Fprintf(w, "    inet6 %s scope global \n       valid_lft forever preferred_lft forever\n", a)
			}
		}
	}
	return 0
}

// ipNeigh lists the other hosts of the links.
func (s *system) ipNeigh(w io.Writer, only string) {
	if s.b.world == nil {
		return
	}
	own := s.b.stack
	for _, i := range s.net.list() {
		if !i.up || i.wg != nil || only != "" && i.l3() != only {
			continue
		}
		for n, st := range s.b.world.Stacks() {
			if st == own || !st.On() {
				continue
			}
			for _, f := range st.Ifaces() {
				s.net.mu.Lock()
				l := s.net.link(i.l3())
				s.net.mu.Unlock()
				if f.Link == nil || f.Link != l {
					continue
				}
				for _, a := range f.Addrs {
					for _, m := range i.addrs {
						if m.Masked().Contains(a.Addr()) {
							fmt.Fprintf(w, "%s dev %s lladdr 02:00:00:00:01:%02x ref 1 used 0/0/0 probes 1 REACHABLE\n", a.Addr(), i.l3(), n+1)
						}
					}
				}
			}
		}
	}
}

func (s *system) pingProgram(p *ash.Proc, args []string) int {
	count, wait := 4, 10
	host := ""
	var from netip.Addr // zero: the route chooses
	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "-c", "-W", "-w", "-s", "-I", "-i":
			if i+1 < len(args) {
				v, _ := strconv.Atoi(args[i+1])
				switch args[i] {
				case "-c":
					count = v
				case "-W", "-w":
					wait = v
				case "-I":
					from, _ = netip.ParseAddr(args[i+1])
				}
				i++
			}
		case "-q", "-4", "-6":
		default:
			host = args[i]
		}
	}
	a, ok := s.resolve(host)
	if !ok || s.b.stack == nil {
		fmt.Fprintf(p.Stderr(), "ping: bad address '%s'\n", host)
		return 1
	}
	fmt.Fprintf(p.Stdout(), "PING %s (%s): 56 data bytes\n", host, a)
	got := 0
	for n := range count {
		if n > 0 {
			p.Sleep(time.Second)
		}
		ctx, stop := context.WithTimeout(p.Context(), time.Duration(wait)*time.Second)
		d, err := s.b.stack.PingFrom(ctx, from, a)
		stop()
		p.Check()
		if err == nil {
			got++
			fmt.Fprintf(p.Stdout(), "64 bytes from %s: seq=%d ttl=64 time=%.3f ms\n", a, n, float64(d.Microseconds())/1000)
		}
	}
	fmt.Fprintf(p.Stdout(), "\n--- %s ping statistics ---\n%d packets transmitted, %d packets received, %d%% packet loss\n", host, count, got, (count-got)*100/max(count, 1))
	if got == 0 {
		return 1
	}
	return 0
}

func (s *system) nslookupProgram(p *ash.Proc, args []string) int {
	if len(args) < 2 {
		return 1
	}
	a, ok := s.resolve(args[1])
	if !ok {
		fmt.Fprintf(p.Stdout(), "Server:\t\t127.0.0.1\nAddress:\t127.0.0.1:53\n\n** server can't find %s: NXDOMAIN\n", args[1])
		return 1
	}
	fmt.Fprintf(p.Stdout(), "Server:\t\t127.0.0.1\nAddress:\t127.0.0.1:53\n\nName:\t%s\nAddress: %s\n", args[1], a)
	return 0
}

// rebootProgram ends the processes after a moment, as procd does.
func (s *system) rebootProgram(p *ash.Proc, args []string) int {
	off := strings.HasSuffix(args[0], "poweroff")
	s.b.wg.Add(1)
	go func() {
		defer s.b.wg.Done()
		t := time.NewTimer(200 * time.Millisecond)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.k.Context().Done():
			return
		}
		if off {
			s.b.Shutdown()
		} else {
			s.b.Reboot()
		}
	}()
	return 0
}

func (s *system) serviceCommand(p *ash.Proc, args []string) int {
	if len(args) < 3 {
		for _, n := range s.serviceNames() {
			fmt.Fprintf(p.Stdout(), "/etc/init.d/%s\n", n)
		}
		return 0
	}
	return p.Run(ash.Spawn{Args: append([]string{"/etc/init.d/" + args[1]}, args[2:]...)})
}

func (s *system) lsmodProgram(p *ash.Proc, _ []string) int {
	for _, l := range strings.Split(strings.TrimSpace(s.pkg.modules()), "\n") {
		if w := strings.Fields(l); len(w) > 0 {
			fmt.Fprintf(p.Stdout(), "%-24s%s  0\n", w[0], w[1])
		}
	}
	return 0
}

func (s *system) fetchProgram(p *ash.Proc, args []string) int {
	s.b.noteUnknown(strings.Join(args, " "))
	fmt.Fprintln(p.Stderr(), "Connection error: Connection failed")
	return 4
}

func (s *system) crontabProgram(p *ash.Proc, args []string) int {
	if len(args) > 1 && args[1] == "-l" {
		data, _ := s.fs.ReadFile("/etc/crontabs/root")
		p.Stdout().Write(data)
		return 0
	}
	data, _ := io.ReadAll(p.Stdin())
	if err := s.fs.WriteFile("/etc/crontabs/root", data, 0o600); err != nil {
		return 1
	}
	return 0
}

// dnsmasq gives leases on the LANs and answers names.
type dnsmasq struct {
	s   *system
	mu  sync.Mutex
	udp *lab.UDPConn
	on  map[*lab.Link]*pool
}

// pool is the range of one LAN with who has what.
type pool struct {
	own          netip.Prefix
	start, limit int
	mu           sync.Mutex
	hosts        *guestList
	here         map[string]bool // who has asked since the service started
}

// update serves the networks of the `config dhcp` sections, by the addresses
// that the interfaces have now. A section with ignore, or without a server
// interface that is up, serves nothing.
func (d *dnsmasq) update(on bool) {
	b := d.s.b
	if b.stack == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.s.k.Context().Err() != nil {
		return
	}
	if on && d.udp == nil {
		d.udp, _ = lab.ServeDNS(b.stack, nil)
	} else if !on && d.udp != nil {
		d.udp.Close()
		d.udp = nil
	}
	want := map[*lab.Link]*pool{}
	if on {
		want = d.pools()
	}
	for l, p := range want {
		if old := d.on[l]; old != nil && old.own == p.own && old.start == p.start && old.limit == p.limit {
			want[l] = old
			continue
		}
		l.ServeLeases(b.stack, p.give)
	}
	for l := range d.on {
		if want[l] == nil {
			l.ServeLeases(b.stack, func(string) (lab.Lease, bool) { return lab.Lease{}, false })
		}
	}
	d.on = want
	d.s.fs.Generated("/tmp/dhcp.leases", func() []byte { return d.leases(want) })
}

func (d *dnsmasq) pools() map[*lab.Link]*pool {
	want := map[*lab.Link]*pool{}
	doc := d.s.config("dhcp")
	if doc == nil {
		return want
	}
	for _, sec := range doc.OfType("dhcp") {
		name, _ := sec.Get("interface")
		i, ok := d.s.net.find(name)
		if v4, has := sec.Get("dhcpv4"); !ok || !i.up || sec.Bool("ignore", false) || has && v4 == "disabled" {
			continue
		}
		d.s.net.mu.Lock()
		l := d.s.net.link(i.l3())
		d.s.net.mu.Unlock()
		p := &pool{start: 100, limit: 150, here: map[string]bool{}}
		for _, a := range i.addrs {
			if a.Addr().Is4() {
				p.own = a
				break
			}
		}
		if l == nil || !p.own.IsValid() || p.own.IsSingleIP() {
			continue
		}
		if v, ok := sec.Get("start"); ok {
			p.start, _ = strconv.Atoi(v)
		}
		if v, ok := sec.Get("limit"); ok {
			p.limit, _ = strconv.Atoi(v)
		}
		p.hosts = d.s.b.guests(l)
		want[l] = p
	}
	return want
}

func (p *pool) nth(n int) netip.Addr {
	a := p.own.Masked().Addr().As4()
	v := binary.BigEndian.Uint32(a[:]) + uint32(p.start+n)
	binary.BigEndian.PutUint32(a[:], v)
	return netip.AddrFrom4(a)
}

func (p *pool) give(host string) (lab.Lease, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.hosts.number(host)
	if n >= p.limit {
		return lab.Lease{}, false
	}
	p.here[host] = true
	return lab.Lease{Addr: netip.PrefixFrom(p.nth(n), p.own.Bits()), Gateway: p.own.Addr(), DNS: []netip.Addr{p.own.Addr()}, Domain: "lan"}, true
}

// guestList are the hosts of a link by their number in its range. dnsmasq starts its
// search for a free address at a hash of the host's MAC (dnsmasq(8), --dhcp-sequential-ip
// is off), so a host gets its old address again, also after the lease file in RAM is
// gone, whoever asks first after a restart.
type guestList struct {
	mu    sync.Mutex
	hosts []string
}

func (g *guestList) number(host string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := slices.Index(g.hosts, host)
	if n < 0 {
		n = len(g.hosts)
		g.hosts = append(g.hosts, host)
	}
	return n
}

func (g *guestList) all() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.hosts)
}

func (b *Box) guests(l *lab.Link) *guestList {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.numbers == nil {
		b.numbers = map[*lab.Link]*guestList{}
	}
	if b.numbers[l] == nil {
		b.numbers[l] = new(guestList)
	}
	return b.numbers[l]
}

// leases is the file that dnsmasq keeps: expiry, MAC, address, name, client id.
func (d *dnsmasq) leases(pools map[*lab.Link]*pool) []byte {
	var b bytes.Buffer
	for _, p := range pools {
		p.mu.Lock()
		for n, h := range p.hosts.all() {
			if !p.here[h] {
				continue
			}
			fmt.Fprintf(&b, "%d 02:00:00:00:02:%02x %s %s *\n", time.Now().Add(12*time.Hour).Unix(), n+1, p.nth(n), strings.ReplaceAll(h, " ", "-"))
		}
		p.mu.Unlock()
	}
	return b.Bytes()
}
