package owrt

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
	"github.com/heimweg/heimweg/internal/lab/owrt/busybox"
	"github.com/heimweg/heimweg/internal/lab/owrt/ucicli"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// system is one life of the box, from power to power cut.
type system struct {
	b    *Box
	fs   *boxfs.FS
	k    *ash.Kernel
	line router.Line

	sshd *sshd
	net  *netifd
	fw   *fwall
	pkg  *packages
	dns  *dnsmasq
	ddns updaters

	mu      sync.Mutex
	running map[string][]*ash.Proc // processes of services that scripts started
	started map[string]bool        // emulated services
}

func newSystem(b *Box, f *boxfs.FS, k *ash.Kernel) *system {
	s := &system{b: b, fs: f, k: k, line: b.Line(), running: map[string][]*ash.Proc{}, started: map[string]bool{}}
	s.sshd = &sshd{s: s}
	s.net = newNetifd(s)
	s.fw = newFirewall(s)
	s.pkg = newPackages(s)
	s.dns = &dnsmasq{s: s}
	for n, p := range busybox.Applets() {
		k.Programs[n] = p
	}
	for n, p := range b.boxPrograms() {
		k.Programs[n] = p
	}
	k.Hostname = s.hostname
	b.hooks(k, f)
	return s
}

// halt lets go of what is outside the file system and the processes.
func (s *system) halt() {
	s.sshd.mu.Lock()
	s.sshd.stop = nil // the stack closes it
	s.sshd.mu.Unlock()
	s.net.halt()
}

// soon runs work of a daemon after a while, unless the power goes first.
func (s *system) soon(d time.Duration, work func()) {
	s.b.wg.Add(1)
	go func() {
		defer s.b.wg.Done()
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			if s.k.Context().Err() == nil {
				work()
			}
		case <-s.k.Context().Done():
		}
	}()
}

// boot is procd: early mounts, then the scripts in /etc/rc.d in order.
func (s *system) boot() {
	b := s.b
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.sys == s {
			close(b.booted)
		}
	}()
	s.mounts()
	s.restoreSettings()
	if b.stack != nil {
		b.stack.PowerOn()
		b.stack.Configure(nil, nil)
	}
	t := time.NewTimer(b.opt.BootTime)
	select {
	case <-t.C:
	case <-s.k.Context().Done():
		t.Stop()
		return
	}
	if b.opt.FormatTime > 0 && s.fs.Volatile() {
		s.soon(b.opt.FormatTime, func() {
			b.logf("user.info kernel", "mount_root: switching to jffs2 overlay")
			s.fs.SetVolatile(false)
		})
	}
	if b.Line().AtLeast(router.Line2512) {
		s.configGenerate() // in preinit; before, in the boot script (observed 7)
	}
	list, _ := s.fs.ReadDir("/etc/rc.d")
	for _, e := range list {
		if !strings.HasPrefix(e.Base, "S") {
			continue
		}
		if st, err := s.fs.Stat("/etc/rc.d/" + e.Base); err != nil || st.FileMode&0o111 == 0 {
			continue
		}
		p := s.k.Start(nil, ash.Spawn{Args: []string{"/etc/rc.d/" + e.Base, "boot"}})
		select {
		case <-p.Done():
		case <-s.k.Context().Done():
			return
		}
	}
	b.logf("daemon.info procd", "- init complete -")
}

