# Takes a change back now. Set before it: ID ("" for whatever is pending).
takeback() {
	[ ! -f "$R/timer.pid" ] || kill "$(cat "$R/timer.pid")" 2>/dev/null
	rm -f "$R/timer.pid"
	[ ! -x "$D/restore" ] || sh "$D/restore" now "$ID"
	[ ! -e "$D/pending" ] && [ ! -e "$D/restoring" ] || give_up stuck "$D/pending"
	say takenback yes
}
