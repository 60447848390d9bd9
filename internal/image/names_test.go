package image

import (
	"slices"
	"testing"
)

// The names that are told are those on the download server (facts eva 3.1, 5.1).
func TestFileNames(t *testing.T) {
	for _, c := range []struct {
		board, version string
		use            Use
		hw             int
		want           []string
	}{
		{"avm,fritzbox-4040", "25.12.5", FlashThroughEVA, 227, []string{"openwrt-25.12.5-ipq40xx-generic-avm_fritzbox-4040-squashfs-eva.bin"}},
		{"avm,fritzbox-4040", "", UpgradeOpenWrt, 227, []string{"openwrt-…-ipq40xx-generic-avm_fritzbox-4040-squashfs-sysupgrade.bin"}},
		{"avm,fritzbox-7530", "22.03.7", NetBoot, 236, []string{"openwrt-22.03.7-ipq40xx-generic-avm_fritzbox-7530-initramfs-fit-uImage.itb"}},
		{"avm,fritzbox-7530", "21.02.7", NetBoot, 236, []string{"openwrt-21.02.7-ipq40xx-generic-avm_fritzbox-7530-initramfs-fit-uImage.itb"}},
		{"avm,fritzbox-7530", "23.05.6", NetBoot, 236, []string{"openwrt-23.05.6-ipq40xx-generic-avm_fritzbox-7530-initramfs-uImage.itb"}},
		{"avm,fritzbox-7530", "24.10.8", RAMBoot, 247, []string{"uboot-fritz7520.bin"}},
		{"avm,fritz7412", "24.10.8", RAMBoot, 209, []string{"openwrt-24.10.8-lantiq-xrx200-avm_fritz7412-initramfs-kernel.bin"}},
		{"avm,fritz3370-rev2-hynix", "24.10.8", FlashThroughEVA, 175, []string{"openwrt-24.10.8-lantiq-xrx200-avm_fritz3370-rev2-hynix-squashfs-eva-kernel.bin", "openwrt-24.10.8-lantiq-xrx200-avm_fritz3370-rev2-hynix-squashfs-eva-filesystem.bin"}},
	} {
		b, ok := BoardNamed(c.board)
		if got := fileNames(b, c.use, c.hw, c.version); !ok || !slices.Equal(got, c.want) {
			t.Errorf("%s %s: %v", c.board, c.version, got)
		}
	}
}
