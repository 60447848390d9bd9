# One piece of an image comes over standard input. Set before it: OFFSET (where it
# goes), LENGTH, TOTAL (of the image), all in bytes.
size() { wc -c <"$1" 2>/dev/null || echo 0; }

upload() {
	mkdir -p "$R" && chmod 700 "$R"
	if [ "$OFFSET" -eq 0 ]; then
		rm -f "$R/image"
		[ "$(room)" -gt $((TOTAL / 1024 + 1024)) ] || give_up noram "$(room) $((TOTAL / 1024))"
		: >"$R/image"
	fi
	[ "$(size "$R/image")" -eq "$OFFSET" ] || give_up offset "$(size "$R/image")"
	cat >>"$R/image" 2>/dev/null
	if [ "$(size "$R/image")" -ne $((OFFSET + LENGTH)) ]; then
		hw_got=$(size "$R/image")
		rm -f "$R/image"
		give_up noram "$(room) $((TOTAL / 1024)) $hw_got"
	fi
	say uploaded "$OFFSET"
}

# judge: the router's own opinion of the image. Set before it: SUM, KEEP ("" or -n).
judge() {
	[ "$(sum "$R/image")" = "$SUM" ] || give_up damaged "$(sum "$R/image")"
	part test sysupgrade -T $KEEP "$R/image"
	say judged yes
}
