package openwrt

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/key"
)

const (
	deviceA = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
	deviceB = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="
)

// What nft of 24.10 and iptables of 21.02 print.
const (
	nftChain = `table inet fw4 {
	chain input_wan {
		udp dport 68 counter packets 4 bytes 1312 accept comment "!fw4: Allow-DHCP-Renew"
		icmp type echo-request counter packets 0 bytes 0 accept comment "!fw4: Allow-Ping"
		udp dport 51820 counter packets 12 bytes 2112 accept comment "!fw4: heimweg-tunnel-in"
		jump reject_from_wan
	}
}`
	iptChain = `Chain zone_wan_input (1 references)
    pkts      bytes target     prot opt in     out     source               destination
       4     1312 ACCEPT     udp  --  *      *       0.0.0.0/0            0.0.0.0/0            udp dpt:68 /* !fw3: Allow-DHCP-Renew */
      12     2112 ACCEPT     udp  --  *      *       0.0.0.0/0            0.0.0.0/0            udp dpt:51820 /* !fw3: heimweg-tunnel-in */
       1       60 ACCEPT     tcp  --  *      *       0.0.0.0/0            0.0.0.0/0            tcp dpt:51820 /* !fw3: heimweg-tunnel-in */`
)

func TestReadCount(t *testing.T) {
	for _, c := range []struct {
		text, rule string
		want       int64 // -1: not known
	}{
		{nftChain, "heimweg-tunnel-in", 12}, {nftChain, "Allow-Ping", 0}, {nftChain, "heimweg", -1}, {nftChain, "", -1},
		{iptChain, "heimweg-tunnel-in", 13}, {iptChain, "nobody", -1}, {"Error: No such file or directory", "heimweg-tunnel-in", -1},
	} {
		got := int64(-1)
		if n := readCount(strings.Split(c.text, "\n"), c.rule); n != nil {
			got = *n
		}
		if got != c.want {
			t.Errorf("%q: %d, want %d", c.rule, got, c.want)
		}
	}
}

func ok(text string) part { return part{out: []byte(text + "\n")} }

func TestReadExamined(t *testing.T) {
	nas := netip.MustParseAddr("192.168.1.10")
	e := Examination{Rule: "heimweg-tunnel-in", Targets: []netip.Addr{netip.MustParseAddr("fd00::5"), netip.MustParseAddr("192.168.1.9"), nas}, Times: 2}
	ps := parts{
		"modules": ok("nf_tables 1 2 -\nwireguard 65536 0 - Live 0x0"), "gateway": {exit: 1}, "names": {out: []byte("** server can't find x: NXDOMAIN\n"), exit: 1},
		"devices": ok(`{"wan": {"mtu": 1492, "type": "x"}, "br-lan": {"mtu": 1500}, "odd": {}}`),
		"jobs":    ok("* * * * * true"), "log": ok("possible DNS-rebind attack detected: a.b"), "complaints": {},
		"near.0": {exit: 1}, "near.1": {}, "far.1": {exit: 1}, "neighbours": ok("192.168.1.10 dev br-lan lladdr 02:00:00:00:00:01 REACHABLE"),
		"file.rpcd": ok("config login 'x'\n"), "file.ddns": ok("config 'x\n"),
		"when.0": ok("1790000000"), "count.0": ok(nftChain), "at.0": ok(deviceA + "\t198.51.100.2:4711\n" + deviceB + "\t(none)"), "took.0": ok(deviceA + "\t148\t92"), "shook.0": ok(deviceA + "\t1789999990\n" + deviceB + "\t0"),
		"when.1": ok("1790000001"), "count.1": ok(strings.Replace(nftChain, "packets 12", "packets 15", 1)), "at.1": {exit: 1}, "took.1": ok(deviceA + "\t296\t184\nnonsense\n" + deviceB + "\t10\t0"),
	}
	got := readExamined(ps, e)
	if !*got.Module || *got.Gateway || !*got.Resolves {
		t.Errorf("module %v, gateway %v, names %v", *got.Module, *got.Gateway, *got.Resolves)
	}
	if fmt.Sprint(got.Widths) != "map[br-lan:1500 wan:1492]" || len(got.Jobs) != 1 || len(got.Log) != 1 || got.Complaints == nil || len(got.Complaints) != 0 {
		t.Errorf("%+v", got)
	}
	if got.Settings["rpcd"] == nil || got.Settings["ddns"] != nil {
		t.Errorf("settings: %v", got.Settings)
	}
	if got.Target != nas || got.Knocked != (Knocked{Near: true, Asked: true, Far: false, There: true}) {
		t.Errorf("%s: %+v", got.Target, got.Knocked)
	}
	if len(got.Samples) != 2 {
		t.Fatalf("%d samples", len(got.Samples))
	}
	k, _ := key.ParsePublic(deviceA)
	a, b := got.Samples[0], got.Samples[1]
	if c := a.Peers[k]; c.Endpoint.String() != "198.51.100.2:4711" || c.Received != 148 || c.Sent != 92 || c.Handshake.Unix() != 1789999990 || a.At.Unix() != 1790000000 {
		t.Errorf("%+v", c)
	}
	other, _ := key.ParsePublic(deviceB)
	if _, bytes, _ := Between(a, b, []key.Public{k}); bytes != 148 {
		t.Errorf("%d bytes of one device", bytes)
	}
	packets, bytes, known := Between(a, b, []key.Public{k, other})
	if packets != 3 || bytes != 158 || !known {
		t.Errorf("%d packets, %d bytes, %v", packets, bytes, known)
	}
	if _, _, known := Between(b, a, nil); known {
		t.Error("counters that began anew are taken for known")
	}
}

