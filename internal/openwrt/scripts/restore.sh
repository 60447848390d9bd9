#!/bin/sh
# heimweg: takes back a change that was not confirmed.
# restore timer|now|boot [ID]. Interrupt it anywhere and run it again: copies come
# first, then renames, and the marker goes last.
D=/etc/heimweg
R=/tmp/heimweg
if [ ! -f $D/restoring ]; then
	[ -f $D/pending ] || exit 0
	if [ -n "$2" ]; then
		read -r id rest <$D/pending
		[ "$id" = "$2" ] || exit 0
	fi
	# Renaming decides between us and a confirmation that comes at the same moment.
	mv $D/pending $D/restoring || exit 0
fi
while read -r c; do
	cp -p "$D/undo/$c" "/etc/config/.hw-$c"
done <$D/undo/manifest
sync
while read -r c; do
	[ ! -f "/etc/config/.hw-$c" ] || mv "/etc/config/.hw-$c" "/etc/config/$c"
done <$D/undo/manifest
sync
if [ "$1" != boot ]; then
	sh $D/undo/reload >/dev/null 2>&1
fi
rm -f $D/restoring
sync
rm -rf $R/lock
logger -t heimweg "took back an unconfirmed change ($1)"
exit 0
