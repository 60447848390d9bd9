# What a look does not show: whether packets come, whether the neighbours answer, what
# the log says. It changes nothing. Set before it: ZONE, IFACE, GATEWAY, NAME, TARGETS,
# FROM, TIMES, RULE, PATIENCE.

# The packets that the firewall has counted for rules about the router itself.
counted() {
	if [ -n "$(command -v fw4)" ]; then
		nft list chain inet fw4 "input_$ZONE"
	else
		iptables -nvxL "zone_${ZONE}_input"
	fi
}

complaints() {
	if [ -n "$(command -v fw4)" ]; then
		fw4 check 2>&1 | grep '\[!\]'
	else
		fw3 print 2>&1 >/dev/null | grep 'Section '
	fi
	return 0
}

# Only lines that a rule of package doctor reads.
telling() { [ -n "$(command -v logread)" ] && logread | grep -i -e 'DNS-rebind attack' -e 'jffs2.*error' -e 'ubi.*error' -e 'spi.*error' -e 'spi.*timeout' -e 'spi.*failed' | tail -n 20; }

jobs_of_root() { [ ! -f /etc/crontabs/root ] || cat /etc/crontabs/root; }

own_settings() {
	for c in rpcd uhttpd ddns; do
		[ ! -f "/etc/config/$c" ] || part "file.$c" cat "/etc/config/$c"
	done
}

# One ping of each target until one answers, and of that one again from the router's
# address in the tunnel.
knock_at() {
	hw_n=0
	for t in $TARGETS; do
		if part "near.$hw_n" ping -c 1 -W 1 "$t"; then
			[ -z "$FROM" ] || part "far.$hw_n" ping -c 1 -W 1 -I "$FROM" "$t"
			break
		fi
		hw_n=$((hw_n + 1))
	done
}

sample() {
	say "when.$1" "$(date +%s)"
	[ -z "$ZONE" ] || part "count.$1" counted
	part "at.$1" wg show "$IFACE" endpoints
	part "took.$1" wg show "$IFACE" transfer
	part "shook.$1" wg show "$IFACE" latest-handshakes
}

# TIMES samples, a second apart, the first one at the very beginning.
samples() {
	hw_s=1
	while [ "$hw_s" -lt "$TIMES" ]; do
		sleep 1
		sample "$hw_s"
		hw_s=$((hw_s + 1))
	done
}

# A device that knocks in vain does so every five seconds. So when packets have come,
# and nobody was ever in, the next one is waited for, at most PATIENCE seconds.
wait_for_knock() {
	[ -n "$ZONE" ] && [ "$PATIENCE" -gt 0 ] || return 0
	hw_rule=$(counted 2>/dev/null | grep -e "$RULE")
	case $hw_rule in
	'' | *'packets 0 '*) return 0 ;;
	esac
	set -- $hw_rule
	[ "$1" != 0 ] || return 0
	while [ "$PATIENCE" -gt 0 ] && [ "$(counted 2>/dev/null | grep -e "$RULE")" = "$hw_rule" ]; do
		sleep 1
		PATIENCE=$((PATIENCE - 1))
	done
	sample "$TIMES"
}

examine() {
	sample 0
	part modules cat /proc/modules
	part devices ubus call network.device status
	part jobs jobs_of_root
	part log telling
	own_settings
	part complaints complaints
	[ -z "$GATEWAY" ] || part gateway ping -c 1 -W 1 "$GATEWAY"
	[ -z "$NAME" ] || part names nslookup "$NAME" 127.0.0.1
	knock_at
	part neighbours ip neigh show
	samples
	wait_for_knock
	say examined yes
}

# One sample, for watching.
glance() {
	sample 0
	say glanced yes
}
