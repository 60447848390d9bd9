# Our own key goes in, and root gets a password. Set before it: SETKEY, SETHASH.
# Standard input: a tar archive with "key" (one authorized_keys line) and "hash"
# (a crypt hash).
access() {
	rm -rf "$R/in" && mkdir -p "$R/in" && chmod 700 "$R" && tar -x -f - -C "$R/in" || give_up unpack "$R/in"
	[ -z "$SETKEY" ] || add_key || give_up nospace /etc/dropbear/authorized_keys
	[ -z "$SETHASH" ] || set_hash || give_up nospace /etc/shadow
	sync
	rm -rf "$R/in"
	say access done
}

# dropbear reads only this file for root, and only when nobody else may write it
# or the directory.
add_key() {
	mkdir -p /etc/dropbear && chmod 700 /etc/dropbear || return 1
	f=/etc/dropbear/authorized_keys
	if [ -f $f ] && grep -q -x -F -f "$R/in/key" $f; then
		chmod 600 $f
		return
	fi
	{ [ ! -f $f ] || cat $f; } >$f.new && cat "$R/in/key" >>$f.new &&
		grep -q -x -F -f "$R/in/key" $f.new && chmod 600 $f.new && sync && mv $f.new $f
}

# Only an empty password is replaced: a password that somebody set stays.
set_hash() {
	case "$(grep '^root:' /etc/shadow)" in root::*) ;; *) return 0 ;; esac
	cp -p /etc/shadow /etc/shadow.new && chmod 600 /etc/shadow.new || return 1
	read -r hw_hash <"$R/in/hash"
	while IFS=: read -r hw_user hw_old hw_tail; do
		[ "$hw_user" != root ] || hw_old=$hw_hash
		printf '%s:%s:%s\n' "$hw_user" "$hw_old" "$hw_tail"
	done </etc/shadow >/etc/shadow.new
	grep -q '^root:\$' /etc/shadow.new && sync && mv /etc/shadow.new /etc/shadow
}
