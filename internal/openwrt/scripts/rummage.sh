# What lies about on a router beside its settings. No key leaves it: of a file that
# holds one go its mode, a SHA-256 of the key, the public key that belongs to it,
# and its path. It changes nothing.
key_files() {
	for f in /root/* /root/.[!.]* /root/*/* /etc/wireguard/* /etc/wg/* /tmp/*.key /tmp/*.sec /tmp/*.psk; do
		[ -f "$f" ] && [ -r "$f" ] || continue
		case "$f" in *'
'*) continue ;; esac
		hw_size=$(wc -c <"$f")
		[ "$hw_size" -ge 44 ] && [ "$hw_size" -le 16384 ] || continue
		if hw_key=$(one_key "$f"); then
			hw_sum=$(printf %s "$hw_key" | sha256sum | cut -c1-64)
			hw_pub=$(printf '%s\n' "$hw_key" | wg pubkey 2>/dev/null)
			echo "$(mode_of "$f") $hw_sum ${hw_pub:--} $f"
		elif grep -qi '^[[:space:]]*PrivateKey[[:space:]]*=' "$f"; then
			echo "$(mode_of "$f") - - $f"
		fi
	done
}

# one_key FILE: the key, when the file holds one and nothing else.
one_key() {
	[ "$(wc -w <"$1")" -eq 1 ] && [ "$(wc -c <"$1")" -le 46 ] || return 1
	read -r hw_k <"$1" || [ -n "$hw_k" ] || return 1
	[ ${#hw_k} -eq 44 ] || return 1
	case "$hw_k" in
	*[!A-Za-z0-9+/=]*) return 1 ;;
	*=) printf %s "$hw_k" ;;
	*) return 1 ;;
	esac
}

mode_of() { ls -ld "$1" | cut -c1-10; }

# The web page's logins, without their passwords.
logins() { sed '/password/d' /etc/config/rpcd; }

rummage() {
	part keyfiles key_files
	part cron cat /etc/crontabs/root
	part rpcd logins
	say rummaged yes
}
