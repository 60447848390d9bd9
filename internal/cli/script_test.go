package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/lab/device"
	"github.com/heimweg/heimweg/internal/lab/mirror"
	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/lab/world"
)

var update = flag.Bool("update", false, "rewrite the expected output in scripts")

// TestScripts runs the command line against emulated homes. Besides
// testscript's own commands there are:
//
//	world [--release R] [--version V] [--uplink KIND] [--lans N] [--no-gateway] [--igd WORDS] [--upstream CONNECTION] [--ddns]   switch a home on
//	heimweg ARGS…        run heimweg in it; "stdin FILE" before it gives it answers
//	tty                  from now on a person sits at a terminal (of 100 × 50)
//	router 'SCRIPT'      run a script on the box, as its owner would
//	igd FAULT|heal|restart|give PORT ADDR   what the ISP router tells programs, with world --igd upnp,nat-pmp,pcp,fritz,FAULT…
//	dns NAME ADDR | is NAME ADDR   public DNS; with world --ddns somebody keeps the endpoint's name
//	isp offline [downloads] | online   the line to the internet is dead (or only OpenWrt's servers are), or alive again
//	isp reconnect        the line gets another public address
//	isp map|unmap PORT   the lab's hand on the ISP router; of a box in its carton as soon as it is there
//	phone join FILE | fetch URL | ping ADDR | leave
//	laptop home|uplink|outside
//	trips N              heimweg's last run took at most N round trips
//	power cut|on|cycle   the box's plug
//	flash full|free      fill the router's flash
//	silent [FILE…]       no secret of the router or of these .conf files was written so far
//	replace FILE OLD NEW edit a file
//	cut PART             the power goes before sysupgrade writes that part (firmware, half of firmware, settings), and Ctrl-C follows
//	interrupt 2s|PART    the next heimweg gets Ctrl-C after that time, or when sysupgrade is about to write that part
//	newer BOARD VERSION FILE   an image for sysupgrade
//	runs VERSION         wait until that release runs on the router
//	swap BOARD RELEASE   another box, fresh, in the router's place
//	carton [MODEL]       a home with a boxed FRITZ!Box and a download server; plug on:300ms off:2s … | none
//	box runs openwrt|fritzos|memory|nothing | untouched | unseen | on | off | mend
//	image WHAT FILE      an image file: eva, recovery, avm, or one of imagetest.Mistakes
//	conf FILE KEY ADDRESS SERVERKEY PORT | keys GATEWAY DEVICE ADDRESS ADDRESS PORT   files of a hand-made gateway
//	mirror on | key FILE | announce RELEASE… | break FILE TROUBLE N | builder QUEUE REFUSE | heal | off   OpenWrt's download server
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: worlds (-short)")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup:               setUpScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world": scriptWorld, "heimweg": scriptHeimweg, "tty": scriptTTY, "router": scriptRouter,
			"isp": scriptISP, "phone": scriptPhone, "laptop": scriptLaptop, "trips": scriptTrips,
			"power": scriptPower, "silent": scriptSilent, "replace": scriptReplace, "flash": scriptFlash,
			"conf": scriptConf, "keys": scriptKeys,
			"carton": scriptCarton, "plug": scriptPlug, "box": scriptBox, "image": scriptImage,
			"mirror": scriptMirror, "cut": scriptCut, "swap": scriptSwap, "interrupt": scriptInterrupt, "newer": scriptUpgradeImage, "runs": scriptRuns,
			"igd": scriptIGD, "dns": scriptDNS,
		},
	})
}

// stage is what one script works with.
type stage struct {
	w         *world.World
	tty       bool
	trips     int64
	interrupt time.Duration // until the next run's Ctrl-C
	ctrlC     atomic.Pointer[context.CancelFunc]
	life      atomic.Int64 // of the box, when sysupgrade was watched
	m         *mirror.Mirror
	carton    *carton      // with a boxed device
	all       bytes.Buffer // everything that heimweg has written so far
}

type stageKey struct{}

