package firewall

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata")

// TestNFT prints every firewall file of testdata/nft and compares with the text
// and the gaps in it. That the text means what the model says is shown with real
// packets, in lab/kernel.
func TestNFT(t *testing.T) {
	files, _ := filepath.Glob("testdata/nft/*.txtar")
	if len(files) < 4 {
		t.Fatalf("only %d files found", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			line, _ := router.ParseLine(strings.TrimSpace(string(a.Comment)))
			rs, _ := Compile(line, mustParse(t, networkFile), mustParse(t, string(a.Files[0].Data)), live())
			text, gaps := rs.NFT()
			var lines strings.Builder
			for _, g := range gaps {
				lines.WriteString(g.Section + ": " + g.Text + "\n")
			}
			got := []txtar.File{a.Files[0], {Name: "nft", Data: []byte(text)}, {Name: "gaps", Data: []byte(lines.String())}}
			if *update {
				a.Files = got
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(a.Files, got, cmp.Transformer("text", func(b []byte) string { return string(b) })); d != "" {
				t.Errorf("golden file differs (run with -update to rewrite):\n%s", d)
			}
		})
	}
}

// What is refused at home lets everything pass here, too.
func TestNFTOfRefused(t *testing.T) {
	b := on(t, base+section("zone", "name lan", "network wg0"))
	if !b.rs.Refused() {
		t.Fatal("not refused")
	}
	if text, _ := b.rs.NFT(); strings.Contains(text, "chain") {
		t.Errorf("prints chains:\n%s", text)
	}
}

// Names from outside stay inside their quotation marks.
func TestNFTQuotes(t *testing.T) {
	rs, _ := Compile(router.Line2410, nil, mustParse(t, base+"\nconfig rule\n\toption name \"a\\\" drop comment \\\"b\"\n\toption src 'wan'\n"+
		section("zone", "name odd", `device x"y`, "input ACCEPT")), live())
	text, _ := rs.NFT()
	for _, l := range strings.Split(text, "\n") {
		if strings.Contains(l, "drop comment") && !strings.Contains(l, `"firewall.`) || strings.Contains(l, `x"y`) {
			t.Errorf("breaks out: %s", l)
		}
	}
}

func limited(t *testing.T, opts ...string) *box {
	return on(t, base+section("rule", append([]string{"src wan", "proto udp", "dest_port 53", "target ACCEPT"}, opts...)...))
}

// Rates as the kernel counts them (nft_limit.c): a bucket of waiting time.
func TestLimit(t *testing.T) {
	b := limited(t, "limit 2/minute", "limit_burst 3")
	ask := func() Action { b.tr.Flush(); return b.in("wan", udp("192.168.2.9", "192.168.2.253", 53)).Action }
	for i := range 3 {
		if a := ask(); a != Accept {
			t.Errorf("packet %d of the burst: %v", i, a)
		}
	}
	if a := ask(); a != Reject {
		t.Errorf("behind the burst: %v", a)
	}
	b.now = b.now.Add(29 * time.Second)
	if a := ask(); a != Reject {
		t.Errorf("after 29 s: %v", a)
	}
	b.now = b.now.Add(time.Second)
	if a := ask(); a != Accept {
		t.Errorf("after 30 s: %v", a)
	}
	b.now = b.now.Add(time.Hour)
	for i, want := range []Action{Accept, Accept, Accept, Reject} {
		if a := ask(); a != want {
			t.Errorf("after an hour, packet %d: %v", i, a)
		}
	}
	// A reload begins anew, and the clock may go backwards.
	b.rs, _ = Compile(router.Line2410, nil, mustParse(t, base+section("rule", "src wan", "proto udp", "target ACCEPT", "limit 1/day", "limit_burst 1")), live())
	b.now = b.now.Add(-time.Hour)
	if a := ask(); a != Accept {
		t.Errorf("after a reload: %v", a)
	}
	if a := ask(); a != Reject {
		t.Errorf("second after a reload: %v", a)
	}
}

