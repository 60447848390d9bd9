# The image is written. Set before it: ID, LOCKSECONDS, SUM, OPTIONS (of sysupgrade).
# Standard input: a tar archive with upgrade.json, our note for the time after, and
# with few.tgz when only that is kept.
keep_line() { grep -q -x -F -e "$1" /etc/sysupgrade.conf 2>/dev/null || echo "$1" >>/etc/sysupgrade.conf; }

# note_down: what the next life of the router has to know about the last one.
note_down() {
	mkdir -p "$D" && chmod 700 "$D" &&
		cp "$R/in/upgrade.json" "$D/upgrade.new" && sync && mv "$D/upgrade.new" "$D/upgrade.json" &&
		keep_line "$D/written.json" && keep_line "$D/upgrade.json" && keep_line "$D/packages" && sync
}

commence() {
	lock
	quiet_router network firewall dhcp dropbear system
	[ "$(sum "$R/image")" = "$SUM" ] || give_up damaged "$(sum "$R/image")"
	rm -rf "$R/in" && mkdir -p "$R/in" && tar -x -f - -C "$R/in" || give_up unpack "$R/in"
	note_down || give_up nospace "$D/upgrade.json"
	rm -f "$R/upgrade.exit" "$R/upgrade.log"
	[ ! -f "$R/in/few.tgz" ] || mv "$R/in/few.tgz" "$R/few.tgz"
	echo "$ID" >"$R/upgrading" # in RAM: gone when the router has started again
	cat >"$R/upgrade.sh" <<END
sleep 1
sysupgrade $OPTIONS "$R/image" >"$R/upgrade.log" 2>&1
echo \$? >"$R/upgrade.exit"
END
	background upgrade /bin/sh "$R/upgrade.sh"
	say commencing "$ID"
	until_ok 60 test -f "$R/upgrade.exit" || return 0
	# It may end with an error although the router goes down: ubus is gone by then.
	! grep -q 'Commencing upgrade' "$R/upgrade.log" || return 0
	rm -f "$R/upgrading" "$D/upgrade.json"
	give_up upgrade "$(cat "$R/upgrade.log")"
}

# arrival: where an upgrade stands.
arrival() {
	part upgrading cat "$R/upgrading"
	part unpacking ls /sysupgrade.tgz
	part note cat "$D/upgrade.json"
	say arrived yes
}

# forget: the upgrade is over. What was asked for by name is noted in PACKAGES,
# because in the next look some of it is part of the image.
forget() {
	mkdir -p "$D" && chmod 700 "$D" && printf '%s\n' $PACKAGES >"$D/packages.new" && sync && mv "$D/packages.new" "$D/packages" || give_up nospace "$D/packages"
	rm -f "$D/upgrade.json" "$R/upgrading" "$R/image" "$R/few.tgz"
	sync
	say forgotten yes
}
