# shellcheck shell=sh
# A Docker engine for the tests, and an image of the program; to be sourced.
#
#   engine_start FOLDER     uses the engine that runs, or starts one with its data in FOLDER
#   base_image NAME         makes a base image: by pulling it, or by debootstrap
#   engine_stop             stops what was started
#
# Each returns 1, with the reason in $reason, where it cannot be done.

engine_pid='' containerd_pid='' reason=''
# Variables are global here: those of whoever sources this are left alone.

need() {
    missing=''
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair##*=}"
    done
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        reason="these are missing:$missing, and only root can install them by apt"
        return 1
    fi
    echo "compose: installing by apt:$missing" >&2
    # $missing is a list of words.
    # shellcheck disable=SC2086
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
        >/dev/null 2>&1 && return 0
    reason="apt could not install:$missing"
    return 1
}

engine_start() {
    need docker=docker.io docker-compose=docker-compose || return 1
    if docker info >/dev/null 2>&1; then
        return 0
    fi
    [ "$(id -u)" -eq 0 ] || { reason='no Docker engine runs, and only root can start one'; return 1; }
    need dockerd=docker.io containerd=containerd iptables=iptables || return 1
    mkdir -p "$1/run"
    engine_folder=$(cd "$1" && pwd)
    DOCKER_HOST="unix://$engine_folder/run/docker.sock"
    export DOCKER_HOST
    containerd --root "$engine_folder/containerd" --state "$engine_folder/run/containerd" \
        --address "$engine_folder/run/containerd.sock" >"$engine_folder/containerd.log" 2>&1 &
    containerd_pid=$!
    dockerd --data-root "$engine_folder/data" --exec-root "$engine_folder/run/docker" \
        --pidfile "$engine_folder/run/docker.pid" --host "$DOCKER_HOST" \
        --containerd "$engine_folder/run/containerd.sock" >"$engine_folder/dockerd.log" 2>&1 &
    engine_pid=$!
    for _ in $(seq 150); do
        docker info >/dev/null 2>&1 && return 0
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 0.2
    done
    reason="the Docker engine does not start: $(tail -n 2 "$engine_folder/dockerd.log" | tr '\n' ' ')"
    return 1
}

engine_stop() {
    for pid in $engine_pid $containerd_pid; do
        kill "$pid" 2>/dev/null || continue
        wait "$pid" 2>/dev/null || true
    done
    engine_pid='' containerd_pid=''
}

base_image() {
    docker image inspect "$1" >/dev/null 2>&1 && return 0
    if timeout 60 docker pull -q debian:bookworm-slim >/dev/null 2>&1; then
        docker tag debian:bookworm-slim "$1"
        return 0
    fi
    [ "$(id -u)" -eq 0 ] || { reason='the base image cannot be pulled'; return 1; }
    need debootstrap=debootstrap || return 1
    mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n 1)
    [ -n "$mirror" ] ||
        mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)
    [ -n "$mirror" ] || { reason='no Debian mirror is known to apt'; return 1; }
    tree=$(mktemp -d)
    echo "compose: making a base image by debootstrap" >&2
    if debootstrap --variant=minbase --include=libhdf5-103-1 bookworm "$tree" "$mirror" >"$tree.log" 2>&1; then
        tar -C "$tree" -c . | docker import - "$1" >/dev/null
        made=$?
    else
        made=1
    fi
    # Whoever sources this says it.
    # shellcheck disable=SC2034
    reason="debootstrap failed: $(tail -n 1 "$tree.log")"
    rm -rf "$tree" "$tree.log"
    return "$made"
}
