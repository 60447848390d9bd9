package device

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/image/imagetest"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/evabox"
	"github.com/heimweg/heimweg/internal/lab/owrt"
)

// bench is a device on a link with a computer that speaks by hand.
type bench struct {
	*Box
	t   *testing.T
	w   *lab.World
	pc  *lab.Stack
	lan *lab.Link
}

func newBench(t *testing.T, model string, change func(*Options)) *bench {
	t.Helper()
	w := lab.New(1)
	lan := w.Link("home LAN")
	o := Options{EVA: evabox.Options{Model: model}, LAN: lan, Router: owrt.Options{Name: "home router", Seed: 1, Cables: map[string]*lab.Link{"lan1": lan}}}
	if change != nil {
		change(&o)
	}
	p := &bench{Box: New(w, o), t: t, w: w, lan: lan, pc: lab.NewStack(w, "computer")}
	p.addrs("192.168.178.2/24", "192.168.1.70/24", "169.254.120.2/16")
	t.Cleanup(func() { p.Close(); w.Close() })
	return p
}

func (p *bench) addrs(list ...string) {
	i := lab.Iface{Dev: "eth0", Link: p.lan}
	for _, a := range list {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	p.pc.Configure([]lab.Iface{i}, nil)
}

func (p *bench) wait(what string) {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.t.Context(), 10*time.Minute)
	defer stop()
	if err := p.Wait(ctx, what); err != nil {
		p.t.Fatalf("waiting for %q, runs %q (%s)\n%s", what, p.Runs(), p.EVA.State(), p.Log())
	}
}

// ftp is a session with the bootloader, by hand.
type ftp struct {
	p *bench
	c net.Conn
	r *bufio.Reader
}

// hold switches the box on and catches its window.
func (p *bench) hold() *ftp {
	p.t.Helper()
	p.Power(true)
	addr := p.EVA.Env("my_ipaddress") + ":21"
	for range 100 {
		ctx, stop := context.WithTimeout(p.t.Context(), 300*time.Millisecond)
		c, err := p.pc.Dial(ctx, "tcp", addr)
		stop()
		if err != nil {
			// Over at once when the network is unreachable; the next try is later.
			<-time.After(100 * time.Millisecond)
			continue
		}
		f := &ftp{p, c, bufio.NewReader(c)}
		f.line("220 ADAM2")
		f.say("USER adam2", "331")
		f.say("PASS adam2", "230")
		return f
	}
	p.t.Fatalf("no bootloader at %s\n%s", addr, p.Log())
	return nil
}

func (f *ftp) line(want string) string {
	f.p.t.Helper()
	f.c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	l, err := f.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(l, want) {
		f.p.t.Fatalf("%q, %v instead of %s\n%s", l, err, want, f.p.Log())
	}
	return l
}

func (f *ftp) say(cmd, want string) string {
	f.p.t.Helper()
	fmt.Fprintf(f.c, "%s\r\n", cmd)
	return f.line(want)
}

// send stores data; done is the line after it, "" for none.
func (f *ftp) send(name string, data []byte, done string) {
	f.p.t.Helper()
	port := f.say("P@SW", "227")
	six := strings.Split(strings.TrimRight(port[strings.Index(port, "(")+1:], ")\r\n"), ",")
	hi, _ := strconv.Atoi(six[4])
	lo, _ := strconv.Atoi(six[5])
	c, err := f.p.pc.Dial(f.p.t.Context(), "tcp", strings.Join(six[:4], ".")+fmt.Sprintf(":%d", hi<<8|lo))
	if err != nil {
		f.p.t.Fatal(err)
	}
	f.say("STOR "+name, "150")
	if _, err := c.Write(data); err != nil && done != "" {
		f.p.t.Fatal(err)
	}
	c.Close()
	if done != "" {
		f.line(done)
	}
}

// flash writes files by name through the bootloader, and starts the box again.
func (p *bench) flash(files ...any) {
	p.t.Helper()
	f := p.hold()
	for i := 0; i < len(files); i += 2 {
		f.say("TYPE I", "200")
		f.say("MEDIA FLSH", "200")
		f.send(files[i].(string), files[i+1].([]byte), "226")
	}
	f.say("REBOOT", "221")
}

// start starts a program in memory.
func (p *bench) start(image []byte, env ...string) {
	p.t.Helper()
	f := p.hold()
	for _, e := range env {
		f.say("SETENV "+e, "200")
	}
	f.say("TYPE I", "200")
	f.say("MEDIA SDRAM", "200")
	f.send("0x85000000 0x88000000", image, "")
}

