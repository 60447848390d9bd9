package evabox

import "strings"

// A Model is a device: its environment as the bootloader prints it.
type Model struct {
	Name    string
	Version string // SYST's answer after "AVM EVA Version "
	Env     string // one "name value" a line
	UBoot   string // what its U-Boot asks a TFTP server for, for RAM boot in two stages
}

// Secrets of every fixture; what is private on a real box is made up here.
const private = `
wlan_key 12345678901234567890
wlan_ssid FRITZ!Box Küche
webgui_pass geheim1234
tr069_passphrase Xy7pQr2sTu4v
tr069_serial 00040E-FFFF00000000
SerialNumber 0000000000000000
maca 02:00:00:00:00:01
macb 02:00:00:00:00:02
macwlan 02:00:00:00:00:03
macdsl 02:00:00:00:00:04
usb_board_mac 02:00:00:00:00:05
usb_rndis_mac 02:00:00:00:00:06
usb_manufacturer_name AVM
`

const common = `
annex Ohne
autoload yes
country 049
language de
firmware_version avme
my_ipaddress 192.168.178.1
prompt Eva_AVM
ptest
` + private

// Models are the fixtures, by a short name: facts eva 3.3 (from the emulator EM's
// Conf/*.txt and captures), values in our wording.
var Models = map[string]Model{
	"4040": {"FRITZ!Box 4040", "1.3620 0x0 0x240D", `HWRevision 227
HWSubRevision 4
ProductID Fritz_Box_HW227
bootloaderVersion 1.3620
firmware_info 155.07.57
flashsize nor_size=0MB sflash_size=32768KB nand_size=0MB
jffs2_size 16
memsize 0x10000000
firstfreeaddress 0x8817D008
mtd0 0x2000000,0x2000000
mtd1 0x220000,0x2000000
mtd2 0x0,0x120000
mtd3 0x120000,0x1A0000
mtd4 0x1A0000,0x220000` + common, ""},
	"7530": {"FRITZ!Box 7530", "1.11581 0x0 0x46409", `HWRevision 236
HWSubRevision 3
ProductID Fritz_Box_HW236
HardwareFeatures nand=0xC2F1809502
bootloaderVersion 1.11581
flashsize nor_size=0MB sflash_size=0MB nand_size=128MB
linux_fs_start 0
` + ipq4019 + common, "FRITZ7530.bin"},
	"7520": {"FRITZ!Box 7520", "1.11581 0x0 0x46409", `HWRevision 247
HWSubRevision 1
ProductID Fritz_Box_HW247
HardwareFeatures nand=0xC2F1809502
bootloaderVersion 1.11581
flashsize nor_size=0MB sflash_size=0MB nand_size=128MB
linux_fs_start 0
` + ipq4019 + common, "FRITZ7520.bin"},
	"7412": {"FRITZ!Box 7412", "1.2589 0x0 0x47409", `HWRevision 209
HWSubRevision 1
ProductID Fritz_Box_7412
flashsize nor_size=0MB sflash_size=256KB nand_size=128MB
linux_fs_start 1
memsize 0x08000000
mtd0 0x840000,0x3840000
mtd1 0x440000,0x840000
mtd2 0x0,0x40000
mtd3 0x40000,0x440000
mtd4 0x0,0x200000` + strings.Replace(common, "192.168.178.1", "169.254.120.1", 1), ""},
	"7490": {"FRITZ!Box 7490", "1.1964 0x0 0x740D", `HWRevision 185
HWSubRevision 1
ProductID Fritz_Box_7490
flashsize nor_size=0MB sflash_size=1024KB nand_size=512MB
linux_fs_start 0
memsize 0x10000000
mtd0 0x400000,0x3400000
mtd1 0x0,0x400000
mtd2 0x0,0x40000
mtd3 0x40000,0xA0000
mtd4 0xA0000,0x100000
mtd5 0x0,0x200000` + common, ""},
	"3370": {"FRITZ!Box 3370", "1.1475 0x0 0x741D", `HWRevision 175
HWSubRevision 2
ProductID Fritz_Box_3370
urlader-version 2186
flashsize nor_size=0MB sflash_size=256KB nand_size=128MB
linux_fs_start 1
memsize 0x08000000
mtd0 0x400000,0x3400000
mtd1 0x0,0x400000
mtd2 0x0,0x20000
mtd3 0x20000,0x30000
mtd4 0x30000,0x40000
mtd5 0x0,0x200000` + common, ""},
	"7320": {"FRITZ!Box 7320", "1.1109 0x0 0x341D", `HWRevision 172
HWSubRevision 1
ProductID Fritz_Box_7320
flashsize nor_size=16MB
memsize 0x04000000
mtd1 0x90020000,0x90F80000
mtd2 0x90000000,0x90020000
mtd3 0x90F80000,0x90FC0000
mtd4 0x90FC0000,0x91000000` + common, ""},
	"450E": {"FRITZ!WLAN Repeater 450E", "1.2117 0x0 0x240D", `HWRevision 200
HWSubRevision 1
ProductID Fritz_Box_HW200
flashsize nor_size=0 sflash_size=16MB nand_size=0MB
memsize 0x04000000
mtd0 0x9F000000,0x9F000000
mtd1 0x9F020000,0x9FF00000
mtd2 0x9F000000,0x9F020000
mtd3 0x9FF00000,0x9FF80000
mtd4 0x9FF80000,0xA0000000` + common, ""},
}

const ipq4019 = `memsize 0x10000000
mtd0 0x0,0x2C00000
mtd1 0xB00000,0xF00000
mtd2 0x0,0x2C0000
mtd3 0x2C0000,0xB00000
mtd4 0xF00000,0x1300000
mtd5 0x1300000,0x8000000`

// variable is one line of the environment, in its order.
type variable struct{ name, value string }

func parseEnv(text string) []variable {
	var out []variable
	for _, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			name, value, _ := strings.Cut(line, " ")
			out = append(out, variable{name, value})
		}
	}
	return out
}
