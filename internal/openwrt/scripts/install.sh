# Installs what is missing, outside any guarded window: package scripts reload
# rpcd and may restart services. Set before it: ID, LOCKSECONDS, PACKAGES (names,
# in order), WIREGUARD (not empty when netifd must learn the protocol), FILES (.ipk
# files to install instead of asking the feeds, which come as a tar archive on
# standard input; may be empty) and TOTAL (bytes of them).
knows_wireguard() { ubus call network get_proto_handlers | grep -q '"wireguard"'; }
lan_up() { ubus call network.interface.lan status | grep -q '"up": true'; }

# receive: the files lie in RAM while opkg works, which unpacks them there as well.
receive() {
	rm -rf "$R/in"
	[ "$(room)" -gt $((TOTAL / 512 + 1024)) ] || give_up noram "$(room) $((TOTAL / 512))"
	mkdir -p "$R/in" && tar -x -f - -C "$R/in" || give_up unpack "$R/in"
}

# opkg takes a name for a file by its ending alone.
from_files() { cd "$R/in" && opkg "$@" $FILES; }

manager() {
	if [ -n "$FILES" ]; then
		receive
		(part install from_files install)
	elif [ -n "$(command -v apk)" ]; then
		part update apk update
		part install apk add $PACKAGES
	else
		part update opkg update
		part install opkg install $PACKAGES
	fi
}

# A reload does not teach netifd a new protocol; this does, and keeps SSH
# (observed on 23.05.6, 24.10.8 and 25.12.5).
teach() {
	part restart ubus call network restart
	until_ok 20 knows_wireguard || return 1
	until_ok 20 lan_up
	return 0 # a home LAN of another name is not worth a failure
}

# again: the list says that the package is there and its files are not, as after a
# power cut in the middle of an installation.
again() {
	if [ -n "$(command -v apk)" ]; then
		part again apk fix --reinstall kmod-wireguard wireguard-tools
	elif [ -n "$FILES" ]; then
		(part again from_files --force-reinstall install)
	else
		part update opkg update
		part again opkg --force-reinstall install kmod-wireguard wireguard-tools
	fi && sync
}

installs() {
	lock
	quiet_router network
	hw_ok=yes
	if [ -n "$PACKAGES" ]; then
		manager || hw_ok=''
		sync
	fi
	if [ -n "$WIREGUARD" ] && [ -n "$hw_ok" ] && ! knows_wireguard; then
		[ -n "$(command -v wg)" ] && teach || { again && teach; } || give_up nohandler "$PACKAGES"
	fi
	rm -rf "$R/in"
	unlock
	say installed yes
}
