// Package ash runs programs on an emulated home router: a table of processes
// with signals, descriptors and pipes, and a POSIX shell in the manner of
// busybox ash. Everything lives in memory: no file, program or environment of
// the computer it runs on is ever reached, and a testing/synctest bubble can
// hold all of it.
//
// A program is a Go function. It becomes a command by a file of the box's file
// system that names it (see ELF), so that what is installed, lost or not yet
// there is decided by the files alone.
package ash

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

// Program is one command. args[0] is the name it was called by. It returns the
// exit status.
type Program func(p *Proc, args []string) int

// magic begins the files that stand for compiled programs.
const magic = "\x7fELF heimweg "

// ELF is the content of a file that stands for the program of that name.
func ELF(program string) []byte { return []byte(magic + program + "\n") }

// Kernel runs the processes of one boot of the box.
type Kernel struct {
	FS *boxfs.FS
	// Programs finds the code of a program that a file names.
	Programs map[string]Program
	// Hostname, for uname and prompts.
	Hostname func() string
	// Before is called before every command; false stops it (and skips it with
	// that status and text).
	Before func(p *Proc, argv []string) (run bool, exit int, stderr string)
	// After is called when a command has ended.
	After func(p *Proc, argv []string, exit int)
	// Born and Gone are told of every process.
	Born, Gone func(p *Proc)
	// Unknown is told of commands that do not exist.
	Unknown func(name string)

	ctx    context.Context
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	procs  map[int]*Proc
	next   int
	wg     sync.WaitGroup
}

// ErrPower is why processes end when the power goes.
var ErrPower = errors.New("power is off")

// NewKernel starts an empty process table.
func NewKernel(fsys *boxfs.FS) *Kernel {
	k := &Kernel{FS: fsys, Programs: map[string]Program{}, procs: map[int]*Proc{}, next: 1000}
	k.ctx, k.cancel = context.WithCancelCause(context.Background())
	return k
}

// Context ends when the power goes.
func (k *Kernel) Context() context.Context { return k.ctx }

// Halt ends every process at once, without their notice. It does not wait.
func (k *Kernel) Halt() { k.cancel(ErrPower) }

// Wait waits until every process is gone.
func (k *Kernel) Wait() { k.wg.Wait() }

// Proc is one process.
type Proc struct {
	K    *Kernel
	PID  int
	PPID int
	Args []string
	Env  map[string]string
	Cwd  string
	Mask fs.FileMode
	// Session is what the process belongs to (an SSH connection), inherited.
	Session any
	Start   time.Time

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	status int

	mu      sync.Mutex
	fds     map[int]*desc
	caught  map[string]bool // signals that the program takes itself
	pending []string
	sigC    chan struct{}
}

// killed is the cause of a process's end by a signal.
type killed struct{ sig int }

func (killed) Error() string { return "killed" }

// leave unwinds a process.
type leave struct{ status int }

// Spawn describes a new process.
type Spawn struct {
	Args    []string
	Env     map[string]string // nil: the parent's
	Cwd     string
	Stdin   io.Reader // used when not nil, instead of the parent's
	Stdout  io.Writer
	Stderr  io.Writer
	Orphan  bool // belongs to process 1 and to no session
	Session any
	fds     map[int]*desc
	run     func(p *Proc) int
}

