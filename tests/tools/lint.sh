#!/bin/sh
# Runs one lint, or all of them: lint.sh [fmt|clippy|doc]...
set -eu

cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- fmt clippy doc

for step in "$@"; do
    case "$step" in
        fmt)
            cargo fmt --version >/dev/null 2>&1 ||
                { echo "skipped: cargo fmt is not installed (rustup component add rustfmt)"; continue; }
            cargo fmt --all -- --check --color never
            ;;
        clippy)
            cargo clippy --version >/dev/null 2>&1 ||
                { echo "skipped: cargo clippy is not installed (rustup component add clippy)"; continue; }
            cargo clippy --quiet --workspace --all-targets -- -D warnings
            if command -v mpicc >/dev/null 2>&1; then
                cargo clippy --quiet --features mpi -p ptystream-common -p ptystream --lib --bins \
                    --test link --test mpi --test goldens -- -D warnings
            fi
            ;;
        doc)
            RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
            ;;
        *)
            echo "lint.sh: no lint '$step'; there are fmt, clippy, doc" >&2
            exit 2
            ;;
    esac
done
