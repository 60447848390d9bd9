package imagetest

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"strings"
)

// A Mistake is a file that somebody picks instead of the 4040's image for its boot
// loader.
type Mistake struct {
	Name string // what it is, for the test's name
	File []byte
}

// Mistakes are wrong files for flashing a 4040, every one of which must be refused
// before a byte goes to the box.
func Mistakes() []Mistake {
	good := EVA(Options{})
	upgrade := Sysupgrade(Options{})
	out := []Mistake{
		{"empty", nil},
		{"one byte", []byte{0x81}},
		{"zeros", make([]byte, 1<<20)},
		{"erased flash", bytes.Repeat([]byte{0xFF}, 1<<20)},
		{"noise", Noise(3, 200_000)},
		{"web page", []byte("<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body></body></html>\n")},
		{"log-in page of a hotel", []byte("\ufeff  \n<HTML><HEAD><TITLE>Welcome</TITLE></HEAD></HTML>")},
		{"checksum list", []byte(strings.Repeat("0", 64) + " *openwrt-24.10.7-ipq40xx-generic-avm_fritzbox-4040-squashfs-eva.bin\n")},
		{"profiles.json", []byte(`{"metadata_version":1,"profiles":{}}`)},
		{"a peer's configuration", []byte("[Interface]\nAddress = 192.168.20.2/32\n")},
		{"sysupgrade image", upgrade},
		{"sysupgrade image, signed", Sysupgrade(Options{Signed: true})},
		{"initramfs", Initramfs(Options{})},
		{"u-boot alone", UBoot("FRITZ4040")},
		{"u-boot of the 7530", UBoot("FRITZ7530")},
		{"sysupgrade image of the 7530", Sysupgrade(Options{Board: "avm,fritzbox-7530"})},
		{"initramfs of the 7530", Initramfs(Options{Board: "avm,fritzbox-7530"})},
		{"sysupgrade image of the 4020", Sysupgrade(Options{Board: "avm,fritz4020"})},
		{"sysupgrade image of the 7360", Sysupgrade(Options{Board: "avm,fritz7360sl"})},
		{"sysupgrade image of the 7320", Sysupgrade(Options{Board: "avm,fritz7320"})},
		{"sysupgrade image of the 7490", Sysupgrade(Options{Board: "avm,fritz7490"})},
		{"initramfs of the 7490", Initramfs(Options{Board: "avm,fritz7490"})},
		{"kernel of the 3370", EVAKernel(Options{Board: "avm,fritz3370-rev2-micron"})},
		{"file system of the 3370", EVAFileSystem(Options{Board: "avm,fritz3370-rev2-micron"})},
		{"image of another board behind the 4040's u-boot", PadRoot(append(UBoot("FRITZ4040"), append(FIT(Options{Board: "avm,fritzbox-7530"}, 100_000), Squashfs(1, 300_000)...)...))},
		{"the 7530's u-boot before the 4040's image", append(UBoot("FRITZ7530"), good[0x80000:]...)},
		{"AVM recovery program", AVMRecovery()},
		{"AVM firmware", AVMImage()},
		{"AVM kernel.image", AVMKernel()},
		{"another Windows program", append([]byte("MZ\x90\x00"), Noise(5, 200_000)...)},
		{"gzip", Gzip(good)},
		{"zip", Zip("openwrt-squashfs-eva.bin", good)},
		{"TRX", append([]byte("HDR0"), Noise(5, 100_000)...)},
		{"uImage", UImage("\x27\x05\x19\x56", Noise(6, 100_000))},
		{"another maker's sysupgrade image", Chunks(UImage("\x27\x05\x19\x56", Noise(6, 100_000)), `{"supported_devices":["tplink,archer-c7-v2"],"version":{"dist":"OpenWrt","version":"24.10.7"}}`, false)},
		{"another maker's image for the same chip", Sysupgrade(Options{Board: "linksys,ea6350v3"})},
		{"root file system alone", Squashfs(1, 300_000)},
		{"TP-Link image", append([]byte("\x01\x00\x00\x00TP-LINK Technologies"), Noise(8, 100_000)...)},
		{"MikroTik ELF", append([]byte("\x7fELF"), Noise(8, 100_000)...)},
		{"PC disk image", disk()},
		{"some tar", Tar([]Entry{{"readme.txt", []byte("hello")}, {"var/log", []byte("x")}})},
		{"picture", append([]byte("\x89PNG\r\n\x1a\n"), Noise(8, 10_000)...)},
		{"image with one flipped bit in u-boot", flip(good, 5000)},
		{"image with one flipped bit in the kernel", flip(good, 0x80000+12_000)},
		{"image without its first 512 bytes", good[512:]},
		{"image with an HTTP header in front", append([]byte("HTTP/1.1 200 OK\r\n\r\n"), good...)},
		{"image sent as ASCII", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))},
		{"image that is too large", EVA(Options{Root: 31 << 20})},
		{"image and more behind it", append(bytes.Clone(good), Noise(4, 5000)...)},
	}
	return out
}

func flip(p []byte, at int) []byte {
	p = bytes.Clone(p)
	p[at] ^= 0x10
	return p
}

// AVMRecovery is a Windows program with AVM's mark (facts eva.md 4.7).
func AVMRecovery() []byte {
	out := append([]byte("MZ\x90\x00"), Noise(5, 300_000)...)
	return append(append(out, "recover-tool-version:[RECOVER:1.0.0]\x00227\x00"...), Noise(6, 100_000)...)
}

// AVMImage is a firmware file for FRITZ!OS' update page.
func AVMImage() []byte {
	return Tar([]Entry{{"./var/", nil}, {"./var/content", []byte("Product=Fritz_Box_HW227\nInstallerVersion=2.0\n")}, {"./var/install", []byte("#! /bin/sh\n")},
		{"./var/info.txt", nil}, {"./var/tmp/kernel.image", AVMKernel()}, {"./var/signature", Noise(1, 128)}})
}

// AVMKernel is a kernel.image: record, AVM's file system, TI trailer.
func AVMKernel() []byte {
	out := Record(0x80002000, 0x80002000, Noise(12, 100_000))
	return TI(append(append(out, make([]byte, pad(len(out), 256))...), append([]byte("hsqs"), Noise(13, 200_000)...)...))
}

// Gzip packs p.
func Gzip(p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(p)
	must(err)
	must(w.Close())
	return b.Bytes()
}

// Zip packs p.
func Zip(name string, p []byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	must(err)
	_, err = w.Write(p)
	must(err)
	must(z.Close())
	return b.Bytes()
}

func disk() []byte {
	p := append(Noise(14, 510), 0x55, 0xAA)
	return append(p, make([]byte, 100_000)...)
}