// Start begins a process. parent is nil for those of the system itself.
func (k *Kernel) Start(parent *Proc, s Spawn) *Proc {
	p := &Proc{K: k, Args: s.Args, Env: s.Env, Cwd: "/", Mask: 0o022, Session: s.Session,
		Start: time.Now(), done: make(chan struct{}), fds: map[int]*desc{}, caught: map[string]bool{}, sigC: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancelCause(k.ctx)
	p.PPID = 1
	if parent != nil {
		if !s.Orphan {
			p.PPID = parent.PID
			p.Session = parent.Session
		}
		p.Cwd, p.Mask = parent.Cwd, parent.Mask
		if s.Env == nil {
			p.Env = parent.Env
		}
		src := s.fds
		if src == nil {
			src = parent.fds
		}
		for n, d := range src {
			p.fds[n] = d.dup()
		}
	}
	if parent == nil {
		for n, d := range s.fds {
			p.fds[n] = d // handed over
		}
	}
	if s.Cwd != "" {
		p.Cwd = s.Cwd
	}
	if p.Env == nil {
		p.Env = map[string]string{"PATH": DefaultPath, "HOME": "/root", "USER": "root", "SHELL": "/bin/ash"}
	}
	if s.Stdin != nil {
		p.setFD(0, newDesc(&extStream{r: s.Stdin}))
	}
	if s.Stdout != nil {
		p.setFD(1, newDesc(&extStream{w: s.Stdout}))
	}
	if s.Stderr != nil {
		p.setFD(2, newDesc(&extStream{w: s.Stderr}))
	}
	for n := 0; n < 3; n++ {
		if p.fds[n] == nil && s.fds == nil && parent == nil {
			p.fds[n] = newDesc(nullStream{})
		}
	}
	k.mu.Lock()
	k.next++
	p.PID = k.next
	k.procs[p.PID] = p
	k.mu.Unlock()
	if k.Born != nil {
		k.Born(p)
	}
	k.wg.Add(1)
	go p.live(s)
	return p
}

// DefaultPath is what OpenWrt compiles in.
const DefaultPath = "/usr/sbin:/usr/bin:/sbin:/bin"

func (p *Proc) live(s Spawn) {
	defer p.K.wg.Done()
	defer func() {
		p.mu.Lock()
		fds := p.fds
		p.fds = map[int]*desc{}
		p.mu.Unlock()
		for _, d := range fds {
			d.close()
		}
		if p.K.Gone != nil {
			p.K.Gone(p)
		}
		p.K.mu.Lock()
		delete(p.K.procs, p.PID)
		p.K.mu.Unlock()
		p.cancel(nil)
		close(p.done)
	}()
	defer func() {
		if r := recover(); r != nil {
			l, ok := r.(leave)
			if !ok {
				panic(r)
			}
			p.status = l.status
		}
	}()
	if s.run != nil {
		p.status = s.run(p)
		return
	}
	p.status = p.Exec(s.Args)
}

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Status is the exit status after the end; 128 + signal for a killed one.
func (p *Proc) Status() int { return p.status }

// Wait waits for another process's end. The waiting process may be killed
// meanwhile; the other one lives on then.
func (p *Proc) Wait(child *Proc) int {
	select {
	case <-child.done:
		p.Check()
		return child.status
	case <-p.ctx.Done():
		p.Check()
		return 0
	}
}

// Check ends the process here if it has been killed.
func (p *Proc) Check() {
	if p.ctx.Err() == nil {
		return
	}
	var k killed
	if errors.As(context.Cause(p.ctx), &k) {
		panic(leave{128 + k.sig})
	}
	panic(leave{128 + 9})
}

// Exit ends the process.
func (p *Proc) Exit(status int) { panic(leave{status & 255}) }

// Context ends with the process.
func (p *Proc) Context() context.Context { return p.ctx }

// FS is the box's file system.
func (p *Proc) FS() *boxfs.FS { return p.K.FS }

// Path makes a path absolute by the working directory.
func (p *Proc) Path(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	if name == "" {
		return ""
	}
	return strings.TrimSuffix(p.Cwd, "/") + "/" + name
}

// Sleep waits, or ends the process when it is killed.
func (p *Proc) Sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
		p.Check()
	}
}

// Stdin, Stdout and Stderr are descriptors 0, 1 and 2. Writing to a pipe that
// nobody reads any more ends the process, as SIGPIPE does.
func (p *Proc) Stdin() io.Reader { return fdIO{p, 0} }

// Stdout is descriptor 1.
func (p *Proc) Stdout() io.Writer { return fdIO{p, 1} }

