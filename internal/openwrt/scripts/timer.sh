#!/bin/sh
# heimweg: waits, then does what must not depend on anybody coming back.
# timer.sh SECONDS COMMAND ARGUMENT…
trap 'kill $nap 2>/dev/null; exit 0' TERM
sleep "$1" &
nap=$!
wait $nap
trap - TERM
shift
exec "$@"