func setUpScript(e *testscript.Env) error {
	s := new(stage)
	e.Values[stageKey{}] = s
	e.Setenv("HEIMWEG_CONFIG", e.WorkDir+"/.config")
	e.Defer(func() {
		if s.w != nil {
			s.w.Close()
		}
	})
	return nil
}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func home0(ts *testscript.TestScript) *world.World {
	s := stageOf(ts)
	if s.w == nil {
		ts.Fatalf("there is no world yet")
	}
	return s.w
}

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func scriptWorld(ts *testscript.TestScript, neg bool, args []string) {
	l := labFlags{release: "24.10", uplink: "behind-isp-router", lans: 1, seed: 1}
	gateway, version, board := true, "", ""
	igd, ddns, connection := "", false, world.PublicIPv4
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "--no-gateway":
			gateway = false
		case "--ddns":
			ddns = true
		case "--release", "--uplink", "--lans", "--version", "--board", "--igd", "--upstream":
			if i+1 == len(args) {
				ts.Fatalf("%s what?", args[i])
			}
			i++
			switch args[i-1] {
			case "--release":
				l.release = args[i]
			case "--uplink":
				l.uplink = args[i]
			case "--version":
				version = args[i]
			case "--upstream":
				upstream, ok := upstreams[args[i]]
				if !ok {
					ts.Fatalf("no connection is called %q", args[i])
				}
				connection = upstream
			case "--igd":
				igd = args[i]
			case "--board":
				board = args[i]
			default:
				l.lans, _ = strconv.Atoi(args[i])
			}
		default:
			ts.Fatalf("world knows no %q", args[i])
		}
	}
	o, err := l.options()
	ts.Check(err)
	o.NASWithoutGateway = !gateway
	o.Router.Version, o.Router.Board, o.Router.Model = version, board, models[board]
	o.Router.Inside = stageOf(ts).inside
	o.DDNS = ddns
	o.Upstream = connection
	if igd != "" {
		o.IGD, err = igdOptions(igd)
		ts.Check(err)
	}
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	s := stageOf(ts)
	s.w, err = world.New(ctx, o)
	ts.Check(err)
	ts.Check(s.w.WaitReady(ctx))
	at, _ := s.w.RouterLAN()
	ts.Setenv("ROUTER", at.String())
	ts.Setenv("NAS", s.w.NAS.Addr().String())
	ts.Setenv("ENDPOINT", world.EndpointName)
}

func scriptTTY(ts *testscript.TestScript, neg bool, _ []string) { stageOf(ts).tty = !neg }

// person is a terminal with somebody at it.
type person struct {
	there bool
	in    io.Reader
}

func (p person) IsTerminal() bool       { return p.there }
func (p person) Size() (int, int, bool) { return 100, 50, p.there }
func (p person) ReadSecret() (string, error) {
	s, err := lineOf(p.in)
	return strings.TrimSpace(s), err
}

func scriptHeimweg(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	var in io.Reader = strings.NewReader("")
	if b, err := os.ReadFile(ts.MkAbs("answers")); err == nil {
		in = bytes.NewReader(b)
		ts.Check(os.Remove(ts.MkAbs("answers")))
	}
	var out, said bytes.Buffer
	env := Env{
		In: in, Out: &out, Err: &said, Getenv: ts.Getenv, Terminal: person{s.tty, in},
	}
	var before int64
	if s.w != nil {
		env.Dial, env.ListenUDP = s.w.LaptopDial, laptopUDP(s.w)
		env.Bind = func() conn.Bind { return s.w.OutsideBind() }
		env.AtHome = atHome(s.w)
		env.Lookup, env.Roots = labLookup(s.w), s.w.Station().Roots
		before = s.w.Router.Stats().Execs
	}
	env.Web = noWeb{}
	if s.m != nil {
		env.Web = s.m.Transport()
	}
	if s.carton != nil {
		ts.Check(s.carton.wire(&env))
	}
	args = absolute(ts, args)
	home := ts.MkAbs("home.toml")
	ctx, cancel := within(2 * time.Minute)
	defer cancel()
	s.ctrlC.Store(&cancel)
	defer s.ctrlC.Store(nil)
	if s.interrupt > 0 {
		stop := time.AfterFunc(s.interrupt, cancel)
		defer stop.Stop()
		s.interrupt = 0
	}
	code := Run(ctx, env, append([]string{"--home", home}, args...))
	if s.w != nil {
		s.trips = s.w.Router.Stats().Execs - before
	}
	text := strings.ReplaceAll(out.String(), home, "home.toml")
	talk := strings.ReplaceAll(said.String(), home, "home.toml")
	s.all.WriteString(text + talk)
	fmt.Fprint(ts.Stdout(), text)
	fmt.Fprint(ts.Stderr(), talk)
	ts.Setenv("EXIT", strconv.Itoa(code))
	if (code == 0) == neg {
		if code == fault.ExitUnreachable && s.w != nil {
			ts.Logf("where packets died:\n%s\nthe box says:\n%s", s.w.WhereDied(nil), strings.Join(s.w.Router.Log(), "\n"))
		}
		ts.Fatalf("heimweg %s: exit code %d", strings.Join(args, " "), code)
	}
}