// sh runs a script on what runs at 192.168.1.1, over the network.
func (p *bench) sh(script string, input []byte) (string, error) {
	c, err := p.pc.Dial(p.t.Context(), "tcp", "192.168.1.1:22")
	for n := 0; err != nil && n < 20; n++ { // the firewall settles a moment after the boot
		<-time.After(500 * time.Millisecond)
		c, err = p.pc.Dial(p.t.Context(), "tcp", "192.168.1.1:22")
	}
	if err != nil {
		return "", err
	}
	conn, chans, reqs, err := ssh.NewClientConn(c, "box", &ssh.ClientConfig{User: "root", HostKeyCallback: ssh.InsecureIgnoreHostKey(), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}})
	if err != nil {
		return "", err
	}
	cl := ssh.NewClient(conn, chans, reqs)
	defer cl.Close()
	s, err := cl.NewSession()
	if err != nil {
		return "", err
	}
	if input != nil {
		s.Stdin = strings.NewReader(string(input))
	}
	out, err := s.CombinedOutput(script)
	return string(out), err
}

func (p *bench) must(script string, input []byte) string {
	p.t.Helper()
	out, err := p.sh(script, input)
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

const version = `ubus call system board | jsonfilter -e '@.release.version' -e '@.board_name' -e '@.rootfs_type'`

// serveTFTP gives one file to whoever asks for name, as 192.168.1.70.
func (p *bench) serveTFTP(name string, data []byte) (asked func() []string) {
	u, err := p.pc.ListenUDP(69)
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	p.t.Cleanup(func() { u.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := u.ReadFromAddrPort(buf)
			if err != nil {
				return
			}
			file, _, _ := strings.Cut(string(buf[2:n]), "\x00")
			names = append(names, file)
			c, err := p.pc.ListenUDP(0)
			if err != nil {
				return
			}
			if file != name {
				c.WriteToAddrPort([]byte("\x00\x05\x00\x01no such file\x00"), from)
			} else {
				deliver(c, from, data)
			}
			c.Close()
		}
	}()
	return func() []string { return names }
}

func deliver(c *lab.UDPConn, to netip.AddrPort, data []byte) {
	buf := make([]byte, 100)
	for block := uint16(1); ; block++ {
		piece := data[:min(len(data), 512)]
		data = data[len(piece):]
		c.WriteToAddrPort(append(binary.BigEndian.AppendUint16([]byte{0, 3}, block), piece...), to)
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := c.ReadFromAddrPort(buf); err != nil || len(piece) < 512 {
			return
		}
	}
}

// The 4040 from the box: nobody comes, FRITZ!OS runs; then its image goes through the
// window, and OpenWrt of that release runs. Settings survive the next power cut, and
// a second flash wipes them.
func TestFromStock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBench(t, "4040", nil)
		p.Power(true)
		p.wait(Stock)
		if _, err := p.pc.Dial(t.Context(), "tcp", "192.168.178.1:21"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("FRITZ!OS at port 21: %v", err)
		}
		p.Power(false)
		p.flash("mtd1", imagetest.EVA(imagetest.Options{Version: "23.05.6"}))
		p.wait(OpenWrt)
		if got := p.must(version, nil); got != "23.05.6\navm,fritzbox-4040\nsquashfs\n" {
			t.Errorf("runs %q", got)
		}
		p.must("uci set system.@system[0].hostname=Annex; uci commit system; sync", nil)
		p.Power(false)
		if _, err := p.pc.Dial(within(t, 5*time.Second), "tcp", "192.168.1.1:22"); err == nil {
			t.Error("answers without power")
		}
		p.Power(true)
		p.wait(OpenWrt)
		if got := p.must("uci get system.@system[0].hostname", nil); got != "Annex\n" {
			t.Errorf("after the power cut: %q", got)
		}
		p.must("reboot", nil)
		p.EVA.Wait(within(t, time.Minute), evabox.Window)
		p.wait(OpenWrt)
		p.Power(false)
		p.flash("mtd1", imagetest.EVA(imagetest.Options{Version: "25.12.5"}))
		p.wait(OpenWrt)
		if got := p.must(version+"; uci get system.@system[0].hostname", nil); got != "25.12.5\navm,fritzbox-4040\nsquashfs\nOpenWrt\n" {
			t.Errorf("flashed again: %q", got)
		}
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, stop := context.WithTimeout(t.Context(), d)
	t.Cleanup(stop)
	return ctx
}
