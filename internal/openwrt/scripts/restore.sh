#!/bin/sh
# heimweg: takes back a change that was not confirmed.
# restore timer|now|boot [ID]. Interrupt it anywhere and run it again: the marker
# goes last.
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
# Whoever was writing stops now, or it would go on with the other half.
for f in begin activate; do
	[ ! -f $R/$f.pid ] || kill -9 "$(cat $R/$f.pid)" 2>/dev/null
done
rm -f $R/begin.pid $R/activate.pid /etc/config/.hw-*
# The copies themselves are renamed into place: that needs no room, so it works on
# a flash that is full, and what is done already is not done again.
while read -r c; do
	[ ! -f "$D/undo/$c" ] || mv "$D/undo/$c" "/etc/config/$c" || exit 1
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
