package evabox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// Programs that others wrote judge the emulator: what worked with them on real
// boxes must work here, and what is known to go wrong must go wrong in the same
// way, or the emulator is kinder than the device (facts eva 7.6).

// A trial is a foreign program in front of an emulated 4040 on a loopback port that
// waits for ever in its window.
type trial struct {
	t     *testing.T
	box   *evabox.Box
	at    netip.AddrPort
	dir   string
	image []byte
	path  string // of image
}

// sideBySide runs subtests at once, however few may run in parallel: they wait for
// other programs, mostly.
type sideBySide struct {
	t  *testing.T
	wg sync.WaitGroup
}

// together makes room for such subtests; the test waits for them.
func together(t *testing.T) (s *sideBySide, wait func()) {
	t.Parallel()
	s = &sideBySide{t: t}
	return s, s.wg.Wait
}

func (s *sideBySide) Run(name string, f func(t *testing.T)) {
	s.wg.Go(func() { s.t.Run(name, f) })
}

func try(t *testing.T, opt evabox.Options) *trial {
	t.Helper()
	network := evabox.NewLoopback()
	opt.Address = netip.MustParseAddr("127.0.0.1")
	opt.Times = evabox.Times{Link: 1, Stack: 1, Window: time.Hour, Erase: opt.Times.Erase + 1, Boot: 1, Check: 1, Late: 1, Rate: 1 << 30}
	x := &trial{t: t, box: evabox.New(network, opt), dir: t.TempDir(), image: evabox.Image4040(100_000, 200_000)}
	t.Cleanup(x.box.Close)
	x.path = filepath.Join(x.dir, "openwrt.bin")
	if err := os.WriteFile(x.path, x.image, 0o600); err != nil {
		t.Fatal(err)
	}
	x.box.Power(true)
	select {
	case x.at = <-network.FTP:
	case <-t.Context().Done():
		t.Fatal("the box did not open its port")
	}
	return x
}

// A shown is what a program has shown so far.
type shown struct {
	mu   sync.Mutex
	text bytes.Buffer
	want string
	seen chan struct{} // closed when want was shown
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.text.Write(p)
	if s.want != "" && strings.Contains(s.text.String(), s.want) {
		close(s.seen)
		s.want = ""
	}
	return n, err
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// patience is how long a program has to go on after which we say that it hangs.
const patience = 3 * time.Second

// run gives a program its lines and waits for its end. With hangs it must show
// those words and then neither end nor go on to the last line, "quit".
func (x *trial) run(hangs string, lines []string, name string, args ...string) (string, error) {
	x.t.Helper()
	ctx, stop := context.WithTimeout(x.t.Context(), 5*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, need.Program(x.t, name), args...)
	out := &shown{want: hangs, seen: make(chan struct{})}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = x.dir, out, out, time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+x.dir)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if err := cmd.Start(); err != nil {
		x.t.Fatal(err)
	}
	if hangs == "" {
		err := cmd.Wait()
		return out.String(), err
	}
	ended := make(chan struct{})
	var err error
	go func() { defer close(ended); err = cmd.Wait() }()
	select {
	case <-out.seen:
	case <-ended:
		x.t.Errorf("%s ended (%v) without saying %q\n%s", name, err, hangs, out)
	}
	select {
	case <-ended:
		x.t.Errorf("%s does not hang after %q: %v\n%s", name, hangs, err, out)
	case <-time.After(patience):
	}
	if strings.Contains(x.record(), "> QUIT") {
		x.t.Errorf("%s goes on after %q\n%s", name, hangs, out)
	}
	stop()
	<-ended
	return out.String(), nil
}

func (x *trial) record() string { return strings.Join(x.box.Record(), "\n") }

// says wants each of the texts.
func (x *trial) says(out string, texts ...string) {
	x.t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			x.t.Errorf("no %q in\n%s", text, out)
		}
	}
}

// written wants the image in the flash, to the byte.
func (x *trial) written(out string) {
	x.t.Helper()
	if !bytes.Equal(x.box.Flash("mtd1"), x.image) {
		x.t.Errorf("another image in flash\n%s\n%s", out, x.record())
	}
}

