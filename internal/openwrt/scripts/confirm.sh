# Keeps what was begun. Set before it: ID. The record of what was written comes
# on standard input.
confirm() {
	mkdir -p "$R"
	cat >"$R/written.json"
	cp "$R/written.json" "$D/written.new" && sync || give_up nospace "$D/written.json"
	read -r hw_id hw_rest <"$D/pending" 2>/dev/null
	[ "$hw_id" = "$ID" ] || give_up late "$hw_id"
	# Whoever renames first wins: the guard takes the same file away.
	mv "$D/pending" "$D/confirmed" 2>/dev/null || give_up late "$ID"
	mv "$D/written.new" "$D/written.json"
	[ ! -f "$R/timer.pid" ] || kill "$(cat "$R/timer.pid")" 2>/dev/null
	rm -f "$R/timer.pid" "$R/written.json" "$D/confirmed"
	sync
	unlock
	say confirmed "$ID"
}
