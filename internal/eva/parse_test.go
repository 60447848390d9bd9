package eva

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func jsonOf(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

func TestParseReply(t *testing.T) {
	for line, want := range map[string]Reply{
		"220 ADAM2 FTP Server ready": {220, "ADAM2 FTP Server ready", false},
		"221-Thank you":              {221, "Thank you", true},
		"200":                        {200, "", false},
		"150 Flash check 0x9F288C3D": {150, "Flash check 0x9F288C3D", false},
	} {
		if got, ok := parseReply(line); !ok || got != want {
			t.Errorf("%q: %v %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "22", "memsize   0x10000000", "0x1", "2200 x", "999 x", "099 x", "22a x", "220\tx"} {
		if got, ok := parseReply(line); ok {
			t.Errorf("%q is taken for %v", line, got)
		}
	}
}

func TestParsePassive(t *testing.T) {
	for text, want := range map[string]uint16{
		"Entering Passive Mode (192,168,178,1,12,0)": 3072, "Entering Passive Mode 192,168,178,1,252,99.": 64611, "=1,2,3,4,6,122": 1658,
	} {
		if got, ok := parsePassive(text); !ok || got != want {
			t.Errorf("%q: %d %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "Entering Passive Mode", "(1,2,3,4,5)", "(1,2,3,4,0,0)", "(1,2,3,4,256,1)", "(1,2,3,4,1,99999999999999999999)"} {
		if got, ok := parsePassive(text); ok {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestParseCheck(t *testing.T) {
	for text, want := range map[string]uint32{"Flash check 0x9F288C3D": 0x9F288C3D, "Flash check 0x2a": 0x2a, "flash check 0XFF": 0xff} {
		if got, ok := parseCheck(text); !ok || got != want {
			t.Errorf("%q: %x %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "Flash check", "Flash check 0x", "Flash check 0x123456789", "Opening BINARY data connection", "Flash check 0xZZ"} {
		if got, ok := parseCheck(text); ok {
			t.Errorf("%q is taken for %x", text, got)
		}
	}
}

func TestParseEnv(t *testing.T) {
	e := parseEnv("HWRevision            227\r\nptest\r\nusb_manufacturer_name  AVM\r\n\r\nwlan_ssid             FRITZ!Box K\xfcche  5\r\nmtd1                  0x220000,0x2000000\nflashsize nor_size=0 sflash_size=16MB nand_size=0MB\r\nHardwareFeatures nand=0xC2F1809502\n")
	var names []string
	for _, v := range e.Variables {
		names = append(names, v.Name)
	}
	if want := strings.Fields("HWRevision ptest usb_manufacturer_name wlan_ssid mtd1 flashsize HardwareFeatures"); !slices.Equal(names, want) {
		t.Errorf("names %v", names)
	}
	if v, ok := e.Get("ptest"); !ok || v.Reveal() != "" {
		t.Errorf("ptest %v %v", v, ok)
	}
	if got := e.text("wlan_ssid"); got != "FRITZ!Box K\xfcche  5" {
		t.Errorf("wlan_ssid %q", got)
	}
	if span, ok := e.Partition("mtd1"); !ok || span.Size() != 31_326_208 || span.String() != "0x220000,0x2000000" {
		t.Errorf("mtd1 %v %v", span, ok)
	}
	if s := e.FlashSizes(); s["nor"] != 0 || s["sflash"] != 16<<20 || len(s) != 3 {
		t.Errorf("flash %v", s)
	}
	if s := parseEnv("flashsize nor_size=0x0 sflash_size=0x1000KB nand_size=-1MB\n").FlashSizes(); s["sflash"] != 4<<20 || len(s) != 2 {
		t.Errorf("flash %v", s)
	}
	if maker, ok := e.NAND(); !ok || maker != 0xC2 {
		t.Errorf("NAND %x %v", maker, ok)
	}
}

// 25 profiles (facts eva 3.2), every one with a method, a source and a certainty;
// no revision twice.
func TestBoards(t *testing.T) {
	profiles, revisions := map[string]bool{}, map[string]bool{}
	for _, b := range Boards() {
		for _, p := range b.Profiles {
			profiles[p.Name] = true
			if len(BoardFor(strings.Replace(p.Name, "avm_", "avm,", 1))) == 0 {
				t.Errorf("%s is not found by its name", p.Name)
			}
			if len(b.Profiles) > 1 && p.For == "" {
				t.Errorf("%s does not say when to take %s", b.Name, p.Name)
			}
		}
		for _, r := range b.HWRevisions {
			if revisions[r] || unsupported[r] != "" {
				t.Errorf("HWRevision %s twice", r)
			}
			revisions[r] = true
		}
		if b.Method == "" || b.Source == "" || b.Sure == "" || b.Target == "" || len(b.HWRevisions) == 0 {
			t.Errorf("%s lacks something: %+v", b.Name, b)
		}
		if b.Method.Writes() && b.MTD1 == 0 || (b.Method == MethodE) != (b.TFTP != "" && b.Offset != 0) || b.MaxFile > b.MTD1 {
			t.Errorf("%s: sizes or places do not fit the method: %+v", b.Name, b)
		}
	}
	if len(profiles) != 25 {
		t.Errorf("%d profiles", len(profiles))
	}
}

// The arithmetic of OpenWrt's eva_ramboot.py (facts eva 1.7).
func TestLayout(t *testing.T) {
	for _, c := range []struct {
		size   int64
		offset uint32
		want   RAM
	}{
		{5_000_000, 0, RAM{0x07B3B000, 0x87B3B000, 0x88000000}},
		{0x1000, 0, RAM{0x07FFF000, 0x87FFF000, 0x88000000}},
		{1, 0, RAM{0x07FFF000, 0x87FFF000, 0x88000000}},
		{0x70000, 0x85000000, RAM{0x70000, 0x85000000, 0x88000000}},
	} {
		if got, err := Layout(c.size, c.offset); err != nil || got != c.want {
			t.Errorf("%#x at %#x: %#x %v", c.size, c.offset, got, err)
		}
	}
	for _, c := range []struct {
		size   int64
		offset uint32
	}{{0, 0}, {-1, 0}, {ramMax, 0}, {1 << 20, 0x87ff0000}, {1, 0x70000000}} {
		if got, err := Layout(c.size, c.offset); err == nil {
			t.Errorf("%#x at %#x: %#x", c.size, c.offset, got)
		}
	}
}

func TestDiscoveryPackets(t *testing.T) {
	if got := discoveryRequest(Home); string(got) != "\x00\x00\x12\x01\x01\x00\x00\x00\xc0\xa8\xb2\x01\x00\x00\x00\x00" {
		t.Errorf("request % x", got)
	}
	if a, ok := parseDiscovery([]byte("\x00\x00\x12\x01\x02\x00\x00\x00\x01\xb2\xa8\xc0\x00\x00\x00\x00")); !ok || a != Home {
		t.Errorf("answer %v %v", a, ok)
	}
	for _, p := range []string{"", "fritzAVM", "\x00\x00\x12\x01\x01\x00\x00\x00\x01\xb2\xa8\xc0\x00\x00\x00\x00", "\x00\x00\x12\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if a, ok := parseDiscovery([]byte(p)); ok {
			t.Errorf("% x is taken for %s", p, a)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"220 ADAM2 FTP Server ready", "227 Entering Passive Mode (192,168,178,1,12,0)", "150 Flash check 0x9F288C3D", "221-x", "memsize  1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, ok := parseReply(line)
		if ok && (r.Code < 100 || r.Code > 599 || !strings.HasPrefix(line, line[:3])) {
			t.Errorf("%q: %v", line, r)
		}
		if port, ok := parsePassive(r.Text); ok && port == 0 {
			t.Errorf("%q: port 0", line)
		}
		parseCheck(r.Text)
		if !ok && strings.HasPrefix(line, "wlan_key ") && len(line) > 20 && strings.Contains(quote(line), line[9:]) {
			t.Errorf("%q is quoted", line)
		}
	})
}

func FuzzEnv(f *testing.F) {
	f.Add("HWRevision            227\r\nmtd1  0x220000,0x2000000\r\nflashsize nor_size=0 sflash_size=16MB\r\nptest\r\n")
	f.Add("mtd1 0x,\nmtd1 9223372036854775807,-1\nHardwareFeatures nand=0x")
	f.Fuzz(func(t *testing.T, text string) {
		e := parseEnv(text)
		for _, v := range e.Variables {
			if v.Name == "" || strings.ContainsAny(v.Name, " \n") {
				t.Errorf("name %q", v.Name)
			}
		}
		for _, part := range []string{"mtd0", "mtd1", "mtd2"} {
			if s, ok := e.Partition(part); ok && s.Size() < 0 {
				t.Errorf("%s is %v", part, s)
			}
		}
		e.FlashSizes()
		e.NAND()
		if _, err := NewPlan(e, File{Role: Firmware, Size: 1 << 20}); err == nil && e.HWRevision() == "" {
			t.Error("a plan for nobody")
		}
	})
}

func FuzzTFTP(f *testing.F) {
	f.Add([]byte("\x00\x01FRITZ7530.bin\x00octet\x00timeout\x005\x00blksize\x001468\x00tsize\x000\x00"))
	f.Add([]byte("\x00\x02x\x00octet\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, refuse := parseTFTP(p, 1000)
		if refuse == "" && (r.block < 8 || r.block > 1468) {
			t.Errorf("% x: block %d", p, r.block)
		}
	})
}