// ftp starts an interactive client with the seeds' options: ftp -n -v -p.
func (x *trial) ftp(hangs, program string, lines []string, more ...string) (string, error) {
	x.t.Helper()
	args := append(more, "-n", "-v", "-p", x.at.Addr().String(), fmt.Sprint(x.at.Port()))
	return x.run(hangs, append(login, lines...), program, args...)
}

// The seeds' lines.
var (
	login = []string{"quote USER adam2", "quote PASS adam2"}
	write = []string{"quote MEDIA FLSH", "binary", "put openwrt.bin mtd1", "quote check mtd1", "quit"}
	read  = []string{"quote MEDIA SDRAM", "binary", "get env env.txt", "quit"}
	off   = []string{"quote GETENV HWRevision", "quote MEDIA FLSH", "binary", "put openwrt.bin mtd1", "quit"}
)

// The three interactive clients write the image with the seeds' own lines and then
// wait for ever for the end of a check whose only answer is a preliminary one.
func TestForeignSeedLines(t *testing.T) {
	all, wait := together(t)
	defer wait()
	for program, dialogue := range map[string]string{
		"tnftp":         "> EPSV\n< 502 Command not implemented\n> PASV\n< 227 Entering Passive Mode (",
		"inetutils-ftp": "> SYST\n< 530 not logged in\n> USER adam2",
		"ftp-ssl":       "> AUTH TLS\n< 530 not logged in\n> AUTH SSL\n< 530 not logged in\n> USER adam2",
	} {
		all.Run(program, func(t *testing.T) {
			x := try(t, evabox.Options{})
			out, _ := x.ftp("150 Flash check 0x", program, write)
			x.written(out)
			x.says(out, "220 ADAM2 FTP Server ready", "230 User adam2 successfully logged in", "200 Media set to MEDIA_FLASH", "200 Type set to BINARY",
				"150 Opening BINARY data connection", "226 Transfer complete", fmt.Sprint(len(x.image), " bytes sent in "))
			x.says(x.record(), dialogue, "> STOR mtd1", "> check mtd1\n< 150 Flash check 0x")
		})
	}
}

// The programs that need no lines write it, too, and end.
func TestForeignWrites(t *testing.T) {
	all, wait := together(t)
	defer wait()
	for program, c := range map[string]struct {
		args func(x *trial) []string
		said []string // the dialogue
	}{
		"ncftpput": {func(x *trial) []string { // as Freetz' push_firmware calls it
			return []string{"-C", "-d", "stdout", "-u", "adam2", "-p", "adam2", "-P", fmt.Sprint(x.at.Port()),
				"-o", "doNotGetStartCWD=1,useFEAT=0,useHELP_SITE=0,useCLNT=0,useSIZE=0,useMDTM=0",
				"-W", "quote MEDIA FLSH", "-Y", "quote REBOOT", x.at.Addr().String(), x.path, "mtd1"}
		}, []string{"> MEDIA FLSH", "> STOR mtd1", "> REBOOT\n< 221 Thank you for using the FTP service on ADAM2\n< 221 Goodbye.\nreboot"}},
		"lftp": {func(x *trial) []string {
			return []string{"-c", fmt.Sprintf("set ftp:ssl-allow no; open -u adam2,adam2 -p %d %s; quote MEDIA FLSH; put %s -o mtd1; quit", x.at.Port(), x.at.Addr(), x.path)}
		}, []string{"> MEDIA FLSH", "> TYPE I", "> STOR mtd1"}},
		"curl": {func(x *trial) []string {
			return []string{"-sS", "--noproxy", "*", "-u", "adam2:adam2", "-Q", "MEDIA FLSH", "-T", x.path, fmt.Sprintf("ftp://%s/mtd1", x.at)}
		}, []string{"> PWD\n< 502 Command not implemented", "> EPSV\n< 502 Command not implemented\n> PASV", "> TYPE I", "> STOR mtd1"}},
	} {
		all.Run(program, func(t *testing.T) {
			x := try(t, evabox.Options{})
			out, err := x.run("", nil, program, c.args(x)...)
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			x.written(out)
			x.says(x.record(), c.said...)
		})
	}
}

