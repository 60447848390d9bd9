# Files go back to where they were. Set before it: FILES (absolute names, one a
# line), SETHASH, SSH (not empty when the SSH server must read its keys anew).
# Standard input: a tar archive with the files below "f", their modes, and "hash".
put_one() {
	mkdir -p "${1%/*}" && cp -p "$R/in/f$1" "$1.hw-new" && sync && mv "$1.hw-new" "$1"
}

set_root_hash() {
	cp -p /etc/shadow /etc/shadow.new && chmod 600 /etc/shadow.new || return 1
	read -r hw_hash <"$R/in/hash"
	while IFS=: read -r hw_user hw_old hw_tail; do
		[ "$hw_user" != root ] || hw_old=$hw_hash
		printf '%s:%s:%s\n' "$hw_user" "$hw_old" "$hw_tail"
	done </etc/shadow >/etc/shadow.new
	grep -q '^root:\$' /etc/shadow.new && sync && mv /etc/shadow.new /etc/shadow
}

put_back() {
	rm -rf "$R/in" && mkdir -p "$R/in" && chmod 700 "$R" && tar -x -p -f - -C "$R/in" || give_up unpack "$R/in"
	printf '%s\n' "$FILES" >"$R/in/list"
	while read -r hw_file; do
		[ -n "$hw_file" ] || continue
		put_one "$hw_file" || give_up nospace "$hw_file"
	done <"$R/in/list"
	[ ! -d /etc/dropbear ] || chmod 700 /etc/dropbear
	[ -z "$SETHASH" ] || set_root_hash || give_up nospace /etc/shadow
	sync
	rm -rf "$R/in"
	if [ -n "$SSH" ]; then
		printf 'sleep 1\n/etc/init.d/dropbear restart\n' >"$R/ssh.sh"
		background ssh /bin/sh "$R/ssh.sh"
	fi
	say putback done
}