// mounts makes the RAM areas.
func (s *system) mounts() {
	f := s.fs
	for _, d := range []string{"/tmp", "/dev", "/proc", "/sys"} {
		f.MountRAM(d)
	}
	f.Chmod("/tmp", fs.ModeSticky|0o777)
	f.LimitRAM(s.b.opt.Memory)
	for _, d := range []string{"/tmp/run", "/tmp/lock", "/tmp/log", "/tmp/lib", "/tmp/state", "/tmp/etc", "/tmp/hosts", "/tmp/resolv.conf.d", "/tmp/sysinfo", "/proc/sys/kernel", "/proc/sys/net/ipv4", "/proc/net", "/sys/class/net", "/dev/shm"} {
		f.MkdirAll(d, 0o755)
	}
	for _, d := range []string{"null", "zero", "urandom", "random", "full", "console", "tty", "kmsg"} {
		f.Device("/dev/"+d, d)
	}
	gen := func(name string, fn func() string) { f.Generated(name, func() []byte { return []byte(fn()) }) }
	gen("/proc/mounts", func() string {
		switch {
		case s.b.opt.RAM:
			return ramMounts
		case f.Volatile():
			// mount_root: "jffs2 not ready yet, using temporary tmpfs overlay"
			return "/dev/root /rom squashfs ro,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,noatime 0 0\nsysfs /sys sysfs rw,nosuid,nodev,noexec,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev,noatime 0 0\ntmpfs /tmp/root tmpfs rw,noatime,mode=755 0 0\noverlayfs:/tmp/root / overlay rw,noatime,lowerdir=/,upperdir=/tmp/root/upper,workdir=/tmp/root/work 0 0\ntmpfs /dev tmpfs rw,nosuid,noexec,noatime,size=512k,mode=755 0 0\n"
		}
		return "/dev/root /rom squashfs ro,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,noatime 0 0\nsysfs /sys sysfs rw,nosuid,nodev,noexec,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev,noatime 0 0\n/dev/mtdblock9 /overlay jffs2 rw,noatime 0 0\noverlayfs:/overlay / overlay rw,noatime,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work 0 0\ntmpfs /dev tmpfs rw,nosuid,noexec,noatime,size=512k,mode=755 0 0\n"
	})
	gen("/tmp/sysinfo/board_name", func() string { return s.b.opt.Board + "\n" })
	gen("/tmp/sysinfo/model", func() string { return s.b.opt.Model + "\n" })
	gen("/proc/uptime", func() string {
		up := time.Since(s.b.since).Seconds()
		return fmt.Sprintf("%.2f %.2f\n", up, up)
	})
	gen("/proc/sys/kernel/osrelease", func() string { return releases[s.line].kernel + "\n" })
	gen("/proc/sys/kernel/hostname", func() string { return s.hostname() + "\n" })
	gen("/proc/sys/kernel/random/uuid", func() string { return "" })
	gen("/proc/version", func() string { return "Linux version " + releases[s.line].kernel + "\n" })
	gen("/proc/loadavg", func() string { return "0.00 0.00 0.00 1/60 1\n" })
	gen("/proc/meminfo", func() string {
		return "MemTotal:         248576 kB\nMemFree:          168944 kB\nMemAvailable:     164888 kB\n"
	})
	gen("/proc/cpuinfo", func() string { return "processor\t: 0\nmodel name\t: ARMv7 Processor rev 5 (v7l)\n" })
	gen("/proc/mtd", s.procMTD)
	gen("/proc/modules", func() string { return s.pkg.modules() })
	s.k.Born = func(p *ash.Proc) {
		dir := fmt.Sprintf("/proc/%d", p.PID)
		f.Mkdir(dir, 0o555)
		f.Generated(dir+"/cmdline", func() []byte { return []byte(strings.Join(p.Cmdline(), "\x00") + "\x00") })
	}
	s.k.Gone = func(p *ash.Proc) { f.RemoveAll(fmt.Sprintf("/proc/%d", p.PID)) }
}

// configGenerate makes the files of the first boot when they are missing.
func (s *system) configGenerate() {
	if _, err := s.fs.Stat("/etc/config/network"); err != nil {
		r := s.b.random()
		ula := fmt.Sprintf("fd%02x:%04x:%04x::/48", r&0xff, r>>8&0xffff, r>>24&0xffff)
		s.fs.WriteFile("/etc/config/network", []byte(s.b.networkConfig(ula)), 0o600)
	}
	if _, err := s.fs.Stat("/etc/config/system"); err != nil {
		s.fs.WriteFile("/etc/config/system", []byte(s.b.systemConfig()), 0o600)
	}
	if _, err := s.fs.Stat("/etc/config/wireless"); err != nil && len(s.b.ports().radios) > 0 {
		s.fs.WriteFile("/etc/config/wireless", []byte(s.b.wirelessConfig()), 0o600)
	}
}

func (s *system) hostname() string {
	if doc := s.config("system"); doc != nil {
		for _, sec := range doc.OfType("system") {
			if v, ok := sec.Get("hostname"); ok {
				return v
			}
		}
	}
	return "OpenWrt"
}

// uciFS gives the uci program the box's files.
type uciFS struct{ f *boxfs.FS }

func (u uciFS) ReadFile(n string) ([]byte, error) { return u.f.ReadFile(n) }
func (u uciFS) WriteFile(n string, data []byte, mode fs.FileMode) error {
	return u.f.WriteFile(n, data, mode)
}
func (u uciFS) Rename(a, b string) error { return u.f.Rename(a, b) }
func (u uciFS) Remove(n string) error    { return u.f.Remove(n) }
func (u uciFS) Fsync(n string) error     { return u.f.Fsync(n) }
func (u uciFS) ReadDir(n string) ([]string, error) {
	list, err := u.f.ReadDir(n)
	var out []string
	for _, e := range list {
		out = append(out, e.Base)
	}
	return out, err
}
func (u uciFS) Stat(n string) (fs.FileMode, bool) {
	st, err := u.f.Stat(n)
	return st.FileMode, err == nil
}
func (u uciFS) MkdirAll(n string, mode fs.FileMode) error { return u.f.MkdirAll(n, mode) }

