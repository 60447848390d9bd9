package busybox

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

func sysApplets() map[string]ash.Program {
	return map[string]ash.Program{
		"sleep": Sleep, "usleep": Sleep, "date": Date, "ps": Ps, "pgrep": Pgrep, "pkill": Pgrep, "killall": Killall, "pidof": Pidof,
		"id": ID, "hostname": Hostname, "uname": Uname, "env": Env, "which": Which, "flock": Flock, "lock": Lock,
		"start-stop-daemon": StartStop, "mount": Mount, "uptime": Uptime, "clear": func(*Proc, []string) int { return 0 },
		"setsid": Setsid, "nice": Setsid, "printenv": Env, "whoami": ID, "free": Free,
	}
}

// Sleep is the programs sleep and usleep; fractions and units are fine.
func Sleep(p *Proc, args []string) int {
	if len(args) < 2 {
		return usage(p, args[0], "needs a time")
	}
	var total time.Duration
	for _, a := range args[1:] {
		unit := time.Second
		if args[0] == "usleep" {
			unit = time.Microsecond
		}
		n := a
		switch a[len(a)-1] {
		case 's', 'm', 'h', 'd':
			unit = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[a[len(a)-1]]
			n = a[:len(a)-1]
		}
		x, err := strconv.ParseFloat(n, 64)
		if err != nil || x < 0 {
			return fail(p, args[0], "invalid number '%s'", a)
		}
		total += time.Duration(x * float64(unit))
	}
	p.Sleep(total)
	return 0
}

// Date is the program date: +FORMAT, -u, -R, -I, -r FILE, -d @SECONDS.
func Date(p *Proc, args []string) int {
	f, err := parse(args, "uRIr:d:D:s:k")
	if err != nil {
		return usage(p, "date", err.Error())
	}
	now := time.Now().UTC()
	switch {
	case f.has('r'):
		i, err := p.FS().Stat(p.Path(f.val['r']))
		if err != nil {
			return fail(p, "date", "%s: %s", f.val['r'], ash.ErrText(err))
		}
		now = i.Time.UTC()
	case f.has('d'):
		v := f.val['d']
		if n, err := strconv.ParseInt(strings.TrimPrefix(v, "@"), 10, 64); err == nil && strings.HasPrefix(v, "@") {
			now = time.Unix(n, 0).UTC()
		} else if t, err := time.Parse("2006-01-02 15:04:05", v); err == nil {
			now = t
		} else {
			return fail(p, "date", "invalid date '%s'", v)
		}
	}
	format := "%a %b %e %H:%M:%S UTC %Y"
	if f.has('R') {
		format = "%a, %d %b %Y %H:%M:%S +0000"
	}
	if f.has('I') {
		format = "%Y-%m-%d"
	}
	if len(f.rest) > 0 {
		if !strings.HasPrefix(f.rest[0], "+") {
			return fail(p, "date", "invalid date '%s'", f.rest[0])
		}
		format = f.rest[0][1:]
	}
	fmt.Fprintln(p.Stdout(), Strftime(format, now))
	return 0
}

// Strftime formats a time as strftime(3) does.
func Strftime(format string, t time.Time) string {
	m := map[byte]string{'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'b': "Jan", 'B': "January",
		'a': "Mon", 'A': "Monday", 'T': "15:04:05", 'F': "2006-01-02", 'R': "15:04", 'e': "_2", 'Z': "UTC", 'z': "-0700", 'p': "PM", 'I': "03", 'D': "01/02/06", 'h': "Jan"}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch c := format[i]; c {
		case 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '%':
			b.WriteByte('%')
		case 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case 'u':
			b.WriteString(strconv.Itoa((int(t.Weekday())+6)%7 + 1))
		case 'w':
			b.WriteString(strconv.Itoa(int(t.Weekday())))
		default:
			if l, ok := m[c]; ok {
				b.WriteString(t.Format(l))
			} else {
				b.WriteString(format[i-1 : i+1])
			}
		}
	}
	return b.String()
}

func cmdline(q *Proc) string {
	a := q.Cmdline()
	if len(a) == 0 {
		return "sh"
	}
	return strings.Join(a, " ")
}

// Ps is the program ps (busybox's, with -w and -o ignored as OpenWrt builds it).
func Ps(p *Proc, args []string) int {
	if _, err := parse(args, "w"); err != nil {
		return usage(p, "ps", err.Error())
	}
	fmt.Fprintln(p.Stdout(), "  PID USER       VSZ STAT COMMAND")
	fmt.Fprintln(p.Stdout(), "    1 root      1508 S    /sbin/procd")
	for _, q := range p.K.List() {
		fmt.Fprintf(p.Stdout(), "%5d root      1208 S    %s\n", q.PID, cmdline(q))
	}
	return 0
}

