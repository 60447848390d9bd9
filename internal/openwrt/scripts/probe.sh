# A peer of our own for a test, on the live interface only: it is in no file, so
# a restart ends it, and a job on the router takes it away after SECONDS even if
# nobody comes back. Set before it: IFACE, KEY, ALLOWED, SECONDS_LEFT. Standard
# input: a tar archive with the preshared key and timer.sh.
probe() {
	rm -rf "$R/probe" && mkdir -p "$R/probe" && tar -x -f - -C "$R/probe" || give_up unpack probe
	wg set "$IFACE" peer "$KEY" preshared-key "$R/probe/psk" allowed-ips "$ALLOWED" || {
		rm -rf "$R/probe"
		give_up noprobe "$IFACE"
	}
	rm -f "$R/probe/psk"
	background probe/timer /bin/sh "$R/probe/timer.sh" "$SECONDS_LEFT" wg set "$IFACE" peer "$KEY" remove
	say probing yes
}

unprobe() {
	[ ! -f "$R/probe/timer.pid" ] || kill "$(cat "$R/probe/timer.pid")" 2>/dev/null
	part counters wg show "$IFACE" dump
	wg set "$IFACE" peer "$KEY" remove
	rm -rf "$R/probe"
	say unprobed yes
}