// Stderr is descriptor 2.
func (p *Proc) Stderr() io.Writer { return fdIO{p, 2} }

// FD is any descriptor.
func (p *Proc) FD(n int) io.ReadWriter { return fdIO{p, n} }

// HasFD reports whether a descriptor is open.
func (p *Proc) HasFD(n int) bool { return p.get(n) != nil }

// File gives the open file behind a descriptor, nil if it is something else.
func (p *Proc) File(n int) *boxfs.File {
	d := p.get(n)
	if d == nil {
		return nil
	}
	if f, ok := d.s.(fileStream); ok {
		return f.f
	}
	return nil
}

func (p *Proc) get(n int) *desc {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fds[n]
}

// setFD replaces a descriptor; nil closes it.
func (p *Proc) setFD(n int, d *desc) {
	p.mu.Lock()
	old := p.fds[n]
	if d == nil {
		delete(p.fds, n)
	} else {
		p.fds[n] = d
	}
	p.mu.Unlock()
	if old != nil {
		old.close()
	}
}

type fdIO struct {
	p *Proc
	n int
}

func (f fdIO) Read(b []byte) (int, error) {
	f.p.Check()
	d := f.p.get(f.n)
	if d == nil {
		return 0, syscall.EBADF
	}
	n, err := d.s.Read(f.p.ctx, b)
	f.p.Check()
	return n, err
}

func (f fdIO) Write(b []byte) (int, error) {
	f.p.Check()
	d := f.p.get(f.n)
	if d == nil {
		return 0, syscall.EBADF
	}
	n, err := d.s.Write(f.p.ctx, b)
	if errors.Is(err, syscall.EPIPE) {
		panic(leave{128 + 13})
	}
	f.p.Check()
	return n, err
}

// Signal numbers by name, as on Linux.
var signals = map[string]int{"EXIT": 0, "HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "CHLD": 17, "CONT": 18, "STOP": 19}

// SignalName reads TERM, SIGTERM or 15.
func SignalName(s string) (string, bool) {
	s = strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if _, ok := signals[s]; ok {
		return s, true
	}
	for n, v := range signals {
		if itoa(v) == s {
			return n, true
		}
	}
	return "", false
}

// Signal sends a signal to a process. It reports whether there is one.
func (k *Kernel) Signal(pid int, sig string) bool {
	k.mu.Lock()
	p := k.procs[pid]
	k.mu.Unlock()
	if p == nil {
		return false
	}
	p.Signal(sig)
	return true
}

// Signal delivers a signal: caught ones are queued, CHLD, CONT and 0 do
// nothing, the rest kill.
func (p *Proc) Signal(sig string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sig == "EXIT" || sig == "CHLD" || sig == "CONT" || sig == "STOP" {
		return
	}
	if sig != "KILL" && p.caught[sig] {
		p.pending = append(p.pending, sig)
		select {
		case p.sigC <- struct{}{}:
		default:
		}
		return
	}
	p.cancel(killed{signals[sig]})
}

func (p *Proc) catch(sig string, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caught[sig] = on
}

func (p *Proc) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending) > 0
}

// Cmdline gives the arguments, also of another process.
func (p *Proc) Cmdline() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Args
}

func (p *Proc) setArgs(a []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Args = a
}

func (p *Proc) nextSignal() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) == 0 {
		return "", false
	}
	s := p.pending[0]
	p.pending = p.pending[1:]
	return s, true
}

// List gives all processes by number.
func (k *Kernel) List() []*Proc {
	k.mu.Lock()
	defer k.mu.Unlock()
	var l []*Proc
	for _, p := range k.procs {
		l = append(l, p)
	}
	sort.Slice(l, func(i, j int) bool { return l[i].PID < l[j].PID })
	return l
}

// Find gives one process, nil if there is none.
func (k *Kernel) Find(pid int) *Proc {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.procs[pid]
}