func procName(q *Proc) string {
	a := q.Cmdline()
	if len(a) == 0 {
		return ""
	}
	i := strings.LastIndex(a[0], "/")
	return a[0][i+1:]
}

// Pgrep is the programs pgrep and pkill.
func Pgrep(p *Proc, args []string) int {
	sig := "TERM"
	if args[0] == "pkill" && len(args) > 1 && strings.HasPrefix(args[1], "-") {
		if s, ok := ash.SignalName(args[1][1:]); ok {
			sig, args = s, append([]string{args[0]}, args[2:]...)
		}
	}
	f, err := parse(args, "flvxonsP:a")
	if err != nil || len(f.rest) != 1 && !f.has('P') {
		return usage(p, args[0], "needs a pattern")
	}
	expr := ""
	if len(f.rest) > 0 {
		expr = posix(f.rest[0], true)
	}
	if f.has('x') {
		expr = "^(?:" + expr + ")$"
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return fail(p, args[0], "bad regex")
	}
	hit := 1
	for _, q := range p.K.List() {
		text := procName(q)
		if f.has('f') {
			text = cmdline(q)
		}
		if q.PID == p.PID || re.MatchString(text) == f.has('v') || f.has('P') && strconv.Itoa(q.PPID) != f.val['P'] {
			continue
		}
		hit = 0
		if args[0] == "pkill" {
			q.Signal(sig)
		} else if f.has('l') || f.has('a') {
			fmt.Fprintln(p.Stdout(), q.PID, text)
		} else {
			fmt.Fprintln(p.Stdout(), q.PID)
		}
	}
	return hit
}

// Killall is the program killall.
func Killall(p *Proc, args []string) int {
	sig, a := "TERM", args[1:]
	quiet := false
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		if a[0] == "-q" {
			quiet = true
		} else if s, ok := ash.SignalName(a[0][1:]); ok {
			sig = s
		}
		a = a[1:]
	}
	st := 0
	for _, n := range a {
		found := false
		for _, q := range p.K.List() {
			if procName(q) == n && q.PID != p.PID {
				q.Signal(sig)
				found = true
			}
		}
		if !found {
			st = 1
			if !quiet {
				fail(p, "killall", "%s: no process killed", n)
			}
		}
	}
	return st
}

// Pidof is the program pidof.
func Pidof(p *Proc, args []string) int {
	var ids []string
	for _, q := range p.K.List() {
		for _, n := range args[1:] {
			if procName(q) == n {
				ids = append(ids, strconv.Itoa(q.PID))
			}
		}
	}
	if len(ids) == 0 {
		return 1
	}
	fmt.Fprintln(p.Stdout(), strings.Join(ids, " "))
	return 0
}

// ID is the programs id and whoami: everybody is root.
func ID(p *Proc, args []string) int {
	switch {
	case args[0] == "whoami" || len(args) > 1 && strings.Contains(args[1], "n"):
		fmt.Fprintln(p.Stdout(), "root")
	case len(args) > 1 && strings.HasPrefix(args[1], "-"):
		fmt.Fprintln(p.Stdout(), 0)
	default:
		fmt.Fprintln(p.Stdout(), "uid=0(root) gid=0(root)")
	}
	return 0
}

func hostname(p *Proc) string {
	if p.K.Hostname != nil {
		return p.K.Hostname()
	}
	return "OpenWrt"
}

// Hostname is the program hostname.
func Hostname(p *Proc, args []string) int {
	fmt.Fprintln(p.Stdout(), hostname(p))
	return 0
}

// Uname is the program uname.
func Uname(p *Proc, args []string) int {
	f, err := parse(args, "asnrvmpo")
	if err != nil {
		return usage(p, "uname", err.Error())
	}
	rel, _ := p.FS().ReadFile("/proc/sys/kernel/osrelease")
	all := []struct {
		c byte
		v string
	}{{'s', "Linux"}, {'n', hostname(p)}, {'r', strings.TrimSpace(string(rel))}, {'v', "#0 SMP"}, {'m', "armv7l"}, {'o', "GNU/Linux"}}
	var out []string
	for _, x := range all {
		if f.has('a') || f.has(x.c) || len(f.on) == 0 && x.c == 's' {
			out = append(out, x.v)
		}
	}
	fmt.Fprintln(p.Stdout(), strings.Join(out, " "))
	return 0
}

