# Takes a change back now. Set before it: ID ("" for whatever is pending).
takeback() {
	# A script that is still writing for this run is stopped before it can arm or
	# swap anything more.
	hw_id='' hw_rest=''
	read -r hw_id hw_rest <"$R/lock/owner" 2>/dev/null
	if [ -f "$R/begin.pid" ] && { [ -z "$ID" ] || [ "$hw_id" = "$ID" ]; }; then
		kill -9 "$(cat "$R/begin.pid")" 2>/dev/null
		rm -f "$R/begin.pid" /etc/config/.hw-*
	fi
	[ ! -f "$R/timer.pid" ] || kill "$(cat "$R/timer.pid")" 2>/dev/null
	rm -f "$R/timer.pid"
	[ ! -x "$D/restore" ] || sh "$D/restore" now "$ID"
	[ ! -e "$D/pending" ] && [ ! -e "$D/restoring" ] || give_up stuck "$D/pending"
	[ "$hw_id" != "$ID" ] || unlock
	say takenback yes
}
