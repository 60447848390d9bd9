# Everything that makes the gateway, as the router's own backup and what does not
# stand on its keep lists. It changes nothing.
packages_asked() {
	if [ -n "$(command -v apk)" ]; then
		cat /etc/apk/world
	else
		sed -n '/^Package: /p;/^Auto-Installed: yes/p' /usr/lib/opkg/status
	fi
}

packages_shipped() {
	if [ -n "$(command -v apk)" ]; then
		cat /rom/etc/apk/world
	else
		sed -n 's/^Package: //p' /rom/usr/lib/opkg/status
	fi
}

gather() {
	mkdir -p "$R" && chmod 700 "$R" && rm -f "$R/keep.tgz"
	part made sysupgrade -b "$R/keep.tgz"
	part archive cat "$R/keep.tgz"
	rm -f "$R/keep.tgz"
	part written cat "$D/written.json"
	part asked packages_asked
	part shipped packages_shipped
	part wanted cat "$D/packages"
	say gathered yes
}