// What is not there is not known: never yes, never no.
func TestExaminedNothing(t *testing.T) {
	for _, ps := range []parts{{}, {"modules": {exit: 1}, "gateway": {exit: 127}, "names": {exit: 127}, "log": {exit: 127}, "jobs": {exit: 2}, "complaints": {exit: 126}, "devices": {exit: 252}}} {
		got := readExamined(ps, Examination{Targets: []netip.Addr{netip.MustParseAddr("192.168.1.10")}})
		if got.Module != nil || got.Gateway != nil || got.Resolves != nil || got.Widths != nil || got.Jobs != nil || got.Log != nil || got.Complaints != nil || got.Target.IsValid() || len(got.Samples) > 0 {
			t.Errorf("%+v", got)
		}
	}
}

func FuzzReadCount(f *testing.F) {
	f.Add(nftChain, "heimweg-tunnel-in")
	f.Add(iptChain, "Allow-DHCP-Renew")
	f.Add("!fw4: ", "")
	f.Fuzz(func(t *testing.T, text, rule string) {
		readCount(strings.Split(text, "\n"), rule)
		readSample(parts{"count.0": ok(text), "at.0": ok(text), "took.0": ok(rule), "when.0": ok(rule)}, rule, 0)
		readWidths(ok(text))
	})
}

// The script under a real busybox: every part comes, pings that nobody answers are
// no, and a knock is waited for only when somebody knocked before.
func TestBusyboxExamine(t *testing.T) {
	j := newJail(t)
	program := func(name, text string) { j.write("bin/"+name, "#!/bin/sh\n"+text+"\n", 0o755) }
	program("nft", `cat /stub/chain`)
	program("ping", `case "$*" in *192.168.1.10*) exit 0 ;; esac; exit 1`)
	program("nslookup", `echo "Name: $1"`)
	program("logread", `echo "daemon.warn dnsmasq[1]: possible DNS-rebind attack detected: nas.example.net"; echo "nothing of interest"`)
	program("wg", `case "$3" in latest-handshakes) printf '`+deviceA+`\t0\n' ;; transfer) printf '`+deviceA+`\t0\t0\n' ;; endpoints) printf '`+deviceA+`\t(none)\n' ;; esac`)
	program("ip", `echo "192.168.1.10 dev br-lan lladdr 02:00:00:00:00:01 REACHABLE"`)
	j.write("stub/warnings", "[!] Section @rule[9] skipped\nsomething else\n", 0o644)
	j.write("stub/chain", strings.Replace(nftChain, "packets 12", "packets 0", 1), 0o644)
	e := Examination{Interface: "wg0", Zone: "wan", Rule: "heimweg-tunnel-in", Gateway: netip.MustParseAddr("192.168.2.254"), Name: "home.example.net",
		Targets: []netip.Addr{netip.MustParseAddr("192.168.1.9"), netip.MustParseAddr("192.168.1.10")}, From: netip.MustParseAddr("10.86.20.1"), Times: 1, Patience: 3 * time.Second}
	start := time.Now()
	got, err := Examine(t.Context(), j, e)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Second || len(got.Samples) != 1 {
		t.Errorf("nobody knocked, and %s were waited, %d samples", took, len(got.Samples))
	}
	if got.Gateway == nil || *got.Gateway || got.Resolves == nil || !*got.Resolves || len(got.Log) != 1 || len(got.Complaints) != 1 {
		t.Errorf("%+v", got)
	}
	if !got.Knocked.Near || !got.Knocked.Far || got.Target != e.Targets[1] || *got.Samples[0].Arrived != 0 {
		t.Errorf("%+v, %+v", got.Knocked, got.Samples)
	}

	// Somebody knocked before, and does it again.
	j.write("stub/chain", nftChain, 0o644)
	program("nft", `cat /stub/chain; [ -f /stub/again ] && cat /stub/again >/stub/chain; [ ! -f /stub/once ] || mv /stub/next /stub/again; touch /stub/once`)
	j.write("stub/next", strings.Replace(nftChain, "packets 12", "packets 13", 1), 0o644)
	if got, err = Examine(t.Context(), j, e); err != nil {
		t.Fatal(err)
	}
	if len(got.Samples) != 2 {
		t.Fatalf("%d samples", len(got.Samples))
	}
	if n, _, known := Between(got.Samples[0], got.Samples[1], nil); n != 1 || !known {
		t.Errorf("%d packets came, %v", n, known)
	}
	one, err := Glance(t.Context(), j, e)
	if err != nil || one.Arrived == nil || *one.Arrived != 13 {
		t.Errorf("%+v, %v", one, err)
	}
}