// absolute makes files that flags name absolute: scripts run side by side in one
// process, which has only one working folder.
func absolute(ts *testscript.TestScript, args []string) []string {
	out := append([]string(nil), args...)
	for i := 1; i < len(out); i++ {
		switch out[i-1] {
		case "--passphrase-file", "--open-with", "--recipient":
			if !strings.HasPrefix(out[i], "age1") {
				out[i] = ts.MkAbs(out[i])
			}
		case "-o", "--png", "--svg", "--identity", "--conf", "--key", "--mirror", "--gateway", "--wg-easy", "--peer", "--keys-from":
			if out[i] != "-" && (out[i-1] != "--peer" || out[0] == "adopt") {
				out[i] = ts.MkAbs(out[i])
			}
		}
	}
	if len(out) > 1 && (out[0] == "apply" || out[0] == "restore" || out[0] == "upgrade") && !strings.HasPrefix(out[1], "-") {
		out[1] = ts.MkAbs(out[1])
	}
	if len(out) > 2 && out[0] == "firmware" && out[1] == "check" {
		out[2] = ts.MkAbs(out[2])
	}
	if len(out) > 0 && out[0] == "flash" {
		flashFiles(ts, out)
	}
	return out
}

func scriptRouter(ts *testscript.TestScript, neg bool, args []string) {
	out, said, exit := home0(ts).Router.Sh(strings.Join(args, " "))
	fmt.Fprint(ts.Stdout(), out)
	fmt.Fprint(ts.Stderr(), said)
	if (exit == 0) == neg {
		ts.Fatalf("exit code %d", exit)
	}
}

func scriptISP(ts *testscript.TestScript, _ bool, args []string) {
	w := home0(ts)
	if args[0] == "reconnect" {
		ts.Check(w.Reconnect())
		return
	}
	switch args[0] {
	case "offline":
		if len(args) == 1 {
			w.ISPLine.Cut()
		}
		w.Router.SetFeed(owrt.Feed{Unreachable: true})
		return
	case "online":
		w.ISPLine.Heal()
		w.Router.SetFeed(owrt.Feed{})
		return
	}
	port, err := strconv.ParseUint(args[1], 10, 16)
	ts.Check(err)
	if c := stageOf(ts).carton; c != nil && args[0] == "map" && c.w.Device.Runs() != device.OpenWrt {
		c.mapSoon(uint16(port))
		return
	}
	if args[0] == "map" {
		ctx, cancel := within(30 * time.Second)
		defer cancel()
		ts.Check(w.WaitReady(ctx))
		ts.Check(w.MapPort(uint16(port)))
		return
	}
	if w.ISP != nil && !w.ISP.Unmap("udp", uint16(port)) {
		ts.Fatalf("there was no mapping for %d", port)
	}
}

func scriptPhone(ts *testscript.TestScript, neg bool, args []string) {
	w := home0(ts)
	ctx, cancel := within(map[bool]time.Duration{false: 40 * time.Second, true: 2 * time.Second}[neg])
	defer cancel()
	var err error
	switch args[0] {
	case "join":
		err = w.Phone.Join(ts.ReadFile(args[1]))
	case "leave":
		w.Phone.Leave()
	case "fetch":
		var page string
		page, err = w.Phone.Get(ctx, args[1])
		fmt.Fprintln(ts.Stdout(), page)
	case "ping":
		_, err = w.Phone.Ping(ctx, netip.MustParseAddr(args[1]))
	default:
		ts.Fatalf("a phone cannot %q", args[0])
	}
	switch {
	case err != nil && !neg:
		ts.Fatalf("%v\nwhere packets died:\n%s", err, w.WhereDied(nil))
	case err == nil && neg:
		ts.Fatalf("the phone could, and should not")
	}
}

