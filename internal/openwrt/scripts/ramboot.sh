# A system that was just started: the one that runs from RAM and installs OpenWrt,
# and the installed one at its first boot. Set before it, where needed: NAME, SIZE,
# SUM, IMAGE, UBOOT.

# Where everything is mounted, which board this is, what the flash says of itself.
# It changes nothing.
boot_look() {
	part board ubus call system board
	part release cat /etc/openwrt_release
	part mounts cat /proc/mounts
	part mtd cat /proc/mtd
	part nand nand_lines
	part defaults ls /etc/uci-defaults
	part keys ls /etc/dropbear
	[ -z "$(command -v fritz_tffs_nand)" ] || part fsstart fritz_tffs_nand -d /dev/mtd1 -n linux_fs_start
	part trouble cat "$R/sysupgrade.log"
	say boot-looked done
}

# The kernel names the chip's maker twice: by number, then by name.
nand_lines() { dmesg | grep -i 'nand: ' | head -n 10; }

# One file comes over standard input, as it is: there is no sftp in a RAM system.
# It counts only with the right digest.
boot_copy() {
	mkdir -p "$R" && chmod 700 "$R"
	cat >"$R/$NAME.part" || give_up nospace "$R/$NAME"
	[ "$(sum "$R/$NAME.part")" = "$SUM" ] || give_up copy "$NAME"
	mv "$R/$NAME.part" "$R/$NAME"
	say boot-copied done
}

# U-Boot to both of its places, one after the other, so that one of them is whole
# whenever the power fails; then AVM's volumes go, and OpenWrt has their room.
boot_uboot() {
	for hw_p in uboot0 uboot1; do
		grep -q "\"$hw_p\"" /proc/mtd || give_up nouboot "$hw_p"
	done
	for hw_p in uboot0 uboot1; do
		part "write.$hw_p" mtd write "$R/$UBOOT" "$hw_p" || give_up uboot "$hw_p"
	done
	sync
	for hw_v in avm_filesys_0 avm_filesys_1; do
		# One that is gone already is as good.
		part "volume.$hw_v" ubirmvol /dev/ubi0 "--name=$hw_v"
	done
	say boot-written done
}

# The system's own judge has the word before anything is written; then it starts
# in the background, because it ends every session, this one too.
boot_install() {
	part test sysupgrade -n -T "$R/$IMAGE" || give_up image "$IMAGE"
	mv "$R/$IMAGE" /tmp/firmware.bin || give_up nospace /tmp/firmware.bin
	printf '#!/bin/sh\nexec sysupgrade -n /tmp/firmware.bin >%s 2>&1\n' "$R/sysupgrade.log" >"$R/install" && chmod 700 "$R/install"
	say boot-installs now
	background install "$R/install"
}

# The system in RAM ends, and the bootloader has the next word.
boot_restart() {
	say boot-restarts now
	background restart /sbin/reboot
}