// Env is the programs env and printenv.
func Env(p *Proc, args []string) int {
	a := args[1:]
	env := map[string]string{}
	for k, v := range p.Env {
		env[k] = v
	}
	for len(a) > 0 && args[0] == "env" {
		if a[0] == "-i" || a[0] == "-" {
			env, a = map[string]string{}, a[1:]
			continue
		}
		if a[0] == "-u" && len(a) > 1 {
			delete(env, a[1])
			a = a[2:]
			continue
		}
		k, v, ok := strings.Cut(a[0], "=")
		if !ok {
			break
		}
		env[k], a = v, a[1:]
	}
	if len(a) > 0 && args[0] == "env" {
		if env["PATH"] == "" {
			env["PATH"] = ash.DefaultPath
		}
		st := p.Run(ash.Spawn{Args: a, Env: env})
		if st == 127 {
			fail(p, "env", "can't execute '%s': No such file or directory", a[0])
		}
		return st
	}
	var names []string
	for k := range env {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		if len(a) == 0 {
			fmt.Fprintf(p.Stdout(), "%s=%s\n", k, env[k])
		} else if k == a[0] {
			fmt.Fprintln(p.Stdout(), env[k])
		}
	}
	return 0
}

// Which is the program which.
func Which(p *Proc, args []string) int {
	st := 0
	for _, n := range args[1:] {
		if f, ok := p.LookPath(n); ok {
			fmt.Fprintln(p.Stdout(), f)
		} else {
			st = 1
		}
	}
	return st
}

// Setsid is the programs setsid (24.10 on) and nice: they run a command.
func Setsid(p *Proc, args []string) int {
	a := args[1:]
	for len(a) > 0 && strings.HasPrefix(a[0], "-") {
		if a[0] == "-n" && len(a) > 1 {
			a = a[1:]
		}
		a = a[1:]
	}
	return p.Exec(a)
}

// Flock is the program flock: -s -x -n -u FD, or FILE [-c] COMMAND.
func Flock(p *Proc, args []string) int {
	f, err := parse(args, "+sxnuc")
	if err != nil || len(f.rest) == 0 {
		return usage(p, "flock", "[-sxun] FD | { FILE [-c] PROG ARGS }")
	}
	rest := f.rest
	if n, err := strconv.Atoi(rest[0]); err == nil && len(rest) == 1 {
		file := p.File(n)
		if file == nil {
			return fail(p, "flock", "%d: Bad file descriptor", n)
		}
		if f.has('u') {
			file.Unlock()
			return 0
		}
		return lockStatus(p, file.Lock(p.Context(), !f.has('s'), f.has('n')))
	}
	h, err := p.FS().Open(p.Path(rest[0]), boxfs.Read|boxfs.Write|boxfs.Create, 0o666&^p.Mask)
	if err != nil {
		if h, err = p.FS().Open(p.Path(rest[0]), boxfs.Read, 0); err != nil {
			p.Check()
			return fail(p, "flock", "can't open '%s': %s", rest[0], ash.ErrText(err))
		}
	}
	defer h.Close()
	if st := lockStatus(p, h.Lock(p.Context(), !f.has('s'), f.has('n'))); st != 0 {
		return st
	}
	cmd := rest[1:]
	if len(cmd) > 0 && cmd[0] == "-c" {
		cmd = []string{"/bin/sh", "-c", strings.Join(cmd[1:], " ")}
	}
	if len(cmd) == 0 {
		return 0
	}
	return p.Run(ash.Spawn{Args: cmd})
}

func lockStatus(p *Proc, err error) int {
	if err == nil {
		return 0
	}
	p.Check()
	return 1
}

// Lock is OpenWrt's lock(1): it keeps a lock by a background process until
// "lock -u". -n tries only, -w waits until it is free.
func Lock(p *Proc, args []string) int {
	f, err := parse(args, "snuw")
	if err != nil || len(f.rest) == 0 {
		return usage(p, "lock", "[-suw] <filename>")
	}
	name := p.Path(f.rest[0])
	if f.has('u') {
		data, err := p.FS().ReadFile(name)
		if err != nil {
			return 1
		}
		if pid, _ := strconv.Atoi(strings.TrimSpace(string(data))); pid > 0 {
			if q := p.K.Find(pid); q != nil {
				q.Signal("TERM")
				<-q.Done()
			}
		}
		return 0
	}
	h, err := p.FS().Open(name, boxfs.Read|boxfs.Write|boxfs.Create, 0o700)
	if err != nil {
		p.Check()
		fmt.Fprintf(p.Stderr(), "Can't open %s\n", f.rest[0])
		return 1
	}
	if err := h.Lock(p.Context(), !f.has('s'), f.has('n')); err != nil {
		h.Close()
		p.Check()
		fmt.Fprintf(p.Stderr(), "Can't lock %s\n", f.rest[0])
		return 1
	}
	if f.has('w') {
		h.Close()
		return 0
	}
	keeper := p.K.Start(p, ash.Spawn{Args: args, Orphan: true, Stdin: strings.NewReader("")}.Doing(func(q *Proc) int {
		defer h.Close()
		<-q.Context().Done()
		q.Check()
		return 0
	}))
	p.FS().WriteFile(name, []byte(strconv.Itoa(keeper.PID)+"\n"), 0o700)
	return 0
}

