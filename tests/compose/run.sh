#!/bin/sh
# Builds the image and runs compose.yaml: a producer, three workers and a sink on a network of their own.
# A worker is killed and the sink started anew in mid-scan; the file equals that of `run`.
#
#   run.sh PTYSTREAM FOLDER     the program, built on Debian 12; where engine and scans lie
#
# Exit status 0: it went well. 77: there is no engine, and why is said. Others: it did not.
set -eu

ptystream=$(readlink -f "$1")
mkdir -p "$2"
folder=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/compose/engine.sh
. "$here/engine.sh"

say() { printf 'compose: %s\n' "$*" >&2; }
fail() {
    say "$*"
    compose logs --no-color >"$folder/logs" 2>&1 || true
    tail -n 40 "$folder/logs" >&2
    exit 1
}
skip() { say "skipped: $reason"; exit 77; }
project=ptystream-test-$$
compose() {
    (cd "$root" && docker-compose -p "$project" -f compose.yaml "$@")
}
finish() {
    [ -z "${started:-}" ] || compose down -t 5 --volumes >/dev/null 2>&1 || true
    engine_stop
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

grep -qs 'VERSION_CODENAME=bookworm' /etc/os-release ||
    { reason='the program was not built on Debian 12, as the image needs it'; skip; }
engine_start "$folder/engine" || skip
base_image ptystream-base || skip

say 'building the image'
context=$(mktemp -d)
cp "$ptystream" "$context/ptystream"
cp "$root/Dockerfile" "$context/Dockerfile"
strip "$context/ptystream" 2>/dev/null || true
docker build -q -t ptystream-test --target packaged --build-arg BASE=ptystream-base \
    "$context" >"$folder/build.log" 2>&1 || { cat "$folder/build.log" >&2; exit 1; }
rm -rf "$context"

out=$(mktemp -d "$folder/out.XXXXXX")
cat >"$folder/scan.toml" <<'SCAN'
[data]
name = "moonflower"
num_frames = 600
repeat = 20
shape = 128
# As a detector gives them, so that there is time to disturb it.
live = true
rate = 25.0
seed = 5
energy = 6.2
distance = 7.0
psize = 0.000172
dfile = "scan.ptyd"
save = "link"
[pipeline]
frames_per_chunk = 20
compression = "gzip:9"
SCAN
say 'preparing the scan without containers'
(cd "$folder" && "$ptystream" run scan.toml --quiet --force --set data.dfile=alone.ptyd --set data.live=false >/dev/null)

export PTYSTREAM_IMAGE=ptystream-test PTYSTREAM_SCAN="$folder/scan.toml" PTYSTREAM_OUT="$out"
say 'starting producer, three workers and sink'
started=1
compose up -d --no-build --scale worker=3 >"$folder/up.log" 2>&1 || { cat "$folder/up.log" >&2; fail 'compose up failed'; }
deadline=$(($(date +%s) + 180))
until [ -e "$out/scan.ptyd.part002" ]; do
    [ "$(date +%s)" -lt "$deadline" ] || fail 'no chunks were written'
    sleep 0.1
done
sink=$(compose ps -q sink)
# The engine looks every few seconds.
health=starting
for _ in $(seq 60); do
    health=$(docker inspect -f '{{.State.Health.Status}}' "$sink")
    [ "$health" = starting ] || break
    sleep 0.2
done
[ "$health" = healthy ] || fail "the sink is $health"
[ ! -e "$out/scan.ptyd.report.json" ] || fail 'the scan was over before it could be disturbed'
say 'killing a worker, and starting the sink anew'
worker=$(compose ps -q worker | head -n 1)
docker kill "$worker" >/dev/null || fail 'the worker is not there to be killed'
docker restart -t 10 "$sink" >/dev/null
deadline=$(($(date +%s) + 240))
until [ -e "$out/scan.ptyd.report.json" ] && [ -z "$(docker ps -q --filter "label=com.docker.compose.project=$project")" ]; do
    [ "$(date +%s)" -lt "$deadline" ] || fail 'the scan did not end'
    sleep 0.5
done
for role in producer sink; do
    code=$(docker inspect -f '{{.State.ExitCode}}' "$(compose ps -q "$role")")
    [ "$code" = 0 ] || fail "the $role ended with $code"
done
"$ptystream" compare "$folder/alone.ptyd" "$out/scan.ptyd" || fail 'the files differ'
owner=$(stat -c %u "$out/scan.ptyd")
[ "$owner" = 1000 ] || fail "the file belongs to $owner"
say "the file equals that of 'run'"
