#!/bin/sh
# Sets up what a build or the tests need beyond Rust: Debian packages, and a Python venv.
#
#   setup.sh native        C compiler, pkg-config, HDF5 (for building)
#   setup.sh python FOLDER also ip (for tests with two hosts), Open MPI and libclang (for those of
#                          the feature mpi), Python, and a venv in FOLDER with
#                          tests/python/requirements.txt
#
# What is there already is left alone, so that a second call does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

has_hdf5() {
    has pkg-config && { pkg-config --exists hdf5 || pkg-config --exists hdf5-serial; }
}

# The crate mpi reads mpi.h by it.
has_libclang() {
    for file in /usr/lib/llvm-*/lib/libclang[.-][0-9s]*.so* /usr/lib/llvm-*/lib/libclang.so* \
        /usr/lib/*/libclang-[0-9]*.so* /usr/lib*/libclang.so*; do
        [ -e "$file" ] && return 0
    done
    return 1
}

has_venv() { has python3 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }

missing_packages() {
    has cc || printf ' gcc libc6-dev'
    has c++ || printf ' g++'
    has make || printf ' make'
    has pkg-config || printf ' pkg-config'
    has_hdf5 || printf ' libhdf5-dev'
    if [ "$1" = python ]; then
        has_venv || printf ' python3 python3-venv'
        has ip || printf ' iproute2'
        has mpirun || printf ' openmpi-bin'
        has mpicc || printf ' libopenmpi-dev'
        has_libclang || printf ' libclang-dev'
    fi
}

install() {
    by=''
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || die "these packages are missing:$1. Ask an administrator for: apt-get install$1"
        by='sudo'
        [ -t 0 ] || by='sudo -n'
    fi
    has apt-get || die "these are missing (names as in Debian):$1. There is no apt-get here; install them by your system's means"
    say "installing by apt:$1"
    log=$(mktemp)
    # $by and $1 are lists of words.
    # shellcheck disable=SC2086
    if $by apt-get update >"$log" 2>&1 &&
        $by env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $1 >>"$log" 2>&1
    then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt could not install:$1. Install them by hand and try again"
    fi
}

make_venv() {
    stamp="$1/.requirements"
    wanted="$root/tests/python/requirements.txt"
    if [ -x "$1/bin/python" ] && cmp -s "$wanted" "$stamp"; then
        return
    fi
    say "making a Python environment in $1 from tests/python/requirements.txt"
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" ||
        die "pip could not install tests/python/requirements.txt; is the package index within reach?"
    cp "$wanted" "$stamp"
}

what=${1:-}
case "$what" in
    native | python) ;;
    *) die "usage: setup.sh native | setup.sh python FOLDER" ;;
esac

has cargo || die "cargo is missing. Install Rust first: https://rustup.rs"
packages=$(missing_packages "$what")
if [ -n "$packages" ]; then
    install "$packages"
    packages=$(missing_packages "$what")
    [ -z "$packages" ] || die "still missing after the installation:$packages"
fi
if [ "$what" = python ]; then
    make_venv "${2:?usage: setup.sh python FOLDER}"
fi