func scriptLaptop(ts *testscript.TestScript, _ bool, args []string) {
	w := home0(ts)
	switch args[0] {
	case "home":
		w.Laptop.AtHome()
	case "uplink":
		w.Laptop.OnUplink()
	case "outside":
		w.Laptop.Tethered()
	}
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	ts.Check(w.Laptop.WaitAddress(ctx))
	at, _ := w.RouterLAN()
	ts.Setenv("ROUTER", at.String())
}

func scriptTrips(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	if got := stageOf(ts).trips; got > most || got == 0 {
		ts.Fatalf("heimweg's last run took %d round trips, allowed are 1 to %d", got, most)
	}
}

func scriptPower(ts *testscript.TestScript, _ bool, args []string) {
	w := home0(ts)
	switch args[0] {
	case "cut":
		w.Router.PowerCut()
		return
	case "on":
		w.Router.PowerOn()
	case "cycle":
		w.Router.PowerCycle()
	}
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	ts.Check(w.WaitReady(ctx))
}

// scriptSilent: none of the secrets that are on the router or in the given files
// stands in anything that heimweg has written so far.
func scriptSilent(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	dump, _, _ := home0(ts).Router.Sh("uci show network; uci -q show wireless; cat /etc/shadow")
	var secrets []string
	for l := range strings.Lines(dump) {
		if strings.Contains(l, "private_key=") || strings.Contains(l, "preshared_key=") || strings.HasPrefix(l, "wireless.") && strings.Contains(l, ".key=") {
			_, v, _ := strings.Cut(strings.TrimSpace(l), "=")
			secrets = append(secrets, strings.Trim(v, "'"))
		}
		if f := strings.Split(l, ":"); f[0] == "root" && len(f) > 1 && len(f[1]) > 4 {
			secrets = append(secrets, f[1])
		}
	}
	for _, a := range args {
		for l := range strings.Lines(ts.ReadFile(a)) {
			if k, v, ok := strings.Cut(l, "="); ok && strings.Contains(k, "PrivateKey") {
				secrets = append(secrets, strings.TrimSpace(v))
			}
		}
	}
	if len(secrets) == 0 {
		ts.Fatalf("there are no secrets to look for")
	}
	for _, x := range secrets {
		if strings.Contains(strings.Join(home0(ts).Router.Log(), "\n"), x) {
			ts.Fatalf("a secret stands in the router's log: %s…", x[:6])
		}
		if strings.Contains(s.all.String(), x) {
			ts.Fatalf("a secret was written: %s…", x[:6])
		}
		quoted, _ := json.Marshal(x)
		if strings.Contains(s.all.String(), strings.Trim(string(quoted), `"`)) {
			ts.Fatalf("a secret was written, quoted: %s…", x[:6])
		}
	}
}

// scriptReplace edits a file: replace FILE OLD NEW.
func scriptReplace(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
}

func scriptFlash(ts *testscript.TestScript, _ bool, args []string) {
	home0(ts).Router.FS().Fill(map[string]int64{"full": 0, "free": -1}[args[0]])
}

// noWeb is a computer without internet.
type noWeb struct{}

func (noWeb) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}

func scriptMirror(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	number := func(i int) int64 {
		n, err := strconv.ParseInt(args[i], 10, 64)
		ts.Check(err)
		return n
	}
	switch args[0] {
	case "on":
		s.m = mirror.New(mirror.Options{Kernel: 20_000, Root: 50_000})
	case "off":
		s.m = nil
	case "key":
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), s.m.Keys().Usign, 0o600))
	case "announce":
		s.m.Announce(args[1:]...)
	case "break":
		trouble := map[string]mirror.Trouble{"flip": mirror.Flipped, "page": mirror.WebPage, "status": mirror.Status, "cut": mirror.Truncated}[args[2]]
		s.m.Break(mirror.Fault{Path: args[1], Do: trouble, At: number(3)})
	case "builder":
		s.m.SetBuilder(mirror.Builder{Queue: int(number(1)), Refuse: int(number(2))})
	case "heal":
		s.m.Heal()
	default:
		ts.Fatalf("a mirror cannot %q", args[0])
	}
}