// One GETENV and the interactive clients take every later reply for that of the
// command before: nothing is written.
func TestForeignGetenv(t *testing.T) {
	all, wait := together(t)
	defer wait()
	for program, words := range map[string]string{"tnftp": "parse error", "inetutils-ftp": "Passive mode address scan failure", "ftp-ssl": "Passive mode address scan failure"} {
		all.Run(program, func(t *testing.T) {
			x := try(t, evabox.Options{})
			out, _ := x.ftp("", program, off)
			x.says(out, "HWRevision            227\n\n200 GETENV command successful", words)
			if x.box.Flash("mtd1") != nil || len(x.box.Stores()) != 0 {
				t.Errorf("STOR %v\n%s", x.box.Stores(), out)
			}
		})
	}
}

// The environment arrives whole, and the clients wait for the end of a connection
// that the box leaves open.
func TestForeignReadsEnv(t *testing.T) {
	all, wait := together(t)
	defer wait()
	whole := func(t *testing.T, text string) {
		for _, line := range []string{"HWRevision            227\r\n", "wlan_key"} {
			if !strings.Contains(text, line) {
				t.Errorf("no %q in %q", line, text)
			}
		}
	}
	for _, program := range []string{"tnftp", "inetutils-ftp", "ftp-ssl"} {
		all.Run(program, func(t *testing.T) {
			x := try(t, evabox.Options{})
			out, _ := x.ftp("150 Opening BINARY data connection", program, read)
			x.says(x.record(), "> RETR env\n< 150 Opening BINARY data connection\n< 226 Transfer complete")
			text, err := os.ReadFile(filepath.Join(x.dir, "env.txt"))
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			whole(t, string(text))
		})
	}
	all.Run("curl", func(t *testing.T) {
		x := try(t, evabox.Options{})
		out, err := x.run("", nil, "curl", "-sS", "-m", "2", "--noproxy", "*", "-u", "adam2:adam2", "-Q", "MEDIA SDRAM", fmt.Sprintf("ftp://%s/env", x.at))
		x.says(out, "curl: (28) Operation timed out")
		if err == nil {
			t.Error("no error")
		}
		whole(t, out)
	})
}

// A patient is a client in front of a box that erases for long.
type patient struct {
	erase  time.Duration
	long   bool // waits for minutes
	gives  time.Duration
	client string
	more   []string
}

// Who gives up while the box erases, and when: tnftp at its -q, which is 60 s, curl
// at 120 s, the others never. The image is not written, but the flash is empty by
// then. The short form sets tnftp's limit; the long one, which CI runs too, takes
// every program as it is. The waits run side by side and cost no work.
func TestForeignErase(t *testing.T) {
	all, wait := together(t)
	defer wait()
	const s = time.Second
	for name, c := range map[string]patient{
		"tnftp at its limit":     {6 * s, false, 3 * s, "tnftp", []string{"-q", "3"}},
		"tnftp within its limit": {4 * s, false, 0, "tnftp", []string{"-q", "300"}},
		"inetutils-ftp":          {4 * s, false, 0, "inetutils-ftp", nil},
		"ftp-ssl":                {4 * s, false, 0, "ftp-ssl", nil},
		"tnftp at 60 s":          {100 * s, true, 60 * s, "tnftp", nil},
		"tnftp -q 300, 130 s":    {130 * s, true, 0, "tnftp", []string{"-q", "300"}},
		"inetutils-ftp, 130 s":   {130 * s, true, 0, "inetutils-ftp", nil},
		"ftp-ssl, 130 s":         {130 * s, true, 0, "ftp-ssl", nil},
		"curl at 120 s":          {130 * s, true, 120 * s, "curl", nil},
	} {
		all.Run(name, func(t *testing.T) {
			if c.long && !need.Long() && !need.InCI() {
				t.Skip("waits for minutes; CI and HEIMWEG_LONG=1 run it")
			}
			x := try(t, evabox.Options{Times: evabox.Times{Erase: c.erase}})
			began := time.Now()
			out, err := c.start(x)
			took := time.Since(began)
			if c.gives == 0 {
				x.written(out)
				return
			}
			if took < c.gives || took > c.erase {
				t.Errorf("gave up after %s\n%s", took, out)
			}
			if strings.Contains(x.record(), "150 Opening") {
				t.Errorf("the box was ready before\n%s", x.record())
			}
			var exit *exec.ExitError
			if c.client == "curl" && (!errors.As(err, &exit) || exit.ExitCode() != 28) {
				t.Errorf("curl ends with %v\n%s", err, out)
			}
			if c.client == "tnftp" {
				x.says(out, "421 Service not available, remote server timed out. Connection closed")
			}
			if got := x.box.Flash("mtd1"); c.long && (got == nil || len(got) != 0) {
				t.Errorf("the flash holds %d bytes", len(got))
			}
		})
	}
}

