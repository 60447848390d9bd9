# Installs what is missing, outside any guarded window: package scripts reload
# rpcd and may restart services. Set before it: ID, LOCKSECONDS, PACKAGES (names,
# in order), WIREGUARD (not empty when netifd must learn the protocol).
knows_wireguard() { ubus call network get_proto_handlers | grep -q '"wireguard"'; }
lan_up() { ubus call network.interface.lan status | grep -q '"up": true'; }

manager() {
	if [ -n "$(command -v apk)" ]; then
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
	unlock
	say installed yes
}
