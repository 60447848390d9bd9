package eva

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// A Value is a variable's value. Only those that are known to be harmless are
// shown by fmt, JSON and errors: the environment holds the Wi-Fi key and the
// password of the box's web page (facts eva 0.1 point 14).
type Value struct {
	get    func() string
	public bool
}

func newValue(name, text string) Value {
	return Value{func() string { return text }, public[name]}
}

// Reveal returns the value, secret or not. For decisions, never for output.
func (v Value) Reveal() string {
	if v.get == nil {
		return ""
	}
	return v.get()
}

// IsSecret reports whether the value is hidden.
func (v Value) IsSecret() bool { return !v.public }

// String returns a harmless value, and "(not shown)" for others.
func (v Value) String() string {
	if v.public || v.get == nil {
		return v.Reveal()
	}
	return "(not shown)"
}

// Format keeps every verb from showing more than String.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }

// MarshalJSON writes what String says.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal(v.String()) }

// public lists the variables that tell nothing about the household. All others,
// the unknown ones included, are hidden: maca, wlan_key, webgui_pass, SerialNumber
// and whatever a bootloader adds.
var public = words(`HWRevision HWSubRevision ProductID HardwareFeatures bootloaderVersion urlader-version prompt annex country
	language firmware_info firmware_version provider linux_fs_start autoload jffs2_size modulemem firstfreeaddress memsize flashsize
	mtd0 mtd1 mtd2 mtd3 mtd4 mtd5 my_ipaddress ptest usb_manufacturer_name`)

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

// A Variable is one line of the environment.
type Variable struct {
	Name  string
	Value Value
}

// An Environment is what the bootloader knows about its box, in its order.
type Environment struct {
	Variables []Variable
	// Whole says that all of it was read; else only what was asked for one by one.
	Whole bool
}

// parseEnv reads the lines of RETR env and GETENV: a name, a run of blanks, the
// value, which may be missing (facts eva 1.6).
func parseEnv(text string) Environment {
	var e Environment
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r \t\x00")
		name, value, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		if name != "" {
			e.Variables = append(e.Variables, Variable{name, newValue(name, strings.TrimLeft(value, " "))})
		}
	}
	return e
}

// Get returns a variable, ok when the box has it; its value may be empty.
func (e Environment) Get(name string) (v Value, ok bool) {
	for _, x := range e.Variables {
		if x.Name == name {
			return x.Value, true
		}
	}
	return Value{}, false
}

func (e Environment) text(name string) string {
	v, _ := e.Get(name)
	return v.Reveal()
}

// HWRevision is the number that names the model; 227 is the 4040.
func (e Environment) HWRevision() string { return e.text("HWRevision") }

// Address is the address that the bootloader takes by itself at the next start.
func (e Environment) Address() (netip.Addr, bool) {
	a, err := netip.ParseAddr(e.text("my_ipaddress"))
	return a, err == nil
}

// A Span is a partition's place: from Start up to, not including, End, in bytes.
type Span struct{ Start, End int64 }

// Size is the span's length in bytes.
func (s Span) Size() int64 { return s.End - s.Start }

// String writes the span as the environment does.
func (s Span) String() string { return fmt.Sprintf("0x%X,0x%X", s.Start, s.End) }

func (s Span) overlaps(o Span) bool { return s.Start < o.End && o.Start < s.End }

// Partition returns the bounds of mtd0, mtd1, …
func (e Environment) Partition(name string) (Span, bool) {
	a, b, ok := strings.Cut(e.text(name), ",")
	start, err1 := strconv.ParseInt(strings.TrimSpace(a), 0, 64)
	end, err2 := strconv.ParseInt(strings.TrimSpace(b), 0, 64)
	return Span{start, end}, ok && err1 == nil && err2 == nil && start >= 0 && end >= start
}

// NAND returns the maker's code of the NAND chip, from "nand=0xC2F1809502": 0xC2
// is Macronix, 0x98 Toshiba (facts eva 3.1); ok when the box says so.
func (e Environment) NAND() (maker byte, ok bool) {
	for f := range strings.FieldsSeq(strings.ReplaceAll(e.text("HardwareFeatures"), ",", " ")) {
		if hex, found := strings.CutPrefix(f, "nand=0x"); found && len(hex) >= 2 {
			n, err := strconv.ParseUint(hex[:2], 16, 8)
			return byte(n), err == nil
		}
	}
	return 0, false
}

// FlashSizes are the sizes of the kinds of flash in bytes, from flashsize; one
// that is not named is missing. Some boxes leave out the unit (facts eva 1.6).
func (e Environment) FlashSizes() map[string]int64 {
	out := map[string]int64{}
	for f := range strings.FieldsSeq(e.text("flashsize")) {
		name, size, ok := strings.Cut(f, "_size=")
		if !ok {
			continue
		}
		unit := int64(1)
		if s, k := strings.CutSuffix(size, "KB"); k {
			size, unit = s, 1<<10
		} else if s, m := strings.CutSuffix(size, "MB"); m {
			size, unit = s, 1<<20
		}
		if n, err := strconv.ParseInt(size, 0, 32); err == nil && n >= 0 { // "0x0" on some 300E
			out[name] = n * unit
		}
	}
	return out
}