func (c patient) start(x *trial) (string, error) {
	if c.client == "curl" {
		return x.run("", nil, "curl", "-sS", "--noproxy", "*", "-u", "adam2:adam2", "-Q", "MEDIA FLSH", "-T", x.path, fmt.Sprintf("ftp://%s/mtd1", x.at))
	}
	return x.ftp("", c.client, []string{"quote MEDIA FLSH", "binary", "put openwrt.bin mtd1", "quit"}, c.more...)
}

const script = `
import ftplib, sys
host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
f = ftplib.FTP()
f.connect(host, port, 30)
f.login('adam2', 'adam2')
print(f.sendcmd('SYST'))
f.voidcmd('MEDIA FLSH')
f.voidcmd('TYPE I')
print(f.storbinary('STOR mtd1', open(path, 'rb')))
f.sock.settimeout(1)
try:
    f.voidcmd('CHECK mtd1')
    print('check ended')
except ftplib.error_reply as e:
    print('check', e)
try:
    print('GETENV', f.sendcmd('GETENV HWRevision'))
except Exception as e:
    print('GETENV', type(e).__name__, e)
try:
    print('next', f.sendcmd('TYPE I'))
except Exception as e:
    print('next', type(e).__name__)
`

// Python's ftplib, on which most flashers are built, writes the image, takes
// CHECK's 150 for an error, and is a command behind after GETENV.
func TestForeignPython(t *testing.T) {
	t.Parallel()
	x := try(t, evabox.Options{})
	out, err := x.run("", nil, "python3", "-c", script, x.at.Addr().String(), fmt.Sprint(x.at.Port()), x.path)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	x.written(out)
	x.says(out, "215 AVM EVA Version 1.3620 0x0 0x240D", "226 Transfer complete", "check 150 Flash check 0x", "GETENV error_proto HWRevision", "next error_proto")
}

const ramScript = `
import ftplib, sys
host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
f = ftplib.FTP()
f.connect(host, port, 30)
f.login('adam2', 'adam2')
for cmd in ('SETENV memsize 0x07f9e000', 'SETENV kernel_args_tmp mtdram1=0x87f9e000,0x88000000', 'MEDIA SDRAM'):
    assert f.sendcmd(cmd)[:3] == '200'
try:
    print('end', f.storbinary('STOR 0x87f9e000 0x88000000', open(path, 'rb')))
except Exception as e:
    print('end', type(e).__name__, e)
`

// A RAM boot as OpenWrt's eva_ramboot.py speaks it: whatever the box says last, the
// box has started; a 553 or a closed connection looks like a failure to Python.
func TestForeignRAMBoot(t *testing.T) {
	all, wait := together(t)
	defer wait()
	for ram, end := range map[string]string{"": "end 226 Transfer complete", "553": "end error_perm 553 Execution failed.", "closed": "end EOFError"} {
		all.Run("reply "+ram, func(t *testing.T) {
			f := evabox.Faults{RAM: ram}
			if ram == "closed" {
				f = evabox.Faults{Replies: map[string]string{"executed": "-"}}
			}
			x := try(t, evabox.Options{Model: "7412", Faults: f})
			if err := os.WriteFile(x.path, evabox.ImageRAM(390_000, false), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := x.run("", nil, "python3", "-c", ramScript, x.at.Addr().String(), fmt.Sprint(x.at.Port()), x.path)
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			x.says(out, end)
			if err := x.box.Wait(t.Context(), evabox.Running); err != nil || x.box.Runs() != evabox.OpenWrt {
				t.Errorf("%v, runs %q\n%s", err, x.box.Runs(), x.record())
			}
			if x.box.Flash("mtd1") != nil {
				t.Error("flash was written")
			}
		})
	}
}
