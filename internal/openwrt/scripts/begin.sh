# The guarded write: snapshot, guards, write, validate, activate. Set before it:
# ID, LOCKSECONDS, GUARD (seconds), CHANGED (configs), ACTIVATESECONDS and, for
# each config, OLD_x and NEW_x (SHA-256 of the file before and after).
# The new files come as a tar archive on standard input.
old() { eval "printf %s \"\$OLD_$1\""; }
new() { eval "printf %s \"\$NEW_$1\""; }

unchanged() {
	for c in $CHANGED; do
		[ "$(sum "/etc/config/$c")" = "$(old "$c")" ] || return 1
	done
}

receive() {
	rm -rf "$R/in" && mkdir -p "$R/in" && tar -x -f - -C "$R/in" || give_up unpack "$R/in"
	for c in $CHANGED; do
		[ "$(sum "$R/in/$c")" = "$(new "$c")" ] || give_up unpack "$c"
	done
}

# Puts KIND's files beside their place, complete and on flash, before any of
# them takes its place.
stage() {
	for c in $CHANGED; do
		cp -p "/etc/config/$c" "/etc/config/.hw-$c" &&
			cat "$R/in/$c" >"/etc/config/.hw-$c" &&
			[ "$(sum "/etc/config/.hw-$c")" = "$(new "$c")" ] || {
			drop_staged
			give_up nospace "/etc/config/$c"
		}
	done
}

drop_staged() { for c in $CHANGED; do rm -f "/etc/config/.hw-$c"; done; }

swap() { for c in $CHANGED; do mv "/etc/config/.hw-$c" "/etc/config/$c" || return 1; done; }

install_guard() {
	mkdir -p "$D" && chmod 700 "$D" &&
		cp "$R/in/restore.sh" "$D/restore.new" && chmod 755 "$D/restore.new" && sync && mv "$D/restore.new" "$D/restore" &&
		cp "$R/in/guard.sh" /etc/init.d/.hw-guard && chmod 755 /etc/init.d/.hw-guard && sync &&
		mv /etc/init.d/.hw-guard /etc/init.d/heimweg-guard &&
		/etc/init.d/heimweg-guard enable &&
		sh -n "$D/restore" && ls /etc/rc.d/S15heimweg-guard >/dev/null
}

# The snapshot: the files as they are, byte for byte and with their modes.
snapshot() {
	rm -rf "$D/undo" && mkdir -p "$D/undo" || return 1
	for c in $CHANGED; do
		cp -p "/etc/config/$c" "$D/undo/$c" && [ "$(sum "$D/undo/$c")" = "$(old "$c")" ] || return 1
		echo "$c" >>"$D/undo/manifest" || return 1
	done
	cp "$R/in/reload.sh" "$D/undo/reload" && sync
}

# arm: from here on a power cut or our silence takes the change back.
arm() {
	printf '%s %s %s\n' "$ID" "$(date +%s)" "$GUARD" >"$D/pending.new" && sync && mv "$D/pending.new" "$D/pending" && sync || return 1
	cp "$R/in/timer.sh" "$R/timer.sh" && background timer /bin/sh "$R/timer.sh" "$GUARD" sh "$D/restore" timer "$ID"
}

take_back() {
	say failed "$1 $2"
	rm -f "$R/begin.pid"
	stop_timer
	rm -f "$R/timer.pid"
	sh "$D/restore" now "$ID"
	rm -rf "$R/in"
	unlock
	exit 1
}

stop_timer() { [ ! -f "$R/timer.pid" ] || kill "$(cat "$R/timer.pid")" 2>/dev/null; }

warnings() { [ -z "$(command -v fw4)" ] || fw4 check 2>&1 | grep '\[!\]'; }

# validate: the router's own readers take the new files, and the firewall skips
# no section that it did not skip before (fw4 exits 0 for a section it skips).
validate() {
	for c in $CHANGED; do
		hw_said=$(uci show "$c" 2>&1 >/dev/null) || take_back unreadable "$c $hw_said"
	done
	case " $CHANGED " in *" firewall "* | *" network "*) ;; *) return ;; esac
	if [ -n "$(command -v fw4)" ]; then
		fw4 check >"$R/fwcheck" 2>&1 || take_back firewall "$(cat "$R/fwcheck")"
		warnings >"$R/warn.new"
		while read -r hw_line; do
			grep -q -x -F -e "$hw_line" "$R/warn.old" || take_back firewall "$hw_line"
		done <"$R/warn.new"
	elif [ -n "$(command -v fw3)" ]; then
		fw3 -q print >/dev/null 2>"$R/fwcheck" || take_back firewall "$(cat "$R/fwcheck")"
	fi
}

# activate: in the background, because it may cut the connection that asked for
# it; we wait here as long as the connection lives.
activate() {
	rm -f "$R/activated"
	cp "$R/in/activate.sh" "$R/activate.sh"
	background activate /bin/sh "$R/activate.sh"
	say activating "$ID"
	until_ok "$ACTIVATESECONDS" test -f "$R/activated" || return 0
	part activated cat "$R/activated"
}

begin() {
	lock
	echo $$ >"$R/begin.pid"
	quiet_router $CHANGED
	unchanged || give_up changed "$CHANGED"
	receive
	install_guard || give_up nospace /etc/init.d/heimweg-guard
	snapshot || give_up nospace "$D/undo"
	stage
	warnings >"$R/warn.old"
	sync
	arm || {
		rm -f "$D/pending" "$D/pending.new"
		drop_staged
		give_up guard "$D/pending"
	}
	unchanged || take_back changed "$CHANGED"
	swap || take_back nospace "/etc/config"
	sync
	validate
	activate
	rm -f "$R/begin.pid"
	say begun "$ID"
}
