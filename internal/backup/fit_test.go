package backup

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// boxOf is a box with these configuration files.
func boxOf(t *testing.T, board string, files map[string]string) *router.Snapshot {
	t.Helper()
	s := &router.Snapshot{Board: router.Board{Name: board}, Configs: map[string]*uci.Document{}}
	for name, text := range files {
		d, err := uci.Parse(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		s.Configs[name] = d
		if name == "network" {
			s.Board.Switch = len(d.OfType("switch")) > 0
		}
	}
	return s
}

// backupOf is a backup of a box with these configuration files, and others by their
// absolute names.
func backupOf(t *testing.T, board string, files map[string]string) Backup {
	t.Helper()
	b := Backup{Manifest: Manifest{Board: router.Board{Name: board}}}
	for name, text := range files {
		if !strings.HasPrefix(name, "/") {
			name = "/etc/config/" + name
		}
		b.Files = append(b.Files, File{Name: name, Mode: 0o600, Text: uci.Hidden(text)})
	}
	var err error
	if b.Files, err = sorted(b.Files); err != nil {
		t.Fatal(err)
	}
	return b
}

func fitOf(t *testing.T, b Backup, s *router.Snapshot, o Options) Fitting {
	t.Helper()
	f, err := Fit(b, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func linesOf(list []Line) string {
	var out strings.Builder
	for _, l := range list {
		fmt.Fprintln(&out, strings.TrimSpace(l.What+": "+l.Why))
	}
	return out.String()
}

const lanOnly = "config interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n"

// Radios that a 7530 on 24.10 ships, and those of the household's 4040 on 21.02.
const (
	shippedWifi = `
config wifi-device 'radio0'
	option type 'mac80211'
	option path 'platform/soc/a000000.wifi'
	option band '2g'
	option channel '1'
	option htmode 'HT20'
	option disabled '1'

config wifi-iface 'default_radio0'
	option device 'radio0'
	option network 'lan'
	option mode 'ap'
	option ssid 'OpenWrt'
	option encryption 'none'

config wifi-device 'radio1'
	option type 'mac80211'
	option path 'platform/soc/a800000.wifi'
	option band '5g'
	option channel '36'
	option htmode 'VHT80'
	option disabled '1'

config wifi-iface 'default_radio1'
	option device 'radio1'
	option network 'lan'
	option mode 'ap'
	option ssid 'OpenWrt'
	option encryption 'none'
`
	householdWifi = `
config wifi-device 'radio0'
	option type 'mac80211'
	option path 'pci0000:00/0000:00:00.0'
	option hwmode '11a'
	option channel '44'
	option country 'AT'
	option htmode 'VHT40'

config wifi-device 'radio1'
	option type 'mac80211'
	option path 'platform/ahb/18100000.wmac'
	option hwmode '11g'
	option channel '6'
	option disabled '1'

config wifi-iface 'default_radio0'
	option device 'radio0'
	option network 'lan'
	option mode 'ap'
	option ssid 'alps'
	option encryption 'psk2'
	option key 'edelweiss'

config wifi-iface
	option device 'radio0'
	option network 'lan'
	option mode 'ap'
	option ssid 'alps-2'
	option encryption 'sae'
	option key 'gentian'

config wifi-iface 'guests'
	option device 'radio0'
	option network 'guest'
	option mode 'ap'
	option ssid 'guests'
	option encryption 'none'

config wifi-iface 'gone'
	option device 'radio7'
	option network 'lan'
	option ssid 'gone'

config wifi-station 'x'
	option key 'secret'
`
)

// The household's networks go to the radio of their band, whatever its name; its
// place on the buses and its mode are the box's own.
func TestWirelessByBand(t *testing.T) {
	b := backupOf(t, "avm,fritz4020", map[string]string{"network": lanOnly, "wireless": householdWifi})
	f := fitOf(t, b, boxOf(t, "avm,fritzbox-7530", map[string]string{"network": lanOnly, "wireless": shippedWifi}), Options{})
	d := f.Docs["wireless"]
	if d == nil {
		t.Fatal("nothing is put in")
	}
	want := strings.NewReplacer(
		"channel '36'\n\toption htmode 'VHT80'\n\toption disabled '1'\n", "channel '44'\n\toption htmode 'VHT80'\n\toption country 'AT'\n",
		"option channel '1'", "option channel '6'",
		"device 'radio1'\n\toption network 'lan'\n\toption mode 'ap'\n\toption ssid 'OpenWrt'\n\toption encryption 'none'", "device 'radio1'\n\toption network 'lan'\n\toption mode 'ap'\n\toption ssid 'alps'\n\toption encryption 'psk2'\n\toption key 'edelweiss'",
	).Replace(shippedWifi) + "\nconfig wifi-iface\n\toption device 'radio1'\n\toption network 'lan'\n\toption mode 'ap'\n\toption ssid 'alps-2'\n\toption encryption 'sae'\n\toption key 'gentian'\n"
	w, err := uci.Parse("wireless", []byte(want))
	if err != nil || !uci.Equal(d, w) {
		t.Errorf("got\n%s\nwant\n%s", d.Text(), want)
	}
	if got, want := linesOf(f.Taken), "Wi-Fi radio for 5 GHz: country, channel, disabled:\nWi-Fi radio for 2.4 GHz: channel:\nWi-Fi alps (5 GHz):\nWi-Fi alps-2 (5 GHz):\n"; got != want {
		t.Errorf("taken\n%s", got)
	}
	if got, want := linesOf(f.Left), "Wi-Fi guests (5 GHz): there is no interface guest on this box\nWi-Fi gone (an unknown band): this box has no radio for it\nwifi-station x: this kind of section is not carried over\n"; got != want {
		t.Errorf("left\n%s", got)
	}
	// Onto a box that has it all already nothing is written.
	again := boxOf(t, "avm,fritzbox-7530", map[string]string{"network": lanOnly, "wireless": string(d.Text())})
	same := fitOf(t, backupOf(t, "avm,fritzbox-7530", map[string]string{"network": lanOnly, "wireless": string(d.Text())}), again, Options{})
	if len(same.Docs) > 0 || len(same.Taken) > 0 || len(same.Left) > 0 {
		t.Errorf("again: %v\n%s%s", same.Changed(), linesOf(same.Taken), linesOf(same.Left))
	}
}

// A radio that is turned on does not take along an open network into the home LAN.
func TestWirelessNoOpenNetwork(t *testing.T) {
	old := "config wifi-device 'radio0'\n\toption band '2g'\n\toption channel '1'\n"
	f := fitOf(t, backupOf(t, "a", map[string]string{"network": lanOnly, "wireless": old}),
		boxOf(t, "b", map[string]string{"network": lanOnly, "wireless": shippedWifi}), Options{})
	for name, want := range map[string]bool{"default_radio0": true, "default_radio1": false} {
		if s, _ := f.Docs["wireless"].Section(name); s.Bool("disabled", false) != want {
			t.Errorf("%s: off %v, want %v", name, !want, want)
		}
	}
	if r, _ := f.Docs["wireless"].Section("radio1"); !r.Bool("disabled", false) {
		t.Error("a radio went on the air that nobody turned on")
	}
	if got := linesOf(f.Left); got != "Wi-Fi OpenWrt: an open network that this box ships; it stays off\n" {
		t.Errorf("left\n%s", got)
	}
}

func TestWirelessWithoutRadio(t *testing.T) {
	f := fitOf(t, backupOf(t, "a", map[string]string{"network": lanOnly, "wireless": householdWifi}), boxOf(t, "b", map[string]string{"network": lanOnly}), Options{})
	if got := linesOf(f.Left); got != "Wi-Fi: this box has no radio\n" || len(f.Docs) > 0 {
		t.Errorf("left\n%s", got)
	}
	// Two radios of one band on the old box, one here: the second's networks are named.
	two := "config wifi-device 'radio0'\n\toption band '5g'\n\toption channel '36'\n\nconfig wifi-device 'radio1'\n\toption band '5g'\n\toption channel '100'\n\n" +
		"config wifi-iface 'a'\n\toption device 'radio0'\n\toption ssid 'a'\n\toption key 'x'\n\nconfig wifi-iface 'b'\n\toption device 'radio1'\n\toption ssid 'b'\n"
	f = fitOf(t, backupOf(t, "a", map[string]string{"network": lanOnly, "wireless": two}), boxOf(t, "b", map[string]string{"network": lanOnly, "wireless": shippedWifi}), Options{})
	if got := linesOf(f.Left); got != "Wi-Fi b (5 GHz): this box has no radio for it\n" || !strings.HasPrefix(linesOf(f.Taken), "Wi-Fi radio for 5 GHz: disabled:\nWi-Fi a (5 GHz):\n") {
		t.Errorf("taken\n%sleft\n%s", linesOf(f.Taken), got)
	}
	radio, _ := f.Docs["wireless"].Section("radio1")
	if ch, _ := radio.Get("channel"); ch != "36" {
		t.Errorf("channel %s: the second radio's", ch)
	}
}

var update = flag.Bool("update", false, "rewrite what the golden files expect")

// The golden file says what was and what is; the rest of it is what Fit makes of it.
func TestFitGolden(t *testing.T) {
	const name = "testdata/another-board.txtar"
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	was, now, rest := map[string]string{}, map[string]string{}, map[string]string{}
	var given []txtar.File
	for _, f := range a.Files {
		text := string(f.Data)
		switch side, file, _ := strings.Cut(f.Name, "/"); {
		case side == "was" && strings.HasPrefix(file, "etc/"):
			was["/"+file] = text
		case side == "was":
			was[file] = text
		case side == "now":
			now[file] = text
		default:
			rest[f.Name] = text
			continue
		}
		given = append(given, f)
	}
	b, box := backupOf(t, "avm,fritzbox-4040", was), boxOf(t, "avm,fritzbox-7530", now)
	f := fitOf(t, b, box, Options{LANs: []string{"lan"}})
	got := map[string]string{"taken": linesOf(f.Taken), "left": linesOf(f.Left)}
	for c, d := range f.Docs {
		got["then/"+c] = strings.TrimLeft(string(d.Text()), "\n")
	}
	for _, file := range f.Files {
		got["files"] += fmt.Sprintf("%o %s\n", file.Mode, file.Name)
	}
	if *update {
		a.Files = given
		for _, n := range slices.Sorted(maps.Keys(got)) {
			a.Files = append(a.Files, txtar.File{Name: n, Data: []byte(got[n])})
		}
		if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, n := range slices.Sorted(maps.Keys(got)) {
		if got[n] != rest[n] {
			t.Errorf("%s: got\n%s\nwant\n%s", n, got[n], rest[n])
		}
		delete(rest, n)
	}
	for n := range rest {
		t.Errorf("%s is not there", n)
	}
	// What was put in is not put in again.
	for c, d := range f.Docs {
		box.Configs[c] = d
	}
	if again := fitOf(t, b, box, Options{LANs: []string{"lan"}}); len(again.Docs) > 0 {
		for c, d := range again.Docs {
			t.Errorf("a second time %s becomes\n%s", c, d.Text())
		}
	}
	// Nothing of the household's goes to where it was without a word: every section
	// that is not there now is named.
	for _, s := range []string{"eth0.3", "switch0", "bonding b", "Camera", "Allow-Ping", "2222"} {
		if !strings.Contains(got["left"], s) {
			t.Errorf("%s is neither there nor named", s)
		}
	}
}

// A box's own port may be named for the WAN side; another than it has is not used.
func TestWANPort(t *testing.T) {
	old := lanOnly + "\nconfig interface 'wan'\n\toption device 'eth1'\n\toption proto 'dhcp'\n"
	bridge := "config device\n\toption name 'br-lan'\n\toption type 'bridge'\n\tlist ports 'lan1'\n\tlist ports 'lan2'\n\n" + lanOnly
	for port, want := range map[string]string{"": "lan2", "lan1": "lan1", "lan9": ""} {
		f := fitOf(t, backupOf(t, "a", map[string]string{"network": old}), boxOf(t, "b", map[string]string{"network": bridge}), Options{WAN: port})
		got := ""
		if d := f.Docs["network"]; d != nil {
			if s, ok := d.Section("wan"); ok {
				got, _ = s.Get("device")
			}
		}
		if got != want || (want == "") != strings.Contains(linesOf(f.Left), "no port to spare") {
			t.Errorf("--wan-port %q: on %q, want %q; left\n%s", port, got, want, linesOf(f.Left))
		}
	}
}
