#!/bin/sh
# One scan through four processes on one machine: a producer, two workers and a sink, over ipc.
#
#   examples/three-roles.sh [SCAN.toml]
#
# On several machines the same commands take tcp://HOST:PORT. The order of starting does not matter.
set -eu

scan=${1:-examples/moonflower.toml}
ptystream=${PTYSTREAM:-target/release/ptystream}
[ -x "$ptystream" ] || { echo "no $ptystream: run 'make build', or set PTYSTREAM" >&2; exit 2; }
sockets=$(mktemp -d)
pids=''

# $pids is a list of words; the trap calls this.
# shellcheck disable=SC2086,SC2317
stop() {
    [ -z "$pids" ] || kill $pids 2>/dev/null || true
    rm -rf "$sockets"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

producer="ipc://$sockets/producer"
sink="ipc://$sockets/sink"
mkdir -p out

"$ptystream" producer "$scan" --bind "$producer" &
pids="$pids $!"
"$ptystream" worker --producer "$producer" --sink "$sink" --threads 1 &
pids="$pids $!"
"$ptystream" worker --producer "$producer" --sink "$sink" --threads 1 &
pids="$pids $!"
"$ptystream" sink --producer "$producer" --bind "$sink" &
pids="$pids $!"

# The scan is done when every role says so, with 0 or, where frames are missing, 5. When one fails,
# the others would wait for it; leaving ends them.
status=0
for pid in $pids; do
    wait "$pid" || status=$?
    case "$status" in 0 | 5) ;; *) exit "$status" ;; esac
done
pids=''
exit "$status"
