#!/bin/sh
# Fuzzes every decoder of what comes from outside: fuzz.sh SECONDS [TARGET ...]
#
# Needs a nightly compiler and cargo-fuzz, and installs the latter. Corpora and what made a target crash
# lie in target/fuzz.
set -eu

secs=${1:-600}
[ $# -gt 0 ] && shift
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root/tests/fuzz"
say() { printf 'fuzz: %s\n' "$*" >&2; }

if ! cargo +nightly --version >/dev/null 2>&1; then
    say "a nightly compiler is needed: rustup toolchain install nightly"
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    say "installing cargo-fuzz"
    cargo install --quiet cargo-fuzz
fi
targets=$*
[ -n "$targets" ] || targets=$(cargo +nightly fuzz list --fuzz-dir .)
work="$root/target/fuzz"
mkdir -p "$work"
"$root/.venv/bin/python" "$root/tests/tools/fuzz_seeds.py" "$root/../shared/real/streams" "$work/seeds"
for target in $targets; do
    say "$target for $secs s"
    mkdir -p "$work/corpus/$target" "$work/seeds/$target" "$work/artifacts/$target"
    # A target stops at its first crash; 2 GiB, and 20 s for one input, are far beyond what any may take.
    cargo +nightly fuzz run --fuzz-dir . --target-dir "$work/build" "$target" \
        "$work/corpus/$target" "$work/seeds/$target" -- \
        -max_total_time="$secs" -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=20 -max_len=65536 \
        -artifact_prefix="$work/artifacts/$target/" -print_final_stats=1 -verbosity=0
done
say "no target crashed"
