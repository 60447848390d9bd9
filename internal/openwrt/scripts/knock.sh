# Does a device answer the router, and does it answer the tunnel: one ping from the
# router's address near it, one from the router's address in the tunnel, which only
# comes back when the device knows the way. Set before it: PING, TARGET, FROM.
knock() {
	if part near "$PING" -c 1 -W 2 "$TARGET" && [ -n "$FROM" ]; then
		part far "$PING" -c 1 -W 2 -I "$FROM" "$TARGET"
	fi
	part neighbours ip neigh show
	say knocked yes
}

# Where the peers are, SECONDS times, a second apart.
whereabouts() {
	hw_n=0
	while :; do
		part "at.$hw_n" wg show "$IFACE" endpoints
		hw_n=$((hw_n + 1))
		[ "$hw_n" -lt "$TIMES" ] || break
		sleep 1
	done
	say watched yes
}
