# Everything heimweg wants to know, in one round trip. It changes nothing.
# Set before it: CONFIGS, PACKAGES, CHECKFW.
one_config() {
	say "sum.$1" "$(sum "/etc/config/$1")"
	part "file.$1" cat "/etc/config/$1"
	part "read.$1" uci_reads "$1"
}

# What the router's own reader says of a file; its text goes to us only when it
# is a complaint.
uci_reads() { uci show "$1" 2>&1 >/dev/null; }

staged() { for f in /tmp/.uci/*; do [ ! -s "$f" ] || echo "${f##*/}"; done; }
overrides() { for f in /var/run/uci/*; do [ ! -e "$f" ] || echo "${f##*/}"; done; }
luci_apply() { for f in /var/run/rpcd/snapshot-files/*; do [ ! -e "$f" ] || echo "${f##*/}"; done; }

root_password() {
	case "$(grep '^root:' /etc/shadow)" in
	root::*) echo none ;;
	root:*) echo set ;;
	esac
}

installed() {
	[ -n "$PACKAGES" ] || return 0
	if [ -n "$(command -v apk)" ]; then
		for p in $PACKAGES; do
			apk info -e "$p" >/dev/null 2>&1 && echo "$p"
		done
	else
		for p in $PACKAGES; do
			sed -n "/^Package: $p\$/,/^\$/p" /usr/lib/opkg/status | grep -q '^Status: .* installed$' && echo "$p"
		done
	fi
	return 0
}

programs() { for p in apk opkg fw4 fw3 wg ubus uci; do [ -z "$(command -v "$p")" ] || echo "$p"; done; }

timer_runs() { [ -f "$R/timer.pid" ] && kill -0 "$(cat "$R/timer.pid")"; }

live() { [ -z "$(command -v wg)" ] || wg show all dump; }

firewall_warnings() {
	if [ -n "$(command -v fw4)" ]; then
		fw4 check 2>&1 | grep '\[!\]'
	fi
	return 0
}

look() {
	part system uname -a
	part release cat /etc/openwrt_release
	part programs programs
	part board ubus call system board
	part info ubus call system info
	say now "$(date +%s)"
	for c in $CONFIGS; do one_config "$c"; done
	part modes ls -l /etc/config
	part staged staged
	part overrides overrides
	part luci luci_apply
	part lock cat "$R/lock/owner"
	part pending cat "$D/pending"
	part restoring cat "$D/restoring"
	part timer timer_runs
	part written cat "$D/written.json"
	part installed installed
	part handlers ubus call network get_proto_handlers
	part interfaces ubus call network.interface dump
	part leases cat /tmp/dhcp.leases
	part neighbours ip neigh show
	part routes4 ip -4 route show
	part routes6 ip -6 route show
	part wg live
	part space df -k /overlay
	part mounts cat /proc/mounts
	part root root_password
	part keys cat /etc/dropbear/authorized_keys
	[ -z "$CHECKFW" ] || part firewall firewall_warnings
	say looked yes
}