// A rule without limit_burst has nft's, and what follows a limit does not give
// the turn back.
func TestLimitDefaults(t *testing.T) {
	b := limited(t, "limit 1/hour")
	n := 0
	for range 20 {
		b.tr.Flush()
		if b.in("wan", udp("192.168.2.9", "192.168.2.253", 53)).Action == Accept {
			n++
		}
	}
	if n != 5 {
		t.Errorf("%d packets in a burst, want 5", n)
	}
	b = limited(t, "limit 1/hour", "limit_burst 1", "mark 7")
	first, second := udp("192.168.2.9", "192.168.2.253", 53), udp("192.168.2.9", "192.168.2.253", 53)
	second.Mark, second.SrcPort = 7, 41000
	want(t, "wrong mark", b.in("wan", first), Reject)
	want(t, "right mark, turn taken", b.in("wan", second), Reject)
}

func TestLimitRefused(t *testing.T) {
	for _, opt := range []string{"limit 0/second", "limit 99999999999999999999/day", "limit_burst -1", "limit_burst 4294967296"} {
		opts := []string{opt}
		if !strings.HasPrefix(opt, "limit ") {
			opts = append(opts, "limit 1/second")
		}
		if b := limited(t, opts...); !b.rs.Refused() {
			t.Errorf("%s: not refused", opt)
		}
	}
	for _, opt := range []string{"limit 1000000000000/second", "limit 4/s", "limit 10000/second"} {
		if b := limited(t, opt); b.rs.Refused() != (opt == "limit 1000000000000/second") {
			t.Errorf("%s: refused %v", opt, b.rs.Refused())
		} else if b.in("wan", udp("192.168.2.9", "192.168.2.253", 53)).Action != Accept && !b.rs.Refused() {
			t.Errorf("%s: first packet dies", opt)
		}
	}
}

// The shipped file protects against floods: 50 at once, then 25 a second.
func TestSynFlood(t *testing.T) {
	b := on(t, shipped(router.Line2410))
	n := 0
	for i := range 100 {
		p := syn("192.168.1.100", "192.168.1.1", 22)
		p.SrcPort = uint16(30000 + i)
		v := b.in("br-lan", p)
		if v.Action == Accept {
			n++
		} else if v.Action != Drop {
			t.Fatalf("%v", v)
		}
	}
	if n != 50 {
		t.Errorf("%d of 100 at once get through, want 50", n)
	}
	p := syn("192.168.1.100", "203.0.113.9", 443)
	want(t, "what passes the router is not counted", b.in("br-lan", p), Accept)
	want(t, "nor is other traffic", b.in("br-lan", udp("192.168.1.100", "192.168.1.1", 53)), Accept)
	b.now = b.now.Add(time.Second)
	n = 0
	for i := range 100 {
		p := syn("192.168.1.100", "192.168.1.1", 22)
		p.SrcPort = uint16(31000 + i)
		if b.in("br-lan", p).Action == Accept {
			n++
		}
	}
	if n != 25 {
		t.Errorf("%d get through a second later, want 25", n)
	}
}

// A tunnel's packets have no Ethernet address: not the wanted, not another.
func TestMACInTunnel(t *testing.T) {
	for _, mac := range []string{"02:00:00:00:00:01", "!02:00:00:00:00:01"} {
		b := on(t, base+section("rule", "src vpn", "dest lan", "proto all", "src_mac "+mac, "target ACCEPT"))
		want(t, mac, b.in("wg0", ping("192.168.20.2", "192.168.1.100")), Reject)
	}
}

func FuzzNFT(f *testing.F) {
	f.Add(shipped(router.Line2410)+ours+natToLAN, uint8(3))
	f.Add(section("ipset", "name s", "match src_net", "entry 10.0.0.0/8")+base+section("rule", "src *", "ipset s", "limit 3/d"), uint8(2))
	f.Add(base+section("redirect", "src wan", "src_dport 80", "dest_ip 192.168.1.9-192.168.1.12"), uint8(4))
	f.Add(base+section("rule", "src wan", "src_ip 0.0.0.0/0", "src_port 0-65535", "start_time 23:59:59", "stop_time 0:00", "dscp EF"), uint8(4))
	f.Fuzz(func(t *testing.T, file string, line uint8) {
		doc, err := uci.Parse("firewall", []byte(file))
		if err != nil {
			doc, _ = uci.ParseLoose("firewall", []byte(file))
		}
		lines := router.Lines()
		rs, _ := Compile(lines[int(line)%len(lines)], nil, doc, live())
		text, _ := rs.NFT()
		if strings.Count(text, `"`)%2 != 0 {
			t.Errorf("quotation marks do not match:\n%s", text)
		}
	})
}
