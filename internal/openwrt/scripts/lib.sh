# Common to all of heimweg's scripts. Set before it: N, a nonce that no output
# of the router can contain. Only what busybox ash of 21.02 to 25.12 has is used
# (there is no timeout, stat, base64 or od in any release).
export LC_ALL=C
umask 077
trap '' PIPE # a lost connection does not stop a script half-way: it ends, and unlocks
OURLOCK=''
D=/etc/heimweg
R=/tmp/heimweg

# part NAME COMMAND…: the command's output and exit code as one framed part; the
# exit code is its own, too.
part() {
	hw_name=$1
	shift
	printf '\n@%s begin %s\n' "$N" "$hw_name"
	"$@" 2>&1
	hw_exit=$?
	printf '\n@%s end %s %s\n' "$N" "$hw_name" "$hw_exit"
	return $hw_exit
}

# say NAME TEXT: one line as a part of its own.
say() { part "$1" printf '%s\n' "$2"; }

# room: kilobytes that are free in RAM.
room() { df -k /tmp | sed -n '$s/^.* \([0-9][0-9]*\)  *[0-9][0-9]*% .*$/\1/p'; }

sum() { sha256sum <"$1" 2>/dev/null | cut -c1-64; }

# give_up CODE TEXT: ends the script with a failure that package openwrt
# understands. Nothing may have been changed before it, or undo must have run.
give_up() {
	say failed "$1 $2"
	[ -z "$OURLOCK" ] || rm -rf "$R/in" "$R/begin.pid"
	[ -z "$OURLOCK" ] || unlock
	exit 1
}

# The lock is a directory in RAM: made atomically, gone after a reboot. flock
# would not outlive the command that took it, and a run is several commands.
lock() {
	mkdir -p "$R" && chmod 700 "$R"
	if ! mkdir "$R/lock" 2>/dev/null; then
		hw_id='' hw_since=0
		read -r hw_id hw_since <"$R/lock/owner" 2>/dev/null
		hw_now=$(date +%s)
		if [ "$hw_id" != "$ID" ] && [ $((hw_now - ${hw_since:-0})) -lt "$LOCKSECONDS" ] && [ "$hw_now" -ge "${hw_since:-0}" ]; then
			give_up locked "$hw_id $hw_since"
		fi
	fi
	OURLOCK=1
	printf '%s %s\n' "$ID" "$(date +%s)" >"$R/lock/owner"
}

unlock() { rm -rf "$R/lock"; }

# quiet_router CONFIG…: nobody else's unfinished work is lying about.
quiet_router() {
	[ ! -e "$D/pending" ] && [ ! -e "$D/restoring" ] || give_up pending "$(cat "$D/pending" "$D/restoring" 2>/dev/null)"
	for hw_c in "$@"; do
		[ ! -s "/tmp/.uci/$hw_c" ] || give_up staged "$hw_c"
		[ ! -e "/var/run/uci/$hw_c" ] || give_up override "$hw_c"
	done
	for hw_f in /var/run/rpcd/snapshot-files/*; do
		[ ! -e "$hw_f" ] || give_up luci "$hw_f"
	done
}

# until_ok SECONDS COMMAND…: waits for a fact with a deadline.
until_ok() {
	hw_left=$(($1 * 5))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$hw_left" -gt 0 ] || return 1
		hw_left=$((hw_left - 1))
		sleep 0.2
	done
}

# background NAME PROGRAM ARGUMENT…: outlives this session. Without a pid file of
# its own, start-stop-daemon would take any other running PROGRAM for it and start
# nothing (busybox, debianutils/start_stop_daemon.c, pid_is_exec).
background() {
	hw_pid=$R/$1.pid hw_program=$2
	shift 2
	rm -f "$hw_pid"
	start-stop-daemon -S -b -m -p "$hw_pid" -x "$hw_program" -- "$@"
}