// StartStop is the program start-stop-daemon: -S or -K, -b -m -p -x -a -n -q -t -o -s --.
func StartStop(p *Proc, args []string) int {
	f, err := parse(args, "+SKbmqtov:p:x:a:n:s:u:c:R:d:", "start=S", "stop=K", "background=b", "make-pidfile=m", "quiet=q", "test=t", "oknodo=o")
	if err != nil {
		return usage(p, "start-stop-daemon", err.Error())
	}
	running := ssdFind(p, f)
	if f.has('K') {
		if len(running) == 0 {
			if !f.has('q') {
				fmt.Fprintln(p.Stderr(), "no process killed")
			}
			return b2i(!f.has('o'))
		}
		sig := "TERM"
		if f.has('s') {
			sig, _ = ash.SignalName(f.val['s'])
		}
		for _, q := range running {
			if !f.has('t') {
				q.Signal(sig)
			}
		}
		return 0
	}
	if !f.has('S') {
		return usage(p, "start-stop-daemon", "needs -S or -K")
	}
	if len(running) > 0 {
		if !f.has('q') {
			fmt.Fprintf(p.Stdout(), "%s is already running\n%d\n", f.val['x'], running[0].PID)
		}
		return b2i(!f.has('o'))
	}
	exe := f.val['x']
	if f.has('a') {
		exe = f.val['a']
	}
	if exe == "" {
		return usage(p, "start-stop-daemon", "needs -x")
	}
	if _, ok := p.LookPath(exe); !ok {
		return fail(p, "start-stop-daemon", "can't execute '%s': No such file or directory", exe)
	}
	if f.has('t') {
		return 0
	}
	cmd := append([]string{exe}, f.rest...)
	if !f.has('b') {
		if f.has('m') {
			p.FS().WriteFile(p.Path(f.val['p']), []byte(strconv.Itoa(p.PID)+"\n"), 0o644)
		}
		return p.Exec(cmd)
	}
	cwd := "/"
	if f.has('d') {
		cwd = f.val['d']
	}
	q := p.K.Start(nil, ash.Spawn{Args: cmd, Env: p.Env, Cwd: cwd, Orphan: true})
	if f.has('m') && f.has('p') {
		if err := p.FS().WriteFile(p.Path(f.val['p']), []byte(strconv.Itoa(q.PID)+"\n"), 0o644); err != nil {
			p.Check()
		}
	}
	return 0
}

func ssdFind(p *Proc, f *flags) []*Proc {
	match := func(q *Proc) bool {
		if f.has('n') && procName(q) != f.val['n'] {
			return false
		}
		if f.has('x') && !f.has('a') {
			a := q.Cmdline()
			if len(a) == 0 || a[0] != f.val['x'] {
				return false
			}
		}
		return true
	}
	if f.has('p') {
		data, err := p.FS().ReadFile(p.Path(f.val['p']))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		if q := p.K.Find(pid); err == nil && q != nil && match(q) {
			return []*Proc{q}
		}
		return nil
	}
	if !f.has('n') && !f.has('x') {
		return nil
	}
	// Without a pid file every process counts whose first argument is the
	// program (busybox debianutils/start_stop_daemon.c, pid_is_exec: /proc/N/exe
	// is /bin/busybox for an applet, so the command line decides). A second
	// `-x /bin/sh` job is therefore "already running", as is the first one while
	// an init script runs.
	var out []*Proc
	for _, q := range p.K.List() {
		if q.PID != p.PID && match(q) {
			out = append(out, q)
		}
	}
	return out
}

// Mount prints the mount table; mounting is not emulated.
func Mount(p *Proc, args []string) int {
	if len(args) > 1 {
		return fail(p, "mount", "permission denied (are you root?)")
	}
	data, err := p.FS().ReadFile("/proc/mounts")
	if err != nil {
		return fail(p, "mount", "/proc/mounts: %s", ash.ErrText(err))
	}
	for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		w := strings.Fields(l)
		if len(w) >= 4 {
			fmt.Fprintf(p.Stdout(), "%s on %s type %s (%s)\n", w[0], w[1], w[2], w[3])
		}
	}
	return 0
}

// Uptime is the program uptime.
func Uptime(p *Proc, _ []string) int {
	data, _ := p.FS().ReadFile("/proc/uptime")
	sec, _, _ := strings.Cut(string(data), ".")
	n, _ := strconv.Atoi(sec)
	fmt.Fprintf(p.Stdout(), " %s up %d min,  load average: 0.00, 0.00, 0.00\n", time.Now().UTC().Format("15:04:05"), n/60)
	return 0
}

// Free is the program free.
func Free(p *Proc, _ []string) int {
	fmt.Fprint(p.Stdout(), "              total        used        free      shared  buff/cache   available\nMem:         248576       42108      168944         160       37524      164888\nSwap:             0           0           0\n")
	return 0
}