// lookup finds a command's file by PATH. status is 127 or 126 when there is none.
func (p *Proc) lookup(name string) (file string, status int) {
	if strings.Contains(name, "/") {
		st, err := p.K.FS.Stat(p.Path(name))
		switch {
		case err != nil:
			return "", 127
		case st.IsDir() || st.FileMode&0o111 == 0:
			return "", 126
		}
		return p.Path(name), 0
	}
	status = 127
	for _, dir := range strings.Split(p.Env["PATH"], ":") {
		f := path.Join(p.Path(dir), name)
		st, err := p.K.FS.Stat(f)
		if err != nil || st.IsDir() {
			continue
		}
		if st.FileMode&0o111 == 0 {
			status = 126
			continue
		}
		return f, 0
	}
	return "", status
}

// LookPath finds a command as the shell would.
func (p *Proc) LookPath(name string) (string, bool) {
	f, st := p.lookup(name)
	return f, st == 0
}

// Exec runs a command within this process and returns its status. An unknown
// one is 127 with nothing printed.
func (p *Proc) Exec(args []string) int {
	p.Check()
	p.setArgs(args)
	if len(args) == 0 {
		return 0
	}
	file, st := p.lookup(args[0])
	if st != 0 {
		if st == 127 && p.K.Unknown != nil {
			p.K.Unknown(args[0])
		}
		return st
	}
	return p.execFile(file, args, 0)
}

func (p *Proc) execFile(file string, args []string, depth int) int {
	data, err := p.K.FS.ReadFile(file)
	if err != nil || depth > 4 {
		return 126
	}
	if name, ok := bytes.CutPrefix(data, []byte(magic)); ok {
		line, _, _ := strings.Cut(string(name), "\n") // what follows is ballast
		run := p.K.Programs[strings.TrimSpace(line)]
		if run == nil {
			io.WriteString(p.Stderr(), args[0]+": program not emulated; extend internal/lab/owrt\n")
			if p.K.Unknown != nil {
				p.K.Unknown(args[0])
			}
			return 127
		}
		return run(p, args)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	interp := []string{"/bin/sh"}
	if rest, ok := strings.CutPrefix(line, "#!"); ok {
		cmd, arg, _ := strings.Cut(strings.TrimSpace(rest), " ")
		interp = []string{cmd}
		if arg = strings.TrimSpace(arg); arg != "" {
			interp = append(interp, arg)
		}
	}
	args = append(append(interp, file), args[1:]...)
	f, st := p.lookup(interp[0])
	if st != 0 {
		return 127
	}
	p.setArgs(args)
	return p.execFile(f, args, depth+1)
}

// Run starts a command, waits for it and returns its status.
func (p *Proc) Run(s Spawn) int {
	return p.Wait(p.K.Start(p, s))
}

// Output runs a command with that input and returns what it printed.
func (k *Kernel) Output(args []string, stdin string) (stdout, stderr string, status int) {
	var o, e syncBuffer
	c := k.Start(nil, Spawn{Args: args, Stdin: strings.NewReader(stdin), Stdout: &o, Stderr: &e})
	<-c.Done()
	return o.String(), e.String(), c.Status()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// desc is an open descriptor that several numbers and processes may share.
type desc struct {
	s    stream
	refs *atomic.Int32
}

func newDesc(s stream) *desc {
	d := &desc{s: s, refs: new(atomic.Int32)}
	d.refs.Store(1)
	return d
}

func (d *desc) dup() *desc { d.refs.Add(1); return d }

func (d *desc) close() {
	if d.refs.Add(-1) == 0 {
		d.s.Close()
	}
}

// Doing makes the process run a function instead of a command.
func (s Spawn) Doing(run func(p *Proc) int) Spawn {
	s.run = run
	return s
}

// Killed reports whether a signal ended the process.
func (p *Proc) Killed() bool {
	var k killed
	return errors.As(context.Cause(p.ctx), &k)
}
