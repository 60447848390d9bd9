# Changes peers without dropping anybody's session: the file first, then the
# live interface, then both read back. Set before it: ID, LOCKSECONDS, CHANGED
# ("network" or ""), OLD_network, NEW_network, IFACE. Standard input: a tar
# archive with "network" and "live.sh" (wg set commands; keys in files beside it)
# and "written.json".
peers() {
	lock
	quiet_router network
	unchanged || give_up changed network
	receive
	if [ -n "$CHANGED" ]; then
		cp -p /etc/config/network "$R/network.before"
		stage
		sync
		unchanged || {
			drop_staged
			give_up changed network
		}
		swap || give_up nospace /etc/config/network
		sync
		hw_said=$(uci show network 2>&1 >/dev/null) || {
			cp -p "$R/network.before" /etc/config/.hw-network && sync && mv /etc/config/.hw-network /etc/config/network && sync
			give_up unreadable "network $hw_said"
		}
	fi
	(cd "$R/in" && part live sh ./live.sh)
	mkdir -p "$D" && cp "$R/in/written.json" "$D/written.new" && sync && mv "$D/written.new" "$D/written.json" && sync
	rm -rf "$R/in" "$R/network.before"
	unlock
	say peers done
}