// config reads a configuration as daemons and init scripts do: with what is
// staged and, from 24.10 on, with override files (facts 3.4 and 1.8). A broken
// file is read as far as it goes, which is netifd's way (facts 4.1).
func (s *system) config(name string) *uci.Document {
	var out, errs bytes.Buffer
	if ucicli.Run(uciFS{s.fs}, s.line, []string{"-q", "export", name}, strings.NewReader(""), &out, &errs) == 0 {
		if doc, err := uci.Parse(name, out.Bytes()); err == nil {
			return doc
		}
	}
	text, err := s.fs.ReadFile("/etc/config/" + name)
	if err != nil {
		return nil
	}
	doc, _ := uci.ParseLoose(name, text)
	return doc
}

// serviceProgram is what the init scripts of the image call: .service NAME ACTION.
func (s *system) serviceProgram(p *ash.Proc, args []string) int {
	if len(args) < 3 {
		return 1
	}
	name, action := args[1], args[2]
	switch action {
	case "run":
		q := s.k.Start(nil, ash.Spawn{Args: args[3:], Orphan: true})
		s.mu.Lock()
		s.running[name] = append(s.running[name], q)
		s.mu.Unlock()
		return 0
	case "kill":
		s.mu.Lock()
		list := s.running[name]
		delete(s.running, name)
		s.mu.Unlock()
		for _, q := range list {
			q.Signal("TERM")
		}
		return 0
	case "running":
		if s.isRunning(name) {
			return 0
		}
		return 1
	}
	return s.serviceDo(p, name, action)
}

func (s *system) isRunning(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started[name] {
		return true
	}
	for _, q := range s.running[name] {
		select {
		case <-q.Done():
		default:
			return true
		}
	}
	return false
}

func (s *system) set(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started[name] = on
}

// serviceDo starts, stops or reloads a service of the image.
func (s *system) serviceDo(p *ash.Proc, name, action string) int {
	start := action == "start" || action == "boot"
	if start {
		s.set(name, true)
	} else if action == "stop" {
		s.set(name, false)
	}
	switch name {
	case "boot":
		if start {
			s.fs.MkdirAll("/tmp/.uci", 0o700)
			s.configGenerate()
			s.uciDefaults(p)
			s.fs.Sync()
			// "temporary hack until configd exists" (base-files, init.d/boot)
			p.Run(ash.Spawn{Args: []string{"/sbin/reload_config"}})
		}
	case "network":
		switch action {
		case "reload":
			s.net.reprogramSwitch()
			s.net.reload(false)
		case "stop":
			s.net.stop()
			p.Sleep(time.Second) // "ifdown -a; sleep 1" (netifd, init.d/network)
		default:
			s.net.start()
		}
	case "firewall":
		switch action {
		case "stop":
			s.fw.flush()
		case "reload":
			return s.fw.load(p.Stderr(), false)
		default:
			return s.fw.load(p.Stderr(), true)
		}
	case "dropbear":
		if action == "stop" {
			s.sshd.end()
			return 0
		}
		if err := s.sshd.start(); err != nil {
			fmt.Fprintln(p.Stderr(), err)
			return 1
		}
	case "dnsmasq", "odhcpd":
		if name == "dnsmasq" {
			s.dns.update(action != "stop")
		}
	case "done":
		if start {
			if _, err := s.fs.Stat("/etc/rc.local"); err == nil {
				p.Run(ash.Spawn{Args: []string{"/bin/sh", "/etc/rc.local"}})
			}
			// init.d/done: what came over the upgrade is settled now.
			if s.fs.Remove("/sysupgrade.tgz") == nil {
				s.fs.Sync()
			}
		}
	}
	return 0
}

// uciDefaults runs the scripts in /etc/uci-defaults and deletes those that succeed.
func (s *system) uciDefaults(p *ash.Proc) {
	list, _ := s.fs.ReadDir("/etc/uci-defaults")
	for _, e := range list {
		name := path.Join("/etc/uci-defaults", e.Base)
		if p.Run(ash.Spawn{Args: []string{"/bin/sh", name}}) == 0 {
			s.fs.Remove(name)
		}
	}
}

// configChanged is procd's reaction to a config.change event: after a second it
// runs the reload of every service that asked for that file (facts 3.4).
func (s *system) configChanged(config string) {
	triggers := map[string][]string{"network": {"network"}, "wireless": {"network"}, "firewall": {"firewall"}, "dhcp": {"dnsmasq", "odhcpd"},
		"dropbear": {"dropbear"}, "system": {"system", "log", "sysntpd"}, "uhttpd": {"uhttpd"}, "rpcd": {"rpcd"}, "luci": nil}
	for _, svc := range triggers[config] {
		if _, err := s.fs.Stat("/etc/init.d/" + svc); err != nil || !s.isRunning(svc) {
			continue
		}
		s.soon(time.Second, func() {
			s.k.Start(nil, ash.Spawn{Args: []string{"/etc/init.d/" + svc, "reload"}})
		})
	}
}

// serviceNames lists what procd knows.
func (s *system) serviceNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for n, on := range s.started {
		if on {
			list = append(list, n)
		}
	}
	for n := range s.running {
		list = append(list, n)
	}
	sort.Strings(list)
	return list
}
